//! Test support: a server that misbehaves on purpose, and the faults that every backend has to survive.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::TryStreamExt;

use crate::{
    contract::Reason,
    storage::{Entry, Mounts, Retry, Storage, StorageError, Timeouts},
};

/// The certificate authority of [`Server::start_tls`]; made with openssl, valid for 100 years.
pub const CA: &[u8] = include_bytes!("fixtures/ca.crt");
/// What files hold.
pub const CONTENT: &str = "0123456789";

/// What the server does with one request.
pub enum Answer {
    /// Sends this and closes the connection.
    Send(Vec<u8>),
    /// Sends this and stays silent.
    Stall(Vec<u8>),
}

type Behaviour = dyn Fn(usize, &str) -> Answer + Send + Sync;
type Aside = dyn Fn(&str) -> Option<Answer> + Send + Sync;

/// A server on loopback that does what it is told, given the number of a request and its head.
pub struct Server {
    pub address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    scheme: &'static str,
}

impl Server {
    pub fn start(behaviour: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        Self::listen(None, None, behaviour)
    }

    /// A server that answers some requests without counting them.
    pub fn start_beside(
        aside: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
        behaviour: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::listen(None, Some(Arc::new(aside)), behaviour)
    }

    /// A server whose certificate [`CA`] signed, for 127.0.0.1 and localhost.
    pub fn start_tls(behaviour: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
        install_tls();
        let certificate = CertificateDer::from_pem_slice(include_bytes!("fixtures/server.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_slice(include_bytes!("fixtures/server.key")).unwrap();
        let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        Self::listen(Some(Arc::new(config.unwrap())), None, behaviour)
    }

    fn listen(
        tls: Option<Arc<rustls::ServerConfig>>,
        aside: Option<Arc<Aside>>,
        behaviour: impl Fn(usize, &str) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (behaviour, seen): (Arc<Behaviour>, _) = (Arc::new(behaviour), Arc::clone(&heads));
        let scheme = if tls.is_some() { "https" } else { "http" };
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (behaviour, seen, tls, aside) =
                    (Arc::clone(&behaviour), Arc::clone(&seen), tls.clone(), aside.clone());
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = rustls::ServerConnection::new(config).unwrap();
                        serve(
                            rustls::StreamOwned::new(connection, stream.unwrap()),
                            &*behaviour,
                            aside.as_deref(),
                            &seen,
                        );
                    }
                    None => serve(stream.unwrap(), &*behaviour, aside.as_deref(), &seen),
                });
            }
        });
        Self { address, heads, scheme }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The heads of all requests, header names in lower case.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn requests(&self) -> usize {
        self.heads.lock().unwrap().len()
    }

    /// What was asked for, range by range.
    pub fn ranges(&self) -> Vec<String> {
        let range = |head: &String| head.lines().find_map(|line| line.strip_prefix("range: bytes=").map(str::to_owned));
        self.heads().iter().filter_map(range).collect()
    }
}

fn serve(mut stream: impl Read + Write, behaviour: &Behaviour, aside: Option<&Aside>, seen: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let answer = aside.and_then(|aside| aside(&head)).unwrap_or_else(|| {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(head.clone());
            seen.len()
        };
        behaviour(number, &head)
    });
    match answer {
        Answer::Send(bytes) => {
            _ = stream.write_all(&bytes);
            _ = stream.flush();
        }
        Answer::Stall(bytes) => {
            _ = stream.write_all(&bytes);
            _ = stream.flush();
            _ = stream.read(&mut byte);
        }
    }
}

/// An answer with these headers, each with its line end.
pub fn response(status: u16, headers: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Send(
        format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into(),
    )
}

/// The part of [`CONTENT`] that the head asks for; everything when it asks for none.
pub fn part(head: &str, headers: &str) -> Answer {
    match asked(head) {
        Some((first, last)) => partial(first, last, 10, headers, &CONTENT[first..=last]),
        None => response(200, headers, CONTENT),
    }
}

fn asked(head: &str) -> Option<(usize, usize)> {
    let range = head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (first, last) = range.trim().split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// An answer that says to be this part of that whole.
pub fn partial(first: usize, last: usize, whole: usize, headers: &str, body: &str) -> Answer {
    response(206, &format!("content-range: bytes {first}-{last}/{whole}\r\n{headers}"), body)
}

/// The answer without its last bytes.
pub fn cut(answer: Answer, bytes: usize) -> Vec<u8> {
    let (Answer::Send(mut whole) | Answer::Stall(mut whole)) = answer;
    whole.truncate(whole.len() - bytes);
    whole
}

pub fn install_tls() {
    // The second of two calls in one process is refused, which is as good.
    _ = rustls::crypto::ring::default_provider().install_default();
}

/// Three attempts in a row.
pub fn impatience() -> (Retry, Timeouts) {
    install_tls();
    (
        Retry { attempts: 3, base: Duration::from_millis(1), cap: Duration::from_millis(2) },
        Timeouts { connect: Duration::from_secs(5), stall: Duration::from_millis(300) },
    )
}

/// A Secret with these keys.
pub fn secret(keys: &[(&str, &str)]) -> (tempfile::TempDir, Mounts) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in keys {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let mounts = Mounts { credentials: folder.path().to_owned(), ..Mounts::default() };
    (folder, mounts)
}

pub async fn read(storage: &dyn Storage, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
    let pieces: Vec<Bytes> = storage.read(entry, range).try_collect().await?;
    Ok(pieces.concat())
}

/// A backend whose files are read under the faults of [`Faults::hold`].
pub struct Faults<'a> {
    /// Opens it at this address, and lists it if need be.
    pub open: &'a dyn Fn(&str) -> Box<dyn Storage>,
    /// The file, ten bytes long.
    pub entry: Entry,
    /// Headers of a good answer.
    pub headers: &'static str,
    /// Answers the requests of a listing, which are not counted.
    pub aside: fn(&str) -> Option<Answer>,
    /// Whether bytes are taken under the name of their compression.
    pub stored: bool,
    /// Whether whole bodies are accepted for ranges.
    pub in_sequence: bool,
}

impl Faults<'_> {
    fn server(&self, behaviour: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> (Server, Box<dyn Storage>) {
        let server = Server::start_beside(self.aside, behaviour);
        let storage = (self.open)(&server.url());
        (server, storage)
    }

    /// Everything that a server, or the network before it, may do wrong while a file is read.
    pub async fn hold(&self) {
        self.reasons().await;
        self.resumed().await;
        self.patient().await;
    }

    async fn reasons(&self) {
        type Make = fn(&str, &str) -> Answer;
        let mut table: Vec<(&str, Make, Reason, usize)> = vec![
            ("404", |_, _| response(404, "", "canary"), Reason::SourceChanged, 1),
            ("416", |_, _| response(416, "content-range: bytes */5\r\n", ""), Reason::SourceChanged, 1),
            ("403", |_, _| response(403, "", "canary"), Reason::AccessDenied, 1),
            ("429", |_, _| response(429, "", "canary"), Reason::Unreachable, 3),
            ("500", |_, _| response(500, "", "canary"), Reason::Unreachable, 3),
            ("503", |_, _| response(503, "", "canary"), Reason::Unreachable, 3),
            ("400", |_, _| response(400, "", "canary"), Reason::InvalidSpec, 1),
            ("another part", |_, more| partial(0, 8, 10, more, "012345678"), Reason::Unreachable, 3),
            ("another whole", |_, more| partial(1, 9, 11, more, "123456789"), Reason::SourceChanged, 1),
            ("no part", |_, more| response(206, more, "123456789"), Reason::Unreachable, 3),
            ("too much", |_, more| partial(1, 9, 10, more, "123456789canary"), Reason::Unreachable, 3),
            ("silence", |head, more| Answer::Stall(cut(part(head, more), 9)), Reason::Unreachable, 3),
            ("nothing", |_, _| Answer::Send(Vec::new()), Reason::Unreachable, 3),
            ("garbage", |_, _| Answer::Send(b"canary\r\n\r\n".into()), Reason::Unreachable, 3),
        ];
        if !self.stored {
            let gzip: Make = |head, more| part(head, &format!("content-encoding: gzip\r\n{more}"));
            table.push(("gzip", gzip, Reason::Unreachable, 3));
        }
        if !self.in_sequence {
            table.push(("200", |_, more| response(200, more, CONTENT), Reason::Unreachable, 3));
        }
        for (name, make, reason, requests) in table {
            let headers = self.headers;
            let (server, storage) = self.server(move |_, head| make(head, headers));
            let error = read(&*storage, &self.entry, 1..10).await.unwrap_err();
            assert_eq!(error.reason(), reason, "{name}: {error}");
            assert_eq!(server.requests(), requests, "{name}: {error}");
            assert!(!error.to_string().contains("canary"), "{name}: {error}");
        }
    }

    /// A read goes on at the byte where it broke off.
    async fn resumed(&self) {
        let headers = self.headers;
        let (server, storage) = self.server(move |number, head| match number {
            1 => response(503, "", ""),
            2 => Answer::Send(cut(part(head, headers), 4)),
            3 => Answer::Stall(cut(part(head, headers), 2)),
            // Fewer bytes than it says, properly ended.
            4 => partial(8, 9, 10, headers, "8"),
            _ => part(head, headers),
        });
        assert_eq!(read(&*storage, &self.entry, 1..10).await.unwrap(), b"123456789");
        assert_eq!(server.ranges(), ["1-9", "1-9", "6-9", "8-9", "9-9"]);
    }

    /// The server says how long it wants to be left alone.
    async fn patient(&self) {
        let headers = self.headers;
        let (server, storage) = self.server(move |number, head| match number {
            1 => response(429, "retry-after: 1\r\n", ""),
            _ => part(head, headers),
        });
        let begun = Instant::now();
        assert_eq!(read(&*storage, &self.entry, 2..5).await.unwrap(), b"234");
        assert!(begun.elapsed() >= Duration::from_secs(1));
        assert_eq!(server.requests(), 2);
    }
}
