//! Jobs for the tests of single stores.

use std::sync::Arc;
use std::time::Duration;

use framewright_core::job::{Error, JobState};
use framewright_core::repository::durable::{Action, EventWrite, Expect, Holder, Outcome, Ownership, Put, Stored, Write};
use framewright_core::repository::runtime::Store;

/// A put that changes nothing but the version, and tells one event.
pub fn put(version: u64) -> Put {
    Put {
        version,
        state: JobState::Running,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head: format!(r#"{{"version":{version}}}"#),
        spec: None,
        options: None,
        extras: None,
        reset_chunks: false,
        chunks: vec![],
        logs: vec![],
        events: vec![EventWrite { body: format!(r#""type":"test","version":{version}"#).into() }],
        clear_requests: false,
    }
}

/// Creates a job that `owner` owns.
pub fn create(id: &str, owner: &str) -> Write {
    let put = Put { spec: Some("{}".into()), options: Some("{}".into()), extras: Some("{}".into()), ownership: Ownership::Take(owner.into()), ..put(1) };
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(put.into()) }
}

/// Goes on from a version.
pub fn change(id: &str, version: u64) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder: Holder::Anyone }, action: Action::Put(put(version + 1).into()) }
}

pub async fn commit(store: &Arc<Store>, group: Vec<Write>) -> Result<Vec<Outcome>, Error> {
    store.call(move |repository| async move { repository.commit(&group).await }).await
}

pub async fn accept(store: &Arc<Store>, group: Vec<Write>) {
    let outcomes = commit(store, group).await.expect("the group is committed");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "{outcomes:?}");
}

pub async fn load(store: &Arc<Store>, id: &'static str) -> Result<Option<Stored>, Error> {
    store.call(move |repository| async move { repository.load(id).await }).await
}

pub async fn renew(store: &Arc<Store>, owner: &'static str) -> Result<bool, Error> {
    store.call(move |repository| async move { repository.renew(owner, Duration::from_secs(60)).await }).await
}

pub async fn enroll(store: &Arc<Store>, owner: &'static str) {
    store.call(move |repository| async move { repository.enroll(owner, "{}", Duration::from_secs(60)).await }).await.expect("the owner is enrolled");
}

pub async fn close(store: &Arc<Store>) {
    let close = |repository: Arc<dyn framewright_core::repository::durable::DurableRepository>| async move {
        repository.close().await;
        Ok(())
    };
    store.call(close).await.unwrap();
}
