//! BLAKE3 of a file from hashes of its parts, which may come in any order. Pure, no I/O.
//!
//! Parts are as long as a complete subtree, a power of two of chunks, so that their chaining values merge into the hash of
//! the whole (section 2.1 of the BLAKE3 paper).

use blake3::{
    Hash, Hasher,
    hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

/// Length of all parts of a file but the last, in bytes.
pub(in crate::worker) const PART: u64 = 16 << 20;

/// Hash of one part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::worker) enum PartHash {
    /// The file has no other part.
    Whole(Hash),
    /// A subtree of the file's tree.
    Subtree(ChainingValue),
}

impl PartHash {
    /// Hexadecimal digits.
    pub(in crate::worker) fn to_hex(self) -> String {
        Hash::from_bytes(match self {
            Self::Whole(hash) => *hash.as_bytes(),
            Self::Subtree(value) => value,
        })
        .to_hex()
        .to_string()
    }

    /// The subtree with these hexadecimal digits.
    pub(in crate::worker) fn subtree_from_hex(text: &str) -> Option<Self> {
        Hash::from_hex(text).ok().map(|hash| Self::Subtree(*hash.as_bytes()))
    }
}

/// Hashes one part, piece by piece.
#[derive(Clone, Debug)]
pub(super) struct PartHasher {
    hasher: Hasher,
    whole: bool,
}

impl PartHasher {
    /// For the part that begins at `offset`; the file has `size` bytes.
    pub(super) fn new(offset: u64, size: u64) -> Self {
        let mut hasher = Hasher::new();
        let whole = size <= PART;
        if !whole {
            hasher.set_input_offset(offset);
        }
        Self { hasher, whole }
    }

    /// The next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// The part's hash.
    pub(super) fn finish(&self) -> PartHash {
        if self.whole {
            PartHash::Whole(self.hasher.finalize())
        } else {
            PartHash::Subtree(self.hasher.finalize_non_root())
        }
    }
}

/// The hash of the file, from the hashes of all parts in order; none when parts do not make up a file.
pub(super) fn merge(parts: &[PartHash]) -> Option<Hash> {
    match parts {
        [PartHash::Whole(hash)] => Some(*hash),
        [_] | [] => None,
        several => {
            let values: Option<Vec<_>> = several
                .iter()
                .map(|part| if let PartHash::Subtree(value) = part { Some(*value) } else { None })
                .collect();
            let values = values?;
            let (left, right) = values.split_at(left_parts(values.len()));
            Some(merge_subtrees_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
        }
    }
}

fn subtree(values: &[ChainingValue]) -> Option<ChainingValue> {
    match values {
        [] => None,
        [value] => Some(*value),
        several => {
            let (left, right) = several.split_at(left_parts(several.len()));
            Some(merge_subtrees_non_root(&subtree(left)?, &subtree(right)?, Mode::Hash))
        }
    }
}

/// The left subtree takes the largest power of two that leaves something for the right one.
fn left_parts(parts: usize) -> usize {
    parts.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::worker::tests::sample;

    fn merged(bytes: &[u8], length: usize) -> Hash {
        let whole = bytes.len() <= length;
        let parts: Vec<PartHash> = bytes
            .chunks(length)
            .enumerate()
            .map(|(index, piece)| {
                if whole {
                    return PartHash::Whole(blake3::hash(piece));
                }
                let mut hasher = Hasher::new();
                hasher.set_input_offset((index * length) as u64);
                PartHash::Subtree(hasher.update(piece).finalize_non_root())
            })
            .collect();
        merge(&parts).unwrap()
    }

    proptest! {
        #[test]
        fn merged_parts_are_the_hash_of_the_whole(length in 1usize..200_000, power in 0u32..4) {
            let bytes = sample(length);
            prop_assert_eq!(merged(&bytes, 1024 << power), blake3::hash(&bytes));
        }
    }

    fn part(bytes: &[u8], offset: u64, size: u64) -> PartHash {
        let mut hasher = PartHasher::new(offset, size);
        bytes.chunks(100_001).for_each(|piece| hasher.update(piece));
        hasher.finish()
    }

    #[test]
    fn subtrees_are_written_and_read() {
        let part = part(&sample(100), 0, PART + 1);
        assert_eq!(PartHash::subtree_from_hex(&part.to_hex()), Some(part));
        assert_eq!(PartHash::subtree_from_hex("x"), None);
    }

    #[test]
    fn real_parts_merge() {
        let size = usize::try_from(PART).unwrap();
        for length in [0, 1, size - 1, size, size + 1, 2 * size, 2 * size + 5, 3 * size] {
            let bytes = sample(length);
            let mut parts: Vec<_> = bytes
                .chunks(size)
                .enumerate()
                .map(|(index, piece)| part(piece, index as u64 * PART, length as u64))
                .collect();
            if parts.is_empty() {
                parts.push(part(&[], 0, 0));
            }
            assert_eq!(merge(&parts).unwrap(), blake3::hash(&bytes), "{length}");
        }
    }

    #[test]
    fn what_is_no_file_has_no_hash() {
        assert_eq!(merge(&[]), None);
        assert_eq!(merge(&[PartHash::Subtree([0; 32])]), None);
        assert_eq!(merge(&[PartHash::Whole(blake3::hash(b"")), PartHash::Whole(blake3::hash(b""))]), None);
    }
}
