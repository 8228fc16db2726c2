//! What goes over the wire, and that whatever answers, or does not, nothing else happens. Loopback only.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Redirect, Response},
};
use tokio::{net::TcpListener, sync::mpsc};

use super::*;
use crate::worker::{Pace, Progress};

const SHORT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// A request: its path, the `Authorization` header, the body.
type Seen = (String, String, Bytes);

#[derive(Clone)]
struct Server {
    seen: mpsc::UnboundedSender<Seen>,
    answer: Arc<dyn Fn() -> Response + Send + Sync>,
}

/// A server that answers everything like this.
async fn server(answer: impl Fn() -> Response + Send + Sync + 'static) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, received) = mpsc::unbounded_channel();
    let router = Router::new().fallback(handle).with_state(Server { seen, answer: Arc::new(answer) });
    tokio::spawn(axum::serve(listener, router).into_future());
    (address, received)
}

async fn handle(State(server): State<Server>, uri: axum::http::Uri, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    server.seen.send((uri.path().to_owned(), authorization.unwrap_or_default(), body)).ok();
    (server.answer)()
}

fn teller(address: SocketAddr, token: &Path, longest: Duration) -> Teller {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let rhythm = Rhythm { first: SHORT, interval: SHORT, longest, deadline: Duration::from_millis(500) };
    Teller::new(&format!("http://{address}/"), token.to_owned(), rhythm).unwrap()
}

fn state() -> (watch::Sender<Measured>, watch::Receiver<Measured>) {
    let progress = Progress { bytes_done: 7, bytes_total: 5, ..Progress::default() };
    let pace = Pace { bytes_per_second: Some(2), remaining_seconds: Some(1) };
    watch::channel(Measured { progress, pace })
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Seen>) -> Seen {
    tokio::time::timeout(PATIENCE, seen.recv()).await.expect("in time").unwrap()
}

#[tokio::test]
async fn the_latest_numbers_come_with_the_latest_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let (address, mut seen) = server(|| StatusCode::NO_CONTENT.into_response()).await;
    let (sender, receiver) = state();
    let telling = tokio::spawn(teller(address, &token, SHORT).tell(receiver));
    let (path, authorization, body) = next(&mut seen).await;
    assert_eq!((&*path, &*authorization), ("/v1/progress", "Bearer first"));
    let message = ProgressMessage::decode(&body).unwrap();
    assert_eq!((message.sequence, message.bytes_done, message.bytes_total), (1, 5, 5));
    assert_eq!((message.bytes_per_second, message.remaining_seconds), (Some(2), Some(1)));
    std::fs::write(&token, "second").unwrap();
    sender.send_modify(|measured| measured.progress.bytes_total = 9);
    let mut sequence = 1;
    loop {
        let (_, authorization, body) = next(&mut seen).await;
        let message = ProgressMessage::decode(&body).unwrap();
        assert!(message.sequence > sequence, "it grows");
        sequence = message.sequence;
        if authorization == "Bearer second" && message.bytes_total == 9 {
            assert_eq!(message.bytes_done, 7);
            break;
        }
    }
    telling.abort();
}

#[tokio::test]
async fn refusals_and_silence_only_slow_it_down() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let (elsewhere, mut never) = server(|| StatusCode::OK.into_response()).await;
    let target = format!("http://{elsewhere}/v1/progress");
    let answers: [Box<dyn Fn() -> Response + Send + Sync>; 3] = [
        Box::new(|| StatusCode::FORBIDDEN.into_response()),
        Box::new(|| StatusCode::INTERNAL_SERVER_ERROR.into_response()),
        Box::new(move || Redirect::temporary(&target).into_response()),
    ];
    for answer in answers {
        let (address, mut seen) = server(answer).await;
        let telling = tokio::spawn(teller(address, &token, 4 * SHORT).tell(state().1));
        let begun = tokio::time::Instant::now();
        for _ in 0..4 {
            next(&mut seen).await;
        }
        // 1, 2, 4 and 4 pauses.
        assert!(begun.elapsed() >= 11 * SHORT, "{:?}", begun.elapsed());
        assert!(!telling.is_finished());
        telling.abort();
    }
    assert!(never.try_recv().is_err(), "a token follows no redirect");
}

#[tokio::test]
async fn whatever_is_in_the_way_is_given_up_soon() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "token").unwrap();
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap()
    };
    let message = message(1, Measured::default());
    for (address, token, says) in [
        (silent.local_addr().unwrap(), token.clone(), "error sending request"),
        (closed, token.clone(), "error sending request"),
        (closed, folder.path().join("absent"), "the token cannot be read"),
    ] {
        let begun = tokio::time::Instant::now();
        let error = teller(address, &token, SHORT).send(&message).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10));
        assert!(chain(&error).contains(says), "{}", chain(&error));
        assert!(!chain(&error).contains("/v1/progress"), "{}", chain(&error));
    }
}
