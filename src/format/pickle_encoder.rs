//! Writes a JSON object as a pickle (protocol 2) of plain data, which Python reads back equal to what its `json` reads. No I/O.

use std::ops::Range;

use super::json::{Event, JsonError, Limits, Parser, Sink};

/// The deepest nesting that is taken, in levels.
pub const MAX_DEPTH: usize = 200;
/// The longest integer that is taken, in digits: Python's own limit.
const MAX_DIGITS: usize = 4300;

/// Why a text cannot be written as a pickle.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodeError {
    /// It is not a JSON object, too deep, or has a number that Python refuses.
    #[error("{0}")]
    Json(String),
}

/// The pickle of a JSON object: dict, list, str, int of any size, float, bool and None only, so nothing is imported and
/// nothing runs when it is read. Of a key that stands twice the last value counts, and `NaN` and `Infinity` are taken, both
/// as Python's `json` does.
///
/// # Errors
/// When the text is not such an object; the message says where.
pub fn encode(json: &str) -> Result<Vec<u8>, EncodeError> {
    let limits = Limits { depth: MAX_DEPTH, text: usize::MAX, python: true, halves: false };
    let mut parser = Parser::new(limits, 0);
    let mut writer = Writer { out: vec![0x80, 2], begun: false };
    let result = parser.feed(json.as_bytes(), &mut writer).and_then(|()| parser.finish(&mut writer));
    result.map_err(|error: JsonError| EncodeError::Json(error.to_string()))?;
    writer.out.push(b'.');
    Ok(writer.out)
}

/// Writes opcodes as events come: a container is opened with a mark and takes its items at its end.
struct Writer {
    out: Vec<u8>,
    begun: bool,
}

impl Writer {
    fn text(&mut self, text: &str) -> Result<(), String> {
        let length = u32::try_from(text.len()).map_err(|_| "a text has 4 GiB or more".to_owned())?;
        self.out.push(b'X');
        self.out.extend(length.to_le_bytes());
        self.out.extend(text.as_bytes());
        Ok(())
    }

    fn float(&mut self, value: f64) {
        self.out.push(b'G');
        self.out.extend(value.to_be_bytes());
    }

    fn number(&mut self, text: &str) -> Result<(), String> {
        if text.contains(['.', 'e', 'E']) {
            // Out of range becomes infinite, as in Python.
            let value = text.parse().map_err(|_| format!("{text} is not a number"))?;
            self.float(value);
        } else if let Ok(value) = text.parse::<i32>() {
            self.out.push(b'J');
            self.out.extend(value.to_le_bytes());
        } else {
            let bytes = two_complement(text)?;
            if let Ok(length) = u8::try_from(bytes.len()) {
                self.out.extend([0x8a, length]);
            } else {
                self.out.push(0x8b);
                self.out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
            }
            self.out.extend(bytes);
        }
        Ok(())
    }
}

impl Sink for Writer {
    fn event(&mut self, event: Event<'_>, _: Range<u64>) -> Result<(), String> {
        if !std::mem::replace(&mut self.begun, true) && event != Event::BeginObject {
            return Err("it is not a JSON object".to_owned());
        }
        match event {
            Event::BeginObject => self.out.extend(b"}("),
            Event::EndObject => self.out.push(b'u'),
            Event::BeginArray => self.out.extend(b"]("),
            Event::EndArray => self.out.push(b'e'),
            Event::Key(text) | Event::String(text) => self.text(text)?,
            Event::Number(text) => self.number(text)?,
            Event::NotFinite("NaN") => self.float(f64::NAN),
            Event::NotFinite("Infinity") => self.float(f64::INFINITY),
            Event::NotFinite(_) => self.float(f64::NEG_INFINITY),
            Event::Bool(true) => self.out.push(0x88),
            Event::Bool(false) => self.out.push(0x89),
            Event::Null => self.out.push(b'N'),
        }
        Ok(())
    }
}

/// A decimal integer as little-endian two's complement, as short as it can be.
fn two_complement(text: &str) -> Result<Vec<u8>, String> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() > MAX_DIGITS {
        return Err(format!("an integer has {} digits, Python reads at most {MAX_DIGITS}", digits.len()));
    }
    let mut bytes: Vec<u8> = Vec::new();
    for digit in digits.bytes() {
        let mut carry = u16::from(digit - b'0');
        for byte in &mut bytes {
            let value = u16::from(*byte) * 10 + carry;
            [*byte, _] = value.to_le_bytes();
            carry = value >> 8;
        }
        if carry > 0 {
            bytes.push(carry.to_le_bytes()[0]);
        }
    }
    bytes.push(0);
    if text.starts_with('-') {
        let mut carry = true;
        for byte in &mut bytes {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    // The sign is the highest bit: bytes above it that only repeat it are not needed.
    while let [.., below, top] = bytes[..]
        && ((top == 0 && below < 0x80) || (top == 0xff && below >= 0x80))
    {
        bytes.pop();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
