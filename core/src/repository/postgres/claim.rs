//! Owners, their leases, and what they leave behind. Leases are judged by the server's clock, in the statement.

use std::sync::Arc;

use std::time::Duration;

use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::PostgresRepository;
use super::write::BEGIN;
use crate::repository::durable::{Claim, Claimed, OwnerRow};
use crate::repository::sql::claimable;
use crate::repository::sql::connections::Failed;
use crate::repository::sql::judge::Standing;

const ENROLL: &str = "
    INSERT INTO @owners (id, place, lease_ends, renewed_at)
    VALUES ($1, $2, clock_timestamp() + $3 * interval '1 millisecond', clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET place = excluded.place, lease_ends = excluded.lease_ends, renewed_at = excluded.renewed_at";

const RENEW: &str = "
    UPDATE @owners SET lease_ends = clock_timestamp() + $2 * interval '1 millisecond', renewed_at = clock_timestamp() WHERE id = $1";

const RETIRE: &str = "DELETE FROM @owners WHERE id = $1";

const OWNERS: &str = "SELECT id, place, lease_ends <= clock_timestamp() FROM @owners ORDER BY id";

/// By the index on what is claimable, as a range of it like [`LOCK_OLDEST`]; only then in order.
const OWNED: &str = "
    SELECT id FROM (
        SELECT id, place FROM @jobs WHERE claimable > 0 AND (claimable, owner) >= ($1, $2) AND (claimable, owner) <= ($1, $2) OFFSET 0
    ) owned ORDER BY place";

/// Whose jobs may be claimed: each owner of claimable jobs is found by one step in the index (a "loose index scan"),
/// however many jobs he has. Nobody's are listed under an empty owner.
const SOURCES: &str = "
    WITH RECURSIVE holder(claimable, owner) AS (
        (SELECT claimable, owner FROM @jobs WHERE claimable > 0 ORDER BY claimable, owner LIMIT 1)
        UNION ALL
        SELECT next.claimable, next.owner FROM holder h CROSS JOIN LATERAL (
            SELECT j.claimable, j.owner FROM @jobs j
            WHERE j.claimable > 0 AND (j.claimable, j.owner) > (h.claimable, h.owner)
            ORDER BY j.claimable, j.owner LIMIT 1
        ) next
    )
    SELECT claimable, owner FROM holder h
    WHERE claimable <> $1 OR owner = ANY($2)
        OR NOT EXISTS (SELECT FROM @owners o WHERE o.id = h.owner AND o.lease_ends > clock_timestamp())";

/// `$1` and `$2`: a source, `$3`: which types, `$4`: what is claimable by the death of its owner, `$5`: owners that are dead. The
/// owner is looked at again: he may have renewed.
macro_rules! candidates {
    ($which:literal, $order:literal) => {
        concat!(
            "SELECT j.key, j.id, j.place, j.owner FROM @jobs j WHERE j.claimable > 0 AND ",
            $which,
            " AND (j.claimable <> $4 OR j.owner = ANY($5)
                OR NOT EXISTS (SELECT FROM @owners o WHERE o.id = j.owner AND o.lease_ends > clock_timestamp()))",
            $order,
            " FOR UPDATE OF j SKIP LOCKED"
        )
    };
}

/// The oldest of a source and type (`$3`) that nobody else is about to take: a range of the index on what is claimable.
/// Written as a range, and ordered by all four: with equalities the planner may take the index on places, and read all
/// finished jobs.
const LOCK_OLDEST: &str = candidates!(
    "(j.claimable, j.owner, coalesce('=' || j.kind, ''), j.place) > ($1, $2, $3, 0) AND (j.claimable, j.owner, coalesce('=' || j.kind, '')) <= ($1, $2, $3)",
    " ORDER BY j.claimable, j.owner, coalesce('=' || j.kind, ''), j.place LIMIT $6"
);

/// The same of all types, which are looked through.
const LOCK_OLDEST_OF_ALL: &str =
    candidates!("(j.claimable, j.owner) >= ($1, $2) AND (j.claimable, j.owner) <= ($1, $2) AND $3::text IS NULL", " ORDER BY j.place LIMIT $6");

const LOCK_ONE: &str = candidates!("j.claimable = $1 AND j.owner = $2 AND ($3::text[] IS NULL OR j.kind IS NULL OR j.kind = ANY($3)) AND j.id = $6", "");

const TAKE: &str = "UPDATE @jobs SET owner = $2, standing = $3, claimable = $4 WHERE key = ANY($1)";

impl PostgresRepository {
    pub(super) async fn enroll_on(&self, connection: &mut PgConnection, owner: &str, place: &str, lease: Duration) -> Result<(), Failed> {
        sqlx::query(self.names.sql(ENROLL)).bind(owner).bind(place).bind(lease.as_millis() as f64).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn renew_on(&self, connection: &mut PgConnection, owner: &str, lease: Duration) -> Result<bool, Failed> {
        let done = sqlx::query(self.names.sql(RENEW)).bind(owner).bind(lease.as_millis() as f64).execute(connection).await?;
        Ok(done.rows_affected() > 0)
    }

    pub(super) async fn retire_on(&self, connection: &mut PgConnection, owner: &str) -> Result<(), Failed> {
        sqlx::query(self.names.sql(RETIRE)).bind(owner).execute(connection).await?;
        Ok(())
    }

    pub(super) async fn owners_on(&self, connection: &mut PgConnection) -> Result<Vec<OwnerRow>, Failed> {
        let rows = sqlx::query(self.names.sql(OWNERS)).fetch_all(connection).await?;
        rows.iter().map(|row| Ok(OwnerRow { id: row.try_get::<&str, _>(0)?.into(), place: row.try_get(1)?, expired: row.try_get(2)? })).collect()
    }

    pub(super) async fn owned_on(&self, connection: &mut PgConnection, owner: &str) -> Result<Vec<Arc<str>>, Failed> {
        let rows = sqlx::query(self.names.sql(OWNED)).bind(claimable::OWNED).bind(owner).fetch_all(connection).await?;
        rows.iter().map(|row| Ok(row.try_get::<&str, _>(0)?.into())).collect()
    }

    pub(super) async fn claim_on(&self, connection: &mut PgConnection, claim: &Claim) -> Result<Vec<Claimed>, Failed> {
        let dead: Vec<&str> = claim.dead.iter().map(|owner| &**owner).collect();
        let kinds: Option<Vec<&str>> = claim.kinds.as_ref().map(|kinds| kinds.iter().map(|kind| &**kind).collect());
        // Most claims end here, without a transaction.
        let rows = sqlx::query(self.names.sql(SOURCES)).bind(claimable::OWNED).bind(&dead).fetch_all(&mut *connection).await?;
        let mut sources: Vec<(i16, &str)> = Vec::with_capacity(rows.len());
        for row in &rows {
            let source = (row.try_get(0)?, row.try_get(1)?);
            if source.0 != claimable::NEW || claim.unowned {
                sources.push(source);
            }
        }
        if sources.is_empty() || claim.most == 0 {
            return Ok(Vec::new());
        }
        sqlx::raw_sql(BEGIN).execute(&mut *connection).await?;
        let most = i64::try_from(claim.most).unwrap_or(i64::MAX);
        let mut found: Vec<(i64, i64, Claimed)> = Vec::new();
        for (source, owner) in sources {
            let mut rows = Vec::new();
            match (&claim.only, &claim.kinds) {
                (Some(only), _) => {
                    let query = sqlx::query(self.names.sql(LOCK_ONE)).bind(source).bind(owner).bind(&kinds).bind(claimable::OWNED).bind(&dead);
                    rows.append(&mut query.bind(&**only).fetch_all(&mut *connection).await?);
                }
                (None, None) => {
                    let query = sqlx::query(self.names.sql(LOCK_OLDEST_OF_ALL)).bind(source).bind(owner).bind(None::<&str>).bind(claimable::OWNED).bind(&dead);
                    rows.append(&mut query.bind(most).fetch_all(&mut *connection).await?);
                }
                (None, Some(kinds)) => {
                    for lane in std::iter::once(String::new()).chain(kinds.iter().map(|kind| format!("={kind}"))) {
                        let query = sqlx::query(self.names.sql(LOCK_OLDEST)).bind(source).bind(owner).bind(lane).bind(claimable::OWNED).bind(&dead);
                        rows.append(&mut query.bind(most).fetch_all(&mut *connection).await?);
                    }
                }
            }
            for row in rows {
                let previous: &str = row.try_get(3)?;
                let claimed = Claimed {
                    id: row.try_get::<&str, _>(1)?.into(),
                    previous: (!previous.is_empty()).then(|| previous.into()),
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
        let keys: Vec<i64> = found.iter().map(|job| job.1).collect();
        let query = sqlx::query(self.names.sql(TAKE)).bind(keys).bind(&*claim.owner).bind(Standing::Owned as i16).bind(claimable::OWNED);
        query.execute(&mut *connection).await?;
        sqlx::raw_sql("COMMIT").execute(&mut *connection).await.map_err(Failed::Unsure)?;
        Ok(found.into_iter().map(|job| job.2).collect())
    }
}
