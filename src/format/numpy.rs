//! Arrays of NumPy: `.npy` (format 1 to 3 of `numpy.lib.format`) and `.npz`. Arrays of Python objects are pickles. Pure, no I/O.

use super::{
    archive::{self, Kind},
    counts::Counts,
    evidence::{Evidence, PickleFact},
    findings::{Notes, UPLOAD_AGAIN},
    names, pickle,
    probe::Problem,
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
    zip::{self, Directory},
};
use crate::contract::{Contents, Format, Reason};

mod header;

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header that is read, in bytes; NumPy itself takes 10,000 unless told otherwise.
const MAX_HEADER: u64 = 64 << 10;
const OBJECT: &str = "object";
/// The most arrays of an archive that are read.
const ARRAYS: usize = 4096;

use header::Members;

/// Files of NumPy.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Arrays>().next().is_some(),
    places: |evidence| evidence.all::<Arrays>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |_, size, start| start.starts_with(MAGIC).then(|| WindowProbe::boxed(ArrayFile, size, start)),
    describe,
    ..Family::of(Format::NumPy)
};

/// Counts of a file.
pub(super) struct Arrays(pub Counts);

/// A header.
struct Header {
    dtype: &'static str,
    /// Bytes of an element; none for Python objects and records.
    size: Option<u64>,
    /// Whether the data is a pickle.
    objects: bool,
    elements: u64,
    /// Where the data begins.
    data: u64,
}

struct ArrayFile;

impl Parse for ArrayFile {
    type Output = (Counts, Option<PickleFact>);
    const CAP: u64 = 56 << 20;

    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        let header = header(file)?;
        check_size(&header, file)?;
        let mut counts = Counts::default();
        counts.add(header.dtype, header.elements);
        Ok((counts, pickle(file, "")?))
    }

    fn finish(self, outcome: Result<Self::Output, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let path = evidence.tree.file(file).path.clone();
        match outcome {
            Ok((counts, pickle)) => {
                evidence.put(file, Arrays(counts));
                if let Some(problem) = pickle.as_ref().and_then(|pickle| pickle.broken.as_ref()) {
                    let shown = names::shown(&path);
                    let message = format!("{shown} is damaged: its pickle cannot be read: {problem}; {UPLOAD_AGAIN}");
                    notes.fatal(Reason::Corrupt, Some(&path), message);
                }
                if let Some(pickle) = pickle {
                    evidence.note_pickle(file, pickle);
                }
            }
            Err(Problem::Broken(problem)) => {
                let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(&path));
                notes.fatal(Reason::Corrupt, Some(&path), message);
                evidence.note_pickle(file, PickleFact::unchecked("a damaged NumPy array"));
            }
            Err(Problem::TooLarge(_)) => {
                evidence.note_pickle(file, PickleFact::unchecked("a large array of Python objects"));
            }
            Err(Problem::Foreign) => {}
        }
    }
}

/// The arrays of an `.npz`, each in its size.
pub(super) fn archive(file: &Window<'_>, directory: &Directory) -> Parsed<Counts> {
    let mut counts = Counts::default();
    for entry in directory.entries.iter().filter(|entry| names::has_extension(&entry.name, "npy")).take(ARRAYS) {
        let named = |stop| match stop {
            Stop::Bad(text) => Stop::Bad(format!("its entry {}: {text}", names::shown(&entry.name))),
            stop => stop,
        };
        let content;
        let window = if entry.method == 0 {
            file.part(zip::data(file, entry)?)?
        } else {
            // A deflated array may be of any size; its CRC-32 stands for its content.
            match zip::content(file, entry, 32 << 20) {
                Ok(unpacked) => content = unpacked,
                Err(Stop::TooLarge(_)) => continue,
                Err(stop) => return Err(stop),
            }
            Window::of_bytes(&content)
        };
        let header = header(&window).map_err(named)?;
        check_size(&header, &window).map_err(named)?;
        counts.add(header.dtype, header.elements);
    }
    Ok(counts)
}

/// The pickle that an array of Python objects is.
pub(super) fn pickle(window: &Window<'_>, name: &str) -> Parsed<Option<PickleFact>> {
    let header = header(window)?;
    if !header.objects {
        return Ok(None);
    }
    let place = if name.is_empty() { "array of Python objects" } else { name };
    pickle::judge_named(&window.part(header.data..window.len())?, place)
}

fn check_size(header: &Header, window: &Window<'_>) -> Parsed<()> {
    let Some(size) = header.size else { return Ok(()) };
    let expected = header.elements.checked_mul(size).and_then(|bytes| bytes.checked_add(header.data));
    match expected {
        Some(expected) if expected == window.len() => Ok(()),
        Some(expected) => Err(Stop::Bad(format!("it has {} bytes, its header describes {expected}", window.len()))),
        None => Err(Stop::bad("its header describes more than 64 bits can count")),
    }
}

fn header(window: &Window<'_>) -> Parsed<Header> {
    let start: [u8; 8] = window.array(0)?;
    let (at, length) = match start[6] {
        1 => (10, u64::from(u16::from_le_bytes(window.array(8)?))),
        2 | 3 => (12, u64::from(u32::from_le_bytes(window.array(8)?))),
        other => return Err(Stop::Bad(format!("its format has the unknown version {other}"))),
    };
    if length > MAX_HEADER {
        return Err(Stop::Bad(format!("its header has {length} bytes, more than {MAX_HEADER}")));
    }
    let text = String::from_utf8_lossy(window.bytes(at..at + length)?).into_owned();
    let malformed = |what: &str| Stop::Bad(format!("its header names no {what}"));
    let Members { descr, shape } = header::members(&text)?;
    let elements = elements(shape).ok_or_else(|| malformed("usable shape"))?;
    let data = at + length;
    if descr.starts_with('[') {
        // The fields of records have shapes and alignments: NumPy alone computes their size.
        return Ok(Header { dtype: "record", size: None, objects: header::has_objects(descr), elements, data });
    }
    let (dtype, size) = header::literal(descr).and_then(dtype).ok_or_else(|| malformed("known descr"))?;
    Ok(Header { dtype, size, objects: dtype == OBJECT, elements, data })
}

fn elements(shape: &str) -> Option<u64> {
    let inner = shape.strip_prefix('(')?.strip_suffix(')')?;
    let sizes = inner.split(',').map(str::trim).filter(|size| !size.is_empty());
    sizes
        .map(|size| size.trim_end_matches('L').parse::<u64>().ok())
        .try_fold(1u64, |product, size| product.checked_mul(size?))
}

/// Kind and size as in `'<f4'`.
fn dtype(descr: &str) -> Option<(&'static str, Option<u64>)> {
    let descr = descr.trim_start_matches(['<', '>', '|', '=']);
    let kind = descr.chars().next()?;
    let digits: String = descr.get(1..)?.chars().take_while(char::is_ascii_digit).collect();
    let size = digits.parse::<u64>().ok();
    // `f8,O` is a record, with objects.
    let unit = descr.get(1 + digits.len()..)?;
    let is_unit = matches!(kind, 'M' | 'm') && unit.starts_with('[') && unit.ends_with(']');
    if !unit.is_empty() && !is_unit {
        return None;
    }
    let name = match (kind, size) {
        ('O', _) => return Some((OBJECT, None)),
        ('f', Some(2)) => "F16",
        ('f', Some(4)) => "F32",
        ('f', Some(8)) => "F64",
        ('f', Some(16)) => "F128",
        ('i', Some(1)) => "I8",
        ('i', Some(2)) => "I16",
        ('i', Some(4)) => "I32",
        ('i', Some(8)) => "I64",
        ('u', Some(1)) => "U8",
        ('u', Some(2)) => "U16",
        ('u', Some(4)) => "U32",
        ('u', Some(8)) => "U64",
        ('b', Some(1)) => "BOOL",
        ('c', Some(8)) => "C64",
        ('c', Some(16)) => "C128",
        ('U', Some(size)) => return Some(("text", Some(size.checked_mul(4)?))),
        ('S' | 'a', Some(_)) => "bytes",
        ('M' | 'm', Some(8)) => "time",
        ('V', Some(_)) => "record",
        _ => return None,
    };
    Some((name, size))
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let mut counts = Counts::default();
    for (_, arrays) in evidence.all::<Arrays>() {
        counts.merge(&arrays.0);
    }
    if archive::of_kind(evidence, Kind::Torch).next().is_none() {
        counts.describe(contents);
    }
}

#[cfg(test)]
mod tests;
