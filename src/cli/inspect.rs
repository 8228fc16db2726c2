//! `inspect`: a verdict on a folder or a bucket. It is `run` with a manifest made from the arguments. Does I/O.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    api::{
        CaBundle, Checkpoint, CheckpointSpec, ConfigMapKeyReference, S3Credentials, S3Source, SecretReference, Storage,
    },
    contract::{
        CodePolicy, ConditionType, Depth, Format, Outcome, PicklePolicy, Reason, Report, TaskKind, Validation,
        environment, report::REPORT_LIMIT,
    },
    local::{self, Display, Documents, LocalError, Perform, Run, Settings, condition},
    output::{self, report},
};

use super::{INTERRUPTED, NOT_ASKED, fail, named, print, run::identity, structured};

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
const SECRET: &str = "credentials";
const CONFIG_MAP: &str = "ca";

/// What to inspect, and what is asked of it.
#[derive(Args, Clone, Debug)]
pub struct InspectArguments {
    /// A folder, or `s3://bucket/path`.
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
    /// The S3 server's address; left out: Amazon's.
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The bucket's region.
    #[arg(long)]
    pub region: Option<String>,
    /// Allow an http:// endpoint.
    #[arg(long)]
    pub insecure: bool,
    /// Send unsigned requests.
    #[arg(long, conflicts_with = "secrets")]
    pub anonymous: bool,
    /// A file with certificate authorities to trust too, PEM.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// A folder with the files `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, if need be, `AWS_SESSION_TOKEN`. Left out:
    /// the environment variables of these names.
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
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
    let mut settings = Settings { environment: identity(), ..Settings::default() };
    let (path, storage) = if arguments.target.contains("://") {
        if arguments.target.starts_with("pvc://") {
            return Err("there are no claims here: name the folder itself".to_owned());
        }
        (arguments.target.clone(), Some(bucket(arguments, &mut documents)?))
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

fn bucket(arguments: &InspectArguments, documents: &mut Documents) -> Result<Storage, String> {
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    let mut keys = BTreeMap::new();
    for key in environment::S3_KEYS {
        let value = match &arguments.secrets {
            Some(folder) => read(&folder.join(key))?,
            None => std::env::var(key).ok().filter(|value| !value.is_empty()).map(String::into_bytes),
        };
        keys.extend(value.map(|value| (key.to_owned(), value)));
    }
    let named = arguments.secrets.is_some() || !keys.is_empty();
    let secret = SecretReference { name: SECRET.to_owned() };
    let credentials = (arguments.anonymous || named).then(|| S3Credentials {
        secret_ref: (!arguments.anonymous).then_some(secret),
        anonymous: arguments.anonymous,
    });
    documents.secrets.insert((NAMESPACE.to_owned(), SECRET.to_owned()), keys);
    let reference = ConfigMapKeyReference { name: CONFIG_MAP.to_owned(), key: "ca.crt".to_owned() };
    let ca_bundle = arguments.ca_file.as_ref().map(|_| CaBundle { config_map_ref: reference });
    if let Some(file) = &arguments.ca_file {
        let pem = read(file)?.ok_or_else(|| format!("{}: no such file", file.display()))?;
        let files = BTreeMap::from([("ca.crt".to_owned(), pem)]);
        documents.config_maps.insert((NAMESPACE.to_owned(), CONFIG_MAP.to_owned()), files);
    }
    let s3 = S3Source {
        region: arguments.region.clone(),
        endpoint: arguments.endpoint.clone(),
        insecure: arguments.insecure,
        ca_bundle,
        credentials,
        ..S3Source::default()
    };
    Ok(Storage { s3: Some(s3), ..Storage::default() })
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
