//! Durable repositories as JavaScript has them: promises of what happens on the store's own thread.

use std::path::PathBuf;
use std::sync::Arc;

use framewright_core::job::{ChunkState, Error, Job, JobState};
use framewright_core::manager::{DurableOptions, Fetched};
use framewright_core::repository::durable::LogStream;
use framewright_core::repository::file::FileRepository;
use framewright_core::repository::lazy::LazyRepository;
use framewright_core::repository::mysql::{MysqlOptions, MysqlRepository};
use framewright_core::repository::postgres::{PostgresOptions, PostgresRepository};
use framewright_core::repository::public;
use framewright_core::repository::runtime::Store;
use framewright_core::repository::sqlite::{SqliteRepository, Synchronous};
use napi::bindgen_prelude::{Env, PromiseRaw, Result, ToNapiValue};
use napi_derive::napi;

use crate::error::thrown;
use crate::spec::LongLists;
use crate::store::ChunkPage;

/// A promise of what a future gives; it holds nothing of the class that it came from.
pub fn promise<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    future: impl Future<Output = std::result::Result<T, Error>> + Send + 'static,
) -> Result<PromiseRaw<'env, T>> {
    env.spawn_future(async move { future.await.map_err(thrown) })
}

/// A durable repository.
#[napi]
pub struct DurableStore {
    pub(crate) inner: Arc<Store>,
}

/// A status that was read from a store.
#[napi]
pub struct StoredStatus {
    status: String,
    long: Option<Job>,
}

#[napi]
impl StoredStatus {
    /// JSON of the status.
    #[napi(getter, catch_unwind)]
    pub fn status(&self) -> String {
        self.status.clone()
    }

    /// The lists that the status leaves out; only once.
    #[napi(catch_unwind)]
    pub fn long(&mut self) -> Option<LongLists> {
        self.long.take().map(LongLists::of)
    }
}

impl From<Fetched> for StoredStatus {
    fn from(fetched: Fetched) -> Self {
        Self { status: fetched.status, long: fetched.long }
    }
}

/// A page of a listing of a durable store.
#[napi(object)]
pub struct StoredPage {
    /// JSON array of statuses.
    pub jobs: String,
    /// Where the next page begins; -1: there is none.
    pub next: f64,
    /// What could not be read, for people.
    pub damaged: Vec<String>,
}

/// A manager that works on a job.
#[napi(object)]
pub struct StoredOwner {
    /// Its identity.
    pub owner: String,
    /// Name of its host; empty: not known.
    pub host: String,
    /// Its process; 0: not known.
    pub pid: u32,
}

/// Events of a durable store.
#[napi(object)]
pub struct StoredEvents {
    /// JSON array of events.
    pub events: String,
    /// Number after the last of them.
    pub next: f64,
}

/// A job that was read from a store, for its chunks.
#[napi]
pub struct StoredJob {
    job: Job,
}

impl StoredJob {
    pub fn new(job: Job) -> Self {
        Self { job }
    }
}

#[napi]
impl StoredJob {
    /// See `Engine.chunks`.
    #[napi(catch_unwind)]
    pub fn chunks(&self, state: Option<String>, from: u32, skip: f64, most: u32) -> ChunkPage {
        let state = state.and_then(|state| ChunkState::ALL.into_iter().find(|known| known.as_str() == state));
        ChunkPage::of(&self.job, state, from, skip, most)
    }
}

/// A duration that JavaScript gave.
pub fn milliseconds(ms: f64) -> std::time::Duration {
    std::time::Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(std::time::Duration::from_secs(10))
}

/// The options of a manager on a durable store.
pub fn options(lease_ms: f64, recover: bool, kinds: Vec<String>, runs: bool) -> DurableOptions {
    DurableOptions { lease: milliseconds(lease_ms), recover, kinds: kinds.into_iter().map(Into::into).collect(), runs }
}

/// Which stream a name means.
pub fn stream(name: &str) -> LogStream {
    if name == "stderr" { LogStream::Stderr } else { LogStream::Stdout }
}

/// Opens a SQLite database, made when it is missing.
#[napi(catch_unwind)]
pub fn open_sqlite<'env>(env: &'env Env, path: String, full: bool) -> Result<PromiseRaw<'env, DurableStore>> {
    let synchronous = if full { Synchronous::Full } else { Synchronous::Normal };
    promise(env, async move {
        let inner = Store::open(move || SqliteRepository::open(PathBuf::from(path), synchronous)).await?;
        Ok(DurableStore { inner })
    })
}

/// A store in a directory; it is opened by the first call that needs it.
#[napi(catch_unwind)]
pub fn open_file(directory: String) -> Result<DurableStore> {
    // Relative to where the process is now.
    let directory = std::path::absolute(PathBuf::from(&directory)).unwrap_or_else(|_| directory.into());
    let open = move || FileRepository::open(directory.clone(), public::import);
    let inner = Store::lazy(move || LazyRepository::new(open)).map_err(thrown)?;
    Ok(DurableStore { inner })
}

/// Connects to PostgreSQL; `most` 0: the default.
#[napi(catch_unwind)]
pub fn open_postgres<'env>(env: &'env Env, url: String, most: u32, schema: Option<String>) -> Result<PromiseRaw<'env, DurableStore>> {
    let options = PostgresOptions { max_connections: (most > 0).then_some(most), schema };
    promise(env, async move {
        let inner = Store::open(move || async move { PostgresRepository::connect(&url, options).await }).await?;
        Ok(DurableStore { inner })
    })
}

/// Connects to MySQL or MariaDB; `most` 0: the default.
#[napi(catch_unwind)]
pub fn open_mysql<'env>(env: &'env Env, url: String, most: u32) -> Result<PromiseRaw<'env, DurableStore>> {
    let options = MysqlOptions { max_connections: (most > 0).then_some(most) };
    promise(env, async move {
        let inner = Store::open(move || async move { MysqlRepository::connect(&url, options).await }).await?;
        Ok(DurableStore { inner })
    })
}

#[napi]
impl DurableStore {
    /// Keeps a status given as JSON; gives its version.
    #[napi(catch_unwind)]
    pub fn save<'env>(&self, env: &'env Env, status: String) -> Result<PromiseRaw<'env, f64>> {
        let store = self.inner.clone();
        promise(env, async move { store.call(|repository| async move { public::save(&repository, &status).await }).await.map(|version| version as f64) })
    }

    /// The status, or null.
    #[napi(catch_unwind)]
    pub fn get<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, Option<StoredStatus>>> {
        let store = self.inner.clone();
        promise(env, async move {
            let found = store.call(|repository| async move { public::get(&repository, &id).await }).await?;
            Ok(found.map(|(status, long)| StoredStatus { status, long }))
        })
    }

    /// Jobs in order of arrival, those in `states` (all, when empty), after a place.
    #[napi(catch_unwind)]
    pub fn list<'env>(&self, env: &'env Env, states: Vec<String>, after: f64, most: u32) -> Result<PromiseRaw<'env, StoredPage>> {
        let store = self.inner.clone();
        let states: Vec<JobState> = states.iter().filter_map(|state| JobState::parse(state)).collect();
        promise(env, async move {
            let page = store.call(move |repository| async move { public::list(&repository, &states, after as u64, most as usize).await }).await?;
            let damaged = page.damaged.into_iter().map(|(id, what)| format!("{id}: {what}")).collect();
            Ok(StoredPage { jobs: page.jobs, next: page.next.map_or(-1.0, |next| next as f64), damaged })
        })
    }

    /// The place of a job in the order of arrival; -1: there is no such job.
    #[napi(catch_unwind)]
    pub fn place_of<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, f64>> {
        let store = self.inner.clone();
        promise(env, async move {
            let stored = store.call(|repository| async move { repository.load(&id).await }).await?;
            Ok(stored.map_or(-1.0, |stored| stored.place as f64))
        })
    }

    /// Removes a job.
    #[napi(catch_unwind)]
    pub fn delete<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, ()>> {
        let store = self.inner.clone();
        promise(env, async move { store.call(|repository| async move { public::delete(&repository, &id).await }).await })
    }

    /// Kept events from a number on.
    #[napi(catch_unwind)]
    pub fn events<'env>(&self, env: &'env Env, from: f64, most: u32) -> Result<PromiseRaw<'env, StoredEvents>> {
        let store = self.inner.clone();
        promise(env, async move {
            let from = from as u64;
            let found = store.call(move |repository| async move { repository.events(from, most as usize).await }).await?;
            let mut events = String::from("[");
            for event in &found {
                if events.len() > 1 {
                    events.push(',');
                }
                framewright_core::repository::event_log::stored_json(event, &mut events);
            }
            events.push(']');
            Ok(StoredEvents { events, next: found.last().map_or(from, |event| event.sequence + 1) as f64 })
        })
    }

    /// Who works on a job; null: nobody, or somebody who is gone.
    #[napi(catch_unwind)]
    pub fn working<'env>(&self, env: &'env Env, id: String) -> Result<PromiseRaw<'env, Option<StoredOwner>>> {
        let store = self.inner.clone();
        promise(env, async move {
            let found = store.call(|repository| async move { public::working(&repository, &id).await }).await?;
            Ok(found.map(|found| {
                let (host, pid) = found.place.map_or_else(Default::default, |place| (place.host, place.pid));
                StoredOwner { owner: found.owner.to_string(), host, pid }
            }))
        })
    }

    /// Ends all connections.
    #[napi(catch_unwind)]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let store = self.inner.clone();
        promise(env, async move {
            store
                .call(|repository| async move {
                    repository.close().await;
                    Ok(())
                })
                .await
        })
    }
}
