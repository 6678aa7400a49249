//! How a change becomes known: by a count that every commit of this process raises, and by `PRAGMA data_version`, which
//! tells that another process committed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::data_version::DataVersion;

/// How often other processes' changes are looked for.
const POLL: Duration = Duration::from_millis(5);

/// The openings of this process, by file.
static OPENINGS: LazyLock<Mutex<HashMap<PathBuf, Vec<Weak<Changes>>>>> = LazyLock::new(Mutex::default);

/// What one opening knows of changes.
pub struct Changes {
    path: PathBuf,
    /// Counts them.
    count: watch::Sender<u64>,
    /// Of these somebody who waited was told: what happens between two waits ends the second one at once.
    told: Mutex<u64>,
    /// Looks at the file; one of those who wait does it. `None` when closed.
    poll: Mutex<Option<Poll>>,
}

struct Poll {
    file: DataVersion,
    version: Option<i64>,
}

impl Changes {
    pub fn new(path: &Path) -> Result<Arc<Changes>, sqlx::Error> {
        let mut file = DataVersion::open(path)?;
        let version = file.get();
        let poll = Mutex::new(Some(Poll { file, version }));
        let changes = Arc::new(Changes { path: path.to_owned(), count: watch::Sender::new(0), told: Mutex::new(0), poll });
        OPENINGS.lock().entry(path.to_owned()).or_default().push(Arc::downgrade(&changes));
        Ok(changes)
    }

    /// Something was committed by this opening: all of this process hear of it.
    pub fn tell(&self) {
        if let Some(openings) = OPENINGS.lock().get(&self.path) {
            for changes in openings.iter().filter_map(Weak::upgrade) {
                changes.count.send_modify(|count| *count += 1);
            }
        }
    }

    /// Waits for the next change, or for `limit`.
    pub async fn wait(&self, limit: Duration) {
        // A wait without end is one of a day.
        let end = Instant::now() + limit.min(Duration::from_secs(86_400));
        let mut count = self.count.subscribe();
        let told = *self.told.lock();
        loop {
            let now = *count.borrow_and_update();
            if now != told {
                *self.told.lock() = now;
                return;
            }
            let next = Instant::now() + POLL;
            tokio::select! {
                _ = count.changed() => {}
                () = tokio::time::sleep_until(next.min(end)) => {
                    self.look();
                    if Instant::now() >= end && *count.borrow() == told {
                        return;
                    }
                }
            }
        }
    }

    /// Looks whether another connection committed.
    fn look(&self) {
        let mut poll = self.poll.lock();
        let Some(Poll { file, version }) = &mut *poll else { return };
        // A failure is told by the calls that need an answer.
        let found = file.get();
        if found.is_some() && found != *version {
            *version = found;
            self.count.send_modify(|count| *count += 1);
        }
    }

    /// Ends looking, and all waits.
    pub fn close(&self) {
        drop(self.poll.lock().take());
        self.count.send_modify(|count| *count += 1);
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        let mut all = OPENINGS.lock();
        if let Some(openings) = all.get_mut(&self.path) {
            openings.retain(|changes| changes.strong_count() > 0);
            if openings.is_empty() {
                all.remove(&self.path);
            }
        }
    }
}
