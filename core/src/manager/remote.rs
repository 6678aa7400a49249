//! Control calls and reads of jobs on a durable store, whoever owns them. What is owned here is answered by the run, what
//! another manager owns is asked of it, and what nobody owns is changed at once.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::commit::{kept, whole};
use super::durable::Durable;
use super::owner::parse_place;
use super::{Controlled, Entry, Manager};
use crate::job::state::{Answer, Control, WaitingFor, answer};
use crate::job::status::{Live, write_status};
use crate::job::{Error, ErrorCode, Job, JobEvent, JobState, Options};
use crate::repository::durable::{Action, Expect, Holder, LogStream, Outcome, Ownership, Stored, Write};
use crate::repository::event_log::Logged;
use crate::repository::memory::{Ask, Cell, now_ms};
use crate::repository::public::{self, read};

/// Another owner's answer is looked for at least so often.
const LOOK: Duration = Duration::from_millis(200);

/// How often a job that is in between is looked at before it counts as free.
const BETWEEN: u32 = 200;

/// A job as it is read from a durable store.
pub struct Fetched {
    /// JSON of the public status.
    pub status: String,
    /// The job, when it has lists that the status leaves out.
    pub long: Option<Job>,
}

/// What a write to the store came to.
enum Written {
    Done,
    /// Somebody was faster: look again.
    Again,
}

impl Manager {
    fn durable(&self) -> Result<Arc<Durable>, Error> {
        self.durable.clone().ok_or_else(|| Error::new(ErrorCode::Internal, "The repository is not a durable one"))
    }

    async fn load(durable: &Durable, id: &str) -> Result<Option<Stored>, Error> {
        if !crate::job::record::is_id(id) {
            return Ok(None);
        }
        let id = id.to_owned();
        durable.store.call(|repository| async move { repository.load(&id).await }).await
    }

    /// The status of a job as it is committed, with what is known of its run when that is here.
    pub async fn fetch(self: Arc<Self>, id: String) -> Result<Option<Fetched>, Error> {
        let durable = self.durable()?;
        let Some(stored) = Self::load(&durable, &id).await? else { return Ok(None) };
        let renewed_at = stored.renewed_at;
        let mut job = read(&stored)?;
        let mut live = Live { lease_renewed_at: renewed_at, ..Live::default() };
        if let Some(cell) = self.repository.cell(&id)
            && let mut slot = cell.lock()
            && !slot.is_gone()
            && let Ok(here) = slot.job()
            && here.attempt == job.attempt
            && here.state == JobState::Running
            && job.state == JobState::Running
        {
            job.progress_peak = job.progress_peak.max(here.progress_peak);
            if let Some(at) = here.extras.as_ref().and_then(|extras| extras.last_output_at) {
                job.extras_mut().last_output_at = Some(at);
            }
            live = Live { lease_renewed_at: renewed_at, ..self.live(here) };
        }
        let mut status = String::with_capacity(512 + stored.spec.len());
        write_status(&job, live, false, &mut status);
        let long = status.contains("\"$long\":{");
        Ok(Some(Fetched { status, long: long.then_some(job) }))
    }

    /// The job itself, as it is committed.
    pub async fn fetch_job(self: Arc<Self>, id: String) -> Result<Job, Error> {
        let durable = self.durable()?;
        match Self::load(&durable, &id).await? {
            Some(stored) => read(&stored),
            None => Err(Error::not_found(&id)),
        }
    }

    /// What a stream of an attempt said; `None` for the attempt: the latest.
    pub async fn fetch_log(self: Arc<Self>, id: String, chunk_id: u64, attempt: Option<u32>, stream: LogStream) -> Result<String, Error> {
        let none = |what: String| Error::new(ErrorCode::NotFound, what);
        let Ok(durable) = self.durable() else { return self.log_here(&id, chunk_id, attempt, stream) };
        let job = self.clone().fetch_job(id.clone()).await?;
        let index = job.spec.index_of(chunk_id).ok_or_else(|| none(format!("Job \"{id}\" has no chunk {chunk_id}")))?;
        let latest = job.rows.get(index).attempt;
        let wanted = attempt.unwrap_or(latest);
        if wanted == 0 || wanted > latest {
            return Err(none(format!("Chunk {chunk_id} of job \"{id}\" has no attempt {wanted}")));
        }
        // As it is said, where the program runs here; of others it is there once the attempt has ended.
        if let Some(text) = self.entry_of(&id).and_then(|entry| self.live_logs.said(entry.ticket, index, wanted, stream)) {
            return Ok(text);
        }
        let cell = self.repository.cell(&id);
        if let Some(text) = cell.as_ref().and_then(|cell| cell.lock().logs.as_ref()?.get(index, wanted, stream).cloned()) {
            return Ok(text.to_string());
        }
        let read = || {
            let id = id.clone();
            durable.store.call(move |repository| async move { repository.read_log(&id, index, wanted, stream).await })
        };
        let mut found = read().await?;
        if let (None, Some(cell)) = (&found, &cell)
            && self.cell_committed(cell).await.is_ok()
        {
            // It was on its way.
            found = read().await?;
        }
        // What was said by an attempt of which nothing is kept is nothing.
        Ok(found.unwrap_or_default())
    }

    fn log_here(&self, id: &str, chunk_id: u64, attempt: Option<u32>, stream: LogStream) -> Result<String, Error> {
        let none = |what: String| Error::new(ErrorCode::NotFound, what);
        let cell = self.repository.visible(id).ok_or_else(|| Error::not_found(id))?;
        let (index, wanted, tail) = {
            let mut slot = cell.lock();
            let job = slot.job()?;
            let index = job.spec.index_of(chunk_id).ok_or_else(|| none(format!("Job \"{id}\" has no chunk {chunk_id}")))?;
            let latest = job.rows.get(index).attempt;
            let wanted = attempt.unwrap_or(latest);
            if wanted == 0 || wanted > latest {
                return Err(none(format!("Chunk {chunk_id} of job \"{id}\" has no attempt {wanted}")));
            }
            let tail = job.rows.output(index).filter(|_| wanted == latest).map(|output| match stream {
                LogStream::Stdout => output.stdout.to_string(),
                LogStream::Stderr => output.stderr.to_string(),
            });
            (index, wanted, tail)
        };
        // What ends meanwhile is found as it was handed on.
        let live = self.entry_of(id).and_then(|entry| self.live_logs.said(entry.ticket, index, wanted, stream));
        let whole = || cell.lock().logs.as_ref()?.get(index, wanted, stream).map(|text| text.to_string());
        Ok(live.or_else(whole).or(tail).unwrap_or_default())
    }

    /// Pauses, cancels or deletes a job on a durable store. [`Controlled::Stopping`]: it is owned here and being stopped,
    /// watch it; in every other case it has happened.
    pub async fn control_stored(self: Arc<Self>, id: String, control: Control, ask: Ask, strict: bool) -> Result<Controlled, Error> {
        self.refuse_when_closed()?;
        let durable = self.durable()?;
        durable.until_enrolled().await?;
        let mut asked = false;
        let mut between = 0;
        loop {
            if let Some(entry) = self.entry_of(&id)
                && let Some(answer) = self.control_owned(&durable, &entry, control, &ask, strict).await?
            {
                return Ok(answer);
            }
            let found = match Self::load(&durable, &id).await {
                // Nobody can go on with what can't be read: it only has to go.
                Err(error) if error.code == ErrorCode::StoreCorrupt && matches!(control, Control::Delete) => {
                    durable.store.call(|repository| async move { public::delete(&repository, &id).await }).await?;
                    return Ok(Controlled::Done);
                }
                found => found?,
            };
            let Some(stored) = found else {
                // Asked before and gone now: that is what a delete wanted.
                return match (control, strict && !asked) {
                    (Control::Delete, false) if asked => Ok(Controlled::Done),
                    (_, true) => Err(Error::not_found(&id)),
                    _ => Ok(Controlled::Nothing),
                };
            };
            match answer(stored.state, control) {
                Answer::AlreadyDone if asked => return Ok(Controlled::Done),
                Answer::AlreadyDone => return Ok(Controlled::Already),
                Answer::Nothing if asked || !strict => return Ok(Controlled::Nothing),
                Answer::Nothing => return Err(super::control::not_in(&id, control, stored.state)),
                Answer::Change | Answer::Stop => {}
            }
            let here = stored.owner.as_ref() == Some(&durable.owner());
            if here && between < BETWEEN {
                // Being taken over, or given back, here at this moment.
                between += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
            if here || self.is_free(&durable, &stored).await? {
                match self.change_stored(&durable, stored, &ask).await {
                    Ok(Written::Done) => return Ok(Controlled::Done),
                    Ok(Written::Again) => continue,
                    Err(error) => {
                        // It may be this manager's now, which does not know it.
                        durable.suspect(&id.as_str().into());
                        return Err(error);
                    }
                }
            }
            if !asked {
                asked = true;
                let (job, body) = (id.clone(), serde_json::to_string(&ask).unwrap_or_default());
                durable.store.call(|repository| async move { repository.request(&job, &body).await }).await?;
            }
            let wait = durable.store.call(|repository| async move {
                repository.changed(LOOK).await;
                Ok(())
            });
            wait.await?;
            self.refuse_when_closed()?;
        }
    }

    /// `None`: the job slipped out of this manager's hands meanwhile.
    async fn control_owned(
        self: &Arc<Self>,
        durable: &Arc<Durable>,
        entry: &Arc<Entry>,
        control: Control,
        ask: &Ask,
        strict: bool,
    ) -> Result<Option<Controlled>, Error> {
        let state = {
            let mut slot = entry.cell.lock();
            if slot.is_gone() {
                return Ok(None);
            }
            slot.job()?.state
        };
        if control == Control::Delete && state != JobState::Running {
            // Started meanwhile: looked at again.
            if !self.leave_queue(entry) {
                return Ok(None);
            }
            let _under_way = durable.begin();
            // Another's by now, it is asked for there.
            return Ok(self.delete_owned(durable, &entry.cell).await.then_some(Controlled::Done));
        }
        let answer = self.control_now(&entry.cell.id, control, ask, strict);
        if !matches!(answer, Ok(None | Some(Controlled::Stopping))) {
            // Also where the job has ended before: whoever is told so must find it so, whatever happens to this process.
            self.cell_committed(&entry.cell).await?;
        }
        answer
    }

    /// Whether nobody works on a job, or only one who is gone: then it belongs to this manager now.
    async fn is_free(self: &Arc<Self>, durable: &Arc<Durable>, stored: &Stored) -> Result<bool, Error> {
        let Some(owner) = stored.owner.clone().filter(|_| !stored.released) else { return Ok(true) };
        if owner == durable.owner() {
            return Ok(false);
        }
        let here = durable.here.clone();
        let owners = durable.store.call(|repository| async move { repository.owners().await }).await?;
        let row = owners.iter().find(|row| row.id == owner);
        let gone = row.is_none_or(|row| row.expired || parse_place(&row.place).is_some_and(|place| place.is_dead(&here)));
        if !gone {
            return Ok(false);
        }
        let (manager, durable, id) = (self.clone(), durable.clone(), stored.id.clone());
        let store = durable.store.clone();
        store
            .call(move |_| async move {
                let claimed = manager.claim_round(&durable, Some(id.clone())).await?;
                if !claimed.is_empty() {
                    let claimed = crate::repository::durable::Claimed { id, previous: Some(owner), released: false };
                    manager.clear_the_ground(&durable, &claimed, &owners).await;
                }
                Ok(!claimed.is_empty())
            })
            .await
    }

    /// Changes a job that nobody works on.
    async fn change_stored(&self, durable: &Arc<Durable>, stored: Stored, ask: &Ask) -> Result<Written, Error> {
        let stored = match Self::load(durable, &stored.id).await? {
            Some(stored) => stored,
            None => return Ok(Written::Again),
        };
        let holder = match &stored.owner {
            Some(owner) if *owner == durable.owner() => Holder::Is(owner.clone()),
            Some(_) if !stored.released => return Ok(Written::Again),
            _ => Holder::Nobody,
        };
        let expect = Expect::At { version: stored.version, holder };
        let now = now_ms();
        if let Ask::Delete = ask {
            let event = Logged::of_id(stored.id.clone(), JobEvent::Deleted, now);
            let write = Write { id: stored.id, expect, action: Action::Delete { event: event.to_write() } };
            return Ok(written(&self.write(durable, write, vec![event]).await?));
        }
        let mut job = read(&stored)?;
        let event = match ask {
            Ask::Pause { .. } => JobEvent::Paused,
            Ask::Cancel { reason } => JobEvent::Cancelled { reason: reason.clone() },
            Ask::Delete | Ask::Withdraw => return Ok(Written::Done),
        };
        if job.apply(&event, now).is_err() {
            return Ok(Written::Again);
        }
        self.write_job(durable, &job, expect, Ownership::Clear, vec![event]).await
    }

    /// Gives a job back that this manager owns and can't run.
    pub(super) async fn release_stored(&self, durable: &Durable, stored: &Stored) -> Result<(), Error> {
        let mut job = read(stored)?;
        job.version += 1;
        let expect = Expect::At { version: stored.version, holder: Holder::Is(durable.owner()) };
        self.write_job(durable, &job, expect, Ownership::Release, Vec::new()).await.map(|_| ())
    }

    async fn write_job(&self, durable: &Durable, job: &Job, expect: Expect, ownership: Ownership, events: Vec<JobEvent>) -> Result<Written, Error> {
        let mut put = whole(job, ownership);
        // The spec is as it was.
        put.spec = None;
        let now = now_ms();
        let events: Vec<Logged> = events.into_iter().filter_map(|event| Logged::of(job, event, now)).collect();
        put.events = events.iter().map(Logged::to_write).collect();
        let write = Write { id: job.id.clone(), expect, action: Action::Put(Box::new(put)) };
        Ok(written(&self.write(durable, write, events).await?))
    }

    /// Removes a job that this manager owned a moment ago and that does not run. It may be at rest in the store by now. False:
    /// it is not this manager's to remove any more.
    pub(super) async fn delete_owned(&self, durable: &Arc<Durable>, cell: &Arc<Cell>) -> bool {
        loop {
            // Fenced by the owner; whatever else of it is under way is overtaken.
            let written = match Self::load(durable, &cell.id).await {
                Ok(None) => Ok(Outcome::Gone),
                Ok(Some(stored)) if stored.owner.as_ref().is_some_and(|owner| *owner != durable.owner()) => {
                    self.lose(cell, durable.owner());
                    return false;
                }
                Ok(Some(stored)) => {
                    let event = Logged::of_id(cell.id.clone(), JobEvent::Deleted, now_ms());
                    let expect = Expect::At { version: stored.version, holder: Holder::Anyone };
                    let write = Write { id: cell.id.clone(), expect, action: Action::Delete { event: event.to_write() } };
                    self.write(durable, write, vec![event]).await
                }
                // Nobody can go on with what can't be read: it only has to go.
                Err(error) if error.code == ErrorCode::StoreCorrupt => {
                    let event = Logged::of_id(cell.id.clone(), JobEvent::Deleted, now_ms());
                    let write = Write { id: cell.id.clone(), expect: Expect::Present, action: Action::Delete { event: event.to_write() } };
                    self.write(durable, write, vec![event]).await
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(Outcome::Accepted { .. } | Outcome::Gone) => {
                    let mut slot = cell.lock();
                    slot.fail_acks(&Error::not_found(&cell.id));
                    self.repository.remove(cell, &mut slot, true);
                    return true;
                }
                Ok(_) => {}
                Err(_) if durable.is_closed() => return false,
                Err(error) => {
                    tracing::warn!(%error, "a job could not be removed, which is tried again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Makes a paused or failed job, or one that waits for what only this call can give, go on. Gives its ticket: tell
    /// [`queue_up`](Self::queue_up) when its driver is ready. `None`: it did not apply, or another manager will run it.
    pub async fn resume_stored(self: Arc<Self>, id: String, changes: String, strict: bool) -> Result<Option<u32>, Error> {
        self.refuse_when_closed()?;
        Options::parse(&changes)?;
        let durable = self.durable()?;
        durable.until_enrolled().await?;
        loop {
            if let Some(entry) = self.entry_of(&id) {
                let state = entry.cell.lock().job().map(|job| job.state);
                return match state {
                    Ok(state) if strict => Err(super::control::not_in(&id, Control::Resume, state)),
                    _ => Ok(None),
                };
            }
            let Some(stored) = Self::load(&durable, &id).await? else {
                return if strict { Err(Error::not_found(&id)) } else { Ok(None) };
            };
            let mut job = read(&stored)?;
            let waits = job.state == JobState::Pending && job.waiting_for == Some(WaitingFor::Executor);
            if answer(job.state, Control::Resume) != Answer::Change && !waits {
                return if strict { Err(super::control::not_in(&id, Control::Resume, job.state)) } else { Ok(None) };
            }
            let holder = if stored.owner.is_some() && !stored.released { Holder::Anyone } else { Holder::Nobody };
            let options: Arc<Options> = job.options.with(&changes)?;
            let mut events = Vec::new();
            if !waits {
                let event = JobEvent::Resumed { afresh: job.state == JobState::Failed };
                job.apply(&event, now_ms())?;
                events.push(event);
            } else {
                job.version += 1;
            }
            // Those of the submit were counted then; one of them may have to be done again since.
            for id in &Options::shared_default().with(&changes)?.completed_chunk_ids {
                if let Some(index) = job.spec.index_of(*id) {
                    job.skip_chunk(index);
                }
            }
            job.options = options;
            let runs = self.runs_job(&job);
            job.waiting_for = Some(WaitingFor::Slot);
            let owner = durable.owner();
            let ownership = if runs { Ownership::Take(owner.clone()) } else { Ownership::Release };
            let expect = Expect::At { version: stored.version, holder };
            match self.write_job(&durable, &job, expect, ownership, events).await {
                Ok(Written::Done) => {}
                Ok(Written::Again) => continue,
                Err(error) => {
                    // It may be this manager's now, which does not know it.
                    if runs {
                        durable.suspect(&job.id);
                    }
                    return Err(error);
                }
            }
            // The name may have been given up meanwhile: then the job is free, and claimed like any other.
            if !runs || durable.owner() != owner {
                return Ok(None);
            }
            let known = kept(&job, true);
            job.rows.track();
            if let Some(cell) = self.repository.cell(&id) {
                self.repository.remove(&cell, &mut cell.lock(), true);
            }
            let cell = self.repository.create(job, false)?;
            cell.lock().kept = Some(Box::new(known));
            let entry = self.track(cell);
            return Ok(Some(entry.ticket));
        }
    }

    /// Has `Changed` notices pushed when something happens on the store, for a job of another owner.
    pub fn await_stored(&self, id: &str, on: bool) {
        if let Some(durable) = &self.durable {
            let mut awaited = durable.awaited.lock();
            if on {
                awaited.insert(id.into());
            } else {
                awaited.remove(id);
            }
        }
    }

    /// Writes what is left to be written, within `limit`, and gives the name back. Jobs that waited in the queue are the next
    /// owner's. A store that is away is not waited for any longer: the lease ends by itself.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE: not everything could be written.
    pub async fn retire(self: Arc<Self>, limit: Duration) -> Result<(), Error> {
        let Some(durable) = self.durable.clone() else { return Ok(()) };
        let until = Instant::now() + limit;
        let mut written = true;
        // Claims and removals first: what they took is given back by a write.
        while durable.is_under_way()
            || self.hands_back()
            || self.repository.changes.waiting() > 0
            || self.has_uncommitted()
            || durable.writing.load(Ordering::Acquire)
        {
            if Instant::now() >= until {
                written = false;
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        durable.closed.store(true, std::sync::atomic::Ordering::Release);
        durable.poke.notify_one();
        durable.wake.notify_one();
        durable.hurry.notify_one();
        let owner = durable.owner();
        let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(200));
        let retired = tokio::time::timeout(left, durable.store.call(move |repository| async move { repository.retire(&owner).await })).await;
        match retired {
            Ok(result) if written => result,
            _ => Err(Error::new(ErrorCode::StoreUnavailable, "The repository did not take everything before the manager was closed")),
        }
    }

    /// Lets go of jobs that were taken over and not begun; whether there were any.
    fn hands_back(&self) -> bool {
        let left = self.entries.which(|entry| entry.run.lock().is_none());
        left.iter().for_each(|entry| self.hand_back(entry));
        !left.is_empty()
    }

    fn has_uncommitted(&self) -> bool {
        self.repository.any(|slot| slot.kept.as_ref().is_some_and(|kept| kept.is_behind()))
    }
}

fn written(outcome: &Outcome) -> Written {
    match outcome {
        Outcome::Accepted { .. } => Written::Done,
        Outcome::Duplicate | Outcome::Gone | Outcome::Stale { .. } => Written::Again,
    }
}
