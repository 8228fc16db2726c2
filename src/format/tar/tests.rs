//! Archives as they should be, and as they should not; checkpoints in them.

use std::io::Write;

use super::{
    super::{
        Verdict,
        pickle::tests::Assembler,
        tests::{Folder, allowing, assert_bad, assert_good, torch_file},
    },
    walk::BLOCK,
    *,
};
use crate::contract::Validation;

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

/// A header of ustar.
pub(in crate::format) fn header(name: &str, kind: u8, size: usize) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    sealed(block)
}

/// The header with its checksum.
fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, kind, content.len());
    bytes.extend(content);
    pad(&mut bytes);
    bytes
}

fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.extend([0; 1024]);
    bytes
}

/// Writes a tar archive of files.
pub(in crate::format) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    ended(&files.iter().map(|(name, content)| member(name, b'0', content)).collect::<Vec<_>>())
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn walk(bytes: &[u8]) -> Parsed<Listing> {
    let mut walk = Walk::new(bytes.len() as u64);
    while let Some(range) = walk.next() {
        walk.take(slice(bytes, &range)?)?;
    }
    Ok(walk.finish())
}

fn names(bytes: &[u8]) -> Vec<String> {
    let listing = walk(bytes).unwrap();
    assert_eq!(listing.findings, Vec::<String>::new());
    listing.members.into_iter().map(|member| member.name).collect()
}

fn judge(path: &str, bytes: Vec<u8>) -> Verdict {
    Folder::new([(path, bytes)]).judge_with(&Validation::default(), &[])
}

#[test]
fn members_are_found_under_every_kind_of_name() {
    let long = format!("{}/model.ckpt", "d".repeat(300));
    let gnu = ended(&[member("././@LongLink", b'L', format!("{long}\0").as_bytes()), member("cut", b'0', b"1")]);
    assert_eq!(names(&gnu), std::slice::from_ref(&long));
    let record = format!(" path={long}\n");
    let length = record.len() + 3;
    let pax = ended(&[member("x", b'x', format!("{length}{record}").as_bytes()), member("cut", b'0', b"1")]);
    assert_eq!(names(&pax), [long]);
    let mut prefixed = header("b", b'0', 0);
    prefixed[345..348].copy_from_slice(b"a/x");
    assert_eq!(names(&ended(&[sealed(prefixed)])), ["a/x/b"]);
    let folders = ended(&[
        member("./", b'5', b""),
        member("./sub/", b'5', b""),
        member("./sub/a", b'0', b"1"),
        member(".//b", 0, b""),
    ]);
    assert_eq!(names(&folders), ["sub/a", "b"]);
    // Before ustar there was no magic.
    let mut old = header("a", 0, 0);
    old[257..265].fill(0);
    let old = ended(&[sealed(old)]);
    assert!(walk::is_header(&old));
    assert_eq!(names(&old), ["a"]);
}

#[test]
fn sizes_of_every_kind_are_read() {
    let mut large = header("a", b'0', 0);
    large[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3]);
    let mut bytes = sealed(large);
    bytes.extend(b"abc");
    pad(&mut bytes);
    assert_eq!(walk(&ended(&[bytes])).unwrap().members[0].data, BLOCK..BLOCK + 3);
    let mut content = header("a", b'0', 0);
    content.extend(b"abcd");
    pad(&mut content);
    let pax = ended(&[member("x", b'x', b"9 size=4\n"), content]);
    assert_eq!(walk(&pax).unwrap().members[0].data, 3 * BLOCK..3 * BLOCK + 4);
    for field in
        [[0xFF; 12], [0x80, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], *b"00000009xyz\0"]
    {
        let mut negative = header("a", b'0', 0);
        negative[124..136].copy_from_slice(&field);
        assert!(matches!(walk(&ended(&[sealed(negative)])), Err(Stop::Bad(text)) if text.contains("no size")));
    }
    let mut endless = header("a", b'0', 0);
    endless[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert!(matches!(walk(&ended(&[sealed(endless)])), Err(Stop::Bad(text)) if text.contains("truncated")));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes =
        ended(&[member("././@LongLink", b'L', b"long\0"), member("a", b'0', b"1234"), member("b", b'0', &[1; 600])]);
    for length in 0..bytes.len() {
        assert!(walk(&bytes[..length]).is_err(), "{length}");
    }
    for length in 1..bytes.len() {
        let verdict = judge("model.nemo", bytes[..length].to_vec());
        assert!(!verdict.is_good(), "{length}: {}", verdict.message);
    }
}

#[test]
fn what_no_library_writes_is_damage() {
    for (bytes, words) in [
        (archive(&[("../evil", b"1")]), "no safe path"),
        (archive(&[("/evil", b"1")]), "no safe path"),
        (archive(&[("a/../../evil", b"1")]), "no safe path"),
        (archive(&[("a\\b", b"1")]), "no safe path"),
        (archive(&[("C:a", b"1")]), "no safe path"),
        (archive(&[("", b"1")]), "no safe path"),
        (archive(&[("a", b"1"), ("./a", b"2")]), "two members named"),
        (ended(&[header("a", b'3', 0)]), "a device or a pipe"),
        (ended(&[member("a", b'S', b"1")]), "with holes"),
        (ended(&[member("a", b'Z', b"1")]), "unknown kind"),
        (ended(&[member("g", b'g', b"9 path=a\n"), member("a", b'0', b"1")]), "renames all"),
        (ended(&[member("x", b'x', b"22 GNU.sparse.major=1\n"), member("a", b'0', b"1")]), "with holes"),
        ([archive(&[("a", b"1")]), archive(&[("b", b"1")])].concat(), "behind its end"),
        ([archive(&[("a", b"1")]), vec![0; 1 << 20]].concat(), "behind its end"),
        (ended(&[member("a", b'0', b"1"), link("b", "../../etc/passwd")]), "no safe path"),
        (ended(&[member("a", b'0', b"1"), link("b", "/etc/passwd")]), "no safe path"),
    ] {
        assert_bad(&judge("model.bin", bytes), Reason::Corrupt, "model.bin", words);
    }
    let mut wrong = archive(&[("a", b"1"), ("b", b"1")]);
    wrong[1024] ^= 1;
    assert_bad(&judge("m.nemo", wrong), Reason::Corrupt, "m.nemo", "its checksum is wrong");
    for record in ["99 path=a\n", "path=a\n", "9 path=a ", "7 patha\n", "x path=a\n", "1 path=a\n"] {
        let bytes = ended(&[member("x", b'x', record.as_bytes()), member("a", b'0', b"1")]);
        assert_bad(&judge("m.nemo", bytes), Reason::Corrupt, "m.nemo", "extended header");
    }
    assert_bad(&judge("m.nemo", ended(&[header("x", b'x', 1 << 20)])), Reason::Corrupt, "m.nemo", "goes on for");
    assert_bad(&judge("m.nemo", ended(&[member("a/", b'5', b"1")])), Reason::Corrupt, "m.nemo", "is no file");
    let padded = [archive(&[("a", b"1")]), vec![0; 9 << 10]].concat();
    assert_good(&judge("m.tar", padded));
}

fn link(name: &str, target: &str) -> Vec<u8> {
    let mut block = header(name, b'2', 0);
    block[157..157 + target.len()].copy_from_slice(target.as_bytes());
    sealed(block)
}

#[test]
fn links_are_noted() {
    let verdict = judge("m.tar", ended(&[member("a", b'0', b"1"), link("b", "a")]));
    assert_good(&verdict);
    assert!(verdict.findings[0].message.contains("a link b to a"), "{:?}", verdict.findings);
}

#[test]
fn pickles_are_found_in_members_and_below_compressions() {
    let marker = Assembler::protocol(2).global("os", "system").call("marker").stop();
    let inner = archive(&[("deep/x.dat", &marker)]);
    for bytes in [
        archive(&[("anything.txt", &marker)]),
        archive(&[("inner.tar", &inner)]),
        archive(&[("notes.txt", b"notes"), ("a/b/c", &super::super::zip::tests::archive(&[("x", &marker)]))]),
    ] {
        for path in ["m.nemo", "m.tar", "data.raw", "m.bin"] {
            let verdict = judge(path, bytes.clone());
            assert_bad(&verdict, Reason::UnsafePickle, path, "os.system");
        }
        let verdict = judge("m.tar.gz", gzip(&bytes));
        assert_eq!(verdict.reason, Reason::UnsafePickle, "{}", verdict.message);
    }
    let deeper = archive(&[("1.tar", &archive(&[("2.tar", &inner)]))]);
    let verdict = judge("m.tar", deeper);
    assert_bad(&verdict, Reason::UnsafePickle, "m.tar", "archives within archives");
}

#[test]
fn damage_within_is_damage_of_the_archive() {
    let mut zip = torch_file();
    let good = archive(&[("model.pt", &torch_file())]);
    let folder = Folder::new([("m.tar", good)]);
    assert_good(&folder.judge());
    zip.truncate(zip.len() - 3);
    let verdict = judge("m.tar", archive(&[("model.pt", &zip)]));
    assert_bad(&verdict, Reason::Corrupt, "m.tar: model.pt is damaged", "truncated");
}

#[test]
fn checksums_within_are_recomputed_at_depth_content() {
    let mut zip = super::super::zip::tests::archive(&[
        ("archive/data.pkl", b"\x80\x02}q\x00."),
        ("archive/version", b"3\n"),
        ("archive/x", b"0123456789"),
    ]);
    let at = zip.windows(10).position(|window| window == b"0123456789").unwrap();
    zip[at] ^= 1;
    let folder = Folder::new([("m.tar", archive(&[("model.pt", &zip)]))]);
    assert_good(&folder.judge());
    let verdict = folder.judge_with(&allowing(Depth::Content), &[]);
    assert_bad(&verdict, Reason::Corrupt, "m.tar: model.pt", "another CRC-32");
}

#[test]
fn archives_without_a_checkpoint_are_what_they_are() {
    let verdict = judge("m.tar", archive(&[("config.json", b"{\"model_type\": \"x\"}")]));
    assert_eq!(verdict.contents.format, Some(Format::Generic));
    assert!(!judge("m.nemo", archive(&[])).is_good());
    assert_bad(&judge("m.nemo", archive(&[("README.md", b"x")])), Reason::Corrupt, "m.nemo", "without files");
    assert_bad(&judge("m.nemo", gzip(b"no archive")), Reason::Corrupt, "m.nemo", "no tar archive");
}

#[test]
fn too_many_members_are_not_checked() {
    let many: Vec<Vec<u8>> = (0..=walk::MEMBERS).map(|number| header(&format!("f{number}"), b'0', 0)).collect();
    let verdict = judge("m.tar", ended(&many));
    assert_bad(&verdict, Reason::UnsafePickle, "m.tar", "more than 10000 members");
    let links: Vec<Vec<u8>> = (0..=walk::MEMBERS).map(|number| link(&format!("f{number}"), "a")).collect();
    let verdict = judge("m.tar", ended(&links));
    assert_bad(&verdict, Reason::UnsafePickle, "m.tar", "more than 10000 members");
}

proptest::proptest! {
    #[test]
    fn changed_archives_end(changes in proptest::collection::vec((0usize..4096, proptest::prelude::any::<u8>()), 1..6), seal in proptest::prelude::any::<bool>()) {
        let mut bytes = ended(&[member("x", b'x', b"11 path=ab\n"), member("a", b'0', b"1234"), link("b", "a"), member("c", b'0', &torch_file())]);
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        if seal {
            let first = sealed(bytes[..512].to_vec());
            bytes[..512].copy_from_slice(&first);
        }
        let _ = walk(&bytes);
        let _ = judge("m.nemo", bytes);
    }

    #[test]
    fn any_bytes_end(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048)) {
        let _ = walk(&bytes);
    }
}
