//! Checkpoints with their status: the columns of `kubectl get`, the volumes, and what is not as it should be. No I/O.

use std::time::Duration;

use crate::{
    api::{Checkpoint, CheckpointStatus, Phase, VolumeStatus},
    contract::ConditionType,
    local::condition,
    plan::quantity::human,
};

use super::table::{Table, duration, number, signed_count, text};

/// The Checkpoints, their volumes, and the messages of conditions that are not met.
#[must_use]
pub fn tables(checkpoints: &[&Checkpoint]) -> String {
    let mut table =
        Table::new(&["NAME", "FORMAT", "STEP", "FILES", "SIZE", "PARAMETERS", "PROGRESS", "READY", "REASON"]);
    let mut volumes = Table::new(&["CLAIM", "PHASE", "SIZE", "RATE", "LEFT", "DIGEST"]);
    let mut any_volume = false;
    let mut remarks = String::new();
    for checkpoint in checkpoints {
        let name = checkpoint.metadata.name.as_deref().unwrap_or_default();
        let status = checkpoint.status.clone().unwrap_or_default();
        row(&mut table, name, &status);
        for volume in &status.volumes {
            any_volume = true;
            volume_row(&mut volumes, volume);
        }
        if let Some(remark) = remark(name, &status) {
            remarks.push_str(&remark);
        }
    }
    let mut out = table.render();
    if any_volume {
        out.push('\n');
        out.push_str(&volumes.render());
    }
    if !remarks.is_empty() {
        out.push('\n');
        out.push_str(&remarks);
    }
    out
}

fn row(table: &mut Table, name: &str, status: &CheckpointStatus) {
    let contents = status.contents.clone().unwrap_or_default();
    let source = status.source.clone().unwrap_or_default();
    let ready = condition(&status.conditions, ConditionType::Ready);
    let value = ready.map_or("Unknown", |ready| ready.status.as_str());
    let mood = match value {
        "True" => Some(true),
        "False" => Some(false),
        _ => None,
    };
    table.row(vec![
        text(name),
        text(contents.format.map_or("", |format| format.as_str())),
        number(contents.step.map(signed_count).unwrap_or_default()),
        number(source.files.map(signed_count).unwrap_or_default()),
        number(source.bytes.map(size).unwrap_or_default()),
        number(contents.parameters.map(signed_count).unwrap_or_default()),
        number(status.progress.clone().unwrap_or_default()),
        text(value).mood(mood),
        text(ready.map_or("", |ready| ready.reason.as_str())),
    ]);
}

fn volume_row(table: &mut Table, volume: &VolumeStatus) {
    let mood = match volume.phase {
        Phase::Published => Some(true),
        Phase::Failed => Some(false),
        _ => None,
    };
    let seconds = volume.remaining_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    table.row(vec![
        text(&volume.claim_name),
        text(format!("{:?}", volume.phase)).mood(mood),
        number(volume.bytes_total.map(size).unwrap_or_default()),
        number(volume.bytes_per_second.map(|rate| format!("{}/s", size(rate))).unwrap_or_default()),
        number(seconds.map(|seconds| duration(Duration::from_secs(seconds))).unwrap_or_default()),
        text(volume.digest.clone().unwrap_or_default()),
    ]);
}

fn remark(name: &str, status: &CheckpointStatus) -> Option<String> {
    let ready = condition(&status.conditions, ConditionType::Ready)?;
    (ready.status != "True").then(|| format!("{name}: {}: {}\n", ready.reason, ready.message))
}

fn size(bytes: i64) -> String {
    human(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_shows_what_matters() {
        let status = serde_json::json!({
            "source": {"uri": "s3://b/x", "files": 14, "bytes": 16_060_522_496_i64},
            "contents": {"format": "HuggingFace", "step": 12000},
            "progress": "45%",
            "volumes": [{"claimName": "llama", "phase": "Loading", "bytesTotal": 1024, "bytesPerSecond": 1024, "remainingSeconds": 61}],
            "conditions": [{"type": "Ready", "status": "False", "reason": "Incomplete", "message": "x is missing", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        let mut checkpoint = Checkpoint::new("llama-sft", Default::default());
        checkpoint.status = Some(serde_json::from_value(status).unwrap());
        let shown = tables(&[&checkpoint]);
        for expected in [
            "llama-sft",
            "HuggingFace",
            "12,000",
            "15.0 GiB",
            "45%",
            "1.0 KiB/s",
            "1m01s",
            "llama-sft: Incomplete: x is missing\n",
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
        assert!(tables(&[&Checkpoint::new("empty", Default::default())]).contains("Unknown"));
    }
}
