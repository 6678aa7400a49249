//! Merging: the list that ffmpeg's concat demuxer reads, byte concatenation, and how a finished file gets its name.
//!
//! Nothing is ever written to the final path: a merge writes a temporary file beside it and [`publish`] renames
//! that, so that whoever sees the output sees all of it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How many bytes are copied between two looks at the cancel flag.
const COPY_BYTES: u64 = 8 << 20;

/// The longest file name in bytes on common file systems.
const MAX_NAME: usize = 255;

/// Why a merge failed. The message names the file.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A path has a newline, a carriage return or a NUL, which a concat list cannot hold.
    #[error("{path:?} cannot be written into a concat list: it contains {what}")]
    BadPath {
        /// The path.
        path: PathBuf,
        /// What it contains.
        what: &'static str,
    },
    /// An input is not there.
    #[error("input {path:?} of the merge is missing")]
    MissingInput {
        /// The input.
        path: PathBuf,
    },
    /// An input is a folder, a pipe or a device.
    #[error("input {path:?} of the merge is not a regular file")]
    NotAFile {
        /// The input.
        path: PathBuf,
    },
    /// The output is one of the inputs, by this or another name.
    #[error("output {path:?} of the merge is also one of its inputs")]
    OutputIsInput {
        /// The output.
        path: PathBuf,
    },
    /// The cancel flag was set; nothing was written to the output.
    #[error("the merge was cancelled")]
    Cancelled,
    /// The operating system refused something.
    #[error("could not {action} {path:?}: {source}")]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl MergeError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The text of a list for `ffmpeg -f concat -safe 0`: one `file '...'` line per input, in the order given.
///
/// ffmpeg reads a relative path from the folder of the list. An empty slice gives an empty text.
///
/// # Errors
/// [`MergeError::BadPath`] for a newline, a carriage return, a NUL or bytes that are not UTF-8.
///
/// ```
/// use framewright_core::executor::merge::concat_list;
/// assert_eq!(concat_list(&["/out/it's 1.mp4".into()]).unwrap(), "file '/out/it'\\''s 1.mp4'\n");
/// ```
pub fn concat_list(inputs: &[PathBuf]) -> Result<String, MergeError> {
    let mut list = String::new();
    for path in inputs {
        let bad = |what| MergeError::BadPath { path: path.clone(), what };
        let text = path.to_str().ok_or_else(|| bad("bytes that are not UTF-8"))?;
        for (c, what) in [('\n', "a newline"), ('\r', "a carriage return"), ('\0', "a NUL")] {
            if text.contains(c) {
                return Err(bad(what));
            }
        }
        // ffmpeg would take the beginning of `a:b.mp4` for a protocol.
        let prefix = if path.is_relative() && text.contains([':', ',']) { "./" } else { "" };
        let escaped = text.replace('\'', r"'\''");
        list.extend(["file '", prefix, &escaped, "'\n"]);
    }
    Ok(list)
}

/// A hidden name in the output's folder for the file that becomes it: `.name.TAG.partial.ext`.
///
/// The extension stays last because tools choose the format by it. A long name is shortened so that the result is
/// still a file name. In `tag`, which makes the name unique, `/` and NUL become `_`.
///
/// ```
/// use framewright_core::executor::merge::temporary_beside;
/// use std::path::Path;
/// assert_eq!(temporary_beside(Path::new("/out/film.mp4"), "42"), Path::new("/out/.film.42.partial.mp4"));
/// ```
pub fn temporary_beside(output: &Path, tag: &str) -> PathBuf {
    let tag = tag.replace(['/', '\0'], "_");
    let mut end = OsString::from(format!(".{tag}.partial"));
    if let Some(extension) = output.extension() {
        end.push(".");
        end.push(extension);
    }
    let stem = output.file_stem().unwrap_or(OsStr::new("output"));
    let mut name = OsString::from(".");
    name.push(shortened(stem, MAX_NAME.saturating_sub(1 + end.len())));
    name.push(end);
    output.parent().unwrap_or(Path::new("")).join(name)
}

/// At most `length` bytes of a name, not ending inside a UTF-8 character.
fn shortened(name: &OsStr, length: usize) -> OsString {
    let bytes = name.as_bytes();
    let mut end = length.min(bytes.len());
    while end > 0 && end < bytes.len() && bytes[end] & 0b1100_0000 == 0b1000_0000 {
        end -= 1;
    }
    OsString::from_vec(bytes[..end].to_vec())
}

/// Writes the bytes of all inputs, one after another, to `output`, and gives their number. Blocks.
///
/// The bytes go to a temporary file beside the output, which is then published (see [`publish`]). After any error
/// the temporary is gone and an older output is as it was. No inputs give an empty file. `cancelled` is looked at
/// every few megabytes until the file is complete.
///
/// # Errors
/// A missing or unsuitable input, an output that is also an input, [`MergeError::Cancelled`], or the operating
/// system's refusal.
pub fn concat_files(inputs: &[PathBuf], output: &Path, cancelled: &AtomicBool) -> Result<u64, MergeError> {
    check_inputs(inputs, output)?;
    let (mut file, temporary) = create_temporary(output)?;
    for input in inputs {
        let mut source = File::open(input).map_err(MergeError::io("open", input))?;
        loop {
            if cancelled.load(Ordering::Relaxed) {
                return Err(MergeError::Cancelled);
            }
            // Lets the kernel do the copying where the file system can.
            let copied = io::copy(&mut (&mut source).take(COPY_BYTES), &mut file).map_err(MergeError::io("append to the merged file", input))?;
            if copied == 0 {
                break;
            }
        }
    }
    if cancelled.load(Ordering::Relaxed) {
        return Err(MergeError::Cancelled);
    }
    drop(file);
    publish(&temporary.0, output).map_err(MergeError::io("publish", output))
}

fn check_inputs(inputs: &[PathBuf], output: &Path) -> Result<(), MergeError> {
    let existing = fs::metadata(output).ok().map(|found| (found.dev(), found.ino()));
    for input in inputs {
        let found = fs::metadata(input).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => MergeError::MissingInput { path: input.clone() },
            _ => MergeError::io("read", input)(error),
        })?;
        if existing == Some((found.dev(), found.ino())) {
            return Err(MergeError::OutputIsInput { path: output.to_owned() });
        }
        if !found.is_file() {
            return Err(MergeError::NotAFile { path: input.clone() });
        }
    }
    Ok(())
}

/// Removes its file when dropped; after a rename there is none.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nobody is left to tell; a leftover has a name that says what it is.
        let _ = fs::remove_file(&self.0);
    }
}

fn create_temporary(output: &Path) -> Result<(File, Temporary), MergeError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let tag = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = temporary_beside(output, &tag);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, Temporary(path))),
            // Left by a process that died and had this one's id.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(MergeError::io("create", &path)(error)),
        }
    }
}

/// Gives a finished file its final name so that it survives a crash, and its size in bytes.
///
/// The file's content reaches the disk before the rename, the rename before this returns. What was at `output` is
/// replaced in one step.
///
/// # Errors
/// The operating system's. The temporary is left where it is, unless only the last sync, that of the folder, failed.
pub fn publish(temporary: &Path, output: &Path) -> io::Result<u64> {
    let file = File::open(temporary)?;
    file.sync_all()?;
    let bytes = file.metadata()?.len();
    fs::rename(temporary, output)?;
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    match File::open(folder.unwrap_or(Path::new(".")))?.sync_all() {
        // Some network file systems cannot sync a folder.
        Err(error) if !matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Err(error),
        _ => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        let write = |(name, bytes): &(&str, &[u8])| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            path
        };
        let paths = files.iter().map(write).collect();
        (folder, paths)
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// [F92] Quotes, spaces, backslashes and unicode are written so that ffmpeg reads the same path.
    #[test]
    fn a_list_line_is_quoted_as_ffmpeg_reads_it() {
        let inputs = ["/a b/c.mp4", "/it's/'q'.mp4", r"/back\slash # é.mp4", "rel.mp4", "a:b.mp4", "/a:b,c.mp4"];
        let list = concat_list(&inputs.map(PathBuf::from)).unwrap();
        assert_eq!(
            list.lines().collect::<Vec<_>>(),
            ["file '/a b/c.mp4'", r"file '/it'\''s/'\''q'\''.mp4'", r"file '/back\slash # é.mp4'", "file 'rel.mp4'", "file './a:b.mp4'", "file '/a:b,c.mp4'",]
        );
        assert!(list.ends_with("'\n"));
        assert_eq!(concat_list(&[]).unwrap(), "");
    }

    /// [F92] A path that could start a line of its own is an error that names it.
    #[test]
    fn a_path_that_a_list_cannot_hold_is_an_error() {
        for (path, what) in
            [(&b"/a\nfile '/etc/passwd"[..], "a newline"), (b"/a\rb", "a carriage return"), (b"/a\0b", "a NUL"), (b"/a\xffb", "bytes that are not UTF-8")]
        {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            let error = concat_list(&["/fine".into(), path.clone()]).unwrap_err();
            assert_eq!(error.to_string(), format!("{path:?} cannot be written into a concat list: it contains {what}"));
        }
    }

    #[test]
    fn a_temporary_is_hidden_beside_the_output_and_keeps_its_extension() {
        for (output, temporary) in [
            ("/out/film.mp4", "/out/.film.t_1.partial.mp4"),
            ("film.tar.gz", ".film.tar.t_1.partial.gz"),
            ("a/film", "a/.film.t_1.partial"),
            ("a/.env", "a/..env.t_1.partial"),
            ("/", ".output.t_1.partial"),
        ] {
            assert_eq!(temporary_beside(Path::new(output), "t/1"), Path::new(temporary));
        }
        let long = format!("/out/{}.mp4", "é".repeat(125));
        let temporary = temporary_beside(Path::new(&long), "tag");
        let name = temporary.file_name().unwrap().to_str().unwrap();
        assert!(name.len() <= MAX_NAME && name.len() > MAX_NAME - 2 && name.ends_with("é.tag.partial.mp4"));
    }

    /// [F93] Byte concatenation without any tool, in the order given; [F94] nothing but the output is left.
    #[test]
    fn files_are_joined_byte_by_byte() {
        let big = vec![7u8; COPY_BYTES as usize + 3];
        let (folder, mut inputs) = folder_with(&[("b", b"\0second\xff"), ("empty", b""), ("a", &big), ("out.bin", b"old")]);
        let output = inputs.pop().unwrap();
        let bytes = concat_files(&inputs, &output, &AtomicBool::new(false)).unwrap();
        let expected = [b"\0second\xff", &big[..]].concat();
        assert_eq!(bytes, expected.len() as u64);
        assert!(fs::read(&output).unwrap() == expected);
        assert_eq!(names(folder.path()), ["a", "b", "empty", "out.bin"]);
        assert_eq!(concat_files(&[], &output, &AtomicBool::new(false)).unwrap(), 0);
    }

    /// [F93] A failed or cancelled merge leaves the old output and no temporary.
    #[test]
    fn a_failed_merge_leaves_everything_as_it_was() {
        let (folder, files) = folder_with(&[("a", b"a"), ("out", b"old")]);
        let [a, output] = &files[..] else { panic!() };
        let missing = folder.path().join("missing");
        let alias = folder.path().join("alias");
        std::os::unix::fs::symlink(output, &alias).unwrap();
        let go = AtomicBool::new(false);
        let failed = |inputs: &[&Path], output: &Path, cancelled: &AtomicBool| {
            let inputs: Vec<_> = inputs.iter().map(|input| input.to_path_buf()).collect();
            concat_files(&inputs, output, cancelled).unwrap_err().to_string()
        };
        assert_eq!(failed(&[a, &missing], output, &go), format!("input {missing:?} of the merge is missing"));
        assert_eq!(failed(&[a, folder.path()], output, &go), format!("input {:?} of the merge is not a regular file", folder.path()));
        assert_eq!(failed(&[a, output], output, &go), format!("output {output:?} of the merge is also one of its inputs"));
        assert_eq!(failed(&[&alias], output, &go), format!("output {output:?} of the merge is also one of its inputs"));
        assert_eq!(failed(&[a], output, &AtomicBool::new(true)), "the merge was cancelled");
        assert!(failed(&[a], &missing.join("out"), &go).starts_with("could not create "));
        // A folder where the output should be: everything is copied, then the rename fails.
        let occupied = folder.path().join("occupied");
        fs::create_dir(&occupied).unwrap();
        assert!(failed(&[a], &occupied, &go).starts_with("could not publish "));
        assert_eq!(names(folder.path()), ["a", "alias", "occupied", "out"]);
        assert_eq!(fs::read(output).unwrap(), b"old");
    }

    #[test]
    fn a_leftover_of_a_dead_process_is_no_obstacle() {
        let (folder, inputs) = folder_with(&[("a", b"a")]);
        let output = folder.path().join("out");
        for number in 0..200 {
            let tag = format!("{}-{number}", std::process::id());
            fs::write(temporary_beside(&output, &tag), "left").unwrap();
        }
        assert_eq!(concat_files(&inputs, &output, &AtomicBool::new(false)).unwrap(), 1);
        assert_eq!(names(folder.path()).len(), 202);
    }

    /// [F94] A finished file gets its name in one step, and its size is told.
    #[test]
    fn publishing_renames_and_tells_the_size() {
        let (folder, files) = folder_with(&[("tmp", b"12345"), ("out", b"old")]);
        assert_eq!(publish(&files[0], &files[1]).unwrap(), 5);
        assert_eq!(fs::read(&files[1]).unwrap(), b"12345");
        assert_eq!(names(folder.path()), ["out"]);
        assert_eq!(publish(&files[0], &files[1]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
