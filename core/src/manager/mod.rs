//! The life of jobs: [`Manager`] takes them, starts them when a slot is free, decides what each report means, and
//! answers control calls.
//!
//! A run has a driver. Drivers outside (JavaScript) take chunks with [`Manager::next`] and answer with
//! [`Manager::complete`] and [`Manager::fail`], or run the whole job and report ([`Manager::report_chunk`],
//! [`Manager::settle`]); [`drive`] runs chunks as processes without anybody's help. What outsiders must hear comes as
//! [`Notice`]s.

mod commit;
mod control;
pub mod drive;
mod durable;
mod lease;
mod live_logs;
mod notice;
pub mod output_places;
mod outputs;
mod owner;
mod recover;
mod remote;
mod roster;
mod run;
mod watch;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

pub(crate) use commit::whole;
pub use control::{Controlled, Stopping};
pub use durable::{Durable, DurableOptions};
pub use notice::{Notice, Notices};
pub use owner::Place;
pub(crate) use owner::parse_place;
pub use remote::Fetched;
pub use run::{Advance, BUSY, LEAVE, NOT_TAKEN, Settled, WAIT};

use crate::executor::process::ProcessGroups;
use crate::job::state::WaitingFor;
use crate::job::status::Live;
use crate::job::{ChunkState, Error, ErrorCode, Job, JobEvent, JobState, Options, Spec};
use crate::repository::Watcher;
use crate::repository::memory::{Ask, Cell, Kept, MemoryRepository, Owner, now_ms};
use crate::repository::runtime::Store;
use roster::Roster;
use run::Run;

/// A job that this manager works on.
pub(crate) struct Entry {
    ticket: u32,
    cell: Arc<Cell>,
    run: Mutex<Option<Run>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Arc<Entry>>,
    running: u32,
    closed: bool,
}

/// Of a longer queue the jobs are compressed while they wait: until then to start one is quick.
const LONG_QUEUE: usize = 16_384;

/// Managers of this process so far, plus one.
static MANAGERS: AtomicU32 = AtomicU32::new(1);
/// Numbers of the managers of this process that take jobs.
static LIVE: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Takes jobs and sees them through.
pub struct Manager {
    /// Where its jobs live.
    pub repository: Arc<MemoryRepository>,
    /// What its owner outside has to hear.
    pub notices: Arc<Notices>,
    /// The processes that it started.
    pub groups: ProcessGroups,
    /// Cancelled when programs that are being stopped get no more time for it.
    hurry: CancellationToken,
    owner: Arc<str>,
    most_running: u32,
    entries: Roster,
    state: Mutex<State>,
    tickets: AtomicU32,
    /// Number of this manager in its process, from 1.
    number: u32,
    /// Whether it has an executor.
    runs: bool,
    /// Types of job that it runs, besides those without one.
    kinds: Vec<Arc<str>>,
    /// What its running programs have said so far.
    live_logs: live_logs::LiveLogs,
    questions: Mutex<HashMap<u32, tokio::sync::oneshot::Sender<Result<bool, String>>>>,
    /// Runs that have ended since jobs were last claimed.
    ended: AtomicU32,
    /// Zero of the clock that schedules retries.
    epoch: Instant,
    /// What it has on a durable store; its repository is then a cache of the jobs that it owns.
    durable: Option<Arc<Durable>>,
    me: Weak<Manager>,
}

/// A job that may run now.
pub struct Ready {
    /// Names the job in the calls of a driver.
    pub ticket: u32,
    /// Which run of the job this is.
    pub run: u32,
    /// How many chunks it has and how many of them are done, where the job is just as it was submitted.
    pub fresh: Option<(u32, u32)>,
    /// Its first chunk as [`Manager::next`] gives it, where it was taken.
    pub first: Option<f64>,
}

impl Manager {
    /// A manager over `repository` that runs `most_running` jobs at once at the most.
    ///
    /// `runs`: whether it has an executor; `kinds`: the types of job that it runs besides those without one.
    pub fn new(
        repository: Arc<MemoryRepository>,
        notices: Arc<Notices>,
        groups: ProcessGroups,
        most_running: u32,
        runs: bool,
        kinds: Vec<Arc<str>>,
    ) -> Arc<Self> {
        Self::build(repository, None, notices, groups, most_running, runs, kinds)
    }

    /// A manager over a durable store. It goes to work at once: takes a name on the store, and what it may take over.
    pub fn over(store: Arc<Store>, options: DurableOptions, notices: Arc<Notices>, groups: ProcessGroups, most_running: u32) -> Arc<Self> {
        let durable = Durable::new(store, options);
        let (runs, kinds) = (durable.runs, durable.kinds.clone());
        let manager = Self::build(MemoryRepository::new(true), Some(durable.clone()), notices, groups, most_running, runs, kinds);
        durable.store.spawn(Self::lease_loop(manager.me.clone(), durable.clone()));
        durable.store.spawn(Self::commit_loop(manager.me.clone(), durable.clone()));
        durable.store.spawn(Self::watch_loop(manager.me.clone(), durable.clone()));
        manager
    }

    fn build(
        repository: Arc<MemoryRepository>,
        durable: Option<Arc<Durable>>,
        notices: Arc<Notices>,
        groups: ProcessGroups,
        most_running: u32,
        runs: bool,
        kinds: Vec<Arc<str>>,
    ) -> Arc<Self> {
        let number = MANAGERS.fetch_add(1, Ordering::Relaxed);
        LIVE.lock().insert(number);
        Arc::new_cyclic(|me| Self {
            repository,
            notices,
            groups,
            owner: owner::new_owner(),
            hurry: CancellationToken::new(),
            most_running,
            entries: Roster::default(),
            state: Mutex::default(),
            tickets: AtomicU32::new(0),
            number,
            runs,
            kinds,
            live_logs: live_logs::LiveLogs::default(),
            questions: Mutex::default(),
            ended: AtomicU32::new(0),
            epoch: Instant::now(),
            durable,
            me: me.clone(),
        })
    }

    /// Which manager of its process this is.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The identity of this manager, random for each; on a durable store a new one after its lease was lost.
    pub fn owner(&self) -> Arc<str> {
        self.durable.as_ref().map_or_else(|| self.owner.clone(), |durable| durable.owner())
    }

    fn clock_ms(&self) -> f64 {
        self.epoch.elapsed().as_secs_f64() * 1000.0
    }

    /// This manager as somebody who wants to hear of changes.
    pub fn watcher(&self) -> Weak<dyn Watcher> {
        let notices: Weak<Notices> = Arc::downgrade(&self.notices);
        notices
    }

    fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn refuse_when_closed(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::new(ErrorCode::Closed, "The manager is closed"));
        }
        Ok(())
    }

    fn track(&self, cell: Arc<Cell>) -> Arc<Entry> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let entry = Arc::new(Entry { ticket, cell, run: Mutex::new(None) });
        self.entries.add(&entry);
        entry
    }

    /// Makes the place of an entry in the queue void. False: its job runs.
    fn leave_queue(&self, entry: &Entry) -> bool {
        let run = entry.run.lock();
        if run.is_some() {
            return false;
        }
        entry.cell.lock().queued = 0;
        drop(run);
        self.forget(entry);
        true
    }

    /// Names an entry among all queues of the process.
    fn queue_key(&self, entry: &Entry) -> u64 {
        u64::from(self.number) << 32 | u64::from(entry.ticket)
    }

    fn forget(&self, entry: &Entry) {
        self.entries.remove(entry);
    }

    pub(crate) fn entry(&self, ticket: u32) -> Option<Arc<Entry>> {
        self.entries.get(ticket)
    }

    fn entry_of(&self, id: &str) -> Option<Arc<Entry>> {
        self.entries.named(id)
    }

    /// Takes a job. With `hold` it is not seen and not started before [`Self::admit`] (its store has to keep it
    /// first). Gives its ticket.
    pub fn submit(
        &self,
        id: &str,
        spec: Spec,
        options: Arc<Options>,
        fields: Option<serde_json::Map<String, serde_json::Value>>,
        hold: bool,
    ) -> Result<u32, Error> {
        self.refuse_when_closed()?;
        if !crate::job::record::is_id(id) {
            let message = "must be 1 to 128 of the characters A-Z a-z 0-9 . _ - and not start with a dot";
            return Err(Error::invalid("options", vec![crate::job::Issue::new("id", message)]));
        }
        let mut job = Job::new(id.into(), Arc::new(spec), options, now_ms());
        if let Some(mut fields) = fields.filter(|fields| !fields.is_empty()) {
            let meta = fields.remove("meta").and_then(|meta| meta.as_object().cloned());
            let extras = job.extras_mut();
            extras.meta = meta;
            extras.fields = fields;
        }
        if self.durable.is_some() {
            return self.submit_stored(job);
        }
        if hold {
            job.version = 1;
            job.waiting_for = Some(WaitingFor::Slot);
        }
        let cell = self.repository.create(job, hold)?;
        let entry = self.track(cell);
        if !hold {
            self.accept(&entry, true);
        }
        Ok(entry.ticket)
    }

    /// Has a new job written; it is seen, and may run, once it is [admitted](Self::admit).
    fn submit_stored(&self, mut job: Job) -> Result<u32, Error> {
        job.rows.track();
        // Those that count as done from the start were touched before.
        let skipped: Vec<u32> = job.rows.touched().map(|(index, _)| index).collect();
        job.rows.give_back_dirty(&skipped);
        job.waiting_for = Some(WaitingFor::Slot);
        let runs = self.runs_job(&job);
        let cell = self.repository.create(job, true)?;
        let mut slot = cell.lock();
        slot.kept = Some(Box::new(Kept { foreign: !runs, ..Kept::none() }));
        self.repository.change(&cell, &mut slot, JobEvent::Submitted, now_ms())?;
        drop(slot);
        Ok(self.track(cell).ticket)
    }

    /// Whether this manager runs jobs of that type.
    fn runs_job(&self, job: &Job) -> bool {
        self.runs && commit::kind(job).is_none_or(|kind| self.kinds.contains(&kind))
    }

    fn accept(&self, entry: &Arc<Entry>, apply: bool) {
        let now = now_ms();
        {
            let mut slot = entry.cell.lock();
            slot.show();
            if slot.kept.as_ref().is_some_and(|kept| kept.foreign) {
                // Others run it: from now on it is read from the store.
                drop(slot);
                self.forget(entry);
                self.repository.remove(&entry.cell, &mut entry.cell.lock(), true);
                return;
            }
            slot.queued = self.queue_key(entry);
            if slot.kept.is_some() {
                // Told when it was committed.
            } else if apply {
                let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Submitted, now);
                if let Ok(job) = slot.job() {
                    job.waiting_for = Some(WaitingFor::Slot);
                }
            } else if let Ok(job) = slot.job() {
                let job = job.clone();
                self.repository.log.append(&job, JobEvent::Submitted, now);
            }
            if !slot.job().is_ok_and(|job| self.runs_job(job)) {
                // Kept for a manager that runs it.
                slot.queued = 0;
                drop(slot);
                self.forget(entry);
                self.repository.rest(&entry.cell);
                return;
            }
        }
        let mut state = self.state.lock();
        state.queue.push_back(entry.clone());
        // Long queues wait compressed.
        let long = state.queue.len() > LONG_QUEUE;
        drop(state);
        if long {
            self.repository.rest(&entry.cell);
        }
    }

    /// The store has the job that was submitted with `hold`: from now on it is seen and may run.
    pub fn admit(&self, ticket: u32) {
        if let Some(entry) = self.entry(ticket) {
            self.accept(&entry, false);
        }
    }

    /// The store refused the job that was submitted with `hold`: it never was.
    pub fn discard(&self, ticket: u32) {
        if let Some(entry) = self.entry(ticket) {
            self.forget(&entry);
            let mut slot = entry.cell.lock();
            let mark = slot.kept.as_mut().and_then(|kept| kept.attempted.take());
            if let (Some(mark), Some(durable), Some(manager)) = (mark, &self.durable, self.me.upgrade()) {
                let doubtful = commit::Doubtful { id: entry.cell.id.clone(), mark };
                // Before the next submission of this id can be made.
                durable.undone.lock().insert(doubtful.id.clone());
                let durable = durable.clone();
                let store = durable.store.clone();
                store.spawn(async move { manager.undo(&durable, doubtful).await });
            }
            self.repository.remove(&entry.cell, &mut slot, true);
        }
    }

    /// Brings in a job from another store (its status with `record`), in place of what was known of it, unless it is
    /// being worked on here.
    pub fn adopt(&self, status: &str) -> Result<(), Error> {
        let incoming = crate::job::record::read_status(status, now_ms(), true)?;
        let id = incoming.job.id.clone();
        if self.entry_of(&id).is_some() {
            return Ok(());
        }
        if let Some(cell) = self.repository.cell(&id) {
            let mut slot = cell.lock();
            self.repository.remove(&cell, &mut slot, true);
        }
        self.repository.create(incoming.job, false).map(|_| ())
    }

    /// Drops a job that is not being worked on from the cache of a manager whose store is elsewhere.
    pub fn release(&self, id: &str) {
        if self.entry_of(id).is_none()
            && let Some(cell) = self.repository.cell(id)
        {
            let mut slot = cell.lock();
            self.repository.remove(&cell, &mut slot, true);
        }
    }

    /// Starts waiting jobs while slots are free, up to `most` of them; each then belongs to the driver that calls. With `take`
    /// the first chunk of those that are as they were submitted is taken for it.
    pub fn ready(&self, most: usize, take: bool) -> Vec<Ready> {
        let mut ready = Vec::new();
        while ready.len() < most {
            let entry = {
                let mut state = self.state.lock();
                if state.closed || state.running >= self.most_running {
                    break;
                }
                let Some(entry) = state.queue.pop_front() else { break };
                // Forgotten while it waited: paused, cancelled or removed.
                if !self.entries.has(entry.ticket) {
                    continue;
                }
                state.running += 1;
                entry
            };
            match self.start(&entry, take) {
                Some(started) => ready.push(started),
                None => {
                    // Paused, cancelled or removed by another manager while it waited here.
                    self.forget(&entry);
                    self.free_slot();
                }
            }
        }
        ready
    }

    /// Whether jobs wait that could be started now.
    pub fn has_ready(&self) -> bool {
        let state = self.state.lock();
        !state.closed && state.running < self.most_running && !state.queue.is_empty()
    }

    fn free_slot(&self) {
        let mut state = self.state.lock();
        state.running = state.running.saturating_sub(1);
    }

    fn start(&self, entry: &Arc<Entry>, take: bool) -> Option<Ready> {
        let mut run = entry.run.lock();
        let mut slot = entry.cell.lock();
        if slot.is_gone() || run.is_some() || slot.queued != self.queue_key(entry) {
            return None;
        }
        let now = now_ms();
        let job = slot.job().ok()?;
        // Cancelled or paused while it waited, or taken by another manager on the same repository.
        if job.state != JobState::Pending {
            return None;
        }
        let attempt = job.attempt.saturating_add(1);
        let untouched = job.version == 1 && job.rows.stamped().next().is_none();
        let fresh = untouched.then(|| (job.rows.total(), job.rows.count(ChunkState::Completed)));
        let new = Run::new(attempt, job, now, self.hurry.child_token());
        self.repository.change(&entry.cell, &mut slot, JobEvent::Started { owner: self.owner(), attempt }, now).ok()?;
        let me: Weak<dyn Owner> = self.me.clone();
        slot.set_owner(Some(me));
        drop(slot);
        let new = run.insert(new);
        let first = (take && fresh.is_some()).then(|| self.take_next(entry, new));
        Some(Ready { ticket: entry.ticket, run: attempt, fresh, first })
    }

    /// Chunks per second and time left of a running job.
    pub fn live(&self, job: &Job) -> Live {
        if job.state != JobState::Running {
            return Live::default();
        }
        let Some(entry) = self.entry_of(&job.id) else { return Live::default() };
        // The job is locked; who holds the run may be waiting for it.
        let Some(run) = entry.run.try_lock() else { return Live::default() };
        match &*run {
            Some(run) => run.live(job),
            None => Live::default(),
        }
    }

    /// Tells of something beside the life of a job.
    pub fn warn(&self, id: &str, message: &str, error: Option<crate::job::ErrorInfo>) {
        let event = JobEvent::Warning { message: message.into(), error: error.map(Box::new) };
        let now = now_ms();
        match self.repository.cell(id) {
            Some(cell) => {
                let _ = self.repository.change(&cell, &mut cell.lock(), event, now);
            }
            // The numbers of a durable store are its own to give.
            None if self.durable.is_some() => self.repository.log.append_aside(id.into(), event, now),
            None => self.repository.log.append_of(id.into(), event, now),
        }
    }

    /// Sets `meta` fields and, if given, the spec's `assetsUrl`, as artifact storage tells them.
    pub fn set_stored(&self, id: &str, assets_url: Option<&str>, meta: serde_json::Map<String, serde_json::Value>) -> Result<(), Error> {
        let cell = self.repository.cell(id).ok_or_else(|| Error::not_found(id))?;
        let mut slot = cell.lock();
        let job = slot.job()?;
        if let Some(url) = assets_url {
            job.spec = Arc::new(job.spec.with_text_field("assetsUrl", url)?);
        }
        job.extras_mut().meta.get_or_insert_default().extend(meta);
        self.repository.change(&cell, &mut slot, JobEvent::Updated, now_ms())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        LIVE.lock().remove(&self.number);
    }
}

impl Owner for Manager {
    fn asked(&self, id: &Arc<str>, ask: Ask) -> bool {
        self.entry_of(id).is_some_and(|entry| self.stop(&entry, Stopping::from(ask)))
    }
}
