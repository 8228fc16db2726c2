//! A server that behaves as the Hugging Face Hub documents it, with a store of large files beside it (network I/O).
//!
//! <https://huggingface.co/docs/hub/api>, and the errors that `huggingface_hub` tells apart by `X-Error-Code`. It runs on threads of
//! its own until the process ends.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, Response, StatusCode, header},
};
use checkpoint_operator_e2e::cache::hex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// May read everything.
pub const OWNER: &str = "hf_canary_owner";
/// Is somebody, but may read neither private nor gated repositories.
pub const STRANGER: &str = "hf_canary_stranger";
pub const COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";
/// So many files are on a page of a tree.
const PAGE: usize = 2;

/// A repository: `org/NAME`, whose revision `main` (and the tag `v1`) is [`COMMIT`].
#[derive(Clone, Default)]
pub struct Repository {
    pub files: BTreeMap<String, Vec<u8>>,
    pub gated: bool,
    pub private: bool,
}

pub struct Hub {
    pub endpoint: String,
    /// The `authorization` headers that the store of large files was sent, which should be none.
    sent_on: Arc<Mutex<Vec<String>>>,
    resolved: Arc<Mutex<usize>>,
}

struct State {
    repositories: BTreeMap<String, Repository>,
    store: String,
    resolved: Arc<Mutex<usize>>,
}

impl Hub {
    /// Serves these files as three repositories: `org/public`, `org/gated` and `org/private`.
    pub fn start(address: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let public = Repository { files, ..Repository::default() };
        let repositories: BTreeMap<String, Repository> = [
            ("org/public".to_owned(), public.clone()),
            ("org/gated".to_owned(), Repository { gated: true, ..public.clone() }),
            ("org/private".to_owned(), Repository { private: true, ..public.clone() }),
        ]
        .into();
        let (sent_on, resolved) = (Arc::default(), Arc::default());
        let store = serve(address, {
            let (files, sent_on) = (public.files, Arc::clone(&sent_on));
            move |request| stored(&files, &sent_on, &request)
        })?;
        let state = State { repositories, store, resolved: Arc::clone(&resolved) };
        let endpoint = serve(address, move |request| state.answer(&request))?;
        Ok(Self { endpoint, sent_on, resolved })
    }

    /// Credentials that left the Hub.
    pub fn leaked(&self) -> Vec<String> {
        self.sent_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a file was asked for at the Hub itself.
    pub fn resolved(&self) -> usize {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves on a thread of its own; the URL.
fn serve(address: &str, answer: impl Fn(Request<Body>) -> Response<Body> + Send + Sync + 'static) -> Result<String> {
    let listener = std::net::TcpListener::bind((address, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let answer = Arc::new(answer);
    let router = Router::new().fallback(move |request: Request<Body>| {
        let answer = Arc::clone(&answer);
        async move { answer(request) }
    });
    std::thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok(axum::serve(listener, router).await?)
        })
    });
    Ok(format!("http://{address}"))
}

fn reply(status: StatusCode, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let builder =
        headers.iter().fold(Response::builder().status(status), |builder, (name, value)| builder.header(*name, *value));
    builder.body(body.into()).unwrap_or_default()
}

fn error(status: StatusCode, code: &str) -> Response<Body> {
    reply(status, &[("x-error-code", code), ("x-error-message", "canary: a message")], "canary")
}

/// Files whose content is not in Git.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

/// The bytes, or the range of them that is asked for.
fn bytes(headers: &HeaderMap, head: bool, content: &[u8], more: &[(&str, &str)]) -> Response<Body> {
    let range =
        headers.get(header::RANGE).and_then(|range| range.to_str().ok()?.strip_prefix("bytes=")?.split_once('-'));
    let (status, first, end) = match range {
        Some((first, last)) => {
            let first = first.parse().unwrap_or(0);
            let last = last.parse().unwrap_or(usize::MAX).min(content.len().saturating_sub(1));
            (StatusCode::PARTIAL_CONTENT, first, last + 1)
        }
        None => (StatusCode::OK, 0, content.len()),
    };
    let Some(part) = content.get(first..end) else {
        return reply(StatusCode::RANGE_NOT_SATISFIABLE, &[], "");
    };
    let (length, told) = (part.len().to_string(), format!("bytes {first}-{}/{}", end.saturating_sub(1), content.len()));
    let mut all = vec![("content-length", length.as_str()), ("accept-ranges", "bytes")];
    if status == StatusCode::PARTIAL_CONTENT {
        all.push(("content-range", &told));
    }
    all.extend(more);
    reply(status, &all, if head { Vec::new() } else { part.to_vec() })
}

/// The store of large files: whoever has a signed address may read.
fn stored(files: &BTreeMap<String, Vec<u8>>, sent_on: &Mutex<Vec<String>>, request: &Request<Body>) -> Response<Body> {
    if let Some(value) = request.headers().get(header::AUTHORIZATION) {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        sent_on.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }
    if request.uri().query() != Some("Signature=canary-signature") {
        return reply(StatusCode::FORBIDDEN, &[], "canary");
    }
    let wanted = request.uri().path().trim_start_matches('/');
    let file = files.values().find(|content| hex(&Sha256::digest(content)) == wanted);
    match file {
        Some(content) => bytes(request.headers(), request.method() == "HEAD", content, &[]),
        None => reply(StatusCode::NOT_FOUND, &[], ""),
    }
}

/// Who asks.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Stranger,
    Owner,
}

impl State {
    fn answer(&self, request: &Request<Body>) -> Response<Body> {
        let who = match request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default()) {
            None => Who::Nobody,
            Some(value) if value == format!("Bearer {OWNER}") => Who::Owner,
            Some(value) if value == format!("Bearer {STRANGER}") => Who::Stranger,
            Some(_) => {
                let message = [("x-error-message", "Invalid credentials in Authorization header")];
                return reply(StatusCode::UNAUTHORIZED, &message, "canary");
            }
        };
        let path = request.uri().path();
        let (api, rest) =
            path.strip_prefix("/api/models/").map_or((false, path.trim_start_matches('/')), |rest| (true, rest));
        let mut parts = rest.splitn(4, '/');
        let mut next = || parts.next().unwrap_or_default();
        let (name, verb) = (format!("{}/{}", next(), next()), next());
        let (revision, path) = next()
            .split_once('/')
            .map_or_else(|| (rest.rsplit('/').next().unwrap_or_default(), ""), |(revision, path)| (revision, path));
        let allowed = self.repositories.get(&name).filter(|repository| !repository.private || who == Who::Owner);
        let Some(repository) = allowed else {
            let status = if who == Who::Nobody { StatusCode::UNAUTHORIZED } else { StatusCode::NOT_FOUND };
            return error(status, "RepoNotFound");
        };
        if !["main", "v1", COMMIT].contains(&revision) {
            return error(StatusCode::NOT_FOUND, "RevisionNotFound");
        }
        match verb {
            "revision" if api => describe(&name, repository),
            "tree" if api => tree(&name, repository, path, request),
            "resolve" if !api => self.resolve(repository, path, who, request),
            _ => reply(StatusCode::NOT_FOUND, &[], ""),
        }
    }

    fn resolve(&self, repository: &Repository, path: &str, who: Who, request: &Request<Body>) -> Response<Body> {
        *self.resolved.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if repository.gated && who != Who::Owner {
            let status = if who == Who::Nobody { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            return error(status, "GatedRepo");
        }
        let Some(content) = repository.files.get(path) else { return error(StatusCode::NOT_FOUND, "EntryNotFound") };
        let (hash, size) = (hex(&Sha256::digest(content)), content.len().to_string());
        let tag = format!("\"{hash}\"");
        let commit = ("x-repo-commit", COMMIT);
        if is_large(path) {
            let location = format!("{}/{hash}?Signature=canary-signature", self.store);
            let linked = [commit, ("x-linked-size", &*size), ("x-linked-etag", &*tag), ("location", &*location)];
            return reply(StatusCode::FOUND, &linked, "");
        }
        bytes(request.headers(), request.method() == "HEAD", content, &[commit, ("etag", &tag)])
    }
}

fn tree(name: &str, repository: &Repository, folder: &str, request: &Request<Body>) -> Response<Body> {
    let below = |path: &&String| folder.is_empty() || path.starts_with(&format!("{folder}/"));
    let files: Vec<&String> = repository.files.keys().filter(below).collect();
    if files.is_empty() {
        return error(StatusCode::NOT_FOUND, "EntryNotFound");
    }
    let query = request.uri().query().unwrap_or_default();
    let cursor = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let items: Vec<Value> =
        files.iter().skip(cursor).take(PAGE).map(|path| item(path, &repository.files[*path])).collect();
    let more = cursor + PAGE < files.len();
    let link = format!(
        "<http://{host}/api/models/{name}/tree/{COMMIT}?recursive=true&cursor={}>; rel=\"next\"",
        cursor + PAGE
    );
    let mut headers = vec![("content-type", "application/json")];
    if more {
        headers.push(("link", &link));
    }
    reply(StatusCode::OK, &headers, Value::Array(items).to_string())
}

fn describe(name: &str, repository: &Repository) -> Response<Body> {
    let siblings: Vec<Value> = repository.files.keys().map(|path| json!({"rfilename": path})).collect();
    let description = json!({
        "_id": "1", "id": name, "modelId": name, "sha": COMMIT, "private": repository.private, "gated": repository.gated,
        "disabled": false, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
    });
    reply(StatusCode::OK, &[("content-type", "application/json")], description.to_string())
}

fn item(path: &str, content: &[u8]) -> Value {
    let mut item = json!({"type": "file", "path": path, "size": content.len(), "oid": "0".repeat(40)});
    if is_large(path) {
        item["lfs"] = json!({"oid": hex(&Sha256::digest(content)), "size": content.len(), "pointerSize": 130});
    }
    item
}
