//! The tables, and how a file becomes a database of ours. `docs/schema.md` says why they are as they are.

use std::path::Path;

use sqlx::{Row, SqliteConnection};

use super::failure::failure;
use crate::job::{Error, ErrorCode};

/// `PRAGMA application_id`: "FRMW".
pub const APPLICATION: i32 = 0x4652_4d57;

/// `PRAGMA user_version` of databases that this program writes.
pub const VERSION: i32 = 1;

/// What makes version n of version n - 1, from 1.
pub const MIGRATIONS: [&str; VERSION as usize] = [r"
-- Counters of the store, and whether its last user closed it. One row.
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    sequence INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    places INTEGER NOT NULL,
    clean INTEGER NOT NULL
) STRICT;
INSERT INTO store VALUES (1, 0, 0, 0, 1);

-- What every commit rewrites is small and here; what is large has tables of its own.
CREATE TABLE job (
    place INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    typed INTEGER NOT NULL,
    kind TEXT NOT NULL,
    standing INTEGER NOT NULL,
    owner TEXT NOT NULL,
    hold INTEGER NOT NULL,
    head TEXT NOT NULL
) STRICT;
-- Listings of one state, in order of arrival.
CREATE INDEX job_by_state ON job (state, place);
-- Claims: jobs that end leave it, so that it is as large as the work that is left.
CREATE INDEX job_to_claim ON job (standing, owner, typed, kind, place) WHERE state IN ('pending', 'running') AND hold = 0 AND standing <> 3;

CREATE TABLE spec (place INTEGER PRIMARY KEY REFERENCES job ON DELETE CASCADE, body TEXT NOT NULL) STRICT;
CREATE TABLE options (place INTEGER PRIMARY KEY REFERENCES job ON DELETE CASCADE, body TEXT NOT NULL) STRICT;
CREATE TABLE extras (place INTEGER PRIMARY KEY REFERENCES job ON DELETE CASCADE, body TEXT NOT NULL) STRICT;

CREATE TABLE chunk (
    place INTEGER NOT NULL REFERENCES job ON DELETE CASCADE,
    position INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (place, position)
) STRICT, WITHOUT ROWID;

-- With row ids: large rows don't belong into the inner pages of a tree.
CREATE TABLE log (
    place INTEGER NOT NULL REFERENCES job ON DELETE CASCADE,
    position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    stream INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (place, position, attempt, stream)
) STRICT;

CREATE TABLE request (number INTEGER PRIMARY KEY, place INTEGER NOT NULL REFERENCES job ON DELETE CASCADE, body TEXT NOT NULL) STRICT;
CREATE INDEX request_by_job ON request (place);

-- The events of one write: `count` of them from number `first` on. They outlive the job when they tell of its end.
CREATE TABLE event (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, job TEXT NOT NULL, bodies BLOB NOT NULL) STRICT;
CREATE INDEX event_by_job ON event (job);

-- Leases end by the clock of the host since its start `boot`, in milliseconds.
CREATE TABLE owner (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    renewed_at REAL NOT NULL,
    boot TEXT NOT NULL,
    lease_end INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"];

/// What a file is.
#[derive(Debug, PartialEq, Eq)]
pub enum Identity {
    /// New.
    Empty,
    /// Ours, of this version.
    Ours(i32),
}

/// Looks at a file without changing it; refuses what is not ours.
pub async fn identify(path: &Path, connection: &mut SqliteConnection) -> Result<Identity, Error> {
    let failed = |error| failure(path, &error);
    let application: i32 = pragma(connection, "PRAGMA application_id").await.map_err(failed)?;
    let version: i32 = pragma(connection, "PRAGMA user_version").await.map_err(failed)?;
    let tables: i64 = pragma(connection, "SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    match application {
        APPLICATION if version > VERSION => Err(Error::new(
            ErrorCode::StoreUnavailable,
            format!("The SQLite database {} has schema version {version}, this framewright knows {VERSION}. Use a newer framewright", path.display()),
        )),
        APPLICATION => Ok(Identity::Ours(version)),
        0 if version == 0 && tables == 0 => Ok(Identity::Empty),
        _ => Err(Error::new(ErrorCode::StoreCorrupt, format!("{} is a database of something else, it was left as it is. Name another file", path.display()))),
    }
}

/// Brings a database to [`VERSION`], within the transaction that is open: of several processes that come at once one
/// migrates, and the others find it done.
pub async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), Error> {
    let failed = |error| failure(path, &error);
    let from = match identify(path, connection).await? {
        Identity::Ours(VERSION) => return Ok(()),
        Identity::Ours(version) => version.max(0),
        Identity::Empty => 0,
    };
    for step in &MIGRATIONS[from as usize..] {
        sqlx::raw_sql(*step).execute(&mut *connection).await.map_err(failed)?;
    }
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION}")))
        .execute(&mut *connection)
        .await
        .map_err(failed)?;
    Ok(())
}

/// The one value that a statement gives.
pub async fn pragma<T>(connection: &mut SqliteConnection, statement: &'static str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    sqlx::query(statement).fetch_one(connection).await?.try_get(0)
}
