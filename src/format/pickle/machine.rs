//! Follows a pickle stream symbolically, opcode by opcode. It imports and calls nothing. Opcodes as in Python's `pickletools`. No I/O.

mod calls;
mod containers;
mod literals;
mod memo;

use std::collections::BTreeMap;

use memo::Memo;

use super::{
    Import, Limits, Stream, gadgets,
    values::{Value, ValueId, Values},
};
use crate::{
    contract::PickleTier,
    format::window::{Parsed, Stop, Window},
};

/// Small integers that are kept once, however often they stand in a stream.
const SMALL: i64 = 4096;

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

#[derive(Clone)]
pub(super) struct Machine<'a> {
    window: Window<'a>,
    limits: Limits,
    begin: u64,
    at: u64,
    /// Where the frame ends that is being read.
    frame: Option<u64>,
    opcodes: u64,
    jumps: u32,
    /// Bytes that were passed over without being looked at.
    skipped: u64,
    calls: u64,
    /// Imports whose names cannot be read.
    hidden: u64,
    /// Pickles in bytes that torch is told to load.
    loads: u64,
    /// Values that were compared with a second reading.
    compared: u64,
    stack: Vec<ValueId>,
    marks: Vec<usize>,
    memo: Memo,
    /// `None`, the truth values, the empty tuple and small integers, once they were seen.
    known: BTreeMap<i64, ValueId>,
    values: Values,
    imports: Vec<Import>,
    tier: PickleTier,
    offence: Option<String>,
    protocol: u8,
    problem: Option<String>,
}

/// Follows one stream. What is larger than the limits is said in the stream, so that what was seen before is not lost.
pub(super) fn run(window: Window<'_>, begin: u64, limits: &Limits, gap: Gap<'_>) -> Parsed<Stream> {
    let mut machine = Machine {
        window,
        limits: *limits,
        begin,
        at: begin,
        frame: None,
        opcodes: 0,
        jumps: 0,
        skipped: 0,
        calls: 0,
        hidden: 0,
        loads: 0,
        compared: 0,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Memo::default(),
        known: BTreeMap::new(),
        values: Values::default(),
        imports: Vec::new(),
        tier: PickleTier::None,
        offence: None,
        protocol: 0,
        problem: None,
    };
    let mut cut = None;
    let root = loop {
        match machine.step(gap) {
            Ok(None) => {}
            Ok(Some(root)) => break Some(root),
            Err(Halt::Stop(Stop::TooLarge(text))) => {
                cut = Some(text);
                break None;
            }
            Err(Halt::Stop(stop)) => return Err(stop),
            Err(Halt::Malformed(text)) => {
                machine.problem.get_or_insert(text);
                break None;
            }
        }
    };
    if let Some(offence) = gadgets::misused(&machine.values, root) {
        machine.raise(PickleTier::Code, || offence);
    }
    if let Some(problem) = machine.problem.clone() {
        machine.raise(PickleTier::Code, || format!("cannot be followed to its end ({problem})"));
    }
    let Machine { at, calls, hidden, values, imports, tier, offence, problem, .. } = machine;
    let root = root.filter(|_| problem.is_none());
    Ok(Stream { end: at, calls, hidden, root, values, imports, tier, offence, problem, cut })
}

impl Machine<'_> {
    /// One opcode; the root when it was the last.
    fn step(&mut self, gap: Gap<'_>) -> Step<Option<ValueId>> {
        self.check_limits()?;
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
            b'N' => self.push_known(-1, Value::None),
            0x88 => self.push_known(-2, Value::Bool(true)),
            0x89 => self.push_known(-3, Value::Bool(false)),
            b'I' | b'L' | b'F' | b'J' | b'K' | b'M' | 0x8A | 0x8B | b'G' => self.number(opcode)?,
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8C | 0x8D => self.string(opcode)?,
            b'B' | b'C' | 0x8E | 0x96 => self.bytes(opcode)?,
            b']' => self.push(Value::List(Vec::new())),
            b')' => self.push_known(-4, Value::Tuple(Vec::new())),
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

    /// A short stream can ask for much: by copies on its stack, by marks, by a place in its memo for each byte.
    fn check_limits(&mut self) -> Step<()> {
        let too_large = |text: String| Err(Halt::Stop(Stop::TooLarge(text)));
        self.opcodes += 1;
        if self.opcodes > self.limits.opcodes {
            return too_large(format!("its pickle has more than {} opcodes", self.limits.opcodes));
        }
        if (self.at - self.begin).saturating_sub(self.skipped) > self.limits.bytes {
            return too_large(format!("its pickle has more than {} bytes", self.limits.bytes));
        }
        if self.held() > self.limits.memory {
            return too_large(format!("its pickle builds more than {} bytes", self.limits.memory));
        }
        Ok(())
    }

    /// About the memory that is in use, in bytes; vectors may have twice the room of what is in them.
    fn held(&self) -> u64 {
        let (stack, marks) = (self.stack.len() as u64, self.marks.len() as u64);
        self.values.held() + 8 * stack + 16 * marks + self.memo.held()
    }

    fn raise(&mut self, tier: PickleTier, offence: impl FnOnce() -> String) {
        if tier > self.tier {
            self.tier = tier;
            self.offence = Some(offence());
        }
    }

    /// Something is wrong that ends the reading in Python. Imports behind it count all the same: unpicklers are many, and what
    /// makes one stop may be nothing to another.
    fn fault(&mut self, problem: impl FnOnce() -> String) -> Step<()> {
        if !self.limits.lenient {
            return Err(Halt::Malformed(problem()));
        }
        if self.problem.is_none() {
            let problem = problem();
            self.raise(PickleTier::Code, || format!("cannot be followed to its end ({problem})"));
            self.problem = Some(problem);
        }
        Ok(())
    }

    fn push(&mut self, value: Value) {
        let id = self.values.push(value);
        self.stack.push(id);
    }

    /// Values that cannot change and are met again and again need no place of their own.
    fn push_known(&mut self, key: i64, value: Value) {
        let id = if let Some(&id) = self.known.get(&key) {
            id
        } else {
            let id = self.values.push(value);
            self.known.insert(key, id);
            id
        };
        self.stack.push(id);
    }

    fn push_number(&mut self, number: i64) {
        if (0..SMALL).contains(&number) {
            self.push_known(number, Value::Int(number));
        } else {
            self.push(Value::Int(number));
        }
    }

    /// The stack above the last mark only: what is below it is out of reach.
    fn pop(&mut self) -> Step<ValueId> {
        if self.stack.len() > self.marks.last().copied().unwrap_or(0)
            && let Some(id) = self.stack.pop()
        {
            return Ok(id);
        }
        let at = self.at;
        self.fault(|| format!("the opcode before byte {at} takes from an empty stack"))?;
        Ok(self.values.push(Value::Unknown))
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
        if let Some(mark) = self.marks.pop() {
            return Ok(self.stack.split_off(mark.min(self.stack.len())));
        }
        let at = self.at;
        self.fault(|| format!("the opcode before byte {at} needs a mark that is not there"))?;
        Ok(std::mem::take(&mut self.stack))
    }
}
