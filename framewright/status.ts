/** Statuses as they come out of the engine. */
import type { LongLists } from './binding.js';
import type { ChunkLog, JobStatus, RenderJobChunk } from './types.js';

/** Lists are handed over in slices of so many entries. */
const SLICE = 1000;

interface Long {
  /** -1: the list is in the status. */
  chunks: number;
  logs: number;
}

function readAll<T>(count: number, read: (from: number, count: number) => string): T[] {
  const all: T[] = [];
  for (let from = 0; from < count; from += SLICE) all.push(...(JSON.parse(read(from, SLICE)) as T[]));
  return all;
}

/** A property that is made when it is first looked at, and is ordinary from then on. */
export function lazy(target: object, name: string, make: () => unknown): void {
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: true,
    get(this: object): unknown {
      const value = make();
      Object.defineProperty(this, name, { configurable: true, enumerable: true, writable: true, value });
      return value;
    },
    set(this: object, value: unknown) {
      Object.defineProperty(this, name, { configurable: true, enumerable: true, writable: true, value });
    },
  });
}

/**
 * Reads a status. Lists of more than a thousand chunks or logs, and the chunks of a plan, are made from `long` when they
 * are first looked at: they are as they were when the status was asked for.
 */
export function readStatus(json: string, long: () => LongLists | null): JobStatus {
  const status = JSON.parse(json) as JobStatus & { $long?: Long };
  const left = status.$long;
  if (left) {
    delete status.$long;
    const lists = long();
    if (left.chunks >= 0) lazy(status.spec, 'chunks', () => (lists ? readAll<RenderJobChunk>(left.chunks, (from, count) => lists.chunks(from, count)) : []));
    if (left.logs >= 0) lazy(status, 'logs', () => (lists ? readAll<ChunkLog>(left.logs, (from, count) => lists.logs(from, count)) : []));
  }
  return status;
}
