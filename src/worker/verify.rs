//! Hashes the files of a volume again and compares with its manifest and with what is expected. Reads only.

use std::{path::Path, sync::Arc, time::Instant};

use crate::{
    contract::{
        LoadTask, Outcome, Reason, Report, TaskKind, Transfer,
        digest::{Tree, filter_hash},
        manifest::Manifest,
    },
    storage::{Entry, Folder, Storage},
};

use super::{
    failure::{Failure, blocking},
    load::compare,
    progress::{ProgressSink, Stage},
    review::staged,
    transfer,
    volume::Volume,
};

/// Whether the volume holds what the manifest says and what the task expects.
pub(super) async fn verify(load: &LoadTask, volume: &Path, progress: &ProgressSink) -> Result<Report, Failure> {
    let begun = Instant::now();
    progress.enter(Stage::Listing);
    let root = volume.to_owned();
    let manifest = blocking(move || {
        let volume = Volume::open(&root)?;
        let manifest = volume.manifest()?.ok_or_else(|| conflict("it has no manifest of a load"))?;
        compare(&volume, manifest.files.iter().map(|file| (file.path.as_str(), file.size)))?;
        Ok(manifest)
    })
    .await?;
    check_identity(load, &manifest)?;
    let found = staged(volume).await?;
    let entries: Vec<Entry> = manifest.files.iter().filter_map(|file| found.get(&file.path)).cloned().collect();
    progress.update(|progress| {
        progress.stage = Stage::Hashing;
        progress.files_total = entries.len() as u64;
        progress.bytes_total = entries.iter().map(|entry| entry.size).sum();
    });
    let folder: Arc<dyn Storage> = Arc::new(Folder::claim("of the volume", volume, ""));
    let read = transfer::hash_all(&folder, &entries, progress).await;
    let (hashes, bytes) = read.map_err(|failure| match failure {
        Failure::Storage(error) => Failure::Volume(format!("a file of the volume cannot be read: {error}")),
        other => other,
    })?;
    let mut tree = Tree::new();
    for (file, hash) in manifest.files.iter().zip(&hashes) {
        if hash.to_hex().as_str() != file.blake3 {
            return Err(Failure::Corrupt(format!("the content of {} in the volume is not what was loaded", file.path)));
        }
        tree.add(&file.path, file.size, hash);
    }
    let digest = tree.finish();
    if digest != manifest.digest || load.digest.as_ref().is_some_and(|expected| *expected != digest) {
        let message = format!("the volume has the digest {digest}, which is not what was published");
        return Err(Failure::Digest { message, digest });
    }
    let files = entries.len() as u64;
    Ok(Report {
        digest: Some(digest),
        transfer: Some(Transfer {
            files,
            bytes,
            bytes_fetched: 0,
            bytes_kept: bytes,
            bytes_reused: 0,
            bytes_verified: 0,
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        }),
        ..Report::new(
            TaskKind::Verify,
            Outcome::Good,
            Reason::Complete,
            format!("{files} files have the expected content"),
        )
    })
}

fn check_identity(load: &LoadTask, manifest: &Manifest) -> Result<(), Failure> {
    if manifest.version != 1 {
        return Err(conflict("its manifest is of another version"));
    }
    if !manifest.files.is_sorted_by(|left, right| left.path < right.path) {
        return Err(Failure::Corrupt("the manifest of the volume is not sorted".into()));
    }
    if manifest.fingerprint != load.fingerprint {
        return Err(conflict("it was loaded from another state of the source"));
    }
    if manifest.filter != filter_hash(&load.filter) {
        return Err(conflict("it was loaded with another include or exclude"));
    }
    Ok(())
}

fn conflict(problem: &str) -> Failure {
    Failure::Conflict(format!("the volume is not a copy of this checkpoint: {problem}"))
}
