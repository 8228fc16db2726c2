//! The backend against a server that misbehaves on purpose.

use super::*;
use crate::{
    contract::{Connection, Reason},
    storage::{
        Checksum, Storage,
        backends::remote::testing::{self, Answer, Server, response},
    },
};

const HEADERS: &str = "etag: \"e\"\r\n";

fn task(url: &str, files: &[&str]) -> HttpTask {
    let connection = Connection { insecure: true, access: Access::Anonymous, ..Connection::default() };
    HttpTask {
        url: format!("{url}/models"),
        files: files.iter().map(|&file| file.into()).collect(),
        manifest: None,
        connection,
    }
}

fn open_in(task: &HttpTask, mounts: &Mounts) -> Result<Remote<Http>, StorageError> {
    let (retry, timeouts) = testing::impatience();
    Http::open_with(task, mounts, retry, timeouts)
}

fn open(task: &HttpTask) -> Remote<Http> {
    open_in(task, &Mounts::default()).unwrap()
}

fn entry() -> Entry {
    Entry { path: "a b/file".into(), size: 10, version: "\"e\"".into(), checksum: None, content: None }
}

/// A good server: heads, ranges, whole files.
fn good(head: &str) -> Answer {
    if head.starts_with("HEAD") {
        return Answer::Send(
            format!("HTTP/1.1 200 X\r\nconnection: close\r\ncontent-length: 10\r\n{HEADERS}\r\n").into(),
        );
    }
    testing::part(head, HEADERS)
}

/// The same without support for ranges.
fn whole(head: &str) -> Answer {
    if head.starts_with("HEAD") { good(head) } else { response(200, HEADERS, testing::CONTENT) }
}

#[tokio::test]
async fn faults_are_survived_or_named() {
    let faults = testing::Faults {
        open: &|url| Box::new(open(&task(url, &["a b/file"]))),
        entry: entry(),
        headers: HEADERS,
        aside: |_| None,
        stored: false,
        in_sequence: true,
    };
    faults.hold().await;
}

#[tokio::test]
async fn files_are_listed_and_read() {
    let server = Server::start(|_, head| good(head));
    let storage = open(&task(&server.url(), &["x.bin", "a b/file"]));
    let listing = storage.list().await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a b/file", "x.bin"]);
    assert_eq!((listing.entries[0].size, listing.entries[0].version.as_str()), (10, "\"e\""));
    assert!(!storage.in_sequence());
    assert_eq!(testing::read(&storage, &entry(), 3..7).await.unwrap(), b"3456");
    let head = server.heads().pop().unwrap();
    assert!(head.starts_with("GET /models/a%20b/file HTTP/1.1\r\n") && head.contains("range: bytes=3-6\r\n"), "{head}");
    let single = open(&task(&server.url(), &[]));
    assert_eq!(single.list().await.unwrap().entries[0].path, "models");
    assert_eq!(testing::read(&single, &Entry { path: "models".into(), ..entry() }, 0..10).await.unwrap().len(), 10);
}

#[tokio::test]
async fn servers_without_ranges_are_read_in_sequence() {
    let server = Server::start(|number, head| match number {
        // Head, probe, a whole body that breaks off, and the rest of it from the beginning.
        3 => Answer::Send(testing::cut(whole(head), 5)),
        _ => whole(head),
    });
    let storage = open(&task(&server.url(), &["a b/file"]));
    let listing = storage.list().await.unwrap();
    assert!(storage.in_sequence());
    assert_eq!(testing::read(&storage, &listing.entries[0], 0..10).await.unwrap(), b"0123456789");
    assert_eq!(testing::read(&storage, &listing.entries[0], 3..5).await.unwrap(), b"34");
    // Ranges were asked for once, to know.
    assert_eq!((server.requests(), server.ranges().len()), (5, 1));
    // Whoever learns it only while reading manages too.
    let late = open(&task(&server.url(), &["a b/file"]));
    assert_eq!(testing::read(&late, &listing.entries[0], 3..5).await.unwrap(), b"34");
}

#[tokio::test]
async fn servers_without_heads_are_asked_for_a_byte() {
    for status in [405, 403] {
        let server =
            Server::start(move |_, head| if head.starts_with("HEAD") { response(status, "", "") } else { good(head) });
        let listing = open(&task(&server.url(), &["x"])).list().await.unwrap();
        assert_eq!(listing.entries[0].size, 10, "{status}");
    }
    let lengthless = Server::start(|_, head| {
        if head.starts_with("HEAD") {
            Answer::Send(b"HTTP/1.1 200 X\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n".into())
        } else {
            good(head)
        }
    });
    assert_eq!(open(&task(&lengthless.url(), &["x"])).list().await.unwrap().entries[0].size, 10);
}

#[tokio::test]
async fn listings_fail_with_the_right_reason() {
    type Make = fn(&str) -> Answer;
    let table: &[(Make, Reason, &str)] = &[
        (|_| response(404, "", ""), Reason::NotFound, "there is no x.bin at"),
        (|_| response(401, "", ""), Reason::AccessDenied, "storage.http.credentials.secretRef"),
        (|_| response(403, "", ""), Reason::AccessDenied, "(403)"),
        (|_| response(500, "", ""), Reason::Unreachable, "500"),
        (|_| response(400, "", ""), Reason::InvalidSpec, "400"),
        (|_| response(302, "", ""), Reason::InvalidSpec, "302"),
        (|_| response(302, "location: /x\r\n", ""), Reason::Unreachable, "redirects more than"),
        (|_| response(302, "location: http://169.254.169.254/x\r\n", ""), Reason::Unreachable, "cannot be asked"),
        (|_| response(302, "location: file:///etc/passwd\r\n", ""), Reason::Unreachable, "cannot be asked"),
        (
            |_| Answer::Send(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\ncontent-encoding: gzip\r\n\r\n".into()),
            Reason::InvalidSpec,
            "does not say how long",
        ),
        (
            |_| response(200, "content-type: text/html; charset=utf-8\r\n", "<!DOCTYPE html>canary"),
            Reason::InvalidSpec,
            "a web page when it is asked for x.bin: check url and path of storage.http",
        ),
    ];
    for (make, reason, expected) in table {
        let make = *make;
        let server = Server::start(move |_, head| make(head));
        let error = open(&task(&server.url(), &["x.bin"])).list().await.unwrap_err();
        assert_eq!(error.reason(), *reason, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn pages_are_files_when_they_are_asked_for_and_files_no_pages_for_their_type() {
    let page = Server::start(|_, _| response(200, "content-type: text/html\r\n", "<html>a card"));
    assert_eq!(open(&task(&page.url(), &["card.html"])).list().await.unwrap().entries[0].size, 12);
    // Frameworks for pages call everything one that they are told no type of.
    let typeless = Server::start(|_, _| response(200, "content-type: text/html\r\n", testing::CONTENT));
    assert_eq!(open(&task(&typeless.url(), &["x.bin"])).list().await.unwrap().entries[0].size, 10);
}

#[tokio::test]
async fn a_file_that_is_replaced_is_noticed() {
    for headers in ["etag: \"f\"\r\n", "etag: W/\"e\"\r\n"] {
        let server = Server::start(move |_, head| testing::part(head, headers));
        let error = testing::read(&open(&task(&server.url(), &[])), &entry(), 1..4).await.unwrap_err();
        assert_eq!((error.reason(), server.requests()), (Reason::SourceChanged, 1), "{headers}: {error}");
    }
    // Dates are compared with dates; a tag that comes and goes is none.
    let dated = Entry { version: "Mon, 01 Jan 2024 00:00:00 GMT".into(), ..entry() };
    for (date, changed) in [("Mon, 01 Jan 2024 00:00:00 GMT", false), ("Tue, 02 Jan 2024 00:00:00 GMT", true)] {
        let server =
            Server::start(move |_, head| testing::part(head, &format!("last-modified: {date}\r\netag: \"e\"\r\n")));
        let read = testing::read(&open(&task(&server.url(), &[])), &dated, 1..4).await;
        assert_eq!(read.is_err(), changed, "{date}: {read:?}");
    }
    let longer = Server::start(|_, _| response(200, HEADERS, "0123456789a"));
    let error = testing::read(&open(&task(&longer.url(), &[])), &entry(), 0..10).await.unwrap_err();
    assert_eq!(error.reason(), Reason::SourceChanged, "{error}");
}

#[tokio::test]
async fn manifests_name_the_files() {
    let server = Server::start(|_, head| {
        if head.starts_with("GET /models/SHA256SUMS") && !head.contains("range:") {
            return response(200, "", &format!("{}  a b/file\n", "01".repeat(32)));
        }
        if head.contains("/gone") { response(404, "", "") } else { good(head) }
    });
    let named = HttpTask { manifest: Some("SHA256SUMS".into()), ..task(&server.url(), &[]) };
    let listing = open(&named).list().await.unwrap();
    let found: Vec<_> = listing.entries.iter().map(|entry| (entry.path.as_str(), entry.checksum)).collect();
    assert_eq!(found, [("SHA256SUMS", None), ("a b/file", Some(Checksum::Sha256([1; 32])))]);
    let missing = HttpTask { manifest: Some("gone".into()), ..named };
    let error = open(&missing).list().await.unwrap_err();
    assert!(matches!(&error, StorageError::NotFound(text) if text.contains("there is no gone at")), "{error}");
}

#[tokio::test]
async fn credentials_only_go_to_hosts_that_the_secret_lists() {
    let server = Server::start(|_, head| good(head));
    let mut task = task(&server.url(), &["x"]);
    task.connection.access = Access::Secret("web".into());
    for keys in
        [&[("token", "canary")][..], &[("username", "u"), ("password", "canary"), ("allowedHosts", "other.test")]]
    {
        let (_folder, mounts) = testing::secret(keys);
        let refused = open_in(&task, &mounts).err().unwrap();
        assert_eq!(refused.reason(), Reason::AccessDenied);
        let text = refused.to_string();
        assert!(text.contains("key allowedHosts of Secret web") && !text.contains("canary"), "{text}");
    }
    assert_eq!(server.requests(), 0);
    for (keys, header) in [
        (&[("token", "canary"), ("allowedHosts", "127.0.0.1")][..], "authorization: Bearer canary\r\n"),
        (
            &[("username", "u"), ("password", "p w:d"), ("allowedHosts", "127.0.0.1")],
            "authorization: Basic dTpwIHc6ZA==\r\n",
        ),
    ] {
        let (_folder, mounts) = testing::secret(keys);
        open_in(&task, &mounts).unwrap().list().await.unwrap();
        assert!(server.heads().pop().unwrap().contains(header), "{:?}", server.heads());
    }
    for (keys, part) in [
        (&[("username", "u"), ("allowedHosts", "127.0.0.1")][..], "has no key password"),
        (&[("allowedHosts", "127.0.0.1")], "has no key token, nor username"),
        (&[("username", "u:v"), ("password", "canary"), ("allowedHosts", "127.0.0.1")], "colon"),
        (&[("token", "can ary"), ("allowedHosts", "127.0.0.1")], "characters that such a key cannot have"),
    ] {
        let (_folder, mounts) = testing::secret(keys);
        let error = open_in(&task, &mounts).err().unwrap().to_string();
        assert!(error.contains(part) && !error.contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn redirects_carry_credentials_only_within_the_server() {
    let other = Server::start(|_, head| good(head));
    let elsewhere = format!("location: {}/x?signature=canary\r\n", other.url());
    let server = Server::start(move |_, head| match head.split(' ').nth(1) {
        Some("/models/x") => response(302, "location: /moved/x\r\n", ""),
        Some("/moved/x") => response(307, &elsewhere, ""),
        path => panic!("{path:?}"),
    });
    let mut task = task(&server.url(), &["x"]);
    task.connection.access = Access::Secret("web".into());
    let (_folder, mounts) = testing::secret(&[("token", "canary-token"), ("allowedHosts", "127.0.0.1")]);
    let storage = open_in(&task, &mounts).unwrap();
    storage.list().await.unwrap();
    assert_eq!(testing::read(&storage, &Entry { path: "x".into(), ..entry() }, 1..3).await.unwrap(), b"12");
    assert!(
        server.heads().iter().all(|head| head.contains("authorization: Bearer canary-token")),
        "{:?}",
        server.heads()
    );
    let heads = other.heads();
    // Even though the Secret lists this host, too: it is another server on another port.
    assert!(heads.len() == 3 && heads.iter().all(|head| !head.contains("authorization")), "{heads:?}");
    assert!(heads[2].contains("range: bytes=1-2\r\n"), "{heads:?}");
}

#[tokio::test]
async fn a_renewed_secret_is_used_after_a_refusal() {
    let server = Server::start(|_, head| if head.contains("Bearer new") { good(head) } else { response(401, "", "") });
    let mut task = task(&server.url(), &["x"]);
    task.connection.access = Access::Secret("web".into());
    let (folder, mounts) = testing::secret(&[("token", "old"), ("allowedHosts", "127.0.0.1")]);
    let storage = open_in(&task, &mounts).unwrap();
    assert_eq!(storage.list().await.unwrap_err().reason(), Reason::AccessDenied);
    std::fs::write(folder.path().join("token"), "new\n").unwrap();
    assert_eq!(storage.list().await.unwrap().entries.len(), 1);
}
