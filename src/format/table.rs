//! The one table of all formats. A new format is a file of its own and a line here. Pure, no I/O.

use super::{
    dict,
    evidence::{Evidence, Tree},
    findings::Notes,
    generic, hugging_face, peft,
    probe::Probe,
    safetensors, sharded, trainer,
};
use crate::contract::{Contents, Format};

/// What a format knows.
#[derive(Clone, Copy)]
pub(super) struct Family {
    /// Its name.
    pub format: Format,
    /// Whether the checkpoint is of this format (perhaps among others).
    pub claims: fn(&Evidence) -> bool,
    /// How it reads a file that is its own.
    pub probe: fn(&Tree, usize) -> Option<Box<dyn Probe>>,
    /// What must be true of the files together; called for every checkpoint.
    pub check: fn(&Evidence, &mut Notes),
    /// Facts that it knows; the first format that sets a fact wins.
    pub describe: fn(&Evidence, &mut Contents),
}

/// All formats; the first that claims a checkpoint names it. A folder often is several: an adapter within a Trainer's folder
/// within the shape of a Hugging Face model.
pub(super) const FORMATS: [Family; 7] = [
    dict::FAMILY,
    peft::FAMILY,
    trainer::FAMILY,
    hugging_face::FAMILY,
    sharded::FAMILY,
    safetensors::FAMILY,
    generic::FAMILY,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_there_once() {
        let mut formats: Vec<_> = FORMATS.iter().map(|family| family.format).collect();
        formats.sort();
        formats.dedup();
        assert_eq!(formats.len(), FORMATS.len());
        assert_eq!(FORMATS.last().map(|family| family.format), Some(Format::Generic));
    }
}
