import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const run = promisify(execFile);
const EXAMPLES = join(import.meta.dirname, '..', 'examples');
const DEMO = join(EXAMPLES, 'demo', 'demo.mjs');
const TRANSCODE = join(EXAMPLES, 'transcode', 'transcode.mjs');
const SLOW = 120_000;

interface Tools { ffmpeg: string; ffprobe: string }
const tools = async () => ((await import(join(EXAMPLES, 'ffmpeg.mjs'))) as { findFfmpeg(): Promise<Tools> }).findFfmpeg();

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'framewright-examples-'));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

describe('the demo', () => {
  const words = (...more: string[]) => [DEMO, '--out', 'out', '--width', '96', '--concurrency', '2', ...more];

  it('renders in chunks, has exactly the planned frames and compares with one process', async () => {
    const { stdout } = await run(process.execPath, words('--frames', '16', '--chunks', '8'), { cwd: dir });
    expect(stdout).toMatch(/in 8 chunks/);
    expect(stdout).toMatch(/16 frames, as planned/);
    expect(stdout).toMatch(/speed-up: \d/);
    expect(existsSync(join(dir, 'out', 'demo.mp4'))).toBe(true);
  }, SLOW);

  it.each(['SIGINT', 'SIGKILL'] as const)('[F143] stops at %s and renders only what is missing when it is started again', async (signal) => {
    // One chunk at a time, many of them: after the third is done there is enough left to be stopped in.
    const demo = spawn(process.execPath, [DEMO, '--out', 'out', '--width', '96', '--frames', '48', '--chunks', '24', '--concurrency', '1'], { cwd: dir, stdio: ['ignore', 'pipe', 'inherit'] });
    const done: string[] = [];
    const note = (line: string) => {
      const id = /^chunk (\d+) done/.exec(line)?.[1];
      if (id !== undefined) done.push(id);
    };
    createInterface({ input: demo.stdout }).on('line', (line) => {
      note(line);
      if (done.length === 3) demo.kill(signal);
    });
    const code = await new Promise<number | null>((resolve) => demo.on('close', resolve));
    expect(code).toBe(signal === 'SIGINT' ? 130 : null);
    expect(done.length).toBeLessThan(24);

    const before = done.length;
    const { stdout } = await run(process.execPath, [DEMO, '--out', 'out', '--width', '96', '--frames', '48', '--chunks', '24', '--concurrency', '2'], { cwd: dir });
    stdout.split('\n').forEach(note);
    const kept = Number(/^going on: (\d+) chunks/m.exec(stdout)?.[1]);
    // A chunk may be in the store, and the process gone before it could say so.
    if (signal === 'SIGINT') expect(kept).toBe(before);
    else expect(kept).toBeGreaterThanOrEqual(before);
    expect(stdout).toMatch(/48 frames, as planned/);
    expect(stdout).toMatch(/baseline: left out/);
    expect(done.length).toBe(24 - (kept - before));
    expect(new Set(done).size).toBe(done.length);
  }, SLOW);

  it('renders the same frame the same, whichever frames went before', async () => {
    const { renderFrame } = (await import(join(EXAMPLES, 'demo', 'scene.mjs'))) as { renderFrame(frame: number, fps: number, width: number, height: number, out: Buffer): void };
    const digest = (frame: number) => {
      const out = Buffer.alloc(3 * 64 * 36);
      renderFrame(frame, 24, 64, 36, out);
      return createHash('sha256').update(out).digest('hex');
    };
    const alone = digest(7);
    expect([6, 7].map(digest)[1]).toBe(alone);
    expect(digest(8)).not.toBe(alone);
  });
});

describe('the transcoder', () => {
  const SOURCES = [
    { name: '24 fps', rate: '24', frames: 101, filter: [], sound: true },
    { name: '25 fps', rate: '25', frames: 99, filter: [], sound: true },
    { name: '29.97 fps', rate: '30000/1001', frames: 157, filter: [], sound: true },
    { name: 'uneven frames', rate: '30', frames: 90, filter: ['-vf', "select='not(mod(n,3))+gt(mod(n,100),70)'", '-vsync', 'vfr'], sound: false },
  ];

  it.each(SOURCES)('makes the frames that one process makes of a video with $name', async ({ rate, frames, filter, sound }) => {
    const { ffmpeg, ffprobe } = await tools();
    const quiet = ['-nostdin', '-y', '-loglevel', 'error'];
    const source = join(dir, 'source.mkv');
    await run(ffmpeg, [
      ...quiet, '-f', 'lavfi', '-i', `testsrc=size=96x54:rate=${rate}`, ...(sound ? ['-f', 'lavfi', '-i', 'sine=duration=4'] : []),
      ...filter, '-frames:v', String(frames), '-c:v', 'libx264', '-g', '31', '-pix_fmt', 'yuv420p', source,
    ]);
    const lossless = ['--encoder=-c:v libx264 -preset ultrafast -qp 0'];
    const { stdout } = await run(process.execPath, [TRANSCODE, source, join(dir, 'out.mp4'), '--chunk-seconds', '1', '--compare', ...lossless], { cwd: dir });
    const counts = [...stdout.matchAll(/(?:chunks|process): (\d+) frames/g)].map((match) => Number(match[1]));
    expect(counts).toHaveLength(2);
    expect(counts[0]).toBe(counts[1]);

    const digests = async (file: string) => {
      const md5 = join(dir, 'frames.md5');
      await run(ffmpeg, [...quiet, '-i', file, '-map', '0:v', '-vsync', '0', '-f', 'framemd5', md5]);
      return readFileSync(md5, 'utf8').split('\n').filter((line) => line && !line.startsWith('#')).map((line) => line.split(',').at(-1)?.trim());
    };
    const [before, after] = [await digests(source), await digests(join(dir, 'out.mp4'))];
    expect(before).toHaveLength(frames);
    // Frames of an uneven video are shown more than once; none is lost, added or out of order.
    expect(after.filter((digest, index) => digest !== after[index - 1])).toEqual(before.filter((digest, index) => digest !== before[index - 1]));
    if (sound) {
      expect(after).toHaveLength(frames);
      const { stdout: streams } = await run(ffprobe, ['-v', 'error', '-show_entries', 'stream=codec_type', '-of', 'csv=p=0', join(dir, 'out.mp4')]);
      expect(streams.trim().split('\n').sort()).toEqual(['audio', 'video']);
    }
  }, SLOW);
});
