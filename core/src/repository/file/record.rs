//! What the frames hold: changes of jobs, events, logs; and the fold of changes to a job.
//!
//! Numbers are little-endian, texts have their length before them. Nothing here trusts what it reads.

use std::collections::BTreeMap;

use crate::job::JobState;

/// Writes the parts of a payload.
pub struct Pen<'a>(pub &'a mut Vec<u8>);

impl Pen<'_> {
    /// A byte.
    pub fn byte(&mut self, value: u8) {
        self.0.push(value);
    }
    /// A number of four bytes.
    pub fn small(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    /// A number of eight bytes.
    pub fn wide(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }
    /// A text.
    pub fn text(&mut self, text: &str) {
        self.small(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }
}

/// Reads the parts of a payload; `None` when there is not what should be.
pub struct Eye<'a>(pub &'a [u8]);

impl<'a> Eye<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }
    /// A byte.
    pub fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }
    /// A number of four bytes.
    pub fn small(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }
    /// A number of eight bytes.
    pub fn wide(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
    /// A text.
    pub fn text(&mut self) -> Option<&'a str> {
        let len = self.small()?;
        std::str::from_utf8(self.take(len as usize)?).ok()
    }
}

/// The columns of a job: what a store knows of it without reading its texts.
#[derive(Debug, Clone, PartialEq)]
pub struct Columns<S> {
    /// Its place in the order of arrival.
    pub place: u64,
    /// How many changes it has had; one that is missing is noticed.
    pub step: u32,
    /// Its version.
    pub version: u64,
    /// Where it stands.
    pub state: JobState,
    /// Its type.
    pub kind: Option<S>,
    /// Its owner.
    pub owner: Option<S>,
    /// Given back.
    pub released: bool,
    /// Not to be claimed.
    pub hold: bool,
    /// How many events it has in the log.
    pub events: u32,
}

/// The texts of a change.
#[derive(Debug, Clone, Copy, Default)]
pub struct Texts<'a> {
    /// As in `Put`.
    pub head: Option<&'a str>,
    /// As in `Put`.
    pub spec: Option<&'a str>,
    /// As in `Put`.
    pub options: Option<&'a str>,
    /// As in `Put`.
    pub extras: Option<&'a str>,
}

/// A change of a job, as it is kept.
#[derive(Debug, Clone)]
pub struct Change<'a> {
    /// Whose.
    pub id: &'a str,
    /// How the job stands after it.
    pub columns: Columns<&'a str>,
    /// It holds all of the job; what was before does not matter.
    pub whole: bool,
    /// The job is gone.
    pub deleted: bool,
    /// Earlier rows go.
    pub reset_chunks: bool,
    /// Earlier requests go.
    pub clear_requests: bool,
    /// Requests that come, by number.
    pub requests: Vec<(u64, &'a str)>,
    /// Texts that change.
    pub texts: Texts<'a>,
    rows: &'a [u8],
}

const RELEASED: u32 = 1;
const HOLD: u32 = 1 << 1;
const WHOLE: u32 = 1 << 2;
const DELETED: u32 = 1 << 3;
const RESET_CHUNKS: u32 = 1 << 4;
const CLEAR_REQUESTS: u32 = 1 << 5;
const KIND: u32 = 1 << 6;
const OWNER: u32 = 1 << 7;
const HEAD: u32 = 1 << 8;
const SPEC: u32 = 1 << 9;
const OPTIONS: u32 = 1 << 10;
const EXTRAS: u32 = 1 << 11;

impl<'a> Change<'a> {
    /// A change of nothing yet.
    pub fn new(id: &'a str, columns: Columns<&'a str>) -> Self {
        let texts = Texts::default();
        Change { id, columns, whole: false, deleted: false, reset_chunks: false, clear_requests: false, requests: Vec::new(), texts, rows: &[] }
    }

    /// Writes the payload, with these rows.
    pub fn write<'r>(&self, out: &mut Vec<u8>, rows: impl ExactSizeIterator<Item = (u32, &'r str)>) {
        let columns = &self.columns;
        let texts = [(HEAD, self.texts.head), (SPEC, self.texts.spec), (OPTIONS, self.texts.options), (EXTRAS, self.texts.extras)];
        let mut flags = 0;
        let marks = [
            (RELEASED, columns.released),
            (HOLD, columns.hold),
            (WHOLE, self.whole),
            (DELETED, self.deleted),
            (RESET_CHUNKS, self.reset_chunks),
            (CLEAR_REQUESTS, self.clear_requests),
            (KIND, columns.kind.is_some()),
            (OWNER, columns.owner.is_some()),
        ];
        for (flag, set) in marks.into_iter().chain(texts.map(|(flag, text)| (flag, text.is_some()))) {
            flags |= if set { flag } else { 0 };
        }
        let mut pen = Pen(out);
        pen.text(self.id);
        pen.wide(columns.place);
        pen.small(columns.step);
        pen.wide(columns.version);
        pen.byte(columns.state as u8);
        pen.small(columns.events);
        pen.small(flags);
        for text in [columns.kind, columns.owner].into_iter().flatten() {
            pen.text(text);
        }
        pen.small(self.requests.len() as u32);
        for (number, body) in &self.requests {
            pen.wide(*number);
            pen.text(body);
        }
        for text in texts.into_iter().filter_map(|(_, text)| text) {
            pen.text(text);
        }
        pen.small(rows.len() as u32);
        for (index, body) in rows {
            pen.small(index);
            pen.text(body);
        }
    }

    /// Reads a payload.
    pub fn read(payload: &'a [u8]) -> Option<Change<'a>> {
        let mut eye = Eye(payload);
        let id = eye.text()?;
        let (place, step, version) = (eye.wide()?, eye.small()?, eye.wide()?);
        let state = *JobState::ALL.get(usize::from(eye.byte()?))?;
        let (events, flags) = (eye.small()?, eye.small()?);
        let has = |flag: u32| flags & flag != 0;
        let text = |eye: &mut Eye<'a>, flag: u32| if has(flag) { eye.text().map(Some) } else { Some(None) };
        let (kind, owner) = (text(&mut eye, KIND)?, text(&mut eye, OWNER)?);
        let columns = Columns { place, step, version, state, kind, owner, released: has(RELEASED), hold: has(HOLD), events };
        let count = eye.small()?;
        let requests = (0..count).map(|_| Some((eye.wide()?, eye.text()?))).collect::<Option<Vec<_>>>()?;
        let texts = Texts { head: text(&mut eye, HEAD)?, spec: text(&mut eye, SPEC)?, options: text(&mut eye, OPTIONS)?, extras: text(&mut eye, EXTRAS)? };
        Some(Change {
            id,
            columns,
            whole: has(WHOLE),
            deleted: has(DELETED),
            reset_chunks: has(RESET_CHUNKS),
            clear_requests: has(CLEAR_REQUESTS),
            requests,
            texts,
            rows: eye.0,
        })
    }

    /// The rows that it changes.
    pub fn rows(&self) -> Option<Vec<(u32, &'a str)>> {
        let mut eye = Eye(self.rows);
        let count = eye.small()?;
        (0..count).map(|_| Some((eye.small()?, eye.text()?))).collect()
    }
}

/// A job as its changes make it.
#[derive(Debug, Default, Clone)]
pub struct Fold {
    /// Its columns after the last change.
    pub columns: Option<Columns<String>>,
    /// As written last.
    pub head: String,
    /// As written last.
    pub spec: String,
    /// As written last.
    pub options: String,
    /// As written last.
    pub extras: String,
    /// Rows by position.
    pub chunks: BTreeMap<u32, String>,
    /// Open requests.
    pub requests: Vec<(u64, String)>,
}

impl Fold {
    /// Applies a change; `None` when it is not a change of this job, or one is missing before it.
    pub fn apply(&mut self, change: &Change) -> Option<()> {
        if change.whole {
            *self = Fold::default();
        } else {
            match &self.columns {
                Some(columns) if columns.place != change.columns.place || columns.step + 1 != change.columns.step => return None,
                None if change.columns.step != 0 => return None,
                _ => {}
            }
        }
        let texts = [
            (&mut self.head, change.texts.head),
            (&mut self.spec, change.texts.spec),
            (&mut self.options, change.texts.options),
            (&mut self.extras, change.texts.extras),
        ];
        for (kept, new) in texts {
            if let Some(new) = new {
                new.clone_into(kept);
            }
        }
        if change.reset_chunks {
            self.chunks.clear();
        }
        for (index, body) in change.rows()? {
            self.chunks.insert(index, body.to_owned());
        }
        if change.clear_requests {
            self.requests.clear();
        }
        self.requests.extend(change.requests.iter().map(|(number, body)| (*number, (*body).to_owned())));
        let Columns { place, step, version, state, kind, owner, released, hold, events } = change.columns.clone();
        self.columns = Some(Columns { place, step, version, state, kind: kind.map(str::to_owned), owner: owner.map(str::to_owned), released, hold, events });
        Some(())
    }

    /// Writes all of it as one change.
    pub fn write(&self, id: &str, out: &mut Vec<u8>) -> Option<()> {
        let Columns { place, step, version, state, kind, owner, released, hold, events } = self.columns.clone()?;
        let columns = Columns { place, step, version, state, kind: kind.as_deref(), owner: owner.as_deref(), released, hold, events };
        let mut change = Change::new(id, columns);
        change.whole = true;
        change.requests = self.requests.iter().map(|(number, body)| (*number, body.as_str())).collect();
        change.texts = Texts { head: Some(&self.head), spec: Some(&self.spec), options: Some(&self.options), extras: Some(&self.extras) };
        change.write(out, self.chunks.iter().map(|(index, body)| (*index, body.as_str())));
        Some(())
    }
}

/// Events of one write. A place of 0: of a job that was deleted by it; such are kept for ever.
#[derive(Debug)]
pub struct Told<'a> {
    /// Number of the first.
    pub first: u64,
    /// Place of the job.
    pub place: u64,
    /// The job.
    pub id: &'a str,
    /// What happened.
    pub bodies: Vec<&'a str>,
}

impl<'a> Told<'a> {
    /// Writes the payload.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut pen = Pen(out);
        pen.wide(self.first);
        pen.wide(self.place);
        pen.small(self.bodies.len() as u32);
        pen.text(self.id);
        for body in &self.bodies {
            pen.text(body);
        }
    }

    /// Reads a payload.
    pub fn read(payload: &'a [u8]) -> Option<Told<'a>> {
        let mut eye = Eye(payload);
        let (first, place, count, id) = (eye.wide()?, eye.wide()?, eye.small()?, eye.text()?);
        let bodies = (0..count).map(|_| eye.text()).collect::<Option<Vec<_>>>()?;
        Some(Told { first, place, id, bodies })
    }
}

/// Whose output a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogKey {
    /// Place of the job.
    pub place: u64,
    /// Position of the chunk.
    pub index: u32,
    /// The attempt.
    pub attempt: u32,
    /// The stream's number.
    pub stream: u8,
}

impl LogKey {
    /// Bytes before the text: the key and a checksum of its own, so that outputs can be passed over without being read.
    pub const LEN: usize = 21;

    /// Stands for an output that can't be read any more.
    pub fn lost(place: u64) -> LogKey {
        LogKey { place, index: u32::MAX, attempt: 0, stream: u8::MAX }
    }

    /// Writes the key; the text follows to the end of the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut pen = Pen(out);
        pen.wide(self.place);
        pen.small(self.index);
        pen.small(self.attempt);
        pen.byte(self.stream);
        let crc = crc32c::crc32c(&out[start..]);
        Pen(out).small(crc);
    }

    /// Reads a key.
    pub fn read(payload: &[u8]) -> Option<LogKey> {
        let (key, crc) = payload.get(..LogKey::LEN)?.split_at(LogKey::LEN - 4);
        if crc32c::crc32c(key).to_le_bytes() != crc {
            return None;
        }
        let mut eye = Eye(key);
        Some(LogKey { place: eye.wide()?, index: eye.small()?, attempt: eye.small()?, stream: eye.byte()? })
    }
}
