//! Loads that find some of what they want: in the volume, or in a claim beside it.

use std::{collections::BTreeMap, fs, ops::Range, os::unix::fs::FileExt, path::Path};

use sha2::Digest;

use super::{
    Crash, Place, digest_of,
    engine::{MIB, SUMS, Sum, files, sample},
    fake::Fake,
};
use crate::{
    contract::{Transfer, manifest::Manifest},
    storage::{Checksum, Window},
    worker::transfer::hash::PART,
};

const CRC64: Sum = SUMS[0];
const CRC32C: Sum = SUMS[1];
const SHA256: Sum = SUMS[2];
const MD5: Sum = SUMS[3];

fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// Bytes that no other fill has, not even in one part.
fn filled(fill: u8, length: u64) -> Vec<u8> {
    let pattern: Vec<u8> = (0..=250).map(|byte: u8| byte ^ fill).collect();
    let mut bytes = pattern.repeat(at(length).div_ceil(pattern.len()));
    bytes.truncate(at(length));
    bytes
}

/// A source whose files have versions of their own.
fn source(uri: &str, contents: &[(&str, Vec<u8>)]) -> Fake {
    let mut fake = files(contents, |_, _, _, _| Ok(()));
    fake.uri = uri.into();
    for entry in &mut fake.entries {
        entry.version = format!("{uri}-{}", entry.path);
    }
    fake
}

/// Says something of each file, from its bytes.
fn with(mut fake: Fake, contents: &[(&str, Vec<u8>)], say: impl Fn(&mut crate::storage::Entry, &[u8])) -> Fake {
    for (path, bytes) in contents {
        say(fake.entries.iter_mut().find(|entry| entry.path == *path).unwrap(), bytes);
    }
    fake
}

async fn loaded(fake: &Fake, volume: &Path, sibling: Option<&Path>) -> Transfer {
    fake.load_beside(volume, sibling).await.unwrap().transfer.unwrap()
}

fn assert_holds(volume: &Path, contents: &[(&str, Vec<u8>)]) {
    let expected: BTreeMap<String, Vec<u8>> =
        contents.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
    assert!(Place::files(volume) == expected, "{:?}", Place::files(volume).keys());
    assert_eq!(fs::read_dir(volume.join(".checkpoint/staging")).unwrap().count(), 0);
    assert_eq!(manifest(volume).digest, digest_of(&expected));
}

fn manifest(volume: &Path) -> Manifest {
    serde_json::from_slice(&fs::read(volume.join(".checkpoint/manifest.json")).unwrap()).unwrap()
}

fn first() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a", filled(1, 3 * MIB)),
        ("b", filled(2, 2 * PART + 5)),
        ("c", filled(3, PART + 1)),
        ("small", b"small".to_vec()),
    ]
}

/// The next checkpoint: `b` is another, `c` has another name.
fn second() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a", filled(1, 3 * MIB)),
        ("b", filled(9, 2 * PART + 5)),
        ("deep/c", filled(3, PART + 1)),
        ("small", b"small".to_vec()),
    ]
}

fn bytes(contents: &[(&str, Vec<u8>)]) -> u64 {
    contents.iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// What the store says of files, and whether files of a sibling are known by it.
type Say = fn(&mut Fake, &[(&str, Vec<u8>)]);

fn each(fake: &mut Fake, contents: &[(&str, Vec<u8>)], say: impl Fn(&mut crate::storage::Entry, &[u8])) {
    let empty = Fake::new(vec![], |_, _, _| Ok(vec![]));
    *fake = with(std::mem::replace(fake, empty), contents, say);
}

const KNOWN: [(&str, Say, bool); 7] = [
    ("SHA-256", |fake, all| each(fake, all, |entry, bytes| entry.checksum = Some(SHA256(bytes))), true),
    ("MD5", |fake, all| each(fake, all, |entry, bytes| entry.content = Some(MD5(bytes))), true),
    (
        "tag of an upload in parts and CRC-64",
        |fake, all| {
            each(fake, all, |entry, bytes| {
                entry.version = format!("{}-7", MD5(bytes).to_string().trim_start_matches("md5:"));
                entry.checksum = Some(CRC64(bytes));
            });
        },
        true,
    ),
    (
        "tag of an upload in parts alone",
        |fake, all| {
            each(fake, all, |entry, bytes| {
                entry.version = format!("{}-7", MD5(bytes).to_string().trim_start_matches("md5:"));
            });
        },
        false,
    ),
    ("CRC-64 alone", |fake, all| each(fake, all, |entry, bytes| entry.checksum = Some(CRC64(bytes))), false),
    ("CRC-32C alone", |fake, all| each(fake, all, |entry, bytes| entry.checksum = Some(CRC32C(bytes))), false),
    ("nothing", |_, _| (), false),
];

#[tokio::test]
async fn the_next_checkpoint_fetches_what_changed() {
    for (name, say, known) in KNOWN {
        let (before, after) = (first(), second());
        let (mut one, mut two) = (source("fake:1", &before), source("fake:2", &after));
        say(&mut one, &before);
        say(&mut two, &after);
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        loaded(&one, old.path(), None).await;
        let transfer = loaded(&two, new.path(), Some(old.path())).await;
        let changed = if known { 2 * PART + 5 } else { bytes(&after) };
        assert_eq!((transfer.bytes_fetched, transfer.bytes_reused), (changed, bytes(&after) - changed), "{name}");
        assert_eq!(transfer.bytes_fetched, two.bytes.load(std::sync::atomic::Ordering::SeqCst), "{name}");
        assert_holds(new.path(), &after);
        assert_holds(old.path(), &before);
        // The volume is no worse than one that was fetched.
        let fetched = tempfile::tempdir().unwrap();
        let other = loaded(&two, fetched.path(), None).await;
        if name != "MD5" {
            assert_eq!(transfer.bytes_verified, other.bytes_verified, "{name}");
        }
        assert_eq!(manifest(fetched.path()).digest, manifest(new.path()).digest);
        let again = loaded(&two, new.path(), None).await;
        assert_eq!((again.bytes_kept, again.bytes_fetched), (bytes(&after), 0), "{name}");
    }
}

#[tokio::test]
async fn the_same_version_of_a_source_is_not_asked_for_again() {
    let before = first();
    let mut after = before.clone();
    after[1].1 = filled(9, 2 * PART + 5);
    let one = with(source("fake:1", &before), &before, |entry, bytes| entry.checksum = Some(CRC32C(bytes)));
    let mut two = with(source("fake:1", &after), &after, |entry, bytes| entry.checksum = Some(CRC32C(bytes)));
    two.entries[1].version = "another".into();
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    loaded(&one, old.path(), None).await;
    let transfer = loaded(&two, new.path(), Some(old.path())).await;
    assert_eq!(transfer.bytes_fetched, 2 * PART + 5);
    assert_eq!(transfer.bytes_verified, transfer.bytes, "what was compared when it was loaded counts");
    assert_holds(new.path(), &after);
}

type Damage = Box<dyn Fn(&Path)>;

#[tokio::test]
async fn a_donor_that_is_not_what_was_loaded_is_not_used() {
    let flip = |path: &Path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xff], 1234).unwrap();
    };
    let edit = |volume: &Path, change: fn(&mut Manifest)| {
        let mut manifest = manifest(volume);
        change(&mut manifest);
        fs::write(volume.join(".checkpoint/manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
    };
    let small = 5;
    let table: Vec<(&str, Damage, u64)> = vec![
        ("a flipped byte", Box::new(move |old| flip(&old.join("a"))), small),
        ("a shorter file", Box::new(|old| fs::write(old.join("a"), b"cut").unwrap()), small),
        ("no file", Box::new(|old| fs::remove_file(old.join("a")).unwrap()), small),
        (
            "a link",
            Box::new(|old| {
                fs::rename(old.join("a"), old.join("elsewhere")).unwrap();
                std::os::unix::fs::symlink("elsewhere", old.join("a")).unwrap();
            }),
            small,
        ),
        // Whoever may write to the claim may write its manifest, too: the bytes must have the sum that the source has now.
        (
            "bytes and a manifest that agree on something else",
            Box::new(move |old| {
                flip(&old.join("a"));
                let hash = blake3::hash(&fs::read(old.join("a")).unwrap()).to_hex().to_string();
                let mut manifest = manifest(old);
                manifest.files[0].blake3 = hash;
                fs::write(old.join(".checkpoint/manifest.json"), serde_json::to_vec(&manifest).unwrap()).unwrap();
            }),
            small,
        ),
        (
            "another size in the manifest",
            Box::new(move |old| edit(old, |manifest| manifest.files[0].size = 1 << 60)),
            small,
        ),
        (
            "a path that leads out",
            Box::new(move |old| edit(old, |manifest| manifest.files[0].path = "../a".into())),
            small,
        ),
        (
            "a hash that is none",
            Box::new(move |old| edit(old, |manifest| manifest.files[0].blake3 = "x".into())),
            small,
        ),
        ("another version of manifests", Box::new(move |old| edit(old, |manifest| manifest.version = 2)), 0),
        ("no manifest", Box::new(|old| fs::remove_dir_all(old.join(".checkpoint")).unwrap()), 0),
        ("not a manifest", Box::new(|old| fs::write(old.join(".checkpoint/manifest.json"), b"[").unwrap()), 0),
        ("no folder", Box::new(|old| fs::remove_dir_all(old).unwrap()), 0),
    ];
    for (name, damage, reused) in table {
        let all = vec![("a", filled(1, 3 * MIB)), ("b", b"small".to_vec())];
        let say = |entry: &mut crate::storage::Entry, bytes: &[u8]| entry.checksum = Some(SHA256(bytes));
        let (one, two) = (with(source("fake:1", &all), &all, say), with(source("fake:2", &all), &all, say));
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let old = old.path().join("claim");
        fs::create_dir(&old).unwrap();
        loaded(&one, &old, None).await;
        damage(&old);
        let transfer = loaded(&two, new.path(), Some(&old)).await;
        assert_eq!((transfer.bytes_reused, transfer.bytes_fetched), (reused, bytes(&all) - reused), "{name}");
        assert_holds(new.path(), &all);
    }
}

fn windows(bytes: &[u8], length: u64, sum: Sum) -> Vec<Window> {
    let window = |index: usize, part: &[u8]| {
        let start = index as u64 * length;
        Window { range: start..start + part.len() as u64, checksum: sum(part) }
    };
    bytes.chunks(at(length)).enumerate().map(|(index, part)| window(index, part)).collect()
}

/// What the file becomes, the length and kind of the store's sums, and the parts that are fetched.
type Case<'a> = (&'a [u8], u64, Sum, &'a [u64]);

#[tokio::test]
async fn a_changed_part_of_a_large_file_is_all_that_is_fetched() {
    let old_bytes = filled(1, 5 * PART - 7);
    let mut changed = old_bytes.clone();
    changed[at(2 * PART + 99)] ^= 1;
    let longer = [&old_bytes[..], &filled(7, PART)].concat();
    let table: [Case<'_>; 6] = [
        (&changed, PART / 2, SHA256, &[2]),
        (&changed, PART, SHA256, &[2]),
        // A window of three parts that holds the byte.
        (&changed, 3 * PART, SHA256, &[0, 1, 2]),
        (&old_bytes, PART / 2, SHA256, &[]),
        (&longer, PART / 2, SHA256, &[4, 5]),
        (&changed, PART / 2, CRC32C, &[0, 1, 2, 3, 4]),
    ];
    for (new_bytes, length, sum, fetched) in table {
        for beside in [true, false] {
            let (before, after) = ([("large", old_bytes.clone())], [("large", new_bytes.to_vec())]);
            let (one, mut two) = (source("fake:1", &before), source("fake:2", &after));
            two.windows.insert("large".into(), windows(new_bytes, length, sum));
            let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            loaded(&one, old.path(), None).await;
            let volume = if beside { new.path() } else { old.path() };
            let transfer = loaded(&two, volume, beside.then(|| old.path())).await;
            let mut reads: Vec<_> = two.reads.lock().unwrap().iter().map(|(_, range)| range.clone()).collect();
            reads.sort_by_key(|range| range.start);
            let size = new_bytes.len() as u64;
            let range = |part: &u64| part * PART..((part + 1) * PART).min(size);
            let fetched: Vec<Range<u64>> = fetched.iter().map(range).collect();
            assert_eq!(reads, fetched, "{length} {beside}");
            let missing: u64 = fetched.iter().map(|range| range.end - range.start).sum();
            assert_eq!((transfer.bytes_fetched, transfer.bytes_reused), (missing, transfer.bytes - missing));
            assert_eq!(transfer.bytes_verified, transfer.bytes);
            assert_holds(volume, &after);
        }
    }
}

#[tokio::test]
async fn what_the_volume_holds_serves_another_source() {
    let say = |entry: &mut crate::storage::Entry, bytes: &[u8]| entry.checksum = Some(SHA256(bytes));
    let before = vec![
        ("a", filled(1, 3 * MIB)),
        ("b", filled(2, 3 * MIB)),
        ("old/gone", filled(3, MIB)),
        ("x", filled(4, PART + 9)),
    ];
    // Two have each other's names, one has another name, one has two names.
    let after = vec![
        ("a", filled(2, 3 * MIB)),
        ("b", filled(1, 3 * MIB)),
        ("new/one", filled(4, PART + 9)),
        ("new/two", filled(4, PART + 9)),
    ];
    let (one, two) = (with(source("fake:1", &before), &before, say), with(source("fake:2", &after), &after, say));
    let volume = tempfile::tempdir().unwrap();
    loaded(&one, volume.path(), None).await;
    let transfer = loaded(&two, volume.path(), None).await;
    assert_eq!((transfer.bytes_reused, transfer.bytes_fetched), (bytes(&after), 0));
    assert_holds(volume.path(), &after);
    // And back, from what is there now.
    let back = loaded(&one, volume.path(), None).await;
    assert_eq!((back.bytes_reused, back.bytes_fetched), (bytes(&before) - MIB, MIB));
    assert_holds(volume.path(), &before);
    // What somebody changed is no donor, whatever its time says later.
    FileExt::write_all_at(&fs::File::options().write(true).open(volume.path().join("x")).unwrap(), b"!", 5).unwrap();
    let transfer = loaded(&two, volume.path(), None).await;
    assert_eq!(transfer.bytes_fetched, 2 * (PART + 9));
    assert_holds(volume.path(), &after);
}

#[tokio::test]
async fn a_crash_before_any_file_operation_of_a_load_that_takes_files() {
    let old_large = filled(5, PART + MIB);
    let mut new_large = old_large.clone();
    new_large[at(PART + 1)] ^= 1;
    let before = vec![
        ("large", old_large),
        ("old/a", filled(1, 2 * MIB)),
        ("old/gone", filled(3, MIB)),
        ("stays", filled(4, MIB)),
    ];
    let after = vec![
        ("large", new_large.clone()),
        ("new/a", filled(1, 2 * MIB)),
        ("new/b", filled(8, MIB)),
        ("stays", filled(4, MIB)),
    ];
    let beside = [("theirs", filled(8, MIB))];
    let say = |entry: &mut crate::storage::Entry, bytes: &[u8]| {
        entry.content = (entry.path != "large").then(|| MD5(bytes));
    };
    let sibling = tempfile::tempdir().unwrap();
    loaded(&with(source("fake:0", &beside), &beside, say), sibling.path(), None).await;
    for operation in 1.. {
        let volume = tempfile::tempdir().unwrap();
        loaded(&with(source("fake:1", &before), &before, say), volume.path(), None).await;
        let mut two = with(source("fake:2", &after), &after, say);
        two.windows.insert(
            "large".into(),
            windows(&new_large, PART, |part| Checksum::Sha256(sha2::Sha256::digest(part).into())),
        );
        Crash::plan(volume.path(), operation);
        let finished = two.load_beside(volume.path(), Some(sibling.path())).await.is_ok();
        // What has a name of its own is complete: it is a file of the old checkpoint or of the new one.
        for (path, found) in Place::files(volume.path()) {
            let known = before.iter().chain(&after).any(|(name, bytes)| *name == path && *bytes == found);
            assert!(known, "operation {operation}: {path}");
        }
        if volume.path().join(".checkpoint/manifest.json").exists() {
            let files = Place::files(volume.path());
            assert_eq!(
                manifest(volume.path()).digest,
                digest_of(&files),
                "operation {operation}: a manifest that lies"
            );
        }
        Crash::plan(volume.path(), i64::MAX);
        let transfer = loaded(&two, volume.path(), Some(sibling.path())).await;
        assert_holds(volume.path(), &after);
        assert_eq!(transfer.bytes_fetched + transfer.bytes_kept + transfer.bytes_reused, bytes(&after), "{operation}");
        assert!(transfer.bytes_fetched <= PART + MIB, "operation {operation}: {transfer:?}");
        if finished {
            assert!(operation > 20, "{operation}");
            assert_eq!(transfer.bytes_kept, bytes(&after));
            return;
        }
    }
}

#[tokio::test]
async fn old_manifests_still_say_where_to_look() {
    let all = vec![("a", sample(3 * MIB)), ("b", sample(7))];
    let one = source("fake:1", &all);
    let two = with(source("fake:2", &all), &all, |entry, bytes| entry.content = Some(MD5(bytes)));
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    loaded(&one, old.path(), None).await;
    let path = old.path().join(".checkpoint/manifest.json");
    let mut text: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for file in text["files"].as_array_mut().unwrap() {
        file.as_object_mut().unwrap().retain(|key, _| ["path", "size", "blake3"].contains(&key.as_str()));
    }
    fs::write(&path, text.to_string()).unwrap();
    let transfer = loaded(&two, new.path(), Some(old.path())).await;
    assert_eq!((transfer.bytes_reused, transfer.bytes_fetched), (bytes(&all), 0));
    assert_holds(new.path(), &all);
}
