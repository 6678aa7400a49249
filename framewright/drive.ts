/** How the chunks of a run are done: by an adapter or by a function. */
import { environmentOf, templates, valuesOf } from './command.js';
import binding from './native.js';
import type { ChunkRunner, JobRun } from './run.js';
import { keepShapeOf } from './shapes.js';
import { clock } from './timers.js';
import type { JobExecutionOptions, RenderJobChunk, WorkerAdapter, WorkerJob, WorkerResult } from './types.js';
import type { RenderFunction, Work } from './work.js';

/** Runs the chunks of a run that a manager has begun, and ends the run. */
export function drive(work: Work | undefined, run: JobRun, options: JobExecutionOptions): Promise<void> {
  if (!work) throw new TypeError('Not a JobExecutor');
  if ('adapter' in work) return run.runChunks(work.adapter, new ByAdapter(work.adapter, options), options);
  return run.runChunks(undefined, new ByFunction(work.run), options);
}

/** Chunks by a function of the user's. */
class ByFunction implements ChunkRunner {
  constructor(readonly render: RenderFunction) {}

  async run(chunk: RenderJobChunk, run: JobRun, attempt: number, signal: AbortSignal | undefined, index: number): Promise<WorkerResult> {
    const begun = clock();
    // Called as a function: it is no method of ours.
    const { render } = this;
    const given = await render(structuredClone(chunk), {
      signal: signal ?? run.signal,
      jobId: run.id,
      attempt,
      reportProgress: (fraction) => {
        run.sign(chunk, attempt);
        if (!run.over && typeof fraction === 'number' && fraction >= 0) run.host.engine.chunkProgress(run.ticket, index, Math.min(fraction, 1));
      },
    });
    return { exitCode: 0, stdout: '', stderr: '', durationMs: clock() - begun, ...(given ?? {}) };
  }
}

/** What an adapter's output of one chunk tells: signs of life, and how far it is. */
class Listener {
  #progress: InstanceType<typeof binding.OutputProgress> | undefined;

  constructor(
    readonly run: JobRun,
    readonly index: number,
    readonly chunk: RenderJobChunk,
    readonly attempt: number,
    readonly options: JobExecutionOptions,
  ) {}

  heard(data: string): void {
    const { run, chunk } = this;
    run.sign(chunk, this.attempt);
    this.#progress ??= new binding.OutputProgress(this.options.progressPattern, chunk.startFrame, chunk.frameCount, chunk.frameStep);
    const fraction = this.#progress.feed(data);
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

/**
 * A job whose signal is made when somebody looks at it: where there may be many small jobs, making it is dearer than all the
 * rest. It can be read, spread and replaced like any other field.
 */
function withSignalOf(
  run: JobRun,
  command: string,
  args: string[],
  env: Record<string, string>,
  meta: Record<string, unknown>,
  onStdout: (data: string) => void,
  onStderr: (data: string) => void,
): WorkerJob {
  return {
    command,
    args,
    env,
    meta,
    get signal(): AbortSignal {
      return run.signal;
    },
    set signal(value: AbortSignal) {
      Object.defineProperty(this, 'signal', { value, writable: true, enumerable: true, configurable: true });
    },
    onStdout,
    onStderr,
  };
}

/** Chunks by an adapter: the whole `WorkerJob`, and its output read for signs of life and progress. */
class ByAdapter implements ChunkRunner {
  readonly #jobDir: string | undefined;
  readonly #env: Record<string, string> | undefined;
  readonly #meta: Record<string, unknown> | undefined;
  readonly #timeout: number | undefined;

  constructor(
    readonly adapter: WorkerAdapter,
    readonly options: JobExecutionOptions,
  ) {
    this.#jobDir = options.jobDir;
    this.#env = options.env;
    this.#meta = options.meta;
    this.#timeout = options.timeouts?.chunkMs;
  }

  run(chunk: RenderJobChunk, run: JobRun, attempt: number, signal: AbortSignal | undefined, index: number): Promise<WorkerResult> {
    const { options } = this;
    const values = valuesOf(chunk, run.id, attempt);
    const args = templates.render(chunk, values);
    const command = templates.program;
    if (command === undefined) throw new TypeError('the chunk has no command');
    const environment = environmentOf(values, this.#env, run.host.owner());
    const about = aboutOf(chunk, run, attempt, this.#meta);
    // Made when there is something to hear.
    let listener: Listener | undefined;
    // Adapters written in JavaScript may hand over what their stream gives.
    const onStdout = (data: unknown): void => {
      if (run.over) return;
      const said = String(data);
      (listener ??= new Listener(run, index, chunk, attempt, options)).heard(said);
      if (options.onChunkStdout) run.call('onChunkStdout', options.onChunkStdout, chunk.id, said);
    };
    const onStderr = (data: unknown): void => {
      if (run.over) return;
      const said = String(data);
      (listener ??= new Listener(run, index, chunk, attempt, options)).heard(said);
      if (options.onChunkStderr) run.call('onChunkStderr', options.onChunkStderr, chunk.id, said);
    };
    const job: WorkerJob =
      run.lone && !signal
        ? withSignalOf(run, command, args, environment, about, onStdout, onStderr)
        : { command, args, env: environment, meta: about, signal: signal ?? run.signal, onStdout, onStderr };
    if (this.#jobDir !== undefined) job.cwd = this.#jobDir;
    if (this.#timeout !== undefined) job.timeout = this.#timeout;
    return this.adapter.execute(job);
  }
}

keepShapeOf(new ByFunction(undefined as never));
keepShapeOf(new ByAdapter(undefined as never, {}));
