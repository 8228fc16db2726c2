//! The program: wires the command line to its parts. Does I/O.

use std::{io::IsTerminal, process::ExitCode};

use checkpoint_operator::{
    cli::{self, Arguments, Command, ControllerArguments},
    controller, local,
    output::progress::Progress,
    plan,
    runtime::{shutdown, telemetry},
    worker,
};
use clap::Parser;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let command = match Arguments::parse().command {
        Command::Crd => return cli::crd(),
        Command::Completion { shell } => return cli::completion(shell),
        command => command,
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(problem) => return cli::fail(&problem),
    };
    // Fails only when there is a provider already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = runtime.block_on(dispatch(command)).unwrap_or_else(|problem| cli::fail(&problem));
    // Not waiting for what still runs in the background: everything that matters has ended.
    runtime.shutdown_background();
    code
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Controller(arguments) => control(*arguments).await,
        Command::Worker { task } => {
            telemetry::install(telemetry::Format::Json, &log_level("info"))?;
            Ok(worker::run(task.kind()).await)
        }
        Command::Run(arguments) => {
            telemetry::install(telemetry::Format::Text, &log_level("error"))?;
            let progress = Progress::new(std::io::stderr().is_terminal(), true);
            Ok(cli::run::run(arguments, &local::InProcess, &progress, &shutdown::token()?).await)
        }
        Command::Inspect(arguments) => {
            telemetry::install(telemetry::Format::Text, &log_level("error"))?;
            let progress = Progress::new(std::io::stderr().is_terminal(), false);
            Ok(cli::inspect::inspect(&arguments, &local::InProcess, &progress, &shutdown::token()?).await)
        }
        Command::Crd | Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

async fn control(arguments: ControllerArguments) -> Result<ExitCode, Failure> {
    telemetry::install(arguments.log_format, &arguments.log_level)?;
    let shutdown = shutdown::token()?;
    let client = kube::Client::try_default().await?;
    let settings = controller::Settings {
        watch_namespaces: arguments.watch_namespaces,
        config: plan::Config {
            worker_image: arguments.worker_image,
            worker_image_pull_policy: arguments.worker_image_pull_policy,
            worker: arguments.worker_defaults,
            progress_url: arguments.progress_url,
        },
        max_workers: arguments.max_workers,
        max_workers_per_namespace: arguments.max_workers_per_namespace,
        concurrency: arguments.concurrency,
        listen: arguments.listen,
        progress: arguments.progress_address,
    };
    controller::run(client, settings, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

/// `RUST_LOG`, as other Rust programs understand it.
fn log_level(default: &str) -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| default.to_owned())
}
