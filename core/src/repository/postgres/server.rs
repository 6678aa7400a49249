//! How PostgreSQL is reached, and what its errors mean.

use std::sync::Arc;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};

use crate::job::{Error, ErrorCode};
use crate::repository::sql::connections::{Fault, Server, is_tls_fault};
use crate::repository::sql::{no_delay, password_of, without};

/// A PostgreSQL server.
pub struct Postgres {
    pub options: PgConnectOptions,
    address: String,
    /// Never shown.
    password: Option<String>,
}

impl Postgres {
    /// Reads a URL as sqlx (and libpq) knows them: `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=ca.pem`.
    pub fn new(url: &str) -> Result<Self, Error> {
        let refused = |why: String| {
            Error::new(ErrorCode::StoreUnavailable, format!("The PostgreSQL URL is not usable: {why}. Write postgres://user:password@host:port/database"))
        };
        let options: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| match error {
            // sqlx quotes what it could not read, which may be anything.
            sqlx::Error::Configuration(_) => refused("it can't be read".into()),
            error => refused(error.to_string()),
        })?;
        let place = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let address = format!("PostgreSQL at {place}/{}", options.get_database().unwrap_or(options.get_username()));
        let options = if options.get_application_name().is_none() { options.application_name("framewright") } else { options };
        Ok(Self { options: options.disable_statement_logging(), address, password: password_of(url) })
    }
}

impl Server for Postgres {
    type Connection = PgConnection;

    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        no_delay::connecting(self.options.get_port(), self.options.connect()).await
    }

    async fn rollback(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)
    }

    async fn close(connection: PgConnection) {
        let _ = connection.close().await;
    }

    fn fault(&self, error: &sqlx::Error) -> Fault {
        let tls = || self.is(ErrorCode::StoreUnavailable, error, "Check the TLS parameters of the URL (sslmode, sslrootcert)");
        let sqlx::Error::Database(told) = error else {
            return match error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_) | sqlx::Error::RowNotFound => {
                    self.is(ErrorCode::StoreCorrupt, error, "It is damaged, or was changed by something else than framewright")
                }
                sqlx::Error::Configuration(_) | sqlx::Error::Tls(_) => tls(),
                sqlx::Error::Encode(_) | sqlx::Error::InvalidArgument(_) => self.is(ErrorCode::Internal, error, "It was not sent"),
                error if is_tls_fault(error, self.options.get_socket().is_some()) => tls(),
                _ => Fault::Lost,
            };
        };
        let code = told.code().unwrap_or_default();
        let code: Arc<str> = code.as_ref().into();
        match &*code {
            // serialization_failure, deadlock_detected, lock_not_available, and a job created by two at once.
            "40001" | "40P01" | "55P03" | "23505" => Fault::Again,
            // The server stops, starts, or has ended this session.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" => Fault::Lost,
            "53100" | "53400" => self.is(ErrorCode::StoreFull, error, "Make room on the server's disk, or raise its limits"),
            "53300" => self.is(ErrorCode::StoreUnavailable, error, "Raise max_connections of the server, or lower maxConnections"),
            "28P01" | "28000" => self.is(ErrorCode::StoreUnavailable, error, "Check user and password of the URL, and pg_hba.conf of the server"),
            "3D000" => self.is(ErrorCode::StoreUnavailable, error, "Create the database, or name another one in the URL"),
            "42501" => self.is(ErrorCode::StoreUnavailable, error, "Grant the user CREATE and USAGE on the schema, or name a schema of its own"),
            "25006" => match self.is(ErrorCode::StoreUnavailable, error, "Connect to the primary server") {
                Fault::Final(error) => Fault::Demoted(error),
                fault => fault,
            },
            "57014" => self.is(ErrorCode::StoreUnavailable, error, "The statement took too long"),
            code if code.starts_with("08") => Fault::Lost,
            code if code.starts_with("42") || code.starts_with("3F") || code.starts_with("XX") || code.starts_with("23") => {
                self.is(ErrorCode::StoreCorrupt, error, "It is damaged, or was changed by something else than framewright")
            }
            _ => self.is(ErrorCode::StoreUnavailable, error, "See the server's log"),
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

impl Postgres {
    fn is(&self, code: ErrorCode, error: &sqlx::Error, advice: &str) -> Fault {
        Fault::Final(Error::new(code, format!("{}: {}. {advice}", self.address, self.tell(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_read_is_not_quoted() {
        for url in ["postgres://me:hunter2@host:port/db", "postgres://me:hunter2@[/db"] {
            let error = Postgres::new(url).err().unwrap();
            assert_eq!(error.code, ErrorCode::StoreUnavailable);
            assert!(!error.message.contains("hunter2"), "{}", error.message);
        }
    }
}
