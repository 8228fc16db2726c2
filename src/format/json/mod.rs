//! A bounded JSON reader that takes its text in pieces and hands on events, so that no document is ever held whole. No I/O.

pub(super) mod tree;
mod utf8;

use std::{mem, ops::Range};

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Event<'a> {
    BeginObject,
    EndObject,
    BeginArray,
    EndArray,
    Key(&'a str),
    /// A string value, cut at [`Limits::text`].
    String(&'a str),
    /// A number as it is written.
    Number(&'a str),
    /// `NaN`, `Infinity` or `-Infinity`, which Python writes.
    NotFinite(&'a str),
    Bool(bool),
    Null,
}

/// Who takes the events.
pub(super) trait Sink {
    /// Takes an event; `token` is where its text lies in the document. An error refuses the document and says why.
    fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String>;
}

/// How much is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Levels of objects and arrays.
    pub depth: usize,
    /// Bytes of a token: longer strings are cut, longer keys and numbers refused.
    pub text: usize,
    /// Whether Python's `NaN`, `Infinity` and `-Infinity` are taken.
    pub python: bool,
    /// Whether halves of surrogate pairs are taken, as Python does; a mark stands in their place.
    pub halves: bool,
}

/// Why a text is not JSON that is taken.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum JsonError {
    #[error("it is not UTF-8 near byte {at}")]
    Utf8 { at: u64 },
    #[error("it is not JSON: {expected} expected at byte {at}")]
    Syntax { at: u64, expected: &'static str },
    #[error("it nests deeper than {limit} levels at byte {at}")]
    Depth { at: u64, limit: usize },
    #[error("a name or number at byte {at} is longer than {limit} bytes")]
    TooLong { at: u64, limit: usize },
    #[error("it ends in the middle of its JSON")]
    Unfinished,
    #[error("{0}")]
    Refused(String),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Container {
    Object,
    Array,
}

/// What may come between tokens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// The token that is being read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lexeme {
    None,
    /// A number or a word.
    Bare,
    Text,
    Escape,
    Unicode {
        digits: u8,
        value: u32,
    },
}

/// What stands in place of a character that there is none of.
const REPLACEMENT: &[u8] = "\u{FFFD}".as_bytes();

/// The reader.
#[derive(Debug)]
pub(super) struct Parser {
    limits: Limits,
    at: u64,
    stack: Vec<Container>,
    expect: Expect,
    lexeme: Lexeme,
    begin: u64,
    buffer: Vec<u8>,
    key: bool,
    high_surrogate: Option<u32>,
    utf8: utf8::Check,
}

impl Parser {
    /// A reader of a document whose first byte has the offset `at`.
    pub fn new(limits: Limits, at: u64) -> Self {
        Self {
            limits,
            at,
            stack: Vec::new(),
            expect: Expect::Value,
            lexeme: Lexeme::None,
            begin: at,
            buffer: Vec::new(),
            key: false,
            high_surrogate: None,
            utf8: utf8::Check::default(),
        }
    }

    /// Takes the next piece of the document.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl Sink) -> Result<(), JsonError> {
        if !self.utf8.feed(bytes) {
            return Err(JsonError::Utf8 { at: self.at });
        }
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            let used = match self.lexeme {
                Lexeme::None => self.between(first, sink)?,
                Lexeme::Bare => self.bare(rest, sink)?,
                Lexeme::Text => self.text(rest, sink)?,
                Lexeme::Escape => self.escape(first)?,
                Lexeme::Unicode { digits, value } => self.unicode(first, digits, value)?,
            };
            self.at += used as u64;
            rest = &rest[used..];
        }
        Ok(())
    }

    /// Ends the document.
    pub fn finish(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        if self.lexeme == Lexeme::Bare {
            self.end_bare(sink)?;
        }
        let ended = self.expect == Expect::Nothing && self.lexeme == Lexeme::None && self.utf8.ended();
        if ended { Ok(()) } else { Err(JsonError::Unfinished) }
    }

    fn syntax(&self, expected: &'static str) -> JsonError {
        JsonError::Syntax { at: self.at, expected }
    }

    fn between(&mut self, byte: u8, sink: &mut impl Sink) -> Result<usize, JsonError> {
        match (self.expect, byte) {
            (_, b' ' | b'\t' | b'\n' | b'\r') => {}
            (Expect::Value | Expect::ValueOrEnd, b'{') => self.open(Container::Object, sink)?,
            (Expect::Value | Expect::ValueOrEnd, b'[') => self.open(Container::Array, sink)?,
            (Expect::Key | Expect::KeyOrEnd | Expect::Value | Expect::ValueOrEnd, b'"') => {
                self.key = matches!(self.expect, Expect::Key | Expect::KeyOrEnd);
                self.start(Lexeme::Text);
            }
            (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') => self.close(Container::Object, sink)?,
            (Expect::ValueOrEnd | Expect::CommaOrEnd, b']') => self.close(Container::Array, sink)?,
            (Expect::CommaOrEnd, b',') if self.stack.last() == Some(&Container::Object) => self.expect = Expect::Key,
            (Expect::CommaOrEnd, b',') | (Expect::Colon, b':') => self.expect = Expect::Value,
            (Expect::Value | Expect::ValueOrEnd, _) if is_bare(byte) => {
                self.start(Lexeme::Bare);
                return Ok(0);
            }
            (Expect::Value | Expect::ValueOrEnd, _) => return Err(self.syntax("a value")),
            (Expect::Key | Expect::KeyOrEnd, _) => return Err(self.syntax("a name in quotes")),
            (Expect::Colon, _) => return Err(self.syntax("a colon")),
            (Expect::CommaOrEnd, _) => return Err(self.syntax("a comma or the end of the list")),
            (Expect::Nothing, _) => return Err(self.syntax("nothing more")),
        }
        Ok(1)
    }

    fn start(&mut self, lexeme: Lexeme) {
        self.lexeme = lexeme;
        self.begin = self.at;
        self.buffer.clear();
    }

    fn open(&mut self, container: Container, sink: &mut impl Sink) -> Result<(), JsonError> {
        if self.stack.len() >= self.limits.depth {
            return Err(JsonError::Depth { at: self.at, limit: self.limits.depth });
        }
        self.stack.push(container);
        let (event, expect) = match container {
            Container::Object => (Event::BeginObject, Expect::KeyOrEnd),
            Container::Array => (Event::BeginArray, Expect::ValueOrEnd),
        };
        self.expect = expect;
        sink.event(event, self.at..self.at + 1).map_err(JsonError::Refused)
    }

    fn close(&mut self, container: Container, sink: &mut impl Sink) -> Result<(), JsonError> {
        if self.stack.pop() != Some(container) {
            return Err(self.syntax("the other closing bracket"));
        }
        self.after_value();
        let event = if container == Container::Object { Event::EndObject } else { Event::EndArray };
        sink.event(event, self.at..self.at + 1).map_err(JsonError::Refused)
    }

    fn after_value(&mut self) {
        self.expect = if self.stack.is_empty() { Expect::Nothing } else { Expect::CommaOrEnd };
    }

    fn bare(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<usize, JsonError> {
        let length = rest.iter().position(|&byte| !is_bare(byte)).unwrap_or(rest.len());
        if self.buffer.len() + length > self.limits.text {
            return Err(JsonError::TooLong { at: self.begin, limit: self.limits.text });
        }
        self.buffer.extend_from_slice(&rest[..length]);
        if length < rest.len() {
            self.end_bare(sink)?;
        }
        Ok(length)
    }

    fn end_bare(&mut self, sink: &mut impl Sink) -> Result<(), JsonError> {
        let buffer = mem::take(&mut self.buffer);
        let text = str::from_utf8(&buffer).unwrap_or_default();
        let event = match text {
            "true" => Event::Bool(true),
            "false" => Event::Bool(false),
            "null" => Event::Null,
            "NaN" | "Infinity" | "-Infinity" if self.limits.python => Event::NotFinite(text),
            _ if is_number(&buffer) => Event::Number(text),
            _ => return Err(JsonError::Syntax { at: self.begin, expected: "a value" }),
        };
        self.lexeme = Lexeme::None;
        self.after_value();
        let token = self.begin..self.begin + buffer.len() as u64;
        sink.event(event, token).map_err(JsonError::Refused)?;
        self.buffer = buffer;
        Ok(())
    }

    fn text(&mut self, rest: &[u8], sink: &mut impl Sink) -> Result<usize, JsonError> {
        let run = rest.iter().position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20).unwrap_or(rest.len());
        if run > 0 {
            self.lone_surrogate()?;
            self.push(&rest[..run])?;
        }
        match rest.get(run) {
            None => Ok(run),
            Some(b'\\') => {
                self.lexeme = Lexeme::Escape;
                Ok(run + 1)
            }
            Some(b'"') => {
                self.lone_surrogate()?;
                self.end_text(self.at + run as u64 + 1, sink)?;
                Ok(run + 1)
            }
            Some(_) => Err(JsonError::Syntax {
                at: self.at + run as u64,
                expected: "an escape in place of the control character",
            }),
        }
    }

    fn end_text(&mut self, end: u64, sink: &mut impl Sink) -> Result<(), JsonError> {
        let buffer = mem::take(&mut self.buffer);
        // The document is UTF-8, so only the cut at the limit can fall into a character.
        let text = match str::from_utf8(&buffer) {
            Ok(text) => text,
            Err(error) => str::from_utf8(&buffer[..error.valid_up_to()]).unwrap_or_default(),
        };
        self.lexeme = Lexeme::None;
        let event = if self.key {
            self.expect = Expect::Colon;
            Event::Key(text)
        } else {
            self.after_value();
            Event::String(text)
        };
        sink.event(event, self.begin..end).map_err(JsonError::Refused)?;
        self.buffer = buffer;
        Ok(())
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        let room = self.limits.text.saturating_sub(self.buffer.len());
        if self.key && bytes.len() > room {
            return Err(JsonError::TooLong { at: self.begin, limit: self.limits.text });
        }
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    /// Ends a surrogate pair that has only its first half.
    fn lone_surrogate(&mut self) -> Result<(), JsonError> {
        if self.high_surrogate.take().is_none() {
            return Ok(());
        }
        if self.limits.halves {
            self.push(REPLACEMENT)
        } else {
            Err(self.syntax("the second half of a surrogate pair"))
        }
    }

    fn escape(&mut self, byte: u8) -> Result<usize, JsonError> {
        let character = match byte {
            b'u' => {
                self.lexeme = Lexeme::Unicode { digits: 0, value: 0 };
                return Ok(1);
            }
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return Err(self.syntax("one of the escapes of JSON")),
        };
        self.lone_surrogate()?;
        self.push(&[character])?;
        self.lexeme = Lexeme::Text;
        Ok(1)
    }

    fn unicode(&mut self, byte: u8, digits: u8, value: u32) -> Result<usize, JsonError> {
        let digit = char::from(byte).to_digit(16).ok_or_else(|| self.syntax("a hexadecimal digit"))?;
        let (digits, value) = (digits + 1, value * 16 + digit);
        if digits < 4 {
            self.lexeme = Lexeme::Unicode { digits, value };
            return Ok(1);
        }
        self.lexeme = Lexeme::Text;
        let low = (0xDC00..=0xDFFF).contains(&value);
        let code = if let Some(high) = self.high_surrogate.filter(|_| low) {
            self.high_surrogate = None;
            0x10000 + ((high - 0xD800) << 10) + (value - 0xDC00)
        } else {
            self.lone_surrogate()?;
            value
        };
        if (0xD800..=0xDBFF).contains(&code) {
            self.high_surrogate = Some(code);
            return Ok(1);
        }
        match char::from_u32(code) {
            Some(character) => self.push(character.encode_utf8(&mut [0; 4]).as_bytes())?,
            None if self.limits.halves => self.push(REPLACEMENT)?,
            None => return Err(self.syntax("the first half of a surrogate pair")),
        }
        Ok(1)
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
}

/// Whether the text is a number as JSON (and Python) writes one.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let length = digits(fraction);
        if length == 0 {
            return false;
        }
        rest = &fraction[length..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let length = digits(exponent);
        return length > 0 && length == exponent.len();
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
