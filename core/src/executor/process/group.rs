//! Process groups that are alive, and the one owner of each.

use std::{
    collections::HashSet,
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, ExitStatus},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use libc::pid_t;
use parking_lot::{Condvar, Mutex};

use super::exit;

/// How long [`ProcessGroups::kill_all`] waits for processes that are just being started; a start
/// takes less than a millisecond.
const START_LIMIT: Duration = Duration::from_millis(250);

/// All process groups alive that were started through it. Clones share the same set.
#[derive(Debug, Clone, Default)]
pub struct ProcessGroups(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    started: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Leaders that are not reaped. As long as one is in here its id belongs to nobody else:
    /// signalling and reaping both happen under this lock.
    alive: HashSet<pid_t>,
    /// Processes that are being started at this moment.
    starting: usize,
    /// How often all were killed; a process that was being started meanwhile is killed too.
    kills: u64,
    closed: bool,
}

impl ProcessGroups {
    /// How many groups are alive.
    pub fn len(&self) -> usize {
        self.0.state.lock().alive.len()
    }

    /// True if no group is alive.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sends SIGKILL to every group, also to those that are being started right now. Others can be
    /// started afterwards.
    ///
    /// Synchronous and without need of a runtime, so that an exit hook can call it. Does not wait
    /// for the processes to be gone; the calls of [`run`](super::run) that own them do.
    pub fn kill_all(&self) {
        self.kill(false);
    }

    /// As [`kill_all`](Self::kill_all), and from now on nothing is started any more: for an exit
    /// hook, after which a retry must not leave an orphan.
    pub fn close(&self) {
        self.kill(true);
    }

    fn kill(&self, close: bool) {
        let mut state = self.0.state.lock();
        state.closed |= close;
        state.kills += 1;
        for leader in &state.alive {
            signal_group(*leader, libc::SIGKILL);
        }
        let limit = Instant::now() + START_LIMIT;
        while state.starting > 0 {
            if self.0.started.wait_until(&mut state, limit).timed_out() {
                tracing::warn!(starting = state.starting, "a process start takes very long");
                break;
            }
        }
    }

    /// Starts a process by `start`, which must make it the leader of a group of its own. `None` if
    /// the set is closed.
    pub(super) fn spawn(&self, start: impl FnOnce() -> io::Result<Child>) -> Option<io::Result<(Child, Group)>> {
        let kills = {
            let mut state = self.0.state.lock();
            if state.closed {
                return None;
            }
            state.starting += 1;
            state.kills
        };
        // Not under the lock: several threads may start processes at once.
        let spawned = start();
        let mut state = self.0.state.lock();
        state.starting -= 1;
        let spawned = spawned.map(|child| {
            let pid = child.id() as pid_t;
            state.alive.insert(pid);
            if state.kills != kills {
                signal_group(pid, libc::SIGKILL);
            }
            let group = Group { pid, groups: self.clone(), reaped: false };
            (child, group)
        });
        drop(state);
        self.0.started.notify_all();
        Some(spawned)
    }

    fn signal(&self, leader: pid_t, signal: i32) {
        let state = self.0.state.lock();
        if state.alive.contains(&leader) {
            signal_group(leader, signal);
        }
    }

    fn reap(&self, leader: pid_t) -> io::Result<Option<ExitStatus>> {
        let mut state = self.0.state.lock();
        let reaped = reap(leader);
        if !matches!(reaped, Ok(None)) {
            state.alive.remove(&leader);
        }
        reaped
    }
}

/// One process group, from its start until its leader is reaped. Dropped before that, it is killed
/// and its leader reaped in the background.
#[derive(Debug)]
pub(super) struct Group {
    pid: pid_t,
    groups: ProcessGroups,
    reaped: bool,
}

impl Group {
    /// The id of the group, which is the one of its leader.
    pub(super) fn pid(&self) -> pid_t {
        self.pid
    }

    /// Signals all members. Does nothing once the leader has been reaped.
    pub(super) fn signal(&self, signal: i32) {
        if !self.reaped {
            self.groups.signal(self.pid, signal);
        }
    }

    /// Takes the leader's status; `None` if it has not exited. To be called until it succeeds or
    /// fails, and not after that.
    pub(super) fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        let reaped = self.groups.reap(self.pid);
        self.reaped = !matches!(reaped, Ok(None));
        reaped
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(libc::SIGKILL);
        if !matches!(self.reap(), Ok(None)) {
            return;
        }
        let (pid, groups) = (self.pid, self.groups.clone());
        let reaper = thread::Builder::new().name("framewright-reaper".to_owned()).stack_size(64 * 1024).spawn(move || {
            if exit::block(pid).is_ok() {
                // An error means that somebody else reaped it.
                let _ = groups.reap(pid);
            }
        });
        if let Err(error) = reaper {
            tracing::warn!(pid, %error, "a killed process stays a zombie until this process ends");
        }
    }
}

/// Signals a group whose leader has not been reaped by us.
fn signal_group(leader: pid_t, signal: i32) {
    // Somebody else in this program may have reaped it by waiting for any child. Then the id may
    // belong to a stranger.
    if exit::has_exited(leader).is_err() {
        return;
    }
    // SAFETY: no memory is involved; `leader` is the id of a group that our child leads.
    if unsafe { libc::kill(-leader, signal) } == -1 {
        let error = io::Error::last_os_error();
        tracing::warn!(pid = leader, signal, %error, "a process group could not be signalled");
    }
}

/// Reaps a child if it has exited.
fn reap(pid: pid_t) -> io::Result<Option<ExitStatus>> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid for writing.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => return Ok(Some(ExitStatus::from_raw(status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::CommandExt, process::Command};

    // [F62] an exit hook reaches also a process that is just being started
    #[test]
    fn a_process_that_was_being_started_when_all_were_killed_is_killed_too() {
        let groups = ProcessGroups::default();
        let killer = groups.clone();
        let mut killing = None;
        let started = groups.spawn(|| {
            killing = Some(thread::spawn(move || killer.kill_all()));
            while groups.0.state.lock().kills == 0 {
                thread::yield_now();
            }
            Command::new("/bin/sleep").arg("1000").process_group(0).spawn()
        });
        let (_, mut group) = started.unwrap().unwrap();
        killing.unwrap().join().unwrap();
        exit::block(group.pid()).unwrap();
        let status = group.reap().unwrap().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGKILL));
        assert!(groups.is_empty());
    }
}
