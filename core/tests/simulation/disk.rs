//! What a test can do to a simulated disk.

use std::time::Duration;

use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{Action, Claim, DurableRepository, EventWrite, Expect, Outcome, Ownership, Put, Write};
use framewright_core::repository::simulated::{SimulatedDisk, SimulatedRepository};

fn create(id: &str) -> Write {
    let put = Put {
        version: 1,
        state: JobState::Running,
        kind: None,
        ownership: Ownership::Take("o".into()),
        hold: false,
        head: "{}".into(),
        spec: Some("{}".into()),
        options: Some("{}".into()),
        extras: Some("{}".into()),
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        events: vec![EventWrite { body: "\"at\":17".into() }],
        clear_requests: false,
    };
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(Box::new(put)) }
}

async fn commit(store: &SimulatedRepository, id: &str) -> Result<Outcome, Error> {
    Ok(store.commit(&[create(id)]).await?.remove(0))
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorCode {
    result.expect_err("must be refused").code
}

#[tokio::test]
async fn calls_fail_as_often_as_told() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    disk.fail_next(2);
    assert_eq!(refused(commit(&store, "a").await), ErrorCode::StoreUnavailable);
    assert_eq!(refused(store.mark().await), ErrorCode::StoreUnavailable);
    assert_eq!(store.load("a").await.unwrap(), None, "nothing was done");
    assert_eq!(commit(&store, "a").await.unwrap(), Outcome::Accepted { first: 1, place: 1 });
}

#[tokio::test]
async fn an_acknowledgement_is_lost_after_the_commit() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    disk.lose_acknowledgements(1);
    assert_eq!(refused(commit(&store, "a").await), ErrorCode::StoreUnavailable);
    assert_eq!(commit(&store, "a").await.unwrap(), Outcome::Duplicate);
    disk.power_loss();
    assert!(disk.open().unwrap().load("a").await.unwrap().is_some(), "what was committed is durable");
}

#[tokio::test]
async fn a_store_is_away_and_comes_back() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    disk.set_away(true);
    assert_eq!(refused(commit(&store, "a").await), ErrorCode::StoreUnavailable);
    assert_eq!(refused(store.owners().await), ErrorCode::StoreUnavailable);
    assert_eq!(disk.open().err().map(|error| error.code), Some(ErrorCode::StoreUnavailable));
    disk.set_away(false);
    commit(&store, "a").await.unwrap();
}

#[tokio::test]
async fn a_full_store_can_be_read() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    commit(&store, "a").await.unwrap();
    disk.set_full(true);
    assert_eq!(refused(commit(&store, "b").await), ErrorCode::StoreFull);
    assert_eq!(refused(store.renew("o", Duration::from_secs(1)).await), ErrorCode::StoreFull);
    assert!(store.load("a").await.unwrap().is_some());
    assert_eq!(store.mark().await.unwrap().sequence, 1);
    disk.set_full(false);
    commit(&store, "b").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_its_time() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    disk.set_delay(Duration::from_secs(20));
    let started = tokio::time::Instant::now();
    commit(&store, "a").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(20));
}

#[tokio::test]
async fn a_loss_of_power_takes_what_was_not_synced() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    commit(&store, "synced").await.unwrap();
    disk.skip_sync(true);
    commit(&store, "written-back").await.unwrap();
    disk.sync();
    commit(&store, "not-synced").await.unwrap();
    store.request("synced", "{}").await.unwrap();
    assert!(store.load("not-synced").await.unwrap().is_some());

    disk.power_loss();
    assert_eq!(refused(store.load("synced").await), ErrorCode::StoreUnavailable, "who had it open must open it again");
    let store = disk.open().unwrap();
    assert!(store.load("synced").await.unwrap().is_some_and(|stored| stored.requests.is_empty()));
    assert!(store.load("written-back").await.unwrap().is_some());
    assert_eq!(store.load("not-synced").await.unwrap(), None);
    // One commit that is synced takes with it what was written before.
    commit(&store, "before").await.unwrap();
    disk.skip_sync(false);
    commit(&store, "after").await.unwrap();
    disk.power_loss();
    assert!(disk.open().unwrap().load("before").await.unwrap().is_some());
}

#[tokio::test]
async fn leases_end_when_the_clock_is_moved() {
    let disk = SimulatedDisk::with_standing_clock(1_000.0);
    let store = disk.open().unwrap();
    store.enroll("o", "{}", Duration::from_secs(10)).await.unwrap();
    commit(&store, "a").await.unwrap();
    assert_eq!(store.load("a").await.unwrap().unwrap().renewed_at, Some(1_000.0));
    let claim = Claim { owner: "p".into(), most: 1, ..Claim::default() };
    disk.advance(Duration::from_millis(9_999));
    assert!(!store.owners().await.unwrap()[0].expired);
    assert_eq!(store.claim(&claim).await.unwrap(), []);
    disk.advance(Duration::from_millis(1));
    assert!(store.owners().await.unwrap()[0].expired);
    assert_eq!(store.claim(&claim).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_record_does_not_stop_the_others() {
    let disk = SimulatedDisk::new();
    let store = disk.open().unwrap();
    for id in ["a", "b", "c"] {
        commit(&store, id).await.unwrap();
    }
    disk.damage("b");
    assert_eq!(refused(store.load("b").await), ErrorCode::StoreCorrupt);
    let first = store.list(&[], 0, 2).await.unwrap();
    assert_eq!((first.jobs.len(), &*first.damaged[0].0, first.next.is_some()), (1, "b", true));
    let second = store.list(&[], first.next.unwrap(), 2).await.unwrap();
    assert_eq!((&*second.jobs[0].id, second.next), ("c", None));
}
