// One job of 10,000 and of 100,000 chunks, in memory, by an adapter of JavaScript that does nothing, ten at once.
import { byLoop, byQueue } from '../peers.mjs';
import { cpuRow, delayRow, framewright, jobSpec, nothing, watched } from '../support.mjs';

const CONCURRENCY = 10;
const WARM = 5_000;
const SIZES = [10_000, 100_000];

let first = 0;
const adapter = {
  async execute() {
    if (first === 0) first = performance.now();
    return { exitCode: 0, stdout: '', stderr: '', durationMs: 1 };
  },
};

async function throughManager(spec) {
  const { InMemoryJobRepository, JobExecutor, JobManager } = framewright();
  first = 0;
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(adapter));
  const begun = performance.now();
  const id = await manager.submitJob(spec, { concurrency: CONCURRENCY });
  const status = await manager.waitForJob(id);
  const ended = performance.now();
  if (status.state !== 'completed' || status.completedChunks !== spec.chunks.length) throw new Error(`${status.state}: ${status.completedChunks} chunks`);
  await manager.close();
  const { length } = spec.chunks;
  return { perSecond: (length / (ended - begun)) * 1000, startUs: ((first - begun) / length) * 1000, chunkUs: ((ended - begun) / length) * 1000 };
}

async function timed(spec, run) {
  const begun = performance.now();
  await run([spec.chunks]);
  return { perSecond: (spec.chunks.length / (performance.now() - begun)) * 1000 };
}

function side(size, own, run) {
  return {
    flags: ['--expose-gc'],
    async run() {
      await run(jobSpec(1, WARM, own));
      const spec = jobSpec(0, size, own);
      globalThis.gc();
      return watched(() => run(spec));
    },
  };
}

const sides = {};
for (const size of SIZES) {
  sides[`framewright ${size}`] = side(size, true, throughManager);
  sides[`p-queue ${size}`] = side(size, true, (spec) => timed(spec, (jobs) => byQueue(nothing, jobs, CONCURRENCY)));
  sides[`loop ${size}`] = side(size, true, (spec) => timed(spec, (jobs) => byLoop(nothing, jobs, CONCURRENCY)));
  sides[`one command ${size}`] = side(size, false, throughManager);
}

export default {
  title: '1 job x 10,000 and x 100,000 chunks, memory, JavaScript adapter that does nothing, whole WorkerJob',
  sides,
  rows(m) {
    const rows = SIZES.flatMap((size) => {
      const ours = m[`framewright ${size}`];
      const queue = m[`p-queue ${size}`];
      const loop = m[`loop ${size}`];
      const what = `1 x ${size.toLocaleString('en-US')}`;
      const ratio = ours.perSecond / queue.perSecond;
      return [
        { what, value: ours.perSecond, unit: 'chunks/s', peers: { 'p-queue': queue.perSecond, loop: loop.perSecond }, target: '>= 400,000', met: ours.perSecond >= 400_000 },
        { what: `${what} : p-queue`, value: ratio, unit: 'x', target: '>= 2', met: ratio >= 2 },
        { what: `${what}: submit to first chunk`, value: ours.startUs, unit: 'us/chunk' },
        { what: `${what}, one command for all`, value: m[`one command ${size}`].perSecond, unit: 'chunks/s' },
        cpuRow(what, ours, { 'p-queue': queue, loop }),
        delayRow(what, ours, { 'p-queue': queue, loop }),
      ];
    });
    const flat = m['framewright 100000'].chunkUs / m['framewright 10000'].chunkUs;
    return [...rows, { what: 'cost of a chunk, 100,000 : 10,000', value: flat, unit: 'x', target: '<= 1.2 (flat)', met: flat <= 1.2 }];
  },
};
