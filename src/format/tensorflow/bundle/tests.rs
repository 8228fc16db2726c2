//! Indexes made by hand: what their entries say, and what contradicts itself.

use super::{
    super::table::tests::{number, sum, table},
    *,
};

/// A `BundleEntryProto`.
pub fn entry(kind: u8, shape: &[u64], shard: u8, offset: usize, size: usize, crc: u32) -> Vec<u8> {
    let mut dimensions = Vec::new();
    for size in shape {
        let size = number(usize::try_from(*size).unwrap());
        dimensions.extend([vec![0x12, u8::try_from(size.len() + 1).unwrap(), 8], size].concat());
    }
    let mut bytes = vec![8, kind, 0x12, u8::try_from(dimensions.len()).unwrap()];
    bytes.extend(dimensions);
    bytes.extend([vec![0x18, shard, 0x20], number(offset), vec![0x28], number(size), vec![0x35]].concat());
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// An index of so many data files.
pub fn index(shards: u8, entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let header = (&b""[..], vec![8, shards, 0x1A, 2, 8, 1]);
    table(&[&[header], entries].concat(), 3, 0)
}

/// A tensor of texts as it is stored, and its checksum.
pub fn text_tensor(texts: &[&str]) -> (Vec<u8>, u32) {
    let lengths: Vec<u8> = texts.iter().flat_map(|text| u32::try_from(text.len()).unwrap().to_le_bytes()).collect();
    let lengths_sum = sum(&lengths).to_le_bytes();
    let content: Vec<u8> = texts.iter().flat_map(|text| text.bytes()).collect();
    let stored: Vec<u8> = texts.iter().flat_map(|text| number(text.len())).collect();
    let all = sum(&[&lengths[..], &lengths_sum, &content].concat());
    ([&stored[..], &lengths_sum, &content].concat(), all)
}

fn problem(entries: &[(&[u8], Vec<u8>)]) -> String {
    match read(&index(2, entries)) {
        Err(Stop::Bad(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn contradictions_are_damage() {
    for (entries, words) in [
        (vec![(&b"a"[..], entry(1, &[2], 0, 0, 9, 0))], "has 9 bytes, its shape says 8"),
        (vec![(b"a", entry(1, &[2], 2, 0, 8, 0))], "lies in data file 2 of 2"),
        (vec![(b"a", entry(99, &[2], 0, 0, 8, 0))], "unknown type 99"),
        (vec![(b"a", entry(1, &[1 << 40, 1 << 40], 0, 0, 8, 0))], "impossible shape"),
        (vec![(b"a", entry(1, &[2], 0, 0, 8, 0)), (b"b", entry(1, &[2], 0, 4, 8, 0))], "share bytes"),
    ] {
        let found = problem(&entries);
        assert!(found.contains(words), "{words}: {found}");
    }
    let headless = table(&[(b"a", entry(1, &[2], 0, 0, 8, 0))], 3, 0);
    assert!(read(&headless).is_err());
    assert!(matches!(read(&index(0, &[])), Err(Stop::Bad(text)) if text.contains("0 data files")));
}

#[test]
fn slices_make_up_their_tensor() {
    let whole = |slices: usize| {
        let mut bytes = entry(1, &[4, 6], 0, 0, 0, 0);
        bytes.extend([0x3A, 0].repeat(slices));
        bytes
    };
    // As TensorFlow 2.21 writes the keys of two slices of `p`.
    let first = b"\0p\0\x01\x01\x02\x80\x82\x80\x86";
    let second = b"\0p\0\x01\x01\x02\x82\x82\x80\x86";
    let slice = |offset| entry(1, &[2, 6], 0, offset, 48, 0);
    let bundle = read(&index(1, &[(&first[..], slice(0)), (second, slice(48)), (b"p", whole(2))])).unwrap();
    assert_eq!((bundle.counts.tensors, bundle.counts.elements["F32"]), (1, 24));
    assert_eq!(bundle.extents.len(), 2);
    let missing = problem(&[(first, slice(0)), (b"p", whole(2))]);
    assert!(missing.contains("has 1 of 2 slices"), "{missing}");
}

#[test]
fn only_weights_are_counted() {
    for (name, expected) in [
        ("layer/kernel/.ATTRIBUTES/VARIABLE_VALUE", true),
        ("model/optimizer/_trainable_variables/0/.ATTRIBUTES/VARIABLE_VALUE", true),
        ("model/optimizer/_variables/2/.ATTRIBUTES/VARIABLE_VALUE", false),
        ("layer/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE", false),
        ("optimizer/learning_rate/.ATTRIBUTES/VARIABLE_VALUE", false),
        ("save_counter/.ATTRIBUTES/VARIABLE_VALUE", false),
        ("_CHECKPOINTABLE_OBJECT_GRAPH", false),
        ("dense/kernel/Adam_1", false),
        ("dense/kernel", true),
        ("global_step", false),
        ("beta1_power", false),
    ] {
        assert_eq!(is_weight(name), expected, "{name}");
    }
}

#[test]
fn the_best_number_of_steps_is_taken() {
    let step = |names: [&'static [u8]; 2]| {
        let entries: Vec<_> =
            names.iter().zip([0, 8]).map(|(name, offset)| (*name, entry(9, &[], 0, offset, 8, 0))).collect();
        read(&index(1, &entries)).unwrap().step
    };
    assert_eq!(
        step([b"optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE", b"step/.ATTRIBUTES/VARIABLE_VALUE"]),
        Some((0, 0, 8))
    );
    assert_eq!(step([b"save_counter/.ATTRIBUTES/VARIABLE_VALUE", b"step"]), Some((0, 8, 8)));
}

/// What keys share stands once in a block, so a small index may have long names in large numbers.
#[test]
fn names_that_an_index_repeats_are_shortened_and_weighed() {
    let keys: Vec<Vec<u8>> =
        (0..200).map(|number| [vec![b'k'; 4000], format!("{number:03}").into()].concat()).collect();
    let entries: Vec<_> = keys.iter().map(|key| (key.as_slice(), entry(1, &[0], 0, 0, 0, 0))).collect();
    let bundle = read(&index(1, &entries)).unwrap();
    assert_eq!((bundle.extents.len(), bundle.weight), (200, 600));
    assert!(bundle.extents.iter().all(|extent| extent.name.len() <= 256));
    let short = read(&index(1, &[(b"a", entry(1, &[2], 0, 0, 8, 0))])).unwrap();
    assert_eq!(short.weight, 1);
    let mut reader = Reader::default();
    reader.bundle.weight = Ledger::LIMIT - 1;
    assert!(reader.weigh(100).is_ok());
    assert!(matches!(reader.weigh(100), Err(Stop::TooLarge(_))));
}
