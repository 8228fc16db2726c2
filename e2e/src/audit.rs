//! Who wrote what to the API server since a moment, from the local cluster's audit log (file I/O).
//!
//! The log holds the metadata of every create, update, patch and delete by anyone but the cluster's own parts,
//! and the API server writes it before it answers: a write whose response was seen is in the log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::Cluster;

/// A moment in the audit log.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// One write to the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// For example `system:serviceaccount:checkpoint-operator-system:checkpoint-operator`.
    pub user: String,
    /// What the client calls itself.
    pub user_agent: String,
    /// create, update, patch, delete or deletecollection.
    pub verb: String,
    /// For example `jobs`, or `checkpoints/status`.
    pub resource: String,
    /// Empty for objects outside namespaces.
    pub namespace: String,
    /// Empty where the server made the name.
    pub name: String,
    /// The HTTP status of the answer.
    pub code: u16,
}

/// The end of the log as it is now.
pub fn mark(cluster: &Cluster) -> Result<Mark> {
    Ok(Mark(open(cluster)?.seek(SeekFrom::End(0))?))
}

/// All writes after the mark, in order, whatever their outcome.
pub fn writes_since(cluster: &Cluster, mark: Mark) -> Result<Vec<Write>> {
    let mut log = open(cluster)?;
    log.seek(SeekFrom::Start(mark.0))?;
    let mut text = String::new();
    log.read_to_string(&mut text)?;
    // The last line may be half written.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(parse).collect()
}

/// The writes of one user, Leases left out: a leader renews its own all the time.
pub fn writes_of(cluster: &Cluster, user: &str, mark: Mark) -> Result<Vec<Write>> {
    let mut writes = writes_since(cluster, mark)?;
    writes.retain(|write| write.user == user && write.resource != "leases");
    Ok(writes)
}

/// The user name of a service account.
#[must_use]
pub fn service_account(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

fn open(cluster: &Cluster) -> Result<File> {
    if !cluster.is_local() {
        bail!("the audit log of the cluster of KUBECONFIG is not to be had; unset KUBECONFIG to count writes");
    }
    let log = cluster.audit_log();
    File::open(&log).with_context(|| format!("cannot read {}", log.display()))
}

fn parse(line: &str) -> Result<Write> {
    let event: Value = serde_json::from_str(line).with_context(|| format!("not an audit event: {line}"))?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (resource, part) = (text("/objectRef/resource"), text("/objectRef/subresource"));
    let code = event.pointer("/responseStatus/code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    Ok(Write {
        user: text("/user/username"),
        user_agent: text("/userAgent"),
        verb: text("/verb"),
        resource: if part.is_empty() { resource } else { format!("{resource}/{part}") },
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: code.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_with_its_subresource() {
        let line = r#"{"verb":"patch","user":{"username":"u"},"userAgent":"a","objectRef":{"resource":"checkpoints","subresource":"status","namespace":"n","name":"c"},"responseStatus":{"code":200}}"#;
        let write = parse(line).unwrap();
        assert_eq!((write.resource.as_str(), write.code, write.name.as_str()), ("checkpoints/status", 200, "c"));
    }
}
