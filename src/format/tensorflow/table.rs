//! Tables of sorted keys as `LevelDB` and TensorFlow write them: blocks of prefix-compressed keys, each with a checksum, and a footer
//! (TensorFlow 2.21, `lib/io/format.cc` and `block.cc`). Pure, no I/O.

use std::ops::Range;

use crc_fast::{CrcAlgorithm, Digest};

use super::super::window::{Parsed, Stop};

/// The last bytes of every table.
pub(super) const MAGIC: [u8; 8] = [0x57, 0xFB, 0x80, 0x8B, 0x24, 0x75, 0x47, 0xDB];
/// Two block handles, padding and the magic.
const FOOTER: usize = 48;
/// A block's compression and checksum, in bytes.
const TRAILER: usize = 5;
/// The longest key, and all keys together, in bytes: prefixes make them longer than the table.
const KEY: usize = 4 << 10;
const KEYS: usize = 128 << 20;

/// CRC-32C of bytes that come in pieces.
pub(super) struct Checksum(Digest);

impl Checksum {
    pub fn new() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum as it is stored: turned and shifted, so that a checksum over checksums does not degenerate.
    pub fn masked(&self) -> u32 {
        let sum = u32::try_from(self.0.finalize()).unwrap_or_default();
        sum.rotate_right(15).wrapping_add(0xA282_EAD8)
    }
}

/// An entry of a table: its key, and its value as a part of the table's bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    pub key: Vec<u8>,
    pub value: Range<usize>,
}

/// Calls `take` for every entry of a table, in the order of their keys.
///
/// # Errors
/// `Bad` when the table is damaged, `TooLarge` when it is compressed; those of `take`.
pub(super) fn entries(bytes: &[u8], mut take: impl FnMut(Entry) -> Parsed<()>) -> Parsed<()> {
    let footer_at = bytes.len().checked_sub(FOOTER).ok_or_else(|| Stop::bad("it is shorter than a table's footer"))?;
    let footer = &bytes[footer_at..];
    if !footer.ends_with(&MAGIC) {
        return Err(Stop::bad("its footer is missing: it is truncated"));
    }
    let handles = &bytes[..bytes.len() - MAGIC.len()];
    let mut at = footer_at;
    let meta = handle(handles, &mut at)?;
    let index = handle(handles, &mut at)?;
    let room = &bytes[..footer_at];
    let mut budget = KEYS;
    block(room, &meta, &mut budget, &mut |_| Ok(()))?;
    let (mut last, mut blocks) = (Vec::new(), Vec::new());
    block(room, &index, &mut budget, &mut |entry| {
        let mut at = entry.value.start;
        blocks.push(handle(&room[..entry.value.end], &mut at)?);
        Ok(())
    })?;
    let mut next = 0;
    for handle in blocks {
        if handle.start < next {
            return Err(Stop::Bad(format!("two of its blocks share byte {}", handle.start)));
        }
        next = handle.end;
        block(room, &handle, &mut budget, &mut |entry| {
            if !last.is_empty() && entry.key <= last {
                return Err(Stop::bad("its keys are not in order"));
            }
            last.clone_from(&entry.key);
            take(entry)
        })?;
    }
    Ok(())
}

/// A block handle: where the block's content lies.
fn handle(bytes: &[u8], at: &mut usize) -> Parsed<Range<usize>> {
    let (offset, size) = (varint(bytes, at)?, varint(bytes, at)?);
    let end = offset.checked_add(size).ok_or_else(|| Stop::bad("one of its blocks ends nowhere"))?;
    Ok(offset..end)
}

fn varint(bytes: &[u8], at: &mut usize) -> Parsed<usize> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.get(*at).ok_or_else(|| Stop::bad("a number in it does not end"))?;
        *at += 1;
        number |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return usize::try_from(number).map_err(|_| Stop::bad("a number in it is too large"));
        }
    }
    Err(Stop::bad("a number in it does not end"))
}

/// Reads a block of the table, whose checksum is recomputed.
fn block(
    bytes: &[u8],
    handle: &Range<usize>,
    budget: &mut usize,
    take: &mut dyn FnMut(Entry) -> Parsed<()>,
) -> Parsed<()> {
    let beyond = || Stop::Bad(format!("its block at byte {} does not fit into it", handle.start));
    let content = bytes.get(handle.clone()).ok_or_else(beyond)?;
    let trailer = bytes.get(handle.end..).and_then(<[u8]>::first_chunk::<TRAILER>).ok_or_else(beyond)?;
    let [compression, sum @ ..] = *trailer;
    let mut checksum = Checksum::new();
    checksum.update(content);
    checksum.update(&[compression]);
    if checksum.masked() != u32::from_le_bytes(sum) {
        return Err(Stop::Bad(format!("its block at byte {} has another checksum than it says", handle.start)));
    }
    match compression {
        0 => {}
        // TensorFlow's writer has it turned off since 1.2, so that all readers can follow.
        1 => return Err(Stop::TooLarge("it is compressed with snappy, which TensorFlow does not write".to_owned())),
        other => {
            return Err(Stop::Bad(format!("its block at byte {} has the unknown compression {other}", handle.start)));
        }
    }
    let damaged = || Stop::Bad(format!("its block at byte {} is damaged", handle.start));
    let restarts = content.last_chunk().map(|count| u32::from_le_bytes(*count)).ok_or_else(damaged)?;
    let tail = usize::try_from(restarts).ok().and_then(|count| count.checked_add(1)?.checked_mul(4));
    let end = tail.and_then(|tail| content.len().checked_sub(tail)).ok_or_else(damaged)?;
    let records = &content[..end];
    let (mut at, mut key) = (0, Vec::new());
    while at < records.len() {
        let (shared, rest, length) = (varint(records, &mut at)?, varint(records, &mut at)?, varint(records, &mut at)?);
        let more = at.checked_add(rest).and_then(|end| records.get(at..end)).ok_or_else(damaged)?;
        if shared > key.len() {
            return Err(damaged());
        }
        if shared + more.len() > KEY {
            return Err(Stop::TooLarge(format!("a key of it has more than {KEY} bytes")));
        }
        key.truncate(shared);
        key.extend_from_slice(more);
        *budget = budget
            .checked_sub(key.len().max(8))
            .ok_or_else(|| Stop::TooLarge(format!("its keys have more than {KEYS} bytes in all")))?;
        at += rest;
        let value_end = at.checked_add(length).filter(|end| *end <= records.len()).ok_or_else(damaged)?;
        take(Entry { key: key.clone(), value: handle.start + at..handle.start + value_end })?;
        at = value_end;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn number(mut value: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7F {
            bytes.push(u8::try_from(value & 0x7F).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    pub fn sum(bytes: &[u8]) -> u32 {
        let mut checksum = Checksum::new();
        checksum.update(bytes);
        checksum.masked()
    }

    fn add_block(table: &mut Vec<u8>, entries: &[(Vec<u8>, Vec<u8>)], compression: u8) -> Vec<u8> {
        let at = table.len();
        let mut content = Vec::new();
        let mut last: &[u8] = &[];
        for (key, value) in entries {
            let shared = last.iter().zip(key).take_while(|(left, right)| left == right).count();
            content.extend([number(shared), number(key.len() - shared), number(value.len())].concat());
            content.extend(&key[shared..]);
            content.extend(value);
            last = key;
        }
        content.extend([0, 0, 0, 0, 1, 0, 0, 0]);
        let handle = [number(at), number(content.len())].concat();
        content.push(compression);
        let sum = sum(&content);
        table.extend(content);
        table.extend(sum.to_le_bytes());
        handle
    }

    /// A table with so many entries in each block.
    pub fn table(entries: &[(&[u8], Vec<u8>)], each: usize, compression: u8) -> Vec<u8> {
        let entries: Vec<(Vec<u8>, Vec<u8>)> =
            entries.iter().map(|(key, value)| (key.to_vec(), value.clone())).collect();
        let mut table = Vec::new();
        let index: Vec<_> = entries
            .chunks(each)
            .map(|part| (part.last().unwrap().0.clone(), add_block(&mut table, part, compression)))
            .collect();
        let meta = add_block(&mut table, &[], 0);
        let index = add_block(&mut table, &index, 0);
        let mut footer = [meta, index].concat();
        footer.resize(FOOTER - MAGIC.len(), 0);
        [table, footer, MAGIC.to_vec()].concat()
    }

    fn read(bytes: &[u8]) -> Parsed<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut all = Vec::new();
        entries(bytes, |entry| {
            all.push((entry.key, bytes[entry.value].to_vec()));
            Ok(())
        })?;
        Ok(all)
    }

    fn good() -> Vec<u8> {
        table(&[(b"", b"x".to_vec()), (b"model/a", b"y".to_vec()), (b"model/b", vec![7; 300])], 2, 0)
    }

    #[test]
    fn entries_come_in_order() {
        let all = read(&good()).unwrap();
        let keys: Vec<_> = all.iter().map(|(key, _)| key.as_slice()).collect();
        assert_eq!(keys, [&b""[..], b"model/a", b"model/b"]);
        assert_eq!(all[2].1, [7; 300]);
        // The example of RFC 3720, and how TensorFlow masks it.
        assert_eq!(sum(&[0; 32]), 0x8A91_36AAu32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_of_a_block_is_found() {
        let bytes = good();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "{length}");
        }
        for at in 0..bytes.len() - FOOTER {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            assert!(read(&bytes).is_err(), "{at}");
        }
    }

    #[test]
    fn keys_are_bounded() {
        let key = [b'k'; KEY + 1];
        assert!(read(&table(&[(&key[..KEY], vec![])], 9, 0)).is_ok());
        assert!(matches!(read(&table(&[(&key, vec![])], 9, 0)), Err(Stop::TooLarge(text)) if text.contains("4096")));
    }

    #[test]
    fn disorder_and_compression_are_told() {
        let twice = table(&[(b"", vec![]), (b"b", vec![]), (b"b", vec![])], 9, 0);
        assert_eq!(read(&twice), Err(Stop::bad("its keys are not in order")));
        assert!(matches!(read(&table(&[(b"a", vec![])], 9, 1)), Err(Stop::TooLarge(text)) if text.contains("snappy")));
        assert!(
            matches!(read(&table(&[(b"a", vec![])], 9, 2)), Err(Stop::Bad(text)) if text.contains("compression 2"))
        );
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), whole in proptest::prelude::any::<bool>()) {
            if whole {
                bytes.resize(bytes.len().max(40), 0);
                bytes.extend(MAGIC);
            }
            let _ = read(&bytes);
        }
    }
}
