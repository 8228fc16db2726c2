//! When to try again: intervals that grow with the failures in a row. Pure, no I/O.

use jiff::{SignedDuration, Timestamp};

const SECONDS: [i64; 8] = [10, 30, 60, 120, 300, 600, 1800, 3600];

/// When the next attempt is due after this many failures in a row, counted from when the latest ended. A share of up to a
/// tenth that depends on the seed keeps many Checkpoints from trying in step.
#[must_use]
pub fn next(ended: Timestamp, failures: i64, seed: &str) -> Timestamp {
    let index = usize::try_from(failures.max(1) - 1).unwrap_or(usize::MAX).min(SECONDS.len() - 1);
    let base = SECONDS[index];
    let share = i64::from(blake3::hash(format!("{seed}/{failures}").as_bytes()).as_bytes()[0]);
    ended.checked_add(SignedDuration::from_secs(base + base * share / 2560)).unwrap_or(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_up_to_a_bound() {
        let start = Timestamp::UNIX_EPOCH;
        let waits: Vec<_> = (1..12).map(|failures| next(start, failures, "uid").as_second()).collect();
        assert!(waits[..8].windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
        assert!(waits.iter().all(|wait| (10..=3960).contains(wait)), "{waits:?}");
        assert_eq!(next(start, i64::MAX, "uid").as_second() / 3600, 1);
        assert_eq!(next(start, -5, "uid"), next(start, 1, "uid").min(next(start, -5, "uid")));
    }
}
