/** What goes wrong, when and to whom, drawn from the seed. */
import { setTimeout as sleep } from 'node:timers/promises';

export class Faults {
  #run;
  #random;
  #later = new Set();
  /** How often the store went away from all processes, or came back. */
  #disturbances = 0;
  counts = {};
  /** Milliseconds from a kill to the first chunk of one of its jobs elsewhere. */
  recoveries = [];

  /** `run`: history, workers, ledger, random, leaseMs, short, single (one process), proxies by slot; perhaps server and disk. */
  constructor(run) {
    this.#run = run;
    this.#random = run.random;
  }

  #weights() {
    const { server, disk, proxies, single, short } = this.#run;
    // What holds up everybody comes once in a short run.
    const left = (fault) => !short || !this.counts[fault];
    return {
      kill: 10,
      stop: single ? 0 : 2,
      cut: proxies.size > 0 ? 2 : 0,
      restart: server && left('restart') ? 1 : 0,
      fill: disk && left('fill') ? 1 : 0,
    };
  }

  /** Goes on until so many kills were done or the time is up, whichever is asked for. */
  async go({ kills, until, pauseMs }) {
    while ((this.counts.kill ?? 0) < kills && Date.now() < until) {
      const fault = this.#random.weighted(this.#weights());
      const before = performance.now();
      await this[fault]();
      this.counts[fault] = (this.counts[fault] ?? 0) + 1;
      await sleep(Math.max(0, this.#random.between(...pauseMs) - (performance.now() - before)));
    }
    await Promise.all(this.#later);
  }

  #note(fault, fields) {
    this.#run.history.add('fault', { fault, ...fields });
    if (['restart', 'restarted', 'fill', 'emptied'].includes(fault)) this.#disturbances += 1;
  }

  /** A process that no other fault has in its hands; one worker is always left alone by what lasts. */
  #victim(lasting) {
    const workers = this.#run.workers.slots.filter((slot) => slot.roles.includes('work'));
    const free = workers.filter((slot) => !slot.busy);
    if (free.length === 0 || (lasting && free.length < 2)) return undefined;
    return this.#random.of(free);
  }

  #afterwards(work) {
    const later = work().finally(() => this.#later.delete(later));
    this.#later.add(later);
  }

  /** In mid-chunk, with its children alive. */
  async kill() {
    const slot = this.#victim(false);
    const delay = this.#random.between(0, 60);
    if (!slot) return;
    const { ledger, workers, single } = this.#run;
    const pid = slot.child.pid;
    slot.busy = true;
    const began = await ledger.next((line) => line.what === 'begin' && line.parent === pid, 1500);
    await sleep(delay);
    await workers.kill(slot);
    slot.busy = false;
    if (!began) return;
    const before = performance.now();
    const undisturbed = this.#disturbances;
    const again = ledger.next((line) => line.what === 'begin' && line.job === began.job && line.owner !== began.owner, 10_000);
    const noted = again.then((line) => {
      // While the store is away from all nobody can go on.
      if (line && undisturbed === this.#disturbances) this.recoveries.push(performance.now() - before);
    });
    // The next process of a store of files has to begin before it can be killed in its turn.
    if (single) await noted;
    else this.#afterwards(() => noted);
  }

  /** Longer than the lease; its children run on. */
  async stop() {
    const slot = this.#victim(true);
    const ms = Math.round(this.#run.leaseMs * (1.2 + this.#random.next()));
    const delay = this.#random.between(0, 60);
    if (!slot) return;
    slot.busy = true;
    const { child } = slot;
    await this.#run.ledger.next((line) => line.what === 'begin' && line.parent === child.pid, 1500);
    await sleep(delay);
    this.#note('stop', { slot: slot.name, pid: child.pid, ms });
    child.kill('SIGSTOP');
    this.#afterwards(async () => {
      await sleep(ms);
      this.#note('continue', { slot: slot.name, pid: child.pid });
      child.kill('SIGCONT');
      slot.busy = false;
    });
  }

  /** A connection that is half-open for a while. */
  async cut() {
    const { workers, proxies, leaseMs } = this.#run;
    const slot = this.#random.of(workers.slots.filter((one) => proxies.has(one)));
    const ms = Math.round(leaseMs * (0.3 + 2 * this.#random.next()));
    const reset = this.#random.next() < 0.5;
    if (slot.isCut || (slot.busy && slot.roles.includes('work'))) return;
    if (slot.roles.includes('work') && this.#victim(true) === undefined) return;
    slot.isCut = true;
    slot.busy = true;
    this.#note('cut', { slot: slot.name, pid: slot.child.pid, ms });
    proxies.get(slot).cut();
    this.#afterwards(async () => {
      await sleep(ms);
      this.#note('heal', { slot: slot.name, pid: slot.child.pid, reset });
      proxies.get(slot).heal(reset);
      slot.busy = false;
      slot.isCut = false;
    });
  }

  /** The server dies, and comes back. */
  async restart() {
    const ms = this.#random.between(0, this.#run.leaseMs * 2);
    this.#note('restart', { ms });
    await this.#run.server.crash();
    await sleep(ms);
    await this.#run.server.start();
    this.#note('restarted');
  }

  /** No room on the store's disk for a while. */
  async fill() {
    const { disk, server, leaseMs } = this.#run;
    const ms = this.#random.between(300, leaseMs * 2);
    this.#note('fill', { ms });
    disk.fill();
    await sleep(ms);
    disk.empty();
    // A server that found no room may have ended.
    if (server && !(await server.answers())) {
      await server.crash();
      await server.start();
    }
    this.#note('emptied');
  }
}
