//! What is particular to PostgreSQL: migrations, plans, deadlocks, outages, and what is said of them.

#![cfg(all(feature = "postgres", feature = "mysql"))]

mod databases;

use std::sync::Arc;
use std::time::Duration;

use databases::jobs::{accept, change, close, commit, create, enroll, load};
use databases::proxy::Proxy;
use databases::server::{PASSWORD, Server};
use databases::{Postgres, faults, unique};
use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{Claim, Outcome};
use framewright_core::repository::postgres::{PostgresOptions, PostgresRepository};
use framewright_core::repository::runtime::Store;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

async fn open(url: &str, options: PostgresOptions) -> Result<Arc<Store>, Error> {
    let url = url.to_owned();
    Store::open(move || async move { PostgresRepository::connect(&url, options).await }).await
}

/// Repeats a query of one number until it satisfies.
async fn until(connection: &mut PgConnection, query: &str, satisfied: impl Fn(i64) -> bool) {
    let wait = async {
        loop {
            let row = sqlx::query(AssertSqlSafe(query.to_owned())).fetch_one(&mut *connection).await.unwrap();
            if satisfied(row.get(0)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.unwrap_or_else(|_| panic!("in time: {query}"));
}

#[tokio::test]
async fn eight_processes_migrate_an_empty_database_at_once() {
    let database = Arc::new(Postgres::new());
    let openings: Vec<_> = (0..8)
        .map(|_| {
            let database = database.clone();
            tokio::spawn(async move { database.open().await })
        })
        .collect();
    let mut stores = Vec::new();
    for opening in openings {
        stores.push(opening.await.unwrap().expect("each of them opens"));
    }
    for (number, store) in stores.iter().enumerate() {
        accept(store, vec![create(&format!("job-{number}"), "me")]).await;
    }
    let events = stores[0].call(|repository| async move { repository.events(1, 100).await }).await.unwrap();
    assert_eq!(events.len(), 8);
    let sql = format!("SELECT count(*) FROM {}.framewright_schema", database.quoted());
    assert_eq!(sqlx::query(AssertSqlSafe(sql)).fetch_one(&mut database.connection().await).await.unwrap().get::<i64, _>(0), 1);
}

#[tokio::test]
async fn claims_and_listings_do_not_read_jobs_that_are_finished_or_of_other_types() {
    let mut database = Postgres::new();
    let name = unique("plans");
    database.url = format!("{}?application_name={name}", database.url);
    close(&database.open().await.unwrap()).await;
    database
        .run(
            "INSERT INTO @jobs (key, id, place, version, state, standing, claimable, hold, owner, head)
             SELECT -n, 'done-' || n, n, 1, 3 + n % 3, 1, 0, false, 'owner-' || n % 10, '{}' FROM generate_series(1, 100000) n;
             INSERT INTO @jobs (key, id, place, version, state, standing, claimable, hold, owner, kind, head)
             SELECT -100000 - n, 'new-' || n, 100000 + n, 1, 0, 0, 1, false, '', 'audio', '{}' FROM generate_series(1, 5000) n;
             INSERT INTO @jobs (key, id, place, version, state, standing, claimable, hold, owner, kind, head)
             SELECT -200000 - n, 'left-' || n, 200000 + n, 1, 1, 1, 3, false, 'owner-1', 'audio', '{}' FROM generate_series(1, 5000) n;
             UPDATE @counters SET value = 300000 WHERE name = 'place'; ANALYZE @jobs",
        )
        .await;
    let store = database.open().await.unwrap();
    accept(&store, (0..30).map(|n| create(&format!("open-{n}"), &format!("owner-{}", n % 3))).collect()).await;
    // Everybody is dead but owner-0, whose jobs are not to be had: nor are they read.
    enroll(&store, "owner-0").await;
    accept(&store, (0..5000).map(|n| create(&format!("owned-{n}"), "owner-0")).collect()).await;
    let mut connection = database.connection().await;
    let reset = format!("SELECT pg_stat_reset_single_table_counters(c.oid) FROM pg_class c WHERE relnamespace = '{}'::regnamespace", database.quoted());
    // What was counted before comes in with the end of its session.
    close(&store).await;
    let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND pid <> pg_backend_pid()");
    until(&mut connection, &sessions, |sessions| sessions == 0).await;
    sqlx::raw_sql(AssertSqlSafe(reset)).execute(&mut connection).await.unwrap();

    let store = database.open().await.unwrap();
    let mut claimed = 0;
    for _ in 0..8 {
        let list = |repository: Arc<dyn framewright_core::repository::durable::DurableRepository>| async move {
            let listing = repository.list(&[JobState::Running, JobState::Pending], 0, 10).await?;
            // Those of the other type have no spec.
            assert_eq!(listing.jobs.len() + listing.damaged.len(), 10);
            repository.claim(&Claim { owner: "me".into(), most: 2, unowned: true, kinds: Some(vec!["video".into()]), ..Claim::default() }).await
        };
        claimed += store.call(list).await.unwrap().len();
    }
    assert_eq!(claimed, 16);
    close(&store).await;
    until(&mut connection, &sessions, |sessions| sessions == 0).await;
    let read = format!(
        "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '{schema}' AND relname = 'framewright_jobs')::bigint
            + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = '{schema}' AND relname = 'framewright_jobs')::bigint",
        schema = database.schema
    );
    let read: i64 = sqlx::query(AssertSqlSafe(read)).fetch_one(&mut connection).await.unwrap().get(0);
    assert!((1..5_000).contains(&read), "{read} rows were read, of 100,000 finished and 15,030 open jobs");
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let mut database = Postgres::new();
    let name = unique("deadlock");
    database.url = format!("{}?application_name={name}", database.url);
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me"), create("b", "me")]).await;
    let mut other = PgConnection::connect(&databases::postgres_url()).await.unwrap();
    let jobs = format!("{}.framewright_jobs", database.quoted());
    // The other one does not look for deadlocks: the store is the one that is ended.
    let lock = format!("SET deadlock_timeout = '100s'; BEGIN; UPDATE {jobs} SET head = 'other' WHERE id = 'b'");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap();
    let group = tokio::spawn({
        let store = store.clone();
        async move { commit(&store, vec![change("b", 1), change("a", 1)]).await }
    });
    let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'");
    until(&mut database.connection().await, &waiting, |waiting| waiting == 1).await;
    let lock = format!("UPDATE {jobs} SET head = 'other' WHERE id = 'a'; COMMIT");
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.expect("the other one is not ended");
    assert_eq!(group.await.unwrap().expect("the group is committed by another try").len(), 2);
    assert_eq!(load(&store, "a").await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn new_jobs_of_which_one_exists_hold_nobody_up_while_they_wait() {
    let mut database = Postgres::new();
    let name = unique("create");
    database.url = format!("{}?application_name={name}", database.url);
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me")]).await;
    let mut other = PgConnection::connect(&databases::postgres_url()).await.unwrap();
    let table = |table: &str| format!("{}.framewright_{table}", database.quoted());
    // Less than `deadlock_timeout`: the store's group must not be ended for it.
    let lock = format!("SET lock_timeout = '500ms'; BEGIN; UPDATE {} SET head = 'other' WHERE id = 'a'", table("jobs"));
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap();
    let group = tokio::spawn({
        let store = store.clone();
        async move { commit(&store, vec![create("a", "me"), create("b", "me")]).await }
    });
    let waiting = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'");
    until(&mut database.connection().await, &waiting, |waiting| waiting == 1).await;
    let take = format!("UPDATE {} SET value = value + 1 WHERE name = 'place'; COMMIT", table("counters"));
    sqlx::raw_sql(AssertSqlSafe(take)).execute(&mut other).await.expect("nobody holds the counter");
    let outcomes = group.await.unwrap().unwrap();
    assert!(matches!(outcomes[..], [Outcome::Duplicate, Outcome::Accepted { .. }]), "{outcomes:?}");
}

#[tokio::test]
async fn a_busy_pool_delays_no_renewal() {
    let database = Postgres::new();
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me")]).await;
    enroll(&store, "me").await;
    let mut locked = database.connection().await;
    let lock = format!("BEGIN; SELECT FROM {}.framewright_jobs FOR UPDATE", database.quoted());
    sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut locked).await.unwrap();
    faults::a_busy_pool_delays_no_renewal(store, locked, |mut locked| async move {
        sqlx::raw_sql("COMMIT").execute(&mut locked).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_loses_nothing() {
    let mut server = Server::postgres().await;
    let database = Postgres::at(&format!("{}/postgres", server.url));
    let store = database.open().await.unwrap();
    faults::a_restart_loses_nothing(store, &mut server).await;
}

#[tokio::test]
async fn a_commit_tells_how_far_the_store_is() {
    let database = Postgres::new();
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me")]).await;
    let told = async {
        for version in 1.. {
            // The connection that listens may just be made: then nothing is known.
            store.call(|repository| async move { repository.mark().await }).await.unwrap();
            accept(&store, vec![change("a", version)]).await;
            let told = store.call(|repository| async move { Ok(repository.changed(Duration::from_millis(500)).await) }).await.unwrap();
            if let Some(mark) = told.filter(|mark| mark.sequence == version + 1) {
                return mark;
            }
        }
        unreachable!()
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await.expect("it is told, and not asked for");
    assert_eq!(told, store.call(|repository| async move { repository.mark().await }).await.unwrap());
}

/// A store behind a proxy.
async fn through_proxy(database: &Postgres) -> (Arc<Store>, Proxy) {
    let url: sqlx::postgres::PgConnectOptions = database.url.parse().unwrap();
    let proxy = Proxy::before((url.get_host().parse::<std::net::IpAddr>().unwrap(), url.get_port()).into()).await;
    let through = database.url.replace(&format!(":{}", url.get_port()), &format!(":{}", proxy.port));
    (open(&through, database.options()).await.unwrap(), proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_noticed() {
    let database = Postgres::new();
    let (store, proxy) = through_proxy(&database).await;
    faults::a_silent_network_is_noticed(store, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_send_at_once() {
    let database = Postgres::new();
    let (store, proxy) = through_proxy(&database).await;
    faults::connections_send_at_once(store, &proxy).await;
}

#[tokio::test]
async fn a_connection_that_is_ended_is_replaced() {
    let mut database = Postgres::new();
    let name = unique("ended");
    database.url = format!("{}?application_name={name}", database.url);
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me")]).await;
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}' AND pid <> pg_backend_pid()");
    let mut connection = PgConnection::connect(&databases::postgres_url()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(end)).execute(&mut connection).await.unwrap();
    accept(&store, vec![change("a", 1)]).await;
    // It listens again, too.
    let listening = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND query LIKE 'LISTEN%'");
    until(&mut connection, &listening, |listening| listening == 1).await;
}

#[tokio::test]
async fn what_a_server_refuses_is_told_without_the_password() {
    let server = Server::postgres().await;
    let port = server.port;
    let mut admin = PgConnection::connect(&format!("{}/postgres", server.url)).await.unwrap();
    let guest = format!("CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE full_disk");
    for statement in guest.split("; ") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.unwrap();
    }
    for (url, expected) in [
        (format!("postgres://admin:{PASSWORD}-wrong@127.0.0.1:{port}/postgres"), "Check user and password"),
        (format!("postgres://admin:{PASSWORD}@127.0.0.1:{port}/nowhere"), "Create the database"),
        (format!("postgres://guest:{PASSWORD}@127.0.0.1:{port}/postgres"), "Grant the user"),
        (format!("postgres://admin:{PASSWORD}@127.0.0.1:1/postgres"), "Start it"),
        (format!("postgres://admin:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=require"), "TLS"),
        (format!("postgres://admin:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode={PASSWORD}"), "can't be read"),
    ] {
        let error = open(&url, PostgresOptions { schema: Some("jobs".into()), ..PostgresOptions::default() })
            .await
            .err()
            .unwrap_or_else(|| panic!("{url} must be refused"));
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.message.contains(expected), "{url}: {error}");
        assert!(!error.message.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn a_server_is_reached_by_tls_and_known_by_its_certificate() {
    let mut server = Server::postgres().await;
    let authority = server.offer_tls().await.display().to_string();
    let port = server.port;
    let url = |host: &str, parameters: &str| format!("postgres://admin:{PASSWORD}@{host}:{port}/postgres?application_name=tls&{parameters}");
    let options = || PostgresOptions { schema: Some("jobs".into()), ..PostgresOptions::default() };
    let mut admin = PgConnection::connect(&format!("{}/postgres", server.url)).await.unwrap();
    for (host, parameters) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={authority}")),
        // Another name of the host is no matter to these.
        ("localhost", format!("sslmode=verify-ca&sslrootcert={authority}")),
        ("localhost", "sslmode=require".into()),
        ("127.0.0.1", "sslmode=prefer".into()),
    ] {
        let store = open(&url(host, &parameters), options()).await.unwrap_or_else(|error| panic!("{parameters}: {error}"));
        accept(&store, vec![create(&unique("job"), "me")]).await;
        let open = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'tls' AND";
        until(&mut admin, &format!("{open} ssl"), |secured| secured > 0).await;
        until(&mut admin, &format!("{open} NOT ssl"), |bare| bare == 0).await;
        close(&store).await;
        until(&mut admin, &format!("{open} true"), |left| left == 0).await;
    }
    for (host, parameters) in [
        ("127.0.0.1", "sslmode=verify-full".to_owned()),
        ("127.0.0.1", "sslmode=verify-ca".into()),
        ("localhost", format!("sslmode=verify-full&sslrootcert={authority}")),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={authority}.missing")),
    ] {
        let error = open(&url(host, &parameters), options()).await.err().unwrap_or_else(|| panic!("{host} {parameters} must be refused"));
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.message.contains("Check the TLS parameters"), "{host} {parameters}: {error}");
        assert!(!error.message.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_corrupt_and_what_is_newer_unavailable() {
    for (statements, code) in [
        ("CREATE TABLE @schema (name TEXT)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE @schema (version BIGINT)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE @schema (version BIGINT); INSERT INTO @schema VALUES (1)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE @jobs (name TEXT)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE @schema (version BIGINT); INSERT INTO @schema VALUES (1000)", ErrorCode::StoreUnavailable),
    ] {
        let database = Postgres::new();
        database.run(&format!("CREATE SCHEMA {}; {statements}", database.quoted())).await;
        let error = database.open().await.err().unwrap_or_else(|| panic!("{statements} must be refused"));
        assert_eq!(error.code, code, "{statements}: {error}");
    }
}

#[tokio::test]
async fn a_full_disk_and_a_damaged_record_are_told_as_what_they_are() {
    let database = Postgres::new();
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me"), create("b", "me")]).await;
    database.run("DELETE FROM @texts WHERE name = 0 AND job_key = (SELECT key FROM @jobs WHERE id = 'a')").await;
    let error = load(&store, "a").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreCorrupt);
    assert!(error.message.contains("spec"), "{error}");
    let listing = store.call(|repository| async move { repository.list(&[], 0, 10).await }).await.unwrap();
    assert_eq!((listing.jobs.len(), &*listing.damaged[0].0), (1, "a"));

    let full = format!(
        "CREATE FUNCTION {0}.full() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room' USING ERRCODE = '53100'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON @events FOR EACH ROW EXECUTE FUNCTION {0}.full()",
        database.quoted()
    );
    database.run(&full).await;
    let error = commit(&store, vec![change("b", 1)]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreFull);
    database.run("DROP TRIGGER full_disk ON @events").await;
    accept(&store, vec![change("b", 1)]).await;
}
