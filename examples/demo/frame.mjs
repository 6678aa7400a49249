/**
 * Renders a run of frames into one video file: the program that the demo starts once for each chunk.
 *
 *     node frame.mjs --start 60 --count 20 --out 003.mp4 --ffmpeg /usr/bin/ffmpeg
 *
 * With `--count 1 --out frame.png` it makes a picture.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { renderFrame } from './scene.mjs';

const { values } = parseArgs({
  options: {
    start: { type: 'string', default: '0' },
    count: { type: 'string', default: '1' },
    width: { type: 'string', default: '640' },
    height: { type: 'string', default: '360' },
    fps: { type: 'string', default: '24' },
    out: { type: 'string', default: 'frame.png' },
    ffmpeg: { type: 'string', default: 'ffmpeg' },
    /** Arguments of ffmpeg that choose the encoder, as JSON. */
    encoder: { type: 'string', default: '["-c:v","libx264","-preset","veryfast","-crf","18"]' },
  },
});
const [start, count, width, height, fps] = [values.start, values.count, values.width, values.height, values.fps].map(Number);
const picture = values.out.endsWith('.png');

const encoder = spawn(values.ffmpeg, [
  '-loglevel', 'error', '-y',
  '-f', 'rawvideo', '-pix_fmt', 'rgb24', '-video_size', `${width}x${height}`, '-framerate', `${fps}`, '-i', 'pipe:0',
  // Without B-frames every chunk begins at time 0, and the chunks join without a seam.
  ...(picture ? [] : [...JSON.parse(values.encoder), '-bf', '0', '-pix_fmt', 'yuv420p', '-r', `${fps}`]),
  values.out,
], { stdio: ['pipe', 'inherit', 'inherit'] });
const ended = new Promise((resolve) => {
  encoder.once('error', (error) => resolve(error.message));
  encoder.once('close', (code, signal) => resolve(code === 0 ? undefined : `ffmpeg ended with ${signal ?? `status ${code}`}`));
});
encoder.stdin.on('error', () => {}); // ffmpeg went away; it says why itself

let gone = false;
void ended.then(() => (gone = true));
for (let done = 0; done < count && !gone; done += 1) {
  const pixels = Buffer.allocUnsafe(3 * width * height);
  renderFrame(start + done, fps, width, height, pixels);
  const room = encoder.stdin.write(pixels);
  process.stdout.write(`frame=${done + 1}\n`);
  if (!room) await Promise.race([once(encoder.stdin, 'drain'), ended]);
}
encoder.stdin.end();
const failure = await ended;
if (failure !== undefined) {
  process.stderr.write(`frame.mjs: ${failure}\n`);
  process.exitCode = 1;
}
