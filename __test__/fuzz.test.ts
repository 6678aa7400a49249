import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import type {
  JobManager} from 'framewright';
import {
  FramewrightError,
  InMemoryJobRepository,
  JobExecutor,
  planChunks,
  type Executor,
  type JobSpecInput,
  type JobStatus,
  type JobStatusInput,
  type PlanOptions,
  type SubmitOptions,
} from 'framewright';
import { describe, expect, it } from 'vitest';
import { open } from './support/managers.js';

// A failing run prints its seed and its smallest counterexample; FRAMEWRIGHT_SEED repeats it.
const seed = process.env['FRAMEWRIGHT_SEED'];
const settings = (numRuns: number): fc.Parameters<unknown> => ({ numRuns, ...(seed === undefined ? {} : { seed: Number(seed) }) });

const idle: Executor = { execute: () => Promise.resolve() };
const byFunction = JobExecutor.fromFunction(async () => undefined);

// ── Values of all kinds ──

const cyclic: unknown[] = [];
cyclic.push(cyclic);

/** What no field is made for. */
const strange = fc.oneof(
  fc.constantFrom<unknown>(null, true, false, '', ' ', 'NaN', '0', NaN, Infinity, -Infinity, -0, -1, 0.5, 1e300, -1e300, 2 ** 53, 2 ** 32, 2 ** 31, Number.MIN_VALUE, [], {}, [[]], { length: 1 }, '\0', '\ud800', '../x', new Date(0), new Map(), cyclic, 1n, Symbol('s'), () => 1),
  fc.anything({ withBigInt: true, withDate: true, withNullPrototype: true, withSparseArray: true, withTypedArray: true, withObjectString: true, maxDepth: 2 }),
); // prettier-ignore

interface Field {
  value: unknown;
  /** Whether the declarations allow it. */
  good: boolean;
}

const good = (value: fc.Arbitrary<unknown>): fc.Arbitrary<Field> => value.map((value) => ({ value, good: true }));
const bad = (value: fc.Arbitrary<unknown>): fc.Arbitrary<Field> => value.map((value) => ({ value, good: false }));
const mostly = (fine: fc.Arbitrary<unknown>, wrong: fc.Arbitrary<unknown>): fc.Arbitrary<Field> => fc.oneof({ weight: 30, arbitrary: good(fine) }, { weight: 1, arbitrary: bad(wrong) });

const integer = (least: number): fc.Arbitrary<number> => fc.oneof(fc.integer({ min: least, max: 1000 }), fc.integer({ min: least, max: 2 ** 40 }));
const noInteger = fc.constantFrom<unknown>(-1, 0.5, NaN, Infinity, -Infinity, 2 ** 53, 1e300, '0', null, true, [], {}, [1]);
const noText = fc.constantFrom<unknown>(null, 5, NaN, true, [], {}, ['a']);
const goodCommand = fc.oneof(fc.constantFrom('render', `a 'b c' "d"`, 'x {chunkId} {nothing}', 'a\\ b', `'it'\\''s'`, 'é "🎥"', '# x', 'a\nb'), fc.stringMatching(/^[a-z][a-z{}:$#*;|&<> =-]{0,12}$/));
const badCommand = fc.oneof(noText, fc.constantFrom('', ' \t\n', `a "b`, `a 'b`, 'a\\', 'a\0b', `"`));
const json = fc.jsonValue({ maxDepth: 2, depthSize: 'small' });
const extraName = fc.constantFrom('gpu', 'x-y', 'Ž', 'constructor', 'toString', 'chunk', 'length', 'weights', '');

// ── Specs ──

interface Drawn<T> {
  value: T;
  good: boolean;
}

const drawnChunk = fc
  .record({
    id: fc.oneof({ weight: 12, arbitrary: good(fc.constant(undefined)) }, { weight: 3, arbitrary: good(fc.nat(40)) }, { weight: 1, arbitrary: bad(noInteger) }),
    startFrame: fc.option(mostly(integer(0), noInteger), { nil: undefined }),
    frameCount: fc.option(mostly(integer(1), fc.oneof(noInteger, fc.constant(0))), { nil: undefined }),
    frameStep: fc.option(mostly(fc.integer({ min: 1, max: 50 }), fc.oneof(noInteger, fc.constant(0))), { nil: undefined }),
    outputFile: fc.option(mostly(fc.nat(60).map((n) => `out-${n}.mp4`), fc.oneof(noText, fc.constantFrom('', 'a\0b'))), { nil: undefined }),
    command: mostly(goodCommand, badCommand),
    argv: fc.option(mostly(fc.array(fc.stringMatching(/^[a-z "'\\]*$/), { maxLength: 3 }).map((words) => ['tool', ...words]), fc.constantFrom<unknown>(null, [], [''], ['a', 5], ['a', '\0'], 'a b', {}, [null])), { nil: undefined, freq: 4 }),
    extra: fc.option(fc.tuple(extraName, json), { nil: undefined }),
  })
  .map((fields) => ({ fields, instead: undefined }));

const chunk = fc.oneof(
  { weight: 60, arbitrary: drawnChunk },
  { weight: 1, arbitrary: fc.constantFrom<unknown>(null, 5, 'chunk', [], [0, 0, 1, 1, 'o', 'c', null]).map((instead) => ({ fields: undefined, instead })) },
); // prettier-ignore

const spec: fc.Arbitrary<Drawn<unknown>> = fc
  .record({
    chunks: fc.array(chunk, { maxLength: 4 }),
    id: fc.option(mostly(fc.string(), noText), { nil: undefined }),
    metadata: fc.option(mostly(fc.record({ totalFrames: integer(0), fps: fc.double({ min: 0, max: 1000, noNaN: true }), width: integer(0), codec: json }, { requiredKeys: [] }), fc.constantFrom<unknown>(null, 5, [], 'x', { fps: NaN }, { fps: -1 }, { width: '5' }, { duration: null })), { nil: undefined }),
    mergeCommand: fc.option(mostly(fc.oneof(goodCommand, fc.constantFrom('', '  ')), fc.oneof(noText, fc.constantFrom(`a "b`, 'a\\'))), { nil: undefined }),
    assetsUrl: fc.option(mostly(fc.webUrl(), noText), { nil: undefined }),
    payload: fc.option(good(json), { nil: undefined }),
    extra: fc.option(fc.tuple(extraName, json), { nil: undefined }),
  })
  .map(({ chunks, extra, ...fields }) => {
    let allGood = true;
    const ids = new Set<unknown>();
    const outputs = new Set<unknown>();
    const list = chunks.map(({ fields, instead }, n): unknown => {
      if (!fields) {
        allGood = false;
        return instead;
      }
      const { extra, ...drawn } = fields;
      const made: Record<string, unknown> = extra ? { [extra[0]]: extra[1] } : {};
      for (const [name, field] of Object.entries(drawn)) {
        if (!field) continue;
        if (name === 'id' && field.value === undefined) field.value = 100 + n;
        // An argv wins: whether a command beside it can be split is nobody's business.
        if (name === 'command' && drawn.argv && typeof field.value === 'string') continue;
        if (!field.good) allGood = false;
        made[name] = field.value;
      }
      if (ids.has(made['id']) || (made['outputFile'] !== undefined && outputs.has(made['outputFile']))) allGood = false;
      ids.add(made['id']);
      if (made['outputFile'] !== undefined) outputs.add(made['outputFile']);
      return made;
    });
    const value: Record<string, unknown> = extra ? { [extra[0]]: extra[1] } : {};
    value['chunks'] = list;
    for (const [name, field] of Object.entries(fields)) {
      if (!field) continue;
      if (!field.good) allGood = false;
      value[name] = field.value;
    }
    return { value, good: allGood };
  }); // prettier-ignore

// ── Options ──

const noFlag = fc.constantFrom<unknown>('yes', 1, 0, null, [], () => true);
const noMilliseconds = fc.constantFrom<unknown>(-1, NaN, Infinity, '5', null, [], {});
const option = {
  concurrency: mostly(integer(1), fc.constantFrom<unknown>(0, -1, 1.5, NaN, Infinity, '2', null, 2n, [], () => 1)),
  retries: mostly(integer(0), fc.constantFrom<unknown>(-1, 0.5, NaN, Infinity, '1', null)),
  retryDelay: mostly(fc.double({ min: 0, max: 1e6, noNaN: true }), noMilliseconds),
  retryPolicy: mostly(fc.constantFrom({ type: 'fixed_delay', delayMs: 1 }, { type: 'exponential_backoff', initialMs: 1, maxMs: 5, jitter: 0.5 }), fc.constantFrom<unknown>(null, {}, { type: 'x' }, { type: 'fixed_delay', delayMs: NaN })),
  failurePolicy: mostly(fc.constantFrom('fail-fast', 'continue'), fc.constantFrom<unknown>('odd', null, 5)),
  timeouts: mostly(fc.record({ chunkMs: fc.integer({ min: 60_000, max: 1e9 }), jobMs: fc.integer({ min: 60_000, max: 1e12 }) }, { requiredKeys: [] }), fc.constantFrom<unknown>(null, 5, { chunkMs: 0 }, { jobMs: NaN }, { startMs: '1' })),
  verifyOutput: mostly(fc.constantFrom('none', 'exists', 'nonempty'), fc.constantFrom<unknown>('odd', 'function', null, 5)),
  hashOutputs: mostly(fc.boolean(), noFlag),
  allowOutsidePaths: mostly(fc.boolean(), noFlag),
  merge: mostly(fc.boolean(), noFlag),
  cleanupChunks: mostly(fc.boolean(), noFlag),
  env: mostly(fc.dictionary(fc.stringMatching(/^[A-Z]{1,4}$/), fc.string().map((text) => text.replaceAll('\0', ''))), fc.constantFrom<unknown>(null, 5, { A: 5 }, { 'A=B': 'x' }, { A: 'x\0' })),
  completedChunkIds: mostly(fc.array(fc.nat(200)), fc.constantFrom<unknown>(null, 5, [-1], [0.5], [NaN], ['0'])),
  meta: mostly(fc.dictionary(fc.string().filter((name) => name !== '__proto__'), json), fc.constantFrom<unknown>(null, 5, [], 'x', { a: 1n }, { a: cyclic })),
  progressPattern: mostly(fc.constantFrom('frame=(?<frame>\\d+)', '(?<percent>\\d+)%'), fc.constantFrom<unknown>('(', '', 5, null)),
  onProgress: mostly(fc.constant(() => {}), fc.constantFrom<unknown>(null, 5, {})),
  signal: mostly(fc.constant(new AbortController().signal), fc.constantFrom<unknown>(null, 5, {})),
} satisfies Record<string, fc.Arbitrary<Field>>; // prettier-ignore

const options: fc.Arbitrary<Drawn<Record<string, unknown>>> = fc.record(option, { requiredKeys: [] }).map((fields) => ({
  value: Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, (field).value])),
  good: Object.values(fields).every((field) => (field).good),
}));

/** Refused as bad input, and every problem named. */
function refusal(error: unknown): FramewrightError {
  if (!(error instanceof FramewrightError)) throw new Error(`not a FramewrightError: ${String(error)}`, { cause: error });
  expect(error.code).toBe('VALIDATION');
  expect(error.issues?.length).toBeGreaterThan(0);
  for (const issue of error.issues!) expect(typeof issue.path === 'string' && issue.message !== '').toBe(true);
  return error;
}

describe('input of all kinds', () => {
  let manager: JobManager;
  let repository: InMemoryJobRepository;
  let told: string[];
  let case_: number;

  function begin(executor: Executor): void {
    repository = new InMemoryJobRepository();
    manager = open(repository, executor);
    told = [];
    case_ = 0;
    manager.on('event', (event) => told.push(event.jobId));
  }

  /** Submits; an accepted job is given back unchanged and runs to its end, a refused one never was. */
  async function submit(given: unknown, withOptions: unknown): Promise<{ error?: FramewrightError }> {
    case_ += 1;
    const id = `case-${case_}`;
    const plain = typeof withOptions === 'object' && withOptions !== null && !Array.isArray(withOptions);
    told.length = 0;
    try {
      await manager.submitJob(given as JobSpecInput, (plain ? { ...withOptions, id } : withOptions) as SubmitOptions);
    } catch (error) {
      const refused = refusal(error);
      expect(await repository.get(id)).toBeUndefined();
      expect(told).toEqual([]);
      return { error: refused };
    }
    const [kept] = await manager.listJobs({ limit: 1 });
    if (!kept) throw new Error('accepted, and not there');
    try {
      await keptAs(kept, given);
    } finally {
      await manager.deleteJob(kept.id);
    }
    return {};
  }

  async function keptAs(kept: JobStatus, given: unknown): Promise<void> {
    const expected = JSON.parse(JSON.stringify(given)) as Record<string, unknown>;
    const { chunks, ...head } = kept.spec as unknown as Record<string, unknown>;
    if (expected['plan'] === undefined && !isDeepStrictEqual(chunks, expected['chunks'] ?? [])) expect(chunks).toEqual(expected['chunks'] ?? []);
    delete expected['chunks'];
    if (!isDeepStrictEqual(head, expected)) expect(head).toEqual(expected);
    const end = await manager.waitForJob(kept.id);
    if (end.state !== 'completed' || end.progress !== 100 || end.completedChunks !== end.totalChunks) expect(end).toMatchObject({ state: 'completed', progress: 100, completedChunks: end.totalChunks });
  }

  it('[F2] 8,000 specs and options: what the declarations allow is taken and given back unchanged, the rest is refused and leaves nothing', async () => {
    begin(idle);
    let taken = 0;
    await fc.assert(
      fc.asyncProperty(spec, fc.oneof({ weight: 3, arbitrary: fc.constant({ value: {}, good: true }) }, { weight: 2, arbitrary: options }), async (given, withOptions) => {
        const { error } = await submit(given.value, withOptions.value);
        if (!error) taken += 1;
        const fine = given.good && withOptions.good;
        if (fine && error) throw error;
        if (!fine && !error) throw new Error(`taken: ${fc.stringify(given.value)} with ${fc.stringify(withOptions.value)}`);
      }),
      settings(8000),
    );
    // A mix of both, or the test says little.
    expect(taken).toBeGreaterThan(1500);
    expect(taken).toBeLessThan(7000);
    expect(await repository.list()).toEqual([]);
  }, 60_000);

  it('[F2] 3,000 values of any kind in the place of specs, options and their fields never crash or hang it', async () => {
    begin(byFunction);
    const field = fc.constantFrom('id', 'metadata', 'chunks', 'mergeCommand', 'assetsUrl', 'payload', 'plan', 'anything');
    const optionField = fc.constantFrom(...Object.keys(option).filter((name) => !['signal', 'timeouts', 'concurrency'].includes(name)), 'concurrency', 'jobDir', 'outputFile', 'stitcher', 'mergeAdapter', 'skipMerge', 'crashRetries');
    const given = fc.oneof(
      strange,
      fc.dictionary(field, strange, { maxKeys: 3 }),
      fc.array(fc.oneof(strange, fc.dictionary(fc.constantFrom('id', 'startFrame', 'frameCount', 'frameStep', 'outputFile', 'command', 'argv', 'x'), strange)), { maxLength: 4 }).map((chunks) => ({ chunks })),
    );
    const withOptions = fc.oneof({ weight: 4, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: strange }, { weight: 3, arbitrary: fc.dictionary(optionField, strange, { maxKeys: 3 }) });
    await fc.assert(
      fc.asyncProperty(given, withOptions, async (value, chosen) => {
        // What a merge would run or write is no matter of this test.
        if (typeof chosen === 'object' && chosen !== null && ('stitcher' in chosen || 'mergeAdapter' in chosen)) return;
        const merge = typeof value === 'object' && value !== null ? (value as { mergeCommand?: unknown }).mergeCommand : undefined;
        const merges = typeof merge === 'string' || merge instanceof Date;
        await submit(merges ? { ...(value as object), mergeCommand: '' } : value, chosen === undefined ? {} : chosen);
      }),
      settings(3000),
    );
    expect(await repository.list()).toEqual([]);
  }, 60_000); // prettier-ignore

  it('[F6] 2,000 plans of any kind are planned without gap or overlap, or refused', () => {
    const fine = fc.tuple(
      fc.oneof(fc.record({ totalFrames: fc.integer({ min: 1, max: 300 }), startFrame: fc.nat(1000) }, { requiredKeys: ['totalFrames'] }), fc.record({ frames: fc.stringMatching(/^\d{1,2}(-1\d\d(x[1-9])?)?(,[2-9]\d\d)?$/) })),
      fc.oneof(fc.record({ chunkSize: fc.integer({ min: 1, max: 400 }) }), fc.record({ chunkCount: fc.integer({ min: 1, max: 400 }) })),
      fc.record({ outputFile: fc.constantFrom('{chunkId}', 'o-{startFrame:04}', '{endFrame}.x'), command: goodCommand }),
    );
    const field = fc.constantFrom('totalFrames', 'startFrame', 'chunkSize', 'chunkCount', 'frames', 'outputFile', 'command', 'other');
    const plan = fc.tuple(fine, fc.dictionary(field, strange, { maxKeys: 1 })).map(([parts, change]): unknown => Object.assign({}, ...parts, change));
    let planned = 0;
    fc.assert(
      fc.property(fc.oneof({ weight: 5, arbitrary: plan }, { weight: 1, arbitrary: strange }), (given) => {
        // Millions of chunks are a fine plan, and minutes of comparing.
        const { totalFrames } = (given ?? {}) as { totalFrames?: unknown };
        fc.pre(!(Number.isSafeInteger(totalFrames) && (totalFrames as number) > 100_000));
        let chunks;
        try {
          chunks = planChunks(given as PlanOptions);
        } catch (error) {
          refusal(error);
          return;
        }
        planned += 1;
        // As JSON has it: what JSON leaves out was not given.
        const options = JSON.parse(JSON.stringify(given)) as PlanOptions;
        expect(chunks.every((chunk, n) => chunk.id === n && chunk.frameCount >= 1 && Number.isSafeInteger(chunk.startFrame))).toBe(true);
        expect(new Set(chunks.map((chunk) => chunk.outputFile)).size).toBe(chunks.length);
        if (options.totalFrames !== undefined) {
          let next = options.startFrame ?? 0;
          const end = next + options.totalFrames;
          for (const chunk of chunks) {
            expect([chunk.startFrame, chunk.frameStep ?? 1]).toEqual([next, 1]);
            next += chunk.frameCount;
          }
          expect(next).toBe(end);
        } else if (chunks.reduce((sum, chunk) => sum + chunk.frameCount, 0) < 100_000) {
          const frames = chunks.flatMap((chunk) => Array.from({ length: chunk.frameCount }, (_, n) => chunk.startFrame + n * (chunk.frameStep ?? 1)));
          expect(new Set(frames).size).toBe(frames.length);
        }
      }),
      settings(2000),
    );
    expect(planned).toBeGreaterThan(500);
  }, 30_000); // prettier-ignore

  it('[F31] 2,000 statuses of any kind are kept as they are, or refused and change nothing', async () => {
    repository = new InMemoryJobRepository();
    const base: JobStatusInput = { id: 'a', spec: { id: 'r', metadata: { totalFrames: 1, fps: 1, width: 1, height: 1, duration: 1 }, chunks: [], mergeCommand: '' }, state: 'paused', progress: 0, totalChunks: 0, completedChunks: 0, createdAt: 1, updatedAt: 1 };
    await repository.save(base);
    const field = fc.constantFrom('id', 'spec', 'state', 'progress', 'totalChunks', 'completedChunks', 'createdAt', 'updatedAt', 'version', 'meta', 'logs', 'metrics', 'error', 'failure', 'tags', 'dependencies', 'priority', 'record', 'result', 'name', 'attempt', 'startedAt', 'owner', 'mine');
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(fc.dictionary(field, strange, { minKeys: 1, maxKeys: 2 }), async (changes) => {
        const before = (await repository.get('a'))!;
        try {
          await repository.save({ ...base, ...changes });
        } catch (error) {
          refused += 1;
          if (!(error instanceof FramewrightError)) throw new Error(`not a FramewrightError: ${String(error)}`, { cause: error });
          expect(['VALIDATION', 'CONFLICT', 'STORE_CORRUPT']).toContain(error.code);
          if (!isDeepStrictEqual(await repository.get('a'), before)) expect(await repository.get('a')).toEqual(before);
          return;
        }
        // A `version` that was named and did not match is refused; so what was kept is one further.
        const id = (JSON.parse(JSON.stringify({ ...base, ...changes })) as { id: string }).id;
        const after = await repository.get(id);
        if (!after) throw new Error('saved, and not there');
        if (id === 'a') expect(after.version).toBe(before.version + 1);
        else await repository.delete(id);
        expect(typeof after.progress === 'number' && after.progress >= 0 && after.progress <= 100 && Array.isArray(after.tags) && Array.isArray(after.dependencies)).toBe(true);
        expect((await repository.list()).length).toBe(1);
      }),
      settings(2000),
    );
    expect(refused).toBeGreaterThan(200);
  }, 30_000); // prettier-ignore
});
