//! Follows a pickle stream symbolically, opcode by opcode. It imports and calls nothing. Opcodes as in Python's `pickletools`. No I/O.

use std::{collections::BTreeMap, ops::Range};

use super::{
    Import, Limits, Stream, globals,
    values::{Object, Value, ValueId, Values},
};
use crate::{
    contract::PickleTier,
    format::window::{Parsed, Stop, Window},
};

/// The longest line that is an argument, in bytes.
const LINE: u64 = 4 << 10;
/// The most imports that are remembered by name.
const IMPORTS: usize = 1024;

/// Told of each object whose state was set: where reading goes on, when raw bytes follow that are no part of the stream.
pub(in crate::format) type Gap<'a> = &'a mut dyn FnMut(&Values, ValueId, u64) -> Parsed<Option<u64>>;

/// Why a stream cannot be followed any further.
enum Halt {
    /// The window stopped it.
    Stop(Stop),
    /// The stream is malformed.
    Malformed(String),
}

impl From<Stop> for Halt {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Bad(text) => Self::Malformed(text),
            stop => Self::Stop(stop),
        }
    }
}

type Step<T> = Result<T, Halt>;

fn malformed<T>(text: impl Into<String>) -> Step<T> {
    Err(Halt::Malformed(text.into()))
}

pub(super) struct Machine<'a> {
    window: Window<'a>,
    limits: &'a Limits,
    begin: u64,
    at: u64,
    /// Where the frame ends that is being read.
    frame: Option<u64>,
    opcodes: u64,
    jumps: u32,
    /// Bytes that were passed over without being looked at.
    skipped: u64,
    calls: u64,
    stack: Vec<ValueId>,
    marks: Vec<usize>,
    memo: BTreeMap<u64, ValueId>,
    values: Values,
    imports: Vec<Import>,
    tier: PickleTier,
    offence: Option<String>,
    protocol: u8,
}

/// Follows one stream.
pub(super) fn run(window: Window<'_>, begin: u64, limits: &Limits, gap: Gap<'_>) -> Parsed<Stream> {
    let mut machine = Machine {
        window,
        limits,
        begin,
        at: begin,
        frame: None,
        opcodes: 0,
        jumps: 0,
        skipped: 0,
        calls: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        values: Values::default(),
        imports: Vec::new(),
        tier: PickleTier::None,
        offence: None,
        protocol: 0,
    };
    let (root, problem) = loop {
        match machine.step(gap) {
            Ok(None) => {}
            Ok(Some(root)) => break (Some(root), None),
            Err(Halt::Stop(stop)) => return Err(stop),
            Err(Halt::Malformed(text)) => break (None, Some(text)),
        }
    };
    if let Some(problem) = &problem {
        machine.raise(PickleTier::Code, || format!("cannot be followed to its end ({problem})"));
    }
    let Machine { at, calls, values, imports, tier, offence, .. } = machine;
    Ok(Stream { end: at, calls, root, values, imports, tier, offence, problem })
}

impl Machine<'_> {
    /// One opcode; the root when it was the last.
    fn step(&mut self, gap: Gap<'_>) -> Step<Option<ValueId>> {
        self.opcodes += 1;
        if self.opcodes > self.limits.opcodes || self.values.len() as u64 > self.limits.values {
            return Err(Halt::Stop(Stop::TooLarge(format!(
                "its pickle has more than {} opcodes",
                self.limits.opcodes
            ))));
        }
        if self.at - self.begin - self.skipped > self.limits.bytes {
            return Err(Halt::Stop(Stop::TooLarge(format!("its pickle has more than {} bytes", self.limits.bytes))));
        }
        let opcode = self.byte()?;
        match opcode {
            b'.' => return self.pop().map(Some),
            0x80 => self.protocol()?,
            0x95 => self.frame()?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.discard()?,
            b'1' => {
                self.above_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push(Value::Bool(true)),
            0x89 => self.push(Value::Bool(false)),
            b'I' | b'L' | b'F' | b'J' | b'K' | b'M' | 0x8A | 0x8B | b'G' => self.number(opcode)?,
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8C | 0x8D => self.string(opcode)?,
            b'B' | b'C' | 0x8E | 0x96 => self.bytes(opcode)?,
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push(Value::Tuple(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            0x8F => self.push(Value::Set(Vec::new())),
            b'l' | b't' | b'd' | 0x91 | 0x85..=0x87 => self.container(opcode)?,
            b'a' | b'e' | 0x90 => self.add_items(opcode)?,
            b's' | b'u' => self.set_items(opcode)?,
            b'g' | b'h' | b'j' => self.recall(opcode)?,
            b'p' | b'q' | b'r' | 0x94 => self.memoize(opcode)?,
            b'c' | 0x93 => self.import(opcode)?,
            b'R' | 0x81 | 0x92 | b'i' | b'o' => self.call(opcode)?,
            b'b' => self.build(gap)?,
            b'P' | b'Q' => self.persistent(opcode)?,
            0x82..=0x84 => self.extension(opcode)?,
            0x97 | 0x98 => {
                self.raise(PickleTier::Code, || "needs buffers from outside of it".to_owned());
                if opcode == 0x97 {
                    self.push(Value::Unknown);
                }
            }
            other => return malformed(format!("byte {} is {other:#04x}, which is no opcode", self.at - 1)),
        }
        Ok(None)
    }

    fn raise(&mut self, tier: PickleTier, offence: impl FnOnce() -> String) {
        if tier > self.tier {
            self.tier = tier;
            self.offence = Some(offence());
        }
    }

    fn push(&mut self, value: Value) {
        let id = self.values.push(value);
        self.stack.push(id);
    }

    /// The stack above the last mark only: what is below it is out of reach.
    fn pop(&mut self) -> Step<ValueId> {
        if self.stack.len() <= self.marks.last().copied().unwrap_or(0) {
            return malformed(format!("the opcode before byte {} takes from an empty stack", self.at));
        }
        self.stack.pop().ok_or_else(|| Halt::Malformed("its stack is empty".to_owned()))
    }

    fn top(&mut self) -> Step<ValueId> {
        let top = self.pop()?;
        self.stack.push(top);
        Ok(top)
    }

    /// `POP` takes a mark when it is on top.
    fn discard(&mut self) -> Step<()> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(|_| ())
    }

    fn above_mark(&mut self) -> Step<Vec<ValueId>> {
        match self.marks.pop() {
            Some(mark) => Ok(self.stack.split_off(mark.min(self.stack.len()))),
            None => malformed(format!("the opcode before byte {} needs a mark that is not there", self.at)),
        }
    }

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

    fn byte(&mut self) -> Step<u8> {
        let range = self.advance(1);
        Ok(self.window.array::<1>(range.start)?[0])
    }

    fn little<const N: usize>(&mut self) -> Step<u64> {
        let range = self.advance(N as u64);
        let bytes = self.window.array::<N>(range.start)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn line(&mut self) -> Step<String> {
        let start = self.window.up_to(self.at, LINE)?;
        let Some(length) = start.iter().position(|byte| *byte == b'\n') else {
            return malformed(format!("the line at byte {} does not end", self.at));
        };
        let text = String::from_utf8_lossy(start.get(..length).unwrap_or_default()).into_owned();
        self.advance(length as u64 + 1);
        Ok(text)
    }

    fn protocol(&mut self) -> Step<()> {
        if self.at != self.begin + 1 {
            self.raise(PickleTier::Code, || "names its protocol in the middle".to_owned());
        }
        self.protocol = self.byte()?;
        if self.protocol > 5 { malformed(format!("it has protocol {}", self.protocol)) } else { Ok(()) }
    }

    /// A frame within a frame, or one that is longer than the rest: unpicklers differ in what they read then.
    fn frame(&mut self) -> Step<()> {
        let length = self.little::<8>()?;
        let end = self.at.saturating_add(length);
        if self.frame.is_some_and(|frame| self.at < frame) || end > self.window.len() {
            self.raise(PickleTier::Dangerous, || "has frames that do not fit".to_owned());
        }
        self.frame = Some(end);
        Ok(())
    }

    fn number(&mut self, opcode: u8) -> Step<()> {
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
                let line = self.line()?;
                let text = line.trim();
                match (opcode, text) {
                    (b'I', "00") => Value::Bool(false),
                    (b'I', "01") => Value::Bool(true),
                    (b'F', text) => match text.parse() {
                        Ok(number) => Value::Float(number),
                        Err(_) => return malformed(format!("{line:?} is no number")),
                    },
                    (_, text) => match text.trim_end_matches('L').parse() {
                        Ok(number) => Value::Int(number),
                        Err(_) if is_decimal(text) => Value::BigInt,
                        // Other bases (`0x10`) mean different things to different unpicklers.
                        Err(_) => Value::Unknown,
                    },
                }
            }
        };
        self.push(value);
        Ok(())
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
        if range.end - range.start < Limits::JUMP {
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

    fn string(&mut self, opcode: u8) -> Step<()> {
        let length = match opcode {
            b'S' | b'V' => {
                let line = self.line()?;
                let text = if opcode == b'S' { unquoted(&line) } else { Some(line) };
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
                Err(_) => return malformed(format!("the text at byte {} is no UTF-8", range.start)),
            }
        };
        self.push(value);
        Ok(())
    }

    fn bytes(&mut self, opcode: u8) -> Step<()> {
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

    fn container(&mut self, opcode: u8) -> Step<()> {
        let items = match opcode {
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0x85..=opcode {
                    items.push(self.pop()?);
                }
                items.reverse();
                items
            }
            _ => self.above_mark()?,
        };
        let value = match opcode {
            b'l' => Value::List(items),
            0x91 => Value::Set(items),
            b'd' => Value::Dict(self.pairs(&items)?),
            _ => Value::Tuple(items),
        };
        self.push(value);
        Ok(())
    }

    fn pairs(&self, items: &[ValueId]) -> Step<Vec<(ValueId, ValueId)>> {
        if !items.len().is_multiple_of(2) {
            return malformed(format!("a dict before byte {} has a key without a value", self.at));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn add_items(&mut self, opcode: u8) -> Step<()> {
        let items = if opcode == b'a' { vec![self.pop()?] } else { self.above_mark()? };
        let target = self.top()?;
        match self.values.get_mut(target) {
            Some(Value::List(list)) if opcode != 0x90 => list.extend(items),
            Some(Value::Set(set)) if opcode == 0x90 => set.extend(items),
            Some(Value::Object(object)) => {
                object.items.extend(items);
                self.calls_a_method(target, "append");
            }
            _ => self.raise(PickleTier::Code, || "adds items to something that is no list".to_owned()),
        }
        Ok(())
    }

    fn set_items(&mut self, opcode: u8) -> Step<()> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.above_mark()?
        };
        let pairs = self.pairs(&items)?;
        let target = self.top()?;
        match self.values.get_mut(target) {
            Some(Value::Dict(entries)) => entries.extend(pairs),
            Some(Value::Object(object)) => {
                object.entries.extend(pairs);
                self.calls_a_method(target, "set items in");
            }
            _ => self.raise(PickleTier::Code, || "sets items in something that is no dict".to_owned()),
        }
        Ok(())
    }

    /// `weights_only` once let items be set in anything, and memory was overwritten (CVE-2026-24747).
    fn calls_a_method(&mut self, target: ValueId, what: &str) {
        let kinds = [
            ("collections", "OrderedDict"),
            ("collections", "Counter"),
            ("collections", "defaultdict"),
            ("collections", "deque"),
        ];
        let plain = [("builtins", "dict"), ("builtins", "list"), ("builtins", "set")];
        let callable = self.values.callable(target);
        if !callable.is_some_and(|callable| kinds.contains(&callable) || plain.contains(&callable)) {
            let shown = callable.map_or("an object".to_owned(), |(module, name)| format!("{module}.{name}"));
            let known = callable.is_some_and(|(module, name)| globals::tier(module, name) == PickleTier::KnownSafe);
            self.raise(if known { PickleTier::KnownSafe } else { PickleTier::Code }, || {
                format!("would {what} {shown}")
            });
        }
    }

    fn recall(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'h' => self.little::<1>()?,
            b'j' => self.little::<4>()?,
            _ => self.memo_key()?,
        };
        match self.memo.get(&key) {
            Some(&id) => self.stack.push(id),
            None => return malformed(format!("it takes {key} from its memo, where nothing is")),
        }
        Ok(())
    }

    fn memo_key(&mut self) -> Step<u64> {
        let line = self.line()?;
        line.trim().parse().map_or_else(|_| malformed(format!("{line:?} is no place in a memo")), Ok)
    }

    fn memoize(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'q' => self.little::<1>()?,
            b'r' => self.little::<4>()?,
            b'p' => self.memo_key()?,
            _ => self.memo.len() as u64,
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn import(&mut self, opcode: u8) -> Step<()> {
        let names = if opcode == b'c' {
            Some((self.line()?, self.line()?))
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            self.values.text(module).map(str::to_owned).zip(self.values.text(name).map(str::to_owned))
        };
        let Some((module, name)) = names else {
            self.raise(PickleTier::Dangerous, || "imports something whose name it hides".to_owned());
            self.push(Value::Unknown);
            return Ok(());
        };
        let global = self.global(&module, &name);
        self.push(global);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Value {
        let module = globals::renamed(module).to_owned();
        let tier = globals::tier(&module, name);
        self.raise(tier, || format!("imports {module}.{name}"));
        if self.imports.len() < IMPORTS {
            self.imports.push(Import { module: module.clone(), name: name.to_owned(), at: self.at, tier });
        }
        Value::Global { module, name: name.to_owned() }
    }

    fn call(&mut self, opcode: u8) -> Step<()> {
        let (callable, arguments) = match opcode {
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                (self.pop()?, arguments)
            }
            0x92 => {
                let (keywords, arguments) = (self.pop()?, self.pop()?);
                let both = self.values.push(Value::Tuple(vec![arguments, keywords]));
                (self.pop()?, both)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let items = self.above_mark()?;
                let arguments = self.values.push(Value::Tuple(items));
                let global = self.global(&module, &name);
                (self.values.push(global), arguments)
            }
            _ => {
                let mut items = self.above_mark()?;
                if items.is_empty() {
                    return malformed("it makes an object without a class");
                }
                let callable = items.remove(0);
                (callable, self.values.push(Value::Tuple(items)))
            }
        };
        if self.values.global(callable).is_none() {
            self.raise(PickleTier::Code, || "calls something that is no plain import".to_owned());
        }
        self.nested_load(callable, arguments);
        self.calls += 1;
        let object = Object { callable, arguments, state: None, items: Vec::new(), entries: Vec::new() };
        self.push(Value::Object(Box::new(object)));
        Ok(())
    }

    /// The bytes that torch would load are judged by the caller; without them to see, it is code.
    fn nested_load(&mut self, callable: ValueId, arguments: ValueId) {
        if self.values.global(callable) != Some(globals::NESTED) {
            return;
        }
        let first = self.values.elements(arguments).and_then(<[_]>::first).copied();
        if !first.is_some_and(|first| matches!(self.values.get(first), Value::Bytes(_))) {
            self.raise(PickleTier::Code, || "loads a pickle that it hides".to_owned());
        }
    }

    fn build(&mut self, gap: Gap<'_>) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        match self.values.get_mut(target) {
            Some(Value::Object(object)) => object.state = Some(state),
            _ => self.raise(PickleTier::Code, || "sets the state of something that is no object".to_owned()),
        }
        if let Some(next) = gap(&self.values, target, self.at)? {
            if next < self.at || next > self.window.len() {
                return malformed(format!("an array behind byte {} goes on to byte {next}", self.at));
            }
            self.frame = None;
            self.skipped += next - self.at;
            self.at = next;
        }
        Ok(())
    }

    fn persistent(&mut self, opcode: u8) -> Step<()> {
        let key = if opcode == b'P' {
            let line = self.line()?;
            self.values.push(Value::Text(line))
        } else {
            self.pop()?
        };
        self.push(Value::Persistent(key));
        Ok(())
    }

    fn extension(&mut self, opcode: u8) -> Step<()> {
        let number = match opcode {
            0x82 => self.little::<1>()?,
            0x83 => self.little::<2>()?,
            _ => self.little::<4>()?,
        };
        self.raise(PickleTier::Dangerous, || format!("imports by the number {number} of copyreg's registry"));
        self.push(Value::Unknown);
        Ok(())
    }
}

/// A string of Python without its quotes.
fn unquoted(line: &str) -> Option<String> {
    let line = line.trim();
    let quote = line.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    line.strip_prefix(quote)?.strip_suffix(quote).map(str::to_owned)
}

fn is_decimal(text: &str) -> bool {
    let digits = text.trim_end_matches('L').trim_start_matches('-');
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
