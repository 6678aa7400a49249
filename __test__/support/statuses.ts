import type { JobStatus, JobStatusInput } from 'framewright';

/** A paused job of two chunks, one of them done, as a user would save it. */
export function statusOf(id: string, more: Partial<JobStatus> & Record<string, unknown> = {}): JobStatusInput {
  return {
    id,
    spec: {
      id: 'r',
      metadata: { totalFrames: 2, fps: 1, width: 1, height: 1, duration: 2 },
      chunks: [0, 1].map((chunk) => ({ id: chunk, startFrame: chunk, frameCount: 1, outputFile: `${chunk}.mp4`, command: 'x' })),
      mergeCommand: '',
    },
    state: 'paused',
    progress: 50,
    totalChunks: 2,
    completedChunks: 1,
    createdAt: 1_700_000_000_000,
    updatedAt: 1_700_000_000_500,
    ...more,
  };
}
