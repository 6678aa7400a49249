//! What happened to the jobs of a store, numbered in commit order without a gap. The latest 100,000 are kept here.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Watcher;
use crate::job::status::push_text;
use crate::job::{Error, ErrorCode, Issue, Job, JobEvent};

/// Entries of progress that are looked at for one that a new one replaces.
const LOOK_BACK: usize = 256;
/// Events that are kept in memory.
pub const KEPT: usize = 100_000;

struct Logged {
    /// Rises with every entry; readers go on from one. Gaps are where progress was replaced.
    place: u64,
    sequence: u64,
    at: f64,
    job: Arc<str>,
    event: JobEvent,
    chunk_id: u64,
    progress: f32,
    completed: u32,
    total: u32,
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Logged>,
    /// Kept events among the entries.
    kept: usize,
    next_place: u64,
    /// Everything below this place was dropped.
    dropped: u64,
    sequence: u64,
}

impl Inner {
    fn push(&mut self, mut logged: Logged) {
        logged.place = self.next_place;
        self.next_place += 1;
        self.kept += usize::from(logged.event.is_kept());
        self.entries.push_back(logged);
        while self.kept > KEPT || self.entries.len() > 2 * KEPT {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.kept -= usize::from(oldest.event.is_kept());
            self.dropped = oldest.place + 1;
        }
    }

    /// Progress is a state: what it replaces is taken out, so that it never fills the log.
    fn forget_older(&mut self, job: &Arc<str>, event: &JobEvent) {
        let recent = self.entries.iter().rev().take(LOOK_BACK).take_while(|entry| !entry.event.is_kept());
        if let Some(back) = recent.into_iter().position(|entry| entry.job == *job && replaces(event, &entry.event)) {
            self.entries.remove(self.entries.len() - 1 - back);
        }
    }
}

/// The log of a store.
#[derive(Default)]
pub struct EventLog {
    inner: Mutex<Inner>,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    watching: AtomicUsize,
}

impl EventLog {
    /// Adds an event of a job that is not at hand (any more).
    pub fn append_of(&self, id: Arc<str>, event: JobEvent, at: f64) {
        let mut inner = self.inner.lock();
        inner.sequence += 1;
        let sequence = inner.sequence;
        inner.push(Logged { place: 0, sequence, at, job: id, event, chunk_id: 0, progress: 0.0, completed: 0, total: 0 });
        drop(inner);
        self.wake();
    }

    /// Adds an event; `job` is the job after it.
    pub fn append(&self, job: &Job, event: JobEvent, at: f64) {
        if event.type_name().is_none() {
            return;
        }
        let watched = self.watching.load(Ordering::Acquire) > 0;
        let kept = event.is_kept();
        if !kept && !watched {
            return;
        }
        let chunk_id = match &event {
            JobEvent::ChunkStarted { index, .. } | JobEvent::ChunkCompleted { index, .. } | JobEvent::ChunkFailed { index, .. } => job.spec.chunk_id(*index),
            _ => 0,
        };
        let mut inner = self.inner.lock();
        if kept {
            inner.sequence += 1;
        } else {
            inner.forget_older(&job.id, &event);
        }
        let sequence = inner.sequence;
        let (progress, completed, total) = (job.progress(), job.completed_chunks(), job.rows.total());
        inner.push(Logged { place: 0, sequence, at, job: job.id.clone(), event, chunk_id, progress, completed, total });
        drop(inner);
        if watched {
            self.wake();
        }
    }

    fn wake(&self) {
        self.watchers.lock().retain(|watcher| match watcher.upgrade() {
            Some(watcher) => {
                watcher.events();
                true
            }
            None => {
                self.watching.fetch_sub(1, Ordering::AcqRel);
                false
            }
        });
    }

    /// Tells `watcher` of new events from now on, once for many.
    pub fn watch(&self, watcher: Weak<dyn Watcher>) {
        self.watchers.lock().push(watcher);
        self.watching.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends a `watch`.
    pub fn unwatch(&self, watcher: &Weak<dyn Watcher>) {
        let mut watchers = self.watchers.lock();
        if let Some(at) = watchers.iter().position(|known| known.ptr_eq(watcher)) {
            watchers.swap_remove(at);
            self.watching.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The place after the latest event.
    pub fn end(&self) -> u64 {
        self.inner.lock().next_place
    }

    /// The place of the first kept event whose number is `sequence` or more; 0: of the oldest.
    pub fn place_of(&self, sequence: u64) -> Result<u64, Error> {
        let inner = self.inner.lock();
        let oldest = inner.entries.iter().find(|entry| entry.event.is_kept()).map_or(inner.sequence + 1, |entry| entry.sequence);
        if sequence > 0 && sequence < oldest {
            let message = format!("must be 0 or at least {oldest}: older events are not kept in memory");
            return Err(Error::invalid("event filter", vec![Issue::new("fromSequence", message)]));
        }
        let at = inner.entries.partition_point(|entry| entry.sequence < sequence);
        Ok(inner.entries.get(at).map_or(inner.next_place, |entry| entry.place))
    }

    /// Writes up to `most` events from a place on as a JSON array; gives the place after them. Progress follows each
    /// completed chunk. An error when events from there on are no longer kept.
    pub fn read(&self, from: u64, most: usize, out: &mut String) -> Result<u64, Error> {
        let inner = self.inner.lock();
        if from < inner.dropped {
            return Err(Error::new(ErrorCode::Validation, "Events are no longer kept in memory: the reader was too slow"));
        }
        out.push('[');
        let mut place = from;
        let first = inner.entries.partition_point(|entry| entry.place < from);
        for (n, entry) in inner.entries.iter().skip(first).take(most).enumerate() {
            if n > 0 {
                out.push(',');
            }
            write(entry, out);
            place = entry.place + 1;
        }
        out.push(']');
        Ok(place)
    }
}

fn replaces(new: &JobEvent, old: &JobEvent) -> bool {
    match (new, old) {
        (JobEvent::Progress { .. }, JobEvent::Progress { .. }) => true,
        (JobEvent::ChunkProgress { chunk_id, .. }, JobEvent::ChunkProgress { chunk_id: other, .. }) => chunk_id == other,
        _ => false,
    }
}

fn head(entry: &Logged, kind: &str, out: &mut String) {
    let _ = write!(out, "{{\"type\":\"{kind}\",\"sequence\":{},\"jobId\":", entry.sequence);
    push_text(out, &entry.job);
    let _ = write!(out, ",\"at\":{}", entry.at as u64);
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

fn write(entry: &Logged, out: &mut String) {
    let Some(kind) = entry.event.type_name() else { return };
    head(entry, kind, out);
    let chunk = entry.chunk_id;
    let _ = match &entry.event {
        JobEvent::Started { owner, attempt } => write!(out, ",\"owner\":{},\"attempt\":{attempt}", json(owner)),
        JobEvent::ChunkStarted { attempt, .. } => write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt}"),
        JobEvent::ChunkCompleted { attempt, duration_ms, .. } => {
            let _ = write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt},\"durationMs\":{duration_ms}}},");
            head(entry, "job.progress", out);
            write!(out, ",\"progress\":{},\"completedChunks\":{},\"totalChunks\":{}", entry.progress, entry.completed, entry.total)
        }
        JobEvent::ChunkFailed { attempt, error, retry_in_ms, .. } => {
            let _ = write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt},\"error\":{},\"willRetry\":{}", json(error), retry_in_ms.is_some());
            match retry_in_ms {
                Some(delay) => write!(out, ",\"retryInMs\":{delay}"),
                None => Ok(()),
            }
        }
        JobEvent::MergeCompleted { duration_ms } | JobEvent::Completed { duration_ms } => write!(out, ",\"durationMs\":{duration_ms}"),
        JobEvent::MergeFailed { error, will_retry } => write!(out, ",\"error\":{},\"willRetry\":{will_retry}", json(error)),
        JobEvent::Cancelled { reason: Some(reason) } => write!(out, ",\"reason\":{}", json(reason)),
        JobEvent::Failed { error } => write!(out, ",\"error\":{}", json(error)),
        JobEvent::Warning { message, error } => {
            let _ = write!(out, ",\"message\":{}", json(message));
            match error {
                Some(error) => write!(out, ",\"error\":{}", json(error)),
                None => Ok(()),
            }
        }
        JobEvent::Progress { progress, completed, total } => write!(out, ",\"progress\":{progress},\"completedChunks\":{completed},\"totalChunks\":{total}"),
        JobEvent::ChunkProgress { chunk_id, fraction } => write!(out, ",\"chunkId\":{chunk_id},\"fraction\":{fraction}"),
        _ => Ok(()),
    };
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::Rules;
    use crate::job::{Options, Spec};

    fn job() -> Job {
        let spec = Spec::parse(r#"{"chunks":[{"id":4},{"id":9}]}"#, Rules { needs_command: false }, &Options::default()).unwrap();
        Job::new("j".into(), Arc::new(spec), Options::shared_default(), 0.0)
    }

    fn read(log: &EventLog, from: u64) -> Vec<(String, u64)> {
        let mut out = String::new();
        log.read(from, usize::MAX, &mut out).unwrap();
        let events: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
        events.iter().map(|event| (event["type"].as_str().unwrap().to_owned(), event["sequence"].as_u64().unwrap())).collect()
    }

    #[test]
    fn kept_events_are_numbered_without_a_gap_and_progress_follows_its_chunk() {
        let log = EventLog::default();
        let job = job();
        log.append(&job, JobEvent::Submitted, 1.0);
        log.append(&job, JobEvent::ChunkCompleted { index: 1, attempt: 1, duration_ms: 2.0 }, 1.0);
        log.append(&job, JobEvent::Paused, 1.0);
        let events = read(&log, 0);
        let expected = [("job.submitted", 1), ("chunk.completed", 2), ("job.progress", 2), ("job.paused", 3)];
        assert_eq!(events, expected.map(|(kind, sequence)| (kind.to_owned(), sequence)));
        assert_eq!(log.place_of(2).unwrap(), 1);
        assert_eq!(read(&log, log.place_of(3).unwrap()).len(), 1);
    }

    #[test]
    fn the_oldest_go_first_and_asking_for_them_is_refused() {
        let log = EventLog::default();
        let job = job();
        for _ in 0..KEPT + 5 {
            log.append(&job, JobEvent::Updated, 1.0);
        }
        assert_eq!(log.place_of(0).unwrap(), 5);
        assert_eq!(log.place_of(5).unwrap_err().code, ErrorCode::Validation);
        assert_eq!(log.place_of(6).unwrap(), 5);
        assert!(log.read(4, 1, &mut String::new()).is_err());
    }
}
