//! Checksums that a store keeps of its objects. Pure, no I/O.

use std::{fmt, ops::Range};

use base64::{Engine, prelude::BASE64_STANDARD};

/// A checksum of a whole file, as its store holds it: what a loader can compare the bytes with that came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Checksum {
    /// CRC-32C (Castagnoli): Google Cloud Storage, S3.
    Crc32C(u32),
    /// CRC-32 of zip and gzip: S3.
    Crc32(u32),
    /// CRC-64/NVME: the default of S3.
    Crc64Nvme(u64),
    /// MD5: Azure, where the uploader left one.
    Md5([u8; 16]),
    /// SHA-256: Git LFS at the Hugging Face Hub, `SHA256SUMS`, S3.
    Sha256([u8; 32]),
}

/// A range of a file that its store holds a checksum of: the whole file, or a part that it was uploaded in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Window {
    /// Bytes of the file.
    pub range: Range<u64>,
    /// What they sum up to.
    pub checksum: Checksum,
}

impl Window {
    /// The checksum of a whole file of this size, if there is one.
    #[must_use]
    pub fn of(checksum: Option<Checksum>, size: u64) -> Vec<Self> {
        checksum.map(|checksum| Self { range: 0..size, checksum }).into_iter().collect()
    }
}

impl Checksum {
    /// A CRC-32 in base64 of its big-endian bytes, as S3 writes it.
    #[must_use]
    pub fn crc32_base64(text: &str) -> Option<Self> {
        bytes(text).map(u32::from_be_bytes).map(Self::Crc32)
    }

    /// A CRC-64/NVME in base64 of its big-endian bytes, as S3 writes it.
    #[must_use]
    pub fn crc64nvme_base64(text: &str) -> Option<Self> {
        bytes(text).map(u64::from_be_bytes).map(Self::Crc64Nvme)
    }

    /// A SHA-256 in base64, as S3 writes it.
    #[must_use]
    pub fn sha256_base64(text: &str) -> Option<Self> {
        bytes(text).map(Self::Sha256)
    }

    /// The value of a CRC; none for other sums.
    #[must_use]
    pub fn crc(&self) -> Option<u64> {
        match self {
            Self::Crc32C(crc) | Self::Crc32(crc) => Some((*crc).into()),
            Self::Crc64Nvme(crc) => Some(*crc),
            Self::Md5(_) | Self::Sha256(_) => None,
        }
    }

    /// A CRC-32C in base64 of its big-endian bytes, as Google Cloud Storage and S3 write it.
    #[must_use]
    pub fn crc32c_base64(text: &str) -> Option<Self> {
        bytes(text).map(u32::from_be_bytes).map(Self::Crc32C)
    }

    /// An MD5 in base64, as `Content-MD5` has it.
    #[must_use]
    pub fn md5_base64(text: &str) -> Option<Self> {
        bytes(text).map(Self::Md5)
    }

    /// A SHA-256 in hexadecimal digits.
    #[must_use]
    pub fn sha256_hex(text: &str) -> Option<Self> {
        hex(text).map(Self::Sha256)
    }

    /// The MD5 that the `ETag` of S3 is for an object that was uploaded at once. What S3 encrypts with a key of KMS has a tag of the
    /// same shape that is none: so it counts only for bytes that were seen to have this MD5.
    #[must_use]
    pub fn md5_of_tag(tag: &str) -> Option<Self> {
        let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
        hex(digits).map(Self::Md5)
    }

    /// Whether contents with this sum are equal. CRCs are made against accidents: of 32 bits one in four thousand million
    /// different contents passes, which a large fleet will see; and anybody can write content for any CRC of any length. MD5
    /// counts: two contents with one MD5 can be made, but none for an MD5 that another content has.
    #[must_use]
    pub fn is_strong(&self) -> bool {
        matches!(self, Self::Md5(_) | Self::Sha256(_))
    }

    /// The algorithm's name, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Crc32C(_) => "CRC-32C",
            Self::Crc32(_) => "CRC-32",
            Self::Crc64Nvme(_) => "CRC-64/NVME",
            Self::Md5(_) => "MD5",
            Self::Sha256(_) => "SHA-256",
        }
    }
}

/// As manifests and journals have it: `md5:` or another algorithm, and hexadecimal digits.
impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |formatter: &mut fmt::Formatter<'_>, bytes: &[u8]| {
            bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
        };
        match self {
            Self::Crc32C(crc) => write!(formatter, "crc32c:{crc:08x}"),
            Self::Crc32(crc) => write!(formatter, "crc32:{crc:08x}"),
            Self::Crc64Nvme(crc) => write!(formatter, "crc64nvme:{crc:016x}"),
            Self::Md5(sum) => formatter.write_str("md5:").and_then(|()| digits(formatter, sum)),
            Self::Sha256(sum) => formatter.write_str("sha256:").and_then(|()| digits(formatter, sum)),
        }
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Vec<u8> = text.bytes().map(digit).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::ops::Add;

    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!(Checksum::crc32c_base64("yZRlqg=="), Some(Checksum::Crc32C(0xC994_65AA)));
        assert_eq!(Checksum::md5_base64("1B2M2Y8AsgTpgAmY7PhCfg==").map(|sum| sum.name()), Some("MD5"));
        assert_eq!(Checksum::crc32_base64("y/Q5Jg=="), Some(Checksum::Crc32(0xCBF4_3926)));
        assert_eq!(Checksum::crc64nvme_base64("rosUhgp5mIg="), Some(Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888)));
        assert_eq!(Checksum::sha256_base64(&"A".repeat(43).add("=")), Some(Checksum::Sha256([0; 32])));
        assert_eq!(Checksum::crc32_base64("y/Q5Jg==-2"), None, "a sum of sums of parts");
        assert_eq!(Checksum::sha256_hex(&"0a".repeat(32)), Some(Checksum::Sha256([10; 32])));
        assert_eq!(
            Checksum::md5_of_tag("\"00000000000000000000000000000001\"").unwrap().to_string(),
            format!("md5:{:032x}", 1)
        );
        for tag in ["", "x", "\"00000000000000000000000000000001-2\"", "W/\"00000000000000000000000000000001\""] {
            assert_eq!(Checksum::md5_of_tag(tag), None, "{tag}");
        }
        assert_eq!(Checksum::Sha256([10; 32]).to_string(), format!("sha256:{}", "0a".repeat(32)));
        for text in ["", "x", &"0".repeat(63), &"0".repeat(66), &"zz".repeat(32)] {
            assert_eq!(Checksum::sha256_hex(text), None, "{text}");
            assert_eq!(Checksum::crc32c_base64(text), None, "{text}");
        }
    }
}
