//! Configurations with code of every kind, and whole archives.

use serde_json::json;

use super::{
    super::{
        hdf5::tests::weights,
        tests::{Folder, assert_bad, assert_good},
        zip::tests::archive,
    },
    *,
};
use crate::contract::Reason;

#[test]
fn code_is_found_at_any_depth() {
    let layer = |class: &str, module: Option<&str>, registered: Option<&str>| json!({"config": {"layers": [{"module": module, "class_name": class, "registered_name": registered, "config": {"name": "x"}}]}});
    for (config, expected) in [
        (layer("Dense", Some("keras.layers"), None), None),
        (layer("Multiply", Some("keras.src.ops.numpy"), Some("Multiply")), None),
        (layer("Dense", None, None), None),
        (layer("Dense", Some("keras.layers"), Some("keras>Dense")), None),
        (layer("__keras_tensor__", None, None), None),
        (layer("Lambda", Some("keras.layers"), None), Some("a Lambda layer x")),
        (layer("__lambda__", None, None), Some("a Lambda layer x")),
        (layer("system", Some("os"), None), Some("the class system of the module os")),
        (layer("Own", Some("kerasevil"), None), Some("of the module kerasevil")),
        (layer("Own", None, Some("Custom>Own")), Some("the registered custom class Custom>Own")),
        (layer("Custom>Own", None, None), Some("the registered custom class Custom>Own")),
        (layer("Own", None, Some("Own")), Some("the custom class Own")),
        (layer("TorchModuleWrapper", Some("keras.layers"), None), Some("runs other programs (TorchModuleWrapper)")),
        // CVE-2025-8747: functions of Keras itself that download or load files.
        (layer("get_file", Some("keras.utils"), None), Some("the function get_file of keras.utils")),
    ] {
        let found = code(&config);
        match expected {
            None => assert_eq!(found, [], "{config}"),
            Some(words) => {
                assert!(found.iter().any(|(on_load, what)| *on_load && what.contains(words)), "{found:?}");
            }
        }
    }
}

#[test]
fn functions_are_told_apart_by_name_and_module() {
    let function = |name: &str, module: &str| {
        code(
            &json!({"compile_config": {"loss": {"module": module, "class_name": "function", "config": name, "registered_name": "function"}}}),
        )
    };
    assert_eq!(function("mean_squared_error", "builtins"), []);
    assert_eq!(function("relu", "keras.src.activations.activations"), []);
    for (name, module, words) in [
        // CVE-2025-1550 and its like.
        ("eval", "builtins", "the custom function eval"),
        ("my>loss", "builtins", "the custom function my>loss"),
        ("system", "os", "the custom function system"),
        ("enable_unsafe_deserialization", "keras.config", "which is no part of a model"),
        ("relu relu6", "builtins", "the custom function"),
    ] {
        assert!(function(name, module)[0].1.contains(words), "{name}");
    }
    let lookup =
        json!({"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}});
    assert!(code(&lookup)[0].1.contains("reads the file"));
}

fn model(config: &str, weights: &[u8], more: &str) -> Folder {
    let metadata = br#"{"keras_version": "3.15.1", "date_saved": "2026-11-25"}"#;
    let mut entries: Vec<(&str, &[u8])> =
        vec![("metadata.json", metadata), ("config.json", config.as_bytes()), ("model.weights.h5", weights)];
    if !more.is_empty() {
        entries.push((more, b"x"));
    }
    Folder::new([("m.keras", archive(&entries))])
}

const DENSE: &str = r#"{"module": "keras", "class_name": "Sequential", "config": {"limit": Infinity, "layers": []}}"#;

#[test]
fn archives_are_read_with_their_weights() {
    let verdict = model(DENSE, &weights(), "").judge();
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!(contents.format, Some(Format::Keras));
    assert_eq!(contents.framework.as_deref(), Some("keras 3.15.1"));
    assert_eq!(contents.architecture.as_deref(), Some("Sequential"));
    assert_eq!((contents.tensors, contents.parameters), (Some(1), Some(3)));
    let cut = weights();
    let verdict = model(DENSE, &cut[..cut.len() - 1], "").judge();
    assert_bad(&verdict, Reason::Corrupt, "m.keras", "model.weights.h5: it is truncated");
    assert_bad(&model("{", &weights(), "").judge(), Reason::Corrupt, "m.keras", "config.json is no usable JSON");
    let verdict = model(DENSE, &weights(), "notes.txt").judge();
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("notes.txt"), "{:?}", verdict.findings);
    assert_good(&model(DENSE, &weights(), "assets/words.txt").judge());
    let lambda =
        DENSE.replace("[]", r#"[{"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}}]"#);
    assert_bad(&model(&lambda, &weights(), "").judge(), Reason::UnsafeCode, "m.keras", "a Lambda layer x");
}

#[test]
fn shards_of_weights_are_there() {
    let index = br#"{"metadata": {"total_size": 12}, "weight_map": {"/layers/dense/vars": ["m_00000.weights.h5"], "/x": "m_00001.weights.h5"}}"#;
    let folder = Folder::new([
        ("m.weights.json", index.to_vec()),
        ("m_00000.weights.h5", weights()),
        ("m_00001.weights.h5", weights()),
    ]);
    let verdict = folder.judge();
    assert_good(&verdict);
    assert_eq!((verdict.contents.format, verdict.contents.tensors), (Some(Format::Hdf5), Some(2)));
    let verdict = folder.clone().without("m_00001.weights.h5").judge();
    assert_bad(&verdict, Reason::Incomplete, "m_00001.weights.h5", "is missing");
    for length in 1..index.len() {
        assert!(!folder.clone().with("m.weights.json", &index[..length]).judge().is_good(), "{length}");
    }
}

/// Keras reads neither `metadata.json` nor the names that other archives have, and runs the configuration before it looks for weights.
#[test]
fn archives_are_models_by_what_keras_reads() {
    let lambda =
        DENSE.replace("[]", r#"[{"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}}]"#);
    let arrays = archive(&[("notes.txt", b"x")]);
    for (weights, bytes) in [("model.weights.h5", weights()), ("model.weights.npz", arrays)] {
        for path in ["m.keras", "m.zip"] {
            let entries: [(&str, &[u8]); 2] = [("config.json", lambda.as_bytes()), (weights, &bytes)];
            let verdict = Folder::new([(path, archive(&entries))]).judge();
            assert_bad(&verdict, Reason::UnsafeCode, path, "a Lambda layer x");
        }
    }
    let alone = Folder::new([("m.keras", archive(&[("config.json", lambda.as_bytes())]))]).judge();
    assert_bad(&alone, Reason::Corrupt, "m.keras", "no weights");
    assert!(alone.contents.code[0].contains("a Lambda layer x"), "{:?}", alone.contents.code);
    let behind = [b"junk".to_vec(), archive(&[("config.json", lambda.as_bytes())])].concat();
    assert!(!Folder::new([("m.keras", behind)]).judge().is_good());
    assert_good(&Folder::new([("m.keras", weights())]).judge());
}

#[test]
fn folders_are_models_too() {
    let layers = |class: &str| {
        format!(
            r#"{{"module": "keras", "class_name": "Functional", "config": {{"layers": [{{"module": "keras.layers", "class_name": "{class}", "config": {{"name": "x"}}}}]}}}}"#
        )
    };
    for home in ["", "model/"] {
        let config = format!("{home}config.json");
        let folder = Folder::new([("a.txt", b"a".to_vec())]).with(&format!("{home}model.weights.h5"), weights());
        let verdict = folder.clone().with(&config, layers("Dense")).judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.tensors, Some(1));
        let is_home = home.is_empty();
        assert_eq!(verdict.contents.format == Some(Format::Keras), is_home, "{:?}", verdict.contents);
        let part = verdict.contents.components.iter().find(|part| part.path == home);
        assert_eq!(part.map(|part| part.format), (!is_home).then_some(Format::Keras));
        let verdict = folder.clone().with(&config, layers("Lambda")).judge();
        assert_bad(&verdict, Reason::UnsafeCode, &config, "a Lambda layer x");
        let verdict = folder.clone().with(&config, "{").judge();
        assert_bad(&verdict, Reason::Corrupt, &config, "is damaged");
    }
    // A model of transformers may have such weights beside it.
    let other = Folder::new([("config.json", br#"{"model_type": "bert"}"#.to_vec()), ("model.weights.h5", weights())]);
    assert_eq!(other.judge().contents.format, Some(Format::HuggingFace));
}
