/** What is asked of a manager about its jobs and their chunks, checked; and lists made of pages. */
import { checkObject, integer, isTexts, shown } from './arguments.js';
import type { ChunkPage } from './binding.js';
import { invalid } from './errors.js';
import { turn } from './timers.js';
import type { ChunkStatus, JobQuery, JobState, JobStatus } from './types.js';

/** Chunks of a listing at once. */
const SLICE = 1000;
/** A job has fewer. */
const MOST_CHUNKS = 2 ** 32 - 1;

const STATES: readonly string[] = ['pending', 'running', 'paused', 'completed', 'failed', 'cancelled'];
const CHUNK_STATES: readonly string[] = ['pending', 'running', 'completed', 'failed'];

/** Which jobs are wanted. */
export interface Wanted {
  /** None: all. */
  states: JobState[];
  limit: number;
  /** The id after which the listing goes on. */
  cursor: string | undefined;
}

/** @throws FramewrightError VALIDATION. */
export function readQuery(query: JobQuery): Wanted {
  checkObject(query, 'query');
  const { state = [], cursor } = query;
  if (typeof state !== 'string' && !isTexts(state)) throw invalid('state', 'must be a job state or an array of them', 'query');
  const states = (typeof state === 'string' ? [state] : state) as JobState[];
  for (const state of states) {
    if (!STATES.includes(state)) throw invalid('state', `must be a job state, got ${shown(state)}`, 'query');
  }
  const limit = integer(query.limit, 'limit', Infinity);
  if (cursor !== undefined && typeof cursor !== 'string') throw invalid('cursor', 'must be the id of a job', 'query');
  return { states, limit, cursor };
}

/** No job has the id of the cursor. */
export function noCursor(cursor: string): Error {
  return invalid('cursor', `there is no job ${JSON.stringify(cursor)}`, 'query');
}

/** Of all jobs those that are wanted. */
export function filtered(jobs: JobStatus[], { states, limit, cursor }: Wanted): JobStatus[] {
  let found = jobs;
  if (cursor !== undefined) {
    const at = found.findIndex((job) => job.id === cursor);
    if (at < 0) throw noCursor(cursor);
    found = found.slice(at + 1);
  }
  if (states.length > 0) found = found.filter((job) => states.includes(job.state));
  return limit === Infinity ? found : found.slice(0, limit);
}

/** Which chunks of a job are wanted. */
export interface ChunkQuery {
  state?: ChunkStatus['state'];
  offset?: number;
  limit?: number;
}

/** @throws FramewrightError VALIDATION. */
export function readChunkQuery(query: ChunkQuery): { state: ChunkStatus['state'] | null; offset: number; limit: number } {
  checkObject(query);
  const offset = integer(query.offset, 'offset', 0);
  const limit = integer(query.limit, 'limit', Infinity);
  const { state } = query as ChunkQuery;
  if (state !== undefined && !CHUNK_STATES.includes(state)) throw invalid('state', 'must be a state of chunks', 'options');
  return { state: state ?? null, offset, limit };
}

/** Reads chunks page by page; others get their turn in between. */
export async function readChunks(
  { state, offset, limit }: ReturnType<typeof readChunkQuery>,
  read: (state: string | null, from: number, skip: number, most: number) => ChunkPage,
): Promise<ChunkStatus[]> {
  const found: ChunkStatus[] = [];
  // Without a filter the first one is known by its position.
  let from = state === null ? Math.min(offset, MOST_CHUNKS) : 0;
  let skip = state === null ? 0 : offset;
  while (found.length < limit) {
    const page = read(state, from, skip, Math.min(SLICE, limit - found.length));
    for (const chunk of JSON.parse(page.chunks) as ChunkStatus[]) found.push(chunk);
    if (page.next < 0) break;
    from = page.next;
    skip -= page.skipped;
    await turn();
  }
  return found;
}
