//! Containers of Azure Blob Storage, and of Data Lake Storage through the same service. Does I/O.
//!
//! <https://learn.microsoft.com/en-us/rest/api/storageservices/list-blobs>; `ETags` tell versions of a blob apart, and a blob has
//! an MD5 when its uploader left one.

mod answers;
mod credentials;
mod listing;
#[cfg(test)]
mod tests;

use std::ops::Range;

use futures::{FutureExt, future::BoxFuture};
use object_store::{
    azure::AzureAuthorizer,
    client::{HttpClient, HttpRequest},
};
use reqwest::header::{ETAG, HeaderName, HeaderValue, IF_MATCH};
use url::Url;

use crate::contract::AzureTask;

use self::{answers::Container, credentials::Reader};
use super::{
    Entry, Listing, Mounts, Retry, StorageError,
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

/// Largest page of a listing, in bytes: 1,000 names of 1 KiB and what is told of each, escaped.
const PAGE_LIMIT: usize = 32 << 20;
/// The version of the protocol, which tells how signatures are made.
const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");

/// A checkpoint below a prefix of a container.
pub struct Azure {
    client: HttpClient,
    /// Address of the container.
    url: Url,
    path: String,
    uri: String,
    container: Container,
    reader: Reader,
}

impl Azure {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When endpoint, certificates or credentials cannot be used.
    pub fn open(task: &AzureTask, mounts: &Mounts) -> Result<Remote<Self>, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`Azure::open`] with another patience.
    ///
    /// # Errors
    /// As [`Azure::open`].
    pub fn open_with(
        task: &AzureTask,
        mounts: &Mounts,
        retry: Retry,
        timeouts: Timeouts,
    ) -> Result<Remote<Self>, StorageError> {
        let connection = &task.connection;
        let path = paths::below(&task.path)?;
        let own = format!("https://{}.blob.core.windows.net", task.account);
        let Endpoint { url: server, host } =
            endpoint::parse(connection.endpoint.as_deref().unwrap_or(&own), connection.insecure, "storage.azure")?;
        let authorities = authorities(connection.ca.as_deref(), "storage.azure.caBundle", mounts)?;
        let connector = Connector { authorities, timeouts, manners: &answers::MANNERS, link_local: false };
        let place = Place {
            host,
            field: "storage.azure",
            named_by: if connection.endpoint.is_some() { "storage.azure.endpoint" } else { "storage.azure.account" },
            has_ca: connection.ca.is_some(),
            manners: &answers::MANNERS,
        };
        let container = Container {
            place,
            account: task.account.clone(),
            name: task.container.clone(),
            access: connection.access.clone(),
        };
        let client = connector.client(server.scheme() == "http");
        let client = client.map_err(|error| container.explain(&error, Asked::Listing))?;
        let reader = Reader::open(task, mounts, &connector, &server)?;
        Ok(Remote::new(
            Self { client, url: container_url(server, task)?, path, uri: task.uri(), container, reader },
            retry,
        ))
    }

    /// A signed request.
    fn request(url: &Url, range: Option<&Entry>) -> Result<HttpRequest, StorageError> {
        let mut request = request::get(url)?;
        request.headers_mut().insert(HeaderName::from_static("x-ms-version"), VERSION);
        if let Some(entry) = range.filter(|entry| !entry.version.is_empty()) {
            let tag = HeaderValue::from_str(&entry.version);
            request.headers_mut().insert(IF_MATCH, tag.map_err(|_| StorageError::changed(&entry.path))?);
        }
        Ok(request)
    }

    async fn sign(&self, request: &mut HttpRequest, asked: Asked<'_>) -> Result<(), StorageError> {
        let credential = self.reader.credential().await.map_err(|error| self.container.explain_token(&error))?;
        if let Some(credential) = credential {
            let authorizer = AzureAuthorizer::new(&credential, &self.container.account);
            authorizer.try_authorize(request).map_err(|error| self.container.explain(&error, asked))?;
        }
        Ok(())
    }

    async fn blobs(
        &self,
        prefix: &str,
        marker: Option<&str>,
        most: Option<u32>,
    ) -> Result<listing::Page, StorageError> {
        let mut url = self.url.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("restype", "container").append_pair("comp", "list");
            query.append_pair("maxresults", &most.unwrap_or(1000).to_string());
            if !prefix.is_empty() {
                query.append_pair("prefix", prefix);
            }
            if let Some(marker) = marker {
                query.append_pair("marker", marker);
            }
        }
        let mut request = Self::request(&url, None)?;
        self.sign(&mut request, Asked::Listing).await?;
        let explain = |error: &(dyn std::error::Error + 'static)| self.container.explain(error, Asked::Listing);
        let (headers, body) = request::fetch(&self.client, request, PAGE_LIMIT, explain).await?;
        listing::Page::parse(&body)
            .ok_or_else(|| self.container.place.not_asked_for(&headers, &body, "a listing of a container"))
    }

    async fn range(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let mut url = self.url.clone();
        let segments = self.path.split('/').filter(|segment| !segment.is_empty()).chain(entry.path.split('/'));
        url.path_segments_mut()
            .map_err(|()| StorageError::InvalidSpec("storage.azure.endpoint cannot be used".into()))?
            .extend(segments);
        let mut request = Self::request(&url, Some(entry))?;
        // The range is signed, so it stands there before.
        request::set_range(&mut request, &range)?;
        self.sign(&mut request, Asked::File(&entry.path)).await?;
        let (container, path) = (self.container.clone(), entry.path.clone());
        let explain = move |error: &(dyn std::error::Error + 'static)| container.explain(error, Asked::File(&path));
        let (headers, body) = request::ranged(&self.client, request, (&entry.path, entry.size), range, explain).await?;
        let tag = headers.get(ETAG).and_then(|value| value.to_str().ok());
        let same = |tag: &str| tag.trim_matches('"') == entry.version.trim_matches('"');
        if tag.is_some_and(|tag| !entry.version.is_empty() && !same(tag)) {
            return Err(StorageError::changed(&entry.path));
        }
        Ok(body)
    }
}

fn objects(blobs: listing::Blobs) -> Result<Vec<Object>, StorageError> {
    let unusable = |name| StorageError::InvalidPath(format!("the name {name:?} of a blob is no text: rename it"));
    blobs.blob.into_iter().map(|blob| blob.object().map_err(unusable)).collect()
}

/// Emulators have the account in their paths, the service has it in its name.
fn container_url(mut server: Url, task: &AzureTask) -> Result<Url, StorageError> {
    let named = server.host_str().is_some_and(|host| host.split('.').next() == Some(task.account.as_str()));
    let account = (!named).then_some(task.account.as_str());
    server
        .path_segments_mut()
        .map_err(|()| StorageError::InvalidSpec("storage.azure.endpoint cannot be used".into()))?
        .pop_if_empty()
        .extend(account)
        .push(&task.container);
    Ok(server)
}

impl Paged for Azure {
    fn path(&self) -> &str {
        &self.path
    }

    fn words(&self) -> (String, &'static str) {
        (format!("container {}", self.container.name), "blob")
    }

    fn page<'a>(
        &'a self,
        prefix: &'a str,
        token: Option<&'a str>,
        most: Option<u32>,
    ) -> BoxFuture<'a, Result<Page, StorageError>> {
        async move {
            let page = self.blobs(prefix, token, most).await?;
            Ok(Page { objects: objects(page.blobs)?, next: page.next_marker.filter(|next| !next.is_empty()) })
        }
        .boxed()
    }
}

impl Dialect for Azure {
    fn uri(&self) -> String {
        self.uri.clone()
    }

    fn host(&self) -> &str {
        &self.container.place.host
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
