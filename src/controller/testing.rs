//! An API server in memory for tests: enough of the protocol for the controller, with faults and a log of calls. No I/O.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use futures::StreamExt as _;
use kube::{Client, client::ClientBuilder};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::runtime::lock;

/// Resource, namespace, name.
type Key = (String, String, String);
type Rule = Box<dyn FnMut(&Call) -> Option<Fault> + Send>;

/// A request as RBAC sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub verb: String,
    pub group: String,
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub body: Value,
}

/// What goes wrong with a request.
pub enum Fault {
    /// Another answer; nothing is done.
    Answer(u16, Value),
    /// The caller dies before it is carried out.
    DieBefore,
    /// The caller dies after it was carried out and before it hears of it.
    DieAfter,
}

#[derive(Default)]
struct Inner {
    objects: BTreeMap<Key, Value>,
    history: Vec<(u64, String, &'static str, Value)>,
    version: u64,
    calls: Vec<Call>,
    rule: Option<Rule>,
}

/// The server; clones are the same server.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Mutex<Inner>>,
    version: watch::Sender<u64>,
    /// A caller died.
    pub died: Arc<Notify>,
}

impl Call {
    pub fn is_write(&self) -> bool {
        !matches!(&*self.verb, "get" | "list" | "watch")
    }
}

impl Server {
    pub fn new() -> Self {
        let version = watch::Sender::new(0);
        Self { inner: Arc::default(), version, died: Arc::default() }
    }

    pub fn client(&self) -> Client {
        ClientBuilder::new(Router::new().fallback(handle).with_state(self.clone()), "default").build()
    }

    /// Decides about faults from now on.
    pub fn fault(&self, rule: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        lock(&self.inner).rule = Some(Box::new(rule));
    }

    pub fn put(&self, resource: &str, mut object: Value) -> Value {
        let mut inner = lock(&self.inner);
        let text = |member: &str| object["metadata"][member].as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        let stored = inner.store(key, std::mem::take(&mut object));
        self.version.send_replace(inner.version);
        stored
    }

    pub fn remove(&self, resource: &str, namespace: &str, name: &str) {
        let mut inner = lock(&self.inner);
        inner.remove(&(resource.into(), namespace.into(), name.into()));
        self.version.send_replace(inner.version);
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        lock(&self.inner).objects.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }

    pub fn all(&self, resource: &str) -> Vec<Value> {
        let inner = lock(&self.inner);
        inner.objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    pub fn calls(&self) -> Vec<Call> {
        lock(&self.inner).calls.clone()
    }

    pub fn writes(&self) -> Vec<String> {
        let writes = self.calls().into_iter().filter(Call::is_write);
        writes.map(|call| format!("{} {}/{}", call.verb, call.resource, call.name)).collect()
    }

    /// Waits until the condition holds, looking again after each change.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut version = self.version.subscribe();
        let holds = async {
            while !condition(self) {
                version.changed().await.unwrap();
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), holds).await;
        assert!(in_time.is_ok(), "never: {what}; writes: {:#?}", self.writes());
    }

    /// Finishes Jobs as soon as they appear, until dropped.
    pub async fn finish_jobs(&self) {
        let mut version = self.version.subscribe();
        loop {
            for mut job in self.all("jobs") {
                if job.get("status").is_none() {
                    job["status"] = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
                    self.put("jobs", job);
                }
            }
            version.changed().await.unwrap();
        }
    }

    fn answer(&self, call: &Call, query: &BTreeMap<String, String>) -> Response {
        let mut inner = lock(&self.inner);
        let answer = inner.carry_out(call, query);
        self.version.send_replace(inner.version);
        answer.unwrap_or_else(|(code, reason)| failure(code, reason))
    }

    /// Replays the history after a version and goes on with what happens.
    fn watch(&self, call: &Call, query: &BTreeMap<String, String>) -> Response {
        let since: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let (call, query, server, changes) = (call.clone(), query.clone(), self.clone(), self.version.subscribe());
        let lines = futures::stream::unfold((since, changes), move |(since, mut changes)| {
            let (call, query, server) = (call.clone(), query.clone(), server.clone());
            async move {
                let (latest, lines) = {
                    let inner = lock(&server.inner);
                    let news = inner.history.iter().filter(|(version, resource, _, object)| {
                        *version > since && *resource == call.resource && is_selected(object, &call, &query)
                    });
                    let lines: String = news
                        .map(|(_, _, kind, object)| json!({ "type": kind, "object": object }).to_string() + "\n")
                        .collect();
                    (inner.version, lines)
                };
                if lines.is_empty() {
                    changes.changed().await.ok()?;
                }
                Some((Ok::<_, std::convert::Infallible>(Bytes::from(lines)), (latest, changes)))
            }
        });
        Body::from_stream(lines.filter(|line| std::future::ready(line.as_ref().is_ok_and(|line| !line.is_empty()))))
            .into_response()
    }
}

impl Inner {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let kind = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        object["metadata"]["name"] = json!(key.2);
        if !key.1.is_empty() {
            object["metadata"]["namespace"] = json!(key.1);
        }
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.history.push((self.version, key.0.clone(), kind, object.clone()));
        self.objects.insert(key, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) -> Option<Value> {
        let mut object = self.objects.remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.history.push((self.version, key.0.clone(), "DELETED", object.clone()));
        Some(object)
    }

    fn carry_out(&mut self, call: &Call, query: &BTreeMap<String, String>) -> Result<Response, (u16, &'static str)> {
        let resource = call.resource.split('/').next().unwrap_or_default().to_owned();
        let name = match call.verb.as_str() {
            "create" => call.body["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            _ => call.name.clone(),
        };
        let key = (resource.clone(), call.namespace.clone(), name);
        let current = self.objects.get(&key).cloned();
        match call.verb.as_str() {
            "list" => {
                let there =
                    self.objects.iter().filter(|(key, object)| key.0 == resource && is_selected(object, call, query));
                let items: Vec<Value> = there.map(|(_, object)| object.clone()).collect();
                Ok(ok(&json!({ "metadata": { "resourceVersion": self.version.to_string() }, "items": items })))
            }
            "create" if current.is_some() => Err((409, "AlreadyExists")),
            "create" => Ok(ok(&self.store(key, call.body.clone()))),
            "get" => current.map(|object| ok(&object)).ok_or((404, "NotFound")),
            "delete" => {
                check(&current.ok_or((404, "NotFound"))?, &call.body["preconditions"])?;
                self.remove(&key);
                Ok(ok(&json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })))
            }
            "patch" => {
                let mut object = current.ok_or((404, "NotFound"))?;
                check(&object, &call.body["metadata"])?;
                let before = object.clone();
                if call.resource.ends_with("/status") {
                    object["status"] = call.body["status"].clone();
                } else {
                    let version = object["metadata"]["resourceVersion"].clone();
                    merge(&mut object, &call.body);
                    object["metadata"]["resourceVersion"] = version;
                }
                Ok(ok(&if object == before { object } else { self.store(key, object) }))
            }
            _ => Err((405, "MethodNotAllowed")),
        }
    }
}

async fn handle(State(server): State<Server>, method: Method, uri: Uri, body: Bytes) -> Response {
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let call = parse(&method, uri.path(), &query, &body);
    let fault = {
        let mut inner = lock(&server.inner);
        inner.calls.push(call.clone());
        inner.rule.as_mut().and_then(|rule| rule(&call))
    };
    match fault {
        Some(Fault::Answer(code, status)) => {
            return (StatusCode::from_u16(code).unwrap(), status.to_string()).into_response();
        }
        Some(Fault::DieBefore) => die(&server).await,
        Some(Fault::DieAfter) => {
            server.answer(&call, &query);
            die(&server).await;
        }
        None => {}
    }
    if call.verb == "watch" { server.watch(&call, &query) } else { server.answer(&call, &query) }
}

async fn die(server: &Server) {
    server.died.notify_one();
    std::future::pending::<()>().await;
}

fn parse(method: &Method, path: &str, query: &BTreeMap<String, String>, body: &[u8]) -> Call {
    let mut parts = path.trim_matches('/').split('/').collect::<Vec<_>>();
    let group = if parts[0] == "apis" { parts[1].to_owned() } else { String::new() };
    parts.drain(..if group.is_empty() { 2 } else { 3 });
    let namespace = if parts[0] == "namespaces" { parts.drain(..2).nth(1).unwrap().to_owned() } else { String::new() };
    let name = parts.get(1).copied().unwrap_or_default().to_owned();
    let resource = parts.get(2).map_or(parts[0].to_owned(), |sub| format!("{}/{sub}", parts[0]));
    let verb = match *method {
        Method::GET if query.get("watch").is_some_and(|watch| watch == "true") => "watch",
        Method::GET if name.is_empty() => "list",
        Method::GET => "get",
        Method::POST => "create",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    let body = serde_json::from_slice(body).unwrap_or_default();
    Call { verb: verb.into(), group, resource, namespace, name, body }
}

fn is_selected(object: &Value, call: &Call, query: &BTreeMap<String, String>) -> bool {
    let fits = |pair: &str, of: &dyn Fn(&str) -> Value| {
        let (key, value) = pair.split_once('=').unwrap();
        of(key) == json!(value)
    };
    let label = |key: &str| object["metadata"]["labels"][key].clone();
    let field = |key: &str| key.split('.').fold(object.clone(), |value, part| value[part].clone());
    let all = |selector: &str, of: &dyn Fn(&str) -> Value| {
        query.get(selector).is_none_or(|text| text.split(',').all(|pair| fits(pair, of)))
    };
    (call.namespace.is_empty() || object["metadata"]["namespace"] == json!(call.namespace))
        && all("labelSelector", &label)
        && all("fieldSelector", &field)
}

/// UID and resource version, where the request names them.
fn check(object: &Value, preconditions: &Value) -> Result<(), (u16, &'static str)> {
    let holds = |member: &str| preconditions[member].is_null() || preconditions[member] == object["metadata"][member];
    if holds("uid") && holds("resourceVersion") { Ok(()) } else { Err((409, "Conflict")) }
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in members {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn ok(value: &Value) -> Response {
    value.to_string().into_response()
}

pub fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message })
}

fn failure(code: u16, reason: &str) -> Response {
    (StatusCode::from_u16(code).unwrap(), status(code, reason, reason).to_string()).into_response()
}
