//! `.cbm`: the magic, the length of a FlatBuffer, the FlatBuffer, and the parts that it names. Pure, no I/O.

use super::{MAGIC, Model, leave, loss};
use crate::format::{
    evidence::Evidence,
    findings::Notes,
    names,
    probe::Problem,
    trees::flatbuffer::{Buffer, Table, Vector},
    window::{Parse, Parsed, Stop, Window},
};

/// The one version of the core that there is; the word is misspelt there.
const VERSION: &str = "FlabuffersModel_v1";
/// The part with statistics of categorical features.
const STATISTICS: &str = "static_provider_v1";
/// Longest text of the model's information that is read, in bytes.
const TEXT: u64 = 256 << 10;
/// The most trees, splits, pieces of information and tables of statistics.
const MANY: u64 = 4 << 20;

/// Members of `TModelCore`.
const CORE_VERSION: u64 = 0;
const CORE_TREES: u64 = 1;
const CORE_INFORMATION: u64 = 2;
const CORE_PARTS: u64 = 3;
/// Members of `TModelTrees` that are lists of numbers, and the bytes of an element.
const LISTS: [(u64, u64); 9] = [(1, 4), (2, 4), (3, 4), (8, 8), (9, 8), (10, 4), (11, 4), (16, 8), (17, 4)];
/// Members of it that are lists of features.
const FEATURES: [u64; 7] = [4, 5, 6, 7, 12, 13, 18];

pub(super) struct File;

impl Parse for File {
    type Output = Model;

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        if file.up_to(0, 4)? != MAGIC {
            return Err(Stop::bad("it does not begin with CBM1"));
        }
        let mut at = 4;
        let length = size(file, &mut at)?;
        let end = at.checked_add(length).filter(|end| *end <= file.len()).ok_or_else(|| {
            Stop::Bad(format!(
                "it is truncated: its model has {length} bytes, {} follow",
                file.len().saturating_sub(at)
            ))
        })?;
        let part = file.part(at..end)?;
        let core = Buffer(&part);
        let root = core.root()?;
        let version = core.text(root, CORE_VERSION, 64)?;
        if version != VERSION {
            return Err(Stop::Bad(format!("its version {:?} is none that CatBoost loads", names::shown(&version))));
        }
        let trees = core.table_member(root, CORE_TREES)?.ok_or_else(|| Stop::bad("it has no trees"))?;
        check_trees(core, trees)?;
        let model = information(core, root)?;
        parts(file, core, root, end)?;
        Ok(model)
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        leave(outcome, file, evidence, notes);
    }
}

/// A length as CatBoost's library saves it: four bytes, eight more when they are all ones.
fn size(file: &Window<'_>, at: &mut u64) -> Parsed<u64> {
    let short = u32::from_le_bytes(file.array(*at)?);
    *at += 4;
    if short < u32::MAX {
        return Ok(u64::from(short));
    }
    let long = u64::from_le_bytes(file.array(*at)?);
    *at += 8;
    Ok(long)
}

/// The lists that describe the trees fit each other.
fn check_trees(core: Buffer<'_, '_>, trees: Table) -> Parsed<()> {
    for (number, width) in LISTS {
        core.vector(trees, number, width)?;
    }
    for number in FEATURES {
        if let Some(features) = core.vector(trees, number, 4)? {
            for index in 0..features.length.min(MANY) {
                core.table_of(features, index)?;
            }
        }
    }
    let list = |number, width| Ok(core.vector(trees, number, width)?.unwrap_or_default());
    let (splits, sizes, starts): (Vector, Vector, Vector) = (list(1, 4)?, list(2, 4)?, list(3, 4)?);
    let (leaves, steps, ids): (Vector, Vector, Vector) = (list(8, 8)?, list(10, 4)?, list(11, 4)?);
    if sizes.length > MANY {
        return Err(Stop::TooLarge(format!("it has more than {MANY} trees")));
    }
    let dimensions = match core.member(trees, 0)? {
        Some(at) => core.u32(at)?,
        None => 0,
    };
    let (mut total, mut needed) = (0u64, Some(0u64));
    for index in 0..sizes.length {
        let depth = core.u32(sizes.at + 4 * index)?;
        if starts.length > index && core.u32(starts.at + 4 * index)? != total {
            return Err(Stop::Bad(format!("its tree {index} does not begin where the tree before it ends")));
        }
        total = total.saturating_add(depth);
        let leaves = u32::try_from(depth).ok().and_then(|depth| 1u64.checked_shl(depth));
        needed = needed.zip(leaves).and_then(|(sum, leaves)| sum.checked_add(leaves));
    }
    if total != splits.length {
        return Err(Stop::Bad(format!("its {} trees need {total} splits, it has {}", sizes.length, splits.length)));
    }
    // Trees that are not symmetric have a step for each split in place of a full set of leaves.
    if steps.length > 0 || ids.length > 0 {
        if steps.length != splits.length || ids.length != splits.length {
            let (steps, ids, splits) = (steps.length, ids.length, splits.length);
            return Err(Stop::Bad(format!("it has {splits} nodes, {steps} steps and {ids} numbers of leaves")));
        }
        return Ok(());
    }
    let needed = needed.and_then(|needed| needed.checked_mul(dimensions));
    if needed != Some(leaves.length) {
        let needed = needed.map_or("more than there can be".to_owned(), |needed| needed.to_string());
        return Err(Stop::Bad(format!("its trees need {needed} values of leaves, it has {}", leaves.length)));
    }
    Ok(())
}

fn information(core: Buffer<'_, '_>, root: Table) -> Parsed<Model> {
    let mut model = Model::default();
    let pairs = core.vector(root, CORE_INFORMATION, 4)?.unwrap_or_default();
    for index in 0..pairs.length.min(MANY) {
        let pair = core.table_of(pairs, index)?;
        match core.text(pair, 0, 256)?.as_str() {
            "catboost_version_info" => model.version = core.text(pair, 1, 4096)?,
            "params" => model.loss = loss(&core.text(pair, 1, TEXT)?),
            _ => {}
        }
    }
    Ok(model)
}

/// What follows the FlatBuffer: nothing, or the parts that it names. Of texts and embeddings only the presence is judged, because
/// their lengths are written nowhere.
fn parts(file: &Window<'_>, core: Buffer<'_, '_>, root: Table, end: u64) -> Parsed<()> {
    let parts = core.vector(root, CORE_PARTS, 4)?.unwrap_or_default();
    let mut at = end;
    for index in 0..parts.length.min(16) {
        let range = core.text_of(parts, index)?;
        if core.0.bytes(range.start..range.end.min(range.start + 256))? != STATISTICS.as_bytes() {
            if at >= file.len() {
                return Err(Stop::bad("it is truncated: a part that it names is missing behind its trees"));
            }
            return Ok(());
        }
        let tables = size(file, &mut at)?;
        if tables > MANY {
            return Err(Stop::Bad(format!("it announces {tables} tables of statistics, which cannot be")));
        }
        for _ in 0..tables {
            let length = size(file, &mut at)?;
            at = at.checked_add(length).filter(|end| *end <= file.len()).ok_or_else(|| {
                Stop::Bad(format!(
                    "it is truncated: its statistics of categories go on for {length} bytes from byte {at}"
                ))
            })?;
        }
    }
    if at == file.len() {
        return Ok(());
    }
    Err(Stop::Bad(format!("it ends at byte {at}, and {} bytes follow", file.len() - at)))
}
