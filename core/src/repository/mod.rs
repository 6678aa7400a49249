//! Where jobs are kept. [`memory`] holds live jobs in this process; [`event_log`] numbers what happens to them.
//!
//! A manager works on [`memory::Cell`]s: with [`memory::MemoryRepository`] they are the store itself, with any other
//! store they are the manager's cache, and events are held back until the store has what they tell.
//!
//! [`durable`] is the contract of stores that outlive the process: `sqlite`, [`file`], `postgres` and `mysql` (what
//! those two share is in `sql`); `simulated` is the one that tests break. [`public`] is what users do with them by hand,
//! [`runtime`] the thread that drives them, [`lazy`] opens one at its first call. `logs` are the whole outputs of attempts.

pub mod durable;
pub mod event_log;
pub mod file;
mod frozen;
pub mod lazy;
mod logs;
pub mod memory;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod public;
pub mod runtime;
#[cfg(feature = "simulation")]
pub mod simulated;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use std::sync::Arc;

/// Who wants to hear that something happened. Called with no lock of ours held but the job's own: must not call back.
pub trait Watcher: Send + Sync {
    /// There are new events in the log.
    fn events(&self);
    /// The job's state changed, or it is gone.
    fn changed(&self, id: &Arc<str>);
}
