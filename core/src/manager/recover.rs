//! Ownership: renewing the lease, noticing its loss before it ends, taking over jobs whose owner is gone, and hearing what
//! others did to the store.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::commit::kept;
use super::durable::Durable;
use super::owner::{kill_left_behind, parse_place};
use super::{Entry, Manager, Notice, Stopping};
use crate::job::options::FailurePolicy;
use crate::job::state::WaitingFor;
use crate::job::{ChunkState, Error, ErrorCode, ErrorInfo, JobEvent, JobState};
use crate::planted::{Fault, is_planted};
use crate::repository::durable::{Claim, Claimed, Mark, OwnerRow};
use crate::repository::memory::{Ask, Cell, Slot, now_ms};
use crate::repository::public::read;

/// How often the store and the owners on this host are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Claims are not made more often, however much happens.
const BETWEEN_CLAIMS: Duration = Duration::from_millis(30);
/// Jobs claimed at once: so many, and twice as many as have ended since the claim before, up to the most. Who gets through
/// them takes more; who does not leaves them to others.
const CLAIMS: usize = 16;
const MOST_CLAIMS: usize = 512;
/// How long the end of a run is waited for whose job was lost and came back.
const LEFT_WITHIN: Duration = Duration::from_secs(10);
/// How often a run is looked at that is just beginning or ending, a millisecond apart.
const ENDING_LOOKS: u32 = 5_000;
/// Events fetched at once.
const EVENTS: usize = 2_000;
/// Pages of events that are searched for the jobs that they are about.
const MOST_PAGES: usize = 4;

impl Durable {
    /// Nothing may be done in the name of this owner any more after this much silence: a margin before others may take over.
    fn patience(&self) -> Duration {
        self.lease.mul_f64(0.8)
    }

    fn silence(&self) -> Duration {
        if is_planted(Fault::LeaseRenewal) {
            return Duration::ZERO;
        }
        self.renewed.lock().elapsed()
    }

    /// Whether the lease is fresh enough to take on more.
    fn is_safe(&self) -> bool {
        self.silence() < self.patience() / 2
    }

    async fn enroll(&self) -> Result<(), Error> {
        let place = serde_json::to_string(&self.here).unwrap_or_default();
        let asked = Instant::now();
        let owner = self.owner();
        self.store.repository().enroll(&owner, &place, self.lease).await?;
        *self.renewed.lock() = asked;
        self.enrolled.send_replace(Some(Ok(())));
        Ok(())
    }

    /// What it owned under earlier names is free, once nothing of it runs here any more. What can't be stopped in time is left
    /// to the end of its lease.
    async fn retire_former(&self, manager: &Weak<Manager>) {
        let until = Instant::now() + self.lease;
        while manager.upgrade().is_some_and(|manager| manager.leaves_behind()) {
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for owner in self.former() {
            if let Err(error) = self.store.repository().retire(&owner).await {
                tracing::warn!(%error, "an earlier name could not be given back; its lease ends by itself");
            }
        }
    }
}

impl Manager {
    /// Renews the lease until the manager is gone or closed. What can't be renewed in time is given up before it ends.
    pub(super) async fn lease_loop(weak: Weak<Manager>, durable: Arc<Durable>) {
        while let Err(error) = durable.enroll().await {
            tracing::warn!(%error, "the store does not take this manager's name");
            durable.enrolled.send_replace(Some(Err(error)));
            tokio::time::sleep(TICK.min(durable.lease / 3)).await;
            if weak.strong_count() == 0 || durable.is_closed() {
                durable.enrolled.send_replace(Some(Err(Error::new(ErrorCode::Closed, "The manager is closed"))));
                return;
            }
        }
        let every = (durable.lease / 4).max(Duration::from_millis(5));
        let mut adrift = false;
        let mut failed = false;
        while weak.strong_count() > 0 && !durable.is_closed() {
            // Not slept over: the moment from which nothing may be done any more. After an answer that came late there is no
            // time to lose before the next one is asked for.
            let rest = Some(durable.patience().saturating_sub(durable.silence())).filter(|rest| !rest.is_zero()).unwrap_or(every);
            let due = if failed || adrift { every } else { every.saturating_sub(durable.silence()) };
            tokio::time::sleep(due.min(Duration::from_millis(500)).min(rest)).await;
            // Stopped, or asleep with the machine: whatever was ours may be another's by now.
            if !adrift && durable.silence() >= durable.patience() {
                adrift = Self::let_go(&weak, &durable);
            }
            if adrift {
                match tokio::time::timeout(durable.patience(), durable.enroll()).await {
                    Ok(Ok(())) => {
                        adrift = false;
                        // Beside the renewals: a store that is away again must not keep the loop from noticing it.
                        let (former, manager) = (durable.clone(), weak.clone());
                        durable.store.spawn(async move { former.retire_former(&manager).await });
                    }
                    Ok(Err(error)) => tracing::warn!(%error, "the lease can't be taken again"),
                    Err(_) => tracing::warn!("the store did not answer in time"),
                }
                continue;
            }
            if durable.silence() < every.mul_f64(0.9) {
                continue;
            }
            failed = false;
            let asked = Instant::now();
            let left = Some(durable.patience().saturating_sub(durable.silence())).filter(|left| !left.is_zero()).unwrap_or(every);
            let owner = durable.owner();
            match tokio::time::timeout(left, durable.store.repository().renew(&owner, durable.lease)).await {
                // Granted, but perhaps after the lease was over and others had taken what was ours.
                Ok(Ok(true)) if durable.silence() >= durable.patience() => adrift = Self::let_go(&weak, &durable),
                Ok(Ok(true)) => *durable.renewed.lock() = asked,
                // Somebody took this owner for dead.
                Ok(Ok(false)) => adrift = Self::let_go(&weak, &durable),
                Ok(Err(error)) => {
                    failed = true;
                    tracing::warn!(%error, "the lease could not be renewed");
                }
                Err(_) => tracing::warn!("the store did not answer in time to renew the lease"),
            }
            // That has used up the patience: what runs has the margin to end in, not less.
            if !adrift && durable.silence() >= durable.patience() {
                adrift = Self::let_go(&weak, &durable);
            }
        }
        if !durable.is_closed() {
            // Forgotten without being closed: its jobs are free at once.
            let _ = durable.store.repository().retire(&durable.owner()).await;
        }
    }

    /// Stops everything that is owned: the lease can't be trusted any more. Others, or this manager under a new name, take it
    /// over; so they do with what has ended here and was not written down. True: there is nothing to hold on to before a new
    /// name was taken.
    fn let_go(weak: &Weak<Manager>, durable: &Arc<Durable>) -> bool {
        let name = durable.change_owner();
        let Some(manager) = weak.upgrade() else { return true };
        for cell in manager.repository.cells() {
            let works = manager.entry_of(&cell.id).is_some();
            let known = cell.lock().kept.as_ref().is_some_and(|kept| kept.version > 0 && (kept.mine || works));
            if known {
                manager.lose(&cell, name.clone());
            }
        }
        true
    }

    /// Hears of the store's changes, and takes over what is to be taken over, until the manager is gone or closed.
    pub(super) async fn watch_loop(weak: Weak<Manager>, durable: Arc<Durable>) {
        while durable.until_enrolled().await.is_err() {
            if weak.strong_count() == 0 || durable.is_closed() {
                return;
            }
        }
        let repository = durable.store.repository().clone();
        let mut mark: Option<Mark> = None;
        let mut claimed_at: Option<Instant> = None;
        let mut due = true;
        while weak.strong_count() > 0 && !durable.is_closed() {
            let limit = if due { BETWEEN_CLAIMS.saturating_sub(claimed_at.map_or(BETWEEN_CLAIMS, |at| at.elapsed())) } else { TICK };
            if !limit.is_zero() {
                tokio::select! {
                    () = repository.changed(limit) => {}
                    () = durable.poke.notified() => {}
                }
            }
            let Some(manager) = weak.upgrade() else { break };
            match repository.mark().await {
                Ok(now) => {
                    let before = mark.unwrap_or_default();
                    if mark.is_none() {
                        manager.repository.log.begin_at(now.sequence);
                        durable.begun.send_replace(true);
                    }
                    // What could not be read, or answered yet, is asked for again.
                    let heard = (now.requests == before.requests && mark.is_some()) || manager.hear_requests(&durable).await;
                    if now.sequence != before.sequence || manager.repository.log.latest() < now.sequence {
                        due = true;
                        manager.fetch_events(&durable, now.sequence).await;
                        manager.tell_awaited(&durable, mark.map(|mark| mark.sequence), now.sequence).await;
                    }
                    mark = Some(Mark { requests: if heard { now.requests } else { u64::MAX }, ..now });
                }
                Err(error) => {
                    tracing::warn!(%error, "the store could not be looked at");
                    tokio::time::sleep(TICK).await;
                    continue;
                }
            }
            let elapsed = claimed_at.is_none_or(|at| at.elapsed() >= if due { BETWEEN_CLAIMS } else { TICK });
            if elapsed {
                claimed_at = Some(Instant::now());
                due = false;
                if durable.is_safe() {
                    manager.take_back_given_up(&durable).await;
                }
                if manager.is_taking(&durable) {
                    match manager.claim_round(&durable, None).await {
                        Ok(ids) => {
                            due = ids.len() >= CLAIMS;
                            if ids.len() > CLAIMS {
                                // It gets through them fast.
                                claimed_at = None;
                            }
                        }
                        Err(error) => tracing::warn!(%error, "jobs could not be taken over"),
                    }
                }
                durable.looked.send_modify(|rounds| *rounds += 1);
            }
        }
    }

    /// Goes on with jobs that are this manager's without its knowing, and that nobody else has taken over since. Gives their
    /// ids.
    async fn take_back_given_up(self: &Arc<Self>, durable: &Arc<Durable>) -> Vec<Arc<str>> {
        let _under_way = durable.begin();
        let mut taken = Vec::new();
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

    /// Finds jobs that the store says are this manager's, by claiming its own anew.
    async fn look_for_own(self: &Arc<Self>, durable: &Arc<Durable>) -> Result<(), Error> {
        let owner = durable.owner();
        let most = self.entries.read().len() + MOST_CLAIMS;
        let kinds = Some(durable.kinds.clone());
        let claim = Claim { owner: owner.clone(), kinds, most, dead: vec![owner], unowned: false, only: None };
        let claimed = durable.store.repository().claim(&claim).await.inspect_err(|_| durable.doubtful.store(true, Ordering::Release))?;
        for job in claimed {
            if !self.knows(&job.id) {
                durable.suspect(&job.id);
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
        let _ = tokio::task::spawn_blocking(move || kill_left_behind(&owner, &name)).await;
        // Whom it was taken from is in the record only, where a claim's answer was lost.
        let previous = job.owner.filter(|_| job.state == JobState::Running).unwrap_or_else(|| durable.owner());
        let owners = durable.store.repository().owners().await?;
        let claimed = Claimed { id: id.clone(), previous: Some(previous), released: false };
        self.take_over(durable, &claimed, &owners).await?;
        Ok(true)
    }

    fn is_taking(&self, durable: &Durable) -> bool {
        durable.runs && !durable.is_closed() && (durable.recover || durable.working.load(Ordering::Acquire)) && durable.is_safe()
    }

    /// Whether runs of jobs that are lost have not ended yet.
    fn leaves_behind(&self) -> bool {
        let running: Vec<_> = self.entries.read().values().filter(|entry| entry.run.lock().is_some()).cloned().collect();
        running.iter().any(|entry| entry.cell.lock().is_gone())
    }

    async fn fetch_events(&self, durable: &Durable, upto: u64) {
        if !self.repository.log.is_watched() {
            self.repository.log.skip_to(upto);
            return;
        }
        loop {
            match durable.store.repository().events(self.repository.log.latest() + 1, EVENTS).await {
                Ok(events) if events.is_empty() => return,
                Ok(events) => {
                    let more = events.len() >= EVENTS;
                    self.repository.log.add_stored(events);
                    if !more {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "events could not be read");
                    return;
                }
            }
        }
    }

    /// Tells those who wait for jobs of others that something happened to them after the event `from`; `None`: any may be meant.
    async fn tell_awaited(&self, durable: &Durable, from: Option<u64>, upto: u64) {
        if durable.awaited.lock().is_empty() {
            return;
        }
        let concerned = match from {
            Some(from) => Self::changed_jobs(durable, from, upto).await,
            None => None,
        };
        for id in durable.awaited.lock().iter() {
            if concerned.as_ref().is_none_or(|ids| ids.contains(id)) {
                self.notices.push(Notice::Changed { id: id.clone() });
            }
        }
    }

    /// The jobs to whose life as a whole the events after `from` belong; `None`: they are too many, or can't be read.
    async fn changed_jobs(durable: &Durable, mut from: u64, upto: u64) -> Option<HashSet<Arc<str>>> {
        let mut ids = HashSet::new();
        for _ in 0..MOST_PAGES {
            if from >= upto {
                return Some(ids);
            }
            let events = durable.store.repository().events(from + 1, EVENTS).await.ok()?;
            from = events.last().map_or(upto, |event| event.sequence);
            ids.extend(events.into_iter().filter(|event| event.body.starts_with("\"type\":\"job.")).map(|event| event.job));
        }
        None
    }

    /// Answers what others ask of the jobs that are owned here. False: not all of it.
    async fn hear_requests(self: &Arc<Self>, durable: &Arc<Durable>) -> bool {
        let requests = match durable.store.repository().requests(&durable.owner()).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "requests could not be read");
                return false;
            }
        };
        let mut all = true;
        for (id, body) in requests {
            let Ok(ask) = serde_json::from_str::<Ask>(&body) else { continue };
            match self.entry_of(&id) {
                Some(entry) => self.answer_asked(durable, &entry, ask).await,
                // Being taken over, perhaps.
                None => all = false,
            }
        }
        all
    }

    /// A request about a job that runs here or waits in the queue.
    async fn answer_asked(self: &Arc<Self>, durable: &Arc<Durable>, entry: &Arc<Entry>, ask: Ask) {
        for _ in 0..ENDING_LOOKS {
            if self.stop(entry, Stopping::from(ask.clone())) {
                return;
            }
            if let Ask::Delete = ask {
                if self.leave_queue(entry) {
                    self.notices.push(Notice::Dropped { ticket: entry.ticket, kept: false });
                    self.delete_owned(durable, &entry.cell).await;
                    return;
                }
            } else if self.answer_waiting(entry, &ask) {
                return;
            }
            // It was started meanwhile, or is just ending.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A request about a job that waits in the queue. False: it runs.
    fn answer_waiting(&self, entry: &Arc<Entry>, ask: &Ask) -> bool {
        let mut slot = entry.cell.lock();
        match slot.job().map(|job| job.state) {
            _ if slot.is_gone() => true,
            Ok(JobState::Running) => false,
            Ok(JobState::Pending) => {
                let _ = self.change_now(&entry.cell, &mut slot, ask.clone(), now_ms());
                drop(slot);
                self.forget(entry);
                self.notices.push(Notice::Dropped { ticket: entry.ticket, kept: matches!(ask, Ask::Pause { .. }) });
                true
            }
            _ => true,
        }
    }

    /// How many jobs a claim may take.
    fn appetite(&self) -> usize {
        let ended = self.ended.swap(0, Ordering::Relaxed);
        (2 * ended as usize).clamp(CLAIMS, MOST_CLAIMS)
    }

    fn free_slots(&self) -> usize {
        // Those that run, wait, or are being taken: what is left of others in the queue does not count.
        (self.most_running as usize).saturating_sub(self.entries.read().len())
    }

    /// Takes over jobs; gives their ids.
    pub(super) async fn claim_round(self: &Arc<Self>, durable: &Arc<Durable>, only: Option<Arc<str>>) -> Result<Vec<Arc<str>>, Error> {
        let _under_way = durable.begin();
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
        let claim = Claim {
            owner: durable.owner(),
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
            for claimed in &claimed {
                if let Err(error) = self.take_over(durable, claimed, &owners).await {
                    tracing::error!(job = %claimed.id, %error, "a job could not be taken over");
                    self.warn(&claimed.id, &format!("The job could not be taken over: {}", error.message), None);
                    if error.code != ErrorCode::StoreCorrupt {
                        durable.suspect(&claimed.id);
                    }
                }
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

    /// Kills what an owner that is gone left running of a job on this host.
    pub(super) async fn clear_the_ground(&self, durable: &Durable, claimed: &Claimed, owners: &[OwnerRow]) {
        let Some(previous) = claimed.previous.clone().filter(|previous| *previous != durable.owner() && !claimed.released) else { return };
        let place = owners.iter().find(|owner| owner.id == previous).and_then(|owner| parse_place(&owner.place));
        if place.is_some_and(|place| !place.is_local(&durable.here)) {
            return;
        }
        let id = claimed.id.clone();
        let killed = tokio::task::spawn_blocking(move || kill_left_behind(&previous, &id)).await.unwrap_or(0);
        if killed > 0 {
            tracing::warn!(job = %claimed.id, killed, "processes of a dead owner were killed");
        }
    }

    /// Brings a job that was claimed into the cache and has the driver told.
    async fn take_over(self: &Arc<Self>, durable: &Arc<Durable>, claimed: &Claimed, owners: &[OwnerRow]) -> Result<(), Error> {
        self.clear_the_ground(durable, claimed, owners).await;
        // What is left of the time when this manager had lost it ends first.
        let until = Instant::now() + LEFT_WITHIN;
        while self.entry_of(&claimed.id).is_some() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let Some(stored) = durable.store.repository().load(&claimed.id).await? else { return Ok(()) };
        let job = read(&stored)?;
        if let Some(cell) = self.repository.cell(&claimed.id) {
            if let Some(entry) = self.entry_of(&claimed.id) {
                self.forget(&entry);
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

    /// Resolves once events of the durable store are followed.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE, while the store can't be reached.
    pub async fn begun(self: Arc<Self>) -> Result<(), Error> {
        let Some(durable) = self.durable.clone() else { return Ok(()) };
        durable.until_enrolled().await?;
        let _ = durable.begun.subscribe().wait_for(|begun| *begun).await;
        Ok(())
    }

    /// Also takes jobs that nobody has had yet, or stops doing so.
    pub fn work(&self, on: bool) {
        if let Some(durable) = &self.durable {
            durable.working.store(on, Ordering::Release);
            durable.poke.notify_one();
        }
    }
}
