import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import {
  InMemoryJobRepository,
  JobExecutor,
  type JobEvent,
  type JobExecutionOptions,
  type JobManager,
  type JobSpec,
  type JobStatus,
  type JobStatusInput,
  type VideoStitcher,
  type WorkerAdapter,
  type WorkerResult,
} from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { Folder } from './support/folder.js';
import { open, repositories } from './support/managers.js';
import { MapRepository } from './support/map-repository.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { gone, isAlive } from './support/processes.js';
import { rejection } from './support/rejection.js';
import { adapters, local, shellJob } from './support/shell.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';
import { VersionedRepository } from './support/versioned-repository.js';

/** A job whose chunks tell the ids of their processes and never end by themselves. */
const endless = shellJob(2, 'echo $$; exec sleep 60');

/** Takes in what chunks of `endless` print. */
function pidReader(): { pids: number[]; onChunkStdout: (id: number, data: string) => void } {
  const pids: number[] = [];
  return { pids, onChunkStdout: (_, data) => void pids.push(...data.trim().split(/\s+/).map(Number)) };
}

/** Without a version it is kept unconditionally. */
function unversioned(status: JobStatus | undefined): JobStatusInput {
  const { version: _, ...rest } = status!;
  return rest;
}

/** Puts the inputs together once it may. */
class GatedStitcher implements VideoStitcher {
  readonly begun = deferred();
  readonly gate = deferred();
  async stitch(inputs: string[], output: string): Promise<void> {
    this.begun.resolve();
    await this.gate.promise;
    writeFileSync(output, inputs.map((input) => readFileSync(input, 'utf8')).join(''));
  }
}

for (const { kind, create } of repositories) {
  describe(`jobs kept ${kind}`, () => {
    for (const maxConcurrentJobs of [1, undefined]) {
      it(`[F28] a job that is submitted while another one is resumed runs, and gives its slot back (${maxConcurrentJobs ?? 'any number'} at once)`, async () => {
        let first = true;
        const executor = new OwnExecutor((_, signal) => {
          if (!first) return turn();
          first = false;
          return whenAborted(signal);
        });
        const manager = open(create(), executor, maxConcurrentJobs === undefined ? {} : { maxConcurrentJobs });
        const paused = await manager.submitJob(specOf(2));
        await until(() => executor.ran.length > 0);
        await manager.pauseJob(paused);
        const [, ...submitted] = await Promise.all([manager.resumeJob(paused), manager.submitJob(specOf(2)), manager.submitJob(specOf(2))]);
        for (const id of [paused, ...submitted, await manager.submitJob(specOf(1))]) {
          expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
        }
      });
    }

    for (const chunks of [2, 5000]) {
      it(`[F26] a signal that is aborted right after submitJob was called cancels the job (${chunks} chunks)`, async () => {
        const manager = open(create(), new OwnExecutor());
        const controller = new AbortController();
        const submit = manager.submitJob(specOf(chunks), { id: 'shot', signal: controller.signal });
        controller.abort();
        await submit.catch(() => undefined);
        const status = await manager.getJob('shot');
        if (status) expect((await manager.waitForJob('shot', { timeoutMs: 5000 })).state).toBe('cancelled');
      });
    }

    it('[F26] a signal that is aborted right after resumeJob was called cancels the job', async () => {
      const manager = open(create(), new OwnExecutor(async (id) => (id === 0 ? turn() : turns(3))));
      const id = await manager.submitJob(specOf(200));
      await manager.pauseJob(id);
      const controller = new AbortController();
      const resume = manager.resumeJob(id, { signal: controller.signal });
      controller.abort();
      const error = await resume.then(() => undefined, (thrown: unknown) => thrown);
      // Refused, and as it was; or taken, and cancelled.
      if (error) expect((await manager.getJob(id))?.state).toBe('paused');
      else expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('cancelled');
    });

    it('[F122] every report of an executor that tells only numbers is heard, also the latest', async () => {
      const heard: number[] = [];
      const manager = open(create(), {
        execute: async (_, options) => {
          for (let n = 1; n <= 10; n += 1) {
            options?.onProgress?.(n, 10);
            await until(() => heard.at(-1) === n, `report ${n} of 10`);
          }
        },
      });
      manager.on('job.progress', ({ completedChunks }) => heard.push(completedChunks));
      const id = await manager.submitJob(specOf(10));
      expect((await manager.waitForJob(id)).state).toBe('completed');
      expect(heard.slice(0, 10)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    });

    for (const durationMs of [Infinity, 1e39, NaN, -5]) {
      it(`[F121] a duration of ${durationMs} ms is not believed, and every reading goes on`, async () => {
        const result = { ...chunkResult, durationMs };
        const adapter: WorkerAdapter = { execute: async () => result };
        const own = { execute: async (spec: JobSpec, options?: { onChunkComplete?: (id: number, result: WorkerResult) => unknown }) => options?.onChunkComplete?.(spec.chunks[0]!.id, result) };
        for (const executor of [new JobExecutor(adapter), own]) {
          const manager = open(create(), executor);
          const events = traceOf(manager);
          const id = await manager.submitJob(specOf(1));
          const status = await manager.waitForJob(id);
          expect(status.state).toBe('completed');
          expect((await manager.listJobs()).map((job) => job.id)).toEqual([id]);
          const durations = [...(status.logs ?? []), ...(await manager.chunks(id))].map((entry) => entry.durationMs ?? 0);
          await until(() => typesOf(events, id).includes('job.completed'));
          for (const event of events) if ('durationMs' in event) durations.push(event.durationMs);
          expect(durations.filter((duration) => !(duration >= 0 && duration < Infinity))).toEqual([]);
        }
      });
    }

    for (const call of ['cancelJob', 'pauseJob', 'deleteJob'] as const) {
      it(`[F11] ${call} of a job whose first save is under way leaves one that is known and can be ended, or none at all`, async () => {
        const repository = create();
        const gate = deferred();
        const save = repository.save.bind(repository);
        vi.spyOn(repository, 'save').mockImplementationOnce(async (job) => {
          await gate.promise;
          await save(job);
        });
        const manager = open(repository, new OwnExecutor());
        const events = traceOf(manager);
        const submit = manager.submitJob(specOf(2), { id: 'shot' });
        await turns(5);
        const control = manager[call]('shot');
        await turns(5);
        gate.resolve();
        const [submitted] = await Promise.allSettled([submit, control]);
        const inStore = await repository.get('shot');
        const status = await manager.getJob('shot');
        expect(status === undefined).toBe(inStore === undefined);
        if (call !== 'deleteJob') {
          expect(submitted.status).toBe('fulfilled');
          expect(status).toBeDefined();
        }
        if (status?.state === 'paused') await manager.resumeJob('shot');
        if (status) expect(['completed', 'cancelled']).toContain((await manager.waitForJob('shot', { timeoutMs: 5000 })).state);
        const told = typesOf(events, 'shot');
        if (status) expect(told[0]).toBe('job.submitted');
        await manager.deleteJob('shot');
        expect([await manager.getJob('shot'), await repository.get('shot')]).toEqual([undefined, undefined]);
        await manager.submitJob(specOf(2), { id: 'shot' });
        expect((await manager.waitForJob('shot', { timeoutMs: 5000 })).state).toBe('completed');
      });
    }

    it('[F30] a delete that was accepted wins over a save of another state from outside', async () => {
      const repository = create();
      const begun = deferred();
      const end = deferred();
      const manager = open(repository, {
        execute: () => {
          begun.resolve();
          return end.promise;
        },
      });
      const id = await manager.submitJob(specOf(2));
      await begun.promise;
      const status = await repository.get(id);
      const removal = manager.deleteJob(id);
      await turns(10);
      await repository.save({ ...unversioned(status), state: 'paused' }).catch(() => undefined);
      end.resolve();
      await removal;
      expect([await manager.getJob(id), await repository.get(id)]).toEqual([undefined, undefined]);
    });

    it('[F2] nothing among thousands of chunks is refused by its place', async () => {
      for (const executor of [new OwnExecutor(), JobExecutor.fromFunction(() => Promise.resolve()), local()]) {
        const manager = open(create(), executor);
        for (const nothing of [null, undefined, 7, 'chunk']) {
          const spec = specOf(3000);
          (spec.chunks as unknown[])[1500] = nothing;
          const error = await rejection(manager.submitJob(spec));
          expect(error.code).toBe('VALIDATION');
          expect(error.issues?.map(({ path }) => path).join()).toMatch(/chunks\[1500\]/);
        }
        expect(await manager.listJobs()).toEqual([]);
      }
    });
  });
}

it('[F26] a signal that is aborted right after execute was called ends a run of its own', async () => {
  const ran: number[] = [];
  const executor = JobExecutor.fromFunction(async ({ id }) => {
    ran.push(id);
    await turn();
  });
  const controller = new AbortController();
  const run = executor.execute(specOf(100), { signal: controller.signal });
  controller.abort();
  expect(await rejection(run)).toMatchObject({ code: 'ABORTED', name: 'AbortError' });
  expect(ran.length).toBeLessThan(100);
});

describe('events in memory', () => {
  it('[F125] progress, however much of it, pushes none of the kept events out', async () => {
    const executor = JobExecutor.fromFunction(async (_, { reportProgress }) => {
      for (let n = 1; n <= 60_000; n += 1) {
        reportProgress(n / 60_000);
        if (n % 500 === 0) await turn();
      }
    });
    const manager = open(new InMemoryJobRepository(), executor);
    const events = traceOf(manager);
    const id = await manager.submitJob(specOf(2), { concurrency: 2 });
    await manager.waitForJob(id);
    await until(() => typesOf(events, id).includes('job.completed'));
    const kept: JobEvent[] = [];
    for await (const event of manager.events({ fromSequence: 1 })) {
      if (event.type !== 'job.progress' && event.type !== 'chunk.progress') kept.push(event);
      if (event.type === 'job.completed') break;
    }
    expect(kept.map(({ sequence }) => sequence)).toEqual(kept.map((_, n) => n + 1));
    expect(kept.filter(({ type }) => type === 'chunk.started')).toHaveLength(2);
  });

  it('[F125] 150,000 jobs that are submitted in one turn are all taken, and later events are still heard', async () => {
    const manager = open(new InMemoryJobRepository(), { execute: (_, options) => whenAborted(options?.signal) }, { maxConcurrentJobs: 1 });
    let heard = 0;
    manager.on('event', () => (heard += 1));
    const spec = { chunks: [] };
    const outcomes = await Promise.allSettled(Array.from({ length: 150_000 }, () => manager.submitJob(spec)));
    expect(outcomes.filter(({ status }) => status === 'rejected')).toEqual([]);
    await turns(5);
    expect(heard).toBeGreaterThan(0);
    const later = nextEvent(manager, 'job.submitted', 'later');
    await manager.submitJob(spec, { id: 'later' });
    expect((await later).jobId).toBe('later');
  });

  it('[F126] a reader that was too slow is told so once, and has ended then', async () => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(() => Promise.resolve()));
    const events = manager.events();
    await manager.waitForJob(await manager.submitJob({ plan: { totalFrames: 60_000, chunkSize: 1, outputFile: '{chunkId}', command: 'x' } }, { concurrency: 8 }));
    expect((await rejection(events.next())).code).toBe('VALIDATION');
    expect(await events.next()).toEqual({ done: true, value: undefined });
  });
});

for (const { kind, adapter } of adapters) {
  describe(`chunks ${kind}`, () => {
    for (const change of ['deleted', 'paused', 'cancelled'] as const) {
      it(`[F62] a job that is ${change} behind the manager's back ends: its processes are gone and its slot is free`, async () => {
        const repository = new InMemoryJobRepository();
        const manager = open(repository, new JobExecutor(adapter()), { maxConcurrentJobs: 1 });
        const events = traceOf(manager);
        const { pids, onChunkStdout } = pidReader();
        const id = await manager.submitJob(endless, { concurrency: 2, onChunkStdout });
        await until(() => pids.length === 2, 'two processes');
        const next = await manager.submitJob(shellJob(1, 'true'));
        if (change === 'deleted') await repository.delete(id);
        else await repository.save({ ...unversioned(await repository.get(id)), state: change });
        expect((await manager.waitForJob(next, { timeoutMs: 4000 })).state).toBe('completed');
        await gone(pids);
        expect((await manager.getJob(id))?.state).toBe(change === 'deleted' ? undefined : change);
        expect(events.flatMap((event) => (event.type === 'job.warning' && event.message.includes('did not stop') ? [event.message] : []))).toEqual([]);
        if (change === 'deleted') return;
        // None of its chunks runs any more, so none is told to.
        expect((await manager.chunks(id)).map(({ state }) => state)).toEqual(['pending', 'pending']);
        expect((await manager.getJob(id))?.chunksByState?.running).toBe(0);
      });
    }

    it('[F143] a close stops what a graceful pause still lets run: the job is paused and no process is left', { retry: 2 }, async () => {
      const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter()));
      const { pids, onChunkStdout } = pidReader();
      const id = await manager.submitJob(endless, { concurrency: 2, onChunkStdout });
      await until(() => pids.length === 2, 'two processes');
      const pause = manager.pauseJob(id, { mode: 'graceful' }).catch(() => undefined);
      await turns(5);
      const begun = performance.now();
      await manager.close();
      expect(pids.filter(isAlive)).toEqual([]);
      expect(performance.now() - begun).toBeLessThan(4500);
      expect((await manager.getJob(id))?.state).toBe('paused');
      await pause;
    });

    it("[F26] an executor that wraps ours may stop it by a signal of its own: nothing runs any more and the job is cancelled", async () => {
      const inner = new JobExecutor(adapter());
      const controller = new AbortController();
      const outcome = deferred<unknown>();
      const execute: typeof inner.execute = (spec, options) => {
        const run = inner.execute(spec, { ...options, signal: AbortSignal.any([options!.signal!, controller.signal]) });
        outcome.resolve(run.then(() => 'resolved', (error: unknown) => error));
        return run;
      };
      class Wrapper extends JobExecutor {
        override execute = execute;
      }
      const manager = open(new InMemoryJobRepository(), new Wrapper(adapter()));
      const { pids, onChunkStdout } = pidReader();
      const id = await manager.submitJob(endless, { concurrency: 2, onChunkStdout });
      await until(() => pids.length === 2, 'two processes');
      controller.abort();
      expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('cancelled');
      expect(pids.filter(isAlive)).toEqual([]);
      expect(await outcome.promise).toMatchObject({ name: 'AbortError' });
      // One that is aborted already runs nothing.
      const again = await manager.submitJob(endless, { onChunkStdout });
      expect((await manager.waitForJob(again, { timeoutMs: 5000 })).state).toBe('cancelled');
      expect(pids).toHaveLength(2);
    });

    it('[F64] a verifyOutput that a wrapper puts in place of the one given, or of none, is the one that is asked', async () => {
      for (const given of [() => true, undefined]) {
        const asked: number[] = [];
        class Wrapper extends JobExecutor {
          override execute(spec: JobSpec, options: JobExecutionOptions = {}): Promise<void> {
            return super.execute(spec, { ...options, verifyOutput: (_, chunk) => asked.push(chunk.id) < 0 });
          }
        }
        const manager = open(new InMemoryJobRepository(), new Wrapper(adapter()));
        const id = await manager.submitJob(shellJob(1, 'true'), given ? { verifyOutput: given } : {});
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'OUTPUT_MISSING' } });
        expect(asked).toEqual([0]);
      }
    });

    it('[F27] a graceful pause does not wait for the delay before another attempt, and the job goes on later', async () => {
      const folder = new Folder();
      const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter()));
      const failed = nextEvent(manager, 'chunk.failed');
      const id = await manager.submitJob(shellJob(1, 'echo try >> "$2"; [ -e "$3" ]', [folder.file('tries'), folder.file('ready')]), { retries: 1, retryDelay: 3_600_000 });
      expect(await failed).toMatchObject({ willRetry: true, retryInMs: 3_600_000 });
      await manager.pauseJob(id, { mode: 'graceful' });
      expect((await manager.getJob(id))?.state).toBe('paused');
      expect(folder.lines('tries')).toEqual(['try']);
      folder.write('ready', '');
      await manager.resumeJob(id);
      expect((await manager.waitForJob(id)).state).toBe('completed');
    });

    for (const good of [1, 'yes', {}] as unknown[]) {
      it(`[F64] an answer of verifyOutput that is truthy (${JSON.stringify(good)}) is a yes`, async () => {
        const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter()));
        const id = await manager.submitJob(shellJob(1, 'true'), { verifyOutput: (() => good) as () => boolean });
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed' });
      });
    }

    for (const bad of [0, '', undefined] as unknown[]) {
      it(`[F64] an answer of verifyOutput that is falsy (${JSON.stringify(bad)}) is a no, and no fault of the function`, async () => {
        const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter()));
        const id = await manager.submitJob(shellJob(1, 'true'), { verifyOutput: (() => bad) as () => boolean });
        const { state, failure } = await manager.waitForJob(id);
        expect([state, failure?.code]).toEqual(['failed', 'OUTPUT_MISSING']);
        expect(failure?.message).not.toContain('threw');
      });
    }
  });
}

describe('cleanupChunks', () => {
  const job = shellJob(2, 'echo frames > chunk-$1.txt');

  for (const mode of ['graceful', 'immediate'] as const) {
    it(`[F97] a merge that a pause (${mode}) overtakes loses nothing: the job is completed once it is resumed`, async () => {
      const folder = new Folder();
      const stitcher = new GatedStitcher();
      const manager = open(new InMemoryJobRepository(), local());
      const id = await manager.submitJob(job, { jobDir: folder.path, cleanupChunks: true, stitcher, outputFile: 'film.mp4' });
      await stitcher.begun.promise;
      const pause = manager.pauseJob(id, { mode });
      await turns(5);
      stitcher.gate.resolve();
      await pause;
      expect((await manager.getJob(id))?.state).toBe('paused');
      await manager.resumeJob(id);
      const { state, error } = await manager.waitForJob(id);
      expect([state, error]).toEqual(['completed', undefined]);
      expect(folder.read('film.mp4')).toBe('frames\nframes\n');
      await until(() => !folder.has('chunk-0.txt') && !folder.has('chunk-1.txt'), 'the removal of the chunk files');
    });
  }

  it('[F27] a graceful pause does not wait for the delay before another merge, which the resume runs', async () => {
    const folder = new Folder();
    const manager = open(new InMemoryJobRepository(), local());
    const failed = nextEvent(manager, 'merge.failed');
    const stitch = vi.fn<VideoStitcher['stitch']>().mockRejectedValueOnce(new Error('disk on fire')).mockImplementation(async (_, output) => writeFileSync(output, 'film'));
    const id = await manager.submitJob(job, { jobDir: folder.path, retries: 1, retryDelay: 3_600_000, stitcher: { stitch }, outputFile: 'film.mp4' });
    expect(await failed).toMatchObject({ willRetry: true });
    await manager.pauseJob(id, { mode: 'graceful' });
    expect([(await manager.getJob(id))?.state, stitch.mock.calls.length]).toEqual(['paused', 1]);
    await manager.resumeJob(id);
    expect([(await manager.waitForJob(id)).state, stitch.mock.calls.length]).toEqual(['completed', 2]);
  });

  it('[F97] removes nothing when the job was cancelled while it merged', async () => {
    const folder = new Folder();
    const stitcher = new GatedStitcher();
    const manager = open(new InMemoryJobRepository(), local());
    const id = await manager.submitJob(job, { jobDir: folder.path, cleanupChunks: true, stitcher, outputFile: 'film.mp4' });
    await stitcher.begun.promise;
    const cancel = manager.cancelJob(id);
    await turns(5);
    stitcher.gate.resolve();
    await cancel;
    expect((await manager.getJob(id))?.state).toBe('cancelled');
    expect(folder.names()).toEqual(expect.arrayContaining(['chunk-0.txt', 'chunk-1.txt']));
  });

  it('[F97] the merged file may lie in the folder of a chunk, and stays', async () => {
    const folder = new Folder();
    const manager = open(new InMemoryJobRepository(), local());
    const spec = shellJob(2, 'mkdir -p frames-$1 && echo frame > frames-$1/1.png');
    for (const chunk of spec.chunks!) chunk.outputFile = `frames-${chunk.id}`;
    const stitcher: VideoStitcher = { stitch: async (_, output) => writeFileSync(output, 'film') };
    const id = await manager.submitJob(spec, { jobDir: folder.path, cleanupChunks: true, stitcher, outputFile: 'frames-0/all.mp4' });
    const status = await manager.waitForJob(id);
    expect(status).toMatchObject({ state: 'completed', result: { path: folder.file('frames-0/all.mp4'), bytes: 4 } });
    await until(() => !folder.has('frames-1'), 'the removal of the other chunk');
    expect(folder.read('frames-0/all.mp4')).toBe('film');
  });
});

describe('a close with a repository in JavaScript', () => {
  /** A store that takes a good while for one of the saves. */
  function slowFor(isSlow: (job: JobStatusInput) => boolean): MapRepository {
    const repository = new MapRepository();
    const save = repository.save.bind(repository);
    vi.spyOn(repository, 'save').mockImplementation(async (job) => {
      if (isSlow(job)) await new Promise((resolve) => setTimeout(resolve, 150));
      await save(job);
    });
    return repository;
  }

  it('[F143] resolves when the store has the end of a job that ended within finishMs, and all are told of it', async () => {
    const repository = slowFor(({ state }) => state === 'completed');
    const end = deferred();
    const manager = open(repository, { execute: () => end.promise });
    const id = await manager.submitJob(specOf(1));
    await until(() => repository.statesOf(id).includes('running'));
    const told: string[] = [];
    const reading = (async () => {
      for await (const { type } of manager.events({ fromSequence: 0 })) told.push(type);
    })();
    const waiting = manager.waitForJob(id);
    const close = manager.close({ finishMs: 4000 });
    end.resolve();
    await close;
    expect(JSON.parse(repository.records.get(id)!)).toMatchObject({ state: 'completed' });
    expect((await waiting).state).toBe('completed');
    await reading;
    expect(told).toContain('job.completed');
  });

  it('[F143] resolves when the store has what it stopped as pending', async () => {
    const repository = slowFor(({ id, state }) => state === 'pending' && repository.statesOf(id).includes('running'));
    const manager = open(repository, new OwnExecutor((_, signal) => whenAborted(signal)));
    const ids = await Promise.all([manager.submitJob(specOf(1)), manager.submitJob(specOf(1))]);
    await until(() => ids.every((id) => repository.statesOf(id).includes('running')));
    await manager.close();
    expect(ids.map((id) => (JSON.parse(repository.records.get(id)!) as JobStatus).state)).toEqual(['pending', 'pending']);
  });
});

for (const keepsRecord of [true, false]) {
  describe(`a repository that checks versions and ${keepsRecord ? 'keeps' : 'drops'} record`, () => {
    for (const lost of ['pending', 'running', 'completed'] as const) {
      it(`[F149] a save (${lost}) that is kept although its answer is lost holds nothing up`, async () => {
        const repository = new VersionedRepository(keepsRecord);
        let left = 1;
        repository.kept = (job) => {
          if (job.state !== lost || left === 0) return;
          left -= 1;
          throw new Error('socket hang up');
        };
        const manager = open(repository, new OwnExecutor());
        const events = traceOf(manager);
        const submit = manager.submitJob(specOf(3), { id: 'shot' });
        if (lost === 'pending') {
          // Refused: nothing runs. The caller may look and go on.
          await rejection(submit);
          expect(left).toBe(0);
          await manager.deleteJob('shot');
          await manager.submitJob(specOf(3), { id: 'shot' });
        } else await submit;
        expect((await manager.waitForJob('shot', { timeoutMs: 5000 })).state).toBe('completed');
        await until(() => typesOf(events, 'shot').includes('job.completed'));
        expect(left).toBe(0);
        expect(repository.records.get('shot')).toMatchObject({ state: 'completed', completedChunks: 3 });
      });
    }

    it('[F149] a life with pauses and resumes never names a version that was not seen', async () => {
      const repository = new VersionedRepository(keepsRecord);
      const executor: OwnExecutor = new OwnExecutor((id, signal) => (id === 1 && executor.calls.length < 3 ? whenAborted(signal) : turn()));
      const manager = open(repository, executor);
      const id = await manager.submitJob(specOf(3));
      for (const run of [1, 2]) {
        await until(() => executor.calls.length === run && executor.ran.at(-1) === 1);
        await manager.pauseJob(id);
        expect(repository.records.get(id)?.state).toBe('paused');
        await manager.resumeJob(id);
      }
      expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
      expect(repository.conflicts).toBe(0);
    });

    it('[F28] a pause that read the record before a resume, and hears of it after, pauses the job, which goes on later', async () => {
      const repository = new VersionedRepository(keepsRecord);
      const executor: OwnExecutor = new OwnExecutor((_, signal) => (executor.calls.length < 3 ? whenAborted(signal) : turn()));
      const manager = open(repository, executor);
      const id = await manager.submitJob(specOf(3));
      await until(() => executor.ran.length === 1);
      await manager.pauseJob(id);
      const get = repository.get.bind(repository);
      vi.spyOn(repository, 'get')
        .mockImplementationOnce(get)
        .mockImplementationOnce(async (id) => {
          const found = await get(id);
          await until(() => executor.ran.length === 2 && repository.records.get(id)?.state === 'running');
          await turns(5);
          return found;
        });
      const settled = await Promise.allSettled([manager.resumeJob(id), manager.pauseJob(id)]);
      expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
      expect(repository.records.get(id)?.state).toBe('paused');
      await manager.resumeJob(id);
      expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
      expect(repository.records.get(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
    });
  });
}

it('[F145] the cancel of a waiting job takes about as long among 20,000 of them as among 400', { retry: 2 }, async () => {
  const perCall = async (count: number): Promise<number> => {
    const manager = open(new InMemoryJobRepository(), { execute: (_, options) => whenAborted(options?.signal) }, { maxConcurrentJobs: 1 });
    const ids = await Promise.all(Array.from({ length: count }, () => manager.submitJob({ chunks: [] })));
    await until(async () => (await manager.getJob(ids[0]!))?.state === 'running');
    const begun = performance.now();
    for (const id of ids.slice(1)) await manager.cancelJob(id);
    const took = (performance.now() - begun) / count;
    expect((await manager.listJobs({ state: 'cancelled' })).length).toBe(count - 1);
    return took;
  };
  await perCall(400);
  const few = Math.max(await perCall(400), await perCall(400));
  expect((await perCall(20_000)) / few).toBeLessThan(10);
});

it("[F28] a waiting job that another manager paused and resumed is that one's: it runs once, with the options given there", async () => {
  const repository = new InMemoryJobRepository();
  const ends = [deferred(), deferred()];
  const ran: string[] = [];
  const [first, second] = ends.map((end, n) =>
    open(repository, { execute: async (spec, options) => {
      ran.push(`${spec.id} by ${n}`);
      if (spec.id === 'blocker') await end.promise;
      else options?.onProgress?.(1, 2);
    } }, { maxConcurrentJobs: 1 }),
  ) as [JobManager, JobManager]; // prettier-ignore
  const blockers = [await first.submitJob(specOf(1, { id: 'blocker' })), await second.submitJob(specOf(1, { id: 'blocker' }))];
  const old = vi.fn();
  const given = vi.fn();
  const id = await first.submitJob(specOf(2, { id: 'shot' }), { onProgress: old });
  await until(() => ran.length === 2);
  await second.pauseJob(id);
  await second.resumeJob(id, { onProgress: given });
  ends[0]!.resolve();
  await first.waitForJob(blockers[0]!);
  await turns(10);
  expect(ran).not.toContain('shot by 0');
  ends[1]!.resolve();
  expect((await second.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
  expect(ran.filter((run) => run.startsWith('shot'))).toEqual(['shot by 1']);
  expect([given.mock.calls, old.mock.calls]).toEqual([[[1, 2]], []]);
});

it('[F28] a waiting job that another manager cancelled takes no slot when its turn comes', async () => {
  const repository = new InMemoryJobRepository();
  const end = deferred();
  const executor = { execute: vi.fn((spec: JobSpec) => (spec.id === 'blocker' ? end.promise : Promise.resolve())) };
  const first = open(repository, executor, { maxConcurrentJobs: 1 });
  const second = open(repository, executor);
  await first.submitJob(specOf(1, { id: 'blocker' }));
  const id = await first.submitJob(specOf(1));
  const next = await first.submitJob(specOf(1, { id: 'next' }));
  await second.cancelJob(id);
  end.resolve();
  expect((await first.waitForJob(next, { timeoutMs: 5000 })).state).toBe('completed');
  expect(executor.execute.mock.calls.map(([spec]) => spec.id)).toEqual(['blocker', 'next']);
  await second.deleteJob(id);
  expect(await first.getJob(id)).toBeUndefined();
});

describe('records of a store in JavaScript', () => {
  it('[F149] a record without chunks, or without a spec, is read like any other', async () => {
    const repository = new MapRepository();
    const manager = open(repository, new OwnExecutor());
    const whole = await manager.submitJob(specOf(1));
    await manager.waitForJob(whole);
    repository.records.set('bare', JSON.stringify({ id: 'bare', spec: {}, state: 'completed' }));
    repository.records.set('none', JSON.stringify({ id: 'none', state: 'paused' }));
    repository.records.set('plan', JSON.stringify({ id: 'plan', spec: { plan: { totalFrames: 10, chunkSize: 1, outputFile: 'x', command: 'x' } }, state: 'paused' }));
    for (const id of ['bare', 'none', 'plan']) expect(await manager.getJob(id)).toMatchObject({ id, completedChunks: 0, tags: [], priority: 'medium' });
    expect((await manager.listJobs()).map(({ id }) => id)).toEqual([whole, 'bare', 'none', 'plan']);
  });

  it('[F149] an id whose record somebody took out of the store can be given again', async () => {
    const repository = new MapRepository();
    const executor = new OwnExecutor();
    const manager = open(repository, executor);
    await manager.submitJob(specOf(1), { id: 'shot' });
    await manager.waitForJob('shot');
    repository.records.delete('shot');
    await manager.submitJob(specOf(2), { id: 'shot' });
    expect(await manager.waitForJob('shot')).toMatchObject({ state: 'completed', completedChunks: 2 });
    expect(executor.ran).toEqual([0, 0, 1]);
  });
});

it('[F149] a save of what was seen before a close does not bring the running job back', async () => {
  const repository = new InMemoryJobRepository();
  const executor = new OwnExecutor((_, signal) => whenAborted(signal));
  const manager = open(repository, executor);
  const id = await manager.submitJob(specOf(2));
  await until(() => executor.ran.length === 1);
  const seen = (await repository.get(id))!;
  expect(seen.state).toBe('running');
  await manager.close();
  expect((await repository.get(id))?.version).toBeGreaterThan(seen.version);
  expect((await rejection(repository.save(seen))).code).toBe('CONFLICT');
  expect(await repository.get(id)).toMatchObject({ state: 'pending', chunksByState: { running: 0 } });
});

for (const outputFile of ['out$$1.mp4', 'a$&b.mp4', 'a$`b.mp4', "a$'b.mp4"]) {
  it(`[F92] mergeCommand gets an output file named ${outputFile} by that very name`, async () => {
    const folder = new Folder();
    mkdirSync(folder.file('chunks'));
    const manager = open(new InMemoryJobRepository(), local());
    const id = await manager.submitJob(shellJob(1, 'true', [], { mergeCommand: '/bin/sh -c \'echo film > "$1"\' sh {outputFile}' }), { jobDir: folder.path, outputFile });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', result: { path: folder.file(outputFile), bytes: 5 } });
    expect(folder.names()).toEqual(['chunks', outputFile].sort());
  });
}

for (const exitCode of [2 ** 32, 2 ** 32 + 256, 0xc0000005, -1, NaN, 0.5]) {
  it(`[F63] an exit code of ${exitCode} is a failure, and not told as 0`, async () => {
    const adapter: WorkerAdapter = { execute: async () => ({ ...chunkResult, exitCode }) };
    const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter));
    const { state, failure, error } = await manager.waitForJob(await manager.submitJob(specOf(1)));
    expect([state, failure?.code]).toEqual(['failed', 'CHUNK_FAILED']);
    expect(failure?.exitCode).not.toBe(0);
    expect(error).not.toMatch(/exit code 0\b/);
    if (exitCode > 1) expect(failure?.exitCode).toBeGreaterThan(0);
  });
}

it('[F85] a chunk that fails for good stops its siblings at once, though none of them ever waits for anything', async () => {
  for (const fail of [() => Promise.reject(new Error('no')), async () => ({ exitCode: 3 })]) {
    let turnsTaken = 0;
    const executor = JobExecutor.fromFunction(async ({ id }, { signal }) => {
      if (id === 0) return fail();
      while (!signal.aborted && turnsTaken < 100_000) {
        turnsTaken += 1;
        await Promise.resolve();
      }
      return undefined;
    });
    const manager = open(new InMemoryJobRepository(), executor);
    const id = await manager.submitJob(specOf(2), { concurrency: 2 });
    expect((await manager.waitForJob(id)).state).toBe('failed');
    expect(turnsTaken).toBeLessThan(100);
  }
});

it('[F126] events from a number that is still to come begin with it, progress of before included', async () => {
  const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async (_, { reportProgress }) => reportProgress(0.5)));
  const all = traceOf(manager);
  await manager.waitForJob(await manager.submitJob(specOf(1)));
  await until(() => all.at(-1)?.type === 'job.completed');
  const from = all.at(-1)!.sequence + 4;
  const ahead = manager.events({ fromSequence: from });
  const seen: number[] = [];
  const read = (async () => {
    for await (const event of ahead) {
      seen.push(event.sequence);
      if (event.type === 'job.completed') break;
    }
  })();
  await manager.waitForJob(await manager.submitJob(specOf(3)));
  await read;
  expect(seen[0]).toBe(from);
  expect(Math.min(...seen)).toBe(from);
});

it('[F121] looking at a job of many finished chunks costs the same however many there are', { retry: 2 }, async () => {
  const cost = async (count: number): Promise<number> => {
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
    const plan = { totalFrames: count, chunkSize: 1, outputFile: '{chunkId}', command: 'x' };
    const completedChunkIds = Array.from({ length: count - 1100 }, (_, id) => id + 1100);
    const id = await manager.submitJob({ plan }, { completedChunkIds });
    await manager.waitForJob(id);
    const look = async (): Promise<number> => {
      const begun = performance.now();
      for (let n = 0; n < 200; n += 1) expect((await manager.getJob(id))?.totalChunks).toBe(count);
      return performance.now() - begun;
    };
    await look();
    const costs = [await look(), await look(), await look()];
    const status = await manager.getJob(id);
    await manager.deleteJob(id);
    expect(status!.logs).toHaveLength(1100);
    return Math.min(...costs);
  };
  // A copy of the rows would be 6.4 MB each time.
  expect(await cost(400_000)).toBeLessThan((await cost(6000)) * 4 + 20);
});
