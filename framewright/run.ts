/** One run of one job: what the manager, the executor and the engine share while it lasts. */
import type { Engine } from './binding.js';
import { FramewrightError, aborted, errorOf, isFatal, messageOf } from './errors.js';
import type { RunHost } from './host.js';
import { Watch, patiently } from './limits.js';
import { ownEnvironment, processSettings } from './local-adapter.js';
import { merge, mergeFailure, removeChunks, type Merging } from './merge.js';
import binding from './native.js';
import { checkInside, checkOutput, verification } from './outputs.js';
import { exitCodeOf, textOf } from './results.js';
import { keepShapeOf } from './shapes.js';
import { onAbort, quietController } from './signals.js';
import { LONGEST_DELAY, clearTimeout, clock, setTimeout, sleep, turn } from './timers.js';
import type { Copies } from './spec.js';
import type { ErrorCode, JobErrorInfo, JobExecutionOptions, JobSpec, JobState, RenderJobChunk, WorkerAdapter, WorkerResult } from './types.js';

// Found once: they are called for every chunk.
const { next: nextChunk, complete: completeChunk } = binding;

/** Answers of the engine to "what next"; a chunk is its position plus 2^32 times its attempt. */
const WAIT = -2;
/** The end of a run, in place of a chunk, is told this much lower. */
const ENDED = -10;
const SHIFT = 4_294_967_296;

/** What the engine says after the last chunk, and after a merge; below 0: the run has ended. */
const MERGE = 1;
const BUSY = 2;
const MERGED = 4;
const HELD = 5;
const MERGE_IN = 10;

/** Outputs that change under our hands are made again so often before the merge has to do with what is there. */
const MOST_REPAIRS = 3;

/** Chunks are fetched from the engine in slices of so many. */
const SLICE = 1024;

/** After so many chunks the loops of a run look whether they have held the event loop for too long. */
const LOOK = 32;
const LONGEST_TURN_MS = 8;

/** States as the engine numbers them; beyond: the job is gone. */
const STATES: readonly JobState[] = ['pending', 'running', 'paused', 'completed', 'failed', 'cancelled'];

/** Options that are given to an executor of ours carry the run under this key; a spread copies it. */
export const RUN = Symbol('framewright.run');

/** Jobs by the signals that their executors are given. */
const jobs = new WeakMap<AbortSignal, string>();

/** The job whose executor was given this signal. */
export function jobOf(signal: AbortSignal | undefined): string | undefined {
  return signal && jobs.get(signal);
}

export function noteJob(run: JobRun): void {
  jobs.set(run.signal, run.id);
}

/** How a chunk is done in JavaScript. Without a signal of its own it has the run's. */
export interface ChunkRunner {
  run(chunk: RenderJobChunk, run: JobRun, attempt: number, signal: AbortSignal | undefined, index: number): Promise<WorkerResult>;
}

/** Whether a chunk has exactly the fields that nearly all chunks have, all of them flat. */
export function isPlainChunk(chunk: unknown): chunk is RenderJobChunk {
  let fields = 0;
  for (const _ in chunk as object) fields += 1;
  const { id, startFrame, frameCount, outputFile, command } = chunk as RenderJobChunk;
  const numbers = typeof id === 'number' && typeof startFrame === 'number' && typeof frameCount === 'number';
  return fields === 5 && numbers && typeof outputFile === 'string' && typeof command === 'string';
}

/** Chunks of a run, one after the other. */
interface Slice {
  from: number;
  chunks: RenderJobChunk[];
  plain: boolean;
}

/** What the loops of a run have in common. */
class LoopContext {
  constructor(
    readonly runner: ChunkRunner,
    readonly options: JobExecutionOptions,
    readonly total: number,
    /** The run that ends with its last chunk; 0: it does not. */
    readonly ends: number,
    /** Absent: made for the one chunk when somebody asks. */
    readonly signal: AbortSignal | undefined,
    /** Whether changes are saved through JavaScript. */
    readonly saves: boolean,
  ) {}
}

// V8 takes a field for one of always the same kind until it has seen another: that of these differs from all that follow.
keepShapeOf(new LoopContext(undefined as never, undefined as never, 0, 0, undefined, false));

const NO_COPIES: Copies = { chunks: [], plain: true };

export class JobRun {
  #controller: AbortController | undefined;
  /** Whether the chunks are run by an executor of ours that answers to the engine itself. */
  bound = false;
  /** Whether somebody called an executor of ours who may have more to do: the run ends with what that call gives. */
  held = false;
  /** What an executor of ours does for the run, and whether it still does. */
  driven: Promise<void> | undefined;
  driving = false;
  /** What is left to clean up once a held run has nothing else to do. */
  #left: JobExecutionOptions | undefined;
  over = false;
  isOver(): boolean {
    return this.over;
  }

  /** Stop once the chunks that run now have ended. */
  graceful = false;
  /** Wakes those that wait for a retry; like others of its kind made when it is needed: there may be many short runs. */
  #leave: Set<() => void> | undefined;
  /** The spec as the executor gets it. */
  spec: JobSpec | undefined;
  /** What the executor was handed, so that only the very same options are taken as this run's. */
  given: JobExecutionOptions | undefined;
  /** What this run brought to the storage. */
  stored: { assetsUrl?: string; jobDefUrl?: string } = {};
  /** What the user's code threw outside of a chunk. */
  cause: unknown;
  /** What was thrown in the latest attempt of each chunk. */
  #causes: Map<number, { attempt: number; cause: unknown }> | undefined;
  /** Whether the job was taken over after a crash: each attempt is counted before it begins. */
  wary = false;
  /** What is known at the start of a run that begins at once: how many chunks there are, plus 2^32 times how many are done, and the first one. */
  begun: { extent: number; first: number } | undefined;
  /** Resolves when the engine's own driver has no process left. */
  ran: (() => void) | undefined;
  /** Whether it has one chunk and no more. */
  lone = false;
  /** Whether the chunks at hand have exactly the fields that chunks usually have. */
  plain: boolean;
  /** The chunks from `#slice.from` on: all of them, or the slice that was asked for last. */
  #slice: Slice;
  /** The slices that were read last; loops that waited are still in one of them while others are in the next. */
  #slices: Slice[] | undefined;
  #mostSlices = 2;
  #completed = 0;
  /** The options, if they have callbacks about chunks. */
  #told: JobExecutionOptions | undefined;
  #timers: Set<NodeJS.Timeout> | undefined;

  constructor(
    readonly host: RunHost,
    readonly id: string,
    readonly ticket: number,
    readonly number: number,
    readonly options: JobExecutionOptions,
    copies: Copies = NO_COPIES,
  ) {
    this.plain = copies.plain;
    this.#slice = { from: 0, chunks: copies.chunks, plain: copies.plain };
  }

  /** The options that the executor passed on, with the user's own callbacks where the manager's came back untouched. */
  direct(options: JobExecutionOptions): JobExecutionOptions {
    const { given, options: own } = this;
    const { onProgress, onChunkComplete, ...direct } = options;
    const progress = onProgress === given?.onProgress ? own.onProgress : onProgress;
    const complete = onChunkComplete === given?.onChunkComplete ? own.onChunkComplete : onChunkComplete;
    if (progress) Object.assign(direct, { onProgress: progress });
    if (complete) Object.assign(direct, { onChunkComplete: complete });
    if (options.signal && options.signal !== given?.signal) this.#follow(options.signal);
    this.given = direct;
    return direct;
  }

  /** A signal of the executor's own stops the run as an executor that rejects with an AbortError does. */
  #follow(signal: AbortSignal): void {
    const stop = (): void => {
      if (this.over) return;
      try {
        this.#engine.cancel(this.id, null, false);
      } catch {
        // The manager closes, and takes no other call.
        const error: JobErrorInfo = { code: 'ABORTED', message: 'The executor aborted the run' };
        this.#engine.timeOut(this.ticket, JSON.stringify(error));
      }
    };
    if (signal.aborted) stop();
    else this.#unfollow = onAbort(signal, stop);
  }

  #unfollow: (() => void) | undefined;

  /** What was thrown where a job failed. */
  causeOf(failure: JobErrorInfo): unknown {
    if (failure.chunkId === undefined) return this.cause;
    const known = this.#causes?.get(failure.chunkId);
    return known?.attempt === failure.attempt ? known?.cause : undefined;
  }

  /** What a function of the user's threw about a chunk that the engine runs. */
  setCause(chunkId: number, attempt: number, cause: unknown): void {
    (this.#causes ??= new Map()).set(chunkId, { attempt, cause });
  }

  get #engine(): Engine {
    return this.host.engine;
  }

  /** Made when it is asked for: most runs end without. */
  get controller(): AbortController {
    return (this.#controller ??= quietController());
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  get aborted(): boolean {
    return this.#controller?.signal.aborted === true;
  }

  /** Aborts what runs. An executor that does not listen is given up after the grace. */
  abort(reason: unknown): void {
    if (this.over || this.aborted) return;
    this.controller.abort(reason);
    this.#wake();
    // Processes of the engine's own are killed for certain; only JavaScript may stay deaf.
    if (!this.ran) {
      this.after(this.host.abortGraceMs, () => {
        this.host.warn(this.id, `The executor did not stop within ${this.host.abortGraceMs} ms and was given up`);
        this.finish(this.#engine.giveUp(this.ticket, this.number));
      });
    }
  }

  /** Takes no further chunk; those that run may end. */
  pause(): void {
    this.graceful = true;
    this.#wake();
  }

  #leaver(wake: () => void): void {
    (this.#leave ??= new Set()).add(wake);
  }

  #wake(): void {
    for (const wake of [...(this.#leave ?? [])]) wake();
  }

  /** Waits for a retry to be due, or until there is nothing to wait for. */
  async #rest(ms: number): Promise<void> {
    if (this.graceful || this.aborted) return;
    const over = new AbortController();
    const wake = (): void => {
      over.abort();
    };
    this.#leaver(wake);
    await sleep(ms, over.signal);
    this.#leave?.delete(wake);
  }

  /** Waits until the store may have caught up, or until there is nothing to wait for. */
  async #catchUp(): Promise<void> {
    if (this.graceful || this.aborted) return;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#leave?.delete(wake);
        resolve();
      };
      this.#leaver(wake);
      this.host.behind(wake);
    });
  }

  /** Waits for what comes before the first chunk, but not once the run is to stop. */
  async before(ready: Promise<unknown>): Promise<void> {
    if (this.graceful || this.aborted) return;
    let wake = (): void => undefined;
    const stopped = new Promise<void>((resolve) => (wake = resolve));
    this.#leaver(wake);
    await Promise.race([ready, stopped]);
    this.#leave?.delete(wake);
  }

  /** A timer that ends with the run. */
  after(ms: number, act: () => void): NodeJS.Timeout {
    const timer = setTimeout(
      () => {
        this.#timers?.delete(timer);
        act();
      },
      Math.min(ms, LONGEST_DELAY),
    );
    (this.#timers ??= new Set()).add(timer);
    return timer;
  }

  stopTimer(timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#timers?.delete(timer);
  }

  /** The run is over, whoever ended it; `code` is how the engine says so. */
  finish(code: number): void {
    if (this.over || code >= 0) return;
    this.over = true;
    this.#end = STATES[-code - 1];
    if (this.#timers) for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = undefined;
    this.#unfollow?.();
    // Asked for by a call of `execute` only.
    const called = this.bound && this.given !== this.options;
    this.#failure = called && this.#end === 'failed' ? this.host.failure(this.id) : undefined;
    this.host.ended(this, this.#end);
  }

  #end: JobState | undefined;
  #failure: JobErrorInfo | undefined;
  #rejection: FramewrightError | undefined;

  /** What `execute` of an executor of ours rejects with, that a subclass may have called: nothing where the job completed. */
  rejection(): FramewrightError | undefined {
    if (!this.over || this.#end === 'completed') return undefined;
    const failure = this.#failure;
    this.#rejection ??= failure ? errorOf(failure, this.causeOf(failure)) : aborted('The job was stopped', this.signal);
    return this.#rejection;
  }

  /** Whether an error is that one. */
  isRejection(error: unknown): boolean {
    return error === this.#rejection;
  }

  /** The chunk at a position; most come one after the other. `plain` is about it until the next one is asked for. */
  chunk(index: number): RenderJobChunk {
    const { from, chunks } = this.#slice;
    if (index < from || index >= from + chunks.length) this.#slice = this.#sliceOf(index);
    return this.#slice.chunks[index - this.#slice.from] as RenderJobChunk;
  }

  #sliceOf(index: number): Slice {
    const from = index - (index % SLICE);
    const slices = (this.#slices ??= []);
    let slice = slices.find((known) => known.from === from);
    if (!slice) {
      const chunks = JSON.parse(this.#engine.runChunks(this.ticket, from, SLICE)) as RenderJobChunk[];
      slice = { from, chunks, plain: !this.#careful && chunks.every(isPlainChunk) };
      slices.push(slice);
      if (slices.length > this.#mostSlices) slices.shift();
    }
    this.plain = slice.plain;
    return slice;
  }

  /** Calls a function of the user's; what it throws is told beside the job. */
  call<A extends unknown[]>(name: string, callback: ((...args: A) => unknown) | undefined, ...args: A): unknown {
    if (!callback) return undefined;
    try {
      const result = callback(...args);
      if (typeof result === 'object' && result !== null && typeof (result as PromiseLike<unknown>).then === 'function') {
        return (result as PromiseLike<unknown>).then(undefined, (error: unknown) => {
          this.host.warn(this.id, `${name} rejected`, error);
        });
      }
      return result;
    } catch (error) {
      this.host.warn(this.id, `${name} threw`, error);
      return undefined;
    }
  }

  /** Runs all chunks and the merge; ends the job. */
  async runChunks(adapter: WorkerAdapter | undefined, runner: ChunkRunner, options: JobExecutionOptions): Promise<void> {
    const engine = this.#engine;
    await this.#doChunks(adapter, runner, options);
    // What is merged is what the chunks have left behind.
    for (let n = 0; n < MOST_REPAIRS && !this.over && (await this.checkOutputs()) > 0; n += 1) await this.#doChunks(adapter, runner, options);
    if (this.over) return;
    const advance = (): number => engine.advance(this.ticket, this.number, this.held);
    let code = advance();
    while (code === MERGE || code >= MERGE_IN) {
      if (code >= MERGE_IN) await this.#rest(code - MERGE_IN);
      code = this.graceful ? advance() : await this.#merge(adapter, options);
    }
    if (code === MERGED) {
      // What comes next may fail, and a run that is resumed then has to find them.
      if (this.held) this.#left = options;
      else await this.#removeChunks(options);
      code = advance();
    }
    if (code === BUSY) {
      // Nobody drives it any more, and chunks are counted as running: a fault of ours must not leave it so for ever.
      const error: JobErrorInfo = { code: 'INTERNAL', message: 'Chunks did not come back' };
      code = engine.rejected(this.ticket, this.number, false, JSON.stringify(error));
    }
    if (code !== HELD) {
      this.finish(code);
      return;
    }
    // The signal was about the chunks; what comes next is the caller's.
    this.#unfollow?.();
    this.#unfollow = undefined;
  }

  /** The caller of an executor of ours has done all. */
  async seal(): Promise<void> {
    if (this.#left && this.#engine.seal(this.ticket, this.number)) await this.#removeChunks(this.#left);
  }

  /** The caller of an executor of ours has given up while that still runs chunks: they are stopped, and the run ends with them. */
  abandon(info: string, isAbort: boolean): void {
    if (this.aborted) return;
    try {
      if (isAbort) this.#engine.cancel(this.id, null, false);
      else this.#engine.timeOut(this.ticket, info);
    } catch {
      // The manager closes, which stops them too.
    }
    this.host.hear();
  }

  /** Has chunks done again whose outputs are gone or were changed; gives how many. */
  async checkOutputs(): Promise<number> {
    return this.#engine.hasOutputs(this.ticket) ? this.#engine.checkOutputs(this.ticket, this.number) : 0;
  }

  /** Runs the chunks that are to be done. */
  async #doChunks(adapter: WorkerAdapter | undefined, runner: ChunkRunner, options: JobExecutionOptions): Promise<void> {
    const engine = this.#engine;
    const { begun } = this;
    this.begun = undefined;
    const extent = begun?.extent ?? engine.extent(this.ticket);
    const total = extent >>> 0;
    const settings = adapter && processSettings(adapter);
    this.lone = total === 1;
    this.#completed = Math.floor(extent / SHIFT);
    if (total <= this.#completed) return;
    if (settings) {
      const { onChunkStdout, onChunkStderr, onChunkComplete, onProgress } = options;
      const tellChunks = Boolean(onChunkComplete ?? onProgress) || this.host.saves();
      const ran = new Promise<void>((resolve) => {
        this.ran = () => {
          this.ran = undefined;
          resolve();
        };
      });
      engine.drive(this.ticket, ownEnvironment(), settings.inherit, settings.killGraceMs, settings.keepOutputBytes, Boolean(onChunkStdout ?? onChunkStderr), tellChunks);
      await ran;
      return;
    }
    const slots = Math.min(options.concurrency ?? 1, total - this.#completed);
    this.#turnedAt = clock();
    this.#careful = this.#isCareful(options);
    if (this.#careful) this.plain = false;
    this.#mostSlices = Math.ceil(slots / SLICE) + 1;
    this.#told = options.onChunkComplete || options.onProgress ? options : undefined;
    const saves = this.host.saves();
    // Where nobody else is told of a chunk, the engine may end the run with the last one.
    const ends = this.held || this.#told || saves ? 0 : this.number;
    const context = new LoopContext(runner, options, total, ends, this.lone ? undefined : this.signal, saves);
    const { number } = this.host;
    const first = this.#loop(context, begun?.first ?? nextChunk(number, this.ticket));
    if (slots === 1) {
      this.#ended(await first);
      return;
    }
    const loops = [first];
    for (let n = 1; n < slots; n += 1) loops.push(this.#loop(context, nextChunk(number, this.ticket)));
    for (const end of await Promise.all(loops)) this.#ended(end);
  }

  /** What a loop has come to. */
  #ended(end: number): void {
    if (end < ENDED) this.finish(end - ENDED);
  }

  /** Whether loops wait between taking a chunk and running it, so that another one may have taken the next slice. */
  #careful = false;

  /** When everything else last had its turn: chunks that wait for nothing would take them all. */
  #turnedAt = Number.NaN;
  /** How many chunks the loops have taken. */
  #taken = 0;
  /** While everything else has its turn, which all loops wait for. */
  #turning: Promise<void> | undefined;

  async #turn(): Promise<void> {
    await turn();
    this.#turnedAt = clock();
    this.#turning = undefined;
  }

  /**
   * Chunk after chunk, until there is none for it; gives what the engine said then. V8 compiles it while the first chunks run:
   * all that is in it takes part in that. What V8 knows nothing of by then has the code thrown away when it is met, and so has
   * a shape in it whose last object goes with the run. So what is rare, the options, and what comes before the first chunk and
   * after the last one stand outside of it.
   */
  async #loop(context: LoopContext, first: number): Promise<number> {
    let next = first;
    for (;;) {
      this.#taken += 1;
      const late = this.#taken % LOOK === 0 && clock() - this.#turnedAt > LONGEST_TURN_MS;
      if (next < 0 || late || this.wary || this.#turning) {
        next = await this.#attend(next, late);
        if (next < 0) return next;
      }
      const index = next >>> 0;
      const attempt = Math.floor(next / SHIFT);
      const chunk = this.chunk(index);
      if (context.saves) this.host.touched(this.id);
      const begun = clock();
      let result: WorkerResult;
      let silent: boolean;
      try {
        result = await (this.#careful ? this.#carefully(context, chunk, index, attempt) : context.runner.run(chunk, this, attempt, context.signal, index));
        silent = (result as WorkerResult | null | undefined)?.exitCode === 0 && !result.stdout && !result.stderr;
      } catch (error) {
        next = this.#failed(index, attempt, chunk, error);
        continue;
      }
      if (silent && !this.over) {
        next = completeChunk(this.host.number, this.ticket, context.ends, index, attempt, durationOf(result, begun));
        if (next < ENDED) return next;
        this.#done(chunk, result, context.total);
      } else {
        next = this.#settle(index, attempt, chunk, result, begun, context.total);
      }
    }
  }

  /** Sees to what comes before a chunk: everything else's turn, a wait, the count of its attempt. Gives the chunk; below 0: the loop ends. */
  async #attend(found: number, late: boolean): Promise<number> {
    const engine = this.#engine;
    let next = found;
    if (late) this.#turning ??= this.#turn();
    for (;;) {
      if (this.#turning) {
        await this.#turning;
        if (this.over || this.#isStopped(next)) return -1;
      }
      if (next !== WAIT) break;
      if (engine.isBehind()) await this.#catchUp();
      else await this.#rest(engine.waitMs(this.ticket));
      next = nextChunk(this.host.number, this.ticket);
    }
    if (next >= 0 && this.wary) {
      await this.#counted();
      if (this.over || this.#isStopped(next)) return -1;
    }
    return next;
  }

  /** Gives a chunk back that was taken and is not to begin any more; gives whether it was. */
  #isStopped(next: number): boolean {
    if (next < 0 || !this.aborted) return false;
    this.#engine.stopped(this.ticket, next >>> 0, Math.floor(next / SHIFT));
    return true;
  }

  /** Runs a chunk within its limits, and looks at its output. */
  async #carefully({ runner, options }: LoopContext, chunk: RenderJobChunk, index: number, attempt: number): Promise<WorkerResult> {
    const watch = this.#watch(chunk, attempt, options);
    const { signal } = watch;
    try {
      await checkInside((chunk as Partial<RenderJobChunk>).outputFile, options);
      if (signal.aborted) throw aborted('The chunk was not begun', signal);
      const work = Promise.resolve(runner.run(chunk, this, attempt, signal, index)).then(async (done) => {
        await checkOutput(chunk, options, done);
        return done;
      });
      // One that does not stop then is given up after the grace.
      const result = await patiently(work, signal, this.host.abortGraceMs);
      if (watch.expired) throw aborted(watch.expired.message, signal);
      return result;
    } catch (error) {
      throw watch.expired ? new Expired(watch.expired, error) : error;
    } finally {
      this.#unwatch(chunk, watch);
    }
  }

  /** What comes of a result with output, of a bad one, and of one that comes too late; gives the next chunk. */
  #settle(index: number, attempt: number, chunk: RenderJobChunk, result: WorkerResult, begun: number, total: number): number {
    const engine = this.#engine;
    const { ticket } = this;
    if (typeof result !== 'object' || (result as unknown) === null || !Number.isInteger(result.exitCode)) {
      return this.#failed(index, attempt, chunk, new TypeError('the adapter gave no result with an exitCode'));
    }
    if (this.over) {
      this.host.warn(this.id, `A late report was refused: chunk ${chunk.id} ended after its run`);
      return -1;
    }
    const [stdout, stderr] = [textOf(result.stdout), textOf(result.stderr)];
    if (result.stdout || result.stderr) engine.keepLog(ticket, index, attempt, stdout, stderr);
    if (result.exitCode !== 0) {
      const signal = typeof result.signal === 'string' ? result.signal : undefined;
      const next = engine.failExit(ticket, index, attempt, chunk.id, exitCodeOf(result.exitCode), signal, stderr);
      this.host.touched(this.id);
      if (next < 0) this.host.hear();
      return next;
    }
    const next = engine.completeWith(ticket, index, attempt, durationOf(result, begun), stdout, stderr);
    this.#done(chunk, result, total);
    return next;
  }

  /** A chunk is completed. */
  #done(chunk: RenderJobChunk, result: WorkerResult, total: number): void {
    this.#completed += 1;
    this.host.touched(this.id);
    if (this.#told) {
      this.call('onChunkComplete', this.#told.onChunkComplete, chunk.id, result);
      this.call('onProgress', this.#told.onProgress, this.#completed, total);
    }
  }

  /** Waits until an attempt is counted, where a chunk may be what killed the owner before. */
  async #counted(): Promise<void> {
    // What can't be written is told when the attempt ends.
    await this.host.committed(this.id).catch(() => undefined);
  }

  /** Gives the next chunk after an attempt that did not end with a result. */
  #failed(index: number, attempt: number, chunk: RenderJobChunk, thrown: unknown): number {
    const engine = this.#engine;
    const { info: expired, error } = thrown instanceof Expired ? thrown : { info: undefined, error: thrown };
    if (this.over) {
      this.host.warn(this.id, `A late report was refused: chunk ${chunk.id} ended after its run`, error);
      return -1;
    }
    if (this.aborted && !expired) {
      engine.stopped(this.ticket, index, attempt);
      return -1;
    }
    // Of a function of the user's that threw, its own error is the cause.
    const cause = error instanceof FramewrightError && error.code === 'OUTPUT_MISSING' ? (error.cause ?? error) : error;
    this.setCause(chunk.id, attempt, cause);
    const known = error instanceof FramewrightError ? error.code : undefined;
    const code: ErrorCode = known && known !== 'ABORTED' ? known : isFatal(error) ? 'SPAWN_FAILED' : 'CHUNK_FAILED';
    const message = messageOf(error);
    const info = expired ?? { code, message: message.startsWith(`Chunk ${chunk.id} failed`) ? message : `Chunk ${chunk.id} failed: ${message}` };
    const next = engine.fail(this.ticket, index, attempt, JSON.stringify(info), expired ? false : isFatal(error));
    this.host.touched(this.id);
    // Where it was the last one, its siblings are to stop before they do anything else.
    if (next < 0) this.host.hear();
    return next;
  }

  /** Whether chunks need more than to be awaited. */
  #isCareful(options: JobExecutionOptions): boolean {
    const { timeouts } = options;
    const limited = timeouts?.chunkMs ?? timeouts?.startMs ?? timeouts?.noProgressMs;
    return limited !== undefined || verification(options) !== 'none' || options.allowOutsidePaths === false;
  }

  /** The latest attempt of each chunk that is watched. */
  #watches: Map<RenderJobChunk, Watch> | undefined;

  /** A sign of life of a chunk. */
  sign(chunk: RenderJobChunk, attempt: number): void {
    const watch = this.#watches?.get(chunk);
    // One that was given up may go on telling of itself.
    if (watch?.attempt === attempt) watch.sign();
  }

  #watch(chunk: RenderJobChunk, attempt: number, options: JobExecutionOptions): Watch {
    const watch = new Watch(chunk.id, attempt, this.signal, options.timeouts);
    (this.#watches ??= new Map()).set(chunk, watch);
    return watch;
  }

  #unwatch(chunk: RenderJobChunk, watch: Watch): void {
    watch.end();
    if (this.#watches?.get(chunk) === watch) this.#watches.delete(chunk);
  }

  /** What the engine's driver tells of a finished chunk. */
  chunkDone(chunkId: number, result: WorkerResult, completed: number, total: number): void {
    const options = this.given ?? this.options;
    this.call('onChunkComplete', options.onChunkComplete, chunkId, result);
    this.call('onProgress', options.onProgress, completed, total);
  }

  /** What the engine's driver tells of a chunk's output. */
  chunkOutput(chunkId: number, isStderr: boolean, text: string): void {
    const options = this.given ?? this.options;
    if (isStderr) this.call('onChunkStderr', options.onChunkStderr, chunkId, text);
    else this.call('onChunkStdout', options.onChunkStdout, chunkId, text);
  }

  /** Merges once; gives what the engine says to it. */
  async #merge(adapter: WorkerAdapter | undefined, options: JobExecutionOptions): Promise<number> {
    const engine = this.#engine;
    const begun = clock();
    const limit = options.timeouts?.mergeMs;
    const controller = quietController();
    const stop = (): void => {
      controller.abort(this.signal.reason);
    };
    if (this.signal.aborted) stop();
    this.signal.addEventListener('abort', stop, { once: true });
    let late: FramewrightError | undefined;
    const timer =
      limit === undefined
        ? undefined
        : this.after(limit, () => {
            late = new FramewrightError('TIMEOUT', `Merge failed: it took longer than ${limit} ms`);
            controller.abort(late);
          });
    let failure = '';
    let fatal = false;
    let result = '';
    try {
      const { signal } = controller;
      const output = signal.aborted ? undefined : await patiently(merge(this.#mergingOf(adapter, options), signal), signal, this.host.abortGraceMs);
      if (output) {
        if (output.whole) this.#merged = output.path;
        result = JSON.stringify({ path: output.path, bytes: output.bytes });
      }
      if (late) throw late;
    } catch (error) {
      const thrown = late ?? error;
      this.cause = thrown;
      failure = mergeFailure(thrown);
      fatal = !late && isFatal(thrown);
    } finally {
      this.signal.removeEventListener('abort', stop);
      if (timer) this.stopTimer(timer);
    }
    if (this.over) return -1;
    const code = engine.merged(this.ticket, this.number, clock() - begun, failure, fatal, result);
    this.host.touched(this.id);
    return code;
  }

  #mergingOf(adapter: WorkerAdapter | undefined, options: JobExecutionOptions): Merging {
    return { id: this.id, engine: this.#engine, owner: this.host.owner(), adapter, options };
  }

  /** The merged output, if it is there and not empty. */
  #merged: string | undefined;

  /** Removes the chunk files, if they are not to be kept. */
  async #removeChunks(options: JobExecutionOptions): Promise<void> {
    if (options.cleanupChunks !== true || this.#merged === undefined) return;
    await removeChunks(this.#mergingOf(undefined, options), this.#merged, (message, error) => {
      this.host.warn(this.id, message, error);
    });
  }

  static {
    const run = new JobRun(undefined as never, '', 0, 0, {});
    // What changes while chunks run has changed: else V8 takes it for constant, and begins again with the loop when it is not.
    run.over = run.lone = run.plain = run.held = run.wary = run.bound = run.#careful = true;
    run.#taken = run.#completed = 1;
    run.#turnedAt = clock();
    run.#turning = Promise.resolve();
    run.#controller = quietController();
    run.#slice = { from: 0, chunks: [], plain: true };
    run.#told = run.given = {};
    keepShapeOf(run);
  }
}

/** How long a chunk took: what its adapter says, if that can be. */
function durationOf({ durationMs }: WorkerResult, begun: number): number {
  return typeof durationMs === 'number' && durationMs >= 0 && durationMs < Infinity ? durationMs : clock() - begun;
}

/** What a chunk threw whose time had run out. */
class Expired {
  constructor(
    readonly info: JobErrorInfo,
    readonly error: unknown,
  ) {}
}

/** The latest run of a manager that somebody watches: it knows what the user's code threw. */
const watched = new WeakMap<object, JobRun | undefined>();

export function watchRuns(manager: object): void {
  watched.set(manager, undefined);
}

export function noteRun(manager: object, run: JobRun): void {
  if (watched.has(manager)) watched.set(manager, run);
}

export function lastRunOf(manager: object): JobRun | undefined {
  return watched.get(manager);
}
