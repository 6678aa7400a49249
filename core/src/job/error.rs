//! What can go wrong, as stable codes, and how a failure is kept with its job.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)+) => {
        /// The stable code of an error; users match on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum ErrorCode { $($(#[$doc])* #[serde(rename = $text)] $name,)+ }

        impl ErrorCode {
            /// Every code, in the order of the public documentation.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)+];

            /// The text that users see, for example `NOT_FOUND`.
            pub const fn as_str(self) -> &'static str {
                match self { $(ErrorCode::$name => $text,)+ }
            }
        }
    };
}

codes! {
    /// Bad input; nothing was changed.
    Validation = "VALIDATION",
    /// The job, chunk or log does not exist.
    NotFound = "NOT_FOUND",
    /// The call does not fit the job's state (only told with `strict`).
    InvalidTransition = "INVALID_TRANSITION",
    /// The job changed since the version that the write names.
    Conflict = "CONFLICT",
    /// The id or key exists.
    Duplicate = "DUPLICATE",
    /// A dependency cycle.
    Cycle = "CYCLE",
    /// A chunk's last attempt failed.
    ChunkFailed = "CHUNK_FAILED",
    /// A chunk ended well but its output is not there.
    OutputMissing = "OUTPUT_MISSING",
    /// The program could not be started.
    SpawnFailed = "SPAWN_FAILED",
    /// A time limit was reached.
    Timeout = "TIMEOUT",
    /// Nothing was heard of the work for too long.
    NoProgress = "NO_PROGRESS",
    /// The merge failed.
    MergeFailed = "MERGE_FAILED",
    /// A job that this one depends on did not complete.
    DependencyFailed = "DEPENDENCY_FAILED",
    /// The store does not answer.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// The store holds something that is not ours or is damaged.
    StoreCorrupt = "STORE_CORRUPT",
    /// The store has no room.
    StoreFull = "STORE_FULL",
    /// This manager is no longer the job's owner.
    LeaseLost = "LEASE_LOST",
    /// The queue does not answer.
    QueueUnavailable = "QUEUE_UNAVAILABLE",
    /// The artifact storage failed.
    StorageFailed = "STORAGE_FAILED",
    /// The manager is closed.
    Closed = "CLOSED",
    /// Stopped by a signal.
    Aborted = "ABORTED",
    /// A fault of framewright itself.
    Internal = "INTERNAL",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as it is kept with a job or chunk and told in events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorInfo {
    /// What kind of failure.
    pub code: ErrorCode,
    /// For people; contains the cause.
    pub message: String,
    /// The chunk's id, when one chunk is at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_id: Option<u64>,
    /// The attempt that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Exit status of the program; 128 + n for signal n.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Name of the signal that ended the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The end of the program's stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
}

impl ErrorInfo {
    /// A failure with a code and a message alone.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), chunk_id: None, attempt: None, exit_code: None, signal: None, stderr_tail: None }
    }
}

/// One problem of a bad spec or options object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Issue {
    /// Where, for example `chunks[3].outputFile`.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Issue {
    /// A problem at a place.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

/// A refused call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Error {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
    /// Every problem of bad input, with its place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issues: Vec<Issue>,
}

impl Error {
    /// An error with a code and a message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), issues: Vec::new() }
    }

    /// Bad input: all problems in one error. `what` names the thing, for example "job spec".
    pub fn invalid(what: &str, issues: Vec<Issue>) -> Self {
        let mut message = format!("Invalid {what}: ");
        const SHOWN: usize = 10;
        for (n, issue) in issues.iter().take(SHOWN).enumerate() {
            if n > 0 {
                message.push_str("; ");
            }
            if !issue.path.is_empty() {
                message.push_str(&issue.path);
                message.push(' ');
            }
            message.push_str(&issue.message);
        }
        if issues.len() > SHOWN {
            message.push_str(&format!("; and {} more", issues.len() - SHOWN));
        }
        Self { code: ErrorCode::Validation, message, issues }
    }

    /// No such job.
    pub fn not_found(id: &str) -> Self {
        Self::new(ErrorCode::NotFound, format!("There is no job \"{id}\""))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Bytes of stderr that an error keeps.
const STDERR_TAIL: usize = 4 * 1024;

impl ErrorInfo {
    /// A program that ended with something else than 0. `what` names it, for example "Chunk 3" or "Merge".
    pub fn of_exit(code: ErrorCode, what: &str, exit_code: i32, signal: Option<&str>, stderr: &str) -> Self {
        let tail = crate::job::error::tail(stderr, STDERR_TAIL);
        let how = match signal {
            Some(signal) => format!("{what} failed: ended by {signal}"),
            None => format!("{what} failed with exit code {exit_code}"),
        };
        let said = tail.trim();
        let mut error = Self::new(code, if said.is_empty() { how } else { format!("{how}: {said}") });
        error.exit_code = Some(exit_code);
        error.signal = signal.map(str::to_owned);
        error.stderr_tail = (!tail.is_empty()).then(|| tail.to_owned());
        error
    }
}

/// The end of a text of at most so many bytes, cut between characters.
pub fn tail(text: &str, most: usize) -> &str {
    let mut at = text.len().saturating_sub(most);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}
