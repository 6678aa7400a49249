/**
 * Submits jobs, asks for pauses, cancellations and deletions, watches the states, follows the events, and notes what was
 * acknowledged. It never runs a chunk. It goes on from the history when the process before it was killed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { makeCounter } from './count.mjs';
import { Random } from './random.mjs';

const TERMINAL = ['completed', 'failed', 'cancelled'];
/** How the store says that it can't at the moment. */
const AWAY = ['STORE_UNAVAILABLE', 'STORE_FULL'];

export class Submitter {
  #manager;
  #repository;
  #history;
  #settings;
  #random;
  /** Jobs that have not ended, as far as is known. */
  #open = new Map();
  #next = 0;
  #draining = false;
  #sequence = 0;
  /** Jobs whose end was told by the events: none of theirs is still to be read. */
  #told = new Set();
  #asking = new Set();

  constructor(manager, repository, history, settings) {
    this.#manager = manager;
    this.#repository = repository;
    this.#history = history;
    this.#settings = settings;
    const ended = new Set();
    for (const record of history.read()) {
      if (record.kind === 'submit') {
        this.#next += 1;
        this.#open.set(record.id, { doubt: true });
      }
      if (record.kind === 'submitted') this.#open.set(record.id, {});
      if (record.kind === 'seen' && TERMINAL.includes(record.state)) ended.add(record.id);
      if (record.kind === 'told') this.#note(record.event);
    }
    for (const id of ended) this.#open.delete(id);
    this.#random = new Random(settings.seed * 7919 + this.#next);
  }

  #note(event) {
    this.#sequence = event.sequence;
    if (/^job\.(completed|failed|cancelled)$/.test(event.type)) this.#told.add(event.jobId);
  }

  /** Submit nothing more, and end once every job has ended. */
  drain() {
    this.#draining = true;
  }

  async run() {
    await this.#persist(() => makeCounter(this.#repository));
    const following = new AbortController();
    const followed = this.#follow(following.signal);
    while (!this.#draining || this.#open.size > 0) {
      if (!this.#draining && this.#open.size < this.#settings.jobsAtOnce) await this.#submit();
      for (const [id, known] of [...this.#open]) await this.#look(id, known);
      await sleep(this.#open.size < this.#settings.jobsAtOnce && !this.#draining ? 5 : 60);
    }
    await Promise.all(this.#asking);
    following.abort();
    await followed;
  }

  /** Again until the store answers. */
  async #persist(work) {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!AWAY.includes(error.code)) throw error;
        await sleep(50);
      }
    }
  }

  #spec(chunks) {
    const { ledger, outputs, script, pause } = this.#settings;
    return {
      metadata: { totalFrames: chunks, fps: 1, width: 1, height: 1, duration: 1 },
      chunks: Array.from({ length: chunks }, (_, id) => ({
        id,
        startFrame: id,
        frameCount: 1,
        outputFile: `{jobId}-${id}`,
        argv: ['/bin/sh', script, ledger, '{jobId}', '{chunkId}', '{attempt}', `${outputs}/{jobId}-${id}`, String(pause)],
      })),
    };
  }

  async #submit() {
    const id = `job-${this.#next}`;
    this.#next += 1;
    const chunks = this.#random.between(...this.#settings.chunks);
    const fate = this.#random.weighted({ run: 70, pause: 12, cancel: 8, delete: 10 });
    const delay = this.#random.between(0, 1500);
    this.#history.add('submit', { id, chunks });
    this.#open.set(id, { doubt: true });
    try {
      await this.#manager.submitJob(this.#spec(chunks), { id, concurrency: 2, crashRetries: 1_000_000, jobDir: this.#settings.outputs });
      this.#history.add('submitted', { id });
      this.#open.set(id, { fate, due: Date.now() + delay });
    } catch (error) {
      this.#history.add('refused', { id, code: error.code, message: error.message });
      if (!AWAY.includes(error.code)) throw error;
    }
  }

  async #look(id, known) {
    let job;
    try {
      job = await this.#manager.getJob(id);
    } catch (error) {
      if (!AWAY.includes(error.code)) throw error;
      return;
    }
    if (!job) {
      // Refused, or its creation did not get there. One that was acknowledged must not be missing.
      if (!known.doubt) this.#history.add('missing', { id });
      this.#open.delete(id);
      return;
    }
    const { state, version, progress, completedChunks, attempt } = job;
    const sign = `${state} ${version} ${progress} ${completedChunks} ${attempt}`;
    if (sign !== known.sign) {
      known.sign = sign;
      this.#history.add('seen', { id, state, version, progress, completedChunks, attempt, recoveries: job.recoveries?.length ?? 0 });
    }
    if (TERMINAL.includes(state) && known.fate !== 'delete') {
      this.#open.delete(id);
    } else if (known.fate === 'delete') {
      if (TERMINAL.includes(state) && this.#told.has(id) && !known.asked) this.#ask(id, known, 'delete');
    } else if (state === 'paused' && !known.asked) {
      this.#ask(id, known, 'resume');
    } else if (['pause', 'cancel'].includes(known.fate) && Date.now() >= known.due && !known.asked && !TERMINAL.includes(state)) {
      const what = known.fate;
      delete known.fate;
      this.#ask(id, known, what);
    }
  }

  /** Asks for a change; what was acknowledged counts. */
  #ask(id, known, what) {
    known.asked = true;
    this.#history.add('ask', { id, what });
    const asking = this.#manager[`${what}Job`](id)
      .then(() => {
        this.#history.add('answered', { id, what });
        if (what === 'delete') this.#open.delete(id);
      })
      .catch((error) => {
        this.#history.add('not answered', { id, what, code: error.code, message: error.message });
      })
      .finally(() => {
        known.asked = false;
        this.#asking.delete(asking);
      });
    this.#asking.add(asking);
  }

  async #follow(signal) {
    while (!signal.aborted) {
      try {
        for await (const event of this.#manager.events({ fromSequence: this.#sequence + 1, signal })) {
          if (/progress$/.test(event.type) || event.type === 'job.lease_lost') continue;
          this.#history.add('told', { event });
          this.#note(event);
        }
      } catch (error) {
        if (signal.aborted || error.name === 'AbortError') return;
        this.#history.add('not told', { code: error.code, message: error.message });
        if (!AWAY.includes(error.code)) throw error;
        await sleep(50);
      }
    }
  }
}
