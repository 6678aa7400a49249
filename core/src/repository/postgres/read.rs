//! Gives back what is kept. A job is read in a snapshot, by one statement: its rows are all of one commit.

use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::PostgresRepository;
use super::write::BEGIN;
use crate::job::{Error, ErrorCode, JobState};
use crate::repository::durable::{LogStream, Mark, StoredEvent};
use crate::repository::sql::connections::Failed;
use crate::repository::sql::event_rows;
use crate::repository::sql::page::{JobRow, PAGE_BYTES, Page};

const SNAPSHOT: &str = "
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL statement_timeout = '25s';
    SET LOCAL idle_in_transaction_session_timeout = '15s'";

/// Keys, places and sizes of jobs, in order of arrival.
macro_rules! sizes {
    ($jobs:literal) => {
        concat!(
            "SELECT j.key, j.place, (octet_length(j.head) + coalesce((SELECT sum(octet_length(body)) FROM @texts t WHERE t.job_key = j.key), 0)
                + coalesce((SELECT sum(octet_length(body)) FROM @chunks c WHERE c.job_key = j.key), 0))::bigint FROM ",
            $jobs,
            " ORDER BY j.place"
        )
    };
}

/// Jobs with all that belongs to them, in rows that tell by their first column what they are of. The others are the columns of
/// a job; what belongs to it fills key, number and body. In no order. Keys are compared, not joined: of a table with many rows for a key the planner may
/// read all to join them.
macro_rules! whole {
    ($with:literal, $wanted:literal) => {
        concat!(
            $with,
            " SELECT 0, j.key, j.place, j.head, j.id, j.version, j.state, j.kind, j.owner, j.standing, j.hold, extract(epoch FROM o.renewed_at)::float8 * 1000
                FROM @jobs j LEFT JOIN @owners o ON o.id = j.owner WHERE j.key ",
            $wanted,
            " UNION ALL SELECT 1, job_key, name, body, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM @texts WHERE job_key ",
            $wanted,
            " UNION ALL SELECT 2, job_key, idx, body, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM @chunks WHERE job_key ",
            $wanted,
            " UNION ALL SELECT 3, job_key, number, body, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM @requests WHERE job_key ",
            $wanted
        )
    };
}

/// `$1`: an id.
const ONE: &str = whole!("WITH wanted AS (SELECT key FROM @jobs WHERE id = $1)", "= (SELECT key FROM wanted)");

/// `$1`: keys.
const THESE: &str = whole!("", "= ANY($1::bigint[])");

/// `$1`: ids. A join, which does well here: with few ids and a row for each it takes the unique index, and a comparison with a
/// long array of texts may be done element by element.
const FIND: &str = sizes!("(SELECT j.* FROM unnest($1::text[]) AS wanted(id) JOIN @jobs j ON j.id = wanted.id) j");

/// `$1`: the place before a page, `$2`: its length, `$3`: states.
const PAGE: &str = sizes!("(SELECT * FROM @jobs WHERE place > $1 ORDER BY place LIMIT $2) j");

/// Each state is a range of the index on state and place. Written as a range, and ordered by both: with an equality the
/// planner may take the index on places, and read all finished jobs on its way to the few others.
const PAGE_OF_STATES: &str = sizes!(
    "(SELECT ranges.* FROM unnest($3::smallint[]) AS s(state) CROSS JOIN LATERAL (
        SELECT * FROM @jobs j WHERE (j.state, j.place) > (s.state, $1) AND (j.state, j.place) < (s.state + 1, 0) ORDER BY j.state, j.place LIMIT $2
    ) ranges ORDER BY ranges.place LIMIT $2) j"
);

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
        whole(&sqlx::query(self.names.sql(ONE)).bind(id).fetch_all(connection).await?, false)
    }

    pub(super) async fn load_some_on(&self, connection: &mut PgConnection, ids: &[Arc<str>]) -> Result<Page, Failed> {
        let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        let found = sqlx::query(self.names.sql(FIND)).bind(&ids).fetch_all(&mut *connection).await?;
        self.page_of(connection, &found, ids.len()).await
    }

    pub(super) async fn list_on(&self, connection: &mut PgConnection, states: &[JobState], after: u64, most: usize) -> Result<Page, Failed> {
        // Two statements that see the same.
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut numbers: Vec<i16> = states.iter().map(|state| *state as i16).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let query = match numbers.is_empty() {
            true => sqlx::query(self.names.sql(PAGE)).bind(after).bind(limit),
            false => sqlx::query(self.names.sql(PAGE_OF_STATES)).bind(after).bind(limit).bind(numbers),
        };
        let found = query.fetch_all(&mut *connection).await?;
        let page = self.page_of(connection, &found, most).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(page)
    }

    /// At most `most` of the jobs found, fewer when they are large.
    async fn page_of(&self, connection: &mut PgConnection, found: &[PgRow], most: usize) -> Result<Page, Failed> {
        let mut keys: Vec<i64> = Vec::with_capacity(found.len().min(most));
        let mut bytes = 0;
        for row in found.iter().take(most) {
            bytes += row.try_get::<i64, _>(2)?;
            if bytes > PAGE_BYTES && !keys.is_empty() {
                break;
            }
            keys.push(row.try_get(0)?);
        }
        let more = keys.len() < found.len();
        let rows = if keys.is_empty() { Vec::new() } else { sqlx::query(self.names.sql(THESE)).bind(keys).fetch_all(connection).await? };
        whole(&rows, more)
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

/// Puts the rows of [`whole!`] together, in order of arrival.
fn whole(rows: &[PgRow], more: bool) -> Result<Page, Failed> {
    let mut jobs = Vec::new();
    let (mut texts, mut chunks, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let (part, key, number, body): (i32, i64, i64, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        match part {
            0 => jobs.push(JobRow {
                key,
                place: number,
                head: body,
                id: row.try_get(4)?,
                version: row.try_get(5)?,
                state: row.try_get(6)?,
                kind: row.try_get(7)?,
                owner: row.try_get(8)?,
                standing: row.try_get(9)?,
                hold: row.try_get(10)?,
                renewed_at: row.try_get(11)?,
            }),
            1 => texts.push((key, number, body)),
            2 => chunks.push((key, number, body)),
            _ => requests.push((key, number, body)),
        }
    }
    jobs.sort_unstable_by_key(|job| job.place);
    for belongings in [&mut chunks, &mut requests] {
        // They are read by their index, so this finds them in order.
        belongings.sort_by_key(|(_, number, _)| *number);
    }
    let mut page = Page::of(jobs, more);
    for (key, name, body) in texts {
        page.text(key, name as i16, body);
    }
    for (key, index, body) in chunks {
        page.chunk(key, index, body);
    }
    for (key, _, body) in requests {
        page.request(key, body);
    }
    Ok(page)
}
