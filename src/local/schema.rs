//! Checks a manifest against the schema of the resource, as the API server and `kubectl` do. Pure, no I/O.
//!
//! The rules in CEL are not evaluated here: `plan` checks what they say.

use regex::Regex;
use serde_json::Value;

/// What is wrong with a value, with the path of each field; empty when it fits.
#[must_use]
pub fn problems(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, value, path, &mut found);
    found
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let nullable = schema["nullable"] == true || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if value.is_null() && (nullable || !path.contains('.')) {
        return;
    }
    if !has_type(schema, value) {
        found.push(format!("{path} must be {}, not {}", wanted(schema), kind(value)));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        let names: Vec<_> = allowed.iter().map(ToString::to_string).collect();
        found.push(format!("{path} must be one of {}, not {value}", names.join(", ")));
    }
    match value {
        Value::Object(object) => check_object(schema, object, path, found),
        Value::Array(items) => check_list(schema, items, path, found),
        Value::String(text) => check_text(schema, text, path, found),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if schema["minimum"].as_f64().is_some_and(|minimum| number < minimum) {
                found.push(format!("{path} must be at least {}", schema["minimum"]));
            }
            if schema["maximum"].as_f64().is_some_and(|maximum| number > maximum) {
                found.push(format!("{path} must be at most {}", schema["maximum"]));
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        _ => true,
    }
}

fn wanted(schema: &Value) -> &str {
    match schema["type"].as_str() {
        Some("object") => "an object",
        Some("array") => "a list",
        Some("string") => "text",
        Some("boolean") => "true or false",
        Some("integer") => "a whole number",
        Some("number") => "a number",
        _ => "text or a whole number",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn check_object(schema: &Value, object: &serde_json::Map<String, Value>, path: &str, found: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            found.push(format!("{path}.{name} is required"));
        }
    }
    if too_many(schema, "maxProperties", object.len()) {
        found.push(format!("{path} must have at most {} entries", schema["maxProperties"]));
    }
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    for (name, value) in object {
        let field = format!("{path}.{name}");
        if let Some(property) = schema["properties"].get(name) {
            check(property, value, &field, found);
        } else if schema["additionalProperties"].is_object() {
            check(&schema["additionalProperties"], value, &field, found);
        } else if !open {
            found.push(format!("unknown field {field:?}"));
        }
    }
}

fn check_list(schema: &Value, items: &[Value], path: &str, found: &mut Vec<String>) {
    if too_many(schema, "maxItems", items.len()) {
        found.push(format!("{path} must have at most {} items", schema["maxItems"]));
    }
    for (index, item) in items.iter().enumerate() {
        check(&schema["items"], item, &format!("{path}[{index}]"), found);
    }
}

fn check_text(schema: &Value, text: &str, path: &str, found: &mut Vec<String>) {
    let length = text.chars().count();
    if too_many(schema, "maxLength", length) {
        found.push(format!("{path} must be at most {} characters long", schema["maxLength"]));
    }
    if schema["minLength"].as_u64().is_some_and(|minimum| (length as u64) < minimum) {
        found.push(format!("{path} must be at least {} characters long", schema["minLength"]));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && !Regex::new(pattern).is_ok_and(|compiled| compiled.is_match(text))
    {
        found.push(format!("{path} is {text:?}, which does not match {pattern}"));
    }
}

fn too_many(schema: &Value, field: &str, count: usize) -> bool {
    schema[field].as_u64().is_some_and(|maximum| count as u64 > maximum)
}
