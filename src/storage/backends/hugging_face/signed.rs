//! Signed addresses of large files, for as long as they certainly work. Pure, no I/O.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use url::Url;

/// Signatures of the Hub last an hour; mirrors may be less generous, and are asked again when they refuse.
const FRESH: Duration = Duration::from_mins(10);
/// Most addresses that are kept, of about 1 KiB each.
const MOST: usize = 1024;

/// Addresses by path. They are secrets, so nothing shows them.
#[derive(Default)]
pub(super) struct Signed(Mutex<HashMap<String, (Instant, Url)>>);

impl Signed {
    /// The address of a file, if one is known that works.
    pub(super) fn get(&self, path: &str) -> Option<Url> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(path).filter(|(when, _)| when.elapsed() < FRESH).map(|(_, url)| url.clone())
    }

    /// Keeps an address.
    pub(super) fn keep(&self, path: &str, url: Url) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(path.to_owned(), (Instant::now(), url));
    }

    /// Drops an address that did not work.
    pub(super) fn forget(&self, path: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let signed = Signed::default();
        let url = Url::parse("https://cdn.test/x?signature=1").unwrap();
        (0..MOST).for_each(|number| signed.keep(&number.to_string(), url.clone()));
        assert_eq!(signed.get("0"), Some(url.clone()));
        signed.keep("more", url.clone());
        assert_eq!((signed.get("0"), signed.get("more")), (None, Some(url)));
        signed.forget("more");
        assert_eq!(signed.get("more"), None);
    }
}
