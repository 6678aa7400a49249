//! Finished chunks are taken over only while their outputs are what they were: at the start of a run, and before a merge.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use super::Manager;
use crate::job::rows::Stamp;
use crate::job::{ChunkState, ErrorInfo, Job, JobEvent};
use crate::repository::memory::now_ms;

/// Bytes read at once for a hash.
const PIECE: usize = 256 * 1024;

/// The output of a chunk, and how it is recognised.
pub(super) struct OutputFile {
    /// Where it is.
    pub path: PathBuf,
    /// By its content too.
    pub hash: bool,
}

impl OutputFile {
    /// The output of a chunk that has one.
    pub fn of(job: &Job, index: u32) -> Option<OutputFile> {
        let file = job.spec.chunk(index).output_file?;
        let path = match &job.options.job_dir {
            Some(folder) => Path::new(&**folder).join(file),
            None => file.into(),
        };
        Some(OutputFile { path, hash: job.options.hash_outputs })
    }

    /// What it is like now; `None`: it can't be read, or is no file. Blocks.
    pub fn stamp(&self) -> Option<Stamp> {
        let meta = std::fs::metadata(&self.path).ok().filter(std::fs::Metadata::is_file)?;
        let modified = meta.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        let sha256 = if self.hash { Some(sha256_of(&self.path)?) } else { None };
        Some(Stamp { bytes: meta.len(), modified: i64::try_from(modified.as_nanos()).ok()?, sha256 })
    }

    /// Whether it is as it was: by its content where that is known (it may have been copied or touched since), else by size
    /// and time. Blocks.
    fn is(&self, known: &Stamp) -> bool {
        let Some(now) = (OutputFile { path: self.path.clone(), hash: false }).stamp() else { return false };
        match &known.sha256 {
            None => now == *known,
            Some(sha256) => now.bytes == known.bytes && sha256_of(&self.path).as_ref() == Some(sha256),
        }
    }
}

fn sha256_of(path: &Path) -> Option<Box<str>> {
    let mut file = File::open(path).ok()?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

impl Manager {
    /// Whether the job of a run has finished chunks of which is known what their outputs were like.
    pub fn has_outputs(&self, ticket: u32) -> bool {
        let Some(entry) = self.entry(ticket) else { return false };
        let mut slot = entry.cell.lock();
        slot.job().is_ok_and(|job| job.rows.stamped().next().is_some())
    }

    /// Looks at the outputs of a run's finished chunks. Those that are gone or changed are to be done again; gives how many.
    /// Size and time of the last change tell, or a hash of the content.
    pub async fn check_outputs(self: Arc<Self>, ticket: u32, number: u32) -> u32 {
        let Some(entry) = self.entry(ticket) else { return 0 };
        let known: Vec<(u32, OutputFile, Stamp)> = {
            let mut slot = entry.cell.lock();
            let Ok(job) = slot.job() else { return 0 };
            let done = job.rows.stamped().filter(|(index, _)| job.rows.get(*index).state == ChunkState::Completed);
            done.filter_map(|(index, stamp)| Some((index, OutputFile::of(job, index)?, stamp.clone()))).collect()
        };
        if known.is_empty() {
            return 0;
        }
        let look = move || known.into_iter().filter(|(_, file, stamp)| !file.is(stamp)).collect::<Vec<_>>();
        let changed = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let mut guard = entry.run.lock();
        let Some(run) = guard.as_mut().filter(|run| run.number == number && run.stop.is_none() && !run.merged) else { return 0 };
        let now = now_ms();
        let mut slot = entry.cell.lock();
        let mut count = 0;
        for (index, file, stamp) in changed {
            let Ok(job) = slot.job() else { return count };
            // Done anew meanwhile.
            if job.rows.stamp(index) != Some(&stamp) || job.rows.get(index).state != ChunkState::Completed {
                continue;
            }
            let id = job.spec.chunk_id(index);
            if self.repository.change(&entry.cell, &mut slot, JobEvent::ChunkReopened { index }, now).is_err() {
                continue;
            }
            run.schedule.again(index);
            count += 1;
            let message = format!("Chunk {id} is rendered again: its output {} is gone or was changed", file.path.display());
            let mut error = ErrorInfo::new(crate::job::ErrorCode::OutputMissing, message.clone());
            error.chunk_id = Some(id);
            let event = JobEvent::Warning { message: message.into(), error: Some(Box::new(error)) };
            let _ = self.repository.change(&entry.cell, &mut slot, event, now);
        }
        count
    }
}
