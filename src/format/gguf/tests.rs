//! Models as llama.cpp writes them, and damaged ones.

use super::{
    super::tests::{Folder, assert_bad, assert_good},
    *,
};
use crate::format::Verdict;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn pair(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key)[..], &kind.to_le_bytes(), value].concat()
}

/// Name, size, type and offset of tensors of one dimension.
fn model(pairs: &[Vec<u8>], tensors: &[(&str, u64, u32, u64)], data: usize) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((pairs.len() as u64).to_le_bytes());
    bytes.extend(pairs.concat());
    for (name, size, kind, offset) in tensors {
        bytes.extend(text(name));
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn good() -> Vec<u8> {
    let tokens = [&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("a"), &text("b")].concat();
    model(
        &[
            pair("general.architecture", 8, &text("llama")),
            pair("general.file_type", 4, &15u32.to_le_bytes()),
            pair("tokenizer.ggml.tokens", 9, &tokens),
            pair("tokenizer.chat_template", 8, &text("{{ messages }}")),
        ],
        &[("a", 256, 12, 0), ("b", 3, 0, 160)],
        160 + 32,
    )
}

fn judge(bytes: Vec<u8>) -> Verdict {
    Folder::new([("model.gguf", bytes)]).judge()
}

#[test]
fn names_have_room_for_the_zero_behind_them() {
    let name = "x".repeat(64);
    assert_good(&judge(model(&[], &[(&name[1..], 1, 24, 0)], 32)));
    assert_bad(&judge(model(&[], &[(&name, 1, 24, 0)], 32)), Reason::Corrupt, "model.gguf", "has 64 bytes");
}

#[test]
fn numbers_of_parts_do_not_overflow() {
    let pairs = [pair("split.no", 10, &u64::MAX.to_le_bytes()), pair("split.count", 10, &2u64.to_le_bytes())];
    let verdict = Folder::new([("m-00001-of-00002.gguf", model(&pairs, &[], 0))]).judge();
    assert!(
        verdict.findings.iter().any(|finding| finding.message.contains("it is another part")),
        "{}",
        verdict.message
    );
}

#[test]
fn a_model_is_described() {
    let verdict = judge(good());
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!((contents.format, contents.tensors, contents.parameters), (Some(Format::Gguf), Some(2), Some(259)));
    assert_eq!((contents.architecture.as_deref(), contents.quantization.as_deref()), (Some("llama"), Some("Q4_K_M")));
    assert_eq!(contents.code, ["model.gguf: a chat template"]);
}

#[test]
fn every_truncation_is_noticed() {
    let good = good();
    // The writer pads the last tensor; all but that is needed.
    for length in 1..good.len() - 20 {
        assert!(!judge(good[..length].to_vec()).is_good(), "{length}");
    }
}

#[test]
fn damage_is_named() {
    let one = |tensor| model(&[], &[tensor], 1024);
    for (bytes, words) in [
        (one(("a", 255, 12, 0)), "impossible shape"),
        (one(("a", 1, 99, 0)), "unknown type 99"),
        (one(("a", 1, 0, 32)), "begins at byte 32"),
        (one(("a", 1000, 0, 0)), "truncated"),
        (model(&[], &[("a", 1, 0, 0), ("a", 1, 0, 32)], 64), "there twice"),
        (model(&[pair("k", 4, &[0; 4]), pair("k", 4, &[0; 4])], &[], 0), "there twice"),
        (model(&[pair("k", 13, &[0; 4])], &[], 0), "unknown type 13"),
        (model(&[pair("general.alignment", 4, &3u32.to_le_bytes())], &[], 0), "power of two"),
        (b"GGUF\x01\0\0\0".to_vec(), "version 1"),
        (b"GGUF\0\0\0\x03".to_vec(), "big-endian"),
        ([b"GGUF\x03\0\0\0".to_vec(), vec![0xFF; 16]].concat(), "cannot be"),
    ] {
        assert_bad(&judge(bytes), Reason::Corrupt, "model.gguf", words);
    }
}

#[test]
fn parts_belong_together() {
    let part = |number: u16, tensors: &[(&str, u64, u32, u64)]| {
        let pairs = [
            pair("split.no", 2, &number.to_le_bytes()),
            pair("split.count", 2, &2u16.to_le_bytes()),
            pair("split.tensors.count", 5, &2i32.to_le_bytes()),
        ];
        model(&pairs, tensors, 32)
    };
    let names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"];
    let folder = Folder::new([(names[0], part(0, &[("a", 1, 0, 0)])), (names[1], part(1, &[("b", 1, 0, 0)]))]);
    let verdict = folder.judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.tensors, Some(2));
    assert_bad(&folder.clone().without(names[1]).judge(), Reason::Incomplete, names[1], "is missing");
    let swapped = folder.clone().with(names[1], part(0, &[("b", 1, 0, 0)]));
    assert_bad(&swapped.judge(), Reason::Incomplete, names[1], "part 1 of 2");
    let fewer = folder.with(names[1], part(1, &[]));
    assert_bad(&fewer.judge(), Reason::Incomplete, names[0], "2 are announced");
}

proptest::proptest! {
    #[test]
    fn changed_models_end(changes in proptest::collection::vec((0usize..400, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = good();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge(bytes);
    }
}

#[test]
fn what_came_before_gguf_is_named() {
    for (magic, name) in OBSOLETE {
        let bytes = [magic, &[1, 0, 0, 0]].concat();
        let verdict = Folder::new([("ggml-model.bin", bytes)]).judge();
        assert_bad(&verdict, Reason::Corrupt, "ggml-model.bin", &format!("obsolete format {name}"));
    }
}
