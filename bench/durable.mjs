// The package on a durable store, in the shapes that work comes in.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { framewright, jobSpec, nothing, pause } from './support.mjs';

/** Where PostgreSQL is: `FRAMEWRIGHT_BENCH_POSTGRES`, a database that schemas may be made in. */
export const postgresUrl = process.env.FRAMEWRIGHT_BENCH_POSTGRES ?? 'postgres://postgres@127.0.0.1:5432/test';

/** Gives a folder to `work`, on the disk that `FRAMEWRIGHT_BENCH_FOLDER` names, and removes it. */
export async function inFolder(work) {
  const folder = mkdtempSync(join(process.env.FRAMEWRIGHT_BENCH_FOLDER ?? tmpdir(), 'framewright-bench-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Gives a schema of its own to `work`, and removes it. */
export async function inSchema(work) {
  const { default: pg } = await import('pg');
  const schema = `framewright_bench_${process.pid}_${Date.now()}`;
  const client = new pg.Client(postgresUrl);
  await client.connect();
  await client.query(`CREATE SCHEMA ${schema}`);
  try {
    return await work(schema);
  } finally {
    await client.query(`DROP SCHEMA ${schema} CASCADE`);
    await client.end();
  }
}

export const sqlite = (synchronous) => (work) =>
  inFolder((folder) => work(() => framewright().SqliteJobRepository.open(join(folder, 'jobs.db'), { synchronous })));

export const postgres = (work) => inSchema((schema) => work(() => framewright().PostgresJobRepository.connect(postgresUrl, { schema })));

/** Opens a repository, gives a manager on it to `work`, closes both. */
async function managed(open, work) {
  const { JobExecutor, JobManager } = framewright();
  const repository = await open();
  const manager = new JobManager(repository, new JobExecutor(nothing));
  try {
    return await work(manager);
  } finally {
    await manager.close();
    await repository.close();
  }
}

function cpu() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

/** One job of many chunks: from its submit to its end, committed. */
export const oneJob = (open, chunks) =>
  managed(open, async (manager) => {
    const warm = await manager.submitJob(jobSpec(1, 2_000), { concurrency: 10 });
    await manager.waitForJob(warm);
    const spec = jobSpec(0, chunks);
    const before = cpu();
    const begun = performance.now();
    const id = await manager.submitJob(spec, { concurrency: 10 });
    const status = await manager.waitForJob(id);
    const ms = performance.now() - begun;
    const cpuUs = ((cpu() - before) * 1000) / chunks;
    if (status.state !== 'completed' || status.completedChunks !== chunks) throw new Error(`${status.state}: ${status.completedChunks} chunks`);
    return { perSecond: (chunks / ms) * 1000, cpuUs };
  });

/** Resolves when so many jobs have ended, committed. */
function ends(manager, count) {
  return new Promise((resolve, reject) => {
    let ended = 0;
    manager.on('job.completed', () => {
      ended += 1;
      if (ended === count) resolve();
    });
    manager.on('job.failed', (event) => reject(new Error(JSON.stringify(event))));
  });
}

/** Many jobs of one chunk: from the first submit to the last end. */
export const manyJobs = (open, count) =>
  managed(open, async (manager) => {
    const specs = Array.from({ length: count }, (_, n) => jobSpec(n, 1));
    const before = cpu();
    const begun = performance.now();
    const all = ends(manager, count);
    await Promise.all(specs.map((spec) => manager.submitJob(spec)));
    await all;
    const ms = performance.now() - begun;
    return { perSecond: (count / ms) * 1000, cpuUs: ((cpu() - before) * 1000) / count };
  });

/** Many jobs of one chunk that are in the store: from the start of a worker to the last end. */
export async function storedJobs(open, count) {
  const { JobExecutor, JobManager } = framewright();
  const repository = await open();
  const producer = new JobManager(repository);
  await Promise.all(Array.from({ length: count }, (_, n) => producer.submitJob(jobSpec(n, 1))));
  const before = cpu();
  const begun = performance.now();
  const worker = new JobManager(repository, new JobExecutor(nothing));
  const all = ends(worker, count);
  const running = worker.run();
  await all;
  const ms = performance.now() - begun;
  const cpuUs = ((cpu() - before) * 1000) / count;
  await worker.close();
  await running;
  await producer.close();
  await repository.close();
  return { perSecond: (count / ms) * 1000, cpuUs };
}

function quantile(numbers, part) {
  return numbers.toSorted((a, b) => a - b)[Math.min(numbers.length - 1, Math.floor(numbers.length * part))];
}

/** Milliseconds from a submit to the first chunk, at 50 jobs a second; and of the submit alone. */
export async function latency(open, count) {
  const { JobExecutor, JobManager } = framewright();
  const repository = await open();
  const begun = new Map();
  const started = [];
  const adapter = {
    async execute(job) {
      started.push(performance.now() - begun.get(job.meta.jobId));
      return nothing.execute(job);
    },
  };
  const manager = new JobManager(repository, new JobExecutor(adapter));
  const submitted = [];
  const ended = [];
  const submit = async (n) => {
    const id = `job-${n}`;
    const at = performance.now();
    begun.set(id, at);
    await manager.submitJob(jobSpec(n, 1), { id });
    submitted.push(performance.now() - at);
    await manager.waitForJob(id);
    ended.push(performance.now() - at);
  };
  const all = [];
  const first = performance.now();
  for (let n = 0; n < count; n += 1) {
    await pause(first + n * 20 - performance.now());
    all.push(submit(n));
  }
  await Promise.all(all);
  await manager.close();
  await repository.close();
  const result = {};
  for (const [name, times] of Object.entries({ submitted, started, ended })) {
    result[`${name}P50`] = quantile(times, 0.5);
    result[`${name}P99`] = quantile(times, 0.99);
  }
  return result;
}

/** Jobs one after the other, each awaited to its end. */
export const oneAtATime = (open, count) =>
  managed(open, async (manager) => {
    const times = [];
    for (let n = 0; n < count; n += 1) {
      const spec = jobSpec(n, 1);
      const begun = performance.now();
      await manager.waitForJob(await manager.submitJob(spec));
      times.push(performance.now() - begun);
    }
    return { p50: quantile(times, 0.5), p99: quantile(times, 0.99) };
  });
