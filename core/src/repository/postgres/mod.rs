//! Jobs in PostgreSQL (13 or newer).
//!
//! [`schema`] makes the tables, [`write`] commits groups, [`claim`] keeps leases and hands out orphans, [`read`] gives
//! back what is kept, [`listener`] hears of changes. Every name is qualified with the schema: `search_path` may be
//! anything, as behind pgbouncer. `synchronous_commit` is what the server says.

mod claim;
mod listener;
mod read;
mod schema;
mod server;
mod statement;
mod write;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use sqlx::AssertSqlSafe;

use self::listener::Listener;
use self::server::Postgres;
use super::durable::{Claim, Claimed, DurableRepository, Listing, LogStream, Mark, Outcome, OwnerRow, Stored, StoredEvent, Write};
use super::sql::Keys;
use super::sql::connections::{Connections, Lane, on_connection};
use crate::job::{Error, JobState};

/// How a PostgreSQL store is used.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Connections for work; two more are kept for leases and for notifications. Default 10.
    pub max_connections: Option<u32>,
    /// Where our tables are; made when it is missing. Default `public`.
    pub schema: Option<String>,
}

/// Keeps jobs in PostgreSQL.
pub struct PostgresRepository {
    connections: Connections<Postgres>,
    names: Names,
    keys: Mutex<Keys>,
    listener: Listener,
}

/// The names of our tables.
pub(super) struct Names {
    schema: String,
    /// As an identifier.
    quoted: String,
    /// What `@` stands for in statements.
    prefix: String,
}

impl Names {
    fn new(schema: &str) -> Self {
        let quoted = format!("\"{}\"", schema.replace('"', "\"\""));
        Self { schema: schema.to_owned(), prefix: format!("{quoted}.framewright_"), quoted }
    }

    /// A statement about the tables that it names with an `@`.
    fn put_into(&self, statement: &str) -> String {
        statement.replace('@', &self.prefix)
    }

    /// The same, for sqlx. Safe: statements are made of constants, and the schema is quoted.
    fn sql(&self, statement: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.put_into(statement))
    }

    /// What committed changes are told on. A name of 63 bytes is cut by the server, so a long schema goes in as a digest.
    fn channel(&self) -> String {
        if self.schema.len() <= 40 { format!("framewright {}", self.schema) } else { format!("framewright {:x}", fnv(self.schema.as_bytes())) }
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl PostgresRepository {
    /// Connects, and makes or brings up to date the tables.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE when the server can't be used or its schema is newer, STORE_CORRUPT when the tables are not ours.
    pub async fn connect(url: &str, options: PostgresOptions) -> Result<Self, Error> {
        let names = Names::new(options.schema.as_deref().unwrap_or("public"));
        let connections = Connections::new(Postgres::new(url)?, options.max_connections.unwrap_or(10));
        on_connection!(connections.call_at_once(Lane::Lease), |connection| schema::migrate(connection, &names))?;
        let listener = Listener::start(connections.server.options.clone(), names.channel(), connections.closed().clone());
        Ok(Self { connections, names, keys: Mutex::default(), listener })
    }
}

#[async_trait]
impl DurableRepository for PostgresRepository {
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
        self.listener.look(|| async { on_connection!(self.connections.call(Lane::Work), |connection| self.mark_on(connection)) }).await
    }

    async fn changed(&self, limit: Duration) -> Option<Mark> {
        self.listener.changed(limit, || async { on_connection!(self.connections.call_at_once(Lane::Watch), |connection| self.mark_on(connection)) }).await
    }

    async fn read_log(&self, id: &str, index: u32, attempt: u32, stream: LogStream) -> Result<Option<String>, Error> {
        on_connection!(self.connections.call(Lane::Work), |connection| self.read_log_on(connection, id, index, attempt, stream))
    }

    async fn close(&self) {
        self.connections.close().await;
    }
}
