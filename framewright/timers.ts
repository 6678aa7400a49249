import { onAbort } from './signals.js';

/**
 * The timers of this process as they were when the package was loaded: a test that puts fake ones in place of the
 * globals must not stop jobs from starting.
 */
export const { setTimeout, clearTimeout, setInterval, setImmediate } = globalThis;

/** Milliseconds of a clock that nobody sets. */
export const clock: () => number = performance.now.bind(performance);

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
      stop?.();
      resolve();
    };
    const timer = setTimeout(done, Math.min(Math.ceil(ms), LONGEST_DELAY));
    const stop = signal && onAbort(signal, done);
  });
}

/** Those that are busy: held, since nothing else may hold a manager whose processes run. */
const busy = new Set<object>();
let interval: NodeJS.Timeout | undefined;

/** Keeps its owner, and with it the process, alive while something is counted in. */
export class KeepAlive {
  #count = 0;
  readonly #owner: WeakRef<object>;
  #held: object | undefined;

  constructor(owner: object) {
    this.#owner = new WeakRef(owner);
  }

  enter(): void {
    this.#count += 1;
    if (this.#count > 1) return;
    this.#held = this.#owner.deref();
    if (this.#held) busy.add(this.#held);
    if (busy.size !== 1) return;
    if (interval) interval.ref();
    else interval = setInterval(() => undefined, LONGEST_DELAY);
  }

  leave(): void {
    this.#count -= 1;
    if (this.#count > 0) return;
    if (this.#held) busy.delete(this.#held);
    this.#held = undefined;
    if (busy.size === 0) interval?.unref();
  }
}
