//! The one table of all formats. A new format is a file of its own and a line here. Pure, no I/O.

use super::{
    accelerate, archive, code, deepspeed, dict, diffusers, distributed, empty,
    evidence::{Evidence, Tree},
    findings::Notes,
    flax, generic, gguf, hdf5, hugging_face, keras, megatron, mlflow, nemo, numpy, onnx, orbax, peft, pickle,
    probe::{Probe, Sniff},
    ray, run, safetensors, saved_model, sentence_transformers, settings, sharded, sums, tensorflow, tflite, torch,
    trainer, trees,
};
use crate::contract::{Contents, Format};

/// A probe of the file of this index.
pub(super) type FileProbe = (usize, Box<dyn Probe>);

/// What a format knows. All but the name and what is judged can be left out (`..Family::of(Format::X)`).
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Its name.
    pub format: Format,
    /// What is judged of it at depth `Headers`, for the README's table; none of a reader that names no format.
    pub judged: &'static str,
    /// Whether the checkpoint is of this format (perhaps among others).
    pub claims: fn(&Evidence) -> bool,
    /// Where things of this format lie: files, or folders with a slash at the end; they become components.
    pub places: fn(&Evidence) -> Vec<String>,
    /// How it reads a file that is its own by its place and name.
    pub probe: fn(&Tree, usize) -> Option<Box<dyn Probe>>,
    /// How it reads a file that is its own by its first bytes; asked when no format knows the name.
    pub sniff: Sniff,
    /// What is to be read after all files were looked at, because they ask for it.
    pub follow: fn(&Evidence) -> Vec<FileProbe>,
    /// What is to be read of what [`Self::follow`] and this found, again and again until there is nothing.
    pub deepen: fn(&Evidence) -> Vec<FileProbe>,
    /// What must be true of the files together; called for every checkpoint. It may note code and pickles.
    pub check: fn(&mut Evidence, &mut Notes),
    /// Facts that it knows; the first format that sets a fact wins.
    pub describe: fn(&Evidence, &mut Contents),
}

impl Family {
    /// A format that knows nothing but its name.
    pub const fn of(format: Format) -> Self {
        Self {
            format,
            judged: "",
            claims: |_| false,
            places: |_| Vec::new(),
            probe: |_, _| None,
            sniff: |_, _, _| None,
            follow: |_| Vec::new(),
            deepen: |_| Vec::new(),
            check: |_, _| {},
            describe: |_, _| {},
        }
    }
}

/// All formats; the first that claims a checkpoint names it. A folder often is several: an adapter within a Trainer's folder
/// within the shape of a Hugging Face model.
pub(super) const FORMATS: &[Family] = &[
    dict::FAMILY,
    run::FAMILY,
    mlflow::FAMILY,
    nemo::FAMILY,
    distributed::MEGATRON_FAMILY,
    distributed::FAMILY,
    orbax::FAMILY,
    deepspeed::FAMILY,
    megatron::FAMILY,
    diffusers::FAMILY,
    sentence_transformers::FAMILY,
    peft::FAMILY,
    trainer::FAMILY,
    accelerate::FAMILY,
    ray::RLLIB,
    ray::AIR,
    hugging_face::FAMILY,
    saved_model::FAMILY,
    tensorflow::FAMILY,
    sharded::FAMILY,
    safetensors::FAMILY,
    torch::LIGHTNING,
    torch::SCRIPT,
    torch::EXPORT,
    torch::FAMILY,
    gguf::FAMILY,
    onnx::FAMILY,
    tflite::FAMILY,
    keras::FAMILY,
    hdf5::FAMILY,
    flax::FAMILY,
    trees::XGBOOST,
    trees::LIGHTGBM,
    trees::CATBOOST,
    archive::SKOPS,
    numpy::FAMILY,
    pickle::JOBLIB,
    pickle::FAMILY,
    generic::FAMILY,
];

/// Readers that judge files of every format and name none.
pub(super) const READERS: &[Family] = &[code::READER, empty::READER, sums::READER, settings::READER];

/// All formats and readers, in the order in which they are asked.
pub(super) fn all() -> impl Iterator<Item = &'static Family> {
    FORMATS.iter().chain(READERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_there_once() {
        let mut formats: Vec<_> = FORMATS.iter().map(|family| family.format).collect();
        formats.sort();
        formats.dedup();
        assert_eq!(formats.len(), FORMATS.len());
        assert_eq!(formats, Format::ALL);
        assert_eq!(FORMATS.last().map(|family| family.format), Some(Format::Generic));
    }

    #[test]
    fn every_format_says_what_is_judged() {
        for family in FORMATS {
            let (name, judged) = (family.format.as_str(), family.judged);
            assert!(!judged.is_empty(), "{name}: set `judged` beside its name");
            assert!(!judged.contains(['|', '\n']), "{name}: {judged:?} does not fit into a cell of a table");
        }
    }
}
