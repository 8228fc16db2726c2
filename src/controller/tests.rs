//! The controller against an API server in memory, with scripted plans. No I/O beyond loopback.

use std::{net::TcpListener, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{batch::v1::Job, core::v1::PersistentVolumeClaim};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    API_CALLS, Settings,
    apply::{self, StatusWrite, Stop},
    context::{self, Planner, is_finished},
    orphans, run_with,
    testing::{Call, Fault, Server, status},
};
use crate::{
    api::{ANNOTATION_CHECKPOINT, Checkpoint, CheckpointStatus, LABEL_CHECKPOINT_UID, LABEL_MANAGED_BY, MANAGED_BY},
    contract::{ConditionType, Outcome, Reason, TaskKind},
    plan::{Action, Config, EventDraft, Observed, Plan, Turn, WorkerResult},
};

fn checkpoint(name: &str, namespace: &str) -> Value {
    json!({
        "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint",
        "metadata": { "name": name, "namespace": namespace, "uid": format!("{namespace}-{name}"), "generation": 1 },
        "spec": { "path": "s3://bucket/path" },
    })
}

fn stored(server: &Server, name: &str, namespace: &str) -> Checkpoint {
    serde_json::from_value(server.put("checkpoints", checkpoint(name, namespace))).unwrap()
}

fn child<K: serde::de::DeserializeOwned>(name: &str, owner: &Checkpoint) -> K {
    let uid = owner.uid().unwrap();
    serde_json::from_value(json!({
        "metadata": {
            "name": name, "namespace": owner.namespace(),
            "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: uid },
            "annotations": { ANNOTATION_CHECKPOINT: owner.name_any() },
            "ownerReferences": [
                { "apiVersion": "checkpoints.dev/v1alpha1", "kind": "Checkpoint", "name": owner.name_any(), "uid": uid }
            ],
        },
        "spec": {},
    }))
    .unwrap()
}

pub fn create_job(name: &str, owner: &Checkpoint) -> Action {
    Action::CreateJob(Box::new(child(name, owner)))
}

/// One Job per Checkpoint; when it is finished the status says so; then the Job goes.
fn life(_: &Config, observed: &Observed, _: Timestamp) -> Plan {
    let mut plan = Plan { status: observed.checkpoint.status.clone().unwrap_or_default(), ..Plan::default() };
    let job = observed.jobs.first();
    let say = |plan: &mut Plan, text: &str| plan.status.progress = Some(text.to_owned());
    if plan.status.digest.is_some() {
        let delete = |job: &Job| Action::DeleteJob { name: job.name_any(), uid: job.uid().unwrap() };
        plan.actions.extend(job.map(delete));
        return plan;
    }
    match (job, observed.turn) {
        (Some(job), _) if is_finished(job) => {
            plan.status.digest = Some("done".into());
            say(&mut plan, "done");
            plan.results.push(WorkerResult { task: TaskKind::Load, outcome: Outcome::Good, bytes_fetched: 5 });
            let (condition, reason) = (ConditionType::Ready, Reason::Ready);
            plan.events.push(EventDraft { warning: false, condition, reason, note: "ready".into() });
        }
        (Some(_), _) => say(&mut plan, "working"),
        (None, Turn::Waiting { running }) => {
            say(&mut plan, &format!("queued behind {running}"));
        }
        (None, Turn::Granted) => {
            let name = format!("job-{}", observed.checkpoint.uid().unwrap());
            plan.actions.push(create_job(&name, &observed.checkpoint));
            let refused = observed.refusals.first().map(|refusal| format!("{}: {}", refusal.code, refusal.message));
            say(&mut plan, &refused.unwrap_or_else(|| "working".into()));
        }
    }
    plan
}

fn settings() -> Settings {
    Settings { listen: "127.0.0.1:0".parse().unwrap(), ..Settings::default() }
}

/// Runs the controller beside the test's own steps, and ends it gracefully.
async fn with_controller(server: &Server, settings: Settings, planner: Planner, steps: impl Future<Output = ()>) {
    let shutdown = CancellationToken::new();
    let controller = run_with(server.client(), settings, shutdown.clone(), planner);
    let steps = async {
        steps.await;
        shutdown.cancel();
    };
    let (result, ()) = futures::join!(controller, steps);
    result.unwrap();
    assert_covered(&server.calls());
}

pub fn assert_covered(calls: &[Call]) {
    for call in calls {
        let known = API_CALLS.iter().any(|known| {
            known.group == call.group && known.resource == call.resource && known.verbs.contains(&&*call.verb)
        });
        assert!(known, "not in the table that the chart's RBAC is made from: {call:?}");
    }
}

fn progress(server: &Server, namespace: &str, name: &str) -> String {
    let checkpoint = server.get("checkpoints", namespace, name).unwrap();
    checkpoint["status"]["progress"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_life_ends_and_then_nothing_is_written() {
    let server = Server::new();
    stored(&server, "llama", "team");
    let steps = async {
        server
            .until("the Job is gone", |server| {
                progress(server, "team", "llama") == "done" && server.all("jobs").is_empty()
            })
            .await;
        server.until("an event tells it", |server| server.all("events").len() == 1).await;
        let writes = server.writes();
        assert_eq!(
            writes,
            [
                "create jobs/",
                "patch checkpoints/status/llama",
                "patch checkpoints/status/llama",
                "create events/",
                "delete jobs/job-team-llama",
            ],
        );
        // A change that means nothing leads to a reconcile and to no write. One object is never reconciled twice at once, so
        // the second look begins after the first ended.
        for _ in 0..2 {
            let looks = |server: &Server| server.calls().iter().filter(|call| call.verb == "get").count();
            let before = looks(&server);
            server.put("checkpoints", server.get("checkpoints", "team", "llama").unwrap());
            server.until("it is read", |server| looks(server) > before).await;
        }
        assert_eq!(server.writes(), writes);
    };
    tokio::select! {
        () = with_controller(&server, settings(), life, steps) => {}
        () = server.finish_jobs() => {}
    }
    let body = server.calls().into_iter().find(|call| call.resource == "checkpoints/status").unwrap().body;
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["apiVersion", "kind", "metadata", "status"]);
    assert!(body["metadata"]["resourceVersion"].is_string());
}

/// The controller dies before or after its n-th write, for each n of a life, and another one takes over.
#[tokio::test]
async fn a_crash_around_any_write_leads_to_the_same_end() {
    let lives = (1..=6).flat_map(|number| [(number, false), (number, true)]).map(|(number, after)| async move {
        let server = Server::new();
        stored(&server, "llama", "team");
        let mut writes = 0;
        server.fault(move |call| {
            writes += usize::from(call.is_write());
            (call.is_write() && writes == number).then_some(if after { Fault::DieAfter } else { Fault::DieBefore })
        });
        let done = |server: &Server| progress(server, "team", "llama") == "done" && server.all("jobs").is_empty();
        let end = server.until("the end", done);
        let died = tokio::select! {
            biased;
            () = server.died.notified() => true,
            () = end => false,
            () = server.finish_jobs() => false,
            _ = run_with(server.client(), settings(), CancellationToken::new(), life) => false,
        };
        assert_eq!(died, number <= 5, "a life has five writes");
        server.fault(|_| None);
        tokio::select! {
            () = with_controller(&server, settings(), life, server.until("the end after the crash", done)) => {}
            () = server.finish_jobs() => {}
        }
        let checkpoint = server.get("checkpoints", "team", "llama").unwrap();
        assert_eq!(checkpoint["status"], json!({ "progress": "done", "digest": "done" }), "{number} {after}");
        let names: Vec<String> = server.writes().into_iter().filter(|write| write.contains("delete")).collect();
        assert!(names.iter().all(|name| name == "delete jobs/job-team-llama"), "{names:?}");
    });
    futures::future::join_all(lives).await;
}

#[tokio::test]
async fn the_second_waits_for_the_first_and_is_woken() {
    let server = Server::new();
    for (name, namespace) in [("a", "one"), ("b", "one"), ("c", "two")] {
        stored(&server, name, namespace);
    }
    let names = [("one", "a"), ("one", "b"), ("two", "c")];
    let steps = async {
        for finished in 0..3 {
            server
                .until("one works and the others are queued", |server| {
                    let texts = names.map(|(namespace, name)| progress(server, namespace, name));
                    texts.iter().filter(|text| *text == "working").count() == 1
                        && texts.iter().filter(|text| *text == "queued behind 1").count() == 2 - finished
                })
                .await;
            let unfinished: Vec<Value> =
                server.all("jobs").into_iter().filter(|job| job.get("status").is_none()).collect();
            assert_eq!(unfinished.len(), 1);
            for mut job in unfinished {
                job["status"] = json!({ "conditions": [{ "type": "Complete", "status": "True" }] });
                server.put("jobs", job);
            }
        }
        server
            .until("all is done", |server| {
                names.iter().all(|(namespace, name)| progress(server, namespace, name) == "done")
            })
            .await;
    };
    let watched = Settings { watch_namespaces: vec!["one".into(), "two".into()], max_workers: 1, ..settings() };
    with_controller(&server, watched, life, steps).await;
    let cluster_wide = server.calls().into_iter().filter(|call| call.namespace.is_empty());
    assert!(cluster_wide.map(|call| call.resource).all(|resource| resource == "storageclasses"));
}

#[tokio::test]
async fn a_refusal_reaches_the_status_and_heals() {
    let server = Server::new();
    stored(&server, "llama", "team");
    let mut refusals = 1;
    server.fault(move |call| {
        let hit = call.verb == "create" && call.resource == "jobs" && refusals > 0;
        refusals -= i32::from(hit);
        hit.then(|| Fault::Answer(403, status(403, "Forbidden", "exceeded quota: small")))
    });
    let steps = async {
        server.until("refused", |server| progress(server, "team", "llama") == "403: exceeded quota: small").await;
        server.until("done", |server| progress(server, "team", "llama") == "done").await;
    };
    tokio::select! {
        () = with_controller(&server, settings(), life, steps) => {}
        () = server.finish_jobs() => {}
    }
    let refused = server.writes().iter().filter(|write| *write == "create jobs/").count();
    assert_eq!(refused, 2, "one try per reconcile, none for the plan that is made again");
}

#[tokio::test]
async fn a_namespace_that_goes_is_left_alone() {
    let server = Server::new();
    let owner = stored(&server, "llama", "team");
    let mut answer = status(403, "Forbidden", "unable to create new content in namespace team");
    answer["details"] = json!({ "causes": [{ "reason": "NamespaceTerminating", "message": "", "field": "" }] });
    server.fault(move |call| (call.verb == "create").then(|| Fault::Answer(403, answer.clone())));
    let applied = apply::actions(&server.client(), &owner, &[create_job("x", &owner), create_job("y", &owner)]).await;
    assert_eq!(applied.unwrap().stopped, Some(Stop::NamespaceGoes));
    assert_eq!(server.writes(), ["create jobs/"]);
}

#[tokio::test]
async fn what_exists_is_taken_when_it_is_ours_and_refused_when_not() {
    let server = Server::new();
    let owner = stored(&server, "llama", "team");
    let other = stored(&server, "other", "team");
    let ours: Job = child("ours", &owner);
    let theirs: PersistentVolumeClaim = child("theirs", &other);
    server.put("jobs", serde_json::to_value(&ours).unwrap());
    let before = server.put("persistentvolumeclaims", serde_json::to_value(&theirs).unwrap());
    let actions = [
        create_job("ours", &owner),
        Action::CreateClaim(Box::new(child("theirs", &owner))),
        Action::CreateClaim(Box::new(child("new", &owner))),
    ];
    let applied = apply::actions(&server.client(), &owner, &actions).await.unwrap();
    assert_eq!(applied.stopped, None);
    assert_eq!(applied.written.iter().map(|written| &*written.name).collect::<Vec<_>>(), ["ours", "new"]);
    let refusal = &applied.refusals[0];
    assert_eq!((&*refusal.object, refusal.code), ("persistentvolumeclaims/theirs", 409));
    assert!(refusal.message.contains("exists and is not ours"));
    assert_eq!(server.get("persistentvolumeclaims", "team", "theirs"), Some(before));
    assert_covered(&server.calls());
}

#[tokio::test]
async fn deletes_and_patches_hold_to_their_preconditions() {
    let server = Server::new();
    let owner = stored(&server, "llama", "team");
    let claim: PersistentVolumeClaim = child("claim", &owner);
    let stored = server.put("persistentvolumeclaims", serde_json::to_value(&claim).unwrap());
    let uid = stored["metadata"]["uid"].as_str().unwrap().to_owned();
    let run = async |action: Action| apply::actions(&server.client(), &owner, &[action]).await.unwrap();
    let patch = |uid: &str, version: &str| Action::PatchClaim {
        name: "claim".into(),
        patch: json!({ "metadata": { "uid": uid, "resourceVersion": version, "annotations": { "a": "b" } } }),
    };
    let version = stored["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(run(patch(&uid, "0")).await.stopped, Some(Stop::Outdated));
    assert_eq!(run(patch("other", version)).await.stopped, Some(Stop::Outdated));
    assert_eq!(run(patch(&uid, version)).await.changes, 1);
    let volume = Action::PatchVolume { name: "gone".into(), patch: json!({}) };
    assert_eq!(run(volume).await.stopped, Some(Stop::Outdated));
    let delete = |uid: &str| Action::DeleteClaim { name: "claim".into(), uid: uid.into() };
    assert_eq!(run(delete("other")).await.stopped, Some(Stop::Outdated));
    assert_eq!(run(delete(&uid)).await.changes, 1);
    let again = run(delete(&uid)).await;
    assert_eq!((again.stopped, again.changes), (None, 0));
    let job = Action::DeleteJob { name: "x".into(), uid: "y".into() };
    assert_eq!(run(job).await.changes, 0);
    let body = server.calls().into_iter().rfind(|call| call.resource == "jobs").unwrap().body;
    assert_eq!(body["propagationPolicy"], "Background");
    assert_eq!(body["preconditions"]["uid"], "y");
}

#[tokio::test]
async fn the_status_is_written_once_and_never_over_a_newer_object() {
    let server = Server::new();
    let client = server.client();
    let live = stored(&server, "llama", "team");
    let wanted = CheckpointStatus { progress: Some("1%".into()), ..CheckpointStatus::default() };
    assert_eq!(apply::status(&client, &live, &wanted).await.unwrap(), StatusWrite::Written);
    assert_eq!(apply::status(&client, &live, &wanted).await.unwrap(), StatusWrite::Outdated);
    let live: Checkpoint = serde_json::from_value(server.get("checkpoints", "team", "llama").unwrap()).unwrap();
    let calls = server.calls().len();
    assert_eq!(apply::status(&client, &live, &wanted).await.unwrap(), StatusWrite::Unchanged);
    assert_eq!(server.calls().len(), calls);
    server.remove("checkpoints", "team", "llama");
    let wanted = CheckpointStatus { progress: Some("2%".into()), ..CheckpointStatus::default() };
    assert_eq!(apply::status(&client, &live, &wanted).await.unwrap(), StatusWrite::Outdated);
}

#[tokio::test]
async fn an_undecodable_object_costs_the_others_nothing() {
    let server = Server::new();
    let mut broken = checkpoint("broken", "team");
    broken["spec"]["volumes"] = json!("not a list");
    server.put("checkpoints", broken);
    stored(&server, "fine", "team");
    let steps = async {
        server.until("the other is done", |server| progress(server, "team", "fine") == "done").await;
        server
            .until("it is told", |server| {
                server.all("events").iter().any(|event| {
                    event["regarding"]["name"] == "broken"
                        && event["type"] == "Warning"
                        && event["reason"] == "InvalidSpec"
                })
            })
            .await;
    };
    tokio::select! {
        () = with_controller(&server, settings(), life, steps) => {}
        () = server.finish_jobs() => {}
    }
}

#[tokio::test]
async fn a_panic_costs_one_object_a_retry() {
    fn poisoned(config: &Config, observed: &Observed, now: Timestamp) -> Plan {
        assert_ne!(observed.checkpoint.name_any(), "poisoned");
        life(config, observed, now)
    }
    let server = Server::new();
    stored(&server, "poisoned", "team");
    stored(&server, "fine", "team");
    let steps = server.until("the other is done", |server| progress(server, "team", "fine") == "done");
    tokio::select! {
        () = with_controller(&server, settings(), poisoned, steps) => {}
        () = server.finish_jobs() => {}
    }
}

#[tokio::test]
async fn a_missing_crd_is_waited_for_and_said() {
    async fn ready(port: u16) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
    let server = Server::new();
    stored(&server, "llama", "team");
    server.fault(|call| {
        (call.resource == "checkpoints").then(|| Fault::Answer(404, status(404, "NotFound", "page not found")))
    });
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let steps = async {
        tokio::time::timeout(Duration::from_secs(10), async {
            while !server.calls().iter().any(|call| call.resource == "checkpoints") {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        let mut answer = ready(port).await;
        while !answer.contains("not installed") {
            answer = ready(port).await;
        }
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        server.fault(|_| None);
        server.until("done", |server| progress(server, "team", "llama") == "done").await;
        assert!(ready(port).await.starts_with("HTTP/1.1 200"));
    };
    let settings = Settings { listen: format!("127.0.0.1:{port}").parse().unwrap(), ..settings() };
    tokio::select! {
        () = with_controller(&server, settings, life, steps) => {}
        () = server.finish_jobs() => {}
    }
}

#[tokio::test]
async fn claims_left_behind_go_and_published_ones_stay() {
    let server = Server::new();
    let claim = |name: &str, uid: &str, of: &str| {
        server.put(
            "persistentvolumeclaims",
            json!({
                "metadata": {
                    "name": name, "namespace": "team", "uid": uid,
                    "labels": { LABEL_MANAGED_BY: MANAGED_BY, LABEL_CHECKPOINT_UID: of },
                    "annotations": { ANNOTATION_CHECKPOINT: "llama" },
                },
                "spec": { "volumeName": format!("pv-{name}") },
            }),
        )
    };
    let volume = |name: &str, uid: &str| {
        let reference = json!({ "namespace": "team", "name": name, "uid": uid });
        server.put(
            "persistentvolumes",
            json!({ "metadata": { "name": format!("pv-{name}") }, "spec": { "claimRef": reference } }),
        );
    };
    stored(&server, "llama", "team");
    claim("alive", "1", "team-llama");
    claim("behind", "2", "an-earlier-one");
    claim("handed-over", "3", "an-earlier-one");
    volume("handed-over", "3");
    volume("behind", "staging");
    let idle: Planner =
        |_, observed, _| Plan { status: observed.checkpoint.status.clone().unwrap_or_default(), ..Plan::default() };
    let steps = async {
        server.until("swept", |server| server.get("persistentvolumeclaims", "team", "behind").is_none()).await;
        server.remove("checkpoints", "team", "llama");
        server.until("swept again", |server| server.all("persistentvolumeclaims").len() == 1).await;
    };
    with_controller(&server, settings(), idle, steps).await;
    assert!(server.get("persistentvolumeclaims", "team", "handed-over").is_some());
    let body = server.calls().into_iter().find(|call| call.verb == "delete").unwrap().body;
    assert!(body["preconditions"]["uid"].is_string() && body["preconditions"]["resourceVersion"].is_string());
}

#[tokio::test]
async fn an_early_sweep_sees_nothing_in_empty_caches() {
    let server = Server::new();
    let (shared, _feeds, _classes) = context::build(server.client(), &settings(), life);
    orphans::sweep(&shared).await;
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_refused_patch_ends_the_pass_and_a_refused_creation_does_not() {
    let server = Server::new();
    let owner = stored(&server, "llama", "team");
    let claim: PersistentVolumeClaim = child("claim", &owner);
    server.put("persistentvolumeclaims", serde_json::to_value(&claim).unwrap());
    server.fault(|call| {
        let refused = call.verb == "patch" || (call.verb == "create" && call.resource == "jobs");
        refused.then(|| Fault::Answer(422, status(422, "Invalid", "no")))
    });
    let actions = [
        create_job("job", &owner),
        Action::CreateClaim(Box::new(child("other", &owner))),
        Action::PatchClaim { name: "claim".into(), patch: json!({}) },
        Action::PatchVolume { name: "volume".into(), patch: json!({}) },
    ];
    let applied = apply::actions(&server.client(), &owner, &actions).await.unwrap();
    assert_eq!(applied.refusals.len(), 2);
    let writes = ["create jobs/", "create persistentvolumeclaims/", "patch persistentvolumeclaims/claim"];
    assert_eq!(server.writes(), writes);
}

/// The real plan: a Checkpoint without volumes has all conditions after the first write, and then it is quiet.
#[tokio::test]
async fn the_first_status_is_whole_and_then_nothing_is_written() {
    let server = Server::new();
    let mut inline = checkpoint("inline", "team");
    inline["spec"] = json!({ "storage": { "inline": { "json": "{\"epoch\": 3}" } } });
    server.put("checkpoints", inline);
    let conditions = |server: &Server| {
        let checkpoint = server.get("checkpoints", "team", "inline").unwrap();
        checkpoint["status"]["conditions"].as_array().map_or(0, Vec::len)
    };
    let looks = |server: &Server| {
        server.calls().iter().filter(|call| call.verb == "get" && call.resource == "checkpoints").count()
    };
    let steps = async {
        server.until("a status", |server| conditions(server) > 0).await;
        assert_eq!(conditions(&server), ConditionType::ALL.len());
        let before = looks(&server);
        server.until("it is looked at again", |server| looks(server) > before + 1).await;
        let writes = server.writes();
        assert_eq!(writes.iter().filter(|write| write.starts_with("create jobs")).count(), 1, "{writes:?}");
        assert_eq!(writes.iter().filter(|write| write.contains("status")).count(), 1, "{writes:?}");
    };
    with_controller(&server, settings(), crate::plan::plan, steps).await;
}
