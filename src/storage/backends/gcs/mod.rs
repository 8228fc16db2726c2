//! Buckets of Google Cloud Storage, by its JSON API. Does I/O.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects>; generations tell versions of an object apart, and every object
//! has a CRC-32C.

mod answers;
mod credentials;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, ops::Range};

use futures::{FutureExt, future::BoxFuture};
use object_store::client::{HttpClient, HttpRequest};
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderValue};
use serde::{Deserialize, Deserializer};
use url::Url;

use crate::contract::GcsTask;

use self::{answers::Bucket, credentials::Reader};
use super::{
    Checksum, Entry, Listing, Mounts, Retry, StorageError,
    listing::Object,
    paths,
    remote::{
        Body, Dialect, Patience, Remote, authorities,
        client::{Connector, Timeouts},
        endpoint::{self, Endpoint},
        errors::{Asked, Place},
        pages::{self, Page, Paged},
        request,
    },
};

/// Google's own server.
const SERVER: &str = "https://storage.googleapis.com";
/// Largest page of a listing, in bytes: 1,000 names of 1 KiB and what is told of each, escaped.
const PAGE_LIMIT: usize = 16 << 20;

/// A checkpoint below a prefix of a bucket.
pub struct Gcs {
    client: HttpClient,
    server: Url,
    path: String,
    uri: String,
    bucket: Bucket,
    reader: Reader,
}

impl Gcs {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When endpoint, certificates or credentials cannot be used.
    pub fn open(task: &GcsTask, mounts: &Mounts) -> Result<Remote<Self>, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`Gcs::open`] with another patience.
    ///
    /// # Errors
    /// As [`Gcs::open`].
    pub fn open_with(
        task: &GcsTask,
        mounts: &Mounts,
        retry: Retry,
        timeouts: Timeouts,
    ) -> Result<Remote<Self>, StorageError> {
        let connection = &task.connection;
        let path = paths::below(&task.path)?;
        let Endpoint { url: server, host } =
            endpoint::parse(connection.endpoint.as_deref().unwrap_or(SERVER), connection.insecure, "storage.gcs")?;
        let authorities = authorities(connection.ca.as_deref(), "storage.gcs.caBundle", mounts)?;
        let connector = Connector { authorities, timeouts, manners: &answers::MANNERS, link_local: false };
        let place = Place {
            host,
            field: "storage.gcs",
            named_by: "storage.gcs.endpoint",
            has_ca: connection.ca.is_some(),
            manners: &answers::MANNERS,
        };
        let bucket = Bucket { place, name: task.bucket.clone(), access: connection.access.clone() };
        let client = connector.client(server.scheme() == "http");
        let client = client.map_err(|error| bucket.explain(&error, Asked::Listing))?;
        let reader = Reader::open(&connection.access, mounts, &connector, &server)?;
        Ok(Remote::new(Self { client, server, path, uri: task.uri(), bucket, reader }, retry))
    }

    /// `/storage/v1/b/BUCKET/o`, and the object below it.
    fn url(&self, object: Option<&str>) -> Result<Url, StorageError> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| StorageError::InvalidSpec("storage.gcs.endpoint cannot be used".into()))?
            .pop_if_empty()
            .extend(["storage", "v1", "b", &self.bucket.name, "o"])
            .extend(object);
        Ok(url)
    }

    async fn request(&self, url: &Url) -> Result<HttpRequest, StorageError> {
        let mut request = request::get(url)?;
        let token = self.reader.token().await.map_err(|error| self.bucket.explain_token(&error))?;
        if let Some(token) = token {
            request::secret_header(&mut request, AUTHORIZATION, &format!("Bearer {token}"))?;
        }
        Ok(request)
    }

    async fn items(&self, prefix: &str, token: Option<&str>, most: Option<u32>) -> Result<Items, StorageError> {
        let mut url = self.url(None)?;
        url.query_pairs_mut()
            .append_pair("fields", "nextPageToken,items(name,size,generation,crc32c,md5Hash)")
            .append_pair("prefix", prefix)
            .append_pair("maxResults", &most.unwrap_or(1000).to_string());
        if let Some(token) = token {
            url.query_pairs_mut().append_pair("pageToken", token);
        }
        let request = self.request(&url).await?;
        let explain = |error: &(dyn std::error::Error + 'static)| self.bucket.explain(error, Asked::Listing);
        let (headers, body) = request::fetch(&self.client, request, PAGE_LIMIT, explain).await?;
        serde_json::from_slice(&body)
            .map_err(|_| self.bucket.place.not_asked_for(&headers, &body, "a listing of a bucket"))
    }

    async fn range(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let object = if self.path.is_empty() { entry.path.clone() } else { format!("{}/{}", self.path, entry.path) };
        let mut url = self.url(Some(&object))?;
        url.query_pairs_mut().append_pair("alt", "media");
        if !entry.version.is_empty() {
            url.query_pairs_mut().append_pair("ifGenerationMatch", &entry.version);
        }
        let mut request = self.request(&url).await?;
        // Objects that are stored compressed would be unpacked otherwise, and have another length then.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let (bucket, path) = (self.bucket.clone(), entry.path.clone());
        let explain = move |error: &(dyn std::error::Error + 'static)| bucket.explain(error, Asked::File(&path));
        let (headers, body) = request::ranged(&self.client, request, (&entry.path, entry.size), range, explain).await?;
        let generation = headers.get("x-goog-generation").and_then(|value| value.to_str().ok());
        if generation.is_some_and(|generation| !entry.version.is_empty() && generation != entry.version) {
            return Err(StorageError::changed(&entry.path));
        }
        Ok(body)
    }
}

impl Paged for Gcs {
    fn path(&self) -> &str {
        &self.path
    }

    fn words(&self) -> (String, &'static str) {
        (format!("bucket {}", self.bucket.name), "object")
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        token: Option<&'a str>,
        most: Option<u32>,
    ) -> BoxFuture<'a, Result<Page, StorageError>> {
        async move {
            let Items { items, next_page_token } = self.items(prefix, token, most).await?;
            let objects = items.into_iter().map(Item::object).collect();
            Ok(Page { objects, next: next_page_token.filter(|next| !next.is_empty()) })
        }
        .boxed()
    }
}

impl Dialect for Gcs {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn host(&self) -> &str {
        &self.bucket.place.host
    }

    fn list<'a>(&'a self, patience: Patience<'a>) -> BoxFuture<'a, Result<Listing, StorageError>> {
        pages::list(self, patience).boxed()
    }

    fn begin<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxFuture<'a, Result<Body, StorageError>> {
        self.range(entry, range).boxed()
    }

    fn renew(&self) -> Result<bool, StorageError> {
        self.reader.renew()
    }
}

/// A page of `objects.list`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Items {
    #[serde(default)]
    items: Vec<Item>,
    #[serde(default)]
    next_page_token: Option<String>,
}

/// An object; numbers come as text.
#[derive(Debug, Deserialize)]
struct Item {
    name: String,
    #[serde(deserialize_with = "number")]
    size: u64,
    #[serde(default)]
    generation: String,
    #[serde(default)]
    crc32c: String,
    /// Objects that were composed of others have none.
    #[serde(default, rename = "md5Hash")]
    md5: String,
}

impl Item {
    fn object(self) -> Object {
        let checksum = Checksum::crc32c_base64(&self.crc32c);
        let content = Checksum::md5_base64(&self.md5);
        Object { key: self.name, size: self.size, version: self.generation, checksum, content }
    }
}

fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = <Cow<'de, str>>::deserialize(deserializer)?;
    text.parse().map_err(|_| serde::de::Error::custom("a size is no number"))
}
