//! Disks that are full, read-only, or gone; and how much is written.

use std::fs;
use std::path::Path;
use std::process::Command;

use framewright_core::job::{ErrorCode, JobState};
use framewright_core::repository::durable::{ChunkWrite, LogStream, LogWrite, Put};

use super::fixture::{Open, change, complete, create, delete, directory, event, files, no_import, put};

/// A small file system in memory.
struct Small(tempfile::TempDir);

impl Small {
    /// `None`: this user may not mount.
    fn mount() -> Option<Small> {
        let directory = tempfile::tempdir().expect("a directory");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(directory.path()).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Small(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

fn fill(open: &Open, version: &mut u64) {
    for _ in 0..100_000 {
        match open.commit(&[complete("job", *version, *version as u32 % 3, &"said ".repeat(200))]) {
            Ok(_) => *version += 1,
            Err(error) => {
                assert_eq!(error.code, ErrorCode::StoreFull, "{error}");
                return;
            }
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_when_there_is_room() {
    for segment in [32 << 20, 64 << 10] {
        let Some(disk) = Small::mount() else {
            eprintln!("not run: mounting a small disk is not allowed here");
            return;
        };
        let ballast = disk.path().join("ballast");
        let root = disk.path().join("store");
        fs::write(&ballast, vec![1; 400 << 10]).expect("ballast");
        let open = Open::with(&root, no_import, segment).expect("open");
        open.accept(&[create("job"), create("other")]);
        let mut version = 1;
        fill(&open, &mut version);
        assert!(version > 50, "{version}");
        let full = open.contents();
        assert_eq!(full.jobs["job"].version, version, "what was refused is not there");
        assert_eq!(full.sequence, version + 1);
        assert_eq!(open.commit(&[change("other", 1, Put { spec: Some("x".repeat(1 << 20)), ..put(2) })]).expect_err("full").code, ErrorCode::StoreFull);
        fs::remove_file(&ballast).expect("make room");
        open.accept(&[complete("job", version, 0, "there is room again")]);
        let after = open.contents();
        assert_eq!(after.jobs["job"].version, version + 1);
        assert_eq!(after.sequence, full.sequence + 1);
        drop(open);
        let again = Open::with(&root, no_import, segment).expect("open");
        assert_eq!(again.contents(), after);
        // A job that goes makes room, at the latest when the store is closed.
        again.accept(&[delete("job", version + 1)]);
        again.close();
        drop(again);
        let bytes: u64 = files(&root).iter().map(|path| fs::metadata(path).expect("metadata").len()).sum();
        assert!(bytes < 256 << 10, "{bytes}");
    }
}

#[test]
fn a_disk_that_can_not_be_written_is_unavailable() {
    let file = directory();
    fs::write(file.path().join("file"), "not a directory").expect("write");
    let error = Open::new(&file.path().join("file")).err().expect("refused");
    assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    let Some(disk) = Small::mount() else { return };
    let root = disk.path().join("store");
    let open = Open::new(&root).expect("open");
    open.accept(&[create("job")]);
    drop(open);
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().expect("mount");
    assert!(remount.success());
    let error = Open::new(&root).err().expect("refused");
    assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    assert!(error.message.contains("writable"), "{error}");
    assert!(Command::new("mount").args(["-o", "remount,rw"]).arg(disk.path()).status().expect("mount").success());
    assert_eq!(Open::new(&root).expect("open").contents().jobs.len(), 1);
}

#[test]
fn a_journal_that_is_removed_is_a_damaged_job() {
    let directory = directory();
    let open = Open::new(directory.path()).expect("open");
    open.accept(&[create("job"), create("other")]);
    open.close();
    drop(open);
    let open = Open::new(directory.path()).expect("open");
    fs::remove_file(directory.path().join("jobs/job.journal")).expect("remove");
    assert_eq!(open.load("job").expect_err("gone").code, ErrorCode::StoreCorrupt);
    let found = open.contents();
    assert_eq!((found.jobs.len(), found.damaged.len()), (1, 1));
    open.accept(&[delete("job", 1), create("job")]);
    assert!(open.contents().damaged.is_empty());
}

#[test]
fn a_directory_that_is_removed_takes_nothing_more() {
    let directory = directory();
    let root = directory.path().join("store");
    let open = Open::new(&root).expect("open");
    open.accept(&[create("job")]);
    fs::remove_dir_all(&root).expect("remove");
    for _ in 0..2 {
        let error = open.commit(&[change("job", 1, put(2))]).expect_err("nowhere to write");
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
    }
    let anew = Open::new(&root).expect("the path can be used again");
    assert!(anew.contents().jobs.is_empty());
    anew.accept(&[create("job")]);
}

/// Bytes that this process has written to files and pipes.
fn written() -> u64 {
    let counts = fs::read_to_string("/proc/self/io").expect("/proc");
    counts.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).expect("wchar")
}

#[test]
fn a_thousand_chunks_with_logs_are_a_few_megabytes() {
    let directory = directory();
    let open = Open::with(directory.path(), no_import, 256 << 10).expect("open");
    let before = written();
    open.accept(&[create("job")]);
    let log = "x".repeat(1024);
    for n in 0..1_000u32 {
        let version = u64::from(n) * 2 + 1;
        let row = |what: &str| vec![ChunkWrite { index: n, body: format!("{{\"state\":\"{what}\",\"attempt\":1,\"startedAt\":1700000000000}}") }];
        let started = Put { state: JobState::Running, chunks: row("running"), events: vec![event("\"type\":\"chunk.started\"")], ..put(version + 1) };
        let logs = vec![LogWrite { index: n, attempt: 1, stream: LogStream::Stdout, text: log.as_str().into() }];
        let completed = Put { chunks: row("completed"), logs, events: vec![event("\"type\":\"chunk.completed\"")], ..put(version + 2) };
        open.accept(&[change("job", version, started), change("job", version + 1, completed)]);
    }
    open.close();
    let bytes = written() - before;
    let kept: u64 = files(directory.path()).iter().map(|path| fs::metadata(path).expect("metadata").len()).sum();
    println!("{bytes} bytes written, {kept} kept");
    assert!(bytes < 8 << 20, "{bytes} bytes written for a thousand chunks");
    assert!(kept < 3 << 20, "{kept} bytes kept");
}
