//! What a volume's status says of a load that runs: bytes, rate and time left, as its workers tell them. Pure, no I/O.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use crate::{api::VolumeStatus, contract::ProgressMessage};

use super::{
    attempt,
    scene::{Draft, Scene, count},
};

/// A rate that is older says nothing of now.
const FRESH: SignedDuration = SignedDuration::from_secs(60);

/// What a worker told, and when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Told {
    /// When it arrived.
    pub at: Timestamp,
    /// The numbers.
    pub message: ProgressMessage,
}

impl Told {
    /// Whether its rate still says something.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < FRESH
    }
}

/// Notes how far the workers of a Job are. Where none of them tells, nothing is said that was not known before.
pub(super) fn note(scene: &Scene<'_>, draft: &mut Draft, job: &Job, status: &mut VolumeStatus) {
    let told = |phase: &'static str| {
        attempt::pods_of(scene.observed, job).filter(move |pod| is_in(pod, phase)).filter_map(|pod| {
            let told = scene.observed.progress.get(pod.metadata.uid.as_ref()?)?;
            // Before the listing is read, a worker does not know what is there.
            (told.message.bytes_total > 0).then_some(told)
        })
    };
    let running: Vec<_> = told("Running").collect();
    status.bytes_per_second = None;
    status.remaining_seconds = None;
    if running.is_empty() {
        return;
    }
    // Of several workers, some have brought their share while others have not.
    let done = running.iter().copied().chain(told("Succeeded"));
    let done = done.fold(0u64, |sum, told| sum.saturating_add(told.message.bytes_done));
    let total = status.bytes_total.unwrap_or(i64::MAX);
    status.bytes_done = Some(count(done).min(total));
    let fresh: Vec<_> = running.iter().filter(|told| told.is_fresh(scene.now)).collect();
    let rates = fresh.iter().filter_map(|told| told.message.bytes_per_second);
    status.bytes_per_second = rates.reduce(u64::saturating_add).map(count);
    // The whole is there when its last part is.
    let left: Option<Vec<_>> = fresh.iter().map(|told| told.message.remaining_seconds).collect();
    let all_tell = fresh.len() == running.len();
    status.remaining_seconds = left.filter(|_| all_tell).and_then(|left| left.into_iter().max()).map(count);
    if let Some(oldest) = fresh.iter().map(|told| told.at).min() {
        draft.look_again_at(oldest + FRESH, scene.now);
    }
}

fn is_in(pod: &Pod, phase: &str) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase)
}
