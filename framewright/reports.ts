/** What an executor that runs whole jobs is given, and what it reports by it. */
import { isObject } from './arguments.js';
import { aborted } from './errors.js';
import { textOf } from './results.js';
import type { RunHost } from './host.js';
import { RUN, noteJob, type JobRun } from './run.js';
import type { ErrorCode, JobErrorInfo, JobExecutionOptions, WorkerResult } from './types.js';

export class Reports {
  readonly #run: JobRun;
  readonly #host: RunHost;

  constructor(run: JobRun) {
    this.#run = run;
    this.#host = run.host;
  }

  /** The options that the executor is called with: the user's own, and ours beside them. */
  given(meta: Record<string, unknown> | undefined, ours: boolean): JobExecutionOptions {
    const run = this.#run;
    const { options } = run;
    const given: JobExecutionOptions & { [RUN]?: JobRun } = { ...options, signal: run.signal };
    noteJob(run);
    if (meta) given.meta = { ...options.meta, ...meta };
    if (ours) given[RUN] = run;
    const done = this.#host.engine.completedIds(run.id);
    if (done.length > 0) given.completedChunkIds = done;
    const alive = this.#watchSilence(ours);
    if (alive) {
      given.onChunkStdout = (chunkId, data) => {
        alive();
        run.call('onChunkStdout', options.onChunkStdout, chunkId, data);
      };
      given.onChunkStderr = (chunkId, data) => {
        alive();
        run.call('onChunkStderr', options.onChunkStderr, chunkId, data);
      };
    }
    // An executor of ours that has taken the run answers to the engine itself, and calls the user's callbacks itself.
    given.onProgress = (completed, total) => {
      alive?.();
      if (!run.bound) this.#progress(completed, total);
      run.call('onProgress', options.onProgress, completed, total);
      if (!run.bound) this.#reported();
    };
    given.onChunkComplete = (chunkId, result) => {
      alive?.();
      if (!run.bound) this.#chunk(chunkId, result);
      const told = run.call('onChunkComplete', options.onChunkComplete, chunkId, result) as Promise<void> | undefined;
      if (!run.bound) this.#reported();
      return told;
    };
    return given;
  }

  #reported(): void {
    const run = this.#run;
    this.#host.touched(run.id);
    this.#host.tell();
    // An executor of the user's can't be asked to let its chunks end; this one just has.
    if (run.graceful && !run.over) run.abort(aborted('The job is being paused'));
  }

  #progress(completed: unknown, total: unknown): void {
    const run = this.#run;
    const good = Number.isSafeInteger(completed) && Number.isSafeInteger(total) && (completed as number) >= 0 && (total as number) > 0;
    if (!good) {
      this.#host.warn(run.id, `onProgress was called with ${String(completed)} of ${String(total)}, which is ignored`);
      return;
    }
    const most = 0xffff_ffff;
    if (run.over || !this.#host.engine.reportProgress(run.ticket, run.number, Math.min(completed as number, most), Math.min(total as number, most))) {
      this.#host.warn(run.id, 'A late report was refused: onProgress after the end of the run');
    }
  }

  #chunk(chunkId: unknown, result: unknown): void {
    const run = this.#run;
    const { durationMs, stdout, stderr } = (isObject(result) ? result : {}) as Partial<WorkerResult>;
    const duration = typeof durationMs === 'number' && durationMs >= 0 && durationMs < Infinity ? durationMs : 0;
    const refused =
      typeof chunkId === 'number' && Number.isSafeInteger(chunkId) && chunkId >= 0
        ? this.#host.engine.reportChunk(run.ticket, run.number, chunkId, duration, textOf(stdout), textOf(stderr))
        : `the job has no chunk ${String(chunkId)}`;
    if (refused !== null) this.#host.warn(run.id, `A report of onChunkComplete was refused: ${refused}`);
  }

  /** Ends the run of an executor of the user's that gives no sign of life for too long; gives what a sign calls, if it counts. */
  #watchSilence(ours: boolean): (() => void) | undefined {
    const run = this.#run;
    // The executors of ours watch their chunks one by one.
    const { startMs, noProgressMs } = (ours ? undefined : run.options.timeouts) ?? {};
    let timer: NodeJS.Timeout | undefined;
    const arm = (limit: number | undefined, code: ErrorCode, what: string): void => {
      if (timer) run.stopTimer(timer);
      timer = undefined;
      if (limit === undefined || run.over) return;
      timer = run.after(limit, () => {
        this.#host.engine.timeOut(run.ticket, JSON.stringify({ code, message: `The job failed: ${what} ${limit} ms` } satisfies JobErrorInfo));
        this.#host.tell();
      });
    };
    const alive = (): void => arm(noProgressMs, 'NO_PROGRESS', 'no progress for');
    if (startMs !== undefined) arm(startMs, 'TIMEOUT', 'no sign of life within');
    else alive();
    return startMs === undefined && noProgressMs === undefined ? undefined : alive;
  }
}
