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
    let region = s3.region.clone().unwrap_or_else(|| "us-east-1".to_owned());
    if endpoint.is_none() && !is_amazons(&region) {
        return Err(invalid(format!(
            "storage.s3.region: {region:?} is no region of Amazon such as eu-west-1; another server is named in storage.s3.endpoint"
        )));
    }
    let credentials = s3.credentials.as_ref();
    let access = access(credentials.map(|credentials| (credentials.secret_ref.as_ref(), credentials.anonymous)), "s3")?;
    let virtual_hosted = s3.addressing.map_or(endpoint.is_none(), |addressing| addressing == Addressing::VirtualHosted);
    let uri = joined(&format!("s3://{bucket}"), &path);
    let task = S3Task {
        bucket: bucket.to_owned(),
        path,
        region,
        endpoint,
        virtual_hosted,
        insecure: s3.insecure,
        ca: ca(s3.ca_bundle.as_ref()),
        access,
    };
    Ok(located(Source::S3(task), uri))
}

/// Whether it is made as the names of Amazon's regions are: words, and a number at the end.
fn is_amazons(region: &str) -> bool {
    let Some((words, number)) = region.rsplit_once('-') else { return false };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number && words.contains('-') && words.split('-').all(word)
}
