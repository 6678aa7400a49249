// 10,000 jobs of one chunk each, in memory, by an adapter of JavaScript that does nothing.
import { byLoop, byQueue } from '../peers.mjs';
import { cpuRow, delayRow, framewright, jobSpec, nothing, turn, watched } from '../support.mjs';

const JOBS = 10_000;
const WARM = 2_000;

const makeSpecs = (count, from) => Array.from({ length: count }, (_, n) => jobSpec(from + n, 1));

/** Every submit awaited, and every job seen to its end: 'last' by waiting for the last one, 'each' for each, 'listen' by events. */
async function throughManager(specs, how) {
  const { InMemoryJobRepository, JobExecutor, JobManager } = framewright();
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(nothing));
  let completed = 0;
  if (how === 'listen') manager.on('job.completed', () => (completed += 1));
  const begun = performance.now();
  const ids = [];
  for (const spec of specs) ids.push(await manager.submitJob(spec));
  const submitMs = performance.now() - begun;
  if (how === 'listen') while (completed < specs.length) await turn();
  else if (how === 'each') await Promise.all(ids.map((id) => manager.waitForJob(id)));
  else await manager.waitForJob(ids.at(-1));
  const ms = performance.now() - begun;
  const check = async () => {
    const done = await manager.listJobs({ state: 'completed' });
    if (done.length !== specs.length) throw new Error(`${done.length} of ${specs.length} jobs are completed`);
    await manager.close();
  };
  return { perSecond: (specs.length / ms) * 1000, submitUs: (submitMs / specs.length) * 1000, check };
}

async function timed(specs, run) {
  const jobs = specs.map((spec) => spec.chunks);
  const begun = performance.now();
  await run(jobs);
  return { perSecond: (jobs.length / (performance.now() - begun)) * 1000 };
}

function side(run) {
  return {
    flags: ['--expose-gc'],
    async run() {
      await run(makeSpecs(WARM, JOBS));
      const specs = makeSpecs(JOBS, 0);
      globalThis.gc();
      const { check, ...result } = await watched(() => run(specs));
      await check?.();
      return result;
    },
  };
}

export default {
  title: '10,000 jobs x 1 chunk, memory, JavaScript adapter that does nothing',
  sides: {
    framewright: side((specs) => throughManager(specs, 'last')),
    listened: side((specs) => throughManager(specs, 'listen')),
    waited: side((specs) => throughManager(specs, 'each')),
    'p-queue': side((specs) => timed(specs, (jobs) => byQueue(nothing, jobs, Infinity))),
    loop: side((specs) => timed(specs, (jobs) => byLoop(nothing, jobs, 1))),
  },
  rows(m) {
    const ours = m.framewright;
    const peers = { 'p-queue': m['p-queue'].perSecond, loop: m.loop.perSecond };
    return [
      { what: 'jobs', value: ours.perSecond, unit: 'jobs/s', peers, target: '>= 80,000 (floor 50,000)', met: ours.perSecond >= 80_000 },
      { what: 'jobs : p-queue', value: ours.perSecond / peers['p-queue'], unit: 'x', target: '>= 0.5 (floor 0.4)', met: ours.perSecond / peers['p-queue'] >= 0.5 },
      { what: 'one submit, awaited', value: ours.submitUs, unit: 'us' },
      { what: 'jobs, with a listener of job.completed', value: m.listened.perSecond, unit: 'jobs/s', peers },
      { what: 'jobs, each of them waited for', value: m.waited.perSecond, unit: 'jobs/s', peers },
      cpuRow('jobs', ours, { 'p-queue': m['p-queue'], loop: m.loop }),
      delayRow('jobs', ours, { 'p-queue': m['p-queue'], loop: m.loop }),
    ];
  },
};
