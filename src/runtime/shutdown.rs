//! SIGINT and SIGTERM become one token for every task. Does I/O.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code after the second signal.
const FORCED: i32 = 130;

/// A token that the first SIGINT or SIGTERM cancels; the second one ends the process at once. Call it inside the runtime.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn token() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        tracing::info!("shutting down; another signal ends the process at once");
        cancelled.cancel();
        either(&mut interrupt, &mut terminate).await;
        tracing::warn!("second signal: ending now");
        std::process::exit(FORCED);
    });
    Ok(token)
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
