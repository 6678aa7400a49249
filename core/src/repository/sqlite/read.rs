//! What is read: jobs, pages of them, events, logs.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};

use super::standing::Standing;
use super::text;
use super::write::unpack;
use crate::job::JobState;
use crate::repository::durable::{Listing, Stored, StoredEvent};

/// Bytes of a page of jobs, or events; at least one is in it.
const PAGE_BYTES: i64 = 16 * 1024 * 1024;
/// Rows of chunks that are fetched at once.
const CHUNK_ROWS: i64 = 4096;

const FIND: &str = "SELECT place FROM job WHERE id = ?1";

/// Places and sizes of jobs.
const FIND_SOME: &str = "
SELECT job.place, coalesce(octet_length(spec.body), 0) + coalesce(octet_length(options.body), 0) + coalesce(octet_length(extras.body), 0)
FROM json_each(?1) AS wanted CROSS JOIN job ON job.id = wanted.value
    LEFT JOIN spec ON spec.place = job.place LEFT JOIN options ON options.place = job.place LEFT JOIN extras ON extras.place = job.place";

const JOBS: &str = "
SELECT job.place, job.id, job.version, job.state, job.kind, job.standing, job.owner, job.hold, job.head, owner.renewed_at,
    job.typed, spec.body, options.body, extras.body
FROM json_each(?1) AS page CROSS JOIN job ON job.place = page.value
    LEFT JOIN owner ON owner.id = job.owner
    LEFT JOIN spec ON spec.place = job.place LEFT JOIN options ON options.place = job.place LEFT JOIN extras ON extras.place = job.place";

/// Chunks of jobs, job by job in order of position: so the tables are walked, and so they are stored.
const CHUNKS: &str = "SELECT chunk.place, chunk.position, chunk.body FROM json_each(?1) AS page CROSS JOIN chunk ON chunk.place = page.value LIMIT ?2";
const MORE_CHUNKS: &str = "SELECT place, position, body FROM chunk WHERE place = ?1 AND position > ?2 ORDER BY position LIMIT ?3";

const REQUESTS: &str = "
SELECT request.place, request.body FROM json_each(?1) AS page CROSS JOIN request ON request.place = page.value ORDER BY request.number";

const EVENT_SIZES: &str = "
SELECT first, count, octet_length(bodies) FROM event
WHERE first >= coalesce((SELECT max(first) FROM event WHERE first <= ?1), 0) ORDER BY first LIMIT ?2";
const EVENTS: &str = "SELECT first, job, bodies FROM event WHERE first BETWEEN ?1 AND ?2 ORDER BY first";

/// ?1: an owner. From the open requests, which are few, to their jobs.
pub const REQUESTS_OF_OWNER: &str = "
SELECT job.id, request.body FROM request CROSS JOIN job ON job.place = request.place
WHERE job.owner = ?1 AND job.standing = 1 ORDER BY request.number";

/// Where a page begins (above ?1) and how large its jobs are. A listing of several states merges one walk through the index
/// for each, without sorting. Lengths are read from the heads of rows, not from the texts.
pub fn page(states: usize) -> String {
    let places = match states {
        0 => "SELECT place FROM job WHERE place > ?1".to_owned(),
        count => (0..count).map(|n| format!("SELECT place FROM job WHERE state = ?{} AND place > ?1", n + 3)).collect::<Vec<_>>().join(" UNION ALL "),
    };
    format!(
        "SELECT page.place, coalesce(octet_length(spec.body), 0) + coalesce(octet_length(options.body), 0) + coalesce(octet_length(extras.body), 0)
FROM ({places} ORDER BY place LIMIT ?2) AS page
    LEFT JOIN spec ON spec.place = page.place LEFT JOIN options ON options.place = page.place LEFT JOIN extras ON extras.place = page.place
ORDER BY page.place"
    )
}

/// A job, or the id of one whose record is damaged with what is wrong.
type Found = Result<Stored, (Arc<str>, String)>;

fn job(row: &SqliteRow) -> Result<Found, sqlx::Error> {
    let id: Arc<str> = String::from_utf8_lossy(text(row, 1)?).into();
    let mut wrong = None;
    let mut string = |column: usize, name: &str| -> Result<String, sqlx::Error> {
        let bytes = text(row, column)?;
        Ok(str::from_utf8(bytes).map(str::to_owned).unwrap_or_else(|error| {
            wrong.get_or_insert(format!("its {name} is not UTF-8: {error}"));
            String::new()
        }))
    };
    let state = string(3, "state")?;
    let kind = string(4, "type")?;
    let owner = string(6, "owner")?;
    let head = string(8, "head")?;
    string(1, "id")?;
    let mut texts = [String::new(), String::new(), String::new()];
    let mut missing = None;
    for (n, name) in ["spec", "options", "extras"].into_iter().enumerate() {
        if absent(row, 11 + n)? {
            missing.get_or_insert(format!("its {name} is missing"));
        } else {
            texts[n] = string(11 + n, name)?;
        }
    }
    let state = match JobState::parse(&state) {
        Some(state) => state,
        None => return Ok(Err((id, wrong.unwrap_or_else(|| format!("it has the unknown state {state:?}"))))),
    };
    if let Some(wrong) = wrong.or(missing) {
        return Ok(Err((id, wrong)));
    }
    let [spec, options, extras] = texts;
    let standing = Standing::of(row.try_get(5)?);
    let owned = standing == Standing::Owned;
    let typed = row.try_get::<bool, _>(10)?;
    Ok(Ok(Stored {
        id,
        place: row.try_get::<i64, _>(0)? as u64,
        version: row.try_get::<i64, _>(2)? as u64,
        state,
        kind: typed.then(|| kind.into()),
        owner: owned.then(|| owner.into()),
        released: standing == Standing::Released,
        hold: row.try_get(7)?,
        renewed_at: if owned { row.try_get(9)? } else { None },
        head,
        spec,
        options,
        extras,
        chunks: Vec::new(),
        requests: Vec::new(),
    }))
}

fn absent(row: &SqliteRow, column: usize) -> Result<bool, sqlx::Error> {
    use sqlx::ValueRef;
    Ok(row.try_get_raw(column)?.is_null())
}

/// Rows of chunks that were read.
#[derive(Default)]
struct Chunks {
    of: HashMap<i64, Vec<(u32, String)>>,
    damaged: HashMap<i64, String>,
    bytes: i64,
    last: Option<(i64, i64)>,
}

impl Chunks {
    /// Adds rows; whether there may be more of them.
    fn add(&mut self, rows: Vec<SqliteRow>) -> Result<bool, sqlx::Error> {
        let more = rows.len() as i64 == CHUNK_ROWS;
        for row in rows {
            let (place, position) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
            let body = text(&row, 2)?;
            self.last = Some((place, position));
            self.bytes += body.len() as i64;
            match (str::from_utf8(body), u32::try_from(position)) {
                (Ok(body), Ok(position)) => self.of.entry(place).or_default().push((position, body.to_owned())),
                (Err(error), _) => drop(self.damaged.entry(place).or_insert_with(|| format!("its chunk {position} is not UTF-8: {error}"))),
                (_, Err(_)) => drop(self.damaged.entry(place).or_insert_with(|| format!("it has a chunk at position {position}"))),
            }
        }
        Ok(more)
    }
}

fn array(places: &[i64]) -> String {
    serde_json::to_string(places).unwrap_or_default()
}

/// Jobs with all that belongs to them, from the first of `places` on until a page is full. Gives how many places it took.
async fn jobs(connection: &mut SqliteConnection, places: &[i64]) -> Result<(Vec<Found>, usize), sqlx::Error> {
    let mut chunks = Chunks::default();
    let mut taken = 0;
    while taken < places.len() && (taken == 0 || chunks.bytes < PAGE_BYTES) {
        let rows = sqlx::query(CHUNKS).bind(array(&places[taken..])).bind(CHUNK_ROWS).fetch_all(&mut *connection).await?;
        let mut more = chunks.add(rows)?;
        let Some((last, _)) = chunks.last.filter(|_| more) else {
            taken = places.len();
            break;
        };
        // The last of these jobs is read to its end; those after it are left to the next turn.
        while let Some((place, position)) = chunks.last.filter(|_| more) {
            let rows = sqlx::query(MORE_CHUNKS).bind(place).bind(position).bind(CHUNK_ROWS).fetch_all(&mut *connection).await?;
            more = chunks.add(rows)?;
        }
        taken = places.iter().position(|&place| place == last).map_or(places.len(), |at| at + 1);
    }
    let places = &places[..taken];
    let mut requests: HashMap<i64, Vec<String>> = HashMap::new();
    for row in sqlx::query(REQUESTS).bind(array(places)).fetch_all(&mut *connection).await? {
        requests.entry(row.try_get(0)?).or_default().push(String::from_utf8_lossy(text(&row, 1)?).into_owned());
    }
    let mut found = Vec::with_capacity(places.len());
    for row in sqlx::query(JOBS).bind(array(places)).fetch_all(connection).await? {
        let place: i64 = row.try_get(0)?;
        found.push(job(&row)?.and_then(|mut stored| match chunks.damaged.remove(&place) {
            Some(wrong) => Err((stored.id, wrong)),
            None => {
                stored.chunks = chunks.of.remove(&place).unwrap_or_default();
                stored.requests = requests.remove(&place).unwrap_or_default();
                Ok(stored)
            }
        }));
    }
    Ok((found, taken))
}

/// A job.
pub async fn load(connection: &mut SqliteConnection, id: &str) -> Result<Option<Found>, sqlx::Error> {
    let Some(row) = sqlx::query(FIND).bind(id).fetch_optional(&mut *connection).await? else { return Ok(None) };
    Ok(jobs(connection, &[row.try_get(0)?]).await?.0.pop())
}

/// Those of several jobs that are there, as many as a page holds.
pub async fn load_some(connection: &mut SqliteConnection, ids: &[Arc<str>]) -> Result<Listing, sqlx::Error> {
    let rows = sqlx::query(FIND_SOME).bind(serde_json::to_string(ids).unwrap_or_default()).fetch_all(&mut *connection).await?;
    let places = fitting(&rows)?;
    Ok(listing(jobs(connection, &places).await?.0))
}

/// The places of rows of place and size, until a page is full.
fn fitting(rows: &[SqliteRow]) -> Result<Vec<i64>, sqlx::Error> {
    let mut places = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in rows {
        bytes += row.try_get::<i64, _>(1)?;
        if bytes > PAGE_BYTES && !places.is_empty() {
            break;
        }
        places.push(row.try_get::<i64, _>(0)?);
    }
    Ok(places)
}

fn listing(found: Vec<Found>) -> Listing {
    let mut listing = Listing::default();
    for found in found {
        match found {
            Ok(stored) => listing.jobs.push(stored),
            Err(damaged) => listing.damaged.push(damaged),
        }
    }
    listing
}

/// A page of jobs.
pub async fn list(connection: &mut SqliteConnection, states: &[JobState], after: u64, most: usize) -> Result<Listing, sqlx::Error> {
    let mut states = states.to_vec();
    states.sort_unstable();
    states.dedup();
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    let mut query = sqlx::query(AssertSqlSafe(page(states.len()))).bind(i64::try_from(after).unwrap_or(i64::MAX)).bind(limit.saturating_add(1));
    for state in states {
        query = query.bind(state.as_str());
    }
    let rows = query.fetch_all(&mut *connection).await?;
    let places = fitting(&rows[..rows.len().min(most)])?;
    let (found, taken) = jobs(connection, &places).await?;
    // With no room for a single job the page ends where it began.
    let next = (taken < rows.len()).then(|| places[..taken].last().map_or(after, |&place| place as u64));
    Ok(Listing { next, ..listing(found) })
}

/// Events from a number on.
pub async fn events(connection: &mut SqliteConnection, from: u64, most: usize) -> Result<Vec<StoredEvent>, sqlx::Error> {
    let from = i64::try_from(from).unwrap_or(i64::MAX);
    let limit = i64::try_from(most).unwrap_or(i64::MAX);
    // A row more: the first one may end before `from`.
    let sizes = sqlx::query(EVENT_SIZES).bind(from).bind(limit.saturating_add(1)).fetch_all(&mut *connection).await?;
    let (mut begin, mut end) = (None, 0);
    let (mut count, mut bytes) = (0, 0);
    for row in &sizes {
        let (first, events) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
        let wanted = first + events - from.max(first);
        if wanted <= 0 {
            continue;
        }
        bytes += row.try_get::<i64, _>(2)?;
        if begin.is_some() && (count >= limit || bytes > PAGE_BYTES) {
            break;
        }
        begin = begin.or(Some(first));
        end = first;
        count += wanted;
    }
    let Some(begin) = begin else { return Ok(Vec::new()) };
    let mut found = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(most));
    for row in sqlx::query(EVENTS).bind(begin).bind(end).fetch_all(connection).await? {
        let first: i64 = row.try_get(0)?;
        let job: Arc<str> = String::from_utf8_lossy(text(&row, 1)?).into();
        let Some(bodies) = unpack(text(&row, 2)?) else {
            tracing::warn!(sequence = first, job = &*job, "events are damaged and left out");
            continue;
        };
        for (sequence, body) in (first..).zip(bodies) {
            if sequence >= from && found.len() < most {
                found.push(StoredEvent { sequence: sequence as u64, job: job.clone(), body });
            }
        }
    }
    Ok(found)
}
