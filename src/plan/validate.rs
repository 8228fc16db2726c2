//! Turns a spec into an intent that builders can trust, or says what is wrong with it. Pure, no I/O.
//!
//! The schema refuses most of this already; it is checked again because a schema can be older than the controller, and
//! because the same manifest is read on a laptop, where there is no API server.

use std::{collections::BTreeSet, time::Duration};

use crate::{
    api::{AccessMode, Checkpoint, Volume},
    contract::{
        InlineTask, Reason, Source,
        digest::filter_hash,
        filter::{Filter, Pattern},
    },
};

use super::{
    quantity,
    source::{self, Located},
};

/// What a Checkpoint asks for, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Intent {
    /// Where to read.
    pub source: Source,
    /// The location in full, for status.
    pub uri: String,
    /// The text of inline data.
    pub inline: Option<String>,
    /// The volumes, in the order of the spec.
    pub volumes: Vec<VolumeIntent>,
    /// How often to look at the source again.
    pub revalidate_every: Option<Duration>,
}

impl Intent {
    /// The intent of a spec that asks for nothing that can be done.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            source: Source::Inline(InlineTask::default()),
            uri: String::new(),
            inline: None,
            volumes: Vec::new(),
            revalidate_every: None,
        }
    }
}

/// A volume, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct VolumeIntent {
    /// The entry.
    pub volume: Volume,
    /// Its filter.
    pub filter: Filter,
    /// [`filter_hash`] of it.
    pub filter_hash: String,
    /// The requested size in bytes, if the user set one.
    pub size: Option<u64>,
}

impl VolumeIntent {
    /// How many pods load the volume together.
    #[must_use]
    pub fn workers(&self) -> u32 {
        self.volume.parallelism.unwrap_or(1).max(1)
    }

    /// The access modes of the target claim.
    #[must_use]
    pub fn access_modes(&self) -> Vec<AccessMode> {
        if self.volume.access_modes.is_empty() {
            vec![AccessMode::ReadWriteOnce]
        } else {
            self.volume.access_modes.clone()
        }
    }
}

/// A spec that cannot be carried out.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSpec {
    /// `InvalidSpec`, `InvalidPath` or `InsecureEndpoint`.
    pub reason: Reason,
    /// The field and what to write instead.
    pub message: String,
}

/// A spec that is wrong in a way that has no reason of its own.
pub(super) fn invalid(message: impl Into<String>) -> InvalidSpec {
    InvalidSpec { reason: Reason::InvalidSpec, message: message.into() }
}

/// Checks the spec.
///
/// # Errors
/// The first thing that is wrong, with the field and the remedy.
pub fn validate(checkpoint: &Checkpoint) -> Result<Intent, InvalidSpec> {
    let spec = &checkpoint.spec;
    let Located { source, uri, inline } = source::locate(&spec.path, spec.storage.as_ref())?;
    for (index, glob) in spec.validation.required_files.iter().enumerate() {
        Pattern::new(glob).map_err(|error| invalid(format!("validation.requiredFiles[{index}]: {error}")))?;
    }
    if let Some(pin) = &spec.validation.digest {
        let hex = pin.strip_prefix("blake3:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(invalid(
                "validation.digest must be blake3: and 64 hexadecimal digits, as status.digest shows it",
            ));
        }
    }
    let mut names = BTreeSet::new();
    let mut volumes = Vec::with_capacity(spec.volumes.len());
    for (index, volume) in spec.volumes.iter().enumerate() {
        let checked = check_volume(volume).map_err(|error| invalid(format!("volumes[{index}].{error}")))?;
        if !names.insert(&volume.claim_name) {
            return Err(invalid(format!("volumes[{index}].claimName: {:?} stands there twice", volume.claim_name)));
        }
        if matches!(&source, Source::Claim { claim_name, .. } if *claim_name == volume.claim_name) {
            return Err(invalid(format!(
                "volumes[{index}].claimName: {:?} is the source and cannot be a target as well; choose another name",
                volume.claim_name
            )));
        }
        volumes.push(checked);
    }
    if let Some(worker) = &spec.worker {
        let placement = worker.placement.as_ref();
        check_affinity(placement).map_err(|error| invalid(format!("worker.placement.{error}")))?;
        if worker.run_as_user == Some(0) {
            return Err(invalid("worker.runAsUser must not be 0: workers run without root"));
        }
    }
    let revalidate_every = spec.revalidate_every.as_deref().map(revalidate_every).transpose()?;
    Ok(Intent { source, uri, inline, volumes, revalidate_every })
}

/// Most pods that load a volume together.
const MOST_WORKERS: u32 = 64;

fn check_volume(volume: &Volume) -> Result<VolumeIntent, String> {
    if !is_dns_label(&volume.claim_name) {
        return Err(format!("claimName: {:?} is not a name that Kubernetes accepts", volume.claim_name));
    }
    if let Some(name) = &volume.reuse_from {
        if name.len() > 253 || !name.split('.').all(is_dns_label) {
            return Err(format!("reuseFrom: {name:?} is not the name of a claim"));
        }
        if *name == volume.claim_name {
            return Err(format!(
                "reuseFrom: {name:?} is the claim of this entry; name the claim of an earlier checkpoint"
            ));
        }
    }
    let filter = Filter { include: volume.include.clone(), exclude: volume.exclude.clone() };
    filter.compile().map_err(|error| format!("include or exclude: {error}"))?;
    let size = volume
        .size
        .as_ref()
        .map(|amount| {
            let bytes = quantity::amount_bytes(amount).filter(|bytes| *bytes > 0);
            bytes.ok_or_else(|| format!("size: {amount} is not an amount of bytes such as 20Gi"))
        })
        .transpose()?;
    check_affinity(volume.placement.as_ref()).map_err(|error| format!("placement.{error}"))?;
    let modes = &volume.access_modes;
    if modes.contains(&AccessMode::ReadWriteOncePod) && modes.len() > 1 {
        return Err("accessModes: ReadWriteOncePod cannot be combined with other modes".to_owned());
    }
    let workers = volume.parallelism.unwrap_or(1);
    if !(1..=MOST_WORKERS).contains(&workers) {
        return Err(format!("parallelism: {workers} is not between 1 and {MOST_WORKERS}"));
    }
    if workers > 1 && !modes.contains(&AccessMode::ReadWriteMany) {
        return Err("parallelism needs a volume that several pods can write: add ReadWriteMany to accessModes, of a \
                    storage class that has it"
            .to_owned());
    }
    Ok(VolumeIntent { volume: volume.clone(), filter_hash: filter_hash(&filter), filter, size })
}

fn check_affinity(placement: Option<&crate::api::Placement>) -> Result<(), String> {
    let Some(affinity) = placement.and_then(|placement| placement.affinity.clone()) else { return Ok(()) };
    serde_json::from_value::<k8s_openapi::api::core::v1::Affinity>(affinity)
        .map(drop)
        .map_err(|error| format!("affinity is not a pod's affinity: {error}"))
}

fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 63 && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

fn revalidate_every(text: &str) -> Result<Duration, InvalidSpec> {
    let problem = || invalid("revalidateEvery must be a duration of at least 5m, such as 30m or 24h");
    let mut seconds = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let at = rest.find(|character: char| !character.is_ascii_digit()).ok_or_else(problem)?;
        let number: u64 = rest[..at].parse().map_err(|_| problem())?;
        let unit = match &rest[at..=at] {
            "h" => 3600,
            "m" => 60,
            "s" => 1,
            _ => return Err(problem()),
        };
        seconds = number.checked_mul(unit).and_then(|more| seconds.checked_add(more)).ok_or_else(problem)?;
        rest = &rest[at + 1..];
    }
    // A year and more is as good as never, and keeps arithmetic with time stamps safe.
    if (300..=400 * 86400).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(problem()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::contract::S3Task;

    fn check(spec: serde_json::Value) -> Result<Intent, InvalidSpec> {
        validate(&Checkpoint { spec: serde_json::from_value(spec).unwrap(), ..Checkpoint::default() })
    }

    fn s3(spec: serde_json::Value) -> S3Task {
        match check(spec).unwrap().source {
            Source::S3(task) => task,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn places_are_understood() {
        let bucket = json!({"s3": {"bucket": "models"}});
        for (spec, uri) in [
            (json!({"path": "a/b", "storage": bucket}), "s3://models/a/b"),
            (json!({"path": "a/b/", "storage": bucket}), "s3://models/a/b"),
            (json!({"storage": bucket}), "s3://models"),
            (json!({"path": "s3://models/a b/100%/ü+"}), "s3://models/a b/100%/ü+"),
            (json!({"path": "s3://models"}), "s3://models"),
            (json!({"path": "pvc://claim/x"}), "pvc://claim/x"),
            (json!({"path": "x", "storage": {"persistentVolumeClaim": {"claimName": "claim"}}}), "pvc://claim/x"),
            (json!({"storage": {"inline": {"json": "{}"}}}), "inline:"),
        ] {
            assert_eq!(check(spec.clone()).unwrap().uri, uri, "{spec}");
        }
    }

    #[test]
    fn rays_query_is_understood() {
        let insecure = json!({"s3": {"insecure": true}});
        let task =
            s3(json!({"path": "s3://b-b/p?endpoint_override=minio:9000&scheme=http&region=eu", "storage": insecure}));
        assert_eq!(task.endpoint.as_deref(), Some("http://minio:9000"));
        assert_eq!((task.region.as_str(), task.path.as_str(), task.virtual_hosted), ("eu", "p", false));
        let task = s3(json!({"path": "s3://b-b/p?endpoint_override=minio:9000"}));
        assert_eq!(task.endpoint.as_deref(), Some("https://minio:9000"));
        let task = s3(json!({"path": "s3://b-b/p?endpoint_override=https://minio:9000&scheme=http"}));
        assert_eq!(task.endpoint.as_deref(), Some("https://minio:9000"), "what the endpoint says itself");
        let task = s3(json!({"path": "s3://b-b/p?region=eu-west-1", "storage": {"s3": {"region": "us-east-1"}}}));
        assert_eq!((task.region.as_str(), task.endpoint, task.virtual_hosted), ("eu-west-1", None, true));
        let of = |query: &str| check(json!({"path": format!("s3://b-b/p?{query}")})).unwrap_err();
        for (query, reason, part) in [
            ("endpoint_override=minio:9000&scheme=http", Reason::InsecureEndpoint, "storage.s3.insecure: true"),
            ("endpoint_override=http%3A%2F%2Fminio%3A9000", Reason::InvalidSpec, "never percent-decoded"),
            ("endpoint_override=minio:9000&scheme=ftp", Reason::InvalidSpec, "ftp://minio:9000"),
            ("endpoint_override=u:p@minio", Reason::InvalidSpec, "storage.s3.endpoint"),
            ("endpoint_override=", Reason::InvalidSpec, "storage.s3.endpoint"),
            ("anonymous=true", Reason::InvalidSpec, "only endpoint_override, scheme and region"),
            ("region", Reason::InvalidSpec, "\"region\" is not understood"),
            ("region=eu", Reason::InvalidSpec, "no region of Amazon"),
        ] {
            let refused = of(query);
            assert_eq!(refused.reason, reason, "{query}: {refused}");
            assert!(refused.message.contains(part), "{query}: {refused}");
        }
    }

    #[test]
    fn regions_of_amazon_are_told_from_what_is_none() {
        let of = |region: &str, endpoint: Option<&str>| {
            check(json!({"path": "p", "storage": {"s3": {"bucket": "b", "region": region, "endpoint": endpoint}}}))
        };
        for region in
            ["us-east-1", "ap-southeast-15", "us-gov-west-1", "cn-north-1", "eusc-de-east-1", "us-isob-east-1"]
        {
            assert!(of(region, None).is_ok(), "{region}");
        }
        for region in ["eu", "eu-west", "eu-west-1a", "EU-WEST-1", "eu_west_1", "Ireland", "eu--1", "1", "-"] {
            let refused = of(region, None).unwrap_err();
            assert_eq!(refused.reason, Reason::InvalidSpec, "{region}");
            assert!(refused.message.contains(&format!("storage.s3.region: {region:?}")), "{refused}");
            assert!(of(region, Some("https://minio:9000")).is_ok(), "others call theirs as they like: {region}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_a_remedy() {
        let bucket = |path: &str| json!({"path": path, "storage": {"s3": {"bucket": "models"}}});
        let volume = |volume: serde_json::Value| json!({"path": "pvc://source/x", "volumes": [volume]});
        for (spec, reason, text) in [
            (bucket("/a"), Reason::InvalidPath, "slash at its start"),
            (bucket("a/../b"), Reason::InvalidPath, "\"..\""),
            (bucket("a//b"), Reason::InvalidPath, "\"\""),
            (bucket("a\nb"), Reason::InvalidPath, "not allowed"),
            (json!({}), Reason::InvalidSpec, "say where the data lies"),
            (json!({"path": "ftp://x/y"}), Reason::InvalidSpec, "ftp:// is not understood"),
            (json!({"path": "s3://u:p@b/y"}), Reason::InvalidSpec, "user name"),
            (json!({"path": "s3://b/y?versionId=3"}), Reason::InvalidSpec, "versionId=3"),
            (bucket("s3://b/y"), Reason::InvalidSpec, "names the bucket"),
            (json!({"storage": {"s3": {}}}), Reason::InvalidSpec, "storage.s3.bucket"),
            (json!({"path": "x", "storage": {"inline": {"json": "{}"}}}), Reason::InvalidSpec, "leave path out"),
            (
                json!({"storage": {"s3": {"bucket": "b", "endpoint": "http://x"}}}),
                Reason::InsecureEndpoint,
                "insecure: true",
            ),
            (json!({"storage": {"s3": {"bucket": "b", "endpoint": "https://u@x"}}}), Reason::InvalidSpec, "endpoint"),
            (volume(json!({"claimName": "source"})), Reason::InvalidSpec, "is the source"),
            (volume(json!({"claimName": "UPPER"})), Reason::InvalidSpec, "claimName"),
            (volume(json!({"claimName": "a", "include": ["["]})), Reason::InvalidSpec, "glob"),
            (volume(json!({"claimName": "a", "size": "0"})), Reason::InvalidSpec, "size"),
            (
                volume(json!({"claimName": "a", "placement": {"affinity": {"nodeAffinity": 3}}})),
                Reason::InvalidSpec,
                "affinity",
            ),
            (json!({"path": "s3://bbb", "revalidateEvery": "4m"}), Reason::InvalidSpec, "revalidateEvery"),
            (json!({"path": "s3://bbb", "revalidateEvery": "5"}), Reason::InvalidSpec, "revalidateEvery"),
            (json!({"path": "s3://bbb", "validation": {"digest": "blake3:xyz"}}), Reason::InvalidSpec, "digest"),
        ] {
            let refused = check(spec.clone()).expect_err(&spec.to_string());
            assert_eq!(refused.reason, reason, "{spec}: {refused}");
            assert!(refused.message.contains(text), "{spec}: {refused}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_safe(path in ".{0,60}", every in "[0-9hms]{0,8}", name in ".{0,10}") {
            let spec = json!({
                "path": path, "revalidateEvery": every, "storage": {"s3": {"bucket": "models"}},
                "volumes": [{"claimName": name}],
            });
            if let Ok(Intent { source: Source::S3(task), .. }) = check(spec) {
                prop_assert!(!task.path.split('/').any(|segment| matches!(segment, "." | "..")));
                prop_assert!(!task.path.starts_with('/') && !task.path.ends_with('/'));
            }
        }
    }
}
