//! Whole tasks on folders and on storages that misbehave on purpose.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt, future,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::*;
use crate::{
    contract::{
        Depth, InlineTask, Reason, Source, Validation,
        digest::{Tree, filter_hash},
        exit,
        filter::Filter,
        manifest::Manifest,
    },
    storage::{Entry, Listing, StorageError},
};

static CRASHES: Mutex<Option<HashMap<PathBuf, Arc<AtomicI64>>>> = Mutex::new(None);

/// Lets a load die before its n-th file operation: that one and all later ones fail.
#[derive(Debug)]
pub(super) struct Crash(Option<Arc<AtomicI64>>);

impl Crash {
    pub(super) fn of(volume: &Path) -> Self {
        Self(CRASHES.lock().unwrap().as_ref().and_then(|crashes| crashes.get(volume).cloned()))
    }

    fn plan(volume: &Path, operation: i64) {
        let counter = Arc::new(AtomicI64::new(operation));
        CRASHES.lock().unwrap().get_or_insert_default().insert(volume.to_owned(), counter);
    }

    pub(super) fn step(&self) -> Result<(), Failure> {
        match &self.0 {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 1 => Err(Failure::Volume("crash".into())),
            _ => Ok(()),
        }
    }
}

fn safetensors(fill: u8, length: usize) -> Vec<u8> {
    let header = format!(r#"{{"a":{{"dtype":"U8","shape":[{length}],"data_offsets":[0,{length}]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![fill; length]].concat()
}

/// A source claim and a volume.
struct Place {
    source: tempfile::TempDir,
    volume: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { source: tempfile::tempdir().unwrap(), volume: tempfile::tempdir().unwrap() };
        place.put("config.json", br#"{"architectures": ["X"]}"#);
        place.put("model.safetensors", &safetensors(1, 3 << 20));
        place.put("deep/er/notes ü+%.txt", b"hello");
        place.put("deep/empty", b"");
        place
    }

    fn put(&self, path: &str, bytes: &[u8]) {
        let full = self.source.path().join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
    }

    fn mounts(&self) -> Mounts {
        Mounts {
            source: self.source.path().to_owned(),
            volume: Some(self.volume.path().to_owned()),
            ..Mounts::default()
        }
    }

    async fn fingerprint(&self) -> String {
        let folder = crate::storage::Folder::claim("models", self.source.path(), "");
        folder.list().await.unwrap().fingerprint()
    }

    async fn task(&self, kind: TaskKind) -> Task {
        let load = LoadTask { fingerprint: self.fingerprint().await, filter: Filter::default(), digest: None };
        Task {
            version: VERSION,
            kind,
            source: Source::Claim { claim_name: "models".into(), path: String::new() },
            validation: Validation::default(),
            volumes: vec![],
            load: (kind != TaskKind::Inspect).then_some(load),
        }
    }

    async fn perform(&self, task: &Task) -> Report {
        perform(task, &self.mounts(), &ProgressSink::default(), CancellationToken::new()).await
    }

    async fn run(&self, kind: TaskKind) -> Report {
        self.perform(&self.task(kind).await).await
    }

    fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
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

    fn assert_equal(&self) {
        assert!(Self::files(self.source.path()) == Self::files(self.volume.path()), "the volume is not a copy");
        let staging = self.volume.path().join(".checkpoint/staging");
        assert_eq!(fs::read_dir(staging).unwrap().count(), 0, "temporary files are left");
    }

    fn manifest(&self) -> Option<Manifest> {
        let text = fs::read(self.volume.path().join(".checkpoint/manifest.json")).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    fn total(&self) -> u64 {
        Self::files(self.source.path()).values().map(|bytes| bytes.len() as u64).sum()
    }
}

fn digest_of(files: &BTreeMap<String, Vec<u8>>) -> String {
    let mut tree = Tree::new();
    for (path, bytes) in files {
        tree.add(path, bytes.len() as u64, &blake3::hash(bytes));
    }
    tree.finish()
}

fn assert_send<T: Send>(value: T) -> T {
    value
}

#[tokio::test]
async fn a_load_makes_a_verified_copy() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let (task, mounts, progress) = (place.task(TaskKind::Load).await, place.mounts(), ProgressSink::default());
    let report = assert_send(perform(&task, &mounts, &progress, CancellationToken::new())).await;
    assert_eq!(report.outcome, Outcome::Good, "{report:?}");
    place.assert_equal();
    let expected = digest_of(&Place::files(place.source.path()));
    assert_eq!(report.digest.as_ref(), Some(&expected));
    let manifest = place.manifest().unwrap();
    assert_eq!((&manifest.digest, manifest.files.len()), (&expected, 4));
    let transfer = report.transfer.unwrap();
    assert_eq!(
        (transfer.files, transfer.bytes, transfer.bytes_fetched, transfer.bytes_kept),
        (4, place.total(), place.total(), 0)
    );
    let state = *progress.subscribe().borrow();
    assert_eq!((state.files_done, state.bytes_done, state.stage), (4, place.total(), Stage::Done));
    let mode = |path: &str| fs::metadata(place.volume.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("deep/er"), mode("deep/empty"), mode(".checkpoint/manifest.json")), (0o755, 0o644, 0o644));
    assert_eq!(place.run(TaskKind::Verify).await.outcome, Outcome::Good);

    let again = place.run(TaskKind::Load).await;
    assert_eq!(again.outcome, Outcome::Good);
    let transfer = again.transfer.unwrap();
    assert_eq!((transfer.bytes_fetched, transfer.bytes_kept), (0, place.total()));
}

#[tokio::test]
async fn a_filter_takes_its_files_and_the_whole_is_still_judged() {
    let place = Place::new();
    let mut task = place.task(TaskKind::Load).await;
    let filter = Filter { include: vec!["*.json".into()], exclude: vec![] };
    task.validation.required_files = vec!["model.safetensors".into()];
    task.volumes = vec![filter.clone()];
    task.load.as_mut().unwrap().filter = filter.clone();
    let report = place.perform(&task).await;
    assert_eq!(report.outcome, Outcome::Good, "{report:?}");
    let files = Place::files(place.volume.path());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["config.json"]);
    assert_eq!(report.digest.unwrap(), digest_of(&files));
    assert_eq!(place.manifest().unwrap().filter, filter_hash(&filter));

    task.load.as_mut().unwrap().filter.include = vec!["*.none".into()];
    assert_eq!(place.perform(&task).await.reason, Some(Reason::InvalidSpec));
}

#[tokio::test]
async fn a_crash_before_any_file_operation_changes_nothing_in_the_end() {
    for operation in 1.. {
        let place = Place::new();
        place.put("old/gone", b"old");
        place.put("old/stays", &vec![7; 2 << 20]);
        assert_eq!(place.run(TaskKind::Load).await.outcome, Outcome::Good);
        let before = place.task(TaskKind::Verify).await;
        fs::remove_file(place.source.path().join("old/gone")).unwrap();
        place.put("config.json", br#"{"architectures": ["Y"]}"#);
        place.put("new/one", b"1");
        place.put("new/large", &vec![3; (16 << 20) + 5]);

        Crash::plan(place.volume.path(), operation);
        let crashed = place.run(TaskKind::Load).await;
        let finished = crashed.outcome == Outcome::Good;
        if let Some(manifest) = place.manifest() {
            let expected = if manifest.files.iter().any(|file| file.path == "new/one") {
                place.task(TaskKind::Verify).await
            } else {
                before
            };
            let report = place.perform(&expected).await;
            assert_eq!(report.outcome, Outcome::Good, "operation {operation}: a manifest that lies: {report:?}");
        }
        Crash::plan(place.volume.path(), i64::MAX);
        let report = place.run(TaskKind::Load).await;
        assert_eq!(report.outcome, Outcome::Good, "operation {operation}: {report:?}");
        place.assert_equal();
        assert_eq!(place.run(TaskKind::Verify).await.outcome, Outcome::Good);
        let transfer = report.transfer.unwrap();
        assert_eq!(transfer.bytes_fetched + transfer.bytes_kept, place.total());
        // At least the files that did not change were never fetched again.
        assert!(transfer.bytes_kept >= 5 << 20, "operation {operation}: {transfer:?}");
        if finished {
            assert!(operation > 15, "{operation}");
            assert_eq!(transfer.bytes_fetched, 0);
            return;
        }
    }
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    let place = Place::new();
    fs::write(place.volume.path().join("precious"), "mine").unwrap();
    fs::create_dir(place.volume.path().join("lost+found")).unwrap();
    let report = place.run(TaskKind::Load).await;
    assert_eq!(report.reason, Some(Reason::ClaimConflict), "{report:?}");
    assert!(report.message.starts_with("precious"), "{}", report.message);
    assert_eq!(exit_code(&report), exit::CONFLICT);
    assert_eq!(fs::read(place.volume.path().join("precious")).unwrap(), b"mine");
    fs::remove_file(place.volume.path().join("precious")).unwrap();

    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), place.volume.path().join("deep")).unwrap();
    assert_eq!(place.run(TaskKind::Load).await.reason, Some(Reason::ClaimConflict));
    fs::remove_file(place.volume.path().join("deep")).unwrap();

    fs::remove_dir_all(place.volume.path().join(".checkpoint")).unwrap();
    std::os::unix::fs::symlink(outside.path(), place.volume.path().join(".checkpoint")).unwrap();
    assert_eq!(place.run(TaskKind::Load).await.reason, Some(Reason::ClaimConflict));
    fs::remove_file(place.volume.path().join(".checkpoint")).unwrap();
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(place.run(TaskKind::Load).await.outcome, Outcome::Good);
}

#[tokio::test]
async fn a_changed_source_ends_the_load() {
    let place = Place::new();
    let task = place.task(TaskKind::Load).await;
    place.put("config.json", b"{}");
    let report = place.perform(&task).await;
    assert_eq!((report.reason, exit_code(&report)), (Some(Reason::SourceChanged), exit::SOURCE_CHANGED));
    assert!(place.manifest().is_none());
}

#[tokio::test]
async fn digests_are_compared_before_the_manifest() {
    let place = Place::new();
    let wrong = format!("blake3:{}", "0".repeat(64));
    let right = digest_of(&Place::files(place.source.path()));
    let mut task = place.task(TaskKind::Load).await;
    task.validation.digest = Some(wrong.clone());
    let report = place.perform(&task).await;
    assert_eq!((report.reason, place.manifest()), (Some(Reason::DigestMismatch), None), "{report:?}");
    assert_eq!(report.digest.as_ref(), Some(&right), "what was read need not be read again to be compared");
    task.validation.digest = Some(right.clone());
    task.load.as_mut().unwrap().digest = Some(wrong.clone());
    assert_eq!(place.perform(&task).await.reason, Some(Reason::DigestMismatch));
    task.load.as_mut().unwrap().digest = Some(right.clone());
    assert_eq!(place.perform(&task).await.outcome, Outcome::Good);

    // Inspection reads the content for a pin, unless an unfiltered volume will.
    let mut task = place.task(TaskKind::Inspect).await;
    task.validation.digest = Some(wrong);
    let report = place.perform(&task).await;
    assert_eq!((report.outcome, report.reason), (Outcome::Bad, Some(Reason::DigestMismatch)));
    task.volumes = vec![Filter::default()];
    let report = place.perform(&task).await;
    assert_eq!((report.outcome, report.digest), (Outcome::Good, None));
    task.validation = Validation { depth: Depth::Content, ..Validation::default() };
    assert_eq!(place.perform(&task).await.digest, Some(right));
}

#[tokio::test]
async fn a_verification_finds_what_was_changed() {
    type Damage = fn(&Path);
    let table: &[(Damage, Reason, &str)] = &[
        (
            |volume| fs::write(volume.join("config.json"), br#"{"architectures": ["Z"]}"#).unwrap(),
            Reason::Corrupt,
            "config.json",
        ),
        (|volume| fs::write(volume.join("config.json"), b"{}").unwrap(), Reason::Corrupt, "config.json"),
        (|volume| fs::remove_file(volume.join("deep/empty")).unwrap(), Reason::Corrupt, "deep/empty"),
        (|volume| fs::write(volume.join("extra"), b"").unwrap(), Reason::ClaimConflict, "extra"),
        (
            |volume| std::os::unix::fs::symlink("config.json", volume.join("link")).unwrap(),
            Reason::ClaimConflict,
            "link",
        ),
        (
            |volume| fs::remove_file(volume.join(".checkpoint/manifest.json")).unwrap(),
            Reason::ClaimConflict,
            "no manifest",
        ),
        (|volume| fs::write(volume.join(".checkpoint/manifest.json"), b"{").unwrap(), Reason::Corrupt, "manifest"),
    ];
    for (damage, reason, part) in table {
        let place = Place::new();
        assert_eq!(place.run(TaskKind::Load).await.outcome, Outcome::Good);
        damage(place.volume.path());
        let report = place.run(TaskKind::Verify).await;
        assert_eq!((report.outcome, report.reason), (Outcome::Failed, Some(*reason)), "{report:?}");
        assert!(report.message.contains(part), "{part}: {}", report.message);
    }
    let place = Place::new();
    assert_eq!(place.run(TaskKind::Load).await.outcome, Outcome::Good);
    let mut task = place.task(TaskKind::Verify).await;
    task.load.as_mut().unwrap().filter.exclude = vec!["x".into()];
    assert_eq!(place.perform(&task).await.reason, Some(Reason::ClaimConflict));
    place.put("config.json", b"{}");
    assert_eq!(place.run(TaskKind::Verify).await.reason, Some(Reason::ClaimConflict));
}

#[tokio::test]
async fn inline_data_becomes_two_files() {
    let place = Place::new();
    let text = r#"{"epoch": 3, "x": [1.5, null, true]}"#;
    let source = Source::Inline(InlineTask { blake3: blake3::hash(text.as_bytes()).to_hex().to_string() });
    let mounts = Mounts { inline: Some(text.into()), ..place.mounts() };
    let mut task = Task { source, ..place.task(TaskKind::Inspect).await };
    let run = async |task: &Task| perform(task, &mounts, &ProgressSink::default(), CancellationToken::new()).await;
    let report = run(&task).await;
    assert_eq!(report.outcome, Outcome::Good, "{report:?}");
    task.kind = TaskKind::Load;
    task.load =
        Some(LoadTask { fingerprint: report.source.unwrap().fingerprint, filter: Filter::default(), digest: None });
    let report = run(&task).await;
    assert_eq!(report.outcome, Outcome::Good, "{report:?}");
    let files = Place::files(place.volume.path());
    assert_eq!(files["checkpoint.json"], text.as_bytes());
    assert!(files["dict_checkpoint.pkl"].starts_with(&[0x80, 2]));
}

#[tokio::test]
async fn odd_tasks_are_refused_and_stops_are_clean() {
    let place = Place::new();
    let task = place.task(TaskKind::Load).await;
    let other = Task { version: 2, ..task.clone() };
    assert_eq!(place.perform(&other).await.reason, Some(Reason::InvalidSpec));
    assert_eq!(place.perform(&Task { load: None, ..task.clone() }).await.reason, Some(Reason::InvalidSpec));
    let stopped = CancellationToken::new();
    stopped.cancel();
    let report = perform(&task, &place.mounts(), &ProgressSink::default(), stopped).await;
    assert_eq!((report.outcome, report.reason, exit_code(&report)), (Outcome::Failed, None, exit::RETRY));
}

/// What reads of a [`Fake`] bring: a file's index, a range, and how often that file was read before.
type Content = dyn Fn(usize, Range<u64>, usize) -> Result<Vec<u8>, StorageError> + Send + Sync;

/// A storage of any size whose bytes are made when they are read.
struct Fake {
    entries: Vec<Entry>,
    content: Box<Content>,
    reads: Mutex<Vec<(usize, Range<u64>)>>,
    active: Arc<AtomicUsize>,
    most: AtomicUsize,
    bytes: AtomicU64,
}

impl Fake {
    fn new(
        files: Vec<(String, u64)>,
        content: impl Fn(usize, Range<u64>, usize) -> Result<Vec<u8>, StorageError> + Send + Sync + 'static,
    ) -> Self {
        let entry = |(path, size)| Entry { path, size, version: "\"e\"".into(), checksum: None };
        let mut entries: Vec<_> = files.into_iter().map(entry).collect();
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        Self {
            entries,
            content: Box::new(content),
            reads: Mutex::default(),
            active: Arc::default(),
            most: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    fn task(&self, kind: TaskKind) -> Task {
        let fingerprint = Listing { entries: self.entries.clone() }.fingerprint();
        Task {
            version: VERSION,
            kind,
            source: Source::S3(crate::contract::S3Task::default()),
            validation: Validation::default(),
            volumes: vec![],
            load: Some(LoadTask { fingerprint, filter: Filter::default(), digest: None }),
        }
    }

    async fn load(&self, volume: &Path) -> Result<Report, Failure> {
        let task = self.task(TaskKind::Load);
        load::load(&task, task.load.as_ref().unwrap(), self, volume, &ProgressSink::default()).await
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
        "fake:".into()
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        future::ready(Ok(Listing { entries: self.entries.clone() })).boxed()
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
fn shards(count: usize, size: u64) -> Fake {
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
        Ok((at(range.start)..at(range.end)).map(|position| source.get(position).copied().unwrap_or(0)).collect())
    })
}

#[tokio::test]
async fn an_inspection_costs_the_same_whatever_the_sizes_are() {
    let mut costs = Vec::new();
    for size in [1 << 20, 1 << 40] {
        let fake = shards(200, size);
        let report = inspect::inspect(&fake.task(TaskKind::Inspect), &fake, &ProgressSink::default()).await.unwrap();
        assert_eq!(report.outcome, Outcome::Good, "{report:?}");
        assert_eq!(report.source.unwrap().files, 201);
        assert!(fake.most.load(Ordering::SeqCst) <= judging::READS);
        let reads = fake.reads.lock().unwrap();
        assert!(reads.iter().all(|(_, range)| range.end - range.start <= crate::format::MAX_READ));
        costs.push((reads.len(), fake.bytes.load(Ordering::SeqCst)));
    }
    assert_eq!(costs[0].0, costs[1].0);
    assert!(costs[1].0 <= 3 * 201 && costs[1].1 <= costs[0].1 + 201 * 1024, "{costs:?}");
}

#[tokio::test]
async fn a_load_that_cannot_fit_writes_nothing() {
    let volume = tempfile::tempdir().unwrap();
    let failure = shards(3, 1 << 50).load(volume.path()).await.unwrap_err();
    assert_eq!(failure.reason(), Reason::InsufficientSpace);
    assert!(failure.to_string().contains("3377699720531968 are needed"), "{failure}");
    assert_eq!(Place::files(volume.path()).len(), 0);
}

#[tokio::test]
async fn buffers_under_way_are_bounded() {
    let volume = tempfile::tempdir().unwrap();
    let fake = shards(2, 100 << 20);
    let report = fake.load(volume.path()).await.unwrap();
    assert_eq!(report.outcome, Outcome::Good);
    let most = fake.most.load(Ordering::SeqCst);
    assert!((2..=judging::READS.max(transfer::LARGE_LANE + 1)).contains(&most), "{most}");
    let parts = fake.reads.lock().unwrap().iter().filter(|(_, range)| range.end - range.start > 1 << 20).count();
    assert_eq!(parts, 14);
    for index in 1..=2 {
        let copied = fs::read(volume.path().join(format!("model-0000{index}-of-00002.safetensors"))).unwrap();
        let read = (fake.content)(index - 1, 0..100 << 20, 0).unwrap();
        assert!(copied == read, "{index}");
    }
}

#[tokio::test]
async fn bytes_that_came_wrong_are_fetched_again_once() {
    for (bad_times, good) in [(1, true), (9, false)] {
        let bytes = safetensors(5, 100);
        let size = bytes.len() as u64;
        let fake = Fake::new(vec![("model.safetensors".into(), size)], move |_, range, before| {
            let mut part = bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()].to_vec();
            if before < bad_times {
                part[0] ^= 0xff;
            }
            Ok(part)
        });
        let volume = tempfile::tempdir().unwrap();
        let result = fake.load(volume.path()).await;
        if good {
            assert_eq!(result.unwrap().transfer.unwrap().bytes_fetched, 2 * size);
        } else {
            assert_eq!(result.unwrap_err().reason(), Reason::Corrupt);
            assert!(!volume.path().join(".checkpoint/manifest.json").exists());
        }
    }
}

#[tokio::test]
async fn a_failed_read_leaves_what_is_complete() {
    let files = (0..40).map(|index| (format!("file-{index:02}"), 2 << 20)).collect();
    let broken = Fake::new(files, |index, range, before| {
        if index == 30 && before == 0 {
            return Err(StorageError::Unreachable("the network is down".into()));
        }
        Ok(vec![7; usize::try_from(range.end - range.start).unwrap()])
    });
    let volume = tempfile::tempdir().unwrap();
    assert_eq!(broken.load(volume.path()).await.unwrap_err().reason(), Reason::Unreachable);
    let transfer = broken.load(volume.path()).await.unwrap().transfer.unwrap();
    assert!(transfer.bytes_kept >= 20 * (2 << 20), "{transfer:?}");
    assert_eq!(transfer.bytes_kept + transfer.bytes_fetched, 40 * (2 << 20));
}

#[tokio::test]
async fn a_panic_is_a_failed_attempt() {
    struct Panicking;
    impl Storage for Panicking {
        fn uri(&self) -> String {
            String::new()
        }
        fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
            panic!("canary")
        }
        fn read<'a>(&'a self, _: &'a Entry, _: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>> {
            stream::empty().boxed()
        }
    }
    let fake = shards(1, 1000);
    let task = fake.task(TaskKind::Inspect);
    let progress = ProgressSink::default();
    let work = async { inspect::inspect(&task, &Panicking, &progress).await.unwrap() };
    let report = attended(TaskKind::Inspect, work, &CancellationToken::new()).await;
    assert_eq!((report.outcome, report.reason, exit_code(&report)), (Outcome::Failed, None, exit::RETRY));
    assert!(!report.message.contains("canary"));
}

#[test]
fn file_system_errors_have_their_reasons() {
    use rustix::io::Errno;
    for (errno, reason, part) in [
        (Errno::NOSPC, Reason::InsufficientSpace, "full"),
        (Errno::DQUOT, Reason::InsufficientSpace, "full"),
        (Errno::ROFS, Reason::LoadFailed, "read-only"),
        (Errno::ACCESS, Reason::LoadFailed, "fsGroup"),
        (Errno::LOOP, Reason::ClaimConflict, "not put there"),
        (Errno::IO, Reason::LoadFailed, "failed"),
    ] {
        let failure = Failure::of_volume(errno, "x");
        assert_eq!(failure.reason(), reason);
        assert!(failure.to_string().contains(part), "{failure}");
    }
}
