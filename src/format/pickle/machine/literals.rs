//! Arguments of opcodes: numbers, texts, bytes and frames as they stand in the stream. No I/O.

use std::ops::Range;

use super::{Halt, Machine, Step, malformed};
use crate::{
    contract::{PickleTier, report},
    format::{
        pickle::{Limits, values::Value},
        window::Stop,
    },
};

/// How far the end of a line is looked for, in bytes: most are short, and a text of protocol 0 may be of any length.
const LINES: [u64; 6] = [4 << 10, 64 << 10, 1 << 20, 4 << 20, 16 << 20, 48 << 20];
/// The longest line of a name or a number, in bytes.
const LINE: u64 = 64 << 10;

impl Machine<'_> {
    fn advance(&mut self, length: u64) -> Range<u64> {
        let end = self.at.saturating_add(length);
        if let Some(frame) = self.frame {
            if end > frame && self.at < frame {
                self.raise(PickleTier::Dangerous, || "has an argument that crosses the end of its frame".to_owned());
            }
            if end >= frame {
                self.frame = None;
            }
        }
        let range = self.at..end;
        self.at = end;
        range
    }

    pub(super) fn byte(&mut self) -> Step<u8> {
        let range = self.advance(1);
        Ok(self.window.array::<1>(range.start)?[0])
    }

    pub(super) fn little<const N: usize>(&mut self) -> Step<u64> {
        let range = self.advance(N as u64);
        let bytes = self.window.array::<N>(range.start)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Goes to behind the end of the line; gives back where it stands, without its end.
    fn pass_line(&mut self) -> Step<Range<u64>> {
        for most in LINES.into_iter().filter(|most| *most <= self.limits.bytes) {
            let start = self.window.up_to(self.at, most)?;
            if let Some(length) = start.iter().position(|byte| *byte == b'\n') {
                let range = self.advance(length as u64 + 1);
                return Ok(range.start..range.end - 1);
            }
            if (start.len() as u64) < most {
                return malformed(format!("the line at byte {} does not end", self.at));
            }
        }
        Err(Halt::Stop(Stop::TooLarge(format!("its pickle has a line of more than {} bytes", self.limits.bytes))))
    }

    /// A name. None that can be imported is as long as a line may be.
    pub(super) fn line(&mut self) -> Step<String> {
        let begin = self.at;
        match self.short_line()? {
            Some(line) => Ok(line),
            None => malformed(format!("the line at byte {begin} is no name")),
        }
    }

    /// A line; none when it is longer than names and numbers are, of which only leading zeros could be so many.
    pub(super) fn short_line(&mut self) -> Step<Option<String>> {
        let range = self.pass_line()?;
        if range.end - range.start > LINE {
            return Ok(None);
        }
        Ok(Some(String::from_utf8_lossy(self.window.bytes(range)?).into_owned()))
    }

    /// Something that Python takes and other unpicklers do not. In what is a pickle for sure it is a fault; what may be anything is
    /// followed as Python would.
    pub(super) fn oddity(&mut self, problem: impl Fn() -> String) -> Step<()> {
        if self.limits.lenient {
            return self.fault(problem);
        }
        self.raise(PickleTier::Code, || format!("is written in an odd way ({})", problem()));
        Ok(())
    }

    pub(super) fn protocol(&mut self) -> Step<()> {
        if self.at != self.begin + 1 {
            self.raise(PickleTier::Code, || "names its protocol in the middle".to_owned());
        }
        self.protocol = self.byte()?;
        let protocol = self.protocol;
        if protocol > 5 { self.fault(|| format!("it has protocol {protocol}")) } else { Ok(()) }
    }

    /// A frame within a frame, or one that is longer than the rest: unpicklers differ in what they read then.
    pub(super) fn frame(&mut self) -> Step<()> {
        let length = self.little::<8>()?;
        let end = self.at.saturating_add(length);
        if self.frame.is_some_and(|frame| self.at < frame) || end > self.window.len() {
            self.raise(PickleTier::Dangerous, || "has frames that do not fit".to_owned());
        }
        self.frame = Some(end);
        Ok(())
    }

    pub(super) fn number(&mut self, opcode: u8) -> Step<()> {
        let signed = |number: u64, bits: u32| (number << (64 - bits)).cast_signed() >> (64 - bits);
        let value = match opcode {
            b'J' => Value::Int(signed(self.little::<4>()?, 32)),
            b'K' => Value::Int(self.little::<1>()?.cast_signed()),
            b'M' => Value::Int(self.little::<2>()?.cast_signed()),
            b'G' => Value::Float(f64::from_bits(self.little::<8>()?.swap_bytes())),
            0x8A | 0x8B => {
                let length = if opcode == 0x8A { self.little::<1>()? } else { self.little::<4>()? };
                let range = self.advance(length);
                if length > 8 {
                    self.skip(&range)?;
                    Value::BigInt
                } else {
                    let bytes = self.window.bytes(range)?;
                    let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
                    Value::Int(if bytes.is_empty() {
                        0
                    } else {
                        signed(number, 8 * u32::try_from(length).unwrap_or(8))
                    })
                }
            }
            _ => {
                let Some(line) = self.short_line()? else {
                    self.push(Value::Unknown);
                    return Ok(());
                };
                match (opcode, line.trim()) {
                    (b'I', "00") => Value::Bool(false),
                    (b'I', "01") => Value::Bool(true),
                    (b'F', _) => self.float(&line)?,
                    (_, text) => match text.trim_end_matches('L').parse() {
                        Ok(number) => Value::Int(number),
                        Err(_) if is_decimal(text) => Value::BigInt,
                        // Other bases (`0x10`) mean different things to different unpicklers.
                        Err(_) => Value::Unknown,
                    },
                }
            }
        };
        match value {
            Value::Int(number) => self.push_number(number),
            value => self.push(value),
        }
        Ok(())
    }

    fn float(&mut self, line: &str) -> Step<Value> {
        if let Ok(number) = line.trim().parse() {
            return Ok(Value::Float(number));
        }
        let problem = || format!("{:?} is no number", report::clean(line, 80));
        if plain(line).parse::<f64>().is_ok() {
            self.oddity(problem)?;
        } else {
            self.fault(problem)?;
        }
        Ok(Value::Unknown)
    }

    /// Bytes that are only passed over: they are not fetched when they are many.
    fn skip(&mut self, range: &Range<u64>) -> Step<()> {
        if range.end > self.window.len() {
            return malformed(format!(
                "it ends at byte {}, but its structure goes on to byte {}",
                self.window.len(),
                range.end
            ));
        }
        if range.end - range.start < self.limits.jump {
            // Fetched with what stands around it: a second look costs more than these bytes.
            self.window.bytes(range.clone())?;
            return Ok(());
        }
        self.jumps += 1;
        self.skipped += range.end - range.start;
        if self.jumps > Limits::JUMPS {
            return Err(Halt::Stop(Stop::TooLarge(format!(
                "its pickle holds more than {} large texts or arrays",
                Limits::JUMPS
            ))));
        }
        Ok(())
    }

    pub(super) fn string(&mut self, opcode: u8) -> Step<()> {
        let length = match opcode {
            b'S' | b'V' => {
                let range = self.pass_line()?;
                if range.end - range.start > Limits::TEXT {
                    self.push(Value::LongText(range));
                    return Ok(());
                }
                let line = String::from_utf8_lossy(self.window.bytes(range)?).into_owned();
                let text = if opcode == b'S' { unquoted(&line) } else { Some(line) };
                // No library escapes what is plain; a text that is escaped is never compared with a name.
                self.push(text.filter(|text| !text.contains('\\')).map_or(Value::Unknown, Value::Text));
                return Ok(());
            }
            b'U' | 0x8C => self.little::<1>()?,
            b'T' | b'X' => self.little::<4>()?,
            _ => self.little::<8>()?,
        };
        let range = self.advance(length);
        self.skip(&range)?;
        let value = if length > Limits::TEXT {
            Value::LongText(range)
        } else {
            let bytes = self.window.bytes(range.clone())?;
            match std::str::from_utf8(bytes) {
                Ok(text) => Value::Text(text.to_owned()),
                // Strings of Python 2 are bytes.
                Err(_) if matches!(opcode, b'T' | b'U') => Value::Bytes(range),
                // Python takes halves of characters beyond the first 65,536, which Rust has no texts for.
                Err(_) if bytes.windows(2).any(|pair| matches!(pair, [0xED, 0xA0..=0xBF])) => Value::Unknown,
                Err(_) => {
                    self.fault(|| format!("the text at byte {} is no UTF-8", range.start))?;
                    Value::Unknown
                }
            }
        };
        self.push(value);
        Ok(())
    }

    pub(super) fn bytes(&mut self, opcode: u8) -> Step<()> {
        let length = match opcode {
            b'C' => self.little::<1>()?,
            b'B' => self.little::<4>()?,
            _ => self.little::<8>()?,
        };
        let range = self.advance(length);
        self.skip(&range)?;
        self.push(Value::Bytes(range));
        Ok(())
    }
}

/// A string of Python without its quotes.
fn unquoted(line: &str) -> Option<String> {
    let line = line.trim();
    let quote = line.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    line.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned)
}

/// A number as Python takes it: up to a zero byte, with underscores between its digits.
pub(super) fn plain(line: &str) -> String {
    line.split('\0').next().unwrap_or_default().trim().replace('_', "")
}

fn is_decimal(text: &str) -> bool {
    let digits = text.trim_end_matches('L').trim_start_matches('-');
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
