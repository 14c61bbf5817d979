//! One signal that everything in a process listens to. Once triggered it stays triggered.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// Tells loops and servers to finish. Clones share the signal; a [`child`](Self::child) can be triggered alone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Makes a signal that nobody has triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// Triggers on SIGTERM or SIGINT. A second signal ends the process at once.
    pub fn on_signals() -> Self {
        let shutdown = Self::new();
        match termination_signals() {
            Ok(signals) => drop(tokio::spawn(obey(signals, shutdown.clone()))),
            // Without the handlers a signal still ends the process, only without the graceful part.
            Err(error) => error!(%error, "cannot listen for signals: the process will not stop gracefully"),
        }
        shutdown
    }

    /// Asks everybody to finish.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether everybody was asked to finish.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until everybody is asked to finish. Cancellation safe.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// The same signal as a token of `tokio-util`.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// A signal that this one triggers, and that can be triggered alone.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token() }
    }

    /// Runs the future until it ends or everybody is asked to finish, which gives `None` and drops it.
    pub async fn or<F: Future>(&self, future: F) -> Option<F::Output> {
        self.token.run_until_cancelled(future).await
    }
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn termination_signals() -> std::io::Result<Signals> {
    use tokio::signal::unix::{SignalKind, signal};
    Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
}

async fn obey(mut signals: Signals, shutdown: Shutdown) {
    let signal = signals.next().await;
    info!(signal, "shutting down; a second signal ends the process at once");
    shutdown.trigger();
    let signal = signals.next().await;
    error!(signal, "ended at once by a second signal");
    std::process::exit(i32::from(crate::Exit::Failed.code()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_is_triggered_by_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (first, second) = (parent.child(), parent.child());
        first.trigger();
        assert!(first.is_triggered() && !parent.is_triggered() && !second.is_triggered());
        parent.trigger();
        second.wait().await;
        assert_eq!(parent.or(std::future::pending::<()>()).await, None);
    }

    #[tokio::test]
    async fn sigterm_asks_everybody_to_finish() {
        let shutdown = Shutdown::on_signals();
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        tokio::time::timeout(std::time::Duration::from_secs(10), shutdown.wait()).await.unwrap();
    }
}
