//! Where S3 says what an object sums up to. Pure, no I/O.
//!
//! A checksum of the whole object is in headers, see
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html>. One of type COMPOSITE is a
//! checksum of the checksums of the uploaded parts; those are in the answer to `GetObjectAttributes`:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html>.

use reqwest::header::{HeaderMap, HeaderName};
use serde::Deserialize;

use super::super::{Checksum, Window};

/// The request header that asks for checksums.
pub(super) fn mode() -> (HeaderName, String) {
    (HeaderName::from_static("x-amz-checksum-mode"), "ENABLED".to_owned())
}

type Parse = fn(&str) -> Option<Checksum>;

/// The headers of checksums that can be compared, the quickest ones first.
const HEADERS: [(&str, Parse); 4] = [
    ("x-amz-checksum-crc64nvme", Checksum::crc64nvme_base64),
    ("x-amz-checksum-crc32c", Checksum::crc32c_base64),
    ("x-amz-checksum-crc32", Checksum::crc32_base64),
    ("x-amz-checksum-sha256", Checksum::sha256_base64),
];
const TYPE: &str = "x-amz-checksum-type";

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The checksum of the whole object. One of its parts' checksums ends with their number and is not one.
pub(super) fn of_headers(headers: &HeaderMap) -> Option<Checksum> {
    if text(headers, TYPE) == Some("COMPOSITE") {
        return None;
    }
    HEADERS.iter().find_map(|(name, parse)| parse(text(headers, name)?))
}

/// Whether the object has checksums of its parts only.
pub(super) fn is_composite(headers: &HeaderMap) -> bool {
    let of_parts = |value: &str| value.rsplit_once('-').is_some_and(|(_, count)| count.parse::<u32>().is_ok());
    text(headers, TYPE) == Some("COMPOSITE")
        || HEADERS.iter().any(|(name, _)| text(headers, name).is_some_and(of_parts))
}

/// A page of an object's parts.
#[derive(Debug, Deserialize)]
#[serde(rename = "GetObjectAttributesResponse", rename_all = "PascalCase")]
pub(super) struct Attributes {
    object_parts: Option<ObjectParts>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ObjectParts {
    #[serde(default)]
    is_truncated: bool,
    next_part_number_marker: Option<u32>,
    #[serde(default)]
    part: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    #[serde(rename = "PartNumber")]
    number: u32,
    size: u64,
    #[serde(rename = "ChecksumCRC64NVME")]
    crc64nvme: Option<String>,
    #[serde(rename = "ChecksumCRC32C")]
    crc32c: Option<String>,
    #[serde(rename = "ChecksumCRC32")]
    crc32: Option<String>,
    #[serde(rename = "ChecksumSHA256")]
    sha256: Option<String>,
}

impl Part {
    fn checksum(&self) -> Option<Checksum> {
        let texts = [&self.crc64nvme, &self.crc32c, &self.crc32, &self.sha256];
        texts.iter().zip(HEADERS).find_map(|(text, (_, parse))| parse(text.as_deref()?))
    }
}

impl Attributes {
    /// Headers of a request for the parts after this one.
    pub(super) fn request(after: Option<u32>) -> Vec<(HeaderName, String)> {
        let mut headers = vec![(HeaderName::from_static("x-amz-object-attributes"), "ObjectParts".to_owned())];
        if let Some(marker) = after {
            headers.push((HeaderName::from_static("x-amz-part-number-marker"), marker.to_string()));
        }
        headers
    }

    /// None when the body is something else.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        text.contains("<GetObjectAttributesR").then(|| quick_xml::de::from_str(text).ok()).flatten()
    }

    /// The last part of this page, if there are more.
    pub(super) fn next(&self) -> Option<u32> {
        self.object_parts.as_ref().filter(|parts| parts.is_truncated)?.next_part_number_marker
    }
}

/// The parts of an object.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<Part>);

impl Parts {
    pub(super) fn add(&mut self, page: Attributes) {
        self.0.extend(page.object_parts.into_iter().flat_map(|parts| parts.part));
    }

    /// Where each part is and what it sums up to; nothing unless they are all there.
    pub(super) fn windows(mut self, size: u64) -> Vec<Window> {
        self.0.sort_by_key(|part| part.number);
        let mut at = 0u64;
        let window = |part: &Part| {
            let start = at;
            at = at.checked_add(part.size)?;
            Some(Window { range: start..at, checksum: part.checksum()? })
        };
        let windows: Option<Vec<_>> = self.0.iter().map(window).collect();
        windows.filter(|_| at == size).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn sums_of_the_whole_are_told_from_those_of_parts() {
        let whole = headers(&[("x-amz-checksum-crc32c", "yZRlqg=="), ("x-amz-checksum-type", "FULL_OBJECT")]);
        assert_eq!((of_headers(&whole), is_composite(&whole)), (Some(Checksum::Crc32C(0xC994_65AA)), false));
        for parts in [
            headers(&[("x-amz-checksum-crc32c", "yZRlqg==-2")]),
            headers(&[("x-amz-checksum-crc32", "yZRlqg=="), ("x-amz-checksum-type", "COMPOSITE")]),
        ] {
            assert_eq!((of_headers(&parts), is_composite(&parts)), (None, true));
        }
        assert!(of_headers(&HeaderMap::new()).is_none() && !is_composite(&HeaderMap::new()));
        let other = headers(&[("x-amz-checksum-sha1", "AAAA")]);
        assert!(of_headers(&other).is_none() && !is_composite(&other));
    }

    #[test]
    fn parts_have_their_places() {
        let body =
            br#"<?xml version="1.0"?><GetObjectAttributesResponse xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <ObjectParts><TotalPartsCount>2</TotalPartsCount><PartNumberMarker>0</PartNumberMarker>
            <NextPartNumberMarker>2</NextPartNumberMarker><MaxParts>1000</MaxParts><IsTruncated>true</IsTruncated>
            <Part><PartNumber>2</PartNumber><Size>3</Size><ChecksumCRC32C>yZRlqg==</ChecksumCRC32C></Part>
            <Part><PartNumber>1</PartNumber><Size>5</Size><ChecksumCRC32C>AAAAAA==</ChecksumCRC32C></Part>
            </ObjectParts></GetObjectAttributesResponse>"#;
        let page = Attributes::parse(body).unwrap();
        assert_eq!(page.next(), Some(2));
        let mut parts = Parts::default();
        parts.add(page);
        let expected = [
            Window { range: 0..5, checksum: Checksum::Crc32C(0) },
            Window { range: 5..8, checksum: Checksum::Crc32C(0xC994_65AA) },
        ];
        assert_eq!(parts.windows(8), expected);
        let mut parts = Parts::default();
        parts.add(Attributes::parse(body).unwrap());
        assert!(parts.windows(9).is_empty(), "some are missing");
        assert!(Attributes::parse(b"<html>").is_none());
    }
}
