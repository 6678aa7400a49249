import { createHash } from 'node:crypto';
import { statSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import type { JobEvent, JobStatus } from 'framewright';
import { describe, expect, it } from 'vitest';
import { gone, isAlive } from './support/processes.js';
import { Random } from './support/random.js';
import { Scene } from './support/scene.js';
import { durable, shared } from './support/stores.js';
import { there, type Worker } from './support/worker.js';

/** Work goes on within this time after the owner's death. */
const GOES_ON_MS = 2000;

async function statusOf(worker: Worker, id: string): Promise<JobStatus> {
  return (await worker.call('getJob', id))!;
}

describe.each(durable)('the owner is killed, jobs in $kind', ({ shared: isShared, create }) => {
  it('[F101] [F102] [F152] work goes on within two seconds, with what was in flight and nothing else begun again', { retry: 2 }, async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start();
    const standby = isShared ? await scene.start() : undefined;
    await owner.call('submitJob', ledger.job(6, (chunk) => (chunk < 2 ? 0 : 'hold')), scene.options('a', { concurrency: 2 }));
    const { owner: previousOwner } = await owner.event('job.started', 'a');
    for (const chunk of [0, 1]) await owner.event('chunk.completed', 'a', (event) => event.chunkId === chunk);
    const orphans = await Promise.all([2, 3].map((chunk) => scene.begun('a', chunk)));
    expect(orphans.map(({ pid }) => isAlive(pid))).toEqual([true, true]);
    scene.openGate();
    const killed = Date.now();
    await owner.kill();
    const next = standby ?? (await scene.start());
    const opened = standby ? killed : Date.now();
    const again = await Promise.all([2, 3].map((chunk) => scene.begun('a', chunk, 2)));
    for (const { at } of again) expect(at - opened).toBeLessThan(GOES_ON_MS);
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 6, progress: 100 });

    expect(ledger.attempts('a')).toEqual({ 0: [1], 1: [1], 2: [1, 2], 3: [1, 2], 4: [1], 5: [1] });
    expect(ledger.entries('overlap')).toEqual([]);
    await gone(orphans.map(({ pid }) => pid));
    const status = await statusOf(next, 'a');
    expect(status.recoveries).toEqual([{ recoveredAt: expect.any(Number) as number, previousState: 'running', previousOwner }]);
    expect(await next.event('job.recovered', 'a')).toMatchObject({ previousOwner });
    expect((await next.call('chunks', 'a')).map(({ attempt }) => attempt)).toEqual([1, 1, 2, 2, 1, 1]);
  });

  it('[F101] twelve kills at random moments lose no job and repeat no finished chunk', { timeout: 60_000 }, async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const random = new Random(Number(process.env['FRAMEWRIGHT_SEED'] ?? 12));
    const CONCURRENCY = 2;
    const CHUNKS = 60;
    const ids: string[] = [];
    const submit = async (worker: Worker): Promise<void> => {
      const id = `job-${ids.length}`;
      await worker.call('submitJob', ledger.job(CHUNKS, 0.02), scene.options(id, { concurrency: CONCURRENCY, crashRetries: 100 }));
      ids.push(id);
    };
    let owner = await scene.start();
    let standby = isShared ? scene.spawn() : undefined;
    for (let kills = 0; kills < 12; kills += 1) {
      const ends = ledger.entries('end', ids.at(-1) ?? 'none').length;
      if (ids.length === 0 || ends > CHUNKS - 15) await submit(owner);
      const before = ledger.entries('begin').length;
      await standby?.ready;
      // It is at work, and then any moment will do.
      await ledger.until('begin', () => ledger.entries('begin').length > before);
      await new Promise((resolve) => setTimeout(resolve, random.below(80)));
      await owner.kill();
      owner = standby ?? (await scene.start());
      if (isShared) standby = scene.spawn();
    }
    ledger.write('fast', '');
    for (const id of ids) {
      const context = `seed ${random.seed}, ${id}`;
      const status = await owner.call('waitForJob', id);
      expect(status, context).toMatchObject({ state: 'completed', completedChunks: CHUNKS });
      const chunks = await owner.call('chunks', id);
      const attempts = ledger.attempts(id);
      for (const chunk of chunks) {
        const begun = attempts[chunk.id] ?? [];
        // No attempt after the one that was accepted, none begun twice, all counted.
        expect(Math.max(...begun), `${context}, chunk ${chunk.id}`).toBe(chunk.attempt);
        expect(new Set(begun).size, `${context}, chunk ${chunk.id}: attempts ${begun.join()}`).toBe(begun.length);
      }
      const again = Object.values(attempts).reduce((sum, begun) => sum + begun.length - 1, 0);
      expect(again, context).toBeLessThanOrEqual((status.recoveries?.length ?? 0) * CONCURRENCY);
      expect(status.recoveries!.length, context).toBeGreaterThan(0);
    }
    expect(ledger.entries('overlap')).toEqual([]);
    await expectCompletedOnce(owner, ids, CHUNKS);
  });

  it.each([
    { crashRetries: undefined, deaths: 4 },
    { crashRetries: 0, deaths: 1 },
  ])('[F83] a chunk that kills its worker ends failed after crashRetries $crashRetries, its attempts counted', async ({ crashRetries, deaths }) => {
    const scene = new Scene(create());
    const { ledger } = scene;
    let worker = await scene.start();
    const options = scene.options('a', crashRetries === undefined ? {} : { crashRetries });
    worker.call('submitJob', ledger.job(3, (chunk) => (chunk === 1 ? 'suicide' : 0)), options).catch(() => undefined);
    for (let death = 1; death <= deaths; death += 1) {
      expect(await worker.exited).toMatchObject({ signal: 'SIGKILL' });
      worker = scene.spawn();
    }
    await worker.ready;
    const status = await worker.call('waitForJob', 'a');
    expect(status).toMatchObject({ state: 'failed', completedChunks: 1, failure: { code: 'CHUNK_FAILED', chunkId: 1, attempt: deaths } });
    expect(status.failure!.message).toContain('died');
    expect(ledger.attempts('a')).toEqual({ 0: [1], 1: Array.from({ length: deaths }, (_, n) => n + 1) });
    expect((await worker.call('chunks', 'a')).map(({ state, attempt }) => [state, attempt])).toEqual([['completed', 1], ['failed', deaths], ['pending', 0]]); // prettier-ignore
    // And it is over: nobody takes it up again, until it is resumed.
    expect(await worker.call('recoverJobs')).toEqual([]);
    scene.openGate();
    await worker.call('resumeJob', 'a');
    expect(await worker.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(ledger.entries('overlap')).toEqual([]);
  });

  it('[F102] with recover: false orphans are left alone until recoverJobs()', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start();
    await owner.call('submitJob', ledger.job(2, 'hold'), scene.options('a'));
    const orphan = await scene.begun('a', 0);
    await owner.event('chunk.started', 'a');
    await owner.kill();
    scene.openGate();
    const next = await scene.start({ options: { recover: false } });
    // It takes jobs of its own meanwhile.
    await next.call('submitJob', ledger.job(1, 0), scene.options('b'));
    await next.call('waitForJob', 'b');
    expect(await statusOf(next, 'a')).toMatchObject({ state: 'running' });
    expect(isAlive(orphan.pid)).toBe(true);
    expect(ledger.attempts('a')).toEqual({ 0: [1] });
    expect(await next.call('recoverJobs')).toEqual(['a']);
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed' });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1] });
    await gone([orphan.pid]);
  });

  it('[F106] a manager that is closed gives its jobs back, and the next one goes on as if nothing had happened', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const first = await scene.start();
    // A crash would fail it at once.
    await first.call('submitJob', ledger.job(3, (chunk) => (chunk === 0 ? 0 : 'hold')), scene.options('a', { crashRetries: 0 }));
    const inFlight = await scene.begun('a', 1);
    await first.event('chunk.started', 'a', (event) => event.chunkId === 1);
    await first.call('closeAll');
    expect(isAlive(inFlight.pid)).toBe(false);
    scene.openGate();
    const next = await scene.start();
    const status = await next.call('waitForJob', 'a');
    expect(status).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(status.recoveries ?? []).toEqual([]);
    const begun = ledger.attempts('a');
    expect({ 0: begun[0], 1: begun[1]?.length, 2: begun[2] }).toEqual({ 0: [1], 1: 2, 2: [1] });
  });

  it('[F102] options that can be written down go with the job', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start();
    const command = (chunk: number): string[] => [
      '/bin/sh', '-c', `[ -e gate ] || { echo "begin a ${chunk} 1 $$ 0" >> ledger; sleep 1000; }; [ ${chunk} -gt 0 ] || [ -e tried ] || { touch tried; exit 3; }; printf "$COLOUR-${chunk} " > {outputFile}`,
    ]; // prettier-ignore
    const spec = { id: 'render', chunks: [0, 1, 2].map((id) => ({ id, outputFile: `out-${id}`, argv: command(id) })) };
    const options = { concurrency: 2, retries: 1, retryDelay: 1, env: { COLOUR: 'red' }, outputFile: 'whole.txt', stitcher: there('concat'), cleanupChunks: true };
    await owner.call('submitJob', spec, scene.options('a', options));
    // Both at once.
    await Promise.all([scene.begun('a', 0), scene.begun('a', 1)]);
    for (const chunk of [0, 1]) await owner.event('chunk.started', 'a', (event) => event.chunkId === chunk);
    await owner.kill();
    scene.openGate();
    const next = await scene.start();
    const status = await next.call('waitForJob', 'a');
    expect(status).toMatchObject({ state: 'completed', result: { bytes: 18 } });
    expect(ledger.read('whole.txt')).toBe('red-0 red-1 red-2 ');
    expect(ledger.names().filter((name) => name.startsWith('out-'))).toEqual([]);
    expect((await next.call('chunks', 'a')).map(({ attempt }) => attempt)).toEqual([3, 2, 1]);
  });

  it('[F102] a job that needs an object waits for resumeJob to bring it', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start();
    const work = (chunk: number): string[] => ['/bin/sh', '-c', `[ -e gate ] || { echo "begin {jobId} ${chunk} 1 $$ 0" >> ledger; sleep 1000; }; printf ${chunk} > {outputFile}`];
    const spec = (name: string) => ({ id: name, chunks: [0, 1].map((id) => ({ id, outputFile: `${name}-${id}`, argv: work(id) })) });
    await owner.call('submitJob', spec('s'), scene.options('stitched', { stitcher: there('stitcher'), outputFile: 'whole.txt' }));
    await owner.call('submitJob', spec('v'), scene.options('verified', { verifyOutput: there('verify') }));
    for (const id of ['stitched', 'verified']) {
      await scene.begun(id, 0);
      await owner.event('chunk.started', id);
    }
    await owner.kill();
    scene.openGate();
    const next = await scene.start();
    for (const [id, what] of [['stitched', 'stitcher'], ['verified', 'verifyOutput']] as const) {
      const warning = await next.event('job.warning', id);
      expect(warning.message).toContain(what);
      expect(warning.message).toContain('resumeJob');
      expect(await statusOf(next, id)).toMatchObject({ state: 'pending', waitingFor: 'executor' });
    }
    // Nobody takes it up, whoever comes.
    expect(await next.call('recoverJobs')).toEqual([]);
    await next.call('resumeJob', 'stitched', { stitcher: there('stitcher') });
    await next.call('resumeJob', 'verified', { verifyOutput: there('verify') });
    const [stitched, verified] = await Promise.all([next.call('waitForJob', 'stitched'), next.call('waitForJob', 'verified')]);
    expect(stitched).toMatchObject({ state: 'completed' });
    expect(stitched.waitingFor).toBeUndefined();
    expect(verified).toMatchObject({ state: 'completed' });
    expect(ledger.read('whole.txt')).toBe('0+1');
    expect(stitched.recoveries).toHaveLength(1);
  });

  it('[F103] outputs that are gone or changed are rendered again, the others are not', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const render = '[ {chunkId} -lt 4 ] || [ -e gate ] || { echo "begin {jobId} {chunkId} {attempt} $$ 0" >> ledger; sleep 1000; }; echo "begin {jobId} {chunkId} {attempt} $$ 0" >> ledger; printf "out{chunkId}" > {outputFile}; touch -d @1500000000 {outputFile}';
    const touched = 1_500_000_000;
    const spec = { id: 'render', chunks: [0, 1, 2, 3, 4].map((id) => ({ id, outputFile: `out-${id}`, argv: ['/bin/sh', '-c', render] })) };
    const owner = await scene.start();
    await owner.call('submitJob', spec, scene.options('a', { stitcher: there('concat'), outputFile: 'whole.txt' }));
    for (const chunk of [0, 1, 2, 3]) await owner.event('chunk.completed', 'a', (event) => event.chunkId === chunk);
    await scene.begun('a', 4);
    await owner.event('chunk.started', 'a', (event) => event.chunkId === 4);
    // A file store's next owner, and any other's, finds them as they are then.
    unlinkSync(ledger.file('out-0'));
    writeFileSync(ledger.file('out-1'), 'cut');
    utimesSync(ledger.file('out-1'), touched, touched);
    writeFileSync(ledger.file('out-2'), 'tuo2');
    utimesSync(ledger.file('out-2'), touched, touched + 2);
    scene.openGate();
    await owner.kill();
    const next = await scene.start();
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 5 });
    const begun = ledger.attempts('a');
    expect([0, 1, 2, 3].map((chunk) => begun[chunk]?.length)).toEqual([2, 2, 2, 1]);
    expect(ledger.read('whole.txt')).toBe('out0out1out2out3out4');
  });

  it('[F103] hashOutputs: outputs are known by their content, whatever their size and time', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const render = '[ {chunkId} -lt 2 ] || [ -e gate ] || { echo "begin {jobId} {chunkId} {attempt} $$ 0" >> ledger; sleep 1000; }; echo "begin {jobId} {chunkId} {attempt} $$ 0" >> ledger; printf "out{chunkId}" > {outputFile}';
    const spec = { id: 'render', chunks: [0, 1, 2].map((id) => ({ id, outputFile: `out-${id}`, argv: ['/bin/sh', '-c', render] })) };
    const owner = await scene.start();
    await owner.call('submitJob', spec, scene.options('a', { hashOutputs: true }));
    for (const chunk of [0, 1]) await owner.event('chunk.completed', 'a', (event) => event.chunkId === chunk);
    await scene.begun('a', 2);
    await owner.event('chunk.started', 'a', (event) => event.chunkId === 2);
    const [first] = await owner.call('chunks', 'a');
    expect(first?.output).toMatchObject({ bytes: 4, sha256: createHash('sha256').update('out0').digest('hex') });
    // One was copied and brought back, the other changed with its size and time as they were.
    utimesSync(ledger.file('out-0'), new Date(0), new Date(0));
    const { atime, mtime } = statSync(ledger.file('out-1'));
    writeFileSync(ledger.file('out-1'), 'tuo1');
    utimesSync(ledger.file('out-1'), atime, mtime);
    scene.openGate();
    await owner.kill();
    const next = await scene.start();
    expect(await next.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect([0, 1].map((chunk) => ledger.attempts('a')[chunk]?.length)).toEqual([1, 2]);
    expect(ledger.read('out-1')).toBe('out1');
  });

  it('[F96] an output that is gone when the merge begins is rendered again', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const render = 'echo "begin {jobId} {chunkId} {attempt} $$ 0" >> ledger; [ {chunkId} -eq 0 ] || [ -e lost ] || { touch lost; rm out-0; }; printf "out{chunkId}" > {outputFile}';
    const spec = { id: 'render', chunks: [0, 1, 2].map((id) => ({ id, outputFile: `out-${id}`, argv: ['/bin/sh', '-c', render] })) };
    const worker = await scene.start();
    await worker.call('submitJob', spec, scene.options('a', { stitcher: there('concat'), outputFile: 'whole.txt' }));
    expect(await worker.call('waitForJob', 'a')).toMatchObject({ state: 'completed', completedChunks: 3 });
    expect(ledger.attempts('a')).toEqual({ 0: [1, 2], 1: [1], 2: [1] });
    expect(ledger.read('whole.txt')).toBe('out0out1out2');
  });
});

describe.each(shared)('jobs with a type, in $kind', ({ create }) => {
  it('[F102] go on in a manager that names the type, and in no other', async () => {
    const scene = new Scene(create());
    const { ledger } = scene;
    const owner = await scene.start({ options: { types: ['blender'] } });
    await owner.call('submitJob', ledger.job(2, 'hold'), scene.options('typed', { type: 'blender' }));
    await owner.call('submitJob', ledger.job(2, 'hold'), scene.options('plain'));
    for (const id of ['typed', 'plain']) {
      await scene.begun(id, 0);
      await owner.event('chunk.started', id);
    }
    const other = await scene.start({ options: { types: ['ffmpeg'] } });
    scene.openGate();
    await owner.kill();
    expect(await other.call('waitForJob', 'plain')).toMatchObject({ state: 'completed' });
    expect(await other.call('recoverJobs')).toEqual([]);
    expect(ledger.attempts('typed')).toEqual({ 0: [1] });
    const next = await scene.start({ options: { types: ['blender'] } });
    expect(await next.call('waitForJob', 'typed')).toMatchObject({ state: 'completed' });
    expect(ledger.attempts('typed')).toEqual({ 0: [1, 2], 1: [1] });
    expect(ledger.entries('overlap')).toEqual([]);
  });
});

/** The kept events of jobs: numbered without a gap, and every chunk accepted once. */
async function expectCompletedOnce(worker: Worker, ids: string[], chunks: number): Promise<void> {
  const events = await worker.call('readEvents');
  const numbers = events.map(({ sequence }: JobEvent) => sequence);
  expect(numbers).toEqual(numbers.map((_, n) => n + 1));
  for (const id of ids) {
    const accepted = events.filter((event: JobEvent) => event.jobId === id && event.type === 'chunk.completed').map((event: JobEvent) => (event as { chunkId: number }).chunkId);
    expect(accepted.sort((a, b) => a - b)).toEqual(Array.from({ length: chunks }, (_, n) => n));
    expect(events.filter((event: JobEvent) => event.jobId === id && event.type === 'job.completed')).toHaveLength(1);
  }
}
