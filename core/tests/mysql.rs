//! What is particular to MySQL and MariaDB: migrations, plans, deadlocks, packets, outages, and what is said of them.

#![cfg(all(feature = "postgres", feature = "mysql"))]

mod databases;

use std::sync::Arc;
use std::time::Duration;

use databases::jobs::{accept, change, close, commit, create, enroll, load, put};
use databases::proxy::Proxy;
use databases::server::{PASSWORD, Server};
use databases::{Mysql, faults};
use framewright_core::job::{Error, ErrorCode, JobState};
use framewright_core::repository::durable::{Action, ChunkWrite, Claim, EventWrite, Expect, Holder, Put, Write};
use framewright_core::repository::mysql::{MysqlOptions, MysqlRepository};
use framewright_core::repository::runtime::Store;
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

async fn open(url: &str) -> Result<Arc<Store>, Error> {
    let url = url.to_owned();
    Store::open(move || async move { MysqlRepository::connect(&url, MysqlOptions::default()).await }).await
}

/// Rows that the server has read for anybody.
async fn rows_read(connection: &mut MySqlConnection) -> i64 {
    let rows = sqlx::query("SHOW GLOBAL STATUS LIKE 'Handler_read%'").fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.try_get_unchecked::<&str, _>(1).unwrap().parse::<i64>().unwrap()).sum()
}

#[tokio::test]
async fn eight_processes_migrate_an_empty_database_at_once() {
    let database = Arc::new(Mysql::new().await);
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
    let versions: i64 = sqlx::query("SELECT COUNT(*) FROM framewright_schema").fetch_one(&mut database.connection().await).await.unwrap().get(0);
    assert_eq!(versions, 1);
}

#[tokio::test]
async fn a_migration_that_ended_in_the_middle_is_ended_by_the_next_process() {
    let database = Mysql::new().await;
    close(&database.open().await.unwrap()).await;
    database.run("DELETE FROM framewright_schema; DROP TABLE framewright_events").await;
    accept(&database.open().await.unwrap(), vec![create("a", "me")]).await;
}

// On a server of its own, whose counters nobody else moves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_listings_do_not_read_jobs_that_are_finished_or_of_other_types() {
    let server = Server::mariadb().await;
    let database = Mysql::at(&server.url).await;
    let store = database.open().await.unwrap();
    database
        .run(
            "INSERT INTO framewright_jobs (job_key, id, place, version, state, standing, claimable, hold, owner, head)
             SELECT -seq, CONCAT('done-', seq), seq, 1, 3 + seq % 3, 1, 0, 0, CONCAT('owner-', seq % 10), '{}' FROM seq_1_to_100000;
             INSERT INTO framewright_jobs (job_key, id, place, version, state, standing, claimable, hold, owner, kind, head)
             SELECT -100000 - CAST(seq AS SIGNED), CONCAT('new-', seq), 100000 + seq, 1, 0, 0, 1, 0, '', 'audio', '{}' FROM seq_1_to_5000;
             INSERT INTO framewright_jobs (job_key, id, place, version, state, standing, claimable, hold, owner, kind, head)
             SELECT -200000 - CAST(seq AS SIGNED), CONCAT('left-', seq), 200000 + seq, 1, 1, 1, 3, 0, 'owner-1', 'audio', '{}' FROM seq_1_to_5000;
             UPDATE framewright_counters SET value = 300000 WHERE name = 'place'; ANALYZE TABLE framewright_jobs",
        )
        .await;
    accept(&store, (0..30).map(|n| create(&format!("open-{n}"), &format!("owner-{}", n % 3))).collect()).await;
    // Everybody is dead but owner-0, whose jobs are not to be had: nor are they read.
    enroll(&store, "owner-0").await;
    accept(&store, (0..5000).map(|n| create(&format!("owned-{n}"), "owner-0")).collect()).await;
    let mut connection = database.connection().await;
    let before = rows_read(&mut connection).await;
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
    let read = rows_read(&mut connection).await - before;
    assert!((1..5_000).contains(&read), "{read} rows were read, of 100,000 finished and 15,030 open jobs");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_loses_nothing() {
    let mut server = Server::mariadb().await;
    let database = Mysql::at(&server.url).await;
    let store = database.open().await.unwrap();
    faults::a_restart_loses_nothing(store, &mut server).await;
}

/// A store behind a proxy.
async fn through_proxy(database: &Mysql) -> (Arc<Store>, Proxy) {
    let url: sqlx::mysql::MySqlConnectOptions = database.url().parse().unwrap();
    let proxy = Proxy::before((url.get_host().parse::<std::net::IpAddr>().unwrap(), url.get_port()).into()).await;
    let store = open(&database.url().replace(&format!(":{}", url.get_port()), &format!(":{}", proxy.port))).await.unwrap();
    (store, proxy)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_network_is_noticed() {
    let database = Mysql::new().await;
    let (store, proxy) = through_proxy(&database).await;
    faults::a_silent_network_is_noticed(store, &proxy).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_send_at_once() {
    let database = Mysql::new().await;
    let (store, proxy) = through_proxy(&database).await;
    faults::connections_send_at_once(store, &proxy).await;
}

#[tokio::test]
async fn a_deadlock_is_tried_again() {
    let database = Mysql::new().await;
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me"), create("b", "me")]).await;
    let mut other = database.connection().await;
    // Much written, so that the server ends the store's transaction, not this one.
    sqlx::raw_sql("CREATE TABLE weight (n INT PRIMARY KEY); START TRANSACTION; INSERT INTO weight SELECT seq FROM seq_1_to_1000; UPDATE framewright_jobs SET head = 'other' WHERE id = 'b'")
        .execute(&mut other)
        .await
        .unwrap();
    let group = tokio::spawn({
        let store = store.clone();
        async move { commit(&store, vec![change("b", 1), change("a", 1)]).await }
    });
    let mut watching = database.connection().await;
    let waiting = async {
        // The table of transactions is refreshed only so often: the wait may show late.
        let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id
            WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()";
        while sqlx::query(sql).fetch_one(&mut watching).await.unwrap().get::<i64, _>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the group waits for the lock");
    sqlx::raw_sql("UPDATE framewright_jobs SET head = 'other' WHERE id = 'a'; COMMIT").execute(&mut other).await.expect("the other one is not ended");
    assert_eq!(group.await.unwrap().expect("the group is committed by another try").len(), 2);
    assert_eq!(load(&store, "a").await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn a_busy_pool_delays_no_renewal() {
    let database = Mysql::new().await;
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me")]).await;
    enroll(&store, "me").await;
    let mut locked = database.connection().await;
    sqlx::raw_sql("START TRANSACTION; UPDATE framewright_jobs SET head = 'locked'").execute(&mut locked).await.unwrap();
    faults::a_busy_pool_delays_no_renewal(store, locked, |mut locked| async move {
        sqlx::raw_sql("ROLLBACK").execute(&mut locked).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_larger_than_a_packet_is_kept_in_parts() {
    let database = Mysql::new().await;
    let store = database.open().await.unwrap();
    let large = |text: &str| text.repeat(20_000_000 / text.len());
    let (spec, body, event) = (large("späc"), large("b\u{0}dy"), large("é"));
    let written = Put {
        spec: Some(spec.clone()),
        chunks: vec![ChunkWrite { index: 3, body: body.clone() }],
        events: vec![EventWrite { body: event.clone().into() }],
        ..put(2)
    };
    accept(
        &store,
        vec![create("a", "me"), Write { id: "a".into(), expect: Expect::At { version: 1, holder: Holder::Anyone }, action: Action::Put(written.into()) }],
    )
    .await;
    let request = event.clone();
    assert!(store.call(move |repository| async move { repository.request("a", &request).await }).await.unwrap());
    let stored = load(&store, "a").await.unwrap().unwrap();
    assert!(stored.spec == spec && stored.chunks == [(3, body)] && stored.requests == [event.clone()]);
    let events = store.call(|repository| async move { repository.events(2, 10).await }).await.unwrap();
    assert!(events.len() == 1 && *events[0].body == *event);
    let requests = store.call(|repository| async move { repository.requests("me").await }).await.unwrap();
    assert!(requests.len() == 1 && requests[0].1 == event);

    // What replaces it is shorter: the parts that are left do not count.
    let shorter = Put { spec: Some("short".into()), chunks: vec![ChunkWrite { index: 3, body: "row".into() }], ..put(3) };
    accept(&store, vec![Write { id: "a".into(), expect: Expect::At { version: 2, holder: Holder::Anyone }, action: Action::Put(shorter.into()) }]).await;
    let stored = load(&store, "a").await.unwrap().unwrap();
    assert_eq!((&*stored.spec, &stored.chunks[..]), ("short", &[(3, "row".to_owned())][..]));
}

#[tokio::test]
async fn what_a_server_refuses_is_told_without_the_password() {
    let server = Server::mariadb().await;
    let port = server.port;
    let mut admin = MySqlConnection::connect(&server.url).await.unwrap();
    let guest = format!("CREATE DATABASE jobs; CREATE USER guest@localhost IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON jobs.* TO guest@localhost");
    sqlx::raw_sql(AssertSqlSafe(guest)).execute(&mut admin).await.unwrap();
    for (url, expected) in [
        (format!("mysql://root:{PASSWORD}-wrong@127.0.0.1:{port}/jobs"), "Check user and password"),
        (format!("mysql://root:{PASSWORD}@127.0.0.1:{port}/nowhere"), "Create the database"),
        (format!("mysql://guest:{PASSWORD}@127.0.0.1:{port}/jobs"), "Grant the user"),
        (format!("mysql://root:{PASSWORD}@127.0.0.1:{port}"), "names no database"),
        (format!("mysql://root:{PASSWORD}@127.0.0.1:1/jobs"), "Start it"),
        (format!("mysql://root:{PASSWORD}@127.0.0.1:{port}/jobs?ssl-mode=REQUIRED"), "TLS"),
        (format!("mysql://root:{PASSWORD}@127.0.0.1:{port}/jobs?ssl-mode={PASSWORD}"), "can't be read"),
    ] {
        let error = open(&url).await.err().unwrap_or_else(|| panic!("{url} must be refused"));
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.message.contains(expected), "{url}: {error}");
        assert!(!error.message.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn a_server_is_reached_by_tls_and_known_by_its_certificate() {
    let mut server = Server::mariadb().await;
    let authority = server.offer_tls().await.display().to_string();
    let port = server.port;
    let mut admin = MySqlConnection::connect(&server.url).await.unwrap();
    sqlx::raw_sql("CREATE DATABASE jobs; SET GLOBAL require_secure_transport = ON").execute(&mut admin).await.unwrap();
    let url = |host: &str, parameters: &str| format!("mysql://root:{PASSWORD}@{host}:{port}/jobs?{parameters}");
    for (host, parameters) in [
        ("127.0.0.1", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={authority}")),
        // Another name of the host is no matter to these.
        ("localhost", format!("ssl-mode=VERIFY_CA&ssl-ca={authority}")),
        ("localhost", "ssl-mode=REQUIRED".into()),
        ("127.0.0.1", "ssl-mode=PREFERRED".into()),
    ] {
        let store = open(&url(host, &parameters)).await.unwrap_or_else(|error| panic!("{parameters}: {error}"));
        accept(&store, vec![create(&databases::unique("job"), "me")]).await;
        close(&store).await;
    }
    for (host, parameters, expected) in [
        ("127.0.0.1", "ssl-mode=VERIFY_IDENTITY".to_owned(), "Check the TLS parameters"),
        ("127.0.0.1", "ssl-mode=VERIFY_CA".into(), "Check the TLS parameters"),
        ("localhost", format!("ssl-mode=VERIFY_IDENTITY&ssl-ca={authority}"), "Check the TLS parameters"),
        ("127.0.0.1", format!("ssl-mode=VERIFY_CA&ssl-ca={authority}.missing"), "Check the TLS parameters"),
        ("127.0.0.1", "ssl-mode=DISABLED".into(), "insists on TLS"),
    ] {
        let error = open(&url(host, &parameters)).await.err().unwrap_or_else(|| panic!("{host} {parameters} must be refused"));
        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
        assert!(error.message.contains(expected), "{host} {parameters}: {error}");
        assert!(!error.message.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn what_is_not_ours_is_corrupt_and_what_is_newer_unavailable() {
    for (statements, code) in [
        ("CREATE TABLE framewright_schema (name TEXT)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE framewright_schema (version BIGINT); INSERT INTO framewright_schema VALUES (1)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE framewright_jobs (name TEXT)", ErrorCode::StoreCorrupt),
        ("CREATE TABLE framewright_schema (version BIGINT); INSERT INTO framewright_schema VALUES (1000)", ErrorCode::StoreUnavailable),
    ] {
        let database = Mysql::new().await;
        database.run(statements).await;
        let error = database.open().await.err().unwrap_or_else(|| panic!("{statements} must be refused"));
        assert_eq!(error.code, code, "{statements}: {error}");
    }
}

#[tokio::test]
async fn a_full_disk_and_a_damaged_record_are_told_as_what_they_are() {
    let database = Mysql::new().await;
    let store = database.open().await.unwrap();
    accept(&store, vec![create("a", "me"), create("b", "me")]).await;
    database.run("DELETE FROM framewright_texts WHERE name = 0 AND job_key = (SELECT job_key FROM framewright_jobs WHERE id = 'a')").await;
    let error = load(&store, "a").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreCorrupt);
    assert!(error.message.contains("spec"), "{error}");
    let listing = store.call(|repository| async move { repository.list(&[], 0, 10).await }).await.unwrap();
    assert_eq!((listing.jobs.len(), &*listing.damaged[0].0), (1, "a"));

    let full = "CREATE TRIGGER full_disk BEFORE INSERT ON framewright_events FOR EACH ROW SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'";
    database.run(full).await;
    assert_eq!(commit(&store, vec![change("b", 1)]).await.unwrap_err().code, ErrorCode::StoreFull);
    database.run("DROP TRIGGER full_disk").await;
    accept(&store, vec![change("b", 1)]).await;
}
