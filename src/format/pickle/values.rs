//! What a pickle builds, as values in an arena: nothing is ever called or imported. Pure, no I/O.

use std::ops::Range;

/// Names a value of a stream.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(in crate::format) struct ValueId(u32);

/// A value. Containers hold the names of other values, so nothing is deep.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::format) enum Value {
    /// `None`
    None,
    /// A truth value.
    Bool(bool),
    /// An integer of at most 64 bits.
    Int(i64),
    /// A larger integer.
    BigInt,
    /// A floating-point number.
    Float(f64),
    /// A text of at most [`super::Limits::TEXT`] bytes.
    Text(String),
    /// A longer text, where it stands in the window.
    LongText(Range<u64>),
    /// Bytes, where they stand in the window.
    Bytes(Range<u64>),
    /// A list.
    List(Vec<ValueId>),
    /// A tuple.
    Tuple(Vec<ValueId>),
    /// A dict, in the order in which it was filled.
    Dict(Vec<(ValueId, ValueId)>),
    /// A set or a frozen set.
    Set(Vec<ValueId>),
    /// Something that is imported: where from, in Python 3's names, and what.
    Global(Box<(String, String)>),
    /// The result of a call, which only the loader knows.
    Object(Box<Object>),
    /// What the loader's own callback gives for this key.
    Persistent(ValueId),
    /// Something that cannot be followed.
    Unknown,
}

/// The result of calling something.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::format) struct Object {
    /// What is called.
    pub callable: ValueId,
    /// The tuple of the arguments.
    pub arguments: ValueId,
    /// What it is then given as its state.
    pub state: Option<ValueId>,
    /// What is appended to it.
    pub items: Vec<ValueId>,
    /// What is set in it.
    pub entries: Vec<(ValueId, ValueId)>,
}

/// All values of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::format) struct Values {
    /// Blocks of the same length: growing never copies what is there.
    blocks: Vec<Vec<Value>>,
    len: usize,
    held: u64,
}

impl Values {
    /// Values of a block.
    const BLOCK: usize = 1024;
    /// More attributes than any object has that is looked into.
    const ATTRIBUTES: usize = 256;

    pub(super) fn push(&mut self, value: Value) -> ValueId {
        let id = ValueId(u32::try_from(self.len).unwrap_or(u32::MAX));
        self.held += weight(&value);
        match self.blocks.last_mut() {
            Some(block) if block.len() < Self::BLOCK => block.push(value),
            _ => {
                // A first block as small as most streams.
                let mut block = Vec::with_capacity(if self.blocks.is_empty() { 16 } else { Self::BLOCK });
                block.push(value);
                self.blocks.push(block);
            }
        }
        self.len += 1;
        id
    }

    pub(super) fn get_mut(&mut self, id: ValueId) -> Option<&mut Value> {
        let at = id.0 as usize;
        self.blocks.get_mut(at / Self::BLOCK)?.get_mut(at % Self::BLOCK)
    }

    /// Takes note of memory that values grew by, in bytes.
    pub(super) fn charge(&mut self, bytes: u64) {
        self.held += bytes;
    }

    /// About the memory that they take, in bytes.
    pub(super) fn held(&self) -> u64 {
        self.held
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value.
    pub fn get(&self, id: ValueId) -> &Value {
        let at = id.0 as usize;
        self.blocks.get(at / Self::BLOCK).and_then(|block| block.get(at % Self::BLOCK)).unwrap_or(&Value::Unknown)
    }

    /// Every value, in the order in which they came to be.
    pub fn iter(&self) -> impl Iterator<Item = (ValueId, &Value)> {
        (0u32..).map(ValueId).zip(self.blocks.iter().flatten())
    }

    /// The text that it is.
    pub fn text(&self, id: ValueId) -> Option<&str> {
        if let Value::Text(text) = self.get(id) { Some(text) } else { None }
    }

    /// The integer that it is.
    pub fn int(&self, id: ValueId) -> Option<i64> {
        if let Value::Int(number) = self.get(id) { Some(*number) } else { None }
    }

    /// The size or count that it is.
    pub fn size(&self, id: ValueId) -> Option<u64> {
        self.int(id).and_then(|number| u64::try_from(number).ok())
    }

    /// The elements of a list, a tuple or a set, also of one that is made by a call without arguments.
    pub fn elements(&self, id: ValueId) -> Option<&[ValueId]> {
        match self.get(id) {
            Value::List(items) | Value::Tuple(items) | Value::Set(items) => Some(items),
            Value::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// The entries of a dict, or of an object that entries are set in (an `OrderedDict`).
    pub fn entries(&self, id: ValueId) -> Option<&[(ValueId, ValueId)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Object(object) => Some(&object.entries),
            _ => None,
        }
    }

    /// What a dict has for a key; the last one counts, as in Python.
    pub fn entry(&self, id: ValueId, key: &str) -> Option<ValueId> {
        let entries = self.entries(id)?;
        entries.iter().rev().find(|(known, _)| self.text(*known) == Some(key)).map(|(_, value)| *value)
    }

    /// What the state of an object has for an attribute.
    pub fn attribute(&self, id: ValueId, name: &str) -> Option<ValueId> {
        let Value::Object(object) = self.get(id) else { return None };
        let state = object.state?;
        // The state of an object with slots is a tuple of two dicts.
        let slots = match self.get(state) {
            Value::Tuple(parts) if parts.len() == 2 => parts.get(1).copied(),
            _ => None,
        };
        // One dict can be the state of very many objects: what is larger than any state is not searched each time.
        let small = |id: &ValueId| self.entries(*id).is_none_or(|entries| entries.len() <= Self::ATTRIBUTES);
        let (state, slots) = (Some(state).filter(small), slots.filter(small));
        slots.and_then(|slots| self.entry(slots, name)).or_else(|| self.entry(state?, name))
    }

    /// Module and name of what is imported.
    pub fn global(&self, id: ValueId) -> Option<(&str, &str)> {
        if let Value::Global(global) = self.get(id) { Some((&global.0, &global.1)) } else { None }
    }

    /// What is called to make an object.
    pub fn callable(&self, id: ValueId) -> Option<(&str, &str)> {
        if let Value::Object(object) = self.get(id) { self.global(object.callable) } else { None }
    }

    /// The arguments of an object that is made by calling this.
    pub fn is_call(&self, id: ValueId, module: &str, name: &str) -> Option<&[ValueId]> {
        let Value::Object(object) = self.get(id) else { return None };
        let Value::Tuple(arguments) = self.get(object.arguments) else { return None };
        (self.global(object.callable) == Some((module, name))).then_some(arguments.as_slice())
    }
}

/// About the memory that a value takes, in bytes.
fn weight(value: &Value) -> u64 {
    let heap = match value {
        Value::Text(text) => text.len() + 16,
        // Vectors begin with room for four, and the allocator keeps something for itself.
        Value::List(items) | Value::Tuple(items) | Value::Set(items) if items.is_empty() => 0,
        Value::List(items) | Value::Tuple(items) | Value::Set(items) => 4 * items.len().max(4) + 16,
        Value::Dict(entries) => 8 * entries.len() + 16,
        Value::Global(global) => size_of::<(String, String)>() + global.0.len() + global.1.len() + 48,
        Value::Object(_) => size_of::<Object>() + 16,
        _ => 0,
    };
    (size_of::<Value>() + heap) as u64
}
