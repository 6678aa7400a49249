/** The life of jobs as users see it. The rules are the engine's; here are promises, callbacks, signals and objects. */
import { setMaxListeners } from 'node:events';
import { randomUUID } from 'node:crypto';
import type { Engine } from './binding.js';
import { amount, checkFlag, checkId, checkMethod, checkObject, checkSignal, integer, isTexts, shown } from './arguments.js';
import { cleanUp, isStorage, upload } from './artifacts.js';
import { drive } from './drive.js';
import { FramewrightError, aborted, infoOf, invalid, isAbort, messageOf, native } from './errors.js';
import { EventPump } from './events.js';
import { isOwn, listAll, storeOf, toJson } from './memory-repository.js';
import binding from './native.js';
import { checkOptions, defined, publicFields, writtenOptions } from './options.js';
import { Reports } from './reports.js';
import { Roster } from './roster.js';
import { JobRun, noteRun, type RunHost } from './run.js';
import { Saver } from './saver.js';
import { specFor, take } from './spec.js';
import { readStatus } from './status.js';
import { ConcatStitcher, FfmpegStitcher } from './stitchers.js';
import { KeepAlive, LONGEST_DELAY, clearTimeout, clock, setImmediate, setTimeout, sleep, turn } from './timers.js';
import type {
  ArtifactStorage, ChunkStatus, ErrorCode, EventFilter, EventOf, Executor, JobErrorInfo, JobEvent, JobEventType, JobExecutionOptions, JobManagerOptions,
  JobQuery, JobRepository, JobSpec, JobSpecInput, JobState, JobStatus, LogRecord, RenderJobChunk, SubmitOptions, WorkerResult,
} from './types.js';
import { workOf } from './work.js';

/** Jobs started before others get a turn. */
const STARTS = 16;
/** Chunks of a listing at once. */
const SLICE = 1000;
/** How often a job that somebody else works on is looked at. */
const POLL_MS = 100;

const STATES: readonly string[] = ['pending', 'running', 'paused', 'completed', 'failed', 'cancelled'];
const CHUNK_STATES: readonly string[] = ['pending', 'running', 'completed', 'failed'];
const TERMINAL: readonly (string | undefined)[] = ['completed', 'failed', 'cancelled'];

/** What the engine tells. */
type Notice =
  | { kind: 'stop'; ticket: number; graceful: boolean }
  | { kind: 'changed'; id: string }
  | { kind: 'output'; ticket: number; chunkId: number; stderr: boolean; text: string }
  | ({ kind: 'chunk'; ticket: number; chunkId: number; completed: number; total: number } & WorkerResult)
  | { kind: 'verify'; ticket: number; question: number; index: number; attempt: number; file: string }
  | { kind: 'ran'; ticket: number };

interface Waiting {
  id: string;
  options: JobExecutionOptions;
  /** Copies of many chunks. */
  chunks?: RenderJobChunk[];
}

/** A status of a user's store, with the defaults of what it left out. */
function complete(status: JobStatus): JobStatus {
  const { chunks } = ((status as Partial<JobStatus>).spec ?? {}) as Partial<JobSpec>;
  return {
    ...({ state: 'pending', progress: 0, totalChunks: chunks?.length ?? 0, completedChunks: 0, version: 0, attempt: 0, priority: 'medium' } as const),
    ...status,
    tags: (status as Partial<JobStatus>).tags ?? [],
    dependencies: (status as Partial<JobStatus>).dependencies ?? [],
  };
}

function unavailable(error: unknown): unknown {
  if (error instanceof FramewrightError) return error;
  return new FramewrightError('STORE_UNAVAILABLE', messageOf(error), { cause: error });
}

/**
 * Takes jobs, runs them by an executor, keeps them in a repository.
 *
 * A running job, a pending `waitForJob` and an `events()` loop that is being read keep the process alive; an idle manager
 * or a listener does not.
 */
export class JobManager {
  readonly #engine: Engine;
  readonly #repository: JobRepository;
  readonly #executor: Executor | undefined;
  readonly #storage: ArtifactStorage | undefined;
  readonly #logger: ((record: LogRecord) => void) | undefined;
  readonly #saver: Saver;
  /** The repository is the truth and lives behind JavaScript; the engine has only a cache. */
  readonly #outside: boolean;
  readonly #alive = new KeepAlive(this);
  readonly #events: EventPump;
  readonly #host: RunHost;
  readonly #waiting = new Roster<Waiting>();
  readonly #runs = new Roster<JobRun>();
  /** Callbacks and objects of jobs that may go on. */
  readonly #kept = new Map<string, JobExecutionOptions>();
  readonly #signals = new Map<string, () => void>();
  readonly #waiters = new Map<string, Set<() => void>>();
  readonly #closing = new AbortController();
  #scheduled = false;
  #closed: Promise<void> | undefined;

  /**
   * @param repository where jobs are kept: {@link InMemoryJobRepository}, or any object with save, get, list and delete.
   * @param executor runs whole jobs: a {@link JobExecutor}, or any object with `execute`.
   * @param options options, or an artifact storage.
   */
  constructor(repository: JobRepository, executor?: Executor, options: ArtifactStorage | JobManagerOptions = {}) {
    for (const method of ['save', 'get', 'list', 'delete']) checkMethod(repository, 'repository', method);
    if (executor !== undefined) checkMethod(executor, 'executor', 'execute');
    checkObject(options);
    const own: JobManagerOptions = isStorage(options) ? { storage: options } : options;
    if (own.storage !== undefined && !isStorage(own.storage)) throw invalid('storage', 'must be an artifact storage', 'options');
    if (own.logger !== undefined && typeof own.logger !== 'function') throw invalid('logger', 'must be a function', 'options');
    const most = integer(own.maxConcurrentJobs, 'maxConcurrentJobs', Infinity, 1);
    const abortGraceMs = amount(own.abortGraceMs, 'abortGraceMs', 5000);

    setMaxListeners(0, this.#closing.signal);
    this.#repository = repository;
    this.#executor = executor;
    this.#storage = own.storage;
    this.#logger = own.logger;
    const store = storeOf(repository);
    this.#outside = store === undefined;
    this.#engine = new binding.Engine(store ?? null, Math.min(most, 0xffff_ffff), JobManager.#wake(new WeakRef(this)));
    this.#events = new EventPump(
      this.#engine,
      this.#alive,
      (event, error) => {
      const message = `A listener of ${event.type} threw: ${messageOf(error)}`;
      this.#log('error', message, { jobId: event.jobId });
      // A listener of warnings that throws would be warned of its own warnings for ever.
        if (event.type !== 'job.warning') this.#warn(event.jobId, `A listener of ${event.type} threw`, error);
      },
      (error) => this.#log('error', `Events were lost: ${messageOf(error)}`, {}),
    );
    this.#saver = new Saver(
      this.#engine,
      repository,
      this.#outside,
      (id, message, error) => this.#warn(id, message, error, 'STORE_UNAVAILABLE'),
    );
    this.#host = {
      engine: this.#engine,
      abortGraceMs,
      warn: (id, message, error, code) => this.#warn(id, message, error, code),
      touched: (id) => {
        if (this.#saves) this.#saver.request(id);
      },
      ended: (run, state) => this.#ended(run, state),
      saves: () => this.#saves,
      tell: () => {
        if (this.#events.active || this.#waiters.size > 0) this.#drain();
      },
    };
  }

  /**
   * What the engine calls when there is news. It must not keep a forgotten manager, so it is made in a scope of its own:
   * closures of one scope share what they hold.
   */
  static #wake(weak: WeakRef<JobManager>): () => void {
    return () => {
      const self = weak.deref();
      if (self) self.#drain();
    };
  }

  /** Whether changes are saved through JavaScript: the store is there, or its `save` is not its own any more. */
  get #saves(): boolean {
    return this.#outside || !isOwn.save(this.#repository);
  }

  #log(level: LogRecord['level'], message: string, fields: Record<string, unknown>): void {
    try {
      this.#logger?.({ level, target: 'framewright', message, fields });
    } catch {
      // A logger that throws has nowhere to be told of.
    }
  }

  #warn(id: string, message: string, error?: unknown, code: ErrorCode = 'INTERNAL'): void {
    const text = error === undefined ? message : `${message}: ${messageOf(error)}`;
    this.#engine.warn(id, text, error === undefined ? null : JSON.stringify(infoOf(error, code)));
    this.#log('warn', text, { jobId: id });
  }

  // ── Submitting ──

  /**
   * Takes a job. Resolves with its id once the record is kept; rejects and runs nothing if it could not be.
   *
   * @throws FramewrightError VALIDATION with every problem in `issues`; DUPLICATE; CLOSED; STORE_UNAVAILABLE.
   */
  async submitJob(spec: JobSpecInput, options: SubmitOptions = {}): Promise<string> {
    checkOptions(options);
    if (options.signal?.aborted) throw aborted('The job was not submitted: its signal is aborted', options.signal);
    const id = options.id ?? randomUUID();
    const hold = this.#saves;
    if (this.#outside && options.id !== undefined) {
      if (await this.#fetch(id)) throw new FramewrightError('DUPLICATE', `There is a job "${id}" already`);
      this.#engine.release(id);
    }
    const written = writtenOptions(options);
    const { id: _, ...execution } = options;
    const ticket = await take(this.#engine, this.#executor, id, spec, written, publicFields(options), hold, (taken, chunks) => {
      this.#waiting.set(taken, { id, options: execution, ...(chunks ? { chunks } : {}) });
    });
    if (hold) {
      try {
        await this.#saver.once(id);
      } catch (error) {
        this.#waiting.delete(ticket);
        this.#engine.discard(ticket);
        throw unavailable(error);
      }
      this.#engine.admit(ticket);
    }
    if (options.signal) this.#follow(id, options.signal);
    this.#schedule();
    if (this.#events.active) this.#drain();
    return id;
  }

  /** An aborted signal of the user's cancels the job. */
  #follow(id: string, signal: AbortSignal): void {
    const cancel = (): void => {
      this.cancelJob(id).catch((error: unknown) => this.#warn(id, 'The job could not be cancelled by its signal', error));
    };
    this.#unfollow(id);
    if (signal.aborted) {
      // Aborted while the job was being taken: nobody heard it.
      cancel();
      return;
    }
    signal.addEventListener('abort', cancel, { once: true });
    this.#signals.set(id, () => signal.removeEventListener('abort', cancel));
  }

  #unfollow(id: string): void {
    this.#signals.get(id)?.();
    this.#signals.delete(id);
  }

  // ── Running ──

  #schedule(): void {
    if (this.#scheduled || !this.#executor) return;
    this.#scheduled = true;
    // In a turn of its own: who cancels right after the submit finds nothing started.
    this.#alive.enter();
    setImmediate(() => {
      this.#scheduled = false;
      this.#alive.leave();
      this.#start();
    });
  }

  /** Starts the jobs that may run now. */
  #start(): void {
    if (!this.#executor) return;
    const ready = this.#engine.ready(STARTS);
    for (let n = 0; n < ready.length; n += 2) {
      const ticket = ready[n] as number;
      const waiting = this.#waiting.get(ticket);
      this.#waiting.delete(ticket);
      if (!waiting) {
        // Nobody is there to drive it: it must not run for ever, nor its slot be lost.
        const error: JobErrorInfo = { code: 'INTERNAL', message: 'The job was started without its options' };
        this.#engine.rejected(ticket, ready[n + 1] as number, false, JSON.stringify(error));
        continue;
      }
      const run = new JobRun(this.#host, waiting.id, ticket, ready[n + 1] as number, waiting.options, waiting.chunks);
      this.#runs.set(ticket, run);
      this.#alive.enter();
      void this.#run(run);
    }
    if (this.#engine.hasReady()) this.#schedule();
    if (this.#events.active) this.#drain();
  }

  async #run(run: JobRun): Promise<void> {
    const executor = this.#executor as Executor;
    try {
      if (this.#saves) await this.#saver.flush(run.id).catch(() => undefined);
      const { jobMs } = run.options.timeouts ?? {};
      if (jobMs !== undefined) {
        run.after(jobMs, () => {
          this.#engine.timeOut(run.ticket, JSON.stringify({ code: 'TIMEOUT', message: `The job took longer than ${jobMs} ms` } satisfies JobErrorInfo));
          this.#drain();
        });
      }
      const work = workOf(executor);
      if (work?.execute === (executor as { execute: unknown }).execute && !this.#storage) {
        // An executor of ours whose `execute` nobody has replaced: its chunks are run without the call.
        run.bound = true;
        run.given = run.options;
        await drive(work, run, run.options);
        return;
      }
      const ours = work !== undefined;
      const spec = await specFor(this.#engine, run.id, ours);
      const uploaded = await this.#stored(run, spec);
      if (run.isOver()) return;
      if (run.aborted) throw aborted('The job was stopped', run.signal);
      run.spec = spec;
      run.given = new Reports(run).given(uploaded, ours);
      const value: unknown = await executor.execute(spec, run.given);
      if (run.bound) return;
      if (run.isOver()) {
        this.#warn(run.id, 'A late report was refused: the executor resolved after its run');
        return;
      }
      run.finish(this.#engine.resolved(run.ticket, run.number, jsonOf(value)));
    } catch (error) {
      if (run.over) {
        if (!isAbort(error)) this.#warn(run.id, 'A late report was refused: the executor rejected after its run', error);
        return;
      }
      run.cause = error;
      const info = infoOf(error, 'CHUNK_FAILED');
      if (error instanceof FramewrightError && error.details) Object.assign(info, error.details);
      run.finish(this.#engine.rejected(run.ticket, run.number, isAbort(error), JSON.stringify(info)));
    }
  }

  /** What executors are told of the job's place in the storage. */
  async #stored(run: JobRun, spec: JobSpec): Promise<Record<string, unknown> | undefined> {
    const { jobDir } = run.options;
    if (!this.#storage || jobDir === undefined) return undefined;
    const known = (await this.getJob(run.id))?.meta?.['jobDefUrl'] as unknown;
    if (typeof known === 'string') return { jobDefUrl: known };
    const jobDefUrl = await upload(this.#storage, run, jobDir, spec, (message) => {
      this.#log('warn', message, { jobId: run.id });
    });
    if (jobDefUrl === undefined) return undefined;
    this.#engine.setStored(run.id, spec.assetsUrl ?? null, JSON.stringify({ jobDefUrl }));
    this.#host.touched(run.id);
    return { jobDefUrl };
  }

  #ended(run: JobRun, state: JobState | undefined): void {
    this.#runs.delete(run.ticket);
    this.#alive.leave();
    noteRun(this, run);
    if (state === 'paused' || state === 'failed') this.#keep(run.id, run.options);
    else if (this.#kept.size > 0) this.#kept.delete(run.id);
    if (state !== 'paused' && this.#signals.size > 0) this.#unfollow(run.id);
    if (this.#saves) {
      if (state !== undefined) void this.#flushed(run.id);
    } else if (this.#waiters.size > 0 || this.#events.active) this.#drain();
    if (this.#waiting.size > 0 && this.#engine.hasReady()) this.#schedule();
  }

  /** Keeps the callbacks and objects of a job that may go on. */
  #keep(id: string, options: JobExecutionOptions): void {
    const kept = live(options);
    if (Object.keys(kept).length > 0) this.#kept.set(id, kept);
    else this.#kept.delete(id);
  }

  /** Saves a job that nobody works on any more; only then its end is told. */
  async #flushed(id: string): Promise<void> {
    try {
      await this.#saver.flush(id);
    } catch {
      // Told by a warning; the saver goes on trying.
    }
    this.#drain();
    this.#check(id);
    this.#rest(id);
  }

  /** Drops a job from the engine's cache when nobody works on it or waits for it: the store has it. */
  #rest(id: string): void {
    if (!this.#outside || this.#waiters.has(id) || this.#isActive(id) || this.#saver.isBusy(id)) return;
    this.#engine.release(id);
    this.#saver.saw(id, undefined);
  }

  #isActive(id: string): boolean {
    return this.#runs.of(id) !== undefined || this.#waiting.of(id) !== undefined;
  }

  // ── News from the engine ──

  #drain(): void {
    const json = this.#engine.takeNotices();
    if (json !== null) for (const notice of JSON.parse(json) as Notice[]) this.#hear(notice);
    this.#events.pump();
  }

  #hear(notice: Notice): void {
    switch (notice.kind) {
      case 'stop': {
        const run = this.#runs.get(notice.ticket);
        if (!run) return;
        if (notice.graceful) run.pause();
        else run.abort(aborted('The job is being stopped'));
        return;
      }
      case 'changed':
        this.#check(notice.id);
        return;
      case 'output':
        this.#runs.get(notice.ticket)?.chunkOutput(notice.chunkId, notice.stderr, notice.text);
        return;
      case 'chunk': {
        const run = this.#runs.get(notice.ticket);
        if (!run) return;
        const { exitCode, stdout, stderr, durationMs } = notice;
        run.chunkDone(notice.chunkId, { exitCode, stdout, stderr, durationMs }, notice.completed, notice.total);
        this.#host.touched(run.id);
        return;
      }
      case 'verify':
        void this.#verify(notice);
        return;
      case 'ran':
        this.#runs.get(notice.ticket)?.ran?.();
        return;
    }
  }

  async #verify(notice: Extract<Notice, { kind: 'verify' }>): Promise<void> {
    const run = this.#runs.get(notice.ticket);
    const verify = run?.options.verifyOutput;
    try {
      const good = run && typeof verify === 'function' ? await verify(notice.file, structuredClone(run.chunk(notice.index))) : false;
      this.#engine.answer(notice.question, Boolean(good as unknown), null);
    } catch (error) {
      const chunk = run?.chunk(notice.index);
      if (run && chunk) run.setCause(chunk.id, notice.attempt, error);
      this.#engine.answer(notice.question, false, messageOf(error));
    }
  }

  #check(id: string): void {
    const waiters = this.#waiters.get(id);
    if (waiters) for (const waiter of [...waiters]) waiter();
  }

  /** Resolves once a test of the job's state holds; `undefined`: the job is gone. */
  #until(id: string, test: (state: string | undefined) => boolean): { done: Promise<void>; stop: () => void } {
    let waiter: () => void = () => undefined;
    const waiters = this.#waiters.get(id) ?? new Set();
    this.#waiters.set(id, waiters);
    const stop = (): void => {
      waiters.delete(waiter);
      if (waiters.size === 0 && this.#waiters.get(id) === waiters) this.#waiters.delete(id);
    };
    const done = new Promise<void>((resolve) => {
      waiter = () => {
        if (test(this.#engine.state(id) ?? undefined)) {
          stop();
          resolve();
        }
      };
    });
    waiters.add(waiter);
    this.#engine.watch(id);
    waiter();
    return { done, stop };
  }

  // ── Reading ──

  /** What the store behind JavaScript has. */
  async #fetch(id: string): Promise<JobStatus | undefined> {
    try {
      return (await this.#repository.get(id)) ?? undefined;
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** The job as it stands, a copy; undefined when there is none. */
  async getJob(id: string): Promise<JobStatus | undefined> {
    checkId(id);
    if (!this.#outside && isOwn.get(this.#repository)) {
      const json = this.#engine.status(id);
      return json === null ? undefined : readStatus(json, () => this.#engine.long(id));
    }
    const status = await this.#fetch(id);
    return status && complete(status);
  }

  /** All jobs, or those of a query, in order of arrival. */
  async listJobs(query: JobQuery = {}): Promise<JobStatus[]> {
    checkObject(query, 'query');
    const { state = [] } = query;
    if (typeof state !== 'string' && !isTexts(state)) throw invalid('state', 'must be a job state or an array of them', 'query');
    const states = (typeof state === 'string' ? [state] : state) as JobState[];
    for (const state of states) {
      if (!STATES.includes(state)) throw invalid('state', `must be a job state, got ${shown(state)}`, 'query');
    }
    const limit = integer(query.limit, 'limit', Infinity);
    const { cursor } = query;
    if (cursor !== undefined && typeof cursor !== 'string') throw invalid('cursor', 'must be the id of a job', 'query');
    if (limit === 0) return [];
    if (!this.#outside && isOwn.list(this.#repository)) {
      const from = cursor === undefined ? 0 : this.#engine.sequenceOf(cursor) + 1;
      if (cursor !== undefined && from === 0) throw invalid('cursor', `there is no job ${JSON.stringify(cursor)}`, 'query');
      return listAll(this.#engine, states, from, limit);
    }
    let jobs: JobStatus[];
    try {
      jobs = (await this.#repository.list()).map(complete);
    } catch (error) {
      throw unavailable(error);
    }
    if (cursor !== undefined) {
      const at = jobs.findIndex((job) => job.id === cursor);
      if (at < 0) throw invalid('cursor', `there is no job ${JSON.stringify(cursor)}`, 'query');
      jobs = jobs.slice(at + 1);
    }
    if (states.length > 0) jobs = jobs.filter((job) => states.includes(job.state));
    return limit === Infinity ? jobs : jobs.slice(0, limit);
  }

  /**
   * The chunks of a job, in the order of its spec.
   *
   * @throws FramewrightError NOT_FOUND.
   */
  async chunks(id: string, options: { state?: ChunkStatus['state']; offset?: number; limit?: number } = {}): Promise<ChunkStatus[]> {
    checkId(id);
    checkObject(options);
    const offset = integer(options.offset, 'offset', 0);
    const limit = integer(options.limit, 'limit', Infinity);
    if (options.state !== undefined && !CHUNK_STATES.includes(options.state)) throw invalid('state', 'must be a state of chunks', 'options');
    await this.#bring(id);
    const found: ChunkStatus[] = [];
    for (let from = offset; found.length < limit; from += SLICE) {
      const most = Math.min(SLICE, limit - found.length);
      const slice = JSON.parse(native(() => this.#engine.chunks(id, options.state ?? null, from, most))) as ChunkStatus[];
      found.push(...slice);
      if (slice.length < most) break;
      await turn();
    }
    return found;
  }

  /**
   * Resolves at a terminal state.
   *
   * @throws FramewrightError TIMEOUT, ABORTED (an AbortError), or NOT_FOUND (unknown, or deleted meanwhile).
   */
  async waitForJob(id: string, options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<JobStatus> {
    checkId(id);
    checkObject(options);
    const { timeoutMs, signal } = options;
    amount(timeoutMs, 'timeoutMs', 0);
    checkSignal(signal);
    if (signal?.aborted) throw aborted(`Waiting for job "${id}" was aborted`, signal);
    const missing = (): FramewrightError => new FramewrightError('NOT_FOUND', `There is no job "${id}"`);
    this.#alive.enter();
    let timer: NodeJS.Timeout | undefined;
    let abort: (() => void) | undefined;
    let closed: (() => void) | undefined;
    const over = new AbortController();
    try {
      const ended = new Promise<never>((_, reject) => {
        if (timeoutMs !== undefined && timeoutMs <= LONGEST_DELAY) {
          timer = setTimeout(() => reject(new FramewrightError('TIMEOUT', `Job "${id}" did not end within ${timeoutMs} ms`)), timeoutMs);
        }
        abort = () => reject(aborted(`Waiting for job "${id}" was aborted`, signal));
        signal?.addEventListener('abort', abort, { once: true });
        closed = () => {
          // Ended, or left to the store: its status is being read, and says how it stands.
          const state = this.#engine.state(id);
          if (state === null || TERMINAL.includes(state)) return;
          reject(new FramewrightError('CLOSED', `The manager was closed before job "${id}" ended`));
        };
        this.#closing.signal.addEventListener('abort', closed, { once: true });
      });
      ended.catch(() => undefined);
      const wait = this.#ending(id, over.signal, missing);
      wait.catch(() => undefined);
      return await Promise.race([wait, ended]);
    } finally {
      over.abort();
      clearTimeout(timer);
      if (abort) signal?.removeEventListener('abort', abort);
      if (closed) this.#closing.signal.removeEventListener('abort', closed);
      this.#alive.leave();
    }
  }

  async #ending(id: string, over: AbortSignal, missing: () => FramewrightError): Promise<JobStatus> {
    for (;;) {
      const status = await this.getJob(id);
      if (!status) throw missing();
      if (TERMINAL.includes(status.state)) return status;
      if (TERMINAL.includes(this.#engine.state(id) ?? undefined)) {
        // The engine is ahead of a store that answers late.
        await sleep(10, over);
        if (over.aborted) throw missing();
        await this.#saver.settle(id);
        continue;
      }
      if (this.#closing.signal.aborted) throw new FramewrightError('CLOSED', `The manager is closed and job "${id}" has not ended`);
      if (this.#engine.state(id) === null) {
        // Somebody else's job in a store that tells nothing: looked at again and again.
        await sleep(POLL_MS, over);
      } else {
        const until = this.#until(id, (state) => state === undefined || TERMINAL.includes(state));
        const stop = (): void => until.stop();
        over.addEventListener('abort', stop, { once: true });
        await until.done;
        over.removeEventListener('abort', stop);
        if (this.#saves && this.#engine.state(id) !== null) await this.#saver.flush(id).catch(() => undefined);
        if (this.#outside && this.#engine.state(id) === null && !(await this.getJob(id))) throw missing();
      }
      if (over.aborted) throw missing();
    }
  }

  // ── Control ──

  /** Lets the engine know a job of a store behind JavaScript, as that store has it. */
  async #bring(id: string): Promise<void> {
    if (!this.#outside) return;
    if (this.#isActive(id)) return;
    await this.#saver.settle(id);
    const status = await this.#fetch(id);
    // Resumed by another call meanwhile: what was read is old.
    if (this.#isActive(id)) return;
    this.#saver.saw(id, status);
    if (status) native(() => this.#engine.adopt(toJson(complete(status), 'job status')));
    else this.#engine.release(id);
  }

  /** Waits for what a control call came to, and for the record of it. */
  async #controlled(id: string, code: number, running: (state: string | undefined) => boolean): Promise<void> {
    this.#drain();
    if (code === 1) {
      this.#alive.enter();
      try {
        // The request is on its way: that is saved and told before it is done.
        if (this.#saves) this.#saver.request(id);
        await this.#until(id, (state) => !running(state)).done;
      } finally {
        this.#alive.leave();
      }
    }
    if (code >= 2) return;
    if (this.#waiting.of(id) && this.#engine.state(id) !== 'pending') this.#waiting.deleteOf(id);
    if (this.#saves && this.#engine.state(id) !== null) await this.#saver.flush(id);
    this.#drain();
  }

  /** Cancels a job. Resolves once nothing of it runs any more. */
  async cancelJob(id: string, options: { strict?: boolean; reason?: string } = {}): Promise<void> {
    checkId(id);
    checkObject(options);
    checkFlag(options.strict, 'strict');
    if (options.reason !== undefined && typeof options.reason !== 'string') throw invalid('reason', 'must be a string', 'options');
    await this.#bring(id);
    const code = native(() => this.#engine.cancel(id, options.reason ?? null, options.strict === true));
    await this.#controlled(id, code, (state) => state === 'running');
    if (code === 0) {
      this.#unfollow(id);
      this.#kept.delete(id);
    }
    this.#again();
  }

  /**
   * Pauses a job. 'immediate' (default) stops the running chunks; 'graceful' lets them end. The job ends `paused`, always.
   * An executor of the user's is stopped gracefully at the next chunk that it reports.
   */
  async pauseJob(id: string, options: { mode?: 'immediate' | 'graceful'; strict?: boolean } = {}): Promise<void> {
    checkId(id);
    checkObject(options);
    checkFlag(options.strict, 'strict');
    const { mode } = options;
    if (mode !== undefined && (mode as unknown) !== 'immediate' && (mode as unknown) !== 'graceful') {
      throw invalid('mode', "must be 'immediate' or 'graceful'", 'options');
    }
    await this.#bring(id);
    const waiting = this.#waiting.of(id);
    const code = native(() => this.#engine.pause(id, mode === 'graceful', options.strict === true));
    if (code === 0 && waiting) this.#keep(id, waiting.options);
    await this.#controlled(id, code, (state) => state === 'running');
    this.#again();
  }

  /**
   * Goes on from the completed chunks with the options that the job was submitted with; those given here win. Of a failed
   * job: what failed and what is missing, attempts counted anew.
   */
  async resumeJob(id: string, options: JobExecutionOptions & { strict?: boolean } = {}): Promise<void> {
    checkId(id);
    checkOptions(options);
    const { strict, ...changes } = options;
    checkFlag(strict, 'strict');
    if (changes.signal?.aborted) throw aborted('The job was not resumed: its signal is aborted', changes.signal);
    await this.#bring(id);
    const written = writtenOptions(changes);
    const ticket = native(() => this.#engine.resume(id, written, strict === true));
    if (ticket < 0) return;
    const kept = JSON.parse(this.#engine.options(id)) as JobExecutionOptions & { stitcher?: unknown };
    const { stitcher: kind, verifyOutput: verify, ...plain } = kept;
    const base: JobExecutionOptions = plain;
    if ((kind as unknown) === 'ffmpeg') base.stitcher = new FfmpegStitcher();
    if ((kind as unknown) === 'concat') base.stitcher = new ConcatStitcher();
    if (verify !== undefined && (verify as unknown) !== 'function') base.verifyOutput = verify;
    this.#waiting.set(ticket, { id, options: { ...base, ...live(this.#kept.get(id)), ...defined(changes) } });
    if (changes.signal) this.#follow(id, changes.signal);
    this.#start();
    if (this.#saves) await this.#saver.flush(id);
    this.#drain();
  }

  /** Stops a job and removes its record, which never re-appears. */
  async deleteJob(id: string, options: { strict?: boolean } = {}): Promise<void> {
    checkId(id);
    checkObject(options);
    checkFlag(options.strict, 'strict');
    await this.#bring(id);
    // Read in the turn of the removal: an upload may end any time.
    const status = this.#storage ? this.#engine.status(id) : null;
    const before = status === null ? undefined : readStatus(status, () => this.#engine.long(id));
    const run = this.#runs.of(id);
    const code = native(() => this.#engine.remove(id, options.strict === true));
    this.#drain();
    if (code === 2) return;
    if (code === 1) {
      this.#alive.enter();
      try {
        await this.#until(id, (state) => state === undefined).done;
      } finally {
        this.#alive.leave();
      }
    }
    this.#waiting.deleteOf(id);
    this.#unfollow(id);
    this.#kept.delete(id);
    if (before && this.#storage) {
      const stored = { assetsUrl: before.spec.assetsUrl, jobDefUrl: before.meta?.['jobDefUrl'] as unknown, ...run?.stored };
      await cleanUp(this.#storage, id, stored, (message) => {
        this.#log('warn', message, { jobId: id });
      });
    }
    if (this.#outside || !isOwn.delete(this.#repository)) {
      await this.#saver.settle(id);
      try {
        await this.#repository.delete(id);
      } catch (error) {
        throw unavailable(error);
      }
      if (this.#outside) {
        this.#saver.saw(id, undefined);
        this.#engine.deleted(id);
      }
    }
    this.#drain();
    this.#again();
  }

  /** A slot may have become free. */
  #again(): void {
    if (this.#engine.hasReady()) this.#schedule();
  }

  // ── Events ──

  /** Hears events of a type, or all with 'event'. What a listener throws is told as `job.warning`. */
  on<T extends JobEventType | 'event'>(type: T, listener: (event: EventOf<T>) => void): this {
    this.#events.add(type, listener, false);
    return this;
  }

  /** Hears the next event of a type. */
  once<T extends JobEventType | 'event'>(type: T, listener: (event: EventOf<T>) => void): this {
    this.#events.add(type, listener, true);
    return this;
  }

  /** Ends `on` and `once`. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- any listener
  off(type: JobEventType | 'event', listener: (...args: any[]) => void): this {
    this.#events.remove(type, listener);
    return this;
  }

  /**
   * Every event from `fromSequence` on (0: all that are kept), or from now, in order, none twice, none lost. In memory the
   * last 100,000 are kept: an older `fromSequence` is a VALIDATION error.
   */
  events(filter: EventFilter = {}): AsyncIterableIterator<JobEvent> {
    checkObject(filter, 'event filter');
    return this.#events.iterate(filter);
  }

  // ── Closing ──

  /**
   * Stops taking jobs, gives running ones `finishMs`, then stops them and leaves them `pending` for the next owner, their
   * attempt not counted against `retries`; lets the process exit. Reads go on working, every other call rejects with
   * CLOSED; the repository stays open. Defaults 0 and 5000.
   */
  async close(options: { finishMs?: number; abortMs?: number } = {}): Promise<void> {
    checkObject(options);
    const finishMs = amount(options.finishMs, 'finishMs', 0);
    const abortMs = amount(options.abortMs, 'abortMs', 5000);
    this.#engine.close();
    this.#waiting.clear();
    this.#closed ??= this.#stop(finishMs, abortMs);
    await this.#closed;
  }

  async #stop(finishMs: number, abortMs: number): Promise<void> {
    const gone = async (ms: number): Promise<void> => {
      const until = clock() + ms;
      while (this.#runs.size > 0 && clock() < until) await sleep(Math.min(10, ms));
    };
    await gone(finishMs);
    if (this.#runs.size > 0) {
      this.#engine.shutDown();
      this.#drain();
      await gone(abortMs);
    }
    for (const run of this.#runs.values()) run.finish(this.#engine.giveUp(run.ticket, run.number));
    for (const id of [...this.#signals.keys()]) this.#unfollow(id);
    this.#saver.end();
    // The last states are in the store before anybody is told that all is over; a store that is away can't hold it up for ever.
    const over = new AbortController();
    await Promise.race([this.#saver.settleAll(), sleep(Math.max(abortMs, 100), over.signal)]);
    over.abort();
    this.#drain();
    this.#closing.abort();
    this.#events.close();
  }

  /** Closes with the defaults. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The callbacks and objects of earlier options. */
function live(options: JobExecutionOptions | undefined): JobExecutionOptions {
  if (!options) return {};
  const { onProgress, onChunkComplete, onChunkStdout, onChunkStderr, mergeAdapter, stitcher, verifyOutput } = options;
  const kept = { onProgress, onChunkComplete, onChunkStdout, onChunkStderr, mergeAdapter, stitcher };
  return { ...(defined(kept) as JobExecutionOptions), ...(typeof verifyOutput === 'function' ? { verifyOutput } : {}) };
}

function jsonOf(value: unknown): string {
  if (value === undefined) return '';
  try {
    const json = JSON.stringify(value) as string | undefined;
    return json ?? '';
  } catch {
    return '';
  }
}
