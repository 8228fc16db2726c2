//! Whole runs with a worker that is simple enough to be right.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use tempfile::TempDir;

use super::*;
use crate::{
    api::Phase,
    contract::{
        Outcome, Selection, SourceFacts, VERSION,
        digest::{filter_hash, fingerprint},
        manifest::{self, Manifest, ManifestFile},
    },
};

/// A checkpoint of two files in memory.
#[derive(Default)]
struct Fake {
    /// What it did, in order.
    log: Mutex<Vec<String>>,
    /// How inspections end.
    verdict: Mutex<Option<(Outcome, Reason)>>,
    /// Cancel the run after the first file of a load.
    interrupt: Mutex<bool>,
    seen: Mutex<Option<Mounts>>,
    /// What loads may take files from.
    reuse: Mutex<Vec<Option<PathBuf>>>,
}

const FILES: [(&str, &str); 2] = [("a.bin", "aaaa"), ("deep/b.bin", "bb")];

fn listing() -> SourceFacts {
    let entries = FILES.iter().map(|(path, text)| (*path, text.len() as u64, ""));
    SourceFacts { uri: "s3://bucket/x".to_owned(), fingerprint: fingerprint(entries), files: 2, bytes: 6 }
}

impl Fake {
    fn log(&self, what: &str) {
        self.log.lock().unwrap().push(what.to_owned());
    }

    fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn load(&self, task: &Task, root: &Path, progress: &ProgressSink, cancel: &CancellationToken) -> Report {
        let mut files = Vec::new();
        for (number, (path, text)) in FILES.iter().enumerate() {
            let target = root.join(path);
            if target.exists() {
                self.log(&format!("kept {path}"));
            } else {
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(&target, text).unwrap();
                self.log(&format!("wrote {path}"));
            }
            let blake3 = blake3::hash(text.as_bytes()).to_hex().to_string();
            files.push(ManifestFile {
                path: (*path).to_owned(),
                size: text.len() as u64,
                blake3,
                version: String::new(),
                identity: None,
                verified: false,
            });
            progress.update(|progress| {
                progress.bytes_done = 1 + number as u64;
                progress.bytes_total = 6;
            });
            if *self.interrupt.lock().unwrap() {
                cancel.cancel();
                return report(task.kind, Outcome::Failed, Reason::Unreachable);
            }
        }
        let load = task.load.as_ref().unwrap();
        let mut manifest = Manifest {
            version: 1,
            uri: listing().uri,
            fingerprint: load.fingerprint.clone(),
            filter: filter_hash(&load.filter),
            digest: String::new(),
            files,
        };
        manifest.digest = manifest.tree_digest().unwrap();
        fs::create_dir_all(root.join(manifest::FOLDER)).unwrap();
        fs::write(root.join(manifest::PATH), serde_json::to_vec(&manifest).unwrap()).unwrap();
        Report { digest: Some(manifest.digest), ..report(task.kind, Outcome::Good, Reason::Complete) }
    }

    fn verify(task: &Task, root: &Path) -> Report {
        let manifest: Manifest = serde_json::from_slice(&fs::read(root.join(manifest::PATH)).unwrap()).unwrap();
        let same = manifest.files.iter().all(|file| {
            let bytes = fs::read(root.join(&file.path)).unwrap();
            blake3::hash(&bytes).to_hex().as_str() == file.blake3
        });
        let (outcome, reason) =
            if same { (Outcome::Good, Reason::Complete) } else { (Outcome::Failed, Reason::DigestMismatch) };
        Report { digest: Some(manifest.digest), ..report(task.kind, outcome, reason) }
    }
}

fn report(kind: TaskKind, outcome: Outcome, reason: Reason) -> Report {
    Report { version: VERSION, source: Some(listing()), ..Report::new(kind, outcome, reason, "as the fake says") }
}

impl Perform for Fake {
    fn perform<'a>(
        &'a self,
        task: &'a Task,
        mounts: &'a Mounts,
        progress: &'a ProgressSink,
        cancel: CancellationToken,
    ) -> BoxFuture<'a, Report> {
        async move {
            self.log(task.kind.as_str());
            *self.seen.lock().unwrap() = Some(mounts.clone());
            match task.kind {
                TaskKind::Inspect => {
                    let (outcome, reason) = self.verdict.lock().unwrap().unwrap_or((Outcome::Good, Reason::Complete));
                    let selection = Selection { files: 2, bytes: 6, required_bytes: 64 << 20 };
                    Report { selections: vec![selection; task.volumes.len()], ..report(task.kind, outcome, reason) }
                }
                TaskKind::Load => {
                    self.reuse.lock().unwrap().push(mounts.reuse.clone());
                    self.load(task, mounts.volume.as_ref().unwrap(), progress, &cancel)
                }
                TaskKind::Verify => Self::verify(task, mounts.volume.as_ref().unwrap()),
            }
        }
        .boxed()
    }
}

#[derive(Default)]
struct Silent(Arc<Mutex<Vec<String>>>);

impl Display for Silent {
    fn begin(&self, _: &str) {}
    fn progress(&self, _: worker::Progress) {}
    fn end(&self, _: &Report) {}
    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

const MANIFEST: &str = "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: llama}\nspec: {path: \"s3://bucket/x\", storage: {s3: {credentials: {secretRef: {name: keys}}, caBundle: {configMapRef: {name: ca}}}}, volumes: [{claimName: llama, storageClassName: fast}]}\n";

struct Bench {
    folder: TempDir,
    fake: Fake,
    settings: Settings,
    display: Silent,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { volumes: folder.path().join("volumes"), ..Settings::default() };
        Self { folder, fake: Fake::default(), settings, display: Silent::default() }
    }

    async fn run(&self, text: &str) -> Result<Vec<Run>, LocalError> {
        let mut documents = Documents::default();
        documents.read("test", text).unwrap();
        run(&self.settings, &documents, &self.fake, &self.display, &CancellationToken::new()).await
    }

    async fn checkpoint(&self, text: &str) -> Checkpoint {
        self.run(text).await.unwrap().remove(0).checkpoint
    }

    fn volume(&self, path: &str) -> PathBuf {
        self.settings.volumes.join(path)
    }
}

fn ready(checkpoint: &Checkpoint) -> (String, String) {
    let status = checkpoint.status.as_ref().unwrap();
    let ready = condition(&status.conditions, ConditionType::Ready).unwrap();
    (ready.status.clone(), ready.reason.clone())
}

#[tokio::test]
async fn a_claim_becomes_a_folder_and_a_second_run_verifies_it() {
    let bench = Bench::new();
    let run = bench.run(MANIFEST).await.unwrap().remove(0);
    assert_eq!(ready(&run.checkpoint), ("True".to_owned(), "Ready".to_owned()));
    assert_eq!(exit_code(&run.checkpoint), 0);
    assert_eq!(run.report.unwrap().task, Some(TaskKind::Inspect));
    let status = run.checkpoint.status.unwrap();
    assert_eq!(status.conditions.len(), 6);
    assert_eq!((status.volumes[0].phase, status.progress.as_deref()), (Phase::Published, Some("100%")));
    assert_eq!(fs::read_to_string(bench.volume("llama/deep/b.bin")).unwrap(), "bb");
    let own: Vec<_> =
        fs::read_dir(bench.volume(".checkpoint-operator")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(own, ["lock"], "no staging folder is left");
    assert_eq!(bench.fake.take_log(), ["inspect", "load", "wrote a.bin", "wrote deep/b.bin"]);

    let again = bench.checkpoint(MANIFEST).await;
    assert_eq!(ready(&again).0, "True");
    assert_eq!(bench.fake.take_log(), ["inspect", "verify"]);
    assert_eq!(again.metadata.uid, run.checkpoint.metadata.uid);

    fs::write(bench.volume("llama/a.bin"), "aaab").unwrap();
    let spoilt = bench.checkpoint(MANIFEST).await;
    assert_eq!(ready(&spoilt), ("False".to_owned(), "ClaimConflict".to_owned()));
    assert_eq!(exit_code(&spoilt), 1);
    assert_eq!(fs::read_to_string(bench.volume("llama/a.bin")).unwrap(), "aaab", "it is left as it is");
}

#[tokio::test]
async fn a_folder_that_is_not_ours_is_left_alone() {
    let bench = Bench::new();
    fs::create_dir_all(bench.volume("llama")).unwrap();
    fs::write(bench.volume("llama/mine"), "x").unwrap();
    let checkpoint = bench.checkpoint(MANIFEST).await;
    assert_eq!(ready(&checkpoint).1, "ClaimConflict");
    assert_eq!(exit_code(&checkpoint), 1);
    assert_eq!(fs::read_dir(bench.volume("llama")).unwrap().count(), 1);
    assert_eq!(bench.fake.take_log(), ["inspect"]);
}

#[tokio::test]
async fn a_bad_verdict_publishes_nothing() {
    let bench = Bench::new();
    *bench.fake.verdict.lock().unwrap() = Some((Outcome::Bad, Reason::Incomplete));
    let checkpoint = bench.checkpoint(MANIFEST).await;
    assert_eq!(ready(&checkpoint), ("False".to_owned(), "Incomplete".to_owned()));
    assert_eq!(exit_code(&checkpoint), 1);
    assert!(!bench.volume("llama").exists());
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_as_often_as_asked() {
    let mut bench = Bench::new();
    bench.settings.retries = 2;
    *bench.fake.verdict.lock().unwrap() = Some((Outcome::Failed, Reason::Unreachable));
    let checkpoint = bench.checkpoint(MANIFEST).await;
    assert_eq!(ready(&checkpoint).1, "Unreachable");
    assert_eq!(exit_code(&checkpoint), 2);
    assert_eq!(bench.fake.take_log(), ["inspect"; 3]);
    assert_eq!(bench.display.0.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_half_published_and_is_continued() {
    let bench = Bench::new();
    *bench.fake.interrupt.lock().unwrap() = true;
    assert!(matches!(bench.run(MANIFEST).await, Err(LocalError::Interrupted)));
    assert!(!bench.volume("llama").exists());
    *bench.fake.interrupt.lock().unwrap() = false;
    bench.fake.take_log();
    assert_eq!(ready(&bench.checkpoint(MANIFEST).await).0, "True");
    assert_eq!(bench.fake.take_log(), ["inspect", "load", "kept a.bin", "wrote deep/b.bin"]);
}

#[tokio::test]
async fn two_runs_do_not_share_a_folder() {
    let bench = Bench::new();
    let held = Folders::open(&bench.settings.volumes, true).unwrap();
    let problem = bench.run(MANIFEST).await.unwrap_err();
    assert!(matches!(problem, LocalError::InUse(_)), "{problem}");
    drop(held);
    bench.run(MANIFEST).await.unwrap();
}

#[tokio::test]
async fn one_checkpoint_can_read_what_another_published() {
    let bench = Bench::new();
    let second = "---\napiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: second}\nspec: {path: \"pvc://llama/deep\"}\n";
    let runs = bench.run(&format!("{MANIFEST}{second}")).await.unwrap();
    assert!(runs.iter().all(|run| ready(&run.checkpoint).0 == "True"));
    assert_eq!(bench.fake.seen.lock().unwrap().as_ref().unwrap().source, bench.volume("llama"));
}

#[tokio::test]
async fn two_checkpoints_cannot_have_one_folder() {
    let bench = Bench::new();
    let second = MANIFEST.replace("name: llama}", "name: other}");
    let runs = bench.run(&format!("{MANIFEST}---\n{second}")).await.unwrap();
    assert_eq!(ready(&runs[0].checkpoint).1, "Ready");
    assert_eq!(ready(&runs[1].checkpoint).1, "ClaimConflict");
}

#[tokio::test]
async fn a_source_claim_is_a_folder() {
    let mut bench = Bench::new();
    let text = "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: a}\nspec: {path: \"pvc://source/x\"}\n";
    let checkpoint = bench.checkpoint(text).await;
    assert_eq!((ready(&checkpoint).1.as_str(), exit_code(&checkpoint)), ("NotFound", 2));
    assert!(!bench.settings.volumes.exists(), "nothing is made for a run without volumes");

    fs::create_dir_all(bench.volume("source")).unwrap();
    assert_eq!(ready(&bench.checkpoint(text).await).0, "True");
    bench.settings.places.insert("source".to_owned(), bench.folder.path().to_owned());
    assert_eq!(ready(&bench.checkpoint(text).await).0, "True");
    assert_eq!(bench.fake.seen.lock().unwrap().as_ref().unwrap().source, bench.folder.path());
}

#[tokio::test]
async fn secrets_come_from_the_manifest_a_folder_or_the_environment() {
    use std::os::unix::fs::PermissionsExt;
    let mut bench = Bench::new();
    let documents = |text: &str| {
        let mut documents = Documents::default();
        documents.read("test", text).unwrap();
        documents
    };
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {AWS_ACCESS_KEY_ID: manifest, other: x}\n";
    let folder = bench.folder.path().join("secrets");
    fs::create_dir_all(folder.join("keys")).unwrap();
    fs::write(folder.join("keys/AWS_ACCESS_KEY_ID"), "folder").unwrap();
    fs::create_dir_all(folder.join("ca")).unwrap();
    fs::write(folder.join("ca/ca.crt"), "PEM").unwrap();
    let environment = BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "environment".to_owned())]);
    for (text, secrets, expected) in
        [(secret, Some(folder.clone()), "manifest"), ("", Some(folder.clone()), "folder"), ("", None, "environment")]
    {
        let keyring = Keyring::new(&documents(text), secrets, environment.clone()).unwrap();
        let found = keyring.credentials("default", "keys", &environment::S3_KEYS).unwrap();
        assert_eq!(fs::read_to_string(found.join("AWS_ACCESS_KEY_ID")).unwrap(), expected);
        assert!(!found.join("other").exists());
        let mode = fs::metadata(found.join("AWS_ACCESS_KEY_ID")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(keyring);
        assert!(!found.exists(), "nothing is left behind");
    }
    let login = bench.folder.path().join("token");
    fs::write(&login, "hf_login\n").unwrap();
    let environment = BTreeMap::from([("HF_TOKEN_PATH".to_owned(), login.display().to_string())]);
    let keyring = Keyring::new(&Documents::default(), None, environment).unwrap();
    let found = keyring.credentials("default", "hub", &environment::HUGGING_FACE_KEYS).unwrap();
    assert_eq!(fs::read_to_string(found.join("HF_TOKEN")).unwrap(), "hf_login");
    bench.settings.secrets = Some(folder);
    bench.run(MANIFEST).await.unwrap();
    let keyring = Keyring::new(&Documents::default(), bench.settings.secrets.clone(), BTreeMap::new()).unwrap();
    assert_eq!(fs::read_to_string(keyring.authorities("default", "ca", "ca.crt").unwrap()).unwrap(), "PEM");
    assert!(!keyring.credentials("default", "../keys", &environment::S3_KEYS).unwrap().exists());
}

#[tokio::test]
async fn the_real_worker_fills_the_folders() {
    let bench = Bench::new();
    let source = bench.volume("source/deep");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("weights.raw"), vec![7; 100_000]).unwrap();
    fs::write(source.join("notes.json"), "{}").unwrap();
    let text = "apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: a}\nspec: {path: \"pvc://source/deep\", volumes: [{claimName: all}, {claimName: some, include: [\"*.json\"]}]}\n---\napiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {name: b}\nspec: {storage: {inline: {json: '{\"epoch\": 3}'}}, volumes: [{claimName: dict}]}\n";
    let mut documents = Documents::default();
    documents.read("test", text).unwrap();
    for _ in 0..2 {
        let token = CancellationToken::new();
        let worker = crate::local::InProcess;
        let runs = run(&bench.settings, &documents, &worker, &bench.display, &token).await.unwrap();
        assert_eq!(runs.iter().map(|run| ready(&run.checkpoint).1).collect::<Vec<_>>(), ["Ready", "Ready"]);
        assert_eq!(fs::read(bench.volume("all/weights.raw")).unwrap(), vec![7; 100_000]);
        assert!(!bench.volume("some/weights.raw").exists() && bench.volume("some/notes.json").exists());
        assert_eq!(fs::read_to_string(bench.volume("dict/checkpoint.json")).unwrap(), "{\"epoch\": 3}");
    }
}

#[tokio::test]
async fn files_are_taken_from_the_folder_of_an_earlier_checkpoint() {
    let bench = Bench::new();
    fs::create_dir_all(bench.volume("source")).unwrap();
    let manifest = |name: &str, reuse: &str| {
        format!(
            "---\napiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata: {{name: {name}}}\nspec: {{path: \"pvc://source\", volumes: [{{claimName: {name}{reuse}}}]}}\n"
        )
    };
    let three = [("step-1", ""), ("step-2", ", reuseFrom: step-1"), ("step-3", ", reuseFrom: step-0")];
    let runs = bench.run(&three.map(|(name, reuse)| manifest(name, reuse)).concat()).await.unwrap();
    assert!(runs.iter().all(|run| ready(&run.checkpoint).0 == "True"));
    assert_eq!(*bench.fake.reuse.lock().unwrap(), [None, Some(bench.volume("step-1")), None]);
    let skipped = runs[2].checkpoint.status.clone().unwrap().volumes[0].reuse_skipped.clone().unwrap();
    assert!(skipped.starts_with("claim step-0 does not exist"), "{skipped}");
    // Another run finds the folder again.
    bench.run(&manifest("step-4", ", reuseFrom: step-1")).await.unwrap();
    assert_eq!(bench.fake.reuse.lock().unwrap().last(), Some(&Some(bench.volume("step-1"))));
}
