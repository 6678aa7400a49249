import { mkdir, mkdtemp, readFile, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, type JobSpecInput, type SubmitOptions, type WorkerJob } from 'framewright';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, chunkResult } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';
import { traceOf } from './support/trace.js';
import { turns } from './support/turns.js';

const idle = { execute: () => Promise.resolve() };
const paths = (issues: { path: string }[] | undefined): string[] => (issues ?? []).map((issue) => issue.path);

/** The issues of a spec that is refused. */
async function refused(spec: unknown, options?: unknown): Promise<{ path: string; message: string }[]> {
  const repository = new InMemoryJobRepository();
  const manager = open(repository, idle);
  const error = await rejection(manager.submitJob(spec as JobSpecInput, options as SubmitOptions));
  expect(error.code).toBe('VALIDATION');
  expect(await repository.list()).toEqual([]);
  return error.issues ?? [];
}

const HELIOS = {
  id: 'video-42',
  metadata: { totalFrames: 300, fps: 29.97, width: 1920, height: 1080, duration: 10.01 },
  chunks: [
    { id: 0, startFrame: 0, frameCount: 150, outputFile: './chunks/chunk_0.mp4', command: 'npx helios render "my page.html" --start-frame 0' },
    { id: 1, startFrame: 150, frameCount: 150, outputFile: './chunks/chunk_1.mp4', command: 'npx helios render "my page.html" --start-frame 150' },
  ],
  mergeCommand: 'npx helios merge out.mp4 chunks/chunk_0.mp4 chunks/chunk_1.mp4',
  assetsUrl: 's3://bucket/assets',
};

describe('a job spec', () => {
  it('[F1] a Helios job file is taken as it is and given back unchanged, to readers and to the executor', async () => {
    const executor = new OwnExecutor();
    const manager = open(new InMemoryJobRepository(), executor);
    const id = await manager.submitJob(HELIOS);
    const job = await manager.waitForJob(id);
    expect(job.state).toBe('completed');
    expect(job.spec).toEqual(HELIOS);
    expect(executor.calls[0]!.spec).toEqual(HELIOS);
    expect(id).not.toBe(HELIOS.id);
  });

  it('[F1] fields that nobody knows come back unchanged, at every level', async () => {
    const spec = {
      ...HELIOS,
      metadata: { ...HELIOS.metadata, codec: 'av1', nested: { deep: [1, null, { x: '\u2028"\\' }] } },
      chunks: HELIOS.chunks.map((chunk) => ({ ...chunk, gpu: 'any', weights: [0.1, 1e-7, 1e21, -0.5] })),
      payload: { scene: { objects: [{ id: 9007199254740991 }] }, text: 'žluťoučký \u{1F3A5}', empty: {}, none: null },
      'x-custom': true,
    };
    const manager = open(new InMemoryJobRepository(), idle);
    const job = await manager.waitForJob(await manager.submitJob(spec));
    expect(job.spec).toEqual(spec);
    expect(JSON.stringify(job.spec.payload)).toBe(JSON.stringify(spec.payload));
  });

  it('[F1] everything but the chunks may be missing, and a job without a spec id or metadata runs', async () => {
    const manager = open(new InMemoryJobRepository(), idle);
    const spec = { chunks: [{ id: 0, command: 'render' }] };
    const job = await manager.waitForJob(await manager.submitJob(spec));
    expect(job).toMatchObject({ state: 'completed', totalChunks: 1, completedChunks: 1, progress: 100 });
    expect(job.spec).toEqual(spec);
  });

  it('[F1] a payload nested a thousand levels deep is kept', async () => {
    let payload: unknown = 'the bottom';
    for (let n = 0; n < 1000; n += 1) payload = n % 2 === 0 ? { down: payload } : [payload];
    const manager = open(new InMemoryJobRepository(), idle);
    const job = await manager.waitForJob(await manager.submitJob({ ...HELIOS, payload }));
    expect(JSON.stringify(job.spec.payload)).toBe(JSON.stringify(payload));
  });

  it('[F2] every problem of a spec is in one error, each with its path and its reason', async () => {
    const issues = await refused({
      metadata: { totalFrames: -1, fps: 'fast', width: 1, height: 1, duration: 1 },
      chunks: [
        { id: 0, startFrame: -1, frameCount: 0, outputFile: 'a.mp4', command: '' },
        { id: 0, startFrame: 1.5, outputFile: 'b.mp4', command: 'echo "open' },
        { id: 'two', outputFile: 7, command: 'ok' },
        { id: 3, outputFile: 'same.mp4', command: 'ok' },
        { id: 4, outputFile: 'same.mp4', command: 'ok', argv: ['ok', 5] },
        'no chunk at all',
        { id: 6, frameStep: 0, command: 'ok' },
      ],
      mergeCommand: "join 'open",
    });
    expect(paths(issues)).toEqual(
      expect.arrayContaining([
        'metadata.totalFrames', 'metadata.fps', 'mergeCommand',
        'chunks[0].startFrame', 'chunks[0].frameCount',
        'chunks[1].startFrame',
        'chunks[2].id', 'chunks[2].outputFile',
        'chunks[4].argv', 'chunks[5]', 'chunks[6].frameStep',
      ]),
    ); // prettier-ignore
    for (const { message } of issues) expect(message).not.toBe('');
  });

  it('[F2] a chunk that has one wrong type still has its other problems told', async () => {
    const issues = await refused({
      chunks: [
        { id: 0, outputFile: 'same.mp4', command: 'ok' },
        { id: 0, startFrame: '5', outputFile: 'same.mp4', command: '' },
      ],
    });
    expect(paths(issues).sort()).toEqual(['chunks[1].command', 'chunks[1].id', 'chunks[1].outputFile', 'chunks[1].startFrame']);
  });

  it.each<[string, unknown, string]>([
    ['an id twice', { chunks: [{ id: 7, command: 'a' }, { id: 3, command: 'a' }, { id: 7, command: 'a' }] }, 'chunks[2].id'],
    ['a fractional id', { chunks: [{ id: 0.5, command: 'a' }] }, 'chunks[0].id'],
    ['a negative id', { chunks: [{ id: -1, command: 'a' }] }, 'chunks[0].id'],
    ['an id beyond exact integers', { chunks: [{ id: 2 ** 53, command: 'a' }] }, 'chunks[0].id'],
    ['a huge id', { chunks: [{ id: 1e300, command: 'a' }] }, 'chunks[0].id'],
    ['an id that is NaN', { chunks: [{ id: NaN, command: 'a' }] }, 'chunks[0].id'],
    ['no id', { chunks: [{ command: 'a' }] }, 'chunks[0].id'],
    ['a negative startFrame', { chunks: [{ id: 0, command: 'a', startFrame: -5 }] }, 'chunks[0].startFrame'],
    ['a startFrame that is NaN', { chunks: [{ id: 0, command: 'a', startFrame: NaN }] }, 'chunks[0].startFrame'],
    ['a startFrame that is null', { chunks: [{ id: 0, command: 'a', startFrame: null }] }, 'chunks[0].startFrame'],
    ['a frameCount of 0', { chunks: [{ id: 0, command: 'a', frameCount: 0 }] }, 'chunks[0].frameCount'],
    ['a frameCount of Infinity', { chunks: [{ id: 0, command: 'a', frameCount: Infinity }] }, 'chunks[0].frameCount'],
    ['a frameCount that is text', { chunks: [{ id: 0, command: 'a', frameCount: '10' }] }, 'chunks[0].frameCount'],
    ['a frameStep that is NaN', { chunks: [{ id: 0, command: 'a', frameStep: NaN }] }, 'chunks[0].frameStep'],
    ['an empty command', { chunks: [{ id: 0, command: ' \t ' }] }, 'chunks[0].command'],
    ['no command', { chunks: [{ id: 0 }] }, 'chunks[0].command'],
    ['a command that is null', { chunks: [{ id: 0, command: null, argv: ['a'] }] }, 'chunks[0].command'],
    ['a command with NUL', { chunks: [{ id: 0, command: 'a \0 b' }] }, 'chunks[0].command'],
    ['an empty argv', { chunks: [{ id: 0, argv: [] }] }, 'chunks[0].argv'],
    ['an argv without a program', { chunks: [{ id: 0, argv: ['', 'x'] }] }, 'chunks[0].argv'],
    ['an argv that is null', { chunks: [{ id: 0, command: 'a', argv: null }] }, 'chunks[0].argv'],
    ['an argv with NUL', { chunks: [{ id: 0, argv: ['a', 'b\0'] }] }, 'chunks[0].argv'],
    ['an empty outputFile', { chunks: [{ id: 0, command: 'a', outputFile: '' }] }, 'chunks[0].outputFile'],
    ['an outputFile that is null', { chunks: [{ id: 0, command: 'a', outputFile: null }] }, 'chunks[0].outputFile'],
    ['an outputFile with NUL', { chunks: [{ id: 0, command: 'a', outputFile: 'a\0b' }] }, 'chunks[0].outputFile'],
    ['one output named twice', { chunks: [{ id: 0, command: 'a', outputFile: 'o' }, { id: 1, command: 'a', outputFile: 'o' }] }, 'chunks[1].outputFile'],
    ['one output in two spellings', { chunks: [{ id: 0, command: 'a', outputFile: 'd/o' }, { id: 1, command: 'a', outputFile: './d//x/../o' }] }, 'chunks[1].outputFile'],
    ['a chunk that is an array', { chunks: [[0, 0, 1, 1, 'o', 'c', null]] }, 'chunks[0]'],
    ['a chunk that is null', { chunks: [null] }, 'chunks[0]'],
    ['chunks that are no array', { chunks: { length: 1 } }, 'chunks'],
    ['chunks that are null', { chunks: null }, 'chunks'],
    ['metadata that is no object', { metadata: [], chunks: [] }, 'metadata'],
    ['metadata with NaN', { metadata: { fps: NaN }, chunks: [] }, 'metadata.fps'],
    ['metadata with Infinity', { metadata: { duration: Infinity }, chunks: [] }, 'metadata.duration'],
    ['a merge command that is no text', { chunks: [], mergeCommand: 5 }, 'mergeCommand'],
    ['an assetsUrl that is no text', { chunks: [], assetsUrl: {} }, 'assetsUrl'],
    ['an id that is no text', { chunks: [], id: 5 }, 'id'],
    ['a plan beside chunks', { chunks: [], plan: { totalFrames: 1, chunkSize: 1, outputFile: 'a', command: 'b' } }, 'plan'],
    ['a plan that is an array', { plan: [3, 0, 1, null, null, 'o{chunkId}', 'c'] }, 'plan'],
  ])('[F2] %s is refused with its path before anything is stored', async (_, spec, path) => {
    expect(paths(await refused(spec))).toContain(path);
  }); // prettier-ignore

  it('[F2] problems in the thousandth and later chunks have their own places too', async () => {
    const chunks = Array.from({ length: 2500 }, (_, id) => ({ id, command: 'a', outputFile: `${id}` }));
    chunks[1999] = { id: 5, command: 'a', outputFile: 'x' };
    chunks[2100] = { id: 2100, command: 'a', outputFile: '7' };
    chunks[2400] = { id: 2400, command: "'", outputFile: 'y' };
    expect(paths(await refused({ chunks }))).toEqual(['chunks[1999].id', 'chunks[2100].outputFile', 'chunks[2400].command']);
  });

  describe('[F1] [F2] of more than a thousand chunks', () => {
    const many = (odd: Record<string, unknown>): unknown => {
      const chunks = Array.from({ length: 1500 }, (_, id) => ({ id, startFrame: id * 2, frameCount: 2, outputFile: `o/${id}.mp4`, command: `render ${id}` }));
      return { chunks: [...chunks, { id: 1500, startFrame: 3000, frameCount: 2, outputFile: 'o/last', command: 'render', ...odd }] };
    };
    const few = (odd: Record<string, unknown>): unknown => ({ chunks: [{ id: 0, startFrame: 0, frameCount: 2, outputFile: 'o/last', command: 'render', ...odd }] });

    it.each([
      [{ outputFile: 'a "b" \\ c\t\n.mp4' }],
      [{ command: `render 'it''s' "ü 漢 \u{1F3AC}" \u0001` }],
      [{ startFrame: -0 }],
      [{ startFrame: Number.MAX_SAFE_INTEGER - 1, frameCount: 1 }],
    ])('comes back as it was with %o', async (odd) => {
      const manager = open(new InMemoryJobRepository(), idle);
      const spec = many(odd) as JobSpecInput;
      const id = await manager.submitJob(spec);
      expect(JSON.parse(JSON.stringify((await manager.getJob(id))!.spec.chunks))).toEqual(JSON.parse(JSON.stringify(spec.chunks)));
    });

    it.each([
      [{ command: 'a\0b' }], [{ outputFile: 'a\0b' }], [{ command: '' }], [{ outputFile: '' }], [{ outputFile: 'a\ud800b' }], [{ startFrame: NaN }],
      [{ frameCount: 0 }], [{ frameCount: 1.5 }], [{ startFrame: -1 }], [{ startFrame: 2 ** 53 }], [{ id: -1 }], [{ id: 1.5 }], [{ command: "'" }],
    ])('is refused with %o as a small one is', async (odd) => {
      const big = await refused(many(odd));
      const small = await refused(few(odd));
      // What is no text is told with the place in its own.
      const told = (message: string): string => message.replace(/ at line .*/, '');
      expect(big.map(({ path, message }) => [path.replace('[1500]', '[0]'), told(message)])).toEqual(small.map(({ path, message }) => [path, told(message)]));
    });
  });

  it('[F2] chunks without frames, output or command are taken when a function renders them', async () => {
    const seen: number[] = [];
    const manager = open(
      new InMemoryJobRepository(),
      JobExecutor.fromFunction(async (chunk) => void seen.push(chunk.id)),
    );
    const job = await manager.waitForJob(await manager.submitJob({ chunks: [{ id: 4 }, { id: 2 }, { id: 9 }] }));
    expect(job).toMatchObject({ state: 'completed', progress: 100, completedChunks: 3 });
    expect(seen).toEqual([4, 2, 9]);
  });

  it('[F2] the highest exact integers are taken', async () => {
    const manager = open(new InMemoryJobRepository(), idle);
    const spec = { chunks: [{ id: Number.MAX_SAFE_INTEGER, startFrame: Number.MAX_SAFE_INTEGER, frameCount: 1, command: 'a' }] };
    expect((await manager.waitForJob(await manager.submitJob(spec))).spec).toEqual(spec);
  });

  it('[F3] a job without chunks runs its merge and completes with a progress of 100', async () => {
    const execute = vi.fn(async (_: WorkerJob) => chunkResult);
    const manager = open(new InMemoryJobRepository(), new JobExecutor({ execute }));
    const events = traceOf(manager);
    const job = await manager.waitForJob(await manager.submitJob({ chunks: [], mergeCommand: 'join --all {jobId}' }));
    expect(job).toMatchObject({ state: 'completed', progress: 100, totalChunks: 0, completedChunks: 0 });
    expect(execute.mock.calls.map(([{ command, args }]) => [command, ...(args ?? [])])).toEqual([['join', '--all', job.id]]);
    const progress = events.filter((event) => event.type === 'job.progress').map((event) => event.progress);
    for (const value of progress) expect(Number.isFinite(value)).toBe(true);
    expect(events.map((event) => event.type)).toEqual(expect.arrayContaining(['merge.started', 'merge.completed', 'job.completed']));
  });

  it('[F3] a job with neither chunks nor merge completes, whoever executes it', async () => {
    for (const executor of [idle, new JobExecutor(new LocalWorkerAdapter()), JobExecutor.fromFunction(async () => undefined)]) {
      for (const spec of [{ chunks: [] }, {}]) {
        const manager = open(new InMemoryJobRepository(), executor);
        const job = await manager.waitForJob(await manager.submitJob(spec));
        expect(job).toMatchObject({ state: 'completed', progress: 100, totalChunks: 0 });
      }
    }
  });

  it('[F3] the merge of a job without chunks that fails is told as its failure', async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
    const job = await manager.waitForJob(await manager.submitJob({ chunks: [], mergeCommand: "sh -c 'exit 3'" }));
    expect(job).toMatchObject({ state: 'failed', failure: { code: 'MERGE_FAILED', exitCode: 3 } });
    expect(job.progress).toBeLessThan(100);
  });

  it('[F9] spec and options are never changed, and a caller who changes them later changes no job', async () => {
    const gate = deferred();
    const executor = new OwnExecutor(() => gate.promise);
    for (const { create } of repositories) {
      const manager = open(create(), executor);
      const spec = structuredClone(HELIOS) as typeof HELIOS & JobSpecInput;
      const options = { concurrency: 2, env: { A: '1' }, meta: { owner: { name: 'me' } }, completedChunkIds: [0], timeouts: { jobMs: 60_000 } };
      const before = structuredClone({ spec, options });
      const freeze = <T>(value: T): T => {
        if (typeof value === 'object' && value !== null) Object.values(Object.freeze(value)).forEach(freeze);
        return value;
      };
      const id = await manager.submitJob(freeze(spec), freeze(options));
      expect({ spec, options }).toEqual(before);
      await manager.cancelJob(id);
    }
    gate.resolve();

    const manager = open(new InMemoryJobRepository(), idle);
    const spec = structuredClone(HELIOS);
    const options = { meta: { owner: { name: 'me' } } };
    const submitted = manager.submitJob(spec, options);
    spec.chunks[0]!.command = 'changed';
    spec.metadata.fps = 1;
    options.meta.owner.name = 'changed';
    const job = await manager.waitForJob(await submitted);
    expect(job.spec).toEqual(HELIOS);
    expect(job.meta).toMatchObject({ owner: { name: 'me' } });
  });

  it('[F9] what is read is a copy of its own each time', async () => {
    const manager = open(new InMemoryJobRepository(), idle);
    const id = await manager.submitJob(HELIOS, { meta: { a: { b: 1 } } });
    const first = await manager.waitForJob(id);
    const kept = structuredClone(first);
    first.spec.chunks[0]!.command = 'changed';
    first.spec.metadata.fps = 1;
    (first.meta!['a'] as { b: number }).b = 2;
    first.tags.push('changed');
    first.state = 'failed';
    expect(await manager.getJob(id)).toEqual(kept);
    expect((await manager.listJobs())[0]).toEqual(kept);
    const [chunk] = await manager.chunks(id);
    chunk!.state = 'failed';
    expect((await manager.chunks(id))[0]!.state).toBe('completed');
  });

  it('[F9] an executor that changes what it is given changes neither the job nor the next run', async () => {
    const specs: unknown[] = [];
    const manager = open(new InMemoryJobRepository(), {
      execute: (spec, options) => {
        specs.push(structuredClone(spec));
        spec.chunks.length = 0;
        spec.metadata.fps = 0;
        options!.meta!['a'] = 'changed';
        return specs.length === 1 ? Promise.reject(new Error('once more')) : Promise.resolve();
      },
    });
    const id = await manager.submitJob(HELIOS, { meta: { a: 1 } });
    expect((await manager.waitForJob(id)).state).toBe('failed');
    await manager.resumeJob(id);
    const job = await manager.waitForJob(id);
    expect(specs).toEqual([HELIOS, HELIOS]);
    expect(job.spec).toEqual(HELIOS);
    expect(job.meta).toEqual({ a: 1 });
  });
});

describe('paths that leave the job folder', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'framewright-spec-'));
    await mkdir(join(folder, 'job'));
    await mkdir(join(folder, 'outside'));
  });
  afterEach(async () => {
    await rm(folder, { recursive: true, force: true });
  });

  it.each([['/etc/x.mp4'], ['../x.mp4'], ['a/../../x.mp4'], ['./../x.mp4'], ['a/b/../../../job/x.mp4'], ['..']])(
    '[F4] outputFile %s is refused without allowOutsidePaths and taken with it',
    async (outputFile) => {
      const spec = { chunks: [{ id: 0, command: 'a', outputFile }] };
      const issues = await refused(spec, { allowOutsidePaths: false, jobDir: join(folder, 'job') });
      expect(paths(issues)).toEqual(['chunks[0].outputFile']);
      const manager = open(new InMemoryJobRepository(), idle);
      await manager.submitJob(spec, { jobDir: join(folder, 'job') });
    },
  );

  it.each([['x.mp4'], ['a/../x.mp4'], ['./a/b/x.mp4'], ['..x.mp4'], ['a/..b/x.mp4']])('[F4] outputFile %s stays inside and is taken', async (outputFile) => {
    const manager = open(new InMemoryJobRepository(), idle);
    await manager.submitJob({ chunks: [{ id: 0, command: 'a', outputFile }] }, { allowOutsidePaths: false, jobDir: join(folder, 'job') });
  });

  it.each([['/x-{chunkId}'], ['../x-{chunkId}'], ['{chunkId}/../../x-{chunkId}']])('[F4] a plan whose outputs are %s is refused', async (outputFile) => {
    const plan = { totalFrames: 4, chunkSize: 1, outputFile, command: 'a' };
    expect(paths(await refused({ plan }, { allowOutsidePaths: false }))).toEqual(['plan.outputFile']);
  });

  it.each<['processes' | 'an adapter' | 'a function', string]>([
    ['processes', 'link/x.mp4'], ['an adapter', 'link/x.mp4'], ['a function', 'link/x.mp4'],
    ['processes', 'link/new/x.mp4'], ['processes', 'file.mp4'], ['an adapter', 'file.mp4'],
  ])('[F4] %s write nothing through a symbolic link that leaves the folder: %s', async (kind, outputFile) => {
    await symlink(join(folder, 'outside'), join(folder, 'job', 'link'));
    await writeFile(join(folder, 'outside.mp4'), 'untouched');
    await symlink(join(folder, 'outside.mp4'), join(folder, 'job', 'file.mp4'));
    const execute = vi.fn(async () => chunkResult);
    const executor =
      kind === 'processes' ? new JobExecutor(new LocalWorkerAdapter()) : kind === 'an adapter' ? new JobExecutor({ execute }) : JobExecutor.fromFunction(execute);
    const manager = open(new InMemoryJobRepository(), executor);
    const spec = { chunks: [{ id: 0, command: `sh -c 'echo written > "$1"' sh {outputFile}`, outputFile }] };
    // Refused at once, or when the chunk would run: in both cases nothing runs.
    const outcome = await manager.submitJob(spec, { allowOutsidePaths: false, jobDir: join(folder, 'job') }).then(
      async (id) => (await manager.waitForJob(id)).state,
      (error: unknown) => (error as { code: string }).code,
    );
    expect(['failed', 'VALIDATION']).toContain(outcome);
    expect(execute).not.toHaveBeenCalled();
    expect(await readdir(join(folder, 'outside'))).toEqual([]);
    expect(await readFile(join(folder, 'outside.mp4'), 'utf8')).toBe('untouched');
  }); // prettier-ignore

  it('[F4] a link that stays in the folder is followed', async () => {
    await mkdir(join(folder, 'job', 'real'));
    await symlink(join(folder, 'job', 'real'), join(folder, 'job', 'link'));
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
    const spec = { chunks: [{ id: 0, command: `sh -c 'echo written > "$1"' sh {outputFile}`, outputFile: 'link/x.mp4' }] };
    const job = await manager.waitForJob(await manager.submitJob(spec, { allowOutsidePaths: false, jobDir: join(folder, 'job') }));
    expect(job.state).toBe('completed');
    expect(await readdir(join(folder, 'job', 'real'))).toEqual(['x.mp4']);
  });
});

describe('taking a job', () => {
  it.each(repositories)('[F11] submit resolves only once the record is kept ($kind)', async ({ create }) => {
    const repository = create();
    const gate = deferred();
    const save = repository.save.bind(repository);
    let begun = 0;
    repository.save = async (job) => {
      begun += 1;
      if (begun === 1) await gate.promise;
      await save(job);
    };
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    let resolved = false;
    const submitted = manager.submitJob(specOf(1), { id: 'job' }).then(() => (resolved = true));
    await turns(20);
    expect([begun, resolved, executor.calls.length]).toEqual([1, false, 0]);
    expect(await repository.list()).toEqual([]);
    gate.resolve();
    await submitted;
    expect(await repository.get('job')).toMatchObject({ id: 'job' });
    expect((await manager.waitForJob('job')).state).toBe('completed');
  });

  it.each(repositories)('[F11] a store that refuses the record rejects the submit, and nothing runs or is told ($kind)', async ({ create }) => {
    const repository = create();
    const cause = new Error('the table is read-only');
    const save = vi.spyOn(repository, 'save').mockRejectedValueOnce(cause);
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    const events = traceOf(manager);
    const error = await rejection(manager.submitJob(specOf(2), { id: 'job' }));
    expect(error).toMatchObject({ code: 'STORE_UNAVAILABLE', cause });
    expect(error.message).toContain('the table is read-only');
    await turns(20);
    expect(executor.calls).toEqual([]);
    expect(events).toEqual([]);
    expect(await manager.getJob('job')).toBeUndefined();
    expect(await manager.listJobs()).toEqual([]);
    expect(save).toHaveBeenCalledTimes(1);
    // The id is free: the refused job never was.
    await manager.submitJob(specOf(2), { id: 'job' });
    expect((await manager.waitForJob('job')).state).toBe('completed');
    expect(executor.calls).toHaveLength(1);
  });

  it('[F11] a store that throws at once, not by a promise, rejects the submit too', async () => {
    const repository = new InMemoryJobRepository();
    repository.save = () => {
      throw new Error('not even a promise');
    };
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    expect(await rejection(manager.submitJob(specOf(1)))).toMatchObject({ code: 'STORE_UNAVAILABLE' });
    await turns(10);
    expect(executor.calls).toEqual([]);
  });

  it('[F12] without an id the job gets a random UUID', async () => {
    const manager = open(new InMemoryJobRepository(), idle);
    const ids = await Promise.all(Array.from({ length: 50 }, () => manager.submitJob(HELIOS)));
    for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(new Set(ids).size).toBe(50);
  });

  it.each([['a'], ['A-Z_0.9'], ['x'.repeat(128)], ['-'], ['a..b'], ['con']])('[F12] the id %s is taken as it is', async (id) => {
    const manager = open(new InMemoryJobRepository(), idle);
    expect(await manager.submitJob(HELIOS, { id })).toBe(id);
    expect((await manager.waitForJob(id)).id).toBe(id);
  });

  it.each(repositories)('[F12] ids that are no safe names are refused, and nothing is stored ($kind)', async ({ create }) => {
    const repository = create();
    const save = vi.spyOn(repository, 'save');
    const manager = open(repository, idle);
    const bad: unknown[] = [
      '', '.', '..', '.hidden', '../up', 'a/b', 'a\\b', 'a\0', '\0', 'a b', 'a\n', 'é', '\ud800', 'x'.repeat(129), 'a:b', 'a%2fb', 5, null, {}, ['a'], true,
    ]; // prettier-ignore
    for (const id of bad) {
      const error = await rejection(manager.submitJob(HELIOS, { id: id as string }));
      expect(error.code, JSON.stringify(id)).toBe('VALIDATION');
      expect(paths(error.issues), JSON.stringify(id)).toEqual(['id']);
    }
    expect(save).not.toHaveBeenCalled();
    expect(await repository.list()).toEqual([]);
  });

  it.each(repositories)('[F12] an id that exists is refused with DUPLICATE, and the job that has it is unchanged ($kind)', async ({ create }) => {
    const manager = open(create(), idle);
    await manager.submitJob(HELIOS, { id: 'mine', meta: { first: true } });
    const before = await manager.waitForJob('mine');
    const events = traceOf(manager);
    expect(await rejection(manager.submitJob(specOf(5), { id: 'mine', meta: { first: false } }))).toMatchObject({ code: 'DUPLICATE' });
    expect(await manager.getJob('mine')).toEqual(before);
    expect(events).toEqual([]);
  });

  it('[F12] of many submits with one id at the same time exactly one is taken', async () => {
    for (const { create } of repositories) {
      const executor = new OwnExecutor();
      const manager = open(create(), executor);
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => manager.submitJob(HELIOS, { id: 'mine' })));
      expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
      for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ code: 'DUPLICATE' });
      await manager.waitForJob('mine');
      expect(executor.calls).toHaveLength(1);
    }
  });
});
