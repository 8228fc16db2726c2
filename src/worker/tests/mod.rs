//! Whole tasks on folders. Storages that misbehave on purpose are below [`fake`].

mod engine;
mod fake;
mod place;
mod reuse;
mod split;

use std::{fs, ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use futures::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::*;

pub(super) use place::{Crash, sample};
use place::{Place, digest_of, safetensors};

use crate::{
    contract::{Depth, InlineTask, Reason, Source, Validation, digest::filter_hash, exit, filter::Filter},
    storage::{Entry, Listing, StorageError},
};

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
    task.load = Some(LoadTask::new(report.source.unwrap().fingerprint, Filter::default()));
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
    let fake = fake::shards(1, 1000);
    let task = fake.task(TaskKind::Inspect);
    let progress = ProgressSink::default();
    let storage: Arc<dyn Storage> = Arc::new(Panicking);
    let work = async { inspect::inspect(&task, &storage, &progress).await.unwrap() };
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
