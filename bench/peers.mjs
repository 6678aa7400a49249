// What a user would write by hand in place of the package: the whole WorkerJob of a chunk, a pool, a queue.
import PQueue from 'p-queue';

const PLACEHOLDER = /\{(chunkId|startFrame|endFrame|frameCount|frameStep|outputFile|jobId|attempt)(?::(\d{1,2}))?\}/g;

function split(command) {
  if (/["'\\]/.test(command)) throw new Error('Quotes are not for benchmarks');
  return command.split(/[ \t\n]+/).filter((word) => word !== '');
}

function put(word, values) {
  if (!word.includes('{')) return word;
  return word.replace(PLACEHOLDER, (whole, name, width) => {
    const value = values[name];
    if (value === undefined) return whole;
    return width === undefined ? String(value) : String(value).padStart(Number(width), '0');
  });
}

/** The same WorkerJob as the package's own. */
export function workerJob(chunk, jobId, attempt, signal, options, hear) {
  const step = chunk.frameStep ?? 1;
  const values = {
    chunkId: chunk.id,
    startFrame: chunk.startFrame,
    endFrame: chunk.startFrame + (chunk.frameCount - 1) * step,
    frameCount: chunk.frameCount,
    frameStep: step,
    outputFile: chunk.outputFile,
    jobId,
    attempt,
  };
  const words = split(chunk.command);
  const args = [];
  for (let n = 1; n < words.length; n += 1) args.push(put(words[n], values));
  return {
    command: put(words[0], values),
    args,
    env: {
      ...options.env,
      FRAMEWRIGHT_JOB_ID: jobId,
      FRAMEWRIGHT_CHUNK_ID: `${chunk.id}`,
      FRAMEWRIGHT_ATTEMPT: `${attempt}`,
      FRAMEWRIGHT_FRAME_STEP: `${step}`,
      FRAMEWRIGHT_START_FRAME: `${values.startFrame}`,
      FRAMEWRIGHT_END_FRAME: `${values.endFrame}`,
      FRAMEWRIGHT_FRAME_COUNT: `${values.frameCount}`,
      FRAMEWRIGHT_OUTPUT_FILE: values.outputFile,
    },
    meta: { ...options.meta, chunkId: chunk.id, ...chunk, jobId, attempt },
    signal,
    onStdout: (data) => hear(chunk.id, data),
    onStderr: (data) => hear(chunk.id, data),
  };
}

const quiet = () => undefined;

async function one(adapter, chunk, jobId, signal) {
  const result = await adapter.execute(workerJob(chunk, jobId, 1, signal, {}, quiet));
  if (result.exitCode !== 0) throw new Error(`chunk ${chunk.id} failed`);
}

/** p-queue 9, which keeps nothing. */
export async function byQueue(adapter, jobs, concurrency) {
  const queue = new PQueue({ concurrency });
  const { signal } = new AbortController();
  for (const [n, chunks] of jobs.entries()) for (const chunk of chunks) void queue.add(() => one(adapter, chunk, `job-${n}`, signal));
  await queue.onIdle();
}

/** A bare loop: so many workers that take the next chunk. */
export async function byLoop(adapter, jobs, concurrency) {
  const { signal } = new AbortController();
  for (const [n, chunks] of jobs.entries()) {
    let next = 0;
    const worker = async () => {
      while (next < chunks.length) {
        const chunk = chunks[next];
        next += 1;
        await one(adapter, chunk, `job-${n}`, signal);
      }
    };
    await Promise.all(Array.from({ length: Math.min(concurrency, chunks.length) }, worker));
  }
}
