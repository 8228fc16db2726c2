//! `checkpoint-operator run` killed again and again while it loads: what is there is never wrong, and little is fetched twice
//! (runs the program, network on loopback).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests stand outside of test functions here"
)]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;
/// A file of 20 parts and a little.
const SIZE: u64 = 320 * MIB + 12_345;
/// The server sends no more than this in a second, whoever asks: then more connections bring nothing.
const RATE: u64 = 120 * MIB;

/// The byte of the file at an offset: no two blocks of it are the same.
fn content(at: u64, length: usize) -> Vec<u8> {
    (at..at + length as u64).map(|at| (at ^ (at >> 8) ^ (at >> 20)).to_le_bytes()[0]).collect()
}

/// Serves the file, in ranges, and counts the bytes that went out.
struct Server {
    address: String,
    sent: Arc<AtomicU64>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sent = Arc::new(AtomicU64::new(0));
        let (counted, begun) = (Arc::clone(&sent), Instant::now());
        let due = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (counted, due) = (Arc::clone(&counted), Arc::clone(&due));
                // A client that is killed ends its connection and nothing else.
                thread::spawn(move || serve(&connection, &counted, &due, begun).ok());
            }
        });
        Self { address, sent }
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

fn serve(connection: &TcpStream, sent: &AtomicU64, due: &AtomicU64, begun: Instant) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut out = connection;
    loop {
        let (mut line, mut range, mut head) = (String::new(), None, false);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            head |= line.starts_with("HEAD ");
            let text = line.trim().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some((first, last)) = text.strip_prefix("range: bytes=").and_then(|text| text.split_once('-')) {
                range = Some((first.parse::<u64>().unwrap(), last.parse::<u64>().unwrap()));
            }
        }
        let (first, last) = range.unwrap_or((0, SIZE - 1));
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        write!(
            out,
            "HTTP/1.1 {status}\r\netag: \"1\"\r\naccept-ranges: bytes\r\ncontent-length: {}\r\n\
             content-range: bytes {first}-{last}/{SIZE}\r\n\r\n",
            last + 1 - first
        )?;
        let mut at = first;
        while !head && at <= last {
            let length = (last + 1 - at).min(MIB);
            // All connections share the rate: each waits for its turn on one clock.
            let turn = due.fetch_add(length, Ordering::SeqCst).max(sent.load(Ordering::SeqCst));
            let wait = Duration::from_secs_f64(turn as f64 / RATE as f64).saturating_sub(begun.elapsed());
            thread::sleep(wait.min(Duration::from_millis(200)));
            out.write_all(&content(at, usize::try_from(length).unwrap()))?;
            sent.fetch_add(length, Ordering::SeqCst);
            at += length;
        }
    }
}

fn start(manifest: &Path, volumes: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checkpoint-operator"));
    command.arg("run").arg("-f").arg(manifest).arg("--volumes").arg(volumes);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_load_that_is_killed_at_every_tenth_goes_on() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let (manifest, volumes) = (folder.path().join("checkpoint.yaml"), folder.path().join("volumes"));
    let text = format!(
        "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: large}}\nspec:\n  \
         storage: {{http: {{url: 'http://{}', files: [large.data], insecure: true}}}}\n  \
         validation: {{pickle: Allow}}\n  volumes: [{{claimName: large}}]\n",
        server.address
    );
    fs::write(&manifest, text).unwrap();
    let visible = || {
        let mut found = Vec::new();
        let mut ahead = vec![volumes.clone()];
        while let Some(next) = ahead.pop() {
            for item in fs::read_dir(next).into_iter().flatten().flatten() {
                let path = item.path();
                if path.is_dir() && item.file_name() != ".checkpoint" {
                    ahead.push(path);
                } else if path.ends_with("large.data") {
                    found.push(path);
                }
            }
        }
        found
    };
    let mut kills = 0;
    for tenth in 1..=10 {
        let mut child = start(&manifest, &volumes);
        while server.sent() < tenth * SIZE / 10 && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        if child.try_wait().unwrap().is_none() {
            kills += 1;
            child.kill().unwrap();
        }
        child.wait().unwrap();
        for path in visible() {
            assert!(fs::metadata(&path).unwrap().len() == SIZE, "{} is half-written", path.display());
        }
    }
    let before = server.sent();
    let status = start(&manifest, &volumes).wait().unwrap();
    assert!(status.success(), "{status}");
    let copies = visible();
    assert_eq!(copies.len(), 1, "{copies:?}");
    let bytes = fs::read(&copies[0]).unwrap();
    assert_eq!(bytes.len() as u64, SIZE);
    let differs = bytes
        .chunks(1 << 20)
        .enumerate()
        .find(|(index, piece)| *piece != content(*index as u64 * MIB, piece.len()).as_slice());
    assert!(differs.is_none(), "it differs in MiB {:?}", differs.map(|(index, _)| index));
    let again = server.sent().saturating_sub(SIZE);
    println!(
        "{kills} kills; {} MiB were sent twice, {} MiB by the last run",
        again / MIB,
        (server.sent() - before) / MIB
    );
    assert!(kills >= 5, "only {kills} of ten runs were killed");
    // What was in flight: a few parts of 16 MiB; and one batch: what came in a second.
    assert!(again <= kills * (6 * 16 * MIB + RATE), "{} MiB were sent twice", again / MIB);
}
