//! `gs://` URIs and `storage.gcs`. Pure, no I/O.

use crate::{
    api::GcsSource,
    contract::{Connection, GcsTask, Source},
};

use super::{Outcome, access, ca, endpoint, folder, invalid, located, split};

pub(super) fn gcs_uri(rest: &str, gcs: &GcsSource) -> Outcome {
    let (bucket, path) = split(rest, "gs")?;
    gcs_source(bucket, path, gcs)
}

pub(super) fn gcs_source(bucket: &str, path: &str, gcs: &GcsSource) -> Outcome {
    let path = folder(path)?;
    if bucket.is_empty() || !bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return Err(invalid(format!("{bucket:?} is not a bucket of Google Cloud Storage")));
    }
    let credentials = gcs.credentials.as_ref();
    let connection = Connection {
        endpoint: endpoint(gcs.endpoint.as_deref(), gcs.insecure, "gcs")?,
        insecure: gcs.insecure,
        ca: ca(gcs.ca_bundle.as_ref()),
        access: access(credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)), "gcs")?,
    };
    let task = GcsTask { bucket: bucket.to_owned(), path, connection };
    let uri = task.uri();
    Ok(located(Source::Gcs(task), uri))
}
