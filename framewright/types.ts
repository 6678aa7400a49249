/** The public data and interfaces. Times are milliseconds (epoch or duration) unless the name says otherwise. */

// ── What to render ──

export interface RenderJobChunk {
  /** Unique in its job, integer >= 0. */
  id: number;
  /** First frame of the chunk, inclusive. */
  startFrame: number;
  /** How many frames are rendered, >= 1. */
  frameCount: number;
  /** Distance between rendered frames. Default 1. */
  frameStep?: number;
  /** Relative to `jobDir`. */
  outputFile: string;
  /**
   * POSIX-quoted command line, run WITHOUT a shell. Placeholders {chunkId} {startFrame} {endFrame} (inclusive)
   * {frameCount} {frameStep} {outputFile} {jobId} (the record's id) {attempt} are put in when it runs, after the line was
   * split; {chunkId:04} pads; an unknown name in braces stays as it is; a `#` is an ordinary character.
   */
  command: string;
  /** Program and arguments, already split, placeholders as in `command`; wins over `command`. */
  argv?: string[];
}

export interface JobMetadata {
  totalFrames: number;
  fps: number;
  width: number;
  height: number;
  duration: number;
}

/** The job file. Unknown fields are kept and given back unchanged. */
export interface JobSpec {
  id: string;
  assetsUrl?: string;
  metadata: JobMetadata;
  chunks: RenderJobChunk[];
  mergeCommand: string;
  /** Anything the executor needs; JSON. */
  payload?: unknown;
}

/** What is taken in of a chunk: only its id is needed (and a command, unless a function renders it). */
export interface ChunkFields extends Partial<Omit<RenderJobChunk, 'id'>> {
  id: number;
}
export type ChunkInput = ChunkFields | (ChunkFields & Record<string, unknown>);

export interface SpecFields extends Partial<Omit<JobSpec, 'chunks'>> {
  chunks?: ChunkInput[];
  /** Instead of `chunks`: made natively and kept as ranges, so that a job of a million chunks costs little. */
  plan?: PlanOptions;
}
export type JobSpecInput = SpecFields | (SpecFields & Record<string, unknown>);

export interface PlanOptions {
  /** This or `frames`. */
  totalFrames?: number;
  /** First frame. Default 0. */
  startFrame?: number;
  /** Frames per chunk; this or `chunkCount`. */
  chunkSize?: number;
  chunkCount?: number;
  /**
   * Frame ranges instead of a total: "1-100,150-200x2" (x2: every second frame, by `frameStep`); a chunk never spans two
   * ranges.
   */
  frames?: string;
  /** {chunkId}, {startFrame} and {endFrame} are put in at planning; with {chunkId:04} padded. */
  outputFile: string;
  /** Taken as it is; its placeholders are put in when the chunk runs. */
  command: string;
}

// ── Where a job stands ──

export type JobState = 'pending' | 'running' | 'paused' | 'completed' | 'failed' | 'cancelled';
export type JobPriority = 'low' | 'medium' | 'high' | 'critical';

export interface ChunkLog {
  chunkId: number;
  durationMs: number;
  /** The kept end of the output. */
  stdout: string;
  stderr: string;
}

export interface ChunkStatus {
  id: number;
  state: 'pending' | 'running' | 'completed' | 'failed';
  /** Attempts begun, counted exactly and kept over restarts; a number is never used again. */
  attempt: number;
  worker?: string;
  startedAt?: number;
  finishedAt?: number;
  durationMs?: number;
  exitCode?: number;
  signal?: string;
  error?: JobErrorInfo;
  /** The output of a completed chunk as it was then, where there is one: the chunk is taken over only while it is unchanged. */
  output?: { bytes: number; modifiedAt: number; sha256?: string };
}

export interface JobErrorInfo {
  code: ErrorCode;
  message: string;
  chunkId?: number;
  attempt?: number;
  exitCode?: number;
  signal?: string;
  stderrTail?: string;
}

export interface JobStatus {
  id: string;
  spec: JobSpec;
  state: JobState;
  /**
   * 0-100, weighted by frames where it is known which chunks are done, by count where an executor reports only numbers;
   * never falls within one run, 100 only when completed.
   */
  progress: number;
  totalChunks: number;
  completedChunks: number;
  /** Message of the failure that ended the job. */
  error?: string;
  createdAt: number;
  updatedAt: number;
  /** After a merge with a known output: { path, bytes }; else what the executor's promise gave, if it is JSON. */
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- whatever an executor resolves with
  result?: any;
  metrics?: { totalDurationMs: number; wallMs?: number; queuedMs?: number; attempts?: number; retries?: number };
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the user's own
  meta?: Record<string, any>;
  /**
   * One entry per completed chunk, in order of completion; stdout/stderr are the kept tail: up to 8 KiB each. All of a job
   * together are kept in 1 MiB: where that is not enough, the latest chunks keep their tails and the others the ends of theirs.
   */
  logs?: ChunkLog[];

  /** Grows with every committed change, not with progress; a write that names an older one is refused. */
  version: number;
  /** Ours (options, attempts, lease, for stores that keep only this object): keep it, give it back, don't read it. */
  record?: unknown;
  chunksByState?: Record<ChunkStatus['state'], number>;
  /** Frames per second over the last minute. */
  fps?: number;
  /** When the job last gave a sign of life. */
  lastOutputAt?: number;
  /** When its owner last renewed. */
  leaseRenewedAt?: number;
  name?: string;
  description?: string;
  type?: string;
  priority: JobPriority;
  tags: string[];
  /**
   * Why a pending job does not run. 'executor': recovered, but it needs a callback or object that only
   * `resumeJob(id, options)` can give, or a manager of its type.
   */
  waitingFor?: 'slot' | 'dependencies' | 'schedule' | 'hold' | 'executor';
  /** A request that is on its way. */
  requested?: 'pause' | 'cancel';
  attempt: number;
  startedAt?: number;
  finishedAt?: number;
  /** Range of the time left, from recent chunk durations and live slots. */
  eta?: { lowMs: number; highMs: number };
  failure?: JobErrorInfo;
  /** Every failed chunk when `failurePolicy` is 'continue'. */
  failures?: JobErrorInfo[];
  owner?: string;
  dependencies: string[];
  batchId?: string;
  /** One entry per recovery after a crash. */
  recoveries?: { recoveredAt: number; previousState: JobState; previousOwner?: string }[];
}

export type JobStatusInput = Pick<JobStatus, 'id' | 'spec' | 'state' | 'progress' | 'totalChunks' | 'completedChunks' | 'createdAt' | 'updatedAt'> &
  Partial<JobStatus>;

// ── Doing the work ──

export interface WorkerJob {
  command: string;
  args?: string[];
  env?: Record<string, string>;
  cwd?: string;
  /** Milliseconds. */
  timeout?: number;
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the user's own
  meta?: Record<string, any>;
  signal?: AbortSignal;
  onStdout?: (data: string) => void;
  onStderr?: (data: string) => void;
}

/**
 * `exitCode` is 128 + n when signal n ended the process, and `signal` its name. What is left of the process group after
 * the program's end is killed; stdin is empty.
 */
export interface WorkerResult {
  exitCode: number;
  stdout: string;
  stderr: string;
  durationMs: number;
  signal?: string;
}

export interface WorkerAdapter {
  execute(job: WorkerJob): Promise<WorkerResult>;
}

export interface VideoStitcher {
  stitch(inputs: string[], output: string, options?: { signal?: AbortSignal }): Promise<void>;
}

export type RetryPolicy =
  | { type: 'fixed_delay'; delayMs: number; jitter?: number }
  | { type: 'exponential_backoff'; initialMs: number; maxMs: number; multiplier?: number; jitter?: number };

export interface JobExecutionOptions {
  /** Chunks at once. Default 1. A value that is not a positive integer is a ValidationError. */
  concurrency?: number;
  jobDir?: string;
  merge?: boolean;
  skipMerge?: boolean;
  /** Further attempts per chunk. Default 0. */
  retries?: number;
  /**
   * How often the owner may die while a chunk runs before that chunk is failed. A crash raises `attempt` and uses this,
   * never `retries`. Default 3.
   */
  crashRetries?: number;
  /** Milliseconds between attempts; 0 means 0. Default 1000. */
  retryDelay?: number;
  /** Instead of `retryDelay`: delays that grow. */
  retryPolicy?: RetryPolicy;
  /** Default 'fail-fast': siblings are stopped at once. */
  failurePolicy?: 'fail-fast' | 'continue';
  /** chunkMs, mergeMs, startMs (no first sign of life) and jobMs end in TIMEOUT, noProgressMs in NO_PROGRESS. */
  timeouts?: { chunkMs?: number; mergeMs?: number; jobMs?: number; noProgressMs?: number; startMs?: number };
  /**
   * What an exit status of 0 must have left behind, else OUTPUT_MISSING. Default 'nonempty' where a stitcher will read the
   * outputs, else 'none'.
   */
  verifyOutput?: 'none' | 'exists' | 'nonempty' | ((file: string, chunk: RenderJobChunk) => Promise<boolean> | boolean);
  /**
   * How to read progress inside a chunk from its output: a regular expression with a group `frame` or `percent`. Default:
   * ffmpeg's `frame=`, Blender's `Fra:`.
   */
  progressPattern?: string;
  /** Remove the chunk files after a verified merge. Default false. */
  cleanupChunks?: boolean;
  /**
   * Finished chunks are taken over only while their outputs are what they were. Default false: size and time of the last
   * change tell. True: a SHA-256 of the content tells, which is read once when the chunk has finished and again before each
   * run and merge; a file that was copied or touched counts as unchanged.
   */
  hashOutputs?: boolean;
  /** May `outputFile`, of chunks and of the merge, be absolute or leave `jobDir`? Default true; the command line defaults to false. */
  allowOutsidePaths?: boolean;
  env?: Record<string, string>;
  onProgress?: (completedChunks: number, totalChunks: number) => void;
  onChunkComplete?: (chunkId: number, result: WorkerResult) => void | Promise<void>;
  onChunkStdout?: (chunkId: number, data: string) => void;
  onChunkStderr?: (chunkId: number, data: string) => void;
  signal?: AbortSignal;
  mergeAdapter?: WorkerAdapter;
  /**
   * Merging: `stitcher` with `outputFile`; else `mergeCommand` (placeholders {jobId} {outputFile}), by `mergeAdapter` if
   * given; else nothing. A stitcher of the user's gets the final path; ours write beside it and rename, and a
   * command that our processes run gets a temporary name, renamed when it has ended well. A job without
   * chunks merges, and completes. After a failed merge `resumeJob` runs the merge again, alone.
   */
  stitcher?: VideoStitcher;
  outputFile?: string;
  /** Skipped; ids that the job does not have, and ids named twice, are ignored. */
  completedChunkIds?: number[];
  // eslint-disable-next-line @typescript-eslint/no-explicit-any -- the user's own
  meta?: Record<string, any>;
}

/** Anything that runs a whole job. A plain object with `execute` serves; `execute` is looked up when it is called. */
export interface Executor {
  execute(spec: JobSpec, options?: JobExecutionOptions): Promise<unknown>;
}

// ── Keeping jobs ──

/**
 * What a user may implement in JavaScript (DynamoDB, Firestore, ...). Methods are looked up when called, with `this` kept.
 * What comes back may be sparse: a missing field has its default.
 */
export interface JobRepository {
  /**
   * Of ours: `job.version` names the version that was seen; the store keeps it + 1 and refuses an older one with CONFLICT;
   * a status without a version is kept unconditionally (drop it to bring a job into another store); a version for an id
   * that is gone is a CONFLICT. Public fields are replaced; chunk rows, lease and options never are.
   */
  save(job: JobStatusInput): Promise<void>;
  get(id: string): Promise<JobStatus | undefined>;
  list(): Promise<JobStatus[]>;
  delete(id: string): Promise<void>;
}

/** Where job folders and job files go before a run, and from where they are removed with the job. */
export interface ArtifactStorage {
  uploadAssetBundle(jobId: string, localDir: string): Promise<string>;
  downloadAssetBundle(jobId: string, remoteUrl: string, targetDir: string): Promise<void>;
  deleteAssetBundle(jobId: string, remoteUrl: string): Promise<void>;
  uploadJobSpec(jobId: string, spec: JobSpec): Promise<string>;
  deleteJobSpec(jobId: string, remoteUrl: string): Promise<void>;
  /** Optional: one finished output. */
  uploadOutput?(jobId: string, name: string, localFile: string): Promise<string>;
}

// ── The manager ──

export interface SubmitOptions extends JobExecutionOptions {
  /**
   * The caller's own id, [A-Za-z0-9._-]{1,128}, not starting with a dot; one that exists is refused with DUPLICATE.
   * Default: a random UUID. `spec.id` names the render, not the record.
   */
  id?: string;
  /** A job with a type runs only in a manager that names it in `types`; one without runs in any. */
  type?: string;
}

/** Without `limit`: everything, handed over in slices. */
export interface JobQuery {
  state?: JobState | JobState[];
  limit?: number;
  /** The id of the last job of the page before: what came after it follows. */
  cursor?: string;
}

export interface LogRecord {
  level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
  target: string;
  message: string;
  fields: Record<string, unknown>;
}

export interface JobManagerOptions {
  storage?: ArtifactStorage;
  /** Jobs running at once in this manager. Default: no limit. */
  maxConcurrentJobs?: number;
  /**
   * An executor that has not settled this long after its signal was aborted is given up: the job gets its state, and
   * whatever the executor reports later is refused. Default 5000.
   */
  abortGraceMs?: number;
  /**
   * How long a silent owner keeps a job on a durable repository, in milliseconds. Default 10,000; renewed by a native
   * thread, never by the event loop.
   */
  leaseMs?: number;
  /** Take over jobs whose owner is gone, at start and while running. Default true on durable repositories. */
  recover?: boolean;
  /** The types of job that this manager's executor can run. Default: those without a type. */
  types?: string[];
  /**
   * How long a repository written in JavaScript may take to answer. A call that needs a longer answer rejects with
   * STORE_UNAVAILABLE; a save that is still under way is waited for, however long it takes, before the next one of its job.
   * Default 30,000.
   */
  storeTimeoutMs?: number;
  /** Structured log records; nothing is ever written to the console otherwise. */
  logger?: (record: LogRecord) => void;
}

// ── Events ──

export interface EventBase {
  /** Kept events are numbered without a gap, per store. */
  sequence: number;
  jobId: string;
  at: number;
}

export type JobEvent = EventBase &
  (
    | { type: 'job.submitted' }
    | { type: 'job.started'; owner: string; attempt: number }
    | { type: 'job.progress'; progress: number; completedChunks: number; totalChunks: number }
    | { type: 'chunk.started'; chunkId: number; attempt: number; worker?: string }
    | { type: 'chunk.progress'; chunkId: number; fraction: number }
    | { type: 'chunk.completed'; chunkId: number; attempt: number; durationMs: number }
    | { type: 'chunk.failed'; chunkId: number; attempt: number; error: JobErrorInfo; willRetry: boolean; retryInMs?: number }
    | { type: 'merge.started' }
    | { type: 'merge.completed'; durationMs: number }
    | { type: 'merge.failed'; error: JobErrorInfo; willRetry: boolean }
    | { type: 'job.pausing' }
    | { type: 'job.paused' }
    | { type: 'job.resumed' }
    | { type: 'job.cancelling' }
    | { type: 'job.cancelled'; reason?: string }
    | { type: 'job.completed'; durationMs: number }
    | { type: 'job.failed'; error: JobErrorInfo }
    | { type: 'job.restarted'; all: boolean }
    | { type: 'job.recovered'; previousOwner?: string }
    | { type: 'job.transferred'; from: string; to: string }
    | { type: 'job.updated' }
    | { type: 'job.deleted' }
    /** This manager is no longer the job's owner: its work was stopped. */
    | { type: 'job.lease_lost'; owner: string }
    /** Something went wrong beside the job: a callback or listener threw, output was cut, a late report was refused. */
    | { type: 'job.warning'; message: string; error?: JobErrorInfo }
  );
export type JobEventType = JobEvent['type'];

/** What a listener of a type hears. */
export type EventOf<T extends JobEventType | 'event'> = T extends JobEventType ? Extract<JobEvent, { type: T }> : JobEvent;

export interface EventFilter {
  jobId?: string;
  types?: JobEventType[];
  /** Every kept event from this number on, that one included; 0: all that are kept. Without it: from now. */
  fromSequence?: number;
  /** Ends the iteration. */
  signal?: AbortSignal;
}

// ── Errors ──

export type ErrorCode =
  | 'VALIDATION'
  | 'NOT_FOUND'
  | 'INVALID_TRANSITION'
  | 'CONFLICT'
  | 'DUPLICATE'
  | 'CYCLE'
  | 'CHUNK_FAILED'
  | 'OUTPUT_MISSING'
  | 'SPAWN_FAILED'
  | 'TIMEOUT'
  | 'NO_PROGRESS'
  | 'MERGE_FAILED'
  | 'DEPENDENCY_FAILED'
  | 'STORE_UNAVAILABLE'
  | 'STORE_CORRUPT'
  | 'STORE_FULL'
  | 'LEASE_LOST'
  | 'QUEUE_UNAVAILABLE'
  | 'STORAGE_FAILED'
  | 'CLOSED'
  | 'ABORTED'
  | 'INTERNAL';
