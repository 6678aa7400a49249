//! Runs one child process without a shell, streams its output and stops it for certain.
//!
//! [`run`] starts a program in a process group of its own and resolves when the program has exited
//! and nothing of its group is left. What it relies on:
//!
//! - `resolve` finds the program first, so that the standard library can use `posix_spawn`
//!   whatever the environment of the child is, and so that a missing program and a missing working
//!   directory are different errors.
//! - `group` owns the child until it is reaped. A process group is signalled only while its
//!   leader is not reaped: until then the kernel cannot give its id to anybody else.
//! - `exit` waits without SIGCHLD, which belongs to the host of this library.
//! - `members` tells living members of a group from zombies.
//! - `output` reads the pipes without blocking and keeps a bounded part of the text.

mod exit;
mod group;
mod members;
mod output;
mod resolve;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt, io,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

pub use group::ProcessGroups;
pub use output::Kept;

use exit::Exit;
use group::Group;
use output::Output;

/// The exit code told for a process that was stopped before it was started: the one that a process
/// ended by SIGTERM has.
pub const EXIT_CODE_NEVER_STARTED: i32 = 128 + libc::SIGTERM;

/// What to run. No shell reads it: each argument reaches the program as it is.
#[derive(Clone)]
pub struct ProcessSpec {
    /// A path, if it contains a `/` (a relative one starts at `cwd`); otherwise a name that is
    /// looked up in the `PATH` of `env`, or in `/bin:/usr/bin` if `env` has none.
    pub program: String,
    /// The arguments after the program's own name.
    pub args: Vec<String>,
    /// The complete environment of the child: nothing is inherited. The last of two equal names
    /// counts.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; the one of this process if `None`.
    pub cwd: Option<PathBuf>,
}

impl fmt::Debug for ProcessSpec {
    /// Leaves out the values of the environment, since they can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("ProcessSpec").field("program", &self.program).field("args", &self.args).field("env", &names).field("cwd", &self.cwd).finish()
    }
}

/// How to treat the process.
#[derive(Debug, Clone)]
pub struct ProcessOptions {
    /// Time between SIGTERM and SIGKILL when the process is stopped. Default 5 s; with zero it is
    /// killed at once.
    pub kill_grace: Duration,
    /// So many bytes are kept from the start, and as many from the end, of each stream. Default
    /// 65,536.
    pub keep_output: usize,
    /// When it is cancelled, a process that is being stopped is killed without waiting any longer.
    pub kill_now: CancellationToken,
}

impl Default for ProcessOptions {
    fn default() -> Self {
        Self { kill_grace: Duration::from_secs(5), keep_output: 65_536, kill_now: CancellationToken::new() }
    }
}

/// One of the two output streams of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The exit code; 128 + n if signal n ended the process; [`EXIT_CODE_NEVER_STARTED`] if it was
    /// stopped before it was started.
    pub exit_code: i32,
    /// The name of the signal that ended the process, such as `SIGKILL`.
    pub signal: Option<String>,
    /// The kept part of standard output; where something is missing, a line says how much.
    pub stdout: String,
    /// The kept part of standard error, as `stdout`.
    pub stderr: String,
    /// Bytes of text that were dropped from the middle of both streams together.
    pub cut_bytes: u64,
    /// From before the start until nothing of the process group was left.
    pub duration: Duration,
    /// True if `stop` was cancelled before the process had exited by itself. Exit code and signal
    /// are still those that the process had.
    pub stopped: bool,
}

impl Finished {
    /// True if the process ended by itself with exit code 0.
    pub fn is_success(&self) -> bool {
        self.exit_code == 0 && !self.stopped
    }
}

/// Why a process could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// The program, or the interpreter that its first line names, does not exist. Trying again is
    /// of no use.
    #[error("program not found (or its interpreter is missing): {program}")]
    NotFound {
        /// The program as it was given.
        program: String,
    },
    /// The program exists, but may not be executed. Trying again is of no use.
    #[error("no permission to execute the program: {program}")]
    PermissionDenied {
        /// The program as it was given.
        program: String,
    },
    /// The working directory does not exist, is not a directory or may not be entered.
    #[error("working directory {}: {source}", path.display())]
    WorkingDirectory {
        /// The directory as it was given.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program, an argument or the environment holds what no process can be given, for example
    /// a NUL character.
    #[error("{what}")]
    InvalidArgument {
        /// What is wrong, and where.
        what: String,
    },
    /// The system could not start the process: no memory, too many processes or open files, not a
    /// program at all.
    #[error("could not start {program}: {source}")]
    Spawn {
        /// The program as it was given.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The process was started, but how it ended is not known: something else in this program
    /// reaped it, or the async runtime went away.
    #[error("lost sight of {program}: {source}")]
    Lost {
        /// The program as it was given.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Runs `spec` until the program itself has exited, however long its output stays open.
///
/// The child leads a process group of its own, its standard input is empty. Both output streams are
/// read all the time; `on_output` gets their text in order per stream. Characters are never torn
/// between two calls, invalid bytes become U+FFFD. It is called on the task of this future, which
/// it holds up: it must be quick.
///
/// When the program has exited, what is left of its group is killed. The future resolves when no
/// process of the group is alive (zombies do not count) and all output that they wrote has been
/// read. A process that made itself a session or a group of its own is not followed, and its output
/// not waited for.
///
/// When `stop` is cancelled, the group gets SIGTERM; when program and group are not gone after
/// [`ProcessOptions::kill_grace`], SIGKILL. If `stop` is cancelled already, or `groups` is closed,
/// nothing is started, and the answer is `stopped` with [`EXIT_CODE_NEVER_STARTED`].
///
/// Dropping the future kills the group; the child is then reaped in the background.
///
/// # Errors
///
/// See [`ProcessError`]. A process that started and failed is no error: see
/// [`Finished::exit_code`].
///
/// # Panics
///
/// Outside of a tokio runtime with IO and time enabled.
pub async fn run(
    spec: ProcessSpec,
    options: &ProcessOptions,
    groups: &ProcessGroups,
    stop: &CancellationToken,
    on_output: &mut (dyn FnMut(Stream, &str) + Send),
) -> Result<Finished, ProcessError> {
    let began = Instant::now();
    if stop.is_cancelled() {
        return Ok(never_started(began));
    }
    let mut command = command(&spec)?;
    let Some(spawned) = groups.spawn(|| command.spawn()) else {
        return Ok(never_started(began));
    };
    drop(command);
    let (mut child, mut group) = spawned.map_err(|source| spawn_error(&spec, source))?;

    let watched = Output::new(child.stdout.take(), child.stderr.take(), options.keep_output).and_then(|output| Ok((output, Exit::watch(group.pid())?)));
    let (mut output, mut exit) = watched.map_err(|source| ProcessError::Spawn { program: spec.program.clone(), source })?;

    // The end comes first: a child that writes without pause must not keep us from stopping it.
    let ended = tokio::select! {
        biased;
        ended = end(&mut group, &mut exit, options, stop) => ended,
        never = output.pump(on_output) => match never {},
    };
    let (status, stopped) = ended.map_err(|source| ProcessError::Lost { program: spec.program, source })?;
    output.drain(on_output);

    let (stdout, stderr, cut_bytes) = output.into_kept();
    let (exit_code, signal) = exit_code(status);
    Ok(Finished { exit_code, signal, stdout, stderr, cut_bytes, duration: began.elapsed(), stopped })
}

/// Waits for the exit of the leader or for `stop`, and leaves nothing of the group.
async fn end(group: &mut Group, exit: &mut Exit, options: &ProcessOptions, stop: &CancellationToken) -> io::Result<(ExitStatus, bool)> {
    let stopped = tokio::select! {
        biased;
        exited = exit.wait() => { exited?; false }
        () = stop.cancelled() => true,
    };
    let grace = options.kill_grace;
    if stopped && !grace.is_zero() && !options.kill_now.is_cancelled() {
        group.signal(libc::SIGTERM);
        // A suspended process could not act on SIGTERM.
        group.signal(libc::SIGCONT);
        let gone = async {
            exit.wait().await?;
            members::leave(group.pid()).await;
            io::Result::Ok(())
        };
        tokio::select! {
            result = gone => result?,
            () = tokio::time::sleep(grace) => {}
            () = options.kill_now.cancelled() => {}
        }
    }
    // The leader is not reaped yet, so the group is certainly ours. The kernel gives the signal to
    // all members at once, and no member can fork past it: after this only dying ones are left.
    group.signal(libc::SIGKILL);
    exit.wait().await?;
    let status = group.reap()?.ok_or_else(|| io::Error::other("the process was said to have exited, but could not be reaped"))?;
    members::vanish(group.pid()).await;
    Ok((status, stopped))
}

fn command(spec: &ProcessSpec) -> Result<Command, ProcessError> {
    resolve::check_arguments(spec)?;
    resolve::check_working_directory(spec)?;
    let program = resolve::program(spec)?;
    let mut command = Command::new(program);
    command
        .arg0(&spec.program)
        .args(&spec.args)
        .env_clear()
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    Ok(command)
}

fn spawn_error(spec: &ProcessSpec, source: io::Error) -> ProcessError {
    // The directory may have gone since it was checked; both give the same error number.
    if let Err(error) = resolve::check_working_directory(spec) {
        return error;
    }
    let program = spec.program.clone();
    match source.kind() {
        io::ErrorKind::NotFound => ProcessError::NotFound { program },
        io::ErrorKind::PermissionDenied => ProcessError::PermissionDenied { program },
        _ => ProcessError::Spawn { program, source },
    }
}

fn never_started(began: Instant) -> Finished {
    Finished {
        exit_code: EXIT_CODE_NEVER_STARTED,
        signal: None,
        stdout: String::new(),
        stderr: String::new(),
        cut_bytes: 0,
        duration: began.elapsed(),
        stopped: true,
    }
}

fn exit_code(status: ExitStatus) -> (i32, Option<String>) {
    match (status.code(), status.signal()) {
        (Some(code), _) => (code, None),
        (None, Some(signal)) => (128 + signal, Some(signal_name(signal))),
        // waitpid without WUNTRACED and WCONTINUED tells of nothing else.
        (None, None) => (-1, None),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGVTALRM => "SIGVTALRM",
        libc::SIGPROF => "SIGPROF",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        libc::SIGIO => "SIGIO",
        #[cfg(target_os = "linux")]
        libc::SIGSTKFLT => "SIGSTKFLT",
        #[cfg(target_os = "linux")]
        libc::SIGPWR => "SIGPWR",
        other => return format!("SIG{other}"),
    };
    name.to_owned()
}
