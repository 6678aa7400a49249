//! The core's manager as JavaScript drives it. All calls are synchronous: what takes time is told by notices.

use std::sync::Arc;

use framewright_core::job::state::Control;
use framewright_core::job::{ChunkState, Error, ErrorCode, ErrorInfo, JobEvent, JobState};
use framewright_core::manager::drive::ProcessDriver;
use framewright_core::manager::{Advance, Controlled, Manager, Notices, Settled};
use framewright_core::repository::memory::{Ask, MemoryRepository, now_ms};
use napi::Status;
use napi::bindgen_prelude::{Env, Function, PromiseRaw, Result, spawn};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi_derive::napi;
use serde_json::{Map, Value};

use crate::adapter::{environment, process_options};
use crate::durable::{self, DurableStore, StoredJob, StoredStatus, promise};
use crate::error::{failure, thrown};
use crate::exit;
use crate::spec::{LongLists, SpecBuilder};
use crate::store::{ChunkPage, JobPage, MemoryStore, list, long};
use crate::table;

type Wake = ThreadsafeFunction<(), (), (), Status, false, true>;

/// The manager's native half.
#[napi]
pub struct Engine {
    inner: Arc<Manager>,
    /// Whether the repository is this engine's cache of a store behind JavaScript.
    cache: bool,
}

/// Status and record of a job with the version that they hold.
#[napi(object)]
pub struct Snapshot {
    /// JSON of the status with its `record`.
    pub status: String,
    /// Version of the job.
    pub version: f64,
}

/// Events and where the next ones begin.
#[napi(object)]
pub struct EventPage {
    /// JSON array of events.
    pub events: String,
    /// Place after them.
    pub place: f64,
}

/// What JavaScript is told of it.
pub fn code(advance: Advance) -> f64 {
    match advance {
        Advance::Ended(None) => -7.0,
        Advance::Ended(Some(state)) => -1.0 - f64::from(state as u8),
        Advance::Merge => 1.0,
        Advance::Busy => 2.0,
        Advance::Stale => 3.0,
        Advance::Merged => 4.0,
        Advance::Held => 5.0,
        Advance::MergeIn(ms) => 10.0 + f64::from(ms),
    }
}

fn controlled(outcome: Controlled) -> u32 {
    match outcome {
        Controlled::Done => 0,
        Controlled::Stopping => 1,
        Controlled::Nothing => 2,
        Controlled::Already => 3,
    }
}

fn info(json: &str) -> ErrorInfo {
    serde_json::from_str(json).unwrap_or_else(|_| ErrorInfo::new(ErrorCode::Internal, json))
}

/// A JSON object, or nothing.
pub fn fields(json: &str) -> Option<Map<String, Value>> {
    if json.is_empty() { None } else { serde_json::from_str(json).ok() }
}

fn words(program: &str) -> Result<Vec<String>> {
    crate::spec::split_command(program.to_owned())
}

impl Engine {
    fn of(inner: Arc<Manager>, cache: bool) -> Self {
        table::add(&inner);
        Self { inner, cache }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        table::remove(self.inner.number());
    }
}

#[napi]
impl Engine {
    /// `store`: the jobs' home; without one, the engine has a cache of its own for a store behind JavaScript. `wake` is
    /// called when there are notices or events and nobody is asking.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, store: Option<&MemoryStore>, most_running: u32, kinds: Vec<String>, runs: bool, wake: Function<'_, (), ()>) -> Result<Self> {
        let wake: Wake = wake.build_threadsafe_function().weak::<true>().build_callback(|_| Ok(()))?;
        let notices = Notices::new(move || {
            let _ = wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        let repository = store.map_or_else(|| MemoryRepository::new(true), |store| store.inner.clone());
        let kinds = kinds.into_iter().map(Into::into).collect();
        Ok(Self::of(Manager::new(repository, notices, exit::groups(env), most_running, runs, kinds), store.is_none()))
    }

    /// The manager's native half over a durable store.
    #[allow(clippy::too_many_arguments, reason = "numbers and strings cross cheaper than an object")]
    #[napi(factory, catch_unwind)]
    pub fn over(
        env: &Env,
        store: &DurableStore,
        most_running: u32,
        lease_ms: f64,
        recover: bool,
        kinds: Vec<String>,
        runs: bool,
        wake: Function<'_, (), ()>,
    ) -> Result<Self> {
        let wake: Wake = wake.build_threadsafe_function().weak::<true>().build_callback(|_| Ok(()))?;
        let notices = Notices::new(move || {
            let _ = wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        let options = durable::options(lease_ms, recover, kinds, runs);
        Ok(Self::of(Manager::over(store.inner.clone(), options, notices, exit::groups(env), most_running), false))
    }

    /// The status of a job on the durable store, or null.
    #[napi(catch_unwind)]
    pub fn fetch<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, Option<StoredStatus>>> {
        let manager = self.inner.clone();
        promise(env, async move { Ok(manager.fetch(id).await?.map(StoredStatus::from)) })
    }

    /// A job of the durable store, for its chunks.
    #[napi(catch_unwind)]
    pub fn fetch_job<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, StoredJob>> {
        let manager = self.inner.clone();
        promise(env, async move { manager.fetch_job(id).await.map(StoredJob::new) })
    }

    /// What a stream of an attempt said; attempt 0: the latest.
    #[napi(catch_unwind)]
    pub fn read_log<'env>(&self, env: &'env Env, id: String, chunk_id: f64, attempt: u32, stream: String) -> Result<PromiseRaw<'env, String>> {
        let attempt = (attempt > 0).then_some(attempt);
        promise(env, self.inner.clone().fetch_log(id, chunk_id as u64, attempt, durable::stream(&stream)))
    }

    /// Pauses a job on the durable store. 0: paused; 1: being stopped here; 2: did not apply; 3: it was so already.
    #[napi(catch_unwind)]
    pub fn pause_stored<'env>(&self, env: &'env Env, id: String, graceful: bool, strict: bool) -> Result<PromiseRaw<'env, u32>> {
        let manager = self.inner.clone();
        promise(env, async move { manager.control_stored(id, Control::Pause, Ask::Pause { graceful }, strict).await.map(controlled) })
    }

    #[napi(catch_unwind)]
    pub fn cancel_stored<'env>(&self, env: &'env Env, id: String, reason: Option<String>, strict: bool) -> Result<PromiseRaw<'env, u32>> {
        let (manager, ask) = (self.inner.clone(), Ask::Cancel { reason: reason.map(Into::into) });
        promise(env, async move { manager.control_stored(id, Control::Cancel, ask, strict).await.map(controlled) })
    }

    #[napi(catch_unwind)]
    pub fn remove_stored<'env>(&self, env: &'env Env, id: String, strict: bool) -> Result<PromiseRaw<'env, u32>> {
        let manager = self.inner.clone();
        promise(env, async move { manager.control_stored(id, Control::Delete, Ask::Delete, strict).await.map(controlled) })
    }

    /// The ticket of a job that goes on here once `queueUp` was called; -1: it did not apply, or another runs it.
    #[napi(catch_unwind)]
    pub fn resume_stored<'env>(&self, env: &'env Env, id: String, changes: String, strict: bool) -> Result<PromiseRaw<'env, f64>> {
        let manager = self.inner.clone();
        promise(env, async move { manager.resume_stored(id, changes, strict).await.map(|ticket| ticket.map_or(-1.0, f64::from)) })
    }

    /// The driver is ready for a job that was taken over or resumed.
    #[napi(catch_unwind)]
    pub fn queue_up(&self, ticket: u32) {
        self.inner.queue_up(ticket);
    }

    /// A job that was taken over can't go on without an option that is missing.
    #[napi(catch_unwind)]
    pub fn lack(&self, ticket: u32, what: String) {
        self.inner.lack(ticket, &what);
    }

    /// Takes over interrupted jobs now; gives their ids.
    #[napi(catch_unwind)]
    pub fn recover<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Vec<String>>> {
        let manager = self.inner.clone();
        promise(env, async move { Ok(manager.recover_now().await?.iter().map(|id| id.to_string()).collect()) })
    }

    /// Also takes jobs that nobody has had yet.
    #[napi(catch_unwind)]
    pub fn work(&self, on: bool) {
        self.inner.work(on);
    }

    /// Jobs in memory that nobody works on.
    #[napi(catch_unwind)]
    pub fn interrupted(&self) -> Vec<String> {
        self.inner.interrupted().iter().map(|id| id.to_string()).collect()
    }

    /// Takes over a job that nobody in this process works on; gives its ticket for `queueUp`; -1: somebody does.
    #[napi(catch_unwind)]
    pub fn take_here(&self, id: String) -> f64 {
        self.inner.take_here(&id).map_or(-1.0, f64::from)
    }

    /// The option without which the job can't go on and which is not written down.
    #[napi(catch_unwind)]
    pub fn needs(&self, ticket: u32) -> Option<String> {
        self.inner.needs(ticket).map(str::to_owned)
    }

    /// Has `Changed` notices pushed for a job of another owner.
    #[napi(catch_unwind)]
    pub fn await_stored(&self, id: String, on: bool) {
        self.inner.await_stored(&id, on);
    }

    /// Writes what is left, within so many milliseconds, and gives the name back.
    #[napi(catch_unwind)]
    pub fn retire<'env>(&self, env: &'env Env, limit: f64) -> Result<PromiseRaw<'env, ()>> {
        promise(env, self.inner.clone().retire(durable::milliseconds(limit)))
    }

    /// Keeps the whole outputs of an attempt; called before its end is told.
    #[napi(catch_unwind)]
    pub fn keep_log(&self, ticket: u32, index: u32, attempt: u32, stdout: String, stderr: String) {
        self.inner.keep_log(ticket, index, attempt, stdout, stderr);
    }

    /// Resolves once the events of the durable store are followed.
    #[napi(catch_unwind)]
    pub fn begun<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        promise(env, self.inner.clone().begun())
    }

    /// Whether the job of a run has finished chunks with known outputs.
    #[napi(catch_unwind)]
    pub fn has_outputs(&self, ticket: u32) -> bool {
        self.inner.has_outputs(ticket)
    }

    /// Has chunks done again whose outputs are gone or changed; gives how many.
    #[napi(catch_unwind)]
    pub fn check_outputs<'env>(&self, env: &'env Env, ticket: u32, run: u32) -> Result<PromiseRaw<'env, u32>> {
        let manager = self.inner.clone();
        promise(env, async move { Ok(manager.check_outputs(ticket, run).await) })
    }

    /// Number of the latest event that was seen here.
    #[napi(catch_unwind)]
    pub fn latest_event(&self) -> f64 {
        self.inner.repository.log.latest() as f64
    }

    /// Names this engine in the calls that are functions of their own, as long as it lives.
    #[napi(getter, catch_unwind)]
    pub fn number(&self) -> u32 {
        self.inner.number()
    }

    /// The identity of this manager.
    #[napi(getter, catch_unwind)]
    pub fn owner(&self) -> String {
        self.inner.owner().to_string()
    }

    /// Takes a job whose spec came in slices.
    #[napi(catch_unwind)]
    pub fn submit_built(&self, id: String, builder: &mut SpecBuilder, public: String, hold: bool) -> Result<u32> {
        let (spec, options) = builder.take()?;
        self.inner.submit(&id, spec, options, fields(&public), hold).map_err(thrown)
    }

    #[napi(catch_unwind)]
    pub fn admit(&self, ticket: u32) {
        self.inner.admit(ticket);
    }

    #[napi(catch_unwind)]
    pub fn discard(&self, ticket: u32) {
        self.inner.discard(ticket);
    }

    /// Brings a job of the store behind JavaScript into the cache.
    #[napi(catch_unwind)]
    pub fn adopt(&self, status: String) -> Result<()> {
        self.inner.adopt(&status).map_err(thrown)
    }

    /// Takes in what somebody else saved over a job in a store behind JavaScript.
    #[napi(catch_unwind)]
    pub fn take_in(&self, status: String) -> Result<()> {
        self.inner.repository.take_in(&status).map_err(thrown)
    }

    /// Drops a job that is not worked on from the cache.
    #[napi(catch_unwind)]
    pub fn release(&self, id: String) {
        if self.cache {
            self.inner.release(&id);
        }
    }

    #[napi(catch_unwind)]
    pub fn is_behind(&self) -> bool {
        self.inner.is_behind()
    }

    #[napi(catch_unwind)]
    pub fn wait_ms(&self, ticket: u32) -> f64 {
        self.inner.wait_ms(ticket)
    }

    #[napi(catch_unwind)]
    pub fn complete_with(&self, ticket: u32, index: u32, attempt: u32, duration_ms: f64, stdout: String, stderr: String) -> f64 {
        self.inner.complete(ticket, index, attempt, duration_ms, Some((&stdout, &stderr)))
    }

    /// An attempt failed; `error` is JSON of a `JobErrorInfo`.
    #[napi(catch_unwind)]
    pub fn fail(&self, ticket: u32, index: u32, attempt: u32, error: String, fatal: bool) -> f64 {
        self.inner.fail(ticket, index, attempt, info(&error), fatal)
    }

    /// An attempt ended with another exit code than 0.
    #[allow(clippy::too_many_arguments, reason = "numbers and strings cross cheaper than an object")]
    #[napi(catch_unwind)]
    pub fn fail_exit(&self, ticket: u32, index: u32, attempt: u32, chunk_id: f64, exit_code: i32, signal: Option<String>, stderr: String) -> f64 {
        let error = ErrorInfo::of_exit(ErrorCode::ChunkFailed, &format!("Chunk {chunk_id}"), exit_code, signal.as_deref(), &stderr);
        self.inner.fail(ticket, index, attempt, error, false)
    }

    #[napi(catch_unwind)]
    pub fn stopped(&self, ticket: u32, index: u32, attempt: u32) {
        self.inner.stopped(ticket, index, attempt);
    }

    #[napi(catch_unwind)]
    pub fn chunk_progress(&self, ticket: u32, index: u32, fraction: f64) {
        self.inner.chunk_progress(ticket, index, fraction);
    }

    #[napi(catch_unwind)]
    pub fn alive(&self, ticket: u32) {
        self.inner.alive(ticket);
    }

    #[napi(catch_unwind)]
    pub fn report_progress(&self, ticket: u32, run: u32, completed: u32, total: u32) -> bool {
        self.inner.report_progress(ticket, run, completed, total)
    }

    /// Null, or why the report was refused.
    #[napi(catch_unwind)]
    pub fn report_chunk(&self, ticket: u32, run: u32, chunk_id: f64, duration_ms: f64, stdout: String, stderr: String) -> Option<String> {
        self.inner.report_chunk(ticket, run, chunk_id as u64, duration_ms, &stdout, &stderr).err().map(|error| error.message)
    }

    /// The executor of a whole job resolved; `result`: JSON, or empty.
    #[napi(catch_unwind)]
    pub fn resolved(&self, ticket: u32, run: u32, result: String) -> f64 {
        let result = if result.is_empty() { None } else { Some(result.into()) };
        code(self.inner.settle(ticket, run, Settled::Resolved(result)))
    }

    /// The executor of a whole job rejected; `error`: JSON of a `JobErrorInfo`.
    #[napi(catch_unwind)]
    pub fn rejected(&self, ticket: u32, run: u32, aborted: bool, error: String) -> f64 {
        code(self.inner.settle(ticket, run, if aborted { Settled::Aborted } else { Settled::Failed(info(&error)) }))
    }

    /// Nothing comes any more but what is cleaned up; false: the run was asked to stop.
    #[napi(catch_unwind)]
    pub fn seal(&self, ticket: u32, run: u32) -> bool {
        self.inner.seal(ticket, run)
    }

    #[napi(catch_unwind)]
    pub fn advance(&self, ticket: u32, run: u32, hold: bool) -> f64 {
        code(self.inner.advance(ticket, run, hold))
    }

    /// The merge ended; `error`: JSON of a `JobErrorInfo`, or empty; `result`: JSON, or empty.
    #[napi(catch_unwind)]
    pub fn merged(&self, ticket: u32, run: u32, duration_ms: f64, error: String, fatal: bool, result: String) -> f64 {
        let outcome = if error.is_empty() { Ok(if result.is_empty() { None } else { Some(result.into()) }) } else { Err((info(&error), fatal)) };
        code(self.inner.merged(ticket, run, duration_ms, outcome))
    }

    /// JSON of the failure of a merge program.
    #[napi(catch_unwind)]
    pub fn merge_exit_error(&self, exit_code: i32, signal: Option<String>, stderr: String) -> String {
        serde_json::to_string(&ErrorInfo::of_exit(ErrorCode::MergeFailed, "Merge", exit_code, signal.as_deref(), &stderr)).unwrap_or_default()
    }

    #[napi(catch_unwind)]
    pub fn give_up(&self, ticket: u32, run: u32) -> f64 {
        code(self.inner.give_up(ticket, run))
    }

    /// 0: paused; 1: being stopped; 2: did not apply; 3: it was so already.
    #[napi(catch_unwind)]
    pub fn pause(&self, id: String, graceful: bool, strict: bool) -> Result<u32> {
        self.inner.control(&id, Control::Pause, Ask::Pause { graceful }, strict).map(controlled).map_err(thrown)
    }

    #[napi(catch_unwind)]
    pub fn cancel(&self, id: String, reason: Option<String>, strict: bool) -> Result<u32> {
        self.inner.control(&id, Control::Cancel, Ask::Cancel { reason: reason.map(Into::into) }, strict).map(controlled).map_err(thrown)
    }

    #[napi(catch_unwind)]
    pub fn remove(&self, id: String, strict: bool) -> Result<u32> {
        self.inner.control(&id, Control::Delete, Ask::Delete, strict).map(controlled).map_err(thrown)
    }

    /// The ticket of the job that waits again; -1: it did not apply. `changes`: JSON of options, or empty.
    #[napi(catch_unwind)]
    pub fn resume(&self, id: String, changes: String, strict: bool) -> Result<f64> {
        self.inner.resume(&id, &changes, strict).map(|ticket| ticket.map_or(-1.0, f64::from)).map_err(thrown)
    }

    #[napi(catch_unwind)]
    pub fn close(&self) {
        self.inner.close();
    }

    #[napi(catch_unwind)]
    pub fn shut_down(&self) {
        self.inner.shut_down();
    }

    /// What is being stopped is killed at once.
    #[napi(catch_unwind)]
    pub fn kill(&self) {
        self.inner.kill();
    }

    #[napi(catch_unwind)]
    pub fn time_out(&self, ticket: u32, error: String) {
        self.inner.time_out(ticket, info(&error));
    }

    #[napi(catch_unwind)]
    pub fn warn(&self, id: String, message: String, error: Option<String>) {
        self.inner.warn(&id, &message, error.as_deref().map(info));
    }

    #[napi(catch_unwind)]
    pub fn set_stored(&self, id: String, assets_url: Option<String>, meta: String) -> Result<()> {
        self.inner.set_stored(&id, assets_url.as_deref(), fields(&meta).unwrap_or_default()).map_err(thrown)
    }

    /// The status as JSON.
    #[napi(catch_unwind)]
    pub fn status(&self, id: String) -> Option<String> {
        self.inner.repository.status(&id, |job| self.inner.live(job))
    }

    /// Whether the job is owned here on a durable store, which has no end of it yet.
    #[napi(catch_unwind)]
    pub fn is_at_work(&self, id: String) -> bool {
        let Some(cell) = self.inner.repository.cell(&id) else { return false };
        let slot = cell.lock();
        let active = |state| matches!(state, JobState::Pending | JobState::Running);
        !slot.is_gone() && slot.kept.as_ref().is_some_and(|kept| kept.mine && active(kept.state))
    }

    /// The job's state; null: it is gone.
    #[napi(catch_unwind)]
    pub fn state(&self, id: String) -> Option<String> {
        let cell = self.inner.repository.cell(&id)?;
        let mut slot = cell.lock();
        if slot.is_gone() {
            return None;
        }
        if let Some(kept) = &slot.kept {
            // What is true is what the store has.
            return (kept.version > 0).then(|| kept.state.as_str().to_owned());
        }
        slot.job().ok().map(|job| job.state.as_str().to_owned())
    }

    /// Status with record, whole, of a job that another store has to keep.
    #[napi(catch_unwind)]
    pub fn snapshot(&self, id: String) -> Option<Snapshot> {
        let (status, version) = self.inner.repository.snapshot(&id, |job| self.inner.live(job))?;
        Some(Snapshot { status, version: version as f64 })
    }

    /// The store behind JavaScript has that version now: its events go out.
    #[napi(catch_unwind)]
    pub fn saved(&self, id: String, version: f64) {
        if let Some(cell) = self.inner.repository.cell(&id) {
            self.inner.repository.release_events(&mut cell.lock(), version as u64);
        }
    }

    /// The store behind JavaScript has removed the job.
    #[napi(catch_unwind)]
    pub fn deleted(&self, id: String) {
        self.inner.repository.log.append_of(id.as_str().into(), JobEvent::Deleted, now_ms());
    }

    #[napi(catch_unwind)]
    pub fn long(&self, id: String) -> Option<LongLists> {
        long(&self.inner.repository, &id)
    }

    #[napi(catch_unwind)]
    pub fn list(&self, states: Vec<String>, from: f64, most: u32) -> JobPage {
        list(&self.inner.repository, &states, from, most, |job| self.inner.live(job))
    }

    /// The place of a job in the order of arrival; -1: there is no such job.
    #[napi(catch_unwind)]
    pub fn sequence_of(&self, id: String) -> f64 {
        self.inner.repository.sequence_of(&id).map_or(-1.0, |sequence| sequence as f64)
    }

    /// Has `Changed` notices pushed for a job; false: there is no such job.
    #[napi(catch_unwind)]
    pub fn watch(&self, id: String) -> bool {
        let Some(cell) = self.inner.repository.cell(&id) else { return false };
        let mut slot = cell.lock();
        slot.watch(self.inner.watcher());
        !slot.is_gone()
    }

    #[napi(catch_unwind)]
    pub fn watch_events(&self, on: bool) {
        let watcher = self.inner.watcher();
        if on {
            self.inner.repository.log.watch(watcher);
        } else {
            self.inner.repository.log.unwatch(&watcher);
        }
    }

    /// The place after the latest event.
    #[napi(catch_unwind)]
    pub fn events_end(&self) -> f64 {
        self.inner.repository.log.end() as f64
    }

    /// The place of an event by its number.
    #[napi(catch_unwind)]
    pub fn place_of(&self, sequence: f64) -> Result<f64> {
        self.inner.repository.log.place_of(sequence as u64).map(|place| place as f64).map_err(thrown)
    }

    #[napi(catch_unwind)]
    pub fn read_events(&self, from: f64, most: u32) -> Result<EventPage> {
        let mut events = String::new();
        let place = self.inner.repository.log.read(from as u64, most as usize, &mut events).map_err(thrown)?;
        Ok(EventPage { events, place: place as f64 })
    }

    /// Runs the chunks of a started job as processes; `Ran` tells when none is left. `own` and `inherit`: see [`environment`].
    #[napi(catch_unwind)]
    #[allow(clippy::too_many_arguments, reason = "an object would be made for each job")]
    pub fn drive(
        &self,
        ticket: u32,
        own: Option<Vec<String>>,
        inherit: Option<Vec<String>>,
        kill_grace_ms: f64,
        keep_output_bytes: f64,
        tell_output: bool,
        tell_chunks: bool,
    ) {
        let driver = ProcessDriver {
            env: Arc::new(environment(own, inherit.as_deref())),
            process: process_options(kill_grace_ms, keep_output_bytes),
            tell_output,
            tell_chunks,
        };
        let manager = self.inner.clone();
        spawn(manager.drive(ticket, driver));
    }

    /// Answers a `Verify` notice; `error`: what the user's function threw.
    #[napi(catch_unwind)]
    pub fn answer(&self, question: u32, ok: bool, error: Option<String>) {
        self.inner.answer(question, error.map_or(Ok(ok), Err));
    }

    /// Chunks from a position on, those in `state` if it is given, without the first `skip` of them, at most `most`. Looks at
    /// no more of a job than can be done in passing: where a page ends, the next one begins.
    #[napi(catch_unwind)]
    pub fn chunks(&self, id: String, state: Option<String>, from: u32, skip: f64, most: u32) -> Result<ChunkPage> {
        let cell = self.inner.repository.cell(&id).ok_or_else(|| thrown(Error::not_found(&id)))?;
        let mut slot = cell.lock();
        let job = slot.job().map_err(thrown)?;
        let state = state.and_then(|state| ChunkState::ALL.into_iter().find(|known| known.as_str() == state));
        Ok(ChunkPage::of(job, state, from, skip, most))
    }

    /// JSON of the spec's head (everything but `chunks`) of a job.
    #[napi(catch_unwind)]
    pub fn spec_head(&self, id: String) -> Result<String> {
        self.inner.repository.spec_of(&id).map(|spec| spec.head().to_owned()).ok_or_else(|| thrown(Error::not_found(&id)))
    }

    /// How many chunks a job has.
    #[napi(catch_unwind)]
    pub fn spec_length(&self, id: String) -> u32 {
        self.inner.repository.spec_of(&id).map_or(0, |spec| spec.len())
    }

    /// How many chunks the job of a run has, plus 2^32 times how many of them are done.
    #[napi(catch_unwind)]
    pub fn extent(&self, ticket: u32) -> f64 {
        let (total, done) = self.inner.extent(ticket);
        f64::from(total) + f64::from(done) * 4_294_967_296.0
    }

    /// JSON of the chunks `from..from + count` of the job of a run.
    #[napi(catch_unwind)]
    pub fn run_chunks(&self, ticket: u32, from: u32, count: u32) -> String {
        let mut out = String::new();
        match self.inner.spec(ticket) {
            Some(spec) => spec.write_chunks(&mut out, from, count),
            None => out.push_str("[]"),
        }
        out
    }

    /// JSON of the spec's chunks `from..from + count`.
    #[napi(catch_unwind)]
    pub fn spec_chunks(&self, id: String, from: u32, count: u32) -> Result<String> {
        let spec = self.inner.repository.spec_of(&id).ok_or_else(|| thrown(Error::not_found(&id)))?;
        let mut out = String::new();
        spec.write_chunks(&mut out, from, count);
        Ok(out)
    }

    /// JSON of the options that are kept with a job; `{}` when none were given.
    #[napi(catch_unwind)]
    pub fn options(&self, id: String) -> Result<String> {
        let cell = self.inner.repository.cell(&id).ok_or_else(|| failure(ErrorCode::NotFound, format!("There is no job \"{id}\"")))?;
        let mut slot = cell.lock();
        let job = slot.job().map_err(thrown)?;
        Ok(job.options.text.as_deref().unwrap_or("{}").to_owned())
    }

    /// Ids of the completed chunks, in order of position.
    #[napi(catch_unwind)]
    pub fn completed_ids(&self, id: String) -> Vec<f64> {
        let Some(cell) = self.inner.repository.cell(&id) else { return Vec::new() };
        let mut slot = cell.lock();
        let Ok(job) = slot.job() else { return Vec::new() };
        if job.rows.count(ChunkState::Completed) == 0 {
            return Vec::new();
        }
        (0..job.rows.total()).filter(|index| job.rows.get(*index).state == ChunkState::Completed).map(|index| job.spec.chunk_id(index) as f64).collect()
    }

    /// Outputs of the chunks in the order of their frames, as the spec names them.
    #[napi(catch_unwind)]
    pub fn merge_inputs(&self, id: String) -> Vec<String> {
        let Some(spec) = self.inner.repository.spec_of(&id) else { return Vec::new() };
        spec.in_frame_order().into_iter().filter_map(|index| spec.chunk(index).output_file).collect()
    }

    /// Program and arguments of the merge command, split; null: there is none.
    #[napi(catch_unwind)]
    pub fn merge_command(&self, id: String) -> Result<Option<Vec<String>>> {
        match self.inner.repository.spec_of(&id).and_then(|spec| spec.merge_command.clone()) {
            Some(command) => words(&command).map(Some),
            None => Ok(None),
        }
    }
}
