import { JobExecutor, type Executor, type FramewrightError, type JobExecutionOptions, type JobManager, type JobRepository, type JobState, type JobStatus } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred, type Deferred } from './support/deferred.js';
import { open, repositories } from './support/managers.js';
import { whenAborted } from './support/own-executor.js';
import { rejection } from './support/rejection.js';
import { durables } from './support/repositories.js';
import { specOf } from './support/specs.js';
import { traceOf } from './support/trace.js';
import { turns, until } from './support/turns.js';

type Call = 'pauseJob' | 'resumeJob' | 'cancelJob' | 'deleteJob';
/** What a cell of the table says: the state afterwards, that the record is gone, that it is so already, or nothing. */
type Cell = 'paused' | 'cancelled' | 'goes on' | 'gone' | 'already' | '-';

const STATES: JobState[] = ['pending', 'running', 'paused', 'completed', 'failed', 'cancelled'];
const TABLE: Record<Call, Record<JobState, Cell>> = {
  pauseJob: { pending: 'paused', running: 'paused', paused: 'already', completed: '-', failed: '-', cancelled: '-' },
  resumeJob: { pending: '-', running: '-', paused: 'goes on', completed: '-', failed: 'goes on', cancelled: '-' },
  cancelJob: { pending: 'cancelled', running: 'cancelled', paused: 'cancelled', completed: '-', failed: '-', cancelled: 'already' },
  deleteJob: { pending: 'gone', running: 'gone', paused: 'gone', completed: 'gone', failed: 'gone', cancelled: 'gone' },
};
const CALLS = Object.keys(TABLE) as Call[];

const SENTENCES: Record<Cell, string> = {
  paused: 'leaves it paused',
  cancelled: 'leaves it cancelled',
  'goes on': 'makes it go on to its end',
  gone: 'removes it for good',
  already: 'resolves, since it is so already',
  '-': 'changes nothing',
};

/** Runs jobs as the name of their render says, the second time always to the end. */
class Stage implements Executor {
  readonly begun: string[] = [];
  readonly ends = new Map<string, Deferred<void>>();
  #runs = 0;

  async execute(spec: { id: string }, options?: JobExecutionOptions): Promise<void> {
    this.begun.push(spec.id);
    if (spec.id === 'blocks') return Promise.race([this.end('blocks').promise, whenAborted(options?.signal)]);
    this.#runs += 1;
    if (this.#runs > 1) return;
    if (spec.id === 'fails') throw new Error('the renderer broke');
    if (spec.id === 'runs') return Promise.race([this.end('runs').promise, whenAborted(options?.signal)]);
  }

  end(name: string): Deferred<void> {
    const known = this.ends.get(name) ?? deferred();
    this.ends.set(name, known);
    return known;
  }
}

interface Scene {
  manager: JobManager;
  stage: Stage;
  id: string;
}

/** A job that has been brought into a state. */
async function jobIn(state: JobState, repository: JobRepository): Promise<Scene> {
  const stage = new Stage();
  const manager = open(repository, stage, { maxConcurrentJobs: 1 });
  if (state === 'pending') {
    await manager.submitJob(specOf(1, { id: 'blocks' }), { id: 'blocker' });
    await until(() => stage.begun.length === 1);
  }
  const name = { pending: 'waits', running: 'runs', paused: 'runs', completed: 'ends', failed: 'fails', cancelled: 'runs' }[state];
  const id = await manager.submitJob(specOf(2, { id: name }));
  if (state !== 'pending') await until(() => stage.begun.includes(name));
  if (state === 'paused') await manager.pauseJob(id);
  if (state === 'cancelled') await manager.cancelJob(id);
  if (state === 'completed' || state === 'failed') await manager.waitForJob(id);
  await until(async () => (await manager.getJob(id))?.state === state, state);
  return { manager, stage, id };
}

/** What of a status only a change of the job may change. */
function lasting(status: JobStatus | undefined): Partial<JobStatus> {
  const { fps: _, eta: __, ...rest } = status ?? ({} as JobStatus);
  return rest;
}

const kinds: { kind: string; create: () => JobRepository | Promise<JobRepository> }[] = [
  ...repositories,
  ...durables.map(({ kind, create }) => ({ kind: `in ${kind}`, create: () => create().open() })),
];

for (const { kind, create } of kinds) {
  describe(`jobs kept ${kind}`, () => {
    for (const call of CALLS) {
      for (const state of STATES) {
        const cell = TABLE[call][state];
        for (const strict of [false, true]) {
          const refused = strict && cell === '-';
          const sentence = refused ? 'is refused with INVALID_TRANSITION and changes nothing' : SENTENCES[cell];
          it(`[F23] ${strict ? 'strict ' : ''}${call} of a ${state} job ${sentence}`, async () => {
            const { manager, stage, id } = await jobIn(state, await create());
            const before = await manager.getJob(id);
            const begun = stage.begun.length;
            const events = traceOf(manager);

            const called = manager[call](id, { strict });
            if (refused) {
              const error: FramewrightError = await rejection(called);
              expect(error.code).toBe('INVALID_TRANSITION');
              expect(error.name).toBe('FramewrightError');
              expect(error.message).toContain(id);
              expect(error.message).toContain(state);
            } else {
              await expect(called).resolves.toBeUndefined();
            }

            if (cell === '-' || cell === 'already') {
              expect(lasting(await manager.getJob(id))).toEqual(lasting(before));
              await turns(5);
              expect(lasting(await manager.getJob(id))).toEqual(lasting(before));
              expect(events).toEqual([]);
              expect(stage.begun.length).toBe(begun);
            } else if (cell === 'gone') {
              expect(await manager.getJob(id)).toBeUndefined();
              expect((await manager.listJobs()).map((job) => job.id)).not.toContain(id);
              stage.end('blocks').resolve();
              await turns(10);
              expect(await manager.getJob(id)).toBeUndefined();
              expect(stage.begun.length).toBe(begun);
              expect(events.filter((event) => event.jobId === id && event.type === 'job.deleted')).toHaveLength(1);
            } else if (cell === 'goes on') {
              expect((await manager.waitForJob(id, { timeoutMs: 5000 })).state).toBe('completed');
              expect(stage.begun.length).toBe(begun + 1);
              expect(events.map((event) => event.type)).toContain('job.resumed');
            } else {
              const status = await manager.getJob(id);
              expect(status?.state).toBe(cell);
              expect(status?.requested).toBeUndefined();
              expect(status?.version).toBeGreaterThan(before?.version ?? 0);
              expect(status?.finishedAt !== undefined).toBe(cell === 'cancelled');
              expect(events.filter((event) => event.jobId === id).at(-1)?.type).toBe(`job.${cell}`);
              // A free slot makes no difference: it does not start any more.
              stage.end('blocks').resolve();
              await turns(10);
              expect((await manager.getJob(id))?.state).toBe(cell);
              expect(stage.begun.length).toBe(begun);
            }
          });
        }
      }

      it(`[F23] ${call} of an unknown id resolves and changes nothing; strict, it rejects with NOT_FOUND`, async () => {
        const manager = open(await create(), new Stage());
        const events = traceOf(manager);
        await expect(manager[call]('nobody')).resolves.toBeUndefined();
        await expect(manager[call]('nobody', {})).resolves.toBeUndefined();
        await expect(manager[call]('nobody', { strict: false })).resolves.toBeUndefined();
        const error = await rejection(manager[call]('nobody', { strict: true }));
        expect(error.code).toBe('NOT_FOUND');
        expect(error.message).toContain('nobody');
        expect(await manager.listJobs()).toEqual([]);
        expect(events).toEqual([]);
      });

      it(`[F23] ${call} of a job that was deleted is a call of an unknown id`, async () => {
        const { manager, id } = await jobIn('completed', await create());
        await manager.deleteJob(id);
        await expect(manager[call](id)).resolves.toBeUndefined();
        expect((await rejection(manager[call](id, { strict: true }))).code).toBe('NOT_FOUND');
        expect(await manager.getJob(id)).toBeUndefined();
      });

      it(`[F23] ${call} rejects what is not an id with VALIDATION`, async () => {
        const manager = open(await create(), new Stage());
        for (const wrong of [undefined, null, 7, {}, ['a']]) {
          const error = await rejection(manager[call](wrong as string));
          expect(error.code).toBe('VALIDATION');
        }
      });
    }

    it('[F23] the six states are the only ones that listJobs knows, and each filter finds its own', async () => {
      const repository = await create();
      for (const state of ['paused', 'completed', 'failed', 'cancelled'] as const) await jobIn(state, repository);
      const { manager } = await jobIn('pending', repository);
      const found = await Promise.all(STATES.map(async (state) => (await manager.listJobs({ state })).map((job) => job.state)));
      expect(found).toEqual(STATES.map((state) => [state]));
      expect((await rejection(manager.listJobs({ state: 'stopped' as JobState }))).code).toBe('VALIDATION');
    });
  });
}

describe('with the executor of ours', () => {
  it('[F23] strict refusals leave a running job running to its end', async () => {
    const gate = deferred();
    const begun = deferred();
    const executor = JobExecutor.fromFunction(async () => {
      begun.resolve();
      await gate.promise;
    });
    const manager = open(repositories[0]!.create(), executor);
    const id = await manager.submitJob(specOf(2));
    await begun.promise;
    expect((await rejection(manager.resumeJob(id, { strict: true }))).code).toBe('INVALID_TRANSITION');
    gate.resolve();
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed', completedChunks: 2, progress: 100 });
  });
});
