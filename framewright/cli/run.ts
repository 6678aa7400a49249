/** `framewright run`: one job file, from its first missing chunk to the merged file. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, extname, resolve } from 'node:path';
import {
  FfmpegStitcher, InMemoryJobRepository, JobExecutor, JobManager, LocalWorkerAdapter, planChunks,
  type JobErrorInfo, type JobEvent, type JobSpecInput, type JobStatus, type SubmitOptions,
} from '../index.js';
import { UsageError, type RunArguments } from './arguments.js';
import { formatBytes, formatDuration, ProgressLine, progressText, ProgressTracker } from './progress.js';
import { fingerprint, recordPath, ResumeRecord } from './record.js';

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
const RECORD_ID = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;

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

/** The id that {jobId} stands for: the job's own, else the file's name, so that it is the same when the job goes on. */
function recordId(spec: JobSpecInput, jobFile: string): string | undefined {
  return [spec.id, basename(jobFile, extname(jobFile))].find((id): id is string => typeof id === 'string' && RECORD_ID.test(id));
}

/** Runs a job file; gives the exit status. */
export async function runJob(args: RunArguments): Promise<number> {
  const jobFile = resolve(args.jobFile);
  const spec = readJobFile(jobFile);
  const jobDir = resolve(args.jobDir ?? dirname(jobFile));
  const chunks = listChunks(spec);
  const only = args.chunk;
  if (only !== undefined && !chunks.some((chunk) => chunk.id === only)) throw new UsageError(`run: the job has no chunk ${only}`);

  const record = ResumeRecord.open({ path: recordPath(jobFile), fingerprint: fingerprint(spec, jobDir), chunks, jobDir, fresh: args.fresh });
  const completedChunkIds = only === undefined ? record.finished : chunks.filter((chunk) => chunk.id !== only).map((chunk) => chunk.id);
  const id = recordId(spec, jobFile);
  const adapter = new LocalWorkerAdapter();
  const stitches = args.merge && spec.outputFile !== undefined && !spec.mergeCommand;
  const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(adapter));
  const run = new Run(args, manager, record, chunks, !args.merge && (spec.outputFile !== undefined || Boolean(spec.mergeCommand)));
  try {
    return await run.perform(spec, {
      ...(id !== undefined ? { id } : {}),
      concurrency: args.concurrency ?? availableParallelism(),
      jobDir,
      merge: args.merge,
      retries: args.retries ?? 0,
      allowOutsidePaths: args.allowOutsidePaths,
      mergeAdapter: adapter,
      completedChunkIds,
      ...(typeof spec.outputFile === 'string' ? { outputFile: spec.outputFile } : {}),
      ...(stitches ? { stitcher: new FfmpegStitcher(adapter) } : {}),
    });
  } finally {
    run.end();
    await manager.close();
  }
}

/** One run of a job, and what is said about it. */
class Run {
  private readonly line = new ProgressLine(process.stdout);
  private readonly tracker: ProgressTracker;
  private readonly startedAt = Date.now();
  private readonly stopWaiting = new AbortController();
  private jobId: string | undefined;
  private interruptedBy: NodeJS.Signals | undefined;
  private pausing: Promise<void> | undefined;
  private redraw: NodeJS.Timeout | undefined;
  private known: { fps?: number; etaMs?: number } = {};
  private recordFails = false;
  private readonly onSignal = (signal: NodeJS.Signals): void => this.interrupt(signal);
  private readonly onOutputClosed = (): void => {
    if (this.interruptedBy === undefined) this.interrupt('SIGPIPE');
  };

  constructor(
    private readonly args: RunArguments,
    private readonly manager: JobManager,
    private readonly record: ResumeRecord,
    private readonly chunks: KnownChunk[],
    /** The job has a merge, and it is left out. */
    private readonly leavesMerge: boolean,
  ) {
    const shown = args.chunk === undefined ? chunks : chunks.filter((chunk) => chunk.id === args.chunk);
    this.tracker = new ProgressTracker(shown, args.chunk === undefined ? record.finished : []);
  }

  async perform(spec: JobSpecInput, options: SubmitOptions): Promise<number> {
    for (const signal of SIGNALS) process.on(signal, this.onSignal);
    process.stdout.on('error', this.onOutputClosed);
    process.stderr.on('error', () => {});
    this.manager.on('event', (event) => this.take(event));

    this.jobId = await this.manager.submitJob(spec, options);
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
    return this.conclude(status);
  }

  /** Gives back the signals and the terminal. */
  end(): void {
    clearInterval(this.redraw);
    this.line.clear();
    for (const signal of SIGNALS) process.off(signal, this.onSignal);
  }

  private take(event: JobEvent): void {
    this.tracker.update(event);
    if (event.type === 'job.started') this.keep(() => this.record.begin());
    if (event.type === 'chunk.completed') this.keep(() => this.record.add(event.chunkId));
    if (this.args.json) process.stdout.write(`${JSON.stringify(event)}\n`);
    else this.tell(event);
  }

  /** Rendering goes on without a record if it cannot be written. */
  private keep(write: () => void): void {
    if (this.recordFails) return;
    try {
      write();
    } catch (error) {
      this.recordFails = true;
      this.note(`${this.record.path} cannot be written, an interrupted run will begin anew: ${(error as Error).message}`);
    }
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
    const { args, record } = this;
    if (args.chunk !== undefined) {
      this.line.print(`rendering chunk ${args.chunk} of ${this.chunks.length}`);
      return;
    }
    if (record.found === 'other') this.note(`the job has changed since it was interrupted: rendering every chunk`);
    const { finished } = record;
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
    if (completed && this.args.chunk === undefined && !this.leavesMerge) this.keep(() => this.record.remove());
    if (this.args.json && status !== undefined) {
      const { record, ...shown } = status;
      process.stdout.write(`${JSON.stringify({ type: 'status', status: shown })}\n`);
    }
    if (completed) {
      if (!this.args.json) this.line.print(this.summary(status));
      return 0;
    }
    const goesOn = `${this.record.size} of ${count(this.chunks.length, 'chunk')} kept; go on with: ${sameCommand()}`;
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

/** What was typed, to be typed again; not --fresh, which would begin anew. */
function sameCommand(): string {
  const words = process.argv.slice(2).filter((word) => word !== '--fresh');
  return ['framewright', ...words].map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(' ');
}
