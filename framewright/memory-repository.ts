/** Jobs in memory, natively and outside of the JavaScript heap. */
import type { JobPage, LongLists, MemoryStore } from './binding.js';
import { checkId, isObject } from './arguments.js';
import { FramewrightError, invalid, messageOf, native } from './errors.js';
import binding from './native.js';
import { keepShapeOf } from './shapes.js';
import { readStatus } from './status.js';
import { turn } from './timers.js';
import type { JobRepository, JobState, JobStatus, JobStatusInput } from './types.js';

/** Jobs per slice of a listing: a few milliseconds of work. */
const SLICE = 100;

const stores = new WeakMap<object, MemoryStore>();
/** What is being saved only to be told, by the id of its job. */
const mirrored = new Map<string, Set<object>>();

/** The native store of a repository of ours. */
export function storeOf(repository: object): MemoryStore | undefined {
  return stores.get(repository);
}

/** Saves a status that tells what the native store has already: while it lasts, `save` takes it and copies of it as kept. */
export async function mirroring(status: JobStatus, save: () => Promise<void>): Promise<void> {
  const told = mirrored.get(status.id) ?? new Set();
  mirrored.set(status.id, told.add(status));
  try {
    await save();
  } finally {
    told.delete(status);
    if (told.size === 0) mirrored.delete(status.id);
  }
}

function isMirrored(job: object & { id?: unknown }, json: () => string): boolean {
  const told = mirrored.get(job.id as string);
  if (!told) return false;
  if (told.has(job)) return true;
  // A method that was overridden may hand on a copy.
  const text = json();
  for (const status of told) if (JSON.stringify(status) === text) return true;
  return false;
}

interface Listed {
  list(states: JobState[], from: number, most: number): JobPage;
  long(id: string): LongLists | null;
}

/** All jobs from a place on, read in slices so that the event loop gets its turns. */
export async function listAll(source: Listed, states: JobState[], from: number, limit: number): Promise<JobStatus[]> {
  const jobs: JobStatus[] = [];
  let next = from;
  for (;;) {
    const page = source.list(states, next, Math.min(SLICE, limit - jobs.length));
    // Split by hand: a status may have long lists, which are looked up by its id.
    for (const status of JSON.parse(page.jobs) as { id: string; $long?: unknown }[]) {
      jobs.push(status.$long ? readStatus(JSON.stringify(status), () => source.long(status.id)) : (status as unknown as JobStatus));
    }
    next = page.next;
    if (next < 0 || jobs.length >= limit) return jobs;
    await turn();
  }
}

/** The JSON of a value that a user gave; what JSON can't hold is bad input. */
export function toJson(value: unknown, what: string): string {
  try {
    const json = JSON.stringify(value) as string | undefined;
    if (json !== undefined) return json;
  } catch (error) {
    throw new FramewrightError('VALIDATION', `Invalid ${what}: it can't be written as JSON: ${messageOf(error)}`, {
      cause: error,
      issues: [{ path: what, message: messageOf(error) }],
    });
  }
  throw invalid(what, 'must be an object', what);
}

/**
 * Keeps jobs in memory, lost with the process. Statuses go in and out as full copies. An overridden or spied method is
 * honoured by the managers on it: every change of state is saved through it.
 */
export class InMemoryJobRepository implements JobRepository {
  constructor() {
    stores.set(this, new binding.MemoryStore());
  }

  get #store(): MemoryStore {
    const store = stores.get(this);
    if (!store) throw new TypeError('Not an InMemoryJobRepository');
    return store;
  }

  /** Keeps a status. See {@link JobRepository.save} for versions. */
  // eslint-disable-next-line @typescript-eslint/require-await -- a refusal is a rejection
  async save(job: JobStatusInput): Promise<void> {
    const json = (): string => toJson(job, 'job status');
    if (isObject(job) && isMirrored(job, json)) return;
    native(() => this.#store.save(json()));
  }

  /** The status, or undefined when there is no such job. */
  // eslint-disable-next-line @typescript-eslint/require-await -- bad input is a rejection
  async get(id: string): Promise<JobStatus | undefined> {
    const json = this.#store.get(checkId(id));
    return json === null ? undefined : readStatus(json, () => this.#store.long(id));
  }

  /** All jobs, in order of arrival. */
  async list(): Promise<JobStatus[]> {
    return listAll(this.#store, [], 0, Infinity);
  }

  /** Removes a job; an unknown id changes nothing. */
  // eslint-disable-next-line @typescript-eslint/require-await -- bad input is a rejection
  async delete(id: string): Promise<void> {
    this.#store.delete(checkId(id));
  }

  /** Nothing has to be closed in memory; the jobs stay until the repository is collected. */
  async close(): Promise<void> {}
}

keepShapeOf(new InMemoryJobRepository());

/** Compared, never called. */
const own = { ...Object.getOwnPropertyDescriptors(InMemoryJobRepository.prototype) };

/** Which methods of a repository of ours are its own still. */
export const isOwn = {
  save: (repository: JobRepository): boolean => repository.save === own.save.value,
  get: (repository: JobRepository): boolean => repository.get === own.get.value,
  list: (repository: JobRepository): boolean => repository.list === own.list.value,
  delete: (repository: JobRepository): boolean => repository.delete === own.delete.value,
};
