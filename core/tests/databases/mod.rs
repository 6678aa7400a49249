//! Where tests find database servers, each test with a schema (PostgreSQL) or database (MySQL) of its own there, which is
//! dropped at its end. A server that is not there makes a test fail.
//!
//! `FRAMEWRIGHT_TEST_POSTGRES` and `FRAMEWRIGHT_TEST_MYSQL` name other servers than those on this host's usual ports.

#![allow(dead_code)] // Each test crate uses its part.

pub mod faults;
pub mod jobs;
pub mod proxy;
pub mod server;

use std::sync::Arc;

use framewright_core::job::Error;
use framewright_core::repository::mysql::{MysqlOptions, MysqlRepository};
use framewright_core::repository::postgres::{PostgresOptions, PostgresRepository};
use framewright_core::repository::runtime::Store;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, PgConnection};

/// The URL of the PostgreSQL server for tests.
pub fn postgres_url() -> String {
    std::env::var("FRAMEWRIGHT_TEST_POSTGRES").unwrap_or_else(|_| "postgres://postgres@127.0.0.1:5432/test".into())
}

/// The URL of the MySQL or MariaDB server for tests, without a database.
pub fn mysql_url() -> String {
    std::env::var("FRAMEWRIGHT_TEST_MYSQL").unwrap_or_else(|_| "mysql://root@127.0.0.1:3306".into())
}

/// A name that no other test has.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}

/// Runs statements where nothing can be awaited.
fn at_once(work: impl Future<Output = Result<(), sqlx::Error>> + Send + 'static) {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    if let Err(error) = std::thread::spawn(run).join().unwrap() {
        eprintln!("what a test left in its database was not removed: {error}");
    }
}

/// A schema of a test.
pub struct Postgres {
    pub url: String,
    pub schema: String,
}

impl Postgres {
    /// A name; the schema is made when it is opened.
    pub fn new() -> Self {
        Self::at(&postgres_url())
    }

    /// The same, on a server.
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), schema: unique("Test \"schema\" ") }
    }

    /// The schema as an identifier.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.schema.replace('"', "\"\""))
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions { schema: Some(self.schema.clone()), ..PostgresOptions::default() }
    }

    /// A bare connection.
    pub async fn connection(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("PostgreSQL must run for the tests")
    }

    /// Runs statements with `@` for the schema and our prefix.
    pub async fn run(&self, statements: &str) {
        let statements = statements.replace('@', &format!("{}.framewright_", self.quoted()));
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut self.connection().await).await.expect("the statements of the test");
    }
}

impl Postgres {
    /// Opens it as a store.
    pub async fn open(&self) -> Result<Arc<Store>, Error> {
        let (url, options) = (self.url.clone(), self.options());
        Store::open(move || async move { PostgresRepository::connect(&url, options).await }).await
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let (url, quoted) = (self.url.clone(), self.quoted());
        at_once(async move {
            let mut connection = PgConnection::connect(&url).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {quoted} CASCADE"))).execute(&mut connection).await?;
            connection.close().await
        });
    }
}

/// A database of a test.
pub struct Mysql {
    server: String,
    pub database: String,
}

impl Mysql {
    /// Makes it.
    pub async fn new() -> Self {
        Self::at(&mysql_url()).await
    }

    /// Makes it on a server.
    pub async fn at(server: &str) -> Self {
        let mysql = Self { server: server.to_owned(), database: unique("framewright_test_") };
        let mut connection = MySqlConnection::connect(server).await.expect("MySQL or MariaDB must run for the tests");
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {}", mysql.database))).execute(&mut connection).await.expect("a database for the test");
        mysql
    }

    pub fn url(&self) -> String {
        format!("{}/{}", self.server, self.database)
    }

    /// A bare connection.
    pub async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.url()).await.expect("MySQL or MariaDB must run for the tests")
    }

    /// Runs statements.
    pub async fn run(&self, statements: &str) {
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&mut self.connection().await).await.expect("the statements of the test");
    }
}

impl Mysql {
    /// Opens it as a store.
    pub async fn open(&self) -> Result<Arc<Store>, Error> {
        let url = self.url();
        Store::open(move || async move { MysqlRepository::connect(&url, MysqlOptions::default()).await }).await
    }
}

impl Drop for Mysql {
    fn drop(&mut self) {
        let (server, database) = (self.server.clone(), self.database.clone());
        at_once(async move {
            let mut connection = MySqlConnection::connect(&server).await?;
            sqlx::raw_sql(AssertSqlSafe(format!("DROP DATABASE IF EXISTS {database}"))).execute(&mut connection).await?;
            connection.close().await
        });
    }
}
