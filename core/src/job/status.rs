//! A job as the JSON of the public `JobStatus`. Written by hand and by copying: this is what `getJob` costs.

use std::fmt::Write;

use serde_json::{Map, Value};

use super::aggregate::Job;
use super::error::ErrorInfo;
use super::rows::Stamp;
use super::scan::has;
use super::state::{ChunkState, JobState};

/// Lists longer than this are left out of the status text and handed over in slices.
pub const LONG: usize = 1_000;

/// What is true of the current run and not of the record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live {
    /// Frames per second over the last minute.
    pub fps: Option<f64>,
    /// Milliseconds left, low and high.
    pub eta: Option<(f64, f64)>,
    /// When the owner last renewed its lease.
    pub lease_renewed_at: Option<f64>,
}

fn push_json(out: &mut String, value: &impl serde::Serialize) {
    out.push_str(&serde_json::to_string(value).unwrap_or_else(|_| "null".into()));
}

/// Writes a JSON string.
pub fn push_text(out: &mut String, text: &str) {
    // Most texts need no escape; copying them is three times as fast as the general way.
    if !has(text, |byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        push_json(out, &text);
    }
}

fn push_number(out: &mut String, number: f64) {
    if number.fract() == 0.0 && number.abs() < 9e15 {
        let _ = write!(out, "{}", number as i64);
    } else if number.is_finite() {
        let _ = write!(out, "{number}");
    } else {
        out.push_str("null");
    }
}

/// An `f32` that stands for a decimal such as 12.5, without the digits of the wider type.
fn push_short(out: &mut String, number: f32) {
    if number.fract() == 0.0 {
        let _ = write!(out, "{}", number as i64);
    } else {
        let _ = write!(out, "{number}");
    }
}

/// The text of one entry of `logs`.
pub fn write_log(job: &Job, index: u32, out: &mut String) {
    let _ = write!(out, "{{\"chunkId\":{},\"durationMs\":", job.spec.chunk_id(index));
    push_short(out, job.rows.get(index).duration_ms);
    match job.rows.output(index) {
        Some(output) => {
            out.push_str(",\"stdout\":");
            push_text(out, &output.stdout);
            out.push_str(",\"stderr\":");
            push_text(out, &output.stderr);
            out.push('}');
        }
        None => out.push_str(",\"stdout\":\"\",\"stderr\":\"\"}"),
    }
}

/// Writes the logs `from..from + count` as a JSON array.
pub fn write_logs(job: &Job, from: usize, count: usize, out: &mut String) {
    out.push('[');
    for (n, index) in job.rows.order().iter().skip(from).take(count).enumerate() {
        if n > 0 {
            out.push(',');
        }
        write_log(job, *index, out);
    }
    out.push(']');
}

/// Writes a `ChunkStatus`.
pub fn write_chunk(job: &Job, index: u32, out: &mut String) {
    let row = job.rows.get(index);
    let _ = write!(out, "{{\"id\":{},\"state\":\"{}\",\"attempt\":{}", job.spec.chunk_id(index), row.state.as_str(), row.attempt);
    if row.attempt > 0 && row.state != ChunkState::Pending {
        let started = job.created_at + f64::from(row.started);
        out.push_str(",\"startedAt\":");
        push_number(out, started.round());
        if row.state != ChunkState::Running {
            out.push_str(",\"finishedAt\":");
            push_number(out, (started + f64::from(row.duration_ms)).round());
            out.push_str(",\"durationMs\":");
            push_short(out, row.duration_ms);
        }
    }
    if row.state == ChunkState::Completed {
        // A chunk that failed and was then said to be done may have an error still.
        if row.attempt > 0 {
            out.push_str(",\"exitCode\":0");
        }
        if let Some(Stamp { bytes, modified, sha256 }) = job.rows.stamp(index) {
            let _ = write!(out, ",\"output\":{{\"bytes\":{bytes},\"modifiedAt\":{}", *modified as f64 / 1e6);
            if let Some(sha256) = sha256 {
                let _ = write!(out, ",\"sha256\":\"{sha256}\"");
            }
            out.push('}');
        }
        out.push('}');
        return;
    }
    if let Some(error) = job.rows.detail(index).and_then(|detail| detail.error.as_ref()) {
        if let Some(code) = error.exit_code {
            let _ = write!(out, ",\"exitCode\":{code}");
        }
        if let Some(signal) = &error.signal {
            out.push_str(",\"signal\":");
            push_text(out, signal);
        }
        out.push_str(",\"error\":");
        push_json(out, error);
    }
    out.push('}');
}

/// Writes the status. `whole`: with every log and chunk in it, however many; otherwise long lists are left out and
/// their lengths told in `$long`.
pub fn write_status(job: &Job, live: Live, whole: bool, out: &mut String) {
    let extras = job.extras.as_deref();
    let shown = extras.and_then(|extras| extras.shown.as_ref());
    let shown = |name: &str| shown.and_then(|shown| shown.get(name));
    out.push_str("{\"id\":");
    push_text(out, &job.id);
    out.push_str(",\"spec\":");
    let many_chunks = !whole && (job.spec.is_planned() || job.spec.len() as usize > LONG);
    if many_chunks || job.spec.is_planned() {
        out.push_str(&job.spec.head()[..job.spec.head().len() - 1]);
        if !many_chunks {
            if job.spec.head().len() > 2 {
                out.push(',');
            }
            out.push_str("\"chunks\":");
            job.spec.write_chunks(out, 0, u32::MAX);
        }
        out.push('}');
    } else {
        job.spec.write(out);
    }
    let _ = write!(out, ",\"state\":\"{}\",\"progress\":", job.state.as_str());
    match shown("progress") {
        Some(progress) => push_json(out, progress),
        None => push_short(out, job.progress()),
    }
    out.push_str(",\"totalChunks\":");
    match shown("totalChunks") {
        Some(total) => push_json(out, total),
        None => {
            let _ = write!(out, "{}", job.rows.total());
        }
    }
    out.push_str(",\"completedChunks\":");
    match shown("completedChunks") {
        Some(completed) => push_json(out, completed),
        None => {
            let _ = write!(out, "{}", job.completed_chunks());
        }
    }
    if let Some(extras) = extras {
        if let Some(failure) = &extras.failure {
            out.push_str(",\"error\":");
            push_text(out, &failure.message);
        } else if let Some(error) = &extras.error {
            out.push_str(",\"error\":");
            push_text(out, error);
        }
    }
    out.push_str(",\"createdAt\":");
    push_number(out, job.created_at);
    out.push_str(",\"updatedAt\":");
    push_number(out, job.updated_at);
    if let Some(result) = extras.and_then(|extras| extras.result.as_ref()) {
        let _ = write!(out, ",\"result\":{result}");
    }
    out.push_str(",\"metrics\":");
    match shown("metrics") {
        Some(metrics) => push_json(out, metrics),
        None => {
            out.push_str("{\"totalDurationMs\":");
            push_number(out, job.total_duration_ms);
            if let Some(started) = job.started_at {
                out.push_str(",\"queuedMs\":");
                push_number(out, (started - job.created_at).max(0.0));
                if let Some(finished) = job.finished_at {
                    out.push_str(",\"wallMs\":");
                    push_number(out, (finished - started).max(0.0));
                }
            }
            let _ = write!(out, ",\"attempts\":{},\"retries\":{}}}", job.attempts, job.retries);
        }
    }
    if let Some(meta) = extras.and_then(|extras| extras.meta.as_ref()) {
        out.push_str(",\"meta\":");
        push_json(out, meta);
    }
    let many_logs = !whole && job.rows.order().len() > LONG;
    match shown("logs") {
        Some(logs) => {
            out.push_str(",\"logs\":");
            push_json(out, logs);
        }
        None if many_logs => {}
        None => {
            out.push_str(",\"logs\":");
            write_logs(job, 0, usize::MAX, out);
        }
    }
    let _ = write!(
        out,
        ",\"version\":{},\"chunksByState\":{{\"pending\":{},\"running\":{},\"completed\":{},\"failed\":{}}},\"attempt\":{}",
        job.version,
        job.rows.count(ChunkState::Pending),
        job.rows.count(ChunkState::Running),
        job.rows.count(ChunkState::Completed),
        job.rows.count(ChunkState::Failed),
        job.attempt
    );
    if job.state == JobState::Pending
        && let Some(waiting) = job.waiting_for
    {
        let _ = write!(out, ",\"waitingFor\":\"{}\"", waiting.as_str());
    }
    if let Some(requested) = job.requested {
        out.push_str(",\"requested\":");
        push_json(out, &requested);
    }
    if let Some(started) = job.started_at {
        out.push_str(",\"startedAt\":");
        push_number(out, started);
    }
    if let Some(finished) = job.finished_at {
        out.push_str(",\"finishedAt\":");
        push_number(out, finished);
    }
    if let Some(fps) = live.fps {
        out.push_str(",\"fps\":");
        push_number(out, (fps * 100.0).round() / 100.0);
    }
    if let Some((low, high)) = live.eta {
        out.push_str(",\"eta\":{\"lowMs\":");
        push_number(out, low.round());
        out.push_str(",\"highMs\":");
        push_number(out, high.round());
        out.push('}');
    }
    let empty = Map::new();
    let fields = extras.map_or(&empty, |extras| &extras.fields);
    if let Some(extras) = extras {
        if let Some(failure) = &extras.failure {
            out.push_str(",\"failure\":");
            push_json(out, failure);
        }
        if job.state == JobState::Failed && job.options.failure_policy == super::options::FailurePolicy::Continue {
            let failures: Vec<ErrorInfo> = job.rows.failures();
            if !failures.is_empty() {
                out.push_str(",\"failures\":");
                push_json(out, &failures);
            }
        }
        if !extras.recoveries.is_empty() {
            out.push_str(",\"recoveries\":");
            push_json(out, &extras.recoveries);
        }
        if let Some(at) = extras.last_output_at {
            out.push_str(",\"lastOutputAt\":");
            push_number(out, at);
        }
    }
    if let Some(owner) = job.owner.as_ref().filter(|_| job.state == JobState::Running) {
        out.push_str(",\"owner\":");
        push_text(out, owner);
    }
    if let Some(at) = live.lease_renewed_at.filter(|_| job.state == JobState::Running) {
        out.push_str(",\"leaseRenewedAt\":");
        push_number(out, at);
    }
    for (name, default) in [("priority", "\"medium\""), ("tags", "[]"), ("dependencies", "[]")] {
        if !fields.contains_key(name) {
            let _ = write!(out, ",\"{name}\":{default}");
        }
    }
    for (name, value) in fields {
        out.push(',');
        push_text(out, name);
        out.push(':');
        match value {
            Value::String(text) => push_text(out, text),
            value => push_json(out, value),
        }
    }
    if many_chunks || many_logs {
        let _ = write!(
            out,
            ",\"$long\":{{\"chunks\":{},\"logs\":{}}}",
            if many_chunks { i64::from(job.spec.len()) } else { -1 },
            if many_logs { job.rows.order().len() as i64 } else { -1 }
        );
    }
    out.push('}');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::job::spec::Rules;
    use crate::job::{ErrorCode, JobEvent, Options, Spec};

    fn running() -> Job {
        let options = Options::parse("").unwrap();
        let spec = Spec::parse(r#"{"chunks":[{"id":0},{"id":1}]}"#, Rules { needs_command: false }, &options).unwrap();
        let mut job = Job::new("a".into(), Arc::new(spec), options, 1_000.0);
        job.apply(&JobEvent::Started { owner: "me".into(), attempt: 1 }, 2_000.0).unwrap();
        job.apply(&JobEvent::ChunkStarted { index: 0, attempt: 1 }, 2_000.0).unwrap();
        job
    }

    fn chunk(job: &Job) -> String {
        let mut out = String::new();
        write_chunk(job, 0, &mut out);
        out
    }

    #[test]
    fn a_completed_chunk_tells_what_its_output_was_like() {
        let mut job = running();
        job.apply(&JobEvent::ChunkCompleted { index: 0, attempt: 1, duration_ms: 5.0 }, 3_000.0).unwrap();
        assert!(!chunk(&job).contains("output"));
        job.rows.set_stamp(0, Stamp { bytes: 17, modified: 1_700_000_000_123_456_000, sha256: None });
        assert!(chunk(&job).ends_with(r#","exitCode":0,"output":{"bytes":17,"modifiedAt":1700000000123.456}}"#), "{}", chunk(&job));
    }

    #[test]
    fn a_chunk_that_failed_and_was_said_to_be_done_then_has_one_exit_code() {
        let mut job = running();
        let error = Box::new(ErrorInfo { exit_code: Some(7), ..ErrorInfo::new(ErrorCode::ChunkFailed, "no") });
        job.apply(&JobEvent::ChunkFailed { index: 0, attempt: 1, error, retry_in_ms: Some(1.0) }, 3_000.0).unwrap();
        assert!(chunk(&job).contains("\"exitCode\":7"));
        job.skip_chunk(0);
        let text = chunk(&job);
        assert!(text.contains("\"exitCode\":0") && text.matches("exitCode").count() == 1, "{text}");
        assert!(!text.contains("error"), "{text}");
    }
}
