/** Executors of users around one of ours, that do something after its chunks: an upload, a report, a check. */
import { ConcatStitcher, FramewrightError, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, type Executor, type JobExecutionOptions, type JobManager, type JobSpec, type WorkerAdapter } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { whenAborted } from './support/own-executor.js';
import { stores } from './support/repositories.js';
import { specOf } from './support/specs.js';
import { shellJob } from './support/shell.js';
import { turns, until } from './support/turns.js';

type After = (options: JobExecutionOptions) => Promise<unknown>;

class Subclass extends JobExecutor {
  constructor(
    adapter: WorkerAdapter,
    readonly after: After,
  ) {
    super(adapter);
  }

  override async execute(spec: JobSpec, options: JobExecutionOptions = {}): Promise<undefined> {
    await super.execute(spec, options);
    return (await this.after(options)) as undefined;
  }
}

const delegate = (adapter: WorkerAdapter, after: After): Executor => {
  const inner = new JobExecutor(adapter);
  return {
    async execute(spec, options = {}) {
      await inner.execute(spec, options);
      return after(options);
    },
  };
};

const wrappers: { kind: string; wrap: (adapter: WorkerAdapter, after: After) => Executor }[] = [
  { kind: 'a subclass', wrap: (adapter, after) => new Subclass(adapter, after) },
  { kind: 'a wrapper', wrap: delegate },
];

const memory = (): InMemoryJobRepository => new InMemoryJobRepository();

/** Counts its chunks. */
function counting(): { adapter: WorkerAdapter; ran: () => number } {
  let count = 0;
  const adapter: WorkerAdapter = {
    execute() {
      count += 1;
      return Promise.resolve({ exitCode: 0, stdout: '', stderr: '', durationMs: 1 });
    },
  };
  return { adapter, ran: () => count };
}

/** The job once all its chunks are done. */
async function rendered(manager: JobManager, id: string): Promise<void> {
  await until(async () => (await manager.getJob(id))?.completedChunks === 3);
}

describe.each(stores)('what comes after the chunks, in $kind', ({ create }) => {
  describe.each(wrappers)('by $kind', ({ wrap }) => {
    it('[F24] belongs to the job, which runs until it has ended', async () => {
      const upload = deferred<undefined>();
      const { adapter, ran } = counting();
      const manager = open(await create().open(), wrap(adapter, () => upload.promise));
      const id = await manager.submitJob(specOf(3));
      const over = manager.waitForJob(id);
      await rendered(manager, id);
      expect(await manager.getJob(id)).toMatchObject({ state: 'running', completedChunks: 3 });
      upload.resolve(undefined);
      expect(await over).toMatchObject({ state: 'completed', completedChunks: 3 });
      expect(ran()).toBe(3);
    });

    it('[F24] fails the job by what it throws, and is done again without the chunks', async () => {
      const { adapter, ran } = counting();
      let failing = true;
      const manager = open(await create().open(), wrap(adapter, () => (failing ? Promise.reject(new FramewrightError('CHUNK_FAILED', 'the bucket is full')) : Promise.resolve('uploaded'))));
      const id = await manager.submitJob(specOf(3));
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', error: 'the bucket is full', completedChunks: 3 });
      failing = false;
      await manager.resumeJob(id);
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', result: 'uploaded', completedChunks: 3 });
      expect(ran()).toBe(3);
    });

    it('[F24] is stopped by a cancel and by a pause', async () => {
      const { adapter, ran } = counting();
      let stay = true;
      const manager = open(await create().open(), wrap(adapter, ({ signal }) => (stay ? whenAborted(signal) : Promise.resolve())));
      const [cancelled, paused] = [await manager.submitJob(specOf(3)), await manager.submitJob(specOf(3))];
      await Promise.all([rendered(manager, cancelled), rendered(manager, paused)]);
      await manager.cancelJob(cancelled);
      expect((await manager.getJob(cancelled))?.state).toBe('cancelled');
      await manager.pauseJob(paused);
      expect((await manager.getJob(paused))?.state).toBe('paused');
      stay = false;
      await manager.resumeJob(paused);
      expect(await manager.waitForJob(paused)).toMatchObject({ state: 'completed', completedChunks: 3 });
      expect(ran()).toBe(6);
    });
  });
});

describe.each(wrappers)('$kind', ({ wrap }) => {
  it('[F88] that does not listen to a cancel is given up after the grace', async () => {
    const { adapter } = counting();
    const manager = open(memory(), wrap(adapter, () => new Promise(() => undefined)), { abortGraceMs: 20 });
    const id = await manager.submitJob(specOf(3));
    await rendered(manager, id);
    await manager.cancelJob(id);
    expect((await manager.getJob(id))?.state).toBe('cancelled');
  });
});

it('[F24] the merged output is there, and what comes after it does not replace its description', async () => {
  const folder = new Folder();
  const seen: string[] = [];
  const executor = new Subclass(new LocalWorkerAdapter(), () => {
    seen.push(folder.read('film.txt'));
    return Promise.resolve('mine');
  });
  const manager = open(memory(), executor);
  const id = await manager.submitJob(shellJob(2, 'printf "$1" > chunk-$1.txt'), { jobDir: folder.path, outputFile: 'film.txt', stitcher: new ConcatStitcher() });
  expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', result: { bytes: 2 } });
  expect(seen).toEqual(['01']);
});

describe('after a merge', () => {
  const merged = (folder: Folder, more: JobExecutionOptions = {}): JobExecutionOptions => ({ jobDir: folder.path, outputFile: 'film.txt', stitcher: new ConcatStitcher(), ...more });
  const spec = shellJob(2, 'echo x >> ran; printf "$1" > chunk-$1.txt');
  const runs = (folder: Folder): number => folder.read('ran').trim().split('\n').length;

  /** A job whose chunks are merged, and which waits for its signal then. */
  async function waiting(more: JobExecutionOptions = {}, options: ConstructorParameters<typeof JobManager>[2] = {}) {
    const folder = new Folder();
    const reached = deferred<undefined>();
    const control = { stay: true };
    const executor = new Subclass(new LocalWorkerAdapter(), ({ signal }) => {
      reached.resolve(undefined);
      return control.stay ? whenAborted(signal) : Promise.resolve();
    });
    const manager = open(memory(), executor, options);
    const id = await manager.submitJob(spec, merged(folder, more));
    await reached.promise;
    return { folder, manager, id, control };
  }

  it('[F24] a cancel, a pause and a time limit stop what comes after it', async () => {
    const cancelled = await waiting();
    await cancelled.manager.cancelJob(cancelled.id);
    expect((await cancelled.manager.getJob(cancelled.id))?.state).toBe('cancelled');
    const paused = await waiting();
    await paused.manager.pauseJob(paused.id);
    expect((await paused.manager.getJob(paused.id))?.state).toBe('paused');
    paused.control.stay = false;
    await paused.manager.resumeJob(paused.id);
    expect((await paused.manager.waitForJob(paused.id)).state).toBe('completed');
    expect(runs(paused.folder)).toBe(2);
    const late = await waiting({ timeouts: { jobMs: 1500 } });
    expect(await late.manager.waitForJob(late.id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
  });

  it.each([{ listens: true }, { listens: false }])('[F106] a manager that is closed leaves the job for the next one: listens to its signal $listens', async ({ listens }) => {
    const folder = new Folder();
    const repository = memory();
    const reached = deferred<undefined>();
    const first = open(
      repository,
      new Subclass(new LocalWorkerAdapter(), ({ signal }) => {
        reached.resolve(undefined);
        return listens ? whenAborted(signal) : new Promise(() => undefined);
      }),
    );
    const id = await first.submitJob(spec, merged(folder));
    await reached.promise;
    await first.close({ finishMs: 0, abortMs: 50 });
    expect((await repository.get(id))?.state).toBe('pending');
  });

  it('[F24] the chunks are removed only when the job is certain to complete', async () => {
    const folder = new Folder();
    let failing = true;
    const manager = open(memory(), new Subclass(new LocalWorkerAdapter(), () => (failing ? Promise.reject(new Error('no route')) : Promise.resolve())));
    const id = await manager.submitJob(spec, merged(folder, { cleanupChunks: true }));
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', error: 'no route' });
    expect(folder.has('chunk-0.txt')).toBe(true);
    failing = false;
    await manager.resumeJob(id);
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(runs(folder)).toBe(2);
    expect([folder.has('chunk-0.txt'), folder.has('chunk-1.txt'), folder.read('film.txt')]).toEqual([false, false, '01']);
  });
});

it('[F24] a signal that a subclass gives to its chunks has nothing to do with what it does afterwards', async () => {
  const { adapter } = counting();
  class Bounded extends JobExecutor {
    override async execute(spec: JobSpec, options: JobExecutionOptions = {}): Promise<undefined> {
      const own = new AbortController();
      await super.execute(spec, { ...options, signal: options.signal ? AbortSignal.any([options.signal, own.signal]) : own.signal });
      own.abort();
      await turns(3);
      return undefined;
    }
  }
  const manager = open(memory(), new Bounded(adapter));
  expect(await manager.waitForJob(await manager.submitJob(specOf(3)))).toMatchObject({ state: 'completed' });
});

it.each([
  ['fails the job', new Error('sibling'), { state: 'failed', error: 'sibling' }],
  ['cancels the job', Object.assign(new Error('enough'), { name: 'AbortError' }), { state: 'cancelled' }],
])('[F24] a subclass that gives up while its chunks run stops them, and %s', async (_, error, end) => {
  let stopped = 0;
  const begun = deferred<undefined>();
  class Impatient extends JobExecutor {
    override async execute(spec: JobSpec, options?: JobExecutionOptions): Promise<undefined> {
      const rendering = super.execute(spec, options);
      rendering.catch(() => undefined);
      await begun.promise;
      throw error;
    }
  }
  const execute: WorkerAdapter['execute'] = async ({ signal }) => {
    begun.resolve(undefined);
    return whenAborted(signal).finally(() => (stopped += 1));
  };
  const manager = open(memory(), new Impatient({ execute }));
  const id = await manager.submitJob(specOf(3));
  expect(await manager.waitForJob(id)).toMatchObject(end);
  expect(stopped).toBe(1);
});

it('[F24] a subclass that does not wait for its chunks ends with them', async () => {
  const gate = deferred<undefined>();
  const { adapter, ran } = counting();
  class Hasty extends JobExecutor {
    override execute(spec: JobSpec, options?: JobExecutionOptions): Promise<undefined> {
      void super.execute(spec, options);
      return Promise.resolve(undefined);
    }
  }
  const manager = open(memory(), new Hasty({ execute: (job) => gate.promise.then(() => adapter.execute(job)) }));
  const id = await manager.submitJob(specOf(3), { concurrency: 2 });
  await turns(10);
  expect((await manager.getJob(id))?.state).toBe('running');
  gate.resolve(undefined);
  expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
  expect(ran()).toBe(3);
});
