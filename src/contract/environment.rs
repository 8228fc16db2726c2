//! Names of environment variables and mount points of worker pods. Pure, no I/O.

/// Environment variable: the task, base64 of its JSON.
pub const TASK: &str = "CHECKPOINT_TASK";
/// Environment variable: inline data, base64 of the text as the user wrote it.
pub const INLINE: &str = "CHECKPOINT_INLINE";
/// Folder with the credential files: one file a key of the Secret.
pub const CREDENTIALS_MOUNT: &str = "/var/run/checkpoints.dev/credentials";
/// Folder with the certificate authorities.
pub const CA_MOUNT: &str = "/var/run/checkpoints.dev/ca";
/// File with the certificate authorities, PEM.
pub const CA_FILE: &str = "/var/run/checkpoints.dev/ca/ca.crt";
/// Where a claim that is the source is mounted, read-only.
pub const SOURCE_MOUNT: &str = "/source";
/// Where the volume to fill or to verify is mounted.
pub const VOLUME_MOUNT: &str = "/volume";
/// Where the kubelet reads the report.
pub const TERMINATION_MESSAGE: &str = "/dev/termination-log";
/// Keys of a Secret with S3 credentials.
pub const S3_KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
