//! A checkpoint that torch wrote, and what it looks like when something is missing.

use super::{
    super::tests::{Folder, assert_bad, assert_good, torch_file},
    Evidence, Metadata, Notes, Slice, Tree, check, spans,
};
use crate::{
    contract::{Depth, Format, PickleTier, Reason, Validation},
    format::{File, Verdict},
};

/// `torch.distributed.checkpoint.save` of torch 2.15 in one process: see e2e/fixtures/dcp/ORIGIN.
const METADATA: &[u8] = include_bytes!("../../../e2e/fixtures/dcp/.metadata");
const DATA: &[u8] = include_bytes!("../../../e2e/fixtures/dcp/__0_0.distcp");

fn good() -> Folder {
    Folder::new([(".metadata", METADATA.to_vec()), ("__0_0.distcp", DATA.to_vec())])
}

fn judge(folder: &Folder) -> Verdict {
    folder.judge_with(&Validation::default(), &[])
}

#[test]
fn what_torch_wrote_is_complete_and_safe() {
    let verdict = judge(&good());
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!(contents.format, Some(Format::TorchDistributed));
    assert_eq!(contents.pickle, Some(PickleTier::TensorsOnly));
    assert!(contents.tensors > Some(1) && contents.parameters > Some(10), "{contents:?}");
    let megatron = good().with("metadata.json", r#"{"sharded_backend": "torch_dist"}"#);
    assert_eq!(judge(&megatron).contents.format, Some(Format::MegatronDistributed));
    let below = Folder(good().0.into_iter().map(|(path, bytes)| (format!("optimizer_0/{path}"), bytes)).collect());
    assert_good(&judge(&below));
    let training = below.with("random_states_0.pkl", torch_file()).with("pytorch_model_fsdp_0/__0_0.distcp", DATA);
    let verdict = judge(&training.with("pytorch_model_fsdp_0/.metadata", METADATA));
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Accelerate));
}

#[test]
fn missing_and_damaged_files_are_named() {
    assert_bad(&judge(&good().without(".metadata")), Reason::Incomplete, ".metadata", "written last");
    assert_bad(&judge(&good().without("__0_0.distcp")), Reason::Incomplete, "__0_0.distcp", "is missing");
    for length in [1, DATA.len() / 2, DATA.len() - 1] {
        let verdict = judge(&good().with("__0_0.distcp", &DATA[..length]));
        assert_bad(&verdict, Reason::Corrupt, "__0_0.distcp", "truncated");
    }
    assert_bad(
        &judge(&good().with("__0_0.distcp", [DATA, b"x"].concat())),
        Reason::Corrupt,
        "__0_0.distcp",
        "another save",
    );
    for length in (1..METADATA.len()).step_by(97) {
        let verdict = judge(&good().with(".metadata", &METADATA[..length]));
        assert_bad(&verdict, Reason::Corrupt, ".metadata", "is damaged");
    }
    let mut item = DATA.to_vec();
    let at = item.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    item[at] = b'X';
    assert_bad(&judge(&good().with("__0_0.distcp", item)), Reason::Corrupt, "__0_0.distcp", "its item at byte");
}

#[test]
fn ranks_that_saved_alone_have_a_metadata_file_each() {
    let alone = Folder::new([("__0.metadata", METADATA.to_vec()), ("__0_0.distcp", DATA.to_vec())]);
    assert_good(&judge(&alone));
    let verdict = judge(&alone.with("__1_0.distcp", DATA));
    assert_bad(&verdict, Reason::Incomplete, "__1.metadata", "writes it last");
}

#[test]
fn leftovers_of_a_larger_world_are_named_and_not_trusted() {
    let folder = good().with("__1_0.distcp", DATA);
    let verdict = folder.judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("__1_0.distcp is left over"), "{:?}", verdict.findings);
    assert_bad(&judge(&folder), Reason::UnsafePickle, "__1_0.distcp", "its metadata does not name");
}

#[test]
fn ranks_without_items_leave_empty_files() {
    let verdict = judge(&good().with("__1_0.distcp", ""));
    assert_good(&verdict);
    assert_eq!(verdict.findings, []);
}

#[test]
fn what_lies_between_items_is_read() {
    let slice = |offset, length| Slice { item: String::new(), path: String::new(), offset, length };
    let slices = [slice(4, 4), slice(6, 9), slice(8, 0), slice(10, 2), slice(12, 90)];
    assert_eq!(spans(&slices.iter().collect::<Vec<_>>(), 20), [0..4, 4..8, 8..10, 10..12]);
}

#[test]
fn metadata_that_is_too_large_is_no_damage() {
    let large = [b"\x80\x02".to_vec(), vec![b']'; 5 << 20], b".".to_vec()].concat();
    let folder = Folder::new([(".metadata", large), ("__0_0.distcp", DATA.to_vec())]);
    let verdict = folder.judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.pickle, Some(PickleTier::Unchecked));
    assert!(verdict.findings[0].message.contains(".metadata was not read to its end"), "{:?}", verdict.findings);
    assert_bad(&judge(&folder), Reason::UnsafePickle, ".metadata", "was not checked");
}

/// Every folder is looked at for itself.
#[test]
fn many_folders_cost_what_their_files_cost() {
    let names = ["__0_0.distcp", ".metadata", "common.pt"];
    let file = |folder: u32, name: &str| File { path: format!("{folder}/{name}"), size: 1 };
    let files: Vec<File> = (0..2000).flat_map(|folder| names.map(|name| file(folder, name))).collect();
    let mut evidence = Evidence::new(Tree::new(files), Depth::Headers, false);
    for position in 0..6000 {
        evidence.put(position, Metadata::default());
    }
    evidence.tree.looked.set(0);
    check(&mut evidence, &mut Notes::default());
    assert!(evidence.tree.looked.get() < 300_000, "{}", evidence.tree.looked.get());
}
