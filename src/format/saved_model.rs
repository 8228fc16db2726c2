//! TensorFlow SavedModel: `saved_model.pb` and the variables beside it (TensorFlow 2.21, `saved_model.proto`). Operations that
//! reach for files or Python run when the model does. Pure, no I/O.

use std::{collections::BTreeSet, ops::Range};

use super::{
    evidence::{CodeFact, Evidence, Tree, fact},
    findings::Notes,
    names,
    probe::{Probe, Problem, note_problem},
    protobuf::{Budget, Fields, Value, text},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};

const FILE: &str = "saved_model.pb";
/// Operations that read or write files, or call Python.
const OPERATIONS: [&str; 6] = ["ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "PyFuncStateless", "EagerPyFunc"];

/// Folders with a `saved_model.pb`.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.tree.at_home(FILE).is_some(),
    places: |evidence| {
        let models = evidence.tree.iter().filter(|(_, file)| names::base(&file.path) == FILE);
        models.map(|(_, file)| names::folder(&file.path).to_owned()).collect()
    },
    probe,
    check,
    describe,
    judged: "the graphs to their exact end, every file of variables; operations on files or Python are code",
    ..Family::of(Format::SavedModel)
};

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    version: Option<String>,
    operations: BTreeSet<String>,
    graphs: u64,
}

struct ModelFile;

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    (names::base(&listed.path) == FILE).then(|| WindowProbe::boxed(ModelFile, listed.size, &[]))
}

impl Parse for ModelFile {
    type Output = Model;

    /// `SavedModel`: schema version (1), meta graphs (2).
    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let (mut model, mut budget) = (Model::default(), Budget::default());
        let mut fields = Fields::new(file, &(0..file.len()));
        while let Some((number, value)) = fields.next(&mut budget)? {
            if let (2, Value::Bytes(graph)) = (number, value) {
                model.graphs += 1;
                meta_graph(file, &graph, &mut budget, &mut model)?;
            }
        }
        if model.graphs == 0 {
            return Err(Stop::bad("it has no graph: it is truncated, or no SavedModel"));
        }
        Ok(model)
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => {
                if !model.operations.is_empty() {
                    let operations: Vec<&str> = model.operations.iter().map(String::as_str).collect();
                    let what = format!("operations that reach for files or Python ({})", operations.join(", "));
                    evidence.note_code(CodeFact { on_load: true, file, what });
                }
                evidence.put(file, model);
            }
            Err(problem) => {
                if matches!(problem, Problem::TooLarge(_)) {
                    let what = "operations that could not all be read".to_owned();
                    evidence.note_code(CodeFact { on_load: true, file, what });
                }
                note_problem(&problem, file, evidence, notes);
            }
        }
    }
}

/// The ranges of a message's fields of these numbers, in their order.
fn messages(
    file: &Window<'_>,
    range: &Range<u64>,
    budget: &mut Budget,
    wanted: &[u64],
) -> Parsed<Vec<(u64, Range<u64>)>> {
    let mut found = Vec::new();
    let mut fields = Fields::new(file, range);
    while let Some((number, value)) = fields.next(budget)? {
        if let Value::Bytes(inner) = value
            && wanted.contains(&number)
        {
            found.push((number, inner));
        }
    }
    Ok(found)
}

/// `MetaGraphDef`: meta info (1) with TensorFlow's version (5), graph (2) with nodes (1) and a library (2) of functions (1) with
/// nodes (3); the operation of a node is its field 2.
fn meta_graph(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    for (number, inner) in messages(file, range, budget, &[1, 2])? {
        if number == 1 {
            if let Some((_, version)) = messages(file, &inner, budget, &[5])?.first() {
                model.version = Some(text(file, version)?);
            }
            continue;
        }
        for (number, part) in messages(file, &inner, budget, &[1, 2])? {
            if number == 1 {
                operation(file, &part, budget, model)?;
                continue;
            }
            for (_, function) in messages(file, &part, budget, &[1])? {
                for (_, node) in messages(file, &function, budget, &[3])? {
                    operation(file, &node, budget, model)?;
                }
            }
        }
    }
    Ok(())
}

fn operation(file: &Window<'_>, node: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    for (_, name) in messages(file, node, budget, &[2])? {
        let name = text(file, &name)?;
        if OPERATIONS.contains(&name.as_str()) {
            model.operations.insert(name);
        }
    }
    Ok(())
}

/// Variables have an index and as many data files as their names say.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let folders = (FAMILY.places)(evidence);
    for folder in folders {
        let variables = format!("{folder}variables/");
        let present: Vec<&str> =
            evidence.tree.iter().filter_map(|(_, file)| file.path.strip_prefix(variables.as_str())).collect();
        let data: Vec<(u32, u32)> = present.iter().filter_map(|name| data_file(name)).collect();
        let mut missing = Vec::new();
        if !data.is_empty() && !present.contains(&"variables.index") {
            missing.push(format!("{variables}variables.index"));
        }
        let total =
            data.iter().map(|(_, total)| *total).max().unwrap_or(u32::from(present.contains(&"variables.index")));
        let absent = (0..total.min(100_000)).filter(|number| !data.contains(&(*number, total)));
        missing.extend(absent.take(8).map(|number| format!("{variables}variables.data-{number:05}-of-{total:05}")));
        for path in missing {
            let message =
                format!("{} is missing: the other variables of the model are there; upload it", names::shown(&path));
            notes.fatal(Reason::Incomplete, Some(&path), message);
        }
    }
}

/// `variables.data-00000-of-00001`
fn data_file(name: &str) -> Option<(u32, u32)> {
    let (number, total) = name.strip_prefix("variables.data-")?.split_once("-of-")?;
    Some((number.parse().ok()?, total.parse().ok()?))
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let version = evidence.all::<Model>().find_map(|(_, model)| model.version.as_deref());
    let framework = version.map(|version| format!("tensorflow {}", fact(version)));
    contents.framework = contents.framework.take().or(framework);
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good};
    use super::*;

    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat()
    }

    fn model(operation: &str) -> Vec<u8> {
        let node = field(2, operation.as_bytes());
        let library = field(2, &field(1, &field(3, &node)));
        let graph = [field(1, &field(2, b"Const")), library].concat();
        [vec![8, 1], field(2, &[field(1, &field(5, b"2.21.0")), field(2, &graph)].concat())].concat()
    }

    fn folder(operation: &str) -> Folder {
        Folder::new([
            ("saved_model.pb", model(operation)),
            ("variables/variables.index", vec![1]),
            ("variables/variables.data-00000-of-00001", vec![1]),
        ])
    }

    #[test]
    fn models_and_their_variables() {
        let verdict = folder("MatMul").judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::SavedModel));
        assert_eq!(verdict.contents.framework.as_deref(), Some("tensorflow 2.21.0"));
        for file in ["variables/variables.index", "variables/variables.data-00000-of-00001"] {
            assert_bad(&folder("MatMul").without(file).judge(), Reason::Incomplete, file, "is missing");
        }
        let bytes = model("MatMul");
        for length in 1..bytes.len() {
            assert!(!folder("MatMul").with("saved_model.pb", &bytes[..length]).judge().is_good(), "{length}");
        }
    }

    #[test]
    fn operations_on_files_are_code() {
        assert_bad(&folder("ReadFile").judge(), Reason::UnsafeCode, "saved_model.pb", "ReadFile");
    }
}
