//! A storage of any size whose bytes are made when they are read, and may be wrong on purpose.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, future,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use crate::{
    contract::{LoadTask, Report, Source, Task, TaskKind, VERSION, Validation, filter::Filter},
    storage::{Entry, Listing, Storage, StorageError, Window},
    worker::{
        ProgressSink,
        failure::Failure,
        load::{self, Loading},
    },
};

/// What reads of a [`Fake`] bring: a file's index, a range, and how often that file was read before.
pub(super) type Content = dyn Fn(usize, Range<u64>, usize) -> Result<Vec<u8>, StorageError> + Send + Sync;

/// What was read: files' indices and ranges.
type Reads = Arc<Mutex<Vec<(usize, Range<u64>)>>>;

/// A storage of any size whose bytes are made when they are read. Clones count together.
#[derive(Clone)]
pub(super) struct Fake {
    pub entries: Vec<Entry>,
    pub content: Arc<Content>,
    pub in_sequence: bool,
    pub uri: String,
    /// What the storage holds of files besides the checksums of its listing, by their path.
    pub windows: BTreeMap<String, Vec<Window>>,
    pub reads: Reads,
    active: Arc<AtomicUsize>,
    pub most: Arc<AtomicUsize>,
    pub bytes: Arc<AtomicU64>,
}

impl Fake {
    pub fn new(
        files: Vec<(String, u64)>,
        content: impl Fn(usize, Range<u64>, usize) -> Result<Vec<u8>, StorageError> + Send + Sync + 'static,
    ) -> Self {
        let entry = |(path, size)| Entry { path, size, version: "\"e\"".into(), checksum: None, content: None };
        let mut entries: Vec<_> = files.into_iter().map(entry).collect();
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Self {
            entries,
            content: Arc::new(content),
            in_sequence: false,
            uri: "fake:".into(),
            windows: BTreeMap::new(),
            reads: Arc::default(),
            active: Arc::default(),
            most: Arc::default(),
            bytes: Arc::default(),
        }
    }

    pub fn task(&self, kind: TaskKind) -> Task {
        let fingerprint = Listing { entries: self.entries.clone() }.fingerprint();
        Task {
            version: VERSION,
            kind,
            source: Source::S3(crate::contract::S3Task::default()),
            validation: Validation::default(),
            volumes: vec![],
            load: Some(LoadTask::new(fingerprint, Filter::default())),
        }
    }

    pub fn shared(&self) -> Arc<dyn Storage> {
        Arc::new(self.clone())
    }

    pub async fn load(&self, volume: &Path) -> Result<Report, Failure> {
        self.load_beside(volume, None).await
    }

    /// Loads with a claim beside the volume that files may be taken from.
    pub async fn load_beside(&self, volume: &Path, sibling: Option<&Path>) -> Result<Report, Failure> {
        self.carry_out(&self.task(TaskKind::Load), volume, sibling).await
    }

    /// Does a task of loading.
    pub async fn carry_out(&self, task: &Task, volume: &Path, sibling: Option<&Path>) -> Result<Report, Failure> {
        let (load, storage, progress) = (task.load.as_ref().unwrap(), &self.shared(), &ProgressSink::default());
        load::load(Loading { task, load, storage, volume, sibling, progress }).await
    }
}

/// Counts a read until it is dropped.
struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Storage for Fake {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn in_sequence(&self) -> bool {
        self.in_sequence
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        future::ready(Ok(Listing { entries: self.entries.clone() })).boxed()
    }

    fn checksums<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Vec<Window>> {
        let own = || Window::of(entry.checksum, entry.size);
        future::ready(self.windows.get(&entry.path).cloned().unwrap_or_else(own)).boxed()
    }

    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>> {
        let index = self.entries.iter().position(|known| known == entry).unwrap();
        stream::once(async move {
            self.most.fetch_max(self.active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _active = Active(Arc::clone(&self.active));
            tokio::task::yield_now().await;
            let before = {
                let mut reads = self.reads.lock().unwrap();
                let before = reads.iter().filter(|(file, old)| *file == index && old.start == range.start).count();
                reads.push((index, range.clone()));
                before
            };
            self.bytes.fetch_add(range.end - range.start, Ordering::SeqCst);
            (self.content)(index, range, before).map(Bytes::from)
        })
        .boxed()
    }
}

/// A sharded checkpoint of any size whose tensors are never made.
pub(super) fn shards(count: usize, size: u64) -> Fake {
    let name = |index: usize| format!("model-{:05}-of-{count:05}.safetensors", index + 1);
    let header = move |index: usize| {
        let make =
            |length: u64| format!(r#"{{"t{index}":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
        let mut text = make(size);
        let length = size - 8 - text.len() as u64;
        let padding = text.len() - make(length).len();
        text = format!("{}{}", make(length), " ".repeat(padding));
        [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
    };
    let map: BTreeMap<_, _> = (0..count).map(|index| (format!("t{index}"), name(index))).collect();
    let index = serde_json::to_vec(&serde_json::json!({"metadata": {}, "weight_map": map})).unwrap();
    let mut files: Vec<_> = (0..count).map(|index| (name(index), size)).collect();
    files.push(("model.safetensors.index.json".into(), index.len() as u64));
    Fake::new(files, move |file, range, _| {
        let source = if file < count { header(file) } else { index.clone() };
        let at = |position: u64| usize::try_from(position).unwrap();
        let mut bytes = vec![0; at(range.end - range.start)];
        let there = source.get(at(range.start)..).unwrap_or_default();
        let count = there.len().min(bytes.len());
        bytes[..count].copy_from_slice(&there[..count]);
        Ok(bytes)
    })
}
