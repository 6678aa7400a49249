//! Whether a file that nobody closed is damaged.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::SqliteConnection;

use super::failure::{failure, is_interrupted};
use super::schema::pragma;
use crate::job::{Error, ErrorCode};

/// How long a look at the whole file may take: work has to go on soon after a crash, and what is not looked at now is when it
/// is read. A gigabyte is looked through in less than a second when it is in the page cache.
pub const CHECK_WITHIN: Duration = Duration::from_secs(1);

/// Steps of SQLite's machine, or pages of a check, between two looks at the clock: a page of a slow disk takes some milliseconds.
const STEPS: i32 = 100;

/// Looks for damage, as far as it gets within that time.
pub async fn check(path: &Path, connection: &mut SqliteConnection, within: Duration) -> Result<(), Error> {
    let failed = |error| failure(path, &error);
    let until = Instant::now() + within;
    connection.lock_handle().await.map_err(failed)?.set_progress_handler(STEPS, move || Instant::now() < until);
    let found = pragma::<String>(connection, "PRAGMA quick_check(1)").await;
    connection.lock_handle().await.map_err(failed)?.remove_progress_handler();
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => {
            let path = path.display();
            Err(Error::new(
                ErrorCode::StoreCorrupt,
                format!(
                    "The SQLite database {path} is damaged: {}. Restore a backup, or save what is readable with `sqlite3 {path} .recover`",
                    found.replace('\n', " ")
                ),
            ))
        }
        Err(error) if is_interrupted(&error) => {
            tracing::warn!(path = %path.display(), "a SQLite database that was not closed is too large to be checked as a whole; damage is told when it is read");
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Connection};

    use super::*;

    const PAGE: usize = 4096;

    /// A database of some megabytes, damaged in its middle or not: a check begins at the end.
    async fn database(path: &Path, damaged: bool) -> SqliteConnection {
        let url = format!("sqlite:{}?mode=rwc", path.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let fill = "CREATE TABLE a (b TEXT); INSERT INTO a SELECT hex(randomblob(500)) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 8000) SELECT i FROM n)";
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        if damaged {
            let mut bytes = std::fs::read(path).unwrap();
            let part = bytes.len() / 8 / PAGE * PAGE;
            bytes[5 * part..6 * part].fill(0xa5);
            std::fs::write(path, bytes).unwrap();
        }
        SqliteConnection::connect(&url).await.unwrap()
    }

    #[tokio::test]
    async fn a_check_ends_in_time_and_leaves_the_connection_usable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.db");
        let mut connection = database(&path, true).await;
        check(&path, &mut connection, Duration::ZERO).await.expect("given up before the damage");
        // Longer than a check may take, and not stopped.
        let many = "SELECT count(*) FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i FROM n)";
        assert_eq!(pragma::<i64>(&mut connection, many).await.unwrap(), 50_000);
        let error = check(&path, &mut connection, Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
        assert!(error.message.contains("is damaged"), "{error}");
    }

    #[tokio::test]
    async fn a_check_finds_no_damage_where_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large.db");
        let mut connection = database(&path, false).await;
        check(&path, &mut connection, Duration::from_secs(60)).await.unwrap();
    }
}
