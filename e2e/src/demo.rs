//! The main job on a real cluster, told step by step with real output (runs kubectl and helm).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use crate::cluster::Cluster;
use crate::command::{capture, feed, line, run};
use crate::s3::S3;
use crate::{images, kubernetes, operator, paths, python, seaweedfs};

const NAMESPACE: &str = "demo";
const BUCKET: &str = "models";
const MODEL: &str = "runs/tiny-llama/checkpoint-3";
const CLAIM: &str = "tiny-llama";
const POD: &str = "consumer";
/// A model in S3, for the story.
const MANIFEST: &str = "e2e/manifests/demo.yaml";
/// The one that the README begins with, for the end of the story.
const QUICKSTART: &str = "examples/quickstart";

/// Runs the demo. Everything stays, for a closer look.
pub fn run_demo(cluster: &Cluster) -> Result<()> {
    say("A one-node Kubernetes, in a network namespace of its own");
    cluster.up()?;
    show(cluster.kubectl()?.args(["get", "nodes,storageclasses"]))?;

    say("An S3 server that asks for credentials");
    let s3 = seaweedfs::up(cluster)?;
    show(cluster.kubectl()?.args(["get", "pods,services", "--namespace", seaweedfs::NAMESPACE]))?;

    say("A sharded model, written by the safetensors library and uploaded");
    upload_model(cluster, &s3)?;

    say("The operator, from its chart");
    let image = images::product(cluster, "")?;
    println!("{}", operator::install(cluster, &image, &[])?.trim());
    show(cluster.kubectl()?.args(["get", "pods", "--namespace", operator::NAMESPACE]))?;

    say("A namespace with Pod Security `restricted`, the credentials, and a pod whose volume does not exist yet");
    prepare_tenant(cluster)?;
    show(in_demo(cluster)?.args(["get", "pods,persistentvolumeclaims"]))?;

    say("The Checkpoint: where the data lies, and the volume that it becomes");
    print!("{}", read(Path::new(MANIFEST))?);
    show(in_demo(cluster)?.args(["apply", "-f", MANIFEST]))?;
    show(in_demo(cluster)?.args(["get", "checkpoints,persistentvolumeclaims,pods"]))?;
    show(in_demo(cluster)?.args(["wait", "--for=condition=Ready", "checkpoint/tiny-llama", "--timeout=180s"]))?;
    show(in_demo(cluster)?.args(["get", "checkpoints", "--output=wide"]))?;

    say("The pod has started by itself, on the verified bytes");
    show(in_demo(cluster)?.args([
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/consumer",
        "--timeout=120s",
    ]))?;
    show(in_demo(cluster)?.args(["logs", POD]))?;

    say("The quickstart, word for word: data in the manifest itself, the same life");
    show(in_demo(cluster)?.args(["apply", "-f", QUICKSTART]))?;
    let succeeded = "--for=jsonpath={.status.phase}=Succeeded";
    show(in_demo(cluster)?.args(["wait", succeeded, "pod/quickstart-reader", "--timeout=180s"]))?;
    show(in_demo(cluster)?.args(["logs", "quickstart-reader"]))?;
    show(in_demo(cluster)?.args(["get", "checkpoints,persistentvolumeclaims,pods"]))?;
    say("Everything is still there: `cargo e2e kubectl get ckpt -A`. `cargo e2e down` ends it");
    Ok(())
}

fn upload_model(cluster: &Cluster, s3: &S3) -> Result<()> {
    let folder = cluster.root().join("demo-model");
    run(python::script("make_model.py")?.arg(&folder))?;
    s3.create_bucket(BUCKET)?;
    s3.put_folder(BUCKET, MODEL, &folder)?;
    let objects = s3.list(BUCKET, MODEL)?;
    for object in &objects {
        println!("{:>12}  s3://{BUCKET}/{}", object.size, object.key);
    }
    let names = objects.iter().filter_map(|object| object.key.rsplit('/').next());
    show(Command::new("sha256sum").args(names.filter(|name| name.ends_with(".safetensors"))).current_dir(&folder))
}

/// A pod mounts the claim that the manifest names, before that claim exists.
fn prepare_tenant(cluster: &Cluster) -> Result<()> {
    let objects = [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        }}),
        seaweedfs::credentials_secret(NAMESPACE, "s3-credentials", seaweedfs::ADMINISTRATOR),
        seaweedfs::certificate_authority(cluster, NAMESPACE, "storage-ca")?,
        kubernetes::consumer_pod(NAMESPACE, POD, CLAIM, "cd /volume; ls -l; sha256sum *.safetensors"),
    ];
    for object in objects {
        print!("{}", feed(cluster.kubectl()?.args(["apply", "--filename", "-"]), object.to_string().as_bytes())?);
    }
    Ok(())
}

/// kubectl at the root of the repository, in the demo's namespace.
fn in_demo(cluster: &Cluster) -> Result<Command> {
    let mut kubectl = cluster.kubectl()?;
    kubectl.current_dir(paths::workspace()).args(["--namespace", NAMESPACE]);
    Ok(kubectl)
}

fn read(relative: &Path) -> Result<String> {
    let file = paths::workspace().join(relative);
    std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// Prints a command as one would type it, runs it and prints what it says.
fn show(command: &mut Command) -> Result<()> {
    let typed = line(command);
    // Readers have kubectl in their path and are in the right network already.
    let typed = typed.split_once("/kubectl ").map_or_else(|| typed.clone(), |(_, rest)| format!("kubectl {rest}"));
    println!("\n$ {typed}");
    print!("{}", capture(command)?);
    Ok(())
}
