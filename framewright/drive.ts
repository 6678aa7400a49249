/** How the chunks of a run are done: by an adapter or by a function. */
import { Templates, environmentOf, valuesOf } from './command.js';
import binding from './native.js';
import type { ChunkFunction, JobRun } from './run.js';
import { clock } from './timers.js';
import type { JobExecutionOptions, RenderJobChunk, WorkerAdapter, WorkerJob } from './types.js';
import type { RenderFunction, Work } from './work.js';

/** Runs the chunks of a run that a manager has begun, and ends the run. */
export function drive(work: Work | undefined, run: JobRun, options: JobExecutionOptions): Promise<void> {
  if (!work) throw new TypeError('Not a JobExecutor');
  if ('adapter' in work) return run.runChunks(work.adapter, byAdapter(work.adapter, options), options);
  return run.runChunks(undefined, byFunction(work.run), options);
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
  private progress: InstanceType<typeof binding.OutputProgress> | undefined = undefined;

  constructor(
    readonly run: JobRun,
    readonly index: number,
    readonly chunk: RenderJobChunk,
    readonly options: JobExecutionOptions,
  ) {}

  readonly onStdout = (data: string): void => {
    this.heard(data);
    const { onChunkStdout } = this.options;
    if (onChunkStdout) this.run.call('onChunkStdout', onChunkStdout, this.chunk.id, data);
  };

  readonly onStderr = (data: string): void => {
    this.heard(data);
    const { onChunkStderr } = this.options;
    if (onChunkStderr) this.run.call('onChunkStderr', onChunkStderr, this.chunk.id, data);
  };

  private heard(data: string): void {
    const { run, chunk } = this;
    run.sign(chunk);
    if (run.over) return;
    this.progress ??= new binding.OutputProgress(this.options.progressPattern, chunk.startFrame, chunk.frameCount, chunk.frameStep);
    const fraction = this.progress.feed(data);
    if (fraction >= 0) run.host.engine.chunkProgress(run.ticket, this.index, fraction);
    else run.host.engine.alive(run.ticket);
  }
}

/** What an adapter is told of its chunk beside the command. */
function aboutOf(chunk: RenderJobChunk, run: JobRun, attempt: number, meta: Record<string, unknown> | undefined): Record<string, unknown> {
  const { id } = chunk;
  if (run.plain && !meta) {
    // One literal, one shape: a spread and what comes after it cost three times as much.
    const { startFrame, frameCount, outputFile, command } = chunk;
    return { chunkId: id, id, startFrame, frameCount, outputFile, command, jobId: run.id, attempt };
  }
  return { ...meta, chunkId: id, ...chunk, jobId: run.id, attempt };
}

/** A chunk by an adapter: the whole `WorkerJob`, and its output read for signs of life and progress. */
function byAdapter(adapter: WorkerAdapter, options: JobExecutionOptions): ChunkFunction {
  const { jobDir, env, meta, timeouts } = options;
  const timeout = timeouts?.chunkMs;
  const templates = new Templates();
  return (chunk, run, attempt, signal, index) => {
    const values = valuesOf(chunk, run.id, attempt);
    const words = chunk.argv ?? templates.words(chunk.command);
    const listener = new Listener(run, index, chunk, options);
    const job: WorkerJob = {
      command: templates.render(words[0] as string, values),
      args: templates.renderAll(words, 1, values),
      env: environmentOf(values, env),
      meta: aboutOf(chunk, run, attempt, meta),
      signal,
      onStdout: listener.onStdout,
      onStderr: listener.onStderr,
    };
    if (jobDir !== undefined) job.cwd = jobDir;
    if (timeout !== undefined) job.timeout = timeout;
    return adapter.execute(job);
  };
}
