//! Checksums that a store keeps of its objects. Pure, no I/O.

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

impl Checksum {
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
        let digits: Vec<u8> =
            text.bytes().map(|byte| char::from(byte).to_digit(16)).map(digit).collect::<Option<_>>()?;
        let pairs: Vec<u8> =
            digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        (digits.len() == 64).then_some(())?;
        pairs.try_into().ok().map(Self::Sha256)
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

fn digit(value: Option<u32>) -> Option<u8> {
    value.and_then(|value| u8::try_from(value).ok())
}

fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read() {
        assert_eq!(Checksum::crc32c_base64("yZRlqg=="), Some(Checksum::Crc32C(0xC994_65AA)));
        assert_eq!(Checksum::md5_base64("1B2M2Y8AsgTpgAmY7PhCfg==").map(|sum| sum.name()), Some("MD5"));
        assert_eq!(Checksum::sha256_hex(&"0a".repeat(32)), Some(Checksum::Sha256([10; 32])));
        for text in ["", "x", &"0".repeat(63), &"0".repeat(66), &"zz".repeat(32)] {
            assert_eq!(Checksum::sha256_hex(text), None, "{text}");
            assert_eq!(Checksum::crc32c_base64(text), None, "{text}");
        }
    }
}
