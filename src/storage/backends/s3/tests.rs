//! The backend against a server that misbehaves on purpose.

use std::net::TcpListener;

use futures::TryStreamExt;

use super::*;
use crate::{
    contract::Reason,
    storage::{
        Storage,
        backends::remote::testing::{self, Answer, Server, response},
    },
};

fn error(status: u16, code: &str) -> Answer {
    response(status, "", &format!("<Error><Code>{code}</Code><Message>canary-body</Message></Error>"))
}

const HEADERS: &str = "etag: \"e\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n";

fn part(head: &str) -> Answer {
    testing::part(head, HEADERS)
}

fn open_at(server: &Server) -> Remote<S3> {
    open(&task(&server.url())).unwrap()
}

fn task(endpoint: &str) -> S3Task {
    S3Task {
        bucket: "training".into(),
        path: "run/step-1".into(),
        region: "us-east-1".into(),
        endpoint: Some(endpoint.into()),
        insecure: true,
        access: Access::Anonymous,
        ..S3Task::default()
    }
}

fn open(task: &S3Task) -> Result<Remote<S3>, StorageError> {
    open_in(task, &Mounts::default())
}

fn open_in(task: &S3Task, mounts: &Mounts) -> Result<Remote<S3>, StorageError> {
    let (retry, timeouts) = testing::impatience();
    S3::open_with(task, mounts, retry, timeouts)
}

fn entry() -> Entry {
    Entry { path: "file".into(), size: 10, version: "\"e\"".into(), checksum: None, content: None }
}

async fn read(storage: &Remote<S3>, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
    testing::read(storage, &entry(), range).await
}

#[tokio::test]
async fn faults_are_survived_or_named() {
    let faults = testing::Faults {
        open: &|url| Box::new(open(&task(url)).unwrap()),
        entry: entry(),
        headers: HEADERS,
        aside: |_| None,
        stored: true,
        in_sequence: false,
    };
    faults.hold().await;
}

#[tokio::test]
async fn a_range_is_read_pinned_to_its_version() {
    let server = Server::start(|_, head| part(head));
    assert_eq!(read(&open_at(&server), 2..7).await.unwrap(), b"23456");
    assert_eq!(read(&open_at(&server), 3..3).await.unwrap(), b"");
    assert_eq!(server.requests(), 1);
    let head = server.heads()[0].clone();
    assert!(head.starts_with("GET /training/run/step-1/file HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("if-match: \"e\"\r\n") && !head.contains("authorization"), "{head}");
}

#[tokio::test]
async fn a_whole_file_comes_with_its_checksum_and_goes_on_where_it_broke_off() {
    let server = Server::start(|number, head| match number {
        1 => error(503, "SlowDown"),
        2 => {
            assert!(head.contains("x-amz-checksum-mode: ENABLED\r\n") && !head.contains("range:"), "{head}");
            let sums = format!("{HEADERS}x-amz-checksum-crc32c: yZRlqg==\r\n");
            Answer::Send(testing::cut(response(200, &sums, "0123456789"), 4))
        }
        _ => part(head),
    });
    let (storage, entry) = (open_at(&server), entry());
    let (checksum, pieces) = storage.read_whole(&entry).await.unwrap();
    assert_eq!(checksum, Some(Checksum::Crc32C(0xC994_65AA)));
    assert_eq!(pieces.try_collect::<Vec<_>>().await.unwrap().concat(), b"0123456789");
    assert_eq!((server.requests(), storage.setbacks()), (3, 2));
    assert!(server.heads()[2].contains("range: bytes=6-9\r\n"), "{:?}", server.heads());
}

#[tokio::test]
async fn a_whole_file_that_is_another_by_now_is_told() {
    for answer in [
        response(200, "etag: \"f\"\r\n", "0123456789"),
        response(200, HEADERS, "012345678"),
        error(412, "PreconditionFailed"),
    ] {
        let answer = std::sync::Mutex::new(Some(answer));
        let server = Server::start(move |_, _| answer.lock().unwrap().take().unwrap());
        let (storage, entry) = (open_at(&server), entry());
        let Err(error) = storage.read_whole(&entry).await else { panic!("it is another file") };
        assert_eq!(error.reason(), Reason::SourceChanged, "{error}");
    }
}

#[tokio::test]
async fn checksums_are_asked_for_and_may_be_missing() {
    let asked = async |behaviour: fn(&str) -> Answer| {
        let server = Server::start(move |_, head| behaviour(head));
        let (storage, mut entry) = (open_at(&server), entry());
        entry.path = "ein +ü.bin".into();
        let windows = storage.checksums(&entry).await;
        (windows, server.heads()[0].clone())
    };
    let whole = |checksum| vec![Window { range: 0..10, checksum }];
    let (windows, head) =
        asked(|_| response(200, &format!("{HEADERS}x-amz-checksum-crc64nvme: rosUhgp5mIg=\r\n"), "")).await;
    assert_eq!(windows, whole(Checksum::Crc64Nvme(0xAE8B_1486_0A79_9888)));
    assert!(head.starts_with("HEAD /training/run/step-1/ein%20%2B%C3%BC.bin HTTP/1.1\r\n"), "{head}");
    let (windows, _) = asked(|head| {
        if head.starts_with("HEAD") {
            return response(200, &format!("{HEADERS}x-amz-checksum-type: COMPOSITE\r\n"), "");
        }
        assert!(head.contains("?attributes HTTP/1.1\r\n") && head.contains("ObjectParts\r\n"), "{head}");
        let part = |number, size| {
            format!("<Part><PartNumber>{number}</PartNumber><Size>{size}</Size><ChecksumCRC32>AAAAAA==</ChecksumCRC32></Part>")
        };
        // Two pages, of one part each.
        let (more, part) =
            if head.contains("marker: 1\r\n") { (false, part(2, 4)) } else { (true, part(1, 6)) };
        let parts = format!("<NextPartNumberMarker>1</NextPartNumberMarker><IsTruncated>{more}</IsTruncated>{part}");
        response(200, "", &format!("<GetObjectAttributesResponse><ObjectParts>{parts}</ObjectParts></GetObjectAttributesResponse>"))
    })
    .await;
    assert_eq!(windows.iter().map(|window| window.range.clone()).collect::<Vec<_>>(), [0..6, 6..10]);
    let nothing: [fn(&str) -> Answer; 4] = [
        |_| response(200, HEADERS, ""),
        |_| error(403, "AccessDenied"),
        |_| response(200, "etag: \"f\"\r\nx-amz-checksum-crc64nvme: rosUhgp5mIg=\r\n", ""),
        |head| {
            let composite = format!("{HEADERS}x-amz-checksum-type: COMPOSITE\r\n");
            if head.starts_with("HEAD") { response(200, &composite, "") } else { error(403, "AccessDenied") }
        },
    ];
    for answer in nothing {
        assert_eq!(asked(answer).await.0, []);
    }
}

#[tokio::test]
async fn reads_fail_with_the_right_reason() {
    type Make = fn(&str) -> Answer;
    let table: &[(Make, Reason, usize)] = &[
        (|_| error(403, "AccessDenied"), Reason::AccessDenied, 1),
        (|_| error(404, "NoSuchKey"), Reason::SourceChanged, 1),
        (|_| error(412, "PreconditionFailed"), Reason::SourceChanged, 1),
        (|_| error(500, "InternalError"), Reason::Unreachable, 3),
        (|_| error(503, "SlowDown"), Reason::Unreachable, 3),
        (|_| error(429, ""), Reason::Unreachable, 3),
        (|_| response(302, "location: http://169.254.169.254/\r\n", ""), Reason::InvalidSpec, 1),
        (
            |_| {
                Answer::Send(b"HTTP/1.1 206 X\r\ncontent-length: 9\r\ncontent-range: bytes 1-9/10\r\netag: \"f\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n123456789".into())
            },
            Reason::SourceChanged,
            1,
        ),
    ];
    for (number, (make, reason, requests)) in table.iter().enumerate() {
        let make = *make;
        let server = Server::start(move |_, head| make(head));
        let error = read(&open_at(&server), 1..10).await.unwrap_err();
        assert_eq!(error.reason(), *reason, "{number}: {error}");
        assert_eq!(server.requests(), *requests, "{number}: {error}");
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn listings_fail_with_the_right_reason() {
    type Make = fn(&str) -> Answer;
    let table: &[(Make, Reason, &str)] = &[
        (|_| error(404, "NoSuchBucket"), Reason::NotFound, "no bucket training"),
        (|_| error(403, "InvalidAccessKeyId"), Reason::AccessDenied, "InvalidAccessKeyId"),
        (|_| response(200, "", "<ListBucketResult></ListBucketResult>"), Reason::NotFound, "begins with run/step-1/"),
        (
            |_| response(200, "", "\n<HTML>canary</html>"),
            Reason::InvalidSpec,
            "web page instead of a listing of a bucket",
        ),
        (|_| response(200, "content-type: text/html\r\n", "canary"), Reason::InvalidSpec, "check storage.s3.endpoint"),
        (|_| response(200, "", "canary"), Reason::Unreachable, "not a listing of a bucket: check storage.s3.endpoint"),
        (
            |_| response(301, "x-amz-bucket-region: eu-west-1\r\n", "<Error><Code>PermanentRedirect</Code></Error>"),
            Reason::InvalidSpec,
            "storage.s3.region to eu-west-1",
        ),
        (
            |_| response(400, "", "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"),
            Reason::InvalidSpec,
            "is in region eu-west-1 and not in us-east-1: set storage.s3.region to eu-west-1",
        ),
        (
            |_| response(400, "", "<Error><Code>AuthorizationHeaderMalformed</Code><Region>c@nary</Region></Error>"),
            Reason::InvalidSpec,
            "check storage.s3.region and endpoint",
        ),
        (
            |_| {
                response(
                    200,
                    "",
                    "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken></ListBucketResult>",
                )
            },
            Reason::Unreachable,
            "goes on",
        ),
        (
            |head| {
                let single = "<Contents><Key>run/step-1</Key><Size>4</Size></Contents>";
                let body = if head.contains("prefix=run%2Fstep-1%2F") { "" } else { single };
                response(200, "", &format!("<ListBucketResult>{body}</ListBucketResult>"))
            },
            Reason::InvalidPath,
            "single object",
        ),
    ];
    for (make, reason, expected) in table {
        let make = *make;
        let server = Server::start(move |_, head| make(head));
        let error = open_at(&server).list().await.unwrap_err();
        assert_eq!(error.reason(), *reason, "{error}");
        assert!(error.to_string().contains(expected) && !error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn pages_are_followed() {
    let server = Server::start(|_, head| {
        let (key, rest) = if head.contains("continuation-token=a%2F%2B") {
            ("run/step-1/a b+%", "")
        } else {
            ("run/step-1/z", "<IsTruncated>true</IsTruncated><NextContinuationToken>a/+</NextContinuationToken>")
        };
        let contents = format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>&quot;e&quot;</ETag></Contents>");
        response(200, "", &format!("<ListBucketResult>{rest}{contents}</ListBucketResult>"))
    });
    let listing = open_at(&server).list().await.unwrap();
    assert_eq!(listing.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["a b+%", "z"]);
}

#[tokio::test]
async fn a_renewed_secret_is_used_after_a_refusal() {
    let server = Server::start(|_, head| {
        if head.contains("Credential=new/") {
            response(
                200,
                "",
                "<ListBucketResult><Contents><Key>run/step-1/a</Key><Size>1</Size></Contents></ListBucketResult>",
            )
        } else {
            error(403, "ExpiredToken")
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |id: &str| {
        std::fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), id).unwrap();
        std::fs::write(folder.path().join("AWS_SECRET_ACCESS_KEY"), "canary-secret").unwrap();
    };
    write("old");
    let task = S3Task { access: Access::Secret("s3-creds".into()), ..task(&server.url()) };
    let storage = open_in(&task, &Mounts { credentials: folder.path().to_owned(), ..Mounts::default() }).unwrap();
    let error = storage.list().await.unwrap_err();
    assert_eq!((error.reason(), server.requests()), (Reason::AccessDenied, 1), "{error}");
    assert!(!error.to_string().contains("canary"));
    write("new");
    assert!(storage.list().await.is_ok());
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn hosts_that_cannot_be_reached_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = open(&task(&format!("http://{closed}"))).unwrap().list().await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Unreachable);
    assert!(refused.to_string().contains(&closed.to_string()) && refused.to_string().contains("refuses"), "{refused}");

    let unknown = open(&task("https://nowhere.invalid:9000")).unwrap().list().await.unwrap_err();
    assert_eq!(
        unknown,
        StorageError::Unreachable(
            "the name nowhere.invalid does not resolve: check storage.s3.endpoint, and the DNS of the cluster".into()
        )
    );

    let plain = Server::start(|_, _| response(400, "", ""));
    let plain = open(&task(&format!("https://{}", plain.address))).unwrap();
    // A TLS client sends no line feeds: the server waits for more until the client gives up.
    assert!(matches!(plain.list().await.unwrap_err(), StorageError::Unreachable(_) | StorageError::Tls(_)));
}

#[tokio::test]
async fn certificates_are_checked() {
    let server = Server::start_tls(|_, _| {
        response(
            200,
            "",
            "<ListBucketResult><Contents><Key>run/step-1/a</Key><Size>1</Size></Contents></ListBucketResult>",
        )
    });
    let task = task(&server.url());
    let unknown = open(&task).unwrap().list().await.unwrap_err();
    assert!(matches!(&unknown, StorageError::Tls(text) if text.contains("caBundle")), "{unknown}");

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let mounts = Mounts { ca: ca.clone(), ..Mounts::default() };
    let task = S3Task { ca: Some("ConfigMap minio-ca, key ca.crt".into()), ..task };
    let missing = open_in(&task, &mounts).err().unwrap();
    assert!(matches!(&missing, StorageError::Tls(text) if text.contains("minio-ca")), "{missing}");
    std::fs::write(&ca, "nonsense").unwrap();
    let nonsense = open_in(&task, &mounts).err().unwrap();
    assert!(matches!(&nonsense, StorageError::Tls(text) if text.contains("no PEM")), "{nonsense}");
    std::fs::write(&ca, testing::CA).unwrap();
    assert_eq!(open_in(&task, &mounts).unwrap().list().await.unwrap().entries.len(), 1);
}

#[test]
fn settings_are_checked_before_anyone_is_contacted() {
    let base = task("https://minio.test");
    let with = |change: fn(&mut S3Task)| {
        let mut task = base.clone();
        change(&mut task);
        open(&task).err().map(|error| error.reason())
    };
    assert_eq!(with(|_| {}), None);
    assert_eq!(
        with(|task| (task.endpoint, task.insecure) = (Some("http://minio.test".into()), false)),
        Some(Reason::InsecureEndpoint)
    );
    assert_eq!(with(|task| task.endpoint = Some("https://user:pass@minio.test".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.endpoint = Some("https://minio.test/x".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.endpoint = Some("ftp://minio.test".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.endpoint = Some("http://169.254.169.254".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.endpoint = Some("http://0xa9fea9fe".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.endpoint = Some("http://[::ffff:169.254.169.254]".into())), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.bucket = "a/b".into()), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.region = "eu/../x".into()), Some(Reason::InvalidSpec));
    assert_eq!(with(|task| task.path = "a/../b".into()), Some(Reason::InvalidPath));
    assert_eq!(with(|task| task.access = Access::Ambient), Some(Reason::AccessDenied));
    assert_eq!(with(|task| task.access = Access::Secret("none".into())), Some(Reason::AccessDenied));
}

#[test]
fn buckets_have_their_address() {
    let url = |endpoint: Option<&str>, region: &str, bucket: &str, virtual_hosted| {
        let task = S3Task {
            bucket: bucket.into(),
            region: region.into(),
            endpoint: endpoint.map(str::to_owned),
            virtual_hosted,
            access: Access::Anonymous,
            ..S3Task::default()
        };
        bucket_url(&task).unwrap().to_string()
    };
    assert_eq!(url(None, "eu-west-1", "b", true), "https://b.s3.eu-west-1.amazonaws.com/");
    assert_eq!(url(None, "eu-west-1", "b.c", true), "https://s3.eu-west-1.amazonaws.com/b.c");
    assert_eq!(url(None, "cn-north-1", "b", true), "https://b.s3.cn-north-1.amazonaws.com.cn/");
    assert_eq!(url(Some("https://minio:9000/"), "x", "b", false), "https://minio:9000/b");
    assert_eq!(url(Some("https://minio:9000"), "x", "b", true), "https://b.minio:9000/");
}
