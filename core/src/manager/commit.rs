//! Group commit: what happened to the jobs of this manager since the last commit goes to the durable store in one
//! transaction, many jobs and many chunks together. What somebody waits for goes to an idle store at once; what only
//! happened (a start, a chunk) first waits a moment for more of its kind. Only what is announced waits.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::durable::Durable;
use super::outputs::OutputFile;
use super::{Manager, Notice};
use crate::job::parts::{self, ChunkCopy};
use crate::job::rows::Stamp;
use crate::job::state::WaitingFor;
use crate::job::{Error, ErrorCode, Job, JobEvent, JobState};
use crate::repository::durable::{Action, ChunkWrite, Expect, Holder, LogWrite, Outcome, Ownership, Put, Write};
use crate::repository::event_log::Logged;
use crate::repository::memory::{Ack, Ask, Cell, Kept, Slot, now_ms};
use crate::repository::public::read;

/// Events that may wait for their commit before no further chunk is begun: those of 2,048 chunks, so that the next group
/// fills up while one is written.
pub(super) const MOST_WAITING: usize = 4_096;
/// Chunk rows and events of one transaction, roughly.
const GROUP: usize = 4_096;
/// Bytes of one transaction, roughly: it has to get through within the time that a store is given to answer.
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// How long the first of a few events waits for others when nobody waits for it: a short job starts and ends in one commit.
const LULL: Duration = Duration::from_millis(1);
/// So many do not wait.
const FEW: usize = 64;
/// After an error, and doubled with each further one.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// A write that is not of a job in this manager's cache, with the events that it tells and who waits for it.
pub(super) struct Direct {
    pub write: Write,
    pub events: Vec<Logged>,
    pub reply: oneshot::Sender<Result<Outcome, Error>>,
}

/// What was taken of a cell for a write.
struct Taken {
    cell: Arc<Cell>,
    version: u64,
    mark: Box<str>,
    state: JobState,
    requested: Option<crate::job::state::Request>,
    mine: bool,
    spec: Arc<crate::job::Spec>,
    options: Arc<crate::job::Options>,
    extras: u64,
    events: Vec<(u64, Logged)>,
    rows: Vec<u32>,
    stamps: Vec<(u32, Stamp)>,
    logs: Vec<LogWrite>,
}

/// A submission that failed, and of which is not known whether the store has taken it.
pub(super) struct Doubtful {
    pub id: Arc<str>,
    /// The mark of the writes that were tried.
    pub mark: Box<str>,
}

enum Source {
    Cell(Box<Taken>),
    Direct(Vec<Logged>, oneshot::Sender<Result<Outcome, Error>>),
}

/// A write that still lacks what is written without the job's lock.
struct Draft {
    put: Box<Put>,
    expect: Expect,
    taken: Taken,
    copies: Vec<ChunkCopy>,
    outputs: Vec<Option<OutputFile>>,
    new_spec: bool,
}

impl Draft {
    /// Roughly how many bytes are written.
    fn bytes(&self) -> usize {
        let logs: usize = self.taken.logs.iter().map(|log| log.text.len()).sum();
        let spec = if self.new_spec { self.taken.spec.text_len() } else { 0 };
        logs + spec + self.put.extras.as_ref().map_or(0, String::len) + self.put.options.as_ref().map_or(0, String::len)
    }
}

pub(super) fn hash(text: &str) -> u64 {
    // Compared within this process only.
    let mut hasher = foldhash::quality::FixedState::default().build_hasher();
    hasher.write(text.as_bytes());
    hasher.finish()
}

/// What is written of a job whose store has no or another state of it, whole.
pub fn whole(job: &Job, ownership: Ownership) -> Put {
    let rows: Vec<u32> = job.rows.touched().map(|(index, _)| index).collect();
    let copies = ChunkCopy::of(job, &rows);
    Put {
        version: job.version,
        state: job.state,
        kind: kind(job),
        ownership,
        hold: holds(job),
        head: parts::write_head(job),
        spec: Some(parts::write_spec(&job.spec)),
        options: Some(parts::write_options(job)),
        extras: Some(parts::write_extras(job)),
        reset_chunks: true,
        chunks: rows.iter().zip(&copies).map(|(index, copy)| ChunkWrite { index: *index, body: copy.write() }).collect(),
        logs: Vec::new(),
        events: Vec::new(),
        clear_requests: true,
    }
}

fn holds(job: &Job) -> bool {
    job.state == JobState::Pending && job.waiting_for == Some(WaitingFor::Executor)
}

/// The `type` of a job.
pub(super) fn kind(job: &Job) -> Option<Arc<str>> {
    job.extras.as_ref()?.fields.get("type")?.as_str().map(Into::into)
}

/// What the store has of a job that was read from it.
pub(super) fn kept(job: &Job, mine: bool) -> Kept {
    Kept {
        version: job.version,
        state: job.state,
        requested: job.requested,
        mine,
        spec: Some(job.spec.clone()),
        options: Some(job.options.clone()),
        extras: hash(&parts::write_extras(job)),
        ..Kept::none()
    }
}

impl Manager {
    /// Writes what changed until the manager is gone.
    pub(super) async fn commit_loop(weak: std::sync::Weak<Manager>, durable: Arc<Durable>) {
        let repository = durable.store.repository().clone();
        let mut delay = FIRST_DELAY;
        loop {
            let enrolled = durable.until_enrolled().await;
            let Some(manager) = weak.upgrade() else { return };
            if durable.is_closed() {
                manager.end_waiting(&durable);
                return;
            }
            if let Err(error) = enrolled {
                // Who waits hears that the store does not take anything; what is not new is written later.
                let (_, sources) = manager.gather(&durable).await;
                manager.take_back(sources, &error, false);
                continue;
            }
            durable.writing.store(true, Ordering::Release);
            if manager.repository.changes.waiting() < FEW {
                let _ = tokio::time::timeout(LULL, durable.hurry.notified()).await;
            }
            let (group, sources) = manager.gather(&durable).await;
            if group.is_empty() {
                durable.writing.store(false, Ordering::Release);
                // Kept by nobody while it idles.
                let cache = manager.repository.clone();
                drop(manager);
                let idle = tokio::time::timeout(Duration::from_secs(1), async {
                    tokio::select! {
                        () = cache.changes.wake.notified() => {}
                        () = durable.wake.notified() => {}
                    }
                });
                let _ = idle.await;
                continue;
            }
            match repository.commit(&group).await {
                Ok(outcomes) => {
                    delay = FIRST_DELAY;
                    manager.committed_group(&durable, group, sources, outcomes).await;
                    durable.set_trouble(None);
                }
                Err(error) => {
                    tracing::warn!(%error, "a commit failed and is tried again");
                    manager.take_back(sources, &error, true);
                    durable.writing.store(false, Ordering::Release);
                    durable.set_trouble(Some(error));
                    drop(manager);
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(LONGEST_DELAY);
                }
            }
        }
    }

    /// Nothing is written any more: who waits for a commit hears it.
    fn end_waiting(&self, durable: &Durable) {
        let error = Error::new(ErrorCode::Closed, "The manager is closed");
        for cell in self.repository.cells() {
            cell.lock().fail_acks(&error);
        }
        for direct in std::mem::take(&mut *durable.direct.lock()) {
            let _ = direct.reply.send(Err(error.clone()));
        }
    }

    /// Takes what has to be written.
    async fn gather(&self, durable: &Arc<Durable>) -> (Vec<Write>, Vec<Source>) {
        let mut drafts = Vec::new();
        let mut size = 0;
        let mut bytes = 0;
        let mut ids = self.repository.changes.take().into_iter();
        for id in ids.by_ref() {
            if let Some(draft) = self.repository.cell(&id).and_then(|cell| self.draft(durable, cell)) {
                size += draft.taken.events.len() + draft.copies.len() + 1;
                bytes += draft.bytes();
                drafts.push(draft);
            }
            if size >= GROUP || bytes >= GROUP_BYTES {
                break;
            }
        }
        for id in ids {
            if let Some(cell) = self.repository.cell(&id) {
                let mut slot = cell.lock();
                self.repository.being_written(&mut slot);
                self.repository.changed(&id, &mut slot);
            }
        }
        if drafts.iter().any(|draft| draft.outputs.iter().any(Option::is_some)) {
            // Files may be on a slow disk.
            let outputs: Vec<Vec<Option<OutputFile>>> = drafts.iter_mut().map(|draft| std::mem::take(&mut draft.outputs)).collect();
            let look = move || outputs.iter().map(|files| files.iter().map(|file| file.as_ref().and_then(OutputFile::stamp)).collect()).collect();
            let stamps: Vec<Vec<Option<Stamp>>> = tokio::task::spawn_blocking(look).await.unwrap_or_default();
            for (draft, stamps) in drafts.iter_mut().zip(stamps) {
                for (n, stamp) in stamps.into_iter().enumerate() {
                    if let Some(stamp) = stamp {
                        draft.copies[n].set_stamp(stamp.clone());
                        draft.taken.stamps.push((draft.taken.rows[n], stamp));
                    }
                }
            }
        }
        let mut group = Vec::with_capacity(drafts.len());
        let mut sources = Vec::with_capacity(drafts.len());
        for Draft { mut put, expect, taken, copies, new_spec, .. } in drafts {
            put.spec = new_spec.then(|| parts::write_spec(&taken.spec));
            put.events = taken.events.iter().map(|(_, event)| event.to_write()).collect();
            put.chunks = taken.rows.iter().zip(&copies).map(|(index, copy)| ChunkWrite { index: *index, body: copy.write() }).collect();
            put.logs = taken.logs.clone();
            group.push(Write { id: taken.cell.id.clone(), expect, action: Action::Put(put) });
            sources.push(Source::Cell(Box::new(taken)));
        }
        for Direct { write, events, reply } in std::mem::take(&mut *durable.direct.lock()) {
            group.push(write);
            sources.push(Source::Direct(events, reply));
        }
        (group, sources)
    }

    fn draft(&self, durable: &Durable, cell: Arc<Cell>) -> Option<Draft> {
        let mut guard = cell.lock();
        let slot = &mut *guard;
        if slot.is_gone() {
            return None;
        }
        self.repository.being_written(slot);
        let kept = slot.kept.as_deref()?;
        if kept.version == 0 && (kept.refused.is_some() || durable.undone.lock().contains(&cell.id)) {
            // Written never, or once an earlier submission of this id is known to be gone.
            return None;
        }
        // One for all tries of what follows on the same version: only one of them can be accepted.
        let mark = kept.attempted.clone().unwrap_or_else(|| format!("{:x}", uuid::Uuid::new_v4().as_u64_pair().0).into());
        let events = slot.take_held();
        let (logs, more_logs) = slot.logs.as_mut().map_or_else(Default::default, |logs| logs.take_some(GROUP_BYTES));
        if !more_logs {
            slot.logs = None;
        }
        let job = slot.job().ok()?;
        let rows = job.rows.take_dirty();
        let extras_text = parts::write_extras(job);
        let extras = hash(&extras_text);
        let (version, state, requested, hold) = (job.version, job.state, job.requested, holds(job));
        let (spec, options, kind, mut head) = (job.spec.clone(), job.options.clone(), kind(job), parts::write_head(job));
        parts::mark_head(&mut head, &mark);
        let copies = ChunkCopy::of(job, &rows);
        let outputs = rows
            .iter()
            .zip(&copies)
            .map(|(index, copy)| if copy.is_completed() && copy.stamp().is_none() { OutputFile::of(job, *index) } else { None })
            .collect();
        let kept = slot.kept.as_deref()?;
        let new_spec = !kept.spec.as_ref().is_some_and(|known| Arc::ptr_eq(known, &spec));
        let new_options = if kept.options.as_ref().is_some_and(|known| Arc::ptr_eq(known, &options)) {
            None
        } else {
            Some(options.text.as_deref().unwrap_or("{}").to_owned())
        };
        let exists = kept.version > 0;
        let wanted = durable.runs && !hold && !kept.release && !kept.foreign && matches!(state, JobState::Pending | JobState::Running);
        // It stays this manager's until all of it is written.
        let wanted = wanted || more_logs && kept.mine;
        let ownership = match (wanted, kept.mine) {
            (true, true) => Ownership::Keep,
            (true, false) => Ownership::Take(durable.owner()),
            // Also of one that was taken a moment before the manager closed: the next owner's.
            (false, _) if kept.release && !kept.foreign && state == JobState::Pending => Ownership::Release,
            (false, _) => Ownership::Clear,
        };
        let expect = if exists {
            let holder = if kept.mine { Holder::Is(durable.owner()) } else { Holder::Nobody };
            Expect::At { version: kept.version, holder }
        } else {
            Expect::Absent
        };
        let put = Box::new(Put {
            version,
            state,
            kind,
            ownership,
            hold,
            head,
            spec: None,
            options: new_options,
            extras: (!exists || extras != kept.extras).then_some(extras_text),
            reset_chunks: false,
            chunks: Vec::new(),
            logs: Vec::new(),
            events: Vec::new(),
            clear_requests: !matches!(state, JobState::Running | JobState::Pending),
        });
        let unchanged = exists && version == kept.version && events.is_empty() && rows.is_empty() && logs.is_empty() && wanted == kept.mine;
        if unchanged {
            // The write whose answer was lost had all of it.
            self.caught_up(slot, &cell);
            return None;
        }
        if more_logs {
            // Every write has a version of its own.
            if let Ok(job) = slot.job() {
                job.version += 1;
            }
            self.repository.changed(&cell.id, slot);
        }
        drop(guard);
        let taken = Taken { cell, version, mark, state, requested, mine: wanted, spec, options, extras, events, rows, stamps: Vec::new(), logs };
        Some(Draft { put, expect, taken, copies, outputs, new_spec })
    }

    async fn committed_group(&self, durable: &Arc<Durable>, group: Vec<Write>, sources: Vec<Source>, outcomes: Vec<Outcome>) {
        let mut complete = true;
        for ((write, source), outcome) in group.into_iter().zip(sources).zip(outcomes) {
            match source {
                Source::Direct(events, reply) => {
                    if let Outcome::Accepted { first, .. } = outcome
                        && !events.is_empty()
                    {
                        complete &= self.repository.log.add_committed(first, events);
                    }
                    let _ = reply.send(Ok(outcome));
                }
                Source::Cell(taken) => complete &= self.committed_cell(durable, write, *taken, outcome).await,
            }
        }
        if !complete {
            durable.poke.notify_one();
        }
        self.notices.touch();
    }

    /// False: others' events are missing before those of this write.
    async fn committed_cell(&self, durable: &Arc<Durable>, write: Write, mut taken: Taken, outcome: Outcome) -> bool {
        let cell = taken.cell.clone();
        match outcome {
            Outcome::Accepted { first, .. } => {
                let events = std::mem::take(&mut taken.events);
                self.repository.no_longer_waiting(events.len());
                let complete = events.is_empty() || self.repository.log.add_committed(first, events.into_iter().map(|(_, event)| event).collect());
                self.was_committed(&mut cell.lock(), &cell, taken);
                complete
            }
            Outcome::Duplicate | Outcome::Gone | Outcome::Stale { .. } => {
                self.refused(durable, write, taken).await;
                true
            }
        }
    }

    fn was_committed(&self, slot: &mut Slot, cell: &Arc<Cell>, taken: Taken) {
        if let Ok(job) = slot.job() {
            for (index, stamp) in taken.stamps {
                job.rows.note_stamp(index, stamp);
            }
        }
        let Some(kept) = &mut slot.kept else { return };
        let told = kept.version == 0 || kept.state != taken.state || kept.requested != taken.requested;
        kept.version = taken.version;
        kept.state = taken.state;
        kept.requested = taken.requested;
        kept.mine = taken.mine;
        kept.spec = Some(taken.spec);
        kept.options = Some(taken.options);
        kept.extras = taken.extras;
        kept.attempted = None;
        if told {
            slot.notify(&cell.id);
        }
        self.caught_up(slot, cell);
    }

    /// The store has a job as far as `kept` says: who waited for that hears it, and a job that nobody works on leaves the cache.
    fn caught_up(&self, slot: &mut Slot, cell: &Arc<Cell>) {
        self.repository.tell_progress(slot, now_ms());
        let Some(kept) = &mut slot.kept else { return };
        for (version, ack) in std::mem::take(&mut kept.acks) {
            if version <= kept.version {
                ack.tell(Ok(()));
            } else {
                kept.acks.push((version, ack));
            }
        }
        // From now on it is read from the store.
        if !kept.mine && !kept.queued && self.entry_of(&cell.id).is_none() {
            self.repository.remove(cell, slot, true);
        }
    }

    /// A write was refused: somebody else has written, or owns the job now.
    async fn refused(&self, durable: &Arc<Durable>, write: Write, taken: Taken) {
        let cell = taken.cell.clone();
        let attempted = cell.lock().kept.as_ref().and_then(|kept| kept.attempted.clone());
        let stored = match durable.store.repository().load(&cell.id).await {
            Ok(stored) => stored,
            Err(error) if error.code == ErrorCode::StoreCorrupt => {
                // Nobody can go on with what can't be read.
                tracing::error!(job = %cell.id, %error, "a job is given up");
                self.repository.no_longer_waiting(taken.events.len());
                return self.lose(&cell, durable.owner());
            }
            Err(error) => return self.take_back(vec![Source::Cell(Box::new(taken))], &error, false),
        };
        let Some(stored) = stored else {
            if matches!(write.expect, Expect::Absent) {
                // Created and removed meanwhile: written anew.
                return self.take_back(vec![Source::Cell(Box::new(taken))], &Error::new(ErrorCode::Conflict, "gone"), false);
            }
            // Removed by somebody's hand.
            self.repository.no_longer_waiting(taken.events.len());
            return self.removed_elsewhere(&cell);
        };
        let ours = stored.owner.as_ref() == Some(&durable.owner()) || stored.owner.is_none() && !taken.mine;
        if ours && attempted.is_some_and(|mark| parts::has_mark(&stored.head, &mark)) {
            // One of the writes before this one was committed, only its answer was lost.
            let mut slot = cell.lock();
            let upto = taken.events.partition_point(|(version, _)| *version <= stored.version);
            let mut taken = taken;
            let known = taken.events.drain(..upto).count();
            self.repository.no_longer_waiting(known);
            if let Some(kept) = &mut slot.kept {
                kept.version = stored.version;
                kept.mine = stored.owner.as_ref() == Some(&durable.owner());
                kept.state = stored.state;
                kept.attempted = None;
            }
            slot.notify(&cell.id);
            self.give_back(&mut slot, taken);
            self.repository.changed(&cell.id, &mut slot);
            durable.poke.notify_one();
            return;
        }
        if matches!(write.expect, Expect::Absent) {
            let mut slot = cell.lock();
            self.repository.no_longer_waiting(taken.events.len());
            let error = Error::new(ErrorCode::Duplicate, format!("There is a job \"{}\" already", cell.id));
            slot.fail_acks(&error);
            if let Some(kept) = &mut slot.kept {
                // Who submitted it may not have come to ask yet.
                kept.refused = Some(error);
            }
            return;
        }
        if stored.owner.as_ref() != Some(&durable.owner()) {
            self.repository.no_longer_waiting(taken.events.len());
            let name = match write.expect {
                Expect::At { holder: Holder::Is(name), .. } => name,
                _ => durable.owner(),
            };
            return self.lose(&cell, name);
        }
        // Somebody saved the job over us: the public fields are theirs, the rows stay ours.
        match read(&stored) {
            Ok(theirs) => {
                let mut slot = cell.lock();
                let mut goes_on = true;
                self.give_back(&mut slot, taken);
                if let Ok(job) = slot.job() {
                    let version = job.version.max(theirs.version) + 1;
                    goes_on = job.take_in(theirs, now_ms());
                    job.version = version;
                }
                if let Some(kept) = &mut slot.kept {
                    kept.version = stored.version;
                    kept.state = stored.state;
                    kept.attempted = None;
                }
                self.repository.changed(&cell.id, &mut slot);
                drop(slot);
                if !goes_on && let Some(entry) = self.entry_of(&cell.id) {
                    self.stop(&entry, super::Stopping::from(Ask::Withdraw));
                }
            }
            Err(error) => self.take_back(vec![Source::Cell(Box::new(taken))], &error, false),
        }
    }

    fn give_back(&self, slot: &mut Slot, taken: Taken) {
        if slot.is_gone() {
            self.repository.no_longer_waiting(taken.events.len());
            return;
        }
        slot.give_back_held(taken.events);
        if let Ok(job) = slot.job() {
            job.rows.give_back_dirty(&taken.rows);
        }
        for log in taken.logs {
            slot.keep_log(log);
        }
    }

    /// A commit failed, and is tried again. `doubtful`: whether it happened is not known.
    fn take_back(&self, sources: Vec<Source>, error: &Error, doubtful: bool) {
        for source in sources {
            match source {
                Source::Direct(_, reply) => {
                    let _ = reply.send(Err(error.clone()));
                }
                Source::Cell(taken) => {
                    let cell = taken.cell.clone();
                    let mut slot = cell.lock();
                    if slot.is_gone() {
                        self.repository.no_longer_waiting(taken.events.len());
                        continue;
                    }
                    if let Some(kept) = &mut slot.kept {
                        if doubtful {
                            kept.attempted = Some(taken.mark.clone());
                        }
                        if kept.version == 0 && !kept.acks.is_empty() {
                            // A job that could not be written is not taken, and not tried again: who submitted it was told.
                            for (_, ack) in std::mem::take(&mut kept.acks) {
                                ack.tell(Err(error.clone()));
                            }
                            kept.refused = Some(error.clone());
                        }
                    }
                    self.give_back(&mut slot, *taken);
                    self.repository.changed(&cell.id, &mut slot);
                }
            }
        }
    }

    /// The record was removed by somebody else's hand: the run has no ground any more.
    fn removed_elsewhere(&self, cell: &Arc<Cell>) {
        let entry = self.entry_of(&cell.id);
        {
            let mut slot = cell.lock();
            slot.fail_acks(&Error::not_found(&cell.id));
            self.repository.remove(cell, &mut slot, true);
        }
        if let Some(entry) = entry {
            self.withdraw(&entry);
        }
    }

    /// Somebody else owns the job now: what runs of it here is stopped, and nothing is written. `name`: this manager's when it
    /// owned the job.
    pub(super) fn lose(&self, cell: &Arc<Cell>, name: Arc<str>) {
        let entry = self.entry_of(&cell.id);
        {
            let mut slot = cell.lock();
            if slot.is_gone() {
                return;
            }
            slot.fail_acks(&Error::new(ErrorCode::LeaseLost, format!("This manager no longer owns job \"{}\"", cell.id)));
            if let Ok(job) = slot.job() {
                let job = job.clone();
                let owner = job.owner.clone().unwrap_or(name);
                self.repository.log.append(&job, JobEvent::LeaseLost { owner }, now_ms());
            }
            // Before those who watch hear that it is gone from here.
            self.notices.push(super::Notice::Lost { id: cell.id.clone() });
            self.repository.remove(cell, &mut slot, true);
        }
        if let Some(entry) = entry {
            // What it left could meet what the next owner starts: there is no time for a grace.
            if let Some(run) = &*entry.run.lock() {
                run.kill.cancel();
            }
            self.withdraw(&entry);
        }
    }

    /// Hands a write of a job that is not in the cache to the next group, and waits for what becomes of it.
    pub(super) async fn write(&self, durable: &Durable, write: Write, events: Vec<Logged>) -> Result<Outcome, Error> {
        if durable.is_closed() {
            return Err(Error::new(ErrorCode::Closed, "The manager is closed"));
        }
        let (reply, answer) = oneshot::channel();
        durable.direct.lock().push(Direct { write, events, reply });
        durable.wake.notify_one();
        durable.hurry.notify_one();
        answer.await.map_err(|_| Error::new(ErrorCode::Closed, "The manager is closed"))?
    }

    /// Removes a job whose submission failed, in case the store has taken it all the same. Until that is settled, a new
    /// submission of the same id waits, or fails as this does.
    pub(super) async fn undo(&self, durable: &Arc<Durable>, doubtful: Doubtful) {
        let _under_way = durable.begin();
        let id = &doubtful.id;
        let mut delay = FIRST_DELAY;
        while !durable.is_closed()
            && let Err(error) = Self::try_undo(durable, &doubtful).await
        {
            if let Some(cell) = self.repository.cell(id) {
                let mut slot = cell.lock();
                if slot.kept.as_ref().is_some_and(|kept| kept.version == 0) {
                    slot.fail_acks(&error);
                }
            }
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
        durable.undone.lock().remove(id);
        if let Some(cell) = self.repository.cell(id) {
            self.repository.changed(id, &mut cell.lock());
        }
    }

    async fn try_undo(durable: &Durable, doubtful: &Doubtful) -> Result<(), Error> {
        let repository = durable.store.repository();
        let stored = match repository.load(&doubtful.id).await {
            Ok(Some(stored)) => stored,
            Err(error) if error.code != ErrorCode::StoreCorrupt => return Err(error),
            _ => return Ok(()),
        };
        // A job of the same id that somebody submitted since is another one.
        let same = parts::has_mark(&stored.head, &doubtful.mark);
        if same {
            let event = Logged::of_id(doubtful.id.clone(), JobEvent::Deleted, now_ms());
            let expect = Expect::At { version: stored.version, holder: Holder::Anyone };
            let write = Write { id: doubtful.id.clone(), expect, action: Action::Delete { event: event.to_write() } };
            repository.commit(std::slice::from_ref(&write)).await?;
        }
        Ok(())
    }

    /// Tells by a notice with this token once the store has what is true of a job of the cache now. True: it has.
    ///
    /// # Errors
    ///
    /// As the notice's: DUPLICATE, LEASE_LOST, STORE_UNAVAILABLE, ... as the write ended.
    pub fn tell_committed(&self, id: &str, token: u32) -> Result<bool, Error> {
        let Some(cell) = self.repository.cell(id) else { return Ok(true) };
        let notices = self.notices.clone();
        self.when_committed(&cell, || Ack::new(move |answer| notices.push(Notice::Committed { token, error: answer.err() })))
    }

    /// Resolves once the store has what is true of a job of the cache now; rejects as [`tell_committed`](Self::tell_committed).
    pub async fn committed(&self, id: &str) -> Result<(), Error> {
        match self.repository.cell(id) {
            Some(cell) => self.cell_committed(&cell).await,
            None => Ok(()),
        }
    }

    /// Resolves once the store has what is true now of a job that is in hand, which by then may be out of hand: NOT_FOUND.
    pub(super) async fn cell_committed(&self, cell: &Cell) -> Result<(), Error> {
        let (tell, answer) = oneshot::channel();
        let ack = Ack::new(|answer| drop(tell.send(answer)));
        match self.when_committed(cell, || ack)? {
            true => Ok(()),
            false => answer.await.map_err(|_| Error::new(ErrorCode::Closed, "The manager is closed"))?,
        }
    }

    /// False: it will be told.
    fn when_committed(&self, cell: &Cell, ack: impl FnOnce() -> Ack) -> Result<bool, Error> {
        let mut slot = cell.lock();
        if slot.is_gone() {
            return Err(Error::not_found(&cell.id));
        }
        let version = slot.job()?.version;
        let Some(kept) = &mut slot.kept else { return Ok(true) };
        if let Some(error) = &kept.refused {
            return Err(error.clone());
        }
        let known = kept.version >= version;
        if !known {
            kept.acks.push((version, ack()));
            if let Some(durable) = &self.durable {
                durable.hurry.notify_one();
            }
        }
        Ok(known)
    }
}
