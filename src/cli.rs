//! The command line: what can be said, and which part of the program answers. Does I/O through its parts.

pub mod inspect;
pub mod run;

use std::{io::Write, net::SocketAddr, process::ExitCode};

use clap::{
    Args, CommandFactory, Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::de::DeserializeOwned;

use crate::{api, api::Worker, contract::TaskKind, output, runtime::telemetry, yaml};

/// Exit code when nothing could be asked: wrong usage, unreadable input, unreachable source.
pub const NOT_ASKED: u8 = 2;
/// Exit code after Ctrl-C, as shells count it.
pub const INTERRUPTED: u8 = 130;

/// Model checkpoints as Kubernetes objects: validated, then materialised into volumes that pods wait for.
#[derive(Debug, Parser)]
#[command(
    name = "checkpoint-operator",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  checkpoint-operator inspect ./my-model
  checkpoint-operator run -f checkpoint.yaml
  checkpoint-operator crd | kubectl apply --server-side -f -"
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the controller in a cluster.
    #[command(
        after_help = "Example:\n  checkpoint-operator controller --worker-image registry.example/checkpoint-operator:0.1.0 --watch-namespace ml"
    )]
    Controller(Box<ControllerArguments>),
    /// Do one task in a pod; the controller starts it, people do not.
    #[command(
        after_help = "Example (the task is in the environment variable CHECKPOINT_TASK):\n  checkpoint-operator worker inspect"
    )]
    Worker {
        /// Which task.
        #[command(subcommand)]
        task: WorkerCommand,
    },
    /// Carry out a manifest without a cluster: claims are folders below --volumes.
    #[command(after_help = "\
Examples:
  checkpoint-operator run -f checkpoint.yaml
  checkpoint-operator run -f checkpoint.yaml -f secret.yaml --volumes ./volumes -o table
  kubectl get checkpoint llama -o yaml | checkpoint-operator run -f -

Exit codes: 0 Ready; 1 the verdict or a volume is bad; 2 the source was not reached, or the input is not usable; 130 interrupted.")]
    Run(run::RunArguments),
    /// Judge a checkpoint: format, complete or not, safe or not.
    #[command(after_help = "\
Examples:
  checkpoint-operator inspect ./my-model
  checkpoint-operator inspect s3://bucket/runs/llama/checkpoint_000012 --region eu-west-1 --depth Content -o json
  checkpoint-operator inspect s3://bucket/model --endpoint http://localhost:9000 --insecure
  checkpoint-operator inspect gs://bucket/model                       # GOOGLE_APPLICATION_CREDENTIALS, or --anonymous
  checkpoint-operator inspect abfs://container@account.dfs.core.windows.net/model   # AZURE_STORAGE_KEY and its fellows
  checkpoint-operator inspect https://models.example.com/llama --manifest SHA256SUMS
  checkpoint-operator inspect hf://meta-llama/Llama-3.1-8B@main       # HF_TOKEN
  checkpoint-operator inspect hf://openai-community/gpt2 --endpoint https://hub.example.com --ca-file ca.pem --secrets ./keys

Exit codes: 0 the verdict is good; 1 it is not; 2 the checkpoint was not reached, or the question makes no sense; 130 interrupted.")]
    Inspect(Box<inspect::InspectArguments>),
    /// Print the `CustomResourceDefinition`.
    #[command(after_help = "Example:\n  checkpoint-operator crd | kubectl apply --server-side -f -")]
    Crd,
    /// Print a script that completes this program's arguments in a shell.
    #[command(after_help = "Example:\n  source <(checkpoint-operator completion bash)")]
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Tasks of workers.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Subcommand)]
pub enum WorkerCommand {
    /// List, judge, report.
    #[command(after_help = "Example:\n  checkpoint-operator worker inspect")]
    Inspect,
    /// Copy into the mounted volume.
    #[command(after_help = "Example:\n  checkpoint-operator worker load")]
    Load,
    /// Hash the files of the mounted volume again.
    #[command(after_help = "Example:\n  checkpoint-operator worker verify")]
    Verify,
}

impl WorkerCommand {
    /// The kind of task.
    #[must_use]
    pub fn kind(self) -> TaskKind {
        match self {
            Self::Inspect => TaskKind::Inspect,
            Self::Load => TaskKind::Load,
            Self::Verify => TaskKind::Verify,
        }
    }
}

/// How the controller runs. Every flag has an environment variable.
#[derive(Args, Clone, Debug)]
pub struct ControllerArguments {
    /// Namespaces to watch, repeated or separated by commas; all of them when left out.
    #[arg(
        long = "watch-namespace",
        env = "CHECKPOINT_OPERATOR_WATCH_NAMESPACE",
        value_delimiter = ',',
        value_name = "NAMESPACE"
    )]
    pub watch_namespaces: Vec<String>,
    /// Image of worker pods: the one that the controller runs from.
    #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_IMAGE", value_name = "IMAGE")]
    pub worker_image: String,
    /// `imagePullPolicy` of worker pods.
    #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_IMAGE_PULL_POLICY", value_name = "POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub worker_image_pull_policy: Option<String>,
    /// Defaults for `spec.worker`, as JSON.
    #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_DEFAULTS", value_name = "JSON", default_value = "{}", value_parser = from_json::<Worker>)]
    pub worker_defaults: Worker,
    /// Worker Jobs at once; 0 means any number.
    #[arg(long, env = "CHECKPOINT_OPERATOR_MAX_WORKERS", value_name = "NUMBER", default_value_t = 16)]
    pub max_workers: usize,
    /// Worker Jobs at once in one namespace; 0 means any number.
    #[arg(long, env = "CHECKPOINT_OPERATOR_MAX_WORKERS_PER_NAMESPACE", value_name = "NUMBER", default_value_t = 8)]
    pub max_workers_per_namespace: usize,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "CHECKPOINT_OPERATOR_LISTEN", value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Where workers tell how far they are; they are not asked to when left out.
    #[arg(long, env = "CHECKPOINT_OPERATOR_PROGRESS_ADDRESS", value_name = "ADDRESS", requires = "progress_url")]
    pub progress_address: Option<SocketAddr>,
    /// The URL at which workers reach that address: http or https, host and port, without a path.
    #[arg(long, env = "CHECKPOINT_OPERATOR_PROGRESS_URL", value_name = "URL", value_parser = base_url)]
    pub progress_url: Option<String>,
    /// How log lines look.
    #[arg(long, env = "CHECKPOINT_OPERATOR_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value = "json")]
    pub log_format: telemetry::Format,
    /// Which log lines are written: error, warn, info, debug, trace, or directives such as info,kube=debug.
    #[arg(long, env = "CHECKPOINT_OPERATOR_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
    /// Checkpoints that are reconciled at once.
    #[arg(long, env = "CHECKPOINT_OPERATOR_CONCURRENCY", value_name = "NUMBER", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: u16,
}

/// An address of workers' own: what is no such URL would be found out in every pod.
fn base_url(text: &str) -> Result<String, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare && is_anonymous {
        Ok(text.trim_end_matches('/').to_owned())
    } else {
        Err("not of the form http://HOST:PORT or https://HOST:PORT".to_owned())
    }
}

fn from_json<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// A parser of the names that a type has in manifests, in any case.
pub(crate) fn named<T: Clone + DeserializeOwned + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(move |text: String| {
        let name = names.iter().find(|name| name.eq_ignore_ascii_case(&text)).copied().unwrap_or(&text);
        serde_json::from_value(serde_json::Value::from(name))
    })
}

/// Writes to standard output. A reader that goes away is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Says what went wrong on standard error.
#[must_use]
pub fn fail(problem: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(NOT_ASKED)
}

/// Prints the definition of the resource.
#[must_use]
pub fn crd() -> ExitCode {
    match yaml::to_string(&api::definition()) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(problem) => fail(&problem),
    }
}

/// Prints a completion script.
#[must_use]
pub fn completion(shell: clap_complete::Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "checkpoint-operator", &mut script);
    print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Serialises for `-o yaml` and `-o json`.
pub(crate) fn structured(format: output::Format, value: &impl serde::Serialize) -> Result<String, yaml::YamlError> {
    match format {
        output::Format::Json => output::json(value),
        output::Format::Yaml | output::Format::Table => output::yaml(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Depth, Format, PicklePolicy};

    fn parse(text: &str) -> Result<Command, clap::Error> {
        Arguments::try_parse_from(text.split(' ')).map(|arguments| arguments.command)
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            if !command.has_subcommands() {
                assert!(help.contains("checkpoint-operator "), "{}", command.get_name());
            }
            command.get_subcommands().filter(|command| command.get_name() != "help").for_each(check);
        }
        check(&Arguments::command());
    }

    #[test]
    fn the_chart_can_say_what_it_says() {
        let text = "x controller --watch-namespace=a --watch-namespace=b,c --worker-image=i:1 --worker-image-pull-policy=Never \
            --worker-defaults={\"runAsUser\":5} --max-workers=3 --max-workers-per-namespace=2 --concurrency=4 \
            --listen=0.0.0.0:8080 --progress-address=0.0.0.0:8082 --progress-url=http://checkpoint-operator.operators.svc:8082 \
            --log-format=json --log-level=info";
        let Ok(Command::Controller(controller)) = parse(&text.split_whitespace().collect::<Vec<_>>().join(" ")) else {
            panic!("not parsed")
        };
        assert_eq!(controller.watch_namespaces, ["a", "b", "c"]);
        assert_eq!(controller.worker_defaults.run_as_user, Some(5));
        assert_eq!((controller.max_workers, controller.max_workers_per_namespace, controller.concurrency), (3, 2, 4));
        assert_eq!(controller.progress_address, Some("0.0.0.0:8082".parse().unwrap()));
        assert_eq!(controller.progress_url.as_deref(), Some("http://checkpoint-operator.operators.svc:8082"));
        let Ok(Command::Controller(controller)) = parse("x controller --worker-image i") else { panic!("not parsed") };
        assert_eq!((controller.max_workers, controller.max_workers_per_namespace, controller.concurrency), (16, 8, 16));
        assert!(parse("x controller --worker-image i --worker-defaults {").is_err());
        assert!(parse("x controller --worker-image i --concurrency 0").is_err());
        assert_eq!((controller.progress_address, controller.progress_url), (None, None));
        assert!(
            parse("x controller --worker-image i --progress-address 0.0.0.0:8082").is_err(),
            "workers need the URL"
        );
        for url in ["checkpoint-operator:8082", "ftp://a", "http://a/v1", "http://u:p@a", "http://a?b", "http://"] {
            assert!(parse(&format!("x controller --worker-image i --progress-url {url}")).is_err(), "{url}");
        }
    }

    #[test]
    fn inspect_takes_the_names_of_the_manifest_in_any_case() {
        let text = "x inspect s3://b/x --depth content --pickle FORBID --format HuggingFace --format Generic --required-file *.json -o json";
        let Ok(Command::Inspect(inspect)) = parse(text) else { panic!("not parsed") };
        assert_eq!((inspect.depth, inspect.pickle), (Depth::Content, PicklePolicy::Forbid));
        assert_eq!(inspect.formats, [Format::HuggingFace, Format::Generic]);
        assert_eq!(inspect.required_files, ["*.json"]);
        assert!(parse("x inspect s3://b/x --depth deep").unwrap_err().to_string().contains("Headers"));
    }

    #[test]
    fn the_names_are_those_of_the_types() {
        let all = |names: &[&str], schema: schemars::Schema| {
            let text = schema.as_value().to_string();
            for name in names {
                assert!(text.contains(&format!("\"{name}\"")), "{name} in {text}");
            }
        };
        all(inspect::DEPTHS, schemars::schema_for!(Depth));
        all(inspect::PICKLES, schemars::schema_for!(PicklePolicy));
        all(inspect::FORMATS, schemars::schema_for!(Format));
    }

    #[test]
    fn workers_and_shells_are_named() {
        assert!(matches!(parse("x worker verify"), Ok(Command::Worker { task: WorkerCommand::Verify })));
        assert!(matches!(parse("x completion fish"), Ok(Command::Completion { .. })));
        assert!(parse("x run").is_err(), "-f is required");
    }
}
