//! Listings that come in pages, as object stores have them. Does I/O through backends.

use futures::future::BoxFuture;

use super::{
    super::{
        Listing, StorageError,
        listing::{Gathering, Object},
    },
    Dialect, Patience,
};

/// A page of a listing.
pub(in crate::storage) struct Page {
    /// What is on it.
    pub objects: Vec<Object>,
    /// What to ask for the next one with; an empty text when there is one and the server does not say how to ask for it.
    pub next: Option<String>,
}

/// A backend whose server lists in pages.
pub(in crate::storage) trait Paged: Dialect {
    /// The path of the checkpoint, without slashes at its ends; empty for all of the place.
    fn path(&self) -> &str;

    /// The place for messages, such as `bucket training`, and what is called a file there.
    fn words(&self) -> (String, &'static str);

    /// The page of what begins with `prefix`, after `token`, with at most so many objects.
    fn page<'a>(
        &'a self,
        prefix: &'a str,
        token: Option<&'a str>,
        most: Option<u32>,
    ) -> BoxFuture<'a, Result<Page, StorageError>>;
}

/// All files of the checkpoint.
pub(in crate::storage) async fn list(store: &impl Paged, patience: Patience<'_>) -> Result<Listing, StorageError> {
    let mut gathering = Gathering::new(store.uri(), store.path());
    let mut token: Option<String> = None;
    loop {
        let page = patience.with(|| store.page(gathering.prefix(), token.as_deref(), None)).await?;
        gathering.add(page.objects)?;
        match page.next {
            None => break,
            Some(next) if next.is_empty() || token.as_ref() == Some(&next) => {
                let host = store.host();
                return Err(StorageError::Unreachable(format!("{host} does not say how its listing goes on")));
            }
            next => token = next,
        }
    }
    match gathering.finish()? {
        Some(listing) => Ok(listing),
        None => Err(nothing(store, patience).await?),
    }
}

/// Why there is nothing below the path.
async fn nothing(store: &impl Paged, patience: Patience<'_>) -> Result<StorageError, StorageError> {
    let (path, (place, item)) = (store.path(), store.words());
    if path.is_empty() {
        return Ok(StorageError::NotFound(format!("the {place} holds nothing")));
    }
    let page = patience.with(|| store.page(path, None, Some(1))).await?;
    Ok(if page.objects.iter().any(|object| object.key == path) {
        StorageError::InvalidPath(format!("{} is a single {item}: path must name the folder it is in", store.uri()))
    } else {
        StorageError::NotFound(format!("nothing in {place} begins with {path}/"))
    })
}
