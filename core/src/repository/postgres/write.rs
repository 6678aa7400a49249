//! Commits a group of writes: jobs are locked and read, judged in memory, and written by arrays, a statement a table.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::PostgresRepository;
use crate::repository::durable::{Outcome, Write};
use crate::repository::sql::Keys;
use crate::repository::sql::connections::Failed;
use crate::repository::sql::event_rows;
use crate::repository::sql::judge::{self, Change, Fate, Judged, Row, Standing};

/// Bounds for the case that this process is stopped or cut off in mid-transaction: the server ends it, and its locks with it.
pub(super) const BEGIN: &str = "
    BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL statement_timeout = '25s';
    SET LOCAL lock_timeout = '10s';
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// In the order of the ids, so that two groups of the same jobs do not lock each other out. A join, because a comparison
/// with a long array may be done element by element.
const LOCK: &str = "
    SELECT j.key, j.id, j.place, j.version, j.owner, j.standing, j.kind FROM unnest($1::text[]) AS wanted(id) JOIN @jobs j ON j.id = wanted.id
    ORDER BY j.id FOR UPDATE OF j";

const TAKE_KEYS: &str = "UPDATE @counters SET value = value + $1 WHERE name = 'key' RETURNING value";

const REMOVE: &str = "
    WITH texts AS (DELETE FROM @texts WHERE job_key = ANY($1)),
        chunks AS (DELETE FROM @chunks WHERE job_key = ANY($1)),
        logs AS (DELETE FROM @logs WHERE job_key = ANY($1)),
        requests AS (DELETE FROM @requests WHERE job_key = ANY($1)),
        events AS (DELETE FROM @events WHERE job_key = ANY($1))
    DELETE FROM @jobs WHERE key = ANY($1)";

const RESET_CHUNKS: &str = "DELETE FROM @chunks WHERE job_key = ANY($1)";

const CLEAR_REQUESTS: &str = "DELETE FROM @requests WHERE job_key = ANY($1)";

const WRITE_TEXTS: &str = "
    INSERT INTO @texts (job_key, name, body)
    SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[])
    ON CONFLICT (job_key, name) DO UPDATE SET body = excluded.body";

const WRITE_CHUNKS: &str = "
    INSERT INTO @chunks (job_key, idx, body)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[])
    ON CONFLICT (job_key, idx) DO UPDATE SET body = excluded.body";

const WRITE_LOGS: &str = "
    INSERT INTO @logs (job_key, idx, attempt, stream, body)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bytea[])
    ON CONFLICT (job_key, idx, attempt, stream) DO UPDATE SET body = excluded.body";

const TAKE_PLACES: &str = "UPDATE @counters SET value = value + $1 WHERE name = 'place' RETURNING value - $1";

const CREATE_JOBS: &str = "
    INSERT INTO @jobs (key, id, place, version, state, standing, claimable, hold, owner, kind, head)
    SELECT * FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::smallint[], $6::smallint[], $7::smallint[], $8::bool[], $9::text[], $10::text[], $11::text[])";

const CHANGE_JOBS: &str = "
    UPDATE @jobs AS j SET version = n.version, state = n.state, standing = n.standing, claimable = n.claimable, hold = n.hold, owner = n.owner, head = n.head
    FROM unnest($1::bigint[], $2::bigint[], $3::smallint[], $4::smallint[], $5::smallint[], $6::bool[], $7::text[], $8::text[])
        AS n(key, version, state, standing, claimable, hold, owner, head)
    WHERE j.key = n.key";

/// The last statement: from here on the group holds the lock that numbers all events of the store, so it must not be
/// idle for long either. One notification a commit.
const NUMBER_EVENTS: &str = "
    WITH counter AS (
        UPDATE @counters SET value = value + $1 WHERE name = 'sequence' RETURNING value - $1 AS before
    ), told AS (
        INSERT INTO @events (first, job_key, job, lengths, bodies)
        SELECT counter.before + 1 + e.before, e.job_key, e.job, e.lengths, e.bodies
        FROM counter, unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[]) AS e(before, job_key, job, lengths, bodies)
    )
    SELECT before, pg_notify($7, ''), set_config('idle_in_transaction_session_timeout', '2s', true) FROM counter";

/// Bytes of texts in one statement; PostgreSQL takes messages below 1 GB.
const STATEMENT_BYTES: usize = 32 * 1024 * 1024;

/// How many keys are taken at once.
const KEYS: i64 = 1024;

impl PostgresRepository {
    pub(super) async fn commit_on(&self, connection: &mut PgConnection, group: &[Write]) -> Result<Vec<Outcome>, Failed> {
        let mut keys = self.take_keys(connection, judge::most_created(group) as i64).await?;
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
        let rows = sqlx::query(self.names.sql(LOCK)).bind(judge::ids(group)).fetch_all(&mut *connection).await?;
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
    async fn take_keys(&self, connection: &mut PgConnection, most: i64) -> Result<std::ops::Range<i64>, Failed> {
        loop {
            if let Some(taken) = self.keys.lock().take(most) {
                return Ok(taken);
            }
            let block = KEYS.max(most);
            let end: i64 = sqlx::query(self.names.sql(TAKE_KEYS)).bind(block).fetch_one(&mut *connection).await?.try_get(0)?;
            *self.keys.lock() = Keys { next: end - block, end };
        }
    }

    /// What can be written before the group is numbered.
    async fn write_all(&self, connection: &mut PgConnection, judged: &Judged<'_>) -> Result<(), Failed> {
        for (statement, keys) in [
            (REMOVE, keys_of(judged.of(Fate::Removed))),
            (RESET_CHUNKS, keys_of(judged.of(Fate::Changed).filter(|change| change.reset_chunks))),
            (CLEAR_REQUESTS, keys_of(judged.of(Fate::Changed).filter(|change| change.clear_requests))),
        ] {
            if !keys.is_empty() {
                sqlx::query(self.names.sql(statement)).bind(keys).execute(&mut *connection).await?;
            }
        }
        let texts = judged.living().flat_map(|change| {
            let key = change.key;
            (0i16..).zip(&change.texts).filter_map(move |(name, text)| Some((key, name, (*text)?)))
        });
        for batch in batches(texts, |text| text.2.len()) {
            let (mut keys, mut names, mut bodies) = (Vec::new(), Vec::new(), Vec::new());
            for (key, name, body) in batch {
                keys.push(key);
                names.push(name);
                bodies.push(body);
            }
            sqlx::query(self.names.sql(WRITE_TEXTS)).bind(keys).bind(names).bind(bodies).execute(&mut *connection).await?;
        }
        let chunks = judged.living().flat_map(|change| change.chunks.iter().map(|(index, body)| (change.key, i64::from(*index), *body)));
        for batch in batches(chunks, |chunk| chunk.2.len()) {
            let (mut keys, mut indexes, mut bodies) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
            for (key, index, body) in batch {
                keys.push(key);
                indexes.push(index);
                bodies.push(body);
            }
            sqlx::query(self.names.sql(WRITE_CHUNKS)).bind(keys).bind(indexes).bind(bodies).execute(&mut *connection).await?;
        }
        let logs = judged.living().flat_map(|change| change.logs.iter().map(|log| (change.key, *log)));
        for batch in batches(logs, |(_, log)| log.text.len()) {
            let (mut keys, mut indexes, mut attempts, mut streams, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for (key, log) in batch {
                keys.push(key);
                indexes.push(i64::from(log.index));
                attempts.push(i64::from(log.attempt));
                streams.push(log.stream as i16);
                bodies.push(log.text.as_bytes());
            }
            let query = sqlx::query(self.names.sql(WRITE_LOGS)).bind(keys).bind(indexes).bind(attempts).bind(streams).bind(bodies);
            query.execute(&mut *connection).await?;
        }
        let changed: Vec<&Change> = judged.of(Fate::Changed).collect();
        if !changed.is_empty() {
            let query = sqlx::query(self.names.sql(CHANGE_JOBS))
                .bind(column(&changed, |job| job.key))
                .bind(column(&changed, |job| job.version as i64))
                .bind(column(&changed, |job| job.state as i16))
                .bind(column(&changed, |job| job.standing as i16))
                .bind(column(&changed, |job| job.claimable()))
                .bind(column(&changed, |job| job.hold))
                .bind(column(&changed, |job| &*job.owner))
                .bind(column(&changed, |job| job.head));
            query.execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Takes places and numbers: always in this order, and last, because everybody else waits for them. Gives the counters
    /// as they were before.
    async fn finish(&self, connection: &mut PgConnection, judged: &Judged<'_>) -> Result<(u64, u64), Failed> {
        let mut places = 0;
        if judged.created > 0 {
            let query = sqlx::query(self.names.sql(TAKE_PLACES)).bind(judged.created as i64);
            places = query.fetch_one(&mut *connection).await?.try_get(0)?;
            let created: Vec<&Change> = judged.of(Fate::Created).collect();
            let query = sqlx::query(self.names.sql(CREATE_JOBS))
                .bind(column(&created, |job| job.key))
                .bind(column(&created, |job| &*job.id))
                .bind(column(&created, |job| places + job.place as i64))
                .bind(column(&created, |job| job.version as i64))
                .bind(column(&created, |job| job.state as i16))
                .bind(column(&created, |job| job.standing as i16))
                .bind(column(&created, |job| job.claimable()))
                .bind(column(&created, |job| job.hold))
                .bind(column(&created, |job| &*job.owner))
                .bind(column(&created, |job| job.kind.as_deref()))
                .bind(column(&created, |job| job.head));
            query.execute(&mut *connection).await?;
        }
        let rows = event_rows::rows(&judged.told);
        let query = sqlx::query(self.names.sql(NUMBER_EVENTS))
            .bind(judged.events as i64)
            .bind(column(&rows, |row| row.before as i64))
            .bind(column(&rows, |row| row.key))
            .bind(column(&rows, |row| row.deleted))
            .bind(column(&rows, |row| &*row.lengths))
            .bind(column(&rows, |row| &*row.bodies))
            .bind(self.names.channel());
        let sequence: i64 = query.fetch_one(&mut *connection).await?.try_get(0)?;
        Ok((sequence as u64, places as u64))
    }
}

fn row(row: &sqlx::postgres::PgRow) -> Result<Row, Failed> {
    let id: Arc<str> = row.try_get::<&str, _>(1)?.into();
    let standing: i16 = row.try_get(5)?;
    Ok(Row {
        key: row.try_get(0)?,
        place: row.try_get::<i64, _>(2)? as u64,
        version: row.try_get::<i64, _>(3)? as u64,
        owner: row.try_get::<&str, _>(4)?.into(),
        // A damaged one is this job's own trouble: it can be removed, and nobody else's writes fail with it.
        standing: Standing::of(standing).unwrap_or(Standing::Cleared),
        kind: row.try_get::<Option<&str>, _>(6)?.map(Into::into),
        id,
    })
}

fn keys_of<'c>(changes: impl Iterator<Item = &'c Change<'c>>) -> Vec<i64> {
    changes.map(|change| change.key).collect()
}

fn column<'r, R, T>(rows: &'r [R], value: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// Cuts rows into statements of a bearable size.
fn batches<T>(rows: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    let mut size = 0;
    for row in rows {
        size += bytes(&row);
        match batches.last_mut() {
            Some(batch) if size <= STATEMENT_BYTES => batch.push(row),
            _ => {
                size = bytes(&row);
                batches.push(vec![row]);
            }
        }
    }
    batches
}
