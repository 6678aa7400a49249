import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { gone } from './support/processes.js';
import { QUIET, script } from './support/script.js';

/** One chunk that an executor of the user's is given. */
const SPEC = `{ chunks: [{ id: 0, startFrame: 0, frameCount: 1, outputFile: 'a', command: 'true' }] }`;

/** A hundred programs that would run for ever, each telling its process id and that of a grandchild. */
const HUNDRED = `
  const repository = new InMemoryJobRepository();
  const manager = new JobManager(repository, new JobExecutor(new LocalWorkerAdapter()));
  const chunks = Array.from({ length: 100 }, (_, id) => (
    { id, startFrame: id, frameCount: 1, outputFile: id + '.txt', argv: ['sh', '-c', 'sleep 1000 & echo pids $$ $!; wait'] }
  ));
  const running = new Promise((resolve) => {
    const seen = new Set();
    globalThis.onChunkStdout = (id, data) => {
      process.stdout.write(data);
      if (seen.add(id).size === 100) resolve();
    };
  });
  const id = await manager.submitJob({ chunks }, { concurrency: 100, onChunkStdout });
`;

function pids(lines: string[]): number[] {
  return lines.flatMap((line) => (line.startsWith('pids ') ? line.slice(5).split(' ').map(Number) : []));
}

describe('a program ends by itself', () => {
  it('[F150] a script that creates a manager and forgets it exits, whatever it listens to', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      manager.on('event', () => {}).once('job.completed', () => {});
      const unread = manager.events();
      const unreadToo = manager.events({ fromSequence: 0, jobId: 'a' });
      console.log('idle');
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'idle\n' });
  });

  it('[F150] a script without anything but the import exits', async () => {
    expect(await script(`console.log(typeof JobManager);`)).toMatchObject({ ...QUIET, stdout: 'function\n' });
  });

  it('[F150] by require as well', async () => {
    const ended = await script(`
      import { createRequire } from 'node:module';
      const { JobManager: Required, InMemoryJobRepository: Repository } = createRequire(process.cwd() + '/')('framewright');
      new Required(new Repository()).on('event', () => {});
      console.log(Required === JobManager);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'true\n' });
  });

  it.each([
    ['an object', `{ execute: async () => {} }`],
    ['a function', `JobExecutor.fromFunction(async () => {})`],
    ['processes', `new JobExecutor(new LocalWorkerAdapter())`],
  ])('[F150] a manager that has done its job (%s) and is not closed lets the process exit', async (_, executor) => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), ${executor});
      manager.on('event', () => {});
      const unread = manager.events();
      const { state } = await manager.waitForJob(await manager.submitJob(${SPEC}));
      console.log(state);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'completed\n' });
  });

  it('[F150] paused, failed and cancelled jobs in a manager do not keep the process', async () => {
    const ended = await script(`
      const until = (signal) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)));
      const manager = new JobManager(new InMemoryJobRepository(), {
        execute: (spec, { signal, meta }) => (meta?.fail ? Promise.reject(new Error('no')) : until(signal)),
      });
      const started = () => new Promise((resolve) => manager.once('job.started', resolve));
      for (const method of ['pauseJob', 'cancelJob']) {
        const begun = started();
        const id = await manager.submitJob(${SPEC}, { id: method, retries: 3 });
        await begun;
        await manager[method](id);
      }
      await manager.waitForJob(await manager.submitJob(${SPEC}, { meta: { fail: true } }));
      console.log((await manager.listJobs()).map((job) => job.state).join());
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'paused,cancelled,failed\n' });
  });

  it('[F150] a waitForJob that ended by its time or by its signal keeps nothing alive', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      await manager.pauseJob(await manager.submitJob(${SPEC}, { id: 'a' }));
      await manager.waitForJob('a', { timeoutMs: 1 }).catch((error) => console.log(error.code));
      const controller = new AbortController();
      const waiting = manager.waitForJob('a', { signal: controller.signal }).catch((error) => console.log(error.code));
      controller.abort();
      await waiting;
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'TIMEOUT\nABORTED\n' });
  });

  it('[F150] an events() loop that was left keeps nothing alive', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      const events = manager.events();
      await manager.submitJob(${SPEC});
      for await (const event of events) if (event.type === 'job.completed') break;
      console.log('left');
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'left\n' });
  });

  it('[F150] and an events() loop whose signal was aborted', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      const controller = new AbortController();
      setImmediate(() => controller.abort());
      for await (const event of manager.events({ signal: controller.signal })) console.log(event.type);
      console.log('over');
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'over\n' });
  });
});

describe('what keeps the process alive', () => {
  it('[F150] a submitted job does, although nobody waits for it', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), {
        execute: async () => {
          await weakly(150);
          console.log('executed');
        },
      });
      manager.on('job.completed', () => console.log('completed'));
      await manager.submitJob(${SPEC});
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'executed\ncompleted\n' });
  });

  it('[F150] a chunk function that waits for an unref\'d timer does, and every job queued behind it', async () => {
    const ended = await script(`
      const executor = JobExecutor.fromFunction(async (chunk, { jobId }) => {
        await weakly(60);
        console.log(jobId + chunk.id);
      });
      const manager = new JobManager(new InMemoryJobRepository(), executor, { maxConcurrentJobs: 1 });
      for (const id of ['a', 'b']) await manager.submitJob({ chunks: [{ id: 0 }, { id: 1 }] }, { id });
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'a0\na1\nb0\nb1\n' });
  });

  it('[F150] running processes do', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      manager.on('job.completed', () => console.log('completed'));
      manager.submitJob({ chunks: [{ id: 0, command: 'sleep 0.15' }] });
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'completed\n' });
  });

  it('[F150] the delay before another attempt does', async () => {
    const ended = await script(`
      let calls = 0;
      const executor = JobExecutor.fromFunction(async () => {
        calls += 1;
        if (calls === 1) throw new Error('once');
        console.log('attempt', calls);
      });
      const manager = new JobManager(new InMemoryJobRepository(), executor);
      manager.submitJob({ chunks: [{ id: 0 }] }, { retries: 1, retryDelay: 150 });
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'attempt 2\n' });
  });

  it('[F150] a pending waitForJob does, though nothing runs', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      await manager.pauseJob(await manager.submitJob(${SPEC}, { id: 'a' }));
      weakly(150).then(() => manager.cancelJob('a'));
      const { state } = await manager.waitForJob('a');
      console.log(state);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'cancelled\n' });
  });

  it('[F150] an events() loop that is being read does', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      weakly(150).then(() => manager.submitJob(${SPEC}));
      for await (const event of manager.events()) {
        console.log(event.type);
        break;
      }
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'job.submitted\n' });
  });

  it('[F150] an executor alone does while it executes, and no longer', async () => {
    const ended = await script(`
      await JobExecutor.fromFunction(() => weakly(100)).execute({ chunks: [{ id: 0 }] });
      await new JobExecutor(new LocalWorkerAdapter()).execute({ chunks: [{ id: 0, command: 'sleep 0.05' }] });
      const { exitCode } = await new LocalWorkerAdapter().execute({ command: 'sh', args: ['-c', 'sleep 0.05; exit 3'] });
      console.log(exitCode);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: '3\n' });
  });
});

describe('a closed manager', () => {
  it('[F150] lets the process exit, with listeners, iterators and a paused job', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      manager.on('event', () => {});
      const loop = (async () => { for await (const _ of manager.events()); return 'loop over'; })();
      await manager.pauseJob(await manager.submitJob(${SPEC}, { id: 'a' }));
      await manager.close();
      console.log(await loop);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'loop over\n' });
  });

  it('[F150] lets the process exit although an executor never settles', async () => {
    const ended = await script(`
      let begun;
      const started = new Promise((resolve) => (begun = resolve));
      const manager = new JobManager(new InMemoryJobRepository(), { execute: () => { begun(); return new Promise(() => {}); } });
      await manager.submitJob(${SPEC}, { id: 'a' });
      await started;
      await manager.close({ abortMs: 20 });
      console.log((await manager.getJob('a')).state);
    `);
    expect(ended).toMatchObject({ ...QUIET, stdout: 'pending\n' });
  });

  it('[F150] lets the process exit although somebody still waits for one of its jobs', async () => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), { execute: async () => {} });
      await manager.pauseJob(await manager.submitJob(${SPEC}, { id: 'a' }));
      manager.waitForJob('a').catch(() => {});
      await manager.close();
      console.log('closed');
    `, { limitMs: 5000 });
    expect(ended).toMatchObject({ ...QUIET, stdout: 'closed\n' });
  });

  it('[F150] has ended its processes', async () => {
    const ended = await script(`${HUNDRED}
      await running;
      await manager.close();
      console.log((await manager.getJob(id)).state);
    `);
    expect(ended).toMatchObject(QUIET);
    expect(ended.lines.at(-1)).toBe('pending');
    expect(pids(ended.lines)).toHaveLength(200);
    await gone(pids(ended.lines));
  });
});

describe('the process ends in the middle of work', () => {
  it('[F150] process.exit() among 100 running chunks gives its code and leaves no process behind', async () => {
    const ended = await script(`${HUNDRED}
      await running;
      process.exit(7);
    `);
    expect(ended).toMatchObject({ code: 7, signal: null, stderr: '' });
    expect(pids(ended.lines)).toHaveLength(200);
    await gone(pids(ended.lines));
  });

  it('[F150] process.exit() ends processes that ignore SIGTERM', async () => {
    const ended = await script(`
      const executor = new JobExecutor(new LocalWorkerAdapter());
      const ignoring = ['sh', '-c', 'trap "" TERM; echo pids $$; while :; do sleep 1000; done'];
      executor.execute({ chunks: [{ id: 0, argv: ignoring }] }, {
        onChunkStdout: (id, data) => { process.stdout.write(data); process.exit(0); },
      });
    `);
    expect(ended).toMatchObject(QUIET);
    expect(pids(ended.lines)).toHaveLength(1);
    await gone(pids(ended.lines));
  });

  it('[F150] an uncaught exception ends as Node ends it, and leaves no process behind', async () => {
    const ended = await script(`${HUNDRED}
      await running;
      setImmediate(() => { throw new Error('a bug of the user'); });
    `);
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(ended.stderr).toContain('a bug of the user');
    expect(ended.stderr).not.toMatch(/panicked|fatal error|framewright/i);
    expect(pids(ended.lines)).toHaveLength(200);
    await gone(pids(ended.lines));
  });

  it('[F150] so does a rejection that nobody handles', async () => {
    const ended = await script(`${HUNDRED}
      await running;
      Promise.reject(new Error('forgotten'));
    `);
    expect(ended).toMatchObject({ code: 1, signal: null });
    expect(ended.stderr).toContain('forgotten');
    expect(pids(ended.lines)).toHaveLength(200);
    await gone(pids(ended.lines));
  });

  it('[F150] the program of an adapter that was called by itself ends too', async () => {
    const ended = await script(`
      new LocalWorkerAdapter().execute({
        command: 'sh',
        args: ['-c', 'sleep 1000 & echo pids $$ $!; wait'],
        onStdout: (data) => { process.stdout.write(data); process.exit(0); },
      });
    `);
    expect(ended).toMatchObject(QUIET);
    expect(pids(ended.lines)).toHaveLength(2);
    await gone(pids(ended.lines));
  });

  it('[F150] process.exit() ends a merge', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'framewright-exit-'));
    try {
      const ended = await script(`
        import { readFileSync } from 'node:fs';
        const file = process.argv[1];
        const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
        await manager.submitJob({ chunks: [], mergeCommand: \`sh -c 'sleep 1000 & echo pids $$ $! > "$0.new"; mv "$0.new" "$0"; wait' '\${file}'\` });
        const look = () => {
          try {
            process.stdout.write(readFileSync(file, 'utf8'));
          } catch {
            return void setImmediate(look);
          }
          process.exit(9);
        };
        look();
      `, { args: [join(folder, 'pids')] });
      expect(ended).toMatchObject({ code: 9, signal: null, stderr: '' });
      expect(pids(ended.lines)).toHaveLength(2);
      await gone(pids(ended.lines));
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it.each([
    ['from a callback of a chunk', `await manager.submitJob(plan, { concurrency: 8, onChunkComplete: () => process.exit(9) });`],
    ['from a listener', `manager.on('chunk.completed', () => process.exit(9)); await manager.submitJob(plan, { concurrency: 8 });`],
    ['right after the submit', `await manager.submitJob(plan, { concurrency: 8 }); process.exit(9);`],
    ['before the submit has settled', `manager.submitJob(plan, { concurrency: 8 }); process.exit(9);`],
    ['during a cancel', `const id = await manager.submitJob(plan, { concurrency: 8 }); setImmediate(() => { manager.cancelJob(id); process.exit(9); });`],
    ['during a close', `await manager.submitJob(plan, { concurrency: 8 }); setImmediate(() => { manager.close(); setImmediate(() => process.exit(9)); });`],
    ['and an exit handler still uses the manager', `
      const id = await manager.submitJob(plan, { concurrency: 8 });
      process.on('exit', () => { manager.cancelJob(id); manager.submitJob(plan); manager.getJob(id); manager.close(); });
      manager.on('chunk.completed', () => process.exit(9));`],
  ])('[F150] process.exit() %s is clean', async (_, action) => {
    const ended = await script(`
      const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      const plan = { plan: { totalFrames: 10_000, chunkSize: 1, outputFile: '{chunkId}', command: 'true' } };
      ${action}
    `);
    expect(ended).toMatchObject({ code: 9, signal: null, stdout: '', stderr: '' });
  });
});
