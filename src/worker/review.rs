//! Judges the whole checkpoint once more, with the selected files as they lie in the volume. Does I/O through storages.
//!
//! Completeness is a matter of the whole, whatever a volume includes; so what is not in the volume is read from the source.

use std::{collections::HashMap, path::Path};

use futures::FutureExt;

use crate::{
    contract::Task,
    format::Verdict,
    storage::{Entry, Folder, Listing, Storage},
};

use super::{
    failure::{Failure, blocking},
    inspect::selectors,
    judging::{drive, judge_of, read_range},
    volume::Volume,
};

/// What the judge says of the volume.
pub(super) enum Review {
    Good(Box<Verdict>),
    /// Bad, because of these files of the volume.
    Bad {
        message: String,
        files: Vec<Entry>,
    },
}

pub(super) async fn review(
    task: &Task,
    listing: &Listing,
    source: &dyn Storage,
    volume: &Path,
    wanted: &[Entry],
) -> Result<Review, Failure> {
    let staged = staged(volume).await?;
    let folder = &Folder::claim("of the volume", volume, "");
    let places: Vec<(&dyn Storage, &Entry)> = listing
        .entries
        .iter()
        .map(|entry| match staged.get(&entry.path) {
            Some(copy) => (folder as &dyn Storage, copy),
            None => (source, entry),
        })
        .collect();
    let judge = judge_of(&task.source, listing, &task.validation, &selectors(&task.volumes)?);
    let judged = drive(judge, |file, range| {
        let (storage, entry) = places[file];
        read_range(storage, entry, range).boxed()
    })
    .await;
    let verdict = judged.map_err(|unread| {
        let path = &listing.entries[unread.file].path;
        if staged.contains_key(path) {
            Failure::Volume(format!("{path} cannot be read back from the volume: {}", unread.error))
        } else {
            unread.error.into()
        }
    })?;
    if verdict.is_good() {
        return Ok(Review::Good(Box::new(verdict)));
    }
    let named = |entry: &&Entry| {
        verdict.findings.iter().any(|finding| finding.fatal && finding.file.as_ref() == Some(&entry.path))
    };
    let files = wanted.iter().filter(named).cloned().collect();
    Ok(Review::Bad { message: format!("what is in the volume is not good: {}", verdict.message), files })
}

/// The files of a volume as entries of a folder.
pub(super) async fn staged(volume: &Path) -> Result<HashMap<String, Entry>, Failure> {
    let volume = volume.to_owned();
    blocking(move || {
        let found = Volume::open(&volume)?.scan()?;
        let entry =
            |path: String, size, version| (path.clone(), Entry { path, size, version, checksum: None, content: None });
        Ok(found.into_iter().map(|found| entry(found.path, found.size, found.modified)).collect())
    })
    .await
}
