//! The endpoint over loopback, with an API server in memory: who is heard, who is not, and what it costs. Loopback only.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use kube::runtime::{reflector::store::Writer, watcher};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Settings,
        context::{self, Cached, Feed, Shared},
        run_with,
        testing::{Call, Fault, Server, status},
    },
    *,
};
use crate::{
    api::{LABEL_CHECKPOINT_UID, LABEL_MANAGED_BY, MANAGED_BY},
    contract::{
        VERSION,
        progress::{AUDIENCE, PATH},
    },
    plan::{self, Config, Observed, Plan},
};

fn message(sequence: u64, bytes_done: u64) -> ProgressMessage {
    ProgressMessage {
        version: VERSION,
        sequence,
        bytes_done,
        bytes_total: 100,
        bytes_per_second: Some(5),
        remaining_seconds: Some(1),
    }
}

fn body(sequence: u64) -> String {
    serde_json::to_string(&message(sequence, 7)).unwrap()
}

/// A token of the pod `uid`; `signature` is what the API server below goes by.
fn token(name: &str, uid: &str, audience: &str, signature: &str) -> String {
    let payload =
        json!({ "aud": [audience], "kubernetes.io": { "namespace": "team", "pod": { "name": name, "uid": uid } } });
    format!("e30.{}.{signature}", BASE64_URL_SAFE_NO_PAD.encode(payload.to_string()))
}

fn good(pod: &str) -> String {
    token(pod, &format!("uid-{pod}"), AUDIENCE, "good")
}

/// Answers as an API server does, by the signature.
fn review(call: &Call) -> Option<Fault> {
    if call.resource != "tokenreviews" {
        return None;
    }
    assert_eq!(call.body["spec"]["audiences"], json!([AUDIENCE]));
    let token = call.body["spec"]["token"].as_str().unwrap();
    let parts: Vec<_> = token.split('.').collect();
    let payload: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let said = |account: &str, uid: &Value, audiences: Value| {
        let extra = json!({ "authentication.kubernetes.io/pod-uid": [uid] });
        let user = json!({ "username": account, "extra": extra });
        json!({ "authenticated": true, "audiences": audiences, "user": user })
    };
    let (uid, account) = (&payload["kubernetes.io"]["pod"]["uid"], "system:serviceaccount:team:default");
    let status = match parts[2] {
        "good" => said(account, uid, json!([AUDIENCE])),
        "another-pod" => said(account, &json!("uid-of-another"), json!([AUDIENCE])),
        "another-namespace" => said("system:serviceaccount:teams:default", uid, json!([AUDIENCE])),
        "no-account" => said("system:node:a", uid, json!([AUDIENCE])),
        "audience-unknown" => said(account, uid, json!([])),
        "unbound" => {
            json!({ "authenticated": true, "audiences": [AUDIENCE], "user": { "username": account } })
        }
        "broken" => return Some(Fault::Answer(403, status(403, "Forbidden", "no right to tokenreviews"))),
        _ => json!({ "authenticated": false, "error": "invalid bearer token" }),
    };
    let review = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {}, "status": status,
    });
    Some(Fault::Answer(201, review))
}

fn checkpoint(name: &str) -> Value {
    json!({
        "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": { "name": name, "namespace": "team", "uid": format!("uid-{name}"), "generation": 1 },
        "spec": { "path": "s3://bucket/path" },
    })
}

fn owned(name: &str, checkpoint: &str, owner_kind: &str, owner: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "team", "uid": format!("uid-{name}"),
            "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: format!("uid-{checkpoint}") },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": owner_kind, "name": owner, "uid": format!("uid-{owner}"), "controller": true,
            }],
        },
    })
}

fn job(name: &str, checkpoint: &str) -> Value {
    owned(name, checkpoint, "Checkpoint", checkpoint)
}

fn pod(name: &str, checkpoint: &str, job: &str) -> Value {
    owned(name, checkpoint, "Job", job)
}

fn cache<K>(writer: &mut Writer<K>, object: Value)
where
    K: kube::Resource<DynamicType = ()> + Clone + serde::de::DeserializeOwned + 'static,
{
    writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(object).unwrap()));
}

/// A controller's shared part with two Checkpoints, `a` and `b`, each with a worker, and its endpoint.
struct Place {
    api: Server,
    shared: Arc<Shared>,
    feed: Feed,
    address: SocketAddr,
    serving: AbortHandle,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Place {
    async fn new(limits: Limits) -> Self {
        let api = Server::new();
        api.fault(review);
        let (shared, mut feeds, _classes) = context::build(api.client(), &Settings::default(), plan::plan);
        let mut feed = feeds.remove(0);
        for name in ["a", "b"] {
            let cached: Cached = serde_json::from_value(checkpoint(name)).unwrap();
            shared.world.learn(&cached);
            cache(&mut feed.jobs, job(&format!("load-{name}"), name));
            cache(&mut feed.pods, pod(&format!("worker-{name}"), name, &format!("load-{name}")));
        }
        // Whoever may create pods and Jobs can write labels and even owners.
        cache(&mut feed.pods, pod("labelled", "a", "absent"));
        cache(&mut feed.jobs, owned("made", "a", "Other", "other"));
        cache(&mut feed.pods, pod("of-made", "a", "made"));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(Arc::clone(&shared), listener, limits)).abort_handle();
        Self { api, shared, feed, address, serving }
    }

    async fn tell(&self, token: &str, body: impl Into<reqwest::Body>) -> StatusCode {
        let request = client().post(format!("http://{}{PATH}", self.address));
        request.bearer_auth(token).body(body).send().await.unwrap().status()
    }

    fn reviews(&self) -> usize {
        self.api.calls().iter().filter(|call| call.resource == "tokenreviews").count()
    }

    fn seen(&self, checkpoint: &str) -> Vec<u64> {
        let view = self.shared.world.progress.view(&format!("uid-{checkpoint}"));
        view.values().map(|told| told.message.bytes_done).collect()
    }
}

fn client() -> reqwest::Client {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_worker_speaks_of_its_own_load_alone() {
    let mut place = Place::new(Limits::default()).await;
    assert_eq!(place.tell(&good("worker-a"), body(1)).await, StatusCode::NO_CONTENT);
    assert_eq!((place.seen("a"), place.seen("b")), (vec![7], vec![]));
    let woken = place.feed.queue.try_recv().unwrap();
    assert_eq!((woken.name.as_str(), woken.namespace.as_deref()), ("a", Some("team")));
    assert!(place.feed.queue.try_recv().is_err(), "one look");
    // The same token again: its owner was heard a moment ago, and the API server need not be asked.
    assert_eq!(place.tell(&good("worker-a"), body(2)).await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(place.tell(&good("worker-b"), body(1)).await, StatusCode::NO_CONTENT);
    assert_eq!((place.seen("a"), place.seen("b")), (vec![7], vec![7]));
    assert_eq!(place.reviews(), 2);
    let metrics = place.shared.metrics.encode().unwrap();
    for line in [
        r#"checkpoint_operator_progress_messages_total{outcome="taken"} 2"#,
        r#"checkpoint_operator_progress_messages_total{outcome="too_often"} 1"#,
        "checkpoint_operator_progress_workers 2",
        "checkpoint_operator_progress_bytes_per_second 10",
        "checkpoint_operator_progress_bytes_left 186",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn nobody_else_is_heard() {
    let of = |signature: &str| token("worker-a", "uid-worker-a", AUDIENCE, signature);
    let elsewhere = token("worker-a", "uid-worker-a", "https://kubernetes.default.svc", "good");
    for (what, token, code, reviews) in [
        ("no token of ours", "secret".to_owned(), 401, 0),
        ("a token for the API server", elsewhere, 401, 0),
        ("a pod that is not there", good("absent"), 403, 0),
        ("an earlier pod of the name", token("worker-a", "uid-earlier", AUDIENCE, "good"), 403, 0),
        ("a pod with a label alone", good("labelled"), 403, 0),
        ("a pod of a Job that is not the Checkpoint's", good("of-made"), 403, 0),
        ("a forged token", of("forged"), 401, 1),
        ("a token that is another pod's", of("another-pod"), 401, 1),
        ("a token from another namespace", of("another-namespace"), 401, 1),
        ("a token of no service account", of("no-account"), 401, 1),
        ("a token that is bound to no pod", of("unbound"), 401, 1),
        ("an API server that ignores audiences", of("audience-unknown"), 401, 1),
        ("an API server that cannot be asked", of("broken"), 503, 1),
    ] {
        let place = Place::new(Limits::default()).await;
        assert_eq!(place.tell(&token, body(1)).await.as_u16(), code, "{what}");
        assert_eq!(place.reviews(), reviews, "{what}");
        assert_eq!((place.seen("a"), place.seen("b")), (vec![], vec![]), "{what}");
    }
    let place = Place::new(Limits::default()).await;
    let url = format!("http://{}{PATH}", place.address);
    let client = client();
    for (what, request, code) in [
        ("no header", client.post(&url), 401),
        ("another scheme", client.post(&url).basic_auth("a", Some("b")), 401),
        ("another method", client.get(&url).bearer_auth(good("worker-a")), 405),
        ("another path", client.post(format!("{url}/more")).bearer_auth(good("worker-a")), 404),
    ] {
        assert_eq!(request.body(body(1)).send().await.unwrap().status().as_u16(), code, "{what}");
    }
    assert_eq!(place.reviews(), 0);
}

#[tokio::test]
async fn what_is_no_message_is_refused() {
    let too_long = " ".repeat(5000);
    for (what, text, code) in [
        ("nothing", String::new(), 400),
        ("no JSON", "{".to_owned(), 400),
        ("another version", body(1).replace(r#""version":1"#, r#""version":2"#), 400),
        ("more than all", body(1).replace(r#""bytesDone":7"#, r#""bytesDone":101"#), 400),
        ("too long", too_long, 413),
    ] {
        let place = Place::new(Limits::default()).await;
        assert_eq!(place.tell(&good("worker-a"), text).await.as_u16(), code, "{what}");
        assert!(place.seen("a").is_empty(), "{what}");
        // It is no offence: the next message counts.
        assert_eq!(place.tell(&good("worker-a"), body(1)).await.as_u16(), 204, "{what}");
        assert_eq!(place.reviews(), 1, "{what}");
    }
}

/// Who guesses at the tokens of a pod keeps that pod from telling for a while, and costs the API server next to nothing.
#[tokio::test]
async fn guessing_is_slow_and_hurts_nobody_else() {
    let place = Place::new(Limits::default()).await;
    for (guess, code) in [401, 429, 429, 429].into_iter().enumerate() {
        let forged = token("worker-a", "uid-worker-a", AUDIENCE, &format!("guess-{guess}"));
        assert_eq!(place.tell(&forged, body(1)).await.as_u16(), code);
    }
    assert_eq!(place.tell(&good("worker-b"), body(1)).await.as_u16(), 204);
    assert_eq!(place.reviews(), 2);
}

#[tokio::test]
async fn slow_and_silent_clients_do_not_keep_others_out() {
    let limits =
        Limits { connections: 2, lifetime: Duration::from_secs(2), requests: 1, deadline: Duration::from_secs(1) };
    let place = Place::new(limits).await;
    let silent = [TcpStream::connect(place.address).await.unwrap(), TcpStream::connect(place.address).await.unwrap()];
    assert_eq!(
        place.tell(&good("worker-b"), body(1)).await.as_u16(),
        204,
        "it waits for the silent ones to be cut off"
    );
    drop(silent);
    // A body that never comes takes the only place, until the deadline.
    let mut slow = TcpStream::connect(place.address).await.unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: 100\r\n\r\n",
        good("worker-a")
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let at_work = async {
        while place.reviews() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), at_work).await.expect("the slow one is at work");
    assert_eq!(place.tell(&good("worker-b"), body(2)).await.as_u16(), 503, "there is no place");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(place.tell(&good("worker-a"), body(1)).await.as_u16(), 204, "the place is free again");
}

#[test]
fn a_plan_sees_a_change_once_a_round() {
    let (board, begun, at) = (Board::default(), Instant::now(), Timestamp::UNIX_EPOCH);
    let take = |seconds: u64, pod: &str, sequence: u64, done: u64| {
        board.take(pod, "a", message(sequence, done), at, begun + Duration::from_secs(seconds))
    };
    let seen = || board.view("a").values().map(|told| told.message.bytes_done).collect::<Vec<_>>();
    assert_eq!(take(0, "p", 1, 10), Taken::Shown);
    assert_eq!(take(3, "q", 1, 20), Taken::Kept);
    assert_eq!(seen(), [10], "another worker of the Checkpoint waits for the round");
    assert_eq!(take(4, "p", 2, 11), Taken::TooOften);
    assert_eq!(take(8, "p", 1, 12), Taken::Overtaken);
    assert_eq!(take(9, "p", 2, 13), Taken::Shown);
    assert_eq!(seen(), [13, 20]);
    assert_eq!(take(13, "q", 2, 21), Taken::Kept);
    assert_eq!(seen(), [13, 20]);
    assert_eq!(board.take("r", "b", message(1, 1), at, begun + Duration::from_secs(13)), Taken::Shown);
    assert_eq!(board.totals(at), Totals { workers: 3, rate: 15, left: 100 - 13 + 100 - 21 + 100 - 1 });
    assert_eq!(board.totals(at + jiff::SignedDuration::from_mins(1)), Totals::default(), "they fell silent");
    board.forget("p");
    assert_eq!(seen(), [20], "what is gone is not seen, between the rounds too");
    board.keep(&HashSet::from(["r".to_owned()]));
    assert!(board.view("a").is_empty() && board.view("b").len() == 1);
    let inner = lock(&board.0);
    assert_eq!((inner.seats.len(), inner.views.len()), (1, 1), "nothing is left of those who are gone");
}

#[test]
fn the_word_of_the_api_server_holds_for_a_minute() {
    let (board, begun) = (Board::default(), Instant::now());
    let (one, two) = (blake3::hash(b"one"), blake3::hash(b"two"));
    let standing = |seconds: u64, token| board.standing("p", "a", token, begun + Duration::from_secs(seconds));
    assert_eq!(standing(0, one), Standing::Ask);
    assert_eq!(standing(1, one), Standing::Wait);
    board.verify("p", "a", one, begun + Duration::from_secs(2));
    assert_eq!(standing(3, one), Standing::Verified);
    assert_eq!(standing(4, two), Standing::Wait);
    assert_eq!(standing(5, two), Standing::Ask, "the kubelet renewed it");
    assert_eq!(standing(61, one), Standing::Verified);
    assert_eq!(standing(62, one), Standing::Ask);
}

/// Shows what it sees: the plan of the test below.
fn show(_: &Config, observed: &Observed, _: Timestamp) -> Plan {
    let mut plan = Plan { status: observed.checkpoint.status.clone().unwrap_or_default(), ..Plan::default() };
    let seen: Vec<_> = observed.progress.values().map(|told| told.message.bytes_done.to_string()).collect();
    plan.status.progress = Some(seen.join(","));
    plan
}

#[tokio::test]
async fn the_whole_controller_shows_it_and_forgets_it_with_the_pod() {
    let server = Server::new();
    server.fault(review);
    server.put("checkpoints", checkpoint("a"));
    server.put("jobs", job("load-a", "a"));
    server.put("pods", pod("worker-a", "a", "load-a"));
    // Nobody else takes a port of this kind in the moment until the controller does.
    let address = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let settings = Settings { listen: any, progress: Some(address), ..Settings::default() };
    let shutdown = CancellationToken::new();
    let controller = run_with(server.client(), settings, shutdown.clone(), show);
    let shows = |expected: &'static str| {
        move |server: &Server| {
            server.get("checkpoints", "team", "a").is_some_and(|found| found["status"]["progress"] == json!(expected))
        }
    };
    let steps = async {
        server.until("it is reconciled", shows("")).await;
        let request = || client().post(format!("http://{address}{PATH}")).bearer_auth(good("worker-a")).body(body(1));
        let answer = request().send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 204);
        server.until("it is in the status", shows("7")).await;
        server.remove("pods", "team", "worker-a");
        server.until("it is gone with the pod", shows("")).await;
        assert_eq!(request().send().await.unwrap().status().as_u16(), 403);
        shutdown.cancel();
    };
    let (result, ()) = futures::join!(controller, steps);
    result.unwrap();
    super::super::tests::assert_covered(&server.calls());
}
