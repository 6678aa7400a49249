//! One run of a job: what its driver asks and answers, and how it ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_util::sync::CancellationToken;

use super::live_logs::LOG_END;
use super::{Entry, Manager, Stopping};
use crate::executor::process::Kept;
use crate::executor::schedule::{Next, Schedule};
use crate::job::error::tail;
use crate::job::options::FailurePolicy;
use crate::job::progress::Pace;
use crate::job::rows::Output;
use crate::job::status::Live;
use crate::job::{ChunkState, Error, ErrorCode, ErrorInfo, Job, JobEvent, JobState};
use crate::repository::durable::{LogStream, LogWrite};
use crate::repository::memory::{Slot, now_ms};

/// Answer of [`Manager::next`]: nothing is left for this slot.
pub const LEAVE: f64 = -1.0;
/// Answer of [`Manager::next`]: a retry is due later; ask [`Manager::wait_ms`] when.
pub const WAIT: f64 = -2.0;
/// Answer of [`Manager::next`]: as many chunks run as may.
pub const BUSY: f64 = -3.0;

/// In place of a chunk: none was asked for yet.
pub const NOT_TAKEN: f64 = -4.0;

/// The line in what an adapter has cut so already, which is not to be cut again.
const CUT_LINE: usize = 64;
/// Bytes of each stream that the status keeps of a chunk.
const KEPT_TAIL: usize = 8 * 1024;

/// What is known of a run while it lasts.
pub(crate) struct Run {
    pub(super) number: u32,
    pub(super) schedule: Schedule,
    pub(super) pace: Pace,
    /// How far running chunks are, 0 to 1, where they tell.
    fractions: HashMap<u32, f64>,
    pub(super) stop: Option<Stopping>,
    /// Cancelled when running chunks are to be stopped.
    pub(super) token: CancellationToken,
    /// Cancelled when no further chunk is to be taken: by every stop, the graceful ones too.
    pub(super) leave: CancellationToken,
    /// Cancelled when processes get no grace any more.
    pub(super) kill: CancellationToken,
    merge_failures: u32,
    pub(super) merged: bool,
    /// Whoever called its driver has more to do than the driver.
    held: bool,
}

/// What a driver does after its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The run has ended in that state; `None`: the job is gone.
    Ended(Option<JobState>),
    /// Merge now.
    Merge,
    /// Merge again after so many milliseconds.
    MergeIn(u32),
    /// The merge counts; clean up, then advance once more.
    Merged,
    /// All is done, and who holds the run has not settled yet.
    Held,
    /// Chunks still run.
    Busy,
    /// This run is over already; whatever is told of it is refused.
    Stale,
}

/// How an executor that runs whole jobs ended.
#[derive(Debug)]
pub enum Settled {
    /// Its promise resolved, with a JSON value perhaps.
    Resolved(Option<Box<str>>),
    /// It was aborted.
    Aborted,
    /// It failed.
    Failed(ErrorInfo),
}

impl Run {
    /// The merge counts, and nothing comes after it but what its driver cleans up: the job completes, whatever is asked.
    pub(super) fn is_sealed(&self) -> bool {
        self.merged && !self.held
    }

    pub(super) fn new(number: u32, job: &Job, now: f64, kill: CancellationToken) -> Run {
        Run {
            number,
            schedule: Schedule::new(job.rows.total(), job.options.concurrency),
            pace: Pace::new(now),
            fractions: HashMap::new(),
            stop: None,
            token: CancellationToken::new(),
            leave: CancellationToken::new(),
            kill,
            merge_failures: 0,
            merged: false,
            held: false,
        }
    }

    /// A chunk is not under way any more: what it had told does not count.
    fn forget(&mut self, job: &mut Job, index: u32) {
        if self.fractions.remove(&index).is_some() {
            self.count_fractions(job);
        }
    }

    fn count_fractions(&self, job: &mut Job) {
        job.partial_frames = self.fractions.iter().map(|(index, fraction)| job.spec.weight(*index) as f64 * fraction).sum();
    }

    pub(super) fn live(&self, job: &Job) -> Live {
        let remaining = job.rows.total() - job.completed_chunks().min(job.rows.total());
        Live { fps: self.pace.fps(now_ms()), eta: self.pace.eta(remaining, self.schedule.slots()), lease_renewed_at: None }
    }
}

impl Manager {
    /// How many chunks the job of a run has, and how many of them are done.
    pub fn extent(&self, ticket: u32) -> (u32, u32) {
        let Some(entry) = self.entry(ticket) else { return (0, 0) };
        let mut slot = entry.cell.lock();
        slot.job().map_or((0, 0), |job| (job.rows.total(), job.rows.count(ChunkState::Completed)))
    }

    /// The spec of the job of a run.
    pub fn spec(&self, ticket: u32) -> Option<Arc<crate::job::Spec>> {
        self.entry(ticket)?.cell.lock().job().ok().map(|job| job.spec.clone())
    }

    /// The next chunk for a free slot: its position plus 2^32 times its attempt, or [`LEAVE`], [`WAIT`], [`BUSY`].
    pub fn next(&self, ticket: u32) -> f64 {
        let Some(entry) = self.entry(ticket) else { return LEAVE };
        let mut run = entry.run.lock();
        match &mut *run {
            Some(run) => self.take_next(&entry, run),
            None => LEAVE,
        }
    }

    pub(super) fn take_next(&self, entry: &Entry, run: &mut Run) -> f64 {
        if run.stop.is_some() {
            return LEAVE;
        }
        if self.is_behind() {
            return WAIT;
        }
        let mut slot = entry.cell.lock();
        let Ok(job) = slot.job() else { return LEAVE };
        let rows = &job.rows;
        match run.schedule.next(self.clock_ms(), |index| rows.get(index).state == ChunkState::Pending) {
            Next::Run(index) => {
                let attempt = rows.get(index).attempt + 1;
                match self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkStarted { index, attempt }, now_ms()) {
                    Ok(()) => f64::from(index) + f64::from(attempt) * 4_294_967_296.0,
                    Err(_) => LEAVE,
                }
            }
            Next::Wait(_) => WAIT,
            Next::Busy => BUSY,
            Next::Leave => LEAVE,
        }
    }

    /// Whether so much waits for its commit that no further chunk is begun.
    pub fn is_behind(&self) -> bool {
        self.durable.is_some() && self.repository.changes.waiting() > super::commit::MOST_WAITING
    }

    /// Keeps the whole outputs of an attempt, as far as there are any: to be called before its end is told.
    pub fn keep_log(&self, ticket: u32, index: u32, attempt: u32, stdout: String, stderr: String) {
        let bounded = |text: String| {
            if text.len() <= 2 * LOG_END + CUT_LINE {
                return text;
            }
            let mut kept = Kept::new(LOG_END);
            kept.push(&text);
            kept.into_text()
        };
        self.keep_texts(ticket, index, attempt, [stdout, stderr].map(bounded));
    }

    /// Keeps what the two streams of an attempt said.
    pub(super) fn keep_texts(&self, ticket: u32, index: u32, attempt: u32, texts: [String; 2]) {
        let Some(entry) = self.entry(ticket) else { return };
        for (stream, text) in [LogStream::Stdout, LogStream::Stderr].into_iter().zip(texts) {
            if !text.is_empty() {
                entry.cell.lock().keep_log(LogWrite { index, attempt, stream, text: text.into() });
            }
        }
    }

    /// Milliseconds until the next retry of a run is due.
    pub fn wait_ms(&self, ticket: u32) -> f64 {
        if self.is_behind() {
            return 1.0;
        }
        let Some(entry) = self.entry(ticket) else { return 0.0 };
        let mut run = entry.run.lock();
        let Some(run) = &mut *run else { return 0.0 };
        let now = self.clock_ms();
        match run.schedule.clone().next(now, |_| false) {
            Next::Wait(due) => (due - now).max(0.0),
            _ => 0.0,
        }
    }

    /// A chunk is done; gives the next one, as [`Self::next`] does. A report of anything but the current attempt is
    /// refused with a warning and answered with [`LEAVE`].
    pub fn complete(&self, ticket: u32, index: u32, attempt: u32, duration_ms: f64, output: Option<(&str, &str)>) -> f64 {
        let duration_ms = plausible(duration_ms);
        let Some(entry) = self.entry(ticket) else { return LEAVE };
        let mut run = entry.run.lock();
        let Some(run) = &mut *run else { return LEAVE };
        {
            let now = now_ms();
            let mut slot = entry.cell.lock();
            if let Ok(job) = slot.job() {
                run.forget(job, index);
            }
            if let Err(error) = self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkCompleted { index, attempt, duration_ms }, now) {
                if abandoned(&mut slot) {
                    run.schedule.ended();
                }
                let message = format!("A late report was refused: {}", error.message);
                let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Warning { message: message.into(), error: None }, now);
                return LEAVE;
            }
            run.schedule.ended();
            if let Ok(job) = slot.job() {
                run.pace.finished(now, job.spec.weight(index), duration_ms);
                if let Some((stdout, stderr)) = output.filter(|(stdout, stderr)| !stdout.is_empty() || !stderr.is_empty()) {
                    job.rows.set_output(index, Output { stdout: tail(stdout, KEPT_TAIL).into(), stderr: tail(stderr, KEPT_TAIL).into() });
                }
            }
        }
        self.take_next(&entry, run)
    }

    /// As [`Self::complete`]; after the last chunk, where nothing is left to do, it also ends the run: what [`Self::advance`]
    /// would say is then the error.
    pub fn complete_to_end(&self, ticket: u32, number: u32, index: u32, attempt: u32, duration_ms: f64) -> Result<f64, Advance> {
        let next = self.complete(ticket, index, attempt, duration_ms, None);
        if next == LEAVE && self.is_all_done(ticket, number) { Err(self.advance(ticket, number, false)) } else { Ok(next) }
    }

    /// Whether a run can only complete: every chunk is done, nobody wants it stopped, and nothing comes after the chunks.
    fn is_all_done(&self, ticket: u32, number: u32) -> bool {
        self.current(ticket, number, |entry, run| {
            let mut slot = entry.cell.lock();
            let Ok(job) = slot.job() else { return false };
            let done = job.rows.count(ChunkState::Completed) == job.rows.total() && run.schedule.in_flight() == 0;
            done && run.stop.is_none() && !job.merges() && job.rows.stamped().next().is_none()
        })
        .unwrap_or(false)
    }

    /// An attempt of a chunk failed; `fatal`: another one would fail just so. Gives the next chunk.
    pub fn fail(&self, ticket: u32, index: u32, attempt: u32, mut error: ErrorInfo, fatal: bool) -> f64 {
        let Some(entry) = self.entry(ticket) else { return LEAVE };
        let mut guard = entry.run.lock();
        let Some(run) = &mut *guard else { return LEAVE };
        let now = now_ms();
        let mut slot = entry.cell.lock();
        let Ok(job) = slot.job() else { return LEAVE };
        if index >= job.rows.total() {
            return LEAVE;
        }
        run.forget(job, index);
        if run.stop.as_ref().is_some_and(|stop| !stop.is_graceful()) {
            // Stopped on request: nothing of it is a failure.
            let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkStopped { index, attempt }, now);
            run.schedule.ended();
            return LEAVE;
        }
        let failures = job.rows.detail(index).map_or(0, |detail| detail.failures) + 1;
        let id = job.spec.chunk_id(index);
        error.chunk_id = Some(id);
        error.attempt = Some(attempt);
        let retry = (!fatal && failures <= job.options.retries).then(|| job.options.retry.delay_ms(failures, random()));
        if retry.is_none() && failures > 1 {
            error.message = match error.message.strip_prefix(&format!("Chunk {id} failed")) {
                Some(rest) => format!("Chunk {id} failed after {failures} attempts{rest}"),
                None => format!("Chunk {id} failed after {failures} attempts: {}", error.message),
            };
        }
        let policy = job.options.failure_policy;
        let event = JobEvent::ChunkFailed { index, attempt, error: Box::new(error.clone()), retry_in_ms: retry };
        if let Err(refused) = self.repository.change(&entry.cell, &mut slot, event, now) {
            if abandoned(&mut slot) {
                run.schedule.ended();
            }
            let message = format!("A late report was refused: {}", refused.message);
            let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Warning { message: message.into(), error: None }, now);
            return LEAVE;
        }
        run.schedule.ended();
        drop(slot);
        match retry {
            Some(delay) => run.schedule.retry(index, self.clock_ms() + delay),
            None if policy == FailurePolicy::FailFast => {
                drop(guard);
                self.stop(&entry, Stopping::Fail(Box::new(error)));
                return LEAVE;
            }
            None => {}
        }
        self.take_next(&entry, run)
    }

    /// An attempt was stopped before its end: the chunk is to be done again.
    pub fn stopped(&self, ticket: u32, index: u32, attempt: u32) {
        let Some(entry) = self.entry(ticket) else { return };
        let mut run = entry.run.lock();
        let Some(run) = &mut *run else { return };
        let mut slot = entry.cell.lock();
        if let Ok(job) = slot.job() {
            run.forget(job, index);
        }
        let stopped = self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkStopped { index, attempt }, now_ms());
        if stopped.is_ok() || abandoned(&mut slot) {
            run.schedule.ended();
        }
    }

    /// The task of a chunk died without an answer: a fault of ours, which fails the job.
    pub(super) fn lost(&self, ticket: u32, message: String) {
        let Some(entry) = self.entry(ticket) else { return };
        if let Some(run) = &mut *entry.run.lock() {
            run.schedule.ended();
        }
        self.stop(&entry, Stopping::Fail(Box::new(ErrorInfo::new(ErrorCode::Internal, message))));
    }

    /// How far a chunk is, 0 to 1.
    pub fn chunk_progress(&self, ticket: u32, index: u32, fraction: f64) {
        let Some(entry) = self.entry(ticket) else { return };
        let mut run = entry.run.lock();
        let Some(run) = &mut *run else { return };
        let now = now_ms();
        let mut slot = entry.cell.lock();
        let Ok(job) = slot.job() else { return };
        if index >= job.rows.total() || job.rows.get(index).state != ChunkState::Running {
            return;
        }
        let chunk_id = job.spec.chunk_id(index);
        run.fractions.insert(index, fraction.clamp(0.0, 1.0));
        run.count_fractions(job);
        job.raise_progress();
        job.extras_mut().last_output_at = Some(now);
        let (progress, completed, total) = (job.progress(), job.completed_chunks(), job.rows.total());
        let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkProgress { chunk_id, fraction: fraction as f32 }, now);
        let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::Progress { progress, completed, total }, now);
    }

    /// The work gave a sign of life.
    pub fn alive(&self, ticket: u32) {
        if let Some(entry) = self.entry(ticket)
            && let Ok(job) = entry.cell.lock().job()
        {
            job.extras_mut().last_output_at = Some(now_ms());
        }
    }

    fn current<T>(&self, ticket: u32, number: u32, act: impl FnOnce(&Arc<Entry>, &mut Run) -> T) -> Option<T> {
        let entry = self.entry(ticket)?;
        let mut run = entry.run.lock();
        let run = run.as_mut().filter(|run| run.number == number)?;
        Some(act(&entry, run))
    }

    /// What an executor of the user's tells by `onProgress`. False: too late.
    pub fn report_progress(&self, ticket: u32, number: u32, completed: u32, total: u32) -> bool {
        self.current(ticket, number, |entry, _| {
            let mut slot = entry.cell.lock();
            let now = now_ms();
            let Ok(job) = slot.job() else { return };
            job.report(completed, total, now);
            let event = JobEvent::Progress { progress: job.progress(), completed: job.completed_chunks(), total: job.rows.total() };
            let _ = self.repository.change(&entry.cell, &mut slot, event, now);
        })
        .is_some()
    }

    /// What an executor of the user's tells by `onChunkComplete`. An error says why it was refused.
    pub fn report_chunk(&self, ticket: u32, number: u32, chunk_id: u64, duration_ms: f64, stdout: &str, stderr: &str) -> Result<(), Error> {
        let duration_ms = plausible(duration_ms);
        let refused = |why: String| Error::new(ErrorCode::Conflict, why);
        self.current(ticket, number, |entry, run| {
            let mut slot = entry.cell.lock();
            let now = now_ms();
            let job = slot.job()?;
            let index = job.spec.index_of(chunk_id).ok_or_else(|| refused(format!("the job has no chunk {chunk_id}")))?;
            let row = job.rows.get(index);
            if row.state == ChunkState::Completed {
                return Err(refused(format!("chunk {chunk_id} is done already")));
            }
            let attempt = job.reported_attempt(index);
            let weight = job.spec.weight(index);
            self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkStarted { index, attempt }, now)?;
            self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkCompleted { index, attempt, duration_ms }, now)?;
            run.pace.finished(now, weight, duration_ms);
            if !(stdout.is_empty() && stderr.is_empty()) {
                slot.job()?.rows.set_output(index, Output { stdout: tail(stdout, KEPT_TAIL).into(), stderr: tail(stderr, KEPT_TAIL).into() });
            }
            Ok(())
        })
        .unwrap_or_else(|| Err(refused(format!("chunk {chunk_id} was reported after the end of its run"))))
    }

    /// The executor of a whole job has ended.
    pub fn settle(&self, ticket: u32, number: u32, settled: Settled) -> Advance {
        let Some(entry) = self.entry(ticket) else { return Advance::Stale };
        let mut run = entry.run.lock();
        let Some(current) = run.as_mut().filter(|run| run.number == number) else { return Advance::Stale };
        let end = match (current.stop.take(), settled) {
            (Some(stop), _) => Some(stop),
            (None, Settled::Aborted) => Some(Stopping::Cancel { reason: None }),
            (None, Settled::Failed(error)) => Some(Stopping::Fail(Box::new(error))),
            (None, Settled::Resolved(result)) => {
                if let Some(result) = result
                    && let Ok(job) = entry.cell.lock().job()
                    && !(current.merged && job.extras.as_ref().is_some_and(|extras| extras.result.is_some()))
                {
                    job.extras_mut().result = Some(result);
                }
                None
            }
        };
        *run = None;
        drop(run);
        Advance::Ended(self.conclude(&entry, end))
    }

    /// The driver has no chunk left: says whether to merge, or ends the run. With `hold` a run that has done all stays open
    /// until [`Self::settle`]: its driver was called by somebody who has more to do.
    pub fn advance(&self, ticket: u32, number: u32, hold: bool) -> Advance {
        let Some(entry) = self.entry(ticket) else { return Advance::Stale };
        let mut guard = entry.run.lock();
        let Some(run) = guard.as_mut().filter(|run| run.number == number) else { return Advance::Stale };
        run.held |= hold;
        if run.schedule.in_flight() > 0 {
            return Advance::Busy;
        }
        let mut end = run.stop.take();
        if end.is_none() {
            let mut slot = entry.cell.lock();
            let Ok(job) = slot.job() else { return Advance::Stale };
            if job.rows.count(ChunkState::Failed) > 0 {
                let failures = job.rows.failures();
                let mut error = failures.first().cloned().unwrap_or_else(|| ErrorInfo::new(ErrorCode::ChunkFailed, "A chunk failed"));
                if failures.len() > 1 {
                    error.message = format!("{} chunks failed; the first: {}", failures.len(), error.message);
                }
                end = Some(Stopping::Fail(Box::new(error)));
            } else if job.rows.count(ChunkState::Completed) < job.rows.total() {
                let message = format!("{} chunks were not run", job.rows.total() - job.rows.count(ChunkState::Completed));
                end = Some(Stopping::Fail(Box::new(ErrorInfo::new(ErrorCode::Internal, message))));
            } else if job.merges() && !run.merged {
                let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::MergeStarted, now_ms());
                return Advance::Merge;
            } else if hold {
                return Advance::Held;
            }
        }
        *guard = None;
        drop(guard);
        Advance::Ended(self.conclude(&entry, end))
    }

    /// Who holds the run has nothing more to do: from now on a job that has merged completes. False: it was asked to stop.
    pub fn seal(&self, ticket: u32, number: u32) -> bool {
        let Some(entry) = self.entry(ticket) else { return false };
        let mut guard = entry.run.lock();
        let Some(run) = guard.as_mut().filter(|run| run.number == number && run.stop.is_none()) else { return false };
        run.held = false;
        true
    }

    /// The merge has ended, with JSON of what is known of the output, or with an error and whether another try would fail
    /// just so.
    pub fn merged(&self, ticket: u32, number: u32, duration_ms: f64, outcome: Result<Option<Box<str>>, (ErrorInfo, bool)>) -> Advance {
        let Some(entry) = self.entry(ticket) else { return Advance::Stale };
        let mut guard = entry.run.lock();
        let Some(run) = guard.as_mut().filter(|run| run.number == number) else { return Advance::Stale };
        let mut slot = entry.cell.lock();
        let now = now_ms();
        if run.stop.is_none() {
            match outcome {
                Ok(result) => {
                    run.merged = true;
                    let _ = self.repository.change(&entry.cell, &mut slot, JobEvent::MergeCompleted { duration_ms }, now);
                    if let (Some(result), Ok(job)) = (result, slot.job()) {
                        job.extras_mut().result = Some(result);
                    }
                    return Advance::Merged;
                }
                Err((error, fatal)) => {
                    run.merge_failures += 1;
                    let Ok(job) = slot.job() else { return Advance::Stale };
                    let will_retry = !fatal && run.merge_failures <= job.options.retries;
                    let delay = job.options.retry.delay_ms(run.merge_failures, random());
                    let event = JobEvent::MergeFailed { error: Box::new(error.clone()), will_retry };
                    let _ = self.repository.change(&entry.cell, &mut slot, event, now);
                    if will_retry {
                        return Advance::MergeIn(delay.ceil() as u32);
                    }
                    run.stop = Some(Stopping::Fail(Box::new(error)));
                }
            }
        }
        drop(slot);
        drop(guard);
        self.advance(ticket, number, false)
    }

    /// The driver did not stop in time: the job gets its state now; whatever comes of the run later is refused.
    pub fn give_up(&self, ticket: u32, number: u32) -> Advance {
        let Some(entry) = self.entry(ticket) else { return Advance::Stale };
        let mut run = entry.run.lock();
        let Some(current) = run.as_mut().filter(|run| run.number == number) else { return Advance::Stale };
        current.token.cancel();
        let end = match current.stop.take() {
            None if current.is_sealed() => None,
            None if self.is_closed() => Some(Stopping::Shutdown),
            None => Some(Stopping::Cancel { reason: None }),
            stop => stop,
        };
        *run = None;
        drop(run);
        Advance::Ended(self.conclude(&entry, end))
    }

    /// Nothing of the run is alive: the job gets the state that it has earned, the slot is free.
    fn conclude(&self, entry: &Arc<Entry>, end: Option<Stopping>) -> Option<JobState> {
        let mut state = None;
        let now = now_ms();
        {
            let mut slot = entry.cell.lock();
            slot.set_owner(None);
            if matches!(end, Some(Stopping::Delete)) {
                match (&self.durable, self.me.upgrade()) {
                    // Gone only when the store says so.
                    (Some(durable), Some(manager)) => {
                        let (durable, cell) = (durable.clone(), entry.cell.clone());
                        let (store, under_way) = (durable.store.clone(), durable.begin());
                        store.spawn(async move {
                            manager.delete_owned(&durable, &cell).await;
                            drop(under_way);
                        });
                    }
                    _ => self.repository.remove(&entry.cell, &mut slot, false),
                }
            }
            let removes = matches!(end, Some(Stopping::Delete));
            if !slot.is_gone()
                && !removes
                && let Ok(job) = slot.job()
                && job.state == JobState::Running
            {
                let duration_ms = (now - job.run_started_at).max(0.0);
                let event = match end {
                    None => JobEvent::Completed { duration_ms },
                    Some(Stopping::Pause { .. }) => JobEvent::Paused,
                    Some(Stopping::Cancel { reason }) => JobEvent::Cancelled { reason },
                    Some(Stopping::Fail(error)) => JobEvent::Failed { error },
                    Some(Stopping::Shutdown) => JobEvent::Released,
                    Some(Stopping::Withdraw) => JobEvent::Cancelled { reason: None },
                    Some(Stopping::Delete) => return None,
                };
                if let (JobEvent::Released, Some(kept)) = (&event, &mut slot.kept) {
                    kept.release = true;
                }
                let _ = self.repository.change(&entry.cell, &mut slot, event, now);
            }
            if !slot.is_gone() && !removes {
                state = slot.job().ok().map(|job| job.state);
            }
        }
        self.forget(entry);
        self.free_slot();
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.repository.rest(&entry.cell);
        state
    }
}

/// A duration that JSON and a row can hold.
fn plausible(duration_ms: f64) -> f64 {
    if duration_ms.is_finite() { duration_ms.clamp(0.0, 1e15) } else { 0.0 }
}

/// Whether the job was removed or taken out of the run's hands, so that no report counts any more but the chunks still end.
fn abandoned(slot: &mut Slot) -> bool {
    slot.is_gone() || slot.job().map_or(true, |job| job.state != JobState::Running)
}

/// A number in 0..1 for jitter.
fn random() -> f64 {
    (uuid::Uuid::new_v4().as_u128() >> 75) as f64 / (1u64 << 53) as f64
}
