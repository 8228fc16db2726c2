//! Who reads a bucket: a Secret's files, nobody, or the pod's own identity. Reads files.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use object_store::{
    CredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential},
};

use crate::contract::environment::S3_KEYS;

use super::super::{
    StorageError,
    remote::secret::{SecretFiles, word},
};

/// Keys of a bucket in files.
#[derive(Debug)]
pub(super) struct KeyFiles(SecretFiles);

impl KeyFiles {
    pub(super) fn new(folder: PathBuf, secret: String) -> Self {
        Self(SecretFiles::new(folder, secret, &S3_KEYS))
    }

    /// Reads the files again and says whether they hold something else than before.
    pub(super) fn reload(&self) -> Result<bool, StorageError> {
        self.0.reload()
    }

    /// The keys, read now unless they were a moment ago.
    pub(super) fn current(&self) -> Result<AwsCredential, StorageError> {
        let keys = self.0.current()?;
        let value = |name| Ok(word(&self.0, &keys, name)?.map(str::to_owned));
        let [id, secret, token] = S3_KEYS.map(value);
        Ok(AwsCredential {
            key_id: id?.ok_or_else(|| self.0.missing(S3_KEYS[0]))?,
            secret_key: secret?.ok_or_else(|| self.0.missing(S3_KEYS[1]))?,
            token: token?,
        })
    }
}

#[async_trait::async_trait]
impl CredentialProvider for KeyFiles {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.current()
            .map(Arc::new)
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(error) })
    }
}

/// Configures the identity that the service account gave the pod: IRSA, EKS Pod Identity, ECS, or keys in the environment.
/// The metadata service of the node is no identity of the pod and is never asked.
pub(super) fn ambient(
    builder: AmazonS3Builder,
    identity: &BTreeMap<String, String>,
    region: &str,
) -> Result<AmazonS3Builder, StorageError> {
    let value = |name: &str| identity.get(name).filter(|value| !value.is_empty());
    let pairs: &[(&str, AmazonS3ConfigKey)] = &[
        ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
        ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
        ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ];
    let web: &[(&str, AmazonS3ConfigKey)] = &[
        ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
        ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
        ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ];
    let container: &[(&str, AmazonS3ConfigKey)] = &[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
    ];
    let relative: &[(&str, AmazonS3ConfigKey)] =
        &[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri)];
    let kinds = [(pairs, 2), (web, 2), (relative, 1), (container, 2)];
    let found = kinds.iter().find(|(names, needed)| names[..*needed].iter().all(|(name, _)| value(name).is_some()));
    let Some((names, _)) = found else {
        return Err(StorageError::AccessDenied(
            "the pod has no identity for S3: neither AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE (IRSA) nor \
             AWS_CONTAINER_CREDENTIALS_FULL_URI (EKS Pod Identity) is set; give the service account a role, or set \
             storage.s3.credentials"
                .into(),
        ));
    };
    let china = region.starts_with("cn-").then(|| format!("https://sts.{region}.amazonaws.com.cn"));
    let builder = china
        .into_iter()
        .fold(builder, |builder, endpoint| builder.with_config(AmazonS3ConfigKey::StsEndpoint, endpoint));
    Ok(names.iter().fold(builder, |builder, (name, key)| match value(name) {
        Some(value) => builder.with_config(*key, value),
        None => builder,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(entries: &[(&str, &str)]) -> (tempfile::TempDir, KeyFiles) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in entries {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let files = KeyFiles::new(folder.path().to_owned(), "s3-creds".into());
        (folder, files)
    }

    #[test]
    fn a_missing_key_is_named() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (
                &[],
                "Secret s3-creds does not exist, or has none of the keys AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN",
            ),
            (&[("AWS_ACCESS_KEY_ID", "a")], "Secret s3-creds has no key AWS_SECRET_ACCESS_KEY"),
            (
                &[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", " \n")],
                "Secret s3-creds has no key AWS_SECRET_ACCESS_KEY",
            ),
            (&[("AWS_SECRET_ACCESS_KEY", "a")], "Secret s3-creds has no key AWS_ACCESS_KEY_ID"),
            (
                &[("AWS_ACCESS_KEY_ID", "a b"), ("AWS_SECRET_ACCESS_KEY", "b")],
                "key AWS_ACCESS_KEY_ID of Secret s3-creds has characters that such a key cannot have",
            ),
        ];
        for (entries, expected) in table {
            let (_folder, files) = files(entries);
            assert_eq!(files.current().unwrap_err().to_string(), *expected);
        }
    }

    #[test]
    fn files_are_read_again_when_asked() {
        let (folder, files) = files(&[("AWS_ACCESS_KEY_ID", "a\n"), ("AWS_SECRET_ACCESS_KEY", "canary")]);
        assert_eq!(files.current().unwrap().key_id, "a");
        assert!(!files.reload().unwrap());
        std::fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), "b").unwrap();
        assert_eq!(files.current().unwrap().key_id, "a");
        assert!(files.reload().unwrap());
        assert_eq!(files.current().unwrap().key_id, "b");
        assert!(!format!("{files:?}").contains("canary"));
    }

    #[test]
    fn no_identity_is_said_and_not_searched_for() {
        let identity = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "/x".to_owned())).collect();
        let ambient = |names: &[&str]| ambient(AmazonS3Builder::new(), &identity(names), "us-east-1");
        for names in [&[][..], &["AWS_ROLE_ARN"], &["AWS_REGION"], &["AWS_CONTAINER_CREDENTIALS_FULL_URI"]] {
            let error = ambient(names).unwrap_err();
            assert!(matches!(&error, StorageError::AccessDenied(text) if text.contains("AWS_ROLE_ARN")), "{error}");
        }
        assert!(ambient(&["AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"]).is_ok());
        assert!(ambient(&["AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).is_ok());
    }
}
