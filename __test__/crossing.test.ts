/** Calls that meet: a delete and the start of its job, a close and what is still on its way, managers on one store. */
import { getEventListeners } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { InMemoryJobRepository, JobExecutor, type JobEvent, type VideoStitcher } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { durables } from './support/repositories.js';
import { turn } from './support/turns.js';
import { nextEvent, traceOf } from './support/trace.js';

const one = { chunks: [{ id: 0, command: 'true' }] };
const nothing = (): JobExecutor => JobExecutor.fromFunction(async () => undefined);

describe.each(durables)('jobs in $kind', ({ create }) => {
  it('[F30] that are deleted as they start free their slots', async () => {
    const manager = open(await create().open(), nothing(), { maxConcurrentJobs: 1 });
    for (let n = 0; n < 60; n += 1) {
      const id = await manager.submitJob(one);
      for (let turns = n % 4; turns > 0; turns -= 1) await turn();
      await manager.deleteJob(id);
      expect(await manager.getJob(id)).toBeUndefined();
    }
    expect(await manager.waitForJob(await manager.submitJob(one))).toMatchObject({ state: 'completed' });
  });

  it('[F117] that were cancelled while they waited take no slot of a worker', async () => {
    const store = create();
    const gate = deferred();
    const repository = await store.open();
    const worker = open(repository, JobExecutor.fromFunction(() => gate.promise.then(() => undefined)), { maxConcurrentJobs: 1 });
    const client = open(repository);
    const running = worker.run();
    await worker.submitJob(one, { id: 'runs' });
    await worker.submitJob(one, { id: 'waits' });
    await worker.cancelJob('waits');
    gate.resolve();
    await worker.waitForJob('runs');
    await client.submitJob(one, { id: 'next' });
    expect(await client.waitForJob('next')).toMatchObject({ state: 'completed' });
    await worker.close();
    await running;
  });

  it('[F126] lose no event to a warning about one that is at rest', async () => {
    const manager = open(await create().open(), nothing());
    const heard = traceOf(manager);
    const warned = nextEvent(manager, 'job.warning');
    manager.once('job.completed', () => {
      throw new Error('no listener is perfect');
    });
    const iterated: JobEvent[] = [];
    const reading = (async () => {
      for await (const event of manager.events({ fromSequence: 0 })) iterated.push(event);
    })();
    await manager.waitForJob(await manager.submitJob(one, { id: 'a' }));
    expect((await warned).message).toContain('no listener is perfect');
    const over = nextEvent(manager, 'job.completed', 'b');
    await manager.waitForJob(await manager.submitJob(one, { id: 'b' }));
    await over;
    await manager.close();
    await reading;
    const life = ['job.submitted', 'job.started', 'chunk.started', 'chunk.completed', 'job.completed'];
    for (const events of [heard, iterated]) {
      for (const id of ['a', 'b']) expect(events.filter((event) => event.jobId === id && life.includes(event.type)).map((event) => event.type)).toEqual(life);
    }
  });

  it('[F30] [F106] a delete under way when the manager closes is done, or says that it is not', async () => {
    const store = create();
    for (const turns of [0, 1, 5, 20]) {
      const repository = await store.open();
      const started = deferred();
      const executor = JobExecutor.fromFunction(async (_, { signal }) => {
        started.resolve();
        await new Promise((_resolve, reject) => signal.addEventListener('abort', () => setTimeout(reject, 10, signal.reason as Error)));
      });
      const manager = open(repository, executor);
      const id = await manager.submitJob(one);
      await started.promise;
      const deleted = manager.deleteJob(id).then(() => 'deleted', (error: unknown) => (error as { code: string }).code);
      for (let n = 0; n < turns; n += 1) await turn();
      await manager.close();
      const told = await deleted;
      expect(['deleted', 'CLOSED']).toContain(told);
      expect((await manager.getJob(id)) === undefined).toBe(told === 'deleted');
      await repository.close();
    }
  });

  it('[F106] that were being taken when the manager closed are gone on with by the next one, or refused', async () => {
    const store = create();
    const repository = await store.open();
    const first = open(repository, nothing());
    const submitted = Array.from({ length: 50 }, (_, n) => first.submitJob(one, { id: `job-${n}` }).then((id) => id, () => undefined));
    await first.close();
    const taken = (await Promise.all(submitted)).filter((id) => id !== undefined);
    expect(taken).not.toEqual([]);
    const next = open(repository, nothing());
    for (const id of taken) expect(await next.waitForJob(id)).toMatchObject({ state: 'completed' });
  });

  it('[F82] add one listener to a signal, however many there are and wherever they run', async () => {
    const repository = await create().open();
    const client = open(repository);
    const worker = open(repository, nothing());
    const controller = new AbortController();
    const { signal } = controller;
    const ids = await Promise.all(Array.from({ length: 30 }, () => client.submitJob(one, { signal })));
    expect(getEventListeners(signal, 'abort')).toHaveLength(1);
    const last = nextEvent(client, 'job.cancelled', ids.at(-1));
    controller.abort();
    await last;
    await Promise.all(ids.map(async (id) => expect(await client.waitForJob(id)).toMatchObject({ state: 'cancelled' })));
    expect(getEventListeners(signal, 'abort')).toEqual([]);
    await worker.close();
  });
});

it('a job in memory that waits for what only resumeJob can bring goes on with it', async () => {
  const folder = new Folder();
  const repository = new InMemoryJobRepository();
  const started = deferred();
  const first = open(repository, JobExecutor.fromFunction(async (_, { signal }) => {
    started.resolve();
    await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)));
  })); // prettier-ignore
  const stitcher: VideoStitcher = { stitch: async (_, outputFile) => writeFileSync(outputFile, 'stitched') };
  const outputFile = folder.file('merged');
  const spec = { chunks: [{ id: 0, startFrame: 0, frameCount: 1, outputFile: folder.file('part') }] };
  const id = await first.submitJob(spec, { stitcher, outputFile, verifyOutput: 'none' });
  await started.promise;
  await first.close();
  const next = open(repository, nothing());
  expect(await next.recoverJobs()).toEqual([id]);
  expect(await next.getJob(id)).toMatchObject({ state: 'pending', waitingFor: 'executor' });
  await next.resumeJob(id, { stitcher, strict: true });
  expect(await next.waitForJob(id)).toMatchObject({ state: 'completed' });
  expect(existsSync(outputFile)).toBe(true);
});
