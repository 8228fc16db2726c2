//! Who runs a command on a laptop, as the Hub's own tools know them: by variables of the environment and the file of a login.
//! Reads that file. Pods have none of this: their tokens come from Secrets.
//!
//! <https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables>

use std::{collections::BTreeMap, fs, io, path::PathBuf};

use url::Url;

use crate::contract::environment::{HUB_ENDPOINT, HUGGING_FACE_KEYS};

use super::super::StorageError;

/// Longest token, in bytes; they have about 40.
const LONGEST: usize = 4 << 10;

/// What the environment says about its person.
#[derive(Clone, Default)]
pub struct Person {
    endpoint: Option<String>,
    token: Option<String>,
    file: Option<PathBuf>,
}

/// Says nothing: the token is secret, and addresses may hold passwords.
impl std::fmt::Debug for Person {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Person").finish_non_exhaustive()
    }
}

impl Person {
    /// The person of an environment: `HF_ENDPOINT`; `HF_TOKEN`, or the file that `HF_TOKEN_PATH` names, or `token` in `HF_HOME`, in
    /// the folder `huggingface` of `XDG_CACHE_HOME` or in that of `~/.cache`.
    #[must_use]
    pub fn of(environment: &BTreeMap<String, String>) -> Self {
        let value = |name: &str| environment.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
        let folder = |name: &str, below: &str| value(name).map(|folder| PathBuf::from(folder).join(below));
        let unwanted = value("HF_HUB_DISABLE_IMPLICIT_TOKEN")
            .is_some_and(|text| ["1", "on", "yes", "true"].contains(&text.to_ascii_lowercase().as_str()));
        let file = value("HF_TOKEN_PATH")
            .map(PathBuf::from)
            .or_else(|| folder("HF_HOME", "token"))
            .or_else(|| folder("XDG_CACHE_HOME", "huggingface/token"))
            .or_else(|| folder("HOME", ".cache/huggingface/token"));
        Self {
            endpoint: value(HUB_ENDPOINT).map(str::to_owned),
            token: value(HUGGING_FACE_KEYS[0]).filter(|_| !unwanted).map(str::to_owned),
            file: file.filter(|_| !unwanted),
        }
    }

    /// The Hub that is meant when nothing names another one.
    pub(super) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    /// Whether this is the server that the person named themselves.
    pub(super) fn named(&self, server: &Url) -> bool {
        let own = self.endpoint().and_then(|endpoint| Url::parse(endpoint).ok());
        own.is_some_and(|own| own.origin() == server.origin())
    }

    /// The token as it is now, if there is one.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn token(&self) -> Result<Option<String>, StorageError> {
        let (text, place) = match (&self.token, &self.file) {
            (Some(token), _) => (token.clone(), "HF_TOKEN".to_owned()),
            (None, None) => return Ok(None),
            (None, Some(file)) => match fs::read(file) {
                Ok(bytes) => (String::from_utf8_lossy(&bytes).trim().to_owned(), file.display().to_string()),
                Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                    return Ok(None);
                }
                Err(error) => {
                    return Err(StorageError::AccessDenied(format!(
                        "the token in {} cannot be read: {}",
                        file.display(),
                        error.kind()
                    )));
                }
            },
        };
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(StorageError::AccessDenied(format!(
                "{place} holds no token of the Hub: it has characters that a token cannot have; log in again"
            )));
        }
        Ok((!text.is_empty()).then_some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Person {
        Person::of(&pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn tokens_are_found_where_the_hubs_tools_put_them() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path).display().to_string();
        for (path, token) in [("named", "hf_named\n"), ("home/token", "hf_home"), ("xdg/huggingface/token", "hf_xdg")] {
            fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
            fs::write(folder.path().join(path), token).unwrap();
        }
        fs::create_dir_all(folder.path().join(".cache/huggingface")).unwrap();
        fs::write(folder.path().join(".cache/huggingface/token"), "hf_cache").unwrap();
        let (named, home, xdg, user) = (at("named"), at("home"), at("xdg"), at(""));
        let all = [
            ("HF_TOKEN", " hf_variable\n"),
            ("HF_TOKEN_PATH", &named),
            ("HF_HOME", &home),
            ("XDG_CACHE_HOME", &xdg),
            ("HOME", &user),
        ];
        let expected = ["hf_variable", "hf_named", "hf_home", "hf_xdg", "hf_cache"];
        for (first, token) in expected.iter().enumerate() {
            assert_eq!(of(&all[first..]).token().unwrap().as_deref(), Some(*token));
        }
        assert_eq!(of(&[("HF_TOKEN", ""), ("HF_HOME", &home)]).token().unwrap().as_deref(), Some("hf_home"));
        assert_eq!(of(&[]).token().unwrap(), None);
        assert_eq!(
            of(&[("HF_HOME", &named), ("HOME", &user)]).token().unwrap(),
            None,
            "what is said is not second-guessed"
        );
        let mut unwanted = all.to_vec();
        unwanted.push(("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"));
        assert_eq!(of(&unwanted).token().unwrap(), None);
        fs::write(&named, "hf_renewed").unwrap();
        assert_eq!(of(&all[1..]).token().unwrap().as_deref(), Some("hf_renewed"));
    }

    #[test]
    fn what_is_no_token_is_said_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token").display().to_string();
        for text in ["{\"canary\": 1}\n{}", "<html> canary", "canär", &"canary".repeat(LONGEST)] {
            fs::write(&file, text).unwrap();
            for (person, place) in
                [(of(&[("HF_TOKEN_PATH", &file)]), file.as_str()), (of(&[("HF_TOKEN", text)]), "HF_TOKEN")]
            {
                let error = person.token().unwrap_err().to_string();
                assert!(error.starts_with(place) && !error.contains("canary"), "{error}");
                assert!(!format!("{person:?}").contains("canar"));
            }
        }
        let is_folder = of(&[("HF_TOKEN_PATH", &folder.path().display().to_string())]);
        assert!(is_folder.token().unwrap_err().to_string().contains("cannot be read"));
        fs::write(&file, " \n").unwrap();
        assert_eq!(of(&[("HF_TOKEN_PATH", &file)]).token().unwrap(), None);
    }

    #[test]
    fn only_the_server_that_the_person_named_is_theirs() {
        let person = of(&[("HF_ENDPOINT", "https://mirror.test/hub")]);
        for (server, expected) in [
            ("https://mirror.test/", true),
            ("https://mirror.test:443/x", true),
            ("http://mirror.test/", false),
            ("https://mirror.test:8443/", false),
            ("https://x.mirror.test/", false),
        ] {
            assert_eq!(person.named(&Url::parse(server).unwrap()), expected, "{server}");
            assert!(!of(&[]).named(&Url::parse(server).unwrap()), "{server}");
        }
    }
}
