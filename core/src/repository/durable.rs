//! The contract of repositories that outlive the process: what SQLite, PostgreSQL, MySQL and the file journal implement.
//!
//! A store keeps texts that it need not understand (the head of a job, its spec, its chunks, its events) and a few
//! columns that it does: version, state, type, owner. Every write names what it expects to find and is refused otherwise;
//! that one rule stands for locks. Managers write in groups, one transaction each.
//!
//! All times that decide about leases are the store's own clock. Implementations are driven by the runtime of
//! [`super::runtime`], a thread of their own: they may do short blocking work, and must bound every wait (30 s).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::job::{Error, ErrorCode, JobState};

/// What a write expects of the stored job.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    /// That there is none.
    Absent,
    /// That it exists, whatever its version and holder, and however damaged its record is.
    Present,
    /// That it has this version, and this holder.
    At {
        /// The version that the writer has seen.
        version: u64,
        /// Who must own it.
        holder: Holder,
    },
}

/// Who must own a job for a write to be accepted.
#[derive(Debug, Clone, PartialEq)]
pub enum Holder {
    /// It does not matter.
    Anyone,
    /// Nobody: it has no owner, or was released.
    Nobody,
    /// Exactly this owner.
    Is(Arc<str>),
}

/// What a write does to the ownership of its job.
#[derive(Debug, Clone, PartialEq)]
pub enum Ownership {
    /// Nothing.
    Keep,
    /// The job belongs to this owner from now on.
    Take(Arc<str>),
    /// The owner gives it back for the next one that recovers jobs: no owner, `released`.
    Release,
    /// Nobody owns it, and nobody is to go on with it by itself.
    Clear,
}

/// One change of one job.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The job.
    pub id: Arc<str>,
    /// What must be true for it.
    pub expect: Expect,
    /// What is done.
    pub action: Action,
}

/// What a write does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Creates or changes the job.
    Put(Box<Put>),
    /// Removes it with all that belongs to it (chunks, logs, requests, events); only `event` stays in the log.
    Delete {
        /// The event that tells of it.
        event: EventWrite,
    },
}

/// The new state of a job. Texts that are `None` stay as they are; of a job that is created none is.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// The version after it, above the one expected.
    pub version: u64,
    /// Where the job stands.
    pub state: JobState,
    /// `type` of the job; fixed when it is created.
    pub kind: Option<Arc<str>>,
    /// What happens to the ownership.
    pub ownership: Ownership,
    /// Pending, and not to be claimed by anybody (waits for what only `resumeJob` can give).
    pub hold: bool,
    /// Counters and times as JSON, small.
    pub head: String,
    /// The spec as JSON; may be tens of megabytes.
    pub spec: Option<String>,
    /// The options as JSON.
    pub options: Option<String>,
    /// What is rare as JSON (failure, result, meta, public fields); may be large.
    pub extras: Option<String>,
    /// Remove all chunk rows before writing `chunks` (the spec was replaced).
    pub reset_chunks: bool,
    /// Rows that changed, at most one per position.
    pub chunks: Vec<ChunkWrite>,
    /// Whole outputs of ended attempts.
    pub logs: Vec<LogWrite>,
    /// What happened, in order.
    pub events: Vec<EventWrite>,
    /// Requests about the job are answered: remove them.
    pub clear_requests: bool,
}

/// The row of one chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkWrite {
    /// Position in the spec.
    pub index: u32,
    /// JSON.
    pub body: String,
}

/// Which output of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LogStream {
    /// stdout
    Stdout = 0,
    /// stderr
    Stderr = 1,
}

/// One stream of one attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct LogWrite {
    /// Position of the chunk.
    pub index: u32,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Which stream.
    pub stream: LogStream,
    /// What it said, at most 16 MiB; may hold NUL characters.
    pub text: Arc<str>,
}

/// One event to be numbered and kept.
#[derive(Debug, Clone, PartialEq)]
pub struct EventWrite {
    /// The members of its JSON object without braces, `jobId` and `sequence`: `"type":"job.paused","at":17`.
    pub body: Box<str>,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Committed.
    Accepted {
        /// Number of its first event; the others follow without a gap. 0 when it has none.
        first: u64,
        /// The job's place in the order of arrival.
        place: u64,
    },
    /// [`Expect::Absent`], and there is such a job.
    Duplicate,
    /// There is no such job.
    Gone,
    /// The job has another version or owner than expected.
    Stale {
        /// Its version.
        version: u64,
        /// Its owner.
        owner: Option<Arc<str>>,
    },
}

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The job's id.
    pub id: Arc<str>,
    /// Its place in the order of arrival, from 1.
    pub place: u64,
    /// Its version.
    pub version: u64,
    /// Where it stands.
    pub state: JobState,
    /// Its `type`.
    pub kind: Option<Arc<str>>,
    /// Its owner.
    pub owner: Option<Arc<str>>,
    /// Given back by its last owner.
    pub released: bool,
    /// Not to be claimed.
    pub hold: bool,
    /// When the owner last renewed, by the store's clock, in milliseconds since the epoch.
    pub renewed_at: Option<f64>,
    /// As written.
    pub head: String,
    /// As written.
    pub spec: String,
    /// As written.
    pub options: String,
    /// As written.
    pub extras: String,
    /// Rows that were written, by position.
    pub chunks: Vec<(u32, String)>,
    /// Requests that nobody has answered, oldest first.
    pub requests: Vec<String>,
}

/// A page of jobs.
#[derive(Debug, Default)]
pub struct Listing {
    /// In order of arrival.
    pub jobs: Vec<Stored>,
    /// Ids whose record is damaged, with what is wrong.
    pub damaged: Vec<(Arc<str>, String)>,
    /// Whether there are more after the last of these (or of the damaged ones).
    pub next: Option<u64>,
}

/// A manager as others on the store know it.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnerRow {
    /// Random, made when it starts.
    pub id: Arc<str>,
    /// Where it runs: host, process, start time; JSON that the manager reads.
    pub place: String,
    /// Whether its lease is over, by the store's clock.
    pub expired: bool,
}

/// What is to be claimed.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    /// Who claims.
    pub owner: Arc<str>,
    /// Types besides none; `None`: any type.
    pub kinds: Option<Vec<Arc<str>>>,
    /// At most so many.
    pub most: usize,
    /// Owners that are known to be dead although their lease is not over.
    pub dead: Vec<Arc<str>>,
    /// Also pending jobs that never had an owner.
    pub unowned: bool,
    /// Only this job.
    pub only: Option<Arc<str>>,
}

/// A job that was claimed.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The job.
    pub id: Arc<str>,
    /// Who had it.
    pub previous: Option<Arc<str>>,
    /// It had been given back, nobody died.
    pub released: bool,
}

/// A kept event.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvent {
    /// Its number.
    pub sequence: u64,
    /// Its job.
    pub job: Arc<str>,
    /// As written.
    pub body: Box<str>,
}

/// How far the store is; both only grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mark {
    /// Number of the latest event.
    pub sequence: u64,
    /// How many requests were ever made.
    pub requests: u64,
}

/// Keeps jobs beyond the life of the process.
///
/// # Errors
///
/// STORE_UNAVAILABLE (away, refused, silent for 30 s, read-only, closed), STORE_FULL, STORE_CORRUPT. After an error of
/// [`commit`](Self::commit) the group may have been committed or not; the manager finds out by writing it again.
#[async_trait]
pub trait DurableRepository: Send + Sync + 'static {
    /// Judges each write by itself, in order (a later one of the same group sees the earlier ones), and commits all that
    /// are accepted in one transaction. Durable when it returns. Events are numbered in commit order over all processes.
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error>;

    /// A job; STORE_CORRUPT when its record is damaged.
    async fn load(&self, id: &str) -> Result<Option<Stored>, Error>;

    /// Several jobs at once, in any order; those that are not there, or are too much for one answer, are left out.
    async fn load_some(&self, ids: &[Arc<str>]) -> Result<Listing, Error> {
        let mut listing = Listing::default();
        for id in ids {
            match self.load(id).await {
                Ok(stored) => listing.jobs.extend(stored),
                Err(error) if error.code == ErrorCode::StoreCorrupt => listing.damaged.push((id.clone(), error.message)),
                Err(error) => return Err(error),
            }
        }
        Ok(listing)
    }

    /// Jobs in `states` (all, when empty) whose place is above `after`. At most `most`, fewer when they are large.
    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error>;

    /// Makes an owner known, or known again, its lease ending after `lease` from now.
    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error>;

    /// Puts the end of a lease off to `lease` from now; false: the owner is not known (any more).
    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error>;

    /// Forgets an owner. Jobs that it still owns are orphans from now on.
    async fn retire(&self, owner: &str) -> Result<(), Error>;

    /// All known owners.
    async fn owners(&self) -> Result<Vec<OwnerRow>, Error>;

    /// Takes over jobs that are pending or running, not held, of the right type and orphaned: released, or of an owner
    /// that is not known, whose lease is over, or that is in `dead`; oldest first. Each job goes to exactly one claimer.
    /// Version and everything else of the job stay as they are.
    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error>;

    /// Leaves a request (JSON) for the owner of a job; false: there is no such job.
    async fn request(&self, id: &str, body: &str) -> Result<bool, Error>;

    /// Pending and running jobs of an owner, oldest first.
    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error>;

    /// Open requests about jobs of an owner, oldest first.
    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error>;

    /// Kept events from a number on, in order.
    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error>;

    /// Number of the oldest event that is kept; one more than the latest when there is none.
    async fn oldest_event(&self) -> Result<u64, Error>;

    /// How far the store is.
    async fn mark(&self) -> Result<Mark, Error>;

    /// Resolves when the store may have changed by somebody else's hand (this process or another), or after `limit`: with how
    /// far the store is, where that was learned on the way.
    async fn changed(&self, limit: Duration) -> Option<Mark>;

    /// What a stream of an attempt said; `None`: nothing is kept of it.
    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error>;

    /// Ends all connections. Further calls are STORE_UNAVAILABLE.
    async fn close(&self);
}
