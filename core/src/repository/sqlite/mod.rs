//! A durable store in one SQLite file, for any number of processes of one host.
//!
//! - [`schema`]: the tables, and what a file must be to be ours. `docs/schema.md` tells more.
//! - [`connection`]: how connections are set up, and the one that writes; [`presence`]: who else has the file open, and whose
//!   turn it is to write.
//! - [`check`]: whether a file that nobody closed is damaged.
//! - [`write`] commits groups, by [`rows`]; [`claim`] hands out orphans; [`read`] gives jobs, events and logs.
//! - [`change`]: how changes of others are seen, by [`data_version`]. [`clock`]: the time that leases end by.
//! - [`failure`]: SQLite's codes as errors of ours. [`file_system`]: where a database must not be.

mod change;
mod check;
mod claim;
mod clock;
mod connection;
mod data_version;
mod failure;
mod file_system;
#[cfg(test)]
mod plan;
mod presence;
mod read;
mod rows;
mod schema;
mod standing;
mod write;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::Mutex;

use self::change::Changes;
use self::check::{CHECK_WITHIN, check};
use self::clock::Clock;
pub use self::connection::{Synchronous, linked_version};
use self::connection::{Transaction, Writer};
use self::failure::{closed, failure, is_busy, silent};
use self::presence::{PATIENCE, Presence};
use self::schema::{Identity, pragma};
use super::durable::{Claim, Claimed, DurableRepository, Listing, LogStream, Mark, Outcome, OwnerRow, Stored, StoredEvent, Write};
use crate::job::{Error, ErrorCode, JobState};

/// Text as it is stored: what is not UTF-8 must not fail a whole page.
fn text(row: &SqliteRow, column: usize) -> Result<&[u8], sqlx::Error> {
    row.try_get_unchecked(column)
}

/// A SQLite database as a repository.
pub struct SqliteRepository {
    path: PathBuf,
    writer: Arc<Mutex<Writer>>,
    readers: SqlitePool,
    changes: Arc<Changes>,
    clock: Clock,
    /// `None` when closed.
    presence: Mutex<Option<Presence>>,
    closed: AtomicBool,
}

/// The file, with its folder and links resolved: one name for all openings of this process.
fn resolve(path: &Path) -> Result<PathBuf, Error> {
    let unavailable = |message| Error::new(ErrorCode::StoreUnavailable, message);
    if path.to_str().is_none() {
        return Err(unavailable(format!("{} is not UTF-8, SQLite can't open it. Name another file", path.display())));
    }
    if path.is_dir() {
        return Err(unavailable(format!("{} is a folder, a file is needed for the SQLite database. Name a file in it", path.display())));
    }
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = path.file_name() else { return Err(unavailable(format!("{} does not name a file", path.display()))) };
    match folder.canonicalize() {
        Ok(folder) if folder.is_dir() => Ok(folder.join(name)),
        Ok(folder) => Err(unavailable(format!("{} is not a folder, the SQLite database {} can't be made in it", folder.display(), path.display()))),
        Err(error) => Err(unavailable(format!("The folder of the SQLite database {} can't be used: {error}. Create the folder", path.display()))),
    }
}

/// Waits 30 s at most.
async fn bounded<T>(path: &Path, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| Err(silent(path)))
}

impl SqliteRepository {
    /// Opens a database, and creates it when there is no such file. Migrates an older schema; checks the whole file when
    /// its last user did not close it.
    ///
    /// # Errors
    ///
    /// STORE_CORRUPT: not a database, a database of something else, or damaged. STORE_UNAVAILABLE: no such folder, no
    /// permission to write, a newer schema, a network file system, held by another process for 30 s.
    pub async fn open(path: PathBuf, synchronous: Synchronous) -> Result<SqliteRepository, Error> {
        connection::check_version(linked_version())?;
        let path = resolve(&path)?;
        file_system::check(path.parent().unwrap_or(&path))?;
        let (presence, alone) = Presence::come(&path).await?;
        prepare(&path, alone).await?;
        if alone {
            presence.settle().await?;
        }
        let writer = Arc::new(Mutex::new(Writer::new(&path, synchronous)?));
        let readers = connection::readers(&path).await?;
        let changes = Changes::new(&path).map_err(|error| failure(&path, &error))?;
        Ok(SqliteRepository { path, writer, readers, changes, clock: Clock::new(), presence: Mutex::new(Some(presence)), closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    async fn begin(&self) -> Result<Transaction, Error> {
        self.check_open()?;
        let transaction = Transaction::begin(&self.writer, &self.path).await?;
        // Closed while it waited: the connection would be opened anew.
        match self.check_open() {
            Ok(()) => Ok(transaction),
            Err(error) => transaction.end::<()>(Err(sqlx::Error::PoolClosed)).await.and(Err(error)),
        }
    }

    async fn end<T>(&self, transaction: Transaction, result: Result<T, sqlx::Error>) -> Result<T, Error> {
        let value = transaction.end(result).await?;
        self.changes.tell();
        Ok(value)
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        failure(&self.path, &error)
    }

    /// A reader, with a snapshot that lasts until it is dropped.
    async fn snapshot(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, Error> {
        self.check_open()?;
        self.readers.begin().await.map_err(|error| self.failed(error))
    }

    async fn reader(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Sqlite>, Error> {
        self.check_open()?;
        self.readers.acquire().await.map_err(|error| self.failed(error))
    }
}

/// Makes a file a database of this version, and checks it when it was left without being closed.
async fn prepare(path: &Path, alone: bool) -> Result<(), Error> {
    let failed = |error| failure(path, &error);
    let options = connection::options(path).create_if_missing(true);
    let mut connection = options.connect().await.map_err(failed)?;
    let identity = schema::identify(path, &mut connection).await?;
    // Before anything is written into what may be damaged.
    if alone && matches!(identity, Identity::Ours(1..)) && pragma::<i64>(&mut connection, "SELECT clean FROM store").await.map_err(failed)? == 0 {
        check(path, &mut connection, CHECK_WITHIN).await?;
    }
    // Does not wait for others by itself.
    let end = tokio::time::Instant::now() + PATIENCE;
    let journal: String = loop {
        match pragma(&mut connection, "PRAGMA journal_mode = WAL").await {
            Err(error) if is_busy(&error) && tokio::time::Instant::now() < end => tokio::time::sleep(Duration::from_millis(5)).await,
            result => break result.map_err(failed)?,
        }
    };
    if journal != "wal" {
        return Err(Error::new(
            ErrorCode::StoreUnavailable,
            format!("The SQLite database {} can't have a WAL, its journal is {journal}. Put it on another disk", path.display()),
        ));
    }
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(failed)?;
    schema::migrate(path, &mut connection).await?;
    sqlx::raw_sql("UPDATE store SET clean = 0 WHERE clean <> 0; COMMIT").execute(&mut connection).await.map_err(failed)?;
    connection.close().await.map_err(failed)
}

#[async_trait]
impl DurableRepository for SqliteRepository {
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        if group.is_empty() {
            return self.check_open().map(|()| Vec::new());
        }
        bounded(&self.path, async {
            let mut transaction = self.begin().await?;
            let result = write::write(transaction.connection(), group).await;
            self.end(transaction, result).await
        })
        .await
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        bounded(&self.path, async {
            let mut snapshot = self.snapshot().await?;
            match read::load(&mut snapshot, id).await.map_err(|error| self.failed(error))? {
                None => Ok(None),
                Some(Ok(stored)) => Ok(Some(stored)),
                Some(Err((id, wrong))) => Err(Error::new(ErrorCode::StoreCorrupt, format!("The record of job \"{id}\" is damaged: {wrong}. Delete the job"))),
            }
        })
        .await
    }

    async fn load_some(&self, ids: &[Arc<str>]) -> Result<Listing, Error> {
        bounded(&self.path, async {
            let mut snapshot = self.snapshot().await?;
            read::load_some(&mut snapshot, ids).await.map_err(|error| self.failed(error))
        })
        .await
    }

    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        bounded(&self.path, async {
            let mut snapshot = self.snapshot().await?;
            read::list(&mut snapshot, states, after, most).await.map_err(|error| self.failed(error))
        })
        .await
    }

    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error> {
        bounded(&self.path, async {
            let mut transaction = self.begin().await?;
            let result = sqlx::query(
                "INSERT INTO owner (id, address, renewed_at, boot, lease_end) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (id) DO UPDATE
                SET address = excluded.address, renewed_at = excluded.renewed_at, boot = excluded.boot, lease_end = excluded.lease_end",
            )
            .bind(owner)
            .bind(place)
            .bind(Clock::wall())
            .bind(&self.clock.boot)
            .bind(self.clock.end(lease))
            .execute(transaction.connection())
            .await;
            self.end(transaction, result).await.map(drop)
        })
        .await
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error> {
        bounded(&self.path, async {
            let mut transaction = self.begin().await?;
            let result = sqlx::query("UPDATE owner SET renewed_at = ?2, boot = ?3, lease_end = ?4 WHERE id = ?1")
                .bind(owner)
                .bind(Clock::wall())
                .bind(&self.clock.boot)
                .bind(self.clock.end(lease))
                .execute(transaction.connection())
                .await;
            self.end(transaction, result).await.map(|done| done.rows_affected() > 0)
        })
        .await
    }

    async fn retire(&self, owner: &str) -> Result<(), Error> {
        bounded(&self.path, async {
            let mut transaction = self.begin().await?;
            let result = sqlx::query("DELETE FROM owner WHERE id = ?1").bind(owner).execute(transaction.connection()).await;
            self.end(transaction, result).await.map(drop)
        })
        .await
    }

    async fn owners(&self) -> Result<Vec<OwnerRow>, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query("SELECT id, address, boot <> ?1 OR lease_end <= ?2 FROM owner ORDER BY id")
                .bind(&self.clock.boot)
                .bind(self.clock.now())
                .fetch_all(&mut *reader)
                .await
                .map_err(|error| self.failed(error))?;
            let owner = |row: &SqliteRow| -> Result<OwnerRow, sqlx::Error> {
                Ok(OwnerRow { id: lossy(text(row, 0)?).into(), place: lossy(text(row, 1)?), expired: row.try_get(2)? })
            };
            rows.iter().map(owner).collect::<Result<_, _>>().map_err(|error| self.failed(error))
        })
        .await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error> {
        bounded(&self.path, async {
            // Mostly there is nothing: then nobody has to wait for a lock.
            let mut snapshot = self.snapshot().await?;
            let any = claim::any(&mut snapshot, &self.clock, claim).await.map_err(|error| self.failed(error))?;
            drop(snapshot);
            if !any {
                return Ok(Vec::new());
            }
            let mut transaction = self.begin().await?;
            let result = claim::take(transaction.connection(), &self.clock, claim).await;
            self.end(transaction, result).await
        })
        .await
    }

    async fn request(&self, id: &str, body: &str) -> Result<bool, Error> {
        bounded(&self.path, async {
            let mut transaction = self.begin().await?;
            let connection = transaction.connection();
            let result = async {
                let inserted = sqlx::query("INSERT INTO request SELECT requests + 1, job.place, ?2 FROM store, job WHERE job.id = ?1")
                    .bind(id)
                    .bind(body)
                    .execute(&mut *connection)
                    .await?;
                if inserted.rows_affected() == 0 {
                    return Ok(false);
                }
                sqlx::query("UPDATE store SET requests = requests + 1").execute(connection).await?;
                Ok(true)
            }
            .await;
            self.end(transaction, result).await
        })
        .await
    }

    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(claim::OWNED).bind(owner).fetch_all(&mut *reader).await.map_err(|error| self.failed(error))?;
            let id = |row: &SqliteRow| -> Result<Arc<str>, sqlx::Error> { Ok(lossy(text(row, 0)?).into()) };
            rows.iter().map(id).collect::<Result<_, _>>().map_err(|error| self.failed(error))
        })
        .await
    }

    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(read::REQUESTS_OF_OWNER).bind(owner).fetch_all(&mut *reader).await.map_err(|error| self.failed(error))?;
            let request = |row: &SqliteRow| -> Result<(Arc<str>, String), sqlx::Error> { Ok((lossy(text(row, 0)?).into(), lossy(text(row, 1)?))) };
            rows.iter().map(request).collect::<Result<_, _>>().map_err(|error| self.failed(error))
        })
        .await
    }

    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        bounded(&self.path, async {
            let mut snapshot = self.snapshot().await?;
            read::events(&mut snapshot, from, most).await.map_err(|error| self.failed(error))
        })
        .await
    }

    async fn oldest_event(&self) -> Result<u64, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let oldest: i64 =
                pragma(&mut reader, "SELECT coalesce((SELECT min(first) FROM event), sequence + 1) FROM store").await.map_err(|error| self.failed(error))?;
            Ok(oldest as u64)
        })
        .await
    }

    async fn mark(&self) -> Result<Mark, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let row = sqlx::query("SELECT sequence, requests FROM store").fetch_one(&mut *reader).await.map_err(|error| self.failed(error))?;
            let number = |column: usize| row.try_get::<i64, _>(column).map(|number| number as u64).map_err(|error| self.failed(error));
            Ok(Mark { sequence: number(0)?, requests: number(1)? })
        })
        .await
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        self.changes.wait(limit).await;
        None
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        bounded(&self.path, async {
            let mut reader = self.reader().await?;
            let row = sqlx::query(
                "SELECT log.body FROM job CROSS JOIN log ON log.place = job.place WHERE job.id = ?1 AND log.position = ?2 AND log.attempt = ?3 AND log.stream = ?4",
            )
            .bind(id)
            .bind(index)
            .bind(attempt)
            .bind(stream as i64)
            .fetch_optional(&mut *reader)
            .await
            .map_err(|error| self.failed(error))?;
            row.map(|row| text(&row, 0).map(lossy)).transpose().map_err(|error| self.failed(error))
        })
        .await
    }

    async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = tokio::time::timeout(PATIENCE, async {
            self.readers.close().await;
            self.changes.close();
            let mut writer = self.writer.lock().await;
            let presence = self.presence.lock().await.take();
            if let Some(presence) = &presence
                && presence.last()
                && let Ok(connection) = writer.connection().await
            {
                // Nobody else writes: no lock is waited for.
                let _ = sqlx::query("UPDATE store SET clean = 1").execute(connection).await;
            }
            writer.close().await;
        })
        .await;
    }
}

/// For texts of no consequence.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
