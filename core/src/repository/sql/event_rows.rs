//! Events in rows: the events of one write are one row (their bodies one after another, and how long each is), because a
//! row for each costs a database ten times as much.

use std::sync::Arc;

use super::judge::Told;
use crate::repository::durable::StoredEvent;

/// Bytes of a row before another one is begun.
const FULL: usize = 256 * 1024;

/// A row of events.
#[derive(Debug)]
pub struct EventRow<'g> {
    /// How many events of the group are before its first.
    pub before: u64,
    pub key: i64,
    /// The id of a job that is deleted.
    pub deleted: Option<&'g str>,
    /// Bytes of each body, separated by commas.
    pub lengths: String,
    pub bodies: String,
}

/// The rows of what a group tells.
pub fn rows<'g>(told: &'g [Told<'g>]) -> Vec<EventRow<'g>> {
    let mut rows: Vec<EventRow> = Vec::with_capacity(told.len());
    for told in told {
        let bytes = told.events.iter().map(|event| event.body.len()).sum::<usize>().min(FULL);
        let begin = |before| EventRow {
            before,
            key: told.key,
            deleted: told.deleted.as_deref(),
            lengths: String::with_capacity(told.events.len().min(4096) * 4),
            bodies: String::with_capacity(bytes),
        };
        let mut row = begin(told.before);
        for (n, event) in told.events.iter().enumerate() {
            if !row.lengths.is_empty() {
                if row.lengths.len() + row.bodies.len() + event.body.len() > FULL {
                    rows.push(std::mem::replace(&mut row, begin(told.before + n as u64)));
                } else {
                    row.lengths.push(',');
                }
            }
            row.lengths.push_str(&event.body.len().to_string());
            row.bodies.push_str(&event.body);
        }
        rows.push(row);
    }
    rows
}

/// Appends the events of a stored row that are not before `from`. What is damaged is left out: nobody may lose the others to it.
pub fn unpack(events: &mut Vec<StoredEvent>, from: u64, first: u64, job: &Arc<str>, lengths: &str, bodies: &str) {
    let mut at = 0usize;
    for (sequence, length) in (first..).zip(lengths.split(',')) {
        let end = length.parse::<usize>().ok().and_then(|length| at.checked_add(length));
        let Some((end, body)) = end.and_then(|end| Some((end, bodies.get(at..end)?))) else {
            tracing::warn!(first, "the event log is damaged: a row does not hold what it says");
            return;
        };
        if sequence >= from {
            events.push(StoredEvent { sequence, job: job.clone(), body: body.into() });
        }
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::durable::EventWrite;

    #[test]
    fn what_is_packed_comes_out_as_it_was() {
        let large = "x".repeat(FULL);
        let texts = ["a", "", "{\"b\":\"ü,\u{0}\"}", &large, "last"];
        let events: Vec<EventWrite> = texts.iter().map(|text| EventWrite { body: (*text).into() }).collect();
        let told = [Told { before: 4, key: 1, deleted: None, events: &events }];
        let rows = rows(&told);
        assert_eq!(rows.len(), 3, "a large one has a row of its own");
        let mut all = Vec::new();
        let job: Arc<str> = "job".into();
        for row in &rows {
            unpack(&mut all, 6, row.before + 1, &job, &row.lengths, &row.bodies);
        }
        let all: Vec<_> = all.iter().map(|event| (event.sequence, &*event.body)).collect();
        assert_eq!(all, [(6, texts[1]), (7, texts[2]), (8, texts[3]), (9, texts[4])]);
    }

    #[test]
    fn of_a_row_that_is_shorter_than_it_says_the_rest_is_left_out() {
        let mut events = Vec::new();
        for (lengths, bodies) in [("3,4", "abc"), ("x", "abc"), ("", ""), ("99999999999999999999", "")] {
            unpack(&mut events, 1, 1, &"job".into(), lengths, bodies);
        }
        assert_eq!(events.iter().map(|event| &*event.body).collect::<Vec<_>>(), ["abc"]);
    }
}
