//! Sends what is written at once.
//!
//! sqlx 0.9.0 leaves Nagle's algorithm on (<https://github.com/launchbadge/sqlx/issues/4335>), so that the end of a
//! statement that is larger than a segment waits for the server's delayed acknowledgement: 40 ms for each group of writes,
//! and twice for each TLS handshake. It does not show its sockets either, so they are found by their peer's port. To be
//! removed with the next sqlx, which sets the option itself.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// Makes a connection to a TCP port that sends at once, from its handshake on.
pub async fn connecting<T>(port: u16, connect: impl Future<Output = T>) -> T {
    let mut connect = pin!(connect);
    let mut pause = Duration::from_millis(1);
    loop {
        tokio::select! {
            connected = &mut connect => {
                to_port(port);
                return connected;
            }
            () = sleep(pause) => to_port(port),
        }
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}

/// Sets the option on all TCP connections of this process to a port: on those that are not ours it does no harm.
fn to_port(port: u16) {
    // On Linux a link to /proc/self/fd. Without it statements are slow, and right.
    let Ok(open) = std::fs::read_dir("/dev/fd") else { return };
    let descriptors = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // A descriptor that was closed or became another one meanwhile is asked in vain, or is another socket of that port.
    for descriptor in descriptors.filter(|descriptor| peer_port(*descriptor) == Some(port)) {
        let on: libc::c_int = 1;
        // SAFETY: the option is an int that lives until the call returns; the call fails on what is not a TCP socket.
        unsafe {
            libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), size_of::<libc::c_int>() as libc::socklen_t);
        }
    }
}

fn peer_port(descriptor: libc::c_int) -> Option<u16> {
    // SAFETY: all zeros are an address of no family.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut size = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: the address is as large as `size` says, and outlives the call, which fails on what is not a connected socket.
    if unsafe { libc::getpeername(descriptor, (&raw mut address).cast(), &mut size) } != 0 {
        return None;
    }
    let port = match libc::c_int::from(address.ss_family) {
        // SAFETY: the family says which kind of address was written, and the storage is large enough and aligned for both.
        libc::AF_INET => unsafe { (*(&raw const address).cast::<libc::sockaddr_in>()).sin_port },
        // SAFETY: as above.
        libc::AF_INET6 => unsafe { (*(&raw const address).cast::<libc::sockaddr_in6>()).sin6_port },
        _ => return None,
    };
    Some(u16::from_be(port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn connections_to_the_port_do_not_wait_and_others_are_left_alone() {
        let connect = |address| {
            let listener = TcpListener::bind(address).expect("a port");
            let stream = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
            (listener, stream)
        };
        let (ours, other) = (connect("127.0.0.1:0"), connect("127.0.0.1:0"));
        to_port(ours.0.local_addr().expect("an address").port());
        assert!(ours.1.nodelay().expect("the option"));
        assert!(!other.1.nodelay().expect("the option"));
    }
}
