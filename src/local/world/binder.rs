//! The volume controller: provisions, binds, loses. Pure, no I/O.

use k8s_openapi::{
    api::core::v1::{
        HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec,
        PersistentVolumeStatus,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{World, name_of, uid_of, update};

/// Annotation that the binder sets on claims that it has bound.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";

impl World {
    /// One round over all claims: a claim without a volume gets a new one (at once, or with its first pod, as its class
    /// says); a claim whose volume is meant for it becomes Bound; a claim that was Bound and whose volume is now
    /// another's becomes Lost; a claim that names a volume of another's stays Pending.
    pub fn bind_volumes(&mut self) {
        let names: Vec<_> = self.claims.keys().cloned().collect();
        for name in names {
            let Some(claim) = self.claims.get(&name).filter(|claim| claim.metadata.deletion_timestamp.is_none()) else {
                continue;
            };
            let claim = claim.clone();
            let was_bound = claim.metadata.annotations.iter().flatten().any(|(key, _)| key == BIND_COMPLETED);
            let Some(volume_name) = volume_name(&claim) else {
                self.provision(&claim);
                continue;
            };
            match self.volumes.get(volume_name) {
                Some(volume) if is_for(volume, &claim) => self.bind(&claim, volume_name),
                _ if was_bound => self.set_phase(&name, "Lost"),
                _ => {}
            }
        }
        self.set_volume_phases();
    }

    fn provision(&mut self, claim: &PersistentVolumeClaim) {
        let spec = claim.spec.clone().unwrap_or_default();
        let class_name = spec.storage_class_name.clone().unwrap_or_default();
        let Some(class) = self.storage_classes.get(&class_name) else { return };
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        if waits && !self.is_mounted(name_of(&claim.metadata)) {
            return;
        }
        let name = format!("pv-{}", uid_of(&claim.metadata));
        let mut volume = PersistentVolume {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: Some(PersistentVolumeSpec {
                access_modes: spec.access_modes,
                capacity: spec.resources.and_then(|resources| resources.requests),
                claim_ref: Some(reference(claim)),
                host_path: Some(HostPathVolumeSource { path: format!("/volumes/{name}"), ..Default::default() }),
                persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
                storage_class_name: Some(class_name),
                volume_mode: spec.volume_mode,
                ..PersistentVolumeSpec::default()
            }),
            status: None,
        };
        self.stamp(&mut volume.metadata);
        self.volumes.insert(name.clone(), volume);
        self.bind(claim, &name);
    }

    fn bind(&mut self, claim: &PersistentVolumeClaim, volume_name: &str) {
        update(&mut self.volumes, &mut self.version, volume_name, |volume| {
            let spec = volume.spec.get_or_insert_default();
            let current = spec.claim_ref.get_or_insert_with(|| reference(claim));
            current.uid = Some(uid_of(&claim.metadata).to_owned());
        });
        let Some(spec) = self.volumes.get(volume_name).and_then(|volume| volume.spec.clone()) else { return };
        update(&mut self.claims, &mut self.version, name_of(&claim.metadata), |claim| {
            let annotations = claim.metadata.annotations.get_or_insert_default();
            annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
            claim.spec.get_or_insert_default().volume_name = Some(volume_name.to_owned());
            let status = claim.status.get_or_insert_default();
            status.phase = Some("Bound".to_owned());
            status.access_modes = spec.access_modes;
            status.capacity = spec.capacity;
        });
    }

    fn set_phase(&mut self, claim: &str, phase: &str) {
        update(&mut self.claims, &mut self.version, claim, |claim| {
            let status = claim.status.get_or_insert_default();
            status.phase = Some(phase.to_owned());
            status.access_modes = None;
            status.capacity = None;
        });
    }

    fn set_volume_phases(&mut self) {
        let phases: Vec<_> = self
            .volumes
            .iter()
            .map(|(name, volume)| {
                let phase = match claim_uid(volume) {
                    None => "Available",
                    Some(uid) if self.claims.values().any(|claim| uid_of(&claim.metadata) == uid) => "Bound",
                    Some(_) => "Released",
                };
                (name.clone(), phase)
            })
            .collect();
        for (name, phase) in phases {
            update(&mut self.volumes, &mut self.version, &name, |volume| {
                let status = PersistentVolumeStatus { phase: Some(phase.to_owned()), ..Default::default() };
                volume.status = Some(status);
            });
        }
    }

    pub(super) fn is_mounted(&self, claim: &str) -> bool {
        self.pods.values().any(|pod| mounted_claims(pod.spec.as_ref()).any(|name| name == claim))
    }
}

/// Names of the claims that a pod mounts.
pub(super) fn mounted_claims(
    spec: Option<&k8s_openapi::api::core::v1::PodSpec>,
) -> impl Iterator<Item = &str> + use<'_> {
    let volumes = spec.and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    volumes.iter().filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

pub(super) fn claim_uid(volume: &PersistentVolume) -> Option<&str> {
    volume.spec.as_ref()?.claim_ref.as_ref()?.uid.as_deref()
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        name: claim.metadata.name.clone(),
        namespace: claim.metadata.namespace.clone(),
        uid: claim.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// Whether a volume is free, or set aside for this claim and no other of that name.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()).is_none_or(|wanted| {
        wanted.name == claim.metadata.name
            && wanted.namespace == claim.metadata.namespace
            && wanted.uid.as_deref().is_none_or(|uid| uid == uid_of(&claim.metadata))
    })
}
