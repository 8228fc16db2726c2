//! `run`: manifests in, Checkpoints with their status out. Does I/O.

use std::{collections::BTreeMap, io::Read, path::PathBuf, process::ExitCode};

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::{
    api::Checkpoint,
    local::{self, Display, Documents, LocalError, Perform, Settings, exit_code},
    output::{self, Format, status},
    storage::identity_of_a_person,
    yaml::{self, YamlError},
};

use super::{INTERRUPTED, fail, print, structured};

/// What to run, and where.
#[derive(Args, Clone, Debug)]
pub struct RunArguments {
    /// A file with manifests, `-` for standard input; can be repeated. Beside Checkpoints, Secrets and `ConfigMaps`
    /// are read; everything else is left alone.
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
    /// The folder whose subfolders are the claims.
    #[arg(long, value_name = "DIR", default_value = "./volumes")]
    pub volumes: PathBuf,
    /// A folder with one subfolder a Secret or `ConfigMap`, and in it one file a key. Without it, and for Secrets that are
    /// not there, `AWS_ACCESS_KEY_ID`, `AZURE_STORAGE_KEY`, `HF_TOKEN` and their fellows are taken from the environment, the
    /// key of a service account of Google Cloud from the file that `GOOGLE_APPLICATION_CREDENTIALS` names, and a token of the Hub
    /// from the file of a login. Repositories of the Hub without credentials are read with your own token, if there is one;
    /// `HF_ENDPOINT` names another Hub than huggingface.co.
    #[arg(long, value_name = "DIR")]
    pub secrets: Option<PathBuf>,
    /// How often to wait for another attempt when the source could not be reached or a load failed.
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    pub retries: u32,
    /// How the Checkpoints are printed.
    #[arg(short = 'o', long, value_enum, default_value = "yaml")]
    pub output: Format,
}

/// Carries out the manifests and prints the Checkpoints.
pub async fn run(
    arguments: RunArguments,
    performer: &dyn Perform,
    display: &dyn Display,
    cancel: &CancellationToken,
) -> ExitCode {
    let documents = match read(&arguments.files) {
        Ok(documents) => documents,
        Err(problem) => return fail(&problem),
    };
    for skipped in &documents.skipped {
        display.note(&format!("{skipped} is left alone: only Checkpoints, Secrets and ConfigMaps mean something here"));
    }
    if documents.checkpoints.is_empty() {
        return fail(&"there is no Checkpoint in the input");
    }
    let settings = Settings {
        volumes: arguments.volumes,
        secrets: arguments.secrets,
        environment: identity_of_a_person(),
        retries: arguments.retries,
        places: BTreeMap::new(),
    };
    match local::run(&settings, &documents, performer, display, cancel).await {
        Ok(runs) => {
            let checkpoints: Vec<_> = runs.iter().map(|run| &run.checkpoint).collect();
            match show(arguments.output, &checkpoints) {
                Ok(text) => print(&text),
                Err(problem) => return fail(&problem),
            }
            ExitCode::from(checkpoints.into_iter().map(exit_code).max().unwrap_or(0))
        }
        Err(problem @ LocalError::Interrupted) => {
            eprintln!("{problem}");
            ExitCode::from(INTERRUPTED)
        }
        Err(problem) => fail(&problem),
    }
}

fn read(files: &[PathBuf]) -> Result<Documents, String> {
    let mut documents = Documents::default();
    for file in files {
        let name = file.display().to_string();
        let mut bytes = Vec::new();
        // One byte more than is allowed shows that there is too much.
        let limit = yaml::LIMIT as u64 + 1;
        let read = if name == "-" {
            std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
        } else {
            std::fs::File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        read.map_err(|error| format!("{name}: {error}"))?;
        let text = String::from_utf8(bytes).map_err(|_| format!("{name}: not UTF-8 text, or larger than 1 MiB"))?;
        let name = if name == "-" { "standard input" } else { &name };
        documents.read(name, &text).map_err(|error| error.to_string())?;
    }
    Ok(documents)
}

fn show(format: Format, checkpoints: &[&Checkpoint]) -> Result<String, YamlError> {
    match (format, checkpoints) {
        (Format::Table, _) => Ok(status::tables(checkpoints)),
        (Format::Json, [one]) => output::json(one),
        (Format::Json, _) => {
            output::json(&serde_json::json!({"apiVersion": "v1", "kind": "List", "items": checkpoints}))
        }
        (Format::Yaml, _) => {
            let documents: Result<Vec<_>, _> =
                checkpoints.iter().map(|checkpoint| structured(format, checkpoint)).collect();
            Ok(documents?.join("---\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_printed_as_kubectl_prints_them() {
        let one = Checkpoint::new("a", Default::default());
        let two = Checkpoint::new("b", Default::default());
        let text = show(Format::Yaml, &[&one, &two]).unwrap();
        assert_eq!(yaml::documents(&text).unwrap().len(), 2);
        assert!(
            text.starts_with("apiVersion: checkpoints.dev/v1alpha1\nkind: Checkpoint\nmetadata:\n  name: a\n"),
            "{text}"
        );
        let list: serde_json::Value = serde_json::from_str(&show(Format::Json, &[&one, &two]).unwrap()).unwrap();
        assert_eq!((list["kind"].as_str(), list["items"].as_array().unwrap().len()), (Some("List"), 2));
    }

    #[test]
    fn files_that_are_missing_or_too_large_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing.yaml");
        assert!(read(&[missing]).unwrap_err().contains("missing.yaml"));
        let large = folder.path().join("large.yaml");
        std::fs::write(&large, "# ".repeat(yaml::LIMIT)).unwrap();
        assert!(read(&[large]).unwrap_err().contains("larger than 1 MiB"));
    }
}
