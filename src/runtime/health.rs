//! Probes and metrics over HTTP: `/livez`, `/readyz` with the list of gates, `/metrics`. Does I/O.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;

use super::{lock, metrics::Metrics};

/// The main loop says that it is alive this often.
pub const BEAT: Duration = Duration::from_secs(5);
/// The process counts as stuck after this much silence.
const SILENCE: Duration = Duration::from_mins(1);
/// Media type of [`Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the probes answer.
#[derive(Debug)]
pub struct Health {
    gates: Mutex<BTreeMap<&'static str, Gate>>,
    beat: Mutex<Instant>,
}

/// Something that must be true before the process is of use.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
struct Gate {
    ready: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
}

/// The body of `/readyz`.
#[derive(Serialize)]
struct Readiness<'a> {
    ready: bool,
    gates: &'a BTreeMap<&'static str, Gate>,
}

impl Health {
    /// With these gates, all closed.
    #[must_use]
    pub fn new(gates: &[&'static str]) -> Self {
        let closed = |name: &&'static str| (*name, Gate { ready: false, message: "not checked yet".into() });
        Self { gates: Mutex::new(gates.iter().map(closed).collect()), beat: Mutex::new(Instant::now()) }
    }

    /// Opens a gate.
    pub fn open(&self, name: &'static str) {
        lock(&self.gates).insert(name, Gate { ready: true, message: String::new() });
    }

    /// Closes a gate and says why. Returns whether that is news, so that it is logged once.
    pub fn close(&self, name: &'static str, message: impl Into<String>) -> bool {
        let gate = Gate { ready: false, message: message.into() };
        lock(&self.gates).insert(name, gate.clone()) != Some(gate)
    }

    /// The main loop is alive.
    pub fn beat(&self) {
        *lock(&self.beat) = Instant::now();
    }

    /// Whether all gates are open, and the answer to `/readyz`.
    #[must_use]
    pub fn readiness(&self) -> (bool, String) {
        let gates = lock(&self.gates);
        let ready = gates.values().all(|gate| gate.ready);
        let body = serde_json::to_string(&Readiness { ready, gates: &gates });
        (ready, body.unwrap_or_default())
    }

    fn silence(&self) -> Duration {
        lock(&self.beat).elapsed()
    }
}

/// The three endpoints.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .with_state(health)
        .merge(Router::new().route("/metrics", get(scrape)).with_state(metrics))
}

async fn live(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let silence = health.silence();
    if silence < SILENCE {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("the main loop has been stuck for {} s\n", silence.as_secs()))
    }
}

async fn ready(State(health): State<Arc<Health>>) -> impl IntoResponse {
    let (ready, body) = health.readiness();
    let code = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, [(CONTENT_TYPE, "application/json")], body)
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.encode() {
        Ok(text) => (StatusCode::OK, [(CONTENT_TYPE, OPEN_METRICS)], text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, [(CONTENT_TYPE, "text/plain")], error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_listed_and_news_is_told_once() {
        let health = Health::new(&["caches", "crd"]);
        assert!(health.close("crd", "not installed"));
        assert!(!health.close("crd", "not installed"));
        health.open("caches");
        let (ready, body) = health.readiness();
        assert!(!ready);
        assert_eq!(
            body,
            r#"{"ready":false,"gates":{"caches":{"ready":true},"crd":{"ready":false,"message":"not installed"}}}"#
        );
        health.open("crd");
        assert!(health.readiness().0);
        assert!(health.close("crd", "gone"));
    }
}
