//! What stitchers do with files, off the event loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use framewright_core::executor::merge;
use framewright_core::job::output_progress::ProgressReader;
use framewright_core::job::{Error, ErrorCode};
use framewright_core::manager::output_places;
use napi::bindgen_prelude::{Env, PromiseRaw, Result};
use napi_derive::napi;

use crate::error::thrown;

fn merge_failed(error: impl std::fmt::Display) -> napi::Error {
    thrown(Error::new(ErrorCode::MergeFailed, error.to_string()))
}

fn paths(inputs: Vec<String>) -> Vec<PathBuf> {
    inputs.into_iter().map(PathBuf::from).collect()
}

/// The text of a list for ffmpeg's concat demuxer.
#[napi(catch_unwind)]
pub fn concat_list(inputs: Vec<String>) -> Result<String> {
    merge::concat_list(&paths(inputs)).map_err(merge_failed)
}

/// Whether tools write many files by this name: they put a number in.
#[napi(catch_unwind)]
pub fn is_pattern(output: String) -> bool {
    framewright_core::manager::output_places::is_pattern(&output)
}

/// A name beside `output` with the same extension.
#[napi(catch_unwind)]
pub fn temporary_beside(output: String, tag: String) -> String {
    merge::temporary_beside(Path::new(&output), &tag).to_string_lossy().into_owned()
}

/// Brings a finished temporary file to disk and gives it its name; gives its size in bytes.
#[napi(catch_unwind, ts_return_type = "Promise<number>")]
pub fn publish_file(env: &Env, temporary: String, output: String) -> Result<PromiseRaw<'_, f64>> {
    env.spawn_future(async move {
        let published = tokio::task::spawn_blocking(move || merge::publish(Path::new(&temporary), Path::new(&output))).await;
        published.map_err(merge_failed)?.map(|bytes| bytes as f64).map_err(merge_failed)
    })
}

/// Rejects when a file would leave the job's folder, links followed.
#[napi(catch_unwind, ts_return_type = "Promise<void>")]
pub fn check_inside(env: &Env, file: String, folder: String) -> Result<PromiseRaw<'_, ()>> {
    env.spawn_future(async move {
        let checked = tokio::task::spawn_blocking(move || output_places::check_inside(Path::new(&file), Path::new(&folder))).await;
        let refused = |message: String| thrown(Error::new(ErrorCode::Validation, format!("outputFile {message}")));
        checked.map_err(|error| refused(error.to_string()))?.map_err(refused)
    })
}

/// A byte concatenation that is being made.
#[napi]
pub struct Concatenation {
    cancelled: Arc<AtomicBool>,
}

#[napi]
impl Concatenation {
    #[napi(constructor, catch_unwind)]
    #[allow(clippy::new_without_default, reason = "a JavaScript constructor")]
    pub fn new() -> Self {
        Self { cancelled: Arc::default() }
    }

    /// Writes the inputs one after the other; gives the size in bytes.
    #[napi(catch_unwind, ts_return_type = "Promise<number>")]
    pub fn run<'env>(&self, env: &'env Env, inputs: Vec<String>, output: String) -> Result<PromiseRaw<'env, f64>> {
        let cancelled = self.cancelled.clone();
        env.spawn_future(async move {
            let written = tokio::task::spawn_blocking(move || merge::concat_files(&paths(inputs), Path::new(&output), &cancelled)).await;
            written.map_err(merge_failed)?.map(|bytes| bytes as f64).map_err(merge_failed)
        })
    }

    /// Stops it; what was written is removed.
    #[napi(catch_unwind)]
    pub fn stop(&self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

/// Reads progress in the output of one chunk.
#[napi]
pub struct OutputProgress {
    reader: Option<ProgressReader>,
    start_frame: Option<u64>,
    frame_count: Option<u64>,
}

#[napi]
impl OutputProgress {
    #[napi(constructor, catch_unwind)]
    pub fn new(pattern: Option<String>, start_frame: Option<f64>, frame_count: Option<f64>, frame_step: Option<f64>) -> Self {
        let reader = ProgressReader::new(pattern.as_deref()).ok().map(|reader| reader.with_frame_step(frame_step.unwrap_or(1.0) as u64));
        Self { reader, start_frame: start_frame.map(|n| n as u64), frame_count: frame_count.map(|n| n as u64) }
    }

    /// The fraction that this piece of output tells, 0 to 1; -1: nothing new.
    #[napi(catch_unwind)]
    pub fn feed(&mut self, text: String) -> f64 {
        self.reader.as_mut().and_then(|reader| reader.feed(&text, self.start_frame, self.frame_count)).unwrap_or(-1.0)
    }
}
