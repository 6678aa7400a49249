//! A job as one JSON object that can be kept anywhere and read back: the public status, and in its field `record` what
//! only we read (options, attempts, chunk rows).

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::aggregate::Job;
use super::error::{Error, ErrorCode, ErrorInfo, Issue};
use super::options::Options;
use super::rows::{ChunkDetail, ChunkRow, Output, Stamp};
use super::spec::Spec;
use super::state::{ChunkState, JobState};
use super::status::{Live, write_status};

/// The version of `record`.
const FORMAT: u32 = 1;

/// Attempt, state, start and duration of one chunk, and what else is known of it.
#[derive(Serialize, Deserialize)]
struct KeptChunk(u32, u8, u32, u32, f32, #[serde(default)] Option<(u32, Option<ErrorInfo>, u32)>);

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    format: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Value>,
    #[serde(default)]
    chunks: Vec<KeptChunk>,
    #[serde(default)]
    order: Vec<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    stamps: Vec<(u32, Stamp)>,
    #[serde(default)]
    reported: u32,
    #[serde(default)]
    peak: f32,
    #[serde(default)]
    total_duration_ms: f64,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    retries: u32,
    #[serde(default)]
    run_started_at: f64,
    /// Whether the public counters are those of a saved status and win over what is counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    shown: bool,
}

/// Fields of a status that the job itself holds; every other one is kept as it is.
const HELD: &[&str] = &[
    "id",
    "spec",
    "state",
    "progress",
    "totalChunks",
    "completedChunks",
    "error",
    "createdAt",
    "updatedAt",
    "result",
    "metrics",
    "meta",
    "logs",
    "version",
    "record",
    "chunksByState",
    "fps",
    "lastOutputAt",
    "waitingFor",
    "requested",
    "attempt",
    "startedAt",
    "finishedAt",
    "eta",
    "failure",
    "failures",
    "owner",
    "recoveries",
    "leaseRenewedAt",
];

/// Writes the status with its `record`, whole.
pub fn write_record(job: &Job, live: Live, out: &mut String) {
    write_status(job, live, true, out);
    out.pop();
    let chunks = job
        .rows
        .touched()
        .map(|(index, row)| {
            let detail = job.rows.detail(index).map(|detail| (detail.failures, detail.error.clone(), detail.crashes));
            KeptChunk(index, row.state as u8, row.attempt, row.started, row.duration_ms, detail)
        })
        .collect();
    let record = Record {
        format: FORMAT,
        options: job.options.text.as_ref().and_then(|text| serde_json::from_str(text).ok()),
        chunks,
        order: job.rows.order().to_vec(),
        stamps: job.rows.stamped().map(|(index, stamp)| (index, stamp.clone())).collect(),
        reported: job.reported,
        peak: job.progress_peak,
        total_duration_ms: job.total_duration_ms,
        attempts: job.attempts,
        retries: job.retries,
        run_started_at: job.run_started_at,
        shown: job.extras.as_ref().is_some_and(|extras| extras.shown.is_some()),
    };
    out.push_str(",\"record\":");
    out.push_str(&serde_json::to_string(&record).unwrap_or_else(|_| "null".into()));
    out.push('}');
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// The problems of a status that is to be kept.
fn check(map: &Map<String, Value>) -> Vec<Issue> {
    let mut issues = Vec::new();
    let mut expect = |name: &str, good: &dyn Fn(&Value) -> bool, want: &str, needed: bool| match map.get(name) {
        Some(value) if !good(value) => issues.push(Issue::new(name, format!("must be {want}, got {}", super::options::shown(value)))),
        None if needed => issues.push(Issue::new(name, "is missing")),
        _ => {}
    };
    expect("id", &|v| text(v).is_some_and(is_id), "an id of 1 to 128 of the characters A-Z a-z 0-9 . _ -, not starting with a dot", true);
    expect("spec", &Value::is_object, "an object", true);
    expect("state", &|v| text(v).and_then(JobState::parse).is_some(), "a job state", true);
    for name in ["totalChunks", "completedChunks"] {
        expect(name, &|v| v.as_u64().is_some_and(|n| n <= super::options::MAX_SAFE), "an integer of 0 or more", false);
    }
    for name in ["createdAt", "updatedAt", "startedAt", "finishedAt"] {
        expect(name, &|v| v.as_f64().is_some_and(|n| n.is_finite() && n >= 0.0), "a number of 0 or more", false);
    }
    for name in ["version", "attempt"] {
        expect(name, &|v| v.as_u64().is_some_and(|n| n <= super::options::MAX_SAFE), "an integer of 0 or more", false);
    }
    expect("progress", &|v| v.as_f64().is_some_and(|n| (0.0..=100.0).contains(&n)), "a number from 0 to 100", false);
    for name in ["tags", "dependencies"] {
        expect(name, &|v| v.as_array().is_some_and(|list| list.iter().all(Value::is_string)), "an array of strings", false);
    }
    expect("priority", &|v| text(v).is_some_and(|p| ["low", "medium", "high", "critical"].contains(&p)), "a priority", false);
    // What a store's column holds.
    expect("type", &|v| text(v).is_none_or(|kind| kind.len() <= 255), "at most 255 bytes long", false);
    expect("error", &Value::is_string, "a string", false);
    expect("meta", &Value::is_object, "an object", false);
    expect("logs", &Value::is_array, "an array", false);
    expect("metrics", &Value::is_object, "an object", false);
    issues
}

/// Whether a text can be a job's id.
pub fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// A status that came from outside, checked.
pub struct Incoming {
    /// The job that it describes.
    pub job: Job,
    /// The version that its writer had seen; `None`: keep it unconditionally.
    pub seen: Option<u64>,
    /// Whether it came with chunk rows and options of its own.
    pub whole: bool,
}

/// Reads a status: one of ours with its `record`, or a sparse one of anybody's.
///
/// A null stands for a missing field where `sparse` (stores have nulls), and is refused otherwise: it is what JSON makes of
/// a number that it can't hold.
pub fn read_status(json: &str, now: f64, sparse: bool) -> Result<Incoming, Error> {
    let raw: HashMap<String, &RawValue> =
        serde_json::from_str(json).map_err(|error| Error::invalid("job status", vec![Issue::new("job", format!("must be an object ({error})"))]))?;
    let mut map = Map::with_capacity(raw.len());
    for (name, value) in &raw {
        if name != "spec" && name != "record" {
            map.insert(name.clone(), serde_json::from_str(value.get()).map_err(|e| Error::new(ErrorCode::Validation, e.to_string()))?);
        } else if name == "spec" {
            // Only its kind matters to the check; the text itself is what is kept.
            map.insert(name.clone(), if value.get().starts_with('{') { Value::Object(Map::new()) } else { Value::Null });
        }
    }
    if sparse {
        map.retain(|name, value| !value.is_null() || !HELD.contains(&name.as_str()) || ["spec", "result"].contains(&name.as_str()));
    }
    let issues = check(&map);
    if !issues.is_empty() {
        return Err(Error::invalid("job status", issues));
    }
    let number = |name: &str| map.get(name).and_then(Value::as_f64);
    let record: Option<Record> = match raw.get("record") {
        Some(record) if record.get() != "null" => {
            let bad = |e: serde_json::Error| Error::invalid("job status", vec![Issue::new("record", format!("is not one of ours ({e})"))]);
            let record: Record = serde_json::from_str(record.get()).map_err(bad)?;
            if record.format > FORMAT {
                return Err(Error::new(ErrorCode::StoreCorrupt, format!("The job's record has format {}; this version reads up to {FORMAT}", record.format)));
            }
            Some(record)
        }
        _ => None,
    };
    let spec_text = raw["spec"].get();
    let spec = Spec::restore(&without_plan_chunks(spec_text))?;
    let options = match record.as_ref().and_then(|record| record.options.as_ref()) {
        Some(options) => Options::parse(&options.to_string())?,
        None => Options::shared_default(),
    };
    let id = map.get("id").and_then(text).unwrap_or_default();
    let mut job = Job::new(id.into(), Arc::new(spec), options, now);
    job.state = map.get("state").and_then(text).and_then(JobState::parse).unwrap_or(JobState::Pending);
    job.version = number("version").unwrap_or(0.0) as u64;
    job.attempt = number("attempt").unwrap_or(0.0) as u32;
    job.waiting_for = map.get("waitingFor").and_then(|value| serde_json::from_value(value.clone()).ok());
    job.created_at = number("createdAt").unwrap_or(now);
    job.updated_at = number("updatedAt").unwrap_or(now);
    job.started_at = number("startedAt");
    job.finished_at = number("finishedAt");
    let empty = Vec::new();
    let logs = map.get("logs").and_then(Value::as_array).unwrap_or(&empty);
    match &record {
        Some(record) => {
            for KeptChunk(index, state, attempt, started, duration_ms, detail) in &record.chunks {
                let row = ChunkRow {
                    state: ChunkState::ALL.get(*state as usize).copied().unwrap_or_default(),
                    attempt: *attempt,
                    started: *started,
                    duration_ms: *duration_ms,
                };
                job.rows.restore(*index, row, detail.clone().map(|(failures, error, crashes)| ChunkDetail { failures, crashes, error }));
            }
            job.rows.restore_order(record.order.clone());
            for (index, stamp) in record.stamps.iter().filter(|(index, _)| *index < job.spec.len()) {
                job.rows.set_stamp(*index, stamp.clone());
            }
            job.reported = record.reported;
            job.progress_peak = record.peak;
            job.total_duration_ms = record.total_duration_ms;
            job.attempts = record.attempts;
            job.retries = record.retries;
            job.run_started_at = record.run_started_at;
        }
        None => {
            let done = logs.iter().filter_map(|log| job.spec.index_of(log.get("chunkId")?.as_u64()?)).collect::<Vec<_>>();
            for index in done {
                if job.rows.get(index).state != ChunkState::Completed {
                    job.rows.restore(index, ChunkRow { state: ChunkState::Completed, attempt: 1, started: 0, duration_ms: 0.0 }, None);
                    let mut order = job.rows.order().to_vec();
                    order.push(index);
                    job.rows.restore_order(order);
                }
            }
            job.total_duration_ms = map.get("metrics").and_then(|m| m.get("totalDurationMs")).and_then(Value::as_f64).unwrap_or(0.0);
        }
    }
    for log in logs {
        let Some(index) = log.get("chunkId").and_then(Value::as_u64).and_then(|id| job.spec.index_of(id)) else { continue };
        let part = |name: &str| log.get(name).and_then(Value::as_str).unwrap_or_default();
        if let Some(duration) = log.get("durationMs").and_then(Value::as_f64)
            && record.is_none()
        {
            let row = job.rows.get(index);
            job.rows.restore(index, ChunkRow { duration_ms: duration as f32, ..row }, None);
        }
        if !part("stdout").is_empty() || !part("stderr").is_empty() {
            job.rows.set_output(index, Output { stdout: part("stdout").into(), stderr: part("stderr").into() });
        }
    }
    job.frames_done = (0..job.rows.total()).filter(|index| job.rows.get(*index).state == ChunkState::Completed).map(|index| job.spec.weight(index)).sum();
    job.raise_progress();
    fill_extras(&mut job, &map, record.as_ref().is_none_or(|record| record.shown));
    let seen = map.get("version").and_then(Value::as_u64);
    Ok(Incoming { job, seen, whole: record.is_some() })
}

fn fill_extras(job: &mut Job, map: &Map<String, Value>, keep_shown: bool) {
    let failure: Option<ErrorInfo> = map.get("failure").and_then(|value| serde_json::from_value(value.clone()).ok());
    let fields: Map<String, Value> = map.iter().filter(|(name, _)| !HELD.contains(&name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect();
    let shown: Map<String, Value> = ["progress", "totalChunks", "completedChunks", "metrics", "logs"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), map.get(*name)?.clone())))
        .collect();
    let extras = job.extras_mut();
    extras.error = map.get("error").and_then(text).filter(|_| failure.is_none()).map(Into::into);
    extras.failure = failure;
    extras.result = map.get("result").map(|value| value.to_string().into());
    extras.meta = map.get("meta").and_then(Value::as_object).cloned();
    extras.fields = fields;
    extras.shown = keep_shown.then_some(shown);
    extras.recoveries = map.get("recoveries").and_then(|value| serde_json::from_value(value.clone()).ok()).unwrap_or_default();
    extras.last_output_at = map.get("lastOutputAt").and_then(Value::as_f64);
    job.owner = map.get("owner").and_then(text).map(Into::into);
}

/// A status that was handed out has its planned chunks written out beside the plan: the plan is what counts.
fn without_plan_chunks(spec: &str) -> String {
    if !spec.contains("\"plan\"") {
        return spec.to_owned();
    }
    match serde_json::from_str::<Map<String, Value>>(spec) {
        Ok(mut map) if map.get("plan").is_some_and(Value::is_object) => {
            map.remove("chunks");
            Value::Object(map).to_string()
        }
        _ => spec.to_owned(),
    }
}

impl Job {
    /// Puts the public fields of another status over this job's; chunk rows and options stay.
    pub fn replace_public(&mut self, other: Job, now: f64) {
        self.state = other.state;
        self.requested = if other.state == JobState::Running { self.requested } else { None };
        self.created_at = other.created_at;
        self.updated_at = other.updated_at.max(0.0);
        self.started_at = other.started_at;
        self.finished_at = other.finished_at;
        self.attempt = self.attempt.max(other.attempt);
        if other.spec.len() == self.spec.len() {
            self.spec = other.spec;
        }
        self.extras = other.extras;
        if self.state != JobState::Running {
            let updated_at = self.updated_at;
            self.stop_chunks(updated_at);
        }
        if self.state.is_terminal() && self.finished_at.is_none() {
            self.finished_at = Some(now);
        }
    }

    /// Takes in what somebody saved over the job while it was worked on here; gives whether the work goes on. How far it is,
    /// and how it ended if it has, is what is known here; the rest is theirs.
    pub fn take_in(&mut self, theirs: Job, now: f64) -> bool {
        if self.state.is_terminal() {
            let kept = theirs.extras.unwrap_or_default();
            let extras = self.extras_mut();
            extras.fields = kept.fields;
            extras.meta = kept.meta;
            return true;
        }
        if !matches!(theirs.state, JobState::Pending | JobState::Running) {
            self.replace_public(theirs, now);
            return false;
        }
        let last_output_at = self.extras.as_ref().and_then(|extras| extras.last_output_at);
        let recoveries = self.extras.as_mut().map(|extras| std::mem::take(&mut extras.recoveries)).unwrap_or_default();
        self.extras = theirs.extras;
        if self.state == JobState::Running {
            self.count_again();
        }
        let extras = self.extras_mut();
        extras.last_output_at = last_output_at;
        if recoveries.len() > extras.recoveries.len() {
            extras.recoveries = recoveries;
        }
        self.created_at = theirs.created_at;
        if theirs.spec.len() == self.spec.len() {
            self.spec = theirs.spec;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::JobEvent;
    use crate::job::spec::Rules;

    fn value(job: &Job) -> Value {
        let mut out = String::new();
        write_record(job, Live::default(), &mut out);
        serde_json::from_str(&out).unwrap()
    }

    #[test]
    fn a_job_that_was_written_reads_back_the_same() {
        let options = Options::parse(r#"{"concurrency":3,"retries":2}"#).unwrap();
        let spec = Spec::parse(
            r#"{"id":"r","chunks":[{"id":5,"frameCount":2},{"id":7,"frameCount":8},{"id":9,"frameCount":1}],"x":[1]}"#,
            Rules { needs_command: false },
            &options,
        )
        .unwrap();
        let mut job = Job::new("j-1".into(), Arc::new(spec), options, 1_000.0);
        let error = Box::new(ErrorInfo::new(ErrorCode::ChunkFailed, "no \"way\""));
        for event in [
            JobEvent::Submitted,
            JobEvent::Started { owner: "me".into(), attempt: 1 },
            JobEvent::ChunkStarted { index: 1, attempt: 1 },
            JobEvent::ChunkCompleted { index: 1, attempt: 1, duration_ms: 12.5 },
            JobEvent::ChunkStarted { index: 0, attempt: 1 },
            JobEvent::ChunkFailed { index: 0, attempt: 1, error, retry_in_ms: Some(10.0) },
        ] {
            job.apply(&event, 2_000.0).unwrap();
        }
        job.rows.set_output(1, Output { stdout: "hé\n".into(), stderr: "".into() });
        let first = value(&job);
        let back = read_status(&first.to_string(), 9_000.0, false).unwrap();
        assert_eq!(back.seen, Some(job.version));
        assert_eq!(back.job.rows.get(0).attempt, 1);
        assert_eq!(value(&back.job), first);
    }

    #[test]
    fn a_sparse_status_gets_defaults_and_keeps_what_it_shows() {
        let json = r#"{"id":"a","spec":{"chunks":[{"id":0},{"id":1}]},"state":"paused","progress":50,"completedChunks":1,"totalChunks":2,"logs":[{"chunkId":1,"durationMs":3,"stdout":"","stderr":""}],"mine":{"a":1}}"#;
        let incoming = read_status(json, 5.0, true).unwrap();
        assert_eq!(incoming.seen, None);
        assert_eq!(incoming.job.rows.get(1).state, ChunkState::Completed);
        let back = value(&incoming.job);
        assert_eq!((&back["progress"], &back["completedChunks"], &back["mine"]["a"], &back["priority"]), (&50.into(), &1.into(), &1.into(), &"medium".into()));
    }

    #[test]
    fn a_bad_status_is_refused_with_every_field() {
        let error = read_status(r#"{"id":"../x","spec":3,"state":"odd","progress":-1}"#, 0.0, false).err().unwrap();
        let paths: Vec<_> = error.issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(paths, ["id", "spec", "state", "progress"]);
    }
}
