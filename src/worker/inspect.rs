//! Lists, judges and, when asked to, hashes a source. Does I/O through storages; changes nothing.

use std::sync::Arc;

use futures::FutureExt;

use crate::{
    contract::{
        Depth, Outcome, Reason, Report, Selection, Task, TaskKind,
        digest::Tree,
        filter::{Filter, GlobError, Selector, required_bytes},
    },
    format::Verdict,
    storage::{Listing, Storage, StorageError},
};

use super::{
    failure::Failure,
    judging::{drive, judge_of, read_range},
    progress::{ProgressSink, Stage},
    transfer,
};

/// Looks at the source and says what it is. A bad verdict is a result and no failure.
pub(super) async fn inspect(
    task: &Task,
    storage: &Arc<dyn Storage>,
    progress: &ProgressSink,
) -> Result<Report, Failure> {
    let volumes = selectors(&task.volumes)?;
    progress.enter(Stage::Listing);
    let listing = match storage.list().await {
        Ok(listing) => listing,
        Err(error @ (StorageError::Empty(_) | StorageError::Incomplete(_))) => {
            return Ok(Report::new(TaskKind::Inspect, Outcome::Bad, error.reason(), error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    progress.enter(Stage::Judging);
    let judge = judge_of(&task.source, &listing, &task.validation, &volumes);
    let entries = &listing.entries;
    let verdict = drive(judge, |file, range| read_range(&**storage, &entries[file], range).boxed())
        .await
        .map_err(|unread| unread.error)?;
    let good = verdict.is_good();
    let mut report = Report { source: Some(listing.facts(&storage.uri())), ..of_verdict(TaskKind::Inspect, verdict) };
    report.selections = volumes.iter().map(|selector| selection(&listing, selector)).collect();
    if good && needs_content(task) {
        let digest = content_digest(storage, &listing, progress).await?;
        compare_pin(&mut report, task.validation.digest.as_deref(), &digest);
        report.digest = Some(digest);
    }
    Ok(report)
}

/// A pin is compared before anything is published: here, unless the load of an unfiltered volume reads everything anyhow.
fn needs_content(task: &Task) -> bool {
    let by_load = task.volumes.iter().any(Filter::is_everything);
    task.validation.depth == Depth::Content || (task.validation.digest.is_some() && !by_load)
}

async fn content_digest(
    storage: &Arc<dyn Storage>,
    listing: &Listing,
    progress: &ProgressSink,
) -> Result<String, Failure> {
    let entries = &listing.entries;
    progress.update(|progress| {
        progress.stage = Stage::Hashing;
        progress.files_total = entries.len() as u64;
        progress.bytes_total = listing.bytes();
    });
    let (hashes, _) = transfer::hash_all(storage, entries, progress).await?;
    let mut tree = Tree::new();
    for (entry, hash) in entries.iter().zip(&hashes) {
        tree.add(&entry.path, entry.size, hash);
    }
    if storage.list().await?.fingerprint() != listing.fingerprint() {
        return Err(StorageError::Changed("the source changed while it was read".into()).into());
    }
    Ok(tree.finish())
}

fn compare_pin(report: &mut Report, pin: Option<&str>, digest: &str) {
    if let Some(pin) = pin
        && pin != digest
    {
        report.outcome = Outcome::Bad;
        report.reason = Some(Reason::DigestMismatch);
        report.message = pin_message(pin, digest);
    }
}

pub(super) fn pin_message(pin: &str, digest: &str) -> String {
    format!("the content has the digest {digest} and not {pin}: correct validation.digest, or restore the content")
}

/// The verdict as a report without a source.
pub(super) fn of_verdict(kind: TaskKind, verdict: Verdict) -> Report {
    let outcome = if verdict.is_good() { Outcome::Good } else { Outcome::Bad };
    Report {
        contents: Some(verdict.contents),
        metadata: verdict.metadata,
        findings: verdict.findings,
        ..Report::new(kind, outcome, verdict.reason, verdict.message)
    }
}

/// The compiled filters.
pub(super) fn selectors(filters: &[Filter]) -> Result<Vec<Selector>, Failure> {
    let compiled: Result<Vec<_>, GlobError> = filters.iter().map(Filter::compile).collect();
    compiled.map_err(|error| Failure::Task(error.to_string()))
}

fn selection(listing: &Listing, selector: &Selector) -> Selection {
    let sizes = || listing.entries.iter().filter(|entry| selector.selects(&entry.path)).map(|entry| entry.size);
    Selection {
        files: sizes().count() as u64,
        bytes: sizes().fold(0, u64::saturating_add),
        required_bytes: required_bytes(sizes()),
    }
}
