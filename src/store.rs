//! The store behind `InMemoryJobRepository`.

use std::sync::Arc;

use framewright_core::job::status::{self, Live};
use framewright_core::job::{ChunkState, Job, JobState};
use framewright_core::repository::memory::MemoryRepository;
use napi::bindgen_prelude::Result;
use napi_derive::napi;

use crate::error::thrown;
use crate::spec::LongLists;

/// Jobs in memory, outside of the JavaScript heap.
#[napi]
pub struct MemoryStore {
    pub(crate) inner: Arc<MemoryRepository>,
}

/// A page of a listing.
#[napi(object)]
pub struct JobPage {
    /// JSON array of statuses.
    pub jobs: String,
    /// Where the next page begins; -1: there is none.
    pub next: f64,
}

#[napi]
impl MemoryStore {
    #[napi(constructor, catch_unwind)]
    #[allow(clippy::new_without_default, reason = "a JavaScript constructor")]
    pub fn new() -> Self {
        Self { inner: MemoryRepository::new(false) }
    }

    /// Keeps a status given as JSON; gives its version.
    #[napi(catch_unwind)]
    pub fn save(&self, status: String) -> Result<f64> {
        self.inner.save(&status).map(|version| version as f64).map_err(thrown)
    }

    /// The status as JSON.
    #[napi(catch_unwind)]
    pub fn get(&self, id: String) -> Option<String> {
        self.inner.status(&id, |_| Live::default())
    }

    /// The lists that a status leaves out because they are long.
    #[napi(catch_unwind)]
    pub fn long(&self, id: String) -> Option<LongLists> {
        long(&self.inner, &id)
    }

    /// Jobs in order of arrival.
    #[napi(catch_unwind)]
    pub fn list(&self, states: Vec<String>, from: f64, most: u32) -> JobPage {
        list(&self.inner, &states, from, most, |_| Live::default())
    }

    /// Removes a job.
    #[napi(catch_unwind)]
    pub fn delete(&self, id: String) {
        self.inner.delete(&id);
    }
}

/// What is long in a job.
pub fn long(repository: &MemoryRepository, id: &str) -> Option<LongLists> {
    let cell = repository.cell(id)?;
    let spec = cell.lock().job().ok()?.spec.clone();
    Some(LongLists::new(cell, spec))
}

/// A page of a listing.
pub fn list(repository: &MemoryRepository, states: &[String], from: f64, most: u32, live: impl Fn(&framewright_core::job::Job) -> Live) -> JobPage {
    let states: Vec<JobState> = states.iter().filter_map(|state| JobState::parse(state)).collect();
    let page = repository.list(&states, from as u64, most as usize, live);
    JobPage { jobs: page.jobs, next: page.next.map_or(-1.0, |next| next as f64) }
}

/// A page of chunks.
#[napi(object)]
pub struct ChunkPage {
    /// JSON array of `ChunkStatus`.
    pub chunks: String,
    /// How many were passed over by `skip`.
    pub skipped: u32,
    /// Position where the next page begins; -1: there is none.
    pub next: f64,
}

/// A page of chunks looks at no more of them, and ends after so many bytes: what asks must not be held up for long.
const CHUNKS_LOOKED_AT: u32 = 50_000;
const CHUNK_BYTES: usize = 256 * 1024;

impl ChunkPage {
    /// Chunks of a job from a position on, those in `state` if it is given, without the first `skip` of them.
    pub fn of(job: &Job, state: Option<ChunkState>, from: u32, skip: f64, most: u32) -> ChunkPage {
        let total = job.rows.total();
        let end = total.min(from.saturating_add(CHUNKS_LOOKED_AT));
        let (mut chunks, mut next, mut count, mut skipped) = (String::from("["), from, 0, 0);
        while next < end && count < most && chunks.len() < CHUNK_BYTES {
            let index = next;
            next += 1;
            if state.is_some_and(|state| job.rows.get(index).state != state) {
                continue;
            }
            if f64::from(skipped) < skip {
                skipped += 1;
                continue;
            }
            if count > 0 {
                chunks.push(',');
            }
            count += 1;
            status::write_chunk(job, index, &mut chunks);
        }
        chunks.push(']');
        ChunkPage { chunks, skipped, next: if next < total { f64::from(next) } else { -1.0 } }
    }
}
