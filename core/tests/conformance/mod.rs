//! What every durable repository must do: one suite for the trait [`DurableRepository`], run against each implementation.
//!
//! A case is an async function over a [`Fixture`], a fresh store that is open once. `conformance!(name, factory)` makes a
//! test of each case, in a module of that name; the factory is an async function without arguments that gives a
//! [`Subject`]. To add a store, add one such line to `repositories.rs`.
//!
//! What a subject must give:
//! - [`Subject::open`] opens the same store once more, as another process would (connections and a thread of its own).
//! - A store that only one process may open says so by [`Subject::exclusive`]; its cases run over one opening then.
//! - Nothing else may write to the store, and it is empty: numbering and places start at 1. What must be cleaned up (a
//!   directory, a schema) is cleaned up when the subject is dropped, or left to the next run.
//!
//! The cases use nothing but the trait. They wait for what they need (an answer, `owners()` telling that a lease is over)
//! and never for a time to pass; each is given up after two minutes. Their sentences are the guarantees:
//! - `write`: what is accepted, what is refused, and what a group is.
//! - `content`: what is stored comes back unchanged, whatever it is and however much.
//! - `listing`: order of arrival, pages, states, all while others write.
//! - `event`: numbering without gaps over all openings, paging, marks, waking.
//! - `ownership`: leases, claims, requests.
//! - `lifetime`: closing and opening again.

pub mod content;
pub mod event;
pub mod lifetime;
pub mod listing;
pub mod ownership;
pub mod write;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use framewright_core::job::{Error, JobState};
use framewright_core::repository::durable::{
    Action, ChunkWrite, Claim, Claimed, DurableRepository, EventWrite, Expect, Holder, Listing, LogStream, LogWrite, Mark, Outcome, OwnerRow, Ownership, Put,
    Stored, StoredEvent, Write,
};
use framewright_core::repository::runtime::Store;

/// A lease that does not end during a test.
pub const LONG: Duration = Duration::from_secs(3600);

/// One store of an implementation, which was empty when this was made.
#[async_trait]
pub trait Subject: Send + Sync + 'static {
    /// Opens it: connections and a thread of its own, as in another process.
    async fn open(&self) -> Result<Arc<Store>, Error>;

    /// Whether only one process at a time may open it.
    fn exclusive(&self) -> bool {
        false
    }
}

/// A store that is open once.
pub struct Fixture {
    subject: Box<dyn Subject>,
    /// The first opening.
    pub store: Opening,
}

impl Fixture {
    /// Opens a subject for the first time.
    pub async fn new(subject: impl Subject) -> Fixture {
        let store = Opening(subject.open().await.expect("the store opens"));
        Fixture { subject: Box::new(subject), store }
    }

    /// `count` openings, the first among them; all the same one where the store allows only one process.
    pub async fn openings(&self, count: usize) -> Vec<Opening> {
        let mut openings = vec![self.store.clone()];
        while openings.len() < count {
            openings.push(match self.subject.exclusive() {
                true => self.store.clone(),
                false => Opening(self.subject.open().await.expect("the store opens once more")),
            });
        }
        openings
    }

    /// Closes the store, lets go of it, and opens it again.
    pub async fn reopen(self) -> Fixture {
        let Fixture { subject, store } = self;
        store.close().await;
        drop(store);
        let store = Opening(subject.open().await.expect("the store opens again"));
        Fixture { subject, store }
    }
}

/// An open store, for tests that expect no failure.
#[derive(Clone)]
pub struct Opening(pub Arc<Store>);

impl Opening {
    /// Calls the repository on its thread.
    pub async fn attempt<T, F>(&self, act: impl FnOnce(Arc<dyn DurableRepository>) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.0.call(act).await
    }

    pub async fn commit(&self, group: Vec<Write>) -> Vec<Outcome> {
        let writes = group.len();
        let outcomes = self.attempt(move |repository| async move { repository.commit(&group).await }).await.expect("commit");
        assert_eq!(outcomes.len(), writes, "an outcome for each write");
        outcomes
    }

    pub async fn write(&self, write: Write) -> Outcome {
        self.commit(vec![write]).await.remove(0)
    }

    /// Commits writes that must all be accepted.
    pub async fn accept(&self, group: Vec<Write>) -> Vec<Outcome> {
        let ids: Vec<Arc<str>> = group.iter().map(|write| write.id.clone()).collect();
        let outcomes = self.commit(group).await;
        for (id, outcome) in ids.iter().zip(&outcomes) {
            assert!(matches!(outcome, Outcome::Accepted { .. }), "the write of {id} must be accepted, it is {outcome:?}");
        }
        outcomes
    }

    pub async fn load(&self, id: &str) -> Option<Stored> {
        let id = id.to_owned();
        self.attempt(move |repository| async move { repository.load(&id).await }).await.expect("load")
    }

    /// A job that must be there.
    pub async fn stored(&self, id: &str) -> Stored {
        self.load(id).await.unwrap_or_else(|| panic!("{id} must be stored"))
    }

    pub async fn load_some(&self, ids: &[&str]) -> Vec<Stored> {
        let ids: Vec<Arc<str>> = ids.iter().map(|id| (*id).into()).collect();
        let listing = self.attempt(move |repository| async move { repository.load_some(&ids).await }).await.expect("load_some");
        assert!(listing.damaged.is_empty(), "no record is damaged: {:?}", listing.damaged);
        listing.jobs
    }

    pub async fn list(&self, states: &[JobState], after: u64, most: usize) -> Listing {
        let states = states.to_vec();
        self.attempt(move |repository| async move { repository.list(&states, after, most).await }).await.expect("list")
    }

    /// All pages of a listing.
    pub async fn pages(&self, states: &[JobState], most: usize) -> Vec<Vec<Stored>> {
        let mut pages = Vec::new();
        let mut after = 0;
        loop {
            let listing = self.list(states, after, most).await;
            assert!(listing.damaged.is_empty(), "no record is damaged: {:?}", listing.damaged);
            assert!(listing.jobs.len() <= most, "{} jobs in a page of {most}", listing.jobs.len());
            pages.push(listing.jobs);
            match listing.next {
                Some(next) => {
                    assert!(next > after, "a listing goes forward: {next} after {after}");
                    after = next;
                }
                None => return pages,
            }
        }
    }

    pub async fn enroll(&self, owner: &str, lease: Duration) {
        let owner = owner.to_owned();
        self.attempt(move |repository| async move { repository.enroll(&owner, &format!(r#"{{"name":"{owner}"}}"#), lease).await }).await.expect("enroll");
    }

    pub async fn renew(&self, owner: &str, lease: Duration) -> bool {
        let owner = owner.to_owned();
        self.attempt(move |repository| async move { repository.renew(&owner, lease).await }).await.expect("renew")
    }

    pub async fn retire(&self, owner: &str) {
        let owner = owner.to_owned();
        self.attempt(move |repository| async move { repository.retire(&owner).await }).await.expect("retire");
    }

    pub async fn owners(&self) -> Vec<OwnerRow> {
        self.attempt(|repository| async move { repository.owners().await }).await.expect("owners")
    }

    pub async fn owner(&self, id: &str) -> Option<OwnerRow> {
        self.owners().await.into_iter().find(|owner| &*owner.id == id)
    }

    /// Waits until the store says that the lease of an owner is over.
    pub async fn expired(&self, owner: &str) {
        while !self.owner(owner).await.expect("an owner whose lease is over is still known").expired {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn claim(&self, claim: Claim) -> Vec<Claimed> {
        self.attempt(move |repository| async move { repository.claim(&claim).await }).await.expect("claim")
    }

    pub async fn request(&self, id: &str, body: &str) -> bool {
        let (id, body) = (id.to_owned(), body.to_owned());
        self.attempt(move |repository| async move { repository.request(&id, &body).await }).await.expect("request")
    }

    pub async fn owned(&self, owner: &str) -> Vec<Arc<str>> {
        let owner = owner.to_owned();
        self.attempt(move |repository| async move { repository.owned(&owner).await }).await.expect("owned")
    }

    pub async fn requests(&self, owner: &str) -> Vec<(Arc<str>, String)> {
        let owner = owner.to_owned();
        self.attempt(move |repository| async move { repository.requests(&owner).await }).await.expect("requests")
    }

    pub async fn events(&self, from: u64, most: usize) -> Vec<StoredEvent> {
        self.attempt(move |repository| async move { repository.events(from, most).await }).await.expect("events")
    }

    /// Every kept event, read by pages.
    pub async fn all_events(&self) -> Vec<StoredEvent> {
        let mut all: Vec<StoredEvent> = Vec::new();
        loop {
            let from = all.last().map_or(0, |event| event.sequence + 1);
            let page = self.events(from, 500).await;
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    pub async fn oldest_event(&self) -> u64 {
        self.attempt(|repository| async move { repository.oldest_event().await }).await.expect("oldest_event")
    }

    pub async fn mark(&self) -> Mark {
        self.attempt(|repository| async move { repository.mark().await }).await.expect("mark")
    }

    pub async fn changed(&self, limit: Duration) {
        self.attempt(move |repository| async move {
            repository.changed(limit).await;
            Ok(())
        })
        .await
        .expect("changed");
    }

    pub async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Option<String> {
        let id = id.to_owned();
        self.attempt(move |repository| async move { repository.read_log(&id, index, attempt, stream).await }).await.expect("read_log")
    }

    pub async fn close(&self) {
        self.attempt(|repository| async move {
            repository.close().await;
            Ok(())
        })
        .await
        .expect("close");
    }
}

/// Runs futures at the same time; their results in order.
pub async fn all<T: Send + 'static, F: Future<Output = T> + Send + 'static>(futures: impl IntoIterator<Item = F>) -> Vec<T> {
    let tasks: Vec<_> = futures.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::with_capacity(tasks.len());
    for task in tasks {
        results.push(task.await.expect("no panic"));
    }
    results
}

/// A job that is created: pending, version 1, one event.
pub fn create(id: &str) -> Write {
    create_with(id, |_| {})
}

/// A job that is created, with changes to what [`create`] writes.
pub fn create_with(id: &str, adjust: impl FnOnce(&mut Put)) -> Write {
    let mut put = Put {
        version: 1,
        state: JobState::Pending,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head: r#"{"completed":0}"#.into(),
        spec: Some(format!(r#"{{"id":"{id}"}}"#)),
        options: Some("{}".into()),
        extras: Some("{}".into()),
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        events: vec![event("job.submitted")],
        clear_requests: false,
    };
    adjust(&mut put);
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(Box::new(put)) }
}

/// A running job that belongs to an owner.
pub fn create_owned(id: &str, owner: &str) -> Write {
    create_with(id, |put| {
        put.state = JobState::Running;
        put.ownership = Ownership::Take(owner.into());
    })
}

/// The next version of a job that runs: no texts but the head, one event.
pub fn change(id: &str, version: u64, holder: Holder, adjust: impl FnOnce(&mut Put)) -> Write {
    let mut put = Put {
        version: version + 1,
        state: JobState::Running,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head: format!(r#"{{"completed":{version}}}"#),
        spec: None,
        options: None,
        extras: None,
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        events: vec![event("job.changed")],
        clear_requests: false,
    };
    adjust(&mut put);
    Write { id: id.into(), expect: Expect::At { version, holder }, action: Action::Put(Box::new(put)) }
}

/// The end of a job.
pub fn delete(id: &str, version: u64, holder: Holder) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder }, action: Action::Delete { event: event("job.deleted") } }
}

/// An event of a type.
pub fn event(kind: &str) -> EventWrite {
    EventWrite { body: format!(r#""type":"{kind}","at":17"#).into() }
}

/// The row of a chunk.
pub fn chunk(index: u32, body: &str) -> ChunkWrite {
    ChunkWrite { index, body: body.into() }
}

/// What an attempt said.
pub fn log(index: u32, attempt: u32, stream: LogStream, text: &str) -> LogWrite {
    LogWrite { index, attempt, stream, text: text.into() }
}

/// Exactly this owner.
pub fn is(owner: &str) -> Holder {
    Holder::Is(owner.into())
}

/// A claim of everything that there is to claim but jobs that never had an owner.
pub fn claim(owner: &str) -> Claim {
    Claim { owner: owner.into(), most: 10_000, ..Claim::default() }
}

/// The ids of jobs that were claimed, in order.
pub fn ids(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| &*claimed.id).collect()
}

/// Where an accepted write's events begin, and its job's place.
pub fn accepted(outcome: &Outcome) -> (u64, u64) {
    match outcome {
        Outcome::Accepted { first, place } => (*first, *place),
        other => panic!("must be accepted, is {other:?}"),
    }
}

/// Makes a test of each case for one implementation: `conformance!(sqlite, sqlite_subject);`
#[macro_export]
macro_rules! conformance {
    ($name:ident, $factory:expr) => {
        $crate::conformance! { @tests $name, $factory,
            write {
                a_job_is_created_once
                one_of_many_creators_of_one_id_wins
                a_write_of_a_job_that_is_not_there_is_gone
                a_write_against_another_version_is_stale
                a_write_is_accepted_of_its_holder_only
                ownership_is_kept_taken_released_and_cleared
                refused_writes_do_not_spoil_a_group
                later_writes_of_a_group_see_the_earlier_ones
                a_group_deletes_and_creates_the_same_job
                a_refused_write_leaves_nothing
                of_writers_that_expect_the_same_version_one_wins
                no_update_is_lost_among_many_writers
                an_empty_group_is_nothing
            }
            content {
                everything_of_a_job_comes_back
                texts_that_are_not_given_stay
                texts_that_are_given_are_replaced
                chunk_rows_are_upserted
                chunk_rows_are_reset
                a_group_may_write_the_same_row_twice
                a_group_of_thousands_of_rows
                json_comes_back_byte_by_byte
                ids_that_differ_in_case_are_different_jobs
                types_and_owners_are_compared_exactly
                a_spec_of_20_mb
                a_log_of_16_mb
                logs_of_several_attempts_and_streams
                a_deleted_job_leaves_nothing_behind
            }
            listing {
                jobs_are_listed_in_order_of_arrival
                jobs_are_listed_by_state
                pages_cover_everything_once
                large_jobs_are_listed_whole
                several_jobs_are_loaded_at_once
                places_are_never_used_again
                a_listing_under_load_misses_nothing
                what_is_read_is_one_version
            }
            event {
                events_are_numbered_from_one
                numbering_has_no_gaps_over_all_openings
                events_of_a_job_are_in_order
                events_are_read_by_pages
                the_oldest_event_moves_when_jobs_are_deleted
                the_mark_grows_with_events_and_requests
                waiting_ends_with_a_commit_of_another_opening
                waiting_ends_with_a_request_of_another_opening
                waiting_ends_with_a_commit_of_the_same_opening
                all_who_wait_hear_of_a_commit
                waiting_ends_after_its_limit
            }
            ownership {
                an_owner_is_enrolled_renewed_and_retired
                an_owner_whose_lease_is_over_renews
                an_owner_is_enrolled_again
                a_job_tells_when_its_owner_renewed
                jobs_of_a_live_owner_are_not_claimed
                jobs_of_an_unknown_owner_are_claimed
                jobs_of_an_expired_owner_are_claimed
                jobs_of_a_dead_owner_are_claimed_before_its_lease_is_over
                released_jobs_are_claimed
                cleared_jobs_are_not_claimed
                jobs_that_never_had_an_owner_are_claimed_when_asked_for
                only_pending_and_running_jobs_are_claimed
                held_jobs_are_never_claimed
                jobs_are_claimed_by_type
                one_job_is_claimed_by_name
                the_oldest_are_claimed_first
                a_claim_leaves_the_job_as_it_is
                a_former_owner_is_refused_after_a_claim
                each_job_is_claimed_exactly_once
                an_owner_is_told_what_it_owns_and_is_not_done_yet
                requests_go_to_the_owner_in_order
                requests_follow_a_claim
                requests_end_when_they_are_answered
            }
            lifetime {
                everything_is_there_after_reopening
                numbering_goes_on_after_reopening
                a_closed_store_is_unavailable
            }
        }
    };
    (@tests $name:ident, $factory:expr, $($room:ident { $($case:ident)+ })+) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(mod $room {
                #[allow(unused_imports)]
                use super::*;
                $(
                    #[tokio::test]
                    async fn $case() {
                        let run = async { $crate::conformance::$room::$case($crate::conformance::Fixture::new(($factory)().await).await).await };
                        tokio::time::timeout(std::time::Duration::from_secs(120), run).await.expect("ends within two minutes");
                    }
                )+
            })+
        }
    };
}
