/** Signals of users: one listener for each, however much here depends on it. */
import { setMaxListeners } from 'node:events';

/** A controller to whose signal any number of others may listen without a warning. */
export function quietController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}

interface Group {
  calls: Set<{ call: () => void }>;
  heard: () => void;
}

const groups = new WeakMap<AbortSignal, Group>();

/** Has `call` called when the signal is aborted; gives what ends that. A signal that is aborted already calls nothing. */
export function onAbort(signal: AbortSignal, call: () => void): () => void {
  let group = groups.get(signal);
  if (!group) {
    const calls: Group['calls'] = new Set();
    const heard = (): void => {
      groups.delete(signal);
      for (const each of [...calls]) {
        if (!calls.has(each)) continue;
        try {
          each.call();
        } catch (error) {
          // As of a listener of its own: nobody else misses the signal for it.
          process.nextTick(() => {
            throw error;
          });
        }
      }
    };
    group = { calls, heard };
    groups.set(signal, group);
    signal.addEventListener('abort', heard, { once: true });
  }
  const { calls, heard } = group;
  const own = { call };
  calls.add(own);
  return () => {
    if (!calls.delete(own) || calls.size > 0 || groups.get(signal)?.calls !== calls) return;
    groups.delete(signal);
    signal.removeEventListener('abort', heard);
  };
}

/** The signals that jobs follow. */
export class Followed {
  readonly #stops = new Map<string, () => void>();

  constructor(readonly aborted: (id: string) => void) {}

  /** Has `aborted` called for the job when the signal is aborted, also when it is already. */
  follow(id: string, signal: AbortSignal): void {
    this.leave(id);
    if (signal.aborted) {
      this.aborted(id);
      return;
    }
    const stop = onAbort(signal, () => {
      this.#stops.delete(id);
      this.aborted(id);
    });
    this.#stops.set(id, stop);
  }

  /** The job is not that signal's any more. */
  leave(id: string): void {
    this.#stops.get(id)?.();
    this.#stops.delete(id);
  }

  /** Follows nothing any more. */
  end(): void {
    for (const stop of this.#stops.values()) stop();
    this.#stops.clear();
  }
}
