//! The report of an inspection for people. No I/O.

use std::cmp::Reverse;

use crate::{
    contract::{Finding, Format, Outcome, PickleTier, Reason, Report},
    plan::quantity::human,
};

use super::table::{Table, count, signed_count, text};

/// Findings that are shown; the rest is counted, and stands in `-o json`.
const FINDINGS: usize = 50;
/// Parts and pieces of code that are shown.
const LISTED: usize = 10;
/// Characters of the metadata that are shown.
const METADATA: usize = 400;

/// The verdict and the facts, then what else was noticed; lines are wrapped for a terminal of so many columns.
#[must_use]
pub fn tables(report: &Report, columns: Option<usize>) -> String {
    let mut facts = Table::facts();
    let reason = report.reason.map_or("", |reason| reason.as_str());
    let (verdict, mood) = match report.outcome {
        Outcome::Good => ("good", Some(true)),
        Outcome::Bad => ("bad", Some(false)),
        Outcome::Failed => ("none", None),
    };
    facts.row(vec![text("Verdict").heading(), text(format!("{verdict} ({reason})")).mood(mood)]);
    facts.fact("Message", Some(&report.message).filter(|message| !message.is_empty()));
    facts.fact("Option", option(report));
    if let Some(source) = &report.source {
        facts.fact("Location", Some(&source.uri));
    }
    contents(&mut facts, report);
    if let Some(source) = &report.source {
        facts.fact("Files", Some(count(source.files)));
        facts.fact("Size", Some(size(source.bytes)));
        facts.fact("Fingerprint", Some(format!("{} (of names, sizes and versions)", source.fingerprint)));
    }
    facts.fact("Digest", report.digest.as_ref().map(|digest| format!("{digest} (of the content)")));
    facts.fact("Metadata", report.metadata.as_ref().map(|metadata| shortened(&metadata.to_string())));
    let mut out = facts.render_within(columns);
    let others: Vec<&Finding> = report.findings.iter().filter(|finding| finding.message != report.message).collect();
    if !others.is_empty() {
        out.push('\n');
        out.push_str(&findings(&others, columns));
    }
    out
}

/// The option of `inspect` that accepts what was refused; messages name the field of a manifest.
fn option(report: &Report) -> Option<&'static str> {
    match report.reason? {
        Reason::UnsafePickle => Some("--pickle Allow accepts it, if you trust who made it"),
        Reason::UnsafeCode => Some("--code Allow accepts it, if you trust who made it"),
        Reason::InsecureEndpoint => Some("--insecure accepts it"),
        Reason::TlsFailed => Some("--ca-file FILE adds an authority"),
        _ => None,
    }
}

fn contents(facts: &mut Table, report: &Report) {
    let Some(contents) = &report.contents else { return };
    facts.fact("Format", contents.format.map(Format::as_str));
    let parts = contents.components.iter().map(|component| {
        let path = if component.path.is_empty() { "." } else { &component.path };
        format!("{path} ({})", component.format.as_str())
    });
    // A folder of one file is that file.
    let only = contents.components.len() == 1 && report.source.as_ref().is_some_and(|source| source.files == 1);
    list(facts, "Parts", parts.filter(|_| !only));
    facts.fact("Architecture", contents.architecture.as_ref());
    facts.fact("Base model", contents.base_model.as_ref());
    facts.fact("Quantization", contents.quantization.as_ref());
    facts.fact("Framework", contents.framework.as_ref());
    facts.fact("Tensors", contents.tensors.map(signed_count));
    facts.fact("Parameters", contents.parameters.map(signed_count));
    let pairs = |pairs: Vec<String>| (!pairs.is_empty()).then(|| pairs.join(", "));
    let mut types: Vec<_> = contents.dtypes.iter().collect();
    types.sort_by_key(|(_, number)| Reverse(**number));
    facts.fact(
        "Data types",
        pairs(types.into_iter().map(|(name, number)| format!("{} {name}", signed_count(*number))).collect()),
    );
    facts
        .fact("Versions", pairs(contents.versions.iter().map(|(name, version)| format!("{name} {version}")).collect()));
    for line in &contents.signature {
        facts.fact("Signature", Some(line));
    }
    facts.fact("Step", contents.step.map(signed_count));
    facts.fact("Epoch", contents.epoch.as_ref());
    facts.fact("Metrics", pairs(contents.metrics.iter().map(|(name, value)| format!("{name}={value}")).collect()));
    if let Some(tier) = contents.pickle {
        let mood = match tier {
            PickleTier::None | PickleTier::TensorsOnly | PickleTier::KnownSafe => Some(true),
            PickleTier::Unchecked => None,
            PickleTier::Code | PickleTier::Dangerous => Some(false),
        };
        facts.row(vec![text("Pickles").heading(), text(format!("{} ({})", tier.as_str(), meaning(tier))).mood(mood)]);
    }
    list(facts, "Code", contents.code.iter().cloned());
}

/// What a tier says, for those who do not know its name.
fn meaning(tier: PickleTier) -> &'static str {
    match tier {
        PickleTier::None => "none, or plain data",
        PickleTier::TensorsOnly => "tensors and plain data",
        PickleTier::KnownSafe => "also well-known classes of training libraries",
        PickleTier::Unchecked => "could not be looked into",
        PickleTier::Code => "loading them may run code",
        PickleTier::Dangerous => "loading them runs commands, opens files or loads code",
    }
}

/// Several values of one name, which is said once.
fn list(facts: &mut Table, name: &str, values: impl Iterator<Item = String>) {
    let values: Vec<String> = values.collect();
    for (number, value) in values.iter().take(LISTED).enumerate() {
        facts.row(vec![text(if number == 0 { name } else { " " }).heading(), text(value)]);
    }
    if values.len() > LISTED {
        let more = count((values.len() - LISTED) as u64);
        facts.row(vec![text(" "), text(format!("... and {more} more: see -o json"))]);
    }
}

fn size(bytes: u64) -> String {
    if bytes < 1024 { human(bytes) } else { format!("{} ({} bytes)", human(bytes), count(bytes)) }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(METADATA) {
        Some((end, _)) => format!("{} ... (see -o json)", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

/// Messages name their files, so that there is no column of files, which can be long.
fn findings(findings: &[&Finding], columns: Option<usize>) -> String {
    let mut table = Table::new(&["NOTICED", "REASON", "WHAT IS THE MATTER, AND WHAT TO DO"]);
    for finding in findings.iter().take(FINDINGS) {
        let severity = if finding.fatal { "problem" } else { "warning" };
        let message = match &finding.file {
            Some(file) if !finding.message.contains(file.as_str()) => format!("{file}: {}", finding.message),
            _ => finding.message.clone(),
        };
        let mood = if finding.fatal { Some(false) } else { None };
        table.row(vec![text(severity).mood(mood), text(finding.reason.as_str()), text(message)]);
    }
    let mut out = table.render_within(columns);
    if findings.len() > FINDINGS {
        let more = findings.len() - FINDINGS;
        out.extend(["... and ", &count(more as u64), " more: see -o json\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Component, Contents, SourceFacts, TaskKind};

    #[test]
    fn facts_and_findings_are_shown() {
        let mut report = Report::new(TaskKind::Inspect, Outcome::Bad, Reason::Incomplete, "a shard is missing");
        report.source = Some(SourceFacts { uri: "s3://b/x".into(), fingerprint: "f".into(), files: 1000, bytes: 2048 });
        report.contents = Some(Contents {
            format: Some(Format::HuggingFace),
            parameters: Some(8_030_261_248),
            dtypes: [("BF16".to_owned(), 5), ("F32".to_owned(), 6)].into(),
            pickle: Some(PickleTier::Code),
            code: (0..12).map(|number| format!("{number}.py: Python code")).collect(),
            components: vec![Component { path: "a/".into(), format: Format::Torch }],
            ..Contents::default()
        });
        let finding =
            Finding { reason: Reason::Incomplete, file: Some("m.bin".into()), message: "gone".into(), fatal: true };
        report.findings = vec![finding; 60];
        let shown = tables(&report, None);
        for expected in [
            "bad (Incomplete)",
            "a shard is missing",
            "1,000",
            "2.0 KiB (2,048 bytes)",
            "HuggingFace",
            "8,030,261,248",
            "6 F32, 5 BF16",
            "Code (loading them may run code)",
            "a/ (Torch)",
            "Code          0.py: Python code\n              1.py",
            "and 2 more",
            "problem   Incomplete   m.bin: gone",
            "and 10 more",
        ] {
            let shown = console::strip_ansi_codes(&shown);
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
    }

    #[test]
    fn what_the_message_says_is_not_said_twice() {
        let message = "m.pkl imports os.system";
        let mut report = Report::new(TaskKind::Inspect, Outcome::Bad, Reason::UnsafePickle, message);
        let finding =
            Finding { reason: Reason::UnsafePickle, file: Some("m.pkl".into()), message: message.into(), fatal: true };
        report.findings = vec![finding];
        report.metadata = Some(serde_json::json!({"x": "ü".repeat(1000)}));
        let shown = tables(&report, Some(80));
        assert_eq!(shown.matches("imports").count(), 1, "{shown}");
        assert!(shown.contains("--pickle Allow") && shown.contains("see -o json"), "{shown}");
    }
}
