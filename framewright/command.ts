/** A chunk's command as the words that run. The rules live in the engine; here is the quick way for plain commands. */
import binding from './native.js';
import { native } from './errors.js';
import type { RenderJobChunk } from './types.js';

/** Where a placeholder may stand, and what it is. */
const PLACEHOLDER = /\{(chunkId|startFrame|endFrame|frameCount|frameStep|outputFile|jobId|attempt)(?::(\d+))?\}/g;

/** What only the engine's splitter understands. */
const ODD = /["'\\\0\t\n]/;

/** The widest padding; a wider one stays as it is. */
const WIDEST = 32;
/** Words that are kept compiled. */
const KEPT = 512;
/** Places of a command whose latest words are known. */
const PLACES = 32;

/** The names of placeholders, in the order of their values. */
const NAMES = ['chunkId', 'startFrame', 'endFrame', 'frameCount', 'frameStep', 'outputFile', 'jobId', 'attempt'];
const TEXTS = ['outputFile', 'jobId'];

/** What is put in for the placeholders, in the order of `NAMES`; undefined: the chunk does not say. */
export type Values = readonly (string | undefined)[];

/** A placeholder: which value, padded to what width (0: not at all), and what stays when there is none. */
interface Place {
  value: number;
  width: number;
  whole: string;
}

/** An empty array of what arrays of strings are to V8; `[]` would be one of numbers. */
function noWords(): string[] {
  const words = [''];
  words.length = 0;
  return words;
}

/** Splits at spaces, into an array that may hold the words of another command. */
function splitAtSpaces(words: string[], command: string): string[] {
  let count = 0;
  let start = 0;
  for (;;) {
    const end = command.indexOf(' ', start);
    if (end < 0) break;
    if (end > start) words[count++] = command.slice(start, end);
    start = end + 1;
  }
  if (start < command.length) words[count++] = command.slice(start);
  if (words.length > count) words.length = count;
  return words;
}

function compile(word: string): (string | Place)[] {
  const parts: (string | Place)[] = [];
  let end = 0;
  for (const match of word.matchAll(PLACEHOLDER)) {
    const [whole, name, digits] = match;
    const width = digits === undefined ? 0 : Number(digits);
    if (digits !== undefined && (TEXTS.includes(name as string) || width < 1 || width > WIDEST)) continue;
    if (match.index > end) parts.push(word.slice(end, match.index));
    parts.push({ value: NAMES.indexOf(name as string), width, whole });
    end = match.index + whole.length;
  }
  if (end < word.length) parts.push(word.slice(end));
  return parts;
}

/** Words with placeholders, compiled once: those of a job's chunks are mostly the same, and those of many jobs. */
const compiled = new Map<string, (string | Place)[]>();

/** The parts of a word. */
function partsOf(word: string): (string | Place)[] {
  let parts = compiled.get(word);
  if (!parts) {
    if (compiled.size >= KEPT) compiled.clear();
    parts = compile(word);
    compiled.set(word, parts);
  }
  return parts;
}

/** Puts values in; what has no value stays as it is. */
function put(parts: (string | Place)[], values: Values): string {
  let text = '';
  for (let n = 0; n < parts.length; n += 1) {
    const part = parts[n] as string | Place;
    if (typeof part === 'string') text += part;
    else {
      const value = values[part.value];
      if (value === undefined) text += part.whole;
      else text += part.width > 0 ? value.padStart(part.width, '0') : value;
    }
  }
  return text;
}

/**
 * Commands of chunks as words. What one chunk leaves behind is what collecting it costs all: arrays are used again, and there
 * is one of these for all runs.
 */
class Templates {
  /** Program of the chunk that was rendered last; undefined: it has none. */
  program: string | undefined;
  /** The latest words with placeholders, by their places: mostly the next chunk has the same there. */
  readonly #known = Array.from({ length: PLACES }, () => ({ word: '', parts: partsOf('') }));
  // Of the kinds that they have later: code that V8 has compiled for those is thrown away at the first that differs.
  #command = '';
  #words = noWords();

  /** Arguments of a chunk, with values put in; its program is then `program`. */
  render(chunk: RenderJobChunk, values: Values): string[] {
    const { argv } = chunk;
    const words = argv ?? this.#split(chunk.command);
    const first = words[0];
    this.program = first?.includes('{') ? put(this.#partsAt(0, first), values) : first;
    const args = words.slice(1);
    for (let n = 0; n < args.length; n += 1) {
      const word = args[n] as string;
      if (word.includes('{')) args[n] = put(this.#partsAt(n + 1, word), values);
    }
    return args;
  }

  #partsAt(place: number, word: string): (string | Place)[] {
    if (place >= PLACES) return partsOf(word);
    const known = this.#known[place] as { word: string; parts: (string | Place)[] };
    if (known.word !== word) {
      known.word = word;
      known.parts = partsOf(word);
    }
    return known.parts;
  }

  /** The words of a command line; that of a planned job is split once. */
  #split(command: string): string[] {
    if (command !== this.#command) {
      // Without quotes, backslashes and other white space, spaces are all there is to it.
      this.#words = ODD.test(command) ? native(() => binding.splitCommand(command)) : splitAtSpaces(this.#words, command);
      this.#command = command;
    }
    return this.#words;
  }
}

export const templates = new Templates();

const latest: (string | undefined)[] = NAMES.map(() => undefined);

/** The values of a chunk's placeholders, until the next call. */
export function valuesOf(chunk: RenderJobChunk, jobId: string, attempt: number): Values {
  const { id, startFrame, frameCount, frameStep = 1, outputFile } = chunk as Partial<RenderJobChunk>;
  latest[0] = text(id);
  latest[1] = text(startFrame);
  latest[2] = startFrame === undefined || frameCount === undefined ? undefined : `${startFrame + (frameCount - 1) * frameStep}`;
  latest[3] = text(frameCount);
  latest[4] = `${frameStep}`;
  latest[5] = outputFile;
  latest[6] = jobId;
  latest[7] = `${attempt}`;
  return latest;
}

function text(number: number | undefined): string | undefined {
  return number === undefined ? undefined : `${number}`;
}

/** The values as environment variables, on top of the job's own. */
export function environmentOf(values: Values, own: Record<string, string> | undefined, owner?: string): Record<string, string> {
  // By position: taking an array apart would go through its iterator, for every chunk.
  const start = values[1];
  const end = values[2];
  const output = values[5];
  if (start !== undefined && end !== undefined && output !== undefined && !own && owner === undefined) {
    // One literal, one shape: what nearly every chunk is.
    return {
      FRAMEWRIGHT_CHUNK_ID: values[0] as string,
      FRAMEWRIGHT_START_FRAME: start,
      FRAMEWRIGHT_END_FRAME: end,
      FRAMEWRIGHT_FRAME_COUNT: values[3] as string,
      FRAMEWRIGHT_FRAME_STEP: values[4] as string,
      FRAMEWRIGHT_OUTPUT_FILE: output,
      FRAMEWRIGHT_JOB_ID: values[6] as string,
      FRAMEWRIGHT_ATTEMPT: values[7] as string,
    };
  }
  const env: Record<string, string> = { ...own };
  for (const [n, value] of values.entries()) if (value !== undefined) env[VARIABLES[n] as string] = value;
  if (owner !== undefined) env['FRAMEWRIGHT_OWNER'] = owner;
  return env;
}

/** The names of the variables, in the order of the values. */
const VARIABLES = NAMES.map((name) => `FRAMEWRIGHT_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`);
