//! Reading jobs, outputs and events. What is read is found under the lock of the state, and read without it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::checkpoint::{apply_pending, damage, damaged};
use super::folder::failed;
use super::frame::HEADER;
use super::group_log::{EventsAt, read_frame};
use super::index::Ref;
use super::journal;
use super::recent::MANY;
use super::record::{Fold, LogKey, Told};
use super::store::{State, Store};
use crate::job::{Error, ErrorCode, JobState};
use crate::repository::durable::{Listing, LogStream, Stored, StoredEvent};

/// Bytes of jobs after which a page ends.
const PAGE: usize = 8 * 1024 * 1024;

/// A frame, and how to read it.
type Source = (Arc<File>, u32, Ref);

fn sources(state: &State, frames: impl Iterator<Item = Ref>) -> Vec<Source> {
    frames.filter_map(|at| state.segments.get(&at.segment).map(|segment| (segment.file.clone(), segment.salt, at))).collect()
}

fn read_pending((file, salt, at): &Source) -> Result<Option<Vec<u8>>, Error> {
    let read = read_frame(file, *salt, at.offset, at.len);
    Ok(read.map_err(|error| failed("Reading the group log in", "wal".as_ref(), &error))?.map(|(_, payload)| payload))
}

impl Store {
    /// A job; STORE_CORRUPT when it is damaged.
    pub fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        let path = self.folder.journal(id);
        let (entry, journal, pending, renewed_at) = {
            let state = self.state.lock();
            let Some(entry) = state.index.get(id) else { return Ok(None) };
            if let Some(message) = &entry.damaged {
                return Err(damaged(id, message));
            }
            let journal = match entry.journal.map(|kept| (File::open(&path), kept)) {
                Some((Ok(file), kept)) => Some((file, kept)),
                Some((Err(error), _)) if error.kind() == io::ErrorKind::NotFound && self.folder.jobs.is_dir() => {
                    let (id, place) = (entry.id.clone(), entry.columns.place);
                    drop(state);
                    let message = "its journal was removed";
                    damage(self, &id, place, message)?;
                    return Err(damaged(&id, message));
                }
                Some((Err(error), _)) => return Err(failed("Reading", &path, &error)),
                None => None,
            };
            let pending = sources(&state, entry.pending.iter().copied().filter(|at| !at.log));
            let renewed_at = entry.columns.owner.as_ref().and_then(|owner| state.index.renewed_at(owner));
            ((entry.id.clone(), entry.columns.clone(), entry.requests.clone()), journal, pending, renewed_at)
        };
        let (id, columns, requests) = entry;
        // Hundreds of changes are not read again for everybody who looks how far the job is.
        let known = if pending.len() >= MANY { self.recent.take(columns.place, columns.step, pending.len()) } else { None };
        let (mut fold, since, read_journal) = match known {
            Some((fold, behind)) => (fold, pending.len() - behind, false),
            None => (Fold::default(), 0, true),
        };
        let mut whole = true;
        if let Some((file, kept)) = journal.filter(|_| read_journal) {
            let bytes = journal::read_start(&file, kept.len).map_err(|error| failed("Reading", &path, &error))?;
            whole = bytes.len() as u64 == kept.len && journal::fold(&bytes, &id, &mut fold).is_some();
        }
        for source in &pending[since..] {
            whole = whole && read_pending(source)?.is_some_and(|payload| apply_pending(&mut fold, &id, &payload).is_some());
        }
        if !whole || fold.columns.as_ref().is_none_or(|found| found.step != columns.step) {
            let message = "its journal is not what was written";
            damage(self, &id, columns.place, message)?;
            return Err(damaged(&id, message));
        }
        if pending.len() >= MANY {
            self.recent.keep(&fold);
        }
        Ok(Some(Stored {
            id,
            place: columns.place,
            version: columns.version,
            state: columns.state,
            kind: columns.kind,
            owner: columns.owner,
            released: columns.released,
            hold: columns.hold,
            renewed_at,
            head: fold.head,
            spec: fold.spec,
            options: fold.options,
            extras: fold.extras,
            chunks: fold.chunks.into_iter().collect(),
            requests: requests.into_iter().map(|(_, body)| body.into_string()).collect(),
        }))
    }

    /// A page of jobs.
    pub fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        let most = most.max(1);
        let places = self.state.lock().index.page(states, after, most + 1);
        let mut listing = Listing::default();
        let mut bytes = 0;
        for (n, place) in places.iter().enumerate() {
            if n == most || bytes > PAGE {
                listing.next = n.checked_sub(1).map(|last| places[last]);
                break;
            }
            let Some((id, message)) = self.state.lock().index.at(*place).map(|entry| (entry.id.clone(), entry.damaged.clone())) else { continue };
            if let Some(message) = message {
                listing.damaged.push((id, message.into_string()));
                continue;
            }
            match self.load(&id) {
                Ok(Some(job)) => {
                    let rows: usize = job.chunks.iter().map(|(_, body)| body.len() + 32).sum();
                    bytes += job.head.len() + job.spec.len() + job.options.len() + job.extras.len() + rows;
                    // It may have changed since the page was made.
                    if states.is_empty() || states.contains(&job.state) {
                        listing.jobs.push(job);
                    }
                }
                Ok(None) => {}
                Err(error) => match self.state.lock().index.at(*place).and_then(|entry| entry.damaged.clone()) {
                    Some(message) => listing.damaged.push((id, message.into_string())),
                    None => return Err(error),
                },
            }
        }
        Ok(listing)
    }

    /// Events from a number on.
    pub fn events(&self, mut from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        let mut events = Vec::new();
        while events.len() < most {
            enum Next {
                File(super::event_files::EventFile, File),
                Frames(Vec<(Arc<File>, u32, EventsAt)>),
            }
            let next = {
                let state = self.state.lock();
                let n = state.events.partition_point(|file| file.last < from);
                match state.events.get(n) {
                    Some(file) => Next::File(file.clone(), File::open(&file.path).map_err(|error| failed("Reading", &file.path, &error))?),
                    None => {
                        let mut frames: Vec<(Arc<File>, u32, EventsAt)> = Vec::new();
                        let mut count = 0;
                        for segment in state.segments.values() {
                            let start = segment.events.partition_point(|at| at.first + u64::from(at.count) <= from);
                            for at in &segment.events[start..] {
                                if count >= most {
                                    break;
                                }
                                count += at.count as usize;
                                frames.push((segment.file.clone(), segment.salt, *at));
                            }
                        }
                        Next::Frames(frames)
                    }
                }
            };
            match next {
                Next::File(file, opened) => {
                    let read = file.read(&opened, from, |_, told| {
                        self.take_events(told, from, most, &mut events);
                        events.len() < most
                    });
                    read.map_err(|error| failed("Reading", &file.path, &error))?;
                    from = file.last + 1;
                }
                Next::Frames(frames) => {
                    let Some((.., last)) = frames.last() else { break };
                    let end = last.first + u64::from(last.count);
                    for (file, salt, at) in &frames {
                        let read: io::Result<_> = read_frame(file, *salt, at.offset, at.len);
                        let read = read.map_err(|error| failed("Reading", &self.folder.wal, &error))?;
                        if let Some(told) = read.as_ref().and_then(|(_, payload)| Told::read(payload)) {
                            self.take_events(&told, from, most, &mut events);
                        }
                    }
                    from = end;
                }
            }
        }
        Ok(events)
    }

    fn take_events(&self, told: &Told, from: u64, most: usize, events: &mut Vec<StoredEvent>) {
        if told.place != 0 && self.state.lock().index.at(told.place).is_none() {
            return;
        }
        let job: Arc<str> = told.id.into();
        let numbered = (told.first..).zip(&told.bodies).filter(|(sequence, _)| *sequence >= from);
        let room = most - events.len().min(most);
        events.extend(numbered.take(room).map(|(sequence, body)| StoredEvent { sequence, job: job.clone(), body: (*body).into() }));
    }

    /// Number of the oldest event that is kept.
    pub fn oldest_event(&self) -> Result<u64, Error> {
        let (oldest, next) = {
            let state = self.state.lock();
            (state.oldest, state.index.counters.sequence + 1)
        };
        let found = self.events(oldest, 1)?.first().map_or(next, |event| event.sequence);
        self.state.lock().oldest = found;
        Ok(found)
    }

    /// What a stream of an attempt said.
    pub fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        let path = self.folder.logs(id);
        let (place, pending, kept) = {
            let state = self.state.lock();
            let Some(entry) = state.index.get(id) else { return Ok(None) };
            let kept = match File::open(&path) {
                Ok(file) if entry.journal.is_some() || entry.damaged.is_some() => Some(file),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("Reading", &path, &error)),
                _ => None,
            };
            (entry.columns.place, sources(&state, entry.pending.iter().copied().filter(|at| at.log)), kept)
        };
        let wanted = LogKey { place, index, attempt, stream: stream as u8 };
        let text = |payload: &[u8]| payload.get(LogKey::LEN..).and_then(|text| String::from_utf8(text.to_vec()).ok());
        // What was written last counts.
        let lost = || Error::new(ErrorCode::StoreCorrupt, format!("An output of job \"{id}\" is damaged (in {} or the group log)", path.display()));
        for source in pending.iter().rev() {
            let Some(payload) = read_pending(source)? else { return Err(lost()) };
            if LogKey::read(&payload) == Some(wanted) {
                return Ok(text(&payload));
            }
        }
        let Some(file) = kept else { return Ok(None) };
        let reading = |error: io::Error| failed("Reading", &path, &error);
        let (found, _) = journal::outputs(&file).map_err(reading)?;
        let unreadable = LogKey::lost(0);
        let is = |key: &LogKey| *key == wanted || LogKey { place: 0, ..*key } == unreadable;
        let Some((header, key, at)) = found.into_iter().rev().find(|(_, key, _)| is(key)) else { return Ok(None) };
        let Some(header) = header.filter(|_| key == wanted) else { return Err(lost()) };
        let mut payload = vec![0; header.len as usize];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut payload, at + HEADER as u64).map_err(reading)?;
        text(&payload).filter(|_| header.matches(&payload)).map(Some).ok_or_else(lost)
    }
}
