//! Slots in flight, and the loop that tells Redis what becomes of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{Inner, REPEAT_PAUSES, in_time};
use crate::quota::{Slot, local::LocalSlot, window::millis};

/// A slot in flight, here and in Redis.
pub(super) struct RedisSlot {
    pub local: LocalSlot,
    /// (key of the slots, slot); none while Redis does not know of it.
    pub shared: Option<(String, String)>,
    pub ttl_ms: u64,
    /// On the monotonic clock, in milliseconds: a body of many small pieces renews seldom.
    pub renew_at: AtomicU64,
    pub inner: Arc<Inner>,
    pub queue: mpsc::Sender<Update>,
}

impl RedisSlot {
    fn tell(&self, update: impl FnOnce(String, String) -> Update) {
        if let Some((slots_key, slot)) = &self.shared {
            // When the queue is full the slot expires by itself.
            let _dropped = self.queue.try_send(update(slots_key.clone(), slot.clone()));
        }
    }
}

impl Slot for RedisSlot {
    fn renew(&self) {
        let (now, ttl_ms) = (millis(self.inner.clock.monotonic()), self.ttl_ms);
        if now < self.renew_at.load(Ordering::Relaxed) {
            return;
        }
        self.renew_at.store(now + ttl_ms / 4, Ordering::Relaxed);
        self.local.renew();
        self.tell(|slots_key, slot| Update::Renew { slots_key, slot, ttl_ms });
    }
}

impl Drop for RedisSlot {
    fn drop(&mut self) {
        self.tell(|slots_key, slot| Update::Release { slots_key, slot });
    }
}

pub(super) enum Update {
    Renew { slots_key: String, slot: String, ttl_ms: u64 },
    Release { slots_key: String, slot: String },
}

pub(super) async fn send_updates(
    inner: Arc<Inner>,
    mut updates: mpsc::Receiver<Update>,
    cancel: CancellationToken,
) {
    let mut repeat = interval(REPEAT_PAUSES);
    repeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => inner.send(update).await,
                None => return,
            },
            _ = repeat.tick() => inner.repeat_pauses().await,
            () = cancel.cancelled() => break,
        }
    }
    while let Ok(update) = updates.try_recv() {
        inner.send(update).await;
    }
}

impl Inner {
    async fn send(&self, update: Update) {
        let mut connection = self.connection.clone();
        let result = match update {
            Update::Release { slots_key, slot } => {
                let mut call = redis::cmd("ZREM");
                in_time::<i64>(call.arg(slots_key).arg(slot).query_async(&mut connection)).await
            }
            Update::Renew { slots_key, slot, ttl_ms } => {
                let mut call = self.renew.key(slots_key);
                in_time::<i64>(call.arg(slot).arg(ttl_ms).invoke_async(&mut connection)).await
            }
        };
        if let Err(error) = result {
            self.lost(&error);
        }
    }
}
