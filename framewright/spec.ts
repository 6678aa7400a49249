/** Specs on their way to the engine, and on their way from it to executors. */
import type { Engine } from './binding.js';
import { isObject } from './arguments.js';
import { FramewrightError, invalid, messageOf, native, settled, typed } from './errors.js';
import { processSettings } from './local-adapter.js';
import { toJson } from './memory-repository.js';
import binding from './native.js';
import { isPlainChunk } from './run.js';
import { lazy } from './status.js';
import { turn } from './timers.js';
import type { Executor, JobSpec, JobSpecInput, RenderJobChunk } from './types.js';
import { needsCommand, workOf } from './work.js';

/** Specs of more chunks cross in slices. */
const SLICE = 1000;
/** Of so few chunks it is cheaper to keep copies than to read them back. */
const FEW = 16;

/** Chunks as the engine would give them back. */
export interface Copies {
  chunks: RenderJobChunk[];
  /** Whether all of them have exactly the fields that chunks usually have. */
  plain: boolean;
}

/**
 * Hears the job's ticket in the very turn in which the engine takes the job (it may be started from then on), with copies
 * of its chunks, where a loop in JavaScript will need them.
 */
export type OnTaken = (ticket: number, copies?: Copies) => void;

/**
 * Hands a spec to the engine; a big one in slices. Gives the job's ticket, at once where it can. `keepFew`: copies are worth
 * while for small specs, too.
 */
export function take(
  engine: Engine,
  number: number,
  executor: Executor | undefined,
  id: string,
  spec: JobSpecInput,
  written: string,
  fields: string,
  hold: boolean,
  keepFew: boolean,
  taken: OnTaken,
): number | Promise<number> {
  if (!isObject(spec) || Array.isArray(spec)) throw invalid('spec', 'must be an object', 'job spec');
  const needs = executor === undefined || needsCommand(executor);
  const chunks = chunksOf(spec);
  // The loop of a JavaScript adapter needs the chunks again: a copy is cheaper than reading them back.
  const work = executor && workOf(executor);
  const loops = work !== undefined && !('adapter' in work && processSettings(work.adapter));
  if (Array.isArray(chunks) && chunks.length > SLICE) return takeSlices(engine, id, spec, chunks, written, fields, needs, hold, loops, taken);
  const json = toJson(spec, 'job spec');
  const copies = loops && keepFew && Array.isArray(chunks) ? copiesOfFew(spec, chunks) : undefined;
  let ticket: number;
  try {
    ticket = binding.submit(number, id, json, written, fields, needs, hold);
  } catch (error) {
    throw typed(error);
  }
  taken(ticket, copies);
  return ticket;
}

async function takeSlices(
  engine: Engine,
  id: string,
  spec: JobSpecInput,
  chunks: unknown[],
  written: string,
  fields: string,
  needs: boolean,
  hold: boolean,
  loops: boolean,
  taken: OnTaken,
): Promise<number> {
  // The caller may change the spec while it crosses: what counts is how it is now.
  const { chunks: _, ...head } = spec as Record<string, unknown>;
  const builder = native(() => new binding.SpecBuilder(toJson(head, 'job spec'), written, needs));
  const copies: Copies | undefined = loops ? { chunks: [], plain: true } : undefined;
  for (let from = 0; from < chunks.length; from += SLICE) {
    const slice = chunks.slice(from, from + SLICE);
    if (pushPlain(builder, slice, copies?.chunks)) continue;
    builder.push(toJson(slice, 'job spec'));
    if (copies) for (const chunk of slice) copy(chunk, copies);
  }
  await settled(builder.finish());
  const ticket = native(() => engine.submitBuilt(id, builder, fields, hold));
  taken(ticket, copies);
  return ticket;
}

/** Hands over chunks that all are ordinary ones, without JSON in between; gives whether they are. */
function pushPlain(builder: InstanceType<typeof binding.SpecBuilder>, slice: unknown[], copies: RenderJobChunk[] | undefined): boolean {
  if ('toJSON' in slice) return false;
  const numbers = new Float64Array(slice.length * 3);
  const texts: string[] = [];
  const plain: RenderJobChunk[] = [];
  try {
    for (const chunk of slice) {
      if (!isOrdinary(chunk)) return false;
      const own = copyOf(chunk);
      const at = plain.length * 3;
      numbers[at] = own.id;
      numbers[at + 1] = own.startFrame;
      numbers[at + 2] = own.frameCount;
      texts.push(own.outputFile, own.command);
      plain.push(own);
    }
  } catch {
    // A getter of the user's threw: told when it does so for JSON.
    return false;
  }
  const all = texts.join('\0');
  // What is no text as UTF-8 has it is for those who read JSON to refuse.
  if (!all.isWellFormed() || !builder.pushPlain(numbers, all)) return false;
  copies?.push(...plain);
  return true;
}

/** The chunks of a spec; a getter of the user's may throw. */
function chunksOf(spec: JobSpecInput): unknown {
  try {
    return spec.chunks;
  } catch (error) {
    throw new FramewrightError('VALIDATION', `Invalid job spec: chunks can't be read: ${messageOf(error)}`, {
      cause: error,
      issues: [{ path: 'chunks', message: messageOf(error) }],
    });
  }
}

/** Whether a chunk is a plain one that JSON gives back as it is. */
function isOrdinary(chunk: unknown): chunk is RenderJobChunk {
  return isObject(chunk) && Object.getPrototypeOf(chunk) === Object.prototype && isPlainChunk(chunk) && !('toJSON' in chunk);
}

/** A copy of an ordinary chunk; + 0: JSON knows no -0. */
function copyOf({ id, startFrame, frameCount, outputFile, command }: RenderJobChunk): RenderJobChunk {
  return { id: id + 0, startFrame: startFrame + 0, frameCount: frameCount + 0, outputFile, command };
}

/** Copies of a few chunks, if all are ordinary ones. */
function copiesOfFew(spec: JobSpecInput, chunks: unknown[]): Copies | undefined {
  if (chunks.length > FEW || 'toJSON' in spec || 'toJSON' in chunks) return undefined;
  const copies: RenderJobChunk[] = [];
  for (const chunk of chunks) {
    if (!isOrdinary(chunk)) return undefined;
    copies.push(copyOf(chunk));
  }
  return { chunks: copies, plain: true };
}

/** Adds a chunk of its own; what is more than flat is copied as JSON. */
function copy(chunk: unknown, copies: Copies): void {
  if (isOrdinary(chunk)) {
    copies.chunks.push(copyOf(chunk));
    return;
  }
  copies.plain = false;
  // What is no chunk is refused by the engine in a moment.
  const flat = isObject(chunk) && !('toJSON' in chunk) && Object.values(chunk).every(isFlat);
  copies.chunks.push(flat ? ({ ...chunk } as unknown as RenderJobChunk) : ((JSON.parse(JSON.stringify([chunk])) as RenderJobChunk[])[0] as RenderJobChunk));
}

/** Whether JSON gives a value back as it is, without a look inside. */
function isFlat(value: unknown): boolean {
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
  return typeof value === 'string' || typeof value === 'boolean' || value === null;
}

/** The spec as an executor gets it: a copy of its own. With `later` its chunks are read when they are first looked at. */
export async function specFor(engine: Engine, id: string, later: boolean): Promise<JobSpec> {
  const spec = JSON.parse(engine.specHead(id)) as JobSpec;
  const read = (from: number): RenderJobChunk[] => JSON.parse(engine.specChunks(id, from, SLICE)) as RenderJobChunk[];
  const total = engine.specLength(id);
  if (later && total > SLICE) {
    // As it is now: the job may be gone when somebody looks.
    const lists = engine.long(id);
    lazy(spec, 'chunks', () => {
      const all: RenderJobChunk[] = [];
      for (let from = 0; lists && from < total; from += SLICE) all.push(...(JSON.parse(lists.chunks(from, SLICE)) as RenderJobChunk[]));
      return all;
    });
    return spec;
  }
  spec.chunks = read(0);
  for (let from = SLICE; from < total; from += SLICE) {
    await turn();
    spec.chunks.push(...read(from));
  }
  return spec;
}
