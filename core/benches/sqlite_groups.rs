//! How many completions a second SQLite takes, for synchronous FULL and NORMAL: groups of 1,024 completed chunks of one job (a
//! head, 1,024 rows, 2,048 events), groups of 1,024 jobs of one chunk, one completion at a time; and what looking for changes
//! of other processes costs.
//!
//! `cargo bench -p framewright-core --bench sqlite_groups -- [FOLDER]`; without a folder, a temporary one.

#![allow(missing_docs, reason = "a benchmark")]

mod groups;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use framewright_core::job::JobState;
use framewright_core::repository::durable::{Outcome, Ownership, Put, Write};
use framewright_core::repository::runtime::Store;
use framewright_core::repository::sqlite::{SqliteRepository, Synchronous};

use self::groups::{GROUP, change, chunk, create, events, put};

const GROUPS: u32 = 100;

/// Commits groups one after another; how long it took.
async fn commit(store: &Arc<Store>, groups: Vec<Vec<Write>>) -> Duration {
    let from = Instant::now();
    store
        .call(|repository| async move {
            for group in &groups {
                let outcomes = repository.commit(group).await?;
                assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "all are accepted");
            }
            Ok(())
        })
        .await
        .expect("commits");
    from.elapsed()
}

fn cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: writes to `usage`, which is plain numbers.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Bytes that this process wrote to files, where the kernel tells.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

async fn measure(folder: PathBuf, synchronous: Synchronous) {
    let path = folder.join(format!("{synchronous:?}.db"));
    let store = Store::open(move || SqliteRepository::open(path, synchronous)).await.expect("opens");

    commit(&store, vec![vec![create("job")]]).await;
    let groups = (0..GROUPS)
        .map(|n| {
            let chunks = (n * GROUP..(n + 1) * GROUP).map(chunk).collect();
            vec![change("job", u64::from(n) + 1, Put { chunks, events: events(2 * GROUP), ..put(u64::from(n) + 2) })]
        })
        .collect();
    let bytes = written();
    let took = commit(&store, groups).await;
    let chunks = f64::from(GROUP * GROUPS);
    println!(
        "{synchronous:?}: groups of one job: {:.0} chunks/s, {:.2} ms a group, {:.0} bytes written a chunk",
        chunks / took.as_secs_f64(),
        took.as_secs_f64() * 1e3 / f64::from(GROUPS),
        (written() - bytes) as f64 / chunks
    );

    let ids: Vec<String> = (0..GROUP * 16).map(|n| format!("0198a3c0-0000-7000-8000-{n:012}")).collect();
    let took = commit(&store, ids.chunks(GROUP as usize).map(|ids| ids.iter().map(|id| create(id)).collect()).collect()).await;
    println!("{synchronous:?}: groups of {GROUP} new jobs: {:.0} jobs/s", ids.len() as f64 / took.as_secs_f64());
    let complete =
        |id: &String| change(id, 1, Put { state: JobState::Completed, ownership: Ownership::Clear, chunks: vec![chunk(0)], events: events(3), ..put(2) });
    let took = commit(&store, ids.chunks(GROUP as usize).map(|ids| ids.iter().map(complete).collect()).collect()).await;
    println!("{synchronous:?}: groups of {GROUP} jobs of one chunk: {:.0} chunks/s", ids.len() as f64 / took.as_secs_f64());

    let single = (0..1000u32)
        .map(|n| {
            let version = u64::from(GROUPS + n);
            vec![change("job", version + 1, Put { chunks: vec![chunk(n)], events: events(2), ..put(version + 2) })]
        })
        .collect();
    let took = commit(&store, single).await;
    println!("{synchronous:?}: one completion at a time: {:.0} us each", took.as_secs_f64() * 1e6 / 1000.0);

    // The change of the commits before ends the first wait at once.
    let wait = |limit| {
        store.call(move |repository| async move {
            repository.changed(limit).await;
            Ok(())
        })
    };
    for _ in 0..2 {
        wait(Duration::from_millis(20)).await.expect("waits");
    }
    let (before, from) = (cpu(), Instant::now());
    wait(Duration::from_secs(3)).await.expect("waits");
    println!("{synchronous:?}: looking for changes: {:.2} % of a core", (cpu() - before).as_secs_f64() / from.elapsed().as_secs_f64() * 100.0);
    store
        .call(|repository| async move {
            repository.close().await;
            Ok(())
        })
        .await
        .expect("closes");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let temporary = tempfile::tempdir().expect("a folder");
    // Cargo adds `--bench`.
    let folder = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map_or(temporary.path().to_owned(), PathBuf::from);
    runtime.block_on(async {
        for synchronous in [Synchronous::Full, Synchronous::Normal] {
            measure(folder.clone(), synchronous).await;
        }
    });
}
