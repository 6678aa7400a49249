// A process with one manager, told over IPC what to do: `{ n, call, args }` is answered by `{ n, value }` or `{ n, error }`,
// and `{ event }` tells what its manager hears. Its one argument is JSON: store, options of the manager, how chunks are run.
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ConcatStitcher, JobExecutor, JobManager, LocalWorkerAdapter, openRepository } from 'framewright';

const { url, options = {}, runs = 'processes', folder, lives = true } = JSON.parse(process.argv[2]);
const ledger = join(folder, 'ledger');
const write = (what, job, chunk, attempt) => appendFileSync(ledger, `${what} ${job} ${chunk} ${attempt} ${process.pid} ${Date.now()}\n`);

const executors = {
  /** Chunks are processes. */
  processes: () => new JobExecutor(new LocalWorkerAdapter({ killGraceMs: 200 })),
  /** Chunks are calls of a function, which does not listen to its signal and ends once the file `late` is there. */
  deaf: () =>
    JobExecutor.fromFunction(async (chunk, { jobId, attempt }) => {
      write('begin', jobId, chunk.id, attempt);
      while (!existsSync(join(folder, 'late'))) await sleep(5);
      write('end', jobId, chunk.id, attempt);
    }),
  /** Chunks are calls of a function that takes three turns of the event loop. */
  turns: () =>
    JobExecutor.fromFunction(async (chunk, { jobId, attempt }) => {
      write('begin', jobId, chunk.id, attempt);
      for (let n = 0; n < 3; n += 1) await sleep(1);
      write('end', jobId, chunk.id, attempt);
    }),
  nothing: () => undefined,
};

/** What cannot be written down, by name. */
const objects = {
  stitcher: {
    async stitch(inputs, output) {
      writeFileSync(output, inputs.map((file) => readFileSync(file, 'utf8')).join('+'));
    },
  },
  concat: new ConcatStitcher(),
  verify: (file) => existsSync(file),
};
const revive = (value) => {
  if (value === null || typeof value !== 'object') return value;
  if (typeof value.$object === 'string') return objects[value.$object];
  return Array.isArray(value) ? value.map(revive) : Object.fromEntries(Object.entries(value).map(([name, item]) => [name, revive(item)]));
};

const repository = await openRepository(url);
const manager = new JobManager(repository, executors[runs](), options);
// Nobody reads it any more when the test has ended.
const tell = (message) => process.connected && process.send(message, () => undefined);
manager.on('event', (event) => tell({ event }));

let working = new AbortController();
const calls = {
  /** Holds the event loop. */
  block(ms, how) {
    const until = performance.now() + ms;
    if (how === 'wait') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    else while (performance.now() < until);
  },
  /** `run()` until `stopRun`. */
  async run() {
    working = new AbortController();
    await manager.run({ signal: working.signal });
  },
  stopRun: () => working.abort(),
  /** All kept events up to the end of a job that is made for the purpose. */
  async readEvents() {
    const id = `marker-${randomUUID()}`;
    await manager.submitJob({ id: 'marker', chunks: [] }, { id });
    const kept = [];
    for await (const event of manager.events({ fromSequence: 0 })) {
      // Progress carries the number of another event.
      if (event.type !== 'job.progress' && event.type !== 'chunk.progress') kept.push(event);
      if (event.jobId === id && event.type === 'job.completed') return kept;
    }
  },
  async closeAll() {
    await manager.close({ abortMs: 2000 });
    await repository.close();
  },
  /** Nothing is said any more: the process ends when nothing keeps it. */
  letGo: () => process.disconnect(),
};

process.on('message', async ({ n, call, args }) => {
  try {
    const value = await (calls[call] ? calls[call](...args) : manager[call](...revive(args)));
    tell({ n, value });
  } catch (error) {
    tell({ n, error: { code: error.code, name: error.name, message: error.message } });
  }
});
// Not after its own `letGo`.
if (lives) process.on('disconnect', () => process.exit());
tell({ ready: true });
