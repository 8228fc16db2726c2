//! When to try again: exponential backoff with full jitter. No I/O, but draws random numbers.

use std::time::Duration;

/// How patient a backend is with passing errors. What counts are failures without a byte of progress between them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// How often a request is made in all.
    pub attempts: u32,
    /// Longest wait before the second attempt.
    pub base: Duration,
    /// Longest wait before any attempt.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 6, base: Duration::from_millis(200), cap: Duration::from_secs(10) }
    }
}

impl Retry {
    /// How long to wait after this many failures: anything between nothing and a bound that doubles, and not less than the
    /// server asked for.
    #[must_use]
    pub fn delay(&self, failures: u32, asked: Option<Duration>) -> Duration {
        self.bound(failures).mul_f64(rand::random::<f64>()) + asked.unwrap_or_default()
    }

    fn bound(&self, failures: u32) -> Duration {
        let factor = 2u32.saturating_pow(failures.saturating_sub(1));
        self.base.saturating_mul(factor).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_its_cap() {
        let retry = Retry { attempts: 9, base: Duration::from_millis(100), cap: Duration::from_secs(1) };
        let bounds: Vec<_> = [1, 2, 3, 4, 5, 40].map(|failures| retry.bound(failures).as_millis()).into();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        assert!(retry.delay(1, Some(Duration::from_secs(7))) >= Duration::from_secs(7));
        assert!((0..100).all(|_| retry.delay(2, None) <= Duration::from_millis(200)));
    }
}
