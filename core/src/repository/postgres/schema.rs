//! Tables and indexes, and how they come to be. What each is for: `docs/schema.md`.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};

use super::Names;
use crate::job::{Error, ErrorCode};
use crate::repository::sql::connections::Failed;

/// What leads to version 1, 2, ...; only ever appended to.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];

/// Every table with the columns that statements name: a database where one is missing is not ours.
const COLUMNS: &[(&str, &str)] = &[
    ("counters", "name value"),
    ("owners", "id place lease_ends renewed_at"),
    ("jobs", "key id place version state kind owner standing hold claimable head"),
    ("texts", "job_key name body"),
    ("chunks", "job_key idx body"),
    ("logs", "job_key idx attempt stream body"),
    ("requests", "number job_key body"),
    ("events", "first job_key job lengths bodies"),
];

/// Four times as fast as the default, where the server has it (14 or newer, built with lz4).
const COMPRESS: &str = "
    ALTER TABLE @events ALTER COLUMN bodies SET COMPRESSION lz4;
    ALTER TABLE @texts ALTER COLUMN body SET COMPRESSION lz4;
    ALTER TABLE @logs ALTER COLUMN body SET COMPRESSION lz4";

const TABLES: &str = "
    SELECT c.table_name::text, c.column_name::text FROM information_schema.columns c
    WHERE c.table_schema = $1 AND c.table_name LIKE 'framewright\\_%'";

/// Brings the schema to the version that this code knows. Any number of processes may race here.
pub async fn migrate(connection: &mut PgConnection, names: &Names) -> Result<(), Failed> {
    if version(connection, names).await? == Some(MIGRATIONS.len() as i64) {
        return verify(connection, names).await;
    }
    // The lock goes with the transaction, whatever becomes of this process; whoever comes second finds the work done.
    sqlx::raw_sql("BEGIN ISOLATION LEVEL READ COMMITTED").execute(&mut *connection).await?;
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))").bind(format!("framewright {}", names.schema)).execute(&mut *connection).await?;
    let found = version(connection, names).await?;
    if found.is_none() {
        // Not CREATE SCHEMA IF NOT EXISTS: that asks for a permission even where there is nothing to do.
        let there: bool =
            sqlx::query("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)").bind(&names.schema).fetch_one(&mut *connection).await?.try_get(0)?;
        if !there {
            sqlx::raw_sql(AssertSqlSafe(format!("CREATE SCHEMA {}", names.quoted))).execute(&mut *connection).await?;
        }
        let others = sqlx::query(TABLES).bind(&names.schema).fetch_optional(&mut *connection).await?;
        if let Some(other) = others {
            return Err(foreign(names, &format!("there is a table {}, and no framewright_schema", other.try_get::<String, _>(0)?)));
        }
    }
    for migration in &MIGRATIONS[found.unwrap_or(0) as usize..] {
        sqlx::raw_sql(AssertSqlSafe(names.put_into(migration))).execute(&mut *connection).await?;
    }
    sqlx::raw_sql("SAVEPOINT compression").execute(&mut *connection).await?;
    if sqlx::raw_sql(names.sql(COMPRESS)).execute(&mut *connection).await.is_err() {
        sqlx::raw_sql("ROLLBACK TO SAVEPOINT compression").execute(&mut *connection).await?;
    }
    sqlx::query(names.sql("UPDATE @schema SET version = $1")).bind(MIGRATIONS.len() as i64).execute(&mut *connection).await?;
    sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
    verify(connection, names).await
}

/// The version of the schema; `None`: there is no schema of ours.
async fn version(connection: &mut PgConnection, names: &Names) -> Result<Option<i64>, Failed> {
    let columns =
        sqlx::query("SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_schema = $1 AND table_name = 'framewright_schema'")
            .bind(&names.schema)
            .fetch_all(&mut *connection)
            .await?;
    if columns.is_empty() {
        return Ok(None);
    }
    let ours = columns.iter().any(|column| {
        column.try_get::<&str, _>(0).is_ok_and(|name| name == "version") && column.try_get::<&str, _>(1).is_ok_and(|kind| kind == "bigint" || kind == "integer")
    });
    if !ours {
        return Err(foreign(names, "framewright_schema has no version"));
    }
    let rows: Vec<PgRow> = sqlx::query(names.sql("SELECT version::bigint FROM @schema LIMIT 2")).fetch_all(&mut *connection).await?;
    let version: i64 = match &rows[..] {
        [row] => row.try_get(0)?,
        _ => return Err(foreign(names, "framewright_schema does not hold one version")),
    };
    if version > MIGRATIONS.len() as i64 {
        let text = format!(
            "The schema {} is of version {version}; this framewright knows versions up to {}. Install the framewright that wrote it, or a newer one",
            names.quoted,
            MIGRATIONS.len()
        );
        return Err(Error::new(ErrorCode::StoreUnavailable, text).into());
    }
    if version < 0 {
        return Err(foreign(names, &format!("framewright_schema says version {version}")));
    }
    Ok(Some(version))
}

/// Whether the tables are those that the version stands for.
async fn verify(connection: &mut PgConnection, names: &Names) -> Result<(), Failed> {
    let rows = sqlx::query(TABLES).bind(&names.schema).fetch_all(&mut *connection).await?;
    let found: Vec<(&str, &str)> = rows.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect();
    for (table, columns) in COLUMNS {
        for column in columns.split(' ') {
            if !found.iter().any(|(t, c)| t.strip_prefix("framewright_") == Some(table) && *c == column) {
                return Err(foreign(names, &format!("framewright_{table} has no column {column}")));
            }
        }
    }
    Ok(())
}

fn foreign(names: &Names, what: &str) -> Failed {
    let text = format!("The schema {} is not framewright's, or is damaged: {what}. Name another schema, or restore this one", names.quoted);
    Error::new(ErrorCode::StoreCorrupt, text).into()
}
