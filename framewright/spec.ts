/** Specs on their way to the engine, and on their way from it to executors. */
import type { Engine } from './binding.js';
import { isObject } from './arguments.js';
import { FramewrightError, invalid, messageOf, native } from './errors.js';
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

/**
 * Hears the job's ticket in the very turn in which the engine takes the job (it may be started from then on), with copies
 * of its chunks, where there are many and a loop in JavaScript will need them.
 */
export type OnTaken = (ticket: number, chunks?: RenderJobChunk[]) => void;

/** Hands a spec to the engine; a big one in slices. Gives the job's ticket. */
export async function take(
  engine: Engine,
  executor: Executor | undefined,
  id: string,
  spec: JobSpecInput,
  written: string,
  fields: string,
  hold: boolean,
  taken: OnTaken,
): Promise<number> {
  if (!isObject(spec) || Array.isArray(spec)) throw invalid('spec', 'must be an object', 'job spec');
  const needs = executor === undefined || needsCommand(executor);
  const chunks = chunksOf(spec);
  if (!Array.isArray(chunks) || chunks.length <= SLICE) {
    const json = toJson(spec, 'job spec');
    const ticket = native(() => engine.submit(id, json, written, fields, needs, hold));
    taken(ticket);
    return ticket;
  }
  // The caller may change the spec while it crosses: what counts is how it is now.
  const { chunks: _, ...head } = spec as Record<string, unknown>;
  const slices: string[] = [];
  for (let from = 0; from < chunks.length; from += SLICE) slices.push(toJson(chunks.slice(from, from + SLICE), 'job spec'));
  // The loop of a JavaScript adapter needs the chunks again: a copy is cheaper than reading them back.
  const work = executor && workOf(executor);
  const copies = work && !('adapter' in work && processSettings(work.adapter)) ? chunks.map(copyOf) : undefined;
  const builder = native(() => new binding.SpecBuilder(toJson(head, 'job spec'), written, needs));
  for (const [n, slice] of slices.entries()) {
    builder.push(slice);
    if (n % 4 === 3) await turn();
  }
  const ticket = native(() => engine.submitBuilt(id, builder, fields, hold));
  taken(ticket, copies);
  return ticket;
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

/** A chunk of its own; what is more than flat is copied as JSON. */
function copyOf(chunk: unknown): RenderJobChunk {
  // What is no chunk is refused by the engine in a moment.
  if (typeof chunk !== 'object' || chunk === null) return chunk as RenderJobChunk;
  if (isPlainChunk(chunk)) {
    const { id, startFrame, frameCount, outputFile, command } = chunk;
    return { id, startFrame, frameCount, outputFile, command };
  }
  for (const name in chunk as Record<string, unknown>) {
    const value = (chunk as Record<string, unknown>)[name];
    if ((typeof value === 'object' && value !== null) || typeof value === 'function' || value === undefined) {
      return JSON.parse(JSON.stringify(chunk)) as RenderJobChunk;
    }
  }
  return { ...(chunk as RenderJobChunk) };
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
