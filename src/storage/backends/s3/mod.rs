//! Buckets of Amazon S3 and of all that speak its protocol. Does I/O.

mod answers;
mod checksums;
mod credentials;
mod objects;

use std::{ops::Range, sync::Arc};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectStore, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer},
    client::{HttpClient, HttpRequest},
    path::Path as Key,
};
use url::Url;

use crate::contract::{Access, S3Task};

use self::{answers::Bucket, credentials::KeyFiles};
use super::{
    Checksum, Entry, Listing, Mounts, Retry, StorageError, Window, listing, paths,
    remote::{
        Body, Dialect, Patience, Remote, authorities,
        client::{self, Connector, Timeouts},
        errors::{Asked, Place},
        pages::{self, Page, Paged},
        request,
    },
};

/// Largest page of a listing: 1,000 keys of 1 KiB, escaped, fit.
const PAGE_LIMIT: usize = 32 << 20;

/// A checkpoint below a prefix of a bucket.
pub struct S3 {
    store: AmazonS3,
    client: HttpClient,
    bucket_url: Url,
    path: String,
    bucket: Bucket,
    secret: Option<Arc<KeyFiles>>,
}

impl S3 {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When endpoint, certificates or credentials cannot be used.
    pub fn open(task: &S3Task, mounts: &Mounts) -> Result<Remote<Self>, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`S3::open`] with another patience.
    ///
    /// # Errors
    /// As [`S3::open`].
    pub fn open_with(
        task: &S3Task,
        mounts: &Mounts,
        retry: Retry,
        timeouts: Timeouts,
    ) -> Result<Remote<Self>, StorageError> {
        let path = paths::below(&task.path)?;
        let bucket_url = bucket_url(task)?;
        let plain = bucket_url.scheme() == "http";
        let authorities = authorities(task.ca.as_deref(), "storage.s3.caBundle", mounts)?;
        let connector = Connector { authorities, timeouts, manners: &answers::MANNERS, link_local: false };
        let options = ClientOptions::new().with_allow_http(plain);
        let retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        // With virtual hosting object_store takes the endpoint as the bucket's own address, whatever it is.
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&task.bucket)
            .with_region(&task.region)
            .with_endpoint(bucket_url.as_str().trim_end_matches('/'))
            .with_virtual_hosted_style_request(true)
            .with_allow_http(plain)
            .with_client_options(options)
            .with_http_connector(connector.clone())
            .with_retry(retries);
        let mut secret = None;
        match &task.access {
            Access::Anonymous => builder = builder.with_skip_signature(true),
            Access::Ambient => builder = credentials::ambient(builder, &mounts.identity, &task.region)?,
            Access::Secret(name) => {
                let files = Arc::new(KeyFiles::new(mounts.credentials.clone(), name.clone()));
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
            host,
            field: "storage.s3",
            named_by: named_by(task),
            has_ca: task.ca.is_some(),
            manners: &answers::MANNERS,
        };
        let bucket =
            Bucket { place, name: task.bucket.clone(), region: task.region.clone(), access: task.access.clone() };
        let client = connector.client(plain).map_err(|error| bucket.explain(&error, Asked::Listing))?;
        let store = builder.build().map_err(|error| bucket.explain(&error, Asked::Listing))?;
        Ok(Remote::new(Self { store, client, bucket_url, path, bucket, secret }, retry))
    }

    /// Signs a request with all the headers that it has, unless everybody may read.
    async fn sign(&self, request: &mut HttpRequest, asked: Asked<'_>) -> Result<(), StorageError> {
        if matches!(self.bucket.access, Access::Anonymous) {
            return Ok(());
        }
        let explain = |error: object_store::Error| self.bucket.explain(&error, asked);
        let credential = self.store.credentials().get_credential().await.map_err(explain)?;
        AwsAuthorizer::new(&credential, "s3", &self.bucket.region).try_authorize(request, None).map_err(explain)
    }

    fn key(&self, entry: &Entry) -> String {
        if self.path.is_empty() { entry.path.clone() } else { format!("{}/{}", self.path, entry.path) }
    }

    /// The body of one request for a page of keys.
    async fn objects(
        &self,
        prefix: &str,
        token: Option<&str>,
        most: Option<u32>,
    ) -> Result<listing::s3::Page, StorageError> {
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
        let mut request = request::get(&url)?;
        self.sign(&mut request, Asked::Listing).await?;
        let explain = |error: &(dyn std::error::Error + 'static)| self.bucket.explain(error, Asked::Listing);
        let (headers, text) = request::fetch(&self.client, request, PAGE_LIMIT, explain).await?;
        listing::s3::Page::parse(&text)
            .ok_or_else(|| self.bucket.place.not_asked_for(&headers, &text, "a listing of a bucket"))
    }

    async fn range(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let asked = Asked::File(&entry.path);
        let full = self.key(entry);
        let key = Key::parse(&full)
            .map_err(|_| StorageError::InvalidPath(format!("the key {full:?} cannot be asked for; rename it")))?;
        let tag = objects::precondition(entry).map(str::to_owned);
        let options = GetOptions { range: Some(GetRange::Bounded(range)), if_match: tag, ..GetOptions::default() };
        let answer = self.store.get_opts(&key, options).await.map_err(|error| self.bucket.explain(&error, asked))?;
        if answer.meta.size != entry.size || !objects::same_tag(answer.meta.e_tag.as_deref(), entry) {
            return Err(StorageError::changed(&entry.path));
        }
        let (bucket, path) = (self.bucket.clone(), entry.path.clone());
        let pieces = answer.into_stream();
        Ok(pieces.map(move |piece| piece.map_err(|error| bucket.explain(&error, Asked::File(&path)))).boxed())
    }
}

impl Paged for S3 {
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
            let page = self.objects(prefix, token, most).await?;
            let next = page.is_truncated.then(|| page.next_continuation_token.unwrap_or_default());
            Ok(Page { objects: page.contents.into_iter().map(Into::into).collect(), next })
        }
        .boxed()
    }
}

impl Dialect for S3 {
    fn uri(&self) -> String {
        let bucket = &self.bucket.name;
        if self.path.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{}", self.path) }
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

    fn begin_whole<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<(Option<Checksum>, Body), StorageError>> {
        self.whole(entry).boxed()
    }

    fn checksums<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<Vec<Window>, StorageError>> {
        self.windows(entry).boxed()
    }

    fn renew(&self) -> Result<bool, StorageError> {
        self.secret.as_ref().map_or(Ok(false), |secret| secret.reload())
    }
}

/// The settings that the server's name is made of.
fn named_by(task: &S3Task) -> &'static str {
    match (&task.endpoint, task.virtual_hosted) {
        (None, _) => "storage.s3.region",
        (Some(_), false) => "storage.s3.endpoint",
        (Some(_), true) => "storage.s3.endpoint and bucket (or set storage.s3.addressing to Path)",
    }
}

/// The address that keys are appended to.
fn bucket_url(task: &S3Task) -> Result<Url, StorageError> {
    let S3Task { bucket, region, endpoint, .. } = task;
    let usable = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if bucket.is_empty() || !usable(bucket) {
        return Err(StorageError::InvalidSpec(format!("storage.s3.bucket: {bucket:?} cannot be the name of a bucket")));
    }
    if !answers::is_region(region) {
        return Err(StorageError::InvalidSpec(format!("storage.s3.region: {region:?} cannot be the name of a region")));
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
    if task.access == Access::Ambient && !(amazon && url.scheme() == "https") {
        return Err(StorageError::AccessDenied(format!(
            "the identity of the service account is only sent to Amazon's own hosts, not to {shown}: \
             set storage.s3.credentials.secretRef, or anonymous: true"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
