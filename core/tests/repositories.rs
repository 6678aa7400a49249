//! The conformance suite, run against every durable repository: one line each.

mod conformance;
#[cfg(all(feature = "postgres", feature = "mysql"))]
mod databases;

use std::sync::Arc;

use async_trait::async_trait;
use conformance::{Fixture, Subject};
use framewright_core::job::{Error, ErrorCode};
use framewright_core::repository::file::FileRepository;
use framewright_core::repository::runtime::Store;
use framewright_core::repository::simulated::SimulatedDisk;

/// A disk in memory.
struct Simulated(SimulatedDisk);

#[async_trait]
impl Subject for Simulated {
    async fn open(&self) -> Result<Arc<Store>, Error> {
        let disk = self.0.clone();
        Store::open(move || async move { disk.open() }).await
    }
}

async fn simulated() -> Simulated {
    Simulated(SimulatedDisk::new())
}

conformance!(simulated_repository, simulated);

/// A suite that finds nothing proves nothing.
#[tokio::test]
#[should_panic(expected = "version 1: ")]
async fn the_suite_finds_a_store_that_does_not_check_versions() {
    let disk = SimulatedDisk::new();
    disk.skip_version_check(true);
    conformance::write::of_writers_that_expect_the_same_version_one_wins(Fixture::new(Simulated(disk)).await).await;
}

/// A file in a folder of its own.
#[cfg(feature = "sqlite")]
struct Sqlite(tempfile::TempDir);

#[cfg(feature = "sqlite")]
#[async_trait]
impl Subject for Sqlite {
    async fn open(&self) -> Result<Arc<Store>, Error> {
        use framewright_core::repository::sqlite::{SqliteRepository, Synchronous};
        let path = self.0.path().join("jobs.db");
        Store::open(move || SqliteRepository::open(path, Synchronous::Full)).await
    }
}

#[cfg(feature = "sqlite")]
async fn sqlite() -> Sqlite {
    Sqlite(tempfile::tempdir().expect("a folder"))
}

#[cfg(feature = "sqlite")]
conformance!(sqlite_repository, sqlite);

/// A directory that goes away with its test, and bytes of a segment of the store in it.
struct Directory(tempfile::TempDir, u64);

#[async_trait]
impl Subject for Directory {
    async fn open(&self) -> Result<Arc<Store>, Error> {
        let (path, segment) = (self.0.path().to_owned(), self.1);
        let import = |_: &str| Err(Error::new(ErrorCode::Internal, "there are no status files"));
        Store::open(move || async move { FileRepository::open_with(path, import, segment) }).await
    }
}

async fn directory() -> Directory {
    Directory(tempfile::tempdir().expect("a directory"), 32 << 20)
}

/// Nearly every group is carried over to the jobs' own files at once.
async fn small_segments() -> Directory {
    Directory(tempfile::tempdir().expect("a directory"), 1 << 10)
}

conformance!(file_repository, directory);
conformance!(file_repository_of_small_segments, small_segments);

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[async_trait]
impl Subject for databases::Postgres {
    async fn open(&self) -> Result<Arc<Store>, Error> {
        databases::Postgres::open(self).await
    }
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
#[async_trait]
impl Subject for databases::Mysql {
    async fn open(&self) -> Result<Arc<Store>, Error> {
        databases::Mysql::open(self).await
    }
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
async fn postgres() -> databases::Postgres {
    databases::Postgres::new()
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
conformance!(postgres_repository, postgres);

#[cfg(all(feature = "postgres", feature = "mysql"))]
async fn mysql() -> databases::Mysql {
    databases::Mysql::new().await
}

#[cfg(all(feature = "postgres", feature = "mysql"))]
conformance!(mysql_repository, mysql);
