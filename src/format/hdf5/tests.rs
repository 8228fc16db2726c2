//! Files made by hand as h5py 3.16 lays them out, of the oldest and the newest superblock.

use super::{
    super::tests::{Folder, assert_bad, assert_good},
    *,
};
use crate::contract::Reason;

/// A message of an object header of version 1.
fn message(kind: u16, content: &[u8]) -> Vec<u8> {
    let size = content.len().next_multiple_of(8);
    let mut bytes = [&kind.to_le_bytes()[..], &u16::try_from(size).unwrap().to_le_bytes(), &[0; 4], content].concat();
    bytes.resize(8 + size, 0);
    bytes
}

fn object(messages: &[Vec<u8>]) -> Vec<u8> {
    let content = messages.concat();
    let count = u16::try_from(messages.len()).unwrap().to_le_bytes();
    [&[1, 0][..], &count, &[1, 0, 0, 0], &u32::try_from(content.len()).unwrap().to_le_bytes(), &[0; 4], &content]
        .concat()
}

fn shape(sizes: &[u64]) -> Vec<u8> {
    let sizes: Vec<u8> = sizes.iter().flat_map(|size| size.to_le_bytes()).collect();
    [&[1, u8::try_from(sizes.len() / 8).unwrap(), 0, 0, 0, 0, 0, 0], &sizes[..]].concat()
}

const F32: [u8; 20] = [0x11, 0x20, 0x1F, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0];
/// A text of variable length.
const TEXT: [u8; 16] = [0x19, 1, 0, 0, 16, 0, 0, 0, 0x10, 0, 0, 0, 1, 0, 0, 0];

/// Where parts of the file lie.
const ROOT: u64 = 96;
const TREE: u64 = 1024;
const HEAP: u64 = 1600;
const NODE: u64 = 1800;
const DATASET: u64 = 2200;
const DATA: u64 = 2600;
const TEXTS: u64 = 3000;

struct Parts {
    config: &'static str,
    size: u64,
    address: u64,
    name: &'static str,
    /// More messages of the dataset.
    more: Vec<Vec<u8>>,
}

impl Default for Parts {
    fn default() -> Self {
        Self { config: "", size: 12, address: DATA, name: "kernel", more: Vec::new() }
    }
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let at = usize::try_from(at).unwrap();
    assert!(file.len() <= at, "parts overlap at {at}");
    file.resize(at, 0);
    file.extend(bytes);
}

fn attribute(name: &str, number: u32, text: &str) -> Vec<u8> {
    let padded = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    };
    let named = [name.as_bytes(), &[0]].concat();
    let sizes = [named.len(), TEXT.len(), 8].map(|size| u16::try_from(size).unwrap().to_le_bytes()).concat();
    let value =
        [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], &TEXTS.to_le_bytes(), &number.to_le_bytes()].concat();
    message(12, &[vec![1, 0], sizes, padded(&named), TEXT.to_vec(), shape(&[]), value].concat())
}

/// A file of one dataset of 3 F32, with the configuration of a model when there is one.
fn file(parts: &Parts) -> Vec<u8> {
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let mut bytes = [SIGNATURE, &[0, 0, 0, 0, 0, 8, 8, 0, 4, 0, 16, 0, 0, 0, 0, 0]].concat();
    bytes.extend(numbers(&[0, u64::MAX, 0, u64::MAX, 0, ROOT, 0, 0, 0]));
    let mut root = vec![message(0x11, &numbers(&[TREE, HEAP])), attribute("keras_version", 1, "2.15.0")];
    if !parts.config.is_empty() {
        root.push(attribute("model_config", 2, parts.config));
    }
    put(&mut bytes, ROOT, &object(&root));
    put(&mut bytes, TREE, &[&b"TREE\0\0\x01\0"[..], &numbers(&[u64::MAX, u64::MAX, 0, NODE, 8])].concat());
    put(
        &mut bytes,
        HEAP,
        &[&b"HEAP\0\0\0\0"[..], &numbers(&[32, 1, HEAP + 32]), &[0; 8], parts.name.as_bytes(), &[0; 32]].concat(),
    );
    put(&mut bytes, NODE, &[&b"SNOD\x01\0\x01\0"[..], &numbers(&[8, DATASET, 0, 0, 0])].concat());
    let layout = [&[3, 1][..], &parts.address.to_le_bytes(), &parts.size.to_le_bytes()].concat();
    let dataset = [vec![message(1, &shape(&[3])), message(3, &F32), message(8, &layout)], parts.more.clone()].concat();
    put(&mut bytes, DATASET, &object(&dataset));
    put(&mut bytes, DATA, &[7; 12]);
    let mut heap = Vec::new();
    for (number, text) in [(1u16, "2.15.0"), (2, parts.config)] {
        let mut text = text.as_bytes().to_vec();
        let size = text.len() as u64;
        text.resize(text.len().next_multiple_of(8), 0);
        heap.extend([&number.to_le_bytes()[..], &[1, 0, 0, 0, 0, 0], &size.to_le_bytes(), &text].concat());
    }
    let size = 16 + heap.len() as u64;
    put(&mut bytes, TEXTS, &[&b"GCOL\x01\0\0\0"[..], &size.to_le_bytes(), &heap].concat());
    let end = bytes.len() as u64;
    bytes[40..48].copy_from_slice(&end.to_le_bytes());
    bytes
}

/// Weights as they lie in an archive of Keras.
pub(in crate::format) fn weights() -> Vec<u8> {
    file(&Parts::default())
}

fn judge(bytes: Vec<u8>) -> crate::format::Verdict {
    Folder::new([("model.h5", bytes)]).judge()
}

#[test]
fn datasets_and_attributes_are_facts() {
    let config = r#"{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {}}]}}"#;
    let verdict = judge(file(&Parts { config, ..Parts::default() }));
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!(contents.format, Some(Format::Hdf5));
    assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(3)));
    assert_eq!(contents.dtypes, [("F32".to_owned(), 3)].into());
    assert_eq!(contents.framework.as_deref(), Some("keras 2.15.0"));
    assert_eq!(contents.architecture.as_deref(), Some("Sequential"));
    let state = judge(file(&Parts { name: "optimizer", ..Parts::default() }));
    assert_eq!(state.contents.tensors, None);
}

#[test]
fn the_end_is_the_size() {
    let bytes = weights();
    for length in 0..bytes.len() {
        assert!(!judge(bytes[..length].to_vec()).is_good() || length == 0, "{length}");
    }
    assert_bad(&judge([&bytes[..], &[0]].concat()), Reason::Corrupt, "model.h5", "its superblock says");
    // The end counts from the beginning of the file, addresses from the superblock.
    let mut behind = [vec![0; 512], bytes].concat();
    let (base, end) = (512u64.to_le_bytes(), (behind.len() as u64).to_le_bytes());
    behind[512 + 24..512 + 32].copy_from_slice(&base);
    behind[512 + 40..512 + 48].copy_from_slice(&end);
    assert_good(&judge(behind));
    assert_bad(&judge(b"no signature".to_vec()), Reason::Corrupt, "model.h5", "no HDF5 signature");
}

#[test]
fn datasets_fit_into_the_file() {
    for (parts, words) in [
        (Parts { size: 8, ..Parts::default() }, "has 8 bytes, its shape says 12"),
        (Parts { address: 1 << 40, ..Parts::default() }, "ends at byte"),
    ] {
        assert_bad(&judge(file(&parts)), Reason::Corrupt, "model.h5", words);
    }
}

/// CVE-2025-9905: such layers run whatever `safe_mode` says.
#[test]
fn layers_of_keras_are_code() {
    let config =
        r#"{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {"name": "x"}}]}}"#;
    let verdict = judge(file(&Parts { config, ..Parts::default() }));
    assert_bad(&verdict, Reason::UnsafeCode, "model.h5", "a Lambda layer x");
    let verdict = judge(file(&Parts { config: "{", ..Parts::default() }));
    assert_bad(&verdict, Reason::UnsafeCode, "model.h5", "cannot be read");
}

#[test]
fn references_to_other_files_are_code() {
    let verdict = judge(file(&Parts { more: vec![message(7, &[1; 16])], ..Parts::default() }));
    assert_bad(&verdict, Reason::UnsafeCode, "model.h5", "in another file");
    let parts = [&[4, 3][..], &[0; 12]].concat();
    let verdict = judge(file(&Parts { more: vec![message(8, &parts)], ..Parts::default() }));
    assert_bad(&verdict, Reason::UnsafeCode, "model.h5", "a virtual dataset");
}

/// A harmless configuration may lie before the one that Keras reads.
#[test]
fn what_cannot_be_followed_is_no_configuration() {
    let dense = br#"model_config\0{"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense"}]}}"#;
    for (bytes, cut, expected) in [
        (&dense[..], false, true),
        (b"model_config", false, true),
        (b"weights", false, false),
        (b"weights", true, true),
    ] {
        let found = searched(bytes, cut);
        assert_eq!(
            found.is_some_and(|(on_load, what)| on_load && what.contains("not followed")),
            expected,
            "{bytes:?}"
        );
    }
}

/// A root of version 2 with compact links, as `libver="latest"` writes it.
#[test]
fn the_newest_form_is_read() {
    let link = |name: &str, address: u64| {
        let content = [&[1, 0, u8::try_from(name.len()).unwrap()], name.as_bytes(), &address.to_le_bytes()].concat();
        [&[6, u8::try_from(content.len()).unwrap(), 0, 0][..], &content].concat()
    };
    let messages = [link("kernel", 200), link("again", 200), link("loop", 48)].concat();
    let mut bytes = [SIGNATURE, &[3, 8, 8, 0], &[0; 8], &[0xFF; 8], &[0; 8], &48u64.to_le_bytes(), &[0; 4]].concat();
    let head = [b"OHDR\x02\0", &[u8::try_from(messages.len()).unwrap()][..], &messages].concat();
    put(&mut bytes, 48, &[&head[..], &checksum::lookup3(&head).to_le_bytes()].concat());
    let layout = [&[3, 1][..], &400u64.to_le_bytes(), &12u64.to_le_bytes()].concat();
    put(&mut bytes, 200, &object(&[message(1, &shape(&[3])), message(3, &F32), message(8, &layout)]));
    put(&mut bytes, 400, &[0; 12]);
    let end = (bytes.len() as u64).to_le_bytes();
    bytes[28..36].copy_from_slice(&end);
    let sum = checksum::lookup3(&bytes[..44]).to_le_bytes();
    bytes[44..48].copy_from_slice(&sum);
    let verdict = judge(bytes.clone());
    assert_good(&verdict);
    assert_eq!((verdict.contents.tensors, verdict.contents.parameters), (Some(1), Some(3)));
    for at in (9..48).chain(48..48 + head.len()) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(!judge(changed).is_good(), "byte {at}");
    }
}

proptest::proptest! {
    #[test]
    fn changed_files_end(changes in proptest::collection::vec((0usize..3200, proptest::prelude::any::<u8>()), 1..8)) {
        let mut bytes = file(&Parts { config: "{\"class_name\": \"Model\"}", ..Parts::default() });
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge(bytes);
    }
}
