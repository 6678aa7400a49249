//! Specs on their way in: big ones come in slices. And plans on their way out.

use std::sync::Arc;

use framewright_core::job::plan::{Plan, PlanIssue};
use framewright_core::job::spec::{Rules, SpecBuilder as Builder};
use framewright_core::job::{Error, Issue, Job, Options, Spec, command, status};
use napi::bindgen_prelude::Result;
use napi_derive::napi;

use crate::error::thrown;

/// Takes in a spec whose chunks come in slices.
#[napi]
pub struct SpecBuilder {
    inner: Option<(Builder, Arc<Options>)>,
}

#[napi]
impl SpecBuilder {
    /// `head`: JSON of the spec without `chunks`; `options`: JSON of the options, or empty.
    #[napi(constructor, catch_unwind)]
    pub fn new(head: String, options: String, needs_command: bool) -> Result<Self> {
        let options = Options::parse(&options).map_err(thrown)?;
        let builder = Builder::new(&head, Rules { needs_command }, &options);
        Ok(Self { inner: Some((builder, options)) })
    }

    /// Takes the next chunks: JSON of an array.
    #[napi(catch_unwind)]
    pub fn push(&mut self, chunks: String) {
        if let Some((builder, _)) = &mut self.inner {
            builder.push(&chunks);
        }
    }
}

impl SpecBuilder {
    /// The spec and its options; only once.
    pub fn finish(&mut self) -> Result<(Spec, Arc<Options>)> {
        let (builder, options) = self.inner.take().ok_or_else(|| napi::Error::from_reason("used twice"))?;
        Ok((builder.finish().map_err(thrown)?, options))
    }
}

/// The long lists of a status as it was when it was asked for.
#[napi]
pub struct LongLists {
    job: Job,
}

impl LongLists {
    /// Holds a copy of the job.
    pub fn new(job: Job) -> Self {
        Self { job }
    }
}

#[napi]
impl LongLists {
    /// JSON of the chunks `from..from + count`.
    #[napi(catch_unwind)]
    pub fn chunks(&self, from: u32, count: u32) -> String {
        let mut out = String::new();
        self.job.spec.write_chunks(&mut out, from, count);
        out
    }

    /// JSON of the logs `from..from + count`.
    #[napi(catch_unwind)]
    pub fn logs(&self, from: u32, count: u32) -> String {
        let mut out = String::new();
        status::write_logs(&self.job, from as usize, count as usize, &mut out);
        out
    }
}

/// A checked plan, for `planChunks`.
#[napi]
pub struct ChunkPlan {
    spec: Spec,
}

#[napi]
impl ChunkPlan {
    /// `options`: JSON of the plan's options.
    #[napi(constructor, catch_unwind)]
    pub fn new(options: String) -> Result<Self> {
        let invalid = |issues| thrown(Error::invalid("plan", issues));
        let told = |found: Vec<PlanIssue>| {
            let path = |path: String| if path.is_empty() { "options".to_owned() } else { path };
            invalid(found.into_iter().map(|issue| Issue::new(path(issue.path), issue.message)).collect())
        };
        let plan = Plan::read(&options, true).map_err(told)?;
        if let Err(error) = command::split(plan.command()) {
            return Err(invalid(vec![Issue::new("command", error.to_string())]));
        }
        let head = format!("{{\"plan\":{options}}}");
        let spec = Spec::parse(&head, Rules { needs_command: true }, &Options::default()).map_err(thrown)?;
        Ok(Self { spec })
    }

    /// How many chunks.
    #[napi(getter, catch_unwind)]
    pub fn length(&self) -> u32 {
        self.spec.len()
    }

    /// JSON of the chunks `from..from + count`.
    #[napi(catch_unwind)]
    pub fn chunks(&self, from: u32, count: u32) -> String {
        let mut out = String::new();
        self.spec.write_chunks(&mut out, from, count);
        out
    }
}

/// Splits a POSIX-quoted command line.
#[napi(catch_unwind)]
pub fn split_command(text: String) -> Result<Vec<String>> {
    command::split(&text).map_err(|error| thrown(Error::invalid("command", vec![Issue::new("command", error.to_string())])))
}
