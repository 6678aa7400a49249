import { readFile } from 'node:fs/promises';
import {
  InMemoryJobRepository,
  JobExecutor,
  LocalWorkerAdapter,
  type ArtifactStorage,
  type Executor,
  type JobExecutionOptions,
  type JobManager,
  type JobManagerOptions,
  type JobRepository,
  type JobSpec,
  type WorkerAdapter,
  type WorkerJob,
} from 'framewright';
import { describe, expect, it, vi } from 'vitest';
import { deferred, type Deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { MapRepository } from './support/map-repository.js';
import { OwnExecutor, abortError, chunkResult, whenAborted } from './support/own-executor.js';
import { Random } from './support/random.js';
import { rejection } from './support/rejection.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';

/** Whether a process is there; one that has ended and was not yet reaped is not. */
async function lives(pid: number): Promise<boolean> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  const state = text.slice(text.lastIndexOf(')') + 2, text.lastIndexOf(')') + 3);
  return state !== '' && state !== 'Z' && state !== 'X';
}

const ENDS = ['job.completed', 'job.failed', 'job.cancelled'];

for (const { kind, create } of repositories) {
  describe(`control of jobs kept ${kind}`, () => {
    it('[F24] pause and cancel that race with completion leave one end, and the record, the events and every reader agree on it', async () => {
      const random = new Random();
      const seen = new Set<string>();
      for (let n = 0; n < 100; n += 1) {
        const repository = create();
        const gate = deferred();
        const manager = open(repository, { execute: () => gate.promise });
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(1));
        await nextEvent(manager, 'job.started', id);
        const at = async (turnsLater: number, act: () => unknown): Promise<void> => {
          await turns(turnsLater);
          await act();
        };
        await Promise.all([
          at(random.below(6), () => gate.resolve()),
          at(random.below(6), () => manager.pauseJob(id)),
          at(random.below(6), () => manager.cancelJob(id)),
        ]);
        const why = `case ${n} of seed ${random.seed}`;
        const { state } = await manager.waitForJob(id, { timeoutMs: 5000 });
        seen.add(state);
        await turns(5);
        expect((await manager.getJob(id))?.state, why).toBe(state);
        expect((await repository.get(id))?.state, why).toBe(state);
        const ends = typesOf(events, id).filter((type) => ENDS.includes(type));
        expect(ends, why).toEqual([`job.${state}`]);
        expect(typesOf(events, id).at(-1), why).toBe(`job.${state}`);
      }
      expect([...seen].sort()).toEqual(['cancelled', 'completed']);
    });

    it('[F24] an accepted cancel wins over an executor that resolves afterwards', async () => {
      const gate = deferred<unknown>();
      const stopped = deferred();
      const manager = open(create(), {
        execute: (_, options) => {
          options?.signal?.addEventListener('abort', () => stopped.resolve());
          return gate.promise;
        },
      });
      const id = await manager.submitJob(specOf(2));
      await nextEvent(manager, 'job.started', id);
      const cancelled = manager.cancelJob(id);
      await stopped.promise;
      expect((await manager.getJob(id))?.state).toBe('running');
      gate.resolve({ video: 'out.mp4' });
      await cancelled;
      const status = await manager.getJob(id);
      expect(status).toMatchObject({ state: 'cancelled' });
      expect(status?.result).toBeUndefined();
      expect(status?.progress).toBeLessThan(100);
    });

    it('[F24] an accepted completion wins over a cancel, a pause and a strict cancel that come later', async () => {
      const manager = open(create(), { execute: async () => 'done' });
      const id = await manager.submitJob(specOf(2));
      await manager.waitForJob(id);
      await Promise.all([manager.cancelJob(id), manager.pauseJob(id), manager.resumeJob(id)]);
      expect((await rejection(manager.cancelJob(id, { strict: true }))).code).toBe('INVALID_TRANSITION');
      expect(await manager.getJob(id)).toMatchObject({ state: 'completed', progress: 100, completedChunks: 2, result: 'done' });
    });

    it('[F25] cancel of a running job resolves only when its executor has settled', async () => {
      const gate = deferred();
      const manager = open(create(), { execute: () => gate.promise });
      const events = traceOf(manager);
      const id = await manager.submitJob(specOf(1));
      await nextEvent(manager, 'job.started', id);
      let resolved = false;
      const cancelled = manager.cancelJob(id, { reason: 'the customer left' }).then(() => (resolved = true));
      await until(async () => (await manager.getJob(id))?.requested === 'cancel' || typesOf(events, id).includes('job.cancelling'));
      await turns(20);
      expect(resolved).toBe(false);
      gate.reject(abortError());
      await cancelled;
      expect((await manager.getJob(id))?.state).toBe('cancelled');
      expect(events.at(-1)).toMatchObject({ type: 'job.cancelled', jobId: id, reason: 'the customer left' });
    });

    it('[F25] cancel of a pending and of a paused job resolves at once and they never run again', async () => {
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(create(), executor, { maxConcurrentJobs: 1 });
      const first = await manager.submitJob(specOf(2));
      await until(() => executor.ran.length === 1);
      const second = await manager.submitJob(specOf(2));
      await manager.cancelJob(second);
      await manager.pauseJob(first);
      await manager.cancelJob(first);
      await manager.resumeJob(first);
      await manager.resumeJob(second);
      await turns(10);
      expect((await manager.listJobs()).map((job) => job.state)).toEqual(['cancelled', 'cancelled']);
      expect(executor.ran).toEqual([0]);
    });

    it('[F25] several cancels of one job at once all resolve, and the job is told once that it is cancelled', async () => {
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(create(), executor);
      const events = traceOf(manager);
      const id = await manager.submitJob(specOf(2));
      await until(() => executor.ran.length === 1);
      await Promise.all([manager.cancelJob(id), manager.cancelJob(id, { strict: true }), manager.cancelJob(id)]);
      expect(typesOf(events, id).filter((type) => type === 'job.cancelled')).toHaveLength(1);
      expect((await manager.getJob(id))?.state).toBe('cancelled');
    });

    it('[F26] cancel right after submit runs 0 chunks, whatever the concurrency', async () => {
      for (const concurrency of [1, 5]) {
        for (const later of [0, 1]) {
          const run = vi.fn(async () => undefined);
          const manager = open(create(), JobExecutor.fromFunction(run));
          const id = await manager.submitJob(specOf(5), { concurrency });
          if (later) await Promise.resolve();
          await manager.cancelJob(id);
          await turns(10);
          expect(run).toHaveBeenCalledTimes(0);
          expect(await manager.getJob(id)).toMatchObject({ state: 'cancelled', completedChunks: 0, progress: 0 });
        }
      }
    });

    it("[F26] cancel right after submit never calls the user's executor, nor does a submit whose signal is aborted right after", async () => {
      const execute = vi.fn(async () => undefined);
      const manager = open(create(), { execute });
      await manager.cancelJob(await manager.submitJob(specOf(5)));
      const controller = new AbortController();
      const id = await manager.submitJob(specOf(5), { signal: controller.signal });
      controller.abort();
      expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('cancelled');
      await turns(10);
      expect(execute).not.toHaveBeenCalled();
    });

    it('[F27] an immediate pause stops the running chunk, which is done again after the resume', async () => {
      const gates = [deferred(), deferred(), deferred()];
      const attempts: [number, number][] = [];
      const aborts: number[] = [];
      const executor = JobExecutor.fromFunction(async (chunk, { signal, attempt }) => {
        attempts.push([chunk.id, attempt]);
        const stop = (): void => void aborts.push(chunk.id);
        signal.addEventListener('abort', stop);
        await Promise.race([gates[chunk.id]!.promise, whenAborted(signal)]);
        signal.removeEventListener('abort', stop);
      });
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(3));
      gates[0]!.resolve();
      await until(() => attempts.length === 2);
      await manager.pauseJob(id);
      expect(aborts).toEqual([1]);
      expect(await manager.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 1 });
      expect((await manager.chunks(id)).map((chunk) => chunk.state)).toEqual(['completed', 'pending', 'pending']);
      gates[1]!.resolve();
      gates[2]!.resolve();
      await manager.resumeJob(id);
      expect((await manager.waitForJob(id)).state).toBe('completed');
      expect(attempts).toEqual([[0, 1], [1, 1], [1, 2], [2, 1]]);
    });

    it('[F27] a graceful pause lets the running chunks end, begins no other, and resolves only then', async () => {
      const gates = Array.from({ length: 5 }, () => deferred());
      const begun: number[] = [];
      const aborts: number[] = [];
      const executor = JobExecutor.fromFunction(async (chunk, { signal }) => {
        begun.push(chunk.id);
        signal.addEventListener('abort', () => aborts.push(chunk.id));
        await gates[chunk.id]!.promise;
      });
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(5), { concurrency: 2 });
      await until(() => begun.length === 2);
      let resolved = false;
      const paused = manager.pauseJob(id, { mode: 'graceful' }).then(() => (resolved = true));
      await turns(10);
      gates[0]!.resolve();
      await turns(10);
      expect(resolved).toBe(false);
      expect((await manager.getJob(id))?.state).toBe('running');
      gates[1]!.resolve();
      await paused;
      expect(begun).toEqual([0, 1]);
      expect(aborts).toEqual([]);
      expect(await manager.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 2 });
      for (const gate of gates) gate.resolve();
      await manager.resumeJob(id);
      expect((await manager.waitForJob(id)).state).toBe('completed');
      expect(begun).toEqual([0, 1, 2, 3, 4]);
    });

    it('[F27] a graceful pause becomes immediate when an immediate one follows, and both resolve', async () => {
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(2));
      await until(() => executor.ran.length === 1);
      const graceful = manager.pauseJob(id, { mode: 'graceful' });
      await turns(3);
      await Promise.all([manager.pauseJob(id), graceful]);
      expect((await manager.getJob(id))?.state).toBe('paused');
    });

    it('[F27] 200 of 200 pauses at random moments, immediate and graceful, end paused and stay so', async () => {
      const random = new Random();
      const states: (string | undefined)[] = [];
      for (let n = 0; n < 200; n += 1) {
        const repository = create();
        const release = deferred();
        const graceful = random.below(2) === 1;
        // The last chunk does not end before the pause was asked for: at no moment is the job done.
        const work = async (chunkId: number, signal: AbortSignal | undefined): Promise<void> => {
          if (chunkId < 4) await turns(random.below(3));
          else await Promise.race([release.promise, whenAborted(signal)]);
        };
        const executor: Executor = n % 2 === 0 ? new OwnExecutor(work) : JobExecutor.fromFunction((chunk, { signal }) => work(chunk.id, signal));
        const manager = open(repository, executor);
        const id = await manager.submitJob(specOf(5), { concurrency: 1 + random.below(3) });
        await turns(random.below(12));
        const paused = manager.pauseJob(id, { mode: graceful ? 'graceful' : 'immediate' });
        release.resolve();
        await paused;
        const kept = await repository.get(id);
        const status = await manager.getJob(id);
        await turns(5);
        const later = await repository.get(id);
        const same = new Set([kept?.state, status?.state, later?.state]);
        states.push(same.size === 1 ? status?.state : `${[...same].join('/')} in case ${n} of seed ${random.seed}`);
        await manager.close({ abortMs: 0 });
      }
      expect(states.filter((state) => state !== 'paused')).toEqual([]);
      expect(states).toHaveLength(200);
    });

    it('[F28] two resumes at once run each of 3 chunks once', async () => {
      const ran: number[] = [];
      const executor = JobExecutor.fromFunction(async (chunk) => {
        ran.push(chunk.id);
        await turns(2);
      });
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(3), { concurrency: 3 });
      await manager.pauseJob(id);
      expect(ran).toEqual([]);
      await Promise.all([manager.resumeJob(id), manager.resumeJob(id)]);
      expect((await manager.waitForJob(id)).state).toBe('completed');
      await turns(10);
      expect(ran.sort()).toEqual([0, 1, 2]);
    });

    it("[F28] two resumes at once call the user's executor once", async () => {
      const executor = new OwnExecutor();
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(3));
      await manager.pauseJob(id);
      const results = await Promise.allSettled([manager.resumeJob(id, { strict: true }), manager.resumeJob(id, { strict: true })]);
      expect(results.map((result) => result.status).sort()).toEqual(['fulfilled', 'rejected']);
      await manager.waitForJob(id);
      await turns(10);
      expect(executor.calls).toHaveLength(1);
      expect(executor.ran).toEqual([0, 1, 2]);
    });

    it('[F28] resume goes on from the finished chunks with the options of the submit; those given win', async () => {
      let stop = true;
      const executor = new OwnExecutor(async (chunkId, signal) => {
        if (chunkId === 2 && stop) await whenAborted(signal);
      });
      const manager = open(create(), executor);
      const onProgress = vi.fn();
      const onChunkComplete = vi.fn();
      const submitted: JobExecutionOptions = {
        concurrency: 3, jobDir: '/tmp', retries: 2, retryDelay: 5, env: { A: '1' }, meta: { shot: 7 }, onProgress, onChunkComplete,
        timeouts: { chunkMs: 60_000 }, failurePolicy: 'continue', merge: false,
      }; // prettier-ignore
      const id = await manager.submitJob(specOf(4), submitted);
      await until(() => executor.ran.length === 3);
      await manager.pauseJob(id);
      expect((await manager.getJob(id))?.completedChunks).toBe(2);
      stop = false;
      await manager.resumeJob(id, { concurrency: 5, env: { B: '2' } });
      expect((await manager.waitForJob(id)).state).toBe('completed');
      expect(executor.ran).toEqual([0, 1, 2, 2, 3]);
      const { options, spec } = executor.calls[1]!;
      expect(spec.chunks).toHaveLength(4);
      expect([...(options.completedChunkIds ?? [])].sort()).toEqual([0, 1]);
      expect(options).toMatchObject({
        concurrency: 5, env: { B: '2' }, jobDir: '/tmp', retries: 2, retryDelay: 5, meta: { shot: 7 }, timeouts: { chunkMs: 60_000 }, failurePolicy: 'continue', merge: false,
      }); // prettier-ignore
      expect(onChunkComplete.mock.calls.map(([chunkId]) => chunkId as number)).toEqual([0, 1, 2, 3]);
      expect(onProgress).toHaveBeenLastCalledWith(4, 4);
    });

    it('[F28] callbacks given to resume take the place of those of the submit', async () => {
      let stop = true;
      const executor = new OwnExecutor(async (chunkId, signal) => {
        if (chunkId === 1 && stop) await whenAborted(signal);
      });
      const manager = open(create(), executor);
      const before = vi.fn();
      const after = vi.fn();
      const id = await manager.submitJob(specOf(3), { onChunkComplete: before });
      await until(() => executor.ran.length === 2);
      await manager.pauseJob(id);
      stop = false;
      await manager.resumeJob(id, { onChunkComplete: after });
      await manager.waitForJob(id);
      expect(before).toHaveBeenCalledTimes(1);
      expect(after.mock.calls.map(([chunkId]) => chunkId as number)).toEqual([1, 2]);
    });

    it('[F28] resume of a failed job runs what failed and what is missing, attempts counted anew', async () => {
      const ran: number[] = [];
      let broken = true;
      const executor = JobExecutor.fromFunction(async (chunk) => {
        ran.push(chunk.id);
        if (chunk.id === 1 && broken) throw new Error('no licence');
      });
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(3), { retries: 1, retryDelay: 0 });
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed' });
      expect(ran.filter((id) => id === 1)).toHaveLength(2);
      await manager.resumeJob(id);
      expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed' });
      // One retry again: the attempts before do not count against it.
      expect(ran.filter((id) => id === 1)).toHaveLength(4);
      expect(ran.filter((id) => id === 0)).toHaveLength(1);
      broken = false;
      await manager.resumeJob(id);
      const done = await manager.waitForJob(id);
      expect(done).toMatchObject({ state: 'completed', completedChunks: 3, progress: 100 });
      expect(done.error).toBeUndefined();
      expect(done.failure).toBeUndefined();
      expect(ran.filter((id) => id === 1)).toHaveLength(5);
      expect(ran.filter((id) => id === 0)).toHaveLength(1);
      // A number of an attempt is never used again.
      expect((await manager.chunks(id)).map((chunk) => chunk.attempt)).toEqual([1, 5, ran.filter((id) => id === 2).length]);
    });

    it('[F28] resume rejects bad options with VALIDATION and leaves the job paused', async () => {
      const manager = open(create(), new OwnExecutor());
      const id = await manager.submitJob(specOf(2));
      await manager.pauseJob(id);
      for (const options of [{ concurrency: 0 }, { concurrency: NaN }, { retries: -1 }, { onProgress: 'x' as never }, { signal: 7 as never }]) {
        expect((await rejection(manager.resumeJob(id, options))).code).toBe('VALIDATION');
        expect((await manager.getJob(id))?.state).toBe('paused');
      }
      await manager.resumeJob(id);
      expect((await manager.waitForJob(id)).state).toBe('completed');
    });

    it('[F30] 0 of 100 deletes of a running job leave a record, however late its executor reports', async () => {
      const random = new Random();
      const left: string[] = [];
      for (let n = 0; n < 100; n += 1) {
        const repository = create();
        const settled = deferred();
        // Every second one goes on reporting for a while after it was told to stop.
        const zombie: Executor = {
          async execute(spec: JobSpec, options: JobExecutionOptions = {}) {
            const late = n % 4 === 0 ? 10 : 1;
            let after = 0;
            for (const chunk of spec.chunks) {
              await turns(random.below(2));
              if (options.signal?.aborted && ++after > late) break;
              void options.onChunkComplete?.(chunk.id, chunkResult);
              options.onProgress?.(chunk.id + 1, spec.chunks.length);
            }
            if (!options.signal?.aborted) await whenAborted(options.signal).catch(() => undefined);
            settled.resolve();
          },
        };
        const own = JobExecutor.fromFunction(async (_, { signal }) => {
          await turns(random.below(2));
          if (signal.aborted) settled.resolve();
        });
        const manager = open(repository, n % 2 === 0 ? zombie : own, { abortGraceMs: n % 8 === 0 ? 0 : 5000 });
        const id = await manager.submitJob(specOf(40), { concurrency: 2 });
        await until(async () => (await manager.getJob(id))?.state === 'running');
        await turns(random.below(8));
        await manager.deleteJob(id);
        const why = `case ${n} of seed ${random.seed}`;
        if (await repository.get(id)) left.push(`at once, ${why}`);
        if (n % 2 === 0) await settled.promise;
        await turns(8);
        if (await repository.get(id)) left.push(`later, ${why}`);
        if ((await repository.list()).length > 0 || (await manager.getJob(id))) left.push(`listed, ${why}`);
        await manager.close({ abortMs: 0 });
      }
      expect(left).toEqual([]);
    });

    it('[F30] delete stops the work first: it resolves when the executor has settled, and frees the id', async () => {
      const gate = deferred();
      const execute = vi.fn(() => gate.promise as Promise<unknown>);
      const manager = open(create(), { execute });
      const id = await manager.submitJob(specOf(2), { id: 'shot-1' });
      await nextEvent(manager, 'job.started', id);
      let resolved = false;
      const deleted = manager.deleteJob(id).then(() => (resolved = true));
      await turns(15);
      expect(resolved).toBe(false);
      gate.resolve();
      await deleted;
      expect(await manager.getJob(id)).toBeUndefined();
      execute.mockImplementation(async () => 'again');
      await manager.submitJob(specOf(1), { id: 'shot-1' });
      expect(await manager.waitForJob('shot-1')).toMatchObject({ state: 'completed', result: 'again' });
    });

    it('[F34] waitForJob gives the final status of a job that ends, failed and cancelled ones too, and at once of one that has ended', async () => {
      const executor = new OwnExecutor(async (chunkId) => {
        if (chunkId === 3) throw new Error('chunk three');
        await turn();
      });
      const manager = open(create(), executor);
      const done = await manager.submitJob(specOf(2));
      const failed = await manager.submitJob(specOf(4));
      const cancelled = await manager.submitJob(specOf(2));
      const [a, b, c] = await Promise.all([manager.waitForJob(done), manager.waitForJob(failed), manager.cancelJob(cancelled).then(() => manager.waitForJob(cancelled))]);
      expect(a).toMatchObject({ id: done, state: 'completed', progress: 100 });
      expect(b).toMatchObject({ id: failed, state: 'failed', error: 'chunk three' });
      expect(c).toMatchObject({ id: cancelled, state: 'cancelled' });
      expect(await manager.waitForJob(done, { timeoutMs: 100 })).toMatchObject({ state: 'completed' });
    });

    it('[F34] waitForJob does not take a pause for an end', async () => {
      const executor = new OwnExecutor();
      const manager = open(create(), executor);
      const id = await manager.submitJob(specOf(2));
      await manager.pauseJob(id);
      let resolved = false;
      const waiting = manager.waitForJob(id).then((status) => {
        resolved = true;
        return status;
      });
      await turns(10);
      expect(resolved).toBe(false);
      await manager.resumeJob(id);
      expect((await waiting).state).toBe('completed');
    });

    it('[F34] waitForJob rejects with TIMEOUT when the time is over, and the job goes on', async () => {
      const gate = deferred();
      const manager = open(create(), { execute: () => gate.promise });
      const id = await manager.submitJob(specOf(1));
      for (const timeoutMs of [0, 1, 20]) {
        const error = await rejection(manager.waitForJob(id, { timeoutMs }));
        expect(error.code).toBe('TIMEOUT');
        expect(error.message).toContain(id);
      }
      gate.resolve();
      expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
      for (const timeoutMs of [-1, NaN, '5' as never]) expect((await rejection(manager.waitForJob(id, { timeoutMs }))).code).toBe('VALIDATION');
    });

    it('[F34] waitForJob rejects with an AbortError when its signal is aborted, before or during, and the job goes on', async () => {
      const gate = deferred();
      const manager = open(create(), { execute: () => gate.promise });
      const id = await manager.submitJob(specOf(1));
      const controller = new AbortController();
      const waiting = manager.waitForJob(id, { signal: controller.signal });
      await turns(5);
      const reason = new Error('the user left the page');
      controller.abort(reason);
      for (const error of await Promise.all([waiting, manager.waitForJob(id, { signal: controller.signal })].map(rejection))) {
        expect(error).toMatchObject({ name: 'AbortError', code: 'ABORTED', cause: reason });
      }
      gate.resolve();
      expect((await manager.waitForJob(id)).state).toBe('completed');
    });

    it('[F34] waitForJob rejects with NOT_FOUND for an unknown job and for one that is deleted meanwhile', async () => {
      const manager = open(create(), new OwnExecutor((_, signal) => whenAborted(signal)), { maxConcurrentJobs: 1 });
      expect((await rejection(manager.waitForJob('nobody'))).code).toBe('NOT_FOUND');
      const running = await manager.submitJob(specOf(1));
      const pending = await manager.submitJob(specOf(1));
      const waiting = [running, pending].map((id) => rejection(manager.waitForJob(id)));
      await turns(5);
      await manager.deleteJob(pending);
      await manager.deleteJob(running);
      expect((await Promise.all(waiting)).map((error) => error.code)).toEqual(['NOT_FOUND', 'NOT_FOUND']);
    });

    it('[F36] no more jobs run at once than maxConcurrentJobs; the others are pending, waiting for a slot, and start in their order', async () => {
      let running = 0;
      let most = 0;
      const gates: Deferred<void>[] = [];
      const order: string[] = [];
      const manager = open(
        create(),
        {
          async execute(spec) {
            order.push(spec.id);
            most = Math.max(most, ++running);
            const gate = deferred();
            gates.push(gate);
            await gate.promise;
            running -= 1;
          },
        },
        { maxConcurrentJobs: 2 },
      );
      const names = ['a', 'b', 'c', 'd', 'e'];
      const ids: string[] = [];
      for (const name of names) ids.push(await manager.submitJob(specOf(1, { id: name })));
      await until(() => gates.length === 2);
      await turns(10);
      const statuses = await manager.listJobs();
      expect(statuses.map((job) => job.state)).toEqual(['running', 'running', 'pending', 'pending', 'pending']);
      expect(statuses.map((job) => job.waitingFor)).toEqual([undefined, undefined, 'slot', 'slot', 'slot']);
      for (let n = 0; n < 5; n += 1) {
        await until(() => gates.length > n);
        gates[n]!.resolve();
      }
      await Promise.all(ids.map((id) => manager.waitForJob(id)));
      expect(most).toBe(2);
      expect(order).toEqual(names);
      expect((await manager.listJobs()).every((job) => job.waitingFor === undefined)).toBe(true);
    });

    const exits: Record<string, { execute: Executor['execute']; act?: (manager: JobManager, id: string) => Promise<unknown>; options?: JobManagerOptions; submit?: JobExecutionOptions }> = {
      'whose executor resolves': { execute: async () => undefined },
      'whose executor rejects': { execute: async () => Promise.reject(new Error('no')) },
      'whose executor throws at once': {
        execute: () => {
          throw new Error('no');
        },
      },
      'whose executor rejects with an AbortError unasked': { execute: () => Promise.reject(abortError()) },
      'whose executor gives something that is no promise': { execute: (() => 7) as never },
      'that is cancelled': { execute: (_, options) => whenAborted(options?.signal), act: (manager, id) => manager.cancelJob(id) },
      'that is paused': { execute: (_, options) => whenAborted(options?.signal), act: (manager, id) => manager.pauseJob(id) },
      'that is deleted': { execute: (_, options) => whenAborted(options?.signal), act: (manager, id) => manager.deleteJob(id) },
      'that is cancelled while its executor is deaf': { execute: () => new Promise(() => undefined), act: (manager, id) => manager.cancelJob(id), options: { abortGraceMs: 5 } },
      'that takes too long': { execute: (_, options) => whenAborted(options?.signal), submit: { timeouts: { jobMs: 5 } } },
      'that takes too long while its executor is deaf': { execute: () => new Promise(() => undefined), submit: { timeouts: { jobMs: 5 } }, options: { abortGraceMs: 5 } },
      'whose upload fails': {
        execute: async () => undefined,
        submit: { jobDir: '/tmp' },
        options: { storage: { uploadAssetBundle: () => Promise.reject(new Error('bucket is gone')) } as unknown as ArtifactStorage },
      },
    };
    for (const [which, { execute, act, options, submit }] of Object.entries(exits)) {
      it(`[F36] the slot of a job ${which} is free for the next one`, async () => {
        let first = true;
        const manager = open(
          create(),
          {
            execute(spec, given) {
              if (spec.id !== 'first') return Promise.resolve('next');
              first = false;
              return execute(spec, given);
            },
          },
          { ...options, maxConcurrentJobs: 1 },
        );
        const id = await manager.submitJob(specOf(1, { id: 'first' }), submit);
        const started = act ? nextEvent(manager, 'job.started', id) : undefined;
        const next = await manager.submitJob(specOf(1, { id: 'next' }));
        if (act) {
          await started;
          await until(() => !first);
          expect((await manager.getJob(next))?.waitingFor).toBe('slot');
          await act(manager, id);
        }
        expect(await manager.waitForJob(next, { timeoutMs: 5000 })).toMatchObject({ state: 'completed', result: 'next' });
      });
    }

    it('[F36] a job that is resumed waits for a slot like any other', async () => {
      const executor = new OwnExecutor((_, signal) => whenAborted(signal));
      const manager = open(create(), executor, { maxConcurrentJobs: 1 });
      const first = await manager.submitJob(specOf(1));
      await until(() => executor.calls.length === 1);
      await manager.pauseJob(first);
      const second = await manager.submitJob(specOf(1));
      await until(() => executor.calls.length === 2);
      await manager.resumeJob(first);
      await turns(10);
      expect(executor.calls).toHaveLength(2);
      expect(await manager.getJob(first)).toMatchObject({ state: 'pending', waitingFor: 'slot' });
      await manager.cancelJob(second);
      await until(() => executor.calls.length === 3);
      expect((await manager.getJob(first))?.state).toBe('running');
    });

    it('[F88] an aborted signal of the submit cancels the job, whatever its reason and whatever the executor says then', async () => {
      const reasons = [undefined, new Error('closing time'), 'just text', Object.assign(new Error('x'), { name: 'TimeoutError' })];
      for (const reason of reasons) {
        for (const answer of ['rejects with the reason', 'rejects', 'resolves'] as const) {
          const controller = new AbortController();
          const manager = open(create(), {
            execute: (_, options) =>
              new Promise((resolve, reject) => {
                options?.signal?.addEventListener('abort', () => {
                  if (answer === 'resolves') resolve(undefined);
                  else reject(answer === 'rejects' ? new Error('renderer went down') : (options.signal?.reason as Error));
                });
              }),
          });
          const id = await manager.submitJob(specOf(1), { signal: controller.signal });
          await nextEvent(manager, 'job.started', id);
          controller.abort(reason);
          const status = await manager.waitForJob(id, { timeoutMs: 5000 });
          expect(status.state, `${String(reason)}, ${answer}`).toBe('cancelled');
          expect(status.failure).toBeUndefined();
        }
      }
    });

    for (const way of ['a merge command', 'a stitcher'] as const) {
      const mergeIn = (work: (signal: AbortSignal | undefined) => Promise<void>): JobExecutionOptions =>
        way === 'a stitcher'
          ? { stitcher: { stitch: (_, __, options) => work(options?.signal) }, outputFile: '/dev/null', verifyOutput: 'none' }
          : { mergeAdapter: { execute: (job: WorkerJob) => work(job.signal).then(() => chunkResult) } };

      it(`[F95] cancel while ${way} runs stops it, and the job ends cancelled`, async () => {
        const begun = deferred();
        let stopped = false;
        const options = mergeIn(async (signal) => {
          begun.resolve();
          await whenAborted(signal).finally(() => (stopped = true));
        });
        const manager = open(create(), JobExecutor.fromFunction(async () => undefined));
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(2, { mergeCommand: 'join all' }), options);
        await begun.promise;
        await until(async () => (await manager.getJob(id))?.completedChunks === 2);
        expect((await manager.getJob(id))?.state).toBe('running');
        await manager.cancelJob(id);
        expect(stopped).toBe(true);
        expect((await manager.getJob(id))?.state).toBe('cancelled');
        expect(typesOf(events, id)).not.toContain('merge.completed');
        expect((await rejection(manager.resumeJob(id, { strict: true }))).code).toBe('INVALID_TRANSITION');
      });

      it(`[F95] pause while ${way} runs stops it, the job ends paused, and resume runs the merge again, alone`, async () => {
        const begun = [deferred(), deferred()];
        let merges = 0;
        const options = mergeIn(async (signal) => {
          merges += 1;
          begun[merges - 1]!.resolve();
          if (merges === 1) await whenAborted(signal);
        });
        const rendered: number[] = [];
        const manager = open(create(), JobExecutor.fromFunction(async (chunk) => void rendered.push(chunk.id)));
        const id = await manager.submitJob(specOf(2, { mergeCommand: 'join all' }), options);
        await begun[0]!.promise;
        await manager.pauseJob(id);
        const paused = await manager.getJob(id);
        expect(paused).toMatchObject({ state: 'paused', completedChunks: 2 });
        expect(paused?.progress).toBeLessThan(100);
        await manager.resumeJob(id);
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', progress: 100 });
        expect(merges).toBe(2);
        expect(rendered).toEqual([0, 1]);
      });

      it(`[F95] a graceful pause while ${way} runs ends paused too, though the merge comes to its end`, async () => {
        const begun = deferred();
        const gate = deferred();
        const options = mergeIn(async () => {
          begun.resolve();
          await gate.promise;
        });
        const manager = open(create(), JobExecutor.fromFunction(async () => undefined));
        const id = await manager.submitJob(specOf(2, { mergeCommand: 'join all' }), options);
        await begun.promise;
        const paused = manager.pauseJob(id, { mode: 'graceful' });
        gate.resolve();
        await paused;
        expect((await manager.getJob(id))?.state).toBe('paused');
        await manager.resumeJob(id);
        expect((await manager.waitForJob(id)).state).toBe('completed');
      });

      it(`[F95] ${way} that has no ear for its signal is given up after abortGraceMs, and what it says later changes nothing`, async () => {
        const begun = deferred();
        const gate = deferred();
        const options = mergeIn(async () => {
          begun.resolve();
          await gate.promise;
        });
        const manager = open(create(), JobExecutor.fromFunction(async () => undefined), { abortGraceMs: 5 });
        const id = await manager.submitJob(specOf(2, { mergeCommand: 'join all' }), options);
        await begun.promise;
        await manager.cancelJob(id);
        expect((await manager.getJob(id))?.state).toBe('cancelled');
        gate.resolve();
        await turns(10);
        expect(await manager.getJob(id)).toMatchObject({ state: 'cancelled' });
        expect((await manager.getJob(id))?.result).toBeUndefined();
      });
    }
  });
}

describe('processes', () => {
  /** A chunk that starts a grandchild, says both ids, and stays. */
  const family = {
    metadata: { totalFrames: 10, fps: 30, width: 64, height: 36, duration: 1 },
    chunks: [{ id: 0, startFrame: 0, frameCount: 10, argv: ['/bin/sh', '-c', 'sleep 600 & echo $! $$; wait'] }],
  };

  for (const call of ['cancelJob', 'pauseJob', 'deleteJob'] as const) {
    it(`[F25] when ${call} resolves, the processes of the job and their children are gone`, async () => {
      const pids = deferred<number[]>();
      const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()));
      const id = await manager.submitJob(family, { onChunkStdout: (_, data) => pids.resolve(data.trim().split(' ').map(Number)) });
      const both = await pids.promise;
      expect(await Promise.all(both.map(lives))).toEqual([true, true]);
      await manager[call](id);
      expect(await Promise.all(both.map(lives))).toEqual([false, false]);
    });
  }

  for (const { kind, create } of repositories) {
    it(`[F27][F30] 40 pauses and deletes at random moments of jobs of processes kept ${kind} end paused, or leave nothing`, async () => {
      const random = new Random();
      const spec = { chunks: [0, 1, 2].map((id) => ({ id, argv: ['/bin/sh', '-c', id < 2 ? ':' : 'exec sleep 600'] })) };
      for (let n = 0; n < 40; n += 1) {
        const repository = create();
        const manager = open(repository, new JobExecutor(new LocalWorkerAdapter()));
        const id = await manager.submitJob(spec, { concurrency: 1 + random.below(2) });
        await turns(random.below(300));
        if (n % 2 === 0) {
          await manager.pauseJob(id);
          expect((await repository.get(id))?.state, `case ${n} of seed ${random.seed}`).toBe('paused');
        } else {
          await manager.deleteJob(id);
        }
        await turns(5);
        expect((await repository.get(id))?.state, `case ${n} of seed ${random.seed}`).toBe(n % 2 === 0 ? 'paused' : undefined);
        await manager.close({ abortMs: 0 });
      }
    });
  }

  it('[F95] cancel while a merge command runs as a process leaves none of it behind', async () => {
    const pids = deferred<number[]>();
    const local = new LocalWorkerAdapter();
    const mergeAdapter: WorkerAdapter = {
      execute: (job) => local.execute({ ...job, onStdout: (data) => pids.resolve(data.trim().split(' ').map(Number)) }),
    };
    const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(async () => undefined));
    const id = await manager.submitJob(specOf(1, { mergeCommand: `/bin/sh -c 'sleep 600 & echo $! $$; wait'` }), { mergeAdapter });
    const both = await pids.promise;
    await manager.cancelJob(id);
    expect(await Promise.all(both.map(lives))).toEqual([false, false]);
    expect((await manager.getJob(id))?.state).toBe('cancelled');
  });
});

describe('JobExecutor by itself', () => {
  it('[F88] rejects with an AbortError whose cause is the reason: before it began, within a chunk, within a retry delay, within the merge', async () => {
    const reason = new Error('closing time');
    const during: Record<string, (abort: () => void) => [JobExecutor, JobExecutionOptions]> = {
      before: (abort) => {
        abort();
        return [JobExecutor.fromFunction(async () => undefined), {}];
      },
      chunk: (abort) => [
        JobExecutor.fromFunction((_, { signal }) => {
          abort();
          return whenAborted(signal);
        }),
        {},
      ],
      'chunk that resolves': (abort) => [JobExecutor.fromFunction(async () => abort()), {}],
      delay: (abort) => [
        JobExecutor.fromFunction(async () => {
          void turns(2).then(abort);
          throw new Error('again please');
        }),
        { retries: 3, retryDelay: 60_000 },
      ],
      merge: (abort) => [
        JobExecutor.fromFunction(async () => undefined),
        {
          mergeAdapter: {
            execute: (job) => {
              abort();
              return whenAborted(job.signal);
            },
          },
        },
      ],
    };
    for (const [moment, make] of Object.entries(during)) {
      const controller = new AbortController();
      const [executor, options] = make(() => controller.abort(reason));
      const error = await rejection(executor.execute(specOf(2, { mergeCommand: 'join all' }), { ...options, signal: controller.signal }));
      expect(error, moment).toMatchObject({ name: 'AbortError', code: 'ABORTED', cause: reason });
    }
  });
});

describe('two managers on one repository in memory', () => {
  const pair = (executor: Executor, repository: JobRepository = new InMemoryJobRepository()): [JobManager, JobManager] => [
    open(repository, executor),
    open(repository, executor),
  ];

  for (const call of ['cancelJob', 'pauseJob', 'deleteJob'] as const) {
    it(`[F25] ${call} by one manager stops the job that the other runs, and resolves when nothing of it runs any more`, async () => {
      let stopped = false;
      const executor = new OwnExecutor((_, signal) => whenAborted(signal).finally(() => (stopped = true)));
      const [a, b] = pair(executor);
      const id = await a.submitJob(specOf(2));
      await until(() => executor.ran.length === 1);
      await b[call](id);
      expect(stopped).toBe(true);
      const state = { cancelJob: 'cancelled', pauseJob: 'paused', deleteJob: undefined }[call];
      expect((await a.getJob(id))?.state).toBe(state);
      expect((await b.getJob(id))?.state).toBe(state);
    });
  }

  it('[F27] a graceful pause by one manager lets the running chunk in the other end', async () => {
    const gate = deferred();
    const begun: number[] = [];
    const executor = JobExecutor.fromFunction(async (chunk) => {
      begun.push(chunk.id);
      await gate.promise;
    });
    const [a, b] = pair(executor);
    const id = await a.submitJob(specOf(3));
    await until(() => begun.length === 1);
    const paused = b.pauseJob(id, { mode: 'graceful' });
    await turns(5);
    gate.resolve();
    await paused;
    expect(begun).toEqual([0]);
    expect(await b.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 1 });
  });

  it('[F28] two managers that resume one job at once run it once', async () => {
    const executor = new OwnExecutor();
    const [a, b] = pair(executor);
    const id = await a.submitJob(specOf(3));
    await a.pauseJob(id);
    await Promise.all([a.resumeJob(id), b.resumeJob(id)]);
    await Promise.all([a.waitForJob(id), b.waitForJob(id)]);
    await turns(10);
    expect(executor.ran).toEqual([0, 1, 2]);
    expect(executor.calls).toHaveLength(1);
  });

  it('[F28] a job that one manager paused goes on in the other, with its options', async () => {
    const executor = new OwnExecutor(turn);
    const [a, b] = pair(executor);
    const id = await a.submitJob(specOf(3), { concurrency: 2, meta: { shot: 1 }, retries: 4 });
    await a.pauseJob(id);
    await b.resumeJob(id);
    expect((await b.waitForJob(id)).state).toBe('completed');
    expect(executor.calls[0]!.options).toMatchObject({ concurrency: 2, meta: { shot: 1 }, retries: 4 });
  });

  it('[F34] waitForJob of one manager hears of the end of a job that the other runs, and of its deletion', async () => {
    const gate = deferred();
    const [a, b] = pair({ execute: (_, options) => Promise.race([gate.promise, whenAborted(options?.signal)]) });
    const ends = await a.submitJob(specOf(1));
    const goes = await a.submitJob(specOf(1));
    await nextEvent(a, 'job.started', goes);
    const waiting = b.waitForJob(ends, { timeoutMs: 5000 });
    const missing = rejection(b.waitForJob(goes, { timeoutMs: 5000 }));
    await turns(3);
    await a.deleteJob(goes);
    expect((await missing).code).toBe('NOT_FOUND');
    gate.resolve();
    expect((await waiting).state).toBe('completed');
  });
});

describe('a repository that a user wrote', () => {
  it('[F24] is told of one end of each job, and never of a state after it', async () => {
    const random = new Random();
    const repository = new MapRepository();
    const manager = open(repository, new OwnExecutor(() => turns(1)));
    const ids: string[] = [];
    for (let n = 0; n < 30; n += 1) ids.push(await manager.submitJob(specOf(3)));
    await Promise.all(ids.map(async (id) => turns(random.below(20)).then(() => manager.cancelJob(id))));
    const ended = await Promise.all(ids.map((id) => manager.waitForJob(id)));
    await turns(10);
    for (const { id, state } of ended) {
      const states = repository.statesOf(id);
      expect(states.filter((one) => one === 'completed' || one === 'cancelled'), `seed ${random.seed}`).toEqual([state]);
      expect(states.at(-1)).toBe(state);
    }
  });
});
