//! What the tests of all backends share: the checkpoint, its proof in a volume, a network that breaks off (file and network I/O).

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use checkpoint_operator::{
    contract::{Access, Connection, Format, Reason, Report, Source},
    local::Display,
    worker::Progress,
};
use checkpoint_operator_e2e::paths;

use crate::{place::Place, servers::files};

/// A checkpoint that transformers wrote: three shards, their index, configurations.
pub fn checkpoint() -> PathBuf {
    paths::of_this_crate("fixtures/hugging_face/sharded")
}

/// Inspects and loads through the worker: the volume holds the checkpoint, byte for byte.
pub async fn assert_loaded(keys: &[(&str, &str)], source: &Source) -> Result<Report> {
    let place = place_with(keys)?;
    let report = place.load(source).await?;
    let inspected = place.inspect(source).await;
    assert_eq!(inspected.contents.context("no contents")?.format, Some(Format::HuggingFace));
    let expected = files(&checkpoint())?;
    assert_eq!(place.files()?.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert!(place.files()? == expected, "the bytes differ");
    Ok(report)
}

/// A place with these keys in its Secret.
pub fn place_with(keys: &[(&str, &str)]) -> Result<Place> {
    let place = Place::new()?;
    for (key, value) in keys {
        fs::write(place.secret.path().join(key), value)?;
    }
    Ok(place)
}

/// An inspection ends for this reason, says this, and nothing secret.
pub async fn assert_refused(keys: &[(&str, &str)], source: &Source, reason: Reason, part: &str) -> Result<()> {
    let report = place_with(keys)?.inspect(source).await;
    assert_eq!(report.reason, Some(reason), "{report:?}");
    assert!(report.message.contains(part), "{part:?} is not in {:?}", report.message);
    assert!(!format!("{report:?}").contains("canary"), "{report:?}");
    Ok(())
}

/// Says nothing.
pub struct Silent;

impl Display for Silent {
    fn begin(&self, _: &str) {}
    fn progress(&self, _: Progress) {}
    fn end(&self, _: &Report) {}
    fn note(&self, _: &str) {}
}

/// A connection to a server on loopback.
pub fn connection(endpoint: &str, access: Access) -> Connection {
    Connection { endpoint: Some(endpoint.to_owned()), insecure: true, ca: None, access }
}

/// A network that breaks off every third connection after some bytes of the answer.
pub struct Breaking {
    pub address: SocketAddr,
    broken: Arc<AtomicUsize>,
}

impl Breaking {
    pub fn before(server: &str) -> Result<Self> {
        let server: SocketAddr = server.trim_start_matches("http://").parse()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let broken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&broken);
        std::thread::spawn(move || {
            for (number, client) in listener.incoming().flatten().enumerate() {
                let limit = if number % 3 == 1 { 3000 + 100 * (number % 17) } else { usize::MAX };
                let count = Arc::clone(&count);
                std::thread::spawn(move || relay(client, server, limit, &count));
            }
        });
        Ok(Self { address, broken })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The network did break off, and more than once.
    pub fn was_bad(&self) -> Result<()> {
        let broken = self.broken.load(Ordering::Relaxed);
        ensure!(broken >= 2, "only {broken} connections broke off");
        Ok(())
    }
}

fn relay(client: TcpStream, server: SocketAddr, limit: usize, broken: &AtomicUsize) -> Option<()> {
    let server = TcpStream::connect(server).ok()?;
    let (mut from_client, mut to_server) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        std::io::copy(&mut from_client, &mut to_server).ok();
        to_server.shutdown(Shutdown::Both).ok();
    });
    let (mut from_server, mut to_client) = (server, client);
    let (mut left, mut piece) = (limit, [0; 1024]);
    loop {
        let read = from_server.read(&mut piece).ok().filter(|read| *read > 0);
        let Some(read) = read else { break };
        to_client.write_all(&piece[..read.min(left)]).ok()?;
        left = left.saturating_sub(read);
        if left == 0 {
            broken.fetch_add(1, Ordering::Relaxed);
            break;
        }
    }
    to_client.shutdown(Shutdown::Both).ok();
    from_server.shutdown(Shutdown::Both).ok()
}
