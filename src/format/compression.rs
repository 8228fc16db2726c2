//! Compressed files, unpacked within bounds: what joblib, pandas and people wrap around pickles. Pure, no I/O.

use std::io::{self, Read};

use super::window::{Parsed, Stop, Window};

/// The largest compressed file that is unpacked, in bytes.
const PACKED: u64 = 24 << 20;
/// The most bytes that come out of it.
pub(super) const UNPACKED: u64 = 24 << 20;
/// Memory that an xz or lzma stream may ask for, in KiB.
const DICTIONARY: u32 = 96 << 10;
/// How much of data is unpacked that no name calls a pickle, in bytes: what comes out tells whether it begins like one.
pub(super) const PEEKED: u64 = 1 << 20;
/// The same for lz4, whose blocks are larger.
const PEEKED_LZ4: u64 = 5 << 20;

/// A way of compression.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Compression {
    Gzip,
    Zlib,
    Bzip2,
    Xz,
    Lzma,
    Zstd,
    Lz4,
}

impl Compression {
    /// Whether its mark is so short that numbers may begin with it.
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Zlib | Self::Lzma)
    }
}

/// The compression that the first bytes tell. Zlib and the old lzma have weak marks: `named` says whether the name speaks for one.
pub(super) fn sniff(start: &[u8], named: bool) -> Option<Compression> {
    match start {
        [0x1F, 0x8B, ..] => Some(Compression::Gzip),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Compression::Bzip2),
        [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
        [0x28, 0xB5, 0x2F, 0xFD, ..] => Some(Compression::Zstd),
        [0x04, 0x22, 0x4D, 0x18, ..] => Some(Compression::Lz4),
        [0x78, 0x01 | 0x5E | 0x9C | 0xDA, ..] if named => Some(Compression::Zlib),
        [0x5D, 0, ..] if named => Some(Compression::Lzma),
        _ => None,
    }
}

/// The content of a compressed file.
///
/// # Errors
/// `TooLarge` when it or its content is larger than is read, `Bad` when it is damaged.
pub(super) fn unpack(file: &Window<'_>, compression: Compression) -> Parsed<Vec<u8>> {
    if file.len() > PACKED {
        return Err(Stop::TooLarge(format!("it is compressed and has {} bytes, more than {PACKED}", file.len())));
    }
    let (out, result) = run(file, compression)?;
    if out.len() as u64 > UNPACKED {
        return Err(Stop::TooLarge(format!("more than {UNPACKED} bytes come out of it")));
    }
    match result {
        Ok(()) => Ok(out),
        Err(error) => Err(Stop::Bad(format!("its {compression:?} data cannot be unpacked: {error}"))),
    }
}

/// What comes out of the first bytes of a compressed file, and whether that is all that can.
///
/// # Errors
/// `Need`, and `TooLarge` when too much was unpacked before.
pub(super) fn beginning(file: &Window<'_>, compression: Compression) -> Parsed<(Vec<u8>, bool)> {
    let most = if compression == Compression::Lz4 { PEEKED_LZ4 } else { PEEKED };
    let length = file.len().min(most);
    let (out, result) = run(&file.part(0..length)?, compression)?;
    let whole = length == file.len() && result.is_ok() && out.len() as u64 <= UNPACKED;
    Ok((out, whole))
}

fn run(file: &Window<'_>, compression: Compression) -> Parsed<(Vec<u8>, io::Result<()>)> {
    // Nothing is unpacked when nothing more may be.
    file.inflate(1)?;
    let bytes = file.bytes(0..file.len())?;
    let mut out = Bounded(Vec::new());
    let result = match compression {
        Compression::Gzip => copy(flate2::read::MultiGzDecoder::new(bytes), &mut out),
        Compression::Zlib => copy(flate2::read::ZlibDecoder::new(bytes), &mut out),
        Compression::Bzip2 => copy(bzip2::read::MultiBzDecoder::new(bytes), &mut out),
        Compression::Xz => copy(lzma_rust2::XzReader::new_mem_limit(bytes, true, DICTIONARY), &mut out),
        Compression::Lzma => lzma(bytes, &mut out),
        Compression::Zstd => zstd(bytes, &mut out),
        Compression::Lz4 => copy(lz4_flex::frame::FrameDecoder::new(bytes), &mut out),
    };
    file.inflate(out.0.len() as u64)?;
    Ok((out.0, result))
}

/// What comes out is bounded, so a dictionary of that size has all of it: a header that asks for more hides nothing.
fn lzma(bytes: &[u8], out: &mut Bounded) -> io::Result<()> {
    let Some(([properties, a, b, c, d], rest)) = bytes.split_first_chunk() else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let dictionary = u64::from(u32::from_le_bytes([*a, *b, *c, *d])).min(UNPACKED + 1);
    let [a, b, c, d, ..] = dictionary.to_le_bytes();
    let header: &[u8] = &[*properties, a, b, c, d];
    let reader = lzma_rust2::LzmaReader::new_mem_limit(header.chain(rest), DICTIONARY, None);
    copy(reader.map_err(io::Error::other)?, out)
}

fn zstd(bytes: &[u8], out: &mut Bounded) -> io::Result<()> {
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(bytes).map_err(io::Error::other)?;
    copy(&mut decoder, out)
}

fn copy(mut from: impl Read, out: &mut Bounded) -> io::Result<()> {
    io::copy(&mut from, out).map(|_| ())
}

/// Refuses to grow beyond [`UNPACKED`].
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = usize::try_from(UNPACKED + 1).unwrap_or(usize::MAX).saturating_sub(self.0.len());
        if room == 0 {
            return Err(io::Error::other("more comes out of it than is read"));
        }
        let taken = room.min(bytes.len());
        if self.0.len() + taken > self.0.capacity() {
            // Doubled as usual, but never beyond the bound.
            let more = self.0.capacity().max(64 << 10).max(taken).min(room);
            self.0.reserve_exact(more);
        }
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn content_comes_out_and_damage_is_told() {
        let packed = gzip(b"content");
        assert_eq!(unpack(&Window::of_bytes(&packed), Compression::Gzip).unwrap(), b"content");
        for length in 0..packed.len() {
            assert!(
                !matches!(unpack(&Window::of_bytes(&packed[..length]), Compression::Gzip), Ok(out) if out == b"content"),
                "{length}"
            );
        }
    }

    #[test]
    fn bombs_are_not_unpacked() {
        let packed = gzip(&vec![0; usize::try_from(UNPACKED).unwrap() + 10]);
        assert!(packed.len() < 1 << 20);
        assert!(matches!(unpack(&Window::of_bytes(&packed), Compression::Gzip), Err(Stop::TooLarge(_))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), kind in 0usize..7) {
            let (kind, magic): (Compression, &[u8]) = [
                (Compression::Gzip, &b"\x1f\x8b\x08\0\0\0\0\0\0\0"[..]),
                (Compression::Zlib, b"\x78\x9c"),
                (Compression::Bzip2, b"BZh9\x31\x41\x59\x26\x53\x59"),
                (Compression::Xz, b"\xfd7zXZ\0"),
                (Compression::Lzma, b"\x5d\0\0\x01\0"),
                (Compression::Zstd, b"\x28\xb5\x2f\xfd"),
                (Compression::Lz4, b"\x04\x22\x4d\x18"),
            ][kind];
            let _ = unpack(&Window::of_bytes(&[magic, &bytes].concat()), kind);
        }
    }
}
