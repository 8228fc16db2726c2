//! Writes as the API server takes them: preconditions, conflicts, immutable fields. Pure, no I/O.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{PersistentVolume, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    api::LABEL_CHECKPOINT_UID,
    plan::{Action, Refusal},
};

use super::{Kind, World, name_of, owners, uid_of};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";

/// The object is not what the writer believed: observe again.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{object}: {message}")]
pub struct Conflict {
    /// [`Action::object`].
    pub object: String,
    /// What differs.
    pub message: String,
}

/// Why a write was not made.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum WriteError {
    /// Timing: observe and plan again.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// Refused for a reason that stays: the plan is told.
    #[error("{}: {} ({})", .0.object, .0.message, .0.code)]
    Refused(Refusal),
}

impl World {
    /// Makes a write.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] when UID or resource version differ or a patched object is gone, [`WriteError::Refused`]
    /// when the object is not valid or a test denies it.
    pub fn apply(&mut self, action: &Action) -> Result<(), WriteError> {
        let object = action.object();
        match action {
            Action::CreateJob(job) => self.create_job(&object, job),
            Action::DeleteJob { name, uid } => {
                if let Some(job) = self.jobs.get(name) {
                    expect_uid(&object, &job.metadata, uid)?;
                    self.jobs.remove(name);
                    self.version += 1;
                }
                Ok(())
            }
            Action::CreateClaim(claim) => self.create_claim(&object, claim),
            Action::DeleteClaim { name, uid } => self.delete_claim(&object, name, uid),
            Action::PatchClaim { name, patch: change } => {
                patch(&object, &mut self.claims, &mut self.version, name, change, claim_change)?;
                self.collect_terminating();
                Ok(())
            }
            Action::PatchVolume { name, patch: change } => {
                patch(&object, &mut self.volumes, &mut self.version, name, change, volume_change)
            }
        }
    }

    fn create_job(&mut self, object: &str, job: &Job) -> Result<(), WriteError> {
        self.denied(Kind::Job, object)?;
        if let Some(existing) = self.jobs.get(name_of(&job.metadata)) {
            let wanted = owners(&job.metadata).first().map(|owner| owner.uid.as_str());
            let ours = owners(&existing.metadata).iter().any(|owner| Some(owner.uid.as_str()) == wanted);
            return if ours { Ok(()) } else { Err(exists(object)) };
        }
        valid_name(object, &job.metadata)?;
        let mut job = job.clone();
        self.stamp(&mut job.metadata);
        let (name, uid) = (name_of(&job.metadata).to_owned(), uid_of(&job.metadata).to_owned());
        let template = job.spec.get_or_insert_default().template.metadata.get_or_insert_default();
        template.labels.get_or_insert_default().extend([
            ("batch.kubernetes.io/job-name".to_owned(), name.clone()),
            ("batch.kubernetes.io/controller-uid".to_owned(), uid.clone()),
            ("job-name".to_owned(), name.clone()),
            ("controller-uid".to_owned(), uid),
        ]);
        self.jobs.insert(name, job);
        Ok(())
    }

    fn create_claim(&mut self, object: &str, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
        self.denied(Kind::Claim, object)?;
        if let Some(existing) = self.claims.get(name_of(&claim.metadata)) {
            let label = |metadata: &ObjectMeta| metadata.labels.as_ref()?.get(LABEL_CHECKPOINT_UID).cloned();
            let ours = label(&existing.metadata).is_some() && label(&existing.metadata) == label(&claim.metadata);
            // A claim on its way out is not the one that was asked for, and a foreign one shows in the next observation.
            return if ours && existing.metadata.deletion_timestamp.is_none() {
                Ok(())
            } else {
                Err(Conflict { object: object.to_owned(), message: "already exists".to_owned() }.into())
            };
        }
        valid_name(object, &claim.metadata)?;
        valid_claim(object, claim)?;
        self.add_claim(claim.clone());
        Ok(())
    }

    /// Adds a claim as any client may, with the defaults that the API server sets.
    pub fn add_claim(&mut self, mut claim: PersistentVolumeClaim) {
        self.stamp(&mut claim.metadata);
        claim.metadata.finalizers = Some(vec![CLAIM_FINALIZER.to_owned()]);
        let spec = claim.spec.get_or_insert_default();
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if spec.storage_class_name.is_none() {
            spec.storage_class_name = self.default_class();
        }
        claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
        self.claims.insert(name_of(&claim.metadata).to_owned(), claim);
    }

    fn delete_claim(&mut self, object: &str, name: &str, uid: &str) -> Result<(), WriteError> {
        let Some(claim) = self.claims.get(name) else { return Ok(()) };
        expect_uid(object, &claim.metadata, uid)?;
        self.mark_claim_deleted(name);
        self.collect_terminating();
        Ok(())
    }

    /// Begins a claim's deletion; it ends when no pod mounts the claim.
    pub(super) fn mark_claim_deleted(&mut self, name: &str) {
        let now = self.now;
        super::update(&mut self.claims, &mut self.version, name, |claim| {
            claim.metadata.deletion_timestamp.get_or_insert(Time(now));
        });
    }

    fn denied(&self, kind: Kind, object: &str) -> Result<(), WriteError> {
        self.denials.get(&kind).map_or(Ok(()), |refusal| {
            Err(WriteError::Refused(Refusal { object: object.to_owned(), ..refusal.clone() }))
        })
    }

    fn default_class(&self) -> Option<String> {
        self.storage_classes.iter().find_map(|(name, class)| {
            let annotations = class.metadata.annotations.as_ref()?;
            (annotations.get(DEFAULT_CLASS)? == "true").then(|| name.clone())
        })
    }
}

fn exists(object: &str) -> WriteError {
    refused(object, 409, "already exists and is not ours")
}

fn refused(object: &str, code: u16, message: impl Into<String>) -> WriteError {
    WriteError::Refused(Refusal { object: object.to_owned(), code, message: message.into() })
}

fn expect_uid(object: &str, metadata: &ObjectMeta, uid: &str) -> Result<(), Conflict> {
    if uid_of(metadata) == uid {
        return Ok(());
    }
    Err(Conflict { object: object.to_owned(), message: format!("the UID is {}, not {uid}", uid_of(metadata)) })
}

fn valid_name(object: &str, metadata: &ObjectMeta) -> Result<(), WriteError> {
    let name = name_of(metadata);
    if !is_dns_subdomain(name) {
        return Err(refused(object, 422, format!("{name:?} is not a valid name")));
    }
    match metadata.labels.iter().flatten().find(|(_, value)| value.len() > 63) {
        Some((key, value)) => {
            Err(refused(object, 422, format!("the label {key} is longer than 63 characters: {value}")))
        }
        None => Ok(()),
    }
}

/// Whether a text can be the name of most objects: RFC 1123 subdomain, at most 253 characters.
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        !part.starts_with('-')
            && !part.ends_with('-')
            && !part.is_empty()
            && part.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 253 && name.split('.').all(part)
}

fn valid_claim(object: &str, claim: &PersistentVolumeClaim) -> Result<(), WriteError> {
    let spec = claim.spec.clone().unwrap_or_default();
    if spec.access_modes.unwrap_or_default().is_empty() {
        return Err(refused(object, 422, "spec.accessModes: at least 1 access mode is required"));
    }
    let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
    if !requests.contains_key("storage") {
        return Err(refused(object, 422, "spec.resources[storage]: required value"));
    }
    Ok(())
}

/// Of a claim's spec, only the size and a volume name that is not set yet may change.
fn claim_change(before: &PersistentVolumeClaim, after: &mut PersistentVolumeClaim) -> Option<String> {
    after.status.clone_from(&before.status);
    let (old, new) = (before.spec.clone().unwrap_or_default(), after.spec.clone().unwrap_or_default());
    let mut allowed = old.clone();
    allowed.resources.clone_from(&new.resources);
    if old.volume_name.is_none() {
        allowed.volume_name.clone_from(&new.volume_name);
    }
    (allowed != new).then(|| "spec: is immutable after creation except resources.requests".to_owned())
}

/// The place that a volume stands for cannot change.
fn volume_change(before: &PersistentVolume, after: &mut PersistentVolume) -> Option<String> {
    after.status.clone_from(&before.status);
    let place = |volume: &PersistentVolume| volume.spec.as_ref().and_then(|spec| spec.host_path.clone());
    (place(before) != place(after)).then(|| "spec.persistentvolumesource: is immutable after creation".to_owned())
}

fn patch<T>(
    object: &str,
    objects: &mut BTreeMap<String, T>,
    version: &mut u64,
    name: &str,
    change: &Value,
    check: fn(&T, &mut T) -> Option<String>,
) -> Result<(), WriteError>
where
    T: kube::Resource + Clone + PartialEq + Serialize + DeserializeOwned,
{
    let conflict = |message: String| WriteError::from(Conflict { object: object.to_owned(), message });
    let Some(existing) = objects.get(name) else { return Err(conflict("not found".to_owned())) };
    let metadata = existing.meta();
    for (field, current) in [("uid", &metadata.uid), ("resourceVersion", &metadata.resource_version)] {
        let wanted = change.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
        if wanted.is_some() && wanted != current.as_deref() {
            return Err(conflict(format!("{field} is {}, not {wanted:?}", current.as_deref().unwrap_or_default())));
        }
    }
    let invalid = |error: serde_json::Error| refused(object, 422, error.to_string());
    let mut value = serde_json::to_value(existing).map_err(invalid)?;
    json_patch::merge(&mut value, change);
    let mut next: T = serde_json::from_value(value).map_err(invalid)?;
    next.meta_mut().uid.clone_from(&metadata.uid);
    next.meta_mut().name.clone_from(&metadata.name);
    next.meta_mut().resource_version.clone_from(&metadata.resource_version);
    if let Some(problem) = check(existing, &mut next) {
        return Err(refused(object, 422, problem));
    }
    super::update(objects, version, name, |object| *object = next);
    Ok(())
}
