//! How long to leave a failing object alone: doubling, jittered, per object. In memory, no I/O.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use crate::runtime::lock;

/// Attempts in a row by UID.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    attempts: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Waits from `first`, doubling up to `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, attempts: Mutex::default() }
    }

    /// The object failed once more: how long to wait.
    pub fn next(&self, uid: &str) -> Duration {
        let mut attempts = lock(&self.attempts);
        let attempt = attempts.entry(uid.to_owned()).or_default();
        let wait = delay(self.first, self.longest, *attempt, rand::random());
        *attempt = attempt.saturating_add(1);
        wait
    }

    /// The object is well, or gone.
    pub fn clear(&self, uid: &str) {
        lock(&self.attempts).remove(uid);
    }
}

/// The wait after `attempt` earlier ones, between half and all of the doubled time as `jitter` goes from 0 to 1.
fn delay(first: Duration, longest: Duration, attempt: u32, jitter: f64) -> Duration {
    let doubled = first.saturating_mul(2u32.saturating_pow(attempt)).min(longest);
    doubled.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_spread() {
        let (first, longest) = (Duration::from_secs(1), Duration::from_mins(5));
        assert_eq!(delay(first, longest, 0, 1.0), Duration::from_secs(1));
        assert_eq!(delay(first, longest, 3, 1.0), Duration::from_secs(8));
        assert_eq!(delay(first, longest, 3, 0.0), Duration::from_secs(4));
        assert_eq!(delay(first, longest, 200, 1.0), longest);
    }

    #[test]
    fn success_and_deletion_start_over() {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(5));
        for _ in 0..6 {
            backoff.next("a");
        }
        assert!(backoff.next("a") >= Duration::from_secs(32));
        assert!(backoff.next("b") <= Duration::from_secs(1));
        backoff.clear("a");
        assert!(backoff.next("a") <= Duration::from_secs(1));
    }
}
