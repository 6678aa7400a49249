/** One job without a manager of the user's. */
import { aborted, errorOf } from './errors.js';
import { InMemoryJobRepository } from './memory-repository.js';
import { JobManager } from './manager.js';
import { RUN, jobOf, lastRunOf, watchRuns, type JobRun } from './run.js';
import type { Executor, JobExecutionOptions, JobSpec, SubmitOptions } from './types.js';
import { setWork, type Work } from './work.js';

/** Runs one job without keeping it: what `JobExecutor.execute` is. */
export async function runAlone(
  work: Work | undefined,
  spec: JobSpec,
  options: JobExecutionOptions,
): Promise<void> {
  // Never called: the manager drives the work of an executor of ours itself.
  const execute = (): Promise<void> => Promise.reject(new TypeError('Not a JobExecutor'));
  const inner: Executor = { execute };
  if (work) setWork(inner, { ...work, execute });
  const manager = new JobManager(new InMemoryJobRepository(), inner);
  watchRuns(manager);
  // A wrapper of the user's runs the job of the manager that called it, whose id its chunks are told.
  const { id: _, type: __, ...own } = { ...options } as SubmitOptions & { [RUN]?: JobRun | undefined };
  own[RUN] = undefined;
  const named = jobOf(options.signal);
  const id = await manager.submitJob(spec, named === undefined ? own : { ...own, id: named });
  const status = await manager.waitForJob(id);
  if (status.state === 'completed') return;
  if (status.state === 'cancelled') throw aborted('The job was aborted', options.signal);
  const failure = status.failure ?? { code: 'INTERNAL', message: status.error ?? `The job ended ${status.state}` };
  throw errorOf(failure, lastRunOf(manager)?.causeOf(failure));
}
