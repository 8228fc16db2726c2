//! The report of a worker, and its bounded encoding in the termination message. Pure, no I/O.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Format, PickleTier, Reason, TaskKind, VERSION};

/// Largest termination message that the kubelet keeps, in bytes.
pub const TERMINATION_MESSAGE_LIMIT: usize = 4096;
/// Largest report in full, in bytes.
pub const REPORT_LIMIT: usize = 1 << 20;
/// Longest message of a report, in bytes.
pub const MESSAGE_LIMIT: usize = 1024;

/// What a worker found or did.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`super::VERSION`] of the writer.
    pub version: u32,
    /// What was asked.
    pub task: Option<TaskKind>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why: a reason of `Validated`, `SourceReachable` or `Materialized`.
    pub reason: Option<Reason>,
    /// What happened, naming the file, field or object, and what to do; at most [`MESSAGE_LIMIT`] bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The source as it was listed; none when it could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceFacts>,
    /// What each volume's filter selects, in the order of [`Task::volumes`](super::Task::volumes).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selections: Vec<Selection>,
    /// Facts about the checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<Contents>,
    /// The object in `.metadata.json`; none when there is no such file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Digest: for `Inspect` at depth `Content` and an unfiltered `Load` of the whole source, else of the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// What was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// All that was noticed, the verdict's reason first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Names of the members that were dropped to keep the bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<String>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Outcome {
    /// It was done, and the verdict is good.
    Good,
    /// It was done, and the verdict is bad.
    Bad,
    /// It could not be done.
    #[default]
    Failed,
}

/// The source as it was listed.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceFacts {
    /// The full location, without secrets.
    pub uri: String,
    /// [`super::digest::fingerprint`] of the listing.
    pub fingerprint: String,
    /// Number of files.
    pub files: u64,
    /// Sum of the sizes, in bytes.
    pub bytes: u64,
}

/// What a volume's filter selects.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    /// Number of files.
    pub files: u64,
    /// Sum of the sizes, in bytes.
    pub bytes: u64,
    /// [`super::filter::required_bytes`] of the files.
    pub required_bytes: u64,
}

/// What a load copied.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Number of files in the volume.
    pub files: u64,
    /// Bytes in the volume.
    pub bytes: u64,
    /// Bytes that were read from the source by this attempt.
    pub bytes_fetched: u64,
    /// Bytes of files and parts that an earlier attempt had left complete.
    pub bytes_kept: u64,
    /// Bytes that were taken from files of an earlier checkpoint, in this volume or in the claim of `reuseFrom`.
    #[serde(default)]
    pub bytes_reused: u64,
    /// Bytes of files that the source holds a checksum of, which was compared. The others are unverified at the source: what came
    /// is what is in the volume, and whether it is what was uploaded nobody can tell.
    #[serde(default)]
    pub bytes_verified: u64,
    /// Duration of this attempt, in milliseconds.
    pub milliseconds: u64,
}

/// Something that was noticed about a file, or about the whole.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The reason that a condition would show.
    pub reason: Reason,
    /// The file; none when it is about the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is the matter and what to do.
    pub message: String,
    /// Whether the verdict is bad because of it; a warning otherwise.
    pub fatal: bool,
}

/// Facts read from the checkpoint's own files.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// What the checkpoint is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// Number of tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<i64>,
    /// Number of parameters: the sum of the tensors' elements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<i64>,
    /// Parameters by data type, such as `{BF16: 8030261248}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dtypes: BTreeMap<String, i64>,
    /// The model's class, such as `LlamaForCausalLM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// The model that an adapter was trained on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// How the weights are quantised, such as `gptq`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantization: Option<String>,
    /// The library that wrote the checkpoint, and its version, such as `transformers 5.1.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub framework: Option<String>,
    /// Versions of libraries that the checkpoint names, such as `{mlflow: 3.17.2, python: 3.12.3}`; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub versions: BTreeMap<String, String>,
    /// What the model takes and gives, such as `input length: double`; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signature: Vec<String>,
    /// Training step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i64>,
    /// Training epoch; text, because it is often a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The latest evaluation metrics; text, because Kubernetes has no floating-point numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, String>,
    /// The most dangerous pickle among the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pickle: Option<PickleTier>,
    /// Other code that comes with the checkpoint, such as `modeling_x.py: Python code of the model (auto_map)`; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub code: Vec<String>,
    /// What else is in the folder, each with where it lies; at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Component>,
}

/// A part of a checkpoint with a format of its own.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// Its file, or its folder with a slash at the end; empty for the root.
    pub path: String,
    /// What it is.
    pub format: Format,
}

impl Report {
    /// A report with nothing in it but how it ended.
    #[must_use]
    pub fn new(task: TaskKind, outcome: Outcome, reason: Reason, message: impl Into<String>) -> Self {
        let message = clean(&message.into(), MESSAGE_LIMIT);
        Self { version: VERSION, task: Some(task), outcome, reason: Some(reason), message, ..Self::default() }
    }

    /// JSON of at most `limit` bytes. Findings, metadata, the signature, versions, metrics and dtypes are dropped in that
    /// order, then texts are shortened; what was dropped is listed in `truncated`. The result parses as a [`Report`] again for any limit of 1 KiB or more.
    #[must_use]
    pub fn encode(&self, limit: usize) -> String {
        let mut report = self.clone();
        report.message = clean(&report.message, MESSAGE_LIMIT);
        let drops: [(&str, Drop); 12] = [
            ("findings", |report| report.findings.clear()),
            ("metadata", |report| report.metadata = None),
            ("signature", |report| edit(report, |contents| contents.signature.clear())),
            ("versions", |report| edit(report, |contents| contents.versions.clear())),
            ("metrics", |report| edit(report, |contents| contents.metrics.clear())),
            ("dtypes", |report| edit(report, |contents| contents.dtypes.clear())),
            ("components", |report| edit(report, |contents| contents.components.clear())),
            ("code", |report| edit(report, |contents| contents.code.clear())),
            ("message", |report| report.message = clean(&report.message, 256)),
            ("contents", |report| {
                edit(report, |contents| {
                    for text in [
                        &mut contents.architecture,
                        &mut contents.base_model,
                        &mut contents.quantization,
                        &mut contents.framework,
                        &mut contents.epoch,
                    ] {
                        *text = text.take().map(|long| clean(&long, 32));
                    }
                });
            }),
            ("source.uri", |report| {
                if let Some(source) = &mut report.source {
                    source.uri = clean(&source.uri, 128);
                }
            }),
            ("selections", |report| report.selections.clear()),
        ];
        let mut text = json(&report);
        for (name, drop) in drops {
            if text.len() <= limit {
                break;
            }
            let before = report.clone();
            drop(&mut report);
            if report != before {
                report.truncated.push(name.to_owned());
            }
            text = json(&report);
        }
        text
    }

    /// The report in a termination message.
    ///
    /// # Errors
    /// When the text is not a report of this version.
    pub fn decode(text: &str) -> Result<Self, DecodeError> {
        let report: Self = serde_json::from_str(text).map_err(|error| DecodeError::Malformed(error.to_string()))?;
        if report.version == VERSION { Ok(report) } else { Err(DecodeError::Version(report.version)) }
    }
}

/// A termination message that is not a report.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or not a report.
    #[error("the termination message is not a report: {0}")]
    Malformed(String),
    /// A report of another version.
    #[error("the report has version {0}, this controller reads version {VERSION}")]
    Version(u32),
}

/// Takes something out of a report.
type Drop = fn(&mut Report);

fn edit(report: &mut Report, change: impl FnOnce(&mut Contents)) {
    if let Some(contents) = &mut report.contents {
        change(contents);
    }
}

fn json(report: &Report) -> String {
    serde_json::to_string(report).unwrap_or_default()
}

/// The text without control characters, at most `limit` bytes long; what was cut is marked with an ellipsis.
#[must_use]
pub fn clean(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(text.len().min(limit));
    for character in text.chars().map(|character| if character.is_control() { ' ' } else { character }) {
        if out.len() + character.len_utf8() > limit {
            while out.len() + '…'.len_utf8() > limit && out.pop().is_some() {}
            out.push('…');
            break;
        }
        out.push(character);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finding(message: String) -> Finding {
        Finding { reason: Reason::Corrupt, file: Some(message.clone()), message, fatal: true }
    }

    proptest! {
        #[test]
        fn any_report_fits_and_decodes(
            message in ".{0,3000}",
            uri in ".{0,2000}",
            text in ".{0,3000}",
            count in 0usize..40,
            key in ".{0,300}",
        ) {
            let mut report = Report::new(TaskKind::Inspect, Outcome::Bad, Reason::Corrupt, message);
            report.source = Some(SourceFacts { uri, fingerprint: format!("blake3:{}", "a".repeat(64)), files: u64::MAX, bytes: u64::MAX });
            report.selections = vec![Selection { files: u64::MAX, bytes: u64::MAX, required_bytes: u64::MAX }; 16];
            report.findings = (0..count).map(|_| finding(text.clone())).collect();
            report.metadata = Some(serde_json::json!({ key.clone(): text.clone() }));
            report.contents = Some(Contents {
                architecture: Some(text.clone()),
                base_model: Some(text.clone()),
                metrics: (0..count).map(|index| (format!("{key}{index}"), text.clone())).collect(),
                dtypes: (0..count).map(|index| (format!("{key}{index}"), 1)).collect(),
                signature: vec![text.clone(); count],
                versions: (0..count).map(|index| (format!("{key}{index}"), text.clone())).collect(),
                ..Contents::default()
            });
            let encoded = report.encode(TERMINATION_MESSAGE_LIMIT);
            prop_assert!(encoded.len() <= TERMINATION_MESSAGE_LIMIT, "{} bytes", encoded.len());
            let decoded = Report::decode(&encoded).unwrap();
            prop_assert_eq!(decoded.reason, report.reason);
            prop_assert_eq!(&decoded.source.unwrap().fingerprint, &report.source.unwrap().fingerprint);
        }

        #[test]
        fn clean_keeps_its_bound(text in ".{0,100}", limit in 3usize..50) {
            let cleaned = clean(&text, limit);
            prop_assert!(cleaned.len() <= limit);
            prop_assert!(!cleaned.chars().any(char::is_control));
        }
    }

    #[test]
    fn things_are_dropped_in_order_and_named() {
        let mut report = Report::new(TaskKind::Inspect, Outcome::Good, Reason::Complete, "fine");
        report.findings = vec![finding("x".repeat(5000))];
        report.metadata = Some(serde_json::json!({"kept": true}));
        let decoded = Report::decode(&report.encode(TERMINATION_MESSAGE_LIMIT)).unwrap();
        assert_eq!(decoded.truncated, ["findings"]);
        assert_eq!(decoded.metadata, report.metadata);
    }

    #[test]
    fn another_version_is_refused() {
        let report = Report { version: 2, ..Report::default() };
        assert_eq!(Report::decode(&report.encode(4096)), Err(DecodeError::Version(2)));
        assert!(matches!(Report::decode("oom"), Err(DecodeError::Malformed(_))));
    }
}
