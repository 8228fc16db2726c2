//! Several workers that load one volume together.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use sha2::Digest as _;

use super::{Crash, Place, fake::Fake, safetensors};
use crate::{
    contract::{Outcome, Reason, Report, TaskKind},
    storage::{Checksum, StorageError},
    worker::{
        ProgressSink,
        failure::Failure,
        load::{self, Loading},
        split::share::Share,
        transfer::hash::PART,
        volume::Workspace,
    },
};

const WORKERS: u32 = 3;
const PARTS: u64 = 9;

/// A checkpoint of one file of so many parts and some small ones.
fn contents(parts: u64) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![("large.safetensors".to_owned(), safetensors(3, usize::try_from(parts * PART - 99).unwrap()))];
    files.extend((0..20).map(|index| (format!("small/{index:02}.json"), vec![b' '; 1000 * index])));
    files.sort();
    files
}

/// That checkpoint; `fails` says which reads of the large file do, by part and how often it was read before.
fn fake(parts: u64, fails: impl Fn(u64, usize) -> bool + Send + Sync + 'static) -> Fake {
    let contents = contents(parts);
    let names = contents.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect();
    Fake::new(names, move |file, range, before| {
        let (name, bytes) = &contents[file];
        if name.starts_with("large") && range.end - range.start > 1 << 20 && fails(range.start / PART, before) {
            return Err(StorageError::Unreachable("the network is down".into()));
        }
        let at = |position: u64| usize::try_from(position).unwrap();
        Ok(bytes[at(range.start)..at(range.end)].to_vec())
    })
}

async fn worker(fake: &Fake, volume: &Path, number: u32) -> Result<Report, Failure> {
    let mut task = fake.task(TaskKind::Load);
    let load = task.load.as_mut().unwrap();
    (load.workers, load.worker, load.group) = (WORKERS, number, "group".into());
    fake.carry_out(&task, volume, None).await
}

fn fetched(reports: &[Report]) -> u64 {
    reports.iter().filter_map(|report| report.transfer.as_ref()).map(|transfer| transfer.bytes_fetched).sum()
}

fn assert_complete(volume: &Path, parts: u64) {
    let expected: BTreeMap<_, _> = contents(parts).into_iter().collect();
    assert!(Place::files(volume) == expected);
    let own: Vec<_> = fs::read_dir(volume.join(".checkpoint")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert!(own.iter().all(|name| !name.to_string_lossy().starts_with("journal.")), "{own:?}");
    assert_eq!(fs::read_dir(volume.join(".checkpoint/staging")).unwrap().count(), 0);
}

async fn digest_of_one(parts: u64) -> String {
    let volume = tempfile::tempdir().unwrap();
    fake(parts, |_, _| false).load(volume.path()).await.unwrap().digest.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_of_several_publishes_what_all_brought() {
    let digest = digest_of_one(PARTS).await;
    let volume = tempfile::tempdir().unwrap();
    let fake = fake(PARTS, |_, _| false);
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let (fake, volume) = (fake.clone(), volume.path().to_owned());
            tokio::spawn(async move { worker(&fake, &volume, number).await })
        })
        .collect();
    let mut reports = Vec::new();
    for worker in workers {
        reports.push(worker.await.unwrap().unwrap());
    }
    assert!(reports.iter().all(|report| report.outcome == Outcome::Good));
    let said: Vec<_> = reports.iter().filter_map(|report| report.digest.as_ref()).collect();
    assert!(!said.is_empty() && said.iter().all(|said| **said == digest), "{said:?}");
    let total: u64 = contents(PARTS).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(fetched(&reports), total, "nothing is fetched twice");
    assert_complete(volume.path(), PARTS);
}

#[tokio::test]
async fn a_worker_that_dies_is_begun_again_where_it_was_and_the_others_need_not_wait() {
    let volume = tempfile::tempdir().unwrap();
    let fake = fake(PARTS, |part, before| part == 5 && before == 0);
    for number in [0, 2] {
        let report = worker(&fake, volume.path(), number).await.unwrap();
        assert_eq!((report.outcome, report.digest, report.reason), (Outcome::Good, None, Some(Reason::Loading)));
    }
    assert!(
        Place::files(volume.path()).keys().all(|name| name.starts_with("small/")),
        "nothing half-written is visible"
    );
    let others = fake.bytes.load(Ordering::SeqCst);
    assert_eq!(worker(&fake, volume.path(), 1).await.unwrap_err().reason(), Reason::Unreachable);
    let report = worker(&fake, volume.path(), 1).await.unwrap();
    assert_eq!(report.digest, Some(digest_of_one(PARTS).await));
    let own = fake.bytes.load(Ordering::SeqCst) - others;
    assert!(own <= 2 * 3 * PART, "only its own share is read again: {own}");
    assert_complete(volume.path(), PARTS);
    // Whoever is started again after that finds everything there.
    let before = fake.bytes.load(Ordering::SeqCst);
    for number in 0..WORKERS {
        assert!(worker(&fake, volume.path(), number).await.unwrap().digest.is_some());
    }
    assert_eq!(fake.bytes.load(Ordering::SeqCst), before);
}

#[tokio::test]
async fn a_file_of_several_shares_is_compared_with_what_the_store_holds() {
    let large = &contents(PARTS)[0].1;
    for good in [true, false] {
        let volume = tempfile::tempdir().unwrap();
        let mut fake = fake(PARTS, |_, _| false);
        let mut sum: [u8; 32] = sha2::Sha256::digest(large).into();
        sum[0] ^= u8::from(!good);
        fake.entries[0].checksum = Some(Checksum::Sha256(sum));
        let mut last = None;
        for number in 0..WORKERS {
            last = Some(worker(&fake, volume.path(), number).await);
        }
        match last.unwrap() {
            Ok(report) => {
                let transfer = report.transfer.unwrap();
                assert!(good && transfer.bytes_verified == large.len() as u64, "{transfer:?}");
            }
            Err(failure) => {
                assert!(!good && failure.reason() == Reason::Corrupt, "{failure}");
                assert!(!Place::files(volume.path()).contains_key("large.safetensors"));
            }
        }
    }
}

#[tokio::test]
async fn whole_files_are_shared_out_where_ranges_cannot_be_read() {
    let volume = tempfile::tempdir().unwrap();
    let mut fake = fake(PARTS, |_, _| false);
    fake.in_sequence = true;
    let mut reports = Vec::new();
    for number in 0..WORKERS {
        reports.push(worker(&fake, volume.path(), number).await.unwrap());
    }
    assert_eq!(reports[2].digest, Some(digest_of_one(PARTS).await));
    assert_complete(volume.path(), PARTS);
}

#[tokio::test]
async fn any_worker_can_die_at_any_operation() {
    let digest = digest_of_one(4).await;
    for victim in [0, 2] {
        for operation in (1..).step_by(7) {
            let volume = tempfile::tempdir().unwrap();
            let fake = fake(4, |_, _| false);
            let died = Arc::new(AtomicUsize::new(0));
            for number in 0..WORKERS {
                if number == victim {
                    Crash::plan(volume.path(), operation);
                    if worker(&fake, volume.path(), number).await.is_err() {
                        died.fetch_add(1, Ordering::SeqCst);
                    }
                    Crash::plan(volume.path(), i64::MAX);
                    // The last that it does is to make the manifest's name durable.
                    if let Ok(manifest) = fs::read_to_string(volume.path().join(".checkpoint/manifest.json")) {
                        assert!(manifest.contains(&digest), "{victim} {operation}");
                        assert_complete(volume.path(), 4);
                    }
                }
                let report = worker(&fake, volume.path(), number).await.unwrap();
                if number == WORKERS - 1 {
                    assert_eq!(report.digest.as_ref(), Some(&digest), "{victim} {operation}");
                }
            }
            assert_complete(volume.path(), 4);
            if died.load(Ordering::SeqCst) == 0 {
                assert!(operation > 7);
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_temporary_name_that_was_given_up_is_not_believed_when_it_comes_again() {
    let volume = tempfile::tempdir().unwrap();
    let fake = fake(PARTS, |_, _| false);
    worker(&fake, volume.path(), 1).await.unwrap();
    // Meanwhile the user wanted something else, so that what was begun was of no use, and then changed their mind.
    let mut task = fake.task(TaskKind::Load);
    task.load.as_mut().unwrap().filter.exclude = vec!["large*".into()];
    fake.carry_out(&task, volume.path(), None).await.unwrap();
    assert_eq!(fs::read_dir(volume.path().join(".checkpoint/staging")).unwrap().count(), 0);
    let mut last = None;
    for number in [1, 0, 2] {
        last = Some(worker(&fake, volume.path(), number).await.unwrap());
    }
    assert_eq!(last.unwrap().digest, Some(digest_of_one(PARTS).await));
    assert_complete(volume.path(), PARTS);
}

#[tokio::test]
async fn the_whole_goes_by_what_lies_there_and_not_by_what_was_before() {
    let volume = tempfile::tempdir().unwrap();
    let mut fake = fake(PARTS, |_, _| false);
    fake.load(volume.path()).await.unwrap();
    fake.entries.iter_mut().for_each(|entry| entry.version = "\"next\"".into());
    let mut reports = Vec::new();
    for number in 0..WORKERS {
        reports.push(worker(&fake, volume.path(), number).await.unwrap());
    }
    let total: u64 = contents(PARTS).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(fetched(&reports), total, "nothing is fetched twice");
    assert_complete(volume.path(), PARTS);
}

#[tokio::test]
async fn whoever_finds_another_at_the_whole_has_brought_its_share() {
    let volume = tempfile::tempdir().unwrap();
    let fake = fake(PARTS, |_, _| false);
    for number in 0..WORKERS {
        worker(&fake, volume.path(), number).await.unwrap();
    }
    let other = Workspace::open(volume.path(), true).unwrap();
    let report = worker(&fake, volume.path(), 1).await.unwrap();
    assert_eq!((report.outcome, report.digest, report.reason), (Outcome::Good, None, Some(Reason::Loading)));
    drop(other);
    assert!(worker(&fake, volume.path(), 1).await.unwrap().digest.is_some());
}

#[test]
fn a_worker_that_is_there_twice_does_not_write_one_journal_twice() {
    let volume = tempfile::tempdir().unwrap();
    let open = || Workspace::open(volume.path(), false).unwrap();
    let (first, second) = (open(), open());
    let journal = first.journal("journal.1").unwrap();
    assert!(matches!(second.journal("journal.1"), Err(Failure::Busy(_))));
    assert!(second.journal("journal.2").is_ok());
    drop(journal);
    assert!(second.journal("journal.1").is_ok());
}

#[tokio::test]
async fn what_others_set_aside_for_a_file_of_several_shares_is_not_missing() {
    let volume = tempfile::tempdir().unwrap();
    let fake = fake(PARTS, |_, _| true);
    worker(&fake, volume.path(), 0).await.unwrap_err();
    let share = Share::of(&fake.entries, (1, WORKERS), "group", false);
    let task = fake.task(TaskKind::Load);
    let (load, storage, progress) = (task.load.as_ref().unwrap(), &fake.shared(), &ProgressSink::default());
    let loading = Loading { task: &task, load, storage, volume: volume.path(), sibling: None, progress };
    let prepared = load::prepare(loading, fake.entries.clone(), Some(share)).await;
    let reserved = load::reserved(&prepared.unwrap());
    assert!(reserved >= fake.entries[0].size, "{reserved}");
}

#[tokio::test]
async fn one_worker_loads_what_has_no_versions() {
    let volume = tempfile::tempdir().unwrap();
    let mut fake = fake(4, |_, _| false);
    fake.entries[3].version.clear();
    for number in [2, 0, 1] {
        let report = worker(&fake, volume.path(), number).await.unwrap();
        assert_eq!(report.digest.is_some(), number == 0);
    }
    let total: u64 = contents(4).iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(fake.bytes.load(Ordering::SeqCst), total, "nothing is fetched twice");
    assert_complete(volume.path(), 4);
}
