//! Copies what a load has to fetch, and once more what came wrong. Does I/O.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    contract::Transfer as TransferFacts,
    storage::{Entry, Storage},
};

use super::{
    copy::{Copied, Copier, Shelf},
    failure::Failure,
    progress::ProgressSink,
    reuse::Reuse,
    selection::{Resume, Work},
    split::share::Share,
};

/// How often files that turn out to be wrong are fetched.
const ROUNDS: u32 = 2;

/// What is left to be fetched, and how often that was tried.
pub(super) struct Rounds<'a> {
    storage: &'a Arc<dyn Storage>,
    progress: &'a ProgressSink,
    share: Option<&'a Share>,
    fetch: Vec<Entry>,
    resume: BTreeMap<String, Resume>,
    reuse: Arc<Reuse>,
    begun: u32,
}

impl<'a> Rounds<'a> {
    /// For this work; `share` says which parts of a file are this worker's, if there are several.
    pub(super) fn new(
        storage: &'a Arc<dyn Storage>,
        progress: &'a ProgressSink,
        share: Option<&'a Share>,
        work: &Work,
        reuse: &Arc<Reuse>,
    ) -> Self {
        let (fetch, resume, reuse) = (work.fetch.clone(), work.resume.clone(), Arc::clone(reuse));
        Self { storage, progress, share, fetch, resume, reuse, begun: 0 }
    }

    /// Copies what is left, and counts what that took.
    pub(super) async fn copy(&mut self, to: &Arc<Shelf>, facts: &mut TransferFacts) -> Result<Copied, Failure> {
        self.begun += 1;
        let copier = Copier::new(self.storage, self.progress, Arc::clone(to));
        let result = copier.copy(&self.fetch, &self.resume, &self.reuse, self.share).await?;
        facts.bytes_fetched += copier.fetched();
        facts.bytes_reused += self.reuse.reused();
        Ok(result)
    }

    /// Another round for these files, which are wrong for this reason; without any, or after the last round, that is the end.
    pub(super) fn again(&mut self, files: Vec<Entry>, message: String) -> Result<(), Failure> {
        if self.begun == ROUNDS || files.is_empty() {
            return Err(Failure::Corrupt(message));
        }
        tracing::warn!(message, "fetching it again");
        (self.fetch, self.resume, self.reuse) = (files, BTreeMap::new(), Arc::default());
        Ok(())
    }
}
