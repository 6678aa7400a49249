//! A repository that is opened by the first call that needs it, and again by the next one when that failed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::durable::{Claim, Claimed, DurableRepository, Listing, LogStream, Mark, Outcome, OwnerRow, Stored, StoredEvent, Write};
use crate::job::{Error, ErrorCode, JobState};

type Open<R> = Box<dyn Fn() -> Result<R, Error> + Send + Sync>;

enum State<R> {
    Closed,
    Open(Arc<R>),
    Ended,
}

/// Opens `R` when it is needed.
pub struct LazyRepository<R> {
    open: Open<R>,
    state: Mutex<State<R>>,
}

impl<R: DurableRepository> LazyRepository<R> {
    /// `open` may be called several times, until it succeeds.
    pub fn new(open: impl Fn() -> Result<R, Error> + Send + Sync + 'static) -> Self {
        Self { open: Box::new(open), state: Mutex::new(State::Closed) }
    }

    async fn get(&self) -> Result<Arc<R>, Error> {
        let mut state = self.state.lock().await;
        match &*state {
            State::Open(repository) => Ok(repository.clone()),
            State::Ended => Err(Error::new(ErrorCode::StoreUnavailable, "The repository is closed")),
            State::Closed => {
                let repository = Arc::new((self.open)()?);
                *state = State::Open(repository.clone());
                Ok(repository)
            }
        }
    }
}

#[async_trait]
impl<R: DurableRepository> DurableRepository for LazyRepository<R> {
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        self.get().await?.commit(group).await
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        self.get().await?.load(id).await
    }

    async fn load_some(&self, ids: &[Arc<str>]) -> Result<Listing, Error> {
        self.get().await?.load_some(ids).await
    }

    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        self.get().await?.list(states, after, most).await
    }

    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error> {
        self.get().await?.enroll(owner, place, lease).await
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error> {
        self.get().await?.renew(owner, lease).await
    }

    async fn retire(&self, owner: &str) -> Result<(), Error> {
        self.get().await?.retire(owner).await
    }

    async fn owners(&self) -> Result<Vec<OwnerRow>, Error> {
        self.get().await?.owners().await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error> {
        self.get().await?.claim(claim).await
    }

    async fn request(&self, id: &str, body: &str) -> Result<bool, Error> {
        self.get().await?.request(id, body).await
    }

    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error> {
        self.get().await?.owned(owner).await
    }

    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error> {
        self.get().await?.requests(owner).await
    }

    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        self.get().await?.events(from, most).await
    }

    async fn oldest_event(&self) -> Result<u64, Error> {
        self.get().await?.oldest_event().await
    }

    async fn mark(&self) -> Result<Mark, Error> {
        self.get().await?.mark().await
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        match self.get().await {
            Ok(repository) => repository.changed(limit).await,
            Err(_) => {
                tokio::time::sleep(limit).await;
                None
            }
        }
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        self.get().await?.read_log(id, index, attempt, stream).await
    }

    async fn close(&self) {
        let mut state = self.state.lock().await;
        if let State::Open(repository) = &*state {
            repository.close().await;
        }
        *state = State::Ended;
    }
}
