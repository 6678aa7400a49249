//! The lease of a manager on a durable store: renewed by a native thread, given up before it ends, taken again under a new
//! name.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Manager;
use super::durable::Durable;
use crate::job::{Error, ErrorCode};
use crate::planted::{Fault, is_planted};

/// Between two tries to take a name.
const TICK: Duration = Duration::from_millis(250);

impl Durable {
    /// Nothing may be done in the name of this owner any more after this much silence: a margin before others may take over.
    pub(super) fn patience(&self) -> Duration {
        self.lease.mul_f64(0.8)
    }

    pub(super) fn silence(&self) -> Duration {
        if is_planted(Fault::LeaseRenewal) {
            return Duration::ZERO;
        }
        self.renewed.lock().map_or(Duration::MAX, |renewed| renewed.elapsed())
    }

    /// Whether the lease is fresh enough to take on more.
    pub(super) fn is_safe(&self) -> bool {
        self.silence() < self.patience() / 2
    }

    async fn enroll(&self) -> Result<(), Error> {
        let place = serde_json::to_string(&self.here).unwrap_or_default();
        let asked = Instant::now();
        let owner = self.owner();
        self.store.repository().enroll(&owner, &place, self.lease).await?;
        *self.renewed.lock() = Some(asked);
        self.enrolled.send_replace(Some(Ok(())));
        Ok(())
    }

    /// What it owned under earlier names is free, once nothing of it runs here any more. What can't be stopped in time is left
    /// to the end of its lease.
    async fn retire_former(&self, manager: &Weak<Manager>) {
        // Not one that is given up meanwhile.
        let names = self.former();
        let until = Instant::now() + self.lease;
        while manager.upgrade().is_some_and(|manager| manager.leaves_behind()) {
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for owner in names {
            if let Err(error) = self.store.repository().retire(&owner).await {
                tracing::warn!(%error, "an earlier name could not be given back; its lease ends by itself");
            }
        }
    }
}

impl Manager {
    /// Renews the lease until the manager is gone or closed. What can't be renewed in time is given up before it ends.
    pub(super) async fn lease_loop(weak: Weak<Manager>, durable: Arc<Durable>) {
        while let Err(error) = durable.enroll().await {
            tracing::warn!(%error, "the store does not take this manager's name");
            durable.enrolled.send_replace(Some(Err(error)));
            tokio::time::sleep(TICK.min(durable.lease / 3)).await;
            if weak.strong_count() == 0 || durable.is_closed() {
                durable.enrolled.send_replace(Some(Err(Error::new(ErrorCode::Closed, "The manager is closed"))));
                return;
            }
        }
        let every = (durable.lease / 4).max(Duration::from_millis(5));
        let mut adrift = false;
        let mut failed = false;
        while weak.strong_count() > 0 && !durable.is_closed() {
            // Not slept over: the moment from which nothing may be done any more. After an answer that came late there is no
            // time to lose before the next one is asked for.
            let rest = Some(durable.patience().saturating_sub(durable.silence())).filter(|rest| !rest.is_zero()).unwrap_or(every);
            let due = if failed || adrift { every } else { every.saturating_sub(durable.silence()) };
            tokio::time::sleep(due.min(Duration::from_millis(500)).min(rest)).await;
            // Stopped, or asleep with the machine: whatever was ours may be another's by now.
            if !adrift && durable.silence() >= durable.patience() {
                adrift = Self::let_go(&weak, &durable);
            }
            if adrift {
                match tokio::time::timeout(durable.patience(), durable.enroll()).await {
                    Ok(Ok(())) => {
                        adrift = false;
                        // Beside the renewals: a store that is away again must not keep the loop from noticing it.
                        let (former, manager) = (durable.clone(), weak.clone());
                        durable.store.spawn(async move { former.retire_former(&manager).await });
                    }
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the lease can't be taken again");
                        durable.enrolled.send_replace(Some(Err(error)));
                    }
                    Err(_) => {
                        tracing::warn!("the store did not answer in time");
                        let error = Error::new(ErrorCode::StoreUnavailable, "The store did not answer in time");
                        durable.enrolled.send_replace(Some(Err(error)));
                    }
                }
                continue;
            }
            if durable.silence() < every.mul_f64(0.9) {
                continue;
            }
            failed = false;
            let asked = Instant::now();
            let left = Some(durable.patience().saturating_sub(durable.silence())).filter(|left| !left.is_zero()).unwrap_or(every);
            let owner = durable.owner();
            match tokio::time::timeout(left, durable.store.repository().renew(&owner, durable.lease)).await {
                // Granted, but perhaps after the lease was over and others had taken what was ours.
                Ok(Ok(true)) if durable.silence() >= durable.patience() => adrift = Self::let_go(&weak, &durable),
                Ok(Ok(true)) => *durable.renewed.lock() = Some(asked),
                // Somebody took this owner for dead.
                Ok(Ok(false)) => adrift = Self::let_go(&weak, &durable),
                Ok(Err(error)) => {
                    failed = true;
                    tracing::warn!(%error, "the lease could not be renewed");
                }
                Err(_) => tracing::warn!("the store did not answer in time to renew the lease"),
            }
            // That has used up the patience: what runs has the margin to end in, not less.
            if !adrift && durable.silence() >= durable.patience() {
                adrift = Self::let_go(&weak, &durable);
            }
        }
        if adrift {
            durable.enrolled.send_replace(Some(Err(Error::new(ErrorCode::Closed, "The manager is closed"))));
        }
        if !durable.is_closed() {
            // Forgotten without being closed: its jobs are free at once.
            let _ = durable.store.repository().retire(&durable.owner()).await;
        }
    }

    /// Stops everything that is owned: the lease can't be trusted any more. Others, or this manager under a new name, take it
    /// over; so they do with what has ended here and was not written down. True: there is nothing to hold on to before a new
    /// name was taken.
    fn let_go(weak: &Weak<Manager>, durable: &Arc<Durable>) -> bool {
        let name = durable.change_owner();
        let Some(manager) = weak.upgrade() else { return true };
        for cell in manager.repository.cells() {
            let works = manager.entry_of(&cell.id).is_some();
            let known = cell.lock().kept.as_ref().is_some_and(|kept| kept.version > 0 && (kept.mine || works));
            if known {
                manager.lose(&cell, name.clone());
            }
        }
        true
    }

    /// Whether runs of jobs that are lost have not ended yet.
    fn leaves_behind(&self) -> bool {
        self.entries.which(|entry| entry.run.lock().is_some()).iter().any(|entry| entry.cell.lock().is_gone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::DurableOptions;
    use crate::repository::runtime::Store;
    use crate::repository::simulated::SimulatedDisk;

    // [F155] who looks at the store would take jobs of a name that it does not have for orphans
    #[tokio::test]
    async fn under_a_new_name_nothing_is_taken_before_the_store_has_it() {
        let disk = SimulatedDisk::new();
        let there = disk.clone();
        let store = Store::open(move || async move { there.open() }).await.expect("a store");
        let durable = Durable::new(store, DurableOptions { lease: Duration::from_secs(60), recover: true, kinds: Vec::new(), runs: true });
        assert!(!durable.is_safe());
        let enroll = || {
            let (store, durable) = (durable.store.clone(), durable.clone());
            async move { store.call(move |_| async move { durable.enroll().await }).await }
        };
        enroll().await.expect("the store takes the name");
        assert!(durable.is_safe());
        durable.until_enrolled().await.expect("it is enrolled");

        durable.change_owner();
        assert!(!durable.is_safe());
        let mut enrolled = Box::pin(durable.until_enrolled());
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut enrolled).await.is_err());
        disk.set_away(true);
        durable.enrolled.send_replace(Some(enroll().await));
        assert_eq!(enrolled.await.expect_err("the store is away").code, ErrorCode::StoreUnavailable);
        assert!(!durable.is_safe());
        disk.set_away(false);
        enroll().await.expect("the store takes the name");
        assert!(durable.is_safe());
        durable.until_enrolled().await.expect("it is enrolled");
    }
}
