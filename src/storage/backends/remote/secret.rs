//! The keys of a Secret, which the kubelet mounts as files and changes when the Secret changes. Reads files.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::super::StorageError;

/// The kubelet updates mounted Secrets about once a minute.
const FRESH: Duration = Duration::from_mins(1);
/// Longest value of a key, in bytes: a service account's key file has about 2,400.
const LONGEST: usize = 16 << 10;

/// The values of the keys that are there, without white space at their ends. Never shown.
pub(in crate::storage) type Keys = BTreeMap<&'static str, String>;

/// Keys in files below a folder, read again when they may have changed.
pub(in crate::storage) struct SecretFiles {
    folder: PathBuf,
    secret: String,
    names: &'static [&'static str],
    read: Mutex<Option<(Instant, Arc<Keys>)>>,
}

/// Names the Secret and none of its values.
impl std::fmt::Debug for SecretFiles {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SecretFiles").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl SecretFiles {
    /// The files of these names, which are all that is read.
    pub fn new(folder: PathBuf, secret: String, names: &'static [&'static str]) -> Self {
        Self { folder, secret, names, read: Mutex::new(None) }
    }

    /// The Secret's name.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Reads the files again and says whether they hold something else than before.
    pub fn reload(&self) -> Result<bool, StorageError> {
        let fresh = Arc::new(self.read_files()?);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = read.as_ref().is_none_or(|(_, old)| *old != fresh);
        *read = Some((Instant::now(), fresh));
        Ok(changed)
    }

    /// The keys, read now unless they were a moment ago. At least one is there.
    pub fn current(&self) -> Result<Arc<Keys>, StorageError> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, keys)) = read.as_ref()
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(keys));
        }
        let fresh = Arc::new(self.read_files()?);
        *read = Some((Instant::now(), Arc::clone(&fresh)));
        Ok(fresh)
    }

    /// The error for a key that is needed and not there.
    pub fn missing(&self, key: &str) -> StorageError {
        StorageError::AccessDenied(format!("Secret {} has no key {key}", self.secret))
    }

    fn read_files(&self) -> Result<Keys, StorageError> {
        let mut keys = Keys::new();
        for name in self.names {
            keys.extend(self.key(name)?.map(|value| (*name, value)));
        }
        if keys.is_empty() {
            let names = self.names.join(", ");
            return Err(StorageError::AccessDenied(format!(
                "Secret {} does not exist, or has none of the keys {names}",
                self.secret
            )));
        }
        Ok(keys)
    }

    /// The text of a key; none when it is not there or empty.
    fn key(&self, key: &str) -> Result<Option<String>, StorageError> {
        let problem = |what: &str| StorageError::AccessDenied(format!("key {key} of Secret {} {what}", self.secret));
        let text = match std::fs::read(self.folder.join(key)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(problem(&format!("cannot be read: {}", error.kind()))),
        };
        // Line breaks at the end are the most common mistake in Secrets, and never a part of a key.
        let trimmed = text.trim_ascii();
        let usable = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
        if trimmed.len() > LONGEST {
            return Err(problem(&format!("is longer than {LONGEST} bytes: it is something else")));
        }
        if !trimmed.iter().all(usable) {
            return Err(problem("has characters that such a key cannot have"));
        }
        Ok((!trimmed.is_empty()).then(|| String::from_utf8_lossy(trimmed).into_owned()))
    }
}

/// A value that goes into a header or a signature: one word.
pub(in crate::storage) fn word<'a>(
    files: &SecretFiles,
    keys: &'a Keys,
    name: &str,
) -> Result<Option<&'a str>, StorageError> {
    match keys.get(name) {
        Some(value) if value.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(value)),
        Some(_) => Err(StorageError::AccessDenied(format!(
            "key {name} of Secret {} has characters that such a key cannot have",
            files.secret()
        ))),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::testing::secret, *};

    const NAMES: &[&str] = &["first", "second"];

    #[test]
    fn values_that_are_none_are_refused_by_name() {
        let long = "a".repeat(LONGEST + 1);
        for (keys, part) in [
            (&[("third", "canary")][..], "Secret keys does not exist, or has none of the keys first, second"),
            (&[("first", " \n")], "has none of the keys first, second"),
            (&[("first", "canary\u{0}")], "key first of Secret keys has characters"),
            (&[("second", "canary\u{fe}")], "key second of Secret keys has characters"),
            (&[("second", &long)], "key second of Secret keys is longer than 16384 bytes"),
        ] {
            let (folder, _) = secret(keys);
            let error = SecretFiles::new(folder.path().to_owned(), "keys".into(), NAMES).current().unwrap_err();
            assert!(matches!(&error, StorageError::AccessDenied(text) if text.contains(part)), "{error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn files_are_read_again_after_a_while() {
        let (folder, _) = secret(&[("first", "old")]);
        let files = SecretFiles::new(folder.path().to_owned(), "keys".into(), NAMES);
        let first = || files.current().unwrap()["first"].clone();
        assert_eq!(first(), "old");
        std::fs::write(folder.path().join("first"), "new").unwrap();
        assert_eq!(first(), "old");
        let mut read = files.read.lock().unwrap();
        let (when, _) = read.as_mut().unwrap();
        *when = when.checked_sub(FRESH).unwrap();
        drop(read);
        assert_eq!(first(), "new");
    }
}
