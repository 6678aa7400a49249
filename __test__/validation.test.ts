// Wrong arguments are what this file is about, so values of no type go everywhere.
/* eslint-disable @typescript-eslint/no-unsafe-argument, @typescript-eslint/no-unsafe-assignment, @typescript-eslint/no-unsafe-call,
   @typescript-eslint/no-unsafe-member-access, @typescript-eslint/no-unsafe-return, @typescript-eslint/no-base-to-string,
   @typescript-eslint/prefer-promise-reject-errors */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import {
  ConcatStitcher,
  FfmpegStitcher,
  FramewrightError,
  InMemoryJobRepository,
  JobExecutor,
  JobManager,
  LocalWorkerAdapter,
  type Executor,
  type JobRepository,
  type JobStatus,
  type WorkerJob,
} from 'framewright';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';
import { traceOf } from './support/trace.js';
import { turns } from './support/turns.js';

// eslint-disable-next-line @typescript-eslint/no-explicit-any -- wrong arguments on purpose
type Wrong = any;

const idle: Executor = { execute: () => Promise.resolve() };
const spec = specOf(2);

const cyclic: Record<string, unknown> = {};
cyclic['self'] = cyclic;

/** A call that may throw or reject: the error either way. */
const errorOf = (call: () => unknown): Promise<FramewrightError> => rejection((async () => call())());

/** Rows for a table of tests, named as they would be written. */
const named = (...values: Wrong[]): [string, Wrong][] => values.map((value: Wrong) => [inspect(value), value]);

/** Values of every kind but one: what is no object with these fields, no text, no number. */
const notObjects: Wrong[] = [null, 5, NaN, 'text', true, Symbol('s'), 1n, () => ({})];

describe('constructors', () => {
  it.each<[string, Wrong]>([
    ['nothing', undefined], ['null', null], ['a number', 5], ['an empty object', {}],
    ...(['save', 'get', 'list', 'delete'] as const).map((method): [string, Wrong] => {
      const repository: Wrong = { save: vi.fn(), get: vi.fn(), list: vi.fn(), delete: vi.fn() };
      repository[method] = 'not a function';
      return [`an object without ${method}`, repository];
    }),
  ])('JobManager refuses %s as its repository', async (_, repository) => {
    expect((await errorOf(() => new JobManager(repository, idle))).code).toBe('VALIDATION');
  }); // prettier-ignore

  it.each<[string, Wrong]>([['null', null], ['a number', 5], ['an object without execute', {}], ['an execute that is no function', { execute: 5 }], ['a function', () => undefined]])(
    'JobManager refuses %s as its executor',
    async (_, executor) => {
      expect((await errorOf(() => new JobManager(new InMemoryJobRepository(), executor))).code).toBe('VALIDATION');
    },
  ); // prettier-ignore

  it.each(named(null, 5, 'text', [], true,
    { maxConcurrentJobs: 0 }, { maxConcurrentJobs: -1 }, { maxConcurrentJobs: 1.5 }, { maxConcurrentJobs: NaN }, { maxConcurrentJobs: '2' }, { maxConcurrentJobs: null }, { maxConcurrentJobs: 2n },
    { abortGraceMs: -1 }, { abortGraceMs: NaN }, { abortGraceMs: '5' }, { abortGraceMs: null },
    { logger: 5 }, { logger: null }, { logger: {} },
    { storage: {} }, { storage: null }, { storage: 'dir' }))('JobManager refuses the options %s', async (_, options) => {
    expect((await errorOf(() => new JobManager(new InMemoryJobRepository(), idle, options))).code).toBe('VALIDATION');
  }); // prettier-ignore

  it.each(named({ maxConcurrentJobs: 1e300 }, { maxConcurrentJobs: Number.MAX_SAFE_INTEGER, abortGraceMs: 1e300 }, { abortGraceMs: 0 }))('JobManager takes the huge or least values %s, and runs',
    async (_, options) => {
      const manager = open(new InMemoryJobRepository(), idle, options);
      expect((await manager.waitForJob(await manager.submitJob(spec))).state).toBe('completed');
    },
  );

  it.each(named(undefined, null, 5, {}, { execute: 'x' }))('JobExecutor refuses the adapter %s', async (_, adapter) => {
    expect((await errorOf(() => new JobExecutor(adapter))).code).toBe('VALIDATION');
  });

  it.each(named(undefined, null, 5, {}, 'render'))('JobExecutor.fromFunction refuses %s', async (_, run) => {
    expect((await errorOf(() => JobExecutor.fromFunction(run))).code).toBe('VALIDATION');
  });

  it.each(named(null, 5, 'inherit', { env: 'PATH' }, { env: null }, { env: [5] }, { env: {} },
    { killGraceMs: -1 }, { killGraceMs: NaN }, { killGraceMs: '5' }, { killGraceMs: null },
    { keepOutputBytes: -1 }, { keepOutputBytes: NaN }, { keepOutputBytes: Infinity }, { keepOutputBytes: '5' }))('LocalWorkerAdapter refuses the options %s', async (_, options) => {
    expect((await errorOf(() => new LocalWorkerAdapter(options))).code).toBe('VALIDATION');
  }); // prettier-ignore

  it.each<[string, Wrong[]]>([['a null adapter', [null]], ['a number for an adapter', [5]], ['an adapter without execute', [{}]], ['null options', [idle, null]], ['a path that is a number', [idle, { ffmpegPath: 5 }]], ['an empty path', [idle, { ffmpegPath: '' }]]])(
    'FfmpegStitcher refuses %s',
    async (_, args) => {
      expect((await errorOf(() => new (FfmpegStitcher as Wrong)(...args))).code).toBe('VALIDATION');
    },
  ); // prettier-ignore
});

describe('calls of a manager', () => {
  let manager: JobManager;
  let repository: InMemoryJobRepository;
  let before: JobStatus;
  let events: unknown[];

  beforeEach(async () => {
    repository = new InMemoryJobRepository();
    manager = open(repository, new OwnExecutor((chunk) => (chunk === 1 ? Promise.reject(new Error('no')) : Promise.resolve())));
    await manager.submitJob(spec, { id: 'kept', meta: { a: 1 } });
    before = await manager.waitForJob('kept');
    expect(before.state).toBe('failed');
    await turns(2);
    events = traceOf(manager);
  });

  /** Nothing was stored, nothing told, nothing changed. */
  async function unchanged(): Promise<void> {
    await turns(3);
    expect(events).toEqual([]);
    expect(await manager.getJob('kept')).toEqual(before);
    expect(await repository.list()).toEqual([before]);
  }

  const badOptions: [string, Wrong, string | undefined][] = [
    ...notObjects.map((value): [string, Wrong, undefined] => [String(value), value, undefined]),
    ['[]', [], undefined],
    ...[0, -1, 1.5, NaN, Infinity, -Infinity, '2', null, true, 2n, {}, [2], () => 2, Symbol('2')].map((value): [string, Wrong, string] => [`concurrency: ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`, { concurrency: value }, 'concurrency']),
    ...[-1, 0.5, NaN, Infinity, '1', null, {}, () => 1].map((value): [string, Wrong, string] => [`retries: ${String(value)}`, { retries: value }, 'retries']),
    ...[-1, NaN, Infinity, '1', null, {}].map((value): [string, Wrong, string] => [`retryDelay: ${String(value)}`, { retryDelay: value }, 'retryDelay']),
    ...[-1, NaN, '1'].map((value): [string, Wrong, string] => [`crashRetries: ${String(value)}`, { crashRetries: value }, 'crashRetries']),
    ...['', 'a\0b', 5, null, {}, () => '/'].map((value): [string, Wrong, string] => [`jobDir: ${JSON.stringify(value)}`, { jobDir: value }, 'jobDir']),
    ...['', 'a\0b', 5, null].map((value): [string, Wrong, string] => [`outputFile: ${JSON.stringify(value)}`, { outputFile: value }, 'outputFile']),
    ...(['merge', 'skipMerge', 'cleanupChunks', 'hashOutputs', 'allowOutsidePaths'] as const).flatMap((name) => ['yes', 1, null, () => true].map((value): [string, Wrong, string] => [`${name}: ${String(value)}`, { [name]: value }, name])),
    ...[null, 'x', { type: 'odd' }, { type: 'fixed_delay' }, { type: 'fixed_delay', delayMs: -1 }, { type: 'fixed_delay', delayMs: NaN }, { type: 'exponential_backoff', initialMs: 1 }, { type: 'fixed_delay', delayMs: 1, jitter: 2 }].map((value): [string, Wrong, string | undefined] => [`retryPolicy: ${JSON.stringify(value)}`, { retryPolicy: value }, undefined]),
    ...['odd', null, true].map((value): [string, Wrong, string] => [`failurePolicy: ${value}`, { failurePolicy: value }, 'failurePolicy']),
    ...(['chunkMs', 'mergeMs', 'jobMs', 'noProgressMs', 'startMs'] as const).flatMap((name) => [0, -1, NaN, Infinity, '5', null].map((value): [string, Wrong, string] => [`timeouts.${name}: ${value}`, { timeouts: { [name]: value } }, `timeouts.${name}`])),
    ...[null, 5, [], 'x', () => ({})].map((value): [string, Wrong, string] => [`timeouts: ${JSON.stringify(value)}`, { timeouts: value }, 'timeouts']),
    ...['odd', 'function', 5, null, {}].map((value): [string, Wrong, string] => [`verifyOutput: ${JSON.stringify(value)}`, { verifyOutput: value }, 'verifyOutput']),
    ...['(', '', 5, null].map((value): [string, Wrong, string] => [`progressPattern: ${value}`, { progressPattern: value }, 'progressPattern']),
    ...[null, 5, 'A=B', ['A']].map((value): [string, Wrong, string] => [`env: ${JSON.stringify(value)}`, { env: value }, 'env']),
    ...[['A=B', 'x'], ['', 'x'], ['A', 5], ['A', 'x\0'], ['A\0', 'x'], ['A', null], ['A', () => 'x']].map(([name, value]): [string, Wrong, string] => [`env ${JSON.stringify(name)}: ${JSON.stringify(value)}`, { env: { [name as string]: value } }, `env.${name as string}`]),
    ...[null, 5, {}, '0'].map((value): [string, Wrong, string] => [`completedChunkIds: ${JSON.stringify(value)}`, { completedChunkIds: value }, 'completedChunkIds']),
    ...[-1, 0.5, NaN, '0', null].map((value): [string, Wrong, string] => [`completedChunkIds: [0, ${String(value)}]`, { completedChunkIds: [0, value] }, 'completedChunkIds[1]']),
    ...[null, 5, [], 'x', () => ({})].map((value): [string, Wrong, string] => [`meta: ${JSON.stringify(value)}`, { meta: value }, 'meta']),
    ['meta: cyclic', { meta: cyclic }, undefined],
    ['meta: bigint inside', { meta: { a: [1n] } }, undefined],
    ...(['onProgress', 'onChunkComplete', 'onChunkStdout', 'onChunkStderr'] as const).flatMap((name) => [null, 5, {}].map((value): [string, Wrong, string] => [`${name}: ${JSON.stringify(value)}`, { [name]: value }, name])),
    ...[null, 5, {}, { aborted: false }].map((value): [string, Wrong, string] => [`signal: ${JSON.stringify(value)}`, { signal: value }, 'signal']),
    ...[null, 5, {}, { execute: 5 }].map((value): [string, Wrong, string] => [`mergeAdapter: ${JSON.stringify(value)}`, { mergeAdapter: value }, 'mergeAdapter']),
    ...[null, 5, {}, { stitch: 5 }].map((value): [string, Wrong, string] => [`stitcher: ${JSON.stringify(value)}`, { stitcher: value }, 'stitcher']),
  ]; // prettier-ignore

  it.each(badOptions)('[F2] submitJob refuses the options %s, and nothing has happened', async (_, options, path) => {
    const error = await errorOf(() => manager.submitJob(spec, options));
    expect(error.code).toBe('VALIDATION');
    expect(error.issues?.length).toBeGreaterThan(0);
    if (path !== undefined) expect(error.issues!.map((issue) => issue.path)).toContain(path);
    await unchanged();
  });

  it.each(badOptions)('resumeJob and JobExecutor.execute refuse the options %s, and nothing has happened', async (_, options, path) => {
    const execute = vi.fn(async () => chunkResult);
    for (const call of [() => manager.resumeJob('kept', options), () => new JobExecutor({ execute }).execute(spec, options)]) {
      const error = await errorOf(call);
      expect(error.code).toBe('VALIDATION');
      if (path !== undefined) expect(error.issues!.map((issue) => issue.path)).toContain(path);
    }
    expect(execute).not.toHaveBeenCalled();
    await unchanged();
  });

  it('[F2] all bad options are told in one error', async () => {
    const bad: Wrong = { concurrency: 0, retries: -1, retryDelay: NaN, env: { A: 5 }, timeouts: { chunkMs: -1 }, meta: [] };
    const error = await errorOf(() => manager.submitJob(spec, bad));
    expect(error.issues!.map((issue) => issue.path).sort()).toEqual(['concurrency', 'env.A', 'meta', 'retries', 'retryDelay', 'timeouts.chunkMs']);
    await unchanged();
  });

  it.each<[string, Wrong]>([
    ...notObjects.map((value): [string, Wrong] => [String(value), value]),
    ['undefined', undefined],
    ['an array', []],
    ['a cycle', { chunks: [], payload: cyclic }],
    ['a cycle in a chunk', { chunks: [{ id: 0, command: 'a', extra: cyclic }] }],
    ['a BigInt', { chunks: [], payload: 1n }],
    ['a BigInt for an id', { chunks: [{ id: 1n, command: 'a' }] }],
    ['a toJSON that throws', { chunks: [], payload: { toJSON: () => { throw new Error('never'); } } }],
    ['a getter that throws', { chunks: [], get payload() { throw new Error('never'); } }],
    ['a chunks getter that throws', { get chunks() { throw new Error('never'); } }],
  ])('[F2] submitJob and JobExecutor.execute refuse %s as a spec, and nothing has happened', async (_, wrong) => {
    expect((await errorOf(() => manager.submitJob(wrong))).code).toBe('VALIDATION');
    expect((await errorOf(() => new JobExecutor({ execute: async () => chunkResult }).execute(wrong))).code).toBe('VALIDATION');
    await unchanged();
  }); // prettier-ignore

  const ids: Wrong[] = [undefined, null, 5, NaN, {}, ['kept'], true, Symbol('kept'), 1n];
  it.each(['getJob', 'cancelJob', 'pauseJob', 'resumeJob', 'deleteJob', 'waitForJob', 'chunks'] as const)('%s refuses an id that is no text, and nothing has happened', async (method) => {
    for (const id of ids) expect((await errorOf(() => (manager[method] as Wrong)(id))).code, String(id)).toBe('VALIDATION');
    await unchanged();
  });

  it('ids that cannot exist are ids of no job: reads give nothing, controls change nothing, waits are NOT_FOUND', async () => {
    for (const id of ['', '.', '..', '../kept', 'a/b', 'kept\0', '\0', 'x'.repeat(129), '.kept', 'x'.repeat(1_000_000), '\ud800']) {
      expect(await manager.getJob(id)).toBeUndefined();
      for (const method of ['cancelJob', 'pauseJob', 'resumeJob', 'deleteJob'] as const) {
        const outcome = await manager[method](id).then(() => 'resolved', (error: unknown) => (error as FramewrightError).code); // prettier-ignore
        expect(['resolved', 'NOT_FOUND']).toContain(outcome);
        expect((await errorOf(() => manager[method](id, { strict: true }))).code).toBe('NOT_FOUND');
      }
      expect((await errorOf(() => manager.waitForJob(id))).code).toBe('NOT_FOUND');
      expect((await errorOf(() => manager.chunks(id))).code).toBe('NOT_FOUND');
    }
    await unchanged();
  });

  const wrongCalls: [string, (manager: JobManager) => unknown][] = [
    ...notObjects.flatMap((value): [string, (manager: JobManager) => unknown][] => [
      [`cancelJob(id, ${String(value)})`, (m) => m.cancelJob('kept', value)],
      [`pauseJob(id, ${String(value)})`, (m) => m.pauseJob('kept', value)],
      [`deleteJob(id, ${String(value)})`, (m) => m.deleteJob('kept', value)],
      [`waitForJob(id, ${String(value)})`, (m) => m.waitForJob('kept', value)],
      [`chunks(id, ${String(value)})`, (m) => m.chunks('kept', value)],
      [`listJobs(${String(value)})`, (m) => m.listJobs(value)],
      [`events(${String(value)})`, (m) => m.events(value)],
      [`close(${String(value)})`, (m) => m.close(value)],
      [`on('event', ${typeof value === 'function' ? '{}' : String(value)})`, (m) => m.on('event', typeof value === 'function' ? {} : value)],
      [`once('event', ${typeof value === 'function' ? '{}' : String(value)})`, (m) => m.once('event', typeof value === 'function' ? {} : value)],
    ]),
    ...[5, null, {}, undefined].flatMap((type: Wrong): [string, (manager: JobManager) => unknown][] => [
      [`on(${String(type)}, listener)`, (m) => m.on(type, () => {})],
      [`once(${String(type)}, listener)`, (m) => m.once(type, () => {})],
    ]),
    ['cancelJob with a reason that is no text', (m) => m.cancelJob('kept', { reason: 5 as Wrong })],
    ...(['cancelJob', 'pauseJob', 'resumeJob', 'deleteJob'] as const).flatMap((method) => ['yes', 1, null].map((strict): [string, (manager: JobManager) => unknown] => [`${method} with strict: ${strict}`, (m) => (m[method] as Wrong)('kept', { strict })])),
    ...['odd', null, 5].map((mode): [string, (manager: JobManager) => unknown] => [`pauseJob with the mode ${mode}`, (m) => m.pauseJob('kept', { mode: mode as Wrong })]),
    ...[-1, NaN, '5', null, {}].map((timeoutMs): [string, (manager: JobManager) => unknown] => [`waitForJob with timeoutMs ${String(timeoutMs)}`, (m) => m.waitForJob('kept', { timeoutMs: timeoutMs as Wrong })]),
    ...[5, null, {}, { aborted: false }].flatMap((signal: Wrong): [string, (manager: JobManager) => unknown][] => [
      [`waitForJob with the signal ${JSON.stringify(signal)}`, (m) => m.waitForJob('kept', { signal })],
      [`events with the signal ${JSON.stringify(signal)}`, (m) => m.events({ signal })],
    ]),
    ...[-1, 0.5, 1.5, NaN, '5', null, {}].flatMap((value: Wrong): [string, (manager: JobManager) => unknown][] => [
      [`listJobs with the limit ${String(value)}`, (m) => m.listJobs({ limit: value })],
      [`chunks with the limit ${String(value)}`, (m) => m.chunks('kept', { limit: value })],
      [`chunks with the offset ${String(value)}`, (m) => m.chunks('kept', { offset: value })],
    ]),
    ...['odd', null, 5, {}, ['odd'], [null]].map((state: Wrong): [string, (manager: JobManager) => unknown] => [`listJobs with the state ${JSON.stringify(state)}`, (m) => m.listJobs({ state })]),
    ...['odd', 'cancelled', null, 5, {}].map((state: Wrong): [string, (manager: JobManager) => unknown] => [`chunks with the state ${JSON.stringify(state)}`, (m) => m.chunks('kept', { state })]),
    ...[5, null, {}, 'unknown'].map((cursor: Wrong): [string, (manager: JobManager) => unknown] => [`listJobs with the cursor ${JSON.stringify(cursor)}`, (m) => m.listJobs({ cursor })]),
    ...[-1, 0.5, NaN, Infinity, '0', null, 2 ** 53].map((fromSequence: Wrong): [string, (manager: JobManager) => unknown] => [`events from ${String(fromSequence)}`, (m) => m.events({ fromSequence })]),
    ...[5, null, {}].map((jobId: Wrong): [string, (manager: JobManager) => unknown] => [`events of the job ${JSON.stringify(jobId)}`, (m) => m.events({ jobId })]),
    ...[5, null, 'job.completed', {}, [5], [null]].map((types: Wrong): [string, (manager: JobManager) => unknown] => [`events of the types ${JSON.stringify(types)}`, (m) => m.events({ types })]),
    ...(['finishMs', 'abortMs'] as const).flatMap((name) => [-1, NaN, '5', null].map((value): [string, (manager: JobManager) => unknown] => [`close with ${name} ${value}`, (m) => m.close({ [name]: value as Wrong })])),
  ]; // prettier-ignore

  it.each(wrongCalls)(
    '%s is refused, and nothing has happened',
    async (_, call) => {
      expect((await errorOf(() => call(manager))).code).toBe('VALIDATION');
      await unchanged();
      // Still open: a close that was refused has closed nothing.
      await manager.submitJob(spec, { id: 'next' });
    },
    3000,
  );

  it('huge limits, offsets and times are taken for what they are', async () => {
    expect(await manager.listJobs({ limit: Number.MAX_SAFE_INTEGER })).toHaveLength(1);
    expect(await manager.listJobs({ limit: 2 ** 32 })).toHaveLength(1);
    expect(await manager.listJobs({ limit: 0 })).toEqual([]);
    expect(await manager.chunks('kept', { limit: 2 ** 32 + 1 })).toHaveLength(2);
    for (const offset of [2, 2 ** 32, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER]) expect(await manager.chunks('kept', { offset })).toEqual([]);
    expect(await manager.waitForJob('kept', { timeoutMs: 1e300 })).toEqual(before);
    expect(await manager.waitForJob('kept', { timeoutMs: 2 ** 31 })).toEqual(before);
    await unchanged();
  });

  it('off with something that was never on changes nothing', async () => {
    manager.off('event', () => {});
    manager.off('event', 5 as Wrong);
    await manager.submitJob(spec, { id: 'next' });
    await manager.waitForJob('next');
    await turns(2);
    expect(events.length).toBeGreaterThan(0);
  });

  it('after all those refusals the events are numbered without a gap', async () => {
    for (const [, options] of badOptions) await errorOf(() => manager.submitJob(spec, options));
    await manager.submitJob(spec, { id: 'next' });
    await manager.waitForJob('next');
    const sequences: number[] = [];
    for await (const event of manager.events({ fromSequence: 0 })) {
      expect(['kept', 'next']).toContain(event.jobId);
      if (event.type !== 'job.progress' && event.type !== 'chunk.progress') sequences.push(event.sequence);
      if (event.jobId === 'next' && (event.type === 'job.failed' || event.type === 'job.completed')) break;
    }
    expect(sequences).toEqual(sequences.map((_, n) => sequences[0]! + n));
  });
});

describe('LocalWorkerAdapter.execute', () => {
  it.each<[string, Wrong]>([
    ['nothing', undefined], ['null', null], ['a text', 'echo'], ['no command', {}],
    ['an empty command', { command: '' }], ['a command that is a number', { command: 5 }], ['a command with NUL', { command: 'ec\0ho' }], ['a command that is no text', { command: '\ud800' }],
    ['args that are a text', { command: 'echo', args: 'a' }], ['args that are null', { command: 'echo', args: null }], ['args with a number', { command: 'echo', args: ['a', 5] }], ['args with NUL', { command: 'echo', args: ['\0'] }],
    ['args with a hole', { command: 'echo', args: Object.assign([], { 1: 'a' }) }], ['args with half a character', { command: 'echo', args: ['\ud800'] }],
    ['env that is a number', { command: 'echo', env: 5 }], ['env that is a text', { command: 'echo', env: 'A=B' }], ['env that is null', { command: 'echo', env: null }], ['env that is a list', { command: 'echo', env: ['A'] }],
    ['an env name with =', { command: 'echo', env: { 'A=B': 'x' } }], ['an empty env name', { command: 'echo', env: { '': 'x' } }], ['an env value that is a number', { command: 'echo', env: { A: 5 } }], ['an env value with NUL', { command: 'echo', env: { A: '\0' } }],
    ['a cwd that is a number', { command: 'echo', cwd: 5 }], ['a cwd that is null', { command: 'echo', cwd: null }], ['a cwd with NUL', { command: 'echo', cwd: '/tmp\0' }],
    ['a timeout of 0', { command: 'echo', timeout: 0 }], ['a negative timeout', { command: 'echo', timeout: -1 }], ['a timeout that is NaN', { command: 'echo', timeout: NaN }], ['a timeout that is text', { command: 'echo', timeout: '5' }], ['a timeout that is null', { command: 'echo', timeout: null }],
    ['a signal that is none', { command: 'echo', signal: {} }], ['a signal that is null', { command: 'echo', signal: null }],
    ['onStdout that is no function', { command: 'echo', onStdout: 5 }], ['onStderr that is no function', { command: 'echo', onStderr: {} }],
  ])('%s is refused', async (_, job) => {
    expect((await errorOf(() => new LocalWorkerAdapter().execute(job))).code).toBe('VALIDATION');
  }); // prettier-ignore

  it('huge values are taken for what they are', async () => {
    const adapter = new LocalWorkerAdapter({ killGraceMs: 1e300, keepOutputBytes: 1e300 });
    for (const timeout of [1e300, Number.MAX_SAFE_INTEGER, 2 ** 31, 2 ** 32 + 1]) {
      expect(await adapter.execute({ command: 'echo', args: ['here'], timeout })).toMatchObject({ exitCode: 0, stdout: 'here\n' });
    }
  });

  it.each<[string, WorkerJob]>([
    ['a program that is not there', { command: 'no-such-program-anywhere' }],
    ['a path that is not there', { command: '/no/such/program' }],
    ['a folder for a program', { command: tmpdir() }],
    ['a folder to work in that is not there', { command: 'echo', cwd: '/no/such/folder' }],
  ])('[F144] %s is SPAWN_FAILED', async (_, job) => {
    const error = await errorOf(() => new LocalWorkerAdapter().execute(job));
    expect(error).toMatchObject({ code: 'SPAWN_FAILED', name: 'FramewrightError' });
    expect(error.message).not.toMatch(/^\{/);
  });
});

describe('stitchers', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'framewright-validation-'));
    await writeFile(join(folder, 'a'), 'a');
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const stitchers: [string, (execute: WorkerMock) => ConcatStitcher | FfmpegStitcher][] = [
    ['ConcatStitcher', () => new ConcatStitcher()],
    ['FfmpegStitcher', (execute) => new FfmpegStitcher({ execute })],
  ];
  type WorkerMock = (job: WorkerJob) => Promise<typeof chunkResult>;

  it.each(stitchers)('%s refuses wrong arguments, and leaves no file behind', async (_, create) => {
    const execute = vi.fn(async () => chunkResult);
    const stitcher: Wrong = create(execute);
    const a = join(folder, 'a');
    const out = join(folder, 'out');
    const calls: [string, Wrong[]][] = [
      ['nothing', []], ['null inputs', [null, out]], ['a text for inputs', [a, out]], ['no inputs', [[], out]], ['a number among inputs', [[a, 5], out]], ['an empty input', [[a, ''], out]], ['an input with NUL', [[a, `${a}\0`], out]],
      ['inputs with a hole', [Object.assign([], { 1: a }), out]],
      ['no output', [[a]]], ['a null output', [[a], null]], ['an empty output', [[a], '']], ['a number for an output', [[a], 5]], ['an output with NUL', [[a], `${out}\0x/y`]],
      ['null options', [[a], out, null]], ['options that are a number', [[a], out, 5]], ['a signal that is none', [[a], out, { signal: {} }]], ['a null signal', [[a], out, { signal: null }]],
    ]; // prettier-ignore
    for (const [what, args] of calls) expect((await errorOf(() => stitcher.stitch(...args))).code, what).toBe('VALIDATION');
    expect(execute).not.toHaveBeenCalled();
    expect(await readdir(folder)).toEqual(['a']);
  });

  it('[F144] an input that is not there is MERGE_FAILED and names the file', async () => {
    const error = await errorOf(() => new ConcatStitcher().stitch([join(folder, 'a'), join(folder, 'missing')], join(folder, 'out')));
    expect(error.code).toBe('MERGE_FAILED');
    expect(error.message).toContain('missing');
    expect(await readdir(folder)).toEqual(['a']);
  });
});

describe('rejections', () => {
  it.each(repositories)('[F144] every rejection is a FramewrightError with its code, and a message for people: $kind', async ({ create }) => {
    const manager = open(create(), new OwnExecutor((_, signal) => whenAborted(signal)));
    const id = await manager.submitJob(spec);
    const controller = new AbortController();
    const waiting = errorOf(() => manager.waitForJob(id, { signal: controller.signal }));
    controller.abort(new Error('enough'));
    const cases: [string, Promise<FramewrightError>][] = [
      ['VALIDATION', errorOf(() => manager.submitJob(null as Wrong))],
      ['DUPLICATE', errorOf(() => manager.submitJob(spec, { id }))],
      ['NOT_FOUND', errorOf(() => manager.waitForJob('unknown'))],
      ['NOT_FOUND', errorOf(() => manager.chunks('unknown'))],
      ['NOT_FOUND', errorOf(() => manager.cancelJob('unknown', { strict: true }))],
      ['INVALID_TRANSITION', errorOf(() => manager.resumeJob(id, { strict: true }))],
      ['TIMEOUT', errorOf(() => manager.waitForJob(id, { timeoutMs: 0 }))],
      ['ABORTED', waiting],
    ];
    for (const [code, caught] of cases) {
      const error = await caught;
      expect(error).toBeInstanceOf(FramewrightError);
      expect(error).toBeInstanceOf(Error);
      expect(error.code).toBe(code);
      expect(error.name).toBe(code === 'ABORTED' ? 'AbortError' : 'FramewrightError');
      expect(error.message).toMatch(/^[^{]/);
      expect(error.stack).toContain(error.message);
    }
    await manager.close({ abortMs: 100 });
    for (const call of [() => manager.submitJob(spec), () => manager.cancelJob(id), () => manager.pauseJob(id), () => manager.resumeJob(id), () => manager.deleteJob(id)]) {
      expect((await errorOf(call)).code).toBe('CLOSED');
    }
  });

  it('[F144] what is aborted rejects with an AbortError whose cause is the reason', async () => {
    const reason = new Error('changed my mind');
    const signal = AbortSignal.abort(reason);
    const manager = open(new InMemoryJobRepository(), idle);
    const folder = await mkdtemp(join(tmpdir(), 'framewright-validation-'));
    const calls: (() => unknown)[] = [
      () => manager.submitJob(spec, { signal }),
      () => manager.waitForJob('x', { signal }),
      () => new LocalWorkerAdapter().execute({ command: 'echo', signal }),
      () => new JobExecutor(new LocalWorkerAdapter()).execute(spec, { signal }),
      () => new ConcatStitcher().stitch(['a'], join(folder, 'out'), { signal }),
      () => new FfmpegStitcher().stitch(['a'], join(folder, 'out'), { signal }),
    ];
    for (const call of calls) expect(await errorOf(call)).toMatchObject({ name: 'AbortError', code: 'ABORTED', cause: reason });
    expect(await manager.listJobs()).toEqual([]);
    expect(await readdir(folder)).toEqual([]);
    await rm(folder, { recursive: true });
  });

  it('[F144] what is aborted on its way rejects with an AbortError whose cause is the reason', async () => {
    const reason = { why: 'not an Error at all' };
    const begun = deferred();
    const executors: Executor[] = [
      new JobExecutor({ execute: (job) => (begun.resolve(), whenAborted(job.signal)) }),
      JobExecutor.fromFunction((_, { signal }) => (begun.resolve(), whenAborted(signal))),
    ];
    for (const executor of executors) {
      const controller = new AbortController();
      const running = errorOf(() => executor.execute(spec as Wrong, { signal: controller.signal }));
      await begun.promise;
      controller.abort(reason);
      expect(await running).toMatchObject({ name: 'AbortError', code: 'ABORTED', cause: reason });
    }
    const controller = new AbortController();
    const running = errorOf(() => new LocalWorkerAdapter().execute({ command: 'sh', args: ['-c', 'echo up; sleep 60'], signal: controller.signal, onStdout: () => controller.abort(reason) }));
    expect(await running).toMatchObject({ name: 'AbortError', code: 'ABORTED', cause: reason });
  });

  it("[F144] the user's own error is the cause, whatever was thrown", async () => {
    for (const thrown of [new TypeError('their error'), 'a text', { code: 42, message: 'an object' }]) {
      const error = await errorOf(() => JobExecutor.fromFunction(() => Promise.reject(thrown as Wrong)).execute(specOf(1)));
      expect(error).toMatchObject({ code: 'CHUNK_FAILED', cause: thrown });
      expect(error.message).toContain(typeof thrown === 'string' ? thrown : thrown.message);
      expect(error.details).toMatchObject({ chunkId: 0, attempt: 1 });

      const stitch = (): Promise<void> => Promise.reject(thrown as Wrong);
      const merge = await errorOf(() => JobExecutor.fromFunction(async () => undefined).execute(specOf(1), { stitcher: { stitch }, outputFile: 'out', verifyOutput: 'none' }));
      expect(merge).toMatchObject({ code: 'MERGE_FAILED', cause: thrown });

      const get = open({ save: async () => {}, get: () => Promise.reject(thrown as Wrong), list: async () => [], delete: async () => {} }, idle);
      expect(await errorOf(() => get.getJob('a'))).toMatchObject({ code: 'STORE_UNAVAILABLE', cause: thrown });
    }
  });

  it.each(['save', 'get', 'list', 'delete'] as const)('[F144] a repository whose %s throws makes STORE_UNAVAILABLE with its error as the cause', async (method) => {
    const cause = new Error('the network is down');
    const repository: JobRepository = { save: async () => {}, get: async () => undefined, list: async () => [], delete: async () => {} };
    const manager = open(repository, idle);
    const calls = { save: () => manager.submitJob(spec), get: () => manager.getJob('a'), list: () => manager.listJobs(), delete: () => manager.deleteJob('a') };
    if (method === 'delete') repository.get = async (id) => ({ id, spec: spec, state: 'completed' }) as unknown as JobStatus;
    for (const fail of [() => Promise.reject(cause), () => { throw cause; }]) {
      repository[method] = fail;
      expect(await errorOf(calls[method])).toMatchObject({ code: 'STORE_UNAVAILABLE', cause });
    }
  }); // prettier-ignore

  it('[F144] a failed process tells chunk, attempt, exit code and the end of its stderr', async () => {
    const run = specOf(1);
    run.chunks![0]!.command = `sh -c 'echo the reason >&2; exit 7'`;
    const error = await errorOf(() => new JobExecutor(new LocalWorkerAdapter()).execute(run, { retries: 1, retryDelay: 0 }));
    expect(error).toMatchObject({ name: 'FramewrightError', code: 'CHUNK_FAILED', details: { chunkId: 0, attempt: 2, exitCode: 7 } });
    expect(error.details!['stderrTail']).toContain('the reason');
  });

  it('[F144] FramewrightError is a class that users can make and tell apart', () => {
    const error = new FramewrightError('NOT_FOUND', 'text', { details: { a: 1 }, issues: [{ path: 'p', message: 'm' }], cause: 5 });
    expect(error).toMatchObject({ code: 'NOT_FOUND', message: 'text', details: { a: 1 }, issues: [{ path: 'p', message: 'm' }], cause: 5, name: 'FramewrightError' });
    expect(Object.prototype.hasOwnProperty.call(new FramewrightError('INTERNAL', 'x'), 'cause')).toBe(false);
  });
});

