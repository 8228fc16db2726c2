//! Judges a checkpoint from its listing and small ranges of its files. Pure, sans I/O: it asks for bytes and is given them.

mod accelerate;
mod archive;
mod code;
mod compression;
mod counts;
mod deepspeed;
mod dict;
mod diffusers;
mod distributed;
mod document;
mod empty;
mod evidence;
mod findings;
mod flatbuffer;
mod flax;
mod generic;
mod gguf;
mod hdf5;
mod hugging_face;
mod json;
mod judge;
mod keras;
mod literal;
mod magic;
mod megatron;
mod metadata;
mod mlflow;
mod msgpack;
mod names;
mod nemo;
mod numpy;
mod onnx;
mod orbax;
mod peft;
mod pickle;
pub mod pickle_encoder;
mod policy;
mod probe;
mod protobuf;
mod ray;
mod run;
mod safetensors;
mod saved_model;
mod sentence_transformers;
mod settings;
mod sharded;
mod sums;
mod table;
mod tar;
mod tensorflow;
#[cfg(test)]
mod tests;
mod text;
mod text_proto;
mod tflite;
mod torch;
mod trainer;
mod trees;
mod verdict;
mod window;
mod zip;

use std::ops::Range;

pub use judge::Judge;

use crate::contract::{Contents, Finding, Format, Reason};

/// Every format with what is judged of it at depth `Headers`, as Markdown, the most special first: the first that a checkpoint
/// is names it.
pub fn formats() -> impl Iterator<Item = (Format, &'static str)> {
    table::FORMATS.iter().map(|family| (family.format, family.judged))
}

/// A file of the checkpoint, as listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct File {
    /// Path below the checkpoint's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

/// Names a read among those that were asked for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReadId(pub usize);

/// A range of a file that the judge needs. It lies within the file and is at most [`MAX_READ`] bytes long.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// Names the read when it is answered.
    pub id: ReadId,
    /// Index into the files that the judge was made with.
    pub file: usize,
    /// Bytes of that file.
    pub range: Range<u64>,
}

/// The longest range that a judge asks for at once, in bytes.
pub const MAX_READ: u64 = 256 << 10;

/// What the judge is told.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Begin.
    Start,
    /// The bytes of a range that was asked for. Answers may come in any order.
    Bytes {
        /// Which range.
        id: ReadId,
        /// Exactly its bytes.
        bytes: &'a [u8],
    },
}

/// What the judge says.
#[derive(Clone, Debug)]
pub enum Step {
    /// Further ranges are needed; none while earlier ones are still to be answered.
    Read(Vec<Read>),
    /// All that was needed is there.
    Done(Box<Verdict>),
}

/// What the checkpoint is, and whether it is what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `Complete` when it is good, else the reason why not.
    pub reason: Reason,
    /// What is the matter, naming the file, and what to do; a summary when it is good.
    pub message: String,
    /// Facts.
    pub contents: Contents,
    /// The object in `.metadata.json`; none when there is no such file or no such object in it.
    pub metadata: Option<serde_json::Value>,
    /// All that was noticed.
    pub findings: Vec<Finding>,
}

impl Verdict {
    /// Whether the checkpoint is what was asked for.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.reason == Reason::Complete
    }
}
