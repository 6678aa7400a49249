//! Who is left of a process group. Zombies do not count: they are dead, only their parent has not
//! asked yet.

use std::{io, time::Duration};

use libc::pid_t;
use tokio::{task::spawn_blocking, time::sleep};

/// A process, told apart from a later one with the same id by its start time.
struct Member {
    pid: pid_t,
    /// Clock ticks since boot.
    started: u64,
}

/// Resolves when the group has no living member. To be called while the leader is a zombie that is
/// not reaped: that keeps the id of the group from being given to others.
///
/// Where the system does not list the members of a group (anywhere but on Linux), it resolves at
/// once: there, only the leader has a grace.
pub(super) async fn leave(group: pid_t) {
    while let Some(members) = living(group).await {
        if members.is_empty() {
            return;
        }
        // Looking again finds those that were forked meanwhile.
        all_gone(&members).await;
    }
}

/// Resolves when a group that was killed, and whose leader was reaped, is gone.
pub(super) async fn vanish(group: pid_t) {
    // The ordinary case: the leader was alone, and a single call tells so.
    if !exists(group) {
        return;
    }
    match living(group).await {
        // From here on these processes count and not the id of the group, which is free for others
        // as soon as they are gone. There can be no new ones: all had been sent SIGKILL.
        Some(members) => all_gone(&members).await,
        None => {
            let mut pause = Pause::default();
            while exists(group) {
                pause.next().await;
            }
        }
    }
}

async fn all_gone(members: &[Member]) {
    let mut pause = Pause::default();
    while members.iter().any(Member::is_alive) {
        pause.next().await;
    }
}

/// Waits a little, each time longer: 1, 2, 5, 10, 20, then always 50 ms.
#[derive(Default)]
struct Pause(usize);

impl Pause {
    async fn next(&mut self) {
        const STEPS: [u64; 6] = [1, 2, 5, 10, 20, 50];
        sleep(Duration::from_millis(STEPS[self.0])).await;
        self.0 = (self.0 + 1).min(STEPS.len() - 1);
    }
}

/// True if the group has members, zombies among them.
fn exists(group: pid_t) -> bool {
    // SAFETY: no memory is involved, and signal 0 does nothing.
    if unsafe { libc::kill(-group, 0) } == 0 {
        return true;
    }
    match io::Error::last_os_error().raw_os_error() {
        Some(libc::ESRCH) => false,
        // Linux: they run as another user. Elsewhere also: only zombies are left.
        Some(libc::EPERM) => cfg!(target_os = "linux"),
        _ => true,
    }
}

/// The living members of a group, or `None` if the system does not tell.
async fn living(group: pid_t) -> Option<Vec<Member>> {
    // A host may have many thousand processes.
    let scan = spawn_blocking(move || scan(group));
    scan.await.unwrap_or_default()
}

#[cfg(target_os = "linux")]
fn scan(group: pid_t) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<pid_t>().ok()) else {
            continue;
        };
        // SAFETY: no memory is involved. Much cheaper than reading the file of every process.
        if unsafe { libc::getpgid(pid) } != group {
            continue;
        }
        if let Some(found) = stat(pid).filter(|found| found.group == group && found.alive) {
            members.push(Member { pid, started: found.started });
        }
    }
    Some(members)
}

#[cfg(not(target_os = "linux"))]
fn scan(_group: pid_t) -> Option<Vec<Member>> {
    None
}

impl Member {
    #[cfg(target_os = "linux")]
    fn is_alive(&self) -> bool {
        stat(self.pid).is_some_and(|found| found.alive && found.started == self.started)
    }

    #[cfg(not(target_os = "linux"))]
    fn is_alive(&self) -> bool {
        let _ = (self.pid, self.started);
        false
    }
}

#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq)]
struct Stat {
    group: pid_t,
    started: u64,
    alive: bool,
}

#[cfg(target_os = "linux")]
fn stat(pid: pid_t) -> Option<Stat> {
    parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads a line of `/proc/<pid>/stat`; see proc(5) for the fields.
#[cfg(target_os = "linux")]
fn parse(line: &[u8]) -> Option<Stat> {
    // The second field is the program's name in parentheses; it may hold anything, also a ')'.
    let after_name = line.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&line[after_name..]).ok()?;
    // Starts with the third field.
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let state = *fields.first()?;
    let threads: u64 = fields.get(17)?.parse().ok()?;
    Some(Stat {
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        // A process whose first thread has ended looks like a zombie while other threads go on.
        alive: !matches!(state, "Z" | "X") || threads > 1,
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn line(state: &str, threads: u64) -> String {
        format!("7 (a) b ()) {state} 1 42 42 0 -1 4 0 0 0 0 0 0 0 0 20 0 {threads} 0 987 0 0")
    }

    #[test]
    fn the_stat_line_is_read_whatever_the_name_of_the_program_is() {
        let found = parse(line("S", 1).as_bytes()).unwrap();
        let expected = Stat { group: 42, started: 987, alive: true };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_zombie_counts_as_gone_unless_other_threads_go_on() {
        assert!(!parse(line("Z", 1).as_bytes()).unwrap().alive);
        assert!(!parse(line("X", 1).as_bytes()).unwrap().alive);
        assert!(parse(line("Z", 2).as_bytes()).unwrap().alive);
    }

    #[test]
    fn a_line_that_is_cut_off_is_no_process() {
        assert_eq!(parse(b"7 (a) S 1 42"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn this_process_is_a_member_of_its_group() {
        // SAFETY: no memory is involved.
        let group = unsafe { libc::getpgid(0) };
        let own = std::process::id() as pid_t;
        assert!(scan(group).unwrap().iter().any(|member| member.pid == own && member.is_alive()));
    }
}
