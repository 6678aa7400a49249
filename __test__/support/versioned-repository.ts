import type { JobRepository, JobStatus, JobStatusInput } from 'framewright';
import { turns } from './turns.js';

/** A repository as users write them over a database with conditional writes: the version that was seen is kept + 1, another one is refused with CONFLICT. */
export class VersionedRepository implements JobRepository {
  readonly records = new Map<string, JobStatusInput & { version: number }>();
  /** Saves that were refused. */
  conflicts = 0;
  /** Called when a save is kept, and before it is answered. */
  kept: (job: JobStatusInput) => void = () => undefined;

  /** Does it keep `record`? */
  constructor(readonly keepsRecord: boolean) {}

  async save(job: JobStatusInput): Promise<void> {
    const given = structuredClone(job);
    await turns(2);
    const known = this.records.get(given.id);
    if (given.version !== undefined && given.version !== known?.version) {
      this.conflicts += 1;
      throw Object.assign(new Error(`Job ${given.id} is at ${String(known?.version)}, not at ${given.version}`), { code: 'CONFLICT' });
    }
    if (!this.keepsRecord) delete given.record;
    this.records.set(given.id, { ...given, version: (given.version ?? known?.version ?? 0) + 1 });
    this.kept(given);
  }

  async get(id: string): Promise<JobStatus | undefined> {
    const found = structuredClone(this.records.get(id));
    await turns(2);
    return found as JobStatus | undefined;
  }

  async list(): Promise<JobStatus[]> {
    await turns(1);
    return structuredClone([...this.records.values()]) as JobStatus[];
  }

  async delete(id: string): Promise<void> {
    await turns(1);
    this.records.delete(id);
  }
}
