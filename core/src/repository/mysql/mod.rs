//! Jobs in MySQL 8 or MariaDB 10.6 and newer, in the subset that both understand.
//!
//! [`schema`] makes the tables, [`rows`] writes many rows with few statements, [`write`] commits groups, [`claim`] keeps
//! leases and hands out orphans, [`read`] gives back what is kept. Nothing tells of changes here: the counters are looked
//! at every 30 ms while somebody waits.

mod claim;
mod read;
mod rows;
mod schema;
mod server;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::Row;
use tokio::time::{Instant, sleep};

use self::rows::Sizes;
use self::server::Mysql;
use super::durable::{Claim, Claimed, DurableRepository, Listing, LogStream, Mark, Outcome, OwnerRow, Stored, StoredEvent, Write};
use super::sql::Keys;
use super::sql::connections::{Connections, Failed, Lane, on_connection};
use crate::job::{Error, JobState};

/// How often the counters are looked at while somebody waits for changes.
const LOOK: Duration = Duration::from_millis(30);

/// How often, while the server is away.
const LOOK_AWAY: Duration = Duration::from_millis(500);

/// How a MySQL store is used.
#[derive(Debug, Clone, Default)]
pub struct MysqlOptions {
    /// Connections for work; two more are kept for leases and for watching. Default 10.
    pub max_connections: Option<u32>,
}

/// Keeps jobs in MySQL or MariaDB.
pub struct MysqlRepository {
    connections: Connections<Mysql>,
    keys: Mutex<Keys>,
    sizes: Sizes,
    /// What was told to those who waited for changes.
    seen: Mutex<Mark>,
}

impl MysqlRepository {
    /// Connects, and makes or brings up to date the tables.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE when the server can't be used or its schema is newer, STORE_CORRUPT when the tables are not ours.
    pub async fn connect(url: &str, options: MysqlOptions) -> Result<Self, Error> {
        let connections = Connections::new(Mysql::new(url)?, options.max_connections.unwrap_or(10));
        let sizes = on_connection!(connections.call_at_once(Lane::Lease), |connection| async {
            schema::migrate(connection).await?;
            let packet: u64 = sqlx::query("SELECT @@max_allowed_packet").fetch_one(connection).await?.try_get_unchecked(0)?;
            Ok::<_, Failed>(Sizes::below(packet as usize))
        })?;
        let repository = Self { connections, keys: Mutex::default(), sizes, seen: Mutex::default() };
        *repository.seen.lock() = repository.mark().await?;
        Ok(repository)
    }
}

#[async_trait]
impl DurableRepository for MysqlRepository {
    async fn commit(&self, group: &[Write]) -> Result<Vec<Outcome>, Error> {
        if group.is_empty() {
            return Ok(Vec::new());
        }
        on_connection!(self.connections.call(Lane::Work), |connection| self.commit_on(connection, group))
    }

    async fn load(&self, id: &str) -> Result<Option<Stored>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.load_on(connection, id))?.only()
    }

    async fn load_some(&self, ids: &[Arc<str>]) -> Result<Listing, Error> {
        Ok(on_connection!(self.connections.call(Lane::Work), |connection| self.load_some_on(connection, ids))?.finish())
    }

    async fn list(&self, states: &[JobState], after: u64, most: usize) -> Result<Listing, Error> {
        Ok(on_connection!(self.connections.call(Lane::Work), |connection| self.list_on(connection, states, after, most))?.finish())
    }

    async fn enroll(&self, owner: &str, place: &str, lease: Duration) -> Result<(), Error> {
        on_connection!(self.connections.call(Lane::Lease), |connection| self.enroll_on(connection, owner, place, lease))
    }

    async fn renew(&self, owner: &str, lease: Duration) -> Result<bool, Error> {
        on_connection!(self.connections.call(Lane::Lease), |connection| self.renew_on(connection, owner, lease))
    }

    async fn retire(&self, owner: &str) -> Result<(), Error> {
        on_connection!(self.connections.call(Lane::Lease), |connection| self.retire_on(connection, owner))
    }

    async fn owners(&self) -> Result<Vec<OwnerRow>, Error> {
        on_connection!(self.connections.call(Lane::Lease), |connection| self.owners_on(connection))
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Claimed>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.claim_on(connection, claim))
    }

    async fn request(&self, id: &str, body: &str) -> Result<bool, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.request_on(connection, id, body))
    }

    async fn owned(&self, owner: &str) -> Result<Vec<Arc<str>>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.owned_on(connection, owner))
    }

    async fn requests(&self, owner: &str) -> Result<Vec<(Arc<str>, String)>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.requests_on(connection, owner))
    }

    async fn events(&self, from: u64, most: usize) -> Result<Vec<StoredEvent>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.events_on(connection, from, most))
    }

    async fn oldest_event(&self) -> Result<u64, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.oldest_event_on(connection))
    }

    async fn mark(&self) -> Result<Mark, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.mark_on(connection))
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        let until = Instant::now() + limit;
        // Everybody who waits compares with what was told before, so that all hear of a change.
        let seen = *self.seen.lock();
        while Instant::now() < until && !self.connections.closed().is_cancelled() {
            let look = async { on_connection!(self.connections.call_at_once(Lane::Watch), |connection| self.mark_on(connection)) };
            let pause = match tokio::time::timeout_at(until, look).await {
                Ok(Ok(mark)) if mark != seen => {
                    *self.seen.lock() = mark;
                    return Some(mark);
                }
                Ok(Ok(_)) => LOOK,
                _ => LOOK_AWAY,
            };
            tokio::select! {
                () = sleep(pause.min(until.saturating_duration_since(Instant::now()))) => {}
                () = self.connections.closed().cancelled() => {}
            }
        }
        None
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.read_log_on(connection, id, index, attempt, stream))
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}
