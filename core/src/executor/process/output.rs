//! The output of a process: read without blocking, decoded, and kept within bounds.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::VecDeque,
    convert::Infallible,
    fs::File,
    future,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    process::{ChildStderr, ChildStdout},
};

use tokio::io::{Interest, unix::AsyncFd};

use super::Stream;

/// Bytes for one read: what a pipe holds by default.
const READ_SIZE: usize = 64 * 1024;

/// Who gets the text.
type OnOutput<'a> = &'a mut (dyn FnMut(Stream, &str) + Send);

/// Both streams of one process.
pub(super) struct Output {
    stdout: Source,
    stderr: Source,
    /// Bytes for one read.
    size: usize,
}

impl Output {
    /// Takes over the read ends of the pipes. `keep` is in bytes, for each end of each stream.
    pub(super) fn new(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>, keep: usize) -> io::Result<Self> {
        Ok(Self {
            stdout: Source::new(Stream::Stdout, stdout.map(OwnedFd::from), keep)?,
            stderr: Source::new(Stream::Stderr, stderr.map(OwnedFd::from), keep)?,
            size: READ_SIZE,
        })
    }

    /// Reads as long as it is polled. May be dropped at any time without losing text.
    pub(super) async fn pump(&mut self, on_output: OnOutput<'_>) -> Infallible {
        loop {
            tokio::select! {
                () = self.stdout.readable() => with_buffer(self.size, |buffer| self.stdout.read_ready(buffer, on_output)),
                () = self.stderr.readable() => with_buffer(self.size, |buffer| self.stderr.read_ready(buffer, on_output)),
            };
        }
    }

    /// Reads what is in the pipes at this moment, and no more: somebody outside of the process
    /// group may hold the other end and write on. Ends the texts.
    pub(super) fn drain(&mut self, on_output: OnOutput<'_>) {
        for source in [&mut self.stdout, &mut self.stderr] {
            let mut left = source.waiting();
            while left > 0 {
                match with_buffer(self.size, |buffer| source.read_now(buffer, on_output)) {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            source.finish(on_output);
        }
    }

    /// The kept text of both streams, and how many bytes are missing in it.
    pub(super) fn into_kept(self) -> (String, String, u64) {
        let cut = self.stdout.kept.cut() + self.stderr.kept.cut();
        (self.stdout.kept.into_text(), self.stderr.kept.into_text(), cut)
    }
}

thread_local! {
    /// One for all processes of a thread: making it takes longer than most reads.
    static BUFFER: Cell<Box<[u8]>> = Cell::default();
}

fn with_buffer<T>(size: usize, read: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; READ_SIZE].into_boxed_slice();
    }
    let result = read(&mut buffer[..size]);
    BUFFER.set(buffer);
    result
}

/// One stream.
struct Source {
    stream: Stream,
    /// `None` once it has ended.
    pipe: Option<AsyncFd<File>>,
    decoder: Decoder,
    kept: Kept,
}

impl Source {
    fn new(stream: Stream, pipe: Option<OwnedFd>, keep: usize) -> io::Result<Self> {
        let watch = |pipe: OwnedFd| {
            set_nonblocking(&pipe)?;
            // SAFETY: the descriptor stays open, and the same one, as long as the file lives.
            let pipe = unsafe { AsyncFd::register_with_interest(File::from(pipe), Interest::READABLE) }?;
            io::Result::Ok(pipe)
        };
        Ok(Self { stream, pipe: pipe.map(watch).transpose()?, decoder: Decoder::default(), kept: Kept::new(keep) })
    }

    /// Resolves when a read may give something; never once the stream has ended.
    async fn readable(&mut self) {
        if let Some(pipe) = &self.pipe {
            match pipe.readable().await {
                // Readiness stays set until a read finds nothing.
                Ok(_) => return,
                Err(_) => self.pipe = None,
            }
        }
        future::pending().await
    }

    /// Reads once after [`readable`](Self::readable). When there is nothing, the next `readable`
    /// waits.
    fn read_ready(&mut self, buffer: &mut [u8], on_output: OnOutput<'_>) {
        let Some(pipe) = &self.pipe else { return };
        let result = pipe.try_io(Interest::READABLE, |file| read(file, buffer));
        self.take(result, buffer, on_output);
    }

    /// Reads once, also when the runtime has not heard yet that there is something to read. 0 if
    /// there is nothing.
    fn read_now(&mut self, buffer: &mut [u8], on_output: OnOutput<'_>) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let result = read(pipe.get_ref(), buffer);
        self.take(result, buffer, on_output)
    }

    fn take(&mut self, read: io::Result<usize>, buffer: &[u8], on_output: OnOutput<'_>) -> usize {
        match read {
            Ok(count) if count > 0 => {
                let text = self.decoder.decode(&buffer[..count]);
                self.kept.push(&text);
                if !text.is_empty() {
                    on_output(self.stream, &text);
                }
                count
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            // The end, or a pipe that cannot be read. The process may go on without it.
            Ok(_) | Err(_) => {
                self.pipe = None;
                0
            }
        }
    }

    /// How many bytes are in the pipe.
    fn waiting(&self) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let mut count: libc::c_int = 0;
        // SAFETY: FIONREAD writes one int, and `count` is valid for that.
        match unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD as _, &mut count) } {
            0 => usize::try_from(count).unwrap_or(0),
            // One read is better than none.
            _ => 1,
        }
    }

    fn finish(&mut self, on_output: OnOutput<'_>) {
        let text = self.decoder.finish();
        self.kept.push(text);
        if !text.is_empty() {
            on_output(self.stream, text);
        }
    }
}

fn read(mut file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn set_nonblocking(pipe: &OwnedFd) -> io::Result<()> {
    let fd = pipe.as_raw_fd();
    // SAFETY: no memory is involved, and the descriptor is open.
    let done = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags != -1 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) != -1
    };
    match done {
        true => Ok(()),
        false => Err(io::Error::last_os_error()),
    }
}

/// Makes text of bytes that come in pieces. A character that is torn between two pieces waits for
/// its rest; what is not UTF-8 becomes U+FFFD.
#[derive(Default)]
struct Decoder {
    /// The start of a character, at most three bytes.
    pending: Vec<u8>,
}

impl Decoder {
    fn decode<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        if self.pending.is_empty() {
            let (text, rest) = text_and_rest(bytes);
            self.pending.extend_from_slice(rest);
            return text;
        }
        let mut joined = std::mem::take(&mut self.pending);
        joined.extend_from_slice(bytes);
        let (text, rest) = text_and_rest(&joined);
        self.pending.extend_from_slice(rest);
        Cow::Owned(text.into_owned())
    }

    /// What is left at the end of the stream.
    fn finish(&mut self) -> &'static str {
        match self.pending.is_empty() {
            true => "",
            false => {
                self.pending.clear();
                "\u{FFFD}"
            }
        }
    }
}

/// Splits off the start of a character at the end of `bytes`.
fn text_and_rest(bytes: &[u8]) -> (Cow<'_, str>, &[u8]) {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let torn = match std::str::from_utf8(last) {
        Err(error) if error.error_len().is_none() => last.len(),
        _ => 0,
    };
    let (whole, rest) = bytes.split_at(bytes.len() - torn);
    (String::from_utf8_lossy(whole), rest)
}

/// The first and the last bytes of a text.
#[derive(Debug, Clone)]
pub struct Kept {
    limit: usize,
    head: String,
    /// True once something did not fit into the head.
    head_is_full: bool,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    /// Keeps so many bytes of each end.
    pub fn new(limit: usize) -> Self {
        Self { limit, head: String::new(), head_is_full: false, tail: VecDeque::new(), dropped: 0 }
    }

    /// Adds what comes next.
    pub fn push(&mut self, mut text: &str) {
        if !self.head_is_full {
            let room = self.limit - self.head.len();
            let fits = text.floor_char_boundary(room);
            self.head.push_str(&text[..fits]);
            text = &text[fits..];
            self.head_is_full = !text.is_empty();
        }
        let mut bytes = text.as_bytes();
        if bytes.len() > self.limit {
            let skipped = bytes.len() - self.limit;
            self.dropped += skipped as u64;
            bytes = &bytes[skipped..];
        }
        let over = (self.tail.len() + bytes.len()).saturating_sub(self.limit);
        self.tail.drain(..over);
        self.dropped += over as u64;
        self.tail.extend(bytes);
        if over > 0 || bytes.len() < text.len() {
            self.trim_tail();
        }
    }

    /// Removes what is left of a character that was cut.
    fn trim_tail(&mut self) {
        while self.tail.front().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {
            self.tail.pop_front();
            self.dropped += 1;
        }
    }

    fn cut(&self) -> u64 {
        self.dropped
    }

    /// What is kept, with a line that tells what was cut.
    pub fn into_text(self) -> String {
        let mut text = self.head;
        if self.dropped > 0 {
            text.push_str(&format!("\n... [{} bytes cut] ...\n", self.dropped));
        }
        // Cut between characters, so that it is text already.
        let (first, second) = self.tail.as_slices();
        text.reserve_exact(self.tail.len());
        match (std::str::from_utf8(first), std::str::from_utf8(second)) {
            (Ok(first), Ok(second)) => {
                text.push_str(first);
                text.push_str(second);
            }
            _ => text.push_str(&String::from_utf8_lossy(&Vec::from(self.tail))),
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[tokio::test]
    async fn draining_takes_what_is_there_and_does_not_run_after_a_writer() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut output =
            Output { stdout: Source::new(Stream::Stdout, Some(reader.into()), 100).unwrap(), stderr: Source::new(Stream::Stderr, None, 100).unwrap(), size: 4 };
        writer.write_all(b"0123456789").unwrap();
        // No await up to here: the runtime does not know that there is something to read.
        output.drain(&mut |_, text| writer.write_all(text.as_bytes()).unwrap());
        assert_eq!(output.into_kept().0, "012345678901");
    }

    fn decode_in_pieces(bytes: &[u8], size: usize) -> String {
        let mut decoder = Decoder::default();
        let mut text = String::new();
        for piece in bytes.chunks(size) {
            text.push_str(&decoder.decode(piece));
        }
        text.push_str(decoder.finish());
        text
    }

    // [F66] characters survive being torn at any place
    #[test]
    fn text_is_the_same_however_it_is_cut_into_reads() {
        let good = "a\u{e9}\u{20ac}\u{1f3ac}z".repeat(3).into_bytes();
        let bad = b"\xff\xc3\xe2\x82\xf0\x9f\x8ea\xed\xa0\x80\x80\xf0\x9f\x8e\xe2\x82".to_vec();
        for bytes in [good, bad] {
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            for size in 1..=bytes.len() {
                assert_eq!(decode_in_pieces(&bytes, size), whole, "reads of {size} bytes");
            }
        }
    }

    fn keep(limit: usize, pieces: &[&str]) -> (String, u64) {
        let mut kept = Kept::new(limit);
        for piece in pieces {
            kept.push(piece);
            assert!(kept.head.len() <= limit && kept.tail.len() <= limit);
        }
        let cut = kept.cut();
        (kept.into_text(), cut)
    }

    #[test]
    fn text_that_fits_is_kept_whole() {
        assert_eq!(keep(4, &["ab", "cd", "", "ef", "gh"]), ("abcdefgh".into(), 0));
        assert_eq!(keep(4, &[]), (String::new(), 0));
        assert_eq!(keep(usize::MAX, &["ab", "cd"]), ("abcd".into(), 0));
    }

    #[test]
    fn the_middle_is_cut_and_counted() {
        let expected = ("abcd\n... [2 bytes cut] ...\nghij".to_owned(), 2);
        assert_eq!(keep(4, &["abcdefghij"]), expected);
        assert_eq!(keep(4, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]), expected);
        assert_eq!(keep(0, &["abc"]), ("\n... [3 bytes cut] ...\n".into(), 3));
    }

    #[test]
    fn cuts_are_between_characters_and_every_byte_is_accounted_for() {
        let text = "\u{20ac}\u{e9}x\u{1f3ac}".repeat(20);
        for limit in 0..text.len() {
            for size in [1, 3, 7, 200] {
                let chars: Vec<char> = text.chars().collect();
                let pieces: Vec<String> = chars.chunks(size).map(String::from_iter).collect();
                let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
                let (kept, cut) = keep(limit, &pieces);
                assert!(!kept.contains('\u{FFFD}'));
                let marker = match cut {
                    0 => 0,
                    cut => format!("\n... [{cut} bytes cut] ...\n").len(),
                };
                assert_eq!(kept.len() - marker + cut as usize, text.len());
            }
        }
    }
}
