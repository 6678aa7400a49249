// Bytes written for a completed chunk with 1 KB of output: 1,000 chunks, four at once, each of a length of its own.
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { inFolder } from '../durable.mjs';
import { framewright, jobSpec, pause } from '../support.mjs';

const CHUNKS = 1_000;

const line = (n) => `frame ${n} `.padEnd(63, 'abcdefghij').concat('\n');

/** Not at once, so that chunks do not end in step. */
const adapter = {
  async execute(job) {
    await pause(1 + (job.meta.chunkId % 5));
    const stdout = Array.from({ length: 16 }, (_, n) => line(job.meta.chunkId * 16 + n)).join('');
    return { exitCode: 0, stdout, stderr: '', durationMs: 1 };
  },
};

/** What this process has had written to disks. */
function written() {
  return Number(/^write_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))[1]);
}

function size(folder) {
  return readdirSync(folder, { recursive: true }).reduce((sum, name) => {
    const found = statSync(join(folder, name));
    return found.isFile() ? sum + found.size : sum;
  }, 0);
}

async function measured(folder, open, chunks) {
  const { JobExecutor, JobManager } = framewright();
  const repository = await open();
  const manager = new JobManager(repository, new JobExecutor(adapter));
  const id = await manager.submitJob(jobSpec(0, chunks), { concurrency: 4 });
  const before = written();
  const begun = size(folder);
  await manager.waitForJob(id);
  const bytes = written() - before;
  await manager.close();
  await repository.close();
  return { written: bytes / chunks, kept: (size(folder) - begun) / chunks };
}

const openers = {
  SQLite: (folder) => framewright().SqliteJobRepository.open(join(folder, 'jobs.db')),
  file: async (folder) => new (framewright().FileJobRepository)(folder),
};

const sides = {};
for (const [name, open] of Object.entries(openers)) {
  for (const chunks of [CHUNKS, 4 * CHUNKS]) sides[`${name} ${chunks}`] = { run: () => inFolder((folder) => measured(folder, () => open(folder), chunks)) };
}

export default {
  title: 'bytes for a completed chunk with 1 KB of output, four at once',
  mostRuns: 3,
  sides,
  rows: (m) =>
    Object.keys(openers).flatMap((name) => {
      const [few, many] = [m[`${name} ${CHUNKS}`], m[`${name} ${4 * CHUNKS}`]];
      return [
        { what: `${name}: written to the disk`, value: few.written, unit: 'bytes/chunk' },
        { what: `${name}: kept in the end`, value: few.kept, unit: 'bytes/chunk' },
        { what: `${name}: written, 4,000 chunks : 1,000`, value: many.written / few.written, unit: 'x', target: '<= 1.2 (flat)', met: many.written / few.written <= 1.2 },
      ];
    }),
};
