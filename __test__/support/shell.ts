import { JobExecutor, LocalWorkerAdapter, type ChunkInput, type JobSpecInput, type WorkerAdapter } from 'framewright';

type LocalOptions = ConstructorParameters<typeof LocalWorkerAdapter>[0];

/** A job whose chunks are runs of /bin/sh; `$1` is the chunk's id, further words follow. */
export function shellJob(count: number, script: string | ((id: number) => string), words: string[] = [], more: Partial<JobSpecInput> = {}): JobSpecInput {
  const chunks: ChunkInput[] = Array.from({ length: count }, (_, id) => ({
    id,
    startFrame: id * 10,
    frameCount: 10,
    outputFile: `chunk-${id}.txt`,
    argv: ['/bin/sh', '-c', typeof script === 'string' ? script : script(id), 'sh', '{chunkId}', ...words],
  }));
  return { id: 'render', chunks, ...more };
}

/** Chunks are run natively, or by an adapter as a user would write it around ours. */
export const adapters: { kind: string; native: boolean; adapter: (options?: LocalOptions) => WorkerAdapter }[] = [
  { kind: 'run natively', native: true, adapter: (options) => new LocalWorkerAdapter(options) },
  {
    kind: "run by an adapter of the user's",
    native: false,
    adapter: (options) => {
      const local = new LocalWorkerAdapter(options);
      return { execute: (job) => local.execute(job) };
    },
  },
];

export const local = (options?: LocalOptions): JobExecutor => new JobExecutor(new LocalWorkerAdapter(options));
