//! `hf://` URIs and `storage.huggingFace`. Pure, no I/O.

use crate::{
    api::{HuggingFaceSource, RepositoryKind},
    contract::{Access, Connection, HuggingFaceTask, Source},
};

use super::{Outcome, ca, endpoint, folder, invalid, located};

/// `organisation/name[@revision]/path`, with `datasets/` before it for data sets, as `huggingface_hub` writes it.
pub(super) fn hub_uri(rest: &str, hub: &HuggingFaceSource) -> Outcome {
    if rest.contains('?') {
        return Err(invalid("path: an hf:// URI has no query"));
    }
    let mut hub = hub.clone();
    let rest = match rest.strip_prefix("datasets/") {
        Some(rest) => {
            hub.kind = Some(RepositoryKind::Dataset);
            rest
        }
        None => rest.strip_prefix("models/").unwrap_or(rest),
    };
    let mut parts = rest.splitn(3, '/');
    let (organisation, name, path) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
    let (Some(organisation), Some(name)) =
        (organisation.filter(|text| !text.is_empty()), name.filter(|text| !text.is_empty()))
    else {
        return Err(invalid("path: an hf:// URI is hf://organisation/repository[@revision]/path"));
    };
    let (name, revision) = name.split_once('@').map_or((name, None), |(name, revision)| (name, Some(revision)));
    let mut path = path;
    if let Some(revision) = revision {
        if hub.revision.is_some() {
            return Err(invalid("path names the revision: leave out storage.huggingFace.revision"));
        }
        let (revision, rest) = with_slashes(revision, path);
        hub.revision = Some(revision);
        path = rest;
    }
    hub_source(&format!("{organisation}/{name}"), path, &hub)
}

/// Of the revisions with slashes the Hub's own are known in URIs: `refs/pr/1` and `refs/convert/parquet`.
fn with_slashes<'a>(revision: &str, path: &'a str) -> (String, &'a str) {
    let mut parts = path.splitn(3, '/');
    match (revision, parts.next(), parts.next()) {
        ("refs", Some(kind @ ("pr" | "convert")), Some(name)) => {
            (format!("refs/{kind}/{name}"), parts.next().unwrap_or_default())
        }
        _ => (revision.to_owned(), path),
    }
}

pub(super) fn hub_source(repository: &str, path: &str, hub: &HuggingFaceSource) -> Outcome {
    let path = folder(path)?;
    let word = |text: &str| {
        !text.is_empty()
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    if repository.split('/').count() > 2 || !repository.split('/').all(word) {
        return Err(invalid(format!("{repository:?} is not a repository such as organisation/name")));
    }
    let revision = hub.revision.clone().unwrap_or_else(|| "main".to_owned());
    if !revision.split('/').all(word) {
        return Err(invalid(format!("storage.huggingFace.revision: {revision:?} is no branch, tag or commit")));
    }
    let dataset = hub.kind == Some(RepositoryKind::Dataset);
    let connection = Connection {
        endpoint: endpoint(hub.endpoint.as_deref(), hub.insecure, "huggingFace")?,
        insecure: hub.insecure,
        ca: ca(hub.ca_bundle.as_ref()),
        access: hub
            .credentials
            .as_ref()
            .map_or(Access::Anonymous, |credentials| Access::Secret(credentials.secret_ref.name.clone())),
    };
    let task = HuggingFaceTask { repository: repository.to_owned(), dataset, revision, path, connection };
    let uri = task.uri();
    Ok(located(Source::HuggingFace(task), uri))
}
