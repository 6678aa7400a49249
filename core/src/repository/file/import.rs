//! Taking over `<id>.json` status files, as other file repositories write them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::Import;
use super::checkpoint::damage;
use super::folder::{check_id, failed, free, sync_folder};
use super::store::Store;
use super::write::judge;
use crate::job::Error;
use crate::repository::durable::{Action, Expect, Put, Write};

/// Bytes of status files that are taken over in one group.
const GROUP: u64 = 8 * 1024 * 1024;

struct Status {
    path: PathBuf,
    id: Arc<str>,
    created: f64,
    bytes: u64,
}

/// Takes over what lies in the directory: the oldest first. A file is moved to `imported` once its job is kept; one that
/// can't be read is moved to the quarantine, and its job is damaged.
pub fn import_all(store: &Store, import: Import) -> Result<(), Error> {
    let root = &store.folder.root;
    let reading = |error: std::io::Error| failed("Reading", root, &error);
    let mut statuses = Vec::new();
    for file in fs::read_dir(root).map_err(reading)? {
        let path = file.map_err(reading)?.path();
        let id = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")).filter(|_| path.is_file());
        let Some(id) = id.filter(|id| check_id(id).is_ok()) else { continue };
        let bytes = fs::read(&path).map_err(|error| failed("Reading", &path, &error))?;
        let created = serde_json::from_slice::<Value>(&bytes).ok().and_then(|status| status["createdAt"].as_f64());
        statuses.push(Status { id: id.into(), created: created.unwrap_or(f64::MAX), bytes: bytes.len() as u64, path });
    }
    statuses.sort_by(|a, b| a.created.total_cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
    let mut rest = &statuses[..];
    while !rest.is_empty() {
        let mut bytes = 0;
        let within = |status: &&Status| {
            let fits = bytes < GROUP;
            bytes += status.bytes;
            fits
        };
        let count = rest.iter().take_while(within).count();
        let (group, left) = rest.split_at(count);
        import_group(store, import, group)?;
        rest = left;
    }
    if !statuses.is_empty() {
        for folder in [&store.folder.imported, root] {
            sync_folder(folder).map_err(|error| failed("Writing", folder, &error))?;
        }
    }
    Ok(())
}

fn read(path: &Path, import: Import) -> Result<Result<Put, String>, Error> {
    let bytes = fs::read(path).map_err(|error| failed("Reading", path, &error))?;
    let Ok(text) = String::from_utf8(bytes) else { return Ok(Err("its status file is not UTF-8".to_owned())) };
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&text) {
        return Ok(Err(format!("its status file is not JSON ({error})")));
    }
    Ok(import(&text).map_err(|error| error.message))
}

fn import_group(store: &Store, import: Import, group: &[Status]) -> Result<(), Error> {
    let (mut writes, mut kept, mut strange) = (Vec::new(), Vec::new(), Vec::new());
    for status in group {
        match read(&status.path, import)? {
            Ok(put) => {
                writes.push(Write { id: status.id.clone(), expect: Expect::Absent, action: Action::Put(Box::new(put)) });
                kept.push(&status.path);
            }
            Err(message) => strange.push((status, message)),
        }
    }
    // One that is there already was taken over by a process that did not get to moving its file.
    store.write_now(|batch| writes.iter().try_for_each(|write| judge(batch, write).map(drop)))?;
    for path in kept {
        fs::rename(path, free(&store.folder.imported, path)).map_err(|error| failed("Moving", path, &error))?;
    }
    for (status, message) in strange {
        store.add_damaged(&status.id, &message)?;
        store.folder.put_away(&status.path).map_err(|error| failed("Moving", &status.path, &error))?;
    }
    Ok(())
}

impl Store {
    /// Adds a job that can't be read, unless there is one of that id.
    fn add_damaged(&self, id: &Arc<str>, message: &str) -> Result<(), Error> {
        let place = {
            let mut state = self.state.lock();
            if state.index.get(id).is_some() {
                return Ok(());
            }
            let place = state.index.counters.place + 1;
            state.index.insert(super::open::damaged_entry(id.clone(), place, message));
            place
        };
        damage(self, id, place, message)
    }
}
