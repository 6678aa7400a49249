import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const execute = promisify(execFile);
const repository = join(import.meta.dirname, '..');

let folder: string;
let mainTarball: string;
let platformTarball: string;
let platformPackage: string;

async function node(cwd: string, ...args: string[]): Promise<string> {
  const { stdout } = await execute(process.execPath, args, { cwd });
  return stdout.trim();
}

async function npmInstall(project: string, ...tarballs: string[]): Promise<void> {
  await mkdir(project);
  await writeFile(join(project, 'package.json'), '{ "private": true }');
  const cli = process.env['npm_execpath'];
  const args = ['install', '--offline', '--no-audit', '--no-fund', ...tarballs];
  // The npm that runs the tests sets variables for its own scripts; a user's npm starts without them.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_(package|lifecycle|config_local)/.test(name)));
  if (cli?.endsWith('.js')) await execute(process.execPath, [cli, ...args], { cwd: project, env });
  else await execute('npm', args, { cwd: project, env });
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'framewright-package-'));
  const artifacts = join(folder, 'artifacts');
  await node(repository, 'scripts/pack.mjs', '--no-build', '--out', artifacts);
  const tarballs = await readdir(artifacts);
  const main = tarballs.find((name) => /^framewright-\d/.test(name));
  const platform = tarballs.find((name) => name !== main);
  if (!main || !platform) throw new Error(`two tarballs expected, found: ${tarballs.join(', ')}`);
  mainTarball = join(artifacts, main);
  platformTarball = join(artifacts, platform);
  platformPackage = platform.replace(/-\d.*$/, '');
}, 120_000);

afterAll(async () => {
  await rm(folder, { recursive: true, force: true });
});

describe('installed from its tarballs', () => {
  let project: string;

  beforeAll(async () => {
    project = join(folder, 'project');
    await npmInstall(project, mainTarball, platformTarball);
  }, 120_000);

  test('it brings nothing but itself and its platform package', async () => {
    const installed = (await readdir(join(project, 'node_modules'))).filter((name) => !name.startsWith('.'));
    expect(installed.sort()).toEqual(['framewright', platformPackage]);
  });

  test('it ships the files it needs and no sources', async () => {
    const shipped = await readdir(join(project, 'node_modules', 'framewright'));
    expect(shipped.sort()).toEqual(
      ['CHANGELOG.md', 'LICENSE', 'README.md', 'dist', 'index.d.mts', 'index.d.ts', 'package.json'],
    );
    const built = await readdir(join(project, 'node_modules', 'framewright', 'dist'), { recursive: true, withFileTypes: true });
    const unexpected = built.filter((entry) => entry.isFile() && !/\.js$|^index\.mjs$/.test(entry.name));
    expect(unexpected.map((entry) => entry.name)).toEqual([]);
  });

  test('import and require give the same names and the same class', async () => {
    const program = `
      import * as imported from 'framewright';
      import { createRequire } from 'node:module';
      const required = createRequire(import.meta.url)('framewright');
      console.log(JSON.stringify({
        imported: Object.keys(imported).sort(),
        required: Object.keys(required).sort(),
        same: imported.JobManager === required.JobManager,
        kind: typeof imported.JobManager,
      }));
    `;
    await writeFile(join(project, 'both.mjs'), program);
    const result = JSON.parse(await node(project, 'both.mjs')) as { imported: string[]; required: string[]; same: boolean; kind: string };
    expect(result).toMatchObject({ same: true, kind: 'function' });
    expect(result.imported).toEqual(result.required);
  });

  test('the framewright command is there', async () => {
    const commands = await readdir(join(project, 'node_modules', '.bin'));
    expect(commands).toContain('framewright');
  });
});

describe('installed without its platform package', () => {
  test('loading fails and says which package is missing and how to install it', async () => {
    const project = join(folder, 'alone');
    await npmInstall(project, '--omit=optional', mainTarball);
    const program = `
      try {
        require('framewright');
      } catch (error) {
        console.log(JSON.stringify({ message: error.message, cause: error.cause?.code }));
      }
    `;
    const result = JSON.parse(await node(project, '-e', program)) as { message: string; cause: string };
    expect(result.message).toContain(platformPackage.replace('framewright-', 'for '));
    expect(result.message).toContain(`npm install ${platformPackage}@`);
    expect(result.cause).toBe('MODULE_NOT_FOUND');
  }, 60_000);
});
