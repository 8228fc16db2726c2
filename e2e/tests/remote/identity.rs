//! The identity of a pod goes nowhere that only the spec names: a metadata service and a second host count who comes.

use std::{
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, Connection, GcsTask, Reason},
    storage::{Gcs, Retry, Storage, StorageError, Timeouts},
};

use crate::place::Place;

/// A server that gives nobody a token, and counts.
fn counting() -> Result<(String, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::Relaxed);
            let mut head = [0; 4096];
            if stream.read(&mut head).is_err() {
                continue;
            }
            write!(stream, "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 6\r\n\r\ncanary").ok();
        }
    });
    Ok((address, seen))
}

#[test]
fn the_pods_identity_stays_away_from_hosts_that_only_the_spec_names() -> Result<()> {
    let ((service, asked), (other, contacted)) = (counting()?, counting()?);
    let child = |test: &str| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        command
            .env("GCE_METADATA_HOST", &service)
            .env("GCE_METADATA_IP", &service)
            .env("CHECKPOINT_TEST_OTHER", &other)
            .env("HOME", "/nowhere");
        let output = command.env_remove("GOOGLE_APPLICATION_CREDENTIALS").output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        anyhow::ensure!(output.status.success(), "{text}");
        anyhow::Ok(text)
    };
    child("identity::child_that_is_sent_elsewhere")?;
    assert_eq!((asked.load(Ordering::Relaxed), contacted.load(Ordering::Relaxed)), (0, 0));
    // The service can be reached: for Google's own host it is asked, under its name and its address.
    let text = child("identity::child_that_asks_for_its_identity")?;
    assert_eq!((asked.load(Ordering::Relaxed), contacted.load(Ordering::Relaxed)), (2, 0), "{text}");
    assert!(!text.contains("canary"), "{text}");
    Ok(())
}

fn open(endpoint: Option<String>) -> Result<Result<impl Storage, StorageError>> {
    let connection = Connection { endpoint, insecure: true, ca: None, access: Access::Ambient };
    let task = GcsTask { bucket: "models".into(), path: "x".into(), connection };
    let retry = Retry { attempts: 1, ..Retry::default() };
    Ok(Gcs::open_with(&task, &Place::new()?.mounts(), retry, Timeouts::default()))
}

#[tokio::test]
#[ignore = "run by the_pods_identity_stays_away_from_hosts_that_only_the_spec_names"]
async fn child_that_is_sent_elsewhere() -> Result<()> {
    let other = std::env::var("CHECKPOINT_TEST_OTHER").context("no other host")?;
    let refused = open(Some(format!("http://{other}")))?.err().context("not refused")?;
    assert_eq!(refused.reason(), Reason::AccessDenied, "{refused}");
    Ok(())
}

#[tokio::test]
#[ignore = "run by the_pods_identity_stays_away_from_hosts_that_only_the_spec_names"]
async fn child_that_asks_for_its_identity() -> Result<()> {
    let refused = open(None)??.list().await.err().context("not refused")?;
    println!("{refused}");
    assert_eq!(refused.reason(), Reason::AccessDenied, "{refused}");
    Ok(())
}
