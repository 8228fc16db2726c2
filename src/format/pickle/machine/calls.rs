//! Opcodes that import, call, and set the state of what was made. No I/O.

use super::{Gap, Halt, Machine, Step, malformed};
use crate::{
    contract::PickleTier,
    format::pickle::{
        Import, Limits, gadgets, globals,
        values::{Object, Value, ValueId},
    },
};

/// The most imports that are remembered by name.
const IMPORTS: usize = 1024;
/// The most values that are copied for second readings of raw arrays.
const COMPARED: u64 = 2_000_000;
/// The most memory of a stream that is copied for one, in bytes.
const COPIED: u64 = 8 << 20;

impl Machine<'_> {
    pub(super) fn import(&mut self, opcode: u8) -> Step<()> {
        let names = if opcode == b'c' {
            Some((self.line()?, self.line()?))
        } else {
            let (name, module) = (self.pop()?, self.pop()?);
            self.values.text(module).map(str::to_owned).zip(self.values.text(name).map(str::to_owned))
        };
        let Some((module, name)) = names else {
            self.hidden += 1;
            self.raise(PickleTier::Dangerous, || "imports something whose name it hides".to_owned());
            self.push(Value::Unknown);
            return Ok(());
        };
        let global = self.global(&module, &name);
        self.push(global);
        Ok(())
    }

    /// Python 3 takes the names of Python 2 in streams of protocols 0 to 2 only; a dangerous name is dangerous in both.
    fn global(&mut self, module: &str, name: &str) -> Value {
        let (new_module, new_name) = globals::renamed(module, name);
        let tier_of = |module, name| globals::tier(module, name, self.limits.script);
        let (old_tier, new_tier) = (tier_of(module, name), tier_of(new_module, new_name));
        let renamed = self.protocol < 3 || new_tier == PickleTier::Dangerous;
        let (module, name, tier) = if renamed { (new_module, new_name, new_tier) } else { (module, name, old_tier) };
        self.raise(tier, || format!("imports {module}.{name}"));
        let (module, name) = (module.to_owned(), name.to_owned());
        let import = || Import { module: module.clone(), name: name.clone(), tier };
        if self.imports.len() < IMPORTS {
            self.imports.push(import());
        } else if let Some(last) = self.imports.last_mut().filter(|last| last.tier < tier) {
            // However many there are, the worst is among those that are remembered.
            *last = import();
        }
        Value::Global(Box::new((module, name)))
    }

    pub(super) fn call(&mut self, opcode: u8) -> Step<()> {
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
                    self.fault(|| "it makes an object without a class".to_owned())?;
                    items.push(self.values.push(Value::Unknown));
                }
                let callable = items.remove(0);
                (callable, self.values.push(Value::Tuple(items)))
            }
        };
        if self.values.global(callable).is_none() {
            self.raise(PickleTier::Code, || "calls something that is no plain import".to_owned());
        }
        if !matches!(opcode, b'R' | 0x81) {
            // What these do is harmless when the class is, but torch's own reader has none of them.
            self.raise(PickleTier::KnownSafe, || "makes objects in a way that torch does not".to_owned());
        }
        if let Some(offence) = gadgets::call(&self.values, callable, arguments, matches!(opcode, 0x81 | 0x92)) {
            self.raise(PickleTier::Code, || offence);
        }
        if self.values.global(callable) == Some(globals::NESTED) {
            self.loads += 1;
        }
        self.calls += 1;
        let object = Object { callable, arguments, state: None, items: Vec::new(), entries: Vec::new() };
        self.push(Value::Object(Box::new(object)));
        Ok(())
    }

    pub(super) fn build(&mut self, gap: Gap<'_>) -> Step<()> {
        let state = self.pop()?;
        let target = self.top()?;
        self.calls += 1;
        if let Some(offence) = gadgets::state(&self.values, target, state) {
            self.raise(PickleTier::Code, || offence);
        }
        match self.values.get_mut(target) {
            Some(Value::Object(object)) => object.state = Some(state),
            _ => self.raise(PickleTier::Code, || "sets the state of something that is no object".to_owned()),
        }
        if let Some(next) = gap(&self.values, target, self.at)? {
            if next < self.at || next > self.window.len() {
                return malformed(format!("an array behind byte {} goes on to byte {next}", self.at));
            }
            self.compare_without_gap(next)?;
            self.frame = None;
            self.skipped += next - self.at;
            self.at = next;
        }
        Ok(())
    }

    /// Only joblib passes over an array. Python's own unpickler takes its bytes for opcodes, so they are read as such too: up to
    /// where they break, they must import nothing.
    fn compare_without_gap(&mut self, next: u64) -> Step<()> {
        let first = self.window.up_to(self.at, 1)?.first().copied();
        // Padding and zeros are no opcodes, so most arrays end the matter here.
        if next == self.at || first.is_none_or(|first| first < b'(') {
            return Ok(());
        }
        self.compared += self.values.len() as u64;
        if self.compared > COMPARED || self.held() > COPIED {
            self.raise(PickleTier::Code, || "has more raw arrays than are looked into".to_owned());
            return Ok(());
        }
        let mut plain = self.clone();
        // As many as are remembered may be there already: only its own are asked for.
        plain.imports.clear();
        plain.limits = Limits { opcodes: self.opcodes + Limits::GUESS.opcodes, jump: 4 << 10, ..Limits::WHOLE };
        plain.limits.lenient = false;
        let ended = loop {
            match plain.step(&mut |_, _, _| Ok(None)) {
                Ok(None) => {}
                Ok(Some(_)) | Err(Halt::Malformed(_)) => break true,
                Err(Halt::Stop(crate::format::window::Stop::TooLarge(_))) => break false,
                Err(stop) => return Err(stop),
            }
        };
        let worst = plain.imports.iter().max_by_key(|import| import.tier);
        if plain.hidden > self.hidden {
            self.raise(PickleTier::Dangerous, || "imports something whose name it hides in a raw array".to_owned());
        } else if let Some(import) = worst {
            let offence = format!("imports {}.{} in a raw array", import.module, import.name);
            self.raise(import.tier, || offence);
        }
        if plain.loads > self.loads || !ended {
            self.raise(PickleTier::Code, || "hides a pickle in a raw array".to_owned());
        }
        Ok(())
    }

    /// Torch's loader knows storages. Whatever else it is asked for, only the program that wrote the stream knows.
    pub(super) fn persistent(&mut self, opcode: u8) -> Step<()> {
        let key = if opcode == b'P' {
            let line = self.short_line()?;
            self.values.push(line.map_or(Value::Unknown, Value::Text))
        } else {
            self.pop()?
        };
        if !self.is_storage(key) {
            self.raise(PickleTier::Code, || "asks its loader for something that is no storage".to_owned());
        }
        self.push(Value::Persistent(key));
        Ok(())
    }

    /// A tuple that says so, or a number, as in the files of the first torch; torch's own restricted reader takes no others.
    fn is_storage(&self, key: ValueId) -> bool {
        match self.values.get(key) {
            Value::Int(_) => true,
            Value::Tuple(parts) => parts.first().is_some_and(|kind| self.values.text(*kind) == Some("storage")),
            _ => false,
        }
    }

    pub(super) fn extension(&mut self, opcode: u8) -> Step<()> {
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
