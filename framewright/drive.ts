/** How the chunks of a run are done: by an adapter or by a function. */
import { Templates, environmentOf, valuesOf } from './command.js';
import binding from './native.js';
import type { ChunkFunction, JobRun } from './run.js';
import { clock } from './timers.js';
import type { JobExecutionOptions, RenderJobChunk, WorkerAdapter, WorkerJob } from './types.js';
import type { RenderFunction, Work } from './work.js';

/** Runs the chunks of a run that a manager has begun, and ends the run. */
export async function drive(work: Work | undefined, run: JobRun, options: JobExecutionOptions): Promise<void> {
  if (!work) throw new TypeError('Not a JobExecutor');
  if ('adapter' in work) await run.runChunks(work.adapter, byAdapter(work.adapter, options), options);
  else await run.runChunks(undefined, byFunction(work.run), options);
}

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

/** What an adapter tells of one chunk while it runs: signs of life, progress, pieces for the user. */
class Listener {
  #progress: InstanceType<typeof binding.OutputProgress> | undefined;

  constructor(
    readonly run: JobRun,
    readonly index: number,
    readonly chunk: RenderJobChunk,
    readonly options: JobExecutionOptions,
  ) {}

  readonly onStdout = (data: string): void => {
    this.#heard(data);
    const { onChunkStdout } = this.options;
    if (onChunkStdout) this.run.call('onChunkStdout', onChunkStdout, this.chunk.id, data);
  };

  readonly onStderr = (data: string): void => {
    this.#heard(data);
    const { onChunkStderr } = this.options;
    if (onChunkStderr) this.run.call('onChunkStderr', onChunkStderr, this.chunk.id, data);
  };

  #heard(data: string): void {
    const { run, chunk } = this;
    run.sign(chunk);
    if (run.over) return;
    this.#progress ??= new binding.OutputProgress(this.options.progressPattern, chunk.startFrame, chunk.frameCount, chunk.frameStep);
    const fraction = this.#progress.feed(data);
    if (fraction >= 0) run.host.engine.chunkProgress(run.ticket, this.index, fraction);
    else run.host.engine.alive(run.ticket);
  }
}

/** A chunk by an adapter: the whole `WorkerJob`, and its output read for signs of life and progress. */
function byAdapter(adapter: WorkerAdapter, options: JobExecutionOptions): ChunkFunction {
  const { jobDir, env, meta, timeouts } = options;
  const timeout = timeouts?.chunkMs;
  const templates = new Templates();
  return (chunk, run, attempt, signal, index) => {
    const values = valuesOf(chunk, run.id, attempt);
    const [command, ...args] = chunk.argv ? templates.renderAll(chunk.argv, values) : templates.command(chunk.command, values);
    const { onStdout, onStderr } = new Listener(run, index, chunk, options);
    const job: WorkerJob = {
      command: command as string,
      args,
      env: environmentOf(values, env),
      meta: meta ? { ...meta, chunkId: chunk.id, ...chunk, jobId: run.id, attempt } : { chunkId: chunk.id, ...chunk, jobId: run.id, attempt },
      signal,
      onStdout,
      onStderr,
    };
    if (jobDir !== undefined) job.cwd = jobDir;
    if (timeout !== undefined) job.timeout = timeout;
    return adapter.execute(job);
  };
}
