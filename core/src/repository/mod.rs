//! Where jobs are kept. [`memory`] holds live jobs in this process; [`event_log`] numbers what happens to them.
//!
//! A manager works on [`memory::Cell`]s: with [`memory::MemoryRepository`] they are the store itself, with a store
//! behind JavaScript they are the manager's cache, and events are held back until the store has what they tell.

pub mod event_log;
mod frozen;
pub mod memory;

use std::sync::Arc;

/// Who wants to hear that something happened. Called with no lock of ours held but the job's own: must not call back.
pub trait Watcher: Send + Sync {
    /// There are new events in the log.
    fn events(&self);
    /// The job's state changed, or it is gone.
    fn changed(&self, id: &Arc<str>);
}
