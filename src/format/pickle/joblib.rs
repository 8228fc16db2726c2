//! Arrays that joblib writes raw into the middle of a pickle (joblib 1.6, `numpy_pickle.py`). Pure, no I/O.

use super::{Limits, PickleFact, Value, ValueId, Values, fact, read};
use crate::format::window::{Parsed, Window};

/// Where the stream goes on behind a raw array, and the pickle that an array of Python objects is.
pub(super) struct Gap {
    pub next: u64,
    pub pickle: Option<PickleFact>,
}

/// The array behind a wrapper whose state was just set; none when the object is no wrapper, or not one that can be followed.
pub(super) fn gap(window: &Window<'_>, values: &Values, id: ValueId, at: u64) -> Parsed<Option<Gap>> {
    if values.callable(id) != Some(("joblib.numpy_pickle", "NumpyArrayWrapper")) {
        return Ok(None);
    }
    let Some((elements, size)) = described(values, id) else { return Ok(None) };
    let Some(size) = size else {
        let stream = read(window, at, &Limits::WHOLE)?;
        return Ok(Some(Gap { next: stream.end, pickle: Some(fact(&stream, "array of Python objects")) }));
    };
    let aligned = values.attribute(id, "numpy_array_alignment_bytes").is_some_and(|id| values.int(id).is_some());
    let begin = if aligned {
        let [padding] = window.array::<1>(at)?;
        at + 1 + u64::from(padding)
    } else {
        at
    };
    let next = elements.checked_mul(size).and_then(|bytes| begin.checked_add(bytes));
    Ok(next.map(|next| Gap { next, pickle: None }))
}

/// Number of elements and bytes of each; none for Python objects.
fn described(values: &Values, id: ValueId) -> Option<(u64, Option<u64>)> {
    let shape = values.elements(values.attribute(id, "shape")?)?;
    let sizes = shape.iter().map(|size| values.size(*size));
    let elements = sizes.into_iter().try_fold(1u64, |product, size| product.checked_mul(size?))?;
    let dtype = values.attribute(id, "dtype")?;
    let text = values.text(*values.is_call(dtype, "numpy", "dtype")?.first()?)?;
    let number = || text.get(1..).and_then(|digits| digits.parse::<u64>().ok());
    let size = match text.chars().next()? {
        'O' => None,
        'U' => Some(number()?.checked_mul(4)?),
        // The size of records stands in their state, which NumPy alone understands.
        'V' => Some(record_size(values, dtype)?),
        _ => Some(number()?),
    };
    Some((elements, size))
}

/// `(version, byte order, subarray, names, fields, size, alignment, flags)`
fn record_size(values: &Values, dtype: ValueId) -> Option<u64> {
    let Value::Object(object) = values.get(dtype) else { return None };
    values.size(*values.elements(object.state?)?.get(5)?)
}
