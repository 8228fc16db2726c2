//! Checkpoints as a whole: data files, the latest one, steps, checksums.

use super::{
    super::tests::{Folder, allowing, assert_bad, assert_good},
    bundle::tests::{entry, index, text_tensor},
    *,
};

/// Two F32 tensors, a step and a text in two data files.
fn good() -> Folder {
    let first: Vec<u8> = (0..24).collect();
    let second = [vec![7; 8], 12u64.to_le_bytes().to_vec()].concat();
    let (text, text_sum) = text_tensor(&["objects", ""]);
    let third = text.len();
    let entries = [
        (&b"_CHECKPOINTABLE_OBJECT_GRAPH"[..], entry(7, &[2], 1, 16, third, text_sum)),
        (b"global_step", entry(9, &[], 1, 8, 8, table::tests::sum(&second[8..]))),
        (b"model/bias", entry(1, &[2], 1, 0, 8, table::tests::sum(&second[..8]))),
        (b"model/kernel", entry(1, &[2, 3], 0, 0, 24, table::tests::sum(&first))),
    ];
    Folder::new([
        ("ckpt-12.index", index(2, &entries)),
        ("ckpt-12.data-00000-of-00002", first),
        ("ckpt-12.data-00001-of-00002", [second, text].concat()),
        ("checkpoint", b"model_checkpoint_path: \"/train/ckpt-12\"\n".to_vec()),
    ])
}

fn bytes(folder: &Folder, path: &str) -> Vec<u8> {
    folder.0.iter().find(|(known, _)| known == path).unwrap().1.clone()
}

#[test]
fn facts_come_from_the_index() {
    for depth in [Depth::Headers, Depth::Content] {
        let verdict = good().judge_with(&allowing(depth), &[]);
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!(contents.format, Some(Format::TensorFlowCheckpoint));
        assert_eq!((contents.tensors, contents.parameters, contents.step), (Some(2), Some(8), Some(12)));
        assert_eq!(contents.dtypes, [("F32".to_owned(), 8)].into());
        assert_eq!(contents.framework.as_deref(), Some("tensorflow"));
    }
}

#[test]
fn files_belong_together() {
    for file in ["ckpt-12.index", "ckpt-12.data-00000-of-00002", "ckpt-12.data-00001-of-00002"] {
        for depth in [Depth::Listing, Depth::Headers] {
            let verdict = good().without(file).judge_with(&allowing(depth), &[]);
            assert_bad(&verdict, Reason::Incomplete, file, "is missing");
        }
        let bytes = bytes(&good(), file);
        for length in 0..bytes.len() {
            assert!(!good().with(file, &bytes[..length]).judge().is_good(), "{file} {length}");
        }
    }
    let longer = [bytes(&good(), "ckpt-12.data-00000-of-00002"), vec![0]].concat();
    let verdict = good().with("ckpt-12.data-00000-of-00002", longer).judge();
    assert_bad(&verdict, Reason::Corrupt, "ckpt-12.data-00000-of-00002", "they are of different saves");
    let verdict = good().with("ckpt-12.data-00000-of-00003", "x").judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("left from another save"), "{:?}", verdict.findings);
    let other = good().without("ckpt-12.index").with("ckpt-12.index", "an index of something else");
    assert_bad(&other.judge(), Reason::Corrupt, "ckpt-12.index", "damaged");
}

#[test]
fn the_latest_is_there() {
    let verdict = good().with("checkpoint", "model_checkpoint_path: \"ckpt-13\"").judge();
    assert_bad(&verdict, Reason::Incomplete, "ckpt-13.index", "names it as the latest checkpoint");
    assert_bad(
        &good().with("checkpoint", "model_checkpoint_path: \"ckpt").judge(),
        Reason::Corrupt,
        "checkpoint",
        "truncated",
    );
    assert_good(&good().with("checkpoint", "notes of a person").judge());
    for path in [r"C:\\train\\ckpt-12", "D:/train/ckpt-12", r"\\\\host\\train\\ckpt-12", "gs://bucket/train/ckpt-12"] {
        assert_good(&good().with("checkpoint", format!("model_checkpoint_path: \"{path}\"\n")).judge());
    }
}

#[test]
fn names_tell_unfinished_and_renamed_saves() {
    let whole = bytes(&good(), "ckpt-12.index");
    let verdict = good().with("ckpt-12_temp/part-00000-of-00001.index", &whole[..]).judge();
    assert_bad(&verdict, Reason::Incomplete, "ckpt-12_temp/part-00000", "did not finish");
    let renamed = Folder::new([("weights", whole.clone())]);
    assert_bad(&renamed.judge(), Reason::Incomplete, "weights", "under another name");
    // Other libraries have files of this name.
    let verdict = Folder::new([("vectors.index", b"IxF2 of another library, long enough".to_vec())]).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Generic));
}

#[test]
fn every_byte_of_a_data_file_has_a_checksum() {
    for file in ["ckpt-12.data-00000-of-00002", "ckpt-12.data-00001-of-00002"] {
        let whole = bytes(&good(), file);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            let folder = good().with(file, changed);
            assert_good(&folder.judge());
            let verdict = folder.judge_with(&allowing(Depth::Content), &[]);
            assert!(!verdict.is_good(), "{file} {at}");
            assert_bad(&verdict, Reason::Corrupt, file, "its tensor");
        }
    }
}

#[test]
fn checksums_of_long_tensors_are_read_in_pieces() {
    let data: Vec<u8> = (0..700_000u32).flat_map(u32::to_le_bytes).collect();
    let length = u64::try_from(data.len()).unwrap();
    let entries = [(&b"a"[..], entry(1, &[length / 4], 0, 0, data.len(), table::tests::sum(&data)))];
    let folder = |data: Vec<u8>| Folder::new([("a.index", index(1, &entries)), ("a.data-00000-of-00001", data)]);
    assert_good(&folder(data.clone()).judge_with(&allowing(Depth::Content), &[]));
    let mut changed = data;
    changed[2_000_000] ^= 1;
    let verdict = folder(changed).judge_with(&allowing(Depth::Content), &[]);
    assert_bad(&verdict, Reason::Corrupt, "a.data-00000-of-00001", "its tensor \"a\" has another checksum");
}

proptest::proptest! {
    #[test]
    fn changed_checkpoints_end(file in 0usize..4, changes in proptest::collection::vec((0usize..400, proptest::prelude::any::<u8>()), 1..6)) {
        let mut folder = good();
        let bytes = &mut folder.0[file].1;
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        folder.judge_with(&allowing(Depth::Content), &[]);
    }
}

/// An index of one tensor of 2 F32, and its data file.
pub(in crate::format) fn small() -> (Vec<u8>, Vec<u8>) {
    let data = vec![1; 8];
    (index(1, &[(&b"a"[..], entry(1, &[2], 0, 0, 8, table::tests::sum(&data)))]), data)
}
