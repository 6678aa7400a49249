/** Chunks as processes of this machine. */
import { isMainThread } from 'node:worker_threads';
import { amount, checkObject, checkSignal, integer, isObject, isText, isTexts, shown } from './arguments.js';
import { FramewrightError, aborted, invalid, native, typed } from './errors.js';
import { toJson } from './memory-repository.js';
import binding from './native.js';
import { onAbort } from './signals.js';
import type { WorkerAdapter, WorkerJob, WorkerResult } from './types.js';

export interface LocalWorkerAdapterOptions {
  /** 'inherit' (default): the environment of this process (in a worker thread: of that thread), or only these names of it. */
  env?: 'inherit' | string[];
  /** SIGTERM -> wait -> SIGKILL. Milliseconds, default 5000. */
  killGraceMs?: number;
  /** Kept at each end of each stream: the first and the last so many bytes. Default 65,536. */
  keepOutputBytes?: number;
}

/** What the engine needs to run processes as this adapter would. */
export interface ProcessSettings {
  inherit: string[] | null;
  killGraceMs: number;
  keepOutputBytes: number;
}

/** Names and values by turns of a worker thread's environment, which is not the process's; null on the main thread. */
export function ownEnvironment(): string[] | null {
  return isMainThread ? null : Object.entries(process.env).flatMap(([name, value]) => (value === undefined ? [] : [name, value]));
}

const settings = new WeakMap<object, ProcessSettings>();

/** The settings of an adapter of ours whose `execute` is still its own: the engine can do without it. */
export function processSettings(adapter: WorkerAdapter): ProcessSettings | undefined {
  return adapter.execute === LocalWorkerAdapter.prototype.execute ? settings.get(adapter) : undefined;
}

function checkJob(job: WorkerJob): void {
  const bad = (path: string, message: string): FramewrightError => invalid(path, message, 'worker job');
  if (!isObject(job)) throw bad('job', `must be an object, got ${shown(job)}`);
  if (!isText(job.command) || job.command === '') throw bad('command', 'must be a non-empty string without NUL');
  if (job.args !== undefined && !isTexts(job.args)) throw bad('args', 'must be an array of strings without NUL');
  if (job.cwd !== undefined && (!isText(job.cwd) || job.cwd === '')) throw bad('cwd', 'must be a non-empty string without NUL');
  if (job.timeout !== undefined && !(typeof job.timeout === 'number' && job.timeout > 0)) throw bad('timeout', 'must be a number above 0');
  if (job.env !== undefined && (!isObject(job.env) || Array.isArray(job.env))) throw bad('env', 'must be an object of strings');
  for (const [name, value] of Object.entries(job.env ?? {})) {
    if (name === '' || /[=\0]/.test(name) || !isText(value)) throw bad(`env.${name}`, 'is not an environment variable');
  }
  for (const name of ['onStdout', 'onStderr'] as const) {
    if (job[name] !== undefined && typeof job[name] !== 'function') throw bad(name, 'must be a function');
  }
  checkSignal(job.signal);
}

/**
 * Runs programs without a shell, in process groups of their own, natively: streams UTF-8-safe output, kills the whole
 * group, waits until it is gone. stdin is empty.
 */
export class LocalWorkerAdapter implements WorkerAdapter {
  constructor(options: LocalWorkerAdapterOptions = {}) {
    checkObject(options);
    const { env } = options;
    if (env !== undefined && env !== 'inherit' && !isTexts(env)) {
      throw invalid('env', "must be 'inherit' or names of variables", 'adapter options');
    }
    settings.set(this, {
      inherit: Array.isArray(env) ? [...env] : null,
      killGraceMs: amount(options.killGraceMs, 'killGraceMs', 5000),
      keepOutputBytes: integer(options.keepOutputBytes, 'keepOutputBytes', 65_536),
    });
  }

  /**
   * Runs one program to its end.
   *
   * @throws FramewrightError SPAWN_FAILED when it can't be started, TIMEOUT and ABORTED after it is gone.
   */
  async execute(job: WorkerJob): Promise<WorkerResult> {
    checkJob(job);
    const { signal } = job;
    if (signal?.aborted) throw aborted('The process was not started: its signal is aborted', signal);
    const own = settings.get(this);
    if (!own) throw new TypeError('Not a LocalWorkerAdapter');
    const request = {
      command: job.command,
      args: job.args ?? [],
      env: Object.entries(job.env ?? {}),
      own: ownEnvironment(),
      inherit: own.inherit,
      cwd: job.cwd,
      timeout: job.timeout === Infinity ? undefined : job.timeout,
      killGraceMs: Math.min(own.killGraceMs, Number.MAX_SAFE_INTEGER),
      keepOutputBytes: own.keepOutputBytes,
    };
    const run = native(() => new binding.ProcessRun(toJson(request, 'worker job')));
    const stop = (): void => {
      run.stop();
    };
    const unfollow = signal && onAbort(signal, stop);
    const { onStdout, onStderr } = job;
    const tell =
      onStdout || onStderr
        ? (isStderr: boolean, text: string): void => {
            try {
              (isStderr ? onStderr : onStdout)?.call(job, text);
            } catch {
              // What listens to the output can't change how the program ends.
            }
          }
        : null;
    try {
      return JSON.parse(await run.run(tell)) as WorkerResult;
    } catch (error) {
      const known = typed(error);
      if (known instanceof FramewrightError && known.code === 'ABORTED') throw aborted('The process was stopped', signal);
      throw known;
    } finally {
      unfollow?.();
    }
  }
}
