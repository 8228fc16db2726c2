//! Folders that frameworks write.

use super::*;
use crate::contract::{Format, PickleTier};

fn text(value: &serde_json::Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn model() -> Folder {
    let config = json!({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
        "transformers_version": "5.1.0", "quantization_config": {"quant_method": "gptq"}});
    Folder::new([
        ("config.json", text(&config)),
        ("model.safetensors", tensors(&[("a", 4)])),
        ("tokenizer.json", b"{}".to_vec()),
        ("README.md", b"hello".to_vec()),
    ])
}

fn adapter() -> Folder {
    Folder::new([
        (
            "adapter_config.json",
            text(&json!({"peft_type": "LORA", "base_model_name_or_path": "meta/llama", "peft_version": "0.21.2"})),
        ),
        ("adapter_model.safetensors", tensors(&[("lora_A.weight", 4)])),
    ])
}

fn trainer() -> Folder {
    let state = r#"{"global_step": 500, "epoch": 3.0, "best_metric": NaN, "log_history": [
        {"loss": 1.0, "step": 1}, {"eval_loss": 1.5, "eval_old": 1, "step": 2}, {"eval_loss": 1.25, "eval_acc": NaN, "nested": {"eval_x": 1}}, {"train_loss": 2}]}"#;
    ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"]
        .iter()
        .fold(model().with("trainer_state.json", state), |folder, name| folder.with(name, torch_file()))
}

fn below(folder: &Folder, name: &str) -> Folder {
    Folder(folder.0.iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes.clone())).collect())
}

#[test]
fn a_hugging_face_model() {
    let verdict = model().judge();
    assert_good(&verdict);
    let contents = &verdict.contents;
    assert_eq!(contents.format, Some(Format::HuggingFace));
    assert_eq!(contents.architecture.as_deref(), Some("LlamaForCausalLM"));
    assert_eq!(contents.framework.as_deref(), Some("transformers 5.1.0"));
    assert_eq!(contents.quantization.as_deref(), Some("gptq"));
    assert_eq!(contents.versions, [("transformers".to_owned(), "5.1.0".to_owned())].into());
    for (settings, method) in [
        (r#""compression_config": {"quant_method": "compressed-tensors"}"#, Some("compressed-tensors")),
        (r#""quantization_config": {"load_in_4bit": true}"#, Some("bitsandbytes")),
        (r#""quantization_config": {}"#, None),
    ] {
        let verdict = model().with("config.json", format!(r#"{{"model_type": "x", {settings}}}"#)).judge();
        assert_eq!(verdict.contents.quantization.as_deref(), method);
    }
    assert_eq!(contents.pickle, Some(PickleTier::None));
    assert!(verdict.findings.is_empty());
}

#[test]
fn a_model_without_weights() {
    for depth in [Depth::Headers, Depth::Listing] {
        let verdict = model().without("model.safetensors").judge_with(&allowing(depth), &[]);
        assert_bad(&verdict, Reason::Incomplete, "model.safetensors", "the weights");
        assert_eq!(verdict.contents.format, Some(Format::HuggingFace));
    }
}

#[test]
fn damaged_configurations() {
    for bytes in [&b""[..], b"{\"a\"", b"[]", b"\x00\xff"] {
        assert_bad(&model().with("config.json", bytes).judge(), Reason::Corrupt, "config.json", "damaged");
        assert_bad(
            &adapter().with("adapter_config.json", bytes).judge(),
            Reason::Corrupt,
            "adapter_config.json",
            "damaged",
        );
        assert_bad(
            &trainer().with("trainer_state.json", bytes).judge(),
            Reason::Corrupt,
            "trainer_state.json",
            "damaged",
        );
    }
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let verdict = model().with("config.json", large).judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("2097160 bytes"), "{:?}", verdict.findings);
    assert_good(&model().with("config.json", r#"{"model_type": "x", "a": NaN, "b": -Infinity}"#).judge());
}

#[test]
fn an_adapter() {
    let verdict = adapter().judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::PeftAdapter));
    assert_eq!(verdict.contents.base_model.as_deref(), Some("meta/llama"));
    assert_eq!(verdict.contents.framework.as_deref(), Some("peft 0.21.2"));
    assert!(verdict.message.contains("needs meta/llama"), "{}", verdict.message);
    let verdict = adapter().without("adapter_model.safetensors").judge();
    assert_bad(&verdict, Reason::Incomplete, "adapter_model.safetensors", "without weights");
}

#[test]
fn a_trainer_folder() {
    let verdict = trainer().judge();
    assert_good(&verdict);
    let contents = &verdict.contents;
    assert_eq!(contents.format, Some(Format::TrainerCheckpoint));
    assert_eq!((contents.step, contents.epoch.as_deref()), (Some(500), Some("3")));
    assert_eq!(
        contents.metrics,
        [("eval_loss", "1.25"), ("eval_acc", "NaN")].map(|(key, value)| (key.into(), value.into())).into()
    );
    assert_eq!(contents.pickle, Some(PickleTier::None));
    assert_eq!(contents.architecture.as_deref(), Some("LlamaForCausalLM"));
}

#[test]
fn unfinished_trainer_folders() {
    assert_bad(
        &trainer().without("trainer_state.json").judge(),
        Reason::Incomplete,
        "trainer_state.json",
        "writes it last",
    );
    let sentinel = "checkpoint-is-incomplete.txt";
    assert_bad(&trainer().with(sentinel, "").judge(), Reason::Incomplete, sentinel, "interrupted");
    let verdict = trainer().without("model.safetensors").judge();
    assert_bad(&verdict, Reason::Incomplete, "model.safetensors", "weights");
    assert!(!verdict.message.contains("more problem"), "{}", verdict.message);
    let verdict = Folder::new([("trainer_state.json", b"{}".to_vec())]).judge();
    assert_bad(&verdict, Reason::Incomplete, "model.safetensors", "the weights are missing");
    assert_good(&below(&trainer(), "checkpoint-500").judge());
    assert_bad(
        &below(&trainer(), "checkpoint-400").judge(),
        Reason::Incomplete,
        "checkpoint-400/trainer_state.json",
        "step 500",
    );
    for lost in ["optimizer.pt", "scheduler.pt"] {
        assert_bad(&trainer().without(lost).judge(), Reason::Incomplete, lost, "would resume without this one");
    }
    let verdict = trainer().without("rng_state.pth").judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("other random numbers"), "{:?}", verdict.findings);
    let model_alone = ["optimizer.pt", "scheduler.pt", "rng_state.pth"];
    let verdict = model_alone.iter().fold(trainer(), |folder, name| folder.without(name)).judge();
    assert!(verdict.is_good() && verdict.findings.is_empty(), "{}", verdict.message);
    let ranks = trainer().without("rng_state.pth").with("rng_state_0.pth", torch_file());
    assert_good(&ranks.judge());
    let verdict = ranks.with("rng_state_2.pth", torch_file()).judge();
    assert_bad(&verdict, Reason::Incomplete, "rng_state_1.pth", "process 2 is there");
    let fsdp = trainer().without("model.safetensors").without("optimizer.pt").with("optimizer_0/__0_0.distcp", vec![1]);
    assert!(fsdp.judge().findings.iter().any(|finding| finding.message.contains("weights")));
    let ranks = trainer().with("rank0-of-3-optimizer.pt", torch_file()).with("rank2-of-3-optimizer.pt", torch_file());
    assert_bad(&ranks.judge(), Reason::Incomplete, "rank1-of-3-optimizer.pt", "2 of 3 ranks");
}

#[test]
fn one_folder_is_named_by_its_most_special_shape() {
    let both = Folder([adapter().0, trainer().without("model.safetensors").0].concat());
    let verdict = both.judge();
    assert_good(&verdict);
    assert_eq!((verdict.contents.format, verdict.contents.step), (Some(Format::PeftAdapter), Some(500)));
    assert_eq!(verdict.contents.framework.as_deref(), Some("peft 0.21.2"));
    let wrapped = below(&model(), "checkpoint").with(".metadata.json", "{}").judge();
    assert_eq!(wrapped.contents.format, Some(Format::HuggingFace));
}

#[test]
fn other_folders_are_generic() {
    let verdict = Folder::new([("a/data.raw", vec![1, 2, 3]), ("config.json", b"{\"lr\": 1}".to_vec())]).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::Generic));
    assert!(verdict.message.contains("only names and sizes were judged"), "{}", verdict.message);
    assert_eq!(verdict.contents.tensors, None);
    let verdict = Folder::new([("pytorch_model.bin", vec![])]).judge();
    assert_bad(&verdict, Reason::Corrupt, "pytorch_model.bin", "is empty");
}

#[test]
fn nothing_is_empty() {
    for folder in [
        Folder::default(),
        Folder::new([("README.md", vec![1]), (".metadata.json", vec![]), ("a/.gitattributes", vec![1])]),
    ] {
        let verdict = folder.judge();
        assert_eq!((verdict.reason, verdict.contents.format), (Reason::Empty, None));
    }
}

#[test]
fn pointers_are_not_files() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4665a5ea423c2713d436b5ee50593a9640e0018c1550b5a0002f74190d6caea8\nsize 12\n";
    for path in ["model.safetensors", "tokenizer.json", "config.json", "sub/other.gguf"] {
        let verdict = model().with(path, pointer).judge();
        assert_bad(&verdict, Reason::Incomplete, path, "Git LFS pointer");
        assert!(
            verdict.message.contains("git lfs pull") && !verdict.message.contains("more problem"),
            "{}",
            verdict.message
        );
    }
}

#[test]
fn listing_reads_nothing() {
    for folder in [model(), adapter(), trainer()] {
        let files = folder.files();
        let mut judge = Judge::new(files, &allowing(Depth::Listing), &[]);
        let Step::Done(verdict) = judge.step(Input::Start) else { panic!("it reads") };
        assert_good(&verdict);
        assert!(verdict.message.contains("validation.depth: Listing"));
        assert_ne!(verdict.contents.format, Some(Format::Generic));
    }
    let verdict = Folder::new([("model.safetensors", vec![1])]).judge_with(&allowing(Depth::Listing), &[]);
    assert_bad(&verdict, Reason::Corrupt, "model.safetensors", "1 bytes");
}

#[test]
fn inline_data_is_a_dict() {
    let files = Folder::new([("checkpoint.json", vec![1]), ("dict_checkpoint.pkl", vec![1])]).files();
    let mut judge = Judge::dict(files.clone(), &Validation::default(), &[]);
    let Step::Done(verdict) = judge.step(Input::Start) else { panic!("it reads") };
    assert_good(&verdict);
    assert_eq!((verdict.contents.format, verdict.contents.pickle), (Some(Format::Dict), Some(PickleTier::None)));
    let picky =
        Validation { formats: vec![Format::HuggingFace], required_files: vec!["x".into()], ..Validation::default() };
    let Step::Done(verdict) = Judge::dict(files, &picky, &[]).step(Input::Start) else { panic!("it reads") };
    assert_eq!((verdict.reason, verdict.findings.len()), (Reason::FormatNotAllowed, 2));
}

#[test]
fn a_file_that_changed_is_said_so() {
    let files = model().files();
    let mut judge = Judge::new(files, &Validation::default(), &[]);
    let Step::Read(mut reads) = judge.step(Input::Start) else { panic!("nothing to read") };
    while let Some(read) = reads.pop() {
        if let Step::Done(verdict) = judge.step(Input::Bytes { id: read.id, bytes: b"" }) {
            assert_bad(&verdict, Reason::SourceChanged, "README.md", "it changed");
            return;
        }
    }
    panic!("it never ends");
}
