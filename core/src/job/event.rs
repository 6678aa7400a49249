//! What happens to a job. The aggregate changes by these and by nothing else; users see them as `JobEvent`s.

use std::sync::Arc;

use super::error::ErrorInfo;

/// One change of a job, or news about it. Sizes matter: a run of 100,000 chunks makes two of these a chunk.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum JobEvent {
    /// The record is kept.
    Submitted,
    /// An owner has begun a run.
    Started {
        /// Identity of the manager that runs it.
        owner: Arc<str>,
        /// Which run of the job, from 1.
        attempt: u32,
    },
    /// An attempt of a chunk has begun.
    ChunkStarted {
        /// Position of the chunk in its job.
        index: u32,
        /// Attempts begun, this one included.
        attempt: u32,
    },
    /// A chunk is done.
    ChunkCompleted {
        /// Position of the chunk in its job.
        index: u32,
        /// The attempt that did it.
        attempt: u32,
        /// How long the attempt took, in milliseconds.
        duration_ms: f64,
    },
    /// An attempt of a chunk has failed.
    ChunkFailed {
        /// Position of the chunk in its job.
        index: u32,
        /// The attempt that failed.
        attempt: u32,
        /// Why.
        error: Box<ErrorInfo>,
        /// The delay before the next attempt in milliseconds; `None`: this was the last.
        retry_in_ms: Option<f64>,
    },
    /// An attempt was stopped (pause, cancel, shutdown): the chunk is to be done again, nothing failed.
    ChunkStopped {
        /// Position of the chunk in its job.
        index: u32,
        /// The attempt that was stopped.
        attempt: u32,
    },
    /// The owner died, or was lost, while an attempt was under way.
    ChunkCrashed {
        /// Position of the chunk in its job.
        index: u32,
        /// The attempt that nobody will hear of any more.
        attempt: u32,
        /// What happened.
        error: Box<ErrorInfo>,
        /// It happened too often: the chunk has failed.
        last: bool,
    },
    /// The output of a completed chunk is gone or changed: it is to be done again.
    ChunkReopened {
        /// Position of the chunk in its job.
        index: u32,
    },
    /// The chunks are being put together.
    MergeStarted,
    /// They are.
    MergeCompleted {
        /// Milliseconds.
        duration_ms: f64,
    },
    /// Merging failed.
    MergeFailed {
        /// Why.
        error: Box<ErrorInfo>,
        /// Whether it is tried again.
        will_retry: bool,
    },
    /// A pause was accepted; the work is being stopped.
    Pausing,
    /// Nothing runs any more.
    Paused,
    /// Goes on: pending again. `afresh`: attempts are counted anew (the job had failed).
    Resumed {
        /// Whether failed chunks get their full number of attempts again.
        afresh: bool,
    },
    /// A cancel was accepted; the work is being stopped.
    Cancelling,
    /// Nothing runs any more.
    Cancelled {
        /// The caller's words.
        reason: Option<Box<str>>,
    },
    /// The owner gave the job back (shutdown): pending for the next one.
    Released,
    /// All is done.
    Completed {
        /// From the start of the run, in milliseconds.
        duration_ms: f64,
    },
    /// Ended by a failure.
    Failed {
        /// Why.
        error: Box<ErrorInfo>,
    },
    /// Somebody else goes on with the job of an owner that is gone: pending again.
    Recovered {
        /// The owner before.
        previous: Option<Arc<str>>,
        /// Whether that one died; otherwise it had lost or given back the job.
        crashed: bool,
    },
    /// This manager is not the job's owner any more; told here, and never kept.
    LeaseLost {
        /// The former owner.
        owner: Arc<str>,
    },
    /// Fields beside the life of the job changed.
    Updated,
    /// The record is gone.
    Deleted,
    /// Something went wrong beside the job.
    Warning {
        /// For people.
        message: Box<str>,
        /// The error behind it.
        error: Option<Box<ErrorInfo>>,
    },
    /// How far the job is; not kept, the next one replaces it.
    Progress {
        /// 0 to 100.
        progress: f32,
        /// Chunks done.
        completed: u32,
        /// Chunks in all.
        total: u32,
    },
    /// How far a chunk is; not kept.
    ChunkProgress {
        /// The chunk's id.
        chunk_id: u64,
        /// 0 to 1.
        fraction: f32,
    },
}

impl JobEvent {
    /// Whether the event gets a number and is kept; progress is not.
    pub const fn is_kept(&self) -> bool {
        !matches!(
            self,
            JobEvent::Progress { .. }
                | JobEvent::ChunkProgress { .. }
                | JobEvent::ChunkStopped { .. }
                | JobEvent::ChunkReopened { .. }
                | JobEvent::Released
                | JobEvent::LeaseLost { .. }
        )
    }

    /// Whether the event only tells how far something is.
    pub const fn is_progress(&self) -> bool {
        matches!(self, JobEvent::Progress { .. } | JobEvent::ChunkProgress { .. })
    }

    /// Whether the event is progress that makes an earlier one of no interest.
    pub fn replaces(&self, old: &JobEvent) -> bool {
        match (self, old) {
            (JobEvent::Progress { .. }, JobEvent::Progress { .. }) => true,
            (JobEvent::ChunkProgress { chunk_id, .. }, JobEvent::ChunkProgress { chunk_id: other, .. }) => chunk_id == other,
            _ => false,
        }
    }

    /// The public type, for example `job.submitted`; `None` for what users do not see.
    pub const fn type_name(&self) -> Option<&'static str> {
        Some(match self {
            JobEvent::Submitted => "job.submitted",
            JobEvent::Started { .. } => "job.started",
            JobEvent::ChunkStarted { .. } => "chunk.started",
            JobEvent::ChunkCompleted { .. } => "chunk.completed",
            JobEvent::ChunkFailed { .. } | JobEvent::ChunkCrashed { .. } => "chunk.failed",
            JobEvent::MergeStarted => "merge.started",
            JobEvent::MergeCompleted { .. } => "merge.completed",
            JobEvent::MergeFailed { .. } => "merge.failed",
            JobEvent::Pausing => "job.pausing",
            JobEvent::Paused => "job.paused",
            JobEvent::Resumed { .. } => "job.resumed",
            JobEvent::Cancelling => "job.cancelling",
            JobEvent::Cancelled { .. } => "job.cancelled",
            JobEvent::Completed { .. } => "job.completed",
            JobEvent::Failed { .. } => "job.failed",
            JobEvent::Recovered { .. } => "job.recovered",
            JobEvent::LeaseLost { .. } => "job.lease_lost",
            JobEvent::Updated => "job.updated",
            JobEvent::Deleted => "job.deleted",
            JobEvent::Warning { .. } => "job.warning",
            JobEvent::Progress { .. } => "job.progress",
            JobEvent::ChunkProgress { .. } => "chunk.progress",
            JobEvent::ChunkStopped { .. } | JobEvent::ChunkReopened { .. } | JobEvent::Released => return None,
        })
    }
}
