/**
 * Transcodes any video in chunks, cut at exact frames, and joins them with the sound of the original.
 *
 *     node transcode.mjs holiday.mov holiday.mp4 --chunk-seconds 10
 *
 * The picture is cut by frame numbers, never by keyframes, so that the result has the frames that one
 * process would have made. Sound is never cut: it is muxed from the original when the chunks are joined.
 * `--compare` also transcodes in one process and compares the counts.
 */
import { execFile } from 'node:child_process';
import { mkdir, rename, rm } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { FfmpegStitcher, InMemoryJobRepository, JobExecutor, JobManager, LocalWorkerAdapter, planChunks } from 'framewright';
import { ProgressLine, ProgressTracker } from '../../dist/cli/progress.js';
import { countFrames, findFfmpeg, probe, videoEncoder } from '../ffmpeg.mjs';
import { chunkInput, measureVideo, singleInput } from './cut.mjs';

const HELP = `Usage: node transcode.mjs INPUT OUTPUT [options]

  --chunk-seconds N   length of a chunk (default: 10)
  --concurrency N     chunks at once (default: half of the cores; ffmpeg has threads of its own)
  --encoder=ARGS      arguments of ffmpeg for the picture, as in --encoder="-c:v libx265 -crf 24"
  --keep-chunks       do not remove the chunk files
  --compare           transcode in one process too, and compare`;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'chunk-seconds': { type: 'string', default: '10' },
    concurrency: { type: 'string', default: String(Math.max(1, Math.ceil(availableParallelism() / 2))) },
    encoder: { type: 'string' },
    'keep-chunks': { type: 'boolean', default: false },
    compare: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (values.help || positionals.length !== 2) {
  console.error(HELP);
  process.exit(values.help ? 0 : 2);
}
const input = resolve(positionals[0]);
const output = resolve(positionals[1]);
if (input === output) {
  console.error('the output would overwrite the input');
  process.exit(2);
}

const { ffmpeg, ffprobe } = await findFfmpeg();
const encoder = values.encoder?.trim().split(/\s+/) ?? (await videoEncoder(ffmpeg));
const picture = [...encoder, '-pix_fmt', 'yuv420p', '-an', '-sn', '-dn'];
const source = await measureVideo(ffprobe, input);
console.log(`${source.frames} frames at ${source.rate.join('/')} fps${source.constant ? '' : `, made constant: ${source.planned} frames`}${source.audio ? `, sound: ${source.audio}` : ', no sound'}`);

// ── The job: one chunk of frames after another ──

const jobDir = join(dirname(output), `.${basename(output)}.chunks`);
await mkdir(jobDir, { recursive: true });
const [numerator, denominator] = source.rate;
const chunkSize = Math.max(1, Math.round((Number(values['chunk-seconds']) * numerator) / denominator));
const chunks = planChunks({ totalFrames: source.planned, chunkSize, outputFile: '{chunkId:05}.mp4', command: 'ffmpeg' }).map((chunk) => ({
  ...chunk,
  argv: [ffmpeg, '-nostdin', '-y', '-loglevel', 'error', '-stats', ...chunkInput(source, chunk.startFrame, chunk.frameCount), ...picture, '{outputFile}'],
}));

const adapter = new LocalWorkerAdapter();
const joiner = new FfmpegStitcher(adapter, { ffmpegPath: ffmpeg });

/** Joins the chunks, then adds the sound of the original. */
const stitcher = {
  async stitch(inputs, finished, { signal } = {}) {
    const silent = join(jobDir, 'silent.mp4');
    await joiner.stitch(inputs, silent, { signal });
    await addSound(silent, finished, signal);
  },
};

async function addSound(silent, finished, signal) {
  const unfinished = join(dirname(finished), `.unfinished-${basename(finished)}`);
  // The picture begins at 0 now; the sound keeps its distance to it.
  const { exitCode, stderr } = await adapter.execute({
    command: ffmpeg,
    args: ['-nostdin', '-y', '-loglevel', 'error', '-itsoffset', String(source.offset), '-i', silent, '-i', input, '-map', '0:v:0', '-map', '1:a?', '-c:v', 'copy', '-c:a', audioCodec(), unfinished],
    signal,
  });
  if (exitCode !== 0) throw new Error(`adding the sound failed: ${stderr.trim()}`);
  await rename(unfinished, finished);
}

/** Sound is copied where the output can hold it as it is. */
function audioCodec() {
  const holds = { '.mkv': /./, '.mp4': /^(aac|mp3|ac3|eac3|alac)$/, '.m4v': /^(aac|ac3)$/, '.mov': /^(aac|mp3|ac3|alac|pcm_s16le|pcm_s24le)$/ }[extname(output).toLowerCase()];
  return holds?.test(source.audio ?? '') ? 'copy' : 'aac';
}

/** A chunk is done when it has its frames; counted without decoding. */
async function hasItsFrames(file, chunk) {
  const { streams } = await probe(ffprobe, ['-count_packets', '-select_streams', 'v:0', '-show_entries', 'stream=nb_read_packets'], resolve(jobDir, file));
  return Number(streams?.[0]?.nb_read_packets) === chunk.frameCount;
}

const manager = new JobManager(new InMemoryJobRepository(), new JobExecutor(adapter));
const tracker = new ProgressTracker(chunks);
const line = new ProgressLine(process.stdout);
manager.on('event', (event) => {
  tracker.update(event);
  if (event.type === 'chunk.failed' && event.error.code !== 'ABORTED') line.print(`chunk ${event.chunkId} failed: ${event.error.message}`);
  line.draw(tracker.view(Date.now()));
});
const stop = new AbortController();
const begun = performance.now();
const id = await manager.submitJob({ chunks }, {
  concurrency: Number(values.concurrency), jobDir, retries: 1, verifyOutput: hasItsFrames, stitcher, outputFile: output,
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => {
    if (stop.signal.aborted) process.exit(130);
    stop.abort();
    void manager.cancelJob(id);
  });
}
const status = await manager.waitForJob(id);
const seconds = (performance.now() - begun) / 1000;
line.clear();
await manager.close();
if (!values['keep-chunks']) await rm(jobDir, { recursive: true, force: true });
if (status.state !== 'completed') {
  console.error(`${status.state}${status.error ? `: ${status.error}` : ''}`);
  process.exit(stop.signal.aborted ? 130 : 1);
}

// ── Count ──

const counted = await countFrames(ffprobe, output);
console.log(`${chunks.length} chunks: ${counted} frames in ${seconds.toFixed(1)} s  ${positionals[1]}`);
if (counted !== source.planned) {
  console.error(`${source.planned} frames were planned`);
  process.exit(1);
}
if (values.compare) {
  const single = join(dirname(output), `.single-${basename(output)}`);
  const singleBegun = performance.now();
  await promisify(execFile)(ffmpeg, ['-nostdin', '-y', '-loglevel', 'error', ...singleInput(source), ...picture, single]);
  const singleSeconds = (performance.now() - singleBegun) / 1000;
  const singleFrames = await countFrames(ffprobe, single);
  await rm(single, { force: true });
  console.log(`one process: ${singleFrames} frames in ${singleSeconds.toFixed(1)} s`);
  if (singleFrames !== counted) process.exit(1);
}
