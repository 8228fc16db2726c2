//! Who loads: the command of each program for a scenario (writes manifests).

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::scenario::{Kind, Scenario};
use crate::folder_server::{BUCKET, REPOSITORY, Server, authority};
use crate::paths;

/// The claim of what was loaded before something changed.
pub(super) const BEFORE: &str = "before";

/// Who fetches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Program {
    Product,
    Rclone,
    S5cmd,
    Boto3,
    Pyarrow,
    HuggingFaceHub,
}

impl Program {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Product => "checkpoint-operator",
            Self::Rclone => "rclone, then sync",
            Self::S5cmd => "s5cmd, then sync",
            Self::Boto3 => "boto3, then sync",
            Self::Pyarrow => "pyarrow, then sync",
            Self::HuggingFaceHub => "huggingface_hub, then sync",
        }
    }

    /// The folder below `target` that what was fetched from `server` lies in.
    pub(super) fn folder(self, target: &Path, claim: &str) -> PathBuf {
        if self == Self::Product { target.join(claim) } else { target.to_owned() }
    }
}

/// Where the programs are.
pub(super) struct Programs {
    pub(super) product: PathBuf,
    pub(super) python: PathBuf,
}

impl Programs {
    /// Fetches everything from a server into a folder; the product into a claim of this name below it.
    pub(super) fn command(
        &self,
        program: Program,
        scenario: &Scenario,
        server: &Server,
        target: &Path,
        claim: &str,
    ) -> Result<Command> {
        let endpoint = server.endpoint();
        let bin = |name: &str| self.python.join("bin").join(name).display().to_string();
        let shown = target.display();
        let script = |library: &str, name: &str| {
            let script = paths::of_this_crate("python/copy_folder.py");
            format!("{} {} {library} {endpoint} {name} {shown}", bin("python"), script.display())
        };
        let fetch = match program {
            Program::Product => {
                let manifest = target.with_extension("yaml");
                // What changed since is loaded into a claim of its own beside the first.
                let earlier = scenario.before.as_ref().map(|_| BEFORE).filter(|before| *before != claim);
                fs::write(&manifest, manifest_of(scenario.kind, &endpoint, claim, earlier)?)?;
                let mut command = Command::new(&self.product);
                command.arg("run").arg("-f").arg(manifest).arg("--volumes").arg(target);
                return Ok(command);
            }
            Program::Rclone => format!(
                "{} copy :s3:{BUCKET} {shown} --s3-provider Other --s3-endpoint {endpoint} --s3-region us-east-1 \
                 --s3-force-path-style --s3-list-version 2 --config /dev/null --s3-no-check-bucket --ca-cert {}",
                bin("rclone"),
                authority().display()
            ),
            Program::S5cmd => format!(
                "{} --no-sign-request --endpoint-url {endpoint} --log error cp 's3://{BUCKET}/*' {shown}/",
                bin("s5cmd")
            ),
            Program::Boto3 => script("boto3", BUCKET),
            Program::Pyarrow => script("pyarrow", BUCKET),
            Program::HuggingFaceHub => script("huggingface_hub", REPOSITORY),
        };
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{fetch} && sync -f {shown}"));
        command.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "us-east-1");
        if scenario.kind == Kind::Tls {
            command.env("AWS_CA_BUNDLE", authority());
        }
        Ok(command)
    }
}

/// A Checkpoint of everything that the server has.
fn manifest_of(kind: Kind, endpoint: &str, claim: &str, earlier: Option<&str>) -> Result<String> {
    let mut text = String::new();
    let (path, storage) = match kind {
        Kind::Hub => {
            (format!("hf://{REPOSITORY}@main"), format!("huggingFace: {{endpoint: '{endpoint}', insecure: true}}"))
        }
        Kind::Tls => {
            let certificate = fs::read_to_string(authority())?.replace('\n', "\n    ");
            write!(
                text,
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: authority}}\ndata:\n  ca.crt: |\n    {certificate}\n---\n"
            )?;
            let trust = "caBundle: {configMapRef: {name: authority}}, credentials: {anonymous: true}";
            (format!("s3://{BUCKET}"), format!("s3: {{endpoint: '{endpoint}', {trust}}}"))
        }
        _ => {
            let storage = format!("s3: {{endpoint: '{endpoint}', insecure: true, credentials: {{anonymous: true}}}}");
            (format!("s3://{BUCKET}"), storage)
        }
    };
    let reuse = earlier.map(|earlier| format!(", reuseFrom: {earlier}")).unwrap_or_default();
    write!(
        text,
        "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: {claim}}}\nspec:\n  path: {path}\n  \
         storage: {{{storage}}}\n  volumes: [{{claimName: {claim}{reuse}}}]\n"
    )?;
    Ok(text)
}
