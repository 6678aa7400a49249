//! Recovery: claiming jobs that nobody works on any more, bringing them in, and finding those that are this manager's without
//! its knowing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::commit::kept;
use super::durable::Durable;
use super::owner::{kill_left_behind, parse_place};
use super::{Manager, Notice};
use crate::job::options::FailurePolicy;
use crate::job::state::WaitingFor;
use crate::job::{ChunkState, Error, ErrorCode, ErrorInfo, JobEvent, JobState};
use crate::repository::durable::{Claim, Claimed, OwnerRow, Stored};
use crate::repository::memory::{Ask, Cell, Slot, now_ms};
use crate::repository::public::read;

/// Jobs claimed at once: so many, and twice as many as have ended since the claim before, up to the most. Who gets through
/// them takes more; who does not leaves them to others.
pub(super) const CLAIMS: usize = 16;
const MOST_CLAIMS: usize = 512;
/// Jobs read at once.
const LOADED: usize = 64;
/// For so long what was read of a claimed job counts: a control call finds it unchanged for longer before it writes by itself.
const FRESH: Duration = Duration::from_millis(500);
/// How long the end of a run is waited for whose job was lost and came back.
const LEFT_WITHIN: Duration = Duration::from_secs(10);

impl Manager {
    /// Goes on with jobs that are this manager's without its knowing, and that nobody else has taken over since. Gives their
    /// ids.
    pub(super) async fn take_back_given_up(self: &Arc<Self>, durable: &Arc<Durable>) -> Vec<Arc<str>> {
        let _under_way = durable.begin();
        let mut taken = Vec::new();
        if !durable.has_suspects() {
            return taken;
        }
        let _taking = durable.taking.lock().await;
        if self.is_closed() {
            return taken;
        }
        if durable.doubtful.swap(false, Ordering::AcqRel)
            && let Err(error) = self.look_for_own(durable).await
        {
            tracing::warn!(%error, "jobs of a claim without an answer could not be looked for");
            durable.doubtful.store(true, Ordering::Release);
        }
        for id in durable.suspected() {
            match self.take_back_one(durable, &id).await {
                Ok(true) => taken.push(id),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(job = %id, %error, "a job that may be this manager's could not be looked at");
                    if error.code != ErrorCode::StoreCorrupt {
                        durable.suspect(&id);
                    }
                }
            }
        }
        taken
    }

    /// Finds jobs that the store says are this manager's, and that it does not know.
    async fn look_for_own(self: &Arc<Self>, durable: &Arc<Durable>) -> Result<(), Error> {
        for id in durable.store.repository().owned(&durable.owner()).await? {
            if !self.knows(&id) {
                durable.suspect(&id);
            }
        }
        Ok(())
    }

    /// Whether a job is in hand here: it runs, waits, or has ended and is still to be written down.
    fn knows(&self, id: &str) -> bool {
        let in_cache = |cell: Arc<Cell>| {
            let slot = cell.lock();
            !slot.is_gone() && slot.kept.as_ref().is_some_and(|kept| kept.mine || kept.is_behind())
        };
        self.entry_of(id).is_some() || self.repository.cell(id).is_some_and(in_cache)
    }

    /// Whether the job was this manager's, and goes on.
    async fn take_back_one(self: &Arc<Self>, durable: &Arc<Durable>, id: &Arc<str>) -> Result<bool, Error> {
        if self.knows(id) {
            return Ok(false);
        }
        let Some(stored) = durable.store.repository().load(id).await? else { return Ok(false) };
        let open = matches!(stored.state, JobState::Pending | JobState::Running);
        if stored.owner.as_ref() != Some(&durable.owner()) || !open {
            return Ok(false);
        }
        let job = read(&stored)?;
        if !self.runs_job(&job) {
            self.release_stored(durable, &stored).await?;
            return Ok(false);
        }
        let (owner, name) = (durable.owner(), id.clone());
        let _ = tokio::task::spawn_blocking(move || kill_left_behind(&owner, &name, false)).await;
        // Whom it was taken from is in the record only, where a claim's answer was lost.
        let previous = job.owner.filter(|_| job.state == JobState::Running).unwrap_or_else(|| durable.owner());
        let owners = durable.store.repository().owners().await?;
        if self.knows(id) {
            return Ok(false);
        }
        let claimed = Claimed { id: id.clone(), previous: Some(previous), released: false };
        self.clear_the_ground(durable, &claimed, &owners).await;
        self.take_over(durable, &claimed, None).await?;
        Ok(true)
    }

    pub(super) fn is_taking(&self, durable: &Durable) -> bool {
        durable.runs && !durable.is_closed() && (durable.recover || durable.working.load(Ordering::Acquire)) && durable.is_safe()
    }

    /// How many jobs a claim may take.
    fn appetite(&self) -> usize {
        let ended = self.ended.swap(0, Ordering::Relaxed);
        (2 * ended as usize).clamp(CLAIMS, MOST_CLAIMS)
    }

    fn free_slots(&self) -> usize {
        // Those that run, wait, or are being taken: what is left of others in the queue does not count.
        (self.most_running as usize).saturating_sub(self.entries.len())
    }

    /// Takes over jobs; gives their ids.
    pub(super) async fn claim_round(self: &Arc<Self>, durable: &Arc<Durable>, only: Option<Arc<str>>) -> Result<Vec<Arc<str>>, Error> {
        let _under_way = durable.begin();
        let _taking = if only.is_none() { Some(durable.taking.lock().await) } else { None };
        let free = self.free_slots();
        // Who leaves has just given its jobs back.
        if only.is_none() && (free == 0 || self.is_closed()) {
            return Ok(Vec::new());
        }
        let repository = durable.store.repository();
        let owners = repository.owners().await?;
        let dead: Vec<Arc<str>> = owners
            .iter()
            .filter(|owner| !durable.was_here(&owner.id) && parse_place(&owner.place).is_some_and(|place| place.is_dead(&durable.here)))
            .map(|owner| owner.id.clone())
            .collect();
        let controls = only.is_some();
        // The store may have been away meanwhile, and the name given up that was good at the beginning.
        let owner = durable.owner();
        if !durable.is_safe() {
            return Ok(Vec::new());
        }
        let claim = Claim {
            owner,
            kinds: if controls { None } else { Some(durable.kinds.clone()) },
            most: if controls { 1 } else { free.min(self.appetite()) },
            dead: dead.clone(),
            unowned: !controls && durable.working.load(Ordering::Acquire),
            only,
        };
        let most = claim.most;
        let claimed = match (repository.claim(&claim).await, &claim.only) {
            (Ok(claimed), _) => claimed,
            (Err(error), only) => {
                // They may have been taken all the same.
                match only {
                    Some(id) => durable.suspect(id),
                    None => durable.doubtful.store(true, Ordering::Release),
                }
                return Err(error);
            }
        };
        if !controls {
            for claimed in claimed.chunks(LOADED) {
                self.take_over_all(durable, claimed, &owners).await;
            }
            if claimed.len() < most {
                // Their jobs are orphans with or without them.
                for owner in dead.into_iter().chain(durable.long_gone(&owners)) {
                    repository.retire(&owner).await?;
                }
            }
        }
        Ok(claimed.into_iter().map(|claimed| claimed.id).collect())
    }

    /// Takes over jobs that were claimed: they are read together, and brought in one by one.
    async fn take_over_all(self: &Arc<Self>, durable: &Arc<Durable>, claimed: &[Claimed], owners: &[OwnerRow]) {
        // A job that still ends here is read when it has.
        let ids: Vec<Arc<str>> = claimed.iter().filter(|claimed| self.entry_of(&claimed.id).is_none()).map(|claimed| claimed.id.clone()).collect();
        let read_at = Instant::now();
        let mut found: HashMap<Arc<str>, Stored> = match durable.store.repository().load_some(&ids).await {
            Ok(listing) => listing.jobs.into_iter().map(|stored| (stored.id.clone(), stored)).collect(),
            // Each is tried by itself: one that can't be read is nobody else's trouble.
            Err(_) => HashMap::new(),
        };
        for claimed in claimed {
            self.clear_the_ground(durable, claimed, owners).await;
            let stored = found.remove(&claimed.id).filter(|_| read_at.elapsed() < FRESH);
            if let Err(error) = self.take_over(durable, claimed, stored).await {
                tracing::error!(job = %claimed.id, %error, "a job could not be taken over");
                self.warn(&claimed.id, &format!("The job could not be taken over: {}", error.message), None);
                if error.code != ErrorCode::StoreCorrupt {
                    durable.suspect(&claimed.id);
                }
            }
        }
    }

    /// Kills what an owner that is gone left running of a job on this host.
    pub(super) async fn clear_the_ground(&self, durable: &Durable, claimed: &Claimed, owners: &[OwnerRow]) {
        let Some(previous) = claimed.previous.clone().filter(|previous| *previous != durable.owner() && !claimed.released) else { return };
        let place = owners.iter().find(|owner| owner.id == previous).and_then(|owner| parse_place(&owner.place));
        if place.as_ref().is_some_and(|place| !place.is_local(&durable.here)) {
            return;
        }
        // One that is not in the store any more was given up by all.
        let is_dead = place.is_none_or(|place| place.is_dead(&durable.here));
        let id = claimed.id.clone();
        let killed = tokio::task::spawn_blocking(move || kill_left_behind(&previous, &id, is_dead)).await.unwrap_or(0);
        if killed > 0 {
            tracing::warn!(job = %claimed.id, killed, "processes of a dead owner were killed");
        }
    }

    /// Brings a job that was claimed into the cache and has the driver told. `found`: what the store has of it, if that was
    /// just read.
    async fn take_over(self: &Arc<Self>, durable: &Arc<Durable>, claimed: &Claimed, found: Option<Stored>) -> Result<(), Error> {
        // What is left of the time when this manager had lost it ends first.
        let until = Instant::now() + LEFT_WITHIN;
        while self.entry_of(&claimed.id).is_some() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let stored = match found {
            Some(stored) => stored,
            None => match durable.store.repository().load(&claimed.id).await? {
                Some(stored) => stored,
                None => return Ok(()),
            },
        };
        // Claimed under a name that was given up meanwhile: free again.
        if stored.owner.as_ref() != Some(&durable.owner()) {
            return Ok(());
        }
        let job = read(&stored)?;
        if let Some(cell) = self.repository.cell(&claimed.id) {
            if let Some(entry) = self.entry_of(&claimed.id) {
                // A run that does not end keeps its slot until it does.
                self.withdraw(&entry);
                self.entries.unname(&entry);
            }
            self.repository.remove(&cell, &mut cell.lock(), true);
        }
        let cell = self.repository.create(job, false)?;
        let asks: Vec<Ask> = stored.requests.iter().filter_map(|body| serde_json::from_str(body).ok()).collect();
        let over = {
            let mut slot = cell.lock();
            let job = slot.job()?;
            let known = kept(job, true);
            job.rows.track();
            slot.kept = Some(Box::new(known));
            self.recover_job(claimed, &cell, &mut slot)?;
            self.answer_before(&cell, &mut slot, &asks)?
        };
        if asks.iter().any(|ask| matches!(ask, Ask::Delete)) {
            self.delete_owned(durable, &cell).await;
            return Ok(());
        }
        if over {
            return Ok(());
        }
        let entry = self.track(cell);
        if self.is_closed() {
            self.hand_back(&entry);
            return Ok(());
        }
        let needs = {
            let mut slot = entry.cell.lock();
            let job = slot.job()?;
            job.waiting_for = Some(WaitingFor::Slot);
            job.options.needed_objects()
        };
        self.notices.push(Notice::Recovered { ticket: entry.ticket, id: entry.cell.id.clone(), needs });
        Ok(())
    }

    fn was_here(&self, owner: &Arc<str>) -> bool {
        *owner == self.owner || self.durable.as_ref().is_some_and(|durable| durable.was_here(owner))
    }

    /// What a change of owner means for the job.
    fn recover_job(&self, claimed: &Claimed, cell: &Cell, slot: &mut Slot) -> Result<(), Error> {
        let now = now_ms();
        let crashed = claimed.previous.is_some() && !claimed.released && !claimed.previous.as_ref().is_some_and(|previous| self.was_here(previous));
        let job = slot.job()?;
        let (limit, policy, was_running) = (job.options.crash_retries, job.options.failure_policy, job.state == JobState::Running);
        let running: Vec<(u32, u32)> = (0..job.rows.total())
            .filter_map(|index| Some((index, job.rows.get(index))).filter(|(_, row)| row.state == ChunkState::Running))
            .map(|(index, row)| (index, row.attempt))
            .collect();
        let mut failed = None;
        if was_running {
            for (index, attempt) in running {
                if !crashed {
                    self.repository.change(cell, slot, JobEvent::ChunkStopped { index, attempt }, now)?;
                    continue;
                }
                let job = slot.job()?;
                let crashes = job.rows.detail(index).map_or(0, |detail| detail.crashes) + 1;
                let last = crashes > limit;
                let id = job.spec.chunk_id(index);
                let message = if last {
                    format!("Chunk {id} failed: the process that ran it died {crashes} times")
                } else {
                    format!("Chunk {id} was interrupted: the process that ran it died")
                };
                let mut error = ErrorInfo::new(ErrorCode::ChunkFailed, message);
                error.chunk_id = Some(id);
                error.attempt = Some(attempt);
                if last {
                    failed.get_or_insert(error.clone());
                }
                self.repository.change(cell, slot, JobEvent::ChunkCrashed { index, attempt, error: Box::new(error), last }, now)?;
            }
        }
        if was_running || crashed {
            self.repository.change(cell, slot, JobEvent::Recovered { previous: claimed.previous.clone(), crashed }, now)?;
        }
        if let Some(error) = failed.filter(|_| policy == FailurePolicy::FailFast) {
            self.repository.change(cell, slot, JobEvent::Failed { error: Box::new(error) }, now)?;
        }
        // The ownership itself has changed.
        self.repository.changed(&cell.id, slot);
        Ok(())
    }

    /// Requests that the owner before did not come to. True: there is nothing left to run.
    fn answer_before(&self, cell: &Cell, slot: &mut Slot, asks: &[Ask]) -> Result<bool, Error> {
        let pending = slot.job()?.state == JobState::Pending;
        if pending {
            let cancel = asks.iter().find(|ask| matches!(ask, Ask::Cancel { .. }));
            let pause = asks.iter().find(|ask| matches!(ask, Ask::Pause { .. }));
            if let Some(ask) = cancel.or(pause) {
                self.change_now(cell, slot, ask.clone(), now_ms())?;
            }
        }
        Ok(slot.job()?.state != JobState::Pending)
    }

    /// The driver is ready for a job that was taken over: it waits for a slot.
    pub fn queue_up(&self, ticket: u32) {
        let Some(entry) = self.entry(ticket) else { return };
        let mut slot = entry.cell.lock();
        slot.queued = self.queue_key(&entry);
        drop(slot);
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            self.hand_back(&entry);
        } else {
            state.queue.push_back(entry);
        }
    }

    /// A job that was taken over can't go on without what only `resumeJob` can give: it is nobody's until then.
    pub fn lack(&self, ticket: u32, what: &str) {
        let Some(entry) = self.entry(ticket) else { return };
        self.forget(&entry);
        entry.cell.lock().queued = 0;
        let message = format!("The job was recovered, and waits: it needs `{what}`, which only resumeJob(id, options) can give");
        let mut slot = entry.cell.lock();
        if let Ok(job) = slot.job() {
            job.waiting_for = Some(WaitingFor::Executor);
        }
        let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Warning { message: message.into(), error: None }, now_ms());
    }

    /// Jobs in memory that are to run, and that nobody works on.
    pub fn interrupted(&self) -> Vec<Arc<str>> {
        let cells = self.repository.unfinished();
        cells.into_iter().filter(|cell| self.is_nobodys(&mut cell.lock())).map(|cell| cell.id.clone()).collect()
    }

    fn is_nobodys(&self, slot: &mut Slot) -> bool {
        let queue = (slot.queued >> 32) as u32;
        let waits = slot.queued != 0 && super::LIVE.lock().contains(&queue);
        let owned = slot.owner().is_some();
        if waits || owned {
            return false;
        }
        let Ok(job) = slot.job() else { return false };
        let open = match job.state {
            JobState::Running => true,
            JobState::Pending => job.waiting_for != Some(WaitingFor::Executor),
            _ => false,
        };
        open && self.runs_job(job)
    }

    /// Takes over a job of a repository that knows no owners, if nobody in this process works on it. Gives its ticket: tell
    /// [`queue_up`](Self::queue_up) when its driver is ready.
    pub fn take_here(&self, id: &str) -> Option<u32> {
        let cell = self.repository.visible(id)?;
        {
            let mut slot = cell.lock();
            if self.entry_of(id).is_some() || slot.is_gone() || !self.is_nobodys(&mut slot) {
                return None;
            }
            let job = slot.job().ok()?;
            let running = job.state == JobState::Running;
            let claimed = Claimed { id: cell.id.clone(), previous: job.owner.clone().filter(|_| running), released: !running };
            self.recover_job(&claimed, &cell, &mut slot).ok()?;
            let job = slot.job().ok()?;
            if job.state != JobState::Pending {
                return None;
            }
            job.waiting_for = Some(WaitingFor::Slot);
            // Taken from now on, though it is not in the queue yet.
            slot.queued = u64::from(self.number) << 32 | u64::from(u32::MAX);
        }
        Some(self.track(cell).ticket)
    }

    /// What a job can't go on without that is not written down.
    pub fn needs(&self, ticket: u32) -> Option<&'static str> {
        self.entry(ticket)?.cell.lock().job().ok()?.options.needed_objects()
    }

    /// Takes over interrupted jobs now; gives their ids.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE.
    pub async fn recover_now(self: Arc<Self>) -> Result<Vec<Arc<str>>, Error> {
        let Some(durable) = self.durable.clone() else { return Ok(Vec::new()) };
        self.refuse_when_closed()?;
        if !durable.runs {
            return Ok(Vec::new());
        }
        durable.until_enrolled().await?;
        let mut all = self.take_back_given_up(&durable).await;
        loop {
            let ids = self.claim_round(&durable, None).await?;
            let more = ids.len() >= CLAIMS;
            all.extend(ids);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Also takes jobs that nobody has had yet, or stops doing so.
    pub fn work(&self, on: bool) {
        if let Some(durable) = &self.durable {
            durable.working.store(on, Ordering::Release);
            durable.poke.notify_one();
        }
    }
}
