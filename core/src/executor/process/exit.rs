//! Waits for the exit of a child without reaping it, and without SIGCHLD: its handler belongs to
//! the host (libuv has one).

#[cfg(target_os = "linux")]
use std::os::fd::{FromRawFd, OwnedFd};
use std::{io, mem};

use libc::pid_t;
#[cfg(target_os = "linux")]
use tokio::io::{Interest, unix::AsyncFd};
use tokio::task::{JoinHandle, spawn_blocking};

/// A watch on one child.
pub(super) enum Exit {
    /// The kernel wakes us when the process is a zombie.
    #[cfg(target_os = "linux")]
    Pidfd { pid: pid_t, fd: AsyncFd<OwnedFd> },
    /// A blocking thread waits, where the kernel has no pidfd (before Linux 5.3, macOS, sandboxes).
    Thread(JoinHandle<io::Result<()>>),
    /// It has exited.
    Over,
}

impl Exit {
    /// Starts to watch a child that has not been reaped.
    pub(super) fn watch(pid: pid_t) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(fd) = pidfd_open(pid) {
            // SAFETY: the descriptor stays open, and the same one, as long as its owner lives.
            let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
            return Ok(Self::Pidfd { pid, fd });
        }
        Ok(Self::watch_by_thread(pid))
    }

    pub(super) fn watch_by_thread(pid: pid_t) -> Self {
        Self::Thread(spawn_blocking(move || block(pid)))
    }

    /// Resolves when the child has exited, at once if it had; the child is not reaped. May be
    /// dropped and called again. Fails if the child is not ours any more, or if the runtime shuts
    /// down.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Pidfd { pid, fd } => loop {
                let mut ready = fd.readable().await?;
                if has_exited(*pid)? {
                    break;
                }
                ready.clear_ready();
            },
            Self::Thread(task) => task.await.map_err(io::Error::other)??,
            Self::Over => {}
        }
        *self = Self::Over;
        Ok(())
    }
}

#[cfg(target_os = "linux")]
fn pidfd_open(pid: pid_t) -> Option<OwnedFd> {
    // SAFETY: no memory is involved. The kernel makes the descriptor close-on-exec.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    // SAFETY: a descriptor that is not negative was made for us just now; nobody else knows it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// True if the child is a zombie. An error if it is no child of ours (any more).
pub(super) fn has_exited(pid: pid_t) -> io::Result<bool> {
    wait_id(pid, libc::WNOHANG)
}

/// Blocks the thread until the child is a zombie.
pub(super) fn block(pid: pid_t) -> io::Result<()> {
    wait_id(pid, 0).map(|_| ())
}

fn wait_id(pid: pid_t, more: i32) -> io::Result<bool> {
    loop {
        // SAFETY: zeroes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let how = libc::WEXITED | libc::WNOWAIT | more;
        // SAFETY: `info` is valid for writing.
        if unsafe { libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, how) } == 0 {
            // With WNOHANG and nothing to tell, the structure stays zero.
            return Ok(info.si_signo != 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn without_a_pidfd_a_thread_sees_the_exit_and_leaves_the_status() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let mut exit = Exit::watch_by_thread(child.id() as pid_t);
        exit.wait().await.unwrap();
        exit.wait().await.unwrap();
        assert!(has_exited(child.id() as pid_t).unwrap());
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(has_exited(child.id() as pid_t).is_err());
    }
}
