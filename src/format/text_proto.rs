//! The text form of protobuf messages (protobuf text format language), read in one pass. Pure, no I/O.

use super::window::{Parsed, Stop};

/// Messages in messages, so deep.
const DEPTH: usize = 64;

/// The value of a field.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Token {
    /// A text; its escapes are resolved.
    Text(Vec<u8>),
    /// A number or a name.
    Word,
    /// The beginning of a message.
    Message,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// Calls `take` with the depth, the name and the value of every field; texts that follow each other are one.
///
/// # Errors
/// `Bad` when it is no such text or does not end; those of `take`.
pub(super) fn read(bytes: &[u8], mut take: impl FnMut(usize, &str, Token) -> Parsed<()>) -> Parsed<()> {
    let mut reader = Reader { bytes, at: 0 };
    // What closes each message that is open.
    let mut open: Vec<u8> = Vec::new();
    while let Some(first) = reader.peek() {
        if open.last() == Some(&first) {
            open.pop();
            reader.at += 1;
        } else if matches!(first, b',' | b';') {
            reader.at += 1;
        } else {
            let name = reader.name()?;
            let colon = reader.peek() == Some(b':');
            reader.at += usize::from(colon);
            match reader.peek() {
                Some(b'[') if colon => reader.list(open.len(), name, &mut take)?,
                Some(begin @ (b'{' | b'<')) => {
                    open.push(if begin == b'{' { b'}' } else { b'>' });
                    reader.at += 1;
                    take(open.len() - 1, name, Token::Message)?;
                }
                Some(_) if colon => {
                    let value = reader.scalar()?;
                    take(open.len(), name, value)?;
                }
                _ => return Err(reader.damaged()),
            }
        }
        if open.len() > DEPTH {
            return Err(Stop::Bad(format!("its messages are nested more than {DEPTH} deep")));
        }
    }
    if open.is_empty() { Ok(()) } else { Err(Stop::bad("a message in it does not end: it is truncated")) }
}

impl<'a> Reader<'a> {
    fn damaged(&self) -> Stop {
        Stop::Bad(format!("it is no text of a protobuf message at byte {}", self.at))
    }

    /// The next byte that is neither space nor part of a comment.
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.bytes.get(self.at)? {
                b'#' => self.at += self.bytes[self.at..].iter().take_while(|byte| **byte != b'\n').count(),
                byte if byte.is_ascii_whitespace() => self.at += 1,
                byte => return Some(*byte),
            }
        }
    }

    fn run(&mut self, is_part: impl Fn(u8) -> bool) -> Parsed<&'a str> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take_while(|byte| is_part(**byte)).count();
        let text = std::str::from_utf8(&rest[..length]).ok().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| self.damaged())?;
        self.at += length;
        Ok(text)
    }

    /// A field's name; those of extensions stand in brackets.
    fn name(&mut self) -> Parsed<&'a str> {
        if self.peek() == Some(b'[') {
            let name = self.run(|byte| byte.is_ascii_graphic() && byte != b']')?;
            self.at += 1;
            return Ok(name);
        }
        self.run(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    }

    fn list(
        &mut self,
        depth: usize,
        name: &str,
        take: &mut impl FnMut(usize, &str, Token) -> Parsed<()>,
    ) -> Parsed<()> {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b',') => self.at += 1,
                // Lists of messages are never written, only read.
                Some(b'{' | b'<') | None => return Err(self.damaged()),
                Some(_) => {
                    let value = self.scalar()?;
                    take(depth, name, value)?;
                }
            }
        }
    }

    fn scalar(&mut self) -> Parsed<Token> {
        let mut text: Option<Vec<u8>> = None;
        while let Some(quote @ (b'"' | b'\'')) = self.peek() {
            self.at += 1;
            self.text(quote, text.get_or_insert_default())?;
        }
        if let Some(text) = text {
            return Ok(Token::Text(text));
        }
        self.run(|byte| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte))?;
        Ok(Token::Word)
    }

    fn text(&mut self, quote: u8, out: &mut Vec<u8>) -> Parsed<()> {
        loop {
            let byte =
                *self.bytes.get(self.at).ok_or_else(|| Stop::bad("a text in it does not end: it is truncated"))?;
            self.at += 1;
            match byte {
                b'\n' => return Err(self.damaged()),
                b'\\' => self.escape(out)?,
                byte if byte == quote => return Ok(()),
                byte => out.push(byte),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Parsed<()> {
        let kind = *self.bytes.get(self.at).ok_or_else(|| self.damaged())?;
        let (base, first, most) = match kind {
            b'0'..=b'7' => (8, self.at, 3),
            b'x' | b'X' => (16, self.at + 1, 2),
            b'u' => (16, self.at + 1, 4),
            b'U' => (16, self.at + 1, 8),
            other => {
                self.at += 1;
                out.push(match other {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'a' => 7,
                    b'b' => 8,
                    b'f' => 12,
                    b'v' => 11,
                    other => other,
                });
                return Ok(());
            }
        };
        let digits = self.bytes.get(first..).unwrap_or_default().iter().take(most);
        let digits = digits.map_while(|digit| char::from(*digit).to_digit(base));
        let (length, number) = digits
            .fold((0, 0u32), |(length, number), digit| (length + 1, number.wrapping_mul(base).wrapping_add(digit)));
        if length == 0 {
            return Err(self.damaged());
        }
        self.at = first + length;
        if matches!(kind, b'u' | b'U') {
            let character = char::from_u32(number).ok_or_else(|| self.damaged())?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
        } else {
            out.push(number.to_le_bytes()[0]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Parsed<Vec<(usize, String, Token)>> {
        let mut found = Vec::new();
        read(text, |depth, name, token| {
            found.push((depth, name.to_owned(), token));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn fields_are_found_at_any_depth() {
        let text = b"# first\nnode { name: \"a\" 'b\\x41\\101\\n' op: \"Const\" attr < key: 1.5e-3, value: [1, \"x\"]; [a.b]: true > }\nlast: -inf";
        let found = all(text).unwrap();
        assert_eq!(found[1], (1, "name".to_owned(), Token::Text(b"abAA\n".to_vec())));
        assert!(found.contains(&(2, "value".to_owned(), Token::Text(b"x".to_vec()))));
        assert_eq!(found.last(), Some(&(0, "last".to_owned(), Token::Word)));
        assert_eq!(found.iter().filter(|(_, _, token)| *token == Token::Message).count(), 2);
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for text in [&b"a {"[..], b"a: \"x", b"a }", b"a", b"a: {>", b"\0", b"a: \"\\", b"a: \"\\u\"", b"a: [1", b"[a"]
        {
            assert!(all(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        assert!(all("a{".repeat(100).as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..100), text in "[a-c:{}<>\\[\\]\"'\\\\0-9#,; \n]{0,60}") {
            let _ = all(&bytes);
            let _ = all(text.as_bytes());
        }
    }
}
