//! Gives back what is kept. A job is read in a snapshot: its rows are all of one commit.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::PostgresRepository;
use super::write::BEGIN;
use crate::job::{Error, ErrorCode, JobState};
use crate::repository::durable::{LogStream, Mark, StoredEvent};
use crate::repository::sql::connections::Failed;
use crate::repository::sql::event_rows;
use crate::repository::sql::page::{JobRow, Page};

const SNAPSHOT: &str = "
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '25s';
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

macro_rules! jobs {
    ($from:literal) => {
        concat!(
            "SELECT j.key, j.id, j.place, j.version, j.state, j.kind, j.owner, j.standing, j.hold, extract(epoch FROM o.renewed_at)::float8 * 1000, j.head FROM ",
            $from
        )
    };
}

const LOAD: &str = jobs!("@jobs j LEFT JOIN @owners o ON o.id = j.owner WHERE j.id = $1");

const LIST: &str = jobs!("@jobs j LEFT JOIN @owners o ON o.id = j.owner WHERE j.place > $1 ORDER BY j.place LIMIT $2");

/// Each state is a range of the index on state and place. Written as a range, and ordered by both: with an equality the
/// planner may take the index on places, and read all finished jobs on its way to the few others.
const LIST_STATES: &str = jobs!(
    "unnest($3::smallint[]) AS s(state) CROSS JOIN LATERAL (
        SELECT * FROM @jobs j WHERE (j.state, j.place) > (s.state, $1) AND (j.state, j.place) < (s.state + 1, 0) ORDER BY j.state, j.place LIMIT $2
    ) j LEFT JOIN @owners o ON o.id = j.owner ORDER BY j.place LIMIT $2"
);

const SIZES: &str = "
    SELECT job_key, sum(octet_length(body))::bigint FROM (
        SELECT job_key, body FROM @texts WHERE job_key = ANY($1) UNION ALL SELECT job_key, body FROM @chunks WHERE job_key = ANY($1)
    ) parts GROUP BY job_key";

const TEXTS: &str = "SELECT job_key, name, body FROM @texts WHERE job_key = ANY($1)";

const CHUNKS: &str = "SELECT job_key, idx, body FROM @chunks WHERE job_key = ANY($1) ORDER BY job_key, idx";

const REQUESTS_OF_JOBS: &str = "SELECT job_key, body FROM @requests WHERE job_key = ANY($1) ORDER BY number";

/// The job's row is locked so that it does not go while the request comes.
const REQUEST: &str = "
    WITH job AS (SELECT key FROM @jobs WHERE id = $1 FOR KEY SHARE)
    INSERT INTO @requests (job_key, body) SELECT key, $2 FROM job";

const COUNT_REQUEST: &str = "WITH counter AS (UPDATE @counters SET value = value + 1 WHERE name = 'request') SELECT pg_notify($1, '')";

const REQUESTS: &str = "SELECT j.id, r.body FROM @requests r JOIN @jobs j ON j.key = r.job_key WHERE j.owner = $1 ORDER BY r.number";

/// From the row that holds the event `$1`, or the next one.
const EVENTS: &str = "
    SELECT e.first, coalesce(e.job, j.id), e.lengths, e.bodies FROM @events e LEFT JOIN @jobs j ON j.key = e.job_key
    WHERE e.first >= coalesce((SELECT max(first) FROM @events WHERE first <= $1), $1) ORDER BY e.first LIMIT $2";

const OLDEST_EVENT: &str = "SELECT coalesce((SELECT min(first) FROM @events), (SELECT value + 1 FROM @counters WHERE name = 'sequence'))";

const MARK: &str = "
    SELECT (SELECT value FROM @counters WHERE name = 'sequence'), (SELECT value FROM @counters WHERE name = 'request')";

const READ_LOG: &str = "
    SELECT l.body FROM @logs l JOIN @jobs j ON j.key = l.job_key WHERE j.id = $1 AND l.idx = $2 AND l.attempt = $3 AND l.stream = $4";

/// Rows of events read at once; each holds up to 256 KiB.
const EVENT_ROWS: i64 = 128;

impl PostgresRepository {
    pub(super) async fn load_on(&self, connection: &mut PgConnection, id: &str) -> Result<Page, Failed> {
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let rows = sqlx::query(self.names.sql(LOAD)).bind(id).fetch_all(&mut *connection).await?;
        let mut page = Page::new(rows.iter().map(job_row).collect::<Result<_, _>>()?, 1);
        self.fill(connection, &mut page).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(page)
    }

    pub(super) async fn list_on(&self, connection: &mut PgConnection, states: &[JobState], after: u64, most: usize) -> Result<Page, Failed> {
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut numbers: Vec<i16> = states.iter().map(|state| *state as i16).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let query = match numbers.is_empty() {
            true => sqlx::query(self.names.sql(LIST)).bind(after).bind(limit),
            false => sqlx::query(self.names.sql(LIST_STATES)).bind(after).bind(limit).bind(numbers),
        };
        let rows = query.fetch_all(&mut *connection).await?;
        let mut page = Page::new(rows.iter().map(job_row).collect::<Result<_, _>>()?, most);
        let mut sizes = HashMap::new();
        for row in sqlx::query(self.names.sql(SIZES)).bind(page.keys()).fetch_all(&mut *connection).await? {
            sizes.insert(row.try_get(0)?, row.try_get(1)?);
        }
        page.cut(&sizes);
        self.fill(connection, &mut page).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(page)
    }

    async fn fill(&self, connection: &mut PgConnection, page: &mut Page) -> Result<(), Failed> {
        let keys = page.keys();
        if keys.is_empty() {
            return Ok(());
        }
        for row in sqlx::query(self.names.sql(TEXTS)).bind(&keys).fetch_all(&mut *connection).await? {
            page.text(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
        for row in sqlx::query(self.names.sql(CHUNKS)).bind(&keys).fetch_all(&mut *connection).await? {
            page.chunk(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
        for row in sqlx::query(self.names.sql(REQUESTS_OF_JOBS)).bind(&keys).fetch_all(&mut *connection).await? {
            page.request(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(())
    }

    pub(super) async fn request_on(&self, connection: &mut PgConnection, id: &str, body: &str) -> Result<bool, Failed> {
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
        let done = sqlx::query(self.names.sql(REQUEST)).bind(id).bind(body).execute(&mut *connection).await?;
        if done.rows_affected() == 0 {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(false);
        }
        sqlx::query(self.names.sql(COUNT_REQUEST)).bind(self.names.channel()).execute(&mut *connection).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(Failed::Unsure)?;
        Ok(true)
    }

    pub(super) async fn requests_on(&self, connection: &mut PgConnection, owner: &str) -> Result<Vec<(Arc<str>, String)>, Failed> {
        let rows = sqlx::query(self.names.sql(REQUESTS)).bind(owner).fetch_all(connection).await?;
        rows.iter().map(|row| Ok((row.try_get::<&str, _>(0)?.into(), row.try_get(1)?))).collect()
    }

    pub(super) async fn events_on(&self, connection: &mut PgConnection, from: u64, most: usize) -> Result<Vec<StoredEvent>, Failed> {
        let mut events: Vec<StoredEvent> = Vec::new();
        let mut next = i64::try_from(from).unwrap_or(i64::MAX);
        while events.len() < most {
            let limit = EVENT_ROWS.min(i64::try_from(most - events.len()).unwrap_or(i64::MAX).saturating_add(1));
            let rows = sqlx::query(self.names.sql(EVENTS)).bind(next).bind(limit).fetch_all(&mut *connection).await?;
            for row in &rows {
                let first: i64 = row.try_get(0)?;
                let job: Option<&str> = row.try_get(1)?;
                event_rows::unpack(&mut events, next as u64, first as u64, &job.unwrap_or_default().into(), row.try_get(2)?, row.try_get(3)?);
            }
            match events.last() {
                Some(last) if rows.len() as i64 == limit => next = last.sequence as i64 + 1,
                _ => break,
            }
        }
        events.truncate(most);
        Ok(events)
    }

    pub(super) async fn oldest_event_on(&self, connection: &mut PgConnection) -> Result<u64, Failed> {
        let oldest: i64 = sqlx::query(self.names.sql(OLDEST_EVENT)).fetch_one(connection).await?.try_get(0)?;
        Ok(oldest as u64)
    }

    pub(super) async fn mark_on(&self, connection: &mut PgConnection) -> Result<Mark, Failed> {
        let row = sqlx::query(self.names.sql(MARK)).fetch_one(connection).await?;
        Ok(Mark { sequence: row.try_get::<i64, _>(0)? as u64, requests: row.try_get::<i64, _>(1)? as u64 })
    }

    pub(super) async fn read_log_on(
        &self,
        connection: &mut PgConnection,
        id: &str,
        index: u32,
        attempt: u32,
        stream: LogStream,
    ) -> Result<Option<String>, Failed> {
        let query = sqlx::query(self.names.sql(READ_LOG)).bind(id).bind(i64::from(index)).bind(i64::from(attempt)).bind(stream as i16);
        let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
        let text = String::from_utf8(row.try_get(0)?);
        Ok(Some(text.map_err(|_| Error::new(ErrorCode::StoreCorrupt, format!("The log of chunk {index} of job \"{id}\" is damaged: it is not UTF-8")))?))
    }
}

fn job_row(row: &PgRow) -> Result<JobRow, Failed> {
    Ok(JobRow {
        key: row.try_get(0)?,
        id: row.try_get(1)?,
        place: row.try_get(2)?,
        version: row.try_get(3)?,
        state: row.try_get(4)?,
        kind: row.try_get(5)?,
        owner: row.try_get(6)?,
        standing: row.try_get(7)?,
        hold: row.try_get(8)?,
        renewed_at: row.try_get(9)?,
        head: row.try_get(10)?,
    })
}
