// The queues that durable stores are measured against, and what the same drivers do bare. All work off jobs that are in the
// store when the clock starts; each gives jobs a second, of jobs whose end is committed.
import { jobSpec, nothing } from './support.mjs';

/** Jobs that a bare queue takes and completes at once. */
const BATCH = 1_000;

const payloads = (count) => Array.from({ length: count }, (_, n) => jobSpec(n, 1));

function rate(count, begun) {
  return (count / (performance.now() - begun)) * 1000;
}

const quiet = { debug() {}, info() {}, warn() {}, error: console.error };

/** `synchronous` as the pragma takes it. */
export async function plainjob(file, synchronous, count) {
  const { default: Database } = await import('better-sqlite3');
  const { better, defineQueue, defineWorker } = await import('plainjob');
  const database = new Database(file);
  const queue = defineQueue({ connection: better(database), logger: quiet });
  // It sets NORMAL itself.
  database.pragma(`synchronous = ${synchronous}`);
  queue.addMany('render', payloads(count));
  let done = 0;
  let end;
  const all = new Promise((resolve) => (end = resolve));
  const begun = performance.now();
  const worker = defineWorker('render', () => nothing.execute(), {
    queue,
    logger: quiet,
    onCompleted: () => {
      done += 1;
      if (done === count) end();
    },
  });
  const ended = worker.start();
  await all;
  const perSecond = rate(count, begun);
  await worker.stop();
  await ended;
  queue.close();
  return { perSecond };
}

/** Batches on better-sqlite3, with nothing of what a job queue keeps. */
export async function bareSqlite(file, synchronous, count) {
  const { default: Database } = await import('better-sqlite3');
  const database = new Database(file);
  database.pragma('journal_mode = WAL');
  database.pragma(`synchronous = ${synchronous}`);
  database.exec(`CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT NOT NULL, body TEXT NOT NULL) STRICT;
    CREATE INDEX job_to_do ON job (id) WHERE state = 'created'`);
  const insert = database.prepare("INSERT INTO job (state, body) VALUES ('created', ?)");
  database.transaction((jobs) => jobs.forEach((job) => insert.run(JSON.stringify(job))))(payloads(count));
  const take = database.prepare(
    `UPDATE job SET state = 'active' WHERE id IN (SELECT id FROM job WHERE state = 'created' ORDER BY id LIMIT ${BATCH}) RETURNING id, body`,
  );
  const finish = database.prepare("UPDATE job SET state = 'completed' WHERE id IN (SELECT value FROM json_each(?))");
  const begun = performance.now();
  for (let done = 0; done < count; ) {
    const jobs = take.all();
    await Promise.all(jobs.map((job) => nothing.execute(JSON.parse(job.body))));
    finish.run(JSON.stringify(jobs.map((job) => job.id)));
    done += jobs.length;
  }
  const perSecond = rate(count, begun);
  database.close();
  return { perSecond };
}

/** `settings`: of the worker, beside where its jobs are. */
export async function graphileWorker(url, schema, settings, count) {
  const { Logger, makeWorkerUtils, run } = await import('graphile-worker');
  const logger = new Logger(() => () => undefined);
  const preset = { worker: { connectionString: url, schema, logger, ...settings } };
  const utils = await makeWorkerUtils({ connectionString: url, schema, logger });
  await utils.migrate();
  for (let from = 0; from < count; from += BATCH) {
    await utils.addJobs(payloads(Math.min(BATCH, count - from)).map((payload) => ({ identifier: 'render', payload })));
  }
  await utils.release();
  // Committed ends are counted where they are: it tells of them before.
  const { default: pg } = await import('pg');
  const client = new pg.Client(url);
  await client.connect();
  let ran = 0;
  let end;
  const all = new Promise((resolve) => (end = resolve));
  const begun = performance.now();
  const runner = await run({
    preset,
    taskList: {
      async render(payload) {
        await nothing.execute(payload);
        ran += 1;
        if (ran === count) end();
      },
    },
  });
  await all;
  for (;;) {
    // What it has completed, it removes.
    const { rows } = await client.query(`SELECT EXISTS (SELECT FROM ${schema}._private_jobs) AS left`);
    if (!rows[0].left) break;
  }
  const perSecond = rate(count, begun);
  await runner.stop();
  await client.end();
  return { perSecond };
}

/** Fetches and completes in batches. */
export async function pgBoss(url, schema, count) {
  const { default: PgBoss } = await import('pg-boss');
  const boss = new PgBoss({ connectionString: url, schema, supervise: false, schedule: false });
  boss.on('error', console.error);
  await boss.start();
  await boss.createQueue('render');
  for (let from = 0; from < count; from += BATCH) await boss.insert(payloads(Math.min(BATCH, count - from)).map((data) => ({ name: 'render', data })));
  const begun = performance.now();
  for (let done = 0; done < count; ) {
    const jobs = await boss.fetch('render', { batchSize: BATCH });
    await Promise.all(jobs.map((job) => nothing.execute(job.data)));
    await boss.complete('render', jobs.map((job) => job.id));
    done += jobs.length;
  }
  const perSecond = rate(count, begun);
  await boss.stop({ graceful: false });
  return { perSecond };
}

/** Batches on pg, with nothing of what a job queue keeps. */
export async function barePostgres(url, schema, count) {
  const { default: pg } = await import('pg');
  const client = new pg.Client(url);
  await client.connect();
  await client.query(`CREATE TABLE ${schema}.job (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state text NOT NULL, body jsonb NOT NULL);
    CREATE INDEX ON ${schema}.job (id) WHERE state = 'created'`);
  await client.query(`INSERT INTO ${schema}.job (state, body) SELECT 'created', value FROM jsonb_array_elements($1)`, [JSON.stringify(payloads(count))]);
  const take = `UPDATE ${schema}.job SET state = 'active' WHERE id IN
    (SELECT id FROM ${schema}.job WHERE state = 'created' ORDER BY id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED) RETURNING id, body`;
  const finish = `UPDATE ${schema}.job SET state = 'completed' WHERE id = ANY($1)`;
  const begun = performance.now();
  for (let done = 0; done < count; ) {
    const { rows } = await client.query(take);
    await Promise.all(rows.map((job) => nothing.execute(job.body)));
    await client.query(finish, [rows.map((job) => job.id)]);
    done += rows.length;
  }
  const perSecond = rate(count, begun);
  await client.end();
  return { perSecond };
}
