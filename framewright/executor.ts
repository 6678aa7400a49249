/** The executor of ours: chunks by an adapter or a function, scheduled by the engine. */
import { invalid } from './errors.js';
import { checkOptions, writtenOptions } from './options.js';
import { RUN, byAdapter, type ChunkFunction, type JobRun } from './run.js';
import { runAlone } from './manager.js';
import { clock } from './timers.js';
import type { Executor, JobExecutionOptions, JobSpec, JobSpecInput, WorkerAdapter } from './types.js';
import { setWork, workOf, type RenderFunction, type Work } from './work.js';

function byFunction(render: RenderFunction): ChunkFunction {
  return async (chunk, run, attempt, signal, index) => {
    const begun = clock();
    const given = await render(structuredClone(chunk), {
      signal,
      jobId: run.id,
      attempt,
      reportProgress: (fraction) => {
        run.sign(chunk);
        if (!run.over && typeof fraction === 'number' && fraction >= 0) run.host.engine.chunkProgress(run.ticket, index, Math.min(fraction, 1));
      },
    });
    return { exitCode: 0, stdout: '', stderr: '', durationMs: clock() - begun, ...(given ?? {}) };
  };
}

/**
 * Runs the chunks of a job: concurrency, attempts, time limits, abort, merge. With a {@link LocalWorkerAdapter} all of it
 * happens natively and goes on while the event loop is blocked.
 */
export class JobExecutor implements Executor {
  constructor(adapter: WorkerAdapter) {
    if (typeof (adapter as Partial<WorkerAdapter> | null | undefined)?.execute !== 'function') throw invalid('adapter', 'must have a method execute');
    setWork(this, { adapter });
  }

  /** Runs each chunk in this process by a function. */
  static fromFunction(run: RenderFunction): JobExecutor {
    if (typeof (run as unknown) !== 'function') throw invalid('run', 'must be a function');
    const executor = Object.create(JobExecutor.prototype) as JobExecutor;
    setWork(executor, { run });
    return executor;
  }

  /**
   * Runs a whole job to its end, without a manager and without keeping a record.
   *
   * @throws FramewrightError VALIDATION before anything runs; CHUNK_FAILED, TIMEOUT, MERGE_FAILED, ... of the failure that
   *   ended it; ABORTED (an AbortError) when `options.signal` was aborted.
   */
  async execute(spec: JobSpecInput, options: JobExecutionOptions = {}): Promise<void> {
    checkOptions(options);
    const run = (options as { [RUN]?: JobRun })[RUN];
    // A manager calls with the run that it has begun. A wrapper that changed spec or options wants a run of its own.
    if (run && !run.bound && run.spec === spec && run.given && sameWritten(run.given, options)) {
      run.bound = true;
      await drive(workOf(this), run, run.direct(options));
      return;
    }
    await runAlone(workOf(this), drive, spec as JobSpec, options);
  }
}

/** Runs the chunks of a run that a manager has begun. */
async function drive(work: Work | undefined, run: JobRun, options: JobExecutionOptions): Promise<void> {
  if (!work) throw new TypeError('Not a JobExecutor');
  if ('adapter' in work) await run.runChunks(work.adapter, byAdapter(work.adapter, options), options);
  else await run.runChunks(undefined, byFunction(work.run), options);
}

function sameWritten(given: JobExecutionOptions, now: JobExecutionOptions): boolean {
  return given === now || writtenOptions(given) === writtenOptions(now);
}
