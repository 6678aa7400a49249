//! The plans that the indexes are there for: none of these statements may walk through the jobs.

use sqlx::{AssertSqlSafe, ConnectOptions, Row, SqliteConnection};

use super::{claim, connection, read, schema, write};

async fn database(folder: &std::path::Path) -> SqliteConnection {
    let path = folder.join("jobs.db");
    let mut connection = connection::options(&path).create_if_missing(true).connect().await.expect("a connection");
    schema::migrate(&path, &mut connection).await.expect("the schema");
    connection
}

async fn plan(connection: &mut SqliteConnection, statement: &str) -> String {
    let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).fetch_all(connection).await.expect("a plan");
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("\n")
}

/// No scan of the table or of a whole index of jobs, and no sorting.
fn seeks(plan: &str, table: &str) {
    for line in plan.lines() {
        assert!(!line.starts_with(&format!("SCAN {table}")), "{plan}");
        assert!(!line.contains("TEMP B-TREE"), "{plan}");
        assert!(!line.contains("AUTOMATIC"), "{plan}");
    }
}

#[tokio::test]
async fn a_listing_by_state_uses_the_index() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = &mut database(folder.path()).await;
    let one = plan(connection, &read::page(1)).await;
    assert!(one.contains("SEARCH job USING COVERING INDEX job_by_state (state=? AND place>?)"), "{one}");
    seeks(&one, "job");
    let two = plan(connection, &read::page(2)).await;
    assert!(two.contains("MERGE (UNION ALL)"), "{two}");
    assert_eq!(two.matches("USING COVERING INDEX job_by_state (state=? AND place>?)").count(), 2, "{two}");
    seeks(&two, "job");
    let all = plan(connection, &read::page(0)).await;
    assert!(all.contains("SEARCH job USING INTEGER PRIMARY KEY (rowid>?)"), "{all}");
    seeks(&all, "job");
}

#[tokio::test]
async fn a_claim_uses_the_index_of_work_that_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = &mut database(folder.path()).await;
    let groups = plan(connection, claim::GROUPS).await;
    // The first group is the first entry of the partial index, the next ones are seeks.
    assert!(groups.contains("SCAN job USING INDEX job_to_claim"), "{groups}");
    assert!(groups.contains("SEARCH next USING INDEX job_to_claim ((standing,owner,typed,kind)>(?,?,?,?))"), "{groups}");
    assert!(
        !groups.contains("TEMP B-TREE") && !groups.contains("SCAN next") && !groups.contains("SCAN here") && !groups.lines().any(|line| line == "SCAN job"),
        "{groups}"
    );
    let oldest = plan(connection, claim::OLDEST).await;
    assert!(oldest.contains("SEARCH job USING INDEX job_to_claim (standing=? AND owner=? AND typed=? AND kind=?)"), "{oldest}");
    seeks(&oldest, "job");
    seeks(&plan(connection, claim::TAKE).await, "job");
}

#[tokio::test]
async fn a_commit_seeks_its_jobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = &mut database(folder.path()).await;
    let find = plan(connection, write::FIND).await;
    assert!(find.contains("SEARCH job USING INDEX sqlite_autoindex_job_1 (id=?)"), "{find}");
    let update = plan(connection, write::UPDATE_JOBS).await;
    assert!(update.contains("SEARCH job USING INTEGER PRIMARY KEY (rowid=?)"), "{update}");
    seeks(&update, "job");
    let forget = plan(connection, write::DELETE_EVENTS).await;
    assert!(forget.contains("event_by_job (job=?)"), "{forget}");
}

#[tokio::test]
async fn requests_are_read_from_the_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = &mut database(folder.path()).await;
    let requests = plan(connection, read::REQUESTS_OF_OWNER).await;
    assert!(requests.contains("SCAN request") && requests.contains("SEARCH job USING INTEGER PRIMARY KEY"), "{requests}");
    seeks(&requests, "job");
}
