/** One store, several processes and managers: each event once, each job in one state, whoever asks. */
import { JobExecutor, LocalWorkerAdapter, type JobEvent, type JobManager } from 'framewright';
import { describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { OwnExecutor } from './support/own-executor.js';
import { Peer } from './support/peer.js';
import { rejection } from './support/rejection.js';
import { durables, shared } from './support/repositories.js';
import { shellJob } from './support/shell.js';
import { specOf } from './support/specs.js';
import { nextEvent } from './support/trace.js';

/** An executor whose chunks end when the test says so (`kept.go()`), or when they are told to stop. */
const GATED = `{ execute: (spec, { signal }) => new Promise((resolve, reject) => {
  kept.go = resolve;
  kept.stops = () => signal.aborted;
  signal.addEventListener('abort', () => reject(Object.assign(new Error('stopped'), { name: 'AbortError' })));
}) }`;

const submitStarted = `
  const started = new Promise((resolve) => kept.manager.once('job.started', resolve));
  await kept.manager.submitJob(given.spec, { id: given.id });
  await started;
`;

/** Events up to one that a test waits for, that one included. */
async function eventsUntil(manager: JobManager, last: (event: JobEvent) => boolean, fromSequence = 0): Promise<JobEvent[]> {
  const found: JobEvent[] = [];
  for await (const event of manager.events({ fromSequence, signal: AbortSignal.timeout(15_000) })) {
    found.push(event);
    if (last(event)) return found;
  }
  throw new Error(`the last event did not come; there were ${found.map((event) => `${event.sequence} ${event.type}`).join(', ')}`);
}

/** Events that are numbered: progress carries the number of another one. */
const numbered = (events: JobEvent[]): JobEvent[] => events.filter((event) => !event.type.endsWith('progress'));

const upTo = (end: number): number[] => Array.from({ length: end }, (_, n) => n + 1);

describe.each(shared)('two processes on $kind', ({ create }) => {
  it('[F18] that submit one id at once make one job: the other is refused with DUPLICATE', async () => {
    const store = create();
    const manager = open(await store.open());
    const peer = await Peer.start();
    await peer.open(store.url);
    const ids = Array.from({ length: 30 }, (_, n) => `job-${n}`);
    const submit = (call: Promise<string>): Promise<string> => call.then(() => 'taken', (error: unknown) => (error as { code: string }).code);
    const [here, there] = await Promise.all([
      Promise.all(ids.map((id) => submit(manager.submitJob(specOf(1), { id, meta: { by: 'here' } })))),
      peer.run<string[]>(
        `return Promise.all(given.ids.map((id) => kept.manager.submitJob(given.spec, { id, meta: { by: 'there' } }).then(() => 'taken', (error) => error.code)))`,
        { ids, spec: specOf(1) },
      ),
    ]);
    for (const [n, id] of ids.entries()) {
      expect([here[n], there[n]].sort()).toEqual(['DUPLICATE', 'taken']);
      expect(await manager.getJob(id)).toMatchObject({ meta: { by: here[n] === 'taken' ? 'here' : 'there' } });
    }
    expect(await manager.listJobs()).toHaveLength(ids.length);
  });

  it('[F157] see at once what the other does: waiting, pausing, resuming, cancelling and deleting across them', { retry: 2, timeout: 40_000 }, async () => {
    const store = create();
    const manager = open(await store.open());
    const peer = await Peer.start();
    await peer.open(store.url, GATED);
    const spec = specOf(2);

    // Waiting. The store is asked again without news after two seconds: half of that is no polling.
    const late: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const id = `waited-${round}`;
      await peer.run(submitStarted, { spec, id });
      expect(await manager.getJob(id)).toMatchObject({ state: 'running' });
      const waited = manager.waitForJob(id);
      const heard = waited.then(() => performance.now());
      await peer.run(`kept.go(); await kept.manager.waitForJob(given)`, id);
      const ended = performance.now();
      late.push((await heard) - ended);
      expect(await waited).toMatchObject({ id, state: 'completed' });
    }
    expect(Math.min(...late)).toBeLessThan(1000);

    await peer.run(submitStarted, { spec, id: 'paused' });
    await manager.pauseJob('paused');
    expect(await peer.run(`return [kept.stops(), (await kept.manager.getJob('paused')).state]`)).toEqual([true, 'paused']);
    await manager.cancelJob('paused');
    expect(await peer.run(`return (await kept.manager.getJob('paused')).state`)).toBe('cancelled');

    await peer.run(submitStarted, { spec, id: 'cancelled' });
    await manager.cancelJob('cancelled', { reason: 'no more money' });
    expect(await peer.run(`return [kept.stops(), (await kept.manager.getJob('cancelled')).state]`)).toEqual([true, 'cancelled']);
    expect((await rejection(manager.pauseJob('cancelled', { strict: true }))).code).toBe('INVALID_TRANSITION');

    await peer.run(submitStarted, { spec, id: 'deleted' });
    await manager.deleteJob('deleted');
    expect(await peer.run(`return [kept.stops(), (await kept.manager.getJob('deleted')) ?? null]`)).toEqual([true, null]);
  });

  it('[F156] a manager without an executor submits and resumes; the process that has one does the work', async () => {
    const store = create();
    const manager = open(await store.open());
    const peer = await Peer.start();
    await peer.open(store.url, `{ execute: async (spec, options) => { (kept.ran ??= []).push(spec.id); } }`);
    await manager.submitJob(specOf(1, { id: 'first' }), { id: 'a' });
    await manager.pauseJob('a');
    await manager.submitJob(specOf(1, { id: 'second' }), { id: 'b' });
    await manager.submitJob(specOf(1, { id: 'other' }), { id: 'typed', type: 'special' });
    expect(await manager.recoverJobs()).toEqual([]);
    expect(await manager.getJob('b')).toMatchObject({ state: 'pending' });
    await peer.run(`kept.over = new AbortController(); kept.running = kept.manager.run({ signal: kept.over.signal }); kept.running.catch(() => {});`);
    expect(await manager.waitForJob('b')).toMatchObject({ state: 'completed' });
    await manager.resumeJob('a');
    expect(await manager.waitForJob('a')).toMatchObject({ state: 'completed' });
    // Nobody here runs its type.
    expect(await manager.getJob('typed')).toMatchObject({ state: 'pending', type: 'special' });
    const special = await Peer.start();
    await special.open(store.url, `{ execute: async (spec) => { (kept.ran ??= []).push(spec.id); } }`, `{ types: ['special'] }`);
    await special.run(`kept.running = kept.manager.run(); kept.running.catch(() => {});`);
    expect(await manager.waitForJob('typed')).toMatchObject({ state: 'completed' });
    expect(await special.run(`return kept.ran`)).toEqual(['other']);
    expect(await peer.run(`return kept.ran`)).toEqual(['second', 'first']);
  }, 40_000);

  it('[F126] the events of both are numbered in one sequence, without a gap, and both read the same', async () => {
    const store = create();
    const manager = open(await store.open(), new OwnExecutor());
    const peer = await Peer.start();
    await peer.open(store.url, `{ execute: async () => {} }`);
    const count = 10;
    const all = eventsUntil(manager, (event) => event.jobId === 'last' && event.type === 'job.completed');
    await Promise.all([
      ...Array.from({ length: count }, async (_, n) => manager.waitForJob(await manager.submitJob(specOf(2), { id: `here-${n}` }))),
      peer.run(
        `await Promise.all(Array.from({ length: ${count} }, async (_, n) => kept.manager.waitForJob(await kept.manager.submitJob(given, { id: 'there-' + n }))))`,
        specOf(2),
      ),
    ]);
    await peer.run(`await kept.manager.waitForJob(await kept.manager.submitJob(given, { id: 'last' }))`, specOf(1));
    const read = numbered(await all);
    expect(read.map((event) => event.sequence)).toEqual(upTo(read.length));
    const ended = read.filter((event) => event.type === 'job.completed').map((event) => event.jobId);
    expect(ended.sort()).toEqual([...Array.from({ length: count }, (_, n) => [`here-${n}`, `there-${n}`]).flat(), 'last'].sort());
    const again = numbered(await eventsUntil(open(await store.open()), (event) => event.sequence === read.length));
    expect(again).toEqual(read);
    const there = await peer.run<JobEvent[]>(
      `const found = [];
       for await (const event of kept.manager.events({ fromSequence: 5 })) { found.push(event); if (event.sequence === given) return found; }`,
      read.length,
    );
    expect(numbered(there)).toEqual(read.slice(4));
  }, 40_000);
});

describe.each(durables)('a store of $kind', ({ create }) => {
  it('[F126] tells its events again after it was opened again, from any number, by another process too', async () => {
    const store = create();
    const repository = await store.open();
    const first = open(repository, new OwnExecutor());
    const live: JobEvent[] = [];
    first.on('event', (event: JobEvent) => live.push(event));
    for (const id of ['a', 'b', 'c']) await first.waitForJob(await first.submitJob(specOf(2), { id }));
    const kept = numbered(live);
    await first.close();
    await repository.close();
    expect(kept.map((event) => event.sequence)).toEqual(upTo(kept.length));

    const peer = await Peer.start();
    await peer.open(store.url);
    const there = await peer.run<JobEvent[]>(
      `const found = [];
       for await (const event of kept.manager.events({ fromSequence: 0 })) { found.push(event); if (event.sequence === given) return found; }`,
      kept.length,
    );
    expect(there).toEqual(kept);
    await peer.run(`await kept.manager.close(); await kept.repository.close();`);

    const second = open(await store.open(), new OwnExecutor());
    for (const from of [0, 1, 7, kept.length]) {
      expect(await eventsUntil(second, (event) => event.sequence === kept.length, from)).toEqual(kept.slice(Math.max(0, from - 1)));
    }
    // From a number that is to come: what happens then.
    const next = eventsUntil(second, (event) => event.type === 'job.completed', kept.length + 1);
    await second.waitForJob(await second.submitJob(specOf(1), { id: 'd' }));
    expect(numbered(await next).map((event) => event.sequence)).toEqual(upTo(numbered(await next).length).map((n) => n + kept.length));
  }, 40_000);

  it('[F126] loses no event and tells none twice while the event loop is blocked', async () => {
    const folder = new Folder();
    const manager = open(await create().open(), new JobExecutor(new LocalWorkerAdapter()));
    const heard: JobEvent[] = [];
    manager.on('event', (event: JobEvent) => heard.push(event));
    const all = eventsUntil(manager, (event) => event.type === 'job.completed');
    const started = nextEvent(manager, 'chunk.completed');
    const id = await manager.submitJob(shellJob(40, 'echo $1'), { jobDir: folder.path, concurrency: 4 });
    await started;
    // Blocked until the chunks of the job have run, which takes no event loop.
    for (const end = performance.now() + 1500; performance.now() < end; );
    await manager.waitForJob(id);
    const read = numbered(await all);
    expect(read.map((event) => event.sequence)).toEqual(upTo(read.length));
    const done = read.filter((event) => event.type === 'chunk.completed').map((event) => event.chunkId);
    expect(done.sort((a, b) => a - b)).toEqual(Array.from({ length: 40 }, (_, n) => n));
    expect(numbered(heard)).toEqual(read);
  }, 40_000);

  it('[F98] has everything after it was opened again, in this process and in another', async () => {
    const folder = new Folder();
    const store = create();
    const repository = await store.open();
    const first = open(repository, new JobExecutor(new LocalWorkerAdapter()));
    await first.waitForJob(await first.submitJob({ ...shellJob(3, 'echo "said $1"'), custom: { deep: ['ü'] } }, { id: 'done', jobDir: folder.path, meta: { mine: 1 } }));
    await first.waitForJob(await first.submitJob(shellJob(2, 'echo no >&2; exit 3'), { id: 'failed', jobDir: folder.path }));
    await first.submitJob(specOf(1), { id: 'gone' });
    await first.deleteJob('gone');
    const reading = async (manager: JobManager): Promise<unknown[]> => [
      await manager.listJobs(),
      await manager.getJob('done'),
      await manager.getJob('failed'),
      await manager.chunks('done'),
      await manager.chunks('failed'),
      await manager.readLog('done', { chunkId: 2 }),
      await manager.readLog('failed', { chunkId: 0, stream: 'stderr' }),
    ];
    const before = await reading(first);
    expect(before).toMatchObject([[{ id: 'done' }, { id: 'failed' }], { state: 'completed', spec: { custom: { deep: ['ü'] } } }, { state: 'failed' }, {}, {}, 'said 2\n', 'no\n']);
    await first.close();
    await repository.close();
    const peer = await Peer.start();
    await peer.open(store.url);
    const there = await peer.run(`const { manager } = kept;
      const found = [await manager.listJobs(), await manager.getJob('done'), await manager.getJob('failed'), await manager.chunks('done'), await manager.chunks('failed'),
        await manager.readLog('done', { chunkId: 2 }), await manager.readLog('failed', { chunkId: 0, stream: 'stderr' })];
      await manager.close();
      await kept.repository.close();
      return found;`);
    const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
    expect(plain(there)).toEqual(plain(before));
    expect(plain(await reading(open(await store.open())))).toEqual(plain(before));
  }, 40_000);
});
