//! A TCP proxy that can stop forwarding without closing anything, as a network does that drops packets.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy)]
struct Flow {
    stopped: bool,
    /// How often it was stopped: connections from before a stop stay silent for ever.
    stops: u64,
}

/// In front of a server.
pub struct Proxy {
    pub port: u16,
    flow: watch::Sender<Flow>,
}

impl Proxy {
    pub async fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (flow, flowing) = watch::channel(Flow { stopped: false, stops: 0 });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let flowing = flowing.clone();
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    let stops = flowing.borrow().stops;
                    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
                    tokio::spawn(forward(from_client, to_server, flowing.clone(), stops));
                    forward(from_server, to_client, flowing, stops).await;
                });
            }
        });
        Proxy { port, flow }
    }

    /// Nothing passes from now on, in either direction; connections are still taken.
    pub fn stop(&self) {
        self.flow.send_modify(|flow| *flow = Flow { stopped: true, stops: flow.stops + 1 });
    }

    /// Connections made since the stop work; older ones stay silent.
    pub fn heal(&self) {
        self.flow.send_modify(|flow| flow.stopped = false);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flowing: watch::Receiver<Flow>, stops: u64) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        let flows = |flow: &Flow| !flow.stopped && flow.stops == stops;
        if flowing.wait_for(flows).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // Not even the end of a connection passes while nothing flows.
    let _ = flowing.wait_for(|flow| !flow.stopped && flow.stops == stops).await;
}
