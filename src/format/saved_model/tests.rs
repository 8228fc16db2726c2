//! Models made by hand: variables, assets, operations, both forms.

use super::{
    super::{
        tensorflow,
        tests::{Folder, assert_bad, assert_good},
    },
    *,
};

fn field(number: u8, content: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(content.len()).unwrap()][..], content].concat()
}

/// A model whose function has a node of this operation with this text as an attribute.
fn with_attribute(operation: &str, attribute: &str) -> Vec<u8> {
    let value = field(2, &field(2, attribute.as_bytes()));
    let node = [field(2, operation.as_bytes()), field(5, &[field(1, b"key"), value].concat())].concat();
    let library = field(2, &field(1, &field(3, &node)));
    let graph = [field(1, &field(2, b"VarHandleOp")), library].concat();
    let asset = field(6, &field(2, b"words.txt"));
    [vec![8, 1], field(2, &[field(1, &field(5, b"2.21.0")), field(2, &graph), asset].concat())].concat()
}

fn model(operation: &str) -> Vec<u8> {
    with_attribute(operation, "")
}

fn folder(model: Vec<u8>) -> Folder {
    let (index, data) = tensorflow::tests::small();
    Folder::new([
        ("saved_model.pb", model),
        ("assets/words.txt", b"a".to_vec()),
        ("variables/variables.index", index),
        ("variables/variables.data-00000-of-00001", data),
    ])
}

#[test]
fn models_and_their_variables() {
    let verdict = folder(model("MatMul")).judge();
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!(contents.format, Some(Format::SavedModel));
    assert_eq!(contents.framework.as_deref(), Some("tensorflow 2.21.0"));
    assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(2)));
    assert_eq!(contents.components, []);
    for file in ["variables/variables.index", "variables/variables.data-00000-of-00001", "assets/words.txt"] {
        assert_bad(&folder(model("MatMul")).without(file).judge(), Reason::Incomplete, file, "is missing");
    }
    let none =
        folder(model("MatMul")).without("variables/variables.index").without("variables/variables.data-00000-of-00001");
    assert_bad(&none.judge(), Reason::Incomplete, "variables/variables.index", "has variables");
    let cut = folder(model("MatMul")).with("variables/variables.data-00000-of-00001", "1234567");
    assert_bad(&cut.judge(), Reason::Corrupt, "variables.data-00000-of-00001", "is truncated");
    let bytes = model("MatMul");
    for length in 1..bytes.len() {
        assert!(!folder(bytes[..length].to_vec()).judge().is_good(), "{length}");
    }
}

#[test]
fn operations_that_reach_out_are_code() {
    for operation in ["ReadFile", "EagerPyFunc", "DebugIdentityV3", "TFRecordDataset"] {
        assert_bad(&folder(model(operation)).judge(), Reason::UnsafeCode, "saved_model.pb", operation);
    }
    let file = with_attribute("PrintV2", "file:///tmp/x");
    assert_bad(&folder(file).judge(), Reason::UnsafeCode, "saved_model.pb", "PrintV2 to a file");
    assert_good(&folder(with_attribute("PrintV2", "stderr")).judge());
    for (operation, words) in [("Own>Op", "another library"), ("InitializeTableFromTextFileV2", "tables")] {
        let verdict = folder(model(operation)).judge();
        assert_good(&verdict);
        assert!(verdict.contents.code[0].contains(words), "{:?}", verdict.contents.code);
    }
}

#[test]
fn operations_of_libraries_hide_no_others() {
    let mut model = Model::default();
    for number in 0..2 * NAMED {
        model.operation(&format!("Own>Op{number}"));
    }
    assert_eq!(model.operations.len(), NAMED);
    model.operation("WriteFile");
    let code = model.code();
    assert!(code.contains(&(true, "operations that reach for files, the network or Python (WriteFile)".to_owned())));
}

#[test]
fn the_text_form_is_read() {
    let text = |operation: &str| {
        format!(
            "saved_model_schema_version: 1\nmeta_graphs {{\n meta_info_def {{ tensorflow_version: \"2.21.0\" }}\n graph_def {{ node {{ name: \"x\" op: \"{operation}\" }} }}\n asset_file_def {{ filename: \"words.txt\" }}\n}}\n"
        )
    };
    let folder = |text: &str| folder(Vec::new()).without("saved_model.pb").with("saved_model.pbtxt", text);
    let verdict = folder(&text("MatMul")).judge();
    assert_good(&verdict);
    assert_eq!(verdict.contents.format, Some(Format::SavedModel));
    assert_eq!(verdict.contents.framework.as_deref(), Some("tensorflow 2.21.0"));
    assert_bad(&folder(&text("WriteFile")).judge(), Reason::UnsafeCode, "saved_model.pbtxt", "WriteFile");
    let without = folder(&text("MatMul")).without("assets/words.txt");
    assert_bad(&without.judge(), Reason::Incomplete, "assets/words.txt", "is missing");
    let whole = text("MatMul");
    let end = whole.rfind('}').unwrap();
    for length in 1..=end {
        let verdict = folder(&whole[..length]).judge();
        // What ends before the first graph is no model; behind it only the last bracket is missing.
        assert!(!verdict.is_good(), "{length}");
    }
}

#[test]
fn graphs_beside_a_checkpoint_are_read() {
    let (index, data) = tensorflow::tests::small();
    let graph = |operation: &str| field(2, &field(1, &field(2, operation.as_bytes())));
    let folder = |operation: &str| {
        Folder::new([("m.index", index.clone()), ("m.data-00000-of-00001", data.clone()), ("m.meta", graph(operation))])
    };
    assert_good(&folder("MatMul").judge());
    assert_bad(&folder("PyFunc").judge(), Reason::UnsafeCode, "m.meta", "PyFunc");
}
