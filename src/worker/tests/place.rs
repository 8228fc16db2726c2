//! Where tests load from and to, what lies there, and how a load dies.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::{
    contract::{
        LoadTask, Report, Source, Task, TaskKind, VERSION, Validation, digest::Tree, filter::Filter, manifest::Manifest,
    },
    storage::{Mounts, Storage},
    worker::{ProgressSink, failure::Failure, perform},
};

static CRASHES: Mutex<Option<HashMap<PathBuf, Arc<AtomicI64>>>> = Mutex::new(None);

/// Lets a load die before its n-th file operation: that one and all later ones fail.
#[derive(Debug)]
pub(in crate::worker) struct Crash(Option<Arc<AtomicI64>>);

impl Crash {
    pub fn of(volume: &Path) -> Self {
        Self(CRASHES.lock().unwrap().as_ref().and_then(|crashes| crashes.get(volume).cloned()))
    }

    pub fn plan(volume: &Path, operation: i64) {
        let counter = Arc::new(AtomicI64::new(operation));
        CRASHES.lock().unwrap().get_or_insert_default().insert(volume.to_owned(), counter);
    }

    pub fn step(&self) -> Result<(), Failure> {
        match &self.0 {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 1 => Err(Failure::Volume("crash".into())),
            _ => Ok(()),
        }
    }
}

/// Bytes that repeat with a length that divides no block. Made by copying: tests are not optimised, and some take many MiB.
pub(in crate::worker) fn sample(length: usize) -> Vec<u8> {
    let pattern: Vec<u8> = (0..=250).collect();
    let mut bytes = pattern.repeat(length.div_ceil(pattern.len()));
    bytes.truncate(length);
    bytes
}

pub(super) fn safetensors(fill: u8, length: usize) -> Vec<u8> {
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![fill; length]].concat()
}

/// A source claim and a volume.
pub(super) struct Place {
    pub source: tempfile::TempDir,
    pub volume: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { source: tempfile::tempdir().unwrap(), volume: tempfile::tempdir().unwrap() };
        place.put("config.json", br#"{"architectures": ["X"]}"#);
        place.put("model.safetensors", &safetensors(1, 3 << 20));
        place.put("deep/er/notes ü+%.txt", b"hello");
        place.put("deep/empty", b"");
        place
    }

    pub fn put(&self, path: &str, bytes: &[u8]) {
        let full = self.source.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
    }

    pub fn mounts(&self) -> Mounts {
        Mounts {
            source: self.source.path().to_owned(),
            volume: Some(self.volume.path().to_owned()),
            ..Mounts::default()
        }
    }

    pub async fn fingerprint(&self) -> String {
        let folder = crate::storage::Folder::claim("models", self.source.path(), "");
        folder.list().await.unwrap().fingerprint()
    }

    pub async fn task(&self, kind: TaskKind) -> Task {
        let load = LoadTask::new(self.fingerprint().await, Filter::default());
        Task {
            version: VERSION,
            kind,
            source: Source::Claim { claim_name: "models".into(), path: String::new() },
            validation: Validation::default(),
            volumes: vec![],
            load: (kind != TaskKind::Inspect).then_some(load),
        }
    }

    pub async fn perform(&self, task: &Task) -> Report {
        perform(task, &self.mounts(), &ProgressSink::default(), CancellationToken::new()).await
    }

    pub async fn run(&self, kind: TaskKind) -> Report {
        self.perform(&self.task(kind).await).await
    }

    pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut ahead = vec![folder.to_owned()];
        while let Some(next) = ahead.pop() {
            for item in fs::read_dir(next).unwrap() {
                let path = item.unwrap().path();
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                if name == ".checkpoint" {
                } else if path.is_dir() {
                    ahead.push(path);
                } else {
                    files.insert(name, fs::read(path).unwrap());
                }
            }
        }
        files
    }

    pub fn assert_equal(&self) {
        assert!(Self::files(self.source.path()) == Self::files(self.volume.path()), "the volume is not a copy");
        let staging = self.volume.path().join(".checkpoint/staging");
        assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "temporary files are left");
    }

    pub fn manifest(&self) -> Option<Manifest> {
        let text = fs::read(self.volume.path().join(".checkpoint/manifest.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    pub fn total(&self) -> u64 {
        Self::files(self.source.path()).values().map(|bytes| bytes.len() as u64).sum()
    }
}

pub(super) fn digest_of(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut tree = Tree::new();
    for (path, bytes) in files {
        tree.add(path, bytes.len() as u64, &blake3::hash(bytes));
    }
    tree.finish()
}
