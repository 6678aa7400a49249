//! Two owners at work on one disk, and what is known of them from outside: the promises are checked against that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use framewright_core::job::{ErrorCode, JobState};
use framewright_core::repository::durable::{
    Action, ChunkWrite, Claim, DurableRepository, EventWrite, Expect, Holder, Outcome, Ownership, Put, StoredEvent, Write,
};
use framewright_core::repository::simulated::{SimulatedDisk, SimulatedRepository};

use crate::history::{Step, Trouble};

const LEASE: Duration = Duration::from_millis(1_000);

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An acknowledged write is not there.
    Lost,
    /// Two writes that expected the same version were accepted.
    SameVersion,
    /// An event number is missing, or there twice.
    Gap,
    /// An event has another number than its writer was told.
    Number,
    /// An event that was read is not there any more, or another one is in its place.
    TakenBack,
    /// A write was accepted of an owner whose job another one had claimed.
    Fence,
    /// A job was claimed of an owner whose lease was not over.
    LiveOwner,
}

/// How often something happened that these histories are about.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reached {
    pub accepted: u32,
    pub refused: u32,
    /// Writes that were committed without their owner hearing of it, found by writing again.
    pub found: u32,
    /// Writes that failed, and were accepted when written again.
    pub repeated: u32,
    pub claimed: u32,
    /// Writes that were refused because another owner had claimed the job.
    pub fenced: u32,
    pub deleted: u32,
}

/// A write that an owner wants to see done. Its number is in its event, and is the position of the chunk row that it writes.
#[derive(Clone)]
struct Intent {
    number: u32,
    write: Write,
}

impl Intent {
    fn job(&self) -> &Arc<str> {
        &self.write.id
    }

    fn deletes(&self) -> bool {
        matches!(self.write.action, Action::Delete { .. })
    }
}

/// A manager as the store sees it.
struct Owner {
    id: Arc<str>,
    repository: SimulatedRepository,
    /// Versions of the jobs that it believes to have.
    believes: BTreeMap<Arc<str>, u64>,
    /// Writes of which it does not know whether they were committed.
    unsure: Vec<Intent>,
}

struct Simulation {
    disk: SimulatedDisk,
    owners: Vec<Owner>,
    jobs: Vec<Arc<str>>,
    now: Duration,
    trouble: Option<Trouble>,
    numbers: u32,
    identities: u32,
    // What is known from outside.
    acknowledged: Vec<(Arc<str>, u32)>,
    told: Vec<(u64, u32)>,
    /// Jobs that somebody may have deleted.
    deleted: HashSet<Arc<str>>,
    holder: HashMap<Arc<str>, Arc<str>>,
    lease_ends: HashMap<Arc<str>, Duration>,
    read: Vec<(StoredEvent, u32)>,
    expected: HashSet<(Arc<str>, u64)>,
    violations: BTreeSet<Violation>,
    reached: Reached,
}

impl Simulation {
    async fn new(disk: SimulatedDisk) -> Simulation {
        let mut simulation = Simulation {
            disk,
            owners: Vec::new(),
            jobs: Vec::new(),
            now: Duration::ZERO,
            trouble: None,
            numbers: 0,
            identities: 0,
            acknowledged: Vec::new(),
            told: Vec::new(),
            deleted: HashSet::new(),
            holder: HashMap::new(),
            lease_ends: HashMap::new(),
            read: Vec::new(),
            expected: HashSet::new(),
            violations: BTreeSet::new(),
            reached: Reached::default(),
        };
        for _ in 0..2 {
            let owner = simulation.started().await;
            simulation.owners.push(owner);
        }
        simulation
    }

    /// A process starts.
    async fn started(&mut self) -> Owner {
        self.identities += 1;
        let id: Arc<str> = format!("owner-{}", self.identities).into();
        let repository = self.disk.open().expect("opens");
        repository.enroll(&id, "{}", LEASE).await.expect("enrolls");
        self.lease_ends.insert(id.clone(), self.now + LEASE);
        Owner { id, repository, believes: BTreeMap::new(), unsure: Vec::new() }
    }

    /// Brings about what goes wrong with the next call.
    fn brew(&mut self) {
        match self.trouble {
            Some(Trouble::LostAcknowledgement) => self.disk.lose_acknowledgements(1),
            Some(Trouble::Failure) => self.disk.fail_next(1),
            Some(Trouble::Full) => self.disk.set_full(true),
            Some(Trouble::Away) => self.disk.set_away(true),
            None => {}
        }
    }

    fn calm(&mut self) {
        self.trouble = None;
        self.disk.lose_acknowledgements(0);
        self.disk.fail_next(0);
        self.disk.set_full(false);
        self.disk.set_away(false);
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn event(number: u32, expected: u64, index: usize) -> EventWrite {
        EventWrite { body: format!(r#""number":{number},"expected":{expected},"index":{index}"#).into() }
    }

    fn put(&mut self, job: &Arc<str>, expected: u64, holder: Holder, ownership: Ownership, events: usize) -> Intent {
        let number = self.number();
        let text = || (expected == 0).then(|| "{}".to_owned());
        let put = Put {
            version: expected + 1,
            state: JobState::Running,
            kind: None,
            ownership,
            hold: false,
            head: format!("{number}"),
            spec: text(),
            options: text(),
            extras: text(),
            reset_chunks: false,
            chunks: vec![ChunkWrite { index: number, body: "{}".into() }],
            logs: Vec::new(),
            events: (0..events).map(|index| Self::event(number, expected, index)).collect(),
            clear_requests: false,
        };
        let expect = if expected == 0 { Expect::Absent } else { Expect::At { version: expected, holder } };
        Intent { number, write: Write { id: job.clone(), expect, action: Action::Put(Box::new(put)) } }
    }

    /// Commits a group for an owner, and learns what became of it.
    async fn commit(&mut self, owner: usize, intents: Vec<Intent>, again: bool) {
        let group: Vec<Write> = intents.iter().map(|intent| intent.write.clone()).collect();
        self.deleted.extend(intents.iter().filter(|intent| intent.deletes()).map(|intent| intent.job().clone()));
        self.brew();
        let result = self.owners[owner].repository.commit(&group).await;
        self.calm();
        match result {
            Ok(outcomes) => {
                for (intent, outcome) in intents.into_iter().zip(outcomes) {
                    self.settle(owner, intent, outcome, again).await;
                }
            }
            Err(error) => {
                assert!(matches!(error.code, ErrorCode::StoreUnavailable | ErrorCode::StoreFull), "{error}");
                self.owners[owner].unsure.extend(intents);
            }
        }
        self.read_on().await;
    }

    async fn settle(&mut self, owner: usize, intent: Intent, outcome: Outcome, again: bool) {
        let job = intent.job().clone();
        match outcome {
            Outcome::Accepted { first, .. } => {
                self.acknowledged.push((job.clone(), intent.number));
                self.told.push((first, intent.number));
                self.reached.accepted += 1;
                self.reached.repeated += u32::from(again);
                self.reached.deleted += u32::from(intent.deletes());
                if let Expect::At { holder: Holder::Is(id), .. } = &intent.write.expect
                    && self.holder.get(&job).is_some_and(|holder| holder != id)
                {
                    self.violations.insert(Violation::Fence);
                }
                let owner = &mut self.owners[owner];
                match &intent.write.action {
                    Action::Put(put) => owner.believes.insert(job, put.version),
                    Action::Delete { .. } => owner.believes.remove(&job),
                };
            }
            refused => {
                // Written before, and not heard of: then its row is there, and stays.
                let stored = self.owners[owner].repository.load(&job).await.expect("load");
                if again && stored.is_some_and(|stored| stored.chunks.iter().any(|(index, _)| *index == intent.number)) {
                    self.acknowledged.push((job.clone(), intent.number));
                    self.reached.found += 1;
                } else {
                    self.reached.refused += 1;
                }
                let owner = &mut self.owners[owner];
                let taken = matches!(&refused, Outcome::Stale { owner: Some(holder), .. } if *holder != owner.id);
                self.reached.fenced += u32::from(taken && owner.believes.contains_key(&job));
                match refused {
                    Outcome::Stale { version, owner: Some(holder) } if holder == owner.id => owner.believes.insert(job, version),
                    _ => owner.believes.remove(&job),
                };
            }
        }
    }

    /// Once the lease of an owner is over others may have taken its jobs, and deleted them: a creation that it is not sure of
    /// is not repeated, or it would bring a deleted job back.
    fn forgo_creations(&mut self, owner: usize) {
        let owner = &mut self.owners[owner];
        if self.lease_ends[&owner.id] <= self.now {
            owner.unsure.retain(|intent| intent.write.expect != Expect::Absent);
        }
    }

    /// Does what an owner is not sure of once more.
    async fn again(&mut self, owner: usize) -> bool {
        self.forgo_creations(owner);
        let unsure = std::mem::take(&mut self.owners[owner].unsure);
        if !unsure.is_empty() {
            self.commit(owner, unsure, true).await;
        }
        self.owners[owner].unsure.is_empty()
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Create { owner } => {
                let job: Arc<str> = format!("job-{}", self.jobs.len()).into();
                self.jobs.push(job.clone());
                let id = self.owners[owner].id.clone();
                self.holder.insert(job.clone(), id.clone());
                let intent = self.put(&job, 0, Holder::Anyone, Ownership::Take(id), 1);
                if self.again(owner).await {
                    self.commit(owner, vec![intent], false).await;
                } else {
                    self.owners[owner].unsure.push(intent);
                }
            }
            Step::Write { owner, jobs, events } => {
                if !self.again(owner).await {
                    return;
                }
                let mut group: Vec<Intent> = Vec::new();
                let believes = self.owners[owner].believes.clone();
                let id = self.owners[owner].id.clone();
                for job in jobs {
                    let Some(job) = self.job(job) else { return };
                    let Some(version) = believes.get(&job) else { continue };
                    let earlier = group.iter().filter(|intent| *intent.job() == job).count() as u64;
                    group.push(self.put(&job, version + earlier, Holder::Is(id.clone()), Ownership::Keep, events));
                }
                self.commit(owner, group, false).await;
            }
            Step::Clash { job } => {
                let Some(job) = self.job(job) else { return };
                let Some(stored) = self.owners[0].repository.load(&job).await.expect("load") else { return };
                for owner in 0..2 {
                    if self.again(owner).await {
                        let intent = self.put(&job, stored.version, Holder::Anyone, Ownership::Keep, 1);
                        self.commit(owner, vec![intent], false).await;
                    }
                }
            }
            Step::Past { owner, job, back } => {
                let Some(job) = self.job(job) else { return };
                let Some(stored) = self.owners[owner].repository.load(&job).await.expect("load") else { return };
                if stored.version > back && self.again(owner).await {
                    let intent = self.put(&job, stored.version - back, Holder::Anyone, Ownership::Keep, 1);
                    self.commit(owner, vec![intent], false).await;
                }
            }
            Step::Delete { owner, job } => {
                let Some(job) = self.job(job) else { return };
                if !self.again(owner).await {
                    return;
                }
                if let Some(&expected) = self.owners[owner].believes.get(&job) {
                    let number = self.number();
                    let expect = Expect::At { version: expected, holder: Holder::Is(self.owners[owner].id.clone()) };
                    let action = Action::Delete { event: Self::event(number, expected, 0) };
                    self.commit(owner, vec![Intent { number, write: Write { id: job, expect, action } }], false).await;
                }
            }
            Step::Claim { owner } => {
                let claim = Claim { owner: self.owners[owner].id.clone(), most: 3, ..Claim::default() };
                self.brew();
                let claimed = self.owners[owner].repository.claim(&claim).await;
                self.calm();
                for claimed in claimed.unwrap_or_default() {
                    if let Some(previous) = &claimed.previous
                        && self.lease_ends.get(previous).is_some_and(|end| *end > self.now)
                    {
                        self.violations.insert(Violation::LiveOwner);
                    }
                    self.reached.claimed += 1;
                    self.holder.insert(claimed.id.clone(), claim.owner.clone());
                    let stored = self.owners[owner].repository.load(&claimed.id).await.expect("load").expect("what was claimed is there");
                    self.owners[owner].believes.insert(claimed.id, stored.version);
                }
            }
            Step::Renew { owner } => {
                let id = self.owners[owner].id.clone();
                self.brew();
                let renewed = self.owners[owner].repository.renew(&id, LEASE).await;
                self.calm();
                if renewed.unwrap_or(false) {
                    self.lease_ends.insert(id, self.now + LEASE);
                }
            }
            Step::Pass { milliseconds } => {
                let time = Duration::from_millis(milliseconds);
                self.now += time;
                self.disk.advance(time);
                for owner in 0..2 {
                    self.forgo_creations(owner);
                }
            }
            Step::Trouble(trouble) => self.trouble = Some(trouble),
            Step::PowerLoss { owners } => {
                self.disk.power_loss();
                // Before anybody goes on: what was lost could be written again.
                self.read_on().await;
                self.check().await;
                for owner in 0..2 {
                    if owners {
                        self.owners[owner] = self.started().await;
                    } else {
                        self.owners[owner].repository = self.disk.open().expect("opens");
                    }
                }
            }
            Step::WriteBack => self.disk.sync(),
        }
    }

    fn job(&self, index: usize) -> Option<Arc<str>> {
        (!self.jobs.is_empty()).then(|| self.jobs[index % self.jobs.len()].clone())
    }

    /// Reads the events as one does who listens.
    async fn read_on(&mut self) {
        let observer = self.disk.open().expect("opens");
        let last = self.read.last().map_or(0, |(event, _)| event.sequence);
        let mut next = last + 1;
        for event in observer.events(next, usize::MAX).await.expect("events") {
            if event.sequence != next {
                self.violations.insert(Violation::Gap);
            }
            next = event.sequence + 1;
            let body: serde_json::Value = serde_json::from_str(&format!("{{{}}}", event.body)).expect("JSON");
            let number = |name: &str| body[name].as_u64().expect("a number");
            if number("index") == 0 && !self.expected.insert((event.job.clone(), number("expected"))) {
                self.violations.insert(Violation::SameVersion);
            }
            self.read.push((event, number("number") as u32));
        }
        let mark = observer.mark().await.expect("mark").sequence;
        if mark < last {
            self.violations.insert(Violation::TakenBack);
        } else if mark != next - 1 {
            self.violations.insert(Violation::Gap);
        }
    }

    /// Compares what is there with what was told.
    async fn check(&mut self) {
        let observer = self.disk.open().expect("opens");
        let kept: HashMap<u64, StoredEvent> = observer.events(0, usize::MAX).await.expect("events").into_iter().map(|event| (event.sequence, event)).collect();
        let gone = |event: &StoredEvent| self.deleted.contains(&event.job) && !kept.contains_key(&event.sequence);
        if self.read.iter().any(|(event, _)| !gone(event) && kept.get(&event.sequence) != Some(event)) {
            self.violations.insert(Violation::TakenBack);
        }
        let read: HashSet<(u64, u32)> = self.read.iter().map(|(event, number)| (event.sequence, *number)).collect();
        if !self.told.iter().all(|told| read.contains(told)) {
            self.violations.insert(Violation::Number);
        }
        let mut rows: HashMap<&Arc<str>, Option<HashSet<u32>>> = HashMap::new();
        for job in &self.jobs {
            let stored = observer.load(job).await.expect("load");
            rows.insert(job, stored.map(|stored| stored.chunks.iter().map(|(index, _)| *index).collect()));
        }
        let deletions: HashSet<u32> = self.read.iter().filter(|(event, _)| self.deleted.contains(&event.job)).map(|(_, number)| *number).collect();
        for (job, number) in &self.acknowledged {
            let there = match &rows[job] {
                Some(rows) => rows.contains(number),
                None => self.deleted.contains(job) && deletions.contains(number),
            };
            if !there {
                self.violations.insert(Violation::Lost);
            }
        }
    }
}

/// Lives through a history. Gives the promises that the first check to fail names.
pub fn live(history: Vec<Step>, disk: SimulatedDisk) -> (BTreeSet<Violation>, Reached) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let mut simulation = Simulation::new(disk).await;
        for step in history {
            simulation.step(step).await;
            if !simulation.violations.is_empty() {
                return (simulation.violations, simulation.reached);
            }
        }
        // Everybody finds out what became of its writes, and a last loss of power takes nothing.
        for owner in 0..2 {
            simulation.calm();
            assert!(simulation.again(owner).await);
        }
        simulation.disk.power_loss();
        simulation.read_on().await;
        simulation.check().await;
        (simulation.violations, simulation.reached)
    })
}
