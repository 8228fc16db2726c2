//! From `spec.path` and `spec.storage` to the source of a task. Pure, no I/O.
//!
//! URIs are taken raw, never percent-decoded, as every client of these stores writes them.

mod azure;
mod gcs;
mod http;
mod hugging_face;
mod s3;
#[cfg(test)]
mod tests;

use crate::{
    api::{
        AzureSource, CaBundle, GcsSource, HttpSource, HuggingFaceSource, InlineSource, S3Source, SecretReference,
        Storage,
    },
    contract::{Access, InlineTask, Reason, Source},
};

use self::{
    azure::azure_source, azure::azure_uri, gcs::gcs_source, gcs::gcs_uri, http::http_source, hugging_face::hub_source,
    hugging_face::hub_uri, s3::s3_source, s3::s3_uri,
};
use super::validate::{InvalidSpec, invalid};

/// Where the data lies.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Located {
    /// What a worker is told.
    pub source: Source,
    /// The location in full, for status.
    pub uri: String,
    /// The text of inline data.
    pub inline: Option<String>,
}

type Outcome = Result<Located, InvalidSpec>;

fn located(source: Source, uri: String) -> Located {
    Located { source, uri, inline: None }
}

/// The one member of `spec.storage` that is set.
enum Member<'a> {
    S3(&'a S3Source),
    Gcs(&'a GcsSource),
    Azure(&'a AzureSource),
    Http(&'a HttpSource),
    HuggingFace(&'a HuggingFaceSource),
    Claim(&'a str),
    Inline(&'a InlineSource),
}

impl Member<'_> {
    /// How messages call it.
    fn name(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
            Self::Http(_) => "http",
            Self::HuggingFace(_) => "huggingFace",
            Self::Claim(_) => "persistentVolumeClaim",
            Self::Inline(_) => "inline",
        }
    }
}

fn member(storage: &Storage) -> Result<Option<Member<'_>>, InvalidSpec> {
    let claim = storage.persistent_volume_claim.as_ref();
    let set = [
        storage.s3.as_ref().map(Member::S3),
        storage.gcs.as_ref().map(Member::Gcs),
        storage.azure.as_ref().map(Member::Azure),
        storage.http.as_ref().map(Member::Http),
        storage.hugging_face.as_ref().map(Member::HuggingFace),
        claim.map(|claim| Member::Claim(&claim.claim_name)),
        storage.inline.as_ref().map(Member::Inline),
    ];
    let mut set = set.into_iter().flatten();
    match (set.next(), set.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(invalid(format!("set at most one of {MEMBERS}"))),
    }
}

const MEMBERS: &str = "storage.s3, storage.gcs, storage.azure, storage.http, storage.huggingFace, storage.persistentVolumeClaim and storage.inline";
const URIS: &str = "s3://bucket/path, gs://bucket/path, abfs://container@account.dfs.core.windows.net/path, https://host/path, \
     hf://organisation/repository/path or pvc://claim/path";

/// Reads what the user wrote.
///
/// # Errors
/// What is wrong, with the field and the remedy.
pub(super) fn locate(path: &str, storage: Option<&Storage>) -> Outcome {
    let member = storage.map(member).transpose()?.flatten();
    match path.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) {
        Some((scheme, rest)) => by_uri(path, scheme, rest, member),
        None => by_member(path, member),
    }
}

fn by_uri(path: &str, scheme: &str, rest: &str, member: Option<Member<'_>>) -> Outcome {
    match (scheme, member) {
        ("s3", None) => s3_uri(rest, &S3Source::default()),
        ("s3", Some(Member::S3(s3))) if s3.bucket.is_none() => s3_uri(rest, s3),
        ("s3", _) => Err(names("an s3://", "the bucket", "s3", "its bucket")),
        ("gs" | "gcs", None) => gcs_uri(rest, &GcsSource::default()),
        ("gs" | "gcs", Some(Member::Gcs(gcs))) if gcs.bucket.is_none() => gcs_uri(rest, gcs),
        ("gs" | "gcs", _) => Err(names("a gs://", "the bucket", "gcs", "its bucket")),
        ("abfs" | "abfss" | "az", None) => azure_uri(rest, &AzureSource::default()),
        ("abfs" | "abfss" | "az", Some(Member::Azure(azure))) if azure.container.is_none() => azure_uri(rest, azure),
        ("abfs" | "abfss" | "az", _) => Err(names("an abfs://", "the container", "azure", "its container")),
        ("http" | "https", None) => http_source(path, &HttpSource::default()),
        ("http" | "https", Some(Member::Http(http))) if http.url.is_none() => http_source(path, http),
        ("http" | "https", _) => Err(names("an https://", "the files", "http", "its url")),
        ("hf", None) => hub_uri(rest, &HuggingFaceSource::default()),
        ("hf", Some(Member::HuggingFace(hub))) if hub.repository.is_none() => hub_uri(rest, hub),
        ("hf", _) => Err(names("an hf://", "the repository", "huggingFace", "its repository")),
        ("pvc", None) => {
            if rest.contains('?') {
                return Err(invalid("path: a pvc:// URI has no query"));
            }
            let (claim, folder) = rest.split_once('/').unwrap_or((rest, ""));
            claim_source(claim, folder)
        }
        ("pvc", Some(_)) => Err(invalid("path is a pvc:// URI, which names the claim: leave out storage")),
        _ => Err(invalid(format!("path: {scheme}:// is not understood; use {URIS}"))),
    }
}

fn names(scheme: &str, what: &str, member: &str, naming: &str) -> InvalidSpec {
    invalid(format!("path is {scheme} URI, which names {what}: of storage, set only {member}, and leave out {naming}"))
}

fn by_member(path: &str, member: Option<Member<'_>>) -> Outcome {
    let Some(member) = member else {
        return Err(invalid(format!(
            "say where the data lies: set one of {MEMBERS}, or make path a URI such as {URIS}"
        )));
    };
    let needs = |field: &str, uri: &str| {
        invalid(format!("set storage.{}.{field}, or make path a URI such as {uri}", member.name()))
    };
    match member {
        Member::S3(s3) => s3_source(s3.bucket.as_deref().ok_or_else(|| needs("bucket", "s3://bucket/path"))?, path, s3),
        Member::Gcs(gcs) => {
            gcs_source(gcs.bucket.as_deref().ok_or_else(|| needs("bucket", "gs://bucket/path"))?, path, gcs)
        }
        Member::Azure(azure) => {
            let container = azure.container.as_deref();
            azure_source(container.ok_or_else(|| needs("container", "az://container/path"))?, path, azure)
        }
        Member::Http(http) => {
            let url = http.url.as_deref().ok_or_else(|| needs("url", "https://host/path"))?;
            let path = folder(path)?;
            let base = url.trim_end_matches('/');
            http_source(&if path.is_empty() { base.to_owned() } else { format!("{base}/{path}") }, http)
        }
        Member::HuggingFace(hub) => {
            let repository = hub.repository.as_deref();
            hub_source(repository.ok_or_else(|| needs("repository", "hf://organisation/repository"))?, path, hub)
        }
        Member::Claim(claim) => claim_source(claim, path),
        Member::Inline(inline) => inline_source(path, inline),
    }
}

fn inline_source(path: &str, inline: &InlineSource) -> Outcome {
    if !path.is_empty() {
        return Err(invalid("inline data has no path: leave path out"));
    }
    if inline.json.len() > 65536 {
        return Err(invalid("storage.inline.json is longer than 64 KiB; put the data into a bucket or a claim"));
    }
    let task = InlineTask { blake3: blake3::hash(inline.json.as_bytes()).to_hex().to_string() };
    Ok(Located { source: Source::Inline(task), uri: "inline:".to_owned(), inline: Some(inline.json.clone()) })
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|character: char| character.is_ascii_alphabetic())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || "+.-".contains(character))
}

/// `bucket/path`, without user, port and query.
fn split<'a>(rest: &'a str, scheme: &str) -> Result<(&'a str, &'a str), InvalidSpec> {
    if rest.contains('?') {
        return Err(invalid(format!("path: a {scheme}:// URI has no query here; use the members of storage")));
    }
    Ok(rest.split_once('/').unwrap_or((rest, "")))
}

fn claim_source(claim: &str, path: &str) -> Outcome {
    if claim.is_empty() || claim.len() > 253 || claim.contains(['/', '@', ':', ' ']) {
        return Err(invalid(format!("{claim:?} is not the name of a claim")));
    }
    let path = folder(path)?;
    let uri = joined(&format!("pvc://{claim}"), &path);
    Ok(located(Source::Claim { claim_name: claim.to_owned(), path }, uri))
}

fn joined(place: &str, path: &str) -> String {
    if path.is_empty() { place.to_owned() } else { format!("{place}/{path}") }
}

fn ca(bundle: Option<&CaBundle>) -> Option<String> {
    bundle.map(|bundle| format!("{}/{}", bundle.config_map_ref.name, bundle.config_map_ref.key))
}

/// Who reads, from `secretRef` and `anonymous`.
fn access(credentials: Option<(Option<&SecretReference>, bool)>, member: &str) -> Result<Access, InvalidSpec> {
    match credentials {
        None => Ok(Access::Ambient),
        Some((Some(secret), false)) => Ok(Access::Secret(secret.name.clone())),
        Some((None, true)) => Ok(Access::Anonymous),
        Some(_) => Err(invalid(format!("storage.{member}.credentials: set either secretRef or anonymous: true"))),
    }
}

/// A server's address without the slash at its end.
fn endpoint(endpoint: Option<&str>, insecure: bool, member: &str) -> Result<Option<String>, InvalidSpec> {
    let Some(endpoint) = endpoint.map(|endpoint| endpoint.trim_end_matches('/')) else { return Ok(None) };
    let authority = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://")).unwrap_or_default();
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ', '%']) {
        let field = if member == "http" { "url" } else { "endpoint" };
        return Err(invalid(format!(
            "storage.{member}.{field}: {endpoint:?} is not an address such as https://minio.storage.svc:9000; it is taken as it is written, never percent-decoded"
        )));
    }
    if endpoint.starts_with("http://") && !insecure {
        return Err(InvalidSpec {
            reason: Reason::InsecureEndpoint,
            message: format!(
                "{endpoint} is not encrypted; use an https:// endpoint, or set storage.{member}.insecure: true if the network in between is trusted"
            ),
        });
    }
    Ok(Some(endpoint.to_owned()))
}

/// The folder without the slash at its end.
fn folder(path: &str) -> Result<String, InvalidSpec> {
    let problem = |message: String| InvalidSpec { reason: Reason::InvalidPath, message };
    if path.starts_with('/') {
        return Err(problem(
            "path is relative to the root of the storage: leave out the slash at its start".to_owned(),
        ));
    }
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if trimmed.is_empty() {
        return Ok(String::new());
    }
    for segment in trimmed.split('/') {
        if matches!(segment, "" | "." | "..") || segment.chars().any(char::is_control) {
            return Err(problem(format!("path: the segment {segment:?} is not allowed")));
        }
    }
    Ok(trimmed.to_owned())
}
