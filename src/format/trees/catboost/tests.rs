//! Models as CatBoost writes them, and what damage does to them.

use super::*;
use crate::{
    contract::Reason,
    format::{
        Verdict,
        tests::{Folder, assert_bad, assert_good},
    },
};

/// Writes a FlatBuffer from its end: what is pushed first lies last, as the real builder does it. Positions count from the end.
#[derive(Default)]
struct Builder(Vec<u8>);

impl Builder {
    /// Puts bytes before all others.
    fn push(&mut self, bytes: &[u8]) -> usize {
        self.0.splice(0..0, bytes.iter().copied());
        self.0.len()
    }

    fn list(&mut self, count: usize, bytes: &[u8]) -> usize {
        self.push(bytes);
        self.push(&u32::try_from(count).unwrap().to_le_bytes())
    }

    fn text(&mut self, text: &str) -> usize {
        self.push(&[0]);
        self.list(text.len(), text.as_bytes())
    }

    /// A list of what lies elsewhere.
    fn offsets(&mut self, targets: &[usize]) -> usize {
        let mut bytes = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            let at = self.0.len() + 4 * (targets.len() - index);
            bytes.extend(u32::try_from(at - target).unwrap().to_le_bytes());
        }
        self.list(targets.len(), &bytes)
    }

    /// A table whose members, all of four bytes, lie elsewhere (`Ok`) or in it (`Err`).
    fn table(&mut self, members: &[(usize, Result<usize, u32>)]) -> usize {
        let size = 4 + 4 * members.len();
        let slots = members.iter().map(|(number, _)| number + 1).max().unwrap_or(0);
        let mut vtable = vec![0u16; slots];
        let mut fields = Vec::new();
        for (index, (number, member)) in members.iter().enumerate() {
            vtable[*number] = u16::try_from(4 + 4 * index).unwrap();
            let at = self.0.len() + size - 4 - 4 * index;
            let value = match member {
                Ok(target) => u32::try_from(at - target).unwrap(),
                Err(number) => *number,
            };
            fields.extend(value.to_le_bytes());
        }
        let length = 4 + 2 * slots;
        fields.splice(0..0, i32::try_from(length).unwrap().to_le_bytes());
        let table = self.push(&fields);
        let sizes = [u16::try_from(length).unwrap(), u16::try_from(size).unwrap()];
        let bytes: Vec<u8> = sizes.iter().chain(&vtable).flat_map(|number| number.to_le_bytes()).collect();
        self.push(&bytes);
        table
    }

    fn finish(mut self, root: usize) -> Vec<u8> {
        let offset = self.0.len() + 4 - root;
        self.push(&u32::try_from(offset).unwrap().to_le_bytes());
        self.0
    }
}

fn numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Two symmetric trees of these depths.
fn model(depths: [u32; 2], leaves: usize, parts: &[&str], rest: &[u8]) -> Vec<u8> {
    let mut builder = Builder::default();
    let splits = builder.list(3, &numbers(&[0, 1, 0]));
    let sizes = builder.list(2, &numbers(&depths));
    let starts = builder.list(2, &numbers(&[0, depths[0]]));
    let values = builder.list(leaves, &vec![0; 8 * leaves]);
    let trees = builder.table(&[(0, Err(1)), (1, Ok(splits)), (2, Ok(sizes)), (3, Ok(starts)), (8, Ok(values))]);
    let mut pairs = Vec::new();
    for (key, value) in
        [("catboost_version_info", "1.2.10"), ("params", r#"{"loss_function": {"type": "Logloss"}}"#), ("other", "")]
    {
        let (key, value) = (builder.text(key), builder.text(value));
        pairs.push(builder.table(&[(0, Ok(key)), (1, Ok(value))]));
    }
    let information = builder.offsets(&pairs);
    let names: Vec<usize> = parts.iter().map(|part| builder.text(part)).collect();
    let names = builder.offsets(&names);
    let version = builder.text("FlabuffersModel_v1");
    let root = builder.table(&[(0, Ok(version)), (1, Ok(trees)), (2, Ok(information)), (3, Ok(names))]);
    let core = builder.finish(root);
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::try_from(core.len()).unwrap().to_le_bytes());
    bytes.extend(core);
    bytes.extend(rest);
    bytes
}

fn judge(path: &str, bytes: &[u8]) -> Verdict {
    Folder::new([(path, bytes.to_vec())]).judge()
}

#[test]
fn models_are_read_to_their_end() {
    let statistics = [&numbers(&[2, 3])[..], b"abc", &numbers(&[1])[..], b"d"].concat();
    for bytes in [model([1, 2], 6, &[], b""), model([1, 2], 6, &["static_provider_v1"], &statistics)] {
        let verdict = judge("model.cbm", &bytes);
        assert_good(&verdict);
        let contents = verdict.contents;
        assert_eq!(
            (contents.format, contents.framework.as_deref(), contents.architecture.as_deref()),
            (Some(Format::CatBoost), Some("catboost 1.2.10"), Some("Logloss"))
        );
        for length in 1..bytes.len() {
            assert_bad(&judge("model.cbm", &bytes[..length]), Reason::Corrupt, "model.cbm", "is damaged");
        }
        assert_bad(&judge("model", &[&bytes[..], b"x"].concat()), Reason::Corrupt, "model", "1 bytes follow");
    }
    assert_good(&judge("model.cbm", &model([1, 2], 6, &["text_processing_collection_v1"], b"whatever")));
}

#[test]
fn lists_fit_each_other() {
    for (bytes, words) in [
        (model([1, 2], 5, &[], b""), "need 6 values of leaves, it has 5"),
        (model([2, 2], 8, &[], b""), "need 4 splits, it has 3"),
        (model([1, 2], 6, &["text_processing_collection_v1"], b""), "is missing behind its trees"),
        (b"CBM0".to_vec(), "does not begin with CBM1"),
    ] {
        assert_bad(&judge("model.cbm", &bytes), Reason::Corrupt, "model.cbm", words);
    }
}

const JSON: &str = r#"{
"features_info":{"float_features":[{"borders":[0.5],"feature_index":0}]},
"model_info":{"catboost_version_info":"1.2.10","params":{"loss_function":{"type":"RMSE"}}},
"oblivious_trees":[{"leaf_values":[1,2],"leaf_weights":[1,1],"splits":[{"border":0.5,"split_index":0}]},
 {"leaf_values":[1],"splits":null}],
"scale_and_bias":[1,[0]]}"#;

#[test]
fn exports_are_counted() {
    let verdict = judge("model.json", JSON.as_bytes());
    assert_good(&verdict);
    let contents = verdict.contents;
    assert_eq!(
        (contents.format, contents.framework.as_deref(), contents.architecture.as_deref()),
        (Some(Format::CatBoost), Some("catboost 1.2.10"), Some("RMSE"))
    );
    for length in 40..JSON.len() {
        assert_bad(&judge("model.json", &JSON.as_bytes()[..length]), Reason::Corrupt, "model.json", "is damaged");
    }
    for (from, to, words) in [
        ("[1,2]", "[1,2,3]", "tree 0 has 1 splits and 3 values"),
        ("[1],", "[1,2],", "tree 1 has 0 splits and 2 values"),
        ("oblivious_trees", "other", "neither oblivious_trees nor trees"),
    ] {
        assert_bad(&judge("model.json", JSON.replace(from, to).as_bytes()), Reason::Corrupt, "model.json", words);
    }
}

proptest::proptest! {
    #[test]
    fn changed_models_end(changes in proptest::collection::vec((0usize..600, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = model([1, 2], 6, &["static_provider_v1"], &numbers(&[0]));
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        judge("model.cbm", &bytes);
    }
}
