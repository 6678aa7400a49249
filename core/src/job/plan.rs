//! Plans: how the frames of a job are cut into chunks.
//!
//! A plan keeps the frame ranges, not the chunks: a job of a million chunks costs a few dozen bytes per range, and
//! any chunk is worked out when it is asked for. Chunk ids are their places in the plan, from 0.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::frames::{Range, parse_frames};
use crate::job::placeholder;

/// The most chunks that one plan may have.
pub const MAX_CHUNKS: u64 = 10_000_000;

/// The highest frame number and the most frames: 2^53 - 1, what a JavaScript number holds exactly.
pub const MAX_FRAME: u64 = (1 << 53) - 1;

/// What to render and into how many pieces: one of `total_frames` and `frames`, one of `chunk_size` and
/// `chunk_count`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanOptions {
    /// Number of frames, from `start_frame` on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_frames: Option<u64>,
    /// First frame, together with `total_frames`. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_frame: Option<u64>,
    /// Rendered frames per chunk; the last chunk of a range takes what is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_size: Option<u64>,
    /// Number of chunks. There are fewer when there are fewer frames, and more when there are more ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk_count: Option<u64>,
    /// Ranges such as `1-100,150-200x2`: `a`, `a-b` (inclusive) or `a-bxN` (every N-th frame from `a` on). They may
    /// stand in any order, which is kept, and may interleave, but no frame may be in two of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frames: Option<String>,
    /// `{chunkId}`, `{startFrame}` and `{endFrame}` are put in at planning.
    #[serde(default)]
    pub output_file: String,
    /// Taken as it is; its placeholders are put in when a chunk runs.
    #[serde(default)]
    pub command: String,
}

/// One problem of the options: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanIssue {
    /// Name of the field as users write it, such as `chunkSize`.
    pub path: String,
    /// The reason, in words that follow the path.
    pub message: String,
}

impl fmt::Display for PlanIssue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// One chunk of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedChunk {
    /// Place in the plan, from 0.
    pub id: u32,
    /// First frame, inclusive.
    pub start_frame: u64,
    /// How many frames are rendered, at least 1.
    pub frame_count: u64,
    /// Distance between rendered frames, at least 1.
    pub frame_step: u64,
    /// The plan's output file with the chunk's values put in.
    pub output_file: String,
}

impl PlannedChunk {
    /// Last rendered frame, inclusive.
    pub fn end_frame(&self) -> u64 {
        self.start_frame + (self.frame_count - 1) * self.frame_step
    }
}

/// A valid division of frames into chunks: contiguous, every frame once, no chunk empty, none over two ranges.
#[derive(Debug, Clone)]
pub struct Plan {
    options: PlanOptions,
    spans: Vec<Span>,
    chunks: u32,
    frames: u64,
}

/// A range of frames and the chunks that it is cut into.
#[derive(Debug, Clone)]
struct Span {
    range: Range,
    /// Id of its first chunk.
    first_chunk: u32,
    cut: Cut,
}

/// How the frames of one range are cut.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Into pieces of this many frames, the last one smaller.
    BySize(u64),
    /// Into this many pieces, sizes within one, larger ones first.
    IntoCount(u64),
}

impl Span {
    /// First frame and number of frames of the piece at `index`, which must exist.
    fn piece(&self, index: u64) -> (u64, u64) {
        let Range { start, count, step } = self.range;
        let (before, frames) = match self.cut {
            Cut::BySize(size) => (index * size, size.min(count - index * size)),
            Cut::IntoCount(pieces) => {
                let (size, larger) = (count / pieces, count % pieces);
                (index * size + index.min(larger), size + u64::from(index < larger))
            }
        };
        (start + before * step, frames)
    }
}

impl Plan {
    /// Checks the options and divides the frames.
    ///
    /// - By `chunk_size`: every chunk has that many frames, the last one of each range what is left.
    /// - By `chunk_count`: exactly `min(chunk_count, frames)` chunks, the sizes within a range differing by at most
    ///   one, larger ones first (300 frames / 4 are 4 x 75, 10 / 4 are 3, 3, 2, 2). Ranges share them so that the
    ///   largest chunk is as small as possible. A range has at least one chunk, so `chunk_count` below the number of
    ///   ranges gives one chunk per range.
    ///
    /// # Errors
    /// All problems of the options at once, never an empty list.
    ///
    /// ```
    /// use framewright_core::job::plan::{Plan, PlanOptions};
    /// let plan = Plan::new(PlanOptions {
    ///     frames: Some("1-100,150-200x2".into()),
    ///     chunk_size: Some(50),
    ///     output_file: "part-{chunkId:04}.mp4".into(),
    ///     command: "render {startFrame} {endFrame}".into(),
    ///     ..PlanOptions::default()
    /// })
    /// .unwrap();
    /// assert_eq!(plan.len(), 3);
    /// let last = plan.chunk(2);
    /// assert_eq!((last.start_frame, last.frame_count, last.frame_step), (150, 26, 2));
    /// assert_eq!(last.output_file, "part-0002.mp4");
    /// ```
    pub fn new(options: PlanOptions) -> Result<Self, Vec<PlanIssue>> {
        Self::with_rules(options, true)
    }

    /// Reads the JSON of plan options and plans; of every field that has the wrong type it says what is wrong with it. With
    /// `needs_command` false the command may be empty.
    ///
    /// # Errors
    ///
    /// Every problem, with its field; an empty path: it is no object at all.
    pub fn read(json: &str, needs_command: bool) -> Result<Self, Vec<PlanIssue>> {
        let issue = |path: &str, message: String| PlanIssue { path: path.to_owned(), message };
        let mut fields = match serde_json::from_str::<serde_json::Value>(json) {
            Ok(serde_json::Value::Object(fields)) => fields,
            Ok(value) => return Err(vec![issue("", format!("must be an object, got {}", super::options::shown(&value)))]),
            Err(error) => return Err(vec![issue("", error.to_string())]),
        };
        let mut issues = Vec::new();
        for name in ["totalFrames", "startFrame", "chunkSize", "chunkCount"] {
            if let Some(value) = fields.get(name).filter(|value| value.as_u64().is_none()) {
                issues.push(issue(name, format!("must be an integer of 0 or more, got {}", super::options::shown(value))));
                fields.remove(name);
            }
        }
        for name in ["frames", "outputFile", "command"] {
            if let Some(value) = fields.get(name).filter(|value| !value.is_string()) {
                issues.push(issue(name, format!("must be a string, got {}", super::options::shown(value))));
                fields.remove(name);
            }
        }
        let options: PlanOptions = serde_json::from_value(serde_json::Value::Object(fields)).map_err(|error| vec![issue("", error.to_string())])?;
        match Self::with_rules(options, needs_command) {
            Ok(plan) if issues.is_empty() => Ok(plan),
            planned => {
                // What is wrong with the other fields is told, too, once a field.
                let others = planned.err().unwrap_or_default().into_iter().filter(|other| !issues.iter().any(|known| known.path == other.path));
                let others: Vec<_> = others.collect();
                issues.extend(others);
                Err(issues)
            }
        }
    }

    /// As [`Plan::new`]; with `needs_command` false the command may be empty, since a function renders the chunks.
    ///
    /// # Errors
    ///
    /// Every problem, with its field.
    pub fn with_rules(options: PlanOptions, needs_command: bool) -> Result<Self, Vec<PlanIssue>> {
        let mut issues = Issues::default();
        let ranges = ranges_of(&options, &mut issues);
        let division = division_of(&options, &mut issues);
        if needs_command && options.command.trim().is_empty() {
            issues.add("command", "must not be empty");
        } else if options.command.contains('\0') {
            issues.add("command", "must not contain a NUL character");
        }
        if options.output_file.is_empty() {
            issues.add("outputFile", "must not be empty");
        } else if options.output_file.contains('\0') {
            issues.add("outputFile", "must not contain a NUL character");
        }
        let mut plan = Self { options, spans: Vec::new(), chunks: 0, frames: 0 };
        if let (Some(ranges), Some(division)) = (ranges, division) {
            plan.divide(&ranges, division, &mut issues);
            plan.check_output_file(&ranges, &mut issues);
        }
        if issues.0.is_empty() { Ok(plan) } else { Err(issues.0) }
    }

    /// Number of chunks, 1 to [`MAX_CHUNKS`].
    pub fn len(&self) -> usize {
        self.chunks as usize
    }

    /// Always false: a plan has at least one chunk.
    pub fn is_empty(&self) -> bool {
        self.chunks == 0
    }

    /// Number of rendered frames over all chunks.
    pub fn total_frames(&self) -> u64 {
        self.frames
    }

    /// The command as it was given, placeholders and all.
    pub fn command(&self) -> &str {
        &self.options.command
    }

    /// The options as they were given.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// The chunk at `index`, which is also its id.
    ///
    /// # Panics
    /// When `index` is not below [`Plan::len`].
    pub fn chunk(&self, index: usize) -> PlannedChunk {
        self.get(index).expect("a chunk's index is below the plan's length")
    }

    /// The chunk at `index`, or `None` past the end.
    fn get(&self, index: usize) -> Option<PlannedChunk> {
        let (id, span) = self.find(index)?;
        let (start_frame, frame_count) = span.piece((id - span.first_chunk).into());
        let frame_step = span.range.step;
        let mut chunk = PlannedChunk { id, start_frame, frame_count, frame_step, output_file: String::new() };
        chunk.output_file = placeholder::render_planned(&self.options.output_file, id.into(), start_frame, chunk.end_frame()).into_owned();
        Some(chunk)
    }

    /// How many frames the chunk at `index` renders, without making its output file's name.
    ///
    /// # Panics
    /// When `index` is not below [`Plan::len`].
    pub fn chunk_frames(&self, index: usize) -> u64 {
        let (id, span) = self.find(index).expect("a chunk's index is below the plan's length");
        span.piece((id - span.first_chunk).into()).1
    }

    /// The chunk's id and the range that it is cut from; `None` past the end.
    fn find(&self, index: usize) -> Option<(u32, &Span)> {
        let id = u32::try_from(index).ok().filter(|id| *id < self.chunks)?;
        let after = self.spans.partition_point(|span| span.first_chunk <= id);
        Some((id, &self.spans[after - 1]))
    }

    /// All chunks in the order of their ids.
    #[cfg(test)]
    fn iter(&self) -> impl ExactSizeIterator<Item = PlannedChunk> + '_ {
        (0..self.len()).map(|index| self.chunk(index))
    }

    /// Cuts the ranges; adds an issue and leaves the plan empty when that makes too many chunks.
    fn divide(&mut self, ranges: &[Range], division: Division, issues: &mut Issues) {
        // No frame is in two ranges, so the sum is at most `MAX_FRAME` + 1.
        let frames: u64 = ranges.iter().map(|range| range.count).sum();
        let (field, chunks) = match division {
            Division::Size(size) => ("chunkSize", pieces(ranges, size)),
            Division::Count(count) => {
                let fewest = ranges.len() as u64;
                ("chunkCount", count.min(frames).max(fewest))
            }
        };
        if chunks > MAX_CHUNKS {
            return issues.add(field, format!("makes {chunks} chunks, more than {MAX_CHUNKS}"));
        }
        let cuts: Vec<Cut> = match division {
            Division::Size(size) => vec![Cut::BySize(size); ranges.len()],
            Division::Count(_) => share(ranges, chunks).into_iter().map(Cut::IntoCount).collect(),
        };
        let mut first_chunk = 0;
        for (&range, cut) in ranges.iter().zip(cuts) {
            self.spans.push(Span { range, first_chunk, cut });
            // Below `MAX_CHUNKS`, so it fits.
            first_chunk += match cut {
                Cut::BySize(size) => range.count.div_ceil(size),
                Cut::IntoCount(pieces) => pieces,
            } as u32;
        }
        self.chunks = first_chunk;
        self.frames = frames;
    }

    /// No two chunks may write one file.
    fn check_output_file(&self, ranges: &[Range], issues: &mut Issues) {
        let template = without_parents(&self.options.output_file);
        if self.chunks < 2 || template.is_empty() {
            return;
        }
        let planned = ["chunkId", "startFrame", "endFrame"];
        if !planned.iter().any(|name| placeholder::mentions(&template, name)) {
            issues.add("outputFile", format!("needs {{chunkId}}, {{startFrame}} or {{endFrame}}, else {} chunks write one file", self.chunks));
        }
        // While ids and frames only grow, numbers that run together still differ; after a step back 1|10 may be 11|0.
        let ascending = ranges.is_sorted_by(|range, next| range.last() < next.start);
        if !ascending && placeholder::planned_run_together(&template) {
            issues.add("outputFile", "needs a character that is no digit between its placeholders, else two chunks may write one file");
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Division {
    Size(u64),
    Count(u64),
}

/// Problems in the order in which they were found.
#[derive(Default)]
struct Issues(Vec<PlanIssue>);

impl Issues {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.0.push(PlanIssue { path: path.to_owned(), message: message.into() });
    }
}

fn division_of(options: &PlanOptions, issues: &mut Issues) -> Option<Division> {
    for (path, value) in [("chunkSize", options.chunk_size), ("chunkCount", options.chunk_count)] {
        if value == Some(0) {
            issues.add(path, "must be at least 1");
        }
    }
    match (options.chunk_size, options.chunk_count) {
        (Some(_), Some(_)) => {
            issues.add("chunkCount", "cannot be given together with chunkSize");
            None
        }
        (None, None) => {
            issues.add("chunkSize", "is missing: give either chunkSize or chunkCount");
            None
        }
        (Some(size), None) => (size > 0).then_some(Division::Size(size)),
        (None, Some(count)) => (count > 0).then_some(Division::Count(count)),
    }
}

/// The ranges to render, in the order given; `None` after a problem.
fn ranges_of(options: &PlanOptions, issues: &mut Issues) -> Option<Vec<Range>> {
    let before = issues.0.len();
    let start = options.start_frame.unwrap_or(0);
    let mut ranges = Vec::new();
    if let Some(total) = options.total_frames {
        if total == 0 {
            issues.add("totalFrames", "must be at least 1");
        } else if total > MAX_FRAME {
            issues.add("totalFrames", format!("must be at most {MAX_FRAME}"));
        } else if start.saturating_add(total - 1) > MAX_FRAME {
            issues.add("startFrame", format!("makes the last frame higher than {MAX_FRAME}"));
        }
        ranges.push(Range { start, count: total, step: 1 });
    }
    match (&options.frames, options.total_frames) {
        (Some(_), Some(_)) => issues.add("frames", "cannot be given together with totalFrames"),
        (None, None) => issues.add("totalFrames", "is missing: give either totalFrames or frames"),
        _ => {}
    }
    if let Some(frames) = &options.frames {
        if options.start_frame.is_some() {
            issues.add("startFrame", "cannot be given together with frames, which has its own first frames");
        }
        let (parsed, problems) = parse_frames(frames);
        ranges = parsed;
        for problem in problems {
            issues.add("frames", problem);
        }
    }
    (issues.0.len() == before).then_some(ranges)
}

/// How many chunks of at most `size` frames the ranges need.
fn pieces(ranges: &[Range], size: u64) -> u64 {
    ranges.iter().map(|range| range.count.div_ceil(size)).sum()
}

/// Shares `chunks` between the ranges so that the largest chunk is as small as possible.
///
/// `chunks` is at least the number of ranges and at most the number of frames; the shares add up to it.
fn share(ranges: &[Range], chunks: u64) -> Vec<u64> {
    // The smallest size for which the chunks are enough.
    let (mut low, mut high) = (1, ranges.iter().map(|range| range.count).max().unwrap_or(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if pieces(ranges, middle) <= chunks {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    // One size below they are not enough, so what is left over is used up on the way there.
    let mut left = chunks - pieces(ranges, low);
    let mut one = |range: &Range| {
        let share = range.count.div_ceil(low);
        let extra = if left == 0 { 0 } else { left.min(range.count.div_ceil(low - 1) - share) };
        left -= extra;
        share + extra
    };
    ranges.iter().map(&mut one).collect()
}

/// The path without `name/..`: a placeholder in a folder that is left again tells no two files apart.
fn without_parents(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        if part == ".." && kept.last().is_some_and(|last| !matches!(*last, "" | "..")) {
            kept.pop();
        } else if part != "." {
            kept.push(part);
        }
    }
    kept.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::frames::MAX_LISTED;
    use super::*;
    use proptest::prelude::*;

    fn options() -> PlanOptions {
        PlanOptions { output_file: "part-{chunkId:04}.mp4".into(), command: "render".into(), ..PlanOptions::default() }
    }

    fn total(total_frames: u64) -> PlanOptions {
        PlanOptions { total_frames: Some(total_frames), ..options() }
    }

    fn frames(frames: &str) -> PlanOptions {
        PlanOptions { frames: Some(frames.into()), ..options() }
    }

    fn by_count(options: PlanOptions, chunk_count: u64) -> Plan {
        Plan::new(PlanOptions { chunk_count: Some(chunk_count), ..options }).unwrap()
    }

    fn by_size(options: PlanOptions, chunk_size: u64) -> Plan {
        Plan::new(PlanOptions { chunk_size: Some(chunk_size), ..options }).unwrap()
    }

    fn starts_and_counts(plan: &Plan) -> Vec<(u64, u64)> {
        plan.iter().map(|chunk| (chunk.start_frame, chunk.frame_count)).collect()
    }

    fn counts(plan: &Plan) -> Vec<u64> {
        plan.iter().map(|chunk| chunk.frame_count).collect()
    }

    fn issues(options: PlanOptions) -> Vec<String> {
        Plan::new(options).unwrap_err().iter().map(ToString::to_string).collect()
    }

    /// [F6] 300 frames / 4 are 4 x 75.
    #[test]
    fn frames_are_cut_evenly() {
        let expected = [(0, 75), (75, 75), (150, 75), (225, 75)];
        assert_eq!(starts_and_counts(&by_count(total(300), 4)), expected);
        assert_eq!(starts_and_counts(&by_size(total(300), 75)), expected);
        assert_eq!(counts(&by_size(total(10), 4)), [4, 4, 2]);
        assert_eq!(counts(&by_count(total(10), 4)), [3, 3, 2, 2]);
        assert_eq!(counts(&by_size(total(3), u64::MAX)), [3]);
    }

    /// [F7] A start offset moves every chunk; more chunks than frames give one chunk per frame.
    #[test]
    fn an_offset_and_more_chunks_than_frames_are_planned() {
        let offset = PlanOptions { start_frame: Some(1001), ..total(5) };
        assert_eq!(starts_and_counts(&by_count(offset.clone(), 2)), [(1001, 3), (1004, 2)]);
        assert_eq!(starts_and_counts(&by_size(offset, 4)), [(1001, 4), (1005, 1)]);
        assert_eq!(counts(&by_count(total(3), 8)), [1, 1, 1]);
        assert_eq!(counts(&by_count(total(3), u64::MAX)), [1, 1, 1]);
    }

    #[test]
    fn a_chunk_is_one_range_with_its_step() {
        let plan = by_size(frames(" 1-100 , 150-200x2,7000 "), 60);
        let chunks: Vec<_> = plan.iter().map(|c| (c.id, c.start_frame, c.end_frame(), c.frame_count, c.frame_step)).collect();
        assert_eq!(chunks, [(0, 1, 60, 60, 1), (1, 61, 100, 40, 1), (2, 150, 200, 26, 2), (3, 7000, 7000, 1, 1)]);
        assert_eq!(plan.total_frames(), 127);
    }

    #[test]
    fn ranges_share_the_chunks_by_their_frames() {
        assert_eq!(counts(&by_count(frames("1-90,101-110"), 10)), [10; 10]);
        assert_eq!(counts(&by_count(frames("1-100,150-200x2"), 4)), [34, 33, 33, 26]);
        // A range is never without a chunk.
        assert_eq!(counts(&by_count(frames("1-100,201,301"), 1)), [100, 1, 1]);
        // Nor has it more chunks than frames.
        assert_eq!(counts(&by_count(frames("1-2,11-13"), 9)), [1; 5]);
    }

    #[test]
    fn output_files_get_the_values_of_their_chunk() {
        let output_file = "{startFrame:03}-{endFrame}/{chunkId}_{frameCount}_{jobId}.mp4".to_owned();
        let plan = by_size(PlanOptions { output_file, ..frames("10-20x5,1") }, 2);
        let files: Vec<_> = plan.iter().map(|chunk| chunk.output_file).collect();
        assert_eq!(files, ["010-15/0_{frameCount}_{jobId}.mp4", "020-20/1_{frameCount}_{jobId}.mp4", "001-1/2_{frameCount}_{jobId}.mp4"]);
    }

    #[test]
    fn ranges_may_interleave_when_they_share_no_frame() {
        let plan = by_size(frames("2-10x2,1-9x2"), 5);
        assert_eq!(starts_and_counts(&plan), [(2, 5), (1, 5)]);
        assert_eq!(
            issues(PlanOptions { chunk_size: Some(5), ..frames("0-100x6,3-50x9,4-100x10") }),
            ["frames: has overlapping ranges: 0-96x6 and 3-48x9 both have frame 12", "frames: has overlapping ranges: 0-96x6 and 4-94x10 both have frame 24",]
                .map(str::to_owned)
        );
    }

    /// Every problem is told at once, with its field and its reason.
    #[test]
    fn all_problems_are_told_at_once() {
        assert_eq!(
            issues(PlanOptions::default()),
            [
                "totalFrames: is missing: give either totalFrames or frames",
                "chunkSize: is missing: give either chunkSize or chunkCount",
                "command: must not be empty",
                "outputFile: must not be empty",
            ]
        );
        let crowded = PlanOptions {
            total_frames: Some(0),
            start_frame: Some(3),
            chunk_size: Some(0),
            chunk_count: Some(0),
            frames: Some(" ".into()),
            output_file: "a\0".into(),
            command: " \n".into(),
        };
        assert_eq!(
            issues(crowded),
            [
                "totalFrames: must be at least 1",
                "frames: cannot be given together with totalFrames",
                "startFrame: cannot be given together with frames, which has its own first frames",
                "frames: must not be empty",
                "chunkSize: must be at least 1",
                "chunkCount: must be at least 1",
                "chunkCount: cannot be given together with chunkSize",
                "command: must not be empty",
                "outputFile: must not contain a NUL character",
            ]
        );
    }

    #[test]
    fn a_bad_part_is_named_with_its_reason() {
        let bad = "a,1-,10-1,1-5x0,,9007199254740992,1x2,-3,1-2-3,+4,1-9x9007199254740992,20-30,25";
        assert_eq!(
            issues(PlanOptions { chunk_size: Some(5), ..frames(bad) }),
            [
                "frames: part 1 (\"a\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 2 (\"1-\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 3 (\"10-1\") is reversed: 10 comes after 1",
                "frames: part 4 (\"1-5x0\") has a step of 0",
                "frames: part 5 (\"\") is empty",
                "frames: part 6 (\"9007199254740992\") has a frame higher than 9007199254740991",
                "frames: part 7 (\"1x2\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 8 (\"-3\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 9 (\"1-2-3\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 10 (\"+4\") is not a frame, a range a-b or a stepped range a-bxN",
                "frames: part 11 (\"1-9x9007199254740992\") has a step higher than 9007199254740991",
                "frames: has overlapping ranges: 20-30 and 25 both have frame 25",
            ]
        );
        assert_eq!(issues(PlanOptions { chunk_size: Some(1), ..frames(&"é,".repeat(5000)) }).len(), MAX_LISTED + 1);
        assert_eq!(issues(PlanOptions { chunk_size: Some(1), ..frames(&"1,".repeat(5000)) }).len(), MAX_LISTED);
    }

    #[test]
    fn two_chunks_never_write_one_file() {
        for output_file in ["out.mp4", "{frameCount}.mp4", "{chunkId:99}.mp4", "a/{chunkId}/./../out.mp4"] {
            let options = PlanOptions { output_file: output_file.into(), chunk_size: Some(5), ..total(10) };
            assert_eq!(issues(options.clone()), ["outputFile: needs {chunkId}, {startFrame} or {endFrame}, else 2 chunks write one file"]);
            Plan::new(PlanOptions { chunk_size: Some(10), ..options }).unwrap();
        }
        for output_file in ["{startFrame}", "../{endFrame:02}.mp4", "/a/../{chunkId}/x"] {
            by_size(PlanOptions { output_file: output_file.into(), ..total(10) }, 5);
        }
        // Chunk 1 at frame 10 and chunk 11 at frame 0 would both be 110.
        let output_file = "{chunkId}{startFrame}".to_owned();
        let back = PlanOptions { output_file: output_file.clone(), chunk_size: Some(1), ..frames("9-19,0") };
        assert!(issues(back)[0].starts_with("outputFile: needs a character that is no digit"));
        by_size(PlanOptions { output_file, ..frames("0,9-19") }, 1);
    }

    #[test]
    fn limits_are_told_and_nothing_overflows() {
        let many = PlanOptions { chunk_size: Some(1), ..total(MAX_CHUNKS + 1) };
        assert_eq!(issues(many), ["chunkSize: makes 10000001 chunks, more than 10000000"]);
        let many = PlanOptions { chunk_count: Some(u64::MAX), ..total(MAX_FRAME) };
        assert_eq!(issues(many), ["chunkCount: makes 9007199254740991 chunks, more than 10000000"]);
        let high = PlanOptions { start_frame: Some(1), chunk_count: Some(1), ..total(MAX_FRAME + 1) };
        assert_eq!(issues(high), ["totalFrames: must be at most 9007199254740991"]);
        let high = PlanOptions { start_frame: Some(2), chunk_count: Some(1), ..total(MAX_FRAME) };
        assert_eq!(issues(high), ["startFrame: makes the last frame higher than 9007199254740991"]);

        let most = by_count(PlanOptions { start_frame: Some(1), ..total(MAX_FRAME) }, MAX_CHUNKS);
        assert_eq!(most.len() as u64, MAX_CHUNKS);
        assert_eq!(most.chunk(most.len() - 1).end_frame(), MAX_FRAME);
        assert_eq!(most.get(most.len()), None);
        assert_eq!(most.spans.len(), 1);
    }

    #[test]
    fn options_are_read_and_written_as_users_write_them() {
        let text = r#"{"totalFrames":10,"chunkSize":5,"outputFile":"{chunkId}","command":"c"}"#;
        let options: PlanOptions = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&options).unwrap(), text);
        let plan = Plan::new(options.clone()).unwrap();
        assert_eq!((plan.options(), plan.command()), (&options, "c"));
        assert_eq!(serde_json::to_string(&plan.chunk(1)).unwrap(), r#"{"id":1,"startFrame":5,"frameCount":5,"frameStep":1,"outputFile":"1"}"#);
    }

    /// What every plan promises; gives its frames in the order of the chunks.
    fn check(plan: &Plan) -> Vec<u64> {
        let mut all = Vec::new();
        let mut files = Vec::new();
        for (index, chunk) in plan.iter().enumerate() {
            assert_eq!(chunk.id as usize, index);
            assert!(chunk.frame_count >= 1 && chunk.frame_step >= 1);
            all.extend((0..chunk.frame_count).map(|n| chunk.start_frame + n * chunk.frame_step));
            assert_eq!(all.last(), Some(&chunk.end_frame()));
            assert_eq!(plan.get(index), Some(chunk.clone()));
            assert_eq!(plan.chunk_frames(index), chunk.frame_count);
            files.push(chunk.output_file);
        }
        assert_eq!(plan.iter().len(), plan.len());
        assert_eq!(all.len() as u64, plan.total_frames());
        files.sort();
        files.dedup();
        assert_eq!(files.len(), plan.len(), "two chunks write one file");
        all
    }

    fn within_one_larger_first(counts: &[u64]) -> bool {
        counts.is_sorted_by(|a, b| a >= b) && counts[0] - counts[counts.len() - 1] <= 1
    }

    proptest! {
        /// [F6] [F7] By size: contiguous, every frame once, all equal but the last.
        #[test]
        fn by_size_every_frame_is_rendered_once(frames in 1u64..400, size in 1u64..500, start in 0u64..1000) {
            let plan = by_size(PlanOptions { start_frame: Some(start), ..total(frames) }, size);
            prop_assert_eq!(check(&plan), (start..start + frames).collect::<Vec<_>>());
            prop_assert_eq!(plan.len() as u64, frames.div_ceil(size));
            let counts = counts(&plan);
            let (last, others) = counts.split_last().unwrap();
            prop_assert!(others.iter().all(|count| *count == size) && *last <= size);
        }

        /// [F6] [F7] By count: contiguous, every frame once, exactly so many chunks, sizes within one.
        #[test]
        fn by_count_every_frame_is_rendered_once(frames in 1u64..400, count in 1u64..500, start in 0u64..1000) {
            let plan = by_count(PlanOptions { start_frame: Some(start), ..total(frames) }, count);
            prop_assert_eq!(check(&plan), (start..start + frames).collect::<Vec<_>>());
            prop_assert_eq!(plan.len() as u64, count.min(frames));
            prop_assert!(within_one_larger_first(&counts(&plan)));
        }

        #[test]
        fn every_frame_of_the_ranges_is_rendered_once(
            parts in prop::collection::vec((0u64..5, 0u64..60, 1u64..4), 1..6), number in 1u64..120, sized: bool, back: bool,
        ) {
            let (mut texts, mut expected, mut next) = (Vec::new(), Vec::new(), 0);
            for (gap, length, step) in parts {
                let (start, end) = (next + gap, next + gap + length);
                texts.push(format!("{start}-{end}x{step}"));
                expected.push((start..=end).step_by(step as usize).collect::<Vec<_>>());
                next = end + 1;
            }
            if back {
                texts.reverse();
                expected.reverse();
            }
            let ranges = expected.len();
            let sizes: Vec<_> = expected.iter().map(|range| range.len() as u64).collect();
            let expected = expected.concat();
            let options = frames(&texts.join(","));
            let plan = if sized { by_size(options, number) } else { by_count(options, number) };
            prop_assert_eq!(check(&plan), expected.clone());
            if sized {
                prop_assert_eq!(plan.len() as u64, sizes.iter().map(|size| size.div_ceil(number)).sum::<u64>());
            } else {
                let chunks = (number as usize).clamp(ranges, expected.len().max(ranges));
                prop_assert_eq!(plan.len(), chunks);
                for span in &plan.spans {
                    let Cut::IntoCount(pieces) = span.cut else { panic!() };
                    let counts: Vec<_> = (0..pieces).map(|index| span.piece(index).1).collect();
                    prop_assert!(within_one_larger_first(&counts));
                }
                // No smaller largest chunk is possible.
                let largest = counts(&plan).into_iter().max().unwrap();
                prop_assert!(largest == 1 || sizes.iter().map(|size| size.div_ceil(largest - 1)).sum::<u64>() > chunks as u64);
            }
        }

        #[test]
        fn any_options_are_planned_or_refused(
            numbers in prop::array::uniform4(prop::option::of(prop_oneof![
                any::<u64>(), 0u64..20, Just(MAX_FRAME), Just(MAX_FRAME + 1), Just(u64::MAX),
            ])),
            frames in prop::option::of(prop_oneof![
                any::<String>(), "[0-9x,-]{0,40}", "[0-9]{1,17}-9[0-9]{0,16}(x[0-9]{1,16})?(,[0-9]{1,20}-[0-9]{16})?",
            ]),
            output_file in prop_oneof![any::<String>(), "(\\{chunkId\\}|\\{endFrame:0[0-9]{1,2}\\}|/|\\.\\.|1){0,6}"],
            command: String,
        ) {
            let [total_frames, start_frame, chunk_size, chunk_count] = numbers;
            match Plan::new(PlanOptions { total_frames, start_frame, chunk_size, chunk_count, frames, output_file, command }) {
                Ok(plan) => {
                    prop_assert!((1..=MAX_CHUNKS as usize).contains(&plan.len()));
                    for index in [0, plan.len() / 2, plan.len() - 1] {
                        let chunk = plan.chunk(index);
                        prop_assert!(chunk.frame_count >= 1 && chunk.end_frame() <= MAX_FRAME);
                    }
                    prop_assert_eq!(plan.get(plan.len()), None);
                }
                Err(issues) => prop_assert!(!issues.is_empty()),
            }
        }

        /// Huge numbers: neighbours meet, and the ends are the ends.
        #[test]
        fn huge_plans_are_exact(total_frames in 1..=MAX_FRAME / 2, start in 0..=MAX_FRAME / 2, number: u64, sized: bool) {
            let options = PlanOptions { start_frame: Some(start), ..total(total_frames) };
            let plan = if sized {
                by_size(options, (number % total_frames).max(total_frames.div_ceil(MAX_CHUNKS)))
            } else {
                by_count(options, number % MAX_CHUNKS + 1)
            };
            prop_assert_eq!(plan.chunk(0).start_frame, start);
            prop_assert_eq!(plan.chunk(plan.len() - 1).end_frame(), start + total_frames - 1);
            let index = (number as usize) % plan.len();
            if let Some(next) = plan.get(index + 1) {
                prop_assert_eq!(plan.chunk(index).end_frame() + 1, next.start_frame);
            }
        }
    }
}
