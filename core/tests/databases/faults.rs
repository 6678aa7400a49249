//! What every store on a server must survive.

use std::mem::ManuallyDrop;
use std::net::TcpStream;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use framewright_core::job::ErrorCode;
use framewright_core::repository::durable::Outcome;
use framewright_core::repository::runtime::Store;
use tokio::sync::watch;

use super::jobs::{accept, change, commit, create, enroll, load, renew};
use super::proxy::Proxy;
use super::server::Server;

/// A writer goes on through a restart of the server, and what it was told is there.
pub async fn a_restart_loses_nothing(store: Arc<Store>, server: &mut Server) {
    accept(&store, vec![create("a", "me")]).await;
    let (tell, mut version) = watch::channel(1u64);
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let mut version = 1;
            while !tell.is_closed() {
                version = match commit(&store, vec![change("a", version)]).await.as_deref() {
                    Ok([Outcome::Accepted { .. }]) => version + 1,
                    // It was not known whether the write before was committed: it was.
                    Ok([Outcome::Stale { version: stored, .. }]) if *stored == version + 1 => *stored,
                    Ok(outcomes) => panic!("version {version}: {outcomes:?}"),
                    Err(error) => {
                        assert_eq!(error.code, ErrorCode::StoreUnavailable, "{error}");
                        version
                    }
                };
                tell.send_replace(version);
            }
            version
        }
    });
    version.wait_for(|version| *version >= 20).await.unwrap();
    server.restart().await;
    let after = *version.borrow();
    version.wait_for(|version| *version >= after + 20).await.unwrap();
    drop(version);
    let version = writer.await.unwrap();
    assert_eq!(load(&store, "a").await.unwrap().unwrap().version, version);
    let events = store.call(|repository| async move { repository.events(1, usize::MAX / 2).await }).await.unwrap();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), (1..=version).collect::<Vec<_>>(), "an event for each version, without gaps");
}

/// Calls on connections that have gone silent end in time, and later ones work by themselves.
pub async fn a_silent_network_is_noticed(store: Arc<Store>, proxy: &Proxy) {
    accept(&store, vec![create("a", "me")]).await;
    enroll(&store, "me").await;
    proxy.stop();
    let began = Instant::now();
    let (committed, renewed) = tokio::join!(commit(&store, vec![change("a", 1)]), renew(&store, "me"));
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(committed.unwrap_err().code, ErrorCode::StoreUnavailable);
    assert_eq!(renewed.unwrap_err().code, ErrorCode::StoreUnavailable);
    proxy.heal();
    accept(&store, vec![change("a", 1)]).await;
    assert!(renew(&store, "me").await.unwrap());

    // The network is well again, but the connections from before are not: a renewal does not wait for them.
    proxy.stop();
    proxy.heal();
    let began = Instant::now();
    assert!(renew(&store, "me").await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// None of the store's connections waits for an acknowledgement before it sends the rest of a statement.
pub async fn connections_send_at_once(store: Arc<Store>, proxy: &Proxy) {
    accept(&store, vec![create("a", "me")]).await;
    // One that is just being made is told so a moment later.
    let all = async {
        while !all_send_at_once(proxy.port) {
            tokio::time::sleep(Duration::from_millis(5)).await
        }
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("all of them send at once");
}

/// Whether all connections of this process to a port, of which there are some, have the option.
fn all_send_at_once(port: u16) -> bool {
    let open = std::fs::read_dir("/dev/fd").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    // SAFETY: it is not closed by us, and on what is no socket the questions fail.
    let sockets = open.map(|descriptor| ManuallyDrop::new(unsafe { TcpStream::from_raw_fd(descriptor) }));
    let mut ours = sockets.filter(|socket| socket.peer_addr().is_ok_and(|peer| peer.port() == port)).peekable();
    ours.peek().is_some() && ours.all(|socket| socket.nodelay().unwrap_or(true))
}

/// Leases are renewed while every connection for work waits for a lock.
pub async fn a_busy_pool_delays_no_renewal<L, F: Future<Output = ()>>(store: Arc<Store>, locked: L, unlock: impl FnOnce(L) -> F) {
    let writers: Vec<_> = (0..12)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { commit(&store, vec![change("a", 1)]).await })
        })
        .collect();
    let began = Instant::now();
    for _ in 0..10 {
        assert!(renew(&store, "me").await.unwrap());
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(writers.iter().all(|writer| !writer.is_finished()), "they wait for the lock");
    unlock(locked).await;
    let mut accepted = 0;
    for writer in writers {
        match &writer.await.unwrap().unwrap()[..] {
            [Outcome::Accepted { .. }] => accepted += 1,
            [Outcome::Stale { version: 2, .. }] => {}
            outcomes => panic!("{outcomes:?}"),
        }
    }
    assert_eq!(accepted, 1);
}
