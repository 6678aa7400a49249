//! Owners, their leases, and what they leave behind. Leases are judged by the server's clock, in the statement.

use std::sync::Arc;

use std::collections::HashSet;
use std::time::Duration;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Row};

use super::MysqlRepository;
use super::rows::list;
use crate::repository::durable::{Claim, Claimed, OwnerRow};
use crate::repository::sql::claimable;
use crate::repository::sql::connections::Failed;
use crate::repository::sql::judge::Standing;

const ENROLL: &str = "
    INSERT INTO framewright_owners (id, place, lease_ends, renewed_at)
    VALUES (?, ?, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, UTC_TIMESTAMP(6))
    ON DUPLICATE KEY UPDATE place = VALUES(place), lease_ends = VALUES(lease_ends), renewed_at = VALUES(renewed_at)";

const RENEW: &str = "
    UPDATE framewright_owners SET lease_ends = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, renewed_at = UTC_TIMESTAMP(6) WHERE id = ?";

const RETIRE: &str = "DELETE FROM framewright_owners WHERE id = ?";

const OWNERS: &str = "SELECT id, place, lease_ends <= UTC_TIMESTAMP(6) FROM framewright_owners ORDER BY id";

/// The next owner of claimable jobs: one step in the index, however many jobs each of them has. (As a recursive query it
/// would read them all.)
const NEXT_HOLDER: &str = "SELECT MIN(owner) FROM framewright_jobs WHERE claimable = 3 AND owner > ?";

/// Whether there are jobs that nobody owns: given back, and new.
const OWNERLESS: &str = "
    SELECT EXISTS (SELECT 1 FROM framewright_jobs WHERE claimable = 2), EXISTS (SELECT 1 FROM framewright_jobs WHERE claimable = 1)";

const ALIVE: &str = "SELECT id FROM framewright_owners WHERE lease_ends > UTC_TIMESTAMP(6)";

/// The oldest of a source that nobody else is about to take.
const LOCK_OLDEST: &str = "SELECT job_key, id, place, owner FROM framewright_jobs";

const BY_CLAIMABLE: &str = " FORCE INDEX (framewright_jobs_claimable)";

/// The owner is looked at again: he may have renewed.
const DEAD: &str = " AND NOT EXISTS (SELECT 1 FROM framewright_owners o WHERE o.id = framewright_jobs.owner AND o.lease_ends > UTC_TIMESTAMP(6))";

impl MysqlRepository {
    pub(super) async fn enroll_on(&self, connection: &mut MySqlConnection, owner: &str, place: &str, lease: Duration) -> Result<(), Failed> {
        sqlx::query(ENROLL).bind(owner.as_bytes()).bind(place).bind(lease.as_micros() as i64).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn renew_on(&self, connection: &mut MySqlConnection, owner: &str, lease: Duration) -> Result<bool, Failed> {
        let done = sqlx::query(RENEW).bind(lease.as_micros() as i64).bind(owner.as_bytes()).execute(connection).await?;
        Ok(done.rows_affected() > 0)
    }

    pub(super) async fn retire_on(&self, connection: &mut MySqlConnection, owner: &str) -> Result<(), Failed> {
        sqlx::query(RETIRE).bind(owner.as_bytes()).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn owners_on(&self, connection: &mut MySqlConnection) -> Result<Vec<OwnerRow>, Failed> {
        let rows = sqlx::query(OWNERS).fetch_all(connection).await?;
        rows.iter()
            .map(|row| {
                let id = row.try_get_unchecked::<&str, _>(0)?.into();
                Ok(OwnerRow { id, place: row.try_get_unchecked(1)?, expired: row.try_get_unchecked(2)? })
            })
            .collect()
    }

    pub(super) async fn owned_on(&self, connection: &mut MySqlConnection, owner: &str) -> Result<Vec<Arc<str>>, Failed> {
        let sql = "SELECT id FROM framewright_jobs WHERE claimable = ? AND owner = ? ORDER BY place";
        let rows = sqlx::query(sql).bind(claimable::OWNED).bind(owner.as_bytes()).fetch_all(connection).await?;
        rows.iter().map(|row| Ok(row.try_get_unchecked::<&str, _>(0)?.into())).collect()
    }

    pub(super) async fn claim_on(&self, connection: &mut MySqlConnection, claim: &Claim) -> Result<Vec<Claimed>, Failed> {
        // Most claims end here, without a transaction.
        let sources = self.sources(connection, claim).await?;
        if sources.is_empty() || claim.most == 0 {
            return Ok(Vec::new());
        }
        sqlx::raw_sql("START TRANSACTION").execute(&mut *connection).await?;
        let mut found: Vec<(i64, i64, Claimed)> = Vec::new();
        for (source, owner) in &sources {
            let (source, owner) = (*source, &**owner);
            for row in self.lock(connection, claim, source, owner).await? {
                let claimed = Claimed {
                    id: row.try_get_unchecked::<&str, _>(1)?.into(),
                    previous: (!owner.is_empty()).then(|| owner.into()),
                    released: source == claimable::RELEASED,
                };
                found.push((row.try_get(2)?, row.try_get(0)?, claimed));
            }
        }
        // Of several sources more may be locked than are taken; those are free again with the commit.
        found.sort_by_key(|job| job.0);
        // A type that is named twice finds its jobs twice.
        found.dedup_by_key(|job| job.0);
        found.truncate(claim.most);
        for taken in found.chunks(1024) {
            let (marks, taken) = list(taken);
            let sql = format!("UPDATE framewright_jobs SET owner = ?, standing = ?, claimable = ? WHERE job_key IN ({marks})");
            let mut query = sqlx::query(AssertSqlSafe(sql)).bind(claim.owner.as_bytes()).bind(Standing::Owned as i16).bind(claimable::OWNED);
            for job in taken {
                query = query.bind(job.1);
            }
            query.execute(&mut *connection).await?;
        }
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(Failed::Unsure)?;
        Ok(found.into_iter().map(|job| job.2).collect())
    }

    /// Whose jobs may be claimed, and as what; nobody's under an empty owner.
    async fn sources(&self, connection: &mut MySqlConnection, claim: &Claim) -> Result<Vec<(i16, String)>, Failed> {
        let mut sources = Vec::new();
        let row = sqlx::query(OWNERLESS).fetch_one(&mut *connection).await?;
        if row.try_get_unchecked(0)? {
            sources.push((claimable::RELEASED, String::new()));
        }
        if claim.unowned && row.try_get_unchecked(1)? {
            sources.push((claimable::NEW, String::new()));
        }
        let alive = sqlx::query(ALIVE).fetch_all(&mut *connection).await?;
        let alive = alive.iter().map(|row| row.try_get_unchecked::<&str, _>(0)).collect::<Result<HashSet<&str>, _>>()?;
        let mut last = String::new();
        loop {
            let row = sqlx::query(NEXT_HOLDER).bind(last.as_bytes()).fetch_one(&mut *connection).await?;
            let Some(holder) = row.try_get_unchecked::<Option<String>, _>(0)? else { return Ok(sources) };
            if !alive.contains(&*holder) || claim.dead.iter().any(|dead| **dead == *holder) {
                sources.push((claimable::OWNED, holder.clone()));
            }
            last = holder;
        }
    }

    async fn lock(&self, connection: &mut MySqlConnection, claim: &Claim, source: i16, owner: &str) -> Result<Vec<MySqlRow>, Failed> {
        if let Some(only) = &claim.only {
            let kinds = claim.kinds.as_deref();
            let of_kind = match kinds {
                None => String::new(),
                Some([]) => " AND kind IS NULL".into(),
                Some(kinds) => format!(" AND (kind IS NULL OR kind IN ({}))", list(kinds).0),
            };
            let values: Vec<&str> = [&**only].into_iter().chain(kinds.into_iter().flat_map(|kinds| list(kinds).1.map(|kind| &**kind))).collect();
            return self.lock_oldest(connection, claim, (source, owner), ("", &format!(" AND id = ?{of_kind}")), &values).await;
        }
        let Some(kinds) = &claim.kinds else {
            return self.lock_oldest(connection, claim, (source, owner), (BY_CLAIMABLE, ""), &[]).await;
        };
        // Each type by itself is a part of the index, in order of place.
        let mut rows = self.lock_oldest(connection, claim, (source, owner), (BY_CLAIMABLE, " AND kind IS NULL"), &[]).await?;
        for kind in kinds {
            rows.append(&mut self.lock_oldest(connection, claim, (source, owner), (BY_CLAIMABLE, " AND kind = ?"), &[kind]).await?);
        }
        Ok(rows)
    }

    async fn lock_oldest(
        &self,
        connection: &mut MySqlConnection,
        claim: &Claim,
        (source, owner): (i16, &str),
        (index, which): (&str, &str),
        values: &[&str],
    ) -> Result<Vec<MySqlRow>, Failed> {
        let checked = source == claimable::OWNED && !claim.dead.iter().any(|dead| **dead == *owner);
        let dead = if checked { DEAD } else { "" };
        let sql = format!("{LOCK_OLDEST}{index} WHERE claimable = ? AND owner = ?{which}{dead} ORDER BY place LIMIT ? FOR UPDATE SKIP LOCKED");
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(source).bind(owner.as_bytes());
        for value in values {
            query = query.bind(value.as_bytes());
        }
        Ok(query.bind(i64::try_from(claim.most).unwrap_or(i64::MAX)).fetch_all(connection).await?)
    }
}
