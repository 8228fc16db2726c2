//! Opcodes that fill containers and the memo. No I/O.

use super::{Machine, Step, literals::plain};
use crate::{
    contract::{PickleTier, report},
    format::pickle::{
        globals,
        values::{Value, ValueId},
    },
};

impl Machine<'_> {
    pub(super) fn container(&mut self, opcode: u8) -> Step<()> {
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

    fn pairs(&mut self, items: &[ValueId]) -> Step<Vec<(ValueId, ValueId)>> {
        if !items.len().is_multiple_of(2) {
            let at = self.at;
            self.fault(|| format!("a dict before byte {at} has a key without a value"))?;
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    pub(super) fn add_items(&mut self, opcode: u8) -> Step<()> {
        let items = if opcode == b'a' { vec![self.pop()?] } else { self.above_mark()? };
        let target = self.top()?;
        self.values.charge(8 * items.len() as u64);
        match self.values.get_mut(target) {
            Some(Value::List(list)) if opcode != 0x90 => list.extend(items),
            Some(Value::Set(set)) if opcode == 0x90 => set.extend(items),
            Some(Value::Object(object)) => {
                object.items.extend(items);
                self.calls_a_method(target, "append");
            }
            _ => {
                self.calls += 1;
                self.raise(PickleTier::Code, || "adds items to something that is no list".to_owned());
            }
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, opcode: u8) -> Step<()> {
        let items = if opcode == b's' {
            let value = self.pop()?;
            vec![self.pop()?, value]
        } else {
            self.above_mark()?
        };
        let pairs = self.pairs(&items)?;
        let target = self.top()?;
        self.values.charge(16 * pairs.len() as u64);
        match self.values.get_mut(target) {
            Some(Value::Dict(entries)) => entries.extend(pairs),
            Some(Value::Object(object)) => {
                object.entries.extend(pairs);
                self.calls_a_method(target, "set items in");
            }
            _ => {
                self.calls += 1;
                self.raise(PickleTier::Code, || "sets items in something that is no dict".to_owned());
            }
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
            let known =
                callable.is_some_and(|(module, name)| globals::tier(module, name, false) == PickleTier::KnownSafe);
            self.raise(if known { PickleTier::KnownSafe } else { PickleTier::Code }, || {
                format!("would {what} {shown}")
            });
        }
    }

    pub(super) fn recall(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'h' => self.little::<1>()?,
            b'j' => self.little::<4>()?,
            _ => self.memo_key()?,
        };
        if let Some(id) = self.memo.get(key) {
            self.stack.push(id);
        } else {
            self.fault(|| format!("it takes {key} from its memo, where nothing is"))?;
            self.push(Value::Unknown);
        }
        Ok(())
    }

    fn memo_key(&mut self) -> Step<u64> {
        let Some(line) = self.short_line()? else {
            self.oddity(|| "a place in its memo has very many digits".to_owned())?;
            return Ok(u64::MAX);
        };
        if let Ok(key) = line.trim().parse() {
            return Ok(key);
        }
        let problem = || format!("{:?} is no place in a memo", report::clean(&line, 80));
        let plain = plain(&line);
        let digits = plain.strip_prefix('+').unwrap_or(&plain);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        if is_number {
            self.oddity(problem)?;
        } else {
            self.fault(problem)?;
        }
        Ok(digits.parse().unwrap_or(u64::MAX))
    }

    pub(super) fn memoize(&mut self, opcode: u8) -> Step<()> {
        let key = match opcode {
            b'q' => self.little::<1>()?,
            b'r' => self.little::<4>()?,
            b'p' => self.memo_key()?,
            _ => self.memo.len(),
        };
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }
}
