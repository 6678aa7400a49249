/** The options that a job was submitted with are kept with it, for whoever goes on with it. */
import { ConcatStitcher, JobExecutor, LocalWorkerAdapter, type JobExecutionOptions } from 'framewright';
import { describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { OwnExecutor, whenAborted } from './support/own-executor.js';
import { Peer } from './support/peer.js';
import { shared, stores } from './support/repositories.js';
import { shellJob } from './support/shell.js';
import { specOf } from './support/specs.js';

const OPTIONS = {
  concurrency: 3,
  retries: 2,
  retryDelay: 7,
  crashRetries: 5,
  failurePolicy: 'continue',
  timeouts: { chunkMs: 60_000, mergeMs: 50_000, jobMs: 40_000, noProgressMs: 30_000, startMs: 20_000 },
  verifyOutput: 'exists',
  progressPattern: 'at (?<frame>\\d+)',
  cleanupChunks: true,
  hashOutputs: true,
  allowOutsidePaths: false,
  jobDir: '/srv/renders',
  env: { MODE: 'best', 'ODD NAME': 'é "' },
  outputFile: 'film.mp4',
  merge: true,
  meta: { scene: 7 },
} satisfies JobExecutionOptions;

describe.each(stores)('[F17] the options of a job in $kind', ({ create }) => {
  it('are given to the executor of another manager that resumes it, and those given there win', async () => {
    const store = create();
    const first = open(await store.open(), new OwnExecutor((_, signal) => whenAborted(signal)));
    const started = new Promise((resolve) => first.once('job.started', resolve));
    const id = await first.submitJob(specOf(3), OPTIONS);
    await started;
    await first.pauseJob(id);
    await first.close();
    const executor = new OwnExecutor();
    const second = open(await store.open(), executor);
    await second.resumeJob(id, { retries: 9, env: { MODE: 'fast' } });
    expect((await second.waitForJob(id)).state).toBe('completed');
    const { meta: _, ...kept } = OPTIONS;
    expect(executor.calls[0]!.options).toMatchObject({ ...kept, retries: 9, env: { MODE: 'fast' } });
    // What was changed by a resume is kept for the next one.
    expect((await second.getJob(id))!.meta).toEqual(OPTIONS.meta);
  });

  it('rule the chunks of our executor in another manager: folder, environment, attempts, merge', async () => {
    const folder = new Folder();
    const store = create();
    const spec = shellJob(3, 'echo "$1 $MODE" >> runs; test -e go || exit 1; [ $1 != 2 ] || test -e again || { touch again; exit 1; }; printf "$1$MODE" > chunk-$1.txt');
    const first = open(await store.open(), new JobExecutor(new LocalWorkerAdapter()));
    const id = await first.submitJob(spec, {
      jobDir: folder.path,
      env: { MODE: 'x' },
      retries: 1,
      retryDelay: 0,
      concurrency: 1,
      outputFile: 'whole.txt',
      stitcher: new ConcatStitcher(),
    });
    expect((await first.waitForJob(id)).state).toBe('failed');
    expect(folder.lines('runs')).toEqual(['0 x', '0 x']);
    await first.close();
    folder.write('go', '');
    const second = open(await store.open(), new JobExecutor(new LocalWorkerAdapter()));
    await second.resumeJob(id);
    expect(await second.waitForJob(id)).toMatchObject({ state: 'completed', result: { bytes: 6 } });
    expect(folder.read('whole.txt')).toBe('0x1x2x');
    expect(folder.lines('runs').slice(2)).toEqual(['0 x', '1 x', '2 x', '2 x']);
  });

  it('keep a time limit', async () => {
    const store = create();
    const first = open(await store.open(), new OwnExecutor((_, signal) => whenAborted(signal)));
    const started = new Promise((resolve) => first.once('job.started', resolve));
    const id = await first.submitJob(shellJob(1, 'exec sleep 60'), { timeouts: { chunkMs: 60 } });
    await started;
    await first.pauseJob(id);
    const second = open(await store.open(), new JobExecutor(new LocalWorkerAdapter()));
    await second.resumeJob(id);
    expect(await second.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'TIMEOUT' } });
  });
});

describe.each(shared)('[F17] the options of a job in $kind that one process submits', ({ create }) => {
  it('rule its run in another one', async () => {
    const folder = new Folder();
    const store = create();
    const peer = await Peer.start();
    await peer.open(store.url);
    await peer.run(`await kept.manager.submitJob(given.spec, { id: 'a', ...given.options, stitcher: new framewright.ConcatStitcher() })`, {
      spec: shellJob(2, 'test -e failed-$1 || { touch failed-$1; exit 1; }; printf "$1$MODE" > chunk-$1.txt'),
      options: { jobDir: folder.path, env: { MODE: 'y' }, retries: 1, retryDelay: 0, outputFile: 'whole.txt' },
    });
    await peer.kill();
    const manager = open(await store.open(), new JobExecutor(new LocalWorkerAdapter()));
    const [job] = await Promise.all([manager.waitForJob('a'), manager.run({ signal: AbortSignal.timeout(15_000) }).catch(() => undefined), manager.waitForJob('a').then(() => manager.close())]);
    expect(job).toMatchObject({ state: 'completed', metrics: { retries: 2 } });
    expect(folder.read('whole.txt')).toBe('0y1y');
  });
});
