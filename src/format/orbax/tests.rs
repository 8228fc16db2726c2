//! Checkpoints as Orbax writes them, with databases of two levels, and what damage does to them.

use super::{
    super::tests::{Folder, assert_bad, assert_good},
    *,
};
use crate::format::{Verdict, window::Stop};

const DATA: &str = "d/0123456789abcdef0123456789abcdef";
const COMMIT: &str = r#"{"item_handlers": "x", "metrics": {"loss": 0.5}, "init_timestamp_nsecs": 1, "commit_timestamp_nsecs": 2,
    "custom_metadata": {"step": 7, "epoch": 1.5}}"#;
pub(super) const NODE: [u8; 4] = [0x0C, 0xDB, 0x20, 0xDE];

/// A manifest or node with its header and checksum.
pub(super) fn wrapped(magic: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend((body.len() as u64 + 18).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(body);
    let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes);
    bytes.extend(u32::try_from(checksum).unwrap().to_le_bytes());
    bytes
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}

/// Numbers of one or two bytes.
fn varint(number: usize) -> Vec<u8> {
    if number < 0x80 { vec![byte(number)] } else { vec![byte(number & 0x7F) | 0x80, byte(number >> 7)] }
}

/// The one file of the database, whose folder is the database's own.
fn files() -> Vec<u8> {
    [&[1, byte(DATA.len()), 0][..], DATA.as_bytes()].concat()
}

/// A leaf whose first keys have values in the file at the offset zero, and the last one in itself.
pub(super) fn leaf(placed: &[(&str, usize, usize)], inline: &[(&str, &[u8])]) -> Vec<u8> {
    let keys: Vec<&str> = placed.iter().map(|entry| entry.0).chain(inline.iter().map(|entry| entry.0)).collect();
    let mut body = [&[0][..], &files(), &[byte(keys.len())]].concat();
    body.extend(vec![0; keys.len() - 1]);
    body.extend(keys.iter().map(|key| byte(key.len())));
    body.extend(keys.concat().into_bytes());
    body.extend(placed.iter().flat_map(|(_, _, length)| varint(*length)));
    body.extend(inline.iter().flat_map(|(_, value)| varint(value.len())));
    body.extend(vec![1; placed.len()]);
    body.extend(vec![0; inline.len()]);
    body.extend(vec![0; placed.len()]);
    body.extend(placed.iter().flat_map(|(_, offset, _)| varint(*offset)));
    body.extend(inline.iter().flat_map(|(_, value)| value.to_vec()));
    wrapped(NODE, &body)
}

/// A node above one leaf, all of whose keys begin with `prefix`.
fn interior(prefix: &str, offset: usize, length: usize) -> Vec<u8> {
    let mut body = [&[1][..], &files(), &[1, byte(prefix.len()), byte(prefix.len())], prefix.as_bytes(), &[0]].concat();
    body.extend([varint(offset), varint(length), vec![3, 0, 0]].concat());
    wrapped(NODE, &body)
}

fn manifest(root: Option<(u8, usize, usize)>) -> Vec<u8> {
    let mut body = vec![7; 16];
    body.extend([0, 100, 100, 4, 0]);
    body.extend(files());
    match root {
        Some((height, offset, length)) => {
            body.extend([1, 1, height, 0]);
            body.extend([varint(offset), varint(length), vec![3, 0, 0], vec![0; 8]].concat());
        }
        None => body.extend([0]),
    }
    body.push(0);
    wrapped(node::MANIFEST, &body)
}

fn description() -> Vec<u8> {
    br#"{"zarr_format": 2, "shape": [2, 3], "chunks": [1, 3], "dtype": "<f4"}"#.to_vec()
}

/// `params.w` in two chunks, with its description in the file, and `params.b` as a scalar within the node.
fn database() -> (Vec<u8>, Vec<u8>) {
    let mut data = vec![5; 24];
    let described = data.len();
    data.extend(description());
    let scalar = br#"{"zarr_format": 2, "shape": [], "chunks": [], "dtype": "<i4"}"#;
    let placed = [("w/.zarray", described, description().len()), ("w/0.0", 0, 12), ("w/1.0", 12, 12)];
    let leaf = leaf(&placed, &[("b/.zarray", scalar), ("b/0", &[1, 0, 0, 0])]);
    let at = data.len();
    data.extend(&leaf);
    let root = interior("params.", at, leaf.len());
    let root_at = data.len();
    data.extend(&root);
    (manifest(Some((1, root_at, root.len()))), data)
}

fn tree() -> String {
    let entry = |name: &str, kind: &str| {
        format!(
            r#""('params', '{name}')": {{"key_metadata": [{{"key": "params", "key_type": 2}}, {{"key": "{name}", "key_type": 2}}],
                "value_metadata": {{"value_type": "{kind}", "skip_deserialize": false}}}}"#
        )
    };
    format!(
        r#"{{"tree_metadata": {{{}, {}, {}}}, "use_ocdbt": true, "use_zarr3": false, "store_array_data_equal_to_fill_value": true}}"#,
        entry("w", "jax.Array"),
        entry("b", "scalar"),
        entry("nothing", "None")
    )
}

fn good() -> Folder {
    let (manifest, data) = database();
    Folder::new([(STATE, COMMIT.into()), (TREE, tree().into()), (MANIFEST, manifest), (DATA, data)])
}

fn judge(folder: &Folder) -> Verdict {
    folder.judge()
}

#[test]
fn arrays_are_counted_from_the_database() {
    let verdict = judge(&good());
    assert_good(&verdict);
    assert!(verdict.findings.is_empty(), "{:?}", verdict.findings);
    let contents = verdict.contents;
    assert_eq!((contents.format, contents.tensors, contents.parameters), (Some(Format::Orbax), Some(2), Some(7)));
    assert_eq!(contents.dtypes, [("F32".to_owned(), 6), ("I32".to_owned(), 1)].into());
    assert_eq!(
        (contents.framework.as_deref(), contents.step, contents.epoch.as_deref()),
        (Some("orbax"), Some(7), Some("1.5"))
    );
    assert_eq!(contents.metrics, [("loss".to_owned(), "0.5".to_owned())].into());
}

#[test]
fn commits_are_asked_for() {
    let begun = r#"{"init_timestamp_nsecs": 1, "commit_timestamp_nsecs": null}"#;
    let verdict = judge(&good().with(STATE, begun));
    assert_bad(&verdict, Reason::Incomplete, STATE, "committed");
    assert_good(&judge(&good().with(STATE, begun).with(COMMITTED, "x")));
    assert_bad(&judge(&good().with(STATE, "{")), Reason::Corrupt, STATE, "damaged");
    let moved =
        |folder: &str| Folder(good().0.into_iter().map(|(path, bytes)| (format!("{folder}/{path}"), bytes)).collect());
    let temporary = moved("7.orbax-checkpoint-tmp-1");
    assert_bad(&judge(&temporary), Reason::Incomplete, ".orbax-checkpoint-tmp", "still writing");
    let both = Folder([moved("6").0, temporary.0].concat());
    assert!(judge(&both).message.contains("several") || judge(&both).is_good(), "{}", judge(&both).message);
    assert_eq!(
        judge(&moved("default_12").with("default_12/_CHECKPOINT_METADATA", r#"{"item_handlers": {}}"#)).contents.step,
        Some(12)
    );
    let committed = good().without(STATE).with(COMMITTED, "x");
    assert_eq!(judge(&committed).contents.format, Some(Format::Orbax));
}

#[test]
fn earlier_versions_may_be_empty() {
    // TensorStore writes an empty tree first: its place is in a file without a name, at the end of all numbers.
    let (_, data) = database();
    let root = interior("params.", data.len() - 1, 1).len();
    let nowhere = [[0xFF; 9].to_vec(), vec![1]].concat();
    let mut body = vec![7; 16];
    body.extend([0, 100, 100, 4, 0]);
    body.extend([2, 0, 0, byte(DATA.len()), 0, 0]);
    body.extend(DATA.as_bytes());
    body.extend([2, 1, 2, 0, 1, 0, 1]);
    body.extend([nowhere.clone(), varint(data.len() - root), nowhere, varint(root)].concat());
    body.extend([0, 3, 0, 0, 0, 0]);
    body.extend([0; 17]);
    assert_good(&judge(&good().with(MANIFEST, wrapped(node::MANIFEST, &body))));
    let place = body.windows(DATA.len()).position(|name| name == DATA.as_bytes()).unwrap();
    body[place] = b'/';
    let verdict = judge(&good().with(MANIFEST, wrapped(node::MANIFEST, &body)));
    assert_bad(&verdict, Reason::Corrupt, MANIFEST, "no safe path");
}

#[test]
fn items_are_there() {
    let items = r#"{"item_handlers": {"state": "a", "meta": "b"}}"#;
    let folder = Folder(good().0.into_iter().map(|(path, bytes)| (format!("state/{path}"), bytes)).collect());
    let folder = folder.with(STATE, items).with("meta/metadata", "{}").with("metrics/metrics", r#"{"accuracy": 0.75}"#);
    let verdict = judge(&folder);
    assert_good(&verdict);
    assert_eq!(verdict.contents.metrics, [("accuracy".to_owned(), "0.75".to_owned())].into());
    assert!(verdict.contents.components.iter().any(|part| part.path == "state/"), "{:?}", verdict.contents.components);
    assert_bad(&judge(&folder.without("meta/metadata")), Reason::Incomplete, "meta/", "names it as an item");
}

#[test]
fn databases_are_whole() {
    let (manifest, data) = database();
    assert_bad(&judge(&good().without(MANIFEST)), Reason::Incomplete, MANIFEST, "is missing");
    assert_bad(&judge(&good().without(DATA)), Reason::Incomplete, DATA, "is missing");
    assert_bad(&judge(&good().without(TREE)), Reason::Incomplete, TREE, "which tree they make");
    for length in 1..manifest.len() {
        let verdict = judge(&good().with(MANIFEST, &manifest[..length]));
        assert_bad(&verdict, Reason::Corrupt, MANIFEST, "is damaged");
    }
    for at in 0..manifest.len() {
        let mut changed = manifest.clone();
        changed[at] ^= 0x10;
        assert_bad(&judge(&good().with(MANIFEST, changed)), Reason::Corrupt, MANIFEST, "is damaged");
    }
    for length in [1, 24, data.len() / 2, data.len() - 1] {
        let verdict = judge(&good().with(DATA, &data[..length]));
        assert_bad(&verdict, Reason::Corrupt, DATA, "is truncated");
    }
    // Behind the chunks and the description, every byte belongs to a node and its checksum.
    for at in 24 + description().len()..data.len() {
        let mut changed = data.clone();
        changed[at] ^= 0x10;
        assert_bad(&judge(&good().with(DATA, changed)), Reason::Corrupt, DATA, "is damaged");
    }
}

#[test]
fn arrays_have_all_chunks_and_parameters_their_arrays() {
    let more = tree().replace("'nothing'", "'v'").replace("\"nothing\"", "\"v\"").replace("\"None\"", "\"jax.Array\"");
    let verdict = judge(&good().with(TREE, more.clone()));
    assert_bad(&verdict, Reason::Incomplete, "params.v", "has it in its tree");
    assert_good(&judge(&good().with(TREE, more.replace("params", "other"))));
    let leaf = leaf(&[("params.w/0.0", 0, 12)], &[("params.w/.zarray", &description())]);
    let data = [vec![5; 24], leaf.clone()].concat();
    let one = good().with(MANIFEST, manifest(Some((0, 24, leaf.len())))).with(DATA, data);
    let verdict = judge(&one);
    assert!(
        verdict.findings.iter().any(|finding| finding.message.contains("has 1 of its 2 chunks")),
        "{}",
        verdict.message
    );
    let sparse = tree().replace("value\": true", "value\": false").replace("scalar", "None");
    assert_good(&judge(&one.with(TREE, sparse)));
    let empty = good().with(MANIFEST, manifest(None)).with(TREE, r#"{"tree_metadata": {}, "use_ocdbt": true}"#);
    assert_good(&judge(&empty.without(DATA)));
}

#[test]
fn folders_of_zarr_have_all_chunks() {
    let tree = tree().replace("\"use_ocdbt\": true", "\"use_ocdbt\": false");
    let folder = Folder::new([
        (STATE, COMMIT.into()),
        (TREE, tree.into_bytes()),
        ("params.w/.zarray", description()),
        ("params.w/0.0", vec![0; 12]),
        ("params.w/1.0", vec![0; 12]),
        ("params.b/.zarray", br#"{"shape": [], "chunks": [], "dtype": "<i4"}"#.to_vec()),
        ("params.b/0", vec![0; 4]),
    ]);
    let verdict = judge(&folder);
    assert_good(&verdict);
    assert_eq!((verdict.contents.tensors, verdict.contents.parameters), (Some(2), Some(7)));
    assert_bad(
        &judge(&folder.clone().without("params.w/1.0")),
        Reason::Incomplete,
        "params.w/1.0",
        "2 chunks, 1 are there",
    );
    assert_bad(&judge(&folder.clone().with("params.w/.zarray", "{")), Reason::Corrupt, "params.w/.zarray", "not JSON");
    let lost = folder.without("params.w/.zarray").without("params.w/0.0").without("params.w/1.0");
    assert_bad(&judge(&lost), Reason::Incomplete, "params.w", "has it in its tree");
}

#[test]
fn processes_that_were_not_merged_are_told() {
    let (manifest, data) = database();
    let alone = good().without(MANIFEST).without(DATA).with("ocdbt.process_0/manifest.ocdbt", manifest);
    let verdict = judge(&alone.with(&format!("ocdbt.process_0/{DATA}"), data));
    assert_bad(&verdict, Reason::Incomplete, MANIFEST, "single processes");
}

proptest::proptest! {
    #[test]
    fn changed_databases_end(changes in proptest::collection::vec((0usize..600, proptest::prelude::any::<u8>()), 1..6)) {
        let (mut manifest, mut data) = database();
        for (at, byte) in changes {
            let (first, second) = (at % manifest.len(), at % data.len());
            manifest[first] = byte;
            data[second] = byte;
        }
        judge(&good().with(DATA, data));
        judge(&good().with(MANIFEST, manifest));
    }

    #[test]
    fn bodies_with_good_checksums_end(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
        let _ = node::manifest(&wrapped(node::MANIFEST, &body));
        let place = node::Place { path: String::new(), offset: 0, length: 0 };
        for height in [0, 1] {
            let child = node::Child { place: place.clone(), base: String::new(), prefix: Vec::new(), height };
            let _ = node::node(&wrapped(NODE, &body), &child);
        }
    }
}

/// What the keys and paths of a node share stands once in its parent, and is repeated in memory for each of them.
#[test]
fn names_that_a_node_repeats_are_bounded() {
    let long = "x".repeat(60_000);
    let parent = |base: &str, prefix: &str| node::Child {
        place: node::Place { path: "d/x".to_owned(), offset: 0, length: 0 },
        base: base.to_owned(),
        prefix: prefix.into(),
        height: 0,
    };
    // Keys without anything of their own, with empty values.
    let count = 10_000;
    let mut body = [&[0, 0][..], &varint(count)].concat();
    body.extend(vec![0; count - 1 + count + count + count]);
    let keys = wrapped(NODE, &body);
    assert!(matches!(node::node(&keys, &parent("", "x")), Ok(node::Node::Leaf(entries)) if entries.len() == count));
    assert!(matches!(node::node(&keys, &parent("", &long)), Err(Stop::TooLarge(_))));
    let mut body = [&[0][..], &varint(count)].concat();
    body.extend(vec![0; count - 1 + count + count + 1]);
    let files = wrapped(NODE, &body);
    assert!(node::node(&files, &parent("x", "")).is_ok());
    assert!(matches!(node::node(&files, &parent(&long, "")), Err(Stop::TooLarge(_))));
}

#[test]
fn long_names_count_more() {
    let entry = |length: usize| (vec![b'k'; length], node::Value::Inline(vec![1]));
    assert_eq!(node::Node::Leaf(vec![entry(10), entry(200)]).weight(), 2);
    assert_eq!(node::Node::Leaf(vec![entry(60_000)]).weight(), 234);
}
