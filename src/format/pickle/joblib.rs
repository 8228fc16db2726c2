//! Arrays that joblib writes raw into the middle of a pickle (joblib 1.6, `numpy_pickle.py`). Pure, no I/O.
//!
//! Where the stream goes on is decided by what the wrapper says, as joblib will understand it. A wrapper that is described in any
//! other way than joblib does is an error: who guesses wrong reads other opcodes than the loader.

use super::{PickleFact, Value, ValueId, Values, one};
use crate::format::window::{Parsed, Stop, Window};

/// More dimensions than NumPy has.
const DIMENSIONS: usize = 64;
/// The class of the wrappers.
pub(super) const WRAPPER: (&str, &str) = ("joblib.numpy_pickle", "NumpyArrayWrapper");
/// What a wrapper's state consists of. Any other attribute could stand in the way of a method that joblib calls.
const ATTRIBUTES: [&str; 6] = ["subclass", "shape", "order", "dtype", "allow_mmap", "numpy_array_alignment_bytes"];
/// More entries than a wrapper's state has, also where some are set twice.
const ENTRIES: usize = 16;

/// Where the stream goes on behind a raw array, and the pickle that an array of Python objects is.
pub(super) struct Gap {
    pub next: u64,
    pub pickle: Option<PickleFact>,
}

/// What an element is.
enum Size {
    Objects,
    Bytes(u64),
}

/// What a wrapper says.
struct Described {
    elements: u64,
    size: Size,
    /// Whether a byte tells of padding before the data.
    padded: bool,
}

/// The array behind a wrapper whose state was just set; none when the object is no wrapper.
///
/// # Errors
/// `Bad` when the wrapper cannot be followed; what the window says.
pub(super) fn gap(window: &Window<'_>, values: &Values, id: ValueId, at: u64, level: u32) -> Parsed<Option<Gap>> {
    if values.callable(id) != Some(WRAPPER) {
        return Ok(None);
    }
    let unknown = || Stop::Bad(format!("the array behind byte {at} is described in a way that joblib does not"));
    let Described { elements, size, padded } = described(values, id).ok_or_else(unknown)?;
    let Size::Bytes(size) = size else {
        let (stream, fact) = one(window, at, "array of Python objects", level)?;
        if let Some(cut) = stream.cut {
            return Err(Stop::TooLarge(cut));
        }
        return Ok(Some(Gap { next: stream.end, pickle: Some(fact) }));
    };
    let begin = if padded {
        let [padding] = window.array::<1>(at)?;
        at + 1 + u64::from(padding)
    } else {
        at
    };
    let next = elements.checked_mul(size).and_then(|bytes| begin.checked_add(bytes)).ok_or_else(unknown)?;
    Ok(Some(Gap { next, pickle: None }))
}

fn described(values: &Values, id: ValueId) -> Option<Described> {
    let Value::Object(object) = values.get(id) else { return None };
    let Value::Dict(state) = values.get(object.state?) else { return None };
    // A key that is no plain text may still be one of these names to Python.
    let is_own = |key: ValueId| values.text(key).is_some_and(|key| ATTRIBUTES.contains(&key));
    if state.len() > ENTRIES || !state.iter().all(|(key, _)| is_own(*key)) {
        return None;
    }
    let attribute = |name| values.attribute(id, name);
    // What a call makes may have had other elements before those that are added to it here.
    let Value::Tuple(shape) = values.get(attribute("shape")?) else { return None };
    if shape.len() > DIMENSIONS {
        return None;
    }
    let sizes = shape.iter().map(|size| values.size(*size));
    let elements = sizes.into_iter().try_fold(1u64, |product, size| product.checked_mul(size?))?;
    let padded = match attribute("numpy_array_alignment_bytes").map(|id| values.get(id)) {
        None | Some(Value::None) => false,
        Some(Value::Int(_)) => true,
        Some(_) => return None,
    };
    Some(Described { elements, size: element_size(values, attribute("dtype")?)?, padded })
}

/// What an element is. Records and subarrays are not followed: their state is not believed.
fn element_size(values: &Values, dtype: ValueId) -> Option<Size> {
    let text = values.text(*values.is_call(dtype, "numpy", "dtype")?.first()?)?;
    let kind = text.chars().next()?;
    let digits = text.get(1..)?;
    // Dates have a unit behind their size.
    let dated = digits.strip_suffix(']').filter(|_| matches!(kind, 'm' | 'M'));
    let digits = dated.and_then(|unit| Some(unit.split_once('[')?.0)).unwrap_or(digits);
    let number = digits.parse::<u64>().ok();
    match kind {
        'O' => Some(Size::Objects),
        'U' => Some(Size::Bytes(number?.checked_mul(4)?)),
        'f' | 'i' | 'u' | 'b' | 'c' | 'S' | 'V' | 'm' | 'M' => Some(Size::Bytes(number?)),
        _ => None,
    }
}
