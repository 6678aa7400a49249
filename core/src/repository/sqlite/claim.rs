//! Claims: which jobs are without a living owner.
//!
//! The index `job_to_claim` holds the work that is left, ordered by standing, owner and type. A claim steps from one such
//! group to the next (a seek each, however large they are), keeps those that are orphaned and of its types, and takes the
//! oldest jobs of each. Neither ended jobs nor those of living owners are looked at.

use std::sync::Arc;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::clock::Clock;
use super::standing::Standing;
use super::text;
use crate::repository::durable::{Claim, Claimed};

/// The condition of the partial index, word by word: only so it is used. The index is named in the statements because
/// SQLite would rather look for both states and sort.
macro_rules! claimable {
    () => {
        "state IN ('pending', 'running') AND hold = 0 AND standing <> 3"
    };
}

/// ?1: an owner.
pub const OWNED: &str = concat!("SELECT id FROM job INDEXED BY job_to_claim WHERE standing = 1 AND owner = ?1 AND ", claimable!(), " ORDER BY place");

/// ?1: the boot, ?2: the time. `+` takes the affinity away, without which only the first column of the index is used for the
/// seek. The groups of work, with whether their owner is known and its lease not over.
pub const GROUPS: &str = concat!(
    "WITH RECURSIVE step (place) AS (
    SELECT (SELECT place FROM job INDEXED BY job_to_claim WHERE ",
    claimable!(),
    " ORDER BY standing, owner, typed, kind, place LIMIT 1)
    UNION ALL
    SELECT (
        SELECT next.place FROM job AS next INDEXED BY job_to_claim
        WHERE next.state IN ('pending', 'running') AND next.hold = 0 AND next.standing <> 3
            AND (next.standing, next.owner, next.typed, next.kind) > (+here.standing, +here.owner, +here.typed, +here.kind)
        ORDER BY next.standing, next.owner, next.typed, next.kind, next.place LIMIT 1
    )
    FROM step CROSS JOIN job AS here ON here.place = step.place
)
SELECT job.standing, job.owner, job.typed, job.kind, coalesce(owner.boot = ?1 AND owner.lease_end > ?2, 0)
FROM step CROSS JOIN job ON job.place = step.place LEFT JOIN owner ON owner.id = job.owner"
);

/// ?1: standing, ?2: owner, ?3 and ?4: type, ?5: how many. The oldest jobs of a group.
pub const OLDEST: &str = concat!(
    "SELECT place, id, standing, owner FROM job INDEXED BY job_to_claim WHERE standing = ?1 AND owner = ?2 AND typed = ?3 AND kind = ?4 AND ",
    claimable!(),
    " AND (standing > 0 OR state = 'pending') ORDER BY place LIMIT ?5"
);

/// ?1: the boot, ?2: the time, ?3: an id.
const ONE: &str = concat!(
    "SELECT job.standing, job.owner, job.typed, job.kind, coalesce(owner.boot = ?1 AND owner.lease_end > ?2, 0), job.place, job.id
FROM job LEFT JOIN owner ON owner.id = job.owner WHERE job.id = ?3 AND ",
    claimable!(),
    " AND (standing > 0 OR state = 'pending')"
);

pub const TAKE: &str = "UPDATE job SET owner = ?1, standing = 1 WHERE place IN (SELECT value FROM json_each(?2))";

/// A job that may be claimed.
struct Orphan {
    place: i64,
    claimed: Claimed,
}

fn orphan(row: &SqliteRow, place: usize, id: usize, standing: Standing, owner: &[u8]) -> Result<Orphan, sqlx::Error> {
    let lossy = |bytes| -> Arc<str> { String::from_utf8_lossy(bytes).into() };
    Ok(Orphan {
        place: row.try_get(place)?,
        claimed: Claimed { id: lossy(text(row, id)?), previous: (standing == Standing::Owned).then(|| lossy(owner)), released: standing == Standing::Released },
    })
}

/// Whether a claim is for jobs of this group: standing, owner, type, owner alive.
fn wants(claim: &Claim, row: &SqliteRow) -> Result<bool, sqlx::Error> {
    let (owner, typed, kind) = (text(row, 1)?, row.try_get::<bool, _>(2)?, text(row, 3)?);
    let orphaned = match Standing::of(row.try_get(0)?) {
        Standing::New => claim.unowned,
        Standing::Owned => !row.try_get::<bool, _>(4)? || claim.dead.iter().any(|dead| dead.as_bytes() == owner),
        Standing::Released => true,
        Standing::Cleared => false,
    };
    let fits = !typed || claim.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|wanted| wanted.as_bytes() == kind));
    Ok(orphaned && fits)
}

/// The jobs that a claim would get now, oldest first.
async fn find(connection: &mut SqliteConnection, clock: &Clock, claim: &Claim) -> Result<Vec<Orphan>, sqlx::Error> {
    let mut found = Vec::new();
    if let Some(id) = &claim.only {
        let row = sqlx::query(ONE).bind(&clock.boot).bind(clock.now()).bind(&**id).fetch_optional(connection).await?;
        if let Some(row) = row
            && claim.most > 0
            && wants(claim, &row)?
        {
            found.push(orphan(&row, 5, 6, Standing::of(row.try_get(0)?), text(&row, 1)?)?);
        }
        return Ok(found);
    }
    let most = i64::try_from(claim.most).unwrap_or(i64::MAX);
    for group in sqlx::query(GROUPS).bind(&clock.boot).bind(clock.now()).fetch_all(&mut *connection).await? {
        if !wants(claim, &group)? {
            continue;
        }
        let standing: i64 = group.try_get(0)?;
        let (owner, typed, kind) = (text(&group, 1)?, group.try_get::<bool, _>(2)?, text(&group, 3)?);
        let rows = sqlx::query(OLDEST)
            .bind(standing)
            .bind(String::from_utf8_lossy(owner).into_owned())
            .bind(typed)
            .bind(String::from_utf8_lossy(kind).into_owned())
            .bind(most)
            .fetch_all(&mut *connection)
            .await?;
        for row in rows {
            found.push(orphan(&row, 0, 1, Standing::of(standing), owner)?);
        }
    }
    found.sort_unstable_by_key(|orphan| orphan.place);
    found.truncate(claim.most);
    Ok(found)
}

/// Whether there is anything to claim.
pub async fn any(connection: &mut SqliteConnection, clock: &Clock, claim: &Claim) -> Result<bool, sqlx::Error> {
    Ok(!find(connection, clock, &Claim { most: claim.most.min(1), ..claim.clone() }).await?.is_empty())
}

/// Takes jobs over, within the transaction that is open.
pub async fn take(connection: &mut SqliteConnection, clock: &Clock, claim: &Claim) -> Result<Vec<Claimed>, sqlx::Error> {
    let found = find(connection, clock, claim).await?;
    if !found.is_empty() {
        let places: Vec<i64> = found.iter().map(|orphan| orphan.place).collect();
        sqlx::query(TAKE).bind(&*claim.owner).bind(serde_json::to_string(&places).unwrap_or_default()).execute(connection).await?;
    }
    Ok(found.into_iter().map(|orphan| orphan.claimed).collect())
}
