/**
 * What happened in a run, as JSON lines that all its processes append to one file, and the ledger that the chunks write.
 * A line is one write with O_APPEND: processes that are killed leave whole lines, or a last one that is cut.
 */
import { appendFileSync, closeSync, existsSync, openSync, readFileSync, readSync } from 'node:fs';

export class History {
  constructor(file) {
    this.file = file;
  }

  /** Appends what happened; it is in the file when this returns. */
  add(kind, fields = {}) {
    appendFileSync(this.file, `${JSON.stringify({ at: Date.now(), by: process.pid, kind, ...fields })}\n`);
  }

  /** All that happened, in order. */
  read() {
    return existsSync(this.file) ? parse(readFileSync(this.file, 'utf8')) : [];
  }
}

function parse(text) {
  const records = [];
  for (const line of text.split('\n')) {
    // A process that was killed may have left half a line.
    try {
      if (line !== '') records.push(JSON.parse(line));
    } catch {
      continue;
    }
  }
  return records;
}

/** A line of the ledger. */
export function readLine(line) {
  const [what, job, chunk, attempt, owner, pid, parent] = line.split(' ');
  return { what, job, chunk: Number(chunk), attempt: Number(attempt), owner, pid: Number(pid), parent: Number(parent) };
}

/** The whole ledger, in order. */
export function readLedger(file) {
  return existsSync(file) ? readFileSync(file, 'utf8').split('\n').filter((line) => line !== '').map(readLine) : [];
}

/** Follows the ledger while it is written. */
export class LedgerTail {
  #descriptor;
  #rest = '';
  #buffer = Buffer.alloc(65_536);
  #waiting = new Set();
  #timer;

  constructor(file) {
    this.#descriptor = openSync(file, 'a+');
    this.#timer = setInterval(() => this.#look(), 5);
  }

  #position = 0;

  #look() {
    for (;;) {
      const read = readSync(this.#descriptor, this.#buffer, 0, this.#buffer.length, this.#position);
      if (read === 0) return;
      this.#position += read;
      const lines = (this.#rest + this.#buffer.toString('utf8', 0, read)).split('\n');
      this.#rest = lines.pop();
      for (const line of lines.map(readLine)) for (const waiting of [...this.#waiting]) waiting(line);
    }
  }

  /** The next line that `wanted` says yes to; undefined when there was none in time. */
  next(wanted, timeoutMs) {
    return new Promise((resolve) => {
      const end = (line) => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(line);
      };
      const look = (line) => wanted(line) && end(line);
      const timer = setTimeout(end, timeoutMs);
      this.#waiting.add(look);
    });
  }

  close() {
    clearInterval(this.#timer);
    closeSync(this.#descriptor);
  }
}
