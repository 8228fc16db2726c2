//! Models written by hand, whole and damaged.

use super::{
    super::{
        flatbuffer::tests::{Field, file},
        tests::{Folder, assert_bad, assert_good},
    },
    *,
};

struct Parts {
    operator: Vec<(u16, Field)>,
    data: Vec<(u16, Field)>,
    shape: Vec<i32>,
    input: i32,
    code: u32,
    buffer: u32,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            operator: vec![(3, Field::U32(9))],
            data: vec![(0, Field::Bytes(vec![1; 24]))],
            shape: vec![2, 3],
            input: 0,
            code: 0,
            buffer: 1,
        }
    }
}

/// A model of two tensors, one of them constant, and one operator.
fn model(parts: Parts) -> Vec<u8> {
    let tensors = vec![
        vec![(0, Field::Numbers(vec![1, 3])), (1, Field::U8(0)), (2, Field::U32(0)), (3, Field::Text("x"))],
        vec![(0, Field::Numbers(parts.shape)), (2, Field::U32(parts.buffer)), (3, Field::Text("weight"))],
    ];
    let operator =
        vec![(0, Field::U32(parts.code)), (1, Field::Numbers(vec![parts.input, 1, -1])), (2, Field::Numbers(vec![0]))];
    let graph = vec![
        (0, Field::Tables(tensors)),
        (1, Field::Numbers(vec![0])),
        (2, Field::Numbers(vec![0])),
        (3, Field::Tables(vec![operator])),
    ];
    file(
        *b"TFL3",
        &[
            (0, Field::U32(3)),
            (1, Field::Tables(vec![parts.operator])),
            (2, Field::Tables(vec![graph])),
            (4, Field::Tables(vec![vec![], parts.data])),
        ],
    )
}

fn judge(path: &str, bytes: Vec<u8>) -> crate::format::Verdict {
    Folder::new([(path, bytes)]).judge()
}

#[test]
fn tensors_with_bytes_are_the_weights() {
    for path in ["model.tflite", "model", "converted.bin"] {
        let verdict = judge(path, model(Parts::default()));
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!(contents.format, Some(Format::TfLite));
        assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(6)));
        assert_eq!(contents.dtypes, [("F32".to_owned(), 6)].into());
        assert_eq!(contents.framework.as_deref(), Some("tflite"));
    }
    let bytes = model(Parts::default());
    for length in 1..bytes.len() {
        assert!(!judge("model.tflite", bytes[..length].to_vec()).is_good(), "{length}");
    }
}

#[test]
fn what_does_not_fit_is_damage() {
    for (parts, words) in [
        (Parts { shape: vec![2, 4], ..Parts::default() }, "has 24 bytes, its shape says 32"),
        (Parts { shape: vec![2, -3], ..Parts::default() }, "impossible shape"),
        (Parts { buffer: 2, ..Parts::default() }, "in buffer 2, but there are 2"),
        (Parts { input: 2, ..Parts::default() }, "has tensor 2, but there are 2"),
        (Parts { code: 1, ..Parts::default() }, "of kind 1, but there are 1"),
        (Parts { data: vec![(1, Field::U64(4000)), (2, Field::U64(24))], ..Parts::default() }, "goes on to byte 4024"),
    ] {
        assert_bad(&judge("model.tflite", model(parts)), Reason::Corrupt, "model.tflite", words);
    }
    // Data behind the tables, as large models have it.
    let behind =
        |offset: u64| model(Parts { data: vec![(1, Field::U64(offset)), (2, Field::U64(24))], ..Parts::default() });
    let length = behind(2).len() as u64;
    let bytes = [behind(length), vec![0; 24]].concat();
    assert_good(&judge("model.tflite", bytes));
}

#[test]
fn operators_of_libraries_are_code() {
    let custom = |name| Parts { operator: vec![(0, Field::U8(32)), (1, Field::Text(name))], ..Parts::default() };
    let verdict = judge("model.tflite", model(custom("MyOp")));
    assert_good(&verdict);
    assert_eq!(verdict.contents.code, ["model.tflite: operators of another library, which has to be linked (MyOp)"]);
    let verdict = judge("model.tflite", model(custom("FlexReadFile")));
    assert_bad(&verdict, Reason::UnsafeCode, "model.tflite", "FlexReadFile");
    let mut names = BTreeSet::new();
    for number in 0..2 * NAMED {
        note(&mut names, &format!("MyOp{number}"));
    }
    note(&mut names, "FlexWriteFile");
    assert!(names.len() == NAMED + 1 && names.contains("FlexWriteFile"), "{names:?}");
}

proptest::proptest! {
    #[test]
    fn changed_models_end(changes in proptest::collection::vec((0usize..600, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = model(Parts::default());
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge("model.tflite", bytes);
    }
}
