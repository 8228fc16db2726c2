//! Undisturbed lives: what a user sees from creation to deletion.

use super::*;

const ALL: [ConditionType; 6] = ConditionType::ALL;

fn conditions(life: &Life) -> Vec<String> {
    ALL.iter().map(|kind| life.condition(*kind)).collect()
}

#[test]
fn all_conditions_are_there_from_the_first_write_on() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.pass();
    assert_eq!(
        conditions(&life),
        [
            "Unknown Checking",
            "Unknown Validating",
            "Unknown WaitingForVolume",
            "Unknown Checking",
            "False Progressing",
            "Unknown Checking"
        ]
    );
    assert_eq!(life.status().observed_generation, Some(1));
}

#[test]
fn a_checkpoint_becomes_a_published_volume() {
    for waits in [false, true] {
        let mut life = Life::new(spec(json!([{"claimName": "llama", "storageClassName": "class"}])));
        life.world.add_storage_class("class", false, waits);
        life.run(60);
        assert_eq!(
            conditions(&life),
            ["True Reachable", "True Complete", "True Published", "True Ready", "False Progressing", "False InSync"]
        );
        assert_eq!(life.performed, [TaskKind::Inspect, TaskKind::Load]);
        let status = life.status();
        assert_eq!(status.progress.as_deref(), Some("100%"));
        assert_eq!(status.digest.as_deref(), Some("blake3:tree-1"));
        assert_eq!(status.volumes[0].persistent_volume.as_ref(), life.world.volumes().keys().next());
        assert_eq!(life.world.claims().keys().collect::<Vec<_>>(), ["llama"]);
        let claim = &life.world.claims()["llama"];
        assert_eq!(claims::phase(claim), "Bound");
        assert_eq!(
            claim.metadata.owner_references.as_deref().unwrap_or_default(),
            [],
            "Retain leaves the claim unowned"
        );
        assert!(life.world.jobs().is_empty());
        let told: Vec<_> = life.events.iter().map(|event| event.reason).collect();
        assert_eq!(told, [Reason::Complete, Reason::Loading, Reason::Published, Reason::Ready]);
    }
}

#[test]
fn the_target_waits_while_the_load_runs() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    for _ in 0..12 {
        life.world.settle();
        life.pass();
        life.world.settle();
        let running = life.world.running_jobs();
        if running.first().is_some_and(|job| task(&life.world, job).kind == TaskKind::Load) {
            break;
        }
        life.work();
    }
    life.world.settle();
    life.pass();
    life.world.settle();
    assert_eq!(claims::phase(&life.world.claims()["llama"]), "Pending");
    assert_eq!(life.condition(ConditionType::Materialized), "Unknown Loading");
}

#[test]
fn without_volumes_it_is_only_validated() {
    let mut life = Life::new(spec(json!([])));
    life.run(60);
    assert_eq!(life.condition(ConditionType::Materialized), "True NotRequested");
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn several_volumes_are_loaded_one_turn_each() {
    let mut life =
        Life::new(spec(json!([{"claimName": "a"}, {"claimName": "b", "include": ["*.json"]}, {"claimName": "c"}])));
    life.run(120);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.world.claims().len(), 3);
}

#[test]
fn upgrades_restart_nothing() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    life.config.worker_image = "image:2".to_owned();
    life.config.worker.run_as_user = Some(1000);
    life.run(60);
    assert_eq!(life.performed.len(), 2);
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.world.settle();
    life.pass();
    life.config.worker_image = "image:2".to_owned();
    life.pass();
    assert_eq!(life.world.jobs().len(), 1);
    life.run(60);
    assert_eq!(life.performed.len(), 2);
}

#[test]
fn deletion_leaves_what_the_policy_says() {
    for (policy, left) in [("Retain", 1), ("Delete", 0)] {
        let mut life = Life::new(spec(json!([{"claimName": "llama", "deletionPolicy": policy}])));
        life.run(60);
        life.world.delete_checkpoint(&life.uid.clone());
        life.world.settle();
        assert_eq!(life.world.claims().len(), left, "{policy}");
        assert_eq!(life.world.volumes().len(), left, "{policy}");
    }
}

#[test]
fn the_policy_can_change_after_publishing() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    for (policy, owners) in [(crate::api::DeletionPolicy::Delete, 1), (crate::api::DeletionPolicy::Retain, 0)] {
        life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.volumes[0].deletion_policy = policy);
        life.run(60);
        assert_eq!(life.world.claims()["llama"].metadata.owner_references.iter().flatten().count(), owners);
    }
    assert_eq!(life.performed.len(), 2, "nothing is loaded again");
}

#[test]
fn a_retained_claim_is_adopted_after_its_files_were_hashed() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    life.world.delete_checkpoint(&life.uid.clone());
    life.world.settle();
    life.uid = add(&mut life.world, "llama", spec(json!([{"claimName": "llama", "deletionPolicy": "Delete"}])));
    life.performed.clear();
    life.run(60);
    assert_eq!(life.performed, [TaskKind::Inspect, TaskKind::Verify]);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.world.claims()["llama"].metadata.owner_references.iter().flatten().count(), 1);
}

#[test]
fn a_retained_claim_with_other_bytes_is_refused() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    life.world.delete_checkpoint(&life.uid.clone());
    life.world.settle();
    life.uid = add(&mut life.world, "llama", spec(json!([{"claimName": "llama"}])));
    life.files.verification = (Outcome::Bad, Reason::Corrupt);
    life.run(60);
    assert_eq!(life.condition(ConditionType::Materialized), "False ClaimConflict");
    assert_eq!(life.condition(ConditionType::Validated), "True Complete");
    let publication = claims::publication(life.world.claims()["llama"].metadata.annotations.as_ref()).unwrap();
    assert_ne!(publication.checkpoint_uid, life.uid);
}

#[test]
fn a_claim_of_another_checkpoint_is_left_alone() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    life.uid = add(&mut life.world, "other", spec(json!([{"claimName": "llama"}])));
    let before = life.world.claims()["llama"].clone();
    life.run(60);
    assert_eq!(life.condition(ConditionType::Materialized), "False ClaimConflict");
    assert_eq!(life.world.claims()["llama"], before);
}

#[test]
fn a_source_that_changes_after_publishing_only_drifts() {
    let mut life = Life::new(json!({
        "path": "llama", "storage": {"s3": {"bucket": "models"}}, "volumes": [{"claimName": "llama"}], "revalidateEvery": "10m",
    }));
    life.run(60);
    life.files.fingerprint = "blake3:files-2".to_owned();
    life.run(1300);
    assert_eq!(
        conditions(&life),
        ["True Reachable", "True Complete", "True Published", "True Ready", "False Progressing", "True SourceChanged"]
    );
    life.files.inspection = (Outcome::Failed, Reason::NotFound, "no such bucket".to_owned());
    life.run(3600);
    assert_eq!(life.condition(ConditionType::Drifted), "True SourceGone");
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    life.files = Files::default();
    life.run(7200);
    assert_eq!(life.condition(ConditionType::Drifted), "False InSync");
}

#[test]
fn revalidate_asks_for_one_look() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    for value in ["1", "2"] {
        life.performed.clear();
        life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| {
            let annotations = checkpoint.metadata.annotations.get_or_insert_default();
            annotations.insert(crate::api::ANNOTATION_REVALIDATE.to_owned(), value.to_owned());
        });
        life.run(600);
        assert_eq!(life.performed, [TaskKind::Inspect]);
        assert_eq!(life.status().inspection.unwrap().handled_revalidate.as_deref(), Some(value));
    }
}

#[test]
fn removed_entries_take_their_unfinished_work_with_them() {
    let mut life = Life::new(spec(json!([{"claimName": "a"}, {"claimName": "b", "deletionPolicy": "Delete"}])));
    life.run(60);
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.volumes.clear());
    life.run(60);
    assert_eq!(life.world.claims().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
}

#[test]
fn suspension_finishes_what_runs_and_publishes_nothing() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    while life.performed.len() < 2 {
        life.world.settle();
        life.pass();
        life.world.settle();
        life.work();
    }
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.suspend = true);
    life.run(600);
    assert_eq!(life.condition(ConditionType::Ready), "Unknown Suspended");
    assert_eq!(claims::phase(&life.world.claims()["llama"]), "Pending");
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.suspend = false);
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.performed.len(), 2, "what was loaded is published without another load");

    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.suspend = true);
    life.run(600);
    assert_eq!(life.condition(ConditionType::SourceReachable), "Unknown Suspended");
    assert!(life.performed.is_empty());
}

#[test]
fn a_published_claim_that_is_deleted_is_loaded_anew() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    let uid = life.world.claims()["llama"].metadata.uid.clone().unwrap();
    life.world.apply(&Action::DeleteClaim { name: "llama".to_owned(), uid }).unwrap();
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.performed.iter().filter(|kind| **kind == TaskKind::Load).count(), 2);
}

#[test]
fn a_volume_added_later_holds_the_same_files() {
    let mut life = Life::new(spec(json!([{"claimName": "a"}])));
    life.run(60);
    let added: crate::api::Volume = serde_json::from_value(json!({"claimName": "b"})).unwrap();
    life.world.edit_checkpoint(&life.uid.clone(), |checkpoint| checkpoint.spec.volumes.push(added));
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.world.claims().len(), 2);
}
