//! The contents of one resource that are being fetched, each on a task of its own.
//!
//! The invariant: a fetch goes on whatever its run waits for. One that stood still would keep its slot at Microsoft from the
//! listing, and would not hear that Microsoft asks the resource to wait.

use std::future::Future;

use tokio::task::JoinSet;
use tracing::Instrument as _;

/// Fetches under way, and those that have arrived and are not settled yet. Dropping it ends them.
pub(super) struct Fetches<T> {
    tasks: JoinSet<T>,
}

impl<T: Send + 'static> Fetches<T> {
    pub(super) fn new() -> Self {
        Self { tasks: JoinSet::new() }
    }

    /// Under way or arrived.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn start(&mut self, fetch: impl Future<Output = T> + Send + 'static) {
        self.tasks.spawn(fetch.in_current_span());
    }

    /// The next to arrive; none when nothing is under way. A panic in a fetch goes on here.
    pub(super) async fn next(&mut self) -> Option<T> {
        loop {
            match self.tasks.join_next().await? {
                Ok(fetched) => return Some(fetched),
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                // Ended by the runtime, which is going down.
                Err(_) => {}
            }
        }
    }

    /// Ends all of them.
    pub(super) async fn end(&mut self) {
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_fetch_ends_while_nobody_waits_for_it() {
        let mut fetches = Fetches::new();
        let (done, is_done) = oneshot::channel();
        fetches.start(async move {
            done.send(()).unwrap();
            7
        });
        is_done.await.unwrap();
        assert_eq!(fetches.len(), 1, "it has arrived and is not settled");
        assert_eq!(fetches.next().await, Some(7));
        assert!(fetches.next().await.is_none());
    }

    #[tokio::test]
    async fn ended_fetches_give_nothing() {
        let mut fetches = Fetches::<u8>::new();
        fetches.start(std::future::pending());
        fetches.end().await;
        assert!(fetches.next().await.is_none());
    }
}
