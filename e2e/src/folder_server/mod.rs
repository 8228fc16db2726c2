//! An S3 server that lists and serves a folder on loopback, and counts what it was asked for (network and file I/O).
//!
//! It knows `ListObjectsV2` with prefix, delimiter and pages, `HeadObject` and `GetObject` with a range, and it is as fast as it
//! can be: what a client takes on top is the client's own. It can wait before each answer, as a server that is some way off does,
//! hold each connection to a rate, as S3 does, speak TLS, and give the same files as the Hugging Face Hub does.

mod hub;
mod keys;
mod tls;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use percent_encoding::percent_decode_str;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use hub::Hub;
pub use hub::REPOSITORY;
use keys::{Keys, Version};
pub use tls::authority;

/// The bucket's name in URLs.
pub const BUCKET: &str = "bench";

/// A running server; its threads end with the process.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// How long it waits before each answer.
    pub wait: Duration,
    /// Bytes per second of each connection.
    pub rate: Option<u64>,
    /// Whether it speaks TLS, with a certificate that [`authority`] signed.
    pub tls: bool,
    /// Whether it is the Hub, too; then all files are summed up at its start.
    pub hub: bool,
}

struct Shared {
    root: PathBuf,
    keys: Keys,
    hub: Option<Hub>,
    manner: Manner,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Server {
    /// Serves the files that are below `root` now.
    pub fn start(root: &Path, manner: Manner) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        // A Hub keeps large files at another address: clients see a file's other name in a redirect to the same one.
        let store = manner.hub.then(|| TcpListener::bind("127.0.0.1:0")).transpose()?;
        let hub = store.as_ref().map(|store| Hub::of(root, url(manner, store.local_addr()?))).transpose()?;
        let (requests, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let keys = Keys::below(root)?;
        let shared = Arc::new(Shared { root: root.to_owned(), keys, hub, manner, requests, bytes });
        let tls = manner.tls.then(tls::configuration).transpose()?;
        for listener in [Some(listener), store].into_iter().flatten() {
            let (shared, tls) = (Arc::clone(&shared), tls.clone());
            thread::spawn(move || accept(&listener, &shared, tls.as_ref()));
        }
        Ok(Self { address, shared })
    }

    /// Its address, for `--endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        url(self.shared.manner, self.address)
    }

    /// Requests and bytes of bodies since it was last asked.
    #[must_use]
    pub fn take_counts(&self) -> (u64, u64) {
        (self.shared.requests.swap(0, Ordering::Relaxed), self.shared.bytes.swap(0, Ordering::Relaxed))
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, tls: Option<&Arc<ServerConfig>>) {
    for connection in listener.incoming().flatten() {
        let (shared, tls) = (Arc::clone(shared), tls.cloned());
        // A client that goes away ends its connection and nothing else.
        thread::spawn(move || {
            connection.set_nodelay(true)?;
            match tls {
                Some(tls) => shared.serve(StreamOwned::new(ServerConnection::new(tls)?, connection)),
                None => shared.serve(connection),
            }
        });
    }
}

fn url(manner: Manner, address: SocketAddr) -> String {
    format!("http{}://{address}", if manner.tls { "s" } else { "" })
}

impl Shared {
    fn serve(&self, connection: impl Read + Write) -> Result<()> {
        let mut connection = BufReader::new(connection);
        loop {
            let Some(Request { head, target, range }) = request(&mut connection)? else { return Ok(()) };
            self.requests.fetch_add(1, Ordering::Relaxed);
            thread::sleep(self.manner.wait);
            let (mut answer, body) = self.answer(&target, range.as_deref())?;
            write!(answer, "content-length: {}\r\n\r\n", body.length())?;
            let out = connection.get_mut();
            out.write_all(answer.as_bytes())?;
            if !head {
                self.bytes.fetch_add(body.length(), Ordering::Relaxed);
                self.send(body, out)?;
            }
            out.flush()?;
        }
    }

    fn send(&self, body: Body, connection: &mut impl Write) -> Result<()> {
        /// So much is sent between looks at the clock.
        const STEP: u64 = 256 << 10;
        let (mut file, mut length) = match body {
            Body::Text(text) => return Ok(connection.write_all(text.as_bytes())?),
            Body::File(file, length) => (file, length),
        };
        let (begun, mut sent) = (Instant::now(), 0);
        while length > 0 {
            let step = if self.manner.rate.is_some() { STEP.min(length) } else { length };
            // From a file to a socket, this is one system call that copies nothing.
            let moved = io::copy(&mut Read::by_ref(&mut file).take(step), connection)?;
            anyhow::ensure!(moved == step, "the file became shorter");
            (length, sent) = (length - step, sent + step);
            if let Some(rate) = self.manner.rate {
                let due = Duration::from_secs_f64(sent as f64 / rate as f64);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
        }
        Ok(())
    }

    fn answer(&self, target: &str, range: Option<&str>) -> Result<(String, Body)> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = percent_decode_str(path).decode_utf8().context("a path that is not UTF-8")?;
        if let Some((head, text)) = self.hub.as_ref().and_then(|hub| hub.answer(&path, query)) {
            return Ok((head, Body::Text(text)));
        }
        let key = path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        if key.is_empty() {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/xml\r\n".to_owned();
            return Ok((head, Body::Text(self.keys.page(query)?)));
        }
        let file = File::open(self.root.join(key)).and_then(|file| Ok((file.metadata()?, file)));
        let Some((metadata, mut file)) = file.ok().filter(|(metadata, _)| metadata.is_file()) else {
            return Ok(("HTTP/1.1 404 Not Found\r\n".to_owned(), Body::Text(String::new())));
        };
        let version = Version::of(&metadata);
        let size = version.size;
        let range = range.and_then(|range| range.trim().strip_prefix("bytes=")?.split_once('-'));
        let (status, first, end) = match range {
            Some((first, last)) => {
                ("206 Partial Content", first.parse()?, last.parse().map_or(size, |last: u64| last + 1))
            }
            None => ("200 OK", 0, size),
        };
        let end = end.min(size);
        file.seek(SeekFrom::Start(first))?;
        let mut head = format!(
            "HTTP/1.1 {status}\r\netag: {}\r\naccept-ranges: bytes\r\n\
             last-modified: {}\r\ncontent-type: application/octet-stream\r\n",
            version.tag(),
            version.modified("%a, %d %b %Y %H:%M:%S GMT")?
        );
        if range.is_some() {
            write!(head, "content-range: bytes {first}-{}/{size}\r\n", end.saturating_sub(1))?;
        }
        Ok((head, Body::File(file, end.saturating_sub(first))))
    }
}

/// What follows the head of an answer.
enum Body {
    Text(String),
    /// So many bytes from where the file stands.
    File(File, u64),
}

impl Body {
    fn length(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(_, length) => *length,
        }
    }
}

struct Request {
    /// Whether only the head of the answer is wanted.
    head: bool,
    target: String,
    range: Option<String>,
}

/// The next request; none at the end of the connection.
fn request(reader: &mut impl BufRead) -> Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let head = line.starts_with("HEAD ");
    let target = line.split(' ').nth(1).context("no request line")?.to_owned();
    let mut range = None;
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("range") => range = Some(value.trim().to_owned()),
            Some(_) => {}
            None => return Ok(Some(Request { head, target, range })),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn it_lists_and_serves_ranges_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        for number in 0..1001 {
            fs::write(folder.path().join(format!("a/{number:04}")), "0123456789").unwrap();
        }
        let server = Server::start(folder.path(), Manner::default()).unwrap();
        let ask = |target: &str, range: &str| {
            let mut connection = TcpStream::connect(server.address).unwrap();
            write!(connection, "GET {target} HTTP/1.1\r\nRange: bytes={range}\r\n\r\n").unwrap();
            connection.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            answer
        };
        let answer = ask("/bench/a/0007", "2-4");
        assert!(answer.contains("content-range: bytes 2-4/10\r\n") && answer.ends_with("\r\n\r\n234"), "{answer}");
        assert_eq!(server.take_counts(), (1, 3));
        let page = ask("/bench?list-type=2", "");
        assert!(page.contains("<Key>a/0999</Key>") && page.contains("<NextContinuationToken>1000<"), "{page}");
        let page = ask("/bench?continuation-token=1000&list-type=2", "");
        assert!(page.contains("<Key>a/1000</Key>") && page.contains("<IsTruncated>false<"), "{page}");
        assert!(ask("/bench/nothing", "0-1").starts_with("HTTP/1.1 404"));
        assert_eq!(server.take_counts().0, 3);
        assert!(ask("/bench/a/0007", "").ends_with("\r\n\r\n0123456789"), "all of it");
    }

    #[test]
    fn a_connection_is_held_to_its_rate() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), vec![7; 1 << 20]).unwrap();
        let server = Server::start(folder.path(), Manner { rate: Some(4 << 20), ..Manner::default() }).unwrap();
        let mut connection = TcpStream::connect(server.address).unwrap();
        connection.write_all(b"GET /bench/a HTTP/1.1\r\n\r\n").unwrap();
        connection.shutdown(std::net::Shutdown::Write).unwrap();
        let (begun, mut answer) = (Instant::now(), Vec::new());
        connection.read_to_end(&mut answer).unwrap();
        assert!(answer.len() > 1 << 20 && begun.elapsed() >= Duration::from_millis(240), "{:?}", begun.elapsed());
    }
}
