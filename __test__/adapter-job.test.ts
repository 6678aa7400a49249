import { InMemoryJobRepository, JobExecutor, type JobSpecInput, type RenderJobChunk, type WorkerJob } from 'framewright';
import { describe, expect, it } from 'vitest';
import { deferred } from './support/deferred.js';
import { open } from './support/managers.js';

const done = { exitCode: 0, stdout: '', stderr: '', durationMs: 1 };
const chunk = { id: 0, startFrame: 0, frameCount: 10, outputFile: 'a.mp4', command: 'render {startFrame}' };

/** Runs a spec; gives what the adapter was called with. */
async function jobsOf(spec: unknown): Promise<WorkerJob[]> {
  const jobs: WorkerJob[] = [];
  const adapter = {
    execute: (job: WorkerJob) => {
      jobs.push(job);
      return Promise.resolve(done);
    },
  };
  const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter));
  const { state } = await manager.waitForJob(await manager.submitJob(spec as JobSpecInput));
  expect(state).toBe('completed');
  return jobs;
}

/** Runs a spec by a function; gives the chunks that it was called with. */
async function chunksOf(spec: unknown): Promise<RenderJobChunk[]> {
  const chunks: RenderJobChunk[] = [];
  const render = (chunk: RenderJobChunk): Promise<void> => {
    chunks.push(chunk);
    return Promise.resolve();
  };
  const manager = open(new InMemoryJobRepository(), JobExecutor.fromFunction(render));
  await manager.waitForJob(await manager.submitJob(spec as JobSpecInput));
  return chunks;
}

describe('the job that an adapter is handed', () => {
  // Small and big specs come in and go out by different ways.
  for (const [size, fill] of [['small', 0], ['big', 1200]] as const) {
    const others = Array.from({ length: fill }, (_, n) => ({ ...chunk, id: n + 10, outputFile: `b${n}` }));

    it(`is what JSON says of a ${size} spec whose parts have a toJSON`, async () => {
      const written = { ...chunk, command: 'written' };
      const odd = Object.defineProperty({ ...chunk }, 'toJSON', { value: () => written });
      expect((await jobsOf({ chunks: [odd, ...others] }))[0]!.command).toBe('written');
      class Odd {
        readonly id = 0;
        readonly startFrame = 0;
        readonly frameCount = 10;
        readonly outputFile = 'a.mp4';
        readonly command = 'kept';
        toJSON(): unknown {
          return written;
        }
      }
      expect((await jobsOf({ chunks: [new Odd(), ...others] }))[0]!.command).toBe('written');
    });

    it(`has no more than JSON keeps of a chunk of a ${size} spec`, async () => {
      const heir: unknown = Object.assign(Object.create({ command: 'inherited' }), { id: 0, startFrame: -0, frameCount: 10, outputFile: 'a.mp4' });
      expect((await chunksOf({ chunks: [heir, ...others] }))[0]).toEqual({ id: 0, startFrame: 0, frameCount: 10, outputFile: 'a.mp4' });
      expect(Object.is((await chunksOf({ chunks: [{ ...chunk, startFrame: -0 }, ...others] }))[0]!.startFrame, 0)).toBe(true);
    });
  }

  it('is what JSON says of a spec with a toJSON', async () => {
    const spec = { chunks: [chunk], toJSON: () => ({ chunks: [{ ...chunk, command: 'written' }] }) };
    expect((await jobsOf(spec))[0]!.command).toBe('written');
  });

  it('is of the spec that was saved while the job waited', async () => {
    const first = deferred<typeof done>();
    const commands: string[] = [];
    const adapter = {
      execute: (job: WorkerJob) => {
        commands.push(job.command);
        return commands.length === 1 ? first.promise : Promise.resolve(done);
      },
    };
    const repository = new InMemoryJobRepository();
    const manager = open(repository, new JobExecutor(adapter), { maxConcurrentJobs: 1 });
    await manager.submitJob({ chunks: [chunk] });
    const id = await manager.submitJob({ chunks: [{ ...chunk, command: 'before' }] });
    const status = (await repository.get(id))!;
    status.spec.chunks[0]!.command = 'after';
    await repository.save(status);
    first.resolve(done);
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(commands).toEqual(['render', 'after']);
  });

  for (const count of [1, 3]) {
    it(`has its signal as a field like any other, with ${count} chunks`, async () => {
      const jobs = await jobsOf({ chunks: Array.from({ length: count }, (_, id) => ({ ...chunk, id, outputFile: `c${id}` })) });
      const [job] = jobs as [WorkerJob];
      expect(jobs).toHaveLength(count);
      expect(Object.keys(job)).toEqual(['command', 'args', 'env', 'meta', 'signal', 'onStdout', 'onStderr']);
      const { signal } = job;
      expect(signal).toBeInstanceOf(AbortSignal);
      expect(signal!.aborted).toBe(false);
      expect(job.signal).toBe(signal);
      expect({ ...job }.signal).toBe(signal);
      expect((Object.create(job) as WorkerJob).signal).toBe(signal);
      expect(new Proxy(job, {}).signal).toBe(signal);
      expect(JSON.parse(JSON.stringify(job))).toMatchObject({ command: 'render', signal: {} });
      const other = new AbortController().signal;
      const heir = Object.create(job) as WorkerJob;
      heir.signal = other;
      expect([heir.signal, job.signal]).toEqual([other, signal]);
      job.signal = other;
      expect(job.signal).toBe(other);
      expect(Object.keys(job)).toContain('signal');
    });
  }

  for (const early of [true, false]) {
    it(`has a signal that is aborted by a cancel, looked at ${early ? 'before' : 'after'} it`, async () => {
      const started = deferred<WorkerJob>();
      const ended = deferred<typeof done>();
      const adapter = {
        execute: (job: WorkerJob) => {
          if (early) job.signal!.addEventListener('abort', () => ended.resolve(done));
          started.resolve(job);
          return ended.promise;
        },
      };
      const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter));
      const id = await manager.submitJob({ chunks: [chunk] });
      const job = await started.promise;
      const cancelled = manager.cancelJob(id);
      await Promise.resolve();
      await Promise.resolve();
      if (!early) {
        expect(job.signal!.aborted).toBe(true);
        ended.resolve(done);
      }
      await cancelled;
      expect((await manager.getJob(id))!.state).toBe('cancelled');
      expect(job.signal!.aborted).toBe(true);
    });
  }
});
