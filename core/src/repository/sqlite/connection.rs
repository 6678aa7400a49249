//! Connections: how each is set up, and the one that writes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::Instant;

use std::sync::Arc;

use super::failure::{disk_failure, failure, is_busy, is_disk, silent, spoils_connection};
use super::presence::{PATIENCE, Turn, beside};
use super::schema::pragma;
use crate::job::{Error, ErrorCode};

/// How far a commit goes before it is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// Onto the disk: survives power loss.
    #[default]
    Full,
    /// Into the file: survives the death of the process; power loss may take the last commits, and damages nothing.
    Normal,
}

/// SQLite before 3.51.3 may lose transactions when a WAL is started again during a checkpoint.
const OLDEST_SQLITE: i32 = 3_051_003;

/// Pages of the WAL (16 MiB) after which a commit brings them into the database.
const CHECKPOINT_PAGES: &str = "4096";
/// Bytes that the WAL may keep when it was brought in.
const WAL_KEPT: u64 = 64 * 1024 * 1024;
/// How often at most a WAL that is larger is cut.
const CUT_EVERY: Duration = Duration::from_secs(2);

/// The version of the linked SQLite, 3051003 for 3.51.3.
pub fn linked_version() -> i32 {
    // SAFETY: reads a constant.
    unsafe { libsqlite3_sys::sqlite3_libversion_number() }
}

/// Refuses a SQLite that loses data.
pub fn check_version(version: i32) -> Result<(), Error> {
    if version >= OLDEST_SQLITE {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::StoreUnavailable,
        format!(
            "SQLite {}.{}.{} is linked, 3.51.3 or newer is needed: use the SQLite that framewright brings",
            version / 1_000_000,
            version / 1000 % 1000,
            version % 1000
        ),
    ))
}

/// What all connections have in common. Says nothing about the journal: that would change a file that is not ours.
pub fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .pragma("journal_size_limit", WAL_KEPT.to_string())
        .pragma("cell_size_check", "ON")
        .pragma("trusted_schema", "OFF")
        .pragma("temp_store", "MEMORY")
        .busy_timeout(PATIENCE)
        .disable_statement_logging()
}

/// Each connection is asked, for a build of SQLite without foreign keys would say nothing.
async fn check_foreign_keys(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    match pragma::<i64>(connection, "PRAGMA foreign_keys").await? {
        1 => Ok(()),
        _ => Err(sqlx::Error::Protocol("foreign keys are not enforced".into())),
    }
}

/// Connections that only read. In WAL mode they never wait for the writer, nor it for them.
pub async fn readers(path: &Path) -> Result<SqlitePool, Error> {
    SqlitePoolOptions::new()
        .max_connections(3)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect(|connection, _| Box::pin(check_foreign_keys(connection)))
        .connect_with(options(path).pragma("query_only", "ON"))
        .await
        .map_err(|error| failure(path, &error))
}

/// The connection that writes. There is one in each opening.
pub struct Writer {
    path: PathBuf,
    wal: PathBuf,
    options: SqliteConnectOptions,
    /// Opened again when an error spoiled it.
    connection: Option<SqliteConnection>,
    turn: Turn,
    cut: Instant,
}

/// SQLite's own waiting for a lock is short: its pauses grow to 100 ms. [`Transaction::begin`] looks more often.
const BUSY_TIMEOUT: Duration = Duration::from_millis(3);

impl Writer {
    pub fn new(path: &Path, synchronous: Synchronous) -> Result<Writer, Error> {
        let synchronous = match synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Normal => SqliteSynchronous::Normal,
        };
        // A large cache: a group of a thousand jobs touches pages all over the file.
        let options = options(path).synchronous(synchronous).busy_timeout(BUSY_TIMEOUT).pragma("cache_size", "-32768");
        Ok(Writer { path: path.to_owned(), wal: beside(path, "-wal"), options, connection: None, turn: Turn::new(path)?, cut: Instant::now() })
    }

    /// The connection, opened again if need be.
    pub async fn connection(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        if self.connection.is_none() {
            let mut connection = self.options.connect().await?;
            check_foreign_keys(&mut connection).await?;
            self.connection = Some(connection);
        }
        Ok(self.connection.as_mut().expect("was just set"))
    }

    /// The number of the system behind the last error.
    async fn system_error(&mut self) -> i32 {
        let Some(connection) = &mut self.connection else { return 0 };
        match connection.lock_handle().await {
            // SAFETY: the lock keeps the connection alive and out of other hands.
            Ok(mut handle) => unsafe { libsqlite3_sys::sqlite3_system_errno(handle.as_raw_handle().as_ptr()) },
            Err(_) => 0,
        }
    }

    /// Gives up a connection that may not be used any more.
    async fn discard(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = connection.close_hard().await;
        }
    }

    /// Cuts a WAL that grew because somebody was reading for long. Not when readers are in the way; then later.
    async fn bound_wal(&mut self) {
        if self.cut.elapsed() < CUT_EVERY {
            return;
        }
        self.cut = Instant::now();
        if std::fs::metadata(&self.wal).is_ok_and(|wal| wal.len() > WAL_KEPT)
            && let Some(connection) = &mut self.connection
        {
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(connection).await;
        }
    }

    /// Brings everything into the database and closes.
    pub async fn close(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let _ = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
            let _ = connection.close().await;
        }
    }
}

/// A transaction that writes, and has the lock of the file. Dropped before its end it is rolled back, so that a call that
/// is given up does not keep the lock.
pub struct Transaction {
    writer: Option<OwnedMutexGuard<Writer>>,
    open: bool,
}

impl Transaction {
    /// Waits for the lock, 30 s at most.
    pub async fn begin(writer: &Arc<Mutex<Writer>>, path: &Path) -> Result<Transaction, Error> {
        let end = Instant::now() + PATIENCE;
        let writer = tokio::time::timeout_at(end, writer.clone().lock_owned()).await.map_err(|_| silent(path))?;
        writer.turn.enter(end).await?;
        // Before the first await: whatever happens, the turn is left.
        let mut transaction = Transaction { writer: Some(writer), open: true };
        let mut pause = Duration::from_millis(1);
        let result = loop {
            let Some(writer) = &mut transaction.writer else { unreachable!("the guard is taken by the end only") };
            let result = match writer.connection().await {
                Ok(connection) => sqlx::raw_sql("BEGIN IMMEDIATE").execute(connection).await,
                Err(error) => Err(error),
            };
            match result {
                Err(error) if is_busy(&error) && Instant::now() < end => tokio::time::sleep(pause).await,
                result => break result,
            }
            pause = (pause * 2).min(Duration::from_millis(4));
        };
        match result {
            Ok(_) => {
                transaction.writer().turn.leave();
                Ok(transaction)
            }
            Err(error) => transaction.roll_back(error).await,
        }
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("the guard is taken by the end only")
    }

    /// The connection to write with.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.writer().connection.as_mut().expect("a transaction is open on it")
    }

    /// Commits what succeeded, rolls back what did not.
    pub async fn end<T>(mut self, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        let result = match result {
            Ok(value) => sqlx::raw_sql("COMMIT").execute(self.connection()).await.map(|_| value),
            Err(error) => Err(error),
        };
        match result {
            Ok(value) => {
                self.open = false;
                self.writer().bound_wal().await;
                Ok(value)
            }
            Err(error) => self.roll_back(error).await,
        }
    }

    async fn roll_back<T>(mut self, error: sqlx::Error) -> Result<T, Error> {
        let failure = if is_disk(&error) {
            let number = self.writer().system_error().await;
            disk_failure(&self.writer().path, &error, number)
        } else {
            failure(&self.writer().path, &error)
        };
        if spoils_connection(&error) {
            self.writer().discard().await;
        }
        self.writer().undo().await;
        self.open = false;
        Err(failure)
    }
}

impl Writer {
    /// Rolls back what is open. SQLite may have done so by itself.
    async fn undo(&mut self) {
        self.turn.leave();
        let Some(connection) = &mut self.connection else { return };
        match sqlx::raw_sql("ROLLBACK").execute(connection).await {
            Err(error) if !error.to_string().contains("no transaction is active") => self.discard().await,
            _ => {}
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let Some(mut writer) = self.writer.take() else { return };
        if !self.open {
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move { writer.undo().await })),
            // The runtime is gone, and with it the connection's owner: closing rolls back.
            Err(_) => {
                writer.turn.leave();
                writer.connection = None;
            }
        }
    }
}
