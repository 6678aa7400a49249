import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { QUIET, script } from './support/script.js';

const flags = ['--expose-gc'];

const FORGOTTEN = `
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  let collected = 0;
  const registry = new FinalizationRegistry(() => (collected += 1));
  const refs = [];
  /** Collects garbage until so many of the watched objects are gone, or for some seconds. */
  const settle = async (count) => {
    const end = performance.now() + 5000;
    while (collected < count && performance.now() < end) {
      gc();
      await turn();
    }
    return JSON.stringify({ collected, held: refs.filter((ref) => ref.deref()).length });
  };
  const watch = (object) => {
    registry.register(object);
    refs.push(new WeakRef(object));
  };
`;

describe('what is forgotten is collected', () => {
  it('[F150] managers with listeners and unread events(), each with its own repository', async () => {
    const ended = await script(`${FORGOTTEN}
      for (let n = 0; n < 200; n += 1) {
        const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
        manager.on('event', () => manager).once('job.completed', () => manager);
        manager.events({ fromSequence: 0 });
        watch(manager);
      }
      console.log(await settle(200));
    `, { flags });
    expect(ended).toMatchObject(QUIET);
    expect(JSON.parse(ended.stdout)).toEqual({ collected: 200, held: 0 });
  });

  it('[F150] managers that have run their jobs, on one repository that stays', async () => {
    const ended = await script(`${FORGOTTEN}
      const repository = new InMemoryJobRepository();
      const live = async () => {
        const manager = new JobManager(repository, JobExecutor.fromFunction(async () => {}));
        manager.on('event', () => manager);
        for await (const event of manager.events({ fromSequence: 0 })) if (event) break;
        const id = await manager.submitJob({ chunks: [{ id: 0 }] });
        await manager.waitForJob(id);
        watch(manager);
      };
      await new JobManager(repository, { execute: async () => {} }).submitJob({ chunks: [] }, { id: 'first' });
      for (let n = 0; n < 200; n += 1) await live();
      const seen = await settle(200);
      console.log(seen);
      console.log((await repository.list()).length);
    `, { flags });
    expect(ended).toMatchObject(QUIET);
    expect(JSON.parse(ended.lines[0]!)).toEqual({ collected: 200, held: 0 });
    expect(ended.lines[1]).toBe('201');
  });

  it('[F150] closed managers, whatever they did', async () => {
    const ended = await script(`${FORGOTTEN}
      const live = async () => {
        const manager = new JobManager(new InMemoryJobRepository(), {
          execute: (spec, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        });
        manager.on('event', () => manager);
        const begun = new Promise((resolve) => manager.once('job.started', resolve));
        await manager.submitJob({ chunks: [{ id: 0, command: 'x' }] });
        await begun;
        await manager.close();
        watch(manager);
      };
      await Promise.all(Array.from({ length: 200 }, live));
      console.log(await settle(200));
    `, { flags });
    expect(ended).toMatchObject(QUIET);
    expect(JSON.parse(ended.stdout)).toEqual({ collected: 200, held: 0 });
  });

  // What a forgotten manager still has to do: nothing in the program refers to it any more, and garbage is collected meanwhile.
  it.each([
    ['its job runs in an executor', `
      const manager = new JobManager(repository, { execute: () => gate });
      manager.on('job.completed', done);
      manager.submitJob({ chunks: [{ id: 0, command: 'x' }] });
      watch(manager);
    `],
    ['its chunk functions run', `
      const manager = new JobManager(repository, JobExecutor.fromFunction(() => gate));
      manager.on('job.completed', done);
      manager.submitJob({ chunks: [{ id: 0 }, { id: 1 }] });
      watch(manager);
    `],
    ['its processes run', `
      const manager = new JobManager(repository, new JobExecutor(new LocalWorkerAdapter()));
      manager.on('job.completed', done);
      manager.submitJob({ chunks: [{ id: 0, argv: ['sh', '-c', 'while [ ! -e "$0" ]; do sleep 0.01; done', file] }, { id: 1, command: 'true' }] });
      watch(manager);
    `],
    ['somebody waits for its job', `
      const manager = new JobManager(repository, { execute: () => gate });
      manager.submitJob({ chunks: [{ id: 0, command: 'x' }] }).then((id) => manager.waitForJob(id)).then(done);
      watch(manager);
    `],
    ['somebody waits for a job of its processes', `
      const manager = new JobManager(repository, new JobExecutor(new LocalWorkerAdapter()));
      manager.submitJob({ chunks: [{ id: 0, argv: ['sh', '-c', 'while [ ! -e "$0" ]; do sleep 0.01; done', file] }] })
        .then((id) => manager.waitForJob(id)).then(done);
      watch(manager);
    `],
    ['somebody waits for a job that another manager holds', `
      const manager = new JobManager(repository);
      manager.waitForJob('held').then(done);
      watch(manager);
    `],
    ['its events() are read', `
      const manager = new JobManager(repository);
      first(manager.events({ types: ['job.cancelled'] })).then(done);
      watch(manager);
    `],
  ])('[F150] a manager forgotten while %s does that, and is collected then', async (_, forgotten) => {
    const folder = await mkdtemp(join(tmpdir(), 'framewright-memory-'));
    try {
      const ended = await script(`${FORGOTTEN}
        import { writeFileSync } from 'node:fs';
        const file = process.argv[1];
        const repository = new InMemoryJobRepository();
        let done;
        const told = new Promise((resolve) => (done = () => resolve('told')));
        let go;
        const gate = new Promise((resolve) => (go = resolve));
        const first = async (events) => { for await (const event of events) return event; };
        const other = new JobManager(repository, { execute: async () => {} });
        await other.pauseJob(await other.submitJob({ chunks: [] }, { id: 'held' }));
        (() => {
          ${forgotten}
        })();
        for (let n = 0; n < 30; n += 1) {
          await turn();
          gc();
        }
        const early = collected;
        go();
        writeFileSync(file, '');
        await other.cancelJob('held');
        console.log(early, await told, await settle(1));
      `, { flags, args: [join(folder, 'go')], limitMs: 10_000 });
      expect(ended).toMatchObject({ ...QUIET, stdout: '0 told {"collected":1,"held":0}\n' });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('[F150] the callbacks and options of jobs that ended or were deleted, though their manager stays', async () => {
    const ended = await script(`${FORGOTTEN}
      const manager = new JobManager(new InMemoryJobRepository(), {
        execute: async (spec, { meta }) => { if (meta.fail) throw new Error('no'); },
      });
      const controller = new AbortController();
      const live = async (n) => {
        const onProgress = () => {};
        watch(onProgress);
        const id = await manager.submitJob({ chunks: [{ id: 0, command: 'x' }] }, { onProgress, signal: controller.signal, meta: { fail: n % 2 === 1 } });
        const { state } = await manager.waitForJob(id);
        if (state === 'failed') await manager.deleteJob(id);
      };
      for (let n = 0; n < 100; n += 1) await live(n);
      console.log(await settle(100));
      await manager.close();
    `, { flags });
    expect(ended).toMatchObject(QUIET);
    expect(JSON.parse(ended.stdout)).toEqual({ collected: 100, held: 0 });
  });
});

describe('a manager that goes on for ever', () => {
  it('[F150] 100,000 jobs through one, each deleted once done, leave memory flat after the warm-up', async () => {
    // The log of events is full, and the allocators have what they need, after the first 26,000. A slow build gets fewer jobs.
    const ended = await script(`
      const repository = new InMemoryJobRepository();
      const manager = new JobManager(repository, { execute: async () => {} });
      let events = 0;
      manager.on('event', () => (events += 1));
      const spec = { metadata: { totalFrames: 10 }, chunks: [{ id: 0, startFrame: 0, frameCount: 10, outputFile: 'a', command: 'x' }] };
      let jobs = 0;
      const live = async () => {
        const id = await manager.submitJob(spec);
        const { state } = await manager.waitForJob(id);
        if (state !== 'completed') throw new Error(state);
        await manager.deleteJob(id);
        jobs += 1;
      };
      const through = async (count, limitMs) => {
        const end = performance.now() + limitMs;
        const before = jobs;
        while (jobs - before < count && (jobs - before < 20_000 || performance.now() < end)) await Promise.all(Array.from({ length: 200 }, live));
      };
      const measure = () => {
        for (let n = 0; n < 3; n += 1) gc();
        const { rss, heapUsed } = process.memoryUsage();
        return { rss, heapUsed, jobs };
      };
      await through(26_000, 60_000);
      const before = measure();
      await through(74_000, 5_000);
      const after = measure();
      console.log(JSON.stringify({ before, after, events, left: (await repository.list()).length }));
    `, { flags, limitMs: 60_000 });
    expect(ended).toMatchObject(QUIET);
    interface Measured { rss: number; heapUsed: number; jobs: number }
    const { before, after, events, left } = JSON.parse(ended.stdout) as { before: Measured; after: Measured; events: number; left: number };
    const jobs = after.jobs - before.jobs;
    expect(jobs).toBeGreaterThanOrEqual(20_000);
    expect(events).toBeGreaterThanOrEqual(after.jobs * 4);
    expect(left).toBe(0);
    // 6 MB is the noise of the allocators; a leak of 300 bytes a job would be more.
    expect((after.rss - before.rss) / 1e6).toBeLessThan(6);
    expect((after.heapUsed - before.heapUsed) / 1e6).toBeLessThan(2);
  }, 60_000);
});
