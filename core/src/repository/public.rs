//! What users do with a durable repository by hand: save, get, list and delete of public statuses, with the rules of
//! `JobRepository` in the public documentation.

use std::sync::Arc;

use super::durable::{Action, DurableRepository, Expect, Holder, Outcome, Ownership, Put, Stored, Write};
use super::event_log::Logged;
use super::memory::now_ms;
use crate::job::parts;
use crate::job::record::{Incoming, read_status};
use crate::job::status::{Live, write_status};
use crate::job::{Error, ErrorCode, Job, JobEvent, JobState};
use crate::manager::{Place, parse_place};

/// A stored job as a job.
///
/// # Errors
///
/// STORE_CORRUPT.
pub fn read(stored: &Stored) -> Result<Job, Error> {
    parts::read(&parts::Parts {
        id: &stored.id,
        version: stored.version,
        state: stored.state,
        owner: stored.owner.clone(),
        head: &stored.head,
        spec: &stored.spec,
        options: &stored.options,
        extras: &stored.extras,
        chunks: &stored.chunks,
    })
}

/// Keeps a status; gives its version.
///
/// # Errors
///
/// VALIDATION, CONFLICT, STORE_*.
pub async fn save(repository: &Arc<dyn DurableRepository>, json: &str) -> Result<u64, Error> {
    let now = now_ms();
    loop {
        let Incoming { mut job, seen, whole } = read_status(json, now, false)?;
        let id = job.id.clone();
        let (expect, ownership, event) = match repository.load(&id).await? {
            None => {
                if let Some(seen) = seen.filter(|seen| *seen > 0) {
                    return Err(Error::new(ErrorCode::Conflict, format!("Version {seen} of job \"{id}\" can't be replaced: the job is gone")));
                }
                job.version = 1;
                (Expect::Absent, Ownership::Clear, None)
            }
            Some(stored) => {
                if let Some(seen) = seen
                    && seen != stored.version
                {
                    return Err(Error::new(ErrorCode::Conflict, format!("Job \"{id}\" is at version {}; version {seen} is not the latest", stored.version)));
                }
                if !whole {
                    let mut known = read(&stored)?;
                    known.replace_public(job, now);
                    job = known;
                }
                job.version = stored.version + 1;
                let ownership = if matches!(job.state, JobState::Pending | JobState::Running) { Ownership::Keep } else { Ownership::Clear };
                (Expect::At { version: stored.version, holder: Holder::Anyone }, ownership, Logged::of(&job, JobEvent::Updated, now))
            }
        };
        let version = job.version;
        let mut put = crate::manager::whole(&job, ownership);
        put.clear_requests = false;
        put.events = event.iter().map(Logged::to_write).collect();
        let write = Write { id, expect, action: Action::Put(Box::new(put)) };
        match repository.commit(std::slice::from_ref(&write)).await?.first() {
            Some(Outcome::Accepted { .. }) => return Ok(version),
            // Somebody was faster: decide again.
            _ => continue,
        }
    }
}

/// What is written of a status file of another system: as it is, free to be gone on with.
///
/// # Errors
///
/// VALIDATION.
pub fn import(json: &str) -> Result<Put, Error> {
    let mut job = read_status(json, now_ms(), true)?.job;
    job.version = 1;
    let open = matches!(job.state, JobState::Pending | JobState::Running);
    Ok(crate::manager::whole(&job, if open { Ownership::Release } else { Ownership::Clear }))
}

/// The status of a job as JSON, with the job where the status leaves out long lists.
///
/// # Errors
///
/// STORE_*.
pub async fn get(repository: &Arc<dyn DurableRepository>, id: &str) -> Result<Option<(String, Option<Job>)>, Error> {
    let Some(stored) = repository.load(id).await? else { return Ok(None) };
    let job = read(&stored)?;
    let mut status = String::with_capacity(512 + stored.spec.len());
    write_status(&job, Live { lease_renewed_at: stored.renewed_at, ..Live::default() }, false, &mut status);
    let long = status.contains("\"$long\":{");
    Ok(Some((status, long.then_some(job))))
}

/// A page of statuses.
pub struct Page {
    /// JSON array of statuses.
    pub jobs: String,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<u64>,
    /// Ids whose record is damaged, with what is wrong.
    pub damaged: Vec<(Arc<str>, String)>,
}

/// Jobs in order of arrival after a place, those in `states` (all, when empty).
///
/// # Errors
///
/// STORE_*.
pub async fn list(repository: &Arc<dyn DurableRepository>, states: &[JobState], after: u64, most: usize) -> Result<Page, Error> {
    let listing = repository.list(states, after, most).await?;
    let mut page = Page { jobs: String::from("["), next: listing.next, damaged: listing.damaged };
    for stored in &listing.jobs {
        match read(stored) {
            Ok(job) => {
                if page.jobs.len() > 1 {
                    page.jobs.push(',');
                }
                write_status(&job, Live { lease_renewed_at: stored.renewed_at, ..Live::default() }, false, &mut page.jobs);
            }
            Err(error) => page.damaged.push((stored.id.clone(), error.message)),
        }
    }
    page.jobs.push(']');
    Ok(page)
}

/// Who works on a job.
pub struct Working {
    /// The owner.
    pub owner: Arc<str>,
    /// Its host and process, where it said.
    pub place: Option<Place>,
}

/// Who works on a job, unless it is nobody, or somebody who is gone.
///
/// # Errors
///
/// STORE_*.
pub async fn working(repository: &Arc<dyn DurableRepository>, id: &str) -> Result<Option<Working>, Error> {
    let Some(stored) = repository.load(id).await? else { return Ok(None) };
    let Some(owner) = stored.owner.filter(|_| !stored.released) else { return Ok(None) };
    let here = Place::here();
    let owners = repository.owners().await?;
    Ok(owners.iter().find(|row| row.id == owner).and_then(|row| {
        let place = parse_place(&row.place);
        let gone = row.expired || place.as_ref().is_some_and(|place| place.is_dead(&here));
        (!gone).then_some(Working { owner, place })
    }))
}

/// Removes a job, whoever runs it; an unknown id changes nothing.
///
/// # Errors
///
/// STORE_*.
pub async fn delete(repository: &Arc<dyn DurableRepository>, id: &str) -> Result<(), Error> {
    let event = Logged::of_id(id.into(), JobEvent::Deleted, now_ms()).to_write();
    let write = Write { id: id.into(), expect: Expect::Present, action: Action::Delete { event } };
    repository.commit(std::slice::from_ref(&write)).await.map(|_| ())
}
