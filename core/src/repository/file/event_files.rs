//! Events by number, in files that are written once: frames in order, then an index of them. Which events still count is
//! known from the jobs: those of a job that is gone don't, but for the one that tells of its end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::frame::{self, HEADER, Header, Kind, Slot};
use super::record::{Eye, Pen, Told};

const SALT: u32 = 0x6576_656e;
/// Bytes between two entries of an index.
const STRIDE: u64 = 64 * 1024;
/// A file smaller than this takes the next events in.
pub const SMALL: u64 = 1024 * 1024;
/// Bytes after the footer: its place, and a checksum of that.
const TAIL: u64 = 12;

/// A file of events.
#[derive(Debug, Clone)]
pub struct EventFile {
    /// Where it is.
    pub path: PathBuf,
    /// Number of its first event.
    pub first: u64,
    /// Number of its last.
    pub last: u64,
    /// How many it has.
    pub count: u64,
    /// How many of them tell of a job's end.
    pub farewells: u64,
    /// Bytes before the footer.
    pub len: u64,
    index: Vec<(u64, u64)>,
}

/// A frame of events, to be written.
pub struct Batch {
    /// Its number.
    pub number: u64,
    /// Its payload, a [`Told`].
    pub payload: Vec<u8>,
}

impl EventFile {
    /// Writes a file under a temporary name; its bytes are on the disk when this returns.
    pub fn write(folder: &Path, batches: impl Iterator<Item = Batch>) -> io::Result<Option<EventFile>> {
        EventFile::try_write(folder, batches).inspect_err(|_| {
            let _ = fs::remove_file(folder.join("new.tmp"));
        })
    }

    fn try_write(folder: &Path, batches: impl Iterator<Item = Batch>) -> io::Result<Option<EventFile>> {
        let mut file = EventFile { path: PathBuf::new(), first: 0, last: 0, count: 0, farewells: 0, len: 0, index: Vec::new() };
        let mut bytes = Vec::new();
        let temporary = folder.join("new.tmp");
        let mut out = File::create(&temporary)?;
        for batch in batches {
            let Some(told) = Told::read(&batch.payload) else { continue };
            file.add(&told, file.len + bytes.len() as u64);
            frame::push(&mut bytes, SALT, Kind::Events, batch.number, &batch.payload);
            if bytes.len() as u64 > STRIDE {
                out.write_all(&bytes)?;
                file.len += bytes.len() as u64;
                bytes.clear();
            }
        }
        if file.count == 0 {
            fs::remove_file(&temporary)?;
            return Ok(None);
        }
        file.len += bytes.len() as u64;
        let start = frame::begin(&mut bytes);
        let mut pen = Pen(&mut bytes);
        for number in [file.first, file.last, file.count, file.farewells, file.index.len() as u64] {
            pen.wide(number);
        }
        for (sequence, offset) in &file.index {
            pen.wide(*sequence);
            pen.wide(*offset);
        }
        frame::end(&mut bytes, start, SALT, Kind::Footer, file.last);
        let place = file.len.to_le_bytes();
        bytes.extend_from_slice(&place);
        bytes.extend_from_slice(&crc32c::crc32c(&place).to_le_bytes());
        out.write_all(&bytes)?;
        out.sync_all()?;
        file.path = temporary;
        Ok(Some(file))
    }

    /// Gives a file that was just written its name; one of the same first number is replaced. The folder is to be synced.
    pub fn install(mut self, folder: &Path) -> io::Result<EventFile> {
        let path = folder.join(format!("{:020}.events", self.first));
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(self)
    }

    fn add(&mut self, told: &Told, offset: u64) {
        if self.count == 0 {
            self.first = told.first;
        }
        if self.index.last().is_none_or(|(_, last)| offset >= last + STRIDE) {
            self.index.push((told.first, offset));
        }
        let count = told.bodies.len() as u64;
        self.last = told.first + count.saturating_sub(1);
        self.count += count;
        self.farewells += if told.place == 0 { count } else { 0 };
    }

    /// Opens a file by its footer; without one by all that can be read of it, and then says so.
    pub fn open(path: PathBuf) -> io::Result<(Option<EventFile>, bool)> {
        let file = File::open(&path)?;
        if let Some(found) = read_footer(&file, &path)? {
            return Ok((Some(found), true));
        }
        let bytes = fs::read(&path)?;
        let mut found = EventFile { path, first: 0, last: 0, count: 0, farewells: 0, len: bytes.len() as u64, index: Vec::new() };
        let mut place = 0;
        while let Some((start, header)) = frame::find(&bytes, place, SALT) {
            place = start + HEADER;
            if header.kind == Kind::Events
                && let Slot::Good(header, payload) = frame::at(&bytes, start, SALT)
            {
                if let Some(told) = Told::read(payload) {
                    found.add(&told, start as u64);
                }
                place = start + header.whole();
            }
        }
        Ok(((found.count > 0).then_some(found), false))
    }

    /// Calls `each` with the events from a number on until it returns false. What is damaged is left out.
    pub fn read(&self, file: &File, from: u64, mut each: impl FnMut(u64, &Told) -> bool) -> io::Result<bool> {
        let start = self.index.partition_point(|(sequence, _)| *sequence <= from).saturating_sub(1);
        for (n, (_, offset)) in self.index.iter().enumerate().skip(start) {
            let end = self.index.get(n + 1).map_or(self.len, |(_, next)| *next);
            let mut bytes = vec![0; end.saturating_sub(*offset) as usize];
            file.read_exact_at(&mut bytes, *offset)?;
            let mut place = 0;
            while let Some((start, header)) = frame::find(&bytes, place, SALT) {
                place = start + HEADER;
                if let Slot::Good(_, payload) = frame::at(&bytes, start, SALT) {
                    place = start + header.whole();
                    let told = if header.kind == Kind::Events { Told::read(payload) } else { None };
                    if let Some(told) = told.filter(|told| told.first + told.bodies.len() as u64 > from)
                        && !each(header.number, &told)
                    {
                        return Ok(false);
                    }
                }
            }
        }
        Ok(true)
    }

    /// All frames.
    pub fn batches(&self) -> io::Result<Vec<Batch>> {
        let mut batches = Vec::new();
        self.read(&File::open(&self.path)?, 0, |number, told| {
            let mut payload = Vec::new();
            told.write(&mut payload);
            batches.push(Batch { number, payload });
            true
        })?;
        Ok(batches)
    }
}

fn read_footer(file: &File, path: &Path) -> io::Result<Option<EventFile>> {
    let len = file.metadata()?.len();
    let Some(tail) = len.checked_sub(TAIL) else { return Ok(None) };
    let mut bytes = [0; TAIL as usize];
    file.read_exact_at(&mut bytes, tail)?;
    let place: [u8; 8] = bytes[..8].try_into().unwrap_or_default();
    if crc32c::crc32c(&place).to_le_bytes() != bytes[8..] {
        return Ok(None);
    }
    let place = u64::from_le_bytes(place);
    let Some(room) = tail.checked_sub(place) else { return Ok(None) };
    let mut bytes = vec![0; room as usize];
    file.read_exact_at(&mut bytes, place)?;
    let Slot::Good(Header { kind: Kind::Footer, .. }, payload) = frame::at(&bytes, 0, SALT) else { return Ok(None) };
    let read = || {
        let mut eye = Eye(payload);
        let (first, last, count, farewells, entries) = (eye.wide()?, eye.wide()?, eye.wide()?, eye.wide()?, eye.wide()?);
        let index = (0..entries).map(|_| Some((eye.wide()?, eye.wide()?))).collect::<Option<Vec<_>>>()?;
        Some(EventFile { path: path.to_owned(), first, last, count, farewells, len: place, index })
    };
    Ok(read())
}
