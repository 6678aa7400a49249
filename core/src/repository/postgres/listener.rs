//! Hears of committed changes by LISTEN/NOTIFY on a connection of its own. Notifications are hints: the counters are
//! looked at once a second too, so that nothing is missed while the connection is away, or where it hears nothing
//! (behind pgbouncer in transaction mode).

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgNotification, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::job::Error;
use crate::repository::durable::Mark;
use crate::repository::sql::no_delay;

/// How often the counters are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// After so much silence the connection is asked whether it is still there.
const SILENCE: Duration = Duration::from_secs(10);

/// How far the store is, as far as it was heard. Notifications come in the order of the commits, and tell of all but requests.
#[derive(Debug, Default)]
struct Heard {
    mark: Option<Mark>,
    /// The highest number of an event that a notification told of.
    sequence: u64,
    /// How often something was heard of which the mark is not known.
    unknown: u64,
}

impl Heard {
    /// What a commit notifies is the number of its last event. Anything else, and silence, may have been anything.
    fn hear(&mut self, payload: Option<&str>) {
        match payload.and_then(|payload| payload.parse().ok()) {
            Some(sequence) => {
                self.sequence = self.sequence.max(sequence);
                if let Some(mark) = &mut self.mark {
                    mark.sequence = self.sequence.max(mark.sequence);
                }
            }
            None => *self = Self { mark: None, sequence: 0, unknown: self.unknown + 1 },
        }
    }

    /// The store was looked at, beginning when `unknown` and `sequence` were as they are given here.
    fn look(&mut self, (unknown, sequence): (u64, u64), mark: Mark) {
        if self.unknown != unknown {
            return;
        }
        if mark.sequence < sequence {
            // Somebody put an older state of the store in its place.
            self.sequence = mark.sequence;
        }
        self.mark = Some(Mark { sequence: mark.sequence.max(self.sequence), ..mark });
    }
}

/// Wakes who waits for changes.
pub struct Listener {
    /// Grows with each notification.
    times: watch::Receiver<u64>,
    heard: Arc<Mutex<Heard>>,
    /// Up to where [`changed`](Self::changed) has told.
    told: AtomicU64,
    seen: Mutex<Mark>,
    closed: CancellationToken,
}

impl Listener {
    /// Starts to listen, and goes on until `closed`.
    pub fn start(options: PgConnectOptions, channel: String, closed: CancellationToken) -> Self {
        let (hear, times) = watch::channel(0);
        let heard = Arc::<Mutex<Heard>>::default();
        let (ear, until) = (Ear { times: hear, heard: heard.clone() }, closed.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = listen(&options, &channel, &ear) => {}
                () = until.cancelled() => {}
            }
        });
        Self { times, heard, told: AtomicU64::new(0), seen: Mutex::default(), closed }
    }

    /// Looks at the store.
    pub async fn look<F: Future<Output = Result<Mark, Error>>>(&self, look: impl Fn() -> F) -> Result<Mark, Error> {
        let began = {
            let heard = self.heard.lock();
            (heard.unknown, heard.sequence)
        };
        let mark = look().await?;
        self.heard.lock().look(began, mark);
        Ok(mark)
    }

    /// Resolves at the next change since it resolved last, or after `limit`; gives how far the store is, if it is known.
    pub async fn changed<F: Future<Output = Result<Mark, Error>>>(&self, limit: Duration, look: impl Fn() -> F) -> Option<Mark> {
        let until = Instant::now() + limit;
        let mut times = self.times.clone();
        let told = self.told.load(Ordering::Relaxed);
        loop {
            let now = *times.borrow_and_update();
            if now != told {
                self.told.store(now, Ordering::Relaxed);
                return self.heard.lock().mark;
            }
            tokio::select! {
                // An error tells that the listener has ended with the store: then time passes until the limit.
                Ok(()) = times.changed() => continue,
                () = self.closed.cancelled() => return None,
                () = sleep(LOOK.min(until.saturating_duration_since(Instant::now()))) => {}
            }
            if Instant::now() >= until {
                return None;
            }
            if let Ok(mark) = self.look(&look).await
                && std::mem::replace(&mut *self.seen.lock(), mark) != mark
            {
                return Some(mark);
            }
        }
    }
}

/// Where the connection tells what it hears.
struct Ear {
    times: watch::Sender<u64>,
    heard: Arc<Mutex<Heard>>,
}

impl Ear {
    fn hear<'p>(&self, payloads: impl IntoIterator<Item = Option<&'p str>>) {
        let mut heard = self.heard.lock();
        payloads.into_iter().for_each(|payload| heard.hear(payload));
        drop(heard);
        self.times.send_modify(|times| *times += 1);
    }
}

/// Listens for ever, on one connection after the other. What happened while there was none may be anything: that counts
/// as heard.
async fn listen(options: &PgConnectOptions, channel: &str, ear: &Ear) {
    let mut pause = Duration::from_millis(50);
    loop {
        if let Ok(Ok(mut listener)) = timeout(SILENCE, no_delay::connecting(options.get_port(), connect(options, channel))).await {
            pause = Duration::from_millis(50);
            ear.hear([None]);
            loop {
                match timeout(SILENCE, listener.try_recv()).await {
                    Ok(Ok(Some(first))) => {
                        // One wake-up for all that have come.
                        let all: Vec<PgNotification> = std::iter::once(first).chain(std::iter::from_fn(|| listener.next_buffered())).collect();
                        ear.hear(all.iter().map(|notification| Some(notification.payload())));
                    }
                    Ok(Ok(None) | Err(_)) => break,
                    Err(_) => match timeout(SILENCE, listener.execute("SELECT 1")).await {
                        Ok(Ok(_)) => {}
                        _ => break,
                    },
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

async fn connect(options: &PgConnectOptions, channel: &str) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(SILENCE).idle_timeout(None).max_lifetime(None).connect_lazy_with(options.clone());
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false);
    listener.listen(channel).await?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(sequence: u64, requests: u64) -> Mark {
        Mark { sequence, requests }
    }

    #[test]
    fn commits_tell_how_far_the_store_is_once_it_was_looked_at() {
        let mut heard = Heard::default();
        heard.hear(Some("7"));
        assert_eq!(heard.mark, None, "nobody knows of requests");
        heard.look((0, 0), mark(5, 2));
        assert_eq!(heard.mark, Some(mark(7, 2)), "a commit was heard of that came after the look");
        heard.hear(Some("6"));
        assert_eq!(heard.mark, Some(mark(7, 2)));
        heard.hear(Some("12"));
        assert_eq!(heard.mark, Some(mark(12, 2)));
    }

    #[test]
    fn an_older_state_of_the_store_counts_once_it_was_looked_at() {
        let mut heard = Heard::default();
        heard.look((0, 0), mark(1000, 2));
        heard.hear(Some("1001"));
        heard.look((0, 1001), mark(500, 2));
        assert_eq!(heard.mark, Some(mark(500, 2)));
        heard.hear(Some("501"));
        assert_eq!(heard.mark, Some(mark(501, 2)));
    }

    #[test]
    fn after_a_request_or_a_new_connection_the_store_is_looked_at() {
        for unknown in [Some(""), None] {
            let mut heard = Heard::default();
            heard.look((0, 0), mark(5, 2));
            heard.hear(unknown);
            assert_eq!(heard.mark, None);
            heard.look((0, 0), mark(5, 2));
            assert_eq!(heard.mark, None, "a look that began before may not have seen it");
            heard.look((1, 0), mark(6, 3));
            assert_eq!(heard.mark, Some(mark(6, 3)));
        }
    }
}
