/** The life of jobs as users see it. The rules are the engine's; here are promises, callbacks, signals and objects. */
import { setMaxListeners } from 'node:events';
import { randomUUID } from 'node:crypto';
import type { DurableStore, Engine } from './binding.js';
import { amount, checkFlag, checkId, checkMethod, checkObject, checkSignal, integer, isTexts, shown } from './arguments.js';
import { cleanUp, isStorage, upload } from './artifacts.js';
import { Commits } from './commits.js';
import { drive } from './drive.js';
import { durableOf, listStored, onDamage, overridden, statusOf } from './durable-repository.js';
import { POLL_MS, untilEnded, type EndingHost } from './ending.js';
import { type EngineError, FramewrightError, aborted, detailedInfoOf, infoOf, invalid, isAbort, messageOf, native, settled } from './errors.js';
import { EventPump } from './events.js';
import { RunHost } from './host.js';
import { isOwn, listAll, storeOf, toJson } from './memory-repository.js';
import binding from './native.js';
import { checkOptions, copied, defined, publicFields, writtenOptions } from './options.js';
import { processSettings } from './local-adapter.js';
import { Patience } from './patience.js';
import { filtered, noCursor, readChunkQuery, readChunks, readQuery } from './queries.js';
import { Reports } from './reports.js';
import { Roster } from './roster.js';
import { JobRun, noteRun } from './run.js';
import { Saver } from './saver.js';
import { Followed, onAbort } from './signals.js';
import { specFor, take, type Copies } from './spec.js';
import { readStatus } from './status.js';
import { ConcatStitcher, FfmpegStitcher } from './stitchers.js';
import { KeepAlive, LONGEST_DELAY, clock, setImmediate, sleep } from './timers.js';
import type {
  ArtifactStorage, ChunkStatus, ErrorCode, EventFilter, EventOf, Executor, JobErrorInfo, JobEvent, JobEventType, JobExecutionOptions, JobManagerOptions,
  JobQuery, JobRepository, JobSpec, JobSpecInput, JobState, JobStatus, LogRecord, SubmitOptions, WorkerResult,
} from './types.js';
import { Watchers } from './watchers.js';
import { workOf, type Work } from './work.js';

/** Jobs started before others get a turn. */
const STARTS = 16;
/** Runs that are let go on at once when the store has caught up. */
const WAKES = 256;
/** No process that was killed needs so long to go, unless the kernel does not let it. */
const KILLED_MS = 5000;
/** How often a worker looks for jobs in memory. */
const WORK_MS = 20;

/** Copies of small specs are kept for no more waiting jobs: those of more are read back. */
const MOST_COPIED = 20_000;
/** Of those who give none. */
const NO_OPTIONS: SubmitOptions = Object.freeze({});

/** What the engine tells. */
type Notice =
  | { kind: 'stop'; ticket: number; graceful: boolean }
  | { kind: 'changed'; id: string }
  | { kind: 'output'; ticket: number; chunkId: number; stderr: boolean; text: string }
  | ({ kind: 'chunk'; ticket: number; chunkId: number; completed: number; total: number } & WorkerResult)
  | { kind: 'begun'; ticket: number }
  | { kind: 'recovered'; ticket: number; id: string; needs: string | null }
  | { kind: 'dropped'; ticket: number; kept: boolean }
  | { kind: 'lost'; id: string }
  | { kind: 'committed'; token: number; error?: EngineError }
  | { kind: 'verify'; ticket: number; question: number; index: number; attempt: number; file: string }
  | { kind: 'ran'; ticket: number };

interface Waiting {
  id: string;
  options: JobExecutionOptions;
  copies?: Copies;
  /** Taken over from an owner that is gone. */
  wary?: boolean;
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

/** Whether a job of a store that tells nothing of owners was interrupted. */
function isInterrupted(status: JobStatus): boolean {
  return status.state === 'running' || status.state === 'pending';
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
  /** Names the engine where a call is made for every job or chunk. */
  readonly #number: number;
  readonly #commits: Commits;
  readonly #repository: JobRepository;
  readonly #executor: Executor | undefined;
  readonly #storage: ArtifactStorage | undefined;
  readonly #logger: ((record: LogRecord) => void) | undefined;
  readonly #saver: Saver;
  readonly #patience: Patience;
  /** The repository is the truth and lives behind JavaScript; the engine has only a cache. */
  readonly #outside: boolean;
  /** The repository is the truth, and a durable one of ours. */
  readonly #durable: DurableStore | undefined;
  readonly #types: readonly string[];
  readonly #alive = new KeepAlive(this);
  readonly #events: EventPump;
  readonly #host: RunHost;
  readonly #waiting = new Roster<Waiting>();
  readonly #runs = new Roster<JobRun>();
  /** Callbacks and objects of jobs that may go on. */
  readonly #kept = new Map<string, JobExecutionOptions>();
  readonly #signals = new Followed((id) => {
    this.cancelJob(id).catch((error: unknown) => this.#warn(id, 'The job could not be cancelled by its signal', error));
  });
  readonly #watchers: Watchers;
  readonly #endings: EndingHost;
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
    this.#patience = new Patience(amount(own.storeTimeoutMs, 'storeTimeoutMs', 30_000));

    setMaxListeners(0, this.#closing.signal);
    this.#repository = repository;
    this.#executor = executor;
    this.#storage = own.storage;
    this.#logger = own.logger;
    const leaseMs = amount(own.leaseMs, 'leaseMs', 10_000, 100);
    checkFlag(own.recover, 'recover');
    const { types = [] } = own;
    if (!isTexts(types)) throw invalid('types', 'must be an array of strings', 'options');
    this.#types = [...new Set(types)];
    const store = storeOf(repository);
    const replaced = durableOf(repository) ? overridden(repository) : [];
    const durable = replaced.length > 0 ? undefined : durableOf(repository);
    this.#durable = durable;
    this.#outside = store === undefined && durable === undefined;
    const running = Math.min(most, 0xffff_ffff);
    const wake = JobManager.#wake(new WeakRef(this));
    this.#engine = durable
      ? binding.Engine.over(durable, running, leaseMs, own.recover ?? true, this.#types as string[], executor !== undefined, wake)
      : new binding.Engine(store ?? null, running, this.#types as string[], executor !== undefined, wake);
    this.#number = this.#engine.number;
    this.#commits = new Commits(this.#number, this.#alive);
    if (durable) onDamage(repository, JobManager.#damage(new WeakRef(this)));
    if (replaced.length > 0) setImmediate(JobManager.#replaced(new WeakRef(this), replaced)).unref();
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
      durable !== undefined,
      this.#patience,
      (id, message, error) => this.#warn(id, message, error, 'STORE_UNAVAILABLE'),
      (id) => this.#deletedElsewhere(id),
    );
    this.#watchers = new Watchers(this.#engine, this.#closing.signal);
    this.#endings = {
      engine: this.#engine,
      watchers: this.#watchers,
      saver: this.#saver,
      isDurable: durable !== undefined,
      isOutside: this.#outside,
      saves: () => this.#saver.isNeeded,
      closing: this.#closing.signal,
      get: (id) => this.getJob(id),
      isActive: (id) => this.#isActive(id) || this.#saver.isBusy(id),
      drain: () => this.#drain(),
    };
    this.#host = new RunHost({
      engine: this.#engine,
      number: this.#number,
      abortGraceMs,
      isDurable: durable !== undefined,
      saver: this.#saver,
      commits: this.#commits,
      events: this.#events,
      watchers: this.#watchers,
      warn: (id, message, error, code) => this.#warn(id, message, error, code),
      ended: (run, state) => this.#ended(run, state),
      drain: () => this.#drain(),
      behind: (wake) => this.#behind.add(wake),
    });
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

  /** Warns of records that a listing leaves out; must not keep a forgotten manager either. */
  static #damage(weak: WeakRef<JobManager>): (message: string) => void {
    return (message) => {
      const self = weak.deref();
      if (self) self.#warn('', message, undefined, 'STORE_CORRUPT');
    };
  }

  /** Warns, once listeners are in place, of methods that a user has put in place of ours. */
  static #replaced(weak: WeakRef<JobManager>, names: string[]): () => void {
    return () => {
      const what = `The repository has its own ${names.join(', ')}: this manager keeps jobs by calls of its methods, as in any repository of the user's, without leases and recovery`;
      const self = weak.deref();
      if (self) self.#warn('', what);
    };
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
  async submitJob(spec: JobSpecInput, options: SubmitOptions = NO_OPTIONS): Promise<string> {
    checkOptions(options);
    if (options.signal?.aborted) throw aborted('The job was not submitted: its signal is aborted', options.signal);
    const id = options.id ?? randomUUID();
    const hold = this.#saver.isNeeded || this.#durable !== undefined;
    if (this.#outside && options.id !== undefined) {
      if (await this.#fetch(id)) throw new FramewrightError('DUPLICATE', `There is a job "${id}" already`);
      this.#engine.release(id);
    }
    const written = options === NO_OPTIONS ? '' : writtenOptions(options);
    const execution = options === NO_OPTIONS ? NO_OPTIONS : ofRun(options);
    const runs = this.#runsType(options.type);
    const keepFew = runs && !hold && this.#waiting.size < MOST_COPIED && this.#direct !== undefined;
    const given = take(this.#engine, this.#number, this.#executor, id, spec, written, publicFields(options), hold, keepFew, (taken, copies) => {
      this.#waiting.set(taken, copies ? { id, options: execution, copies } : { id, options: execution });
    });
    // Each wait costs a small job more than the engine does.
    const ticket = typeof given === 'number' ? given : await given;
    if (hold) {
      try {
        await (this.#durable ? this.#commits.of(id) : this.#patience.with(this.#saver.first(id)));
      } catch (error) {
        this.#waiting.delete(ticket);
        this.#engine.discard(ticket);
        throw unavailable(error);
      }
      this.#engine.admit(ticket);
    }
    if (!runs) {
      this.#waiting.delete(ticket);
      this.#rest(id);
    }
    if (options.signal) this.#signals.follow(id, options.signal);
    this.#schedule();
    if (this.#events.active) this.#drain();
    return id;
  }

  /** Whether jobs of that type run here. */
  #runsType(type: string | undefined): boolean {
    return this.#executor !== undefined && (type === undefined || this.#types.includes(type));
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

  /** What runs chunks without a call of the executor's `execute`: of one of ours, where nobody has replaced that. */
  get #direct(): Work | undefined {
    const executor = this.#executor as { execute: unknown } | undefined;
    const work = executor && workOf(executor);
    return work?.execute === executor?.execute && !this.#storage ? work : undefined;
  }

  /** Starts the jobs that may run now. */
  #start(): void {
    if (!this.#executor) return;
    const direct = this.#direct;
    // Where a loop in JavaScript begins at once, the first chunks come with the jobs.
    const atOnce = direct !== undefined && !('adapter' in direct && processSettings(direct.adapter)) && !this.#saver.isNeeded && !this.#durable;
    const ready = binding.ready(this.#number, STARTS, atOnce);
    for (let n = 0; n < ready.length; n += 4) {
      const ticket = ready[n] as number;
      const number = ready[n + 1] as number;
      const extent = ready[n + 2] as number;
      const waiting = this.#waiting.get(ticket);
      this.#waiting.delete(ticket);
      if (!waiting) {
        // Nobody is there to drive it: it must not run for ever, nor its slot be lost.
        const error: JobErrorInfo = { code: 'INTERNAL', message: 'The job was started without its options' };
        this.#engine.rejected(ticket, number, false, JSON.stringify(error));
        continue;
      }
      // Copies are those of the job as it was submitted.
      const copies = extent < 0 ? undefined : waiting.copies;
      const run = new JobRun(this.#host, waiting.id, ticket, number, waiting.options, copies);
      if (atOnce && extent >= 0) run.begun = { extent, first: ready[n + 3] as number };
      run.wary = waiting.wary === true;
      this.#runs.set(ticket, run);
      this.#alive.enter();
      void this.#run(run, direct);
    }
    if (binding.hasReady(this.#number)) this.#schedule();
    if (this.#events.active) this.#drain();
  }

  /** `direct`: what runs its chunks without the executor's `execute`. */
  async #run(run: JobRun, direct: Work | undefined): Promise<void> {
    const executor = this.#executor as Executor;
    try {
      const { jobMs } = run.options.timeouts ?? {};
      if (jobMs !== undefined) {
        run.after(jobMs, () => {
          this.#engine.timeOut(run.ticket, JSON.stringify({ code: 'TIMEOUT', message: `The job took longer than ${jobMs} ms` } satisfies JobErrorInfo));
          this.#drain();
        });
      }
      if (this.#saver.isNeeded) await run.before(this.#saver.flush(run.id).catch(() => undefined));
      // A job that goes on: what it has finished must still be there.
      if (!run.begun && this.#engine.hasOutputs(run.ticket)) await run.before(run.checkOutputs().then(() => undefined));
      if (direct) {
        run.bound = true;
        run.given = run.options;
        await drive(direct, run, run.options);
        return;
      }
      const ours = workOf(executor) !== undefined;
      const spec = await specFor(this.#engine, run.id, ours);
      const uploaded = await this.#stored(run, spec);
      if (run.isOver()) return;
      if (run.aborted) throw aborted('The job was stopped', run.signal);
      run.spec = spec;
      run.given = new Reports(run).given(uploaded, ours);
      run.held = true;
      const value: unknown = await executor.execute(spec, run.given);
      // It may have called one of ours and not waited for it.
      await run.driven;
      if (run.isOver()) {
        if (!run.bound) this.#warn(run.id, 'A late report was refused: the executor resolved after its run');
        return;
      }
      await run.seal();
      run.finish(this.#engine.resolved(run.ticket, run.number, jsonOf(value)));
    } catch (error) {
      if (run.over) {
        if (!isAbort(error) && !run.isRejection(error)) this.#warn(run.id, 'A late report was refused: the executor rejected after its run', error);
        return;
      }
      run.cause = error;
      const info = JSON.stringify(detailedInfoOf(error, 'CHUNK_FAILED'));
      if (run.driving) run.abandon(info, isAbort(error));
      else run.finish(this.#engine.rejected(run.ticket, run.number, isAbort(error), info));
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
    // A running job keeps the process alive until its end is written down.
    if (this.#durable) {
      const written = (): void => this.#written(run.id);
      void this.#commits.of(run.id).then(written, written);
    } else this.#alive.leave();
    noteRun(this, run);
    if (state === 'paused' || state === 'failed') this.#keep(run.id, run.options);
    else if (this.#kept.size > 0) this.#kept.delete(run.id);
    if (state !== 'paused') this.#signals.leave(run.id);
    if (this.#saver.isNeeded) {
      if (state !== undefined) void this.#flushed(run.id);
    } else if (!this.#watchers.isIdle || this.#events.active) this.#drain();
    if (this.#waiting.size > 0 && !this.#scheduled) this.#again();
  }

  /** The end of a run is in the durable store. */
  #written(id: string): void {
    this.#alive.leave();
    this.#drain();
    this.#watchers.tell(id);
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
    this.#watchers.tell(id);
    this.#rest(id);
  }

  /** Drops a job from the engine's cache when nobody works on it or waits for it: the store has it. */
  #rest(id: string): void {
    if (!this.#outside || this.#watchers.has(id) || this.#isActive(id) || this.#saver.isBusy(id)) return;
    this.#engine.release(id);
    this.#saver.saw(id, undefined);
  }

  #isActive(id: string): boolean {
    return this.#runs.of(id) !== undefined || this.#waiting.of(id) !== undefined;
  }

  // ── News from the engine ──

  #news: Notice[] = [];
  #hearing = false;

  #drain(): void {
    const json = binding.takeNotices(this.#number);
    if (json !== null) this.#news = this.#news.concat(JSON.parse(json) as Notice[]);
    // What is heard may lead back here: each in its turn.
    if (!this.#hearing && this.#news.length > 0) {
      this.#hearing = true;
      try {
        for (let notice = this.#news.shift(); notice; notice = this.#news.shift()) this.#hear(notice);
      } finally {
        this.#hearing = false;
      }
    }
    this.#events.pump();
    if (this.#behind.size > 0) this.#goOn();
  }

  /** Runs that wait for the store to catch up, in the order that they came. */
  readonly #behind = new Set<() => void>();
  #goesOn = false;

  /** Lets runs go on as long as the store keeps up: some now, the others when those have had their turn. */
  #goOn(): void {
    if (this.#goesOn || this.#engine.isBehind()) return;
    let left = WAKES;
    for (const wake of this.#behind) {
      if (left === 0) break;
      left -= 1;
      this.#behind.delete(wake);
      wake();
    }
    if (this.#behind.size === 0) return;
    this.#goesOn = true;
    setImmediate(() => {
      this.#goesOn = false;
      this.#goOn();
    });
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
        this.#watchers.tell(notice.id);
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
      case 'begun': {
        const run = this.#runs.get(notice.ticket);
        if (run) this.#host.touched(run.id);
        return;
      }
      case 'verify':
        void this.#verify(notice);
        return;
      case 'recovered':
        this.#recovered(notice.ticket, notice.id, notice.needs);
        return;
      case 'dropped': {
        const waiting = this.#waiting.get(notice.ticket);
        this.#waiting.delete(notice.ticket);
        if (waiting && notice.kept) this.#keep(waiting.id, waiting.options);
        else if (waiting) this.#signals.leave(waiting.id);
        return;
      }
      case 'committed':
        this.#commits.told(notice.token, notice.error);
        return;
      case 'lost':
        this.#signals.leave(notice.id);
        this.#watchers.lose(notice.id, new FramewrightError('LEASE_LOST', `This manager no longer owns job "${notice.id}"`));
        this.#watchers.tell(notice.id);
        return;
      case 'ran':
        this.#runs.get(notice.ticket)?.ran?.();
        return;
    }
  }

  /** A job was taken over: it goes on with what is written down, and with what this manager has kept of it. */
  #recovered(ticket: number, id: string, needs: string | null): void {
    const kept = live(this.#kept.get(id));
    if (needs !== null && !(needs in kept)) {
      this.#engine.lack(ticket, needs);
      return;
    }
    let written: JobExecutionOptions;
    try {
      written = this.#writtenDown(id);
    } catch (error) {
      // Lost again, or deleted, before it was heard of here.
      if (error instanceof FramewrightError && error.code === 'NOT_FOUND') return;
      throw error;
    }
    this.#waiting.set(ticket, { id, options: { ...written, ...kept }, wary: this.#durable !== undefined || this.#outside });
    this.#engine.queueUp(ticket);
    this.#schedule();
  }

  /** The options that are kept with a job, as they can be given to a run. */
  #writtenDown(id: string): JobExecutionOptions {
    const kept = JSON.parse(native(() => this.#engine.options(id))) as JobExecutionOptions & { stitcher?: unknown };
    const { stitcher: kind, verifyOutput: verify, mergeAdapter: _, ...plain } = kept;
    const base: JobExecutionOptions = plain;
    if ((kind as unknown) === 'ffmpeg') base.stitcher = new FfmpegStitcher();
    if ((kind as unknown) === 'concat') base.stitcher = new ConcatStitcher();
    if (verify !== undefined && (verify as unknown) !== 'function') base.verifyOutput = verify;
    return base;
  }

  async #verify(notice: Extract<Notice, { kind: 'verify' }>): Promise<void> {
    const run = this.#runs.get(notice.ticket);
    const verify = (run?.given ?? run?.options)?.verifyOutput;
    try {
      const good = run && typeof verify === 'function' ? await verify(notice.file, structuredClone(run.chunk(notice.index))) : false;
      this.#engine.answer(notice.question, Boolean(good as unknown), null);
    } catch (error) {
      const chunk = run?.chunk(notice.index);
      if (run && chunk) run.setCause(chunk.id, notice.attempt, error);
      this.#engine.answer(notice.question, false, messageOf(error));
    }
  }

  // ── Reading ──

  /** What the store behind JavaScript has. */
  async #fetch(id: string): Promise<JobStatus | undefined> {
    try {
      return (await this.#patience.with(this.#repository.get(id))) ?? undefined;
    } catch (error) {
      throw unavailable(error);
    }
  }

  /** The job as it stands, a copy; undefined when there is none. */
  async getJob(id: string): Promise<JobStatus | undefined> {
    checkId(id);
    if (this.#durable) {
      const found = await settled(this.#engine.fetch(id));
      return found ? statusOf(found) : undefined;
    }
    if (!this.#outside && isOwn.get(this.#repository)) {
      const json = this.#engine.status(id);
      return json === null ? undefined : readStatus(json, () => this.#engine.long(id));
    }
    const status = await this.#fetch(id);
    return status && complete(status);
  }

  /** All jobs, or those of a query, in order of arrival. */
  async listJobs(query: JobQuery = {}): Promise<JobStatus[]> {
    const wanted = readQuery(query);
    const { states, limit, cursor } = wanted;
    if (limit === 0) return [];
    if (this.#durable) {
      const after = cursor === undefined ? 0 : await settled(this.#durable.placeOf(cursor));
      if (cursor !== undefined && after < 0) throw noCursor(cursor);
      return listStored(this.#durable, this.#repository, states, after, limit);
    }
    if (!this.#outside && isOwn.list(this.#repository)) {
      const from = cursor === undefined ? 0 : this.#engine.sequenceOf(cursor) + 1;
      if (cursor !== undefined && from === 0) throw noCursor(cursor);
      return listAll(this.#engine, states, from, limit);
    }
    let jobs: JobStatus[];
    try {
      const listed: (JobStatus | null | undefined)[] = await this.#patience.with(this.#repository.list());
      jobs = listed.filter((job) => job !== null && job !== undefined).map(complete);
    } catch (error) {
      throw unavailable(error);
    }
    return filtered(jobs, wanted);
  }

  /**
   * The chunks of a job, in the order of its spec.
   *
   * @throws FramewrightError NOT_FOUND.
   */
  async chunks(id: string, options: { state?: ChunkStatus['state']; offset?: number; limit?: number } = {}): Promise<ChunkStatus[]> {
    checkId(id);
    const wanted = readChunkQuery(options);
    await this.#bring(id);
    const stored = this.#durable && (await settled(this.#engine.fetchJob(id)));
    try {
      return await readChunks(wanted, (...page) => (stored ? stored.chunks(...page) : native(() => this.#engine.chunks(id, ...page))));
    } finally {
      this.#rest(id);
    }
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
    this.#alive.enter();
    try {
      const status = await untilEnded(this.#endings, id, timeoutMs, signal);
      // It may have ended elsewhere.
      this.#signals.leave(id);
      return status;
    } finally {
      this.#alive.leave();
    }
  }

  // ── Control ──

  /** Lets the engine know a job of a store behind JavaScript, as that store has it. */
  async #bring(id: string): Promise<void> {
    if (!this.#outside) return;
    if (this.#isActive(id)) return;
    await this.#saver.settle(id);
    // What the store does not take is newer than what it has.
    if (this.#saver.isBusy(id) && this.#engine.state(id) !== null) return;
    const status = await this.#fetch(id);
    // Resumed by another call meanwhile: what was read is old.
    if (this.#isActive(id)) return;
    this.#saver.saw(id, status);
    if (status) native(() => this.#engine.adopt(toJson(complete(status), 'job status')));
    else this.#engine.release(id);
  }

  /** Waits for what a control call came to, and for the record of it. */
  async #controlled(id: string, code: number): Promise<void> {
    this.#drain();
    if (code === 1) {
      this.#alive.enter();
      try {
        // The request is on its way: that is saved and told before it is done.
        if (this.#saver.isNeeded) this.#saver.request(id);
        // What it stops runs, though a durable store may not have been told of its start yet.
        await this.#watchers.until(id, (state) => state !== 'running' && !(this.#durable && state === 'pending')).done;
      } finally {
        this.#alive.leave();
      }
      // Not here any more: it is done and at rest in the store, or another's, who goes on with it.
      if (this.#durable && this.#engine.state(id) === null && (await this.getJob(id))?.state === 'running') {
        throw new FramewrightError('LEASE_LOST', `This manager no longer owns job "${id}"`);
      }
    }
    if (code >= 2) {
      this.#rest(id);
      return;
    }
    if (this.#waiting.of(id) && this.#engine.state(id) !== 'pending') this.#waiting.deleteOf(id);
    if (this.#saver.isNeeded && this.#engine.state(id) !== null) await this.#saver.flush(id);
    this.#drain();
    this.#rest(id);
  }

  /** Cancels a job. Resolves once nothing of it runs any more. */
  async cancelJob(id: string, options: { strict?: boolean; reason?: string } = {}): Promise<void> {
    checkId(id);
    checkObject(options);
    checkFlag(options.strict, 'strict');
    if (options.reason !== undefined && typeof options.reason !== 'string') throw invalid('reason', 'must be a string', 'options');
    await this.#bring(id);
    const strict = options.strict === true;
    const reason = options.reason ?? null;
    const code = this.#durable ? await settled(this.#engine.cancelStored(id, reason, strict)) : native(() => this.#engine.cancel(id, reason, strict));
    await this.#controlled(id, code);
    if (code === 0) {
      this.#signals.leave(id);
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
    const strict = options.strict === true;
    const graceful = mode === 'graceful';
    const code = this.#durable ? await settled(this.#engine.pauseStored(id, graceful, strict)) : native(() => this.#engine.pause(id, graceful, strict));
    if (code === 0 && waiting) this.#keep(id, waiting.options);
    await this.#controlled(id, code);
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
    const durable = this.#durable !== undefined;
    const ticket = durable ? await settled(this.#engine.resumeStored(id, written, strict === true)) : native(() => this.#engine.resume(id, written, strict === true));
    if (ticket < 0) {
      this.#drain();
      return;
    }
    this.#waiting.set(ticket, { id, options: { ...this.#writtenDown(id), ...live(this.#kept.get(id)), ...copied(defined(changes)) } });
    if (durable) this.#engine.queueUp(ticket);
    if (changes.signal) this.#signals.follow(id, changes.signal);
    this.#start();
    if (this.#saver.isNeeded) await this.#saver.flush(id);
    this.#drain();
  }

  /** Stops a job and removes its record, which never re-appears. */
  async deleteJob(id: string, options: { strict?: boolean } = {}): Promise<void> {
    checkId(id);
    checkObject(options);
    checkFlag(options.strict, 'strict');
    await this.#bring(id);
    // Read in the turn of the removal: an upload may end any time.
    const status = this.#storage && !this.#durable ? this.#engine.status(id) : null;
    const before = status === null ? this.#storage && this.#durable && (await this.getJob(id).catch(() => undefined)) : readStatus(status, () => this.#engine.long(id));
    const run = this.#runs.of(id);
    const strict = options.strict === true;
    const code = this.#durable ? await settled(this.#engine.removeStored(id, strict)) : native(() => this.#engine.remove(id, strict));
    this.#drain();
    if (code === 2) return;
    if (code === 1) {
      this.#alive.enter();
      try {
        await this.#watchers.until(id, (state) => state === undefined).done;
      } finally {
        this.#alive.leave();
      }
    }
    this.#waiting.deleteOf(id);
    this.#signals.leave(id);
    this.#kept.delete(id);
    if (before && this.#storage) {
      const stored = { assetsUrl: before.spec.assetsUrl, jobDefUrl: before.meta?.['jobDefUrl'] as unknown, ...run?.stored };
      await cleanUp(this.#storage, id, stored, (message) => {
        this.#log('warn', message, { jobId: id });
      });
    }
    // What is being saved must not bring the record back.
    if (this.#saver.isNeeded) {
      await this.#saver.settle(id);
      if (this.#saver.isAsked(id)) throw new FramewrightError('STORE_UNAVAILABLE', `Job "${id}" is stopped, but the repository has not answered the last save of it`);
    }
    if (this.#outside || (!this.#durable && !isOwn.delete(this.#repository))) {
      try {
        await this.#patience.with(this.#repository.delete(id));
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

  /** Somebody else deleted a job of a store behind JavaScript: what runs of it is stopped, and nothing brings it back. */
  #deletedElsewhere(id: string): void {
    try {
      this.#engine.remove(id, false);
    } catch {
      // The manager closes, which stops it too.
    }
    this.#engine.deleted(id);
    this.#waiting.deleteOf(id);
    this.#signals.leave(id);
    this.#kept.delete(id);
    this.#drain();
    this.#again();
  }

  /** A slot may have become free. */
  #again(): void {
    if (binding.hasReady(this.#number)) this.#schedule();
  }

  // ── Recovering ──

  /**
   * Takes over interrupted jobs now; gives their ids. On durable repositories it also happens by itself, see
   * {@link JobManagerOptions.recover}.
   */
  async recoverJobs(): Promise<string[]> {
    if (this.#durable) return settled(this.#engine.recover());
    return this.#recoverHere();
  }

  /** Takes jobs over that nobody in this process works on: of a repository that knows no owners. */
  async #recoverHere(): Promise<string[]> {
    if (this.#closed) throw new FramewrightError('CLOSED', 'The manager is closed');
    if (!this.#executor) return [];
    let ids: string[];
    if (this.#outside) {
      try {
        const jobs = await this.#patience.with(this.#repository.list());
        ids = jobs.filter((job) => isInterrupted(complete(job)) && !this.#isActive(job.id) && !this.#saver.isBusy(job.id)).map((job) => job.id);
      } catch (error) {
        throw unavailable(error);
      }
    } else {
      ids = this.#engine.interrupted();
    }
    const taken: string[] = [];
    for (const id of ids) {
      await this.#bring(id);
      if (this.#isActive(id)) continue;
      const ticket = this.#engine.takeHere(id);
      if (ticket < 0) {
        // One that may not be tried again has failed with that.
        if (this.#engine.state(id) !== 'failed') continue;
        taken.push(id);
        if (this.#saver.isNeeded) await this.#flushed(id);
        continue;
      }
      taken.push(id);
      this.#recovered(ticket, id, this.#engine.needs(ticket));
      if (this.#saver.isNeeded) this.#saver.request(id);
    }
    this.#drain();
    return taken;
  }

  /**
   * Works off the repository's pending and orphaned jobs until aborted, or until the manager is closed: the main loop of a
   * worker process. Jobs that run then go on; `close` ends them.
   */
  async run(options: { signal?: AbortSignal } = {}): Promise<void> {
    checkObject(options);
    const { signal } = options;
    checkSignal(signal);
    if (this.#closed) throw new FramewrightError('CLOSED', 'The manager is closed');
    if (!this.#executor) throw invalid('executor', 'is missing: a manager without one runs no jobs', 'manager');
    if (signal?.aborted) return;
    const ended = AbortSignal.any(signal ? [signal, this.#closing.signal] : [this.#closing.signal]);
    const over = new Promise<void>((resolve) => onAbort(ended, resolve));
    this.#alive.enter();
    this.#working += 1;
    this.#engine.work(true);
    try {
      while (!ended.aborted && !this.#isClosing()) {
        const begun = clock();
        if (!this.#durable) {
          const looked = this.#recoverHere().catch((error: unknown) => {
            this.#log('warn', `Jobs could not be looked for: ${messageOf(error)}`, {});
          });
          await Promise.race([looked, over]);
        }
        // Looking through very many waiting jobs takes its time, of which others get most.
        const rest = this.#outside ? POLL_MS : Math.max(WORK_MS, 10 * (clock() - begun));
        await sleep(this.#durable ? LONGEST_DELAY : rest, ended);
      }
    } finally {
      this.#working -= 1;
      if (this.#working === 0) this.#engine.work(false);
      this.#alive.leave();
    }
  }

  #working = 0;

  #isClosing(): boolean {
    return this.#closed !== undefined;
  }

  /**
   * What an attempt of a chunk said, by default the latest one on stdout. Up to 16 MiB of each stream are kept whole, more
   * as head and tail; `tailBytes`: only the end. Of a process that this manager runs it is what was said so far; what an
   * adapter of the user's runs, or another manager, is there once the attempt has ended.
   *
   * @throws FramewrightError NOT_FOUND for a job, chunk or attempt that does not exist.
   */
  async readLog(
    id: string,
    options: { chunkId: number; attempt?: number; stream?: 'stdout' | 'stderr'; tailBytes?: number },
  ): Promise<string> {
    checkId(id);
    checkObject(options);
    const chunkId = integer(options.chunkId, 'chunkId', -1);
    if (chunkId < 0) throw invalid('chunkId', 'is missing', 'options');
    const attempt = integer(options.attempt, 'attempt', 0, 1);
    const { stream = 'stdout' } = options;
    if (!['stdout', 'stderr'].includes(stream)) throw invalid('stream', `must be 'stdout' or 'stderr', got ${shown(stream)}`, 'options');
    const tail = integer(options.tailBytes, 'tailBytes', Infinity);
    await this.#bring(id);
    try {
      const text = await settled(this.#engine.readLog(id, chunkId, Math.min(attempt, 0xffff_ffff), stream));
      return tail === Infinity ? text : tailOf(text, tail);
    } finally {
      this.#rest(id);
    }
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
    return this.#events.iterate(filter, this.#durable);
  }

  // ── Closing ──

  /**
   * Stops taking jobs, gives running ones `finishMs`, then stops them and leaves them `pending` for the next owner, their
   * attempt not counted against `retries`; lets the process exit. Reads go on working, every other call rejects with
   * CLOSED; the repository stays open. Defaults 0 and 5000. A second call can leave less time than the first, not more.
   */
  async close(options: { finishMs?: number; abortMs?: number } = {}): Promise<void> {
    checkObject(options);
    const finishMs = amount(options.finishMs, 'finishMs', 0);
    const abortMs = amount(options.abortMs, 'abortMs', 5000);
    this.#engine.close();
    this.#waiting.clear();
    this.#finishBy = Math.min(this.#finishBy, clock() + finishMs);
    this.#abortMs = Math.min(this.#abortMs, abortMs);
    this.#closed ??= this.#stop();
    await this.#closed;
  }

  /** Until when runs may end by themselves once the manager is closed, and how long they may take to stop then. */
  #finishBy = Infinity;
  #abortMs = Infinity;

  async #stop(): Promise<void> {
    const gone = async (until: () => number): Promise<void> => {
      for (let left; this.#runs.size > 0 && (left = until() - clock()) > 0; ) await sleep(Math.min(10, left));
    };
    await gone(() => this.#finishBy);
    if (this.#runs.size > 0) {
      this.#engine.shutDown();
      this.#drain();
      const stopped = clock();
      await gone(() => stopped + this.#abortMs);
      // No process outlives the manager: those that have not ended are killed, which takes no time.
      this.#engine.kill();
      const killed = clock() + KILLED_MS;
      while (this.#runs.values().some((run) => run.ran) && clock() < killed) await sleep(2);
      this.#drain();
    }
    for (const run of this.#runs.values()) run.finish(this.#engine.giveUp(run.ticket, run.number));
    this.#signals.end();
    this.#saver.end();
    if (this.#durable) {
      await settled(this.#engine.retire(Math.max(this.#abortMs, 1000))).catch((error: unknown) => {
        this.#log('warn', `The manager could not take its leave of the store: ${messageOf(error)}`, {});
      });
    }
    // The last states are in the store before anybody is told that all is over; a store that is away can't hold it up for ever.
    const over = new AbortController();
    await Promise.race([this.#saver.settleAll(), sleep(Math.max(this.#abortMs, 100), over.signal)]);
    over.abort();
    this.#patience.end();
    this.#drain();
    this.#closing.abort();
    this.#events.close();
  }

  /** Closes with the defaults, or waits for the `close` that is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await (this.#closed ?? this.close());
  }
}

/** The last bytes of a text, from the first whole character on. */
function tailOf(text: string, bytes: number): string {
  const all = Buffer.from(text);
  let from = Math.max(0, all.length - bytes);
  while (from < all.length && ((all[from] as number) & 0xc0) === 0x80) from += 1;
  return all.toString('utf8', from);
}

/** The callbacks and objects of earlier options. */
function live(options: JobExecutionOptions | undefined): JobExecutionOptions {
  if (!options) return {};
  const { onProgress, onChunkComplete, onChunkStdout, onChunkStderr, mergeAdapter, stitcher, verifyOutput } = options;
  const kept = { onProgress, onChunkComplete, onChunkStdout, onChunkStderr, mergeAdapter, stitcher };
  return { ...(defined(kept) as JobExecutionOptions), ...(typeof verifyOutput === 'function' ? { verifyOutput } : {}) };
}

/** What a run goes by, as it is now: the caller's objects may change. */
function ofRun({ id: _, type: __, ...execution }: SubmitOptions): JobExecutionOptions {
  return copied(execution);
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
