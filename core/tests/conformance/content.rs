//! What is stored comes back unchanged, whatever it is and however much.

use super::*;

/// JSON that has brought stores down before.
const AWKWARD: &str = r#"{"nul":"\u0000","quotes":"'\"`\\ %_$1?:a","lines":"\r\n\t","words":"naïve 日本語 🎬 \ud83c\udfac e\u0301","number":1.0e+02, "space" :[ ],"twice":1,"twice":2}"#;

pub async fn everything_of_a_job_comes_back(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("o", LONG).await;
    for (index, state) in JobState::ALL.into_iter().enumerate() {
        let id = format!("job-{index}");
        let outcome = store
            .write(create_with(&id, |put| {
                put.version = 3;
                put.state = state;
                put.kind = Some("video".into());
                put.ownership = Ownership::Take("o".into());
                put.hold = index % 2 == 0;
                put.head = "head".into();
                put.spec = Some("spec".into());
                put.options = Some("options".into());
                put.extras = Some("extras".into());
                // Any order.
                put.chunks = vec![chunk(7, "seven"), chunk(0, "zero"), chunk(4_000_000_000, "far")];
            }))
            .await;
        assert!(store.request(&id, "first").await && store.request(&id, "second").await);
        let stored = store.stored(&id).await;
        let renewed_at = stored.renewed_at;
        let expected = Stored {
            id: id.as_str().into(),
            place: accepted(&outcome).1,
            version: 3,
            state,
            kind: Some("video".into()),
            owner: Some("o".into()),
            released: false,
            hold: index % 2 == 0,
            renewed_at,
            head: "head".into(),
            spec: "spec".into(),
            options: "options".into(),
            extras: "extras".into(),
            chunks: vec![(0, "zero".into()), (7, "seven".into()), (4_000_000_000, "far".into())],
            requests: vec!["first".into(), "second".into()],
        };
        assert_eq!(stored, expected);
        let listed = store.list(&[state], 0, 10).await;
        assert_eq!(listed.jobs, [expected], "a listing tells the same");
    }
}

pub async fn texts_that_are_not_given_stay(fixture: Fixture) {
    let store = &fixture.store;
    store
        .accept(vec![create_with("a", |put| {
            put.kind = Some("video".into());
            put.extras = Some(r#"{"meta":1}"#.into());
            put.options = Some(r#"{"concurrency":2}"#.into());
        })])
        .await;
    let before = store.stored("a").await;
    // Alone, and in one group.
    store.accept(vec![change("a", 1, Holder::Anyone, |_| {})]).await;
    store.accept(vec![change("a", 2, Holder::Anyone, |_| {}), change("a", 3, Holder::Anyone, |_| {})]).await;
    let after = store.stored("a").await;
    assert_eq!((&after.spec, &after.options, &after.extras, &after.kind), (&before.spec, &before.options, &before.extras, &before.kind));
    assert_eq!(after.head, r#"{"completed":3}"#);
}

pub async fn texts_that_are_given_are_replaced(fixture: Fixture) {
    let store = &fixture.store;
    store.accept(vec![create("a"), create("b")]).await;
    let text = |version: u64| Some(format!("text {version}"));
    store.accept(vec![change("a", 1, Holder::Anyone, |put| put.spec = text(2))]).await;
    store.accept(vec![change("a", 2, Holder::Anyone, |put| put.options = text(3))]).await;
    store
        .accept(vec![
            change("a", 3, Holder::Anyone, |put| {
                put.extras = text(4);
                put.hold = true;
                put.state = JobState::Paused;
            }),
            change("a", 4, Holder::Anyone, |put| {
                put.options = text(5);
                put.state = JobState::Pending;
                put.hold = true;
            }),
        ])
        .await;
    let stored = store.stored("a").await;
    assert_eq!((&*stored.spec, &*stored.options, &*stored.extras), ("text 2", "text 5", "text 4"));
    assert_eq!((stored.state, stored.hold), (JobState::Pending, true));
    store.accept(vec![change("a", 5, Holder::Anyone, |put| put.spec = Some(String::new()))]).await;
    let stored = store.stored("a").await;
    assert_eq!((&*stored.spec, stored.hold), ("", false));
    assert_eq!(store.stored("b").await.spec, r#"{"id":"b"}"#, "another job keeps its own");
}

pub async fn chunk_rows_are_upserted(fixture: Fixture) {
    let store = &fixture.store;
    store
        .accept(vec![create_with("a", |put| put.chunks = vec![chunk(0, "a0"), chunk(2, "a2")]), create_with("b", |put| put.chunks = vec![chunk(0, "b0")])])
        .await;
    store.accept(vec![change("a", 1, Holder::Anyone, |put| put.chunks = vec![chunk(2, "A2"), chunk(1, "A1")])]).await;
    store.accept(vec![change("a", 2, Holder::Anyone, |_| {})]).await;
    assert_eq!(store.stored("a").await.chunks, [(0, "a0".to_owned()), (1, "A1".into()), (2, "A2".into())]);
    assert_eq!(store.stored("b").await.chunks, [(0, "b0".to_owned())]);
}

pub async fn chunk_rows_are_reset(fixture: Fixture) {
    let store = &fixture.store;
    let rows = |text: &str, indexes: &[u32]| indexes.iter().map(|&index| chunk(index, text)).collect::<Vec<_>>();
    store.accept(vec![create_with("a", |put| put.chunks = rows("1", &[0, 1, 2])), create_with("b", |put| put.chunks = rows("1", &[0, 1]))]).await;
    let reset = |version: u64, chunks: Vec<ChunkWrite>| {
        change("a", version, Holder::Anyone, |put| {
            put.reset_chunks = true;
            put.chunks = chunks;
        })
    };
    store.accept(vec![reset(1, rows("2", &[1, 5]))]).await;
    assert_eq!(store.stored("a").await.chunks, [(1, "2".to_owned()), (5, "2".into())]);
    store.accept(vec![reset(2, vec![])]).await;
    assert_eq!(store.stored("a").await.chunks, []);
    // In the middle of a group.
    store
        .accept(vec![
            change("a", 3, Holder::Anyone, |put| put.chunks = rows("4", &[0, 1, 2])),
            reset(4, rows("5", &[1])),
            change("a", 5, Holder::Anyone, |put| put.chunks = rows("6", &[3])),
        ])
        .await;
    assert_eq!(store.stored("a").await.chunks, [(1, "5".to_owned()), (3, "6".into())]);
    assert_eq!(store.stored("b").await.chunks.len(), 2, "another job keeps its own");
}

pub async fn a_group_may_write_the_same_row_twice(fixture: Fixture) {
    let store = &fixture.store;
    let step = |version: u64, text: &'static str| {
        change("a", version, Holder::Anyone, move |put| {
            put.chunks = vec![chunk(0, text), chunk(version as u32, text)];
            put.logs = vec![log(0, 1, LogStream::Stdout, text)];
        })
    };
    store.accept(vec![create_with("a", |put| put.chunks = vec![chunk(0, "first")]), step(1, "second"), create("b"), step(2, "third")]).await;
    assert_eq!(store.stored("a").await.chunks, [(0, "third".to_owned()), (1, "second".into()), (2, "third".into())]);
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await.as_deref(), Some("third"));
}

pub async fn a_group_of_thousands_of_rows(fixture: Fixture) {
    let store = &fixture.store;
    let events = |job: &str, count: usize| (0..count).map(|index| EventWrite { body: format!(r#""type":"{job}","n":{index}"#).into() }).collect::<Vec<_>>();
    // One job with everything, and many with a little.
    let mut group = vec![create_with("large", |put| {
        put.chunks = (0..2_000).map(|index| chunk(index, &format!(r#"{{"exitCode":{index}}}"#))).collect();
        put.events = events("large", 4_000);
    })];
    group.extend((0..400).map(|job| {
        create_with(&format!("small-{job}"), |put| {
            put.chunks = (0..5).map(|index| chunk(index, &format!("{job}/{index}"))).collect();
            put.events = events(&format!("small-{job}"), 10);
            put.logs = vec![log(0, 1, LogStream::Stdout, &format!("out {job}"))];
        })
    }));
    let outcomes = store.accept(group).await;
    let places: Vec<u64> = outcomes.iter().map(|outcome| accepted(outcome).1).collect();
    assert!(places.is_sorted_by(|left, right| left < right), "places follow the order in the group");
    let large = store.stored("large").await;
    assert_eq!(large.chunks.len(), 2_000);
    assert!(large.chunks.iter().enumerate().all(|(index, row)| *row == (index as u32, format!(r#"{{"exitCode":{index}}}"#))));
    assert_eq!(store.stored("small-399").await.chunks[4], (4, "399/4".to_owned()));
    assert_eq!(store.read_log("small-200", 0, 1, LogStream::Stdout).await.as_deref(), Some("out 200"));
    let told = store.all_events().await;
    assert_eq!(told.len(), 8_000);
    for (index, event) in told.iter().enumerate() {
        let (job, number) = if index < 4_000 { ("large".to_owned(), index) } else { (format!("small-{}", (index - 4_000) / 10), index % 10) };
        assert_eq!((event.sequence, &*event.job, &*event.body), (index as u64 + 1, &*job, &*format!(r#""type":"{job}","n":{number}"#)));
    }
}

pub async fn json_comes_back_byte_by_byte(fixture: Fixture) {
    let store = &fixture.store;
    store
        .accept(vec![create_with("a", |put| {
            put.head = AWKWARD.into();
            put.spec = Some(AWKWARD.into());
            put.options = Some(AWKWARD.into());
            put.extras = Some(AWKWARD.into());
            put.chunks = vec![chunk(0, AWKWARD)];
            put.logs = vec![log(0, 1, LogStream::Stdout, AWKWARD)];
            put.events = vec![EventWrite { body: AWKWARD.into() }];
        })])
        .await;
    assert!(store.request("a", AWKWARD).await);
    let stored = store.stored("a").await;
    for text in [&stored.head, &stored.spec, &stored.options, &stored.extras, &stored.chunks[0].1, &stored.requests[0]] {
        assert_eq!(text, AWKWARD);
    }
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await.as_deref(), Some(AWKWARD));
    assert_eq!(&*store.all_events().await[0].body, AWKWARD);
    // A change takes another way than a creation.
    let other = AWKWARD.replace("twice", "thrice");
    store
        .accept(vec![change("a", 1, Holder::Anyone, |put| {
            put.head = other.clone();
            put.spec = Some(other.clone());
            put.chunks = vec![chunk(0, &other)];
        })])
        .await;
    let stored = store.stored("a").await;
    assert_eq!([stored.head, stored.spec, stored.chunks[0].1.clone()], [other.clone(), other.clone(), other]);
}

pub async fn ids_that_differ_in_case_are_different_jobs(fixture: Fixture) {
    let store = &fixture.store;
    let longest = "x".repeat(128);
    let long = "x".repeat(127);
    let ids = ["shot", "Shot", "SHOT", "shot_1", "shot-1", "shot.1", "shotx1", "shot.json", "0", "00", "-", "_", "a..b", "CON", "nul", "null", &long, &longest];
    let all_of_them = |put: &mut Put, id: &str| {
        put.chunks = vec![chunk(0, id)];
        put.logs = vec![log(0, 1, LogStream::Stdout, id)];
    };
    store.accept(ids.iter().map(|id| create_with(id, |put| all_of_them(put, id))).collect()).await;
    for id in ids {
        assert!(store.request(id, id).await);
    }
    store.accept(vec![delete("SHOT", 1, Holder::Anyone), delete("shot.json", 1, Holder::Anyone)]).await;
    for id in ids.into_iter().filter(|id| !["SHOT", "shot.json"].contains(id)) {
        let stored = store.stored(id).await;
        assert_eq!((&*stored.id, &stored.chunks[0].1[..], &stored.requests[..]), (id, id, &[id.to_owned()][..]));
        assert_eq!(store.read_log(id, 0, 1, LogStream::Stdout).await.as_deref(), Some(id));
        assert_eq!(store.write(create(id)).await, Outcome::Duplicate);
    }
    for id in ["SHOT", "shot.json", "sHOT", "shot_", "nulL", &"x".repeat(126)] {
        assert_eq!(store.load(id).await, None);
        assert_eq!(store.read_log(id, 0, 1, LogStream::Stdout).await, None);
        assert!(!store.request(id, "{}").await);
    }
}

pub async fn types_and_owners_are_compared_exactly(fixture: Fixture) {
    let store = &fixture.store;
    let kinds = ["video", "Video", "video ", "vidéo", "vide\u{301}o", "🎬", "%", ""];
    store.enroll("me", LONG).await;
    store
        .accept(
            kinds
                .iter()
                .enumerate()
                .map(|(index, kind)| {
                    create_with(&format!("job-{index}"), |put| {
                        put.kind = Some((*kind).into());
                        put.ownership = Ownership::Take("dead".into());
                    })
                })
                .collect(),
        )
        .await;
    for (index, kind) in kinds.iter().enumerate() {
        let claimed = store.claim(Claim { kinds: Some(vec![(*kind).into()]), ..claim("me") }).await;
        assert_eq!(ids(&claimed), [format!("job-{index}")], "of type {kind:?}");
        assert_eq!(store.stored(&format!("job-{index}")).await.kind.as_deref(), Some(*kind));
    }
}

pub async fn a_spec_of_20_mb(fixture: Fixture) {
    let store = &fixture.store;
    let spec = format!(r#"{{"meta":"{}"}}"#, r#"é\u0000\"🎬-filler-"#.repeat(1_100_000));
    assert!(spec.len() > 20_000_000);
    store.accept(vec![create("before"), create_with("large", |put| put.spec = Some(spec.clone())), create("after")]).await;
    assert!(store.stored("large").await.spec == spec, "the spec comes back unchanged");
    let mut other = spec.clone();
    other.insert(1, ' ');
    store
        .accept(vec![change("large", 1, Holder::Anyone, |put| {
            put.spec = Some(other.clone());
            put.extras = Some(other.clone());
        })])
        .await;
    let stored = store.stored("large").await;
    assert!(stored.spec == other && stored.extras == other, "changed, too");
    let listed: Vec<String> = store.pages(&[], 10).await.into_iter().flatten().map(|stored| stored.id.to_string()).collect();
    assert_eq!(listed, ["before", "large", "after"]);
    // A chunk that failed may have said much.
    store.accept(vec![change("before", 1, Holder::Anyone, |put| put.chunks = vec![chunk(0, &spec)])]).await;
    assert!(store.stored("before").await.chunks[0].1 == spec, "the row comes back unchanged");
}

pub async fn a_log_of_16_mb(fixture: Fixture) {
    let store = &fixture.store;
    let filler: String = "frame 17\0 naïve 日本語 🎬 \\ ' \" \u{fffd}\r\n".chars().cycle().take(12_000_000).collect();
    let mut cut = 16 * 1024 * 1024;
    let mut text = filler.repeat(2);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    text.truncate(cut);
    store.accept(vec![create_with("a", |put| put.logs = vec![log(3, 2, LogStream::Stderr, &text)])]).await;
    assert!(store.read_log("a", 3, 2, LogStream::Stderr).await.as_deref() == Some(&text), "the log comes back unchanged");
    // Several of them in one write.
    store
        .accept(vec![change("a", 1, Holder::Anyone, |put| {
            put.logs = vec![log(0, 1, LogStream::Stdout, &text), log(1, 1, LogStream::Stdout, "short"), log(2, 1, LogStream::Stdout, &text)];
        })])
        .await;
    assert!(store.read_log("a", 2, 1, LogStream::Stdout).await.as_deref() == Some(&text), "the third log comes back unchanged");
    assert_eq!(store.read_log("a", 1, 1, LogStream::Stdout).await.as_deref(), Some("short"));
}

pub async fn logs_of_several_attempts_and_streams(fixture: Fixture) {
    let store = &fixture.store;
    use LogStream::{Stderr, Stdout};
    store.accept(vec![create("a"), create_with("b", |put| put.logs = vec![log(0, 1, Stdout, "b's")])]).await;
    store
        .accept(vec![
            change("a", 1, Holder::Anyone, |put| put.logs = vec![log(0, 1, Stdout, "out 1"), log(0, 1, Stderr, "err 1"), log(1, 1, Stdout, "")]),
            change("a", 2, Holder::Anyone, |put| put.logs = vec![log(0, 2, Stdout, "nul \0 and é 日本語 🎬")]),
        ])
        .await;
    let read = |index, attempt, stream| store.read_log("a", index, attempt, stream);
    assert_eq!(read(0, 1, Stdout).await.as_deref(), Some("out 1"));
    assert_eq!(read(0, 1, Stderr).await.as_deref(), Some("err 1"));
    assert_eq!(read(0, 2, Stdout).await.as_deref(), Some("nul \0 and é 日本語 🎬"));
    assert_eq!(read(1, 1, Stdout).await.as_deref(), Some(""), "said nothing, which is known");
    for (index, attempt, stream) in [(0, 2, Stderr), (0, 3, Stdout), (1, 1, Stderr), (2, 1, Stdout)] {
        assert_eq!(read(index, attempt, stream).await, None);
    }
    assert_eq!(store.read_log("missing", 0, 1, Stdout).await, None);
    assert_eq!(store.read_log("b", 0, 1, Stdout).await.as_deref(), Some("b's"));
    // Written again, by a write that resets the chunks: logs are not chunk rows.
    store
        .accept(vec![change("a", 3, Holder::Anyone, |put| {
            put.reset_chunks = true;
            put.logs = vec![log(0, 1, Stdout, "again")];
        })])
        .await;
    assert_eq!(read(0, 1, Stdout).await.as_deref(), Some("again"));
    assert_eq!(read(0, 1, Stderr).await.as_deref(), Some("err 1"));
    store.accept(vec![delete("a", 4, Holder::Anyone)]).await;
    assert_eq!(read(0, 1, Stdout).await, None);
    assert_eq!(read(0, 2, Stdout).await, None);
    assert_eq!(store.read_log("b", 0, 1, Stdout).await.as_deref(), Some("b's"));
}

pub async fn a_deleted_job_leaves_nothing_behind(fixture: Fixture) {
    let store = &fixture.store;
    store.enroll("o", LONG).await;
    let full = |id: &str| {
        let mut write = create_owned(id, "o");
        if let Action::Put(put) = &mut write.action {
            put.kind = Some("video".into());
            put.chunks = vec![chunk(0, "row"), chunk(1, "row")];
            put.logs = vec![log(0, 1, LogStream::Stdout, "out")];
            put.events = vec![event("one"), event("two")];
        }
        write
    };
    store.accept(vec![full("a"), full("b")]).await;
    assert!(store.request("a", "{}").await && store.request("b", "{}").await);
    let (sequence, _) = accepted(&store.write(delete("a", 1, is("o"))).await);
    assert_eq!(sequence, 5);
    assert_eq!(store.load("a").await, None);
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await, None);
    assert_eq!(store.requests("o").await, [("b".into(), "{}".to_owned())]);
    let told: Vec<(u64, String)> = store.all_events().await.into_iter().map(|event| (event.sequence, event.job.to_string())).collect();
    assert_eq!(told, [(3, "b".to_owned()), (4, "b".into()), (5, "a".into())]);
    assert_eq!(&*store.events(5, 1).await[0].body, &*event("job.deleted").body);
    assert_eq!(store.write(delete("a", 1, is("o"))).await, Outcome::Gone);

    // The id is free, and what was deleted does not come back with it.
    store.accept(vec![create("a")]).await;
    let stored = store.stored("a").await;
    assert_eq!((stored.version, stored.kind, stored.owner, stored.chunks, stored.requests), (1, None, None, vec![], vec![]));
    assert_eq!(store.read_log("a", 0, 1, LogStream::Stdout).await, None);
    assert_eq!(store.stored("b").await.chunks.len(), 2);
}
