//! The Job controller, the scheduler and the kubelet: pods of Jobs start, end and are counted. Pure, no I/O.

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobCondition, JobStatus, PodFailurePolicyRule, UncountedTerminatedPods},
        core::v1::{
            ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Pod, PodCondition,
            PodStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time},
};

use crate::{
    contract::{ProgressMessage, Report, report::TERMINATION_MESSAGE_LIMIT},
    plan::{JobEvent, progress::Told},
};

use super::{Kind, World, binder::mounted_claims, name_of, owners, uid_of, update};

impl World {
    /// One round over all Jobs that have work left: each gets a pod, and a pod whose claims are all bound runs.
    pub fn start_pods(&mut self) {
        let names: Vec<_> =
            self.jobs.values().filter(|job| !is_finished(job)).map(|job| name_of(&job.metadata).to_owned()).collect();
        for name in names {
            if self.active_pod(&name).is_none() {
                self.create_pod(&name);
            }
            if let Some(pod) = self.active_pod(&name).map(|pod| name_of(&pod.metadata).to_owned()) {
                self.schedule(&pod);
            }
        }
    }

    /// Jobs whose pod runs, by name.
    #[must_use]
    pub fn running_jobs(&self) -> Vec<String> {
        let runs = |name: &String| self.active_pod(name).is_some_and(|pod| phase(pod) == "Running");
        self.jobs.keys().filter(|name| runs(name)).cloned().collect()
    }

    /// Ends the running pod of a Job with a report, as the worker's exit and the kubelet do, and counts it.
    pub fn finish_job(&mut self, name: &str, report: &Report, exit_code: u8) {
        self.finish_pod(name, &report.encode(TERMINATION_MESSAGE_LIMIT), i32::from(exit_code));
    }

    /// Ends the running pod of a Job with any termination message and exit code (137 when it was killed), and counts it.
    pub fn finish_pod(&mut self, name: &str, message: &str, exit_code: i32) {
        let Some(pod) = self.active_pod(name).map(|pod| name_of(&pod.metadata).to_owned()) else { return };
        let now = Time(self.now);
        update(&mut self.pods, &mut self.version, &pod, |pod| terminate(pod, message, exit_code, &now));
        update(&mut self.jobs, &mut self.version, name, |job| count(job, exit_code, &now));
    }

    /// The running worker of a Job tells how far it is, as the controller takes it.
    pub fn tell_progress(&mut self, job: &str, message: ProgressMessage) {
        let Some(uid) = self.active_pod(job).map(|pod| uid_of(&pod.metadata).to_owned()) else { return };
        self.progress.insert(uid, Told { at: self.now, message });
        self.version += 1;
    }

    fn active_pod(&self, job: &str) -> Option<&Pod> {
        let uid = uid_of(&self.jobs.get(job)?.metadata);
        self.pods.values().find(|pod| {
            owners(&pod.metadata).iter().any(|owner| owner.uid == uid) && matches!(phase(pod), "Pending" | "Running")
        })
    }

    fn create_pod(&mut self, job_name: &str) {
        let Some(job) = self.jobs.get(job_name).cloned() else { return };
        if let Some(denial) = self.denials.get(&Kind::Pod) {
            let event = JobEvent {
                job: job_name.to_owned(),
                reason: "FailedCreate".to_owned(),
                message: format!("Error creating: {}", denial.message),
            };
            if !self.job_events.contains(&event) {
                self.job_events.push(event);
                self.version += 1;
            }
            return;
        }
        let template = job.spec.clone().unwrap_or_default().template;
        let metadata = template.metadata.unwrap_or_default();
        let mut pod = Pod {
            metadata: ObjectMeta {
                name: Some(format!("{job_name}-{}", self.uids + 1)),
                namespace: job.metadata.namespace.clone(),
                labels: metadata.labels,
                annotations: metadata.annotations,
                owner_references: Some(vec![OwnerReference {
                    api_version: "batch/v1".to_owned(),
                    kind: "Job".to_owned(),
                    name: job_name.to_owned(),
                    uid: uid_of(&job.metadata).to_owned(),
                    controller: Some(true),
                    block_owner_deletion: Some(true),
                }]),
                ..ObjectMeta::default()
            },
            spec: template.spec,
            status: Some(PodStatus { phase: Some("Pending".to_owned()), ..PodStatus::default() }),
        };
        self.stamp(&mut pod.metadata);
        self.pods.insert(name_of(&pod.metadata).to_owned(), pod);
        let now = Time(self.now);
        update(&mut self.jobs, &mut self.version, job_name, |job| {
            let status = job.status.get_or_insert_default();
            status.start_time.get_or_insert(now);
            status.active = Some(1);
            status.uncounted_terminated_pods = Some(UncountedTerminatedPods::default());
        });
    }

    fn schedule(&mut self, pod: &str) {
        let Some(object) = self.pods.get(pod).filter(|pod| phase(pod) == "Pending") else { return };
        // A test may have said why the pod does not start; that stands.
        if object.status.as_ref().is_some_and(|status| status.container_statuses.is_some()) {
            return;
        }
        let bound = |claim: &str| {
            self.claims.get(claim).is_some_and(|claim| {
                claim.metadata.deletion_timestamp.is_none()
                    && claim.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Bound"))
            })
        };
        let missing = mounted_claims(object.spec.as_ref()).find(|claim| !bound(claim)).map(str::to_owned);
        let now = Time(self.now);
        update(&mut self.pods, &mut self.version, pod, |pod| match missing {
            Some(claim) => unschedulable(pod, &claim),
            None => run(pod, &now),
        });
    }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_finished(job: &Job) -> bool {
    job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(true))
        || job
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True")
}

fn unschedulable(pod: &mut Pod, claim: &str) {
    pod.status.get_or_insert_default().conditions = Some(vec![PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(format!("pod has unbound immediate PersistentVolumeClaims: {claim}")),
        ..PodCondition::default()
    }]);
}

fn run(pod: &mut Pod, now: &Time) {
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some("local".to_owned());
    let containers = spec.containers.iter().map(|container| ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        ready: true,
        started: Some(true),
        state: Some(ContainerState {
            running: Some(ContainerStateRunning { started_at: Some(now.clone()) }),
            ..ContainerState::default()
        }),
        ..ContainerStatus::default()
    });
    pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        start_time: Some(now.clone()),
        container_statuses: Some(containers.collect()),
        conditions: Some(vec![PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
}

fn terminate(pod: &mut Pod, message: &str, exit_code: i32, now: &Time) {
    let status = pod.status.get_or_insert_default();
    status.phase = Some(if exit_code == 0 { "Succeeded" } else { "Failed" }.to_owned());
    let started = status.start_time.clone();
    if let Some(container) = status.container_statuses.as_mut().and_then(|containers| containers.first_mut()) {
        container.ready = false;
        container.started = Some(false);
        container.state = Some(ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code,
                message: Some(message.to_owned()),
                reason: Some(if exit_code == 0 { "Completed" } else { "Error" }.to_owned()),
                started_at: started,
                finished_at: Some(now.clone()),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        });
    }
}

/// Counts a pod that ended. A Job ends when a pod succeeds, when its failure policy says so, or when its back-off limit
/// is spent.
fn count(job: &mut Job, exit_code: i32, now: &Time) {
    let spec = job.spec.clone().unwrap_or_default();
    let rules = spec.pod_failure_policy.map(|policy| policy.rules).unwrap_or_default();
    let rule = rules.iter().find(|rule| matches(rule, exit_code));
    let status = job.status.get_or_insert_default();
    status.active = None;
    status.ready = Some(0);
    status.terminating = Some(0);
    if exit_code == 0 {
        status.succeeded = Some(1);
        status.completion_time = Some(now.clone());
        end(
            status,
            ["SuccessCriteriaMet", "Complete"],
            "CompletionsReached",
            "Reached expected number of succeeded pods",
            now,
        );
        return;
    }
    if rule.is_some_and(|rule| rule.action == "Ignore") {
        return;
    }
    let failed = status.failed.unwrap_or(0) + 1;
    status.failed = Some(failed);
    if rule.is_some_and(|rule| rule.action == "FailJob") {
        let message = format!("Container failed with exit code {exit_code} matching FailJob rule");
        end(status, ["FailureTarget", "Failed"], "PodFailurePolicy", &message, now);
    } else if failed > spec.backoff_limit.unwrap_or(6) {
        let message = "Job has reached the specified backoff limit";
        end(status, ["FailureTarget", "Failed"], "BackoffLimitExceeded", message, now);
    }
}

fn matches(rule: &PodFailurePolicyRule, exit_code: i32) -> bool {
    rule.on_exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
        "In" => codes.values.contains(&exit_code),
        "NotIn" => !codes.values.contains(&exit_code),
        _ => false,
    })
}

fn end(status: &mut JobStatus, types: [&str; 2], reason: &str, message: &str, now: &Time) {
    let condition = |type_: &str| JobCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    };
    status.conditions.get_or_insert_default().extend(types.map(condition));
}
