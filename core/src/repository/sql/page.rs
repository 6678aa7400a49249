//! Puts jobs together from the rows of their tables.

use std::collections::HashMap;
use std::sync::Arc;

use super::judge::Standing;
use crate::job::{Error, ErrorCode, JobState};
use crate::repository::durable::{Listing, Stored};

/// A page of a listing is cut before it holds more than so many bytes.
pub const PAGE_BYTES: i64 = 32 * 1024 * 1024;

/// A row of the jobs table, and when its owner renewed.
#[derive(Debug)]
pub struct JobRow {
    pub key: i64,
    pub id: String,
    pub place: i64,
    pub version: i64,
    pub state: i16,
    pub kind: Option<String>,
    pub owner: String,
    pub standing: i16,
    pub hold: bool,
    pub renewed_at: Option<f64>,
    pub head: String,
}

/// A job whose rows are being collected.
struct Collected {
    row: JobRow,
    /// Spec, options, extras.
    texts: [Option<String>; 3],
    chunks: Vec<(u32, String)>,
    requests: Vec<String>,
}

/// Jobs whose rows are being collected.
pub struct Page {
    jobs: Vec<Collected>,
    at: HashMap<i64, usize>,
    more: bool,
}

impl Page {
    /// A page of these; `most` of them, and one more tells that there are more.
    #[cfg(feature = "mysql")]
    pub fn new(mut rows: Vec<JobRow>, most: usize) -> Self {
        let more = rows.len() > most;
        rows.truncate(most);
        Self::of(rows, more)
    }

    /// A page of these; whether there are more.
    pub fn of(rows: Vec<JobRow>, more: bool) -> Self {
        let at = rows.iter().enumerate().map(|(at, row)| (row.key, at)).collect();
        Self { jobs: rows.into_iter().map(|row| Collected { row, texts: Default::default(), chunks: Vec::new(), requests: Vec::new() }).collect(), at, more }
    }

    /// The keys whose rows are wanted.
    #[cfg(feature = "mysql")]
    pub fn keys(&self) -> Vec<i64> {
        self.jobs.iter().map(|job| job.row.key).collect()
    }

    /// Leaves out the last jobs when all together would be too large. The first one stays.
    #[cfg(feature = "mysql")]
    pub fn cut(&mut self, sizes: &HashMap<i64, i64>) {
        let mut sum = 0;
        let fits = |job: &Collected| {
            sum += sizes.get(&job.row.key).copied().unwrap_or(0) + job.row.head.len() as i64;
            sum <= PAGE_BYTES
        };
        let fitting = self.jobs.iter().map(fits).take_while(|fits| *fits).count().max(1);
        if fitting < self.jobs.len() {
            self.jobs.truncate(fitting);
            self.at.retain(|_, at| *at < fitting);
            self.more = true;
        }
    }

    /// A text, or the next part of it.
    pub fn text(&mut self, key: i64, name: i16, part: String) {
        let Some(kept) = self.at.get(&key).and_then(|at| self.jobs[*at].texts.get_mut(name as usize)) else { return };
        match kept {
            Some(text) => text.push_str(&part),
            None => *kept = Some(part),
        }
    }

    /// A chunk's row, in order of position.
    pub fn chunk(&mut self, key: i64, index: i64, body: String) {
        if let Some(at) = self.at.get(&key) {
            self.jobs[*at].chunks.push((index as u32, body));
        }
    }

    /// The next part of the chunk that was given last.
    #[cfg(feature = "mysql")]
    pub fn more_of_chunk(&mut self, key: i64, part: &str) {
        if let Some(chunk) = self.at.get(&key).and_then(|at| self.jobs[*at].chunks.last_mut()) {
            chunk.1.push_str(part);
        }
    }

    /// A request, oldest first.
    pub fn request(&mut self, key: i64, body: String) {
        if let Some(at) = self.at.get(&key) {
            self.jobs[*at].requests.push(body);
        }
    }

    /// The next part of the request that was given last.
    #[cfg(feature = "mysql")]
    pub fn more_of_request(&mut self, key: i64, part: &str) {
        if let Some(request) = self.at.get(&key).and_then(|at| self.jobs[*at].requests.last_mut()) {
            request.push_str(part);
        }
    }

    /// The jobs, and those that are damaged.
    pub fn finish(self) -> Listing {
        let mut listing = Listing { next: self.jobs.last().filter(|_| self.more).map(|job| job.row.place as u64), ..Listing::default() };
        for job in self.jobs {
            let id: Arc<str> = job.row.id.as_str().into();
            match stored(job) {
                Ok(job) => listing.jobs.push(job),
                Err(damage) => listing.damaged.push((id, damage)),
            }
        }
        listing
    }

    /// The one job of the page; damage is an error.
    pub fn only(self) -> Result<Option<Stored>, Error> {
        let mut listing = self.finish();
        match listing.damaged.pop() {
            Some((id, damage)) => {
                Err(Error::new(ErrorCode::StoreCorrupt, format!("The record of job \"{id}\" is damaged: {damage}. Delete the job, or restore the database")))
            }
            None => Ok(listing.jobs.pop()),
        }
    }
}

fn stored(Collected { row, texts, chunks, requests }: Collected) -> Result<Stored, String> {
    let state = usize::try_from(row.state).ok().and_then(|state| JobState::ALL.get(state).copied()).ok_or_else(|| format!("{} is no state", row.state))?;
    let standing = Standing::of(row.standing).ok_or_else(|| format!("{} is no standing", row.standing))?;
    let [Some(spec), options, extras] = texts else { return Err("its spec is missing".into()) };
    Ok(Stored {
        id: row.id.into(),
        place: row.place as u64,
        version: row.version as u64,
        state,
        kind: row.kind.map(Into::into),
        owner: (!row.owner.is_empty()).then(|| row.owner.into()),
        released: standing == Standing::Released,
        hold: row.hold,
        renewed_at: row.renewed_at,
        head: row.head,
        spec,
        options: options.unwrap_or_default(),
        extras: extras.unwrap_or_default(),
        chunks,
        requests,
    })
}
