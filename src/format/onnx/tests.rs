//! Models made by hand: tensors inside and outside, operators, functions.

use super::{
    super::tests::{Folder, assert_bad, assert_good},
    *,
};

/// A field with bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    field_of(usize::from(number), content)
}

/// A tensor of 3 F32, inside or in `location`.
fn tensor(location: Option<(&str, &str, &str)>) -> Vec<u8> {
    let mut bytes = vec![1 << 3, 3, 2 << 3, 1];
    bytes.extend(field(8, b"weight"));
    if let Some((location, offset, length)) = location {
        for (key, value) in [("location", location), ("offset", offset), ("length", length)] {
            bytes.extend(field(13, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat()));
        }
        bytes.extend([14 << 3, 1]);
    } else {
        bytes.extend(field(9, &[0; 12]));
    }
    bytes
}

fn model(tensor: &[u8]) -> Vec<u8> {
    [vec![8, 10], field(2, b"pytorch"), field(3, b"2.15"), field(7, &field(5, tensor)), field(8, &[2 << 3, 21])]
        .concat()
}

fn judge(bytes: Vec<u8>) -> crate::format::Verdict {
    Folder::new([("m/model.onnx", bytes), ("m/weights.bin", vec![0; 12])]).judge()
}

#[test]
fn tensors_inside_and_outside() {
    for bytes in [model(&tensor(None)), model(&tensor(Some(("weights.bin", "0", "12"))))] {
        let verdict = judge(bytes.clone());
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!((contents.format, contents.parameters), (Some(Format::Onnx), Some(3)));
        assert_eq!(contents.framework.as_deref(), Some("pytorch 2.15"));
        for length in 0..bytes.len() {
            assert!(!judge(bytes[..length].to_vec()).is_good() || length == 0, "{length}");
        }
    }
}

#[test]
fn damage_is_named() {
    for (location, reason, file, words) in [
        (("other.bin", "0", "12"), Reason::Incomplete, "m/other.bin", "is missing"),
        (("weights.bin", "4", "12"), Reason::Corrupt, "m/weights.bin", "ends at byte 16"),
        (("weights.bin", "0", "8"), Reason::Corrupt, "m/model.onnx", "its shape says 12"),
        (("../weights.bin", "0", "12"), Reason::Corrupt, "m/model.onnx", "no safe path"),
        (("weights.bin", "x", "12"), Reason::Corrupt, "m/model.onnx", "no usable offset"),
    ] {
        assert_bad(&judge(model(&tensor(Some(location)))), reason, file, words);
    }
    let mut short = tensor(None);
    short[1] = 4;
    assert_bad(&judge(model(&short)), Reason::Corrupt, "m/model.onnx", "its shape says 16");
}

/// Tensors of one file are many, and it is missing once.
#[test]
fn a_missing_file_is_told_once() {
    let outside = tensor(Some(("other.bin", "0", "12")));
    let graph = field(7, &[field(5, &outside), field(5, &outside)].concat());
    let verdict = judge([vec![8, 10], graph, field(8, &[2 << 3, 21])].concat());
    assert_bad(&verdict, Reason::Incomplete, "m/other.bin", "is missing");
    assert_eq!(verdict.findings.len(), 1, "{:?}", verdict.findings);
}

#[test]
fn small_types_are_known() {
    for (kind, bytes, dtype) in [(22, 2, "I4"), (21, 2, "U4"), (23, 2, "F4_E2M1"), (24, 3, "F8_E8M0"), (26, 1, "I2")] {
        let tensor = |bytes: u8| {
            let data = vec![0; usize::from(bytes)];
            [vec![1 << 3, 3, 2 << 3, kind], field(8, b"weight"), field(9, &data)].concat()
        };
        let verdict = judge(model(&tensor(bytes)));
        assert_good(&verdict);
        assert_eq!(verdict.contents.dtypes, [(dtype.to_owned(), 3)].into());
        assert_bad(&judge(model(&tensor(bytes + 1))), Reason::Corrupt, "m/model.onnx", "its shape says");
    }
}

#[test]
fn operators_of_libraries_are_code_and_functions_are_read() {
    let node = |domain: &str, more: &[u8]| [field(4, b"Own"), field(7, domain.as_bytes()), more.to_vec()].concat();
    let with = |nodes: &[u8], functions: &[u8]| {
        [vec![8, 10], field(7, nodes), field(8, &[2 << 3, 21]), functions.to_vec()].concat()
    };
    let verdict = judge(with(&field(1, &node("com.example", &[])), &[]));
    assert_good(&verdict);
    let words = "m/model.onnx: operators of another library, which has to be registered (com.example.Own)";
    assert_eq!(verdict.contents.code, [words]);
    assert_eq!(judge(with(&field(1, &node("com.microsoft", &[])), &[])).contents.code, [""; 0]);
    // A function of the model's own has a node of another library.
    let function = |nodes: &[u8]| [field(1, b"Own"), nodes.to_vec(), field(10, b"com.example")].concat();
    let inner = field(7, &node("com.inner", &[]));
    let verdict = judge(with(&field(1, &node("com.example", &[])), &field_of(25, &function(&inner))));
    assert!(verdict.contents.code[0].ends_with("(com.inner.Own)"), "{:?}", verdict.contents.code);
    // Its constants may lie in other files.
    let constant = field(5, &field(5, &tensor(Some(("x.bin", "0", "12")))));
    let verdict = judge(with(&[], &field_of(25, &function(&field(7, &node("", &constant))))));
    assert_bad(&verdict, Reason::Incomplete, "m/x.bin", "is missing");
}

/// A length as protobuf writes it.
fn length(length: usize) -> Vec<u8> {
    if length < 0x80 {
        return vec![u8::try_from(length).unwrap()];
    }
    vec![u8::try_from(length & 0x7F).unwrap() | 0x80, u8::try_from(length >> 7).unwrap()]
}

/// A field whose number has two bytes.
fn field_of(number: usize, content: &[u8]) -> Vec<u8> {
    [length(number << 3 | 2), length(content.len()), content.to_vec()].concat()
}

proptest::proptest! {
    #[test]
    fn changed_models_end(changes in proptest::collection::vec((0usize..80, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = model(&tensor(Some(("weights.bin", "0", "12"))));
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge(bytes);
    }
}
