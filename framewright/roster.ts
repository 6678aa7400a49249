/** Jobs at hand, found by their ticket and by their id in the same time however many there are. */
export class Roster<T extends { readonly id: string }> {
  readonly #byTicket = new Map<number, T>();
  /** Made when somebody first asks by an id: most never do. */
  #tickets: Map<string, number> | undefined;

  get size(): number {
    return this.#byTicket.size;
  }

  get(ticket: number): T | undefined {
    return this.#byTicket.get(ticket);
  }

  #ticketOf(id: string): number | undefined {
    if (!this.#tickets) {
      this.#tickets = new Map();
      for (const [ticket, job] of this.#byTicket) this.#tickets.set(job.id, ticket);
    }
    return this.#tickets.get(id);
  }

  /** The job of that id. */
  of(id: string): T | undefined {
    const ticket = this.#ticketOf(id);
    return ticket === undefined ? undefined : this.#byTicket.get(ticket);
  }

  set(ticket: number, job: T): void {
    this.#byTicket.set(ticket, job);
    this.#tickets?.set(job.id, ticket);
  }

  delete(ticket: number): void {
    const job = this.#byTicket.get(ticket);
    if (!job) return;
    this.#byTicket.delete(ticket);
    if (this.#tickets?.get(job.id) === ticket) this.#tickets.delete(job.id);
  }

  deleteOf(id: string): void {
    const ticket = this.#ticketOf(id);
    if (ticket !== undefined) this.delete(ticket);
  }

  values(): T[] {
    return [...this.#byTicket.values()];
  }

  clear(): void {
    this.#byTicket.clear();
    this.#tickets?.clear();
  }
}
