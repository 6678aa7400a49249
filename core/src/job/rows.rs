//! The chunks of a job as compact rows: 16 bytes each, what is rare beside them.

use std::collections::HashMap;
use std::sync::Arc;

use super::error::ErrorInfo;
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
    /// The latest failure.
    pub error: Option<ErrorInfo>,
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
    outputs: Option<Box<HashMap<u32, Arc<Output>>>>,
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

    fn put(&mut self, index: u32, state: ChunkState) -> &mut ChunkRow {
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
        self.outputs.as_ref().and_then(|outputs| outputs.get(&index))
    }

    /// Keeps the output of a completed chunk.
    pub fn set_output(&mut self, index: u32, output: Output) {
        self.outputs.get_or_insert_default().insert(index, Arc::new(output));
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

    pub(super) fn release(&mut self, index: u32) {
        self.put(index, ChunkState::Pending);
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
