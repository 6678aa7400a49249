/** Entries of one part of a map: a `Map` that grows moves all that it has, so that a large one is kept in many. */
const PART = 4096;

/** Until there are so many jobs at once, their ids are looked up from only once somebody has asked by one: most never do. */
const MOST_UNNAMED = 12_288;

/** The parts of the ids. */
const PARTS = 256;

/** The end of an id is what differs from job to job. */
const DIFFERS = 12;

function partOf(id: string): number {
  let hash = 0;
  for (let n = Math.max(0, id.length - DIFFERS); n < id.length; n += 1) hash = Math.imul(hash, 31) + id.charCodeAt(n);
  return (hash ^ (hash >>> 8)) & (PARTS - 1);
}

/** Tickets by the ids of their jobs. */
class Tickets {
  readonly #parts = Array.from({ length: PARTS }, () => new Map<string, number>());

  get(id: string): number | undefined {
    return this.#parts[partOf(id)]?.get(id);
  }

  set(id: string, ticket: number): void {
    this.#parts[partOf(id)]?.set(id, ticket);
  }

  delete(id: string): void {
    this.#parts[partOf(id)]?.delete(id);
  }
}

/** Jobs at hand, found by their ticket and by their id in the same time however many there are, and however many come. */
export class Roster<T extends { readonly id: string }> {
  /** Tickets rise, so that those of a part go at about the same time. */
  readonly #parts = new Map<number, Map<number, T>>();
  #size = 0;
  #tickets: Tickets | undefined;

  get size(): number {
    return this.#size;
  }

  get(ticket: number): T | undefined {
    return this.#parts.get(Math.floor(ticket / PART))?.get(ticket);
  }

  #named(): Tickets {
    const tickets = new Tickets();
    for (const part of this.#parts.values()) for (const [ticket, job] of part) tickets.set(job.id, ticket);
    return tickets;
  }

  /** The job of that id. */
  of(id: string): T | undefined {
    const ticket = (this.#tickets ??= this.#named()).get(id);
    return ticket === undefined ? undefined : this.get(ticket);
  }

  set(ticket: number, job: T): void {
    const number = Math.floor(ticket / PART);
    let part = this.#parts.get(number);
    if (!part) this.#parts.set(number, (part = new Map<number, T>()));
    const before = part.size;
    part.set(ticket, job);
    this.#size += part.size - before;
    if (this.#size > MOST_UNNAMED) this.#tickets ??= this.#named();
    this.#tickets?.set(job.id, ticket);
  }

  delete(ticket: number): void {
    const number = Math.floor(ticket / PART);
    const part = this.#parts.get(number);
    const job = part?.get(ticket);
    if (!part || !job) return;
    part.delete(ticket);
    if (part.size === 0) this.#parts.delete(number);
    this.#size -= 1;
    if (this.#tickets?.get(job.id) === ticket) this.#tickets.delete(job.id);
  }

  deleteOf(id: string): void {
    const ticket = (this.#tickets ??= this.#named()).get(id);
    if (ticket !== undefined) this.delete(ticket);
  }

  values(): T[] {
    return [...this.#parts.values()].flatMap((part) => [...part.values()]);
  }

  clear(): void {
    this.#parts.clear();
    this.#size = 0;
    this.#tickets = undefined;
  }
}
