import { InMemoryJobRepository, JobExecutor, type JobExecutionOptions, type JobManager, type JobManagerOptions, type WorkerAdapter } from 'framewright';
import { getEventListeners } from 'node:events';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { chunkResult, OwnExecutor, whenAborted } from './support/own-executor.js';
import { isAlive } from './support/processes.js';
import { rejection } from './support/rejection.js';
import { adapters, local, shellJob } from './support/shell.js';
import { nextEvent, traceOf } from './support/trace.js';
import { until } from './support/turns.js';

const FOREVER = 'exec sleep 600';
/** Far longer than a test. */
const LONG_MS = 600_000;
/** What "at once" may take on a busy machine. */
const AT_ONCE_MS = 3000;

const manage = (executor: JobExecutor | OwnExecutor, options?: JobManagerOptions) => open(new InMemoryJobRepository(), executor, options);

/** How long something takes, in milliseconds. */
async function timed(work: Promise<unknown>): Promise<number> {
  const begun = performance.now();
  await work;
  return performance.now() - begun;
}

const attemptsOf = async (manager: JobManager, id: string) => (await manager.chunks(id)).map((chunk) => chunk.attempt);

describe.each(adapters)('attempts of chunks $kind', ({ adapter }) => {
  it('[F73] a chunk that fails once and then succeeds has two attempts', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(3, 'echo $1 $FRAMEWRIGHT_ATTEMPT $2 >> ran; [ $1 != 1 ] || [ $2 = 2 ]', ['{attempt}']), { jobDir: folder.path, retries: 5, retryDelay: 0 });
    const status = await manager.waitForJob(id);
    expect(status.state).toBe('completed');
    expect(await attemptsOf(manager, id)).toEqual([1, 2, 1]);
    expect(folder.lines('ran').sort()).toEqual(['0 1 1', '1 1 1', '1 2 2', '2 1 1']);
    expect(events.filter((event) => event.type === 'chunk.started' && event.chunkId === 1)).toMatchObject([{ attempt: 1 }, { attempt: 2 }]);
    expect(events.filter((event) => event.type === 'chunk.failed')).toMatchObject([{ chunkId: 1, attempt: 1, willRetry: true, retryInMs: 0 }]);
    expect(status.failure).toBeUndefined();
    expect(status.error).toBeUndefined();
  });

  it('[F73] `retries` are further attempts: a chunk that always fails has one more', async () => {
    const manager = manage(new JobExecutor(adapter()));
    for (const retries of [0, 2]) {
      const id = await manager.submitJob(shellJob(1, 'exit 1'), { retries, retryDelay: 0 });
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { attempt: retries + 1 } });
      expect(await attemptsOf(manager, id)).toEqual([retries + 1]);
    }
  });

  it('[F73] an attempt that a pause stopped has its number for good, and does not count against the retries', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const script = `echo $FRAMEWRIGHT_ATTEMPT >> ran; case $FRAMEWRIGHT_ATTEMPT in 1) ${FOREVER};; 2) exit 1;; esac`;
    const id = await manager.submitJob(shellJob(1, script), { jobDir: folder.path, retries: 1, retryDelay: 0 });
    await until(() => folder.lines('ran').length === 1, 'the first attempt');
    await manager.pauseJob(id);
    expect(await attemptsOf(manager, id)).toEqual([1]);
    await manager.resumeJob(id);
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.lines('ran')).toEqual(['1', '2', '3']);
    expect(await attemptsOf(manager, id)).toEqual([3]);
  });

  it('[F73] a failure before a pause still counts after it', async () => {
    const manager = manage(new JobExecutor(adapter()));
    const failed = nextEvent(manager, 'chunk.failed');
    const id = await manager.submitJob(shellJob(1, 'exit 1'), { retries: 1, retryDelay: LONG_MS });
    await failed;
    await manager.pauseJob(id);
    await manager.resumeJob(id);
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { attempt: 2 } });
  });

  it('[F73] a failed job that is resumed has its retries anew, and goes on counting where it was', async () => {
    const folder = new Folder();
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(2, 'echo $1 $FRAMEWRIGHT_ATTEMPT >> ran; [ $1 = 0 ] || [ $FRAMEWRIGHT_ATTEMPT = 4 ]'), { jobDir: folder.path, retries: 1, retryDelay: 0 });
    expect((await manager.waitForJob(id)).state).toBe('failed');
    await manager.resumeJob(id);
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(folder.lines('ran')).toEqual(['0 1', '1 1', '1 2', '1 3', '1 4']);
    expect(await attemptsOf(manager, id)).toEqual([1, 4]);
  });

  it('[F74] a delay of 0 is none', async () => {
    expect(await timed(rejection(new JobExecutor(adapter()).execute(shellJob(1, 'exit 1'), { retries: 15, retryDelay: 0 })))).toBeLessThan(AT_ONCE_MS);
  });

  it('[F74] the delay is 1000 ms by default, and other chunks do not wait for it', async () => {
    const manager = manage(new JobExecutor(adapter()));
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(3, '[ $1 != 0 ] || [ $FRAMEWRIGHT_ATTEMPT = 2 ]'), { retries: 1 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    const told = events.flatMap((event) => (event.type === 'chunk.started' ? [[event.chunkId, event.attempt]] : []));
    expect(told).toEqual([[0, 1], [1, 1], [2, 1], [0, 2]]);
    const failed = events.find((event) => event.type === 'chunk.failed');
    const again = events.find((event) => event.type === 'chunk.started' && event.attempt === 2);
    expect(failed).toMatchObject({ retryInMs: 1000 });
    expect(again!.at - failed!.at).toBeGreaterThanOrEqual(990);
    expect(again!.at - failed!.at).toBeLessThan(1000 + AT_ONCE_MS);
  });

  it.each(['cancelJob', 'pauseJob', 'deleteJob', 'close'] as const)('[F82] %s ends the wait for another attempt at once', async (call) => {
    const manager = manage(new JobExecutor(adapter()));
    const failed = nextEvent(manager, 'chunk.failed');
    const id = await manager.submitJob(shellJob(1, 'exit 1'), { retries: 1, retryDelay: LONG_MS });
    await failed;
    expect(await timed(call === 'close' ? manager.close() : manager[call](id))).toBeLessThan(AT_ONCE_MS);
    expect((await manager.getJob(id))?.state).toBe({ cancelJob: 'cancelled', pauseJob: 'paused', deleteJob: undefined, close: 'pending' }[call]);
  });

  it('[F82] an abort during the wait rejects at once and leaves no listener and no timer behind', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
    const before = timers();
    const controller = new AbortController();
    const { signal } = controller;
    const failed = deferred();
    const run = rejection(new JobExecutor(adapter()).execute(shellJob(1, 'echo failing; exit 1'), { retries: 1, retryDelay: LONG_MS, signal, onChunkStdout: () => failed.resolve() }));
    await failed.promise;
    controller.abort();
    let error;
    expect(await timed(run.then((thrown) => (error = thrown)))).toBeLessThan(AT_ONCE_MS);
    expect(error).toMatchObject({ name: 'AbortError', code: 'ABORTED' });
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    expect(timers()).toBeLessThanOrEqual(before);
  });

  it('[F82] a job leaves no listener on the signal, however it ends', async () => {
    const { signal } = new AbortController();
    const executor = new JobExecutor(adapter());
    const manager = manage(executor);
    for (const script of ['true', '[ $FRAMEWRIGHT_ATTEMPT = 2 ]', 'exit 1']) {
      const options: JobExecutionOptions = { signal, retries: 1, retryDelay: 5, concurrency: 2, timeouts: { chunkMs: 5000 } };
      await executor.execute(shellJob(3, script), options).catch(() => undefined);
      expect(getEventListeners(signal, 'abort')).toEqual([]);
      await manager.waitForJob(await manager.submitJob(shellJob(3, script), options));
      expect(getEventListeners(signal, 'abort')).toEqual([]);
    }
  });

  it('[F85] the first final failure stops the siblings: the rejection comes within the kill grace, when they are gone', async () => {
    const folder = new Folder();
    // One sibling does as it is told, the other ignores SIGTERM; chunk 0 fails once both run.
    const script = `case $1 in
      0) while [ ! -e pid-1 ] || [ ! -e pid-2 ]; do sleep 0.01; done; exit 5;;
      1) echo $$ > pid-1; ${FOREVER};;
      2) trap '' TERM; echo $$ > pid-2; while :; do sleep 0.05; done;;
      *) : > never;;
    esac`;
    const manager = manage(new JobExecutor(adapter({ killGraceMs: 200 })));
    const failed = nextEvent(manager, 'chunk.failed');
    const id = await manager.submitJob(shellJob(5, script), { jobDir: folder.path, concurrency: 3 });
    await failed;
    let status;
    expect(await timed(manager.waitForJob(id).then((ended) => (status = ended)))).toBeLessThan(200 + AT_ONCE_MS);
    expect(['pid-1', 'pid-2'].map((name) => isAlive(Number(folder.read(name))))).toEqual([false, false]);
    expect(status).toMatchObject({ state: 'failed', failure: { chunkId: 0, exitCode: 5 }, chunksByState: { failed: 1, pending: 4, running: 0, completed: 0 } });
    expect(folder.has('never')).toBe(false);
  });

  it('[F85] a failure that is tried again stops nobody', async () => {
    const manager = manage(new JobExecutor(adapter()));
    const id = await manager.submitJob(shellJob(2, 'if [ $1 = 0 ]; then [ $FRAMEWRIGHT_ATTEMPT = 2 ]; else sleep 0.2; fi'), { concurrency: 2, retries: 1, retryDelay: 0 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(await attemptsOf(manager, id)).toEqual([2, 1]);
  });

  it("[F86] with 'continue' the rest is run, and every failed chunk is reported", async () => {
    const manager = manage(new JobExecutor(adapter()));
    const spec = shellJob(6, 'echo "no $1" >&2; [ $(($1 % 2)) = 0 ] || exit $((10 + $1))', [], { mergeCommand: 'false' });
    const id = await manager.submitJob(spec, { failurePolicy: 'continue', retries: 1, retryDelay: 0 });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', completedChunks: 3, failure: { code: 'CHUNK_FAILED' } });
    expect(status.failures?.map(({ code, chunkId, attempt, exitCode, stderrTail }) => [code, chunkId, attempt, exitCode, stderrTail?.trim()])).toEqual([
      ['CHUNK_FAILED', 1, 2, 11, 'no 1'], ['CHUNK_FAILED', 3, 2, 13, 'no 3'], ['CHUNK_FAILED', 5, 2, 15, 'no 5'],
    ]);
    // Going on does what is missing, and no more.
    expect((await manager.chunks(id, { state: 'failed' })).map((chunk) => chunk.id)).toEqual([1, 3, 5]);
  });

  it('[F87] a failure carries code, chunk, attempt, exit code, signal and the end of stderr, in the status and in the error', async () => {
    const script = 'i=0; while [ $i -lt 3000 ]; do echo "line $i" >&2; i=$((i+1)); done; echo "é: no such texture" >&2; kill -USR1 $$';
    const spec = { chunks: [{ id: 42, argv: ['/bin/sh', '-c', script] }] };
    const options = { retries: 1, retryDelay: 0 };
    const executor = new JobExecutor(adapter());
    const error = await rejection(executor.execute(spec, options));
    const manager = manage(executor);
    const status = await manager.waitForJob(await manager.submitJob(spec, options));
    const expected = { chunkId: 42, attempt: 2, exitCode: 138, signal: 'SIGUSR1' };
    expect(error).toMatchObject({ name: 'FramewrightError', code: 'CHUNK_FAILED', details: expected });
    expect(status.failure).toMatchObject({ code: 'CHUNK_FAILED', ...expected });
    for (const tail of [error.details?.['stderrTail'], status.failure?.stderrTail] as string[]) {
      expect(tail.endsWith('line 2999\né: no such texture\n')).toBe(true);
      expect(tail.length).toBeLessThan(20_000);
    }
    expect(status.error).toBe(status.failure?.message);
    expect(status.error).toMatch(/42.*SIGUSR1.*no such texture/s);
    expect((await manager.chunks(status.id))[0]?.error).toMatchObject(expected);
  });
});

describe('attempts of functions', () => {
  it('[F73] are counted for each chunk alone', async () => {
    const attempts: Record<number, number[]> = {};
    const executor = JobExecutor.fromFunction(async ({ id }, { attempt }) => {
      (attempts[id] ??= []).push(attempt);
      if (attempt <= id) throw new Error('not yet');
    });
    await executor.execute({ chunks: [{ id: 0 }, { id: 1 }, { id: 2 }, { id: 3 }] }, { retries: 3, retryDelay: 0, concurrency: 2 });
    expect(attempts).toEqual({ 0: [1], 1: [1, 2], 2: [1, 2, 3], 3: [1, 2, 3, 4] });
  });

  it('[F82] do not begin again after an abort during the wait', async () => {
    const { signal, abort } = ((controller) => ({ signal: controller.signal, abort: () => controller.abort() }))(new AbortController());
    let calls = 0;
    const failed = deferred();
    const executor = JobExecutor.fromFunction(async () => {
      calls += 1;
      failed.resolve();
      throw new Error('no');
    });
    const run = rejection(executor.execute({ chunks: [{ id: 0 }] }, { retries: 9, retryDelay: LONG_MS, signal }));
    await failed.promise;
    await new Promise((resolve) => setImmediate(resolve));
    abort();
    expect((await run).name).toBe('AbortError');
    expect(calls).toBe(1);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('[F82] of thousands of chunks do not pile listeners up on the signal', async () => {
    const { signal } = new AbortController();
    let most = 0;
    const executor = JobExecutor.fromFunction(async () => {
      await new Promise((resolve) => setImmediate(resolve));
      most = Math.max(most, getEventListeners(signal, 'abort').length);
    });
    await executor.execute({ chunks: Array.from({ length: 500 }, (_, id) => ({ id })) }, { signal, concurrency: 8, timeouts: { chunkMs: LONG_MS } });
    expect(most).toBeLessThan(5);
    expect(getEventListeners(signal, 'abort')).toEqual([]);
  });

  it('[F82] leave no listener of their waits on the signal that they get', async () => {
    let most = 0;
    const executor = JobExecutor.fromFunction(async (_, { signal, attempt }) => {
      most = Math.max(most, getEventListeners(signal, 'abort').length);
      if (attempt < 20) throw new Error('again');
    });
    await executor.execute({ chunks: [{ id: 0 }] }, { retries: 20, retryDelay: 1 });
    expect(most).toBeLessThan(3);
  });

  it('[F85] are told to stop when a sibling fails; who is deaf is given up after the grace', async () => {
    const aborted: number[] = [];
    const manager = manage(
      JobExecutor.fromFunction(async ({ id }, { signal }) => {
        if (id === 0) throw new Error('broke');
        if (id === 1) return whenAborted(signal).finally(() => aborted.push(id));
        return new Promise<never>(() => undefined);
      }),
      { abortGraceMs: 100 },
    );
    const id = await manager.submitJob({ chunks: [{ id: 1 }, { id: 2 }, { id: 0 }, { id: 3 }] }, { concurrency: 3 });
    let status;
    expect(await timed(manager.waitForJob(id).then((ended) => (status = ended)))).toBeLessThan(AT_ONCE_MS);
    expect(status).toMatchObject({ state: 'failed', failure: { chunkId: 0 } });
    expect(status).toHaveProperty('error', expect.stringContaining('broke'));
    expect(aborted).toEqual([1]);
  });

  it("[F86] with 'continue' the error's cause is that of the failure that it tells", async () => {
    const executor = JobExecutor.fromFunction(({ id }) => (id === 1 ? Promise.resolve() : Promise.reject(new Error(`chunk ${id} broke`))));
    const error = await rejection(executor.execute({ chunks: [{ id: 0 }, { id: 1 }, { id: 2 }] }, { failurePolicy: 'continue' }));
    expect(error.details).toMatchObject({ chunkId: 0 });
    expect((error.cause as Error).message).toBe('chunk 0 broke');
  });

  it('[F87] an earlier error that was got over is not the cause of a later failure', async () => {
    const executor = JobExecutor.fromFunction(async ({ id }, { attempt }) => {
      if (id === 0 && attempt === 1) throw new Error('got over');
      return { exitCode: id };
    });
    const error = await rejection(executor.execute({ chunks: [{ id: 0 }, { id: 7 }] }, { retries: 1, retryDelay: 0 }));
    expect(error).toMatchObject({ code: 'CHUNK_FAILED', details: { chunkId: 7, exitCode: 7 } });
    expect(error.cause).toBeUndefined();
  });
});

describe('attempts to merge', () => {
  const failing = (times: number) => {
    let calls = 0;
    const adapter: WorkerAdapter = { execute: async () => ({ ...chunkResult, exitCode: (calls += 1) <= times ? 9 : 0 }) };
    return { adapter, calls: () => calls };
  };

  it("[F84] follow the chunks' policy", async () => {
    const merge = failing(2);
    const manager = manage(local());
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: 'join' }), { mergeAdapter: merge.adapter, retries: 2, retryDelay: 20 });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(merge.calls()).toBe(3);
    expect(events.flatMap((event) => (event.type === 'merge.failed' ? [event.willRetry] : event.type === 'merge.completed' ? ['done'] : []) as (boolean | string)[])).toEqual([true, true, 'done']);
    const [first, second] = events.filter((event) => event.type === 'merge.failed').map((event) => event.at);
    // Whole milliseconds of another clock than that of timers.
    expect(second! - first!).toBeGreaterThanOrEqual(19);
  });

  it('[F84] end after the retries, as failure of the merge', async () => {
    const merge = failing(9);
    const manager = manage(local());
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: 'join' }), { mergeAdapter: merge.adapter, retries: 1, retryDelay: 0 });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'MERGE_FAILED', exitCode: 9 }, completedChunks: 1 });
    expect(merge.calls()).toBe(2);
  });

  it('[F84] begin again by resumeJob, alone: no chunk runs twice', async () => {
    const folder = new Folder();
    const merge = failing(1);
    const manager = manage(local());
    const id = await manager.submitJob(shellJob(3, 'echo $1 >> ran', [], { mergeCommand: 'join' }), { jobDir: folder.path, mergeAdapter: merge.adapter });
    expect((await manager.waitForJob(id)).state).toBe('failed');
    await manager.resumeJob(id);
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', progress: 100, completedChunks: 3 });
    expect(merge.calls()).toBe(2);
    expect(folder.lines('ran')).toEqual(['0', '1', '2']);
    expect(await manager.getJob(id)).not.toHaveProperty('failure');
  });

  it('[F84] a cancel ends the wait for the next one at once', async () => {
    const manager = manage(local());
    const failed = nextEvent(manager, 'merge.failed');
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: 'join' }), { mergeAdapter: failing(9).adapter, retries: 9, retryDelay: LONG_MS });
    await failed;
    expect(await timed(manager.cancelJob(id))).toBeLessThan(AT_ONCE_MS);
    expect((await manager.getJob(id))?.state).toBe('cancelled');
  });

  it('[F70][F84] a merge program that does not exist is not tried again', async () => {
    const manager = manage(local());
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: '/nowhere/join' }), { retries: 3, retryDelay: 0 });
    const status = await manager.waitForJob(id);
    expect(status.state).toBe('failed');
    expect(status.error).toContain('/nowhere/join');
    expect(events.filter((event) => event.type === 'merge.failed')).toMatchObject([{ willRetry: false }]);
  });
});

describe("[F69] what the user's callbacks throw", () => {
  const boom = () => { throw new Error('boom'); };
  const reject = () => Promise.reject(new Error('boom'));
  const kinds = [
    { how: 'thrown', callback: boom },
    { how: 'rejected', callback: reject as unknown as () => never },
  ];
  const names = ['onProgress', 'onChunkComplete', 'onChunkStdout', 'onChunkStderr'] as const;
  const ours = [
    ...adapters.map(({ kind, adapter }) => ({ kind: `chunks ${kind}`, create: () => new JobExecutor(adapter()), all: true })),
    { kind: 'chunks of a function', create: () => JobExecutor.fromFunction(async () => ({ stdout: 'out' })), all: false },
  ];
  const executors = [...ours, { kind: "an executor of the user's", create: () => new OwnExecutor(), all: false }];
  const cases = executors.flatMap(({ kind, create, all }) => kinds.flatMap(({ how, callback }) => names.filter((name) => all || !name.includes('Std')).map((name) => ({ kind, create, how, callback, name }))));

  it.each(cases)('[F69] $kind: $how by $name is a warning and changes nothing', async ({ create, callback, name }) => {
    const records: { level: string; message: string }[] = [];
    const manager = manage(create(), { logger: (record) => void records.push(record) });
    const events = traceOf(manager);
    const id = await manager.submitJob(shellJob(3, 'echo out; echo err >&2'), { [name]: callback, concurrency: 2 });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 3, progress: 100 });
    const warned = () => events.filter((event) => event.type === 'job.warning' && event.jobId === id && event.message.includes(name) && event.message.includes('boom'));
    await until(() => warned().length >= 3, 'a warning for each call');
    expect(records.some(({ level, message }) => level === 'warn' && message.includes('boom'))).toBe(true);
    expect((await manager.getJob(id))?.state).toBe('completed');
  });

  it.each(kinds)('[F69] $how by a listener is a warning and keeps nobody else from hearing', async ({ callback }) => {
    const records: string[] = [];
    const manager = manage(local(), { logger: ({ message }) => void records.push(message) });
    manager.on('chunk.completed', callback);
    manager.on('event', callback);
    const events = traceOf(manager);
    manager.on('job.warning', callback);
    const id = await manager.submitJob(shellJob(2, 'true'));
    expect((await manager.waitForJob(id)).state).toBe('completed');
    await until(() => events.some((event) => event.type === 'job.warning' && event.message.includes('boom')), 'the warning');
    expect(events.filter((event) => event.type === 'chunk.completed')).toHaveLength(2);
    expect(records.some((message) => message.includes('boom'))).toBe(true);
  });

  it('[F69] thrown by the logger is nobody\'s business', async () => {
    const manager = manage(local(), { logger: boom });
    const id = await manager.submitJob(shellJob(2, 'true'), { onProgress: boom, onChunkComplete: reject });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2 });
  });

  it.each(ours)('[F69] does not change what execute of $kind gives', async ({ create }) => {
    await create().execute(shellJob(2, 'echo out'), { onProgress: boom, onChunkComplete: reject, onChunkStdout: boom, onChunkStderr: boom });
  });
});
