//! The description of an array in Zarr, version 2 (`.zarray`) and 3 (`zarr.json`): shape, chunks, data type. Pure, no I/O.

use serde_json::Value;

/// An array.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Array {
    pub dtype: &'static str,
    /// Product of its shape.
    pub elements: u64,
    /// Chunks in each dimension.
    pub grid: Vec<u64>,
    /// What stands between the numbers of a chunk, and before them.
    pub separator: char,
    pub prefix: &'static str,
}

/// Types of version 2 as NumPy writes them (without the mark of byte order), and of version 3 by their names.
const TYPES: [(&str, &str, &str); 17] = [
    ("b1", "bool", "BOOL"),
    ("i1", "int8", "I8"),
    ("i2", "int16", "I16"),
    ("i4", "int32", "I32"),
    ("i8", "int64", "I64"),
    ("u1", "uint8", "U8"),
    ("u2", "uint16", "U16"),
    ("u4", "uint32", "U32"),
    ("u8", "uint64", "U64"),
    ("f2", "float16", "F16"),
    ("bfloat16", "bfloat16", "BF16"),
    ("f4", "float32", "F32"),
    ("f8", "float64", "F64"),
    ("c8", "complex64", "C64"),
    ("c16", "complex128", "C128"),
    ("float8_e4m3fn", "float8_e4m3fn", "F8_E4M3"),
    ("float8_e5m2", "float8_e5m2", "F8_E5M2"),
];

impl Array {
    /// How many chunks it has.
    pub fn chunks(&self) -> Option<u64> {
        self.grid.iter().try_fold(1u64, |product, count| product.checked_mul(*count))
    }

    /// The name of a chunk, by its number in row-major order.
    pub fn chunk(&self, mut number: u64) -> String {
        let mut parts = Vec::with_capacity(self.grid.len());
        for count in self.grid.iter().rev() {
            parts.push((number % (*count).max(1)).to_string());
            number /= (*count).max(1);
        }
        parts.reverse();
        match (self.prefix, parts.is_empty()) {
            ("", true) => "0".to_owned(),
            ("", false) => parts.join(&self.separator.to_string()),
            (prefix, true) => prefix.to_owned(),
            (prefix, false) => format!("{prefix}{}{}", self.separator, parts.join(&self.separator.to_string())),
        }
    }
}

/// Reads a description; the text of the error completes "FILE is damaged: ".
pub(super) fn array(bytes: &[u8]) -> Result<Array, String> {
    let document: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is not JSON: {error}"))?;
    let third = document.get("zarr_format").and_then(Value::as_u64) == Some(3);
    let numbers =
        |value: Option<&Value>| -> Option<Vec<u64>> { value?.as_array()?.iter().map(Value::as_u64).collect() };
    let shape = numbers(document.get("shape")).ok_or("it has no shape")?;
    let chunks = if third {
        numbers(document.pointer("/chunk_grid/configuration/chunk_shape"))
    } else {
        numbers(document.get("chunks"))
    };
    let chunks = chunks.filter(|chunks| chunks.len() == shape.len() && !chunks.contains(&0));
    let chunks = chunks.ok_or("its chunks do not fit its shape")?;
    let name = document.get(if third { "data_type" } else { "dtype" }).and_then(Value::as_str).unwrap_or_default();
    let plain = name.trim_start_matches(['<', '>', '|', '=']);
    let known = TYPES.iter().find(|(second, name, _)| [*second, *name].contains(&plain));
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let separator = if third {
        document.pointer("/chunk_key_encoding/configuration/separator")
    } else {
        document.get("dimension_separator")
    };
    let encoding = document.pointer("/chunk_key_encoding/name").and_then(Value::as_str);
    let prefixed = third && encoding != Some("v2");
    let usual = if prefixed { '/' } else { '.' };
    Ok(Array {
        dtype: known.map_or("unknown", |(.., dtype)| dtype),
        elements: elements.ok_or("it has more elements than can be counted")?,
        grid: shape.iter().zip(&chunks).map(|(size, chunk)| size.div_ceil(*chunk)).collect(),
        separator: separator.and_then(Value::as_str).and_then(|text| text.chars().next()).unwrap_or(usual),
        prefix: if prefixed { "c" } else { "" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let second = array(br#"{"zarr_format": 2, "shape": [5, 4], "chunks": [2, 4], "dtype": "<f4"}"#).unwrap();
        assert_eq!((second.dtype, second.elements, second.chunks()), ("F32", 20, Some(3)));
        assert_eq!([0, 1, 2].map(|number| second.chunk(number)), ["0.0", "1.0", "2.0"]);
        let third = array(
            br#"{"zarr_format": 3, "shape": [2, 6], "data_type": "bfloat16", "chunk_key_encoding": {"name": "default"},
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 3]}}}"#,
        )
        .unwrap();
        assert_eq!((third.dtype, third.elements, third.chunk(3)), ("BF16", 12, "c/1/1".to_owned()));
        let scalar = array(br#"{"zarr_format": 2, "shape": [], "chunks": [], "dtype": "|b1"}"#).unwrap();
        assert_eq!((scalar.elements, scalar.chunks(), scalar.chunk(0)), (1, Some(1), "0".to_owned()));
        for (text, words) in [
            ("{", "not JSON"),
            ("{}", "no shape"),
            (r#"{"shape": [1], "chunks": []}"#, "do not fit"),
            (r#"{"shape": [1], "chunks": [0]}"#, "do not fit"),
            (r#"{"shape": [18446744073709551615, 3], "chunks": [1, 1]}"#, "can be counted"),
        ] {
            assert!(array(text.as_bytes()).unwrap_err().contains(words), "{text}");
        }
    }
}
