//! Where processes write their outputs: in which folders, under which names, and what a killed attempt left there. All of it blocks.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::executor::merge::{publish, temporary_beside};

/// Whether a file stays in the job's folder when links are followed, its own included.
///
/// # Errors
///
/// What is wrong, for people.
pub fn check_inside(file: &Path, job_folder: &Path) -> Result<(), String> {
    let or_here = |path: &Path| if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() };
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()));
    let root = or_here(job_folder);
    std::fs::create_dir_all(&root).map_err(|error| format!("{}: it can't be made: {error}", root.display()))?;
    let root = real(&root)?;
    // The deepest thing that exists decides: what is made below it can't lead out.
    let existing = file.ancestors().map(or_here).find(|path| path.symlink_metadata().is_ok()).unwrap_or_else(|| PathBuf::from("."));
    // A link that leads nowhere yet would be written through.
    if !real(&existing)?.starts_with(&root) {
        return Err(format!("{} leaves the job's folder", file.display()));
    }
    Ok(())
}

/// Makes the folder of an output. With `inside` it must not lead out of the job's folder through a link.
pub(super) fn prepare_folder(file: &Path, job_folder: &Path, inside: bool) -> Result<(), String> {
    if inside {
        check_inside(file, job_folder)?;
    }
    let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: its folder can't be made: {error}", file.display()))
}

/// Gives a folder its name, in place of what is there.
pub(super) fn put_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.symlink_metadata().is_err() {
        return std::fs::rename(from, to);
    }
    let old = temporary_beside(to, &format!("old-{}", uuid::Uuid::new_v4().simple()));
    std::fs::rename(to, &old)?;
    if let Err(error) = std::fs::rename(from, to) {
        let _ = std::fs::rename(&old, to);
        return Err(error);
    }
    remove_blocking(&old);
    Ok(())
}

/// Files whose names tools made from a temporary one by adding to it (`frame_` became `frame_0001.png`), each with the name
/// that it would have by the final one.
fn made_from(temporary: &Path, output: &Path) -> Vec<(PathBuf, PathBuf)> {
    if output.as_os_str().as_bytes().ends_with(b"/") {
        // A folder: what has its name in front is beside it, not in it.
        return Vec::new();
    }
    let stem = |path: &Path| if output.extension().is_some() { path.file_stem() } else { path.file_name() }.map(|name| name.as_bytes().to_vec());
    let (Some(begin), Some(stem)) = (stem(temporary), stem(output)) else { return Vec::new() };
    let Some(folder) = temporary.parent() else { return Vec::new() };
    let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let found = std::fs::read_dir(here).into_iter().flatten().flatten().filter_map(|entry| {
        let rest = entry.file_name().as_bytes().strip_prefix(&*begin)?.to_vec();
        let mut name = stem.clone();
        name.extend(rest);
        Some((folder.join(entry.file_name()), folder.join(OsString::from_vec(name))))
    });
    found.filter(|(from, _)| from != temporary).collect()
}

/// Gives files their names that a tool made from a temporary one; gives how many.
pub(super) fn publish_made_from(temporary: &Path, output: &Path) -> std::io::Result<usize> {
    let files = made_from(temporary, output);
    for (from, to) in &files {
        if from.is_file() { publish(from, to).map(|_| ()) } else { put_folder(from, to) }?;
    }
    Ok(files.len())
}

/// Removes what a failed attempt has written under a temporary name, or under names made from it.
pub(super) fn remove_made_from(temporary: &Path, output: &Path) {
    for (file, _) in made_from(temporary, output) {
        remove_blocking(&file);
    }
    remove_blocking(temporary);
}

/// Whether tools write many files by this name: they put a number in (`frame-%04d.png`, `frame-####`).
pub fn is_pattern(output: &str) -> bool {
    let numbered = |rest: &str| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('d');
    output.contains('#') || output.split('%').skip(1).any(numbered)
}

/// Removes what attempts before this one left beside an output: they were killed together with who would have done it.
pub(super) fn remove_leftovers(output: &Path, attempt: u32) {
    let Some(folder) = output.parent() else { return };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let stem = output.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let begin = format!(".{stem}.");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((tag, rest)) = name.to_str().and_then(|name| name.strip_prefix(&*begin)?.split_once(".partial")) else { continue };
        // Others differ in their extension only; tools add to names (`made_from`).
        let ours = match output.extension() {
            Some(extension) => rest.ends_with(&format!(".{}", extension.to_string_lossy())),
            None => !rest.starts_with('.'),
        };
        let Some((number, id)) = tag.split_once('-') else { continue };
        if ours && number.parse::<u32>().is_ok_and(|number| number < attempt) && id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            remove_blocking(&entry.path());
        }
    }
}

pub(super) fn remove_blocking(path: &Path) {
    let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
}

#[cfg(test)]
mod tests {
    use super::*;

    // [F65]
    #[test]
    fn names_that_tools_put_a_number_in() {
        for pattern in ["%d.png", "a/%04d.png", "frame_####", "shot.#.exr", "100%-%3d"] {
            assert!(is_pattern(pattern), "{pattern}");
        }
        for name in ["a.mp4", "100%.mp4", "%s", "%", "50% done.mov", "%04x"] {
            assert!(!is_pattern(name), "{name}");
        }
    }

    // [F65]
    #[test]
    fn only_earlier_attempts_of_that_output_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let keep = [".a.3-0123abcd.partial.mp4", ".a.1-0123abcd.partial.mov", ".a.b.1-0123abcd.partial.mp4", ".a.1-x.partial.mp4", "a.mp4"];
        for name in keep.iter().chain(&[".a.1-0123abcd.partial.mp4"]) {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(folder.path().join(".a.2-89abcdef.partial.mp4")).unwrap();
        std::fs::write(folder.path().join(".a.2-0123abcd.partial"), "x").unwrap();
        remove_leftovers(&folder.path().join("a.mp4"), 3);
        assert!(folder.path().join(".a.2-0123abcd.partial").exists());
        remove_leftovers(&folder.path().join("a"), 3);
        let mut left: Vec<String> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        let mut expected = keep.map(str::to_owned);
        expected.sort();
        assert_eq!(left, expected);
    }

    // [F65]
    #[test]
    fn names_that_tools_made_from_a_temporary_one_are_those_of_the_output() {
        for (output, added, expected) in [
            ("frame_", &["0001.png", "0002.png"][..], &["frame_0001.png", "frame_0002.png"][..]),
            ("film.mp4", &["0001.mp4", ".mp4.json"], &["film.mp4.json", "film0001.mp4"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let output = folder.path().join(output);
            let temporary = temporary_beside(&output, "1-0123abcd");
            let begin = if output.extension().is_some() { temporary.with_extension("") } else { temporary.clone() };
            let add = |name: &Path, end: &str| PathBuf::from(format!("{}{end}", name.display()));
            let others = ["other", ".frame_.2-0123abcd.partial0001.png"].map(|name| folder.path().join(name));
            for file in added.iter().map(|end| add(&begin, end)).chain(others.clone()) {
                std::fs::write(file, "x").unwrap();
            }
            assert_eq!(publish_made_from(&temporary, &output).unwrap(), added.len());
            let mut left: Vec<PathBuf> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            let mut all: Vec<PathBuf> = expected.iter().map(|name| folder.path().join(name)).chain(others.clone()).collect();
            left.sort();
            all.sort();
            assert_eq!(left, all);

            for end in added {
                std::fs::write(add(&begin, end), "x").unwrap();
            }
            remove_made_from(&temporary, &output);
            assert!(made_from(&temporary, &output).is_empty());
            assert!(all.iter().all(|file| file.exists()));
        }
    }

    // [F4]
    #[test]
    fn a_link_out_of_the_folder_is_seen_and_the_folder_made() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path().join("new");
        check_inside(&root.join("deep/er/a"), &root).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), root.join("link")).unwrap();
        assert!(check_inside(&root.join("link/a"), &root).unwrap_err().contains("leaves the job's folder"));
    }
}
