//! Requests for an object that `object_store` cannot make: with its checksums, all of it or only what is known of it. Does I/O.

use object_store::client::{HttpRequest, HttpResponse};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method,
    header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH},
};

use super::{
    super::{
        Checksum, Entry, StorageError, Window,
        remote::{
            Body,
            errors::Asked,
            request::{get, is_encoded, pieces, whole},
        },
    },
    S3,
    checksums::{Attributes, Parts, is_composite, mode, of_headers},
};

/// Everything but what AWS leaves as it is in the path that it signs.
const KEY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// Largest page of an object's parts: 1,000 of them.
const PAGE_LIMIT: usize = 1 << 20;
/// Pages of parts: an object has at most 10,000.
const PAGES: usize = 11;

/// The tag that a request is bound to. A weak one never matches in If-Match; answers are compared with it all the same.
pub(super) fn precondition(entry: &Entry) -> Option<&str> {
    Some(entry.version.as_str()).filter(|tag| !tag.is_empty() && !tag.starts_with("W/"))
}

/// Whether an answer with this tag is about the file that was listed.
pub(super) fn same_tag(tag: Option<&str>, entry: &Entry) -> bool {
    tag.is_none_or(|tag| entry.version.is_empty() || tag.trim_matches('"') == entry.version.trim_matches('"'))
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl S3 {
    /// A request for the object, signed. Headers that begin with `x-amz-` must be there before that.
    async fn object(
        &self,
        entry: &Entry,
        method: Method,
        query: Option<&str>,
        headers: &[(HeaderName, String)],
    ) -> Result<HttpResponse, StorageError> {
        let mut url = self.bucket_url.clone();
        let folder = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{folder}/{}", utf8_percent_encode(&self.key(entry), KEY)));
        url.set_query(query);
        let mut request: HttpRequest = get(&url)?;
        *request.method_mut() = method;
        let unusable = || StorageError::InvalidSpec(format!("no request can be made for {}", entry.path));
        let tag = precondition(entry).map(|tag| (IF_MATCH, tag.to_owned()));
        for (name, value) in headers.iter().cloned().chain(tag) {
            request.headers_mut().insert(name, HeaderValue::from_str(&value).map_err(|_| unusable())?);
        }
        let asked = Asked::File(&entry.path);
        self.sign(&mut request, asked).await?;
        self.client.execute(request).await.map_err(|error| self.bucket.explain(&error, asked))
    }

    /// Begins to read all of an object, and what the answer says that it sums up to.
    pub(super) async fn whole(&self, entry: &Entry) -> Result<(Option<Checksum>, Body), StorageError> {
        let response = self.object(entry, Method::GET, None, &[mode()]).await?;
        let headers = response.headers();
        let length = header(headers, &CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length != entry.size) || !same_tag(header(headers, &ETAG), entry) {
            return Err(StorageError::changed(&entry.path));
        }
        if is_encoded(headers) {
            let host = &self.bucket.place.host;
            return Err(StorageError::Unreachable(format!("{host} sent {} compressed", entry.path)));
        }
        let checksum = of_headers(headers);
        let (bucket, path) = (self.bucket.clone(), entry.path.clone());
        let body = pieces(response, move |error| bucket.explain(error, Asked::File(&path)));
        Ok((checksum, body))
    }

    /// What the bucket says that an object sums up to, as a whole or in the parts that it was uploaded in.
    pub(super) async fn windows(&self, entry: &Entry) -> Result<Vec<Window>, StorageError> {
        let response = self.object(entry, Method::HEAD, None, &[mode()]).await?;
        let headers = response.headers();
        if !same_tag(header(headers, &ETAG), entry) {
            return Err(StorageError::changed(&entry.path));
        }
        if let Some(checksum) = of_headers(headers) {
            return Ok(Window::of(Some(checksum), entry.size));
        }
        if !is_composite(headers) {
            return Ok(Vec::new());
        }
        self.parts(entry).await
    }

    async fn parts(&self, entry: &Entry) -> Result<Vec<Window>, StorageError> {
        let mut parts = Parts::default();
        let mut marker = None;
        for _ in 0..PAGES {
            let headers = Attributes::request(marker);
            let response = self.object(entry, Method::GET, Some("attributes"), &headers).await?;
            let explain =
                |error: &(dyn std::error::Error + 'static)| self.bucket.explain(error, Asked::File(&entry.path));
            let (_, body) = whole(response, PAGE_LIMIT, explain).await?;
            let Some(page) = Attributes::parse(&body) else { return Ok(Vec::new()) };
            match page.next() {
                next @ Some(_) if next > marker => marker = next,
                _ => {
                    parts.add(page);
                    return Ok(parts.windows(entry.size));
                }
            }
            parts.add(page);
        }
        Ok(Vec::new())
    }
}
