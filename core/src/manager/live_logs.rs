//! What the programs of attempts that run now have said so far.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::executor::process::Kept;
use crate::repository::durable::LogStream;

/// Bytes that are kept of each end of a stream.
pub(super) const LOG_END: usize = 8 * 1024 * 1024;

type Key = (u32, u32);
/// Stdout and stderr.
type Streams = Mutex<[Kept; 2]>;

/// The outputs of a manager's running programs, by ticket and chunk.
#[derive(Default)]
pub struct LiveLogs {
    running: Mutex<HashMap<Key, (u32, Arc<Streams>)>>,
}

/// The output of one of them, readable by others until it is dropped.
pub struct LiveLog<'l> {
    all: &'l LiveLogs,
    key: Key,
    streams: Arc<Streams>,
}

impl LiveLogs {
    /// An attempt's program is about to start.
    pub fn begin(&self, ticket: u32, index: u32, attempt: u32) -> LiveLog<'_> {
        let streams = Arc::new(Mutex::new([Kept::new(LOG_END), Kept::new(LOG_END)]));
        self.running.lock().insert((ticket, index), (attempt, streams.clone()));
        LiveLog { all: self, key: (ticket, index), streams }
    }

    /// What an attempt has said, if its program runs.
    pub fn said(&self, ticket: u32, index: u32, attempt: u32, stream: LogStream) -> Option<String> {
        let streams = self.running.lock().get(&(ticket, index)).filter(|(running, _)| *running == attempt)?.1.clone();
        let kept = streams.lock()[usize::from(stream == LogStream::Stderr)].clone();
        Some(kept.into_text())
    }
}

impl LiveLog<'_> {
    /// Adds what comes next.
    pub fn push(&self, stream: LogStream, text: &str) {
        self.streams.lock()[usize::from(stream == LogStream::Stderr)].push(text);
    }

    /// Hands on all that was said; who reads meanwhile waits for that.
    pub fn end(self, keep: impl FnOnce([String; 2])) {
        let mut streams = self.streams.lock();
        keep(std::mem::replace(&mut *streams, [Kept::new(LOG_END), Kept::new(LOG_END)]).map(Kept::into_text));
        // Before others can look again: they find what was kept.
        self.all.running.lock().remove(&self.key);
    }
}

impl Drop for LiveLog<'_> {
    fn drop(&mut self) {
        self.all.running.lock().remove(&self.key);
    }
}
