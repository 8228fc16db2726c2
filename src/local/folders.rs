//! Volumes as folders: staging folders aside, and one atomic rename that publishes. Does I/O.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use k8s_openapi::{
    api::core::v1::{
        ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use crate::{
    api::{ANNOTATION_CHECKPOINT, ANNOTATION_CLAIM, ANNOTATION_PUBLISHED, Checkpoint, LABEL_ROLE},
    contract::{
        Source,
        manifest::{self, Manifest},
    },
    plan::{Publication, names::Role, validate::validate},
};

use super::{
    LocalError,
    world::{STORAGE_CLASS, World},
};

/// Folder below the volumes' root that is ours.
const OWN: &str = ".checkpoint-operator";
/// Largest manifest that is read, in bytes.
const MANIFEST_LIMIT: u64 = 256 << 20;
/// Stands for the UID of the Checkpoint that published a folder in an earlier run. It is no UID, so that the plan takes
/// the folder for a retained claim, and asks for its files to be hashed before it believes the manifest.
const EARLIER_RUN: &str = "an-earlier-run";

/// The folder of each persistent volume.
#[derive(Debug)]
pub struct Folders {
    root: PathBuf,
    places: BTreeMap<String, PathBuf>,
    /// Claims whose folder lies elsewhere.
    elsewhere: BTreeMap<String, PathBuf>,
    _lock: Option<File>,
}

impl Folders {
    /// Folders below `root`; with `write`, no other run may use the same root meanwhile.
    ///
    /// # Errors
    /// When another run uses them, or they cannot be made.
    pub fn open(root: &Path, write: bool) -> Result<Self, LocalError> {
        let lock = if write { Some(lock(&root.join(OWN))?) } else { None };
        Ok(Self { root: root.to_owned(), places: BTreeMap::new(), elsewhere: BTreeMap::new(), _lock: lock })
    }

    /// Lets a claim be this folder.
    pub fn place(&mut self, claim: &str, folder: &Path) {
        self.elsewhere.insert(claim.to_owned(), folder.to_owned());
    }

    /// The folder of a claim that is bound.
    #[must_use]
    pub fn of_claim(&self, world: &World, claim: &str) -> Option<&Path> {
        let volume = world.claims().get(claim)?.spec.as_ref()?.volume_name.as_ref()?;
        self.places.get(volume).map(PathBuf::as_path)
    }

    /// Shows the folders that a Checkpoint names, and that are there already, as claims.
    ///
    /// # Errors
    /// When a folder cannot be looked at.
    pub fn present(&mut self, world: &mut World, checkpoint: &Checkpoint) -> Result<(), LocalError> {
        let targets = checkpoint.spec.volumes.iter().map(|volume| volume.claim_name.clone());
        let source = match validate(checkpoint).map(|intent| intent.source) {
            Ok(Source::Claim { claim_name, .. }) => Some(claim_name),
            _ => None,
        };
        let siblings = checkpoint.spec.volumes.iter().filter_map(|volume| volume.reuse_from.clone());
        for name in targets.chain(source).chain(siblings) {
            let folder = self.elsewhere.get(&name).cloned().unwrap_or_else(|| self.root.join(&name));
            if world.claims().contains_key(&name) || !exists(&folder)? {
                continue;
            }
            let publication = published(&folder)?;
            let volume = format!("folder-{name}");
            self.places.insert(volume.clone(), folder);
            present(world, checkpoint, &name, &volume, publication.as_ref());
        }
        Ok(())
    }

    /// Follows the world: new volumes get their staging folder, and the folder of a claim that is bound gets its name.
    ///
    /// # Errors
    /// When a folder cannot be made or renamed.
    pub fn follow(&mut self, world: &World) -> Result<(), LocalError> {
        // Folders stay when their volume goes: what they hold is not fetched again.
        self.places.retain(|volume, _| world.volumes().contains_key(volume));
        for (name, volume) in world.volumes() {
            if self.places.contains_key(name) {
                continue;
            }
            let claim = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()?.name.as_ref());
            let Some(claim) = claim.and_then(|claim| world.claims().get(claim)) else { continue };
            let folder = self.root.join(OWN).join(staging_name(&claim.metadata));
            fs::create_dir_all(&folder).map_err(LocalError::at(&folder))?;
            self.places.insert(name.clone(), folder);
        }
        for claim in world.claims().values().filter(|claim| is_bound_target(claim)) {
            self.publish(claim)?;
        }
        Ok(())
    }

    fn publish(&mut self, claim: &PersistentVolumeClaim) -> Result<(), LocalError> {
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_ref());
        let target = self.root.join(claim.metadata.name.as_deref().unwrap_or_default());
        let Some(place) = volume.and_then(|volume| self.places.get_mut(volume)).filter(|place| **place != target)
        else {
            return Ok(());
        };
        rename(place, &target).map_err(LocalError::at(&target))?;
        for folder in [place.parent(), target.parent()].into_iter().flatten() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(LocalError::at(folder))?;
        }
        *place = target;
        Ok(())
    }
}

/// Renames, and never replaces anything.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems do not know the flag; a folder that is not empty is not replaced there either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !to.exists() => fs::rename(from, to),
        result => result.map_err(io::Error::from),
    }
}

fn lock(folder: &Path) -> Result<File, LocalError> {
    fs::create_dir_all(folder).map_err(LocalError::at(folder))?;
    let path = folder.join("lock");
    let file = File::options().create(true).append(true).open(&path).map_err(LocalError::at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LocalError::InUse(path)),
        Err(TryLockError::Error(error)) => Err(LocalError::at(&path)(error)),
    }
}

fn exists(folder: &Path) -> Result<bool, LocalError> {
    match fs::symlink_metadata(folder) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LocalError::at(folder)(error)),
    }
}

/// What the folder's manifest says that it holds; none when there is no valid one.
fn published(folder: &Path) -> Result<Option<Publication>, LocalError> {
    let path = folder.join(manifest::PATH);
    let mut text = Vec::new();
    match File::open(&path) {
        Ok(file) => file.take(MANIFEST_LIMIT).read_to_end(&mut text).map_err(LocalError::at(&path))?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(LocalError::at(&path)(error)),
    };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return Ok(None) };
    if manifest.version != 1 || manifest.tree_digest().ok().as_ref() != Some(&manifest.digest) {
        return Ok(None);
    }
    let bytes = manifest.files.iter().fold(0u64, |sum, file| sum.saturating_add(file.size));
    Ok(Some(Publication {
        checkpoint_uid: EARLIER_RUN.to_owned(),
        uri: manifest.uri,
        fingerprint: manifest.fingerprint,
        filter: manifest.filter,
        digest: manifest.digest,
        bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
    }))
}

fn is_bound_target(claim: &PersistentVolumeClaim) -> bool {
    let role = claim.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_ROLE)).map(String::as_str);
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    role == Some(Role::Target.as_str()) && phase == Some("Bound")
}

/// A name that depends on the Checkpoint's name and the target alone, so that a second run finds the folder again.
fn staging_name(claim: &ObjectMeta) -> String {
    let annotation = |name: &str| claim.annotations.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default();
    let target = annotation(ANNOTATION_CLAIM);
    let owner = (claim.namespace.clone().unwrap_or_default(), annotation(ANNOTATION_CHECKPOINT));
    let hash = blake3::hash(format!("{}\0{}\0{target}", owner.0, owner.1).as_bytes()).to_hex();
    format!("{target}-{}", &hash[..16])
}

fn present(world: &mut World, checkpoint: &Checkpoint, name: &str, volume: &str, publication: Option<&Publication>) {
    let namespace = checkpoint.metadata.namespace.clone();
    let annotations = publication.and_then(|publication| serde_json::to_string(publication).ok()).map(|text| {
        BTreeMap::from([
            (ANNOTATION_CHECKPOINT.to_owned(), checkpoint.metadata.name.clone().unwrap_or_default()),
            (ANNOTATION_CLAIM.to_owned(), name.to_owned()),
            (ANNOTATION_PUBLISHED.to_owned(), text),
        ])
    });
    let metadata = |name: &str| ObjectMeta {
        name: Some(name.to_owned()),
        annotations: annotations.clone(),
        ..ObjectMeta::default()
    };
    let bytes = publication.map_or(0, |publication| publication.bytes);
    let size = BTreeMap::from([("storage".to_owned(), Quantity(bytes.to_string()))]);
    // Any number of readers and writers, as folders are.
    let modes = Some(vec!["ReadWriteMany".to_owned()]);
    world.add_volume(PersistentVolume {
        metadata: metadata(volume),
        spec: Some(PersistentVolumeSpec {
            access_modes: modes.clone(),
            capacity: Some(size.clone()),
            claim_ref: Some(ObjectReference {
                name: Some(name.to_owned()),
                namespace: namespace.clone(),
                ..ObjectReference::default()
            }),
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            storage_class_name: Some(STORAGE_CLASS.to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    });
    world.add_claim(PersistentVolumeClaim {
        metadata: ObjectMeta { namespace, ..metadata(name) },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: modes,
            resources: Some(VolumeResourceRequirements { requests: Some(size), limits: None }),
            storage_class_name: Some(STORAGE_CLASS.to_owned()),
            volume_name: Some(volume.to_owned()),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    });
    world.settle();
}
