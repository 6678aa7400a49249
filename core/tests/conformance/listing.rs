//! Order of arrival, pages, states, all while others write.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// The ids of a listing.
fn names(jobs: &[Stored]) -> Vec<&str> {
    jobs.iter().map(|stored| &*stored.id).collect()
}

pub async fn jobs_are_listed_in_order_of_arrival(fixture: Fixture) {
    let store = &fixture.store;
    assert_eq!(store.pages(&[], 10).await, [vec![]]);
    store.accept(vec![create("m"), create("z")]).await;
    store.accept(vec![create("a")]).await;
    store.accept(vec![create("B"), change("m", 1, Holder::Anyone, |_| {})]).await;
    let listing = store.list(&[], 0, 10).await;
    assert_eq!(names(&listing.jobs), ["m", "z", "a", "B"]);
    assert!(listing.jobs.is_sorted_by(|left, right| left.place < right.place));
    assert_eq!((listing.next, listing.jobs[0].place), (None, 1));
    for stored in &listing.jobs {
        assert_eq!(Some(stored), store.load(&stored.id).await.as_ref());
    }
}

pub async fn jobs_are_listed_by_state(fixture: Fixture) {
    let store = &fixture.store;
    store.accept((0..18).map(|index| create_with(&format!("job-{index}"), |put| put.state = JobState::ALL[index % 6])).collect()).await;
    for (index, state) in JobState::ALL.into_iter().enumerate() {
        let listing = store.list(&[state], 0, 10).await;
        assert_eq!(names(&listing.jobs), [0, 6, 12].map(|job| format!("job-{}", job + index)), "{state:?}");
        assert_eq!(listing.next, None);
    }
    let both = store.list(&[JobState::Running, JobState::Failed], 0, 10).await;
    assert_eq!(names(&both.jobs), ["job-1", "job-4", "job-7", "job-10", "job-13", "job-16"], "by arrival over all states");
    // A job moves with its state.
    store.accept(vec![change("job-7", 1, Holder::Anyone, |put| put.state = JobState::Completed), delete("job-9", 1, Holder::Anyone)]).await;
    assert_eq!(names(&store.list(&[JobState::Running], 0, 10).await.jobs), ["job-1", "job-13"]);
    assert_eq!(names(&store.list(&[JobState::Completed], 0, 10).await.jobs), ["job-3", "job-7", "job-15"]);
}

pub async fn pages_cover_everything_once(fixture: Fixture) {
    let store = &fixture.store;
    let state = |index: usize| if index.is_multiple_of(3) { JobState::Failed } else { JobState::Pending };
    store
        .accept(
            (0..60)
                .map(|index| {
                    create_with(&format!("job-{index}"), |put| {
                        put.state = state(index);
                        put.chunks = vec![chunk(0, &format!("{index}"))];
                    })
                })
                .collect(),
        )
        .await;
    for most in [1, 7, 20, 60, 100] {
        for (states, expected) in [(vec![], (0..60).collect::<Vec<_>>()), (vec![JobState::Failed], (0..60).step_by(3).collect())] {
            let pages = store.pages(&states, most).await;
            assert!(pages.iter().all(|page| !page.is_empty()), "no page promises another one that is empty");
            let jobs = pages.concat();
            assert_eq!(names(&jobs), expected.iter().map(|index| format!("job-{index}")).collect::<Vec<_>>(), "pages of {most}");
            assert!(jobs.iter().zip(&expected).all(|(stored, index)| stored.chunks == [(0, format!("{index}"))]), "each with its own rows");
        }
    }
    // Any place may be named, also one of a job that is gone.
    let middle = store.stored("job-30").await.place;
    store.accept(vec![delete("job-30", 1, Holder::Anyone)]).await;
    assert_eq!(names(&store.list(&[], middle, 2).await.jobs), ["job-31", "job-32"]);
    assert_eq!(names(&store.list(&[], u64::from(u32::MAX), 2).await.jobs), [""; 0]);
}

pub async fn large_jobs_are_listed_whole(fixture: Fixture) {
    let store = &fixture.store;
    let text = |index: usize| format!("{index}").repeat(5_000_000);
    for index in 0..6 {
        store
            .accept(vec![create_with(&format!("job-{index}"), |put| {
                put.spec = Some(text(index));
                put.chunks = (0..1_000).map(|row| chunk(row, "row")).collect();
            })])
            .await;
    }
    let jobs = store.pages(&[], 1_000).await.concat();
    assert_eq!(names(&jobs), (0..6).map(|index| format!("job-{index}")).collect::<Vec<_>>());
    for (index, stored) in jobs.iter().enumerate() {
        assert!(stored.spec == text(index) && stored.chunks.len() == 1_000);
    }
}

pub async fn several_jobs_are_loaded_at_once(fixture: Fixture) {
    let store = &fixture.store;
    let full = |index: usize| {
        create_with(&format!("job-{index}"), |put| {
            put.options = Some(format!("{{\"n\":{index}}}"));
            put.chunks = (0..index as u32).map(|position| chunk(position, &format!("{index}, {position}"))).collect();
        })
    };
    store.accept((0..40).map(full).collect()).await;
    store.request("job-7", "{\"a\":1}").await;
    store.request("job-7", "{\"a\":2}").await;
    assert_eq!(store.load_some(&[]).await, []);
    let ids = ["job-30", "job-7", "missing", "job-0", "job-12"];
    let mut found = store.load_some(&ids).await;
    found.sort_by_key(|stored| stored.place);
    assert_eq!(names(&found), ["job-0", "job-7", "job-12", "job-30"]);
    for stored in &found {
        assert_eq!(Some(stored), store.load(&stored.id).await.as_ref());
    }
    // What is too much for one answer is left out, and is there when it is asked for again.
    let large = "x".repeat(12 * 1024 * 1024);
    for index in 0..4 {
        store.accept(vec![create_with(&format!("large-{index}"), |put| put.spec = Some(large.clone()))]).await;
    }
    let found = store.load_some(&["large-0", "large-1", "large-2", "large-3"]).await;
    assert!(!found.is_empty() && found.iter().all(|stored| stored.spec == large));
}

pub async fn places_are_never_used_again(fixture: Fixture) {
    let store = &fixture.store;
    let mut last = 0;
    for round in 0..5 {
        let (_, place) = accepted(&store.write(create("a")).await);
        assert!(place > last, "place {place} in round {round} after {last}");
        last = place;
        store.accept(vec![delete("a", 1, Holder::Anyone)]).await;
    }
    // Nor over a closing, when the latest job is gone.
    let fixture = fixture.reopen().await;
    let (_, place) = accepted(&fixture.store.write(create("b")).await);
    assert!(place > last, "place {place} after {last}");
}

pub async fn a_listing_under_load_misses_nothing(fixture: Fixture) {
    let openings = fixture.openings(3).await;
    let store = &openings[0];
    let kept: Vec<String> = (0..200).map(|index| format!("kept-{index}")).collect();
    store.accept(kept.iter().map(|id| create(id)).collect()).await;
    let over = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, over, kept) = (openings[1 + writer % 2].clone(), over.clone(), kept.clone());
            tokio::spawn(async move {
                let mut round = 0;
                while !over.load(Ordering::Relaxed) {
                    let id = format!("passing-{writer}-{round}");
                    let busy = &kept[(round * 4 + writer) % kept.len()];
                    let version = store.stored(busy).await.version;
                    store.commit(vec![create(&id), change(busy, version, Holder::Anyone, |put| put.state = JobState::Pending)]).await;
                    store.accept(vec![delete(&id, 1, Holder::Anyone)]).await;
                    round += 1;
                }
                round
            })
        })
        .collect();
    for _ in 0..10 {
        let jobs = store.pages(&[JobState::Pending], 23).await.concat();
        assert!(jobs.is_sorted_by(|left, right| left.place < right.place));
        let listed: Vec<&str> = names(&jobs).into_iter().filter(|id| id.starts_with("kept-")).collect();
        assert_eq!(listed, kept);
    }
    over.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.await.expect("no panic") > 0, "the load was there");
    }
}

pub async fn what_is_read_is_one_version(fixture: Fixture) {
    let openings = fixture.openings(2).await;
    let (writer, reader) = (openings[0].clone(), openings[1].clone());
    let rows = |version: u64| (0..20).map(|index| chunk(index, &format!("{version}"))).collect::<Vec<_>>();
    let whole = |stored: &Stored| {
        let version = format!("{}", stored.version);
        assert_eq!(stored.head, version);
        assert!(stored.chunks.len() == 20 && stored.chunks.iter().all(|(_, body)| *body == version), "version {version} with rows {:?}", stored.chunks);
    };
    writer
        .accept(vec![create_with("a", |put| {
            put.head = "1".into();
            put.chunks = rows(1);
        })])
        .await;
    let over = Arc::new(AtomicBool::new(false));
    let ended = over.clone();
    let writing = tokio::spawn(async move {
        let mut version = 1;
        while !ended.load(Ordering::Relaxed) {
            writer
                .accept(vec![change("a", version, Holder::Anyone, |put| {
                    put.head = format!("{}", version + 1);
                    put.reset_chunks = version % 2 == 0;
                    put.chunks = rows(version + 1);
                })])
                .await;
            version += 1;
        }
        version
    });
    for _ in 0..100 {
        whole(&reader.stored("a").await);
        whole(&reader.list(&[], 0, 10).await.jobs[0]);
    }
    over.store(true, Ordering::Relaxed);
    assert!(writing.await.expect("no panic") > 1, "the load was there");
}
