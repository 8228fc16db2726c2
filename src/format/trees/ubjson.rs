//! Walks a UBJSON document to its exact end, with a few texts on the way (UBJSON draft 12, as XGBoost writes it). Pure, no I/O.

use crate::format::window::{Parsed, Stop, Window};

/// Levels of objects and arrays.
const DEPTH: usize = 64;
/// The most values.
const VALUES: u64 = 20_000_000;

/// An open container.
struct Open {
    object: bool,
    /// Type of all values, when it is said once.
    kind: Option<u8>,
    /// Values that are left, when they are counted.
    left: Option<u64>,
    key: String,
}

/// Reads to the end; `visit` is told of the keys that lead to each integer or text, and of it.
///
/// # Errors
/// `Bad` when the document is malformed or does not end with the window.
pub(super) fn walk(file: &Window<'_>, visit: &mut dyn FnMut(&[&str], &str)) -> Parsed<()> {
    let mut reader = Reader { file, at: 0 };
    let mut open: Vec<Open> = Vec::new();
    let mut values = 0u64;
    loop {
        values += 1;
        if values > VALUES {
            return Err(Stop::TooLarge(format!("it has more than {VALUES} values")));
        }
        let kind = match reader.next_kind(&mut open)? {
            Some(kind) => kind,
            None if open.is_empty() => break,
            None => continue,
        };
        match kind {
            b'{' | b'[' => {
                if open.len() >= DEPTH {
                    return Err(Stop::Bad(format!("its values are nested more than {DEPTH} deep")));
                }
                let container = reader.open(kind == b'{')?;
                // Numbers of one type, counted, are passed over at once.
                if let (false, Some(size), Some(count)) =
                    (container.object, container.kind.and_then(width), container.left)
                {
                    let bytes = size
                        .checked_mul(count)
                        .ok_or_else(|| Stop::bad("an array is longer than 64 bits can count"))?;
                    reader.skip(bytes)?;
                } else {
                    open.push(container);
                    continue;
                }
            }
            b'S' | b'H' => {
                let text = reader.text()?;
                let keys: Vec<&str> = open.iter().map(|open| open.key.as_str()).collect();
                visit(&keys, &text);
            }
            kind => {
                let size = width(kind).ok_or_else(|| {
                    Stop::Bad(format!("byte {} begins a value of the unknown type {kind:#04x}", reader.at))
                })?;
                let at = reader.skip(size)?;
                if b"iUIlL".contains(&kind) {
                    let keys: Vec<&str> = open.iter().map(|open| open.key.as_str()).collect();
                    visit(&keys, &reader.integer(kind, at, size)?.to_string());
                }
            }
        }
        if open.is_empty() {
            break;
        }
    }
    if reader.at == file.len() {
        return Ok(());
    }
    Err(Stop::Bad(format!("it ends at byte {}, and {} bytes follow", reader.at, file.len() - reader.at)))
}

fn width(kind: u8) -> Option<u64> {
    Some(match kind {
        b'Z' | b'N' | b'T' | b'F' => 0,
        b'i' | b'U' | b'C' => 1,
        b'I' => 2,
        b'l' | b'd' => 4,
        b'L' | b'D' => 8,
        _ => return None,
    })
}

struct Reader<'a, 'w> {
    file: &'a Window<'w>,
    at: u64,
}

impl Reader<'_, '_> {
    fn skip(&mut self, length: u64) -> Parsed<u64> {
        let at = self.at;
        let end = at.checked_add(length).filter(|end| *end <= self.file.len());
        self.at =
            end.ok_or_else(|| Stop::Bad(format!("it is truncated: {length} bytes from byte {at} are missing")))?;
        Ok(at)
    }

    fn byte(&mut self) -> Parsed<u8> {
        let at = self.skip(1)?;
        Ok(self.file.array::<1>(at)?[0])
    }

    fn peek(&self) -> Parsed<Option<u8>> {
        Ok(self.file.up_to(self.at, 1)?.first().copied())
    }

    fn integer(&self, kind: u8, at: u64, size: u64) -> Parsed<i64> {
        let bytes = self.file.bytes(at..at + size)?;
        let number = bytes.iter().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).cast_signed();
        let unused = 64 - 8 * u32::try_from(size).unwrap_or(8);
        Ok(if kind == b'U' { number } else { number << unused >> unused })
    }

    fn length(&mut self) -> Parsed<u64> {
        let kind = self.byte()?;
        let size = width(kind)
            .filter(|_| b"iUIlL".contains(&kind))
            .ok_or_else(|| Stop::Bad(format!("byte {} is no length", self.at)))?;
        let at = self.skip(size)?;
        u64::try_from(self.integer(kind, at, size)?)
            .map_err(|_| Stop::Bad(format!("a length before byte {} is negative", self.at)))
    }

    fn text(&mut self) -> Parsed<String> {
        let length = self.length()?;
        let at = self.skip(length)?;
        let bytes = self.file.bytes(at..at + length.min(4096))?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn open(&mut self, object: bool) -> Parsed<Open> {
        let mut kind = None;
        if self.peek()? == Some(b'$') {
            self.at += 1;
            kind = Some(self.byte()?);
        }
        let mut left = None;
        if self.peek()? == Some(b'#') {
            self.at += 1;
            left = Some(self.length()?);
        } else if kind.is_some() {
            return Err(Stop::Bad(format!("a typed container at byte {} has no count", self.at)));
        }
        Ok(Open { object, kind, left, key: String::new() })
    }

    /// The type of the next value; none when a container was closed instead.
    fn next_kind(&mut self, open: &mut Vec<Open>) -> Parsed<Option<u8>> {
        let Some(container) = open.last_mut() else { return self.byte().map(Some) };
        let closed = match &mut container.left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => {
                let end = if container.object { b'}' } else { b']' };
                let ends = self.peek()? == Some(end);
                self.at += u64::from(ends);
                ends
            }
        };
        if closed {
            open.pop();
            return Ok(None);
        }
        if container.object {
            container.key = self.text()?;
        }
        match container.kind {
            Some(kind) => Ok(Some(kind)),
            None => self.byte().map(Some),
        }
    }
}
