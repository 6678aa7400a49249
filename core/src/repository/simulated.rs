//! A durable store for tests, in memory and in the hands of the test: calls fail, acknowledgements get lost, the power goes,
//! the clock stands still until it is moved. Behind the cargo feature `simulation`, which no package enables.
//!
//! [`SimulatedDisk`] is what outlives a process; each [`SimulatedRepository`] is one opening of it, as of another process.
//! A commit is written, then synced, then acknowledged; [`SimulatedDisk::power_loss`] takes back whatever was not synced.
//! Two faults can be planted ([`SimulatedDisk::skip_sync`], [`SimulatedDisk::skip_version_check`]), for tests which show
//! that a check would find them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::durable::{
    Action, Claim, Claimed, DurableRepository, Expect, Holder, Listing, LogStream, Mark, Outcome, OwnerRow, Ownership, Put, Stored, StoredEvent, Write,
};
use crate::job::{Error, ErrorCode, JobState};

/// A page of a listing ends when its texts are larger than this.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// One job.
#[derive(Clone)]
struct Row {
    place: u64,
    version: u64,
    state: JobState,
    kind: Option<Arc<str>>,
    owner: Option<Arc<str>>,
    released: bool,
    /// It has, or had, an owner.
    taken: bool,
    hold: bool,
    head: Arc<str>,
    spec: Arc<str>,
    options: Arc<str>,
    extras: Arc<str>,
    chunks: BTreeMap<u32, Arc<str>>,
    logs: BTreeMap<(u32, u32, u8), Arc<str>>,
    /// By the number of the request.
    requests: BTreeMap<u64, Arc<str>>,
    damaged: bool,
}

/// One manager.
#[derive(Clone)]
struct Owner {
    place: Arc<str>,
    /// Milliseconds of the store's clock.
    renewed_at: f64,
    ends_at: f64,
}

/// All that is stored.
#[derive(Clone, Default)]
struct Tables {
    jobs: HashMap<Arc<str>, Row>,
    /// Ids by place.
    order: BTreeMap<u64, Arc<str>>,
    events: BTreeMap<u64, (Arc<str>, Box<str>)>,
    owners: BTreeMap<Arc<str>, Owner>,
    mark: Mark,
    places: u64,
}

/// What a test has asked for.
#[derive(Default)]
struct Faults {
    fail_next: u32,
    lose_acknowledgements: u32,
    fail_commits: u32,
    lose_claims: u32,
    fail_requests: u32,
    away: bool,
    full: bool,
    delay: Duration,
    skip_sync: bool,
    skip_version_check: bool,
}

enum Clock {
    /// Goes by itself.
    Running { since: Instant, from: f64 },
    /// Stands where it was put, in milliseconds since the epoch.
    Standing(f64),
}

struct World {
    tables: Tables,
    /// What a loss of power would leave; `None`: all of `tables`.
    synced: Option<Tables>,
    faults: Faults,
    clock: Clock,
    /// Openings of an earlier one are void.
    power: u64,
}

/// What outlives a process. Clones are the same disk.
#[derive(Clone)]
pub struct SimulatedDisk {
    world: Arc<Mutex<World>>,
    /// Counts changes.
    revision: Arc<watch::Sender<u64>>,
}

impl Default for SimulatedDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulatedDisk {
    fn with(clock: Clock) -> Self {
        let world = World { tables: Tables::default(), synced: None, faults: Faults::default(), clock, power: 0 };
        SimulatedDisk { world: Arc::new(Mutex::new(world)), revision: Arc::new(watch::Sender::new(0)) }
    }

    /// An empty disk, with a clock that goes by itself.
    pub fn new() -> Self {
        let from = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1000.0);
        Self::with(Clock::Running { since: Instant::now(), from })
    }

    /// An empty disk, with a clock that only [`advance`](Self::advance) moves, starting at these milliseconds since the epoch.
    pub fn with_standing_clock(now_ms: f64) -> Self {
        Self::with(Clock::Standing(now_ms))
    }

    /// Moves the clock that decides about leases.
    pub fn advance(&self, by: Duration) {
        match &mut self.world.lock().clock {
            Clock::Standing(now) => *now += by.as_secs_f64() * 1000.0,
            Clock::Running { from, .. } => *from += by.as_secs_f64() * 1000.0,
        }
        self.revised();
    }

    /// Opens the disk, as a process would.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE while it is away.
    pub fn open(&self) -> Result<SimulatedRepository, Error> {
        let world = self.world.lock();
        if world.faults.away {
            return Err(unavailable("The simulated store is away"));
        }
        Ok(SimulatedRepository { disk: self.clone(), power: world.power, closed: AtomicBool::new(false), seen: AtomicU64::new(*self.revision.borrow()) })
    }

    /// The power goes and comes back: what was not synced is lost, and every opening is void.
    pub fn power_loss(&self) {
        let mut world = self.world.lock();
        if let Some(synced) = world.synced.take() {
            world.tables = synced;
        }
        world.power += 1;
        drop(world);
        self.revised();
    }

    /// The system writes back what it has, as it does every few seconds.
    pub fn sync(&self) {
        self.world.lock().synced = None;
    }

    /// The next calls of any opening fail with STORE_UNAVAILABLE, and do nothing.
    pub fn fail_next(&self, calls: u32) {
        self.world.lock().faults.fail_next = calls;
    }

    /// The next groups are committed, and their writers get STORE_UNAVAILABLE.
    pub fn lose_acknowledgements(&self, commits: u32) {
        self.world.lock().faults.lose_acknowledgements = commits;
    }

    /// The next groups after those whose acknowledgement is lost are not committed: STORE_UNAVAILABLE.
    pub fn fail_commits(&self, commits: u32) {
        self.world.lock().faults.fail_commits = commits;
    }

    /// How many groups are still to fail.
    pub fn commits_to_fail(&self) -> u32 {
        self.world.lock().faults.fail_commits
    }

    /// The next claims that take anything happen, and who claims gets STORE_UNAVAILABLE.
    pub fn lose_claims(&self, claims: u32) {
        self.world.lock().faults.lose_claims = claims;
    }

    /// The next readings of open requests, where there are any, fail with STORE_UNAVAILABLE.
    pub fn fail_requests(&self, readings: u32) {
        self.world.lock().faults.fail_requests = readings;
    }

    /// Every call fails with STORE_UNAVAILABLE, until it is back.
    pub fn set_away(&self, away: bool) {
        self.world.lock().faults.away = away;
        self.revised();
    }

    /// Every call that writes fails with STORE_FULL, until there is room.
    pub fn set_full(&self, full: bool) {
        self.world.lock().faults.full = full;
    }

    /// Every call takes so long before it does anything.
    pub fn set_delay(&self, delay: Duration) {
        self.world.lock().faults.delay = delay;
    }

    /// The record of a job can't be read any more.
    pub fn damage(&self, id: &str) {
        if let Some(row) = self.world.lock().tables.jobs.get_mut(id) {
            row.damaged = true;
        }
    }

    /// A planted fault: commits are acknowledged although they are not synced.
    pub fn skip_sync(&self, skip: bool) {
        self.world.lock().faults.skip_sync = skip;
    }

    /// A planted fault: any version is accepted.
    pub fn skip_version_check(&self, skip: bool) {
        self.world.lock().faults.skip_version_check = skip;
    }

    fn revised(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}

/// What is wrong with a damaged record.
const DAMAGED: &str = "its record is damaged; delete the job";

fn unavailable(message: &str) -> Error {
    Error::new(ErrorCode::StoreUnavailable, message)
}

impl World {
    fn now(&self) -> f64 {
        match &self.clock {
            Clock::Running { since, from } => from + since.elapsed().as_secs_f64() * 1000.0,
            Clock::Standing(now) => *now,
        }
    }

    /// Before anything is written: keeps what is safe, when the write will not be.
    fn begin(&mut self) {
        if self.faults.skip_sync && self.synced.is_none() {
            self.synced = Some(self.tables.clone());
        }
    }

    /// After everything was written.
    fn end(&mut self) {
        if !self.faults.skip_sync {
            self.synced = None;
        }
    }
}

impl Tables {
    fn judge(&self, write: &Write, skip_version_check: bool) -> Option<Outcome> {
        match (&write.expect, self.jobs.get(&write.id)) {
            (Expect::Absent, None) => None,
            (Expect::Absent, Some(_)) => Some(Outcome::Duplicate),
            (Expect::Present, Some(_)) => None,
            (Expect::At { .. } | Expect::Present, None) => Some(Outcome::Gone),
            (Expect::At { version, holder }, Some(row)) => {
                let held = match holder {
                    Holder::Anyone => true,
                    Holder::Nobody => row.owner.is_none(),
                    Holder::Is(owner) => row.owner.as_ref() == Some(owner),
                };
                let matches = held && (row.version == *version || skip_version_check);
                (!matches).then(|| Outcome::Stale { version: row.version, owner: row.owner.clone() })
            }
        }
    }

    fn tell(&mut self, id: &Arc<str>, body: &str) -> u64 {
        self.mark.sequence += 1;
        self.events.insert(self.mark.sequence, (id.clone(), body.into()));
        self.mark.sequence
    }

    fn write(&mut self, write: &Write, skip_version_check: bool) -> Outcome {
        if let Some(refused) = self.judge(write, skip_version_check) {
            return refused;
        }
        match &write.action {
            Action::Put(put) => {
                let place = self.put(&write.id, put);
                let mut first = 0;
                for event in &put.events {
                    let sequence = self.tell(&write.id, &event.body);
                    first = if first == 0 { sequence } else { first };
                }
                Outcome::Accepted { first, place }
            }
            Action::Delete { event } => {
                let place = self.jobs.remove(&write.id).map_or(0, |row| row.place);
                self.order.remove(&place);
                self.events.retain(|_, (job, _)| *job != write.id);
                Outcome::Accepted { first: self.tell(&write.id, &event.body), place }
            }
        }
    }

    fn put(&mut self, id: &Arc<str>, put: &Put) -> u64 {
        let Tables { jobs, order, places, .. } = self;
        let row = jobs.entry(id.clone()).or_insert_with(|| {
            *places += 1;
            order.insert(*places, id.clone());
            Row {
                place: *places,
                version: 0,
                state: put.state,
                kind: put.kind.clone(),
                owner: None,
                released: false,
                taken: false,
                hold: false,
                head: "".into(),
                spec: "".into(),
                options: "".into(),
                extras: "".into(),
                chunks: BTreeMap::new(),
                logs: BTreeMap::new(),
                requests: BTreeMap::new(),
                damaged: false,
            }
        });
        row.version = put.version;
        row.state = put.state;
        row.hold = put.hold;
        (row.owner, row.released) = match &put.ownership {
            Ownership::Keep => (row.owner.take(), row.released),
            Ownership::Take(owner) => (Some(owner.clone()), false),
            Ownership::Release => (None, true),
            Ownership::Clear => (None, false),
        };
        row.taken |= row.owner.is_some() || row.released;
        row.head = put.head.as_str().into();
        for (text, new) in [(&mut row.spec, &put.spec), (&mut row.options, &put.options), (&mut row.extras, &put.extras)] {
            if let Some(new) = new {
                *text = new.as_str().into();
            }
        }
        if put.reset_chunks {
            row.chunks.clear();
        }
        row.chunks.extend(put.chunks.iter().map(|chunk| (chunk.index, chunk.body.as_str().into())));
        row.logs.extend(put.logs.iter().map(|log| ((log.index, log.attempt, log.stream as u8), log.text.clone())));
        if put.clear_requests {
            row.requests.clear();
        }
        row.place
    }

    fn stored(&self, id: &Arc<str>, row: &Row) -> Stored {
        Stored {
            id: id.clone(),
            place: row.place,
            version: row.version,
            state: row.state,
            kind: row.kind.clone(),
            owner: row.owner.clone(),
            released: row.released,
            hold: row.hold,
            renewed_at: row.owner.as_ref().and_then(|owner| self.owners.get(owner)).map(|owner| owner.renewed_at),
            head: row.head.to_string(),
            spec: row.spec.to_string(),
            options: row.options.to_string(),
            extras: row.extras.to_string(),
            chunks: row.chunks.iter().map(|(index, body)| (*index, body.to_string())).collect(),
            requests: row.requests.values().map(|body| body.to_string()).collect(),
        }
    }

    fn claimable(&self, id: &Arc<str>, row: &Row, claim: &Claim, now: f64) -> bool {
        let orphaned = match &row.owner {
            Some(owner) => claim.dead.contains(owner) || self.owners.get(owner).is_none_or(|owner| owner.ends_at <= now),
            None => row.released || (claim.unowned && row.state == JobState::Pending && !row.taken),
        };
        orphaned
            && matches!(row.state, JobState::Pending | JobState::Running)
            && !row.hold
            && claim.only.as_ref().is_none_or(|only| only == id)
            && claim.kinds.as_ref().is_none_or(|kinds| row.kind.as_ref().is_none_or(|kind| kinds.contains(kind)))
    }
}

/// One opening of a [`SimulatedDisk`].
pub struct SimulatedRepository {
    disk: SimulatedDisk,
    power: u64,
    closed: AtomicBool,
    /// The revision that the last wait ended with.
    seen: AtomicU64,
}

/// Whether a call changes anything.
#[derive(Clone, Copy, PartialEq)]
enum Access {
    Read,
    Write,
}

impl SimulatedRepository {
    async fn call<T>(&self, access: Access, act: impl FnOnce(&mut World) -> Result<T, Error>) -> Result<T, Error> {
        let delay = self.disk.world.lock().faults.delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut world = self.disk.world.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(unavailable("The repository is closed"));
        }
        if self.power != world.power {
            return Err(unavailable("The simulated store lost its power; open it again"));
        }
        if world.faults.away {
            return Err(unavailable("The simulated store is away"));
        }
        if world.faults.fail_next > 0 {
            world.faults.fail_next -= 1;
            return Err(unavailable("The simulated store was told to fail"));
        }
        if access == Access::Read {
            return act(&mut world);
        }
        if world.faults.full {
            return Err(Error::new(ErrorCode::StoreFull, "The simulated store is full; free some space"));
        }
        world.begin();
        let result = act(&mut world);
        world.end();
        drop(world);
        self.disk.revised();
        result
    }
}

#[async_trait]
impl DurableRepository for SimulatedRepository {
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        self.call(Access::Write, |world| {
            let skip = world.faults.skip_version_check;
            if world.faults.lose_acknowledgements == 0 && world.faults.fail_commits > 0 {
                world.faults.fail_commits -= 1;
                return Err(unavailable("The simulated store was told to fail commits"));
            }
            let outcomes = group.iter().map(|write| world.tables.write(write, skip)).collect();
            if world.faults.lose_acknowledgements > 0 {
                world.faults.lose_acknowledgements -= 1;
                return Err(unavailable("The simulated store lost an acknowledgement"));
            }
            Ok(outcomes)
        })
        .await
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        self.call(Access::Read, |world| match world.tables.jobs.get_key_value(id) {
            Some((id, row)) if row.damaged => Err(Error::new(ErrorCode::StoreCorrupt, format!("Job \"{id}\" can't be read: {DAMAGED}"))),
            Some((id, row)) => Ok(Some(world.tables.stored(id, row))),
            None => Ok(None),
        })
        .await
    }

    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        self.call(Access::Read, |world| {
            let tables = &world.tables;
            let rows = tables.order.range(after.saturating_add(1)..).map(|(_, id)| (id, &tables.jobs[id]));
            let mut listing = Listing::default();
            let mut bytes = 0;
            let mut last = after;
            for (id, row) in rows.filter(|(_, row)| states.is_empty() || states.contains(&row.state)) {
                if listing.jobs.len() + listing.damaged.len() == most || bytes > PAGE_BYTES {
                    listing.next = Some(last);
                    break;
                }
                last = row.place;
                if row.damaged {
                    listing.damaged.push((id.clone(), DAMAGED.into()));
                    continue;
                }
                bytes += row.head.len() + row.spec.len() + row.options.len() + row.extras.len() + row.chunks.values().map(|body| body.len()).sum::<usize>();
                listing.jobs.push(tables.stored(id, row));
            }
            Ok(listing)
        })
        .await
    }

    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error> {
        self.call(Access::Write, |world| {
            let now = world.now();
            world.tables.owners.insert(owner.into(), Owner { place: place.into(), renewed_at: now, ends_at: now + lease.as_secs_f64() * 1000.0 });
            Ok(())
        })
        .await
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error> {
        self.call(Access::Write, |world| {
            let now = world.now();
            let Some(owner) = world.tables.owners.get_mut(owner) else { return Ok(false) };
            owner.renewed_at = now;
            owner.ends_at = now + lease.as_secs_f64() * 1000.0;
            Ok(true)
        })
        .await
    }

    async fn retire(&self, owner: &str) -> Result<(), Error> {
        self.call(Access::Write, |world| {
            world.tables.owners.remove(owner);
            Ok(())
        })
        .await
    }

    async fn owners(&self) -> Result<Vec<OwnerRow>, Error> {
        self.call(Access::Read, |world| {
            let now = world.now();
            Ok(world
                .tables
                .owners
                .iter()
                .map(|(id, owner)| OwnerRow { id: id.clone(), place: owner.place.to_string(), expired: owner.ends_at <= now })
                .collect())
        })
        .await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error> {
        self.call(Access::Write, |world| {
            let now = world.now();
            let tables = &mut world.tables;
            let orphans = tables.order.values().filter(|id| tables.claimable(id, &tables.jobs[*id], claim, now)).take(claim.most);
            let orphans: Vec<Arc<str>> = orphans.cloned().collect();
            let mut claimed = Vec::with_capacity(orphans.len());
            for id in orphans {
                if let Some(row) = tables.jobs.get_mut(&id) {
                    let previous = row.owner.replace(claim.owner.clone());
                    row.taken = true;
                    claimed.push(Claimed { id, previous, released: std::mem::take(&mut row.released) });
                }
            }
            if !claimed.is_empty() && world.faults.lose_claims > 0 {
                world.faults.lose_claims -= 1;
                return Err(unavailable("The simulated store lost the answer to a claim"));
            }
            Ok(claimed)
        })
        .await
    }

    async fn request(&self, id: &str, body: &str) -> Result<bool, Error> {
        self.call(Access::Write, |world| {
            let tables = &mut world.tables;
            let Some(row) = tables.jobs.get_mut(id) else { return Ok(false) };
            tables.mark.requests += 1;
            row.requests.insert(tables.mark.requests, body.into());
            Ok(true)
        })
        .await
    }

    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error> {
        self.call(Access::Read, |world| {
            let tables = &world.tables;
            let is_owned = |id: &&Arc<str>| {
                let row = &tables.jobs[*id];
                row.owner.as_deref() == Some(owner) && !row.hold && matches!(row.state, JobState::Pending | JobState::Running)
            };
            Ok(tables.order.values().filter(is_owned).cloned().collect())
        })
        .await
    }

    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error> {
        self.call(Access::Read, |world| {
            let owned = world.tables.jobs.iter().filter(|(_, row)| row.owner.as_deref() == Some(owner));
            let open: BTreeMap<u64, (Arc<str>, String)> =
                owned.flat_map(|(id, row)| row.requests.iter().map(|(number, body)| (*number, (id.clone(), body.to_string())))).collect();
            if !open.is_empty() && world.faults.fail_requests > 0 {
                world.faults.fail_requests -= 1;
                return Err(unavailable("The simulated store did not read requests"));
            }
            Ok(open.into_values().collect())
        })
        .await
    }

    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        self.call(Access::Read, |world| {
            let kept = world.tables.events.range(from..).take(most);
            Ok(kept.map(|(sequence, (job, body))| StoredEvent { sequence: *sequence, job: job.clone(), body: body.clone() }).collect())
        })
        .await
    }

    async fn oldest_event(&self) -> Result<u64, Error> {
        self.call(Access::Read, |world| Ok(world.tables.events.keys().next().copied().unwrap_or(world.tables.mark.sequence + 1))).await
    }

    async fn mark(&self) -> Result<Mark, Error> {
        self.call(Access::Read, |world| Ok(world.tables.mark)).await
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        let seen = self.seen.load(Ordering::Relaxed);
        let mut revision = self.disk.revision.subscribe();
        let wait = async { revision.wait_for(|revision| *revision != seen).await.map_or(seen, |revision| *revision) };
        if let Ok(now) = tokio::time::timeout(limit, wait).await {
            self.seen.fetch_max(now, Ordering::Relaxed);
        }
        None
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        self.call(Access::Read, |world| {
            Ok(world.tables.jobs.get(id).and_then(|row| row.logs.get(&(index, attempt, stream as u8))).map(|text| text.to_string()))
        })
        .await
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.disk.revised();
    }
}
