//! Leases, claims, requests.

use std::collections::HashSet;

use super::*;

/// A lease that is over soon.
const SHORT: Duration = Duration::from_millis(20);

/// An owner that was enrolled and whose lease is over.
async fn expired(store: &Opening, owner: &str) {
    store.enroll(owner, SHORT).await;
    store.expired(owner).await;
}

pub async fn an_owner_is_enrolled_renewed_and_retired(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    assert_eq!(store.owners().await, []);
    assert!(!store.renew("o", LONG).await, "nobody knows it");
    store.enroll("o", LONG).await;
    other.enroll("p", LONG).await;
    let mut owners = other.owners().await;
    owners.sort_by(|left, right| left.id.cmp(&right.id));
    let row = |id: &str| OwnerRow { id: id.into(), place: format!(r#"{{"name":"{id}"}}"#), expired: false };
    assert_eq!(owners, [row("o"), row("p")]);
    assert!(store.renew("o", LONG).await && store.renew("p", LONG).await);
    other.retire("o").await;
    assert!(!store.renew("o", LONG).await, "who was retired has no lease to renew");
    assert_eq!(store.owners().await, [row("p")]);
    other.retire("o").await;
}

pub async fn an_owner_whose_lease_is_over_renews(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store.accept(vec![create_owned("a", "o")]).await;
    expired(store, "o").await;
    assert!(store.renew("o", LONG).await, "nobody has retired it");
    assert!(!store.owner("o").await.unwrap().expired);
    assert_eq!(store.claim(claim("me")).await, []);
    // And the other way round: a lease can be made shorter.
    assert!(store.renew("o", SHORT).await);
    store.expired("o").await;
    assert_eq!(ids(&store.claim(claim("me")).await), ["a"]);
}

pub async fn an_owner_is_enrolled_again(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store.accept(vec![create_owned("a", "o")]).await;
    expired(store, "o").await;
    store.attempt(|repository| async move { repository.enroll("o", "elsewhere", LONG).await }).await.unwrap();
    assert_eq!(store.owner("o").await.unwrap(), OwnerRow { id: "o".into(), place: "elsewhere".into(), expired: false });
    assert_eq!(store.owners().await.len(), 2);
    store.retire("o").await;
    store.enroll("o", LONG).await;
    assert!(store.renew("o", LONG).await);
    assert_eq!(store.claim(claim("me")).await, []);
}

pub async fn a_job_tells_when_its_owner_renewed(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create_owned("a", "o"), create("b")]).await;
    assert_eq!(store.stored("a").await.renewed_at, None, "of an owner that nobody knows");
    store.enroll("o", LONG).await;
    let first = store.stored("a").await.renewed_at.expect("known");
    while store.stored("a").await.renewed_at == Some(first) {
        assert!(store.renew("o", LONG).await);
    }
    let second = store.stored("a").await.renewed_at.expect("known");
    assert!(second > first, "{second} after {first}");
    assert_eq!(store.stored("b").await.renewed_at, None);
    assert_eq!(store.list(&[], 0, 1).await.jobs[0].renewed_at, Some(second));
}

pub async fn jobs_of_a_live_owner_are_not_claimed(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    store.enroll("o", LONG).await;
    store.enroll("me", LONG).await;
    store
        .accept(vec![create_owned("running", "o"), create_with("pending", |put| put.ownership = Ownership::Take("o".into())), create_owned("mine", "me")])
        .await;
    for claim in [
        claim("me"),
        Claim { unowned: true, ..claim("me") },
        Claim { only: Some("running".into()), ..claim("me") },
        Claim { dead: vec!["p".into()], ..claim("me") },
    ] {
        assert_eq!(other.claim(claim).await, []);
    }
    assert_eq!(store.stored("running").await.owner.as_deref(), Some("o"));
}

pub async fn jobs_of_an_unknown_owner_are_claimed(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store.enroll("o", LONG).await;
    store.accept(vec![create_owned("never-known", "ghost"), create_owned("retired", "o")]).await;
    store.retire("o").await;
    let claimed = store.claim(claim("me")).await;
    let expected =
        [("never-known", "ghost"), ("retired", "o")].map(|(id, previous)| Claimed { id: id.into(), previous: Some(previous.into()), released: false });
    assert_eq!(claimed, expected);
    assert_eq!(store.stored("retired").await.owner.as_deref(), Some("me"));
    assert_eq!(store.claim(claim("me")).await, [], "they are its own now");
}

pub async fn jobs_of_an_expired_owner_are_claimed(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    store.enroll("me", LONG).await;
    store.accept(vec![create_owned("running", "o"), create_with("pending", |put| put.ownership = Ownership::Take("o".into()))]).await;
    expired(store, "o").await;
    assert!(other.owner("o").await.unwrap().expired, "by the store's clock, for everybody");
    let claimed = other.claim(claim("me")).await;
    assert_eq!(claimed, ["running", "pending"].map(|id| Claimed { id: id.into(), previous: Some("o".into()), released: false }));
}

pub async fn jobs_of_a_dead_owner_are_claimed_before_its_lease_is_over(fixture: Fixture) {
    let store = &fixture.store;
    for owner in ["me", "o", "p", "q"] {
        store.enroll(owner, LONG).await;
    }
    store.accept(vec![create_owned("o-1", "o"), create_owned("p-1", "p"), create_owned("q-1", "q")]).await;
    let claimed = store.claim(Claim { dead: vec!["o".into(), "q".into(), "nobody".into()], ..claim("me") }).await;
    assert_eq!(claimed, ["o", "q"].map(|owner| Claimed { id: format!("{owner}-1").into(), previous: Some(owner.into()), released: false }));
    assert_eq!(store.stored("p-1").await.owner.as_deref(), Some("p"));
}

pub async fn released_jobs_are_claimed(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store.enroll("o", LONG).await;
    store.accept(vec![create_owned("a", "o"), change("a", 1, is("o"), |put| put.ownership = Ownership::Release)]).await;
    assert_eq!(store.claim(claim("me")).await, [Claimed { id: "a".into(), previous: None, released: true }]);
    let stored = store.stored("a").await;
    assert_eq!((stored.owner.as_deref(), stored.released), (Some("me"), false));
    assert_eq!(store.claim(claim("o")).await, []);
    // From its new owner's death on it is as any other.
    store.retire("me").await;
    assert_eq!(store.claim(claim("o")).await, [Claimed { id: "a".into(), previous: Some("me".into()), released: false }]);
}

pub async fn cleared_jobs_are_not_claimed(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store
        .accept(vec![
            create_owned("a", "ghost"),
            change("a", 1, is("ghost"), |put| {
                put.ownership = Ownership::Clear;
                put.state = JobState::Pending;
            }),
        ])
        .await;
    assert_eq!(store.claim(claim("me")).await, []);
}

pub async fn jobs_that_never_had_an_owner_are_claimed_when_asked_for(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    // `submitted`: by a manager that runs nothing.
    let submitted = create_with("submitted", |put| put.ownership = Ownership::Clear);
    store.accept(vec![create("a"), create_owned("b", "ghost"), create("c"), create_with("running", |put| put.state = JobState::Running), submitted]).await;
    assert_eq!(ids(&store.claim(claim("me")).await), ["b"]);
    let claimed = store.claim(Claim { unowned: true, ..claim("me") }).await;
    assert_eq!(claimed, ["a", "c", "submitted"].map(|id| Claimed { id: id.into(), previous: None, released: false }), "pending ones only");
    assert_eq!(store.stored("c").await.owner.as_deref(), Some("me"));
}

pub async fn only_pending_and_running_jobs_are_claimed(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    let mut group = Vec::new();
    for state in JobState::ALL {
        for (name, ownership) in [("owned", Ownership::Take("ghost".into())), ("released", Ownership::Release), ("unowned", Ownership::Keep)] {
            group.push(create_with(&format!("{}-{name}", state.as_str()), |put| {
                put.state = state;
                put.ownership = ownership;
            }));
        }
    }
    store.accept(group).await;
    let claimed = store.claim(Claim { unowned: true, dead: vec!["ghost".into()], ..claim("me") }).await;
    assert_eq!(ids(&claimed), ["pending-owned", "pending-released", "pending-unowned", "running-owned", "running-released"]);
    for only in ["paused-owned", "completed-released", "failed-unowned", "cancelled-owned"] {
        assert_eq!(store.claim(Claim { only: Some(only.into()), unowned: true, ..claim("me") }).await, []);
    }
}

pub async fn held_jobs_are_never_claimed(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    let hold = |id: &str, ownership: Ownership| {
        create_with(id, |put| {
            put.hold = true;
            put.ownership = ownership;
        })
    };
    store.accept(vec![hold("owned", Ownership::Take("ghost".into())), hold("released", Ownership::Release), hold("unowned", Ownership::Keep)]).await;
    let everything = Claim { unowned: true, dead: vec!["ghost".into()], ..claim("me") };
    assert_eq!(store.claim(everything.clone()).await, []);
    for id in ["owned", "released", "unowned"] {
        assert_eq!(store.claim(Claim { only: Some(id.into()), ..everything.clone() }).await, []);
    }
    store.accept(vec![change("released", 1, Holder::Nobody, |put| put.hold = false)]).await;
    assert_eq!(ids(&store.claim(everything).await), ["released"]);
}

pub async fn jobs_are_claimed_by_type(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    let round = |version: u64| {
        [("none", None), ("video", Some("video")), ("image", Some("image")), ("sound", Some("sound"))].map(|(id, kind)| {
            create_with(&format!("{id}-{version}"), |put| {
                put.kind = kind.map(Into::into);
                put.ownership = Ownership::Take("ghost".into());
            })
        })
    };
    for (index, (kinds, expected)) in (0..).zip([
        (None, vec!["none", "video", "image", "sound"]),
        (Some(vec![]), vec!["none"]),
        (Some(vec!["video"]), vec!["none", "video"]),
        (Some(vec!["sound", "other", "video"]), vec!["none", "video", "sound"]),
        (Some(vec!["image", "image"]), vec!["none", "image"]),
    ]) {
        store.accept(round(index).into()).await;
        let kinds = kinds.map(|kinds: Vec<&str>| kinds.into_iter().map(Into::into).collect());
        let claimed = store.claim(Claim { kinds, ..claim("me") }).await;
        assert_eq!(ids(&claimed), expected.iter().map(|id| format!("{id}-{index}")).collect::<Vec<_>>());
        // What is left is another round's no more.
        store.claim(claim("me")).await;
    }
}

pub async fn one_job_is_claimed_by_name(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store
        .accept(vec![create_owned("a", "ghost"), create_owned("b", "ghost"), create("free"), create_with("typed", |put| put.kind = Some("video".into()))])
        .await;
    let only = |id: &str| Claim { only: Some(id.into()), ..claim("me") };
    assert_eq!(ids(&store.claim(only("b")).await), ["b"]);
    assert_eq!(store.claim(only("b")).await, []);
    assert_eq!(store.claim(only("missing")).await, []);
    assert_eq!(store.claim(only("free")).await, [], "the other conditions hold all the same");
    assert_eq!(ids(&store.claim(Claim { unowned: true, ..only("free") }).await), ["free"]);
    assert_eq!(store.claim(Claim { unowned: true, kinds: Some(vec!["image".into()]), ..only("typed") }).await, []);
    assert_eq!(store.stored("a").await.owner.as_deref(), Some("ghost"));
}

pub async fn the_oldest_are_claimed_first(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    let name = |index: usize| format!("{}-{index}", ["z", "m", "a"][index % 3]);
    store
        .accept(
            (0..12)
                .map(|index| match index % 3 {
                    0 => create_owned(&name(index), "ghost"),
                    1 => create_with(&name(index), |put| put.ownership = Ownership::Release),
                    _ => create(&name(index)),
                })
                .collect(),
        )
        .await;
    let few = |most| Claim { most, unowned: true, ..claim("me") };
    assert_eq!(store.claim(few(0)).await, []);
    assert_eq!(ids(&store.claim(few(1)).await), [name(0)]);
    assert_eq!(ids(&store.claim(few(4)).await), [1, 2, 3, 4].map(name));
    assert_eq!(ids(&store.claim(few(100)).await), [5, 6, 7, 8, 9, 10, 11].map(name));
}

pub async fn a_claim_leaves_the_job_as_it_is(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store
        .accept(vec![create_with("a", |put| {
            put.version = 5;
            put.state = JobState::Running;
            put.kind = Some("video".into());
            put.ownership = Ownership::Take("ghost".into());
            put.chunks = vec![chunk(0, "row"), chunk(1, "row")];
            put.logs = vec![log(0, 1, LogStream::Stdout, "out")];
        })])
        .await;
    store.request("a", "{}").await;
    let before = store.stored("a").await;
    let mark = store.mark().await;
    assert_eq!(ids(&store.claim(claim("me")).await), ["a"]);
    let after = store.stored("a").await;
    assert_eq!(after, Stored { owner: Some("me".into()), renewed_at: after.renewed_at, ..before });
    assert!(after.renewed_at.is_some());
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await.as_deref(), Some("out"));
    assert_eq!(store.mark().await, mark, "no event tells of it");
}

pub async fn a_former_owner_is_refused_after_a_claim(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (old, new) = (&openings[0], &openings[1]);
    new.enroll("new", LONG).await;
    old.accept(vec![create_owned("a", "old")]).await;
    expired(old, "old").await;
    // Its lease is over, but the job is still its own.
    old.accept(vec![change("a", 1, is("old"), |_| {})]).await;
    assert_eq!(ids(&new.claim(claim("new")).await), ["a"]);
    let refused = Outcome::Stale { version: 2, owner: Some("new".into()) };
    assert_eq!(old.write(change("a", 2, is("old"), |_| {})).await, refused);
    assert!(old.renew("old", LONG).await);
    assert_eq!(old.write(change("a", 2, is("old"), |_| {})).await, refused, "a new lease does not bring the job back");
    assert_eq!(old.write(delete("a", 2, is("old"))).await, refused);
    assert_eq!(old.write(change("a", 2, Holder::Nobody, |_| {})).await, refused);
    new.accept(vec![change("a", 2, is("new"), |_| {})]).await;
}

pub async fn each_job_is_claimed_exactly_once(fixture: Fixture) {
    const JOBS: usize = 1_000;
    let openings = fixture.openings(4).await;
    let store = &openings[0];
    expired(store, "expired").await;
    store.enroll("dead", LONG).await;
    for group in (0..JOBS).collect::<Vec<_>>().chunks(100) {
        let create = |index: &usize| {
            create_with(&format!("job-{index:04}"), |put| {
                put.ownership = match index % 5 {
                    0 => Ownership::Take("ghost".into()),
                    1 => Ownership::Take("expired".into()),
                    2 => Ownership::Take("dead".into()),
                    3 => Ownership::Release,
                    _ => Ownership::Keep,
                };
            })
        };
        store.accept(group.iter().map(create).collect()).await;
    }
    let start = Arc::new(tokio::sync::Barrier::new(8));
    let claimed = all((0..8).map(|claimer| {
        let (store, start) = (openings[claimer % openings.len()].clone(), start.clone());
        async move {
            let owner = format!("claimer-{claimer}");
            store.enroll(&owner, LONG).await;
            start.wait().await;
            let mut mine = Vec::new();
            loop {
                let most = 1 + mine.len() % 13;
                let claimed = store.claim(Claim { most, unowned: true, dead: vec!["dead".into()], ..claim(&owner) }).await;
                assert!(claimed.len() <= most, "{} claimed where {most} were asked for", claimed.len());
                if claimed.is_empty() {
                    return (owner, mine);
                }
                mine.extend(claimed.into_iter().map(|claimed| claimed.id));
            }
        }
    }))
    .await;
    let mut seen = HashSet::new();
    for (_, mine) in &claimed {
        for id in mine {
            assert!(seen.insert(id.clone()), "{id} was claimed twice");
        }
    }
    assert_eq!(seen.len(), JOBS);
    let holders: std::collections::HashMap<Arc<str>, Option<Arc<str>>> =
        store.pages(&[], 300).await.into_iter().flatten().map(|stored| (stored.id, stored.owner)).collect();
    for (owner, mine) in &claimed {
        for id in mine {
            assert_eq!(holders[id].as_deref(), Some(&**owner), "{id}");
        }
    }
}

pub async fn an_owner_is_told_what_it_owns_and_is_not_done_yet(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    store.enroll("o", LONG).await;
    store.accept(vec![create_owned("b", "o"), create_owned("a", "o"), create_owned("theirs", "p"), create("free"), create_owned("done", "o")]).await;
    store.accept(vec![change("done", 1, is("o"), |put| put.state = JobState::Completed)]).await;
    store.accept(vec![change("a", 1, is("o"), |put| put.state = JobState::Running)]).await;
    assert_eq!(other.owned("o").await, [Arc::from("b"), "a".into()]);
    assert_eq!(store.owned("ghost").await, []);
    assert_eq!(store.owned("").await, []);
}

pub async fn requests_go_to_the_owner_in_order(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    store.accept(vec![create_owned("b", "o"), create_owned("a", "o"), create_owned("theirs", "p"), create("free")]).await;
    assert!(!other.request("missing", "{}").await);
    for (id, body) in [("b", "1"), ("a", "2"), ("theirs", "3"), ("b", "4"), ("free", "5"), ("a", "6")] {
        assert!(other.request(id, body).await);
    }
    let expected = [("b", "1"), ("a", "2"), ("b", "4"), ("a", "6")].map(|(id, body)| (Arc::from(id), body.to_owned()));
    assert_eq!(store.requests("o").await, expected);
    assert_eq!(store.requests("o").await, expected, "reading answers nothing");
    assert_eq!(store.requests("p").await, [("theirs".into(), "3".to_owned())]);
    assert_eq!(store.requests("nobody").await, []);
    assert_eq!(store.stored("b").await.requests, ["1", "4"]);
    assert_eq!(store.stored("free").await.requests, ["5"]);
}

pub async fn requests_follow_a_claim(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("me", LONG).await;
    store.accept(vec![create_owned("a", "ghost")]).await;
    store.request("a", "1").await;
    assert_eq!(ids(&store.claim(claim("me")).await), ["a"]);
    store.request("a", "2").await;
    assert_eq!(store.requests("me").await, [("a".into(), "1".to_owned()), ("a".into(), "2".into())]);
    assert_eq!(store.requests("ghost").await, []);
}

pub async fn requests_end_when_they_are_answered(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create_owned("a", "o"), create_owned("b", "o")]).await;
    for (id, body) in [("a", "1"), ("b", "2"), ("a", "3")] {
        assert!(store.request(id, body).await);
    }
    store.accept(vec![change("a", 1, is("o"), |_| {})]).await;
    assert_eq!(store.requests("o").await.len(), 3, "a write that does not answer them leaves them");
    store.accept(vec![change("a", 2, is("o"), |put| put.clear_requests = true)]).await;
    assert_eq!(store.requests("o").await, [("b".into(), "2".to_owned())]);
    assert_eq!(store.stored("a").await.requests, [""; 0]);
    assert!(store.request("a", "4").await);
    assert_eq!(store.requests("o").await, [("b".into(), "2".to_owned()), ("a".into(), "4".into())]);
    store.accept(vec![delete("b", 1, is("o"))]).await;
    assert_eq!(store.requests("o").await, [("a".into(), "4".to_owned())]);
}
