/** The one class of errors, and how errors of the engine and of users become it. */
import type { ErrorCode, JobErrorInfo } from './types.js';

export interface Issue {
  /** Where the problem is, for example `chunks[3].outputFile`. */
  path: string;
  message: string;
}

export interface FramewrightErrorOptions {
  cause?: unknown;
  details?: Record<string, unknown>;
  issues?: Issue[];
}

/**
 * Every rejection. CONFLICT: the job changed meanwhile (stale version); DUPLICATE: the id or key exists. An executor that
 * rejects with an AbortError ends the job `cancelled`, asked for or not. `name` is 'AbortError' when aborted; `cause` is
 * the user's own error when one was thrown; `issues` lists every problem of a bad spec with its path.
 */
export class FramewrightError extends Error {
  code: ErrorCode;
  details?: Record<string, unknown>;
  issues?: Issue[];

  constructor(code: ErrorCode, message: string, options: FramewrightErrorOptions = {}) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined);
    this.name = code === 'ABORTED' ? 'AbortError' : 'FramewrightError';
    this.code = code;
    if (options.details) this.details = options.details;
    if (options.issues) this.issues = options.issues;
  }
}

/** A VALIDATION error for one field. */
export function invalid(path: string, message: string, what = 'argument'): FramewrightError {
  return new FramewrightError('VALIDATION', `Invalid ${what}: ${path} ${message}`, { issues: [{ path, message }] });
}

/** An error as the engine tells it. */
export interface EngineError {
  code: ErrorCode;
  message: string;
  issues?: Issue[];
}

export function fromEngine({ code, message, issues }: EngineError): FramewrightError {
  return new FramewrightError(code, message, issues ? { issues } : {});
}

/** What the engine throws carries code and issues as JSON in its message. */
export function typed(error: unknown): unknown {
  if (!(error instanceof Error) || error instanceof FramewrightError || !error.message.startsWith('{"code":')) return error;
  try {
    return fromEngine(JSON.parse(error.message) as EngineError);
  } catch {
    return error;
  }
}

/** Calls the engine; its errors become ours. */
export function native<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw typed(error);
  }
}

/** Waits for the engine; its errors become ours. */
export async function settled<T>(promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (error) {
    throw typed(error);
  }
}

/** A property of anything that can be thrown; its getter may throw, too. */
function property(thrown: unknown, name: string): unknown {
  if ((typeof thrown !== 'object' || thrown === null) && typeof thrown !== 'function') return undefined;
  try {
    return (thrown as Record<string, unknown>)[name];
  } catch {
    return undefined;
  }
}

/** The message of anything that can be thrown. */
export function messageOf(thrown: unknown): string {
  const message = property(thrown, 'message');
  if (typeof message === 'string' && message !== '') return message.toWellFormed();
  const name = property(thrown, 'name');
  if (typeof message === 'string' && typeof name === 'string') return name.toWellFormed();
  try {
    return String(thrown).toWellFormed();
  } catch {
    return 'an object that has no text';
  }
}

/** Whether an error says that its work was aborted. */
export function isAbort(thrown: unknown): boolean {
  return property(thrown, 'name') === 'AbortError';
}

/** Whether trying again can't help: the program is not there or may not be run. */
export function isFatal(thrown: unknown): boolean {
  return ['ENOENT', 'EACCES', 'SPAWN_FAILED', 'VALIDATION'].includes(property(thrown, 'code') as string);
}

/** The failure that a job or chunk keeps of an error. */
export function infoOf(thrown: unknown, fallback: ErrorCode): JobErrorInfo {
  const code = thrown instanceof FramewrightError && thrown.code !== 'ABORTED' ? thrown.code : fallback;
  return { code, message: messageOf(thrown) };
}

/** The same with what an error of the user's says beside it, as far as it is what the names mean. */
export function detailedInfoOf(thrown: unknown, fallback: ErrorCode): JobErrorInfo {
  const info = infoOf(thrown, fallback);
  const details = thrown instanceof FramewrightError ? property(thrown, 'details') : undefined;
  for (const name of ['chunkId', 'attempt', 'exitCode'] as const) {
    const value = property(details, name);
    const most = name === 'chunkId' ? Number.MAX_SAFE_INTEGER : 0x7fff_ffff;
    if (typeof value === 'number' && Number.isInteger(value) && Math.abs(value) <= most && (value >= 0 || name === 'exitCode')) info[name] = value;
  }
  for (const name of ['signal', 'stderrTail'] as const) {
    const value = property(details, name);
    if (typeof value === 'string') info[name] = value.toWellFormed();
  }
  return info;
}

/** The rejection for a kept failure. */
export function errorOf(info: JobErrorInfo, cause?: unknown): FramewrightError {
  const details: Record<string, unknown> = {};
  for (const name of ['chunkId', 'attempt', 'exitCode', 'signal', 'stderrTail'] as const) {
    if (info[name] !== undefined) details[name] = info[name];
  }
  return new FramewrightError(info.code, info.message, { details, ...(cause === undefined ? {} : { cause }) });
}

/** The rejection of what was aborted, with the signal's reason as `cause`. */
export function aborted(message: string, signal?: AbortSignal): FramewrightError {
  const reason: unknown = signal?.reason;
  return new FramewrightError('ABORTED', message, reason === undefined ? {} : { cause: reason });
}
