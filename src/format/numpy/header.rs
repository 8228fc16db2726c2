//! The header of an array: a dict as Python writes it, read as Python reads it or not at all. Pure, no I/O.
//!
//! NumPy evaluates the text, so of two equal keys the last one counts, and comments and escapes are allowed. A reader that sees
//! other numbers there than NumPy takes a pickle for numbers, so everything that NumPy does not write is an error.

use super::super::window::{Parsed, Stop};

/// The texts of the two members that matter.
pub(super) struct Members<'a> {
    pub descr: &'a str,
    pub shape: &'a str,
}

/// Reads the dict.
///
/// # Errors
/// `Bad` when it is anything but a plain dict with the three members.
pub(super) fn members(text: &str) -> Parsed<Members<'_>> {
    let malformed = || Stop::bad("its header is not what NumPy writes");
    if text.contains(['\\', '#']) || !text.is_ascii() && text.contains('\0') {
        return Err(malformed());
    }
    let inner = text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or_else(malformed)?;
    let (mut descr, mut order, mut shape) = (None, None, None);
    for item in split(inner, ',').ok_or_else(malformed)? {
        let item = item.trim();
        if item.is_empty() {
            continue;
        }
        let parts = split(item, ':').ok_or_else(malformed)?;
        let [key, value] = parts[..] else { return Err(malformed()) };
        let place = match literal(key.trim()) {
            Some("descr") => &mut descr,
            Some("fortran_order") => &mut order,
            Some("shape") => &mut shape,
            _ => return Err(malformed()),
        };
        if place.replace(value.trim()).is_some() {
            return Err(Stop::bad("its header says one thing twice"));
        }
    }
    match (descr, order, shape) {
        (Some(descr), Some("True" | "False"), Some(shape)) => Ok(Members { descr, shape }),
        _ => Err(malformed()),
    }
}

/// One string, and nothing else.
pub(super) fn literal(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    text.strip_prefix(quote)?.strip_suffix(quote).filter(|inner| !inner.contains(['"', '\'']))
}

/// Parts between separators that stand in no brackets and no string.
fn split(text: &str, separator: char) -> Option<Vec<&str>> {
    let (mut parts, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0u32, None);
    for (at, character) in text.char_indices() {
        if let Some(open) = quote {
            quote = (character != open).then_some(open);
            continue;
        }
        match character {
            '"' | '\'' => quote = Some(character),
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.checked_sub(1)?,
            _ if character == separator && depth == 0 => {
                parts.push(text.get(begin..at)?);
                begin = at + character.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(text.get(begin..)?);
    (depth == 0 && quote.is_none()).then_some(parts)
}

/// Whether a field of a record is of Python objects, or may be: every string that is not the name of a field counts.
pub(super) fn has_objects(descr: &str) -> bool {
    let (mut open, mut first, mut rest) = (Vec::new(), true, descr);
    while let Some(character) = rest.chars().next() {
        let tail = rest.get(character.len_utf8()..).unwrap_or_default();
        rest = tail;
        match character {
            '"' | '\'' => {
                let Some((text, tail)) = tail.split_once(character) else { return true };
                let is_name = first && matches!(open[..], [.., '[', '(']);
                if !is_name && is_object(text) {
                    return true;
                }
                (rest, first) = (tail, false);
            }
            '(' | '[' => {
                open.push(character);
                first = true;
            }
            ')' | ']' => {
                open.pop();
                first = false;
            }
            ',' => first = false,
            _ => {}
        }
    }
    false
}

fn is_object(text: &str) -> bool {
    text.contains("object") || text.contains('O')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_numpy_writes_is_read() {
        let good = members("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   \n").unwrap();
        assert_eq!((good.descr, good.shape), ("'<f4'", "(2, 3)"));
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'descr': '|O'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'descr' : '|O'}",
            "{ # 'descr': '<f4',\n'descr': '|O', 'fortran_order': False, 'shape': (2,)}",
            "{'d\\x65scr': '|O', 'descr': '<f4', 'fortran_order': False, 'shape': (2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'des' 'cr': '|O'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), u'descr': '|O'}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), **{'descr': '|O'}}",
            "dict(descr='|O')",
            "",
        ] {
            assert!(members(text).is_err(), "{text}");
        }
    }

    #[test]
    fn records_of_objects_are_told() {
        for (descr, expected) in [
            ("[('Open', '<f8'), ('O', '<i4')]", false),
            ("[('a', '|O')]", true),
            ("[('a', '<f8'), ('b', [('c', 'O8')])]", true),
            ("[('a', ('O', (2,)))]", true),
            ("[('a', 'f8,O')]", true),
            ("[('a', 'object')]", true),
        ] {
            assert_eq!(has_objects(descr), expected, "{descr}");
        }
    }
}
