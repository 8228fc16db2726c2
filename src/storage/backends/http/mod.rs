//! Files of a web server: one, a list, or those that a manifest names. Does I/O.
//!
//! A web server cannot be asked what there is, so the user says. Servers without ranges still work: their files are read from the
//! beginning, in sequence; one byte is asked for when files are listed, to know which kind it is.

mod answers;
mod manifest;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use object_store::client::{HttpClient, HttpRequest};
use reqwest::{
    Method,
    header::{AUTHORIZATION, CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, LAST_MODIFIED},
};
use url::Url;

use crate::contract::{
    Access, HttpTask,
    environment::{ALLOWED_HOSTS, HTTP_KEYS},
};

use self::{answers::Site, manifest::Named};
use super::{
    Entry, Listing, Mounts, Retry, StorageError,
    listing::{Gathering, Object},
    remote::{
        Body, Dialect, Patience, Remote, authorities,
        client::{Connector, Timeouts},
        endpoint::{self, Endpoint},
        errors::{self, Asked, Place},
        hosts::may_have_bearer,
        redirect, request,
        secret::{SecretFiles, word},
    },
};

/// Largest manifest, in bytes.
const MANIFEST_LIMIT: usize = 16 << 20;
/// Files that are asked for their sizes at once.
const AT_ONCE: usize = 16;

/// Files below an address.
pub struct Http {
    client: HttpClient,
    url: Url,
    site: Site,
    secret: Option<SecretFiles>,
    /// Whether it sends everything when it is asked for a range.
    in_sequence: AtomicBool,
}

impl Http {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When address, certificates or credentials cannot be used.
    pub fn open(task: &HttpTask, mounts: &Mounts) -> Result<Remote<Self>, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`Http::open`] with another patience.
    ///
    /// # Errors
    /// As [`Http::open`].
    pub fn open_with(
        task: &HttpTask,
        mounts: &Mounts,
        retry: Retry,
        timeouts: Timeouts,
    ) -> Result<Remote<Self>, StorageError> {
        let connection = &task.connection;
        let Endpoint { url, host } = endpoint::parse(&task.url, connection.insecure, "storage.http")?;
        let authorities = authorities(connection.ca.as_deref(), "storage.http.caBundle", mounts)?;
        let connector = Connector { authorities, timeouts, manners: &answers::MANNERS, link_local: false };
        let place = Place {
            host,
            field: "storage.http",
            named_by: "storage.http.url",
            has_ca: connection.ca.is_some(),
            manners: &answers::MANNERS,
        };
        let site = Site { place, task: task.clone() };
        let client = connector.client(connection.insecure).map_err(|error| site.explain(&error, Asked::Listing))?;
        let secret = match &connection.access {
            Access::Secret(name) => Some(SecretFiles::new(mounts.credentials.clone(), name.clone(), &HTTP_KEYS)),
            Access::Anonymous | Access::Ambient => None,
        };
        let http = Self { client, url, site, secret, in_sequence: AtomicBool::new(false) };
        http.authorization()?;
        Ok(Remote::new(http, retry))
    }

    /// The header that says who reads, if the server may have it.
    fn authorization(&self) -> Result<Option<String>, StorageError> {
        let Some(files) = &self.secret else { return Ok(None) };
        let keys = files.current()?;
        if !may_have_bearer(&self.url, &[], keys.get(ALLOWED_HOSTS).map(String::as_str)) {
            return Err(StorageError::AccessDenied(format!(
                "credentials are only sent to hosts that the Secret itself lists: list {} in the key {ALLOWED_HOSTS} of Secret {}",
                self.site.place.host,
                files.secret()
            )));
        }
        let [token, user, password, _] = HTTP_KEYS;
        if let Some(token) = word(files, &keys, token)? {
            return Ok(Some(format!("Bearer {token}")));
        }
        let (name, secret) = (keys.get(user), keys.get(password));
        let name = name.ok_or_else(|| files.missing("token, nor username"))?;
        let secret = secret.ok_or_else(|| files.missing(password))?;
        if name.contains(':') {
            return Err(StorageError::AccessDenied(format!(
                "key {user} of Secret {} has a colon, which no user name can have",
                files.secret()
            )));
        }
        Ok(Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{secret}")))))
    }

    fn request(&self, url: &Url) -> Result<HttpRequest, StorageError> {
        let mut request = request::get(url)?;
        if let Some(value) = self.authorization()? {
            request::secret_header(&mut request, AUTHORIZATION, &value)?;
        }
        Ok(request)
    }

    /// The address of a file below ours; of ours itself when the path is empty.
    fn address(&self, path: &str) -> Result<Url, StorageError> {
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| StorageError::InvalidSpec("storage.http.url cannot be used".into()))?
            .pop_if_empty()
            .extend(path.split('/').filter(|segment| !segment.is_empty()));
        Ok(url)
    }

    /// The address of a listed file.
    fn file_address(&self, path: &str) -> Result<Url, StorageError> {
        self.address(if self.single().is_some() { "" } else { path })
    }

    /// The only file there is, when the user named no others.
    fn single(&self) -> Option<String> {
        let task = &self.site.task;
        if task.manifest.is_some() || !task.files.is_empty() {
            return None;
        }
        let last = task.url.rsplit('/').next().filter(|name| !name.is_empty() && !name.contains(':'));
        Some(last.unwrap_or("index").to_owned())
    }

    async fn list_all(&self, patience: Patience<'_>) -> Result<Listing, StorageError> {
        let task = &self.site.task;
        let named = if let Some(name) = self.single() {
            vec![Named { path: name, checksum: None }]
        } else if let Some(manifest) = &task.manifest {
            let url = self.address(manifest)?;
            let body = patience.with(|| self.text(&url, manifest)).await;
            let body = body.map_err(|error| self.site.absent(error, manifest))?;
            manifest::read(manifest, &body)?
        } else {
            task.files.iter().map(|path| Named { path: path.clone(), checksum: None }).collect()
        };
        let sizes = stream::iter(named).map(|named| self.object(patience, named)).buffer_unordered(AT_ONCE);
        let objects: Vec<Object> = sizes.try_collect().await?;
        if let Some(largest) = objects.iter().max_by_key(|object| object.size).filter(|object| object.size > 1) {
            let all = patience.with(|| self.sends_all(&largest.key)).await?;
            self.in_sequence.store(all, Ordering::Relaxed);
        }
        let mut gathering = Gathering::new(self.uri(), "");
        gathering.add(objects)?;
        gathering.finish()?.ok_or_else(|| StorageError::NotFound(format!("{} names no file", self.uri())))
    }

    /// Whether the server answers a request for one byte with the whole file.
    async fn sends_all(&self, path: &str) -> Result<bool, StorageError> {
        let url = self.file_address(path)?;
        let explain = |error: &(dyn std::error::Error + 'static)| self.site.explain(error, Asked::File(path));
        let mut request = self.request(&url)?;
        request::set_range(&mut request, &(0..1))?;
        match redirect::execute(&self.client, &url, request, self.insecure(), explain).await {
            Ok(_) => Ok(false),
            Err(StorageError::Unreachable(text)) if text == answers::NO_RANGES => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn text(&self, url: &Url, path: &str) -> Result<Vec<u8>, StorageError> {
        let explain = |error: &(dyn std::error::Error + 'static)| self.site.explain(error, Asked::File(path));
        let request = self.request(url)?;
        let response = redirect::execute(&self.client, url, request, self.insecure(), explain).await?;
        Ok(request::whole(response, MANIFEST_LIMIT, explain).await?.1)
    }

    /// Size and version of a file.
    async fn object(&self, patience: Patience<'_>, named: Named) -> Result<Object, StorageError> {
        let url = self.file_address(&named.path)?;
        let headers = patience.with(|| self.head(&url, &named.path)).await;
        let headers = headers.map_err(|error| self.site.absent(error, &named.path))?;
        let size = match request::content_range(&headers) {
            Some(part) => part.size,
            None => text(&headers, &CONTENT_LENGTH).and_then(|size| size.parse().ok()),
        };
        let size = size.filter(|_| !request::is_encoded(&headers)).ok_or_else(|| {
            StorageError::InvalidSpec(format!("{} does not say how long {} is", self.site.place.host, named.path))
        })?;
        if errors::is_page(&headers, b"") && size > 0 && self.is_login(patience, &url, &named.path).await? {
            return Err(StorageError::InvalidSpec(format!(
                "{} answers with a web page when it is asked for {}: check url and path of storage.http, and whether it wants a login \
                 (storage.http.credentials.secretRef)",
                self.site.place.host, named.path
            )));
        }
        let version = version(&headers).unwrap_or_default().to_owned();
        Ok(Object { key: named.path, size, version, checksum: named.checksum, content: None })
    }

    /// Whether a file that is said to be a page is one, and not by its name. Some servers say so of every file.
    async fn is_login(&self, patience: Patience<'_>, url: &Url, path: &str) -> Result<bool, StorageError> {
        let page = |kind: &&str| path.to_ascii_lowercase().ends_with(kind);
        if [".html", ".htm", ".xhtml"].iter().any(page) {
            return Ok(false);
        }
        Ok(errors::is_html(&patience.with(|| self.beginning(url, path)).await?))
    }

    /// The first piece of a file, however long. What follows is not waited for.
    async fn beginning(&self, url: &Url, path: &str) -> Result<Bytes, StorageError> {
        let (site, asked) = (self.site.clone(), path.to_owned());
        let explain = move |error: &(dyn std::error::Error + 'static)| site.explain(error, Asked::File(&asked));
        let response = redirect::execute(&self.client, url, self.request(url)?, self.insecure(), &explain).await?;
        request::pieces(response, explain).next().await.unwrap_or_else(|| Ok(Bytes::new()))
    }

    /// The headers of a file. Servers that know no HEAD are asked for one byte.
    async fn head(&self, url: &Url, path: &str) -> Result<HeaderMap, StorageError> {
        let explain = |error: &(dyn std::error::Error + 'static)| self.site.explain(error, Asked::File(path));
        let mut request = self.request(url)?;
        *request.method_mut() = Method::HEAD;
        let refused = match redirect::execute(&self.client, url, request, self.insecure(), explain).await {
            Ok(response) if response.headers().contains_key(CONTENT_LENGTH) => return Ok(response.headers().clone()),
            Ok(_) => StorageError::InvalidSpec(format!("{} does not say how long {path} is", self.site.place.host)),
            Err(error @ (StorageError::InvalidSpec(_) | StorageError::AccessDenied(_))) => error,
            Err(error) => return Err(error),
        };
        let mut request = self.request(url)?;
        request::set_range(&mut request, &(0..1))?;
        let response = redirect::execute(&self.client, url, request, self.insecure(), explain).await;
        // What was said first is nearer to the cause.
        response.map(|response| response.headers().clone()).map_err(|_| refused)
    }

    fn insecure(&self) -> bool {
        self.site.task.connection.insecure
    }

    async fn range(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let url = self.file_address(&entry.path)?;
        let (site, path) = (self.site.clone(), entry.path.clone());
        let explain = move |error: &(dyn std::error::Error + 'static)| site.explain(error, Asked::File(&path));
        let mut request = self.request(&url)?;
        let whole = range == (0..entry.size) || self.in_sequence.load(Ordering::Relaxed);
        if !whole {
            request::set_range(&mut request, &range)?;
        }
        let answer = redirect::execute(&self.client, &url, request, self.insecure(), &explain).await;
        let (response, ranges) = match answer {
            Ok(response) => (response, !whole),
            // It sends everything whatever it is asked for: what comes before is thrown away.
            Err(StorageError::Unreachable(text)) if text == answers::NO_RANGES => {
                let request = self.request(&url)?;
                (redirect::execute(&self.client, &url, request, self.insecure(), &explain).await?, false)
            }
            Err(error) => return Err(error),
        };
        check_version(entry, response.headers())?;
        if ranges {
            return Ok(request::part(response, false, (&entry.path, entry.size), &range, explain)?.1);
        }
        let length = text(response.headers(), &CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        if length.is_some_and(|length| length != entry.size) || request::is_encoded(response.headers()) {
            return Err(StorageError::changed(&entry.path));
        }
        Ok(within(request::pieces(response, explain), range))
    }
}

/// The part of a whole body.
fn within(body: Body, range: Range<u64>) -> Body {
    let cut = move |at: &mut u64, piece: Result<Bytes, StorageError>| {
        let result = piece.map(|bytes| {
            let (begin, end) = (*at, *at + bytes.len() as u64);
            *at = end;
            let index = |offset: u64| usize::try_from(offset.clamp(begin, end) - begin).unwrap_or(bytes.len());
            bytes.slice(index(range.start)..index(range.end))
        });
        let over = *at >= range.end && result.as_ref().is_ok_and(Bytes::is_empty);
        futures::future::ready((!over).then_some(result))
    };
    body.scan(0, cut).boxed()
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// What tells versions apart: the tag, or the date where there is none.
fn version(headers: &HeaderMap) -> Option<&str> {
    text(headers, &ETAG).or_else(|| text(headers, &LAST_MODIFIED))
}

/// Compares like with like: tags have quotes, and dates none.
fn check_version(entry: &Entry, headers: &HeaderMap) -> Result<(), StorageError> {
    let name = if entry.version.contains('"') { ETAG } else { LAST_MODIFIED };
    match text(headers, &name) {
        Some(version) if !entry.version.is_empty() && version != entry.version => {
            Err(StorageError::changed(&entry.path))
        }
        _ => Ok(()),
    }
}

impl Dialect for Http {
    fn uri(&self) -> String {
        self.site.task.url.clone()
    }

    fn host(&self) -> &str {
        &self.site.place.host
    }

    fn list<'a>(&'a self, patience: Patience<'a>) -> BoxFuture<'a, Result<Listing, StorageError>> {
        self.list_all(patience).boxed()
    }

    fn begin<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxFuture<'a, Result<Body, StorageError>> {
        self.range(entry, range).boxed()
    }

    fn in_sequence(&self) -> bool {
        self.in_sequence.load(Ordering::Relaxed)
    }

    fn renew(&self) -> Result<bool, StorageError> {
        self.secret.as_ref().map_or(Ok(false), SecretFiles::reload)
    }
}
