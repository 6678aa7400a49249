//! What is kept in memory of every job: its columns and where its texts are. Owners and leases live here alone: only one
//! process has the store, so that owners of another one are dead.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::record::Columns;
use crate::job::JobState;
use crate::repository::durable::{Claim, OwnerRow};

/// A frame in the group log that is not in a job's own files yet.
#[derive(Debug, Clone, Copy)]
pub struct Ref {
    /// Number of the segment.
    pub segment: u64,
    /// Where the frame starts.
    pub offset: u64,
    /// Bytes of its payload.
    pub len: u32,
    /// Whether it is an output, and not a change.
    pub log: bool,
}

/// A job's journal, as far as it is known to be on the disk.
#[derive(Debug, Clone, Copy)]
pub struct Kept {
    /// Bytes that count.
    pub len: u64,
    /// Bytes of what it started with.
    pub base: u64,
}

/// A job.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: Arc<str>,
    /// Its columns.
    pub columns: Columns<Arc<str>>,
    /// Its open requests, by number.
    pub requests: Vec<(u64, Box<str>)>,
    /// Its journal, when it has one.
    pub journal: Option<Kept>,
    /// What is not in its files yet, oldest first.
    pub pending: Vec<Ref>,
    /// Why it can't be read.
    pub damaged: Option<Box<str>>,
}

/// The numbers that the store counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Place of the latest job.
    pub place: u64,
    /// Number of the latest event.
    pub sequence: u64,
    /// How many requests were made.
    pub requests: u64,
    /// Number of the latest frame.
    pub frame: u64,
}

impl Counters {
    /// The larger of each.
    pub fn max(self, other: Counters) -> Counters {
        Counters {
            place: self.place.max(other.place),
            sequence: self.sequence.max(other.sequence),
            requests: self.requests.max(other.requests),
            frame: self.frame.max(other.frame),
        }
    }
}

/// What decides whether an open job is an orphan.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owned {
    Released,
    Unowned,
    By(Arc<str>),
}

struct Owner {
    place: String,
    /// By a clock that nobody sets.
    until: Instant,
    renewed_at: f64,
}

/// All jobs, and who owns them.
#[derive(Default)]
pub struct Index {
    jobs: BTreeMap<u64, Entry>,
    places: HashMap<Arc<str>, u64>,
    states: [BTreeSet<u64>; 6],
    /// Jobs that are pending or running, and not held.
    open: HashMap<Owned, BTreeSet<u64>>,
    /// Jobs with requests.
    asked: HashSet<u64>,
    damaged: BTreeSet<u64>,
    owners: HashMap<Arc<str>, Owner>,
    /// Events of the jobs that there are.
    pub live_events: u64,
    /// What was counted.
    pub counters: Counters,
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| (since.as_secs_f64() * 1e3).floor())
}

fn owned(entry: &Entry) -> Option<Owned> {
    let columns = &entry.columns;
    let open = matches!(columns.state, JobState::Pending | JobState::Running) && !columns.hold && entry.damaged.is_none();
    open.then(|| match &columns.owner {
        Some(owner) => Owned::By(owner.clone()),
        None if columns.released => Owned::Released,
        None => Owned::Unowned,
    })
}

impl Index {
    /// The job of that id.
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.jobs.get(self.places.get(id)?)
    }

    /// The job at that place.
    pub fn at(&self, place: u64) -> Option<&Entry> {
        self.jobs.get(&place)
    }

    fn unlink(&mut self, place: u64) {
        let Some(entry) = self.jobs.get(&place) else { return };
        if entry.damaged.is_some() {
            self.damaged.remove(&place);
        } else {
            self.states[entry.columns.state as usize].remove(&place);
        }
        if let Some(key) = owned(entry)
            && let Some(set) = self.open.get_mut(&key)
        {
            set.remove(&place);
            if set.is_empty() {
                self.open.remove(&key);
            }
        }
        self.asked.remove(&place);
        self.live_events -= u64::from(entry.columns.events);
    }

    fn link(&mut self, place: u64) {
        let Some(entry) = self.jobs.get(&place) else { return };
        if entry.damaged.is_some() {
            self.damaged.insert(place);
        } else {
            self.states[entry.columns.state as usize].insert(place);
        }
        if let Some(key) = owned(entry) {
            self.open.entry(key).or_default().insert(place);
        }
        if !entry.requests.is_empty() {
            self.asked.insert(place);
        }
        self.live_events += u64::from(entry.columns.events);
    }

    /// Adds a job; one of the same id that came before goes.
    pub fn insert(&mut self, entry: Entry) {
        let place = entry.columns.place;
        if let Some(before) = self.places.insert(entry.id.clone(), place) {
            self.unlink(before);
            self.jobs.remove(&before);
        }
        self.counters.place = self.counters.place.max(place);
        self.jobs.insert(place, entry);
        self.link(place);
    }

    /// Changes a job.
    pub fn change(&mut self, place: u64, change: impl FnOnce(&mut Entry)) {
        self.unlink(place);
        if let Some(entry) = self.jobs.get_mut(&place) {
            change(entry);
        }
        self.link(place);
    }

    /// Removes a job.
    pub fn remove(&mut self, place: u64) -> Option<Entry> {
        self.unlink(place);
        let entry = self.jobs.remove(&place)?;
        self.places.remove(&entry.id);
        Some(entry)
    }

    /// At most `most` places above `after` of jobs in these states (all, when empty), damaged ones among them.
    pub fn page(&self, states: &[JobState], after: u64, most: usize) -> Vec<u64> {
        let after = after.saturating_add(1);
        if states.is_empty() {
            return self.jobs.range(after..).take(most).map(|(place, _)| *place).collect();
        }
        let mut numbers: Vec<usize> = states.iter().map(|state| *state as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let sets = numbers.into_iter().map(|number| &self.states[number]).chain([&self.damaged]);
        let mut places: Vec<u64> = sets.flat_map(|set| set.range(after..).take(most).copied()).collect();
        places.sort_unstable();
        places.truncate(most);
        places
    }

    /// Makes an owner known, its lease ending after `lease`.
    pub fn enroll(&mut self, owner: &str, place: &str, lease: Duration) {
        let known = Owner { place: place.to_owned(), until: Instant::now() + lease, renewed_at: now() };
        self.owners.insert(owner.into(), known);
    }

    /// Puts the end of a lease off.
    pub fn renew(&mut self, owner: &str, lease: Duration) -> bool {
        let Some(owner) = self.owners.get_mut(owner) else { return false };
        owner.until = Instant::now() + lease;
        owner.renewed_at = now();
        true
    }

    /// Forgets an owner.
    pub fn retire(&mut self, owner: &str) {
        self.owners.remove(owner);
    }

    /// When an owner last renewed.
    pub fn renewed_at(&self, owner: &str) -> Option<f64> {
        self.owners.get(owner).map(|owner| owner.renewed_at)
    }

    /// All known owners.
    pub fn owners(&self) -> Vec<OwnerRow> {
        let now = Instant::now();
        self.owners.iter().map(|(id, owner)| OwnerRow { id: id.clone(), place: owner.place.clone(), expired: owner.until <= now }).collect()
    }

    /// The orphans that a claim gets, oldest first.
    pub fn orphans(&self, claim: &Claim) -> Vec<u64> {
        let now = Instant::now();
        let gone = |owner: &Arc<str>| claim.dead.contains(owner) || self.owners.get(owner).is_none_or(|owner| owner.until <= now);
        let orphaned = |key: &Owned| match key {
            Owned::Released => true,
            Owned::Unowned => claim.unowned,
            Owned::By(owner) => gone(owner),
        };
        let fits = |entry: &Entry| {
            let columns = &entry.columns;
            let kind = match (&columns.kind, &claim.kinds) {
                (Some(kind), Some(kinds)) => kinds.contains(kind),
                _ => true,
            };
            // A running job that nobody owns was left so on purpose.
            let unowned = columns.owner.is_none() && !columns.released;
            kind && (!unowned || columns.state == JobState::Pending)
        };
        if let Some(only) = &claim.only {
            let entry = self.get(only).filter(|entry| claim.most > 0 && owned(entry).is_some_and(|key| orphaned(&key)) && fits(entry));
            return entry.map(|entry| entry.columns.place).into_iter().collect();
        }
        let mut places = Vec::new();
        for (_, set) in self.open.iter().filter(|(key, _)| orphaned(key)) {
            places.extend(set.iter().filter(|place| self.jobs.get(place).is_some_and(fits)).take(claim.most));
        }
        places.sort_unstable();
        places.truncate(claim.most);
        places
    }

    /// Pending and running jobs of an owner, oldest first.
    pub fn owned_by(&self, owner: &str) -> Vec<Arc<str>> {
        let places = self.open.get(&Owned::By(owner.into())).into_iter().flatten();
        places.filter_map(|place| self.jobs.get(place)).map(|entry| entry.id.clone()).collect()
    }

    /// Open requests about jobs of an owner, oldest first.
    pub fn requests(&self, owner: &str) -> Vec<(Arc<str>, String)> {
        let jobs = self.asked.iter().filter_map(|place| self.jobs.get(place)).filter(|entry| entry.columns.owner.as_deref() == Some(owner));
        let mut requests: Vec<_> = jobs.flat_map(|entry| entry.requests.iter().map(|(number, body)| (*number, &entry.id, body))).collect();
        requests.sort_unstable_by_key(|(number, ..)| *number);
        requests.into_iter().map(|(_, id, body)| (id.clone(), body.to_string())).collect()
    }
}
