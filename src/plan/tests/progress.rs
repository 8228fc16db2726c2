//! What a status says while a load runs, and that it needs nobody to tell it anything.

use k8s_openapi::api::core::v1::PodSpec;

use super::*;
use crate::{
    api::{Phase, VolumeStatus},
    contract::{ProgressMessage, VERSION, progress::AUDIENCE},
};

const GIB: u64 = 1 << 30;

fn copying(done: u64, rate: Option<u64>, left: Option<u64>) -> ProgressMessage {
    ProgressMessage {
        version: VERSION,
        bytes_done: done,
        bytes_total: GIB,
        bytes_per_second: rate,
        remaining_seconds: left,
        ..ProgressMessage::default()
    }
}

/// A life whose worker of this kind runs, and its Job's name.
fn running(life: &mut Life, kind: TaskKind) -> String {
    for _ in 0..50 {
        life.world.settle();
        life.pass();
        life.world.settle();
        let running = life.world.running_jobs();
        if let Some(job) = running.iter().find(|job| task(&life.world, job).kind == kind) {
            life.pass();
            return job.clone();
        }
        life.work();
        life.advance(60);
    }
    panic!("no {kind:?} ever runs");
}

fn loading() -> (Life, String) {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    let job = running(&mut life, TaskKind::Load);
    (life, job)
}

fn volume(life: &Life) -> VolumeStatus {
    life.status().volumes[0].clone()
}

/// Bytes, rate, seconds and the share.
fn shown(life: &Life) -> (Option<i64>, Option<i64>, Option<i64>, String) {
    let volume = volume(life);
    (volume.bytes_done, volume.bytes_per_second, volume.remaining_seconds, life.status().progress.unwrap_or_default())
}

fn shows(
    done: u64,
    rate: Option<i64>,
    left: Option<i64>,
    share: &str,
) -> (Option<i64>, Option<i64>, Option<i64>, String) {
    (Some(i64::try_from(done).unwrap()), rate, left, share.to_owned())
}

#[test]
fn what_a_worker_tells_is_in_the_status() {
    let (mut life, job) = loading();
    assert_eq!(shown(&life), (None, None, None, "0%".to_owned()), "nobody has told anything");
    let listing = ProgressMessage { version: VERSION, ..ProgressMessage::default() };
    for (what, message, expected) in [
        ("it lists", listing, (None, None, None, "0%".to_owned())),
        ("it begins", copying(GIB / 4, None, None), shows(GIB / 4, None, None, "25%")),
        ("it goes on", copying(GIB / 2, Some(1 << 20), Some(512)), shows(GIB / 2, Some(1 << 20), Some(512), "50%")),
        ("it hangs", copying(GIB / 2, Some(0), None), shows(GIB / 2, Some(0), None, "50%")),
        ("a file was wrong", copying(GIB / 4, Some(9), Some(99)), shows(GIB / 4, Some(9), Some(99), "25%")),
        ("all is there", copying(GIB, Some(9), Some(0)), shows(GIB, Some(9), Some(0), "99%")),
        ("more than there is", copying(2 * GIB, Some(9), Some(0)), shows(GIB, Some(9), Some(0), "99%")),
    ] {
        life.world.tell_progress(&job, message);
        life.pass();
        assert_eq!(shown(&life), expected, "{what}");
        assert_eq!(volume(&life).phase, Phase::Loading);
        assert!(!life.pass(), "{what}: said once");
    }
    life.run(60);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!((volume(&life).bytes_done, volume(&life).remaining_seconds), (Some(1 << 30), None));
}

#[test]
fn old_numbers_lose_their_rate_in_time() {
    let (mut life, job) = loading();
    life.world.tell_progress(&job, copying(GIB / 2, Some(7), Some(8)));
    life.pass();
    assert_eq!(shown(&life), shows(GIB / 2, Some(7), Some(8), "50%"));
    let wait = life.plan().requeue.expect("nothing else would lead to a look");
    assert!(wait.as_secs() <= 61, "{wait:?}");
    life.advance(59);
    life.pass();
    assert_eq!(shown(&life), shows(GIB / 2, Some(7), Some(8), "50%"));
    life.advance(1);
    life.pass();
    assert_eq!(shown(&life), shows(GIB / 2, None, None, "50%"));
    assert!(!life.pass());
}

#[test]
fn another_attempt_begins_where_its_own_worker_says() {
    let (mut life, job) = loading();
    life.world.tell_progress(&job, copying(GIB / 2, Some(7), Some(8)));
    life.pass();
    life.world.finish_pod(&job, "", 137);
    life.pass();
    assert_eq!(volume(&life).phase, Phase::Failed);
    assert_eq!(shown(&life), shows(GIB / 2, None, None, "50%"), "nothing moves, and what was there is still there");
    life.advance(120);
    let next = running(&mut life, TaskKind::Load);
    assert_ne!(next, job);
    assert_eq!(shown(&life), shows(GIB / 2, None, None, "50%"));
    life.world.tell_progress(&next, copying(GIB / 4, None, None));
    life.pass();
    assert_eq!(shown(&life), shows(GIB / 4, None, None, "25%"));
}

#[test]
fn a_verification_tells_as_well() {
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.run(60);
    life.world.delete_checkpoint(&life.uid.clone());
    life.world.settle();
    life.uid = add(&mut life.world, "llama", spec(json!([{"claimName": "llama"}])));
    let job = running(&mut life, TaskKind::Verify);
    life.world.tell_progress(&job, copying(GIB / 2, Some(7), Some(8)));
    life.pass();
    assert_eq!(volume(&life).phase, Phase::Verifying);
    assert_eq!(shown(&life), shows(GIB / 2, Some(7), Some(8), "50%"));
}

fn pod_spec(life: &Life, job: &str) -> PodSpec {
    life.world.jobs()[job].spec.clone().unwrap().template.spec.unwrap()
}

/// What concerns progress in a pod.
fn way(spec: &PodSpec) -> (Option<String>, Option<String>) {
    let container = &spec.containers[0];
    let variable = container.env.iter().flatten().find(|variable| variable.name == environment::PROGRESS_URL);
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.mount_path == environment::PROGRESS_MOUNT);
    let volume = spec.volumes.iter().flatten().find(|volume| Some(&volume.name) == mount.map(|mount| &mount.name));
    let token = volume.and_then(|volume| volume.projected.as_ref()?.sources.as_ref()?[0].service_account_token.clone());
    if let Some(token) = &token {
        assert_eq!((token.path.as_str(), token.expiration_seconds), ("token", Some(3600)));
    }
    (variable.and_then(|variable| variable.value.clone()), token.and_then(|token| token.audience))
}

#[test]
fn workers_have_a_token_for_us_alone_and_only_where_it_is_of_use() {
    let url = "http://controller:8082";
    let mut life = Life::new(spec(json!([{"claimName": "llama"}])));
    life.config.progress_url = Some(url.to_owned());
    for (kind, expected) in
        [(TaskKind::Inspect, (None, None)), (TaskKind::Load, (Some(url.to_owned()), Some(AUDIENCE.to_owned())))]
    {
        let job = running(&mut life, kind);
        let spec = pod_spec(&life, &job);
        assert_eq!(way(&spec), expected, "{kind:?}");
        assert_eq!(spec.automount_service_account_token, Some(false), "no token for the API server");
    }
    let (life, job) = loading();
    assert_eq!(way(&pod_spec(&life, &job)), (None, None), "the installation has no address for it");
}

#[test]
fn another_address_restarts_nothing() {
    let (mut life, job) = loading();
    let before = life.world.jobs()[&job].metadata.uid.clone();
    life.config.progress_url = Some("http://controller:8082".to_owned());
    for _ in 0..5 {
        life.pass();
        life.world.settle();
        life.advance(30);
    }
    assert_eq!(life.world.jobs().values().map(|job| job.metadata.uid.clone()).collect::<Vec<_>>(), [before]);
    life.run(60);
    assert_eq!(life.performed, [TaskKind::Inspect, TaskKind::Load]);
}
