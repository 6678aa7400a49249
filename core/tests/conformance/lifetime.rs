//! Closing and opening again.

use framewright_core::job::ErrorCode;

use super::*;

pub async fn everything_is_there_after_reopening(fixture: Fixture) {
    let store = &fixture.store;
    store
        .accept(vec![
            create_with("full", |put| {
                put.version = 3;
                put.state = JobState::Running;
                put.kind = Some("video".into());
                put.ownership = Ownership::Take("o".into());
                put.options = Some(r#"{"concurrency":2}"#.into());
                put.extras = Some(r#"{"nul":"\u0000"}"#.into());
                put.chunks = vec![chunk(0, "row 0"), chunk(3, "row 3")];
                put.logs = vec![log(0, 1, LogStream::Stdout, "out \0 é"), log(0, 1, LogStream::Stderr, "err")];
            }),
            create_with("held", |put| {
                put.hold = true;
                put.ownership = Ownership::Release;
            }),
            create("gone"),
        ])
        .await;
    assert!(store.request("full", "1").await && store.request("full", "2").await && store.request("held", "3").await);
    store.accept(vec![change("full", 3, is("o"), |put| put.chunks = vec![chunk(1, "row 1")]), delete("gone", 1, Holder::Anyone)]).await;
    let before = (store.list(&[], 0, 10).await.jobs, store.all_events().await, store.mark().await, store.oldest_event().await);
    assert_eq!((before.0.len(), before.1.len()), (2, 4));

    let fixture = fixture.reopen().await;
    let store = &fixture.store;
    let after = (store.list(&[], 0, 10).await.jobs, store.all_events().await, store.mark().await, store.oldest_event().await);
    assert_eq!(after, before);
    assert_eq!(store.read_log("full", 0, 1, LogStream::Stdout).await.as_deref(), Some("out \0 é"));
    assert_eq!(store.read_log("full", 0, 1, LogStream::Stderr).await.as_deref(), Some("err"));
    assert_eq!(store.requests("o").await, [("full".into(), "1".to_owned()), ("full".into(), "2".into())]);
    assert_eq!(store.load("gone").await, None);
    assert_eq!(store.write(create("full")).await, Outcome::Duplicate);
    assert_eq!(store.write(change("full", 3, is("o"), |_| {})).await, Outcome::Stale { version: 4, owner: Some("o".into()) });
    assert_eq!(store.write(change("full", 4, is("p"), |_| {})).await, Outcome::Stale { version: 4, owner: Some("o".into()) });
    store.accept(vec![change("full", 4, is("o"), |_| {})]).await;
    // Nobody has enrolled its owner: the job can be claimed.
    store.enroll("me", LONG).await;
    assert_eq!(store.claim(claim("me")).await, [Claimed { id: "full".into(), previous: Some("o".into()), released: false }]);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.stored("full").await.owner.as_deref(), Some("me"));
}

pub async fn numbering_goes_on_after_reopening(fixture: Fixture) {
    let (_, place) = accepted(fixture.store.accept(vec![create("a"), create("b")]).await.last().unwrap());
    fixture.store.request("a", "{}").await;
    let mark = fixture.store.mark().await;

    let fixture = fixture.reopen().await;
    let (sequence, next) = accepted(&fixture.store.write(create("c")).await);
    assert!(sequence == 3 && next > place, "event {sequence}, place {next} after {place}");
    assert!(fixture.store.request("c", "{}").await);
    assert!(fixture.store.mark().await.requests > mark.requests);
    fixture.store.accept(vec![delete("a", 1, Holder::Anyone), delete("b", 1, Holder::Anyone), delete("c", 1, Holder::Anyone)]).await;

    // Nothing is left that could tell how far the store was, but the store.
    let before = fixture.store.mark().await;
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.mark().await, before);
    let (sequence, last) = accepted(&fixture.store.write(create("d")).await);
    assert!(sequence == 7 && last > next, "event {sequence}, place {last} after {next}");
}

pub async fn a_closed_store_is_unavailable(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let store = fixture.store.clone();
    store.accept(vec![create_owned("a", "o")]).await;
    store.enroll("o", LONG).await;
    store.close().await;
    macro_rules! unavailable {
        ($($call:expr),+ $(,)?) => {$(
            let call: fn(Arc<dyn DurableRepository>) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>> =
                |repository| Box::pin(async move { ($call)(&*repository).await.map(|_| ()) });
            let error = store.attempt(call).await.expect_err(stringify!($call));
            assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error} of {}", stringify!($call));
        )+};
    }
    unavailable!(
        async |repository: &dyn DurableRepository| repository.commit(&[create("b")]).await,
        async |repository: &dyn DurableRepository| repository.load("a").await,
        async |repository: &dyn DurableRepository| repository.list(&[], 0, 10).await,
        async |repository: &dyn DurableRepository| repository.enroll("o", "{}", LONG).await,
        async |repository: &dyn DurableRepository| repository.renew("o", LONG).await,
        async |repository: &dyn DurableRepository| repository.retire("o").await,
        async |repository: &dyn DurableRepository| repository.owners().await,
        async |repository: &dyn DurableRepository| repository.claim(&claim("o")).await,
        async |repository: &dyn DurableRepository| repository.request("a", "{}").await,
        async |repository: &dyn DurableRepository| repository.requests("o").await,
        async |repository: &dyn DurableRepository| repository.events(0, 10).await,
        async |repository: &dyn DurableRepository| repository.oldest_event().await,
        async |repository: &dyn DurableRepository| repository.mark().await,
        async |repository: &dyn DurableRepository| repository.read_log("a", 0, 1, LogStream::Stdout).await,
    );
    // Waiting ends, and closing twice is closing.
    store.changed(Duration::from_millis(10)).await;
    store.close().await;
    // Another opening is not concerned.
    if !Arc::ptr_eq(&openings[1].0, &store.0) {
        openings[1].accept(vec![change("a", 1, is("o"), |_| {})]).await;
    }
}
