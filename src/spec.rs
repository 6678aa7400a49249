//! Specs on their way in: big ones come in slices. And plans on their way out.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use framewright_core::job::plan::{Plan, PlanIssue};
use framewright_core::job::spec::{PlainChunks, Rules, SpecBuilder as Builder};
use framewright_core::job::{Error, ErrorCode, Issue, Job, Options, Spec, command, status};
use framewright_core::repository::memory::Cell;
use napi::bindgen_prelude::{Env, Float64Array, PromiseRaw, Result, spawn_blocking};
use napi_derive::napi;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::durable::promise;
use crate::error::thrown;

/// Some chunks, as JSON or plain.
enum Slice {
    Json(String),
    Plain(PlainChunks),
}

/// Takes in a spec whose chunks come in slices. A thread of its own reads them while JavaScript writes the next ones.
#[napi]
pub struct SpecBuilder {
    slices: Option<Sender<Slice>>,
    reading: Option<JoinHandle<std::result::Result<Spec, Error>>>,
    options: Arc<Options>,
    built: Arc<Mutex<Option<Spec>>>,
}

#[napi]
impl SpecBuilder {
    /// `head`: JSON of the spec without `chunks`; `options`: JSON of the options, or empty.
    #[napi(constructor, catch_unwind)]
    pub fn new(head: String, options: String, needs_command: bool) -> Result<Self> {
        let options = Options::parse(&options).map_err(thrown)?;
        let given = options.clone();
        let (sender, slices) = channel::<Slice>();
        let reading = spawn_blocking(move || {
            let mut builder = Builder::new(&head, Rules { needs_command }, &given);
            for slice in slices {
                match slice {
                    Slice::Json(chunks) => builder.push(&chunks),
                    Slice::Plain(chunks) => builder.push_plain(&chunks),
                }
            }
            builder.finish()
        });
        Ok(Self { slices: Some(sender), reading: Some(reading), options, built: Arc::default() })
    }

    /// Takes the next chunks: JSON of an array.
    #[napi(catch_unwind)]
    pub fn push(&mut self, chunks: String) {
        self.send(Slice::Json(chunks));
    }

    /// Takes the next chunks, of each its `id`, `startFrame` and `frameCount`, and its `outputFile` and `command`, with a NUL
    /// between any two of the texts. Gives whether they can be that.
    #[napi(catch_unwind)]
    pub fn push_plain(&mut self, numbers: Float64Array, texts: String) -> bool {
        let chunks = PlainChunks::read(&numbers, texts);
        let taken = chunks.is_some();
        if let Some(chunks) = chunks {
            self.send(Slice::Plain(chunks));
        }
        taken
    }

    /// Resolves when all is read; rejects with every problem.
    #[napi(catch_unwind)]
    pub fn finish<'env>(&mut self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        self.slices = None;
        let reading = self.reading.take().ok_or_else(used_twice)?;
        let built = self.built.clone();
        promise(env, async move {
            let spec = reading.await.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))??;
            *built.lock() = Some(spec);
            Ok(())
        })
    }
}

impl SpecBuilder {
    fn send(&self, slice: Slice) {
        if let Some(slices) = &self.slices {
            // Who reads may have found an end: it is told by `finish`.
            let _ = slices.send(slice);
        }
    }

    /// The spec and its options, once it was finished; only once.
    pub fn take(&mut self) -> Result<(Spec, Arc<Options>)> {
        let spec = self.built.lock().take().ok_or_else(used_twice)?;
        Ok((spec, self.options.clone()))
    }
}

fn used_twice() -> napi::Error {
    napi::Error::from_reason("used twice")
}

/// The long lists of a status. Nothing is copied: a spec is never changed in place, and logs are only added at the end.
#[napi]
pub struct LongLists {
    source: Source,
    spec: Arc<Spec>,
}

enum Source {
    Live(Arc<Cell>),
    Read(Box<Job>),
}

impl LongLists {
    /// The lists of the job in `cell`, which has `spec` now.
    pub fn new(cell: Arc<Cell>, spec: Arc<Spec>) -> Self {
        Self { source: Source::Live(cell), spec }
    }

    /// The lists of a job that was read from a store.
    pub fn of(job: Job) -> Self {
        Self { spec: job.spec.clone(), source: Source::Read(Box::new(job)) }
    }
}

#[napi]
impl LongLists {
    /// JSON of the chunks `from..from + count`.
    #[napi(catch_unwind)]
    pub fn chunks(&self, from: u32, count: u32) -> String {
        let mut out = String::new();
        self.spec.write_chunks(&mut out, from, count);
        out
    }

    /// JSON of the logs `from..from + count`.
    #[napi(catch_unwind)]
    pub fn logs(&self, from: u32, count: u32) -> String {
        let mut out = String::new();
        match &self.source {
            Source::Read(job) => status::write_logs(job, from as usize, count as usize, &mut out),
            Source::Live(cell) => match cell.lock().job() {
                Ok(job) => status::write_logs(job, from as usize, count as usize, &mut out),
                Err(_) => out.push_str("[]"),
            },
        }
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
