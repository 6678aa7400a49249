//! Jobs in memory: live cells found by id, indexed by state and order of arrival; what is at rest is compressed by a
//! thread of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as MapEntry;
use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Watcher;
use super::durable::LogWrite;
use super::event_log::{EventLog, Logged};
use super::frozen::Frozen;
use super::logs::Logs;
use crate::job::record::{Incoming, read_status, write_record};
use crate::job::state::Request;
use crate::job::status::{Live, write_status};
use crate::job::{ChunkState, Error, ErrorCode, Job, JobEvent, JobState, Options, Spec};

/// The clock of records: milliseconds since the epoch, whole.
pub fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64)
}

/// A job that nothing happened to for so long is compressed: bursts of short jobs are over by then.
const REST_AFTER: Duration = Duration::from_millis(500);

/// Jobs of more chunks are not compressed.
const MOST_FROZEN: u32 = 5_000;

/// After so many jobs were compressed in a row, memory is given back.
const TRIM_AFTER: usize = 5_000;

/// Gives free memory back to the system, where the allocator has a call for that.
fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes no pointer and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What others may ask of a running job's owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// Stop the running chunks and pause; `graceful`: let them end first.
    Pause {
        /// Let running chunks end.
        graceful: bool,
    },
    /// Stop for good.
    Cancel {
        /// The caller's words.
        reason: Option<Box<str>>,
    },
    /// Stop and remove the record.
    Delete,
    /// The record was changed from outside so that the run has no ground any more.
    Withdraw,
}

/// The manager that runs a job, as others in the process reach it.
pub trait Owner: Send + Sync {
    /// Called without any lock held. False: nothing of the job runs, or not any more.
    fn asked(&self, id: &Arc<str>, ask: Ask) -> bool;
}

/// What a durable store is known to have of a job of this cache.
pub struct Kept {
    /// The version that it has; 0: it has no such job yet.
    pub version: u64,
    /// The state that it has.
    pub state: JobState,
    /// The request that it has.
    pub requested: Option<Request>,
    /// Whether this manager owns the job there.
    pub mine: bool,
    /// The spec that it has.
    pub spec: Option<Arc<Spec>>,
    /// The options that it has.
    pub options: Option<Arc<Options>>,
    /// A hash of the extras that it has.
    pub extras: u64,
    /// The mark of the writes since the last one whose answer came: one of them may have been committed.
    pub attempted: Option<Box<str>>,
    /// The job is to be given back.
    pub release: bool,
    /// The job is taken for others to run.
    pub foreign: bool,
    /// Why the store will never have it.
    pub refused: Option<Error>,
    /// Who waits for a version to be committed.
    pub acks: Vec<(u64, Ack)>,
    /// It waits to be written.
    pub queued: bool,
    /// Progress that is told once the store has what came before it, by versions.
    pub later: Vec<(u64, JobEvent)>,
}

/// Somebody who waits for a commit, and is told once how it went. Whoever is not told any more hears CLOSED.
pub struct Ack(Option<Hear>);

type Hear = Box<dyn FnOnce(Result<(), Error>) + Send>;

impl Ack {
    /// `hear` is called with the job locked: it must not come back here.
    pub fn new(hear: impl FnOnce(Result<(), Error>) + Send + 'static) -> Self {
        Self(Some(Box::new(hear)))
    }

    /// Tells how it went.
    pub fn tell(mut self, answer: Result<(), Error>) {
        if let Some(hear) = self.0.take() {
            hear(answer);
        }
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        if let Some(hear) = self.0.take() {
            hear(Err(Error::new(ErrorCode::Closed, "The manager is closed")));
        }
    }
}

impl Kept {
    /// A job that the store does not have yet.
    pub fn none() -> Kept {
        Kept {
            version: 0,
            state: JobState::Pending,
            requested: None,
            mine: false,
            spec: None,
            options: None,
            extras: 0,
            attempted: None,
            release: false,
            foreign: false,
            refused: None,
            acks: Vec::new(),
            queued: false,
            later: Vec::new(),
        }
    }

    /// Whether there is something that the store does not have.
    pub fn is_behind(&self) -> bool {
        self.queued || self.attempted.is_some()
    }
}

/// Jobs that changed and are not committed yet.
#[derive(Default)]
pub struct Changes {
    ids: Mutex<Vec<Arc<str>>>,
    /// Told when there is something to commit.
    pub wake: Notify,
    /// Events that wait for their commit.
    waiting: AtomicUsize,
}

impl Changes {
    /// Jobs that changed since the last call.
    pub fn take(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut *self.ids.lock())
    }

    /// How many events wait for their commit.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

enum Body {
    Live(Box<Job>),
    Frozen(Frozen),
}

/// The inside of a cell.
#[allow(clippy::box_collection, reason = "a pointer where most jobs have nothing; there may be a million jobs")]
pub struct Slot {
    body: Body,
    gone: bool,
    /// Not visible and not scheduled before its first save is acknowledged.
    hidden: bool,
    /// Which manager's queue the job waits in, as that manager counts: an entry that is left in another's is void.
    pub queued: u64,
    owner: Option<Box<Weak<dyn Owner>>>,
    watchers: Option<Box<Vec<Weak<dyn Watcher>>>>,
    /// Events that the store does not have yet, with the version that holds each.
    held: Option<Box<Vec<(u64, Logged)>>>,
    /// What the durable store has of it.
    pub kept: Option<Box<Kept>>,
    /// Whole outputs of ended attempts: until a durable store has them, or as long as the job.
    pub logs: Option<Box<Logs>>,
}

/// One job.
pub struct Cell {
    /// Its id.
    pub id: Arc<str>,
    /// Order of arrival.
    pub sequence: u64,
    slot: Mutex<Slot>,
}

impl Cell {
    /// Locks the job.
    pub fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock()
    }
}

impl Slot {
    /// The job, live again if it was at rest.
    pub fn job(&mut self) -> Result<&mut Job, Error> {
        if let Body::Frozen(frozen) = &self.body {
            self.body = Body::Live(Box::new(frozen.thaw()?));
        }
        match &mut self.body {
            Body::Live(job) => Ok(job),
            Body::Frozen(_) => Err(Error::new(ErrorCode::Internal, "A job at rest stayed at rest")),
        }
    }

    /// Whether the record was removed.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Shows a hidden job.
    pub fn show(&mut self) {
        self.hidden = false;
    }

    /// Names the manager that runs the job.
    pub fn set_owner(&mut self, owner: Option<Weak<dyn Owner>>) {
        self.owner = owner.map(Box::new);
    }

    /// The manager that runs the job, if it still exists.
    pub fn owner(&self) -> Option<Arc<dyn Owner>> {
        self.owner.as_ref()?.upgrade()
    }

    /// Tells `watcher` of the next changes of state.
    pub fn watch(&mut self, watcher: Weak<dyn Watcher>) {
        let watchers = self.watchers.get_or_insert_default();
        if !watchers.iter().any(|known| known.ptr_eq(&watcher)) {
            watchers.push(watcher);
        }
    }

    /// Whether there are events that the store does not have yet.
    fn is_ahead(&mut self) -> Result<bool, Error> {
        let version = self.job()?.version;
        Ok(self.held.is_some() || self.kept.as_ref().is_some_and(|kept| kept.version < version))
    }

    /// Keeps progress until the events before it are told: of one kind the latest. Gives whether it waits with them, as one more.
    fn tell_later(&mut self, event: JobEvent, now: f64) -> Result<bool, Error> {
        let version = self.job()?.version;
        if let Some(kept) = &mut self.kept {
            kept.later.retain(|(known, other)| *known < version || !event.replaces(other));
            kept.later.push((version, event));
            return Ok(false);
        }
        // The progress of a job is told with its chunks.
        let logged = if matches!(event, JobEvent::ChunkProgress { .. }) { Logged::of(self.job()?, event, now) } else { None };
        let (Some(logged), Some(held)) = (logged, &mut self.held) else { return Ok(false) };
        let replaced = held.pop_if(|(_, last)| !last.is_kept()).is_some();
        held.push((version, logged));
        Ok(!replaced)
    }

    /// Takes the events that wait for their commit.
    pub fn take_held(&mut self) -> Vec<(u64, Logged)> {
        self.held.take().map(|held| *held).unwrap_or_default()
    }

    /// Puts events back that could not be committed, before those that came meanwhile.
    pub fn give_back_held(&mut self, mut events: Vec<(u64, Logged)>) {
        if let Some(later) = self.held.take() {
            events.extend(*later);
        }
        if !events.is_empty() {
            self.held = Some(Box::new(events));
        }
    }

    /// Tells those who wait for a commit that it will not come.
    pub fn fail_acks(&mut self, error: &Error) {
        for (_, ack) in self.kept.as_mut().map(|kept| std::mem::take(&mut kept.acks)).unwrap_or_default() {
            ack.tell(Err(error.clone()));
        }
    }

    /// Keeps the whole output of an attempt.
    pub fn keep_log(&mut self, log: LogWrite) {
        let logs = self.logs.get_or_insert_default();
        logs.keep(log);
        if self.kept.is_none() {
            // In memory they stay as long as the job.
            logs.shrink();
        }
    }

    /// Tells those who watch the job.
    pub fn notify(&mut self, id: &Arc<str>) {
        if let Some(watchers) = &mut self.watchers {
            watchers.retain(|watcher| watcher.upgrade().inspect(|watcher| watcher.changed(id)).is_some());
        }
    }
}

#[derive(Default)]
struct Index {
    by_sequence: BTreeMap<u64, Arc<Cell>>,
    by_state: [BTreeSet<u64>; 6],
}

/// Jobs of this process.
pub struct MemoryRepository {
    cells: DashMap<Arc<str>, Arc<Cell>, RandomState>,
    index: Mutex<Index>,
    next: AtomicU64,
    /// What happened to its jobs.
    pub log: EventLog,
    /// Whether another store holds the truth, so that events wait for its acknowledgement.
    holds_events: bool,
    /// What a durable store has to be told.
    pub changes: Changes,
}

/// A shard that grows looks at all of its ids: with a million jobs it has some ten thousands of them, two milliseconds' work.
pub const SHARDS: usize = 64;

/// A page of a listing ends after so many bytes: what reads it must not be held up for long.
const PAGE_BYTES: usize = 64 * 1024;

/// A page of a listing.
pub struct Page {
    /// JSON array of statuses.
    pub jobs: String,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<u64>,
}

impl MemoryRepository {
    /// An empty repository. `holds_events`: it is the cache of a manager whose store acknowledges.
    pub fn new(holds_events: bool) -> Arc<Self> {
        Arc::new(Self {
            cells: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS),
            index: Mutex::default(),
            next: AtomicU64::new(1),
            log: EventLog::default(),
            holds_events,
            changes: Changes::default(),
        })
    }

    /// Adds a job. With `hidden` nobody sees it before [`Slot::show`]. DUPLICATE when the id exists.
    pub fn create(&self, job: Job, hidden: bool) -> Result<Arc<Cell>, Error> {
        let id = job.id.clone();
        let state = job.state;
        let cell = Arc::new(Cell {
            id: id.clone(),
            sequence: self.next.fetch_add(1, Ordering::Relaxed),
            slot: Mutex::new(Slot {
                body: Body::Live(Box::new(job)),
                gone: false,
                hidden,
                queued: 0,
                owner: None,
                watchers: None,
                held: None,
                kept: None,
                logs: None,
            }),
        });
        match self.cells.entry(id.clone()) {
            MapEntry::Occupied(_) => return Err(Error::new(ErrorCode::Duplicate, format!("There is a job \"{id}\" already"))),
            MapEntry::Vacant(vacant) => vacant.insert(cell.clone()),
        };
        let mut index = self.index.lock();
        index.by_sequence.insert(cell.sequence, cell.clone());
        index.by_state[state as usize].insert(cell.sequence);
        Ok(cell)
    }

    /// The cell of a job.
    pub fn cell(&self, id: &str) -> Option<Arc<Cell>> {
        self.cells.get(id).map(|cell| cell.clone())
    }

    /// The cell of a job that is visible.
    pub fn visible(&self, id: &str) -> Option<Arc<Cell>> {
        self.cell(id).filter(|cell| !cell.lock().hidden)
    }

    /// The place of a job in the order of arrival.
    pub fn sequence_of(&self, id: &str) -> Option<u64> {
        self.visible(id).map(|cell| cell.sequence)
    }

    /// How many jobs there are.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Jobs that are pending or running, in order of arrival.
    pub fn unfinished(&self) -> Vec<Arc<Cell>> {
        let index = self.index.lock();
        let both = [JobState::Pending, JobState::Running].into_iter().flat_map(|state| index.by_state[state as usize].iter());
        let mut places: Vec<u64> = both.copied().collect();
        places.sort_unstable();
        places.iter().filter_map(|place| index.by_sequence.get(place).cloned()).collect()
    }

    /// All jobs.
    pub fn cells(&self) -> Vec<Arc<Cell>> {
        self.cells.iter().map(|cell| cell.clone()).collect()
    }

    /// Whether something is true of any job.
    pub fn any(&self, test: impl Fn(&Slot) -> bool) -> bool {
        self.cells().iter().any(|cell| test(&cell.lock()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Changes a job by an event: applies it, keeps the index right, tells the log and whoever watches.
    pub fn change(&self, cell: &Cell, slot: &mut Slot, event: JobEvent, now: f64) -> Result<(), Error> {
        if slot.gone {
            return Err(Error::not_found(&cell.id));
        }
        let job = slot.job()?;
        let before = job.state;
        let requested = job.requested;
        job.apply(&event, now)?;
        let after = job.state;
        let moved = before != after;
        let told = moved || job.requested != requested;
        let durable = slot.kept.is_some();
        let job = slot.job()?;
        if durable && matches!(event, JobEvent::Warning { .. }) {
            // It is written down as well, and every write has a version of its own.
            job.version += 1;
        }
        // What is told beside the life of a job needs no acknowledgement where events are not numbered by a store.
        let waits = event.is_kept() && (durable || !matches!(event, JobEvent::Warning { .. }));
        if self.holds_events && waits {
            let version = job.version;
            if let Some(logged) = Logged::of(job, event, now) {
                self.changes.waiting.fetch_add(1, Ordering::Relaxed);
                slot.held.get_or_insert_default().push((version, logged));
            }
        } else if self.holds_events && event.is_progress() && slot.is_ahead()? {
            if slot.tell_later(event, now)? {
                self.changes.waiting.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            let job = slot.job()?;
            self.log.append(job, event, now);
        }
        if moved {
            self.reindex(cell, before, after);
        }
        if durable {
            self.changed(&cell.id, slot);
        } else if told {
            slot.notify(&cell.id);
        }
        Ok(())
    }

    /// Has a job of a durable store written.
    pub fn changed(&self, id: &Arc<str>, slot: &mut Slot) {
        if let Some(kept) = &mut slot.kept
            && !kept.queued
        {
            kept.queued = true;
            let mut ids = self.changes.ids.lock();
            ids.push(id.clone());
            drop(ids);
            self.changes.wake.notify_one();
        }
    }

    /// The job of a cell is being written: further changes queue it again.
    pub fn being_written(&self, slot: &mut Slot) {
        if let Some(kept) = &mut slot.kept {
            kept.queued = false;
        }
    }

    /// So many events are committed, or will never be.
    pub fn no_longer_waiting(&self, events: usize) {
        self.changes.waiting.fetch_sub(events, Ordering::Relaxed);
    }

    fn reindex(&self, cell: &Cell, before: JobState, after: JobState) {
        let mut index = self.index.lock();
        index.by_state[before as usize].remove(&cell.sequence);
        index.by_state[after as usize].insert(cell.sequence);
    }

    /// Tells the progress that waited for what the durable store has now.
    pub fn tell_progress(&self, slot: &mut Slot, now: f64) {
        let Some(kept) = &mut slot.kept else { return };
        if kept.later.is_empty() {
            return;
        }
        let upto = kept.later.partition_point(|(version, _)| *version <= kept.version);
        let ready: Vec<_> = kept.later.drain(..upto).collect();
        let Ok(job) = slot.job() else { return };
        for (_, event) in ready {
            // What has ended meanwhile was told as a whole.
            let goes_on = match &event {
                JobEvent::ChunkProgress { chunk_id, .. } => job.spec.index_of(*chunk_id).is_some_and(|index| job.rows.get(index).state == ChunkState::Running),
                _ => true,
            };
            if goes_on && job.state == JobState::Running {
                self.log.append(job, event, now);
            }
        }
    }

    /// Tells the events that the store has now: those up to a version.
    pub fn release_events(&self, slot: &mut Slot, version: u64) {
        let Some(held) = &mut slot.held else { return };
        let upto = held.partition_point(|(held, ..)| *held <= version);
        let ready: Vec<_> = held.drain(..upto).collect();
        if held.is_empty() {
            slot.held = None;
        }
        self.no_longer_waiting(ready.len());
        for (_, logged) in ready {
            self.log.append_held(logged);
        }
    }

    /// Removes a job; its cell stays usable to whoever holds it, and can't come back.
    pub fn remove(&self, cell: &Cell, slot: &mut Slot, quietly: bool) {
        if slot.gone {
            return;
        }
        slot.gone = true;
        self.no_longer_waiting(slot.held.take().map_or(0, |held| held.len()));
        self.cells.remove_if(&cell.id, |_, known| known.sequence == cell.sequence);
        let mut index = self.index.lock();
        index.by_sequence.remove(&cell.sequence);
        for state in &mut index.by_state {
            state.remove(&cell.sequence);
        }
        drop(index);
        if !quietly
            && !self.holds_events
            && let Ok(job) = slot.job()
        {
            let now = now_ms();
            self.log.append(job, JobEvent::Deleted, now);
        }
        slot.notify(&cell.id);
    }

    /// The public status as JSON. `live` tells of the current run.
    pub fn status(&self, id: &str, live: impl Fn(&Job) -> Live) -> Option<String> {
        let cell = self.visible(id)?;
        let mut slot = cell.lock();
        Self::write(&mut slot, live)
    }

    fn write(slot: &mut Slot, live: impl Fn(&Job) -> Live) -> Option<String> {
        if slot.gone {
            return None;
        }
        if let Body::Frozen(frozen) = &slot.body
            && let Some(status) = frozen.status()
        {
            return Some(status);
        }
        let job = slot.job().ok()?;
        let mut out = String::with_capacity(512 + if job.spec.is_planned() { 0 } else { job.spec.text_len() });
        write_status(job, live(job), false, &mut out);
        Some(out)
    }

    /// Status and record of a job, whole, with the version that they hold.
    pub fn snapshot(&self, id: &str, live: impl Fn(&Job) -> Live) -> Option<(String, u64)> {
        let cell = self.cell(id)?;
        let mut slot = cell.lock();
        let job = slot.job().ok()?;
        let mut out = String::new();
        write_record(job, live(job), &mut out);
        Some((out, job.version))
    }

    /// The spec of a job, as it is now.
    pub fn spec_of(&self, id: &str) -> Option<Arc<Spec>> {
        self.cell(id)?.lock().job().ok().map(|job| job.spec.clone())
    }

    /// Jobs in order of arrival from a place on, those in `states` (all, when empty), at most `most` of them.
    pub fn list(&self, states: &[JobState], from: u64, most: usize, live: impl Fn(&Job) -> Live) -> Page {
        let cells: Vec<Arc<Cell>> = {
            let index = self.index.lock();
            if states.is_empty() {
                index.by_sequence.range(from..).take(most + 1).map(|(_, cell)| cell.clone()).collect()
            } else {
                let mut found: Vec<u64> = states.iter().flat_map(|state| index.by_state[*state as usize].range(from..).take(most + 1)).copied().collect();
                found.sort_unstable();
                found.dedup();
                found.iter().take(most + 1).filter_map(|sequence| index.by_sequence.get(sequence).cloned()).collect()
            }
        };
        let mut next = cells.get(most).map(|cell| cell.sequence);
        let mut jobs = String::from("[");
        for cell in cells.iter().take(most) {
            if jobs.len() > PAGE_BYTES {
                next = Some(cell.sequence);
                break;
            }
            let mut slot = cell.lock();
            if slot.hidden {
                continue;
            }
            if let Some(status) = Self::write(&mut slot, &live) {
                if jobs.len() > 1 {
                    jobs.push(',');
                }
                jobs.push_str(&status);
            }
        }
        jobs.push(']');
        Page { jobs, next }
    }

    /// Keeps a status that came from outside. See `JobRepository.save` of the public documentation.
    pub fn save(self: &Arc<Self>, json: &str) -> Result<u64, Error> {
        let now = now_ms();
        let Incoming { mut job, seen, whole } = read_status(json, now, false)?;
        let id = job.id.clone();
        loop {
            let Some(cell) = self.cell(&id) else {
                if let Some(seen) = seen.filter(|seen| *seen > 0) {
                    return Err(Error::new(ErrorCode::Conflict, format!("Version {seen} of job \"{id}\" can't be replaced: the job is gone")));
                }
                job.version = 1;
                match self.create(job.clone(), false) {
                    Ok(cell) => {
                        self.rest(&cell);
                        return Ok(1);
                    }
                    // Somebody else was faster: decide again.
                    Err(_) => continue,
                }
            };
            let mut slot = cell.lock();
            if slot.gone {
                continue;
            }
            let known = slot.job()?;
            if let Some(seen) = seen
                && seen != known.version
            {
                return Err(Error::new(ErrorCode::Conflict, format!("Job \"{id}\" is at version {}; version {seen} is not the latest", known.version)));
            }
            let before = known.state;
            let version = known.version;
            if whole {
                // A manager behind a store that wraps this one: rows and options come with the status.
                *known = job.clone();
                known.version = version;
            } else {
                known.replace_public(job.clone(), now);
            }
            known.version += 1;
            let version = known.version;
            let after = known.state;
            let withdrawn = before == JobState::Running && after != JobState::Running;
            if withdrawn {
                known.requested = None;
            }
            self.log.append(known, JobEvent::Updated, now);
            let owner = slot.owner();
            if before != after {
                self.reindex(&cell, before, after);
                slot.notify(&cell.id);
            }
            drop(slot);
            if withdrawn && let Some(owner) = owner {
                owner.asked(&cell.id, Ask::Withdraw);
            }
            self.rest(&cell);
            return Ok(version);
        }
    }

    /// Takes in what somebody saved over a job in a store that this is the cache of: its status. What is not here stays so.
    pub fn take_in(&self, json: &str) -> Result<(), Error> {
        let now = now_ms();
        let theirs = read_status(json, now, true)?.job;
        let Some(cell) = self.cell(&theirs.id) else { return Ok(()) };
        let mut slot = cell.lock();
        if slot.gone {
            return Ok(());
        }
        let known = slot.job()?;
        let before = known.state;
        let goes_on = known.take_in(theirs, now);
        let after = known.state;
        let owner = slot.owner();
        if before != after {
            self.reindex(&cell, before, after);
            slot.notify(&cell.id);
        }
        drop(slot);
        if !goes_on && let Some(owner) = owner {
            owner.asked(&cell.id, Ask::Withdraw);
        }
        self.rest(&cell);
        Ok(())
    }

    /// Removes a job by its id, whoever runs it.
    pub fn delete(&self, id: &str) {
        let Some(cell) = self.cell(id) else { return };
        let mut slot = cell.lock();
        let owner = slot.owner();
        self.remove(&cell, &mut slot, false);
        drop(slot);
        if let Some(owner) = owner {
            owner.asked(&cell.id, Ask::Withdraw);
        }
    }

    /// Lets a job that is not being worked on be compressed.
    pub fn rest(&self, cell: &Arc<Cell>) {
        if !self.holds_events {
            static REST: OnceLock<Sender<(Instant, Weak<Cell>)>> = OnceLock::new();
            let sender = REST.get_or_init(|| {
                let (sender, receiver) = channel::<(Instant, Weak<Cell>)>();
                // Without the thread jobs just stay as large as they are.
                let _ = std::thread::Builder::new().name("framewright-rest".into()).spawn(move || {
                    let mut frozen = 0;
                    loop {
                        let Ok((since, cell)) = receiver.try_recv().or_else(|_| {
                            // After a burst the pages between what was freed go back to the system.
                            if std::mem::take(&mut frozen) >= TRIM_AFTER {
                                trim();
                            }
                            receiver.recv()
                        }) else {
                            return;
                        };
                        frozen += 1;
                        // In the order of their arrival, so that waiting for one is waiting for all behind it.
                        std::thread::sleep(REST_AFTER.saturating_sub(since.elapsed()));
                        if let Some(cell) = cell.upgrade() {
                            freeze(&cell);
                        }
                    }
                });
                sender
            });
            let _ = sender.send((Instant::now(), Arc::downgrade(cell)));
        }
    }
}

fn freeze(cell: &Cell) {
    let copy = {
        let slot = cell.lock();
        match &slot.body {
            // Rows are small already, and whoever asks for a job of so many would have to wait until all are thawed.
            Body::Live(job) if job.rows.total() > MOST_FROZEN => return,
            Body::Live(job) if job.state != JobState::Running && !slot.gone && slot.owner.is_none() => (**job).clone(),
            _ => return,
        }
    };
    // Compressed without the lock: nobody waits for it.
    let Some(frozen) = Frozen::freeze(&copy) else { return };
    let mut slot = cell.lock();
    let same = match &slot.body {
        Body::Live(job) => job.version == copy.version && job.state == copy.state && job.updated_at == copy.updated_at && job.waiting_for == copy.waiting_for,
        Body::Frozen(_) => false,
    };
    if same && slot.owner.is_none() {
        slot.body = Body::Frozen(frozen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn status(id: &str, state: &str) -> String {
        format!(
            r#"{{"id":"{id}","spec":{{"chunks":[{{"id":0}},{{"id":1}}],"own":1}},"state":"{state}","progress":0,"totalChunks":2,"completedChunks":0,"createdAt":1,"updatedAt":1}}"#
        )
    }

    fn get(repository: &MemoryRepository, id: &str) -> Option<Value> {
        repository.status(id, |_| Live::default()).map(|text| serde_json::from_str(&text).unwrap())
    }

    // [F31] [F146] a write that names an older version is refused and changes nothing
    #[test]
    fn a_stale_version_is_refused() {
        let repository = MemoryRepository::new(false);
        repository.save(&status("a", "paused")).unwrap();
        let first = get(&repository, "a").unwrap();
        assert_eq!(repository.save(&first.to_string()).unwrap(), 2);
        let error = repository.save(&first.to_string()).unwrap_err();
        assert_eq!(error.code, ErrorCode::Conflict);
        assert_eq!(get(&repository, "a").unwrap()["version"], 2);
        repository.delete("a");
        assert_eq!(repository.save(&first.to_string()).unwrap_err().code, ErrorCode::Conflict);
        assert!(get(&repository, "a").is_none());
    }

    #[test]
    fn what_is_at_rest_reads_the_same() {
        let repository = MemoryRepository::new(false);
        repository.save(&status("a", "paused")).unwrap();
        let cell = repository.cell("a").unwrap();
        cell.lock().job().unwrap();
        let live = get(&repository, "a");
        freeze(&cell);
        assert!(matches!(cell.lock().body, Body::Frozen(_)));
        assert_eq!(get(&repository, "a"), live);
        cell.lock().job().unwrap();
        assert_eq!(get(&repository, "a"), live);
    }

    #[test]
    fn a_job_of_many_chunks_is_never_thawed_while_somebody_waits() {
        let repository = MemoryRepository::new(false);
        for (id, total, frozen) in [("small", 5_000, true), ("large", 5_001, false)] {
            repository
                .save(&status(id, "paused").replace(
                    "\"chunks\":[{\"id\":0},{\"id\":1}]",
                    &format!("\"plan\":{{\"totalFrames\":{total},\"chunkSize\":1,\"outputFile\":\"{{chunkId}}\",\"command\":\"x\"}}"),
                ))
                .unwrap();
            let cell = repository.cell(id).unwrap();
            assert_eq!(cell.lock().job().unwrap().rows.total(), total);
            freeze(&cell);
            assert_eq!(matches!(cell.lock().body, Body::Frozen(_)), frozen, "{id}");
        }
    }

    #[test]
    fn lists_by_state_in_order_of_arrival_in_pages() {
        let repository = MemoryRepository::new(false);
        for n in 0..10 {
            repository.save(&status(&format!("j{n}"), if n % 2 == 0 { "paused" } else { "failed" })).unwrap();
        }
        let page = repository.list(&[JobState::Failed], 0, 3, |_| Live::default());
        let jobs: Vec<Value> = serde_json::from_str(&page.jobs).unwrap();
        assert_eq!(jobs.iter().map(|job| job["id"].as_str().unwrap()).collect::<Vec<_>>(), ["j1", "j3", "j5"]);
        let rest = repository.list(&[JobState::Failed], page.next.unwrap(), 9, |_| Live::default());
        assert_eq!(serde_json::from_str::<Vec<Value>>(&rest.jobs).unwrap().len(), 2);
        assert_eq!(rest.next, None);
    }
}
