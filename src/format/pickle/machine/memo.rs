//! The memo of an unpickler: values by number. Writers count from zero, so most numbers are places in a row. No I/O.

use std::collections::BTreeMap;

use crate::format::pickle::values::ValueId;

#[derive(Clone, Default)]
pub(super) struct Memo {
    /// Those that came in their order, from zero.
    row: Vec<ValueId>,
    others: BTreeMap<u64, ValueId>,
}

impl Memo {
    pub fn get(&self, key: u64) -> Option<ValueId> {
        let at = usize::try_from(key).unwrap_or(usize::MAX);
        self.row.get(at).or_else(|| self.others.get(&key)).copied()
    }

    pub fn insert(&mut self, key: u64, value: ValueId) {
        let at = usize::try_from(key).unwrap_or(usize::MAX);
        if let Some(place) = self.row.get_mut(at) {
            *place = value;
        } else if at == self.row.len() {
            // It may have come before its turn.
            self.others.remove(&key);
            self.row.push(value);
        } else {
            self.others.insert(key, value);
        }
    }

    /// How many numbers are taken.
    pub fn len(&self) -> u64 {
        (self.row.len() + self.others.len()) as u64
    }

    /// About the memory that it takes, in bytes; a vector may have twice the room of what is in it.
    pub fn held(&self) -> u64 {
        8 * self.row.len() as u64 + 40 * self.others.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::pickle::values::{Value, Values};

    #[test]
    fn numbers_in_any_order_are_found() {
        let mut values = Values::default();
        let ids: Vec<ValueId> = (0..4).map(|number| values.push(Value::Int(number))).collect();
        let mut memo = Memo::default();
        for (key, id) in [(0, 0), (2, 1), (u64::MAX, 2), (1, 3), (2, 0), (0, 3)] {
            memo.insert(key, ids[id]);
        }
        assert_eq!(
            [0, 1, 2, 3, u64::MAX].map(|key| memo.get(key)),
            [Some(ids[3]), Some(ids[3]), Some(ids[0]), None, Some(ids[2])]
        );
        assert_eq!(memo.len(), 4);
    }
}
