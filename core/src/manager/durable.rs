//! What a manager on a durable store has beside its cache: identity, lease, the queue of its group commits.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::commit::Direct;
use super::owner::{Place, Presence};
use crate::job::Error;
use crate::repository::durable::OwnerRow;
use crate::repository::runtime::Store;

/// How a manager works on a durable store.
#[derive(Debug, Clone)]
pub struct DurableOptions {
    /// How long a silent owner keeps its jobs.
    pub lease: Duration,
    /// Take over jobs whose owner is gone.
    pub recover: bool,
    /// Types of job that it runs, besides those without one.
    pub kinds: Vec<Arc<str>>,
    /// Whether it has an executor.
    pub runs: bool,
}

/// Work on the store that is under way, until it is dropped.
pub(super) struct UnderWay(Arc<Durable>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The manager's place on its store.
pub struct Durable {
    /// Where the jobs are.
    pub store: Arc<Store>,
    /// Its identity. It changes when a lease may have been lost: what is still under way in the old name is refused once
    /// somebody, this manager included, has taken the job over.
    owner: Mutex<Arc<str>>,
    /// Others on this host see by it that something of this owner is about to begin a program.
    presence: Mutex<Presence>,
    /// Identities that it had before.
    former: Mutex<Vec<Arc<str>>>,
    pub(super) here: Place,
    pub(super) lease: Duration,
    pub(super) recover: bool,
    pub(super) kinds: Vec<Arc<str>>,
    pub(super) runs: bool,
    /// Whether it also takes jobs that nobody has had yet.
    pub(super) working: AtomicBool,
    pub(super) closed: AtomicBool,
    /// A commit is under way.
    pub(super) writing: AtomicBool,
    /// Claims and removals that are under way.
    under_way: AtomicUsize,
    /// Held while jobs are claimed and brought in: who looks for jobs that are this manager's must not find those.
    pub(super) taking: tokio::sync::Mutex<()>,
    /// A claim ended without an answer: jobs may be this manager's that it does not know.
    pub(super) doubtful: AtomicBool,
    pub(super) direct: Mutex<Vec<Direct>>,
    /// There is something in `direct`.
    pub(super) wake: Notify,
    /// Somebody waits for the next commit.
    pub(super) hurry: Notify,
    /// Look at the store now.
    pub(super) poke: Notify,
    /// A round of claiming was done, or is not needed.
    pub(super) looked: watch::Sender<u64>,
    /// Whether the store knows this owner; until then, why not.
    pub(super) enrolled: watch::Sender<Option<Result<(), Error>>>,
    /// Whether the store's events are followed.
    pub(super) begun: watch::Sender<bool>,
    /// When the latest renewal was asked for that the store granted.
    pub(super) renewed: Mutex<Option<Instant>>,
    /// Jobs of which this manager may be the owner without knowing them: an answer was lost, or taking them over failed.
    given_up: Mutex<Vec<Arc<str>>>,
    /// Submissions that failed and may all the same have been committed, while that is looked into: the same ids wait.
    pub(super) undone: Mutex<HashSet<Arc<str>>>,
    /// Owners whose lease was over when they were looked at, and since when.
    expired: Mutex<HashMap<Arc<str>, Instant>>,
    /// Jobs of others that somebody here waits for.
    pub(super) awaited: Mutex<HashSet<Arc<str>>>,
    /// Why the latest commit failed.
    trouble: Mutex<Option<Error>>,
}

impl Durable {
    pub(super) fn new(store: Arc<Store>, options: DurableOptions) -> Arc<Durable> {
        let owner = super::owner::new_owner();
        Arc::new(Durable {
            store,
            presence: Mutex::new(Presence::of(&owner)),
            owner: Mutex::new(owner),
            former: Mutex::default(),
            here: Place::here(),
            lease: options.lease,
            recover: options.recover,
            kinds: options.kinds,
            runs: options.runs,
            working: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            taking: tokio::sync::Mutex::default(),
            doubtful: AtomicBool::new(false),
            direct: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            poke: Notify::new(),
            looked: watch::Sender::new(0),
            enrolled: watch::Sender::new(None),
            begun: watch::Sender::new(false),
            renewed: Mutex::default(),
            given_up: Mutex::default(),
            undone: Mutex::default(),
            expired: Mutex::default(),
            awaited: Mutex::default(),
            trouble: Mutex::default(),
        })
    }

    /// Its identity now.
    pub fn owner(&self) -> Arc<str> {
        self.owner.lock().clone()
    }

    /// Goes on under a new identity; gives the old one.
    /// Nothing is done under the new name before the store has it: who looks there would take its jobs for orphans.
    pub(super) fn change_owner(&self) -> Arc<str> {
        *self.renewed.lock() = None;
        self.enrolled.send_replace(None);
        let new = super::owner::new_owner();
        *self.presence.lock() = Presence::of(&new);
        let old = std::mem::replace(&mut *self.owner.lock(), new);
        self.former.lock().push(old.clone());
        old
    }

    /// Whether that was this manager.
    pub(super) fn was_here(&self, owner: &Arc<str>) -> bool {
        *self.owner.lock() == *owner || self.former.lock().contains(owner)
    }

    /// Identities that it had before, all of them.
    pub(super) fn former(&self) -> Vec<Arc<str>> {
        self.former.lock().clone()
    }

    /// Resolves when the store has taken this owner's name, or has just refused to.
    pub(super) async fn until_enrolled(&self) -> Result<(), Error> {
        let mut enrolled = self.enrolled.subscribe();
        if let Some(Ok(())) = &*enrolled.borrow_and_update() {
            return Ok(());
        }
        // A refusal of a moment ago is not asked about again before the next try has ended.
        loop {
            if enrolled.changed().await.is_err() {
                return Err(Error::new(crate::job::ErrorCode::Closed, "The manager is closed"));
            }
            if let Some(outcome) = &*enrolled.borrow_and_update() {
                return outcome.clone();
            }
        }
    }

    pub(super) fn set_trouble(&self, error: Option<Error>) {
        *self.trouble.lock() = error;
    }

    /// Why nothing can be written at the moment, if so.
    pub fn trouble(&self) -> Option<Error> {
        self.trouble.lock().clone()
    }

    /// Owners whose leases are seen to be over for ten times as long as they were: hosts that are gone would stay for ever.
    pub(super) fn long_gone(&self, owners: &[OwnerRow]) -> Vec<Arc<str>> {
        let now = Instant::now();
        let mut expired = self.expired.lock();
        expired.retain(|known, _| owners.iter().any(|owner| owner.expired && owner.id == *known));
        for owner in owners.iter().filter(|owner| owner.expired && !self.was_here(&owner.id)) {
            expired.entry(owner.id.clone()).or_insert(now);
        }
        expired.iter().filter(|(_, since)| since.elapsed() > 10 * self.lease).map(|(owner, _)| owner.clone()).collect()
    }

    /// Says that jobs are being claimed or removed; who closes the manager waits for it.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        UnderWay(self.clone())
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }

    /// The store may name this manager as the owner of a job that it does not know: it is looked at.
    pub(super) fn suspect(&self, id: &Arc<str>) {
        let mut given_up = self.given_up.lock();
        if !given_up.contains(id) {
            given_up.push(id.clone());
        }
        drop(given_up);
        self.poke.notify_one();
    }

    /// Whether anything is to be looked at.
    pub(super) fn has_suspects(&self) -> bool {
        self.doubtful.load(Ordering::Acquire) || !self.given_up.lock().is_empty()
    }

    /// Takes what is to be looked at.
    pub(super) fn suspected(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut *self.given_up.lock())
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}
