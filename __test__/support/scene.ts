import type { SubmitOptions } from 'framewright';
import { Ledger, type Entry } from './ledger.js';
import { Worker, type WorkerOptions } from './worker.js';

/** A store, the ledger of its chunks, and the processes on it. */
export class Scene {
  readonly ledger = new Ledger();

  constructor(readonly url: string) {}

  /** A worker that may not live long enough to be ready. */
  spawn(more: Partial<WorkerOptions> = {}): Worker {
    return new Worker({ url: this.url, folder: this.ledger.path, ...more });
  }

  start(more: Partial<WorkerOptions> = {}): Promise<Worker> {
    return this.spawn(more).ready;
  }

  /** Options of a job in this folder. */
  options(id: string, more: SubmitOptions = {}): SubmitOptions {
    return { id, jobDir: this.ledger.path, ...more };
  }

  /** Has chunks that hold end from now on. */
  openGate(): void {
    this.ledger.write('gate', '');
  }

  begun(job: string, chunk: number, attempt = 1, limitMs?: number): Promise<Entry> {
    return this.ledger.until('begin', (entry) => entry.job === job && entry.chunk === chunk && entry.attempt === attempt, limitMs);
  }
}
