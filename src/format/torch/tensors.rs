//! Tensors and storages that a pickle of `torch.save` describes, and whether they fit each other. Pure, no I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::{
        counts::Counts,
        pickle::{Stream, Value, ValueId, Values},
    },
    parallel::{self, Parallel},
};
use crate::contract::report;

/// What is known of a file of `torch.save`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::format) struct Saved {
    /// Tensors, each storage region counted once.
    pub counts: Counts,
    /// `global_step`, `step` or `iteration` of its dict.
    pub step: Option<i64>,
    /// `epoch` of its dict.
    pub epoch: Option<i64>,
    /// `pytorch-lightning_version` of its dict.
    pub lightning: Option<String>,
    /// Whether it is a program of TorchScript.
    pub script: bool,
    /// Keys of its dict, the first ones.
    pub keys: Vec<String>,
    /// Over how many processes the training was spread.
    pub parallel: Parallel,
}

/// A storage that the pickle names.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::format) struct Storage {
    /// Its length in bytes.
    pub bytes: u64,
    /// Data type of its elements; none for bytes.
    dtype: Option<(&'static str, u64)>,
    elements: u64,
    /// Which one of all it is.
    number: usize,
}

/// All that a pickle says of tensors.
#[derive(Clone, Debug, Default)]
pub(in crate::format) struct Described {
    /// Facts.
    pub saved: Saved,
    /// Storages by their key.
    pub storages: BTreeMap<String, Storage>,
}

/// Classes of storages: data type and bytes of an element.
const STORAGES: [(&str, &str, u64); 19] = [
    ("FloatStorage", "F32", 4),
    ("HalfStorage", "F16", 2),
    ("BFloat16Storage", "BF16", 2),
    ("DoubleStorage", "F64", 8),
    ("LongStorage", "I64", 8),
    ("IntStorage", "I32", 4),
    ("ShortStorage", "I16", 2),
    ("CharStorage", "I8", 1),
    ("ByteStorage", "U8", 1),
    ("BoolStorage", "BOOL", 1),
    ("ComplexFloatStorage", "C64", 8),
    ("ComplexDoubleStorage", "C128", 16),
    ("QInt8Storage", "QI8", 1),
    ("QUInt8Storage", "QU8", 1),
    ("QInt32Storage", "QI32", 4),
    ("QUInt4x2Storage", "QU4X2", 1),
    ("QUInt2x4Storage", "QU2X4", 1),
    ("UntypedStorage", "", 1),
    ("TypedStorage", "", 1),
];

/// `torch.dtype` objects: data type and bytes of an element.
const DTYPES: [(&str, &str, u64); 28] = [
    ("float32", "F32", 4),
    ("float64", "F64", 8),
    ("float16", "F16", 2),
    ("bfloat16", "BF16", 2),
    ("float8_e4m3fn", "F8_E4M3", 1),
    ("float8_e4m3fnuz", "F8_E4M3FNUZ", 1),
    ("float8_e5m2", "F8_E5M2", 1),
    ("float8_e5m2fnuz", "F8_E5M2FNUZ", 1),
    ("float8_e8m0fnu", "F8_E8M0", 1),
    ("float4_e2m1fn_x2", "F4", 1),
    ("int64", "I64", 8),
    ("int32", "I32", 4),
    ("int16", "I16", 2),
    ("int8", "I8", 1),
    ("uint64", "U64", 8),
    ("uint32", "U32", 4),
    ("uint16", "U16", 2),
    ("uint8", "U8", 1),
    ("bool", "BOOL", 1),
    ("complex32", "C32", 4),
    ("complex64", "C64", 8),
    ("complex128", "C128", 16),
    ("qint8", "QI8", 1),
    ("quint8", "QU8", 1),
    ("qint32", "QI32", 4),
    ("quint4x2", "QU4X2", 1),
    ("quint2x4", "QU2X4", 1),
    ("bits8", "U8", 1),
];

/// More dimensions than a tensor has.
const DIMENSIONS: usize = 64;
/// The most keys of the dict that are kept.
const KEYS: usize = 32;

/// The data type that a `torch.dtype` object is.
pub(in crate::format) fn dtype(name: &str) -> Option<(&'static str, u64)> {
    DTYPES.iter().find(|(known, ..)| *known == name).map(|&(_, dtype, size)| (dtype, size))
}

/// The data type and bytes of an element that a class of storages has; none of storages of bytes.
pub(in crate::format) fn storage_class(name: &str) -> Option<(&'static str, u64)> {
    let (_, dtype, size) = STORAGES.iter().find(|(known, ..)| *known == name)?;
    (!dtype.is_empty()).then_some((dtype, *size))
}

/// Reads what the stream says.
///
/// # Errors
/// What contradicts itself; the text completes "FILE is damaged: ".
pub(in crate::format) fn described(stream: &Stream) -> Result<Described, String> {
    let values = &stream.values;
    let mut described = Described::default();
    for (_, value) in values.iter() {
        if let Value::Persistent(key) = value
            && let Some((name, storage)) = storage(values, *key)?
        {
            let number = described.storages.len();
            let known = described.storages.entry(name.clone()).or_insert_with(|| Storage { number, ..storage.clone() });
            if known.bytes != storage.bytes {
                return Err(format!("its storage {} has two sizes", shown(&name)));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (id, value) in values.iter() {
        if matches!(value, Value::Object(_)) {
            tensor(values, id, &mut described, &mut seen)?;
        }
    }
    if let Some(root) = stream.root {
        facts(values, root, &mut described.saved);
    }
    Ok(described)
}

fn shown(name: &str) -> String {
    report::clean(name, 64)
}

/// `("storage", class, key, location, elements)`
fn storage(values: &Values, key: ValueId) -> Result<Option<(String, Storage)>, String> {
    let Some(parts) = values.elements(key) else { return Ok(None) };
    let [kind, class, name, _, elements, ..] = parts else { return Ok(None) };
    if values.text(*kind) != Some("storage") {
        return Ok(None);
    }
    let class = values.global(*class).map(|(_, class)| class);
    let known = class.and_then(|class| STORAGES.iter().find(|(known, ..)| *known == class));
    let (Some(&(_, dtype, size)), Some(name), Some(elements)) = (known, values.text(*name), values.size(*elements))
    else {
        return Err("it names a storage in a way that torch does not".to_owned());
    };
    let bytes = elements.checked_mul(size).ok_or("it has a storage of impossible size")?;
    let storage = Storage { bytes, dtype: (!dtype.is_empty()).then_some((dtype, size)), elements, number: 0 };
    Ok(Some((name.to_owned(), storage)))
}

type Region = (usize, u64, Vec<u64>);

/// `_rebuild_tensor*(storage, offset, size, stride, ...)`
fn tensor(values: &Values, id: ValueId, described: &mut Described, seen: &mut BTreeSet<Region>) -> Result<(), String> {
    let call = |name| values.is_call(id, "torch._utils", name);
    let (arguments, third) = match (
        call("_rebuild_tensor_v2").or_else(|| call("_rebuild_tensor")).or_else(|| call("_rebuild_qtensor")),
        call("_rebuild_tensor_v3"),
    ) {
        (Some(arguments), _) => (arguments, false),
        (None, Some(arguments)) => (arguments, true),
        (None, None) => return Ok(()),
    };
    let malformed = || "it describes a tensor in a way that torch does not".to_owned();
    let [storage, offset, shape, strides, rest @ ..] = arguments else { return Err(malformed()) };
    let Value::Persistent(key) = values.get(*storage) else { return Err(malformed()) };
    let name = values.elements(*key).and_then(|parts| values.text(*parts.get(2)?)).ok_or_else(malformed)?;
    let Some(storage) = described.storages.get(name) else { return Err(malformed()) };
    let offset = values.size(*offset).ok_or_else(malformed)?;
    // One shape can be that of very many tensors.
    let short = |id| values.elements(id).filter(|sizes| sizes.len() <= DIMENSIONS);
    let sizes = |id| short(id)?.iter().map(|size| values.size(*size)).collect::<Option<Vec<u64>>>();
    let (shape, strides) = (sizes(*shape).ok_or_else(malformed)?, sizes(*strides).ok_or_else(malformed)?);
    if shape.len() != strides.len() {
        return Err(malformed());
    }
    let explicit =
        if third { rest.get(2).and_then(|id| values.global(*id)).and_then(|(_, name)| dtype(name)) } else { None };
    let (dtype, size) = explicit.or(storage.dtype).unwrap_or(("U8", 1));
    let available = if storage.dtype.is_some() && !third { storage.elements } else { storage.bytes / size };
    let end = extent(offset, &shape, &strides).ok_or_else(malformed)?;
    if end > available {
        let name = shown(name);
        return Err(format!("a tensor of it needs {end} elements of storage {name}, which has {available}"));
    }
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size)).ok_or_else(malformed)?;
    if seen.insert((storage.number, offset, shape)) {
        described.saved.counts.add(dtype, elements);
    }
    Ok(())
}

/// The element behind the last one that a tensor uses.
pub(super) fn extent(offset: u64, shape: &[u64], strides: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    let mut last = offset;
    for (size, stride) in shape.iter().zip(strides) {
        last = last.checked_add(size.checked_sub(1)?.checked_mul(*stride)?)?;
    }
    last.checked_add(1)
}

fn facts(values: &Values, root: ValueId, saved: &mut Saved) {
    let entry = |key| values.entry(root, key);
    let int = |key| entry(key).and_then(|id| values.int(id));
    saved.step = ["global_step", "step", "iteration", "global_steps"].iter().find_map(|key| int(key));
    saved.epoch = int("epoch");
    saved.lightning = entry("pytorch-lightning_version").and_then(|id| values.text(id)).map(shown);
    let keys = values.entries(root).unwrap_or_default().iter().filter_map(|(key, _)| values.text(*key));
    saved.parallel = parallel::read(values, root);
    saved.keys = keys.take(KEYS).map(shown).collect();
}
