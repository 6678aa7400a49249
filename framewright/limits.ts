/** What stops the work of a chunk or of a merge: the run it belongs to, and limits of time. */
import { FramewrightError, aborted } from './errors.js';
import { onAbort, quietController } from './signals.js';
import { LONGEST_DELAY, clearTimeout, setTimeout } from './timers.js';
import type { ErrorCode, JobErrorInfo, JobExecutionOptions } from './types.js';

/** An attempt of a chunk whose time may run out. */
export class Watch {
  readonly #controller = quietController();
  readonly #unfollow: () => void;
  readonly #timers: NodeJS.Timeout[] = [];
  #start: NodeJS.Timeout | undefined;
  #silence: NodeJS.Timeout | undefined;
  /** What ran out. */
  expired: JobErrorInfo | undefined;

  /** @param stopped the run's signal. */
  constructor(
    readonly chunkId: number,
    readonly attempt: number,
    stopped: AbortSignal,
    readonly limits: JobExecutionOptions['timeouts'] = {},
  ) {
    const stop = (): void => {
      this.#controller.abort(stopped.reason);
    };
    // Many chunks may be under way, and a list of listeners is looked through for each.
    this.#unfollow = onAbort(stopped, stop);
    if (stopped.aborted) stop();
    const { chunkMs, startMs } = limits;
    if (chunkMs !== undefined) this.#timers.push(this.#after(chunkMs, 'TIMEOUT', `it took longer than ${chunkMs} ms`));
    if (startMs !== undefined) {
      this.#start = this.#after(startMs, 'TIMEOUT', `no sign of life within ${startMs} ms`);
      this.#timers.push(this.#start);
    }
    this.#listen();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** A sign of life. */
  sign(): void {
    clearTimeout(this.#start);
    this.#listen();
  }

  end(): void {
    this.#unfollow();
    clearTimeout(this.#silence);
    for (const timer of this.#timers) clearTimeout(timer);
  }

  #listen(): void {
    const { noProgressMs } = this.limits ?? {};
    if (noProgressMs === undefined) return;
    clearTimeout(this.#silence);
    this.#silence = this.#after(noProgressMs, 'NO_PROGRESS', `no output or progress for ${noProgressMs} ms`);
  }

  #after(ms: number, code: ErrorCode, what: string): NodeJS.Timeout {
    const expire = (): void => {
      this.expired ??= { code, message: `Chunk ${this.chunkId} failed: ${what}` };
      this.#controller.abort(new FramewrightError(code, this.expired.message));
    };
    return setTimeout(expire, Math.min(ms, LONGEST_DELAY));
  }
}

/** Waits for work that was aborted no longer than the grace. */
export async function patiently<T>(work: Promise<T>, signal: AbortSignal, graceMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deaf = new Promise<never>((_, reject) => {
    const grace = (): void => {
      timer = setTimeout(() => {
        reject(aborted('It did not stop in time', signal));
      }, Math.min(graceMs, LONGEST_DELAY));
    };
    if (signal.aborted) grace();
    else signal.addEventListener('abort', grace, { once: true });
  });
  try {
    return await Promise.race([work, deaf]);
  } finally {
    clearTimeout(timer);
  }
}
