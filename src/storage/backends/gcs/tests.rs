//! The backend against a server that misbehaves on purpose. The key of the fixture was made for these tests and opens nothing.

use super::*;
use crate::{
    contract::{Access, Connection, Reason},
    storage::{
        Storage,
        backends::remote::testing::{self, Answer, Server, response},
    },
};

const KEY: &str = include_str!("fixtures/service-account.json");
const HEADERS: &str = "x-goog-generation: 7\r\n";

fn task(endpoint: &str) -> GcsTask {
    let connection = Connection {
        endpoint: Some(endpoint.into()),
        insecure: true,
        access: Access::Anonymous,
        ..Connection::default()
    };
    GcsTask { bucket: "training".into(), path: "run/step-1".into(), connection }
}

fn with_access(endpoint: &str, access: Access) -> GcsTask {
    let mut task = task(endpoint);
    task.connection.access = access;
    task
}

fn open_in(task: &GcsTask, mounts: &Mounts) -> Result<Remote<Gcs>, StorageError> {
    let (retry, timeouts) = testing::impatience();
    Gcs::open_with(task, mounts, retry, timeouts)
}

fn open(server: &Server) -> Remote<Gcs> {
    open_in(&task(&server.url()), &Mounts::default()).unwrap()
}

fn entry() -> Entry {
    Entry { path: "a/file".into(), size: 10, version: "7".into(), checksum: None, content: None }
}

fn error(status: u16, reason: &str) -> Answer {
    let body = format!(r#"{{"error": {{"message": "canary", "errors": [{{"reason": "{reason}"}}]}}}}"#);
    response(status, "", &body)
}

fn page(names: &[&str], next: &str) -> Answer {
    let item = |name: &&str| format!(r#"{{"name": "{name}", "size": "10", "generation": "7", "crc32c": "yZRlqg=="}}"#);
    let items: Vec<String> = names.iter().map(item).collect();
    response(200, "", &format!(r#"{{"items": [{}], "nextPageToken": "{next}"}}"#, items.join(",")))
}

#[tokio::test]
async fn faults_are_survived_or_named() {
    let faults = testing::Faults {
        open: &|url| Box::new(open_in(&task(url), &Mounts::default()).unwrap()),
        entry: entry(),
        headers: HEADERS,
        aside: |_| None,
        stored: true,
        in_sequence: false,
    };
    faults.hold().await;
}

#[tokio::test]
async fn a_range_is_read_pinned_to_its_generation() {
    let server = Server::start(|_, head| testing::part(head, "content-encoding: gzip\r\nx-goog-generation: 7\r\n"));
    assert_eq!(testing::read(&open(&server), &entry(), 2..7).await.unwrap(), b"23456");
    let head = server.heads().remove(0);
    let line = "GET /storage/v1/b/training/o/run%2Fstep-1%2Fa%2Ffile?alt=media&ifGenerationMatch=7 HTTP/1.1\r\n";
    assert!(head.starts_with(line) && head.contains("accept-encoding: gzip\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    for make in [|_: &str| error(412, "conditionNotMet"), |head: &str| testing::part(head, "x-goog-generation: 8\r\n")]
    {
        let server = Server::start(move |_, head| make(head));
        let error = testing::read(&open(&server), &entry(), 2..7).await.unwrap_err();
        assert_eq!((error.reason(), server.requests()), (Reason::SourceChanged, 1), "{error}");
    }
}

#[tokio::test]
async fn listings_fail_with_the_right_reason() {
    type Make = fn(&str) -> Answer;
    let table: &[(Make, Reason, &str)] = &[
        (|_| error(404, "notFound"), Reason::NotFound, "no bucket training"),
        (|_| error(401, "required"), Reason::AccessDenied, "make the bucket public"),
        (|_| error(403, "forbidden"), Reason::AccessDenied, "(403 forbidden)"),
        (|_| error(403, "rateLimitExceeded"), Reason::Unreachable, "403 rateLimitExceeded"),
        (|_| error(400, "canary"), Reason::InvalidSpec, "may not be a server of Google"),
        (|_| error(503, "backendError"), Reason::Unreachable, "503 backendError"),
        (|_| response(302, "location: http://canary.test/\r\n", ""), Reason::InvalidSpec, "302"),
        (
            |_| response(200, "", "<!DOCTYPE html>canary"),
            Reason::InvalidSpec,
            "web page instead of a listing of a bucket",
        ),
        (|_| response(200, "content-type: text/html\r\n", "canary"), Reason::InvalidSpec, "check storage.gcs.endpoint"),
        (|_| response(200, "", "canary"), Reason::Unreachable, "not a listing of a bucket: check storage.gcs.endpoint"),
        (|_| response(404, "", "<html>canary</html>"), Reason::NotFound, "no server of Google"),
        (|_| response(200, "", "{}"), Reason::NotFound, "begins with run/step-1/"),
        (|_| page(&["run/step-1/a"], "t"), Reason::Unreachable, "goes on"),
        (
            |head| page(if head.contains("prefix=run%2Fstep-1%2F") { &[] } else { &["run/step-1"] }, ""),
            Reason::InvalidPath,
            "single object",
        ),
        (|_| page(&["run/step-1/../x"], ""), Reason::InvalidPath, "cannot be a file"),
    ];
    for (make, reason, expected) in table {
        let make = *make;
        let server = Server::start(move |_, head| make(head));
        let error = open(&server).list().await.unwrap_err();
        assert_eq!(error.reason(), *reason, "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn pages_are_followed() {
    let server = Server::start(|_, head| {
        if head.contains("pageToken=a%2F%2B") {
            page(&["run/step-1/a b+%"], "")
        } else {
            page(&["run/step-1/z"], "a/+")
        }
    });
    let listing = open(&server).list().await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a b+%", "z"]);
    assert_eq!(listing.entries[0].checksum, Some(Checksum::Crc32C(0xC994_65AA)));
    assert_eq!((listing.entries[0].version.as_str(), listing.entries[0].size), ("7", 10));
}

#[tokio::test]
async fn tokens_only_go_where_they_may() {
    let server = Server::start(|_, _| page(&["run/step-1/a"], ""));
    let secret = Access::Secret("gcs".into());
    let (_folder, mounts) = testing::secret(&[("service-account.json", KEY)]);
    let refused = open_in(&with_access(&server.url(), secret.clone()), &mounts).err().unwrap();
    assert_eq!(refused.reason(), Reason::AccessDenied);
    assert!(refused.to_string().contains("allowedHosts of Secret gcs"), "{refused}");
    // Not even the identity of the pod is asked for.
    let refused = open_in(&with_access(&server.url(), Access::Ambient), &mounts).err().unwrap();
    assert!(refused.to_string().contains("only sent to Google's own hosts"), "{refused}");
    assert_eq!(server.requests(), 0);

    let (_folder, mounts) = testing::secret(&[("key.json", KEY), ("allowedHosts", &server.address.to_string())]);
    open_in(&with_access(&server.url(), secret), &mounts).unwrap().list().await.unwrap();
    assert!(server.heads()[0].contains("authorization: Bearer ey"), "{}", server.heads()[0]);
}

#[tokio::test]
async fn what_is_wrong_with_a_secret_is_said_without_its_content() {
    let own = GcsTask { connection: Connection { endpoint: None, ..task("x").connection }, ..task("x") };
    let own = GcsTask { connection: Connection { access: Access::Secret("gcs".into()), ..own.connection }, ..own };
    for (keys, part) in [
        (&[][..], "has none of the keys service-account.json, key.json"),
        (&[("allowedHosts", "h")], "has no key service-account.json, nor key.json"),
        (
            &[("key.json", "canary")],
            "key key.json of Secret gcs is not the key file of a service account: it is no JSON",
        ),
        (&[("service-account.json", "eyJjYW5hcnkiOiAxfQ==")], "key service-account.json of Secret gcs"),
        (&[("key.json", r#"["canary"]"#)], "it is no JSON object"),
        (&[("key.json", r#"{"private_key_id": "canary", "client_email": "canary"}"#)], "it has no private_key;"),
        (&[("key.json", r#"{"private_key": "canary", "client_email": "canary"}"#)], "it has no private_key_id"),
        (&[("key.json", r#"{"private_key": "canary", "private_key_id": "canary"}"#)], "it has no client_email"),
        (&[("key.json", r#"{"type": "authorized_user", "refresh_token": "canary"}"#)], "its type is authorized_user"),
        (&[("key.json", r#"{"type": "canary"}"#)], "its type is not service_account"),
        (
            &[("key.json", r#"{"private_key": "canary", "private_key_id": "canary", "client_email": "canary"}"#)],
            "its private_key is no PEM of an RSA key",
        ),
        (&[("key.json", &KEY.replace("MII", "canary"))], "its private_key is no PEM of an RSA key"),
    ] {
        let (_folder, mounts) = testing::secret(keys);
        let error = open_in(&own, &mounts).err().unwrap();
        assert_eq!(error.reason(), Reason::AccessDenied, "{error}");
        let text = error.to_string();
        assert!(text.contains(part) && text.contains("Secret gcs") && !text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn a_renewed_key_is_used_after_a_refusal() {
    use std::sync::{Arc, Mutex};
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let server = Server::start(move |_, head| {
        let sent = head.lines().find(|line| line.starts_with("authorization")).unwrap().to_owned();
        let mut first = first.lock().unwrap();
        let old = first.get_or_insert_with(|| sent.clone());
        if *old == sent { error(401, "authError") } else { page(&["run/step-1/a"], "") }
    });
    let (folder, mounts) = testing::secret(&[("key.json", KEY), ("allowedHosts", "127.0.0.1")]);
    let storage = open_in(&with_access(&server.url(), Access::Secret("gcs".into())), &mounts).unwrap();
    let error = storage.list().await.unwrap_err();
    assert_eq!((error.reason(), server.requests()), (Reason::AccessDenied, 1), "{error}");
    std::fs::write(folder.path().join("key.json"), KEY.replace("made-for-tests", "another")).unwrap();
    storage.list().await.unwrap();
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn certificates_are_checked() {
    let server = Server::start_tls(|_, _| page(&["run/step-1/a"], ""));
    let unknown = open(&server).list().await.unwrap_err();
    assert!(matches!(&unknown, StorageError::Tls(text) if text.contains("storage.gcs.caBundle")), "{unknown}");
    let (folder, mounts) = testing::secret(&[]);
    let mounts = Mounts { ca: folder.path().join("ca.crt"), ..mounts };
    std::fs::write(&mounts.ca, testing::CA).unwrap();
    let mut task = task(&server.url());
    task.connection.ca = Some("gcs-ca/ca.crt".into());
    assert_eq!(open_in(&task, &mounts).unwrap().list().await.unwrap().entries.len(), 1);
}
