//! Pages of a bucket's listing as they are. Pure, no I/O.
//!
//! `object_store` drops slashes at the ends of keys, which makes a marker `a/` look like an empty file `a`, and refuses
//! whole pages for one odd key. The XML is that of `ListObjectsV2`:
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>.

use serde::Deserialize;

use super::{Checksum, Object as Listed};

/// A page of keys.
#[derive(Debug, Deserialize)]
#[serde(rename = "ListBucketResult", rename_all = "PascalCase")]
pub struct Page {
    /// The keys.
    #[serde(default)]
    pub contents: Vec<Object>,
    /// Whether there are more pages.
    #[serde(default)]
    pub is_truncated: bool,
    /// What to ask for the next one with.
    #[serde(default)]
    pub next_continuation_token: Option<String>,
}

/// A key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Object {
    /// The whole key.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// What tells versions apart, with its quotes.
    #[serde(rename = "ETag", default)]
    pub e_tag: String,
}

impl From<Object> for Listed {
    fn from(object: Object) -> Self {
        let content = Checksum::md5_of_tag(&object.e_tag);
        Self { key: object.key, size: object.size, version: object.e_tag, checksum: None, content }
    }
}

impl Page {
    /// Parses the body of an answer; none when it is something else.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        if !text.contains("<ListBucketResult") {
            return None;
        }
        quick_xml::de::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_parsed() {
        let page = Page::parse(
            br#"<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
            <IsTruncated>true</IsTruncated><Contents><Key>a &amp; b/</Key><Size>0</Size><ETag>&quot;x&quot;</ETag></Contents><KeyCount>2</KeyCount>
            <Contents><Key>&lt;c </Key><LastModified>2024-01-01T00:00:00Z</LastModified><Size>5000000000000</Size></Contents>
            <NextContinuationToken>t/=</NextContinuationToken></ListBucketResult>"#,
        )
        .unwrap();
        assert_eq!(page.contents[0].key, "a & b/");
        assert_eq!(page.contents[0].e_tag, "\"x\"");
        assert_eq!(page.contents[1].key, "<c ");
        assert_eq!(page.contents[1].size, 5_000_000_000_000);
        assert_eq!((page.is_truncated, page.next_continuation_token.as_deref()), (true, Some("t/=")));
        assert!(Page::parse(b"<html>hello</html>").is_none());
        assert!(Page::parse(b"").is_none());
    }
}
