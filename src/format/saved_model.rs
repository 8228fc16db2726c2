//! TensorFlow SavedModel: `saved_model.pb` or its text form, and the variables and assets beside it (TensorFlow 2.21,
//! `saved_model.proto`, `meta_graph.proto`); graphs of TensorFlow 1 beside a checkpoint, too. Operations that reach for files,
//! the network or Python run when the model does. Pure, no I/O.

mod operations;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, ops::Range};

use super::{
    evidence::{CodeFact, Evidence, Tree, fact},
    findings::Notes,
    names,
    probe::{Probe, Problem, note_problem},
    protobuf::{Budget, Fields, Value, text},
    table::Family,
    text_proto::{self, Token},
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format, Reason};
use operations::Reach;

const FILES: [&str; 2] = ["saved_model.pb", "saved_model.pbtxt"];
/// The graph that TensorFlow 1 writes beside a checkpoint's index.
const GRAPH: &str = ".meta";
/// The most operations and assets that are named.
const NAMED: usize = 64;

/// Folders with a `saved_model.pb` or `saved_model.pbtxt`.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| FILES.iter().any(|name| evidence.tree.at_home(name).is_some()),
    places: |evidence| {
        let models = evidence.tree.iter().filter(|(_, file)| FILES.contains(&names::base(&file.path)));
        let folders: BTreeSet<&str> = models.map(|(_, file)| names::folder(&file.path)).collect();
        folders.into_iter().map(str::to_owned).collect()
    },
    probe,
    check,
    describe,
    judged: "the graphs to their exact end, variables as a checkpoint, assets; operations that reach for files, the network or Python are code",
    ..Family::of(Format::SavedModel)
};

/// The folder of the model whose variables have this beginning of their names, or this path of their index.
pub(super) fn of_variables<'a>(tree: &Tree, prefix: &'a str) -> Option<&'a str> {
    let folder = prefix.strip_suffix(".index").unwrap_or(prefix).strip_suffix("variables/variables")?;
    FILES.iter().any(|name| tree.find(&format!("{folder}{name}")).is_some()).then_some(folder)
}

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    version: Option<String>,
    operations: BTreeSet<(Reach, String)>,
    assets: BTreeSet<String>,
    /// Whether it has variables, so that there are values.
    variables: bool,
    graphs: u64,
}

impl Model {
    fn operation(&mut self, name: &str) {
        self.variables |= operations::VARIABLES.contains(&name);
        // Operations that reach out are few, and others must not hide them.
        let is_kept = |reach: &Reach| *reach == Reach::Outside || self.operations.len() < NAMED;
        if let Some(reach) = operations::reach(name).filter(is_kept) {
            self.operations.insert((reach, fact(name)));
        }
    }

    /// Texts of the facts, and whether the code runs when the model does.
    fn code(&self) -> Vec<(bool, String)> {
        let of = |wanted: Reach| {
            let names: Vec<&str> =
                self.operations.iter().filter(|(reach, _)| *reach == wanted).map(|(_, name)| name.as_str()).collect();
            (!names.is_empty()).then(|| names.join(", "))
        };
        let texts = [
            (true, Reach::Outside, "operations that reach for files, the network or Python"),
            (false, Reach::Table, "tables that are read from files"),
            (false, Reach::Library, "operations of another library, which has to be loaded first"),
        ];
        texts
            .iter()
            .filter_map(|(on_load, reach, what)| Some((*on_load, format!("{what} ({})", of(*reach)?))))
            .collect()
    }
}

/// How a model is written.
enum ModelFile {
    Binary,
    Text,
    /// A single graph.
    Graph,
}

fn probe(tree: &Tree, file: usize) -> Option<Box<dyn Probe>> {
    let listed = tree.file(file);
    let graph = || {
        let prefix = listed.path.strip_suffix(GRAPH)?;
        tree.find(&format!("{prefix}.index")).map(|_| ModelFile::Graph)
    };
    let model = match names::base(&listed.path) {
        "saved_model.pb" => ModelFile::Binary,
        "saved_model.pbtxt" => ModelFile::Text,
        _ => graph()?,
    };
    Some(WindowProbe::boxed(model, listed.size, &[]))
}

impl Parse for ModelFile {
    type Output = Model;

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let (mut model, mut budget) = (Model::default(), Budget::default());
        match self {
            Self::Binary => binary(file, &mut budget, &mut model)?,
            Self::Text => written(file, &mut model)?,
            Self::Graph => {
                model.graphs = 1;
                meta_graph(file, &(0..file.len()), &mut budget, &mut model)?;
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
                for (on_load, what) in model.code() {
                    evidence.note_code(CodeFact { on_load, file, what });
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

/// `SavedModel`: schema version (1), meta graphs (2).
fn binary(file: &Window<'_>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    let mut fields = Fields::new(file, &(0..file.len()));
    while let Some((number, value)) = fields.next(budget)? {
        if let (2, Value::Bytes(graph)) = (number, value) {
            model.graphs += 1;
            meta_graph(file, &graph, budget, model)?;
        }
    }
    Ok(())
}

/// The text form. Which node an attribute belongs to does not matter: a file to print to is what no other one names.
fn written(file: &Window<'_>, model: &mut Model) -> Parsed<()> {
    let (mut prints, mut place, mut asset) = (false, false, false);
    text_proto::read(file.bytes(0..file.len())?, |depth, name, token| {
        match (depth, name, token) {
            (0, "meta_graphs", Token::Message) => model.graphs += 1,
            (1, field, Token::Message) => asset = field == "asset_file_def",
            (_, "tensorflow_version", Token::Text(version)) => model.version = Some(lossy(&version)),
            (2, "filename", Token::Text(name)) if asset && model.assets.len() < NAMED => {
                model.assets.insert(lossy(&name));
            }
            (_, "op", Token::Text(name)) => {
                prints |= name == operations::PRINT.as_bytes();
                model.operation(&lossy(&name));
            }
            (_, _, Token::Text(text)) => place |= text.starts_with(b"file://"),
            _ => {}
        }
        Ok(())
    })?;
    if prints && place {
        model.operations.insert((Reach::Outside, format!("{} to a file", operations::PRINT)));
    }
    Ok(())
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..4096).unwrap_or(bytes)).into_owned()
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
/// nodes (3), assets (6) with their file names (2).
fn meta_graph(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    for (number, inner) in messages(file, range, budget, &[1, 2, 6])? {
        match number {
            1 => {
                if let Some((_, version)) = messages(file, &inner, budget, &[5])?.first() {
                    model.version = Some(text(file, version)?);
                }
            }
            2 => graph(file, &inner, budget, model)?,
            _ => {
                for (_, name) in messages(file, &inner, budget, &[2])? {
                    if model.assets.len() < NAMED {
                        model.assets.insert(text(file, &name)?);
                    }
                }
            }
        }
    }
    Ok(())
}

fn graph(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    for (number, part) in messages(file, range, budget, &[1, 2])? {
        if number == 1 {
            node(file, &part, budget, model)?;
            continue;
        }
        for (_, function) in messages(file, &part, budget, &[1])? {
            for (_, inner) in messages(file, &function, budget, &[3])? {
                node(file, &inner, budget, model)?;
            }
        }
    }
    Ok(())
}

/// `NodeDef`: operation (2), attributes (5).
fn node(file: &Window<'_>, range: &Range<u64>, budget: &mut Budget, model: &mut Model) -> Parsed<()> {
    let members = messages(file, range, budget, &[2, 5])?;
    for (_, name) in members.iter().filter(|(number, _)| *number == 2) {
        let name = text(file, name)?;
        model.operation(&name);
        if name != operations::PRINT {
            continue;
        }
        for (_, attribute) in members.iter().filter(|(number, _)| *number == 5) {
            if prints_to_file(file, attribute, budget)? {
                model.operations.insert((Reach::Outside, format!("{} to a file", operations::PRINT)));
            }
        }
    }
    Ok(())
}

/// An attribute: key (1) and value (2) with its text (2).
fn prints_to_file(file: &Window<'_>, attribute: &Range<u64>, budget: &mut Budget) -> Parsed<bool> {
    for (_, value) in messages(file, attribute, budget, &[2])? {
        for (_, place) in messages(file, &value, budget, &[2])? {
            if text(file, &place)?.starts_with("file://") {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// What is written beside the graph alone shows that there was one.
fn missing_graph(evidence: &Evidence, notes: &mut Notes) {
    let tree = &evidence.tree;
    let beside = ["fingerprint.pb", "keras_metadata.pb"].into_iter().find(|name| tree.at_home(name).is_some());
    let graphs = ["saved_model.pb", "saved_model.pbtxt"].into_iter().all(|name| tree.at_home(name).is_none());
    if let Some(beside) = beside.filter(|_| graphs) {
        let missing = format!("{}saved_model.pb", tree.home());
        let message = format!(
            "{} is missing: {beside} is written beside the graph of a SavedModel; upload it",
            names::shown(&missing)
        );
        notes.fatal(Reason::Incomplete, Some(&missing), message);
    }
}

/// Variables and assets that the graphs name are there. The variables themselves are a checkpoint, and judged as one.
fn check(evidence: &mut Evidence, notes: &mut Notes) {
    missing_graph(evidence, notes);
    for (file, model) in evidence.all::<Model>() {
        let path = &evidence.tree.file(file).path;
        if path.ends_with(GRAPH) {
            continue;
        }
        let (folder, shown) = (names::folder(path), names::shown(path));
        let index = format!("{folder}variables/variables.index");
        if model.variables && evidence.tree.find(&index).is_none() {
            let message =
                format!("{} is missing: {shown} has variables; upload the folder variables", names::shown(&index));
            notes.fatal(Reason::Incomplete, Some(&index), message);
        }
        for asset in &model.assets {
            let asset = format!("{folder}assets/{asset}");
            if evidence.tree.find(&asset).is_none() {
                let message = format!("{} is missing: {shown} reads it; upload it", names::shown(&asset));
                notes.fatal(Reason::Incomplete, Some(&asset), message);
            }
        }
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let version = evidence.all::<Model>().find_map(|(_, model)| model.version.as_deref());
    let framework = version.map(|version| format!("tensorflow {}", fact(version)));
    contents.framework = contents.framework.take().or(framework);
}

/// Whether an operation of TensorFlow reaches for files, the network or Python.
pub(super) fn reaches_out(operation: &str) -> bool {
    operations::reach(operation) == Some(Reach::Outside)
}
