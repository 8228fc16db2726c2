//! The backend against a server that misbehaves on purpose.

use std::collections::BTreeMap;

use super::*;
use crate::{
    contract::{Access, Connection, Reason},
    storage::{
        Checksum, Storage,
        backends::remote::testing::{self, Answer, Server, response},
    },
};

const HEADERS: &str = "etag: \"0x1\"\r\n";
/// Base64 of `canary`, as a key and as a signature.
const CANARY: &str = "Y2FuYXJ5";

fn task(endpoint: &str, access: Access) -> AzureTask {
    let connection = Connection { endpoint: Some(endpoint.into()), insecure: true, access, ..Connection::default() };
    AzureTask { account: "acct".into(), container: "training".into(), path: "run/step-1".into(), connection }
}

fn open_in(task: &AzureTask, mounts: &Mounts) -> Result<Remote<Azure>, StorageError> {
    let (retry, timeouts) = testing::impatience();
    Azure::open_with(task, mounts, retry, timeouts)
}

fn open(server: &Server) -> Remote<Azure> {
    open_in(&task(&server.url(), Access::Anonymous), &Mounts::default()).unwrap()
}

fn entry() -> Entry {
    Entry { path: "a b/file".into(), size: 10, version: "\"0x1\"".into(), checksum: None, content: None }
}

fn error(status: u16, code: &str) -> Answer {
    response(status, &format!("x-ms-error-code: {code}\r\n"), "<Error><Code>canary</Code></Error>")
}

fn page(names: &[&str], next: &str) -> Answer {
    let blob = |name: &&str| {
        format!(
            "<Blob><Name>{name}</Name><Properties><Etag>0x1</Etag><Content-Length>10</Content-Length>\
             <Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5></Properties></Blob>"
        )
    };
    let blobs: String = names.iter().map(blob).collect();
    let body = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>{blobs}</Blobs>\
         <NextMarker>{next}</NextMarker></EnumerationResults>"
    );
    response(200, "", &body)
}

#[tokio::test]
async fn faults_are_survived_or_named() {
    let faults = testing::Faults {
        open: &|url| Box::new(open_in(&task(url, Access::Anonymous), &Mounts::default()).unwrap()),
        entry: entry(),
        headers: HEADERS,
        aside: |_| None,
        stored: false,
        in_sequence: false,
    };
    faults.hold().await;
}

#[tokio::test]
async fn a_range_is_read_pinned_to_its_version() {
    let server = Server::start(|_, head| testing::part(head, HEADERS));
    assert_eq!(testing::read(&open(&server), &entry(), 2..7).await.unwrap(), b"23456");
    let head = server.heads().remove(0);
    assert!(head.starts_with("GET /acct/training/run/step-1/a%20b/file HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("if-match: \"0x1\"\r\n") && head.contains("x-ms-version: 2023-11-03\r\n"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    for make in [|_: &str| error(412, "ConditionNotMet"), |head: &str| testing::part(head, "etag: \"0x2\"\r\n")] {
        let server = Server::start(move |_, head| make(head));
        let error = testing::read(&open(&server), &entry(), 2..7).await.unwrap_err();
        assert_eq!((error.reason(), server.requests()), (Reason::SourceChanged, 1), "{error}");
    }
    let server = Server::start(|_, _| error(409, "BlobArchived"));
    let error = testing::read(&open(&server), &entry(), 2..7).await.unwrap_err();
    assert!(error.to_string().contains("archived"), "{error}");
}

#[tokio::test]
async fn listings_fail_with_the_right_reason() {
    type Make = fn(&str) -> Answer;
    let table: &[(Make, Reason, &str)] = &[
        (|_| error(404, "ContainerNotFound"), Reason::NotFound, "or it is not public"),
        (|_| error(409, "PublicAccessNotPermitted"), Reason::AccessDenied, "without credentials"),
        (|_| error(409, "ContainerBeingDeleted"), Reason::NotFound, "being deleted"),
        (|_| error(403, "AuthorizationFailure"), Reason::AccessDenied, "(403 AuthorizationFailure)"),
        (|_| error(503, "ServerBusy"), Reason::Unreachable, "503 ServerBusy"),
        (|_| error(400, "canary"), Reason::InvalidSpec, "may not be a blob service"),
        (|_| response(307, "location: http://canary.test/\r\n", ""), Reason::InvalidSpec, "307"),
        (
            |_| response(200, "", "\n<HTML>canary</html>"),
            Reason::InvalidSpec,
            "web page instead of a listing of a container",
        ),
        (
            |_| response(200, "content-type: text/html\r\n", "canary"),
            Reason::InvalidSpec,
            "check storage.azure.endpoint",
        ),
        (
            |_| response(200, "", "canary"),
            Reason::Unreachable,
            "not a listing of a container: check storage.azure.endpoint",
        ),
        (|_| page(&[], ""), Reason::NotFound, "begins with run/step-1/"),
        (|_| page(&["run/step-1/a"], "t"), Reason::Unreachable, "goes on"),
        (
            |head| page(if head.contains("prefix=run%2Fstep-1%2F") { &[] } else { &["run/step-1"] }, ""),
            Reason::InvalidPath,
            "single blob",
        ),
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
        if head.contains("marker=2%218%2B") { page(&["run/step-1/a b+%"], "") } else { page(&["run/step-1/z"], "2!8+") }
    });
    let listing = open(&server).list().await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a b+%", "z"]);
    assert!(matches!(listing.entries[0].checksum, Some(Checksum::Md5(_))));
}

#[tokio::test]
async fn keys_sign_and_signatures_only_go_where_they_may() {
    let server = Server::start(|_, head| {
        if head.contains("comp=list") { page(&["run/step-1/a"], "") } else { testing::part(head, HEADERS) }
    });
    let task = task(&server.url(), Access::Secret("azure".into()));
    // A key signs and is not sent, so it may be used anywhere.
    let (_folder, mounts) = testing::secret(&[("AZURE_STORAGE_KEY", CANARY)]);
    open_in(&task, &mounts).unwrap().list().await.unwrap();
    testing::read(&open_in(&task, &mounts).unwrap(), &entry(), 1..2).await.unwrap();
    let heads = server.heads();
    assert!(heads.iter().all(|head| head.contains("authorization: SharedKey acct:")), "{heads:?}");
    assert!(!format!("{heads:?}").contains(CANARY));

    let sas = format!("?sv=2023-11-03&sp=rl&sig={CANARY}%3D");
    let (_folder, mounts) = testing::secret(&[("AZURE_STORAGE_SAS_TOKEN", &sas)]);
    let refused = open_in(&task, &mounts).err().unwrap();
    assert!(refused.to_string().contains("allowedHosts of Secret azure"), "{refused}");
    let client = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c"), ("AZURE_CLIENT_SECRET", CANARY)];
    let (_folder, mounts) = testing::secret(&client);
    assert_eq!(open_in(&task, &mounts).err().unwrap().reason(), Reason::AccessDenied);
    let ambient =
        AzureTask { connection: Connection { access: Access::Ambient, ..task.connection.clone() }, ..task.clone() };
    let refused = open_in(&ambient, &mounts).err().unwrap();
    assert!(refused.to_string().contains("only sent to Azure's own hosts"), "{refused}");
    assert_eq!(server.requests(), 2);

    let (_folder, mounts) = testing::secret(&[("AZURE_STORAGE_SAS_TOKEN", &sas), ("allowedHosts", "127.0.0.1")]);
    let storage = open_in(&task, &mounts).unwrap();
    storage.list().await.unwrap();
    assert!(server.heads()[2].contains(&format!("sig={CANARY}%3D")), "{}", server.heads()[2]);
    assert!(!storage.uri().contains(CANARY));
}

#[tokio::test]
async fn refusals_say_what_to_do_and_no_secret() {
    let (folder, mounts) = testing::secret(&[("AZURE_STORAGE_KEY", CANARY)]);
    for (code, part) in
        [("AuthenticationFailed", "renew the Secret"), ("AuthorizationPermissionMismatch", "Storage Blob Data Reader")]
    {
        let server = Server::start(move |_, _| error(403, code));
        let storage = open_in(&task(&server.url(), Access::Secret("azure".into())), &mounts).unwrap();
        let error = storage.list().await.unwrap_err();
        assert_eq!((error.reason(), server.requests()), (Reason::AccessDenied, 1), "{error}");
        assert!(error.to_string().contains(part) && error.to_string().contains("Secret azure"), "{error}");
    }
    let server =
        Server::start(
            |number, _| if number < 3 { error(403, "AuthenticationFailed") } else { page(&["run/step-1/a"], "") },
        );
    let storage = open_in(&task(&server.url(), Access::Secret("azure".into())), &mounts).unwrap();
    assert!(storage.list().await.is_err());
    std::fs::write(folder.path().join("AZURE_STORAGE_KEY"), "b3RoZXI=").unwrap();
    storage.list().await.unwrap();
    assert_eq!(server.requests(), 3);
    for (keys, part) in [
        (&[][..], "has none of the keys AZURE_STORAGE_KEY"),
        (&[("AZURE_STORAGE_KEY", "canary!")], "no key of a storage account: copy it, in base64"),
        (&[("AZURE_STORAGE_SAS_TOKEN", "canary"), ("allowedHosts", "127.0.0.1")], "no shared access signature"),
        (&[("AZURE_STORAGE_SAS_TOKEN", "sv=canary"), ("allowedHosts", "127.0.0.1")], "no shared access signature"),
        (&[("AZURE_CLIENT_ID", "canary"), ("allowedHosts", "127.0.0.1")], "has no key AZURE_TENANT_ID"),
        (&[("allowedHosts", "127.0.0.1")], "has neither AZURE_STORAGE_KEY"),
    ] {
        let (_folder, mounts) = testing::secret(keys);
        let error = open_in(&task(&server.url(), Access::Secret("azure".into())), &mounts).err().unwrap();
        assert_eq!(error.reason(), Reason::AccessDenied, "{error}");
        assert!(error.to_string().contains(part) && !error.to_string().contains("canary"), "{error}");
    }
}

/// The service account's token is changed for one of Azure at the server that the environment names.
#[tokio::test]
async fn workload_identity_asks_the_authority() {
    let authority = Server::start_tls(|number, _| match number {
        1 => response(400, "", r#"{"error": "invalid_client", "error_description": "canary"}"#),
        _ => response(200, "", r#"{"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"}"#),
    });
    let (folder, mounts) =
        testing::secret(&[("token", "canary-federated"), ("ca.crt", std::str::from_utf8(testing::CA).unwrap())]);
    let token = folder.path().join("token").display().to_string();
    let url = authority.url();
    let identity = [
        ("AZURE_CLIENT_ID", "client"),
        ("AZURE_TENANT_ID", "tenant"),
        ("AZURE_FEDERATED_TOKEN_FILE", token.as_str()),
        ("AZURE_AUTHORITY_HOST", url.as_str()),
    ];
    let identity: BTreeMap<_, _> = identity.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mounts = Mounts { ca: folder.path().join("ca.crt"), identity, ..mounts };
    let connection = Connection { ca: Some("x/ca.crt".into()), ..Connection::default() };
    let task = AzureTask { connection, ..task("x", Access::Ambient) };
    let storage = open_in(&task, &mounts).unwrap();
    let refused = storage.list().await.unwrap_err();
    assert_eq!((refused.reason(), authority.requests()), (Reason::AccessDenied, 1), "{refused}");
    assert!(
        refused.to_string().contains("federated credential") && !refused.to_string().contains("canary"),
        "{refused}"
    );
    assert!(authority.heads()[0].starts_with("POST /tenant/oauth2/v2.0/token "), "{}", authority.heads()[0]);

    let nobody = open_in(&task, &Mounts { identity: BTreeMap::new(), ..mounts }).err().unwrap();
    assert!(nobody.to_string().contains("has no identity for Azure"), "{nobody}");
}
