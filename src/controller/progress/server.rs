//! The endpoint to which workers tell how far they are: bounded in every way, since whoever reaches it may knock. Does I/O.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{AUTHORIZATION, CONNECTION},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use jiff::Timestamp;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    super::{context::Shared, error::Error},
    Standing, Taken,
    door::Door,
    review::{self, Worker},
    token::{self, Claimed},
};
use crate::{
    contract::{
        ProgressMessage,
        progress::{MESSAGE_LIMIT, MessageError, PATH},
    },
    runtime::metrics::Heard,
};

/// Limits of the endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may last.
    pub lifetime: Duration,
    /// Requests that are worked on at once.
    pub requests: usize,
    /// How long a request may take.
    pub deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 128, lifetime: Duration::from_secs(10), requests: 16, deadline: Duration::from_secs(5) }
    }
}

/// Why a message is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("a bearer token is needed")]
    NoToken,
    #[error("this is not a pod's token for this endpoint")]
    OtherToken,
    #[error("this pod is not a worker of a Checkpoint that is served here")]
    UnknownPod,
    #[error("the API server does not confirm this token")]
    NotAuthentic,
    #[error("too often: tell it again in ten seconds")]
    TooOften,
    #[error("a later message came before this one")]
    Overtaken,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the message has more than {MESSAGE_LIMIT} bytes, or broke off")]
    Body,
    #[error("too many requests at once, or one that takes too long")]
    Busy,
    #[error("the API server cannot be asked about the token")]
    Unavailable(#[source] Error),
}

impl Refusal {
    fn kind(&self) -> (StatusCode, Heard) {
        match self {
            Self::NoToken | Self::OtherToken | Self::NotAuthentic => (StatusCode::UNAUTHORIZED, Heard::Unauthenticated),
            Self::UnknownPod => (StatusCode::FORBIDDEN, Heard::Unknown),
            Self::TooOften => (StatusCode::TOO_MANY_REQUESTS, Heard::TooOften),
            Self::Overtaken => (StatusCode::CONFLICT, Heard::Overtaken),
            Self::Message(MessageError::TooLong(_)) | Self::Body => (StatusCode::PAYLOAD_TOO_LARGE, Heard::Invalid),
            Self::Message(_) => (StatusCode::BAD_REQUEST, Heard::Invalid),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, Heard::Busy),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, Heard::Unavailable),
        }
    }
}

#[derive(Clone)]
struct Endpoint {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    deadline: Duration,
}

/// Serves the endpoint for good.
pub async fn serve(shared: Arc<Shared>, listener: TcpListener, limits: Limits) {
    let endpoint = Endpoint { shared, places: Arc::new(Semaphore::new(limits.requests)), deadline: limits.deadline };
    let router = Router::new().route(PATH, post(receive)).with_state(endpoint);
    let door = Door::new(listener, limits.connections, limits.lifetime);
    // It never ends by itself: errors of single connections are theirs.
    let _ = axum::serve(door, router).await;
}

async fn receive(State(endpoint): State<Endpoint>, request: Request) -> Response {
    let taken = async {
        let _place = endpoint.places.try_acquire().map_err(|_| Refusal::Busy)?;
        let taking = take(&endpoint.shared, request);
        tokio::time::timeout(endpoint.deadline, taking).await.unwrap_or(Err(Refusal::Busy))
    };
    let answer = match taken.await {
        Ok(()) => {
            endpoint.shared.metrics.heard(Heard::Taken);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refuse(&endpoint.shared, &refusal),
    };
    // Each message has a connection of its own: the next one is far away.
    ([(CONNECTION, "close")], answer).into_response()
}

fn refuse(shared: &Shared, refusal: &Refusal) -> Response {
    let (status, heard) = refusal.kind();
    shared.metrics.heard(heard);
    if let Refusal::Unavailable(error) = refusal {
        shared.metrics.error(error.class());
        tracing::warn!(%error, "a worker's token cannot be verified, so what it tells is not shown");
    } else {
        tracing::debug!(%refusal, "what a worker tells is not taken");
    }
    (status, format!("{refusal}\n")).into_response()
}

/// Cheap refusals first: the API server is asked only about what may be a worker, and the body is read last.
async fn take(shared: &Shared, request: Request) -> Result<(), Refusal> {
    let (head, body) = request.into_parts();
    let token = bearer(&head.headers).ok_or(Refusal::NoToken)?;
    let claimed = token::claimed(token).ok_or(Refusal::OtherToken)?;
    let worker = review::worker(&shared.world, &claimed).ok_or(Refusal::UnknownPod)?;
    let result = hear(shared, token, &claimed, worker, body).await;
    // It may have gone meanwhile, and nobody else would clear its seat away.
    if review::worker(&shared.world, &claimed).is_none() {
        shared.world.progress.forget(&claimed.pod_uid);
    }
    result
}

async fn hear(shared: &Shared, token: &str, claimed: &Claimed, worker: Worker, body: Body) -> Result<(), Refusal> {
    let checkpoint = &worker.checkpoint_uid;
    authenticate(shared, token, claimed, checkpoint).await?;
    let message = ProgressMessage::decode(&to_bytes(body, MESSAGE_LIMIT).await.map_err(|_| Refusal::Body)?)?;
    match shared.world.progress.take(&claimed.pod_uid, checkpoint, message, Timestamp::now(), Instant::now()) {
        Taken::Shown => {
            if let Some(scope) = shared.world.scope(&claimed.namespace) {
                scope.enqueue(worker.checkpoint);
            }
            Ok(())
        }
        Taken::Kept => Ok(()),
        Taken::Overtaken => Err(Refusal::Overtaken),
        Taken::TooOften => Err(Refusal::TooOften),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

async fn authenticate(shared: &Shared, token: &str, claimed: &Claimed, checkpoint: &str) -> Result<(), Refusal> {
    let (board, hash, pod) = (&shared.world.progress, blake3::hash(token.as_bytes()), &claimed.pod_uid);
    match board.standing(pod, checkpoint, hash, Instant::now()) {
        Standing::Verified => return Ok(()),
        // Whoever guesses at tokens of a pod keeps at most that pod from telling.
        Standing::Wait => return Err(Refusal::TooOften),
        Standing::Ask => {}
    }
    if review::is_authentic(&shared.client, token, claimed).await.map_err(Refusal::Unavailable)? {
        board.verify(pod, checkpoint, hash, Instant::now());
        Ok(())
    } else {
        Err(Refusal::NotAuthentic)
    }
}
