//! Requests that backends make themselves, and checks that an answer is what was asked for. Does I/O.

use std::{error::Error, ops::Range};

use futures::{StreamExt, TryStreamExt};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, RANGE};
use url::Url;

use super::{super::StorageError, Body};

/// A GET request without a body. Compressed answers are refused: ranges count stored bytes.
///
/// # Errors
/// When the address cannot be requested.
pub(in crate::storage) fn get(url: &Url) -> Result<HttpRequest, StorageError> {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    let address = url.as_str().parse();
    *request.uri_mut() =
        address.map_err(|_| StorageError::InvalidSpec("no request can be made of the address".into()))?;
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(request)
}

/// Adds a header whose value is a secret: it is not shown in debugging output.
///
/// # Errors
/// When the value cannot be a header's.
pub(in crate::storage) fn secret_header(
    request: &mut HttpRequest,
    name: HeaderName,
    value: &str,
) -> Result<(), StorageError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| StorageError::AccessDenied("a credential has characters that a request cannot carry".into()))?;
    value.set_sensitive(true);
    request.headers_mut().insert(name, value);
    Ok(())
}

/// The headers and the whole body of an answer, which is not longer than `limit` bytes.
///
/// # Errors
/// What `explain` makes of it; `Unreachable` when it is longer.
pub(in crate::storage) async fn fetch(
    client: &HttpClient,
    request: HttpRequest,
    limit: usize,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError,
) -> Result<(HeaderMap, Vec<u8>), StorageError> {
    let response = client.execute(request).await.map_err(|error| explain(&error))?;
    whole(response, limit, explain).await
}

/// The headers and the whole body of this answer.
///
/// # Errors
/// As [`fetch`].
pub(in crate::storage) async fn whole(
    response: HttpResponse,
    limit: usize,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError,
) -> Result<(HeaderMap, Vec<u8>), StorageError> {
    let headers = response.headers().clone();
    let mut stream = response.into_body().bytes_stream();
    let mut body = Vec::new();
    while let Some(piece) = stream.next().await {
        body.extend_from_slice(&piece.map_err(|error| explain(&error))?);
        if body.len() > limit {
            return Err(StorageError::Unreachable(format!("an answer is longer than {limit} bytes")));
        }
    }
    Ok((headers, body))
}

/// Which part of which whole an answer holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::storage) struct Part {
    /// Its bytes.
    pub range: Range<u64>,
    /// The size of the whole file; none when the server does not say.
    pub size: Option<u64>,
}

/// Reads `bytes 0-9/10`.
pub(in crate::storage) fn content_range(headers: &HeaderMap) -> Option<Part> {
    let (range, size) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    Some(Part { range: first..last.checked_add(1)?, size: size.trim().parse().ok() })
}

/// Asks for a range.
///
/// # Errors
/// None that can be met: numbers can be headers.
pub(in crate::storage) fn set_range(request: &mut HttpRequest, range: &Range<u64>) -> Result<(), StorageError> {
    let wanted = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
    let wanted = HeaderValue::from_str(&wanted);
    request
        .headers_mut()
        .insert(RANGE, wanted.map_err(|_| StorageError::InvalidSpec("no range can be asked for".into()))?);
    Ok(())
}

/// Whether the request asks for stored bytes, compressed or not: it gets them under the name of their compression.
fn asks_for_stored(request: &HttpRequest) -> bool {
    request.headers().get(ACCEPT_ENCODING).is_some_and(|value| value == "gzip")
}

/// Asks for a range of a file of this size, and gives its bytes when the answer is exactly that.
///
/// # Errors
/// What `explain` makes of a refusal; `Changed` when the file has another size by now.
pub(in crate::storage) async fn ranged(
    client: &HttpClient,
    mut request: HttpRequest,
    file: (&str, u64),
    range: Range<u64>,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError + Send + 'static,
) -> Result<(HeaderMap, Body), StorageError> {
    set_range(&mut request, &range)?;
    let stored = asks_for_stored(&request);
    let response = client.execute(request).await.map_err(|error| explain(&error))?;
    part(response, stored, file, &range, explain)
}

/// The bytes of an answer to a request for a range, when it is exactly that.
///
/// # Errors
/// `Changed` when the file has another size by now, `Unreachable` when the answer is something else.
pub(in crate::storage) fn part(
    response: HttpResponse,
    stored: bool,
    (path, size): (&str, u64),
    range: &Range<u64>,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError + Send + 'static,
) -> Result<(HeaderMap, Body), StorageError> {
    let headers = response.headers().clone();
    match content_range(&headers) {
        Some(Part { size: Some(whole), .. }) if whole != size => {
            return Err(StorageError::changed(path));
        }
        Some(Part { range: sent, .. }) if sent == *range && (stored || !is_encoded(&headers)) => {}
        _ => {
            return Err(StorageError::Unreachable(format!(
                "the server sent another part of {path} than was asked for"
            )));
        }
    }
    Ok((headers, pieces(response, explain)))
}

/// Whether the body is compressed.
pub(in crate::storage) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|value| value != "identity")
}

/// The body of an answer.
pub(in crate::storage) fn pieces(
    response: HttpResponse,
    explain: impl Fn(&(dyn Error + 'static)) -> StorageError + Send + 'static,
) -> Body {
    response.into_body().bytes_stream().map_err(move |error| explain(&error)).boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read() {
        let part = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(text));
            content_range(&headers)
        };
        assert_eq!(part("bytes 0-9/10"), Some(Part { range: 0..10, size: Some(10) }));
        assert_eq!(part("bytes 5-5/*"), Some(Part { range: 5..6, size: None }));
        for text in ["bytes */10", "items 0-9/10", "bytes 0-18446744073709551615/1", "bytes a-9/10"] {
            assert_eq!(part(text), None, "{text}");
        }
    }
}
