/** What a chunk leaves behind: where it may be, and whether it is as it should be. */
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { FramewrightError, messageOf, typed } from './errors.js';
import binding from './native.js';
import type { JobExecutionOptions, RenderJobChunk, WorkerResult } from './types.js';

/** How outputs are looked at: what is merged must not be empty. */
export function verification(options: JobExecutionOptions): NonNullable<JobExecutionOptions['verifyOutput']> {
  const { verifyOutput, stitcher, outputFile, merge, skipMerge } = options;
  return verifyOutput ?? (stitcher && outputFile && merge !== false && skipMerge !== true ? 'nonempty' : 'none');
}

/** Where outputs must stay in the job's folder, links are followed before anything writes there. */
export async function checkInside(outputFile: string | undefined, options: JobExecutionOptions): Promise<void> {
  if (options.allowOutsidePaths !== false || outputFile === undefined) return;
  try {
    await binding.checkInside(resolve(options.jobDir ?? '', outputFile), resolve(options.jobDir ?? ''));
  } catch (error) {
    throw typed(error);
  }
}

/**
 * Looks at the output of a chunk that ended well.
 *
 * @throws FramewrightError OUTPUT_MISSING.
 */
export async function checkOutput(chunk: RenderJobChunk, options: JobExecutionOptions, result: WorkerResult): Promise<void> {
  const verify = verification(options);
  const { outputFile } = chunk as Partial<RenderJobChunk>;
  if (verify === 'none' || outputFile === undefined || result.exitCode !== 0) return;
  const file = resolve(options.jobDir ?? '', outputFile);
  const missing = (why: string, cause?: unknown): FramewrightError =>
    new FramewrightError('OUTPUT_MISSING', `Chunk ${chunk.id} failed: ${why}`, cause === undefined ? {} : { cause });
  if (typeof verify === 'function') {
    let good: unknown;
    try {
      good = await verify(file, chunk);
    } catch (error) {
      throw missing(`verifyOutput threw: ${messageOf(error)}`, error);
    }
    if (!good) throw missing(`verifyOutput refused ${file}`);
    return;
  }
  const found = await stat(file).catch((error: unknown) => {
    throw missing(`its output ${file} is not there (${messageOf(error)})`, error);
  });
  if (verify === 'nonempty' && found.isFile() && found.size === 0) throw missing(`its output ${file} is empty`);
}
