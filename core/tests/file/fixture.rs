//! A store in a directory, writes for it, and what it holds as one value that can be compared.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{
    Action, ChunkWrite, DurableRepository, EventWrite, Expect, Holder, LogStream, LogWrite, Outcome, Ownership, Put, Stored, StoredEvent, Write,
};
use framewright_core::repository::file::{FileRepository, Import};
use tokio::runtime::{Builder, Runtime};

/// A directory in memory if there is one: tests open thousands of stores.
pub fn directory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory")
}

pub fn no_import(_: &str) -> Result<Put, Error> {
    Err(Error::new(ErrorCode::Internal, "there are no status files"))
}

/// An open repository, called from a test that is not async.
pub struct Open {
    runtime: Runtime,
    pub repository: FileRepository,
}

impl Open {
    pub fn new(path: &Path) -> Result<Open, Error> {
        Open::with(path, no_import, 32 << 20)
    }

    pub fn with(path: &Path, import: Import, segment: u64) -> Result<Open, Error> {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let repository = FileRepository::open_with(path.to_owned(), import, segment)?;
        Ok(Open { runtime, repository })
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        self.wait(self.repository.commit(group))
    }

    /// Commits what must be accepted.
    pub fn accept(&self, group: &[Write]) {
        let outcomes = self.commit(group).expect("commit");
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Accepted { .. })), "{outcomes:?}");
    }

    pub fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        self.wait(self.repository.load(id))
    }

    pub fn sequence(&self) -> u64 {
        self.wait(self.repository.mark()).expect("mark").sequence
    }

    pub fn events(&self) -> Vec<StoredEvent> {
        self.wait(self.repository.events(1, usize::MAX)).expect("events")
    }

    pub fn close(&self) {
        self.wait(self.repository.close());
    }

    /// Everything that the store tells.
    pub fn contents(&self) -> Contents {
        let listing = self.wait(self.repository.list(&[], 0, 1_000_000)).expect("list");
        assert!(listing.next.is_none());
        let mut logs = BTreeMap::new();
        for job in &listing.jobs {
            for index in 0..3 {
                match self.wait(self.repository.read_log(&job.id, index, 1, LogStream::Stdout)) {
                    Ok(log) => logs.extend(log.map(|log| ((job.id.to_string(), index), log))),
                    Err(error) => assert_eq!(error.code, ErrorCode::StoreCorrupt, "{error}"),
                }
            }
        }
        let jobs = listing.jobs.into_iter().map(|job| (job.id.to_string(), job)).collect();
        let damaged = listing.damaged.into_iter().map(|(id, message)| (id.to_string(), message)).collect();
        Contents { jobs, damaged, events: self.events(), sequence: self.sequence(), logs }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Contents {
    pub jobs: BTreeMap<String, Stored>,
    pub damaged: BTreeMap<String, String>,
    pub events: Vec<StoredEvent>,
    pub sequence: u64,
    pub logs: BTreeMap<(String, u32), String>,
}

pub fn put(version: u64) -> Put {
    Put {
        version,
        state: JobState::Pending,
        kind: None,
        ownership: Ownership::Keep,
        hold: false,
        head: format!("{{\"v\":{version}}}"),
        spec: None,
        options: None,
        extras: None,
        reset_chunks: false,
        chunks: Vec::new(),
        logs: Vec::new(),
        events: vec![event(&format!("\"version\":{version}"))],
        clear_requests: false,
    }
}

pub fn event(body: &str) -> EventWrite {
    EventWrite { body: body.into() }
}

pub fn create(id: &str) -> Write {
    let put = Put { spec: Some(format!("{{\"of\":\"{id}\"}}")), options: Some("{}".into()), extras: Some("{\"x\":1}".into()), ..put(1) };
    Write { id: id.into(), expect: Expect::Absent, action: Action::Put(Box::new(put)) }
}

pub fn change(id: &str, version: u64, put: Put) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder: Holder::Anyone }, action: Action::Put(Box::new(put)) }
}

/// The chunk at a position is done, and said something.
pub fn complete(id: &str, version: u64, index: u32, said: &str) -> Write {
    let chunks = vec![ChunkWrite { index, body: format!("{{\"done\":{version}}}") }];
    let logs = vec![LogWrite { index, attempt: 1, stream: LogStream::Stdout, text: said.into() }];
    change(id, version, Put { state: JobState::Running, chunks, logs, ..put(version + 1) })
}

pub fn delete(id: &str, version: u64) -> Write {
    Write { id: id.into(), expect: Expect::At { version, holder: Holder::Anyone }, action: Action::Delete { event: event("\"gone\":true") } }
}

/// Copies a directory as it is now: what a crash leaves.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("create_dir_all");
    for file in std::fs::read_dir(from).expect("read_dir") {
        let file = file.expect("a file");
        let to = to.join(file.file_name());
        if file.path().is_dir() {
            copy(&file.path(), &to);
        } else {
            std::fs::copy(file.path(), to).expect("copy");
        }
    }
}

/// All files below a directory.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(root).expect("read_dir") {
        let path = file.expect("a file").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// The only segment of a store's group log.
pub fn segment(root: &Path) -> PathBuf {
    let mut found = files(&root.join("wal"));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

pub const LEASE: Duration = Duration::from_secs(3600);
