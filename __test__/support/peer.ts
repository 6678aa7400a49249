/** Another process that uses the package, and does what a test asks of it, call by call. */
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { FramewrightError } from 'framewright';
import { afterManagers } from './managers.js';

const root = join(import.meta.dirname, '..', '..');

const PROGRAM = `
import * as framewright from 'framewright';
const AsyncFunction = (async () => {}).constructor;
/** What later calls find again. */
const kept = {};
process.on('message', async ({ call, body, given }) => {
  try {
    const value = await new AsyncFunction('framewright', 'kept', 'given', body)(framewright, kept, given);
    process.send({ call, value });
  } catch (error) {
    process.send({ call, error: { name: error.name, message: error.message, stack: error.stack, code: error.code } });
  }
});
process.on('disconnect', () => process.exit());
process.send({ call: 0 });
`;

interface Answer {
  call: number;
  value?: unknown;
  error?: { name: string; message: string; stack: string; code?: FramewrightError['code'] };
}

export class Peer {
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #next = 1;
  /** Resolves when it is gone. */
  readonly ended: Promise<void>;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.ended = new Promise((resolve) => {
      child.on('exit', () => {
        for (const { reject } of this.#calls.values()) reject(new Error('The process ended before it answered'));
        resolve();
      });
    });
    child.on('message', (message) => {
      const { call, value, error } = message as Answer;
      const waiting = this.#calls.get(call);
      this.#calls.delete(call);
      if (!error) waiting?.resolve(value);
      else waiting?.reject(error.code ? new FramewrightError(error.code, error.message) : Object.assign(new Error(error.message), { stack: error.stack }));
    });
  }

  /** A process that is ready; it goes with its test. */
  static async start(): Promise<Peer> {
    const child = spawn(process.execPath, ['--input-type=module', '-e', PROGRAM], {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_|VITEST|FORCE_COLOR)/.test(name))),
    });
    const peer = new Peer(child);
    afterManagers(() => peer.kill());
    await peer.#answer(0);
    return peer;
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  #answer(call: number): Promise<unknown> {
    return new Promise((resolve, reject) => this.#calls.set(call, { resolve, reject }));
  }

  /** What the body of an async function gives there; it finds the package as `framewright`, its argument as `given`, and `kept`. */
  async run<T = unknown>(body: string, given: unknown = null): Promise<T> {
    const call = this.#next;
    this.#next += 1;
    const answer = this.#answer(call);
    this.#child.send({ call, body, given });
    return (await answer) as T;
  }

  /** Opens a store there, as `kept.repository`, with a manager on it, as `kept.manager`. */
  async open(url: string, executor = 'undefined', options = '{}'): Promise<void> {
    await this.run(
      `kept.repository = await framewright.openRepository(given);
       kept.manager = new framewright.JobManager(kept.repository, ${executor}, ${options});`,
      url,
    );
  }

  /** SIGKILL, and waits until it is gone. */
  async kill(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill('SIGKILL');
    await this.ended;
  }
}
