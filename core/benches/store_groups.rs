//! How many completions a second a database takes: groups of 1,024 completed chunks of one job (a head, 1,024 rows, 2,048
//! events), one completion at a time, and groups of 1,024 jobs of one chunk each.
//!
//! `cargo bench -p framewright-core --bench store_groups -- postgres://postgres@127.0.0.1/test [seconds]`

mod groups;

use std::sync::Arc;
use std::time::{Duration, Instant};

use framewright_core::job::JobState;
use framewright_core::repository::durable::{Outcome, Put, Write};
use framewright_core::repository::mysql::{MysqlOptions, MysqlRepository};
use framewright_core::repository::postgres::{PostgresOptions, PostgresRepository};
use framewright_core::repository::runtime::Store;

use self::groups::{GROUP, change, chunk, create, events, put};

async fn commit(store: &Arc<Store>, group: Vec<Write>) {
    let outcomes = store.call(move |repository| async move { repository.commit(&group).await }).await.expect("commit");
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })));
}

async fn open(url: &str) -> Arc<Store> {
    let url = url.to_owned();
    let schema = Some(format!("bench_{}", std::process::id()));
    let opened = match url.starts_with("mysql") {
        true => Store::open(move || async move { MysqlRepository::connect(&url, MysqlOptions::default()).await }).await,
        false => Store::open(move || async move { PostgresRepository::connect(&url, PostgresOptions { schema, ..Default::default() }).await }).await,
    };
    opened.expect("the store opens")
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let Some(url) = arguments.next() else { return };
    let time = Duration::from_secs(arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(5));
    let store = open(&url).await;
    let run = uuid::Uuid::new_v4().simple().to_string();

    let job = format!("{run}-one");
    commit(&store, vec![create(&job)]).await;
    let (start, mut version, mut groups) = (Instant::now(), 1, 0u32);
    while start.elapsed() < time {
        let rows = (groups * GROUP..(groups + 1) * GROUP).map(chunk).collect();
        commit(&store, vec![change(&job, version, Put { chunks: rows, events: events(2 * GROUP), ..put(version + 1) })]).await;
        (version, groups) = (version + 1, groups + 1);
    }
    let rate = f64::from(groups) / start.elapsed().as_secs_f64();
    println!("one job, groups of {GROUP}: {rate:.1} groups/s, {:.0} chunks/s", rate * f64::from(GROUP));

    let mut waits = Vec::new();
    let start = Instant::now();
    while start.elapsed() < time {
        let began = Instant::now();
        let rows = vec![chunk(waits.len() as u32)];
        commit(&store, vec![change(&job, version, Put { chunks: rows, events: events(2), ..put(version + 1) })]).await;
        version += 1;
        waits.push(began.elapsed());
    }
    waits.sort();
    println!(
        "one at a time: {:.2} ms p50, {:.2} ms p99, {:.0} /s",
        millis(waits[waits.len() / 2]),
        millis(waits[waits.len() * 99 / 100]),
        waits.len() as f64 / time.as_secs_f64()
    );

    let (mut creating, mut completing, mut rounds) = (Duration::ZERO, Duration::ZERO, 0u32);
    while creating + completing < time {
        let ids: Vec<String> = (0..GROUP).map(|n| format!("{run}-{rounds}-{n}")).collect();
        let began = Instant::now();
        commit(&store, ids.iter().map(|id| create(id)).collect()).await;
        creating += began.elapsed();
        let began = Instant::now();
        let done = |id: &String| change(id, 1, Put { state: JobState::Completed, chunks: vec![chunk(0)], events: events(4), ..put(2) });
        commit(&store, ids.iter().map(done).collect()).await;
        completing += began.elapsed();
        rounds += 1;
    }
    let rate = |time: Duration| f64::from(rounds * GROUP) / time.as_secs_f64();
    println!(
        "{GROUP} jobs of one chunk: {:.0} jobs/s created, {:.0} jobs/s completed, {:.0} jobs/s both",
        rate(creating),
        rate(completing),
        rate(creating + completing)
    );
    store
        .call(|repository| async move {
            repository.close().await;
            Ok(())
        })
        .await
        .unwrap();
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
