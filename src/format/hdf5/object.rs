//! Objects of HDF5 files: their headers (versions 1 and 2) and the messages in them (HDF5 file format 3.0, section IV). No I/O.

use std::ops::Range;

use super::{
    super::window::{Parsed, Stop, Window},
    checksum,
};

/// An address that is none.
pub(super) const UNDEFINED: u64 = u64::MAX;
/// The most messages and continuations of one object.
const MESSAGES: usize = 20_000;
/// The largest part of a header that is read at once, in bytes.
const CHUNK: u64 = 1 << 20;

/// A message of an object.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub kind: u16,
    /// Its content, in the window.
    pub content: Range<u64>,
    /// Whether the content only says where the message lies.
    pub shared: bool,
}

/// Reads numbers one behind the other.
pub(super) struct Cursor<'a, 'w> {
    pub window: &'a Window<'w>,
    pub at: u64,
    end: u64,
}

impl<'a, 'w> Cursor<'a, 'w> {
    pub fn new(window: &'a Window<'w>, range: &Range<u64>) -> Self {
        Self { window, at: range.start, end: range.end }
    }

    pub fn skip(&mut self, length: u64) -> Parsed<Range<u64>> {
        let begin = self.at;
        let end = begin.checked_add(length).filter(|end| *end <= self.end);
        self.at = end.ok_or_else(|| Stop::Bad(format!("the structure at byte {begin} is cut off")))?;
        Ok(begin..self.at)
    }

    /// A number of up to eight bytes.
    pub fn number(&mut self, bytes: u64) -> Parsed<u64> {
        let range = self.skip(bytes)?;
        Ok(self.window.bytes(range)?.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    pub fn expect(&mut self, signature: [u8; 4]) -> Parsed<()> {
        let range = self.skip(4)?;
        if self.window.bytes(range.clone())? == signature {
            return Ok(());
        }
        let name = String::from_utf8_lossy(&signature);
        Err(Stop::Bad(format!("there is no {name} at byte {}", range.start)))
    }

    pub fn left(&self) -> u64 {
        self.end - self.at
    }
}

/// All messages of the object at an address.
pub(super) fn messages(window: &Window<'_>, address: u64) -> Parsed<Vec<Message>> {
    let start: [u8; 6] = window.array(address)?;
    let mut reader = Reader { window, messages: Vec::new(), open: Vec::new(), parts: 1, ordered: false };
    let mut cursor = Cursor::new(window, &(address..window.len()));
    let second = start.starts_with(b"OHDR");
    if second {
        let [.., version, flags] = start;
        if version != 2 {
            return Err(Stop::Bad(format!("the object at byte {address} has the unknown version {version}")));
        }
        let more = if flags & 0x20 == 0 { 0 } else { 16 } + if flags & 0x10 == 0 { 0 } else { 4 };
        cursor.skip(6 + more)?;
        let size = cursor.number(1 << (flags & 3))?;
        reader.ordered = flags & 4 != 0;
        let first = cursor.skip(size)?;
        checksum::check(window, address..first.end, &format!("the object at byte {address}"))?;
        reader.open.push(first);
    } else {
        if start[0] != 1 {
            return Err(Stop::Bad(format!("there is no object at byte {address}")));
        }
        cursor.skip(8)?;
        let size = cursor.number(4)?;
        cursor.skip(4)?;
        reader.open.push(cursor.skip(size)?);
    }
    while let Some(part) = reader.open.pop() {
        if part.end - part.start > CHUNK {
            return Err(Stop::TooLarge(format!("the object at byte {address} is too large")));
        }
        if second {
            reader.second(&part)?;
        } else {
            reader.first(&part)?;
        }
        if reader.messages.len() > MESSAGES {
            return Err(Stop::TooLarge(format!("the object at byte {address} has more than {MESSAGES} messages")));
        }
    }
    Ok(reader.messages)
}

struct Reader<'a, 'w> {
    window: &'a Window<'w>,
    messages: Vec<Message>,
    open: Vec<Range<u64>>,
    /// How many parts of the header were named, this one and those in `open` among them: a part may name itself many times.
    parts: usize,
    /// Whether messages of version 2 have a number for their order.
    ordered: bool,
}

impl Reader<'_, '_> {
    fn first(&mut self, part: &Range<u64>) -> Parsed<()> {
        let mut cursor = Cursor::new(self.window, part);
        while cursor.left() >= 8 {
            let (kind, size, flags) = (cursor.number(2)?, cursor.number(2)?, cursor.number(1)?);
            cursor.skip(3)?;
            let content = cursor.skip(size)?;
            self.take(kind, flags, content, 0)?;
        }
        Ok(())
    }

    fn second(&mut self, part: &Range<u64>) -> Parsed<()> {
        let mut cursor = Cursor::new(self.window, part);
        let least = if self.ordered { 6 } else { 4 };
        // What is shorter than a message is a gap.
        while cursor.left() >= least {
            let (kind, size, flags) = (cursor.number(1)?, cursor.number(2)?, cursor.number(1)?);
            cursor.skip(least - 4)?;
            let content = cursor.skip(size)?;
            self.take(kind, flags, content, 4)?;
        }
        Ok(())
    }

    /// A continuation (16) is another part of the header; in version 2 with a signature before and a checksum behind.
    fn take(&mut self, kind: u64, flags: u64, content: Range<u64>, frame: u64) -> Parsed<()> {
        if kind != 0x10 {
            let kind = u16::try_from(kind).unwrap_or(u16::MAX);
            self.messages.push(Message { kind, content, shared: flags & 2 != 0 });
            return Ok(());
        }
        let mut cursor = Cursor::new(self.window, &content);
        let (begin, length) = (cursor.number(8)?, cursor.number(8)?);
        let end = begin.saturating_add(length);
        self.window.part(begin..end)?;
        if frame > 0 {
            Cursor::new(self.window, &(begin..end)).expect(*b"OCHK")?;
        }
        let (begin, end) = (begin + frame, end.saturating_sub(frame));
        self.parts += 1;
        if self.parts > MESSAGES {
            return Err(Stop::TooLarge(format!("the object at byte {begin} has more than {MESSAGES} parts")));
        }
        if begin <= end {
            self.open.push(begin..end);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part that names itself twice doubles what is open with every step.
    #[test]
    fn parts_that_name_themselves_are_bounded() {
        let content = [0u64, 64].map(u64::to_le_bytes).concat();
        let continuation = [&[0x10, 0, 16, 0, 0, 0, 0, 0][..], &content].concat();
        let mut bytes = [continuation.clone(), continuation].concat();
        bytes.resize(64, 0);
        let window = Window::of_bytes(&bytes);
        let mut reader = Reader { window: &window, messages: Vec::new(), open: Vec::new(), parts: 1, ordered: false };
        let stop = loop {
            if let Err(stop) = reader.first(&(0..64)) {
                break stop;
            }
        };
        assert!(matches!(stop, Stop::TooLarge(_)), "{stop:?}");
        assert!(reader.open.len() < MESSAGES, "{}", reader.open.len());
    }
}
