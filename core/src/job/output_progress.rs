//! Progress inside a chunk, read from what its program prints.

use std::sync::LazyLock;

use parking_lot::Mutex;
use regex::{Captures, Regex};

/// ffmpeg's `frame=  123` (frames written so far) and Blender's `Fra:123` (the frame being rendered).
const DEFAULT_PATTERN: &str = r"\bframe=\s*(?<frame>[0-9]+)|\bFra:\s*(?<absolute>[0-9]+)";

/// Most bytes of an unfinished line that are kept for the next piece.
const CARRY_BYTES: usize = 4096;

/// The default pattern, compiled once: that takes as long as starting a process.
static DEFAULT: LazyLock<Result<Regex, regex::Error>> = LazyLock::new(|| Regex::new(DEFAULT_PATTERN));
/// The custom pattern that was used last: the chunks of a job all have the same.
static LATEST: Mutex<Option<Regex>> = Mutex::new(None);

fn compiled(pattern: Option<&str>) -> Result<Regex, ProgressPatternError> {
    let Some(pattern) = pattern else { return Ok(DEFAULT.clone()?) };
    let known = LATEST.lock().as_ref().filter(|known| known.as_str() == pattern).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let regex = Regex::new(pattern)?;
    if !regex.capture_names().flatten().any(|name| name == "frame" || name == "percent") {
        return Err(ProgressPatternError::MissingGroup);
    }
    *LATEST.lock() = Some(regex.clone());
    Ok(regex)
}

/// Why a progress pattern cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgressPatternError {
    /// It is not a regular expression.
    #[error("{0}")]
    Syntax(#[from] regex::Error),
    /// It says nothing about where the number is.
    #[error("the pattern has no group named `frame` or `percent`, such as (?<frame>\\d+)")]
    MissingGroup,
}

/// Finds how far one attempt of a chunk is in the text that its program prints.
///
/// Text comes in pieces; lines end with `\n` or `\r` and may be split anywhere. One reader per stream and attempt.
#[derive(Debug)]
pub struct ProgressReader {
    pattern: Regex,
    custom: bool,
    frame_step: u64,
    /// The beginning of a line whose end has not come yet, and then the text that is looked at.
    buffer: String,
    /// The highest fraction so far.
    highest: f64,
}

impl ProgressReader {
    /// A reader with the user's pattern, or with the default one, which knows ffmpeg and Blender.
    ///
    /// A pattern is looked for line by line, as often as it occurs. Its group `percent` is 0 to 100 and
    /// may have decimals; its group `frame` counts the chunk's frames from 1, as ffmpeg does.
    ///
    /// # Errors
    /// A pattern that is not a regular expression (of the `regex` crate: no look-around, no back references), or has
    /// neither group.
    ///
    /// ```
    /// use framewright_core::job::output_progress::ProgressReader;
    /// let mut reader = ProgressReader::new(Some(r"(?<percent>[\d.]+)% done")).unwrap();
    /// assert_eq!(reader.feed("12.5% done\r25.0% do", None, None), Some(0.125));
    /// assert_eq!(reader.feed("ne\r", None, None), Some(0.25));
    /// ```
    pub fn new(pattern: Option<&str>) -> Result<Self, ProgressPatternError> {
        Ok(Self { pattern: compiled(pattern)?, custom: pattern.is_some(), frame_step: 1, buffer: String::new(), highest: 0.0 })
    }

    /// The distance between rendered frames, which Blender's frame numbers are divided by. Default 1.
    pub fn with_frame_step(mut self, frame_step: u64) -> Self {
        self.frame_step = frame_step.max(1);
        self
    }

    /// Takes the next piece of output; gives the fraction done, 0 to 1, if the piece tells it.
    ///
    /// It is the highest that was found so far, so it never falls. A frame number says nothing while `frame_count` is
    /// unknown, and Blender's nothing without `start_frame`.
    pub fn feed(&mut self, text: &str, start_frame: Option<u64>, frame_count: Option<u64>) -> Option<f64> {
        let seen = self.buffer.len();
        self.buffer.push_str(text);
        let fraction = self.highest_new(seen, start_frame, frame_count);
        self.keep_unfinished_line();
        let fraction = fraction?;
        self.highest = self.highest.max(fraction);
        Some(self.highest)
    }

    /// The highest fraction in the buffer that was not complete in its first `seen` bytes.
    ///
    /// The highest, not the last, so that it does not matter where the pieces were cut: the last number may be the
    /// first digit of one to come.
    fn highest_new(&self, seen: usize, start_frame: Option<u64>, frame_count: Option<u64>) -> Option<f64> {
        if !self.has_candidate() {
            return None;
        }
        let mut highest = None;
        let mut line_start = 0;
        for line in self.buffer.split(['\n', '\r']) {
            for found in self.pattern.captures_iter(line) {
                if line_start + found.get_match().end() > seen {
                    let fraction = self.fraction(&found, start_frame, frame_count);
                    highest = fraction.into_iter().chain(highest).reduce(f64::max);
                }
            }
            line_start += line.len() + 1;
        }
        highest
    }

    /// A cheap look that spares most text the regular expression.
    fn has_candidate(&self) -> bool {
        if self.custom { self.buffer.bytes().any(|b| b.is_ascii_digit()) } else { self.buffer.contains("frame=") || self.buffer.contains("Fra:") }
    }

    fn fraction(&self, found: &Captures<'_>, start_frame: Option<u64>, frame_count: Option<u64>) -> Option<f64> {
        let group = |name| found.name(name).map(|group| group.as_str().trim());
        let fraction = if let Some(percent) = group("percent") {
            percent.parse::<f64>().ok().filter(|percent| percent.is_finite())? / 100.0
        } else if let Some(frame) = group("frame") {
            frame.parse::<u64>().ok()? as f64 / frame_count.filter(|count| *count > 0)? as f64
        } else {
            let frame: u64 = group("absolute").filter(|_| !self.custom)?.parse().ok()?;
            let done = match frame.checked_sub(start_frame?) {
                Some(distance) => distance / self.frame_step + 1,
                None => 0,
            };
            done as f64 / frame_count.filter(|count| *count > 0)? as f64
        };
        Some(fraction.clamp(0.0, 1.0))
    }

    fn keep_unfinished_line(&mut self) {
        let mut from = self.buffer.rfind(['\n', '\r']).map_or(0, |end| end + 1);
        from = from.max(self.buffer.len().saturating_sub(CARRY_BYTES));
        while !self.buffer.is_char_boundary(from) {
            from += 1;
        }
        self.buffer.drain(..from);
        // One huge piece should not be paid for in memory for the rest of the attempt.
        self.buffer.shrink_to(4 * CARRY_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn default() -> ProgressReader {
        ProgressReader::new(None).unwrap()
    }

    /// [F122] ffmpeg counts the frames of the chunk from 1.
    #[test]
    fn ffmpeg_is_read() {
        let mut reader = default();
        let line = "frame=   25 fps=0.0 q=28.0 size=       0kB time=00:00:01.00 bitrate=N/A speed=2x    \r";
        assert_eq!(reader.feed("ffmpeg version 6.0\n  Duration: 00:00\n", Some(100), Some(50)), None);
        assert_eq!(reader.feed(line, Some(100), Some(50)), Some(0.5));
        assert_eq!(reader.feed("frame=30\nfps=3\n", Some(100), Some(50)), Some(0.6));
        assert_eq!(reader.feed("frame=   40 fps=1\rframe=   50 fps=1\r", Some(100), Some(50)), Some(1.0));
        assert_eq!(default().feed("keyframe=3\nframe= 3", None, None), None);
    }

    /// [F122] Blender prints the absolute number of the frame.
    #[test]
    fn blender_is_read() {
        let mut reader = default();
        let line = |frame: u64| format!("Fra:{frame} Mem:8.15M (Peak 8.15M) | Time:00:00.17 | Syncing Camera\n");
        assert_eq!(reader.feed(&line(101), Some(101), Some(4)), Some(0.25));
        assert_eq!(reader.feed(&line(103), Some(101), Some(4)), Some(0.75));
        assert_eq!(reader.feed(&line(999), Some(101), Some(4)), Some(1.0));
        assert_eq!(default().feed(&line(5), Some(101), Some(4)), Some(0.0));
        assert_eq!(default().feed(&line(5), None, Some(4)), None);
        assert_eq!(default().with_frame_step(2).feed(&line(152), Some(150), Some(4)), Some(0.5));
        assert_eq!(default().with_frame_step(0).feed(&line(1), Some(1), Some(4)), Some(0.25));
    }

    /// [F122] The user's own pattern, by frame or by percent.
    #[test]
    fn a_custom_pattern_is_read() {
        let mut reader = ProgressReader::new(Some(r"^step (?P<frame>\d+)$")).unwrap();
        assert_eq!(reader.feed("a step 1\nstep 2\nframe=3\n", Some(7), Some(4)), Some(0.5));
        let mut reader = ProgressReader::new(Some(r"(?<percent>-?[\d.einfNa]+)%")).unwrap();
        assert_eq!(reader.feed("10% 20.5%", None, None), Some(0.205));
        assert_eq!(reader.feed("nan% inf% 1.2.3%", None, None), None);
        assert_eq!(reader.feed("1e9%", None, None), Some(1.0));
        assert_eq!(ProgressReader::new(Some("(?<percent>-?\\d+)")).unwrap().feed("-5", None, None), Some(0.0));
        let mut own = ProgressReader::new(Some(r"(?<frame>x)?(?<absolute>\d+)")).unwrap();
        assert_eq!(own.feed("5", Some(1), Some(9)), None);
    }

    #[test]
    fn a_pattern_without_a_number_is_refused() {
        for pattern in ["", r"\d+", r"(?<frames>\d+)", r"(?<absolute>\d+)"] {
            assert!(matches!(ProgressReader::new(Some(pattern)), Err(ProgressPatternError::MissingGroup)));
        }
        assert!(matches!(ProgressReader::new(Some("(")), Err(ProgressPatternError::Syntax(_))));
    }

    /// [F122] It never goes back.
    #[test]
    fn a_fraction_never_falls() {
        let mut reader = default();
        assert_eq!(reader.feed("frame=8\n", None, Some(10)), Some(0.8));
        assert_eq!(reader.feed("frame=2\n", None, Some(10)), Some(0.8));
        assert_eq!(reader.feed("frame=9\n", None, Some(10)), Some(0.9));
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut reader = default();
        assert_eq!(reader.feed("frame= 5", None, Some(100)), Some(0.05));
        assert_eq!(reader.feed(" fps=20", None, Some(100)), None);
        assert_eq!(reader.feed("\nhello\n", None, Some(100)), None);
        assert_eq!(reader.feed("frame= 5", None, Some(100)), Some(0.05));
        assert_eq!(reader.feed("0 fps", None, Some(100)), Some(0.5));
    }

    #[test]
    fn a_number_that_does_not_fit_is_no_progress() {
        let mut reader = default();
        assert_eq!(reader.feed("frame=99999999999999999999999\n", None, Some(10)), None);
        assert_eq!(reader.feed("frame=1\n", None, Some(0)), None);
        assert_eq!(reader.feed(&format!("frame={}\n", u64::MAX), None, Some(1)), Some(1.0));
    }

    #[test]
    fn a_line_without_end_is_kept_in_bounds() {
        let mut reader = default();
        for _ in 0..100 {
            reader.feed(&"é".repeat(5000), None, Some(10));
            assert!(reader.buffer.len() <= CARRY_BYTES);
            assert!(reader.buffer.capacity() <= 4 * CARRY_BYTES);
        }
        assert_eq!(reader.feed(" frame=5", None, Some(10)), Some(0.5));
    }

    proptest! {
        /// [F122] Wherever the pieces are cut, the end is the same and nothing falls on the way.
        #[test]
        fn splitting_changes_nothing_at_the_end(
            lines in prop::collection::vec("(frame= ?[0-9]{1,3}( q=1)?|Fra:[0-9]{1,3} é|[a-zé= ]{0,9})[\r\n]", 1..8),
            piece in 1usize..40,
        ) {
            let (mut whole, mut split) = (default(), default());
            for line in &lines {
                whole.feed(line, Some(10), Some(500));
            }
            let chars: Vec<char> = lines.concat().chars().collect();
            let mut before = 0.0;
            for piece in chars.chunks(piece) {
                let piece: String = piece.iter().collect();
                if let Some(fraction) = split.feed(&piece, Some(10), Some(500)) {
                    prop_assert!((before..=1.0).contains(&fraction));
                    before = fraction;
                }
            }
            prop_assert_eq!(whole.highest, split.highest);
        }

        #[test]
        fn any_text_is_taken(pieces: Vec<String>, start: Option<u64>, count: Option<u64>) {
            let mut reader = ProgressReader::new(Some(r"(?<frame>\d+)|(?<percent>\S+)%")).unwrap();
            for piece in &pieces {
                if let Some(fraction) = reader.feed(piece, start, count) {
                    prop_assert!((0.0..=1.0).contains(&fraction));
                }
            }
        }
    }
}
