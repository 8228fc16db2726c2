//! The stages that run Cargo, and the one that brings the cluster up (process I/O).

use std::env;
use std::process::Command;

use anyhow::{Context, Result};

use crate::cache::build_once;
use crate::cluster::Cluster;
use crate::command::{capture, run};
use crate::{dependencies, images, paths, python, servers};

const DENY_VERSION: &str = "0.20";
/// Test programs of this crate that need no cluster.
const LOCAL_TESTS: &[&str] =
    &["agreement", "contract", "differential", "formats", "fuzz", "oracles", "remote", "storage"];
/// Tests on the cluster at once: they mostly wait for pods, so there are more of them than processors.
const TESTS_AT_ONCE: usize = 6;
/// Test programs of this crate that need one.
const CLUSTER_TESTS: &[&str] = &["harness", "cluster"];

/// `cargo fmt --check`.
pub fn format(_: &[String]) -> Result<()> {
    run(paths::cargo().args(["fmt", "--all", "--check"]))?;
    run(paths::cargo().args(["fmt", "--check", "--manifest-path", "e2e/fuzz/Cargo.toml"]))
}

/// `cargo clippy`, warnings being errors, and the core builds without what does I/O.
pub fn lint(_: &[String]) -> Result<()> {
    let core = ["check", "--package", "checkpoint-operator", "--lib", "--no-default-features", "--quiet"];
    run(paths::cargo().args(core))?;
    run(paths::cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
}

/// Everything that needs no cluster. The storage tests run their own servers on loopback.
pub fn unit(arguments: &[String]) -> Result<()> {
    dependencies::install()?;
    python::environment()?;
    run(with(paths::cargo().args(["test", "--quiet", "--package", "checkpoint-operator"]), arguments))?;
    let mut own = paths::cargo();
    own.args(["test", "--quiet", "--package", "checkpoint-operator-e2e", "--lib", "--bins"]);
    for name in LOCAL_TESTS.iter().filter(|name| has_test(name)) {
        own.args(["--test", name]);
    }
    run(with(&mut own, arguments))
}

/// `cargo deny`, built once into the cache.
pub fn deny(_: &[String]) -> Result<()> {
    let installed = build_once("cargo-deny", &[DENY_VERSION.as_bytes()], |folder| {
        println!("Installing cargo-deny {DENY_VERSION} (once)");
        let version = format!("{DENY_VERSION}.*");
        let mut install = paths::cargo();
        // It runs for a second: optimising it would take minutes.
        install.args(["install", "cargo-deny", "--locked", "--quiet", "--debug", "--version", &version, "--root"]);
        install.arg(folder).env("CARGO_PROFILE_DEV_DEBUG", "false");
        // Its build is another project's: it gets a target folder of its own.
        run(install.env_remove("CARGO_TARGET_DIR"))
    })?;
    let mut deny = Command::new(installed.join("bin/cargo-deny"));
    paths::in_workspace(&mut deny);
    run(deny.args(["--workspace", "check", "bans", "licenses", "sources"]))
}

/// The release build.
pub fn release(_: &[String]) -> Result<()> {
    run(paths::cargo().args(["build", "--release", "--package", "checkpoint-operator"]))
}

/// The cluster, with the product's image.
pub fn up(_: &[String]) -> Result<()> {
    let cluster = Cluster::from_environment()?;
    cluster.up()?;
    println!("{}", images::product(&cluster, "")?);
    Ok(())
}

/// The tests on the cluster. Cargo stays outside its network and starts the test programs inside, through its runner
/// setting; they find the product's image in `CHECKPOINT_E2E_IMAGE`.
pub fn cluster(arguments: &[String]) -> Result<()> {
    let cluster = Cluster::from_environment()?;
    cluster.up()?;
    let image = images::product(&cluster, "")?;
    // The test programs have no way to the internet.
    servers::fake_gcs()?;
    servers::azurite()?;
    let mut tests = paths::cargo();
    tests.args(["test", "--package", "checkpoint-operator-e2e"]);
    for name in CLUSTER_TESTS.iter().filter(|name| has_test(name)) {
        tests.args(["--test", name]);
    }
    let entry = cluster.entry();
    if !entry.is_empty() {
        tests.env(runner_variable()?, entry.join(" "));
    }
    // A failed wait says what it saw; the stack of the test's runtime would only bury it.
    tests.env("RUST_LIB_BACKTRACE", "0");
    tests.env("CHECKPOINT_E2E_IMAGE", image).env("CHECKPOINT_E2E_ROOT", cluster.root());
    let mut arguments = arguments.to_vec();
    if !arguments.iter().any(|argument| argument.starts_with("--test-threads")) {
        arguments.push(format!("--test-threads={TESTS_AT_ONCE}"));
    }
    run(with(&mut tests, &arguments)).with_context(|| format!("logs of the cluster: {}", cluster.logs().display()))
}

/// Whether the test program exists (they come in with the features that they test).
fn has_test(name: &str) -> bool {
    let tests = paths::of_this_crate("tests");
    tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists()
}

fn with<'a>(command: &'a mut Command, arguments: &[String]) -> &'a mut Command {
    if !arguments.is_empty() {
        command.arg("--").args(arguments);
    }
    command
}

/// `CARGO_TARGET_<TRIPLE>_RUNNER` for this machine.
fn runner_variable() -> Result<String> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = capture(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    Ok(format!("CARGO_TARGET_{}_RUNNER", host.replace('-', "_").to_uppercase()))
}
