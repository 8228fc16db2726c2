//! Builds the Job of a worker. Infallible: everything that can be wrong was refused before. Pure, no I/O.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use k8s_openapi::{
    api::{
        batch::v1::{
            Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
            PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
        },
        core::v1::{
            Affinity, Capabilities, ConfigMapVolumeSource, Container, EnvVar, KeyToPath, LocalObjectReference,
            NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource,
            PodSecurityContext, PodSpec, PodTemplateSpec, ProjectedVolumeSource, ResourceRequirements, SeccompProfile,
            SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{
    api::{
        ANNOTATION_ATTEMPT, ANNOTATION_CHECKPOINT, ANNOTATION_CLAIM, ANNOTATION_INPUTS, ANNOTATION_REVALIDATE, Amount,
        Checkpoint, Placement, ResourceAmounts, Worker,
    },
    contract::{Source, Task, TaskKind, environment, exit, progress},
};

use super::{
    Config,
    names::{self, Role},
};

/// How often Kubernetes replaces one of several workers before the attempt counts as failed.
const RESTARTS_OF_A_WORKER: i32 = 4;
/// Name of the container in worker pods.
pub const CONTAINER: &str = "worker";
/// Annotation with the hash of how the pod is to be started: a Job whose pod has not started is replaced when it changes.
pub const ANNOTATION_LAUNCH: &str = "checkpoints.dev/launch";
/// Annotation with the hash of what the installation adds: a Job that cannot start is replaced when it changes, and no other.
pub const ANNOTATION_INSTALLATION: &str = "checkpoints.dev/installation";

/// What a Job is made for.
#[derive(Clone, Debug)]
pub struct JobRequest<'a> {
    /// The Checkpoint that owns it.
    pub checkpoint: &'a Checkpoint,
    /// The task.
    pub task: Task,
    /// The text of inline data.
    pub inline: Option<&'a str>,
    /// Hash of the task's inputs.
    pub inputs: String,
    /// Number of the attempt.
    pub attempt: i64,
    /// Name of the target claim that the Job serves; none for inspections.
    pub target: Option<&'a str>,
    /// The claim to mount at [`environment::VOLUME_MOUNT`], and whether for reading only.
    pub volume: Option<(String, bool)>,
    /// The claim to mount at [`environment::REUSE_MOUNT`].
    pub reuse: Option<String>,
    /// Where the volume entry wants the load to run.
    pub placement: Option<&'a Placement>,
    /// The node that holds the source claim.
    pub node: Option<String>,
    /// The value of the annotation that asked for this look at the source, if one did.
    pub revalidate: Option<String>,
}

/// What decides, besides the user's worker settings, whether pods can start and how many.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Where the volume entry wants the pods to run.
    pub placement: Option<&'a Placement>,
    /// The node that they must join.
    pub node: Option<&'a str>,
    /// The claim that files are taken from.
    pub reuse: Option<&'a str>,
    /// How many there are.
    pub workers: u32,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Self { placement: None, node: None, reuse: None, workers: 1 }
    }
}

/// Hash of what decides whether pods can start and how many: the user's worker settings, service account and `launch`.
#[must_use]
pub fn launch_hash(checkpoint: &Checkpoint, launch: &Launch<'_>) -> String {
    let pod = (&checkpoint.spec.worker, &checkpoint.spec.service_account_name, launch.placement, launch.node);
    match (launch.reuse, launch.workers) {
        (None, 1) => names::hash(&pod),
        more => names::hash(&(pod, more)),
    }
}

/// Hash of what the installation decides about how a pod starts: the image and the defaults of `spec.worker`.
#[must_use]
pub fn installation_hash(config: &Config) -> String {
    names::hash(&(&config.worker_image, &config.worker_image_pull_policy, &config.worker))
}

/// Builds the Job.
#[must_use]
pub fn build(config: &Config, request: &JobRequest<'_>) -> Job {
    let checkpoint = request.checkpoint;
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let kind = request.task.kind;
    let workers = request.task.load.as_ref().map_or(1, |load| load.workers);
    let (placement, node, reuse) = (request.placement, request.node.as_deref(), request.reuse.as_deref());
    let launch = launch_hash(checkpoint, &Launch { placement, node, reuse, workers });
    let mut annotations = vec![
        (ANNOTATION_INPUTS, request.inputs.clone()),
        (ANNOTATION_ATTEMPT, request.attempt.to_string()),
        (ANNOTATION_LAUNCH, launch.clone()),
        (ANNOTATION_INSTALLATION, installation_hash(config)),
    ];
    annotations.extend(request.target.map(|claim| (ANNOTATION_CLAIM, claim.to_owned())));
    annotations.extend(request.revalidate.clone().map(|value| (ANNOTATION_REVALIDATE, value)));
    let name = names::job(uid, kind, &format!("{}/{launch}", request.inputs), request.attempt);
    let mut request = request.clone();
    if let Some(load) = request.task.load.as_mut().filter(|_| workers > 1) {
        load.group.clone_from(&name);
    }
    let spec = JobSpec {
        completions: i32::try_from(workers).ok(),
        parallelism: i32::try_from(workers).ok(),
        pod_failure_policy: Some(failure_policy()),
        template: pod_template(config, &request),
        ..JobSpec::default()
    };
    let spec = if workers > 1 {
        // The other workers go on when one of them dies: its share is begun again where it was.
        let completion_mode = Some("Indexed".to_owned());
        JobSpec { completion_mode, backoff_limit_per_index: Some(RESTARTS_OF_A_WORKER), ..spec }
    } else {
        // Every attempt is a Job of its own: status counts them and says when the next one starts.
        JobSpec { backoff_limit: Some(0), ..spec }
    };
    let metadata = names::metadata(checkpoint, name, Role::Worker(kind), annotations);
    Job { metadata, spec: Some(spec), status: None }
}

/// Whether a Job has several workers, each with a share.
#[must_use]
pub fn is_split(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// Disruptions (drain, preemption, eviction by taint) are not the task's fault and cost no attempt.
fn failure_policy() -> PodFailurePolicy {
    PodFailurePolicy {
        rules: vec![
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                    type_: "DisruptionTarget".to_owned(),
                    status: Some("True".to_owned()),
                }]),
                on_exit_codes: None,
            },
            PodFailurePolicyRule {
                action: "FailJob".to_owned(),
                on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                    container_name: Some(CONTAINER.to_owned()),
                    operator: "In".to_owned(),
                    values: exit::TERMINAL.to_vec(),
                }),
                on_pod_conditions: None,
            },
        ],
    }
}

fn pod_template(config: &Config, request: &JobRequest<'_>) -> PodTemplateSpec {
    let checkpoint = request.checkpoint;
    let own = checkpoint.spec.worker.clone().unwrap_or_default();
    let default = &config.worker;
    let uid = checkpoint.metadata.uid.as_deref().unwrap_or_default();
    let mut labels = merged(&default.pod_labels, &own.pod_labels);
    labels.insert("sidecar.istio.io/inject".to_owned(), "false".to_owned());
    labels.extend(names::labels(uid, Role::Worker(request.task.kind)));
    let mut annotations = merged(&default.pod_annotations, &own.pod_annotations);
    let fixed = [
        ("sidecar.istio.io/inject", "false"),
        ("linkerd.io/inject", "disabled"),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
        (ANNOTATION_CHECKPOINT, checkpoint.metadata.name.as_deref().unwrap_or_default()),
    ];
    annotations.extend(fixed.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(claim) = request.target {
        annotations.insert(ANNOTATION_CLAIM.to_owned(), claim.to_owned());
    }
    PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }),
        spec: Some(pod_spec(config, request, &own)),
    }
}

fn merged(default: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    default.iter().chain(own).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn pod_spec(config: &Config, request: &JobRequest<'_>, own: &Worker) -> PodSpec {
    let default = &config.worker;
    let placement = request.placement.or(own.placement.as_ref()).or(default.placement.as_ref());
    let pull_secrets =
        if own.image_pull_secrets.is_empty() { &default.image_pull_secrets } else { &own.image_pull_secrets };
    let fs_group = own.fs_group.or(default.fs_group);
    let (volumes, mounts) = volumes(config, request);
    PodSpec {
        affinity: affinity(placement, request.node.as_deref()),
        automount_service_account_token: Some(false),
        containers: vec![container(config, request, own, mounts)],
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty())
            .then(|| pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() }).collect()),
        node_selector: placement.map(|placement| placement.node_selector.clone()).filter(|labels| !labels.is_empty()),
        priority_class_name: own.priority_class_name.clone().or_else(|| default.priority_class_name.clone()),
        restart_policy: Some("Never".to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: own.run_as_user.or(default.run_as_user),
            fs_group,
            // Changing the group of every file of a large volume takes minutes; the root's says whether it is needed.
            fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        service_account_name: request.checkpoint.spec.service_account_name.clone(),
        termination_grace_period_seconds: Some(30),
        tolerations: placement.map(|placement| placement.tolerations.clone()).filter(|list| !list.is_empty()),
        volumes: (!volumes.is_empty()).then_some(volumes),
        ..PodSpec::default()
    }
}

fn container(config: &Config, request: &JobRequest<'_>, own: &Worker, mounts: Vec<VolumeMount>) -> Container {
    let encode = |text: &[u8]| Some(BASE64_STANDARD.encode(text));
    let task = serde_json::to_vec(&request.task).unwrap_or_default();
    let mut env = vec![EnvVar { name: environment::TASK.to_owned(), value: encode(&task), ..EnvVar::default() }];
    if let Some(text) = request.inline {
        env.push(EnvVar { name: environment::INLINE.to_owned(), value: encode(text.as_bytes()), ..EnvVar::default() });
    }
    if let Some(url) = progress_url(config, request) {
        let value = Some(url.to_owned());
        env.push(EnvVar { name: environment::PROGRESS_URL.to_owned(), value, ..EnvVar::default() });
    }
    Container {
        name: CONTAINER.to_owned(),
        image: Some(config.worker_image.clone()),
        image_pull_policy: config.worker_image_pull_policy.clone(),
        args: Some(vec!["worker".to_owned(), request.task.kind.as_str().to_owned()]),
        env: Some(env),
        resources: Some(resources(own.resources.as_ref().or(config.worker.resources.as_ref()))),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..SecurityContext::default()
        }),
        termination_message_path: Some(environment::TERMINATION_MESSAGE.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

fn resources(amounts: Option<&ResourceAmounts>) -> ResourceRequirements {
    let built_in = || ResourceAmounts {
        requests: [("cpu", "500m"), ("memory", "256Mi")].map(text_amount).into(),
        limits: [("memory", "512Mi")].map(text_amount).into(),
    };
    let amounts = amounts.cloned().unwrap_or_else(built_in);
    let quantities = |amounts: BTreeMap<String, Amount>| {
        (!amounts.is_empty())
            .then(|| amounts.into_iter().map(|(name, amount)| (name, Quantity(amount.to_string()))).collect())
    };
    ResourceRequirements { requests: quantities(amounts.requests), limits: quantities(amounts.limits), claims: None }
}

fn text_amount((name, amount): (&str, &str)) -> (String, Amount) {
    (name.to_owned(), Amount::Text(amount.to_owned()))
}

/// A node that must be joined is asked of the scheduler, not set: setting it would skip taints, resources and binding.
fn affinity(placement: Option<&Placement>, node: Option<&str>) -> Option<Affinity> {
    let mut affinity: Option<Affinity> =
        placement.and_then(|placement| placement.affinity.clone()).and_then(|value| serde_json::from_value(value).ok());
    if let Some(node) = node {
        let field = NodeSelectorRequirement {
            key: "metadata.name".to_owned(),
            operator: "In".to_owned(),
            values: Some(vec![node.to_owned()]),
        };
        let node_affinity = affinity.get_or_insert_default().node_affinity.get_or_insert_with(NodeAffinity::default);
        let required =
            node_affinity.required_during_scheduling_ignored_during_execution.get_or_insert_with(NodeSelector::default);
        if required.node_selector_terms.is_empty() {
            required.node_selector_terms.push(NodeSelectorTerm::default());
        }
        // Terms are alternatives, so each must hold the node.
        for term in &mut required.node_selector_terms {
            term.match_fields.get_or_insert_default().push(field.clone());
        }
    }
    affinity
}

/// Where the worker tells how far it is. The status of a volume has a place for it; that of an inspection has none.
fn progress_url<'a>(config: &'a Config, request: &JobRequest<'_>) -> Option<&'a str> {
    config.progress_url.as_deref().filter(|_| request.task.kind != TaskKind::Inspect)
}

/// A token for the controller's progress endpoint alone: the API server and everybody else refuse its audience.
fn progress_token() -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(progress::AUDIENCE.to_owned()),
        expiration_seconds: Some(progress::TOKEN_SECONDS),
        path: progress::TOKEN_NAME.to_owned(),
    };
    let source = VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() };
    let projected = ProjectedVolumeSource { sources: Some(vec![source]), default_mode: None };
    Volume { projected: Some(projected), ..Volume::default() }
}

fn volumes(config: &Config, request: &JobRequest<'_>) -> (Vec<Volume>, Vec<VolumeMount>) {
    let mut volumes = Vec::new();
    let mut mounts = Vec::new();
    let mut add = |name: &str, path: &str, read_only: bool, volume: Volume| {
        volumes.push(Volume { name: name.to_owned(), ..volume });
        mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        });
    };
    let claim = |claim_name: &str, read_only: bool| Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim_name.to_owned(),
            read_only: Some(read_only),
        }),
        ..Volume::default()
    };
    // A verification reads the volume alone; the source may be gone.
    if request.task.kind != TaskKind::Verify {
        let source = &request.task.source;
        if let Some((secret, keys)) = source.secret() {
            let secret = secret_volume(secret, keys);
            add(
                "credentials",
                environment::CREDENTIALS_MOUNT,
                true,
                Volume { secret: Some(secret), ..Volume::default() },
            );
        }
        if let Some((name, key)) = source.ca().and_then(|ca| ca.split_once('/')) {
            let map = ConfigMapVolumeSource {
                name: name.to_owned(),
                items: Some(vec![KeyToPath { key: key.to_owned(), path: "ca.crt".to_owned(), mode: None }]),
                optional: Some(true),
                default_mode: None,
            };
            add("ca", environment::CA_MOUNT, true, Volume { config_map: Some(map), ..Volume::default() });
        }
        if let Source::Claim { claim_name, .. } = source {
            add("source", environment::SOURCE_MOUNT, true, claim(claim_name, true));
        }
    }
    if progress_url(config, request).is_some() {
        add("progress", environment::PROGRESS_MOUNT, true, progress_token());
    }
    if let Some(claim_name) = &request.reuse {
        add("reuse", environment::REUSE_MOUNT, true, claim(claim_name, true));
    }
    if let Some((claim_name, read_only)) = &request.volume {
        add("volume", environment::VOLUME_MOUNT, *read_only, claim(claim_name, *read_only));
    }
    (volumes, mounts)
}

/// Optional, so that a missing Secret or key is named by the worker instead of hanging the pod.
fn secret_volume(name: &str, keys: &[&str]) -> SecretVolumeSource {
    let item = |key: &&str| KeyToPath { key: (*key).to_owned(), path: (*key).to_owned(), mode: None };
    SecretVolumeSource {
        secret_name: Some(name.to_owned()),
        items: Some(keys.iter().map(item).collect()),
        optional: Some(true),
        default_mode: Some(0o440),
    }
}
