//! Parses the command line and hands over. Wiring only.

use std::{net::SocketAddr, process::ExitCode};

use checkpoint_operator::{api, contract::TaskKind, controller, plan, runtime, worker, yaml};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Inspect,
    Load,
    Verify,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller.
    Controller {
        #[arg(long, env = "CHECKPOINT_OPERATOR_WATCH_NAMESPACE", value_delimiter = ',')]
        watch_namespace: Vec<String>,
        #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_IMAGE")]
        worker_image: String,
        #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_IMAGE_PULL_POLICY")]
        worker_image_pull_policy: Option<String>,
        #[arg(long, env = "CHECKPOINT_OPERATOR_WORKER_DEFAULTS", default_value = "{}")]
        worker_defaults: String,
        #[arg(long, env = "CHECKPOINT_OPERATOR_MAX_WORKERS", default_value_t = 16)]
        max_workers: usize,
        #[arg(long, env = "CHECKPOINT_OPERATOR_MAX_WORKERS_PER_NAMESPACE", default_value_t = 8)]
        max_workers_per_namespace: usize,
        #[arg(long, env = "CHECKPOINT_OPERATOR_LISTEN", default_value = "0.0.0.0:8080")]
        listen: SocketAddr,
        #[arg(long, env = "CHECKPOINT_OPERATOR_LOG_FORMAT", default_value = "json")]
        log_format: runtime::telemetry::Format,
        #[arg(long, env = "CHECKPOINT_OPERATOR_LOG_LEVEL", default_value = "info")]
        log_level: String,
        #[arg(long, env = "CHECKPOINT_OPERATOR_CONCURRENCY", default_value_t = 16)]
        concurrency: u16,
    },
    /// Do a worker's task.
    Worker { kind: Kind },
    /// Print the CRD.
    Crd,
}

#[tokio::main]
async fn main() -> ExitCode {
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Crd => {
            match yaml::to_string(&api::definition()) {
                Ok(text) => print!("{text}"),
                Err(error) => {
                    eprintln!("error: {error}");
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
        Command::Worker { kind } => {
            let _ = runtime::telemetry::install(runtime::telemetry::Format::Text, "info");
            worker::run(match kind {
                Kind::Inspect => TaskKind::Inspect,
                Kind::Load => TaskKind::Load,
                Kind::Verify => TaskKind::Verify,
            })
            .await
        }
        Command::Controller {
            watch_namespace,
            worker_image,
            worker_image_pull_policy,
            worker_defaults,
            max_workers,
            max_workers_per_namespace,
            listen,
            log_format,
            log_level,
            concurrency,
        } => {
            let run = async {
                runtime::telemetry::install(log_format, &log_level)?;
                let settings = controller::Settings {
                    watch_namespaces: watch_namespace,
                    config: plan::Config {
                        worker_image,
                        worker_image_pull_policy,
                        worker: serde_json::from_str(&worker_defaults)?,
                    },
                    max_workers,
                    max_workers_per_namespace,
                    concurrency,
                    listen,
                };
                let client = kube::Client::try_default().await?;
                controller::run(client, settings, runtime::shutdown::token()?).await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            };
            match run.await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("error: {error}");
                    ExitCode::FAILURE
                }
            }
        }
    }
}
