//! `PRAGMA data_version` on a connection of its own, without the thread that other connections have: asked 200 times a second,
//! two changes of thread would cost more than the question.

use std::ffi::CString;
use std::path::Path;
use std::ptr::{self, NonNull};

use libsqlite3_sys as ffi;

/// A connection, and the statement that it is there for.
pub struct DataVersion {
    connection: NonNull<ffi::sqlite3>,
    statement: NonNull<ffi::sqlite3_stmt>,
}

// SAFETY: SQLite is compiled to be used from any thread; a connection without a mutex by one at a time, which `&mut` sees to.
unsafe impl Send for DataVersion {}

impl DataVersion {
    /// Opens a database that is there, for reading.
    pub fn open(path: &Path) -> Result<DataVersion, sqlx::Error> {
        let refused = |code: i32| sqlx::Error::Protocol(format!("no connection that looks for changes: SQLite code {code}"));
        let name = CString::new(path.to_str().unwrap_or_default()).map_err(|_| refused(ffi::SQLITE_CANTOPEN))?;
        let mut connection = ptr::null_mut();
        let mut statement = ptr::null_mut();
        // SAFETY: texts end with NUL and outlive the calls; the connection is closed on each way out, also when opening failed.
        unsafe {
            let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_NOMUTEX | ffi::SQLITE_OPEN_PRIVATECACHE;
            let mut code = ffi::sqlite3_open_v2(name.as_ptr(), &mut connection, flags, ptr::null());
            if code == ffi::SQLITE_OK {
                code = ffi::sqlite3_prepare_v2(connection, c"PRAGMA data_version".as_ptr(), -1, &mut statement, ptr::null_mut());
            }
            match (NonNull::new(connection), NonNull::new(statement)) {
                (Some(connection), Some(statement)) if code == ffi::SQLITE_OK => Ok(DataVersion { connection, statement }),
                _ => {
                    ffi::sqlite3_close(connection);
                    Err(refused(code))
                }
            }
        }
    }

    /// A number that differs after each commit of another connection; `None` when it can't be told now. Never waits.
    pub fn get(&mut self) -> Option<i64> {
        // SAFETY: both are valid until this is dropped; a row is read only when there is one.
        unsafe {
            let row = ffi::sqlite3_step(self.statement.as_ptr()) == ffi::SQLITE_ROW;
            let version = row.then(|| ffi::sqlite3_column_int64(self.statement.as_ptr(), 0));
            // Ends the read.
            ffi::sqlite3_reset(self.statement.as_ptr());
            version
        }
    }
}

impl Drop for DataVersion {
    fn drop(&mut self) {
        // SAFETY: the statement before its connection, each once.
        unsafe {
            ffi::sqlite3_finalize(self.statement.as_ptr());
            ffi::sqlite3_close(self.connection.as_ptr());
        }
    }
}
