//! `https://` addresses and `storage.http`. Pure, no I/O.

use crate::{
    api::HttpSource,
    contract::{Access, Connection, HttpTask, Source},
};

use super::{InvalidSpec, Outcome, ca, endpoint, folder, invalid, located};

pub(super) fn http_source(url: &str, http: &HttpSource) -> Outcome {
    let url = url.trim_end_matches('/');
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains(['@', ' ']) {
        return Err(invalid(
            "path: an https:// address needs a host, and no user name or password: use storage.http.credentials",
        ));
    }
    if url.contains(['?', '#']) {
        return Err(invalid("path: an https:// address has no query here: signed addresses expire and are secrets"));
    }
    folder(path)?;
    endpoint(Some(&url[..url.len() - rest.len() + authority.len()]), http.insecure, "http")?;
    if http.manifest.is_some() && !http.files.is_empty() {
        return Err(invalid("storage.http: set files or manifest, not both"));
    }
    for (index, file) in http.files.iter().enumerate() {
        check_file(file, &format!("storage.http.files[{index}]"))?;
    }
    if let Some(manifest) = &http.manifest {
        check_file(manifest, "storage.http.manifest")?;
    }
    let secret = http.credentials.as_ref().map(|credentials| credentials.secret_ref.name.clone());
    let connection = Connection {
        endpoint: None,
        insecure: http.insecure,
        ca: ca(http.ca_bundle.as_ref()),
        access: secret.map_or(Access::Anonymous, Access::Secret),
    };
    let task = HttpTask { url: url.to_owned(), files: http.files.clone(), manifest: http.manifest.clone(), connection };
    Ok(located(Source::Http(task), url.to_owned()))
}

fn check_file(file: &str, field: &str) -> Result<(), InvalidSpec> {
    match folder(file) {
        Ok(same) if same == file && !file.is_empty() => Ok(()),
        Ok(_) => Err(invalid(format!("{field}: {file:?} is no file below the address"))),
        Err(error) => Err(invalid(format!("{field}: {}", error.message))),
    }
}
