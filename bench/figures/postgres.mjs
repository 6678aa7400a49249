// Durable jobs on PostgreSQL, against graphile-worker, pg-boss, and bare batches on pg. All with the server's own settings:
// fsync and synchronous_commit are on unless it was told otherwise.
import { inSchema, manyJobs, oneAtATime, oneJob, postgres, postgresUrl, storedJobs } from '../durable.mjs';
import { barePostgres, graphileWorker, pgBoss } from '../queues.mjs';

const CHUNKS = 50_000;
const JOBS = 20_000;
const FEW = 3_000;

/** As its documentation has it for many short jobs. */
const TUNED = { concurrentJobs: 24, maxPoolSize: 26, localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };

export default {
  title: 'committed completions on PostgreSQL, JavaScript adapter that does nothing',
  sides: {
    chunks: { run: () => postgres((open) => oneJob(open, CHUNKS)) },
    jobs: { run: () => postgres((open) => manyJobs(open, JOBS)) },
    stored: { run: () => postgres((open) => storedJobs(open, JOBS)) },
    single: { run: () => postgres((open) => oneAtATime(open, 500)) },
    graphile: { run: () => inSchema((schema) => graphileWorker(postgresUrl, schema, {}, FEW)) },
    'graphile tuned': { run: () => inSchema((schema) => graphileWorker(postgresUrl, schema, TUNED, JOBS)) },
    'pg-boss': { run: () => inSchema((schema) => pgBoss(postgresUrl, schema, JOBS)) },
    bare: { run: () => inSchema((schema) => barePostgres(postgresUrl, schema, CHUNKS)) },
    durability: {
      async run() {
        const { default: pg } = await import('pg');
        const client = new pg.Client(postgresUrl);
        await client.connect();
        const { rows } = await client.query("SELECT count(*) FILTER (WHERE setting = 'on')::int AS on FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')");
        await client.end();
        return rows[0];
      },
    },
  },
  rows(m) {
    const peers = {
      'graphile-worker': m.graphile.perSecond,
      'graphile-worker, local queue of 500': m['graphile tuned'].perSecond,
      'pg-boss, batches of 1,000': m['pg-boss'].perSecond,
      'bare batches': m.bare.perSecond,
    };
    const row = (what, side, unit) => ({ what, value: side.perSecond, unit, peers, target: '>= 40,000', met: side.perSecond >= 40_000 });
    return [
      { what: 'fsync and synchronous_commit, of all', value: m.durability.on === 2 ? 'on' : 'OFF', unit: '' },
      row('1 job x 50,000 chunks', m.chunks, 'chunks/s'),
      { what: 'the same: CPU time of our process', value: m.chunks.cpuUs, unit: 'us/chunk' },
      row('20,000 jobs x 1 chunk, from submit', m.jobs, 'jobs/s'),
      { what: 'the same: CPU time of our process', value: m.jobs.cpuUs, unit: 'us/job' },
      row('20,000 jobs x 1 chunk, that are stored', m.stored, 'jobs/s'),
      { what: 'the same: CPU time of our process', value: m.stored.cpuUs, unit: 'us/job' },
      { what: 'one job at a time, submit to end, p50', value: m.single.p50, unit: 'ms', target: '<= 3', met: m.single.p50 <= 3 },
      { what: 'one job at a time, submit to end, p99', value: m.single.p99, unit: 'ms' },
    ];
  },
};
