//! Two processes on one directory, and the sudden death of one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use framewright_core::job::{ErrorCode, JobState};
use framewright_core::repository::durable::{Claim, DurableRepository, Ownership, Put};

use super::fixture::{LEASE, Open, change, complete, create, directory, no_import, put};

const CHILD: &str = "FRAMEWRIGHT_TEST_DIRECTORY";
const JOBS: u64 = 20;

/// Not a test: what the child process of the others does. It commits for ever, and tells each acknowledged round.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let open = Open::with(Path::new(&path), no_import, 16 << 10).expect("open");
    open.wait(open.repository.enroll("child", "{}", LEASE)).expect("enroll");
    let found = open.load("job-0").expect("load");
    if found.is_none() {
        let take = |id: &str| {
            let mut write = create(id);
            if let framewright_core::repository::durable::Action::Put(put) = &mut write.action {
                put.ownership = Ownership::Take("child".into());
                put.state = JobState::Running;
            }
            write
        };
        open.accept(&(0..JOBS).map(|n| take(&format!("job-{n}"))).collect::<Vec<_>>());
    }
    let mut version = found.map_or(1, |job| job.version);
    println!("\nstarted {version}");
    loop {
        let group: Vec<_> = (0..JOBS).map(|n| complete(&format!("job-{n}"), version, version as u32 % 50, "said")).collect();
        open.accept(&group);
        version += 1;
        println!("acknowledged {version}");
    }
}

fn start(path: &Path) -> (Child, std::io::Lines<BufReader<ChildStdout>>) {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "processes::child", "--nocapture"]).env(CHILD, path).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("started"))).expect("it starts").expect("a line");
    (child, lines)
}

/// Kills it, and gives the last version that it acknowledged.
fn kill(mut child: Child, lines: impl Iterator<Item = std::io::Result<String>>) -> Option<u64> {
    child.kill().expect("kill");
    child.wait().expect("wait");
    // A line may be cut off by the death.
    let versions = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("acknowledged ")?.parse().ok());
    versions.last()
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    // On a disk: this is about files that are really written.
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged = 0;
    for round in 0..20u64 {
        let (child, mut lines) = start(directory.path());
        let enough = 1 + round * 7 % 23;
        let seen = lines.by_ref().take(enough as usize).map_while(Result::ok).filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u64>().ok()).last();
        acknowledged = acknowledged.max(seen.unwrap_or(0)).max(kill(child, lines).unwrap_or(0));
        let open = Open::with(directory.path(), no_import, 16 << 10).expect("open");
        let found = open.contents();
        assert!(found.damaged.is_empty(), "{:?}", found.damaged);
        assert_eq!(found.jobs.len() as u64, JOBS);
        let version = found.jobs["job-0"].version;
        // The group that was under way is there as a whole, or not at all.
        assert!(version == acknowledged || version == acknowledged + 1, "round {round}: {version}, acknowledged {acknowledged}");
        acknowledged = version;
        for job in found.jobs.values() {
            assert_eq!(job.version, version, "round {round}: {}", job.id);
            assert_eq!(job.chunks.len() as u64, (version - 1).min(50), "round {round}");
        }
        let numbers: Vec<u64> = found.events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=JOBS * version).collect::<Vec<_>>(), "round {round}: numbered without a gap");
        assert_eq!(found.sequence, JOBS * version);
    }
    assert!(acknowledged > 20);
}

#[test]
fn a_second_process_is_refused_until_the_first_dies() {
    let directory = directory();
    let (child, lines) = start(directory.path());
    let error = Open::new(directory.path()).err().expect("refused");
    assert_eq!(error.code, ErrorCode::StoreUnavailable);
    assert!(error.message.contains(&format!("process {} ", child.id())), "{error}");
    let _ = kill(child, lines);
    let since = Instant::now();
    let open = Open::new(directory.path()).expect("the dead one's lock is gone");
    assert!(open.wait(open.repository.owners()).expect("owners").is_empty(), "owners of another process are dead");
    let claim = Claim { owner: "me".into(), most: 1_000, ..Claim::default() };
    let claimed = open.wait(open.repository.claim(&claim)).expect("claim");
    assert_eq!(claimed.len() as u64, JOBS, "its jobs are orphans at once");
    assert!(claimed.iter().all(|claimed| claimed.previous.as_deref() == Some("child") && !claimed.released));
    assert!(since.elapsed().as_secs() < 2, "{:?}", since.elapsed());
}

#[test]
fn managers_of_one_process_share_the_store() {
    let directory = directory();
    let one = Open::new(directory.path()).expect("open");
    let link = directory.path().with_extension("link");
    std::os::unix::fs::symlink(directory.path(), &link).expect("symlink");
    let other = Open::new(&link).expect("open by another name");
    std::fs::remove_file(&link).expect("remove");
    one.accept(&[create("job")]);
    one.wait(one.repository.enroll("one", "{}", LEASE)).expect("enroll");
    assert_eq!(other.load("job").expect("load").expect("a job").version, 1);
    other.accept(&[change("job", 1, Put { ownership: Ownership::Take("one".into()), ..put(2) })]);
    let claim = Claim { owner: "two".into(), most: 10, unowned: true, ..Claim::default() };
    assert!(other.wait(other.repository.claim(&claim)).expect("claim").is_empty());
    one.close();
    assert_eq!(one.load("job").expect_err("closed").code, ErrorCode::StoreUnavailable);
    assert_eq!(other.load("job").expect("load").expect("a job").owner, Some(Arc::from("one")));
    other.accept(&[change("job", 2, put(3))]);
    drop((one, other));
    assert_eq!(Open::new(directory.path()).expect("open").load("job").expect("load").expect("a job").version, 3);
}
