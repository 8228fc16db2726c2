//! Lives in which something is wrong: what is said, that nothing retries for ever, and that repair heals.

use super::*;
use crate::{local::world::Kind, plan::Turn};

fn volume() -> Value {
    spec(json!([{"claimName": "llama"}]))
}

#[test]
fn a_bad_verdict_publishes_nothing_and_heals() {
    let mut life = Life::new(volume());
    life.files.inspection =
        (Outcome::Bad, Reason::Incomplete, "model-00002-of-00003.safetensors is missing".to_owned());
    life.run(60);
    assert_eq!(life.condition(ConditionType::Validated), "False Incomplete");
    assert_eq!(life.condition(ConditionType::SourceReachable), "True Reachable");
    assert_eq!(life.condition(ConditionType::Ready), "False Incomplete");
    assert_eq!(life.condition(ConditionType::Stalled), "True Incomplete");
    assert!(life.message(ConditionType::Ready).contains("model-00002-of-00003"));
    assert!(life.world.claims().is_empty());
    life.files = Files::default();
    life.run(7200);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn failures_are_tried_again_with_growing_intervals() {
    for reason in [Reason::AccessDenied, Reason::InvalidSpec, Reason::TlsFailed, Reason::NotFound] {
        let mut life = Life::new(volume());
        life.files.inspection = (Outcome::Failed, reason, "check storage.s3.region".to_owned());
        // The first look says it all.
        life.run(5);
        assert_eq!(life.performed.len(), 1, "{reason}");
        assert_eq!(life.condition(ConditionType::SourceReachable), format!("False {reason}"));
        assert_eq!(life.condition(ConditionType::Stalled), format!("True {reason}"));
        assert!(life.message(ConditionType::Ready).contains("check storage.s3.region"), "{reason}");
        life.run(24 * 3600);
        assert_eq!(life.condition(ConditionType::Stalled), format!("True {reason}"));
        assert!((20..45).contains(&life.performed.len()), "{reason}: {} attempts in a day", life.performed.len());
        assert!(life.status().inspection.unwrap().next_attempt_at.is_some());
        life.performed.clear();
        life.files = Files::default();
        life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
            checkpoint.metadata.annotations =
                Some([(crate::api::ANNOTATION_REVALIDATE.to_owned(), "now".to_owned())].into());
        });
        life.run(30);
        assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    }
}

#[test]
fn a_changed_spec_is_tried_at_once() {
    let mut life = Life::new(volume());
    life.files.inspection = (Outcome::Failed, Reason::Unreachable, "connection refused".to_owned());
    life.run(3600);
    assert_eq!(life.condition(ConditionType::Stalled), "False Progressing", "a passing error is no reason to give up");
    life.files = Files::default();
    life.performed.clear();
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
        checkpoint.spec.storage.as_mut().unwrap().s3.as_mut().unwrap().endpoint = Some("https://elsewhere".to_owned());
    });
    life.run(30);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn failed_loads_count_and_heal() {
    let mut life = Life::new(volume());
    life.files.load_failures = vec![(Reason::InsufficientSpace, "the volume is full".to_owned()); 3];
    life.run(25);
    assert_eq!(life.condition(ConditionType::Materialized), "False InsufficientSpace");
    assert!(life.message(ConditionType::Materialized).starts_with("llama: "));
    life.run(3600);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.status().volumes[0].attempt, 4);
    assert_eq!(life.status().volumes[0].failures, 0);
}

#[test]
fn a_source_that_changes_during_the_load_is_inspected_again() {
    let mut life = Life::new(volume());
    life.files.load_failures = vec![(Reason::SourceChanged, "etag differs".to_owned())];
    life.run(20);
    life.files.fingerprint = "blake3:files-2".to_owned();
    life.run(600);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.status().volumes[0].fingerprint, life.status().source.unwrap().fingerprint);
}

#[test]
fn a_source_that_always_changes_does_not_spin() {
    let mut life = Life::new(volume());
    life.files.load_failures = vec![(Reason::SourceChanged, "etag differs".to_owned()); 10_000];
    life.run(24 * 3600);
    assert!(life.performed.len() < 100, "{} tasks in a day", life.performed.len());
}

#[test]
fn a_wrong_pin_downloads_once() {
    let pin = format!("blake3:{}", "0".repeat(64));
    let mut life = Life::new(json!({
        "path": "llama", "storage": {"s3": {"bucket": "models"}}, "volumes": [{"claimName": "llama"}],
        "validation": {"digest": pin},
    }));
    life.files.digest = format!("blake3:{}", "1".repeat(64));
    life.files.load_failures = vec![(Reason::DigestMismatch, "another digest".to_owned()); 10_000];
    life.run(24 * 3600);
    assert_eq!(life.condition(ConditionType::Validated), "False DigestMismatch");
    assert_eq!(life.performed.iter().filter(|kind| **kind == TaskKind::Load).count(), 1);
    assert!(
        life.world.claims().values().all(|claim| claims::publication(claim.metadata.annotations.as_ref()).is_none())
    );
}

#[test]
fn workers_that_cannot_start_are_named() {
    let mut life = Life::new(volume());
    life.world.deny(
        Kind::Pod,
        403,
        "pods \"x\" is forbidden: error looking up service account team/trainer: serviceaccount \"trainer\" not found",
    );
    life.run(60);
    assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown WorkerForbidden");
    assert_eq!(life.condition(ConditionType::Stalled), "True WorkerForbidden");
    assert!(life.message(ConditionType::Ready).contains("trainer"), "{}", life.message(ConditionType::Ready));
    life.world.allow(Kind::Pod);
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");

    let mut life = Life::new(volume());
    life.pass();
    life.world.start_pods();
    let pod = life.world.pods().keys().next().unwrap().clone();
    life.world.edit_pod(&pod, |pod| {
        pod.status = serde_json::from_value(json!({"phase": "Pending", "containerStatuses": [{
            "name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]}))
        .unwrap();
    });
    life.pass();
    assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown WorkerNotStarting");
    // A spec that starts the pod in another way replaces it.
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
        checkpoint.spec.service_account_name = Some("trainer".to_owned());
    });
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn an_image_that_cannot_be_pulled_is_healed_by_another_installation() {
    let mut life = Life::new(volume());
    life.pass();
    life.world.start_pods();
    let stuck = |life: &mut Life| {
        let pod = life.world.pods().keys().next().unwrap().clone();
        life.world.edit_pod(&pod, |pod| {
            pod.status = serde_json::from_value(json!({"phase": "Pending", "containerStatuses": [{
                "name": "worker", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
            }]}))
            .unwrap();
        });
    };
    stuck(&mut life);
    let job_uid = |life: &Life| life.world.jobs().values().next().unwrap().metadata.uid.clone();
    let first = job_uid(&life);
    life.pass();
    assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown WorkerNotStarting");
    assert_eq!(job_uid(&life), first, "the same installation would do the same");
    life.config.worker_image = "image:2".to_owned();
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.performed, [TaskKind::Inspect, TaskKind::Load]);
}

#[test]
fn quotas_are_named_and_healed() {
    for (kind, condition) in [(Kind::Claim, ConditionType::Materialized), (Kind::Job, ConditionType::SourceReachable)] {
        let mut life = Life::new(volume());
        life.world.deny(kind, 403, "exceeded quota: storage, requested: 2Gi, limited: 1Gi");
        life.run(60);
        assert_eq!(life.condition(condition), "False QuotaExceeded");
        assert!(life.message(condition).contains("storage"));
        life.world.allow(kind);
        life.run(120);
        assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    }
}

#[test]
fn a_missing_class_is_named_and_healed() {
    let mut life = Life::new(spec(json!([{"claimName": "llama", "storageClassName": "fast"}])));
    life.run(60);
    assert_eq!(life.condition(ConditionType::Materialized), "False StorageClassNotFound");
    assert!(life.message(ConditionType::Materialized).contains("fast"));
    life.world.add_storage_class("fast", false, true);
    life.run(120);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    let mut life = Life::new(volume());
    life.world.remove_storage_class(crate::local::world::STORAGE_CLASS);
    life.run(60);
    assert!(life.message(ConditionType::Materialized).contains("no default storage class"));
}

#[test]
fn a_foreign_claim_stays_untouched() {
    let mut life = Life::new(volume());
    life.world.add_claim(
        serde_json::from_value(json!({"metadata": {"name": "llama", "namespace": "team"}, "spec": {}})).unwrap(),
    );
    life.world.settle();
    let before = life.world.claims()["llama"].clone();
    life.run(300);
    assert_eq!(life.condition(ConditionType::Materialized), "False ClaimConflict");
    assert_eq!(life.world.claims()["llama"], before);
}

#[test]
fn a_size_below_the_need_is_refused() {
    let mut life = Life::new(spec(json!([{"claimName": "llama", "size": "512Mi"}])));
    life.run(60);
    assert_eq!(life.condition(ConditionType::Materialized), "False InsufficientSpace");
    assert!(life.world.claims().is_empty());
}

#[test]
fn limits_queue() {
    let mut life = Life::new(volume());
    life.world.set_turn(Turn::Waiting { running: 16 });
    life.run(60);
    assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown Queued");
    assert!(life.world.jobs().is_empty(), "no Job is made before its turn");
    life.world.set_turn(Turn::Granted);
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn a_worker_without_a_report_is_a_spent_attempt() {
    let mut life = Life::new(volume());
    for (message, code) in [("", 137), ("{", 0), ("not a report", 1)] {
        life.run_until_started();
        let job = life.world.running_jobs()[0].clone();
        life.world.finish_pod(&job, message, code);
        life.pass();
        assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown WorkerFailed", "{message} {code}");
        assert!(life.status().inspection.unwrap().next_attempt_at.is_some());
    }
    life.run(7200);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn a_replaced_staging_claim_leads_to_no_patch_of_its_volume() {
    let mut life = Life::new(volume());
    while life.performed.len() < 2 {
        life.world.settle();
        life.pass();
        life.world.settle();
        life.work();
    }
    // The load is done. Somebody replaces the staging claim by one of the same name and labels on another's volume.
    let name = life.world.claims().keys().find(|name| name.starts_with("ckpt-staging")).unwrap().clone();
    let old = life.world.claims()[&name].clone();
    life.pass();
    for pod in life.world.pods().keys().cloned().collect::<Vec<_>>() {
        life.world.delete_pod(&pod);
    }
    life.world.apply(&Action::DeleteClaim { name: name.clone(), uid: old.metadata.uid.clone().unwrap() }).unwrap();
    life.world.add_volume(
        serde_json::from_value(json!({
            "metadata": {"name": "precious"},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "10Gi"}, "storageClassName": "local",
                     "claimRef": {"namespace": "team", "name": name}},
        }))
        .unwrap(),
    );
    let mut forged = old.clone();
    forged.spec.as_mut().unwrap().volume_name = Some("precious".to_owned());
    forged.status = None;
    life.world.add_claim(forged);
    life.world.settle();
    // The invariants of every write are checked on the way; the forged claim is staged anew and loaded before any patch.
    let before = life.performed.len();
    life.pass();
    life.world.settle();
    life.pass();
    let reference = life.world.volumes()["precious"].spec.as_ref().unwrap().claim_ref.clone().unwrap();
    assert_eq!(reference.name.as_deref(), Some(name.as_str()), "no patch without a load onto that very claim");
    assert_eq!(life.performed.len(), before);
}

#[test]
fn source_claims_must_be_there_and_bound() {
    let mut life = Life::new(json!({"path": "pvc://data/run"}));
    life.run(60);
    assert_eq!(life.condition(ConditionType::SourceReachable), "False NotFound");
    assert!(life.performed.is_empty(), "no worker is needed to see that");
    life.world.add_claim(
        serde_json::from_value(json!({"metadata": {"name": "data", "namespace": "team"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none"}}))
        .unwrap(),
    );
    life.run(60);
    assert_eq!(life.condition(ConditionType::SourceReachable), "False WaitingForVolume");
    life.world.add_storage_class("none", false, false);
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn a_spec_that_cannot_be_carried_out_says_so() {
    let mut life =
        Life::new(json!({"path": "llama", "storage": {"s3": {"bucket": "models", "endpoint": "http://minio"}}}));
    life.run(60);
    assert_eq!(life.condition(ConditionType::SourceReachable), "False InsecureEndpoint");
    assert_eq!(life.condition(ConditionType::Stalled), "True InsecureEndpoint");
    assert!(life.performed.is_empty(), "no worker is needed to see that");
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
        checkpoint.spec.storage.as_mut().unwrap().s3.as_mut().unwrap().insecure = true;
    });
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn an_unknown_region_starts_no_worker() {
    let mut life = Life::new(json!({"path": "llama", "storage": {"s3": {"bucket": "models", "region": "eu-west-1a"}}}));
    life.run(24 * 3600);
    assert_eq!(life.condition(ConditionType::SourceReachable), "False InvalidSpec");
    assert_eq!(life.condition(ConditionType::Stalled), "True InvalidSpec");
    assert!(life.message(ConditionType::Ready).contains("storage.s3.region"), "{}", life.message(ConditionType::Ready));
    assert!(life.performed.is_empty());
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
        checkpoint.spec.storage.as_mut().unwrap().s3.as_mut().unwrap().region = Some("eu-west-1".to_owned());
    });
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

impl Life {
    /// Goes on until a worker runs.
    fn run_until_started(&mut self) {
        for _ in 0..200 {
            self.world.settle();
            if !self.world.running_jobs().is_empty() {
                return;
            }
            if !self.pass() {
                self.advance(5);
            }
        }
        panic!("no worker started: {:?}", self.status().conditions);
    }
}
