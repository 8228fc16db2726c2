//! What the first bytes of a file say, whatever its name. Pure, no I/O.

use super::names;

/// How many bytes [`sniff`] needs.
pub(super) const SNIFF: u64 = 512;

/// A Git LFS pointer is never larger, in bytes.
const LFS_POINTER_LIMIT: u64 = 1024;
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

const UNKNOWN: &str = "a file with a pickle's name and unknown content";

/// Compressed files and archives, which some loaders of pickles open by themselves.
const WRAPPERS: [(&[u8], &str); 6] = [
    (&[0x1F, 0x8B], "gzip data"),
    (b"BZh", "bzip2 data"),
    (&[0xFD, b'7', b'z', b'X', b'Z', 0], "xz data"),
    (&[0x28, 0xB5, 0x2F, 0xFD], "zstd data"),
    (&[0x04, 0x22, 0x4D, 0x18], "lz4 data"),
    (&[b'7', b'z', 0xBC, 0xAF, 0x27, 0x1C], "a 7z archive"),
];

/// Opcodes that a pickle without a protocol mark can begin with.
pub(super) fn may_begin_pickle(first: u8) -> bool {
    b"(cild}])FGIJKLMNSTUVXBCP".contains(&first) || (0x81..=0x98).contains(&first)
}

/// What a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Magic {
    /// A pointer that Git LFS leaves in place of a file.
    LfsPointer,
    /// A pickle, or something that may be or hold one; the text completes "it is ...".
    Pickle(&'static str),
    /// Anything else.
    Other,
}

/// Whether a file of this size that begins like this is a pointer that Git LFS left in place of the file.
pub(super) fn is_pointer(start: &[u8], size: u64) -> bool {
    size <= LFS_POINTER_LIMIT && start.starts_with(LFS_POINTER)
}

/// Judges a file by its first bytes (at least [`SNIFF`] unless it is shorter); names only decide where bytes are ambiguous.
pub(super) fn sniff(start: &[u8], path: &str, size: u64) -> Magic {
    if is_pointer(start, size) {
        return Magic::LfsPointer;
    }
    if is_marked_pickle(start) {
        return Magic::Pickle("a pickle");
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        return Magic::Pickle("a zip archive, which may hold pickles");
    }
    if names::is_pickle(path) { pickle_name(start, path) } else { Magic::Other }
}

/// Whether a protocol's mark stands there and something that can follow it.
pub(super) fn is_marked_pickle(start: &[u8]) -> bool {
    matches!(start, [0x80, 0..=5, ..]) && !stops_at_zero(start)
}

/// Whether a file is to be taken for a pickle because of its name, and its first bytes do not make it something else.
pub(super) fn is_pickle_by_name(start: &[u8], path: &str) -> bool {
    names::is_pickle(path) && pickle_name(start, path) == Magic::Pickle(UNKNOWN)
}

/// Whether a pickle that begins like this ends with an error before it did anything: zero is no opcode, so only an argument
/// that spans four zeros lets it go on. Safetensors files whose header is 640 bytes long begin like this, among others.
fn stops_at_zero(start: &[u8]) -> bool {
    let spans =
        |opcode: u8| b"BCFGIJLPSTUVXcgijpr".contains(&opcode) || matches!(opcode, 0x84 | 0x8A..=0x8E | 0x95 | 0x96);
    matches!(start, [_, _, first, second, 0, 0, 0, 0, ..] if !spans(*first) && !spans(*second))
}

/// A name that pickles have: only content that is known to be something else is harmless.
fn pickle_name(start: &[u8], path: &str) -> Magic {
    if let Some((_, kind)) = WRAPPERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Magic::Pickle(kind);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Magic::Pickle("a tar archive, which may hold pickles");
    }
    if let Some(array) = start.strip_prefix(b"\x93NUMPY") {
        return numpy(array);
    }
    // Most magics begin with an opcode (`G` of GGUF takes eight bytes as a number), so they prove nothing; HDF5's does not go on.
    if start.is_empty() || start.starts_with(b"\x89HDF\r\n\x1a\n") {
        return Magic::Other;
    }
    // Many other things are named `.bin`.
    if names::has_extension(path, "bin") && !start.first().copied().is_some_and(may_begin_pickle) {
        return Magic::Other;
    }
    Magic::Pickle(UNKNOWN)
}

/// An array of Python objects holds a pickle. The header's text says what the elements are.
fn numpy(array: &[u8]) -> Magic {
    let (length, header) = match array {
        [1, _, low, high, header @ ..] => (usize::from(u16::from_le_bytes([*low, *high])), header),
        [_, _, a, b, c, d, header @ ..] => {
            (usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX), header)
        }
        _ => (usize::MAX, array),
    };
    match header.get(..length) {
        Some(header) if !header.contains(&b'O') && !header.windows(6).any(|text| text == b"object") => Magic::Other,
        _ => Magic::Pickle("a numpy array of Python objects, which holds a pickle"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_pickle(start: &[u8], path: &str) -> bool {
        matches!(sniff(start, path, 1 << 20), Magic::Pickle(_))
    }

    #[test]
    fn first_bytes_decide_before_names() {
        let table: &[(&[u8], &str, bool)] = &[
            (b"\x80\x02}q\x00.", "notes.txt", true),
            (b"\x80\x05", "config.json", true),
            (b"\x80\x06", "data.raw", false),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "model", true),
            (b"\x80\x02\0\0\0\0\0\0{", "model.safetensors", false),
            (b"\x80\x05\x01\0\0\0\0\0{", "model.safetensors", false),
            (b"\x80\x05}\x94\0\0\0\0{", "model.safetensors", false),
            (b"\x80\x02X\x01\0\0\0\0{", "model.safetensors", true),
            (b"\x80\x02}J\0\0\0\0{", "model.safetensors", true),
            (b"\x80\x02\0\0\0\0\0", "model.safetensors", true),
            (b"PK\x03\x04", "anything", true),
            (b"PK\x05\x06", "empty.dat", true),
            (b"\x1f\x8b\x08", "dump.pkl", true),
            (b"\x1f\x8b\x08", "dump.pkl.gz", true),
            (b"\x1f\x8b\x08", "corpus.txt.gz", false),
            (b"7z\xbc\xaf\x27\x1c", "pytorch_model.bin", true),
            (b"BZh9", "a.joblib", true),
            (b"(dp0\n.", "a.pkl", true),
            (b"cos\nsystem\n", "weights.bin", true),
            (b"\x00\x01\x02\x03", "weights.bin", false),
            (b"\x00\x01\x02\x03", "weights.pt", true),
            (b"(hello)", "notes.txt", false),
            (b"GGUF\x03", "model.bin", true),
            (b"GGUF\x03", "model.gguf", false),
            (b"\x89HDF\r\n\x1a\n", "model.ckpt", false),
            (b"\x93NUMPY\x01\x00\x0b\x00{'<f4', ()}", "a.npy", false),
            (b"\x93NUMPY\x01\x00\x0a\x00{'|O', ()}", "a.npy", true),
            (b"\x93NUMPY\x01\x00\xff\x02{'<f4'", "a.npy", true),
            (b"\x93NUMPY", "a.npy", true),
            (b"", "empty.pkl", false),
        ];
        for (start, path, expected) in table {
            assert_eq!(is_pickle(start, path), *expected, "{path} {start:?}");
        }
    }

    #[test]
    fn pointers_are_small() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n";
        assert_eq!(sniff(pointer, "model.safetensors", 130), Magic::LfsPointer);
        assert_eq!(sniff(pointer, "notes.txt", 1 << 20), Magic::Other);
    }
}
