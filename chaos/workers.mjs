/** The processes of a run, by slot: started, watched, and started again when they were killed. */
import { fork } from 'node:child_process';
import { openSync } from 'node:fs';
import { join } from 'node:path';

const program = join(import.meta.dirname, 'process.mjs');

class Slot {
  constructor(name, roles, url) {
    this.name = name;
    this.roles = roles;
    this.url = url;
    this.child = undefined;
    /** Not to be chosen for another fault. */
    this.busy = false;
    this.drained = false;
  }
}

export class Workers {
  #history;
  #settings;
  #log;
  #finishing = false;
  slots = [];

  constructor(history, settings, logFile) {
    this.#history = history;
    this.#settings = settings;
    this.#log = openSync(logFile, 'a');
  }

  /** Starts a process in a slot of its own. */
  add(name, roles, url) {
    const slot = new Slot(name, roles, url);
    this.slots.push(slot);
    this.#start(slot);
    return slot;
  }

  #start(slot) {
    const settings = { ...this.#settings, url: slot.url, roles: slot.roles };
    const child = fork(program, [JSON.stringify(settings)], { stdio: ['ignore', this.#log, this.#log, 'ipc'] });
    slot.child = child;
    slot.ended = new Promise((resolve) => child.once('exit', resolve));
    this.#history.add('process', { slot: slot.name, roles: slot.roles, pid: child.pid });
    child.on('message', (message) => {
      if (message === 'drained') {
        slot.drained = true;
        slot.onDrained?.();
      }
    });
    // The harness's own kill takes the channel away.
    child.on('error', () => undefined);
    child.once('exit', (code, signal) => {
      this.#history.add('ended', { slot: slot.name, pid: child.pid, code, signal, wanted: child.wanted === true || (this.#finishing && code === 0) });
      if (!this.#finishing) {
        this.#start(slot);
        if (slot.draining) this.drain(slot);
      }
    });
  }

  /** Kills a process without a word; the next one is started at once. */
  async kill(slot) {
    const { child } = slot;
    child.wanted = true;
    this.#history.add('fault', { fault: 'kill', slot: slot.name, pid: child.pid });
    child.kill('SIGKILL');
    await new Promise((resolve) => (child.exitCode ?? child.signalCode) === null ? child.once('exit', resolve) : resolve());
    return child.pid;
  }

  /** Has the submitter end its jobs; resolves when it has. */
  drain(slot) {
    slot.draining = true;
    const drained = new Promise((resolve) => {
      if (slot.drained) resolve();
      else slot.onDrained = resolve;
    });
    slot.child.send('drain', () => undefined);
    return drained;
  }

  /** Ends all processes in good order. */
  async finish() {
    this.#finishing = true;
    for (const { child } of this.slots) if (child.connected) child.send('finish', () => undefined);
    await Promise.all(this.slots.map((slot) => slot.ended));
  }

  /** Runs the auditor to its end. */
  async audit(url) {
    this.#finishing = true;
    const slot = this.add('audit', ['audit'], url);
    return slot.ended;
  }

  /** Ends all processes now, however they are. */
  destroy() {
    this.#finishing = true;
    for (const { child } of this.slots) if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
  }
}
