//! One load by several workers: each brings its share, and whoever finds that all shares are there verifies and publishes. Does I/O.
//!
//! The shares follow from the listing alone, so that nobody has to hand them out. A worker says in a mark on the volume that
//! its share is durable. Whoever comes last, or is started again after that, loads the whole: of which everything is there already,
//! but for what is made up of several shares. So any worker can die at any time, and it does not matter which of them is last.

mod mark;
pub(super) mod share;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use crate::{
    contract::{LoadTask, Outcome, Reason, Report, Task, TaskKind, Transfer as TransferFacts},
    storage::{Entry, Storage},
};

use super::{
    copy::{Copied, Copier},
    failure::{Failure, blocking},
    load::{self, Prepared, ROUNDS},
    progress::{ProgressSink, Stage},
    transfer,
    volume::Volume,
};

use mark::Mark;
use share::Share;

/// Brings the share of this worker, and the whole when all shares are there.
pub(super) async fn load(
    task: &Task,
    load: &LoadTask,
    storage: &Arc<dyn Storage>,
    volume: &Path,
    sibling: Option<&Path>,
    progress: &ProgressSink,
) -> Result<Report, Failure> {
    if load.worker >= load.workers {
        return Err(Failure::Task(format!("there is no worker {} among {}", load.worker, load.workers)));
    }
    progress.enter(Stage::Listing);
    let (_, wanted) = load::wanted(load, &**storage).await?;
    if wanted.iter().any(|entry| entry.version.is_empty()) {
        // What others brought could not be told from another version of it: the first worker loads alone.
        if load.worker == 0 {
            return load::whole(task, load, storage, volume, sibling, progress).await;
        }
        let message = "the storage does not tell versions of files apart, so that one worker loads all of them";
        return Ok(Report::new(TaskKind::Load, Outcome::Good, Reason::Loading, message));
    }
    let share = Share::of(&wanted, (load.worker, load.workers), &load.group, storage.in_sequence());
    let mark = Mark::of(load);
    let worker = load.worker;
    let facts = if look(volume, &mark, move |mark, volume| mark.is_set(volume, worker)).await? {
        TransferFacts::default()
    } else {
        let prepared = load::prepare(volume, sibling, storage.uri(), wanted, Some(share.clone())).await?;
        let shelf = Arc::clone(&prepared.shelf);
        let facts = bring(storage, progress, prepared, &share).await?;
        let mark = mark.clone();
        blocking(move || mark.set(&shelf.workspace, worker)).await?;
        facts
    };
    // Whoever sees all marks loads the whole, which takes that nobody else is at work on the volume.
    if look(volume, &mark, Mark::is_set_by_all).await? {
        match load::whole(task, load, storage, volume, sibling, progress).await {
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

/// Makes a share durable.
async fn bring(
    storage: &Arc<dyn Storage>,
    progress: &ProgressSink,
    prepared: Prepared,
    share: &Share,
) -> Result<TransferFacts, Failure> {
    let begun = Instant::now();
    let Prepared { shelf, work, reuse } = load::make_room(prepared).await?;
    let files = share.whole_files().count() as u64;
    let kept = load::announce(&work, (files, share.bytes()), progress);
    let (mut fetch, mut resume) = (work.fetch.clone(), work.resume.clone());
    let mut reuse = Arc::new(reuse);
    let shelf = load::tidy(shelf, work, Arc::clone(&reuse)).await?.0;
    let mut facts = TransferFacts { files, bytes: share.bytes(), bytes_kept: kept, ..TransferFacts::default() };
    for round in 1.. {
        let copier = Copier::new(storage, progress, Arc::clone(&shelf));
        let result = copier.copy(&fetch, &resume, &reuse, Some(share)).await;
        facts.bytes_fetched += copier.fetched();
        facts.bytes_reused += reuse.reused();
        let Copied { wrong, .. } = result?;
        let Some((entry, windows)) = wrong.first() else { break };
        let message = transfer::wrong(entry, windows);
        if round == ROUNDS {
            return Err(Failure::Corrupt(message));
        }
        tracing::warn!(message, "fetching it again");
        fetch = wrong.into_iter().map(|(entry, _)| entry).collect::<Vec<Entry>>();
        (resume, reuse) = (BTreeMap::new(), Arc::default());
    }
    let whole: Vec<String> = share.whole_files().map(str::to_owned).collect();
    blocking(move || shelf.workspace.settle_folders(whole.iter().map(String::as_str))).await?;
    facts.milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(facts)
}
