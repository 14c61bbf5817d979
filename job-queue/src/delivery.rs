//! A hint in a worker's hands. Settled exactly once: acknowledged, rejected, or given back when dropped.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU16, Ordering},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{JobHint, QueueError, QueueName};

/// What to do with a hint that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Put it back for somebody else.
    Requeue,
    /// Nobody can claim it: dead-letter it.
    DeadLetter,
}

/// How a hint leaves a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    Ack,
    Reject(Rejection),
}

/// The queue's side of a delivery.
#[async_trait]
pub(crate) trait Settle: Send + Sync {
    async fn settle(&self, settlement: Settlement) -> Result<(), QueueError>;

    /// Gives the hint back without waiting; false if that takes a [`settle`](Self::settle).
    fn give_back_now(&self) -> bool {
        false
    }
}

/// A received hint.
#[must_use = "a delivery that is dropped goes back to the queue"]
pub struct Delivery {
    /// What was sent.
    pub hint: JobHint,
    /// Where it came from.
    pub queue: QueueName,
    token: Option<Arc<dyn Settle>>,
    slots: Arc<Slots>,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("hint", &self.hint)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    pub(crate) fn new(hint: JobHint, queue: QueueName, token: Arc<dyn Settle>, slots: Arc<Slots>) -> Self {
        slots.unsettled.fetch_add(1, Ordering::AcqRel);
        Self { hint, queue, token: Some(token), slots }
    }

    /// Takes the hint out of the queue: the claim was committed or refused.
    ///
    /// On an error the hint will come again, and the claim will refuse it.
    pub async fn ack(self) -> Result<(), QueueError> {
        self.settle(Settlement::Ack).await
    }

    /// Gives the hint back or dead-letters it.
    pub async fn reject(self, rejection: Rejection) -> Result<(), QueueError> {
        self.settle(Settlement::Reject(rejection)).await
    }

    async fn settle(mut self, settlement: Settlement) -> Result<(), QueueError> {
        let token = self.token.clone().expect("a delivery is settled once: settling consumes it");
        let settled = token.settle(settlement).await;
        // Only now: a settling that is cancelled half-way is a drop, and gives the hint back.
        self.token = None;
        settled
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(token) = self.token.take()
            && !token.give_back_now()
        {
            self.slots.abandoned.lock().unwrap_or_else(PoisonError::into_inner).push(token);
        }
        self.slots.unsettled.fetch_sub(1, Ordering::AcqRel);
        self.slots.changed.notify_one();
    }
}

/// Counts what a consumer has handed out, and collects what was dropped. Never holds more than its free slots.
#[derive(Default)]
pub(crate) struct Slots {
    unsettled: AtomicU16,
    abandoned: Mutex<Vec<Arc<dyn Settle>>>,
    changed: Notify,
}

impl Slots {
    /// Waits until fewer than `free` deliveries are unsettled, giving back what was dropped. Cancellation safe.
    pub(crate) async fn wait_free(&self, free: u16) {
        loop {
            self.give_back().await;
            if self.unsettled.load(Ordering::Acquire) < free {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until a delivery was settled or dropped. Cancellation safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Puts dropped deliveries back into their queue.
    pub(crate) async fn give_back(&self) {
        loop {
            let last = self.abandoned.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let Some(token) = last else { return };
            if let Err(error) = token.settle(Settlement::Reject(Rejection::Requeue)).await {
                // Its connection is gone, and with it the broker has put the hint back already.
                tracing::debug!(%error, "dropped delivery was given back by its connection");
            }
        }
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let abandoned = self.abandoned.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        if abandoned > 0 {
            tracing::debug!(abandoned, "deliveries go back when their connection closes");
        }
    }
}
