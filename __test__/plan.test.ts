import fc from 'fast-check';
import { FramewrightError, InMemoryJobRepository, planChunks, type PlanOptions, type RenderJobChunk } from 'framewright';
import { describe, expect, it } from 'vitest';
import { open } from './support/managers.js';
import { rejection } from './support/rejection.js';

const base = { outputFile: 'part-{chunkId}.mp4', command: 'render {startFrame} {endFrame}' };
const plan = (options: Partial<PlanOptions>): RenderJobChunk[] => planChunks({ ...base, ...options });
const ranges = (chunks: RenderJobChunk[]): [number, number][] => chunks.map((chunk) => [chunk.startFrame, chunk.frameCount]);

/** Every frame that the chunks render, in their order. */
function framesOf(chunks: RenderJobChunk[]): number[] {
  return chunks.flatMap((chunk) => Array.from({ length: chunk.frameCount }, (_, n) => chunk.startFrame + n * (chunk.frameStep ?? 1)));
}

function refused(options: unknown): FramewrightError {
  try {
    planChunks(options as PlanOptions);
  } catch (error) {
    expect(error).toBeInstanceOf(FramewrightError);
    expect((error as FramewrightError).code).toBe('VALIDATION');
    return error as FramewrightError;
  }
  throw new Error(`planned: ${JSON.stringify(options)}`);
}

const pathsOf = (error: FramewrightError): string[] => (error.issues ?? []).map((issue) => issue.path);

describe('planChunks', () => {
  it('[F6] 300 frames in chunks of 75 are 4 x 75, and so are 300 frames in 4 chunks', () => {
    const expected = [0, 75, 150, 225].map((startFrame, id) => ({ id, startFrame, frameCount: 75, outputFile: `part-${id}.mp4`, command: base.command }));
    expect(plan({ totalFrames: 300, chunkSize: 75 })).toEqual(expected);
    expect(plan({ totalFrames: 300, chunkCount: 4 })).toEqual(expected);
  });

  it('[F6] the last chunk is the smaller one', () => {
    expect(ranges(plan({ totalFrames: 10, chunkSize: 4 }))).toEqual([[0, 4], [4, 4], [8, 2]]); // prettier-ignore
    const counts = plan({ totalFrames: 10, chunkCount: 4 }).map((chunk) => chunk.frameCount);
    expect(counts).toHaveLength(4);
    expect(Math.max(...counts)).toBe(3);
    expect(counts[3]).toBeLessThan(counts[0]!);
  });

  it('[F6] whatever is asked for: every frame once, in order, no chunk empty, none bigger than asked', () => {
    const options = fc.record({
      totalFrames: fc.integer({ min: 1, max: 3000 }),
      startFrame: fc.option(fc.integer({ min: 0, max: 100_000 }), { nil: undefined }),
      cut: fc.oneof(fc.record({ chunkSize: fc.integer({ min: 1, max: 4000 }) }), fc.record({ chunkCount: fc.integer({ min: 1, max: 4000 }) })),
    });
    fc.assert(
      fc.property(options, ({ totalFrames, startFrame, cut }) => {
        const chunks = plan({ totalFrames, ...(startFrame === undefined ? {} : { startFrame }), ...cut });
        const first = startFrame ?? 0;
        let next = first;
        for (const [n, chunk] of chunks.entries()) {
          if (chunk.id !== n || chunk.startFrame !== next || chunk.frameCount < 1 || chunk.outputFile !== `part-${n}.mp4`) return false;
          next += chunk.frameCount;
        }
        if (next !== first + totalFrames) return false;
        if ('chunkSize' in cut) return chunks.every((chunk, n) => chunk.frameCount === cut.chunkSize || (n === chunks.length - 1 && chunk.frameCount < cut.chunkSize));
        const counts = chunks.map((chunk) => chunk.frameCount);
        return chunks.length === Math.min(cut.chunkCount, totalFrames) && Math.max(...counts) - counts.at(-1)! <= 1;
      }),
      { numRuns: 300 },
    );
  });

  it('[F6] ranges with steps give exactly their frames, and no chunk spans two of them', () => {
    const chunks = plan({ frames: '1-10,20-31x3,50', chunkSize: 4 });
    expect(framesOf(chunks)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 23, 26, 29, 50]);
    expect(chunks.map((chunk) => [chunk.startFrame, chunk.frameCount, chunk.frameStep ?? 1])).toEqual([[1, 4, 1], [5, 4, 1], [9, 2, 1], [20, 4, 3], [50, 1, 1]]); // prettier-ignore
  });

  it('[F6] the output file has its placeholders put in, padded when asked, and the command is left as it is', () => {
    const [, second] = plan({ totalFrames: 20, startFrame: 5, chunkSize: 10, outputFile: '{chunkId:04}_{startFrame:3}-{endFrame}_{jobId}_{other}.exr', command: 'r {chunkId} {startFrame:06}' });
    expect(second!.outputFile).toBe('0001_015-24_{jobId}_{other}.exr');
    expect(second!.command).toBe('r {chunkId} {startFrame:06}');
  });

  it('[F7] startFrame moves the whole plan', () => {
    expect(ranges(plan({ totalFrames: 10, startFrame: 1001, chunkSize: 4 }))).toEqual([[1001, 4], [1005, 4], [1009, 2]]); // prettier-ignore
  });

  it('[F7] more chunks than frames give one frame each and no empty chunk', () => {
    expect(ranges(plan({ totalFrames: 3, startFrame: 7, chunkCount: 100 }))).toEqual([[7, 1], [8, 1], [9, 1]]); // prettier-ignore
    expect(ranges(plan({ totalFrames: 3, chunkSize: 100 }))).toEqual([[0, 3]]);
  });

  it('[F7] the highest frame that a number holds exactly can be planned, and no higher one', () => {
    const [only] = plan({ totalFrames: 1, startFrame: Number.MAX_SAFE_INTEGER, chunkSize: 1 });
    expect(only).toMatchObject({ startFrame: Number.MAX_SAFE_INTEGER, frameCount: 1 });
    refused({ ...base, totalFrames: 2, startFrame: Number.MAX_SAFE_INTEGER, chunkSize: 1 });
  });

  it('[F6] [F7] a job submitted as a plan has the chunks that planChunks gives', async () => {
    const manager = open(new InMemoryJobRepository(), { execute: () => Promise.resolve() });
    for (const options of [{ totalFrames: 103, startFrame: 9, chunkSize: 10 }, { totalFrames: 5, chunkCount: 50 }, { frames: '1-10,30-41x2', chunkCount: 4 }]) {
      const job = await manager.waitForJob(await manager.submitJob({ plan: { ...base, ...options } }));
      expect(job.spec.chunks).toEqual(plan(options));
      expect(job).toMatchObject({ totalChunks: plan(options).length, completedChunks: plan(options).length, progress: 100 });
    }
  });

  it.each<[string, Record<string, unknown>, string]>([
    ['no frames', { totalFrames: 0, chunkSize: 1 }, 'totalFrames'],
    ['negative frames', { totalFrames: -3, chunkSize: 1 }, 'totalFrames'],
    ['half a frame', { totalFrames: 1.5, chunkSize: 1 }, 'totalFrames'],
    ['frames that are NaN', { totalFrames: NaN, chunkSize: 1 }, 'totalFrames'],
    ['endless frames', { totalFrames: Infinity, chunkSize: 1 }, 'totalFrames'],
    ['a huge number of frames', { totalFrames: 1e300, chunkSize: 1e299 }, 'totalFrames'],
    ['frames as text', { totalFrames: '300', chunkSize: 1 }, 'totalFrames'],
    ['a negative start', { totalFrames: 3, chunkSize: 1, startFrame: -1 }, 'startFrame'],
    ['a start that is NaN', { totalFrames: 3, chunkSize: 1, startFrame: NaN }, 'startFrame'],
    ['a start that is null', { totalFrames: 3, chunkSize: 1, startFrame: null }, 'startFrame'],
    ['a size of 0', { totalFrames: 3, chunkSize: 0 }, 'chunkSize'],
    ['a size that is NaN beside a count', { totalFrames: 3, chunkCount: 1, chunkSize: NaN }, 'chunkSize'],
    ['a fractional size', { totalFrames: 3, chunkSize: 0.5 }, 'chunkSize'],
    ['a count of 0', { totalFrames: 3, chunkCount: 0 }, 'chunkCount'],
    ['a negative count', { totalFrames: 3, chunkCount: -1 }, 'chunkCount'],
    ['size and count', { totalFrames: 3, chunkSize: 1, chunkCount: 1 }, 'chunkCount'],
    ['neither size nor count', { totalFrames: 3 }, 'chunkSize'],
    ['frames twice', { totalFrames: 3, frames: '1-3', chunkSize: 1 }, 'frames'],
    ['no frames at all', { chunkSize: 1 }, 'totalFrames'],
    ['overlapping ranges', { frames: '1-10,5', chunkSize: 1 }, 'frames'],
    ['a reversed range', { frames: '10-1', chunkSize: 1 }, 'frames'],
    ['a step of 0', { frames: '1-10x0', chunkSize: 1 }, 'frames'],
    ['ranges that are no text', { frames: 5, chunkSize: 1 }, 'frames'],
    ['nonsense for ranges', { frames: '1-,x', chunkSize: 1 }, 'frames'],
    ['more chunks than there may be', { totalFrames: 1e9, chunkSize: 1 }, 'chunkSize'],
    ['one output for many chunks', { totalFrames: 3, chunkSize: 1, outputFile: 'same.mp4' }, 'outputFile'],
    ['an output that is no text', { totalFrames: 3, chunkSize: 1, outputFile: 5 }, 'outputFile'],
    ['no output', { totalFrames: 3, chunkSize: 1, outputFile: undefined }, 'outputFile'],
    ['an empty command', { totalFrames: 3, chunkSize: 1, command: ' ' }, 'command'],
    ['a command with an open quote', { totalFrames: 3, chunkSize: 1, command: 'a "b' }, 'command'],
    ['a command that is no text', { totalFrames: 3, chunkSize: 1, command: ['a'] }, 'command'],
    ['a command with NUL', { totalFrames: 3, chunkSize: 1, command: 'a \0' }, 'command'],
  ])('[F2] [F6] %s is refused with its field, in planChunks and in a spec', async (_, options, path) => {
    expect(pathsOf(refused({ ...base, ...options }))).toContain(path);
    const repository = new InMemoryJobRepository();
    const manager = open(repository, { execute: () => Promise.resolve() });
    const error = await rejection(manager.submitJob({ plan: { ...base, ...options } }));
    expect(error.code).toBe('VALIDATION');
    expect(pathsOf(error)).toContain(`plan.${path}`);
    expect(await repository.list()).toEqual([]);
  });

  it('[F2] all problems of a plan are told at once, wrong types included', () => {
    expect(pathsOf(refused({ totalFrames: 0, chunkSize: 0, outputFile: '', command: '' })).sort()).toEqual(['chunkSize', 'command', 'outputFile', 'totalFrames']);
    expect(pathsOf(refused({ totalFrames: '300', chunkSize: -1, outputFile: 5, command: '' })).sort()).toEqual(['chunkSize', 'command', 'outputFile', 'totalFrames']);
  });

  it.each([[undefined], [null], [5], ['1-10'], [true], [[]], [[3, 0, 1, null, null, 'o{chunkId}', 'c']], [() => base]])('options that are %s are refused', (options) => {
    const error = refused(options);
    expect(pathsOf(error)[0]).toBeTruthy();
  });

  it('options that JSON cannot hold are refused', () => {
    const cyclic: Record<string, unknown> = { ...base, totalFrames: 3, chunkSize: 1 };
    cyclic['self'] = cyclic;
    refused(cyclic);
    refused({ ...base, totalFrames: 3n, chunkSize: 1 });
  });
});
