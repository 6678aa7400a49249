//! Frame ranges as users write them: `1-100,150-200x2`.

use std::fmt;

use super::plan::{MAX_CHUNKS, MAX_FRAME};

/// How many problems are listed for one field; the rest is counted.
pub const MAX_LISTED: usize = 20;

/// How many pairs of interleaved ranges are compared before a plan is refused as too tangled.
const MAX_COMPARISONS: usize = 2_000_000;

/// Frames from `start` on, every `step`th of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first one.
    pub start: u64,
    /// Rendered frames, at least 1.
    pub count: u64,
    /// From one to the next, at least 1.
    pub step: u64,
}

impl Range {
    /// The last one.
    pub fn last(&self) -> u64 {
        self.start + (self.count - 1) * self.step
    }
}

/// Reads `1-100,150-200x2`. Every problem names its part; what is left is not to be used then.
pub fn parse_frames(frames: &str) -> (Vec<Range>, Vec<String>) {
    if frames.trim().is_empty() {
        return (Vec::new(), vec!["must not be empty".into()]);
    }
    let mut ranges = Vec::new();
    let mut problems = Vec::new();
    let mut unlisted = 0usize;
    for (index, part) in frames.split(',').enumerate() {
        match parse_range(part.trim()) {
            Ok(range) => ranges.push(range),
            Err(reason) if problems.len() < MAX_LISTED => {
                problems.push(format!("part {} ({}) {reason}", index + 1, shown(part)));
            }
            Err(_) => unlisted += 1,
        }
    }
    if ranges.len() as u64 > MAX_CHUNKS {
        problems.push(format!("has {} ranges, more than {MAX_CHUNKS}", ranges.len()));
    } else {
        overlaps(&ranges, &mut problems);
    }
    if unlisted > 0 {
        problems.push(format!("has {unlisted} more bad parts"));
    }
    (ranges, problems)
}

fn parse_range(part: &str) -> Result<Range, String> {
    if part.is_empty() {
        return Err("is empty".into());
    }
    let number = |text: &str, what: &str| {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err("is not a frame, a range a-b or a stepped range a-bxN".to_owned());
        }
        let number = text.parse().ok().filter(|number| *number <= MAX_FRAME);
        number.ok_or_else(|| format!("has a {what} higher than {MAX_FRAME}"))
    };
    let Some((start, rest)) = part.split_once('-') else {
        return Ok(Range { start: number(part, "frame")?, count: 1, step: 1 });
    };
    let (end, step) = rest.split_once('x').unwrap_or((rest, "1"));
    let (start, end, step) = (number(start, "frame")?, number(end, "frame")?, number(step, "step")?);
    if start > end {
        return Err(format!("is reversed: {start} comes after {end}"));
    }
    if step == 0 {
        return Err("has a step of 0".into());
    }
    Ok(Range { start, count: (end - start) / step + 1, step })
}

/// A part of the user's text, cut to a length that fits into a message.
fn shown(part: &str) -> String {
    let part = part.trim();
    match part.char_indices().nth(40) {
        Some((end, _)) => format!("{:?}...", &part[..end]),
        None => format!("{part:?}"),
    }
}

/// Adds a problem for ranges that have a frame in common with an earlier one.
fn overlaps(ranges: &[Range], problems: &mut Vec<String>) {
    let mut sorted: Vec<Range> = ranges.to_vec();
    sorted.sort_by_key(|range| range.start);
    // Ranges that have begun and not ended where the sweep is; more than one only where steps interleave.
    let mut open: Vec<Range> = Vec::new();
    let mut comparisons = 0;
    for range in sorted {
        open.retain(|earlier| earlier.last() >= range.start);
        for earlier in &open {
            comparisons += 1;
            if problems.len() >= MAX_LISTED {
                return;
            }
            if let Some(frame) = common_frame(earlier, &range) {
                problems.push(format!("has overlapping ranges: {} and {} both have frame {frame}", Shown(earlier), Shown(&range)));
                break;
            }
        }
        if comparisons > MAX_COMPARISONS {
            problems.push("has too many ranges that interleave".into());
            return;
        }
        open.push(range);
    }
}

/// The lowest frame that is in both; `earlier` must not start after `later`.
fn common_frame(earlier: &Range, later: &Range) -> Option<u64> {
    let (a, b) = (i128::from(earlier.step), i128::from(later.step));
    let distance = i128::from(later.start) - i128::from(earlier.start);
    // earlier.start + a * x = later.start (mod b), by the extended algorithm of Euclid; below 2^53, so nothing overflows.
    let (divisor, inverse) = euclid(a, b);
    if distance % divisor != 0 {
        return None;
    }
    let modulus = b / divisor;
    let x = (distance / divisor).rem_euclid(modulus) * inverse.rem_euclid(modulus) % modulus;
    let period = a * modulus;
    let mut frame = i128::from(earlier.start) + a * x;
    let from = i128::from(later.start);
    if frame < from {
        frame += (from - frame + period - 1) / period * period;
    }
    let to = earlier.last().min(later.last());
    u64::try_from(frame).ok().filter(|frame| *frame <= to)
}

/// The greatest common divisor of `a` and `b`, and an `x` with `a * x = divisor (mod b)`.
fn euclid(a: i128, b: i128) -> (i128, i128) {
    let (mut rest, mut next_rest) = (a, b);
    let (mut x, mut next_x) = (1, 0);
    while next_rest != 0 {
        let quotient = rest / next_rest;
        (rest, next_rest) = (next_rest, rest - quotient * next_rest);
        (x, next_x) = (next_x, x - quotient * next_x);
    }
    (rest, x)
}

/// A range as users write it.
struct Shown<'a>(&'a Range);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, count, step } = *self.0;
        match (count, step) {
            (1, _) => write!(f, "{start}"),
            (_, 1) => write!(f, "{start}-{}", self.0.last()),
            _ => write!(f, "{start}-{}x{step}", self.0.last()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two ranges overlap exactly when they have a frame in common, and the lowest one is named.
        #[test]
        fn an_overlap_is_a_frame_in_two_ranges(
            a in (0u64..40, 1u64..12, 1u64..12), b in (0u64..40, 1u64..12, 1u64..12),
        ) {
            let [mut a, mut b] = [a, b].map(|(start, count, step)| Range { start, count, step });
            if b.start < a.start {
                std::mem::swap(&mut a, &mut b);
            }
            let has = |range: &Range, frame: u64| (0..range.count).any(|n| range.start + n * range.step == frame);
            prop_assert_eq!(common_frame(&a, &b), (0..400).find(|frame| has(&a, *frame) && has(&b, *frame)));
        }
    }
}
