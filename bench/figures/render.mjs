// Eight chunks of the same CPU time on two cores, against the best possible: half of their sum, as measured beside it.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { delayRow, framewright, root, watched } from '../support.mjs';

const CHUNKS = 8;
const CORES = 2;
const words = [process.execPath, join(root, 'bench', 'burn.mjs'), '1000'];

/** As many processes as there are cores, directly; gives the time of each on average. */
async function direct() {
  const one = () =>
    new Promise((resolve, reject) => {
      const begun = performance.now();
      const child = spawn(words[0], words.slice(1), { stdio: 'ignore' });
      child.on('error', reject);
      child.on('exit', () => resolve(performance.now() - begun));
    });
  const times = await Promise.all(Array.from({ length: CORES }, one));
  return times.reduce((sum, time) => sum + time, 0) / times.length;
}

async function render() {
  const { InMemoryJobRepository, JobExecutor, JobManager, LocalWorkerAdapter } = framewright();
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
  const spec = { id: 'render', chunks: Array.from({ length: CHUNKS }, (_, id) => ({ id, startFrame: id * 60, frameCount: 60, argv: words })) };
  const begun = performance.now();
  const status = await manager.waitForJob(await manager.submitJob(spec, { concurrency: CORES }));
  const ms = performance.now() - begun;
  if (status.state !== 'completed') throw new Error(status.error);
  return { ms };
}

async function run() {
  await direct();
  // Before and after, so that a neighbour's noise weighs on both.
  const before = [await direct(), await direct()];
  const result = await watched(render);
  const after = [await direct(), await direct()];
  const times = [...before, ...after];
  const mean = times.reduce((sum, time) => sum + time, 0) / times.length;
  const ideal = mean * (CHUNKS / CORES);
  return { ...result, ideal, noisePercent: ((Math.max(...times) - Math.min(...times)) / mean) * 100, overPercent: (result.ms / ideal - 1) * 100 };
}

export default {
  title: 'render of 8 chunks on 2 cores',
  sides: { framewright: { run } },
  rows({ framewright: m }) {
    // On a machine with busy neighbours the ideal itself is unknown.
    const quiet = m.noisePercent <= 4;
    return [
      { what: 'over the ideal makespan', value: m.overPercent, unit: '%', target: '<= 2', met: quiet ? m.overPercent <= 2 : undefined },
      { what: 'spread of the same processes run directly', value: m.noisePercent, unit: quiet ? '%' : '%: too noisy to judge' },
      { what: 'makespan', value: m.ms, unit: 'ms', peers: { ideal: m.ideal } },
      delayRow('render', m, {}),
    ];
  },
};
