//! What a manager has to tell whoever drives it from outside: collected, handed over many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::repository::Watcher;

/// One piece of news.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Notice {
    /// The run of this ticket is to stop now.
    Stop {
        /// The job's ticket.
        ticket: u32,
        /// Let running chunks end.
        graceful: bool,
    },
    /// A watched job changed its state or is gone.
    Changed {
        /// The job.
        id: Arc<str>,
    },
    /// A piece of a chunk's output.
    Output {
        /// The job's ticket.
        ticket: u32,
        /// The chunk.
        chunk_id: u64,
        /// Whether it came from stderr.
        stderr: bool,
        /// The text.
        text: String,
    },
    /// A chunk was done by the native driver.
    Chunk {
        /// The job's ticket.
        ticket: u32,
        /// The chunk.
        chunk_id: u64,
        /// Chunks done now.
        completed: u32,
        /// Chunks in all.
        total: u32,
        /// Exit status.
        exit_code: i32,
        /// Milliseconds.
        duration_ms: f64,
        /// Kept output.
        stdout: String,
        /// Kept output.
        stderr: String,
    },
    /// The user's function has to look at an output.
    Verify {
        /// The job's ticket.
        ticket: u32,
        /// Names the question.
        question: u32,
        /// Position of the chunk.
        index: u32,
        /// The file.
        file: String,
    },
    /// The native driver has left: nothing of the run is alive any more.
    Ran {
        /// The job's ticket.
        ticket: u32,
    },
}

/// The queue of news.
pub struct Notices {
    queue: Mutex<Vec<Notice>>,
    armed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Notices {
    /// `wake` is called once for many notices, from any thread; it must not call back.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), armed: AtomicBool::new(false), wake: Box::new(wake) })
    }

    /// Adds a notice.
    pub fn push(&self, notice: Notice) {
        self.queue.lock().push(notice);
        self.arm();
    }

    fn arm(&self) {
        if !self.armed.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Takes all notices; the next one wakes again.
    pub fn take(&self) -> Vec<Notice> {
        self.armed.store(false, Ordering::Release);
        std::mem::take(&mut *self.queue.lock())
    }
}

impl Watcher for Notices {
    fn events(&self) {
        self.arm();
    }

    fn changed(&self, id: &Arc<str>) {
        self.push(Notice::Changed { id: id.clone() });
    }
}
