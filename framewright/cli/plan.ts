/** `framewright plan`: a job file from a number of frames. */
import { planChunks, type JobSpecInput } from '../index.js';
import type { PlanArguments } from './arguments.js';

/** The job file for `args`, its chunks written out so that they can be read and edited. */
export function planJob(args: PlanArguments): JobSpecInput {
  const chunks = planChunks({
    ...(args.totalFrames !== undefined ? { totalFrames: args.totalFrames } : {}),
    ...(args.frames !== undefined ? { frames: args.frames } : {}),
    ...(args.startFrame !== undefined ? { startFrame: args.startFrame } : {}),
    ...(args.chunkSize !== undefined ? { chunkSize: args.chunkSize } : {}),
    ...(args.chunkCount !== undefined ? { chunkCount: args.chunkCount } : {}),
    outputFile: args.output,
    command: args.chunkCommand,
  });
  const totalFrames = chunks.reduce((sum, chunk) => sum + chunk.frameCount, 0);
  return {
    metadata: { totalFrames, fps: args.fps, width: args.width, height: args.height, duration: totalFrames / args.fps },
    chunks,
    ...(args.mergeCommand !== undefined ? { mergeCommand: args.mergeCommand } : {}),
    ...(args.outputFile !== undefined ? { outputFile: args.outputFile } : {}),
  };
}
