/** Signals of users, whose abort is about jobs. One listener for each signal, however many jobs it has. */

interface Group {
  signal: AbortSignal;
  ids: Set<string>;
  heard: () => void;
}

export class Followed {
  readonly #groups = new Map<AbortSignal, Group>();
  readonly #byId = new Map<string, Group>();

  constructor(readonly aborted: (id: string) => void) {}

  /** Has `aborted` called for the job when the signal is aborted, also when it is already. */
  follow(id: string, signal: AbortSignal): void {
    this.leave(id);
    if (signal.aborted) {
      this.aborted(id);
      return;
    }
    let group = this.#groups.get(signal);
    if (!group) {
      const made: Group = { signal, ids: new Set(), heard: () => this.#heard(made) };
      group = made;
      this.#groups.set(signal, group);
      signal.addEventListener('abort', group.heard, { once: true });
    }
    group.ids.add(id);
    this.#byId.set(id, group);
  }

  /** The job is not that signal's any more. */
  leave(id: string): void {
    const group = this.#byId.get(id);
    if (!group) return;
    this.#byId.delete(id);
    group.ids.delete(id);
    if (group.ids.size === 0) this.#drop(group);
  }

  /** Follows nothing any more. */
  end(): void {
    for (const group of this.#groups.values()) this.#drop(group);
    this.#byId.clear();
  }

  #drop(group: Group): void {
    group.signal.removeEventListener('abort', group.heard);
    this.#groups.delete(group.signal);
  }

  #heard(group: Group): void {
    this.#groups.delete(group.signal);
    for (const id of group.ids) {
      this.#byId.delete(id);
      this.aborted(id);
    }
  }
}
