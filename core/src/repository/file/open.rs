//! Opening a directory: what its files say is put together, what a crash left half done is undone or done again, and what
//! is damaged is put into quarantine.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::checkpoint::write_note;
use super::event_files::EventFile;
use super::folder::{self, Folder, failed, id_of, name_of, sync_folder};
use super::frame::Kind;
use super::group_log::{self, EventsAt, Group, Segment, Start};
use super::index::{Entry, Index, Ref};
use super::journal::{self, Scan};
use super::record::{Change, Columns, LogKey, Told};
use super::store::{State, Store};
use crate::job::{Error, ErrorCode, JobState};

/// Opens the store in a directory that is there.
pub fn open(root: PathBuf, segment_bytes: u64) -> Result<Arc<Store>, Error> {
    let folder = Folder::new(root);
    let lock = folder::lock(&folder.root)?;
    folder::prepare(&folder)?;
    let mut found = Found { index: Index::default(), trouble: HashMap::new(), broken: HashMap::new() };
    found.read_jobs(&folder)?;
    let events = read_events(&folder)?;
    let (mut segments, hurt) = found.replay(&folder, events.last().map_or(0, |file| file.last))?;
    let counters = &mut found.index.counters;
    counters.sequence = counters.sequence.max(events.last().map_or(0, |file| file.last));
    found.put_damage_away(&folder)?;
    remove_strays(&folder, &found.index)?;
    if segments.is_empty() {
        let segment = Segment::create(&folder.wal, 1, 0, found.index.counters);
        segments.push(segment.map_err(|error| failed("Writing", &folder.wal, &error))?);
    }
    let segments = segments.into_iter().map(|segment| (segment.number, segment)).collect();
    let index = found.index;
    let state = State { index, segments, suspect: false, events, oldest: 1, fault: None, closed: false, handles: 0, lock: Some(lock) };
    let store = Store::start(folder, state, segment_bytes).map_err(|error| Error::new(ErrorCode::Internal, format!("A thread can't be started: {error}")))?;
    if hurt {
        // What is damaged has been copied; it goes with its segment.
        store.begin_segment()?;
    }
    Ok(store)
}

struct Found {
    index: Index,
    /// Journals whose end is damaged: the group log may have what is missing.
    trouble: HashMap<u64, String>,
    /// Ids whose journal tells nothing.
    broken: HashMap<String, String>,
}

/// A job of which nothing is known but its id.
pub fn damaged_entry(id: Arc<str>, place: u64, message: &str) -> Entry {
    let columns = Columns { place, step: 0, version: 0, state: JobState::Failed, kind: None, owner: None, released: false, hold: false, events: 0 };
    Entry { id, columns, requests: Vec::new(), journal: None, pending: Vec::new(), damaged: Some(message.into()) }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let files = fs::read_dir(folder).and_then(|files| files.map(|file| Ok(file?.path())).collect::<io::Result<Vec<_>>>());
    let mut files = files.map_err(|error| failed("Reading", folder, &error))?;
    files.sort();
    Ok(files)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn remove(path: &Path) -> Result<(), Error> {
    fs::remove_file(path).map_err(|error| failed("Removing", path, &error))
}

/// A journal, and what it tells.
type Read = (PathBuf, Result<Scan, String>);

/// Reads journals on a few threads: most of the time is spent in waiting and in checksums.
fn scan_all(paths: Vec<PathBuf>) -> Result<Vec<Read>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    let share = paths.len().div_ceil(threads).max(1);
    let results = Mutex::new(Ok(Vec::with_capacity(paths.len())));
    std::thread::scope(|scope| {
        for part in paths.chunks(share) {
            let results = &results;
            scope.spawn(move || {
                let read = |path: &PathBuf| {
                    let bytes = match fs::read(path) {
                        Ok(bytes) => bytes,
                        // One bad sector is no reason to give up all the others.
                        Err(error) if error.raw_os_error() == Some(libc::EIO) => {
                            return Ok((path.clone(), Err(format!("its journal can't be read ({error})"))));
                        }
                        Err(error) => return Err(failed("Reading", path, &error)),
                    };
                    let mut scan = journal::scan(&bytes);
                    if scan.as_ref().is_ok_and(|scan| path.file_stem().is_none_or(|stem| stem != name_of(&scan.id).as_str())) {
                        scan = Err("its journal is that of another job".to_owned());
                    }
                    Ok((path.clone(), scan))
                };
                let part: Result<Vec<_>, Error> = part.iter().map(read).collect();
                let mut results = results.lock();
                match (&mut *results, part) {
                    (Ok(all), Ok(part)) => all.extend(part),
                    (Ok(_), Err(error)) => *results = Err(error),
                    (Err(_), _) => {}
                }
            });
        }
    });
    results.into_inner()
}

impl Found {
    fn read_jobs(&mut self, folder: &Folder) -> Result<(), Error> {
        let (mut journals, mut notes) = (Vec::new(), Vec::new());
        for path in list(&folder.jobs)? {
            if has_extension(&path, "tmp") {
                remove(&path)?;
            } else if has_extension(&path, "journal") {
                journals.push(path);
            } else if has_extension(&path, "damaged") {
                notes.push(path);
            }
        }
        for (path, scan) in scan_all(journals)? {
            match scan {
                Ok(Scan { id, columns, requests, kept, number, trouble }) => {
                    self.index.counters.frame = self.index.counters.frame.max(number);
                    if let Some(trouble) = trouble {
                        self.trouble.insert(columns.place, trouble);
                    }
                    self.index.insert(Entry { id, columns, requests, journal: Some(kept), pending: Vec::new(), damaged: None });
                }
                Err(trouble) => {
                    let id = path.file_stem().and_then(|name| id_of(name.to_str()?));
                    match id {
                        Some(id) => _ = self.broken.insert(id, trouble),
                        None => folder.put_away(&path).map_err(|error| failed("Moving", &path, &error))?,
                    }
                }
            }
        }
        for path in notes {
            let Some(id) = path.file_stem().and_then(|name| id_of(name.to_str()?)) else { continue };
            let text = fs::read(&path).map_err(|error| failed("Reading", &path, &error))?;
            let note: Value = serde_json::from_slice(&text).unwrap_or_default();
            let message = note["message"].as_str().unwrap_or("it was found damaged before").to_owned();
            let Some(place) = note["place"].as_u64().filter(|place| *place > 0) else {
                self.broken.insert(id, message);
                continue;
            };
            match self.index.get(&id) {
                // A new job of that id; the note was about to be removed.
                Some(entry) if entry.columns.place > place => remove(&path)?,
                Some(entry) => {
                    let place = entry.columns.place;
                    self.index.change(place, |entry| entry.damaged = Some("".into()));
                    self.trouble.insert(place, message);
                }
                None => {
                    self.broken.remove(&id);
                    self.index.insert(damaged_entry(id.into(), place, &message));
                }
            }
        }
        Ok(())
    }

    /// Reads the group log; gives its segments, and whether something in them is damaged.
    fn replay(&mut self, folder: &Folder, mut told: u64) -> Result<(Vec<Segment>, bool), Error> {
        let numbers = group_log::numbers(&folder.wal).map_err(|error| failed("Reading", &folder.wal, &error))?;
        let (mut segments, mut hurt) = (Vec::new(), false);
        let mut rest = numbers.into_iter().peekable();
        while let Some(number) = rest.next() {
            let path = group_log::path(&folder.wal, number);
            let read = |path: &Path| fs::read(path).map_err(|error| failed("Reading", path, &error));
            let mut bytes = read(&path)?;
            let next = rest.peek().copied();
            let Some((start, groups)) = Start::read(&bytes) else {
                // It was being made; or nothing in it can be told any more.
                if next.is_none() && bytes.len() < 1024 {
                    remove(&path)?;
                } else {
                    tracing::error!(path = %path.display(), "A segment of a file store's group log can't be read");
                    folder.put_away(&path).map_err(|error| failed("Moving", &path, &error))?;
                }
                continue;
            };
            let before = match next {
                Some(next) => Start::read(&read(&group_log::path(&folder.wal, next))?).map(|(start, _)| start.before),
                None => None,
            };
            if let Some(before) = before {
                bytes.truncate(before as usize);
            }
            let contents = group_log::read(&bytes, groups, start.salt, before.is_some());
            let opened = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| failed("Opening", &path, &error))?;
            let mut segment = Segment::of(number, start.salt, opened, contents.end);
            self.index.counters = self.index.counters.max(start.counters);
            for group in &contents.groups {
                self.replay_group(group, &mut segment, &mut told);
            }
            if contents.damaged {
                hurt = true;
                folder.put_copy(&path).map_err(|error| failed("Copying", &path, &error))?;
            }
            if next.is_none() {
                let cut = segment.file.metadata().and_then(|metadata| match metadata.len() > contents.end {
                    true => segment.file.set_len(contents.end).and_then(|()| segment.file.sync_all()),
                    false => Ok(()),
                });
                cut.map_err(|error| failed("Writing", &path, &error))?;
            }
            segments.push(segment);
        }
        Ok((segments, hurt))
    }

    fn replay_group(&mut self, group: &Group, segment: &mut Segment, told: &mut u64) {
        for (offset, header, payload) in &group.frames {
            let at = |log: bool| Ref { segment: segment.number, offset: *offset, len: header.len, log };
            let counters = &mut self.index.counters;
            counters.frame = counters.frame.max(header.number);
            match header.kind {
                Kind::Job => {
                    if let Some(change) = Change::read(payload) {
                        let at = at(false);
                        self.replay_change(&change, at, segment);
                    }
                }
                Kind::Log => {
                    let place = LogKey::read(payload).map_or(0, |key| key.place);
                    let frame = at(true);
                    if self.index.at(place).is_some_and(|entry| entry.damaged.is_none()) {
                        self.index.change(place, |entry| entry.pending.push(frame));
                        segment.touched.insert(place);
                    }
                }
                Kind::Events => {
                    if let Some(events) = Told::read(payload).filter(|events| events.first > *told) {
                        let count = events.bodies.len() as u32;
                        *told = events.first + u64::from(count) - 1;
                        counters.sequence = counters.sequence.max(*told);
                        segment.events.push(EventsAt { first: events.first, count, offset: *offset, len: header.len });
                    }
                }
                _ => {}
            }
        }
        for (place, offset, len) in &group.lost_logs {
            // That there was one is to be known, lest an older one be taken for it.
            if self.index.at(*place).is_some_and(|entry| entry.damaged.is_none()) {
                let frame = Ref { segment: segment.number, offset: *offset, len: *len, log: true };
                self.index.change(*place, |entry| entry.pending.push(frame));
                segment.touched.insert(*place);
            }
        }
        for (id, place, step) in &group.lost {
            let message = "a change of it in the group log is damaged";
            match self.index.get(id).map(|entry| (entry.columns.place, entry.columns.step)) {
                Some((found, steps)) if found > *place || (found == *place && steps >= *step) => {}
                Some((found, _)) if found == *place => _ = self.trouble.insert(*place, message.to_owned()),
                _ => {
                    self.broken.remove(*id);
                    self.index.insert(damaged_entry((*id).into(), *place, ""));
                    self.trouble.insert(*place, message.to_owned());
                }
            }
        }
        if let Some(counters) = group.counters {
            self.index.counters = self.index.counters.max(counters);
        }
    }

    fn replay_change(&mut self, change: &Change, at: Ref, segment: &mut Segment) {
        let place = change.columns.place;
        let known = self.index.get(change.id).map(|entry| (entry.columns.place, entry.columns.step, entry.damaged.is_some()));
        if known.is_some_and(|(found, ..)| found > place) {
            return;
        }
        if change.deleted {
            if let Some((found, ..)) = known {
                self.index.remove(found);
                self.trouble.remove(&found);
            }
            self.broken.remove(change.id);
            segment.removed.push((change.id.into(), place));
            self.index.counters.place = self.index.counters.place.max(place);
            return;
        }
        let missing = || "a change of it is missing in the group log".to_owned();
        match known {
            Some((found, step, damaged)) if found == place => {
                if damaged || change.columns.step <= step {
                    return;
                }
                if change.columns.step != step + 1 {
                    self.trouble.entry(place).or_insert_with(missing);
                    return;
                }
                self.trouble.remove(&place);
                segment.touched.insert(place);
                self.index.change(place, |entry| {
                    entry.columns = journal::keep(&change.columns);
                    if change.clear_requests {
                        entry.requests.clear();
                    }
                    entry.requests.extend(change.requests.iter().map(|(number, body)| (*number, Box::from(*body))));
                    entry.pending.push(at);
                });
            }
            _ => {
                self.broken.remove(change.id);
                segment.touched.insert(place);
                let mut entry = damaged_entry(change.id.into(), place, "");
                entry.damaged = None;
                entry.columns = journal::keep(&change.columns);
                entry.requests = change.requests.iter().map(|(number, body)| (*number, Box::from(*body))).collect();
                entry.pending.push(at);
                self.index.insert(entry);
                if change.columns.step != 0 {
                    self.trouble.insert(place, missing());
                }
            }
        }
    }

    fn put_damage_away(&mut self, folder: &Folder) -> Result<(), Error> {
        for (id, message) in std::mem::take(&mut self.broken) {
            let place = self.index.counters.place + 1;
            self.index.insert(damaged_entry(id.into(), place, ""));
            self.trouble.insert(place, message);
        }
        for (place, message) in std::mem::take(&mut self.trouble) {
            let Some(id) = self.index.at(place).map(|entry| entry.id.clone()) else { continue };
            tracing::error!(job = &*id, message, "A job of a file store is damaged");
            write_note(&folder.note(&id), place, &message)?;
            let journal = folder.journal(&id);
            if journal.exists() {
                folder.put_away(&journal).map_err(|error| failed("Moving", &journal, &error))?;
            }
            self.index.change(place, |entry| {
                entry.damaged = Some(message.into());
                entry.journal = None;
                entry.pending.clear();
            });
        }
        Ok(())
    }
}

fn read_events(folder: &Folder) -> Result<Vec<EventFile>, Error> {
    let mut files: Vec<EventFile> = Vec::new();
    for path in list(&folder.events)? {
        if has_extension(&path, "tmp") {
            remove(&path)?;
            continue;
        }
        if !has_extension(&path, "events") {
            continue;
        }
        let (found, whole) = EventFile::open(path.clone()).map_err(|error| failed("Reading", &path, &error))?;
        if !whole {
            tracing::error!(path = %path.display(), "A file of events is damaged; what is left of it is read");
            let moved = || match &found {
                Some(_) => folder.put_copy(&path),
                None => folder.put_away(&path),
            };
            moved().map_err(|error| failed("Copying", &path, &error))?;
        }
        let Some(mut found) = found else { continue };
        if !whole {
            let anew = || {
                let batches = found.batches()?;
                EventFile::write(&folder.events, batches.into_iter())?.map(|file| file.install(&folder.events)).transpose()
            };
            let anew = anew().map_err(|error| failed("Writing", &path, &error))?;
            if anew.as_ref().is_none_or(|anew| anew.path != path) {
                remove(&path)?;
            }
            sync_folder(&folder.events).map_err(|error| failed("Writing", &folder.events, &error))?;
            match anew {
                Some(anew) => found = anew,
                None => continue,
            }
        }
        // Left by a removal of dead events that was cut off: the older one has all.
        if files.last().is_some_and(|last| found.first <= last.last) {
            remove(&found.path)?;
            continue;
        }
        files.push(found);
    }
    Ok(files)
}

/// Outputs without a job are left by a deletion that was cut off.
fn remove_strays(folder: &Folder, index: &Index) -> Result<(), Error> {
    for path in list(&folder.jobs)? {
        if !has_extension(&path, "logs") {
            continue;
        }
        let id = path.file_stem().and_then(|name| id_of(name.to_str()?));
        if id.is_none_or(|id| index.get(&id).is_none()) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Whether a lock that is held is that of the directory as it is now.
pub fn is_current(root: &Path, lock: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    match (fs::metadata(root.join("LOCK")).map(inode), lock.metadata().map(inode)) {
        (Ok(there), Ok(held)) => there == held,
        _ => false,
    }
}
