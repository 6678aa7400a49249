//! Connections to a database server, and calls on them that end in time.
//!
//! A connection is kept only after a call that went well on it: whatever was interrupted (an error, a time limit, a dropped
//! future) closes it, and the server rolls back. Lease renewals and watching have connections of their own, so that a busy
//! pool delays neither.

use std::future::Future;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::job::{Error, ErrorCode};

/// A call ends after so long, one way or the other: below the 30 s that the contract allows.
const CALL: Duration = Duration::from_secs(25);

/// On the connections for leases and watching a server that says nothing for so long is tried on a new connection.
const SILENCE: Duration = Duration::from_secs(5);

/// How long a call goes on trying to connect to a server that refuses: a restart is waited for, an outage is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection attempt.
const CONNECT: Duration = Duration::from_secs(10);

/// Connections that were idle for so long are not trusted: routers and servers forget silent ones.
const IDLE: Duration = Duration::from_secs(10);

/// Deadlocks and the like in one call before it gives up.
const TRIES: u32 = 50;

/// Whether TLS can't be had as the URL asks for it, which looks like a connection that was lost: the server's certificate is not
/// trusted, as rustls says, or a file that the URL names is not there. `socket`: of Unix sockets the file may be missing too.
pub fn is_tls_fault(error: &sqlx::Error, socket: bool) -> bool {
    let sqlx::Error::Io(error) = error else { return false };
    match error.kind() {
        std::io::ErrorKind::InvalidData => error.to_string().starts_with("invalid peer certificate"),
        std::io::ErrorKind::NotFound => !socket,
        _ => false,
    }
}

/// What a failure means for the call.
#[derive(Debug)]
pub enum Fault {
    /// The server undid the transaction because of others: try again.
    Again,
    /// The connection is of no use any more.
    Lost,
    /// Trying again does not help.
    Final(Error),
    /// The server takes no writes: it may not be the primary any more, or the name may mean another one by now.
    Demoted(Error),
}

/// How a call on a connection failed.
#[derive(Debug)]
pub enum Failed {
    /// Nothing was committed.
    Sql(sqlx::Error),
    /// While committing: what was written may be there, or not.
    Unsure(sqlx::Error),
    /// Our own verdict about what the database holds.
    Refused(Error),
    /// The server said nothing in time.
    Silent,
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Failed::Sql(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Refused(error)
    }
}

/// A kind of server, and how to get to it.
pub trait Server: Send + Sync + 'static {
    /// A connection to it.
    type Connection: Send + 'static;
    /// Opens one.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;
    /// Undoes an open transaction, if there is one.
    fn rollback(connection: &mut Self::Connection) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Ends one politely.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send;
    /// What an error means.
    fn fault(&self, error: &sqlx::Error) -> Fault;
    /// "PostgreSQL at host:port/database", for messages.
    fn address(&self) -> &str;
    /// An error's text without secrets.
    fn tell(&self, error: &sqlx::Error) -> String;
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Everything else.
    Work = 0,
    /// Owners and their leases.
    Lease = 1,
    /// Whether something changed.
    Watch = 2,
}

struct Idle<C> {
    connection: C,
    since: Instant,
}

struct Kept<C> {
    permits: Semaphore,
    size: u32,
    idle: Mutex<Vec<Idle<C>>>,
}

/// The connections of a store.
pub struct Connections<S: Server> {
    pub server: S,
    lanes: [Kept<S::Connection>; 3],
    closed: CancellationToken,
}

impl<S: Server> Connections<S> {
    /// No connection yet; at most so many at once for work.
    pub fn new(server: S, size: u32) -> Self {
        let lane = |size: u32| Kept { permits: Semaphore::new(size as usize), size, idle: Mutex::new(Vec::new()) };
        Self { server, lanes: [lane(size.max(1)), lane(1), lane(1)], closed: CancellationToken::new() }
    }

    /// Begins a call.
    pub fn call(&self, lane: Lane) -> Call<'_, S> {
        let limit = if lane == Lane::Work { CALL } else { SILENCE };
        let now = Instant::now();
        Call { connections: self, lane: &self.lanes[lane as usize], deadline: now + CALL, patient_until: now + PATIENCE, limit, tries: 0 }
    }

    /// Begins a call that does not wait for a server that is not there.
    pub fn call_at_once(&self, lane: Lane) -> Call<'_, S> {
        Call { patient_until: Instant::now(), ..self.call(lane) }
    }

    /// Ends all connections, once the calls under way are done.
    pub async fn close(&self) {
        self.closed.cancel();
        for lane in &self.lanes {
            // Calls under way are waited for, but not for ever.
            let _all = timeout(SILENCE, lane.permits.acquire_many(lane.size)).await;
            let idle = std::mem::take(&mut *lane.idle.lock());
            for idle in idle {
                let _ = timeout(Duration::from_secs(1), S::close(idle.connection)).await;
            }
        }
    }

    /// Resolves when the store is closed.
    pub fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    /// The server did not behave: no idle connection is trusted.
    fn distrust(&self) {
        for lane in &self.lanes {
            lane.idle.lock().clear();
        }
    }

    fn unavailable(&self, what: &str) -> Error {
        Error::new(ErrorCode::StoreUnavailable, format!("{} {what}", self.server.address()))
    }
}

/// A connection in use. Dropped without [`keep`](Self::keep), it is closed.
pub struct Held<'p, S: Server> {
    connection: S::Connection,
    lane: &'p Kept<S::Connection>,
    _permit: SemaphorePermit<'p>,
}

impl<S: Server> Held<'_, S> {
    /// The connection.
    pub fn connection(&mut self) -> &mut S::Connection {
        &mut self.connection
    }

    /// It is in order: for the next call.
    pub fn keep(self) {
        self.lane.idle.lock().push(Idle { connection: self.connection, since: Instant::now() });
    }
}

/// One call, perhaps tried several times. Used through [`on_connection`].
pub struct Call<'p, S: Server> {
    connections: &'p Connections<S>,
    lane: &'p Kept<S::Connection>,
    deadline: Instant,
    patient_until: Instant,
    limit: Duration,
    tries: u32,
}

impl<'p, S: Server> Call<'p, S> {
    /// A connection: an idle one, or a new one.
    pub async fn connect(&mut self) -> Result<Held<'p, S>, Error> {
        let (connections, lane) = (self.connections, self.lane);
        if connections.closed.is_cancelled() {
            return Err(Error::new(ErrorCode::StoreUnavailable, "The repository is closed"));
        }
        let busy = || connections.unavailable("is busy: no connection became free in time. Raise maxConnections, or look for what holds its locks");
        let permit = timeout_at(self.deadline, lane.permits.acquire()).await.map_err(|_| busy())?.expect("never closed");
        let idle = {
            let mut idle = lane.idle.lock();
            idle.retain(|idle| idle.since.elapsed() < IDLE);
            idle.pop()
        };
        if let Some(idle) = idle {
            return Ok(Held { connection: idle.connection, lane, _permit: permit });
        }
        let mut pause = Duration::from_millis(20);
        loop {
            let limit = self.deadline.min(Instant::now() + CONNECT);
            let why = match timeout_at(limit, connections.server.connect()).await {
                Ok(Ok(connection)) => return Ok(Held { connection, lane, _permit: permit }),
                Ok(Err(error)) => match connections.server.fault(&error) {
                    Fault::Final(error) | Fault::Demoted(error) => return Err(error),
                    Fault::Again | Fault::Lost => connections.server.tell(&error),
                },
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() + pause >= self.patient_until.min(self.deadline) {
                return Err(connections.unavailable(&format!("can't be reached: {why}. Start it, or check host, port and network")));
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Runs a part of the call within its limits.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let limit = self.deadline.min(Instant::now() + self.limit);
        timeout_at(limit, work).await.unwrap_or(Err(Failed::Silent))
    }

    /// Judges a failure: `Ok` to try again.
    pub async fn failed(&mut self, mut held: Held<'p, S>, failed: Failed) -> Result<(), Error> {
        let server = &self.connections.server;
        let (fault, sure, why) = match failed {
            Failed::Refused(error) => (Fault::Final(error), true, String::new()),
            Failed::Silent => (Fault::Lost, true, "no answer in time".to_owned()),
            Failed::Sql(error) => (server.fault(&error), true, server.tell(&error)),
            Failed::Unsure(error) => (server.fault(&error), false, server.tell(&error)),
        };
        self.tries += 1;
        match fault {
            Fault::Lost => {
                drop(held);
                self.connections.distrust();
                if !sure {
                    return Err(self.connections.unavailable(&format!("was lost while it committed: {why}")));
                }
                if Instant::now() + SILENCE >= self.deadline || self.tries > TRIES {
                    return Err(self.connections.unavailable(&format!("does not answer: {why}")));
                }
                self.pause().await;
                Ok(())
            }
            Fault::Demoted(error) => {
                drop(held);
                self.connections.distrust();
                Err(error)
            }
            fault => {
                if matches!(timeout(SILENCE, S::rollback(held.connection())).await, Ok(Ok(()))) {
                    held.keep();
                } else {
                    drop(held);
                }
                match fault {
                    Fault::Final(error) => Err(error),
                    _ if Instant::now() >= self.deadline || self.tries > TRIES => Err(self.connections.unavailable(&format!("is too busy: {why}"))),
                    _ => {
                        self.pause().await;
                        Ok(())
                    }
                }
            }
        }
    }

    /// Longer with each try, and not the same for two that got into each other's way.
    async fn pause(&self) {
        let longest = 2u64 << self.tries.min(7);
        let chance = u64::from(uuid::Uuid::new_v4().as_fields().0) % longest;
        sleep(Duration::from_millis(longest / 2 + chance)).await;
    }
}

/// Runs `$work`, a future of `Result<_, Failed>`, on a connection of a lane, again where that helps.
macro_rules! on_connection {
    ($call:expr, |$connection:ident| $work:expr) => {{
        let mut call = $call;
        loop {
            let mut held = call.connect().await?;
            let done = {
                let $connection = held.connection();
                call.within($work).await
            };
            match done {
                Ok(value) => {
                    held.keep();
                    break Ok::<_, crate::job::Error>(value);
                }
                Err(failed) => call.failed(held, failed).await?,
            }
        }
    }};
}
pub(crate) use on_connection;
