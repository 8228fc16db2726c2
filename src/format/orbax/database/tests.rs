//! What a database may make the judge read and remember. Pure, no I/O.

use super::{
    super::{
        super::File,
        tests::{NODE, leaf, wrapped},
    },
    *,
};
use crate::contract::Depth;

fn place(offset: u64, length: u64) -> Place {
    Place { path: "d/x".to_owned(), offset, length }
}

fn wanted() -> Wanted {
    Wanted::Node(Child { place: place(0, 0), base: String::new(), prefix: Vec::new(), height: 0 })
}

fn evidence(size: u64) -> Evidence {
    let tree = Tree::new(vec![File { path: "d/x".to_owned(), size }]);
    Evidence::new(tree, Depth::Headers, false)
}

#[test]
fn nodes_that_share_bytes_are_not_read() {
    let mut evidence = evidence(100);
    for offset in [0, 50] {
        evidence.databases.want("", place(offset, 50), wanted());
    }
    // The same node, named again.
    evidence.databases.want("", place(50, 50), wanted());
    assert_eq!(deepen(&evidence).len(), 1);
    evidence.databases.want("", place(25, 50), wanted());
    assert_eq!(deepen(&evidence).len(), 0);
    let mut notes = Notes::default();
    super::super::arrays::check(&evidence, &mut notes);
    assert!(notes.finish().0[0].message.contains("nodes of 150 bytes in its 100 bytes"));
}

#[test]
fn nodes_that_are_too_large_are_told() {
    let mut evidence = evidence(LIMIT + 1);
    evidence.databases.want("", place(0, LIMIT + 1), wanted());
    assert_eq!(deepen(&evidence).len(), 0);
    let mut notes = Notes::default();
    super::super::arrays::check(&evidence, &mut notes);
    let (findings, fatal) = notes.finish();
    assert!(fatal == 0 && findings[0].message.contains("d/x was not read to its end"), "{findings:?}");
}

#[test]
fn more_entries_than_are_remembered_end_the_reading() {
    let node = leaf(&[("w/0.0", 0, 12), ("w/1.0", 12, 12)], &[]);
    let length = node.len() as u64;
    let item = || Item { folder: String::new(), place: place(0, length), wanted: wanted() };
    let mut pieces = Pieces::new(0..length, vec![item(), item(), item()]);
    let mut ledger = Ledger::new();
    assert!(ledger.take_entries(Ledger::LIMIT - 3));
    pieces.take(&node, &mut ledger);
    // The first one fits, the second does not, and the third is not looked at.
    assert!(pieces.overfull && pieces.found.len() == 1 && !ledger.is_overdrawn());
    let (mut evidence, mut notes) = (evidence(length), Notes::default());
    evidence.databases.roots.insert(String::new());
    evidence.databases.want("", place(0, length), wanted());
    Box::new(pieces).finish(0, &mut evidence, &mut notes);
    assert!(deepen(&evidence).is_empty() && evidence.databases.extents.is_empty());
    super::super::arrays::check(&evidence, &mut notes);
    let (findings, fatal) = notes.finish();
    assert!(fatal == 0 && findings[0].message.contains("was not judged"), "{findings:?}");
}

#[test]
fn nodes_that_announce_too_much_are_not_read() {
    // 1,000,001 entries, and none of them there.
    let node = wrapped(NODE, &[0, 0, 0xC1, 0x84, 0x3D]);
    let Wanted::Node(child) = wanted() else { return };
    assert!(matches!(node::node(&node, &child), Err(Stop::TooLarge(_))));
}
