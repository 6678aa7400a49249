import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { SqliteJobRepository } from 'framewright';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { parseArguments } from '../framewright/cli/arguments.js';
import { formatBar, formatBytes, formatDuration, formatProgress, ProgressTracker } from '../framewright/cli/progress.js';
import { defaultStorePath, fingerprint, isUnchanged, runIds } from '../framewright/cli/store.js';
import { mariadb } from './support/stores.js';

const MAIN = join(import.meta.dirname, '..', 'dist', 'cli', 'main.js');

let dir: string;
let started: ChildProcess[];
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'framewright-cli-'));
  mkdirSync(join(dir, 'marks'));
  started = [];
});
afterEach(() => {
  for (const child of started) child.kill('SIGKILL');
  rmSync(dir, { recursive: true, force: true });
});

interface Finished { code: number | null; stdout: string; stderr: string; lines: string[] }

/** Starts the command in the test's folder; `line` resolves with the first line of stdout that matches. */
function start(...words: string[]) {
  const child = spawn(process.execPath, [MAIN, ...words], { cwd: dir, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  const lines: string[] = [];
  let stderr = '';
  const seen: (() => void)[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    for (const look of seen) look();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ended = new Promise<Finished>((resolve) => {
    child.on('close', (code) => resolve({ code, stdout: lines.join('\n'), stderr, lines }));
  });
  const line = (pattern: RegExp) => new Promise<string>((resolve, reject) => {
    const look = () => {
      const found = lines.find((text) => pattern.test(text));
      if (found !== undefined) resolve(found);
    };
    seen.push(look);
    look();
    void ended.then(({ code, stdout }) => reject(new Error(`ended with ${String(code)} and without ${String(pattern)}:\n${stdout}\n${stderr}`)));
  });
  return { child, line, ended };
}

const run = (...words: string[]) => start(...words).ended;

/** Writes a job of `count` chunks that each leave a line in marks/ID and then do `script`. */
function writeJob(count: number, script: string, more: Record<string, unknown> = {}, name = 'job.json'): void {
  writeFileSync(join(dir, name), JSON.stringify({
    plan: { totalFrames: 2 * count, chunkSize: 2, outputFile: '{chunkId:02}.txt', command: `sh -c 'echo $$ >> marks/{chunkId}; ${script}'` },
    ...more,
  }));
}
const WRITE = 'echo {chunkId} > {outputFile}';

/** How often each chunk was rendered. */
function marks(): Record<string, number> {
  return Object.fromEntries(readdirSync(join(dir, 'marks')).sort().map((name) => [name, readFileSync(join(dir, 'marks', name), 'utf8').trim().split('\n').length]));
}
const read = (name: string) => readFileSync(join(dir, name), 'utf8');
const isAlive = (pid: number) => {
  try {
    process.kill(pid, 0);
    return !/^State:\s+Z/m.test(existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '');
  } catch {
    return false;
  }
};

describe('framewright run', () => {
  it('[F140] renders every chunk, merges by the merge command and exits with 0', async () => {
    writeJob(4, WRITE, { mergeCommand: `sh -c 'cat 00.txt 01.txt 02.txt 03.txt > {outputFile}'`, outputFile: 'all.txt' });
    const { code, stdout } = await run('run', 'job.json', '--concurrency', '2');
    expect(code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 1, 3: 1 });
    expect(read('all.txt')).toBe('0\n1\n2\n3\n');
    expect(stdout).toMatch(/chunk 3 done/);
    expect(stdout).toMatch(/^done.*4 chunks, 8 frames/m);
    expect(readdirSync(dir).sort()).toEqual(['.framewright', '00.txt', '01.txt', '02.txt', '03.txt', 'all.txt', 'job.json', 'marks']);
  });

  it('[F140] works in the folder that --job-dir names', async () => {
    mkdirSync(join(dir, 'work', 'marks'), { recursive: true });
    writeJob(1, WRITE);
    expect((await run('run', 'job.json', '--job-dir', 'work')).code).toBe(0);
    expect(read('work/00.txt')).toBe('0\n');
  });

  it('[F140] exits with 1 when a chunk fails, names it and shows the end of its stderr', async () => {
    writeJob(2, '[ {chunkId} = 0 ] || { echo no such scene >&2; exit 3; }; echo x > {outputFile}');
    const { code, stderr } = await run('run', 'job.json', '--concurrency', '1');
    expect(code).toBe(1);
    expect(stderr).toMatch(/chunk 1 failed/);
    expect(stderr.match(/no such scene/g)).toHaveLength(1);
  });

  it('[F140] goes on from the finished chunks after a failure', async () => {
    writeJob(3, '[ {chunkId} != 2 ] || [ -e go ] || exit 1; echo x > {outputFile}');
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(1);
    writeFileSync(join(dir, 'go'), '');
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 2 });
  });

  it('[F140] tries a chunk again as often as --retries says', async () => {
    writeJob(1, '[ $(wc -l < marks/{chunkId}) -gt 1 ] || exit 1; echo x > {outputFile}');
    expect((await run('run', 'job.json', '--retries', '1')).code).toBe(0);
    expect(marks()).toEqual({ 0: 2 });
  });

  it('[F140] renders one chunk with --chunk, and the whole job then only lacks the others', async () => {
    writeJob(3, WRITE, { mergeCommand: `sh -c 'cat *.txt > merged'` });
    expect((await run('run', 'job.json', '--chunk', '1')).code).toBe(0);
    expect(marks()).toEqual({ 1: 1 });
    expect(existsSync(join(dir, 'merged'))).toBe(false);
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 1 });
    expect(read('merged')).toBe('0\n1\n2\n');
  });

  it('[F140] leaves the merge out with --no-merge, and does only the merge the next time', async () => {
    writeJob(2, WRITE, { mergeCommand: `sh -c 'cat *.txt > merged'` });
    expect((await run('run', 'job.json', '--no-merge')).code).toBe(0);
    expect(existsSync(join(dir, 'merged'))).toBe(false);
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 1 });
    expect(read('merged')).toBe('0\n1\n');
  });

  it('[F140] prints every event as a line of JSON and the status as the last', async () => {
    writeJob(2, WRITE);
    const { code, lines } = await run('run', 'job.json', '--json');
    const values = lines.map((line) => JSON.parse(line) as { type: string; status?: { state: string; completedChunks: number } });
    expect(code).toBe(0);
    expect(values.map(({ type }) => type)).toEqual(expect.arrayContaining(['job.submitted', 'chunk.started', 'chunk.completed', 'job.completed']));
    expect(values.at(-1)).toMatchObject({ type: 'status', status: { state: 'completed', completedChunks: 2 } });
  });

  it('[F140] exits with 2 and names every problem of a bad job file', async () => {
    writeFileSync(join(dir, 'job.json'), JSON.stringify({ chunks: [{ id: 0, frameCount: 0, command: 'true' }, { id: 1 }] }));
    const { code, stderr } = await run('run', 'job.json');
    expect(code).toBe(2);
    expect(stderr).toMatch(/chunks\W0.*frameCount/);
    expect(stderr).toMatch(/chunks\W1.*command/);
  });

  it.each([
    ['a job file that is not there', ['run', 'none.json'], /none\.json/],
    ['a job file that is not JSON', ['run', 'broken.json'], /not JSON/],
    ['a chunk that the job does not have', ['run', 'job.json', '--chunk', '9'], /no chunk 9/],
    ['a concurrency of 0', ['run', 'job.json', '--concurrency', '0'], /--concurrency/],
    ['an unknown option', ['run', 'job.json', '--fast'], /--fast/],
    ['an unknown command', ['render'], /render/],
    ['no command', [], /command is missing/],
  ])('[F140] exits with 2 for %s', async (_what, words, message) => {
    writeJob(1, WRITE);
    writeFileSync(join(dir, 'broken.json'), '{');
    const { code, stderr } = await run(...words);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });

  it('[F140] refuses outputs outside of the folder unless they are allowed', async () => {
    const job = { chunks: [{ id: 0, frameCount: 1, outputFile: join(dir, 'out.txt'), command: `sh -c 'echo x > {outputFile}'` }] };
    writeFileSync(join(dir, 'job.json'), JSON.stringify(job));
    expect((await run('run', 'job.json')).code).toBe(2);
    expect((await run('run', 'job.json', '--allow-outside-paths')).code).toBe(0);
    expect(read('out.txt')).toBe('x\n');
  });

  it.each(['SIGINT', 'SIGTERM'] as const)('[F143] stops at %s with 130, and the same command renders only what is missing', async (signal) => {
    writeJob(4, '[ {chunkId} != 2 ] || [ -e go ] || exec sleep 300; echo x > {outputFile}', { mergeCommand: `sh -c 'cat *.txt > merged'` });
    const first = start('run', 'job.json', '--concurrency', '1');
    await first.line(/chunk 1 done/);
    const pid = await vi.waitFor(() => Number(read('marks/2')), { timeout: 10_000 });
    first.child.kill(signal);
    const { code, stderr } = await first.ended;
    expect(code).toBe(130);
    expect(stderr).toMatch(/go on with: framewright run job\.json --concurrency 1/);
    expect(isAlive(pid)).toBe(false);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 1 });

    writeFileSync(join(dir, 'go'), '');
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 2, 3: 1 });
    expect(read('merged')).toBe('x\nx\nx\nx\n');
  });

  it('[F143] exits at once at the second signal, and leaves no process behind', async () => {
    writeJob(1, `trap "" TERM INT; while :; do sleep 0.1; done`);
    const first = start('run', 'job.json');
    let stderr = '';
    first.child.stderr.on('data', (text: string) => (stderr += text));
    const pid = await vi.waitFor(() => Number(read('marks/0')), { timeout: 10_000 });
    first.child.kill('SIGINT');
    await vi.waitFor(() => expect(stderr).toMatch(/once more/), { timeout: 10_000 });
    first.child.kill('SIGINT');
    expect((await first.ended).code).toBe(130);
    await vi.waitFor(() => expect(isAlive(pid)).toBe(false), { timeout: 10_000 });
  });

  it('[F143] renders a chunk again whose file is gone, and all with --fresh or after a change of the job', async () => {
    const script = '[ {chunkId} != 3 ] || [ -e go ] || exit 1; echo x > {outputFile}';
    writeJob(4, script);
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(1);
    rmSync(join(dir, '01.txt'));
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(1);
    expect(marks()).toEqual({ 0: 1, 1: 2, 2: 1, 3: 2 });
    expect((await run('run', 'job.json', '--concurrency', '1', '--fresh')).code).toBe(1);
    expect(marks()).toEqual({ 0: 2, 1: 3, 2: 2, 3: 3 });
    writeFileSync(join(dir, 'go'), '');
    writeJob(4, `${script} `);
    const { code, stderr } = await run('run', 'job.json', '--concurrency', '1');
    expect(code).toBe(0);
    expect(stderr).toMatch(/has changed/);
    expect(marks()).toEqual({ 0: 3, 1: 4, 2: 3, 3: 4 });
  });
});

describe('the store of framewright run', () => {
  /** Chunk 2 hangs until there is a file `go`. */
  const HANGS = '[ {chunkId} != 2 ] || [ -e go ] || exec sleep 300; echo x > {outputFile}';
  const MERGE = { mergeCommand: `sh -c 'cat *.txt > merged'` };
  const postgres = process.env['FRAMEWRIGHT_TEST_POSTGRES'] ?? 'postgres://postgres@127.0.0.1:5432/test';
  const schemas: string[] = [];
  /** The URL of a schema of its own. */
  function inSchema(change: (url: URL) => void = () => {}): string {
    const url = new URL(postgres);
    const schema = `cli_${randomBytes(8).toString('hex')}`;
    schemas.push(schema);
    url.searchParams.set('schema', schema);
    change(url);
    return url.href;
  }
  afterAll(() => {
    const statements = schemas.map((name) => `DROP SCHEMA IF EXISTS ${name} CASCADE;`);
    execFileSync('psql', ['-X', '-q', postgres, ...statements.flatMap((statement) => ['-c', statement])], { env: { ...process.env, PGOPTIONS: '-c client_min_messages=error' } });
  });

  /** Runs a job until its chunk 2 hangs; gives the run and the process of that chunk. */
  async function hanging(...words: string[]) {
    const first = start('run', 'job.json', '--concurrency', '1', ...words);
    await first.line(/chunk 1 done/);
    const pid = await vi.waitFor(() => {
      const found = Number(read('marks/2').trim().split('\n').at(-1));
      expect(found).toBeGreaterThan(0);
      return found;
    }, { timeout: 20_000 });
    return { ...first, pid };
  }

  it('[F143] goes on after kill -9 with what is missing, once the chunks of the dead run are gone', async () => {
    writeJob(4, HANGS, MERGE);
    const first = await hanging();
    first.child.kill('SIGKILL');
    await first.ended;
    expect(isAlive(first.pid)).toBe(true);

    writeFileSync(join(dir, 'go'), '');
    const { code, stdout } = await run('run', 'job.json', '--concurrency', '1');
    expect(isAlive(first.pid)).toBe(false);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^going on: 2 of 4 chunks/m);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 2, 3: 1 });
    expect(read('merged')).toBe('x\nx\nx\nx\n');
  }, 60_000);

  it.each(['sqlite:kept.db', 'sqlite:kept.db?synchronous=normal', 'file:kept', 'postgres', 'mysql'])('[F143] keeps runs in --store %s, also over kill -9', async (name) => {
    const url = name === 'postgres' ? inSchema() : name === 'mysql' ? mariadb.create() : name;
    writeJob(4, HANGS, MERGE);
    const first = await hanging('--store', url);
    first.child.kill('SIGKILL');
    await first.ended;
    writeFileSync(join(dir, 'go'), '');
    const { code, stdout } = await run('run', 'job.json', '--concurrency', '1', '--store', url);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^going on: 2 of 4 chunks/m);
    expect(isAlive(first.pid)).toBe(false);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 2, 3: 1 });
    expect(existsSync(join(dir, '.framewright'))).toBe(false);
  }, 60_000);

  it('[F140] says who runs a job file that is being run, and does not run it twice', async () => {
    writeJob(4, HANGS);
    const first = await hanging();
    for (const words of [[], ['--fresh'], ['--no-merge'], ['--chunk', '3']]) {
      const { code, stderr } = await run('run', 'job.json', ...words);
      expect(stderr).toMatch(new RegExp(`job\\.json is being rendered already, by process ${first.child.pid} on .* \\(owner [-0-9a-f]{36}\\)`));
      expect(code).toBe(1);
    }
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 1 });
    // Another job file of the same folder is not its business.
    writeJob(1, 'echo y > other.txt', { plan: undefined, chunks: [{ id: 0, command: `sh -c 'echo y > other.txt'` }] }, 'other.json');
    expect((await run('run', 'other.json')).code).toBe(0);
    writeFileSync(join(dir, 'go'), '');
    process.kill(first.pid, 'SIGKILL');
    expect((await first.ended).code).toBe(1);
  }, 60_000);

  it('[F143] leaves alone what a killed run of another job file has left', async () => {
    writeJob(4, HANGS);
    const first = await hanging();
    first.child.kill('SIGKILL');
    await first.ended;
    writeFileSync(join(dir, 'other.json'), JSON.stringify({ chunks: [{ id: 0, command: 'true' }] }));
    expect((await run('run', 'other.json')).code).toBe(0);
    expect(isAlive(first.pid)).toBe(true);
    expect(marks()).toEqual({ 0: 1, 1: 1, 2: 1 });
    process.kill(first.pid, 'SIGKILL');
  }, 60_000);

  it('[F143] renders a chunk again whose output was changed, be it of the same size', async () => {
    writeJob(3, '[ {chunkId} != 2 ] || [ -e go ] || exit 1; echo x > {outputFile}');
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(1);
    const { mtimeMs } = statSync(join(dir, '01.txt'));
    utimesSync(join(dir, '01.txt'), mtimeMs / 1000 + 1, mtimeMs / 1000 + 1);
    writeFileSync(join(dir, 'go'), '');
    const { code, stdout } = await run('run', 'job.json', '--concurrency', '1');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^going on: 1 of 3 chunks/m);
    expect(marks()).toEqual({ 0: 1, 1: 2, 2: 2 });
  });

  it('[F143] keeps the chunks when only the merge is another, whichever way it changes', async () => {
    writeJob(2, WRITE, { mergeCommand: 'false' });
    expect((await run('run', 'job.json')).code).toBe(1);
    writeJob(2, WRITE, { mergeCommand: `sh -c 'cat *.txt > merged'` });
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(read('merged')).toBe('0\n1\n');
    expect(marks()).toEqual({ 0: 1, 1: 1 });

    // From ffmpeg's, which can make nothing of these, to a command.
    writeJob(2, WRITE, { outputFile: 'film.mp4' });
    expect((await run('run', 'job.json')).code).toBe(1);
    writeJob(2, WRITE, { mergeCommand: `sh -c 'cat *.txt > again'` });
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(read('again')).toBe('0\n1\n');
    expect(marks()).toEqual({ 0: 2, 1: 2 });
  }, 60_000);

  it('[F143] keeps a chunk that was rendered again with --chunk', async () => {
    writeJob(3, '[ {chunkId} != 2 ] || [ -e go ] || exit 1; echo x > {outputFile}');
    expect((await run('run', 'job.json', '--concurrency', '1')).code).toBe(1);
    expect((await run('run', 'job.json', '--chunk', '1')).code).toBe(0);
    writeFileSync(join(dir, 'go'), '');
    expect((await run('run', 'job.json')).code).toBe(0);
    expect(marks()).toEqual({ 0: 1, 1: 2, 2: 2 });
  });

  it('[F140] leaves the latest run of a job file in the store, and nothing older', async () => {
    writeJob(2, 'echo said by {chunkId}; echo x > {outputFile}');
    for (let runs = 0; runs < 3; runs += 1) expect((await run('run', 'job.json')).code).toBe(0);
    expect((await run('run', 'job.json', '--chunk', '0')).code).toBe(0);
    const store = await SqliteJobRepository.open(defaultStorePath(join(dir, 'job.json')));
    const jobs = await store.list();
    await store.close();
    expect(jobs.map(({ state, type }) => ({ state, type }))).toEqual([{ state: 'paused', type: 'framewright run' }]);
    expect(marks()).toEqual({ 0: 4, 1: 3 });
  }, 60_000);

  it.each([
    ['redis://127.0.0.1', /--store must begin with memory:, file:, sqlite:/],
    ['sqlite:', /--store names no path/],
    ['sqlite:a.db?wal=1', /--store has an unknown parameter "wal"/],
    ['jobs.db', /--store must begin with/],
    ['', /--store is empty/],
  ])('[F140] exits with 2 for --store "%s"', async (url, message) => {
    writeJob(1, WRITE);
    const { code, stderr } = await run('run', 'job.json', '--store', url);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
    expect(marks()).toEqual({});
  });

  it('[F140] exits with 1 when the store cannot be used, and prints no password', async () => {
    writeJob(1, WRITE);
    writeFileSync(join(dir, 'text.db'), 'this is not a database, however long one looks at it '.repeat(20));
    for (const url of ['postgres://me:s3cret@127.0.0.1:1/test', 'sqlite:text.db', 'sqlite:/proc/none/jobs.db']) {
      const { code, stderr, stdout } = await run('run', 'job.json', '--store', url);
      expect(stderr).toMatch(/^framewright: ./);
      expect(stderr + stdout).not.toMatch(/s3cret/);
      expect(code).toBe(1);
    }
    expect(marks()).toEqual({});
    writeFileSync(join(dir, '.framewright'), 'in the way');
    const { code, stderr } = await run('run', 'job.json');
    expect(stderr).toMatch(/--store names another place/);
    expect(code).toBe(1);
    expect((await run('run', 'job.json', '--store', 'memory:')).code).toBe(0);
  }, 60_000);

  it('[F140] says how to go on, without the password of the store', async () => {
    writeJob(1, 'exit 1');
    const { code, stderr } = await run('run', 'job.json', '--store', inSchema((url) => (url.password = 's3cret')));
    expect(stderr).toMatch(/go on with: framewright run job.json --store '?postgres:\/\/\w+:\*\*\*@/);
    expect(stderr).not.toMatch(/s3cret/);
    expect(code).toBe(1);
  });
});

describe('framewright plan', () => {
  const plan = async (...words: string[]) => {
    const { code, stdout, stderr } = await run('plan', '--output', '{chunkId:03}.mp4', '--command', 'render {startFrame}', ...words);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    return JSON.parse(stdout) as { metadata: object; mergeCommand?: string; chunks: { id: number; startFrame: number; frameCount: number; frameStep?: number; outputFile: string; command: string }[] };
  };

  it('[F6] prints a job file of contiguous chunks, the last one smaller', async () => {
    const job = await plan('--total-frames', '100', '--chunk-size', '30', '--start-frame', '5', '--merge-command', 'merge', '--fps', '25', '--width', '640', '--height', '360');
    expect(job.chunks.map(({ startFrame, frameCount }) => [startFrame, frameCount])).toEqual([[5, 30], [35, 30], [65, 30], [95, 10]]);
    expect(job.chunks[1]).toMatchObject({ id: 1, outputFile: '001.mp4', command: 'render {startFrame}' });
    expect(job.metadata).toEqual({ totalFrames: 100, fps: 25, width: 640, height: 360, duration: 4 });
    expect(job.mergeCommand).toBe('merge');
  });

  it('[F6] plans a number of chunks: 300 frames by 4 are 4 x 75', async () => {
    const job = await plan('--total-frames', '300', '--chunk-count', '4');
    expect(job.chunks.map(({ frameCount }) => frameCount)).toEqual([75, 75, 75, 75]);
  });

  it('plans ranges of frames with steps', async () => {
    const job = await plan('--frames', '1-10,20-29x2', '--chunk-size', '10');
    expect(job.chunks.map(({ startFrame, frameCount, frameStep }) => [startFrame, frameCount, frameStep ?? 1])).toEqual([[1, 10, 1], [20, 5, 2]]);
  });

  it('prints what run takes', async () => {
    const { stdout } = await run('plan', '--total-frames', '4', '--chunk-size', '2', '--output', '{chunkId}.txt', '--command', `sh -c 'echo {startFrame}-{endFrame} > {outputFile}'`);
    writeFileSync(join(dir, 'job.json'), stdout);
    expect((await run('run', 'job.json')).code).toBe(0);
    expect([read('0.txt'), read('1.txt')]).toEqual(['0-1\n', '2-3\n']);
  });

  it.each([
    ['without a number of frames', ['--chunk-size', '2'], /--total-frames or --frames/],
    ['with two sizes', ['--total-frames', '4', '--chunk-size', '2', '--chunk-count', '2'], /exclude/],
    ['with one file for all chunks', ['--total-frames', '4', '--chunk-size', '2', '--output', 'a.mp4'], /outputFile: .*\{chunkId\}/],
  ])('exits with 2 %s', async (_what, words, message) => {
    const { code, stderr } = await run('plan', '--output', '{chunkId}.mp4', '--command', 'render', ...words);
    expect(stderr).toMatch(message);
    expect(code).toBe(2);
  });
});

it('[F140] prints help and the version', async () => {
  const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '..', 'package.json'), 'utf8')) as { version: string };
  expect((await run('--version')).stdout).toBe(version);
  expect((await run('--help')).stdout).toMatch(/framewright run <job.json>/);
  expect((await run('run', '--help')).stdout).toMatch(/--no-merge/);
});

describe('the parts of the command line', () => {
  it('reads options into numbers and leaves out what is not given', () => {
    expect(parseArguments(['run', 'a.json', '--chunk', '3', '--json'])).toEqual({ command: 'run', jobFile: 'a.json', chunk: 3, merge: false, json: true, fresh: false, allowOutsidePaths: false });
  });

  it('writes durations and sizes for people', () => {
    expect([400, 59_400, 125_000, 3_725_000].map(formatDuration)).toEqual(['0 s', '59 s', '2:05', '1:02:05']);
    expect([812, 81_234, 999_999, 3_400_000_000].map(formatBytes)).toEqual(['812 B', '81.2 kB', '1.0 MB', '3.4 GB']);
  });

  it('never draws a line that is wider than the terminal', () => {
    const view = { percent: 42, framesDone: 101, framesTotal: 240, chunksDone: 3, chunksTotal: 8, running: 2, merging: false, fps: 12.34, etaMs: 12_000 };
    expect(formatBar(50, 4)).toBe('██░░');
    expect(formatProgress(view, 120)).toMatch(/^█{12}░{18} {3}42% {2}101\/240 frames {2}3\/8 chunks {2}2 running {2}12\.3 fps {2}ETA 12 s$/);
    for (let columns = 5; columns < 120; columns += 1) expect(formatProgress(view, columns).length).toBeLessThanOrEqual(columns);
  });

  it('counts frames of finished and of running chunks, and never goes back', () => {
    const base = { sequence: 1, jobId: 'j' };
    const tracker = new ProgressTracker([{ id: 0, frameCount: 10 }, { id: 1, frameCount: 30 }], [0]);
    tracker.update({ ...base, at: 1000, type: 'chunk.started', chunkId: 1, attempt: 1 });
    tracker.update({ ...base, at: 2000, type: 'chunk.progress', chunkId: 1, fraction: 0.5 });
    expect(tracker.view(2000)).toMatchObject({ percent: 62.5, framesDone: 25, framesTotal: 40, chunksDone: 1, running: 1, fps: 15, etaMs: 1000 });
    tracker.update({ ...base, at: 2500, type: 'chunk.failed', chunkId: 1, attempt: 1, willRetry: true, error: { code: 'CHUNK_FAILED', message: '' } });
    expect(tracker.view(2500)).toMatchObject({ percent: 62.5, framesDone: 10, running: 0 });
  });

  it('names the record of a job file by its path, and in a database server by the machine too', () => {
    writeFileSync(join(dir, 'the film (1).json'), '{}');
    writeFileSync(join(dir, 'other.json'), '{}');
    const path = join(dir, 'the film (1).json');
    const [first, second] = runIds(path);
    expect(first).toMatch(/^the-film-1--[0-9a-f]{12}$/);
    expect(second).toBe(`${first}.2`);
    expect(runIds(path, 'sqlite:elsewhere.db')).toEqual([first, second]);
    expect(runIds(path, 'postgres://db/x')[0]).not.toBe(first);
    expect(runIds(join(dir, 'other.json'))[0]).not.toContain(first.slice(-12));
  });

  it('takes an output for unchanged only with its size and time', () => {
    const file = join(dir, 'a.txt');
    writeFileSync(file, 'abc');
    const { size, mtimeMs } = statSync(file);
    expect(isUnchanged(file, { bytes: size, modifiedAt: mtimeMs })).toBe(true);
    expect(isUnchanged(file, { bytes: 4, modifiedAt: mtimeMs })).toBe(false);
    expect(isUnchanged(file, { bytes: size, modifiedAt: mtimeMs + 1 })).toBe(false);
    expect(isUnchanged(join(dir, 'b.txt'), { bytes: 0, modifiedAt: 0 })).toBe(false);
    expect(isUnchanged(dir, { bytes: statSync(dir).size, modifiedAt: statSync(dir).mtimeMs })).toBe(false);
  });

  it('tells jobs apart by what is rendered and where, not by how it is merged', () => {
    const spec = { chunks: [{ id: 0, command: 'a' }], mergeCommand: 'x' };
    expect(fingerprint({ ...spec, mergeCommand: 'y', outputFile: 'z' }, '/a')).toBe(fingerprint(spec, '/a'));
    expect(fingerprint(spec, '/b')).not.toBe(fingerprint(spec, '/a'));
    expect(fingerprint({ chunks: [{ id: 0, command: 'b' }] }, '/a')).not.toBe(fingerprint(spec, '/a'));
  });
});
