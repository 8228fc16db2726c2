//! The heap in which a group of many links keeps them, searched for links to other files (HDF5 file format 3.0, section III.G). Which
//! link lies where is the business of a tree beside it; that one of them leads out of the file its bytes say. Pure, no I/O.

use super::{
    super::{
        names,
        window::{Parsed, Stop, Window},
    },
    object::{Cursor, UNDEFINED},
};

/// The most blocks of a heap, the largest block and all of them together, in bytes: some hundred thousand links.
const BLOCKS: usize = 4096;
const BLOCK: u64 = 1 << 20;
pub(super) const BYTES: u64 = 8 << 20;
/// The longest name of a link, in bytes.
const NAME: usize = 4 << 10;
/// The most links that are named.
const NAMED: usize = 8;
/// The kind of a link to another file.
const EXTERNAL: u8 = 64;

/// What a heap's header says.
struct Header {
    width: u64,
    /// Sizes of the smallest and the largest block with links.
    first: u64,
    largest: u64,
    /// Bytes of a block's place in the heap, which stands before its content.
    place: u64,
    root: u64,
    /// How many rows of blocks there are below the root; none when it is a block itself.
    rows: u64,
    /// Whether something lies elsewhere or in another form.
    hidden: bool,
}

/// A block of links of this size, or one that names others in so many rows.
enum Block {
    Links(u64, u64),
    Rows(u64, u64),
}

/// Names of the links to other files, and how many bytes were searched for them.
///
/// # Errors
/// `Bad` when the heap cannot be followed, `TooLarge` when there is more of it than is read.
pub(super) fn outside(window: &Window<'_>, address: u64) -> Parsed<(Vec<String>, u64)> {
    let header = header(window, address)?;
    if header.hidden {
        return Err(Stop::TooLarge(format!("the heap at byte {address} has links in a form that is not followed")));
    }
    let root =
        if header.rows == 0 { Block::Links(header.root, header.first) } else { Block::Rows(header.root, header.rows) };
    let (mut open, mut seen, mut bytes, mut found) = (vec![root], 0, 0, Vec::new());
    while let Some(block) = open.pop() {
        seen += 1;
        let (Block::Links(at, _) | Block::Rows(at, _)) = block;
        if at == UNDEFINED {
            continue;
        }
        match block {
            Block::Links(at, size) => {
                bytes += size;
                if size > BLOCK || bytes > BYTES {
                    return Err(Stop::TooLarge(format!("the heap at byte {address} is larger than is read")));
                }
                found.extend(links(window.bytes(at..at.saturating_add(size))?).into_iter().take(NAMED));
                found.truncate(NAMED);
            }
            Block::Rows(at, rows) => below(window, &header, at, rows, &mut open)?,
        }
        if seen + open.len() > BLOCKS {
            return Err(Stop::TooLarge(format!("the heap at byte {address} has more than {BLOCKS} blocks")));
        }
    }
    Ok((found, bytes))
}

/// Whether what lies in a heap is compressed.
pub(super) fn is_filtered(window: &Window<'_>, address: u64) -> Parsed<bool> {
    let mut cursor = Cursor::new(window, &(address.min(window.len())..window.len()));
    cursor.expect(*b"FRHP")?;
    cursor.skip(3)?;
    Ok(cursor.number(2)? != 0)
}

fn header(window: &Window<'_>, address: u64) -> Parsed<Header> {
    let filtered = is_filtered(window, address)?;
    let mut cursor = Cursor::new(window, &(address..window.len()));
    cursor.skip(86)?;
    let huge = cursor.number(8)?;
    cursor.skip(16)?;
    let (width, first, largest) = (cursor.number(2)?, cursor.number(8)?, cursor.number(8)?);
    let bits = cursor.number(2)?;
    cursor.skip(2)?;
    let (root, rows) = (cursor.number(8)?, cursor.number(2)?);
    if !first.is_power_of_two()
        || !largest.is_power_of_two()
        || !width.is_power_of_two()
        || largest < first
        || bits > 64
    {
        return Err(Stop::Bad(format!("the heap at byte {address} has blocks of impossible sizes")));
    }
    Ok(Header { width, first, largest, place: bits.div_ceil(8), root, rows, hidden: filtered || huge > 0 })
}

/// The blocks of each row have twice the size of those of the row before it, but for the second row.
fn below(window: &Window<'_>, header: &Header, at: u64, rows: u64, open: &mut Vec<Block>) -> Parsed<()> {
    let mut cursor = Cursor::new(window, &(at.min(window.len())..window.len()));
    cursor.expect(*b"FHIB")?;
    cursor.skip(9 + header.place)?;
    for row in 0..rows {
        let power = u32::try_from(row.saturating_sub(1)).unwrap_or(u32::MAX);
        let size = 1u64.checked_shl(power).and_then(|times| header.first.checked_mul(times));
        let size = size.ok_or_else(|| Stop::Bad(format!("the heap's block at byte {at} has too many rows")))?;
        for _ in 0..header.width {
            let address = cursor.number(8)?;
            if address == UNDEFINED {
                continue;
            }
            open.push(if size <= header.largest {
                Block::Links(address, size)
            } else {
                let times = size / header.first.saturating_mul(header.width).max(1);
                Block::Rows(address, u64::from(times.checked_ilog2().unwrap_or(0)) + 1)
            });
            if open.len() > BLOCKS {
                return Err(Stop::TooLarge(format!("the heap's block at byte {at} has more than {BLOCKS} others")));
            }
        }
    }
    Ok(())
}

/// Names of the links to other files among these bytes.
fn links(bytes: &[u8]) -> Vec<String> {
    let starts =
        bytes.windows(3).enumerate().filter(|(_, start)| matches!(start, [1, flags, EXTERNAL] if flags & 0xE8 == 8));
    starts.filter_map(|(at, _)| link(&bytes[at..])).take(NAMED).collect()
}

/// A link message: version, flags, kind, order and encoding when the flags say so, the name's length and the name, the length of what
/// follows, and for this kind a zero and two texts with zeros behind them.
fn link(bytes: &[u8]) -> Option<String> {
    let flags = *bytes.get(1)?;
    let width = 1 << (flags & 3);
    let at = 3 + if flags & 4 == 0 { 0 } else { 8 } + usize::from(flags & 0x10 != 0);
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte));
    let length = number(bytes.get(at..at + width)?);
    let name = bytes.get(at + width..)?.get(..length).filter(|name| (1..=NAME).contains(&name.len()))?;
    let rest = &bytes[at + width + length..];
    let value = rest.get(2..)?.get(..number(rest.get(..2)?))?;
    let texts = value.strip_prefix(&[0])?.strip_suffix(&[0])?;
    let zeros = texts.iter().filter(|byte| **byte == 0);
    (zeros.take(2).count() == 1).then(|| names::shown(&String::from_utf8_lossy(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8) -> Vec<u8> {
        let value = b"\0other.h5\0/kernel\0";
        let length = u16::try_from(value.len()).unwrap().to_le_bytes();
        [&[1, 8, kind, 4][..], b"link", &length, value].concat()
    }

    /// A heap whose root names two blocks of 64 bytes, the second one with this content.
    fn heap(content: &[u8], filters: u8, huge: u8) -> Vec<u8> {
        let mut bytes = b"FRHP\0\x07\0".to_vec();
        bytes.push(filters);
        bytes.resize(86, 0);
        bytes.push(huge);
        bytes.resize(110, 0);
        bytes.extend([&[2, 0][..], &64u64.to_le_bytes(), &128u64.to_le_bytes(), &[32, 0, 1, 0]].concat());
        bytes.extend([&200u64.to_le_bytes()[..], &[1, 0]].concat());
        bytes.resize(200, 0);
        bytes.extend([b"FHIB", &[0; 13][..], &u64::MAX.to_le_bytes(), &300u64.to_le_bytes()].concat());
        bytes.resize(320, 0);
        bytes.extend(content);
        bytes.resize(364, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Parsed<Vec<String>> {
        outside(&Window::of_bytes(bytes), 0).map(|(names, _)| names)
    }

    #[test]
    fn links_to_other_files_are_found() {
        assert_eq!(read(&heap(&message(EXTERNAL), 0, 0)), Ok(vec!["link".to_owned()]));
        assert_eq!(read(&heap(&message(0), 0, 0)), Ok(Vec::new()));
        for (filters, huge) in [(1, 0), (0, 1)] {
            assert!(matches!(read(&heap(&[], filters, huge)), Err(Stop::TooLarge(_))));
        }
        let whole = heap(&message(EXTERNAL), 0, 0);
        for length in 0..whole.len() {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
        // Numbers of weights that begin so are none.
        assert_eq!(links(&[1, 8, 64, 1, b'a', 3, 0, 0, 1, 2]), [""; 0]);
    }

    proptest::proptest! {
        #[test]
        fn changed_heaps_end(changes in proptest::collection::vec((0usize..364, proptest::prelude::any::<u8>()), 1..8)) {
            let mut bytes = heap(&message(EXTERNAL), 0, 0);
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let _ = read(&bytes);
        }
    }
}
