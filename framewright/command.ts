/** A chunk's command as the words that run. The rules live in the engine; here is the quick way for plain commands. */
import binding from './native.js';
import { native } from './errors.js';
import type { RenderJobChunk } from './types.js';

/** Where a placeholder may stand, and what it is. */
const PLACEHOLDER = /\{(chunkId|startFrame|endFrame|frameCount|frameStep|outputFile|jobId|attempt)(?::(\d+))?\}/g;

/** The widest padding; a wider one stays as it is. */
const WIDEST = 32;

export interface Values {
  chunkId: number;
  startFrame?: number | undefined;
  endFrame?: number | undefined;
  frameCount?: number | undefined;
  frameStep: number;
  outputFile?: string | undefined;
  jobId: string;
  attempt: number;
}

/** Splits a POSIX-quoted command line. */
export function splitCommand(command: string): string[] {
  // Without quotes and backslashes white space is all there is to it.
  if (/["'\\\0]/.test(command)) return native(() => binding.splitCommand(command));
  return command.split(/[ \t\n]+/).filter((word) => word !== '');
}

/** Puts values in; what has no value stays as it is. */
export function render(template: string, values: Values): string {
  if (!template.includes('{')) return template;
  return template.replace(PLACEHOLDER, (whole, name: keyof Values, width: string | undefined) => {
    const value = values[name];
    if (value === undefined) return whole;
    if (width === undefined) return String(value);
    const digits = Number(width);
    if (typeof value === 'string' || digits < 1 || digits > WIDEST) return whole;
    return String(value).padStart(digits, '0');
  });
}

/** The values of a chunk's placeholders. */
export function valuesOf(chunk: RenderJobChunk, jobId: string, attempt: number): Values {
  const step = chunk.frameStep ?? 1;
  const { startFrame, frameCount } = chunk as Partial<RenderJobChunk>;
  return {
    chunkId: chunk.id,
    startFrame,
    endFrame: startFrame === undefined || frameCount === undefined ? undefined : startFrame + (frameCount - 1) * step,
    frameCount,
    frameStep: step,
    outputFile: (chunk as Partial<RenderJobChunk>).outputFile,
    jobId,
    attempt,
  };
}

/** The values as environment variables, on top of the job's own. */
export function environmentOf(values: Values, own: Record<string, string> | undefined): Record<string, string> {
  const env: Record<string, string> = own ? { ...own } : {};
  env['FRAMEWRIGHT_JOB_ID'] = values.jobId;
  env['FRAMEWRIGHT_CHUNK_ID'] = `${values.chunkId}`;
  env['FRAMEWRIGHT_ATTEMPT'] = `${values.attempt}`;
  env['FRAMEWRIGHT_FRAME_STEP'] = `${values.frameStep}`;
  if (values.startFrame !== undefined) env['FRAMEWRIGHT_START_FRAME'] = `${values.startFrame}`;
  if (values.endFrame !== undefined) env['FRAMEWRIGHT_END_FRAME'] = `${values.endFrame}`;
  if (values.frameCount !== undefined) env['FRAMEWRIGHT_FRAME_COUNT'] = `${values.frameCount}`;
  if (values.outputFile !== undefined) env['FRAMEWRIGHT_OUTPUT_FILE'] = values.outputFile;
  return env;
}
