//! Judges a group of writes in memory, and sums up what is to be written. Pure.
//!
//! The store reads (and locks) the rows of the group's jobs, [`judge`] decides write by write as if each had been applied
//! before the next, and what comes out is the net change of each job, to be written by arrays.

use std::collections::HashMap;
use std::sync::Arc;

use super::claimable;
use crate::job::JobState;
use crate::repository::durable::{Action, EventWrite, Expect, Holder, LogStream, LogWrite, Outcome, Ownership, Put, Write};

/// How a job stands to owners; kept in the column `standing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Standing {
    /// It never had an owner.
    Fresh = 0,
    /// It has one.
    Owned = 1,
    /// Its last owner gave it back.
    Released = 2,
    /// It has none, and is nobody's to take.
    Cleared = 3,
}

impl Standing {
    /// The standing of that number.
    pub fn of(number: i16) -> Option<Standing> {
        [Standing::Fresh, Standing::Owned, Standing::Released, Standing::Cleared].into_iter().find(|standing| *standing as i16 == number)
    }
}

/// What the store holds of a job before the group.
#[derive(Debug, Clone)]
pub struct Row {
    /// The number that its rows in other tables have.
    pub key: i64,
    pub id: Arc<str>,
    pub place: u64,
    pub version: u64,
    /// Empty: nobody.
    pub owner: Arc<str>,
    pub standing: Standing,
    pub kind: Option<Arc<str>>,
}

/// What becomes of a job's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is not touched.
    Stays,
    /// It is inserted.
    Created,
    /// It is updated.
    Changed,
    /// It goes, with all that belongs to it.
    Removed,
    /// It was created and removed by the same group.
    Passing,
}

/// The net change of one job.
#[derive(Debug)]
pub struct Change<'g> {
    pub key: i64,
    pub id: Arc<str>,
    pub fate: Fate,
    /// Of a created job: its number among those that this group creates, from 1; its place follows from it.
    pub place: u64,
    pub version: u64,
    pub state: JobState,
    pub kind: Option<Arc<str>>,
    pub owner: Arc<str>,
    pub standing: Standing,
    pub hold: bool,
    pub head: &'g str,
    /// Spec, options, extras.
    pub texts: [Option<&'g str>; 3],
    pub reset_chunks: bool,
    pub chunks: Vec<(u32, &'g str)>,
    pub logs: Vec<&'g LogWrite>,
    pub clear_requests: bool,
}

impl Change<'_> {
    /// What goes into the column `claimable`.
    pub fn claimable(&self) -> i16 {
        match (self.state, self.standing) {
            _ if self.hold => claimable::NEVER,
            (JobState::Pending, Standing::Fresh) => claimable::NEW,
            (JobState::Pending | JobState::Running, Standing::Released) => claimable::RELEASED,
            (JobState::Pending | JobState::Running, Standing::Owned) => claimable::OWNED,
            _ => claimable::NEVER,
        }
    }
}

/// The events of one write.
#[derive(Debug)]
pub struct Told<'g> {
    /// How many events of the group are before these.
    pub before: u64,
    /// Whose.
    pub key: i64,
    /// The job's id, when its row does not stay to tell it.
    pub deleted: Option<Arc<str>>,
    pub events: &'g [EventWrite],
}

/// What became of a write, before the numbers are known.
#[derive(Debug)]
enum Verdict {
    Accepted { before: Option<u64>, change: usize },
    Refused(Outcome),
}

/// A judged group.
#[derive(Debug)]
pub struct Judged<'g> {
    /// Those that are touched, in the order of their first write.
    pub changes: Vec<Change<'g>>,
    /// In order; events that a later write of the group removes are left out, their numbers are not.
    pub told: Vec<Told<'g>>,
    /// How many numbers the events take.
    pub events: u64,
    /// How many places the created jobs take.
    pub created: u64,
    verdicts: Vec<Verdict>,
}

impl Judged<'_> {
    /// Whether there is nothing to be written.
    pub fn is_void(&self) -> bool {
        self.changes.iter().all(|change| change.fate == Fate::Stays)
    }

    /// The answers, once the counters before the group are known.
    pub fn outcomes(self, sequence: u64, places: u64) -> Vec<Outcome> {
        let place = |change: &Change| match change.fate {
            Fate::Created | Fate::Passing => places + change.place,
            _ => change.place,
        };
        let changes = &self.changes;
        let answer = |verdict| match verdict {
            Verdict::Refused(outcome) => outcome,
            Verdict::Accepted { before, change } => {
                Outcome::Accepted { first: before.map_or(0, |before| sequence + before + 1), place: place(&changes[change]) }
            }
        };
        self.verdicts.into_iter().map(answer).collect()
    }

    /// The changes of a fate.
    pub fn of(&self, fate: Fate) -> impl Iterator<Item = &Change<'_>> {
        self.changes.iter().filter(move |change| change.fate == fate)
    }

    /// The changes that leave a row behind.
    pub fn living(&self) -> impl Iterator<Item = &Change<'_>> {
        self.changes.iter().filter(|change| matches!(change.fate, Fate::Created | Fate::Changed))
    }
}

/// The ids that a group is about, each once, in the order in which their rows are locked.
pub fn ids(group: &[Write]) -> Vec<&str> {
    let mut ids: Vec<&str> = group.iter().map(|write| &*write.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// How many keys [`judge`] may ask for.
pub fn most_created(group: &[Write]) -> usize {
    group.iter().filter(|write| write.expect == Expect::Absent).count()
}

/// Judges a group against the rows that the store has of its jobs. `next_key` gives a number to a job that is created.
pub fn judge<'g>(group: &'g [Write], rows: Vec<Row>, mut next_key: impl FnMut() -> i64) -> Judged<'g> {
    let mut current: HashMap<Arc<str>, usize> = HashMap::with_capacity(group.len());
    let mut judged = Judged {
        changes: Vec::with_capacity(group.len()),
        told: Vec::with_capacity(group.len()),
        events: 0,
        created: 0,
        verdicts: Vec::with_capacity(group.len()),
    };
    for row in rows {
        current.insert(row.id.clone(), judged.changes.len());
        judged.changes.push(Change {
            key: row.key,
            id: row.id,
            fate: Fate::Stays,
            place: row.place,
            version: row.version,
            state: JobState::Pending,
            kind: row.kind,
            owner: row.owner,
            standing: row.standing,
            hold: false,
            head: "",
            texts: [None; 3],
            reset_chunks: false,
            chunks: Vec::new(),
            logs: Vec::new(),
            clear_requests: false,
        });
    }
    for write in group {
        let found = current.get(&write.id).copied();
        if let Some(outcome) = refusal(write, found.map(|at| &judged.changes[at])) {
            judged.verdicts.push(Verdict::Refused(outcome));
            continue;
        }
        let (at, events, deleted) = match &write.action {
            Action::Put(put) => {
                let at = found.unwrap_or_else(|| {
                    judged.created += 1;
                    current.insert(write.id.clone(), judged.changes.len());
                    judged.changes.push(created(write, next_key(), judged.created));
                    judged.changes.len() - 1
                });
                apply(&mut judged.changes[at], put);
                (at, &put.events[..], None)
            }
            Action::Delete { event } => {
                let at = found.expect("a job that is deleted was found");
                current.remove(&write.id);
                let change = &mut judged.changes[at];
                change.fate = if change.fate == Fate::Created { Fate::Passing } else { Fate::Removed };
                judged.told.retain(|told| told.key != change.key);
                (at, std::slice::from_ref(event), Some(write.id.clone()))
            }
        };
        let before = (!events.is_empty()).then_some(judged.events);
        if !events.is_empty() {
            judged.told.push(Told { before: judged.events, key: judged.changes[at].key, deleted, events });
            judged.events += events.len() as u64;
        }
        judged.verdicts.push(Verdict::Accepted { before, change: at });
    }
    judged
}

/// Why a write is not accepted.
fn refusal(write: &Write, found: Option<&Change>) -> Option<Outcome> {
    match (&write.expect, found) {
        (Expect::Absent, Some(_)) => Some(Outcome::Duplicate),
        (Expect::Absent, None) => matches!(write.action, Action::Delete { .. }).then_some(Outcome::Gone),
        (Expect::Present, Some(_)) => None,
        (Expect::At { .. } | Expect::Present, None) => Some(Outcome::Gone),
        (Expect::At { version, holder }, Some(job)) => {
            let held = match holder {
                Holder::Anyone => true,
                Holder::Nobody => job.owner.is_empty(),
                Holder::Is(owner) => job.owner == *owner,
            };
            let owner = || (!job.owner.is_empty()).then(|| job.owner.clone());
            (*version != job.version || !held).then(|| Outcome::Stale { version: job.version, owner: owner() })
        }
    }
}

fn created<'g>(write: &Write, key: i64, place: u64) -> Change<'g> {
    Change {
        key,
        id: write.id.clone(),
        fate: Fate::Created,
        place,
        version: 0,
        state: JobState::Pending,
        kind: None,
        owner: "".into(),
        standing: Standing::Fresh,
        hold: false,
        head: "",
        // There is always a spec: readers take a missing one for damage.
        texts: [Some(""), None, None],
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        clear_requests: false,
    }
}

fn apply<'g>(change: &mut Change<'g>, put: &'g Put) {
    if change.fate == Fate::Stays {
        change.fate = Fate::Changed;
    }
    if change.fate == Fate::Created && change.version == 0 {
        change.kind = put.kind.clone();
    }
    change.version = put.version;
    change.state = put.state;
    change.hold = put.hold;
    change.head = &put.head;
    (change.owner, change.standing) = match &put.ownership {
        Ownership::Keep => (change.owner.clone(), change.standing),
        Ownership::Take(owner) => (owner.clone(), Standing::Owned),
        Ownership::Release => ("".into(), Standing::Released),
        // A job that never had an owner is still one that never had any.
        Ownership::Clear if change.standing == Standing::Fresh => ("".into(), Standing::Fresh),
        Ownership::Clear => ("".into(), Standing::Cleared),
    };
    for (kept, new) in change.texts.iter_mut().zip([&put.spec, &put.options, &put.extras]) {
        if let Some(new) = new {
            *kept = Some(new);
        }
    }
    if put.reset_chunks {
        change.reset_chunks = true;
        change.chunks.clear();
    }
    let several = !change.chunks.is_empty();
    change.chunks.extend(put.chunks.iter().map(|chunk| (chunk.index, &*chunk.body)));
    if several {
        keep_last(&mut change.chunks, |chunk| chunk.0);
    }
    change.logs.extend(&put.logs);
    if change.logs.len() > 1 {
        keep_last(&mut change.logs, |log| (log.index, log.attempt, log.stream == LogStream::Stderr));
    }
    change.clear_requests |= put.clear_requests;
}

/// Of several rows with one key the last one: a statement must not write a row twice.
fn keep_last<T, K: Ord + Copy>(rows: &mut Vec<T>, key: impl Fn(&T) -> K) {
    rows.reverse();
    rows.sort_by_key(&key);
    rows.dedup_by_key(|row| key(row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::durable::ChunkWrite;

    fn put(version: u64, ownership: Ownership) -> Put {
        Put {
            version,
            state: JobState::Running,
            kind: None,
            ownership,
            hold: false,
            head: format!("head {version}"),
            spec: None,
            options: None,
            extras: None,
            reset_chunks: false,
            chunks: vec![ChunkWrite { index: 0, body: format!("chunk of {version}") }],
            logs: vec![],
            events: vec![EventWrite { body: format!("event {version}").into() }],
            clear_requests: false,
        }
    }

    fn write(id: &str, expect: Expect, action: Action) -> Write {
        Write { id: id.into(), expect, action }
    }

    fn at(version: u64, holder: Holder) -> Expect {
        Expect::At { version, holder }
    }

    fn row(id: &str, version: u64, owner: &str) -> Row {
        let standing = if owner.is_empty() { Standing::Fresh } else { Standing::Owned };
        Row { key: 7, id: id.into(), place: 3, version, owner: owner.into(), standing, kind: None }
    }

    fn judge_all<'g>(group: &'g [Write], rows: Vec<Row>) -> Judged<'g> {
        let mut key = 100;
        judge(group, rows, || {
            key += 1;
            key
        })
    }

    #[test]
    fn a_later_write_of_a_group_sees_the_earlier_ones() {
        let group = [
            write("a", Expect::Absent, Action::Put(put(1, Ownership::Take("me".into())).into())),
            write("a", Expect::Absent, Action::Put(put(1, Ownership::Keep).into())),
            write("a", at(1, Holder::Is("me".into())), Action::Put(put(2, Ownership::Keep).into())),
            write("a", at(1, Holder::Anyone), Action::Put(put(3, Ownership::Keep).into())),
        ];
        let judged = judge_all(&group, vec![]);
        assert_eq!(judged.changes.len(), 1);
        assert_eq!((judged.changes[0].fate, judged.changes[0].version, judged.changes[0].head), (Fate::Created, 2, "head 2"));
        assert_eq!(judged.changes[0].chunks, [(0, "chunk of 2")], "one row for each position");
        assert_eq!(
            judged.outcomes(10, 5),
            [
                Outcome::Accepted { first: 11, place: 6 },
                Outcome::Duplicate,
                Outcome::Accepted { first: 12, place: 6 },
                Outcome::Stale { version: 2, owner: Some("me".into()) },
            ]
        );
    }

    #[test]
    fn another_version_or_holder_is_refused_and_spoils_nothing() {
        let event = || EventWrite { body: "deleted".into() };
        let group = [
            write("a", at(4, Holder::Nobody), Action::Put(put(5, Ownership::Keep).into())),
            write("b", at(1, Holder::Anyone), Action::Delete { event: event() }),
            write("a", at(4, Holder::Is("you".into())), Action::Delete { event: event() }),
            write("c", Expect::Absent, Action::Put(put(1, Ownership::Keep).into())),
        ];
        let judged = judge_all(&group, vec![row("a", 4, "me")]);
        assert_eq!((judged.changes[0].fate, judged.events, judged.created), (Fate::Stays, 1, 1));
        let stale = Outcome::Stale { version: 4, owner: Some("me".into()) };
        assert_eq!(judged.outcomes(0, 0), [stale.clone(), Outcome::Gone, stale, Outcome::Accepted { first: 1, place: 1 }]);
    }

    #[test]
    fn a_job_that_is_deleted_and_made_again_is_another_job() {
        let group = [
            write("a", at(4, Holder::Anyone), Action::Put(put(5, Ownership::Keep).into())),
            write("a", at(5, Holder::Anyone), Action::Delete { event: EventWrite { body: "deleted".into() } }),
            write("a", Expect::Absent, Action::Put(put(1, Ownership::Keep).into())),
        ];
        let judged = judge_all(&group, vec![row("a", 4, "")]);
        assert_eq!(judged.changes.iter().map(|change| (change.key, change.fate)).collect::<Vec<_>>(), [(7, Fate::Removed), (101, Fate::Created)]);
        let told: Vec<_> = judged.told.iter().map(|told| (told.before, told.key, told.deleted.is_some())).collect();
        assert_eq!(told, [(1, 7, true), (2, 101, false)], "the events of the job that went are gone with it, their numbers stay taken");
        let first = |outcome: &Outcome| matches!(outcome, Outcome::Accepted { first, .. } if *first > 0);
        assert!(judged.outcomes(0, 9).iter().all(first));
    }

    #[test]
    fn only_what_waits_for_an_owner_is_claimable() {
        use JobState::{Completed, Paused, Pending, Running};
        for (state, ownership, hold, expected) in [
            (Pending, Ownership::Keep, false, claimable::NEW),
            (Pending, Ownership::Keep, true, claimable::NEVER),
            (Running, Ownership::Keep, false, claimable::NEVER),
            (Pending, Ownership::Clear, false, claimable::NEW),
            (Paused, Ownership::Clear, false, claimable::NEVER),
            (Running, Ownership::Release, false, claimable::RELEASED),
            (Pending, Ownership::Take("me".into()), false, claimable::OWNED),
            (Paused, Ownership::Take("me".into()), false, claimable::NEVER),
            (Completed, Ownership::Release, false, claimable::NEVER),
        ] {
            let group = [write("a", Expect::Absent, Action::Put(Put { state, hold, ..put(1, ownership.clone()) }.into()))];
            assert_eq!(judge_all(&group, vec![]).changes[0].claimable(), expected, "{state:?} {ownership:?} {hold}");
        }
    }
}
