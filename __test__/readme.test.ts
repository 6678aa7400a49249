/**
 * The README as its readers meet it: every TypeScript program in it is type-checked, run, and compared with what the page
 * says it prints. A block is named in its first line (```ts title="quickstart.mts"); the block titled
 * "quickstart.mts prints" is its output. In ```console blocks the lines after `$ ` are typed.
 */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const repository = join(import.meta.dirname, '..');
const readme = readFileSync(join(repository, 'README.md'), 'utf8');

interface Block {
  language: string;
  title: string | undefined;
  text: string;
}

const blocks: Block[] = [...readme.matchAll(/^```(\w+)(?: title="([^"]+)")?\n([\s\S]*?)^```$/gm)].map(([, language, title, text]) => ({
  language: language ?? '',
  title,
  text: text ?? '',
}));
const programs = blocks.filter(({ language }) => language === 'ts').map(({ title, text }) => ({ name: title ?? 'a program without a title', text }));

function block(title: string): string {
  const found = blocks.find((block) => block.title === title);
  if (!found) throw new Error(`README.md has no block titled "${title}"`);
  return found.text;
}

/** What is typed after `$ ` in a console block, lines that end in a backslash with the next one. */
function typed(title: string): string[] {
  return [...block(title).matchAll(/^\$ ((?:.*\\\n)*.*)$/gm)].map(([, command]) => command ?? '');
}

/** The server that the programs of the README find in their environment, and a schema there of its own. */
const POSTGRES = process.env['FRAMEWRIGHT_TEST_POSTGRES'] ?? 'postgres://postgres@127.0.0.1:5432/test';
const schema = `readme_${randomBytes(8).toString('hex')}`;
const database = new URL(POSTGRES);
database.searchParams.set('schema', schema);

let project: string;
let modules: string;

beforeAll(() => {
  project = realpathSync(mkdtempSync(join(tmpdir(), 'framewright-readme-')));
  modules = join(project, 'node_modules');
  // As npm lays it out: the package, and its command.
  mkdirSync(join(modules, '.bin'), { recursive: true });
  symlinkSync(repository, join(modules, 'framewright'));
  const command = join(modules, '.bin', 'framewright');
  writeFileSync(command, `#!/bin/sh\nexec '${process.execPath}' '${join(modules, 'framewright', 'dist', 'cli', 'main.js')}' "$@"\n`);
  chmodSync(command, 0o755);
  writeFileSync(join(project, 'package.json'), '{ "private": true }');
  for (const { name, text } of programs) writeFileSync(join(project, name), text);
});

afterAll(() => {
  rmSync(project, { recursive: true, force: true });
  execFileSync('psql', ['-X', '-q', POSTGRES, '-c', `DROP SCHEMA IF EXISTS ${schema} CASCADE`], { env: { ...process.env, PGOPTIONS: '-c client_min_messages=error' } });
});

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(program: string, args: string[], { path = '' } = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const own = Object.entries(process.env).filter(([name]) => !/^(NODE_|VITEST|FORCE_COLOR|npm_)/.test(name));
    const env = { ...Object.fromEntries(own), DATABASE_URL: database.href, PATH: [path, process.env['PATH']].filter(Boolean).join(delimiter) };
    const child = spawn(program, args, { cwd: project, env, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, killSignal: 'SIGKILL' });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (data: string) => (stdout += data));
    child.stderr.setEncoding('utf8').on('data', (data: string) => (stderr += data));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
  });
}

/** Types a command into a shell, in the project; `npx` finds what is installed there. */
function shell(command: string, path = ''): Promise<Ended> {
  return run('/bin/sh', ['-c', command.replaceAll(/\bnpx framewright\b/g, `'${join(modules, '.bin', 'framewright')}'`)], { path });
}

describe('the programs of the README', () => {
  it('have names, so that none is left out here, and say what they print', () => {
    expect(programs.map(({ name }) => name)).toEqual(expect.arrayContaining(['quickstart.mts', 'executors.mts', 'control.mts', 'durable.mts', 'farm.mts', 'repository.mts', 'errors.mts']));
    for (const { name } of programs) expect(name).toMatch(/^\w+\.mts$/);
    for (const { name } of programs) expect(block(`${name} prints`)).not.toBe('');
  });

  it('are right by the types of the package, strictly', () => {
    const checked = ts.createProgram({
      rootNames: programs.map(({ name }) => join(project, name)),
      options: {
        strict: true,
        noUncheckedIndexedAccess: true,
        exactOptionalPropertyTypes: true,
        noUnusedLocals: true,
        noEmit: true,
        target: ts.ScriptTarget.ES2022,
        lib: ['lib.es2023.d.ts'],
        module: ts.ModuleKind.NodeNext,
        moduleResolution: ts.ModuleResolutionKind.NodeNext,
        types: ['node'],
        typeRoots: [join(repository, 'node_modules', '@types')],
      },
    });
    const problems = ts.getPreEmitDiagnostics(checked);
    expect(ts.formatDiagnostics(problems, { getCanonicalFileName: (name) => name, getCurrentDirectory: () => project, getNewLine: () => '\n' })).toBe('');
  }, 60_000);

  it.each(programs)('$name prints what the page says', async ({ name, text }) => {
    const script = join(project, name.replace(/\.mts$/, '.mjs'));
    const { outputText } = ts.transpileModule(text, { fileName: name, compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 } });
    writeFileSync(script, outputText);
    expect(await run(process.execPath, [script])).toEqual({ code: 0, stdout: block(`${name} prints`), stderr: '' });
  }, 30_000);

  it('the quickstart is JavaScript as it stands, and at most thirty lines', async () => {
    const text = block('quickstart.mts');
    expect(text.trimEnd().split('\n').length).toBeLessThanOrEqual(30);
    writeFileSync(join(project, 'plain.mjs'), text);
    expect(await run(process.execPath, ['plain.mjs'])).toMatchObject({ code: 0, stderr: '' });
  }, 30_000);
});

describe('the terminal of the README', () => {
  it('shows the help as it is', async () => {
    const [command = ''] = typed('commands');
    expect(await shell(command)).toEqual({ code: 0, stdout: block('commands').split('\n').slice(1).join('\n'), stderr: '' });
  });

  it('shows commands that make the film', async () => {
    const { findFfmpeg } = (await import(join(repository, 'examples', 'ffmpeg.mjs'))) as { findFfmpeg(): Promise<{ ffmpeg: string }> };
    const path = dirname((await findFfmpeg()).ffmpeg);
    const [plan = '', first = '', second = ''] = typed('terminal');
    expect(second).toBe(first);
    expect(await shell(plan, path)).toEqual({ code: 0, stdout: '', stderr: '' });
    const { code, stdout, stderr } = await shell(first, path);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    expect(stdout.split('\n')[0]).toBe(/^rendering .*$/m.exec(block('terminal'))?.[0]);
    // Paths, sizes and times are others each time; the words are not.
    const words = (line = ''): string => line.replace(/done: .*film\.mp4/, 'done: film.mp4').replaceAll(/\d+\.\d/g, '#');
    expect(words(stdout.trimEnd().split('\n').at(-1))).toBe(words(/^done: .*$/m.exec(block('terminal'))?.[0]));
    expect(existsSync(join(project, 'film.mp4'))).toBe(true);
  }, 120_000);
});

describe('the tables of the README', () => {
  const types = readFileSync(join(repository, 'index.d.ts'), 'utf8');
  /** The members of a union of texts. */
  const union = (name: string): string[] => {
    const body = new RegExp(`type ${name} =([^;]*);`).exec(types)?.[1] ?? '';
    return [...body.matchAll(/'([^']+)'/g)].map(([, text]) => text ?? '');
  };

  it('name every error code', () => {
    const codes = union('ErrorCode');
    expect(codes.length).toBeGreaterThan(20);
    expect(codes.filter((code) => !readme.includes(`\`${code}\``))).toEqual([]);
  });

  it('name only events that there are', () => {
    const told = new Set([...types.matchAll(/type: '((?:job|chunk|merge)\.\w+)'/g)].map(([, type]) => type ?? ''));
    const section = /^## Events\n([\s\S]*?)^## /m.exec(readme)?.[1] ?? '';
    const named = [...section.matchAll(/`((?:job|chunk|merge)\.[a-z_]+)`/g)].map(([, type]) => type ?? '');
    expect(named.length).toBeGreaterThan(15);
    expect(named.filter((type) => !told.has(type))).toEqual([]);
  });

  it('lead only to files that are there', () => {
    const targets = [...readme.matchAll(/\]\(([^)#]+)\)/g)].map(([, target]) => target ?? '').filter((target) => !/^https?:/.test(target));
    expect(targets.length).toBeGreaterThan(4);
    expect(targets.filter((target) => !existsSync(join(repository, target)))).toEqual([]);
    const headings = [...readme.matchAll(/^## (.*)$/gm)].map(([, title]) => (title ?? '').toLowerCase().replaceAll(' ', '-'));
    const anchors = [...readme.matchAll(/\]\(#([^)]+)\)/g)].map(([, anchor]) => anchor);
    for (const anchor of anchors) expect(headings).toContain(anchor);
  });
});
