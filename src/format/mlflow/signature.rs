//! The signature of an MLflow model: JSON within the YAML, made lines that a person reads (mlflow 3.17, `types/schema.py`). No I/O.

use serde_json::Value;

use super::super::evidence::fact;

/// The most lines, as the contract says.
const LINES: usize = 32;
/// Lists and objects within each other.
const DEPTH: u32 = 4;

/// What the model takes and gives; nothing of what is malformed, because nothing depends on it.
pub(super) fn lines(model: &Value) -> Vec<String> {
    let Some(signature) = model.get("signature") else { return Vec::new() };
    let mut lines = Vec::new();
    for (member, what) in [("inputs", "input"), ("outputs", "output"), ("params", "parameter")] {
        let schema = signature.get(member).and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
        let Some(Value::Array(columns)) = schema else { continue };
        lines.extend(columns.iter().take(LINES).map(|column| line(what, column)));
    }
    lines.truncate(LINES);
    lines
}

fn line(what: &str, column: &Value) -> String {
    let name = column.get("name").map_or(String::new(), |name| match name {
        Value::String(name) => format!(" {name}"),
        other => format!(" {other}"),
    });
    let optional = column.get("required").and_then(Value::as_bool) == Some(false);
    fact(&format!("{what}{name}: {}{}", kind(column, 0), if optional { ", optional" } else { "" }))
}

/// A column's type: a plain one, a tensor with its shape, or what lists and objects are made of.
fn kind(column: &Value, depth: u32) -> String {
    let name = column.get("type").and_then(Value::as_str).unwrap_or("any");
    let of = |member: &str| column.get(member).filter(|_| depth < DEPTH).map(|inner| kind(inner, depth + 1));
    if let Some(tensor) = column.get("tensor-spec") {
        let dtype = tensor.get("dtype").and_then(Value::as_str).unwrap_or("any");
        let sizes = tensor.get("shape").and_then(Value::as_array).into_iter().flatten().map(Value::to_string);
        return format!("tensor of {dtype} [{}]", sizes.take(16).collect::<Vec<_>>().join(", "));
    }
    match (of("items").or_else(|| of("values")), column.get("properties").and_then(Value::as_object)) {
        (Some(inner), _) => format!("{name} of {inner}"),
        (None, Some(members)) => {
            format!("{name} of {}", members.keys().take(8).cloned().collect::<Vec<_>>().join(", "))
        }
        _ => name.to_owned(),
    }
}
