//! Walks protobuf messages field by field, over what does not matter without reading it (protobuf encoding guide). No I/O.

use std::ops::Range;

use super::window::{Parsed, Stop, Window};

/// The most fields of one file.
const FIELDS: u64 = 4_000_000;

/// A field of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Value {
    /// An integer.
    Varint(u64),
    /// Four or eight bytes, where they lie in the window.
    Fixed(Range<u64>),
    /// Text, bytes or a message, where it lies in the window.
    Bytes(Range<u64>),
}

/// Counts the fields of a file.
#[derive(Debug, Default)]
pub(super) struct Budget(u64);

/// Fields of a message that lies in a range of a window.
pub(super) struct Fields<'a, 'w> {
    window: &'a Window<'w>,
    at: u64,
    end: u64,
}

impl<'a, 'w> Fields<'a, 'w> {
    pub fn new(window: &'a Window<'w>, range: &Range<u64>) -> Self {
        Self { window, at: range.start, end: range.end }
    }

    /// The next field's number and value.
    ///
    /// # Errors
    /// `Bad` when the message is malformed.
    pub fn next(&mut self, budget: &mut Budget) -> Parsed<Option<(u64, Value)>> {
        if self.at >= self.end {
            return Ok(None);
        }
        budget.0 += 1;
        if budget.0 > FIELDS {
            return Err(Stop::TooLarge(format!("it has more than {FIELDS} fields")));
        }
        let key = self.varint()?;
        let number = key >> 3;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed(self.skip(8)?),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.skip(length)?)
            }
            5 => Value::Fixed(self.skip(4)?),
            other => return Err(Stop::Bad(format!("byte {} begins a field of the unknown type {other}", self.at))),
        };
        if number == 0 {
            return Err(Stop::Bad(format!("byte {} belongs to a field without a number", self.at)));
        }
        Ok(Some((number, value)))
    }

    fn varint(&mut self) -> Parsed<u64> {
        let bytes = self.window.bytes(self.at..self.end.min(self.at + 10))?;
        let mut number = 0u64;
        for (position, byte) in (0u32..).zip(bytes) {
            let bits = u64::from(byte & 0x7F);
            number |= bits.checked_shl(7 * position).unwrap_or_default();
            if byte & 0x80 == 0 {
                self.at += u64::from(position) + 1;
                return Ok(number);
            }
        }
        Err(Stop::Bad(format!("the number at byte {} does not end", self.at)))
    }

    fn skip(&mut self, length: u64) -> Parsed<Range<u64>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end);
        let Some(end) = end else {
            return Err(Stop::Bad(format!(
                "the field at byte {} has {length} bytes, but only {} follow",
                self.at,
                self.end - self.at
            )));
        };
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }
}

/// A short text of a message.
pub(super) fn text(window: &Window<'_>, range: &Range<u64>) -> Parsed<String> {
    let end = range.end.min(range.start + 4096);
    Ok(String::from_utf8_lossy(window.bytes(range.start..end)?).into_owned())
}

/// The integers of a packed field.
pub(super) fn packed(window: &Window<'_>, range: &Range<u64>) -> Parsed<Vec<u64>> {
    let mut fields = Fields::new(window, range);
    let mut numbers = Vec::new();
    while fields.at < fields.end {
        numbers.push(fields.varint()?);
        if numbers.len() > 64 {
            return Err(Stop::bad("a tensor has more than 64 dimensions"));
        }
    }
    Ok(numbers)
}
