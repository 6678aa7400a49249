//! What the programs of attempts that run now have said so far.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::executor::process::Kept;
use crate::repository::durable::LogStream;

/// Bytes of each end of a stream that are kept of an attempt: of up to 16 MiB all of it.
pub(super) const LOG_END: usize = 8 * 1024 * 1024;

/// Stdout and stderr; `None` once they are handed on.
type Streams = Mutex<Option<[Kept; 2]>>;

/// A ticket and a chunk.
type Key = (u32, u32);

/// The outputs of a manager's running programs, with their attempts.
#[derive(Default)]
pub(super) struct LiveLogs {
    running: Mutex<HashMap<Key, (u32, Arc<Streams>)>>,
}

/// The output of one of them, readable by others until it is dropped.
pub(super) struct LiveLog<'l> {
    all: &'l LiveLogs,
    key: Key,
    streams: Arc<Streams>,
}

impl LiveLogs {
    /// The program of an attempt is about to start.
    pub fn begin(&self, ticket: u32, index: u32, attempt: u32) -> LiveLog<'_> {
        let streams = Arc::new(Mutex::new(Some([Kept::new(LOG_END), Kept::new(LOG_END)])));
        self.running.lock().insert((ticket, index), (attempt, streams.clone()));
        LiveLog { all: self, key: (ticket, index), streams }
    }

    /// What an attempt has said so far; `None`: its program does not run, and what it said was handed on.
    pub fn said(&self, ticket: u32, index: u32, attempt: u32, stream: LogStream) -> Option<String> {
        let streams = self.running.lock().get(&(ticket, index)).filter(|(running, _)| *running == attempt)?.1.clone();
        let kept = streams.lock().as_ref()?[stream as usize].clone();
        Some(kept.into_text())
    }
}

impl LiveLog<'_> {
    /// Adds what comes next.
    pub fn push(&self, stream: LogStream, text: &str) {
        if let Some(streams) = &mut *self.streams.lock() {
            streams[stream as usize].push(text);
        }
    }

    /// Hands on all that was said: stdout and stderr. Who reads meanwhile waits for that.
    pub fn hand_on(self, keep: impl FnOnce([String; 2])) {
        let mut streams = self.streams.lock();
        if let Some(said) = streams.take() {
            keep(said.map(Kept::into_text));
        }
    }
}

impl Drop for LiveLog<'_> {
    fn drop(&mut self) {
        let mut running = self.all.running.lock();
        if running.get(&self.key).is_some_and(|(_, streams)| Arc::ptr_eq(streams, &self.streams)) {
            running.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_there_until_it_is_handed_on() {
        let logs = LiveLogs::default();
        let log = logs.begin(1, 2, 3);
        log.push(LogStream::Stdout, "a");
        log.push(LogStream::Stderr, "b");
        log.push(LogStream::Stdout, "c");
        assert_eq!(logs.said(1, 2, 3, LogStream::Stdout).as_deref(), Some("ac"));
        assert_eq!(logs.said(1, 2, 3, LogStream::Stderr).as_deref(), Some("b"));
        for (ticket, index, attempt) in [(0, 2, 3), (1, 1, 3), (1, 2, 2), (1, 2, 4)] {
            assert_eq!(logs.said(ticket, index, attempt, LogStream::Stdout), None);
        }
        let mut kept = None;
        log.hand_on(|texts| kept = Some(texts));
        assert_eq!(kept, Some(["ac".to_owned(), "b".to_owned()]));
        assert_eq!(logs.said(1, 2, 3, LogStream::Stdout), None);
    }

    #[test]
    fn the_end_of_an_attempt_leaves_the_next_one_alone() {
        let logs = LiveLogs::default();
        let first = logs.begin(1, 2, 1);
        let second = logs.begin(1, 2, 2);
        second.push(LogStream::Stdout, "second");
        drop(first);
        assert_eq!(logs.said(1, 2, 2, LogStream::Stdout).as_deref(), Some("second"));
        drop(second);
        assert!(logs.running.lock().is_empty());
    }
}
