//! The group log: every group of writes goes here first, with one fsync, whatever jobs it is about. Its segments are
//! carried over to the jobs' own files later and then removed.
//!
//! A segment starts with two copies of a header. A group is a directory of its frames, the frames, and an end with the
//! counters. Groups follow each other only when the one before is on the disk; so what can't be read is a torn tail when
//! nothing follows, and damage when something does.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::sync_folder;
use super::frame::{self, HEADER, Header, Kind, Slot};
use super::index::Counters;
use super::record::{Eye, Pen};

/// Headers of segments have this salt; all else has the segment's.
const PLAIN: u32 = 0x7365_676d;

/// Where events are in a segment.
#[derive(Debug, Clone, Copy)]
pub struct EventsAt {
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub count: u32,
    /// Where the frame starts.
    pub offset: u64,
    /// Bytes of its payload.
    pub len: u32,
}

/// A segment.
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: Arc<File>,
    /// Its salt.
    pub salt: u32,
    /// Bytes that are on the disk for certain.
    pub len: u64,
    /// Its events, in order.
    pub events: Vec<EventsAt>,
    /// Places of the jobs that it changes.
    pub touched: BTreeSet<u64>,
    /// Jobs that it deletes: id and place.
    pub removed: Vec<(Arc<str>, u64)>,
}

/// What the header of a segment says.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Its number.
    pub number: u64,
    /// Its salt.
    pub salt: u32,
    /// Bytes of the segment before it that count.
    pub before: u64,
    /// How far the store was.
    pub counters: Counters,
}

impl Start {
    fn write(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        let mut pen = Pen(&mut payload);
        pen.wide(self.number);
        pen.small(self.salt);
        pen.wide(self.before);
        write_counters(&mut pen, &self.counters);
        let mut bytes = Vec::new();
        for _ in 0..2 {
            frame::push(&mut bytes, PLAIN, Kind::Segment, self.counters.frame, &payload);
        }
        bytes
    }

    /// Reads the header, from either of its copies; and where the groups start.
    pub fn read(bytes: &[u8]) -> Option<(Start, usize)> {
        let whole = HEADER + START;
        let read = |place: usize| match frame::at(bytes, place, PLAIN) {
            Slot::Good(Header { kind: Kind::Segment, .. }, payload) => {
                let mut eye = Eye(payload);
                Some(Start { number: eye.wide()?, salt: eye.small()?, before: eye.wide()?, counters: read_counters(&mut eye)? })
            }
            _ => None,
        };
        Some((read(0).or_else(|| read(whole))?, 2 * whole))
    }
}

/// Bytes of a header's payload.
const START: usize = 8 + 4 + 8 + 32;

fn write_counters(pen: &mut Pen, counters: &Counters) {
    for number in [counters.place, counters.sequence, counters.requests, counters.frame] {
        pen.wide(number);
    }
}

fn read_counters(eye: &mut Eye) -> Option<Counters> {
    Some(Counters { place: eye.wide()?, sequence: eye.wide()?, requests: eye.wide()?, frame: eye.wide()? })
}

/// The file of a segment.
pub fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:012}.wal"))
}

/// Numbers of the segments in the folder, in order.
pub fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let name = file?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_suffix(".wal")?.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl Segment {
    /// Starts a segment; it is on the disk when this returns.
    pub fn create(folder: &Path, number: u64, before: u64, counters: Counters) -> io::Result<Segment> {
        let salt = uuid::Uuid::new_v4().as_u128() as u32;
        let path = path(folder, number);
        let bytes = Start { number, salt, before, counters }.write();
        let made = || -> io::Result<File> {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            sync_folder(folder)?;
            Ok(file)
        };
        let file = made().inspect_err(|_| {
            // A half-written one would be taken for the latest at the next start.
            let _ = std::fs::remove_file(&path);
        })?;
        Ok(Segment::of(number, salt, file, bytes.len() as u64))
    }

    /// A segment that is there.
    pub fn of(number: u64, salt: u32, file: File, len: u64) -> Segment {
        Segment { number, file: Arc::new(file), salt, len, events: Vec::new(), touched: BTreeSet::new(), removed: Vec::new() }
    }
}

/// Reads a frame's payload from a segment; `None`: it is not what was written.
pub fn read_frame(file: &File, salt: u32, offset: u64, len: u32) -> io::Result<Option<(Header, Vec<u8>)>> {
    let mut bytes = vec![0; HEADER + len as usize];
    match file.read_exact_at(&mut bytes, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let Some(header) = Header::read(&bytes, salt) else { return Ok(None) };
    bytes.drain(..HEADER);
    Ok(header.matches(&bytes).then_some((header, bytes)))
}

/// A group that is being written.
pub struct Draft {
    salt: u32,
    first: u64,
    next: u64,
    body: Vec<u8>,
    frames: Vec<(Kind, u32, u32)>,
    jobs: Vec<(u32, Arc<str>, u64, u32)>,
}

impl Draft {
    /// A group for a segment of that salt, its frames numbered from after `latest`.
    pub fn new(salt: u32, latest: u64) -> Draft {
        Draft { salt, first: latest + 1, next: latest + 2, body: Vec::new(), frames: Vec::new(), jobs: Vec::new() }
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Adds a frame; gives its offset in the body and the length of its payload.
    pub fn add(&mut self, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) -> (u64, u32) {
        let start = frame::begin(&mut self.body);
        write(&mut self.body);
        frame::end(&mut self.body, start, self.salt, kind, self.next);
        self.next += 1;
        let len = (self.body.len() - start - HEADER) as u32;
        self.frames.push((kind, start as u32, len));
        (start as u64, len)
    }

    /// Adds a change of a job.
    pub fn job(&mut self, id: &Arc<str>, place: u64, step: u32, write: impl FnOnce(&mut Vec<u8>)) -> (u64, u32) {
        self.jobs.push((self.frames.len() as u32, id.clone(), place, step));
        self.add(Kind::Job, write)
    }

    /// The bytes of the group, the offset of its body in them, and the counters after it.
    pub fn finish(mut self, counters: Counters) -> (Vec<u8>, u64, Counters) {
        let counters = Counters { frame: self.next, ..counters };
        let count = self.frames.len() as u32;
        let body = self.body.len();
        let commit = frame::begin(&mut self.body);
        let mut pen = Pen(&mut self.body);
        pen.small(count);
        write_counters(&mut pen, &counters);
        frame::end(&mut self.body, commit, self.salt, Kind::Commit, self.next);
        let mut bytes = Vec::with_capacity(self.body.len() + 64 + self.frames.len() * 9 + self.jobs.len() * 56);
        let start = frame::begin(&mut bytes);
        let mut pen = Pen(&mut bytes);
        pen.wide(body as u64);
        pen.wide(self.body.len() as u64);
        pen.small(count);
        for (kind, offset, len) in &self.frames {
            pen.byte(*kind as u8);
            pen.small(*offset);
            pen.small(*len);
        }
        pen.small(self.jobs.len() as u32);
        for (frame, id, place, step) in &self.jobs {
            pen.small(*frame);
            pen.text(id);
            pen.wide(*place);
            pen.small(*step);
        }
        frame::end(&mut bytes, start, self.salt, Kind::Group, self.first);
        let offset = bytes.len() as u64;
        bytes.extend_from_slice(&self.body);
        (bytes, offset, counters)
    }
}

/// A group as it is read back.
#[derive(Debug, Default)]
pub struct Group<'a> {
    /// Offset, header, payload of each frame that is as it was written.
    pub frames: Vec<(u64, Header, &'a [u8])>,
    /// Changes that can't be read: id and place of the job, and which step of it.
    pub lost: Vec<(&'a str, u64, u32)>,
    /// Outputs that can't be read: place of the job, offset of the frame, length of its payload.
    pub lost_logs: Vec<(u64, u64, u32)>,
    /// How far the store was after it, if that can be read.
    pub counters: Option<Counters>,
}

enum Look<'a> {
    /// All of it is there.
    Whole(Group<'a>, usize),
    /// Some of it is not what was written; it ends there.
    Partial(Group<'a>, usize),
    /// It can't be told what it was.
    Unreadable,
}

/// What the frame at the end of a group says: how many frames, and the counters.
fn read_commit(payload: &[u8]) -> Option<(u32, Counters)> {
    let mut eye = Eye(payload);
    Some((eye.small()?, read_counters(&mut eye)?))
}

fn by_directory<'a>(bytes: &'a [u8], body: usize, directory: &'a [u8], salt: u32) -> Option<Look<'a>> {
    let mut eye = Eye(directory);
    let (commit, len, count) = (eye.wide()? as usize, eye.wide()? as usize, eye.small()?);
    let end = body.checked_add(len)?;
    if end > bytes.len() {
        return Some(Look::Unreadable);
    }
    let frames = (0..count).map(|_| Some((eye.byte()?, eye.small()? as usize, eye.small()?))).collect::<Option<Vec<_>>>()?;
    let jobs = eye.small()?;
    let jobs = (0..jobs).map(|_| Some((eye.small()? as usize, eye.text()?, eye.wide()?, eye.small()?))).collect::<Option<Vec<_>>>()?;
    let mut group = Group::default();
    let (mut whole, mut job) = (true, 0);
    for (n, (kind, offset, len)) in frames.into_iter().enumerate() {
        // Outputs follow the change that they came with.
        if let Some((_, _, place, _)) = jobs.binary_search_by_key(&n, |(frame, ..)| *frame).ok().map(|at| &jobs[at]) {
            job = *place;
        }
        match frame::at(&bytes[..end], body + offset, salt) {
            Slot::Good(header, payload) if header.kind as u8 == kind && header.len == len => {
                group.frames.push(((body + offset) as u64, header, payload));
            }
            _ => {
                whole = false;
                group.lost.extend(jobs.iter().filter(|(frame, ..)| *frame == n).map(|(_, id, place, step)| (*id, *place, *step)));
                if kind == Kind::Log as u8 {
                    group.lost_logs.push((job, (body + offset) as u64, len));
                }
            }
        }
    }
    match frame::at(&bytes[..end], body + commit, salt) {
        Slot::Good(Header { kind: Kind::Commit, .. }, payload) => group.counters = read_commit(payload).map(|(_, counters)| counters),
        _ => whole = false,
    }
    Some(if whole { Look::Whole(group, end) } else { Look::Partial(group, end) })
}

/// Without a directory only a group that is whole otherwise can be believed.
fn by_frames(bytes: &[u8], from: usize, salt: u32) -> Look<'_> {
    let mut group = Group::default();
    let mut place = from;
    while let Slot::Good(header, payload) = frame::at(bytes, place, salt) {
        place += header.whole();
        match header.kind {
            Kind::Commit => {
                let Some((count, counters)) = read_commit(payload) else { break };
                if count as usize != group.frames.len() {
                    break;
                }
                group.counters = Some(counters);
                return Look::Whole(group, place);
            }
            Kind::Group => break,
            _ => group.frames.push(((place - header.whole()) as u64, header, payload)),
        }
    }
    Look::Unreadable
}

fn look(bytes: &[u8], place: usize, salt: u32) -> Look<'_> {
    match frame::at(bytes, place, salt) {
        Slot::Good(header, payload) if header.kind == Kind::Group => by_directory(bytes, place + header.whole(), payload, salt).unwrap_or(Look::Unreadable),
        Slot::Damaged(header) if header.kind == Kind::Group => by_frames(bytes, place + header.whole(), salt),
        Slot::Bad => match frame::find(bytes, place + 1, salt) {
            Some((first, header)) if header.kind != Kind::Group => by_frames(bytes, first, salt),
            _ => Look::Unreadable,
        },
        _ => Look::Unreadable,
    }
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Contents<'a> {
    /// Its groups.
    pub groups: Vec<Group<'a>>,
    /// Where what counts ends.
    pub end: u64,
    /// Whether some of what counts can't be read.
    pub damaged: bool,
}

/// Reads the groups of a segment. `sealed`: another segment follows, so that all of it was on the disk.
pub fn read(bytes: &[u8], start: usize, salt: u32, sealed: bool) -> Contents<'_> {
    let mut contents = Contents::default();
    let mut place = start;
    let next_group = |from: usize| {
        let mut from = from;
        while let Some((found, header)) = frame::find(bytes, from, salt) {
            if header.kind == Kind::Group {
                return Some(found);
            }
            from = found + HEADER;
        }
        None
    };
    while place < bytes.len() {
        match look(bytes, place, salt) {
            Look::Whole(group, end) => {
                contents.groups.push(group);
                place = end;
            }
            Look::Partial(group, end) if sealed || next_group(end).is_some() => {
                contents.damaged = true;
                contents.groups.push(group);
                place = end;
            }
            Look::Partial(..) => break,
            Look::Unreadable => match next_group(place + 1) {
                Some(next) => {
                    contents.damaged = true;
                    place = next;
                }
                None => {
                    contents.damaged |= sealed;
                    break;
                }
            },
        }
    }
    contents.end = place as u64;
    contents
}
