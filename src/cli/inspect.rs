//! `inspect`: a verdict on a folder or a bucket. It is `run` with a manifest made from the arguments. Does I/O.

mod source;

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{Checkpoint, CheckpointSpec},
    contract::{
        CodePolicy, ConditionType, Depth, Format, Outcome, PicklePolicy, Reason, Report, TaskKind, Validation,
        report::REPORT_LIMIT,
    },
    local::{self, Display, Documents, LocalError, Perform, Run, Settings, condition},
    output::{self, report},
    storage::identity_of_a_person,
};

pub use source::SourceArguments;

use super::{INTERRUPTED, NOT_ASKED, fail, named, print, structured};

/// Names of the depths.
pub const DEPTHS: &[&str] = &["Listing", "Headers", "Content"];
/// Names of the pickle policies.
pub const PICKLES: &[&str] = &["Forbid", "TensorsOnly", "KnownSafe", "Allow"];
/// Names of the code policies.
pub const CODES: &[&str] = &["Forbid", "OptIn", "Allow"];
/// Names of the formats.
pub const FORMATS: &[&str] = &FORMAT_NAMES;
const FORMAT_NAMES: [&str; Format::ALL.len()] = {
    let mut names = [""; Format::ALL.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = Format::ALL[index].as_str();
        index += 1;
    }
    names
};

/// The name that a local folder has while it is inspected.
const FOLDER: &str = "folder";
const NAMESPACE: &str = "default";

/// What to inspect, and what is asked of it.
#[derive(Args, Clone, Debug)]
pub struct InspectArguments {
    /// A folder, or a URI: `s3://bucket/path`, `gs://bucket/path`, `abfs://container@account.dfs.core.windows.net/path`,
    /// `az://container/path`, `https://host/path`, `hf://organisation/repository[@revision]/path`.
    #[arg(value_name = "PATH-or-URI")]
    pub target: String,
    /// How much is read: names and sizes, a few small ranges of each file, or everything.
    #[arg(long, default_value = "Headers", ignore_case = true, value_parser = named::<Depth>(DEPTHS))]
    pub depth: Depth,
    /// Which pickles are accepted.
    #[arg(long, default_value = "KnownSafe", ignore_case = true, value_parser = named::<PicklePolicy>(PICKLES))]
    pub pickle: PicklePolicy,
    /// Which other code is accepted: none, what loaders run only when told to, or any.
    #[arg(long, default_value = "OptIn", ignore_case = true, value_parser = named::<CodePolicy>(CODES))]
    pub code: CodePolicy,
    /// A format that is accepted; can be repeated. Any when left out.
    #[arg(long = "format", value_name = "FORMAT", ignore_case = true, value_parser = named::<Format>(FORMATS))]
    pub formats: Vec<Format>,
    /// A glob that must match at least one file; can be repeated.
    #[arg(long = "required-file", value_name = "GLOB")]
    pub required_files: Vec<String>,
    /// The digest that the content must have: blake3: and 64 hexadecimal digits.
    #[arg(long, value_name = "DIGEST")]
    pub digest: Option<String>,
    /// How to reach what a URI names.
    #[command(flatten)]
    pub source: SourceArguments,
    /// How the report is printed.
    #[arg(short = 'o', long, value_enum, default_value = "table")]
    pub output: output::Format,
}

/// Inspects, and prints the report.
pub async fn inspect(
    arguments: &InspectArguments,
    performer: &dyn Perform,
    display: &dyn Display,
    cancel: &CancellationToken,
) -> ExitCode {
    let (documents, settings) = match question(arguments) {
        Ok(question) => question,
        Err(problem) => return fail(&problem),
    };
    let run = match local::run(&settings, &documents, performer, display, cancel).await {
        Ok(runs) => runs.into_iter().next(),
        Err(LocalError::Interrupted) => return ExitCode::from(INTERRUPTED),
        Err(problem) => return fail(&problem),
    };
    let mut report = run.map(answer).unwrap_or_default();
    if settings.places.contains_key(FOLDER) {
        show_folder(&mut report, &arguments.target);
    }
    match show(arguments.output, &report) {
        Ok(text) => print(&text),
        Err(problem) => return fail(&problem),
    }
    match report.outcome {
        Outcome::Good => ExitCode::SUCCESS,
        Outcome::Bad => ExitCode::FAILURE,
        Outcome::Failed => ExitCode::from(NOT_ASKED),
    }
}

/// The manifest that asks for this inspection.
fn question(arguments: &InspectArguments) -> Result<(Documents, Settings), String> {
    let mut documents = Documents::default();
    let mut settings = Settings { environment: identity_of_a_person(), ..Settings::default() };
    let (path, storage) = if arguments.target.contains("://") {
        if arguments.target.starts_with("pvc://") {
            return Err("there are no claims here: name the folder itself".to_owned());
        }
        source::as_person(&arguments.source, &mut settings.environment);
        (arguments.target.clone(), source::storage(&arguments.target, &arguments.source, &mut documents)?)
    } else {
        settings.places.insert(FOLDER.to_owned(), folder(&arguments.target)?);
        (format!("pvc://{FOLDER}"), None)
    };
    let spec = CheckpointSpec {
        path,
        storage,
        validation: Validation {
            depth: arguments.depth,
            formats: arguments.formats.clone(),
            required_files: arguments.required_files.clone(),
            digest: arguments.digest.clone(),
            pickle: arguments.pickle,
            code: arguments.code,
        },
        ..CheckpointSpec::default()
    };
    let mut checkpoint = Checkpoint::new("inspect", spec);
    checkpoint.metadata.namespace = Some(NAMESPACE.to_owned());
    documents.checkpoints.push(checkpoint);
    Ok((documents, settings))
}

fn folder(target: &str) -> Result<PathBuf, String> {
    let path = fs::canonicalize(target).map_err(|error| format!("{target}: {error}"))?;
    if path.is_dir() { Ok(path) } else { Err(format!("{target} is a file; name the folder that holds the checkpoint")) }
}

/// The worker's report; when there was no worker, what the status says.
fn answer(run: Run) -> Report {
    run.report.unwrap_or_else(|| {
        let conditions = run.checkpoint.status.map(|status| status.conditions).unwrap_or_default();
        let failed = [ConditionType::SourceReachable, ConditionType::Validated]
            .into_iter()
            .find_map(|kind| condition(&conditions, kind).filter(|condition| condition.status == "False"));
        let told = failed.or_else(|| condition(&conditions, ConditionType::Ready));
        let reason = told.and_then(|told| Reason::parse(&told.reason)).unwrap_or(Reason::InvalidSpec);
        Report::new(TaskKind::Inspect, Outcome::Failed, reason, told.map_or("", |told| told.message.as_str()))
    })
}

/// Names the folder as the user did, and not as a claim.
fn show_folder(report: &mut Report, target: &str) {
    let claim = format!("pvc://{FOLDER}");
    let rename = |text: &mut String| *text = text.replace(&claim, target).replace(&format!("claim {FOLDER}"), target);
    rename(&mut report.message);
    report.findings.iter_mut().for_each(|finding| rename(&mut finding.message));
    if let Some(source) = &mut report.source {
        rename(&mut source.uri);
    }
}

fn show(format: output::Format, found: &Report) -> Result<String, String> {
    if format == output::Format::Table {
        return Ok(report::tables(found, output::terminal_columns()));
    }
    let bounded = Report::decode(&found.encode(REPORT_LIMIT)).map_err(|error| error.to_string())?;
    structured(format, &bounded).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{cli::Arguments, plan::validate::validate};

    fn arguments(text: &str) -> InspectArguments {
        let words = ["x", "inspect"].into_iter().chain(text.split(' '));
        match Arguments::parse_from(words).command {
            super::super::Command::Inspect(arguments) => *arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bucket_becomes_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("AWS_ACCESS_KEY_ID"), "key").unwrap();
        fs::write(folder.path().join("ca.pem"), "PEM").unwrap();
        let text = format!(
            "s3://bucket/x --endpoint http://localhost:1 --insecure --secrets {0} --ca-file {0}/ca.pem --depth Listing",
            folder.path().display()
        );
        let (documents, settings) = question(&arguments(&text)).unwrap();
        let intent = validate(&documents.checkpoints[0]).unwrap();
        assert_eq!(intent.uri, "s3://bucket/x");
        assert!(settings.places.is_empty());
        assert_eq!(documents.secrets.values().next().unwrap()["AWS_ACCESS_KEY_ID"], b"key");
        assert_eq!(documents.config_maps.len(), 1);
        let (documents, _) = question(&arguments("s3://bucket/x --anonymous")).unwrap();
        validate(&documents.checkpoints[0]).unwrap();
    }

    #[test]
    fn every_kind_of_uri_becomes_a_manifest() {
        let folder = tempfile::tempdir().unwrap();
        for key in ["service-account.json", "AZURE_STORAGE_KEY", "HF_TOKEN", "token"] {
            fs::write(folder.path().join(key), "key").unwrap();
        }
        let secrets = format!("--secrets {}", folder.path().display());
        for (text, uri, hosts) in [
            ("gs://bucket/x --endpoint http://h:4443 --insecure", "gs://bucket/x", Some("h:4443")),
            ("gs://bucket/x", "gs://bucket/x", None),
            ("abfs://c@acct.dfs.core.windows.net/x", "abfs://c@acct.dfs.core.windows.net/x", None),
            ("az://c/x --account acct --endpoint https://h", "abfs://c@acct.dfs.core.windows.net/x", Some("h:443")),
            ("https://h/x --file a --file b", "https://h/x", Some("h:443")),
            ("https://h/x --manifest SHA256SUMS", "https://h/x", Some("h:443")),
            ("hf://org/name@v1/x", "hf://org/name@v1/x", None),
            ("hf://org/name --endpoint https://mirror:1/", "hf://org/name@main", Some("mirror:1")),
        ] {
            let (documents, _) = question(&arguments(&format!("{text} {secrets}"))).unwrap();
            let intent = validate(&documents.checkpoints[0]).unwrap();
            assert_eq!((intent.uri.as_str(), intent.source.secret().is_some()), (uri, true), "{text}");
            let keys = documents.secrets.values().next().unwrap();
            let allowed = keys.get("allowedHosts").map(|hosts| std::str::from_utf8(hosts).unwrap());
            assert_eq!(allowed, hosts, "{text}");
            let (documents, _) = question(&arguments(&format!("{text} --anonymous"))).unwrap();
            let intent = validate(&documents.checkpoints[0]).unwrap();
            assert!(intent.source.secret().is_none() && documents.secrets.is_empty(), "{text}");
        }
        fs::write(folder.path().join("allowedHosts"), "only.test").unwrap();
        let (documents, _) = question(&arguments(&format!("hf://o/n --endpoint https://mirror {secrets}"))).unwrap();
        assert_eq!(documents.secrets.values().next().unwrap()["allowedHosts"], b"only.test");
    }

    #[test]
    fn a_token_of_the_hub_stays_with_its_person() {
        let named = |text: &str, name: &str| question(&arguments(text)).unwrap().1.environment.get(name).cloned();
        // The worker knows where a token may go: no Secret is made of it.
        let (documents, _) = question(&arguments("hf://org/name")).unwrap();
        let intent = validate(&documents.checkpoints[0]).unwrap();
        assert!(documents.secrets.is_empty() && intent.source.secret().is_none());
        let typed = named("hf://org/name --endpoint https://mirror:1", "HF_ENDPOINT");
        assert_eq!(typed.as_deref(), Some("https://mirror:1"));
        let anonymous = named("hf://org/name --anonymous", "HF_HUB_DISABLE_IMPLICIT_TOKEN");
        assert_eq!(anonymous.as_deref(), Some("1"));
    }

    #[test]
    fn flags_that_mean_nothing_are_refused() {
        for (text, part) in [
            ("gs://b/x --region eu", "--region only means something for s3://"),
            ("hf://o/n --account a", "--account only means"),
            ("s3://bbb/x --manifest m", "--file and --manifest only mean"),
            ("https://h/x --endpoint https://h", "leave out --endpoint"),
            ("gs://b/x --ca-file /nowhere/ca.pem", "/nowhere/ca.pem: no such file"),
        ] {
            let refused = question(&arguments(text)).err().unwrap();
            assert!(refused.contains(part), "{text}: {refused}");
        }
    }

    #[test]
    fn a_folder_must_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let (documents, settings) = question(&arguments(folder.path().to_str().unwrap())).unwrap();
        assert_eq!(settings.places.len(), 1);
        validate(&documents.checkpoints[0]).unwrap();
        assert!(question(&arguments(file.to_str().unwrap())).unwrap_err().contains("is a file"));
        assert!(question(&arguments("/nowhere/at/all")).unwrap_err().contains("/nowhere/at/all"));
        assert!(question(&arguments("pvc://claim/x")).unwrap_err().contains("folder"));
    }

    #[tokio::test]
    async fn the_worker_judges_and_the_plan_refuses() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x.bin"), "x").unwrap();
        let performer = local::InProcess;
        let progress = output::progress::Progress::new(false, false);
        let ask = async |target: &str| {
            let (documents, settings) = question(&arguments(target)).unwrap();
            let token = CancellationToken::new();
            answer(local::run(&settings, &documents, &performer, &progress, &token).await.unwrap().remove(0))
        };
        let good = ask(folder.path().to_str().unwrap()).await;
        assert_eq!((good.outcome, good.contents.unwrap().format), (Outcome::Good, Some(Format::Generic)));
        let refused = ask("ftp://host/x").await;
        assert_eq!((refused.outcome, refused.reason), (Outcome::Failed, Some(Reason::InvalidSpec)));
        assert!(refused.message.contains("ftp"), "{}", refused.message);
    }

    #[test]
    fn a_report_is_printed_whole_and_names_the_folder() {
        let mut report = Report::new(TaskKind::Inspect, Outcome::Good, Reason::Complete, "pvc://folder is fine");
        show_folder(&mut report, "./model");
        assert_eq!(report.message, "./model is fine");
        let text = show(output::Format::Json, &report).unwrap();
        assert_eq!(Report::decode(&text).unwrap().message, "./model is fine");
        assert!(show(output::Format::Yaml, &report).unwrap().contains("message: ./model is fine"));
    }
}
