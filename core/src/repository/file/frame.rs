//! Frames: the unit of every file of the store. A frame is found whole, or found to be damaged, or found to be cut off.
//!
//! The header has a checksum of its own, so that a damaged length is not taken for a file that ends too early.

use crc32c::{crc32c, crc32c_append};

/// Bytes before the payload: magic 4, kind 1, zero 3, length 4, number 8, checksum of the payload 4, of the header 4.
pub const HEADER: usize = 28;
const MAGIC: [u8; 4] = *b"fwf1";

/// What is in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Start of a segment of the group log.
    Segment = 1,
    /// Start of a group: which frames it has.
    Group = 2,
    /// A change of a job.
    Job = 3,
    /// Events of one write.
    Events = 4,
    /// One whole output.
    Log = 5,
    /// End of a group.
    Commit = 6,
    /// End of a file of events: its index.
    Footer = 7,
}

impl Kind {
    fn of(byte: u8) -> Option<Kind> {
        [Kind::Segment, Kind::Group, Kind::Job, Kind::Events, Kind::Log, Kind::Commit, Kind::Footer].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The header of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// What is in it.
    pub kind: Kind,
    /// Bytes of its payload.
    pub len: u32,
    /// Its number; rises over all frames of the store, and a copy keeps it.
    pub number: u64,
    crc: u32,
}

impl Header {
    /// Reads a header. The salt is that of its file: what a user's text happens to hold is no frame of it.
    pub fn read(bytes: &[u8], salt: u32) -> Option<Header> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        if bytes[..4] != MAGIC || crc32c_append(salt, &bytes[..24]).to_le_bytes() != bytes[24..] {
            return None;
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        Some(Header { kind: Kind::of(bytes[4])?, len: u32_at(8), number: u64::from_le_bytes(bytes[12..20].try_into().unwrap()), crc: u32_at(20) })
    }

    fn write(&self, out: &mut [u8], salt: u32) {
        out[..4].copy_from_slice(&MAGIC);
        out[4..8].copy_from_slice(&[self.kind as u8, 0, 0, 0]);
        out[8..12].copy_from_slice(&self.len.to_le_bytes());
        out[12..20].copy_from_slice(&self.number.to_le_bytes());
        out[20..24].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32c_append(salt, &out[..24]);
        out[24..HEADER].copy_from_slice(&crc.to_le_bytes());
    }

    /// Whether a payload is the one that was written.
    pub fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.len as usize && crc32c(payload) == self.crc
    }

    /// Bytes of the whole frame.
    pub fn whole(&self) -> usize {
        HEADER + self.len as usize
    }
}

/// Leaves room for a header; the payload is to be written behind it.
pub fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.resize(start + HEADER, 0);
    start
}

/// Fills in the header of what was begun.
pub fn end(out: &mut [u8], start: usize, salt: u32, kind: Kind, number: u64) {
    let (header, payload) = out[start..].split_at_mut(HEADER);
    Header { kind, len: payload.len() as u32, number, crc: crc32c(payload) }.write(header, salt);
}

/// Writes a whole frame.
pub fn push(out: &mut Vec<u8>, salt: u32, kind: Kind, number: u64, payload: &[u8]) {
    let start = begin(out);
    out.extend_from_slice(payload);
    end(out, start, salt, kind, number);
}

/// What is found at a place.
#[derive(Debug)]
pub enum Slot<'a> {
    /// Nothing: the end.
    End,
    /// A frame as it was written.
    Good(Header, &'a [u8]),
    /// A frame whose payload is not what was written.
    Damaged(Header),
    /// No header.
    Bad,
    /// The file ends before the frame does, or only zeros follow: it was never written to its end.
    Torn,
}

/// Looks at a place.
pub fn at(bytes: &[u8], place: usize, salt: u32) -> Slot<'_> {
    let rest = bytes.get(place..).unwrap_or_default();
    if rest.is_empty() {
        return Slot::End;
    }
    if rest.len() < HEADER {
        return Slot::Torn;
    }
    match Header::read(rest, salt) {
        None if rest.iter().all(|byte| *byte == 0) => Slot::Torn,
        None => Slot::Bad,
        Some(header) => match rest.get(HEADER..header.whole()) {
            None => Slot::Torn,
            Some(payload) if header.matches(payload) => Slot::Good(header, payload),
            Some(_) => Slot::Damaged(header),
        },
    }
}

/// The next place, from `from` on, where there is a header.
pub fn find(bytes: &[u8], from: usize, salt: u32) -> Option<(usize, Header)> {
    let mut place = from;
    while place + HEADER <= bytes.len() {
        let rest = &bytes[place..];
        if rest[..4] == MAGIC
            && let Some(header) = Header::read(rest, salt)
        {
            return Some((place, header));
        }
        place += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_or_a_cut_is_always_seen() {
        let mut bytes = Vec::new();
        push(&mut bytes, 7, Kind::Job, 3, b"what was written");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(at(&flipped, 0, 7), Slot::Damaged(_) | Slot::Bad), "bit {bit}");
        }
        for len in 1..bytes.len() {
            assert!(matches!(at(&bytes[..len], 0, 7), Slot::Torn), "cut to {len}");
        }
        assert!(matches!(at(&bytes, 0, 7), Slot::Good(_, b"what was written")));
        assert!(matches!(at(&bytes, 0, 8), Slot::Bad));
    }
}
