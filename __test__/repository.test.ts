import { InMemoryJobRepository, type JobRepository, type JobStatus, type JobStatusInput } from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open } from './support/managers.js';
import { OwnExecutor } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';

function statusOf(id: string, more: Partial<JobStatus> & Record<string, unknown> = {}): JobStatusInput {
  return {
    id,
    spec: { id: 'r', metadata: { totalFrames: 2, fps: 1, width: 1, height: 1, duration: 2 }, chunks: [{ id: 0, startFrame: 0, frameCount: 1, outputFile: 'a', command: 'x' }, { id: 1, startFrame: 1, frameCount: 1, outputFile: 'b', command: 'x' }], mergeCommand: '' },
    state: 'paused',
    progress: 50,
    totalChunks: 2,
    completedChunks: 1,
    createdAt: 1_700_000_000_000,
    updatedAt: 1_700_000_000_500,
    ...more,
  }; // prettier-ignore
}

const paths = (issues: { path: string }[] | undefined): string[] => (issues ?? []).map((issue) => issue.path);

/** A repository of the user's that hands everything to one of ours. */
class Wrapper implements JobRepository {
  readonly versions: (number | undefined)[] = [];
  constructor(readonly inner = new InMemoryJobRepository()) {}
  async save(job: JobStatusInput): Promise<void> {
    this.versions.push(job.version);
    await this.inner.save(job);
  }
  get(id: string): Promise<JobStatus | undefined> {
    return this.inner.get(id);
  }
  list(): Promise<JobStatus[]> {
    return this.inner.list();
  }
  delete(id: string): Promise<void> {
    return this.inner.delete(id);
  }
}

describe('InMemoryJobRepository', () => {
  it('[F31] each save raises the version by one, and the version that was seen is the one to name', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a'));
    for (let version = 1; version <= 5; version += 1) {
      const seen = (await repository.get('a'))!;
      expect(seen.version).toBe(version);
      await repository.save({ ...seen, name: `round ${version}` });
    }
    expect(await repository.get('a')).toMatchObject({ version: 6, name: 'round 5' });
  });

  it('[F31] a stale version is refused with CONFLICT and changes nothing, also one that is too high', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a'));
    const seen = (await repository.get('a'))!;
    await repository.save({ ...seen, name: 'first' });
    const kept = await repository.get('a');
    for (const version of [seen.version, 0, seen.version + 2, Number.MAX_SAFE_INTEGER]) {
      const error = await rejection(repository.save({ ...seen, version, name: 'late', state: 'failed' }));
      expect(error.code, `version ${version}`).toBe('CONFLICT');
      expect(await repository.get('a')).toEqual(kept);
    }
  });

  it('[F146] of many writers that saw the same version exactly one wins, round after round', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a', { meta: { count: 0 } }));
    for (let round = 0; round < 20; round += 1) {
      const seen = (await repository.get('a'))!;
      const outcomes = await Promise.allSettled(Array.from({ length: 25 }, (_, writer) => repository.save({ ...seen, meta: { count: round + 1, writer } })));
      const won = outcomes.flatMap((outcome, writer) => (outcome.status === 'fulfilled' ? [writer] : []));
      expect(won).toHaveLength(1);
      for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ name: 'FramewrightError', code: 'CONFLICT' });
      expect((await repository.get('a'))!.meta).toEqual({ count: round + 1, writer: won[0] });
    }
  });

  it('[F146] no increment is lost when everybody reads, writes and tries again on CONFLICT', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a', { meta: { count: 0 } }));
    const increment = async (): Promise<void> => {
      for (;;) {
        const seen = (await repository.get('a'))!;
        try {
          await repository.save({ ...seen, meta: { count: (seen.meta!['count'] as number) + 1 } });
          return;
        } catch (error) {
          expect(error).toMatchObject({ code: 'CONFLICT' });
        }
      }
    };
    await Promise.all(Array.from({ length: 40 }, increment));
    expect(await repository.get('a')).toMatchObject({ version: 41, meta: { count: 40 } });
  });

  it('[F31] without a version a status is kept unconditionally', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a'));
    await repository.save(statusOf('a', { name: 'second' }));
    await repository.save(statusOf('a', { name: 'third', version: undefined }));
    expect(await repository.get('a')).toMatchObject({ version: 3, name: 'third' });
  });

  it('[F31] a version for an id that is gone, or never was, is a CONFLICT and brings nothing back', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a'));
    const seen = (await repository.get('a'))!;
    await repository.delete('a');
    expect(await rejection(repository.save(seen))).toMatchObject({ code: 'CONFLICT' });
    expect(await rejection(repository.save({ ...statusOf('never'), version: 3 }))).toMatchObject({ code: 'CONFLICT' });
    expect(await repository.get('a')).toBeUndefined();
    expect(await repository.list()).toEqual([]);
    const { version: _, ...copy } = seen;
    await repository.save(copy);
    expect(await repository.get('a')).toMatchObject({ version: 1, state: 'paused' });
  });

  it('[F31] without its version a job moves to another store as it is', async () => {
    const first = new InMemoryJobRepository();
    const manager = open(first, new OwnExecutor());
    const id = await manager.submitJob(specOf(3), { meta: { a: 1 } });
    const { version: _, ...job } = await manager.waitForJob(id);
    const second = new InMemoryJobRepository();
    await second.save(job);
    const { version, ...copy } = (await second.get(id))!;
    expect(version).toBe(1);
    expect(copy).toEqual(job);
    expect((await open(second, new OwnExecutor()).chunks(id)).map((chunk) => chunk.state)).toEqual(['completed', 'completed', 'completed']);
  });

  it.each<[string, number]>([['NaN', NaN], ['negative', -1], ['fractional', 1.5], ['huge', 1e300], ['infinite', Infinity], ['text', '1' as unknown as number]])(
    '[F31] a version that is %s is bad input, never taken as "unconditionally"',
    async (_, version) => {
      const repository = new InMemoryJobRepository();
      await repository.save(statusOf('a'));
      const kept = await repository.get('a');
      const error = await rejection(repository.save(statusOf('a', { version, name: 'lost update' })));
      // One that is too high to be a version may be told as such or as not the latest.
      expect(['VALIDATION', 'CONFLICT']).toContain(error.code);
      expect(await repository.get('a')).toEqual(kept);
    },
  ); // prettier-ignore

  it('what goes in and what comes out are full copies', async () => {
    const repository = new InMemoryJobRepository();
    const given = statusOf('a', { meta: { nested: { list: [1] } }, tags: ['t'] });
    const before = structuredClone(given);
    await repository.save(given);
    expect(given).toEqual(before);
    (given.meta!['nested'] as { list: number[] }).list.push(2);
    given.spec.chunks[0]!.command = 'changed';
    given.tags!.push('changed');
    const first = (await repository.get('a'))!;
    expect(first).toMatchObject({ meta: { nested: { list: [1] } }, tags: ['t'] });
    expect(first.spec).toEqual(before.spec);
    (first.meta!['nested'] as { list: number[] }).list.push(3);
    first.spec.chunks.pop();
    const [listed] = await repository.list();
    expect(listed).toMatchObject({ meta: { nested: { list: [1] } } });
    expect(listed!.spec).toEqual(before.spec);
  });

  it('a status that is changed while it is being saved is kept as it was when save was called', async () => {
    const repository = new InMemoryJobRepository();
    const given = statusOf('a', { name: 'before' });
    const saved = repository.save(given);
    given.name = 'after';
    given.spec.chunks.length = 0;
    await saved;
    expect(await repository.get('a')).toMatchObject({ name: 'before', spec: { chunks: [{ id: 0 }, { id: 1 }] } });
  });

  it('fields that nobody knows are kept, at every level, also by a later change of the job', async () => {
    const repository = new InMemoryJobRepository();
    const extra = { 'x-team': { members: ['é', null, { deep: 1e21 }] }, list: [], flag: false };
    const given = statusOf('a', { ...extra, meta: { mine: { a: [1] } }, metrics: { totalDurationMs: 5, mine: 2 } as JobStatus['metrics'] });
    (given.spec as unknown as Record<string, unknown>)['custom'] = { keep: true };
    await repository.save(given);
    expect(await repository.get('a')).toMatchObject(given);
    const manager = open(repository, new OwnExecutor());
    await manager.cancelJob('a');
    expect(await repository.get('a')).toMatchObject({ ...extra, state: 'cancelled', meta: { mine: { a: [1] } }, spec: given.spec });
  });

  it('a sparse status has its defaults filled in', async () => {
    const repository = new InMemoryJobRepository();
    await repository.save(statusOf('a'));
    expect(await repository.get('a')).toMatchObject({ priority: 'medium', tags: [], dependencies: [], attempt: 0, version: 1, ...statusOf('a') });
  });

  it('jobs are listed in order of arrival, and a deleted one is gone', async () => {
    const repository = new InMemoryJobRepository();
    const ids = Array.from({ length: 250 }, (_, n) => `job-${(n * 37) % 250}`);
    for (const id of ids) await repository.save(statusOf(id));
    expect((await repository.list()).map((job) => job.id)).toEqual(ids);
    await repository.delete(ids[100]!);
    await repository.delete('unknown');
    expect((await repository.list()).map((job) => job.id)).toEqual(ids.filter((_, n) => n !== 100));
    expect(await repository.get(ids[100]!)).toBeUndefined();
  });

  it('two repositories share nothing, and close leaves the jobs readable', async () => {
    const [one, other] = [new InMemoryJobRepository(), new InMemoryJobRepository()];
    await one.save(statusOf('a'));
    expect(await other.list()).toEqual([]);
    await one.close();
    await one.close();
    expect(await one.get('a')).toMatchObject({ id: 'a' });
  });

  it.each<[string, unknown, string | undefined]>([
    ['null', null, undefined], ['undefined', undefined, undefined], ['a number', 5, undefined], ['an array', [], undefined], ['a text', 'x', undefined], ['a function', () => 1, undefined],
    ['no id', statusOf('a', { id: undefined }), 'id'],
    ['an id that climbs', statusOf('../a'), 'id'],
    ['an id with a slash', statusOf('a/b'), 'id'],
    ['an id with NUL', statusOf('a\0'), 'id'],
    ['an empty id', statusOf(''), 'id'],
    ['a hidden id', statusOf('.a'), 'id'],
    ['an id of 129 characters', statusOf('x'.repeat(129)), 'id'],
    ['an id that is a number', statusOf(5 as unknown as string), 'id'],
    ['no spec', statusOf('a', { spec: undefined }), 'spec'],
    ['a spec that is an array', { ...statusOf('a'), spec: [] }, 'spec'],
    ['a chunk id twice', { ...statusOf('a'), spec: { chunks: [{ id: 0 }, { id: 0 }] } }, 'spec.chunks[1].id'],
    ['no state', statusOf('a', { state: undefined }), 'state'],
    ['a state that does not exist', { ...statusOf('a'), state: 'odd' }, 'state'],
    ['a negative progress', statusOf('a', { progress: -1 }), 'progress'],
    ['a progress that is NaN', statusOf('a', { progress: NaN }), 'progress'],
    ['a progress above 100', statusOf('a', { progress: 101 }), 'progress'],
    ['a negative count', statusOf('a', { totalChunks: -1 }), 'totalChunks'],
    ['a fractional count', statusOf('a', { completedChunks: 0.5 }), 'completedChunks'],
    ['a time that is text', { ...statusOf('a'), createdAt: 'yesterday' }, 'createdAt'],
    ['a time that is Infinity', statusOf('a', { updatedAt: Infinity }), 'updatedAt'],
    ['tags that are no list', { ...statusOf('a'), tags: 5 }, 'tags'],
    ['dependencies that are no list', { ...statusOf('a'), dependencies: 'b' }, 'dependencies'],
    ['a priority that does not exist', { ...statusOf('a'), priority: 'x' }, 'priority'],
    ['logs that are no list', { ...statusOf('a'), logs: {} }, 'logs'],
    ['meta that is a list', { ...statusOf('a'), meta: [] }, 'meta'],
    ['metrics that are a number', { ...statusOf('a'), metrics: 5 }, 'metrics'],
    ['an error that is no text', { ...statusOf('a'), error: {} }, 'error'],
    ['a record that is not ours', { ...statusOf('a'), record: 5 }, 'record'],
  ])('saving %s is refused with its path, and nothing is kept', async (_, status, path) => {
    const repository = new InMemoryJobRepository();
    const error = await rejection(repository.save(status as JobStatusInput));
    expect(error.code).toBe('VALIDATION');
    expect(await repository.list()).toEqual([]);
    if (path === undefined) expect(paths(error.issues)[0]).toBeTruthy();
    else expect(paths(error.issues)[0]).toBe(path);
  }); // prettier-ignore

  it('a status that JSON cannot hold is refused', async () => {
    const repository = new InMemoryJobRepository();
    const cyclic = statusOf('a') as JobStatusInput & { self?: unknown };
    cyclic.self = cyclic;
    for (const status of [cyclic, statusOf('a', { big: 1n })]) {
      const error = await rejection(repository.save(status));
      expect(error.code).toBe('VALIDATION');
      expect(error.cause).toBeInstanceOf(TypeError);
    }
    expect(await repository.list()).toEqual([]);
  });

  it.each([[undefined], [null], [5], [{}], [['a']]])('get and delete refuse the id %s', async (id) => {
    const repository = new InMemoryJobRepository();
    expect(await rejection(repository.get(id as string))).toMatchObject({ code: 'VALIDATION' });
    expect(await rejection(repository.delete(id as string))).toMatchObject({ code: 'VALIDATION' });
  });
});

describe('managers and versions', () => {
  it('[F31] the version grows with every change of the job, and not with reading', async () => {
    const repository = new InMemoryJobRepository();
    const gate = deferred();
    const manager = open(repository, new OwnExecutor(() => gate.promise));
    const id = await manager.submitJob(specOf(2));
    const seen: number[] = [];
    manager.on('event', (event) => {
      if (event.type.startsWith('job.') && event.type !== 'job.progress') void manager.getJob(id).then((job) => seen.push(job!.version));
    });
    const submitted = (await manager.getJob(id))!.version;
    expect((await manager.getJob(id))!.version).toBe(submitted);
    gate.resolve();
    const end = await manager.waitForJob(id);
    expect(end.version).toBeGreaterThan(submitted);
    expect((await manager.getJob(id))!.version).toBe(end.version);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });

  it('[F146] a status that was read before the job moved on is refused, and the job is as the manager left it', async () => {
    const repository = new InMemoryJobRepository();
    const manager = open(repository, new OwnExecutor());
    const id = await manager.submitJob(specOf(2));
    const early = (await repository.get(id))!;
    const end = await manager.waitForJob(id);
    expect(await rejection(repository.save({ ...early, state: 'pending' }))).toMatchObject({ code: 'CONFLICT' });
    expect(await manager.getJob(id)).toEqual(end);
  });

  it('[F146] two managers that resume and cancel one job leave it in one of the two states and run it at most once', async () => {
    for (let round = 0; round < 20; round += 1) {
      const repository = new InMemoryJobRepository();
      const executor = new OwnExecutor();
      const [one, other] = [open(repository, executor), open(repository, executor)];
      await repository.save(statusOf('a'));
      await Promise.all([one.resumeJob('a'), other.resumeJob('a'), one.cancelJob('a'), other.resumeJob('a')]);
      const job = await one.waitForJob('a');
      expect(['completed', 'cancelled']).toContain(job.state);
      expect(executor.calls.length).toBeLessThanOrEqual(1);
    }
  });

  it('[F146] a repository that hands everything to one of ours works: each write names the version that was seen', async () => {
    const repository = new Wrapper();
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(3), { id: 'a' });
    const job = await manager.waitForJob(id);
    expect(job).toMatchObject({ state: 'completed', completedChunks: 3, progress: 100 });
    expect(await repository.inner.get('a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    const named = repository.versions.map((version) => version ?? 0);
    expect(named).toEqual([...named].sort((a, b) => a - b));
    expect(executor.calls).toHaveLength(1);
  });

  it('[F146] such a repository goes through pause, resume and delete as well', async () => {
    const repository = new Wrapper();
    const gate = deferred();
    const manager = open(repository, new OwnExecutor(async (chunk, signal) => {
      if (chunk === 1 && !signal?.aborted) await Promise.race([gate.promise, new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new DOMException('stop', 'AbortError'))))]);
    })); // prettier-ignore
    const id = await manager.submitJob(specOf(3), { id: 'a' });
    const reported = new Promise<void>((resolve) => manager.once('chunk.completed', () => resolve()));
    await reported;
    await manager.pauseJob(id);
    expect(await repository.get(id)).toMatchObject({ state: 'paused', completedChunks: 1 });
    gate.resolve();
    await manager.resumeJob(id);
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
    await manager.deleteJob(id);
    expect(await repository.list()).toEqual([]);
  });

  it('[F31] the versions that a spied save of ours is called with never fall', async () => {
    const repository = new InMemoryJobRepository();
    const save = vi.spyOn(repository, 'save');
    const manager = open(repository, new OwnExecutor());
    await manager.waitForJob(await manager.submitJob(specOf(5)));
    const versions = save.mock.calls.map(([job]) => job.version ?? 0);
    expect(versions.length).toBeGreaterThan(1);
    expect(versions).toEqual([...versions].sort((a, b) => a - b));
  });
});
