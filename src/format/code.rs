//! Code of people that lies beside a model: Python files, native libraries, chat templates. Pure, no I/O.

pub(super) mod templates;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    evidence::{CodeFact, Document, Evidence},
    findings::{Notes, UPLOAD_AGAIN},
    names,
    table::Family,
};
use crate::contract::{Format, Reason};

const TOKENIZER: &str = "tokenizer_config.json";
/// Extensions of native libraries, which nothing loads by itself and no check can look into.
const LIBRARIES: [&str; 4] = ["so", "dll", "dylib", "pyd"];

/// What it finds belongs to whatever format the folder has; it claims none.
pub(super) const READER: Family = Family { probe: templates::probe, check, ..Family::of(Format::Generic) };

fn check(evidence: &mut Evidence, notes: &mut Notes) {
    if let (Document::Broken(problem), Some(file)) = (&evidence.tokenizer, evidence.tree.at_home(TOKENIZER)) {
        let path = &evidence.tree.file(file).path;
        let message = format!("{} is damaged: {problem}; {UPLOAD_AGAIN}", names::shown(path));
        notes.fatal(Reason::Corrupt, Some(path), message);
    }
    missing_modules(evidence, notes);
    if evidence.tree.iter().all(|(_, file)| !may_be_code(&file.path)) {
        return;
    }
    let mapped = [&evidence.config, &evidence.tokenizer, &evidence.adapter]
        .iter()
        .any(|document| document.get("auto_map").is_some());
    let mut found = Vec::new();
    for (file, listed) in evidence.tree.iter() {
        let name = names::base(&listed.path);
        let what = if names::has_extension(name, "py") {
            if mapped { "Python code of the model (auto_map)" } else { "Python code" }
        } else if is_library(name) {
            "a native library"
        } else if names::has_extension(name, "jinja") {
            "a chat template"
        } else {
            continue;
        };
        found.push(CodeFact { on_load: false, file, what: what.to_owned() });
    }
    for fact in found {
        evidence.note_code(fact);
    }
}

/// Python files that a configuration maps classes to: `{"AutoModel": "modeling_x.Model"}`. Those of other repositories have their
/// name before `--`. Models that transformers came to know later are loaded without.
fn missing_modules(evidence: &Evidence, notes: &mut Notes) {
    let documents = [(&evidence.config, "config.json"), (&evidence.tokenizer, TOKENIZER)];
    for (document, from) in documents {
        let Some(Value::Object(map)) = document.get("auto_map") else { continue };
        let classes = map.values().flat_map(|value| match value {
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            value => value.as_str().into_iter().collect::<Vec<_>>(),
        });
        let modules = classes.filter(|class| !class.contains("--")).filter_map(|class| Some(class.rsplit_once('.')?.0));
        for module in modules.collect::<BTreeSet<_>>() {
            let path = format!("{}{}.py", evidence.tree.home(), module.replace('.', "/"));
            if evidence.tree.find(&path).is_none() {
                let message = format!(
                    "{} is missing: the auto_map of {from} has classes of the model in it; upload it, unless the library has these classes itself",
                    names::shown(&path)
                );
                notes.warn(Reason::Incomplete, Some(&path), message);
            }
        }
    }
}

fn is_library(name: &str) -> bool {
    LIBRARIES.iter().any(|library| names::has_extension(name, library)) || name.contains(".so.")
}

fn may_be_code(path: &str) -> bool {
    let name = names::base(path);
    is_library(name) || ["py", "jinja"].iter().any(|extension| names::has_extension(name, extension))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Folder, assert_bad, assert_good, tensors};
    use crate::contract::{CodePolicy, Reason, Validation};

    #[test]
    fn mapped_modules_are_there() {
        let map =
            br#"{"model_type": "x", "auto_map": {"AutoModel": "modeling_x.X", "AutoConfig": "org/other--config.C"}}"#;
        let folder = Folder::new([("config.json", map.to_vec()), ("model.safetensors", tensors(&[("a", 1)]))]);
        assert_good(&folder.clone().with("modeling_x.py", "class X: pass").judge());
        let verdict = folder.judge();
        assert_good(&verdict);
        assert!(verdict.findings[0].message.contains("modeling_x.py is missing"), "{:?}", verdict.findings);
        let broken = folder.with("modeling_x.py", "").with("tokenizer_config.json", "{").judge();
        assert_bad(&broken, Reason::Corrupt, "tokenizer_config.json", "is damaged");
    }

    #[test]
    fn code_beside_a_model_is_reported_and_forbidden_on_request() {
        let folder = Folder::new([
            ("config.json", br#"{"model_type": "x", "auto_map": {"AutoModel": "modeling_x.X"}}"#.to_vec()),
            ("model.safetensors", tensors(&[("a", 1)])),
            ("modeling_x.py", b"class X: pass".to_vec()),
            ("kernels/fast.so", b"\x7fELF".to_vec()),
            ("chat_template.jinja", b"{{ messages }}".to_vec()),
            ("tokenizer_config.json", br#"{"chat_template": "{{ messages }}"}"#.to_vec()),
        ]);
        let verdict = folder.judge();
        assert_good(&verdict);
        assert_eq!(
            verdict.contents.code,
            [
                "chat_template.jinja: a chat template",
                "kernels/fast.so: a native library",
                "modeling_x.py: Python code of the model (auto_map)",
                "tokenizer_config.json: a chat template",
            ]
        );
        let strict = Validation { code: CodePolicy::Forbid, ..Validation::default() };
        let verdict = folder.judge_with(&strict, &[]);
        assert_bad(&verdict, Reason::UnsafeCode, "chat_template.jinja", "validation.code: OptIn");
    }

    #[test]
    fn templates_are_found_in_every_folder() {
        let folder = |path: &str, text: &str| {
            Folder::new([("model.safetensors", tensors(&[("a", 1)])), (path, text.as_bytes().to_vec())])
        };
        let strict = Validation { code: CodePolicy::Forbid, ..Validation::default() };
        let long = format!(r#"{{"a": "{}", "chat_template": [{{"name": "x"}}]}}"#, "x".repeat(2 << 20));
        for path in ["tokenizer_config.json", "chat_template.json", "a/tokenizer_config.json", "a/b/chat_template.json"]
        {
            for text in [r#"{"chat_template": "{{ x }}"}"#, r#"{"chat_template": null, "chat_template": ""}"#, &long] {
                let verdict = folder(path, text).judge_with(&strict, &[]);
                assert_bad(&verdict, Reason::UnsafeCode, path, "a chat template");
            }
            for text in ["{}", r#"{"chat_template": null}"#, r#"{"a": {"chat_template": "x"}, "b": ["chat_template"]}"#]
            {
                let verdict = folder(path, text).judge_with(&strict, &[]);
                assert!(verdict.is_good() && verdict.contents.code.is_empty(), "{path} {text}: {}", verdict.message);
            }
            assert_bad(&folder(path, "{").judge(), Reason::Corrupt, path, "is damaged");
        }
        let huge = folder("chat_template.json", &" ".repeat((16 << 20) + 1)).judge_with(&strict, &[]);
        assert_bad(&huge, Reason::UnsafeCode, "chat_template.json", "too large to be read");
    }
}
