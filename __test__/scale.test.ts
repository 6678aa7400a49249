import { InMemoryJobRepository, JobExecutor, type JobSpecInput, type WorkerAdapter } from 'framewright';
import { describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { chunkResult, OwnExecutor } from './support/own-executor.js';
import { local } from './support/shell.js';
import { traceOf } from './support/trace.js';
import { turn } from './support/turns.js';

const MB = 1024 * 1024;
const nothing: WorkerAdapter = { execute: async () => chunkResult };

const chunksOf = (count: number): JobSpecInput => ({
  chunks: Array.from({ length: count }, (_, id) => ({ id, startFrame: id, frameCount: 1, outputFile: `${id}.png`, command: 'render {startFrame} {outputFile}' })),
});
const planOf = (count: number): JobSpecInput => ({ plan: { totalFrames: count, chunkCount: count, outputFile: '{chunkId}.png', command: 'render {startFrame} {outputFile}' } });

/**
 * The longest time for which the event loop did nothing else, in milliseconds. Work counts, not waiting for a processor
 * that something else has: else every busy machine would fail.
 */
async function stallDuring(work: () => Promise<unknown>): Promise<number> {
  const state = { done: false };
  await turn();
  let longest = 0;
  let at = performance.now();
  let used = process.cpuUsage();
  const end = work().finally(() => (state.done = true));
  for (;;) {
    await turn();
    const [now, more] = [performance.now(), process.cpuUsage(used)];
    longest = Math.max(longest, Math.min(now - at, (more.user + more.system) / 1000));
    if (state.done) break;
    at = now;
    used = process.cpuUsage();
  }
  await end;
  return longest;
}

async function timed(work: () => unknown): Promise<number> {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
}

/** What is measured can be disturbed by whatever else the machine does: one of three measurements has to hold. */
const measured = { retry: 2 };

describe('many chunks', measured, () => {
  it.each([
    ['an adapter', () => new JobExecutor(nothing)],
    ['a function', () => JobExecutor.fromFunction(async () => undefined)],
  ])('[F45][F145] 20,000 at concurrency 100 by %s leave a record each and never stall the event loop for 250 ms', async (_, create) => {
    const manager = open(new InMemoryJobRepository(), create());
    const spec = chunksOf(20_000);
    let id = '';
    const stall = await stallDuring(async () => {
      id = await manager.submitJob(spec, { concurrency: 100 });
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 20_000, chunksByState: { completed: 20_000, pending: 0, running: 0, failed: 0 } });
    });
    const records = await manager.chunks(id);
    expect(records).toHaveLength(20_000);
    expect(records.every((chunk, n) => chunk.id === n && chunk.state === 'completed' && chunk.attempt === 1)).toBe(true);
    expect(stall).toBeLessThan(250);
  });

  it('[F145] 10,000 with callbacks and listeners never stall the event loop for 250 ms', async () => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => ({ stdout: 'a line\n' })));
    const events = traceOf(manager);
    let completed = 0;
    const stall = await stallDuring(async () => {
      const id = await manager.submitJob(chunksOf(10_000), { concurrency: 16, onChunkComplete: () => void (completed += 1) });
      await manager.waitForJob(id);
    });
    expect(stall).toBeLessThan(250);
    expect(completed).toBe(10_000);
    expect(events.filter((event) => event.type === 'chunk.completed')).toHaveLength(10_000);
  });

  it("[F145] 10,000 by an executor of the user's never stall the event loop for 250 ms", async () => {
    const manager = open(new InMemoryJobRepository(), new OwnExecutor(() => Promise.resolve()));
    const stall = await stallDuring(async () => {
      const id = await manager.submitJob(chunksOf(10_000));
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 10_000 });
    });
    expect(stall).toBeLessThan(250);
  });

  it('[F145] a hundred processes never stall the event loop for 250 ms', async () => {
    const manager = open(new InMemoryJobRepository(), local());
    const stall = await stallDuring(async () => {
      const id = await manager.submitJob({ chunks: Array.from({ length: 100 }, (_, id) => ({ id, argv: ['/bin/echo', String(id)] })) }, { concurrency: 8, onChunkStdout: () => undefined });
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 100 });
    });
    expect(stall).toBeLessThan(250);
  });

  it('[F145] 150,000 that never wait for anything leave the event loop its turns', async () => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
    const stall = await stallDuring(async () => {
      const id = await manager.submitJob(planOf(150_000), { concurrency: 4 });
      expect((await manager.waitForJob(id)).completedChunks).toBe(150_000);
    });
    expect(stall).toBeLessThan(250);
  });

  it('[F147] 1,000,000 by `plan` are submitted, run and completed in bounded memory', async () => {
    const count = 1_000_000;
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
    const before = process.memoryUsage.rss();
    const submit = performance.now();
    const id = await manager.submitJob(planOf(count), { concurrency: 64 });
    expect(performance.now() - submit).toBeLessThan(1000);
    let most = 0;
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage.rss())), 50);
    const status = await manager.waitForJob(id).finally(() => clearInterval(timer));
    expect(status).toMatchObject({ state: 'completed', totalChunks: count, completedChunks: count, progress: 100 });
    expect(Math.max(most, process.memoryUsage.rss()) - before).toBeLessThan(300 * MB);
    expect(await manager.chunks(id, { offset: count - 1 })).toMatchObject([{ id: count - 1, state: 'completed', attempt: 1 }]);
  }, 60_000);

  it('[F147] 1,000,000 by `plan` are kept as ranges: submitting and looking at them costs next to nothing', async () => {
    const count = 1_000_000;
    const manager = open(new InMemoryJobRepository(), new OwnExecutor(), { maxConcurrentJobs: 1 });
    const before = process.memoryUsage.rss();
    const id = await manager.submitJob(planOf(count));
    await manager.pauseJob(id);
    const took = await timed(async () => {
      for (let n = 0; n < 20; n += 1) expect(await manager.getJob(id)).toMatchObject({ state: 'paused', totalChunks: count, progress: 0, chunksByState: { pending: count } });
    });
    expect(took).toBeLessThan(1000);
    expect(process.memoryUsage.rss() - before).toBeLessThan(300 * MB);
    expect(await manager.chunks(id, { offset: 999_998 })).toMatchObject([{ id: 999_998 }, { id: 999_999 }]);
  });

  it('[F147] 1,000,000 are listed in linear time and in passing, whatever the filter', async () => {
    const count = 1_000_000;
    const manager = open(new InMemoryJobRepository(), new OwnExecutor(), { maxConcurrentJobs: 1 });
    const id = await manager.submitJob(planOf(count));
    await manager.pauseJob(id);
    const part = await timed(() => manager.chunks(id, { state: 'pending', limit: count / 10 }));
    let all: { id: number; state: string }[] = [];
    let took = 0;
    const stall = await stallDuring(async () => {
      took = await timed(async () => (all = await manager.chunks(id, { state: 'pending' })));
      expect(await manager.chunks(id, { state: 'completed' })).toEqual([]);
      expect(await manager.chunks(id, { state: 'pending', offset: count - 1 })).toMatchObject([{ id: count - 1 }]);
      expect(await manager.chunks(id, { offset: count })).toEqual([]);
      expect(await manager.chunks(id, { offset: 2 ** 40 })).toEqual([]);
    });
    expect(all).toHaveLength(count);
    expect(all.every((chunk, n) => chunk.id === n && chunk.state === 'pending')).toBe(true);
    // Ten times as many; quadratic time would be a hundred times as much.
    expect(took).toBeLessThan(part * 30);
    expect(stall).toBeLessThan(100);
  }, 60_000);

  it('[F121] a filtered list skips, limits and goes on over its pages without losing or repeating any', async () => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
    const even = Array.from({ length: 60_000 }, (_, n) => n * 2);
    const id = await manager.submitJob(planOf(120_000), { completedChunkIds: even, concurrency: 64 });
    await manager.pauseJob(id);
    const pending = (await manager.chunks(id, { state: 'pending' })).map((chunk) => chunk.id);
    for (const [offset, limit] of [[0, 5], [999, 2], [24_999, 3], [59_990, 100], [60_000, 1]] as const) {
      expect((await manager.chunks(id, { state: 'pending', offset, limit })).map((chunk) => chunk.id)).toEqual(pending.slice(offset, offset + limit));
    }
    expect(new Set(pending).size).toBe(pending.length);
    expect(pending.every((chunk) => chunk % 2 === 1)).toBe(true);
  });

  it('[F121] the lists of a status are made only when they are looked at, and are as they were when it was asked for', async () => {
    const count = 20_000;
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => ({ stdout: 'x' })));
    const id = await manager.submitJob(planOf(count), { concurrency: 64 });
    const status = await manager.waitForJob(id);
    const cheap = await timed(async () => {
      for (let n = 0; n < 50; n += 1) expect((await manager.getJob(id))?.completedChunks).toBe(count);
    });
    const dear = await timed(() => {
      expect(status.spec.chunks).toHaveLength(count);
      expect(status.logs).toHaveLength(count);
    });
    // Fifty statuses with their lists would take fifty times as long as one.
    expect(cheap).toBeLessThan(dear * 10);
    expect(status.spec.chunks[count - 1]).toEqual({ id: count - 1, startFrame: count - 1, frameCount: 1, outputFile: `${count - 1}.png`, command: 'render {startFrame} {outputFile}' });
    expect(status.logs?.[0]).toMatchObject({ stdout: 'x' });
    expect(status.spec.chunks).toBe(status.spec.chunks);
    await manager.deleteJob(id);
    expect(JSON.parse(JSON.stringify(status))).toHaveProperty('spec.chunks.length', count);
  });
});

describe('many jobs', () => {
  it.each([{ asked: 'before', count: 5000 }, { asked: 'after', count: 14_000 }])('[F36] $count that wait are each reached by their id', async ({ asked, count }) => {
    const ran: string[] = [];
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    const execute = async (spec: { id?: string }): Promise<void> => {
      ran.push(spec.id ?? '');
      if (spec.id === '0') await held;
    };
    const manager = open(new InMemoryJobRepository(), { execute }, { maxConcurrentJobs: 1 });
    if (asked === 'before') await manager.cancelJob(await manager.submitJob({ ...chunksOf(1), id: 'first' }, { id: 'first' }));
    for (let n = 0; n < count; n += 1) await manager.submitJob({ ...chunksOf(1), id: `${n}` }, { id: `job-${n}` });
    const [paused, cancelled, deleted, raised] = [4095, 4096, count >> 1, count - 1];
    await manager.pauseJob(`job-${paused}`);
    await manager.cancelJob(`job-${cancelled}`);
    await manager.deleteJob(`job-${deleted}`);
    await manager.pauseJob(`job-${raised}`);
    await manager.resumeJob(`job-${raised}`);
    release();
    const left = Array.from({ length: count }, (_, n) => n).filter((n) => ![paused, cancelled, deleted].includes(n));
    const states = await Promise.all(left.map(async (n) => (await manager.waitForJob(`job-${n}`)).state));
    expect(new Set(states)).toEqual(new Set(['completed']));
    expect(ran.filter((id) => id !== 'first').map(Number).sort((a, b) => a - b)).toEqual(left);
    expect((await manager.getJob(`job-${paused}`))?.state).toBe('paused');
    await manager.resumeJob(`job-${paused}`);
    expect((await manager.waitForJob(`job-${paused}`)).state).toBe('completed');
  }, 60_000);
});

describe('completedChunkIds', () => {
  const executor = (ran: number[]) => JobExecutor.fromFunction(async ({ id }) => void ran.push(id));

  it('are skipped; those named twice and those that the job does not have are ignored', async () => {
    const ran: number[] = [];
    const manager = open(new InMemoryJobRepository(), executor(ran));
    const seen: [number, number][] = [];
    const id = await manager.submitJob(chunksOf(5), { completedChunkIds: [3, 1, 3, 3, 77, 5, Number.MAX_SAFE_INTEGER], onProgress: (done, total) => void seen.push([done, total]) });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', progress: 100, completedChunks: 5, totalChunks: 5 });
    expect(ran).toEqual([0, 2, 4]);
    expect(seen).toEqual([[3, 5], [4, 5], [5, 5]]);
    expect((await manager.chunks(id)).map((chunk) => [chunk.state, chunk.attempt])).toEqual([['completed', 1], ['completed', 0], ['completed', 1], ['completed', 0], ['completed', 1]]);
  });

  it('that do not name any chunk of the job leave everything to do', async () => {
    const ran: number[] = [];
    await executor(ran).execute(chunksOf(2), { completedChunkIds: [2, 3, 4, 4] });
    expect(ran).toEqual([0, 1]);
  });

  it('of which there are as many as chunks leave only the merge', async () => {
    const folder = new Folder();
    const ran: number[] = [];
    await executor(ran).execute({ ...chunksOf(3), mergeCommand: "/bin/sh -c ': > merged'" }, { jobDir: folder.path, completedChunkIds: [0, 1, 2] });
    expect(ran).toEqual([]);
    expect(folder.has('merged')).toBe(true);
  });

  it('take linear time: 20,000 done of 20,000 cost about four times what 5,000 of 5,000 do, not sixteen times', measured, async () => {
    const run = async (count: number) => {
      const ran: number[] = [];
      const spec = chunksOf(count);
      const options = { completedChunkIds: spec.chunks!.map((chunk) => chunk.id).reverse() };
      const took = await timed(() => executor(ran).execute(spec, options));
      expect(ran).toEqual([]);
      return took;
    };
    await run(5000);
    const least = async (count: number) => Math.min(await run(count), await run(count), await run(count));
    const [small, large] = [await least(5000), await least(20_000)];
    // Quadratic time would be sixteen times as much.
    expect(large).toBeLessThan(Math.max(small, 5) * 9);
    expect(large).toBeLessThan(3000);
  });
});
