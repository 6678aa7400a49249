import type { JobSpecInput } from 'framewright';

/** A job of so many chunks of ten frames each. */
export function specOf(chunks: number, more: Partial<JobSpecInput> = {}): JobSpecInput {
  return {
    id: 'render',
    metadata: { totalFrames: chunks * 10, fps: 30, width: 640, height: 360, duration: chunks / 3 },
    chunks: Array.from({ length: chunks }, (_, id) => ({
      id,
      startFrame: id * 10,
      frameCount: 10,
      outputFile: `chunk-${id}.mp4`,
      command: `render --start {startFrame} --chunk {chunkId}`,
    })),
    ...more,
  };
}
