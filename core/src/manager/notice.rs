//! What a manager has to tell whoever drives it from outside: collected, handed over many at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use serde::Serialize;

use crate::job::Error;
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
    /// A chunk begins.
    Begun {
        /// The job's ticket.
        ticket: u32,
    },
    /// The user's function has to look at an output.
    Verify {
        /// The job's ticket.
        ticket: u32,
        /// Names the question.
        question: u32,
        /// Position of the chunk.
        index: u32,
        /// The attempt that wrote it.
        attempt: u32,
        /// The file.
        file: String,
    },
    /// A job was taken over: its driver gets ready, and then tells.
    Recovered {
        /// The job's ticket.
        ticket: u32,
        /// The job.
        id: Arc<str>,
        /// The option without which it can't go on and which is not written down.
        needs: Option<&'static str>,
    },
    /// What was waited for is in the store, or will not be.
    Committed {
        /// As it was given.
        token: u32,
        /// Why not.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Error>,
    },
    /// Another manager owns the job now.
    Lost {
        /// The job.
        id: Arc<str>,
    },
    /// A job that waited in the queue was paused, cancelled or removed from elsewhere.
    Dropped {
        /// The job's ticket.
        ticket: u32,
        /// It may be resumed.
        kept: bool,
    },
    /// The native driver has left: nothing of the run is alive any more.
    Ran {
        /// The job's ticket.
        ticket: u32,
    },
}

/// Bytes of output that may wait in the queue.
const MOST_OUTPUT: usize = 8 * 1024 * 1024;
/// Bytes of output handed over at once.
const BATCH: usize = 1024 * 1024;

#[derive(Default)]
struct Queue {
    notices: VecDeque<Notice>,
    output: usize,
}

impl Notice {
    fn bytes(&self) -> usize {
        match self {
            Notice::Output { text, .. } => text.len(),
            Notice::Chunk { stdout, stderr, .. } => stdout.len() + stderr.len(),
            _ => 0,
        }
    }
}

/// The queue of news.
pub struct Notices {
    queue: Mutex<Queue>,
    room: Condvar,
    armed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Notices {
    /// `wake` is called once for many notices, from any thread; it must not call back.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), room: Condvar::new(), armed: AtomicBool::new(false), wake: Box::new(wake) })
    }

    /// Adds a notice.
    pub fn push(&self, notice: Notice) {
        let mut queue = self.queue.lock();
        queue.output += notice.bytes();
        queue.notices.push_back(notice);
        drop(queue);
        self.arm();
    }

    /// Whether there is room for more output. Where there is none, a program is to be slowed down as a full pipe would.
    pub fn has_room(&self) -> bool {
        self.queue.lock().output < MOST_OUTPUT
    }

    /// Blocks the thread until there is room for more output, no longer than `limit`.
    pub fn wait_for_room(&self, limit: Duration) {
        let mut queue = self.queue.lock();
        if queue.output >= MOST_OUTPUT {
            self.room.wait_for(&mut queue, limit);
        }
    }

    /// Wakes who drives from outside, who may have something to look at.
    pub fn touch(&self) {
        self.arm();
    }

    fn arm(&self) {
        if !self.armed.swap(true, Ordering::AcqRel) {
            (self.wake)();
        }
    }

    /// Takes notices, up to a megabyte of output with them; what is left, and the next one, wakes again.
    pub fn take(&self) -> Vec<Notice> {
        self.armed.store(false, Ordering::Release);
        let mut queue = self.queue.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH {
            let Some(notice) = queue.notices.pop_front() else { break };
            bytes += notice.bytes();
            taken.push(notice);
        }
        queue.output -= bytes;
        let left = !queue.notices.is_empty();
        drop(queue);
        self.room.notify_all();
        if left {
            self.arm();
        }
        taken
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
