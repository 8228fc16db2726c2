//! Checkpoints around arbitrary bytes whose checksums and lengths are right: what lies behind a checksum is never reached by
//! bytes alone. Pure, no I/O.

/// Paths and what is there.
pub type Made = Vec<(&'static str, Vec<u8>)>;

const MANIFEST: [u8; 4] = [0x0C, 0xDB, 0x3A, 0x2A];
const NODE: [u8; 4] = [0x0C, 0xDB, 0x20, 0xDE];
/// The end of a table of TensorFlow.
const TABLE: [u8; 8] = [0x57, 0xFB, 0x80, 0x8B, 0x24, 0x75, 0x47, 0xDB];

/// An Orbax database whose manifest says this.
pub(super) fn manifest(bytes: &[u8]) -> Made {
    database(ocdbt(MANIFEST, bytes), b"data".to_vec())
}

/// An Orbax database with one node that says this; its first byte is its height.
pub(super) fn node(bytes: &[u8]) -> Made {
    let node = ocdbt(NODE, bytes);
    let height = bytes.first().copied().unwrap_or_default();
    let mut says = vec![7; 16];
    says.extend([0, 100, 100, 4, 0]);
    // One file, without a folder of its own.
    says.extend([1, 6, 0]);
    says.extend(b"d/node");
    // One version of the tree: its number, its height, its file and its place.
    says.extend([1, 1, height, 0, 0]);
    says.extend(varint(node.len()));
    says.extend([3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    database(ocdbt(MANIFEST, &says), node)
}

fn database(manifest: Vec<u8>, node: Vec<u8>) -> Made {
    vec![
        ("_CHECKPOINT_METADATA", br#"{"init_timestamp_nsecs":1,"commit_timestamp_nsecs":2}"#.to_vec()),
        ("_METADATA", br#"{"tree_metadata":{}}"#.to_vec()),
        ("manifest.ocdbt", manifest),
        ("d/node", node),
    ]
}

/// Length, version, no compression, and the checksum at the end.
fn ocdbt(magic: [u8; 4], says: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend((says.len() as u64 + 18).to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(says);
    bytes.extend(checksum(&bytes).to_le_bytes());
    bytes
}

/// A checkpoint of TensorFlow whose index has one block with these records.
pub(super) fn table(bytes: &[u8]) -> Made {
    let mut table = Vec::new();
    let records = block(&mut table, bytes);
    let meta = block(&mut table, &[]);
    let entry = [&[0, 1][..], &varint(records.len()), b"x", &records].concat();
    let index = block(&mut table, &entry);
    let mut footer = [meta, index].concat();
    footer.resize(40, 0);
    table.extend(footer);
    table.extend(TABLE);
    vec![
        ("model.ckpt-1.index", table),
        ("model.ckpt-1.data-00000-of-00001", b"0123456789abcdef".to_vec()),
        ("checkpoint", b"model_checkpoint_path: \"model.ckpt-1\"\n".to_vec()),
    ]
}

/// Writes a block with one restart and its checksum; returns where it is.
fn block(table: &mut Vec<u8>, records: &[u8]) -> Vec<u8> {
    let begin = table.len();
    table.extend(records);
    table.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    let place = [varint(begin), varint(table.len() - begin)].concat();
    table.push(0);
    let sum = checksum(table.get(begin..).unwrap_or_default());
    table.extend(sum.rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes());
    place
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7F {
        bytes.push(u8::try_from(number & 0x7F).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap_or_default());
    bytes
}

/// CRC-32C, bit by bit: inputs are small, and the suite then needs no crate that the product does not show.
fn checksum(bytes: &[u8]) -> u32 {
    let turned = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 1 { 0x82F6_3B78 } else { 0 })
    };
    !bytes.iter().fold(u32::MAX, turned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc_32c() {
        assert_eq!(checksum(b"123456789"), 0xE306_9283);
    }
}
