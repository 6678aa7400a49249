//! What happened to the jobs of a store, numbered in commit order without a gap. The latest 100,000 are kept here.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Watcher;
use super::durable::{EventWrite, StoredEvent};
use crate::job::status::push_text;
use crate::job::{Error, ErrorCode, Issue, Job, JobEvent};

/// Entries of progress that are looked at for one that a new one replaces.
const LOOK_BACK: usize = 256;
/// Events that are kept in memory.
pub const KEPT: usize = 100_000;

/// An event on its way into the log.
pub struct Logged {
    /// Rises with every entry; readers go on from one. Gaps are where progress was replaced.
    place: u64,
    sequence: u64,
    at: f64,
    job: Arc<str>,
    content: Content,
    chunk_id: u64,
    progress: f32,
    completed: u32,
    total: u32,
}

enum Content {
    Own(JobEvent),
    /// Another manager's, as the store has it.
    Stored(Box<str>),
}

impl Logged {
    /// Whether it gets a number and is kept.
    pub fn is_kept(&self) -> bool {
        match &self.content {
            Content::Own(event) => event.is_kept(),
            Content::Stored(_) => true,
        }
    }

    /// The event of a job as it is now, not yet numbered. `None`: users do not see it.
    pub fn of(job: &Job, event: JobEvent, at: f64) -> Option<Logged> {
        event.type_name()?;
        let chunk_id = match &event {
            JobEvent::ChunkStarted { index, .. }
            | JobEvent::ChunkCompleted { index, .. }
            | JobEvent::ChunkFailed { index, .. }
            | JobEvent::ChunkCrashed { index, .. } => job.spec.chunk_id(*index),
            _ => 0,
        };
        let (progress, completed, total) = (job.progress(), job.completed_chunks(), job.rows.total());
        Some(Logged { place: 0, sequence: 0, at, job: job.id.clone(), content: Content::Own(event), chunk_id, progress, completed, total })
    }

    /// The event of a job that is not at hand (any more).
    pub fn of_id(id: Arc<str>, event: JobEvent, at: f64) -> Logged {
        Logged { place: 0, sequence: 0, at, job: id, content: Content::Own(event), chunk_id: 0, progress: 0.0, completed: 0, total: 0 }
    }

    /// What a durable store keeps of it.
    pub fn to_write(&self) -> EventWrite {
        let mut body = String::with_capacity(128);
        self.write_body(&mut body);
        if let Content::Own(JobEvent::ChunkCompleted { .. }) = self.content {
            // Those who read it elsewhere tell the progress that follows from it, too.
            let _ = write!(body, "{PROGRESS}[{},{},{}]", self.progress, self.completed, self.total);
        }
        EventWrite { body: body.into() }
    }
}

/// Where the progress begins in the stored body of a completed chunk.
const PROGRESS: &str = ",\"$progress\":";

/// The public JSON of an event that a store has kept.
pub fn stored_json(event: &StoredEvent, out: &mut String) {
    let body = event.body.split_once(PROGRESS).map_or(&*event.body, |(body, _)| body);
    let _ = write!(out, "{{\"sequence\":{},\"jobId\":", event.sequence);
    push_text(out, &event.job);
    let _ = write!(out, ",{body}}}");
}

#[derive(Default)]
struct Inner {
    entries: VecDeque<Logged>,
    /// Kept events among the entries.
    kept: usize,
    next_place: u64,
    /// Everything below this place was dropped.
    dropped: u64,
    /// Number of the latest kept event that was seen.
    sequence: u64,
    /// Own events that a durable store has numbered, and before which others' are still missing.
    ahead: BTreeMap<u64, Logged>,
}

impl Inner {
    fn push(&mut self, mut logged: Logged) {
        logged.place = self.next_place;
        self.next_place += 1;
        self.kept += usize::from(logged.is_kept());
        self.entries.push_back(logged);
        while self.kept > KEPT || self.entries.len() > 2 * KEPT {
            let Some(oldest) = self.entries.pop_front() else { return };
            self.kept -= usize::from(oldest.is_kept());
            self.dropped = oldest.place + 1;
        }
    }

    /// Adds an event with the number that its store has given to it.
    fn push_numbered(&mut self, sequence: u64, mut logged: Logged) {
        logged.sequence = sequence;
        self.sequence = sequence;
        self.push(logged);
    }

    fn push_ahead(&mut self) {
        while let Some(first) = self.ahead.first_entry()
            && *first.key() <= self.sequence + 1
        {
            let (sequence, logged) = first.remove_entry();
            if sequence > self.sequence {
                self.push_numbered(sequence, logged);
            }
        }
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.ahead.clear();
        self.kept = 0;
        self.dropped = self.next_place;
    }

    /// Progress is a state: what it replaces is taken out, so that it never fills the log.
    fn forget_older(&mut self, job: &Arc<str>, event: &JobEvent) {
        let recent = self.entries.iter().rev().take(LOOK_BACK).take_while(|entry| !entry.is_kept());
        let same = |entry: &Logged| entry.job == *job && matches!(&entry.content, Content::Own(old) if event.replaces(old));
        if let Some(back) = recent.into_iter().position(same) {
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
        self.push(Logged::of_id(id, event, at));
        self.wake();
    }

    /// Adds an event that the store does not have: it stands beside the latest one and takes no number of its own.
    pub fn append_aside(&self, id: Arc<str>, event: JobEvent, at: f64) {
        let mut inner = self.inner.lock();
        let mut logged = Logged::of_id(id, event, at);
        logged.sequence = inner.sequence;
        inner.push(logged);
        drop(inner);
        self.wake();
    }

    /// Adds an event; `job` is the job after it.
    pub fn append(&self, job: &Job, event: JobEvent, at: f64) {
        let watched = self.is_watched();
        let kept = event.is_kept();
        if !kept && !watched {
            return;
        }
        if !kept && event.type_name().is_some() {
            self.inner.lock().forget_older(&job.id, &event);
        }
        let Some(logged) = Logged::of(job, event, at) else { return };
        self.push(logged);
        if watched {
            self.wake();
        }
    }

    /// Adds an event that was held back, with the next number of this log.
    pub fn append_held(&self, logged: Logged) {
        self.push(logged);
        self.wake();
    }

    fn push(&self, mut logged: Logged) {
        let mut inner = self.inner.lock();
        if logged.is_kept() {
            inner.sequence += 1;
        }
        logged.sequence = inner.sequence;
        inner.push(logged);
    }

    /// Whether anybody reads.
    pub fn is_watched(&self) -> bool {
        self.watching.load(Ordering::Acquire) > 0
    }

    /// Adds events that a durable store has numbered from `first` on. False: others' events before them are missing; they
    /// wait for [`add_stored`](Self::add_stored).
    pub fn add_committed(&self, first: u64, events: Vec<Logged>) -> bool {
        let watched = self.is_watched();
        let mut inner = self.inner.lock();
        if !watched {
            let last = first + events.len() as u64 - 1;
            if last > inner.sequence {
                inner.clear();
                inner.sequence = last;
            }
            return true;
        }
        for (sequence, logged) in (first..).zip(events) {
            if sequence > inner.sequence {
                inner.ahead.insert(sequence, logged);
            }
        }
        inner.push_ahead();
        let complete = inner.ahead.is_empty();
        drop(inner);
        self.wake();
        complete
    }

    /// Adds events as a durable store has them, the next ones after [`latest`](Self::latest).
    pub fn add_stored(&self, events: Vec<StoredEvent>) {
        let mut inner = self.inner.lock();
        for event in events {
            if event.sequence <= inner.sequence {
                continue;
            }
            match inner.ahead.remove(&event.sequence) {
                Some(own) => inner.push_numbered(event.sequence, own),
                None => {
                    let (body, progress) = match event.body.split_once(PROGRESS) {
                        Some((body, progress)) => (body.into(), serde_json::from_str::<(f32, u32, u32)>(progress).ok()),
                        None => (event.body, None),
                    };
                    let logged = |content| Logged {
                        place: 0,
                        sequence: 0,
                        at: 0.0,
                        job: event.job.clone(),
                        content,
                        chunk_id: 0,
                        progress: 0.0,
                        completed: 0,
                        total: 0,
                    };
                    inner.push_numbered(event.sequence, logged(Content::Stored(body)));
                    if let Some((progress, completed, total)) = progress {
                        let mut entry = logged(Content::Own(JobEvent::Progress { progress, completed, total }));
                        entry.sequence = event.sequence;
                        entry.at = crate::repository::memory::now_ms();
                        inner.push(entry);
                    }
                }
            }
        }
        inner.push_ahead();
        drop(inner);
        self.wake();
    }

    /// What a durable store has up to this number happened before this log began; own events beyond it may be waiting.
    pub fn begin_at(&self, sequence: u64) {
        let mut inner = self.inner.lock();
        if inner.sequence == 0 {
            let first = inner.ahead.first_key_value().map_or(u64::MAX, |(first, _)| *first);
            inner.sequence = sequence.min(first - 1);
            inner.push_ahead();
        }
        drop(inner);
        self.wake();
    }

    /// Nobody reads, and the store is at this number: the events before it are not fetched.
    pub fn skip_to(&self, sequence: u64) {
        let mut inner = self.inner.lock();
        if sequence > inner.sequence && !self.is_watched() {
            inner.clear();
            inner.sequence = sequence;
        }
    }

    /// Number of the latest kept event that was seen here.
    pub fn latest(&self) -> u64 {
        self.inner.lock().sequence
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
        let oldest = inner.entries.iter().find(|entry| entry.is_kept()).map_or(inner.sequence + 1, |entry| entry.sequence);
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
            write_entry(entry, out);
            place = entry.place + 1;
        }
        out.push(']');
        Ok(place)
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

fn write_entry(entry: &Logged, out: &mut String) {
    entry.write_head(out);
    entry.write_body(out);
    out.push('}');
    if let Content::Own(JobEvent::ChunkCompleted { .. }) = entry.content {
        out.push(',');
        entry.write_head(out);
        let _ = write!(out, "\"type\":\"job.progress\",\"at\":{}", entry.at as u64);
        let _ = write!(out, ",\"progress\":{},\"completedChunks\":{},\"totalChunks\":{}}}", entry.progress, entry.completed, entry.total);
    }
}

impl Logged {
    fn write_head(&self, out: &mut String) {
        let _ = write!(out, "{{\"sequence\":{},\"jobId\":", self.sequence);
        push_text(out, &self.job);
        out.push(',');
    }

    /// The members beside `sequence` and `jobId`, without braces.
    fn write_body(&self, out: &mut String) {
        let event = match &self.content {
            Content::Own(event) => event,
            Content::Stored(body) => return out.push_str(body),
        };
        let Some(kind) = event.type_name() else { return };
        let _ = write!(out, "\"type\":\"{kind}\",\"at\":{}", self.at as u64);
        let chunk = self.chunk_id;
        let _ = match event {
            JobEvent::Started { owner, attempt } => write!(out, ",\"owner\":{},\"attempt\":{attempt}", json(owner)),
            JobEvent::ChunkStarted { attempt, .. } => write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt}"),
            JobEvent::ChunkCompleted { attempt, duration_ms, .. } => {
                write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt},\"durationMs\":{duration_ms}")
            }
            JobEvent::ChunkFailed { attempt, error, retry_in_ms, .. } => {
                let _ = write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt},\"error\":{},\"willRetry\":{}", json(error), retry_in_ms.is_some());
                match retry_in_ms {
                    Some(delay) => write!(out, ",\"retryInMs\":{delay}"),
                    None => Ok(()),
                }
            }
            JobEvent::ChunkCrashed { attempt, error, last, .. } => {
                write!(out, ",\"chunkId\":{chunk},\"attempt\":{attempt},\"error\":{},\"willRetry\":{}", json(error), !last)
            }
            JobEvent::Recovered { previous: Some(previous), .. } => write!(out, ",\"previousOwner\":{}", json(previous)),
            JobEvent::LeaseLost { owner } => write!(out, ",\"owner\":{}", json(owner)),
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
            JobEvent::Progress { progress, completed, total } => {
                write!(out, ",\"progress\":{progress},\"completedChunks\":{completed},\"totalChunks\":{total}")
            }
            JobEvent::ChunkProgress { chunk_id, fraction } => write!(out, ",\"chunkId\":{chunk_id},\"fraction\":{fraction}"),
            _ => Ok(()),
        };
    }
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
