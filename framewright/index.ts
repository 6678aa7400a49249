/** framewright: render jobs cut into chunks, run and seen through. */
export { JobManager } from './manager.js';
export { InMemoryJobRepository } from './memory-repository.js';
export { FileJobRepository, MysqlJobRepository, PostgresJobRepository, SqliteJobRepository, openRepository } from './durable-repository.js';
export { JobExecutor } from './executor.js';
export type { ChunkContext, RenderFunction } from './work.js';
export { LocalWorkerAdapter } from './local-adapter.js';
export type { LocalWorkerAdapterOptions } from './local-adapter.js';
export { ConcatStitcher, FfmpegStitcher } from './stitchers.js';
export { planChunks } from './plan.js';
export { FramewrightError } from './errors.js';
export type { FramewrightErrorOptions, Issue } from './errors.js';
export type * from './types.js';
