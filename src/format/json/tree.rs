//! Builds a value from a small document; numbers that JSON values cannot carry become text. No I/O.

use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::{Event, Sink};

/// Collects one value. The document's size bounds its memory, so only small documents are given to it.
#[derive(Debug, Default)]
pub(in crate::format) struct Tree {
    open: Vec<(Option<String>, Value)>,
    value: Option<Value>,
}

impl Tree {
    /// The value, when the document ended well.
    pub fn into_value(self) -> Option<Value> {
        self.value
    }

    fn put(&mut self, value: Value) {
        match self.open.last_mut() {
            Some((key, Value::Object(map))) => {
                map.insert(key.take().unwrap_or_default(), value);
            }
            Some((_, Value::Array(list))) => list.push(value),
            _ => self.value = Some(value),
        }
    }
}

impl Sink for Tree {
    fn event(&mut self, event: Event<'_>, _: Range<u64>) -> Result<(), String> {
        match event {
            Event::BeginObject => self.open.push((None, Value::Object(Map::new()))),
            Event::BeginArray => self.open.push((None, Value::Array(Vec::new()))),
            Event::EndObject | Event::EndArray => {
                if let Some((_, value)) = self.open.pop() {
                    self.put(value);
                }
            }
            Event::Key(text) => {
                if let Some((key, _)) = self.open.last_mut() {
                    *key = Some(text.to_owned());
                }
            }
            Event::String(text) | Event::NotFinite(text) => self.put(Value::String(text.to_owned())),
            Event::Number(text) => self.put(number(text)),
            Event::Bool(value) => self.put(Value::Bool(value)),
            Event::Null => self.put(Value::Null),
        }
        Ok(())
    }
}

/// Integers beyond 64 bits and numbers beyond a double's range stay as they are written, as text: no digit is made up.
fn number(text: &str) -> Value {
    if let Ok(value) = text.parse::<i64>() {
        return Value::Number(value.into());
    }
    if let Ok(value) = text.parse::<u64>() {
        return Value::Number(value.into());
    }
    let integer = !text.contains(['.', 'e', 'E']);
    let float = text.parse::<f64>().ok().filter(|_| !integer).and_then(Number::from_f64);
    float.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}
