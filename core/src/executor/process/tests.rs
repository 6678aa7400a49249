//! Real processes, seen through [`run`].

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use libc::pid_t;
use tokio::{sync::mpsc, task::JoinHandle};

use super::*;

/// Longer than any test may take: reaching it is a failure.
const FOREVER: Duration = Duration::from_secs(60);

fn spec(program: &str, args: &[&str]) -> ProcessSpec {
    ProcessSpec {
        program: program.to_owned(),
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec![("PATH".into(), std::env::var_os("PATH").unwrap_or_default())],
        cwd: None,
    }
}

fn sh(script: &str) -> ProcessSpec {
    spec("sh", &["-c", script])
}

async fn run_to_end(spec: ProcessSpec) -> Result<Finished, ProcessError> {
    let (options, groups) = (ProcessOptions::default(), ProcessGroups::default());
    let finished = run(spec, &options, &groups, &CancellationToken::new(), &mut |_, _| {}).await;
    assert!(groups.is_empty());
    finished
}

/// A process that runs beside the test.
struct Running {
    task: JoinHandle<Result<Finished, ProcessError>>,
    output: mpsc::UnboundedReceiver<(Stream, String)>,
    text: String,
    stop: CancellationToken,
    groups: ProcessGroups,
}

impl Running {
    fn start(spec: ProcessSpec, kill_grace: Duration) -> Self {
        let (sender, output) = mpsc::unbounded_channel();
        let (stop, groups) = (CancellationToken::new(), ProcessGroups::default());
        let (stop_inside, groups_inside) = (stop.clone(), groups.clone());
        let task = tokio::spawn(async move {
            let options = ProcessOptions { kill_grace, ..Default::default() };
            let mut on_output = |stream, text: &str| {
                let _ = sender.send((stream, text.to_owned()));
            };
            run(spec, &options, &groups_inside, &stop_inside, &mut on_output).await
        });
        Self { task, output, text: String::new(), stop, groups }
    }

    /// The next whole line, from whichever stream.
    async fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return line;
            }
            let (_, text) = self.output.recv().await.expect("the process ended early");
            self.text.push_str(&text);
        }
    }

    async fn pid(&mut self) -> pid_t {
        let line = self.line().await;
        line.parse().unwrap_or_else(|_| panic!("no process id: {line:?}"))
    }

    async fn end(self) -> Finished {
        self.task.await.unwrap().unwrap()
    }
}

/// True unless the process is gone or a zombie.
fn lives(pid: pid_t) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// True if the process is a child of ours that nobody has reaped.
fn is_our_child(pid: pid_t) -> bool {
    exit::has_exited(pid).is_ok()
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < FOREVER, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

// [F63] the exit code is told as it is
#[tokio::test]
async fn the_exit_code_is_told() {
    for code in [0, 1, 7, 255] {
        let finished = run_to_end(sh(&format!("exit {code}"))).await.unwrap();
        assert_eq!((finished.exit_code, finished.signal.as_deref()), (code, None));
        assert_eq!(finished.is_success(), code == 0);
        assert!(!finished.stopped);
    }
}

// [F63] a signal is told by its name, and as 128 + n
#[tokio::test]
async fn the_signal_that_ended_the_process_is_told_by_name() {
    for (name, number) in [("KILL", 9), ("SEGV", 11), ("TERM", 15), ("USR1", 10)] {
        let finished = run_to_end(sh(&format!("kill -{name} $$"))).await.unwrap();
        assert_eq!(finished.exit_code, 128 + number);
        assert_eq!(finished.signal, Some(format!("SIG{name}")));
        assert!(!finished.stopped);
    }
}

// [F70] ENOENT of the program
#[tokio::test]
async fn a_program_that_does_not_exist_is_told() {
    let folder = tempfile::tempdir().unwrap();
    for program in ["framewright-no-such-program", "/no/such/program", "./none", ""] {
        let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..spec(program, &[]) };
        let error = run_to_end(spec).await.unwrap_err();
        assert!(matches!(&error, ProcessError::NotFound { program: p } if p == program), "{error}");
    }
}

// [F70] ENOENT of the interpreter counts as ENOENT of the program
#[tokio::test]
async fn a_script_whose_interpreter_is_missing_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    // Written by another process, or a process started meanwhile by another test could inherit the
    // open file, and the kernel would refuse to execute it.
    let write = "printf '#!/no/such/interpreter\\n' > script && chmod +x script";
    let mut writer = sh(write);
    writer.cwd = Some(folder.path().to_owned());
    assert!(run_to_end(writer).await.unwrap().is_success());

    let path = folder.path().join("script");
    let error = run_to_end(spec(path.to_str().unwrap(), &[])).await.unwrap_err();
    assert!(matches!(error, ProcessError::NotFound { .. }), "{error:?}");
}

// [F70] EACCES of the program
#[tokio::test]
async fn a_file_that_is_not_executable_is_permission_denied() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(folder.path().join("tool"), fs::Permissions::from_mode(0o644)).unwrap();

    let by_path = spec(folder.path().join("tool").to_str().unwrap(), &[]);
    let by_name = ProcessSpec { env: vec![("PATH".into(), folder.path().into())], ..spec("tool", &[]) };
    let a_folder = spec(folder.path().to_str().unwrap(), &[]);
    for spec in [by_path, by_name, a_folder] {
        let error = run_to_end(spec).await.unwrap_err();
        assert!(matches!(error, ProcessError::PermissionDenied { .. }), "{error:?}");
    }
}

// [F70] a missing working directory is not taken for a missing program
#[tokio::test]
async fn a_bad_working_directory_is_told_apart_from_a_missing_program() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for cwd in [Path::new("/no/such/folder"), file.path()] {
        let spec = ProcessSpec { cwd: Some(cwd.to_owned()), ..sh("true") };
        let error = run_to_end(spec).await.unwrap_err();
        assert!(matches!(&error, ProcessError::WorkingDirectory { path, .. } if path == cwd), "{error:?}");
    }
}

#[tokio::test]
async fn the_path_of_the_child_decides_and_files_that_are_no_programs_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    fs::write(folder.path().join("a/tool"), "").unwrap();
    fs::create_dir(folder.path().join("b")).unwrap();
    std::os::unix::fs::symlink("/bin/echo", folder.path().join("b/tool")).unwrap();

    let tool = |program: &str, path: Option<&str>| ProcessSpec {
        env: path.iter().map(|path| ("PATH".into(), path.into())).collect(),
        cwd: Some(folder.path().to_owned()),
        ..spec(program, &["found"])
    };
    for found in [tool("tool", Some("/none:a:b")), tool("b/tool", None), tool("echo", None)] {
        assert_eq!(run_to_end(found).await.unwrap().stdout, "found\n");
    }
    for missing in [tool("tool", None), tool("tool", Some("/bin"))] {
        let error = run_to_end(missing).await.unwrap_err();
        assert!(matches!(error, ProcessError::NotFound { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn what_no_process_can_be_given_is_refused() {
    let with_env = |name: &str, value: &str| ProcessSpec { env: vec![(name.into(), value.into())], ..spec("/bin/true", &[]) };
    let specs = [spec("/bin/tr\0ue", &[]), spec("/bin/true", &["a", "b\0"]), with_env("A\0", ""), with_env("A", "\0"), with_env("A=B", "c"), with_env("", "c")];
    for spec in specs {
        let error = run_to_end(spec).await.unwrap_err();
        assert!(matches!(error, ProcessError::InvalidArgument { .. }), "{error:?}");
    }
}

// [F57] no shell touches the arguments
#[tokio::test]
async fn arguments_arrive_as_they_are() {
    let args = ["", "two words", "$HOME `id` ; *", "'\"\\", "\u{1f3ac} \u{e9}", "-", "a\nb"];
    let script = r#"for arg do printf '%s\0' "$arg"; done"#;
    let mut all = vec!["-c", script, "sh"];
    all.extend(args);
    let finished = run_to_end(spec("sh", &all)).await.unwrap();
    let expected: String = args.iter().map(|arg| format!("{arg}\0")).collect();
    assert_eq!(finished.stdout, expected);
}

// [F57] the environment is exactly the given one
#[tokio::test]
async fn the_environment_is_exactly_what_was_given() {
    let mut spec = spec("/usr/bin/env", &["-0"]);
    spec.env = vec![("A".into(), "old".into()), ("LONG NAME".into(), "x=y z".into()), ("EMPTY".into(), OsString::new()), ("A".into(), "\u{1f3ac}".into())];
    let finished = run_to_end(spec).await.unwrap();
    let mut found: Vec<&str> = finished.stdout.split_terminator('\0').collect();
    found.sort_unstable();
    assert_eq!(found, ["A=\u{1f3ac}", "EMPTY=", "LONG NAME=x=y z"]);
}

#[test]
fn the_environment_is_not_shown_for_debugging() {
    let mut spec = sh("true");
    spec.env = vec![("TOKEN".into(), "s3cret".into())];
    let shown = format!("{spec:?}");
    assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
}

// [F57] the working directory is the given one
#[tokio::test]
async fn the_process_works_in_its_working_directory() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..sh("pwd -P; : > here") };
    let finished = run_to_end(spec).await.unwrap();
    assert_eq!(finished.stdout.trim_end(), real.to_str().unwrap());
    assert!(folder.path().join("here").exists());
}

#[tokio::test]
async fn standard_input_is_empty() {
    let finished = run_to_end(spec("cat", &[])).await.unwrap();
    assert_eq!((finished.exit_code, finished.stdout.as_str()), (0, ""));
}

// [F66] the streams are told apart and keep their order
#[tokio::test]
async fn both_streams_are_told_and_kept_in_order() {
    let mut running = Running::start(sh("for i in 1 2 3; do echo out $i; echo err $i >&2; done; printf end"), FOREVER);
    let (mut out, mut err) = (String::new(), String::new());
    while let Some((stream, text)) = running.output.recv().await {
        match stream {
            Stream::Stdout => out.push_str(&text),
            Stream::Stderr => err.push_str(&text),
        }
    }
    let finished = running.end().await;
    assert_eq!(out, "out 1\nout 2\nout 3\nend");
    assert_eq!(err, "err 1\nerr 2\nerr 3\n");
    assert_eq!((finished.stdout, finished.stderr), (out, err));
}

// [F66] output comes while the process runs, and characters are not torn between reads
#[tokio::test]
async fn a_character_that_is_written_in_two_parts_arrives_whole() {
    // The child goes on only when the file is there, that is after the first part was read.
    let folder = tempfile::tempdir().unwrap();
    let script = r"printf 'first\n\360\237'; while [ ! -e go ]; do sleep 0.01; done
        printf '\216\254 \377 last\303'";
    let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..sh(script) };
    let mut running = Running::start(spec, FOREVER);
    let mut pieces = vec![running.output.recv().await.unwrap().1];
    fs::write(folder.path().join("go"), "").unwrap();
    while let Some((_, text)) = running.output.recv().await {
        pieces.push(text);
    }
    let expected = "first\n\u{1f3ac} \u{FFFD} last\u{FFFD}";
    assert_eq!(pieces[0], "first\n");
    assert_eq!(pieces.concat(), expected);
    assert_eq!(running.end().await.stdout, expected);
}

// [F68] 100 MB neither block the child nor grow memory
#[tokio::test]
async fn a_hundred_megabytes_pass_with_bounded_memory() {
    const WRITTEN: u64 = 100_000_000;
    const ALONE: &str = "FRAMEWRIGHT_TEST_ALONE";
    // Memory is measured of a whole process, so this test runs in one where no other test does.
    if std::env::var_os(ALONE).is_none() {
        let (_, module) = module_path!().split_once("::").unwrap();
        let name = format!("{module}::a_hundred_megabytes_pass_with_bounded_memory");
        let alone = Command::new(std::env::current_exe().unwrap()).args(["--exact", &name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let told = String::from_utf8_lossy(&alone.stdout);
        assert!(alone.status.success() && told.contains("1 passed"), "{alone:?}");
        return;
    }
    let peak_kib = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let script = format!("echo start; yes 0123456789abcde | head -c {WRITTEN}; echo end >&2");
    let (before, mut seen) = (peak_kib(), 0);
    let mut on_output = |stream, text: &str| {
        if stream == Stream::Stdout {
            seen += text.len() as u64;
        }
    };
    let (options, groups) = (ProcessOptions::default(), ProcessGroups::default());
    let stop = CancellationToken::new();
    let finished = run(sh(&script), &options, &groups, &stop, &mut on_output).await.unwrap();
    let grown = peak_kib() - before;

    assert!(grown < 16 * 1024, "grew by {grown} KiB");
    assert_eq!(seen, WRITTEN + 6);
    assert_eq!(finished.cut_bytes, WRITTEN + 6 - 2 * 65_536);
    assert!(finished.stdout.len() < 2 * 65_536 + 100);
    assert!(finished.stdout.starts_with("start\n0123"));
    let marker = format!("\n... [{} bytes cut] ...\n", finished.cut_bytes);
    assert!(finished.stdout.contains(&marker));
    assert_eq!(finished.stderr, "end\n");
}

// [F68] both streams are read at once
#[tokio::test]
async fn a_full_pipe_of_one_stream_does_not_hold_up_the_other() {
    let finished = run_to_end(sh("head -c 1000000 /dev/zero >&2; echo done")).await.unwrap();
    assert_eq!(finished.stdout, "done\n");
    assert_eq!(finished.cut_bytes, 1_000_000 - 2 * 65_536);
}

#[tokio::test]
async fn a_process_that_closes_its_output_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..sh("exec >&- 2>&-; sleep 0.2; : > late; exit 4") };
    let finished = run_to_end(spec).await.unwrap();
    assert_eq!(finished.exit_code, 4);
    assert!(folder.path().join("late").exists());
}

// [F62] SIGTERM comes first, and what it makes the process write and answer is told
#[tokio::test]
async fn stop_asks_with_sigterm_and_tells_how_the_process_answered() {
    let script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(sh(script), FOREVER);
    assert_eq!(running.line().await, "ready");
    running.stop.cancel();
    let finished = running.end().await;
    assert!(finished.stopped && !finished.is_success());
    assert_eq!((finished.exit_code, finished.signal), (9, None));
    assert_eq!(finished.stdout, "ready\nbye\n");
}

// [F62] a process that ignores SIGTERM is killed after the grace, not before
#[tokio::test]
async fn a_process_that_ignores_sigterm_is_killed_after_the_grace() {
    let grace = Duration::from_millis(150);
    let script = "trap '' TERM; echo $$; while :; do sleep 0.01; done";
    let mut running = Running::start(sh(script), grace);
    let pid = running.pid().await;
    let asked = Instant::now();
    running.stop.cancel();
    let finished = running.end().await;
    assert!(asked.elapsed() >= grace);
    assert!(finished.stopped);
    assert_eq!((finished.exit_code, finished.signal.as_deref()), (137, Some("SIGKILL")));
    assert!(!is_our_child(pid));
}

// [F62] without grace it is killed at once
#[tokio::test]
async fn a_grace_of_zero_kills_at_once() {
    let script = "trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let mut running = Running::start(sh(script), Duration::ZERO);
    running.line().await;
    running.stop.cancel();
    assert_eq!(running.end().await.signal.as_deref(), Some("SIGKILL"));
}

// [F62] a suspended process is stopped too, and need not be killed
#[tokio::test]
async fn a_suspended_process_gets_to_act_on_sigterm() {
    let script = "trap 'exit 3' TERM; echo $$; while :; do sleep 0.01; done";
    let mut running = Running::start(sh(script), FOREVER);
    let pid = running.pid().await;
    // SAFETY: no memory is involved; the process is a child of ours.
    assert_eq!(unsafe { libc::kill(-pid, libc::SIGSTOP) }, 0);
    running.stop.cancel();
    assert_eq!(running.end().await.exit_code, 3);
}

// [F62] stop reaches grandchildren, and waits for those that ignore SIGTERM until they are killed
#[tokio::test]
async fn stop_reaches_grandchildren() {
    let gentle = "sleep 1000 & echo $!; wait";
    let stubborn = "(trap '' TERM; sh -c 'echo $$; while :; do sleep 0.01; done') & wait";
    for (script, grace, at_least) in [(gentle, FOREVER, Duration::ZERO), (stubborn, Duration::from_millis(150), Duration::from_millis(150))] {
        let mut running = Running::start(sh(script), grace);
        let grandchild = running.pid().await;
        assert!(lives(grandchild));
        let asked = Instant::now();
        running.stop.cancel();
        let groups = running.groups.clone();
        let finished = running.end().await;
        assert!(!lives(grandchild), "{script}");
        assert!(asked.elapsed() >= at_least && asked.elapsed() < FOREVER / 2, "{script}");
        assert_eq!(finished.signal.as_deref(), Some("SIGTERM"));
        assert!(groups.is_empty());
    }
}

// [F62] a grandchild has the grace too, when its parent is gone at once
#[tokio::test]
async fn a_grandchild_may_finish_within_the_grace() {
    let script = "(trap 'sleep 0.1; echo saved; exit' TERM; echo ready; \
        while :; do sleep 0.01; done) & wait";
    let mut running = Running::start(sh(script), FOREVER);
    assert_eq!(running.line().await, "ready");
    running.stop.cancel();
    assert_eq!(running.end().await.stdout, "ready\nsaved\n");
}

// [F62] no orphan after a normal end either
#[tokio::test]
async fn a_grandchild_left_behind_is_killed_and_does_not_hold_up_the_end() {
    let mut running = Running::start(sh("sleep 1000 & echo $!; exit 5"), FOREVER);
    let grandchild = running.pid().await;
    let finished = running.end().await;
    assert!(!lives(grandchild));
    assert_eq!((finished.exit_code, finished.stopped), (5, false));
}

#[tokio::test]
async fn a_stranger_that_holds_the_output_is_not_waited_for() {
    // In a session of its own it is not ours any more. It writes without pause, too, as
    // long as somebody reads. The fifo makes the child wait until it has left.
    let folder = tempfile::tempdir().unwrap();
    let script = "mkfifo left; setsid sh -c 'echo $$; : > left; yes; exec sleep 1000' & : < left; exit 6";
    let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..sh(script) };
    let mut running = Running::start(spec, FOREVER);
    let stranger = running.pid().await;
    let finished = running.end().await;
    assert_eq!(finished.exit_code, 6);
    assert!(lives(stranger));
    // SAFETY: no memory is involved; the id was seen alive just now.
    unsafe { libc::kill(stranger, libc::SIGKILL) };
}

// [F62] stopped before the start, nothing is started
#[tokio::test]
async fn stop_before_the_start_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spec = ProcessSpec { cwd: Some(folder.path().to_owned()), ..sh(": > started") };
    let (options, groups) = (ProcessOptions::default(), ProcessGroups::default());
    let stop = CancellationToken::new();
    stop.cancel();
    let finished = run(spec.clone(), &options, &groups, &stop, &mut |_, _| {}).await.unwrap();
    assert!(finished.stopped);
    assert_eq!((finished.exit_code, finished.signal), (EXIT_CODE_NEVER_STARTED, None));

    groups.close();
    let stop = CancellationToken::new();
    let finished = run(spec, &options, &groups, &stop, &mut |_, _| {}).await.unwrap();
    assert!(finished.stopped);
    assert!(!folder.path().join("started").exists());
}

#[tokio::test]
async fn stop_after_the_end_changes_nothing() {
    let stop = CancellationToken::new();
    let (options, groups) = (ProcessOptions::default(), ProcessGroups::default());
    let finished = run(sh("exit 2"), &options, &groups, &stop, &mut |_, _| {}).await.unwrap();
    stop.cancel();
    assert_eq!((finished.exit_code, finished.stopped), (2, false));
}

// [F62] an abandoned call leaves no process
#[tokio::test]
async fn dropping_the_future_kills_the_group_and_reaps_the_child() {
    let script = "trap '' TERM; echo $$; sleep 1000 & echo $!; wait";
    let mut running = Running::start(sh(script), FOREVER);
    let (child, grandchild) = (running.pid().await, running.pid().await);
    assert!(is_our_child(child) && lives(grandchild));
    running.task.abort();
    eventually("the group is killed", || !lives(child) && !lives(grandchild)).await;
    eventually("the child is reaped", || !is_our_child(child)).await;
    eventually("the group is forgotten", || running.groups.is_empty()).await;
}

// [F62] the end of the runtime leaves no process
#[test]
fn the_end_of_the_runtime_kills_the_group() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (running, child) = runtime.block_on(async {
        let mut running = Running::start(sh("echo $$; exec sleep 1000"), FOREVER);
        let child = running.pid().await;
        (running, child)
    });
    drop(runtime);
    let began = Instant::now();
    while lives(child) || is_our_child(child) || !running.groups.is_empty() {
        assert!(began.elapsed() < FOREVER);
        std::thread::yield_now();
    }
}

// [F62] a panic of the one who reads the output leaves no process
#[tokio::test]
async fn a_panic_in_the_callback_kills_the_group() {
    let groups = ProcessGroups::default();
    let inside = groups.clone();
    let task = tokio::spawn(async move {
        let options = ProcessOptions::default();
        let stop = CancellationToken::new();
        run(sh("echo; sleep 1000"), &options, &inside, &stop, &mut |_, _| panic!("on purpose")).await
    });
    assert!(task.await.unwrap_err().is_panic());
    eventually("the group is forgotten", || groups.is_empty()).await;
}

// [F62] an exit hook reaches every process
#[tokio::test]
async fn kill_all_kills_every_group() {
    let groups = ProcessGroups::default();
    let mut tasks = Vec::new();
    let (sender, mut lines) = mpsc::unbounded_channel();
    for _ in 0..5 {
        let (groups, sender) = (groups.clone(), sender.clone());
        tasks.push(tokio::spawn(async move {
            let (options, stop) = (ProcessOptions::default(), CancellationToken::new());
            let mut on_output = |_, text: &str| {
                let _ = sender.send(text.trim().parse::<pid_t>().unwrap());
            };
            let script = "trap '' TERM; sleep 1000 & echo $!; wait";
            run(sh(script), &options, &groups, &stop, &mut on_output).await.unwrap()
        }));
    }
    let mut grandchildren = Vec::new();
    for _ in 0..5 {
        grandchildren.push(lines.recv().await.unwrap());
    }
    assert_eq!(groups.len(), 5);
    groups.kill_all();
    for task in tasks {
        let finished = task.await.unwrap();
        assert_eq!(finished.signal.as_deref(), Some("SIGKILL"));
        assert!(!finished.stopped);
    }
    assert!(grandchildren.into_iter().all(|pid| !lives(pid)));
    assert!(groups.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_all_reaches_processes_that_are_being_started() {
    for _ in 0..20 {
        let groups = ProcessGroups::default();
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let groups = groups.clone();
                tokio::spawn(async move {
                    let (options, stop) = (ProcessOptions::default(), CancellationToken::new());
                    run(sh("exec sleep 1000"), &options, &groups, &stop, &mut |_, _| {}).await
                })
            })
            .collect();
        tokio::task::yield_now().await;
        groups.close();
        for task in tasks {
            let finished = tokio::time::timeout(FOREVER, task).await.unwrap().unwrap().unwrap();
            assert!(finished.stopped || finished.exit_code == 137, "{finished:?}");
        }
    }
}

// [F62] [F63] many at once: each has its own answer, and no zombie is left
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_are_told_apart_and_leave_no_zombie() {
    let groups = ProcessGroups::default();
    let tasks: Vec<_> = (0..50)
        .map(|index| {
            let groups = groups.clone();
            tokio::spawn(async move {
                let (options, stop) = (ProcessOptions::default(), CancellationToken::new());
                let script = format!("echo $$; echo {index} >&2; exit {index}");
                let finished = run(sh(&script), &options, &groups, &stop, &mut |_, _| {}).await;
                (index, finished.unwrap())
            })
        })
        .collect();
    for task in tasks {
        let (index, finished) = task.await.unwrap();
        assert_eq!(finished.exit_code, index);
        assert_eq!(finished.stderr, format!("{index}\n"));
        assert!(!is_our_child(finished.stdout.trim().parse().unwrap()));
    }
    assert!(groups.is_empty());
}

#[tokio::test]
async fn a_child_that_somebody_else_reaped_is_told_as_lost() {
    let mut running = Running::start(sh("echo $$; exec sleep 1000"), FOREVER);
    let pid = running.pid().await;
    // SAFETY: no memory is involved; waitpid may be given no place for the status.
    unsafe {
        assert_eq!(libc::kill(pid, libc::SIGKILL), 0);
        libc::waitpid(pid, std::ptr::null_mut(), 0);
    }
    let groups = running.groups.clone();
    match running.task.await.unwrap() {
        Err(ProcessError::Lost { .. }) => {}
        // The watch was quicker than this test.
        Ok(finished) => assert_eq!(finished.signal.as_deref(), Some("SIGKILL")),
        Err(error) => panic!("{error}"),
    }
    assert!(groups.is_empty());
}
