//! Which chunk is next: in order, never more at once than allowed, retries when they are due. Pure: knows nothing of
//! time but the numbers it is given (milliseconds of one clock).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What a free slot does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// Run the chunk at this position.
    Run(u32),
    /// Nothing before this time; a retry is due then.
    Wait(f64),
    /// As many run as may.
    Busy,
    /// Nothing is left that this slot could do.
    Leave,
}

/// The order of work of one run.
#[derive(Debug, Clone)]
pub struct Schedule {
    total: u32,
    cursor: u32,
    slots: u32,
    in_flight: u32,
    /// Due time in microseconds (an integer, so that it has an order; rounded down, so that no delay is none) and position.
    retries: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Schedule {
    /// `total` chunks, `slots` at once.
    pub fn new(total: u32, slots: u32) -> Self {
        Self { total, cursor: 0, slots: slots.max(1), in_flight: 0, retries: BinaryHeap::new() }
    }

    /// How many may run at once.
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// How many run.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Takes the next chunk for a free slot. `is_pending` tells whether a chunk is still to be done at all.
    pub fn next(&mut self, now_ms: f64, is_pending: impl Fn(u32) -> bool) -> Next {
        if self.in_flight >= self.slots {
            return Next::Busy;
        }
        // A retry that is due goes before new work, or a long job would put it off to its end.
        if let Some(Reverse((due, index))) = self.retries.peek().copied()
            && due as f64 / 1000.0 <= now_ms
        {
            self.retries.pop();
            self.in_flight += 1;
            return Next::Run(index);
        }
        while self.cursor < self.total {
            let index = self.cursor;
            self.cursor += 1;
            if is_pending(index) {
                self.in_flight += 1;
                return Next::Run(index);
            }
        }
        match self.retries.peek() {
            Some(Reverse((due, _))) => Next::Wait(*due as f64 / 1000.0),
            None => Next::Leave,
        }
    }

    /// A chunk that was handed out has ended, whichever way.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A chunk that was done is to be done again.
    pub fn again(&mut self, index: u32) {
        // One that was not passed yet is found by its state.
        if index < self.cursor {
            self.retry(index, 0.0);
        }
    }

    /// The chunk is to be handed out again at that time.
    pub fn retry(&mut self, index: u32, due_ms: f64) {
        self.retries.push(Reverse(((due_ms.max(0.0) * 1000.0) as u64, index)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // [F35] never above the concurrency, nothing starves: every chunk is handed out 1 + its failures times
        #[test]
        fn keeps_its_concurrency_and_starves_nothing(
            total in 0u32..40, slots in 1u32..8, failures in prop::collection::vec(0u32..3, 40), skipped in prop::collection::vec(any::<bool>(), 40), picks in prop::collection::vec(any::<u32>(), 400)
        ) {
            let mut schedule = Schedule::new(total, slots);
            let mut left: Vec<u32> = failures.clone();
            let mut handed = [0u32; 40];
            let mut running: Vec<u32> = Vec::new();
            let mut done = [false; 40];
            let mut now = 0.0;
            let mut picks = picks.into_iter().cycle();
            for _ in 0..2000 {
                match schedule.next(now, |index| !skipped[index as usize] && !done[index as usize]) {
                    Next::Run(index) => { handed[index as usize] += 1; running.push(index); prop_assert!(running.len() as u32 <= slots); }
                    Next::Wait(due) => { prop_assert!(due >= now); if running.is_empty() { now = due; } }
                    Next::Busy => prop_assert_eq!(running.len() as u32, slots),
                    Next::Leave if running.is_empty() => break,
                    Next::Leave => {}
                }
                if !running.is_empty() && picks.next().unwrap() % 2 == 0 {
                    let index = running.swap_remove(picks.next().unwrap() as usize % running.len());
                    schedule.ended();
                    now += 1.0;
                    if left[index as usize] > 0 {
                        left[index as usize] -= 1;
                        schedule.retry(index, now + f64::from(picks.next().unwrap() % 50));
                    } else {
                        done[index as usize] = true;
                    }
                }
            }
            for index in 0..total as usize {
                prop_assert_eq!(handed[index], if skipped[index] { 0 } else { failures[index] + 1 });
            }
        }
    }
}
