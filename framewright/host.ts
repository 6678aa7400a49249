/** What runs need of their manager. */
import type { Engine } from './binding.js';
import type { Commits } from './commits.js';
import type { EventPump } from './events.js';
import type { JobRun } from './run.js';
import type { Saver } from './saver.js';
import { keepShapeOf } from './shapes.js';
import type { ErrorCode, JobErrorInfo, JobState, JobStatus } from './types.js';
import type { Watchers } from './watchers.js';

/** The parts of a manager that its runs reach, and what it does for them. */
export interface HostParts {
  readonly engine: Engine;
  /** The engine's number. */
  readonly number: number;
  readonly abortGraceMs: number;
  /** The repository is a durable one of ours. */
  readonly isDurable: boolean;
  readonly saver: Saver;
  readonly commits: Commits;
  readonly events: EventPump;
  readonly watchers: Watchers;
  /** Something went wrong beside the job. */
  readonly warn: (id: string, message: string, error?: unknown, code?: ErrorCode) => void;
  /** The run is over. */
  readonly ended: (run: JobRun, state: JobState | undefined) => void;
  /** Does what the engine asks, and hands on what it has to tell. */
  readonly drain: () => void;
  /** Calls back once the store has caught up, perhaps. */
  readonly behind: (wake: () => void) => void;
}

/** A class, not an object of closures: what is called for each chunk is compiled once for all managers. */
export class RunHost {
  readonly engine: Engine;
  readonly number: number;
  readonly abortGraceMs: number;
  readonly #isDurable: boolean;
  readonly #saver: Saver;
  readonly #parts: HostParts;

  constructor(parts: HostParts) {
    this.engine = parts.engine;
    this.number = parts.number;
    this.abortGraceMs = parts.abortGraceMs;
    this.#isDurable = parts.isDurable;
    this.#saver = parts.saver;
    this.#parts = parts;
  }

  /** The manager's identity on a durable store: processes carry it, so that who goes on after a crash finds them. */
  owner(): string | undefined {
    return this.#isDurable ? this.engine.owner : undefined;
  }

  warn(id: string, message: string, error?: unknown, code?: ErrorCode): void {
    this.#parts.warn(id, message, error, code);
  }

  /** Whether changes are saved through JavaScript. */
  saves(): boolean {
    return this.#saver.isNeeded;
  }

  /** The job changed; stores behind JavaScript have to hear of it. */
  touched(id: string): void {
    if (this.#saver.isNeeded) this.#saver.request(id);
  }

  ended(run: JobRun, state: JobState | undefined): void {
    this.#parts.ended(run, state);
  }

  /** What a job that has just failed says of it. */
  failure(id: string): JobErrorInfo | undefined {
    const status = this.engine.status(id);
    return status === null ? undefined : (JSON.parse(status) as JobStatus).failure;
  }

  /** Hands on what the engine has to tell, if anybody listens. */
  tell(): void {
    const { events, watchers } = this.#parts;
    if (events.active || !watchers.isIdle) this.#parts.drain();
  }

  /** Does what the engine asks, at once. */
  hear(): void {
    this.#parts.drain();
  }

  behind(wake: () => void): void {
    this.#parts.behind(wake);
  }

  /** Resolves once the store has what is true of a job now. */
  committed(id: string): Promise<void> {
    const { saver, commits } = this.#parts;
    return saver.outside ? saver.flush(id) : commits.of(id);
  }
}

keepShapeOf(new RunHost({ number: 0, abortGraceMs: 0, isDurable: false } as HostParts));
