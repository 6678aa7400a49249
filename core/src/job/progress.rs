//! How fast a run goes and how long it will still take: from the durations of its latest chunks.

/// How many chunk durations are looked at.
const WINDOW: usize = 64;
/// Seconds over which frames are counted.
const SECONDS: usize = 60;

/// The pace of a run. Fed with finished chunks; times are milliseconds of one clock.
#[derive(Debug, Clone)]
pub struct Pace {
    began: f64,
    durations: Vec<f32>,
    next: usize,
    buckets: Option<Box<[(u32, u64); SECONDS]>>,
}

impl Pace {
    /// A run that begins now.
    pub fn new(now: f64) -> Self {
        Self { began: now, durations: Vec::new(), next: 0, buckets: None }
    }

    /// A chunk of so many frames was finished after so many milliseconds.
    pub fn finished(&mut self, now: f64, frames: u64, duration_ms: f64) {
        if self.durations.len() < WINDOW {
            self.durations.push(duration_ms as f32);
        } else {
            self.durations[self.next % WINDOW] = duration_ms as f32;
        }
        self.next = self.next.wrapping_add(1);
        let second = self.second(now);
        let bucket = &mut self.buckets.get_or_insert_with(|| Box::new([(u32::MAX, 0); SECONDS]))[second as usize % SECONDS];
        if bucket.0 != second {
            *bucket = (second, 0);
        }
        bucket.1 += frames;
    }

    fn second(&self, now: f64) -> u32 {
        ((now - self.began).max(0.0) / 1000.0) as u32
    }

    /// Frames per second over the last minute, or since the run began; `None` before the first chunk is done.
    pub fn fps(&self, now: f64) -> Option<f64> {
        let now_second = self.second(now);
        let oldest = now_second.saturating_sub(SECONDS as u32 - 1);
        let frames: u64 = self.buckets.as_ref()?.iter().filter(|(second, _)| (oldest..=now_second).contains(second)).map(|(_, frames)| frames).sum();
        let since = self.began.max(now - SECONDS as f64 * 1000.0);
        let elapsed = (now - since).max(1.0) / 1000.0;
        Some(frames as f64 / elapsed)
    }

    /// The time left in milliseconds, low and high, for `remaining` chunks on `slots` of them at once: the mean of the
    /// latest durations, one standard deviation to both sides. `None` before the first chunk is done.
    pub fn eta(&self, remaining: u32, slots: u32) -> Option<(f64, f64)> {
        let count = self.durations.len() as f64;
        if count == 0.0 {
            return None;
        }
        let mean = self.durations.iter().map(|d| f64::from(*d)).sum::<f64>() / count;
        let spread = (self.durations.iter().map(|d| (f64::from(*d) - mean).powi(2)).sum::<f64>() / count).sqrt();
        let rounds = f64::from(remaining) / f64::from(slots.max(1));
        Some(((mean - spread).max(0.0) * rounds, (mean + spread) * rounds.ceil()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eta_shrinks_with_what_remains_and_with_slots() {
        let mut pace = Pace::new(0.0);
        for n in 1..=10 {
            pace.finished(f64::from(n) * 100.0, 5, 100.0);
        }
        assert_eq!(pace.eta(10, 1), Some((1000.0, 1000.0)));
        assert_eq!(pace.eta(10, 2), Some((500.0, 500.0)));
        assert_eq!(pace.eta(0, 2), Some((0.0, 0.0)));
    }

    // [F123] frames per second are those of the last minute
    #[test]
    fn frames_older_than_a_minute_do_not_count() {
        let mut pace = Pace::new(0.0);
        pace.finished(500.0, 600, 500.0);
        assert_eq!(pace.fps(1000.0), Some(600.0));
        assert_eq!(pace.fps(200_000.0), Some(0.0));
    }
}
