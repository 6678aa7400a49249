// Written by `npm run build` from framewright/index.ts.
/** The public data and interfaces. Times are milliseconds (epoch or duration) unless the name says otherwise. */
interface RenderJobChunk {
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
interface JobMetadata {
    totalFrames: number;
    fps: number;
    width: number;
    height: number;
    duration: number;
}
/** The job file. Unknown fields are kept and given back unchanged. */
interface JobSpec {
    id: string;
    assetsUrl?: string;
    metadata: JobMetadata;
    chunks: RenderJobChunk[];
    mergeCommand: string;
    /** Anything the executor needs; JSON. */
    payload?: unknown;
}
/** What is taken in of a chunk: only its id is needed (and a command, unless a function renders it). */
interface ChunkFields extends Partial<Omit<RenderJobChunk, 'id'>> {
    id: number;
}
type ChunkInput = ChunkFields | (ChunkFields & Record<string, unknown>);
interface SpecFields extends Partial<Omit<JobSpec, 'chunks'>> {
    chunks?: ChunkInput[];
    /** Instead of `chunks`: made natively and kept as ranges, so that a job of a million chunks costs little. */
    plan?: PlanOptions;
}
type JobSpecInput = SpecFields | (SpecFields & Record<string, unknown>);
interface PlanOptions {
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
type JobState = 'pending' | 'running' | 'paused' | 'completed' | 'failed' | 'cancelled';
type JobPriority = 'low' | 'medium' | 'high' | 'critical';
interface ChunkLog {
    chunkId: number;
    durationMs: number;
    /** The kept end of the output. */
    stdout: string;
    stderr: string;
}
interface ChunkStatus {
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
    output?: {
        bytes: number;
        modifiedAt: number;
        sha256?: string;
    };
}
interface JobErrorInfo {
    code: ErrorCode;
    message: string;
    chunkId?: number;
    attempt?: number;
    exitCode?: number;
    signal?: string;
    stderrTail?: string;
}
interface JobStatus {
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
    result?: any;
    metrics?: {
        totalDurationMs: number;
        wallMs?: number;
        queuedMs?: number;
        attempts?: number;
        retries?: number;
    };
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
    eta?: {
        lowMs: number;
        highMs: number;
    };
    failure?: JobErrorInfo;
    /** Every failed chunk when `failurePolicy` is 'continue'. */
    failures?: JobErrorInfo[];
    owner?: string;
    dependencies: string[];
    batchId?: string;
    /** One entry per recovery after a crash. */
    recoveries?: {
        recoveredAt: number;
        previousState: JobState;
        previousOwner?: string;
    }[];
}
type JobStatusInput = Pick<JobStatus, 'id' | 'spec' | 'state' | 'progress' | 'totalChunks' | 'completedChunks' | 'createdAt' | 'updatedAt'> & Partial<JobStatus>;
interface WorkerJob {
    command: string;
    args?: string[];
    env?: Record<string, string>;
    cwd?: string;
    /** Milliseconds. */
    timeout?: number;
    meta?: Record<string, any>;
    signal?: AbortSignal;
    onStdout?: (data: string) => void;
    onStderr?: (data: string) => void;
}
/**
 * `exitCode` is 128 + n when signal n ended the process, and `signal` its name. What is left of the process group after
 * the program's end is killed; stdin is empty.
 */
interface WorkerResult {
    exitCode: number;
    stdout: string;
    stderr: string;
    durationMs: number;
    signal?: string;
}
interface WorkerAdapter {
    execute(job: WorkerJob): Promise<WorkerResult>;
}
interface VideoStitcher {
    stitch(inputs: string[], output: string, options?: {
        signal?: AbortSignal;
    }): Promise<void>;
}
type RetryPolicy = {
    type: 'fixed_delay';
    delayMs: number;
    jitter?: number;
} | {
    type: 'exponential_backoff';
    initialMs: number;
    maxMs: number;
    multiplier?: number;
    jitter?: number;
};
interface JobExecutionOptions {
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
    timeouts?: {
        chunkMs?: number;
        mergeMs?: number;
        jobMs?: number;
        noProgressMs?: number;
        startMs?: number;
    };
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
    meta?: Record<string, any>;
}
/** Anything that runs a whole job. A plain object with `execute` serves; `execute` is looked up when it is called. */
interface Executor {
    execute(spec: JobSpec, options?: JobExecutionOptions): Promise<unknown>;
}
/**
 * What a user may implement in JavaScript (DynamoDB, Firestore, ...). Methods are looked up when called, with `this` kept.
 * What comes back may be sparse: a missing field has its default.
 */
interface JobRepository {
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
interface ArtifactStorage {
    uploadAssetBundle(jobId: string, localDir: string): Promise<string>;
    downloadAssetBundle(jobId: string, remoteUrl: string, targetDir: string): Promise<void>;
    deleteAssetBundle(jobId: string, remoteUrl: string): Promise<void>;
    uploadJobSpec(jobId: string, spec: JobSpec): Promise<string>;
    deleteJobSpec(jobId: string, remoteUrl: string): Promise<void>;
    /** Optional: one finished output. */
    uploadOutput?(jobId: string, name: string, localFile: string): Promise<string>;
}
interface SubmitOptions extends JobExecutionOptions {
    /**
     * The caller's own id, [A-Za-z0-9._-]{1,128}, not starting with a dot; one that exists is refused with DUPLICATE.
     * Default: a random UUID. `spec.id` names the render, not the record.
     */
    id?: string;
    /** A job with a type runs only in a manager that names it in `types`; one without runs in any. */
    type?: string;
}
/** Without `limit`: everything, handed over in slices. */
interface JobQuery {
    state?: JobState | JobState[];
    limit?: number;
    /** The id of the last job of the page before: what came after it follows. */
    cursor?: string;
}
interface LogRecord {
    level: 'trace' | 'debug' | 'info' | 'warn' | 'error';
    target: string;
    message: string;
    fields: Record<string, unknown>;
}
interface JobManagerOptions {
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
interface EventBase {
    /** Kept events are numbered without a gap, per store. */
    sequence: number;
    jobId: string;
    at: number;
}
type JobEvent = EventBase & ({
    type: 'job.submitted';
} | {
    type: 'job.started';
    owner: string;
    attempt: number;
} | {
    type: 'job.progress';
    progress: number;
    completedChunks: number;
    totalChunks: number;
} | {
    type: 'chunk.started';
    chunkId: number;
    attempt: number;
    worker?: string;
} | {
    type: 'chunk.progress';
    chunkId: number;
    fraction: number;
} | {
    type: 'chunk.completed';
    chunkId: number;
    attempt: number;
    durationMs: number;
} | {
    type: 'chunk.failed';
    chunkId: number;
    attempt: number;
    error: JobErrorInfo;
    willRetry: boolean;
    retryInMs?: number;
} | {
    type: 'merge.started';
} | {
    type: 'merge.completed';
    durationMs: number;
} | {
    type: 'merge.failed';
    error: JobErrorInfo;
    willRetry: boolean;
} | {
    type: 'job.pausing';
} | {
    type: 'job.paused';
} | {
    type: 'job.resumed';
} | {
    type: 'job.cancelling';
} | {
    type: 'job.cancelled';
    reason?: string;
} | {
    type: 'job.completed';
    durationMs: number;
} | {
    type: 'job.failed';
    error: JobErrorInfo;
} | {
    type: 'job.restarted';
    all: boolean;
} | {
    type: 'job.recovered';
    previousOwner?: string;
} | {
    type: 'job.transferred';
    from: string;
    to: string;
} | {
    type: 'job.updated';
} | {
    type: 'job.deleted';
}
/** This manager is no longer the job's owner: its work was stopped. */
 | {
    type: 'job.lease_lost';
    owner: string;
}
/** Something went wrong beside the job: a callback or listener threw, output was cut, a late report was refused. */
 | {
    type: 'job.warning';
    message: string;
    error?: JobErrorInfo;
});
type JobEventType = JobEvent['type'];
/** What a listener of a type hears. */
type EventOf<T extends JobEventType | 'event'> = T extends JobEventType ? Extract<JobEvent, {
    type: T;
}> : JobEvent;
interface EventFilter {
    jobId?: string;
    types?: JobEventType[];
    /** Every kept event from this number on, that one included; 0: all that are kept. Without it: from now. */
    fromSequence?: number;
    /** Ends the iteration. */
    signal?: AbortSignal;
}
type ErrorCode = 'VALIDATION' | 'NOT_FOUND' | 'INVALID_TRANSITION' | 'CONFLICT' | 'DUPLICATE' | 'CYCLE' | 'CHUNK_FAILED' | 'OUTPUT_MISSING' | 'SPAWN_FAILED' | 'TIMEOUT' | 'NO_PROGRESS' | 'MERGE_FAILED' | 'DEPENDENCY_FAILED' | 'STORE_UNAVAILABLE' | 'STORE_CORRUPT' | 'STORE_FULL' | 'LEASE_LOST' | 'QUEUE_UNAVAILABLE' | 'STORAGE_FAILED' | 'CLOSED' | 'ABORTED' | 'INTERNAL';

/**
 * Takes jobs, runs them by an executor, keeps them in a repository.
 *
 * A running job, a pending `waitForJob` and an `events()` loop that is being read keep the process alive; an idle manager
 * or a listener does not.
 */
declare class JobManager {
    #private;
    /**
     * @param repository where jobs are kept: {@link InMemoryJobRepository}, or any object with save, get, list and delete.
     * @param executor runs whole jobs: a {@link JobExecutor}, or any object with `execute`.
     * @param options options, or an artifact storage.
     */
    constructor(repository: JobRepository, executor?: Executor, options?: ArtifactStorage | JobManagerOptions);
    /**
     * Takes a job. Resolves with its id once the record is kept; rejects and runs nothing if it could not be.
     *
     * @throws FramewrightError VALIDATION with every problem in `issues`; DUPLICATE; CLOSED; STORE_UNAVAILABLE.
     */
    submitJob(spec: JobSpecInput, options?: SubmitOptions): Promise<string>;
    /** The job as it stands, a copy; undefined when there is none. */
    getJob(id: string): Promise<JobStatus | undefined>;
    /** All jobs, or those of a query, in order of arrival. */
    listJobs(query?: JobQuery): Promise<JobStatus[]>;
    /**
     * The chunks of a job, in the order of its spec.
     *
     * @throws FramewrightError NOT_FOUND.
     */
    chunks(id: string, options?: {
        state?: ChunkStatus['state'];
        offset?: number;
        limit?: number;
    }): Promise<ChunkStatus[]>;
    /**
     * Resolves at a terminal state.
     *
     * @throws FramewrightError TIMEOUT, ABORTED (an AbortError), or NOT_FOUND (unknown, or deleted meanwhile).
     */
    waitForJob(id: string, options?: {
        timeoutMs?: number;
        signal?: AbortSignal;
    }): Promise<JobStatus>;
    /** Cancels a job. Resolves once nothing of it runs any more. */
    cancelJob(id: string, options?: {
        strict?: boolean;
        reason?: string;
    }): Promise<void>;
    /**
     * Pauses a job. 'immediate' (default) stops the running chunks; 'graceful' lets them end. The job ends `paused`, always.
     * An executor of the user's is stopped gracefully at the next chunk that it reports.
     */
    pauseJob(id: string, options?: {
        mode?: 'immediate' | 'graceful';
        strict?: boolean;
    }): Promise<void>;
    /**
     * Goes on from the completed chunks with the options that the job was submitted with; those given here win. Of a failed
     * job: what failed and what is missing, attempts counted anew.
     */
    resumeJob(id: string, options?: JobExecutionOptions & {
        strict?: boolean;
    }): Promise<void>;
    /** Stops a job and removes its record, which never re-appears. */
    deleteJob(id: string, options?: {
        strict?: boolean;
    }): Promise<void>;
    /**
     * Takes over interrupted jobs now; gives their ids. On durable repositories it also happens by itself, see
     * {@link JobManagerOptions.recover}.
     */
    recoverJobs(): Promise<string[]>;
    /**
     * Works off the repository's pending and orphaned jobs until aborted, or until the manager is closed: the main loop of a
     * worker process. Jobs that run then go on; `close` ends them.
     */
    run(options?: {
        signal?: AbortSignal;
    }): Promise<void>;
    /**
     * What an attempt of a chunk said, by default the latest one on stdout. Up to 16 MiB of each stream are kept whole, more
     * as head and tail; `tailBytes`: only the end. Of a process that this manager runs it is what was said so far; what an
     * adapter of the user's runs, or another manager, is there once the attempt has ended.
     *
     * @throws FramewrightError NOT_FOUND for a job, chunk or attempt that does not exist.
     */
    readLog(id: string, options: {
        chunkId: number;
        attempt?: number;
        stream?: 'stdout' | 'stderr';
        tailBytes?: number;
    }): Promise<string>;
    /** Hears events of a type, or all with 'event'. What a listener throws is told as `job.warning`. */
    on<T extends JobEventType | 'event'>(type: T, listener: (event: EventOf<T>) => void): this;
    /** Hears the next event of a type. */
    once<T extends JobEventType | 'event'>(type: T, listener: (event: EventOf<T>) => void): this;
    /** Ends `on` and `once`. */
    off(type: JobEventType | 'event', listener: (...args: any[]) => void): this;
    /**
     * Every event from `fromSequence` on (0: all that are kept), or from now, in order, none twice, none lost. In memory the
     * last 100,000 are kept: an older `fromSequence` is a VALIDATION error.
     */
    events(filter?: EventFilter): AsyncIterableIterator<JobEvent>;
    /**
     * Stops taking jobs, gives running ones `finishMs`, then stops them and leaves them `pending` for the next owner, their
     * attempt not counted against `retries`; lets the process exit. Reads go on working, every other call rejects with
     * CLOSED; the repository stays open. Defaults 0 and 5000. A second call can leave less time than the first, not more.
     */
    close(options?: {
        finishMs?: number;
        abortMs?: number;
    }): Promise<void>;
    /** Closes with the defaults, or waits for the `close` that is under way. */
    [Symbol.asyncDispose](): Promise<void>;
}

/** Jobs in memory, natively and outside of the JavaScript heap. */

/**
 * Keeps jobs in memory, lost with the process. Statuses go in and out as full copies. An overridden or spied method is
 * honoured by the managers on it: every change of state is saved through it.
 */
declare class InMemoryJobRepository implements JobRepository {
    #private;
    constructor();
    /** Keeps a status. See {@link JobRepository.save} for versions. */
    save(job: JobStatusInput): Promise<void>;
    /** The status, or undefined when there is no such job. */
    get(id: string): Promise<JobStatus | undefined>;
    /** All jobs, in order of arrival. */
    list(): Promise<JobStatus[]>;
    /** Removes a job; an unknown id changes nothing. */
    delete(id: string): Promise<void>;
    /** Nothing has to be closed in memory; the jobs stay until the repository is collected. */
    close(): Promise<void>;
}

/** Repositories that outlive the process: a file of SQLite, a directory, PostgreSQL, MySQL. */

/** What all durable repositories do alike. */
declare abstract class DurableJobRepository implements JobRepository {
    #private;
    /** Keeps a status. See {@link JobRepository.save} for versions. */
    save(job: JobStatusInput): Promise<void>;
    /**
     * The status, or undefined when there is no such job.
     *
     * @throws FramewrightError STORE_CORRUPT when its record is damaged, until it is deleted; STORE_UNAVAILABLE.
     */
    get(id: string): Promise<JobStatus | undefined>;
    /** All jobs, in order of arrival. Damaged ones are left out, which a manager on this repository is warned of. */
    list(): Promise<JobStatus[]>;
    /** Removes a job, whoever runs it; an unknown id changes nothing. */
    delete(id: string): Promise<void>;
    /** Ends all connections. Managers on it are to be closed before. */
    close(): Promise<void>;
}
/**
 * Keeps jobs in a directory, one journal each. One process at a time; several managers in it. A directory of
 * `<id>.json` status files is taken over.
 */
declare class FileJobRepository extends DurableJobRepository {
    constructor(directory: string);
}
/** Keeps jobs in a SQLite database, which several processes of one host may share. */
declare class SqliteJobRepository extends DurableJobRepository {
    /**
     * Opens a database, made when it is missing.
     *
     * @param options `synchronous`: 'full' (default) survives the loss of power, 'normal' only the death of the process.
     * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
     */
    static open(path: string, options?: {
        synchronous?: 'full' | 'normal';
    }): Promise<SqliteJobRepository>;
}
/** Keeps jobs in PostgreSQL. */
declare class PostgresJobRepository extends DurableJobRepository {
    /**
     * Connects, and makes or migrates the tables.
     *
     * @param url its parameters `max` and `schema` stand for the options.
     * @param options `maxConnections`: default 10; `schema`: default the connection's own.
     * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
     */
    static connect(url: string, options?: {
        maxConnections?: number;
        schema?: string;
    }): Promise<PostgresJobRepository>;
}
/** Keeps jobs in MySQL or MariaDB. */
declare class MysqlJobRepository extends DurableJobRepository {
    /**
     * Connects, and makes or migrates the tables.
     *
     * @param url its parameter `max` stands for the option.
     * @param options `maxConnections`: default 10.
     * @throws FramewrightError STORE_UNAVAILABLE, STORE_CORRUPT.
     */
    static connect(url: string, options?: {
        maxConnections?: number;
    }): Promise<MysqlJobRepository>;
}
/**
 * Opens a repository by its URL: "memory:", "file:DIR", "sqlite:PATH?synchronous=full", "postgres://...?schema=s&max=10",
 * "mysql://...?max=10". Paths are percent-decoded. TLS is used where the server offers it; "sslmode=verify-full&sslrootcert=ca.pem"
 * (PostgreSQL) and "ssl-mode=VERIFY_IDENTITY&ssl-ca=ca.pem" (MySQL) insist on it and on the host's certificate.
 *
 * @throws FramewrightError VALIDATION (the URL), STORE_UNAVAILABLE (away, refused, silent for 30 s, wrong credentials, no
 *   permission to write, a newer schema, a file store that another process has open), STORE_CORRUPT (not a store of ours).
 */
declare function openRepository(url: string): Promise<JobRepository & {
    close(): Promise<void>;
}>;

/** What the executors of ours are made of, for those who drive them. */

/** What a chunk function is told beside its chunk. */
interface ChunkContext {
    /** Aborted when the chunk is to stop: pause, cancel, a failed sibling, a time limit. */
    signal: AbortSignal;
    jobId: string;
    /** From 1. */
    attempt: number;
    /** 0 to 1. */
    reportProgress(fraction: number): void;
}
/** Renders one chunk in this process. What it resolves with is the chunk's result; nothing means success. */
type RenderFunction = (chunk: RenderJobChunk, context: ChunkContext) => Promise<Partial<WorkerResult> | void>;

/**
 * Runs the chunks of a job: concurrency, attempts, time limits, abort, merge. With a {@link LocalWorkerAdapter} all of it
 * happens natively and goes on while the event loop is blocked.
 */
declare class JobExecutor implements Executor {
    constructor(adapter: WorkerAdapter);
    /** Runs each chunk in this process by a function. */
    static fromFunction(run: RenderFunction): JobExecutor;
    /**
     * Runs a whole job to its end, without a manager and without keeping a record.
     *
     * A subclass whose manager calls it goes on after `super.execute(spec, options)`: the job is its manager's, and runs until
     * the subclass's own promise has settled.
     *
     * @throws FramewrightError VALIDATION before anything runs; CHUNK_FAILED, TIMEOUT, MERGE_FAILED, ... of the failure that
     *   ended it; ABORTED (an AbortError) when `options.signal` was aborted.
     */
    execute(spec: JobSpecInput, options?: JobExecutionOptions): Promise<void>;
}

interface LocalWorkerAdapterOptions {
    /** 'inherit' (default): the environment of this process (in a worker thread: of that thread), or only these names of it. */
    env?: 'inherit' | string[];
    /** SIGTERM -> wait -> SIGKILL. Milliseconds, default 5000. */
    killGraceMs?: number;
    /** Kept at each end of each stream: the first and the last so many bytes. Default 65,536. */
    keepOutputBytes?: number;
}
/**
 * Runs programs without a shell, in process groups of their own, natively: streams UTF-8-safe output, kills the whole
 * group, waits until it is gone. stdin is empty.
 */
declare class LocalWorkerAdapter implements WorkerAdapter {
    constructor(options?: LocalWorkerAdapterOptions);
    /**
     * Runs one program to its end.
     *
     * @throws FramewrightError SPAWN_FAILED when it can't be started, TIMEOUT and ABORTED after it is gone.
     */
    execute(job: WorkerJob): Promise<WorkerResult>;
}

/** Joins videos of the same encoding by ffmpeg's concat demuxer, without encoding again. */
declare class FfmpegStitcher implements VideoStitcher {
    #private;
    constructor(adapter?: WorkerAdapter, options?: {
        ffmpegPath?: string;
    });
    /**
     * Writes `output` from `inputs`, in their order: beside it first, brought to disk, then renamed.
     *
     * @throws FramewrightError MERGE_FAILED with the end of ffmpeg's stderr, ABORTED.
     */
    stitch(inputs: string[], output: string, options?: {
        signal?: AbortSignal;
    }): Promise<void>;
}
/** Joins files byte by byte, without an external tool: for formats that may be concatenated (MPEG-TS, raw streams, text). */
declare class ConcatStitcher implements VideoStitcher {
    constructor();
    /**
     * Writes `output` from `inputs`, in their order: beside it first, brought to disk, then renamed.
     *
     * @throws FramewrightError MERGE_FAILED that names the file, ABORTED.
     */
    stitch(inputs: string[], output: string, options?: {
        signal?: AbortSignal;
    }): Promise<void>;
}

/**
 * Cuts frames into chunks: contiguous, no gap, no overlap, no empty chunk, last one smaller: 300 frames / 4 -> 4 x 75.
 *
 * @throws FramewrightError VALIDATION with every problem and its field.
 */
declare function planChunks(options: PlanOptions): RenderJobChunk[];

/** The one class of errors, and how errors of the engine and of users become it. */

interface Issue {
    /** Where the problem is, for example `chunks[3].outputFile`. */
    path: string;
    message: string;
}
interface FramewrightErrorOptions {
    cause?: unknown;
    details?: Record<string, unknown>;
    issues?: Issue[];
}
/**
 * Every rejection. CONFLICT: the job changed meanwhile (stale version); DUPLICATE: the id or key exists. An executor that
 * rejects with an AbortError ends the job `cancelled`, asked for or not. `name` is 'AbortError' when aborted; `cause` is
 * the user's own error when one was thrown; `issues` lists every problem of a bad spec with its path.
 */
declare class FramewrightError extends Error {
    code: ErrorCode;
    details?: Record<string, unknown>;
    issues?: Issue[];
    constructor(code: ErrorCode, message: string, options?: FramewrightErrorOptions);
}

export { ConcatStitcher, FfmpegStitcher, FileJobRepository, FramewrightError, InMemoryJobRepository, JobExecutor, JobManager, LocalWorkerAdapter, MysqlJobRepository, PostgresJobRepository, SqliteJobRepository, openRepository, planChunks };
export type { ArtifactStorage, ChunkContext, ChunkFields, ChunkInput, ChunkLog, ChunkStatus, ErrorCode, EventBase, EventFilter, EventOf, Executor, FramewrightErrorOptions, Issue, JobErrorInfo, JobEvent, JobEventType, JobExecutionOptions, JobManagerOptions, JobMetadata, JobPriority, JobQuery, JobRepository, JobSpec, JobSpecInput, JobState, JobStatus, JobStatusInput, LocalWorkerAdapterOptions, LogRecord, PlanOptions, RenderFunction, RenderJobChunk, RetryPolicy, SpecFields, SubmitOptions, VideoStitcher, WorkerAdapter, WorkerJob, WorkerResult };
