//! The job as one aggregate. [`Job::apply`] is the only way to change it, and refuses what the table does not allow.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Error, ErrorCode, ErrorInfo};
use super::event::JobEvent;
use super::options::Options;
use super::rows::Rows;
use super::spec::Spec;
use super::state::{ChunkState, JobState, Request, WaitingFor};

/// What only some jobs have; behind a pointer, since there may be a million of them.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// The failure that ended the job.
    pub failure: Option<ErrorInfo>,
    /// The message of a saved status that has no failure of ours.
    pub error: Option<Box<str>>,
    /// Result, as JSON text.
    pub result: Option<Box<str>>,
    /// `meta` of the status, as a JSON object.
    pub meta: Option<Map<String, Value>>,
    /// Public fields that the rules do not read (name, tags, dependencies, unknown ones), as they were given.
    pub fields: Map<String, Value>,
    /// Public fields of a saved status that win over what is counted, until the next run.
    pub shown: Option<Map<String, Value>>,
    /// When the work last gave a sign of life.
    pub last_output_at: Option<f64>,
    /// How often somebody went on with it after a crash.
    pub recoveries: Vec<Recovery>,
}

/// One recovery after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// When.
    pub recovered_at: f64,
    /// Where the job stood.
    pub previous_state: JobState,
    /// Who had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_owner: Option<Arc<str>>,
}

/// A job: spec, options, state, chunks and counters. Times are milliseconds since the epoch.
#[derive(Debug, Clone)]
pub struct Job {
    /// The record's id.
    pub id: Arc<str>,
    /// What to render.
    pub spec: Arc<Spec>,
    /// How.
    pub options: Arc<Options>,
    /// Where it stands.
    pub state: JobState,
    /// A request on its way.
    pub requested: Option<Request>,
    /// Why it waits while pending.
    pub waiting_for: Option<WaitingFor>,
    /// Grows with every committed change.
    pub version: u64,
    /// Runs begun.
    pub attempt: u32,
    /// When it was submitted.
    pub created_at: f64,
    /// When it last changed.
    pub updated_at: f64,
    /// When its first run began.
    pub started_at: Option<f64>,
    /// When the current run began.
    pub run_started_at: f64,
    /// When it ended.
    pub finished_at: Option<f64>,
    /// The owner of the current run.
    pub owner: Option<Arc<str>>,
    /// Its chunks.
    pub rows: Rows,
    /// Frames of the completed chunks.
    pub frames_done: u64,
    /// Fractions of the running chunks, in frames.
    pub partial_frames: f64,
    /// Chunks done by an executor that tells only numbers.
    pub reported: u32,
    /// Highest progress told in this run, 0..=100.
    pub progress_peak: f32,
    /// Sum of the durations of completed attempts.
    pub total_duration_ms: f64,
    /// Attempts of chunks begun.
    pub attempts: u32,
    /// Attempts after failures.
    pub retries: u32,
    /// What is rare.
    pub extras: Option<Box<Extras>>,
}

/// Progress before the job is completed stays below this.
const ALMOST: f32 = 99.99;

impl Job {
    /// A new job, pending, not yet submitted.
    pub fn new(id: Arc<str>, spec: Arc<Spec>, options: Arc<Options>, now: f64) -> Job {
        let rows = Rows::new(spec.len());
        let skipped: Vec<u32> = options.completed_chunk_ids.iter().filter_map(|id| spec.index_of(*id)).collect();
        let mut job = Job {
            id,
            spec,
            options,
            state: JobState::Pending,
            requested: None,
            waiting_for: None,
            version: 0,
            attempt: 0,
            created_at: now,
            updated_at: now,
            started_at: None,
            run_started_at: now,
            finished_at: None,
            owner: None,
            rows,
            frames_done: 0,
            partial_frames: 0.0,
            reported: 0,
            progress_peak: 0.0,
            total_duration_ms: 0.0,
            attempts: 0,
            retries: 0,
            extras: None,
        };
        for index in skipped {
            job.skip_chunk(index);
        }
        job
    }

    /// Counts a chunk as done that this job did not render itself.
    pub fn skip_chunk(&mut self, index: u32) {
        if self.rows.get(index).state == ChunkState::Pending {
            self.rows.skip(index);
            self.frames_done += self.spec.weight(index);
            self.raise_progress();
        }
    }

    /// The rare fields, made when missing.
    pub fn extras_mut(&mut self) -> &mut Extras {
        self.extras.get_or_insert_default()
    }

    fn refuse(&self, event: &JobEvent) -> Error {
        Error::new(
            ErrorCode::InvalidTransition,
            format!("Job \"{}\" is {}; {} does not apply", self.id, self.state.as_str(), event.type_name().unwrap_or("this")),
        )
    }

    fn enter(&mut self, state: JobState, event: &JobEvent) -> Result<(), Error> {
        if !self.state.may_become(state) {
            return Err(self.refuse(event));
        }
        self.state = state;
        self.requested = None;
        self.waiting_for = None;
        Ok(())
    }

    fn chunk_must_be(&self, index: u32, state: ChunkState, attempt: u32, event: &JobEvent) -> Result<(), Error> {
        if index >= self.rows.total() || self.state != JobState::Running {
            return Err(self.refuse(event));
        }
        let row = self.rows.get(index);
        if row.state != state || row.attempt != attempt {
            return Err(Error::new(ErrorCode::Conflict, format!("Attempt {attempt} of chunk {} is not the current one", self.spec.chunk_id(index))));
        }
        Ok(())
    }

    /// Changes the job by one event, or refuses it and changes nothing.
    pub fn apply(&mut self, event: &JobEvent, now: f64) -> Result<(), Error> {
        match event {
            JobEvent::Submitted if self.version == 0 => {}
            JobEvent::Submitted => return Err(self.refuse(event)),
            JobEvent::Started { owner, attempt } => {
                if *attempt != self.attempt.saturating_add(1) {
                    return Err(self.refuse(event));
                }
                self.enter(JobState::Running, event)?;
                self.attempt = *attempt;
                self.started_at.get_or_insert(now);
                self.run_started_at = now;
                self.finished_at = None;
                self.reported = 0;
                self.owner = Some(owner.clone());
                if let Some(extras) = &mut self.extras {
                    extras.failure = None;
                    extras.error = None;
                    extras.shown = None;
                }
            }
            JobEvent::ChunkStarted { index, attempt } => {
                if *index >= self.rows.total() {
                    return Err(self.refuse(event));
                }
                let row = self.rows.get(*index);
                self.chunk_must_be(*index, ChunkState::Pending, attempt.wrapping_sub(1), event)?;
                self.attempts += 1;
                if row.attempt > 0 && self.rows.detail(*index).is_some_and(|detail| detail.failures > 0) {
                    self.retries += 1;
                }
                self.rows.start(*index, *attempt, (now - self.created_at).clamp(0.0, f64::from(u32::MAX)) as u32);
            }
            JobEvent::ChunkCompleted { index, attempt, duration_ms } => {
                self.chunk_must_be(*index, ChunkState::Running, *attempt, event)?;
                self.rows.complete(*index, *attempt, *duration_ms);
                self.frames_done += self.spec.weight(*index);
                self.total_duration_ms += duration_ms;
                self.raise_progress();
            }
            JobEvent::ChunkFailed { index, attempt, error, retry_in_ms } => {
                self.chunk_must_be(*index, ChunkState::Running, *attempt, event)?;
                let began = self.created_at + f64::from(self.rows.get(*index).started);
                self.rows.fail(*index, (now - began).max(0.0), (**error).clone(), retry_in_ms.is_none());
            }
            JobEvent::ChunkStopped { index, attempt } => {
                self.chunk_must_be(*index, ChunkState::Running, *attempt, event)?;
                self.rows.release(*index);
            }
            JobEvent::ChunkCrashed { index, attempt, error, last } => {
                self.chunk_must_be(*index, ChunkState::Running, *attempt, event)?;
                self.rows.crash(*index, (**error).clone(), *last);
            }
            JobEvent::ChunkReopened { index } => {
                if self.state != JobState::Running || *index >= self.rows.total() || self.rows.get(*index).state != ChunkState::Completed {
                    return Err(self.refuse(event));
                }
                self.rows.redo(*index);
                self.frames_done = self.frames_done.saturating_sub(self.spec.weight(*index));
            }
            JobEvent::MergeStarted | JobEvent::MergeCompleted { .. } | JobEvent::MergeFailed { .. } => {
                if self.state != JobState::Running {
                    return Err(self.refuse(event));
                }
            }
            JobEvent::Pausing | JobEvent::Cancelling => {
                let request = if matches!(event, JobEvent::Pausing) { Request::Pause } else { Request::Cancel };
                if self.state != JobState::Running || self.requested == Some(Request::Cancel) || self.requested == Some(request) {
                    return Err(self.refuse(event));
                }
                self.requested = Some(request);
            }
            JobEvent::Paused => {
                self.enter(JobState::Paused, event)?;
                self.stop_chunks(now);
            }
            JobEvent::Released => {
                match self.state {
                    JobState::Running => self.enter(JobState::Pending, event)?,
                    JobState::Pending => {}
                    _ => return Err(self.refuse(event)),
                }
                self.stop_chunks(now);
            }
            JobEvent::Resumed { afresh } => {
                if *afresh != (self.state == JobState::Failed) {
                    return Err(self.refuse(event));
                }
                self.enter(JobState::Pending, event)?;
                self.finished_at = None;
                // A job that was paused while a sibling's failure stopped it has failed chunks, too.
                self.rows.reopen(true, *afresh);
            }
            JobEvent::Cancelled { .. } => {
                self.enter(JobState::Cancelled, event)?;
                self.stop_chunks(now);
                self.finished_at = Some(now);
            }
            JobEvent::Completed { .. } => {
                self.enter(JobState::Completed, event)?;
                // An executor that resolves has done all there was, whatever it told before.
                if self.rows.count(ChunkState::Completed) < self.rows.total() {
                    self.rows.skip_rest();
                }
                self.frames_done = self.spec.frames();
                self.partial_frames = 0.0;
                self.finished_at = Some(now);
            }
            JobEvent::Failed { error } => {
                self.enter(JobState::Failed, event)?;
                self.stop_chunks(now);
                self.finished_at = Some(now);
                self.extras_mut().failure = Some((**error).clone());
            }
            JobEvent::Recovered { previous, crashed } => {
                let before = self.state;
                match before {
                    JobState::Running => self.enter(JobState::Pending, event)?,
                    JobState::Pending => {}
                    _ => return Err(self.refuse(event)),
                }
                self.stop_chunks(now);
                self.reported = 0;
                if *crashed {
                    let recovery = Recovery { recovered_at: now, previous_state: before, previous_owner: previous.clone() };
                    self.extras_mut().recoveries.push(recovery);
                }
            }
            JobEvent::Updated | JobEvent::Deleted | JobEvent::Warning { .. } | JobEvent::LeaseLost { .. } => {}
            JobEvent::Progress { .. } | JobEvent::ChunkProgress { .. } => {}
        }
        let counted = matches!(
            event,
            JobEvent::ChunkStarted { .. }
                | JobEvent::ChunkCompleted { .. }
                | JobEvent::ChunkFailed { .. }
                | JobEvent::ChunkReopened { .. }
                | JobEvent::Completed { .. }
        );
        if counted {
            self.count_again();
        }
        self.updated_at = now;
        let beside = matches!(event, JobEvent::Warning { .. } | JobEvent::LeaseLost { .. } | JobEvent::Progress { .. } | JobEvent::ChunkProgress { .. });
        if !beside {
            self.version += 1;
        }
        Ok(())
    }

    /// Nothing runs any more: what ran is pending again.
    pub(super) fn stop_chunks(&mut self, now: f64) {
        if self.rows.count(ChunkState::Running) > 0 {
            self.rows.reopen(false, false);
        }
        self.partial_frames = 0.0;
        self.updated_at = now;
        self.owner = None;
    }

    /// What was saved from outside in place of our counts is out of date once they move on.
    pub fn count_again(&mut self) {
        if let Some(extras) = &mut self.extras {
            extras.shown = None;
        }
    }

    /// A chunk that an executor of the user's reports as done: the attempt it must have made is counted, too.
    pub fn reported_attempt(&self, index: u32) -> u32 {
        self.rows.get(index).attempt + 1
    }

    /// Takes over what an executor that tells only numbers says. Out-of-order numbers never lower anything.
    pub fn report(&mut self, completed: u32, total: u32, now: f64) {
        if self.state != JobState::Running || total == 0 {
            return;
        }
        self.reported = self.reported.max(completed.min(self.rows.total().max(total)));
        self.count_again();
        self.updated_at = now;
        let by_count = 100.0 * (f64::from(completed) / f64::from(total)).min(1.0);
        // Where chunks are reported too, their frames tell more than the number.
        if self.rows.count(ChunkState::Completed) < completed {
            self.progress_peak = self.progress_peak.max((by_count as f32).min(ALMOST));
        }
    }

    /// Chunks done.
    pub fn completed_chunks(&self) -> u32 {
        self.rows.count(ChunkState::Completed).max(if self.state == JobState::Completed { self.rows.total() } else { self.reported.min(self.rows.total()) })
    }

    /// Brings the progress up to what is done; it never falls within a run.
    pub fn raise_progress(&mut self) {
        let frames = self.spec.frames();
        if frames > 0 {
            let done = 100.0 * ((self.frames_done as f64 + self.partial_frames) / frames as f64);
            self.progress_peak = self.progress_peak.max((done as f32).min(ALMOST));
        }
    }

    /// 0 to 100; 100 only when completed.
    pub fn progress(&self) -> f32 {
        if self.state == JobState::Completed {
            return 100.0;
        }
        // Two decimals: what people read, and no noise of the division.
        (self.progress_peak * 100.0).round() / 100.0
    }

    /// Whether there is something to put together at the end.
    pub fn merges(&self) -> bool {
        self.options.merge && (self.options.stitches() || self.spec.merge_command.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::spec::Rules;
    use proptest::prelude::*;

    fn job(chunks: u32) -> Job {
        let list: Vec<_> = (0..chunks).map(|id| format!(r#"{{"id":{id},"frameCount":{}}}"#, id + 1)).collect();
        let spec = Spec::parse(&format!(r#"{{"chunks":[{}]}}"#, list.join(",")), Rules { needs_command: false }, &Options::default()).unwrap();
        Job::new("j".into(), Arc::new(spec), Options::shared_default(), 1000.0)
    }

    fn error() -> Box<ErrorInfo> {
        Box::new(ErrorInfo::new(ErrorCode::ChunkFailed, "no"))
    }

    fn any_event(chunks: u32) -> impl Strategy<Value = JobEvent> {
        let chunk = (0..chunks + 1, 0u32..4);
        prop_oneof![
            Just(JobEvent::Submitted),
            (1u32..4).prop_map(|attempt| JobEvent::Started { owner: "o".into(), attempt }),
            chunk.clone().prop_map(|(index, attempt)| JobEvent::ChunkStarted { index, attempt }),
            chunk.clone().prop_map(|(index, attempt)| JobEvent::ChunkCompleted { index, attempt, duration_ms: 5.0 }),
            (chunk.clone(), prop::option::of(0.0..10.0f64)).prop_map(|((index, attempt), retry_in_ms)| JobEvent::ChunkFailed {
                index,
                attempt,
                error: error(),
                retry_in_ms
            }),
            chunk.prop_map(|(index, attempt)| JobEvent::ChunkStopped { index, attempt }),
            Just(JobEvent::MergeStarted),
            Just(JobEvent::Pausing),
            Just(JobEvent::Paused),
            any::<bool>().prop_map(|afresh| JobEvent::Resumed { afresh }),
            Just(JobEvent::Cancelling),
            Just(JobEvent::Cancelled { reason: None }),
            Just(JobEvent::Released),
            Just(JobEvent::Completed { duration_ms: 1.0 }),
            Just(JobEvent::Failed { error: error() }),
            Just(JobEvent::Updated),
        ]
    }

    proptest! {
        // [F23] [F24] [F122] no sequence of events leaves an illegal state; what is final stays; progress never falls within a run
        #[test]
        fn no_sequence_of_events_breaks_the_job(events in prop::collection::vec(any_event(4), 1..80)) {
            let mut job = job(4);
            let mut now = 1000.0;
            for event in events {
                now += 1.0;
                let before = job.clone();
                match job.apply(&event, now) {
                    Err(_) => {
                        prop_assert_eq!(&job.rows, &before.rows);
                        prop_assert_eq!((job.state, job.version, job.requested), (before.state, before.version, before.requested));
                    }
                    Ok(()) => {
                        prop_assert!(job.state == before.state || before.state.may_become(job.state));
                        prop_assert!(job.version >= before.version);
                        prop_assert!(job.progress() >= before.progress());
                        prop_assert_eq!(job.progress() == 100.0, job.state == JobState::Completed);
                    }
                }
                if matches!(before.state, JobState::Completed | JobState::Cancelled) {
                    prop_assert_eq!(job.state, before.state);
                }
                let total: u32 = ChunkState::ALL.iter().map(|state| job.rows.count(*state)).sum();
                prop_assert_eq!(total, 4);
                for state in ChunkState::ALL {
                    prop_assert_eq!((0..4).filter(|index| job.rows.get(*index).state == state).count() as u32, job.rows.count(state));
                }
                if job.state != JobState::Running {
                    prop_assert_eq!(job.rows.count(ChunkState::Running), 0);
                    prop_assert_eq!(job.requested, None);
                }
                for index in 0..4 {
                    prop_assert!(job.rows.get(index).attempt >= before.rows.get(index).attempt);
                }
            }
        }
    }

    #[test]
    fn progress_is_weighted_by_frames() {
        let mut job = job(4);
        job.apply(&JobEvent::Submitted, 1.0).unwrap();
        job.apply(&JobEvent::Started { owner: "o".into(), attempt: 1 }, 1.0).unwrap();
        job.apply(&JobEvent::ChunkStarted { index: 3, attempt: 1 }, 1.0).unwrap();
        job.apply(&JobEvent::ChunkCompleted { index: 3, attempt: 1, duration_ms: 1.0 }, 1.0).unwrap();
        assert_eq!(job.progress(), 40.0);
    }

    #[test]
    fn numbers_alone_move_the_progress_and_never_lower_it() {
        let mut job = job(4);
        job.apply(&JobEvent::Started { owner: "o".into(), attempt: 1 }, 1.0).unwrap();
        job.report(2, 4, 2.0);
        job.report(1, 4, 2.0);
        assert_eq!((job.progress(), job.completed_chunks()), (50.0, 2));
        job.report(9, 4, 2.0);
        assert_eq!((job.progress(), job.completed_chunks()), (99.99, 4));
    }
}
