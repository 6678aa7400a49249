//! Hears of committed changes by LISTEN/NOTIFY on a connection of its own. Notifications are hints: the counters are
//! looked at once a second too, so that nothing is missed while the connection is away, or where it hears nothing
//! (behind pgbouncer in transaction mode).

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::Executor;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
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

/// Wakes who waits for changes.
pub struct Listener {
    /// Grows with each notification.
    heard: watch::Receiver<u64>,
    /// Up to where [`changed`](Self::changed) has told.
    told: AtomicU64,
    seen: Mutex<Mark>,
    closed: CancellationToken,
}

impl Listener {
    /// Starts to listen, and goes on until `closed`.
    pub fn start(options: PgConnectOptions, channel: String, closed: CancellationToken) -> Self {
        let (hear, heard) = watch::channel(0);
        let until = closed.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = listen(&options, &channel, &hear) => {}
                () = until.cancelled() => {}
            }
        });
        Self { heard, told: AtomicU64::new(0), seen: Mutex::default(), closed }
    }

    /// Resolves at the next change since it resolved last, or after `limit`.
    pub async fn changed<F: Future<Output = Result<Mark, Error>>>(&self, limit: Duration, look: impl Fn() -> F) {
        let until = Instant::now() + limit;
        let mut heard = self.heard.clone();
        let told = self.told.load(Ordering::Relaxed);
        loop {
            let now = *heard.borrow_and_update();
            if now != told {
                self.told.store(now, Ordering::Relaxed);
                return;
            }
            tokio::select! {
                // An error tells that the listener has ended with the store: then time passes until the limit.
                Ok(()) = heard.changed() => continue,
                () = self.closed.cancelled() => return,
                () = sleep(LOOK.min(until.saturating_duration_since(Instant::now()))) => {}
            }
            if Instant::now() >= until {
                return;
            }
            if let Ok(mark) = look().await
                && std::mem::replace(&mut *self.seen.lock(), mark) != mark
            {
                return;
            }
        }
    }
}

/// Listens for ever, on one connection after the other. What happened while there was none may be anything: that counts
/// as heard.
async fn listen(options: &PgConnectOptions, channel: &str, hear: &watch::Sender<u64>) {
    let mut pause = Duration::from_millis(50);
    loop {
        if let Ok(Ok(mut listener)) = timeout(SILENCE, no_delay::connecting(options.get_port(), connect(options, channel))).await {
            pause = Duration::from_millis(50);
            hear.send_modify(|heard| *heard += 1);
            loop {
                match timeout(SILENCE, listener.try_recv()).await {
                    Ok(Ok(Some(_))) => {
                        // One wake-up for all that have come.
                        while listener.next_buffered().is_some() {}
                        hear.send_modify(|heard| *heard += 1);
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
