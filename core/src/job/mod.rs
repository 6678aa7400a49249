//! What a job is: plain synchronous rules. Time comes in as an argument, nothing here waits, reads or writes.
//!
//! [`Job`] is the aggregate. It changes only by [`JobEvent`]s, which [`Job::apply`] checks against the one table in
//! [`state`]; everything else (managers, stores, drivers) decides events and hands them to it.

mod aggregate;
pub mod command;
pub mod error;
pub mod event;
mod frames;
pub mod options;
pub mod output_progress;
pub mod parts;
pub mod placeholder;
pub mod plan;
pub mod progress;
pub mod record;
pub mod retry;
pub mod rows;
mod scan;
pub mod spec;
pub mod state;
pub mod status;

pub use aggregate::{Extras, Job, Recovery};
pub use error::{Error, ErrorCode, ErrorInfo, Issue};
pub use event::JobEvent;
pub use options::Options;
pub use spec::Spec;
pub use state::{ChunkState, JobState};
