//! Servers of the backends, for the tests on loopback and for those in the cluster: how each is started and filled
//! (process and network I/O).
//!
//! A server listens on one address of this machine and ends with this process.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use checkpoint_operator_e2e::wait::{Now, wait_until};

pub mod azure;
pub mod gcs;
pub mod hub;
pub mod web;

/// Where a server is reached from this machine alone.
#[allow(dead_code, reason = "the tests in the cluster use the node's address")]
pub const LOOPBACK: &str = "127.0.0.1";

/// A client for filling the servers.
pub fn client() -> Result<reqwest::Client> {
    rustls::crypto::ring::default_provider().install_default().ok();
    Ok(reqwest::Client::builder().no_proxy().build()?)
}

/// The files of a folder, which has no folders.
pub fn files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("not UTF-8")?.to_owned();
        Ok((name, fs::read(path)?))
    };
    fs::read_dir(folder)?.map(read).collect()
}

/// A port that was free a moment ago.
pub fn port(address: &str) -> Result<u16> {
    Ok(TcpListener::bind((address, 0))?.local_addr()?.port())
}

/// Waits for something to listen.
fn listens(what: &str, address: &str, port: u16) -> Result<()> {
    wait_until(&format!("{what} to listen"), Duration::from_mins(1), || {
        let tried = TcpStream::connect((address, port));
        Ok(tried.map_or_else(|error| Now::NotYet(error.to_string()), |_| Now::Done(())))
    })
}

/// A folder for a server, which its guard removes.
fn folder(name: &str) -> Result<PathBuf> {
    Ok(tempfile::Builder::new().prefix(&format!("checkpoint-{name}-")).tempdir()?.keep())
}
