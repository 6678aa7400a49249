/** Repositories of the user's that refuse stale versions: what others put there stays. */
import { JobExecutor, type JobStatus } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { open } from './support/managers.js';
import { whenAborted } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';
import { traceOf, typesOf } from './support/trace.js';
import { until } from './support/turns.js';
import { VersionedRepository } from './support/versioned-repository.js';

/** An executor whose first chunk waits to be let go, once. */
function gated() {
  const [begun, gate] = [deferred(), deferred()];
  const ran: number[] = [];
  const executor = JobExecutor.fromFunction(async (chunk, { signal }) => {
    ran.push(chunk.id);
    begun.resolve();
    await Promise.race([gate.promise, whenAborted(signal)]);
  });
  return { executor, ran, begun: begun.promise, go: () => gate.resolve() };
}

/** What another writer does: reads, changes, writes, until nobody was faster. */
async function change(repository: VersionedRepository, id: string, fields: Partial<JobStatus> & Record<string, unknown>): Promise<void> {
  for (;;) {
    const seen = (await repository.get(id))!;
    try {
      await repository.save({ ...seen, ...fields });
      return;
    } catch (error) {
      expect((error as { code: string }).code).toBe('CONFLICT');
    }
  }
}

describe.each([true, false])('a repository of the user\'s that refuses stale versions; it keeps the record: %s', (keepsRecord) => {
  it('[F30] a job that somebody deletes there is stopped and does not come back', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const stopped = deferred();
    const report = deferred<() => void>();
    const manager = open(
      repository,
      JobExecutor.fromFunction(async (chunk, { signal }) => {
        if (chunk.id === 0) return new Promise<void>((resolve) => report.resolve(resolve));
        await whenAborted(signal).catch(() => undefined);
        stopped.resolve();
        // Deaf until it is given up: meanwhile the save that was refused is tried again.
        return new Promise(() => undefined);
      }),
      { abortGraceMs: 200 },
    );
    const id = await manager.submitJob(specOf(2), { concurrency: 2 });
    const finish = await report.promise;
    await until(async () => (await repository.get(id))?.chunksByState?.running === 2);
    await repository.delete(id);
    finish();
    await stopped.promise;
    expect((await rejection(manager.waitForJob(id))).code).toBe('NOT_FOUND');
    await manager.close();
    expect(await repository.list()).toEqual([]);
  });

  it('[F146] what somebody adds to a job at work stays, and the job ends as it would', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, begun, go } = gated();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(3), { meta: { shot: 1 } });
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    await change(repository, id, { note: 'look at this', tags: ['theirs'], meta: { shot: 2 } });
    const before = repository.conflicts;
    go();
    const end = await manager.waitForJob(id);
    expect(end).toMatchObject({ state: 'completed', completedChunks: 3, progress: 100, note: 'look at this', tags: ['theirs'], meta: { shot: 2 } });
    expect(repository.records.get(id)).toMatchObject({ state: 'completed', note: 'look at this', tags: ['theirs'], meta: { shot: 2 } });
    expect(repository.conflicts).toBeGreaterThan(before);
    expect(end.finishedAt).toBeGreaterThanOrEqual(end.startedAt!);
  });

  it('[F146] what somebody adds as the job ends stays, and so does its end', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, begun, go } = gated();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(1));
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    // The end is on its way when the other writer is faster.
    const { save } = repository;
    repository.save = async (job) => {
      if (job.state === 'completed') {
        repository.save = save;
        await change(repository, id, { note: 'faster' });
      }
      await save.call(repository, job);
    };
    go();
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', note: 'faster', completedChunks: 1 });
    const kept = repository.records.get(id)!;
    expect(kept).toMatchObject({ state: 'completed', note: 'faster', completedChunks: 1 });
    expect(kept.finishedAt).toEqual(expect.any(Number));
  });

  it('[F28] a job that somebody cancels there is stopped', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, ran, begun } = gated();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(3), { onChunkComplete: () => undefined });
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    await change(repository, id, { state: 'cancelled' });
    // The manager learns of it when it has something to save.
    await manager.pauseJob(id).catch(() => undefined);
    expect((await manager.waitForJob(id)).state).toBe('cancelled');
    expect(repository.records.get(id)?.state).toBe('cancelled');
    expect(ran).toEqual([0]);
  });

  it('[F149] a save that was kept though its answer was lost is not taken for one of somebody else', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, ran, begun, go } = gated();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(2));
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    repository.kept = (job) => {
      if (job.state === 'paused') throw new Error('the answer was lost');
    };
    const { save } = repository;
    let away = false;
    repository.save = async (job) => {
      if (away) throw new Error('away');
      away = job.state === 'paused';
      await save.call(repository, job);
    };
    expect((await rejection(manager.pauseJob(id))).code).toBe('STORE_UNAVAILABLE');
    expect(repository.records.get(id)?.state).toBe('paused');
    // Taken, though what it has become can't be written down yet.
    const resumed = rejection(manager.resumeJob(id));
    await until(() => ran.length === 2);
    repository.save = save;
    expect((await resumed).code).toBe('STORE_UNAVAILABLE');
    go();
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2 });
    expect(repository.records.get(id)?.state).toBe('completed');
  });

  it('[F28] what somebody adds to a paused job while it is resumed stays, and the resume counts', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, begun, go } = gated();
    const manager = open(repository, executor);
    const id = await manager.submitJob(specOf(2));
    await begun;
    await manager.pauseJob(id);
    const { save } = repository;
    repository.save = async (job) => {
      repository.save = save;
      await change(repository, id, { note: 'between' });
      await save.call(repository, job);
    };
    go();
    await manager.resumeJob(id);
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2, note: 'between' });
  });

  it('[F28] a job that was completed here stays so, whatever somebody has made of it meanwhile', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, begun, go } = gated();
    const manager = open(repository, executor);
    const events = traceOf(manager);
    const id = await manager.submitJob(specOf(1));
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    const { save } = repository;
    repository.save = async (job) => {
      if (job.state === 'completed') {
        repository.save = save;
        await change(repository, id, { state: 'cancelled', note: 'too late' });
      }
      await save.call(repository, job);
    };
    go();
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', note: 'too late' });
    expect(repository.records.get(id)).toMatchObject({ state: 'completed', note: 'too late' });
    expect(typesOf(events, id)).toContain('job.completed');
  });

  it('[F146] what somebody has saved and nobody can read is told before it is written over', async () => {
    const repository = new VersionedRepository(keepsRecord);
    const { executor, begun, go } = gated();
    const manager = open(repository, executor);
    const events = traceOf(manager);
    const id = await manager.submitJob(specOf(1));
    await begun;
    await until(() => repository.records.get(id)?.state === 'running');
    await change(repository, id, { priority: 7 as unknown as 'high' });
    go();
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', priority: 'medium' });
    expect(events.flatMap((event) => (event.type === 'job.warning' ? [event.message] : [])).join()).toContain('could not be read, and is written over');
  });
});
