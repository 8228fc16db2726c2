//! HDF5 files: the superblock against the file's size, groups and datasets within bounds, and the configuration of a Keras model
//! among the attributes of the root, whose layers may be code (HDF5 file format 3.0, superblocks 0 to 3). Pure, no I/O.

mod checksum;
mod heap;
mod object;
#[cfg(test)]
pub(super) mod tests;
mod values;
mod walk;

use std::cell::RefCell;

use super::{
    counts::Counts,
    evidence::{CodeFact, Evidence, fact},
    findings::Notes,
    keras, names,
    probe::{Probe, Problem, note_problem},
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
};
use crate::contract::{Contents, Format};
use object::{Cursor, UNDEFINED};
use walk::Walk;

pub(super) const SIGNATURE: &[u8] = b"\x89HDF\r\n\x1a\n";
/// How much of a file is searched for the configuration of a Keras model when its attributes cannot be read, in bytes.
const SEARCHED: u64 = 16 << 20;
/// The most objects of a file, and of one within an archive.
const OBJECTS: u32 = 10_000;
const INNER_OBJECTS: u32 = 2_000;
/// Attributes of the root with the configuration of a model of Keras 1 to 3.
const CONFIGURATIONS: [&str; 2] = ["model_config", "training_config"];

/// HDF5 files.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    describe,
    judged: "superblock, groups, attributes and datasets within bounds; what Keras left in attributes is judged as `Keras`",
    ..Family::of(Format::Hdf5)
};

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Model {
    /// Code, and whether it runs when the model is loaded.
    pub code: Vec<(bool, String)>,
    /// Weights; none when not all could be followed.
    pub counts: Option<Counts>,
    architecture: Option<String>,
    version: Option<String>,
}

/// The walk goes on where it stopped for missing bytes.
struct Hdf5File(RefCell<Option<Walk>>);

fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    let named = ["h5", "hdf5"].iter().any(|extension| names::has_extension(path, extension));
    let is = named || start.starts_with(SIGNATURE);
    is.then(|| WindowProbe::boxed(Hdf5File(RefCell::default()), size, start))
}

impl Parse for Hdf5File {
    type Output = Model;

    fn remembered(model: &Model) -> u64 {
        model.counts.as_ref().map_or(0, |counts| counts.tensors)
    }

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        let (window, root) = root(file)?;
        let mut slot = self.0.borrow_mut();
        read(&window, root, slot.get_or_insert_with(|| Walk::new(root, OBJECTS)))
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        match outcome {
            Ok(model) => {
                for (on_load, what) in model.code.clone() {
                    evidence.note_code(CodeFact { on_load, file, what });
                }
                evidence.put(file, model);
            }
            Err(problem) => {
                if matches!(problem, Problem::TooLarge(_)) {
                    let what = "attributes that could not be read, which may be layers of a Keras model".to_owned();
                    evidence.note_code(CodeFact { on_load: true, file, what });
                    evidence.put(file, Model::default());
                }
                note_problem(&problem, file, evidence, notes);
            }
        }
    }
}

/// Reads a file within another one.
pub(super) fn inner(file: &Window<'_>) -> Parsed<Model> {
    let (window, root) = root(file)?;
    read(&window, root, &mut Walk::new(root, INNER_OBJECTS))
}

/// The superblock says where the file ends and where the root is. Addresses count from the superblock.
fn root<'w>(file: &Window<'w>) -> Parsed<(Window<'w>, u64)> {
    let begins = [0].into_iter().chain((0..12).map(|power| 512 << power)).take_while(|at| *at + 8 <= file.len());
    let mut found = None;
    for at in begins {
        if file.up_to(at, 8)? == SIGNATURE {
            found = Some(at);
            break;
        }
    }
    let Some(at) = found else { return Err(Stop::bad("it has no HDF5 signature")) };
    // Where the width of addresses stands, the base address, and behind it the address of the root.
    let (width_at, base_at, root_at) = match file.array::<1>(at + 8)? {
        [old @ (0 | 1)] => {
            // Versions of what an old superblock describes: there was only one of each.
            let [spaces, table, reserved, shared] = file.array(at + 9)?;
            if (spaces, table, reserved, shared) != (0, 0, 0, 0) {
                return Err(Stop::bad("its superblock names versions that there are none of"));
            }
            if old == 0 { (13, 24, 64) } else { (13, 28, 68) }
        }
        [2 | 3] => {
            // It ends with its own checksum.
            checksum::check(file, at..at + 44, "its superblock")?;
            (9, 12, 36)
        }
        [other] => return Err(Stop::Bad(format!("its superblock has the unknown version {other}"))),
    };
    let widths: [u8; 2] = file.array(at + width_at)?;
    if let Some(width) = widths.iter().find(|width| **width != 8) {
        return Err(Stop::Bad(format!("its addresses have {width} bytes, where every library writes 8")));
    }
    // Base address, one more address, end of the file with what stands before the superblock.
    let end = u64::from_le_bytes(file.array(at + base_at + 16)?);
    if end != file.len() {
        let how = if end > file.len() { "it is truncated: it" } else { "it" };
        return Err(Stop::Bad(format!("{how} has {} bytes, its superblock says {end}", file.len())));
    }
    let root = u64::from_le_bytes(file.array(at + root_at)?);
    Ok((file.part(at..file.len())?, root))
}

/// Attributes of the root and the datasets of all groups.
fn read(window: &Window<'_>, root: u64, walk: &mut Walk) -> Parsed<Model> {
    let mut model = Model::default();
    let mut hidden = false;
    for message in object::messages(window, root)? {
        match message.kind {
            // Many attributes lie in a heap of their own, which is not followed.
            0x15 => match dense(window, &message)? {
                // Compressed, not even the names of the attributes are there to be found.
                Some(heap) if heap::is_filtered(window, heap)? => model.code.push(unknown()),
                heap => hidden |= heap.is_some(),
            },
            0x0C if message.shared => hidden = true,
            0x0C => {
                let (name, text) = values::attribute(window, &message)?;
                match (name.as_str(), text) {
                    ("keras_version", Some(version)) => model.version = Some(fact(&version)),
                    (name, Some(text)) if CONFIGURATIONS.contains(&name) => configuration(name, &text, &mut model),
                    (name, None) if CONFIGURATIONS.contains(&name) => hidden = true,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    if hidden {
        model.code.extend(searched(window.up_to(0, SEARCHED)?, window.len() > SEARCHED));
    }
    walk.go_on(window)?;
    model.counts = (!walk.partial).then(|| walk.counts.clone());
    // Readers follow such a reference to any file that they may read.
    model.code.extend(walk.outside.iter().map(|place| (true, place.clone())));
    Ok(model)
}

/// An attribute info message: the heap in which the attributes lie when they are many.
fn dense(window: &Window<'_>, message: &object::Message) -> Parsed<Option<u64>> {
    let mut cursor = Cursor::new(window, &message.content);
    cursor.skip(1)?;
    let flags = cursor.number(1)?;
    cursor.skip(if flags & 1 == 0 { 0 } else { 2 })?;
    Ok(Some(cursor.number(8)?).filter(|heap| *heap != UNDEFINED))
}

fn configuration(name: &str, text: &str, model: &mut Model) {
    match keras::parse(text.as_bytes()) {
        Ok(config) => {
            let class = config.get("class_name").and_then(serde_json::Value::as_str).map(fact);
            model.architecture = model.architecture.take().or(class);
            model.code.extend(keras::code(&config));
        }
        Err(_) => model.code.push((true, format!("a configuration of a Keras model ({name}) that cannot be read"))),
    }
}

/// Whether hidden attributes may be the configuration of a Keras model. Which of the texts in the file is the one that Keras reads,
/// only the structure around it says: another one beside it would be judged in its place.
fn searched(bytes: &[u8], cut: bool) -> Option<(bool, String)> {
    let name = b"model_config";
    (cut || bytes.windows(name.len()).any(|window| window == name)).then(unknown)
}

fn unknown() -> (bool, String) {
    (true, "attributes in a form that is not followed, which may be layers of a Keras model that run code".to_owned())
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Some(Counts::default());
    for (_, model) in evidence.all::<Model>() {
        counts = counts.zip(model.counts.as_ref()).map(|(mut sum, more)| {
            sum.merge(more);
            sum
        });
        contents.architecture = contents.architecture.take().or_else(|| model.architecture.clone());
        let framework = model.version.as_ref().map(|version| format!("keras {version}"));
        contents.framework = contents.framework.take().or(framework);
    }
    if let Some(counts) = counts {
        counts.describe(contents);
    }
}
