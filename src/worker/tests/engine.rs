//! What a transfer costs, what it compares, and what it leaves for another attempt.

use std::{collections::BTreeSet, fs, sync::atomic::Ordering};

use sha2::Digest as _;

use super::{
    Place,
    fake::{Fake, shards},
    safetensors,
};
use crate::{
    contract::{Outcome, Reason, TaskKind},
    storage::{Checksum, StorageError},
    worker::{
        ProgressSink, inspect, judging,
        transfer::{self, hash::PART},
    },
};

#[tokio::test]
async fn an_inspection_costs_the_same_whatever_the_sizes_are() {
    let mut costs = Vec::new();
    for size in [1 << 20, 1 << 40] {
        let fake = shards(200, size);
        let report =
            inspect::inspect(&fake.task(TaskKind::Inspect), &fake.shared(), &ProgressSink::default()).await.unwrap();
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
    assert!((2..=32).contains(&most), "{most}");
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

pub(super) const MIB: u64 = 1 << 20;

pub(super) fn sample(length: u64) -> Vec<u8> {
    super::sample(usize::try_from(length).unwrap())
}

/// Files with these bytes; `damage` may change what is read, by file, offset and how often that was read before.
pub(super) fn files(
    files: &[(&str, Vec<u8>)],
    damage: impl Fn(usize, u64, usize, &mut Vec<u8>) -> Result<(), StorageError> + Send + Sync + 'static,
) -> Fake {
    let names = files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.len() as u64)).collect();
    let mut contents: Vec<_> = files.to_vec();
    contents.sort_by(|left, right| left.0.cmp(right.0));
    let contents: Vec<Vec<u8>> = contents.into_iter().map(|(_, bytes)| bytes).collect();
    Fake::new(names, move |file, range, before| {
        let at = |position: u64| usize::try_from(position).unwrap();
        let mut bytes = contents[file][at(range.start)..at(range.end)].to_vec();
        damage(file, range.start, before, &mut bytes).map(|()| bytes)
    })
}

pub(super) type Sum = fn(&[u8]) -> Checksum;

pub(super) const SUMS: [Sum; 4] = [
    |bytes| Checksum::Crc64Nvme(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)),
    |bytes| Checksum::Crc32C(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes).try_into().unwrap()),
    |bytes| Checksum::Sha256(sha2::Sha256::digest(bytes).into()),
    |bytes| Checksum::Md5(md5::Md5::digest(bytes).into()),
];

#[tokio::test]
async fn checksums_of_the_store_are_compared() {
    for (sum, length, in_sequence) in SUMS
        .iter()
        .flat_map(|sum| [(sum, 0, false), (sum, 5, false), (sum, 2 * PART + 5, false), (sum, PART + 5, true)])
    {
        let bytes = sample(length);
        for bad_times in [0, 1, 9] {
            if length == 0 && bad_times > 0 {
                continue;
            }
            let mut fake =
                files(&[("a.data", bytes.clone()), ("b", b"unverified".to_vec())], move |file, at, before, bytes| {
                    if file == 0 && at == 0 && before < bad_times {
                        bytes[3] ^= 4;
                    }
                    Ok(())
                });
            fake.in_sequence = in_sequence;
            fake.entries[0].checksum = Some(sum(&bytes));
            let volume = tempfile::tempdir().unwrap();
            let result = fake.load(volume.path()).await;
            if bad_times == 9 {
                let failure = result.unwrap_err();
                assert_eq!(failure.reason(), Reason::Corrupt);
                let expected = format!("at bytes 0-{length}");
                assert!(failure.to_string().contains(&expected), "{failure}");
                assert_eq!(Place::files(volume.path()).keys().collect::<Vec<_>>(), ["b"]);
                continue;
            }
            let transfer = result.unwrap().transfer.unwrap();
            assert_eq!(transfer.bytes_verified, length, "what has no checksum is not verified");
            assert_eq!(transfer.bytes_fetched, length * (1 + bad_times as u64) + 10);
            assert!(Place::files(volume.path())["a.data"] == bytes);
        }
    }
}

/// A file of six parts, of which those in `broken` fail at their first read.
fn interrupted(broken: &'static [u64], sum: Option<Sum>) -> (Fake, Vec<u8>) {
    let bytes = sample(6 * PART - 7);
    let mut fake = files(&[("large.data", bytes.clone())], |_, at, before, _| {
        let fails = before == 0 && broken.contains(&(at / PART));
        if fails { Err(StorageError::Unreachable("the network is down".into())) } else { Ok(()) }
    });
    fake.entries[0].checksum = sum.map(|sum| sum(&bytes));
    (fake, bytes)
}

#[tokio::test]
async fn parts_that_are_durable_are_not_fetched_again() {
    for sum in [None, Some(SUMS[0]), Some(SUMS[2])] {
        let (fake, bytes) = interrupted(&[5], sum);
        let volume = tempfile::tempdir().unwrap();
        assert_eq!(fake.load(volume.path()).await.unwrap_err().reason(), Reason::Unreachable);
        assert_eq!(Place::files(volume.path()).len(), 0, "nothing half-written is visible");
        let transfer = fake.load(volume.path()).await.unwrap().transfer.unwrap();
        assert!(transfer.bytes_kept > 0 && transfer.bytes_kept % PART == 0, "{transfer:?}");
        assert_eq!(transfer.bytes_kept + transfer.bytes_fetched, bytes.len() as u64);
        assert_eq!(transfer.bytes_verified, if sum.is_some() { bytes.len() as u64 } else { 0 });
        assert!(Place::files(volume.path())["large.data"] == bytes);
        assert_eq!(fs::read_dir(volume.path().join(".checkpoint/staging")).unwrap().count(), 0);
    }
}

/// Interrupts a load, does something to the volume or the source, and loads again: kept, fetched.
async fn after(change: impl Fn(&std::path::Path, &mut Fake)) -> (u64, u64) {
    let (mut fake, bytes) = interrupted(&[5], None);
    let volume = tempfile::tempdir().unwrap();
    fake.load(volume.path()).await.unwrap_err();
    let staging = volume.path().join(".checkpoint/staging");
    let staged = fs::read_dir(&staging).unwrap().next().unwrap().unwrap().path();
    change(&staged, &mut fake);
    fake.reads.lock().unwrap().push((0, 5 * PART..6 * PART));
    let transfer = fake.load(volume.path()).await.unwrap().transfer.unwrap();
    assert!(Place::files(volume.path())["large.data"] == bytes);
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    (transfer.bytes_kept, transfer.bytes_fetched)
}

#[tokio::test]
async fn what_an_attempt_left_counts_only_when_it_is_what_it_wrote() {
    let size = 6 * PART - 7;
    let (kept, fetched) = after(|_, _| ()).await;
    assert!(kept > 0 && kept + fetched == size);
    let damaged = after(|staged, _| fs::write(staged, vec![9; usize::try_from(6 * PART - 7).unwrap()]).unwrap()).await;
    assert_eq!(damaged, (0, size));
    assert_eq!(after(|staged, _| fs::write(staged, b"cut").unwrap()).await, (0, size));
    assert_eq!(after(|staged, _| fs::remove_file(staged).unwrap()).await, (0, size));
    assert_eq!(after(|_, fake| fake.entries[0].version = "\"other\"".into()).await, (0, size));
    assert_eq!(after(|_, fake| fake.entries[0].version = String::new()).await, (0, size));
}

#[tokio::test]
async fn the_longest_file_comes_first() {
    let names: Vec<(&str, Vec<u8>)> = vec![
        ("a", sample(5)),
        ("b", sample(3 * MIB)),
        ("c", sample(2 * MIB)),
        ("d", sample(PART + MIB)),
        ("e", sample(0)),
    ];
    let fake = files(&names, |_, _, _, _| Ok(()));
    let volume = tempfile::tempdir().unwrap();
    fake.load(volume.path()).await.unwrap();
    let reads = fake.reads.lock().unwrap();
    let first: Vec<usize> = reads.iter().take(3).map(|(file, _)| *file).collect();
    assert!(first.contains(&3) && !first.contains(&0), "{reads:?}");
    assert_eq!(reads.iter().map(|(file, _)| *file).collect::<BTreeSet<_>>().len(), 4, "an empty file needs no read");
}

#[tokio::test]
async fn hashing_compares_what_the_store_holds_too() {
    for sum in SUMS {
        let bytes = sample(3 * PART + 5);
        for wrong in [false, true] {
            let mut fake = files(&[("large.data", bytes.clone())], move |_, at, _, bytes| {
                let end = at + bytes.len() as u64;
                if wrong && end > 2 * PART + 1 {
                    let place = usize::try_from((2 * PART + 1).saturating_sub(at)).unwrap();
                    bytes[place] ^= 1;
                }
                Ok(())
            });
            fake.entries[0].checksum = Some(sum(&bytes));
            let hashed = transfer::hash_all(&fake.shared(), &fake.entries, &ProgressSink::default()).await;
            if wrong {
                assert_eq!(hashed.unwrap_err().reason(), Reason::Corrupt);
                continue;
            }
            assert_eq!(hashed.unwrap(), (vec![blake3::hash(&bytes)], bytes.len() as u64));
        }
    }
}
