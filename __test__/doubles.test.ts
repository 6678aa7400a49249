import {
  InMemoryJobRepository,
  JobExecutor,
  type Executor,
  type JobExecutionOptions,
  type JobSpec,
  type JobSpecInput,
  type WorkerAdapter,
} from 'framewright';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, abortError, chunkResult, whenAborted } from './support/own-executor.js';
import { specOf } from './support/specs.js';
import { nextEvent, traceOf, typesOf } from './support/trace.js';
import { turn, turns, until } from './support/turns.js';

type Execute = Executor['execute'];

afterEach(() => {
  vi.useRealTimers();
});

for (const { kind, create } of repositories) {
  describe(`executors of the user, jobs kept ${kind}`, () => {
    describe('reports', () => {
      const ways: Record<string, (spec: JobSpec, options: JobExecutionOptions) => Promise<void> | void> = {
        'awaits each report': async (spec, options) => {
          for (const { id } of spec.chunks) {
            await options.onChunkComplete?.(id, chunkResult);
            options.onProgress?.(id + 1, spec.chunks.length);
          }
        },
        'awaits no report': (spec, options) => {
          for (const { id } of spec.chunks) {
            void options.onChunkComplete?.(id, chunkResult);
            options.onProgress?.(id + 1, spec.chunks.length);
          }
        },
        'reports out of order': async (spec, options) => {
          for (const { id } of spec.chunks.toReversed()) {
            options.onProgress?.(id, spec.chunks.length);
            await turn();
            await options.onChunkComplete?.(id, chunkResult);
          }
        },
        'reports only numbers': async (spec, options) => {
          for (let n = 1; n <= spec.chunks.length; n += 1) {
            options.onProgress?.(n, spec.chunks.length);
            await turn();
          }
        },
        'reports only chunks': async (spec, options) => {
          for (const { id } of spec.chunks) await options.onChunkComplete?.(id, chunkResult);
        },
        'reports half of them': async (spec, options) => {
          await options.onChunkComplete?.(spec.chunks[0]!.id, chunkResult);
          options.onProgress?.(1, spec.chunks.length);
        },
        'reports less than before': (_, options) => {
          for (const n of [3, 1, 0, 2]) options.onProgress?.(n, 4);
        },
        'reports nothing': () => undefined,
        'reports every chunk twice': async (spec, options) => {
          for (const { id } of [...spec.chunks, ...spec.chunks]) await options.onChunkComplete?.(id, chunkResult);
        },
        'reports more than there is': (_, options) => {
          options.onProgress?.(40, 4);
          options.onProgress?.(4, 2);
        },
      };
      for (const [way, report] of Object.entries(ways)) {
        it(`[F24] an executor that ${way} and resolves has completed the job with all its chunks`, async () => {
          const execute = vi.fn<Execute>(async (spec, options) => report(spec, options ?? {}));
          const manager = open(create(), { execute });
          const told: number[] = [];
          manager.on('job.progress', (event) => told.push(event.progress));
          const id = await manager.submitJob(specOf(4));
          const status = await manager.waitForJob(id);
          expect(status).toMatchObject({ state: 'completed', progress: 100, completedChunks: 4, totalChunks: 4 });
          expect(status.chunksByState).toEqual({ pending: 0, running: 0, completed: 4, failed: 0 });
          expect((await manager.chunks(id)).map((chunk) => chunk.state)).toEqual(Array(4).fill('completed'));
          expect(told).toEqual(told.toSorted((a, b) => a - b));
          expect(new Set(status.logs?.map((log) => log.chunkId)).size).toBe(status.logs?.length);
          expect(execute).toHaveBeenCalledTimes(1);
        });
      }

      it('[F122] while it runs, what was reported shows: chunks by their frames, numbers by their count, and never 100', async () => {
        const gate = deferred();
        const given = deferred<JobExecutionOptions>();
        const manager = open(create(), {
          execute: (_, options) => {
            given.resolve(options ?? {});
            return gate.promise;
          },
        });
        const spec: JobSpecInput = { chunks: [{ id: 7, frameCount: 30, command: 'a' }, { id: 9, frameCount: 10, command: 'b' }, { id: 11, frameCount: 60, command: 'c' }] }; // prettier-ignore
        const id = await manager.submitJob(spec);
        const options = await given.promise;
        await options.onChunkComplete?.(7, chunkResult);
        await until(async () => (await manager.getJob(id))?.progress === 30, 'thirty percent');
        expect(await manager.getJob(id)).toMatchObject({ state: 'running', completedChunks: 1 });
        await options.onChunkComplete?.(9, chunkResult);
        await options.onChunkComplete?.(11, chunkResult);
        options.onProgress?.(3, 3);
        await until(async () => (await manager.getJob(id))?.completedChunks === 3);
        const status = await manager.getJob(id);
        expect(status?.state).toBe('running');
        expect(status?.progress).toBeLessThan(100);
        expect(status?.progress).toBeGreaterThan(99);
        gate.resolve();
        expect((await manager.waitForJob(id)).progress).toBe(100);
      });

      it('[F69] reports with wrong arguments throw nothing, are told as job.warning, and change nothing', async () => {
        const gate = deferred();
        const threw: unknown[] = [];
        const manager = open(create(), {
          execute: async (_, options) => {
            const report = (call: () => unknown): void => {
              try {
                call();
              } catch (error) {
                threw.push(error);
              }
            };
            const progress = options?.onProgress as (...args: unknown[]) => void;
            const chunk = options?.onChunkComplete as (...args: unknown[]) => unknown;
            for (const args of [[], ['1', '2'], [NaN, 2], [-1, 2], [1, 0], [1.5, 2], [Infinity, Infinity], [{}, []], [null, null]]) report(() => progress(...args));
            for (const args of [[], ['0', chunkResult], [99, chunkResult], [-1, chunkResult], [0.5, chunkResult], [NaN], [{}], [null, null]]) report(() => chunk(...args));
            await gate.promise;
          },
        });
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(2));
        await until(() => typesOf(events, id).filter((type) => type === 'job.warning').length >= 17);
        expect(threw).toEqual([]);
        expect(await manager.getJob(id)).toMatchObject({ state: 'running', progress: 0, completedChunks: 0 });
        gate.resolve();
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2 });
      });

      it('[F69] a chunk reported with no result, or one of wrong types, is done all the same', async () => {
        const manager = open(create(), {
          execute: async (spec, options) => {
            const chunk = options?.onChunkComplete as (...args: unknown[]) => unknown;
            const results = [undefined, null, 'done', {}, { durationMs: 'long', stdout: 7, stderr: null }, { durationMs: -5 }];
            for (const { id } of spec.chunks) chunk(id, results[id]);
          },
        });
        const id = await manager.submitJob(specOf(6));
        const status = await manager.waitForJob(id);
        expect(status).toMatchObject({ state: 'completed', completedChunks: 6 });
        expect(status.logs?.map((log) => log.chunkId)).toEqual([0, 1, 2, 3, 4, 5]);
        for (const log of status.logs ?? []) {
          expect(log.durationMs).toBeGreaterThanOrEqual(0);
          expect([typeof log.stdout, typeof log.stderr]).toEqual(['string', 'string']);
        }
      });

      it('[F24] reports after the end are refused with job.warning and change nothing', async () => {
        let options: JobExecutionOptions = {};
        const manager = open(create(), {
          execute: async (_, given) => {
            options = given ?? {};
            await options.onChunkComplete?.(0, chunkResult);
            throw new Error('the disk is full');
          },
        });
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(3));
        const ended = await manager.waitForJob(id);
        expect(ended).toMatchObject({ state: 'failed', error: 'the disk is full', completedChunks: 1 });
        options.onProgress?.(3, 3);
        await options.onChunkComplete?.(1, chunkResult);
        await until(() => typesOf(events, id).filter((type) => type === 'job.warning').length === 2);
        const { updatedAt: _, ...later } = (await manager.getJob(id))!;
        expect(later).toEqual(Object.fromEntries(Object.entries(ended).filter(([name]) => name !== 'updatedAt')));
        expect(events.filter((event) => event.type === 'job.warning').every((event) => event.message.length > 10)).toBe(true);
      });
    });

    describe('their end', () => {
      const thrown: [unknown, string][] = [
        [new Error('the renderer broke'), 'the renderer broke'],
        [new TypeError('x is not a function'), 'x is not a function'],
        ['just text', 'just text'],
        [undefined, 'undefined'],
        [null, 'null'],
        [42, '42'],
        [{ message: 'from an object' }, 'from an object'],
        [Symbol('mark'), 'Symbol(mark)'],
      ];
      for (const [value, message] of thrown) {
        it(`[F87] an executor that rejects with ${String(value)} fails the job with the message "${message}"`, async () => {
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what users may throw
          const manager = open(create(), { execute: vi.fn<Execute>(() => Promise.reject(value)) });
          const id = await manager.submitJob(specOf(2));
          const status = await manager.waitForJob(id);
          expect(status).toMatchObject({ state: 'failed', error: message, completedChunks: 0 });
          expect(status.failure).toMatchObject({ message });
          expect(status.failure?.code).toMatch(/^[A-Z_]+$/);
        });
        it(`[F87] an executor that throws ${String(value)} without a promise fails the job just so`, async () => {
          const manager = open(create(), {
            execute: () => {
              throw value;  
            },
          });
          const id = await manager.submitJob(specOf(2));
          expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', error: message });
        });
      }

      it('[F87] things that have no text at all fail the job too', async () => {
        const nameless = Object.create(null) as object;
        const hostile = {
          get message(): string {
            throw new Error('no message for you');
          },
        };
        for (const value of [nameless, hostile, new Error('')]) {
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what users may throw
          const manager = open(create(), { execute: () => Promise.reject(value) });
          const status = await manager.waitForJob(await manager.submitJob(specOf(1)), { timeoutMs: 3000 });
          expect(status.state).toBe('failed');
          expect(typeof status.error).toBe('string');
        }
      });

      const aborts: [string, () => Error][] = [
        ['an Error named AbortError', abortError],
        ['a DOMException', () => new DOMException('stopped', 'AbortError')],
        ['the reason of an aborted signal', () => AbortSignal.abort().reason as Error],
      ];
      for (const [what, make] of aborts) {
        it(`[F88] an executor that rejects unasked with ${what} ends the job cancelled`, async () => {
          const manager = open(create(), { execute: () => Promise.reject(make()) });
          const status = await manager.waitForJob(await manager.submitJob(specOf(1)));
          expect(status.state).toBe('cancelled');
          expect(status.failure).toBeUndefined();
        });
      }

      for (const [call, state] of [['pauseJob', 'paused'], ['cancelJob', 'cancelled']] as const) {
        for (const answer of ['rejects with an AbortError', 'rejects with something else', 'throws a string', 'resolves'] as const) {
          it(`[F88] once ${call} is accepted, an executor that ${answer} leaves the job ${state}, without a failure`, async () => {
            const manager = open(create(), {
              execute: (_, options) =>
                new Promise((resolve, reject) => {
                  options?.signal?.addEventListener('abort', () => {
                    void options.onChunkComplete?.(1, chunkResult);
                    if (answer === 'resolves') resolve({ all: 'done' });
                    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors -- what users may throw
                    else reject(answer === 'throws a string' ? 'stop' : answer === 'rejects with an AbortError' ? abortError() : new Error('EPIPE'));
                  });
                }),
            });
            const id = await manager.submitJob(specOf(3));
            await nextEvent(manager, 'job.started', id);
            await manager[call](id);
            const status = await manager.getJob(id);
            // What was reported meanwhile counts; the rest is not done.
            expect(status).toMatchObject({ state, completedChunks: 1 });
            expect(status?.failure).toBeUndefined();
            expect(status?.error).toBeUndefined();
            expect(status?.result).toBeUndefined();
            expect((await manager.chunks(id)).map((chunk) => chunk.state)).toEqual(['pending', 'completed', 'pending']);
          });
        }
      }

      it('[F88] a job that was paused when its executor resolved is run again by resume', async () => {
        const execute = vi.fn<Execute>(async (_, options) => {
          await whenAborted(options?.signal).catch(() => undefined);
        });
        const manager = open(create(), { execute });
        const id = await manager.submitJob(specOf(2));
        await nextEvent(manager, 'job.started', id);
        await manager.pauseJob(id);
        execute.mockImplementation(async () => 'second');
        await manager.resumeJob(id);
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', result: 'second', attempt: 2 });
        expect(execute).toHaveBeenCalledTimes(2);
      });

      const values: [string, unknown, unknown][] = [
        ['an object', { path: '/out.mp4', parts: [1, 2, { a: null }], 'ü': 'ö' }, { path: '/out.mp4', parts: [1, 2, { a: null }], 'ü': 'ö' }],
        ['a text', 'out.mp4', 'out.mp4'],
        ['a number', 12.5, 12.5],
        ['false', false, false],
        ['null', null, null],
        ['nothing', undefined, undefined],
        ['a function', () => 1, undefined],
        ['a BigInt', 10n, undefined],
      ];
      for (const [what, value, kept] of values) {
        it(`[F121] an executor that resolves with ${what} has completed the job, and the result is kept if it is JSON`, async () => {
          const manager = open(create(), { execute: async () => value });
          const status = await manager.waitForJob(await manager.submitJob(specOf(1)));
          expect(status.state).toBe('completed');
          expect(status.result).toEqual(kept);
        });
      }

      it('[F121] a result that JSON can not hold is left out, and the job is completed', async () => {
        const circle: { self?: unknown } = {};
        circle.self = circle;
        const manager = open(create(), { execute: async () => circle });
        const status = await manager.waitForJob(await manager.submitJob(specOf(1)));
        expect(status.state).toBe('completed');
        expect(status.result).toBeUndefined();
      });

      it('[F24] an executor that gives a thenable, or no promise at all, is waited for or done', async () => {
        const thenable = (act: (resolve: (value: unknown) => void, reject: (error: unknown) => void) => void): Execute =>
          (() => ({ then: (resolve: (value: unknown) => void, reject: (error: unknown) => void) => act(resolve, reject) })) as unknown as Execute;
        const gate = deferred<unknown>();
        const waits = open(create(), { execute: thenable((resolve) => { gate.promise.then(resolve, resolve); }) });
        const id = await waits.submitJob(specOf(1));
        await nextEvent(waits, 'job.started', id);
        await turns(5);
        expect((await waits.getJob(id))?.state).toBe('running');
        gate.resolve('later');
        expect(await waits.waitForJob(id)).toMatchObject({ state: 'completed', result: 'later' });

        const cases: [Execute, object][] = [
          [thenable((_, reject) => reject(new Error('no'))), { state: 'failed', error: 'no' }],
          [thenable((resolve, reject) => { resolve('first'); reject(new Error('second')); }), { state: 'completed', result: 'first' }],
          [(() => 'plain') as unknown as Execute, { state: 'completed', result: 'plain' }],
          [(() => undefined) as unknown as Execute, { state: 'completed' }],
        ];
        for (const [execute, end] of cases) {
          const manager = open(create(), { execute });
          expect(await manager.waitForJob(await manager.submitJob(specOf(1)))).toMatchObject(end);
        }
      });
    });

    describe('that do not listen', () => {
      for (const [call, state] of [['pauseJob', 'paused'], ['cancelJob', 'cancelled'], ['deleteJob', undefined]] as const) {
        it(`[F36] ${call} gives a deaf executor up after abortGraceMs, warns of it, and refuses what it says later`, async () => {
          const gate = deferred<unknown>();
          let options: JobExecutionOptions = {};
          const repository = create();
          const manager = open(
            repository,
            {
              execute: (_, given) => {
                options = given ?? {};
                return gate.promise;
              },
            },
            { abortGraceMs: 5 },
          );
          const events = traceOf(manager);
          const id = await manager.submitJob(specOf(3));
          await until(() => options.signal);
          await options.onChunkComplete?.(0, chunkResult);
          await manager[call](id);
          expect((await manager.getJob(id))?.state).toBe(state);
          const warnings = (): number => typesOf(events, id).filter((type) => type === 'job.warning').length;
          if (state) expect(warnings()).toBeGreaterThan(0);
          const before = warnings();
          options.onProgress?.(2, 3);
          await options.onChunkComplete?.(1, chunkResult);
          gate.resolve({ late: true });
          if (state) await until(() => warnings() >= before + 3, 'three warnings of late reports');
          await turns(10);
          const status = await repository.get(id);
          expect(status?.state).toBe(state);
          if (state) expect(status).toMatchObject({ completedChunks: 1 });
          expect(status?.result).toBeUndefined();
        });
      }

      it('[F24] what a given-up run says does not reach the next run of its job', async () => {
        const gates = [deferred<unknown>(), deferred<unknown>()];
        const given: JobExecutionOptions[] = [];
        const manager = open(
          create(),
          {
            execute: (_, options) => {
              given.push(options ?? {});
              return gates[given.length - 1]!.promise;
            },
          },
          { abortGraceMs: 5 },
        );
        const id = await manager.submitJob(specOf(3));
        await nextEvent(manager, 'job.started', id);
        await manager.pauseJob(id);
        await manager.resumeJob(id);
        await until(() => given.length === 2);
        await given[0]!.onChunkComplete?.(0, chunkResult);
        given[0]!.onProgress?.(2, 3);
        gates[0]!.resolve('from the grave');
        await turns(10);
        expect(await manager.getJob(id)).toMatchObject({ state: 'running', completedChunks: 0, progress: 0 });
        await given[1]!.onChunkComplete?.(2, chunkResult);
        gates[1]!.resolve('alive');
        const status = await manager.waitForJob(id);
        expect(status).toMatchObject({ state: 'completed', result: 'alive' });
        expect(status.logs?.map((log) => log.chunkId)).toEqual([2]);
      });
    });

    describe('what they are given', () => {
      it("[F69] the user's callbacks and unknown options reach execute, beside the manager's reports", async () => {
        const onProgress = vi.fn();
        const onChunkComplete = vi.fn();
        const onChunkStdout = vi.fn();
        const hooks = { before: vi.fn() };
        const execute = vi.fn<Execute>(async (_, options) => {
          options?.onProgress?.(1, 2);
          await options?.onChunkComplete?.(1, { ...chunkResult, stdout: 'frame 20' });
          options?.onChunkStdout?.(1, 'text');
          (options as unknown as { hooks: typeof hooks }).hooks.before('x');
        });
        const manager = open(create(), { execute });
        const options = { onProgress, onChunkComplete, onChunkStdout, hooks, engine: 'cycles', concurrency: 3, meta: { shot: 4 } };
        const id = await manager.submitJob(specOf(2), options);
        const status = await manager.waitForJob(id);
        expect(onProgress.mock.calls).toEqual([[1, 2]]);
        expect(onChunkComplete.mock.calls).toEqual([[1, { ...chunkResult, stdout: 'frame 20' }]]);
        expect(onChunkStdout.mock.calls).toEqual([[1, 'text']]);
        expect(hooks.before).toHaveBeenCalledWith('x');
        expect(status.logs).toMatchObject([{ chunkId: 1, stdout: 'frame 20', stderr: '', durationMs: 1 }]);
        const [spec, given] = execute.mock.calls[0]!;
        expect(spec).toEqual(specOf(2));
        expect(given).toMatchObject({ engine: 'cycles', concurrency: 3, meta: { shot: 4 } });
        expect((given as unknown as { hooks: unknown }).hooks).toBe(hooks);
        expect(given?.signal).toBeInstanceOf(AbortSignal);
        expect(given?.signal?.aborted).toBe(false);
      });

      it('[F69] callbacks that throw or reject change nothing of the job and are told as job.warning', async () => {
        const onProgress = vi.fn(() => {
          throw new Error('my progress bar broke');
        });
        const onChunkComplete = vi.fn(() => Promise.reject(new Error('my database is away')));
        const manager = open(create(), new OwnExecutor());
        const events = traceOf(manager);
        const id = await manager.submitJob(specOf(2), { onProgress, onChunkComplete });
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2 });
        await until(() => typesOf(events, id).filter((type) => type === 'job.warning').length === 4);
        const told = events.flatMap((event) => (event.type === 'job.warning' ? [`${event.message} ${event.error?.message ?? ''}`] : []));
        expect(told.filter((text) => text.includes('my progress bar broke'))).toHaveLength(2);
        expect(told.filter((text) => text.includes('my database is away'))).toHaveLength(2);
      });

      it('[F69] an executor that awaits onChunkComplete waits for what the callback of the user promised', async () => {
        const gate = deferred();
        const told: string[] = [];
        const manager = open(create(), {
          execute: async (_, options) => {
            await options?.onChunkComplete?.(0, chunkResult);
            told.push('executor');
          },
        });
        const id = await manager.submitJob(specOf(1), {
          onChunkComplete: async () => {
            await gate.promise;
            told.push('user');
          },
        });
        await nextEvent(manager, 'job.started', id);
        await turns(5);
        gate.resolve();
        await manager.waitForJob(id);
        expect(told).toEqual(['user', 'executor']);
      });

      it('[F9] an executor that changes spec and options changes nothing of the job, nor of what the caller gave', async () => {
        const spec = specOf(2);
        const options = { meta: { shot: 1 }, env: { A: '1' } };
        const manager = open(create(), {
          execute: async (given, its) => {
            given.id = 'changed';
            given.chunks.pop();
            given.chunks[0]!.command = 'rm -rf';
            given.metadata.fps = 0;
            if (its) its.concurrency = 99;
          },
        });
        const id = await manager.submitJob(spec, options);
        const status = await manager.waitForJob(id);
        expect(status.spec).toEqual(specOf(2));
        expect(spec).toEqual(specOf(2));
        expect(options).toEqual({ meta: { shot: 1 }, env: { A: '1' } });
      });

      it('[F24] execute is a method: a class keeps its `this`, private fields too', async () => {
        class Farm implements Executor {
          readonly #name = 'north';
          runs = 0;
          async execute(spec: JobSpec): Promise<string> {
            this.runs += 1;
            return `${this.#name}:${spec.id}`;
          }
        }
        const farm = new Farm();
        const manager = open(create(), farm);
        expect((await manager.waitForJob(await manager.submitJob(specOf(1)))).result).toBe('north:render');
        expect(farm.runs).toBe(1);
      });

      it('[F24] execute is looked up at each call: a spy put on later, and a method put in its place, are honoured', async () => {
        const executor = new OwnExecutor();
        const manager = open(create(), executor);
        const spy = vi.spyOn(executor, 'execute');
        await manager.waitForJob(await manager.submitJob(specOf(2)));
        expect(spy).toHaveBeenCalledTimes(1);
        expect(spy.mock.contexts[0]).toBe(executor);
        expect(executor.ran).toEqual([0, 1]);
        spy.mockRejectedValueOnce(new Error('from the spy'));
        expect(await manager.waitForJob(await manager.submitJob(specOf(2)))).toMatchObject({ state: 'failed', error: 'from the spy' });
        spy.mockRestore();
        executor.execute = async () => undefined;
        expect((await manager.waitForJob(await manager.submitJob(specOf(2)))).state).toBe('completed');
        expect(executor.ran).toEqual([0, 1]);
      });

      it('[F24] a spy on the executor of ours sees the call, lets it through, and may take its place', async () => {
        const run = vi.fn(async () => undefined);
        const executor = JobExecutor.fromFunction(run);
        const manager = open(create(), executor);
        const spy = vi.spyOn(executor, 'execute');
        expect(await manager.waitForJob(await manager.submitJob(specOf(3)))).toMatchObject({ state: 'completed', completedChunks: 3 });
        expect(run).toHaveBeenCalledTimes(3);
        expect(spy).toHaveBeenCalledTimes(1);
        expect(spy.mock.calls[0]![0].chunks).toHaveLength(3);
        expect(spy.mock.calls[0]![1]?.signal).toBeInstanceOf(AbortSignal);
        spy.mockImplementation(async () => undefined);
        expect(await manager.waitForJob(await manager.submitJob(specOf(3)))).toMatchObject({ state: 'completed', completedChunks: 3 });
        expect(run).toHaveBeenCalledTimes(3);
      });

      it('[F122] a double in the place of execute of ours reports by the same callbacks as any other', async () => {
        const gate = deferred();
        const onProgress = vi.fn();
        const executor = JobExecutor.fromFunction(async () => undefined);
        vi.spyOn(executor, 'execute').mockImplementation(async (_, options) => {
          await options?.onChunkComplete?.(1, { ...chunkResult, stdout: 'from the double' });
          options?.onProgress?.(1, 4);
          await gate.promise;
        });
        const manager = open(create(), executor);
        const id = await manager.submitJob(specOf(4), { onProgress });
        await until(() => onProgress.mock.calls.length === 1);
        await turns(10);
        const during = await manager.getJob(id);
        gate.resolve();
        const status = await manager.waitForJob(id);
        expect(during).toMatchObject({ state: 'running', completedChunks: 1, progress: 25 });
        expect(status.logs).toMatchObject([{ chunkId: 1, stdout: 'from the double' }]);
        expect(onProgress.mock.calls).toEqual([[1, 4]]);
      });

      it('[F24] a subclass of ours that calls super.execute, as it is or with changed options, runs each chunk once and keeps its records', async () => {
        for (const change of [undefined, { concurrency: 2 }, { retries: 1 }]) {
          const ran: number[] = [];
          const adapter: WorkerAdapter = {
            execute: async (job) => {
              ran.push(Number(job.args?.at(-1)));
              await turn();
              return { ...chunkResult, stdout: 'ok' };
            },
          };
          class Logged extends JobExecutor {
            override async execute(spec: JobSpecInput, options?: JobExecutionOptions): Promise<void> {
              await super.execute(spec, change ? { ...options, ...change } : options);
            }
          }
          const manager = open(create(), new Logged(adapter));
          const status = await manager.waitForJob(await manager.submitJob(specOf(4)));
          expect(status).toMatchObject({ state: 'completed', completedChunks: 4 });
          expect(status.logs?.map((log) => log.chunkId).sort()).toEqual([0, 1, 2, 3]);
          expect(status.logs?.every((log) => log.stdout === 'ok')).toBe(true);
          expect(ran.toSorted()).toEqual([0, 1, 2, 3]);
        }
      });

      it('[F28] an executor that hands its jobs to one of ours is stopped and goes on by its chunks', async () => {
        const ran: number[] = [];
        let hold = true;
        const inner = JobExecutor.fromFunction(async (chunk, { signal }) => {
          ran.push(chunk.id);
          if (chunk.id === 2 && hold) await whenAborted(signal);
        });
        const manager = open(create(), { execute: (spec, options) => inner.execute(spec, options) });
        const id = await manager.submitJob(specOf(4));
        await until(() => ran.length === 3);
        await manager.pauseJob(id);
        expect(await manager.getJob(id)).toMatchObject({ state: 'paused', completedChunks: 2 });
        hold = false;
        await manager.resumeJob(id);
        expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 4 });
        expect(ran).toEqual([0, 1, 2, 2, 3]);
      });
    });

    describe('records', () => {
      const text = (id: number): string => `chunk ${id} done`;
      const makers: Record<string, () => Executor> = {
        'an executor of the user that awaits nothing': () => ({
          async execute(spec: JobSpec, options: JobExecutionOptions = {}) {
            const queue = [...spec.chunks];
            let done = 0;
            const slot = async (): Promise<void> => {
              for (let chunk = queue.shift(); chunk; chunk = queue.shift()) {
                await turns(chunk.id % 3);
                done += 1;
                options.onProgress?.(done, spec.chunks.length);
                void options.onChunkComplete?.(chunk.id, { ...chunkResult, stdout: text(chunk.id) });
              }
            };
            await Promise.all(Array.from({ length: options.concurrency ?? 1 }, slot));
          },
        }),
        'the executor of ours with an adapter': () =>
          new JobExecutor({
            execute: async (job) => {
              const id = Number(job.args?.at(-1));
              await turns(id % 3);
              return { ...chunkResult, stdout: text(id) };
            },
          }),
        'the executor of ours with a function': () =>
          JobExecutor.fromFunction(async (chunk) => {
            await turns(chunk.id % 3);
            return { stdout: text(chunk.id) };
          }),
      };
      for (const [which, make] of Object.entries(makers)) {
        it(`[F121] ${which}: 100 of 100 chunk records at concurrency 32 are kept`, async () => {
          const repository = create();
          const manager = open(repository, make());
          const id = await manager.submitJob(specOf(100), { concurrency: 32 });
          const ended = await manager.waitForJob(id);
          const kept = await repository.get(id);
          for (const status of [ended, kept]) {
            expect(status).toMatchObject({ state: 'completed', completedChunks: 100, totalChunks: 100 });
            expect(status?.logs).toHaveLength(100);
            expect(status?.logs?.map((log) => log.chunkId).sort((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, n) => n));
            expect(status?.logs?.every((log) => log.stdout === text(log.chunkId))).toBe(true);
          }
          expect((await manager.chunks(id, { state: 'completed' })).every((chunk) => chunk.attempt === 1)).toBe(true);
        });
      }
    });
  });
}

describe('what getJob shows, in memory', () => {
  const ends: [string, 'completed' | 'failed' | 'cancelled', (gate: ReturnType<typeof deferred<unknown>>) => void][] = [
    ['resolved', 'completed', (gate) => gate.resolve('ok')],
    ['rejected', 'failed', (gate) => gate.reject(new Error('no'))],
    ['rejected with an AbortError', 'cancelled', (gate) => gate.reject(abortError())],
  ];
  for (const [how, state, act] of ends) {
    it(`[F121] one turn of the event loop after the executor's promise ${how} the job is ${state}`, async () => {
      const gate = deferred<unknown>();
      const manager = open(new InMemoryJobRepository(), { execute: () => gate.promise });
      const id = await manager.submitJob(specOf(2));
      await nextEvent(manager, 'job.started', id);
      act(gate);
      await gate.promise.catch(() => undefined);
      await turn();
      expect((await manager.getJob(id))?.state).toBe(state);
    });
  }

  it("[F121] one turn after the promise of our own executor's execute settled the job is completed", async () => {
    const executor = JobExecutor.fromFunction(turn);
    const manager = open(new InMemoryJobRepository(), executor);
    const spy = vi.spyOn(executor, 'execute');
    const id = await manager.submitJob(specOf(3));
    await until(() => spy.mock.results.length === 1);
    await spy.mock.results[0]!.value;
    await turn();
    expect(await manager.getJob(id)).toMatchObject({ state: 'completed', completedChunks: 3 });
  });

  it('[F121] what was reported is seen in the same turn, and the job when submitJob has resolved', async () => {
    let seen: unknown[] = [];
    const manager = open(new InMemoryJobRepository(), {
      execute: async (_, options) => {
        void options?.onChunkComplete?.(0, chunkResult);
        const status = await manager.getJob(id);
        seen = [status?.state, status?.completedChunks];
      },
    });
    const id = await manager.submitJob(specOf(2));
    expect((await manager.getJob(id))?.state).toBe('pending');
    await manager.waitForJob(id);
    expect(seen).toEqual(['running', 1]);
  });
});

describe('fake timers in the test of a user', () => {
  it('do not stop the manager: jobs start, report, retry, are paused, resumed and waited for', async () => {
    vi.useFakeTimers();
    let failed = false;
    const manager = open(
      new InMemoryJobRepository(),
      JobExecutor.fromFunction(async (chunk) => {
        if (chunk.id === 1 && !failed) {
          failed = true;
          throw new Error('once');
        }
      }),
    );
    const id = await manager.submitJob(specOf(3), { retries: 1, retryDelay: 5, timeouts: { chunkMs: 60_000, jobMs: 60_000 } });
    expect(await manager.waitForJob(id, { timeoutMs: 5000 })).toMatchObject({ state: 'completed', completedChunks: 3 });
    const second = await manager.submitJob(specOf(2));
    await manager.pauseJob(second);
    await manager.resumeJob(second);
    expect((await manager.waitForJob(second)).state).toBe('completed');
  });

  it('do not stop an executor of the user, its being given up, or the end of the manager', async () => {
    vi.useFakeTimers();
    const manager = open(new InMemoryJobRepository(), { execute: () => new Promise(() => undefined) }, { abortGraceMs: 5 });
    const id = await manager.submitJob(specOf(1));
    await until(async () => (await manager.getJob(id))?.state === 'running');
    await manager.cancelJob(id);
    expect((await manager.getJob(id))?.state).toBe('cancelled');
  });

  it('do not keep close() waiting for ever for an executor that is deaf', async () => {
    vi.useFakeTimers();
    const manager = open(new InMemoryJobRepository(), { execute: () => new Promise(() => undefined) }, { abortGraceMs: 60_000 });
    const id = await manager.submitJob(specOf(1));
    await until(async () => (await manager.getJob(id))?.state === 'running');
    await manager.close({ finishMs: 5, abortMs: 5 });
    expect((await manager.getJob(id))?.state).toBe('pending');
  }, 3000);

  it('do not stop the sentence that a wait took too long', async () => {
    vi.useFakeTimers();
    const manager = open(new InMemoryJobRepository(), { execute: () => new Promise(() => undefined) }, { abortGraceMs: 5 });
    const id = await manager.submitJob(specOf(1));
    await expect(manager.waitForJob(id, { timeoutMs: 5 })).rejects.toMatchObject({ code: 'TIMEOUT' });
    vi.useRealTimers();
  });
});
