//! The report of an inspection for people. No I/O.

use crate::{
    contract::{Format, Outcome, PickleTier, Report},
    plan::quantity::human,
};

use super::table::{Table, count, signed_count, text};

/// Findings that are shown; the rest is counted, and stands in `-o json`.
const FINDINGS: usize = 50;

/// The facts, then what was noticed.
#[must_use]
pub fn tables(report: &Report) -> String {
    let mut facts = Table::facts();
    let reason = report.reason.map_or("", |reason| reason.as_str());
    let (verdict, mood) = match report.outcome {
        Outcome::Good => ("good", Some(true)),
        Outcome::Bad => ("bad", Some(false)),
        Outcome::Failed => ("none", None),
    };
    facts.row(vec![text("Verdict"), text(format!("{verdict} ({reason})")).mood(mood)]);
    facts.fact("Message", Some(&report.message).filter(|message| !message.is_empty()));
    if let Some(source) = &report.source {
        facts.fact("Location", Some(&source.uri));
        facts.fact("Files", Some(count(source.files)));
        facts.fact("Size", Some(format!("{} ({} bytes)", human(source.bytes), count(source.bytes))));
        facts.fact("Fingerprint", Some(&source.fingerprint));
    }
    contents(&mut facts, report);
    facts.fact("Digest", report.digest.as_ref());
    facts.fact("Metadata", report.metadata.as_ref().map(ToString::to_string));
    let mut out = facts.render();
    if !report.findings.is_empty() {
        out.push('\n');
        out.push_str(&findings(report));
    }
    out
}

fn contents(facts: &mut Table, report: &Report) {
    let Some(contents) = &report.contents else { return };
    facts.fact("Format", contents.format.map(Format::as_str));
    facts.fact("Architecture", contents.architecture.as_ref());
    facts.fact("Base model", contents.base_model.as_ref());
    facts.fact("Quantization", contents.quantization.as_ref());
    facts.fact("Framework", contents.framework.as_ref());
    facts.fact("Tensors", contents.tensors.map(signed_count));
    facts.fact("Parameters", contents.parameters.map(signed_count));
    let pairs = |pairs: Vec<String>| (!pairs.is_empty()).then(|| pairs.join(", "));
    facts.fact(
        "Data types",
        pairs(contents.dtypes.iter().map(|(name, number)| format!("{name} {}", signed_count(*number))).collect()),
    );
    facts
        .fact("Versions", pairs(contents.versions.iter().map(|(name, version)| format!("{name} {version}")).collect()));
    for line in &contents.signature {
        facts.fact("Signature", Some(line));
    }
    facts.fact("Step", contents.step.map(signed_count));
    facts.fact("Epoch", contents.epoch.as_ref());
    facts.fact("Metrics", pairs(contents.metrics.iter().map(|(name, value)| format!("{name}={value}")).collect()));
    facts.fact("Pickles", contents.pickle.map(PickleTier::as_str));
    for code in &contents.code {
        facts.fact("Code", Some(code));
    }
    for component in &contents.components {
        facts.fact(
            "Also",
            Some(format!(
                "{} {}",
                component.format.as_str(),
                if component.path.is_empty() { "." } else { &component.path }
            )),
        );
    }
}

fn findings(report: &Report) -> String {
    let mut table = Table::new(&["FINDING", "FILE", "MESSAGE"]);
    for finding in report.findings.iter().take(FINDINGS) {
        table.row(vec![
            text(finding.reason.as_str()).mood(finding.fatal.then_some(false)),
            text(finding.file.clone().unwrap_or_default()),
            text(&finding.message),
        ]);
    }
    let mut out = table.render();
    if report.findings.len() > FINDINGS {
        let more = report.findings.len() - FINDINGS;
        out.extend(["... and ", &count(more as u64), " more: see -o json\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Contents, Finding, Reason, SourceFacts, TaskKind};

    #[test]
    fn facts_and_findings_are_shown() {
        let mut report = Report::new(TaskKind::Inspect, Outcome::Bad, Reason::Incomplete, "a shard is missing");
        report.source = Some(SourceFacts { uri: "s3://b/x".into(), fingerprint: "f".into(), files: 1000, bytes: 2048 });
        report.contents = Some(Contents {
            format: Some(Format::HuggingFace),
            parameters: Some(8_030_261_248),
            dtypes: [("BF16".to_owned(), 5)].into(),
            ..Contents::default()
        });
        let finding =
            Finding { reason: Reason::Incomplete, file: Some("m.bin".into()), message: "gone".into(), fatal: true };
        report.findings = vec![finding; 60];
        let shown = tables(&report);
        for expected in [
            "bad (Incomplete)",
            "a shard is missing",
            "1,000",
            "2.0 KiB (2,048 bytes)",
            "HuggingFace",
            "8,030,261,248",
            "BF16 5",
            "m.bin",
            "and 10 more",
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
    }
}
