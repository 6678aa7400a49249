/**
 * The resume record: which chunks of a job file are rendered already.
 *
 * A text file beside the job file that is only appended to. Its first line names what was rendered,
 * each further line one completed chunk with the size of its output:
 *
 *     {"format":1,"fingerprint":"9f2c..."}
 *     {"chunk":0,"bytes":81234}
 *     {"chunk":3,"bytes":79010}
 *
 * A line that was cut off by a crash is ignored, and so is a whole record whose fingerprint is another's.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';

const FORMAT = 1;

/** What the record needs to know of a chunk. */
export interface RecordedChunk { id: number; outputFile?: string }

/** What a record says; `chunks` maps a chunk's id to the bytes of its output, or to null if it names no output. */
export interface RecordContent { fingerprint: string; chunks: Map<number, number | null> }

/** Where the record of a job file is kept. */
export function recordPath(jobFile: string): string {
  return `${jobFile}.progress`;
}

/**
 * Names what is rendered: the job and the folder it is rendered in. How the chunks are merged
 * (`mergeCommand`, `outputFile`) is left out: after a change of it the chunks are still good.
 */
export function fingerprint(spec: Record<string, unknown>, jobDir: string): string {
  const { mergeCommand, outputFile, ...rendered } = spec;
  return createHash('sha256').update(JSON.stringify([rendered, resolve(jobDir)])).digest('hex');
}

/** Reads the text of a record; undefined if its first line is not a record's. */
export function parseRecord(text: string): RecordContent | undefined {
  const [first, ...rest] = text.split('\n');
  const head = parseLine(first);
  if (head?.format !== FORMAT || typeof head.fingerprint !== 'string') return undefined;
  const chunks = new Map<number, number | null>();
  for (const line of rest) {
    const entry = parseLine(line);
    if (!entry || !Number.isSafeInteger(entry.chunk)) continue;
    if (entry.bytes !== null && !Number.isSafeInteger(entry.bytes)) continue;
    chunks.set(entry.chunk as number, entry.bytes as number | null);
  }
  return { fingerprint: head.fingerprint, chunks };
}

function parseLine(line: string | undefined): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line ?? '');
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

/** Bytes of a regular file, or undefined if there is none. */
function fileSize(file: string): number | undefined {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat?.isFile() ? stat.size : undefined;
}

/** The chunks that are in the record and whose output is still what it was, in the order of `chunks`. */
export function finishedChunks(content: RecordContent, chunks: Iterable<RecordedChunk>, jobDir: string): number[] {
  const finished: number[] = [];
  for (const { id, outputFile } of chunks) {
    const bytes = content.chunks.get(id);
    if (bytes === undefined) continue;
    const now = outputFile === undefined ? null : fileSize(resolve(jobDir, outputFile));
    if (now === bytes) finished.push(id);
  }
  return finished;
}

/** What `ResumeRecord.open` found: nothing, a record of this very job, or one of something else. */
export type RecordFound = 'none' | 'same' | 'other';

/** The record of one job file, while the job runs. */
export class ResumeRecord {
  private readonly files: Map<number, string | undefined>;
  private readonly kept: Set<number>;

  private constructor(
    readonly path: string,
    readonly found: RecordFound,
    /** Ids that need not be rendered again. */
    readonly finished: number[],
    private readonly fingerprint: string,
    private readonly jobDir: string,
    chunks: RecordedChunk[],
    private readonly goesOn: boolean,
    private readonly torn: boolean,
  ) {
    this.kept = new Set(finished);
    this.files = new Map(chunks.map((chunk) => [chunk.id, chunk.outputFile]));
  }

  /** Reads the record at `path`, if there is one; `fresh` ignores what it says. Nothing is written before `begin`. */
  static open(options: { path: string; fingerprint: string; chunks: RecordedChunk[]; jobDir: string; fresh?: boolean }): ResumeRecord {
    const { path, chunks, jobDir } = options;
    let text: string | undefined;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    const content = text === undefined ? undefined : parseRecord(text);
    const same = content?.fingerprint === options.fingerprint;
    const goesOn = content !== undefined && same && options.fresh !== true;
    return new ResumeRecord(
      path,
      text === undefined ? 'none' : same ? 'same' : 'other',
      goesOn ? finishedChunks(content, chunks, jobDir) : [],
      options.fingerprint, jobDir, chunks, goesOn, text?.endsWith('\n') === false,
    );
  }

  /** The job has begun: from here on the file is this job's. */
  begin(): void {
    if (!this.goesOn) writeFileSync(this.path, `${JSON.stringify({ format: FORMAT, fingerprint: this.fingerprint })}\n`);
    else if (this.torn) appendFileSync(this.path, '\n');
  }

  /** Notes a completed chunk. One without the output it names is left out, and so rendered again. */
  add(id: number): void {
    const outputFile = this.files.get(id);
    const bytes = outputFile === undefined ? null : fileSize(resolve(this.jobDir, outputFile));
    if (bytes === undefined) return;
    appendFileSync(this.path, `${JSON.stringify({ chunk: id, bytes })}\n`);
    this.kept.add(id);
  }

  /** How many chunks a next run would find. */
  get size(): number {
    return this.kept.size;
  }

  /** The job is done: nothing to go on from. */
  remove(): void {
    rmSync(this.path, { force: true });
  }
}
