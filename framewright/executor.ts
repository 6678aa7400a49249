/** The executor of ours: chunks by an adapter or a function, scheduled by the engine. */
import { aborted, invalid } from './errors.js';
import { checkOptions, writtenOptions } from './options.js';
import { drive } from './drive.js';
import { runAlone } from './alone.js';
import { RUN, type JobRun } from './run.js';
import type { Executor, JobExecutionOptions, JobSpec, JobSpecInput, WorkerAdapter } from './types.js';
import { setWork, workOf, type RenderFunction } from './work.js';

/**
 * Runs the chunks of a job: concurrency, attempts, time limits, abort, merge. With a {@link LocalWorkerAdapter} all of it
 * happens natively and goes on while the event loop is blocked.
 */
export class JobExecutor implements Executor {
  constructor(adapter: WorkerAdapter) {
    if (typeof (adapter as Partial<WorkerAdapter> | null | undefined)?.execute !== 'function') throw invalid('adapter', 'must have a method execute');
    setWork(this, { adapter, execute: own.execute.value });
  }

  /** Runs each chunk in this process by a function. */
  static fromFunction(run: RenderFunction): JobExecutor {
    if (typeof (run as unknown) !== 'function') throw invalid('run', 'must be a function');
    const executor = Object.create(JobExecutor.prototype) as JobExecutor;
    setWork(executor, { run, execute: own.execute.value });
    return executor;
  }

  /**
   * Runs a whole job to its end, without a manager and without keeping a record.
   *
   * A subclass whose manager calls it goes on after `super.execute(spec, options)`: the job is its manager's, and runs until
   * the subclass's own promise has settled.
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
      const own = options.signal === run.given.signal ? undefined : options.signal;
      run.driven = drive(workOf(this), run, run.direct(options)).finally(() => (run.driving = false));
      run.driving = true;
      await run.driven;
      if (own?.aborted) throw aborted('The run was aborted', own);
      // Whoever overrides this and calls it must not take a job that failed for one that is done.
      const rejection = run.rejection();
      if (rejection) throw rejection;
      return;
    }
    await runAlone(workOf(this), spec as JobSpec, options);
  }
}

function sameWritten(given: JobExecutionOptions, now: JobExecutionOptions): boolean {
  return given === now || writtenOptions(given) === writtenOptions(now);
}

/** Compared, never called. */
const own = Object.getOwnPropertyDescriptors(JobExecutor.prototype);
