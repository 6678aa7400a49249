// Durable completions on SQLite, against plainjob on better-sqlite3 and bare batches on the same driver.
import { inFolder, manyJobs, oneJob, sqlite, storedJobs } from '../durable.mjs';
import { join } from 'node:path';
import { bareSqlite, plainjob } from '../queues.mjs';

const CHUNKS = 50_000;
const JOBS = 20_000;
const PEER_JOBS = 10_000;

const TARGETS = { normal: 60_000, full: 40_000 };

const sides = {};
for (const synchronous of Object.keys(TARGETS)) {
  const file = (run) => inFolder((folder) => run(join(folder, 'jobs.db')));
  sides[`chunks ${synchronous}`] = { run: () => sqlite(synchronous)((open) => oneJob(open, CHUNKS)) };
  sides[`jobs ${synchronous}`] = { run: () => sqlite(synchronous)((open) => manyJobs(open, JOBS)) };
  sides[`stored ${synchronous}`] = { run: () => sqlite(synchronous)((open) => storedJobs(open, JOBS)) };
  sides[`plainjob ${synchronous}`] = { run: () => file((path) => plainjob(path, synchronous, PEER_JOBS)) };
  sides[`bare ${synchronous}`] = { run: () => file((path) => bareSqlite(path, synchronous, CHUNKS)) };
}

export default {
  title: 'committed completions on SQLite (WAL), JavaScript adapter that does nothing',
  sides,
  rows(m) {
    return Object.entries(TARGETS).flatMap(([synchronous, least]) => {
      const at = `synchronous = ${synchronous}`;
      const peers = { plainjob: m[`plainjob ${synchronous}`].perSecond, 'bare batches': m[`bare ${synchronous}`].perSecond };
      const target = `>= ${least.toLocaleString('en-US')}`;
      const { perSecond, cpuUs } = m[`chunks ${synchronous}`];
      const jobs = m[`jobs ${synchronous}`];
      const stored = m[`stored ${synchronous}`];
      return [
        { what: `1 job x 50,000 chunks, ${at}`, value: perSecond, unit: 'chunks/s', peers, target, met: perSecond >= least },
        { what: `the same: CPU time, all threads`, value: cpuUs, unit: 'us/chunk' },
        { what: `20,000 jobs x 1 chunk, from submit, ${at}`, value: jobs.perSecond, unit: 'jobs/s', peers },
        { what: `the same: CPU time, all threads`, value: jobs.cpuUs, unit: 'us/job' },
        { what: `20,000 jobs x 1 chunk, that are stored, ${at}`, value: stored.perSecond, unit: 'jobs/s', peers },
        { what: `the same: CPU time, all threads`, value: stored.cpuUs, unit: 'us/job' },
      ];
    });
  },
};
