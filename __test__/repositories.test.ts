/** What every repository promises: those in memory, the durable ones, and one of the user's. */
import { JobExecutor, SqliteJobRepository, type JobRepository, type JobStatus, type JobStatusInput } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { open } from './support/managers.js';
import { OwnExecutor, whenAborted } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { durables, stores } from './support/repositories.js';
import { specOf } from './support/specs.js';
import { statusOf } from './support/statuses.js';
import { nextEvent } from './support/trace.js';
import { turn } from './support/turns.js';

/** The code of the error that a call rejects with, whoever made it. */
async function codeOf(call: Promise<unknown>): Promise<unknown> {
  return call.then(
    () => undefined,
    (error: unknown) => (error as { code?: unknown }).code,
  );
}

const MEGABYTE = 2 ** 20;

describe.each(stores)('[F156] jobs in $kind', ({ kind, create }) => {
  it('[F98] are submitted, read, listed, waited for and deleted', async () => {
    const repository = await create().open();
    const manager = open(repository, new OwnExecutor());
    const ids: string[] = [];
    for (let n = 0; n < 5; n += 1) ids.push(await manager.submitJob(specOf(n + 1), { id: `job-${4 - n}`, meta: { n } }));
    const ended = await Promise.all(ids.map((id) => manager.waitForJob(id)));
    expect(ended).toMatchObject(ids.map((id, n) => ({ id, state: 'completed', progress: 100, completedChunks: n + 1, totalChunks: n + 1, meta: { n } })));
    for (const status of ended) {
      expect(await manager.getJob(status.id)).toEqual(status);
      expect((await repository.get(status.id))!.spec).toEqual(status.spec);
    }
    expect((await repository.list()).map((job) => job.id)).toEqual(ids);
    expect((await manager.listJobs({ state: 'completed', limit: 2 })).map((job) => job.id)).toEqual(ids.slice(0, 2));
    expect((await manager.listJobs({ cursor: ids[1]!, limit: 2 })).map((job) => job.id)).toEqual(ids.slice(2, 4));
    await manager.deleteJob(ids[2]!);
    expect(await manager.getJob(ids[2]!)).toBeUndefined();
    expect(await repository.get(ids[2]!)).toBeUndefined();
    expect((await manager.listJobs()).map((job) => job.id)).toEqual(ids.filter((_, n) => n !== 2));
    expect((await rejection(manager.waitForJob(ids[2]!))).code).toBe('NOT_FOUND');
    expect((await rejection(manager.chunks(ids[2]!))).code).toBe('NOT_FOUND');
    expect(await repository.get('nobody')).toBeUndefined();
    await repository.delete('nobody');
  });

  it('[F125] progress is told after the start of what it tells of', async () => {
    const manager = open(
      await create().open(),
      JobExecutor.fromFunction(async (_, { reportProgress }) => {
        reportProgress(0.5);
        await turn();
        reportProgress(0.9);
      }),
    );
    const events: string[] = [];
    manager.on('event', (event) => events.push('chunkId' in event ? `${event.type} ${event.chunkId}` : event.type));
    await manager.waitForJob(await manager.submitJob(specOf(2)));
    expect(events.at(-1)).toBe('job.completed');
    for (const chunk of [0, 1]) {
      const told = events.filter((event) => event.endsWith(` ${chunk}`) && event !== `chunk.progress ${chunk}`);
      expect(told).toEqual([`chunk.started ${chunk}`, `chunk.completed ${chunk}`]);
      const first = events.indexOf(`chunk.progress ${chunk}`);
      if (first >= 0) expect(first).toBeGreaterThan(events.indexOf(`chunk.started ${chunk}`));
    }
    for (const type of ['chunk.progress 0', 'chunk.progress 1', 'job.progress']) {
      if (events.includes(type)) expect(events.indexOf(type)).toBeGreaterThan(events.indexOf('job.started'));
    }
  });

  it('[F98] what is saved from outside while a job runs does not stop its counts', async () => {
    const repository = await create().open();
    const gate = deferred();
    const manager = open(repository, JobExecutor.fromFunction(() => gate.promise));
    const id = await manager.submitJob(specOf(3));
    await nextEvent(manager, 'chunk.started');
    if (kind !== "a repository of the user's") await repository.save({ ...(await repository.get(id))!, name: 'a name' });
    gate.resolve();
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'completed', progress: 100, completedChunks: 3, chunksByState: { completed: 3 } });
    expect(status.logs).toHaveLength(3);
  });

  it('[F2] bad options of a resume are refused whatever the job is at', async () => {
    const manager = open(await create().open(), new OwnExecutor());
    const id = await manager.submitJob(specOf(1));
    await manager.waitForJob(id);
    for (const job of [id, 'nobody']) {
      const error = await rejection(manager.resumeJob(job, { concurrency: 0 }));
      expect([error.code, error.issues?.map((issue) => issue.path)]).toEqual(['VALIDATION', ['concurrency']]);
    }
  });

  it('an id that exists is refused with DUPLICATE, and one that was deleted may be used again', async () => {
    const manager = open(await create().open(), new OwnExecutor());
    await manager.submitJob(specOf(1), { id: 'a', meta: { first: true } });
    await manager.waitForJob('a');
    expect((await rejection(manager.submitJob(specOf(2), { id: 'a' }))).code).toBe('DUPLICATE');
    expect(await manager.getJob('a')).toMatchObject({ totalChunks: 1, meta: { first: true } });
    await manager.deleteJob('a');
    await manager.submitJob(specOf(3), { id: 'a' });
    expect(await manager.waitForJob('a')).toMatchObject({ state: 'completed', totalChunks: 3 });
  });

  it('a version that is not the latest is refused with CONFLICT and changes nothing', async () => {
    const repository = await create().open();
    await repository.save(statusOf('a'));
    const seen = (await repository.get('a'))!;
    await repository.save({ ...seen, name: 'first' });
    const kept = await repository.get('a');
    expect(kept).toMatchObject({ version: seen.version + 1, name: 'first' });
    expect(await codeOf(repository.save({ ...seen, name: 'lost update' }))).toBe('CONFLICT');
    expect(await codeOf(repository.save({ ...seen, version: seen.version + 5, name: 'from the future' }))).toBe('CONFLICT');
    expect(await repository.get('a')).toEqual(kept);
  });

  it('no increment is lost when everybody reads, writes and tries again on CONFLICT', async () => {
    const store = create();
    const repositories = [await store.open(), kind === 'files' ? undefined : await store.open()].filter((one) => one !== undefined);
    await repositories[0]!.save(statusOf('a', { meta: { count: 0 } }));
    let conflicts = 0;
    const increment = async (repository: JobRepository): Promise<void> => {
      for (;;) {
        const seen = (await repository.get('a'))!;
        const code = await codeOf(repository.save({ ...seen, meta: { count: (seen.meta!['count'] as number) + 1 } }));
        if (code === undefined) return;
        expect(code).toBe('CONFLICT');
        conflicts += 1;
      }
    };
    await Promise.all(Array.from({ length: 16 }, (_, n) => increment(repositories[n % repositories.length]!)));
    expect(await repositories[0]!.get('a')).toMatchObject({ version: 17, meta: { count: 16 } });
    expect(conflicts).toBeGreaterThan(0);
  });

  it('without a version a status is kept unconditionally', async () => {
    const repository = await create().open();
    await repository.save(statusOf('a'));
    await repository.save(statusOf('a', { name: 'second' }));
    await repository.save(statusOf('a', { name: 'third', version: undefined }));
    expect(await repository.get('a')).toMatchObject({ version: 3, name: 'third' });
  });

  it('a version for an id that is gone, or never was, is a CONFLICT and brings nothing back', async () => {
    const repository = await create().open();
    await repository.save(statusOf('a'));
    const seen = (await repository.get('a'))!;
    await repository.delete('a');
    expect(await codeOf(repository.save(seen))).toBe('CONFLICT');
    expect(await codeOf(repository.save({ ...statusOf('never'), version: 3 }))).toBe('CONFLICT');
    expect(await repository.get('a')).toBeUndefined();
    expect(await repository.list()).toEqual([]);
    const { version: _, ...copy } = seen;
    await repository.save(copy);
    expect(await repository.get('a')).toMatchObject({ version: 1, state: 'paused' });
  });

  it('without its version a job moves into another store as it is', async () => {
    const manager = open(await stores[0]!.create().open(), new OwnExecutor());
    const { version: _, ...job } = await manager.waitForJob(await manager.submitJob(specOf(3), { id: 'a', meta: { mine: 1 } }));
    const repository = await create().open();
    await repository.save(job);
    const { version, ...copy } = (await repository.get('a'))!;
    expect(version).toBe(1);
    expect(copy).toEqual(job);
    expect((await open(repository, new OwnExecutor()).chunks('a')).map((chunk) => chunk.state)).toEqual(['completed', 'completed', 'completed']);
  });

  it('fields that nobody knows come back from specs and statuses, at every level, also after a change of the job', async () => {
    const repository = await create().open();
    const extra = { 'x-team': { members: ['é', null, { deep: 1e21 }] }, list: [], flag: false };
    const given = statusOf('a', { ...extra, meta: { mine: { a: [1] } }, metrics: { totalDurationMs: 5, mine: 2 } as JobStatus['metrics'] });
    Object.assign(given.spec, { custom: { keep: true } });
    Object.assign(given.spec.chunks[1]!, { 'x-camera': ['left', 0.1] });
    await repository.save(given);
    expect(await repository.get('a')).toMatchObject(given);
    const manager = open(repository, new OwnExecutor());
    await manager.cancelJob('a');
    expect(await repository.get('a')).toMatchObject({ ...extra, state: 'cancelled', meta: { mine: { a: [1] } }, spec: given.spec });

    const spec = { ...specOf(2), custom: { deep: [{ er: 'ü' }] }, payload: { a: [1, { b: null }] } };
    Object.assign(spec.chunks![0]!, { 'x-node': 'n1' });
    const id = await manager.submitJob(spec);
    const job = await manager.waitForJob(id);
    expect(job.spec).toMatchObject(spec);
    expect((await repository.get(id))!.spec).toEqual(job.spec);
  });

  it('characters of every kind come back, NUL and separators too', async () => {
    const repository = await create().open();
    const text = 'a\0b \u2028 \u{1F3AC} é ä¸­ " \\ \' ` % _ \n\r\t \uffff e\u0301';
    const named = { [text]: text };
    const given = statusOf('a', { name: text, description: text, meta: named, tags: [text], 'x-mine': named });
    given.spec.payload = named;
    await repository.save(given);
    expect(await repository.get('a')).toMatchObject(given);
    const manager = open(repository, new OwnExecutor());
    const id = await manager.submitJob({ ...specOf(1), payload: named }, { meta: named });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', meta: named, spec: { payload: named } });
    const [, listed] = await repository.list();
    expect(listed).toMatchObject({ meta: named, spec: { payload: named } });
  });

  it('ids differ by case and by every other character', async () => {
    const repository = await create().open();
    const ids = ['a', 'A', 'a.', 'a-', 'a_', 'b', '0', '00', 'x'.repeat(128), 'X'.repeat(128), 'con', 'a.json'];
    for (const id of ids) await repository.save(statusOf(id, { name: `named ${id}` }));
    for (const id of ids) expect(await repository.get(id)).toMatchObject({ id, name: `named ${id}` });
    expect((await repository.list()).map((job) => job.id)).toEqual(ids);
    await repository.delete('A');
    expect((await repository.list()).map((job) => job.id)).toEqual(ids.filter((id) => id !== 'A'));
  });

  it('a payload of 16 MB comes back whole', async () => {
    const store = create();
    const repository = await store.open();
    const payload = { text: 'ü'.repeat(4 * MEGABYTE), list: Array.from({ length: 100_000 }, (_, n) => `item ${n} ${'.'.repeat(70)}`) };
    expect(Buffer.byteLength(JSON.stringify(payload))).toBeGreaterThan(16 * MEGABYTE);
    const manager = open(repository, new OwnExecutor());
    const id = await manager.submitJob({ ...specOf(2), payload });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    const read = (await (await store.open()).get(id).catch(() => repository.get(id)))!;
    // Compared by hand: a difference would be printed for minutes.
    expect(JSON.stringify(read.spec.payload) === JSON.stringify(payload)).toBe(true);
    await manager.deleteJob(id);
    expect(await repository.get(id)).toBeUndefined();
  }, 60_000);

  it('lists and deletes are right while jobs come and go', async () => {
    const repository = await create().open();
    const manager = open(repository, new OwnExecutor(), { maxConcurrentJobs: 4 });
    const kept = Array.from({ length: 60 }, (_, n) => `kept-${n}`);
    const gone = new Set<string>();
    const work = Promise.all(
      kept.map(async (id, n) => {
        await manager.submitJob(specOf(2), { id });
        const passing = await manager.submitJob(specOf(2), { id: `passing-${n}` });
        if (n % 3 === 0) await manager.waitForJob(passing);
        await manager.deleteJob(passing);
        gone.add(passing);
        await manager.waitForJob(id);
      }),
    );
    const state = { over: false };
    void work.finally(() => (state.over = true)).catch(() => undefined);
    let listings = 0;
    while (!state.over) {
      const before = [...gone];
      const ids = (await manager.listJobs()).map((job) => job.id);
      expect(new Set(ids).size).toBe(ids.length);
      for (const id of before) expect(ids).not.toContain(id);
      listings += 1;
      await turn();
    }
    await work;
    expect(listings).toBeGreaterThan(0);
    const jobs = await repository.list();
    expect(jobs.map((job) => job.id).sort()).toEqual([...kept].sort());
    expect(jobs.every((job) => job.state === 'completed' && job.completedChunks === 2)).toBe(true);
  }, 60_000);

  it('what is given and what comes back are full copies', async () => {
    const repository = await create().open();
    const given = statusOf('a', { name: 'before', meta: { nested: { list: [1] } }, tags: ['t'] });
    const before = structuredClone(given);
    const saved = repository.save(given);
    given.name = 'after';
    given.spec.chunks.length = 0;
    (given.meta!['nested'] as { list: number[] }).list.push(2);
    await saved;
    expect(await repository.get('a')).toMatchObject(before);
    const first = (await repository.get('a'))!;
    first.spec.chunks.pop();
    first.tags.push('changed');
    expect(await repository.get('a')).toMatchObject(before);
  });

  it('a paused job goes on in another manager on the same jobs, which runs only what is missing', async () => {
    const repository = await create().open();
    const gate = deferred();
    const first = open(repository, new OwnExecutor(async (chunk, signal) => {
      if (chunk < 2) return;
      await Promise.race([gate.promise, new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new DOMException('stop', 'AbortError'))))]);
    })); // prettier-ignore
    const id = await first.submitJob(specOf(4));
    let reported = 0;
    await new Promise<void>((resolve) => first.on('chunk.completed', () => (reported += 1) === 2 && resolve()));
    await first.pauseJob(id);
    await first.close();
    const executor = new OwnExecutor();
    const second = open(repository, executor);
    expect(await second.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 2, progress: 50 });
    await second.resumeJob(id, { strict: true });
    expect(await second.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 4 });
    expect(executor.ran).toEqual([2, 3]);
  });

  it('a control call resolves only when the repository has what it came to, wherever the job is on its way', async () => {
    const repository = await create().open();
    const manager = open(repository, new OwnExecutor((_, signal) => whenAborted(signal)));
    for (let round = 0; round < 40; round += 1) {
      const started = nextEvent(manager, 'job.started', `begun-${round}`);
      await manager.submitJob(specOf(1), { id: `fresh-${round}` });
      if (round % 4 === 0) await turn();
      await manager.pauseJob(`fresh-${round}`);
      expect(await manager.getJob(`fresh-${round}`)).toMatchObject({ state: 'paused' });
      await manager.submitJob(specOf(1), { id: `begun-${round}` });
      await started;
      await manager.cancelJob(`begun-${round}`);
      expect(await manager.getJob(`begun-${round}`)).toMatchObject({ state: 'cancelled' });
    }
  });

  it('[F105] a failure is not kept as a result: a resume and a submit run again', async () => {
    const repository = await create().open();
    let broken = true;
    const executor = new OwnExecutor(async (chunk) => {
      if (broken && chunk === 1) throw new Error('the renderer broke');
    });
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(3), { id: 'a' });
    const failed = await manager.waitForJob(id);
    expect(failed).toMatchObject({ state: 'failed', failure: { code: 'CHUNK_FAILED' } });
    expect(failed.result).toBeUndefined();
    broken = false;
    const again = await manager.submitJob(specOf(3));
    expect(await manager.waitForJob(again)).toMatchObject({ state: 'completed', completedChunks: 3 });
    await manager.resumeJob(id);
    const ended = await manager.waitForJob(id);
    expect(ended).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect([ended.error, ended.failure]).toEqual([undefined, undefined]);
    await manager.deleteJob(id);
    await manager.submitJob(specOf(3), { id: 'a' });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(executor.calls).toHaveLength(4);
  });
});

/** Without what no two runs have in common. */
function comparable(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (name, entry: unknown) => {
      // In memory there are no leases.
      if (name === 'leaseRenewedAt') return undefined;
      // What the owner knows from one moment to the next, where it has been asked.
      if (name === 'fps' || name === 'eta') return undefined;
      if (/At$|Ms$/.test(name)) return typeof entry;
      if (name === 'owner' || name === 'record' || name === 'worker') return entry === undefined ? undefined : 'any';
      return entry;
    }),
  );
}

/** The statuses of jobs with the same history, field by field. */
async function histories(repository: JobRepository): Promise<Record<string, unknown>> {
  const gate = deferred();
  const manager = open(repository, new OwnExecutor(async (chunk, signal) => {
    if (chunk === 7) throw Object.assign(new Error('the renderer broke'), { code: 'EBROKEN' });
    if (chunk !== 1) return;
    await Promise.race([gate.promise, new Promise((_, reject) => signal?.addEventListener('abort', () => reject(new DOMException('stop', 'AbortError'))))]);
  })); // prettier-ignore
  const seen: Record<string, unknown> = {};
  const look = async (name: string, id: string): Promise<void> => {
    // Reads go on when the manager is closed.
    seen[name] = comparable(await manager.getJob(id));
    seen[`${name}, its chunks`] = comparable(await manager.chunks(id));
    seen[`${name}, listed`] = comparable((await manager.listJobs()).find((job) => job.id === id));
  };
  const oneDone = async (id: string): Promise<void> => {
    await new Promise<void>((resolve) => manager.on('chunk.completed', (event) => event.jobId === id && resolve()));
  };
  const options = { meta: { mine: [1] }, concurrency: 1, retries: 2, timeouts: { chunkMs: 60_000 }, env: { A: '1' }, type: undefined };
  await Promise.all([manager.submitJob({ ...specOf(3), custom: 1 }, { id: 'completed', ...options }), oneDone('completed')]);
  await look('running', 'completed');
  await Promise.all([manager.submitJob(specOf(3), { id: 'paused' }), oneDone('paused')]);
  await manager.pauseJob('paused');
  await look('paused', 'paused');
  await Promise.all([manager.submitJob(specOf(3), { id: 'cancelled' }), oneDone('cancelled')]);
  await manager.cancelJob('cancelled', { reason: 'no more money' });
  await look('cancelled', 'cancelled');
  gate.resolve();
  await manager.waitForJob('completed');
  await look('completed', 'completed');
  await manager.resumeJob('paused');
  await manager.waitForJob('paused');
  await look('resumed', 'paused');
  await manager.submitJob({ id: 'r', chunks: [{ id: 7, command: 'x', outputFile: 'o' }] }, { id: 'failed' });
  await manager.waitForJob('failed');
  await look('failed', 'failed');
  await manager.submitJob({ chunks: [] }, { id: 'empty' });
  await manager.waitForJob('empty');
  await look('empty', 'empty');
  await manager.close();
  // Nobody runs it.
  const other = open(repository);
  await other.submitJob({ plan: { totalFrames: 95, chunkSize: 10, outputFile: '{chunkId}.mp4', command: 'x' } }, { id: 'planned' });
  await other.pauseJob('planned');
  await look('planned', 'planned');
  return seen;
}

describe.each(durables)('the status of a job in $kind', ({ create }) => {
  it('[F98] is that of a job in memory with the same history, field by field', async () => {
    const expected = await histories(await stores[0]!.create().open());
    const found = await histories(await create().open());
    for (const name of Object.keys(expected)) expect({ [name]: found[name] }).toEqual({ [name]: expected[name] });
  });
});

describe.each(durables)('statuses that are no jobs, in $kind', ({ create }) => {
  it('are refused with their path, and nothing is kept', async () => {
    const repository = await create().open();
    const wrong: [unknown, string | undefined][] = [
      [null, undefined],
      [[], undefined],
      [statusOf('../a'), 'id'],
      [statusOf(''), 'id'],
      [statusOf('.a'), 'id'],
      [statusOf('x'.repeat(129)), 'id'],
      [statusOf('a', { spec: undefined }), 'spec'],
      [{ ...statusOf('a'), state: 'odd' }, 'state'],
      [statusOf('a', { progress: 101 }), 'progress'],
      [statusOf('a', { completedChunks: 0.5 }), 'completedChunks'],
      [statusOf('a', { version: -1 }), undefined],
      [{ ...statusOf('a'), record: 5 }, 'record'],
    ];
    for (const [status, path] of wrong) {
      const error = await rejection(repository.save(status as JobStatusInput));
      expect(error.code).toBe('VALIDATION');
      if (path !== undefined) expect(error.issues?.[0]?.path).toBe(path);
    }
    for (const id of [undefined, null, 5, {}]) {
      expect((await rejection(repository.get(id as string))).code).toBe('VALIDATION');
      expect((await rejection(repository.delete(id as string))).code).toBe('VALIDATION');
    }
    expect(await repository.list()).toEqual([]);
  });

  it('are not taken by a repository that nobody opened', async () => {
    await expect(() => new (SqliteJobRepository as unknown as new () => SqliteJobRepository)().list()).rejects.toThrow(/open/);
  });
});
