/** Code of users between the manager and the work: wrappers, subclasses, adapters, callbacks, signals, repositories. */
import { setTimeout as sleep } from 'node:timers/promises';
import { FramewrightError, InMemoryJobRepository, JobExecutor, type JobExecutionOptions, type JobSpec, type WorkerResult } from 'framewright';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { MapRepository } from './support/map-repository.js';
import { chunkResult } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { local, shellJob } from './support/shell.js';
import { specOf } from './support/specs.js';
import { nextEvent } from './support/trace.js';

const memory = (): InMemoryJobRepository => new InMemoryJobRepository();
const nothing = (): JobExecutor => JobExecutor.fromFunction(async () => undefined);
const delegate = (inner: JobExecutor) => ({ execute: (spec: JobSpec, options?: JobExecutionOptions) => inner.execute(spec, options) });

describe('a manager that did not run the job itself, on a repository of the user', () => {
  it.each([
    ['it only submitted it', {}],
    ['the type is not its own', { type: 'film' }],
  ])('[F34] waits for the end that another one brings: %s', async (_, options) => {
    const repository = new MapRepository();
    const web = open(repository, 'type' in options ? nothing() : undefined);
    const worker = open(repository, nothing(), { types: ['film'] });
    const running = worker.run();
    const id = await web.submitJob(specOf(2), options);
    expect(await web.waitForJob(id, { timeoutMs: 10_000 })).toMatchObject({ state: 'completed' });
    await worker.close();
    await running;
  });

  it('[F34] also after it has looked at the chunks', async () => {
    const repository = new MapRepository();
    const gate = deferred();
    const worker = open(repository, JobExecutor.fromFunction(() => gate.promise.then(() => undefined)));
    const web = open(repository);
    const begun = nextEvent(worker, 'job.started');
    const id = await worker.submitJob(specOf(2));
    await begun;
    expect(await web.chunks(id)).toHaveLength(2);
    const waited = web.waitForJob(id, { timeoutMs: 10_000 });
    gate.resolve();
    expect(await waited).toMatchObject({ state: 'completed' });
  });

  it('[F117] stops looking for work at once, though the repository does not answer', async () => {
    const repository = new MapRepository();
    const worker = open(repository, nothing());
    const asked = deferred();
    repository.list = () => {
      asked.resolve();
      return new Promise(() => undefined);
    };
    const controller = new AbortController();
    const running = worker.run({ signal: controller.signal });
    await asked.promise;
    controller.abort();
    await running;
  });

  it.each([
    ['throws', () => { throw new Error('down'); }],
    ['gives nothing', () => Promise.resolve(null as never)],
  ])('[F104] says STORE_UNAVAILABLE when `list` %s', async (_, list) => {
    const repository = new MapRepository();
    const manager = open(repository, nothing());
    repository.list = list;
    expect((await rejection(manager.recoverJobs())).code).toBe('STORE_UNAVAILABLE');
  }); // prettier-ignore
});

describe('an executor around one of ours', () => {
  it('runs jobs that have a type, under their own id', async () => {
    const ids: string[] = [];
    const inner = JobExecutor.fromFunction(async (_, { jobId }) => void ids.push(jobId));
    const manager = open(memory(), delegate(inner), { types: ['film'] });
    const id = await manager.submitJob(specOf(2), { type: 'film' });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed' });
    expect(ids).toEqual([id, id]);
    await inner.execute(specOf(1), { type: 'film' } as JobExecutionOptions);
    expect(ids).toHaveLength(3);
  });

  it('hears of a failure and of a cancel when it is a subclass that goes on after `super.execute`', async () => {
    const heard: string[] = [];
    class Uploading extends JobExecutor {
      override async execute(spec: JobSpec, options?: JobExecutionOptions): Promise<void> {
        try {
          await super.execute(spec, options);
          heard.push('done');
        } catch (error) {
          heard.push((error as FramewrightError).code);
          throw error;
        }
      }
    }
    let work = (): Promise<WorkerResult> => Promise.reject(new Error('boom'));
    const manager = open(memory(), new Uploading({ execute: () => work() }));
    const failed = await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect(failed).toMatchObject({ state: 'failed', failure: { code: 'CHUNK_FAILED', chunkId: 0 } });
    work = () => new Promise(() => undefined);
    const begun = nextEvent(manager, 'chunk.started');
    const id = await manager.submitJob(specOf(1), { timeouts: { chunkMs: 60_000 } });
    await begun;
    work = () => Promise.resolve(chunkResult);
    await manager.cancelJob(id);
    expect(await manager.waitForJob(await manager.submitJob(specOf(1)))).toMatchObject({ state: 'completed' });
    expect(heard).toEqual(['CHUNK_FAILED', 'ABORTED', 'done']);
  }, 20_000);

  it('[F61] gives signs of life by the output of its chunks', async () => {
    const script = 'for n in 1 2 3 4 5 6; do echo $n; sleep 0.2; done';
    const manager = open(memory(), delegate(local()));
    const id = await manager.submitJob(shellJob(1, script), { timeouts: { noProgressMs: 900 } });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed' });
  });
});

describe('what is thrown', () => {
  it.each([
    ['details that are no JSON', new FramewrightError('CHUNK_FAILED', 'x', { details: { frames: 5n } }), 'x'],
    ['details that mean something else', new FramewrightError('CHUNK_FAILED', 'x', { details: { chunkId: 'intro', code: 'E42', exitCode: 1.5 } }), 'x'],
    ['half a character', new Error('bad \ud800'), 'bad \ufffd'],
  ])('[F44] may have %s', async (_, error, message) => {
    for (const executor of [{ execute: () => Promise.reject(error) }, JobExecutor.fromFunction(() => Promise.reject(error))]) {
      const manager = open(memory(), executor);
      const { state, failure } = await manager.waitForJob(await manager.submitJob(specOf(1)));
      expect([state, failure?.code]).toEqual(['failed', 'CHUNK_FAILED']);
      expect(failure?.message.endsWith(message)).toBe(true);
    }
  });
});

describe('an adapter of the user', () => {
  it('may hand over Buffers, and what it says after the end is not heard', async () => {
    const heard: unknown[] = [];
    let late: (data: unknown) => void = () => undefined;
    const executor = new JobExecutor({
      execute: async ({ onStdout }) => {
        late = onStdout as (data: unknown) => void;
        late(Buffer.from('a line\n'));
        return chunkResult;
      },
    });
    await executor.execute(specOf(1), { onChunkStdout: (_, data) => void heard.push(data) });
    late('late');
    expect(heard).toEqual(['a line\n']);
  });

  it.each(['12.5', 12n, NaN, -1, null])('may tell a duration of %s', async (durationMs) => {
    const manager = open(memory(), new JobExecutor({ execute: async () => ({ ...chunkResult, durationMs: durationMs as number }) }));
    expect(await manager.waitForJob(await manager.submitJob(specOf(1)))).toMatchObject({ state: 'completed' });
  });

  it.each([
    [{ exitCode: 3 }, 'Merge failed with exit code 3'],
    [{ exitCode: 3, stderr: null, signal: 7 }, 'Merge failed with exit code 3'],
    [undefined, 'Merge failed: the adapter gave no result with an exitCode'],
  ])('[F72] may give %j for a merge', async (result, message) => {
    const manager = open(memory(), nothing());
    const mergeAdapter = { execute: () => Promise.resolve(result as WorkerResult) };
    const id = await manager.submitJob(specOf(1, { mergeCommand: 'join' }), { mergeAdapter });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', error: message });
  });
});

describe('options and callbacks', () => {
  it('[F25] are those of the submit, whatever becomes of the object', async () => {
    const seen: unknown[] = [];
    const manager = open(memory(), new JobExecutor({ execute: async (job) => (seen.push(job.env?.['A'], job.meta?.['shot']), chunkResult) }));
    const options = { env: { A: '1' }, meta: { shot: 'a' } };
    const first = await manager.submitJob(specOf(1), options);
    options.env.A = '2';
    options.meta.shot = 'b';
    const second = await manager.submitJob(specOf(1), options);
    for (const id of [first, second]) await manager.waitForJob(id);
    expect(seen).toEqual(['1', 'a', '2', 'b']);
  });

  it('[F125] are called in order, also when one of them submits another job', async () => {
    const manager = open(memory(), local());
    manager.on('event', () => undefined);
    const seen: number[] = [];
    const others: Promise<string>[] = [];
    const id = await manager.submitJob(shellJob(6, 'true'), {
      onChunkComplete: () => void others.push(manager.submitJob(shellJob(1, 'true'))),
      onProgress: (done) => void seen.push(done),
    });
    await manager.waitForJob(id);
    for (const other of others) await manager.waitForJob(await other);
    expect(seen).toEqual([1, 2, 3, 4, 5, 6]);
  });

  it('[F126] of `once` do not end those of `on`, and miss nothing when they are added again as they are called', async () => {
    const manager = open(memory(), nothing());
    let both = 0;
    const twice = (): void => void (both += 1);
    manager.on('job.completed', twice);
    manager.once('job.completed', twice);
    let again = 0;
    const rearmed = (): void => {
      again += 1;
      manager.once('chunk.completed', rearmed);
    };
    manager.once('chunk.completed', rearmed);
    for (let n = 0; n < 3; n += 1) {
      const told = nextEvent(manager, 'job.completed');
      await manager.waitForJob(await manager.submitJob(specOf(1000)));
      await told;
    }
    expect([both, again]).toEqual([4, 3000]);
  });

  it.each([
    ['a function', () => JobExecutor.fromFunction(async () => undefined)],
    ['processes', local],
  ])('[F59] a verifyOutput that never answers counts in the time of the chunk, by %s', async (_, create) => {
    const folder = new Folder();
    const manager = open(memory(), create());
    const spec = { chunks: [{ id: 0, outputFile: 'out', argv: ['/bin/sh', '-c', 'echo x > "$1"', 'sh', '{outputFile}'] }] };
    const id = await manager.submitJob(spec, { jobDir: folder.path, timeouts: { chunkMs: 500 }, verifyOutput: () => new Promise(() => undefined) });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
  }, 20_000);

  it('[F61] an attempt that was given up is no sign of life of the next one', async () => {
    const late: NodeJS.Timeout[] = [];
    const executor = JobExecutor.fromFunction((_, { attempt, reportProgress }) => {
      if (attempt === 1) late.push(setInterval(() => reportProgress(0.5), 20));
      return attempt === 1 ? new Promise((_resolve, reject) => setTimeout(reject, 100, new Error('no'))) : new Promise(() => undefined);
    });
    const manager = open(memory(), executor, { abortGraceMs: 10 });
    const id = await manager.submitJob(specOf(1), { retries: 1, retryDelay: 0, timeouts: { noProgressMs: 300 } });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'NO_PROGRESS', attempt: 2 } });
    for (const timer of late) clearInterval(timer);
  });
});

describe('stopping', () => {
  it('[F28] begins no chunk any more', async () => {
    const begun: boolean[] = [];
    const manager = open(memory(), JobExecutor.fromFunction(async (_, { signal }) => void begun.push(signal.aborted)));
    for (let n = 0; n < 5; n += 1) {
      const first = nextEvent(manager, 'chunk.completed');
      const id = await manager.submitJob({ plan: { totalFrames: 200_000, chunkCount: 200_000, outputFile: '{chunkId}', command: 'x' } }, { concurrency: 40 });
      await first;
      await manager.cancelJob(id);
    }
    expect(begun.filter(Boolean)).toEqual([]);
  });

  it('[F28] waits as long as it takes with an abortGraceMs of Infinity', async () => {
    let over = false;
    const executor = JobExecutor.fromFunction((_, { signal }) => new Promise((resolve) => {
      signal.addEventListener('abort', () => setTimeout(() => {
        over = true;
        resolve(undefined);
      }, 60));
    })); // prettier-ignore
    const manager = open(memory(), executor, { abortGraceMs: Infinity });
    const begun = nextEvent(manager, 'chunk.started');
    const id = await manager.submitJob(specOf(1), { timeouts: { chunkMs: 60_000 } });
    await begun;
    await manager.cancelJob(id);
    expect(over).toBe(true);
  });
});

describe('the console', () => {
  const warnings: string[] = [];
  const hear = (warning: Error): void => void warnings.push(warning.message);
  beforeEach(() => void process.on('warning', hear));
  afterEach(() => void process.off('warning', hear));

  it('gets no warning of listeners, however many chunks and calls share a signal', async () => {
    warnings.length = 0;
    const controller = new AbortController();
    const { signal } = controller;
    const executor = JobExecutor.fromFunction(async (_, context) => sleep(5, undefined, { signal: context.signal }).then(() => undefined));
    const manager = open(memory(), executor);
    const ids = await Promise.all(Array.from({ length: 15 }, () => manager.submitJob(specOf(60), { concurrency: 40, signal, timeouts: { chunkMs: 60_000 } })));
    const events = Array.from({ length: 15 }, () => manager.events({ signal })[Symbol.asyncIterator]().next());
    await Promise.all(ids.map((id) => manager.waitForJob(id, { signal })));
    await Promise.all(Array.from({ length: 15 }, () => executor.execute(specOf(20) as JobSpec, { concurrency: 20, signal })));
    controller.abort();
    await Promise.all(events);
    // Warnings are told in a turn of their own.
    await sleep(10);
    expect(warnings).toEqual([]);
  });
});
