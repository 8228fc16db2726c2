//! Buckets of Amazon S3 and of all that speak its protocol. Does I/O.

mod client;
mod credentials;
mod errors;

pub use client::Timeouts;

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer},
    client::{HttpClient, HttpConnector, HttpRequest, HttpRequestBody},
    path::Path as Key,
};
use url::Url;

use crate::contract::{S3Access, S3Task};

use self::{
    client::Connector,
    credentials::SecretFiles,
    errors::{Asked, Place},
};
use super::{
    Class, Entry, Listing, Mounts, Retry, Storage, StorageError,
    listing::{Gathering, Page},
    paths,
};

/// Largest page of a listing: 1,000 keys of 1 KiB, escaped, fit.
const PAGE_LIMIT: usize = 32 << 20;

/// A checkpoint below a prefix of a bucket.
pub struct S3 {
    store: AmazonS3,
    client: HttpClient,
    bucket_url: Url,
    path: String,
    place: Place,
    secret: Option<Arc<SecretFiles>>,
    retry: Retry,
}

impl S3 {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When endpoint, certificates or credentials cannot be used.
    pub fn open(task: &S3Task, mounts: &Mounts) -> Result<Self, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`S3::open`] with another patience.
    ///
    /// # Errors
    /// As [`S3::open`].
    pub fn open_with(task: &S3Task, mounts: &Mounts, retry: Retry, timeouts: Timeouts) -> Result<Self, StorageError> {
        let path = task.path.trim_matches('/').to_owned();
        if !path.is_empty() {
            paths::check(&path)
                .map_err(|problem| StorageError::InvalidPath(format!("path {path:?} cannot be used: {problem}")))?;
        }
        let bucket_url = bucket_url(task)?;
        let plain = bucket_url.scheme() == "http";
        let connector = Connector { authorities: authorities(task, mounts)?, timeouts };
        let options = ClientOptions::new().with_allow_http(plain);
        let retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        // With virtual hosting object_store takes the endpoint as the bucket's own address, whatever it is.
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&task.bucket)
            .with_region(&task.region)
            .with_endpoint(bucket_url.as_str().trim_end_matches('/'))
            .with_virtual_hosted_style_request(true)
            .with_allow_http(plain)
            .with_client_options(options.clone())
            .with_http_connector(connector.clone())
            .with_retry(retries);
        let mut secret = None;
        match &task.access {
            S3Access::Anonymous => builder = builder.with_skip_signature(true),
            S3Access::Ambient => builder = credentials::ambient(builder, &mounts.identity, &task.region)?,
            S3Access::Secret(name) => {
                let files = Arc::new(SecretFiles::new(mounts.credentials.clone(), name.clone()));
                files.current()?;
                builder = builder.with_credentials(Arc::clone(&files) as _);
                secret = Some(files);
            }
        }
        let host = format!(
            "{}:{}",
            bucket_url.host_str().unwrap_or_default(),
            bucket_url.port_or_known_default().unwrap_or_default()
        );
        let place = Place {
            bucket: task.bucket.clone(),
            host,
            region: task.region.clone(),
            access: task.access.clone(),
            has_ca: task.ca.is_some(),
        };
        let explain = |error| place.explain(&error, Asked::Listing);
        let client = connector.connect(&options).map_err(explain)?;
        let store = builder.build().map_err(explain)?;
        Ok(Self { store, client, bucket_url, path, place, secret, retry })
    }

    /// The body of one request for a page of keys.
    async fn page(&self, prefix: &str, token: Option<&str>, most: Option<u32>) -> Result<Page, StorageError> {
        let mut url = self.bucket_url.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(token) = token {
                query.append_pair("continuation-token", token);
            }
            query.append_pair("list-type", "2");
            if let Some(most) = most {
                query.append_pair("max-keys", &most.to_string());
            }
            if !prefix.is_empty() {
                query.append_pair("prefix", prefix);
            }
        }
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.as_str().parse().map_err(|_| {
            StorageError::InvalidSpec(format!("no request can be made for bucket {}", self.place.bucket))
        })?;
        let explain = |error: object_store::Error| self.place.explain(&error, Asked::Listing);
        if !matches!(self.place.access, S3Access::Anonymous) {
            let credential = self.store.credentials().get_credential().await.map_err(explain)?;
            AwsAuthorizer::new(&credential, "s3", &self.place.region)
                .try_authorize(&mut request, None)
                .map_err(explain)?;
        }
        let explain = |error| self.place.explain(&error, Asked::Listing);
        let mut body = self.client.execute(request).await.map_err(explain)?.into_body().bytes_stream();
        let mut text = Vec::new();
        while let Some(piece) = body.next().await {
            text.extend_from_slice(&piece.map_err(explain)?);
            if text.len() > PAGE_LIMIT {
                break;
            }
        }
        Page::parse(&text).ok_or_else(|| {
            StorageError::Unreachable(format!(
                "{} answered with something that is not a listing of a bucket",
                self.place.host
            ))
        })
    }

    /// Repeats what failed in passing, and once what was refused if the Secret holds other keys by now.
    async fn patient_page(&self, prefix: &str, token: Option<&str>, most: Option<u32>) -> Result<Page, StorageError> {
        let mut patience = Patience::default();
        loop {
            match self.page(prefix, token, most).await {
                Ok(page) => return Ok(page),
                Err(error) => self.wait(&mut patience, error).await?,
            }
        }
    }

    /// Waits before another attempt, or says that there is none.
    async fn wait(&self, patience: &mut Patience, error: StorageError) -> Result<(), StorageError> {
        if matches!(error, StorageError::AccessDenied(_)) {
            let renewed = match &self.secret {
                Some(secret) if !patience.renewed => secret.reload()?,
                _ => false,
            };
            patience.renewed = true;
            return if renewed { Ok(()) } else { Err(error) };
        }
        patience.failures += 1;
        if error.class() == Class::Terminal || patience.failures >= self.retry.attempts {
            return Err(error);
        }
        tracing::debug!(%error, failures = patience.failures, "trying again");
        tokio::time::sleep(self.retry.delay(patience.failures)).await;
        Ok(())
    }

    async fn list_all(&self) -> Result<Listing, StorageError> {
        let mut gathering = Gathering::new(self.uri(), &self.path);
        let mut token: Option<String> = None;
        loop {
            let page = self.patient_page(gathering.prefix(), token.as_deref(), None).await?;
            gathering.add(page.contents)?;
            match page.next_continuation_token {
                Some(next) if page.is_truncated && !next.is_empty() => {
                    if token.as_ref() == Some(&next) {
                        return Err(self.endless());
                    }
                    token = Some(next);
                }
                _ if page.is_truncated => return Err(self.endless()),
                _ => break,
            }
        }
        match gathering.finish()? {
            Some(listing) => Ok(listing),
            None => Err(self.nothing().await?),
        }
    }

    fn endless(&self) -> StorageError {
        StorageError::Unreachable(format!("{} does not say how its listing goes on", self.place.host))
    }

    /// Why there is nothing below the prefix.
    async fn nothing(&self) -> Result<StorageError, StorageError> {
        let bucket = &self.place.bucket;
        if self.path.is_empty() {
            return Ok(StorageError::NotFound(format!("the bucket {bucket} holds nothing")));
        }
        let page = self.patient_page(&self.path, None, Some(1)).await?;
        Ok(if page.contents.iter().any(|object| object.key == self.path) {
            StorageError::InvalidPath(format!("{} is a single object: path must name the folder it is in", self.uri()))
        } else {
            StorageError::NotFound(format!("nothing in bucket {bucket} begins with {}/", self.path))
        })
    }

    /// Begins to read; the answer was checked to be that range of that version.
    async fn begin(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let asked = Asked::File(&entry.path);
        let full = if self.path.is_empty() { entry.path.clone() } else { format!("{}/{}", self.path, entry.path) };
        let key = Key::parse(&full)
            .map_err(|_| StorageError::InvalidPath(format!("the key {full:?} cannot be asked for; rename it")))?;
        // A weak tag never matches in If-Match; the tag of the answer is compared below all the same.
        let tag = Some(&entry.version).filter(|tag| !tag.is_empty() && !tag.starts_with("W/"));
        let options =
            GetOptions { range: Some(GetRange::Bounded(range)), if_match: tag.cloned(), ..GetOptions::default() };
        let answer = self.store.get_opts(&key, options).await.map_err(|error| self.place.explain(&error, asked))?;
        let same_tag = match &answer.meta.e_tag {
            Some(tag) if !entry.version.is_empty() => tag.trim_matches('"') == entry.version.trim_matches('"'),
            _ => true,
        };
        if answer.meta.size != entry.size || !same_tag {
            return Err(StorageError::Changed(format!("{} is no longer the file that was listed", entry.path)));
        }
        Ok(answer.into_stream())
    }
}

type Body = BoxStream<'static, object_store::Result<Bytes>>;

/// How often something failed since it last went on.
#[derive(Debug, Default)]
struct Patience {
    failures: u32,
    renewed: bool,
}

/// A read under way.
struct Reading<'a> {
    storage: &'a S3,
    entry: &'a Entry,
    rest: Range<u64>,
    body: Option<Body>,
    patience: Patience,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Bytes, StorageError> {
        loop {
            match self.attempt().await {
                Ok(bytes) => {
                    self.patience = Patience::default();
                    self.rest.start += bytes.len() as u64;
                    return Ok(bytes);
                }
                Err(error) => {
                    self.body = None;
                    self.storage.wait(&mut self.patience, error).await?;
                }
            }
        }
    }

    /// The next bytes, at least one.
    async fn attempt(&mut self) -> Result<Bytes, StorageError> {
        let (storage, path) = (self.storage, &self.entry.path);
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(storage.begin(self.entry, self.rest.clone()).await?),
        };
        loop {
            let host = &storage.place.host;
            let Some(piece) = body.next().await else {
                return Err(StorageError::Unreachable(format!("{host} ended {path} too early")));
            };
            let bytes = piece.map_err(|error| storage.place.explain(&error, Asked::File(path)))?;
            if bytes.len() as u64 > self.rest.end - self.rest.start {
                return Err(StorageError::Unreachable(format!("{host} sent more of {path} than was asked for")));
            }
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
    }
}

impl Storage for S3 {
    fn uri(&self) -> String {
        let bucket = &self.place.bucket;
        if self.path.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{}", self.path) }
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        self.list_all().boxed()
    }

    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxStream<'a, Result<Bytes, StorageError>> {
        let reading = Reading { storage: self, entry, rest: range, body: None, patience: Patience::default() };
        stream::try_unfold(reading, |mut reading| async move {
            if reading.rest.is_empty() {
                return Ok(None);
            }
            let bytes = reading.next().await?;
            Ok(Some((bytes, reading)))
        })
        .boxed()
    }
}

/// The address that keys are appended to.
fn bucket_url(task: &S3Task) -> Result<Url, StorageError> {
    let S3Task { bucket, region, endpoint, .. } = task;
    let usable = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if bucket.is_empty() || !usable(bucket) {
        return Err(StorageError::InvalidSpec(format!("{bucket:?} cannot be the name of a bucket")));
    }
    if !client::is_region(region) {
        return Err(StorageError::InvalidSpec(format!("{region:?} cannot be the name of a region")));
    }
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let text = endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.{suffix}"));
    let invalid =
        || StorageError::InvalidSpec("storage.s3.endpoint is not an address such as https://host:port".into());
    let mut url = Url::parse(&text).map_err(|_| invalid())?;
    let host = url.host().ok_or_else(invalid)?.to_owned();
    let extra = url.path() != "/" || url.query().is_some() || url.fragment().is_some();
    if extra || !url.username().is_empty() || url.password().is_some() || !["http", "https"].contains(&url.scheme()) {
        return Err(invalid());
    }
    check_endpoint(task, &url, &host)?;
    // The certificate of Amazon's wildcard name does not cover names with dots.
    let dotted = endpoint.is_none() && bucket.contains('.');
    if task.virtual_hosted && !dotted {
        let url::Host::Domain(name) = host else {
            return Err(StorageError::InvalidSpec(
                "addressing VirtualHosted needs an endpoint with a name, not an IP address: use Path".into(),
            ));
        };
        url.set_host(Some(&format!("{bucket}.{name}"))).map_err(|_| invalid())?;
    } else {
        url.set_path(bucket);
    }
    Ok(url)
}

fn check_endpoint(task: &S3Task, url: &Url, host: &url::Host<String>) -> Result<(), StorageError> {
    let shown = url.as_str().trim_end_matches('/');
    if url.scheme() == "http" && !task.insecure {
        return Err(StorageError::Insecure(format!(
            "{shown} is not encrypted: use https, or set storage.s3.insecure to true"
        )));
    }
    let address = match host {
        url::Host::Domain(_) => None,
        url::Host::Ipv4(address) => Some(std::net::IpAddr::from(*address)),
        url::Host::Ipv6(address) => Some(std::net::IpAddr::from(*address)),
    };
    if address.is_some_and(client::is_link_local) {
        return Err(StorageError::InvalidSpec(format!("{shown} is a link-local address, which is not contacted")));
    }
    let name = url.host_str().unwrap_or_default();
    let amazon = [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|suffix| name.ends_with(suffix));
    if task.access == S3Access::Ambient && !(amazon && url.scheme() == "https") {
        return Err(StorageError::AccessDenied(format!(
            "the identity of the service account is only sent to Amazon's own hosts, not to {shown}: \
             set storage.s3.credentials.secretRef, or anonymous: true"
        )));
    }
    Ok(())
}

/// The certificates that are trusted besides the usual ones.
fn authorities(task: &S3Task, mounts: &Mounts) -> Result<Vec<reqwest::Certificate>, StorageError> {
    let Some(place) = &task.ca else { return Ok(Vec::new()) };
    let pem = std::fs::read(&mounts.ca).map_err(|_| {
        StorageError::Tls(format!(
            "the certificates of storage.s3.caBundle are not there: no ConfigMap with the key ({place})"
        ))
    })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(StorageError::Tls(format!("{place} of storage.s3.caBundle holds no PEM certificate"))),
    }
}

#[cfg(test)]
mod tests;
