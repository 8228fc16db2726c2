//! The one place that reads and writes YAML, always through JSON values. Pure, no I/O.
//!
//! Through JSON values, because `serde_yaml` alone takes the last of duplicate keys, writes enums as tags, and leaves
//! words bare that readers of YAML 1.1 (kubectl, Helm) take for booleans, numbers or dates.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

/// Largest input, in bytes.
pub const LIMIT: usize = 1 << 20;

/// Text that is not YAML, or not YAML that has a meaning as JSON.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// More than [`LIMIT`] bytes.
    #[error("the input is larger than 1 MiB")]
    TooLarge,
    /// Not YAML, or a key stands twice in one mapping.
    #[error("document {document}: {source}")]
    Syntax {
        /// Which document of the input, from 1.
        document: usize,
        /// What is wrong and where.
        source: serde_yaml::Error,
    },
    /// YAML that JSON has no counterpart for.
    #[error("document {document}: {problem}")]
    NotJson {
        /// Which document of the input, from 1.
        document: usize,
        /// What it is.
        problem: String,
    },
    /// A value that cannot be written.
    #[error("cannot be written as YAML: {0}")]
    Write(String),
}

/// The documents of an input, YAML or JSON; empty ones are left out.
///
/// # Errors
/// When the input is too large, is not YAML, has duplicate keys, or has tags or numbers that JSON cannot say.
pub fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    if text.len() > LIMIT {
        return Err(YamlError::TooLarge);
    }
    let mut values = Vec::new();
    for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let syntax = |source| YamlError::Syntax { document: number, source };
        let mut value = serde_yaml::Value::deserialize(document).map_err(syntax)?;
        value.apply_merge().map_err(syntax)?;
        let value = to_json(value).map_err(|problem| YamlError::NotJson { document: number, problem })?;
        if !value.is_null() {
            values.push(value);
        }
    }
    Ok(values)
}

fn to_json(value: serde_yaml::Value) -> Result<Value, String> {
    use serde_yaml::Value as Yaml;
    Ok(match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(truth) => Value::Bool(truth),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => Value::Number(to_number(&number)?),
        Yaml::Sequence(items) => Value::Array(items.into_iter().map(to_json).collect::<Result<_, _>>()?),
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = to_key(key)?;
                if object.contains_key(&key) {
                    return Err(format!("the key {key:?} stands twice in one mapping"));
                }
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => return Err(format!("the tag {} is not understood", tagged.tag)),
    })
}

fn to_number(number: &serde_yaml::Number) -> Result<Number, String> {
    number
        .as_i64()
        .map(Number::from)
        .or_else(|| number.as_u64().map(Number::from))
        .or_else(|| number.as_f64().and_then(Number::from_f64))
        .ok_or_else(|| format!("the number {number} has no counterpart in JSON"))
}

/// Keys that are numbers or booleans become text, as kubectl takes them.
fn to_key(key: serde_yaml::Value) -> Result<String, String> {
    match key {
        serde_yaml::Value::String(text) => Ok(text),
        serde_yaml::Value::Bool(truth) => Ok(truth.to_string()),
        serde_yaml::Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("a key must be text, not {other:?}")),
    }
}

/// A value as YAML that readers of YAML 1.1 and 1.2 take for the same.
///
/// # Errors
/// When the value does not serialise to JSON.
pub fn to_string(value: &impl Serialize) -> Result<String, YamlError> {
    let write = |problem: String| YamlError::Write(problem);
    let mut value = serde_json::to_value(value).map_err(|error| write(error.to_string()))?;
    let json = value.to_string();
    // Words to be quoted are wrapped in two characters that occur nowhere else, and these then become the quotes.
    let mut unused = ('\u{E000}'..='\u{F8FF}').filter(|mark| !json.contains(*mark));
    let (Some(open), Some(close)) = (unused.next(), unused.next()) else {
        return Err(write("it uses every private character there is".to_owned()));
    };
    mark(&mut value, open, close);
    let text = serde_yaml::to_string(&value).map_err(|error| write(error.to_string()))?;
    Ok(text.replace([open, close], "\""))
}

fn mark(value: &mut Value, open: char, close: char) {
    match value {
        Value::String(text) if is_ambiguous(text) => *text = format!("{open}{text}{close}"),
        Value::Array(items) => items.iter_mut().for_each(|item| mark(item, open, close)),
        Value::Object(object) => {
            let entries = std::mem::take(object);
            for (key, mut value) in entries {
                mark(&mut value, open, close);
                let key = if is_ambiguous(&key) { format!("{open}{key}{close}") } else { key };
                object.insert(key, value);
            }
        }
        _ => {}
    }
}

/// Whether a reader of YAML 1.1 may take the bare text for a boolean, number or time.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let numeric = |byte: u8| byte.is_ascii_hexdigit() || b"_.:+-xXoOTtZz".contains(&byte);
    WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
        || (text.bytes().next().is_some_and(|first| first.is_ascii_digit() || b"+-.".contains(&first))
            && text.bytes().any(|byte| byte.is_ascii_digit())
            && text.bytes().all(numeric))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_become_json() {
        let text = "a: {1: x, true: y}\n---\n# nothing\n---\n[1, 2.5, null, \"no\"]\n---\n{\"b\": 1}\n";
        assert_eq!(
            documents(text).unwrap(),
            [json!({"a": {"1": "x", "true": "y"}}), json!([1, 2.5, null, "no"]), json!({"b": 1})]
        );
        assert_eq!(documents("base: &b {x: 1}\nall: {<<: *b, y: 2}\n").unwrap()[0]["all"], json!({"x": 1, "y": 2}));
    }

    #[test]
    fn what_has_no_single_meaning_is_refused() {
        for (text, expected) in [
            ("a: 1\na: 2\n", "duplicate"),
            ("a: {1: x, \"1\": y}\n", "twice"),
            ("a: !s3 {}\n", "tag"),
            ("a: .nan\n", "number"),
            ("{1: [}\n", "document 1"),
            ("? [a]\n: b\n", "key"),
        ] {
            let problem = documents(text).unwrap_err().to_string();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(matches!(documents(&"x".repeat(LIMIT + 1)), Err(YamlError::TooLarge)));
        let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f]\n";
        assert!(documents(bomb).is_err());
    }

    #[test]
    fn words_that_old_readers_take_for_something_else_are_quoted() {
        let value = json!({"y": "no", "b": ["On", "12:30", "1_000", "2026-01-01", "0x1F", "1e3", "-.5"], "c": "note"});
        let text = to_string(&value).unwrap();
        assert_eq!(
            text,
            "b:\n- \"On\"\n- \"12:30\"\n- \"1_000\"\n- \"2026-01-01\"\n- \"0x1F\"\n- \"1e3\"\n- \"-.5\"\nc: note\n\"y\": \"no\"\n"
        );
    }

    #[cfg(feature = "operator")]
    #[test]
    fn the_definition_of_the_resource_reads_back() {
        let definition = serde_json::to_value(crate::api::definition()).unwrap();
        assert_eq!(documents(&to_string(&definition).unwrap()).unwrap(), [definition]);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            "\\PC{0,12}",
            "[-+.0-9_:eETZ]{1,8}",
            "(yes|No|ON|off|y|~|null|\\.inf|=|<<|\u{E000}yes\u{E001})",
            "[ a:#\\n\\t'\"]{0,8}"
        ];
        let leaf =
            prop_oneof![text.clone().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(text.clone().prop_filter("a merge", |key| key != "<<"), inner, 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let value = json!({ "value": value });
            let text = to_string(&value).unwrap();
            prop_assert_eq!(&documents(&text).unwrap(), &[value], "{}", text);
        }

        #[test]
        fn no_input_panics(text in "\\PC{0,200}") {
            let _ = documents(&text);
        }
    }
}
