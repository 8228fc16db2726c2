//! Walks MessagePack item by item, over large texts and bytes without reading them (specification of 2013, with `bin` and `ext`). No I/O.

use std::ops::Range;

use super::window::{Parsed, Stop, Window};

/// The most items of one file.
const ITEMS: u64 = 4_000_000;

/// An item; arrays and maps only say how many items (or pairs of them) follow.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Item {
    /// Nil, a truth value, a float or a negative integer.
    Scalar,
    /// A whole number that is not negative.
    Number(u64),
    /// UTF-8 text, where it lies in the window.
    Text(Range<u64>),
    /// Bytes, where they lie in the window.
    Bytes(Range<u64>),
    /// So many items follow.
    Array(u64),
    /// So many keys and values follow.
    Map(u64),
    /// A type of the application and its bytes.
    Extension(i8, Range<u64>),
}

/// Items of a range of a window.
pub(super) struct Items<'a, 'w> {
    window: &'a Window<'w>,
    at: u64,
    end: u64,
    left: u64,
}

impl<'a, 'w> Items<'a, 'w> {
    pub fn new(window: &'a Window<'w>, range: &Range<u64>) -> Self {
        Self { window, at: range.start, end: range.end, left: ITEMS }
    }

    /// Where the next item begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The next item.
    ///
    /// # Errors
    /// `Bad` when it is malformed or goes on behind the range.
    pub fn next(&mut self) -> Parsed<Item> {
        self.left =
            self.left.checked_sub(1).ok_or_else(|| Stop::TooLarge(format!("it has more than {ITEMS} values")))?;
        let first = self.number(1)?;
        Ok(match first {
            0..=0x7F => Item::Number(first),
            0x80..=0x8F => Item::Map(first & 0x0F),
            0x90..=0x9F => Item::Array(first & 0x0F),
            0xA0..=0xBF => Item::Text(self.skip(first & 0x1F)?),
            0xC0 | 0xC2 | 0xC3 | 0xE0..=0xFF => Item::Scalar,
            0xC4..=0xC6 => Item::Bytes(self.sized(1 << (first - 0xC4))?),
            0xC7..=0xC9 => {
                let length = self.number(1 << (first - 0xC7))?;
                self.extension(length)?
            }
            0xCA => self.skip(4).map(|_| Item::Scalar)?,
            0xCB => self.skip(8).map(|_| Item::Scalar)?,
            0xCC..=0xCF => Item::Number(self.number(1 << (first - 0xCC))?),
            0xD0..=0xD3 => self.signed(1 << (first - 0xD0))?,
            0xD4..=0xD8 => self.extension(1 << (first - 0xD4))?,
            0xD9..=0xDB => Item::Text(self.sized(1 << (first - 0xD9))?),
            0xDC | 0xDD => Item::Array(self.number(2 << (first - 0xDC))?),
            0xDE | 0xDF => Item::Map(self.number(2 << (first - 0xDE))?),
            _ => {
                return Err(Stop::Bad(format!("byte {} begins a value of the unknown type {first:#04x}", self.at - 1)));
            }
        })
    }

    /// An integer with a sign; negative ones are nothing that facts come from.
    fn signed(&mut self, width: u64) -> Parsed<Item> {
        let number = self.number(width)?;
        let negative = number >> (8 * width - 1) & 1 == 1;
        Ok(if negative { Item::Scalar } else { Item::Number(number) })
    }

    fn extension(&mut self, length: u64) -> Parsed<Item> {
        let kind = self.number(1)?;
        let kind = u8::try_from(kind).unwrap_or_default().cast_signed();
        Ok(Item::Extension(kind, self.skip(length)?))
    }

    fn sized(&mut self, width: u64) -> Parsed<Range<u64>> {
        let length = self.number(width)?;
        self.skip(length)
    }

    /// A big-endian number of at most eight bytes.
    fn number(&mut self, width: u64) -> Parsed<u64> {
        let range = self.skip(width)?;
        let bytes = self.window.bytes(range)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn skip(&mut self, length: u64) -> Parsed<Range<u64>> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end);
        let Some(end) = end else {
            return Err(Stop::Bad(format!(
                "it is truncated: the value at byte {} goes on for {length} bytes, {} follow",
                self.at,
                self.end - self.at
            )));
        };
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }
}

/// A text; what is longer than 4 KiB is cut.
pub(super) fn text(window: &Window<'_>, range: &Range<u64>) -> Parsed<String> {
    let end = range.end.min(range.start + 4096);
    Ok(String::from_utf8_lossy(window.bytes(range.start..end)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_walked_over() {
        let table: &[(&[u8], Item)] = &[
            (&[0x7F], Item::Number(127)),
            (&[0xFF], Item::Scalar),
            (&[0x81], Item::Map(1)),
            (&[0x92], Item::Array(2)),
            (b"\xA2ab", Item::Text(1..3)),
            (&[0xC0], Item::Scalar),
            (&[0xC4, 1, 9], Item::Bytes(2..3)),
            (&[0xC6, 0, 0, 0, 1, 9], Item::Bytes(5..6)),
            (&[0xC7, 1, 0xFF, 9], Item::Extension(-1, 3..4)),
            (&[0xC9, 0, 0, 0, 1, 2, 9], Item::Extension(2, 6..7)),
            (&[0xCA, 0, 0, 0, 0], Item::Scalar),
            (&[0xCB, 0, 0, 0, 0, 0, 0, 0, 0], Item::Scalar),
            (&[0xCD, 1, 0], Item::Number(256)),
            (&[0xCF, 0, 0, 0, 0, 0, 0, 0, 1], Item::Number(1)),
            (&[0xD0, 0x80], Item::Scalar),
            (&[0xD1, 0, 5], Item::Number(5)),
            (&[0xD3, 0x80, 0, 0, 0, 0, 0, 0, 0], Item::Scalar),
            (&[0xD5, 1, 8, 9], Item::Extension(1, 2..4)),
            (b"\xDA\0\x01a", Item::Text(3..4)),
            (&[0xDC, 0, 3], Item::Array(3)),
            (&[0xDF, 0, 0, 0, 3], Item::Map(3)),
        ];
        for (bytes, expected) in table {
            let window = Window::of_bytes(bytes);
            let mut items = Items::new(&window, &(0..window.len()));
            assert_eq!(items.next().as_ref(), Ok(expected), "{bytes:?}");
            assert_eq!(items.at(), bytes.len() as u64, "{bytes:?}");
            for length in 0..bytes.len() {
                let mut short = Items::new(&window, &(0..length as u64));
                assert!(matches!(short.next(), Err(Stop::Bad(_))), "{bytes:?} {length}");
            }
        }
        let window = Window::of_bytes(&[0xC1]);
        assert!(Items::new(&window, &(0..1)).next().is_err());
    }
}
