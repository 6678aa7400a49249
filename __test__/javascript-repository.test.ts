import {
  FramewrightError,
  InMemoryJobRepository,
  JobExecutor,
  JobManager,
  LocalWorkerAdapter,
  type Executor,
  type JobExecutionOptions,
  type JobRepository,
  type JobStatus,
  type JobStatusInput,
} from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { MapRepository } from './support/map-repository.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { QUIET, script } from './support/script.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';

/** The states that a job was saved in, repetitions left out. */
function statesOf(saves: readonly JobStatusInput[], id: string): string[] {
  const states = saves.filter((job) => job.id === id).map((job) => job.state as string);
  return states.filter((state, n) => state !== states[n - 1]);
}

/** A life with every change of state in it: pending, running, paused, pending, running, completed. */
async function wholeLife(manager: JobManager, executor: OwnExecutor): Promise<string> {
  const id = await manager.submitJob(specOf(3));
  await until(() => executor.ran.length > 0);
  await manager.pauseJob(id);
  await manager.resumeJob(id);
  await manager.waitForJob(id);
  return id;
}
const stopsOnce = (): OwnExecutor => {
  let first = true;
  return new OwnExecutor(async (_, signal) => {
    if (!first) return turn();
    first = false;
    await whenAborted(signal);
  });
};

describe('a repository written in plain JavaScript', () => {
  it('[F149] is told of every change of state, in order, and of the end with all there is to know', async () => {
    const repository = new MapRepository();
    const executor = stopsOnce();
    const manager = open(repository, executor);
    const id = await wholeLife(manager, executor);
    const states = repository.statesOf(id);
    expect(states[0]).toBe('pending');
    expect(states.filter((state) => state !== 'pending')).toEqual(['running', 'paused', 'running', 'completed']);
    const kept = JSON.parse(repository.records.get(id)!) as JobStatus;
    expect(kept).toMatchObject({ id, state: 'completed', progress: 100, completedChunks: 3, totalChunks: 3 });
    expect(kept.logs).toHaveLength(3);
    expect(kept.spec).toEqual(specOf(3));
    const versions = repository.saved.flatMap((job) => (job as Partial<JobStatus>).version ?? []);
    expect(versions).toEqual(versions.toSorted((a, b) => a - b));
  });

  it('[F84] [F103] knows finished chunks by their outputs: a resume renders none of them again', async () => {
    const folder = new Folder();
    const repository = new MapRepository();
    const manager = open(repository, new JobExecutor(new LocalWorkerAdapter()));
    const chunks = Array.from({ length: 8 }, (_, id) => ({ id, outputFile: `out-${id}`, argv: ['/bin/sh', '-c', 'echo $1 >> ran; echo $1 > "$0"', '{outputFile}', `${id}`] }));
    const id = await manager.submitJob({ chunks, mergeCommand: 'test -e go' }, { jobDir: folder.path, concurrency: 4 });
    expect((await manager.waitForJob(id)).failure?.code).toBe('MERGE_FAILED');
    folder.write('go', '');
    // Read back by another manager, from nothing but the texts.
    await manager.close();
    const next = open(new MapRepository(repository.records), new JobExecutor(new LocalWorkerAdapter()));
    await next.resumeJob(id);
    expect((await next.waitForJob(id)).state).toBe('completed');
    expect(folder.lines('ran').toSorted()).toEqual(['0', '1', '2', '3', '4', '5', '6', '7']);
  });

  it.each([
    ['a function', () => JobExecutor.fromFunction((_, { signal }) => whenAborted(signal))],
    ['processes', () => new JobExecutor(new LocalWorkerAdapter())],
  ])('[F83] [F121] has attempts that have begun, by %s, and a crash counts them', async (_, executor) => {
    const repository = new MapRepository();
    const manager = open(repository, executor());
    const chunks = [0, 1, 2].map((id) => ({ id, command: 'sleep 1000' }));
    const id = await manager.submitJob({ chunks }, { concurrency: 2, crashRetries: 0 });
    await until(() => (JSON.parse(repository.records.get(id) ?? '{}') as Partial<JobStatus>).chunksByState?.running === 2);
    expect((await manager.getJob(id))!.chunksByState).toEqual({ pending: 1, running: 2, completed: 0, failed: 0 });
    // What another process would find had this one been killed now.
    const next = open(new MapRepository(new Map(repository.records)), executor());
    expect(await next.recoverJobs()).toEqual([id]);
    const status = await next.waitForJob(id);
    expect(status).toMatchObject({ state: 'failed', recoveries: [{ previousState: 'running' }] });
    expect(status.error).toContain('died 1 times');
    await manager.cancelJob(id);
  });

  it('[F11] submitJob resolves when the record is kept, and nothing runs before', async () => {
    const gate = deferred();
    const repository = new MapRepository();
    const execute = vi.fn(async () => undefined);
    const save = vi.spyOn(repository, 'save').mockImplementationOnce(async (job) => {
      await gate.promise;
      repository.records.set(job.id, JSON.stringify(job));
    });
    const manager = open(repository, { execute });
    const events = traceOf(manager);
    let submitted = false;
    const submit = manager.submitJob(specOf(2), { id: 'shot' }).then(() => (submitted = true));
    await turns(20);
    expect([submitted, execute.mock.calls.length, events.length, save.mock.calls.length]).toEqual([false, 0, 0, 1]);
    expect(save.mock.calls[0]![0]).toMatchObject({ id: 'shot', state: 'pending' });
    gate.resolve();
    await submit;
    expect((await manager.waitForJob('shot')).state).toBe('completed');
    expect(typesOf(events, 'shot')[0]).toBe('job.submitted');
  });

  for (const how of ['rejects', 'throws'] as const) {
    it(`[F11] a save that ${how} at submit rejects submitJob with its message and its error as cause; nothing runs and nothing is left`, async () => {
      const repository = new MapRepository();
      const own = new Error('DynamoDB: ProvisionedThroughputExceeded');
      const execute = vi.fn(async () => undefined);
      vi.spyOn(repository, 'save').mockImplementationOnce(() => {
        if (how === 'throws') throw own;
        return Promise.reject(own);
      });
      const manager = open(repository, { execute });
      const events = traceOf(manager);
      const error = await rejection(manager.submitJob(specOf(2), { id: 'shot' }));
      expect(error).toBeInstanceOf(FramewrightError);
      expect(error.message).toBe(own.message);
      expect(error.cause).toBe(own);
      expect(error.code).toBe('STORE_UNAVAILABLE');
      await turns(20);
      expect(execute).not.toHaveBeenCalled();
      expect(events).toEqual([]);
      expect(await manager.getJob('shot')).toBeUndefined();
      expect((await rejection(manager.waitForJob('shot'))).code).toBe('NOT_FOUND');
      // The id was not used up.
      await manager.submitJob(specOf(2), { id: 'shot' });
      expect((await manager.waitForJob('shot')).state).toBe('completed');
      expect(execute).toHaveBeenCalledTimes(1);
    });
  }

  it('[F11] an id that the store has already is refused with DUPLICATE, and the record stays as it was', async () => {
    const repository = new MapRepository();
    const manager = open(repository, { execute: async () => 'first' });
    await manager.submitJob(specOf(1), { id: 'shot' });
    await manager.waitForJob('shot');
    const again = open(repository, { execute: async () => 'second' });
    for (const other of [manager, again]) expect((await rejection(other.submitJob(specOf(1), { id: 'shot' }))).code).toBe('DUPLICATE');
    expect((await manager.getJob('shot'))?.result).toBe('first');
  });

  for (const [which, at] of [['the second', 1], ['the third', 2], ['the fourth', 3], ['the fifth', 4]] as const) {
    it(`[F149] ${which} save rejecting once changes nothing of the job: it ends right in the store, and the refusal is told as job.warning`, async () => {
      const repository = new MapRepository();
      const save = repository.save.bind(repository);
      let calls = 0;
      vi.spyOn(repository, 'save').mockImplementation((job) => (calls++ === at ? Promise.reject(new Error('socket hang up')) : save(job)));
      const executor = stopsOnce();
      const manager = open(repository, executor);
      const events = traceOf(manager);
      const id = await wholeLife(manager, executor);
      expect(calls).toBeGreaterThan(at);
      expect(JSON.parse(repository.records.get(id)!)).toMatchObject({ state: 'completed', completedChunks: 3 });
      await until(() => typesOf(events, id).includes('job.warning'));
      const warnings = events.flatMap((event) => (event.type === 'job.warning' ? [`${event.message} ${event.error?.message ?? ''}`] : []));
      expect(warnings.some((text) => text.includes('socket hang up'))).toBe(true);
      expect([...executor.ran].sort()).toEqual([0, 0, 1, 2]);
    });
  }

  it('[F149] saves of one job never overlap, however late they settle, while those of different jobs may', async () => {
    const repository = new MapRepository();
    repository.saveTurns = 5;
    const save = vi.spyOn(repository, 'save');
    const manager = open(repository, new OwnExecutor(turn));
    const ids = await Promise.all([1, 2, 3].map(() => manager.submitJob(specOf(30))));
    await Promise.all(ids.map((id) => manager.waitForJob(id)));
    await turns(20);
    expect(repository.mostAtOnce).toBe(1);
    for (const id of ids) expect(JSON.parse(repository.records.get(id)!)).toMatchObject({ state: 'completed', completedChunks: 30 });
    // Thirty chunks of progress were put together: fewer saves than reports.
    for (const id of ids) expect(save.mock.calls.filter(([job]) => job.id === id).length).toBeLessThan(30);
  });

  it('[F149] while a save is under way progress is put together into one that follows, which has the newest numbers', async () => {
    const repository = new MapRepository();
    const gate = deferred();
    const given = deferred<JobExecutionOptions>();
    const end = deferred();
    const manager = open(repository, {
      execute: (_, options) => {
        given.resolve(options ?? {});
        return end.promise;
      },
    });
    const id = await manager.submitJob(specOf(20));
    const options = await given.promise;
    await until(() => repository.statesOf(id).includes('running'));
    await turns(10);
    const save = repository.save.bind(repository);
    const spy = vi.spyOn(repository, 'save').mockImplementationOnce(async (job) => {
      await gate.promise;
      await save(job);
    });
    for (let n = 0; n < 20; n += 1) {
      await options.onChunkComplete?.(n, chunkResult);
      await turn();
    }
    expect(spy).toHaveBeenCalledTimes(1);
    gate.resolve();
    await until(() => repository.saved.some((job) => job.completedChunks === 20));
    expect(spy).toHaveBeenCalledTimes(2);
    end.resolve();
    await manager.waitForJob(id);
  });

  it('[F149] an event of a change goes out, and a promise of a call resolves, only after the save that keeps it', async () => {
    const repository = new MapRepository();
    repository.saveTurns = 6;
    const executor = stopsOnce();
    const manager = open(repository, executor);
    const wrong: string[] = [];
    const stateIn = (id: string): string | undefined => (repository.records.has(id) ? (JSON.parse(repository.records.get(id)!) as JobStatus).state : undefined);
    const expected: Record<string, string> = {
      'job.submitted': 'pending', 'job.started': 'running', 'job.paused': 'paused', 'job.completed': 'completed', 'job.cancelled': 'cancelled',
    }; // prettier-ignore
    manager.on('event', (event) => {
      const state = expected[event.type];
      if (state !== undefined && stateIn(event.jobId) !== state && !repository.statesOf(event.jobId).includes(state)) wrong.push(`${event.type} while ${String(stateIn(event.jobId))}`);
    });
    const id = await manager.submitJob(specOf(3));
    expect(stateIn(id)).toBe('pending');
    await until(() => executor.ran.length > 0);
    await manager.pauseJob(id);
    expect(stateIn(id)).toBe('paused');
    await manager.resumeJob(id);
    expect(['pending', 'running', 'completed']).toContain(stateIn(id));
    await manager.waitForJob(id);
    expect(stateIn(id)).toBe('completed');
    const other = await manager.submitJob(specOf(3));
    await manager.cancelJob(other);
    expect(stateIn(other)).toBe('cancelled');
    await turns(10);
    expect(wrong).toEqual([]);
  });

  it('[F149] a job is completed for its readers only once the store has it, even when that save is slow', async () => {
    const repository = new MapRepository();
    const gate = deferred();
    const save = repository.save.bind(repository);
    vi.spyOn(repository, 'save').mockImplementation(async (job) => {
      if (job.state === 'completed') await gate.promise;
      await save(job);
    });
    const manager = open(repository, { execute: async () => 'done' });
    const events = traceOf(manager);
    const id = await manager.submitJob(specOf(1));
    let ended = false;
    const waiting = manager.waitForJob(id).then((status) => {
      ended = true;
      return status;
    });
    await until(() => typesOf(events, id).includes('job.started'));
    await turns(20);
    expect(ended).toBe(false);
    expect(typesOf(events, id)).not.toContain('job.completed');
    expect((await manager.getJob(id))?.state).not.toBe('completed');
    gate.resolve();
    expect((await waiting).state).toBe('completed');
    await until(() => typesOf(events, id).includes('job.completed'));
  });

  it('[F149] its methods keep their `this`, private fields too, and are looked up at each call', async () => {
    class Store implements JobRepository {
      readonly #jobs = new Map<string, JobStatusInput>();
      async save(job: JobStatusInput): Promise<void> {
        this.#jobs.set(job.id, structuredClone(job));
      }
      async get(id: string): Promise<JobStatus | undefined> {
        return structuredClone(this.#jobs.get(id)) as JobStatus | undefined;
      }
      async list(): Promise<JobStatus[]> {
        return structuredClone([...this.#jobs.values()]) as JobStatus[];
      }
      async delete(id: string): Promise<void> {
        this.#jobs.delete(id);
      }
    }
    const repository = new Store();
    const manager = open(repository, new OwnExecutor());
    const first = await manager.submitJob(specOf(2));
    await manager.waitForJob(first);
    const spies = [vi.spyOn(repository, 'save'), vi.spyOn(repository, 'get'), vi.spyOn(repository, 'list'), vi.spyOn(repository, 'delete')] as const;
    const second = await manager.submitJob(specOf(2));
    await manager.waitForJob(second);
    expect((await manager.listJobs()).map((job) => job.id)).toEqual([first, second]);
    await manager.deleteJob(first);
    expect((await manager.listJobs()).map((job) => job.id)).toEqual([second]);
    for (const spy of spies) {
      expect(spy).toHaveBeenCalled();
      expect(spy.mock.contexts.every((context) => context === repository)).toBe(true);
    }
    spies[1].mockResolvedValueOnce(undefined);
    expect(await manager.getJob(second)).toBeUndefined();
  });

  it('[F149] what it is given is its own: changing a saved status changes nothing of the job', async () => {
    const repository = new MapRepository();
    const save = repository.save.bind(repository);
    vi.spyOn(repository, 'save').mockImplementation(async (job) => {
      await save(job);
      job.state = 'failed';
      job.spec.chunks.length = 0;
      job.progress = -1;
    });
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    const status = await manager.waitForJob(await manager.submitJob(specOf(3)));
    expect(status).toMatchObject({ state: 'completed', progress: 100, completedChunks: 3, spec: specOf(3) });
    expect(executor.ran).toEqual([0, 1, 2]);
  });

  it('[F149] sparse statuses that it gives back have the defaults of what is missing', async () => {
    const repository = new MapRepository();
    const sparse = { id: 'old', spec: specOf(2), state: 'paused' };
    repository.records.set('old', JSON.stringify(sparse));
    repository.records.set('older', JSON.stringify({ ...sparse, id: 'older', state: 'completed', progress: 100, completedChunks: 2 }));
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    const defaults = { totalChunks: 2, tags: [], dependencies: [], priority: 'medium' };
    expect(await manager.getJob('old')).toMatchObject({ ...defaults, state: 'paused', progress: 0, completedChunks: 0 });
    expect(await manager.listJobs()).toMatchObject([{ ...defaults, id: 'old' }, { ...defaults, id: 'older', progress: 100 }]);
    expect((await manager.waitForJob('older')).state).toBe('completed');
    await manager.resumeJob('old');
    expect(await manager.waitForJob('old')).toMatchObject({ state: 'completed', completedChunks: 2 });
    expect(executor.ran).toEqual([0, 1]);
    await manager.deleteJob('older');
    expect(repository.records.has('older')).toBe(false);
  });

  it('[F149] a get, list or delete that rejects rejects the call with its message and its error as cause', async () => {
    const repository = new MapRepository();
    const manager = open(repository, new OwnExecutor());
    const id = await manager.submitJob(specOf(1));
    await manager.waitForJob(id);
    const calls = { get: () => manager.getJob(id), list: () => manager.listJobs(), delete: () => manager.deleteJob(id) };
    for (const [method, call] of Object.entries(calls) as [keyof typeof calls, () => Promise<unknown>][]) {
      const own = new Error(`${method} is away`);
      const spy = vi.spyOn(repository, method).mockRejectedValueOnce(own);
      const error = await rejection(call());
      expect(error).toMatchObject({ message: own.message, cause: own, code: 'STORE_UNAVAILABLE' });
      spy.mockRestore();
    }
    await manager.deleteJob(id);
    expect(repository.records.size).toBe(0);
  });

  it('[F28] a second manager on the same store goes on with a paused job: its finished chunks and its options are in the record', async () => {
    const repository = new MapRepository();
    const before = new OwnExecutor(async (chunkId, signal) => {
      if (chunkId === 2) await whenAborted(signal);
    });
    const first = open(repository, before);
    const submitted = { concurrency: 3, jobDir: '/tmp', retries: 2, retryDelay: 7, env: { A: '1' }, meta: { shot: 7 }, failurePolicy: 'continue', timeouts: { chunkMs: 60_000 } } as const;
    const id = await first.submitJob(specOf(4), submitted);
    await until(() => before.ran.length === 3);
    await first.pauseJob(id);
    await first.close();

    const after = new OwnExecutor();
    const second = open(new MapRepository(repository.records), after);
    expect(await second.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 2 });
    await second.resumeJob(id, { retries: 9 });
    const status = await second.waitForJob(id);
    expect(status).toMatchObject({ state: 'completed', completedChunks: 4 });
    expect(status.logs?.map((log) => log.chunkId)).toEqual([0, 1, 2, 3]);
    expect(after.ran).toEqual([2, 3]);
    expect(after.calls[0]!.options).toMatchObject({ ...submitted, retries: 9 });
    expect([...(after.calls[0]!.options.completedChunkIds ?? [])].sort()).toEqual([0, 1]);
    expect((await second.chunks(id)).map((chunk) => chunk.attempt)).toEqual([1, 1, expect.any(Number), 1]);
  });

  it('[F28] a second manager on a store that keeps only the eight fields of old goes on from the beginning', async () => {
    const records = new Map<string, string>();
    const repository = new MapRepository(records);
    vi.spyOn(repository, 'save').mockImplementation(async ({ id, spec, state, progress, totalChunks, completedChunks, createdAt, updatedAt }) => {
      await turn();
      records.set(id, JSON.stringify({ id, spec, state, progress, totalChunks, completedChunks, createdAt, updatedAt }));
    });
    const first = open(repository, stopsOnce());
    const id = await first.submitJob(specOf(2));
    await nextEvent(first, 'job.started', id);
    await first.pauseJob(id);
    await first.close();
    const executor = new OwnExecutor();
    const second = open(new MapRepository(records), executor);
    await second.resumeJob(id);
    expect((await second.waitForJob(id)).state).toBe('completed');
    expect(executor.ran).toEqual([0, 1]);
  });

  it('[F30] a delete while a slow save is under way leaves no record', async () => {
    const repository = new MapRepository();
    repository.saveTurns = 8;
    const manager = open(repository, JobExecutor.fromFunction(turn));
    for (let n = 0; n < 10; n += 1) {
      const id = await manager.submitJob(specOf(50));
      await turns(n * 2);
      await manager.deleteJob(id);
      expect(repository.records.has(id)).toBe(false);
    }
    await turns(30);
    expect(repository.records.size).toBe(0);
  });

  it('[F149] a constructor refuses an object that lacks a method, and names it', () => {
    const whole = { save: async () => undefined, get: async () => undefined, list: async () => [], delete: async () => undefined };
    expect(() => new JobManager(whole)).not.toThrow();
    for (const method of ['save', 'get', 'list', 'delete'] as const) {
      expect(() => new JobManager({ ...whole, [method]: undefined })).toThrow(new RegExp(method));
    }
    for (const wrong of [undefined, null, 7, {}]) expect(() => new JobManager(wrong as JobRepository)).toThrow(FramewrightError);
    for (const wrong of [null, 7, {}, { execute: 1 }]) expect(() => new JobManager(whole, wrong as unknown as Executor)).toThrow(/execute/);
  });
});

describe('InMemoryJobRepository, subclassed or spied on', () => {
  class Logging extends InMemoryJobRepository {
    readonly saves: JobStatusInput[] = [];
    mostAtOnce = 0;
    turns = 1;
    #underWay = new Map<string, number>();
    override async save(job: JobStatusInput): Promise<void> {
      const now = (this.#underWay.get(job.id) ?? 0) + 1;
      this.#underWay.set(job.id, now);
      this.mostAtOnce = Math.max(this.mostAtOnce, now);
      this.saves.push(structuredClone(job));
      await turns(this.turns);
      await super.save(job);
      this.#underWay.set(job.id, now - 1);
    }
  }

  it('[F149] a subclass sees every change of state through its save, in order, and the job ends right', async () => {
    const repository = new Logging();
    const executor = stopsOnce();
    const manager = open(repository, executor);
    const id = await wholeLife(manager, executor);
    await turns(5);
    const states = statesOf(repository.saves, id);
    expect(states[0]).toBe('pending');
    expect(states.filter((state) => state !== 'pending')).toEqual(['running', 'paused', 'running', 'completed']);
    expect(repository.saves.at(-1)).toMatchObject({ id, state: 'completed', progress: 100, completedChunks: 3 });
    expect(await repository.get(id)).toMatchObject({ state: 'completed', completedChunks: 3, spec: specOf(3) });
    expect(await manager.getJob(id)).toMatchObject({ state: 'completed' });
  });

  it('[F149] a subclass sees failed and cancelled jobs end, too, and pending ones paused and cancelled', async () => {
    const repository = new Logging();
    const manager = open(repository, { execute: (spec, options) => (spec.id === 'fails' ? Promise.reject(new Error('no')) : whenAborted(options?.signal)) }, { maxConcurrentJobs: 1 });
    const fails = await manager.submitJob(specOf(1, { id: 'fails' }));
    await manager.waitForJob(fails);
    const runs = await manager.submitJob(specOf(1));
    await nextEvent(manager, 'job.started', runs);
    const waits = await manager.submitJob(specOf(1));
    await manager.pauseJob(waits);
    await manager.cancelJob(waits);
    await manager.cancelJob(runs);
    await turns(5);
    expect(statesOf(repository.saves, fails)).toEqual(['pending', 'running', 'failed']);
    expect(statesOf(repository.saves, runs)).toEqual(['pending', 'running', 'cancelled']);
    expect(statesOf(repository.saves, waits)).toEqual(['pending', 'paused', 'cancelled']);
  });

  it('[F149] progress is put together with one save under way per job', async () => {
    const repository = new Logging();
    repository.turns = 6;
    const manager = open(repository, new OwnExecutor(turn));
    const id = await manager.submitJob(specOf(60));
    await manager.waitForJob(id);
    await turns(10);
    expect(repository.mostAtOnce).toBe(1);
    expect(repository.saves.length).toBeGreaterThan(3);
    expect(repository.saves.length).toBeLessThan(60);
    const progress = repository.saves.map((job) => job.progress);
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
    expect(progress.some((value) => value > 0 && value < 100)).toBe(true);
    expect(repository.saves.at(-1)).toMatchObject({ state: 'completed', completedChunks: 60 });
  });

  for (const moment of ['before', 'after'] as const) {
    it(`[F149] a spy put on save ${moment} the manager was made sees every change of state, and lets it through`, async () => {
      const repository = new InMemoryJobRepository();
      const executor = stopsOnce();
      const saves: JobStatusInput[] = [];
      const original = repository.save.bind(repository);
      const spyOn = (): ReturnType<typeof vi.spyOn> =>
        vi.spyOn(repository, 'save').mockImplementation((job) => {
          saves.push(structuredClone(job));
          return original(job);
        });
      if (moment === 'before') spyOn();
      const manager = open(repository, executor);
      if (moment === 'after') spyOn();
      const id = await wholeLife(manager, executor);
      await turns(5);
      const states = statesOf(saves, id);
      expect(states[0]).toBe('pending');
      expect(states.filter((state) => state !== 'pending')).toEqual(['running', 'paused', 'running', 'completed']);
      expect((await repository.get(id))?.state).toBe('completed');
      expect(repository.save).toHaveBeenCalled();
    });
  }

  it('[F149] a plain vi.spyOn on save counts the calls and changes nothing; restored, it is called no more', async () => {
    const repository = new InMemoryJobRepository();
    const manager = open(repository, new OwnExecutor());
    const spy = vi.spyOn(repository, 'save');
    const first = await manager.submitJob(specOf(2));
    expect(spy.mock.calls[0]![0]).toMatchObject({ id: first, state: 'pending' });
    await manager.waitForJob(first);
    await turns(5);
    expect(spy.mock.lastCall![0]).toMatchObject({ id: first, state: 'completed' });
    const calls = spy.mock.calls.length;
    spy.mockRestore();
    const second = await manager.submitJob(specOf(2));
    expect((await manager.waitForJob(second)).state).toBe('completed');
    expect(spy.mock.calls.length <= calls).toBe(true);
    expect((await repository.list()).map((job) => job.state)).toEqual(['completed', 'completed']);
  });

  it('[F11] a spied save that rejects once at submit rejects submitJob with its message, and nothing runs', async () => {
    const repository = new InMemoryJobRepository();
    const own = new Error('the test says no');
    vi.spyOn(repository, 'save').mockRejectedValueOnce(own);
    const execute = vi.fn(async () => undefined);
    const manager = open(repository, { execute });
    const events = traceOf(manager);
    const error = await rejection(manager.submitJob(specOf(2), { id: 'shot' }));
    expect(error).toMatchObject({ message: own.message, cause: own });
    await turns(10);
    expect(execute).not.toHaveBeenCalled();
    expect(events).toEqual([]);
    expect(await repository.get('shot')).toBeUndefined();
    expect(await repository.list()).toEqual([]);
    await manager.submitJob(specOf(2), { id: 'shot' });
    expect((await manager.waitForJob('shot')).state).toBe('completed');
  });

  it('[F149] a spied save that rejects once later is told as job.warning, tried again, and the job ends right', async () => {
    const repository = new InMemoryJobRepository();
    const manager = open(repository, new OwnExecutor());
    const events = traceOf(manager);
    let calls = 0;
    const original = repository.save.bind(repository);
    const saves: JobStatusInput[] = [];
    vi.spyOn(repository, 'save').mockImplementation((job) => {
      calls += 1;
      if (calls === 3) return Promise.reject(new Error('disk is full'));
      saves.push(structuredClone(job));
      return original(job);
    });
    const id = await manager.submitJob(specOf(4));
    expect((await manager.waitForJob(id)).state).toBe('completed');
    await until(() => saves.some((job) => job.state === 'completed'));
    await until(() => events.some((event) => event.type === 'job.warning' && event.message.includes('disk is full')));
    expect((await repository.get(id))?.state).toBe('completed');
  });

  it('[F149] an overridden get, list and delete are what getJob, listJobs and deleteJob use', async () => {
    const deleted: string[] = [];
    class Tenant extends InMemoryJobRepository {
      override async get(id: string): Promise<JobStatus | undefined> {
        const job = await super.get(id);
        return job && { ...job, name: `tenant ${job.id}` };
      }
      override async list(): Promise<JobStatus[]> {
        return (await super.list()).filter((job) => job.id.startsWith('mine'));
      }
      override async delete(id: string): Promise<void> {
        deleted.push(id);
        await super.delete(id);
      }
    }
    const repository = new Tenant();
    const manager = open(repository, new OwnExecutor());
    await manager.submitJob(specOf(1), { id: 'mine-1' });
    await manager.submitJob(specOf(1), { id: 'yours-1' });
    expect((await manager.waitForJob('mine-1')).name).toBe('tenant mine-1');
    await manager.waitForJob('yours-1');
    expect((await manager.getJob('mine-1'))?.name).toBe('tenant mine-1');
    expect((await manager.listJobs()).map((job) => job.id)).toEqual(['mine-1']);
    await manager.deleteJob('mine-1');
    expect(deleted).toEqual(['mine-1']);
    expect(await manager.getJob('mine-1')).toBeUndefined();
  });
});

/** A repository whose saves, reads or deletes never settle once they are told not to. */
class SilentRepository extends MapRepository {
  readonly silent = new Set<'save' | 'get' | 'list' | 'delete'>();
  readonly #never = new Promise<never>(() => undefined);

  override async save(job: JobStatusInput): Promise<void> {
    await (this.silent.has('save') ? this.#never : super.save(job));
  }
  override async get(id: string): Promise<JobStatus | undefined> {
    return this.silent.has('get') ? this.#never : super.get(id);
  }
  override async list(): Promise<JobStatus[]> {
    return this.silent.has('list') ? this.#never : super.list();
  }
  override async delete(id: string): Promise<void> {
    await (this.silent.has('delete') ? this.#never : super.delete(id));
  }
}

describe('a repository that never answers', () => {
  const calls: Record<string, (manager: JobManager) => Promise<unknown>> = {
    submitJob: (manager) => manager.submitJob(specOf(1)),
    getJob: (manager) => manager.getJob('shot'),
    listJobs: (manager) => manager.listJobs(),
    chunks: (manager) => manager.chunks('other'),
    waitForJob: (manager) => manager.waitForJob('shot'),
    cancelJob: (manager) => manager.cancelJob('shot'),
    pauseJob: (manager) => manager.pauseJob('shot'),
    resumeJob: (manager) => manager.resumeJob('other'),
    deleteJob: (manager) => manager.deleteJob('shot'),
  };
  for (const [name, call] of Object.entries(calls)) {
    it(`[F149] ${name} rejects with STORE_UNAVAILABLE after storeTimeoutMs`, async () => {
      const repository = new SilentRepository();
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(repository, executor, { storeTimeoutMs: 40 });
      await manager.submitJob(specOf(1), { id: 'shot' });
      await until(() => executor.ran.length === 1);
      for (const method of ['save', 'get', 'list', 'delete'] as const) repository.silent.add(method);
      expect((await rejection(call(manager))).code).toBe('STORE_UNAVAILABLE');
    });
  }

  it('[F149] can be left behind: the manager closes, what ran is stopped and the process ends', async () => {
    const ended = await script(`
      const never = new Promise(() => {});
      let saves = 0;
      const repository = { save: async () => { if ((saves += 1) > 2) await never; }, get: () => never, list: () => never, delete: () => never };
      let stopped = 0;
      const manager = new JobManager(repository, { execute: (_, { signal }) => new Promise((_, reject) => {
        signal.addEventListener('abort', () => { stopped += 1; reject(signal.reason); });
        begun();
      }) });
      let begun;
      const running = new Promise((resolve) => (begun = resolve));
      await manager.submitJob({ chunks: [{ id: 0, command: 'x' }] });
      await running;
      manager.getJob('other').catch(() => {});
      manager.cancelJob('other').catch(() => {});
      await manager.close({ abortMs: 200 });
      console.log('closed', stopped);
    `, { limitMs: 10_000 });
    expect(ended).toMatchObject({ ...QUIET, stdout: 'closed 1\n' });
  });

  it('[F59] the time limit of a job counts from its start, though its start is not saved yet', async () => {
    const repository = new SilentRepository();
    const execute = vi.fn(async () => undefined);
    const manager = open(repository, { execute }, { maxConcurrentJobs: 1 });
    const save = repository.save.bind(repository);
    vi.spyOn(repository, 'save').mockImplementation((job) => (job.id === 'shot' && job.state !== 'pending' ? new Promise(() => undefined) : save(job)));
    await manager.submitJob(specOf(1), { id: 'shot', timeouts: { jobMs: 30 } });
    // Its slot is free again.
    const next = await manager.submitJob(specOf(1));
    expect((await manager.waitForJob(next, { timeoutMs: 8000 })).state).toBe('completed');
    expect(execute).toHaveBeenCalledTimes(1);
  });

  it('[F149] a save that is late is not overtaken by the next one of its job', async () => {
    const repository = new MapRepository();
    const [gate, begun] = [deferred(), deferred()];
    const save = repository.save.bind(repository);
    let [atOnce, most] = [0, 0];
    vi.spyOn(repository, 'save').mockImplementation(async (job) => {
      most = Math.max(most, (atOnce += 1));
      if (job.state === 'running') {
        begun.resolve();
        await gate.promise;
      }
      await save(job);
      atOnce -= 1;
    });
    const manager = open(repository, new OwnExecutor((_, signal) => whenAborted(signal)), { storeTimeoutMs: 40 });
    await manager.submitJob(specOf(1), { id: 'shot' });
    await begun.promise;
    expect((await rejection(manager.cancelJob('shot'))).code).toBe('STORE_UNAVAILABLE');
    // Cancelled it is: no other call brings back what the store still has.
    await manager.cancelJob('shot', { strict: true });
    expect((await rejection(manager.deleteJob('shot'))).code).toBe('STORE_UNAVAILABLE');
    expect((await rejection(manager.deleteJob('shot'))).code).toBe('STORE_UNAVAILABLE');
    gate.resolve();
    await manager.deleteJob('shot');
    await turns(20);
    expect([await repository.get('shot'), most]).toEqual([undefined, 1]);
  });
});

describe('an overridden save of the memory repository', () => {
  const copies: Record<string, (job: JobStatusInput) => JobStatusInput> = {
    'a spread': (job) => ({ ...job }),
    'a clone': (job) => structuredClone(job),
  };
  for (const [name, copy] of Object.entries(copies)) {
    it(`[F149] that hands on ${name} changes nothing of the job, nor of its versions`, async () => {
      const versions = async (own: (job: JobStatusInput) => JobStatusInput): Promise<[number, string[], number]> => {
        let saves = 0;
        class Copying extends InMemoryJobRepository {
          override async save(job: JobStatusInput): Promise<void> {
            saves += 1;
            await turn();
            await super.save(own(job));
          }
        }
        const repository = new Copying();
        const executor = stopsOnce();
        const manager = open(repository, executor);
        const events = traceOf(manager);
        const id = await wholeLife(manager, executor);
        await until(() => typesOf(events, id).includes('job.completed'));
        const told = typesOf(events, id).filter((type) => !type.endsWith('progress'));
        return [(await repository.get(id))!.version, told, saves];
      };
      const [version, told] = await versions((job) => job);
      const [copied, toldOfCopies, saves] = await versions(copy);
      expect([copied, toldOfCopies]).toEqual([version, told]);
      expect(saves).toBeLessThan(40);
    });
  }

  it('[F30] is over before a delete of its job begins', async () => {
    const repository = new InMemoryJobRepository();
    const log: string[] = [];
    const gate = deferred();
    const begun = deferred();
    vi.spyOn(repository, 'save').mockImplementation(async (job) => {
      log.push(`save ${job.state}`);
      if (job.state === 'running') {
        begun.resolve();
        await gate.promise;
      }
      log.push('saved');
    });
    vi.spyOn(repository, 'delete').mockImplementation(async () => void log.push('delete'));
    const manager = open(repository, new OwnExecutor((_, signal) => whenAborted(signal)));
    const id = await manager.submitJob(specOf(1));
    await begun.promise;
    const removal = manager.deleteJob(id);
    await turns(10);
    expect(log).not.toContain('delete');
    gate.resolve();
    await removal;
    await turns(10);
    expect(log.at(-1)).toBe('delete');
    expect(log.filter((entry) => entry === 'saved')).toHaveLength(log.filter((entry) => entry.startsWith('save ')).length);
  });
});
