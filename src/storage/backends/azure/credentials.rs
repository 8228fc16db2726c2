//! Who reads a container: a Secret's key, signature or client, nobody, or the pod's own identity. Reads files, asks for tokens.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use object_store::{
    ClientOptions, RetryConfig, StaticCredentialProvider,
    azure::{
        AzureAccessKey, AzureConfigKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder, split_sas,
    },
};
use url::Url;

use crate::contract::{
    Access, AzureTask,
    environment::{ALLOWED_HOSTS, AZURE_KEYS},
};

use super::super::{
    Mounts, StorageError,
    remote::{
        client::Connector,
        hosts::may_have_bearer,
        secret::{Keys, SecretFiles, word},
    },
};

/// Domains of Microsoft's own servers, in all clouds.
const OWN: &[&str] = &["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "core.cloudapi.de"];
const KEY: &str = AZURE_KEYS[0];
const SAS: &str = AZURE_KEYS[1];
const TENANT: &str = AZURE_KEYS[2];
const CLIENT: &str = AZURE_KEYS[3];
const CLIENT_SECRET: &str = AZURE_KEYS[4];

/// Gives the credentials.
pub(super) enum Reader {
    /// Requests have none.
    Anonymous,
    /// The pod's own identity.
    Ambient(AzureCredentialProvider),
    /// A Secret's keys, and what is made of them; made anew when they change.
    Secret(Box<FromSecret>),
}

/// What a Secret gives.
pub(super) struct FromSecret {
    files: SecretFiles,
    server: Url,
    connector: Connector,
    account: String,
    made: Mutex<Option<(Arc<Keys>, AzureCredentialProvider)>>,
}

impl Reader {
    /// Checks who is to read.
    pub(super) fn open(
        task: &AzureTask,
        mounts: &Mounts,
        connector: &Connector,
        server: &Url,
    ) -> Result<Self, StorageError> {
        match &task.connection.access {
            Access::Anonymous => Ok(Self::Anonymous),
            Access::Ambient => ambient(task, &mounts.identity, connector, server).map(Self::Ambient),
            Access::Secret(name) => {
                let secret = FromSecret {
                    files: SecretFiles::new(mounts.credentials.clone(), name.clone(), &AZURE_KEYS),
                    server: server.clone(),
                    connector: connector.clone(),
                    account: task.account.clone(),
                    made: Mutex::new(None),
                };
                secret.provider()?;
                Ok(Self::Secret(Box::new(secret)))
            }
        }
    }

    /// What signs requests now; none for anonymous ones.
    pub(super) async fn credential(&self) -> object_store::Result<Option<Arc<AzureCredential>>> {
        let provider = match self {
            Self::Anonymous => return Ok(None),
            Self::Ambient(provider) => Arc::clone(provider),
            Self::Secret(secret) => secret
                .provider()
                .map_err(|error| object_store::Error::Generic { store: "Azure", source: Box::new(error) })?,
        };
        provider.get_credential().await.map(Some)
    }

    /// Reads the Secret's files again and says whether they hold something else than before.
    pub(super) fn renew(&self) -> Result<bool, StorageError> {
        if let Self::Secret(secret) = self { secret.files.reload() } else { Ok(false) }
    }
}

impl FromSecret {
    fn provider(&self) -> Result<AzureCredentialProvider, StorageError> {
        let keys = self.files.current()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, provider)) = made.as_ref()
            && *of == keys
        {
            return Ok(Arc::clone(provider));
        }
        let provider = self.make(&keys)?;
        *made = Some((keys, Arc::clone(&provider)));
        Ok(provider)
    }

    /// A key signs requests and may go anywhere; whoever sees a SAS or a token can use it.
    fn make(&self, keys: &Keys) -> Result<AzureCredentialProvider, StorageError> {
        let files = &self.files;
        let value = |name| word(files, keys, name);
        let malformed = |name: &str, kind: &str| {
            StorageError::AccessDenied(format!("key {name} of Secret {} is no {kind}", files.secret()))
        };
        if let Some(key) = value(KEY)? {
            let key = AzureAccessKey::try_new(key).map_err(|_| {
                malformed(KEY, "key of a storage account: copy it, in base64, from the account's access keys")
            })?;
            return Ok(fixed(AzureCredential::AccessKey(key)));
        }
        if !may_have_bearer(&self.server, OWN, keys.get(ALLOWED_HOSTS).map(String::as_str)) {
            return Err(not_sent(
                &self.server,
                &format!("list it in the key {ALLOWED_HOSTS} of Secret {}", files.secret()),
            ));
        }
        if let Some(sas) = value(SAS)? {
            let pairs =
                split_sas(sas.trim_start_matches('?')).map_err(|_| malformed(SAS, "shared access signature"))?;
            if !pairs.iter().any(|(name, _)| name == "sig") {
                return Err(malformed(SAS, "shared access signature"));
            }
            return Ok(fixed(AzureCredential::SASToken(pairs)));
        }
        let need = |name| value(name)?.ok_or_else(|| files.missing(name));
        if keys.contains_key(CLIENT_SECRET) || keys.contains_key(CLIENT) || keys.contains_key(TENANT) {
            let (tenant, client, secret) = (need(TENANT)?, need(CLIENT)?, need(CLIENT_SECRET)?);
            let builder = builder(&self.connector, &self.account)
                .with_client_secret_authorization(client, secret, tenant)
                .with_config(AzureConfigKey::CredentialType, "client_secret");
            let store = builder.build().map_err(|_| malformed(CLIENT_SECRET, "secret of a client"))?;
            return Ok(Arc::clone(store.credentials()));
        }
        Err(StorageError::AccessDenied(format!(
            "Secret {} has neither {KEY}, nor {SAS}, nor {TENANT}, {CLIENT} and {CLIENT_SECRET}",
            files.secret()
        )))
    }
}

fn fixed(credential: AzureCredential) -> AzureCredentialProvider {
    Arc::new(StaticCredentialProvider::new(credential))
}

fn builder(connector: &Connector, account: &str) -> MicrosoftAzureBuilder {
    // Only the credentials of this client are used, so it needs no container of its own.
    MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name("credentials")
        .with_client_options(ClientOptions::new())
        .with_http_connector(connector.clone())
        .with_retry(RetryConfig { max_retries: 2, ..RetryConfig::default() })
}

/// Microsoft Entra workload identity: a token of the service account in a file is changed for one of Azure.
fn ambient(
    task: &AzureTask,
    identity: &BTreeMap<String, String>,
    connector: &Connector,
    server: &Url,
) -> Result<AzureCredentialProvider, StorageError> {
    if !may_have_bearer(server, OWN, None) {
        return Err(not_sent(server, "set storage.azure.credentials.secretRef, or anonymous: true"));
    }
    let value = |name: &str| identity.get(name).filter(|value| !value.is_empty());
    let (Some(client), Some(tenant), Some(file)) =
        (value("AZURE_CLIENT_ID"), value("AZURE_TENANT_ID"), value("AZURE_FEDERATED_TOKEN_FILE"))
    else {
        return Err(StorageError::AccessDenied(
            "the pod has no identity for Azure: AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_FEDERATED_TOKEN_FILE are not set; \
             give the service account one (workload identity), or set storage.azure.credentials"
                .into(),
        ));
    };
    let mut builder = builder(connector, &task.account)
        .with_config(AzureConfigKey::CredentialType, "workload_identity")
        .with_config(AzureConfigKey::ClientId, client)
        .with_config(AzureConfigKey::AuthorityId, tenant)
        .with_config(AzureConfigKey::FederatedTokenFile, file);
    if let Some(host) = value("AZURE_AUTHORITY_HOST") {
        builder = builder.with_config(AzureConfigKey::AuthorityHost, host.trim_end_matches('/'));
    }
    let unusable = |_| {
        StorageError::AccessDenied("the pod's identity for Azure cannot be used: check AZURE_AUTHORITY_HOST".into())
    };
    Ok(Arc::clone(builder.build().map_err(unusable)?.credentials()))
}

fn not_sent(server: &Url, remedy: &str) -> StorageError {
    let shown = server.as_str().trim_end_matches('/');
    StorageError::AccessDenied(format!(
        "signatures and tokens are only sent to Azure's own hosts, not to {shown}: {remedy}"
    ))
}
