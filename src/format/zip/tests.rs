//! Archives as they should be, and as they should not.

use super::*;

/// Writes a zip archive of stored entries, as torch and Python do without compression.
pub(in crate::format) fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    written(entries, 0)
}

/// Writes one of deflated entries.
pub(in crate::format) fn deflated(entries: &[(&str, &[u8])]) -> Vec<u8> {
    written(entries, 8)
}

fn packed(content: &[u8], method: u8) -> Vec<u8> {
    if method == 0 {
        return content.to_vec();
    }
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, content).unwrap();
    encoder.finish().unwrap()
}

fn written(entries: &[(&str, &[u8])], method: u8) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let mut crc = Crc::new();
        crc.update(content);
        let packed = packed(content, method);
        let [length, packed_length, at, name_length] =
            [content.len(), packed.len(), out.len(), name.len()].map(|size| u32::try_from(size).unwrap());
        let mut common = vec![20, 0, 0, 0, method, 0, 0, 0, 0x21, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend(packed_length.to_le_bytes());
        common.extend(length.to_le_bytes());
        common.extend(&name_length.to_le_bytes()[..2]);
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend(b"PK\x03\x04");
        out.extend(common);
        out.extend(name.as_bytes());
        out.extend(packed);
    }
    let [size, at] = [directory.len(), out.len()].map(|size| u32::try_from(size).unwrap());
    let count = u16::try_from(entries.len()).unwrap();
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(at.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn good() -> Vec<u8> {
    archive(&[("a/data.pkl", b"content"), ("a/version", b"3\n")])
}

fn read(bytes: &[u8]) -> Parsed<Directory> {
    directory(&Window::of_bytes(bytes))
}

#[test]
fn entries_are_found() {
    let bytes = good();
    let directory = read(&bytes).unwrap();
    assert_eq!(directory.findings, Vec::<String>::new());
    let window = Window::of_bytes(&bytes);
    assert_eq!(*content(&window, directory.find("a/data.pkl").unwrap(), 100).unwrap(), *b"content");
    assert!(matches!(content(&window, directory.find("a/data.pkl").unwrap(), 3), Err(Stop::TooLarge(_))));
    assert_eq!(read(&archive(&[])).unwrap().entries, []);
}

#[test]
fn entries_in_one_place_are_not_read() {
    // The directory's second entry says that it lies where the first one does.
    let mut bytes = archive(&[("a", b"content"), ("b", b"content")]);
    let second = bytes.windows(4).rposition(|four| four == b"PK\x01\x02").unwrap();
    bytes[second + 42..second + 46].fill(0);
    assert_eq!(read(&bytes), Err(Stop::bad("two of its entries lie in one place")));
}

#[test]
fn every_truncation_is_noticed() {
    let bytes = good();
    for length in 0..bytes.len() {
        assert!(read(&bytes[..length]).is_err(), "{length}");
    }
}

#[test]
fn disagreements_are_findings_or_damage() {
    let finding = |bytes: &[u8], words: &str| {
        let found = read(bytes).unwrap().findings;
        assert!(found.iter().any(|text| text.contains(words)), "{words}: {found:?}");
    };
    finding(&archive(&[("a", b"1"), ("a", b"2")]), "two entries named a");
    for name in ["../a", "/a", "a\\b", "C:a"] {
        finding(&archive(&[(name, b"1")]), "no safe path");
    }
    finding(&[good(), vec![0; 300]].concat(), "300 bytes behind its end");
    let central = |bytes: &[u8], nth: usize| {
        bytes.windows(4).enumerate().filter(|(_, four)| *four == b"PK\x01\x02").nth(nth).unwrap().0
    };
    let mut encrypted = good();
    let at = central(&encrypted, 0) + 8;
    encrypted[at] |= 1;
    finding(&encrypted, "encrypted");
    let prepended = [b"junk".to_vec(), good()].concat();
    assert!(read(&prepended).map_or(true, |directory| !directory.findings.is_empty()));

    // A name that differs between the directory and the entry's own header.
    let mut renamed = good();
    let at = central(&renamed, 0) + 46;
    renamed[at] = b'b';
    let directory = read(&renamed).unwrap();
    let window = Window::of_bytes(&renamed);
    assert!(
        matches!(content(&window, &directory.entries[0], 100), Err(Stop::Bad(text)) if text.contains("own header"))
    );
    // A wrong checksum.
    let mut flipped = good();
    flipped[30 + 10] ^= 1;
    let directory = read(&flipped).unwrap();
    let window = Window::of_bytes(&flipped);
    assert!(matches!(content(&window, &directory.entries[0], 100), Err(Stop::Bad(text)) if text.contains("CRC-32")));
}

proptest::proptest! {
    #[test]
    fn changed_archives_end(changes in proptest::collection::vec((0usize..200, proptest::prelude::any::<u8>()), 1..6)) {
        let mut bytes = good();
        let length = bytes.len();
        for (at, byte) in changes {
            bytes[at % length] = byte;
        }
        if let Ok(directory) = read(&bytes) {
            for entry in &directory.entries {
                let _ = content(&Window::of_bytes(&bytes), entry, 1000);
            }
        }
    }
}
