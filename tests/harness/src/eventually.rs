//! Waiting for something to become true, with a deadline and never with a bare sleep.

use std::{future::Future, time::Duration};

const POLL_EVERY: Duration = Duration::from_millis(100);

/// Asks until the answer is `Some`, or fails naming what was waited for.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut ask: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = tokio::time::Instant::now() + within;
    loop {
        if let Some(value) = ask().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within {within:?}: {what}");
        tokio::time::sleep(POLL_EVERY).await;
    }
}
