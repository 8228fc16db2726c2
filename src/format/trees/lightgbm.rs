//! LightGBM's text (version 4, `gbdt_model_text.cpp`): the sizes of the trees lead exactly to the end of the trees. Pure, no I/O.

use crate::{
    contract::{Contents, Format},
    format::{
        evidence::{Evidence, fact},
        findings::Notes,
        probe::{Problem, note_problem},
        table::Family,
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
};

const FIRST: &[u8] = b"tree\n";
/// The longest header, in bytes.
const HEADER: u64 = 32 << 20;
const END: &[u8] = b"end of trees";

/// LightGBM models.
pub(in crate::format) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |_, size, start| {
        let is = start.starts_with(FIRST) && start.windows(8).any(|text| text == b"version=");
        is.then(|| WindowProbe::boxed(ModelFile, size, start))
    },
    describe,
    judged: "read to its exact end",
    ..Family::of(Format::LightGbm)
};

#[derive(Debug)]
struct Model {
    version: String,
    objective: String,
}

struct ModelFile;

impl Parse for ModelFile {
    type Output = Model;

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let mut at = FIRST.len() as u64;
        let mut model = Model { version: String::new(), objective: String::new() };
        let mut sizes = None;
        while sizes.is_none() {
            let line = line(file, at)?;
            at += line.len() as u64 + 1;
            let Some((key, value)) = line.split_once('=') else { continue };
            match key {
                "version" => value.clone_into(&mut model.version),
                "objective" => value.clone_into(&mut model.objective),
                "tree_sizes" => {
                    let numbers = value.split_whitespace().map(|size| size.parse::<u64>().ok());
                    sizes = Some(numbers.collect::<Option<Vec<_>>>());
                }
                "Tree" => return Err(Stop::bad("its header has no tree_sizes")),
                _ => {}
            }
        }
        let Some(Some(sizes)) = sizes else { return Err(Stop::bad("its tree_sizes are no numbers")) };
        let begin = at + line(file, at)?.len() as u64 + 1;
        let end = sizes.iter().try_fold(begin, |at, size| at.checked_add(*size)).filter(|end| *end <= file.len());
        let Some(end) = end else {
            return Err(Stop::Bad(format!(
                "it is truncated: its {} trees end behind its {} bytes",
                sizes.len(),
                file.len()
            )));
        };
        if file.up_to(end, END.len() as u64)? != END {
            return Err(Stop::Bad(format!(
                "its {} trees should end at byte {end}, where something else stands",
                sizes.len()
            )));
        }
        Ok(model)
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => evidence.put(file, model),
            Err(problem) => note_problem(&problem, file, evidence, notes),
        }
    }
}

/// A line of the header, without its end.
fn line(file: &Window<'_>, at: u64) -> Parsed<String> {
    let mut length = 4096;
    loop {
        let bytes = file.up_to(at, length)?;
        if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            return Ok(String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned());
        }
        if (bytes.len() as u64) < length || length > HEADER {
            return Err(Stop::bad("it ends in its header: it is truncated"));
        }
        length *= 4;
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some((_, model)) = evidence.all::<Model>().next() else { return };
    contents.framework = contents.framework.take().or_else(|| Some(fact(&format!("lightgbm {}", model.version))));
    let objective = model.objective.split_whitespace().next().filter(|objective| !objective.is_empty());
    contents.architecture = contents.architecture.take().or_else(|| objective.map(fact));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Reason;
    use crate::format::tests::{Folder, assert_bad, assert_good};

    const TREES: &str = "Tree=0\nnum_leaves=1\n\n\nTree=1\nnum_leaves=1\n\n\n";

    fn model() -> String {
        format!(
            "tree\nversion=v4\nobjective=binary sigmoid:1\ntree_sizes=22 22\n\n{TREES}end of trees\n\nparameters:\nend of parameters\n"
        )
    }

    #[test]
    fn trees_end_where_their_sizes_say() {
        let judge = |text: &str| Folder::new([("model.txt", text.as_bytes().to_vec())]).judge();
        let verdict = judge(&model());
        assert_good(&verdict);
        assert_eq!(
            (verdict.contents.format, verdict.contents.framework.as_deref()),
            (Some(Format::LightGbm), Some("lightgbm v4"))
        );
        assert_bad(&judge(&model().replace("22 22", "22 21")), Reason::Corrupt, "model.txt", "something else");
        assert_bad(&judge(&model().replace("22 22", "22 x")), Reason::Corrupt, "model.txt", "no numbers");
        let end = model().find("end of trees").unwrap() + END.len();
        for length in 16..end {
            assert!(!judge(&model()[..length]).is_good(), "{length}");
        }
    }
}
