//! How chunks are run. [`schedule`] says which chunk is next and is pure; [`process`] runs one program and stops it for
//! certain; [`merge`] puts finished chunks together.

pub mod merge;
pub mod process;
pub mod schedule;
