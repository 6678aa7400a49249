//! Carries segments of the group log over to the files of their jobs, and removes them. Whatever is cut off in the middle
//! is done again from the log: what a file has already is known by the number of its steps and frames.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::event_files::{Batch, EventFile, SMALL};
use super::folder::{failed, sync_folder, write_whole};
use super::frame::{self, Kind};
use super::group_log::{EventsAt, path, read_frame};
use super::index::{Kept, Ref};
use super::journal;
use super::record::{Change, Fold, LogKey, Told};
use super::store::Store;
use crate::job::{Error, ErrorCode};

/// A journal smaller than this is not worth writing anew.
const SHORT: u64 = 64 * 1024;
/// A journal is written anew when it is so many times as long as what it started with.
const GROWN: u64 = 4;
/// Files that are put on the disk one by one; of more the whole file system is.
const FEW: usize = 32;
/// Dead events that are worth removing.
const DEAD: u64 = 20_000;
/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The thread: carries over what is sealed until the store is closed.
pub fn run(store: &Store) {
    let mut anew = false;
    loop {
        let number = {
            let mut state = store.state.lock();
            loop {
                if state.closed {
                    return;
                }
                match state.sealed() {
                    Some(segment) if state.fault.is_none() => break segment.number,
                    Some(segment) => {
                        let number = segment.number;
                        store.wake.wait_for(&mut state, AGAIN);
                        if !state.closed {
                            break number;
                        }
                    }
                    None => store.wake.wait(&mut state),
                }
            }
        };
        let result = carry(store, number, anew);
        // What was written to a file before an fsync that failed is not to be relied on.
        anew = result.is_err();
        let mut state = store.state.lock();
        if let Err(error) = &result {
            tracing::warn!(%error, "The group log of a file store can't be carried over yet");
        }
        state.fault = result.err();
        store.drained.notify_all();
    }
}

/// A job that a segment changes.
struct Job {
    id: Arc<str>,
    place: u64,
    journal: Option<Kept>,
    refs: Vec<Ref>,
}

/// What is wrong with one job, or with the disk.
enum Trouble {
    Damaged(String),
    Disk(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Disk(error)
    }
}

fn told(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| failed(what, path, &error)
}

/// Files that are to be on the disk.
struct Dirty {
    folder: File,
    files: Vec<File>,
    many: bool,
    /// What was begun, and how long it was before.
    begun: Vec<(PathBuf, u64)>,
}

impl Dirty {
    fn add(&mut self, file: File) -> io::Result<()> {
        if self.files.len() < FEW {
            self.files.push(file);
            return Ok(());
        }
        self.many = true;
        if cfg!(target_os = "linux") { Ok(()) } else { file.sync_all() }
    }

    /// Gives the room back that was taken in vain: it may be the last there is, and the group log needs it more.
    fn undo(&self) {
        for (path, len) in &self.begun {
            let undone = match len {
                0 => fs::remove_file(path),
                len => OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(*len)),
            };
            if let Err(error) = undone {
                tracing::debug!(%error, path = %path.display(), "What a checkpoint began stays for the next one");
            }
        }
    }

    fn sync(&self) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        if self.many {
            use std::os::fd::AsRawFd;
            // Reports what failed since the folder was opened (Linux 5.8 and newer).
            if unsafe { libc::syncfs(self.folder.as_raw_fd()) } != 0 {
                return Err(io::Error::last_os_error());
            }
            return Ok(());
        }
        self.files.iter().try_for_each(File::sync_all)?;
        self.folder.sync_all()
    }
}

/// Carries one segment over. `anew`: journals are written anew instead of being appended to.
pub fn carry(store: &Store, number: u64, anew: bool) -> Result<(), Error> {
    let folder = &store.folder;
    let (file, salt, jobs, removed, events) = {
        let state = store.state.lock();
        let Some(segment) = state.segments.get(&number) else { return Ok(()) };
        let jobs = segment.touched.iter().filter_map(|place| {
            let entry = state.index.at(*place).filter(|entry| entry.damaged.is_none())?;
            let refs = entry.pending.iter().take_while(|frame| frame.segment <= number).copied().collect();
            Some(Job { id: entry.id.clone(), place: *place, journal: entry.journal, refs })
        });
        let jobs: Vec<Job> = jobs.filter(|job| !job.refs.is_empty()).collect();
        // Also what later segments delete: that is on the disk too, and there may be no other room.
        let removed = state.segments.values().flat_map(|segment| &segment.removed);
        let removed = removed.filter(|(id, _)| state.index.get(id).is_none_or(|entry| entry.journal.is_none() && entry.damaged.is_none()));
        let removed: Vec<Arc<str>> = removed.map(|(id, _)| id.clone()).collect();
        (segment.file.clone(), segment.salt, jobs, removed, segment.events.clone())
    };
    for id in &removed {
        for path in [folder.logs(id), folder.note(id), folder.journal(id)] {
            remove(&path)?;
        }
    }
    let opened = File::open(&folder.jobs).map_err(told("Opening", &folder.jobs))?;
    let mut dirty = Dirty { folder: opened, files: Vec::new(), many: false, begun: Vec::new() };
    let mut kept = Vec::with_capacity(jobs.len());
    let mut carry_all = || {
        for job in &jobs {
            match carry_job(store, &file, salt, job, anew, &mut dirty) {
                Ok(journal) => kept.push((job.place, journal)),
                Err(Trouble::Damaged(message)) => damage(store, &job.id, job.place, &message)?,
                Err(Trouble::Disk(error)) => return Err(error),
            }
        }
        dirty.sync().map_err(told("Writing", &folder.jobs))?;
        carry_events(store, &file, salt, &events)
    };
    if let Err(error) = carry_all() {
        dirty.undo();
        return Err(error);
    }
    {
        let mut state = store.state.lock();
        for (place, journal) in kept {
            state.index.change(place, |entry| {
                entry.journal = Some(journal);
                entry.pending.retain(|frame| frame.segment > number);
            });
        }
        state.segments.remove(&number);
    }
    remove(&path(&folder.wal, number))?;
    // In order: a segment that is back after a loss of power must not be without the ones after it.
    sync_folder(&folder.wal).map_err(told("Writing", &folder.wal))?;
    sweep(store)
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("Removing", path, &error)),
        _ => Ok(()),
    }
}

/// Notes that a job can't be read any more.
pub fn damage(store: &Store, id: &str, place: u64, message: &str) -> Result<(), Error> {
    tracing::error!(job = id, message, "A job of a file store is damaged");
    store.state.lock().index.change(place, |entry| entry.damaged = Some(message.into()));
    write_note(&store.folder.note(id), place, message)
}

/// Writes the note that a job is damaged.
pub fn write_note(path: &Path, place: u64, message: &str) -> Result<(), Error> {
    let note = serde_json::json!({ "place": place, "message": message });
    write_whole(path, &note.to_string()).map_err(told("Writing", path))
}

fn frame_of(file: &File, salt: u32, at: &Ref) -> Result<(frame::Header, Vec<u8>), Trouble> {
    let read = read_frame(file, salt, at.offset, at.len).map_err(|error| Trouble::Disk(failed("Reading the group log near", Path::new("wal"), &error)))?;
    read.ok_or_else(|| Trouble::Damaged("a change of it in the group log is damaged".into()))
}

fn carry_job(store: &Store, segment: &File, salt: u32, job: &Job, anew: bool, dirty: &mut Dirty) -> Result<Kept, Trouble> {
    let logs = store.folder.logs(&job.id);
    if job.journal.is_none() {
        // Of a job of that id before this one.
        remove(&logs)?;
    }
    if job.refs.iter().any(|at| at.log) {
        carry_logs(segment, salt, job, &logs, dirty)?;
    }
    let mut bytes = Vec::new();
    for at in job.refs.iter().filter(|at| !at.log) {
        let (header, payload) = frame_of(segment, salt, at)?;
        frame::push(&mut bytes, journal::SALT, Kind::Job, header.number, &payload);
    }
    let path = store.folder.journal(&job.id);
    let write = told("Writing", &path);
    let Some(Kept { len, base }) = job.journal else {
        let file = File::create(&path).map_err(&write)?;
        dirty.begun.push((path.clone(), 0));
        file.write_all_at(&bytes, 0).map_err(&write)?;
        dirty.add(file).map_err(&write)?;
        return Ok(Kept { len: bytes.len() as u64, base: bytes.len() as u64 });
    };
    let grown = len + bytes.len() as u64;
    if anew || grown > (base * GROWN).max(SHORT) {
        return write_anew(store, &path, job, len, &bytes);
    }
    let file = OpenOptions::new().write(true).open(&path).map_err(&write)?;
    let there = file.metadata().map_err(&write)?.len();
    if there < len {
        return Err(Trouble::Damaged(format!("its journal has {there} bytes where {len} were written")));
    }
    dirty.begun.push((path.clone(), len));
    file.set_len(len).and_then(|()| file.write_all_at(&bytes, len)).map_err(&write)?;
    dirty.add(file).map_err(&write)?;
    Ok(Kept { len: grown, base })
}

/// Writes a journal that starts with all of its job.
fn write_anew(store: &Store, path: &Path, job: &Job, len: u64, changes: &[u8]) -> Result<Kept, Trouble> {
    let write = told("Writing", path);
    let mut bytes = File::open(path).and_then(|file| journal::read_start(&file, len)).map_err(told("Reading", path))?;
    if (bytes.len() as u64) < len {
        return Err(Trouble::Damaged(format!("its journal has {} bytes where {len} were written", bytes.len())));
    }
    bytes.extend_from_slice(changes);
    let mut fold = Fold::default();
    let number = journal::fold(&bytes, &job.id, &mut fold).ok_or_else(|| Trouble::Damaged("its journal is damaged".into()))?;
    let mut payload = Vec::with_capacity(bytes.len() / 2);
    fold.write(&job.id, &mut payload);
    bytes.clear();
    frame::push(&mut bytes, journal::SALT, Kind::Job, number, &payload);
    let temporary = path.with_added_extension("tmp");
    let file = File::create(&temporary).map_err(&write)?;
    file.write_all_at(&bytes, 0).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        write(error)
    })?;
    let kept = Kept { len: bytes.len() as u64, base: bytes.len() as u64 };
    // Who reads the job opens its journal under the same lock.
    let mut state = store.state.lock();
    fs::rename(&temporary, path).map_err(&write)?;
    let last = job.refs.last().map_or(0, |at| at.segment);
    state.index.change(job.place, |entry| {
        entry.journal = Some(kept);
        // Outputs count as carried over only when all of the segment is.
        entry.pending.retain(|at| at.log || at.segment > last);
    });
    Ok(kept)
}

fn carry_logs(segment: &File, salt: u32, job: &Job, path: &Path, dirty: &mut Dirty) -> Result<(), Trouble> {
    let write = told("Writing", path);
    let (last, mut place) = journal::last_output(path).map_err(told("Reading", path))?;
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(&write)?;
    dirty.begun.push((path.to_owned(), place));
    file.set_len(place).map_err(&write)?;
    let (mut bytes, mut latest) = (Vec::new(), last + 1);
    for at in job.refs.iter().filter(|at| at.log) {
        let (number, payload) = match frame_of(segment, salt, at) {
            Ok((header, payload)) => (header.number, payload),
            Err(Trouble::Damaged(_)) => {
                let mut payload = Vec::new();
                LogKey::lost(job.place).write(&mut payload);
                (latest, payload)
            }
            Err(trouble) => return Err(trouble),
        };
        latest = number;
        if number <= last {
            continue;
        }
        frame::push(&mut bytes, journal::LOGS, Kind::Log, number, &payload);
        if bytes.len() > 1024 * 1024 {
            file.write_all_at(&bytes, place).map_err(&write)?;
            place += bytes.len() as u64;
            bytes.clear();
        }
    }
    file.write_all_at(&bytes, place).map_err(&write)?;
    dirty.add(file).map_err(&write)?;
    Ok(())
}

fn carry_events(store: &Store, segment: &File, salt: u32, events: &[EventsAt]) -> Result<(), Error> {
    let folder = &store.folder.events;
    let write = told("Writing", folder);
    let (small, last) = {
        let state = store.state.lock();
        let last = state.events.last();
        (last.filter(|file| file.len < SMALL).cloned(), last.map_or(0, |file| file.last))
    };
    let new = events.iter().filter(|at| at.first > last);
    if new.clone().next().is_none() {
        return Ok(());
    }
    let before = small.as_ref().map_or(Ok(Vec::new()), EventFile::batches).map_err(&write)?;
    let mut fault = None;
    let new = new.filter_map(|at| match read_frame(segment, salt, at.offset, at.len) {
        Ok(read) => read.map(|(header, payload)| Batch { number: header.number, payload }),
        Err(error) => {
            fault.get_or_insert(error);
            None
        }
    });
    let file = EventFile::write(folder, before.into_iter().chain(new)).map_err(&write)?;
    if let Some(error) = fault {
        return Err(write(error));
    }
    {
        let mut state = store.state.lock();
        let Some(file) = file.map(|file| file.install(folder)).transpose().map_err(&write)? else { return Ok(()) };
        if small.is_some() {
            state.events.pop();
        }
        state.events.push(file);
    }
    sync_folder(folder).map_err(&write)
}

/// Removes events of jobs that are gone, when there are many.
fn sweep(store: &Store) -> Result<(), Error> {
    let (files, dead) = {
        let state = store.state.lock();
        let kept: u64 = state.events.iter().map(|file| file.count - file.farewells.min(file.count)).sum();
        let dead = kept.saturating_sub(state.index.live_events);
        if dead < DEAD || dead * 2 < kept {
            return Ok(());
        }
        (state.events.clone(), dead)
    };
    tracing::debug!(dead, "Events of jobs that are gone are removed");
    let folder = &store.folder.events;
    let write = told("Writing", folder);
    for old in files {
        let batches = old.batches().map_err(&write)?;
        let live = batches
            .into_iter()
            .filter(|batch| Told::read(&batch.payload).is_some_and(|told| told.place == 0 || store.state.lock().index.at(told.place).is_some()));
        let new = EventFile::write(folder, live).map_err(&write)?;
        let mut state = store.state.lock();
        let new = new.map(|new| new.install(folder)).transpose().map_err(&write)?;
        let stays = new.as_ref().is_some_and(|new| new.path == old.path);
        if let Some(n) = state.events.iter().position(|file| file.first == old.first) {
            state.events.splice(n..=n, new);
        }
        drop(state);
        sync_folder(folder).map_err(&write)?;
        if !stays {
            remove(&old.path)?;
        }
    }
    Ok(())
}

/// Reads a change that is still in the group log.
pub fn apply_pending(fold: &mut Fold, id: &str, payload: &[u8]) -> Option<()> {
    fold.apply(&Change::read(payload).filter(|change| change.id == id)?)
}

/// The error of a job that is damaged.
pub fn damaged(id: &str, message: &str) -> Error {
    Error::new(
        ErrorCode::StoreCorrupt,
        format!("The record of job \"{id}\" is damaged: {message}. What is left of it is kept in the store's quarantine; delete the job to go on without it"),
    )
}
