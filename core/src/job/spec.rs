//! The job file: taken in, checked with all problems at once, and kept as the text it came as, so that unknown fields
//! come back unchanged and a status can be written by copying.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::path::{Component, Path};
use std::sync::OnceLock;

use foldhash::fast::RandomState;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::command;
use super::error::{Error, ErrorCode, Issue};
use super::options::{MAX_SAFE, Options, shown};
use super::plan::Plan;
use super::scan::{self, Plain, has};
use super::status::push_text;

/// Problems told at the most; a file of a million bad chunks needs no million messages.
const MOST_ISSUES: usize = 1000;

/// What the executor demands of a spec.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Each chunk needs a command (its executor is not a function).
    pub needs_command: bool,
}

/// One chunk as its executor sees it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chunk {
    /// Unique in its job.
    pub id: u64,
    /// First frame, inclusive.
    #[serde(default)]
    pub start_frame: Option<u64>,
    /// Frames rendered.
    #[serde(default)]
    pub frame_count: Option<u64>,
    /// Distance between rendered frames.
    #[serde(default)]
    pub frame_step: Option<u64>,
    /// Relative to the job's folder.
    #[serde(default)]
    pub output_file: Option<String>,
    /// POSIX-quoted command line.
    #[serde(default)]
    pub command: Option<String>,
    /// Program and arguments; wins over `command`.
    #[serde(default)]
    pub argv: Option<Vec<String>>,
}

impl Chunk {
    /// The last rendered frame.
    pub fn end_frame(&self) -> Option<u64> {
        end_frame(self.start_frame, self.frame_count, self.frame_step)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Listed {
    id: u64,
    frames: u64,
    start_frame: u64,
    offset: u32,
    length: u32,
}

#[derive(Debug)]
enum Chunks {
    Listed { text: Box<str>, list: Box<[Listed]> },
    Planned(Box<Plan>),
}

/// A checked job file.
#[derive(Debug)]
pub struct Spec {
    /// A JSON object with everything but `chunks`.
    head: Box<str>,
    chunks: Chunks,
    frames: u64,
    framed: bool,
    /// The merge command, if it is not empty.
    pub merge_command: Option<Box<str>>,
    by_id: OnceLock<Option<HashMap<u64, u32>>>,
}

/// What is checked of a chunk.
struct Parts<'a> {
    id: u64,
    start_frame: Option<u64>,
    frame_count: Option<u64>,
    frame_step: Option<u64>,
    output_file: Option<&'a str>,
    command: Option<&'a str>,
    argv: Option<&'a [String]>,
}

/// Chunks that have exactly an `id`, a `startFrame`, a `frameCount`, an `outputFile` and a `command`.
pub struct PlainChunks {
    numbers: Vec<[u64; 3]>,
    texts: String,
}

impl PlainChunks {
    /// `numbers`: three of each chunk; `texts`: two of each, a NUL between any two. `None`: that is not what they are, or a
    /// number is none that a chunk may have.
    pub fn read(numbers: &[f64], texts: String) -> Option<Self> {
        let (chunks, rest) = numbers.as_chunks::<3>();
        let separators = texts.bytes().filter(|byte| *byte == 0).count();
        if !rest.is_empty() || separators + 1 != 2 * chunks.len() {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::float_cmp, reason = "what is not the same then is refused")]
        let integer = |number: f64| Some(number as u64).filter(|integer| *integer <= MAX_SAFE && *integer as f64 == number);
        let numbers = chunks.iter().map(|[id, start, count]| Some([integer(*id)?, integer(*start)?, integer(*count)?])).collect::<Option<_>>()?;
        Some(Self { numbers, texts })
    }
}

impl<'a> From<&'a Chunk> for Parts<'a> {
    fn from(chunk: &'a Chunk) -> Self {
        Parts {
            id: chunk.id,
            start_frame: chunk.start_frame,
            frame_count: chunk.frame_count,
            frame_step: chunk.frame_step,
            output_file: chunk.output_file.as_deref(),
            command: chunk.command.as_deref(),
            argv: chunk.argv.as_deref(),
        }
    }
}

impl<'a> From<&Plain<'a>> for Parts<'a> {
    fn from(chunk: &Plain<'a>) -> Self {
        let Plain { id, start_frame, frame_count, frame_step, output_file, command, .. } = *chunk;
        Parts { id, start_frame, frame_count, frame_step, output_file, command, argv: None }
    }
}

/// The last rendered frame.
fn end_frame(start_frame: Option<u64>, frame_count: Option<u64>, frame_step: Option<u64>) -> Option<u64> {
    Some(start_frame?.saturating_add(frame_count?.saturating_sub(1).saturating_mul(frame_step.unwrap_or(1))))
}

/// The fields of a JSON object in their order, values as text.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(8);
                while let Some((key, value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    fields.push((key.0, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// A key that borrows when it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Takes a spec in: the head first, then its chunks, at once or in slices.
pub struct SpecBuilder {
    head: String,
    /// A JSON array of the chunks so far, without its end; empty before the first one.
    text: String,
    list: Vec<Listed>,
    plan: Option<Box<Plan>>,
    merge_command: Option<Box<str>>,
    framed: bool,
    frames: u64,
    last_id: Option<u64>,
    ids: Option<HashSet<u64>>,
    outputs: HashMap<u64, usize, RandomState>,
    hasher: RandomState,
    rules: Rules,
    inside_only: bool,
    issues: Vec<Issue>,
}

fn is_integer(value: &Value, least: u64) -> bool {
    value.as_u64().is_some_and(|n| n >= least && n <= MAX_SAFE)
}

/// Whether a relative path stays below the folder it starts from.
pub fn stays_inside(path: &str) -> bool {
    let mut depth = 0i64;
    for part in Path::new(path).components() {
        match part {
            Component::Prefix(_) | Component::RootDir => return false,
            Component::ParentDir => depth -= 1,
            Component::CurDir => {}
            Component::Normal(_) => depth += 1,
        }
        if depth < 0 {
            return false;
        }
    }
    true
}

/// One spelling for one file, as far as the text tells.
fn normalized(path: &str) -> Cow<'_, str> {
    let pairs = || path.bytes().zip(path.bytes().skip(1));
    // As `has` does it, for two bytes in a row: "//" or "./".
    if !pairs().fold(false, |found, (first, second)| found | (second == b'/' && (first == b'/' || first == b'.'))) {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Cow::Owned(if path.starts_with('/') { format!("/{joined}") } else { joined })
}

/// Whether a field that we read is null.
fn has_null_field(chunk: &str) -> bool {
    let fields = ["id", "startFrame", "frameCount", "frameStep", "outputFile", "command", "argv"];
    serde_json::from_str::<serde_json::Map<String, Value>>(chunk).is_ok_and(|chunk| fields.iter().any(|name| chunk.get(*name).is_some_and(Value::is_null)))
}

impl SpecBuilder {
    /// Begins with the JSON object of the spec: whole, or everything but `chunks`, which then come by [`Self::push`].
    pub fn new(head: &str, rules: Rules, options: &Options) -> Self {
        let mut builder = SpecBuilder {
            head: String::with_capacity(head.len().min(512)),
            text: String::new(),
            list: Vec::new(),
            plan: None,
            merge_command: None,
            framed: true,
            frames: 0,
            last_id: None,
            ids: None,
            outputs: HashMap::default(),
            hasher: RandomState::default(),
            rules,
            inside_only: !options.allow_outside_paths,
            issues: Vec::new(),
        };
        builder.read_head(head);
        builder
    }

    fn issue(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.issues.len() < MOST_ISSUES {
            self.issues.push(Issue::new(path, message));
        }
    }

    fn read_head(&mut self, head: &str) {
        let fields = match serde_json::from_str::<Fields<'_>>(head) {
            Ok(Fields(fields)) => fields,
            Err(_) => {
                self.issue("spec", "must be an object");
                return;
            }
        };
        self.head.push('{');
        let mut has_chunks = false;
        let mut has_plan = false;
        for (key, value) in &fields {
            match key.as_ref() {
                "chunks" => {
                    has_chunks = true;
                    self.push(value.get());
                    continue;
                }
                "plan" => {
                    has_plan = true;
                    self.read_plan(value.get());
                }
                "id" | "assetsUrl" => self.expect_string(key, value.get()),
                "mergeCommand" => self.read_merge_command(value.get()),
                "metadata" => self.read_metadata(value.get()),
                _ => {}
            }
            if self.head.len() > 1 {
                self.head.push(',');
            }
            super::status::push_text(&mut self.head, key);
            self.head.push(':');
            self.head.push_str(value.get());
        }
        self.head.push('}');
        if has_chunks && has_plan {
            self.issue("plan", "must not be given together with chunks");
        }
    }

    fn expect_string(&mut self, key: &str, text: &str) {
        if !text.starts_with('"') {
            self.issue(key, format!("must be a string, got {text}"));
        }
    }

    fn read_merge_command(&mut self, text: &str) {
        match serde_json::from_str::<String>(text) {
            Ok(merge) if merge.trim().is_empty() => {}
            Ok(merge) => {
                if let Err(error) = command::split(&merge) {
                    self.issue("mergeCommand", error.to_string());
                }
                self.merge_command = Some(merge.into());
            }
            Err(_) => self.issue("mergeCommand", format!("must be a string, got {text}")),
        }
    }

    fn read_metadata(&mut self, text: &str) {
        /// What nearly all metadata are; whatever does not fit is looked at field by field.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Plain {
            total_frames: f64,
            fps: f64,
            width: f64,
            height: f64,
            duration: f64,
        }
        if let Ok(plain) = serde_json::from_str::<Plain>(text)
            && text.starts_with('{')
            && [plain.total_frames, plain.fps, plain.width, plain.height, plain.duration].iter().all(|n| *n >= 0.0)
        {
            return;
        }
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(metadata)) => {
                for name in ["totalFrames", "fps", "width", "height", "duration"] {
                    if let Some(value) = metadata.get(name)
                        && !value.as_f64().is_some_and(|n| n.is_finite() && n >= 0.0)
                    {
                        self.issue(format!("metadata.{name}"), format!("must be a number of 0 or more, got {}", shown(value)));
                    }
                }
            }
            Ok(value) => self.issue("metadata", format!("must be an object, got {}", shown(&value))),
            Err(error) => self.issue("metadata", error.to_string()),
        }
    }

    fn read_plan(&mut self, text: &str) {
        match Plan::read(text, self.rules.needs_command) {
            Ok(plan) => {
                if !plan.command().trim().is_empty()
                    && let Err(error) = command::split(plan.command())
                {
                    self.issue("plan.command", error.to_string());
                }
                if self.inside_only && !plan.is_empty() && !stays_inside(&plan.chunk(0).output_file) {
                    self.issue("plan.outputFile", "must stay inside of jobDir");
                }
                self.plan = Some(Box::new(plan));
            }
            Err(found) => {
                for issue in found {
                    self.issue(if issue.path.is_empty() { "plan".to_owned() } else { format!("plan.{}", issue.path) }, issue.message);
                }
            }
        }
    }

    /// Takes the next chunks: the text of a JSON array.
    pub fn push(&mut self, array: &str) {
        if let Some(chunks) = scan::scan(array) {
            if chunks.is_empty() {
                return;
            }
            // Its place in the text, as if the array's own bracket stood there.
            let base = self.add_text(&array[1..array.len() - 1]) - 1;
            self.list.reserve(chunks.len());
            for plain in &chunks {
                self.take(self.list.len(), &Parts::from(plain), base + plain.offset, plain.length);
            }
            return;
        }
        let raw: Vec<&RawValue> = match serde_json::from_str(array) {
            Ok(raw) => raw,
            Err(_) => {
                self.issue("chunks", "must be an array");
                return;
            }
        };
        let Some(inner) = array.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')) else { return };
        if raw.is_empty() {
            return;
        }
        let base = self.add_text(inner);
        let origin = inner.as_ptr() as usize;
        for value in raw {
            let text = value.get();
            let offset = base + (text.as_ptr() as usize - origin);
            let position = self.list.len();
            // An array would be read as a chunk by position, and null as a field that is missing.
            let odd = !text.starts_with('{') || text.contains("null") && has_null_field(text);
            match serde_json::from_str::<Chunk>(text) {
                Ok(chunk) if !odd => self.take(position, &Parts::from(&chunk), offset, text.len()),
                _ => self.diagnose(position, text),
            }
        }
    }

    /// Takes the next chunks, without a detour through JSON.
    pub fn push_plain(&mut self, chunks: &PlainChunks) {
        let mut texts = chunks.texts.split('\0');
        let mut digits = itoa::Buffer::new();
        self.list.reserve(chunks.numbers.len());
        for [id, start_frame, frame_count] in &chunks.numbers {
            let (output, command) = (texts.next().unwrap_or_default(), texts.next().unwrap_or_default());
            self.text.push(if self.text.is_empty() { '[' } else { ',' });
            let offset = self.text.len();
            for (name, number) in [("{\"id\":", id), (",\"startFrame\":", start_frame), (",\"frameCount\":", frame_count)] {
                self.text.push_str(name);
                self.text.push_str(digits.format(*number));
            }
            self.text.push_str(",\"outputFile\":");
            push_text(&mut self.text, output);
            self.text.push_str(",\"command\":");
            push_text(&mut self.text, command);
            self.text.push('}');
            let parts = Parts {
                id: *id,
                start_frame: Some(*start_frame),
                frame_count: Some(*frame_count),
                frame_step: None,
                output_file: Some(output),
                command: Some(command),
                argv: None,
            };
            self.take(self.list.len(), &parts, offset, self.text.len() - offset);
        }
    }

    /// Keeps the text of more chunks; gives its place.
    fn add_text(&mut self, chunks: &str) -> usize {
        if self.text.is_empty() {
            // With its brackets: most specs come at once.
            self.text.reserve_exact(chunks.len() + 2);
            self.text.push('[');
        } else {
            self.text.push(',');
        }
        let base = self.text.len();
        self.text.push_str(chunks);
        base
    }

    fn take(&mut self, position: usize, chunk: &Parts<'_>, offset: usize, length: usize) {
        let at = |name: &str| format!("chunks[{position}].{name}");
        if chunk.id > MAX_SAFE {
            self.issue(at("id"), "must be an integer of 0 or more that a double holds exactly");
        }
        let increasing = self.ids.is_none() && self.last_id.is_none_or(|last| chunk.id > last);
        if !increasing {
            let seen = self.ids.get_or_insert_with(|| self.list.iter().map(|chunk| chunk.id).collect());
            if !seen.insert(chunk.id) {
                self.issue(at("id"), format!("{} is the id of another chunk too", chunk.id));
            }
        }
        self.last_id = Some(chunk.id);
        if chunk.frame_count == Some(0) {
            self.issue(at("frameCount"), "must be an integer of 1 or more, got 0");
        }
        if chunk.frame_step == Some(0) {
            self.issue(at("frameStep"), "must be an integer of 1 or more, got 0");
        }
        let numbers = [("startFrame", chunk.start_frame), ("frameCount", chunk.frame_count), ("frameStep", chunk.frame_step)];
        if let Some((name, _)) = numbers.into_iter().find(|(_, number)| number.is_some_and(|number| number > MAX_SAFE)) {
            self.issue(at(name), "must be an integer that a double holds exactly");
        } else if end_frame(chunk.start_frame, chunk.frame_count, chunk.frame_step).is_some_and(|end| end > MAX_SAFE) {
            self.issue(at("frameCount"), "leads to an end frame that a double does not hold exactly");
        }
        match (chunk.argv, chunk.command) {
            (Some(argv), _) => {
                if argv.first().is_none_or(String::is_empty) {
                    self.issue(at("argv"), "must begin with a program");
                }
                if argv.iter().any(|argument| argument.contains('\0')) {
                    self.issue(at("argv"), "must not contain a NUL character");
                }
            }
            (None, Some(text)) => {
                if text.trim().is_empty() {
                    if self.rules.needs_command {
                        self.issue(at("command"), "must not be empty");
                    }
                } else if has(text, |byte| byte == 0) {
                    self.issue(at("command"), "must not contain a NUL character");
                } else if has(text, |byte| matches!(byte, b'"' | b'\'' | b'\\')) {
                    match command::split(text) {
                        Err(error) => self.issue(at("command"), error.to_string()),
                        Ok(words) if words.first().is_none_or(String::is_empty) => self.issue(at("command"), "must begin with a program"),
                        Ok(_) => {}
                    }
                }
            }
            (None, None) if self.rules.needs_command => self.issue(at("command"), "is missing"),
            (None, None) => {}
        }
        if let Some(output) = chunk.output_file {
            if output.is_empty() || has(output, |byte| byte == 0) {
                self.issue(at("outputFile"), "must not be empty or contain a NUL character");
            } else {
                if self.inside_only && !stays_inside(output) {
                    self.issue(at("outputFile"), format!("must stay inside of jobDir, got {output:?}"));
                }
                let name = normalized(output);
                // Only hashes are kept; the few that meet are compared by their text.
                let hash = self.hasher.hash_one(name.as_ref());
                match self.outputs.insert(hash, position) {
                    Some(known) if self.output_at(known).is_some_and(|other| normalized(&other) == name) => {
                        self.issue(at("outputFile"), format!("{output:?} is written by another chunk too"));
                    }
                    _ => {}
                }
            }
        }
        match chunk.frame_count {
            Some(frames) => self.frames = self.frames.saturating_add(frames),
            None => self.framed = false,
        }
        match (u32::try_from(offset), u32::try_from(length)) {
            (Ok(offset), Ok(length)) => self.list.push(Listed {
                id: chunk.id,
                frames: chunk.frame_count.unwrap_or(1),
                start_frame: chunk.start_frame.unwrap_or(u64::MAX),
                offset,
                length,
            }),
            _ => self.issue("chunks", "are more than 4 GiB of text; use plan"),
        }
    }

    /// The output of a chunk that was taken before.
    fn output_at(&self, position: usize) -> Option<String> {
        let at = self.list.get(position)?;
        let text = self.text.get(at.offset as usize..(at.offset + at.length) as usize)?;
        serde_json::from_str::<Chunk>(text).ok()?.output_file
    }

    /// The fields of a chunk that does not have the right types, one by one.
    fn diagnose(&mut self, position: usize, text: &str) {
        let before = self.issues.len();
        let at = |name: &str| format!("chunks[{position}].{name}");
        match serde_json::from_str::<Value>(text) {
            Ok(Value::Object(mut chunk)) => {
                for (name, least, needed) in [("id", 0, true), ("startFrame", 0, false), ("frameCount", 1, false), ("frameStep", 1, false)] {
                    match chunk.get(name) {
                        Some(value) if !is_integer(value, least) => {
                            self.issue(at(name), format!("must be an integer of {least} or more, got {}", shown(value)));
                            chunk.remove(name);
                        }
                        None if needed => self.issue(at(name), "is missing"),
                        _ => {}
                    }
                }
                for name in ["outputFile", "command"] {
                    if let Some(value) = chunk.get(name).filter(|value| !value.is_string()) {
                        self.issue(at(name), format!("must be a string, got {}", shown(value)));
                        chunk.remove(name);
                        if name == "command" {
                            chunk.insert(name.to_owned(), Value::from("-"));
                        }
                    }
                }
                if let Some(value) = chunk.get("argv").filter(|value| !value.as_array().is_some_and(|argv| argv.iter().all(Value::is_string))) {
                    self.issue(at("argv"), format!("must be an array of strings, got {}", shown(value)));
                    chunk.remove("argv");
                    chunk.entry("command").or_insert_with(|| Value::from("-"));
                }
                // What else is wrong with it is told, too; a chunk without an id gets one that nobody has.
                chunk.entry("id").or_insert_with(|| Value::from(MAX_SAFE - position as u64));
                if self.issues.len() > before
                    && let Ok(rest) = serde_json::from_value::<Chunk>(Value::Object(chunk))
                {
                    self.take(position, &Parts::from(&rest), 0, 0);
                    return;
                }
            }
            Ok(value) => self.issue(format!("chunks[{position}]"), format!("must be an object, got {}", shown(&value))),
            Err(error) => self.issue(format!("chunks[{position}]"), error.to_string()),
        }
        if self.issues.len() == before && before < MOST_ISSUES {
            self.issue(format!("chunks[{position}]"), "is not a chunk");
        }
        // Keeps the positions of those that follow.
        self.list.push(Listed { id: u64::MAX - position as u64, frames: 1, start_frame: u64::MAX, offset: 0, length: 0 });
    }

    /// The checked spec, or every problem.
    pub fn finish(mut self) -> Result<Spec, Error> {
        if self.list.len() > u32::MAX as usize {
            self.issue("chunks", "are too many");
        }
        if !self.issues.is_empty() {
            return Err(Error::invalid("job spec", self.issues));
        }
        let (chunks, frames, framed) = match self.plan {
            Some(plan) => {
                let frames = plan.total_frames();
                (Chunks::Planned(plan), frames, true)
            }
            None => {
                if self.text.is_empty() {
                    self.text.push('[');
                }
                self.text.push(']');
                let frames = if self.framed { self.frames } else { self.list.len() as u64 };
                (Chunks::Listed { text: self.text.into(), list: self.list.into() }, frames, self.framed)
            }
        };
        Ok(Spec { head: self.head.into(), chunks, frames, framed, merge_command: self.merge_command, by_id: OnceLock::new() })
    }
}

impl Spec {
    /// Takes in a whole spec.
    pub fn parse(text: &str, rules: Rules, options: &Options) -> Result<Spec, Error> {
        SpecBuilder::new(text, rules, options).finish()
    }

    /// Takes in a spec that was kept before: what is wrong with it is told as damage.
    pub fn restore(text: &str) -> Result<Spec, Error> {
        Self::parse(text, Rules { needs_command: false }, &Options::default()).map_err(|error| {
            let issues = error.issues.into_iter().map(|issue| Issue::new(format!("spec.{}", issue.path), issue.message)).collect();
            Error::invalid("job status", issues)
        })
    }

    /// How many chunks.
    pub fn len(&self) -> u32 {
        match &self.chunks {
            Chunks::Listed { list, .. } => list.len() as u32,
            Chunks::Planned(plan) => plan.len() as u32,
        }
    }

    /// Whether there is no chunk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Frames in all; the number of chunks where not every chunk says how many it has.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Frames of a chunk; 1 where not every chunk says.
    pub fn weight(&self, index: u32) -> u64 {
        match &self.chunks {
            Chunks::Listed { list, .. } if self.framed => list[index as usize].frames,
            Chunks::Listed { .. } => 1,
            Chunks::Planned(plan) => plan.chunk_frames(index as usize),
        }
    }

    /// The id of the chunk at a position.
    pub fn chunk_id(&self, index: u32) -> u64 {
        match &self.chunks {
            Chunks::Listed { list, .. } => list[index as usize].id,
            Chunks::Planned(_) => u64::from(index),
        }
    }

    /// The position of a chunk.
    pub fn index_of(&self, id: u64) -> Option<u32> {
        let Chunks::Listed { list, .. } = &self.chunks else {
            return u32::try_from(id).ok().filter(|index| *index < self.len());
        };
        if let Some(chunk) = usize::try_from(id).ok().and_then(|index| list.get(index))
            && chunk.id == id
        {
            return Some(id as u32);
        }
        let by_id = self.by_id.get_or_init(|| {
            let in_place = list.iter().enumerate().all(|(index, chunk)| chunk.id == index as u64);
            (!in_place).then(|| list.iter().enumerate().map(|(index, chunk)| (chunk.id, index as u32)).collect())
        });
        by_id.as_ref().and_then(|by_id| by_id.get(&id).copied())
    }

    /// The chunk at a position, read from the kept text.
    pub fn chunk(&self, index: u32) -> Chunk {
        match &self.chunks {
            Chunks::Listed { text, list } => {
                let at = list[index as usize];
                let text = &text[at.offset as usize..(at.offset + at.length) as usize];
                serde_json::from_str(text).unwrap_or(Chunk {
                    id: at.id,
                    start_frame: None,
                    frame_count: None,
                    frame_step: None,
                    output_file: None,
                    command: None,
                    argv: None,
                })
            }
            Chunks::Planned(plan) => {
                let chunk = plan.chunk(index as usize);
                Chunk {
                    id: u64::from(chunk.id),
                    start_frame: Some(chunk.start_frame),
                    frame_count: Some(chunk.frame_count),
                    frame_step: Some(chunk.frame_step),
                    output_file: Some(chunk.output_file),
                    command: Some(plan.command().to_owned()),
                    argv: None,
                }
            }
        }
    }

    /// Positions in the order in which their frames belong: by first frame, then by position.
    pub fn in_frame_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.len()).collect();
        if let Chunks::Listed { list, .. } = &self.chunks {
            order.sort_by_key(|index| (list[*index as usize].start_frame, *index));
        }
        order
    }

    /// The JSON object without `chunks`.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// Whether the chunks come from a plan.
    pub fn is_planned(&self) -> bool {
        matches!(self.chunks, Chunks::Planned(_))
    }

    /// Bytes of text that are kept.
    pub fn text_len(&self) -> usize {
        self.head.len() + if let Chunks::Listed { text, .. } = &self.chunks { text.len() } else { 0 }
    }

    /// Writes the chunks `from..from + count` as a JSON array.
    pub fn write_chunks(&self, out: &mut String, from: u32, count: u32) {
        let end = from.saturating_add(count).min(self.len());
        match &self.chunks {
            Chunks::Listed { text, list } => {
                if from == 0 && end == self.len() {
                    out.push_str(text);
                    return;
                }
                out.push('[');
                if from < end {
                    let first = list[from as usize];
                    let last = list[end as usize - 1];
                    out.push_str(&text[first.offset as usize..(last.offset + last.length) as usize]);
                }
                out.push(']');
            }
            Chunks::Planned(plan) => {
                use std::fmt::Write;
                let command = serde_json::to_string(plan.command()).unwrap_or_default();
                out.push('[');
                for index in from..end {
                    let chunk = plan.chunk(index as usize);
                    if index > from {
                        out.push(',');
                    }
                    let _ = write!(out, "{{\"id\":{},\"startFrame\":{},\"frameCount\":{},", chunk.id, chunk.start_frame, chunk.frame_count);
                    if chunk.frame_step != 1 {
                        let _ = write!(out, "\"frameStep\":{},", chunk.frame_step);
                    }
                    let _ = write!(out, "\"outputFile\":{},\"command\":{command}}}", serde_json::to_string(&chunk.output_file).unwrap_or_default());
                }
                out.push(']');
            }
        }
    }

    /// Writes the spec as JSON. A planned spec keeps its plan and has no chunks in it here.
    pub fn write(&self, out: &mut String) {
        out.push_str(&self.head[..self.head.len() - 1]);
        if !self.is_planned() {
            if self.head.len() > 2 {
                out.push(',');
            }
            out.push_str("\"chunks\":");
            self.write_chunks(out, 0, u32::MAX);
        }
        out.push('}');
    }

    /// The same spec with the field `name` of its head set to a string.
    pub fn with_text_field(&self, name: &str, value: &str) -> Result<Spec, Error> {
        let mut text = String::new();
        self.write(&mut text);
        let mut map: serde_json::Map<String, Value> = serde_json::from_str(&text).map_err(|e| Error::new(ErrorCode::Internal, e.to_string()))?;
        map.insert(name.to_owned(), Value::String(value.to_owned()));
        Self::restore(&Value::Object(map).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Spec, Error> {
        Spec::parse(text, Rules { needs_command: true }, &Options::default())
    }

    #[test]
    fn unknown_fields_and_their_text_come_back() {
        let text = r#"{"id":"x","later":{"a":[1,2.50]},"chunks":[{"id":3,"command":"a b","mine":"ü"}, {"id":1,"command":"c"}]}"#;
        let spec = parse(text).unwrap();
        let mut out = String::new();
        spec.write(&mut out);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!((spec.index_of(3), spec.index_of(1), spec.index_of(0)), (Some(0), Some(1), None));
        assert_eq!(spec.chunk(1).command.as_deref(), Some("c"));
    }

    proptest! {
        // [F2]
        #[test]
        fn plain_chunks_are_taken_as_their_json_is(
            chunks in prop::collection::vec((0u64..40, 0u64..MAX_SAFE + 2, 0u64..5, "[a-c/.\"\\\\é\n]{0,6}", "[a-z \"'\\\\{}]{0,12}"), 1..12),
            at in 0usize..12,
        ) {
            let (options, rules) = (Options::default(), Rules { needs_command: true });
            let json = |chunks: &[(u64, u64, u64, String, String)]| {
                Value::from_iter(chunks.iter().map(|(id, start, count, output, command)| {
                    serde_json::json!({ "id": id, "startFrame": start, "frameCount": count, "outputFile": output, "command": command })
                }))
                .to_string()
            };
            let (first, second) = chunks.split_at(at.min(chunks.len()));
            let build = |plain: bool| {
                let mut builder = SpecBuilder::new("{\"id\":\"x\"}", rules, &options);
                for slice in [first, second].into_iter().filter(|slice| !slice.is_empty()) {
                    let numbers: Vec<f64> = slice.iter().flat_map(|chunk| [chunk.0 as f64, chunk.1 as f64, chunk.2 as f64]).collect();
                    let texts: Vec<&str> = slice.iter().flat_map(|chunk| [&*chunk.3, &*chunk.4]).collect();
                    match PlainChunks::read(&numbers, texts.join("\0")).filter(|_| plain) {
                        Some(chunks) => builder.push_plain(&chunks),
                        None => builder.push(&json(slice)),
                    }
                }
                builder.finish()
            };
            match (build(true), build(false)) {
                (Ok(ours), Ok(theirs)) => {
                    let written = |spec: &Spec| {
                        let mut out = String::new();
                        spec.write(&mut out);
                        serde_json::from_str::<Value>(&out).unwrap()
                    };
                    prop_assert_eq!(written(&ours), written(&theirs));
                    prop_assert_eq!((ours.frames, ours.len()), (theirs.frames, theirs.len()));
                    for index in 0..ours.len() {
                        prop_assert_eq!(ours.chunk(index), theirs.chunk(index));
                    }
                }
                (Err(ours), Err(theirs)) => prop_assert_eq!(format!("{:?}", ours.issues), format!("{:?}", theirs.issues)),
                (ours, theirs) => prop_assert!(false, "{:?} {:?}", ours.err(), theirs.err()),
            }
        }
    }

    #[test]
    fn what_is_not_plain_is_not_read_as_if_it_were() {
        let read = |numbers: &[f64], texts: &str| PlainChunks::read(numbers, texts.to_owned()).is_some();
        assert!(read(&[0.0, 1.0, 2.0], "a\0b"));
        for number in [-1.0, 0.5, f64::NAN, f64::INFINITY, 9_007_199_254_740_992.0] {
            assert!(!read(&[0.0, number, 2.0], "a\0b"), "{number}");
        }
        assert!(!read(&[0.0, 1.0, 2.0], "a\0b\0c"));
        assert!(!read(&[0.0, 1.0, 2.0], "a"));
        assert!(!read(&[0.0, 1.0], "a\0b"));
        assert!(!read(&[], ""));
    }

    // [F2] all problems in one error, each with its path
    #[test]
    fn every_problem_is_told_with_its_path() {
        let error = parse(
            r#"{"metadata":{"fps":"x"},"mergeCommand":"a 'b","chunks":[{"id":0,"command":"a","frameCount":0,"outputFile":"x"},{"id":0,"command":"","outputFile":"./x"},{"id":-1,"startFrame":null},7]}"#,
        )
        .unwrap_err();
        let paths: Vec<_> = error.issues.iter().map(|issue| issue.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "metadata.fps",
                "mergeCommand",
                "chunks[0].frameCount",
                "chunks[1].id",
                "chunks[1].command",
                "chunks[1].outputFile",
                "chunks[2].id",
                "chunks[2].startFrame",
                "chunks[2].command",
                "chunks[3]"
            ]
        );
    }

    #[test]
    fn slices_add_up_to_the_whole() {
        let rules = Rules { needs_command: false };
        let mut builder = SpecBuilder::new(r#"{"id":"s"}"#, rules, &Options::default());
        builder.push(r#"[{"id":0,"frameCount":5}]"#);
        builder.push(r#"[ {"id":1,"frameCount":7} ,{"id":2,"frameCount":1}]"#);
        let spec = builder.finish().unwrap();
        assert_eq!((spec.len(), spec.frames(), spec.weight(1)), (3, 13, 7));
        assert_eq!(spec.chunk(2).frame_count, Some(1));
        let mut out = String::new();
        spec.write_chunks(&mut out, 1, 2);
        assert_eq!(serde_json::from_str::<Value>(&out).unwrap().as_array().unwrap().len(), 2);
    }

    // [F4] paths that leave the job's folder
    #[test]
    fn paths_inside_and_outside() {
        for inside in ["a", "a/b", "./a", "a/../b", "a/b/../../c"] {
            assert!(stays_inside(inside), "{inside}");
        }
        for outside in ["/a", "..", "../a", "a/../../b", "./../x"] {
            assert!(!stays_inside(outside), "{outside}");
        }
        let options = Options::parse(r#"{"allowOutsidePaths":false}"#).unwrap();
        let error = Spec::parse(r#"{"chunks":[{"id":0,"outputFile":"../x"}]}"#, Rules { needs_command: false }, &options).unwrap_err();
        assert_eq!(error.issues[0].path, "chunks[0].outputFile");
    }

    #[test]
    fn a_plan_is_kept_as_ranges_and_gives_its_chunks() {
        let spec = parse(r#"{"plan":{"totalFrames":300,"chunkCount":4,"outputFile":"c_{chunkId}.mp4","command":"r {startFrame}"}}"#).unwrap();
        assert_eq!((spec.len(), spec.frames(), spec.weight(3)), (4, 300, 75));
        let mut out = String::new();
        spec.write_chunks(&mut out, 1, 1);
        assert_eq!(out, r#"[{"id":1,"startFrame":75,"frameCount":75,"outputFile":"c_1.mp4","command":"r {startFrame}"}]"#);
    }
}
