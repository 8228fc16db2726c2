//! Small changes to malicious streams: whatever import still stands in a stream for a reader that only lists opcodes, as Python's
//! `pickletools` does, makes the verdict at least as bad as that import.

use super::{streams, *};
use crate::format::pickle::tests::{imports, judged_named, opcodes};

fn check(id: &str, bytes: &[u8]) {
    let Some(expected) = imports(bytes) else { return };
    let found = judged_named(bytes);
    assert!(found >= expected, "{id}: {found:?} is less than {expected:?}: {bytes:?}");
}

fn cases() -> Vec<Case> {
    let all = [streams::advisories(), streams::tricks(), streams::gadgets()];
    all.into_iter().flatten().filter(|case| case.bytes.len() < 400).collect()
}

#[test]
fn a_changed_byte_hides_no_import() {
    for case in cases() {
        check(case.id, &case.bytes);
        for at in 0..case.bytes.len() {
            for byte in [
                0,
                b'(',
                b'0',
                b'.',
                b'N',
                b'\n',
                b'c',
                b'X',
                b'K',
                0x80,
                0x93,
                0x95,
                0xff,
                case.bytes[at] ^ 1,
                case.bytes[at] ^ 0x20,
            ] {
                let mut changed = case.bytes.clone();
                changed[at] = byte;
                check(case.id, &changed);
            }
        }
    }
}

#[test]
fn neutral_opcodes_hide_no_import() {
    for case in cases() {
        for at in opcodes(&case.bytes).skip(1) {
            for neutral in [&b"(1"[..], b"N0", b"N\x940", b"K\x010", b"(0"] {
                let changed = [&case.bytes[..at], neutral, &case.bytes[at..]].concat();
                check(case.id, &changed);
            }
        }
    }
}
