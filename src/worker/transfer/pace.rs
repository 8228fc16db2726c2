//! How many reads are under way at once: more while that brings more, fewer when the server or the network suffers. Pure, no I/O.
//!
//! A hill climb on the throughput of windows of at least [`WINDOW`]: a step up is kept when it gained [`GAIN`], else it is
//! taken back and not tried again for a while. Answers that ask for patience halve the number at once.

use std::time::Duration;

/// Reads at the beginning.
const FIRST: usize = 4;
/// Fewest reads.
const LEAST: usize = 1;
/// The shortest time over which throughput is compared.
pub(super) const WINDOW: Duration = Duration::from_millis(500);
/// What a step up must gain to be kept.
const GAIN: f64 = 1.05;
/// Windows until a step that brought nothing is tried again; doubled each time up to [`LONGEST_REST`].
const REST: u32 = 8;
const LONGEST_REST: u32 = 64;

/// The number of reads and how it came about.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    limit: usize,
    most: usize,
    /// Bytes per second before the step that is being tried.
    before: Option<f64>,
    rest: u32,
    next_rest: u32,
}

impl Pace {
    /// For at most so many reads.
    pub(super) fn new(most: usize) -> Self {
        let most = most.max(LEAST);
        Self { limit: FIRST.min(most), most, before: None, rest: 0, next_rest: REST }
    }

    /// Reads at once.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A window has passed: so much was read in it, and `busy` says whether all allowed reads were under way.
    pub(super) fn window(&mut self, bytes: u64, elapsed: Duration, busy: bool) {
        let rate = bytes as f64 / elapsed.as_secs_f64().max(1e-3);
        if let Some(before) = self.before.take() {
            if rate < before * GAIN {
                self.limit = smaller(self.limit);
                self.rest = self.next_rest;
                self.next_rest = (self.next_rest * 2).min(LONGEST_REST);
                return;
            }
            self.next_rest = REST;
        }
        self.rest = self.rest.saturating_sub(1);
        if busy && self.rest == 0 && self.limit < self.most {
            self.before = Some(rate);
            self.limit = larger(self.limit).min(self.most);
        }
    }

    /// The server asked for patience, or was silent for too long.
    pub(super) fn setback(&mut self) {
        self.limit = (self.limit / 2).max(LEAST);
        self.before = None;
        self.rest = self.next_rest;
    }
}

fn larger(limit: usize) -> usize {
    limit + (limit / 2).max(1)
}

/// What [`larger`] made the limit from, or a little less.
fn smaller(limit: usize) -> usize {
    (limit - limit / 3).min(limit.saturating_sub(1)).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The limit after so many windows on a network that gives `each` bytes per second to a read and `all` to all of them.
    fn settled(each: u64, all: u64, most: usize, windows: u32) -> Pace {
        let mut pace = Pace::new(most);
        for _ in 0..windows {
            let rate = (each * pace.limit() as u64).min(all);
            pace.window(rate / 2, WINDOW, true);
        }
        pace
    }

    #[test]
    fn a_cap_on_each_connection_is_met_with_more_of_them() {
        let pace = settled(64 << 20, 2 << 30, 32, 40);
        assert!((28..=32).contains(&pace.limit()), "{pace:?}");
    }

    #[test]
    fn what_brings_nothing_is_taken_back() {
        let pace = settled(2 << 30, 2 << 30, 32, 41);
        assert!(pace.limit() <= 6, "{pace:?}");
    }

    #[test]
    fn setbacks_halve_and_it_recovers() {
        let mut pace = settled(64 << 20, 64 << 30, 32, 20);
        let before = pace.limit();
        pace.setback();
        assert_eq!(pace.limit(), before / 2);
        for _ in 0..10 {
            pace.setback();
        }
        assert_eq!(pace.limit(), 1);
        for _ in 0..60 {
            pace.window((pace.limit() as u64) << 20, WINDOW, true);
        }
        assert!(pace.limit() > 4, "{pace:?}");
    }

    #[test]
    fn idle_windows_change_nothing() {
        let mut pace = Pace::new(32);
        (0..50).for_each(|_| pace.window(1, WINDOW, false));
        assert_eq!(pace.limit(), 4);
        assert_eq!(Pace::new(2).limit(), 2);
        assert_eq!(Pace::new(0).limit(), 1);
    }

    #[test]
    fn a_step_can_be_taken_back() {
        for limit in 1..200 {
            assert!(smaller(larger(limit)) <= limit.max(1) + limit / 8 && smaller(limit) >= 1, "{limit}");
        }
    }
}
