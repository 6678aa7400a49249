/** A chunk's command as the words that run. The rules live in the engine; here is the quick way for plain commands. */
import binding from './native.js';
import { native } from './errors.js';
import type { RenderJobChunk } from './types.js';

/** Where a placeholder may stand, and what it is. */
const PLACEHOLDER = /\{(chunkId|startFrame|endFrame|frameCount|frameStep|outputFile|jobId|attempt)(?::(\d+))?\}/g;

/** The widest padding; a wider one stays as it is. */
const WIDEST = 32;
/** Words that are kept compiled. */
const KEPT = 512;

export interface Values {
  chunkId: number;
  startFrame: number | undefined;
  endFrame: number | undefined;
  frameCount: number | undefined;
  frameStep: number;
  outputFile: string | undefined;
  jobId: string;
  attempt: number;
}

/** A placeholder: which value, padded to what width (0: not at all), and what stays when there is none. */
interface Place {
  name: keyof Values;
  width: number;
  whole: string;
}

/** Splits a POSIX-quoted command line. */
export function splitCommand(command: string): string[] {
  const words: string[] = [];
  let start = -1;
  for (let at = 0; at < command.length; at += 1) {
    const code = command.charCodeAt(at);
    // Without quotes and backslashes white space is all there is to it.
    if (code === 0x22 || code === 0x27 || code === 0x5c || code === 0) return native(() => binding.splitCommand(command));
    const blank = code === 0x20 || code === 0x09 || code === 0x0a;
    if (blank && start >= 0) {
      words.push(command.slice(start, at));
      start = -1;
    } else if (!blank && start < 0) start = at;
  }
  if (start >= 0) words.push(command.slice(start));
  return words;
}

function compile(word: string): (string | Place)[] {
  const parts: (string | Place)[] = [];
  let end = 0;
  for (const match of word.matchAll(PLACEHOLDER)) {
    const [whole, name, digits] = match;
    const width = digits === undefined ? 0 : Number(digits);
    const text = name === 'outputFile' || name === 'jobId';
    if (digits !== undefined && (text || width < 1 || width > WIDEST)) continue;
    if (match.index > end) parts.push(word.slice(end, match.index));
    parts.push({ name: name as keyof Values, width, whole });
    end = match.index + whole.length;
  }
  if (end < word.length) parts.push(word.slice(end));
  return parts;
}

/** Words with placeholders, compiled once: those of a job's chunks are mostly the same. */
export class Templates {
  readonly #compiled = new Map<string, (string | Place)[]>();
  #command: string | undefined;
  #words: string[] = [];

  /** Puts values in; what has no value stays as it is. */
  render(word: string, values: Values): string {
    if (!word.includes('{')) return word;
    let parts = this.#compiled.get(word);
    if (!parts) {
      if (this.#compiled.size >= KEPT) this.#compiled.clear();
      parts = compile(word);
      this.#compiled.set(word, parts);
    }
    let text = '';
    for (const part of parts) {
      if (typeof part === 'string') text += part;
      else {
        const value = values[part.name];
        if (value === undefined) text += part.whole;
        else text += part.width > 0 ? `${value}`.padStart(part.width, '0') : `${value}`;
      }
    }
    return text;
  }

  renderAll(words: string[], values: Values): string[] {
    const rendered = new Array<string>(words.length);
    for (let n = 0; n < words.length; n += 1) rendered[n] = this.render(words[n] as string, values);
    return rendered;
  }

  /** The words of a command line; that of a planned job is split once. */
  command(command: string, values: Values): string[] {
    if (command !== this.#command) {
      this.#words = splitCommand(command);
      this.#command = command;
    }
    return this.renderAll(this.#words, values);
  }
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
  const { startFrame, endFrame, frameCount, outputFile } = values;
  if (startFrame !== undefined && endFrame !== undefined && frameCount !== undefined && outputFile !== undefined) {
    // One literal, one shape: what nearly every chunk is.
    const all = {
      FRAMEWRIGHT_JOB_ID: values.jobId,
      FRAMEWRIGHT_CHUNK_ID: `${values.chunkId}`,
      FRAMEWRIGHT_ATTEMPT: `${values.attempt}`,
      FRAMEWRIGHT_FRAME_STEP: `${values.frameStep}`,
      FRAMEWRIGHT_START_FRAME: `${startFrame}`,
      FRAMEWRIGHT_END_FRAME: `${endFrame}`,
      FRAMEWRIGHT_FRAME_COUNT: `${frameCount}`,
      FRAMEWRIGHT_OUTPUT_FILE: outputFile,
    };
    return own ? { ...own, ...all } : all;
  }
  const env: Record<string, string> = { ...own };
  env['FRAMEWRIGHT_JOB_ID'] = values.jobId;
  env['FRAMEWRIGHT_CHUNK_ID'] = `${values.chunkId}`;
  env['FRAMEWRIGHT_ATTEMPT'] = `${values.attempt}`;
  env['FRAMEWRIGHT_FRAME_STEP'] = `${values.frameStep}`;
  if (startFrame !== undefined) env['FRAMEWRIGHT_START_FRAME'] = `${startFrame}`;
  if (endFrame !== undefined) env['FRAMEWRIGHT_END_FRAME'] = `${endFrame}`;
  if (frameCount !== undefined) env['FRAMEWRIGHT_FRAME_COUNT'] = `${frameCount}`;
  if (outputFile !== undefined) env['FRAMEWRIGHT_OUTPUT_FILE'] = outputFile;
  return env;
}
