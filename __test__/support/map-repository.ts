import type { JobRepository, JobStatus, JobStatusInput } from 'framewright';
import { turns } from './turns.js';

/** A repository as users write them: a Map of JSON texts behind calls that take a while. */
export class MapRepository implements JobRepository {
  /** Every save that has settled, in that order. */
  readonly saved: JobStatus[] = [];
  /** Saves of one job that ran at the same time, at the most. */
  mostAtOnce = 0;
  /** Turns of the event loop that a save takes. */
  saveTurns = 2;
  readonly #underWay = new Map<string, number>();

  constructor(readonly records = new Map<string, string>()) {}

  async save(job: JobStatusInput): Promise<void> {
    const text = JSON.stringify(job);
    const running = (this.#underWay.get(job.id) ?? 0) + 1;
    this.#underWay.set(job.id, running);
    this.mostAtOnce = Math.max(this.mostAtOnce, running);
    try {
      await turns(this.saveTurns);
      this.records.set(job.id, text);
      this.saved.push(JSON.parse(text) as JobStatus);
    } finally {
      this.#underWay.set(job.id, (this.#underWay.get(job.id) ?? 1) - 1);
    }
  }

  async get(id: string): Promise<JobStatus | undefined> {
    await turns(1);
    const text = this.records.get(id);
    return text === undefined ? undefined : (JSON.parse(text) as JobStatus);
  }

  async list(): Promise<JobStatus[]> {
    await turns(1);
    return [...this.records.values()].map((text) => JSON.parse(text) as JobStatus);
  }

  async delete(id: string): Promise<void> {
    await turns(1);
    this.records.delete(id);
  }

  /** The states that one job was saved in, repetitions left out. */
  statesOf(id: string): string[] {
    const states = this.saved.filter((job) => job.id === id).map((job) => job.state as string);
    return states.filter((state, n) => state !== states[n - 1]);
  }
}
