/**
 * Renders a short film in chunks on every core, joins them, counts its frames and compares with one process.
 *
 *     npm run demo
 *
 * Ctrl-C or kill -9 half-way, then the same again: only what is missing is rendered.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { FfmpegStitcher, JobExecutor, JobManager, LocalWorkerAdapter, planChunks } from 'framewright';
import { ProgressLine, ProgressTracker, progressText } from '../../dist/cli/progress.js';
import { beginRun, findRun, openRunStore, runIds, RUN_TYPE } from '../../dist/cli/store.js';
import { countFrames, findFfmpeg, quote, videoEncoder } from '../ffmpeg.mjs';

const HELP = `Usage: node demo.mjs [--frames 240] [--width 640] [--chunks N] [--concurrency N] [--out DIR] [--no-baseline] [--fresh]`;
const { values } = parseArgs({
  options: {
    frames: { type: 'string', default: '240' },
    width: { type: 'string', default: '640' },
    chunks: { type: 'string' },
    concurrency: { type: 'string', default: String(availableParallelism()) },
    out: { type: 'string', default: 'demo-output' },
    'no-baseline': { type: 'boolean', default: false },
    fresh: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help) {
  console.log(HELP);
  process.exit();
}

const even = (number) => 2 * Math.round(number / 2);
const frames = Number(values.frames);
const width = even(Number(values.width));
const height = even((width * 9) / 16);
const fps = 24;
const concurrency = Number(values.concurrency);
const chunkCount = Math.min(frames, Number(values.chunks ?? Math.max(12, 3 * concurrency)));
const jobDir = resolve(values.out);
const video = join(jobDir, 'demo.mp4');

const { ffmpeg, ffprobe } = await findFfmpeg();
const encoder = JSON.stringify(await videoEncoder(ffmpeg));
await mkdir(join(jobDir, 'chunks'), { recursive: true });

/** The words that render frames into a file; the job's placeholders may stand for the numbers. */
function renderer(start, count, out) {
  return [
    process.execPath, fileURLToPath(new URL('frame.mjs', import.meta.url)),
    '--start', start, '--count', count, '--out', out,
    '--width', String(width), '--height', String(height), '--fps', String(fps), '--ffmpeg', ffmpeg, '--encoder', encoder,
  ];
}

const spec = {
  id: 'demo',
  metadata: { totalFrames: frames, fps, width, height, duration: frames / fps },
  plan: {
    totalFrames: frames, chunkCount,
    outputFile: 'chunks/{chunkId:03}.mp4',
    command: renderer('{startFrame}', '{frameCount}', '{outputFile}').map(quote).join(' '),
  },
};

// ── Render, from where an interrupted run stopped ──

const adapter = new LocalWorkerAdapter();
const store = await openRunStore(undefined, join(jobDir, 'demo'));
const manager = new JobManager(store, new JobExecutor(adapter), { types: [RUN_TYPE], recover: false });
const chunks = planChunks(spec.plan);
const wanted = { jobFile: jobDir, ids: runIds(jobDir), spec, chunks, jobDir, leavesMerge: false, fresh: values.fresh };
const start = await findRun(store, manager, wanted).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
const { id, finished } = start;
const resumed = finished.length > 0;
const tracker = new ProgressTracker(chunks, finished);
const line = new ProgressLine(process.stdout);

console.log(`${frames} frames, ${width}x${height}, in ${chunks.length} chunks, ${concurrency} at once`);
if (resumed) console.log(`going on: ${finished.length} chunks are there`);

manager.on('event', (event) => {
  tracker.update(event);
  if (event.type === 'chunk.completed' && !line.live) line.print(`chunk ${event.chunkId} done  ${progressText(tracker.view(Date.now()))}`);
  if (event.type === 'chunk.failed' && event.error.code !== 'ABORTED') line.print(`chunk ${event.chunkId} failed: ${event.error.message}`);
  line.draw(tracker.view(Date.now()));
});

let interrupted = false;
const begun = performance.now();
const options = { concurrency, jobDir, stitcher: new FfmpegStitcher(adapter, { ffmpegPath: ffmpeg }), outputFile: 'demo.mp4' };
await beginRun(store, manager, wanted, start, spec, options);
const stopWaiting = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    if (interrupted) process.exit(130);
    interrupted = true;
    void manager.pauseJob(id).finally(() => stopWaiting.abort());
  });
}
const redraw = setInterval(() => line.draw(tracker.view(Date.now())), 200);
const status = await manager.waitForJob(id, { signal: stopWaiting.signal }).catch((error) => {
  if (!interrupted) throw error;
  return manager.getJob(id);
});
const seconds = (performance.now() - begun) / 1000;
clearInterval(redraw);
line.clear();
await manager.close();
await store.close();
if (status.state === 'paused') {
  console.log(`\nstopped; ${status.completedChunks} of ${chunks.length} chunks are kept. The same command goes on from there.`);
  process.exit(130);
}
if (status.state !== 'completed') {
  console.error(`${status.state}: ${status.error}`);
  process.exit(1);
}

// ── Check ──

const counted = await countFrames(ffprobe, video);
if (counted !== frames) {
  console.error(`the video has ${counted} frames, not ${frames}`);
  process.exit(1);
}
console.log(`video:    ${relative('.', video) || video}  (${counted} frames, as planned)`);
console.log(`time:     ${seconds.toFixed(1)} s${resumed ? ' for what was missing' : ''}`);

// ── The same in one process ──

if (values['no-baseline'] || resumed || interrupted) {
  console.log(`baseline: left out${resumed ? ', because this run went on from another' : ''}`);
  process.exit();
}
console.log('baseline: rendering the same frames in one process ...');
const single = join(jobDir, 'one-process.mp4');
const [program, ...words] = renderer('0', String(frames), single);
const singleBegun = performance.now();
const child = spawn(program, words, { stdio: ['ignore', 'ignore', 'inherit'] });
const [code] = await once(child, 'close');
const singleSeconds = (performance.now() - singleBegun) / 1000;
if (interrupted) process.exit(130);
const singleFrames = code === 0 ? await countFrames(ffprobe, single) : 0;
await rm(single, { force: true });
if (singleFrames !== frames) {
  console.error(`one process made ${singleFrames} frames, not ${frames}`);
  process.exit(1);
}
console.log(`          ${singleSeconds.toFixed(1)} s`);
console.log(`speed-up: ${(singleSeconds / seconds).toFixed(2)} times as fast as one process, ${concurrency} chunks at once`);
