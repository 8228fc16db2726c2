//! Azure Blob Storage and Data Lake Storage: `spec.storage.azure`. No behaviour, no I/O.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CaBundle, SecretReference};

/// A container of Azure Blob Storage or Data Lake Storage and how to reach it.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AzureSource {
    /// The storage account. Leave it out when `path` is a URI that names it: `abfs://container@account.dfs.core.windows.net/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 24), regex(pattern = r"^[a-z0-9]+$"))]
    pub account: Option<String>,
    /// The container's name. Leave it out when `path` is an `abfs://` or `az://` URI, which names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[$a-z0-9][a-z0-9-]+$"))]
    pub container: Option<String>,
    /// The address of the blob service when it is not `https://ACCOUNT.blob.core.windows.net`, such as that of another cloud.
    /// For an emulator, which has the account in its paths, the account is appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/@?#\s]+/?$"))]
    pub endpoint: Option<String>,
    /// Must be true for an `http://` endpoint: the data and the requests are then readable on the network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Certificate authorities to trust in addition to the usual ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// Who reads. Left out: whatever the service account of the worker pods gives (Microsoft Entra workload identity).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<AzureCredentials>,
}

/// Who reads the container: a Secret's keys, or nobody in particular.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.secretRef) != (has(self.anonymous) && self.anonymous)")
        .message("set either secretRef or anonymous: true; leave credentials out to use the service account's own identity"),
)]
pub struct AzureCredentials {
    /// A Secret with `AZURE_STORAGE_KEY`, or `AZURE_STORAGE_SAS_TOKEN`, or `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and
    /// `AZURE_CLIENT_SECRET`. Tokens are sent to Azure's hosts and to those that its key `allowedHosts` lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// True for public containers: requests carry no signature.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}
