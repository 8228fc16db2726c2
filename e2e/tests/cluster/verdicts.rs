//! Damaged checkpoints: the reason and the file's name are in the condition, nothing is published, repairs heal (network I/O).

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use checkpoint_operator_e2e::{python, s3::Body};
use serde_json::{Value, json};

use crate::support::{HASHES_OF_VOLUME, Scene, hashes_of, model, shared, text};

const PREFIX: &str = "runs/model";
const SHARD: &str = "model-00002-of-00003.safetensors";

/// What a damaged checkpoint must be called.
struct Damage<'a> {
    reason: &'a str,
    /// Parts of the message: the file above all.
    said: &'a [&'a str],
}

/// The good model in the bucket.
fn upload(scene: &Scene) -> Result<&'static Path> {
    let folder: &'static Path = Box::leak(model(3, 1)?.into_boxed_path());
    scene.s3.put_folder(scene.bucket(), PREFIX, folder)?;
    Ok(folder)
}

fn key(file: &str) -> String {
    format!("{PREFIX}/{file}")
}

/// The Checkpoint is refused by name while a pod waits for it, and nothing is published.
async fn is_refused(scene: &Scene, checkpoint: &str, spec: Value, damage: &Damage<'_>) -> Result<()> {
    scene.consumer(&format!("{checkpoint}-consumer"), checkpoint, HASHES_OF_VOLUME).await?;
    scene.checkpoint(checkpoint, spec).await?;
    let validated = scene.condition(checkpoint, "Validated", "False", damage.reason).await?;
    for part in damage.said {
        assert!(validated.message.contains(part), "{part:?} is not in {:?}", validated.message);
    }
    let ready = scene.condition(checkpoint, "Ready", "False", damage.reason).await?;
    assert_eq!(ready.message, validated.message);
    scene.condition(checkpoint, "Stalled", "True", damage.reason).await?;
    let pod = scene.kube.get("v1/Pod", &scene.namespace, &format!("{checkpoint}-consumer")).await?;
    assert_eq!(text(&pod.context("the pod is gone")?.data, "/status/phase"), "Pending");
    assert_ne!(scene.claims().await?.get(checkpoint).map(String::as_str), Some("Bound"));
    Ok(())
}

/// The source is whole again: asked to look, the operator publishes it and the pod runs on what is in `folder`.
async fn heals(scene: &Scene, checkpoint: &str, folder: &Path) -> Result<()> {
    scene.revalidate(checkpoint, "repaired").await?;
    scene.ready(checkpoint).await?;
    assert_eq!(scene.output(&format!("{checkpoint}-consumer")).await?, hashes_of(folder)?);
    Ok(())
}

/// One file of the model is replaced by `spoilt` (or missing), found, and put back.
async fn one_bad_file(name: &str, file: &str, spoil: fn(&[u8]) -> Option<Vec<u8>>, damage: Damage<'_>) -> Result<()> {
    shared(name, async |scene| {
        let folder = upload(scene)?;
        match spoil(&fs::read(folder.join(file))?) {
            Some(bytes) => scene.s3.put(scene.bucket(), &[(&key(file), Body::Bytes(&bytes))])?,
            None => scene.s3.delete(scene.bucket(), &[&key(file)])?,
        }
        is_refused(scene, "model", scene.s3_spec(PREFIX, &["model"]), &damage).await?;
        scene.s3.put(scene.bucket(), &[(&key(file), Body::File(&folder.join(file)))])?;
        heals(scene, "model", folder).await
    })
    .await
}

#[tokio::test]
async fn a_missing_shard_is_named() -> Result<()> {
    let damage = Damage { reason: "Incomplete", said: &[SHARD] };
    one_bad_file("verdict-missing-shard", SHARD, |_| None, damage).await
}

#[tokio::test]
async fn a_shard_that_lacks_its_last_byte_is_named() -> Result<()> {
    let damage = Damage { reason: "Corrupt", said: &[SHARD] };
    one_bad_file("verdict-truncated-shard", SHARD, |good| Some(good[..good.len() - 1].to_vec()), damage).await
}

#[tokio::test]
async fn a_shard_with_overlapping_tensors_is_named() -> Result<()> {
    let damage = Damage { reason: "Corrupt", said: &[SHARD] };
    one_bad_file("verdict-overlapping-tensors", SHARD, |good| overlapping(good).ok(), damage).await
}

/// The same file, the second of two neighbouring tensors of one shape beginning where the first does.
fn overlapping(good: &[u8]) -> Result<Vec<u8>> {
    let (length, rest) = good.split_at(8);
    let length = usize::try_from(u64::from_le_bytes(length.try_into()?))?;
    let mut header: Value = serde_json::from_slice(&rest[..length])?;
    let tensors = header.as_object_mut().context("no header")?;
    let names: Vec<_> = tensors.keys().filter(|name| name.contains("self_attn")).cloned().collect();
    let offsets = tensors[&names[0]]["data_offsets"].clone();
    tensors[&names[1]]["data_offsets"] = offsets;
    let text = serde_json::to_vec(&header)?;
    let mut file = u64::try_from(text.len())?.to_le_bytes().to_vec();
    file.extend(text);
    file.extend(&rest[length..]);
    Ok(file)
}

#[tokio::test]
async fn a_git_lfs_pointer_is_named() -> Result<()> {
    let pointer = |good: &[u8]| {
        let text =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n", "4".repeat(64), good.len());
        Some(text.into_bytes())
    };
    let damage = Damage { reason: "Incomplete", said: &[SHARD, "LFS"] };
    one_bad_file("verdict-lfs-pointer", SHARD, pointer, damage).await
}

#[tokio::test]
async fn a_prefix_with_nothing_but_markers_is_empty() -> Result<()> {
    shared("verdict-only-markers", async |scene| {
        scene.put(PREFIX, &[("", b""), ("sub/", b"")])?;
        let damage = Damage { reason: "Empty", said: &[PREFIX] };
        is_refused(scene, "model", scene.s3_spec(PREFIX, &["model"]), &damage).await?;
        heals(scene, "model", upload(scene)?).await
    })
    .await
}

#[tokio::test]
async fn a_missing_required_file_is_named() -> Result<()> {
    shared("verdict-required-file", async |scene| {
        let folder = upload(scene)?;
        scene.s3.delete(scene.bucket(), &[&key("tokenizer.json")])?;
        let mut spec = scene.s3_spec(PREFIX, &["model"]);
        spec["validation"] = json!({"requiredFiles": ["config.json", "tokenizer.json"]});
        let damage = Damage { reason: "MissingRequiredFile", said: &["tokenizer.json"] };
        is_refused(scene, "model", spec, &damage).await?;
        scene.s3.put(scene.bucket(), &[(&key("tokenizer.json"), Body::File(&folder.join("tokenizer.json")))])?;
        heals(scene, "model", folder).await
    })
    .await
}

#[tokio::test]
async fn a_format_that_is_not_allowed_is_refused() -> Result<()> {
    shared("verdict-format", async |scene| {
        let folder = upload(scene)?;
        let mut spec = scene.s3_spec(PREFIX, &["model"]);
        spec["validation"] = json!({"formats": ["PeftAdapter"]});
        let damage = Damage { reason: "FormatNotAllowed", said: &["HuggingFace", "PeftAdapter"] };
        is_refused(scene, "model", spec.clone(), &damage).await?;
        // Here the spec is what is repaired, and that needs no annotation.
        spec["validation"] = json!({"formats": ["PeftAdapter", "HuggingFace"]});
        scene.checkpoint("model", spec).await?;
        assert_eq!(scene.output("model-consumer").await?, hashes_of(folder)?);
        Ok(())
    })
    .await
}

/// A pin on content that differs in a file that no format looks into. With a volume of everything the load itself finds
/// it; with a filtered volume the inspection has to read everything.
#[tokio::test]
async fn content_that_is_not_what_the_pin_says_is_not_published() -> Result<()> {
    shared("verdict-digest-pin", async |scene| {
        let folder = upload(scene)?;
        let mut spec = scene.s3_spec(PREFIX, &[]);
        spec["validation"] = json!({"depth": "Content"});
        scene.checkpoint("reference", spec).await?;
        let digest = text(&scene.ready("reference").await?.data, "/status/digest").to_owned();
        assert!(digest.starts_with("blake3:"), "{digest:?}");

        let file = "generation_config.json";
        scene.s3.put(scene.bucket(), &[(&key(file), Body::Bytes(br#"{"eos_token_id": 3}"#))])?;
        let damage = Damage { reason: "DigestMismatch", said: &[&digest, "validation.digest"] };
        let mut whole = scene.s3_spec(PREFIX, &["whole"]);
        whole["validation"] = json!({"digest": digest});
        is_refused(scene, "whole", whole, &damage).await?;
        let mut filtered = scene.s3_spec(PREFIX, &["filtered"]);
        filtered["validation"] = json!({"digest": digest});
        filtered["volumes"][0]["exclude"] = json!(["tokenizer*"]);
        is_refused(scene, "filtered", filtered, &damage).await?;

        scene.s3.put(scene.bucket(), &[(&key(file), Body::File(&folder.join(file)))])?;
        heals(scene, "whole", folder).await?;
        scene.revalidate("filtered", "repaired").await?;
        assert_eq!(text(&scene.ready("filtered").await?.data, "/status/digest"), digest);
        Ok(())
    })
    .await
}

/// Pickles that are only read here, never loaded by anything that follows imports: one of plain data, one that would call
/// `builtins.print`, as torch.save and joblib never do.
const PICKLES: &str = "
import base64, pickle
class Marker:
    def __reduce__(self):
        return (print, ('a marker',))
for value in ({'step': 3}, {'model': Marker()}):
    print(base64.b64encode(pickle.dumps(value, protocol=2)).decode())
";

#[tokio::test]
async fn a_pickle_that_would_run_code_is_refused_by_its_import_until_it_is_left_out_or_allowed() -> Result<()> {
    shared("verdict-pickle", async |scene| {
        let folder = upload(scene)?;
        let printed = python::evaluate(PICKLES, &[])?;
        let pickles: Vec<Vec<u8>> = printed.lines().map(|line| Ok(STANDARD.decode(line)?)).collect::<Result<_>>()?;
        let [plain, marker] = pickles.as_slice() else { bail!("two pickles were expected: {printed}") };
        scene.put(PREFIX, &[("state.pkl", plain), ("extra/weights.dat", marker)])?;
        let spec = scene.s3_spec(PREFIX, &["model"]);
        let damage =
            Damage { reason: "UnsafePickle", said: &["extra/weights.dat", "builtins.print", "validation.pickle"] };
        is_refused(scene, "model", spec.clone(), &damage).await?;

        // What no volume takes is not judged by the policy.
        let mut without = scene.s3_spec(PREFIX, &["without"]);
        without["volumes"][0]["exclude"] = json!(["extra"]);
        scene.checkpoint("without", without).await?;
        let ready = scene.ready("without").await?;
        assert_eq!(text(&ready.data, "/status/contents/pickle"), "Code");

        let mut allowed = spec;
        allowed["validation"] = json!({"pickle": "Allow"});
        scene.checkpoint("model", allowed).await?;
        scene.ready("model").await?;
        assert!(scene.output("model-consumer").await?.contains("extra/weights.dat"));
        assert!(!hashes_of(folder)?.contains("weights.dat"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn code_that_comes_with_a_model_is_reported_and_forbidden_on_request() -> Result<()> {
    shared("verdict-code", async |scene| {
        upload(scene)?;
        scene.put(PREFIX, &[("modeling_own.py", b"class Own:\n    pass\n")])?;
        let mut strict = scene.s3_spec(PREFIX, &["strict"]);
        strict["validation"] = json!({"code": "Forbid"});
        let damage = Damage { reason: "UnsafeCode", said: &["modeling_own.py", "validation.code"] };
        is_refused(scene, "strict", strict, &damage).await?;
        scene.checkpoint("model", scene.s3_spec(PREFIX, &["model"])).await?;
        let ready = scene.ready("model").await?;
        let code = ready.data["status"]["contents"]["code"].to_string();
        assert!(code.contains("modeling_own.py"), "{code}");
        Ok(())
    })
    .await
}
