//! Judging writes and putting them into a group.

use std::sync::Arc;

use super::checkpoint::damaged;
use super::folder::check_id;
use super::frame::Kind;
use super::index::Counters;
use super::record::{Change, Columns, LogKey, Texts, Told};
use super::store::{Batch, Noted, Seen};
use crate::job::Error;
use crate::repository::durable::{Action, Claim, Claimed, EventWrite, Expect, Holder, Outcome, Ownership, Put, Write};

fn borrow(columns: &Columns<Arc<str>>) -> Columns<&str> {
    let Columns { place, step, version, state, kind, owner, released, hold, events } = columns;
    Columns {
        place: *place,
        step: *step,
        version: *version,
        state: *state,
        kind: kind.as_deref(),
        owner: owner.as_deref(),
        released: *released,
        hold: *hold,
        events: *events,
    }
}

/// Judges a write by itself, and adds it when it is accepted.
pub fn judge(batch: &mut Batch, write: &Write) -> Result<Outcome, Error> {
    let seen = batch.see(&write.id);
    let delete = matches!(write.action, Action::Delete { .. });
    let seen = match (&write.expect, seen) {
        (Expect::Absent, Some(_)) => return Ok(Outcome::Duplicate),
        (Expect::Absent, None) if delete => return Ok(Outcome::Gone),
        (Expect::Absent, None) => None,
        (Expect::At { .. } | Expect::Present, None) => return Ok(Outcome::Gone),
        (Expect::Present, Some(seen)) if seen.damaged && !delete => return Ok(Outcome::Stale { version: seen.columns.version, owner: seen.columns.owner }),
        (Expect::Present, Some(seen)) => Some(seen),
        // Nobody can know its version; all that can be done with it is to delete it.
        (Expect::At { .. }, Some(seen)) if seen.damaged && delete => Some(seen),
        (Expect::At { version, holder }, Some(Seen { columns, damaged })) => {
            let held = match holder {
                Holder::Anyone => true,
                Holder::Nobody => columns.owner.is_none(),
                Holder::Is(owner) => columns.owner.as_ref() == Some(owner),
            };
            if damaged || !held || columns.version != *version {
                return Ok(Outcome::Stale { version: columns.version, owner: columns.owner });
            }
            Some(Seen { columns, damaged })
        }
    };
    match (&write.action, seen) {
        (Action::Put(put), seen) => add_put(batch, &write.id, put, seen.map(|seen| seen.columns)),
        (Action::Delete { event }, Some(seen)) => Ok(add_delete(batch, &write.id, event, seen.columns)),
        (Action::Delete { .. }, None) => Ok(Outcome::Gone),
    }
}

fn add_put(batch: &mut Batch, id: &Arc<str>, put: &Put, before: Option<Columns<Arc<str>>>) -> Result<Outcome, Error> {
    let created = before.is_none();
    let mut columns = match before {
        Some(before) => Columns { step: before.step + 1, ..before },
        None => {
            check_id(id)?;
            batch.counters.place += 1;
            let (place, kind) = (batch.counters.place, put.kind.clone());
            Columns { place, step: 0, version: 0, state: put.state, kind, owner: None, released: false, hold: false, events: 0 }
        }
    };
    (columns.version, columns.state, columns.hold) = (put.version, put.state, put.hold);
    columns.events += put.events.len() as u32;
    match &put.ownership {
        Ownership::Keep => {}
        Ownership::Take(owner) => (columns.owner, columns.released) = (Some(owner.clone()), false),
        Ownership::Release => (columns.owner, columns.released) = (None, true),
        Ownership::Clear => (columns.owner, columns.released) = (None, false),
    }
    let place = columns.place;
    let mut frames = Vec::with_capacity(1 + put.logs.len());
    let mut change = Change::new(id, borrow(&columns));
    (change.reset_chunks, change.clear_requests) = (put.reset_chunks, put.clear_requests);
    change.texts = Texts { head: Some(&put.head), spec: put.spec.as_deref(), options: put.options.as_deref(), extras: put.extras.as_deref() };
    let rows = put.chunks.iter().map(|row| (row.index, row.body.as_str()));
    let (offset, len) = batch.draft.job(id, place, columns.step, |out| change.write(out, rows));
    frames.push((offset, len, false));
    for log in &put.logs {
        let key = LogKey { place, index: log.index, attempt: log.attempt, stream: log.stream as u8 };
        let (offset, len) = batch.draft.add(Kind::Log, |out| {
            key.write(out);
            out.extend_from_slice(log.text.as_bytes());
        });
        frames.push((offset, len, true));
    }
    let first = add_events(batch, id, place, &put.events);
    batch.put(Noted { created, id: id.clone(), columns, clear_requests: put.clear_requests, request: None, frames });
    Ok(Outcome::Accepted { first, place })
}

fn add_delete(batch: &mut Batch, id: &Arc<str>, event: &EventWrite, columns: Columns<Arc<str>>) -> Outcome {
    let place = columns.place;
    let columns = Columns { step: columns.step + 1, ..columns };
    let mut change = Change::new(id, borrow(&columns));
    change.deleted = true;
    batch.draft.job(id, place, columns.step, |out| change.write(out, std::iter::empty::<(u32, &str)>()));
    let first = add_events(batch, id, 0, std::slice::from_ref(event));
    batch.delete(id.clone(), place);
    Outcome::Accepted { first, place }
}

fn add_events(batch: &mut Batch, id: &str, place: u64, events: &[EventWrite]) -> u64 {
    if events.is_empty() {
        return 0;
    }
    let first = batch.counters.sequence + 1;
    batch.counters.sequence += events.len() as u64;
    let told = Told { first, place, id, bodies: events.iter().map(|event| &*event.body).collect() };
    let at = batch.draft.add(Kind::Events, |out| told.write(out));
    batch.tell(first, events.len() as u32, at);
    first
}

/// A change of the columns alone, or of the requests.
fn add_change(batch: &mut Batch, id: &Arc<str>, columns: Columns<Arc<str>>, request: Option<(u64, &str)>) {
    let columns = Columns { step: columns.step + 1, ..columns };
    let mut change = Change::new(id, borrow(&columns));
    change.requests.extend(request);
    let (offset, len) = batch.draft.job(id, columns.place, columns.step, |out| change.write(out, std::iter::empty::<(u32, &str)>()));
    let request = request.map(|(number, body)| (number, body.into()));
    batch.put(Noted { created: false, id: id.clone(), columns, clear_requests: false, request, frames: vec![(offset, len, false)] });
}

/// Gives orphans to a claimer.
pub fn claim(batch: &mut Batch, claim: &Claim) -> Vec<Claimed> {
    let mut claimed = Vec::new();
    for place in batch.index().orphans(claim) {
        let Some(entry) = batch.index().at(place) else { continue };
        let columns = entry.columns.clone();
        claimed.push(Claimed { id: entry.id.clone(), previous: columns.owner.clone(), released: columns.released });
        let columns = Columns { owner: Some(claim.owner.clone()), released: false, ..columns };
        add_change(batch, &entry.id, columns, None);
    }
    claimed
}

/// Leaves a request about a job; false: there is no such job.
pub fn request(batch: &mut Batch, id: &str, body: &str) -> Result<bool, Error> {
    let Some(entry) = batch.index().get(id) else { return Ok(false) };
    if let Some(message) = &entry.damaged {
        return Err(damaged(id, message));
    }
    let Counters { requests, .. } = &mut batch.counters;
    *requests += 1;
    let number = *requests;
    add_change(batch, &entry.id, entry.columns.clone(), Some((number, body)));
    Ok(true)
}
