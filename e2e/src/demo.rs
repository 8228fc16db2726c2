//! The main job on a real cluster, told step by step with real output (runs kubectl and helm).

use std::process::Command;

use anyhow::{Context, Result};

use crate::cluster::Cluster;
use crate::command::{capture, feed, line, run};
use crate::{images, operator, paths, python, seaweedfs};

const NAMESPACE: &str = "demo";
const BUCKET: &str = "models";
const MODEL: &str = "runs/tiny-llama/checkpoint-3";
/// The quickstart, as the README shows it.
const MANIFEST: &str = "examples/quickstart/cluster.yaml";
const POD: &str = "consumer";

/// Runs the demo. Everything stays, for a closer look.
pub fn run_demo(cluster: &Cluster) -> Result<()> {
    say("A one-node Kubernetes, in a network namespace of its own");
    cluster.up()?;
    show(cluster.kubectl()?.args(["get", "nodes,storageclasses"]))?;

    say("An S3 server that asks for credentials");
    let s3 = seaweedfs::up(cluster)?;
    show(cluster.kubectl()?.args(["get", "pods,services", "--namespace", seaweedfs::NAMESPACE]))?;

    say("A sharded model, written by the safetensors library and uploaded");
    let folder = cluster.root().join("demo-model");
    run(python::script("make_model.py")?.arg(&folder))?;
    s3.create_bucket(BUCKET)?;
    s3.put_folder(BUCKET, MODEL, &folder)?;
    for object in s3.list(BUCKET, MODEL)? {
        println!("{:>12}  s3://{BUCKET}/{}", object.size, object.key);
    }
    show(Command::new("sh").args(["-c", "sha256sum *.safetensors"]).current_dir(&folder))?;

    say("The operator, from its chart");
    let image = images::product(cluster, "")?;
    println!("{}", operator::install(cluster, &image, &[])?.trim());
    show(cluster.kubectl()?.args(["get", "pods", "--namespace", operator::NAMESPACE]))?;

    say("A namespace with Pod Security `restricted`, the credentials, and a pod whose volume does not exist yet");
    prepare_tenant(cluster)?;
    show(cluster.kubectl()?.args(["get", "pods,persistentvolumeclaims", "--namespace", NAMESPACE]))?;

    say("The Checkpoint: where the data lies, and the volume that it becomes");
    let manifest = paths::workspace().join(MANIFEST);
    print!("{}", std::fs::read_to_string(&manifest).with_context(|| format!("cannot read {}", manifest.display()))?);
    show(cluster.kubectl()?.args(["apply", "--namespace", NAMESPACE, "--filename"]).arg(&manifest))?;
    show(cluster.kubectl()?.args(["get", "checkpoints,persistentvolumeclaims,pods", "--namespace", NAMESPACE]))?;
    let wait = ["wait", "--for=condition=Ready", "checkpoints", "--all", "--timeout=120s", "--namespace", NAMESPACE];
    show(cluster.kubectl()?.args(wait))?;
    show(cluster.kubectl()?.args(["get", "checkpoints", "--output", "wide", "--namespace", NAMESPACE]))?;

    say("The pod has started by itself, on the verified bytes");
    let pod = format!("pod/{POD}");
    let ended = ["wait", "--for=jsonpath={.status.phase}=Succeeded", &pod, "--timeout=120s", "--namespace", NAMESPACE];
    show(cluster.kubectl()?.args(ended))?;
    show(cluster.kubectl()?.args(["logs", POD, "--namespace", NAMESPACE]))?;
    say("Everything is still there: `cargo e2e kubectl get ckpt -A`. `cargo e2e down` ends it");
    Ok(())
}

/// A pod mounts the claim that the quickstart's manifest names, before that claim exists.
fn prepare_tenant(cluster: &Cluster) -> Result<()> {
    let claim = "tiny-llama";
    let namespace = serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }});
    let secret = seaweedfs::credentials_secret(NAMESPACE, "s3-credentials", seaweedfs::ADMINISTRATOR);
    let pod = crate::kubernetes::consumer_pod(NAMESPACE, POD, claim, "cd /volume; sha256sum *.safetensors");
    for object in [namespace, secret, pod] {
        let applied = feed(cluster.kubectl()?.args(["apply", "--filename", "-"]), object.to_string().as_bytes())?;
        print!("{applied}");
    }
    Ok(())
}

fn say(text: &str) {
    println!("\n# {text}");
}

/// Prints a command as one would type it, runs it and prints what it says.
fn show(command: &mut Command) -> Result<()> {
    let typed = line(command);
    // Readers have kubectl in their path and need no namespace of the network.
    let typed = typed.split_once("/kubectl ").map_or_else(|| typed.clone(), |(_, rest)| format!("kubectl {rest}"));
    println!("\n$ {typed}");
    print!("{}", capture(command)?);
    Ok(())
}
