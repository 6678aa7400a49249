//! Commits: each write is judged against what is stored and what the writes before it did, then everything that was accepted
//! is written by one statement for each table.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::{Row, SqliteConnection};

use super::rows::Rows;
use super::standing::Standing;
use super::text;
use crate::planted::{Fault, is_planted};
use crate::repository::durable::{Action, ChunkWrite, EventWrite, Expect, Holder, LogWrite, Outcome, Ownership, Put, Write};

const COUNTERS: &str = "SELECT sequence, places FROM store";
const COUNT: &str = "UPDATE store SET sequence = ?1, places = ?2";

/// By the unique index of ids, one seek each.
pub const FIND: &str =
    "SELECT wanted.key, job.place, job.version, job.standing, job.owner FROM json_each(?1) AS wanted CROSS JOIN job ON job.id = wanted.value";

const INSERT_JOBS: &str = "
INSERT INTO job (place, version, standing, hold, typed, id, state, kind, owner, head)
SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
    CAST(substr(?2, value ->> 5, value ->> 6) AS TEXT), CAST(substr(?2, value ->> 7, value ->> 8) AS TEXT),
    CAST(substr(?2, value ->> 9, value ->> 10) AS TEXT), CAST(substr(?2, value ->> 11, value ->> 12) AS TEXT),
    CAST(substr(?2, value ->> 13, value ->> 14) AS TEXT)
FROM json_each(?1)";

pub const UPDATE_JOBS: &str = "
UPDATE job SET version = new.version, standing = new.standing, hold = new.hold, state = new.state, owner = new.owner, head = new.head
FROM (
    SELECT value ->> 0 AS place, value ->> 1 AS version, value ->> 2 AS standing, value ->> 3 AS hold,
        CAST(substr(?2, value ->> 4, value ->> 5) AS TEXT) AS state, CAST(substr(?2, value ->> 6, value ->> 7) AS TEXT) AS owner,
        CAST(substr(?2, value ->> 8, value ->> 9) AS TEXT) AS head
    FROM json_each(?1)
) AS new
WHERE job.place = new.place";

const WRITE_SPECS: &str = "
INSERT INTO spec SELECT value ->> 0, CAST(substr(?2, value ->> 1, value ->> 2) AS TEXT) FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body";
const WRITE_OPTIONS: &str = "
INSERT INTO options SELECT value ->> 0, CAST(substr(?2, value ->> 1, value ->> 2) AS TEXT) FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body";
const WRITE_EXTRAS: &str = "
INSERT INTO extras SELECT value ->> 0, CAST(substr(?2, value ->> 1, value ->> 2) AS TEXT) FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body";

const WRITE_CHUNKS: &str = "
INSERT INTO chunk SELECT value ->> 0, value ->> 1, CAST(substr(?2, value ->> 2, value ->> 3) AS TEXT) FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body";

const WRITE_LOGS: &str = "
INSERT INTO log SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, substr(?2, value ->> 4, value ->> 5) FROM json_each(?1) WHERE true
ON CONFLICT DO UPDATE SET body = excluded.body";

const WRITE_EVENTS: &str = "
INSERT INTO event SELECT value ->> 0, value ->> 1, CAST(substr(?2, value ->> 2, value ->> 3) AS TEXT), substr(?2, value ->> 4, value ->> 5) FROM json_each(?1)";

const DELETE_JOBS: &str = "DELETE FROM job WHERE place IN (SELECT value FROM json_each(?1))";
pub const DELETE_EVENTS: &str = "DELETE FROM event WHERE job IN (SELECT value FROM json_each(?1))";
const DELETE_CHUNKS: &str = "DELETE FROM chunk WHERE place IN (SELECT value FROM json_each(?1))";
const DELETE_REQUESTS: &str = "DELETE FROM request WHERE place IN (SELECT value FROM json_each(?1))";

/// What is known of a job while a group is judged.
struct Known {
    place: u64,
    version: u64,
    standing: Standing,
    owner: Option<Arc<str>>,
}

/// What the accepted writes of a job come to.
struct Change<'w> {
    id: &'w str,
    new: bool,
    latest: &'w Put,
    standing: Standing,
    owner: Option<Arc<str>>,
    kind: Option<&'w str>,
    spec: Option<&'w str>,
    options: Option<&'w str>,
    extras: Option<&'w str>,
    reset_chunks: bool,
    chunks: Vec<&'w ChunkWrite>,
    logs: Vec<&'w LogWrite>,
    clear_requests: bool,
}

struct Told<'w> {
    first: u64,
    job: &'w Arc<str>,
    events: &'w [EventWrite],
}

/// The events of a write as they are kept: the length of each in bytes, a colon, the event, a line feed.
fn pack(events: &[EventWrite]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(events.iter().map(|event| event.body.len() + 8).sum());
    for event in events {
        packed.extend_from_slice(event.body.len().to_string().as_bytes());
        packed.push(b':');
        packed.extend_from_slice(event.body.as_bytes());
        packed.push(b'\n');
    }
    packed
}

/// Reads what [`pack`] wrote; `None` when it is damaged.
pub fn unpack(packed: &[u8]) -> Option<Vec<Box<str>>> {
    let mut events = Vec::new();
    let mut rest = packed;
    while !rest.is_empty() {
        let colon = rest.iter().position(|&byte| byte == b':')?;
        let length: usize = str::from_utf8(&rest[..colon]).ok()?.parse().ok()?;
        let end = colon.checked_add(1)?.checked_add(length)?;
        events.push(str::from_utf8(rest.get(colon + 1..end)?).ok()?.into());
        if rest.get(end) != Some(&b'\n') {
            return None;
        }
        rest = &rest[end + 1..];
    }
    Some(events)
}

/// A group on its way into the store.
struct Group<'w> {
    jobs: HashMap<&'w str, Known>,
    sequence: u64,
    places: u64,
    changes: HashMap<u64, Change<'w>>,
    /// Places of stored jobs that go.
    deleted: Vec<u64>,
    /// Ids whose events go.
    forgotten: Vec<&'w str>,
    told: Vec<Told<'w>>,
}

impl<'w> Group<'w> {
    fn judge(&mut self, write: &'w Write) -> Outcome {
        let known = match (self.jobs.get(&*write.id), &write.expect) {
            (Some(_), Expect::Absent) => return Outcome::Duplicate,
            (None, Expect::At { .. } | Expect::Present) => return Outcome::Gone,
            (Some(known), Expect::Present) => Some(known),
            (None, Expect::Absent) => None,
            (Some(known), Expect::At { version, holder }) => {
                let held = match holder {
                    Holder::Anyone => true,
                    Holder::Nobody => known.owner.is_none(),
                    Holder::Is(owner) => known.owner.as_ref() == Some(owner),
                };
                if (known.version != *version || !held) && !is_planted(Fault::VersionCheck) {
                    return Outcome::Stale { version: known.version, owner: known.owner.clone() };
                }
                Some(known)
            }
        };
        match &write.action {
            Action::Put(put) => {
                let (place, standing, owner) = match known {
                    Some(known) => (known.place, known.standing, known.owner.clone()),
                    None => {
                        self.places += 1;
                        (self.places, Standing::New, None)
                    }
                };
                let new = known.is_none();
                let (standing, owner) = match &put.ownership {
                    Ownership::Keep => (standing, owner),
                    Ownership::Take(owner) => (Standing::Owned, Some(owner.clone())),
                    Ownership::Release => (Standing::Released, None),
                    // A job that never had an owner is still one that never had any.
                    Ownership::Clear if standing == Standing::New => (standing, None),
                    Ownership::Clear => (Standing::Cleared, None),
                };
                self.jobs.insert(&write.id, Known { place, version: put.version, standing, owner: owner.clone() });
                let change = self.changes.entry(place).or_insert_with(|| Change {
                    id: &write.id,
                    new,
                    latest: put,
                    standing,
                    owner: None,
                    kind: put.kind.as_deref(),
                    spec: None,
                    options: None,
                    extras: None,
                    reset_chunks: false,
                    chunks: Vec::new(),
                    logs: Vec::new(),
                    clear_requests: false,
                });
                change.latest = put;
                change.standing = standing;
                change.owner = owner;
                change.spec = put.spec.as_deref().or(change.spec);
                change.options = put.options.as_deref().or(change.options);
                change.extras = put.extras.as_deref().or(change.extras);
                if put.reset_chunks {
                    change.reset_chunks = true;
                    change.chunks.clear();
                }
                change.chunks.extend(&put.chunks);
                change.logs.extend(&put.logs);
                change.clear_requests |= put.clear_requests;
                let first = self.tell(&write.id, &put.events);
                Outcome::Accepted { first, place }
            }
            Action::Delete { event } => {
                let Some(known) = self.jobs.remove(&*write.id) else { return Outcome::Gone };
                let stored = self.changes.remove(&known.place).is_none_or(|change| !change.new);
                if stored {
                    self.deleted.push(known.place);
                    self.forgotten.push(&write.id);
                }
                self.told.retain(|told| told.job != &write.id);
                let first = self.tell(&write.id, std::slice::from_ref(event));
                Outcome::Accepted { first, place: known.place }
            }
        }
    }

    /// Numbers events.
    fn tell(&mut self, job: &'w Arc<str>, events: &'w [EventWrite]) -> u64 {
        if events.is_empty() {
            return 0;
        }
        let first = self.sequence + 1;
        self.sequence += events.len() as u64;
        self.told.push(Told { first, job, events });
        first
    }

    async fn write(&self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        // Deletions first: an id may come again.
        run(connection, DELETE_JOBS, &self.deleted).await?;
        run(connection, DELETE_EVENTS, &self.forgotten).await?;
        // In order of arrival, which is the order of the tables.
        let mut changes: Vec<(u64, &Change)> = self.changes.iter().map(|(&place, change)| (place, change)).collect();
        changes.sort_unstable_by_key(|&(place, _)| place);
        let places = |test: fn(&Change) -> bool| -> Vec<u64> { changes.iter().filter(|(_, change)| test(change)).map(|&(place, _)| place).collect() };
        run(connection, DELETE_CHUNKS, &places(|change| change.reset_chunks && !change.new)).await?;
        run(connection, DELETE_REQUESTS, &places(|change| change.clear_requests && !change.new)).await?;

        let mut inserts = Rows::of(INSERT_JOBS);
        let mut updates = Rows::of(UPDATE_JOBS);
        for &(place, change) in &changes {
            let put = change.latest;
            let owner = change.owner.as_deref().unwrap_or_default().as_bytes();
            let numbers = [place as i64, put.version as i64, change.standing as i64, i64::from(put.hold), i64::from(change.kind.is_some())];
            let (state, head) = (put.state.as_str().as_bytes(), put.head.as_bytes());
            if change.new {
                let kind = change.kind.unwrap_or_default().as_bytes();
                inserts.push(connection, &numbers, &[change.id.as_bytes(), state, kind, owner, head]).await?;
            } else {
                updates.push(connection, &numbers[..4], &[state, owner, head]).await?;
            }
        }
        inserts.finish(connection).await?;
        updates.finish(connection).await?;

        type Text<'w> = fn(&Change<'w>) -> Option<&'w str>;
        let texts: [(&'static str, Text); 3] =
            [(WRITE_SPECS, |change| change.spec), (WRITE_OPTIONS, |change| change.options), (WRITE_EXTRAS, |change| change.extras)];
        for (statement, text) in texts {
            let mut rows = Rows::of(statement);
            for &(place, change) in &changes {
                // A job that is created has all of them.
                if let Some(text) = text(change).or(change.new.then_some("{}")) {
                    rows.push(connection, &[place as i64], &[text.as_bytes()]).await?;
                }
            }
            rows.finish(connection).await?;
        }

        let mut chunks = Rows::of(WRITE_CHUNKS);
        let mut logs = Rows::of(WRITE_LOGS);
        for &(place, change) in &changes {
            for chunk in &change.chunks {
                chunks.push(connection, &[place as i64, i64::from(chunk.index)], &[chunk.body.as_bytes()]).await?;
            }
            for log in &change.logs {
                logs.push(connection, &[place as i64, i64::from(log.index), i64::from(log.attempt), log.stream as i64], &[log.text.as_bytes()]).await?;
            }
        }
        chunks.finish(connection).await?;
        logs.finish(connection).await?;

        let mut events = Rows::of(WRITE_EVENTS);
        for told in &self.told {
            events.push(connection, &[told.first as i64, told.events.len() as i64], &[told.job.as_bytes(), &pack(told.events)]).await?;
        }
        events.finish(connection).await?;
        Ok(())
    }
}

/// Runs a statement over an array, if there is anything in it.
async fn run<T: serde::Serialize>(connection: &mut SqliteConnection, statement: &'static str, values: &[T]) -> Result<(), sqlx::Error> {
    if !values.is_empty() {
        sqlx::query(statement).bind(serde_json::to_string(values).unwrap_or_default()).execute(connection).await?;
    }
    Ok(())
}

/// Writes a group within the transaction that is open.
pub async fn write(connection: &mut SqliteConnection, writes: &[Write]) -> Result<Vec<Outcome>, sqlx::Error> {
    let mut ids: Vec<&str> = writes.iter().map(|write| &*write.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut jobs = HashMap::with_capacity(ids.len());
    for row in sqlx::query(FIND).bind(serde_json::to_string(&ids).unwrap_or_default()).fetch_all(&mut *connection).await? {
        let standing = Standing::of(row.try_get(3)?);
        let owner = (standing == Standing::Owned).then(|| text(&row, 4).map(|owner| String::from_utf8_lossy(owner).into())).transpose()?;
        let known = Known { place: row.try_get::<i64, _>(1)? as u64, version: row.try_get::<i64, _>(2)? as u64, standing, owner };
        jobs.insert(ids[row.try_get::<i64, _>(0)? as usize], known);
    }
    let row = sqlx::query(COUNTERS).fetch_one(&mut *connection).await?;
    let (sequence, places) = (row.try_get::<i64, _>(0)? as u64, row.try_get::<i64, _>(1)? as u64);
    let mut group = Group { jobs, sequence, places, changes: HashMap::new(), deleted: Vec::new(), forgotten: Vec::new(), told: Vec::new() };
    let outcomes = writes.iter().map(|write| group.judge(write)).collect();
    group.write(connection).await?;
    if (group.sequence, group.places) != (sequence, places) {
        sqlx::query(COUNT).bind(group.sequence as i64).bind(group.places as i64).execute(connection).await?;
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_events_come_back() {
        let events: Vec<EventWrite> = ["", "a", "\"type\":\"x:1\"", "12:\n", "\u{1F600}"].iter().map(|body| EventWrite { body: (*body).into() }).collect();
        let packed = pack(&events);
        let bodies: Vec<Box<str>> = events.into_iter().map(|event| event.body).collect();
        assert_eq!(unpack(&packed), Some(bodies));
        for cut in 1..packed.len() {
            // What is cut is either a list that is shorter, or known to be damaged.
            assert!(unpack(&packed[..cut]).is_none_or(|some| some.len() < 5), "cut at {cut}");
        }
        assert_eq!(unpack(b"5:ab\n"), None);
        assert_eq!(unpack(b"18446744073709551615:ab\n"), None);
    }
}
