/** Who waits for a change of which job. */
import type { Engine } from './binding.js';
import { FramewrightError } from './errors.js';
import { onAbort } from './signals.js';

/** Calls by the id of the job that they are about. */
class Calls<T extends unknown[]> {
  readonly #byId = new Map<string, Set<(...args: T) => void>>();

  get size(): number {
    return this.#byId.size;
  }

  has(id: string): boolean {
    return this.#byId.has(id);
  }

  add(id: string, call: (...args: T) => void): void {
    const calls = this.#byId.get(id);
    if (calls) calls.add(call);
    else this.#byId.set(id, new Set([call]));
  }

  /** Gives whether it was the last one of that job. */
  remove(id: string, call: (...args: T) => void): boolean {
    const calls = this.#byId.get(id);
    calls?.delete(call);
    return calls?.size === 0 && this.#byId.delete(id);
  }

  /** Those that are there now; they may remove themselves. */
  tell(id: string, ...args: T): void {
    for (const call of [...(this.#byId.get(id) ?? [])]) call(...args);
  }
}

export class Watchers {
  readonly #waiters = new Calls<[]>();
  /** Calls about jobs that are owned here: they fail when the job is lost. */
  readonly #losers = new Calls<[error: unknown]>();

  constructor(
    readonly engine: Engine,
    /** Aborted when the manager closes. */
    readonly closing: AbortSignal,
  ) {}

  /** Whether nobody waits for anything. */
  get isIdle(): boolean {
    return this.#waiters.size === 0;
  }

  has(id: string): boolean {
    return this.#waiters.has(id);
  }

  /** Has `call` called whenever there is news of the job. */
  add(id: string, call: () => void): void {
    this.#waiters.add(id, call);
  }

  /** Ends `add`; gives whether nobody waits for that job any more. */
  remove(id: string, call: () => void): boolean {
    return this.#waiters.remove(id, call);
  }

  /** There is news of a job. */
  tell(id: string): void {
    this.#waiters.tell(id);
  }

  /** A job was lost to another owner. */
  lose(id: string, error: unknown): void {
    this.#losers.tell(id, error);
  }

  /**
   * Resolves once a test of the job's state holds (`undefined`: the job is gone); rejects when the job is lost, or when the
   * manager closes before.
   */
  until(id: string, test: (state: string | undefined) => boolean): { done: Promise<void>; stop: () => void } {
    let look: () => void = () => undefined;
    let lost: (error: unknown) => void = () => undefined;
    let stay: (() => void) | undefined;
    const stop = (): void => {
      this.#waiters.remove(id, look);
      this.#losers.remove(id, lost);
      stay?.();
    };
    const closed = (): void => {
      look();
      // Nothing, if that was it.
      lost(new FramewrightError('CLOSED', `The manager was closed before job "${id}" was as it was to be`));
    };
    const done = new Promise<void>((resolve, reject) => {
      lost = (error) => {
        stop();
        // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- one of ours
        reject(error);
      };
      look = () => {
        if (!test(this.engine.state(id) ?? undefined)) return;
        stop();
        resolve();
      };
    });
    this.#waiters.add(id, look);
    this.#losers.add(id, lost);
    this.engine.watch(id);
    if (this.closing.aborted) closed();
    else stay = onAbort(this.closing, closed);
    look();
    return { done, stop };
  }
}
