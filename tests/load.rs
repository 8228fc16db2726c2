//! `checkpoint-operator run` killed while it loads: what is there is never wrong, and little is fetched twice
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
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MIB: u64 = 1 << 20;
/// A file of 30 parts and a little.
const SIZE: u64 = 480 * MIB + 12_345;
/// The server sends no more than this in a second, whoever asks: then more connections bring nothing.
const RATE: u64 = 120 * MIB;

/// The file: no two blocks of 4 KiB are the same.
fn content() -> &'static [u8] {
    static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
        for (index, block) in bytes.chunks_mut(4096).enumerate() {
            let number = index.to_le_bytes();
            block.fill(number[0]);
            block[..number.len()].copy_from_slice(&number);
        }
        bytes
    });
    &CONTENT
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
            let position = usize::try_from(at).unwrap();
            out.write_all(&content()[position..position + usize::try_from(length).unwrap()])?;
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

/// Every file of that name that a pod could see.
fn visible(volumes: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut ahead = vec![volumes.to_owned()];
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
}

#[test]
fn a_load_that_is_killed_goes_on_from_there() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("checkpoint.yaml");
    let text = format!(
        "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: large}}\nspec:\n  \
         storage: {{http: {{url: 'http://{}', files: [large.data], insecure: true}}}}\n  \
         validation: {{pickle: Allow}}\n  volumes: [{{claimName: large}}]\n",
        server.address
    );
    fs::write(&manifest, text).unwrap();
    for tenth in 1..10 {
        let volumes = folder.path().join(format!("volumes-{tenth}"));
        let begun = server.sent();
        let mut child = start(&manifest, &volumes);
        while server.sent() - begun < tenth * SIZE / 10 && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it had {tenth} tenths");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(visible(&volumes).is_empty(), "something half-written is visible");
        let killed = server.sent();
        let status = start(&manifest, &volumes).wait().unwrap();
        assert!(status.success(), "{status}");
        let copies = visible(&volumes);
        assert_eq!(copies.len(), 1, "{copies:?}");
        let bytes = fs::read(&copies[0]).unwrap();
        assert_eq!(bytes.len() as u64, SIZE);
        let differs = bytes.chunks(1 << 20).zip(content().chunks(1 << 20)).position(|(left, right)| left != right);
        assert_eq!(differs, None, "it differs in that MiB");
        let (again, second) = (server.sent() - begun - SIZE, server.sent() - killed);
        println!(
            "killed at {tenth} tenths: {} MiB kept, {} MiB fetched twice",
            (SIZE - second.min(SIZE)) / MIB,
            again / MIB
        );
        // A few parts of 16 MiB that were on their way, what waited for its batch, a quarter of a second, and the batch that was
        // made durable then: a slow disk takes its time for that.
        assert!(again <= 6 * 16 * MIB + 2 * RATE, "{} MiB were fetched twice", again / MIB);
        fs::remove_dir_all(&volumes).unwrap();
    }
}
