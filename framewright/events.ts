/** Events on their way from the engine's log to listeners and iterators: in order, none twice, none lost. */
import type { DurableStore, Engine, EventPage } from './binding.js';
import { checkSignal, isTexts } from './arguments.js';
import { invalid, native, settled } from './errors.js';
import { onAbort } from './signals.js';
import type { KeepAlive } from './timers.js';
import type { EventFilter, JobEvent, JobEventType } from './types.js';

/** Events taken from the log at once. */
const BATCH = 512;

/** Whether events of a type are numbered and kept. */
const KEPT = (type: JobEventType): boolean => type !== 'job.progress' && type !== 'chunk.progress' && type !== 'job.lease_lost';

function isSame(a: JobEvent, b: JobEvent | undefined): boolean {
  return b !== undefined && JSON.stringify(a) === JSON.stringify(b);
}

type Listener = (event: JobEvent) => unknown;
interface Registered {
  listener: Listener;
  once: boolean;
}

export class EventPump {
  readonly #listeners = new Map<string, Registered[]>();
  readonly #readers = new Set<() => void>();
  #count = 0;
  #place = 0;
  #pumping = false;
  #watching = false;

  constructor(
    readonly engine: Engine,
    readonly alive: KeepAlive,
    readonly threw: (event: JobEvent, error: unknown) => void,
    readonly lost: (error: unknown) => void,
  ) {}

  /** Whether anybody hears. */
  get active(): boolean {
    return this.#watching;
  }

  add(type: string, listener: unknown, once: boolean): void {
    if (typeof listener !== 'function') throw invalid('listener', 'must be a function');
    if (typeof type !== 'string') throw invalid('type', 'must be the type of an event');
    // Not while events are being told: one that is added again by what it heard goes on from there.
    if (this.#count === 0 && !this.#pumping) this.#place = this.engine.eventsEnd();
    this.#count += 1;
    const known = this.#listeners.get(type) ?? [];
    this.#listeners.set(type, [...known, { listener: listener as Listener, once }]);
    this.#watch();
  }

  remove(type: string, listener: unknown): void {
    const registered = this.#listeners.get(type)?.find((known) => known.listener === listener);
    if (registered) this.#remove(type, registered);
  }

  #remove(type: string, registered: Registered): void {
    const known = this.#listeners.get(type);
    if (!known?.includes(registered)) return;
    this.#count -= 1;
    this.#listeners.set(
      type,
      known.filter((other) => other !== registered),
    );
    this.#watch();
  }

  #watch(): void {
    const wanted = this.#count > 0 || this.#readers.size > 0;
    if (wanted !== this.#watching) {
      this.#watching = wanted;
      this.engine.watchEvents(wanted);
    }
  }

  /** Delivers what is new. */
  pump(): void {
    if (!this.#watching || this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#count > 0) {
        const page = this.#read();
        if (page.place === this.#place) break;
        this.#place = page.place;
        for (const event of JSON.parse(page.events) as JobEvent[]) this.#emit(event);
      }
    } finally {
      this.#pumping = false;
    }
    for (const wake of [...this.#readers]) wake();
  }

  /** The next events; after more than are kept came at once, the oldest that are left. */
  #read(): EventPage {
    try {
      return native(() => this.engine.readEvents(this.#place, BATCH));
    } catch (error) {
      this.#place = this.engine.placeOf(0);
      this.lost(error);
      return this.engine.readEvents(this.#place, BATCH);
    }
  }

  #emit(event: JobEvent): void {
    this.#tell(event.type, event);
    this.#tell('event', event);
  }

  #tell(type: string, event: JobEvent): void {
    const known = this.#listeners.get(type);
    if (!known) return;
    for (const registered of known) {
      const { listener, once } = registered;
      if (once) this.#remove(type, registered);
      try {
        const result = listener(event);
        if (typeof result === 'object' && result !== null && typeof (result as PromiseLike<unknown>).then === 'function') {
          (result as PromiseLike<unknown>).then(undefined, (error: unknown) => {
            this.threw(event, error);
          });
        }
      } catch (error) {
        this.threw(event, error);
      }
    }
  }

  /** Ends all iterations, when nothing will happen any more. */
  close(): void {
    this.#closed = true;
    for (const wake of [...this.#readers]) wake();
  }

  #closed = false;

  /** Reads the log from a number on, or from now. */
  iterate(filter: EventFilter, durable?: DurableStore): AsyncIterableIterator<JobEvent> {
    const { jobId, fromSequence, signal } = filter;
    if (fromSequence !== undefined && !(Number.isSafeInteger(fromSequence) && fromSequence >= 0)) {
      throw invalid('fromSequence', 'must be an integer of 0 or more', 'event filter');
    }
    if (jobId !== undefined && typeof jobId !== 'string') throw invalid('jobId', 'must be a string', 'event filter');
    if (filter.types !== undefined && !isTexts(filter.types)) throw invalid('types', 'must be an array of types', 'event filter');
    checkSignal(signal);
    const types = filter.types ? new Set<JobEventType>(filter.types) : undefined;
    let place = fromSequence === undefined || durable ? this.engine.eventsEnd() : native(() => this.engine.placeOf(fromSequence));
    // Where a durable store is read on, before the events that are at hand; what was read there is passed over here.
    let history = durable && fromSequence !== undefined ? Math.max(fromSequence, 1) : undefined;
    let seen = 0;
    let warned: JobEvent | undefined;
    let buffer: JobEvent[] = [];
    let at = 0;
    let ended = false;
    let unfollow: (() => void) | undefined;
    let wake: (() => void) | undefined;
    const woken = (): void => {
      wake?.();
    };
    const end = (): void => {
      if (ended) return;
      ended = true;
      buffer = [];
      at = 0;
      this.#readers.delete(woken);
      unfollow?.();
      this.#watch();
      wake?.();
    };
    this.#readers.add(woken);
    this.#watch();
    if (signal?.aborted) end();
    else if (signal) unfollow = onAbort(signal, end);

    const next = async (): Promise<IteratorResult<JobEvent, undefined>> => {
      for (;;) {
        while (at < buffer.length) {
          const event = buffer[at] as JobEvent;
          at += 1;
          // From a number that is still to come, what happens before it is passed over.
          if (fromSequence !== undefined && event.sequence < fromSequence) continue;
          if (durable && KEPT(event.type)) {
            // A warning about what the store does not have stands beside the latest event, with its number.
            const aside = event.type === 'job.warning' && event.sequence === seen && history === undefined && !isSame(event, warned);
            if (event.sequence <= seen && !aside) continue;
            seen = event.sequence;
            warned = event.type === 'job.warning' ? event : undefined;
          }
          if ((jobId === undefined || event.jobId === jobId) && (!types || types.has(event.type))) return { done: false, value: event };
        }
        if (ended) return { done: true, value: undefined };
        let page: EventPage;
        try {
          if (durable && history !== undefined) {
            if (history <= 1 || seen === 0) await settled(this.engine.begun());
            const stored = await settled(durable.events(history, BATCH));
            // The last page may be of the future already: what is at hand of it is passed over.
            history = stored.next > history ? stored.next : undefined;
            buffer = JSON.parse(stored.events) as JobEvent[];
            at = 0;
            continue;
          }
          page = native(() => this.engine.readEvents(place, BATCH));
        } catch (error) {
          if (durable && history === undefined) {
            // Too slow for what is kept at hand: the store has it all.
            place = this.engine.eventsEnd();
            history = seen + 1;
            continue;
          }
          // A loop over it does not call return() after this.
          end();
          throw error;
        }
        if (page.place !== place) {
          place = page.place;
          buffer = JSON.parse(page.events) as JobEvent[];
          at = 0;
          continue;
        }
        if (this.#closed) {
          end();
          continue;
        }
        this.alive.enter();
        try {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } finally {
          wake = undefined;
          this.alive.leave();
        }
      }
    };
    // Calls of next() that do not wait for each other still get one event each, in order.
    let last: Promise<unknown> = Promise.resolve();
    return {
      next: () => {
        const result = last.then(next);
        last = result.catch(() => undefined);
        return result;
      },
      return: () => {
        end();
        return Promise.resolve({ done: true as const, value: undefined });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }
}
