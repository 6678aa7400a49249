//! When the next attempt begins.

use serde_json::Value;

use super::error::Issue;

/// The delay between attempts.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryPolicy {
    /// Always the same.
    Fixed {
        /// Milliseconds.
        delay_ms: f64,
        /// Fraction of the delay, 0..=1, by which it varies to both sides.
        jitter: f64,
    },
    /// `min(initial * multiplier^(failures - 1), max)`.
    Exponential {
        /// The first delay in milliseconds.
        initial_ms: f64,
        /// The longest delay in milliseconds; jitter stays below it too.
        max_ms: f64,
        /// Default 2.
        multiplier: f64,
        /// Fraction of the delay, 0..=1, by which it varies to both sides.
        jitter: f64,
    },
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy::Fixed { delay_ms: 1000.0, jitter: 0.0 }
    }
}

impl RetryPolicy {
    /// The delay after the `failures`th failure (from 1) in milliseconds. `random` is a number in 0..1.
    pub fn delay_ms(&self, failures: u32, random: f64) -> f64 {
        let (delay, max, jitter) = match *self {
            RetryPolicy::Fixed { delay_ms, jitter } => (delay_ms, f64::MAX, jitter),
            RetryPolicy::Exponential { initial_ms, max_ms, multiplier, jitter } => {
                let power = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
                ((initial_ms * multiplier.powi(power)).min(max_ms), max_ms, jitter)
            }
        };
        (delay * (1.0 + jitter * (2.0 * random - 1.0))).clamp(0.0, max)
    }

    /// Reads `{ type: 'fixed_delay' | 'exponential_backoff', ... }`.
    pub fn from_value(value: &Value) -> Result<Self, Vec<Issue>> {
        let mut issues = Vec::new();
        let mut number = |name: &str, default: Option<f64>, most: f64| {
            let found = value.get(name);
            match (found.and_then(Value::as_f64), found, default) {
                (Some(n), _, _) if n >= 0.0 && n <= most => n,
                (_, None, Some(default)) => default,
                _ => {
                    issues.push(Issue::new(format!("retryPolicy.{name}"), "must be a number of 0 or more"));
                    0.0
                }
            }
        };
        let policy = match value.get("type").and_then(Value::as_str) {
            Some("fixed_delay") => RetryPolicy::Fixed { delay_ms: number("delayMs", None, f64::MAX), jitter: number("jitter", Some(0.0), 1.0) },
            Some("exponential_backoff") => RetryPolicy::Exponential {
                initial_ms: number("initialMs", None, f64::MAX),
                max_ms: number("maxMs", None, f64::MAX),
                multiplier: number("multiplier", Some(2.0), f64::MAX),
                jitter: number("jitter", Some(0.0), 1.0),
            },
            _ => return Err(vec![Issue::new("retryPolicy.type", "must be \"fixed_delay\" or \"exponential_backoff\"")]),
        };
        if issues.is_empty() { Ok(policy) } else { Err(issues) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn backoff_doubles_up_to_its_cap() {
        let policy = RetryPolicy::Exponential { initial_ms: 10.0, max_ms: 50.0, multiplier: 2.0, jitter: 0.0 };
        let delays: Vec<_> = (1..=5).map(|n| policy.delay_ms(n, 0.3)).collect();
        assert_eq!(delays, [10.0, 20.0, 40.0, 50.0, 50.0]);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_negative_and_never_above_the_cap(failures in 1u32.., random in 0.0..1.0f64, jitter in 0.0..=1.0f64, max in 0.0..1e9f64) {
            let delay = RetryPolicy::Exponential { initial_ms: 5.0, max_ms: max, multiplier: 3.0, jitter }.delay_ms(failures, random);
            prop_assert!((0.0..=max).contains(&delay));
        }
    }
}
