//! One load by several workers: each brings its share, and whoever finds that all shares are there verifies and publishes. Does I/O.
//!
//! The shares follow from the listing alone, so that nobody has to hand them out. A worker says in a mark on the volume that
//! its share is durable. Whoever comes last, or is started again after that, loads the whole: of which everything is there already,
//! but for what is made up of several shares. So any worker can die at any time, and it does not matter which of them is last.

mod mark;
pub(super) mod share;

use std::{path::Path, sync::Arc, time::Instant};

use crate::{
    contract::{Outcome, Reason, Report, TaskKind, Transfer as TransferFacts},
    storage::Entry,
};

use super::{
    copy::Shelf,
    failure::{Failure, blocking},
    load::{self, Listed, Loading, Prepared},
    rounds::Rounds,
    volume::Volume,
};

use mark::Mark;
use share::Share;

/// Brings the share of this worker, and the whole when all shares are there.
pub(super) async fn load(loading: Loading<'_>, listed: Listed) -> Result<Report, Failure> {
    let Loading { load, storage, volume, .. } = loading;
    let worker = load.worker;
    if worker >= load.workers {
        return Err(Failure::Task(format!("there is no worker {worker} among {}", load.workers)));
    }
    if listed.wanted.iter().any(|entry| entry.version.is_empty()) {
        // What others brought could not be told from another version of it: the first worker loads alone.
        if worker == 0 {
            return load::whole(loading, listed).await;
        }
        let message = "the storage does not tell versions of files apart, so that one worker loads all of them";
        return Ok(Report::new(TaskKind::Load, Outcome::Good, Reason::Loading, message));
    }
    let mark = Mark::of(load);
    let facts = if look(volume, &mark, move |mark, volume| mark.is_set(volume, worker)).await? {
        TransferFacts::default()
    } else {
        let share = Share::of(&listed.wanted, (worker, load.workers), &load.group, storage.in_sequence());
        let (shelf, facts) = bring(loading, listed.wanted.clone(), &share).await?;
        let mark = mark.clone();
        blocking(move || mark.set(&shelf.workspace, worker)).await?;
        facts
    };
    // Whoever sees all marks loads the whole, which takes that nobody else is at work on the volume.
    if look(volume, &mark, Mark::is_set_by_all).await? {
        match load::whole(loading, listed).await {
            // Another one does: when it fails, it is the one that is started again.
            Err(Failure::Busy(message)) => tracing::info!(message, "others see to the whole"),
            Err(failure) => return Err(failure),
            Ok(mut report) => {
                if let Some(whole) = &mut report.transfer {
                    whole.bytes_fetched += facts.bytes_fetched;
                    whole.bytes_reused += facts.bytes_reused;
                    whole.milliseconds += facts.milliseconds;
                }
                return Ok(report);
            }
        }
    }
    let message = format!("share {} of {} is in the volume, others are still being loaded", worker + 1, load.workers);
    let report = Report::new(TaskKind::Load, Outcome::Good, Reason::Loading, message);
    Ok(Report { transfer: Some(facts), ..report })
}

/// Looks at the marks of a volume, which somebody else may be at work on.
async fn look(
    volume: &Path,
    mark: &Mark,
    at: impl FnOnce(&Mark, &Volume) -> Result<bool, Failure> + Send + 'static,
) -> Result<bool, Failure> {
    let (volume, mark) = (volume.to_owned(), mark.clone());
    blocking(move || at(&mark, &Volume::open(&volume)?)).await
}

/// Makes a share durable. The shelf that it is on, and what that took.
async fn bring(
    loading: Loading<'_>,
    wanted: Vec<Entry>,
    share: &Share,
) -> Result<(Arc<Shelf>, TransferFacts), Failure> {
    let begun = Instant::now();
    let prepared = load::prepare(loading, wanted, Some(share.clone())).await?;
    let Prepared { shelf, work, reuse } = load::make_room(prepared).await?;
    let (files, bytes) = (share.whole_files().count() as u64, share.bytes());
    let bytes_kept = load::announce(&work, (files, bytes), loading.progress);
    let mut facts = TransferFacts { files, bytes, bytes_kept, ..TransferFacts::default() };
    let mut rounds = Rounds::new(loading.storage, loading.progress, Some(share), &work, &reuse);
    let (shelf, _) = load::tidy(shelf, work, reuse).await?;
    while let Some((files, message)) = rounds.copy(&shelf, &mut facts).await?.wrong() {
        rounds.again(files, message)?;
    }
    let (to, whole): (_, Vec<String>) = (Arc::clone(&shelf), share.whole_files().map(str::to_owned).collect());
    blocking(move || to.workspace.settle_folders(whole.iter().map(String::as_str))).await?;
    facts.milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok((shelf, facts))
}
