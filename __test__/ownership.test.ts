import { describe, expect, it } from 'vitest';
import { gone, isAlive } from './support/processes.js';
import { Scene } from './support/scene.js';
import { shared } from './support/stores.js';
import { Refused, type Worker } from './support/worker.js';

const SHORT = { leaseMs: 1000 };

/** What a call of a worker is refused with. */
async function refusal(call: Promise<unknown>): Promise<string> {
  try {
    await call;
  } catch (error) {
    if (error instanceof Refused) return error.code;
    throw error;
  }
  throw new Error('The call resolved, where a refusal was promised');
}

describe.each(shared)('an owner that is stopped past its lease, jobs in $kind', ({ create }) => {
  it('[F116] [F153] can complete nothing when it wakes up; its pending calls reject with LEASE_LOST', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const old = await scene.start({ options: SHORT, runs: 'deaf' });
    const next = await scene.start({ options: SHORT });
    await old.call('submitJob', ledger.job(2, 'hold'), scene.options('a'));
    const { owner } = await old.event('job.started', 'a');
    await scene.begun('a', 0);
    await old.event('chunk.started', 'a');
    const pausing = old.call('pauseJob', 'a', { mode: 'graceful' });
    await old.event('job.pausing', 'a');
    old.signal('SIGSTOP');
    expect(await next.event('job.recovered', 'a')).toMatchObject({ previousOwner: owner });
    const { state } = (await next.call('getJob', 'a'))!;
    if (state === 'paused') await next.call('resumeJob', 'a');
    const taken = await scene.begun('a', 0, 2);
    // Its attempt ends in the moment in which it wakes up.
    ledger.write('late', '');
    old.signal('SIGCONT');
    expect(await old.event('job.lease_lost', 'a')).toMatchObject({ owner });
    expect(await refusal(pausing)).toBe('LEASE_LOST');
    await ledger.until('end', (entry) => entry.attempt === 1);
    // A turn of the store in the name of the old one, so that what it had to say has been said.
    expect((await old.call('getJob', 'a'))!).toMatchObject({ state: 'running', completedChunks: 0 });
    expect(isAlive(taken.pid)).toBe(true);
    scene.openGate();
    ledger.write('release', '');
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 2 });
    expect(await old.call('waitForJob', 'a')).toMatchObject({ state: 'completed' });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1] });
    const events = (await next.call('readEvents')).filter(({ jobId }) => jobId === 'a');
    expect(events.filter(({ type }) => type === 'chunk.completed')).toMatchObject([{ chunkId: 0, attempt: 2 }, { chunkId: 1, attempt: 1 }]);
    expect(events.filter(({ type }) => type === 'job.paused' || type === 'job.cancelled').length).toBe(state === 'paused' ? 1 : 0);
  });

  it('[F152] [F153] its processes are gone before their chunks run again, and it goes on as an owner of other jobs', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const old = await scene.start({ options: SHORT });
    const next = await scene.start({ options: SHORT });
    await old.call('submitJob', ledger.job(2, 'hold'), scene.options('a', { concurrency: 2 }));
    const begun = await Promise.all([0, 1].map((chunk) => scene.begun('a', chunk)));
    for (const chunk of [0, 1]) await old.event('chunk.started', 'a', (event) => event.chunkId === chunk);
    scene.openGate();
    old.signal('SIGSTOP');
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed' });
    // Without the owner's help: it is still stopped.
    await gone(begun.map(({ pid }) => pid));
    expect(ledger.entries('overlap')).toEqual([]);
    old.signal('SIGCONT');
    await old.event('job.lease_lost', 'a');
    await old.call('submitJob', ledger.job(1, 0), scene.options('b'));
    expect(await old.call('waitForJob', 'b')).toMatchObject({ state: 'completed' });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1, 2] });
  });
});

describe.each(shared)('an event loop that is blocked for three times the lease, jobs in $kind', ({ create }) => {
  it.each(['wait', 'spin'] as const)('[F151] loses nothing, runs nothing twice, and holds up no process (%s)', async (how) => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start({ options: { leaseMs: 400 } });
    const other = await scene.start({ options: { leaseMs: 400 } });
    await owner.call('submitJob', ledger.job(4, 0.03), scene.options('a'));
    await scene.begun('a', 0);
    let isBlocked = true;
    const blocked = owner.call('block', 1200, how).finally(() => (isBlocked = false));
    // Processes are begun and waited for meanwhile.
    await ledger.until('end', ({ chunk }) => chunk === 3);
    expect(isBlocked).toBe(true);
    await blocked;
    expect(await other.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 4 });
    expect(ledger.attempts('a')).toEqual({ 0: [1], 1: [1], 2: [1], 3: [1] });
    await expectNoTakeOver(other, 'a');
  });

  it('[F151] loses no chunk that is a call of a function', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start({ options: { leaseMs: 400 }, runs: 'deaf' });
    const other = await scene.start({ options: { leaseMs: 400 }, runs: 'deaf' });
    await owner.call('submitJob', ledger.job(3, 0), scene.options('a'));
    await scene.begun('a', 0);
    await owner.call('block', 1200, 'wait');
    ledger.write('late', '');
    expect(await owner.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(ledger.attempts('a')).toEqual({ 0: [1], 1: [1], 2: [1] });
    await expectNoTakeOver(other, 'a');
  });
});

async function expectNoTakeOver(worker: Worker, id: string): Promise<void> {
  const types = (await worker.call('readEvents')).filter(({ jobId }) => jobId === id).map(({ type }) => type);
  expect(types.filter((type) => type === 'job.started')).toHaveLength(1);
  expect(types).not.toContain('job.recovered');
  expect(types).not.toContain('job.lease_lost');
}

describe.each(shared)('workers that run(), jobs in $kind', ({ create }) => {
  it('[F117] eight processes work off 200 jobs, each exactly once, and end when they are told to', { timeout: 60_000 }, async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const client = await scene.start({ runs: 'nothing' });
    const workers = await Promise.all(Array.from({ length: 8 }, () => scene.start({ runs: 'turns', lives: false, options: { maxConcurrentJobs: 4 } })));
    const running = workers.map((worker) => worker.call('run'));
    const ids = Array.from({ length: 200 }, (_, n) => `job-${n}`);
    await Promise.all(ids.map((id) => client.call('submitJob', ledger.job(2, 0), scene.options(id))));
    for (const status of await Promise.all(ids.map((id) => client.call('waitForJob', id)))) expect(status).toMatchObject({ state: 'completed' });
    const begun = ledger.entries('begin').map(({ job, chunk, attempt }) => `${job} ${chunk} ${attempt}`);
    expect(begun.sort()).toEqual(ids.flatMap((id) => [`${id} 0 1`, `${id} 1 1`]).sort());
    expect(new Set(ledger.entries('begin').map(({ pid }) => pid)).size).toBeGreaterThan(1);
    for (const worker of workers) await worker.call('stopRun');
    await Promise.all(running);
    for (const worker of workers) void worker.call('letGo');
    expect(await Promise.all(workers.map((worker) => worker.exited))).toEqual(workers.map(() => ({ code: 0, signal: null })));
  });

  it('[F117] after the abort of run() no further job is taken, and those that run go on', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const client = await scene.start({ runs: 'nothing' });
    const first = await scene.start();
    const run = first.call('run');
    await client.call('submitJob', ledger.job(1, 'hold'), scene.options('a'));
    const held = await scene.begun('a', 0);
    await first.call('stopRun');
    await run;
    await client.call('submitJob', ledger.job(1, 0), scene.options('b'));
    expect(isAlive(held.pid)).toBe(true);
    expect(await client.call('getJob', 'b')).toMatchObject({ state: 'pending' });
    const second = await scene.start();
    void second.call('run').catch(() => undefined);
    await client.call('waitForJob', 'b');
    const { owner: firstOwner } = await first.event('job.started', 'a');
    const { owner: secondOwner } = await second.event('job.started', 'b');
    expect(secondOwner).not.toBe(firstOwner);
    expect(await client.call('getJob', 'a')).toMatchObject({ state: 'running', owner: firstOwner });
    expect(ledger.attempts('a')).toEqual({ 0: [1] });
    await client.call('cancelJob', 'a');
    await gone([held.pid]);
  });

  it('[F157] what one process does another one sees at once', { retry: 2 }, async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const client = await scene.start({ runs: 'nothing' });
    const worker = await scene.start({ runs: 'turns' });
    void worker.call('run').catch(() => undefined);
    const alone = await scene.start({ runs: 'turns' });
    /** The median of the time from a submit to the news of the end. */
    const median = async (submitter: Worker, name: string): Promise<number> => {
      const times: number[] = [];
      for (let n = 0; n < 9; n += 1) {
        const began = performance.now();
        await submitter.call('submitJob', ledger.job(1, 0), scene.options(`${name}-${n}`));
        await submitter.call('waitForJob', `${name}-${n}`);
        times.push(performance.now() - began);
      }
      return times.sort((a, b) => a - b)[4]!;
    };
    const within = await median(alone, 'within');
    const across = await median(client, 'across');
    // To the worker and back; to look four times a second would cost a quarter of a second. A busy machine is slow at all of it.
    expect(across).toBeLessThan(3 * within + 100);
  });
});
