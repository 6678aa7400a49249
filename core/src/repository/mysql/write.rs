//! Commits a group of writes: jobs are locked and read, judged in memory, and written by inserts of many rows.

use std::sync::Arc;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::MysqlRepository;
use super::rows::{Bound, list};
use crate::repository::durable::{Outcome, Write};
use crate::repository::sql::Keys;
use crate::repository::sql::connections::Failed;
use crate::repository::sql::event_rows;
use crate::repository::sql::judge::{self, Change, Fate, Judged, Row, Standing};

/// In the order of the ids, so that two groups of the same jobs do not lock each other out. By the index, or rows of
/// other groups would be waited for.
const LOCK: (&str, &str) = (
    "SELECT job_key, id, place, version, owner, standing, kind FROM framewright_jobs FORCE INDEX (framewright_jobs_id) WHERE id IN (",
    ") ORDER BY id FOR UPDATE",
);

/// Tells the new value as the statement's insert id.
pub(super) const COUNT: &str = "UPDATE framewright_counters SET value = LAST_INSERT_ID(value + ?) WHERE name = ?";

/// What belongs to a job, besides its row.
const BELONGINGS: [&str; 5] = ["framewright_texts", "framewright_chunks", "framewright_logs", "framewright_requests", "framewright_events"];

const WRITE_TEXTS: (&str, usize, &str) =
    ("INSERT INTO framewright_texts (job_key, name, part, parts, body)", 5, "ON DUPLICATE KEY UPDATE parts = VALUES(parts), body = VALUES(body)");

const WRITE_CHUNKS: (&str, usize, &str) =
    ("INSERT INTO framewright_chunks (job_key, idx, part, parts, body)", 5, "ON DUPLICATE KEY UPDATE parts = VALUES(parts), body = VALUES(body)");

const WRITE_LOGS: (&str, usize, &str) = (
    "INSERT INTO framewright_logs (job_key, idx, attempt, stream, part, parts, body)",
    7,
    "ON DUPLICATE KEY UPDATE parts = VALUES(parts), body = VALUES(body)",
);

/// A plain insert: a job of that id that came in between is an error, and the group is judged again.
const CREATE_JOBS: (&str, usize, &str) =
    ("INSERT INTO framewright_jobs (job_key, id, place, version, state, standing, claimable, hold, owner, kind, head)", 11, "");

/// Only for rows that are locked: there is no way to update many rows with different values but this.
const CHANGE_JOBS: (&str, usize, &str) = (
    "INSERT INTO framewright_jobs (job_key, id, place, version, state, standing, claimable, hold, owner, kind, head)",
    11,
    "ON DUPLICATE KEY UPDATE version = VALUES(version), state = VALUES(state), standing = VALUES(standing), claimable = VALUES(claimable), \
     hold = VALUES(hold), owner = VALUES(owner), head = VALUES(head)",
);

const WRITE_EVENTS: (&str, usize, &str) = ("INSERT INTO framewright_events (first, part, job_key, job, lengths, bodies)", 6, "");

/// How many keys are taken at once.
const KEYS: i64 = 1024;

impl MysqlRepository {
    pub(super) async fn commit_on(&self, connection: &mut MySqlConnection, group: &[Write]) -> Result<Vec<Outcome>, Failed> {
        let mut keys = self.take_keys(connection, judge::most_created(group) as i64).await?;
        sqlx::raw_sql("START TRANSACTION").execute(&mut *connection).await?;
        let ids = judge::ids(group);
        let (marks, ids) = list(&ids);
        let mut query = sqlx::query(AssertSqlSafe(format!("{}{marks}{}", LOCK.0, LOCK.1)));
        for id in ids {
            query = query.bind(id.as_bytes());
        }
        let rows = query.fetch_all(&mut *connection).await?;
        let rows = rows.iter().map(row).collect::<Result<Vec<Row>, Failed>>()?;
        let judged = judge::judge(group, rows, || keys.next().expect("a key for each job that may be created"));
        if judged.is_void() {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(judged.outcomes(0, 0));
        }
        self.write_all(connection, &judged).await?;
        let (sequence, places) = self.finish(connection, &judged).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(Failed::Unsure)?;
        Ok(judged.outcomes(sequence, places))
    }

    /// Keys for new jobs, from the block that this process took or from a new one. Not part of the transaction: nobody
    /// waits for the lock of that counter, and a key may be lost.
    async fn take_keys(&self, connection: &mut MySqlConnection, most: i64) -> Result<std::ops::Range<i64>, Failed> {
        loop {
            if let Some(taken) = self.keys.lock().take(most) {
                return Ok(taken);
            }
            let block = KEYS.max(most);
            let end = count(connection, "job", block).await?;
            *self.keys.lock() = Keys { next: end - block, end };
        }
    }

    /// What can be written before the group is numbered.
    async fn write_all(&self, connection: &mut MySqlConnection, judged: &Judged<'_>) -> Result<(), Failed> {
        let removed: Vec<i64> = judged.of(Fate::Removed).map(|change| change.key).collect();
        let reset: Vec<i64> = judged.of(Fate::Changed).filter(|change| change.reset_chunks).map(|change| change.key).collect();
        let answered: Vec<i64> = judged.of(Fate::Changed).filter(|change| change.clear_requests).map(|change| change.key).collect();
        for table in BELONGINGS {
            delete(connection, table, &removed).await?;
        }
        delete(connection, "framewright_jobs", &removed).await?;
        delete(connection, "framewright_chunks", &reset).await?;
        delete(connection, "framewright_requests", &answered).await?;

        let mut texts = Vec::new();
        let mut chunks = Vec::new();
        let mut logs = Vec::new();
        for change in judged.living() {
            for (name, text) in (0i16..).zip(change.texts).filter_map(|(name, text)| Some((name, text?))) {
                self.split(text, |part, parts, body| texts.push((change.key, name, part, parts, body)));
            }
            for (index, body) in &change.chunks {
                self.split(body, |part, parts, body| chunks.push((change.key, *index, part, parts, body)));
            }
            for log in &change.logs {
                self.split(&log.text, |part, parts, body| logs.push((change.key, *log, part, parts, body)));
            }
        }
        let sizes = self.sizes;
        let bind = |query: Bound, row: &(i64, i16, i32, i32, &str)| query.bind(row.0).bind(row.1).bind(row.2).bind(row.3).bind(row.4);
        sizes.write(connection, WRITE_TEXTS, &texts, |row| row.4.len(), bind).await?;
        let bind = |query: Bound, row: &(i64, u32, i32, i32, &str)| query.bind(row.0).bind(row.1).bind(row.2).bind(row.3).bind(row.4);
        sizes.write(connection, WRITE_CHUNKS, &chunks, |row| row.4.len(), bind).await?;
        let bind = |query: Bound, (key, log, part, parts, body): &(i64, &crate::repository::durable::LogWrite, i32, i32, &str)| {
            query.bind(*key).bind(log.index).bind(log.attempt).bind(log.stream as i16).bind(*part).bind(*parts).bind(*body)
        };
        sizes.write(connection, WRITE_LOGS, &logs, |row| row.4.len(), bind).await?;
        let changed: Vec<&Change> = judged.of(Fate::Changed).collect();
        sizes.write(connection, CHANGE_JOBS, &changed, |job| job.head.len(), |query, job| bind_job(query, job, job.place)).await
    }

    fn split<'t>(&self, text: &'t str, mut give: impl FnMut(i32, i32, &'t str)) {
        let parts = self.sizes.parts(text);
        for (part, body) in (0..).zip(&parts) {
            give(part, parts.len() as i32, body);
        }
    }

    /// Takes places and numbers: always in this order, and last, because everybody else waits for them. Gives the counters
    /// as they were before.
    async fn finish(&self, connection: &mut MySqlConnection, judged: &Judged<'_>) -> Result<(u64, u64), Failed> {
        let mut places = 0;
        if judged.created > 0 {
            places = count(connection, "place", judged.created as i64).await? as u64 - judged.created;
            let created: Vec<&Change> = judged.of(Fate::Created).collect();
            let bytes = |job: &&Change| job.head.len() + job.kind.as_ref().map_or(0, |kind| kind.len());
            self.sizes.write(connection, CREATE_JOBS, &created, bytes, |query, job| bind_job(query, job, places + job.place)).await?;
        }
        if judged.events == 0 {
            return Ok((0, places));
        }
        let packed = event_rows::rows(&judged.told);
        let sequence = count(connection, "sequence", judged.events as i64).await? as u64 - judged.events;
        let mut rows = Vec::with_capacity(packed.len());
        for row in &packed {
            self.split(&row.bodies, |part, _, bodies| rows.push((part, row, if part == 0 { &*row.lengths } else { "" }, bodies)));
        }
        let bind = |query: Bound, (part, row, lengths, bodies): &(i32, &event_rows::EventRow, &str, &str)| {
            let first = (sequence + 1 + row.before) as i64;
            query.bind(first).bind(*part).bind(row.key).bind(row.deleted.map(str::as_bytes)).bind(*lengths).bind(*bodies)
        };
        self.sizes.write(connection, WRITE_EVENTS, &rows, |row| row.2.len() + row.3.len(), bind).await?;
        Ok((sequence, places))
    }
}

/// Raises a counter, and gives its new value.
pub(super) async fn count(connection: &mut MySqlConnection, name: &str, by: i64) -> Result<i64, Failed> {
    let done = sqlx::query(COUNT).bind(by).bind(name).execute(connection).await?;
    Ok(done.last_insert_id() as i64)
}

async fn delete(connection: &mut MySqlConnection, table: &str, keys: &[i64]) -> Result<(), Failed> {
    for keys in keys.chunks(1024) {
        let (marks, keys) = list(keys);
        let mut query = sqlx::query(AssertSqlSafe(format!("DELETE FROM {table} WHERE job_key IN ({marks})")));
        for key in keys {
            query = query.bind(*key);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

fn bind_job(query: Bound, job: &Change, place: u64) -> Bound {
    query
        .bind(job.key)
        .bind(job.id.as_bytes())
        .bind(place as i64)
        .bind(job.version as i64)
        .bind(job.state as i16)
        .bind(job.standing as i16)
        .bind(job.claimable())
        .bind(job.hold)
        .bind(job.owner.as_bytes())
        .bind(job.kind.as_ref().map(|kind| kind.as_bytes()))
        .bind(job.head)
}

// Decoded unchecked: sqlx does not take a VARBINARY for text.
fn row(row: &MySqlRow) -> Result<Row, Failed> {
    let id: Arc<str> = row.try_get_unchecked::<&str, _>(1)?.into();
    let standing: i16 = row.try_get(5)?;
    Ok(Row {
        key: row.try_get(0)?,
        place: row.try_get::<i64, _>(2)? as u64,
        version: row.try_get::<i64, _>(3)? as u64,
        owner: row.try_get_unchecked::<&str, _>(4)?.into(),
        // A damaged one is this job's own trouble: it can be removed, and nobody else's writes fail with it.
        standing: Standing::of(standing).unwrap_or(Standing::Cleared),
        kind: row.try_get_unchecked::<Option<&str>, _>(6)?.map(Into::into),
        id,
    })
}
