// What a look at a job costs: status of ten chunks, not yet run, at rest or live, and completed with ten logs.
import { framewright, jobSpec, nothing, pause, watched } from '../support.mjs';

const WARM = 20_000;
const CALLS = 50_000;
const CHUNKS = 10;

/** Waits until the job was put to rest, and looks at it in a loop. */
async function look(manager, id) {
  for (let n = 0; n < WARM; n += 1) await manager.getJob(id);
  await pause(100);
  return watched(async () => {
    const begun = performance.now();
    for (let n = 0; n < CALLS; n += 1) await manager.getJob(id);
    return { us: ((performance.now() - begun) / CALLS) * 1000 };
  });
}

async function pending() {
  const { InMemoryJobRepository, JobManager } = framewright();
  const manager = new JobManager(new InMemoryJobRepository());
  const id = await manager.submitJob(jobSpec(0, CHUNKS));
  return look(manager, id);
}

async function completed() {
  const { InMemoryJobRepository, JobExecutor, JobManager } = framewright();
  const adapter = { execute: async (job) => ({ exitCode: 0, stdout: `frame=60 of ${job.meta.outputFile}\n`, stderr: '', durationMs: 12.5 }) };
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(adapter));
  const id = await manager.submitJob(jobSpec(0, CHUNKS));
  const status = await manager.waitForJob(id);
  if (status.logs.length !== CHUNKS || status.logs[9].stdout === '') throw new Error('no logs');
  const result = await look(manager, id);
  await manager.close();
  return result;
}

/** The very text of such a status, parsed: what JavaScript takes in any case. */
async function parsing() {
  const { InMemoryJobRepository, JobExecutor, JobManager } = framewright();
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(nothing));
  const text = JSON.stringify(await manager.waitForJob(await manager.submitJob(jobSpec(0, CHUNKS))));
  return look({ getJob: async () => JSON.parse(text) }, '');
}

export default {
  title: 'getJob in memory, status of 10 chunks',
  sides: { pending: { run: pending }, completed: { run: completed }, 'JSON.parse': { run: parsing } },
  rows(m) {
    return [
      { what: 'not yet run', value: m.pending.us, unit: 'us', target: '<= 8', met: m.pending.us <= 8 },
      { what: 'completed with ten logs', value: m.completed.us, unit: 'us', peers: { 'JSON.parse alone': m['JSON.parse'].us }, target: '<= 20', met: m.completed.us <= 20 },
    ];
  },
};
