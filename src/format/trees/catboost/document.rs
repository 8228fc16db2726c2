//! CatBoost's JSON: the trees are counted, and each has as many leaves as its splits make. Pure, no I/O.

use std::ops::Range;

use super::{Model, leave};
use crate::format::{
    evidence::{Evidence, fact},
    findings::Notes,
    json::{Event, Sink},
    probe::{Collect, Problem},
};

/// A model as it is read.
#[derive(Debug, Default)]
pub(super) struct Export {
    keys: Vec<String>,
    version: String,
    loss: Option<String>,
    symmetric: bool,
    others: bool,
    trees: u64,
    splits: u32,
    leaves: u64,
    /// Values of each leaf, when a tree was seen.
    dimensions: Option<u64>,
}

impl Export {
    fn path(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }

    fn begin(&mut self) {
        match self.path().as_slice() {
            [tree, _] if tree == &"oblivious_trees" => {
                (self.splits, self.leaves) = (0, 0);
                self.trees += 1;
            }
            [tree, _, splits, ..] if tree == &"oblivious_trees" && splits == &"splits" && self.keys.len() == 4 => {
                self.splits = self.splits.saturating_add(1);
            }
            _ => {}
        }
        self.keys.push(String::new());
    }

    fn end(&mut self) -> Result<(), String> {
        self.keys.pop();
        if self.keys.len() == 2 && self.keys.first().is_some_and(|key| key == "oblivious_trees") {
            return self.end_tree();
        }
        Ok(())
    }

    /// The leaves of a symmetric tree are two to the power of its splits, each with the same number of values.
    fn end_tree(&mut self) -> Result<(), String> {
        let full = 1u64.checked_shl(self.splits).unwrap_or(0);
        let number = self.trees - 1;
        let uneven = || format!("its tree {number} has {} splits and {} values of leaves", self.splits, self.leaves);
        if full == 0 || self.leaves == 0 || !self.leaves.is_multiple_of(full) {
            return Err(uneven());
        }
        let dimensions = self.leaves / full;
        if *self.dimensions.get_or_insert(dimensions) != dimensions {
            return Err(uneven());
        }
        Ok(())
    }

    fn value(&mut self, text: &str) {
        match self.path().as_slice() {
            ["model_info", "catboost_version_info"] => self.version = fact(text),
            ["model_info", "params", "loss_function", "type"] => self.loss = Some(fact(text)),
            _ => {}
        }
    }
}

impl Sink for Export {
    fn event(&mut self, event: Event<'_>, _: Range<u64>) -> Result<(), String> {
        match event {
            Event::BeginObject | Event::BeginArray => self.begin(),
            Event::EndObject | Event::EndArray => return self.end(),
            Event::Key(key) => {
                if self.keys.len() == 1 {
                    self.symmetric |= key == "oblivious_trees";
                    self.others |= key == "trees";
                }
                if let Some(last) = self.keys.last_mut() {
                    *last = key.chars().take(64).collect();
                }
            }
            Event::Number(_) => {
                if let [trees, _, leaves, _] = self.path().as_slice()
                    && (*trees, *leaves) == ("oblivious_trees", "leaf_values")
                {
                    self.leaves += 1;
                }
            }
            Event::String(text) if self.keys.len() <= 4 => self.value(text),
            _ => {}
        }
        Ok(())
    }
}

impl Collect for Export {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        let outcome = match outcome {
            Ok(()) if !self.symmetric && !self.others => {
                Err(Problem::Broken("it has neither oblivious_trees nor trees".to_owned()))
            }
            other => other,
        };
        leave(outcome.map(|()| Model { version: self.version, loss: self.loss }), file, evidence, notes);
    }
}
