//! The directory of a store: what lies where, how names are made of ids, and who has it.
//!
//! ```text
//! FORMAT        version of the format
//! LOCK          locked by the process that has the store, with its number inside
//! wal/          the group log
//! jobs/         <name>.journal, <name>.logs; <name>.damaged tells why a job can't be read
//! events/       what happened, by number
//! quarantine/   what was found damaged, as it was found
//! imported/     status files that were taken over, as they were
//! ```

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::job::{Error, ErrorCode, Issue};

/// The version of the format that is written.
pub const VERSION: u32 = 1;

/// Where things lie.
#[derive(Debug, Clone)]
pub struct Folder {
    /// The directory itself.
    pub root: PathBuf,
    /// The group log.
    pub wal: PathBuf,
    /// Journals.
    pub jobs: PathBuf,
    /// Events.
    pub events: PathBuf,
    /// What is damaged.
    pub quarantine: PathBuf,
    /// Status files that were taken over.
    pub imported: PathBuf,
}

impl Folder {
    /// The parts of a directory.
    pub fn new(root: PathBuf) -> Folder {
        Folder {
            wal: root.join("wal"),
            jobs: root.join("jobs"),
            events: root.join("events"),
            quarantine: root.join("quarantine"),
            imported: root.join("imported"),
            root,
        }
    }

    /// The journal of a job.
    pub fn journal(&self, id: &str) -> PathBuf {
        self.jobs.join(format!("{}.journal", name_of(id)))
    }

    /// The outputs of a job.
    pub fn logs(&self, id: &str) -> PathBuf {
        self.jobs.join(format!("{}.logs", name_of(id)))
    }

    /// The note that a job is damaged.
    pub fn note(&self, id: &str) -> PathBuf {
        self.jobs.join(format!("{}.damaged", name_of(id)))
    }

    /// Moves a file to the quarantine, beside what is there of that name.
    pub fn put_away(&self, path: &Path) -> io::Result<()> {
        fs::rename(path, free(&self.quarantine, path))?;
        sync_folder(&self.quarantine)
    }

    /// Copies a file to the quarantine.
    pub fn put_copy(&self, path: &Path) -> io::Result<()> {
        let to = free(&self.quarantine, path);
        fs::copy(path, &to)?;
        File::open(&to)?.sync_all()?;
        sync_folder(&self.quarantine)
    }
}

/// A name in `folder` that nothing has, after that of `path`.
pub fn free(folder: &Path, path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = (0..).map(|n| if n == 0 { name.clone() } else { format!("{name}.{n}") });
    names.map(|name| folder.join(name)).find(|path| !path.exists()).unwrap_or_default()
}

/// Puts what a directory lists on the disk.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a small file that is there whole or not at all.
pub fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Longest name of a file without its extension; file systems take 255 bytes.
const LONGEST: usize = 230;

/// The file name of an id. Ids that differ only in case have different names on every file system: capitals are written
/// small, and a mask of where they were follows. What may not be in a name everywhere is written as `%` and two digits.
pub fn name_of(id: &str) -> String {
    let mut name = String::with_capacity(id.len());
    let mut mask = Vec::new();
    for (n, byte) in id.bytes().enumerate() {
        match byte {
            b'A'..=b'Z' => {
                mask.resize(mask.len().max(n / 4 + 1), 0u8);
                mask[n / 4] |= 1 << (n % 4);
                name.push(char::from(byte.to_ascii_lowercase()));
            }
            b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if n > 0 => name.push('.'),
            _ => _ = write!(name, "%{byte:02x}"),
        }
    }
    if !mask.is_empty() {
        name.push('~');
        name.extend(mask.into_iter().map(|four| char::from_digit(u32::from(four), 16).unwrap_or('0')));
    }
    name
}

/// The id of a file name.
pub fn id_of(name: &str) -> Option<String> {
    let (text, mask) = name.split_once('~').unwrap_or((name, ""));
    let mut id = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        };
        let four = mask.as_bytes().get(id.len() / 4).map_or(Some(0), |digit| char::from(*digit).to_digit(16))?;
        id.push(if four >> (id.len() % 4) & 1 == 1 { byte.to_ascii_uppercase() } else { byte });
    }
    String::from_utf8(id).ok()
}

/// Whether an id can be the name of a file.
pub fn check_id(id: &str) -> Result<(), Error> {
    if !id.is_empty() && name_of(id).len() <= LONGEST {
        return Ok(());
    }
    Err(Error::invalid("job id", vec![Issue::new("id", "can't be the name of a file: empty or too long")]))
}

/// An error of the system, told with what was being done and what helps.
pub fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    use io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem};
    let path = path.display();
    let full = matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG));
    if full {
        return Error::new(ErrorCode::StoreFull, format!("{what} {path} failed, there is no room left ({error}): make room, then it goes on"));
    }
    let hint = match error.kind() {
        PermissionDenied => ": give this process permission to read and write there",
        ReadOnlyFilesystem => ": mount it writable",
        NotFound => ": the directory was removed or moved; put it back and open it again",
        _ => "",
    };
    Error::new(ErrorCode::StoreUnavailable, format!("{what} {path} failed ({error}){hint}"))
}

/// Takes the lock that only one process can have. The system lets go of it when the process dies.
pub fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("LOCK");
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = opened.map_err(|error| failed("Opening", &path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim();
            let who = if holder.is_empty() { "another process".to_owned() } else { format!("process {holder}") };
            let place = root.display();
            let message = format!("{who} has the file store {place} open, and only one process can: end it, or use SQLite or a database server");
            return Err(Error::new(ErrorCode::StoreUnavailable, message));
        }
        Err(TryLockError::Error(error)) => return Err(failed("Locking", &path, &error)),
    }
    let pid = format!("{}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.write_all_at(pid.as_bytes(), 0));
    written.map_err(|error| failed("Writing", &path, &error))?;
    Ok(file)
}

/// Makes the parts of the store that are missing, and refuses what is not a store of this version.
pub fn prepare(folder: &Folder) -> Result<(), Error> {
    let path = folder.root.join("FORMAT");
    let known = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Some(String::new()),
        Err(error) => return Err(failed("Reading", &path, &error)),
    };
    if let Some(text) = &known {
        let Ok(version) = text.trim().parse::<u32>() else {
            let message = format!("{} is not the version of a file store: the directory belongs to something else, or is damaged", path.display());
            return Err(Error::new(ErrorCode::StoreCorrupt, message));
        };
        if version > VERSION {
            let message = format!("The file store {} has format {version}, this framewright writes {VERSION}: use a newer framewright", folder.root.display());
            return Err(Error::new(ErrorCode::StoreUnavailable, message));
        }
        // Version 1 is the first; what comes before it is a directory of status files.
        if !folder.wal.is_dir() || !folder.jobs.is_dir() {
            let message = format!("A part of the file store {} is missing (wal or jobs): restore it from a copy", folder.root.display());
            return Err(Error::new(ErrorCode::StoreCorrupt, message));
        }
    } else {
        refuse_foreign(&folder.root)?;
    }
    for part in [&folder.wal, &folder.jobs, &folder.events, &folder.quarantine, &folder.imported] {
        fs::create_dir_all(part).map_err(|error| failed("Making", part, &error))?;
    }
    sync_folder(&folder.root).map_err(|error| failed("Writing", &folder.root, &error))?;
    if known.is_none() {
        write_whole(&path, &format!("{VERSION}\n")).map_err(|error| failed("Writing", &path, &error))?;
    }
    Ok(())
}

/// Status files may be taken over; anything else is somebody else's.
fn refuse_foreign(root: &Path) -> Result<(), Error> {
    const OURS: [&str; 7] = ["LOCK", "FORMAT.tmp", "wal", "jobs", "events", "quarantine", "imported"];
    let files = fs::read_dir(root).map_err(|error| failed("Reading", root, &error))?;
    for file in files {
        let file = file.map_err(|error| failed("Reading", root, &error))?;
        let name = file.file_name();
        let name = name.to_string_lossy();
        if OURS.contains(&name.as_ref()) || (name.ends_with(".json") && file.path().is_file()) {
            continue;
        }
        let message = format!("The directory {} is not a file store (it holds \"{name}\"): name an empty directory", root.display());
        return Err(Error::new(ErrorCode::StoreCorrupt, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_that_differ_in_case_have_names_that_differ_without() {
        assert_eq!(name_of("job-1.a_b"), "job-1.a_b");
        let names = ["Job", "jOb", "JOB", "job"].map(name_of);
        let mut small: Vec<_> = names.iter().map(|name| name.to_lowercase()).collect();
        small.sort();
        small.dedup();
        assert_eq!(small.len(), 4);
        assert!(check_id(&"X".repeat(128)).is_ok());
        assert_eq!(name_of("../x"), "%2e.%2fx");
    }

    proptest! {
        #[test]
        fn a_name_gives_its_id_back(id in ".{1,40}") {
            prop_assert_eq!(id_of(&name_of(&id)), Some(id.clone()));
            prop_assert!(!name_of(&id).contains('/'));
        }
    }
}
