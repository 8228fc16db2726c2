//! Safetensors files one by one, compared with the reference reader.

use proptest::prelude::*;

use super::*;
use crate::contract::Format;

fn judge(bytes: Vec<u8>) -> Verdict {
    Folder::new([("model.safetensors", bytes)]).judge()
}

fn reference(bytes: &[u8]) -> bool {
    ::safetensors::SafeTensors::read_metadata(bytes).is_ok()
}

#[test]
fn damage_is_named() {
    let entry = |text: &str| format!(r#"{{"a":{text}}}"#);
    let table: &[(String, usize, &str)] = &[
        (entry(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 7, "it has 69 bytes, its header describes 70 (1 too few)"),
        (entry(r#"{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#), 9, "it has 71 bytes, its header describes 70 (1 too many)"),
        (entry(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#), 8, "tensor \"a\" has 8 bytes, but its shape and F32 need 12"),
        (entry(r#"{"dtype":"F33","shape":[2],"data_offsets":[0,8]}"#), 8, "unknown dtype \"F33\""),
        (entry(r#"{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"#), 8, "ends at byte 0, before its begin 8"),
        (entry(r#"{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#), 12, "leaves a gap"),
        (entry(r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#), 8, "no whole number"),
        (entry(r#"{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}"#), 8, "no whole number"),
        (entry(r#"{"dtype":"F4","shape":[3],"data_offsets":[0,1]}"#), 1, "no whole number of bytes"),
        (entry(r#"{"dtype":"U8","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}"#), 0, "more elements than can be counted"),
        (entry(r#"{"dtype":"U64","shape":[4611686018427387904],"data_offsets":[0,0]}"#), 0, "more elements than can be counted"),
        (entry(r#"{"dtype":"U8","shape":[1],"data_offsets":[0]}"#), 1, "two whole numbers"),
        (entry(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}"#), 1, "two whole numbers"),
        (entry(r#"{"dtype":"U8","shape":[1]}"#), 1, "no data_offsets"),
        (entry(r#"{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}"#), 1, "dtype twice"),
        (entry("[]"), 0, "no object"),
        (entry(r#"{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":[1e999]}"#), 1, "out of range"),
        (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b\u0021":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#.into(), 6, "tensor \"b!\" begins at byte 2 of the data, but byte 4 comes next: it overlaps"),
        (r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#.into(), 4, "tensor \"a\" is described twice"),
        (r#"{"__metadata__":{"a":1}}"#.into(), 0, "only text"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#.into(), 0, "__metadata__ twice"),
        ("[]".into(), 0, "not a JSON object"),
        ("{} x".into(), 0, "not JSON"),
        (String::new(), 0, "ends in the middle"),
    ];
    for (header, data, words) in table {
        let bytes = safetensors(header, *data);
        let twice = header.contains(r#""a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a""#);
        assert_eq!(reference(&bytes), twice, "{header}");
        assert_bad(&judge(bytes), Reason::Corrupt, "model.safetensors", words);
    }
}

#[test]
fn lengths_of_headers() {
    for bytes in [vec![], vec![0; 7]] {
        assert_bad(&judge(bytes), Reason::Corrupt, "model.safetensors", "upload it again");
    }
    assert_bad(&judge(vec![255; 9]), Reason::Corrupt, "model.safetensors", "more than 100000000");
    let mut cut = tensors(&[("a", 4)]);
    cut.truncate(20);
    assert_bad(&judge(cut), Reason::Corrupt, "model.safetensors", "only 12 follow its length: it is truncated");
    assert_bad(&judge(b"PK\x03\x04 and more".to_vec()), Reason::Corrupt, "model.safetensors", "it is a zip archive");
}

#[test]
fn legal_edges_are_accepted() {
    let table = [
        ("{}", 0),
        ("  {}   ", 0),
        (r#"{"__metadata__":null}"#, 0),
        (r#"{"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#, 4),
        (
            r#"{"z":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]},"y":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}"#,
            1,
        ),
        (
            r#"{"b":{"data_offsets":[2,4],"shape":[2],"dtype":"U8","extra":{"x":[1,{}]},"y":null,"z":[[]]},"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]}}"#,
            4,
        ),
        (r#"{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]},"__metadata__":{"format":"pt"}}"#, 3),
    ];
    for (header, data) in table {
        let bytes = safetensors(header, data);
        assert!(reference(&bytes), "{header}");
        assert_good(&judge(bytes));
    }
}

/// The length comes first, and 640 as a number is how a pickle of protocol 2 begins.
#[test]
fn lengths_that_look_like_a_pickle_are_accepted() {
    for length in [0x80, 0x180, 0x280, 0x380, 0x480, 0x580, 0x1_0280] {
        let mut header = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#.to_owned();
        header.extend(std::iter::repeat_n(' ', length - header.len()));
        assert_good(&judge(safetensors(&header, 4)));
    }
}

#[test]
fn facts_come_from_the_header() {
    let header = r#"{"__metadata__":{"format":"pt","x":"y"},"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},
        "b":{"dtype":"F32","shape":[],"data_offsets":[12,16]}}"#;
    let verdict = judge(safetensors(header, 16));
    assert_good(&verdict);
    let contents = &verdict.contents;
    assert_eq!((contents.format, contents.tensors, contents.parameters), (Some(Format::Safetensors), Some(2), Some(7)));
    assert_eq!(contents.dtypes, [("BF16".to_owned(), 6), ("F32".to_owned(), 1)].into());
    assert_eq!(contents.framework.as_deref(), Some("pytorch"));
    assert!(verdict.message.contains("2 tensors, 7 parameters"), "{}", verdict.message);
}

#[test]
fn every_truncation_is_corrupt() {
    let whole = tensors(&[("a", 5), ("b", 3)]);
    assert_good(&judge(whole.clone()));
    for length in 0..whole.len() {
        let cut = whole[..length].to_vec();
        assert!(!reference(&cut));
        assert_bad(&judge(cut), Reason::Corrupt, "model.safetensors", "upload it again");
    }
    let mut longer = whole;
    longer.push(0);
    assert_bad(&judge(longer), Reason::Corrupt, "model.safetensors", "(1 too many)");
}

#[test]
fn headers_of_any_length_are_streamed() {
    let count = 20_000;
    let names: Vec<String> = (0..count).map(|number| format!("model.layers.{number}.weight")).collect();
    let sizes: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let bytes = tensors(&sizes);
    assert!(bytes.len() > 4 << 18);
    let folder = Folder::new([("model.safetensors", bytes.clone())]);
    let files = folder.files();
    let (verdict, cost) = drive(Judge::new(files.clone(), &Validation::default(), &[]), &files, &folder, 1);
    assert_good(&verdict);
    assert_eq!(verdict.contents.tensors, Some(count));
    assert_eq!(cost.reads, 1 + ((bytes.len() as u64 - (64 << 10) - u64::try_from(count).unwrap()).div_ceil(MAX_READ)));
}

#[test]
fn names_are_bounded_and_shown_safely() {
    let name = format!("\\u0007{}", "x".repeat(10_000));
    let header = format!(r#"{{"{name}":{{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}}}"#);
    let verdict = judge(safetensors(&header, 2));
    assert_bad(&verdict, Reason::Corrupt, "model.safetensors", "xxx");
    assert!(verdict.message.len() < 600 && !verdict.message.chars().any(char::is_control));
}

prop_compose! {
    fn any_entry()(
        dtype in prop::sample::select(vec!["U8", "F32", "F4", "F6_E2M3", "BF16", "C64", "F8_E8M0", "X"]),
        shape in prop::collection::vec(0u64..4, 0..3),
        from in 0u64..3, slack in prop::sample::select(vec![0i64, 0, 0, 0, 0, 1, -1]),
    ) -> (String, Vec<u64>, u64, i64) {
        (dtype.to_owned(), shape, from, slack)
    }
}

proptest! {
    #[test]
    fn agrees_with_the_reference_reader(
        entries in prop::collection::vec(any_entry(), 0..4), gap in 0u8..8, trailing in prop::sample::select(vec![0usize, 0, 0, 1]),
        reverse in any::<bool>(),
    ) {
        let bits = |dtype: &str| match dtype { "F32" => 32, "F4" => 4, "F6_E2M3" => 6, "BF16" => 16, "C64" => 64, _ => 8 };
        let mut end = 0u64;
        let mut texts = vec![];
        for (number, (dtype, shape, from, slack)) in entries.iter().enumerate() {
            let length = (shape.iter().product::<u64>() * bits(dtype) / 8).saturating_add_signed(*slack);
            let begin = if gap == 0 { from + end } else { end };
            end = begin + length;
            texts.push(format!(r#""t{number}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
        }
        if reverse {
            texts.reverse();
        }
        let bytes = safetensors(&format!("{{{}}}", texts.join(",")), usize::try_from(end).unwrap() + trailing);
        let expected = reference(&bytes);
        let verdict = judge(bytes);
        prop_assert_eq!(verdict.is_good(), expected, "{}", verdict.message);
    }

    #[test]
    fn agrees_on_damaged_headers(at in any::<prop::sample::Index>(), byte in prop::sample::select(b" {}[]\",:0123456789aU8xF\\n\xff\x00".to_vec())) {
        let mut bytes = tensors(&[("a", 5), ("bc", 3)]);
        let at = 8 + at.index(bytes.len() - 8);
        bytes[at] = byte;
        let expected = reference(&bytes);
        let verdict = judge(bytes.clone());
        // The reference reader takes the last of two tensors with the same name.
        let twice = verdict.message.contains("twice");
        prop_assert!(twice || verdict.is_good() == expected, "{} {}", verdict.message, String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn never_panics(header in prop::collection::vec(any::<u8>(), 0..200), lie in prop::option::of(any::<u64>())) {
        let mut bytes = (lie.unwrap_or(header.len() as u64)).to_le_bytes().to_vec();
        bytes.extend(&header);
        let expected = reference(&bytes);
        prop_assert_eq!(judge(bytes).is_good(), expected);
    }
}
