//! Arrays of NumPy: `.npy` (format 1 to 3 of `numpy.lib.format`) and `.npz`. Arrays of Python objects are pickles. Pure, no I/O.

use std::ops::Range;

use super::{
    archive::{self, Kind},
    counts::Counts,
    evidence::{Evidence, PickleFact},
    findings::{Notes, UPLOAD_AGAIN},
    literal::{self, Literal},
    names, pickle,
    probe::Problem,
    table::Family,
    window::{Parse, Parsed, Stop, Window, WindowProbe},
    zip::{self, Directory, Entry},
};
use crate::contract::{Contents, Format, Reason};

/// The first bytes of a file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";
/// The longest header that is read, in bytes; NumPy itself takes 10,000 unless told otherwise.
const MAX_HEADER: u64 = 64 << 10;
const OBJECT: &str = "object";
/// A header has `descr`, `fortran_order` and `shape`.
const MEMBERS: usize = 3;
/// How deep records may be nested.
const RECORDS: u32 = 8;
/// The most arrays of an archive or a file that are read.
const ARRAYS: usize = 4096;
/// Most headers are shorter than this, in bytes.
const SHORT: u64 = 1 << 10;

/// Files of NumPy.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Arrays>().next().is_some(),
    places: |evidence| evidence.all::<Arrays>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff: |_, size, start| start.starts_with(MAGIC).then(|| WindowProbe::boxed(ArrayFile, size, start)),
    describe,
    judged: "header against size; arrays of objects are pickles",
    ..Family::of(Format::NumPy)
};

/// Counts of a file.
pub(super) struct Arrays(pub Counts);

/// A header.
struct Header {
    dtype: &'static str,
    /// Bytes of an element; none for Python objects.
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

    /// Each call of `numpy.save` with one open file puts an array behind those before it.
    fn parse(&self, file: &Window<'_>) -> Parsed<Self::Output> {
        let mut counts = Counts::default();
        let mut at = 0;
        for _ in 0..ARRAYS {
            let rest = file.part(at..file.len())?;
            let header = header(&rest)?;
            counts.add(header.dtype, header.elements);
            let Some(end) = end(&header)? else { return Ok((counts, pickle(&rest, "", 0)?)) };
            let more = end < rest.len() && rest.up_to(end, MAGIC.len() as u64)? == MAGIC;
            if !more {
                check_size(&header, rest.len())?;
                return Ok((counts, None));
            }
            at += end;
        }
        Err(Stop::TooLarge(format!("it has more than {ARRAYS} arrays")))
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
        let range = zip::data(file, entry)?;
        let header = if entry.method == 0 {
            header(&file.part(range)?)
        } else {
            // The data may be of any size; its CRC-32 stands for it.
            deflated(file, entry, &range)
        };
        let header = match header {
            // Compressed in another way than NumPy does.
            Err(Stop::TooLarge(_)) => continue,
            header => header.map_err(named)?,
        };
        check_size(&header, entry.size).map_err(named)?;
        counts.add(header.dtype, header.elements);
    }
    Ok(counts)
}

/// The header of a deflated array, of which no more than its beginning is unpacked.
fn deflated(file: &Window<'_>, entry: &Entry, range: &Range<u64>) -> Parsed<Header> {
    let short = zip::beginning(file, entry, range, SHORT)?;
    match header(&Window::of_bytes(&short)) {
        Err(Stop::Bad(_)) => header(&Window::of_bytes(&zip::beginning(file, entry, range, MAX_HEADER + 12)?)),
        found => found,
    }
}

/// Whether a deflated entry is an array without Python objects, so that there is nothing to be looked for in it.
pub(super) fn is_plain(file: &Window<'_>, entry: &Entry, range: &Range<u64>) -> Parsed<bool> {
    if !zip::beginning(file, entry, range, SHORT)?.starts_with(MAGIC) {
        return Ok(false);
    }
    match deflated(file, entry, range) {
        Ok(header) => Ok(!header.objects),
        Err(Stop::Bad(_)) => Ok(false),
        Err(stop) => Err(stop),
    }
}

/// The pickle that an array of Python objects is, so many pickles and archives deep.
pub(super) fn pickle(window: &Window<'_>, name: &str, level: u32) -> Parsed<Option<PickleFact>> {
    let header = header(window)?;
    if !header.objects {
        return Ok(None);
    }
    let place = if name.is_empty() { "array of Python objects" } else { name };
    let context = pickle::Context { named: true, level, ..pickle::Context::default() };
    pickle::judge(&window.part(header.data..window.len())?, place, context)
}

/// Where the array ends; none when it is of Python objects.
fn end(header: &Header) -> Parsed<Option<u64>> {
    let Some(size) = header.size else { return Ok(None) };
    let end = header.elements.checked_mul(size).and_then(|bytes| bytes.checked_add(header.data));
    end.map(Some).ok_or_else(|| Stop::bad("its header describes more than 64 bits can count"))
}

fn check_size(header: &Header, length: u64) -> Parsed<()> {
    match end(header)? {
        Some(expected) if expected != length => {
            Err(Stop::Bad(format!("it has {length} bytes, its header describes {expected}")))
        }
        _ => Ok(()),
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
    let header = literal::parse(&text).ok_or_else(|| Stop::bad("its header is no dict as Python writes it"))?;
    let member = |name: &str| header.get(name).ok_or_else(|| malformed(name));
    let (descr, order, shape) = (member("descr")?, member("fortran_order")?, member("shape")?);
    if !matches!(order, Literal::Bool(_)) || !matches!(&header, Literal::Dict(items) if items.len() == MEMBERS) {
        return Err(Stop::bad("its header has other members than a header has"));
    }
    let elements = elements(shape).ok_or_else(|| malformed("usable shape"))?;
    let (dtype, size) = kind(descr, 0).ok_or_else(|| malformed("known descr"))?;
    let objects = dtype == OBJECT || has_objects(descr);
    Ok(Header { dtype, size: size.filter(|_| !objects), objects, elements, data: at + length })
}

fn elements(shape: &Literal) -> Option<u64> {
    let Literal::Tuple(sizes) = shape else { return None };
    sizes.iter().try_fold(1u64, |product, size| product.checked_mul(size.size()?))
}

/// What `descr` says: a type such as `'<f4'`, or the fields of a record, which lie one behind the other.
fn kind(descr: &Literal, depth: u32) -> Option<(&'static str, Option<u64>)> {
    match descr {
        Literal::Text(text) => dtype(text),
        Literal::List(fields) if depth < RECORDS => {
            let mut sum = Some(0u64);
            for field in fields {
                let size = self::field(field, depth)?;
                sum = sum.zip(size).and_then(|(sum, size)| sum.checked_add(size));
            }
            Some(("record", sum))
        }
        _ => None,
    }
}

/// The size of `(name, type)` or `(name, type, shape)`; none inside when it has Python objects.
#[allow(clippy::option_option, reason = "a field that is none, and a field without a size")]
fn field(field: &Literal, depth: u32) -> Option<Option<u64>> {
    let Literal::Tuple(parts) = field else { return None };
    let (kind_of, shape) = match parts.as_slice() {
        [_, kind] => (kind, None),
        [_, kind, shape] => (kind, Some(shape)),
        _ => return None,
    };
    let (_, size) = kind(kind_of, depth + 1)?;
    let count = match shape {
        None => 1,
        Some(Literal::Int(_)) => shape.and_then(Literal::size)?,
        Some(shape) => elements(shape)?,
    };
    Some(size.and_then(|size| size.checked_mul(count)))
}

/// Kind and size as in `'<f4'`; dates have a unit behind them.
fn dtype(descr: &str) -> Option<(&'static str, Option<u64>)> {
    let descr = descr.strip_prefix(['<', '>', '|', '=']).unwrap_or(descr);
    let kind = descr.chars().next()?;
    let rest = descr.get(1..)?;
    let digits = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, unit) = rest.split_at(digits);
    let dated = matches!(kind, 'M' | 'm') && unit.starts_with('[') && unit.ends_with(']');
    if !unit.is_empty() && !dated {
        return None;
    }
    let size = digits.parse::<u64>().ok();
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
        ('c', Some(32)) => "C256",
        ('U', Some(size)) => return Some(("text", Some(size.checked_mul(4)?))),
        ('S' | 'a', Some(_)) => "bytes",
        ('M' | 'm', Some(8)) => "time",
        ('V', Some(_)) => "record",
        _ => return None,
    };
    Some((name, size))
}

/// Whether a field of a record is of Python objects.
fn has_objects(descr: &Literal) -> bool {
    match descr {
        Literal::Text(text) => dtype(text).is_some_and(|(name, _)| name == OBJECT),
        Literal::List(fields) => fields.iter().any(|field| match field {
            Literal::Tuple(parts) => parts.get(1).is_some_and(has_objects),
            _ => false,
        }),
        _ => false,
    }
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
