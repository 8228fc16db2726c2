//! A small certificate authority and the kubeconfigs of the cluster's users, made with openssl (process and file I/O).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Cluster, NODE_ADDRESS, NODE_NAME};
use crate::command::{capture, succeeds};

const CURVE: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
const A_WEEK_IN_SECONDS: &str = "604800";
/// Users with a kubeconfig: file name, common name, organisation.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    ("local-path", super::configuration::PROVISIONER_USER, "system:masters"),
];

/// A certificate authority in a folder.
#[derive(Debug, Clone)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Opens the authority of a folder, or makes it. One that is about to expire is replaced, with all it signed.
    pub fn open(folder: &Path) -> Result<Self> {
        let authority = Self { folder: folder.to_path_buf() };
        let certificate = authority.certificate();
        let fresh = succeeds(
            Command::new("openssl").args(["x509", "-noout", "-checkend", A_WEEK_IN_SECONDS, "-in"]).arg(&certificate),
        );
        if !fresh {
            if folder.exists() {
                fs::remove_dir_all(folder)?;
            }
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            let mut request = Command::new("openssl");
            request
                .args(["req", "-x509", "-nodes", "-days", "365", "-subj", "/CN=checkpoint-operator-e2e"])
                .args(CURVE);
            request.arg("-keyout").arg(folder.join("ca.key")).arg("-out").arg(&certificate);
            capture(&mut request)?;
        }
        Ok(authority)
    }

    /// The authority's own certificate (PEM).
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// The certificate and key files of `name`, signed for the given names and addresses; made when missing.
    /// `alternatives` is openssl's list, for example `DNS:s3.storage.svc,IP:10.96.0.80`.
    pub fn issue(&self, name: &str, subject: &str, alternatives: &str) -> Result<(PathBuf, PathBuf)> {
        let file = |extension: &str| self.folder.join(format!("{name}.{extension}"));
        let (certificate, key) = (file("crt"), file("key"));
        let extensions = format!(
            "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n{}",
            if alternatives.is_empty() { String::new() } else { format!("subjectAltName={alternatives}\n") }
        );
        if certificate.exists() && fs::read_to_string(file("ext")).is_ok_and(|known| known == extensions) {
            return Ok((certificate, key));
        }
        let mut request = Command::new("openssl");
        request.args(["req", "-nodes", "-subj", subject]).args(CURVE);
        capture(request.arg("-keyout").arg(&key).arg("-out").arg(file("csr")))?;
        let text = file("ext.new");
        fs::write(&text, &extensions)?;
        let mut sign = Command::new("openssl");
        sign.args(["x509", "-req", "-days", "365", "-CAcreateserial"]).arg("-in").arg(file("csr"));
        sign.arg("-CA").arg(self.certificate()).arg("-CAkey").arg(self.folder.join("ca.key"));
        capture(sign.arg("-extfile").arg(&text).arg("-out").arg(&certificate))?;
        // The extensions are put in place last: a run that was cut short signs again.
        fs::rename(text, file("ext"))?;
        Ok((certificate, key))
    }
}

/// All certificates and kubeconfigs of the cluster's own parts.
pub fn write_all(cluster: &Cluster) -> Result<()> {
    let authority = cluster.authority()?;
    let folder = cluster.root.join("pki");
    let names = format!(
        "IP:127.0.0.1,IP:10.96.0.1,IP:{NODE_ADDRESS},DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost"
    );
    authority.issue("apiserver", "/CN=kube-apiserver", &names)?;
    authority.issue("api-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
    let node = format!("/O=system:nodes/CN=system:node:{NODE_NAME}");
    let signed = authority.issue("kubelet", &node, &format!("IP:{NODE_ADDRESS},DNS:{NODE_NAME}"))?;
    write_kubeconfig(cluster, &authority, "kubelet", &signed)?;
    for (file, name, organisation) in USERS {
        let organisation = if organisation.is_empty() { String::new() } else { format!("/O={organisation}") };
        let signed = authority.issue(file, &format!("{organisation}/CN={name}"), "")?;
        write_kubeconfig(cluster, &authority, file, &signed)?;
    }
    service_account_keys(&folder)
}

fn service_account_keys(folder: &Path) -> Result<()> {
    let (private, public) = (folder.join("sa.key"), folder.join("sa.pub"));
    if public.exists() {
        return Ok(());
    }
    capture(
        Command::new("openssl")
            .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out"])
            .arg(&private),
    )?;
    capture(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(&public))?;
    Ok(())
}

fn write_kubeconfig(cluster: &Cluster, authority: &Authority, name: &str, signed: &(PathBuf, PathBuf)) -> Result<()> {
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: e2e\n\
         clusters: [{{name: e2e, cluster: {{server: \"https://{NODE_ADDRESS}:6443\", certificate-authority: \"{}\"}}}}]\n\
         users: [{{name: {name}, user: {{client-certificate: \"{}\", client-key: \"{}\"}}}}]\n\
         contexts: [{{name: e2e, context: {{cluster: e2e, user: {name}}}}}]\n",
        authority.certificate().display(),
        signed.0.display(),
        signed.1.display(),
    );
    let file = cluster.root.join(format!("{name}.kubeconfig"));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
