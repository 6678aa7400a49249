//! The states of jobs and chunks, and the one table of what each control call does in each state.

use serde::{Deserialize, Serialize};

/// Where a job stands. Exactly these are public; what else is true of a job is a field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Accepted, waits to run. Entered by submit and resume; left by start, pause, cancel or failure.
    Pending,
    /// Its executor is at work. Left by the end of the work or by an accepted request.
    Running,
    /// Stopped on request; resume makes it pending again.
    Paused,
    /// All chunks done and merged. Final.
    Completed,
    /// Ended by a failure. Resume makes it pending again.
    Failed,
    /// Ended on request. Final.
    Cancelled,
}

impl JobState {
    /// All states, in the order of their numbers.
    pub const ALL: [JobState; 6] = [JobState::Pending, JobState::Running, JobState::Paused, JobState::Completed, JobState::Failed, JobState::Cancelled];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Pending => "pending",
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Completed, failed or cancelled.
    pub const fn is_terminal(self) -> bool {
        matches!(self, JobState::Completed | JobState::Failed | JobState::Cancelled)
    }

    /// Whether the life of a job may lead from here to `next` in one step.
    pub const fn may_become(self, next: JobState) -> bool {
        use JobState::{Cancelled, Completed, Failed, Paused, Pending, Running};
        matches!(
            (self, next),
            (Pending, Running | Paused | Failed | Cancelled)
                | (Running, Pending | Paused | Completed | Failed | Cancelled)
                | (Paused, Pending | Cancelled)
                | (Failed, Pending)
        )
    }
}

/// What a user asks of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// `pauseJob`
    Pause,
    /// `resumeJob`
    Resume,
    /// `cancelJob`
    Cancel,
    /// `deleteJob`
    Delete,
}

impl Control {
    /// The public method's name.
    pub const fn method(self) -> &'static str {
        match self {
            Control::Pause => "pauseJob",
            Control::Resume => "resumeJob",
            Control::Cancel => "cancelJob",
            Control::Delete => "deleteJob",
        }
    }
}

/// What a control call does in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Change the record now.
    Change,
    /// Ask the run to stop; the change follows once nothing runs any more.
    Stop,
    /// It is so already; resolves, also with `strict`.
    AlreadyDone,
    /// Does not apply; resolves and changes nothing, or is refused with `strict`.
    Nothing,
}

/// The table of the public documentation, cell by cell.
pub const fn answer(state: JobState, control: Control) -> Answer {
    use JobState::{Cancelled, Completed, Failed, Paused, Pending, Running};
    match (control, state) {
        (Control::Pause, Pending) => Answer::Change,
        (Control::Pause, Running) => Answer::Stop,
        (Control::Pause, Paused) => Answer::AlreadyDone,
        (Control::Pause, Completed | Failed | Cancelled) => Answer::Nothing,
        (Control::Resume, Paused | Failed) => Answer::Change,
        (Control::Resume, Pending | Running | Completed | Cancelled) => Answer::Nothing,
        (Control::Cancel, Pending | Paused) => Answer::Change,
        (Control::Cancel, Running) => Answer::Stop,
        (Control::Cancel, Cancelled) => Answer::AlreadyDone,
        (Control::Cancel, Completed | Failed) => Answer::Nothing,
        (Control::Delete, Running) => Answer::Stop,
        (Control::Delete, Pending | Paused | Completed | Failed | Cancelled) => Answer::Change,
    }
}

/// Where a chunk stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ChunkState {
    /// To be rendered, or to be rendered again.
    #[default]
    Pending,
    /// An attempt is under way.
    Running,
    /// Done.
    Completed,
    /// Its last attempt failed.
    Failed,
}

impl ChunkState {
    /// All states, in the order of their numbers.
    pub const ALL: [ChunkState; 4] = [ChunkState::Pending, ChunkState::Running, ChunkState::Completed, ChunkState::Failed];

    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            ChunkState::Pending => "pending",
            ChunkState::Running => "running",
            ChunkState::Completed => "completed",
            ChunkState::Failed => "failed",
        }
    }
}

/// A request that is on its way to the job's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Stop and keep.
    Pause,
    /// Stop for good.
    Cancel,
}

/// Why a pending job does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WaitingFor {
    /// The manager runs as many jobs as it may.
    Slot,
    /// Jobs that it depends on are not completed.
    Dependencies,
    /// Its time has not come.
    Schedule,
    /// Held until `startJob`.
    Hold,
    /// Needs a callback or object that only `resumeJob` can give.
    Executor,
}

impl WaitingFor {
    /// The public name.
    pub const fn as_str(self) -> &'static str {
        match self {
            WaitingFor::Slot => "slot",
            WaitingFor::Dependencies => "dependencies",
            WaitingFor::Schedule => "schedule",
            WaitingFor::Hold => "hold",
            WaitingFor::Executor => "executor",
        }
    }
}
