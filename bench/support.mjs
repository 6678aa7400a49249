// What the figures share: the package, the specs, and how the event loop is watched.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

export const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The package under measurement, through its own main file. */
export function framewright() {
  const folder = process.env.FRAMEWRIGHT_BENCH_PACKAGE ?? root;
  return createRequire(join(folder, 'package.json'))(folder);
}

/** Does nothing, asynchronously. */
export const nothing = {
  async execute() {
    return { exitCode: 0, stdout: '', stderr: '', durationMs: 1 };
  },
};

/** Chunk `i` of job `n`: `own` gives each its own command, else all of a job have one with placeholders. */
function chunk(n, i, own) {
  return {
    id: i,
    startFrame: i * 60,
    frameCount: 60,
    outputFile: `renders/${n}/chunk_${i}.mp4`,
    command: own
      ? `render scenes/${n}.blend --layer layer-${i} --start {startFrame} --end {endFrame} --out {outputFile}`
      : `render scenes/${n}.blend --layer main --start {startFrame} --end {endFrame} --out {outputFile}`,
  };
}

/** A job whose id, paths and commands no other job has. */
export function jobSpec(n, chunks, own = true) {
  return {
    id: `render-${n}`,
    metadata: { totalFrames: chunks * 60, fps: 60, width: 1920, height: 1080, duration: chunks },
    chunks: Array.from({ length: chunks }, (_, i) => chunk(n, i, own)),
  };
}

export const turn = () => new Promise((resolve) => setImmediate(resolve));
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** CPU time of all threads, and delay of the event loop, while `work` runs, in milliseconds. Its timer alone accounts for about one of them. */
export async function watched(work) {
  await pause(5);
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  histogram.enable();
  await pause(5);
  histogram.reset();
  // The first delay after a reset is not recorded.
  await pause(5);
  const before = process.cpuUsage();
  const value = await work();
  const { user, system } = process.cpuUsage(before);
  // The timer that was late has to fire to be counted.
  await pause(5);
  histogram.disable();
  return { ...value, cpuMs: (user + system) / 1000, delayP99: histogram.percentile(99) / 1e6, delayMax: histogram.max / 1e6 };
}

/** CPU time against the peers': what is left of a comparison on a machine with busy neighbours. */
export function cpuRow(what, ours, peers) {
  return { what: `${what}: CPU time, all threads`, value: ours.cpuMs, unit: 'ms', peers: Object.fromEntries(Object.entries(peers).map(([name, side]) => [name, side.cpuMs])) };
}

/** Rows of the event loop's delay of several sides. */
export function delayRow(what, ours, peers) {
  const text = (side) => `p99 ${side.delayP99.toFixed(1)}, max ${side.delayMax.toFixed(1)}`;
  return { what: `${what}: event loop delay`, value: `${ours.delayP99.toFixed(1)} / ${ours.delayMax.toFixed(1)}`, unit: 'ms p99 / max', target: Object.entries(peers).map(([name, side]) => `${name} ${text(side)}`).join('; ') };
}
