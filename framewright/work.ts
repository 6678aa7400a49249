/** What the executors of ours are made of, for those who drive them. */
import type { Executor, RenderJobChunk, WorkerAdapter, WorkerResult } from './types.js';

/** What a chunk function is told beside its chunk. */
export interface ChunkContext {
  /** Aborted when the chunk is to stop: pause, cancel, a failed sibling, a time limit. */
  signal: AbortSignal;
  jobId: string;
  /** From 1. */
  attempt: number;
  /** 0 to 1. */
  reportProgress(fraction: number): void;
}

/** Renders one chunk in this process. What it resolves with is the chunk's result; nothing means success. */
// eslint-disable-next-line @typescript-eslint/no-invalid-void-type -- the contract: a function that gives nothing
export type RenderFunction = (chunk: RenderJobChunk, context: ChunkContext) => Promise<Partial<WorkerResult> | void>;

/** `execute` is the executor's own method: while it is in place, a manager may do without calling it. */
export type Work = { execute: unknown } & ({ adapter: WorkerAdapter } | { run: RenderFunction });

const works = new WeakMap<object, Work>();

export function setWork(executor: object, work: Work): void {
  works.set(executor, work);
}

export function workOf(executor: object): Work | undefined {
  return works.get(executor);
}

/** Whether chunks need a command: a function does without. */
export function needsCommand(executor: Executor): boolean {
  const work = works.get(executor);
  return !work || 'adapter' in work;
}
