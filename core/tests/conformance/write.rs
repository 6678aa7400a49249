//! What is accepted, what is refused, and what a group is.

use super::*;

pub async fn a_job_is_created_once(fixture: Fixture) {
    let store = &fixture.store;
    assert_eq!(store.load("a").await, None);
    assert_eq!(store.write(create("a")).await, Outcome::Accepted { first: 1, place: 1 });
    let before = store.stored("a").await;
    assert_eq!(store.write(create_with("a", |put| put.head = "{}".into())).await, Outcome::Duplicate);
    assert_eq!(store.stored("a").await, before, "a duplicate changes nothing");
    assert_eq!(store.mark().await.sequence, 1, "nor is its event kept");
}

pub async fn one_of_many_creators_of_one_id_wins(fixture: Fixture) {
    let openings = fixture.openings(4).await;
    for round in 0..10 {
        let id = format!("job-{round}");
        let outcomes = all((0..8).map(|writer| {
            let (store, id) = (openings[writer % openings.len()].clone(), id.clone());
            async move { store.write(create_with(&id, |put| put.head = format!("{writer}"))).await }
        }))
        .await;
        let winners: Vec<usize> = (0..8).filter(|&writer| matches!(outcomes[writer], Outcome::Accepted { .. })).collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Duplicate).count(), 7, "{outcomes:?}");
        assert_eq!(openings[3].stored(&id).await.head, format!("{}", winners[0]));
    }
    assert_eq!(fixture.store.mark().await.sequence, 10);
}

pub async fn a_write_of_a_job_that_is_not_there_is_gone(fixture: Fixture) {
    let store = &fixture.store;
    for holder in [Holder::Anyone, Holder::Nobody, is("o")] {
        assert_eq!(store.write(change("a", 1, holder.clone(), |_| {})).await, Outcome::Gone);
        assert_eq!(store.write(delete("a", 1, holder)).await, Outcome::Gone);
    }
    store.accept(vec![create("a"), delete("a", 1, Holder::Anyone)]).await;
    assert_eq!(store.write(change("a", 1, Holder::Anyone, |_| {})).await, Outcome::Gone);
    assert_eq!(store.load("a").await, None);
}

pub async fn a_write_against_another_version_is_stale(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create("a"), change("a", 1, Holder::Anyone, |put| put.version = 7)]).await;
    for version in [1, 6, 8] {
        assert_eq!(store.write(change("a", version, Holder::Anyone, |_| {})).await, Outcome::Stale { version: 7, owner: None });
        assert_eq!(store.write(delete("a", version, Holder::Anyone)).await, Outcome::Stale { version: 7, owner: None });
    }
    assert_eq!(store.stored("a").await.version, 7);
    // Versions are numbers of 53 bits at least.
    let high = (1 << 53) - 1;
    store.accept(vec![change("a", 7, Holder::Anyone, |put| put.version = high)]).await;
    assert_eq!(store.write(change("a", high - 1, Holder::Anyone, |_| {})).await, Outcome::Stale { version: high, owner: None });
}

pub async fn a_write_is_accepted_of_its_holder_only(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create("free"), create_owned("owned", "o")]).await;
    assert_eq!(store.write(change("free", 1, is("o"), |_| {})).await, Outcome::Stale { version: 1, owner: None });
    store.accept(vec![change("free", 1, Holder::Nobody, |_| {}), change("free", 2, Holder::Anyone, |_| {})]).await;

    let refused = Outcome::Stale { version: 1, owner: Some("o".into()) };
    assert_eq!(store.write(change("owned", 1, Holder::Nobody, |_| {})).await, refused);
    assert_eq!(store.write(change("owned", 1, is("p"), |_| {})).await, refused);
    assert_eq!(store.write(change("owned", 1, is("O"), |_| {})).await, refused, "owners differ in case");
    assert_eq!(store.write(delete("owned", 1, Holder::Nobody)).await, refused);
    assert_eq!(store.write(change("owned", 2, is("o"), |_| {})).await, refused, "the right holder of another version");
    store.accept(vec![change("owned", 1, is("o"), |_| {}), change("owned", 2, Holder::Anyone, |_| {}), delete("owned", 3, is("o"))]).await;
}

pub async fn ownership_is_kept_taken_released_and_cleared(fixture: Fixture) {
    let store = &fixture.store;
    let holds = |stored: Stored| (stored.owner.as_deref().map(str::to_owned), stored.released);
    store.accept(vec![create("a")]).await;
    assert_eq!(holds(store.stored("a").await), (None, false));
    let steps = [
        (Ownership::Keep, None, false),
        (Ownership::Take("o".into()), Some("o"), false),
        (Ownership::Keep, Some("o"), false),
        (Ownership::Take("p".into()), Some("p"), false),
        (Ownership::Release, None, true),
        (Ownership::Keep, None, true),
        (Ownership::Take("o".into()), Some("o"), false),
        (Ownership::Clear, None, false),
        (Ownership::Release, None, true),
        (Ownership::Clear, None, false),
    ];
    for (version, (ownership, owner, released)) in (1..).zip(steps) {
        store.accept(vec![change("a", version, Holder::Anyone, |put| put.ownership = ownership.clone())]).await;
        assert_eq!(holds(store.stored("a").await), (owner.map(str::to_owned), released), "after {ownership:?}");
        let free = store.write(change("a", version, Holder::Nobody, |_| {})).await;
        assert_eq!(free, Outcome::Stale { version: version + 1, owner: owner.map(Into::into) });
    }
    // A released job has nobody.
    store.accept(vec![create_owned("b", "o"), change("b", 1, is("o"), |put| put.ownership = Ownership::Release)]).await;
    store.accept(vec![change("b", 2, Holder::Nobody, |put| put.ownership = Ownership::Take("p".into()))]).await;
    assert_eq!(holds(store.stored("b").await), (Some("p".into()), false));
}

pub async fn refused_writes_do_not_spoil_a_group(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create("there"), create_owned("owned", "o")]).await;
    let outcomes = store
        .commit(vec![
            create("new-1"),
            create("there"),
            change("missing", 1, Holder::Anyone, |_| {}),
            change("there", 5, Holder::Anyone, |_| {}),
            change("owned", 1, is("p"), |_| {}),
            change("there", 1, Holder::Anyone, |put| put.events = vec![event("one"), event("two"), event("three")]),
            delete("missing", 1, Holder::Anyone),
            create("new-2"),
        ])
        .await;
    assert_eq!(
        outcomes,
        [
            Outcome::Accepted { first: 3, place: accepted(&outcomes[0]).1 },
            Outcome::Duplicate,
            Outcome::Gone,
            Outcome::Stale { version: 1, owner: None },
            Outcome::Stale { version: 1, owner: Some("o".into()) },
            Outcome::Accepted { first: 4, place: 1 },
            Outcome::Gone,
            Outcome::Accepted { first: 7, place: accepted(&outcomes[7]).1 },
        ]
    );
    assert!(2 < accepted(&outcomes[0]).1 && accepted(&outcomes[0]).1 < accepted(&outcomes[7]).1);
    assert_eq!(store.stored("there").await.version, 2);
    assert_eq!(store.stored("owned").await.version, 1);
    let told: Vec<(u64, String)> = store.all_events().await.into_iter().skip(2).map(|event| (event.sequence, event.job.to_string())).collect();
    assert_eq!(told, [(3, "new-1".to_owned()), (4, "there".into()), (5, "there".into()), (6, "there".into()), (7, "new-2".into())]);
}

pub async fn later_writes_of_a_group_see_the_earlier_ones(fixture: Fixture) {
    let store = &fixture.store;
    let outcomes = store
        .commit(vec![
            create("a"),
            create("a"),
            change("a", 1, Holder::Nobody, |put| put.ownership = Ownership::Take("o".into())),
            change("a", 2, Holder::Nobody, |_| {}),
            change("a", 1, is("o"), |_| {}),
            change("a", 2, is("o"), |put| {
                put.state = JobState::Completed;
                put.head = "last".into();
                put.ownership = Ownership::Clear;
                put.events = vec![];
            }),
            change("a", 3, is("o"), |_| {}),
            // Follows a write that was refused.
            change("b", 1, Holder::Anyone, |_| {}),
            change("b", 2, Holder::Anyone, |_| {}),
            create("b"),
        ])
        .await;
    assert_eq!(
        outcomes,
        [
            Outcome::Accepted { first: 1, place: 1 },
            Outcome::Duplicate,
            Outcome::Accepted { first: 2, place: 1 },
            Outcome::Stale { version: 2, owner: Some("o".into()) },
            Outcome::Stale { version: 2, owner: Some("o".into()) },
            Outcome::Accepted { first: 0, place: 1 },
            Outcome::Stale { version: 3, owner: None },
            Outcome::Gone,
            Outcome::Gone,
            Outcome::Accepted { first: 3, place: accepted(&outcomes[9]).1 },
        ]
    );
    let stored = store.stored("a").await;
    assert_eq!((stored.version, stored.state, &*stored.head, stored.owner), (3, JobState::Completed, "last", None));
    assert_eq!(store.mark().await.sequence, 3);
}

pub async fn a_group_deletes_and_creates_the_same_job(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create_with("a", |put| put.chunks = vec![chunk(0, "old"), chunk(1, "old")])]).await;
    store.request("a", r#"{"cancel":true}"#).await;
    let outcomes = store
        .accept(vec![
            change("a", 1, Holder::Anyone, |put| put.logs = vec![log(0, 1, LogStream::Stdout, "old")]),
            delete("a", 2, Holder::Anyone),
            create_with("a", |put| put.chunks = vec![chunk(1, "new")]),
            change("a", 1, Holder::Anyone, |put| put.head = "new".into()),
            create("b"),
            delete("b", 1, Holder::Anyone),
        ])
        .await;
    assert!(accepted(&outcomes[2]).1 > accepted(&outcomes[1]).1, "a job that is created again arrives again");
    let stored = store.stored("a").await;
    assert_eq!((stored.version, &*stored.head, stored.chunks, stored.requests), (2, "new", vec![(1, "new".to_owned())], vec![]));
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await, None);
    assert_eq!(store.load("b").await, None);
    let told: Vec<(u64, String, bool)> =
        store.all_events().await.into_iter().map(|event| (event.sequence, event.job.to_string(), event.body.contains("job.deleted"))).collect();
    let expected = [(3, "a", true), (4, "a", false), (5, "a", false), (7, "b", true)];
    assert_eq!(told, expected.map(|(sequence, job, deleted)| (sequence, job.to_owned(), deleted)));
}

pub async fn a_refused_write_leaves_nothing(fixture: Fixture) {
    let store = &fixture.store;
    let all_of_it = |put: &mut Put| {
        put.spec = Some("refused".into());
        put.options = Some("refused".into());
        put.extras = Some("refused".into());
        put.reset_chunks = true;
        put.chunks = vec![chunk(0, "refused"), chunk(9, "refused")];
        put.logs = vec![log(0, 1, LogStream::Stderr, "refused")];
        put.events = vec![event("refused")];
        put.clear_requests = true;
        put.ownership = Ownership::Take("thief".into());
        put.hold = true;
    };
    store
        .accept(vec![create_with("a", |put| {
            put.chunks = vec![chunk(0, "kept"), chunk(1, "kept")];
            put.ownership = Ownership::Take("o".into());
        })])
        .await;
    store.request("a", "{}").await;
    let before = store.stored("a").await;
    let outcomes = store
        .commit(vec![
            change("a", 2, is("o"), all_of_it),
            change("a", 1, is("thief"), all_of_it),
            change("b", 1, Holder::Anyone, all_of_it),
            create_with("a", all_of_it),
        ])
        .await;
    assert!(outcomes.iter().all(|outcome| !matches!(outcome, Outcome::Accepted { .. })), "{outcomes:?}");
    assert_eq!(store.stored("a").await, before);
    assert_eq!(store.load("b").await, None);
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stderr).await, None);
    assert_eq!(store.all_events().await.len(), 1);
}

pub async fn of_writers_that_expect_the_same_version_one_wins(fixture: Fixture) {
    let openings = fixture.openings(4).await;
    openings[0].accept(vec![create("a")]).await;
    for version in 1..=20 {
        let outcomes = all((0..8).map(|writer| {
            let store = openings[writer % openings.len()].clone();
            async move { store.write(change("a", version, Holder::Anyone, |put| put.head = format!("{writer}"))).await }
        }))
        .await;
        let winners: Vec<usize> = (0..8).filter(|&writer| matches!(outcomes[writer], Outcome::Accepted { .. })).collect();
        assert_eq!(winners.len(), 1, "version {version}: {outcomes:?}");
        for outcome in outcomes.iter().filter(|outcome| !matches!(outcome, Outcome::Accepted { .. })) {
            assert_eq!(*outcome, Outcome::Stale { version: version + 1, owner: None });
        }
        assert_eq!(openings[3].stored("a").await.head, format!("{}", winners[0]));
    }
    assert_eq!(fixture.store.all_events().await.len(), 21);
}

pub async fn no_update_is_lost_among_many_writers(fixture: Fixture) {
    const EACH: u64 = 10;
    let openings = fixture.openings(4).await;
    openings[0].accept(vec![create_with("a", |put| put.head = "0".into())]).await;
    all((0..8).map(|writer| {
        let store = openings[writer % openings.len()].clone();
        async move {
            let mut done = 0;
            while done < EACH {
                let stored = store.stored("a").await;
                let count: u64 = stored.head.parse().unwrap();
                let outcome = store.write(change("a", stored.version, Holder::Anyone, |put| put.head = format!("{}", count + 1))).await;
                done += u64::from(matches!(outcome, Outcome::Accepted { .. }));
            }
        }
    }))
    .await;
    let stored = fixture.store.stored("a").await;
    assert_eq!((stored.head, stored.version), (format!("{}", 8 * EACH), 1 + 8 * EACH));
}

pub async fn an_empty_group_is_nothing(fixture: Fixture) {
    assert_eq!(fixture.store.commit(vec![]).await, []);
    assert_eq!(fixture.store.mark().await, Mark::default());
    assert_eq!(accepted(&fixture.store.write(create("a")).await), (1, 1));
}
