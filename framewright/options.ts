/** Options on their way in: what can be written down goes to the engine, callbacks and objects stay here. */
import { checkMethod, checkObject, checkSignal, isObject, isText } from './arguments.js';
import { invalid } from './errors.js';
import { toJson } from './memory-repository.js';
import { stitcherKind } from './stitchers.js';
import type { JobExecutionOptions, SubmitOptions } from './types.js';

const CALLBACKS = ['onProgress', 'onChunkComplete', 'onChunkStdout', 'onChunkStderr'] as const;

/** What is kept with a job. */
const WRITTEN = [
  'concurrency', 'jobDir', 'merge', 'skipMerge', 'retries', 'retryDelay', 'crashRetries', 'retryPolicy', 'failurePolicy', 'timeouts', 'verifyOutput',
  'progressPattern', 'cleanupChunks', 'hashOutputs', 'allowOutsidePaths', 'env', 'outputFile', 'completedChunkIds', 'meta', 'stitcher', 'mergeAdapter',
] as const; // prettier-ignore

/** Public fields of the status that come with a submit. */
const PUBLIC = ['meta', 'type'] as const;

/** What JSON would change or leave out without a word is told as what it is: a number by its name, others as null. */
function printable(value: unknown, deep = true): unknown {
  if (typeof value === 'number' && !Number.isFinite(value)) return String(value);
  if (typeof value === 'function' || typeof value === 'symbol' || typeof value === 'bigint') return null;
  if (deep && Array.isArray(value)) return Array.from(value as unknown[], (entry) => printable(entry, false));
  return value;
}

/** Checks what the engine can't: callbacks and objects. */
export function checkOptions(options: unknown): asserts options is SubmitOptions {
  checkObject(options);
  for (const name of CALLBACKS) {
    if (options[name] !== undefined && typeof options[name] !== 'function') throw invalid(name, 'must be a function', 'options');
  }
  checkSignal(options['signal']);
  if (options['mergeAdapter'] !== undefined) checkMethod(options['mergeAdapter'], 'mergeAdapter', 'execute');
  if (options['stitcher'] !== undefined) checkMethod(options['stitcher'], 'stitcher', 'stitch');
  if (options['verifyOutput'] === 'function') throw invalid('verifyOutput', 'must be "none", "exists", "nonempty" or a function', 'options');
  if (options['id'] !== undefined && typeof options['id'] !== 'string') throw invalid('id', 'must be a string', 'options');
  const { type } = options;
  if (type !== undefined && (typeof type !== 'string' || type === '' || !isText(type))) throw invalid('type', 'must be a string that is not empty', 'options');
  if (type !== undefined && Buffer.byteLength(type) > 255) throw invalid('type', 'must be at most 255 bytes long', 'options');
}

/** The JSON of what can be written down; empty when there is nothing. */
export function writtenOptions(options: JobExecutionOptions): string {
  let written: Record<string, unknown> | undefined;
  for (const name of WRITTEN) {
    let value: unknown = (options as Record<string, unknown>)[name];
    if (value === undefined) continue;
    if (name === 'verifyOutput' && typeof value === 'function') value = 'function';
    if (name === 'mergeAdapter') value = true;
    if (name === 'stitcher') value = stitcherKind(value as NonNullable<JobExecutionOptions['stitcher']>);
    if ((name === 'timeouts' || name === 'env') && isObject(value) && !Array.isArray(value)) {
      value = Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, printable(entry)]));
    }
    written ??= {};
    written[name] = printable(value);
  }
  return written ? toJson(written, 'options') : '';
}

/** The JSON of the public fields that a job gets from its options; empty when there is none. */
export function publicFields(options: SubmitOptions): string {
  let fields: Record<string, unknown> | undefined;
  for (const name of PUBLIC) {
    if (options[name] !== undefined) (fields ??= {})[name] = options[name];
  }
  return fields ? toJson(fields, 'options') : '';
}

/** Those of a run that are objects of the caller's. */
const OBJECTS = ['env', 'meta', 'timeouts', 'retryPolicy', 'completedChunkIds'] as const;

/** Options whose plain objects are copies. */
export function copied(options: JobExecutionOptions): JobExecutionOptions {
  const copies: Record<string, unknown> = { ...options };
  for (const name of OBJECTS) if (copies[name] !== undefined) copies[name] = copyOf(copies[name]);
  return copies;
}

function copyOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(copyOf);
  if (!isObject(value)) return value;
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, copyOf(entry)]));
}

/** A shallow copy without `undefined`, so that it can be put over other options. */
export function defined<T extends object>(options: T): T {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T;
}
