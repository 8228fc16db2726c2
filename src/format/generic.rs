//! Any other folder: names and sizes are all there is to judge. Pure, no I/O.

use super::{evidence::Evidence, findings::Notes, names, table::Family};
use crate::contract::{Format, Reason};

/// What no other format claims.
pub(super) const FAMILY: Family = Family {
    claims: |_| true,
    check,
    judged: "any other folder: names and sizes, and says so",
    ..Family::of(Format::Generic)
};

/// Of files that no format knows, only this much is certain.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    // What torch leaves for ranks without items is empty and whole.
    let others = ["safetensors", "distcp"];
    let is_weights =
        |path: &str| names::is_weights(path) && !others.iter().any(|extension| names::has_extension(path, extension));
    let weights = evidence.tree.iter().filter(|(_, file)| is_weights(&file.path));
    for (_, file) in weights.filter(|(_, file)| file.size == 0) {
        let message = format!("{} has the name of weights and is empty", names::shown(&file.path));
        notes.warn(Reason::Incomplete, Some(&file.path), message);
    }
}
