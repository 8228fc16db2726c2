//! Orbax checkpoints of JAX: commit marks, unfinished saves, OCDBT manifests (orbax-checkpoint 0.12, OCDBT storage format). No I/O.

use super::{
    document,
    evidence::{Document, Evidence},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    probe::{Probe, Problem, note_problem},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};

/// The state of the save: when it began, when it was committed.
const STATE: &str = "_CHECKPOINT_METADATA";
/// The tree of the parameters.
const TREE: &str = "_METADATA";
const MANIFEST: &str = "manifest.ocdbt";
const COMMITTED: &str = "commit_success.txt";
/// Part of the names of folders that are being written.
const UNFINISHED: &str = ".orbax-checkpoint-tmp";
const MAGIC: [u8; 4] = [0x0C, 0xDB, 0x3A, 0x2A];

/// Orbax checkpoints.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| {
        [STATE, TREE].iter().any(|name| evidence.tree.at_home(name).is_some()) || unfinished(evidence).is_some()
    },
    places: |evidence| {
        let trees = evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == TREE);
        trees.map(|(_, file)| names::folder(&file.path).to_owned()).collect()
    },
    probe: |tree, file| document::probe(tree, file, STATE, |evidence| &mut evidence.orbax),
    sniff: |_, size, start| {
        start.starts_with(&MAGIC).then(|| WindowProbe::boxed(ManifestFile, size, start) as Box<dyn Probe>)
    },
    check,
    describe,
    judged: "commit marks, unfinished folders, arrays beside their tree, OCDBT manifests",
    ..Family::of(Format::Orbax)
};

/// The length in the header is the file's.
struct ManifestFile;

impl Parse for ManifestFile {
    type Output = ();

    fn parse(&self, file: &Window<'_>) -> Parsed<()> {
        let length = u64::from_le_bytes(file.array(4)?);
        if length == file.len() {
            return Ok(());
        }
        Err(Stop::Bad(format!("it has {} bytes, its header says {length}", file.len())))
    }

    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        if let Err(problem) = outcome {
            note_problem(&problem, file, evidence, notes);
        }
    }
}

fn unfinished(evidence: &Evidence) -> Option<&str> {
    let mut paths = evidence.tree.iter().map(|(_, file)| file.path.as_str());
    paths.find(|path| path.split('/').any(|part| part.contains(UNFINISHED)))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if let Some(path) = unfinished(evidence) {
        let message = format!(
            "{} lies in a folder that Orbax was still writing: use a checkpoint that was finished",
            names::shown(path)
        );
        notes.fatal(Reason::Incomplete, Some(path), message);
    }
    let tree = &evidence.tree;
    if let Some(file) = tree.at_home(STATE) {
        let path = &tree.file(file).path;
        match &evidence.orbax {
            Document::Broken(problem) => {
                let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
                notes.fatal(Reason::Corrupt, Some(path), message);
            }
            state => {
                let set = |key: &str| state.get(key).is_some_and(|value| !value.is_null());
                if set("init_timestamp_nsecs") && !set("commit_timestamp_nsecs") && tree.at_home(COMMITTED).is_none() {
                    let message = format!(
                        "{} says that the save began and not that it was committed: use a checkpoint that was finished",
                        names::shown(path)
                    );
                    notes.fatal(Reason::Incomplete, Some(path), message);
                }
            }
        }
    }
    for (_, file) in tree.iter().filter(|(_, file)| names::base(&file.path) == TREE) {
        let folder = names::folder(&file.path);
        let manifest = format!("{folder}{MANIFEST}");
        let inside = |file: &&super::File| file.path.starts_with(folder);
        let zarr = tree
            .iter()
            .map(|(_, file)| file)
            .filter(inside)
            .any(|file| matches!(names::base(&file.path), ".zarray" | "zarr.json"));
        let data = tree
            .iter()
            .map(|(_, file)| file)
            .filter(inside)
            .any(|file| file.path.contains("/d/") || file.path[folder.len()..].starts_with("d/"));
        let path = names::shown(&file.path);
        if tree.find(&manifest).is_none() && !zarr {
            let message = format!(
                "{} is missing: {path} describes parameters, and no array is there; upload it",
                names::shown(&manifest)
            );
            notes.fatal(Reason::Incomplete, Some(&manifest), message);
        } else if tree.find(&manifest).is_some() && !data && !zarr {
            let message =
                format!("{folder}d/ is missing: {} has no data beside it; upload it", names::shown(&manifest));
            notes.fatal(Reason::Incomplete, Some(&manifest), message);
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    if (FAMILY.claims)(evidence) {
        contents.framework = contents.framework.take().or_else(|| Some("orbax".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    fn manifest(length: u8) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([length, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    fn good() -> Folder {
        Folder::new([
            ("_CHECKPOINT_METADATA", br#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2}"#.to_vec()),
            ("_METADATA", b"{}".to_vec()),
            ("manifest.ocdbt", manifest(14)),
            ("d/0123456789abcdef0123456789abcdef", vec![1]),
        ])
    }

    #[test]
    fn commits_are_asked_for() {
        let verdict = good().judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::Orbax));
        let begun = r#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": null}"#;
        let verdict = good().with("_CHECKPOINT_METADATA", begun).judge();
        assert_bad(&verdict, Reason::Incomplete, "_CHECKPOINT_METADATA", "committed");
        assert_good(&good().with("_CHECKPOINT_METADATA", begun).with("commit_success.txt", "x").judge());
        assert_bad(
            &good().with("_CHECKPOINT_METADATA", "{").judge(),
            Reason::Corrupt,
            "_CHECKPOINT_METADATA",
            "damaged",
        );
        let folder = Folder(
            good().0.into_iter().map(|(path, bytes)| (format!("7.orbax-checkpoint-tmp-1/{path}"), bytes)).collect(),
        );
        assert_bad(&folder.judge(), Reason::Incomplete, ".orbax-checkpoint-tmp", "still writing");
    }

    #[test]
    fn arrays_are_there() {
        assert_bad(&good().without("manifest.ocdbt").judge(), Reason::Incomplete, "manifest.ocdbt", "is missing");
        assert_bad(
            &good().without("d/0123456789abcdef0123456789abcdef").judge(),
            Reason::Incomplete,
            "d/",
            "is missing",
        );
        assert_bad(
            &good().with("manifest.ocdbt", manifest(15)).judge(),
            Reason::Corrupt,
            "manifest.ocdbt",
            "its header says 15",
        );
    }
}
