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
    #[schemars(length(max = 32))]
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

/// How dangerous the pickles of a checkpoint are, from harmless to unknown.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum PickleTier {
    /// There is none.
    #[default]
    None,
    /// There are files that may be or hold pickles, and they were not checked.
    Unchecked,
}

/// What a checkpoint is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Format {
    /// A folder that the Hugging Face Trainer wrote: weights and the state of the training.
    TrainerCheckpoint,
    /// A PEFT adapter (low-rank and others), which needs its base model.
    PeftAdapter,
    /// A Hugging Face model folder: `config.json` and weights.
    HuggingFace,
    /// Weights in several safetensors files with an index.
    ShardedSafetensors,
    /// One or more safetensors files.
    Safetensors,
    /// A JSON object in the manifest, the counterpart of Ray's dict checkpoint.
    Dict,
    /// Any other folder: sizes and digests are all that is checked.
    Generic,
}

impl Format {
    /// The name in `status.contents.format` and `spec.validation.formats`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TrainerCheckpoint => "TrainerCheckpoint",
            Self::PeftAdapter => "PeftAdapter",
            Self::HuggingFace => "HuggingFace",
            Self::ShardedSafetensors => "ShardedSafetensors",
            Self::Safetensors => "Safetensors",
            Self::Dict => "Dict",
            Self::Generic => "Generic",
        }
    }
}
