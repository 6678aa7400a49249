//! The store's clock. A SQLite file belongs to one host, so leases end by the time since that host started: it goes on while
//! the machine sleeps, is the same for all processes, and nobody can set it. A wall clock that jumps ends no lease.

use std::time::{SystemTime, UNIX_EPOCH};

/// Time of this host since it started, and which start that was.
#[derive(Debug, Clone)]
pub struct Clock {
    /// Differs after each start of the host. Leases of another start are over: their owners died with it.
    pub boot: String,
}

impl Clock {
    /// The clock of this host.
    pub fn new() -> Clock {
        Clock { boot: boot() }
    }

    /// When a lease ends that begins now.
    pub fn end(&self, lease: std::time::Duration) -> i64 {
        self.now().saturating_add(i64::try_from(lease.as_millis()).unwrap_or(i64::MAX))
    }

    /// Milliseconds since the host started.
    #[cfg(unix)]
    #[allow(clippy::unnecessary_cast, reason = "the numbers of a timespec are narrower elsewhere")]
    pub fn now(&self) -> i64 {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const SINCE_START: libc::clockid_t = libc::CLOCK_BOOTTIME;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const SINCE_START: libc::clockid_t = libc::CLOCK_MONOTONIC;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes to `time` only.
        let result = unsafe { libc::clock_gettime(SINCE_START, &mut time) };
        debug_assert_eq!(result, 0, "every Unix of ours has this clock");
        time.tv_sec as i64 * 1000 + time.tv_nsec as i64 / 1_000_000
    }

    /// Without a clock that all processes share: the wall clock.
    #[cfg(not(unix))]
    pub fn now(&self) -> i64 {
        Self::wall() as i64
    }

    /// Milliseconds since the epoch, for people.
    pub fn wall() -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_millis() as f64)
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(target_os = "macos")]
fn boot() -> String {
    let mut text = [0u8; 64];
    let mut size = text.len();
    // SAFETY: the name ends with NUL; at most `size` bytes are written to `text`.
    let result = unsafe { libc::sysctlbyname(c"kern.bootsessionuuid".as_ptr(), text.as_mut_ptr().cast(), &mut size, std::ptr::null_mut(), 0) };
    if result != 0 {
        return String::new();
    }
    String::from_utf8_lossy(&text[..size]).trim_end_matches('\0').to_owned()
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
fn boot() -> String {
    String::new()
}
