//! A thread for each durable store, with a small runtime of its own: connections, group commits and leases live there, and
//! go on whatever JavaScript, or tokio's workers, are busy with.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::durable::DurableRepository;
use crate::job::{Error, ErrorCode};

/// A durable repository and the thread that drives it.
pub struct Store {
    repository: Arc<dyn DurableRepository>,
    handle: Handle,
    /// Ends the thread with the store.
    _end: DropGuard,
}

fn lost() -> Error {
    Error::new(ErrorCode::StoreUnavailable, "The repository is closed")
}

impl Store {
    /// Starts a thread and opens a repository on it.
    pub async fn open<R, F>(connect: impl FnOnce() -> F + Send + 'static) -> Result<Arc<Store>, Error>
    where
        R: DurableRepository,
        F: Future<Output = Result<R, Error>>,
    {
        let end = CancellationToken::new();
        let ended = end.clone();
        let (opened, answer) = oneshot::channel();
        let thread = std::thread::Builder::new().name("framewright-store".into()).spawn(move || {
            let runtime = match Builder::new_current_thread().enable_all().thread_name("framewright-store").max_blocking_threads(4).build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = opened.send(Err(Error::new(ErrorCode::Internal, format!("A runtime can't be started: {error}"))));
                    return;
                }
            };
            let handle = runtime.handle().clone();
            runtime.block_on(async move {
                match connect().await {
                    Ok(repository) => {
                        let repository: Arc<dyn DurableRepository> = Arc::new(repository);
                        if opened.send(Ok((repository, handle))).is_ok() {
                            ended.cancelled().await;
                        }
                    }
                    Err(error) => {
                        let _ = opened.send(Err(error));
                    }
                }
            });
            // What still waits for a server is not waited for.
            runtime.shutdown_background();
        });
        if let Err(error) = thread {
            return Err(Error::new(ErrorCode::Internal, format!("A thread can't be started: {error}")));
        }
        let (repository, handle) = answer.await.map_err(|_| Error::new(ErrorCode::Internal, "The store's thread died"))??;
        Ok(Arc::new(Store { repository, handle, _end: end.drop_guard() }))
    }

    /// Starts a thread for a repository that needs no opening.
    ///
    /// # Errors
    ///
    /// INTERNAL: the system gives no thread.
    pub fn lazy<R: DurableRepository>(make: impl FnOnce() -> R) -> Result<Arc<Store>, Error> {
        let repository: Arc<dyn DurableRepository> = Arc::new(make());
        let end = CancellationToken::new();
        let ended = end.clone();
        let internal = |error: std::io::Error| Error::new(ErrorCode::Internal, format!("A thread can't be started: {error}"));
        let runtime = Builder::new_current_thread().enable_all().thread_name("framewright-store").max_blocking_threads(4).build().map_err(internal)?;
        let handle = runtime.handle().clone();
        let work = move || {
            runtime.block_on(ended.cancelled());
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name("framewright-store".into()).spawn(work).map_err(internal)?;
        Ok(Arc::new(Store { repository, handle, _end: end.drop_guard() }))
    }

    /// The repository, to be used on the store's thread only (from what [`spawn`](Self::spawn) runs).
    pub fn repository(&self) -> &Arc<dyn DurableRepository> {
        &self.repository
    }

    /// Runs a future on the store's thread.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(future);
    }

    /// Calls the repository on the store's thread and waits for the answer, from any runtime.
    pub async fn call<T, F>(&self, act: impl FnOnce(Arc<dyn DurableRepository>) -> F + Send + 'static) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let future = act(self.repository.clone());
        self.handle.spawn(future).await.map_err(|_| lost())?
    }
}
