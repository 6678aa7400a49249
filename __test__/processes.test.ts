import { FramewrightError, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, type RenderJobChunk, type WorkerJob } from 'framewright';
import { chmodSync, existsSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { whenAborted } from './support/own-executor.js';
import { isAlive } from './support/processes.js';
import { rejection } from './support/rejection.js';
import { adapters, local, shellJob } from './support/shell.js';
import { nextEvent, traceOf } from './support/trace.js';
import { until } from './support/turns.js';

const MB = 1024 * 1024;
const FOREVER = 'exec sleep 600';
/** Text, line by line. */
const HUNDRED_MB = 'yes "all work and no play" | head -c 104857600';

const shell = (script: string, more: Partial<WorkerJob> = {}): WorkerJob => ({ command: '/bin/sh', args: ['-c', script], ...more });

const manage = (executor: JobExecutor) => open(new InMemoryJobRepository(), executor);

const pidIn = (folder: Folder, name: string): number => Number(folder.read(name).trim());

/** Resolves once a process has written a whole line there. */
const written = (folder: Folder, name: string): Promise<void> => until(() => folder.has(name) && folder.read(name).endsWith('\n'), name);

/** The highest memory use while something runs, above what it was before. */
async function growth(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss();
  let most = before;
  const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 5);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  return Math.max(most, process.memoryUsage.rss()) - before;
}

it('[F121] the status of a job of much output stays small: the latest chunks keep their tails, older ones shorter ends', async () => {
  const noisy = { execute: async (job: WorkerJob) => ({ exitCode: 0, stdout: `${'o'.repeat(20_000)} out of ${String(job.meta?.['chunkId'])}`, stderr: `${'e'.repeat(20_000)} err`, durationMs: 1 }) };
  const manager = manage(new JobExecutor(noisy));
  const id = await manager.submitJob(shellJob(1000, 'true'));
  const status = await manager.waitForJob(id);
  expect(status.logs).toHaveLength(1000);
  const sizes = status.logs!.map(({ stdout, stderr }) => stdout.length + stderr.length);
  expect(sizes.reduce((sum, size) => sum + size)).toBeLessThanOrEqual(MB);
  expect(sizes.at(-1)).toBe(16 * 1024);
  expect(sizes[0]).toBeLessThan(sizes.at(-1)!);
  for (const { chunkId, stdout, stderr } of status.logs!) {
    expect(stdout.endsWith(`o out of ${chunkId}`)).toBe(true);
    expect(stderr.endsWith('e err')).toBe(true);
  }
});

describe.each(adapters)('chunks $kind', ({ native, adapter }) => {
  it.each([1, 3])('[F35] never more processes at once than the concurrency of %i, and as many', async (concurrency) => {
    const folder = new Folder();
    // The first ones wait for each other: a lower concurrency than asked for shows as well as a higher one.
    const script = `mkdir -p run && mkdir run/$1 && i=0
      if [ $1 -lt ${concurrency} ]; then while [ $(ls run | wc -l) -lt ${concurrency} ] && [ $i -lt 200 ]; do sleep 0.01; i=$((i+1)); done; fi
      ls run | wc -l >> counts; sleep 0.02; ls run | wc -l >> counts; rmdir run/$1
      [ $1 != 4 ] || [ $FRAMEWRIGHT_ATTEMPT != 1 ]`;
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(10, script), { jobDir: folder.path, concurrency, retries: 1, retryDelay: 0 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    const counts = folder.lines('counts').map(Number);
    expect(counts).toHaveLength(22);
    expect(Math.max(...counts)).toBe(concurrency);
  });

  it('[F57] a chunk runs in the job\'s folder with the inherited environment and the job\'s own', async () => {
    const folder = new Folder();
    process.env['FRAMEWRIGHT_TEST_INHERITED'] = 'from outside';
    process.env['FRAMEWRIGHT_TEST_BOTH'] = 'from outside';
    try {
      const executor = new JobExecutor(adapter());
      await executor.execute(shellJob(1, 'pwd -P > where; env > env'), {
        jobDir: folder.path,
        env: { FRAMEWRIGHT_TEST_BOTH: 'of the job', FRAMEWRIGHT_TEST_OWN: 'a = "b" $c' },
      });
      expect(folder.read('where')).toBe(`${folder.path}\n`);
      const env = folder.lines('env');
      expect(env).toContain('FRAMEWRIGHT_TEST_INHERITED=from outside');
      expect(env).toContain('FRAMEWRIGHT_TEST_BOTH=of the job');
      expect(env).toContain('FRAMEWRIGHT_TEST_OWN=a = "b" $c');
    } finally {
      delete process.env['FRAMEWRIGHT_TEST_INHERITED'];
      delete process.env['FRAMEWRIGHT_TEST_BOTH'];
    }
  });

  it('[F57] with an allow-list only the named variables are inherited, and the job\'s own are added', async () => {
    const folder = new Folder();
    process.env['FRAMEWRIGHT_TEST_SECRET'] = 'secret';
    process.env['FRAMEWRIGHT_TEST_ALLOWED'] = 'allowed';
    try {
      const executor = new JobExecutor(adapter({ env: ['PATH', 'FRAMEWRIGHT_TEST_ALLOWED', 'FRAMEWRIGHT_TEST_NOT_SET'] }));
      await executor.execute(shellJob(1, 'env > env'), { jobDir: folder.path, env: { OWN: '1' } });
      const names = folder.lines('env').map((line) => line.split('=')[0]);
      expect(names).toEqual(expect.arrayContaining(['FRAMEWRIGHT_TEST_ALLOWED', 'OWN', 'PATH', 'FRAMEWRIGHT_CHUNK_ID']));
      expect(names).not.toContain('FRAMEWRIGHT_TEST_SECRET');
      expect(names).not.toContain('FRAMEWRIGHT_TEST_NOT_SET');
      expect(names).not.toContain('HOME');
    } finally {
      delete process.env['FRAMEWRIGHT_TEST_SECRET'];
      delete process.env['FRAMEWRIGHT_TEST_ALLOWED'];
    }
  });

  it('[F59] a chunk that takes longer than chunkMs is killed and fails with TIMEOUT, which is worth another attempt', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(1, `echo last words >&2; echo $$ >> pids; ${FOREVER}`), { jobDir: folder.path, timeouts: { chunkMs: 250 }, retries: 1, retryDelay: 0 });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT', chunkId: 0, attempt: 2 } });
    expect(status.error).toContain('250');
    expect(events.filter((event) => event.type === 'chunk.failed').map(({ willRetry, error }) => [error.code, willRetry])).toEqual([['TIMEOUT', true], ['TIMEOUT', false]]);
    expect(folder.lines('pids').map(Number).map(isAlive)).toEqual([false, false]);
  });

  it('[F59] chunkMs counts for each attempt and chunk alone', async () => {
    const folder = new Folder();
    const executor = new JobExecutor(adapter());
    await executor.execute(shellJob(4, 'sleep 0.2'), { jobDir: folder.path, timeouts: { chunkMs: 700 } });
  });

  it('[F59] a merge that takes longer than mergeMs is killed and fails with TIMEOUT', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const spec = shellJob(1, 'true', [], { mergeCommand: `/bin/sh -c 'echo $$ > pid; ${FOREVER}'` });
    const id = await manager.submitJob(spec, { jobDir: folder.path, timeouts: { mergeMs: 200 } });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' }, completedChunks: 1 });
    expect(isAlive(pidIn(folder, 'pid'))).toBe(false);
  });

  it('[F59] a job that takes longer than jobMs is stopped and fails with TIMEOUT, whatever its chunks do', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(100, 'echo $$ >> pids; exec sleep 0.1'), { jobDir: folder.path, timeouts: { jobMs: 350, chunkMs: 60_000 } });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
    expect(status.failure?.chunkId).toBeUndefined();
    expect(status.completedChunks).toBeGreaterThan(0);
    expect(status.completedChunks).toBeLessThan(10);
    expect(folder.lines('pids').map(Number).some(isAlive)).toBe(false);
  });

  it('[F59] jobMs also ends the wait for another attempt', async () => {
    const begun = performance.now();
    const error = await rejection(new JobExecutor(adapter()).execute(shellJob(1, 'exit 1'), { retries: 1, retryDelay: 60_000, timeouts: { jobMs: 200 } }));
    expect(error.code).toBe('TIMEOUT');
    expect(performance.now() - begun).toBeLessThan(5000);
  });

  it('[F60] a chunk without a sign of life within startMs is killed and tried again', async () => {
    const folder = new Folder();
    const script = `echo $$ >> pids; [ $FRAMEWRIGHT_ATTEMPT = 1 ] && ${FOREVER}; echo here`;
    const manager = manage(new JobExecutor(adapter()));
    const failed = nextEvent(manager, 'chunk.failed');
    const id = await manager.submitJob(shellJob(1, script), { jobDir: folder.path, timeouts: { startMs: 300 }, retries: 1, retryDelay: 0 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect((await failed).error.code).toBe('TIMEOUT');
    expect(folder.lines('pids')).toHaveLength(2);
    expect(isAlive(Number(folder.lines('pids')[0]))).toBe(false);
  });

  it('[F60] who has given a sign of life may take longer than startMs', async () => {
    await new JobExecutor(adapter()).execute(shellJob(1, 'echo here >&2; sleep 0.8'), { timeouts: { startMs: 500 } });
  });

  it('[F61][F148] a process that lives but makes no progress for noProgressMs is killed and fails with NO_PROGRESS', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(1, `echo $$ > pid; echo frame=1; ${FOREVER}`), { jobDir: folder.path, timeouts: { noProgressMs: 300, chunkMs: 60_000 } });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', failure: { code: 'NO_PROGRESS', chunkId: 0, attempt: 1 } });
    expect(isAlive(pidIn(folder, 'pid'))).toBe(false);
  });

  it('[F61][F148] output on either stream puts the end for lack of progress off', async () => {
    const script = 'i=0; while [ $i -lt 12 ]; do sleep 0.1; if [ $((i%2)) = 0 ]; then echo . ; else echo . >&2; fi; i=$((i+1)); done';
    await new JobExecutor(adapter()).execute(shellJob(1, script), { timeouts: { noProgressMs: 600 } });
  });

  it.each(['cancelJob', 'pauseJob', 'deleteJob'] as const)('[F62] %s resolves only after a child that ignores SIGTERM and its grandchild are gone', async (call) => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter({ killGraceMs: 150 })));
    const script = `trap '' TERM; sleep 600 & echo $! > grandchild; echo $$ > child; while :; do sleep 0.05; done`;
    const id = await manager.submitJob(shellJob(1, script), { jobDir: folder.path });
    await written(folder, 'child');
    const pids = [pidIn(folder, 'child'), pidIn(folder, 'grandchild')];
    expect(pids.map(isAlive)).toEqual([true, true]);
    await manager[call](id);
    expect(pids.map(isAlive)).toEqual([false, false]);
    expect((await manager.getJob(id))?.state).toBe({ cancelJob: 'cancelled', pauseJob: 'paused', deleteJob: undefined }[call]);
  });

  it('[F62] a stopped process gets SIGTERM first, and the grace to act on it', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const script = `trap 'sleep 0.2; echo bye > bye; exit 0' TERM; echo $$ > child; while :; do sleep 0.05; done`;
    const id = await manager.submitJob(shellJob(1, script), { jobDir: folder.path });
    await written(folder, 'child');
    await manager.cancelJob(id);
    expect(folder.read('bye')).toBe('bye\n');
    // It ended well, but after it was told to stop: nothing of it counts.
    expect(await manager.getJob(id)).toMatchObject({ state: 'cancelled', completedChunks: 0 });
  });

  it('[F62] what a chunk leaves running in its group is gone when the chunk is done', async () => {
    const folder = new Folder();
    await new JobExecutor(adapter()).execute(shellJob(2, 'sleep 600 & echo $! >> left; exit 0'), { jobDir: folder.path, concurrency: 2 });
    expect(folder.lines('left').map(Number).map(isAlive)).toEqual([false, false]);
  });

  it('[F62] an aborted execute rejects with an AbortError once the processes are gone', async () => {
    const folder = new Folder();
    const controller = new AbortController();
    const work = rejection(new JobExecutor(adapter()).execute(shellJob(2, `echo $$ > pid-$1; ${FOREVER}`), { jobDir: folder.path, concurrency: 2, signal: controller.signal }));
    await written(folder, 'pid-0');
    await written(folder, 'pid-1');
    controller.abort();
    const error = await work;
    expect([error.name, error.code]).toEqual(['AbortError', 'ABORTED']);
    expect([isAlive(pidIn(folder, 'pid-0')), isAlive(pidIn(folder, 'pid-1'))]).toEqual([false, false]);
  });

  it.each([
    ['kill -KILL $$', 137, 'SIGKILL'],
    ['kill -SEGV $$', 139, 'SIGSEGV'],
    ['kill -TERM $$', 143, 'SIGTERM'],
    ['exit 3', 3, undefined],
    ['exit 255', 255, undefined],
  ])('[F63] the end by "%s" is told as exit code %i and signal %s', async (script, exitCode, signal) => {
    const manager = manage(new JobExecutor(adapter()));
    const status = await manager.waitForJob(await manager.submitJob(shellJob(1, script)));
    expect(status.failure).toMatchObject({ code: 'CHUNK_FAILED', exitCode });
    expect(status.failure?.signal).toBe(signal);
    const [chunk] = await manager.chunks(status.id);
    expect([chunk?.exitCode ?? chunk?.error?.exitCode, chunk?.signal ?? chunk?.error?.signal]).toEqual([exitCode, signal]);
  });

  it.each([
    ['none', 'true', 'completed'],
    ['none', ': > chunk-0.txt', 'completed'],
    ['exists', 'true', 'failed'],
    ['exists', ': > chunk-0.txt', 'completed'],
    ['nonempty', 'true', 'failed'],
    ['nonempty', ': > chunk-0.txt', 'failed'],
    ['nonempty', 'echo x > chunk-0.txt', 'completed'],
    ['nonempty', 'mkdir chunk-0.txt && echo x > chunk-0.txt/frame', 'completed'],
    [undefined, 'true', 'completed'],
  ] as const)('[F64] verifyOutput %s: after "%s" with status 0 the job is %s', async (verifyOutput, script, state) => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(1, script), { jobDir: folder.path, ...(verifyOutput ? { verifyOutput } : {}) });
    const status = await manager.waitForJob(id);
    expect(status.state).toBe(state);
    if (state === 'failed') expect(status.failure).toMatchObject({ code: 'OUTPUT_MISSING', chunkId: 0, attempt: 1 });
  });

  it('[F64] where a stitcher reads the outputs, an empty one is missing by default', async () => {
    const folder = new Folder();
    const stitched: string[][] = [];
    const stitcher = { stitch: async (inputs: string[]) => void stitched.push(inputs) };
    const run = new JobExecutor(adapter()).execute(shellJob(1, ': > chunk-0.txt'), { jobDir: folder.path, stitcher, outputFile: 'all.txt' });
    expect((await rejection(run)).code).toBe('OUTPUT_MISSING');
    expect(stitched).toEqual([]);
  });

  it.each(['OUTPUT=chunk-$1.txt', 'OUTPUT=$2'])('[F64] a function sees every finished output and decides (%s)', async (output) => {
    const folder = new Folder();
    const seen: [string, boolean, number | undefined][] = [];
    const spec = shellJob(3, `${output}; echo $FRAMEWRIGHT_ATTEMPT > "$OUTPUT"`, output.endsWith('2') ? ['{outputFile}'] : []);
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(spec, {
      jobDir: folder.path, retries: 1, retryDelay: 0,
      verifyOutput: async (file: string, chunk: RenderJobChunk) => {
        seen.push([file, existsSync(file), chunk.frameCount]);
        await Promise.resolve();
        return chunk.id !== 1 || seen.length > 2;
      },
    });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    const file = (n: number) => folder.file(`chunk-${n}.txt`);
    expect(seen).toEqual([0, 1, 1, 2].map((n) => [file(n), true, 10]));
    expect((await manager.chunks(id)).map((chunk) => chunk.attempt)).toEqual([1, 2, 1]);
    expect(folder.read('chunk-1.txt')).toBe('2\n');
  });

  it.each([
    ['says no', () => false],
    ['throws', () => { throw new Error('the codec is wrong'); }],
    ['rejects', () => Promise.reject(new Error('the codec is wrong'))],
  ])('[F64] a function that %s makes the output count as missing', async (_, verifyOutput) => {
    const folder = new Folder();
    const run = new JobExecutor(adapter()).execute(shellJob(1, 'echo x > "$2"', ['{outputFile}']), { jobDir: folder.path, verifyOutput });
    const error = await rejection(run);
    expect(error.code).toBe('OUTPUT_MISSING');
    expect(error.details).toMatchObject({ chunkId: 0, attempt: 1 });
    if (verifyOutput.toString().includes('codec')) {
      expect(error.message).toContain('the codec is wrong');
      expect((error.cause as Error).message).toBe('the codec is wrong');
    }
  });

  it('[F64] a function that never answers does not keep a cancelled job from its end', async () => {
    const folder = new Folder();
    const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter()), { abortGraceMs: 100 });
    const asked = deferred();
    const id = await manager.submitJob(shellJob(1, 'true'), { jobDir: folder.path, verifyOutput: () => (asked.resolve(), new Promise<boolean>(() => undefined)) });
    await asked.promise;
    await manager.cancelJob(id);
    expect((await manager.getJob(id))?.state).toBe('cancelled');
  });

  it('[F66] output arrives by chunk id and stream, its characters whole although they were torn between writes', async () => {
    const heard: Record<string, string> = {};
    const hear = (stream: string) => (chunkId: number, data: string) => void (heard[`${chunkId} ${stream}`] = (heard[`${chunkId} ${stream}`] ?? '') + data);
    // é is c3 a9, € is e2 82 ac, 🎬 is f0 9f 8e ac.
    const script = `printf "$1 caf\\303"; printf "$1 \\342\\202" >&2; sleep 0.15; printf '\\251 \\360\\237'; printf '\\254' >&2; sleep 0.15; printf '\\216\\254'`;
    await new JobExecutor(adapter()).execute(shellJob(2, script), { concurrency: 2, onChunkStdout: hear('out'), onChunkStderr: hear('err') });
    expect(heard).toEqual({ '0 out': '0 café 🎬', '0 err': '0 €', '1 out': '1 café 🎬', '1 err': '1 €' });
  });

  it('[F66] all output is heard, in order and whole, before the job is done', async () => {
    let text = '';
    const manager = manage(new JobExecutor(adapter()));
    const script = `i=0; while [ $i -lt 40 ]; do printf '%s' "$2"; i=$((i+1)); done`;
    const piece = '€'.repeat(3333);
    const id = await manager.submitJob(shellJob(1, script, [piece]), { onChunkStdout: (_, data) => void (text += data) });
    await manager.waitForJob(id);
    expect(text.length).toBe(40 * 3333);
    expect(text === '€'.repeat(40 * 3333)).toBe(true);
  });

  it('[F68] a chunk that writes 100 MB neither blocks nor makes memory grow, also when it is heard', async () => {
    let bytes = 0;
    const executor = new JobExecutor(adapter());
    const work = () => executor.execute(shellJob(1, HUNDRED_MB), { onChunkStdout: (_, data) => void (bytes += data.length) });
    expect(await growth(work)).toBeLessThan(80 * MB);
    expect(bytes).toBe(104_857_600);
  });

  it('[F68] output that nobody can hear while the event loop is blocked does not pile up in memory, nor is it lost in silence', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    let bytes = 0;
    const id = await manager.submitJob(shellJob(1, `echo $$ > child; ${HUNDRED_MB}`), { jobDir: folder.path, onChunkStdout: (_, data) => void (bytes += data.length) });
    await written(folder, 'child');
    const before = process.memoryUsage.rss();
    const end = performance.now() + 600;
    while (performance.now() < end);
    const grown = process.memoryUsage.rss() - before;
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(grown).toBeLessThan(80 * MB);
    const told = events.some((event) => event.type === 'job.warning' && event.message.includes('cut'));
    if (!told) expect(bytes).toBe(104_857_600);
  });

  it('[F68] status and logs stay small, and a warning tells that output was cut', async () => {
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(1, 'head -c 3000000 /dev/zero | tr "\\0" x; echo the end'));
    const status = await manager.waitForJob(id);
    expect(status.logs?.[0]?.stdout.endsWith('the end\n')).toBe(true);
    expect(JSON.stringify(status).length).toBeLessThan(150_000);
    if (native) expect(events.some((event) => event.type === 'job.warning' && event.message.includes('cut'))).toBe(true);
  });

  it.each([
    ['that does not exist', (_: Folder) => '/nowhere/framewright-no-such-program'],
    ['that is on no PATH', () => 'framewright-no-such-program'],
    ['that may not be executed', (folder: Folder) => (chmodSync(folder.write('tool', '#!/bin/sh\n'), 0o644), folder.file('tool'))],
    ['whose interpreter is missing', (folder: Folder) => (chmodSync(folder.write('tool', '#!/nowhere/sh\n'), 0o755), folder.file('tool'))],
    ['that is a folder', (folder: Folder) => folder.path],
  ])('[F70] a program %s is SPAWN_FAILED and is not tried again', async (_, program) => {
    const folder = new Folder();
    const path = program(folder);
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const id = await manager.submitJob({ chunks: [{ id: 7, argv: [path, 'x'] }] }, { jobDir: folder.path, retries: 3, retryDelay: 0 });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', failure: { code: 'SPAWN_FAILED', chunkId: 7, attempt: 1 } });
    expect(status.error).toContain(path);
    expect(events.filter((event) => event.type === 'chunk.started')).toHaveLength(1);
    expect(events.find((event) => event.type === 'chunk.failed')).toMatchObject({ willRetry: false });
  });

  it('a folder that does not exist is SPAWN_FAILED, named in the message, and not tried again', async () => {
    const folder = new Folder();
    const error = await rejection(new JobExecutor(adapter()).execute({ chunks: [{ id: 0, argv: ['true'] }] }, { jobDir: folder.file('gone'), retries: 2, retryDelay: 0 }));
    expect(error).toMatchObject({ code: 'SPAWN_FAILED', details: { attempt: 1 } });
    expect(error.message).toContain(folder.file('gone'));
  });

  it('a chunk that closes its output and goes on is waited for', async () => {
    const folder = new Folder();
    await new JobExecutor(adapter()).execute(shellJob(1, 'exec >&- 2>&-; sleep 0.3; : > done'), { jobDir: folder.path });
    expect(folder.has('done')).toBe(true);
  });

  it('a chunk finds its standard input empty', async () => {
    const folder = new Folder();
    await new JobExecutor(adapter()).execute(shellJob(1, 'cat > input; wc -c < input > size'), { jobDir: folder.path, timeouts: { chunkMs: 5000 } });
    expect(folder.read('size').trim()).toBe('0');
  });
});

describe('chunks that nobody hears', () => {
  it('[F68] may write 100 MB, which neither blocks nor makes memory grow', async () => {
    expect(await growth(() => local().execute(shellJob(1, `${HUNDRED_MB}; ${HUNDRED_MB} >&2`)))).toBeLessThan(80 * MB);
  });
});

describe('files of chunks that are run natively', () => {
  const words = ['{outputFile}'];

  it('[F65] an attempt writes under another name in the same folder with the same extension, and is renamed when it is done', async () => {
    const folder = new Folder();
    const spec = { chunks: [{ id: 0, outputFile: 'frames/part one.exr', argv: ['/bin/sh', '-c', 'printf %s "$1" > name; printf data > "$1"; ls -A frames > listing; printf %s "$FRAMEWRIGHT_OUTPUT_FILE" > env', 'sh', '{outputFile}'] }] };
    await local().execute(spec, { jobDir: folder.path });
    const used = folder.read('name');
    expect(used).not.toBe('frames/part one.exr');
    expect([dirname(used), extname(used)]).toEqual(['frames', '.exr']);
    expect(folder.lines('listing')).toEqual([basename(used)]);
    expect(folder.read('env')).toBe(used);
    expect(folder.read('frames/part one.exr')).toBe('data');
    expect(folder.has(used)).toBe(false);
  });

  it('[F65] each attempt has a name of its own', async () => {
    const folder = new Folder();
    await local().execute(shellJob(2, 'echo "$2" >> names; echo x > "$2"; [ $FRAMEWRIGHT_ATTEMPT = 3 ]', words), { jobDir: folder.path, retries: 2, retryDelay: 0 });
    expect(new Set(folder.lines('names')).size).toBe(6);
    expect(folder.names()).toEqual(['chunk-0.txt', 'chunk-1.txt', 'names']);
  });

  it.each([
    ['ends with a status', 'exit 1', {}],
    ['is killed', 'kill -9 $$', {}],
    ['runs out of time', FOREVER, { timeouts: { chunkMs: 200 } }],
    ['leaves an empty output', ': > "$2"', { verifyOutput: 'nonempty' as const }],
    ['is refused by a function', 'true', { verifyOutput: () => false }],
  ])('[F65] an attempt that %s leaves nothing', async (_, script, options) => {
    const folder = new Folder();
    await rejection(local().execute(shellJob(1, `echo half > "$2"; ${script}`, words), { jobDir: folder.path, ...options }));
    expect(folder.names()).toEqual([]);
  });

  it.each(['cancelJob', 'pauseJob', 'deleteJob'] as const)('[F65] an attempt that is stopped by %s leaves nothing', async (call) => {
    const folder = new Folder();
    const manager = manage(local());
    const id = await manager.submitJob(shellJob(1, `echo half > "$2"; echo $$ > pid; ${FOREVER}`, words), { jobDir: folder.path });
    await written(folder, 'pid');
    expect(folder.names()).toHaveLength(2);
    await manager[call](id);
    expect(folder.names()).toEqual(['pid']);
  });

  it('[F65] a failed attempt does not touch what is there under the final name', async () => {
    const folder = new Folder();
    folder.write('chunk-0.txt', 'from before');
    await rejection(local().execute(shellJob(1, 'echo half > "$2"; exit 1', words), { jobDir: folder.path }));
    expect(folder.read('chunk-0.txt')).toBe('from before');
  });

  it('[F65] a folder as output and a name of the longest length are put in place, too', async () => {
    const folder = new Folder();
    const long = `${'n'.repeat(251)}.txt`;
    const spec = { chunks: [
      { id: 0, outputFile: 'sequence', argv: ['/bin/sh', '-c', 'mkdir "$1" && echo 1 > "$1"/0001.png', 'sh', '{outputFile}'] },
      { id: 1, outputFile: long, argv: ['/bin/sh', '-c', 'echo long > "$1"', 'sh', '{outputFile}'] },
    ] };
    await local().execute(spec, { jobDir: folder.path, verifyOutput: 'nonempty' });
    expect(folder.names()).toEqual([long, 'sequence'].sort());
    expect(folder.read(join('sequence', '0001.png'))).toBe('1\n');
  });

  it("[F65] an adapter of the user's gets the final path", async () => {
    const jobs: WorkerJob[] = [];
    const adapter = { execute: async (job: WorkerJob) => (jobs.push(job), { exitCode: 0, stdout: '', stderr: '', durationMs: 1 }) };
    await new JobExecutor(adapter).execute({ chunks: [{ id: 0, outputFile: 'a b.mp4', command: 'render -o {outputFile}' }] }, { jobDir: '/anywhere' });
    expect(jobs[0]).toMatchObject({ command: 'render', args: ['-o', 'a b.mp4'], cwd: '/anywhere', env: { FRAMEWRIGHT_OUTPUT_FILE: 'a b.mp4' } });
  });
});

describe('a blocked event loop', () => {
  it('[F145] does not stop the chunks of a job that is run natively', async () => {
    const folder = new Folder();
    const manager = manage(local());
    const id = await manager.submitJob(shellJob(8, '[ $1 != 2 ] || [ $FRAMEWRIGHT_ATTEMPT = 2 ] || exit 1; date +%s%N >> stamps; sleep 0.04', ['{outputFile}']), { jobDir: folder.path, retries: 1, retryDelay: 10 });
    await written(folder, 'stamps');
    const from = Date.now();
    const end = performance.now() + 1500;
    while (performance.now() < end);
    const to = Date.now();
    const stamps = folder.lines('stamps').map((line) => Number(line) / 1e6);
    expect(stamps).toHaveLength(8);
    expect(stamps.filter((at) => at >= from && at <= to).length).toBeGreaterThanOrEqual(6);
    expect((await manager.waitForJob(id)).state).toBe('completed');
  });
});

describe('LocalWorkerAdapter by itself', () => {
  const adapter = new LocalWorkerAdapter();

  it('[F57] runs a program without a shell, in the given folder, with what it was given', async () => {
    const folder = new Folder();
    const words = ['$HOME', '*', 'a b', '', "it's", 'é'];
    const result = await adapter.execute({ command: 'printf', args: ['[%s]', ...words], cwd: folder.path });
    expect(result).toMatchObject({ exitCode: 0, stdout: words.map((word) => `[${word}]`).join(''), stderr: '' });
    expect(result.durationMs).toBeGreaterThan(0);
    const where = await adapter.execute(shell('pwd -P; echo "$X"; cat; echo to stderr >&2', { cwd: folder.path, env: { X: 'y' } }));
    expect(where).toMatchObject({ exitCode: 0, stdout: `${folder.path}\ny\n`, stderr: 'to stderr\n' });
  });

  it('[F57] inherits only the variables that it was made with', async () => {
    const { stdout } = await new LocalWorkerAdapter({ env: [] }).execute({ command: '/usr/bin/env', env: { ONLY: 'this' } });
    expect(stdout).toBe('ONLY=this\n');
  });

  it.each([['exit 0', 0, undefined], ['exit 9', 9, undefined], ['kill -9 $$', 137, 'SIGKILL'], ['kill -ABRT $$', 134, 'SIGABRT']])('[F63] gives the end by "%s" as exit code %i and signal %s', async (script, exitCode, signal) => {
    const result = await adapter.execute(shell(script));
    expect([result.exitCode, result.signal]).toEqual([exitCode, signal]);
    expect('signal' in result).toBe(signal !== undefined);
  });

  it('[F59] a timeout rejects with TIMEOUT once the process is gone', async () => {
    const folder = new Folder();
    const error = await rejection(adapter.execute(shell(`echo $$ > pid; ${FOREVER}`, { cwd: folder.path, timeout: 200 })));
    expect(error.code).toBe('TIMEOUT');
    expect(isAlive(pidIn(folder, 'pid'))).toBe(false);
  });

  it('[F62] an abort rejects with an AbortError once child and grandchild are gone', async () => {
    const folder = new Folder();
    const controller = new AbortController();
    const script = `trap '' TERM; sleep 600 & echo $! > grandchild; echo $$ > child; while :; do sleep 0.05; done`;
    const work = rejection(new LocalWorkerAdapter({ killGraceMs: 100 }).execute(shell(script, { cwd: folder.path, signal: controller.signal })));
    await written(folder, 'child');
    controller.abort(new Error('enough'));
    const error = await work;
    expect([error.name, error.code, (error.cause as Error).message]).toEqual(['AbortError', 'ABORTED', 'enough']);
    expect([isAlive(pidIn(folder, 'child')), isAlive(pidIn(folder, 'grandchild'))]).toEqual([false, false]);
  });

  it('[F62] nothing is started when the signal is aborted already', async () => {
    const folder = new Folder();
    expect((await rejection(adapter.execute(shell(': > ran', { cwd: folder.path, signal: AbortSignal.abort() })))).code).toBe('ABORTED');
    expect(folder.has('ran')).toBe(false);
  });

  it('[F62] the promise settles only after what the program left behind is gone', async () => {
    const result = await adapter.execute(shell("trap '' HUP; sleep 600 & echo $!"));
    expect(result.exitCode).toBe(0);
    expect(isAlive(Number(result.stdout))).toBe(false);
  });

  it('[F62] a suspended process is stopped all the same', async () => {
    const folder = new Folder();
    const controller = new AbortController();
    const work = rejection(adapter.execute(shell('echo $$ > child; kill -STOP $$; sleep 600', { cwd: folder.path, signal: controller.signal })));
    await written(folder, 'child');
    controller.abort();
    expect((await work).code).toBe('ABORTED');
    expect(isAlive(pidIn(folder, 'child'))).toBe(false);
  });

  it('[F66] hands over the pieces in order before it resolves, and invalid bytes as U+FFFD', async () => {
    let out = '';
    let err = '';
    const result = await adapter.execute(shell("printf 'a\\303'; sleep 0.1; printf '\\251b\\377c'; printf 'torn \\342' >&2", { onStdout: (data) => void (out += data), onStderr: (data) => void (err += data) }));
    expect([out, err]).toEqual(['aéb\ufffdc', 'torn \ufffd']);
    expect([result.stdout, result.stderr]).toEqual([out, err]);
  });

  it('[F68] keeps the first and the last bytes of a stream, and no more', async () => {
    const small = new LocalWorkerAdapter({ keepOutputBytes: 1000 });
    const grown = await growth(async () => {
      const { stdout, exitCode } = await small.execute(shell('echo first; head -c 104857600 /dev/zero | tr "\\0" x; echo; echo last'));
      expect(exitCode).toBe(0);
      expect(stdout.startsWith('first\nxxx')).toBe(true);
      expect(stdout.endsWith('xxx\nlast\n')).toBe(true);
      expect(stdout.length).toBeGreaterThanOrEqual(2000);
      expect(stdout.length).toBeLessThan(2300);
    });
    expect(grown).toBeLessThan(80 * MB);
  });

  it.each([
    ['that does not exist', { command: '/nowhere/tool' }],
    ['in a folder that does not exist', { command: 'true', cwd: '/nowhere' }],
  ])('[F70] a program %s rejects with SPAWN_FAILED', async (_, job) => {
    const error = await rejection(adapter.execute(job));
    expect(error.code).toBe('SPAWN_FAILED');
    expect(error.message).toContain('/nowhere');
  });

  it('[F69] what its listeners throw does not change the result', async () => {
    const boom = () => { throw new Error('boom'); };
    const result = await adapter.execute(shell('echo out; echo err >&2', { onStdout: boom, onStderr: boom }));
    expect(result).toMatchObject({ exitCode: 0, stdout: 'out\n', stderr: 'err\n' });
  });
});

describe('chunks that are rendered by a function', () => {
  it('[F71] get their chunk and context, and need no command', async () => {
    const calls: unknown[] = [];
    const manager = manage(JobExecutor.fromFunction(async (chunk, { signal, jobId, attempt }) => {
      calls.push([chunk, signal instanceof AbortSignal, signal.aborted, jobId, attempt]);
    }));
    const id = await manager.submitJob({ chunks: [{ id: 3, startFrame: 5, frameCount: 2, color: 'red' }] });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(calls).toEqual([[{ id: 3, startFrame: 5, frameCount: 2, color: 'red' }, true, false, id, 1]]);
  });

  it('[F71] are told to stop by the signal, and cancelJob waits for them', async () => {
    const began = deferred();
    let stopped = false;
    const manager = manage(JobExecutor.fromFunction(async (_, { signal }) => {
      began.resolve();
      await whenAborted(signal).catch(async () => {
        await new Promise((resolve) => setImmediate(resolve));
        stopped = true;
        throw new Error('stopped');
      });
    }));
    const id = await manager.submitJob({ chunks: [{ id: 0 }] });
    await began.promise;
    await manager.cancelJob(id);
    expect(stopped).toBe(true);
    expect(await manager.getJob(id)).toMatchObject({ state: 'cancelled', completedChunks: 0 });
  });

  it('[F71] may give a result: output is kept, an exit code other than 0 is a failure', async () => {
    const manager = manage(JobExecutor.fromFunction(async ({ id }) => (id === 0 ? { stdout: 'rendered', durationMs: 12 } : { exitCode: 4, stderr: 'no light' })));
    const id = await manager.submitJob({ chunks: [{ id: 0 }, { id: 1 }] });
    const status = await manager.waitForJob(id);
    expect(status.logs).toMatchObject([{ chunkId: 0, stdout: 'rendered', durationMs: 12 }]);
    expect(status).toMatchObject({ state: 'failed', failure: { code: 'CHUNK_FAILED', chunkId: 1, exitCode: 4, stderrTail: 'no light' } });
  });

  it('[F71] that throw fail, with what was thrown as the cause', async () => {
    const thrown = new RangeError('out of light');
    const error = await rejection(JobExecutor.fromFunction(() => Promise.reject(thrown)).execute({ chunks: [{ id: 5 }] }));
    expect(error).toBeInstanceOf(FramewrightError);
    expect(error.code).toBe('CHUNK_FAILED');
    expect(error.cause).toBe(thrown);
    expect(error.message).toContain('out of light');
  });

  it('[F71] report their progress, which raises that of the job', async () => {
    const reported = deferred();
    const goOn = deferred();
    const manager = manage(JobExecutor.fromFunction(async (_, { reportProgress }) => {
      reportProgress(0.5);
      reportProgress(0.25);
      reported.resolve();
      await goOn.promise;
    }));
    const id = await manager.submitJob({ chunks: [{ id: 0, startFrame: 0, frameCount: 10 }, { id: 1, startFrame: 10, frameCount: 10 }] });
    await reported.promise;
    expect((await manager.getJob(id))?.progress).toBe(25);
    goOn.resolve();
    expect((await manager.waitForJob(id)).progress).toBe(100);
  });

  it('[F35] are never more at once than the concurrency', async () => {
    let now = 0;
    let most = 0;
    const executor = JobExecutor.fromFunction(async ({ id }, { attempt }) => {
      most = Math.max(most, (now += 1));
      await new Promise((resolve) => setImmediate(resolve));
      now -= 1;
      if (id % 7 === 0 && attempt === 1) throw new Error('once');
    });
    await executor.execute({ chunks: Array.from({ length: 200 }, (_, id) => ({ id })) }, { concurrency: 5, retries: 1, retryDelay: 0 });
    expect(most).toBe(5);
  });

  it('[F59] are stopped by chunkMs through their signal', async () => {
    let reason: unknown;
    const executor = JobExecutor.fromFunction((_, { signal }) => whenAborted(signal).finally(() => void (reason = signal.reason)));
    const error = await rejection(executor.execute({ chunks: [{ id: 0 }] }, { timeouts: { chunkMs: 50 } }));
    expect(error).toMatchObject({ code: 'TIMEOUT', details: { chunkId: 0, attempt: 1 } });
    expect(reason).toMatchObject({ code: 'TIMEOUT' });
  });

  it('[F59] that do not listen to their signal are given up after the grace, and their late end counts for nothing', async () => {
    const late = deferred();
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(() => late.promise), { abortGraceMs: 50 });
    const id = await manager.submitJob({ chunks: [{ id: 0 }] }, { timeouts: { chunkMs: 50 } });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
    late.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    expect(await manager.getJob(id)).toMatchObject({ state: 'failed', completedChunks: 0 });
  });

  it('[F61][F148] that report no progress for noProgressMs fail with NO_PROGRESS; a report puts it off', async () => {
    const executor = JobExecutor.fromFunction(async ({ id }, { signal, reportProgress }) => {
      if (id === 1) return whenAborted(signal);
      for (let n = 1; n <= 8; n += 1) {
        await new Promise((resolve) => setTimeout(resolve, 50));
        reportProgress(n / 8);
      }
    });
    const done: number[] = [];
    const error = await rejection(executor.execute({ chunks: [{ id: 0 }, { id: 1 }] }, { timeouts: { noProgressMs: 250 }, onChunkComplete: (id) => void done.push(id) }));
    expect(error).toMatchObject({ code: 'NO_PROGRESS', details: { chunkId: 1 } });
    expect(done).toEqual([0]);
  });

  it('[F70] whose error has the code ENOENT are not tried again', async () => {
    let calls = 0;
    const executor = JobExecutor.fromFunction(() => {
      calls += 1;
      return Promise.reject(Object.assign(new Error('spawn blender ENOENT'), { code: 'ENOENT' }));
    });
    expect((await rejection(executor.execute({ chunks: [{ id: 0 }] }, { retries: 3, retryDelay: 0 }))).code).toBe('SPAWN_FAILED');
    expect(calls).toBe(1);
  });
});

describe('the merge adapter', () => {
  it('[F72] runs the merge command, and nothing but the merge', async () => {
    const folder = new Folder();
    const jobs: WorkerJob[] = [];
    const mergeAdapter = { execute: async (job: WorkerJob) => (jobs.push(job), { exitCode: 0, stdout: '', stderr: '', durationMs: 1 }) };
    const manager = manage(local());
    const spec = shellJob(2, 'echo $1 >> ran', [], { mergeCommand: "join 'a b' {jobId} {outputFile}" });
    const id = await manager.submitJob(spec, { jobDir: folder.path, mergeAdapter, outputFile: 'all.mp4', env: { A: 'b' } });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.lines('ran')).toEqual(['0', '1']);
    expect(jobs).toHaveLength(1);
    expect(jobs[0]).toMatchObject({ command: 'join', args: ['a b', id, 'all.mp4'], cwd: folder.path, env: { A: 'b' } });
    expect(jobs[0]?.signal).toBeInstanceOf(AbortSignal);
  });

  it('[F72] that gives another exit code than 0 fails the job with MERGE_FAILED', async () => {
    const mergeAdapter = { execute: async () => ({ exitCode: 2, stdout: '', stderr: 'codec mismatch', durationMs: 1 }) };
    const error = await rejection(local().execute(shellJob(1, 'true', [], { mergeCommand: 'join' }), { mergeAdapter }));
    expect(error).toMatchObject({ code: 'MERGE_FAILED', details: { exitCode: 2, stderrTail: 'codec mismatch' } });
    expect(error.message).toContain('codec mismatch');
  });

  it('[F59] that does not listen to its signal is given up after mergeMs and the grace', async () => {
    const manager = open(new InMemoryJobRepository(), local(), { abortGraceMs: 50 });
    const mergeAdapter = { execute: () => new Promise<never>(() => undefined) };
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: 'join' }), { mergeAdapter, timeouts: { mergeMs: 50 } });
    expect(await manager.waitForJob(id, { timeoutMs: 5000 })).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
  });
});

describe('output that nobody takes in', () => {
  // The event loop stands still, so that no piece is heard.
  const standStill = (ms: number): void => void Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);

  it('[F59] stops no time limit: a program that writes too long is ended while the event loop is blocked', async () => {
    const folder = new Folder();
    const manager = manage(local());
    const begun = deferred();
    const id = await manager.submitJob(shellJob(1, 'echo $$ > pid; exec yes "all work and no play"'), {
      jobDir: folder.path, timeouts: { chunkMs: 700 }, onChunkStdout: () => begun.resolve(),
    });
    await begun.promise;
    const pid = pidIn(folder, 'pid');
    standStill(2500);
    expect(isAlive(pid)).toBe(false);
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT', message: 'Chunk 0 failed: it took longer than 700 ms' } });
  });

  it('[F61] is no silence: a program that is held up by it has not stopped to make progress', async () => {
    const manager = manage(local());
    let bytes = 0;
    const id = await manager.submitJob(shellJob(1, 'yes "all work and no play" | head -c 16777216'), {
      timeouts: { noProgressMs: 600 },
      onChunkStdout: (_, data) => {
        if (bytes === 0) standStill(2000);
        bytes += data.length;
      },
    });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed' });
    expect(bytes).toBe(16_777_216);
  });
});
