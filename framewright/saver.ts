/** Saves of jobs through a repository that is JavaScript: one job one save at a time, what comes meanwhile together. */
import { randomUUID } from 'node:crypto';
import type { Engine } from './binding.js';
import { FramewrightError, messageOf } from './errors.js';
import { isOwn, mirroring } from './memory-repository.js';
import type { Patience } from './patience.js';
import { keepShapeOf } from './shapes.js';
import { sleep } from './timers.js';
import type { JobRepository, JobState, JobStatus, JobStatusInput } from './types.js';

/** After so many failures in a row those who wait are told; saving goes on. */
const PATIENCE = 5;
const FIRST_DELAY_MS = 10;
const LONGEST_DELAY_MS = 1000;

interface Job {
  dirty: boolean;
  /** The repository has a save that it has not answered. */
  asked: boolean;
  failures: number;
  waiting: { resolve: () => void; reject: (error: unknown) => void }[];
}

/** A job as a store behind JavaScript has it. */
interface Seen {
  version: number;
  state: JobState;
}

/** Saves over one version of a job. */
interface Tries {
  /** The version that the store has after one of them. */
  version: number;
  mark: string;
  /** In which states the job was saved by those that had no answer: the store may have one of them. */
  states: Set<JobState>;
}

export class Saver {
  readonly #jobs = new Map<string, Job>();
  /** Jobs in a store behind JavaScript, as they were seen there last. */
  readonly #seen = new Map<string, Seen>();
  /** Jobs that somebody deleted while they were at work here. */
  readonly #gone = new Set<string>();
  /** Saves that have not succeeded yet. */
  readonly #tries = new Map<string, Tries>();
  /** Marks of saves begin with it. */
  readonly #me = randomUUID();
  #marks = 0;
  #ended = false;

  constructor(
    readonly engine: Engine,
    readonly repository: JobRepository,
    /** The repository is the truth; otherwise it is told what the native store has already. */
    readonly outside: boolean,
    /** The repository is a durable one of ours, which the engine writes to itself. */
    readonly durable: boolean,
    readonly patience: Patience,
    readonly warn: (id: string, message: string, error: unknown) => void,
    /** Somebody else deleted the job. */
    readonly deleted: (id: string) => void,
  ) {}

  /** Whether changes are saved through JavaScript: the store is there, or its `save` is not its own any more. */
  get isNeeded(): boolean {
    return this.outside || (!this.durable && !isOwn.save(this.repository));
  }

  /** Saves a job of that id for the first time. */
  async first(id: string): Promise<void> {
    this.#gone.delete(id);
    try {
      await this.once(id);
    } finally {
      this.#tries.delete(id);
    }
  }

  /** The job has changed. */
  request(id: string): void {
    this.#change(id);
  }

  /** Resolves when what is true of the job now has been saved; rejects when that failed several times, or takes too long. */
  flush(id: string): Promise<void> {
    return this.patience.with(
      new Promise<void>((resolve, reject) => {
        this.#change(id, { resolve, reject });
      }),
    );
  }

  #change(id: string, waiter?: Job['waiting'][number]): void {
    const known = this.#jobs.get(id);
    const job = known ?? { dirty: true, asked: false, failures: 0, waiting: [] };
    if (waiter) job.waiting.push(waiter);
    job.dirty = true;
    if (known) return;
    this.#jobs.set(id, job);
    void this.#save(id, job);
  }

  /** Resolves when nothing is being saved of that job. */
  async settle(id: string): Promise<void> {
    if (this.#jobs.has(id)) await this.flush(id).catch(() => undefined);
  }

  /** The store has the job as told; `undefined`: it has none. */
  saw(id: string, status: JobStatusInput | undefined): void {
    if (status === undefined) {
      this.#seen.delete(id);
      this.#tries.delete(id);
      return;
    }
    // A store that gives back what it was given still has the version that was named to it; one that counts is beyond it.
    const { named } = recordOf(status);
    const kept = named !== undefined && (status.version ?? null) === named;
    this.#seen.set(id, { version: kept ? (named ?? 0) + 1 : (status.version ?? 0), state: status.state });
  }

  /** Whether something is being saved of a job. */
  isBusy(id: string): boolean {
    return this.#jobs.has(id);
  }

  /** Whether the repository has a save of the job that it has not answered. */
  isAsked(id: string): boolean {
    return this.#jobs.get(id)?.asked === true;
  }

  /** No save is begun any more, except those that run. */
  end(): void {
    this.#ended = true;
  }

  /** Hands one snapshot to the repository; gives its version. */
  async once(id: string): Promise<void> {
    const snapshot = this.#gone.has(id) ? null : this.engine.snapshot(id);
    if (!snapshot) return;
    const status = JSON.parse(snapshot.status) as JobStatus;
    if (this.outside) {
      // The version that was seen, none for the first: a store that keeps it + 1 and refuses older ones fits.
      const seen = this.#seen.get(id)?.version;
      if (seen === undefined) delete (status as Partial<JobStatus>).version;
      else status.version = seen;
      const version = (seen ?? 0) + 1;
      let tries = this.#tries.get(id);
      if (tries?.version !== version) this.#tries.set(id, (tries = { version, mark: `${this.#me}:${(this.#marks += 1)}`, states: new Set() }));
      Object.assign(status.record as object, { named: seen ?? null, mark: tries.mark });
      const { state } = status;
      try {
        await this.repository.save(status);
      } catch (error) {
        if (!isConflict(error)) tries.states.add(state);
        throw error;
      }
      this.#tries.delete(id);
      this.#seen.set(id, { version, state });
    } else {
      await mirroring(status, () => this.repository.save(status));
    }
    this.engine.saved(id, snapshot.version);
  }

  /** After a conflict (or an answer that was lost): what does the store have? What others have put there stays. */
  async #look(id: string, error: unknown): Promise<void> {
    if (!this.outside || !isConflict(error)) return;
    let status: JobStatus | undefined;
    try {
      status = (await this.patience.with(this.repository.get(id))) ?? undefined;
    } catch {
      // Looked at again after the next try.
      return;
    }
    const known = this.#seen.get(id);
    const tries = this.#tries.get(id);
    if (known && status) this.#takeIn(status, known, tries);
    this.saw(id, status);
    this.#tries.delete(id);
    if (!known || status) return;
    this.#gone.add(id);
    this.deleted(id);
  }

  #takeIn(status: JobStatus, known: Seen, tries: Tries | undefined): void {
    const { mark } = recordOf(status);
    // Made from a save of ours that had no answer, or that save itself; a store may not keep the mark.
    const ours = tries !== undefined && (mark === undefined || mark === tries.mark) && tries.states.has(status.state);
    if (ours && tries.version === status.version) return;
    // Only a state that they have set is theirs.
    const same = ours || status.state === known.state;
    try {
      this.engine.takeIn(JSON.stringify(same ? { ...status, state: 'running' } : status));
    } catch (error) {
      this.warn(status.id, 'What somebody else saved could not be read, and is written over', error);
    }
  }

  /** Resolves when nothing is being saved, or nothing can be. */
  async settleAll(): Promise<void> {
    await Promise.all([...this.#jobs.keys()].map((id) => this.settle(id)));
  }

  async #save(id: string, job: Job): Promise<void> {
    while (job.dirty) {
      job.dirty = false;
      const waiting = job.waiting.splice(0);
      try {
        job.asked = true;
        await this.once(id).finally(() => (job.asked = false));
        job.failures = 0;
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        await this.#look(id, error);
        job.failures += 1;
        job.dirty = true;
        job.waiting.unshift(...waiting);
        if (job.failures === 1) this.warn(id, 'The repository refused a save, which is tried again', error);
        if (job.failures >= PATIENCE) {
          const failed = new FramewrightError('STORE_UNAVAILABLE', `The repository does not keep job "${id}": ${messageOf(error)}`, { cause: error });
          for (const { reject } of job.waiting.splice(0)) reject(failed);
        }
        if (this.#ended && job.failures >= PATIENCE) break;
        await sleep(Math.min(FIRST_DELAY_MS * 2 ** (job.failures - 1), LONGEST_DELAY_MS));
      }
    }
    this.#jobs.delete(id);
  }
}

/** What a save has left in the record of a job. */
function recordOf(status: JobStatusInput): { named?: number | null; mark?: string } {
  return status.record ?? {};
}

function isConflict(error: unknown): boolean {
  return (error as { code?: unknown } | undefined)?.code === 'CONFLICT';
}

keepShapeOf(new Saver(undefined as never, undefined as never, false, false, undefined as never, () => undefined, () => undefined));
