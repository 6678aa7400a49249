/**
 * Judges a run by its history and its ledger. It knows what was promised, and nothing of how it is kept: what was
 * acknowledged to anybody is compared with what the store holds in the end, and with what the chunks themselves wrote.
 */
const ENDS = { 'job.completed': 'completed', 'job.failed': 'failed', 'job.cancelled': 'cancelled' };
const TERMINAL = Object.values(ENDS);
/** Told in passing: they have no number of their own. */
const PASSING = ['job.progress', 'chunk.progress', 'job.lease_lost'];
/** After a job's end these may still come. */
const AFTERWARDS = ['job.deleted', 'job.warning', 'job.updated'];

class Judge {
  violations = [];

  constructor(history, ledger, { leaseMs, counter }) {
    this.history = history;
    this.ledger = ledger;
    this.leaseMs = leaseMs;
    this.counter = counter;
    this.jobs = new Map(this.of('job').map((record) => [record.status.id, record]));
    this.events = this.of('event').map((record) => record.event);
    this.deleted = new Set(this.of('ask').filter((record) => record.what === 'delete').map((record) => record.id));
  }

  of(...kinds) {
    return this.history.filter((record) => kinds.includes(record.kind));
  }

  find(rule, what, evidence) {
    this.violations.push({ rule, what, evidence });
  }

  eventsByJob() {
    return groupBy(this.events, (event) => event.jobId);
  }
}

/** A list in groups of one key; Node 20 has no `Map.groupBy`. */
export function groupBy(list, key) {
  const groups = new Map();
  for (const one of list) {
    const name = key(one);
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(one);
  }
  return groups;
}

const RULES = {
  'the run came to its end'(judge) {
    if (judge.of('audited').length === 0) judge.find(this.rule, 'the store could not be read to its end');
    for (const { id, states } of judge.of('stuck')) judge.find(this.rule, `${id} did not end`, states);
  },

  'an acknowledged job is kept'(judge) {
    for (const { id } of judge.of('submitted')) {
      if (!judge.jobs.has(id) && !judge.deleted.has(id)) judge.find(this.rule, `${id} was acknowledged and is gone`);
    }
    for (const { id } of judge.of('missing')) if (!judge.deleted.has(id)) judge.find(this.rule, `${id} was not found`);
    for (const { id, what } of judge.of('answered')) {
      if (what === 'delete' && judge.jobs.has(id)) judge.find(this.rule, `${id} was deleted and is there`);
    }
  },

  'every job ends as it was asked to'(judge) {
    const cancelled = new Set(judge.of('ask').filter((record) => record.what === 'cancel').map((record) => record.id));
    const submitted = new Map(judge.of('submit').map((record) => [record.id, record]));
    for (const [id, { status }] of judge.jobs) {
      if (id === judge.counter) continue;
      if (!submitted.has(id)) judge.find(this.rule, `${id} was never submitted`);
      const wanted = ['completed', ...(cancelled.has(id) ? ['cancelled'] : [])];
      if (!wanted.includes(status.state)) judge.find(this.rule, `${id} is ${status.state}`, status.failure);
      else if (submitted.get(id)?.chunks !== status.totalChunks) judge.find(this.rule, `${id} has ${status.totalChunks} chunks`);
    }
  },

  'a terminal state is final'(judge) {
    for (const [id, events] of judge.eventsByJob()) {
      const end = events.findIndex((event) => event.type in ENDS);
      if (end < 0) {
        if (judge.jobs.has(id) && id !== judge.counter) judge.find(this.rule, `${id} has no end among its events`);
        continue;
      }
      const after = events.slice(end + 1).filter((event) => !AFTERWARDS.includes(event.type));
      if (after.length > 0) judge.find(this.rule, `${id} went on after ${events[end].type}`, after.slice(0, 3));
      const state = judge.jobs.get(id)?.status.state;
      if (state && state !== ENDS[events[end].type]) judge.find(this.rule, `${id} is ${state} after ${events[end].type}`);
    }
    const ended = new Map();
    for (const { id, state } of judge.of('seen')) {
      if (ended.has(id) && ended.get(id) !== state) judge.find(this.rule, `${id} was seen ${ended.get(id)}, then ${state}`);
      if (TERMINAL.includes(state)) ended.set(id, state);
    }
  },

  'a chunk is completed once'(judge) {
    const done = new Set();
    for (const event of judge.events) {
      if (event.type !== 'chunk.completed') continue;
      const key = `${event.jobId} ${event.chunkId}`;
      if (done.has(key)) judge.find(this.rule, `chunk ${event.chunkId} of ${event.jobId} was completed again`, event);
      done.add(key);
    }
    for (const [id, { rows }] of judge.jobs) {
      for (const { chunk, state } of rows) {
        if ((state === 'completed') !== done.has(`${id} ${chunk}`)) judge.find(this.rule, `chunk ${chunk} of ${id} is ${state}, its events say otherwise`);
      }
    }
  },

  'a completed chunk is not rendered again'(judge) {
    const runs = groupBy(judge.ledger, (line) => `${line.job} ${line.chunk}`);
    for (const { type, jobId, chunkId, attempt } of judge.events) {
      if (type !== 'chunk.completed') continue;
      const lines = runs.get(`${jobId} ${chunkId}`) ?? [];
      if (!lines.some((line) => line.what === 'end' && line.attempt === attempt)) judge.find(this.rule, `chunk ${chunkId} of ${jobId} never ended attempt ${attempt}`);
      if (lines.some((line) => line.attempt > attempt)) judge.find(this.rule, `chunk ${chunkId} of ${jobId} ran after attempt ${attempt} was accepted`, lines);
    }
  },

  'two attempts of a chunk never overlap'(judge) {
    const running = new Map();
    for (const line of judge.ledger) {
      const key = `${line.job} ${line.chunk}`;
      const run = running.get(key);
      if (line.what === 'begin') running.set(key, line);
      else if (run?.pid !== line.pid) judge.find(this.rule, `chunk ${line.chunk} of ${line.job}: process ${line.pid} lives while ${run?.pid} runs it`, [run, line]);
    }
  },

  'the number of an attempt is used once'(judge) {
    const begun = new Map();
    for (const line of judge.ledger) {
      if (line.what !== 'begin') continue;
      const key = `${line.job} ${line.chunk} ${line.attempt}`;
      if (begun.has(key)) judge.find(this.rule, `attempt ${line.attempt} of chunk ${line.chunk} of ${line.job} began twice`, [begun.get(key), line]);
      begun.set(key, line);
    }
  },

  'what an event told stays true'(judge) {
    const kept = new Map(judge.events.map((event) => [event.sequence, event]));
    const found = new Set();
    for (const { kind, event, by } of judge.of('told', 'heard')) {
      if (PASSING.includes(event.type) || (event.type === 'job.warning' && !kept.has(event.sequence))) continue;
      const now = kept.get(event.sequence);
      if (now ? now.jobId === event.jobId && now.type === event.type && now.chunkId === event.chunkId && now.attempt === event.attempt : judge.deleted.has(event.jobId)) continue;
      // A warning of the moment has the number of the latest event.
      if (event.type === 'job.warning' || found.has(event.sequence)) continue;
      found.add(event.sequence);
      judge.find(this.rule, `event ${event.sequence} was ${kind} by ${by} and is ${now ? 'another' : 'gone'}`, [event, now]);
    }
  },

  'events are numbered without a gap'(judge) {
    const removed = new Map(judge.of('told').filter(({ event }) => judge.deleted.has(event.jobId)).map(({ event }) => [event.sequence, event]));
    let before = 0;
    for (const { sequence } of judge.events) {
      if (sequence <= before) judge.find(this.rule, `${sequence} comes after ${before}`);
      for (let missing = before + 1; missing < sequence; missing += 1) if (!removed.has(missing)) judge.find(this.rule, `${missing} is missing`);
      before = sequence;
    }
    for (const [by, records] of groupBy(judge.of('told'), (record) => record.by)) {
      let last = 0;
      for (const { event } of records) {
        if (event.sequence <= last) judge.find(this.rule, `${by} was told ${event.sequence} after ${last}`);
        last = Math.max(last, event.sequence);
      }
    }
    const told = new Set(judge.of('told').map(({ event }) => event.sequence));
    const last = Math.max(0, ...told);
    for (const event of judge.events) {
      if (event.sequence < last && !told.has(event.sequence)) judge.find(this.rule, `event ${event.sequence} was not told`, event);
    }
  },

  'versions grow and progress does not fall'(judge) {
    const latest = new Map();
    for (const seen of judge.of('seen')) {
      const before = latest.get(seen.id);
      latest.set(seen.id, seen);
      if (!before) continue;
      if (seen.version < before.version) judge.find(this.rule, `${seen.id} went from version ${before.version} to ${seen.version}`, [before, seen]);
      if (seen.completedChunks < before.completedChunks) judge.find(this.rule, `${seen.id} lost completed chunks`, [before, seen]);
      const same = seen.attempt === before.attempt && seen.recoveries === before.recoveries;
      if (same && seen.progress < before.progress) judge.find(this.rule, `${seen.id} fell from ${before.progress} %`, [before, seen]);
      if ((seen.progress === 100) !== (seen.state === 'completed')) judge.find(this.rule, `${seen.id} is ${seen.state} at ${seen.progress} %`, seen);
    }
    for (const [id, { status }] of judge.jobs) {
      const before = latest.get(id);
      if (before && status.version < before.version) judge.find(this.rule, `${id} ends at version ${status.version}, it was at ${before.version}`);
    }
  },

  'counters are those of the rows'(judge) {
    for (const [id, { status, rows }] of judge.jobs) {
      if (id === judge.counter) continue;
      const byState = { pending: 0, running: 0, completed: 0, failed: 0 };
      for (const { state } of rows) byState[state] += 1;
      if (rows.length !== status.totalChunks || byState.completed !== status.completedChunks) {
        judge.find(this.rule, `${id} counts ${status.completedChunks} of ${status.totalChunks}, its rows ${byState.completed} of ${rows.length}`);
      }
      for (const [state, count] of Object.entries(status.chunksByState ?? {})) {
        if (byState[state] !== count) judge.find(this.rule, `${id} counts ${count} chunks ${state}, its rows ${byState[state]}`);
      }
      if (byState.running > 0) judge.find(this.rule, `${id} has chunks that run`);
    }
  },

  'no update is lost'(judge) {
    const sure = judge.of('counted').length;
    const asked = judge.of('counting').length - judge.of('not counted').filter((record) => record.code === 'CONFLICT').length;
    const count = judge.jobs.get(judge.counter)?.status.meta?.count;
    if (!(count >= sure && count <= asked)) judge.find(this.rule, `${sure} updates were acknowledged, ${asked} may have happened, the record says ${count}`);
  },

  'an owner that lives notices the loss before the end of its lease'(judge) {
    // Ids of processes come again in long runs: one that began after the owner did is another's.
    const processes = new Map();
    for (const { owner, parent } of judge.ledger) if (parent !== 1) processes.set(owner, parent);
    const lives = groupBy(judge.of('process', 'ended'), (record) => record.pid);
    const deathOf = (pid, after) => (lives.get(pid) ?? []).find((record) => record.kind === 'ended' && record.at >= after)?.at ?? Infinity;
    const since = new Map();
    const stops = judge.of('fault').filter((record) => ['stop', 'continue'].includes(record.fault));
    const lost = new Map();
    for (const { event } of judge.of('heard')) {
      if (event.type === 'job.lease_lost') lost.set(`${event.owner} ${event.jobId}`, [...(lost.get(`${event.owner} ${event.jobId}`) ?? []), event.at]);
    }
    const started = new Map();
    for (const event of judge.events) {
      if (event.type === 'job.started') {
        started.set(event.jobId, event.owner);
        if (!since.has(event.owner)) since.set(event.owner, event.at);
      }
      // Resumed, it has an owner again, who has not begun it yet.
      if (event.type === 'job.resumed') started.delete(event.jobId);
      if (event.type !== 'job.recovered' || !event.previousOwner) continue;
      const { previousOwner: owner, jobId, at } = event;
      const pid = processes.get(owner);
      // A job that was claimed and not begun is not told to be lost.
      if (pid === undefined || started.get(jobId) !== owner) continue;
      // One that was about to die may not have come to say that it noticed.
      if (deathOf(pid, since.get(owner)) < at + 1000) continue;
      const stop = stops.findLast((record) => record.pid === pid && record.at >= since.get(owner) && record.at < at && record.fault === 'stop');
      if (stop) {
        const end = stops.find((record) => record.pid === pid && record.at > stop.at && record.fault === 'continue');
        if (!end || end.at + judge.leaseMs > at) continue;
      }
      const noticed = (lost.get(`${owner} ${jobId}`) ?? []).some((when) => when <= at && when > at - 120_000);
      if (!noticed) judge.find(this.rule, `${jobId} was taken from process ${pid}, which worked on it`, { event, noticed: lost.get(`${owner} ${jobId}`) });
    }
  },

  'no process outlives its owner and its job'(judge) {
    for (const orphan of judge.of('orphan')) judge.find(this.rule, `process ${orphan.pid} of ${orphan.job} still runs`, orphan);
  },

  'a process does not end by itself'(judge) {
    for (const ended of judge.of('ended')) if (!ended.wanted) judge.find(this.rule, `process ${ended.pid} in slot ${ended.slot} ended with ${ended.code ?? ended.signal}`);
  },
};

/** The violations of a run: which rule, what, and what shows it. None is well. */
export function check(history, ledger, options) {
  const judge = new Judge(history, ledger, options);
  for (const [rule, work] of Object.entries(RULES)) work.call({ rule }, judge);
  return judge.violations;
}
