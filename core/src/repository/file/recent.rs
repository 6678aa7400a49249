//! Jobs that were read lately and have many changes in the group log: who reads one again applies only what came since.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::record::Fold;

/// Changes in the group log from which on a job is kept.
pub const MANY: usize = 64;
/// Jobs that are kept.
const MOST: usize = 4;
/// Bytes of texts and rows above which a job is not kept.
const LARGEST: usize = 8 * 1024 * 1024;

/// The jobs, the latest last.
#[derive(Default)]
pub struct Recent(Mutex<VecDeque<Fold>>);

impl Recent {
    /// Takes out what is known of the job at a place, if it is at most `changes` steps behind `step`; and how many it is.
    pub fn take(&self, place: u64, step: u32, changes: usize) -> Option<(Fold, usize)> {
        let mut folds = self.0.lock();
        let at = folds.iter().position(|fold| fold.columns.as_ref().is_some_and(|columns| columns.place == place))?;
        let fold = folds.remove(at)?;
        let behind = usize::try_from(step.checked_sub(fold.columns.as_ref()?.step)?).ok()?;
        (behind <= changes).then_some((fold, behind))
    }

    /// Keeps a job for the next reader.
    pub fn keep(&self, fold: &Fold) {
        let rows: usize = fold.chunks.values().map(|body| body.len() + 64).sum();
        if rows + fold.head.len() + fold.spec.len() + fold.options.len() + fold.extras.len() > LARGEST {
            return;
        }
        let mut folds = self.0.lock();
        if folds.len() == MOST {
            folds.pop_front();
        }
        folds.push_back(fold.clone());
    }
}
