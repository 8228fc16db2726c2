//! Known imports that are harmless only when they are used as their libraries use them. Pure, no I/O.
//!
//! What is on the lists runs no code of its own for any argument, with these exceptions, and a stream that uses them in another
//! way is code:
//! - `torch.storage._load_from_bytes` loads a pickle. Its bytes must stand in the stream, so that they can be judged, and nothing
//!   else may be handed the function, which might call it with other bytes.
//! - `torch._tensor._rebuild_from_type_v2` calls its first argument. That must be one of torch's own functions for tensors.
//! - `numpy.ndarray` takes bytes for the addresses of Python objects when it is called with them. It may be named, which arrays
//!   need, and not be called.
//! - A `numpy.dtype` believes its state: flags that do not fit it, or fields, make bytes into addresses as well, and another size
//!   than its text's makes arrays end elsewhere than they seem to.
//! - Classes of training libraries whose constructors read files or the environment or open connections may be made as pickles
//!   make objects, without their constructors, and not be called.
//! - `copyreg._reconstructor` makes an object in that way when its base is `object`; the constructor of any other base is called.
//! - joblib's wrapper of an array must be made and described once, where it is seen: joblib reads the array behind it by what it
//!   is then.
//!
//! The others that call what they are given (`collections.defaultdict`, the constructors of `numpy.random._pickle`) can be given
//! nothing but imports, and each of those was judged by itself.
//!
//! States: Python calls `__setstate__` of an object, or sets attributes. Of the classes on the lists, `numpy.ndarray` checks the
//! size of its data and that Python objects come as a list; `numpy.dtype` is checked here; generators of random numbers take
//! numbers; `torch.Tensor` and `Parameter` call `set_`, which checks the storage; `uuid.UUID` and the enumerations take what they
//! are. All others have none, so attributes are set: data, until a program of the user's calls them.

use super::{
    globals::{self, Usage},
    joblib,
    values::{Value, ValueId, Values},
};

/// What is wrong with a call; completes "FILE ". `made` when no constructor runs (`NEWOBJ`).
pub(super) fn call(values: &Values, callable: ValueId, arguments: ValueId, made: bool) -> Option<String> {
    let (module, name) = values.global(callable)?;
    let first = values.elements(arguments).and_then(<[_]>::first).copied();
    match globals::usage(module, name) {
        Usage::Named => return Some(format!("calls {module}.{name}, which no library does")),
        Usage::Made if !made => {
            return Some(format!("calls {module}.{name}, whose constructor does more than hold data"));
        }
        Usage::Made | Usage::Any => {}
    }
    match (module, name) {
        globals::NESTED => {
            let literal = first.is_some_and(|first| matches!(values.get(first), Value::Bytes(_)));
            (!literal).then(|| "loads a pickle that it hides".to_owned())
        }
        ("torch._tensor", "_rebuild_from_type_v2") => {
            let function = first.and_then(|first| values.global(first));
            let torchs =
                function.is_some_and(|(module, name)| module == "torch._utils" && name.starts_with("_rebuild_"));
            (!torchs).then(|| "has torch call something that rebuilds no tensor".to_owned())
        }
        ("numpy", "dtype") => {
            let simple = first.and_then(|first| values.text(first)).is_some_and(is_simple);
            (!simple).then(|| "describes a data type in a way that is not followed".to_owned())
        }
        _ => None,
    }
}

/// `f8`, `<U3`, `O8`, `M8[ns]`.
fn is_simple(text: &str) -> bool {
    let text = text.trim_start_matches(['<', '>', '|', '=']);
    let Some(digits) = text.strip_prefix(|kind: char| kind.is_ascii_alphabetic()) else { return false };
    let digits = digits.strip_suffix(']').and_then(|unit| Some(unit.split_once('[')?.0)).unwrap_or(digits);
    digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// What is wrong with a state that an object is about to be given; completes "FILE ".
pub(super) fn state(values: &Values, target: ValueId, state: ValueId) -> Option<String> {
    match values.callable(target) {
        // Python adds a second state to the first, and joblib reads an array behind both.
        Some(joblib::WRAPPER) => {
            let again = matches!(values.get(target), Value::Object(object) if object.state.is_some());
            again.then(|| "describes one array twice".to_owned())
        }
        Some(("numpy", "dtype")) => dtype_state(values, target, state),
        _ => None,
    }
}

fn dtype_state(values: &Values, target: ValueId, state: ValueId) -> Option<String> {
    let wrong = Some("describes a data type in a way that is not followed".to_owned());
    // (version, byte order, subarray, names, fields, size, alignment, flags[, unit])
    let Some([_, _, subarray, names, fields, size, _, flags, ..]) = values.elements(state) else { return wrong };
    let none = |id: &ValueId| *values.get(*id) == Value::None;
    let text = values.is_call(target, "numpy", "dtype").and_then(|arguments| values.text(*arguments.first()?));
    let text = text.unwrap_or_default().trim_start_matches(['<', '>', '|', '=']);
    let objects = text.starts_with('O');
    let flags = match values.int(*flags) {
        Some(63) => objects,
        Some(0 | 8) => !objects,
        _ => false,
    };
    let sized = values.int(*size).is_some_and(|size| flexible(text).is_none_or(|own| own == Some(size)));
    let fits = none(subarray) && none(names) && none(fields) && flags && sized;
    if fits { None } else { wrong }
}

/// The size of texts and raw bytes, none inside when it is not told; none for types of one size, which keep it.
#[allow(clippy::option_option, reason = "a type that has no size of its own, and a size that is not told")]
fn flexible(text: &str) -> Option<Option<i64>> {
    let (kind, digits) = (text.chars().next()?, text.get(1..)?);
    let size = digits.parse::<i64>().ok();
    match kind {
        'U' => Some(size.and_then(|size| size.checked_mul(4))),
        'S' | 'V' | 'a' | 'c' if kind != 'c' || digits.is_empty() => Some(size),
        _ => None,
    }
}

/// Where a function is handed on that must not be, when all of the stream is known.
pub(super) fn misused(values: &Values, root: Option<ValueId>) -> Option<String> {
    let watched = |id: ValueId| {
        let (module, name) = values.global(id)?;
        let watched = (module, name) == globals::NESTED || globals::usage(module, name) == Usage::Made;
        watched.then(|| format!("hands on {module}.{name}, which is then called with anything"))
    };
    if !values.iter().any(|(id, _)| watched(id).is_some()) {
        return None;
    }
    let mut held: Vec<ValueId> = root.into_iter().collect();
    let mut excused = Vec::new();
    for (id, value) in values.iter() {
        match value {
            Value::List(items) | Value::Set(items) => held.extend(items),
            Value::Dict(entries) => held.extend(entries.iter().flat_map(|(key, value)| [key, value])),
            Value::Persistent(key) => held.push(*key),
            Value::Object(object) => {
                let made = values.is_call(id, "copyreg", "_reconstructor").unwrap_or_default();
                if let [class, base, ..] = made
                    && values.global(*base) == Some(("builtins", "object"))
                    && values.global(*class) != Some(joblib::WRAPPER)
                {
                    excused.push(object.arguments);
                }
                held.extend(object.state.iter().chain(&object.items));
                held.extend(object.entries.iter().flat_map(|(key, value)| [key, value]));
                held.push(object.arguments);
            }
            _ => {}
        }
        if let Some(offence) = held.drain(..).find_map(watched) {
            return Some(offence);
        }
    }
    excused.sort_unstable();
    let tuples = values.iter().filter(|(id, _)| excused.binary_search(id).is_err());
    tuples
        .filter_map(|(_, value)| if let Value::Tuple(items) = value { Some(items) } else { None })
        .flatten()
        .copied()
        .find_map(watched)
}
