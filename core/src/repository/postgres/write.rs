//! Commits a group of writes: jobs are locked and read, judged in memory, and written by one statement with an array for each
//! column. Of new jobs there is nothing to be locked.

use std::sync::Arc;

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::PostgresRepository;
use super::statement::{Statement, Values};
use crate::repository::durable::{Action, Expect, Outcome, Write};
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

// What follows are parts of one statement, its parameters numbered by [`Statement`]: a round trip for all of them.

const CLEAR_REQUESTS: &str = "DELETE FROM @requests WHERE job_key = ANY(?) RETURNING 1";

const WRITE_TEXTS: &str = "
    INSERT INTO @texts (job_key, name, body)
    SELECT * FROM unnest(?::bigint[], ?::smallint[], ?::text[])
    ON CONFLICT (job_key, name) DO UPDATE SET body = excluded.body RETURNING 1";

const WRITE_CHUNKS: &str = "
    INSERT INTO @chunks (job_key, idx, body)
    SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::text[])
    ON CONFLICT (job_key, idx) DO UPDATE SET body = excluded.body RETURNING 1";

const WRITE_LOGS: &str = "
    INSERT INTO @logs (job_key, idx, attempt, stream, body)
    SELECT * FROM unnest(?::bigint[], ?::bigint[], ?::bigint[], ?::smallint[], ?::bytea[])
    ON CONFLICT (job_key, idx, attempt, stream) DO UPDATE SET body = excluded.body RETURNING 1";

const CHANGE_JOBS: &str = "
    UPDATE @jobs AS j SET version = n.version, state = n.state, standing = n.standing, claimable = n.claimable, hold = n.hold, owner = n.owner, head = n.head
    FROM unnest(?::bigint[], ?::bigint[], ?::smallint[], ?::smallint[], ?::smallint[], ?::bool[], ?::text[], ?::text[])
        AS n(key, version, state, standing, claimable, hold, owner, head)
    WHERE j.key = n.key RETURNING 1";

const CREATE_JOBS: &str = "
    INSERT INTO @jobs (key, id, place, version, state, standing, claimable, hold, owner, kind, head)
    SELECT n.key, n.id, place.before + n.place, n.version, n.state, n.standing, n.claimable, n.hold, n.owner, n.kind, n.head
    FROM place, unnest(?::bigint[], ?::text[], ?::bigint[], ?::bigint[], ?::smallint[], ?::smallint[], ?::smallint[], ?::bool[], ?::text[], ?::text[], ?::text[])
        AS n(key, id, place, version, state, standing, claimable, hold, owner, kind, head) RETURNING 1";

/// The condition of places where nobody has looked whether jobs of these ids exist. Seen only later, by the unique index, one of
/// them might be waited for with the counter locked that its writer waits for.
const NONE_EXISTS: &str = "NOT EXISTS (SELECT FROM unnest(?::text[]) AS wanted(id) JOIN @jobs j ON j.id = wanted.id)";

/// Taken after all that is written before, because everybody else waits for these counters: `{}` is what makes it wait.
const TAKE_PLACES: &str = "UPDATE @counters SET value = value + ? WHERE name = 'place' AND {} RETURNING value - ? AS before";

/// The last lock of the group, and the one that numbers all events of the store.
const TAKE_NUMBERS: &str = "UPDATE @counters SET value = value + ? WHERE name = 'sequence' AND {} RETURNING value - ? AS before";

const WRITE_EVENTS: &str = "
    INSERT INTO @events (first, job_key, job, lengths, bodies)
    SELECT counter.before + 1 + e.before, e.job_key, e.job, e.lengths, e.bodies
    FROM counter, unnest(?::bigint[], ?::bigint[], ?::text[], ?::text[], ?::text[]) AS e(before, job_key, job, lengths, bodies)";

/// The counters as they were before: no row, when places were not to be had. One notification a commit, with the number of its
/// last event; and as the group holds the lock that numbers events, it must not be idle for long either.
const FINISH: &str =
    "SELECT counter.before, {place}, pg_notify(?, (counter.before + ?)::text), set_config('idle_in_transaction_session_timeout', '2s', true) FROM {counters}";

/// Bytes of texts in one statement; PostgreSQL takes messages below 1 GB.
const STATEMENT_BYTES: usize = 32 * 1024 * 1024;

/// How many keys are taken at once.
const KEYS: i64 = 1024;

impl PostgresRepository {
    pub(super) async fn commit_on(&self, connection: &mut PgConnection, group: &[Write]) -> Result<Vec<Outcome>, Failed> {
        if group.iter().all(|write| write.expect == Expect::Absent && matches!(write.action, Action::Put(_))) {
            match self.try_commit(connection, group, false).await {
                // One of them is there: which one has to be seen.
                Err(Failed::Sql(error)) if exists(&error) => {
                    sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
                }
                outcome => return outcome,
            }
        }
        self.try_commit(connection, group, true).await
    }

    /// `look`: at the rows that there are of these jobs. Without, `RowNotFound` or a unique violation tells that there are some.
    async fn try_commit(&self, connection: &mut PgConnection, group: &[Write], look: bool) -> Result<Vec<Outcome>, Failed> {
        let mut keys = self.take_keys(connection, judge::most_created(group) as i64).await?;
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
        let rows = match look {
            true => sqlx::query(self.names.sql(LOCK)).bind(judge::ids(group)).fetch_all(&mut *connection).await?,
            false => Vec::new(),
        };
        let rows = rows.iter().map(row).collect::<Result<Vec<Row>, Failed>>()?;
        let judged = judge::judge(group, rows, || keys.next().expect("a key for each job that may be created"));
        if judged.is_void() {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(judged.outcomes(0, 0));
        }
        self.remove(connection, &judged).await?;
        let (sequence, places) = self.write(connection, &judged, look).await?;
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

    /// Removes what may be written anew by the same group.
    async fn remove(&self, connection: &mut PgConnection, judged: &Judged<'_>) -> Result<(), Failed> {
        for (statement, keys) in
            [(REMOVE, keys_of(judged.of(Fate::Removed))), (RESET_CHUNKS, keys_of(judged.of(Fate::Changed).filter(|change| change.reset_chunks)))]
        {
            if !keys.is_empty() {
                sqlx::query(self.names.sql(statement)).bind(keys).execute(&mut *connection).await?;
            }
        }
        Ok(())
    }

    /// Writes all else; gives the counters as they were before. `looked`: whether jobs that are created are known not to exist.
    async fn write(&self, connection: &mut PgConnection, judged: &Judged<'_>, looked: bool) -> Result<(u64, u64), Failed> {
        let mut statement = Statement::new(&self.names);
        let answered = keys_of(judged.of(Fate::Changed).filter(|change| change.clear_requests));
        if !answered.is_empty() {
            statement.part("requests", CLEAR_REQUESTS, |values| values.add(answered))?;
        }
        let texts = judged.living().flat_map(|change| {
            let key = change.key;
            (0i16..).zip(&change.texts).filter_map(move |(name, text)| Some((key, name, (*text)?)))
        });
        self.insert(connection, &mut statement, ("texts", WRITE_TEXTS), batches(texts, |text| text.2.len()), |values, texts| {
            values.add(column(texts, |text| text.0))?;
            values.add(column(texts, |text| text.1))?;
            values.add(column(texts, |text| text.2))
        })
        .await?;
        let chunks = judged.living().flat_map(|change| change.chunks.iter().map(|(index, body)| (change.key, i64::from(*index), *body)));
        self.insert(connection, &mut statement, ("chunks", WRITE_CHUNKS), batches(chunks, |chunk| chunk.2.len()), |values, chunks| {
            values.add(column(chunks, |chunk| chunk.0))?;
            values.add(column(chunks, |chunk| chunk.1))?;
            values.add(column(chunks, |chunk| chunk.2))
        })
        .await?;
        let logs = judged.living().flat_map(|change| change.logs.iter().map(|log| (change.key, *log)));
        self.insert(connection, &mut statement, ("logs", WRITE_LOGS), batches(logs, |(_, log)| log.text.len()), |values, logs| {
            values.add(column(logs, |(key, _)| *key))?;
            values.add(column(logs, |(_, log)| i64::from(log.index)))?;
            values.add(column(logs, |(_, log)| i64::from(log.attempt)))?;
            values.add(column(logs, |(_, log)| log.stream as i16))?;
            values.add(column(logs, |(_, log)| log.text.as_bytes()))
        })
        .await?;
        let changed: Vec<&Change> = judged.of(Fate::Changed).collect();
        if !changed.is_empty() {
            statement.part("changed", CHANGE_JOBS, |values| {
                values.add(column(&changed, |job| job.key))?;
                add_state(values, &changed)?;
                values.add(column(&changed, |job| job.head))
            })?;
        }
        let (mut place, mut counters) = ("0::bigint", "counter");
        if judged.created > 0 {
            (place, counters) = ("place.before", "counter, place");
            let created: Vec<&Change> = judged.of(Fate::Created).collect();
            let condition = if looked { statement.done() } else { format!("{} AND {NONE_EXISTS}", statement.done()) };
            statement.part("place", &TAKE_PLACES.replace("{}", &condition), |values| {
                values.add(judged.created as i64)?;
                if !looked {
                    values.add(column(&created, |job| &*job.id))?;
                }
                values.add(judged.created as i64)
            })?;
            statement.part("created", CREATE_JOBS, |values| {
                values.add(column(&created, |job| job.key))?;
                values.add(column(&created, |job| &*job.id))?;
                values.add(column(&created, |job| job.place as i64))?;
                add_state(values, &created)?;
                values.add(column(&created, |job| job.kind.as_deref()))?;
                values.add(column(&created, |job| job.head))
            })?;
        }
        let done = statement.done();
        statement.part("counter", &TAKE_NUMBERS.replace("{}", &done), |values| {
            values.add(judged.events as i64)?;
            values.add(judged.events as i64)
        })?;
        let rows = event_rows::rows(&judged.told);
        statement.part("told", WRITE_EVENTS, |values| {
            values.add(column(&rows, |row| row.before as i64))?;
            values.add(column(&rows, |row| row.key))?;
            values.add(column(&rows, |row| row.deleted))?;
            values.add(column(&rows, |row| &*row.lengths))?;
            values.add(column(&rows, |row| &*row.bodies))
        })?;
        let finish = FINISH.replace("{place}", place).replace("{counters}", counters);
        let row = statement
            .run(connection, &finish, |values| {
                values.add(self.names.channel())?;
                values.add(judged.events as i64)
            })
            .await?;
        Ok((row.try_get::<i64, _>(0)? as u64, row.try_get::<i64, _>(1)? as u64))
    }

    /// Inserts rows: the last of their batches with the statement, those before it, of which there are rarely any, by themselves.
    async fn insert<R>(
        &self,
        connection: &mut PgConnection,
        statement: &mut Statement<'_>,
        (name, text): (&'static str, &str),
        mut batches: Vec<Vec<R>>,
        bind: impl Fn(&mut Values, &[R]) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        let Some(last) = batches.pop() else { return Ok(()) };
        for batch in batches {
            let mut statement = Statement::new(&self.names);
            statement.part(name, text, |values| bind(values, &batch))?;
            let done = format!("SELECT {}", statement.done());
            statement.run(connection, &done, |_| Ok(())).await?;
        }
        statement.part(name, text, |values| bind(values, &last))
    }
}

/// Whether a job is there that was to be created.
fn exists(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::RowNotFound) || error.as_database_error().is_some_and(|error| error.is_unique_violation())
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

/// The columns from the version to the owner.
fn add_state(values: &mut Values, jobs: &[&Change<'_>]) -> Result<(), Failed> {
    values.add(column(jobs, |job| job.version as i64))?;
    values.add(column(jobs, |job| job.state as i16))?;
    values.add(column(jobs, |job| job.standing as i16))?;
    values.add(column(jobs, |job| job.claimable()))?;
    values.add(column(jobs, |job| job.hold))?;
    values.add(column(jobs, |job| &*job.owner))
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
