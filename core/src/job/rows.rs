//! The chunks of a job as compact rows: 16 bytes each, what is rare beside them.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::error::{ErrorInfo, tail};
use super::state::ChunkState;

/// One chunk.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ChunkRow {
    /// Where it stands.
    pub state: ChunkState,
    /// Attempts begun; a number is never used again.
    pub attempt: u32,
    /// When the latest attempt began: milliseconds after the job was created.
    pub started: u32,
    /// How long the latest ended attempt took, in milliseconds.
    pub duration_ms: f32,
}

/// What only some chunks have.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChunkDetail {
    /// Attempts that failed, since the job was last resumed after a failure.
    pub failures: u32,
    /// How often its owner died while it ran, since the job was last resumed after a failure.
    pub crashes: u32,
    /// The latest failure.
    pub error: Option<ErrorInfo>,
}

/// What an output file was like when its chunk was completed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "KeptStamp", into = "KeptStamp")]
pub struct Stamp {
    /// Bytes.
    pub bytes: u64,
    /// When it was last modified: nanoseconds since the epoch.
    pub modified: i64,
    /// SHA-256 of its content in hexadecimal digits, when that was asked for.
    pub sha256: Option<Box<str>>,
}

/// A stamp as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KeptStamp {
    Seen(u64, Nanoseconds),
    Hashed(u64, Nanoseconds, Box<str>),
}

/// A time as digits: a store behind JavaScript would round the number.
struct Nanoseconds(i64);

impl Serialize for Nanoseconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Nanoseconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = std::borrow::Cow::<str>::deserialize(deserializer)?;
        digits.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

impl From<KeptStamp> for Stamp {
    fn from(kept: KeptStamp) -> Self {
        let (bytes, modified, sha256) = match kept {
            KeptStamp::Seen(bytes, modified) => (bytes, modified.0, None),
            KeptStamp::Hashed(bytes, modified, sha256) => (bytes, modified.0, Some(sha256)),
        };
        Self { bytes, modified, sha256 }
    }
}

impl From<Stamp> for KeptStamp {
    fn from(stamp: Stamp) -> Self {
        let Stamp { bytes, modified, sha256 } = stamp;
        let modified = Nanoseconds(modified);
        match sha256 {
            None => Self::Seen(bytes, modified),
            Some(sha256) => Self::Hashed(bytes, modified, sha256),
        }
    }
}

/// The kept ends of a chunk's output.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The end of stdout.
    pub stdout: Box<str>,
    /// The end of stderr.
    pub stderr: Box<str>,
}

/// All chunks of a job. Until the first one is touched it holds no row at all.
#[allow(clippy::box_collection, reason = "a pointer where most jobs have nothing; there may be a million jobs")]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rows {
    total: u32,
    rows: Vec<ChunkRow>,
    tally: [u32; 4],
    /// Positions of the completed chunks, in order of completion.
    order: Vec<u32>,
    details: Option<Box<HashMap<u32, ChunkDetail>>>,
    outputs: Option<Box<Outputs>>,
    stamps: Option<Box<HashMap<u32, Stamp>>>,
    /// Positions that changed since they were last taken, where somebody asked for that.
    dirty: Option<Box<Vec<u32>>>,
}

/// Bytes of output that a job keeps of all its chunks: its status is written and read as a whole.
const MOST_OUTPUT: usize = 1024 * 1024;

/// So many bytes more each kept output counts for being there.
const OUTPUT_COST: usize = 16;

/// A tail that had to be shorter than this is of no use any more.
const LEAST_TAIL: usize = 64;

#[derive(Debug, Clone, Default, PartialEq)]
struct Outputs {
    kept: HashMap<u32, Arc<Output>>,
    bytes: usize,
}

impl Output {
    fn cost(&self) -> usize {
        self.stdout.len() + self.stderr.len() + OUTPUT_COST
    }

    /// The ends of both streams in so many bytes; what one does not need is the other's.
    fn cut(&self, most: usize) -> Output {
        let (stdout, stderr) = (self.stdout.len(), self.stderr.len());
        let for_stderr = stderr.min((most / 2).max(most.saturating_sub(stdout)));
        Output { stdout: tail(&self.stdout, most - for_stderr).into(), stderr: tail(&self.stderr, for_stderr).into() }
    }
}

impl Outputs {
    fn insert(&mut self, index: u32, output: Output) {
        self.bytes += output.cost();
        if let Some(before) = self.kept.insert(index, Arc::new(output)) {
            self.bytes -= before.cost();
        }
    }

    fn remove(&mut self, index: u32) {
        if let Some(before) = self.kept.remove(&index) {
            self.bytes -= before.cost();
        }
    }

    /// Makes room: the newest keep what they have up to half of it all, the older ones share a quarter.
    fn shrink(&mut self, order: &[u32]) {
        let mut known = self.kept.len();
        let mut newest = 0;
        let mut older = Vec::new();
        for index in order.iter().rev() {
            if known == 0 {
                break;
            }
            let Some(output) = self.kept.get(index) else { continue };
            known -= 1;
            if older.is_empty() && newest + output.cost() <= MOST_OUTPUT / 2 {
                newest += output.cost();
            } else {
                older.push(*index);
            }
        }
        let share = (MOST_OUTPUT / 4 / older.len().max(1)).saturating_sub(OUTPUT_COST);
        for index in older {
            let Some(output) = self.kept.get_mut(&index) else { continue };
            if output.cost() <= share + OUTPUT_COST {
                continue;
            }
            self.bytes -= output.cost();
            if share < LEAST_TAIL {
                self.kept.remove(&index);
            } else {
                *output = Arc::new(output.cut(share));
                self.bytes += output.cost();
            }
        }
    }
}

impl Rows {
    /// `total` pending chunks.
    pub fn new(total: u32) -> Self {
        Self { total, tally: [total, 0, 0, 0], ..Self::default() }
    }

    /// How many chunks there are.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// How many are in that state.
    pub fn count(&self, state: ChunkState) -> u32 {
        self.tally[state as usize]
    }

    /// Positions of the chunks that a run completed, in order of completion.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The row at `index`, which must be below `total`.
    pub fn get(&self, index: u32) -> ChunkRow {
        self.rows.get(index as usize).copied().unwrap_or_default()
    }

    fn row(&mut self, index: u32) -> &mut ChunkRow {
        if self.rows.is_empty() {
            self.rows = vec![ChunkRow::default(); self.total as usize];
        }
        &mut self.rows[index as usize]
    }

    /// Notes from now on which rows change.
    pub fn track(&mut self) {
        self.dirty.get_or_insert_default();
    }

    /// The rows that changed since the last call, in order, none twice.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let mut dirty = self.dirty.as_mut().map(|dirty| std::mem::take(&mut **dirty)).unwrap_or_default();
        dirty.sort_unstable();
        dirty.dedup();
        dirty
    }

    /// Counts rows as changed again that were taken.
    pub fn give_back_dirty(&mut self, rows: &[u32]) {
        if let Some(dirty) = &mut self.dirty {
            dirty.extend_from_slice(rows);
        }
    }

    fn touch(&mut self, index: u32) {
        if let Some(dirty) = &mut self.dirty
            && dirty.last() != Some(&index)
        {
            dirty.push(index);
        }
    }

    fn put(&mut self, index: u32, state: ChunkState) -> &mut ChunkRow {
        self.touch(index);
        let was = self.get(index).state;
        self.tally[was as usize] -= 1;
        self.tally[state as usize] += 1;
        let row = self.row(index);
        row.state = state;
        row
    }

    /// What is rare about the chunk, if anything.
    pub fn detail(&self, index: u32) -> Option<&ChunkDetail> {
        self.details.as_ref().and_then(|details| details.get(&index))
    }

    /// The kept output of the chunk, if there was any.
    pub fn output(&self, index: u32) -> Option<&Arc<Output>> {
        self.outputs.as_ref().and_then(|outputs| outputs.kept.get(&index))
    }

    /// What the chunk's output file was like when it was completed.
    pub fn stamp(&self, index: u32) -> Option<&Stamp> {
        self.stamps.as_ref().and_then(|stamps| stamps.get(&index))
    }

    /// Keeps what the output file of a completed chunk is like.
    pub fn set_stamp(&mut self, index: u32, stamp: Stamp) {
        self.touch(index);
        self.stamps.get_or_insert_default().insert(index, stamp);
    }

    /// As [`set_stamp`](Self::set_stamp) of what is written down already.
    pub fn note_stamp(&mut self, index: u32, stamp: Stamp) {
        if self.get(index).state == ChunkState::Completed {
            self.stamps.get_or_insert_default().insert(index, stamp);
        }
    }

    /// The chunks with a known output file.
    pub fn stamped(&self) -> impl Iterator<Item = (u32, &Stamp)> {
        self.stamps.iter().flat_map(|stamps| stamps.iter().map(|(index, stamp)| (*index, stamp)))
    }

    /// Keeps the output of a completed chunk; where a job has much of it, less of the older ones.
    pub fn set_output(&mut self, index: u32, output: Output) {
        self.touch(index);
        let outputs = self.outputs.get_or_insert_default();
        outputs.insert(index, output);
        if outputs.bytes > MOST_OUTPUT {
            outputs.shrink(&self.order);
        }
    }

    pub(super) fn start(&mut self, index: u32, attempt: u32, started: u32) {
        let row = self.put(index, ChunkState::Running);
        row.attempt = attempt;
        row.started = started;
    }

    pub(super) fn complete(&mut self, index: u32, attempt: u32, duration_ms: f64) {
        let row = self.put(index, ChunkState::Completed);
        row.attempt = row.attempt.max(attempt);
        row.duration_ms = duration_ms as f32;
        self.order.push(index);
        if let Some(details) = &mut self.details {
            details.remove(&index);
        }
    }

    /// Counts all chunks as done. That a job is completed says so of those without a row.
    pub(super) fn skip_rest(&mut self) {
        let dirty = self.dirty.take();
        for index in 0..self.total {
            self.skip(index);
        }
        self.dirty = dirty;
    }

    /// Counts a chunk as done without a log of it (skipped, or done by an executor that did not tell).
    pub(super) fn skip(&mut self, index: u32) {
        if self.get(index).state != ChunkState::Completed {
            self.put(index, ChunkState::Completed);
        }
    }

    pub(super) fn fail(&mut self, index: u32, duration_ms: f64, error: ErrorInfo, last: bool) {
        let row = self.put(index, if last { ChunkState::Failed } else { ChunkState::Pending });
        row.duration_ms = duration_ms as f32;
        let detail = self.details.get_or_insert_default().entry(index).or_default();
        detail.failures += 1;
        detail.error = Some(error);
    }

    /// The owner died while the chunk ran.
    pub(super) fn crash(&mut self, index: u32, error: ErrorInfo, last: bool) {
        self.put(index, if last { ChunkState::Failed } else { ChunkState::Pending });
        let detail = self.details.get_or_insert_default().entry(index).or_default();
        detail.crashes += 1;
        detail.error = Some(error);
    }

    pub(super) fn release(&mut self, index: u32) {
        self.put(index, ChunkState::Pending);
    }

    /// A completed chunk is to be done again.
    pub(super) fn redo(&mut self, index: u32) {
        self.put(index, ChunkState::Pending);
        if let Some(stamps) = &mut self.stamps {
            stamps.remove(&index);
        }
        if let Some(outputs) = &mut self.outputs {
            outputs.remove(index);
        }
        if let Some(at) = self.order.iter().position(|done| *done == index) {
            self.order.remove(at);
            // The places of those behind it have changed.
            let moved: Vec<u32> = self.order[at..].to_vec();
            self.give_back_dirty(&moved);
        }
    }

    /// Running chunks (and failed ones, with `failed`) become pending. Of failed ones the failures are forgotten, of all
    /// with `afresh`.
    pub(super) fn reopen(&mut self, failed: bool, afresh: bool) {
        for index in 0..self.rows.len() as u32 {
            let state = self.rows[index as usize].state;
            if state == ChunkState::Running || failed && state == ChunkState::Failed {
                self.put(index, ChunkState::Pending);
                if state == ChunkState::Failed
                    && let Some(details) = &mut self.details
                {
                    details.remove(&index);
                }
            }
        }
        if afresh {
            self.details = None;
        }
    }

    /// The failures of chunks that are failed for good, by position.
    pub fn failures(&self) -> Vec<ErrorInfo> {
        let mut found: Vec<_> =
            self.details.iter().flat_map(|details| details.iter()).filter(|(index, _)| self.get(**index).state == ChunkState::Failed).collect();
        found.sort_by_key(|(index, _)| **index);
        found.into_iter().filter_map(|(_, detail)| detail.error.clone()).collect()
    }

    /// Every row that is not as new, with its position.
    pub fn touched(&self) -> impl Iterator<Item = (u32, &ChunkRow)> {
        self.rows.iter().enumerate().filter(|(_, row)| **row != ChunkRow::default()).map(|(index, row)| (index as u32, row))
    }

    /// Puts back what `touched`, `detail`, `output` and `order` gave.
    pub fn restore(&mut self, index: u32, row: ChunkRow, detail: Option<ChunkDetail>) {
        if index < self.total {
            *self.put(index, row.state) = row;
            if let Some(detail) = detail {
                self.details.get_or_insert_default().insert(index, detail);
            }
        }
    }

    /// Puts back the order of completion.
    pub fn restore_order(&mut self, order: Vec<u32>) {
        self.order = order.into_iter().filter(|index| *index < self.total).collect();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kept(rows: &Rows) -> Vec<(usize, usize)> {
        rows.order().iter().map(|index| rows.output(*index).map_or((0, 0), |output| (output.stdout.len(), output.stderr.len()))).collect()
    }

    #[test]
    fn of_much_output_the_newest_keep_their_tails_and_older_ones_the_ends_of_theirs() {
        let mut rows = Rows::new(1_000);
        for index in 0..1_000 {
            rows.complete(index, 1, 1.0);
            let text = |end: &str| format!("{}{index} {end}", "x".repeat(8_000)).into();
            rows.set_output(index, Output { stdout: text("out"), stderr: text("err") });
        }
        let sizes = kept(&rows);
        assert!(sizes.iter().map(|(out, err)| out + err).sum::<usize>() <= MOST_OUTPUT);
        assert!(sizes[970..].iter().all(|(out, err)| *out > 8_000 && *err > 8_000), "{:?}", &sizes[970..]);
        for index in 0..1_000 {
            let output = rows.output(index).unwrap();
            assert!(output.stdout.ends_with(&format!("{index} out")) && output.stderr.ends_with(&format!("{index} err")), "{index}");
        }
    }

    #[test]
    fn what_a_stream_does_not_need_is_the_other_ones() {
        let output = |out: usize, err: usize| Output { stdout: "o".repeat(out).into(), stderr: "e".repeat(err).into() };
        for ((out, err), want) in [((500, 0), (100, 0)), ((0, 500), (0, 100)), ((500, 500), (50, 50)), ((10, 500), (10, 90)), ((500, 10), (90, 10))] {
            let cut = output(out, err).cut(100);
            assert_eq!((cut.stdout.len(), cut.stderr.len()), want, "{out} {err}");
        }
    }

    proptest! {
        #[test]
        fn kept_output_is_bounded_and_counted_right(sizes in prop::collection::vec((0usize..40_000, 0usize..40_000), 1..120), text in "\\PC{1,4}") {
            let mut rows = Rows::new(sizes.len() as u32);
            for (index, (out, err)) in sizes.iter().enumerate() {
                rows.complete(index as u32, 1, 1.0);
                rows.set_output(index as u32, Output { stdout: text.repeat(out / text.len()).into(), stderr: text.repeat(err / text.len()).into() });
                let outputs = rows.outputs.as_ref().unwrap();
                prop_assert_eq!(outputs.bytes, outputs.kept.values().map(|output| output.cost()).sum::<usize>());
                prop_assert!(outputs.bytes <= MOST_OUTPUT);
                // The latest one is never cut.
                prop_assert_eq!(rows.output(index as u32).unwrap().stdout.len(), out / text.len() * text.len());
            }
        }
    }
}
