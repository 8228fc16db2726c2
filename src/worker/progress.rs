//! How far a task is and how fast it goes, for progress bars, logs and the controller. No I/O.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::watch;

/// The rate is that of the last so many seconds.
const WINDOW: Duration = Duration::from_secs(30);
/// How far apart the points are that a rate is measured between.
const STEP: Duration = Duration::from_secs(1);

/// What a worker is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Stage {
    /// Names and sizes are read.
    #[default]
    Listing,
    /// Small ranges are read and judged.
    Judging,
    /// All bytes are read and hashed.
    Hashing,
    /// Files are copied.
    Copying,
    /// The report is ready.
    Done,
}

/// How far a task is. Counts are zero until they are known.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// What is being done.
    pub stage: Stage,
    /// Files that are complete.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes that are done, including those that an earlier attempt had left complete.
    pub bytes_done: u64,
    /// Bytes in all.
    pub bytes_total: u64,
    /// Of `bytes_done`, those that an earlier attempt had left: no part of a rate.
    pub bytes_kept: u64,
    /// Of `bytes_done`, those that were taken from files that were there: no part of a rate.
    pub bytes_reused: u64,
}

/// How fast a task goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// The rate over the last half minute; none until a second of it was seen.
    pub bytes_per_second: Option<u64>,
    /// The time left at this rate; none when nothing moves.
    pub remaining_seconds: Option<u64>,
}

/// How far a task is, and how fast it goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Measured {
    pub progress: Progress,
    pub pace: Pace,
}

/// Measures the pace of a task. Bytes that turned out wrong and are fetched again count twice: they are work.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// When, and how many bytes were moved until then. The first is as old as the window, or the oldest there is.
    points: VecDeque<(Instant, u64)>,
    seen: Option<Progress>,
    moved: u64,
}

impl Meter {
    /// Takes note of how far the task is at this time, and says how fast it goes. Times must not go back.
    pub fn observe(&mut self, now: Instant, progress: &Progress) -> Pace {
        if progress.bytes_total == 0 {
            return Pace::default();
        }
        match self.seen.replace(*progress) {
            Some(before) if is_same_work(&before, progress) => {
                let fetched = |progress: &Progress| progress.bytes_done.saturating_sub(progress.bytes_reused);
                self.moved += fetched(progress).saturating_sub(fetched(&before));
            }
            // What was done when the work began is no part of its pace.
            _ => self.points.clear(),
        }
        while self.points.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= WINDOW) {
            self.points.pop_front();
        }
        let pace = self.pace(now, progress);
        if self.points.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= STEP) {
            self.points.push_back((now, self.moved));
        }
        pace
    }

    fn pace(&self, now: Instant, progress: &Progress) -> Pace {
        let Some((since, before)) = self.points.front() else { return Pace::default() };
        let elapsed = now.saturating_duration_since(*since);
        if elapsed < STEP {
            return Pace::default();
        }
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let rate = (self.moved - before).saturating_mul(1000) / millis;
        let left = progress.bytes_total.saturating_sub(progress.bytes_done);
        let remaining_seconds = if left == 0 { Some(0) } else { (rate > 0).then(|| left.div_ceil(rate)) };
        Pace { bytes_per_second: Some(rate), remaining_seconds }
    }
}

fn is_same_work(before: &Progress, now: &Progress) -> bool {
    let counts = |progress: &Progress| (progress.stage, progress.bytes_total, progress.bytes_kept);
    counts(before) == counts(now)
}

/// Where a task says how far it is. Clones say it to the same listeners.
#[derive(Clone, Debug)]
pub struct ProgressSink(watch::Sender<Progress>);

impl Default for ProgressSink {
    fn default() -> Self {
        Self(watch::Sender::new(Progress::default()))
    }
}

impl ProgressSink {
    /// Sees the latest state; intermediate ones may be missed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Progress> {
        self.0.subscribe()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Progress)) {
        self.0.send_modify(change);
    }

    pub(super) fn enter(&self, stage: Stage) {
        self.update(|progress| progress.stage = stage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn copying(done: u64) -> Progress {
        Progress {
            stage: Stage::Copying,
            bytes_done: done * MIB,
            bytes_total: 1000 * MIB,
            bytes_kept: 100 * MIB,
            ..Progress::default()
        }
    }

    /// What the meter says after the last of these observations: seconds and progress.
    fn last(observations: impl IntoIterator<Item = (f64, Progress)>) -> (Option<u64>, Option<u64>) {
        let (mut meter, begun) = (Meter::default(), Instant::now());
        let mut pace = Pace::default();
        for (seconds, progress) in observations {
            pace = meter.observe(begun + Duration::from_secs_f64(seconds), &progress);
        }
        (pace.bytes_per_second.map(|rate| rate / MIB), pace.remaining_seconds)
    }

    fn steady(seconds: u64, from: u64, rate: u64) -> impl Iterator<Item = (f64, Progress)> {
        (0..=seconds).map(move |second| (second as f64, copying(from + second * rate)))
    }

    #[test]
    fn the_pace_is_that_of_the_last_half_minute() {
        let none = (None, None);
        let listing = Progress { stage: Stage::Listing, ..Progress::default() };
        let again = |progress: Progress| Progress { bytes_total: 2000 * MIB, ..progress };
        for (what, observations, expected) in [
            ("nothing is known", vec![(0.0, listing), (60.0, listing)], none),
            ("one look is no rate", vec![(0.0, copying(100))], none),
            ("too short a time", vec![(0.0, copying(100)), (0.9, copying(120))], none),
            ("what was kept does not count", vec![(0.0, copying(100)), (2.0, copying(120))], (Some(10), Some(88))),
            (
                "listing is no time of copying",
                vec![(0.0, listing), (50.0, copying(100)), (51.0, copying(110))],
                (Some(10), Some(89)),
            ),
            ("the rest of a second counts", vec![(0.0, copying(100)), (2.5, copying(125))], (Some(10), Some(88))),
            ("a steady rate", steady(20, 100, 5).collect(), (Some(5), Some(160))),
            (
                "fast, then slow",
                steady(40, 100, 10)
                    .chain((1..=30u32).map(|second| (40.0 + f64::from(second), copying(500 + u64::from(second)))))
                    .collect(),
                (Some(1), Some(470)),
            ),
            (
                "it hangs",
                steady(40, 100, 10).chain((1..=31u32).map(|second| (40.0 + f64::from(second), copying(500)))).collect(),
                (Some(0), None),
            ),
            (
                "it hung before",
                vec![(0.0, copying(100)), (10.0, copying(100)), (20.0, copying(300))],
                (Some(10), Some(70)),
            ),
            ("the observer slept", vec![(0.0, copying(100)), (100.0, copying(300))], (Some(2), Some(350))),
            ("all is there", steady(90, 100, 10).collect(), (Some(10), Some(0))),
            (
                "a wrong file is fetched again",
                vec![(0.0, copying(100)), (10.0, copying(300)), (11.0, copying(200)), (20.0, copying(300))],
                (Some(15), Some(47)),
            ),
            ("other work", vec![(0.0, copying(100)), (10.0, copying(900)), (11.0, again(copying(900)))], none),
        ] {
            assert_eq!(last(observations), expected, "{what}");
        }
    }

    #[test]
    fn a_long_task_takes_no_more_memory() {
        let (mut meter, begun) = (Meter::default(), Instant::now());
        for tick in 0..100_000 {
            meter.observe(begun + Duration::from_millis(tick * 200), &copying(100 + tick / 1000));
        }
        assert!(meter.points.len() <= 32, "{}", meter.points.len());
    }
}
