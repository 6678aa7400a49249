/** Finding ffmpeg and ffprobe, and asking them things. Shared by the examples. */
import { execFile } from 'node:child_process';
import { access, chmod, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** The two programs: those on PATH, else the ones that npm installed with this repository. */
export async function findFfmpeg() {
  const [ffmpeg, ffprobe] = await Promise.all([
    find('ffmpeg', '@ffmpeg-installer/ffmpeg'),
    find('ffprobe', '@ffprobe-installer/ffprobe'),
  ]);
  return { ffmpeg, ffprobe };
}

async function find(program, installer) {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    const file = join(folder, program);
    if (folder && (await isExecutable(file))) return file;
  }
  try {
    const module = await import(installer);
    const file = module.path ?? module.default?.path;
    if (!(await isExecutable(file))) await chmod(file, 0o755); // where npm runs no install scripts
    return file;
  } catch {
    throw new Error(`${program} is not on PATH, and ${installer} is not installed: npm install --no-save ${installer}`);
  }
}

async function isExecutable(file) {
  try {
    await access(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** x264 where this ffmpeg has it, else MPEG-4: as arguments of ffmpeg. */
export async function videoEncoder(ffmpeg) {
  const { stdout } = await run(ffmpeg, ['-hide_banner', '-encoders'], { maxBuffer: 1 << 24 });
  return /^ V\S* libx264 /m.test(stdout)
    ? ['-c:v', 'libx264', '-preset', 'veryfast', '-crf', '18']
    : ['-c:v', 'mpeg4', '-q:v', '3'];
}

/** What ffprobe says, as an object. */
export async function probe(ffprobe, words, file) {
  const { stdout } = await run(ffprobe, ['-v', 'error', ...words, '-of', 'json', file], { maxBuffer: 1 << 30 });
  return JSON.parse(stdout);
}

/** Frames of the first video stream, by decoding every one of them. */
export async function countFrames(ffprobe, file) {
  const { streams } = await probe(ffprobe, ['-count_frames', '-select_streams', 'v:0', '-show_entries', 'stream=nb_read_frames'], file);
  return Number(streams?.[0]?.nb_read_frames ?? 0);
}

/** A word for a chunk's command line, quoted so that it stays one word. */
export function quote(word) {
  return /^[\w@%+=:,./{}-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
