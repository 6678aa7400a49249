//! Pause, resume, cancel, delete, shutdown: the table of `job::state` put to work.

use std::sync::Arc;
use std::time::Duration;

use super::{Entry, Manager, Notice};
use crate::job::state::{Answer, Control, WaitingFor, answer};
use crate::job::{Error, ErrorCode, ErrorInfo, JobEvent, JobState, Options};
use crate::repository::memory::{Ask, Cell, Slot, now_ms};

/// Between two looks at a run that is just ending, and how many of them.
const ENDING: Duration = Duration::from_micros(50);
const ENDING_LOOKS: u32 = 2_000;

/// Why a run is to stop.
#[derive(Debug, Clone)]
pub enum Stopping {
    /// Keep it for later.
    Pause {
        /// Let running chunks end.
        graceful: bool,
    },
    /// For good.
    Cancel {
        /// The caller's words.
        reason: Option<Box<str>>,
    },
    /// And remove the record.
    Delete,
    /// It failed.
    Fail(Box<ErrorInfo>),
    /// Its manager closes.
    Shutdown,
    /// Its record was changed or removed from outside.
    Withdraw,
}

impl Stopping {
    /// Whether running chunks may end.
    pub fn is_graceful(&self) -> bool {
        matches!(self, Stopping::Pause { graceful: true })
    }

    /// Which reason wins when two meet.
    fn rank(&self) -> u8 {
        match self {
            Stopping::Shutdown => 0,
            Stopping::Fail(_) => 1,
            Stopping::Pause { graceful: true } => 2,
            Stopping::Pause { graceful: false } => 3,
            Stopping::Cancel { .. } => 4,
            Stopping::Withdraw => 5,
            Stopping::Delete => 6,
        }
    }
}

impl From<Ask> for Stopping {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Pause { graceful } => Stopping::Pause { graceful },
            Ask::Cancel { reason } => Stopping::Cancel { reason },
            Ask::Delete => Stopping::Delete,
            Ask::Withdraw => Stopping::Withdraw,
        }
    }
}

/// What a control call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controlled {
    /// It has happened.
    Done,
    /// The run is being stopped; watch the job.
    Stopping,
    /// It did not apply.
    Nothing,
    /// It was so already.
    Already,
}

impl Manager {
    /// Asks a run to stop. The strongest reason wins; each is announced once. False: there is no run, or not any more.
    pub(super) fn stop(&self, entry: &Arc<Entry>, why: Stopping) -> bool {
        let mut guard = entry.run.lock();
        let Some(run) = &mut *guard else { return false };
        if run.is_sealed() && !matches!(why, Stopping::Delete | Stopping::Withdraw) {
            return true;
        }
        if let Some(known) = &run.stop
            && known.rank() >= why.rank()
        {
            // Who closes does not wait until the chunks of a graceful pause have ended; the job is paused all the same.
            if known.is_graceful() && matches!(why, Stopping::Shutdown) {
                run.stop = Some(Stopping::Pause { graceful: false });
                run.token.cancel();
                drop(guard);
                self.notices.push(Notice::Stop { ticket: entry.ticket, graceful: false });
            }
            return true;
        }
        let event = match &why {
            Stopping::Pause { .. } => Some(JobEvent::Pausing),
            Stopping::Cancel { .. } => Some(JobEvent::Cancelling),
            _ => None,
        };
        if let Some(event) = event {
            let mut slot = entry.cell.lock();
            // Refused when announced before (a graceful pause that turns immediate).
            let _ = self.repository.change(&entry.cell, &mut slot, event, now_ms());
        }
        let graceful = why.is_graceful();
        run.stop = Some(why);
        run.leave.cancel();
        if !graceful {
            run.token.cancel();
        }
        drop(guard);
        self.notices.push(Notice::Stop { ticket: entry.ticket, graceful });
        true
    }

    /// Pauses, cancels or deletes a job, or asks its owner to. `strict`: what does not apply is an error.
    pub fn control(&self, id: &str, control: Control, ask: Ask, strict: bool) -> Result<Controlled, Error> {
        self.refuse_when_closed()?;
        // A run that is just ending has let go of itself and not yet given the job its state, on another thread.
        for _ in 0..ENDING_LOOKS {
            if let Some(controlled) = self.control_now(id, control, &ask, strict)? {
                return Ok(controlled);
            }
            std::thread::sleep(ENDING);
        }
        Ok(Controlled::Stopping)
    }

    /// `None`: look again. The run is just ending, or the job is at rest in the durable store by now.
    pub(super) fn control_now(&self, id: &str, control: Control, ask: &Ask, strict: bool) -> Result<Option<Controlled>, Error> {
        let is_durable = self.durable.is_some();
        let missing = || match strict {
            _ if is_durable => Ok(None),
            true => Err(Error::not_found(id)),
            false => Ok(Some(Controlled::Nothing)),
        };
        let Some(cell) = self.repository.visible(id) else { return missing() };
        let mut slot = cell.lock();
        if slot.is_gone() {
            drop(slot);
            return missing();
        }
        let now = now_ms();
        let state = slot.job()?.state;
        match answer(state, control) {
            Answer::AlreadyDone => Ok(Some(Controlled::Already)),
            Answer::Nothing if strict => Err(not_in(id, control, state)),
            Answer::Nothing => Ok(Some(Controlled::Nothing)),
            // Gone only when the store says so.
            Answer::Change if is_durable && control == Control::Delete => Ok(None),
            Answer::Change => {
                self.change_now(&cell, &mut slot, ask.clone(), now)?;
                drop(slot);
                // It stays in the queue, where a forgotten one is passed over: looking for it would take as long as the queue.
                if let Some(entry) = self.entry_of(id) {
                    self.forget(&entry);
                }
                self.repository.rest(&cell);
                Ok(Some(Controlled::Done))
            }
            Answer::Stop => {
                let owner = slot.owner();
                slot.watch(self.watcher());
                match owner {
                    Some(owner) => {
                        drop(slot);
                        Ok(owner.asked(&cell.id, ask.clone()).then_some(Controlled::Stopping))
                    }
                    // Its manager is gone without a trace: nobody works on it.
                    None => {
                        self.change_now(&cell, &mut slot, ask.clone(), now)?;
                        Ok(Some(Controlled::Done))
                    }
                }
            }
        }
    }

    /// Does at once what was asked of a job that nobody works on.
    pub(super) fn change_now(&self, cell: &Cell, slot: &mut Slot, ask: Ask, now: f64) -> Result<(), Error> {
        match ask {
            Ask::Pause { .. } => self.repository.change(cell, slot, JobEvent::Paused, now),
            Ask::Cancel { reason } => self.repository.change(cell, slot, JobEvent::Cancelled { reason }, now),
            Ask::Delete => {
                self.repository.remove(cell, slot, false);
                Ok(())
            }
            Ask::Withdraw => Ok(()),
        }
    }

    /// Makes a paused or failed job wait for a slot again, with `changes` (a JSON object) over its options. Gives its
    /// ticket; `None`: it did not apply.
    pub fn resume(&self, id: &str, changes: &str, strict: bool) -> Result<Option<u32>, Error> {
        self.refuse_when_closed()?;
        Options::parse(changes)?;
        let Some(cell) = self.repository.visible(id) else {
            return if strict { Err(Error::not_found(id)) } else { Ok(None) };
        };
        {
            let mut slot = cell.lock();
            let job = slot.job()?;
            let state = job.state;
            let waits = state == JobState::Pending && job.waiting_for == Some(WaitingFor::Executor);
            if answer(state, Control::Resume) != Answer::Change && !waits {
                return if strict { Err(not_in(id, Control::Resume, state)) } else { Ok(None) };
            }
            let options = job.options.with(changes)?;
            let afresh = state == JobState::Failed;
            if waits {
                job.version += 1;
            } else {
                self.repository.change(&cell, &mut slot, JobEvent::Resumed { afresh }, now_ms())?;
            }
            let job = slot.job()?;
            // Those of the submit were counted then; one of them may have to be done again since.
            for id in &Options::shared_default().with(changes)?.completed_chunk_ids {
                if let Some(index) = job.spec.index_of(*id) {
                    job.skip_chunk(index);
                }
            }
            job.options = options;
            job.waiting_for = Some(WaitingFor::Slot);
        }
        let entry = self.track(cell);
        entry.cell.lock().queued = self.queue_key(&entry);
        self.state.lock().queue.push_front(entry.clone());
        Ok(Some(entry.ticket))
    }

    /// Stops taking jobs. Running ones go on until [`Self::shut_down`].
    pub fn close(&self) {
        let waiting: Vec<_> = {
            let mut state = self.state.lock();
            state.closed = true;
            super::LIVE.lock().remove(&self.number);
            state.queue.drain(..).collect()
        };
        for entry in waiting {
            self.hand_back(&entry);
        }
    }

    /// Lets go of a job that waits. On a durable store it is the next owner's.
    pub(super) fn hand_back(&self, entry: &Arc<Entry>) {
        let mut slot = entry.cell.lock();
        if let Some(kept) = &mut slot.kept {
            kept.release = true;
            let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Released, now_ms());
        }
        drop(slot);
        self.forget(entry);
    }

    /// Ends the work on a job that is not this manager's any more. Nothing of it is told or written.
    pub(super) fn withdraw(&self, entry: &Arc<Entry>) {
        if entry.run.lock().is_some() {
            self.stop(entry, Stopping::Withdraw);
        } else {
            self.forget(entry);
            self.notices.push(Notice::Dropped { ticket: entry.ticket, kept: false });
        }
    }

    /// Asks every run to stop and leave its job pending for the next owner.
    pub fn shut_down(&self) {
        for entry in self.entries.which(|_| true) {
            self.stop(&entry, Stopping::Shutdown);
        }
    }

    /// Kills the programs of runs that are being stopped, without further grace.
    pub fn kill(&self) {
        self.hurry.cancel();
    }

    /// A run reached one of its time limits.
    pub fn time_out(&self, ticket: u32, error: ErrorInfo) {
        if let Some(entry) = self.entry(ticket) {
            self.stop(&entry, Stopping::Fail(Box::new(error)));
        }
    }
}

pub(super) fn not_in(id: &str, control: Control, state: JobState) -> Error {
    Error::new(ErrorCode::InvalidTransition, format!("{} does not apply: job \"{id}\" is {}", control.method(), state.as_str()))
}
