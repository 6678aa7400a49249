//! Tables and indexes, and how they come to be. What each is for: `docs/schema.md`.

use sqlx::Row;
use sqlx::mysql::MySqlConnection;

use crate::job::{Error, ErrorCode};
use crate::repository::sql::connections::Failed;

/// What leads to version 1, 2, ...; only ever appended to.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// Every table with the columns that statements name: a database where one is missing is not ours.
const COLUMNS: &[(&str, &str)] = &[
    ("counters", "name value"),
    ("owners", "id place lease_ends renewed_at"),
    ("jobs", "job_key id place version state standing claimable hold owner kind head"),
    ("texts", "job_key name part parts body"),
    ("chunks", "job_key idx part parts body"),
    ("logs", "job_key idx attempt stream part parts body"),
    ("requests", "number part job_key body"),
    ("events", "first part job_key job lengths bodies"),
];

const TABLES: &str = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name LIKE 'framewright\\_%'";

/// One migration at a time; the lock goes with the connection, whatever becomes of this process.
const LOCK: &str = "SELECT GET_LOCK(CONCAT('framewright ', MD5(DATABASE())), 20)";

const UNLOCK: &str = "SELECT RELEASE_LOCK(CONCAT('framewright ', MD5(DATABASE())))";

/// Brings the schema to the version that this code knows. Any number of processes may race here.
pub async fn migrate(connection: &mut MySqlConnection) -> Result<(), Failed> {
    if version(connection).await? != Some(MIGRATIONS.len() as i64) {
        let locked: Option<i64> = sqlx::query(LOCK).fetch_one(&mut *connection).await?.try_get_unchecked(0)?;
        if locked != Some(1) {
            let text = "Another process has been changing the schema for 20 s. Try again, or look for what holds its lock";
            return Err(Error::new(ErrorCode::StoreUnavailable, text).into());
        }
        let done = migrate_alone(connection).await;
        let _ = sqlx::query(UNLOCK).execute(&mut *connection).await;
        done?;
    }
    verify(connection).await
}

async fn migrate_alone(connection: &mut MySqlConnection) -> Result<(), Failed> {
    // Whoever comes second finds the work done.
    let found = version(connection).await?;
    for migration in &MIGRATIONS[found.unwrap_or(0) as usize..] {
        sqlx::raw_sql(*migration).execute(&mut *connection).await?;
    }
    let latest = MIGRATIONS.len() as i64;
    sqlx::query("INSERT INTO framewright_schema SELECT ? FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM framewright_schema)")
        .bind(latest)
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE framewright_schema SET version = ?").bind(latest).execute(&mut *connection).await?;
    Ok(())
}

/// The version of the schema; `None`: there is none of ours. 0: a migration ended before its last step.
async fn version(connection: &mut MySqlConnection) -> Result<Option<i64>, Failed> {
    let columns =
        sqlx::query("SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'framewright_schema'")
            .fetch_all(&mut *connection)
            .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let is =
        |column: &sqlx::mysql::MySqlRow, at, is: &[&str]| column.try_get_unchecked::<String, _>(at).is_ok_and(|found| is.contains(&&*found.to_lowercase()));
    if !columns.iter().any(|column| is(column, 0, &["version"]) && is(column, 1, &["bigint", "int"])) {
        return Err(foreign("framewright_schema has no version"));
    }
    let rows = sqlx::query("SELECT CAST(version AS SIGNED) FROM framewright_schema LIMIT 2").fetch_all(&mut *connection).await?;
    let version: i64 = match &rows[..] {
        [] => 0,
        [row] => row.try_get_unchecked(0)?,
        _ => return Err(foreign("framewright_schema does not hold one version")),
    };
    if version > MIGRATIONS.len() as i64 {
        let text = format!(
            "The database's schema is of version {version}; this framewright knows versions up to {}. Install the framewright that wrote it, or a newer one",
            MIGRATIONS.len()
        );
        return Err(Error::new(ErrorCode::StoreUnavailable, text).into());
    }
    if version < 0 {
        return Err(foreign(&format!("framewright_schema says version {version}")));
    }
    Ok(Some(version))
}

/// Whether the tables are those that the version stands for.
async fn verify(connection: &mut MySqlConnection) -> Result<(), Failed> {
    let rows = sqlx::query(TABLES).fetch_all(&mut *connection).await?;
    let found: Vec<(&str, &str)> = rows.iter().filter_map(|row| Some((row.try_get_unchecked(0).ok()?, row.try_get_unchecked(1).ok()?))).collect();
    for (table, columns) in COLUMNS {
        for column in columns.split(' ') {
            if !found.iter().any(|(t, c)| t.strip_prefix("framewright_") == Some(table) && *c == column) {
                return Err(foreign(&format!("framewright_{table} has no column {column}")));
            }
        }
    }
    Ok(())
}

fn foreign(what: &str) -> Failed {
    let text = format!("The database's tables are not framewright's, or are damaged: {what}. Name another database, or restore this one");
    Error::new(ErrorCode::StoreCorrupt, text).into()
}
