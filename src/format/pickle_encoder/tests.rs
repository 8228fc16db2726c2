use std::{
    io::Write,
    process::{Command, Stdio},
};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

const FIXED: [&str; 16] = [
    "{}",
    r#" {"a": 1, "a": [2]} "#,
    r#"{"a": [0, -0, 1, -1, 255, 256, -128, -129, 32768, 2147483647, 2147483648, -2147483648, -2147483649]}"#,
    r#"{"a": [9223372036854775807, 9223372036854775808, -9223372036854775808, -9223372036854775809, 18446744073709551616]}"#,
    r#"{"a": [1.0, -0.0, 0.1, 1e5, 1E-400, 1e999, -1e999, 2.5e-3, 123456789.123456789]}"#,
    r#"{"a": [NaN, Infinity, -Infinity]}"#,
    r#"{"a": [true, false, null, "", [], {}, [[]], {"b": {}}]}"#,
    r#"{"é\u00e9\ud83d\ude00": "\"\\\/\b\f\n\r\t\u0000", "": "日本"}"#,
    r#"{"a": 99999999999999999999999999999999999999999999999999}"#,
    r#"{"a": -99999999999999999999999999999999999999999999999999}"#,
    r#"{"epoch": 3, "step": 12000, "loss": 0.25, "tags": ["x", "y"]}"#,
    r#"{"1": 1, "true": 2}"#,
    r#"{"a": 1, "b": 2, "a": {"c": 3}}"#,
    r#"{"a": 57896044618658097711785492504343953926634992332820282019728792003956564819967}"#,
    r#"{"a": 57896044618658097711785492504343953926634992332820282019728792003956564819968}"#,
    r#"{"a": -57896044618658097711785492504343953926634992332820282019728792003956564819968}"#,
];

fn any_text() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        "-?[1-9][0-9]{0,60}",
        any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(|value| format!("{value:?}")),
        "-?[0-9]\\.[0-9]{1,20}[eE][-+]?[0-9]{1,3}",
    ];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("NaN".to_owned()),
        number,
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
    ];
    let value = leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(|items| format!("[{}]", items.join(", "))),
            object(inner),
        ]
    });
    object(value)
}

fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec(("[a-c\"é]{0,2}", value), 0..5).prop_map(|members| {
        let texts: Vec<_> =
            members.iter().map(|(key, value)| format!("{}: {value}", serde_json::to_string(key).unwrap())).collect();
        format!("{{{}}}", texts.join(", "))
    })
}

/// Compares with the machine's Python, in one process for all texts; without a Python there is nothing to compare with.
#[test]
fn python_reads_the_pickle_as_it_reads_the_json() {
    const SCRIPT: &str = r"
import json, pickle, pickletools, sys
count = 0
for line in sys.stdin:
    text, data = (bytes.fromhex(part) for part in line.split())
    names = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert not names & {'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'INST', 'OBJ', 'NEWOBJ', 'BUILD', 'BINPERSID'}, names
    expected, got = json.loads(text), pickle.loads(data)
    assert repr(expected) == repr(got), (expected, got)
    count += 1
print(count)
";
    let Ok(mut python) =
        Command::new("python3").args(["-c", SCRIPT]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        eprintln!("there is no python3 to compare with");
        return;
    };
    let mut runner = TestRunner::deterministic();
    let mut texts: Vec<String> = FIXED.map(str::to_owned).to_vec();
    texts.push(format!("{{\"a\": {}{}}}", "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1)));
    texts.push(format!("{{\"a\": -{}}}", "7".repeat(MAX_DIGITS)));
    texts.extend((0..500).map(|_| any_text().new_tree(&mut runner).unwrap().current()));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let lines: Vec<_> =
        texts.iter().map(|text| format!("{} {}\n", hex(text.as_bytes()), hex(&encode(text).unwrap()))).collect();
    python.stdin.take().unwrap().write_all(lines.concat().as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), texts.len().to_string());
}

#[test]
fn what_is_no_object_is_refused() {
    let deep = format!("{{\"a\": {}{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    let long = format!("{{\"a\": {}}}", "1".repeat(MAX_DIGITS + 1));
    let table = [
        ("", "ends"),
        ("[]", "not a JSON object"),
        ("1", "not a JSON object"),
        ("\"a\"", "not a JSON object"),
        ("{\"a\": 01}", "not JSON"),
        ("{\"a\": \"\\ud800\"}", "surrogate"),
        ("{} {}", "nothing more"),
        (deep.as_str(), "deeper than 200"),
        (long.as_str(), "at most 4300"),
    ];
    for (text, words) in table {
        let error = encode(text).unwrap_err().to_string();
        assert!(error.contains(words), "{text:.40}: {error}");
    }
}

#[test]
fn the_bytes_are_stable() {
    assert_eq!(encode(r#"{"a": [1, null]}"#).unwrap(), b"\x80\x02}(X\x01\x00\x00\x00a](J\x01\x00\x00\x00Neu.");
}

proptest! {
    #[test]
    fn never_panics(text in ".{0,60}") {
        let _ = encode(&text);
    }
}
