//! Weights in several files.

use super::*;
use crate::contract::Format;

const INDEX: &str = "model.safetensors.index.json";

fn name(number: u32) -> String {
    format!("model-{number:05}-of-00003.safetensors")
}

fn good() -> Folder {
    let map: Vec<(String, String)> = (1..=3).map(|number| (format!("t{number}"), name(number))).collect();
    let map: Vec<(&str, &str)> = map.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str())).collect();
    let mut folder = Folder::new([(INDEX, index(12, &map))]);
    for number in 1..=3 {
        folder = folder.with(&name(number), tensors(&[(&format!("t{number}"), 4)]));
    }
    folder
}

#[test]
fn a_good_one_is_counted() {
    let verdict = good().judge();
    assert_good(&verdict);
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    assert_eq!((verdict.contents.format, verdict.contents.tensors), (Some(Format::ShardedSafetensors), Some(3)));
}

#[test]
fn damage_names_the_shard() {
    let shard = &name(2);
    assert_bad(
        &good().without(shard).judge(),
        Reason::Incomplete,
        shard,
        "model.safetensors.index.json maps 1 tensor to it",
    );
    let cut = tensors(&[("t2", 4)]);
    assert_bad(&good().with(shard, &cut[..cut.len() - 1]).judge(), Reason::Corrupt, shard, "(1 too few)");
    let verdict = good().with(shard, tensors(&[("other", 4)])).judge();
    assert_bad(&verdict, Reason::Incomplete, shard, "lacks the tensor \"t2\"");
    let verdict = good().with(shard, tensors(&[("t2", 4), ("t1", 4)])).judge();
    assert_bad(&verdict, Reason::Corrupt, shard, "both have the tensor \"t1\"");
    let verdict = good().without(&name(1)).without(&name(3)).judge();
    assert_bad(&verdict, Reason::Incomplete, &name(1), "(and 1 more problem)");
}

#[test]
fn warnings_do_not_fail() {
    let verdict = good().with(INDEX, index(13, &[("t1", &name(1)), ("t2", &name(2)), ("t3", &name(3))])).judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("total_size 13, the shards have 12 bytes"), "{:?}", verdict.findings);
    let verdict = good().with(INDEX, index(8, &[("t1", &name(1)), ("t2", &name(2))])).judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("is not named by the index"), "{:?}", verdict.findings);
    let verdict = good().with("model.safetensors", tensors(&[("all", 1)])).judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("its shards are ignored"));
    assert_eq!(verdict.contents.tensors, Some(1));
}

#[test]
fn shards_without_an_index_beside_a_whole_file_are_ignored() {
    let verdict = good().without(INDEX).without(&name(2)).with("model.safetensors", tensors(&[("all", 1)])).judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("loaders take model.safetensors"), "{:?}", verdict.findings);
}

#[test]
fn a_shard_of_another_save_is_left_over() {
    let stray = "model-00001-of-00002.safetensors";
    assert_bad(
        &good().with(stray, tensors(&[("x", 1)])).judge(),
        Reason::Incomplete,
        stray,
        "left over from another save",
    );
}

#[test]
fn indexes_that_cannot_be_used() {
    let table: [(&[u8], &str); 9] = [
        (b"", "it is empty"),
        (b"{", "ends in the middle"),
        (b"[]", "not a JSON object"),
        (b"{}", "names no tensor"),
        (b"{\"weight_map\":[]}", "no object"),
        (b"{\"weight_map\":{\"a\":1}}", "no text"),
        (b"{\"weight_map\":{\"a\":\"../x\"}}", "no plain file name"),
        (b"{\"weight_map\":{\"a\":\"sub/x\"}}", "no plain file name"),
        (b"{\"weight_map\":{\"a\":\"x\",\"a\":\"y\"}}", "maps one tensor to both \"x\" and \"y\""),
    ];
    for (bytes, words) in table {
        assert_bad(&good().with(INDEX, bytes).judge(), Reason::Corrupt, INDEX, words);
    }
}

#[test]
fn numbers_are_checked_without_an_index() {
    let missing = &name(2);
    for depth in [Depth::Listing, Depth::Headers] {
        let folder = good().without(INDEX);
        let verdict = folder.judge_with(&allowing(depth), &[]);
        assert_bad(&verdict, Reason::Incomplete, INDEX, "loaders find the 3 shards");
        let verdict = folder.without(missing).judge_with(&allowing(depth), &[]);
        assert_bad(&verdict, Reason::Incomplete, missing, "2 of 3 shards are there");
    }
    let verdict = good().without(missing).judge_with(&allowing(Depth::Listing), &[]);
    assert_bad(&verdict, Reason::Incomplete, missing, "2 of 3");
    let from_zero = Folder::new([("x-00000-of-00002.ot", vec![1]), ("x-00001-of-00002.ot", vec![1])]);
    assert_good(&from_zero.judge());
    let huge = Folder::new([("x-00001-of-999999999.ot", vec![1])]);
    let verdict = huge.judge();
    assert_bad(&verdict, Reason::Incomplete, "x-000000002-of-999999999.ot", "1 of 999999999");
    assert!(verdict.findings.len() < 20);
}

#[test]
fn variants_and_folders_have_indexes_of_their_own() {
    let folder = Folder::new([
        (
            "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
            index(4, &[("t", "u-00001-of-00001.fp16.safetensors")]),
        ),
        ("unet/u-00001-of-00001.fp16.safetensors", tensors(&[("t", 4)])),
        ("vae/model.safetensors", tensors(&[("v", 1)])),
    ]);
    assert_good(&folder.judge());
    let shard = "unet/u-00001-of-00001.fp16.safetensors";
    assert_bad(&folder.without(shard).judge(), Reason::Incomplete, shard, "is missing");
}

#[test]
fn shards_of_pickles_must_be_there_too() {
    let folder = Folder::new([
        (
            "pytorch_model.bin.index.json",
            index(4, &[("a", "pytorch_model-00001-of-00002.bin"), ("b", "pytorch_model-00002-of-00002.bin")]),
        ),
        ("pytorch_model-00001-of-00002.bin", torch_file()),
    ]);
    assert_bad(&folder.judge(), Reason::Incomplete, "pytorch_model-00002-of-00002.bin", "is missing");
    assert_good(&folder.with("pytorch_model-00002-of-00002.bin", torch_file()).judge());
}
