//! Repositories of the Hugging Face Hub, and of servers that speak its protocol. Does I/O.
//!
//! A revision is resolved to its commit first (`/api/models/ID/revision/REVISION`), then the commit's tree is listed page by page
//! (`/api/models/ID/tree/COMMIT/PATH?recursive=true`), and files are read from `/ID/resolve/COMMIT/PATH`, which answers large
//! ones with a redirect to a signed address: <https://huggingface.co/docs/hub/api>. Such an address is kept for a while, because the
//! Hub counts requests and a large file is read in many ranges.

mod answers;
mod credentials;
mod listing;
mod person;
mod signed;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use object_store::client::{HttpClient, HttpRequest};
use reqwest::header::{AUTHORIZATION, HeaderMap, LINK};
use url::Url;

use crate::contract::HuggingFaceTask;

pub use self::person::Person;
use self::{answers::Repository, credentials::Reader, listing::Item, signed::Signed};
use super::{
    Entry, Listing, Mounts, Retry, StorageError,
    listing::Gathering,
    paths,
    remote::{
        Body, Dialect, Patience, Remote, authorities,
        client::{Connector, Timeouts},
        endpoint::{self, Endpoint},
        errors::{Asked, Place},
        redirect, request,
    },
};

/// The Hub itself.
const SERVER: &str = "https://huggingface.co";
/// Largest page of a tree, in bytes.
const PAGE_LIMIT: usize = 16 << 20;

/// A folder of a repository at a revision.
pub struct HuggingFace {
    client: HttpClient,
    server: Url,
    repository: Repository,
    path: String,
    reader: Reader,
    signed: Signed,
    /// The commit that the revision is, once it was asked for.
    commit: Mutex<Option<Arc<str>>>,
}

impl HuggingFace {
    /// Checks the settings and prepares a client. Contacts nobody.
    ///
    /// # Errors
    /// When endpoint, certificates or credentials cannot be used.
    pub fn open(task: &HuggingFaceTask, mounts: &Mounts) -> Result<Remote<Self>, StorageError> {
        Self::open_with(task, mounts, Retry::default(), Timeouts::default())
    }

    /// [`HuggingFace::open`] with another patience.
    ///
    /// # Errors
    /// As [`HuggingFace::open`].
    pub fn open_with(
        task: &HuggingFaceTask,
        mounts: &Mounts,
        retry: Retry,
        timeouts: Timeouts,
    ) -> Result<Remote<Self>, StorageError> {
        let connection = &task.connection;
        let path = paths::below(&task.path)?;
        let field = "storage.huggingFace";
        let (Endpoint { url: server, host }, named_by) = server(task, mounts)?;
        let authorities = authorities(connection.ca.as_deref(), "storage.huggingFace.caBundle", mounts)?;
        let connector = Connector { authorities, timeouts, manners: &answers::MANNERS, link_local: false };
        let place = Place { host, field, named_by, has_ca: connection.ca.is_some(), manners: &answers::MANNERS };
        let (reader, who) = Reader::open(&connection.access, mounts, &server)?;
        let repository = Repository { place, task: task.clone(), page: server.clone(), who };
        let client = connector.client(server.scheme() == "http");
        let client = client.map_err(|error| repository.explain(&error, Asked::Listing))?;
        let (signed, commit) = (Signed::default(), Mutex::default());
        Ok(Remote::new(Self { client, server, repository, path, reader, signed, commit }, retry))
    }

    fn request(&self, url: &Url) -> Result<HttpRequest, StorageError> {
        let mut request = request::get(url)?;
        if let Some(token) = self.reader.token()? {
            request::secret_header(&mut request, AUTHORIZATION, &format!("Bearer {token}"))?;
        }
        Ok(request)
    }

    /// An address below the server.
    fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Result<Url, StorageError> {
        let mut url = self.server.clone();
        url.path_segments_mut()
            .map_err(|()| StorageError::InvalidSpec("storage.huggingFace.endpoint cannot be used".into()))?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    async fn fetch(&self, url: &Url) -> Result<(HeaderMap, Vec<u8>), StorageError> {
        let explain = |error: &(dyn std::error::Error + 'static)| self.repository.explain(error, Asked::Listing);
        // Repositories that were renamed are answered with a redirect.
        let insecure = self.repository.task.connection.insecure;
        let response = redirect::execute(&self.client, url, self.request(url)?, insecure, explain).await?;
        request::whole(response, PAGE_LIMIT, explain).await
    }

    /// The commit that the revision is now; asked once, so that listing and reading see the same files.
    async fn commit(&self, patience: Patience<'_>) -> Result<Arc<str>, StorageError> {
        if let Some(commit) = self.commit.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(commit);
        }
        let id = self.repository.task.repository.split('/');
        let url = self.url(
            ["api", self.repository.kind()]
                .into_iter()
                .chain(id)
                .chain(["revision", self.repository.task.revision.as_str()]),
        )?;
        let (headers, body) = patience.with(|| self.fetch(&url)).await?;
        let answer: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let commit = answer.as_ref().and_then(|answer| answer.get("sha")?.as_str());
        let commit = commit.filter(|sha| sha.len() >= 40 && sha.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let commit: Arc<str> = commit
            .ok_or_else(|| self.repository.place.not_asked_for(&headers, &body, "the commit of the revision"))?
            .into();
        *self.commit.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&commit));
        Ok(commit)
    }

    async fn list_all(&self, patience: Patience<'_>) -> Result<Listing, StorageError> {
        let commit = self.commit(patience).await?;
        let id = self.repository.task.repository.split('/');
        let folder = self.path.split('/').filter(|segment| !segment.is_empty());
        let start = ["api", self.repository.kind()].into_iter().chain(id).chain(["tree", &commit]).chain(folder);
        let mut url = self.url(start)?;
        url.query_pairs_mut().append_pair("recursive", "true").append_pair("expand", "false");
        let mut gathering = Gathering::new(self.uri(), &self.path);
        let mut seen = 0;
        loop {
            let (headers, body) = patience.with(|| self.fetch(&url)).await?;
            let items: Vec<Item> = serde_json::from_slice(&body)
                .map_err(|_| self.repository.place.not_asked_for(&headers, &body, "the tree of a repository"))?;
            seen += items.len();
            gathering.add(items.into_iter().filter_map(Item::object))?;
            match listing::next(headers.get(LINK), &url) {
                // Pages of another server would be asked for with our token.
                Some(next) if next.origin() != url.origin() || next == url || seen > paths::ENTRY_LIMIT => {
                    return Err(self.no_tree());
                }
                Some(next) => url = next,
                None => break,
            }
        }
        gathering.finish()?.ok_or_else(|| {
            StorageError::NotFound(format!("{} holds no file below {:?}", self.repository.task.repository, self.path))
        })
    }

    fn no_tree(&self) -> StorageError {
        StorageError::Unreachable(format!(
            "{} answered with something that is not the tree of a repository",
            self.repository.place.host
        ))
    }

    async fn range(&self, entry: &Entry, range: Range<u64>) -> Result<Body, StorageError> {
        let commit = self.commit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let commit = commit.ok_or_else(|| StorageError::InvalidSpec("files are read after they were listed".into()))?;
        let id = self.repository.task.repository.split('/');
        let path = self.path.split('/').filter(|segment| !segment.is_empty()).chain(entry.path.split('/'));
        let dataset = self.repository.task.dataset.then_some("datasets");
        let url = self.url(dataset.into_iter().chain(id).chain(["resolve", &commit]).chain(path))?;
        let (repository, path) = (self.repository.clone(), entry.path.clone());
        let explain = move |error: &(dyn std::error::Error + 'static)| repository.explain(error, Asked::File(&path));
        let file = (entry.path.as_str(), entry.size);
        if let Some(known) = self.signed.get(&entry.path) {
            let answer =
                request::ranged(&self.client, request::get(&known)?, file, range.clone(), explain.clone()).await;
            match answer {
                Ok((_, body)) => return Ok(body),
                Err(passing @ (StorageError::Unreachable(_) | StorageError::Busy(..))) => {
                    self.signed.forget(&entry.path);
                    return Err(passing);
                }
                // The signature may have ended: the Hub gives a new one, or says what is wrong.
                Err(_) => self.signed.forget(&entry.path),
            }
        }
        let mut request = self.request(&url)?;
        request::set_range(&mut request, &range)?;
        let insecure = self.repository.task.connection.insecure;
        let (response, from) = redirect::traced(&self.client, &url, request, insecure, &explain).await?;
        if from.origin() != url.origin() {
            self.signed.keep(&entry.path, from);
        }
        Ok(request::part(response, false, file, &range, explain)?.1)
    }
}

impl Dialect for HuggingFace {
    fn uri(&self) -> String {
        self.repository.task.uri()
    }

    fn host(&self) -> &str {
        &self.repository.place.host
    }

    fn list<'a>(&'a self, patience: Patience<'a>) -> BoxFuture<'a, Result<Listing, StorageError>> {
        self.list_all(patience).boxed()
    }

    fn begin<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxFuture<'a, Result<Body, StorageError>> {
        self.range(entry, range).boxed()
    }

    fn renew(&self) -> Result<bool, StorageError> {
        self.reader.renew()
    }
}

/// The address that the task names, else the person's own Hub, else the Hub; and the setting that it comes from.
fn server(task: &HuggingFaceTask, mounts: &Mounts) -> Result<(Endpoint, &'static str), StorageError> {
    let connection = &task.connection;
    let theirs = mounts.person.as_ref().and_then(Person::endpoint);
    match (&connection.endpoint, theirs) {
        (None, Some(theirs)) => match endpoint::parse(theirs, connection.insecure, "storage.huggingFace") {
            // Not shown: it may hold a password.
            Err(StorageError::InvalidSpec(_)) => {
                Err(StorageError::InvalidSpec("HF_ENDPOINT is not an address such as https://host:port".into()))
            }
            parsed => Ok((parsed?, "HF_ENDPOINT")),
        },
        (endpoint, _) => {
            let text = endpoint.as_deref().unwrap_or(SERVER);
            Ok((endpoint::parse(text, connection.insecure, "storage.huggingFace")?, "storage.huggingFace.endpoint"))
        }
    }
}
