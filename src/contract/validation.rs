//! What is asked of a checkpoint, and the names of formats and pickle tiers. Pure, no I/O.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What must be true of the checkpoint.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Validation {
    /// How much is read: `Listing` (names and sizes), `Headers` (a few small ranges of each file) or `Content` (everything).
    #[serde(default)]
    pub depth: Depth,
    /// The formats that are accepted; any when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub formats: Vec<Format>,
    /// Globs, each of which must match at least one file, such as `tokenizer.json`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    pub required_files: Vec<String>,
    /// The digest that the whole content must have, as `status.digest` shows it: `blake3:` and 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71), regex(pattern = r"^blake3:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
    /// Which pickles are accepted; a pickle can run any code when it is loaded.
    #[serde(default)]
    pub pickle: PicklePolicy,
    /// Which other code is accepted: none (`Forbid`), what loaders run only when told to (`OptIn`), or any (`Allow`).
    #[serde(default)]
    pub code: CodePolicy,
}

/// How much of the checkpoint an inspection reads.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Depth {
    /// Names and sizes only.
    Listing,
    /// Also a few small ranges of each file.
    #[default]
    Headers,
    /// Everything; sets `status.digest`.
    Content,
}

/// Which pickles are accepted, from none to any.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PicklePolicy {
    /// No pickle at all.
    Forbid,
    /// What torch's `weights_only` accepts.
    TensorsOnly,
    /// Also well-known harmless classes of training libraries.
    #[default]
    KnownSafe,
    /// Any pickle, checked or not.
    Allow,
}

impl PicklePolicy {
    /// The name in `spec.validation.pickle`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbid => "Forbid",
            Self::TensorsOnly => "TensorsOnly",
            Self::KnownSafe => "KnownSafe",
            Self::Allow => "Allow",
        }
    }
}

/// Which code that comes with a checkpoint is accepted, besides pickles.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum CodePolicy {
    /// None at all.
    Forbid,
    /// Code that loaders run only when they are told to: a Hugging Face folder's Python files, TorchScript, chat templates.
    #[default]
    OptIn,
    /// Also code that runs whenever the checkpoint is loaded, such as a Lambda layer of Keras.
    Allow,
}

/// How dangerous the pickles of a checkpoint are, from harmless to dangerous.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PickleTier {
    /// There is none, or it holds plain data only.
    #[default]
    None,
    /// Nothing but what torch's `weights_only` accepts.
    TensorsOnly,
    /// Also well-known harmless classes of training libraries.
    KnownSafe,
    /// There are files that may be or hold pickles, and they were not checked.
    Unchecked,
    /// Classes or functions that are not known to be harmless, or a stream that cannot be followed.
    Code,
    /// Functions that run commands, open connections or load further code, or a stream made to deceive.
    Dangerous,
}

impl PickleTier {
    /// The name in `status.contents.pickle`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::TensorsOnly => "TensorsOnly",
            Self::KnownSafe => "KnownSafe",
            Self::Unchecked => "Unchecked",
            Self::Code => "Code",
            Self::Dangerous => "Dangerous",
        }
    }
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What a checkpoint is.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
        pub enum Format { $($(#[$doc])* $name,)+ }

        impl Format {
            /// Every format there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The name in `status.contents.format` and `spec.validation.formats`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)+ }
            }
        }
    };
}

formats! {
    /// The folder of a training run or an experiment, with checkpoints in it: no checkpoint itself.
    RunDirectory,
    /// An MLflow model: `MLmodel` and what its flavours name.
    MlflowModel,
    /// A NeMo checkpoint: a `.nemo` archive of NeMo 1, or a folder of NeMo 2 with `weights/` and `context/`.
    Nemo,
    /// A distributed checkpoint of Megatron-LM or NeMo (`torch_dist`).
    MegatronDistributed,
    /// A torch distributed checkpoint (DCP): `.metadata` and `.distcp` files, also of FSDP.
    TorchDistributed,
    /// An Orbax checkpoint of JAX.
    Orbax,
    /// A DeepSpeed ZeRO checkpoint.
    DeepSpeed,
    /// A classic Megatron-LM checkpoint: a folder for each model-parallel rank.
    Megatron,
    /// A pipeline of diffusers: `model_index.json` and a folder for each component.
    Diffusers,
    /// A sentence-transformers model: `modules.json`.
    SentenceTransformers,
    /// A folder that the Hugging Face Trainer wrote: weights and the state of the training.
    TrainerCheckpoint,
    /// A PEFT adapter (low-rank and others), which needs its base model.
    PeftAdapter,
    /// A state that accelerate saved.
    Accelerate,
    /// A Hugging Face model folder: `config.json` and weights.
    HuggingFace,
    /// A TensorFlow SavedModel.
    SavedModel,
    /// A TensorFlow checkpoint: an index and data files.
    TensorFlowCheckpoint,
    /// A checkpoint of RLlib.
    Rllib,
    /// A checkpoint of Ray AIR (Ray 2.0 to 2.6).
    RayAir,
    /// Weights in several safetensors files with an index.
    ShardedSafetensors,
    /// One or more safetensors files.
    Safetensors,
    /// A checkpoint of Lightning.
    Lightning,
    /// A TorchScript program with its weights.
    TorchScript,
    /// A program of torch.export (`.pt2`) with its weights.
    TorchExport,
    /// What `torch.save` wrote.
    Torch,
    /// A GGUF model of llama.cpp, perhaps split.
    Gguf,
    /// An ONNX model, perhaps with external data.
    Onnx,
    /// A TensorFlow Lite model.
    TfLite,
    /// A Keras 3 model (`.keras`).
    Keras,
    /// HDF5 files, such as weights of Keras.
    Hdf5,
    /// Arrays that Flax wrote as MessagePack.
    Flax,
    /// An XGBoost model.
    XgBoost,
    /// A LightGBM model.
    LightGbm,
    /// A CatBoost model (`.cbm`, or its JSON).
    CatBoost,
    /// A skops file of scikit-learn.
    Skops,
    /// A joblib file, usually of scikit-learn.
    Joblib,
    /// NumPy arrays (`.npy`, `.npz`).
    NumPy,
    /// Python pickles.
    Pickle,
    /// A JSON object in the manifest, the counterpart of Ray's dict checkpoint.
    Dict,
    /// Any other folder: sizes and digests are all that is checked.
    Generic,
}
