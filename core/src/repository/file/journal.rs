//! The files of one job: its journal (what it started with, then its changes) and its outputs. Only the checkpoint writes
//! them; what it was about to write is in the group log until they are on the disk.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::frame::{self, HEADER, Header, Kind, Slot};
use super::index::Kept;
use super::record::{Change, Columns, Fold, LogKey};

/// Salt of journals.
pub const SALT: u32 = 0x6a6f_6273;
/// Salt of the files of outputs.
pub const LOGS: u32 = 0x6c6f_6773;

/// Columns that keep their texts.
pub fn keep(columns: &Columns<&str>) -> Columns<Arc<str>> {
    let Columns { place, step, version, state, kind, owner, released, hold, events } = columns.clone();
    Columns { place, step, version, state, kind: kind.map(Arc::from), owner: owner.map(Arc::from), released, hold, events }
}

/// What a journal tells about its job.
#[derive(Debug)]
pub struct Scan {
    /// The job's id.
    pub id: Arc<str>,
    /// Its columns.
    pub columns: Columns<Arc<str>>,
    /// Its open requests.
    pub requests: Vec<(u64, Box<str>)>,
    /// The part that counts.
    pub kept: Kept,
    /// Number of the last frame.
    pub number: u64,
    /// Why the rest can't be read; a tail that was cut off is no trouble.
    pub trouble: Option<String>,
}

/// Reads a journal without its texts; `Err`: not even the start of it can be read.
pub fn scan(bytes: &[u8]) -> Result<Scan, String> {
    let mut found: Option<Scan> = None;
    let mut place = 0;
    let trouble = loop {
        let (header, payload) = match frame::at(bytes, place, SALT) {
            Slot::Good(header, payload) => (header, payload),
            Slot::End => break None,
            Slot::Torn if found.is_some() => break None,
            Slot::Torn => break Some("its journal ends before its first record does".to_owned()),
            Slot::Damaged(_) | Slot::Bad => break Some(format!("its journal is damaged at byte {place}")),
        };
        let Some(change) = Change::read(payload) else { break Some(format!("its journal holds something strange at byte {place}")) };
        place += header.whole();
        match &mut found {
            None if change.whole || change.columns.step == 0 => {
                let kept = Kept { len: place as u64, base: place as u64 };
                let (id, columns) = (Arc::from(change.id), keep(&change.columns));
                found = Some(Scan { id, columns, requests: Vec::new(), kept, number: header.number, trouble: None });
            }
            Some(scan) if *scan.id == *change.id && scan.columns.place == change.columns.place && scan.columns.step + 1 == change.columns.step => {
                scan.columns = keep(&change.columns);
                scan.kept.len = place as u64;
                scan.number = header.number;
                if change.clear_requests {
                    scan.requests.clear();
                }
            }
            _ => break Some(format!("a record is missing in its journal before byte {}", place - header.whole())),
        }
        if let Some(scan) = &mut found {
            scan.requests.extend(change.requests.iter().map(|(number, body)| (*number, Box::from(*body))));
        }
    };
    match found {
        Some(mut scan) => {
            scan.trouble = trouble;
            Ok(scan)
        }
        None => Err(trouble.unwrap_or_else(|| "its journal is empty".to_owned())),
    }
}

/// Applies a journal, and gives the number of its last frame; `None`: it is damaged.
pub fn fold(bytes: &[u8], id: &str, fold: &mut Fold) -> Option<u64> {
    let (mut place, mut number) = (0, 0);
    loop {
        match frame::at(bytes, place, SALT) {
            Slot::End => return Some(number),
            Slot::Good(header, payload) => {
                let change = Change::read(payload).filter(|change| change.id == id)?;
                fold.apply(&change)?;
                place += header.whole();
                number = header.number;
            }
            _ => return None,
        }
    }
}

/// Reads the first bytes of a file; fewer when it is shorter.
pub fn read_start(mut file: &File, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len as usize);
    file.by_ref().take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An output in a file: its frame, if that can be read, whose it is, where the frame starts.
pub type Output = (Option<Header>, LogKey, u64);

/// The outputs in a file; and where what was written whole ends. A part that can't be read counts as an output that is lost.
pub fn outputs(file: &File) -> io::Result<(Vec<Output>, u64)> {
    let len = file.metadata()?.len();
    let (mut found, mut place) = (Vec::new(), 0);
    let mut bytes = [0; HEADER + LogKey::LEN];
    while place + bytes.len() as u64 <= len {
        file.read_exact_at(&mut bytes, place)?;
        let header = Header::read(&bytes, LOGS);
        if let Some(header) = header {
            if header.kind != Kind::Log || place + header.whole() as u64 > len {
                break;
            }
            let key = LogKey::read(&bytes[HEADER..]).unwrap_or(LogKey::lost(0));
            found.push((Some(header), key, place));
            place += header.whole() as u64;
        } else {
            let mut rest = vec![0; (len - place) as usize];
            file.read_exact_at(&mut rest, place)?;
            let Some((next, _)) = frame::find(&rest, 1, LOGS) else {
                if rest.iter().any(|byte| *byte != 0) {
                    found.push((None, LogKey::lost(0), place));
                }
                break;
            };
            found.push((None, LogKey::lost(0), place));
            place += next as u64;
        }
    }
    Ok((found, place))
}

/// Number of the latest whole output in a file, and where to go on. What was written last may not be what it should be.
pub fn last_output(path: &Path) -> io::Result<(u64, u64)> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(error),
    };
    let (found, mut end) = outputs(&file)?;
    for (header, _, place) in found.into_iter().rev() {
        let Some(header) = header else {
            end = place;
            continue;
        };
        let mut payload = vec![0; header.len as usize];
        file.read_exact_at(&mut payload, place + HEADER as u64)?;
        if header.matches(&payload) {
            return Ok((header.number, end));
        }
        end = place;
    }
    Ok((0, 0))
}
