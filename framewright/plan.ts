/** Frame ranges. */
import { native } from './errors.js';
import { toJson } from './memory-repository.js';
import binding from './native.js';
import type { PlanOptions, RenderJobChunk } from './types.js';

const SLICE = 10_000;

/**
 * Cuts frames into chunks: contiguous, no gap, no overlap, no empty chunk, last one smaller: 300 frames / 4 -> 4 x 75.
 *
 * @throws FramewrightError VALIDATION with every problem and its field.
 */
export function planChunks(options: PlanOptions): RenderJobChunk[] {
  const plan = native(() => new binding.ChunkPlan(toJson(options, 'plan')));
  const chunks: RenderJobChunk[] = [];
  for (let from = 0; from < plan.length; from += SLICE) {
    for (const chunk of JSON.parse(plan.chunks(from, SLICE)) as RenderJobChunk[]) chunks.push(chunk);
  }
  return chunks;
}
