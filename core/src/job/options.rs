//! How a job is to be executed: the part of the options that can be written down. Kept with the job and used again by
//! resume and recovery; callbacks and objects stay with the manager that was given them.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::error::{Error, Issue};
use super::retry::RetryPolicy;

/// What to do when a chunk's last attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// Stop the siblings at once and fail the job.
    #[default]
    FailFast,
    /// Run the rest, then fail with all failures.
    Continue,
}

/// What an exit status of 0 must have left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyOutput {
    /// Nothing is looked at.
    None,
    /// The output exists.
    Exists,
    /// The output exists and is not empty.
    Nonempty,
    /// A function of the user's decides.
    Function,
}

/// Time limits in milliseconds; `None`: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timeouts {
    /// For one attempt of a chunk.
    pub chunk_ms: Option<f64>,
    /// For one attempt of the merge.
    pub merge_ms: Option<f64>,
    /// For one run of the job.
    pub job_ms: Option<f64>,
    /// For silence after the first sign of life.
    pub no_progress_ms: Option<f64>,
    /// For the first sign of life.
    pub start_ms: Option<f64>,
}

/// The options with their defaults put in.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Chunks at once. Default 1.
    pub concurrency: u32,
    /// Where relative paths start and commands run.
    pub job_dir: Option<Box<str>>,
    /// Whether chunks are put together at the end. Default true.
    pub merge: bool,
    /// Further attempts per chunk. Default 0.
    pub retries: u32,
    /// How often the owner may die while a chunk runs before the chunk has failed. Default 3.
    pub crash_retries: u32,
    /// Whether an adapter for merging was given; it stays with the manager.
    pub merge_adapter: bool,
    /// When the next attempt begins.
    pub retry: RetryPolicy,
    /// What a failed chunk means for the others.
    pub failure_policy: FailurePolicy,
    /// Time limits.
    pub timeouts: Timeouts,
    /// What a finished chunk must have left behind, if it was said.
    pub verify_output: Option<VerifyOutput>,
    /// How to read progress inside a chunk.
    pub progress_pattern: Option<Box<str>>,
    /// Remove chunk files after a verified merge.
    pub cleanup_chunks: bool,
    /// Whether an output is known by its content, and not by size and time alone.
    pub hash_outputs: bool,
    /// Whether outputs may lie outside of `job_dir`.
    pub allow_outside_paths: bool,
    /// Added to the environment of every chunk.
    pub env: Vec<(String, String)>,
    /// The merged output.
    pub output_file: Option<Box<str>>,
    /// Whether a stitcher was given (`custom`, `ffmpeg` or `concat`).
    pub stitcher: Option<Box<str>>,
    /// Chunks that count as done from the start.
    pub completed_chunk_ids: Vec<u64>,
    /// What was given, as a JSON object; `None` when nothing was.
    pub text: Option<Box<str>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            concurrency: 1,
            job_dir: None,
            merge: true,
            retries: 0,
            crash_retries: 3,
            merge_adapter: false,
            retry: RetryPolicy::default(),
            failure_policy: FailurePolicy::FailFast,
            timeouts: Timeouts::default(),
            verify_output: None,
            progress_pattern: None,
            cleanup_chunks: false,
            hash_outputs: false,
            allow_outside_paths: true,
            env: Vec::new(),
            output_file: None,
            stitcher: None,
            completed_chunk_ids: Vec::new(),
            text: None,
        }
    }
}

/// Integers that JavaScript holds exactly.
pub(crate) const MAX_SAFE: u64 = (1 << 53) - 1;

/// For messages: the value, shortened.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

struct Fields<'a> {
    issues: &'a mut Vec<Issue>,
}

impl Fields<'_> {
    fn issue(&mut self, path: &str, want: &str, got: &Value) {
        self.issues.push(Issue::new(path, format!("must be {want}, got {}", shown(got))));
    }

    fn flag(&mut self, path: &str, value: &Value) -> Option<bool> {
        value.as_bool().or_else(|| {
            self.issue(path, "true or false", value);
            None
        })
    }

    fn text(&mut self, path: &str, value: &Value) -> Option<Box<str>> {
        match value.as_str() {
            Some("") => self.issues.push(Issue::new(path, "must not be empty")),
            Some(text) if text.contains('\0') => self.issues.push(Issue::new(path, "must not contain a NUL character")),
            Some(text) => return Some(text.into()),
            None => self.issue(path, "a string", value),
        }
        None
    }

    fn integer(&mut self, path: &str, value: &Value, least: u64) -> Option<u32> {
        let number = value.as_u64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..=MAX_SAFE as f64).contains(n)).map(|n| n as u64));
        match number {
            Some(n) if n >= least && n <= MAX_SAFE => Some(u32::try_from(n).unwrap_or(u32::MAX)),
            _ => {
                let want = if least == 0 { "an integer of 0 or more" } else { "a positive integer" };
                self.issue(path, want, value);
                None
            }
        }
    }

    fn milliseconds(&mut self, path: &str, value: &Value, zero: bool) -> Option<f64> {
        match value.as_f64() {
            Some(ms) if ms.is_finite() && (ms > 0.0 || zero && ms == 0.0) => Some(ms),
            _ => {
                self.issue(path, if zero { "a number of milliseconds, 0 or more" } else { "a number of milliseconds above 0" }, value);
                None
            }
        }
    }
}

impl Options {
    /// The defaults, shared by all jobs that were given no options.
    pub fn shared_default() -> Arc<Options> {
        static DEFAULT: OnceLock<Arc<Options>> = OnceLock::new();
        DEFAULT.get_or_init(|| Arc::new(Options::default())).clone()
    }

    /// Reads and checks the options from a JSON object; an empty text means none.
    pub fn parse(text: &str) -> Result<Arc<Options>, Error> {
        if text.is_empty() {
            return Ok(Self::shared_default());
        }
        // Jobs come in series with the same options: those share one copy.
        static LATEST: Mutex<Option<Arc<Options>>> = Mutex::new(None);
        if let Some(latest) = &*LATEST.lock()
            && latest.text.as_deref() == Some(text)
        {
            return Ok(latest.clone());
        }
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| Error::invalid("options", vec![Issue::new("options", format!("must be an object ({e})"))]))?;
        let options = Self::from_map(map)?;
        *LATEST.lock() = Some(options.clone());
        Ok(options)
    }

    /// These options with `changes` (a JSON object) put over them.
    pub fn with(self: &Arc<Self>, changes: &str) -> Result<Arc<Options>, Error> {
        if changes.is_empty() || changes == "{}" {
            return Ok(self.clone());
        }
        let mut map: Map<String, Value> = match &self.text {
            Some(text) => serde_json::from_str(text).unwrap_or_default(),
            None => Map::new(),
        };
        let over: Map<String, Value> =
            serde_json::from_str(changes).map_err(|e| Error::invalid("options", vec![Issue::new("options", format!("must be an object ({e})"))]))?;
        map.extend(over);
        Self::from_map(map)
    }

    fn from_map(map: Map<String, Value>) -> Result<Arc<Options>, Error> {
        let mut issues = Vec::new();
        let mut options = Options::default();
        let mut fields = Fields { issues: &mut issues };
        let mut delay = None;
        for (key, value) in &map {
            match key.as_str() {
                "concurrency" => options.concurrency = fields.integer(key, value, 1).unwrap_or(1),
                "jobDir" => options.job_dir = fields.text(key, value),
                "merge" => options.merge &= fields.flag(key, value).unwrap_or(true),
                "skipMerge" => options.merge &= !fields.flag(key, value).unwrap_or(false),
                "retries" => options.retries = fields.integer(key, value, 0).unwrap_or(0),
                "crashRetries" => options.crash_retries = fields.integer(key, value, 0).unwrap_or(3),
                "mergeAdapter" => options.merge_adapter = fields.flag(key, value).unwrap_or(false),
                "retryDelay" => delay = fields.milliseconds(key, value, true),
                "retryPolicy" => match RetryPolicy::from_value(value) {
                    Ok(policy) => options.retry = policy,
                    Err(found) => fields.issues.extend(found),
                },
                "failurePolicy" => match value.as_str() {
                    Some("fail-fast") => options.failure_policy = FailurePolicy::FailFast,
                    Some("continue") => options.failure_policy = FailurePolicy::Continue,
                    _ => fields.issue(key, "\"fail-fast\" or \"continue\"", value),
                },
                "timeouts" => match value.as_object() {
                    Some(limits) => {
                        for (name, value) in limits {
                            let path = format!("timeouts.{name}");
                            let limit = match name.as_str() {
                                "chunkMs" => &mut options.timeouts.chunk_ms,
                                "mergeMs" => &mut options.timeouts.merge_ms,
                                "jobMs" => &mut options.timeouts.job_ms,
                                "noProgressMs" => &mut options.timeouts.no_progress_ms,
                                "startMs" => &mut options.timeouts.start_ms,
                                _ => continue,
                            };
                            *limit = fields.milliseconds(&path, value, false);
                        }
                    }
                    None => fields.issue(key, "an object", value),
                },
                "verifyOutput" => match value.as_str() {
                    Some("none") => options.verify_output = Some(VerifyOutput::None),
                    Some("exists") => options.verify_output = Some(VerifyOutput::Exists),
                    Some("nonempty") => options.verify_output = Some(VerifyOutput::Nonempty),
                    Some("function") => options.verify_output = Some(VerifyOutput::Function),
                    _ => fields.issue(key, "\"none\", \"exists\", \"nonempty\" or a function", value),
                },
                "progressPattern" => {
                    options.progress_pattern = fields.text(key, value);
                    if let Some(pattern) = &options.progress_pattern
                        && let Err(error) = super::output_progress::ProgressReader::new(Some(pattern))
                    {
                        fields.issues.push(Issue::new(key, error.to_string()));
                    }
                }
                "cleanupChunks" => options.cleanup_chunks = fields.flag(key, value).unwrap_or(false),
                "hashOutputs" => options.hash_outputs = fields.flag(key, value).unwrap_or(false),
                "allowOutsidePaths" => options.allow_outside_paths = fields.flag(key, value).unwrap_or(true),
                "env" => match value.as_object() {
                    Some(vars) => {
                        for (name, value) in vars {
                            let path = format!("env.{name}");
                            match value.as_str() {
                                _ if name.is_empty() || name.contains(['=', '\0']) => {
                                    fields.issues.push(Issue::new(path, "is not a name that an environment variable can have"));
                                }
                                Some(text) if text.contains('\0') => fields.issues.push(Issue::new(path, "must not contain a NUL character")),
                                Some(text) => options.env.push((name.clone(), text.to_owned())),
                                None => fields.issue(&path, "a string", value),
                            }
                        }
                    }
                    None => fields.issue(key, "an object of strings", value),
                },
                "outputFile" => options.output_file = fields.text(key, value),
                "stitcher" => options.stitcher = fields.text(key, value),
                "completedChunkIds" => match value.as_array() {
                    Some(ids) => {
                        for (n, id) in ids.iter().enumerate() {
                            match id.as_u64() {
                                Some(id) => options.completed_chunk_ids.push(id),
                                None => fields.issue(&format!("completedChunkIds[{n}]"), "an integer of 0 or more", id),
                            }
                        }
                    }
                    None => fields.issue(key, "an array of chunk ids", value),
                },
                "meta" if !value.is_object() => fields.issue(key, "an object", value),
                _ => {}
            }
        }
        if !map.contains_key("retryPolicy")
            && let Some(delay_ms) = delay
        {
            options.retry = RetryPolicy::Fixed { delay_ms, jitter: 0.0 };
        }
        if let Some(output) = options.output_file.as_deref().filter(|output| !options.allow_outside_paths && !super::spec::stays_inside(output)) {
            issues.push(Issue::new("outputFile", format!("must stay inside of jobDir, got {output:?}")));
        }
        if !issues.is_empty() {
            return Err(Error::invalid("options", issues));
        }
        options.text = Some(Value::Object(map).to_string().into());
        Ok(Arc::new(options))
    }

    /// What a finished chunk must have left behind: as said, or what a stitcher will read.
    pub fn verification(&self) -> VerifyOutput {
        self.verify_output.unwrap_or(if self.stitches() { VerifyOutput::Nonempty } else { VerifyOutput::None })
    }

    /// What the job can't do without and only a manager in this process can have: callbacks and objects of the user's.
    pub fn needed_objects(&self) -> Option<&'static str> {
        if self.verification() == VerifyOutput::Function {
            return Some("verifyOutput");
        }
        if self.stitches() && self.stitcher.as_deref() == Some("custom") {
            return Some("stitcher");
        }
        (self.merge && self.merge_adapter).then_some("mergeAdapter")
    }

    /// Whether a stitcher reads the chunks' outputs at the end.
    pub fn stitches(&self) -> bool {
        self.merge && self.stitcher.is_some() && self.output_file.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let options = Options::parse("").unwrap();
        assert_eq!((options.concurrency, options.retries, options.merge, options.allow_outside_paths), (1, 0, true, true));
        assert_eq!(options.retry, RetryPolicy::Fixed { delay_ms: 1000.0, jitter: 0.0 });
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let error = Options::parse(r#"{"concurrency":0,"retries":-1,"retryDelay":"NaN","timeouts":{"chunkMs":0},"env":{"A=B":"x"},"merge":1}"#).unwrap_err();
        let paths: Vec<_> = error.issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(paths, ["concurrency", "env.A=B", "merge", "retries", "retryDelay", "timeouts.chunkMs"]);
    }

    #[test]
    fn changes_win_and_the_rest_is_kept() {
        let first = Options::parse(r#"{"concurrency":4,"jobDir":"/a","merge":false}"#).unwrap();
        let second = first.with(r#"{"concurrency":2}"#).unwrap();
        assert_eq!((second.concurrency, second.job_dir.as_deref(), second.merge), (2, Some("/a"), false));
    }

    #[test]
    fn a_delay_of_zero_is_zero() {
        assert_eq!(Options::parse(r#"{"retryDelay":0}"#).unwrap().retry.delay_ms(1, 0.5), 0.0);
    }
}
