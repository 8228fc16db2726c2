//! Files whose names promise content, and that have none: an upload that never got further than its beginning. Pure, no I/O.

use super::{
    evidence::Evidence,
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
};
use crate::contract::{Format, Reason};

/// What it finds belongs to whatever format the folder has; it claims none.
pub(super) const READER: Family = Family { check, ..Family::of(Format::Generic) };

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    // Torch leaves an empty file for each rank that has no items in a distributed checkpoint.
    let may_be_empty = |path: &str| names::has_extension(path, "distcp") || !names::has_content(path);
    for (_, file) in evidence.tree.iter().filter(|(_, file)| file.size == 0 && !may_be_empty(&file.path)) {
        let message = format!("{} is empty, and no file of its kind can be; {UPLOAD_AGAIN}", names::shown(&file.path));
        notes.fatal(Reason::Corrupt, Some(&file.path), message);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, allowing, assert_bad, assert_good, tensors};
    use crate::contract::{Depth, Reason};

    #[test]
    fn an_empty_file_of_weights_is_damaged() {
        let good = || Folder::new([("model.safetensors", tensors(&[("a", 1)])), ("__init__.py", Vec::new())]);
        assert_good(&good().judge());
        for name in ["b.pt", "optimizer.bin", "m.onnx", "x.npy", "x/m.h5", "m.gguf", "m.msgpack", "m.cbm", "m.nemo"] {
            let verdict = good().with(name, "").judge();
            assert_bad(&verdict, Reason::Corrupt, name, "is empty");
        }
        assert_good(&good().with("notes.txt", "").with("done", "").judge_with(&allowing(Depth::Content), &[]));
    }
}
