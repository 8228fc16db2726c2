//! The Kubernetes API of this project: resource types and the names of labels and annotations. No behaviour, no I/O.

mod checkpoint;
mod definition;
mod schema;
mod status;
mod storage;
mod volume;

pub use checkpoint::{Checkpoint, CheckpointSpec, LocalReference, ResourceAmounts, Worker};
pub use definition::definition;
pub use schema::Amount;
pub use status::{CheckpointStatus, InspectionStatus, Phase, SourceStatus, VolumeStatus};
pub use storage::{
    Addressing, AzureCredentials, AzureSource, CaBundle, ClaimSource, ConfigMapKeyReference, GcsCredentials, GcsSource,
    HttpCredentials, HttpSource, HuggingFaceCredentials, HuggingFaceSource, InlineSource, RepositoryKind,
    S3Credentials, S3Source, SecretReference, Storage,
};
pub use volume::{AccessMode, DeletionPolicy, Placement, Volume};

/// API group of all resources.
pub const GROUP: &str = "checkpoints.dev";
/// API version of all resources.
pub const VERSION: &str = "v1alpha1";
/// Field manager of every write that the controller makes.
pub const FIELD_MANAGER: &str = "checkpoint-operator";

/// Label on every object that the controller creates: the UID of its Checkpoint.
pub const LABEL_CHECKPOINT_UID: &str = "checkpoints.dev/checkpoint-uid";
/// Label on every object that the controller creates: what it is for (see [`Role`](LABEL_ROLE)).
pub const LABEL_ROLE: &str = "checkpoints.dev/role";
/// Label that names the manager, as Kubernetes recommends.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "checkpoint-operator";
/// Label that keeps backup tools from saving objects that live only for one task.
pub const LABEL_EXCLUDE_FROM_BACKUP: &str = "velero.io/exclude-from-backup";

/// Annotation on a Checkpoint: any new value asks for a new inspection at once.
pub const ANNOTATION_REVALIDATE: &str = "checkpoints.dev/revalidate";
/// Annotation on child objects: the name of their Checkpoint.
pub const ANNOTATION_CHECKPOINT: &str = "checkpoints.dev/checkpoint";
/// Annotation on child objects: the name of the target claim that they serve.
pub const ANNOTATION_CLAIM: &str = "checkpoints.dev/claim";
/// Annotation on Jobs and staging claims: the hash of the inputs that they were made for.
pub const ANNOTATION_INPUTS: &str = "checkpoints.dev/inputs";
/// Annotation on Jobs: which attempt at these inputs they are, from 1.
pub const ANNOTATION_ATTEMPT: &str = "checkpoints.dev/attempt";
/// Annotation on a Job: the listing that was inspected and that the load must find again.
pub const ANNOTATION_FINGERPRINT: &str = "checkpoints.dev/fingerprint";
/// Annotation on published claims and volumes: JSON of the publication, what the volume holds.
pub const ANNOTATION_PUBLISHED: &str = "checkpoints.dev/published";
/// Annotation on claims during the hand-over; its value changes so that the volume binder looks at the claim at once.
pub const ANNOTATION_TOUCHED: &str = "checkpoints.dev/handed-over";
