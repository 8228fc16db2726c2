//! Trees as Flax writes them, and what damage does to them.

use super::super::tests::{Folder, assert_bad, assert_good};
use super::*;
use crate::{
    contract::{PickleTier, Reason},
    format::Verdict,
};

fn text(text: &str) -> Vec<u8> {
    [&[0xA0 | u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0x80 | u8::try_from(pairs.len()).unwrap()];
    for (key, value) in pairs {
        // Some keys are longer than the short form can tell.
        bytes.extend([0xD9, u8::try_from(key.len()).unwrap()]);
        bytes.extend(key.as_bytes());
        bytes.extend(value);
    }
    bytes
}

fn extension(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[0xC7, u8::try_from(content.len()).unwrap(), kind][..], content].concat()
}

fn array(shape: &[u8], dtype: &str, bytes: usize) -> Vec<u8> {
    let mut content = vec![0x93, 0x90 | u8::try_from(shape.len()).unwrap()];
    content.extend(shape);
    content.extend(text(dtype));
    content.extend([0xC4, u8::try_from(bytes).unwrap()]);
    content.extend(vec![7; bytes]);
    extension(1, &content)
}

fn chunked(shape: u8) -> Vec<u8> {
    let pieces = map(&[("0", array(&[2], "float32", 8)), ("1", array(&[1], "float32", 4))]);
    map(&[(CHUNKED, vec![0xC3]), ("shape", map(&[("0", vec![shape]), ("1", vec![1])])), ("chunks", pieces)])
}

fn good() -> Vec<u8> {
    map(&[
        ("step", vec![5]),
        ("params", map(&[("kernel", array(&[2, 3], "bfloat16", 12)), ("bias", array(&[3], "float32", 12))])),
        ("large", chunked(3)),
        ("scalar", extension(3, &array(&[], "float32", 4)[3..])),
        ("complex", extension(2, &[0x92, 1, 2])),
        ("list", vec![0x92, 0xC0, 0xC3]),
    ])
}

fn judge(bytes: &[u8]) -> Verdict {
    Folder::new([("flax_model.msgpack", bytes.to_vec())]).judge()
}

#[test]
fn trees_are_counted() {
    let verdict = judge(&good());
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!((contents.format, contents.tensors, contents.parameters), (Some(Format::Flax), Some(3), Some(12)));
    assert_eq!(contents.dtypes, [("BF16".to_owned(), 6), ("F32".to_owned(), 6)].into());
    assert_eq!((contents.framework.as_deref(), contents.step), (Some("flax"), Some(5)));
    let old = Folder::new([("checkpoint_5", good())]).judge();
    assert_eq!((old.is_good(), old.contents.format, old.contents.step), (true, Some(Format::Flax), Some(5)));
}

#[test]
fn damage_is_named() {
    let bytes = good();
    for length in 1..bytes.len() {
        assert_bad(&judge(&bytes[..length]), Reason::Corrupt, "flax_model.msgpack", "is damaged");
    }
    for (tree, words) in [
        ([&bytes[..], b"x"].concat(), "1 bytes follow"),
        (map(&[("a", array(&[3], "float32", 8))]), "\"a\" has 8 bytes"),
        (map(&[("a", chunked(4))]), "has 3 elements in its pieces, its shape has 4"),
        (map(&[("a", extension(1, &[1]))]), "no array of Flax"),
        (vec![0x81, 0xC0, 1], "is no text"),
        (vec![0xC1], "unknown type 0xc1"),
        ([0x91; 200].to_vec(), "nested more than 128 deep"),
    ] {
        assert_bad(&judge(&tree), Reason::Corrupt, "flax_model.msgpack", words);
    }
}

#[test]
fn other_message_pack_is_not_of_flax() {
    let other = map(&[("nd", vec![0xC3]), ("kind", text("O")), ("data", vec![0xC4, 0])]);
    let verdict = Folder::new([("state.msgpack", other)]).judge();
    assert_good(&verdict);
    assert_eq!(
        (verdict.contents.format, verdict.contents.pickle),
        (Some(Format::Generic), Some(PickleTier::Unchecked))
    );
}

#[test]
fn arrays_are_not_read() {
    struct Sparse(Vec<u8>);
    impl super::super::tests::Source for Sparse {
        fn read(&self, _: &crate::format::File, range: Range<u64>) -> Vec<u8> {
            let at = |at: u64| usize::try_from(at).unwrap();
            let (begin, end) = (at(range.start).min(self.0.len()), at(range.end).min(self.0.len()));
            let mut bytes = self.0[begin..end].to_vec();
            bytes.resize(at(range.end - range.start), 0);
            bytes
        }
    }
    // One array of a gigabyte at the end of the map: its header is all that is there.
    let length = 1u32 << 30;
    let mut content = vec![0x93, 0x91, 0xCE];
    content.extend(length.to_be_bytes());
    content.extend(text("uint8"));
    content.push(0xC6);
    content.extend(length.to_be_bytes());
    let mut bytes = vec![0x81];
    bytes.extend(text("a"));
    bytes.push(0xC9);
    bytes.extend((u32::try_from(content.len()).unwrap() + length).to_be_bytes());
    bytes.push(1);
    bytes.extend(content);
    let size = bytes.len() as u64 + u64::from(length);
    let files = [crate::format::File { path: "m.msgpack".to_owned(), size }];
    let judge = crate::format::Judge::new(files.to_vec(), &crate::contract::Validation::default(), &[]);
    let (verdict, cost) = super::super::tests::drive(judge, &files, &Sparse(bytes), 1);
    assert_good(&verdict);
    assert_eq!(verdict.contents.parameters, Some(1 << 30));
    assert!(cost.bytes < 64 << 10, "{cost:?}");
}

proptest::proptest! {
    #[test]
    fn changed_trees_end(changes in proptest::collection::vec((0usize..400, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = good();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge(&bytes);
    }
}
