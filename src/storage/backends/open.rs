//! From a task's source to its backend. Reads the files that settings and credentials are mounted as.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::contract::{Source, environment};

use super::{Azure, Folder, Gcs, Http, HuggingFace, Inline, Person, PickleEncoder, S3, Storage, StorageError};

/// Where the things are that a task refers to. A pod has them at fixed places, a laptop in folders of its own.
#[derive(Clone, Default)]
pub struct Mounts {
    /// Folder with one file a key of the Secret.
    pub credentials: PathBuf,
    /// File with the certificate authorities, PEM.
    pub ca: PathBuf,
    /// Root of the claim that is the source.
    pub source: PathBuf,
    /// Root of the volume to fill or to verify.
    pub volume: Option<PathBuf>,
    /// Root of the claim whose files need not be fetched.
    pub reuse: Option<PathBuf>,
    /// The inline data as the user wrote it.
    pub inline: Option<String>,
    /// Environment variables that carry the pod's own identity, see [`environment::IDENTITY_PREFIXES`].
    pub identity: BTreeMap<String, String>,
    /// Who runs the command, on a laptop.
    pub person: Option<Person>,
}

/// Says where things are, and neither the inline data nor the identity, which may be secret.
impl std::fmt::Debug for Mounts {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Mounts")
            .field("credentials", &self.credentials)
            .field("ca", &self.ca)
            .field("source", &self.source)
            .field("volume", &self.volume)
            .field("reuse", &self.reuse)
            .finish_non_exhaustive()
    }
}

impl Mounts {
    /// The places in a worker pod.
    #[must_use]
    pub fn in_pod() -> Self {
        let inline = std::env::var(environment::INLINE).ok();
        let decode = |text: String| String::from_utf8(BASE64_STANDARD.decode(text).ok()?).ok();
        Self {
            credentials: environment::CREDENTIALS_MOUNT.into(),
            ca: environment::CA_FILE.into(),
            source: environment::SOURCE_MOUNT.into(),
            volume: Some(environment::VOLUME_MOUNT.into()),
            reuse: Some(environment::REUSE_MOUNT.into()),
            inline: inline.and_then(decode),
            identity: identity(),
            person: None,
        }
    }
}

/// Environment variables that may carry an identity.
#[must_use]
pub fn identity() -> BTreeMap<String, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let known = |name: &str| environment::IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    std::env::vars_os().filter_map(text).filter(|(name, _)| known(name)).collect()
}

/// The same, and those that say where a person's files are.
#[must_use]
pub fn identity_of_a_person() -> BTreeMap<String, String> {
    let files = environment::PERSON_VARIABLES.into_iter();
    identity().into_iter().chain(files.filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))).collect()
}

/// The backend of a source.
///
/// # Errors
/// When the settings or credentials cannot be used. Nothing was contacted yet.
pub fn open(source: &Source, mounts: &Mounts, encode: PickleEncoder) -> Result<Box<dyn Storage>, StorageError> {
    Ok(match source {
        Source::S3(task) => Box::new(S3::open(task, mounts)?),
        Source::Gcs(task) => Box::new(Gcs::open(task, mounts)?),
        Source::Azure(task) => Box::new(Azure::open(task, mounts)?),
        Source::Http(task) => Box::new(Http::open(task, mounts)?),
        Source::HuggingFace(task) => Box::new(HuggingFace::open(task, mounts)?),
        Source::Claim { claim_name, path } => Box::new(Folder::claim(claim_name, &mounts.source, path)),
        Source::Inline(task) => Box::new(Inline::new(task, mounts.inline.as_deref(), encode)?),
    })
}
