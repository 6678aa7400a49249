//! Whole outputs of ended attempts: until a durable store has them, or as long as a job in memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::durable::{LogStream, LogWrite};

/// Bytes of whole outputs that a job in memory keeps.
const MOST: usize = 16 * 1024 * 1024;
/// So many bytes more each of them counts for being there.
const COST: usize = 100;

type Key = (u32, u32, LogStream);

/// The whole outputs of a job's attempts, by chunk, attempt and stream.
#[derive(Default)]
pub struct Logs {
    texts: HashMap<Key, Arc<str>, RandomState>,
    /// Keys of `texts`, the oldest first.
    order: VecDeque<Key>,
    bytes: usize,
}

impl Logs {
    /// Keeps one, in place of what was there.
    pub fn keep(&mut self, log: LogWrite) {
        let key = (log.index, log.attempt, log.stream);
        self.bytes += log.text.len() + COST;
        match self.texts.insert(key, log.text) {
            Some(before) => self.bytes -= before.len() + COST,
            None => self.order.push_back(key),
        }
    }

    /// Lets go of the oldest until the rest is small enough to stay in memory; the newest stays in any case.
    pub fn shrink(&mut self) {
        while self.bytes > MOST && self.order.len() > 1 {
            if let Some(text) = self.order.pop_front().and_then(|key| self.texts.remove(&key)) {
                self.bytes -= text.len() + COST;
            }
        }
    }

    /// What one stream of one attempt said.
    pub fn get(&self, index: u32, attempt: u32, stream: LogStream) -> Option<&Arc<str>> {
        self.texts.get(&(index, attempt, stream))
    }

    /// Takes the oldest, of about so many bytes, but at least one; true: there are more.
    pub fn take_some(&mut self, limit: usize) -> (Vec<LogWrite>, bool) {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < limit
            && let Some(key @ (index, attempt, stream)) = self.order.pop_front()
        {
            if let Some(text) = self.texts.remove(&key) {
                bytes += text.len();
                self.bytes -= text.len() + COST;
                taken.push(LogWrite { index, attempt, stream, text });
            }
        }
        (taken, !self.order.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(index: u32, attempt: u32, text: &str) -> LogWrite {
        LogWrite { index, attempt, stream: LogStream::Stdout, text: text.into() }
    }

    #[test]
    fn one_takes_the_place_of_what_was_there() {
        let mut logs = Logs::default();
        for (index, attempt, text) in [(0, 1, "a"), (1, 1, "b"), (0, 1, "c"), (0, 2, "d")] {
            logs.keep(log(index, attempt, text));
        }
        assert_eq!(logs.get(0, 1, LogStream::Stdout).map(|text| &**text), Some("c"));
        assert_eq!(logs.get(0, 1, LogStream::Stderr), None);
        assert_eq!(logs.take_some(2), (vec![log(0, 1, "c"), log(1, 1, "b")], true));
        assert_eq!(logs.take_some(2), (vec![log(0, 2, "d")], false));
        assert_eq!(logs.bytes, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_newest_stay_and_never_more_than_the_bound(sizes in prop::collection::vec((0u32..6, 0usize..MOST / 3), 1..40)) {
            let mut logs = Logs::default();
            for (index, size) in sizes {
                logs.keep(log(index, 1, &"x".repeat(size)));
                logs.shrink();
                prop_assert!(logs.bytes <= MOST);
                prop_assert_eq!(logs.bytes, logs.texts.values().map(|text| text.len() + COST).sum::<usize>());
                prop_assert_eq!(logs.order.len(), logs.texts.len());
            }
        }
    }
}
