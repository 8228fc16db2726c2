//! Lives of volumes that name a claim to take files from: it is mounted when it can be, and never waited for.

use super::*;

fn volume() -> Value {
    spec(json!([{"claimName": "step-2", "reuseFrom": "step-1"}]))
}

fn claim(mode: &str, class: &str) -> k8s_openapi::api::core::v1::PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "step-1", "namespace": "team"},
        "spec": {"accessModes": [mode], "storageClassName": class},
    }))
    .unwrap()
}

fn user(node: &str) -> k8s_openapi::api::core::v1::Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "server", "namespace": "team"},
        "spec": {"nodeName": node, "containers": [],
                 "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "step-1"}}]},
        "status": {"phase": "Running"},
    }))
    .unwrap()
}

/// A life with the claim of the earlier checkpoint.
fn beside(mode: &str) -> Life {
    let mut life = Life::new(volume());
    life.world.add_storage_class("at-once", false, false);
    life.world.add_claim(claim(mode, "at-once"));
    life.world.settle();
    life
}

/// The Job of the load.
fn load_job(life: &mut Life) -> k8s_openapi::api::batch::v1::Job {
    for _ in 0..200 {
        let loads = |job: &&k8s_openapi::api::batch::v1::Job| {
            let name = job.metadata.name.as_deref().unwrap();
            task(&life.world, name).kind == TaskKind::Load
        };
        if let Some(job) = life.world.jobs().values().find(loads) {
            return job.clone();
        }
        life.world.settle();
        life.work();
        if !life.pass() {
            life.advance(5);
        }
    }
    panic!("no load: {:?}", life.status().conditions);
}

fn pod_spec(job: &k8s_openapi::api::batch::v1::Job) -> Value {
    serde_json::to_value(&job.spec.as_ref().unwrap().template.spec).unwrap()
}

/// The claim that the load takes files from, and the node that it must join.
fn taken(life: &Life, job: &k8s_openapi::api::batch::v1::Job) -> (Option<String>, Option<String>) {
    let spec = pod_spec(job);
    let mount =
        spec["containers"][0]["volumeMounts"].as_array().unwrap().iter().find(|mount| mount["mountPath"] == "/reuse");
    let mounted = mount.map(|mount| {
        assert_eq!(mount["readOnly"], true);
        let volume = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]).unwrap();
        assert_eq!(volume["persistentVolumeClaim"]["readOnly"], true);
        volume["persistentVolumeClaim"]["claimName"].as_str().unwrap().to_owned()
    });
    let told = task(&life.world, job.metadata.name.as_deref().unwrap()).load.unwrap().reuse_from;
    assert_eq!(mounted, told);
    let terms = "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
    (mounted, spec.pointer(terms).and_then(Value::as_str).map(str::to_owned))
}

fn skipped(life: &Life) -> String {
    life.status().volumes[0].reuse_skipped.clone().unwrap_or_default()
}

#[test]
fn a_claim_that_can_be_used_is_mounted() {
    for (mode, in_use, node) in [
        ("ReadWriteMany", true, None),
        ("ReadOnlyMany", true, None),
        ("ReadWriteOnce", false, None),
        ("ReadWriteOnce", true, Some("node-7")),
    ] {
        let mut life = beside(mode);
        if in_use {
            life.world.add_pod(user("node-7"));
        }
        let job = load_job(&mut life);
        assert_eq!(taken(&life, &job), (Some("step-1".to_owned()), node.map(str::to_owned)), "{mode}");
        let before = life.world.claims()["step-1"].clone();
        life.run(600);
        assert_eq!(life.condition(ConditionType::Ready), "True Ready");
        assert_eq!((skipped(&life), &life.world.claims()["step-1"]), (String::new(), &before), "it stays as it is");
    }
}

#[test]
fn a_claim_that_cannot_be_used_is_not_waited_for() {
    type Change = fn(&mut Life);
    let table: [(&str, Change); 5] = [
        ("does not exist", |_| ()),
        ("is Pending", |life| life.world.add_claim(claim("ReadWriteMany", "none"))),
        ("is ReadWriteOncePod", |life| life.world.add_claim(claim("ReadWriteOncePod", "at-once"))),
        ("is a block device", |life| {
            let mut block = claim("ReadWriteMany", "at-once");
            block.spec.as_mut().unwrap().volume_mode = Some("Block".to_owned());
            life.world.add_claim(block);
        }),
        ("everything is fetched", |life| life.world.add_claim(claim("ReadWriteMany", "none"))),
    ];
    for (why, change) in table {
        let mut life = Life::new(volume());
        life.world.add_storage_class("at-once", false, false);
        change(&mut life);
        let job = load_job(&mut life);
        assert_eq!(taken(&life, &job), (None, None), "{why}");
        life.run(600);
        assert_eq!(life.condition(ConditionType::Ready), "True Ready", "{why}");
        assert!(skipped(&life).contains(why), "{why}: {}", skipped(&life));
    }
}

#[test]
fn a_pod_that_does_not_start_with_the_claim_starts_without_it() {
    let mut life = beside("ReadWriteOnce");
    let first = load_job(&mut life);
    // The scheduler finds no node for it, whenever the cluster makes a pod of this Job.
    let unschedulable = |life: &mut Life| {
        for pod in life.world.pods().keys().cloned().collect::<Vec<_>>() {
            life.world.edit_pod(&pod, |pod| {
                let mounts_it = serde_json::to_string(&pod.spec).unwrap().contains("step-1");
                if mounts_it {
                    pod.status = serde_json::from_value(json!({
                        "phase": "Pending", "containerStatuses": [],
                        "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                                        "message": "0/3 nodes are available"}],
                    }))
                    .unwrap();
                }
            });
        }
    };
    life.world.settle();
    unschedulable(&mut life);
    life.advance(30);
    life.pass();
    assert_eq!(load_job(&mut life).metadata.uid, first.metadata.uid, "a moment without a node is nothing");
    life.advance(60);
    for _ in 0..5 {
        life.pass();
        life.world.settle();
        unschedulable(&mut life);
    }
    let second = load_job(&mut life);
    assert_eq!(taken(&life, &second), (None, None));
    assert!(skipped(&life).contains("did not start"), "{}", skipped(&life));
    life.run(600);
    assert_eq!(life.condition(ConditionType::Ready), "True Ready");
    assert_eq!(life.performed.iter().filter(|kind| **kind == TaskKind::Load).count(), 1);
}

#[test]
fn a_load_that_runs_is_left_alone_when_the_claim_goes() {
    let mut life = beside("ReadWriteMany");
    let job = load_job(&mut life);
    life.world.settle();
    assert_eq!(life.world.running_jobs(), [job.metadata.name.clone().unwrap()]);
    life.world.edit_claim("step-1", |claim| claim.status.as_mut().unwrap().phase = Some("Lost".to_owned()));
    life.pass();
    assert_eq!(load_job(&mut life).metadata.uid, job.metadata.uid);
}

#[test]
fn a_claim_cannot_be_its_own_earlier_checkpoint() {
    for (name, part) in
        [("step-2", "is the claim of this entry"), ("../x", "is not the name of a claim"), ("", "is not")]
    {
        let mut life = Life::new(spec(json!([{"claimName": "step-2", "reuseFrom": name}])));
        life.run(60);
        assert_eq!(life.condition(ConditionType::Validated), "False InvalidSpec");
        let message = life.message(ConditionType::Validated);
        assert!(message.contains("volumes[0].reuseFrom") && message.contains(part), "{message}");
    }
}

/// What is said when the load is to begin in a world that is a little different.
fn said(change: impl Fn(&mut super::super::Observed)) -> (String, Plan) {
    let mut life = beside("ReadWriteMany");
    for _ in 0..200 {
        let mut observed = life.world.observe(life.checkpoint());
        change(&mut observed);
        let planned = plan(&life.config, &observed, life.world.now());
        let skipped = planned.status.volumes.first().and_then(|volume| volume.reuse_skipped.clone());
        if let Some(skipped) = skipped {
            return (skipped, planned);
        }
        life.world.settle();
        life.work();
        if !life.pass() {
            life.advance(5);
        }
    }
    panic!("nothing is said: {:?}", life.status());
}

#[test]
fn a_claim_that_would_keep_the_pod_waiting_is_not_mounted() {
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time("2026-01-01T00:00:00Z".parse().unwrap());
    let leaving = said(|observed| {
        let ours = observed.claims.iter_mut().filter(|claim| claim.metadata.name.as_deref() == Some("step-1"));
        ours.for_each(|claim| claim.metadata.deletion_timestamp = Some(now.clone()));
    });
    let elsewhere = said(|observed| {
        for volume in &mut observed.volumes {
            let node = volume.metadata.name.clone();
            volume.spec.as_mut().unwrap().node_affinity = serde_json::from_value(json!({
                "required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
                ]}]},
            }))
            .unwrap();
        }
    });
    for ((skipped, planned), why) in [(leaving, "is being deleted"), (elsewhere, "lies on other nodes")] {
        assert!(skipped.contains(why), "{skipped}");
        let jobs: Vec<_> = planned
            .actions
            .iter()
            .filter_map(|action| if let Action::CreateJob(job) = action { Some(job) } else { None })
            .collect();
        assert_eq!(jobs.len(), 1);
        assert!(!pod_spec(jobs[0]).to_string().contains("step-1\""), "{why}");
    }
}
