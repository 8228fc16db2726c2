//! A door between worker pods and the S3 server: requests whose line contains a marker wait until it is opened, or all answers
//! together come at a known rate (network I/O).
//!
//! It runs in the test's process, which is on the node's network, and passes bytes through as they are. So a test can hold a
//! worker at a known point, or slow it down, for as long as it likes, and knows afterwards what was asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use checkpoint_operator_e2e::cluster::NODE_ADDRESS;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// Part of the request line of every listing.
pub const LISTING: &str = "list-type=2";

/// The door; dropping it ends all connections.
pub struct Valve {
    /// For `storage.s3.endpoint`.
    pub endpoint: String,
    inner: Arc<Inner>,
    accepting: JoinHandle<()>,
}

struct Inner {
    upstream: String,
    /// Requests with this text wait; none: nothing waits.
    held: watch::Sender<Option<String>>,
    /// Bytes per second of all answers; none: as fast as they come.
    rate: watch::Sender<Option<u32>>,
    /// When the next bytes may pass.
    due: Mutex<Instant>,
    requests: Mutex<Vec<String>>,
}

impl Valve {
    /// A door to the S3 server at `upstream` (a URL) that holds requests with `marker`.
    pub async fn holding(upstream: &str, marker: &str) -> Result<Self> {
        Self::new(upstream, Some(marker.to_owned()), None).await
    }

    /// A door to the S3 server at `upstream` (a URL) that lets so many bytes of answers through in a second.
    pub async fn slow(upstream: &str, rate: u32) -> Result<Self> {
        Self::new(upstream, None, Some(rate)).await
    }

    async fn new(upstream: &str, marker: Option<String>, rate: Option<u32>) -> Result<Self> {
        let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
        let endpoint = format!("http://{NODE_ADDRESS}:{}", listener.local_addr()?.port());
        let upstream = upstream.strip_prefix("http://").context("the S3 server's URL is not http")?.to_owned();
        let (held, rate) = (watch::Sender::new(marker), watch::Sender::new(rate));
        let inner =
            Arc::new(Inner { upstream, held, rate, due: Mutex::new(Instant::now()), requests: Mutex::default() });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Ok(Self { endpoint, inner, accepting })
    }

    /// Lets everything through.
    pub fn open(&self) {
        self.inner.held.send_replace(None);
        self.inner.rate.send_replace(None);
    }

    /// The request lines so far, those that wait included.
    pub fn requests(&self) -> Vec<String> {
        self.inner.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Inner {
    /// Waits until so many bytes may pass, or the door is opened.
    async fn pass(&self, bytes: usize) {
        let mut rate = self.rate.subscribe();
        let Some(limit) = *rate.borrow_and_update() else { return };
        let due = {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            *due = (*due).max(Instant::now()) + Duration::from_secs_f64(bytes as f64 / f64::from(limit));
            *due
        };
        tokio::select! {
            () = sleep_until(due) => {}
            _ = rate.wait_for(Option::is_none) => {}
        }
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        // A connection that breaks is the worker's to repeat.
        connections.spawn(async move { serve(client, &inner).await.ok() });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(client: TcpStream, inner: &Inner) -> Result<()> {
    let server = TcpStream::connect(&inner.upstream).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return anyhow::Ok(());
            }
            if let Some(line) = request_line(&buffer[..length]) {
                inner.requests.lock().unwrap_or_else(PoisonError::into_inner).push(line.clone());
                let passes = |held: &Option<String>| held.as_ref().is_none_or(|marker| !line.contains(marker.as_str()));
                inner.held.subscribe().wait_for(passes).await?;
            }
            to_server.write_all(&buffer[..length]).await?;
        }
    };
    let down = async {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return anyhow::Ok(());
            }
            inner.pass(length).await;
            to_client.write_all(&buffer[..length]).await?;
        }
    };
    // Either end closing ends both directions.
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

/// The first line of a request; clients wait for the answer before they send the next, so each starts a read.
fn request_line(bytes: &[u8]) -> Option<String> {
    let starts = [&b"GET "[..], b"HEAD "].iter().any(|method| bytes.starts_with(method));
    let line = bytes.split(|byte| *byte == b'\r').next().filter(|_| starts)?;
    Some(String::from_utf8_lossy(line).into_owned())
}
