//! Checksums of HDF5's newer structures: Jenkins' lookup3 (HDF5 file format 3.0, section "Checksums"; the hash is in the public
//! domain). Pure, no I/O.

use std::ops::Range;

use super::super::window::{Parsed, Stop, Window};

/// Whether the bytes end with the checksum of what stands before it; `what` names them.
///
/// # Errors
/// `Bad` when they do not.
pub(super) fn check(file: &Window<'_>, range: Range<u64>, what: &str) -> Parsed<()> {
    let end = range.end;
    let stored = u32::from_le_bytes(file.array(end)?);
    if lookup3(file.bytes(range)?) == stored {
        return Ok(());
    }
    Err(Stop::Bad(format!("{what} has another checksum than it says")))
}

/// The hash of the bytes, from nothing.
pub(super) fn lookup3(bytes: &[u8]) -> u32 {
    let seed = 0xdead_beef_u32.wrapping_add(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let mut state = [seed; 3];
    let mut rest = bytes;
    while rest.len() > 12 {
        let (block, more) = rest.split_at(12);
        add(&mut state, block);
        mix(&mut state);
        rest = more;
    }
    if rest.is_empty() {
        return state[2];
    }
    add(&mut state, rest);
    finish(&mut state);
    state[2]
}

fn add(state: &mut [u32; 3], block: &[u8]) {
    for (word, bytes) in state.iter_mut().zip(block.chunks(4)) {
        let number = bytes.iter().rev().fold(0u32, |number, byte| number << 8 | u32::from(*byte));
        *word = word.wrapping_add(number);
    }
}

fn mix([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: &mut u32, z: &mut u32, bits| {
        *x = x.wrapping_sub(*z) ^ z.rotate_left(bits);
        *z = z.wrapping_add(*y);
    };
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
}

fn finish([a, b, c]: &mut [u32; 3]) {
    let step = |x: &mut u32, y: u32, bits| *x = (*x ^ y).wrapping_sub(y.rotate_left(bits));
    step(c, *b, 14);
    step(a, *c, 11);
    step(b, *a, 25);
    step(c, *b, 16);
    step(a, *c, 4);
    step(b, *a, 14);
    step(c, *b, 24);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hashes() {
        assert_eq!(lookup3(b""), 0xdead_beef);
        // From the hash's own self-test: hashlittle("Four score and seven years ago", 30, 0).
        assert_eq!(lookup3(b"Four score and seven years ago"), 0x1777_0551);
    }
}
