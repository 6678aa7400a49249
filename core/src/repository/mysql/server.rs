//! How MySQL or MariaDB is reached, and what its errors mean.

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError};
use sqlx::{ConnectOptions, Connection};

use crate::job::{Error, ErrorCode};
use crate::repository::sql::connections::{Fault, Server, is_tls_fault};
use crate::repository::sql::{no_delay, password_of, without};

/// What every session needs, whatever the server's defaults are. A session that says nothing for 20 s in the middle of a
/// transaction (its process was stopped or cut off) is ended by the server, and its locks with it; idle connections are
/// given up by us before that.
const SESSION: &str = "
    SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
    SET SESSION autocommit = 1, innodb_lock_wait_timeout = 10, wait_timeout = 20, net_read_timeout = 10, sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'";

/// Prepared statements a connection keeps: each table's insert comes in eleven sizes.
const STATEMENTS: usize = 256;

/// A MySQL or MariaDB server.
pub struct Mysql {
    options: MySqlConnectOptions,
    address: String,
    /// Never shown.
    password: Option<String>,
}

impl Mysql {
    /// Reads a URL as sqlx knows them: `mysql://user:password@host:port/database?ssl-mode=VERIFY_CA&ssl-ca=ca.pem`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let refused =
            |why: &str| Error::new(ErrorCode::StoreUnavailable, format!("The MySQL URL is not usable: {why}. Write mysql://user:password@host:port/database"));
        // sqlx quotes what it could not read, which may be anything.
        let options: MySqlConnectOptions = url.parse().map_err(|_: sqlx::Error| refused("it can't be read"))?;
        let Some(database) = options.get_database() else { return Err(refused("it names no database")) };
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let address = format!("MySQL at {place}/{database}");
        let options = options.statement_cache_capacity(STATEMENTS).pipes_as_concat(false).disable_statement_logging();
        Ok(Self { options, address, password: password_of(url) })
    }
}

impl Server for Mysql {
    type Connection = MySqlConnection;

    async fn connect(&self) -> Result<MySqlConnection, sqlx::Error> {
        let mut connection = no_delay::connecting(self.options.get_port(), self.options.connect()).await?;
        sqlx::raw_sql(SESSION).execute(&mut connection).await?;
        Ok(connection)
    }

    async fn rollback(connection: &mut MySqlConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)
    }

    async fn close(connection: MySqlConnection) {
        let _ = connection.close().await;
    }

    fn fault(&self, error: &sqlx::Error) -> Fault {
        let tls = || self.is(ErrorCode::StoreUnavailable, error, "Check the TLS parameters of the URL (ssl-mode, ssl-ca)");
        let damaged = "It is damaged, or was changed by something else than framewright";
        let sqlx::Error::Database(told) = error else {
            return match error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
                    self.is(ErrorCode::StoreCorrupt, error, damaged)
                }
                sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => tls(),
                sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => self.is(ErrorCode::Internal, error, "It was not sent"),
                error if is_tls_fault(error, self.options.get_socket().is_some()) => tls(),
                _ => Fault::Lost,
            };
        };
        let number = told.try_downcast_ref::<MySqlDatabaseError>().map_or(0, MySqlDatabaseError::number);
        let unavailable = |advice| self.is(ErrorCode::StoreUnavailable, error, advice);
        match number {
            // Lock wait timeout, deadlock, a job created by two at once, changed since last read, rolled back by the cluster.
            1205 | 1213 | 1062 | 1020 | 3101 => Fault::Again,
            // The server stops, or has ended this session.
            1053 | 1079 | 1152 | 1158..=1161 | 1184 | 1317 | 1927 | 4031 => Fault::Lost,
            1021 | 1114 | 28 => self.full(error),
            _ if told.message().contains("o space left on device") || told.message().contains("errno: 28") => self.full(error),
            1040 | 1203 | 1461 => unavailable("Raise the server's limit, or lower maxConnections"),
            1045 | 1698 | 1130 | 1251 | 2059 => {
                unavailable("Check user and password of the URL, from where the user may connect, and whether the server insists on TLS (ssl-mode)")
            }
            3159 => tls(),
            1044 | 1049 => unavailable("Create the database and grant the user all rights on it, or name another one in the URL"),
            1142 | 1143 | 1227 | 1370 => unavailable("Grant the user all rights on the database"),
            1290 | 1836 | 1792 | 3261 => match unavailable("Connect to the primary server") {
                Fault::Final(error) => Fault::Demoted(error),
                fault => fault,
            },
            1153 => unavailable("Raise max_allowed_packet of the server"),
            1034 | 1035 | 1054 | 1064 | 1146 | 1194 | 1195 | 1364 | 1712 | 1877 | 1932 => self.is(ErrorCode::StoreCorrupt, error, damaged),
            _ => unavailable("See the server's log"),
        }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn tell(&self, error: &sqlx::Error) -> String {
        let text = match error {
            sqlx::Error::Database(told) => told.message().to_owned(),
            error => error.to_string(),
        };
        without(self.password.as_deref(), text)
    }
}

impl Mysql {
    fn is(&self, code: ErrorCode, error: &sqlx::Error, advice: &str) -> Fault {
        Fault::Final(Error::new(code, format!("{}: {}. {advice}", self.address, self.tell(error))))
    }

    fn full(&self, error: &sqlx::Error) -> Fault {
        self.is(ErrorCode::StoreFull, error, "Make room on the server's disk, or raise its limits")
    }
}
