//! Where a worker of the storage tests works: a Secret and a volume (file I/O).

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{LoadTask, Outcome, Report, Source, Task, TaskKind, VERSION, Validation, filter::Filter},
    storage::Mounts,
    worker::{ProgressSink, perform},
};
use tokio_util::sync::CancellationToken;

/// A Secret and a volume.
pub struct Place {
    pub secret: tempfile::TempDir,
    pub volume: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Result<Self> {
        // The process has one TLS provider; whoever comes second finds it installed.
        rustls::crypto::ring::default_provider().install_default().ok();
        Ok(Self { secret: tempfile::tempdir()?, volume: tempfile::tempdir()? })
    }

    pub fn mounts(&self) -> Mounts {
        Mounts {
            credentials: self.secret.path().to_owned(),
            volume: Some(self.volume.path().to_owned()),
            ..Mounts::default()
        }
    }

    pub async fn perform(&self, task: &Task) -> Report {
        perform(task, &self.mounts(), &ProgressSink::default(), CancellationToken::new()).await
    }

    pub async fn inspect(&self, source: &Source) -> Report {
        self.perform(&task(TaskKind::Inspect, source, None)).await
    }

    /// Inspects, loads and verifies; the load's report.
    pub async fn load(&self, source: &Source) -> Result<Report> {
        let inspected = self.inspect(source).await;
        assert_eq!(inspected.outcome, Outcome::Good, "{inspected:?}");
        let fingerprint = inspected.source.context("no source in the report")?.fingerprint;
        let loaded = self.perform(&task(TaskKind::Load, source, Some(&fingerprint))).await;
        assert_eq!(loaded.outcome, Outcome::Good, "{loaded:?}");
        let verified = self.perform(&task(TaskKind::Verify, source, Some(&fingerprint))).await;
        assert_eq!(verified.outcome, Outcome::Good, "{verified:?}");
        Ok(loaded)
    }

    /// The files of the volume.
    pub fn files(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut files = BTreeMap::new();
        let mut ahead = vec![self.volume.path().to_owned()];
        while let Some(folder) = ahead.pop() {
            for item in fs::read_dir(folder)? {
                let path = item?.path();
                let name = path.strip_prefix(self.volume.path())?.to_str().context("not UTF-8")?.to_owned();
                if name == ".checkpoint" {
                    continue;
                }
                if path.is_dir() {
                    ahead.push(path);
                } else {
                    files.insert(name, fs::read(path)?);
                }
            }
        }
        Ok(files)
    }
}

pub fn task(kind: TaskKind, source: &Source, fingerprint: Option<&str>) -> Task {
    let load = |fingerprint: &str| LoadTask::new(fingerprint, Filter::default());
    Task {
        version: VERSION,
        kind,
        source: source.clone(),
        validation: Validation::default(),
        volumes: vec![],
        load: fingerprint.map(load),
    }
}
