//! Progress on standard error: a bar with rate and time left on a terminal, plain lines otherwise. Does I/O.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    contract::{Outcome, Report, Transfer},
    local::Display,
    plan::quantity::human,
    worker::{Meter, Pace, Progress as Amounts},
};

use super::table::{count, duration};

/// How often plain lines say how far a task is.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
const BYTES: &str = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {prefix}";
const COUNTS: &str = "{msg} [{bar:30}] {pos}/{len} files";
const SPINNER: &str = "{spinner} {msg}";

/// Shows how far tasks are.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    results: bool,
    task: Mutex<Task>,
}

#[derive(Debug)]
struct Task {
    bar: ProgressBar,
    template: &'static str,
    what: String,
    meter: Meter,
    begun: Instant,
    said: Instant,
}

impl Progress {
    /// On a terminal, bars; else lines. With `results`, a line also says how each task ended.
    #[must_use]
    pub fn new(terminal: bool, results: bool) -> Self {
        let task = Task {
            bar: ProgressBar::hidden(),
            template: "",
            what: String::new(),
            meter: Meter::default(),
            begun: Instant::now(),
            said: Instant::now(),
        };
        Self { terminal, results, task: Mutex::new(task) }
    }

    fn task(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    fn draw(&mut self, template: &'static str) {
        if self.template != template {
            self.template = template;
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
        }
    }
}

impl Display for Progress {
    fn begin(&self, what: &str) {
        let mut task = self.task();
        what.clone_into(&mut task.what);
        task.meter = Meter::default();
        task.begun = Instant::now();
        task.said = task.begun;
        if self.terminal {
            task.bar = ProgressBar::new(0).with_message(what.to_owned());
            task.template = "";
            task.draw(SPINNER);
        } else if self.results {
            eprintln!("{what}");
        }
    }

    fn progress(&self, amounts: Amounts) {
        let mut task = self.task();
        let pace = task.meter.observe(Instant::now(), &amounts);
        if self.terminal {
            if amounts.bytes_total > 0 {
                task.draw(BYTES);
                task.bar.set_length(amounts.bytes_total);
                task.bar.set_position(amounts.bytes_done);
                task.bar.set_prefix(speed(pace));
            } else if amounts.files_total > 0 {
                task.draw(COUNTS);
                task.bar.set_length(amounts.files_total);
                task.bar.set_position(amounts.files_done);
            } else {
                task.bar.tick();
            }
        } else if task.said.elapsed() >= LINE_INTERVAL {
            task.said = Instant::now();
            if let Some(line) = line(amounts, pace) {
                eprintln!("{}: {line}", task.what);
            }
        }
    }

    fn end(&self, report: &Report) {
        let task = self.task();
        task.bar.finish_and_clear();
        if !self.results {
            return;
        }
        let took = duration(task.begun.elapsed());
        let result = match (report.outcome, report.reason) {
            (Outcome::Good, _) => "done".to_owned(),
            (_, Some(reason)) => format!("{reason}: {}", report.message),
            (_, None) => report.message.clone(),
        };
        let moved = report.transfer.as_ref().map(moved).unwrap_or_default();
        eprintln!("{}: {result} ({took}{moved})", task.what);
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}

/// What a task moved, to be added to the time it took.
fn moved(transfer: &Transfer) -> String {
    let mut out = String::new();
    if transfer.bytes_fetched > 0 {
        let seconds = Duration::from_millis(transfer.milliseconds.max(1)).as_secs_f64();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
        let rate = (transfer.bytes_fetched as f64 / seconds) as u64;
        out.extend([", ", &human(transfer.bytes_fetched), " fetched at ", &human(rate), "/s"]);
        out += match transfer.bytes_verified {
            0 => ", the source has no checksums to compare".to_owned(),
            all if all >= transfer.bytes => ", the source's checksums hold".to_owned(),
            some => format!(", the source has checksums of {}, which hold", human(some)),
        }
        .as_str();
    }
    if transfer.bytes_reused > 0 {
        out.extend([", ", &human(transfer.bytes_reused), " taken from an earlier checkpoint"]);
    }
    if transfer.bytes_kept > 0 {
        out.extend([", ", &human(transfer.bytes_kept), " were there already"]);
    }
    out
}

/// How far a task is, and how long it will take at its pace.
fn line(amounts: Amounts, pace: Pace) -> Option<String> {
    if amounts.bytes_total == 0 {
        return (amounts.files_total > 0)
            .then(|| format!("{} of {} files", count(amounts.files_done), count(amounts.files_total)));
    }
    let (done, total) = (human(amounts.bytes_done), human(amounts.bytes_total));
    let percent = u128::from(amounts.bytes_done) * 100 / u128::from(amounts.bytes_total);
    Some(format!("{done} of {total} ({percent}%), {}", speed(pace)))
}

/// Rate and time left.
fn speed(pace: Pace) -> String {
    let rate = pace.bytes_per_second.map_or_else(|| "?".to_owned(), human);
    let left = pace.remaining_seconds.map_or_else(|| "?".to_owned(), |left| duration(Duration::from_secs(left)));
    format!("{rate}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_tell_rate_and_time_left() {
        let amounts = Amounts { bytes_done: 3 << 20, bytes_total: 13 << 20, bytes_kept: 1 << 20, ..Amounts::default() };
        let pace = Pace { bytes_per_second: Some(1 << 20), remaining_seconds: Some(10) };
        assert_eq!(line(amounts, pace).unwrap(), "3.0 MiB of 13.0 MiB (23%), 1.0 MiB/s, 10s left");
        let beginning = line(Amounts { bytes_total: 5, ..Amounts::default() }, Pace::default()).unwrap();
        assert_eq!(beginning, "0 B of 5 B (0%), ?/s, ? left");
        let hangs = Pace { bytes_per_second: Some(0), remaining_seconds: None };
        assert_eq!(line(amounts, hangs).unwrap(), "3.0 MiB of 13.0 MiB (23%), 0 B/s, ? left");
        let files = Amounts { files_total: 2, ..Amounts::default() };
        assert_eq!(line(files, Pace::default()).unwrap(), "0 of 2 files");
        assert_eq!(line(Amounts::default(), Pace::default()), None);
    }

    #[test]
    fn what_was_moved_is_said() {
        let mut transfer = Transfer {
            bytes: (2 << 20) + 1024,
            bytes_fetched: 2 << 20,
            bytes_kept: 1024,
            milliseconds: 2000,
            ..Transfer::default()
        };
        for (verified, said) in [
            (0, "the source has no checksums to compare"),
            (1024, "the source has checksums of 1.0 KiB, which hold"),
            ((2 << 20) + 1024, "the source's checksums hold"),
        ] {
            transfer.bytes_verified = verified;
            let expected = format!(", 2.0 MiB fetched at 1.0 MiB/s, {said}, 1.0 KiB were there already");
            assert_eq!(moved(&transfer), expected);
        }
        let reused = Transfer { bytes_reused: 3 << 20, ..Transfer::default() };
        assert_eq!(moved(&reused), ", 3.0 MiB taken from an earlier checkpoint");
        assert_eq!(moved(&Transfer::default()), "");
    }

    #[test]
    fn templates_are_valid() {
        for template in [BYTES, COUNTS, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
