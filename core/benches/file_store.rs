//! Durable writes of the file store: chunks of one job, and jobs of one chunk, in groups as a busy manager makes them.
//!
//! `cargo bench --bench file_store -- [directory]`

use std::path::{Path, PathBuf};
use std::time::Instant;

use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{Action, ChunkWrite, DurableRepository, EventWrite, Expect, Holder, Ownership, Put, Write};
use framewright_core::repository::file::FileRepository;

fn put(version: u64, state: JobState) -> Put {
    let head = format!("{{\"version\":{version},\"createdAt\":1700000000000,\"updatedAt\":1700000000000,\"completed\":{version},\"frames\":{version}}}");
    Put {
        version,
        state,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head,
        spec: None,
        options: None,
        extras: None,
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        events: Vec::new(),
        clear_requests: false,
    }
}

fn event(kind: &str, n: u64) -> EventWrite {
    EventWrite { body: format!("\"type\":\"{kind}\",\"at\":1700000000000,\"chunkId\":{n},\"attempt\":1").into() }
}

fn row(index: u32, state: &str) -> ChunkWrite {
    ChunkWrite { index, body: format!("{{\"state\":\"{state}\",\"attempt\":1,\"startedAt\":1700000000000,\"durationMs\":12.5}}") }
}

fn spec() -> Option<String> {
    Some(
        "{\"metadata\":{\"totalFrames\":100},\"chunks\":[{\"id\":0,\"startFrame\":0,\"frameCount\":100,\"outputFile\":\"0.mp4\",\"command\":\"render\"}]}"
            .into(),
    )
}

fn create(id: &str, owner: &str) -> Write {
    let put =
        Put { spec: spec(), options: Some("{}".into()), extras: Some("{}".into()), ownership: Ownership::Take(owner.into()), ..put(1, JobState::Pending) };
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(Box::new(put)) }
}

fn change(id: &str, version: u64, put: Put) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder: Holder::Is("me".into()) }, action: Action::Put(Box::new(put)) }
}

async fn commit(repository: &FileRepository, group: &[Write]) {
    for outcome in repository.commit(group).await.expect("commit") {
        assert!(matches!(outcome, framewright_core::repository::durable::Outcome::Accepted { .. }), "{outcome:?}");
    }
}

/// Chunks of one job, 1,000 to a group, two rows and two events each.
async fn chunks(repository: &FileRepository, count: u64) -> f64 {
    commit(repository, &[create("chunks", "me")]).await;
    let started = Instant::now();
    for group in 0..count / 1_000 {
        let numbers = group * 1_000..(group + 1) * 1_000;
        let running = numbers.clone().map(|n| row(n as u32, "running")).collect();
        let done = numbers.clone().map(|n| row(n as u32, "completed")).collect();
        let version = group * 2 + 1;
        let first = Put { chunks: running, events: numbers.clone().map(|n| event("chunk.started", n)).collect(), ..put(version + 1, JobState::Running) };
        let then = Put { chunks: done, events: numbers.map(|n| event("chunk.completed", n)).collect(), ..put(version + 2, JobState::Running) };
        commit(repository, &[change("chunks", version, first), change("chunks", version + 1, then)]).await;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// Jobs of one chunk, 500 to a group: created, started, completed in three groups.
async fn jobs(repository: &FileRepository, count: u64) -> f64 {
    let started = Instant::now();
    for group in 0..count / 500 {
        let ids: Vec<String> = (group * 500..(group + 1) * 500).map(|n| format!("job-{n}")).collect();
        let created: Vec<Write> = ids
            .iter()
            .map(|id| {
                let mut write = create(id, "me");
                if let Action::Put(put) = &mut write.action {
                    put.events = vec![event("job.submitted", 0)];
                }
                write
            })
            .collect();
        commit(repository, &created).await;
        let step = |version: u64, state: JobState, chunk: &str, events: [&str; 2]| -> Vec<Write> {
            let events: Vec<_> = events.iter().map(|kind| event(kind, 0)).collect();
            ids.iter().map(|id| change(id, version, Put { chunks: vec![row(0, chunk)], events: events.clone(), ..put(version + 1, state) })).collect()
        };
        commit(repository, &step(1, JobState::Running, "running", ["job.started", "chunk.started"])).await;
        commit(repository, &step(2, JobState::Completed, "completed", ["chunk.completed", "job.completed"])).await;
    }
    count as f64 / started.elapsed().as_secs_f64()
}

fn bytes(path: &Path) -> u64 {
    std::fs::read_dir(path).map_or(0, |files| {
        files.filter_map(Result::ok).map(|file| if file.path().is_dir() { bytes(&file.path()) } else { file.metadata().map_or(0, |data| data.len()) }).sum()
    })
}

fn main() {
    let given = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).map(PathBuf::from);
    let home = given.map_or_else(tempfile::tempdir, tempfile::tempdir_in).expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let open = |name: &str| FileRepository::open(home.path().join(name), |_| Err(Error::new(ErrorCode::Internal, "none"))).expect("open");
    let count = 400_000;
    let repository = open("chunks");
    println!("chunks of one job: {:.0} a second", runtime.block_on(chunks(&repository, count)));
    runtime.block_on(repository.close());
    drop(repository);
    println!("bytes kept for a chunk: {}", bytes(&home.path().join("chunks")) / count);
    let started = Instant::now();
    let repository = open("chunks");
    let job = runtime.block_on(repository.load("chunks")).expect("load").expect("a job");
    println!("opened and loaded {} chunks in {:.0} ms", job.chunks.len(), started.elapsed().as_secs_f64() * 1e3);
    let count = 60_000;
    let repository = open("jobs");
    println!("jobs of one chunk: {:.0} a second", runtime.block_on(jobs(&repository, count)));
    let started = Instant::now();
    runtime.block_on(repository.close());
    drop(repository);
    println!("closed in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    let started = Instant::now();
    let repository = open("jobs");
    println!("opened with {count} jobs in {:.0} ms", started.elapsed().as_secs_f64() * 1e3);
    runtime.block_on(repository.close());
}
