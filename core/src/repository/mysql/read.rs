//! Gives back what is kept. A job is read in a snapshot: its rows are all of one commit.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};

use super::MysqlRepository;
use super::rows::list;
use super::write::count;
use crate::job::JobState;
use crate::repository::durable::{LogStream, Mark, StoredEvent};
use crate::repository::sql::connections::Failed;
use crate::repository::sql::event_rows;
use crate::repository::sql::page::{JobRow, Page};

/// The level holds for one transaction.
const SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// With the time since the epoch in milliseconds.
const JOBS: &str = "
    SELECT j.job_key, j.id, j.place, j.version, j.state, j.kind, j.owner, j.standing, j.hold,
        CAST(TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', o.renewed_at) AS SIGNED), j.head
    FROM framewright_jobs j LEFT JOIN framewright_owners o ON o.id = j.owner";

/// What a text is stored by, and how many parts of it count.
#[derive(Default)]
struct Parts<K> {
    current: Option<(K, i32)>,
}

impl<K: PartialEq> Parts<K> {
    /// Whether this row begins a text (`Some(true)`), goes on with it, or is left of a longer one (`None`).
    fn next(&mut self, key: K, part: i32, parts: i32) -> Option<bool> {
        if part == 0 {
            self.current = Some((key, parts));
            return Some(true);
        }
        self.current.as_ref().filter(|current| current.0 == key && part < current.1).map(|_| false)
    }
}

impl MysqlRepository {
    pub(super) async fn load_on(&self, connection: &mut MySqlConnection, id: &str) -> Result<Page, Failed> {
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let rows = sqlx::query(AssertSqlSafe(format!("{JOBS} WHERE j.id = ?"))).bind(id.as_bytes()).fetch_all(&mut *connection).await?;
        let mut page = Page::new(rows.iter().map(job_row).collect::<Result<_, _>>()?, 1);
        self.fill(connection, &mut page).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(page)
    }

    pub(super) async fn load_some_on(&self, connection: &mut MySqlConnection, ids: &[Arc<str>]) -> Result<Page, Failed> {
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let mut rows = Vec::with_capacity(ids.len());
        for ids in ids.chunks(1024) {
            let (marks, ids) = list(ids);
            let mut query = sqlx::query(AssertSqlSafe(format!("{JOBS} WHERE j.id IN ({marks})")));
            for id in ids {
                query = query.bind(id.as_bytes());
            }
            rows.append(&mut query.fetch_all(&mut *connection).await?);
        }
        self.page_of(connection, &rows, ids.len()).await
    }

    pub(super) async fn list_on(&self, connection: &mut MySqlConnection, states: &[JobState], after: u64, most: usize) -> Result<Page, Failed> {
        sqlx::raw_sql(SNAPSHOT).execute(&mut *connection).await?;
        let after = i64::try_from(after).unwrap_or(i64::MAX);
        let limit = i64::try_from(most).unwrap_or(i64::MAX).saturating_add(1);
        let mut numbers: Vec<i16> = states.iter().map(|state| *state as i16).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let rows = if numbers.is_empty() {
            sqlx::query(AssertSqlSafe(format!("{JOBS} WHERE j.place > ? ORDER BY j.place LIMIT ?"))).bind(after).bind(limit).fetch_all(&mut *connection).await?
        } else {
            // Each state is a range of the index; a filter on states would read the finished jobs on its way.
            let range = "(SELECT place FROM framewright_jobs FORCE INDEX (framewright_jobs_state) WHERE state = ? AND place > ? ORDER BY place LIMIT ?)";
            let ranges = vec![range; numbers.len()].join(" UNION ALL ");
            let sql = format!("{JOBS} JOIN (SELECT place FROM ({ranges}) ranges ORDER BY place LIMIT ?) page ON page.place = j.place ORDER BY j.place");
            let mut query = sqlx::query(AssertSqlSafe(sql));
            for number in numbers {
                query = query.bind(number).bind(after).bind(limit);
            }
            query.bind(limit).fetch_all(&mut *connection).await?
        };
        self.page_of(connection, &rows, most).await
    }

    /// As many of these as a page holds, in full; ends the transaction.
    async fn page_of(&self, connection: &mut MySqlConnection, rows: &[MySqlRow], most: usize) -> Result<Page, Failed> {
        let mut page = Page::new(rows.iter().map(job_row).collect::<Result<_, _>>()?, most);
        let mut sizes: HashMap<i64, i64> = HashMap::new();
        for table in ["framewright_texts", "framewright_chunks"] {
            for row in of_jobs(connection, &page, &format!("SELECT job_key, CAST(SUM(LENGTH(body)) AS SIGNED) FROM {table}"), "GROUP BY job_key").await? {
                *sizes.entry(row.try_get(0)?).or_default() += row.try_get_unchecked::<i64, _>(1)?;
            }
        }
        page.cut(&sizes);
        self.fill(connection, &mut page).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await?;
        Ok(page)
    }

    async fn fill(&self, connection: &mut MySqlConnection, page: &mut Page) -> Result<(), Failed> {
        let mut parts = Parts::default();
        for row in of_jobs(connection, page, "SELECT job_key, name, part, parts, body FROM framewright_texts", "ORDER BY job_key, name, part").await? {
            let (key, name) = (row.try_get(0)?, row.try_get(1)?);
            if parts.next((key, name), row.try_get(2)?, row.try_get(3)?).is_some() {
                page.text(key, name, row.try_get_unchecked(4)?);
            }
        }
        let mut parts = Parts::default();
        for row in of_jobs(connection, page, "SELECT job_key, idx, part, parts, body FROM framewright_chunks", "ORDER BY job_key, idx, part").await? {
            let (key, index): (i64, u32) = (row.try_get(0)?, row.try_get(1)?);
            match parts.next((key, index), row.try_get(2)?, row.try_get(3)?) {
                Some(true) => page.chunk(key, i64::from(index), row.try_get_unchecked(4)?),
                Some(false) => page.more_of_chunk(key, row.try_get_unchecked(4)?),
                None => {}
            }
        }
        let mut last = None;
        for row in of_jobs(connection, page, "SELECT job_key, number, part, body FROM framewright_requests", "ORDER BY number, part").await? {
            let (key, number): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            match last.replace(number) == Some(number) {
                true => page.more_of_request(key, row.try_get_unchecked(3)?),
                false => page.request(key, row.try_get_unchecked(3)?),
            }
        }
        Ok(())
    }

    pub(super) async fn request_on(&self, connection: &mut MySqlConnection, id: &str, body: &str) -> Result<bool, Failed> {
        sqlx::raw_sql("START TRANSACTION").execute(&mut *connection).await?;
        // The job's row is locked so that it does not go while the request comes.
        let job =
            sqlx::query("SELECT job_key FROM framewright_jobs WHERE id = ? LOCK IN SHARE MODE").bind(id.as_bytes()).fetch_optional(&mut *connection).await?;
        let Some(job) = job else {
            sqlx::raw_sql("ROLLBACK").execute(&mut *connection).await?;
            return Ok(false);
        };
        let key: i64 = job.try_get(0)?;
        let number = count(connection, "request", 1).await?;
        let parts: Vec<(i32, &str)> = (0..).zip(self.sizes.parts(body)).collect();
        let insert = ("INSERT INTO framewright_requests (number, part, job_key, body)", 4, "");
        self.sizes.write(connection, insert, &parts, |part| part.1.len(), |query, part| query.bind(number).bind(part.0).bind(key).bind(part.1)).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(Failed::Unsure)?;
        Ok(true)
    }

    pub(super) async fn requests_on(&self, connection: &mut MySqlConnection, owner: &str) -> Result<Vec<(Arc<str>, String)>, Failed> {
        let sql = "SELECT j.id, r.number, r.body FROM framewright_requests r JOIN framewright_jobs j ON j.job_key = r.job_key WHERE j.owner = ? ORDER BY r.number, r.part";
        let mut requests: Vec<(Arc<str>, String)> = Vec::new();
        let mut last = None;
        for row in sqlx::query(sql).bind(owner.as_bytes()).fetch_all(connection).await? {
            let (number, body): (i64, &str) = (row.try_get(1)?, row.try_get_unchecked(2)?);
            match requests.last_mut() {
                Some(request) if last == Some(number) => request.1.push_str(body),
                _ => requests.push((row.try_get_unchecked::<&str, _>(0)?.into(), body.to_owned())),
            }
            last = Some(number);
        }
        Ok(requests)
    }

    pub(super) async fn events_on(&self, connection: &mut MySqlConnection, from: u64, most: usize) -> Result<Vec<StoredEvent>, Failed> {
        // From the row that holds the event, or the next one, to the end of another: rows are counted, not their parts.
        let sql = "
            SELECT e.first, e.part, COALESCE(e.job, j.id), e.lengths, e.bodies FROM framewright_events e LEFT JOIN framewright_jobs j ON j.job_key = e.job_key
            WHERE e.first BETWEEN ? AND (SELECT MAX(first) FROM (SELECT first FROM framewright_events WHERE first >= ? AND part = 0 ORDER BY first LIMIT ?) page)
            ORDER BY e.first, e.part";
        let mut events: Vec<StoredEvent> = Vec::new();
        let mut next = i64::try_from(from).unwrap_or(i64::MAX);
        while events.len() < most {
            // The range may begin with the row before, so that it is never empty while there is more.
            let limit = EVENT_ROWS.min(i64::try_from(most - events.len()).unwrap_or(i64::MAX));
            let start: i64 =
                match sqlx::query("SELECT MAX(first) FROM framewright_events WHERE first <= ?").bind(next).fetch_one(&mut *connection).await?.try_get(0)? {
                    Some(start) => start,
                    None => next,
                };
            let rows = sqlx::query(sql).bind(start).bind(start).bind(limit.saturating_add(1)).fetch_all(&mut *connection).await?;
            let mut packed: Vec<(i64, Arc<str>, String, String)> = Vec::new();
            for row in &rows {
                let first: i64 = row.try_get(0)?;
                let bodies: &str = row.try_get_unchecked(4)?;
                match packed.last_mut().filter(|packed| packed.0 == first) {
                    Some(packed) => packed.3.push_str(bodies),
                    None => {
                        let job: Option<&str> = row.try_get_unchecked(2)?;
                        packed.push((first, job.unwrap_or_default().into(), row.try_get_unchecked(3)?, bodies.to_owned()));
                    }
                }
            }
            for (first, job, lengths, bodies) in &packed {
                event_rows::unpack(&mut events, next as u64, *first as u64, job, lengths, bodies);
            }
            match events.last() {
                Some(last) if packed.len() as i64 > limit => next = last.sequence as i64 + 1,
                _ => break,
            }
        }
        events.truncate(most);
        Ok(events)
    }

    pub(super) async fn oldest_event_on(&self, connection: &mut MySqlConnection) -> Result<u64, Failed> {
        let sql = "SELECT COALESCE((SELECT MIN(first) FROM framewright_events), (SELECT value + 1 FROM framewright_counters WHERE name = 'sequence'))";
        Ok(sqlx::query(sql).fetch_one(connection).await?.try_get_unchecked::<i64, _>(0)? as u64)
    }

    pub(super) async fn mark_on(&self, connection: &mut MySqlConnection) -> Result<Mark, Failed> {
        let sql = "SELECT (SELECT value FROM framewright_counters WHERE name = 'sequence'), (SELECT value FROM framewright_counters WHERE name = 'request')";
        let row = sqlx::query(sql).fetch_one(connection).await?;
        Ok(Mark { sequence: row.try_get::<i64, _>(0)? as u64, requests: row.try_get::<i64, _>(1)? as u64 })
    }

    pub(super) async fn read_log_on(
        &self,
        connection: &mut MySqlConnection,
        id: &str,
        index: u32,
        attempt: u32,
        stream: LogStream,
    ) -> Result<Option<String>, Failed> {
        let sql = "
            SELECT l.part, l.parts, l.body FROM framewright_logs l JOIN framewright_jobs j ON j.job_key = l.job_key
            WHERE j.id = ? AND l.idx = ? AND l.attempt = ? AND l.stream = ? ORDER BY l.part";
        let mut text: Option<String> = None;
        let mut parts = Parts::default();
        for row in sqlx::query(sql).bind(id.as_bytes()).bind(index).bind(attempt).bind(stream as i16).fetch_all(connection).await? {
            if parts.next((), row.try_get(0)?, row.try_get(1)?).is_some() {
                text.get_or_insert_default().push_str(row.try_get_unchecked(2)?);
            }
        }
        Ok(text)
    }
}

/// Rows of events read at once; each holds up to 256 KiB.
const EVENT_ROWS: i64 = 128;

/// The rows of a page's jobs in another table.
async fn of_jobs(connection: &mut MySqlConnection, page: &Page, select: &str, order: &str) -> Result<Vec<MySqlRow>, Failed> {
    let keys = page.keys();
    let mut rows = Vec::new();
    for keys in keys.chunks(1024) {
        let (marks, keys) = list(keys);
        let mut query = sqlx::query(AssertSqlSafe(format!("{select} WHERE job_key IN ({marks}) {order}")));
        for key in keys {
            query = query.bind(*key);
        }
        rows.append(&mut query.fetch_all(&mut *connection).await?);
    }
    Ok(rows)
}

// Decoded unchecked where sqlx does not take a VARBINARY for text.
fn job_row(row: &MySqlRow) -> Result<JobRow, Failed> {
    Ok(JobRow {
        key: row.try_get(0)?,
        id: row.try_get_unchecked(1)?,
        place: row.try_get(2)?,
        version: row.try_get(3)?,
        state: row.try_get(4)?,
        kind: row.try_get_unchecked(5)?,
        owner: row.try_get_unchecked(6)?,
        standing: row.try_get(7)?,
        hold: row.try_get(8)?,
        renewed_at: row.try_get_unchecked::<Option<i64>, _>(9)?.map(|micros| micros as f64 / 1000.0),
        head: row.try_get_unchecked(10)?,
    })
}
