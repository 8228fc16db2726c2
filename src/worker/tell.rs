//! Tells the controller how far the task is, where there is a way to it. It never delays or fails the task. Does I/O.
//!
//! There may be no way: a network policy, a controller that restarts. Then there is less to see, and nothing else.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{StatusCode, header::CONTENT_TYPE, redirect::Policy};
use tokio::sync::watch;

use crate::contract::{
    ProgressMessage, VERSION, environment,
    progress::{PATH, TOKEN_LIMIT, TOKEN_NAME},
};

use super::progress::Measured;

/// A load that is over sooner has nothing to tell.
const FIRST: Duration = Duration::from_secs(2);
/// How often the controller hears of us.
const INTERVAL: Duration = Duration::from_secs(10);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(160);
/// How long the network may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long everything may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
enum Untold {
    #[error("the token cannot be read: {0}")]
    Token(std::io::Error),
    #[error("{0}")]
    Request(#[from] reqwest::Error),
    #[error("the controller answered {0}")]
    Answer(StatusCode),
}

/// The way to the controller.
pub(super) struct Teller {
    client: reqwest::Client,
    url: String,
    token: PathBuf,
    rhythm: Rhythm,
}

/// When messages are sent.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    first: Duration,
    interval: Duration,
    longest: Duration,
    deadline: Duration,
}

impl Teller {
    /// The way that the environment names, if it names one.
    pub(super) fn from_environment() -> Option<Self> {
        let url = std::env::var(environment::PROGRESS_URL).ok().filter(|url| !url.is_empty())?;
        let token = Path::new(environment::PROGRESS_MOUNT).join(TOKEN_NAME);
        let rhythm = Rhythm { first: FIRST, interval: INTERVAL, longest: LONGEST, deadline: DEADLINE };
        match Self::new(&url, token, rhythm) {
            Ok(teller) => Some(teller),
            Err(error) => {
                tracing::info!(%error, "the controller will not be told how far this is");
                None
            }
        }
    }

    fn new(url: &str, token: PathBuf, rhythm: Rhythm) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .user_agent(crate::USER_AGENT)
            .http1_only()
            .no_proxy()
            // The token goes to the address that the installation names and nowhere else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(rhythm.deadline)
            // The next message is far away; the controller counts its connections.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self { client, url: format!("{}{PATH}", url.trim_end_matches('/')), token, rhythm })
    }

    /// Tells for good; it ends when it is dropped.
    pub(super) async fn tell(self, state: watch::Receiver<Measured>) {
        let mut pause = self.rhythm.first;
        let mut failed = false;
        for sequence in 1.. {
            tokio::time::sleep(pause).await;
            let measured = *state.borrow();
            match self.send(&message(sequence, measured)).await {
                Ok(()) => pause = self.rhythm.interval,
                Err(error) => {
                    pause = (pause * 2).clamp(self.rhythm.interval, self.rhythm.longest);
                    if std::mem::replace(&mut failed, true) {
                        tracing::debug!(error = chain(&error), "the controller was not told how far this is");
                    } else {
                        tracing::info!(
                            error = chain(&error),
                            "the controller cannot be told how far this is; the work goes on without"
                        );
                    }
                }
            }
        }
    }

    async fn send(&self, message: &ProgressMessage) -> Result<(), Untold> {
        // Read each time: the kubelet renews it.
        let token = read_token(&self.token).await.map_err(Untold::Token)?;
        let body = serde_json::to_vec(message).unwrap_or_default();
        let request = self.client.post(&self.url).header(CONTENT_TYPE, "application/json").bearer_auth(token);
        let answer = request.body(body).send().await.map_err(reqwest::Error::without_url)?;
        if answer.status().is_success() { Ok(()) } else { Err(Untold::Answer(answer.status())) }
    }
}

async fn read_token(path: &Path) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt;
    let mut text = String::new();
    tokio::fs::File::open(path).await?.take(TOKEN_LIMIT as u64).read_to_string(&mut text).await?;
    Ok(text.trim().to_owned())
}

/// Bytes that are read again after an error count once.
fn message(sequence: u64, Measured { progress, pace }: Measured) -> ProgressMessage {
    let bytes_done = progress.bytes_done.min(progress.bytes_total);
    ProgressMessage {
        version: VERSION,
        sequence,
        bytes_done,
        bytes_total: progress.bytes_total,
        bytes_per_second: pace.bytes_per_second,
        remaining_seconds: pace.remaining_seconds,
    }
}

/// An error with its causes: what a client says first is only that it failed.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests;
