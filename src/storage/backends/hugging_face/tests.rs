//! The backend against a Hub that misbehaves on purpose.

use super::*;
use crate::{
    contract::{Access, Connection, Reason},
    storage::{
        Checksum, Storage,
        backends::remote::testing::{self, Answer, Server, response},
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn task(endpoint: &str) -> HuggingFaceTask {
    let connection = Connection {
        endpoint: Some(endpoint.into()),
        insecure: true,
        access: Access::Anonymous,
        ..Connection::default()
    };
    HuggingFaceTask {
        repository: "org/name".into(),
        dataset: false,
        revision: "refs/pr/1".into(),
        path: "sub".into(),
        connection,
    }
}

fn with_secret(endpoint: &str) -> HuggingFaceTask {
    let mut task = task(endpoint);
    task.connection.access = Access::Secret("hub".into());
    task
}

fn open_in(task: &HuggingFaceTask, mounts: &Mounts) -> Result<Remote<HuggingFace>, StorageError> {
    let (retry, timeouts) = testing::impatience();
    HuggingFace::open_with(task, mounts, retry, timeouts)
}

fn open(server: &Server) -> Remote<HuggingFace> {
    open_in(&task(&server.url()), &Mounts::default()).unwrap()
}

fn entry() -> Entry {
    Entry { path: "a b.bin".into(), size: 10, version: "oid".into(), checksum: None, content: None }
}

/// The answers to questions about the repository.
fn api(head: &str) -> Option<Answer> {
    let path = head.split(' ').nth(1)?;
    let tree = r#"[{"type": "directory", "path": "sub/x", "oid": "d", "size": 0},
        {"type": "file", "path": "sub/a b.bin", "size": 10, "oid": "oid"}]"#;
    if path == "/api/models/org/name/revision/refs%2Fpr%2F1" {
        Some(response(200, "", &format!(r#"{{"sha": "{COMMIT}", "private": false}}"#)))
    } else if path == format!("/api/models/org/name/tree/{COMMIT}/sub?recursive=true&expand=false") {
        Some(response(200, "", tree))
    } else {
        None
    }
}

/// A storage that was listed.
fn listed(storage: Remote<HuggingFace>) -> Remote<HuggingFace> {
    std::thread::scope(|scope| {
        let list =
            || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(storage.list());
        scope.spawn(list).join().unwrap().unwrap();
    });
    storage
}

#[tokio::test]
async fn faults_are_survived_or_named() {
    let faults = testing::Faults {
        open: &|url| Box::new(listed(open_in(&task(url), &Mounts::default()).unwrap())),
        entry: entry(),
        headers: "",
        aside: api,
        stored: false,
        in_sequence: false,
    };
    faults.hold().await;
}

#[tokio::test]
async fn a_revision_is_pinned_to_its_commit() {
    let server = Server::start(|_, head| api(head).unwrap_or_else(|| testing::part(head, "")));
    let storage = open(&server);
    let listing = storage.list().await.unwrap();
    assert_eq!(listing.entries, [entry()]);
    assert_eq!(storage.uri(), "hf://org/name@refs/pr/1/sub");
    assert_eq!(testing::read(&storage, &entry(), 2..5).await.unwrap(), b"234");
    let heads = server.heads();
    assert!(heads[2].starts_with(&format!("GET /org/name/resolve/{COMMIT}/sub/a%20b.bin HTTP/1.1\r\n")), "{heads:?}");
    assert!(!format!("{heads:?}").contains("authorization"));
    // The branch is not looked up again: what was listed is what is read.
    storage.list().await.unwrap();
    assert_eq!(server.heads().iter().filter(|head| head.contains("/revision/")).count(), 1);

    let dataset = HuggingFaceTask { dataset: true, ..task(&server.url()) };
    let server = Server::start(|_, head| match head.split(' ').nth(1).unwrap() {
        path if path.starts_with("/api/datasets/org/name/revision/") => {
            response(200, "", &format!(r#"{{"sha": "{COMMIT}"}}"#))
        }
        path if path.starts_with("/api/datasets/") => {
            response(200, "", r#"[{"type": "file", "path": "sub/a b.bin", "size": 10}]"#)
        }
        path => {
            assert!(path.starts_with("/datasets/org/name/resolve/"), "{path}");
            testing::part(head, "")
        }
    });
    let connection = Connection { endpoint: Some(server.url()), ..dataset.connection.clone() };
    let storage = open_in(&HuggingFaceTask { connection, ..dataset }, &Mounts::default()).unwrap();
    storage.list().await.unwrap();
    assert_eq!(testing::read(&storage, &entry(), 0..1).await.unwrap(), b"0");
}

#[tokio::test]
async fn kinds_of_refusals_are_told_apart() {
    type Table<'a> = &'a [(u16, &'static str, bool, Reason, &'a str)];
    let table: Table<'_> = &[
        (401, "x-error-code: RepoNotFound\r\n", false, Reason::NotFound, "does not exist or is private"),
        (401, "", false, Reason::NotFound, "does not exist or is private"),
        (
            404,
            "x-error-code: RepoNotFound\r\n",
            true,
            Reason::NotFound,
            "not of those that the token of Secret hub may read",
        ),
        (
            401,
            "x-error-message: Invalid credentials in Authorization header\r\n",
            true,
            Reason::AccessDenied,
            "wrong, expired or revoked",
        ),
        (401, "", true, Reason::AccessDenied, "refuses the token of Secret hub"),
        (404, "x-error-code: RevisionNotFound\r\n", false, Reason::NotFound, "has no revision refs/pr/1"),
        (404, "x-error-code: EntryNotFound\r\n", false, Reason::NotFound, "no folder \"sub\""),
        (
            403,
            "x-error-code: GatedRepo\r\n",
            true,
            Reason::AccessDenied,
            "is gated (403 GatedRepo): accept its conditions at http",
        ),
        (
            401,
            "x-error-code: GatedRepo\r\n",
            false,
            Reason::AccessDenied,
            "set storage.huggingFace.credentials.secretRef",
        ),
        (403, "x-error-code: DisabledRepo\r\n", false, Reason::AccessDenied, "was disabled"),
        (403, "x-error-code: canary\r\n", true, Reason::AccessDenied, "refuses the token of Secret hub"),
        (400, "", false, Reason::InvalidSpec, "may not be a Hub"),
        (429, "", false, Reason::Unreachable, "429"),
        (503, "", false, Reason::Unreachable, "503"),
        (200, "", false, Reason::InvalidSpec, "web page instead of the commit"),
    ];
    let (_folder, mounts) = testing::secret(&[("HF_TOKEN", "hf_canary"), ("allowedHosts", "127.0.0.1")]);
    for (status, headers, secret, reason, part) in table {
        let (status, headers) = (*status, *headers);
        let server = Server::start(move |_, _| response(status, headers, "<html>canary</html>"));
        let task = if *secret { with_secret(&server.url()) } else { task(&server.url()) };
        let error = open_in(&task, &mounts).unwrap().list().await.unwrap_err();
        assert_eq!(error.reason(), *reason, "{status} {headers}: {error}");
        assert!(
            error.to_string().contains(part) && !error.to_string().contains("canary"),
            "{status} {headers}: {error}"
        );
    }
    // The tree of a gated repository is public, its files are not.
    let server = Server::start(|_, head| api(head).unwrap_or_else(|| response(401, "x-error-code: GatedRepo\r\n", "")));
    let error = testing::read(&listed(open(&server)), &entry(), 0..1).await.unwrap_err();
    assert!(matches!(&error, StorageError::AccessDenied(text) if text.contains("is gated")), "{error}");
}

/// An answer of a tree with these files and a `Link` to this page.
fn page(names: &[&str], next: &str) -> Answer {
    let item = |name: &&str| {
        let oid = "01".repeat(32);
        format!(
            r#"{{"type": "file", "path": "sub/{name}", "size": 1, "oid": "p", "lfs": {{"oid": "{oid}", "size": 7}}}}"#
        )
    };
    let items: Vec<String> = names.iter().map(item).collect();
    let link = if next.is_empty() { String::new() } else { format!("link: <{next}>; rel=\"next\"\r\n") };
    response(200, &link, &format!("[{}]", items.join(",")))
}

#[tokio::test]
async fn pages_are_followed_on_the_same_server_only() {
    let server = Server::start(|_, head| match head {
        head if head.contains("cursor=2") => page(&["a"], ""),
        head if head.contains("/tree/") => page(&["b"], "/api/models/org/name/tree/x?cursor=2"),
        head => api(head).unwrap(),
    });
    let listing = open(&server).list().await.unwrap();
    let found: Vec<_> = listing.entries.iter().map(|entry| (entry.path.as_str(), entry.size, entry.checksum)).collect();
    assert_eq!(found, [("a", 7, Some(Checksum::Sha256([1; 32]))), ("b", 7, Some(Checksum::Sha256([1; 32])))]);

    let other = Server::start(|_, _| page(&["canary"], ""));
    let elsewhere = other.url();
    let server = Server::start(move |_, head| match head {
        head if head.contains("/tree/") => page(&["b"], &format!("{elsewhere}/x")),
        head => api(head).unwrap(),
    });
    let error = open(&server).list().await.unwrap_err();
    assert_eq!((error.reason(), other.requests()), (Reason::Unreachable, 0), "{error}");

    let looped = Server::start(|number, head| match head {
        head if head.contains("/tree/") => page(&[], &format!("/tree/?cursor={}", number % 2)),
        head => api(head).unwrap(),
    });
    let error = open(&looped).list().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error}");
}

#[tokio::test]
async fn tokens_only_go_to_hosts_that_the_secret_lists() {
    let server = Server::start(|_, head| api(head).unwrap());
    for keys in [&[("HF_TOKEN", "hf_canary")][..], &[("token", "hf_canary"), ("allowedHosts", "mirror.test")]] {
        let (_folder, mounts) = testing::secret(keys);
        let refused = open_in(&with_secret(&server.url()), &mounts).err().unwrap();
        assert_eq!(refused.reason(), Reason::AccessDenied);
        let text = refused.to_string();
        assert!(text.contains("allowedHosts of Secret hub") && !text.contains("canary"), "{text}");
    }
    assert_eq!(server.requests(), 0);
    let (_folder, mounts) = testing::secret(&[("token", "hf_canary\n"), ("allowedHosts", &server.address.to_string())]);
    open_in(&with_secret(&server.url()), &mounts).unwrap().list().await.unwrap();
    assert!(
        server.heads().iter().all(|head| head.contains("authorization: Bearer hf_canary\r\n")),
        "{:?}",
        server.heads()
    );
    let (_folder, mounts) = testing::secret(&[("allowedHosts", "127.0.0.1")]);
    let missing = open_in(&with_secret(&server.url()), &mounts).err().unwrap();
    assert_eq!(missing.to_string(), "Secret hub has no key HF_TOKEN, nor token");
}

#[tokio::test]
async fn signed_addresses_get_no_token_and_are_kept() {
    let store = Server::start(|number, head| match number {
        // The signature has ended.
        3 => response(403, "", "canary"),
        _ => testing::part(head, ""),
    });
    let signed = format!("location: {}/blob?signature=canary\r\n", store.url());
    let server = Server::start_beside(api, move |_, _| response(302, &signed, ""));
    let (_folder, mounts) = testing::secret(&[("HF_TOKEN", "hf_canary"), ("allowedHosts", "127.0.0.1")]);
    let storage = listed(open_in(&with_secret(&server.url()), &mounts).unwrap());
    assert_eq!(testing::read(&storage, &entry(), 0..4).await.unwrap(), b"0123");
    assert_eq!(testing::read(&storage, &entry(), 4..8).await.unwrap(), b"4567");
    assert_eq!((server.requests(), store.requests()), (1, 2));
    assert_eq!(testing::read(&storage, &entry(), 8..10).await.unwrap(), b"89");
    assert_eq!((server.requests(), store.requests()), (2, 4));
    assert!(server.heads().iter().all(|head| head.contains("authorization: Bearer hf_canary")));
    assert!(store.heads().iter().all(|head| !head.contains("authorization") && head.contains("range:")));
    // A store that is busy is asked again at its new address.
    let busy = Server::start(|_, _| response(503, "", "canary"));
    let signed = format!("location: {}/blob?signature=canary\r\n", busy.url());
    let server = Server::start_beside(api, move |_, _| response(302, &signed, ""));
    let error = testing::read(&listed(open(&server)), &entry(), 0..4).await.unwrap_err();
    assert_eq!((error.reason(), busy.requests()), (Reason::Unreachable, 3), "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn redirects_within_the_hub_keep_the_token() {
    let server = Server::start(|_, head| match head.split(' ').nth(1).unwrap() {
        path if path.starts_with("/api/models/org/name/") => {
            response(307, &format!("location: {}\r\n", path.replace("/org/name/", "/org/renamed/")), "")
        }
        path if path.starts_with("/api/models/org/renamed/") => {
            api(&head.replace("/org/renamed/", "/org/name/")).unwrap()
        }
        path if path.starts_with("/org/name/resolve/") => {
            response(307, "location: /api/resolve-cache/x?etag=1\r\n", "")
        }
        "/api/resolve-cache/x?etag=1" => testing::part(head, ""),
        path if path.starts_with("/loop") => response(307, "location: /loop\r\n", ""),
        path => panic!("{path}"),
    });
    let (_folder, mounts) = testing::secret(&[("HF_TOKEN", "hf_canary"), ("allowedHosts", "127.0.0.1")]);
    let storage = open_in(&with_secret(&server.url()), &mounts).unwrap();
    storage.list().await.unwrap();
    assert_eq!(testing::read(&storage, &entry(), 4..6).await.unwrap(), b"45");
    assert!(server.heads().iter().all(|head| head.contains("authorization: Bearer hf_canary")), "{:?}", server.heads());
    let looped = Server::start_beside(api, |_, _| response(302, "location: /loop\r\n", ""));
    let error = testing::read(&listed(open(&looped)), &entry(), 4..6).await.unwrap_err();
    assert!(error.to_string().contains("redirects more than 5 times"), "{error}");
}

/// Mounts of a laptop with these variables.
fn laptop(variables: &[(&str, &str)]) -> Mounts {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Mounts { person: Some(Person::of(&environment)), ..Mounts::default() }
}

/// A task that names no server.
fn unnamed() -> HuggingFaceTask {
    HuggingFaceTask { connection: Connection { endpoint: None, ..task("x").connection }, ..task("x") }
}

#[tokio::test]
async fn a_persons_token_goes_to_the_hub_and_to_the_server_that_they_named() {
    let sent = |server: &Server| server.heads().iter().filter(|head| head.contains("hf_canary")).count();
    let server = Server::start(|_, head| api(head).unwrap());
    let url = server.url();
    let mirrored = laptop(&[("HF_TOKEN", "hf_canary"), ("HF_ENDPOINT", &url)]);
    for task in [unnamed(), task(&url)] {
        open_in(&task, &mirrored).unwrap().list().await.unwrap();
    }
    assert_eq!((server.requests(), sent(&server)), (4, 4), "{:?}", server.heads());
    // A server that only the spec names is read like everybody reads it.
    let other = Server::start(|_, head| api(head).unwrap());
    for mounts in [&mirrored, &laptop(&[("HF_TOKEN", "hf_canary")]), &laptop(&[]), &Mounts::default()] {
        open_in(&task(&other.url()), mounts).unwrap().list().await.unwrap();
    }
    assert_eq!((other.requests(), sent(&other)), (8, 0), "{:?}", other.heads());
    // A Secret's token on a laptop: the server that the person named is as good as one that the Secret lists.
    let (_folder, secret) = testing::secret(&[("HF_TOKEN", "hf_canary_secret")]);
    let mounts = Mounts { credentials: secret.credentials, ..laptop(&[("HF_ENDPOINT", &url)]) };
    let mut named = unnamed();
    named.connection.access = Access::Secret("hub".into());
    open_in(&named, &mounts).unwrap().list().await.unwrap();
    assert_eq!((server.requests(), sent(&server)), (6, 6));
    assert_eq!(open_in(&with_secret(&other.url()), &mounts).err().unwrap().reason(), Reason::AccessDenied);

    let hub = Url::parse(SERVER).unwrap();
    for (mounts, expected) in [(&mirrored, Some("hf_canary")), (&laptop(&[]), None), (&Mounts::default(), None)] {
        let (reader, _) = Reader::open(&Access::Anonymous, mounts, &hub).unwrap();
        assert_eq!(reader.token().unwrap().as_deref(), expected);
    }
    for (endpoint, reason, part) in [
        ("https://u:canary@mirror.test", Reason::InvalidSpec, "HF_ENDPOINT is not an address"),
        ("mirror.test", Reason::InvalidSpec, "HF_ENDPOINT is not an address"),
        ("http://mirror.test", Reason::InsecureEndpoint, "http://mirror.test is not encrypted"),
    ] {
        let mut task = unnamed();
        task.connection.insecure = false;
        let error = open_in(&task, &laptop(&[("HF_ENDPOINT", endpoint)])).err().unwrap();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(part) && !error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn refusals_say_whose_token_it_was() {
    let refuse = |status, code: &'static str| Server::start(move |_, _| response(status, code, "canary"));
    for (status, code, withheld, reason, part) in [
        (401, "", false, Reason::AccessDenied, "refuses your own token (HF_TOKEN, or that of your login)"),
        (404, "x-error-code: RepoNotFound\r\n", false, Reason::NotFound, "not of those that your own token"),
        (403, "x-error-code: GatedRepo\r\n", false, Reason::AccessDenied, "and let your own token"),
        (
            401,
            "",
            true,
            Reason::NotFound,
            "your own token is only sent to the Hub itself, and to the server that HF_ENDPOINT",
        ),
        (401, "x-error-code: GatedRepo\r\n", true, Reason::AccessDenied, "your own token is only sent to the Hub"),
    ] {
        let server = refuse(status, code);
        let url = server.url();
        let endpoint = if withheld { "https://elsewhere.test" } else { url.as_str() };
        let mounts = laptop(&[("HF_TOKEN", "hf_canary"), ("HF_ENDPOINT", endpoint)]);
        let error = open_in(&task(&url), &mounts).unwrap().list().await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(error.to_string().contains(part) && !error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn a_renewed_token_is_used_after_a_refusal() {
    let server = Server::start(|_, head| {
        let invalid = "x-error-message: Invalid credentials in Authorization header\r\n";
        if head.contains("Bearer hf_new") { api(head).unwrap() } else { response(401, invalid, "") }
    });
    let url = server.url();
    let (folder, secret) = testing::secret(&[("HF_TOKEN", "hf_old"), ("allowedHosts", "127.0.0.1")]);
    let file = folder.path().join("HF_TOKEN").display().to_string();
    let person = laptop(&[("HF_TOKEN_PATH", &file), ("HF_ENDPOINT", &url)]);
    for (task, mounts) in [(with_secret(&url), secret), (task(&url), person)] {
        std::fs::write(&file, "hf_old").unwrap();
        let before = server.requests();
        let storage = open_in(&task, &mounts).unwrap();
        let error = storage.list().await.unwrap_err();
        assert_eq!((error.reason(), server.requests() - before), (Reason::AccessDenied, 1), "{error}");
        std::fs::write(&file, "hf_new\n").unwrap();
        storage.list().await.unwrap();
        assert_eq!(server.requests() - before, 4);
    }
}
