//! What SQLite refuses, as errors of ours: which code, and what is to be done.

use std::path::Path;

use crate::job::{Error, ErrorCode};

/// Primary result codes (<https://www.sqlite.org/rescode.html>).
const ERROR: i32 = 1;
const PERM: i32 = 3;
const BUSY: i32 = 5;
const LOCKED: i32 = 6;
const READONLY: i32 = 8;
const INTERRUPT: i32 = 9;
const IOERR: i32 = 10;
const CORRUPT: i32 = 11;
const FULL: i32 = 13;
const CANTOPEN: i32 = 14;
const PROTOCOL: i32 = 15;
const TOOBIG: i32 = 18;
const CONSTRAINT: i32 = 19;
const MISMATCH: i32 = 20;
const NOTADB: i32 = 26;
/// The shared memory of the WAL could not be made larger: in practice a full disk.
const IOERR_SHMSIZE: i32 = 4874;

/// The extended result code, when SQLite itself refused.
fn code(error: &sqlx::Error) -> Option<i32> {
    match error {
        sqlx::Error::Database(error) => error.code()?.parse().ok(),
        _ => None,
    }
}

fn primary(error: &sqlx::Error) -> Option<i32> {
    code(error).map(|code| code & 0xff)
}

/// Somebody else has the lock; worth trying again.
pub fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary(error), Some(BUSY | LOCKED | PROTOCOL))
}

/// Stopped by us.
pub fn is_interrupted(error: &sqlx::Error) -> bool {
    primary(error) == Some(INTERRUPT)
}

/// Whether the connection may be used after it: its cache could hold what the file does not.
pub fn spoils_connection(error: &sqlx::Error) -> bool {
    !matches!(primary(error), Some(BUSY | LOCKED | PROTOCOL | FULL | TOOBIG | READONLY))
}

/// Whether the disk failed; the reason is in the number that the system gave.
pub fn is_disk(error: &sqlx::Error) -> bool {
    primary(error) == Some(IOERR)
}

/// A disk that failed with this number of the system: quotas and limits of file sizes are a lack of room to us.
pub fn disk_failure(path: &Path, error: &sqlx::Error, number: i32) -> Error {
    #[cfg(unix)]
    if [libc::ENOSPC, libc::EDQUOT, libc::EFBIG].contains(&number) {
        let reason = std::io::Error::from_raw_os_error(number);
        return full(path, &format!("{error}: {reason}"));
    }
    let mut failure = failure(path, error);
    if number != 0 && failure.code == ErrorCode::StoreUnavailable {
        failure.message = format!("{} ({})", failure.message, std::io::Error::from_raw_os_error(number));
    }
    failure
}

fn full(path: &Path, said: &str) -> Error {
    let path = path.display();
    Error::new(
        ErrorCode::StoreFull,
        format!("There is no room for the SQLite database {path}: {said}. Make room on its disk; the store goes on by itself then"),
    )
}

/// The error that users see.
pub fn failure(path: &Path, error: &sqlx::Error) -> Error {
    let file = path;
    let path = path.display();
    let said = match error {
        sqlx::Error::Database(error) => error.to_string(),
        other => other.to_string(),
    };
    let (code, message) = match error {
        sqlx::Error::Database(_) => match (code(error).unwrap_or(0), primary(error).unwrap_or(0)) {
            (_, FULL) | (IOERR_SHMSIZE, _) => return full(file, &said),
            (_, TOOBIG) => (ErrorCode::StoreFull, format!("The SQLite database {path} can't keep a text of more than 1 GB: {said}")),
            (_, CORRUPT) => (
                ErrorCode::StoreCorrupt,
                format!("The SQLite database {path} is damaged: {said}. Restore a backup, or save what is readable with `sqlite3 {path} .recover`"),
            ),
            (_, NOTADB) => (ErrorCode::StoreCorrupt, format!("{path} is not a SQLite database: {said}. Name another file")),
            (_, READONLY | PERM) => {
                (ErrorCode::StoreUnavailable, format!("The SQLite database {path} can't be written: {said}. Allow writing to the file and to its folder"))
            }
            (_, CANTOPEN) => (
                ErrorCode::StoreUnavailable,
                format!("The SQLite database {path} can't be opened: {said}. Check that its folder exists and that writing is allowed"),
            ),
            (_, BUSY | LOCKED | PROTOCOL) => (ErrorCode::StoreUnavailable, busy(&path.to_string(), &said)),
            (_, IOERR) => (ErrorCode::StoreUnavailable, format!("The disk of the SQLite database {path} fails: {said}. Check the disk and its quota")),
            // Statements are fixed: tables, or what is in them, were changed by somebody else.
            (_, ERROR | CONSTRAINT | MISMATCH) => {
                (ErrorCode::StoreCorrupt, format!("The SQLite database {path} is not as framewright made it: {said}. Restore a backup"))
            }
            _ => (ErrorCode::StoreUnavailable, format!("The SQLite database {path} refuses: {said}")),
        },
        sqlx::Error::PoolClosed => return closed(),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) | sqlx::Error::RowNotFound => {
            (ErrorCode::StoreCorrupt, format!("The SQLite database {path} holds something unexpected: {said}"))
        }
        _ => (ErrorCode::StoreUnavailable, format!("The SQLite database {path} does not answer: {said}")),
    };
    Error::new(code, message)
}

fn busy(path: &str, said: &str) -> String {
    format!("The SQLite database {path} is held by another process: {said}. Look for a process that keeps a transaction open")
}

/// Nothing came for 30 s.
pub fn silent(path: &Path) -> Error {
    Error::new(
        ErrorCode::StoreUnavailable,
        format!("The SQLite database {} did not answer for 30 s: another process holds it, or its disk hangs", path.display()),
    )
}

/// After `close`.
pub fn closed() -> Error {
    Error::new(ErrorCode::StoreUnavailable, "The repository is closed")
}
