/** Waiting for a repository that is JavaScript: it may never answer. */
import { FramewrightError } from './errors.js';
import { LONGEST_DELAY, clearTimeout, setTimeout } from './timers.js';

export class Patience {
  readonly #timers = new Set<NodeJS.Timeout>();
  #ended = false;

  constructor(readonly ms: number) {}

  /**
   * What the repository answers.
   *
   * @throws FramewrightError STORE_UNAVAILABLE when it stays silent for too long.
   */
  async with<T>(answer: T | Promise<T>): Promise<T> {
    if (this.ms > LONGEST_DELAY) return answer;
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new FramewrightError('STORE_UNAVAILABLE', `The repository did not answer within ${this.ms} ms`)), this.ms);
      if (this.#ended) timer.unref();
      this.#timers.add(timer);
    });
    try {
      return await Promise.race([answer, silent]);
    } finally {
      clearTimeout(timer);
      if (timer) this.#timers.delete(timer);
    }
  }

  /** From now on no such wait keeps the process alive. */
  end(): void {
    this.#ended = true;
    for (const timer of this.#timers) timer.unref();
  }
}
