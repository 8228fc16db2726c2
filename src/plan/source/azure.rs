//! `abfs://` URIs and `storage.azure`. Pure, no I/O.

use crate::{
    api::AzureSource,
    contract::{AzureTask, Connection, Source},
};

use super::{Outcome, access, ca, endpoint, folder, invalid, located, split};

/// `container@account.dfs.core.windows.net/path` as Ray and Hadoop write it, or `container/path`.
pub(super) fn azure_uri(rest: &str, azure: &AzureSource) -> Outcome {
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
pub(super) fn is_azure(host: &str) -> bool {
    let clouds = ["core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "core.cloudapi.de"];
    let service = |cloud: &&str| ["blob", "dfs"].iter().any(|service| host.ends_with(&format!(".{service}.{cloud}")));
    clouds.iter().any(service)
}

pub(super) fn azure_source(container: &str, path: &str, azure: &AzureSource) -> Outcome {
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
    let task = AzureTask { account: account.to_owned(), container: container.to_owned(), path, connection };
    let uri = task.uri();
    Ok(located(Source::Azure(task), uri))
}
