//! A job in the parts that a durable store keeps: a small head that every change rewrites, and beside it what is large or
//! rarely changes: spec, options, extras, and one row for each chunk that was touched. So a completed chunk costs the head
//! and its row, however large the job is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::aggregate::{Extras, Job, Recovery};
use super::error::{Error, ErrorCode, ErrorInfo};
use super::options::Options;
use super::rows::{ChunkDetail, ChunkRow, Output, Stamp};
use super::spec::Spec;
use super::state::{ChunkState, JobState, Request, WaitingFor};

/// The version of these texts. Readers refuse a higher one.
const FORMAT: u32 = 1;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    format: u32,
    created_at: f64,
    updated_at: f64,
    #[serde(default, skip_serializing_if = "is_default")]
    started_at: Option<f64>,
    #[serde(default, skip_serializing_if = "is_default")]
    finished_at: Option<f64>,
    run_started_at: f64,
    attempt: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    requested: Option<Request>,
    #[serde(default, skip_serializing_if = "is_default")]
    waiting_for: Option<WaitingFor>,
    #[serde(default, skip_serializing_if = "is_default")]
    reported: u32,
    peak: f32,
    total_duration_ms: f64,
    attempts: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    retries: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    last_output_at: Option<f64>,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Rare<'a> {
    #[serde(default, skip_serializing_if = "is_default")]
    failure: Option<ErrorInfo>,
    #[serde(default, skip_serializing_if = "is_default")]
    error: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    result: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "is_default")]
    meta: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "is_default")]
    fields: Map<String, Value>,
    #[serde(default, skip_serializing_if = "is_default")]
    shown: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "is_default")]
    recoveries: Vec<Recovery>,
}

/// Row, place in the order of completion, and what else is known of a chunk.
#[derive(Serialize, Deserialize)]
struct Row(u8, u32, u32, f32, #[serde(default)] Option<u32>, #[serde(default, skip_serializing_if = "is_default")] RowMore);

#[derive(Serialize, Deserialize, Default, PartialEq)]
struct RowMore {
    #[serde(default, skip_serializing_if = "is_default")]
    failures: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    crashes: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    error: Option<ErrorInfo>,
    #[serde(default, skip_serializing_if = "is_default")]
    out: Box<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    err: Box<str>,
    #[serde(default, skip_serializing_if = "is_default")]
    stamp: Option<Stamp>,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}

/// The head of a job.
pub fn write_head(job: &Job) -> String {
    text(&Head {
        format: FORMAT,
        created_at: job.created_at,
        updated_at: job.updated_at,
        started_at: job.started_at,
        finished_at: job.finished_at,
        run_started_at: job.run_started_at,
        attempt: job.attempt,
        requested: job.requested,
        waiting_for: job.waiting_for,
        reported: job.reported,
        peak: job.progress_peak,
        total_duration_ms: job.total_duration_ms,
        attempts: job.attempts,
        retries: job.retries,
        last_output_at: job.extras.as_ref().and_then(|extras| extras.last_output_at),
    })
}

/// Puts a mark into a head, by which its writer knows it again: versions are given by others, too.
pub fn mark_head(head: &mut String, mark: &str) {
    if head.pop() == Some('}') {
        head.push_str(",\"write\":\"");
        head.push_str(mark);
        head.push_str("\"}");
    }
}

/// Whether a head has that mark.
pub fn has_mark(head: &str, mark: &str) -> bool {
    head.strip_suffix("\"}").and_then(|head| head.strip_suffix(mark)).is_some_and(|head| head.ends_with(",\"write\":\""))
}

/// What is rare about a job; `{}` when there is nothing.
pub fn write_extras(job: &Job) -> String {
    let Some(extras) = job.extras.as_deref() else { return "{}".into() };
    text(&Rare {
        failure: extras.failure.clone(),
        error: extras.error.clone(),
        result: extras.result.as_deref().and_then(|result| serde_json::from_str(result).ok()),
        meta: extras.meta.clone(),
        fields: extras.fields.clone(),
        shown: extras.shown.clone(),
        recoveries: extras.recoveries.clone(),
    })
}

/// The options of a job as they were given; `{}` for none.
pub fn write_options(job: &Job) -> String {
    job.options.text.as_deref().unwrap_or("{}").to_owned()
}

/// A spec: a plan as a plan, not as its chunks.
pub fn write_spec(spec: &Spec) -> String {
    if spec.is_planned() {
        return spec.head().to_owned();
    }
    let mut out = String::with_capacity(spec.text_len() + 32);
    spec.write(&mut out);
    out
}

/// A copy of what is written of one chunk, so that the job need not stay locked while it is.
pub struct ChunkCopy {
    row: ChunkRow,
    ordinal: Option<u32>,
    detail: Option<ChunkDetail>,
    output: Option<Arc<Output>>,
    stamp: Option<Stamp>,
}

impl ChunkCopy {
    /// Takes the copies of some chunks, in the order of `rows`, which is sorted.
    pub fn of(job: &Job, rows: &[u32]) -> Vec<ChunkCopy> {
        // Looked up from the end: what changed was mostly completed last.
        let mut ordinals = vec![None; rows.len()];
        let mut left = rows.iter().filter(|index| job.rows.get(**index).state == ChunkState::Completed).count();
        for (ordinal, index) in job.rows.order().iter().enumerate().rev() {
            if left == 0 {
                break;
            }
            if let Ok(at) = rows.binary_search(index) {
                ordinals[at] = Some(ordinal as u32);
                left -= 1;
            }
        }
        let copy = |(index, ordinal): (&u32, Option<u32>)| ChunkCopy {
            row: job.rows.get(*index),
            ordinal,
            detail: job.rows.detail(*index).cloned(),
            output: job.rows.output(*index).cloned(),
            stamp: job.rows.stamp(*index).cloned(),
        };
        rows.iter().zip(ordinals).map(copy).collect()
    }

    /// Whether the chunk is done.
    pub fn is_completed(&self) -> bool {
        self.row.state == ChunkState::Completed
    }

    /// What its output file was like.
    pub fn stamp(&self) -> Option<&Stamp> {
        self.stamp.as_ref()
    }

    /// Adds what its output file is like.
    pub fn set_stamp(&mut self, stamp: Stamp) {
        self.stamp = Some(stamp);
    }

    /// The text that is kept.
    pub fn write(&self) -> String {
        let ChunkRow { state, attempt, started, duration_ms } = self.row;
        let mut more = RowMore { stamp: self.stamp.clone(), ..RowMore::default() };
        if let Some(detail) = &self.detail {
            more.failures = detail.failures;
            more.crashes = detail.crashes;
            more.error = detail.error.clone();
        }
        if let Some(output) = &self.output {
            more.out = output.stdout.clone();
            more.err = output.stderr.clone();
        }
        text(&Row(state as u8, attempt, started, duration_ms, self.ordinal, more))
    }
}

/// A job as it was kept.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The job's id.
    pub id: &'a Arc<str>,
    /// Its version.
    pub version: u64,
    /// Where it stands.
    pub state: JobState,
    /// Its owner.
    pub owner: Option<Arc<str>>,
    /// See [`write_head`].
    pub head: &'a str,
    /// See [`write_spec`].
    pub spec: &'a str,
    /// See [`write_options`].
    pub options: &'a str,
    /// See [`write_extras`].
    pub extras: &'a str,
    /// See [`ChunkCopy::write`].
    pub chunks: &'a [(u32, String)],
}

/// Reads a job back.
///
/// # Errors
///
/// STORE_CORRUPT, with what can't be read.
pub fn read(parts: &Parts<'_>) -> Result<Job, Error> {
    let id = parts.id;
    let damaged = |what: &str, error: String| Error::new(ErrorCode::StoreCorrupt, format!("The record of job \"{id}\" is damaged: {what}: {error}"));
    let head: Head = serde_json::from_str(parts.head).map_err(|e| damaged("head", e.to_string()))?;
    if head.format > FORMAT {
        let message = format!("Job \"{id}\" was written by a newer version (format {}; this one reads up to {FORMAT})", head.format);
        return Err(Error::new(ErrorCode::StoreUnavailable, message));
    }
    let spec = Spec::restore(parts.spec).map_err(|e| damaged("spec", e.message))?;
    let options = match parts.options {
        "" | "{}" => Options::shared_default(),
        options => Options::parse(options).map_err(|e| damaged("options", e.message))?,
    };
    let mut job = Job::new(id.clone(), Arc::new(spec), Options::shared_default(), head.created_at);
    job.options = options;
    job.state = parts.state;
    job.version = parts.version;
    job.owner = parts.owner.clone().filter(|_| parts.state == JobState::Running);
    job.updated_at = head.updated_at;
    job.started_at = head.started_at;
    job.finished_at = head.finished_at;
    job.run_started_at = head.run_started_at;
    job.attempt = head.attempt;
    job.requested = head.requested;
    job.waiting_for = head.waiting_for;
    job.reported = head.reported;
    job.total_duration_ms = head.total_duration_ms;
    job.attempts = head.attempts;
    job.retries = head.retries;
    let mut order = Vec::new();
    for (index, body) in parts.chunks {
        if *index >= job.spec.len() {
            return Err(damaged("chunks", format!("there is no chunk {index}")));
        }
        let Row(state, attempt, started, duration_ms, ordinal, more) = serde_json::from_str(body).map_err(|e| damaged("chunks", format!("{index}: {e}")))?;
        let state = *ChunkState::ALL.get(state as usize).ok_or_else(|| damaged("chunks", format!("{index}: state {state}")))?;
        let RowMore { failures, crashes, error, out, err, stamp } = more;
        let detail = (failures > 0 || crashes > 0 || error.is_some()).then_some(ChunkDetail { failures, crashes, error });
        job.rows.restore(*index, ChunkRow { state, attempt, started, duration_ms }, detail);
        if !out.is_empty() || !err.is_empty() {
            job.rows.set_output(*index, Output { stdout: out, stderr: err });
        }
        if let Some(stamp) = stamp {
            job.rows.set_stamp(*index, stamp);
        }
        if let Some(ordinal) = ordinal {
            order.push((ordinal, *index));
        }
    }
    order.sort_unstable();
    job.rows.restore_order(order.into_iter().map(|(_, index)| index).collect());
    if job.state == JobState::Completed {
        job.rows.skip_rest();
        job.frames_done = job.spec.frames();
    } else {
        job.frames_done = parts
            .chunks
            .iter()
            .map(|(index, _)| *index)
            .filter(|index| job.rows.get(*index).state == ChunkState::Completed)
            .map(|index| job.spec.weight(index))
            .sum();
    }
    job.progress_peak = head.peak;
    let rare: Rare<'_> = serde_json::from_str(if parts.extras.is_empty() { "{}" } else { parts.extras }).map_err(|e| damaged("extras", e.to_string()))?;
    let extras = Extras {
        failure: rare.failure,
        error: rare.error,
        result: rare.result.map(|result| result.get().into()),
        meta: rare.meta,
        fields: rare.fields,
        shown: rare.shown,
        last_output_at: head.last_output_at,
        recoveries: rare.recoveries,
    };
    if parts.extras.len() > 2 || extras.last_output_at.is_some() {
        job.extras = Some(Box::new(extras));
    }
    Ok(job)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::job::record::write_record;
    use crate::job::spec::Rules;
    use crate::job::status::Live;
    use crate::job::{ErrorCode, JobEvent};

    fn record(job: &Job) -> String {
        let mut out = String::new();
        write_record(job, Live::default(), &mut out);
        out
    }

    fn there_and_back(job: &Job) -> Job {
        let rows: Vec<u32> = job.rows.touched().map(|(index, _)| index).collect();
        let chunks: Vec<(u32, String)> = rows.iter().copied().zip(ChunkCopy::of(job, &rows).iter().map(ChunkCopy::write)).collect();
        read(&Parts {
            id: &job.id,
            version: job.version,
            state: job.state,
            owner: job.owner.clone(),
            head: &write_head(job),
            spec: &write_spec(&job.spec),
            options: &write_options(job),
            extras: &write_extras(job),
            chunks: &chunks,
        })
        .unwrap()
    }

    fn event() -> impl Strategy<Value = JobEvent> {
        let error = || Box::new(ErrorInfo::new(ErrorCode::ChunkFailed, "no \"way\"\0"));
        let chunk = (0u32..5, 1u32..4);
        prop_oneof![
            Just(JobEvent::Submitted),
            (1u32..3).prop_map(|attempt| JobEvent::Started { owner: "o".into(), attempt }),
            chunk.clone().prop_map(|(index, attempt)| JobEvent::ChunkStarted { index, attempt }),
            chunk.clone().prop_map(|(index, attempt)| JobEvent::ChunkCompleted { index, attempt, duration_ms: 2.5 }),
            chunk.clone().prop_map(move |(index, attempt)| JobEvent::ChunkFailed { index, attempt, error: error(), retry_in_ms: None }),
            chunk.clone().prop_map(move |(index, attempt)| JobEvent::ChunkCrashed { index, attempt, error: error(), last: attempt == 3 }),
            chunk.prop_map(|(index, _)| JobEvent::ChunkReopened { index }),
            Just(JobEvent::Recovered { previous: Some("p".into()), crashed: true }),
            Just(JobEvent::Paused),
            Just(JobEvent::Resumed { afresh: false }),
            Just(JobEvent::Completed { duration_ms: 1.0 }),
            Just(JobEvent::Failed { error: error() }),
        ]
    }

    proptest! {
        // [F102] whatever happened to a job, it reads back as it was written
        #[test]
        fn a_job_reads_back_from_its_parts(events in prop::collection::vec(event(), 0..60)) {
            let options = Options::parse(r#"{"concurrency":3,"retries":2,"completedChunkIds":[4]}"#).unwrap();
            let chunks: Vec<_> = (0..5).map(|id| format!(r#"{{"id":{id},"frameCount":{}}}"#, id + 1)).collect();
            let spec = Spec::parse(&format!(r#"{{"x":"\u0000é","chunks":[{}]}}"#, chunks.join(",")), Rules { needs_command: false }, &options).unwrap();
            let mut job = Job::new("j".into(), Arc::new(spec), options, 1000.0);
            job.extras_mut().fields.insert("mine".into(), serde_json::json!({"a": [1, null]}));
            for (n, event) in events.iter().enumerate() {
                let _ = job.apply(event, 1001.0 + n as f64);
            }
            prop_assert_eq!(record(&there_and_back(&job)), record(&job));
        }

        // [F99] what changed since the last write, put over it, is the whole
        #[test]
        fn the_rows_that_changed_are_told(events in prop::collection::vec(event(), 0..80), every in 1usize..9) {
            let options = Options::shared_default();
            let spec = Spec::parse(r#"{"chunks":[{"id":0},{"id":1},{"id":2},{"id":3},{"id":4}]}"#, Rules { needs_command: false }, &options).unwrap();
            let mut job = Job::new("j".into(), Arc::new(spec), options, 1000.0);
            job.rows.track();
            let mut kept = std::collections::BTreeMap::new();
            for (n, event) in events.iter().enumerate() {
                let _ = job.apply(event, 1001.0 + n as f64);
                if n % every == 0 {
                    let rows = job.rows.take_dirty();
                    kept.extend(rows.iter().copied().zip(ChunkCopy::of(&job, &rows).iter().map(ChunkCopy::write)));
                }
            }
            let rows = job.rows.take_dirty();
            kept.extend(rows.iter().copied().zip(ChunkCopy::of(&job, &rows).iter().map(ChunkCopy::write)));
            let chunks: Vec<_> = kept.into_iter().collect();
            let (head, spec, extras) = (write_head(&job), write_spec(&job.spec), write_extras(&job));
            let parts = Parts { id: &job.id, version: job.version, state: job.state, owner: job.owner.clone(), head: &head, spec: &spec, options: "{}", extras: &extras, chunks: &chunks };
            prop_assert_eq!(record(&read(&parts).unwrap()), record(&job));
        }
    }

    #[test]
    fn what_is_damaged_is_named() {
        let id: Arc<str> = "j".into();
        let parts = Parts { id: &id, version: 1, state: JobState::Pending, owner: None, head: "{", spec: "{}", options: "{}", extras: "{}", chunks: &[] };
        let error = read(&parts).unwrap_err();
        assert_eq!(error.code, ErrorCode::StoreCorrupt);
        assert!(error.message.contains("\"j\"") && error.message.contains("head"));
    }
}
