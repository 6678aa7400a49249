/** `framewright run`: one job file, from its first missing chunk to the merged file. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, resolve } from 'node:path';
import {
  FfmpegStitcher, JobExecutor, JobManager, LocalWorkerAdapter, planChunks,
  type JobErrorInfo, type JobEvent, type JobExecutionOptions, type JobSpecInput, type JobStatus, type RenderJobChunk,
} from '../index.js';
import { UsageError, type RunArguments } from './arguments.js';
import { formatBytes, formatDuration, ProgressLine, progressText, ProgressTracker } from './progress.js';
import { RUN_TYPE, beginRun, checkFree, findRun, keepAlone, openRunStore, runIds, type RunStart, type RunStore, type WantedRun } from './store.js';

/** The job file cannot be read: exit status 2. */
export class JobFileError extends Error {
  override name = 'JobFileError';
}

const INTERRUPTED = 130;
/** How many of the last lines of a failed command are shown. */
const TAIL_LINES = 15;
const REDRAW_MS = 200;
/** SIGHUP too: a closed terminal must not leave renderers behind. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** What the command line looks at in a chunk; the rest is the library's to check. */
interface KnownChunk { id: number; frameCount?: number; outputFile?: string }

/** Reads a job file; anything but a JSON object is a JobFileError. */
export function readJobFile(path: string): JobSpecInput & Record<string, unknown> {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new JobFileError(`${path}: ${(error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message}`);
  }
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    throw new JobFileError(`${path}: not JSON: ${(error as Error).message}`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new JobFileError(`${path}: a job file holds one object`);
  const spec = value as JobSpecInput & Record<string, unknown>;
  if (spec.outputFile !== undefined && (typeof spec.outputFile !== 'string' || spec.outputFile === '')) {
    throw new JobFileError(`${path}: outputFile: must be the name of a file`);
  }
  return spec;
}

/** The chunks of a job file, planned if it holds a plan; those that make no sense are left for the library to report. */
export function listChunks(spec: JobSpecInput & Record<string, unknown>): KnownChunk[] {
  const chunks: unknown = spec.chunks;
  if (Array.isArray(chunks)) return chunks.flatMap(known);
  return spec.plan === undefined ? [] : planChunks(spec.plan);
}

function known(chunk: unknown): KnownChunk[] {
  const { id, frameCount, outputFile } = (chunk ?? {}) as Record<string, unknown>;
  if (typeof id !== 'number' || !Number.isSafeInteger(id)) return [];
  return [{
    id,
    ...(typeof frameCount === 'number' ? { frameCount } : {}),
    ...(typeof outputFile === 'string' ? { outputFile } : {}),
  }];
}

/** The job of one chunk of a job. */
function alone(spec: JobSpecInput & Record<string, unknown>, id: number): JobSpecInput {
  const { plan, ...rest } = spec;
  const chunks = (plan === undefined ? spec.chunks : planChunks(plan)) as RenderJobChunk[];
  return { ...rest, chunks: chunks.filter((chunk) => chunk.id === id) };
}

/** Runs a job file; gives the exit status. */
export async function runJob(args: RunArguments): Promise<number> {
  const jobFile = resolve(args.jobFile);
  const spec = readJobFile(jobFile);
  const jobDir = resolve(args.jobDir ?? dirname(jobFile));
  const chunks = listChunks(spec);
  const only = args.chunk;
  if (only !== undefined && !chunks.some((chunk) => chunk.id === only)) throw new UsageError(`run: the job has no chunk ${only}`);

  const wanted: WantedRun = {
    jobFile, ids: runIds(jobFile, args.store), spec, chunks, jobDir, fresh: args.fresh,
    leavesMerge: !args.merge && only === undefined && (spec.outputFile !== undefined || Boolean(spec.mergeCommand)),
  };
  const adapter = new LocalWorkerAdapter();
  const stitches = args.merge && spec.outputFile !== undefined && !spec.mergeCommand;
  const options: JobExecutionOptions = {
    concurrency: args.concurrency ?? availableParallelism(),
    jobDir,
    merge: args.merge,
    retries: args.retries ?? 0,
    allowOutsidePaths: args.allowOutsidePaths,
    mergeAdapter: adapter,
    ...(typeof spec.outputFile === 'string' ? { outputFile: spec.outputFile } : {}),
    ...(stitches ? { stitcher: new FfmpegStitcher(adapter) } : {}),
  };
  const store = await openRunStore(args.store, jobFile);
  try {
    // Jobs of others on the store are theirs.
    const manager = new JobManager(store, new JobExecutor(adapter), { types: [RUN_TYPE], recover: false });
    const run = new Run(args, manager, store, wanted);
    try {
      return await run.perform(spec, options);
    } finally {
      run.end();
      await manager.close();
    }
  } finally {
    await store.close();
  }
}

/** One run of a job, and what is said about it. */
class Run {
  private readonly line = new ProgressLine(process.stdout);
  private tracker: ProgressTracker;
  private readonly startedAt = Date.now();
  private readonly stopWaiting = new AbortController();
  /** What happens from here on is not told. */
  private deaf = false;
  private jobId: string | undefined;
  private interruptedBy: NodeJS.Signals | undefined;
  private pausing: Promise<void> | undefined;
  private redraw: NodeJS.Timeout | undefined;
  private known: { fps?: number; etaMs?: number } = {};
  private start: RunStart | undefined;
  private readonly onSignal = (signal: NodeJS.Signals): void => this.interrupt(signal);
  private readonly onOutputClosed = (): void => {
    if (this.interruptedBy === undefined) this.interrupt('SIGPIPE');
  };

  constructor(
    private readonly args: RunArguments,
    private readonly manager: JobManager,
    private readonly store: RunStore,
    private readonly wanted: WantedRun,
  ) {
    this.tracker = this.track([]);
  }

  private get chunks(): KnownChunk[] {
    return this.wanted.chunks;
  }

  private track(finished: number[]): ProgressTracker {
    const { chunk } = this.args;
    return new ProgressTracker(chunk === undefined ? this.chunks : this.chunks.filter(({ id }) => id === chunk), finished);
  }

  async perform(spec: JobSpecInput & Record<string, unknown>, options: JobExecutionOptions): Promise<number> {
    for (const signal of SIGNALS) process.on(signal, this.onSignal);
    process.stdout.on('error', this.onOutputClosed);
    process.stderr.on('error', () => {});

    const { chunk } = this.args;
    if (chunk === undefined) this.jobId = await this.begin(spec, options);
    else this.jobId = await this.beginAlone(alone(spec, chunk), chunk, options);
    if (this.line.live && !this.args.json) this.redraw = setInterval(() => void this.show(), REDRAW_MS);
    if (this.interruptedBy !== undefined) this.pause(this.jobId);
    let status: JobStatus | undefined;
    try {
      status = await this.manager.waitForJob(this.jobId, { signal: this.stopWaiting.signal });
    } catch (error) {
      if (this.pausing === undefined) throw error;
      await this.pausing;
      status = await this.manager.getJob(this.jobId);
    }
    if (chunk !== undefined) await this.endAlone(this.jobId, status);
    return this.conclude(status);
  }

  /** Makes the job run, from where an earlier run of the file has come to; gives its id. */
  private async begin(spec: JobSpecInput, options: JobExecutionOptions): Promise<string> {
    const start = await findRun(this.store, this.manager, this.wanted);
    this.start = start;
    this.tracker = this.track(start.finished);
    this.hear(start.id);
    await beginRun(this.store, this.manager, this.wanted, start, spec, options);
    return start.id;
  }

  /** Makes a chunk run by itself; gives the id of its job. */
  private async beginAlone(spec: JobSpecInput, chunk: number, options: JobExecutionOptions): Promise<string> {
    const id = `${this.wanted.ids[0]}.chunk-${chunk}`;
    for (const whole of this.wanted.ids) await checkFree(this.store, whole, this.wanted.jobFile);
    if (await this.manager.getJob(id)) {
      await checkFree(this.store, id, this.wanted.jobFile);
      await this.manager.deleteJob(id);
    }
    this.hear(id);
    return this.manager.submitJob(spec, { ...options, id, type: RUN_TYPE });
  }

  /** What became of a chunk by itself is kept with the job. */
  private async endAlone(id: string, status: JobStatus | undefined): Promise<void> {
    if (status?.state === 'completed') {
      const [chunk] = await this.manager.chunks(id);
      if (chunk) await keepAlone(this.store, this.manager, this.wanted, chunk);
    }
    this.deaf = true;
    await this.manager.deleteJob(id);
  }

  /** The events of a job; on a store of several there are others. */
  private hear(id: string): void {
    this.manager.on('event', (event) => {
      if (event.jobId === id && !this.deaf) this.take(event);
    });
  }

  /** Gives back the signals and the terminal. */
  end(): void {
    clearInterval(this.redraw);
    this.line.clear();
    for (const signal of SIGNALS) process.off(signal, this.onSignal);
  }

  private take(event: JobEvent): void {
    this.tracker.update(event);
    if (this.args.json) process.stdout.write(`${JSON.stringify(event)}\n`);
    else this.tell(event);
  }

  private tell(event: JobEvent): void {
    switch (event.type) {
      case 'job.started':
        this.tellStart();
        break;
      case 'chunk.completed':
        if (!this.line.live) {
          this.line.print(`chunk ${event.chunkId} done in ${formatSeconds(event.durationMs)}  ${progressText(this.tracker.view(event.at, this.known))}`);
        }
        break;
      case 'chunk.failed':
        if (event.error.code !== 'ABORTED') {
          const again = event.willRetry ? `; again${event.retryInMs ? ` in ${formatSeconds(event.retryInMs)}` : ''}` : '';
          this.note(`chunk ${event.chunkId} failed (attempt ${event.attempt}${again}): ${describe(event.error)}`);
        }
        break;
      case 'merge.started':
        if (!this.line.live) this.line.print('merging');
        break;
      case 'merge.failed':
        this.note(`merge failed${event.willRetry ? ', again' : ''}: ${describe(event.error)}`);
        break;
      case 'job.warning':
        this.note(`warning: ${event.message}`);
        break;
      default:
    }
    this.line.draw(this.tracker.view(Date.now(), this.known));
  }

  private tellStart(): void {
    const { args, start } = this;
    if (args.chunk !== undefined) {
      this.line.print(`rendering chunk ${args.chunk} of ${this.chunks.length}`);
      return;
    }
    if (start?.found === 'other') this.note(`the job has changed since it was interrupted: rendering every chunk`);
    const finished = start?.finished ?? [];
    if (finished.length > 0) this.line.print(`going on: ${finished.length} of ${this.chunks.length} chunks are there (--fresh renders them again)`);
    else this.line.print(`rendering ${count(this.chunks.length, 'chunk')}`);
  }

  /** Lines on stderr, above the bar. */
  private note(text: string): void {
    this.line.print(`framewright: ${text}`, process.stderr);
  }

  private async show(): Promise<void> {
    if (this.jobId === undefined) return;
    const status = await this.manager.getJob(this.jobId).catch(() => undefined);
    if (status?.state !== 'running') return;
    this.known = {
      ...(status.fps !== undefined ? { fps: status.fps } : {}),
      ...(status.eta !== undefined ? { etaMs: status.eta.highMs } : {}),
    };
    this.line.draw(this.tracker.view(Date.now(), this.known));
  }

  private interrupt(signal: NodeJS.Signals): void {
    // The library kills what it started when the process exits.
    if (this.interruptedBy !== undefined) process.exit(INTERRUPTED);
    this.interruptedBy = signal;
    if (signal !== 'SIGPIPE') this.note(`${signal}: stopping the chunks that run (once more to kill them)`);
    if (this.jobId !== undefined) this.pause(this.jobId);
  }

  private pause(jobId: string): void {
    this.pausing ??= this.manager
      .pauseJob(jobId)
      .catch((error: unknown) => this.note(`the job could not be paused: ${(error as Error).message}`))
      .finally(() => this.stopWaiting.abort());
  }

  private conclude(status: JobStatus | undefined): number {
    clearInterval(this.redraw);
    this.line.clear();
    const completed = status?.state === 'completed';
    if (this.args.json && status !== undefined) {
      const { record, ...shown } = status;
      process.stdout.write(`${JSON.stringify({ type: 'status', status: shown })}\n`);
    }
    if (completed) {
      if (!this.args.json) this.line.print(this.summary(status));
      return 0;
    }
    const done = `${status?.completedChunks ?? 0} of ${count(status?.totalChunks ?? this.chunks.length, 'chunk')}`;
    const goesOn = this.args.store === 'memory:' ? `${done} done, nothing kept; again: ${sameCommand()}` : `${done} kept; go on with: ${sameCommand()}`;
    if (this.interruptedBy !== undefined) {
      this.note(`interrupted, ${goesOn}`);
      return INTERRUPTED;
    }
    this.note(`${status?.state ?? 'failed'}: ${status?.failure ? headline(status.failure) : status?.error ?? 'the job is gone'}`);
    this.note(goesOn);
    return 1;
  }

  private summary(status: JobStatus): string {
    const view = this.tracker.view(Date.now());
    const result = status.result as { path?: unknown; bytes?: unknown } | undefined;
    const file = typeof result?.path === 'string' ? `: ${result.path}${typeof result.bytes === 'number' ? ` (${formatBytes(result.bytes)})` : ''}` : '';
    const frames = view.framesTotal > 0 ? `, ${count(view.framesTotal, 'frame')}` : '';
    return `done${file}  ${count(view.chunksTotal, 'chunk')}${frames} in ${formatSeconds(Date.now() - this.startedAt)}`;
  }
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}

/** "1.2 s" while that says something, then as `formatDuration`. */
function formatSeconds(ms: number): string {
  return ms < 59_950 ? `${(ms / 1000).toFixed(1)} s` : formatDuration(ms);
}

/** The message of a failure, and under it the end of what the command wrote to stderr. */
function describe(error: JobErrorInfo): string {
  const lines = (error.stderrTail ?? '').trimEnd().split(/\r\n|\r|\n/);
  const shown = lines.slice(-TAIL_LINES).filter((line, index) => index > 0 || line !== '');
  return [headline(error), ...shown.map((line) => `    ${line}`)].join('\n');
}

/** The message without the end of stderr, which is shown by itself. */
function headline({ message, stderrTail }: JobErrorInfo): string {
  const tail = (stderrTail ?? '').trim();
  for (let colon = message.indexOf(': '); tail !== '' && colon >= 0; colon = message.indexOf(': ', colon + 1)) {
    if (tail.endsWith(message.slice(colon + 2).trim())) return message.slice(0, colon);
  }
  return message;
}

/** What was typed, to be typed again; not --fresh, which would begin anew, and no password. */
function sameCommand(): string {
  const words = process.argv.slice(2).filter((word) => word !== '--fresh').map((word) => word.replace(/(:\/\/[^/@:]*):[^/@]*@/, '$1:***@'));
  return ['framewright', ...words].map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}
