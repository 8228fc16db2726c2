//! What all backends behind HTTP share: patience, reads that go on where they broke off, listings, credentials in files. Does I/O.
//!
//! A backend is a [`Dialect`]: how its server lists, how a range is asked for, what its answers mean. Everything that has to
//! hold for all of them (retries by class, one renewal of credentials, stalls, exact lengths) is written once, here.

mod authorities;
pub(super) mod client;
pub(super) mod endpoint;
pub(super) mod errors;
pub(super) mod hosts;
pub(super) mod pages;
pub(super) mod redirect;
pub(super) mod request;
pub(super) mod secret;
#[cfg(test)]
pub(super) mod testing;

pub(super) use authorities::authorities;

use std::{
    future::Future,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{
    FutureExt, StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};

use super::{Checksum, Class, Entry, Listing, Pieces, Retry, Storage, StorageError, Window};

/// The bytes of an answer. Errors are explained already.
pub(super) type Body = BoxStream<'static, Result<Bytes, StorageError>>;

/// What tells one kind of server from another.
pub(super) trait Dialect: Send + Sync {
    /// The full location of the checkpoint, without secrets.
    fn uri(&self) -> String;

    /// The server, for messages.
    fn host(&self) -> &str;

    /// All files. Every request is made through `patience`.
    fn list<'a>(&'a self, patience: Patience<'a>) -> BoxFuture<'a, Result<Listing, StorageError>>;

    /// Begins to read, once: the answer was checked to be that range of that version.
    fn begin<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> BoxFuture<'a, Result<Body, StorageError>>;

    /// Begins to read a whole file, once, and its checksum as far as answers tell it.
    fn begin_whole<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<(Option<Checksum>, Body), StorageError>> {
        async { Ok((entry.checksum, self.begin(entry, 0..entry.size).await?)) }.boxed()
    }

    /// As [`Storage::checksums`], asked for once.
    fn checksums<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Result<Vec<Window>, StorageError>> {
        future::ready(Ok(Window::of(entry.checksum, entry.size))).boxed()
    }

    /// As [`Storage::in_sequence`].
    fn in_sequence(&self) -> bool {
        false
    }

    /// Reads credentials again after a refusal, and says whether they are others by now.
    fn renew(&self) -> Result<bool, StorageError> {
        Ok(false)
    }
}

/// A checkpoint on a server.
pub struct Remote<D> {
    dialect: D,
    retry: Retry,
    setbacks: AtomicU64,
}

impl<D> Remote<D> {
    pub(super) fn new(dialect: D, retry: Retry) -> Self {
        Self { dialect, retry, setbacks: AtomicU64::new(0) }
    }
}

/// How a backend's requests are repeated.
#[derive(Clone, Copy)]
pub(super) struct Patience<'a> {
    dialect: &'a dyn Dialect,
    retry: &'a Retry,
    setbacks: &'a AtomicU64,
}

impl Patience<'_> {
    /// Repeats what failed in passing, and once what was refused if the credentials are others by now.
    pub async fn with<T, F, A>(self, mut attempt: A) -> Result<T, StorageError>
    where
        F: Future<Output = Result<T, StorageError>> + Send,
        A: FnMut() -> F + Send,
    {
        let mut failures = Failures::default();
        loop {
            match attempt().await {
                Ok(answer) => return Ok(answer),
                Err(error) => self.wait(&mut failures, error).await?,
            }
        }
    }

    /// Waits before another attempt, or says that there is none.
    async fn wait(self, failures: &mut Failures, error: StorageError) -> Result<(), StorageError> {
        if matches!(error, StorageError::AccessDenied(_)) {
            let renewed = !failures.renewed && self.dialect.renew()?;
            failures.renewed = true;
            return if renewed { Ok(()) } else { Err(error) };
        }
        failures.count += 1;
        if error.class() == Class::Terminal || failures.count >= self.retry.attempts {
            return Err(error);
        }
        self.setbacks.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, failures = failures.count, "trying again");
        tokio::time::sleep(self.retry.delay(failures.count, error.retry_after())).await;
        Ok(())
    }
}

/// How often something failed since it last went on.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    renewed: bool,
}

fn patience<D: Dialect>(remote: &Remote<D>) -> Patience<'_> {
    Patience { dialect: &remote.dialect, retry: &remote.retry, setbacks: &remote.setbacks }
}

/// The pieces of a range; `body` is an answer that holds it, if there is one already.
fn pieces<'a>(patience: Patience<'a>, entry: &'a Entry, range: Range<u64>, body: Option<Body>) -> Pieces<'a> {
    let reading = Reading { patience, entry, rest: range, body, failures: Failures::default() };
    stream::try_unfold(reading, |mut reading| async move {
        if reading.rest.is_empty() {
            return Ok(None);
        }
        let bytes = reading.next().await?;
        Ok(Some((bytes, reading)))
    })
    .boxed()
}

/// A read under way.
struct Reading<'a> {
    patience: Patience<'a>,
    entry: &'a Entry,
    rest: Range<u64>,
    body: Option<Body>,
    failures: Failures,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Bytes, StorageError> {
        loop {
            match self.attempt().await {
                Ok(bytes) => {
                    self.failures = Failures::default();
                    self.rest.start += bytes.len() as u64;
                    return Ok(bytes);
                }
                Err(error) => {
                    self.body = None;
                    self.patience.wait(&mut self.failures, error).await?;
                }
            }
        }
    }

    /// The next bytes, at least one.
    async fn attempt(&mut self) -> Result<Bytes, StorageError> {
        let (dialect, path) = (self.patience.dialect, &self.entry.path);
        let body = match &mut self.body {
            Some(body) => body,
            none => none.insert(dialect.begin(self.entry, self.rest.clone()).await?),
        };
        loop {
            let host = dialect.host();
            let Some(piece) = body.next().await else {
                return Err(StorageError::Unreachable(format!("{host} ended {path} too early")));
            };
            let bytes = piece?;
            if bytes.len() as u64 > self.rest.end - self.rest.start {
                return Err(StorageError::Unreachable(format!("{host} sent more of {path} than was asked for")));
            }
            if !bytes.is_empty() {
                return Ok(bytes);
            }
        }
    }
}

impl<D: Dialect> Storage for Remote<D> {
    fn uri(&self) -> String {
        self.dialect.uri()
    }

    fn in_sequence(&self) -> bool {
        self.dialect.in_sequence()
    }

    fn list(&self) -> BoxFuture<'_, Result<Listing, StorageError>> {
        self.dialect.list(patience(self))
    }

    fn read<'a>(&'a self, entry: &'a Entry, range: Range<u64>) -> Pieces<'a> {
        pieces(patience(self), entry, range, None)
    }

    fn checksums<'a>(&'a self, entry: &'a Entry) -> BoxFuture<'a, Vec<Window>> {
        async {
            let asked = patience(self).with(|| self.dialect.checksums(entry)).await;
            asked.unwrap_or_else(|error| {
                tracing::debug!(%error, path = entry.path, "no checksum can be had");
                Vec::new()
            })
        }
        .boxed()
    }

    fn read_whole<'a>(
        &'a self,
        entry: &'a Entry,
    ) -> BoxFuture<'a, Result<(Option<Checksum>, Pieces<'a>), StorageError>> {
        async move {
            if entry.size == 0 {
                return Ok((entry.checksum, pieces(patience(self), entry, 0..0, None)));
            }
            let (checksum, body) = patience(self).with(|| self.dialect.begin_whole(entry)).await?;
            Ok((checksum, pieces(patience(self), entry, 0..entry.size, Some(body))))
        }
        .boxed()
    }

    fn setbacks(&self) -> u64 {
        self.setbacks.load(Ordering::Relaxed)
    }
}
