//! What others do to a durable store: its events, their requests to this manager, and orphans to be taken over.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::durable::Durable;
use super::recover::CLAIMS;
use super::{Entry, Manager, Notice, Stopping};
use crate::job::{Error, JobState};
use crate::repository::durable::Mark;
use crate::repository::memory::{Ask, now_ms};

/// How often the store and the owners on this host are looked at when nothing happens.
const TICK: Duration = Duration::from_millis(250);
/// Claims are not made more often, however much happens.
const BETWEEN_CLAIMS: Duration = Duration::from_millis(30);
/// How often a run is looked at that is just beginning or ending, a millisecond apart.
const ENDING_LOOKS: u32 = 5_000;
/// Events fetched at once.
const EVENTS: usize = 2_000;
/// Pages of events that are searched for the jobs that they are about.
const MOST_PAGES: usize = 4;

impl Manager {
    /// Hears of the store's changes, and takes over what is to be taken over, until the manager is gone or closed.
    pub(super) async fn watch_loop(weak: Weak<Manager>, durable: Arc<Durable>) {
        while durable.until_enrolled().await.is_err() {
            if weak.strong_count() == 0 || durable.is_closed() {
                return;
            }
        }
        let repository = durable.store.repository().clone();
        let mut mark: Option<Mark> = None;
        let mut claimed_at: Option<Instant> = None;
        let mut due = true;
        while weak.strong_count() > 0 && !durable.is_closed() {
            let limit = if due { BETWEEN_CLAIMS.saturating_sub(claimed_at.map_or(BETWEEN_CLAIMS, |at| at.elapsed())) } else { TICK };
            let mut told = None;
            if !limit.is_zero() {
                tokio::select! {
                    mark = repository.changed(limit) => told = mark,
                    () = durable.poke.notified() => {}
                }
            }
            let Some(manager) = weak.upgrade() else { break };
            let looked = match told {
                Some(mark) => Ok(mark),
                None => repository.mark().await,
            };
            match looked {
                Ok(now) => {
                    let before = mark.unwrap_or_default();
                    if mark.is_none() {
                        manager.repository.log.begin_at(now.sequence);
                        durable.begun.send_replace(true);
                    }
                    // What could not be read, or answered yet, is asked for again.
                    let heard = (now.requests == before.requests && mark.is_some()) || manager.hear_requests(&durable).await;
                    if now.sequence != before.sequence || manager.repository.log.latest() < now.sequence {
                        due = true;
                        manager.fetch_events(&durable, now.sequence).await;
                        manager.tell_awaited(&durable, mark.map(|mark| mark.sequence), now.sequence).await;
                    }
                    mark = Some(Mark { requests: if heard { now.requests } else { u64::MAX }, ..now });
                }
                Err(error) => {
                    tracing::warn!(%error, "the store could not be looked at");
                    tokio::time::sleep(TICK).await;
                    continue;
                }
            }
            let elapsed = claimed_at.is_none_or(|at| at.elapsed() >= if due { BETWEEN_CLAIMS } else { TICK });
            if elapsed {
                claimed_at = Some(Instant::now());
                due = false;
                if durable.is_safe() {
                    manager.take_back_given_up(&durable).await;
                }
                if manager.is_taking(&durable) {
                    match manager.claim_round(&durable, None).await {
                        Ok(ids) => {
                            due = ids.len() >= CLAIMS;
                            if ids.len() > CLAIMS {
                                // It gets through them fast.
                                claimed_at = None;
                            }
                        }
                        Err(error) => tracing::warn!(%error, "jobs could not be taken over"),
                    }
                }
                durable.looked.send_modify(|rounds| *rounds += 1);
            }
        }
    }

    async fn fetch_events(&self, durable: &Durable, upto: u64) {
        if !self.repository.log.is_watched() {
            self.repository.log.skip_to(upto);
            return;
        }
        loop {
            match durable.store.repository().events(self.repository.log.latest() + 1, EVENTS).await {
                Ok(events) if events.is_empty() => return,
                Ok(events) => {
                    let more = events.len() >= EVENTS;
                    self.repository.log.add_stored(events);
                    if !more {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "events could not be read");
                    return;
                }
            }
        }
    }

    /// Tells those who wait for jobs of others that something happened to them after the event `from`; `None`: any may be meant.
    async fn tell_awaited(&self, durable: &Durable, from: Option<u64>, upto: u64) {
        if durable.awaited.lock().is_empty() {
            return;
        }
        let concerned = match from {
            Some(from) => Self::changed_jobs(durable, from, upto).await,
            None => None,
        };
        for id in durable.awaited.lock().iter() {
            if concerned.as_ref().is_none_or(|ids| ids.contains(id)) {
                self.notices.push(Notice::Changed { id: id.clone() });
            }
        }
    }

    /// The jobs to whose life as a whole the events after `from` belong; `None`: they are too many, or can't be read.
    async fn changed_jobs(durable: &Durable, mut from: u64, upto: u64) -> Option<HashSet<Arc<str>>> {
        let mut ids = HashSet::new();
        for _ in 0..MOST_PAGES {
            if from >= upto {
                return Some(ids);
            }
            let events = durable.store.repository().events(from + 1, EVENTS).await.ok()?;
            from = events.last().map_or(upto, |event| event.sequence);
            ids.extend(events.into_iter().filter(|event| event.body.starts_with("\"type\":\"job.")).map(|event| event.job));
        }
        None
    }

    /// Answers what others ask of the jobs that are owned here. False: not all of it.
    async fn hear_requests(self: &Arc<Self>, durable: &Arc<Durable>) -> bool {
        let requests = match durable.store.repository().requests(&durable.owner()).await {
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "requests could not be read");
                return false;
            }
        };
        let mut all = true;
        for (id, body) in requests {
            let Ok(ask) = serde_json::from_str::<Ask>(&body) else { continue };
            match self.entry_of(&id) {
                Some(entry) => self.answer_asked(durable, &entry, ask).await,
                // Being taken over, perhaps.
                None => all = false,
            }
        }
        all
    }

    /// A request about a job that runs here or waits in the queue.
    async fn answer_asked(self: &Arc<Self>, durable: &Arc<Durable>, entry: &Arc<Entry>, ask: Ask) {
        for _ in 0..ENDING_LOOKS {
            if self.stop(entry, Stopping::from(ask.clone())) {
                return;
            }
            if let Ask::Delete = ask {
                if self.leave_queue(entry) {
                    self.notices.push(Notice::Dropped { ticket: entry.ticket, kept: false });
                    self.delete_owned(durable, &entry.cell).await;
                    return;
                }
            } else if self.answer_waiting(entry, &ask) {
                return;
            }
            // It was started meanwhile, or is just ending.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A request about a job that waits in the queue. False: it runs.
    fn answer_waiting(&self, entry: &Arc<Entry>, ask: &Ask) -> bool {
        let mut slot = entry.cell.lock();
        match slot.job().map(|job| job.state) {
            _ if slot.is_gone() => true,
            Ok(JobState::Running) => false,
            Ok(JobState::Pending) => {
                let _ = self.change_now(&entry.cell, &mut slot, ask.clone(), now_ms());
                drop(slot);
                self.forget(entry);
                self.notices.push(Notice::Dropped { ticket: entry.ticket, kept: matches!(ask, Ask::Pause { .. }) });
                true
            }
            _ => true,
        }
    }

    /// Resolves once events of the durable store are followed.
    ///
    /// # Errors
    ///
    /// STORE_UNAVAILABLE, while the store can't be reached.
    pub async fn begun(self: Arc<Self>) -> Result<(), Error> {
        let Some(durable) = self.durable.clone() else { return Ok(()) };
        durable.until_enrolled().await?;
        let _ = durable.begun.subscribe().wait_for(|begun| *begun).await;
        Ok(())
    }
}
