//! Where a checkpoint lies, as text: `s3://bucket/path`, `pvc://claim/path`, or a path within a storage. Pure, no I/O.

use super::Reason;

/// A place, split into its parts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location<'a> {
    /// `s3://bucket/path`, with the query that Ray's URIs have.
    S3 {
        /// The bucket as written.
        bucket: &'a str,
        /// The path as written.
        path: &'a str,
        /// `endpoint_override`, with the scheme that `scheme` says when it has none.
        endpoint: Option<String>,
        /// `region`
        region: Option<&'a str>,
        /// `scheme`, for endpoints without one.
        scheme: Option<&'a str>,
    },
    /// `pvc://claim/path`
    Claim {
        /// The claim as written.
        claim: &'a str,
        /// The path as written.
        path: &'a str,
    },
    /// A path within a storage that is named elsewhere.
    Within(&'a str),
}

/// A text that is no location.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct LocationError {
    /// `InvalidSpec`, `InvalidPath` or `InsecureEndpoint`.
    pub reason: Reason,
    /// What is wrong and what to write instead.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> LocationError {
    LocationError { reason: Reason::InvalidSpec, message: message.into() }
}

impl<'a> Location<'a> {
    /// Splits a text. Its parts are checked by [`folder`], [`bucket`], [`claim`] and [`endpoint`].
    ///
    /// # Errors
    /// When it is a URI of another kind, or has parts that such a URI cannot have.
    pub fn parse(text: &'a str) -> Result<Self, LocationError> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest);
        }
        if let Some(rest) = text.strip_prefix("pvc://") {
            if rest.contains('?') {
                return Err(invalid("path: a pvc:// URI has no query"));
            }
            let (claim, path) = rest.split_once('/').unwrap_or((rest, ""));
            return Ok(Self::Claim { claim, path });
        }
        if let Some((scheme, _)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
            return Err(invalid(format!(
                "path: {scheme}:// is not understood; use s3://bucket/path or pvc://claim/path"
            )));
        }
        Ok(Self::Within(text))
    }
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_alphabetic())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "+.-".contains(character))
}

fn s3(rest: &str) -> Result<Location<'_>, LocationError> {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains(['@', ':']) {
        return Err(invalid(
            "path: a URI must not hold a user name, a password or a port; use storage.s3.credentials and storage.s3.endpoint",
        ));
    }
    let (mut endpoint, mut region, mut scheme) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("endpoint_override", value)) => endpoint = Some(value),
            Some(("region", value)) => region = Some(value),
            Some(("scheme", value)) => scheme = Some(value),
            _ => {
                return Err(invalid(format!(
                    "path: {pair:?} is not understood; of the query of an s3:// URI, only endpoint_override, scheme and region are"
                )));
            }
        }
    }
    let endpoint = endpoint.map(|endpoint| with_scheme(endpoint, scheme));
    Ok(Location::S3 { bucket, path, endpoint, region, scheme })
}

/// Ray's `endpoint_override` has no scheme of its own; `scheme` says which.
#[must_use]
pub fn with_scheme(endpoint: &str, scheme: Option<&str>) -> String {
    if endpoint.contains("://") {
        return endpoint.to_owned();
    }
    format!("{}://{endpoint}", scheme.unwrap_or("https"))
}

/// A path without the slash at its end.
///
/// # Errors
/// When it is absolute, or a segment of it is empty, dots, or has a control character.
pub fn folder(path: &str) -> Result<String, LocationError> {
    let problem = |message: String| LocationError { reason: Reason::InvalidPath, message };
    if path.starts_with('/') {
        return Err(problem(
            "path is relative to the root of the storage: leave out the slash at its start".to_owned(),
        ));
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    for segment in trimmed.split('/') {
        if matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control) {
            return Err(problem(format!("path: the segment {segment:?} is not allowed")));
        }
    }
    Ok(trimmed.to_owned())
}

/// A bucket's name.
///
/// # Errors
/// When it cannot be one.
pub fn bucket(name: &str) -> Result<String, LocationError> {
    if name.is_empty() || name.contains(['/', '?', '@']) {
        return Err(invalid(format!("{name:?} is not a bucket")));
    }
    Ok(name.to_owned())
}

/// A claim's name.
///
/// # Errors
/// When it cannot be one.
pub fn claim(name: &str) -> Result<String, LocationError> {
    if name.is_empty() || name.len() > 253 || name.contains(['/', '@', ':', ' ']) {
        return Err(invalid(format!("{name:?} is not the name of a claim")));
    }
    Ok(name.to_owned())
}

/// An endpoint without slashes at its end.
///
/// # Errors
/// When it is none, has more than a host and a port, or is not encrypted and need not be trusted.
pub fn endpoint(text: &str, insecure: bool) -> Result<String, LocationError> {
    let endpoint = text.trim_end_matches('/');
    let authority = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")).unwrap_or_default();
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return Err(invalid(format!("{endpoint:?} is not an endpoint such as https://minio.storage.svc:9000")));
    }
    if endpoint.starts_with("http://") && !insecure {
        return Err(LocationError {
            reason: Reason::InsecureEndpoint,
            message: format!(
                "{endpoint} is not encrypted; use an https:// endpoint, or set storage.s3.insecure: true if the network in between is trusted"
            ),
        });
    }
    Ok(endpoint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split() {
        let place = |endpoint: Option<&str>, region, scheme| Location::S3 {
            bucket: "b",
            path: "p/q",
            endpoint: endpoint.map(str::to_owned),
            region,
            scheme,
        };
        for (text, expected) in [
            ("s3://b/p/q", place(None, None, None)),
            ("s3://b/p/q?region=eu&&", place(None, Some("eu"), None)),
            ("s3://b/p/q?endpoint_override=m:9000", place(Some("https://m:9000"), None, None)),
            ("s3://b/p/q?endpoint_override=m:9000&scheme=http", place(Some("http://m:9000"), None, Some("http"))),
            ("pvc://c/p", Location::Claim { claim: "c", path: "p" }),
            ("pvc://", Location::Claim { claim: "", path: "" }),
            ("a/b", Location::Within("a/b")),
            ("1://x", Location::Within("1://x")),
        ] {
            assert_eq!(Location::parse(text), Ok(expected), "{text}");
        }
        for (text, word) in
            [("gs://b", "gs://"), ("s3://u@b", "user name"), ("s3://b?x=1", "x=1"), ("pvc://c?x", "no query")]
        {
            assert!(Location::parse(text).unwrap_err().message.contains(word), "{text}");
        }
    }

    #[test]
    fn parts_are_checked() {
        assert_eq!(folder("a/b/").as_deref(), Ok("a/b"));
        assert!(
            folder("a/../b").is_err() && folder("/a").is_err() && folder("a//b").is_err() && folder("a\n").is_err()
        );
        assert!(bucket("a/b").is_err() && bucket("").is_err() && claim("a b").is_err() && claim("a").is_ok());
        assert_eq!(endpoint("https://m:9000//", false).as_deref(), Ok("https://m:9000"));
        assert_eq!(endpoint("http://m", false).unwrap_err().reason, Reason::InsecureEndpoint);
        assert!(endpoint("http://m", true).is_ok() && endpoint("https://u@m", false).is_err());
    }
}
