import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  InMemoryJobRepository,
  JobExecutor,
  LocalWorkerAdapter,
  type ArtifactStorage,
  type JobExecutionOptions,
  type JobSpec,
  type LogRecord,
  type WorkerJob,
} from 'framewright';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { open, repositories } from './support/managers.js';
import { OwnExecutor, chunkResult, whenAborted } from './support/own-executor.js';
import { specOf } from './support/specs.js';
import { nextEvent } from './support/trace.js';
import { turn } from './support/turns.js';

/** A storage that writes down what it is asked, in the order of the calls. */
class RecordingStorage implements ArtifactStorage {
  readonly calls: string[] = [];
  readonly specs: JobSpec[] = [];
  /** Calls that are to fail, by name. */
  readonly broken = new Map<string, unknown>();

  constructor(readonly log: string[] = []) {}

  async #take(name: string, ...args: string[]): Promise<void> {
    const call = [name, ...args].join(' ');
    this.calls.push(call);
    this.log.push(`${name} begun`);
    await turn();
    if (this.broken.has(name)) throw this.broken.get(name);
    this.log.push(`${name} done`);
  }

  async uploadAssetBundle(jobId: string, localDir: string): Promise<string> {
    await this.#take('uploadAssetBundle', jobId, localDir);
    return `store://assets/${jobId}`;
  }

  async uploadJobSpec(jobId: string, spec: JobSpec): Promise<string> {
    this.specs.push(structuredClone(spec));
    await this.#take('uploadJobSpec', jobId);
    return `store://specs/${jobId}.json`;
  }

  deleteAssetBundle(jobId: string, remoteUrl: string): Promise<void> {
    return this.#take('deleteAssetBundle', jobId, remoteUrl);
  }

  deleteJobSpec(jobId: string, remoteUrl: string): Promise<void> {
    return this.#take('deleteJobSpec', jobId, remoteUrl);
  }

  downloadAssetBundle(): Promise<void> {
    return Promise.reject(new Error('nobody needs a download here'));
  }
}

const deletions = (storage: RecordingStorage): string[] => storage.calls.filter((call) => call.startsWith('delete')).sort();

const CLEANED = ['deleteAssetBundle job store://assets/job', 'deleteJobSpec job store://specs/job.json'];

let jobDir: string;
beforeEach(async () => {
  jobDir = await mkdtemp(join(tmpdir(), 'framewright-storage-'));
});
afterEach(async () => {
  await rm(jobDir, { recursive: true, force: true });
});

describe.each(repositories)('an artifact storage, jobs kept $kind', ({ create }) => {
  it.each([
    ['as the third argument', (storage: ArtifactStorage) => storage],
    ['as options.storage', (storage: ArtifactStorage) => ({ storage })],
  ])('[F1] given %s, has the folder and then the spec before anything runs', async (_, given) => {
    const log: string[] = [];
    const storage = new RecordingStorage(log);
    const executor = new OwnExecutor(async (id) => log.push(`chunk ${id}`));
    const manager = open(create(), executor, given(storage));
    const id = await manager.submitJob(specOf(2), { id: 'job', jobDir });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    expect(storage.calls).toEqual([`uploadAssetBundle job ${jobDir}`, 'uploadJobSpec job']);
    expect(log).toEqual([
      'uploadAssetBundle begun', 'uploadAssetBundle done',
      'uploadJobSpec begun', 'uploadJobSpec done',
      'chunk 0', 'chunk 1',
    ]);
  });

  it('[F1] is handed the whole spec, with the url of the folder in it', async () => {
    const storage = new RecordingStorage();
    const manager = open(create(), new OwnExecutor(), storage);
    const spec = specOf(2, { payload: { scene: 'a' }, mergeCommand: 'cat', custom: { kept: [1] } });
    await manager.waitForJob(await manager.submitJob(spec, { id: 'job', jobDir }));
    expect(storage.specs).toEqual([{ ...spec, assetsUrl: 'store://assets/job' }]);
  });

  it('[F1] its urls are in the status, and what the executor gets', async () => {
    const executor = new OwnExecutor();
    const manager = open(create(), executor, new RecordingStorage());
    const id = await manager.submitJob(specOf(1), { id: 'job', jobDir, meta: { shot: 7 } });
    const status = await manager.waitForJob(id);
    expect(status.meta).toMatchObject({ jobDefUrl: 'store://specs/job.json' });
    expect(status.spec.assetsUrl).toBe('store://assets/job');
    expect(executor.calls).toHaveLength(1);
    expect(executor.calls[0]!.spec.assetsUrl).toBe('store://assets/job');
    expect(executor.calls[0]!.options).toMatchObject({ jobDir, meta: { shot: 7, jobDefUrl: 'store://specs/job.json' } });
  });

  it('[F58] an adapter gets meta.jobDefUrl and the user\'s meta with every chunk', async () => {
    const jobs: WorkerJob[] = [];
    const adapter = {
      execute: async (job: WorkerJob) => {
        jobs.push(job);
        return chunkResult;
      },
    };
    const manager = open(create(), new JobExecutor(adapter), new RecordingStorage());
    await manager.waitForJob(await manager.submitJob(specOf(3), { id: 'job', jobDir, meta: { shot: 7, nested: { a: [1] } } }));
    expect(jobs.map((job) => job.meta?.['chunkId'] as unknown)).toEqual([0, 1, 2]);
    for (const job of jobs) expect(job.meta).toMatchObject({ jobDefUrl: 'store://specs/job.json', shot: 7, nested: { a: [1] }, jobId: 'job' });
  });

  it('[F9] leaves the caller\'s spec and options as they were', async () => {
    const spec = specOf(2);
    const options = { id: 'job', jobDir, meta: { shot: 7, list: [1, 2] } };
    const before = structuredClone({ spec, options });
    Object.freeze(options.meta);
    Object.freeze(options);
    Object.freeze(spec);
    const manager = open(create(), new OwnExecutor(), new RecordingStorage());
    expect((await manager.waitForJob(await manager.submitJob(spec, options))).state).toBe('completed');
    expect({ spec, options }).toEqual(before);
  });

  it('[F1] without a jobDir nothing is uploaded, and nothing removed with the job', async () => {
    const storage = new RecordingStorage();
    const manager = open(create(), new OwnExecutor(), storage);
    const status = await manager.waitForJob(await manager.submitJob(specOf(1), { id: 'job', meta: { shot: 7 } }));
    expect(status.state).toBe('completed');
    expect(status.meta?.['jobDefUrl']).toBeUndefined();
    expect(status.spec.assetsUrl).toBeUndefined();
    await manager.deleteJob('job');
    expect(storage.calls).toEqual([]);
  });

  it.each([
    ['uploadAssetBundle', new Error('bucket is full'), 'bucket is full'],
    ['uploadJobSpec', new Error('403 from the gateway'), '403 from the gateway'],
    ['uploadJobSpec', 'just a text', 'just a text'],
    ['uploadAssetBundle', undefined, 'undefined'],
  ])('[F1] a failing %s (%s) fails the job with the cause in its message, and nothing runs', async (name, thrown, message) => {
    const storage = new RecordingStorage();
    storage.broken.set(name, thrown);
    const executor = new OwnExecutor();
    const manager = open(create(), executor, storage);
    const failed = nextEvent(manager, 'job.failed');
    const status = await manager.waitForJob(await manager.submitJob(specOf(2), { id: 'job', jobDir, retries: 2, retryDelay: 0 }));
    expect(status).toMatchObject({ state: 'failed', completedChunks: 0, failure: { code: 'STORAGE_FAILED' } });
    expect(status.error).toContain(message);
    expect(status.failure!.message).toBe(status.error);
    expect((await failed).error).toMatchObject({ code: 'STORAGE_FAILED', message: status.error });
    expect(executor.calls).toEqual([]);
  });

  it('[F1] a folder whose spec could not be uploaded is removed again', async () => {
    const storage = new RecordingStorage();
    storage.broken.set('uploadJobSpec', new Error('quota'));
    const manager = open(create(), new OwnExecutor(), storage);
    const id = await manager.submitJob(specOf(1), { id: 'job', jobDir });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'failed', failure: { code: 'STORAGE_FAILED', message: 'Asset/Spec upload failed: quota' } });
    expect(deletions(storage)).toEqual(['deleteAssetBundle job store://assets/job']);
    await manager.deleteJob(id);
    expect(deletions(storage)).toHaveLength(1);
    storage.broken.delete('uploadJobSpec');
  });

  it('[F1] a job whose upload failed goes on by resumeJob, with an upload', async () => {
    const storage = new RecordingStorage();
    storage.broken.set('uploadJobSpec', new Error('later'));
    const executor = new OwnExecutor();
    const manager = open(create(), executor, storage);
    await manager.waitForJob(await manager.submitJob(specOf(2), { id: 'job', jobDir }));
    storage.broken.clear();
    await manager.resumeJob('job');
    expect(await manager.waitForJob('job')).toMatchObject({ state: 'completed', meta: { jobDefUrl: 'store://specs/job.json' } });
    expect(executor.ran).toEqual([0, 1]);
    expect(storage.calls.filter((call) => call === 'uploadJobSpec job')).toHaveLength(2);
  });

  it('[F28] a resumed job is not uploaded again, and its executor is told the same urls', async () => {
    const storage = new RecordingStorage();
    let hold = true;
    const executor = new OwnExecutor((id, signal) => (hold && id === 1 ? whenAborted(signal) : turn()));
    const manager = open(create(), executor, storage);
    const reported = nextEvent(manager, 'chunk.completed');
    await manager.submitJob(specOf(3), { id: 'job', jobDir, meta: { shot: 7 } });
    await reported;
    await manager.pauseJob('job');
    hold = false;
    await manager.resumeJob('job');
    const status = await manager.waitForJob('job');
    expect(status).toMatchObject({ state: 'completed', meta: { jobDefUrl: 'store://specs/job.json' } });
    expect(status.spec.assetsUrl).toBe('store://assets/job');
    expect(storage.calls).toEqual([`uploadAssetBundle job ${jobDir}`, 'uploadJobSpec job']);
    expect(executor.calls).toHaveLength(2);
    const [first, second] = executor.calls as [{ spec: JobSpec; options: JobExecutionOptions }, { spec: JobSpec; options: JobExecutionOptions }];
    expect(second.options.meta).toEqual(first.options.meta);
    expect(second.options.meta).toEqual({ shot: 7, jobDefUrl: 'store://specs/job.json' });
    expect(second.spec.assetsUrl).toBe(first.spec.assetsUrl);
  });

  it('[F30] deleteJob removes what was uploaded, by its urls', async () => {
    const storage = new RecordingStorage();
    const manager = open(create(), new OwnExecutor(), storage);
    await manager.waitForJob(await manager.submitJob(specOf(1), { id: 'job', jobDir }));
    await manager.deleteJob('job');
    expect(deletions(storage)).toEqual(CLEANED);
    expect(await manager.getJob('job')).toBeUndefined();
  });

  it('[F30] deleteJob of a running job removes what was uploaded, after its work was stopped', async () => {
    const log: string[] = [];
    const storage = new RecordingStorage(log);
    const executor = {
      execute: async (_: JobSpec, options?: JobExecutionOptions) => {
        await whenAborted(options?.signal).finally(() => log.push('stopped'));
      },
    };
    const manager = open(create(), executor, storage);
    const begun = vi.spyOn(executor, 'execute');
    await manager.submitJob(specOf(1), { id: 'job', jobDir });
    await vi.waitFor(() => expect(begun).toHaveBeenCalled());
    await manager.deleteJob('job');
    expect(deletions(storage)).toEqual(CLEANED);
    expect(log.indexOf('stopped')).toBeLessThan(log.findIndex((line) => line.startsWith('delete')));
    expect(log).toContain('stopped');
  });

  it('[F30] a job deleted while it is uploaded leaves nothing in the storage and runs nothing', async () => {
    const storage = new RecordingStorage();
    let uploading!: () => void;
    const began = new Promise<void>((resolve) => (uploading = resolve));
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const stored = new Set<string>();
    storage.uploadAssetBundle = async () => {
      uploading();
      await gate;
      stored.add('assets');
      return 'store://assets/job';
    };
    storage.uploadJobSpec = async () => {
      stored.add('spec');
      return 'store://specs/job.json';
    };
    storage.deleteAssetBundle = async () => void stored.delete('assets');
    storage.deleteJobSpec = async () => void stored.delete('spec');
    const executor = new OwnExecutor();
    const manager = open(create(), executor, storage);
    await manager.submitJob(specOf(1), { id: 'job', jobDir });
    await began;
    const deleted = manager.deleteJob('job');
    release();
    await deleted;
    expect(await manager.getJob('job')).toBeUndefined();
    await vi.waitFor(() => expect([...stored]).toEqual([]));
    expect(executor.calls).toEqual([]);
  });

  it('[F26] a job cancelled while it is uploaded is cancelled and runs nothing', async () => {
    const storage = new RecordingStorage();
    let uploading!: () => void;
    const began = new Promise<void>((resolve) => (uploading = resolve));
    let release!: () => void;
    const gate = new Promise<void>((resolve) => (release = resolve));
    const upload = storage.uploadAssetBundle.bind(storage);
    storage.uploadAssetBundle = async (jobId, folder) => {
      uploading();
      await gate;
      return upload(jobId, folder);
    };
    const executor = new OwnExecutor();
    const manager = open(create(), executor, storage);
    await manager.submitJob(specOf(1), { id: 'job', jobDir });
    await began;
    const cancelled = manager.cancelJob('job');
    release();
    await cancelled;
    expect((await manager.getJob('job'))!.state).toBe('cancelled');
    expect(executor.calls).toEqual([]);
  });

  it('[F30] [F132] a failing clean-up still deletes the job and everything else, and is logged', async () => {
    const storage = new RecordingStorage();
    storage.broken.set('deleteAssetBundle', new Error('the bucket is locked'));
    storage.broken.set('deleteJobSpec', new Error('the spec is locked'));
    const records: LogRecord[] = [];
    const manager = open(create(), new OwnExecutor(), { storage, logger: (record) => records.push(record) });
    await manager.waitForJob(await manager.submitJob(specOf(1), { id: 'job', jobDir }));
    await manager.deleteJob('job');
    expect(deletions(storage)).toEqual(CLEANED);
    expect(await manager.getJob('job')).toBeUndefined();
    expect(await manager.listJobs()).toEqual([]);
    const warnings = records.filter((record) => record.level === 'warn' || record.level === 'error');
    for (const cause of ['the bucket is locked', 'the spec is locked']) {
      expect(warnings.filter(({ message }) => message.includes(cause))).toMatchObject([{ fields: { jobId: 'job' } }]);
    }
  });
});

describe('an artifact storage and real processes', () => {
  it('[F1] an assetsUrl that the user\'s spec has is replaced by that of the upload', async () => {
    const storage = new RecordingStorage();
    const manager = open(new InMemoryJobRepository(), new JobExecutor(new LocalWorkerAdapter()), storage);
    const chunks = [{ id: 0, argv: ['sh', '-c', 'pwd'] }];
    const heard: string[] = [];
    const id = await manager.submitJob(
      { chunks, assetsUrl: 'http://elsewhere' },
      { id: 'job', jobDir, onChunkStdout: (_, data) => heard.push(data) },
    );
    const status = await manager.waitForJob(id);
    expect(status.state).toBe('completed');
    expect(status.spec.assetsUrl).toBe('store://assets/job');
    // The folder that was uploaded is where the chunks run.
    expect(heard.join('').trim()).toBe(jobDir);
  });

  it.each([
    ['a storage that lacks its methods', { storage: {} }],
    ['a storage that is a text', { storage: 'file:///tmp' }],
  ])('[F144] %s is refused when the manager is made', (_, options) => {
    expect(() => open(new InMemoryJobRepository(), new OwnExecutor(), options as never)).toThrow(
      expect.objectContaining({ code: 'VALIDATION' }),
    );
  });
});
