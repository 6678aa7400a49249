//! Who else has the database open, and whose turn it is to write: two empty files beside it, locked by the kernel, so that a
//! dead process holds nothing.
//!
//! The database file itself is never opened but by SQLite: closing any descriptor of it would drop SQLite's own locks
//! (POSIX locks belong to the process). For the same reason nothing here reads its header.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::failure;
use crate::job::{Error, ErrorCode};

/// How long others are waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The name of a file beside the database.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn open(path: &Path, suffix: &str) -> Result<File, Error> {
    let path = beside(path, suffix);
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(|error| {
        let (code, advice) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => (ErrorCode::StoreFull, "Make room on its disk"),
            _ => (ErrorCode::StoreUnavailable, "Allow writing to the folder of the database"),
        };
        Error::new(code, format!("{} can't be written: {error}. {advice}", path.display()))
    })
}

/// Whether a try to lock succeeded.
fn locked(path: &Path, result: Result<(), TryLockError>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::new(ErrorCode::StoreUnavailable, format!("{} can't be locked: {error}", path.display()))),
    }
}

/// Tells others that the database is open here, as long as this lives.
pub struct Presence {
    file: File,
    path: PathBuf,
}

impl Presence {
    /// Comes to the database; true when nobody else has it open. Others who come wait until [`settle`](Self::settle) then.
    pub async fn come(path: &Path) -> Result<(Presence, bool), Error> {
        let file = open(path, "-open")?;
        let presence = Presence { file, path: path.to_owned() };
        let end = Instant::now() + PATIENCE;
        loop {
            if locked(path, presence.file.try_lock())? {
                return Ok((presence, true));
            }
            if locked(path, presence.file.try_lock_shared())? {
                return Ok((presence, false));
            }
            // Somebody checks the database alone, or leaves as the last one.
            if Instant::now() >= end {
                return Err(failure::silent(path));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets others in.
    pub async fn settle(&self) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        while !locked(&self.path, self.file.try_lock_shared())? {
            // Changing the lock lets go of it for a moment; who comes then thinks to be alone, and will be done soon.
            if Instant::now() >= end {
                return Err(failure::silent(&self.path));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Whether nobody else has the database open any more. Who comes waits until this is dropped; whatever the answer,
    /// this opening does not count any more.
    pub fn last(&self) -> bool {
        self.file.try_lock().is_ok()
    }
}

/// A turnstile before SQLite's lock. SQLite lets those who wait look now and then, and who writes again and again would
/// always be first. Who waits for SQLite's lock stands in the turnstile, so that the writer before can't come back before it.
pub struct Turn {
    file: File,
    path: PathBuf,
}

impl Turn {
    pub fn new(path: &Path) -> Result<Turn, Error> {
        Ok(Turn { file: open(path, "-turn")?, path: path.to_owned() })
    }

    /// Enters the turnstile, at `end` at the latest.
    pub async fn enter(&self, end: Instant) -> Result<(), Error> {
        while !locked(&self.path, self.file.try_lock())? {
            if Instant::now() >= end {
                return Err(failure::silent(&self.path));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Leaves it.
    pub fn leave(&self) {
        let _ = self.file.unlock();
    }
}
