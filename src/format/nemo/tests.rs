//! Checkpoints of NeMo 1 (packed, compressed, unpacked) and 2, whole and damaged.

use std::io::Write;

use super::{
    super::{
        File, Verdict,
        pickle::tests::Assembler,
        tar::tests::archive,
        tests::{Folder, allowing, assert_bad, assert_good, torch_file},
        zip::tests::archive as zip,
    },
    Evidence, Notes, Tree, check,
};
use crate::contract::{Component, Depth, Format, PickleTier, Reason, Validation};

const CONFIG: &str = "
target: nemo.collections.asr.models.ctc_bpe_models.EncDecCTCModelBPE
nemo_version: 1.23.0
tokenizer:
  dir: nemo:0123_tokenizer_dir
  model_path: nemo:0123_tokenizer.model
labels: [a, b]
";

/// A state dict with one tensor of six numbers.
fn weights() -> Vec<u8> {
    let pickle = Assembler::protocol(2)
        .raw(b"}")
        .text("weight")
        .global("torch._utils", "_rebuild_tensor_v2")
        .raw(b"((")
        .text("storage")
        .global("torch", "FloatStorage")
        .text("0")
        .text("cpu")
        .raw(b"K\x06tQK\x00K\x02K\x03\x86K\x03K\x01\x86\x89")
        .global("collections", "OrderedDict")
        .raw(b")RtRs")
        .stop();
    zip(&[("archive/data.pkl", &pickle), ("archive/data/0", &[1; 24]), ("archive/version", b"3\n")])
}

fn members() -> Folder {
    Folder::new([
        ("./model_config.yaml", CONFIG.as_bytes().to_vec()),
        ("./model_weights.ckpt", weights()),
        ("./0123_tokenizer.model", b"\x0a\x07".to_vec()),
        ("./0123_tokenizer_dir", b"x".to_vec()),
    ])
}

fn packed(members: &Folder) -> Vec<u8> {
    let members: Vec<(&str, &[u8])> = members.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    archive(&members)
}

fn nemo(members: &Folder) -> Folder {
    Folder::new([("model.nemo", packed(members))])
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn assert_first(verdict: &Verdict) {
    assert_good(verdict);
    let contents = &verdict.contents;
    assert_eq!((contents.format, contents.pickle), (Some(Format::Nemo), Some(PickleTier::TensorsOnly)));
    assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(6)));
    assert_eq!(contents.architecture.as_deref(), Some("EncDecCTCModelBPE"));
    assert_eq!(contents.framework.as_deref(), Some("nemo 1.23.0"));
}

#[test]
fn archives_of_nemo_1_are_judged_in_place() {
    let folder = nemo(&members());
    for depth in [Depth::Headers, Depth::Content] {
        let verdict = folder.judge_with(&Validation { depth, ..Validation::default() }, &[]);
        assert_first(&verdict);
        assert_eq!(verdict.contents.components, [Component { path: "model.nemo".into(), format: Format::Nemo }]);
    }
    // Compressed, as before NeMo 1.7, and unpacked.
    assert_first(&Folder::new([("model.nemo", gzip(&packed(&members())))]).judge());
    let unpacked = members().0.into_iter().map(|(path, bytes)| (path.replace("./", "nemo/"), bytes)).collect();
    assert_first(&Folder(unpacked).judge());
    // The configuration of a whole training has the model's below it.
    let config = "trainer: {}\nmodel: {target: a.b.Model, nemo_version: 1.0.0}\n";
    let verdict = nemo(&members().with("./model_config.yaml", config)).judge();
    assert_eq!(verdict.contents.architecture.as_deref(), Some("Model"));
}

#[test]
fn what_is_missing_or_damaged_in_an_archive_is_named() {
    let bad = |members: Folder, reason, words: &str| {
        assert_bad(&nemo(&members).judge(), reason, "model.nemo: ", words);
        let verdict = Folder::new([("model.nemo", gzip(&packed(&members)))]).judge();
        assert_bad(&verdict, reason, "model.nemo: ", words);
    };
    bad(members().without("./model_weights.ckpt"), Reason::Incomplete, "model_weights.ckpt is missing");
    bad(members().without("./0123_tokenizer.model"), Reason::Incomplete, "0123_tokenizer.model is missing");
    bad(members().with("./model_config.yaml", "a: ["), Reason::Corrupt, "model_config.yaml is damaged");
    bad(members().with("./model_config.yaml", "- a"), Reason::Corrupt, "no YAML mapping");
    let cut = &weights()[..100];
    bad(members().with("./model_weights.ckpt", cut), Reason::Corrupt, "model_weights.ckpt is damaged");
    let short = weights().windows(24).position(|window| window == [1; 24]).unwrap();
    let mut flipped = weights();
    flipped[short] ^= 1;
    let folder = nemo(&members().with("./model_weights.ckpt", flipped));
    assert_good(&folder.judge());
    let verdict = folder.judge_with(&allowing(Depth::Content), &[]);
    assert_bad(&verdict, Reason::Corrupt, "model.nemo: model_weights.ckpt", "another CRC-32");
    let marker = Assembler::protocol(2).global("os", "system").call("marker").stop();
    let verdict = nemo(&members().with("./tokenizer.model", marker)).judge_with(&Validation::default(), &[]);
    assert_bad(&verdict, Reason::UnsafePickle, "model.nemo", "holds tokenizer.model, which imports os.system");
    let whole = packed(&members());
    for length in (1..whole.len() - 1).step_by(61) {
        let verdict = Folder::new([("model.nemo", whole[..length].to_vec())]).judge_with(&Validation::default(), &[]);
        assert!(!verdict.is_good(), "{length}");
    }
}

#[test]
fn ranks_and_distributed_weights_in_an_archive_are_complete() {
    for (ranks, lost) in [
        (&["mp_rank_00", "mp_rank_01"][..], "mp_rank_00"),
        (
            &["tp_rank_00_pp_rank_000", "tp_rank_00_pp_rank_001", "tp_rank_01_pp_rank_000", "tp_rank_01_pp_rank_001"],
            "tp_rank_01_pp_rank_000",
        ),
    ] {
        let members = members().without("./model_weights.ckpt");
        let members = ranks
            .iter()
            .fold(members, |members, rank| members.with(&format!("./{rank}/model_weights.ckpt"), weights()));
        assert_good(&nemo(&members).judge());
        let path = format!("./{lost}/model_weights.ckpt");
        assert_bad(
            &nemo(&members.without(&path)).judge(),
            Reason::Incomplete,
            "model.nemo: ",
            &format!("{lost}/model_weights.ckpt is missing"),
        );
    }
    let metadata = include_bytes!("../../../e2e/fixtures/dcp/.metadata");
    let data = include_bytes!("../../../e2e/fixtures/dcp/__0_0.distcp");
    let members = members()
        .without("./model_weights.ckpt")
        .with("./model_weights/.metadata", *metadata)
        .with("./model_weights/metadata.json", r#"{"sharded_backend": "torch_dist"}"#)
        .with("./model_weights/common.pt", torch_file())
        .with("./model_weights/__0_0.distcp", *data);
    let verdict = nemo(&members).judge();
    assert_good(&verdict);
    assert!(verdict.contents.tensors > Some(1), "{:?}", verdict.contents);
    let lost = members.without("./model_weights/__0_0.distcp");
    assert_bad(&nemo(&lost).judge(), Reason::Incomplete, "model.nemo: ", "model_weights/__0_0.distcp is missing");
}

const IO: &str = r#"{"root": {"type": "ref", "key": "context_1"}, "objects": {
    "context_1": {"type": {"module": "fiddle._src.config", "name": "Config"}, "metadata": {"fn_or_cls": {"module": "MODULE", "name": "NAME"}}},
    "dtype_1": {"type": "pyref", "module": "torch", "name": "bfloat16"}}, "version": "0.0.1"}"#;

fn second(module: &str, name: &str) -> Folder {
    Folder::new([
        ("step=5/context/io.json", IO.replace("MODULE", module).replace("NAME", name).into_bytes()),
        (
            "step=5/context/model.yaml",
            b"_target_: nemo.collections.llm.gpt.model.llama.LlamaModel\n_partial_: false\n".to_vec(),
        ),
        ("step=5/context/nemo_tokenizer/tokenizer.json", b"{}".to_vec()),
        ("step=5/weights/.metadata", include_bytes!("../../../e2e/fixtures/dcp/.metadata").to_vec()),
        ("step=5/weights/__0_0.distcp", include_bytes!("../../../e2e/fixtures/dcp/__0_0.distcp").to_vec()),
        ("step=5/weights/metadata.json", br#"{"sharded_backend": "torch_dist"}"#.to_vec()),
        (
            "step=5/weights/common.pt",
            zip(&[("archive/data.pkl", b"\x80\x02}X\x0b\0\0\0global_stepK\x05s."), ("archive/version", b"3\n")]),
        ),
    ])
}

#[test]
fn folders_of_nemo_2_are_complete() {
    let folder = second("nemo.lightning.io.pl", "TrainerContext");
    let verdict = folder.judge_with(&Validation::default(), &[]);
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!((contents.format, contents.step), (Some(Format::Nemo), Some(5)));
    assert_eq!(contents.architecture.as_deref(), Some("LlamaModel"));
    assert_eq!(contents.framework.as_deref(), Some("nemo 2"));
    assert!(
        contents
            .components
            .contains(&Component { path: "step=5/weights/".into(), format: Format::MegatronDistributed })
    );
    assert_eq!(contents.code, ["step=5/context/io.json: names classes of NeMo and its libraries, which NeMo builds"]);
    for (lost, words) in [
        ("step=5/context/io.json", "NeMo builds the model from it"),
        ("step=5/weights/metadata.json", "written last"),
        ("step=5/weights/__0_0.distcp", "is missing"),
    ] {
        assert_bad(&folder.clone().without(lost).judge(), Reason::Incomplete, lost, words);
    }
    let no_weights = Folder(folder.0.iter().filter(|(path, _)| !path.contains("/weights/")).cloned().collect());
    assert_bad(&no_weights.judge(), Reason::Incomplete, "step=5/weights/", "without its weights");
    for text in ["{", "[]", ""] {
        let verdict = folder.clone().with("step=5/context/io.json", text).judge();
        assert_bad(&verdict, Reason::Corrupt, "step=5/context/io.json", "is damaged");
    }
}

#[test]
fn unfinished_checkpoints_are_marked() {
    let folder = second("nemo.lightning.io.pl", "TrainerContext");
    for (marker, expected) in
        [("step=5-unfinished", true), ("step=5/step=5-unfinished", true), ("other-unfinished", false)]
    {
        let verdict = folder.clone().with(marker, "").judge();
        if expected {
            assert_bad(&verdict, Reason::Incomplete, marker, "not written to its end");
        } else {
            assert_good(&verdict);
        }
    }
    let file = nemo(&members()).with("model-unfinished", "");
    assert_bad(&file.judge(), Reason::Incomplete, "model-unfinished", "not written to its end");
}

#[test]
fn what_the_context_calls_is_code() {
    let verdict = second("mine.models", "Mine").judge_with(&Validation::default(), &[]);
    assert_good(&verdict);
    assert!(verdict.contents.code[0].contains("mine.models.Mine"), "{:?}", verdict.contents.code);
    let verdict = second("os", "system").judge_with(&Validation::default(), &[]);
    assert_bad(&verdict, Reason::UnsafeCode, "step=5/context/io.json", "os.system");
}

#[test]
fn folders_of_that_name_are_not_all_of_nemo() {
    let verdict = Folder::new([("context/notes.txt", b"x".to_vec()), ("weights/model.pt", torch_file())]).judge();
    assert_eq!(verdict.contents.format, Some(Format::Torch));
    let verdict = Folder::new([("model_config.yaml", b"a: 1".to_vec()), ("model.pt", torch_file())]).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Torch));
}

/// Every folder is looked at for itself.
#[test]
fn many_folders_cost_what_their_files_cost() {
    let names = ["model_config.yaml", "model_weights/x", "context/io.json", "context/model.yaml", "weights/x"];
    let file = |folder: u32, name: &str| File { path: format!("{folder}/{name}"), size: 1 };
    let files: Vec<File> = (0..1000).flat_map(|folder| names.map(|name| file(folder, name))).collect();
    let mut evidence = Evidence::new(Tree::new(files), Depth::Headers, false);
    check(&mut evidence, &mut Notes::default());
    assert!(evidence.tree.looked.get() < 500_000, "{}", evidence.tree.looked.get());
}
