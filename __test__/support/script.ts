/** Programs as a user writes them, each run by Node in a process of its own that finds the package by its name. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';

const repository = join(import.meta.dirname, '..', '..');

export interface Ended {
  /** null when a signal ended it: it hung and was stopped, or it crashed. */
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** What it printed, line by line. */
  lines: string[];
}

export interface ScriptOptions {
  /** What `process.argv.slice(1)` is. */
  args?: string[];
  /** Flags of Node. */
  flags?: string[];
  /** A program that is still there after so long is stopped. */
  limitMs?: number;
}

const PRELUDE = `
import * as framewright from 'framewright';
const { JobManager, InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, FramewrightError } = framewright;
/** A timer that does not keep the process alive. */
const weakly = (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref());
`;

/**
 * Runs a module with the package's classes in scope, to its end. A module whose own `await` never settles ends with
 * status 13, as Node does it: it kept nothing alive.
 */
export function script(program: string, { args = [], flags = [], limitMs = 15_000 }: ScriptOptions = {}): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [...flags, '--input-type=module', '-e', PRELUDE + program, '--', ...args], {
      cwd: repository,
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: limitMs,
      killSignal: 'SIGKILL',
      // What the runner of the tests sets for itself is not a user's.
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(NODE_|VITEST|FORCE_COLOR)/.test(name))),
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr, lines: stdout.split('\n').filter((line) => line !== '') }));
  });
}

/** What a program that ended well and in silence has left. */
export const QUIET = { code: 0, signal: null, stderr: '' } as const;
