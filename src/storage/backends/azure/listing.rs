//! Pages of a container's listing. Pure, no I/O.
//!
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/list-blobs#response-body>

use serde::Deserialize;

use super::super::{Checksum, listing::Object};

/// A page of names.
#[derive(Debug, Deserialize)]
#[serde(rename = "EnumerationResults", rename_all = "PascalCase")]
pub(super) struct Page {
    #[serde(default)]
    pub blobs: Blobs,
    #[serde(default)]
    pub next_marker: Option<String>,
}

/// The names of a page.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blobs {
    #[serde(default)]
    pub blob: Vec<Blob>,
}

/// A blob, or a folder of Data Lake Storage.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Blob {
    name: Name,
    properties: Properties,
}

#[derive(Debug, Deserialize)]
struct Name {
    /// Names that XML cannot hold are percent-encoded.
    #[serde(rename = "@Encoded", default)]
    encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

#[derive(Debug, Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length", default)]
    length: u64,
    #[serde(rename = "Content-MD5", default)]
    md5: String,
    #[serde(rename = "Etag", default)]
    tag: String,
    #[serde(rename = "ResourceType", default)]
    kind: String,
}

impl Blob {
    /// The blob; a folder of Data Lake Storage becomes a marker of one. The encoded name when that is no text.
    pub(super) fn object(self) -> Result<Object, String> {
        let Self { name, properties } = self;
        let mut key = name.text;
        if name.encoded {
            key = match percent_encoding::percent_decode_str(&key).decode_utf8() {
                Ok(decoded) => decoded.into_owned(),
                Err(_) => return Err(key),
            };
        }
        if properties.kind == "directory" && !key.ends_with('/') {
            key.push('/');
        }
        // The tag of a header has quotes, that of a listing has none.
        let version = match properties.tag.as_str() {
            "" => String::new(),
            quoted if quoted.starts_with('"') => quoted.to_owned(),
            bare => format!("\"{bare}\""),
        };
        Ok(Object {
            key,
            size: properties.length,
            version,
            checksum: Checksum::md5_base64(&properties.md5),
            content: None,
        })
    }
}

impl Page {
    /// Parses the body of an answer.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}');
        if !text.contains("<EnumerationResults") {
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
            br#"<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="https://a.blob.core.windows.net/" ContainerName="c">
            <Prefix>p/</Prefix><Blobs><Blob><Name>p/a &amp; b </Name><Properties><Etag>0x8D</Etag><Content-Length>5</Content-Length>
            <Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>BlockBlob</BlobType></Properties></Blob>
            <Blob><Name Encoded="true">p/x%EF%BF%BFy</Name><Properties><Etag>"q"</Etag><Content-Length>6</Content-Length></Properties></Blob>
            <Blob><Name>p/d</Name><Properties><Content-Length>0</Content-Length><ResourceType>directory</ResourceType></Properties></Blob></Blobs>
            <NextMarker>2!8</NextMarker></EnumerationResults>"#,
        )
        .unwrap();
        assert_eq!(page.next_marker.as_deref(), Some("2!8"));
        let objects: Vec<Object> = page.blobs.blob.into_iter().map(|blob| blob.object().unwrap()).collect();
        assert_eq!(
            (objects[0].key.as_str(), objects[0].size, objects[0].version.as_str()),
            ("p/a & b ", 5, "\"0x8D\"")
        );
        assert!(matches!(objects[0].checksum, Some(Checksum::Md5(_))));
        assert_eq!((objects[1].key.as_str(), objects[1].version.as_str()), ("p/x\u{ffff}y", "\"q\""));
        assert_eq!(objects[2].key, "p/d/");
        assert!(Page::parse(b"<html>").is_none());
        let empty = Page::parse(b"<EnumerationResults><Blobs /><NextMarker /></EnumerationResults>").unwrap();
        assert!(empty.blobs.blob.is_empty() && empty.next_marker.unwrap_or_default().is_empty());
    }
}
