//! Repositories of a Hub: by our own server, which the Hub's own client library has to understand, too.

use std::sync::LazyLock;

use anyhow::{Context, Result};
use checkpoint_operator::{
    contract::{Access, HuggingFaceTask, Reason, Source},
    local::{Documents, InProcess, Settings, run},
    storage::{Checksum, HuggingFace, Storage},
};
use checkpoint_operator_e2e::python;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::{
    servers::{
        LOOPBACK, files,
        hub::{Hub, OWNER, STRANGER},
    },
    support::{Breaking, Silent, assert_loaded, assert_refused, checkpoint, connection, place_with},
};

#[expect(clippy::expect_used, reason = "a helper of tests, which the lint does not see as one")]
static HUB: LazyLock<Hub> = LazyLock::new(|| start().expect("the Hub starts"));

fn start() -> Result<Hub> {
    Hub::start(LOOPBACK, files(&checkpoint())?)
}

fn task(name: &str, access: Access) -> HuggingFaceTask {
    HuggingFaceTask {
        repository: format!("org/{name}"),
        dataset: false,
        revision: "main".into(),
        path: String::new(),
        connection: connection(&HUB.endpoint, access),
    }
}

fn secret() -> Access {
    Access::Secret("hub".into())
}

#[tokio::test]
async fn a_checkpoint_is_loaded() -> Result<()> {
    let owner = [("HF_TOKEN", OWNER), ("allowedHosts", "127.0.0.1")];
    assert_loaded(&[], &Source::HuggingFace(task("public", Access::Anonymous))).await?;
    assert_loaded(&owner, &Source::HuggingFace(task("gated", secret()))).await?;
    let tagged = HuggingFaceTask { revision: "v1".into(), ..task("private", secret()) };
    let report = assert_loaded(&owner, &Source::HuggingFace(tagged)).await?;
    assert_eq!(report.source.context("no source")?.uri, "hf://org/private@v1");
    let network = Breaking::before(&HUB.endpoint)?;
    let mut broken = task("private", secret());
    broken.connection.endpoint = Some(network.url());
    assert_loaded(&owner, &Source::HuggingFace(broken)).await?;
    assert_eq!(HUB.leaked(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn large_files_have_their_checksums_and_keep_their_addresses() -> Result<()> {
    let hub = start()?;
    let mut task = task("public", Access::Anonymous);
    task.connection.endpoint = Some(hub.endpoint.clone());
    let storage = HuggingFace::open(&task, &place_with(&[])?.mounts())?;
    let listing = storage.list().await?;
    let shard = listing.entries.iter().find(|entry| entry.path.ends_with("-00001-of-00003.safetensors"));
    let shard = shard.context("no shard")?;
    let content = &files(&checkpoint())?[&shard.path];
    assert_eq!(shard.checksum, Some(Checksum::Sha256(Sha256::digest(content).into())));
    for start in [0, 100, 5000] {
        let read: Vec<_> = futures::TryStreamExt::try_collect(storage.read(shard, start..start + 50)).await?;
        assert_eq!(read.concat(), content[usize::try_from(start)?..usize::try_from(start)? + 50]);
    }
    assert_eq!((hub.resolved(), hub.leaked().len()), (1, 0));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_told_apart() -> Result<()> {
    let token = |token| [("HF_TOKEN", token), ("allowedHosts", "127.0.0.1")];
    let (owner, stranger, unknown) = (token(OWNER), token(STRANGER), token("hf_canary_unknown"));
    let named = |name: &str| task(name, secret());
    let revised = HuggingFaceTask { revision: "v2".into(), ..task("public", Access::Anonymous) };
    let folder = HuggingFaceTask { path: "nothing/here".into(), ..task("public", Access::Anonymous) };
    for (keys, task, reason, part) in [
        (
            &[][..],
            task("missing", Access::Anonymous),
            Reason::NotFound,
            "does not exist or is private (401 RepoNotFound)",
        ),
        (&[], task("private", Access::Anonymous), Reason::NotFound, "does not exist or is private (401 RepoNotFound)"),
        (&owner, named("missing"), Reason::NotFound, "org/missing does not exist, or is private"),
        (&stranger, named("private"), Reason::NotFound, "not of those that the token of Secret hub may read"),
        (&unknown, named("public"), Reason::AccessDenied, "wrong, expired or revoked"),
        (
            &[],
            task("gated", Access::Anonymous),
            Reason::AccessDenied,
            "is gated (401 GatedRepo): accept its conditions",
        ),
        (&stranger, named("gated"), Reason::AccessDenied, "is gated (403 GatedRepo): accept its conditions"),
        (&[], revised, Reason::NotFound, "org/public has no revision v2"),
        (&[], folder, Reason::NotFound, "no folder \"nothing/here\""),
        (&[], named("public"), Reason::AccessDenied, "Secret hub does not exist"),
        (&owner[..1], named("public"), Reason::AccessDenied, "key allowedHosts of Secret hub"),
        (&owner[1..], named("public"), Reason::AccessDenied, "Secret hub has no key HF_TOKEN"),
    ] {
        assert_refused(keys, &Source::HuggingFace(task), reason, part).await?;
    }
    Ok(())
}

/// Our Hub is one for the Hub's own client, too, so that passing these tests means something.
#[test]
fn the_hubs_own_client_understands_our_hub() -> Result<()> {
    const SCRIPT: &str = r"
import os, sys, tempfile
os.environ.update(HF_ENDPOINT=sys.argv[1], HF_HOME=tempfile.mkdtemp(), HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_TELEMETRY='1')
from huggingface_hub import snapshot_download, errors
folder = snapshot_download('org/private', revision='v1', token=sys.argv[2])
print(' '.join(sorted(os.listdir(folder))))
for repository, token, kind in [
    ('org/missing', sys.argv[2], errors.RepositoryNotFoundError), ('org/gated', sys.argv[3], errors.GatedRepoError),
    ('org/private', False, errors.RepositoryNotFoundError),
]:
    try:
        snapshot_download(repository, token=token)
        print('not refused:', repository)
    except kind:
        pass
";
    let printed = python::evaluate(SCRIPT, &[&HUB.endpoint, OWNER, STRANGER])?;
    let names: Vec<String> = files(&checkpoint())?.into_keys().collect();
    assert_eq!(printed.trim(), names.join(" "));
    Ok(())
}

/// `checkpoint-operator run` with the login of a person, whose environment names the Hub.
#[tokio::test]
async fn a_person_loads_with_their_login() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let login = folder.path().join("token");
    std::fs::write(&login, format!("{OWNER}\n"))?;
    let mine = [("HF_ENDPOINT", HUB.endpoint.clone()), ("HF_TOKEN_PATH", login.display().to_string())];
    let load = async |name: &str, endpoint: &str, mine: &[(&str, String)]| {
        let mut documents = Documents::default();
        documents.read(
            "test",
            &format!(
                "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: a}}\nspec: {{path: \"hf://org/{name}\", \
                 storage: {{huggingFace: {{insecure: true{endpoint}}}}}, volumes: [{{claimName: {name}}}]}}\n"
            ),
        )?;
        let environment = mine.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let settings = Settings { volumes: folder.path().to_owned(), environment, ..Settings::default() };
        let runs = run(&settings, &documents, &InProcess, &Silent, &CancellationToken::new()).await?;
        let status = runs[0].checkpoint.status.clone().context("no status")?;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").context("not judged")?;
        anyhow::Ok((ready.reason.clone(), ready.message.clone()))
    };
    for name in ["private", "gated"] {
        assert_eq!(load(name, "", &mine).await?.0, "Ready");
        for (file, bytes) in files(&checkpoint())? {
            assert!(std::fs::read(folder.path().join(name).join(&file))? == bytes, "{file}");
        }
    }
    // The manifest of somebody else may name any server: it is asked without the token.
    let (_, token) = mine.split_first().context("no token")?;
    let endpoint = format!(", endpoint: \"{}\"", HUB.endpoint);
    assert_eq!(load("public", &endpoint, token).await?.0, "Ready");
    let (reason, message) = load("private", &endpoint, token).await?;
    assert_eq!(reason, "NotFound", "{message}");
    assert!(message.contains("your own token is only sent to the Hub itself"), "{message}");
    assert_eq!(HUB.leaked(), Vec::<String>::new());
    Ok(())
}
