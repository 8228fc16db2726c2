use proptest::prelude::*;
use serde_json::Value;

use super::{tree::Tree, *};

const LIMITS: Limits = Limits { depth: 100, text: 1 << 16, python: false, halves: false };

fn parse(pieces: &[&[u8]], limits: Limits) -> Result<Value, JsonError> {
    let mut parser = Parser::new(limits, 0);
    let mut tree = Tree::default();
    for piece in pieces {
        parser.feed(piece, &mut tree)?;
    }
    parser.finish(&mut tree)?;
    Ok(tree.into_value().unwrap())
}

#[test]
fn texts_are_taken_or_refused_as_serde_json_does() {
    let texts = [
        "{}",
        " [1, 2.5, -3e+2, 0, -0.5E-1] ",
        r#"{"a":{"b":[null,true,false,"\u00e9\ud83d\ude00\n\/"]}}"#,
        "\"\"",
        "12",
        "",
        " ",
        "{",
        "[1,]",
        "{,}",
        r#"{"a" 1}"#,
        r#"{"a":1,}"#,
        "[1 2]",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "nul",
        "NaN",
        "-Infinity",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800x\"",
        "\"\\ud800\\n\"",
        "\"\\x\"",
        "\"\u{1}\"",
        "[}",
        "{]",
        "[]]",
        "1 2",
        "\"\\u12g4\"",
        "\"unfinished",
        "{\"a\"",
        "{\"a\":",
        "{1:2}",
        "\u{feff}{}",
        "[1,,2]",
        "truefalse",
        "[\"a\":1]",
    ];
    for text in texts {
        let ours = parse(&[text.as_bytes()], LIMITS).ok();
        let reference = serde_json::from_str::<Value>(text).ok();
        assert_eq!(ours, reference, "{text:?}");
    }
}

#[test]
fn python_tokens_become_text() {
    let limits = Limits { python: true, ..LIMITS };
    let value = parse(&[b"[NaN, Infinity, -Infinity, 1e999, 123456789012345678901234567890]"], limits).unwrap();
    assert_eq!(value, serde_json::json!(["NaN", "Infinity", "-Infinity", "1e999", "123456789012345678901234567890"]));
}

#[test]
fn halves_of_surrogate_pairs_are_marked_as_python_takes_them() {
    let limits = Limits { halves: true, ..LIMITS };
    for (text, expected) in [
        (r#""\ud800""#, "\u{FFFD}"),
        (r#""\udc00x""#, "\u{FFFD}x"),
        (r#""\ud800x""#, "\u{FFFD}x"),
        (r#""\ud800\n""#, "\u{FFFD}\n"),
        (r#""\ud800\u0041""#, "\u{FFFD}A"),
        (r#""\ud83d\ud83d\ude00""#, "\u{FFFD}\u{1F600}"),
    ] {
        assert_eq!(parse(&[text.as_bytes()], limits).unwrap(), expected, "{text}");
        assert!(parse(&[text.as_bytes()], LIMITS).is_err(), "{text}");
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(parse(&pieces, limits).unwrap(), expected, "{text}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits { depth: 2, text: 4, python: false, halves: false };
    assert!(matches!(parse(&[b"[[[]]]"], limits), Err(JsonError::Depth { limit: 2, .. })));
    assert!(matches!(parse(&[b"{\"abcde\":1}"], limits), Err(JsonError::TooLong { .. })));
    assert!(matches!(parse(&[b"12345"], limits), Err(JsonError::TooLong { .. })));
    assert_eq!(parse(&["\"abc\u{e9}f\"".as_bytes()], limits).unwrap(), "abc");
    assert!(matches!(parse(&[b"[\"\xff\"]"], LIMITS), Err(JsonError::Utf8 { .. })));
    assert!(parse(&[b"1\xc3"], LIMITS).is_err());
}

#[test]
fn tokens_know_their_place() {
    struct Places(Vec<Range<u64>>);
    impl Sink for Places {
        fn event(&mut self, event: Event<'_>, token: Range<u64>) -> Result<(), String> {
            if matches!(event, Event::Key(_) | Event::Number(_)) {
                self.0.push(token);
            }
            Ok(())
        }
    }
    let mut places = Places(vec![]);
    let mut parser = Parser::new(LIMITS, 100);
    parser.feed(b"{ \"a", &mut places).unwrap();
    parser.feed(b"\\n\" : 12", &mut places).unwrap();
    parser.feed(b"3}", &mut places).unwrap();
    parser.finish(&mut places).unwrap();
    assert_eq!(places.0, [102..107, 110..113]);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9f64..1e9).prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,4}", inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn pieces_do_not_matter(value in any_json(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        let text = value.to_string();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = vec![];
        let mut from = 0;
        for cut in cuts {
            pieces.push(&text.as_bytes()[from..cut]);
            from = cut;
        }
        pieces.push(&text.as_bytes()[from..]);
        prop_assert_eq!(parse(&pieces, LIMITS).unwrap(), value);
    }

    #[test]
    fn anything_is_judged_as_serde_json_does(text in r#"[\[\]{}",:0-9eE.+\-a-u \\\n]{0,24}"#) {
        let reference = serde_json::from_str::<Value>(&text);
        let range = reference.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
        prop_assert!(range || parse(&[text.as_bytes()], LIMITS).is_ok() == reference.is_ok(), "{:?}", reference);
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let _ = parse(&[&bytes], Limits { depth: 3, text: 8, python: true, halves: false });
    }
}
