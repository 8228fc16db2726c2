//! From `spec.path` and `spec.storage` to the source of a task. Pure, no I/O.
//!
//! URIs are taken raw, never percent-decoded, as every client of these stores writes them.

use crate::{
    api::{
        AzureSource, CaBundle, GcsSource, HttpSource, HuggingFaceSource, InlineSource, RepositoryKind, S3Source,
        SecretReference, Storage,
    },
    contract::{Access, AzureTask, Connection, GcsTask, HttpTask, HuggingFaceTask, InlineTask, Reason, S3Task, Source},
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
        ("s3", _) => Err(names("s3://", "the bucket", "s3", "its bucket")),
        ("gs" | "gcs", None) => gcs_uri(rest, &GcsSource::default()),
        ("gs" | "gcs", Some(Member::Gcs(gcs))) if gcs.bucket.is_none() => gcs_uri(rest, gcs),
        ("gs" | "gcs", _) => Err(names("gs://", "the bucket", "gcs", "its bucket")),
        ("abfs" | "abfss" | "az", None) => azure_uri(rest, &AzureSource::default()),
        ("abfs" | "abfss" | "az", Some(Member::Azure(azure))) if azure.container.is_none() => azure_uri(rest, azure),
        ("abfs" | "abfss" | "az", _) => Err(names("abfs://", "the container", "azure", "its container")),
        ("http" | "https", None) => http_source(path, &HttpSource::default()),
        ("http" | "https", Some(Member::Http(http))) if http.url.is_none() => http_source(path, http),
        ("http" | "https", _) => Err(names("https://", "the files", "http", "its url")),
        ("hf", None) => hub_uri(rest, &HuggingFaceSource::default()),
        ("hf", Some(Member::HuggingFace(hub))) if hub.repository.is_none() => hub_uri(rest, hub),
        ("hf", _) => Err(names("hf://", "the repository", "huggingFace", "its repository")),
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
    invalid(format!(
        "path is an {scheme} URI, which names {what}: of storage, set only {member}, and leave out {naming}"
    ))
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

fn s3_uri(rest: &str, s3: &S3Source) -> Outcome {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains(['@', ':']) {
        return Err(invalid(
            "path: a URI must not hold a user name, a password or a port; use storage.s3.credentials and storage.s3.endpoint",
        ));
    }
    let mut s3 = s3.clone();
    let mut scheme = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("endpoint_override", value)) => s3.endpoint = Some(value.to_owned()),
            Some(("region", value)) => s3.region = Some(value.to_owned()),
            Some(("scheme", value)) => scheme = Some(value.to_owned()),
            _ => {
                return Err(invalid(format!(
                    "path: {pair:?} is not understood; of the query of an s3:// URI, only endpoint_override, scheme and region are"
                )));
            }
        }
    }
    // Ray's endpoint_override has no scheme of its own; `scheme` says which.
    if let Some(endpoint) = s3.endpoint.as_mut().filter(|endpoint| !endpoint.contains("://")) {
        *endpoint = format!("{}://{endpoint}", scheme.as_deref().unwrap_or("https"));
    }
    s3_source(bucket, path, &s3)
}

fn s3_source(bucket: &str, path: &str, s3: &S3Source) -> Outcome {
    let path = folder(path)?;
    if bucket.is_empty() || bucket.contains(['/', '?', '@']) {
        return Err(invalid(format!("{bucket:?} is not a bucket")));
    }
    let endpoint = endpoint(s3.endpoint.as_deref(), s3.insecure, "s3")?;
    let credentials = s3.credentials.as_ref();
    let access = access(credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)), "s3")?;
    let virtual_hosted =
        s3.addressing.map_or(endpoint.is_none(), |addressing| addressing == crate::api::Addressing::VirtualHosted);
    let uri = joined(&format!("s3://{bucket}"), &path);
    let task = S3Task {
        bucket: bucket.to_owned(),
        path,
        region: s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        endpoint,
        virtual_hosted,
        insecure: s3.insecure,
        ca: ca(s3.ca_bundle.as_ref()),
        access,
    };
    Ok(located(Source::S3(task), uri))
}

/// `bucket/path`, without user, port and query.
fn split<'a>(rest: &'a str, scheme: &str) -> Result<(&'a str, &'a str), InvalidSpec> {
    if rest.contains('?') {
        return Err(invalid(format!("path: a {scheme}:// URI has no query here; use the members of storage")));
    }
    Ok(rest.split_once('/').unwrap_or((rest, "")))
}

fn gcs_uri(rest: &str, gcs: &GcsSource) -> Outcome {
    let (bucket, path) = split(rest, "gs")?;
    gcs_source(bucket, path, gcs)
}

fn gcs_source(bucket: &str, path: &str, gcs: &GcsSource) -> Outcome {
    let path = folder(path)?;
    if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(invalid(format!("{bucket:?} is not a bucket of Google Cloud Storage")));
    }
    let credentials = gcs.credentials.as_ref();
    let connection = Connection {
        endpoint: endpoint(gcs.endpoint.as_deref(), gcs.insecure, "gcs")?,
        insecure: gcs.insecure,
        ca: ca(gcs.ca_bundle.as_ref()),
        access: access(credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)), "gcs")?,
    };
    let uri = joined(&format!("gs://{bucket}"), &path);
    Ok(located(Source::Gcs(GcsTask { bucket: bucket.to_owned(), path, connection }), uri))
}

/// `container@account.dfs.core.windows.net/path` as Ray and Hadoop write it, or `container/path`.
fn azure_uri(rest: &str, azure: &AzureSource) -> Outcome {
    let (authority, path) = split(rest, "abfs")?;
    let Some((container, host)) = authority.split_once('@') else { return azure_source(authority, path, azure) };
    let account = host.split('.').next().unwrap_or_default();
    if azure.account.as_deref().is_some_and(|own| own != account) {
        return Err(invalid("path names the account: leave out storage.azure.account"));
    }
    if !host.is_empty() && host != account && azure.endpoint.is_none() && !is_azure(host) {
        return Err(invalid(format!(
            "path: {host:?} is not a host of Azure; name another server in storage.azure.endpoint"
        )));
    }
    // Other clouds have other domains, which the blob service shares with the Data Lake's.
    let other = host.split_once('.').map(|(_, domain)| domain.replacen("dfs.", "blob.", 1));
    let mut azure = AzureSource { account: Some(account.to_owned()), ..azure.clone() };
    if azure.endpoint.is_none() {
        azure.endpoint = other
            .filter(|domain| domain != "blob.core.windows.net")
            .map(|domain| format!("https://{account}.{domain}"));
    }
    azure_source(container, path, &azure)
}

/// Whether the host is one of Microsoft's blob or Data Lake services.
fn is_azure(host: &str) -> bool {
    let clouds = ["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "core.cloudapi.de"];
    let service = |cloud: &&str| ["blob", "dfs"].iter().any(|service| host.ends_with(&format!(".{service}.{cloud}")));
    clouds.iter().any(|cloud| service(&cloud))
}

fn azure_source(container: &str, path: &str, azure: &AzureSource) -> Outcome {
    let path = folder(path)?;
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-$".contains(&byte));
    let account = azure.account.as_deref().ok_or_else(|| {
        invalid("set storage.azure.account, or name it in path: abfs://container@account.dfs.core.windows.net/path")
    })?;
    if !word(container) || !word(account) {
        return Err(invalid(format!("{container:?} is not a container, or {account:?} no storage account")));
    }
    let credentials = azure.credentials.as_ref();
    let connection = Connection {
        endpoint: endpoint(azure.endpoint.as_deref(), azure.insecure, "azure")?,
        insecure: azure.insecure,
        ca: ca(azure.ca_bundle.as_ref()),
        access: access(
            credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)),
            "azure",
        )?,
    };
    let uri = joined(&format!("abfs://{container}@{account}.dfs.core.windows.net"), &path);
    let task = AzureTask { account: account.to_owned(), container: container.to_owned(), path, connection };
    Ok(located(Source::Azure(task), uri))
}

fn http_source(url: &str, http: &HttpSource) -> Outcome {
    let url = url.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains(['@', ' ']) {
        return Err(invalid(
            "path: an https:// address needs a host, and no user name or password: use storage.http.credentials",
        ));
    }
    if url.contains(['?', '#']) {
        return Err(invalid("path: an https:// address has no query here: signed addresses expire and are secrets"));
    }
    folder(path)?;
    endpoint(Some(&url[..url.len() - rest.len() + authority.len()]), http.insecure, "http")?;
    if http.manifest.is_some() && !http.files.is_empty() {
        return Err(invalid("storage.http: set files or manifest, not both"));
    }
    for (index, file) in http.files.iter().enumerate() {
        let problem = |error: InvalidSpec| invalid(format!("storage.http.files[{index}]: {}", error.message));
        if folder(file).map_err(problem)? != *file || file.is_empty() {
            return Err(invalid(format!("storage.http.files[{index}]: {file:?} is no file below the address")));
        }
    }
    if let Some(manifest) = &http.manifest {
        folder(manifest).map_err(|error| invalid(format!("storage.http.manifest: {}", error.message)))?;
    }
    let secret = http.credentials.as_ref().map(|credentials| credentials.secret_ref.name.clone());
    let connection = Connection {
        endpoint: None,
        insecure: http.insecure,
        ca: ca(http.ca_bundle.as_ref()),
        access: secret.map_or(Access::Anonymous, Access::Secret),
    };
    let task = HttpTask { url: url.to_owned(), files: http.files.clone(), manifest: http.manifest.clone(), connection };
    Ok(located(Source::Http(task), url.to_owned()))
}

/// `organisation/name[@revision]/path`, with `datasets/` before it for data sets, as huggingface_hub writes it.
fn hub_uri(rest: &str, hub: &HuggingFaceSource) -> Outcome {
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
    if let Some(revision) = revision {
        if hub.revision.is_some() {
            return Err(invalid("path names the revision: leave out storage.huggingFace.revision"));
        }
        hub.revision = Some(revision.to_owned());
    }
    hub_source(&format!("{organisation}/{name}"), path, &hub)
}

fn hub_source(repository: &str, path: &str, hub: &HuggingFaceSource) -> Outcome {
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
    let place = format!("hf://{}{repository}@{revision}", if dataset { "datasets/" } else { "" });
    let uri = joined(&place, &path);
    let task = HuggingFaceTask { repository: repository.to_owned(), dataset, revision, path, connection };
    Ok(located(Source::HuggingFace(task), uri))
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
    if authority.is_empty() || authority.contains(['/', '@', '?', '#', ' ']) {
        return Err(invalid(format!("{endpoint:?} is not an endpoint such as https://minio.storage.svc:9000")));
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
