//! What the world does, against what a cluster was seen to do.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule},
        core::v1::{
            Container, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodSpec,
            PodTemplateSpec, Volume, VolumeResourceRequirements,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use serde_json::json;

use super::*;
use crate::{
    api::LABEL_CHECKPOINT_UID,
    contract::{Outcome, Reason, Report, TaskKind},
    plan::Action,
};

const OWNER: &str = "11111111-2222-3333-4444-555555555555";

fn world() -> World {
    let mut world = World::new(Timestamp::UNIX_EPOCH);
    let mut checkpoint = Checkpoint::new("llama", Default::default());
    checkpoint.metadata.uid = Some(OWNER.to_owned());
    checkpoint.metadata.namespace = Some("ml".to_owned());
    world.add_checkpoint(checkpoint);
    world
}

fn metadata(name: &str, has_owner: bool) -> ObjectMeta {
    let owner = OwnerReference {
        api_version: "checkpoints.dev/v1alpha1".to_owned(),
        kind: "Checkpoint".to_owned(),
        name: "llama".to_owned(),
        uid: OWNER.to_owned(),
        ..OwnerReference::default()
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("ml".to_owned()),
        labels: Some(BTreeMap::from([(LABEL_CHECKPOINT_UID.to_owned(), OWNER.to_owned())])),
        owner_references: has_owner.then(|| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn claim(name: &str, volume: Option<&str>) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: metadata(name, true),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity("1Gi".to_owned()))])),
                ..VolumeResourceRequirements::default()
            }),
            volume_name: volume.map(str::to_owned),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

fn job(name: &str, claim: &str) -> Job {
    let rule = |action: &str, values: Vec<i32>| PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            operator: "In".to_owned(),
            values,
            ..PodFailurePolicyOnExitCodesRequirement::default()
        }),
        ..PodFailurePolicyRule::default()
    };
    let source = PersistentVolumeClaimVolumeSource { claim_name: claim.to_owned(), ..Default::default() };
    Job {
        metadata: metadata(name, true),
        spec: Some(JobSpec {
            backoff_limit: Some(1),
            pod_failure_policy: Some(PodFailurePolicy { rules: vec![rule("FailJob", vec![10, 11, 12])] }),
            template: PodTemplateSpec {
                metadata: Some(metadata("", false)),
                spec: Some(PodSpec {
                    containers: vec![Container { name: "worker".to_owned(), ..Container::default() }],
                    volumes: Some(vec![Volume {
                        name: "volume".to_owned(),
                        persistent_volume_claim: Some(source),
                        ..Volume::default()
                    }]),
                    ..PodSpec::default()
                }),
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

fn create_claim(world: &mut World, name: &str, volume: Option<&str>) {
    world.apply(&Action::CreateClaim(Box::new(claim(name, volume)))).unwrap();
}

fn create_job(world: &mut World, name: &str, claim: &str) {
    world.apply(&Action::CreateJob(Box::new(job(name, claim)))).unwrap();
}

fn claim_phase<'a>(world: &'a World, name: &str) -> &'a str {
    world.claims()[name].status.as_ref().unwrap().phase.as_deref().unwrap()
}

fn uid(world: &World, claim: &str) -> String {
    world.claims()[claim].metadata.uid.clone().unwrap()
}

fn volume_of(world: &World, claim: &str) -> String {
    world.claims()[claim].spec.as_ref().unwrap().volume_name.clone().unwrap()
}

fn conditions(world: &World, job: &str) -> Vec<(String, String)> {
    let status = world.jobs()[job].status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    conditions.into_iter().map(|condition| (condition.type_, condition.reason.unwrap_or_default())).collect()
}

fn conflict(result: &Result<(), WriteError>) -> bool {
    matches!(result, Err(WriteError::Conflict(_)))
}

fn refused(result: Result<(), WriteError>) -> u16 {
    match result {
        Err(WriteError::Refused(refusal)) => refusal.code,
        other => panic!("{other:?}"),
    }
}

/// Points a volume at a claim as publishing does.
fn hand_over(world: &mut World, volume: &str, target: &str) -> Result<(), WriteError> {
    let metadata = &world.volumes()[volume].metadata;
    let patch = json!({
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "spec": {"claimRef": {"namespace": "ml", "name": target, "uid": uid(world, target), "resourceVersion": null}},
    });
    world.apply(&Action::PatchVolume { name: volume.to_owned(), patch })
}

#[test]
fn a_claim_without_a_volume_gets_one() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    assert_eq!(claim_phase(&world, "staging"), "Pending");
    world.bind_volumes();
    assert_eq!(claim_phase(&world, "staging"), "Bound");
    let volume = &world.volumes()[&volume_of(&world, "staging")];
    assert_eq!(volume.metadata.name, Some(format!("pv-{}", uid(&world, "staging"))));
    assert_eq!(volume.spec.as_ref().unwrap().claim_ref.as_ref().unwrap().uid, Some(uid(&world, "staging")));
    assert_eq!(world.claims()["staging"].spec.as_ref().unwrap().storage_class_name.as_deref(), Some(STORAGE_CLASS));
}

#[test]
fn a_class_that_waits_binds_with_the_first_pod_and_an_unknown_one_never() {
    let mut world = world();
    world.add_storage_class("waits", false, true);
    for (name, class) in [("late", "waits"), ("never", "missing"), ("none", "")] {
        let mut claim = claim(name, None);
        claim.spec.as_mut().unwrap().storage_class_name = Some(class.to_owned());
        world.apply(&Action::CreateClaim(Box::new(claim))).unwrap();
    }
    world.settle();
    assert_eq!(
        [claim_phase(&world, "late"), claim_phase(&world, "never"), claim_phase(&world, "none")],
        ["Pending"; 3]
    );
    create_job(&mut world, "load", "late");
    world.settle();
    assert_eq!(claim_phase(&world, "late"), "Bound");
    assert_eq!(world.running_jobs(), ["load"]);
}

#[test]
fn the_hand_over_binds_the_target_and_loses_staging() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    world.settle();
    let volume = volume_of(&world, "staging");
    create_claim(&mut world, "target", Some(&volume));
    world.settle();
    assert_eq!(claim_phase(&world, "target"), "Pending", "the volume is still staging's");

    hand_over(&mut world, &volume, "target").unwrap();
    world.settle();
    assert_eq!((claim_phase(&world, "target"), claim_phase(&world, "staging")), ("Bound", "Lost"));
    let staging = uid(&world, "staging");
    world.apply(&Action::DeleteClaim { name: "staging".to_owned(), uid: staging }).unwrap();
    world.settle();
    assert!(!world.claims().contains_key("staging"));
    assert!(world.volumes().contains_key(&volume), "the volume is the target's");
    assert_eq!(claim_phase(&world, "target"), "Bound");
    let status = world.claims()["target"].status.clone().unwrap();
    assert_eq!(status.capacity.unwrap()["storage"].0, "1Gi");
    assert_eq!(status.access_modes.unwrap(), ["ReadWriteOnce"]);
}

#[test]
fn a_volume_for_another_claim_of_the_name_is_not_taken() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    world.settle();
    let volume = volume_of(&world, "staging");
    create_claim(&mut world, "target", Some(&volume));
    hand_over(&mut world, &volume, "target").unwrap();
    let old = uid(&world, "target");
    world.apply(&Action::DeleteClaim { name: "target".to_owned(), uid: old }).unwrap();
    create_claim(&mut world, "target", Some(&volume));
    world.bind_volumes();
    assert_eq!(claim_phase(&world, "target"), "Pending");
}

#[test]
fn preconditions_are_kept() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    world.settle();
    let volume = volume_of(&world, "staging");
    create_claim(&mut world, "target", Some(&volume));
    let name = || "staging".to_owned();
    let other = || "other".to_owned();
    assert!(conflict(&world.apply(&Action::DeleteClaim { name: name(), uid: other() })));
    assert!(conflict(&world.apply(&Action::PatchClaim { name: name(), patch: json!({"metadata": {"uid": "other"}}) })));
    assert!(conflict(&world.apply(&Action::PatchClaim { name: "gone".to_owned(), patch: json!({}) })));
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"claimRef": null}});
    assert!(conflict(&world.apply(&Action::PatchVolume { name: volume.clone(), patch: stale })));
    assert!(world.apply(&Action::DeleteClaim { name: "gone".to_owned(), uid: other() }).is_ok());
    assert!(world.apply(&Action::DeleteJob { name: "gone".to_owned(), uid: other() }).is_ok());

    let stale = world.volumes()[&volume].metadata.resource_version.clone();
    hand_over(&mut world, &volume, "target").unwrap();
    assert_ne!(world.volumes()[&volume].metadata.resource_version, stale);
}

#[test]
fn a_patch_that_changes_nothing_is_no_new_version() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    let patch = json!({"metadata": {"annotations": {"a": "b"}}});
    let action = Action::PatchClaim { name: "staging".to_owned(), patch };
    world.apply(&action).unwrap();
    let version = world.version();
    world.apply(&action).unwrap();
    assert_eq!(world.version(), version);
}

#[test]
fn creations_can_be_repeated_unless_another_made_the_object() {
    let mut world = world();
    create_claim(&mut world, "target", None);
    create_claim(&mut world, "target", None);
    create_job(&mut world, "load", "target");
    create_job(&mut world, "load", "target");
    let mut foreign = claim("foreign", None);
    foreign.metadata.labels = None;
    world.add_claim(foreign);
    assert!(conflict(&world.apply(&Action::CreateClaim(Box::new(claim("foreign", None))))));
    let mut other = job("load", "target");
    other.metadata.owner_references.as_mut().unwrap()[0].uid = "other".to_owned();
    assert_eq!(refused(world.apply(&Action::CreateJob(Box::new(other)))), 409);
}

#[test]
fn what_the_api_server_refuses_is_refused() {
    let mut world = world();
    assert_eq!(refused(world.apply(&Action::CreateClaim(Box::new(claim("Not valid", None))))), 422);
    let mut empty = claim("empty", None);
    empty.spec.as_mut().unwrap().access_modes = None;
    assert_eq!(refused(world.apply(&Action::CreateClaim(Box::new(empty)))), 422);
    create_claim(&mut world, "target", None);
    let patch = json!({"spec": {"accessModes": ["ReadOnlyMany"]}});
    assert_eq!(refused(world.apply(&Action::PatchClaim { name: "target".to_owned(), patch })), 422);
    world.deny(Kind::Claim, 403, "exceeded quota: small");
    assert_eq!(refused(world.apply(&Action::CreateClaim(Box::new(claim("more", None))))), 403);
    world.allow(Kind::Claim);
    create_claim(&mut world, "more", None);
}

#[test]
fn a_claim_that_a_pod_mounts_stays_until_the_pod_is_gone() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    create_job(&mut world, "load", "staging");
    world.settle();
    let (claim, volume) = (uid(&world, "staging"), volume_of(&world, "staging"));
    world.apply(&Action::DeleteClaim { name: "staging".to_owned(), uid: claim }).unwrap();
    world.settle();
    assert!(world.claims()["staging"].metadata.deletion_timestamp.is_some());
    let job = world.jobs()["load"].metadata.uid.clone().unwrap();
    world.apply(&Action::DeleteJob { name: "load".to_owned(), uid: job }).unwrap();
    assert_eq!(world.pods().len(), 1, "background propagation");
    world.settle();
    assert!(world.pods().is_empty() && world.claims().is_empty());
    assert!(!world.volumes().contains_key(&volume), "the class reclaims");
}

#[test]
fn what_a_checkpoint_owns_goes_with_it_and_what_it_retains_stays() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    create_job(&mut world, "load", "staging");
    let mut retained = claim("retained", None);
    retained.metadata.owner_references = None;
    world.apply(&Action::CreateClaim(Box::new(retained))).unwrap();
    world.settle();
    world.delete_checkpoint(OWNER);
    world.settle();
    assert!(world.jobs().is_empty() && world.pods().is_empty());
    assert_eq!(world.claims().keys().collect::<Vec<_>>(), ["retained"]);
    assert_eq!(world.volumes().len(), 1);
}

#[test]
fn a_job_that_reports_is_complete_and_its_pod_holds_the_report() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    create_job(&mut world, "load", "staging");
    world.settle();
    let report = Report::new(TaskKind::Load, Outcome::Good, Reason::Complete, "fine");
    world.finish_job("load", &report, 0);
    assert_eq!(conditions(&world, "load").last().unwrap().0, "Complete");
    assert!(world.running_jobs().is_empty());
    let pod = world.pods().values().next().unwrap();
    assert_eq!(pod.metadata.labels.as_ref().unwrap()["batch.kubernetes.io/job-name"], "load");
    assert_eq!(pod.metadata.labels.as_ref().unwrap()[LABEL_CHECKPOINT_UID], OWNER);
    let status = pod.status.as_ref().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Succeeded"));
    let state = status.container_statuses.as_ref().unwrap()[0].state.as_ref().unwrap();
    let message = state.terminated.as_ref().unwrap().message.as_deref().unwrap();
    assert_eq!(Report::decode(message).unwrap().message, "fine");
}

#[test]
fn a_job_fails_at_once_on_a_terminal_code_and_else_when_its_limit_is_spent() {
    let mut world = world();
    create_claim(&mut world, "staging", None);
    create_job(&mut world, "terminal", "staging");
    create_job(&mut world, "passing", "staging");
    world.settle();
    world.finish_pod("terminal", "", 11);
    assert_eq!(conditions(&world, "terminal").last().unwrap(), &("Failed".to_owned(), "PodFailurePolicy".to_owned()));
    world.finish_pod("passing", "", 1);
    assert_eq!(conditions(&world, "passing"), []);
    world.settle();
    assert_eq!(world.running_jobs(), ["passing"], "a second pod");
    world.finish_pod("passing", "", 137);
    assert_eq!(
        conditions(&world, "passing").last().unwrap(),
        &("Failed".to_owned(), "BackoffLimitExceeded".to_owned())
    );
    assert_eq!(world.jobs()["passing"].status.as_ref().unwrap().failed, Some(2));
}

#[test]
fn a_job_without_a_pod_has_an_event_and_one_without_its_claim_waits() {
    let mut world = world();
    world.deny(Kind::Pod, 403, "serviceaccount \"trainer\" not found");
    create_job(&mut world, "load", "missing");
    world.settle();
    let checkpoint = world.checkpoint(OWNER).unwrap().clone();
    let observed = world.observe(&checkpoint);
    assert_eq!(observed.job_events.len(), 1);
    assert!(observed.job_events[0].message.contains("trainer"));
    world.allow(Kind::Pod);
    world.settle();
    let observed = world.observe(&checkpoint);
    assert!(observed.job_events.is_empty() && observed.pods.len() == 1 && observed.jobs.len() == 1);
    assert!(world.running_jobs().is_empty());
}

#[test]
fn another_spec_is_another_generation() {
    let mut world = world();
    world.edit_checkpoint(OWNER, |checkpoint| checkpoint.spec.suspend = true);
    assert_eq!(world.checkpoint(OWNER).unwrap().metadata.generation, Some(2));
    world.write_status(OWNER, CheckpointStatus { progress: Some("1%".to_owned()), ..Default::default() });
    assert_eq!(world.checkpoint(OWNER).unwrap().metadata.generation, Some(2));
    let version = world.version();
    world.write_status(OWNER, CheckpointStatus { progress: Some("1%".to_owned()), ..Default::default() });
    assert_eq!(world.version(), version);
}
