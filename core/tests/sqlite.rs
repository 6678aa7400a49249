//! What is SQLite's own: what its file may be, several processes on it, and what happens when they are killed or the disk is
//! full or damaged. What all stores promise is in `repositories.rs`.

#![cfg(feature = "sqlite")]

#[allow(dead_code, unused_macros)]
mod conformance;

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use conformance::{Opening, accepted, change, chunk, create, create_with, delete, event};
use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{DurableRepository as _, Holder, Outcome, Write};
use framewright_core::repository::runtime::Store;
use framewright_core::repository::sqlite::{SqliteRepository, Synchronous, linked_version};
use sqlx::{Connection, Row, SqliteConnection};
use tempfile::TempDir;

async fn try_open(path: &Path) -> Result<Opening, Error> {
    let path = path.to_owned();
    Store::open(move || SqliteRepository::open(path, Synchronous::Full)).await.map(Opening)
}

async fn open(path: &Path) -> Opening {
    try_open(path).await.expect("the database opens")
}

async fn refused(path: &Path) -> Error {
    match try_open(path).await {
        Err(error) => error,
        Ok(_) => panic!("{} must not open", path.display()),
    }
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jobs.db");
    (folder, path)
}

/// SQLite itself on the file.
async fn sqlite(path: &Path) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true).foreign_keys(false);
    SqliteConnection::connect_with(&options).await.expect("SQLite opens")
}

async fn run(path: &Path, statements: &'static str) {
    let mut connection = sqlite(path).await;
    sqlx::raw_sql(statements).execute(&mut connection).await.expect("runs");
    connection.close().await.expect("closes");
}

async fn number(path: &Path, statement: &'static str) -> i64 {
    let mut connection = sqlite(path).await;
    let number = sqlx::query(statement).fetch_one(&mut connection).await.expect("a row").get(0);
    connection.close().await.expect("closes");
    number
}

// ───── The linked SQLite ─────

#[test]
fn f155_the_linked_sqlite_is_3_51_3_or_newer() {
    assert!(linked_version() >= 3_051_003, "[F155] {}", linked_version());
}

// ───── What the file may be ─────

#[tokio::test]
async fn what_is_not_a_database_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    let text = "this is a text\n".repeat(1000);
    std::fs::write(&path, &text).unwrap();
    let error = refused(&path).await;
    assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
    assert!(error.message.contains("is not a SQLite database"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_something_else_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    run(&path, "CREATE TABLE customer (name TEXT); INSERT INTO customer VALUES ('Ada')").await;
    let before = std::fs::read(&path).unwrap();
    let error = refused(&path).await;
    assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
    assert!(error.message.contains("is a database of something else"), "{error}");
    assert!(std::fs::read(&path).unwrap() == before, "not even its journal mode is changed");
    // One that says whose it is, and is empty.
    std::fs::remove_file(&path).unwrap();
    run(&path, "PRAGMA application_id = 252006674").await;
    assert_eq!(refused(&path).await.code, ErrorCode::StoreCorrupt);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (_folder, path) = folder();
    open(&path).await.close().await;
    run(&path, "PRAGMA user_version = 999").await;
    let error = refused(&path).await;
    assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    assert!(error.message.contains("schema version 999") && error.message.contains("newer framewright"), "{error}");
}

#[tokio::test]
async fn a_database_without_its_tables_is_damaged() {
    let (_folder, path) = folder();
    open(&path).await.close().await;
    run(&path, "DROP TABLE store").await;
    assert_eq!(refused(&path).await.code, ErrorCode::StoreCorrupt);
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let (folder, _) = folder();
    let error = refused(&folder.path().join("no/such/jobs.db")).await;
    assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    assert!(error.message.contains("Create the folder"), "{error}");
    let error = refused(folder.path()).await;
    assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    assert!(error.message.contains("is a folder"), "{error}");
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let (_folder, path) = folder();
    std::fs::write(&path, "").unwrap();
    let store = open(&path).await;
    store.accept(vec![create("a")]).await;
    assert_eq!(number(&path, "PRAGMA application_id").await, 0x4652_4d57);
    assert_eq!(number(&path, "PRAGMA user_version").await, 1);
}

#[tokio::test]
async fn many_openings_at_once_make_one_database() {
    let (_folder, path) = folder();
    let openings = conformance::all((0..8).map(|_| {
        let path = path.clone();
        async move { open(&path).await }
    }))
    .await;
    conformance::all(openings.into_iter().enumerate().map(|(n, store)| async move { store.accept(vec![create(&format!("job-{n}"))]).await })).await;
    assert_eq!(number(&path, "SELECT sequence FROM store").await, 8);
}

/// A file system of its own in memory, or nothing where mounting is not allowed.
struct Mounted(TempDir);

impl Mounted {
    fn new(size: &str) -> Option<Mounted> {
        let folder = tempfile::tempdir().unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()).stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then(|| Mounted(folder))
    }

    fn remount(&self, options: &str) {
        assert!(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn what_can_not_be_written_is_unavailable() {
    use std::os::unix::fs::PermissionsExt;
    // Permissions do not stop root; a file system that is read-only does.
    if let Some(mounted) = Mounted::new("16m") {
        let path = mounted.0.path().join("jobs.db");
        let store = open(&path).await;
        store.accept(vec![create("a")]).await;
        store.close().await;
        drop(store);
        mounted.remount("ro");
        let error = refused(&path).await;
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.message.contains("Allow writing"), "{error}");
        mounted.remount("rw");
        assert!(open(&path).await.load("a").await.is_some());
    } else {
        let (folder, path) = folder();
        open(&path).await.close().await;
        for (file, folder_mode) in [(0o444, 0o755), (0o644, 0o555)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file)).unwrap();
            let _ = std::fs::remove_file(folder.path().join("jobs.db-turn"));
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(folder_mode)).unwrap();
            let error = refused(&path).await;
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        }
    }
}

// ───── Damage ─────

#[tokio::test]
async fn damaged_records_are_told_and_do_not_hide_the_others() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    for id in ["good-1", "head", "chunk", "state", "spec", "good-2"] {
        store.accept(vec![create_with(id, |put| put.chunks = vec![chunk(0, "{}")])]).await;
    }
    run(
        &path,
        "UPDATE job SET head = CAST(x'7bff7d' AS TEXT) WHERE id = 'head';
        UPDATE chunk SET body = CAST(x'c328' AS TEXT) WHERE place = (SELECT place FROM job WHERE id = 'chunk');
        UPDATE job SET state = 'lost' WHERE id = 'state';
        DELETE FROM spec WHERE place = (SELECT place FROM job WHERE id = 'spec')",
    )
    .await;
    let listing = store.list(&[], 0, 100).await;
    assert_eq!(listing.jobs.iter().map(|job| &*job.id).collect::<Vec<_>>(), ["good-1", "good-2"]);
    let damaged: Vec<&str> = listing.damaged.iter().map(|(id, _)| &**id).collect();
    assert_eq!(damaged, ["head", "chunk", "state", "spec"]);
    let wrong = ["its head is not UTF-8", "its chunk 0 is not UTF-8", "unknown state", "its spec is missing"];
    for ((id, told), wrong) in listing.damaged.iter().zip(wrong) {
        assert!(told.contains(wrong), "{told}");
        let id = id.clone();
        let error = store
            .attempt({
                let id = id.clone();
                move |repository| async move { repository.load(&id).await }
            })
            .await
            .expect_err("damaged");
        assert_eq!(error.code, ErrorCode::StoreCorrupt);
        assert!(error.message.contains(&*id) && error.message.contains(wrong), "{error}");
        store.accept(vec![delete(&id, 1, Holder::Anyone)]).await;
    }
    assert!(store.list(&[], 0, 100).await.damaged.is_empty());
}

/// A closed database of many pages, the later half of them overwritten.
async fn damaged(path: &Path) {
    let store = open(path).await;
    store.accept(vec![create("first")]).await;
    let body = "x".repeat(1000);
    store.accept(vec![create_with("large", |put| put.chunks = (0..2000).map(|index| chunk(index, &body)).collect())]).await;
    store.close().await;
    drop(store);
    let mut bytes = std::fs::read(path).unwrap();
    let half = bytes.len() / 2 / 4096 * 4096;
    bytes[half..].fill(0xa5);
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_page_is_told_and_the_store_lives() {
    let (_folder, path) = folder();
    damaged(&path).await;
    let store = open(&path).await;
    let error = store.attempt(|repository| async move { repository.load("large").await }).await.expect_err("damaged");
    assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
    assert!(error.message.contains("is damaged") && error.message.contains("Restore a backup"), "{error}");
    // What is not damaged is still there, and can be changed.
    assert!(store.load("first").await.is_some());
    let group = vec![change("large", 1, Holder::Anyone, |put| put.chunks = (0..2000).map(|index| chunk(index, "new")).collect())];
    let error = store.attempt(move |repository| async move { repository.commit(&group).await }).await.expect_err("damaged");
    assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
    store.accept(vec![change("first", 1, Holder::Anyone, |_| {})]).await;
}

#[tokio::test]
async fn damage_is_found_at_open_after_an_unclean_stop() {
    let (_folder, path) = folder();
    damaged(&path).await;
    run(&path, "UPDATE store SET clean = 0").await;
    for _ in 0..2 {
        let error = refused(&path).await;
        assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}");
        assert!(error.message.contains("is damaged"), "{error}");
    }
}

#[tokio::test]
async fn the_last_one_to_close_leaves_the_database_clean() {
    let (_folder, path) = folder();
    let clean = || number(&path, "SELECT clean FROM store");
    let (first, second) = (open(&path).await, open(&path).await);
    first.accept(vec![create("a")]).await;
    assert_eq!(clean().await, 0);
    first.close().await;
    assert_eq!(clean().await, 0, "the second one still has it open");
    second.accept(vec![create("b")]).await;
    second.close().await;
    assert_eq!(clean().await, 1);
    assert!(!path.with_file_name("jobs.db-wal").exists(), "everything is in the database");
}

// ───── The WAL, and calls that are given up ─────

#[tokio::test]
async fn the_wal_is_bounded() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let text = "x".repeat(1 << 20);
    for n in 0..60 {
        store.accept(vec![create_with(&format!("job-{n}"), |put| put.spec = Some(text.clone()))]).await;
    }
    let wal = std::fs::metadata(path.with_file_name("jobs.db-wal")).unwrap().len();
    assert!(wal < 24 << 20, "60 MB were written, the WAL has {wal} bytes");
}

#[tokio::test]
async fn a_call_that_is_given_up_keeps_no_lock() {
    let (_folder, path) = folder();
    let given_up = SqliteRepository::open(path.clone(), Synchronous::Full).await.unwrap();
    let other = SqliteRepository::open(path.clone(), Synchronous::Full).await.unwrap();
    let mut ended = 0;
    for n in 0..60u64 {
        let group: Vec<Write> = (0..20).map(|job| create(&format!("given-up-{n}-{job}"))).collect();
        ended += u32::from(tokio::time::timeout(Duration::from_micros(n * n * 2), given_up.commit(&group)).await.is_ok());
        let outcomes = other.commit(&[create(&format!("other-{n}"))]).await.expect("the lock is free");
        assert!(matches!(outcomes[..], [Outcome::Accepted { .. }]));
    }
    assert!(ended < 60, "some were given up");
    // Whole groups or nothing, numbered without a gap.
    let jobs = number(&path, "SELECT count(*) FROM job").await;
    assert_eq!((jobs - 60) % 20, 0);
    assert_eq!(number(&path, "SELECT sequence FROM store").await, jobs);
    given_up.commit(&[create("after")]).await.expect("it is usable");
}

// ───── Other processes ─────

/// This program again, running one test as another process.
struct Process {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

const CHILD: &str = "FRAMEWRIGHT_SQLITE_CHILD";

impl Process {
    /// Runs `test` with `words` in its environment; it has opened its store when this returns.
    fn new(test: &str, words: &str) -> Process {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads", "1"])
            .env(CHILD, words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Process { child, orders, answers };
        assert_eq!(process.answer().as_deref(), Some("ready"));
        process
    }

    /// What it says next; `None` at its end.
    fn answer(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The harness talks too.
            if let Some((_, said)) = line.trim_end().split_once("said: ") {
                return Some(said.to_owned());
            }
        }
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The words of the parent, when this is a child.
fn words() -> Option<Vec<String>> {
    Some(std::env::var(CHILD).ok()?.split('|').map(str::to_owned).collect())
}

fn say(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said: {text}").unwrap();
    out.flush().unwrap();
}

fn ordered() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    line
}

const ROWS: u64 = 50;

/// One completion of a job: the n-th group of rows.
fn group(id: &str, version: u64) -> Vec<Write> {
    let write = change(id, version, Holder::Anyone, |put| {
        let from = (version - 1) * ROWS;
        put.chunks = (from..from + ROWS).map(|index| chunk(index as u32, "{}")).collect();
        put.events = (0..ROWS).map(|_| event("chunk.completed")).collect();
    });
    vec![write]
}

/// Child: commits groups of one job as often as it is told, and says each.
#[tokio::test]
async fn child_commits() {
    let Some(words) = words() else { return };
    let [path, id, count] = &words[..] else { panic!("{words:?}") };
    let store = open(Path::new(path)).await;
    let id = id.as_str();
    store.accept(vec![create(id)]).await;
    say("ready");
    ordered();
    for version in 1..=count.parse().unwrap() {
        store.accept(group(id, version)).await;
        say(version);
    }
    ordered();
    store.close().await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let (_folder, path) = folder();
    let mut jobs: Vec<(String, u64)> = Vec::new();
    for round in 0..20u64 {
        let id = format!("job-{round}");
        let mut process = Process::new("child_commits", &format!("{}|{id}|1000000", path.display()));
        process.order("go");
        let mut acknowledged = 0;
        for _ in 0..=round * 3 % 17 {
            acknowledged = process.answer().unwrap().parse().unwrap();
        }
        // Anywhere in the next commits.
        let end = Instant::now() + Duration::from_micros(round * 7919 % 5000);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        process.child.kill().unwrap();
        while let Some(said) = process.answer() {
            acknowledged = said.parse().unwrap();
        }
        process.child.wait().unwrap();
        jobs.push((id, acknowledged));

        let store = open(&path).await;
        let mut events = 0;
        for (id, acknowledged) in &mut jobs {
            let stored = store.stored(id).await;
            let commits = stored.version - 1;
            assert!((*acknowledged..=*acknowledged + 1).contains(&commits), "{id}: {acknowledged} were acknowledged, {commits} are there");
            assert_eq!(stored.chunks.len() as u64, commits * ROWS, "whole groups");
            *acknowledged = commits;
            events += 1 + commits * ROWS;
        }
        assert_eq!(store.mark().await.sequence, events);
        store.close().await;
    }
    let store = open(&path).await;
    let events = store.all_events().await;
    assert!(events.iter().map(|event| event.sequence).eq(1..=events.len() as u64), "without a gap");
}

#[tokio::test]
async fn two_processes_take_turns() {
    const COUNT: u64 = 150;
    let (_folder, path) = folder();
    let mut processes: Vec<Process> = ["a", "b"].map(|id| Process::new("child_commits", &format!("{}|{id}|{COUNT}", path.display()))).into();
    for process in &mut processes {
        process.order("go");
    }
    for process in &mut processes {
        while process.answer().unwrap() != COUNT.to_string() {}
        process.order("close");
        assert!(process.child.wait().unwrap().success());
    }
    let store = open(&path).await;
    let events = store.all_events().await;
    assert!(events.iter().map(|event| event.sequence).eq(1..=2 + 2 * COUNT * ROWS), "numbered without a gap");
    for id in ["a", "b"] {
        let stored = store.stored(id).await;
        assert_eq!((stored.version, stored.chunks.len() as u64), (COUNT + 1, COUNT * ROWS));
    }
    // While both are at work each lets the other one in: without turns hundreds of commits follow each other.
    let turns: Vec<&str> = events[2..].iter().step_by(ROWS as usize).map(|event| &*event.job).collect();
    let last = |id| turns.iter().rposition(|turn| *turn == id).unwrap();
    let first = |id| turns.iter().position(|turn| *turn == id).unwrap();
    let both = &turns[first("a").max(first("b"))..last("a").min(last("b"))];
    let switches = both.windows(2).filter(|pair| pair[0] != pair[1]).count();
    println!("{} commits while both were at work, {switches} times the other one came next", both.len());
    assert!(both.len() as u64 > COUNT / 4, "both were at work: {}", both.len());
    assert!(switches * 4 > both.len(), "{switches} changes in {} commits", both.len());
}

/// Microseconds, the same for all processes.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Child: commits when it is told to, and says when it was done.
#[tokio::test]
async fn child_commits_on_order() {
    let Some(words) = words() else { return };
    let store = open(Path::new(&words[0])).await;
    store.accept(vec![create("a")]).await;
    say("ready");
    for version in 1.. {
        if ordered().is_empty() {
            return;
        }
        store.accept(vec![change("a", version, Holder::Anyone, |_| {})]).await;
        say(now());
    }
}

#[tokio::test]
async fn f157_changes_of_another_process_are_seen_at_once() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let mut process = Process::new("child_commits_on_order", &path.display().to_string());
    let mut delays = Vec::new();
    for commit in 1..=20 {
        // A wait may end for a change of before.
        let waiting = tokio::spawn({
            let store = store.clone();
            async move {
                while store.mark().await.sequence <= commit {
                    store.changed(Duration::from_secs(20)).await;
                }
                now()
            }
        });
        process.order("commit");
        let seen = waiting.await.unwrap();
        let done: u64 = process.answer().unwrap().parse().unwrap();
        delays.push(seen.saturating_sub(done));
    }
    delays.sort_unstable();
    println!("seen after {} us (median), {} us (longest)", delays[10], delays[19]);
    assert!(delays[10] < 100_000, "[F157] {delays:?}");
}

// ───── No room ─────

/// Commits until the store refuses; the error, and how many were acknowledged.
async fn fill(store: &Opening, from: u64) -> (Error, u64) {
    let body = "x".repeat(2000);
    for version in from.. {
        let write = change("a", version, Holder::Anyone, |put| put.chunks = (0..50).map(|n| chunk(version as u32 * 50 + n, &body)).collect());
        match store.attempt(move |repository| async move { repository.commit(&[write]).await }).await {
            Ok(outcomes) => drop(accepted(&outcomes[0])),
            Err(error) => return (error, version - 1),
        }
    }
    unreachable!()
}

#[tokio::test]
async fn f110_a_full_disk_loses_nothing_and_the_store_goes_on_when_there_is_room() {
    let Some(mounted) = Mounted::new("12m") else {
        eprintln!("mounting is not allowed here: see the test of the file size limit");
        return;
    };
    let path = mounted.0.path().join("jobs.db");
    let filler = mounted.0.path().join("filler");
    std::fs::write(&filler, vec![1; 6 << 20]).unwrap();
    let store = open(&path).await;
    store.accept(vec![create("a")]).await;
    let (error, acknowledged) = fill(&store, 1).await;
    assert_eq!(error.code, ErrorCode::StoreFull, "[F110] {error}");
    assert!(error.message.contains("Make room"), "{error}");
    assert!(acknowledged > 5, "{acknowledged}");
    // It still reads, still refuses, and is not damaged.
    assert_eq!(store.stored("a").await.version, acknowledged + 1);
    assert_eq!(fill(&store, acknowledged + 1).await.0.code, ErrorCode::StoreFull);
    std::fs::remove_file(&filler).unwrap();
    store.accept(vec![change("a", acknowledged + 1, Holder::Anyone, |_| {})]).await;
    let stored = store.stored("a").await;
    assert_eq!((stored.version, stored.chunks.len() as u64), (acknowledged + 2, acknowledged * 50));
    // Not closed: the file is checked when it is opened again.
    drop(store);
    assert_eq!(open(&path).await.stored("a").await, stored);
}

/// Child: a file may not grow beyond a limit, as under a quota.
#[cfg(unix)]
#[tokio::test]
async fn child_with_a_limit() {
    let Some(words) = words() else { return };
    let store = open(Path::new(&words[0])).await;
    store.accept(vec![create("a")]).await;
    let limit = |bytes| {
        let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: changes a limit of this process, which is there for this test alone.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits), 0);
            limits.rlim_cur = bytes;
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limits), 0);
        }
    };
    limit(2 << 20);
    let (error, acknowledged) = fill(&store, 1).await;
    limit(1 << 30);
    store.accept(vec![change("a", acknowledged + 1, Holder::Anyone, |_| {})]).await;
    let stored = store.stored("a").await;
    assert_eq!((stored.version, stored.chunks.len() as u64), (acknowledged + 2, acknowledged * 50));
    say("ready");
    say(error.code);
    say(error.message);
}

#[cfg(unix)]
#[tokio::test]
async fn f110_a_limit_of_the_file_size_is_a_lack_of_room() {
    let (_folder, path) = folder();
    let mut process = Process::new("child_with_a_limit", &path.display().to_string());
    assert_eq!(process.answer().as_deref(), Some("STORE_FULL"), "[F110]");
    assert!(process.answer().unwrap().contains("Make room"));
}

// ───── Waiting ─────

#[tokio::test]
async fn a_writer_waits_for_a_lock_of_somebody_else() {
    let (_folder, path) = folder();
    let store = open(&path).await;
    let mut other = sqlite(&path).await;
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    let write = tokio::spawn({
        let store = store.clone();
        async move { store.write(create("a")).await }
    });
    // Reading does not wait.
    assert!(store.list(&[JobState::Pending], 0, 10).await.jobs.is_empty());
    assert!(!write.is_finished());
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(write.await.unwrap(), Outcome::Accepted { first: 1, place: 1 });
}

#[tokio::test]
async fn openings_of_one_process_hear_of_each_other() {
    let (_folder, path) = folder();
    let (first, second): (Opening, Opening) = (open(&path).await, open(&path).await);
    let waiting = tokio::spawn(async move {
        while second.mark().await.sequence == 0 {
            second.changed(Duration::from_secs(20)).await;
        }
    });
    first.accept(vec![create("a")]).await;
    waiting.await.unwrap();
}
