/** Finished chunks put together. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { checkMethod, checkObject, checkSignal, isText, isTexts } from './arguments.js';
import { FramewrightError, aborted, invalid, messageOf, native, typed } from './errors.js';
import { LocalWorkerAdapter } from './local-adapter.js';
import binding from './native.js';
import { onAbort } from './signals.js';
import type { VideoStitcher, WorkerAdapter } from './types.js';

const kinds = new WeakMap<object, 'ffmpeg' | 'concat'>();

/** What a stitcher is called in a job's record. */
export function stitcherKind(stitcher: VideoStitcher): 'ffmpeg' | 'concat' | 'custom' {
  return kinds.get(stitcher) ?? 'custom';
}

function check(inputs: unknown, output: unknown, options: unknown): asserts inputs is string[] {
  if (!isTexts(inputs) || inputs.includes('')) throw invalid('inputs', 'must be an array of paths', 'stitch');
  if (inputs.length === 0) throw invalid('inputs', 'must not be empty', 'stitch');
  if (!isText(output) || output === '') throw invalid('output', 'must be a path', 'stitch');
  checkObject(options);
  checkSignal(options['signal']);
}

/** What went wrong, as an error of ours; another's is its cause. */
function mergeError(error: unknown): FramewrightError {
  if (error instanceof FramewrightError) return error;
  return new FramewrightError('MERGE_FAILED', `Merge failed: ${messageOf(error)}`, { cause: error });
}

/** Joins videos of the same encoding by ffmpeg's concat demuxer, without encoding again. */
export class FfmpegStitcher implements VideoStitcher {
  readonly #adapter: WorkerAdapter;
  readonly #ffmpeg: string;

  constructor(adapter: WorkerAdapter = new LocalWorkerAdapter(), options: { ffmpegPath?: string } = {}) {
    checkMethod(adapter, 'adapter', 'execute');
    checkObject(options);
    if (options.ffmpegPath !== undefined && (!isText(options.ffmpegPath) || options.ffmpegPath === '')) throw invalid('ffmpegPath', 'must be a path', 'options');
    this.#adapter = adapter;
    this.#ffmpeg = options.ffmpegPath ?? 'ffmpeg';
    kinds.set(this, 'ffmpeg');
  }

  /**
   * Writes `output` from `inputs`, in their order: beside it first, brought to disk, then renamed.
   *
   * @throws FramewrightError MERGE_FAILED with the end of ffmpeg's stderr, ABORTED.
   */
  async stitch(inputs: string[], output: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    check(inputs, output, options);
    const { signal } = options;
    if (signal?.aborted) throw aborted('The merge was not started', signal);
    const tag = randomUUID().slice(0, 8);
    const target = resolve(output);
    const temporary = binding.temporaryBeside(target, tag);
    const list = `${temporary}.txt`;
    const text = native(() => binding.concatList(inputs.map((input) => resolve(input))));
    await mkdir(dirname(target), { recursive: true });
    try {
      await writeFile(list, text);
      const args = ['-nostdin', '-hide_banner', '-loglevel', 'error', '-y', '-f', 'concat', '-safe', '0', '-i', list, '-c', 'copy', temporary];
      const result = await this.#adapter.execute({ command: this.#ffmpeg, args, ...(signal ? { signal } : {}) });
      if (signal?.aborted) throw aborted('The merge was stopped', signal);
      if (result.exitCode !== 0) {
        const tail = result.stderr.slice(-4096).trim();
        throw new FramewrightError('MERGE_FAILED', `Merge failed: ffmpeg ended with exit code ${result.exitCode}${tail ? `: ${tail}` : ''}`, {
          details: { exitCode: result.exitCode, stderrTail: tail },
        });
      }
      await binding.publishFile(temporary, target);
    } catch (error) {
      if (signal?.aborted) throw aborted('The merge was stopped', signal);
      throw mergeError(typed(error));
    } finally {
      await rm(list, { force: true });
      await rm(temporary, { force: true });
    }
  }
}

/** Joins files byte by byte, without an external tool: for formats that may be concatenated (MPEG-TS, raw streams, text). */
export class ConcatStitcher implements VideoStitcher {
  constructor() {
    kinds.set(this, 'concat');
  }

  /**
   * Writes `output` from `inputs`, in their order: beside it first, brought to disk, then renamed.
   *
   * @throws FramewrightError MERGE_FAILED that names the file, ABORTED.
   */
  async stitch(inputs: string[], output: string, options: { signal?: AbortSignal } = {}): Promise<void> {
    check(inputs, output, options);
    const { signal } = options;
    if (signal?.aborted) throw aborted('The merge was not started', signal);
    const target = resolve(output);
    await mkdir(dirname(target), { recursive: true });
    const work = new binding.Concatenation();
    const stop = (): void => {
      work.stop();
    };
    const unfollow = signal && onAbort(signal, stop);
    try {
      await work.run(
        inputs.map((input) => resolve(input)),
        target,
      );
    } catch (error) {
      if (signal?.aborted) throw aborted('The merge was stopped', signal);
      throw mergeError(typed(error));
    } finally {
      unfollow?.();
    }
  }
}
