//! Models of sentence-transformers: `modules.json` lists the folders of the modules (sentence-transformers 5). Pure, no I/O.

use serde_json::Value;

use super::{
    evidence::{CodeFact, Evidence},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
    text,
};
use crate::contract::{Format, Reason};

const MODULES: &str = "modules.json";
/// Where its own modules come from.
const OWN: &str = "sentence_transformers.";

/// Its models.
pub(super) const FAMILY: Family = Family {
    claims: |evidence| modules(evidence).is_some(),
    places: |evidence| if modules(evidence).is_some() { vec![evidence.tree.home().to_owned()] } else { Vec::new() },
    probe: |tree, file| text::probe(tree, file, MODULES).filter(|_| tree.at_home(MODULES) == Some(file)),
    check,
    judged: "every module's folder is there; module classes from elsewhere are code",
    ..Family::of(Format::SentenceTransformers)
};

fn modules(evidence: &Evidence) -> Option<&str> {
    text::at(evidence, &format!("{}{MODULES}", evidence.tree.home()))
}

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    let Some(content) = modules(evidence) else { return };
    let home = evidence.tree.home();
    let path = format!("{home}{MODULES}");
    let Ok(Value::Array(listed)) = serde_json::from_str(content) else {
        let message = format!("{} is damaged: it is no JSON list; {UPLOAD_AGAIN}", names::shown(&path));
        return notes.fatal(Reason::Corrupt, Some(&path), message);
    };
    let mut foreign = Vec::new();
    for module in &listed {
        let member = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
        let (folder, class) = (member("path"), member("type"));
        let below = format!("{home}{folder}/");
        // The first module usually lies in the root.
        if !folder.is_empty()
            && !class.ends_with(".Normalize")
            && !evidence.tree.iter().any(|(_, file)| file.path.starts_with(&below))
        {
            let shown = names::shown(&below);
            let message =
                format!("{shown} is missing: {} names it as {}; upload it", names::shown(&path), names::shown(class));
            notes.fatal(Reason::Incomplete, Some(&below), message);
        }
        if !class.starts_with(OWN) && !class.is_empty() {
            foreign.push(format!("the module class {}, which is not of sentence-transformers", names::shown(class)));
        }
    }
    let Some(file) = evidence.tree.find(&path) else { return };
    for what in foreign {
        evidence.note_code(CodeFact { on_load: false, file, what });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors};
    use super::*;

    #[test]
    fn modules_are_there() {
        let modules = br#"[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]"#;
        let folder = Folder::new([
            ("modules.json", modules.to_vec()),
            ("config.json", br#"{"model_type": "bert"}"#.to_vec()),
            ("model.safetensors", tensors(&[("a", 1)])),
            ("1_Pooling/config.json", b"{}".to_vec()),
        ]);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(verdict.contents.format, Some(Format::SentenceTransformers));
        assert_bad(
            &folder.clone().without("1_Pooling/config.json").judge(),
            Reason::Incomplete,
            "1_Pooling/",
            "is missing",
        );
        assert_bad(&folder.with("modules.json", "{}").judge(), Reason::Corrupt, "modules.json", "no JSON list");
    }
}
