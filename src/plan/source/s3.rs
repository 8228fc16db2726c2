//! `s3://` URIs and `storage.s3`. Pure, no I/O.

use crate::{
    api::{Addressing, S3Source},
    contract::{S3Task, Source},
};

use super::{Outcome, access, ca, endpoint, folder, invalid, joined, located};

pub(super) fn s3_uri(rest: &str, s3: &S3Source) -> Outcome {
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, path) = place.split_once('/').unwrap_or((place, ""));
    if bucket.contains(['@', ':']) {
        return Err(invalid(
            "path: a URI must not hold a user name, a password or a port; use storage.s3.credentials and storage.s3.endpoint",
        ));
    }
    let mut s3 = s3.clone();
    let mut scheme = None;
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("endpoint_override", value)) => s3.endpoint = Some(value.to_owned()),
            Some(("region", value)) => s3.region = Some(value.to_owned()),
            Some(("scheme", value)) => scheme = Some(value.to_owned()),
            _ => {
                return Err(invalid(format!(
                    "path: {pair:?} is not understood; of the query of an s3:// URI, only endpoint_override, scheme and region are"
                )));
            }
        }
    }
    // Ray's endpoint_override has no scheme of its own; `scheme` says which.
    if let Some(endpoint) = s3.endpoint.as_mut().filter(|endpoint| !endpoint.contains("://")) {
        *endpoint = format!("{}://{endpoint}", scheme.as_deref().unwrap_or("https"));
    }
    s3_source(bucket, path, &s3)
}

pub(super) fn s3_source(bucket: &str, path: &str, s3: &S3Source) -> Outcome {
    let path = folder(path)?;
    if bucket.is_empty() || bucket.contains(['/', '?', '@']) {
        return Err(invalid(format!("{bucket:?} is not a bucket")));
    }
    let endpoint = endpoint(s3.endpoint.as_deref(), s3.insecure, "s3")?;
    let credentials = s3.credentials.as_ref();
    let access = access(credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)), "s3")?;
    let virtual_hosted = s3.addressing.map_or(endpoint.is_none(), |addressing| addressing == Addressing::VirtualHosted);
    let uri = joined(&format!("s3://{bucket}"), &path);
    let task = S3Task {
        bucket: bucket.to_owned(),
        path,
        region: s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned()),
        endpoint,
        virtual_hosted,
        insecure: s3.insecure,
        ca: ca(s3.ca_bundle.as_ref()),
        access,
    };
    Ok(located(Source::S3(task), uri))
}
