/** Which frames a video has, and the arguments that give ffmpeg a run of them. */
import { probe } from '../ffmpeg.mjs';

/**
 * Reads the time of every frame (without decoding). Where the distances are even, a chunk is so many frames
 * of the source. Where they are not, frames are doubled and left out by the average rate.
 */
export async function measureVideo(ffprobe, file) {
  const { streams, format } = await probe(ffprobe, ['-show_entries', 'format=start_time,format_name:stream=index,codec_type,codec_name,avg_frame_rate,r_frame_rate,disposition'], file);
  const stream = streams.find(({ codec_type: type, disposition }) => type === 'video' && !disposition?.attached_pic);
  if (!stream) throw new Error(`${file}: no video`);
  const { packets } = await probe(ffprobe, ['-select_streams', String(stream.index), '-show_entries', 'packet=pts_time,duration_time,flags'], file);
  const shown = packets.map(({ pts_time: time, flags }) => ({ time: Number(time), flags })).filter(({ time, flags }) => !Number.isNaN(time) && !flags.includes('D')).sort((a, b) => a.time - b.time);
  const times = shown.map(({ time }) => time);
  if (times.length === 0) throw new Error(`${file}: its frames have no times`);

  const rate = [stream.avg_frame_rate, stream.r_frame_rate].map(parseRate).find(Boolean) ?? [25, 1];
  const even = [stream.r_frame_rate, stream.avg_frame_rate].map(parseRate).find((candidate) => candidate && isEven(times, candidate));
  const chosen = even ?? rate;
  const start = times[0];
  const places = times.map((time) => Math.round((time * chosen[0]) / chosen[1]));
  return {
    file, stream: stream.index, times,
    /** Where each frame is when the rate is made constant. */
    places,
    /** [numerator, denominator] of frames per second. */
    rate: chosen,
    constant: even !== undefined,
    frames: times.length,
    keyframes: shown.filter(({ flags }) => flags.includes('K')).map(({ time }) => time),
    /** Can ffmpeg seek in it exactly? Streams for broadcasting have no index. */
    indexed: !/^(mpeg|mpegts|h264|hevc)\b/.test(format.format_name),
    /** Frames of the result. */
    planned: even ? times.length : places.at(-1) - places[0] + 1,
    /** ffmpeg counts `-ss` from here. */
    formatStart: Number(format.start_time ?? 0) || 0,
    /** How long after the beginning of the file the picture begins. */
    offset: Math.max(0, start - (Number(format.start_time ?? start) || 0)),
    audio: streams.find(({ codec_type: type }) => type === 'audio')?.codec_name,
  };
}

function parseRate(text) {
  const [numerator, denominator] = (text ?? '').split('/').map(Number);
  return numerator > 0 && denominator > 0 ? [numerator, denominator] : undefined;
}

/** Is every frame within one frame of where this rate puts it? Then the frames of the source are those of the result, one for one. */
function isEven(times, [numerator, denominator]) {
  const interval = denominator / numerator;
  return times.every((time, index) => Math.abs(time - times[0] - index * interval) < interval);
}

/** The frames from `first` on, numbered anew from 0: input, filter and count for ffmpeg. */
export function chunkInput(source, first, count) {
  const [numerator, denominator] = source.rate;
  const output = ['-r', `${numerator}/${denominator}`, '-frames:v', String(count)];
  if (source.constant) return [...opened(source, first, `settb=${denominator}/${numerator},setpts=N`), ...output];

  // Every frame is put to the nearest place on the grid of the rate; a place without one shows the last before it. The first frame of
  // this chunk may be such a place: decoding begins at the frame that it shows.
  const place = source.places[0] + first;
  let shown = 0;
  while (shown + 1 < source.places.length && source.places[shown + 1] <= place) shown += 1;
  const onGrid = `settb=${denominator}/${numerator},setpts='max(0,PTS-${place})',fps=${numerator}/${denominator}:start_time=0,tpad=stop=-1:stop_mode=clone`;
  return [...opened(source, shown, onGrid), ...output];
}

/** The source from its frame `index` on, through a filter. Times stay those of the file. */
function opened(source, index, filter) {
  const from = (...words) => ['-copyts', ...words, '-i', source.file, '-map', `0:${source.stream}`];
  if (index === 0) return [...from(), '-vf', filter];
  // Half-way between two frames: rounding can neither lose the first frame nor let in the one before.
  const cut = (source.times[index - 1] + source.times[index]) / 2;
  if (source.indexed) return [...from('-ss', seconds(cut - source.formatStart)), '-vf', filter];
  const keyframe = source.keyframes.findLast((time) => time < cut) ?? source.times[0];
  return [...from('-ss', seconds(keyframe - 1 - source.formatStart)), '-vf', `trim=start=${cut.toFixed(6)},${filter}`];
}

/** All frames in one go. */
export function singleInput(source) {
  return chunkInput(source, 0, source.planned);
}

/** A time that ffmpeg reads, never before the beginning. */
function seconds(value) {
  return Math.max(0, value).toFixed(6);
}
