//! Whole managers on the simulated store, whose answers get lost at the worst moment. Each works in a thread that stands
//! for the driver outside of the engine: its chunks do nothing, or wait to be stopped.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use framewright_core::executor::process::ProcessGroups;
use framewright_core::job::spec::Rules;
use framewright_core::job::state::Control;
use framewright_core::job::{Error, ErrorCode, JobState, Options, Spec};
use framewright_core::manager::{Controlled, DurableOptions, Manager, Notice, Notices, WAIT};
use framewright_core::repository::durable::{DurableRepository, Stored};
use framewright_core::repository::memory::Ask;
use framewright_core::repository::public;
use framewright_core::repository::runtime::Store;
use framewright_core::repository::simulated::{SimulatedDisk, SimulatedRepository};

/// Nothing here takes as long, unless it never ends.
const FOREVER: Duration = Duration::from_secs(20);
/// The driver looks again without being told to.
const LOOK: Duration = Duration::from_millis(20);

/// What the chunks of a worker do.
#[derive(Clone, Copy, PartialEq)]
enum Chunks {
    /// Nothing.
    End,
    /// They wait to be stopped.
    Wait,
}

struct Worker {
    manager: Arc<Manager>,
    /// Chunks that were run to their end.
    done: Arc<AtomicU32>,
    over: Arc<AtomicBool>,
    driver: Option<JoinHandle<()>>,
}

impl Worker {
    fn start(disk: &SimulatedDisk, runs: bool, chunks: Chunks) -> Worker {
        let disk = disk.clone();
        let store = Store::lazy(move || disk.open().expect("it is there")).expect("a thread");
        let options = DurableOptions { lease: Duration::from_secs(60), recover: true, kinds: Vec::new(), runs };
        let (wake, woken) = channel();
        let notices = Notices::new(move || {
            let _ = wake.send(());
        });
        let manager = Manager::over(store, options, notices, ProcessGroups::default(), 100);
        let over = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU32::new(0));
        let driver = {
            let (manager, over, done) = (manager.clone(), over.clone(), done.clone());
            std::thread::spawn(move || Driver { manager, chunks, done, running: HashMap::new() }.drive(&woken, &over))
        };
        Worker { manager, done, over, driver: Some(driver) }
    }

    /// As `submitJob` does it.
    async fn submit(&self, id: &str, chunks: u32) -> Result<(), Error> {
        let spec = format!("{{\"chunks\":[{}]}}", (0..chunks).map(|chunk| format!("{{\"id\":{chunk}}}")).collect::<Vec<_>>().join(","));
        let options = Options::parse("")?;
        let spec = Spec::parse(&spec, Rules { needs_command: false }, &options)?;
        let ticket = self.manager.submit(id, spec, options, None, true)?;
        match self.manager.committed(id).await {
            Ok(()) => self.manager.admit(ticket),
            Err(error) => {
                self.manager.discard(ticket);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn control(&self, id: &str, control: Control, ask: Ask) {
        self.manager.clone().control_stored(id.into(), control, ask, true).await.expect("it is controlled");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(driver) = self.driver.take() {
            driver.join().expect("the driver is well");
        }
    }
}

struct Driver {
    manager: Arc<Manager>,
    chunks: Chunks,
    done: Arc<AtomicU32>,
    /// Chunks that wait to be stopped, and their runs, by ticket.
    running: HashMap<u32, (u32, f64)>,
}

impl Driver {
    fn drive(&mut self, woken: &Receiver<()>, over: &AtomicBool) {
        while !over.load(Ordering::Acquire) {
            if woken.recv_timeout(LOOK) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
            for notice in self.manager.notices.take() {
                match notice {
                    Notice::Recovered { ticket, .. } => self.manager.queue_up(ticket),
                    Notice::Stop { ticket, .. } => self.stop(ticket),
                    _ => {}
                }
            }
            for ready in self.manager.ready(100, false) {
                let mut next = self.manager.next(ready.ticket);
                if self.chunks == Chunks::Wait && next >= 0.0 {
                    self.running.insert(ready.ticket, (ready.run, next));
                    continue;
                }
                while next >= 0.0 || next == WAIT {
                    next = if next == WAIT {
                        std::thread::sleep(Duration::from_secs_f64(self.manager.wait_ms(ready.ticket) / 1000.0));
                        self.manager.next(ready.ticket)
                    } else {
                        let (index, attempt) = chunk(next);
                        self.done.fetch_add(1, Ordering::Relaxed);
                        self.manager.complete(ready.ticket, index, attempt, 1.0, None)
                    };
                }
                self.manager.advance(ready.ticket, ready.run, false);
            }
        }
    }

    fn stop(&mut self, ticket: u32) {
        if let Some((run, next)) = self.running.remove(&ticket) {
            let (index, attempt) = chunk(next);
            self.manager.stopped(ticket, index, attempt);
            self.manager.advance(ticket, run, false);
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "two numbers of 32 bits in one")]
fn chunk(next: f64) -> (u32, u32) {
    let next = next as u64;
    (next as u32, (next >> 32) as u32)
}

/// The job, once it is in that state.
async fn stored(disk: &SimulatedDisk, id: &str, state: JobState) -> Stored {
    let store = disk.open().expect("it is there");
    let look = async {
        loop {
            match store.load(id).await.expect("it can be read") {
                Some(stored) if stored.state == state => return stored,
                _ => drop(store.changed(Duration::from_secs(1)).await),
            }
        }
    };
    within(look).await
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(FOREVER, what).await.expect("it happens")
}

async fn events(store: &SimulatedRepository) -> Vec<String> {
    store.events(0, 100_000).await.expect("events").into_iter().map(|event| event.body.into()).collect()
}

#[tokio::test]
async fn what_a_claim_without_an_answer_took_goes_on() {
    let disk = SimulatedDisk::new();
    let client = Worker::start(&disk, false, Chunks::End);
    within(client.submit("a", 2)).await.expect("taken");
    disk.lose_claims(1);
    let worker = Worker::start(&disk, true, Chunks::End);
    worker.manager.work(true);
    stored(&disk, "a", JobState::Completed).await;
}

#[tokio::test]
async fn a_resume_without_an_answer_goes_on() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::End);
    let client = Worker::start(&disk, false, Chunks::End);
    within(client.submit("a", 2)).await.expect("taken");
    within(client.control("a", Control::Pause, Ask::Pause { graceful: false })).await;
    disk.lose_acknowledgements(1);
    let resumed = within(worker.manager.clone().resume_stored("a".into(), "{}".into(), true)).await;
    assert_eq!(resumed.map_err(|error| error.code), Err(ErrorCode::StoreUnavailable));
    stored(&disk, "a", JobState::Completed).await;
}

#[tokio::test]
async fn a_request_that_could_not_be_read_is_asked_for_again() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::Wait);
    let client = Worker::start(&disk, false, Chunks::End);
    within(worker.submit("a", 2)).await.expect("taken");
    stored(&disk, "a", JobState::Running).await;
    disk.fail_requests(1);
    within(client.control("a", Control::Cancel, Ask::Cancel { reason: None })).await;
    stored(&disk, "a", JobState::Cancelled).await;
}

#[tokio::test]
async fn events_of_a_write_whose_answer_was_lost_are_told_once() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::End);
    for round in 0..4 {
        let id = format!("a{round}");
        // So many that they are written in several groups.
        within(worker.submit(&id, 5_000)).await.expect("taken");
        // One whose answer is lost, and others that fail while the job goes on.
        disk.lose_acknowledgements(1);
        disk.fail_commits(2);
        stored(&disk, &id, JobState::Completed).await;
        disk.lose_acknowledgements(0);
        disk.fail_commits(0);
    }
    let all = events(&disk.open().expect("it is there")).await;
    for (kind, expected) in [("job.started", 4), ("job.completed", 4), ("chunk.started", 20_000), ("chunk.completed", 20_000)] {
        assert_eq!(all.iter().filter(|body| body.contains(&format!("\"type\":\"{kind}\""))).count(), expected, "{kind}");
    }
}

#[tokio::test]
async fn the_undoing_of_a_failed_submission_spares_the_next_one_of_that_id() {
    for _ in 0..20 {
        let disk = SimulatedDisk::new();
        let worker = Worker::start(&disk, false, Chunks::End);
        within(worker.submit("before", 1)).await.expect("taken");
        disk.lose_acknowledgements(1);
        assert_eq!(within(worker.submit("a", 1)).await.map_err(|error| error.code), Err(ErrorCode::StoreUnavailable));
        disk.set_away(true);
        assert_eq!(within(worker.submit("a", 1)).await.map_err(|error| error.code), Err(ErrorCode::StoreUnavailable));
        disk.set_away(false);
        while let Err(error) = within(worker.submit("a", 1)).await {
            // What is not taken may be submitted again; it never counts as somebody else's.
            assert_eq!(error.code, ErrorCode::StoreUnavailable);
        }
        within(worker.submit("after", 1)).await.expect("taken");
        stored(&disk, "a", JobState::Pending).await;
    }
}

#[tokio::test]
async fn what_is_submitted_while_the_manager_closes_is_the_next_ones() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::End);
    disk.set_delay(Duration::from_millis(30));
    // The second waits until the first is written.
    let first = async { within(worker.submit("first", 1)).await };
    let second = async {
        tokio::time::sleep(Duration::from_millis(10)).await;
        within(worker.submit("a", 1)).await
    };
    let close = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        worker.manager.close();
        worker.manager.clone().retire(FOREVER).await
    };
    let (first, second, closed) = tokio::join!(first, second, within(close));
    first.and(second).expect("taken");
    closed.expect("written");
    disk.set_delay(Duration::ZERO);
    assert!(stored(&disk, "a", JobState::Pending).await.released);
    let _next = Worker::start(&disk, true, Chunks::End);
    stored(&disk, "a", JobState::Completed).await;
}

#[tokio::test]
async fn a_save_by_others_is_not_taken_for_a_write_that_failed() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::Wait);
    within(worker.submit("a", 2)).await.expect("taken");
    stored(&disk, "a", JobState::Running).await;
    let repository: Arc<dyn DurableRepository> = Arc::new(disk.open().expect("it is there"));
    // A commit that fails, and before it is tried again somebody else's save, which takes the same version.
    disk.fail_commits(1);
    let before = repository.load("a").await.expect("it can be read").expect("it is there").version;
    worker.manager.warn("a", "look at this", None);
    let failed = async {
        while disk.commits_to_fail() > 0 {
            tokio::task::yield_now().await;
        }
    };
    within(failed).await;
    let status = worker.manager.clone().fetch("a".into()).await.expect("it can be read").expect("it is there").status;
    let changed = status.replacen('{', "{\"note\":\"mine\",", 1).replacen(&format!("\"version\":{before}"), "\"seen\":0", 1);
    within(public::save(&repository, &changed)).await.expect("saved");
    within(worker.control("a", Control::Cancel, Ask::Cancel { reason: None })).await;
    let end = stored(&disk, "a", JobState::Cancelled).await;
    assert!(end.extras.contains("\"note\":\"mine\""), "{}", end.extras);
    let all = events(&disk.open().expect("it is there")).await;
    assert_eq!(all.iter().filter(|body| body.contains("look at this")).count(), 1);
}

#[tokio::test]
async fn who_is_told_that_a_job_has_ended_finds_it_ended_in_the_store() {
    for waits in [true, false] {
        let disk = SimulatedDisk::new();
        let worker = Worker::start(&disk, true, Chunks::Wait);
        worker.manager.work(!waits);
        within(worker.submit("a", 1)).await.expect("taken");
        stored(&disk, "a", if waits { JobState::Pending } else { JobState::Running }).await;
        // The end is known here long before it is written.
        disk.fail_commits(3);
        let cancel = || worker.manager.clone().control_stored("a".into(), Control::Cancel, Ask::Cancel { reason: None }, true);
        let told = async {
            while matches!(cancel().await.expect("it is controlled"), Controlled::Stopping) {
                tokio::task::yield_now().await;
            }
        };
        within(told).await;
        let found = disk.open().expect("it is there").load("a").await.expect("it can be read").expect("it is there");
        assert_eq!((found.state, disk.commits_to_fail()), (JobState::Cancelled, 0), "waits: {waits}");
    }
}

#[tokio::test]
async fn what_has_ended_and_is_not_written_yet_is_not_taken_over_again() {
    let disk = SimulatedDisk::new();
    let worker = Worker::start(&disk, true, Chunks::End);
    let client = Worker::start(&disk, false, Chunks::End);
    for n in 0..4 {
        let (id, other) = (format!("a{n}"), format!("b{n}"));
        worker.manager.work(false);
        within(client.submit(&other, 1)).await.expect("taken");
        within(worker.submit(&id, 3)).await.expect("taken");
        // Its end can't be written for a while, in which a claim has no answer.
        disk.fail_commits(6);
        disk.lose_claims(1);
        worker.manager.work(true);
        for id in [&id, &other] {
            stored(&disk, id, JobState::Completed).await;
        }
        disk.fail_commits(0);
        disk.lose_claims(0);
    }
    assert_eq!(worker.done.load(Ordering::Relaxed), 16);
}
