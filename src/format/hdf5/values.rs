//! Types, shapes and attributes of HDF5 files; texts of variable length lie in heaps (HDF5 file format 3.0, sections III.E and
//! IV.A.2). Pure, no I/O.

use std::ops::Range;

use super::{
    super::window::{Parsed, Stop, Window},
    object::{Cursor, Message, UNDEFINED},
};

/// The longest text that is read, in bytes.
pub(super) const TEXT: u64 = 16 << 20;
/// The most objects of a heap that are passed over.
const HEAP: usize = 70_000;

/// A data type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Type {
    /// As other formats name it.
    pub name: &'static str,
    /// Bytes of an element.
    pub size: u64,
    text: Text,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Text {
    No,
    Fixed,
    Variable,
}

/// A data type message.
pub(super) fn data_type(window: &Window<'_>, range: &Range<u64>) -> Parsed<Type> {
    let mut cursor = Cursor::new(window, range);
    let (class, bits) = (cursor.number(1)? & 15, cursor.number(3)?);
    let size = cursor.number(4)?;
    let (name, text) = match (class, size) {
        (0, _) => (integer(size, bits & 8 != 0), Text::No),
        (1, 2) => {
            cursor.skip(5)?;
            // The exponent of bfloat16 has eight bits.
            (if cursor.number(1)? == 8 { "BF16" } else { "F16" }, Text::No)
        }
        (1, 1) => ("F8", Text::No),
        (1, 4) => ("F32", Text::No),
        (1, 8) => ("F64", Text::No),
        (3, _) => ("text", Text::Fixed),
        (9, 16) if bits & 15 == 1 => ("text", Text::Variable),
        // h5py writes truth values as an enumeration of one byte.
        (8, 1) => ("BOOL", Text::No),
        (6, _) => ("record", Text::No),
        _ => ("other", Text::No),
    };
    Ok(Type { name, size, text })
}

fn integer(size: u64, signed: bool) -> &'static str {
    match (size, signed) {
        (1, true) => "I8",
        (1, false) => "U8",
        (2, true) => "I16",
        (2, false) => "U16",
        (4, true) => "I32",
        (4, false) => "U32",
        (8, true) => "I64",
        (8, false) => "U64",
        _ => "other",
    }
}

/// Elements of a data space message; none when that is more than can be.
pub(super) fn elements(window: &Window<'_>, range: &Range<u64>) -> Parsed<Option<u64>> {
    let mut cursor = Cursor::new(window, range);
    let (version, rank) = (cursor.number(1)?, cursor.number(1)?);
    cursor.skip(1)?;
    match version {
        1 => {
            cursor.skip(5)?;
        }
        2 => {
            if cursor.number(1)? == 2 {
                return Ok(Some(0));
            }
        }
        other => return Err(Stop::Bad(format!("the shape at byte {} has the unknown version {other}", range.start))),
    }
    let mut product = Some(1u64);
    for _ in 0..rank {
        let size = cursor.number(8)?;
        product = product.and_then(|product| product.checked_mul(size));
    }
    Ok(product)
}

/// An attribute's name, and its text when it is one.
pub(super) fn attribute(window: &Window<'_>, message: &Message) -> Parsed<(String, Option<String>)> {
    let mut cursor = Cursor::new(window, &message.content);
    let (version, flags) = (cursor.number(1)?, cursor.number(1)?);
    let sizes = [cursor.number(2)?, cursor.number(2)?, cursor.number(2)?];
    let padded = match version {
        1 => true,
        2 => false,
        3 => {
            cursor.skip(1)?;
            false
        }
        other => {
            let at = message.content.start;
            return Err(Stop::Bad(format!("the attribute at byte {at} has the unknown version {other}")));
        }
    };
    let mut part = |length: u64| {
        let begin = cursor.skip(if padded { length.next_multiple_of(8) } else { length })?.start;
        Ok(begin..begin + length)
    };
    let (name, kind, shape) = (part(sizes[0])?, part(sizes[1])?, part(sizes[2])?);
    let name = String::from_utf8_lossy(window.bytes(name)?).trim_end_matches('\0').to_owned();
    let shared = !padded && flags & 3 != 0;
    if shared || elements(window, &shape)? != Some(1) {
        return Ok((name, None));
    }
    let kind = data_type(window, &kind)?;
    let text = match kind.text {
        Text::No => None,
        Text::Fixed => Some(lossy(window, cursor.skip(kind.size)?)?),
        Text::Variable => {
            let (length, heap, number) = (cursor.number(4)?, cursor.number(8)?, cursor.number(4)?);
            if length == 0 || heap == UNDEFINED {
                Some(String::new())
            } else {
                Some(heap_text(window, heap, number, length)?)
            }
        }
    };
    Ok((name, text))
}

fn lossy(window: &Window<'_>, range: Range<u64>) -> Parsed<String> {
    if range.end - range.start > TEXT {
        return Err(Stop::TooLarge(format!("a text in it has more than {TEXT} bytes")));
    }
    Ok(String::from_utf8_lossy(window.bytes(range)?).trim_end_matches('\0').to_owned())
}

/// A text in a global heap.
fn heap_text(window: &Window<'_>, heap: u64, wanted: u64, length: u64) -> Parsed<String> {
    let missing = || Stop::Bad(format!("the heap at byte {heap} has no object {wanted} of {length} bytes"));
    let mut cursor = Cursor::new(window, &(heap..window.len()));
    cursor.expect(*b"GCOL")?;
    cursor.skip(4)?;
    let size = cursor.number(8)?;
    let end = heap.checked_add(size).ok_or_else(missing)?;
    window.part(heap..end)?;
    let mut cursor = Cursor::new(window, &(heap + 16..end.max(heap + 16)));
    for _ in 0..HEAP {
        if cursor.left() < 16 {
            break;
        }
        let number = cursor.number(2)?;
        cursor.skip(6)?;
        let bytes = cursor.number(8)?;
        if number == wanted && number != 0 {
            let content = cursor.skip(bytes)?;
            return if length <= bytes { lossy(window, content.start..content.start + length) } else { Err(missing()) };
        }
        if number == 0 {
            break;
        }
        cursor.skip(bytes.checked_next_multiple_of(8).ok_or_else(missing)?)?;
    }
    Err(missing())
}
