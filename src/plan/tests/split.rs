//! Loads by several workers: what their Job is like, and who of them speaks for all.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

use super::*;
use crate::{
    contract::{Report, Transfer, exit, report::TERMINATION_MESSAGE_LIMIT},
    plan::{
        Observed,
        attempt::{self, Attempt},
        worker_job,
    },
};

fn volume(workers: u32) -> Value {
    spec(json!([{"claimName": "llama", "accessModes": ["ReadWriteMany"], "parallelism": workers}]))
}

/// The Job of the load.
fn load_job(life: &mut Life) -> Job {
    for _ in 0..100 {
        life.world.settle();
        life.pass();
        let job = life.world.jobs().values().find(|job| {
            let name = job.metadata.name.as_deref().unwrap();
            task(&life.world, name).kind == TaskKind::Load
        });
        if let Some(job) = job {
            return job.clone();
        }
        life.world.settle();
        life.work();
        life.advance(5);
    }
    panic!("no load: {:?}", life.status().conditions);
}

#[test]
fn several_workers_are_an_indexed_job_and_one_is_not() {
    let mut life = Life::new(volume(3));
    let job = load_job(&mut life);
    let spec = job.spec.clone().unwrap();
    assert!(worker_job::is_split(&job));
    assert_eq!((spec.completions, spec.parallelism, spec.backoff_limit), (Some(3), Some(3), None));
    assert!(spec.backoff_limit_per_index.is_some_and(|limit| limit > 0));
    let name = job.metadata.name.clone().unwrap();
    let load = task(&life.world, &name).load.unwrap();
    assert_eq!((load.workers, load.worker, load.group), (3, 0, name));
    let mut alone = Life::new(volume(1));
    let job = load_job(&mut alone);
    let spec = job.spec.clone().unwrap();
    assert!(!worker_job::is_split(&job));
    assert_eq!((spec.completions, spec.backoff_limit), (Some(1), Some(0)));
}

#[test]
fn a_volume_that_one_pod_can_write_is_not_loaded_by_several() {
    let life = {
        let mut life = Life::new(spec(json!([{"claimName": "llama", "parallelism": 2}])));
        life.world.settle();
        life.pass();
        life
    };
    assert_eq!(life.condition(ConditionType::Validated), "False InvalidSpec");
    let message =
        life.status().conditions.into_iter().find(|condition| condition.type_ == "Validated").unwrap().message;
    assert!(message.contains("volumes[0].parallelism") && message.contains("ReadWriteMany"), "{message}");
}

fn pod(job: &str, second: i64, report: &Report, code: i32) -> Pod {
    let at = Timestamp::from_second(second).unwrap().to_string();
    serde_json::from_value(json!({
        "metadata": {"name": format!("p{second}"), "labels": {"batch.kubernetes.io/job-name": job}, "creationTimestamp": at},
        "status": {"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code, "finishedAt": at, "message": report.encode(TERMINATION_MESSAGE_LIMIT)}},
        }]},
    }))
    .unwrap()
}

fn ended(kind: &str, pods: Vec<Pod>) -> Report {
    let job: Job = serde_json::from_value(json!({
        "metadata": {"name": "load"},
        "spec": {"completionMode": "Indexed", "template": {}},
        "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
    .unwrap();
    let observed = Observed { pods, ..Observed::default() };
    let now = "2026-01-01T01:00:00Z".parse().unwrap();
    match attempt::look(&observed, &job, TaskKind::Load, now) {
        Attempt::Ended(ended) => ended.report,
        other => panic!("{other:?}"),
    }
}

fn share(fetched: u64) -> Report {
    let transfer = Transfer { bytes: fetched, bytes_fetched: fetched, ..Transfer::default() };
    let report = Report::new(TaskKind::Load, Outcome::Good, Reason::Loading, "a share is in the volume");
    Report { transfer: Some(transfer), ..report }
}

#[test]
fn whoever_found_the_whole_complete_speaks_for_all() {
    let mut whole = share(10);
    whole.digest = Some("blake3:x".into());
    whole.transfer.as_mut().unwrap().bytes = 60;
    let killed = Report::new(TaskKind::Load, Outcome::Failed, Reason::Unreachable, "the network was down");
    for last in [0, 9] {
        let pods = vec![
            pod("load", 1 + last, &whole, 0),
            pod("load", 2, &share(20), 0),
            pod("load", 3, &killed, i32::from(exit::RETRY)),
            pod("load", 4, &share(25), 0),
        ];
        let report = ended("Complete", pods);
        assert_eq!(report.digest.as_deref(), Some("blake3:x"));
        let transfer = report.transfer.unwrap();
        assert_eq!((transfer.bytes, transfer.bytes_fetched, transfer.bytes_kept), (60, 55, 5));
    }
}

#[test]
fn the_failure_that_ended_the_others_is_told() {
    let full = Report::new(TaskKind::Load, Outcome::Failed, Reason::InsufficientSpace, "the volume is full");
    let stopped = Report { task: Some(TaskKind::Load), message: "stopped".into(), ..share(0) };
    let stopped = Report { outcome: Outcome::Failed, reason: None, ..stopped };
    let code = i32::from(exit::code(Reason::InsufficientSpace));
    let pods = vec![
        pod("load", 1, &share(20), 0),
        pod("load", 2, &full, code),
        pod("load", 3, &stopped, i32::from(exit::RETRY)),
    ];
    assert_eq!(ended("Failed", pods).reason, Some(Reason::InsufficientSpace));
    let broken = Report::new(TaskKind::Load, Outcome::Failed, Reason::Unreachable, "down");
    let pods = vec![pod("load", 2, &broken, i32::from(exit::RETRY)), pod("load", 3, &share(20), 0)];
    assert_eq!(ended("Failed", pods).reason, Some(Reason::Unreachable));
    assert_eq!(ended("Complete", vec![pod("load", 3, &share(20), 0)]).reason, Some(Reason::WorkerFailed));
}
