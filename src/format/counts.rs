//! How many tensors and elements files have, by data type. Pure, no I/O.

use std::collections::BTreeMap;

use crate::contract::Contents;

/// Tensors and their elements.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Counts {
    /// Number of tensors.
    pub tensors: u64,
    /// Elements by data type, named as safetensors names them (`F32`, `BF16`, ...) or as the format itself does.
    pub elements: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// One more tensor.
    pub fn add(&mut self, dtype: &'static str, elements: u64) {
        self.tensors = self.tensors.saturating_add(1);
        let sum = self.elements.entry(dtype).or_default();
        *sum = sum.saturating_add(elements);
    }

    /// All of another count.
    pub fn merge(&mut self, other: &Self) {
        self.tensors = self.tensors.saturating_add(other.tensors);
        for (dtype, elements) in &other.elements {
            let sum = self.elements.entry(dtype).or_default();
            *sum = sum.saturating_add(*elements);
        }
    }

    /// Sets the facts, unless another format did.
    pub fn describe(&self, contents: &mut Contents) {
        if contents.tensors.is_some() || self.tensors == 0 {
            return;
        }
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        contents.tensors = Some(whole(self.tensors));
        contents.parameters =
            Some(whole(self.elements.values().fold(0, |sum, elements| sum.saturating_add(*elements))));
        contents.dtypes =
            self.elements.iter().map(|(dtype, elements)| ((*dtype).to_owned(), whole(*elements))).collect();
    }
}
