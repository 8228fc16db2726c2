//! Who reads a bucket: a service account's key, nobody, or the pod's own identity. Reads files, asks for tokens.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use object_store::{
    ClientOptions, RetryConfig,
    gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder},
};
use serde_json::Value;
use url::Url;

use crate::contract::{
    Access,
    environment::{ALLOWED_HOSTS, GCS_KEY_FILE, GCS_KEYS},
};

use super::super::{
    Mounts, StorageError,
    remote::{
        client::{Connector, Timeouts},
        hosts::may_have_bearer,
        secret::{Keys, SecretFiles},
    },
};

/// Domains of Google's own servers.
const OWN: &[&str] = &["googleapis.com"];

/// Gives the tokens.
pub(super) enum Reader {
    /// Requests have none.
    Anonymous,
    /// The pod's own identity.
    Ambient(GcpCredentialProvider),
    /// A Secret's key.
    Secret(Box<FromSecret>),
}

/// A Secret's key, and the tokens made of it; made anew when the key changes.
pub(super) struct FromSecret {
    files: SecretFiles,
    server: Url,
    connector: Connector,
    made: Mutex<Option<(Arc<Keys>, GcpCredentialProvider)>>,
}

impl Reader {
    /// Checks who is to read.
    pub(super) fn open(
        access: &Access,
        mounts: &Mounts,
        connector: &Connector,
        server: &Url,
    ) -> Result<Self, StorageError> {
        match access {
            Access::Anonymous => Ok(Self::Anonymous),
            Access::Ambient => ambient(mounts, connector, server).map(Self::Ambient),
            Access::Secret(name) => {
                let files = SecretFiles::new(mounts.credentials.clone(), name.clone(), &GCS_KEYS);
                let (server, connector) = (server.clone(), connector.clone());
                let secret = FromSecret { files, server, connector, made: Mutex::new(None) };
                secret.provider()?;
                Ok(Self::Secret(Box::new(secret)))
            }
        }
    }

    /// A token that is valid now; none for anonymous requests.
    pub(super) async fn token(&self) -> object_store::Result<Option<String>> {
        let provider = match self {
            Self::Anonymous => return Ok(None),
            Self::Ambient(provider) => Arc::clone(provider),
            Self::Secret(secret) => secret.provider().map_err(|error| object_store::Error::Generic {
                store: "Google Cloud Storage",
                source: Box::new(error),
            })?,
        };
        Ok(Some(provider.get_credential().await?.bearer.clone()))
    }

    /// Reads the Secret's files again and says whether they hold something else than before.
    pub(super) fn renew(&self) -> Result<bool, StorageError> {
        if let Self::Secret(secret) = self { secret.files.reload() } else { Ok(false) }
    }
}

impl FromSecret {
    fn provider(&self) -> Result<GcpCredentialProvider, StorageError> {
        let Self { files, server, connector, made } = self;
        let keys = files.current()?;
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, provider)) = made.as_ref()
            && *of == keys
        {
            return Ok(Arc::clone(provider));
        }
        let found = GCS_KEYS[..2].iter().find_map(|name| Some((*name, keys.get(name)?)));
        let (name, key) = found.ok_or_else(|| files.missing("service-account.json, nor key.json"))?;
        if !may_have_bearer(server, OWN, keys.get(ALLOWED_HOSTS).map(String::as_str)) {
            return Err(not_sent(server, &format!("list it in the key {ALLOWED_HOSTS} of Secret {}", files.secret())));
        }
        let malformed = |problem: String| {
            StorageError::AccessDenied(format!(
                "key {name} of Secret {} is not the key file of a service account: {problem}; make a new key as JSON and put the \
                 file in as it is",
                files.secret()
            ))
        };
        let document = account(key).map_err(malformed)?;
        let builder = builder(connector).with_service_account_key(document.to_string());
        let unusable = |_| malformed("its private_key is no PEM of an RSA key (-----BEGIN PRIVATE KEY-----)".into());
        let provider = Arc::clone(builder.build().map_err(unusable)?.credentials());
        *made = Some((keys, Arc::clone(&provider)));
        Ok(provider)
    }
}

/// The key file, without what is not the Secret's to say here: a server of its own, and that no token is needed.
fn account(text: &str) -> Result<Value, String> {
    let mut document: Value = serde_json::from_str(text).map_err(|_| "it is no JSON".to_owned())?;
    let members = document.as_object_mut().ok_or("it is no JSON object")?;
    match members.get("type").and_then(Value::as_str) {
        None | Some("service_account") => {}
        Some(kind @ ("authorized_user" | "external_account" | "impersonated_service_account")) => {
            return Err(format!("its type is {kind}"));
        }
        Some(_) => return Err("its type is not service_account".to_owned()),
    }
    for member in ["private_key", "private_key_id", "client_email"] {
        if members.get(member).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(format!("it has no {member}"));
        }
    }
    for member in ["gcs_base_url", "disable_oauth"] {
        members.remove(member);
    }
    Ok(document)
}

fn builder(connector: &Connector) -> GoogleCloudStorageBuilder {
    // Only the credentials of this client are used, so it needs no bucket of its own.
    GoogleCloudStorageBuilder::new()
        .with_bucket_name("credentials")
        .with_client_options(ClientOptions::new())
        .with_http_connector(connector.clone())
        .with_retry(RetryConfig { max_retries: 2, ..RetryConfig::default() })
}

/// Workload identity: the metadata service of the pod's own service account, or the file that the environment names.
fn ambient(mounts: &Mounts, connector: &Connector, server: &Url) -> Result<GcpCredentialProvider, StorageError> {
    if !may_have_bearer(server, OWN, None) {
        return Err(not_sent(server, "set storage.gcs.credentials.secretRef, or anonymous: true"));
    }
    // The service is on the node or on none.
    let timeouts = Timeouts { connect: Duration::from_secs(1), ..connector.timeouts };
    let connector = Connector { link_local: true, timeouts, ..connector.clone() };
    let file = mounts.identity.get(GCS_KEY_FILE).filter(|path| !path.is_empty());
    let builder = match file {
        Some(path) if Path::new(path).exists() => builder(&connector).with_application_credentials(path),
        Some(path) => {
            return Err(StorageError::AccessDenied(format!("{GCS_KEY_FILE} names {path}, which does not exist")));
        }
        None => builder(&connector).with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() }),
    };
    let store = builder.build().map_err(|_| {
        StorageError::AccessDenied(format!(
            "the file that {GCS_KEY_FILE} names holds neither a service account nor a user's credentials"
        ))
    })?;
    Ok(Arc::clone(store.credentials()))
}

fn not_sent(server: &Url, remedy: &str) -> StorageError {
    let shown = server.as_str().trim_end_matches('/');
    StorageError::AccessDenied(format!("tokens are only sent to Google's own hosts, not to {shown}: {remedy}"))
}
