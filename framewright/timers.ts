/**
 * The timers of this process as they were when the package was loaded: a test that puts fake ones in place of the
 * globals must not stop jobs from starting.
 */
export const { setTimeout, clearTimeout, setInterval, setImmediate } = globalThis;

/** Lets everything else have its turn. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** The longest delay that a timer of Node takes, in milliseconds; a longer one would fire at once. */
export const LONGEST_DELAY = 2 ** 31 - 1;

/** Resolves after so many milliseconds, or as soon as the signal is aborted; leaves no timer and no listener behind. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(Math.ceil(ms), LONGEST_DELAY));
    signal?.addEventListener('abort', done);
  });
}

/** Keeps the process alive while something is counted in. */
export class KeepAlive {
  #count = 0;
  #timer: NodeJS.Timeout | undefined;

  enter(): void {
    this.#count += 1;
    if (this.#count > 1) return;
    if (this.#timer) this.#timer.ref();
    else this.#timer = setInterval(() => undefined, LONGEST_DELAY);
  }

  leave(): void {
    this.#count -= 1;
    if (this.#count === 0) this.#timer?.unref();
  }

  /** Ends the timer, for an owner that is not used again. */
  end(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#count = 0;
  }
}
