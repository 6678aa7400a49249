//! Who a manager is to the others on its store, whether another one still lives, and what a dead one left behind.
//!
//! On one host the death of an owner is seen at once: boot id and process namespace say whether it ran in this system,
//! process id and start time whether it still does. Names and wall clocks are never asked. Elsewhere its lease decides.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The variable by which every chunk's process carries its owner.
pub const OWNER_VARIABLE: &str = "FRAMEWRIGHT_OWNER";

/// Where an owner runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Name of the host, for people only.
    pub host: String,
    /// Tells one start of a system from every other; empty where the system does not say.
    pub boot: String,
    /// Tells one process namespace from another.
    pub namespace: String,
    /// Process id.
    pub pid: u32,
    /// When the process started, in clock ticks since boot.
    pub started: u64,
}

impl Place {
    /// Where this process runs.
    pub fn here() -> Place {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
        let pid = std::process::id();
        Place {
            host: read("/proc/sys/kernel/hostname"),
            boot: read("/proc/sys/kernel/random/boot_id"),
            namespace: std::fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default(),
            pid,
            started: start_of(pid).unwrap_or_default(),
        }
    }

    /// Whether that process can be seen from here.
    pub fn is_local(&self, here: &Place) -> bool {
        !self.boot.is_empty() && self.boot == here.boot && !self.namespace.is_empty() && self.namespace == here.namespace
    }

    /// Whether that process is known to be gone. A zombie is.
    pub fn is_dead(&self, here: &Place) -> bool {
        self.is_local(here) && self.started > 0 && is_gone(self.pid, self.started)
    }
}

/// What can be seen of a process.
enum Seen {
    /// There is none of that id, or only its zombie.
    Gone,
    /// It lives, and started at that time.
    Started(u64),
    /// It can't be looked at: no descriptor is free, or `/proc` hides the processes of others.
    Unknown,
}

fn look_at(pid: u32) -> Seen {
    match std::fs::read(format!("/proc/{pid}/stat")) {
        Ok(line) => match state_and_start(&line) {
            Some(('Z' | 'X', _)) => Seen::Gone,
            Some((_, started)) => Seen::Started(started),
            None => Seen::Unknown,
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {
            // SAFETY: signal 0 only asks whether there is such a process.
            let asked = unsafe { libc::kill(pid as libc::pid_t, 0) };
            let none = asked == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::ESRCH);
            if none { Seen::Gone } else { Seen::Unknown }
        }
        Err(_) => Seen::Unknown,
    }
}

/// Whether a process is known to have ended. Only what was seen counts: an owner taken for dead loses its jobs.
fn is_gone(pid: u32, started: u64) -> bool {
    match look_at(pid) {
        Seen::Gone => true,
        Seen::Started(at) => at != started,
        Seen::Unknown => false,
    }
}

/// State and start time of a process from `/proc/<pid>/stat`, see proc(5).
fn state_and_start(line: &[u8]) -> Option<(char, u64)> {
    // The second field is the program's name in parentheses; it may hold anything.
    let after = line.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&line[after..]).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(19)?.parse().ok()?))
}

/// When a living process started.
fn start_of(pid: u32) -> Option<u64> {
    match look_at(pid) {
        Seen::Started(started) => Some(started),
        Seen::Gone | Seen::Unknown => None,
    }
}

/// The environment of a process. One in the middle of its exec has none: it is waited for, as it may be what is looked for.
fn environment_of(pid: u32) -> Option<Vec<u8>> {
    let until = std::time::Instant::now() + GONE_WITHIN;
    loop {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
        let line = || std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        if !environment.is_empty() || !is_in_exec(&line()) || std::time::Instant::now() > until {
            return Some(environment);
        }
        std::thread::sleep(std::time::Duration::from_micros(200));
    }
}

/// Whether a living process has its new memory, but no place for its environment in it yet. By `/proc/<pid>/stat`, see proc(5).
fn is_in_exec(line: &[u8]) -> bool {
    /// A thread of the kernel never has one.
    const PF_KTHREAD: u64 = 0x0020_0000;
    let fields = || {
        let after = line.iter().rposition(|byte| *byte == b')')? + 1;
        let rest: Vec<&str> = std::str::from_utf8(&line[after..]).ok()?.split_ascii_whitespace().collect();
        Some((rest.first()?.chars().next()?, rest.get(6)?.parse::<u64>().ok()?, rest.get(48)?.parse::<u64>().ok()?))
    };
    fields().is_some_and(|(state, flags, environment_end)| !matches!(state, 'Z' | 'X') && flags & PF_KTHREAD == 0 && environment_end == 0)
}

/// Living processes that an owner started for a job, children of theirs included: the environment is inherited. `None`: they
/// can't be looked for.
fn left_behind(owner: &str, job: &str) -> Option<Vec<(u32, u64)>> {
    let owner = format!("{OWNER_VARIABLE}={owner}");
    let job = format!("FRAMEWRIGHT_JOB_ID={job}");
    let entries = std::fs::read_dir("/proc").ok()?;
    let mine = std::process::id();
    let found = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != mine)
        .filter(|pid| {
            let Some(environment) = environment_of(*pid) else { return false };
            let has = |wanted: &str| environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes());
            has(&owner) && has(&job)
        })
        .filter_map(|pid| Some((pid, start_of(pid)?)))
        .collect();
    Some(found)
}

/// What an owner holds while it lives: an abstract Unix socket of its name, which is closed at every exec. The name is taken as
/// long as the owner lives, or a child of it that has not come to its exec yet, and looks like nobody's till then.
#[derive(Debug)]
pub struct Presence {
    #[cfg(target_os = "linux")]
    _name: Option<std::os::unix::net::UnixListener>,
}

impl Presence {
    /// Takes the name. Where that can't be done, nobody waits.
    pub fn of(owner: &str) -> Presence {
        #[cfg(not(target_os = "linux"))]
        let _ = owner;
        Presence {
            #[cfg(target_os = "linux")]
            _name: take_name(owner).ok(),
        }
    }
}

#[cfg(target_os = "linux")]
fn take_name(owner: &str) -> std::io::Result<std::os::unix::net::UnixListener> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(format!("framewright-{owner}"))?;
    std::os::unix::net::UnixListener::bind_addr(&address)
}

/// Waits until no child of an owner that is dead is about to begin a program. Blocks.
fn wait_for_execs(owner: &str) {
    #[cfg(target_os = "linux")]
    {
        let until = std::time::Instant::now() + GONE_WITHIN;
        while std::time::Instant::now() < until && take_name(owner).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = owner;
}

/// How long the end of killed processes is waited for; one in an uninterruptible call may take longer, and then holds up
/// its job no further.
const GONE_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// Kills what an owner that is gone left behind of a job on this host, and waits until it is dead. Gives how many there
/// were. `is_dead`: the owner does not live any more, so that what it was just starting comes to an end. Blocks.
pub fn kill_left_behind(owner: &str, job: &str, is_dead: bool) -> usize {
    if is_dead {
        wait_for_execs(owner);
    }
    let until = std::time::Instant::now() + GONE_WITHIN;
    let mut killed = 0;
    loop {
        if std::time::Instant::now() > until {
            return killed;
        }
        let Some(found) = left_behind(owner, job) else {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        if found.is_empty() {
            return killed;
        }
        for (pid, started) in &found {
            // Looked at again right before: the id may belong to another by now.
            if start_of(*pid) == Some(*started) {
                killed += 1;
                // SAFETY: no memory is involved.
                unsafe { libc::kill(*pid as libc::pid_t, libc::SIGKILL) };
            }
        }
        while found.iter().any(|(pid, started)| !is_gone(*pid, *started)) && std::time::Instant::now() < until {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// What others read of an owner.
pub fn parse_place(text: &str) -> Option<Place> {
    serde_json::from_str(text).ok()
}

/// A new identity.
pub fn new_owner() -> Arc<str> {
    uuid::Uuid::new_v4().to_string().into()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    // [F155] [F152] a dead owner is told from a living one by process id and start time
    #[test]
    fn the_death_of_a_process_is_seen_and_a_zombie_is_dead() {
        let here = Place::here();
        assert!(here.is_local(&here) && !here.is_dead(&here));
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let there = Place { pid: child.id(), started: start_of(child.id()).unwrap(), ..here.clone() };
        assert!(!there.is_dead(&here));
        // The same id with another start is another process.
        assert!(Place { started: there.started + 1, ..there.clone() }.is_dead(&here));
        child.kill().unwrap();
        while start_of(there.pid).is_some() {
            std::thread::yield_now();
        }
        assert!(there.is_dead(&here));
        child.wait().unwrap();
        assert!(there.is_dead(&here));
        // Of another host, or another start of this one, nothing is known.
        assert!(!Place { boot: "other".into(), ..there.clone() }.is_dead(&here));
        assert!(!Place { namespace: "other".into(), ..there }.is_dead(&here));
    }

    // Runs itself in a process of its own, which has no descriptor left to look with.
    #[test]
    fn who_cannot_be_looked_at_is_not_dead() {
        const NAME: &str = "manager::owner::tests::who_cannot_be_looked_at_is_not_dead";
        const PLACE: &str = "FRAMEWRIGHT_TEST_PLACE";
        let Ok(place) = std::env::var(PLACE) else {
            let place = serde_json::to_string(&Place::here()).unwrap();
            let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", NAME]).env(PLACE, place).output().unwrap();
            assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
            return;
        };
        let (here, place) = (Place::here(), parse_place(&place).unwrap());
        assert!(!place.is_dead(&here));
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads the struct that it is given.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
        assert!(std::fs::read("/proc/self/stat").is_err());
        assert!(!place.is_dead(&here));
    }

    // [F152] a child before its exec has nothing in its environment that would tell whose it is
    #[test]
    fn a_program_that_a_dead_owner_was_just_starting_is_waited_for() {
        let owner = new_owner();
        // SAFETY: the child calls nothing but what is safe between fork and exec, and ends.
        let (child, go) = unsafe {
            let mut pipe = [0; 2];
            assert_eq!(libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC), 0);
            let presence = Presence::of(&owner);
            let child = libc::fork();
            if child == 0 {
                let mut byte = 0u8;
                libc::read(pipe[0], (&raw mut byte).cast(), 1);
                libc::_exit(0);
            }
            drop(presence);
            libc::close(pipe[0]);
            (child, pipe[1])
        };
        let (tell, told) = std::sync::mpsc::channel();
        let name = owner.clone();
        let waiting = std::thread::spawn(move || {
            kill_left_behind(&name, "a", true);
            let _ = tell.send(());
        });
        assert!(told.recv_timeout(std::time::Duration::from_millis(100)).is_err());
        kill_left_behind(&owner, "a", false);
        // SAFETY: one byte that lives until the call returns; the child is ours.
        unsafe {
            libc::write(go, c"x".as_ptr().cast(), 1);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
        told.recv_timeout(std::time::Duration::from_secs(10)).expect("nobody holds the name any more");
        waiting.join().unwrap();
    }

    // [F152] posix_spawn returns in the middle of the child's exec, when its environment can't be read yet
    #[test]
    fn a_program_in_the_middle_of_its_exec_is_found() {
        let owner = new_owner();
        for _ in 0..300 {
            // Until the child lets go of the name, at its exec, it has the memory of this process.
            let presence = Presence::of(&owner);
            let mut child = Command::new("/bin/sleep").arg("1000").env(OWNER_VARIABLE, &*owner).env("FRAMEWRIGHT_JOB_ID", "a").spawn().unwrap();
            drop(presence);
            assert_eq!(kill_left_behind(&owner, "a", true), 1);
            child.wait().unwrap();
        }
        let stat = |pid: u32| std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!is_in_exec(&stat(std::process::id())));
        assert!(!is_in_exec(b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0"));
        // What has no environment for good has a place for it.
        let mut child = Command::new("/bin/sleep").arg("1000").env_clear().spawn().unwrap();
        assert_eq!(environment_of(child.id()), Some(Vec::new()));
        assert!(!is_in_exec(&stat(child.id())));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    // [F152] what a dead owner left behind is killed, also what took a session of its own
    #[test]
    fn processes_of_an_owner_and_job_are_found_and_killed() {
        let owner = new_owner();
        let start = |job: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "setsid sleep 1000 & exec sleep 1000"]).env(OWNER_VARIABLE, &*owner).env("FRAMEWRIGHT_JOB_ID", job);
            command.spawn().unwrap()
        };
        let (mut mine, mut other) = (start("a"), start("b"));
        while left_behind(&owner, "a").unwrap().len() < 2 || left_behind(&owner, "b").unwrap().len() < 2 {
            std::thread::yield_now();
        }
        assert!(kill_left_behind(&owner, "a", true) >= 2);
        assert_eq!(left_behind(&owner, "a").unwrap(), []);
        assert_eq!(left_behind(&owner, "b").unwrap().len(), 2);
        kill_left_behind(&owner, "b", true);
        mine.wait().unwrap();
        other.wait().unwrap();
    }
}
