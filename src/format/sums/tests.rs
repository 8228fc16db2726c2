//! Sums that are right, wrong and of files that are gone.

use sha2::{Digest, Sha256};

use super::{
    super::tests::{Folder, allowing, assert_bad, assert_good, tensors},
    read::{Kind, sums},
    *,
};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn folder(name: &str, text: &str) -> Folder {
    Folder::new([
        ("model.safetensors", tensors(&[("a", 300_000)])),
        ("sub/notes.txt", b"notes".to_vec()),
        (name, text.as_bytes().to_vec()),
    ])
}

/// Every way in which sums are written.
fn written() -> Vec<(&'static str, String)> {
    let (model, notes) = (hex(&tensors(&[("a", 300_000)])), hex(b"notes"));
    vec![
        ("SHA256SUMS", format!("{model}  model.safetensors\n{notes} *./sub/notes.txt\n")),
        ("sha256sum.txt", format!("# made by hand\n{}  model.safetensors\r\n", model.to_uppercase())),
        ("model.safetensors.sha256", format!("{model}\n")),
        ("all.sha256", format!("SHA256 (model.safetensors) = {model}\n")),
        ("sub/SHA256SUMS", format!("{notes}  notes.txt")),
        ("integrity.json", format!(r#"{{"algorithm": "sha256", "files": {{"model.safetensors": "{model}"}}}}"#)),
    ]
}

#[test]
fn sums_are_recomputed_at_depth_content() {
    for (name, text) in written() {
        let good = folder(name, &text);
        for depth in [Depth::Headers, Depth::Content] {
            let verdict = good.judge_with(&allowing(depth), &[]);
            assert_good(&verdict);
            assert_eq!(verdict.findings, [], "{name}");
        }
        let mut flipped = tensors(&[("a", 300_000)]);
        *flipped.last_mut().unwrap() ^= 1;
        let bad = good.with("model.safetensors", flipped).with("sub/notes.txt", "other");
        assert_good(&bad.judge());
        let verdict = bad.judge_with(&allowing(Depth::Content), &[]);
        let file = if name == "sub/SHA256SUMS" { "sub/notes.txt" } else { "model.safetensors" };
        assert_bad(&verdict, Reason::Corrupt, file, &format!("its SHA-256 is not the one in {name}"));
    }
}

#[test]
fn files_that_are_named_are_there() {
    for (name, text) in written() {
        let file = if name == "sub/SHA256SUMS" { "sub/notes.txt" } else { "model.safetensors" };
        let verdict = folder(name, &text).with("other.safetensors", tensors(&[("b", 1)])).without(file).judge();
        assert_bad(&verdict, Reason::Incomplete, file, &format!("{name} names it"));
    }
}

#[test]
fn sums_that_cannot_be_used_are_told() {
    let sum = "0".repeat(64);
    for (name, text, words) in [
        ("integrity.json", r#"{"algorithm": "md5", "files": {}}"#.to_owned(), "only \"sha256\" is known"),
        ("integrity.json", r#"{"files": {"a": "x"}}"#.to_owned(), "no SHA-256"),
        ("integrity.json", "{".to_owned(), "not used"),
        ("SHA256SUMS", "nonsense".to_owned(), "is no sum"),
        ("SHA256SUMS", String::new(), "has no sums"),
        ("SHA256SUMS", sum.clone(), "is no sum"),
        ("SHA256SUMS", format!("{sum}  ../../etc/passwd"), "no file below it"),
        ("SHA256SUMS", format!("{sum}  /etc/passwd"), "no file below it"),
        ("SHA256SUMS", format!("{sum}  sub/notes.txt\n{}  sub/notes.txt", "1".repeat(64)), "and another in"),
    ] {
        let verdict = folder(name, &text).judge();
        assert_good(&verdict);
        let found = &verdict.findings;
        assert!(found.iter().any(|finding| finding.message.contains(words)), "{words}: {found:?}");
    }
}

#[test]
fn escapes_and_odd_names_are_read() {
    let sum = "ab".repeat(32);
    let named = |text: &str| sums(Kind::Lines, text, "SHA256SUMS").map(|sums| sums.named[0].0.clone());
    assert_eq!(named(&format!("\\{sum}  a\\\\b\\nc")), Ok("a\\b\nc".to_owned()));
    assert_eq!(named(&format!("SHA256 (a (1) b) = {sum}")), Ok("a (1) b".to_owned()));
    assert!(named(&format!("{}  é", &sum[1..])).is_err());
    assert!(named(&format!("é{sum}")).is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_ends(text in ".{0,200}", json in proptest::prelude::any::<bool>()) {
        let _ = sums(if json { Kind::Integrity } else { Kind::Lines }, &text, "x.sha256");
    }
}
