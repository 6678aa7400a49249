/** How far a job is, from its events, and how that looks on a terminal. */
import type { JobEvent } from '../index.js';

/** What the bar shows. */
export interface ProgressView {
  percent: number;
  framesDone: number; framesTotal: number;
  chunksDone: number; chunksTotal: number;
  running: number;
  merging: boolean;
  /** Frames per second, where known. */
  fps?: number;
  /** The time left, where known. */
  etaMs?: number;
}

/** "7 s" under a minute, "2:05" under an hour, "1:02:05" from there on. */
export function formatDuration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes}:${two(seconds % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(seconds % 60)}`;
}

/** "812 B", "81.2 kB", "3.4 MB", by thousands. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = bytes;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(1)} ${units[unit]}`;
}

/** A bar of `width` characters, filled to `percent`. */
export function formatBar(percent: number, width: number): string {
  const filled = Math.floor((Math.min(100, Math.max(0, percent)) / 100) * width);
  return '█'.repeat(filled) + '░'.repeat(width - filled);
}

function progressParts(view: ProgressView): string[] {
  return [
    `${Math.floor(view.percent)}%`,
    ...(view.framesTotal > 0 ? [`${Math.floor(view.framesDone)}/${view.framesTotal} frames`] : []),
    `${view.chunksDone}/${view.chunksTotal} chunks`,
    view.merging ? 'merging' : `${view.running} running`,
    ...(view.fps !== undefined && !view.merging ? [`${view.fps.toFixed(1)} fps`] : []),
    ...(view.etaMs !== undefined && !view.merging ? [`ETA ${formatDuration(view.etaMs)}`] : []),
  ];
}

/** Percent, frames, chunks, running, fps and time left as text. */
export function progressText(view: ProgressView): string {
  return progressParts(view).join('  ');
}

/** The same with a bar in front, in at most `columns` characters: the bar is made shorter first, then parts are left out from the right. */
export function formatProgress(view: ProgressView, columns = 80): string {
  const parts = progressParts(view).map((part, index) => (index === 0 ? part.padStart(4) : part));
  const text = (): string => parts.join('  ');
  while (parts.length > 1 && text().length > columns) parts.pop();
  const width = Math.min(30, columns - text().length - 2);
  return width < 5 ? text() : `${formatBar(view.percent, width)}  ${text()}`;
}

/** A chunk to be counted. */
export interface CountedChunk { id: number; frameCount?: number }

/** Counts frames and chunks from events. Chunks that it was not told of do not count. */
export class ProgressTracker {
  private readonly frames = new Map<number, number>();
  private readonly done = new Set<number>();
  private readonly fractions = new Map<number, number>();
  private readonly runningChunks = new Set<number>();
  private readonly framesTotal: number;
  private framesDone = 0;
  private framesRendered = 0;
  private firstStart: number | undefined;
  private merging = false;
  private highest = 0;

  constructor(chunks: CountedChunk[], finished: Iterable<number> = []) {
    for (const chunk of chunks) this.frames.set(chunk.id, chunk.frameCount ?? 0);
    this.framesTotal = [...this.frames.values()].reduce((sum, count) => sum + count, 0);
    for (const id of finished) this.finish(id);
  }

  private finish(id: number): number {
    const frames = this.frames.get(id);
    if (frames === undefined || this.done.has(id)) return 0;
    this.done.add(id);
    this.framesDone += frames;
    return frames;
  }

  private reopen(id: number): void {
    if (this.done.delete(id)) this.framesDone -= this.frames.get(id) ?? 0;
  }

  /** Takes in one event of the job. */
  update(event: JobEvent): void {
    switch (event.type) {
      case 'chunk.started':
        this.firstStart ??= event.at;
        this.runningChunks.add(event.chunkId);
        this.fractions.delete(event.chunkId);
        break;
      case 'chunk.progress':
        if (this.runningChunks.has(event.chunkId)) this.fractions.set(event.chunkId, event.fraction);
        break;
      case 'chunk.completed':
        this.stop(event.chunkId);
        this.framesRendered += this.finish(event.chunkId);
        break;
      case 'chunk.failed':
        this.stop(event.chunkId);
        break;
      case 'job.warning':
        // The output of a finished chunk is gone or was changed.
        if (event.error?.code === 'OUTPUT_MISSING' && event.error.chunkId !== undefined) this.reopen(event.error.chunkId);
        break;
      case 'merge.started':
        this.merging = true;
        break;
      case 'merge.completed':
      case 'merge.failed':
        this.merging = false;
        break;
      default:
    }
  }

  private stop(id: number): void {
    this.runningChunks.delete(id);
    this.fractions.delete(id);
  }

  /** Where it stands. `now` in milliseconds; `known` wins over what is worked out here. */
  view(now: number, known: { fps?: number; etaMs?: number } = {}): ProgressView {
    let partial = 0;
    let parts = 0;
    for (const [id, fraction] of this.fractions) {
      const share = Math.min(1, Math.max(0, fraction));
      partial += share * (this.frames.get(id) ?? 0);
      parts += share;
    }
    const chunksTotal = this.frames.size;
    const weighed = this.framesTotal > 0 ? (this.framesDone + partial) / this.framesTotal : (this.done.size + parts) / Math.max(1, chunksTotal);
    this.highest = Math.max(this.highest, chunksTotal === 0 ? 0 : 100 * weighed);
    const seconds = this.firstStart === undefined ? 0 : (now - this.firstStart) / 1000;
    const rendered = this.framesRendered + partial;
    const fps = known.fps ?? (seconds > 0.5 && rendered > 0 ? rendered / seconds : undefined);
    const left = this.framesTotal - this.framesDone - partial;
    const etaMs = known.etaMs ?? (fps !== undefined && fps > 0 ? (1000 * left) / fps : undefined);
    return {
      percent: this.highest,
      framesDone: this.framesDone + partial, framesTotal: this.framesTotal,
      chunksDone: this.done.size, chunksTotal,
      running: this.runningChunks.size,
      merging: this.merging,
      ...(fps !== undefined ? { fps } : {}),
      ...(etaMs !== undefined ? { etaMs } : {}),
    };
  }
}

/** What the line is written to: `process.stdout` or the like. */
export interface ProgressOutput { isTTY?: boolean; columns?: number; write(text: string): unknown }

/** A line that is drawn over again on a terminal, and nothing elsewhere; other lines are printed above it. */
export class ProgressLine {
  private shown = '';

  constructor(private readonly output: ProgressOutput) {}

  get live(): boolean {
    return this.output.isTTY === true;
  }

  /** Shows `view` in place of what was shown before. */
  draw(view: ProgressView): void {
    if (!this.live) return;
    const line = formatProgress(view, (this.output.columns || 80) - 1);
    if (line === this.shown) return;
    this.shown = line;
    this.output.write(`\r\x1b[K${line}`);
  }

  /** Prints whole lines above the bar, to `target` if it is another stream on the same terminal. */
  print(text: string, target: ProgressOutput = this.output): void {
    const shown = this.shown;
    if (shown) this.output.write('\r\x1b[K');
    target.write(`${text}\n`);
    if (shown) this.output.write(shown);
  }

  /** Takes the bar away. */
  clear(): void {
    if (this.shown) this.output.write('\r\x1b[K');
    this.shown = '';
  }
}
