// A million jobs of ten chunks in memory: what they weigh outside of the JavaScript heap, and whom they hold up.
import { PerformanceObserver } from 'node:perf_hooks';
import { framewright, jobSpec, nothing, pause, turn, watched } from '../support.mjs';

const CHUNKS = 10;
const BATCH = 500;
const LOOKS = 100_000;

/** Collects garbage and waits until what works in the background is done. */
async function settled() {
  let before = Infinity;
  for (let n = 0; n < 60; n += 1) {
    globalThis.gc();
    await pause(500);
    const { rss } = process.memoryUsage();
    if (Math.abs(before - rss) < 1 << 20) break;
    before = rss;
  }
  return process.memoryUsage();
}

/** The longest collection of garbage while `work` runs, in milliseconds. */
async function collected(work) {
  let longest = 0;
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) longest = Math.max(longest, entry.duration);
  });
  observer.observe({ entryTypes: ['gc'] });
  const result = await watched(work);
  observer.disconnect();
  return { ...result, collection: longest };
}

async function run({ jobs }) {
  const { InMemoryJobRepository, JobExecutor, JobManager } = framewright();
  const repository = new InMemoryJobRepository();
  const manager = new JobManager(repository, new JobExecutor(nothing));
  // Not kept: what is measured of the heap, and of its collections, is to be the package's.
  const id = (n) => `job-${n}`;
  const submit = async (from, count) => {
    let longest = 0;
    for (let n = from; n < from + count; n += 1) {
      const spec = jobSpec(n, CHUNKS);
      const begun = performance.now();
      const submitted = manager.submitJob(spec, { id: id(n) });
      longest = Math.max(longest, performance.now() - begun);
      await submitted;
      if (n % BATCH === BATCH - 1) await turn();
    }
    return { longest };
  };

  // The first ones warm up what does not grow with the jobs: the log of events, buffers, the code itself.
  const warm = Math.min(20_000, jobs >> 2);
  await submit(0, warm);
  await manager.waitForJob(id(warm - 1));
  const before = await settled();

  const begun = performance.now();
  const submitting = await collected(async () => {
    const submitted = await submit(warm, jobs - warm);
    await manager.waitForJob(id(jobs - 1));
    return submitted;
  });
  const seconds = (performance.now() - begun) / 1000;
  const after = await settled();
  const outside = after.rss - before.rss - (after.heapTotal - before.heapTotal);
  const heap = after.heapUsed - before.heapUsed;

  const looking = await collected(async () => {
    let longest = 0;
    for (let n = 0; n < LOOKS; n += 1) {
      const at = performance.now();
      const status = await manager.getJob(id((n * 7919) % jobs));
      longest = Math.max(longest, performance.now() - at);
      if (status.state !== 'completed') throw new Error(`${status.id} is ${status.state}`);
      if (n % BATCH === 0) await turn();
    }
    return { longest };
  });

  const paging = await collected(async () => {
    let count = 0;
    let cursor;
    for (;;) {
      const page = await manager.listJobs({ limit: 1000, ...(cursor === undefined ? {} : { cursor }) });
      if (page.length === 0) return { count };
      count += page.length;
      cursor = page.at(-1).id;
    }
  });
  if (paging.count !== jobs) throw new Error(`${paging.count} jobs in pages`);

  const start = performance.now();
  const listing = await collected(async () => {
    const all = await manager.listJobs();
    return { count: all.length, ms: performance.now() - start };
  });
  if (listing.count !== jobs) throw new Error(`${listing.count} jobs in the list`);

  return {
    outsidePerJob: outside / (jobs - warm),
    heapPerJob: heap / (jobs - warm),
    jobsPerSecond: (jobs - warm) / seconds,
    submitMax: submitting.longest,
    submitDelayP99: submitting.delayP99,
    submitDelayMax: submitting.delayMax,
    submitCollection: submitting.collection,
    getMax: looking.longest,
    getDelayMax: looking.delayMax,
    getCollection: looking.collection,
    pageDelayP99: paging.delayP99,
    pageDelayMax: paging.delayMax,
    pageCollection: paging.collection,
    listSeconds: listing.ms / 1000,
    listDelayP99: listing.delayP99,
    listDelayMax: listing.delayMax,
    listCollection: listing.collection,
  };
}

export default {
  title: '1,000,000 jobs of 10 chunks in memory (--jobs N for fewer)',
  mostRuns: 1,
  sides: { framewright: { flags: ['--expose-gc', '--max-old-space-size=14000'], run } },
  rows({ framewright: m }) {
    const stall = (what, value, collection) => ({ what, value, unit: 'ms', target: `<= 10 (longest collection of garbage in it: ${collection.toFixed(1)} ms)`, met: value <= 10 });
    return [
      { what: 'one job, outside of the heap', value: m.outsidePerJob, unit: 'bytes', target: '<= 1,024', met: m.outsidePerJob <= 1024 },
      { what: 'one job, on the heap', value: m.heapPerJob, unit: 'bytes' },
      { what: 'submitted and completed', value: m.jobsPerSecond, unit: 'jobs/s' },
      stall('longest submitJob', m.submitMax, m.submitCollection),
      { what: 'event loop delay meanwhile', value: `${m.submitDelayP99.toFixed(1)} / ${m.submitDelayMax.toFixed(1)}`, unit: 'ms p99 / max' },
      stall('longest getJob', m.getMax, m.getCollection),
      stall('listJobs in pages of 1,000: longest delay', m.pageDelayMax, m.pageCollection),
      stall('listJobs of everything: longest delay', m.listDelayMax, m.listCollection),
      { what: 'listJobs of everything: p99 of the delay', value: m.listDelayP99, unit: 'ms' },
      { what: 'listJobs of everything', value: m.listSeconds, unit: 's' },
    ];
  },
};
