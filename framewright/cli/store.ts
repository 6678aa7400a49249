/**
 * Where `framewright run` keeps its runs, and what of an earlier run of the same job file it goes on from.
 *
 * A job file has one record, under an id made of its path. An interrupted run is resumed in its record. What resuming
 * can't do (another merge, a chunk that was rendered alone, outputs that changed) takes a new record with the finished
 * chunks, under the second id of the two that the file has; the old one is removed once the new one is kept.
 */
import { createHash } from 'node:crypto';
import { mkdirSync, realpathSync, statSync } from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { workingOn } from '../durable-repository.js';
import {
  FramewrightError, openRepository,
  type ChunkStatus, type JobExecutionOptions, type JobManager, type JobRepository, type JobSpec, type JobSpecInput, type JobStatus,
} from '../index.js';
import { UsageError } from './arguments.js';

/** Jobs of the command line; no worker process takes them over, whose folders may be others. */
export const RUN_TYPE = 'framewright run';

/** A store that can be closed. */
export type RunStore = JobRepository & { close(): Promise<void> };

/** Another process is rendering the same job file: exit status 1. */
export class RunningElsewhere extends Error {
  override name = 'RunningElsewhere';
}

/** What a file was like: bytes, and milliseconds since the epoch. */
export interface Output { bytes: number; modifiedAt: number }

/** A chunk of the job file, as far as it matters here. */
export interface RenderedChunk { id: number; outputFile?: string }

/** What a record says of the run, in `meta`. */
export interface RunNote {
  /** The job file. */
  file: string;
  /** Names what is rendered, and how it is merged. */
  rendered: string; merged: string;
  /** The job has a merge, and it was left out. */
  leavesMerge: boolean;
  /** Outputs of chunks that were rendered alone; null: the chunk names none. */
  alone?: Record<string, Output | null>;
}

/** The job file as it is to be run now. */
export interface WantedRun { jobFile: string; ids: [string, string]; spec: Record<string, unknown>; chunks: RenderedChunk[]; jobDir: string; leavesMerge: boolean; fresh: boolean }

/** How a run begins. */
export interface RunStart {
  /** Of the record that will be run. */
  id: string;
  /** It is there, and is resumed; otherwise it is submitted. */
  resumes: boolean;
  /** The record that it takes the place of. */
  previous?: string;
  /** A record that a dead process left `running`: to be paused first. */
  orphan?: string;
  /** Chunks that need not be rendered. */
  finished: number[];
  /** There was a run to go on from: of this job, or of what the file was before. */
  found: 'none' | 'same' | 'other';
  note: RunNote;
}

/** The store of job files that are run without `--store`: one for each folder. */
export function defaultStorePath(jobFile: string): string {
  return join(dirname(jobFile), '.framewright', 'jobs.db');
}

/** Opens the store. A URL that makes no sense is a UsageError. */
export async function openRunStore(url: string | undefined, jobFile: string): Promise<RunStore> {
  if (url !== undefined) {
    try {
      return await openRepository(url);
    } catch (error) {
      if (!(error instanceof FramewrightError) || error.code !== 'VALIDATION') throw error;
      throw new UsageError(`run: --store ${error.issues?.[0]?.message ?? error.message}`);
    }
  }
  const path = defaultStorePath(jobFile);
  try {
    mkdirSync(dirname(path), { recursive: true });
    return await openRepository(`sqlite:${path.split('/').map(encodeURIComponent).join('/')}`);
  } catch (error) {
    const code = error instanceof FramewrightError ? error.code : 'STORE_UNAVAILABLE';
    throw new FramewrightError(code, `${(error as Error).message} (--store names another place, --store memory: keeps nothing)`, { cause: error });
  }
}

/**
 * The two ids of a job file. Its path names it; in a database server, which knows files of several machines, the
 * machine's name does too.
 */
export function runIds(jobFile: string, storeUrl?: string): [string, string] {
  const shared = storeUrl !== undefined && /^(postgres|postgresql|mysql|mariadb):/.test(storeUrl);
  const hash = createHash('sha256').update(JSON.stringify([shared ? hostname() : '', realpathSync(jobFile)])).digest('hex').slice(0, 12);
  const name = basename(jobFile, extname(jobFile)).replaceAll(/[^A-Za-z0-9_-]+/g, '-').slice(0, 64);
  return [`${name}-${hash}`, `${name}-${hash}.2`];
}

const hashOf = (value: unknown): string => createHash('sha256').update(JSON.stringify(value)).digest('hex');

/**
 * Names what is rendered: the job and the folder it is rendered in. How the chunks are merged
 * (`mergeCommand`, `outputFile`) is left out: after a change of it the chunks are still good.
 */
export function fingerprint(spec: Record<string, unknown>, jobDir: string): string {
  const { mergeCommand, outputFile, ...rendered } = spec;
  return hashOf([rendered, resolve(jobDir)]);
}

/** Whether the output of a chunk is what it was. */
export function isUnchanged(file: string, output: Output): boolean {
  const stat = statSync(file, { throwIfNoEntry: false });
  // A fraction of a microsecond may be lost in the number.
  return stat?.isFile() === true && stat.size === output.bytes && Math.abs(stat.mtimeMs - output.modifiedAt) < 0.001;
}

function noteOf(job: JobStatus): RunNote | undefined {
  return job.meta?.['commandLine'] as RunNote | undefined;
}

function noteFor({ jobFile, spec, jobDir, leavesMerge }: WantedRun): RunNote {
  return { file: jobFile, rendered: fingerprint(spec, jobDir), merged: hashOf([spec['mergeCommand'], spec['outputFile']]), leavesMerge };
}

/** Throws when another process works on the job. */
export async function checkFree(repository: JobRepository, id: string, jobFile: string): Promise<void> {
  const elsewhere = await workingOn(repository, id);
  if (!elsewhere) return;
  const where = elsewhere.pid > 0 ? `process ${elsewhere.pid}${elsewhere.host ? ` on ${elsewhere.host}` : ''}` : 'another process';
  throw new RunningElsewhere(`${jobFile} is being rendered already, by ${where} (owner ${elsewhere.owner})`);
}

/** The records of a job file that nobody works on, the latest last. */
async function records(repository: JobRepository, manager: JobManager, wanted: WantedRun): Promise<JobStatus[]> {
  const found: JobStatus[] = [];
  for (const id of wanted.ids) {
    const job = await manager.getJob(id);
    if (!job) continue;
    await checkFree(repository, id, wanted.jobFile);
    found.push(job);
  }
  return found.sort((one, other) => one.createdAt - other.createdAt);
}

/** Whether a job that is there is one to go on from. */
function isOpen(job: JobStatus): boolean {
  return job.state !== 'completed' || noteOf(job)?.leavesMerge === true;
}

/** Decides how a run begins; throws RunningElsewhere. */
export async function findRun(repository: JobRepository, manager: JobManager, wanted: WantedRun): Promise<RunStart> {
  const known = await records(repository, manager, wanted);
  const current = known.pop();
  // A run that was killed between keeping the new record and removing the old one.
  for (const old of known) await manager.deleteJob(old.id);

  const note = noteFor(wanted);
  if (!current) return { id: wanted.ids[0], resumes: false, finished: [], found: 'none', note };
  const before = noteOf(current);
  const found = !isOpen(current) ? 'none' : before?.rendered === note.rendered ? 'same' : 'other';
  const alive = current.state === 'running' || current.state === 'pending';
  const start = {
    id: wanted.ids.find((id) => id !== current.id) as string, resumes: false, previous: current.id, finished: [], found, note,
    ...(alive ? { orphan: current.id } : {}),
  } satisfies RunStart;
  if (found !== 'same' || wanted.fresh) return start;

  const outputs = new Map<number, Output | null | undefined>();
  const completed = await manager.chunks(current.id, { state: 'completed' });
  for (const chunk of completed) outputs.set(chunk.id, chunk.output);
  for (const [id, output] of Object.entries(before?.alone ?? {})) outputs.set(Number(id), output);
  const finished = wanted.chunks
    .filter(({ id, outputFile }) => {
      if (!outputs.has(id)) return false;
      const output = outputs.get(id);
      return outputFile === undefined || (output !== undefined && output !== null && isUnchanged(resolve(wanted.jobDir, outputFile), output));
    })
    .map(({ id }) => id);
  const resumes = (alive || current.state === 'paused' || current.state === 'failed') && before?.alone === undefined
    && before?.merged === note.merged && before.leavesMerge === note.leavesMerge && finished.length === completed.length;
  if (!resumes) return { ...start, finished };
  return { id: current.id, resumes, finished, found, note, ...(alive ? { orphan: current.id } : {}) };
}

/** Makes the job run as it was decided; throws RunningElsewhere when another process was quicker. */
export async function beginRun(
  repository: JobRepository, manager: JobManager, wanted: WantedRun, start: RunStart, spec: JobSpecInput, options: JobExecutionOptions,
): Promise<void> {
  // Takes it over, and kills what the dead process left running.
  if (start.orphan !== undefined) await manager.pauseJob(start.orphan);
  try {
    // Ids that an earlier run began with would win over what has become of the chunks since.
    if (start.resumes) await manager.resumeJob(start.id, { ...options, completedChunkIds: [], strict: true });
    else await manager.submitJob(spec, { ...options, id: start.id, type: RUN_TYPE, meta: { commandLine: start.note }, completedChunkIds: start.finished });
  } catch (error) {
    if (!(error instanceof FramewrightError) || !['INVALID_TRANSITION', 'DUPLICATE'].includes(error.code)) throw error;
    await checkFree(repository, start.id, wanted.jobFile);
    throw new RunningElsewhere(`${wanted.jobFile} was run by another process at this moment`);
  }
  if (start.previous !== undefined) await manager.deleteJob(start.previous);
}

/** Keeps that a chunk was rendered alone, in the record of the job file. */
export async function keepAlone(repository: JobRepository, manager: JobManager, wanted: WantedRun, chunk: ChunkStatus): Promise<void> {
  const note = noteFor(wanted);
  for (let attempts = 1; ; attempts += 1) {
    const jobs = await Promise.all(wanted.ids.map((id) => manager.getJob(id)));
    const current = jobs.filter((job) => job !== undefined).sort((one, other) => one.createdAt - other.createdAt).pop();
    const before = current && noteOf(current);
    const same = current && isOpen(current) && before?.rendered === note.rendered;
    const alone = { ...(same ? before.alone : {}), [chunk.id]: chunk.output ?? null };
    const now = Date.now();
    try {
      if (same) {
        await repository.save({ ...current, meta: { ...current.meta, commandLine: { ...before, alone } } });
      } else {
        await repository.save({
          id: wanted.ids.find((id) => id !== current?.id) as string,
          spec: wanted.spec as unknown as JobSpec,
          state: 'paused', progress: 0, totalChunks: wanted.chunks.length, completedChunks: 0, createdAt: now, updatedAt: now,
          type: RUN_TYPE, meta: { commandLine: { ...note, alone } },
        });
        if (current) await manager.deleteJob(current.id);
      }
      return;
    } catch (error) {
      // Another chunk of the job was rendered alone at the same time.
      if (!(error instanceof FramewrightError) || error.code !== 'CONFLICT' || attempts >= 20) throw error;
    }
  }
}
