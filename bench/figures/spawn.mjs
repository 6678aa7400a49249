// /bin/true as a child process with pipes, two at once, from a small process and from one of 1 GiB.
import { spawn } from 'node:child_process';
import { delayRow, framewright, watched } from '../support.mjs';

const AT_ONCE = 2;
/** So many processes, or for so long: from a large process child_process may take very long. */
const COUNT = 1_000;
const LIMIT_MS = 3_000;
const WARM = 20;

async function byAdapter(count) {
  const { JobExecutor, LocalWorkerAdapter } = framewright();
  const executor = new JobExecutor(new LocalWorkerAdapter());
  const spec = { id: 'spawn', chunks: Array.from({ length: count }, (_, id) => ({ id, startFrame: id, frameCount: 1, command: `/bin/true ${id}` })) };
  const begun = performance.now();
  await executor.execute(spec, { concurrency: AT_ONCE });
  return { perSecond: (count / (performance.now() - begun)) * 1000 };
}

const child = (id) =>
  new Promise((resolve, reject) => {
    const process = spawn('/bin/true', [String(id)], { stdio: ['ignore', 'pipe', 'pipe'] });
    process.stdout.on('data', () => undefined);
    process.stderr.on('data', () => undefined);
    process.on('error', reject);
    process.on('close', resolve);
  });

async function byChildProcess(count) {
  let next = 0;
  const worker = async () => {
    while (next < count && performance.now() - begun < LIMIT_MS) await child(next++);
  };
  const begun = performance.now();
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return { perSecond: (next / (performance.now() - begun)) * 1000 };
}

function side(run, gibibytes) {
  return {
    async run() {
      const resident = [];
      for (let n = 0; n < gibibytes * 16; n += 1) resident.push(new Uint8Array(64 << 20).fill(n + 1));
      await run(WARM);
      const result = await watched(() => run(COUNT));
      if (resident.some((bytes) => bytes[0] === 0)) throw new Error('the memory is gone');
      return result;
    },
  };
}

export default {
  title: 'spawn of /bin/true with pipes, 2 at once',
  sides: {
    small: side(byAdapter, 0),
    'child_process small': side(byChildProcess, 0),
    large: side(byAdapter, 1),
    'child_process large': side(byChildProcess, 1),
  },
  rows(m) {
    return [['small', 'small heap', 3], ['large', '1 GiB', 5]].flatMap(([key, what, least]) => {
      const ours = m[key];
      const peer = m[`child_process ${key}`];
      const ratio = ours.perSecond / peer.perSecond;
      return [
        { what, value: ours.perSecond, unit: 'processes/s', peers: { child_process: peer.perSecond }, target: `>= ${least} x`, met: ratio >= least },
        delayRow(what, ours, { child_process: peer }),
      ];
    });
  },
};
