import { describe, expect, it } from 'vitest';
import { gone } from './support/processes.js';
import { QUIET, script } from './support/script.js';

/** Starts worker threads of a source text, and says how each ended. */
const THREADS = `
  import { Worker } from 'node:worker_threads';
  const threads = (count, source) => Array.from({ length: count }, (_, number) => {
    const thread = new Worker(source, { eval: true, execArgv: [], workerData: number });
    const errors = [];
    const messages = [];
    thread.on('error', (error) => errors.push(String(error)));
    thread.on('message', (message) => messages.push(message));
    const ended = new Promise((resolve) => thread.on('exit', (code) => resolve({ code, errors, messages })));
    return { thread, ended };
  });
`;

/** What a thread does: a job of each kind of executor, watched, paused, read and deleted, then nothing more. */
const WHOLE_LIFE = `
  const { parentPort, workerData } = require('node:worker_threads');
  const { JobManager, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, FramewrightError, planChunks } = require('framewright');
  (async () => {
    const told = [];
    const repository = new InMemoryJobRepository();
    const chunks = planChunks({ totalFrames: 6, chunkSize: 2, outputFile: '{chunkId}.txt', command: 'true' });
    for (const executor of [
      { execute: async (spec, options) => spec.chunks.forEach((chunk) => options.onChunkComplete(chunk.id, { exitCode: 0, stdout: '', stderr: '', durationMs: 1 })) },
      JobExecutor.fromFunction(async () => {}),
      new JobExecutor(new LocalWorkerAdapter()),
    ]) {
      const manager = new JobManager(repository, executor);
      manager.on('job.completed', (event) => event.jobId === id && told.push(event.type));
      const id = await manager.submitJob({ chunks });
      const status = await manager.waitForJob(id);
      told.push(status.state + status.completedChunks);
      await manager.deleteJob(id);
    }
    const refused = await new JobManager(repository).submitJob(5).catch((error) => error);
    told.push(refused instanceof FramewrightError && refused.code);
    told.push((await repository.list()).length);
    parentPort.postMessage([workerData, ...told]);
  })();
`;

describe('worker threads', () => {
  it('[F150] 50 of them load the package, use every class, forget it and end', async () => {
    const ended = await script(`${THREADS}
      const results = await Promise.all(threads(50, ${JSON.stringify(WHOLE_LIFE)}).map(({ ended }) => ended));
      console.log(JSON.stringify(results));
    `, { limitMs: 60_000 });
    expect(ended).toMatchObject(QUIET);
    const life = ['job.completed', 'completed3', 'job.completed', 'completed3', 'job.completed', 'completed3', 'VALIDATION', 0];
    expect(JSON.parse(ended.stdout)).toEqual(
      Array.from({ length: 50 }, (_, number) => ({ code: 0, errors: [], messages: [[number, ...life]] })),
    );
  }, 60_000);

  it('[F150] start programs in the environment of their own, not in that of the main thread', async () => {
    const source = `
      const { parentPort } = require('node:worker_threads');
      const { JobManager, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter } = require('framewright');
      process.env.WHERE = 'thread';
      process.env.MORE = 'more';
      delete process.env.GONE;
      (async () => {
        const argv = ['/bin/sh', '-c', 'echo $WHERE,$MORE,$GONE'];
        const said = [];
        for (const env of ['inherit', ['WHERE', 'GONE']]) {
          const adapter = new LocalWorkerAdapter({ env });
          said.push((await adapter.execute({ command: argv[0], args: argv.slice(1) })).stdout);
          const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(adapter));
          const id = await manager.submitJob({ chunks: [{ id: 0, startFrame: 0, frameCount: 1, argv }] });
          await manager.waitForJob(id);
          said.push(await manager.readLog(id, { chunkId: 0 }));
        }
        parentPort.postMessage(said);
      })();
    `;
    const ended = await script(`${THREADS}
      process.env.WHERE = 'main';
      process.env.GONE = 'here';
      const [{ ended }] = threads(1, ${JSON.stringify(source)});
      console.log(JSON.stringify(await ended));
    `);
    expect(ended).toMatchObject(QUIET);
    const [all, some] = ['thread,more,\n', 'thread,,\n'];
    expect(JSON.parse(ended.stdout)).toEqual({ code: 0, errors: [], messages: [[all, all, some, some]] });
  });

  it('[F150] one after the other, beside a job of the main thread that goes on', async () => {
    const ended = await script(`${THREADS}
      let chunks = 0;
      let enough = false;
      const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      manager.on('chunk.completed', () => (chunks += 1));
      const id = await manager.submitJob({ plan: { totalFrames: 100_000, chunkSize: 1, outputFile: '{chunkId}', command: 'true' } });
      for (let n = 0; n < 5; n += 1) {
        const before = chunks;
        const [{ ended }] = threads(1, ${JSON.stringify(WHOLE_LIFE)});
        const { code, errors } = await ended;
        if (code !== 0) throw new Error(errors.join());
        // The main thread's job was not stopped by the end of another thread.
        await new Promise((resolve) => manager.once('chunk.completed', resolve));
        if (chunks <= before || (await manager.getJob(id)).state !== 'running') throw new Error('the job of the main thread stopped');
      }
      await manager.cancelJob(id);
      console.log((await manager.getJob(id)).state);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'cancelled\n' });
  });

  it.each([
    ['a function renders', `JobExecutor.fromFunction(() => new Promise((resolve) => setImmediate(resolve)))`],
    ['processes run', `new JobExecutor(new LocalWorkerAdapter())`],
    ['an adapter of the user\'s runs', `new JobExecutor({ execute: async () => ({ exitCode: 0, stdout: '', stderr: '', durationMs: 1 }) })`],
  ])('[F150] threads terminated in mid-flight while %s do no harm', async (_, executor) => {
    const source = `
      const { parentPort } = require('node:worker_threads');
      const { JobManager, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter } = require('framewright');
      const manager = new JobManager(new InMemoryJobRepository(), ${executor});
      manager.on('event', () => {});
      (async () => { for await (const event of manager.events()) if (event.type === 'chunk.completed') parentPort.postMessage(event.chunkId); })();
      const plan = { totalFrames: 1_000_000, chunkSize: 1, outputFile: '{chunkId}', command: 'true' };
      for (const id of ['a', 'b', 'c']) manager.submitJob({ plan }, { id, concurrency: 4 });
      manager.waitForJob('a');
    `;
    const ended = await script(`${THREADS}
      const codes = await Promise.all(threads(8, ${JSON.stringify(source)}).map(async ({ thread, ended }, n) => {
        // At different places: at its first message, later.
        for (let messages = 0; messages <= n; messages += 1) await new Promise((resolve) => thread.once('message', resolve));
        await thread.terminate();
        const { code, errors } = await ended;
        return errors.length > 0 ? errors : code;
      }));
      console.log(JSON.stringify(codes));
    `);
    expect(ended).toMatchObject(QUIET);
    expect(JSON.parse(ended.stdout)).toEqual(Array.from({ length: 8 }, () => 1));
  });

  it.each([
    ['is terminated', `await thread.terminate();`],
    ['calls process.exit()', `thread.postMessage('exit'); await ended;`],
    ['throws', `thread.postMessage('throw'); await ended;`],
  ])('[F150] a thread that %s while its processes run leaves none of them behind', async (_, action) => {
    const source = `
      const { parentPort } = require('node:worker_threads');
      const { JobManager, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter } = require('framewright');
      parentPort.on('message', (what) => {
        if (what === 'exit') process.exit(3);
        throw new Error('a bug of the user');
      });
      const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      const chunks = Array.from({ length: 20 }, (_, id) => ({ id, argv: ['sh', '-c', 'trap "" TERM; sleep 1000 & echo $$ $!; wait'] }));
      manager.submitJob({ chunks }, { concurrency: 20, onChunkStdout: (id, data) => parentPort.postMessage(data) });
    `;
    const ended = await script(`${THREADS}
      import { readFileSync } from 'node:fs';
      const [{ thread, ended }] = threads(1, ${JSON.stringify(source)});
      let text = '';
      await new Promise((resolve) => thread.on('message', (data) => {
        text += data;
        if (text.split('\\n').length > 20) resolve();
      }));
      ${action}
      const pids = text.trim().split(/\\s+/).map(Number);
      // While this process goes on: it is the end of the thread that ends them.
      const alive = (pid) => {
        try {
          return !/^\\d+ \\(.*\\) [ZX]/.test(readFileSync('/proc/' + pid + '/stat', 'utf8'));
        } catch {
          return false;
        }
      };
      const end = performance.now() + 3000;
      while (pids.some(alive) && performance.now() < end) await new Promise((resolve) => setImmediate(resolve));
      console.log(JSON.stringify({ pids, left: pids.filter(alive) }));
    `);
    expect(ended).toMatchObject(QUIET);
    const { pids, left } = JSON.parse(ended.stdout) as { pids: number[]; left: number[] };
    expect(pids).toHaveLength(40);
    expect(left).toEqual([]);
    await gone(pids);
  });

  it('[F150] process.exit() of the main thread among the processes of many threads leaves none behind', async () => {
    const source = `
      const { parentPort } = require('node:worker_threads');
      const { JobExecutor, LocalWorkerAdapter } = require('framewright');
      const chunks = Array.from({ length: 5 }, (_, id) => ({ id, argv: ['sh', '-c', 'echo $$; exec sleep 1000'] }));
      new JobExecutor(new LocalWorkerAdapter()).execute({ chunks }, { concurrency: 5, onChunkStdout: (id, data) => parentPort.postMessage(data) });
    `;
    const ended = await script(`${THREADS}
      let count = 0;
      for (const { thread } of threads(8, ${JSON.stringify(source)})) {
        thread.on('message', (data) => {
          process.stdout.write(data);
          count += data.trim().split('\\n').length;
          if (count === 40) process.exit(4);
        });
      }
    `);
    expect(ended).toMatchObject({ code: 4, signal: null, stderr: '' });
    expect(ended.lines).toHaveLength(40);
    await gone(ended.lines.map(Number));
  });
});
