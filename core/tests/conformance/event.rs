//! Numbering without gaps over all openings, paging, marks, waking.

use std::collections::HashMap;
use std::time::Instant;

use tokio::sync::oneshot;

use super::*;

/// A limit that no wait of these cases may reach, and what counts as woken.
const LIMIT: Duration = Duration::from_secs(60);
const AT_ONCE: Duration = Duration::from_secs(5);

pub async fn events_are_numbered_from_one(fixture: Fixture) {
    let store = &fixture.store;
    assert_eq!((store.mark().await, store.oldest_event().await), (Mark { sequence: 0, requests: 0 }, 1));
    assert_eq!(store.all_events().await, []);
    let outcomes = store
        .commit(vec![
            create_with("a", |put| put.events = vec![event("one"), event("two")]),
            create_with("silent", |put| put.events = vec![]),
            create_with("b", |put| put.events = vec![event("three")]),
        ])
        .await;
    assert_eq!(outcomes.iter().map(|outcome| accepted(outcome).0).collect::<Vec<_>>(), [1, 0, 3]);
    assert_eq!(accepted(&store.write(change("a", 1, Holder::Anyone, |_| {})).await).0, 4);
    assert_eq!((store.mark().await.sequence, store.oldest_event().await), (4, 1));
    let expected = [(1, "a", "one"), (2, "a", "two"), (3, "b", "three"), (4, "a", "job.changed")].map(|(sequence, job, kind)| StoredEvent {
        sequence,
        job: job.into(),
        body: event(kind).body,
    });
    assert_eq!(store.events(0, 100).await, expected);
}

/// Eight writers over four openings, each changing its own job and creating others, some refused. Gives what each was told.
async fn write_at_once(fixture: &Fixture) -> Vec<(String, u64, u64)> {
    let openings = fixture.openings(4).await;
    let told = all((0..8).map(|writer| {
        let store = openings[writer % openings.len()].clone();
        async move {
            let own = format!("own-{writer}");
            store.accept(vec![create_with(&own, |put| put.events = vec![])]).await;
            let mut told = Vec::new();
            for version in 1..=25_u64 {
                let count = version % 4;
                let other = format!("other-{writer}-{version}");
                let events = (0..count).map(|index| EventWrite { body: format!(r#""type":"{own}","version":{version},"n":{index}"#).into() }).collect();
                let outcomes = store
                    .commit(vec![
                        // Refused: takes no number.
                        create(&own),
                        change(&own, version, Holder::Anyone, |put| put.events = events),
                        change(&own, version, Holder::Anyone, |_| {}),
                        create(&other),
                    ])
                    .await;
                assert_eq!((&outcomes[0], &outcomes[2]), (&Outcome::Duplicate, &Outcome::Stale { version: version + 1, owner: None }));
                let (first, _) = accepted(&outcomes[1]);
                if count > 0 {
                    told.push((own.clone(), first, count));
                } else {
                    assert_eq!(first, 0);
                }
                told.push((other, accepted(&outcomes[3]).0, 1));
            }
            told
        }
    }))
    .await;
    told.concat()
}

pub async fn numbering_has_no_gaps_over_all_openings(fixture: Fixture) {
    let mut told = write_at_once(&fixture).await;
    told.sort_by_key(|(_, first, _)| *first);
    let mut next = 1;
    let mut jobs = Vec::new();
    for (job, first, count) in told {
        assert_eq!(first, next, "the events of {job} begin where the ones before end");
        next += count;
        jobs.extend((0..count).map(|_| job.clone()));
    }
    for opening in fixture.openings(2).await {
        assert_eq!(opening.mark().await.sequence, next - 1);
        let events = opening.all_events().await;
        assert!(events.iter().map(|event| event.sequence).eq(1..next), "every number is there");
        assert!(events.iter().map(|event| &*event.job).eq(jobs.iter().map(String::as_str)), "each where its writer was told");
    }
}

pub async fn events_of_a_job_are_in_order(fixture: Fixture) {
    write_at_once(&fixture).await;
    let mut told: HashMap<String, Vec<String>> = HashMap::new();
    for event in fixture.store.all_events().await {
        told.entry(event.job.to_string()).or_default().push(event.body.to_string());
    }
    for writer in 0..8 {
        let own = format!("own-{writer}");
        let expected: Vec<String> = (1..=25_u64)
            .flat_map(|version| (0..version % 4).map(move |index| (version, index)))
            .map(|(version, index)| format!(r#""type":"{own}","version":{version},"n":{index}"#))
            .collect();
        assert_eq!(told[&own], expected);
    }
}

pub async fn events_are_read_by_pages(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create_with("a", |put| put.events = (0..20).map(|index| event(&format!("{index}"))).collect()), create("b")]).await;
    let numbers = |events: Vec<StoredEvent>| events.into_iter().map(|event| event.sequence).collect::<Vec<_>>();
    for (from, most, expected) in [(0, 3, 1..=3), (1, 3, 1..=3), (2, 3, 2..=4), (19, 10, 19..=21), (21, 1, 21..=21), (1, 1_000, 1..=21)] {
        assert_eq!(numbers(store.events(from, most).await), expected.collect::<Vec<u64>>(), "{most} from {from}");
    }
    assert_eq!(store.events(22, 10).await, []);
    // Pages leap over what went with a deleted job.
    store.accept(vec![delete("a", 1, Holder::Anyone)]).await;
    assert_eq!(numbers(store.events(1, 1).await), [21]);
    assert_eq!(numbers(store.events(3, 10).await), [21, 22]);
}

pub async fn the_oldest_event_moves_when_jobs_are_deleted(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create("a"), create("b"), change("a", 1, Holder::Anyone, |_| {}), create("c")]).await;
    assert_eq!(store.oldest_event().await, 1);
    store.accept(vec![delete("a", 2, Holder::Anyone)]).await;
    assert_eq!(store.oldest_event().await, 2);
    store.accept(vec![delete("c", 1, Holder::Anyone)]).await;
    assert_eq!(store.oldest_event().await, 2);
    store.accept(vec![delete("b", 1, Holder::Anyone)]).await;
    assert_eq!((store.oldest_event().await, store.mark().await.sequence), (5, 7), "only what tells of the ends is kept");
}

pub async fn the_mark_grows_with_events_and_requests(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (store, other) = (&openings[0], &openings[1]);
    store.accept(vec![create_owned("a", "o")]).await;
    let first = other.mark().await;
    assert_eq!(first.sequence, 1);
    assert!(other.request("a", "{}").await);
    let second = store.mark().await;
    assert!(second.sequence == 1 && second.requests > first.requests, "{second:?} after {first:?}");
    assert!(store.request("a", "{}").await);
    let third = store.mark().await;
    assert!(third.requests > second.requests, "{third:?} after {second:?}");
    // What is answered or gone was made all the same.
    store.accept(vec![change("a", 1, is("o"), |put| put.clear_requests = true)]).await;
    assert_eq!(other.mark().await, Mark { sequence: 2, ..third });
    assert!(other.request("a", "{}").await);
    let fourth = other.mark().await;
    assert!(fourth.requests > third.requests, "{fourth:?} after {third:?}");
    other.accept(vec![delete("a", 2, Holder::Anyone)]).await;
    assert_eq!(store.mark().await, Mark { sequence: 3, ..fourth });
}

/// Waits in one opening until the mark is another one than before `act`: while somebody looks and waits, and while nobody
/// does.
async fn woken_by<F: Future<Output = ()>>(waiting: Opening, act: impl Fn(u32) -> F) {
    for round in 0..6 {
        let before = waiting.mark().await;
        let (ready, looked) = oneshot::channel();
        let waiter = waiting.clone();
        let wait = tokio::spawn(async move {
            let mut ready = Some(ready);
            let started = Instant::now();
            // As a manager does: look, wait, look again. What happens in between must not be missed.
            while waiter.mark().await == before {
                if let Some(ready) = ready.take() {
                    ready.send(()).expect("somebody listens");
                }
                waiter.changed(LIMIT).await;
            }
            started.elapsed()
        });
        looked.await.expect("the waiter looks");
        act(round).await;
        let took = wait.await.expect("no panic");
        assert!(took < AT_ONCE, "woken after {took:?} in round {round}");
    }
    // Done before anybody waits, and after the last wait: a manager looks only when a wait has ended.
    for round in 6..10 {
        act(round).await;
        let started = Instant::now();
        waiting.changed(LIMIT).await;
        assert!(started.elapsed() < AT_ONCE, "seen after {:?} in round {round}", started.elapsed());
    }
}

pub async fn waiting_ends_with_a_commit_of_another_opening(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    woken_by(openings[0].clone(), |round| {
        let other = openings[1].clone();
        async move {
            other.accept(vec![create(&format!("job-{round}"))]).await;
        }
    })
    .await;
}

pub async fn waiting_ends_with_a_request_of_another_opening(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    openings[0].accept(vec![create_owned("a", "o")]).await;
    woken_by(openings[0].clone(), |_| {
        let other = openings[1].clone();
        async move { assert!(other.request("a", "{}").await) }
    })
    .await;
}

pub async fn waiting_ends_with_a_commit_of_the_same_opening(fixture: Fixture) {
    // Several managers of one process share an opening.
    woken_by(fixture.store.clone(), |round| {
        let store = fixture.store.clone();
        async move {
            store.accept(vec![create(&format!("job-{round}"))]).await;
        }
    })
    .await;
}

pub async fn all_who_wait_hear_of_a_commit(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let started = Instant::now();
    let waiters: Vec<_> = (0..6)
        .map(|waiter| {
            let store = openings[waiter % 2].clone();
            tokio::spawn(async move { store.changed(LIMIT).await })
        })
        .collect();
    // Nobody knows when the last of them waits.
    let mut round = 0;
    while !waiters.iter().all(|waiter| waiter.is_finished()) {
        assert!(started.elapsed() < LIMIT / 2, "somebody was not woken by {round} commits");
        openings[round % 2].accept(vec![create(&format!("job-{round}"))]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        round += 1;
    }
    for waiter in waiters {
        waiter.await.expect("no panic");
    }
}

pub async fn waiting_ends_after_its_limit(fixture: Fixture) {
    let started = Instant::now();
    fixture.store.changed(Duration::from_millis(50)).await;
    assert!(started.elapsed() < AT_ONCE);
    fixture.store.changed(Duration::ZERO).await;
}
