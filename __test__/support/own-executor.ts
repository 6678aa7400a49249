import type { Executor, JobExecutionOptions, JobSpec } from 'framewright';
import { turn } from './turns.js';

export const chunkResult = { exitCode: 0, stdout: '', stderr: '', durationMs: 1 };

export const abortError = (): Error => Object.assign(new Error('The work was aborted'), { name: 'AbortError' });

/** Rejects with an AbortError once the signal is aborted. */
export function whenAborted(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => {
    if (signal?.aborted) reject(abortError());
    else signal?.addEventListener('abort', () => reject(abortError()), { once: true });
  });
}

/** An executor as users write them: one chunk after the other, skips what is done, reports, stops when it is told to. */
export class OwnExecutor implements Executor {
  readonly calls: { spec: JobSpec; options: JobExecutionOptions }[] = [];
  /** Ids of the chunks that were begun. */
  readonly ran: number[] = [];

  constructor(readonly work: (chunkId: number, signal: AbortSignal | undefined) => Promise<unknown> = turn) {}

  async execute(spec: JobSpec, options: JobExecutionOptions = {}): Promise<void> {
    this.calls.push({ spec, options });
    const done = new Set(options.completedChunkIds);
    for (const { id } of spec.chunks) {
      if (done.has(id)) continue;
      if (options.signal?.aborted) throw abortError();
      this.ran.push(id);
      await this.work(id, options.signal);
      done.add(id);
      await options.onChunkComplete?.(id, chunkResult);
      options.onProgress?.(done.size, spec.chunks.length);
    }
  }
}
