//! What the answers of Azure's blob service mean. Pure, no I/O.

use reqwest::header::HeaderMap;

use crate::contract::Access;

use super::super::{
    StorageError,
    remote::{
        client::{Answer, Manners, element},
        errors::{Asked, Place},
    },
};

/// How it answers: <https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-error-codes>.
pub(super) static MANNERS: Manners =
    Manners { server: "a blob service of Azure", codes: CODES, code, headers: &[], elements: &[] };

/// Codes that may be shown.
const CODES: &[&str] = &[
    "AccountIsDisabled",
    "AuthenticationFailed",
    "AuthorizationFailure",
    "AuthorizationPermissionMismatch",
    "AuthorizationProtocolMismatch",
    "AuthorizationResourceTypeMismatch",
    "AuthorizationServiceMismatch",
    "AuthorizationSourceIPMismatch",
    "BlobArchived",
    "BlobNotFound",
    "ConditionNotMet",
    "ContainerBeingDeleted",
    "ContainerDisabled",
    "ContainerNotFound",
    "InsufficientAccountPermissions",
    "InternalError",
    "InvalidAuthenticationInfo",
    "InvalidRange",
    "InvalidResourceName",
    "InvalidUri",
    "NoAuthenticationInformation",
    "OperationTimedOut",
    "PublicAccessNotPermitted",
    "ResourceNotFound",
    "ServerBusy",
];

/// The header has it, also where there is no body.
fn code(headers: &HeaderMap, body: &str) -> Option<String> {
    if let Some(code) = headers.get("x-ms-error-code").and_then(|value| value.to_str().ok()) {
        return Some(code.to_owned());
    }
    element(body, "Code").map(str::to_owned)
}

/// What was asked, for messages.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub place: Place,
    pub account: String,
    /// The container's name.
    pub name: String,
    pub access: Access,
}

impl Container {
    /// The error as one that can be shown.
    pub(super) fn explain(&self, error: &(dyn std::error::Error + 'static), asked: Asked<'_>) -> StorageError {
        self.place.explain(error, |answer| self.answer(answer, asked))
    }

    fn answer(&self, answer: &Answer, asked: Asked<'_>) -> StorageError {
        let Answer { host, status, code, .. } = answer;
        let (shown, container) = (answer.shown(), &self.name);
        match (status, asked) {
            (404 | 410, Asked::File(path)) => StorageError::Changed(format!("{path} is gone since it was listed")),
            // Without public access a container is not there for strangers.
            (404 | 410, Asked::Listing) if self.access == Access::Anonymous => StorageError::NotFound(format!(
                "there is no container {container} at {host}, or it is not public: check the name, or set storage.azure.credentials.secretRef"
            )),
            (404 | 410, Asked::Listing) => {
                StorageError::NotFound(format!("there is no container {container} at {host}"))
            }
            (409, Asked::File(path)) if *code == Some("BlobArchived") => {
                StorageError::AccessDenied(format!("{path} is archived: restore it before it can be read"))
            }
            (409, _) if *code == Some("ContainerBeingDeleted") => {
                StorageError::NotFound(format!("the container {container} is being deleted"))
            }
            // Accounts that allow no public access at all say so with this status.
            (409, _) if *code == Some("PublicAccessNotPermitted") => self.refused(answer, &shown),
            (304 | 412, Asked::File(path)) => StorageError::changed(path),
            (416, Asked::File(path)) => StorageError::Changed(format!("{path} is shorter than it was listed")),
            (401 | 403, _) => self.refused(answer, &shown),
            (200..300, _) => StorageError::Unreachable(format!(
                "{host} answered {status} to a request for a range: it does not serve ranges"
            )),
            (408 | 425 | 429 | 500.., _) => answer.busy(),
            _ => StorageError::InvalidSpec(format!(
                "{host} answered {shown}: check account, container and endpoint; it may not be a blob service of Azure"
            )),
        }
    }

    /// The error of a request for a token.
    pub(super) fn explain_token(&self, error: &(dyn std::error::Error + 'static)) -> StorageError {
        let (who, remedy) = match &self.access {
            Access::Secret(name) => (
                format!("the client of Secret {name}"),
                "check AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, which may be expired",
            ),
            Access::Anonymous | Access::Ambient => (
                "the service account".to_owned(),
                "add a federated credential for it to the application or managed identity",
            ),
        };
        self.place.explain_token(error, &who, remedy, None)
    }

    fn refused(&self, answer: &Answer, shown: &str) -> StorageError {
        let (who, remedy) = match &self.access {
            Access::Secret(name) => (
                format!("the credentials of Secret {name}"),
                match answer.code {
                    Some("AuthenticationFailed") => "the key, signature or token is wrong or expired: renew the Secret",
                    Some(code) if code.ends_with("Mismatch") || code == "InsufficientAccountPermissions" => {
                        "a key of the account is needed, a SAS with read and list, or the role Storage Blob Data Reader"
                    }
                    _ => {
                        "the key, signature or token is wrong or expired, or the account's firewall refuses this address"
                    }
                },
            ),
            Access::Anonymous => (
                "requests without credentials".to_owned(),
                "allow public access with listing, or set storage.azure.credentials.secretRef",
            ),
            Access::Ambient => (
                "the identity of the service account".to_owned(),
                "give it the role Storage Blob Data Reader on the container",
            ),
        };
        StorageError::AccessDenied(format!(
            "{} refuses {who} ({shown}) for container {}: {remedy}",
            answer.host, self.name
        ))
    }
}
