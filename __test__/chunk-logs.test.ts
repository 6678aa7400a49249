/** What chunks said: kept per chunk, attempt and stream. */
import { InMemoryJobRepository, JobExecutor, LocalWorkerAdapter, type JobManager } from 'framewright';
import { describe, expect, it } from 'vitest';
import { Folder } from './support/folder.js';
import { open } from './support/managers.js';
import { rejection } from './support/rejection.js';
import { durables, stores } from './support/repositories.js';
import { adapters, shellJob } from './support/shell.js';

const MEGABYTE = 2 ** 20;

const refusal = async (manager: JobManager, id: string, options: Parameters<JobManager['readLog']>[1]): Promise<unknown> =>
  (await rejection(manager.readLog(id, options))).code;

describe.each(durables)('logs in $kind', ({ create }) => {
  it.each(adapters)('[F129] of chunks $kind are read by chunk, attempt and stream', async ({ adapter }) => {
    const folder = new Folder();
    const store = create();
    const manager = open(await store.open(), new JobExecutor(adapter()));
    const script = 'n=$(ls | grep -c "^try-$1"); touch try-$1-$n; echo "out $1.$n ü"; echo "err $1.$n" >&2; [ $1 != 1 ] || [ $n = 2 ]';
    const id = await manager.submitJob(shellJob(2, script), { jobDir: folder.path, retries: 2, retryDelay: 0, concurrency: 1 });
    expect(await manager.waitForJob(id)).toMatchObject({ state: 'completed' });
    const check = async (reader: JobManager): Promise<void> => {
      expect(await reader.readLog(id, { chunkId: 0 })).toBe('out 0.0 ü\n');
      expect(await reader.readLog(id, { chunkId: 0, stream: 'stderr' })).toBe('err 0.0\n');
      for (const attempt of [1, 2, 3]) {
        expect(await reader.readLog(id, { chunkId: 1, attempt })).toBe(`out 1.${attempt - 1} ü\n`);
        expect(await reader.readLog(id, { chunkId: 1, attempt, stream: 'stderr' })).toBe(`err 1.${attempt - 1}\n`);
      }
      expect(await reader.readLog(id, { chunkId: 1 })).toBe('out 1.2 ü\n');
      expect(await reader.readLog(id, { chunkId: 1, tailBytes: 5 })).toBe('2 ü\n');
      // Two bytes make the last letter: half of it is not given.
      expect(await reader.readLog(id, { chunkId: 1, tailBytes: 2 })).toBe('\n');
      expect(await reader.readLog(id, { chunkId: 1, tailBytes: 0 })).toBe('');
      expect(await reader.readLog(id, { chunkId: 1, tailBytes: 1e9 })).toBe('out 1.2 ü\n');
    };
    await check(manager);
    await manager.close();
    await check(manager);
    await check(open(await store.open()));
  });

  it('[F129] that do not exist are NOT_FOUND, and questions that make no sense VALIDATION', async () => {
    const folder = new Folder();
    const manager = open(await create().open(), new JobExecutor(new LocalWorkerAdapter()));
    const id = await manager.submitJob(shellJob(1, 'echo a'), { jobDir: folder.path });
    await manager.waitForJob(id);
    expect(await manager.readLog(id, { chunkId: 0, stream: 'stderr' })).toBe('');
    expect(await refusal(manager, 'nobody', { chunkId: 0 })).toBe('NOT_FOUND');
    expect(await refusal(manager, id, { chunkId: 1 })).toBe('NOT_FOUND');
    expect(await refusal(manager, id, { chunkId: 0, attempt: 2 })).toBe('NOT_FOUND');
    for (const wrong of [{}, { chunkId: -1 }, { chunkId: 0.5 }, { chunkId: 0, attempt: 0 }, { chunkId: 0, stream: 'out' }, { chunkId: 0, tailBytes: -1 }]) {
      expect(await refusal(manager, id, wrong as { chunkId: number })).toBe('VALIDATION');
    }
  });

  it('[F67] of some megabytes are kept whole, and the status has only their end', async () => {
    const folder = new Folder();
    const store = create();
    const manager = open(await store.open(), new JobExecutor(new LocalWorkerAdapter()));
    const lines = 60_000;
    const id = await manager.submitJob(shellJob(2, `i=0; while [ $i -lt ${lines / 1000} ]; do seq -f "chunk $1 block $i line %06.0f ........................................" 1000; i=$((i+1)); done`), {
      jobDir: folder.path,
      concurrency: 2,
    });
    const job = await manager.waitForJob(id);
    expect(job.state).toBe('completed');
    for (const chunkId of [0, 1]) {
      const whole = await manager.readLog(id, { chunkId });
      expect(Buffer.byteLength(whole)).toBeGreaterThan(3 * MEGABYTE);
      const read = whole.trimEnd().split('\n');
      expect(read).toHaveLength(lines);
      expect(read.every((line, n) => line.startsWith(`chunk ${chunkId} block ${Math.floor(n / 1000)} line ${String((n % 1000) + 1).padStart(6, '0')}`))).toBe(true);
      expect(whole.endsWith(await manager.readLog(id, { chunkId, tailBytes: 1000 }))).toBe(true);
    }
    expect(JSON.stringify(job).length).toBeLessThan(MEGABYTE);
    const tail = job.logs!.find((log) => log.chunkId === 0)!.stdout;
    expect(tail.endsWith('001000 ........................................\n')).toBe(true);
  }, 60_000);

  it('go with their job', async () => {
    const folder = new Folder();
    const manager = open(await create().open(), new JobExecutor(new LocalWorkerAdapter()));
    const id = await manager.submitJob(shellJob(1, 'echo first'), { id: 'a', jobDir: folder.path });
    await manager.waitForJob(id);
    expect(await manager.readLog(id, { chunkId: 0 })).toBe('first\n');
    await manager.deleteJob(id);
    expect(await refusal(manager, id, { chunkId: 0 })).toBe('NOT_FOUND');
    await manager.submitJob(shellJob(1, ':'), { id, jobDir: folder.path });
    await manager.waitForJob(id);
    expect(await manager.readLog(id, { chunkId: 0 })).toBe('');
    expect(await refusal(manager, id, { chunkId: 0, attempt: 2 })).toBe('NOT_FOUND');
  });
});

it.each(stores)('[F129] of a program that runs are followed in $kind while it says more, and never get shorter', async ({ create }) => {
  const folder = new Folder();
  const manager = open(await create().open(), new JobExecutor(new LocalWorkerAdapter()));
  let heard = (): void => undefined;
  const said = new Promise<void>((resolve) => (heard = resolve));
  const id = await manager.submitJob(shellJob(1, 'echo first; echo problem >&2; until [ -e go ]; do sleep 0.01; done; echo second'), {
    jobDir: folder.path,
    onChunkStderr: () => heard(),
  });
  await said;
  expect(await manager.readLog(id, { chunkId: 0 })).toBe('first\n');
  expect(await manager.readLog(id, { chunkId: 0, stream: 'stderr' })).toBe('problem\n');
  expect(await manager.readLog(id, { chunkId: 0, attempt: 1, tailBytes: 3 })).toBe('st\n');
  folder.write('go', '');
  let longest = '';
  for (let ended = false; !ended; ) {
    ended = (await manager.getJob(id))?.state === 'completed';
    const now = await manager.readLog(id, { chunkId: 0 });
    expect(now.startsWith(longest)).toBe(true);
    longest = now;
  }
  expect(longest).toBe('first\nsecond\n');
});

const cuts = (whole: string): number[] => [...whole.matchAll(/\n\.\.\. \[(\d+) bytes cut] \.\.\.\n/g)].map((cut) => Number(cut[1]));

// An adapter that keeps more hands over more than is kept here; one that keeps as much has cut it already.
it.each(adapters.flatMap((adapter) => [8, 10].map((keep) => ({ ...adapter, keep }))))(
  '[F67] of chunks $kind above 16 MiB lose their middle, and say so once: $keep MiB of each end kept by the adapter',
  async ({ adapter, keep }) => {
    const folder = new Folder();
    const manager = open(new InMemoryJobRepository(), new JobExecutor(adapter({ keepOutputBytes: keep * MEGABYTE })));
    const written = 20 * MEGABYTE;
    const id = await manager.submitJob(shellJob(1, `printf first; yes | head -c ${written - 9}; printf last`), { jobDir: folder.path });
    expect((await manager.waitForJob(id)).state).toBe('completed');
    const whole = await manager.readLog(id, { chunkId: 0 });
    expect(whole.startsWith('firsty')).toBe(true);
    expect(whole.endsWith('last')).toBe(true);
    expect(cuts(whole)).toEqual([written - 16 * MEGABYTE]);
  },
  60_000,
);
