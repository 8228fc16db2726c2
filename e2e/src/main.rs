//! `cargo e2e VERB`: the test cluster, the demo and the whole test suite. Wiring only.

use std::process::ExitCode;

use anyhow::Result;
use checkpoint_operator_e2e::cluster::Cluster;
use checkpoint_operator_e2e::{bench, command, demo, images, stages};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e", about, long_about = LONG, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const LONG: &str = "A real one-node Kubernetes for checkpoint-operator, its demo and its whole test suite.

The cluster lives in a network namespace of its own with no way out, built from Go modules and Debian packages:
it needs root, and neither a container engine nor a registry. Set KUBECONFIG to use a cluster that you have.

  cargo e2e demo       see the main job, with real output
  cargo e2e test       run everything; exit code 0 when all of it passes
  cargo e2e up         bring the cluster up, then: cargo e2e kubectl get nodes";

#[derive(Subcommand)]
enum Verb {
    /// Bring the cluster up, or whatever of it is missing
    #[command(
        after_help = "The first time builds Kubernetes (minutes); afterwards it takes about 15 seconds, or 2 when all runs.\n\
        State and logs: target/e2e/cluster, or the folder that CHECKPOINT_E2E_ROOT names.\n\
        Built programs: ~/.cache/checkpoint-operator-e2e."
    )]
    Up,
    /// Stop the cluster and remove its data; logs stay
    #[command(after_help = "Stops only processes that `up` recorded. Volumes and all objects are gone afterwards.")]
    Down,
    /// kubectl on the cluster, with administrator rights
    #[command(after_help = "Example: cargo e2e kubectl get checkpoints --all-namespaces")]
    Kubectl {
        /// What kubectl is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// helm on the cluster
    #[command(after_help = "Example: cargo e2e helm list --all-namespaces")]
    Helm {
        /// What helm is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Any command inside the cluster's network, where Services can be reached
    #[command(after_help = "Example: cargo e2e inside curl -s http://10.96.0.80:8333/")]
    Inside {
        /// The command and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        arguments: Vec<String>,
    },
    /// Build the operator and import its image; prints the image's name
    #[command(after_help = "The tag is a hash of the content: a rebuilt binary gets a new one.\n\
        Example: helm upgrade ... --set image.repository=e2e.local/checkpoint-operator --set image.tag=<hash>")]
    Images,
    /// The main job on a real cluster, told step by step with real output
    #[command(
        after_help = "Brings up the cluster, an S3 server and the operator, uploads a small model, and shows a pod that\n\
        waits for its volume until the checkpoint is verified. Leaves everything running: `cargo e2e down` ends it."
    )]
    Demo,
    /// Measure the product beside other programs
    Bench {
        #[command(subcommand)]
        benchmark: bench::Benchmark,
    },
    /// Run the stages of the test suite in order, up to the first failure
    #[command(after_help = "Examples:\n  cargo e2e test                                  everything\n  \
        cargo e2e test --list                           the stages\n  \
        cargo e2e test --stage unit                     one stage\n  \
        cargo e2e test --stage cluster -- waiting_pod   one test on the cluster\n  \
        cargo e2e test --stage fuzz -- gguf             one fuzz target\n\n\
        CHECKPOINT_E2E_FUZZ_SECONDS=60 is the time for each fuzz target, 1 by default.\n\
        CHECKPOINT_E2E_STAGES=format,lint selects stages like --stage.")]
    Test {
        /// Run only this stage; may be repeated
        #[arg(long = "stage", value_name = "NAME", env = "CHECKPOINT_E2E_STAGES", value_delimiter = ',')]
        stages: Vec<String>,
        /// Name the stages and what they do
        #[arg(long)]
        list: bool,
        /// Passed to the test programs of `unit` and `cluster`; names for `fuzz`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match act(Arguments::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up => {
            let cluster = Cluster::from_environment()?;
            cluster.up()?;
            println!("The cluster is up: cargo e2e kubectl get nodes");
        }
        Verb::Down => Cluster::from_environment()?.down()?,
        Verb::Kubectl { arguments } => {
            return pass_on(Cluster::from_environment()?.kubectl()?.args(arguments));
        }
        Verb::Helm { arguments } => {
            return pass_on(Cluster::from_environment()?.helm()?.args(arguments));
        }
        Verb::Inside { arguments } => {
            if let Some((program, rest)) = arguments.split_first() {
                return pass_on(Cluster::from_environment()?.command(program).args(rest));
            }
        }
        Verb::Images => println!("{}", images::product(&Cluster::from_environment()?, "")?),
        Verb::Demo => demo::run_demo(&Cluster::from_environment()?)?,
        Verb::Bench { benchmark } => bench::run(&benchmark)?,
        Verb::Test { list: true, .. } => stages::list(),
        Verb::Test { stages, arguments, .. } => return stages::run(&stages, &arguments),
    }
    Ok(ExitCode::SUCCESS)
}

/// The exit code of a command that takes over the terminal.
fn pass_on(command: &mut std::process::Command) -> Result<ExitCode> {
    let status =
        command.status().map_err(|error| anyhow::anyhow!("cannot start `{}`: {error}", command::line(command)))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}
