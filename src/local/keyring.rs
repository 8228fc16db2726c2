//! Secrets and `ConfigMaps` on a laptop: from the manifest, a folder, or the environment, into private files. Does I/O.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{contract::environment, storage::Person};

use super::{Documents, LocalError, documents::Files, world::is_dns_subdomain};

/// Where the keys come from.
pub struct Keyring {
    secrets: BTreeMap<(String, String), Files>,
    config_maps: BTreeMap<(String, String), Files>,
    folder: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    private: TempDir,
}

impl Keyring {
    /// Keys from the documents, then from `folder` (a subfolder a Secret, a file a key), then from `environment`.
    ///
    /// # Errors
    /// When no private folder can be made.
    pub fn new(
        documents: &Documents,
        folder: Option<PathBuf>,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, LocalError> {
        let private = tempfile::Builder::new()
            .prefix("checkpoint-operator-")
            .tempdir()
            .map_err(LocalError::at(Path::new("temporary folder")))?;
        Ok(Self {
            secrets: documents.secrets.clone(),
            config_maps: documents.config_maps.clone(),
            folder,
            environment,
            private,
        })
    }

    /// Environment variables that carry the user's own identity.
    #[must_use]
    pub fn identity(&self) -> BTreeMap<String, String> {
        self.environment.clone()
    }

    /// Who runs the command.
    #[must_use]
    pub fn person(&self) -> Person {
        Person::of(&self.environment)
    }

    /// A folder with these keys of the Secret, one file each; an empty one when there are none.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn credentials(&self, namespace: &str, secret: &str, keys: &[&str]) -> Result<PathBuf, LocalError> {
        let mut files = self.find(&self.secrets, namespace, secret, keys)?;
        if files.is_empty() {
            for key in keys {
                files.extend(self.variable(key)?.map(|value| ((*key).to_owned(), value)));
            }
        }
        let folder = self.private.path().join("credentials").join(namespace).join(file_name(secret));
        for key in keys {
            if let Some(bytes) = files.get(*key) {
                write(&folder.join(key), bytes)?;
            }
        }
        Ok(folder)
    }

    /// The variable of the key's name; for a token of the Hub also the file of a login, for a service account of Google Cloud the
    /// file that its usual variable names.
    fn variable(&self, key: &str) -> Result<Option<Vec<u8>>, LocalError> {
        if key == environment::HUGGING_FACE_KEYS[0] {
            return Ok(self.person().token()?.map(String::into_bytes));
        }
        if key != environment::GCS_KEYS[0] {
            return Ok(self.environment.get(key).map(|value| value.clone().into_bytes()));
        }
        let Some(path) = self.environment.get(environment::GCS_KEY_FILE).map(Path::new) else { return Ok(None) };
        fs::read(path).map(Some).map_err(LocalError::at(path))
    }

    /// A file with the certificate authorities; it does not exist when the `ConfigMap` or its key does not.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn authorities(&self, namespace: &str, config_map: &str, key: &str) -> Result<PathBuf, LocalError> {
        let path = self.private.path().join("ca").join(namespace).join(file_name(config_map)).join("ca.crt");
        if let Some(bytes) = self.find(&self.config_maps, namespace, config_map, &[key])?.get(key) {
            write(&path, bytes)?;
        }
        Ok(path)
    }

    fn find(
        &self,
        documents: &BTreeMap<(String, String), Files>,
        namespace: &str,
        name: &str,
        keys: &[&str],
    ) -> Result<Files, LocalError> {
        if let Some(files) = documents.get(&(namespace.to_owned(), name.to_owned())) {
            return Ok(files.clone());
        }
        let mut files = Files::new();
        // Only names that Kubernetes accepts, which lead nowhere else.
        let Some(folder) = self.folder.as_ref().filter(|_| is_dns_subdomain(name)) else { return Ok(files) };
        for key in keys.iter().filter(|key| !key.contains('/') && **key != "..") {
            let path = folder.join(name).join(key);
            match fs::read(&path) {
                Ok(bytes) => drop(files.insert((*key).to_owned(), bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(LocalError::at(&path)(error)),
            }
        }
        Ok(files)
    }
}

/// A name for a folder, whatever the text: names of objects come from a user.
fn file_name(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex()[..16].to_owned()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LocalError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(LocalError::at(folder))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(bytes)).map_err(LocalError::at(path))
}
