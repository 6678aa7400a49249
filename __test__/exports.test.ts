import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import * as imported from 'framewright';
import { FramewrightError, InMemoryJobRepository, JobExecutor, JobManager, planChunks } from 'framewright';
import type {
  ArtifactStorage, ChunkInput, ChunkStatus, ErrorCode, Executor, JobErrorInfo, JobEvent, JobEventType, JobExecutionOptions, JobManagerOptions,
  JobMetadata, JobPriority, JobQuery, JobRepository, JobSpec, JobSpecInput, JobState, JobStatus, JobStatusInput, LocalWorkerAdapter, PlanOptions, RenderJobChunk,
  RetryPolicy, SubmitOptions, VideoStitcher, WorkerAdapter, WorkerJob, WorkerResult,
} from 'framewright';
import { describe, expect, expectTypeOf, it } from 'vitest';
import { open } from './support/managers.js';
import { OwnExecutor } from './support/own-executor.js';
import { QUIET, script } from './support/script.js';

const repository = join(import.meta.dirname, '..');
const require = createRequire(import.meta.url);
const declarations = readFileSync(join(repository, 'index.d.ts'), 'utf8');

const NAMES = [
  'ConcatStitcher', 'FfmpegStitcher', 'FileJobRepository', 'FramewrightError', 'InMemoryJobRepository', 'JobExecutor', 'JobManager', 'LocalWorkerAdapter',
  'MysqlJobRepository', 'PostgresJobRepository', 'SqliteJobRepository', 'openRepository', 'planChunks',
];

const TYPES = [
  'ArtifactStorage', 'ChunkInput', 'ChunkLog', 'ChunkStatus', 'ErrorCode', 'Executor', 'JobErrorInfo', 'JobEvent', 'JobEventType',
  'JobExecutionOptions', 'JobManagerOptions', 'JobMetadata', 'JobPriority', 'JobQuery', 'JobRepository', 'JobSpec', 'JobSpecInput', 'JobState',
  'JobStatus', 'JobStatusInput', 'PlanOptions', 'RenderJobChunk', 'RetryPolicy', 'SubmitOptions', 'VideoStitcher', 'WorkerAdapter', 'WorkerJob',
  'WorkerResult',
];

/** What a declaration file exports, by `export {...}` or `export type {...}`. */
function exported(kind: 'export' | 'export type'): string[] {
  return [...declarations.matchAll(new RegExp(`^${kind} \\{([^}]*)\\}`, 'gm'))].flatMap(([, list = '']) => list.split(',').map((name) => name.trim())).sort();
}

describe('the exports', () => {
  it('[F144] are exactly these', () => {
    expect(Object.keys(imported).filter((name) => name !== 'default' && name !== 'module.exports').sort()).toEqual(NAMES);
    expect(Object.keys(require('framewright') as object).sort()).toEqual(NAMES);
  });

  it('[F144] every class and function is what import and require both give', async () => {
    const ended = await script(`
      import { createRequire } from 'node:module';
      const required = createRequire(process.cwd() + '/')('framewright');
      const names = Object.keys(framewright).filter((name) => name !== 'default' && name !== 'module.exports').sort();
      const dynamic = await import('framewright');
      console.log(names.filter((name) => framewright[name] === required[name] && dynamic[name] === required[name]).join());
      console.log(new required.JobManager(new framewright.InMemoryJobRepository(), framewright.JobExecutor.fromFunction(() => {})) instanceof JobManager);
      const refused = await new required.JobManager(new required.InMemoryJobRepository()).submitJob(1).catch((error) => error);
      console.log(refused instanceof framewright.FramewrightError);
    `);
    expect(ended).toMatchObject({ ...QUIET, lines: [NAMES.join(), 'true', 'true'] });
  });

  it('[F144] have names of their own, for stack traces and logs', () => {
    for (const name of NAMES) expect((imported as unknown as Record<string, { name: string }>)[name]!.name).toBe(name);
  });

  it('[F144] are declared, all of them, and so is every type of the contract', () => {
    expect(exported('export')).toEqual(NAMES);
    expect(exported('export type')).toEqual(expect.arrayContaining(TYPES));
  });

  it('[F144] of ESM are declared as those of CommonJS', () => {
    const statements = readFileSync(join(repository, 'index.d.mts'), 'utf8').split('\n').filter((line) => line !== '' && !line.startsWith('//'));
    expect(statements).toEqual(["export * from './index.js';"]);
  });

  it('[F144] nothing internal can be reached by a path', () => {
    for (const path of ['framewright/dist/manager.js', 'framewright/dist/native.js', 'framewright/index.d.ts']) {
      expect(() => require(path) as unknown, path).toThrow(expect.objectContaining({ code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' }));
    }
    expect((require('framewright/package.json') as { name: string }).name).toBe('framewright');
  });
});

describe('the error codes', () => {
  const union = /type ErrorCode =([^;]*);/.exec(declarations)?.[1] ?? '';
  const declared = [...union.matchAll(/'([A-Z_]+)'/g)].map(([, code]) => code!);

  it('[F144] that are declared are those that the engine has', () => {
    const addon = readdirSync(repository).find((name) => /^framewright\..*\.node$/.test(name));
    if (addon === undefined) throw new Error('no addon: npm run build');
    const { errorCodes } = require(join(repository, addon)) as { errorCodes: () => string[] };
    expect(declared.length).toBeGreaterThan(0);
    expect(errorCodes().sort()).toEqual([...declared].sort());
    expect(new Set(declared).size).toBe(declared.length);
  });

  it('[F144] are those of the contract', () => {
    const codes: Record<ErrorCode, true> = {
      VALIDATION: true, NOT_FOUND: true, INVALID_TRANSITION: true, CONFLICT: true, DUPLICATE: true, CYCLE: true,
      CHUNK_FAILED: true, OUTPUT_MISSING: true, SPAWN_FAILED: true, TIMEOUT: true, NO_PROGRESS: true, MERGE_FAILED: true, DEPENDENCY_FAILED: true,
      STORE_UNAVAILABLE: true, STORE_CORRUPT: true, STORE_FULL: true, LEASE_LOST: true, QUEUE_UNAVAILABLE: true, STORAGE_FAILED: true,
      CLOSED: true, ABORTED: true, INTERNAL: true,
    };
    expect([...declared].sort()).toEqual(Object.keys(codes).sort());
  });

  it('[F144] a rejection is an Error of one class, with its code', async () => {
    const manager = open(new InMemoryJobRepository(), new OwnExecutor());
    const refused: unknown = await manager.submitJob({ chunks: [{ id: -1, command: 'x' }, { id: 0.5, command: 'x' }] }).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(FramewrightError);
    expect(refused).toBeInstanceOf(Error);
    const error = refused as FramewrightError;
    expect(error).toMatchObject({ code: 'VALIDATION', name: 'FramewrightError' });
    expect(error.issues!.map((issue) => issue.path).sort()).toEqual(['chunks[0].id', 'chunks[1].id']);
    expect(error.stack).toContain(error.message.split('\n')[0]);
  });
});

// Checked by the compiler: `tsc` fails where one of these does not hold.
describe('the types', () => {
  const manager = null as unknown as JobManager;

  it('[F144] of calls', () => {
    expectTypeOf<JobManager['submitJob']>().parameters.toEqualTypeOf<[spec: JobSpecInput, options?: SubmitOptions]>();
    expectTypeOf<JobManager['submitJob']>().returns.resolves.toEqualTypeOf<string>();
    expectTypeOf<JobManager['getJob']>().returns.resolves.toEqualTypeOf<JobStatus | undefined>();
    expectTypeOf<JobManager['listJobs']>().returns.resolves.toEqualTypeOf<JobStatus[]>();
    expectTypeOf<JobManager['waitForJob']>().parameters.toEqualTypeOf<[id: string, options?: { timeoutMs?: number; signal?: AbortSignal }]>();
    expectTypeOf<JobManager['waitForJob']>().returns.resolves.toEqualTypeOf<JobStatus>();
    expectTypeOf<JobManager['chunks']>().returns.resolves.toEqualTypeOf<ChunkStatus[]>();
    expectTypeOf<JobManager['events']>().returns.toEqualTypeOf<AsyncIterableIterator<JobEvent>>();
    expectTypeOf<JobManager['pauseJob' | 'resumeJob' | 'cancelJob' | 'deleteJob' | 'close']>().returns.resolves.toBeVoid();
    expectTypeOf<JobManager['pauseJob']>().parameter(1).toEqualTypeOf<{ mode?: 'immediate' | 'graceful'; strict?: boolean } | undefined>();
    expectTypeOf<JobManager['resumeJob']>().parameter(1).toEqualTypeOf<(JobExecutionOptions & { strict?: boolean }) | undefined>();
    expectTypeOf<JobManager['cancelJob']>().parameter(1).toEqualTypeOf<{ strict?: boolean; reason?: string } | undefined>();
    expectTypeOf<JobManager['close']>().parameters.toEqualTypeOf<[options?: { finishMs?: number; abortMs?: number }]>();
    expectTypeOf<JobManager>().toExtend<AsyncDisposable>();
    expectTypeOf(planChunks).parameters.toEqualTypeOf<[options: PlanOptions]>();
    expectTypeOf(planChunks).returns.toEqualTypeOf<RenderJobChunk[]>();
    expectTypeOf(JobManager).constructorParameters.toEqualTypeOf<
      [repository: JobRepository, executor?: Executor, options?: ArtifactStorage | JobManagerOptions]
    >();
    expectTypeOf<JobQuery['state']>().toEqualTypeOf<JobState | JobState[] | undefined>();
  });

  it('[F144] of listeners: each type of event has its own fields', () => {
    const listen = (): void => {
      manager
        .on('job.completed', (event) => expectTypeOf(event.durationMs).toEqualTypeOf<number>())
        .on('job.failed', (event) => expectTypeOf(event.error).toEqualTypeOf<JobErrorInfo>())
        .once('chunk.failed', (event) => {
          expectTypeOf(event.willRetry).toEqualTypeOf<boolean>();
          expectTypeOf(event.retryInMs).toEqualTypeOf<number | undefined>();
        })
        .on('job.progress', ({ progress, completedChunks, totalChunks }) => expectTypeOf([progress, completedChunks, totalChunks]).toEqualTypeOf<number[]>())
        .on('event', (event) => {
          expectTypeOf(event).toEqualTypeOf<JobEvent>();
          expectTypeOf(event.sequence).toEqualTypeOf<number>();
          if (event.type === 'job.started') expectTypeOf(event.owner).toEqualTypeOf<string>();
          // @ts-expect-error -- not every event has a duration
          expectTypeOf(event.durationMs).toBeNumber();
        })
        .off('event', () => undefined);
      // @ts-expect-error -- no such event
      manager.on('job.exploded', () => undefined);
      // @ts-expect-error -- a started job has no duration
      manager.on('job.started', ({ durationMs }) => void String(durationMs));
    };
    expectTypeOf(listen).toBeFunction();
    expectTypeOf<Extract<JobEvent, { type: 'chunk.completed' }>>().toExtend<{ chunkId: number; attempt: number; durationMs: number; jobId: string; at: number }>();
    expectTypeOf<'job.warning' | 'merge.completed' | 'job.lease_lost'>().toExtend<JobEventType>();
  });

  it('[F1] of specs: a Helios spec, one with more fields, one with only ids, and a plan', () => {
    const helios = {
      id: 'render',
      assetsUrl: 'https://assets',
      metadata: { totalFrames: 60, fps: 30, width: 1920, height: 1080, duration: 2 },
      chunks: [{ id: 0, startFrame: 0, frameCount: 60, outputFile: 'chunk_0.mp4', command: 'render' }],
      mergeCommand: 'merge',
    };
    expectTypeOf(helios).toExtend<JobSpecInput>();
    expectTypeOf(helios).toExtend<JobSpec>();
    expectTypeOf<JobSpec>().toExtend<JobSpecInput>();
    expectTypeOf({ ...helios, studio: { shot: 7 }, chunks: [{ ...helios.chunks[0]!, layer: 'beauty' }] }).toExtend<JobSpecInput>();
    const written: JobSpecInput[] = [
      helios,
      { chunks: [{ id: 0, command: 'x', layer: 'beauty' }], studio: { shot: 7 } },
      { chunks: [] },
      {},
      { plan: { frames: '1-100,150-200x2', chunkCount: 4, outputFile: 'a', command: 'x' }, payload: [1] },
    ];
    expect(written).toHaveLength(5);
    // @ts-expect-error -- the id of a chunk is a number
    const textual: JobSpecInput = { chunks: [{ id: 'first' }] };
    // @ts-expect-error -- a chunk has an id
    const nameless: ChunkInput = { command: 'x' };
    expect([textual, nameless]).toHaveLength(2);
    expectTypeOf<JobMetadata>().toEqualTypeOf<{ totalFrames: number; fps: number; width: number; height: number; duration: number }>();
  });

  it('[F144] of options', () => {
    expectTypeOf<SubmitOptions>().toExtend<JobExecutionOptions>();
    expectTypeOf<SubmitOptions['id']>().toEqualTypeOf<string | undefined>();
    expectTypeOf<JobExecutionOptions['failurePolicy']>().toEqualTypeOf<'fail-fast' | 'continue' | undefined>();
    expectTypeOf<NonNullable<JobExecutionOptions['onChunkComplete']>>().parameters.toEqualTypeOf<[chunkId: number, result: WorkerResult]>();
    expectTypeOf<NonNullable<JobExecutionOptions['onProgress']>>().parameters.toEqualTypeOf<[completedChunks: number, totalChunks: number]>();
    expectTypeOf<NonNullable<JobExecutionOptions['timeouts']>>().toEqualTypeOf<{ chunkMs?: number; mergeMs?: number; jobMs?: number; noProgressMs?: number; startMs?: number }>();
    const options: SubmitOptions[] = [
      { id: 'a', concurrency: 4, retries: 2, retryDelay: 0, jobDir: '/tmp', merge: false, env: { A: '1' }, meta: { any: [1] }, signal: AbortSignal.abort() },
      { verifyOutput: async (file, chunk) => file.length > chunk.id, onChunkComplete: async (id, result) => expect([id.toFixed(), result.exitCode.toFixed()]).toHaveLength(2) },
      // @ts-expect-error -- misspelt
      { concurency: 4 },
      // @ts-expect-error -- not a number
      { retries: '2' },
      // @ts-expect-error -- no such policy
      { failurePolicy: 'ignore' },
    ];
    expect(options).toHaveLength(5);
    expectTypeOf<RetryPolicy['type']>().toEqualTypeOf<'fixed_delay' | 'exponential_backoff'>();
    const own: JobManagerOptions = { maxConcurrentJobs: 2, abortGraceMs: 1, logger: ({ level, target, message, fields }) => expect([level, target, message, fields]).toHaveLength(4) };
    expectTypeOf<Parameters<NonNullable<JobManagerOptions['logger']>>[0]['level']>().toEqualTypeOf<'trace' | 'debug' | 'info' | 'warn' | 'error'>();
    expect(own.maxConcurrentJobs).toBe(2);
  });

  it('[F144] of what users implement: executors, adapters, stitchers, repositories, and our own of each', () => {
    const adapter: WorkerAdapter = { execute: async ({ command, args = [], signal }: WorkerJob) => ({ exitCode: 0, stdout: [command, ...args].join(' '), stderr: '', durationMs: signal ? 1 : 0 }) };
    const executor: Executor = { execute: async (spec, options) => [spec.chunks.length, options?.concurrency] };
    const stitcher: VideoStitcher = { stitch: async (inputs, output) => expect([...inputs, output]).toHaveLength(2) };
    const kept = new Map<string, JobStatus>();
    const store: JobRepository = {
      save: async (job) => void kept.set(job.id, job as JobStatus),
      get: async (id) => kept.get(id),
      list: async () => [...kept.values()],
      delete: async (id) => void kept.delete(id),
    };
    expect([adapter, executor, stitcher, store]).toHaveLength(4);
    expectTypeOf<LocalWorkerAdapter>().toExtend<WorkerAdapter>();
    expectTypeOf<JobExecutor>().toExtend<Executor>();
    expectTypeOf<InMemoryJobRepository>().toExtend<JobRepository>();
    expectTypeOf<JobStatus>().toExtend<JobStatusInput>();
    expectTypeOf(new JobExecutor(adapter)).toExtend<Executor>();
    JobExecutor.fromFunction(async (chunk, context) => {
      expectTypeOf(chunk).toEqualTypeOf<RenderJobChunk>();
      expectTypeOf(context.signal).toEqualTypeOf<AbortSignal>();
      expectTypeOf(context.jobId).toEqualTypeOf<string>();
      expectTypeOf(context.attempt).toEqualTypeOf<number>();
      expectTypeOf(context.reportProgress).parameters.toEqualTypeOf<[fraction: number]>();
      return { exitCode: 0 };
    });
  });

  it('[F144] of a status', () => {
    expectTypeOf<JobStatus['state']>().toEqualTypeOf<'pending' | 'running' | 'paused' | 'completed' | 'failed' | 'cancelled'>();
    expectTypeOf<JobStatus['priority']>().toEqualTypeOf<JobPriority>();
    expectTypeOf<JobStatus['version']>().toEqualTypeOf<number>();
    expectTypeOf<JobStatus['failure']>().toEqualTypeOf<JobErrorInfo | undefined>();
    expectTypeOf<JobStatus['waitingFor']>().toEqualTypeOf<'slot' | 'dependencies' | 'schedule' | 'hold' | 'executor' | undefined>();
    expectTypeOf<JobStatus['chunksByState']>().toEqualTypeOf<Record<ChunkStatus['state'], number> | undefined>();
    expectTypeOf<FramewrightError['code']>().toEqualTypeOf<ErrorCode>();
    expectTypeOf<FramewrightError['issues']>().toExtend<{ path: string; message: string }[] | undefined>();
  });
});
