/** Waits for the durable store: what was committed is told many at a time, by the engine's notices. */
import { type EngineError, fromEngine, native } from './errors.js';
import binding from './native.js';
import type { KeepAlive } from './timers.js';

interface Waiting {
  resolve: () => void;
  reject: (error: unknown) => void;
}

export class Commits {
  readonly #waiting = new Map<number, Waiting>();
  #last = 0;

  constructor(
    readonly engine: number,
    readonly alive: KeepAlive,
  ) {}

  /** Resolves once the store has what is true of a job now; rejects as the write ended. */
  of(id: string): Promise<void> {
    const token = (this.#last + 1) >>> 0;
    this.#last = token;
    return new Promise((resolve, reject) => {
      // What it throws rejects.
      if (native(() => binding.tellCommitted(this.engine, id, token))) {
        resolve();
        return;
      }
      this.alive.enter();
      this.#waiting.set(token, { resolve, reject });
    });
  }

  /** The engine's answer. */
  told(token: number, error: EngineError | undefined): void {
    const waiting = this.#waiting.get(token);
    if (!waiting) return;
    this.#waiting.delete(token);
    this.alive.leave();
    if (error) waiting.reject(fromEngine(error));
    else waiting.resolve();
  }
}
