//! The jobs that a manager has at hand, in maps that grow little by little: however many wait, no call is held up by a map
//! that is made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::Entry;
use crate::repository::memory::SHARDS;

/// Entries by their ticket, and the latest of each job by its id.
pub(super) struct Roster {
    by_ticket: RwLock<BTreeMap<u32, Arc<Entry>>>,
    by_id: DashMap<Arc<str>, Arc<Entry>, RandomState>,
}

impl Default for Roster {
    fn default() -> Self {
        Self { by_ticket: RwLock::default(), by_id: DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS) }
    }
}

impl Roster {
    pub fn add(&self, entry: &Arc<Entry>) {
        self.by_ticket.write().insert(entry.ticket, entry.clone());
        self.by_id.insert(entry.cell.id.clone(), entry.clone());
    }

    pub fn remove(&self, entry: &Entry) {
        self.by_ticket.write().remove(&entry.ticket);
        self.unname(entry);
    }

    /// The job's id does not mean this entry any more.
    pub fn unname(&self, entry: &Entry) {
        self.by_id.remove_if(&entry.cell.id, |_, known| known.ticket == entry.ticket);
    }

    pub fn get(&self, ticket: u32) -> Option<Arc<Entry>> {
        self.by_ticket.read().get(&ticket).cloned()
    }

    pub fn named(&self, id: &str) -> Option<Arc<Entry>> {
        self.by_id.get(id).map(|entry| entry.clone())
    }

    pub fn has(&self, ticket: u32) -> bool {
        self.by_ticket.read().contains_key(&ticket)
    }

    pub fn len(&self) -> usize {
        self.by_ticket.read().len()
    }

    /// Those that satisfy, oldest first.
    pub fn which(&self, test: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.by_ticket.read().values().filter(|entry| test(entry)).cloned().collect()
    }
}
