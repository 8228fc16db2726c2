//! The table of what is fuzzed: one subject for each parser. A further one is a line here, one in `Cargo.toml`, and its tiny
//! program in `targets`. Pure, no I/O.

use super::{
    sealed::{self, Made},
    texts,
};

/// Something that is given arbitrary bytes.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Name of the fuzz target.
    pub target: &'static str,
    /// What becomes of the bytes.
    pub what: What,
    /// Folders of `e2e/fixtures` whose files are good to begin with.
    pub fixtures: &'static [&'static str],
    /// File of `e2e/fuzz/dictionaries`, without its extension; none when empty.
    pub dictionary: &'static str,
    /// The most that may be held at a time, in MiB.
    pub memory: usize,
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A file of a small checkpoint: its path and its neighbours choose the parser.
    File {
        /// Where the bytes lie.
        path: &'static str,
        /// The files around it.
        beside: &'static [Beside],
    },
    /// A whole folder.
    Folder,
    /// A checkpoint that is made around the bytes.
    Made(fn(&[u8]) -> Made),
    /// A text outside of checkpoints.
    Text(fn(&str)),
}

/// A neighbour: its path and its bytes.
pub type Beside = (&'static str, &'static [u8]);

/// What may be held for a small input that nothing unpacks.
const PLAIN: usize = 64;
/// What may be held for a small input that is unpacked: its content, as much again while that grows, and a dictionary.
const UNPACKED: usize = 320;

impl Subject {
    const fn of(target: &'static str, what: What) -> Self {
        Self { target, what, fixtures: &[], dictionary: "", memory: UNPACKED }
    }

    const fn like(mut self, fixtures: &'static [&'static str]) -> Self {
        self.fixtures = fixtures;
        self
    }

    /// Its name makes it a document or text, which is never unpacked.
    const fn plain(mut self) -> Self {
        self.memory = PLAIN;
        self
    }

    const fn words(mut self, dictionary: &'static str) -> Self {
        self.dictionary = dictionary;
        self
    }
}

const fn file(target: &'static str, path: &'static str) -> Subject {
    Subject::of(target, What::File { path, beside: &[] })
}

const fn among(target: &'static str, path: &'static str, beside: &'static [Beside]) -> Subject {
    Subject::of(target, What::File { path, beside })
}

const fn made(target: &'static str, make: fn(&[u8]) -> Made) -> Subject {
    Subject::of(target, What::Made(make))
}

const fn text(target: &'static str, check: fn(&str)) -> Subject {
    Subject::of(target, What::Text(check)).plain()
}

/// A safetensors file with one tensor `a` of four bytes.
const TENSOR: &[u8] =
    b"\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}   \x01\x02\x03\x04";
const WEIGHTS: &[Beside] = &[("model.safetensors", TENSOR)];
const SHARDS: &[Beside] = &[
    ("model-00001-of-00002.safetensors", TENSOR),
    ("model-00002-of-00002.safetensors", TENSOR),
    ("model.safetensors.index.json", b"{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}}"),
];
const ORBAX: &[Beside] = &[
    ("_CHECKPOINT_METADATA", b"{\"init_timestamp_nsecs\":1,\"commit_timestamp_nsecs\":2}"),
    ("_METADATA", b"{\"tree_metadata\":{}}"),
    ("manifest.ocdbt", b"\x0c\xdb\x3a\x2a\x0e\0\0\0\0\0\0\0\0\0"),
    ("d/0123456789abcdef0123456789abcdef", b"data"),
];
const DISTRIBUTED: &[Beside] = &[
    (".metadata", include_bytes!("../../../fixtures/dcp/.metadata")),
    ("__0_0.distcp", include_bytes!("../../../fixtures/dcp/__0_0.distcp")),
];
const VARIABLES: &[Beside] =
    &[("variables/variables.index", b"index"), ("variables/variables.data-00000-of-00001", b"data")];
const TENSORFLOW: &[Beside] = &[
    ("model.ckpt-1.index", b"index"),
    ("model.ckpt-1.data-00000-of-00001", b"0123456789abcdef"),
    ("checkpoint", b"model_checkpoint_path: \"model.ckpt-1\"\n"),
];
const DIFFUSERS: &[Beside] = &[
    ("unet/config.json", b"{\"_class_name\":\"UNet2DConditionModel\"}"),
    ("unet/diffusion_pytorch_model.safetensors", TENSOR),
];
const MLFLOW: &[Beside] =
    &[("model.pkl", b"\x80\x04}\x94."), ("conda.yaml", b"name: x\n"), ("requirements.txt", b"x\n")];
const TRAINER: &[Beside] = &[
    ("model.safetensors", TENSOR),
    ("config.json", b"{\"model_type\":\"llama\"}"),
    ("optimizer.pt", b"\x80\x04}\x94."),
    ("scheduler.pt", b"\x80\x04}\x94."),
    ("rng_state.pth", b"\x80\x04}\x94."),
    ("trainer_state.json", b"{\"global_step\":7,\"epoch\":1.0,\"log_history\":[]}"),
];
const DEEPSPEED: &[Beside] = &[
    ("latest", b"global_step1"),
    ("global_step1/mp_rank_00_model_states.pt", b"\x80\x04}\x94."),
    ("global_step1/zero_pp_rank_0_mp_rank_00_optim_states.pt", b"\x80\x04}\x94."),
];
const MEGATRON: &[Beside] = &[("iter_0000001/mp_rank_00/model_optim_rng.pt", b"\x80\x04}\x94.")];

/// All subjects.
pub const SUBJECTS: &[Subject] = &[
    file("safetensors", "model.safetensors").plain().like(&["safetensors", "dcp-safetensors"]).words("json"),
    among("safetensors_index", "model.safetensors.index.json", SHARDS).plain().like(&["hugging_face"]).words("json"),
    among("safetensors_shard", "model-00001-of-00002.safetensors", SHARDS)
        .plain()
        .like(&["peft", "safetensors"])
        .words("json"),
    among("json", "config.json", WEIGHTS).plain().like(&["hugging_face"]).words("json"),
    among("metadata_json", ".metadata.json", WEIGHTS).plain().words("json"),
    among("tokenizer", "tokenizer_config.json", TRAINER).plain().words("json"),
    among("trainer_state", "trainer_state.json", TRAINER).plain().like(&["trainer"]).words("json"),
    among("adapter", "adapter_config.json", &[("adapter_model.safetensors", TENSOR)])
        .plain()
        .like(&["peft"])
        .words("json"),
    among("diffusers", "model_index.json", DIFFUSERS).plain().like(&["diffusers-text"]).words("json"),
    among("sentence_transformers", "modules.json", WEIGHTS).plain().like(&["sentence_transformers"]).words("json"),
    among("ray_train", "checkpoint_manager_snapshot.json", WEIGHTS).plain().words("json"),
    among("deepspeed", "latest", DEEPSPEED).plain(),
    among("megatron", "latest_checkpointed_iteration.txt", MEGATRON).plain(),
    file("pickle", "state").like(&["sklearn", "accelerate"]).words("pickle"),
    file("pickle_by_name", "model.pkl").like(&["sklearn", "accelerate"]).words("pickle"),
    file("torch", "model.pt").like(&["torch", "lightning", "deepspeed"]).words("zip"),
    file("torch_legacy", "pytorch_model.bin").like(&["torch/legacy", "peft-torch_bin"]).words("pickle"),
    among("torch_distributed", ".metadata", DISTRIBUTED).like(&["dcp", "fsdp"]).words("pickle"),
    among("torch_distributed_data", "__0_0.distcp", DISTRIBUTED).like(&["dcp"]).words("zip"),
    file("zip", "data.zip").like(&["torch", "sklearn/skops"]).words("zip"),
    file("skops", "model.skops").like(&["sklearn/skops"]).words("zip"),
    file("keras", "model.keras").like(&["keras"]).words("zip"),
    file("hdf5", "model.h5").like(&["hdf5", "hdf5-latest"]),
    file("numpy", "a.npy").like(&["numpy"]).words("numpy"),
    file("numpy_archive", "a.npz").like(&["numpy"]).words("zip"),
    file("joblib", "model.joblib").like(&["joblib"]).words("pickle"),
    file("joblib_zlib", "model.joblib.z").like(&["joblib/zlib"]),
    file("joblib_gzip", "model.joblib.gz").like(&["joblib/gzip"]),
    file("joblib_bzip2", "model.joblib.bz2").like(&["joblib/bzip2"]),
    file("joblib_lzma", "model.joblib.lzma").like(&["joblib/lzma"]),
    file("joblib_xz", "model.joblib.xz").like(&["joblib/xz"]),
    file("joblib_zstd", "model.joblib.zst"),
    file("joblib_lz4", "model.joblib.lz4").like(&["joblib/lz4"]),
    file("gguf", "model.gguf").plain().like(&["gguf", "gguf-quantised", "gguf-split"]).words("gguf"),
    among("onnx", "model.onnx", &[("w.bin", b"0123456789abcdef")]).plain().like(&["onnx"]),
    among("saved_model", "saved_model.pb", VARIABLES).plain().like(&["tensorflow"]),
    among("tensorflow_index", "model.ckpt-1.index", TENSORFLOW).like(&["tensorflow"]),
    made("tensorflow_index_sealed", sealed::table),
    among("tensorflow_state", "checkpoint", TENSORFLOW),
    file("tflite", "model.tflite").like(&["tflite", "tensorflow"]),
    file("flax", "flax_model.msgpack").like(&["flax"]),
    file("catboost", "model.cbm").like(&["catboost"]),
    file("nemo", "model.nemo").like(&["nemo"]),
    file("tar", "model.tar").like(&["nemo"]),
    file("torch_tar", "model.pth").like(&["nemo"]),
    among("orbax_manifest", "manifest.ocdbt", ORBAX).like(&["orbax"]),
    made("orbax_manifest_sealed", sealed::manifest),
    made("orbax_node_sealed", sealed::node),
    among("orbax_tree", "_METADATA", ORBAX).plain().like(&["orbax"]).words("json"),
    among("orbax_state", "_CHECKPOINT_METADATA", ORBAX).plain().like(&["orbax"]).words("json"),
    file("xgboost", "model.json").plain().like(&["xgboost/json"]).words("json"),
    file("xgboost_ubjson", "model.ubj").like(&["xgboost/ubjson"]),
    file("lightgbm", "model.txt").like(&["lightgbm", "lightgbm-json"]),
    among("mlflow", "MLmodel", MLFLOW).plain().like(&["mlflow"]).words("yaml"),
    Subject::of("folder", What::Folder).words("zip"),
    text("report", texts::report).words("json"),
    text("progress", texts::progress).words("json"),
    text("listing", texts::listing).words("xml"),
    text("path", texts::path),
    text("glob", texts::glob),
    text("yaml", texts::yaml).like(&["mlflow"]).words("yaml"),
];
