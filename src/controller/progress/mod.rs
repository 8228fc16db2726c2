//! What running workers tell of how far they are: kept in memory for as long as their pods exist. No I/O of its own.
//!
//! Nothing rests on it but what people see. After a restart of the controller it comes again by itself.

mod door;
mod review;
mod server;
mod token;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Mutex,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::{contract::ProgressMessage, plan::progress::Told, runtime::lock};

pub use server::{Limits, serve};

/// What a Checkpoint's plan sees changes at most this often, however many workers it has: each change is a write of its
/// status. Workers tell every ten seconds; a little less, so that none of them has to wait another round.
const ROUND: Duration = Duration::from_secs(9);
/// A worker is heard at most this often.
const PAUSE: Duration = Duration::from_secs(5);
/// For how long the API server's word on a token holds.
const VERIFIED: Duration = Duration::from_mins(1);
/// The API server is asked about a pod's tokens at most this often.
const ASKED: Duration = Duration::from_secs(5);

/// All that is known. One seat a pod that exists, so it is as bounded as the cache of pods.
#[derive(Debug, Default)]
pub struct Board(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// By the pod's UID.
    seats: HashMap<String, Seat>,
    /// By the Checkpoint's UID.
    views: HashMap<String, View>,
}

#[derive(Debug)]
struct Seat {
    checkpoint: String,
    /// The token that the API server verified, and until when that holds.
    verified: Option<(blake3::Hash, Instant)>,
    asked: Option<Instant>,
    heard: Option<Instant>,
    told: Option<Told>,
}

/// What the plan of a Checkpoint sees.
#[derive(Debug)]
struct View {
    since: Instant,
    told: BTreeMap<String, Told>,
}

/// What is known of a pod's token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Standing {
    /// The API server verified it not long ago.
    Verified,
    /// The API server is to be asked, and that was noted.
    Ask,
    /// It was asked a moment ago.
    Wait,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Taken {
    /// The plan sees it, and is to look.
    Shown,
    /// The plan sees it in the next round.
    Kept,
    /// A later one came before.
    Overtaken,
    /// The worker told something a moment ago.
    TooOften,
}

/// Sums over all workers that told something not long ago.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Totals {
    /// How many.
    pub workers: u64,
    /// Bytes per second.
    pub rate: u64,
    /// Bytes that are not done.
    pub left: u64,
}

impl Board {
    /// What the plan of a Checkpoint is to see.
    #[must_use]
    pub fn view(&self, checkpoint: &str) -> BTreeMap<String, Told> {
        lock(&self.0).views.get(checkpoint).map(|view| view.told.clone()).unwrap_or_default()
    }

    /// The pod is gone.
    pub fn forget(&self, pod: &str) {
        lock(&self.0).retain(|seated| seated != pod);
    }

    /// Only these pods exist.
    pub fn keep(&self, pods: &HashSet<String>) {
        lock(&self.0).retain(|seated| pods.contains(seated));
    }

    /// For the metrics.
    #[must_use]
    pub fn totals(&self, now: Timestamp) -> Totals {
        let inner = lock(&self.0);
        let told = inner.seats.values().filter_map(|seat| seat.told.as_ref()).filter(|told| told.is_fresh(now));
        told.fold(Totals::default(), |sum, Told { message, .. }| Totals {
            workers: sum.workers + 1,
            rate: sum.rate.saturating_add(message.bytes_per_second.unwrap_or(0)),
            left: sum.left.saturating_add(message.bytes_total - message.bytes_done),
        })
    }

    fn standing(&self, pod: &str, checkpoint: &str, token: blake3::Hash, now: Instant) -> Standing {
        let mut inner = lock(&self.0);
        let seat = inner.seat(pod, checkpoint);
        if seat.verified.is_some_and(|(verified, until)| verified == token && now < until) {
            return Standing::Verified;
        }
        if seat.asked.is_some_and(|asked| now < asked + ASKED) {
            return Standing::Wait;
        }
        seat.asked = Some(now);
        Standing::Ask
    }

    fn verify(&self, pod: &str, checkpoint: &str, token: blake3::Hash, now: Instant) {
        lock(&self.0).seat(pod, checkpoint).verified = Some((token, now + VERIFIED));
    }

    fn take(&self, pod: &str, checkpoint: &str, message: ProgressMessage, at: Timestamp, now: Instant) -> Taken {
        let mut inner = lock(&self.0);
        let seat = inner.seat(pod, checkpoint);
        if seat.heard.is_some_and(|heard| now < heard + PAUSE) {
            return Taken::TooOften;
        }
        if seat.told.is_some_and(|told| message.sequence <= told.message.sequence) {
            return Taken::Overtaken;
        }
        seat.heard = Some(now);
        seat.told = Some(Told { at, message });
        if inner.views.get(checkpoint).is_some_and(|view| now < view.since + ROUND) {
            return Taken::Kept;
        }
        let of_checkpoint = inner.seats.iter().filter(|(_, seat)| seat.checkpoint == checkpoint);
        let told = of_checkpoint.filter_map(|(pod, seat)| Some((pod.clone(), seat.told?))).collect();
        inner.views.insert(checkpoint.to_owned(), View { since: now, told });
        Taken::Shown
    }
}

impl Inner {
    fn seat(&mut self, pod: &str, checkpoint: &str) -> &mut Seat {
        self.seats.entry(pod.to_owned()).or_insert_with(|| Seat {
            checkpoint: checkpoint.to_owned(),
            verified: None,
            asked: None,
            heard: None,
            told: None,
        })
    }

    fn retain(&mut self, stays: impl Fn(&str) -> bool) {
        self.seats.retain(|pod, _| stays(pod));
        let seated: HashSet<&str> = self.seats.values().map(|seat| seat.checkpoint.as_str()).collect();
        self.views.retain(|checkpoint, _| seated.contains(checkpoint.as_str()));
        for view in self.views.values_mut() {
            view.told.retain(|pod, _| stays(pod));
        }
    }
}
