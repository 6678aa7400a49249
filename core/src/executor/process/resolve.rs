//! Finds the program and checks what a process is given, before anything is started.
//!
//! An absolute path keeps the standard library on `posix_spawn`. With a bare name and a `PATH` in
//! the child's environment it forks, which takes 40 ms and more in a process of 1 GiB.

use std::{
    env,
    ffi::{CString, OsStr},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{ProcessError, ProcessSpec};

/// Where programs are looked for if the environment has no `PATH`: the C library's default.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Refuses what cannot be handed to a process.
pub(super) fn check_arguments(spec: &ProcessSpec) -> Result<(), ProcessError> {
    let refuse = |what: String| Err(ProcessError::InvalidArgument { what });
    if spec.program.contains('\0') {
        return refuse("the program holds a NUL character".to_owned());
    }
    if let Some(index) = spec.args.iter().position(|arg| arg.contains('\0')) {
        return refuse(format!("argument {index} holds a NUL character"));
    }
    if let Some(cwd) = &spec.cwd
        && cwd.as_os_str().as_bytes().contains(&0)
    {
        return refuse("the working directory holds a NUL character".to_owned());
    }
    for (name, value) in &spec.env {
        let shown = name.to_string_lossy();
        if name.is_empty() || name.as_bytes().iter().any(|byte| matches!(byte, 0 | b'=')) {
            return refuse(format!("not a name for an environment variable: {shown:?}"));
        }
        if value.as_bytes().contains(&0) {
            return refuse(format!("environment variable {shown} holds a NUL character"));
        }
    }
    Ok(())
}

/// Makes sure that the working directory, if one is given, can be entered.
pub(super) fn check_working_directory(spec: &ProcessSpec) -> Result<(), ProcessError> {
    let Some(cwd) = &spec.cwd else { return Ok(()) };
    let checked = fs::metadata(cwd).and_then(|found| match found.is_dir() {
        true => may_execute(cwd),
        false => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    });
    checked.map_err(|source| ProcessError::WorkingDirectory { path: cwd.clone(), source })
}

/// The absolute path of the program, found as `execvp` would find it in the child.
pub(super) fn program(spec: &ProcessSpec) -> Result<PathBuf, ProcessError> {
    let name = spec.program.as_str();
    let not_found = || ProcessError::NotFound { program: name.to_owned() };
    let denied = || ProcessError::PermissionDenied { program: name.to_owned() };
    if name.is_empty() {
        return Err(not_found());
    }
    if name.contains('/') {
        let path = absolute(spec, Path::new(name))?;
        return match probe(&path) {
            Probe::Program => Ok(path),
            Probe::NotExecutable => Err(denied()),
            Probe::Nothing => Err(not_found()),
        };
    }
    let path = spec.env.iter().rev().find(|(name, _)| name == "PATH");
    let path = path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path.as_os_str());
    let mut found_other = false;
    // An empty entry means the working directory, as in every shell.
    for folder in env::split_paths(path) {
        let candidate = absolute(spec, &folder.join(name))?;
        match probe(&candidate) {
            Probe::Program => return Ok(candidate),
            Probe::NotExecutable => found_other = true,
            Probe::Nothing => {}
        }
    }
    Err(if found_other { denied() } else { not_found() })
}

/// `path` as seen from the working directory of the child.
fn absolute(spec: &ProcessSpec, path: &Path) -> Result<PathBuf, ProcessError> {
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let base = match &spec.cwd {
        Some(cwd) if cwd.is_absolute() => return Ok(cwd.join(path)),
        Some(cwd) => cwd.as_path(),
        None => Path::new(""),
    };
    match env::current_dir() {
        Ok(here) => Ok(here.join(base).join(path)),
        Err(source) => Err(ProcessError::WorkingDirectory { path: base.to_owned(), source }),
    }
}

enum Probe {
    Program,
    NotExecutable,
    Nothing,
}

fn probe(path: &Path) -> Probe {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && may_execute(path).is_ok() => Probe::Program,
        Ok(_) => Probe::NotExecutable,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Probe::NotExecutable,
        Err(_) => Probe::Nothing,
    }
}

/// Asks the kernel with the effective user, so that ACLs and mounts with `noexec` count too.
fn may_execute(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a valid C string for the length of the call.
    let answer = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::X_OK, libc::AT_EACCESS) };
    match answer {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
