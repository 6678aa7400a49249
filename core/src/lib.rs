//! framewright-core: the engine behind the npm package `framewright`, usable from Rust alone.
//!
//! - [`job`]: what a job is. Pure rules without clock, I/O or threads: the spec, its frame ranges, the one table of
//!   transitions, the aggregate [`job::Job`] that changes only by events, progress, errors.
//! - [`repository`]: where jobs are kept, and the numbered log of their events: in memory, or by the contract
//!   [`repository::durable`] in SQLite, in files, in PostgreSQL and MySQL.
//! - [`executor`]: how chunks are run: which chunk next (pure), processes, progress in their output, merging.
//! - [`manager`]: the life of jobs: submit, own, control, and the two ways of driving a run (from JavaScript by numbers,
//!   or natively without an event loop). On durable repositories also: group commit, leases, recovery, and control of
//!   jobs that others own.
//!
//! Arrows go one way: `manager` uses `executor` and `repository`, and these use `job`, which uses nothing of ours.

pub mod executor;
pub mod job;
pub mod manager;
mod planted;
pub mod repository;
