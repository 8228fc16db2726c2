//! Names of environment variables and mount points of worker pods. Pure, no I/O.

/// Environment variable: the task, base64 of its JSON.
pub const TASK: &str = "CHECKPOINT_TASK";
/// Environment variable: inline data, base64 of the text as the user wrote it.
pub const INLINE: &str = "CHECKPOINT_INLINE";
/// Environment variable that Kubernetes sets in pods of an indexed Job: which of them it is, from 0.
pub const COMPLETION_INDEX: &str = "JOB_COMPLETION_INDEX";
/// Environment variable: the URL to which a worker sends how far it is; without it, it tells only its log.
pub const PROGRESS_URL: &str = "CHECKPOINT_PROGRESS_URL";
/// Folder with the token that a worker shows when it tells how far it is.
pub const PROGRESS_MOUNT: &str = "/var/run/checkpoints.dev/progress";
/// Folder with the credential files: one file a key of the Secret.
pub const CREDENTIALS_MOUNT: &str = "/var/run/checkpoints.dev/credentials";
/// Folder with the certificate authorities.
pub const CA_MOUNT: &str = "/var/run/checkpoints.dev/ca";
/// File with the certificate authorities, PEM.
pub const CA_FILE: &str = "/var/run/checkpoints.dev/ca/ca.crt";
/// Where a claim that is the source is mounted, read-only.
pub const SOURCE_MOUNT: &str = "/source";
/// Where the claim is mounted, read-only, whose files need not be fetched.
pub const REUSE_MOUNT: &str = "/reuse";
/// Where the volume to fill or to verify is mounted.
pub const VOLUME_MOUNT: &str = "/volume";
/// Where the kubelet reads the report.
pub const TERMINATION_MESSAGE: &str = "/dev/termination-log";
/// Keys of a Secret with S3 credentials.
pub const S3_KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
/// Keys of a Secret with a service account of Google Cloud. `allowedHosts` lists hosts, besides the provider's own, that
/// bearer credentials may be sent to; so it does in the Secrets below.
pub const GCS_KEYS: [&str; 3] = ["service-account.json", "key.json", ALLOWED_HOSTS];
/// Environment variable of Google's libraries: a file with a service account's key.
pub const GCS_KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// Keys of a Secret with Azure credentials.
pub const AZURE_KEYS: [&str; 6] = [
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    ALLOWED_HOSTS,
];
/// Keys of a Secret with credentials of a web server.
pub const HTTP_KEYS: [&str; 4] = ["token", "username", "password", ALLOWED_HOSTS];
/// Keys of a Secret with a token of the Hugging Face Hub.
pub const HUGGING_FACE_KEYS: [&str; 3] = ["HF_TOKEN", "token", ALLOWED_HOSTS];
/// Key of a Secret: the hosts that its bearer credentials may be sent to, separated by white space or commas.
pub const ALLOWED_HOSTS: &str = "allowedHosts";
/// Beginnings of the names of environment variables that carry the identity of a pod or a user.
pub const IDENTITY_PREFIXES: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "HF_"];
/// Environment variables that say where a person's files are, such as the token of a login.
pub const PERSON_VARIABLES: [&str; 2] = ["HOME", "XDG_CACHE_HOME"];
/// Environment variable of the Hub's tools: the server that is meant when nothing names another one.
pub const HUB_ENDPOINT: &str = "HF_ENDPOINT";
