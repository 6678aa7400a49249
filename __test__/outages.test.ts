/** Stores that go away, hang, or are full, in the middle of work. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { PostgresServer } from './support/postgres-server.js';
import { isAlive } from './support/processes.js';
import { Scene } from './support/scene.js';
import type { Worker } from './support/worker.js';

/** Two chunks in flight, and their start committed. */
async function twoInFlight(scene: Scene, owner: Worker, id: string): Promise<number[]> {
  // A crash would fail it at once.
  await owner.call('submitJob', scene.ledger.job(3, 'hold'), scene.options(id, { concurrency: 2, crashRetries: 0 }));
  const begun = await Promise.all([0, 1].map((chunk) => scene.begun(id, chunk)));
  for (const chunk of [0, 1]) await owner.event('chunk.started', id, (event) => event.chunkId === chunk);
  return begun.map(({ pid }) => pid);
}

/** Milliseconds until none of these processes runs any more. */
async function untilGone(pids: number[], since: number, limitMs: number): Promise<number> {
  while (pids.some(isAlive)) {
    if (performance.now() - since > limitMs) throw new Error(`${pids.filter(isAlive).join()} still run after ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - since;
}

describe('a PostgreSQL server', () => {
  let server: PostgresServer;

  beforeAll(async () => {
    server = await PostgresServer.create();
  });
  afterAll(() => server.remove());

  it('[F158] may crash and come back in the middle of work: nothing is lost, nothing runs twice', { timeout: 40_000 }, async () => {
    const scene = new Scene(`${server.url}?schema=crash&max=4`);
    const { ledger } = scene;
    // The start of the server may take a slow machine longer than the usual lease.
    const owner = await scene.start({ options: { leaseMs: 60_000 } });
    const watcher = await scene.start();
    await owner.call('submitJob', ledger.job(24, 0.05), scene.options('a', { concurrency: 2 }));
    const waiting = watcher.call('waitForJob', 'a');
    await owner.event('chunk.completed', 'a', (event) => event.chunkId === 3);
    await server.crash();
    // What is asked now is heard of, and the process lives.
    await expect(watcher.call('recoverJobs')).rejects.toMatchObject({ code: 'STORE_UNAVAILABLE' });
    const before = ledger.entries('end').length;
    await server.start();
    expect(await waiting).toMatchObject({ state: 'completed', completedChunks: 24 });
    expect(ledger.entries('end').length).toBeGreaterThan(before);
    const attempts = ledger.attempts('a');
    expect(Object.keys(attempts)).toHaveLength(24);
    for (const [chunk, begun] of Object.entries(attempts)) expect(begun, `chunk ${chunk}`).toEqual([1]);
    const events = (await watcher.call('readEvents')).filter(({ jobId }) => jobId === 'a');
    expect(events.filter(({ type }) => type === 'chunk.completed')).toHaveLength(24);
    expect(events.filter(({ type }) => type === 'job.recovered' || type === 'job.lease_lost')).toEqual([]);
    // Both sides hear of each other as before.
    await watcher.call('submitJob', ledger.job(1, 0), scene.options('b'));
    expect(await owner.call('waitForJob', 'b')).toMatchObject({ state: 'completed' });
  });

  it('[F154] [F110] may hang for twice the lease: the owner stops its chunks before the end of it, and goes on by itself', async () => {
    const scene = new Scene(`${server.url}?schema=hang&max=4`);
    const { ledger } = scene;
    const leaseMs = 2000;
    const owner = await scene.start({ options: { leaseMs } });
    const pids = await twoInFlight(scene, owner, 'a');
    const since = performance.now();
    server.signal('SIGSTOP');
    try {
      expect(await untilGone(pids, since, leaseMs)).toBeLessThan(leaseMs);
      await owner.event('job.lease_lost', 'a');
      expect(owner.hasExited).toBe(false);
      await new Promise((resolve) => setTimeout(resolve, 2 * leaseMs - (performance.now() - since)));
      // Nothing was begun without the lease.
      expect(ledger.attempts('a')).toEqual({ 0: [1], 1: [1] });
      scene.openGate();
    } finally {
      server.signal('SIGCONT');
    }
    expect(await owner.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1, 2], 2: [1] });
    expect(ledger.entries('overlap')).toEqual([]);
  });
});

/** A file system that is soon full; needs the right to mount one. */
class SmallDisk {
  static readonly made: SmallDisk[] = [];
  static readonly isPossible = ((): boolean => {
    if (process.getuid?.() !== 0) return false;
    const folder = new Folder();
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', folder.path], { stdio: 'ignore' });
      execFileSync('umount', [folder.path], { stdio: 'ignore' });
      return true;
    } catch {
      return false;
    }
  })();

  readonly path = join(new Folder().path, 'disk');

  constructor() {
    mkdirSync(this.path);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', this.path]);
    SmallDisk.made.push(this);
  }

  /** Not a byte more. */
  fill(): void {
    const block = Buffer.alloc(4096, 1);
    try {
      for (let n = 0; ; n += 1) writeFileSync(join(this.path, 'filler'), block, { flag: 'a' });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    }
  }

  empty(): void {
    rmSync(join(this.path, 'filler'));
  }

  remove(): void {
    if (existsSync(this.path)) execFileSync('umount', ['--lazy', this.path]);
  }
}

describe.skipIf(!SmallDisk.isPossible)('a disk that is full', () => {
  afterEach(() => {
    for (const disk of SmallDisk.made.splice(0)) disk.remove();
  });

  /** It does not fit into what is left of a block. */
  const large = { payload: 'x'.repeat(100_000) };

  it('[F110] [F154] SQLite: chunks end before the lease does, and the job goes on by itself when there is room', async () => {
    const disk = new SmallDisk();
    const scene = new Scene(`sqlite:${disk.path}/jobs.db`);
    const { ledger } = scene;
    const leaseMs = 2000;
    const owner = await scene.start({ options: { leaseMs } });
    await owner.call('submitJob', ledger.job(2, 0), scene.options('before'));
    await owner.call('waitForJob', 'before');
    const pids = await twoInFlight(scene, owner, 'a');
    const since = performance.now();
    disk.fill();
    await expect(owner.call('submitJob', ledger.job(1, 0, large), scene.options('refused'))).rejects.toMatchObject({ code: 'STORE_FULL' });
    expect(await untilGone(pids, since, leaseMs)).toBeLessThan(leaseMs);
    await owner.event('job.lease_lost', 'a');
    await new Promise((resolve) => setTimeout(resolve, 2 * leaseMs - (performance.now() - since)));
    expect(ledger.attempts('a')).toEqual({ 0: [1], 1: [1] });
    expect(owner.hasExited).toBe(false);
    expect(await owner.call('getJob', 'before')).toMatchObject({ state: 'completed' });
    scene.openGate();
    disk.empty();
    expect(await owner.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1, 2], 2: [1] });
    expect(ledger.entries('overlap')).toEqual([]);
    expect(await owner.call('getJob', 'refused')).toBeUndefined();
  });

  it.each([
    { kind: 'SQLite', url: (path: string) => `sqlite:${path}/jobs.db` },
    { kind: 'files', url: (path: string) => `file:${path}/jobs` },
  ])('[F110] $kind: a job that runs loses nothing, a new one is refused, and the process lives', async ({ url }) => {
    const disk = new SmallDisk();
    const scene = new Scene(url(disk.path));
    const { ledger } = scene;
    const owner = await scene.start();
    await owner.call('submitJob', ledger.job(8, 0.05), scene.options('a'));
    await owner.event('chunk.completed', 'a');
    disk.fill();
    await expect(owner.call('submitJob', ledger.job(1, 0, large), scene.options('refused'))).rejects.toMatchObject({ code: 'STORE_FULL' });
    expect(await owner.call('getJob', 'a')).toMatchObject({ state: 'running' });
    disk.empty();
    expect(await owner.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 8 });
    expect(Object.values(ledger.attempts('a'))).toEqual(Array.from({ length: 8 }, () => [1]));
    await owner.call('submitJob', ledger.job(1, 0), scene.options('after'));
    expect(await owner.call('waitForJob', 'after')).toMatchObject({ state: 'completed' });
    expect(await owner.call('getJob', 'refused')).toBeUndefined();
    const events = await owner.call('readEvents');
    expect(events.filter(({ jobId, type }) => jobId === 'a' && type === 'chunk.completed')).toHaveLength(8);
  });
});
