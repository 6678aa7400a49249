/** Waiting for the end of a job, wherever it is kept and whoever runs it. */
import type { Engine } from './binding.js';
import { FramewrightError, aborted } from './errors.js';
import type { Saver } from './saver.js';
import { onAbort } from './signals.js';
import { LONGEST_DELAY, clearTimeout, setTimeout, sleep } from './timers.js';
import type { JobStatus } from './types.js';
import type { Watchers } from './watchers.js';

/** How often a job that somebody else works on is looked at. */
export const POLL_MS = 100;
/** How often a job on a durable store is looked at that nothing is heard of. */
const LOOK_MS = 2000;
/** News of a job on a durable store are not looked at more often. */
const NEWS_MS = 3;

const TERMINAL: readonly (string | undefined)[] = ['completed', 'failed', 'cancelled'];

/** Why a wait stops looking. A reason that is at hand: without one an error would be made, with its stack, for each of them. */
const OVER = 'over';

/** What has to be known of a manager to wait for its jobs. */
export interface EndingHost {
  readonly engine: Engine;
  readonly watchers: Watchers;
  readonly saver: Saver;
  /** The repository is a durable one of ours, whose jobs any process may own. */
  readonly isDurable: boolean;
  /** The repository is behind JavaScript. */
  readonly isOutside: boolean;
  /** Whether changes are saved through JavaScript. */
  saves(): boolean;
  /** Aborted when the manager closes. */
  readonly closing: AbortSignal;
  get(id: string): Promise<JobStatus | undefined>;
  /** Whether the job runs or waits here, or is being saved. */
  isActive(id: string): boolean;
  /** Hands on what the engine has to tell. */
  drain(): void;
}

function missing(id: string): FramewrightError {
  return new FramewrightError('NOT_FOUND', `There is no job "${id}"`);
}

function notEnded(id: string): FramewrightError {
  return new FramewrightError('CLOSED', `The manager is closed and job "${id}" has not ended`);
}

/** Resolves with the status of a job at a terminal state. */
export async function untilEnded(host: EndingHost, id: string, timeoutMs: number | undefined, signal: AbortSignal | undefined): Promise<JobStatus> {
  const { engine, closing } = host;
  // Whoever waits for many jobs one after the other finds most of them at their end.
  if (timeoutMs === undefined && !signal && !host.isDurable && !host.isOutside && TERMINAL.includes(engine.state(id) ?? undefined)) {
    const status = await host.get(id);
    if (status && TERMINAL.includes(status.state)) return status;
  }
  let timer: NodeJS.Timeout | undefined;
  let unfollow: (() => void) | undefined;
  let stay: (() => void) | undefined;
  const over = new AbortController();
  try {
    const given = new Promise<never>((_, reject) => {
      if (timeoutMs !== undefined && timeoutMs <= LONGEST_DELAY) {
        timer = setTimeout(() => reject(new FramewrightError('TIMEOUT', `Job "${id}" did not end within ${timeoutMs} ms`)), timeoutMs);
      }
      if (signal) unfollow = onAbort(signal, () => reject(aborted(`Waiting for job "${id}" was aborted`, signal)));
      stay = onAbort(closing, () => {
        // Ended, or left to the store: its status is being read, and says how it stands.
        const state = engine.state(id);
        if (state === null || TERMINAL.includes(state)) return;
        reject(new FramewrightError('CLOSED', `The manager was closed before job "${id}" ended`));
      });
    });
    given.catch(() => undefined);
    const end = host.isDurable ? endOfStored(host, id, over.signal) : endOf(host, id, over.signal);
    end.catch(() => undefined);
    return await Promise.race([end, given]);
  } finally {
    over.abort(OVER);
    clearTimeout(timer);
    unfollow?.();
    stay?.();
  }
}

/** Of a job that any process may own. */
async function endOfStored(host: EndingHost, id: string, over: AbortSignal): Promise<JobStatus> {
  const { engine, watchers } = host;
  let wake: () => void = () => undefined;
  let news = false;
  const tell = (): void => {
    news = true;
    wake();
  };
  watchers.add(id, tell);
  over.addEventListener('abort', tell, { once: true });
  let awaited = false;
  let due = false as boolean;
  try {
    for (;;) {
      news = false;
      engine.watch(id);
      // Of a job that is owned here the engine knows what the store has: its whole status is read at the end only.
      const here = !due && engine.isAtWork(id);
      due = false;
      if (!here) {
        if (!awaited) engine.awaitStored(id, true);
        awaited = true;
        const found = await atHand(host, id);
        host.drain();
        if (found === undefined) throw missing(id);
        if (found !== 'away' && TERMINAL.includes(found.state)) return found;
      }
      if (host.closing.aborted) throw notEnded(id);
      // Looked at again now and then, whatever is told.
      const until = new AbortController();
      void sleep(LOOK_MS, until.signal).then(() => {
        if (until.signal.aborted) return;
        due = true;
        tell();
      });
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (news) resolve();
      });
      until.abort(OVER);
      if (over.aborted) throw missing(id);
      // A busy job of others tells of every group of chunks.
      if (!here) await sleep(NEWS_MS, over);
    }
  } finally {
    if (watchers.remove(id, tell)) engine.awaitStored(id, false);
  }
}

/** The job as its store has it; 'away': the store can't be reached, and comes back. */
async function atHand(host: EndingHost, id: string): Promise<JobStatus | 'away' | undefined> {
  try {
    return await host.get(id);
  } catch (error) {
    if (!(error instanceof FramewrightError && error.code === 'STORE_UNAVAILABLE') || host.closing.aborted) throw error;
    return 'away';
  }
}

/** Of a job in memory, or in a store behind JavaScript. */
async function endOf(host: EndingHost, id: string, over: AbortSignal): Promise<JobStatus> {
  const { engine, saver } = host;
  for (;;) {
    const known = engine.state(id);
    // Of a job in memory that has not ended nothing else has to be known.
    if (host.isOutside || known === null || TERMINAL.includes(known)) {
      const status = await host.get(id);
      if (!status) throw missing(id);
      if (TERMINAL.includes(status.state)) return status;
    }
    if (TERMINAL.includes(engine.state(id) ?? undefined)) {
      // The engine is ahead of a store that answers late.
      await sleep(10, over);
      if (over.aborted) throw missing(id);
      await saver.settle(id);
      continue;
    }
    if (host.closing.aborted) throw notEnded(id);
    if (engine.state(id) === null || (host.isOutside && !host.isActive(id))) {
      // Somebody else's job in a store that tells nothing: looked at again and again.
      await sleep(POLL_MS, over);
    } else {
      const until = host.watchers.until(id, (state) => state === undefined || TERMINAL.includes(state));
      const stop = onAbort(over, until.stop);
      await until.done;
      stop();
      if (host.saves() && engine.state(id) !== null) await saver.flush(id).catch(() => undefined);
      if (host.isOutside && engine.state(id) === null && !(await host.get(id))) throw missing(id);
    }
    if (over.aborted) throw missing(id);
  }
}
