//! Documents in an archive that name its other entries: the weights of torch.export, the arrays of skops. Pure, no I/O.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{
    keras, names,
    window::{Parsed, Stop, Window},
    zip::{self, Directory, Entry},
};

/// The largest document that is read, in bytes.
const LIMIT: u64 = 16 << 20;
/// Where torch.export has its weights, below the folder around all (torch 2.15, `torch/export/pt2_archive/constants.py`).
const WEIGHTS: &str = "data/weights/";

/// The weights that a program of torch.export names are there.
///
/// # Errors
/// `Bad` when one is not.
pub(super) fn export(file: &Window<'_>, directory: &Directory) -> Parsed<()> {
    let top = directory.entries.iter().find_map(|entry| entry.name.strip_suffix("archive_format")).unwrap_or_default();
    let folder = format!("{top}{WEIGHTS}");
    let present = present(directory);
    let is_config = |entry: &&Entry| {
        let name = entry.name.strip_prefix(folder.as_str());
        name.is_some_and(|name| !name.contains('/') && name.ends_with("_weights_config.json"))
    };
    for entry in directory.entries.iter().filter(is_config) {
        let Some(document) = document(file, entry)? else { continue };
        let payloads = document.get("config").and_then(Value::as_object).into_iter().flat_map(|config| config.values());
        let mut named = payloads.filter_map(|payload| payload.get("path_name")?.as_str());
        if let Some(lost) = named.find(|name| !present.contains(format!("{folder}{name}").as_str())) {
            return Err(missing(&format!("{folder}{lost}"), entry));
        }
    }
    Ok(())
}

/// The arrays that the object of skops names are there (skops 0.13, `skops/io/_numpy.py`).
///
/// # Errors
/// `Bad` when one is not.
pub(super) fn skops(file: &Window<'_>, directory: &Directory) -> Parsed<()> {
    let Some(entry) = directory.find("schema.json") else { return Ok(()) };
    let Some(document) = document(file, entry)? else { return Ok(()) };
    let present = present(directory);
    let mut open = vec![&document];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                open.extend(members.values());
                // What a user's dict holds are objects, so a plain text under this key is skops' own.
                if let Some(lost) = members.get("file").and_then(Value::as_str).filter(|name| !present.contains(name)) {
                    return Err(missing(lost, entry));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn present(directory: &Directory) -> BTreeSet<&str> {
    directory.entries.iter().map(|entry| entry.name.as_str()).collect()
}

fn missing(name: &str, entry: &Entry) -> Stop {
    Stop::Bad(format!("its entry {} is missing, which its {} names", names::shown(name), names::shown(&entry.name)))
}

/// A JSON document as Python reads it; none when it is larger than is read.
fn document(file: &Window<'_>, entry: &Entry) -> Parsed<Option<Value>> {
    let content = match zip::content(file, entry, LIMIT) {
        Err(Stop::TooLarge(_)) => return Ok(None),
        content => content?,
    };
    let malformed = |error| Stop::Bad(format!("its entry {} is no usable JSON: {error}", names::shown(&entry.name)));
    keras::parse(&content).map(Some).map_err(malformed)
}
