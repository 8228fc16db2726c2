//! `.metadata.json`, whatever is in it.

use super::*;

fn judge(bytes: impl Into<Vec<u8>>) -> Verdict {
    let verdict = Folder::new([("model.safetensors", tensors(&[("a", 1)]))]).with(".metadata.json", bytes).judge();
    assert_good(&verdict);
    verdict
}

#[test]
fn python_json_is_read() {
    assert_eq!(Folder::new([("a", vec![1])]).judge().metadata, None);
    let verdict =
        judge(r#"{"a": NaN, "b": [Infinity, -Infinity], "c\u0007": "x\ny\u001b[0m", "d": 1e999, "e": {"f": null}}"#);
    let expected = json!({"a": "NaN", "b": ["Infinity", "-Infinity"], "c": "xy[0m", "d": "1e999", "e": {"f": null}});
    assert_eq!(verdict.metadata, Some(expected));
    assert!(verdict.findings.is_empty());
}

#[test]
fn anything_else_is_reported_for_what_it_is() {
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
    let wide = format!("{{\"a\":\"{}\"}}", "x".repeat(70_000));
    let huge = "x".repeat((1 << 20) + 1);
    let table: [(&[u8], &str); 9] = [
        (b"", "it is empty"),
        (b"[1]", "not a JSON object"),
        (b"3", "not a JSON object"),
        (b"{\"a\":", "ends in the middle"),
        (b"{\"a\": \"\xff\"}", "not UTF-8"),
        (deep.as_bytes(), "deeper than 64"),
        (wide.as_bytes(), "more than the 65536"),
        (huge.as_bytes(), "it has 1048577 bytes"),
        (b"\x80\x02}.", "another kind of file"),
    ];
    for (bytes, words) in table {
        let verdict = judge(bytes);
        assert_eq!(verdict.metadata, None);
        let finding = &verdict.findings[0];
        assert!(finding.message.contains(words) && finding.file.as_deref() == Some(".metadata.json"), "{finding:?}");
    }
}

#[test]
fn only_the_root_has_metadata() {
    let verdict = Folder::new([("a/.metadata.json", b"nonsense".to_vec()), ("b", vec![1])]).judge();
    assert_eq!((verdict.metadata, verdict.findings), (None, vec![]));
}
