import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import {
  InMemoryJobRepository,
  JobExecutor,
  LocalWorkerAdapter,
  type JobEvent,
  type JobEventType,
  type JobManager,
  type JobSpecInput,
  type JobStatus,
  type WorkerAdapter,
} from 'framewright';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { Random } from './support/random.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';

const PROGRESS: JobEventType[] = ['job.progress', 'chunk.progress'];
const kept = (events: JobEvent[]): JobEvent[] => events.filter((event) => !PROGRESS.includes(event.type));
const keptTypes = (events: JobEvent[], id: string): JobEventType[] => typesOf(kept(events), id);
const noop = (): JobExecutor => JobExecutor.fromFunction(async () => undefined);

/** Events of an iteration until one of a type has come. */
async function readUntil(events: AsyncIterable<JobEvent>, type: JobEventType): Promise<JobEvent[]> {
  const read: JobEvent[] = [];
  for await (const event of events) {
    read.push(event);
    if (event.type === type) return read;
  }
  return read;
}

/** The error that a synchronous call throws. */
function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  return undefined;
}

let rejections: unknown[] = [];
const unhandled = (error: unknown): void => void rejections.push(error);
beforeEach(() => {
  rejections = [];
  process.on('unhandledRejection', unhandled);
});
afterEach(() => {
  process.off('unhandledRejection', unhandled);
  expect(rejections).toEqual([]);
});

for (const { kind, create } of repositories) {
  describe(`events of jobs kept ${kind}`, () => {
    it('[F125] a job tells its whole life in order, with its chunks and its merge', async () => {
      const manager = open(create(), noop());
      const events = traceOf(manager);
      const id = await manager.submitJob(specOf(2, { mergeCommand: 'join all' }), { mergeAdapter: { execute: async () => chunkResult } });
      await manager.waitForJob(id);
      await until(() => keptTypes(events, id).includes('job.completed'));
      expect(keptTypes(events, id)).toEqual([
        'job.submitted', 'job.started', 'chunk.started', 'chunk.completed', 'chunk.started', 'chunk.completed', 'merge.started', 'merge.completed', 'job.completed',
      ]); // prettier-ignore
      const started = events.filter((event) => event.type === 'chunk.started');
      expect(started.map((event) => [event.chunkId, event.attempt])).toEqual([[0, 1], [1, 1]]);
      expect(events.find((event) => event.type === 'job.started')).toMatchObject({ attempt: 1, owner: expect.any(String) as string });
      for (const event of events) {
        expect(event.jobId).toBe(id);
        expect(Math.abs(event.at - Date.now())).toBeLessThan(60_000);
        if ('durationMs' in event) expect(event.durationMs).toBeGreaterThanOrEqual(0);
      }
      expect(events.map((event) => event.at)).toEqual(events.map((event) => event.at).toSorted((a, b) => a - b));
    });

    it('[F125] failures, retries, pause, resume, cancel and delete are told with what is known of them', async () => {
      let failures = 0;
      const executor = JobExecutor.fromFunction(async (chunk, { signal }) => {
        if (chunk.id === 0 && failures++ === 0) throw new Error('first try');
        if (chunk.id === 1) await whenAborted(signal);
      });
      const manager = open(create(), executor);
      const events = traceOf(manager);
      const id = await manager.submitJob(specOf(2), { retries: 1, retryDelay: 0, concurrency: 1 });
      await until(() => failures === 2);
      await turns(3);
      await manager.pauseJob(id);
      await manager.resumeJob(id);
      await until(() => events.filter((event) => event.type === 'job.started').length === 2);
      await manager.cancelJob(id, { reason: 'wrong scene' });
      await manager.deleteJob(id);
      await until(() => typesOf(events, id).includes('job.deleted'));
      const life = keptTypes(events, id).filter((type) => type.startsWith('job.'));
      expect(life).toEqual([
        'job.submitted', 'job.started', 'job.pausing', 'job.paused', 'job.resumed', 'job.started', 'job.cancelling', 'job.cancelled', 'job.deleted',
      ]); // prettier-ignore
      const failed = events.filter((event) => event.type === 'chunk.failed');
      expect(failed).toHaveLength(1);
      expect(failed[0]).toMatchObject({ chunkId: 0, attempt: 1, willRetry: true, retryInMs: 0, error: { code: 'CHUNK_FAILED', chunkId: 0, attempt: 1 } });
      expect(failed[0]!.error.message).toContain('first try');
      expect(events.find((event) => event.type === 'job.cancelled')).toMatchObject({ reason: 'wrong scene' });
    });

    it('[F125] a failed job tells its failure, and a failed merge too', async () => {
      const manager = open(create(), JobExecutor.fromFunction(async (chunk) => (chunk.id === 5 ? Promise.reject(new Error('no light')) : undefined)));
      const events = traceOf(manager);
      const id = await manager.submitJob({ chunks: [{ id: 5 }] });
      await manager.waitForJob(id);
      const merging = await manager.submitJob({ chunks: [{ id: 1 }], mergeCommand: 'join' }, { mergeAdapter: { execute: async () => ({ ...chunkResult, exitCode: 3, stderr: 'no space' }) } });
      await manager.waitForJob(merging);
      await until(() => typesOf(events, merging).includes('job.failed'));
      const of = (job: string): JobEvent[] => kept(events).filter((event) => event.jobId === job);
      expect(of(id).at(-1)).toMatchObject({ type: 'job.failed', error: { code: 'CHUNK_FAILED', chunkId: 5 } });
      expect(of(id).find((event) => event.type === 'chunk.failed')).toMatchObject({ willRetry: false });
      expect(of(merging).at(-2)).toMatchObject({ type: 'merge.failed', willRetry: false, error: { code: 'MERGE_FAILED', exitCode: 3 } });
      expect(of(merging).at(-1)).toMatchObject({ type: 'job.failed', error: { code: 'MERGE_FAILED' } });
    });

    it('[F125] kept events are numbered without a gap over all jobs of a store; progress carries the last kept number', async () => {
      const random = new Random();
      const manager = open(create(), JobExecutor.fromFunction(async (_, { reportProgress }) => {
        await turns(random.below(3));
        reportProgress(0.5);
        await turn();
      })); // prettier-ignore
      const events = traceOf(manager);
      const ids = await Promise.all(Array.from({ length: 20 }, () => manager.submitJob(specOf(5), { concurrency: 2 })));
      await manager.pauseJob(ids[3]!);
      await manager.cancelJob(ids[4]!);
      await manager.deleteJob(ids[5]!);
      await Promise.all(ids.filter((_, n) => n < 3 || n > 5).map((id) => manager.waitForJob(id)));
      await turns(10);
      const sequences = kept(events).map((event) => event.sequence);
      expect(sequences.length).toBeGreaterThan(17 * 12);
      expect(sequences, `seed ${random.seed}`).toEqual(sequences.map((_, n) => sequences[0]! + n));
      let last = 0;
      for (const event of events) {
        if (PROGRESS.includes(event.type)) expect(event.sequence).toBe(last);
        else last = event.sequence;
      }
      expect(events.some((event) => event.type === 'chunk.progress')).toBe(true);
      for (const id of ids) {
        const types = keptTypes(events, id);
        expect(types[0]).toBe('job.submitted');
        const at = (type: JobEventType): number => types.indexOf(type);
        if (at('job.completed') >= 0) expect(types.length - 1).toBe(at('job.completed'));
      }
    });

    it('[F125] a listener has heard what a call did when the promise of that call resolves', async () => {
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(create(), executor);
      const heard: string[] = [];
      manager.on('event', (event) => heard.push(event.type));
      const id = await manager.submitJob(specOf(2));
      expect(heard).toContain('job.submitted');
      await until(() => executor.ran.length === 1);
      await manager.pauseJob(id);
      expect(heard).toContain('job.paused');
      await manager.resumeJob(id);
      expect(heard).toContain('job.resumed');
      await manager.cancelJob(id);
      expect(heard).toContain('job.cancelled');
      await manager.deleteJob(id);
      expect(heard).toContain('job.deleted');
      const other = open(create(), { execute: async () => undefined });
      let completed = false;
      other.on('job.completed', () => (completed = true));
      await other.waitForJob(await other.submitJob(specOf(1)));
      expect(completed).toBe(true);
    });

    it('[F125] a request on its way is told at once, before the work has stopped', async () => {
      for (const [call, type, requested] of [['pauseJob', 'job.pausing', 'pause'], ['cancelJob', 'job.cancelling', 'cancel']] as const) {
        const gate = deferred();
        const manager = open(create(), { execute: () => gate.promise });
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(1));
        await nextEvent(manager, 'job.started', id);
        const called = manager[call](id);
        await turns(30);
        const told = typesOf(events, id).includes(type);
        const status = await manager.getJob(id);
        gate.resolve();
        await called;
        expect([told, status?.state, status?.requested]).toEqual([true, 'running', requested]);
        expect((await manager.getJob(id))?.requested).toBeUndefined();
      }
    });
  });
}

describe('listeners', () => {
  it('[F125] on hears every event of its type until off, once hears one, and each call gives the manager back', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const all = vi.fn();
    const completed = vi.fn();
    const first = vi.fn();
    const one = vi.fn();
    const never = vi.fn();
    expect(manager.on('event', all).on('job.completed', completed).once('job.completed', first).once('event', one).on('job.failed', never)).toBe(manager);
    for (let n = 0; n < 3; n += 1) await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect([completed.mock.calls.length, first.mock.calls.length, one.mock.calls.length, never.mock.calls.length]).toEqual([3, 1, 1, 0]);
    expect((one.mock.calls[0]![0] as JobEvent).type).toBe('job.submitted');
    const heard = all.mock.calls.length;
    expect(manager.off('event', all)).toBe(manager);
    manager.off('job.completed', completed);
    manager.off('job.completed', () => undefined);
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect(all.mock.calls.length).toBe(heard);
    expect(completed).toHaveBeenCalledTimes(3);
  });

  it('[F125] off of a once that has not been called keeps it from being called', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const listener = vi.fn();
    manager.once('job.completed', listener).off('job.completed', listener);
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect(listener).not.toHaveBeenCalled();
  });

  it('[F125] a listener registered twice is called twice, and off takes one of them away', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const listener = vi.fn();
    manager.on('job.completed', listener).on('job.completed', listener);
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect(listener).toHaveBeenCalledTimes(2);
    manager.off('job.completed', listener);
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect(listener).toHaveBeenCalledTimes(3);
  });

  it('[F125] a listener hears nothing of what was before it', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    const events = traceOf(manager);
    await turns(5);
    expect(events).toEqual([]);
    const id = await manager.submitJob(specOf(1));
    await manager.waitForJob(id);
    expect(events.every((event) => event.jobId === id)).toBe(true);
    expect(events[0]!.type).toBe('job.submitted');
  });

  for (const [how, fail] of [
    ['throws', () => { throw new Error('listener broke'); }],
    ['rejects', () => Promise.reject(new Error('listener broke'))],
    ['throws a string', () => { throw 'listener broke'; }], // eslint-disable-line @typescript-eslint/only-throw-error
  ] as const) {
    it(`[F125] a listener that ${how} changes nothing of the job, keeps nobody else from hearing, and is told as job.warning`, async () => {
      const records: { level: string; message: string }[] = [];
      const manager = open(new InMemoryJobRepository(), noop(), { logger: (record) => records.push(record) });
      const before = vi.fn();
      const after = vi.fn();
      manager.on('chunk.completed', before).on('chunk.completed', fail as () => void).on('chunk.completed', after);
      const events = traceOf(manager);
      const id = await manager.submitJob(specOf(2));
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2 });
      await until(() => typesOf(events, id).filter((type) => type === 'job.warning').length === 2);
      expect([before.mock.calls.length, after.mock.calls.length]).toEqual([2, 2]);
      for (const event of events) if (event.type === 'job.warning') expect(`${event.message} ${event.error?.message ?? ''}`).toContain('listener broke');
      expect(records.some((record) => record.message.includes('listener broke'))).toBe(true);
    });
  }

  it('[F125] a listener of warnings that throws does not warn of itself for ever', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const listener = vi.fn(() => {
      throw new Error('even this');
    });
    manager.on('job.warning', listener);
    manager.on('job.completed', () => {
      throw new Error('once');
    });
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    await turns(20);
    expect(listener).toHaveBeenCalledTimes(1);
  });

  it('[F125] listeners may submit, delete and take listeners away while they are called', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const ends: string[] = [];
    const gone = vi.fn();
    manager.on('job.completed', ({ jobId }) => {
      ends.push(jobId);
      manager.off('job.completed', gone);
      if (ends.length < 5) void manager.submitJob(specOf(1), { id: `next-${ends.length}` });
      else void manager.deleteJob(jobId);
    });
    manager.on('job.completed', gone);
    const deleted = nextEvent(manager, 'job.deleted');
    await manager.submitJob(specOf(1), { id: 'next-0' });
    expect((await deleted).jobId).toBe('next-4');
    expect(ends).toEqual(['next-0', 'next-1', 'next-2', 'next-3', 'next-4']);
    expect(gone.mock.calls.length).toBeLessThanOrEqual(1);
  });

  it('[F125] what is not a listener or not a type is refused with VALIDATION', () => {
    const manager = open(new InMemoryJobRepository(), noop());
    for (const method of ['on', 'once'] as const) {
      for (const wrong of [undefined, null, 'x', {}]) expect(thrownBy(() => manager[method]('event', wrong as never))).toMatchObject({ code: 'VALIDATION' });
      expect(thrownBy(() => manager[method](7 as never, () => undefined))).toMatchObject({ code: 'VALIDATION' });
    }
    expect(manager.off('event', undefined as never)).toBe(manager);
  });
});

describe('events() as an async iterator', () => {
  it('[F126] from a sequence number on: that one included, in order, none twice, none lost; from 0 all; without one from now', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const heard = traceOf(manager);
    await manager.waitForJob(await manager.submitJob(specOf(3)));
    const all = kept(heard);
    const later = manager.events();
    expect(kept(await readUntil(manager.events({ fromSequence: 0 }), 'job.completed'))).toEqual(all);
    const middle = all[4]!.sequence;
    expect(kept(await readUntil(manager.events({ fromSequence: middle }), 'job.completed'))).toEqual(all.slice(4));
    const reading = readUntil(later, 'job.completed');
    const ahead = readUntil(manager.events({ fromSequence: all.at(-1)!.sequence + 1 }), 'job.completed');
    const id = await manager.submitJob(specOf(1));
    const now = await reading;
    expect(now[0]).toMatchObject({ type: 'job.submitted', jobId: id, sequence: all.at(-1)!.sequence + 1 });
    expect(now.every((event) => event.jobId === id)).toBe(true);
    expect(kept(await ahead)).toEqual(kept(now));
  });

  it('[F126] what is replayed is followed by what happens, without a seam', async () => {
    const gate = deferred();
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => (chunk.id === 1 ? gate.promise : undefined)));
    const heard = traceOf(manager);
    const id = await manager.submitJob(specOf(3));
    await until(() => typesOf(heard, id).filter((type) => type === 'chunk.started').length === 2);
    const reading = readUntil(manager.events({ fromSequence: 0, jobId: id }), 'job.completed');
    gate.resolve();
    expect(kept(await reading)).toEqual(kept(heard));
  });

  it('[F126] filters by job and by types, together too', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const heard = traceOf(manager);
    const a = await manager.submitJob(specOf(2));
    const b = await manager.submitJob(specOf(3));
    await Promise.all([manager.waitForJob(a), manager.waitForJob(b)]);
    const types: JobEventType[] = ['chunk.completed', 'job.completed'];
    expect(await readUntil(manager.events({ fromSequence: 0, jobId: b, types }), 'job.completed')).toEqual(heard.filter((event) => event.jobId === b && types.includes(event.type)));
    const both = manager.events({ fromSequence: 0, types: ['job.completed'] });
    const ends: IteratorResult<JobEvent, unknown>[] = [await both.next(), await both.next()];
    expect(ends.map(({ value }) => (value as JobEvent).jobId).sort()).toEqual([a, b].sort());
    await both.return?.();
  });

  it('[F126] break, return() and the abort of its signal end it; what is asked for afterwards is done', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    await manager.waitForJob(await manager.submitJob(specOf(1)));
    const broken = manager.events({ fromSequence: 0 });
    for await (const event of broken) {
      expect(event.type).toBe('job.submitted');
      break;
    }
    expect(await broken.next()).toEqual({ done: true, value: undefined });

    const returned = manager.events();
    const pending = returned.next();
    await turns(3);
    expect(await returned.return?.()).toEqual({ done: true, value: undefined });
    expect(await pending).toEqual({ done: true, value: undefined });

    const controller = new AbortController();
    const reading = readUntil(manager.events({ signal: controller.signal }), 'job.deleted');
    const id = await manager.submitJob(specOf(1));
    await manager.waitForJob(id);
    await turns(3);
    controller.abort();
    expect((await reading).at(-1)).toMatchObject({ type: 'job.completed', jobId: id });
    expect(await readUntil(manager.events({ signal: controller.signal }), 'job.deleted')).toEqual([]);
  });

  it('[F126] it ends when its manager is closed, after what was still to be read', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const reading = readUntil(manager.events(), 'job.deleted');
    const id = await manager.submitJob(specOf(1));
    await manager.waitForJob(id);
    await manager.close();
    expect((await reading).map((event) => event.type)).toContain('job.completed');
  });

  it('[F126] two readers each get every event', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const readers = [manager.events(), manager.events()].map((events) => readUntil(events, 'job.completed'));
    await manager.submitJob(specOf(4));
    const [one, two] = await Promise.all(readers);
    expect(kept(one!)).toHaveLength(11);
    expect(kept(two!)).toEqual(kept(one!));
  });

  it('[F126] calls of next() that do not wait for each other get one event each, in order', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const events = manager.events();
    const asked = Array.from({ length: 4 }, () => events.next());
    await manager.submitJob(specOf(1));
    const got = await Promise.all(asked);
    expect(got.map((result) => (result.value as JobEvent).type)).toEqual(['job.submitted', 'job.started', 'chunk.started', 'chunk.completed']);
    await events.return?.();
  });

  it('[F125] a reader that is slow loses no kept event of 5,000 chunks; of progress it gets the latest', async () => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (_, { reportProgress }) => reportProgress(0.5)));
    const events = manager.events();
    const id = await manager.submitJob(specOf(5000), { concurrency: 8 });
    await manager.waitForJob(id);
    // Only now it begins to read.
    const read = await readUntil(events, 'job.completed');
    const sequences = kept(read).map((event) => event.sequence);
    expect(sequences).toHaveLength(3 + 2 * 5000);
    expect(sequences).toEqual(sequences.map((_, n) => sequences[0]! + n));
    const progress = read.flatMap((event) => (event.type === 'job.progress' ? [event.progress] : []));
    expect(progress).toEqual(progress.toSorted((a, b) => a - b));
  });

  it('[F126] of events that are not kept any more it says so, instead of leaving them out', async () => {
    const manager = open(new InMemoryJobRepository(), noop());
    const early = manager.events({ fromSequence: 0 });
    const id = await manager.submitJob({ plan: { totalFrames: 60_000, chunkSize: 1, outputFile: '{chunkId}', command: 'x' } }, { concurrency: 100 });
    await manager.waitForJob(id);
    expect(thrownBy(() => manager.events({ fromSequence: 1 }))).toMatchObject({ code: 'VALIDATION' });
    expect(thrownBy(() => manager.events({ fromSequence: 20_000 }))).toMatchObject({ code: 'VALIDATION' });
    const last = await readUntil(manager.events({ fromSequence: 21_000 }), 'job.completed');
    expect(kept(last)[0]!.sequence).toBe(21_000);
    expect(kept(last)).toHaveLength(120_003 - 21_000 + 1);
    // A reader that fell behind what is kept hears of it, too.
    await expect(readUntil(early, 'job.completed')).rejects.toMatchObject({ code: 'VALIDATION' });
    const all = await readUntil(manager.events({ fromSequence: 0 }), 'job.completed');
    expect(kept(all).length).toBeGreaterThanOrEqual(100_000);
  });

  it('[F126] wrong filters are refused with VALIDATION', () => {
    const manager = open(new InMemoryJobRepository(), noop());
    for (const filter of [null, 7, { fromSequence: -1 }, { fromSequence: 1.5 }, { fromSequence: NaN }, { fromSequence: '3' }, { types: 'job.completed' }]) {
      expect(thrownBy(() => manager.events(filter as never)), JSON.stringify(filter)).toMatchObject({ code: 'VALIDATION' });
    }
  });

  it('[F126] a loop that is being read keeps the process alive; one that has ended or was never read, and a listener, do not', async () => {
    const script = (body: string): string => `
      import { InMemoryJobRepository, JobExecutor, JobManager } from 'framewright';
      const manager = new JobManager(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
      ${body}`;
    const run = async (body: string): Promise<string> => {
      const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script(body)], {
        cwd: join(import.meta.dirname, '..'),
        timeout: 10_000,
      });
      return stdout.trim();
    };
    const [read, unread] = await Promise.all([
      run(`
        setTimeout(() => manager.submitJob({ chunks: [{ id: 0 }] }), 50).unref();
        for await (const event of manager.events()) {
          if (event.type !== 'job.completed') continue;
          console.log(event.type);
          break;
        }`),
      run(`
        manager.on('event', () => undefined);
        const events = manager.events();
        setTimeout(() => console.log('still here'), 2000).unref();
        console.log('end');`),
    ]);
    expect(read).toBe('job.completed');
    expect(unread).toBe('end');
  });
});

describe('two managers on one repository in memory', () => {
  it('[F125] each hears the events of the jobs that the other runs, with the same numbers, and submits into the same order', async () => {
    const repository = new InMemoryJobRepository();
    const a = open(repository, new OwnExecutor());
    const b = open(repository, new OwnExecutor());
    const [heardA, heardB] = [traceOf(a), traceOf(b)];
    const reading = readUntil(b.events({ types: ['job.completed'] }), 'job.completed');
    const first = await a.submitJob(specOf(3));
    const second = await b.submitJob(specOf(2));
    await Promise.all([a.waitForJob(second), b.waitForJob(first)]);
    await until(() => [heardA, heardB].every((events) => events.filter((event) => event.type === 'job.completed').length === 2));
    expect(kept(heardB)).toEqual(kept(heardA));
    expect(kept(heardA).map((event) => event.sequence)).toEqual(kept(heardA).map((_, n) => n + 1));
    expect((await reading)[0]!.type).toBe('job.completed');
    expect((await a.listJobs()).map((job) => job.id)).toEqual([first, second]);
  });
});

describe('what a status tells', () => {
  it('[F121] counts of chunks by their state, attempts, timings, result and error', async () => {
    const gates = [deferred(), deferred(), deferred()];
    let broken = true;
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => {
      if (chunk.id === 1 && broken) {
        broken = false;
        throw new Error('flicker');
      }
      await gates[chunk.id]?.promise;
      if (chunk.id === 3) throw new Error('no texture');
    })); // prettier-ignore
    const before = Date.now();
    const id = await manager.submitJob(specOf(4), { concurrency: 2, retries: 1, retryDelay: 0 });
    const waiting = (await manager.getJob(id))!;
    expect(waiting).toMatchObject({ state: 'pending', progress: 0, totalChunks: 4, completedChunks: 0, attempt: 0 });
    expect(waiting.chunksByState).toEqual({ pending: 4, running: 0, completed: 0, failed: 0 });
    expect(waiting.createdAt).toBeGreaterThanOrEqual(before - 1);
    expect(waiting.startedAt).toBeUndefined();
    gates[0]!.resolve();
    await until(async () => (await manager.getJob(id))?.completedChunks === 1 && (await manager.getJob(id))?.chunksByState?.running === 2);
    const running = (await manager.getJob(id))!;
    expect(running.chunksByState).toEqual({ pending: 1, running: 2, completed: 1, failed: 0 });
    expect(running.startedAt).toBeGreaterThanOrEqual(running.createdAt);
    expect(running.version).toBeGreaterThan(waiting.version);
    gates[1]!.resolve();
    gates[2]!.resolve();
    const failed = await manager.waitForJob(id);
    expect(failed).toMatchObject({ state: 'failed', completedChunks: 3, attempt: 1, failure: { code: 'CHUNK_FAILED', chunkId: 3, attempt: 2 } });
    expect(failed.error).toContain('no texture');
    expect(failed.error).toBe(failed.failure?.message);
    expect(failed.chunksByState).toEqual({ pending: 0, running: 0, completed: 3, failed: 1 });
    expect(failed.metrics).toMatchObject({ attempts: 6, retries: 2 });
    expect(failed.metrics?.totalDurationMs).toBeGreaterThanOrEqual(0);
    expect(failed.metrics?.queuedMs).toBeGreaterThanOrEqual(0);
    expect(failed.finishedAt).toBeGreaterThanOrEqual(failed.startedAt!);
    expect(Math.abs(failed.metrics!.wallMs! - (failed.finishedAt! - failed.startedAt!))).toBeLessThan(2);
    const chunks = await manager.chunks(id);
    expect(chunks.map((chunk) => [chunk.state, chunk.attempt])).toEqual([['completed', 1], ['completed', 2], ['completed', 1], ['failed', 2]]);
    expect(chunks[3]!.error).toMatchObject({ chunkId: 3, attempt: 2 });
    expect(await manager.chunks(id, { state: 'failed' })).toHaveLength(1);
    expect((await manager.chunks(id, { offset: 1, limit: 2 })).map((chunk) => chunk.id)).toEqual([1, 2]);
    expect((await rejection(manager.chunks('nobody'))).code).toBe('NOT_FOUND');
  });

  it('[F121] logs are in the order of completion, and only the tail of a long output', async () => {
    const gates = [deferred(), deferred(), deferred()];
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => {
      await gates[chunk.id]!.promise;
      return { stdout: `${'x'.repeat(2_000_000)}end of ${chunk.id}`, stderr: 'warning', durationMs: 12 };
    })); // prettier-ignore
    const id = await manager.submitJob(specOf(3), { concurrency: 3 });
    for (const [n, chunk] of [2, 0, 1].entries()) {
      gates[chunk]!.resolve();
      await until(async () => (await manager.getJob(id))?.completedChunks === n + 1);
    }
    const status = await manager.waitForJob(id);
    expect(status.logs?.map((log) => log.chunkId)).toEqual([2, 0, 1]);
    for (const log of status.logs ?? []) {
      expect(log).toMatchObject({ stderr: 'warning', durationMs: 12 });
      expect(log.stdout.endsWith(`end of ${log.chunkId}`)).toBe(true);
    }
    expect(JSON.stringify(status).length).toBeLessThan(250_000);
  });

  it('[F122] progress is weighted by frames, never falls in a run, and is 100 at completion only', async () => {
    const random = new Random();
    for (let n = 0; n < 20; n += 1) {
      const frames = Array.from({ length: 6 }, () => 1 + random.below(100));
      const tried = new Set<number>();
      const executor = JobExecutor.fromFunction(async (chunk, { reportProgress }) => {
        for (let step = 0; step < 3; step += 1) {
          reportProgress(random.below(100) / 100);
          await turns(random.below(3));
        }
        if (random.below(3) === 0 && !tried.has(chunk.id)) {
          tried.add(chunk.id);
          throw new Error('again');
        }
        reportProgress(1);
      });
      const manager = open(new InMemoryJobRepository(), executor);
      const told: number[] = [];
      manager.on('job.progress', (event) => told.push(event.progress));
      const id = await manager.submitJob({ chunks: frames.map((frameCount, chunk) => ({ id: chunk, frameCount })) }, { concurrency: 1 + random.below(4), retries: 1, retryDelay: 0 });
      const seen: number[] = [];
      let status: JobStatus;
      do {
        await turn();
        status = (await manager.getJob(id))!;
        seen.push(status.progress);
        if (status.state === 'running') expect(status.progress, `seed ${random.seed}`).toBeLessThan(100);
      } while (status.state !== 'completed');
      expect(seen.at(-1)).toBe(100);
      expect(seen, `seed ${random.seed}`).toEqual(seen.toSorted((a, b) => a - b));
      expect(told, `seed ${random.seed}`).toEqual(told.toSorted((a, b) => a - b));
      expect(told.length).toBeGreaterThan(0);
    }
  });

  it('[F122] progress after each chunk is the part of the frames that are done, and below 100 while the merge runs', async () => {
    const frames = [10, 30, 60];
    const merge = deferred();
    const gates = frames.map(() => deferred());
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction((chunk) => gates[chunk.id]!.promise));
    const spec: JobSpecInput = { chunks: frames.map((frameCount, id) => ({ id, frameCount })), mergeCommand: 'join' };
    const id = await manager.submitJob(spec, { mergeAdapter: { execute: () => merge.promise.then(() => chunkResult) } });
    const after: number[] = [];
    for (const [n, gate] of gates.entries()) {
      gate.resolve();
      await until(async () => (await manager.getJob(id))?.completedChunks === n + 1);
      after.push((await manager.getJob(id))!.progress);
    }
    expect(after.slice(0, 2)).toEqual([10, 40]);
    expect(after[2]).toBeGreaterThan(99);
    expect(after[2]).toBeLessThan(100);
    merge.resolve();
    expect((await manager.waitForJob(id)).progress).toBe(100);
  });

  it('[F122] a job without frames counts its chunks, and one without chunks is completed at 100', async () => {
    const gate = deferred();
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => (chunk.id === 2 ? gate.promise : undefined)));
    const id = await manager.submitJob({ chunks: [0, 1, 2, 3].map((chunk) => ({ id: chunk })) });
    await until(async () => (await manager.getJob(id))?.completedChunks === 2);
    expect((await manager.getJob(id))?.progress).toBe(50);
    gate.resolve();
    await manager.waitForJob(id);
    const none = await manager.submitJob({ chunks: [] });
    expect(await manager.waitForJob(none)).toMatchObject({ state: 'completed', progress: 100, totalChunks: 0 });
  });

  it('[F122] reportProgress moves the job inside a chunk, those of all running chunks together, and is told as chunk.progress', async () => {
    const reports: ((fraction: number) => void)[] = [];
    const gate = deferred();
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction((chunk, { reportProgress }) => {
      reports[chunk.id] = reportProgress;
      return gate.promise;
    })); // prettier-ignore
    const events = traceOf(manager);
    const id = await manager.submitJob(specOf(4), { concurrency: 2 });
    await until(() => reports.length === 2);
    const progress = async (): Promise<number> => (await manager.getJob(id))!.progress;
    reports[0]!(0.4);
    expect(await progress()).toBeCloseTo(10, 1);
    reports[0]!(0.2);
    expect(await progress()).toBeCloseTo(10, 1);
    reports[0]!(0.5);
    reports[1]!(0.5);
    expect(await progress()).toBeCloseTo(25, 1);
    for (const wrong of [NaN, -1, Infinity, '1' as never, undefined as never]) reports[0]!(wrong);
    expect(await progress()).toBeLessThanOrEqual(37.5);
    await turn();
    expect(events.filter((event) => event.type === 'chunk.progress').map((event) => event.chunkId)).toEqual(expect.arrayContaining([0, 1]));
    const report = reports[0]!;
    gate.resolve();
    await manager.waitForJob(id);
    report(0.1);
    expect(await progress()).toBe(100);
  });

  // A frame that is told of is done, or under way: one frame is five percent of this job.
  const outputs: [string, string | undefined, string[], number, number][] = [
    ["ffmpeg's frame= of the chunk", undefined, ['frame=    5 fps= 12 q=28.0 size=       0kB time=00:00:00.10\r'], 70, 75],
    ["Blender's Fra: of the scene", undefined, ['Fra:14 Mem:8.2', '5M (Peak 8.25M) | Rendering\n'], 70, 75],
    ['a pattern with a percentage', 'done (?<percent>[0-9.]+)%', ['done 30.5% of it\n'], 65.2, 65.3],
    ['a pattern with a frame', '#(?<frame>\\d+)#', ['#3#', '#6#'], 75, 80],
    ['a line that comes in pieces', undefined, ['fra', 'me=  ', '  5 fps=1\r'], 70, 75],
  ];
  for (const [what, progressPattern, pieces, low, high] of outputs) {
    for (const stream of ['onStdout', 'onStderr'] as const) {
      it(`[F122] ${what} on ${stream === 'onStdout' ? 'stdout' : 'stderr'} moves the job inside its chunk`, async () => {
        const gate = deferred();
        const adapter: WorkerAdapter = {
          async execute(job) {
            if (job.meta?.['chunkId'] === 0) return chunkResult;
            for (const piece of pieces) job[stream]?.(piece);
            await gate.promise;
            return chunkResult;
          },
        };
        const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter));
        // Chunk 0 is done at once, chunk 1 (frames 10 to 19) is under way.
        const id = await manager.submitJob(specOf(2), progressPattern === undefined ? {} : { progressPattern });
        await until(async () => (await manager.getJob(id))!.progress > 50, 'progress inside the chunk');
        const now = (await manager.getJob(id))!.progress;
        gate.resolve();
        await manager.waitForJob(id);
        expect(now).toBeGreaterThanOrEqual(low);
        expect(now).toBeLessThanOrEqual(high);
      });
    }
  }

  it('[F122] output of a real process moves the job inside its chunk', async () => {
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
    const spec = { chunks: [{ id: 0, startFrame: 0, frameCount: 100, argv: ['/bin/sh', '-c', 'echo "frame=   40 fps=2" >&2; exec sleep 600'] }] };
    const id = await manager.submitJob(spec);
    await until(async () => (await manager.getJob(id))!.progress > 0, 'progress of the process');
    const status = (await manager.getJob(id))!;
    await manager.cancelJob(id);
    expect(status.progress).toBeGreaterThanOrEqual(39);
    expect(status.progress).toBeLessThanOrEqual(41);
    expect(status.lastOutputAt).toBeGreaterThan(0);
  });

  it('[F123] a running job tells frames per second and how long it still takes; others do not', async () => {
    const gates = [deferred(), deferred()];
    const work = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => {
      await work(20);
      if (chunk.id === 2) await gates[0]!.promise;
      if (chunk.id === 8) await gates[1]!.promise;
    })); // prettier-ignore
    const id = await manager.submitJob(specOf(10));
    const pending = (await manager.getJob(id))!;
    expect([pending.eta, pending.fps]).toEqual([undefined, undefined]);
    const at = async (done: number): Promise<JobStatus> => {
      await until(async () => (await manager.getJob(id))?.completedChunks === done);
      return (await manager.getJob(id))!;
    };
    const early = await at(2);
    // Twenty frames in 40 ms or somewhat more.
    expect(early.fps).toBeGreaterThan(10);
    expect(early.fps).toBeLessThanOrEqual(550);
    expect(early.eta!.lowMs).toBeLessThanOrEqual(early.eta!.highMs);
    // Eight chunks of 20 ms are left.
    expect(early.eta!.highMs).toBeGreaterThanOrEqual(80);
    expect(early.eta!.lowMs).toBeLessThanOrEqual(3000);
    gates[0]!.resolve();
    const late = await at(8);
    expect(late.eta!.highMs).toBeLessThan(early.eta!.highMs);
    gates[1]!.resolve();
    const done = await manager.waitForJob(id);
    expect([done.eta]).toEqual([undefined]);
  });

  it('[F123] the time left is shared by the slots', async () => {
    const left = async (concurrency: number): Promise<number> => {
      const gate = deferred();
      const manager: JobManager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (chunk) => {
        if (chunk.id >= 4) await gate.promise;
        return { durationMs: 1000 };
      })); // prettier-ignore
      const id = await manager.submitJob(specOf(44), { concurrency });
      await until(async () => (await manager.getJob(id))?.completedChunks === 4);
      const { eta } = (await manager.getJob(id))!;
      gate.resolve();
      await manager.waitForJob(id);
      return (eta!.lowMs + eta!.highMs) / 2;
    };
    const [one, four] = [await left(1), await left(4)];
    expect(one / four).toBeGreaterThan(2.5);
    expect(one / four).toBeLessThan(6);
  });
});
