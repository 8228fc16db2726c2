//! XGBoost models as JSON or UBJSON (xgboost 3, `doc/model.schema`), read to their exact end. Pure, no I/O.

use std::ops::Range;

use super::ubjson;
use crate::{
    contract::{Contents, Format},
    format::{
        evidence::{Evidence, fact},
        findings::Notes,
        json::{Event, Limits, Sink},
        names,
        probe::{Collect, JsonProbe, Probe, Problem, note_problem},
        table::Family,
        window::{Parse, Parsed, Stop, Window, WindowProbe},
    },
};

/// The largest JSON model that is read, in bytes.
const LIMIT: u64 = 64 << 20;
const LIMITS: Limits = Limits { depth: 64, text: 1 << 20, python: true, halves: false };

/// XGBoost models.
pub(in crate::format) const FAMILY: Family = Family {
    claims: |evidence| evidence.all::<Model>().next().is_some(),
    places: |evidence| evidence.all::<Model>().map(|(file, _)| evidence.tree.file(file).path.clone()).collect(),
    sniff,
    describe,
    judged: "read to its exact end, JSON and UBJSON; as many leaves and splits as the trees need",
    ..Family::of(Format::XgBoost)
};

/// What a model says.
#[derive(Debug, Default)]
struct Model {
    version: Vec<String>,
    objective: Option<String>,
    /// How many trees it announces, and how many there are.
    announced: Option<u64>,
    trees: u64,
}

fn sniff(path: &str, size: u64, start: &[u8]) -> Option<Box<dyn Probe>> {
    if start.starts_with(b"{\"learner\"") {
        return Some(Box::new(JsonProbe::new(path, size, LIMIT, LIMITS, JsonModel::default())));
    }
    // `{`, the length of the first key as an integer of eight bytes or one, the key.
    let binary =
        start.starts_with(b"{") && start.get(1..24).is_some_and(|key| key.windows(7).any(|text| text == b"learner"));
    let old = start.starts_with(b"binf") || names::has_extension(path, "ubj");
    (binary || old).then(|| WindowProbe::boxed(BinaryModel, size, start))
}

struct BinaryModel;

impl Parse for BinaryModel {
    type Output = Model;

    fn parse(&self, file: &Window<'_>) -> Parsed<Model> {
        if file.up_to(0, 4)? == b"binf" {
            return Err(Stop::bad(
                "it is of XGBoost's old binary format, which XGBoost 3 does not load any more: save it as JSON or UBJSON with an older version",
            ));
        }
        let mut model = Model::default();
        ubjson::walk(file, &mut |keys, value| model.take(keys, value))?;
        Ok(model)
    }

    fn finish(self, outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        leave(outcome, file, evidence, notes);
    }
}

impl Model {
    fn take(&mut self, keys: &[&str], value: &str) {
        match keys {
            ["version", ..] if self.version.len() < 3 => self.version.push(value.to_owned()),
            ["learner", "objective", "name"] => self.objective = Some(fact(value)),
            // Within `learner.gradient_booster`, with one level more for the trees of dart.
            [.., "model", "gbtree_model_param", "num_trees"] => self.announced = value.parse().ok(),
            [.., "model", "trees", "", "id"] => self.trees += 1,
            _ => {}
        }
    }
}

fn leave(outcome: Result<Model, Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
    match outcome {
        Ok(Model { announced: Some(announced), trees, .. }) if announced != trees => {
            let text = format!("it announces {announced} trees, {trees} are there");
            note_problem(&Problem::Broken(text), file, evidence, notes);
        }
        Ok(model) => evidence.put(file, model),
        Err(problem) => note_problem(&problem, file, evidence, notes),
    }
}

/// A model in JSON: the keys that lead to where it is read.
#[derive(Debug, Default)]
struct JsonModel {
    keys: Vec<String>,
    model: Model,
}

impl Sink for JsonModel {
    fn event(&mut self, event: Event<'_>, _: Range<u64>) -> Result<(), String> {
        match event {
            Event::BeginObject | Event::BeginArray => self.keys.push(String::new()),
            Event::EndObject | Event::EndArray => {
                self.keys.pop();
            }
            Event::Key(key) => {
                if let Some(last) = self.keys.last_mut() {
                    key.chars().take(64).collect::<String>().clone_into(last);
                }
            }
            Event::Number(text) | Event::String(text) if self.keys.len() <= 8 => {
                let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
                self.model.take(&keys, text);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Collect for JsonModel {
    fn finish(self, outcome: Result<(), Problem>, file: usize, evidence: &mut Evidence, notes: &mut Notes) {
        leave(outcome.map(|()| self.model), file, evidence, notes);
    }
}

fn describe(evidence: &Evidence, contents: &mut Contents) {
    let Some((_, model)) = evidence.all::<Model>().next() else { return };
    let version = fact(&model.version.join("."));
    contents.framework = contents.framework.take().or_else(|| Some(format!("xgboost {version}").trim().to_owned()));
    contents.architecture = contents.architecture.take().or_else(|| model.objective.clone());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Reason;
    use crate::format::tests::{Folder, assert_bad, assert_good};

    const JSON: &str =
        r#"{"learner":{"attributes":{},"objective":{"name":"binary:logistic"},"x":[1,2.5]},"version":[3,2,0]}"#;

    /// The same as UBJSON.
    fn binary() -> Vec<u8> {
        let mut bytes = b"{L\0\0\0\0\0\0\0\x07learner{".to_vec();
        bytes.extend(b"i\x09objective{i\x04nameSi\x0fbinary:logistic}");
        bytes.extend(b"i\x01x[$d#i\x02\0\0\0\0\0\0\0\0i\x01e[]}");
        bytes.extend(b"i\x07version[i\x03i\x02i\x00]}");
        bytes
    }

    fn judge(path: &str, bytes: &[u8]) -> crate::format::Verdict {
        Folder::new([(path, bytes.to_vec())]).judge()
    }

    #[test]
    fn models_are_read_to_their_end() {
        for (path, bytes) in [("model.json", JSON.as_bytes().to_vec()), ("model.ubj", binary()), ("model", binary())] {
            let verdict = judge(path, &bytes);
            assert_good(&verdict);
            let contents = verdict.contents;
            assert_eq!(
                (contents.format, contents.framework.as_deref()),
                (Some(Format::XgBoost), Some("xgboost 3.2.0"))
            );
            assert_eq!(contents.architecture.as_deref(), Some("binary:logistic"));
            for length in 24..bytes.len() {
                assert_bad(&judge(path, &bytes[..length]), Reason::Corrupt, path, "is damaged");
            }
            assert_bad(&judge(path, &[&bytes[..], b"x"].concat()), Reason::Corrupt, path, "is damaged");
        }
        let boosted = |announced: u32| {
            let model = format!(
                r#"{{"gbtree_model_param":{{"num_trees":"{announced}"}},"trees":[{{"id":0,"tree_param":{{"id":3}}}},{{"id":1}}]}}"#
            );
            format!(r#"{{"learner":{{"gradient_booster":{{"gbtree":{{"model":{model}}}}}}},"version":[3,2,0]}}"#)
        };
        assert_good(&judge("model.json", boosted(2).as_bytes()));
        assert_bad(&judge("model.json", boosted(3).as_bytes()), Reason::Corrupt, "model.json", "3 trees, 2 are there");
        assert_bad(&judge("model", b"binf\0\0"), Reason::Corrupt, "model", "old binary format");
    }

    proptest::proptest! {
        #[test]
        fn changed_models_end(changes in proptest::collection::vec((0usize..120, proptest::prelude::any::<u8>()), 1..6)) {
            let mut bytes = binary();
            let length = bytes.len();
            for (at, byte) in changes {
                bytes[at % length] = byte;
            }
            judge("model.ubj", &bytes);
        }
    }
}
