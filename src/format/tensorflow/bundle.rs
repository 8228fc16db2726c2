//! The index of a TensorFlow checkpoint: which tensor lies where in which data file (TensorFlow 2.21, `tensor_bundle.proto`).
//! Pure, no I/O.

use std::{collections::BTreeMap, ops::Range};

use super::{
    super::{
        counts::Counts,
        evidence::Ledger,
        names,
        protobuf::{Budget, Fields, Value},
        window::{Parsed, Stop, Window},
    },
    table,
    types::{self, Type},
};

/// The most data files.
const SHARDS: u64 = 100_000;
/// The name of the graph of Python objects, which every checkpoint of TensorFlow 2 holds as a text.
const OBJECTS: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";
/// Variables of TensorFlow 2 end with this.
const VALUE: &str = "/.ATTRIBUTES/VARIABLE_VALUE";
/// Optimizers of TensorFlow 1 name their slots after the variable.
const SLOTS: [&str; 12] = [
    "Adam",
    "Adam_1",
    "Momentum",
    "Adagrad",
    "Adadelta",
    "Adadelta_1",
    "RMSProp",
    "RMSProp_1",
    "Ftrl",
    "Ftrl_1",
    "beta1_power",
    "beta2_power",
];
/// Variables that count steps, the best one first.
const STEPS: [&str; 4] = ["global_step", "iterations", "_iterations", "step"];

/// Bytes of a tensor, or of a slice of one.
#[derive(Clone, Debug)]
pub(super) struct Extent {
    /// Shortened: what keys share stands once in the table, and is repeated in memory for each of them.
    pub name: String,
    pub kind: &'static Type,
    pub elements: u64,
    pub shard: u64,
    pub offset: u64,
    pub size: u64,
    pub crc: u32,
}

impl Extent {
    /// Where it ends in its data file.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.size)
    }
}

/// What an index says.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    pub shards: u64,
    pub big_endian: bool,
    /// Sorted by data file and offset.
    pub extents: Vec<Extent>,
    /// Weights only.
    pub counts: Counts,
    /// Data file, offset and size of the number of steps.
    pub step: Option<(u64, u64, u64)>,
    /// What its entries count for among all that is remembered: one each, and more where their names are long.
    pub weight: u64,
}

/// `BundleEntryProto`
#[derive(Default)]
struct Entry {
    kind: u64,
    dimensions: Vec<u64>,
    shard: u64,
    offset: u64,
    size: u64,
    crc: u32,
    slices: u64,
}

/// A tensor that is stored in slices.
#[derive(Default)]
struct Sliced {
    elements: u64,
    slices: u64,
    found: u64,
    found_elements: u64,
}

/// What is gathered while the entries go by.
#[derive(Default)]
struct Reader {
    bundle: Bundle,
    header: bool,
    sliced: BTreeMap<String, Sliced>,
    whole: Vec<Whole>,
    step: Option<usize>,
    /// Exported Keras models list every variable twice.
    twice: bool,
}

/// A tensor with weights.
struct Whole {
    kind: &'static str,
    elements: u64,
    /// Whether it is in the list of all variables.
    listed: bool,
}

/// Reads an index.
pub(super) fn read(bytes: &[u8]) -> Parsed<Bundle> {
    let window = Window::of_bytes(bytes);
    let mut reader = Reader::default();
    let mut budget = Budget::default();
    table::entries(bytes, |entry| {
        let range = entry.value.start as u64..entry.value.end as u64;
        if entry.key.is_empty() {
            return reader.header(&window, &range, &mut budget);
        }
        reader.entry(&entry.key, &parse(&window, &range, &mut budget)?)
    })?;
    reader.finish()
}

impl Reader {
    /// `BundleHeaderProto`: number of shards (1), endianness (2).
    fn header(&mut self, window: &Window<'_>, range: &Range<u64>, budget: &mut Budget) -> Parsed<()> {
        self.header = true;
        let mut fields = Fields::new(window, range);
        while let Some((number, value)) = fields.next(budget)? {
            match (number, value) {
                (1, Value::Varint(shards)) => self.bundle.shards = shards,
                (2, Value::Varint(order)) => self.bundle.big_endian = order == 1,
                _ => {}
            }
        }
        if (1..=SHARDS).contains(&self.bundle.shards) {
            return Ok(());
        }
        Err(Stop::Bad(format!("it announces {} data files", self.bundle.shards)))
    }

    fn entry(&mut self, key: &[u8], entry: &Entry) -> Parsed<()> {
        let slice = slice_name(key);
        let name = String::from_utf8_lossy(slice.as_deref().unwrap_or(key)).into_owned();
        let shown = names::shown(&name);
        self.weigh(if slice.is_some() || entry.slices > 0 { name.len() } else { shown.len() })?;
        let kind = types::of(entry.kind)
            .ok_or_else(|| Stop::Bad(format!("its tensor {shown:?} has the unknown type {}", entry.kind)))?;
        let elements = entry.dimensions.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
        let elements = elements
            .filter(|elements| *elements < 1 << 62)
            .ok_or_else(|| Stop::Bad(format!("its tensor {shown:?} has an impossible shape")))?;
        if slice.is_some() {
            let whole = self.sliced.entry(name).or_default();
            whole.found += 1;
            whole.found_elements = whole.found_elements.saturating_add(elements);
        } else {
            self.note_step(&name, entry);
            self.twice |= name.starts_with("variables/");
            if is_weight(&name) && kind.name != types::TEXT {
                self.whole.push(Whole { kind: kind.name, elements, listed: name.starts_with("_all_variables/") });
            }
            if entry.slices > 0 {
                let whole = self.sliced.entry(name).or_default();
                (whole.elements, whole.slices) = (elements, entry.slices);
                return Ok(());
            }
        }
        let bytes = elements.checked_mul(kind.bytes);
        if kind.bytes > 0 && bytes != Some(entry.size) {
            return Err(Stop::Bad(format!(
                "its tensor {shown:?} has {} bytes, its shape says {}",
                entry.size,
                bytes.unwrap_or(u64::MAX)
            )));
        }
        if entry.shard >= self.bundle.shards {
            let shards = self.bundle.shards;
            return Err(Stop::Bad(format!("its tensor {shown:?} lies in data file {} of {shards}", entry.shard)));
        }
        if entry.offset.checked_add(entry.size).is_none() {
            return Err(Stop::Bad(format!("its tensor {shown:?} ends nowhere")));
        }
        let Entry { shard, offset, size, crc, .. } = *entry;
        self.bundle.extents.push(Extent { name: shown, kind, elements, shard, offset, size, crc });
        Ok(())
    }

    /// Counts an entry whose name is kept in this length.
    fn weigh(&mut self, name: usize) -> Parsed<()> {
        const USUAL: usize = 128;
        self.bundle.weight += 1 + (name / USUAL) as u64;
        if self.bundle.weight > Ledger::LIMIT {
            return Err(Stop::TooLarge("its entries and their names are more than is read".to_owned()));
        }
        Ok(())
    }

    /// How often it was saved (`save_counter`) is no step of the training.
    fn note_step(&mut self, name: &str, entry: &Entry) {
        let whole =
            entry.dimensions.is_empty() && matches!((entry.kind, entry.size), (types::INT32, 4) | (types::INT64, 8));
        let last = names::base(name.strip_suffix(VALUE).unwrap_or(name));
        let rank = STEPS.iter().position(|step| *step == last).filter(|_| whole);
        if let Some(rank) = rank
            && self.step.is_none_or(|known| rank < known)
        {
            self.step = Some(rank);
            self.bundle.step = Some((entry.shard, entry.offset, entry.size));
        }
    }

    fn finish(mut self) -> Parsed<Bundle> {
        if !self.header {
            return Err(Stop::bad("it has no header"));
        }
        for (name, whole) in &self.sliced {
            if whole.found != whole.slices || whole.found_elements != whole.elements {
                return Err(Stop::Bad(format!(
                    "its tensor {:?} has {} of {} slices, with {} of {} elements",
                    names::shown(name),
                    whole.found,
                    whole.slices,
                    whole.found_elements,
                    whole.elements
                )));
            }
        }
        for whole in self.whole.iter().filter(|whole| !(self.twice && whole.listed)) {
            self.bundle.counts.add(whole.kind, whole.elements);
        }
        self.bundle.extents.sort_by_key(|extent| (extent.shard, extent.offset, extent.size));
        let mut before: Option<&Extent> = None;
        for extent in self.bundle.extents.iter().filter(|extent| extent.size > 0) {
            if let Some(before) = before.filter(|before| before.shard == extent.shard && before.end() > extent.offset) {
                let (left, right) = (names::shown(&before.name), names::shown(&extent.name));
                return Err(Stop::Bad(format!("its tensors {left:?} and {right:?} share bytes")));
            }
            before = Some(extent);
        }
        Ok(self.bundle)
    }
}

/// `BundleEntryProto`: type (1), shape (2), shard (3), offset (4), size (5), checksum (6), slices (7).
fn parse(window: &Window<'_>, range: &Range<u64>, budget: &mut Budget) -> Parsed<Entry> {
    let mut entry = Entry::default();
    let mut fields = Fields::new(window, range);
    while let Some((number, value)) = fields.next(budget)? {
        match (number, value) {
            (1, Value::Varint(number)) => entry.kind = number,
            (2, Value::Bytes(shape)) => entry.dimensions = dimensions(window, &shape, budget)?,
            (3, Value::Varint(number)) => entry.shard = number,
            (4, Value::Varint(number)) => entry.offset = number,
            (5, Value::Varint(number)) => entry.size = number,
            (6, Value::Fixed(place)) => entry.crc = u32::from_le_bytes(window.array(place.start)?),
            (7, Value::Bytes(_)) => entry.slices += 1,
            _ => {}
        }
    }
    Ok(entry)
}

/// `TensorShapeProto`: dimensions (2), each with its size (1), which is left out when it is 0.
fn dimensions(window: &Window<'_>, shape: &Range<u64>, budget: &mut Budget) -> Parsed<Vec<u64>> {
    let mut sizes = Vec::new();
    let mut fields = Fields::new(window, shape);
    while let Some((number, value)) = fields.next(budget)? {
        if let (2, Value::Bytes(dimension)) = (number, value) {
            let (mut size, mut members) = (0, Fields::new(window, &dimension));
            while let Some((number, value)) = members.next(budget)? {
                if let (1, Value::Varint(number)) = (number, value) {
                    size = number;
                }
            }
            sizes.push(size);
            if sizes.len() > 254 {
                return Err(Stop::bad("a tensor has more than 254 dimensions"));
            }
        }
    }
    Ok(sizes)
}

/// The tensor of a slice's key: 0, the name with its zeros and 255s escaped, 0 1, and the extents of the slice.
fn slice_name(key: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut name) = (key.strip_prefix(&[0])?, Vec::new());
    loop {
        match rest {
            [0, 1, ..] | [] => return Some(name),
            [0, 0xFF, tail @ ..] => {
                name.push(0);
                rest = tail;
            }
            [0xFF, 0, tail @ ..] => {
                name.push(0xFF);
                rest = tail;
            }
            [byte, tail @ ..] => {
                name.push(*byte);
                rest = tail;
            }
        }
    }
}

/// Whether a variable belongs to the model, not to the training.
fn is_weight(name: &str) -> bool {
    let path = name.strip_suffix(VALUE).unwrap_or(name);
    let last = names::base(path);
    if name == OBJECTS || last == "save_counter" || STEPS.contains(&last) || SLOTS.contains(&last) {
        return false;
    }
    if name.contains("/.OPTIMIZER_SLOT/") {
        return false;
    }
    // Keras 3 reaches the weights of a model by way of its optimizer.
    let optimizer = path.split('/').position(|part| part.contains("optimizer"));
    let member = optimizer.and_then(|at| path.split('/').nth(at + 1));
    optimizer.is_none() || member == Some("_trainable_variables")
}

#[cfg(test)]
pub(super) mod tests;
