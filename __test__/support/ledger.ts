/** What chunks have written down about themselves, whatever the store says. */
import { join } from 'node:path';
import type { ChunkInput, JobSpecInput } from 'framewright';
import { Folder } from './folder.js';

const program = join(import.meta.dirname, '..', 'workers', 'chunk.sh');

export interface Entry {
  what: 'begin' | 'end' | 'overlap';
  job: string;
  chunk: number;
  attempt: number;
  pid: number;
  /** Milliseconds since the epoch. */
  at: number;
}

/** How long a chunk works: seconds, or until it is killed, unless the file `gate` is there; `suicide` kills its worker. */
export type Work = number | 'hold' | 'suicide';

/** A folder whose file `ledger` chunks append to. */
export class Ledger extends Folder {
  entries(what: Entry['what'], job?: string): Entry[] {
    const all = this.lines('ledger').map((line): Entry => {
      const [kind, jobId, chunk, attempt, pid, at] = line.split(' ') as [Entry['what'], string, string, string, string, string];
      return { what: kind, job: jobId, chunk: Number(chunk), attempt: Number(attempt), pid: Number(pid), at: Number(at) };
    });
    return all.filter((entry) => entry.what === what && (job === undefined || entry.job === job));
  }

  /** The attempts of each chunk that were begun, in order. */
  attempts(job: string): Record<number, number[]> {
    const begun: Record<number, number[]> = {};
    for (const { chunk, attempt } of this.entries('begin', job)) (begun[chunk] ??= []).push(attempt);
    return begun;
  }

  /** The first entry of a kind for which a test holds, that is there or comes. */
  async until(what: Entry['what'], test: (entry: Entry) => boolean, limitMs = 12_000): Promise<Entry> {
    const end = performance.now() + limitMs;
    for (;;) {
      const found = this.entries(what).find(test);
      if (found) return found;
      if (performance.now() > end) throw new Error(`no ${what} came: ${test.toString()}; there are\n${this.lines('ledger').join('\n')}`);
      await new Promise((resolve) => setTimeout(resolve, 3));
    }
  }

  /** A job whose chunks are runs of chunk.sh, and write their outputs into the folder. */
  job(count: number, work: Work | ((chunk: number) => Work), more: Partial<JobSpecInput> = {}): JobSpecInput {
    const chunks: ChunkInput[] = Array.from({ length: count }, (_, id) => ({
      id,
      startFrame: id,
      frameCount: 1,
      outputFile: `chunk-${id}.txt`,
      argv: ['/bin/sh', program, this.path, '{jobId}', '{chunkId}', '{attempt}', String(typeof work === 'function' ? work(id) : work)],
    }));
    return { id: 'render', chunks, ...more };
  }
}
