/** What puts the outputs of a job's chunks together: its stitcher, or the command of its spec. */
import { randomUUID } from 'node:crypto';
import { mkdir, rm, stat } from 'node:fs/promises';
import { dirname, resolve, sep } from 'node:path';
import type { Engine } from './binding.js';
import { FramewrightError, aborted, infoOf, typed } from './errors.js';
import { LocalWorkerAdapter, processSettings } from './local-adapter.js';
import binding from './native.js';
import { checkInside, verification } from './outputs.js';
import { exitCodeOf, textOf } from './results.js';
import { stitcherKind } from './stitchers.js';
import type { JobErrorInfo, JobExecutionOptions, WorkerAdapter, WorkerJob, WorkerResult } from './types.js';

/** Whose chunks are merged. */
export interface Merging {
  readonly id: string;
  readonly engine: Engine;
  /** The manager's identity on a durable store. */
  readonly owner: string | undefined;
  readonly options: JobExecutionOptions;
  /** The adapter of the chunks. */
  readonly adapter: WorkerAdapter | undefined;
}

/** A merged output. */
export interface MergedOutput {
  path: string;
  bytes: number;
  /** It may take the place of what it was made of. */
  whole: boolean;
}

const inputsOf = ({ engine, id, options }: Merging): string[] => engine.mergeInputs(id).map((input) => resolve(options.jobDir ?? '', input));

/** Merges once; gives the output, if there is one to be named. */
export async function merge(merging: Merging, signal: AbortSignal): Promise<MergedOutput | undefined> {
  const { options } = merging;
  const { stitcher } = options;
  const path = options.outputFile === undefined ? undefined : resolve(options.jobDir ?? '', options.outputFile);
  await checkInside(options.outputFile, options);
  const stitched = stitcher !== undefined && path !== undefined;
  if (stitched) {
    const files = inputsOf(merging);
    // No tool of ours can make a video of nothing; what a stitcher of the user's does is its own affair.
    if (files.length === 0 && stitcherKind(stitcher) !== 'custom') return undefined;
    await stitcher.stitch(files, path, { signal });
  } else if (!(await runCommand(merging, path, signal))) {
    return undefined;
  }
  const found = path === undefined ? undefined : await stat(path).catch(() => undefined);
  if (signal.aborted) throw aborted('The merge was stopped', signal);
  // Where outputs are not looked at, a stitcher of the user's may have put it elsewhere.
  const sure = stitched && (stitcherKind(stitcher) !== 'custom' || verification(options) !== 'none');
  if (sure && !found) throw new FramewrightError('MERGE_FAILED', `Merge failed: ${path} is not there`);
  return path !== undefined && found ? { path, bytes: found.size, whole: found.isDirectory() || found.size > 0 } : undefined;
}

/** Runs the spec's merge command, whose output is to be at `path`; gives whether there is one. */
async function runCommand(merging: Merging, path: string | undefined, signal: AbortSignal): Promise<boolean> {
  const { id, engine, options, adapter } = merging;
  const words = engine.mergeCommand(id) ?? [];
  if (words.length === 0) return false;
  const runner = options.mergeAdapter ?? adapter ?? new LocalWorkerAdapter();
  const { outputFile, jobDir } = options;
  const ours = processSettings(runner) !== undefined;
  if (ours && jobDir !== undefined) await mkdir(resolve(jobDir), { recursive: true });
  if (ours && path !== undefined) await mkdir(dirname(path), { recursive: true });
  const named = words.some((word) => word.includes('{outputFile}'));
  if (!ours || !named || path === undefined || outputFile === undefined || binding.isPattern(outputFile)) {
    await callRunner(merging, runner, words, outputFile, signal);
    return true;
  }
  // As of chunks: written under another name, and renamed once it is whole.
  const tag = randomUUID().slice(0, 8);
  const temporary = binding.temporaryBeside(path, tag);
  try {
    await callRunner(merging, runner, words, binding.temporaryBeside(outputFile, tag), signal);
    const written = await stat(temporary).catch(() => undefined);
    if (signal.aborted) throw aborted('The merge was stopped', signal);
    if (written?.isFile()) await binding.publishFile(temporary, path);
    return true;
  } catch (error) {
    throw typed(error);
  } finally {
    await rm(temporary, { force: true, recursive: true });
  }
}

async function callRunner(merging: Merging, runner: WorkerAdapter, words: string[], outputFile: string | undefined, signal: AbortSignal): Promise<void> {
  const { id, engine, owner, options } = merging;
  const { jobDir } = options;
  const [program = '', ...args] = words.map((word) => word.replaceAll('{jobId}', () => id).replaceAll('{outputFile}', () => outputFile ?? '{outputFile}'));
  const job: WorkerJob = {
    command: program,
    args,
    meta: { ...options.meta },
    env: { ...options.env, FRAMEWRIGHT_JOB_ID: id, ...(owner === undefined ? {} : { FRAMEWRIGHT_OWNER: owner }) },
    signal,
    ...(jobDir === undefined ? {} : { cwd: jobDir }),
  };
  const done = (await runner.execute(job)) as Partial<WorkerResult> | undefined;
  if (!Number.isInteger(done?.exitCode)) throw new TypeError('the adapter gave no result with an exitCode');
  const { exitCode, stderr } = done as WorkerResult;
  const ended = typeof done?.signal === 'string' ? done.signal : undefined;
  if (exitCode !== 0) throw new CommandFailed(engine.mergeExitError(exitCodeOf(exitCode), ended, textOf(stderr)));
}

/** Removes the chunk files, once the merge of them counts. */
export async function removeChunks(merging: Merging, output: string, warn: (message: string, error: unknown) => void): Promise<void> {
  for (const file of inputsOf(merging)) {
    // An output that is a folder may have the merged file in it.
    if (output === file || output.startsWith(`${file}${sep}`)) continue;
    await rm(file, { force: true, recursive: true }).catch((error: unknown) => {
      warn(`${file} could not be removed`, error);
    });
  }
}

/** What a merge failed with, as the engine takes it. */
export function mergeFailure(thrown: unknown): string {
  if (thrown instanceof CommandFailed) return thrown.info;
  const info = infoOf(thrown, 'MERGE_FAILED');
  if (info.message.startsWith('Merge failed')) return JSON.stringify(info);
  return JSON.stringify({ ...info, code: info.code === 'INTERNAL' ? 'MERGE_FAILED' : info.code, message: `Merge failed: ${info.message}` });
}

/** A merge program that failed, as the engine describes it. */
class CommandFailed extends Error {
  constructor(readonly info: string) {
    super((JSON.parse(info) as JobErrorInfo).message);
  }
}
