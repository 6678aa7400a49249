import {
  InMemoryJobRepository,
  JobExecutor,
  LocalWorkerAdapter,
  type Executor,
  type JobExecutionOptions,
  type JobManager,
  type JobSpec,
  type LogRecord,
} from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { gone, isAlive } from './support/processes.js';
import { rejection } from './support/rejection.js';
import { QUIET, script } from './support/script.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';

/** An executor that ends when it is told to, and does not listen to its signal. */
class Deaf implements Executor {
  readonly end = deferred();
  readonly begun = deferred();
  options: JobExecutionOptions = {};

  async execute(_: JobSpec, options: JobExecutionOptions = {}): Promise<void> {
    this.options = options;
    this.begun.resolve();
    await this.end.promise;
  }
}

async function running(manager: JobManager, id: string, options: JobExecutionOptions = {}): Promise<void> {
  const begun = nextEvent(manager, 'job.started', id);
  await manager.submitJob(specOf(3), { id, ...options });
  await begun;
}

describe.each(repositories)('close, jobs kept $kind', ({ create }) => {
  it('[F143] stops what runs at once by default, and leaves it pending', async () => {
    const repository = create();
    let aborted = 0;
    const executor = new OwnExecutor((_, signal) => whenAborted(signal).finally(() => (aborted += 1)));
    const manager = open(repository, executor);
    await running(manager, 'a');
    await running(manager, 'b');
    await manager.close();
    expect(aborted).toBe(2);
    for (const id of ['a', 'b']) {
      expect((await manager.getJob(id))!.state).toBe('pending');
      const kept = (await repository.get(id))!;
      expect(kept.state).toBe('pending');
      expect(kept.finishedAt).toBeUndefined();
      expect(kept.requested).toBeUndefined();
    }
  });

  it('[F143] gives running jobs finishMs, and a job that ends within it is completed', async () => {
    const executor = new Deaf();
    const manager = open(create(), executor);
    await running(manager, 'a');
    let closed = false;
    const closing = manager.close({ finishMs: 10_000 }).then(() => (closed = true));
    await turns(5);
    expect(executor.options.signal?.aborted).toBe(false);
    expect(closed).toBe(false);
    executor.end.resolve();
    await closing;
    expect(await manager.getJob('a')).toMatchObject({ state: 'completed', completedChunks: 3 });
  });

  it('[F143] after finishMs the signals are aborted', async () => {
    const executor = new OwnExecutor((_, signal) => whenAborted(signal));
    const manager = open(create(), executor);
    await running(manager, 'a');
    await manager.close({ finishMs: 20 });
    expect(executor.calls[0]!.options.signal!.aborted).toBe(true);
    expect((await manager.getJob('a'))!.state).toBe('pending');
  });

  it('[F143] an executor that does not stop is given up after abortMs, and what it reports later is refused', async () => {
    const repository = create();
    const executor = new Deaf();
    const manager = open(repository, executor);
    await running(manager, 'a');
    const before = performance.now();
    await manager.close({ abortMs: 30 });
    const took = performance.now() - before;
    expect(took).toBeGreaterThanOrEqual(25);
    expect(took).toBeLessThan(2000);
    expect(executor.options.signal?.aborted).toBe(true);
    await executor.options.onChunkComplete?.(0, chunkResult);
    executor.options.onProgress?.(3, 3);
    executor.end.resolve();
    await turns(5);
    expect(await repository.get('a')).toMatchObject({ state: 'pending', completedChunks: 0 });
    expect(await manager.getJob('a')).toMatchObject({ state: 'pending', completedChunks: 0 });
  });

  it('[F143] finished chunks stay finished', async () => {
    const executor = new OwnExecutor((id, signal) => (id === 0 ? turn() : whenAborted(signal)));
    const manager = open(create(), executor);
    const reported = nextEvent(manager, 'chunk.completed');
    await manager.submitJob(specOf(3), { id: 'a' });
    await reported;
    await manager.close();
    expect(await manager.getJob('a')).toMatchObject({ state: 'pending', completedChunks: 1 });
    expect((await manager.chunks('a')).map((chunk) => chunk.state)).toEqual(['completed', 'pending', 'pending']);
  });

  it('[F143] jobs that wait for their turn stay pending and never run', async () => {
    const executor = new OwnExecutor((_, signal) => whenAborted(signal));
    const manager = open(create(), executor, { maxConcurrentJobs: 1 });
    await running(manager, 'a');
    await manager.submitJob(specOf(1), { id: 'b' });
    const submitted = manager.submitJob(specOf(1), { id: 'c' });
    await submitted;
    await manager.close();
    await turns(5);
    expect(executor.calls).toHaveLength(1);
    expect((await manager.listJobs()).map((job) => job.state)).toEqual(['pending', 'pending', 'pending']);
  });

  it('[F143] a job submitted just before the close does not begin', async () => {
    const executor = new OwnExecutor();
    const manager = open(create(), executor);
    await manager.submitJob(specOf(1), { id: 'a' });
    await manager.close();
    await turns(5);
    expect(executor.calls).toEqual([]);
    expect((await manager.getJob('a'))!.state).toBe('pending');
  });

  it('[F143] a chunk that waits for its next attempt is not waited for', async () => {
    let calls = 0;
    const executor = JobExecutor.fromFunction(async () => {
      calls += 1;
      throw new Error('no');
    });
    const manager = open(create(), executor);
    const failed = nextEvent(manager, 'chunk.failed');
    await manager.submitJob(specOf(1), { id: 'a', retries: 5, retryDelay: 60_000 });
    await failed;
    await manager.close();
    expect(calls).toBe(1);
    expect((await manager.getJob('a'))!.state).toBe('pending');
  });

  it('[F143] paused, completed, failed and cancelled jobs are left as they are', async () => {
    const executor = new OwnExecutor(async (_, signal) => {
      if (executor.calls.at(-1)!.options.meta?.['fail']) throw new Error('no');
      if (executor.calls.at(-1)!.options.meta?.['wait']) await whenAborted(signal);
    });
    const manager = open(create(), executor);
    await manager.waitForJob(await manager.submitJob(specOf(1), { id: 'completed' }));
    await manager.waitForJob(await manager.submitJob(specOf(1), { id: 'failed', meta: { fail: true } }));
    for (const id of ['paused', 'cancelled']) await running(manager, id, { meta: { wait: true } });
    await manager.pauseJob('paused');
    await manager.cancelJob('cancelled');
    await manager.close();
    for (const job of await manager.listJobs()) expect(job.state).toBe(job.id);
  });

  it('[F143] a pause or cancel that was accepted before wins over the close', async () => {
    const executor = new OwnExecutor((_, signal) => whenAborted(signal).catch(async (error: unknown) => {
      await turns(3);
      throw error;
    }));
    const manager = open(create(), executor);
    await running(manager, 'a');
    await running(manager, 'b');
    const paused = manager.pauseJob('a');
    const cancelled = manager.cancelJob('b');
    await turn();
    await manager.close();
    await Promise.allSettled([paused, cancelled]);
    expect((await manager.getJob('a'))!.state).toBe('paused');
    expect((await manager.getJob('b'))!.state).toBe('cancelled');
  });

  it('[F143] reads go on', async () => {
    const manager = open(create(), new OwnExecutor());
    await manager.waitForJob(await manager.submitJob(specOf(2), { id: 'a' }));
    await manager.close();
    expect(await manager.getJob('a')).toMatchObject({ id: 'a', state: 'completed' });
    expect(await manager.getJob('unknown')).toBeUndefined();
    expect((await manager.listJobs({ state: 'completed' })).map((job) => job.id)).toEqual(['a']);
    expect(await manager.chunks('a')).toHaveLength(2);
    expect((await manager.waitForJob('a')).state).toBe('completed');
  });

  it.each<[string, (manager: JobManager) => Promise<unknown>]>([
    ['submitJob', (manager) => manager.submitJob(specOf(1))],
    ['submitJob of a big spec', (manager) => manager.submitJob(specOf(2500))],
    ['submitJob of a plan', (manager) => manager.submitJob({ plan: { totalFrames: 2, chunkSize: 1, outputFile: '{chunkId}', command: 'x' } })],
    ['pauseJob', (manager) => manager.pauseJob('paused')],
    ['resumeJob', (manager) => manager.resumeJob('paused')],
    ['cancelJob', (manager) => manager.cancelJob('paused')],
    ['deleteJob', (manager) => manager.deleteJob('paused')],
    ['pauseJob of an unknown id', (manager) => manager.pauseJob('unknown')],
    ['resumeJob of an unknown id', (manager) => manager.resumeJob('unknown')],
    ['cancelJob of an unknown id', (manager) => manager.cancelJob('unknown')],
    ['deleteJob of an unknown id', (manager) => manager.deleteJob('unknown')],
    ['strict cancelJob of an unknown id', (manager) => manager.cancelJob('unknown', { strict: true })],
    ['cancelJob of a job done already', (manager) => manager.cancelJob('cancelled')],
    ['resumeJob of a job that can not', (manager) => manager.resumeJob('cancelled', { strict: true })],
  ])('[F143] afterwards %s rejects with CLOSED and changes nothing', async (_, call) => {
    const repository = create();
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    for (const id of ['paused', 'cancelled']) await manager.pauseJob(await manager.submitJob(specOf(1), { id }));
    await manager.cancelJob('cancelled');
    await manager.close();
    const before = await repository.list();
    expect((await rejection(call(manager))).code).toBe('CLOSED');
    await turns(3);
    expect(await repository.list()).toEqual(before);
    expect(executor.calls).toEqual([]);
  });

  it('[F143] a waitForJob whose job will not end here rejects with CLOSED, at the close and after it', async () => {
    const manager = open(create(), new OwnExecutor((_, signal) => whenAborted(signal)));
    await running(manager, 'a');
    const waiting = rejection(manager.waitForJob('a'));
    await manager.close();
    expect((await waiting).code).toBe('CLOSED');
    expect((await rejection(manager.waitForJob('a'))).code).toBe('CLOSED');
  }, 5000);

  it('[F143] a waitForJob whose job ends within finishMs gets its status', async () => {
    const executor = new Deaf();
    const manager = open(create(), executor);
    await running(manager, 'a');
    const waiting = manager.waitForJob('a');
    const closing = manager.close({ finishMs: 10_000 });
    executor.end.resolve();
    expect((await waiting).state).toBe('completed');
    await closing;
  });

  it('[F143] a second close can leave less time than the first, not more', async () => {
    const executor = new OwnExecutor((_, signal) => whenAborted(signal));
    const manager = open(create(), executor);
    await running(manager, 'a');
    const closing = manager.close({ finishMs: 3_600_000 });
    await turns(5);
    expect(executor.calls[0]!.options.signal!.aborted).toBe(false);
    await manager.close();
    await closing;
    expect((await manager.getJob('a'))!.state).toBe('pending');
    const deaf = open(create(), new Deaf());
    await running(deaf, 'b');
    const patient = deaf.close({ abortMs: 3_600_000 });
    await turns(5);
    await Promise.all([deaf.close({ abortMs: 20 }), deaf.close({ finishMs: 3_600_000, abortMs: 3_600_000 })]);
    await patient;
    expect((await deaf.getJob('b'))!.state).toBe('pending');
  }, 10_000);

  it('[F143] to leave a scope does not hurry a close that is under way', async () => {
    const executor = new Deaf();
    const manager = open(create(), executor);
    await running(manager, 'a');
    const closing = manager.close({ finishMs: 10_000 });
    const left = manager[Symbol.asyncDispose]();
    await turns(5);
    expect(executor.options.signal?.aborted).toBe(false);
    executor.end.resolve();
    await Promise.all([closing, left]);
    expect((await manager.getJob('a'))!.state).toBe('completed');
  });

  it('[F143] a second close waits for the first, and closing again is no error', async () => {
    const stopped = deferred();
    const executor = new OwnExecutor((_, signal) => whenAborted(signal).catch(async (error: unknown) => {
      await stopped.promise;
      throw error;
    }));
    const manager = open(create(), executor);
    await running(manager, 'a');
    let second = false;
    const first = manager.close();
    const again = manager.close().then(() => (second = true));
    await until(() => executor.calls[0]!.options.signal!.aborted);
    await turns(3);
    expect(second).toBe(false);
    stopped.resolve();
    await Promise.all([first, again]);
    await manager.close({ finishMs: 1, abortMs: 1 });
    expect((await manager.getJob('a'))!.state).toBe('pending');
  });

  it('[F143] events: what was kept is told to the end, then the loops end', async () => {
    const manager = open(create(), new OwnExecutor((_, signal) => whenAborted(signal)));
    const told = traceOf(manager);
    const loop = (async () => {
      const types: string[] = [];
      for await (const event of manager.events()) types.push(event.type);
      return types;
    })();
    await running(manager, 'a');
    await manager.close();
    expect(await loop).toEqual(told.map((event) => event.type));
    expect(told.map((event) => event.type)).toContain('job.started');
    expect(told.map((event) => event.type)).not.toContain('job.failed');
    expect(told.map((event) => event.type)).not.toContain('job.cancelled');
    expect(told.map((event) => event.type)).not.toContain('job.paused');
  });

  it('[F143] Symbol.asyncDispose closes: await using', async () => {
    const executor = new OwnExecutor((_, signal) => whenAborted(signal));
    let outside: JobManager;
    {
      await using manager = open(create(), executor);
      outside = manager;
      await running(manager, 'a');
    }
    expect((await outside.getJob('a'))!.state).toBe('pending');
    expect((await rejection(outside.submitJob(specOf(1)))).code).toBe('CLOSED');
  });

  it('[F143] the repository stays open: another manager goes on with the job from its finished chunks', async () => {
    const repository = create();
    const first = new OwnExecutor((id, signal) => (id === 0 ? turn() : whenAborted(signal)));
    const closing = open(repository, first);
    const reported = nextEvent(closing, 'chunk.completed');
    await closing.submitJob(specOf(3), { id: 'a' });
    await reported;
    await closing.close();
    const second = new OwnExecutor();
    const next = open(repository, second);
    await next.waitForJob(await next.submitJob(specOf(1), { id: 'b' }));
    expect((await next.getJob('a'))!.state).toBe('pending');
    await next.pauseJob('a');
    await next.resumeJob('a');
    expect(await next.waitForJob('a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(second.calls.at(-1)!.options.completedChunkIds).toEqual([0]);
    expect(second.ran.slice(1)).toEqual([1, 2]);
  });

  it.each([
    [{ finishMs: -1 }], [{ finishMs: Number.NaN }], [{ abortMs: '5' }], [{ abortMs: -1 }],
  ])('[F144] close(%o) is refused and closes nothing', async (options) => {
    const manager = open(create(), new OwnExecutor());
    expect((await rejection(manager.close(options as never))).code).toBe('VALIDATION');
    expect((await manager.waitForJob(await manager.submitJob(specOf(1)))).state).toBe('completed');
  });
});

describe('close and processes', () => {
  it('[F143] the attempt that it stopped does not count against retries', async () => {
    const repository = new InMemoryJobRepository();
    const attempts: number[] = [];
    let stop = true;
    const begun = deferred();
    const executor = JobExecutor.fromFunction(async (_, { attempt, signal }) => {
      attempts.push(attempt);
      begun.resolve();
      if (stop) await whenAborted(signal);
      if (attempts.length < 3) throw new Error('once');
    });
    const first = open(repository, executor);
    await first.submitJob(specOf(1), { id: 'a', retries: 1, retryDelay: 0 });
    await begun.promise;
    await first.close();
    stop = false;
    expect((await first.chunks('a'))[0]).toMatchObject({ state: 'pending', attempt: 1 });
    const second = open(repository, executor);
    await second.pauseJob('a');
    await second.resumeJob('a');
    // One attempt stopped by the close, one that failed, and the one retry that there is.
    expect((await second.waitForJob('a')).state).toBe('completed');
    expect(attempts).toEqual([1, 2, 3]);
  });

  it('[F62] has resolved only when no process is left, also of those that ignore SIGTERM', async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter({ killGraceMs: 30 })));
    const pids: number[] = [];
    const chunks = [
      { id: 0, argv: ['sh', '-c', 'sleep 1000 & echo $$ $!; wait'] },
      { id: 1, argv: ['sh', '-c', 'trap "" TERM; echo $$ $$; while :; do sleep 1000; done'] },
    ];
    const onChunkStdout = (_: number, data: string): void => void pids.push(...data.trim().split(/\s+/).map(Number));
    await manager.submitJob({ chunks }, { id: 'a', concurrency: 2, onChunkStdout });
    await until(() => pids.length === 4);
    await manager.close();
    expect(pids.filter(isAlive)).toEqual([]);
    await gone(pids);
    expect(await manager.getJob('a')).toMatchObject({ state: 'pending', completedChunks: 0 });
    expect((await manager.chunks('a')).map(({ state, attempt }) => ({ state, attempt }))).toEqual([
      { state: 'pending', attempt: 1 },
      { state: 'pending', attempt: 1 },
    ]);
  });

  it('[F62] within finishMs running programs end by themselves', async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
    const begun = nextEvent(manager, 'chunk.started');
    await manager.submitJob({ chunks: [{ id: 0, command: 'sleep 0.1' }] }, { id: 'a' });
    await begun;
    await manager.close({ finishMs: 10_000 });
    expect(await manager.getJob('a')).toMatchObject({ state: 'completed', completedChunks: 1 });
  });
});

describe('the logger', () => {
  it('[F132] gets structured records of what goes wrong beside the jobs', async () => {
    const records: LogRecord[] = [];
    const manager = open(new InMemoryJobRepository(), new OwnExecutor(), { logger: (record) => records.push(record) });
    manager.on('job.started', () => {
      throw new Error('a listener of mine');
    });
    await manager.waitForJob(await manager.submitJob(specOf(1), {
      id: 'a',
      onProgress: () => {
        throw new Error('a callback of mine');
      },
    }));
    await vi.waitFor(() => expect(records.map((record) => record.message).join('\n')).toMatch(/a listener of mine/));
    expect(records.map((record) => record.message).join('\n')).toMatch(/a callback of mine/);
    for (const record of records) {
      expect(['trace', 'debug', 'info', 'warn', 'error']).toContain(record.level);
      expect(record).toEqual({
        level: expect.any(String) as string,
        target: expect.stringMatching(/^framewright/) as string,
        message: expect.any(String) as string,
        fields: expect.objectContaining({ jobId: 'a' }) as Record<string, unknown>,
      });
    }
  });

  it('[F132] one that throws changes nothing', async () => {
    const logger = vi.fn(() => {
      throw new Error('the logger is broken');
    });
    const manager = open(new InMemoryJobRepository(), new OwnExecutor(), { logger });
    manager.on('event', () => {
      throw new Error('a listener of mine');
    });
    const onChunkComplete = () => Promise.reject(new Error('a callback of mine'));
    const status = await manager.waitForJob(await manager.submitJob(specOf(3), { onChunkComplete }));
    expect(status.state).toBe('completed');
    expect(logger).toHaveBeenCalled();
  });

  it.each([
    ['a logger', `{ logger: () => {} }`],
    ['no logger', `{}`],
    ['a logger that throws', `{ logger: () => { throw new Error('the logger is broken'); } }`],
  ])('[F132] with %s nothing is written to the console, whatever goes wrong', async (_, options) => {
    const ended = await script(`
      const options = ${options};
      const storage = Object.fromEntries(['uploadAssetBundle', 'uploadJobSpec', 'deleteAssetBundle', 'deleteJobSpec', 'downloadAssetBundle']
        .map((name) => [name, async () => { throw new Error('no storage'); }]));
      const broken = { save: async () => { throw new Error('no store'); }, get: async () => {}, list: async () => [], delete: async () => {} };
      const processes = new JobExecutor(new LocalWorkerAdapter());
      const bad = () => { throw new Error('a callback of mine'); };
      const callbacks = { onProgress: bad, onChunkComplete: async () => bad(), onChunkStdout: bad, onChunkStderr: bad };
      const one = (argv, more) => ({ chunks: [{ id: 0, argv }], ...more });
      const states = [];
      const run = async (repository, executor, spec, submit, more) => {
        const manager = new JobManager(repository, executor, { ...options, ...more });
        manager.on('event', bad);
        manager.on('job.warning', async () => bad());
        try {
          const id = await manager.submitJob(spec, { ...callbacks, ...submit });
          states.push((await manager.waitForJob(id)).state);
          await manager.deleteJob(id);
        } catch (error) {
          states.push(error.code);
        }
        await manager.close();
      };
      const memory = () => new InMemoryJobRepository();
      await run(memory(), processes, one(['sh', '-c', 'echo out; echo err >&2; exit 3']));
      await run(memory(), processes, one(['sh', '-c', 'echo out; echo err >&2']));
      await run(memory(), processes, one(['/does/not/exist']));
      await run(memory(), processes, one(['sh', '-c', 'kill -9 $$'], { mergeCommand: 'false' }));
      await run(memory(), processes, one(['true'], { mergeCommand: 'sh -c "echo merged; exit 4"' }));
      await run(memory(), processes, one(['sleep', '1000']), { timeouts: { chunkMs: 20 } });
      await run(memory(), JobExecutor.fromFunction(bad), one(['x']), { retries: 1, retryDelay: 0 });
      await run(memory(), { execute: async () => { throw undefined; } }, one(['x']));
      await run(memory(), { execute: async (spec, given) => { given.onProgress(5, 1); given.onChunkComplete(77, null); } }, one(['x']));
      await run(memory(), processes, one(['true']), { jobDir: process.cwd() }, { storage });
      await run(memory(), processes, { chunks: [{ id: -1 }] });
      await run(broken, processes, one(['true']));
      console.log(states.join(' '));
    `);
    expect(ended).toMatchObject({
      ...QUIET,
      stdout: 'failed completed failed failed failed failed failed failed completed failed VALIDATION STORE_UNAVAILABLE\n',
    });
  });
});

for (const close of [{}, { abortMs: 0 }, { abortMs: 50 }]) {
  it(`[F143] close(${JSON.stringify(close)}) resolves when no process is left, however long their grace is`, async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter({ killGraceMs: 5000 })));
    const pids: number[] = [];
    const argv = ['sh', '-c', 'trap "" TERM; echo $$; while :; do sleep 0.05; done'];
    await manager.submitJob({ chunks: [{ id: 0, argv }, { id: 1, argv }] }, { concurrency: 2, onChunkStdout: (_, data) => void pids.push(Number(data)) });
    await until(() => pids.length === 2);
    const begun = performance.now();
    await manager.close(close);
    expect(pids.filter(isAlive)).toEqual([]);
    expect(performance.now() - begun).toBeLessThan((close.abortMs ?? 5000) + 2000);
    expect((await manager.listJobs()).map(({ state }) => state)).toEqual(['pending']);
  }, 15_000);
}
