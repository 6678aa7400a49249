//! Jobs in a directory of files, for one process at a time (and any number of managers in it).
//!
//! Every group of writes goes to the group log first ([`group_log`]), with one fsync, and counts from then on. A thread
//! carries it over to the files of the jobs ([`checkpoint`]): a journal for each, its outputs beside it, events in files
//! by number ([`event_files`]). All is made of frames with checksums ([`frame`]). [`index`] is what is kept in memory;
//! [`open`] puts it together again. The directory's layout is told in [`folder`], the reasons in
//! `docs/decisions/010-file-store.md`.

mod checkpoint;
mod event_files;
mod folder;
mod frame;
mod group_log;
mod import;
mod index;
mod journal;
mod open;
mod read;
mod recent;
mod record;
mod store;
mod write;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use self::folder::failed;
use self::store::{Store, closed};
use super::durable::{Claim, Claimed, DurableRepository, Listing, LogStream, Mark, Outcome, OwnerRow, Put, Stored, StoredEvent, Write};
use crate::job::{Error, JobState};

/// Makes the record of a new job of the text of its `<id>.json` status file.
pub type Import = fn(&str) -> Result<Put, Error>;

/// Device and inode of a directory.
type Key = (u64, u64);

/// The stores that are open in this process.
static OPEN: LazyLock<Mutex<HashMap<Key, Arc<Store>>>> = LazyLock::new(Mutex::default);

/// Bytes of a segment of the group log.
const SEGMENT: u64 = 32 * 1024 * 1024;

/// Jobs whose changes are carried over at the end; of more, the group log is left for the next start.
const TIDY: usize = 1_000;

/// A repository in a directory.
///
/// Who opens a directory that this process has open already shares it; another process is refused. Ids may differ only
/// in case, on any file system.
pub struct FileRepository {
    store: Arc<Store>,
    key: Key,
    closed: AtomicBool,
    /// Changes that whoever waits here has been told of.
    seen: AtomicU64,
}

impl FileRepository {
    /// Opens the repository in a directory, which is made if it is missing. Status files `<id>.json` in it are read with
    /// `import`, become jobs and are moved to its folder `imported`; one that can't be read is a damaged job.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE: another process has it (the message names it), it can't be written, its format is newer.
    /// STORE_CORRUPT: the directory holds something else. STORE_FULL.
    pub fn open(directory: PathBuf, import: Import) -> Result<FileRepository, Error> {
        FileRepository::open_with(directory, import, SEGMENT)
    }

    /// The same, with a group log whose segments are carried over to the files of their jobs after so many bytes. Small
    /// ones keep the log small and write more; what is open in this process already stays as it is.
    pub fn open_with(directory: PathBuf, import: Import, segment_bytes: u64) -> Result<FileRepository, Error> {
        let opening = |error| failed("Opening", &directory, &error);
        fs::create_dir_all(&directory).map_err(opening)?;
        let root = directory.canonicalize().map_err(opening)?;
        let metadata = root.metadata().map_err(opening)?;
        let key = (metadata.dev(), metadata.ino());
        let mut stores = OPEN.lock();
        let shared = stores.get(&key).filter(|store| store.is_current(&root)).cloned();
        let store = match shared {
            Some(store) => store,
            None => {
                let store = open::open(root, segment_bytes)?;
                if let Err(error) = import::import_all(&store, import) {
                    store.end(false);
                    return Err(error);
                }
                stores.insert(key, store.clone());
                store
            }
        };
        store.state.lock().handles += 1;
        let seen = AtomicU64::new(store.changes.load(Ordering::Acquire));
        Ok(FileRepository { store, key, closed: AtomicBool::new(false), seen })
    }

    fn store(&self) -> Result<&Store, Error> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(&self.store) }
    }

    fn leave(&self, tidy: bool) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.store.tell();
        let mut stores = OPEN.lock();
        let last = {
            let mut state = self.store.state.lock();
            state.handles -= 1;
            state.handles == 0
        };
        if last {
            self.store.end(tidy);
            if stores.get(&self.key).is_some_and(|store| Arc::ptr_eq(store, &self.store)) {
                stores.remove(&self.key);
            }
        }
    }
}

impl Drop for FileRepository {
    fn drop(&mut self) {
        self.leave(false);
    }
}

impl Store {
    /// Whether the directory is still the one that was opened, and not removed and made again.
    fn is_current(&self, root: &std::path::Path) -> bool {
        self.state.lock().lock.as_ref().is_some_and(|lock| open::is_current(root, lock))
    }

    /// Ends the store and lets go of its lock. `tidy`: what is little to do is carried over first.
    fn end(&self, tidy: bool) {
        if !self.stop() {
            // A thread hangs in the disk and may still write: the lock stays.
            tracing::error!(root = %self.folder.root.display(), "The disk of a file store does not answer; its lock is kept");
            return;
        }
        let touched: usize = self.state.lock().segments.values().map(|segment| segment.touched.len() + segment.removed.len()).sum();
        if tidy && touched > 0 && touched <= TIDY {
            let carried = self.begin_segment().and_then(|()| {
                let numbers: Vec<u64> = self.state.lock().segments.keys().copied().collect();
                let (_, sealed) = numbers.split_last().unwrap_or((&0, &[]));
                sealed.iter().try_for_each(|number| checkpoint::carry(self, *number, false))
            });
            if let Err(error) = carried {
                tracing::warn!(%error, "The group log of a file store is left for the next start");
            }
        }
        self.state.lock().lock = None;
    }
}

#[async_trait]
impl DurableRepository for FileRepository {
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        self.store()?.write(|batch| group.iter().map(|write| write::judge(batch, write)).collect()).await
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        self.store()?.load(id)
    }

    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        self.store()?.list(states, after, most)
    }

    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error> {
        self.store()?.state.lock().index.enroll(owner, place, lease);
        Ok(())
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error> {
        Ok(self.store()?.state.lock().index.renew(owner, lease))
    }

    async fn retire(&self, owner: &str) -> Result<(), Error> {
        let store = self.store()?;
        store.state.lock().index.retire(owner);
        store.tell();
        Ok(())
    }

    async fn owners(&self) -> Result<Vec<OwnerRow>, Error> {
        Ok(self.store()?.state.lock().index.owners())
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error> {
        self.store()?.write(|batch| Ok(write::claim(batch, claim))).await
    }

    async fn request(&self, id: &str, body: &str) -> Result<bool, Error> {
        self.store()?.write(|batch| write::request(batch, id, body)).await
    }

    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error> {
        Ok(self.store()?.state.lock().index.owned_by(owner))
    }

    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error> {
        Ok(self.store()?.state.lock().index.requests(owner))
    }

    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        self.store()?.events(from, most)
    }

    async fn oldest_event(&self) -> Result<u64, Error> {
        self.store()?.oldest_event()
    }

    async fn mark(&self) -> Result<Mark, Error> {
        let counters = self.store()?.state.lock().index.counters;
        Ok(Mark { sequence: counters.sequence, requests: counters.requests })
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        let news = self.store.news.notified();
        tokio::pin!(news);
        // From here on nothing is missed; what came before is counted.
        news.as_mut().enable();
        let count = || self.store.changes.load(Ordering::Acquire);
        if count() == self.seen.load(Ordering::Acquire) {
            let _ = tokio::time::timeout(limit, news).await;
        }
        self.seen.store(count(), Ordering::Release);
        None
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        self.store()?.read_log(id, index, attempt, stream)
    }

    async fn close(&self) {
        self.leave(true);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::*;
    use crate::repository::durable::{Action, EventWrite, Expect, Ownership};

    fn create(id: &str) -> Write {
        let put = Put {
            version: 1,
            state: JobState::Pending,
            kind: None,
            ownership: Ownership::Keep,
            hold: false,
            head: "{}".into(),
            spec: None,
            options: None,
            extras: None,
            reset_chunks: false,
            chunks: Vec::new(),
            logs: Vec::new(),
            events: vec![EventWrite { body: format!("\"of\":\"{id}\"").into() }],
            clear_requests: false,
        };
        Write { id: id.into(), expect: Expect::Absent, action: Action::Put(Box::new(put)) }
    }

    fn open(path: &Path) -> FileRepository {
        FileRepository::open(path.to_owned(), |_| Err(closed())).expect("open")
    }

    /// After an fsync that failed nobody knows what of the group got to the disk. Here all of it did, though its writer
    /// was told that it failed; then the same numbers are given to another group.
    #[tokio::test]
    async fn what_an_fsync_refused_does_not_come_back() {
        let home = tempfile::tempdir().expect("a directory");
        let image = tempfile::tempdir().expect("a directory");
        let repository = open(home.path());
        repository.commit(&[create("first")]).await.expect("commit");
        let store = &repository.store;
        {
            // A group like that of "refused", behind what counts.
            let other = open(image.path());
            other.commit(&[create("first")]).await.expect("commit");
            let end = other.store.state.lock().active().expect("a segment").len;
            let salt = store.state.lock().active().expect("a segment").salt;
            other.store.state.lock().segments.values_mut().for_each(|segment| segment.salt = salt);
            other.commit(&[create("refused")]).await.expect("commit");
            let file = other.store.state.lock().active().expect("a segment").file.clone();
            let mut group = vec![0; (file.metadata().expect("metadata").len() - end) as usize];
            file.read_exact_at(&mut group, end).expect("read");
            let (file, end) = store.state.lock().active().map(|segment| (segment.file.clone(), segment.len)).expect("a segment");
            file.write_all_at(&group, end).expect("write");
        }
        let copy = tempfile::tempdir().expect("a directory");
        for part in ["wal", "jobs", "events", "quarantine", "imported"] {
            fs::create_dir_all(copy.path().join(part)).expect("create_dir_all");
        }
        let (from, to) = (home.path(), copy.path());
        fs::copy(from.join("FORMAT"), to.join("FORMAT")).expect("copy");
        let keep = |number: u64| {
            fs::copy(group_log::path(&from.join("wal"), number), group_log::path(&to.join("wal"), number)).expect("copy");
        };
        keep(1);
        store.state.lock().suspect = true;
        repository.commit(&[create("second")]).await.expect("commit");
        assert!(!store.state.lock().suspect, "a new segment was begun");
        keep(2);
        let again = open(copy.path());
        let ids: Vec<_> = again.list(&[], 0, 10).await.expect("list").jobs.into_iter().map(|job| job.id).collect();
        assert_eq!(ids, ["first".into(), "second".into()]);
        assert!(again.load("refused").await.expect("load").is_none());
        let events: Vec<u64> = again.events(1, 10).await.expect("events").into_iter().map(|event| event.sequence).collect();
        assert_eq!(events, [1, 2]);
    }
}
