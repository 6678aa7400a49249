/** Worker processes of their own for tests that kill, stop and block them. */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { JobEvent, JobEventType, JobManager, JobManagerOptions } from 'framewright';
import { afterEach } from 'vitest';
import { Watched } from './watched.js';

const program = join(import.meta.dirname, '..', 'workers', 'worker.mjs');

/** In the environment of all that a test has started, and so of what that has started. */
const MARK = `FRAMEWRIGHT_TEST_MARK=${randomUUID()}`;

/** Processes that were started by workers of this test file, themselves included. */
export function startedHere(): number[] {
  const found: number[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (readFileSync(`/proc/${name}/environ`, 'latin1').includes(MARK)) found.push(Number(name));
    } catch {
      // Gone, or another user's.
    }
  }
  return found;
}

afterEach(() => {
  // Twice: the first round may find a process in the act of starting another one.
  for (let round = 0; round < 2; round += 1) {
    for (const pid of startedHere()) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // Gone.
      }
    }
  }
});

export interface WorkerOptions {
  url: string;
  folder: string;
  options?: JobManagerOptions;
  runs?: 'processes' | 'deaf' | 'turns' | 'nothing';
  /** false: it does not end when nobody talks to it any more. */
  lives?: boolean;
}

/** How a call in another process was refused. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

type Methods = {
  [K in keyof JobManager]: JobManager[K] extends (...args: infer A) => Promise<infer R> ? { args: A; value: R } : never;
} & {
  block: { args: [ms: number, how: 'wait' | 'spin']; value: undefined };
  /** All kept events. */
  readEvents: { args: []; value: JobEvent[] };
  stopRun: { args: []; value: undefined };
  closeAll: { args: []; value: undefined };
  letGo: { args: []; value: undefined };
};

type Call = keyof Methods & string;

export class Worker {
  /** What its manager has heard. */
  readonly events = new Watched<JobEvent>();
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  hasExited = false;
  stderr = '';
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #n = 0;

  /** Resolves once its manager is there. */
  readonly ready: Promise<this>;

  constructor(options: WorkerOptions) {
    let ready!: (worker: this) => void;
    let failed!: (error: Error) => void;
    this.ready = new Promise((resolve, reject) => {
      ready = resolve;
      failed = reject;
    });
    this.ready.catch(() => undefined);
    const [name, value] = MARK.split('=') as [string, string];
    const env = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^(NODE_|VITEST|FORCE_COLOR)/.test(key)));
    this.#child = spawn(process.execPath, [program, JSON.stringify(options)], {
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
      env: { ...env, [name]: value },
    });
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => (this.stderr += text));
    this.#child.on('message', (message: { n?: number; value?: unknown; error?: { code: string; message: string }; event?: JobEvent }) => {
      if (message.event) this.events.push(message.event);
      else if (message.n === undefined) ready(this);
      else {
        const call = this.#calls.get(message.n);
        this.#calls.delete(message.n);
        if (message.error) call?.reject(new Refused(message.error.code, message.error.message));
        else call?.resolve(message.value);
      }
    });
    this.exited = new Promise((resolve) => {
      this.#child.on('exit', (code, signal) => {
        this.hasExited = true;
        const error = new Error(`The worker ended with ${String(code ?? signal)}: ${this.stderr}`);
        failed(error);
        for (const call of this.#calls.values()) call.reject(error);
        resolve({ code, signal });
      });
    });
  }

  static start(options: WorkerOptions): Promise<Worker> {
    return new Worker(options).ready;
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** Calls a method of its manager. */
  call<C extends Call>(method: C, ...args: Methods[C]['args']): Promise<Methods[C]['value']> {
    const n = (this.#n += 1);
    const answer = new Promise<unknown>((resolve, reject) => this.#calls.set(n, { resolve, reject }));
    // Who is killed does not answer, and not everybody waits for it.
    answer.catch(() => undefined);
    this.#child.send({ n, call: method, args }, (error) => {
      if (error) this.#calls.get(n)?.reject(error);
    });
    return answer as Promise<Methods[C]['value']>;
  }

  /** The first event of a type that it has heard or will hear. */
  event<T extends JobEventType>(type: T, jobId?: string, more: (event: Extract<JobEvent, { type: T }>) => boolean = () => true): Promise<Extract<JobEvent, { type: T }>> {
    const is = (event: JobEvent): boolean => event.type === type && (jobId === undefined || event.jobId === jobId) && more(event as Extract<JobEvent, { type: T }>);
    return this.events.first(is, `${type} of ${jobId ?? 'any job'}`) as Promise<Extract<JobEvent, { type: T }>>;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.exited;
  }
}

/** An object in the worker's process, by name, in the place of one that cannot be sent. */
export function there(name: 'stitcher' | 'concat' | 'verify'): never {
  return { $object: name } as never;
}
