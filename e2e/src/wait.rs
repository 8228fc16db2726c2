//! Waiting for a condition with a bound: the one place of this crate that polls (sleeps, no other I/O).

use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// What a look at the world found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Now<T = ()> {
    /// The condition holds; the value goes to the caller.
    Done(T),
    /// Not yet; the text says what was seen instead and ends up in the time-out's message.
    NotYet(String),
}

impl Now {
    /// `Done` when `holds`, otherwise `NotYet` with the given text.
    #[must_use]
    pub fn when(holds: bool, otherwise: &str) -> Self {
        if holds { Self::Done(()) } else { Self::NotYet(otherwise.to_owned()) }
    }
}

/// Looks again and again, with growing pauses, until `look` says `Done`, fails, or `timeout` is over.
pub fn wait_until<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Result<Now<T>>) -> Result<T> {
    let mut pauses = Pauses::new(timeout);
    loop {
        match look()? {
            Now::Done(value) => return Ok(value),
            Now::NotYet(seen) => thread::sleep(pauses.next(what, &seen)?),
        }
    }
}

/// [`wait_until`] for asynchronous looks.
pub async fn wait_until_async<T, F>(what: &str, timeout: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Now<T>>>,
{
    let mut pauses = Pauses::new(timeout);
    loop {
        match look().await? {
            Now::Done(value) => return Ok(value),
            Now::NotYet(seen) => tokio::time::sleep(pauses.next(what, &seen)?).await,
        }
    }
}

struct Pauses {
    begun: Instant,
    timeout: Duration,
    pause: Duration,
}

impl Pauses {
    fn new(timeout: Duration) -> Self {
        Self { begun: Instant::now(), timeout, pause: FIRST_PAUSE }
    }

    fn next(&mut self, what: &str, seen: &str) -> Result<Duration> {
        if self.begun.elapsed() >= self.timeout {
            bail!("waited {} s for {what}, but: {seen}", self.timeout.as_secs_f32());
        }
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        Ok(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_the_look_found() {
        let mut looks = 0;
        let found = wait_until("the third look", Duration::from_secs(5), || {
            looks += 1;
            Ok(if looks == 3 { Now::Done(looks) } else { Now::NotYet(format!("look {looks}")) })
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn a_time_out_says_what_was_seen_last() {
        let never = wait_until("rain", Duration::from_millis(60), || Ok(Now::when(false, "only clouds")));
        let message = never.unwrap_err().to_string();
        assert!(message.contains("rain") && message.contains("only clouds"), "{message}");
    }

    #[test]
    fn an_error_ends_the_wait_at_once() {
        let failed = wait_until::<()>("anything", Duration::from_mins(1), || bail!("the process is gone"));
        assert_eq!(failed.unwrap_err().to_string(), "the process is gone");
    }
}
