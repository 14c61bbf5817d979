//! One budget of buffer bytes for all jobs of the process.
//!
//! The one invariant to know: nobody waits for the budget while holding a part of it, so it cannot deadlock.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT_BYTES: u64 = 1024;

/// The budget; clones share it.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    units: Arc<Semaphore>,
    total: u32,
}

impl MemoryBudget {
    /// Makes a budget.
    pub fn new(bytes: u64) -> Self {
        let total = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self { units: Arc::new(Semaphore::new(total as usize)), total }
    }

    /// Waits for a share, given back when dropped. More than the whole budget counts as the whole.
    pub async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX).clamp(1, self.total);
        self.units.clone().acquire_many_owned(units).await.expect("the budget's semaphore is never closed")
    }

    /// The whole budget.
    pub fn total_bytes(&self) -> u64 {
        u64::from(self.total) * UNIT_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_share_waits_until_another_is_given_back() {
        let budget = MemoryBudget::new(10 << 10);
        let first = budget.reserve(8 << 10).await;
        let blocked = tokio::time::timeout(Duration::from_millis(20), budget.reserve(4 << 10)).await;
        assert!(blocked.is_err());
        drop(first);
        assert_eq!(budget.reserve(99 << 20).await.num_permits(), 10);
    }
}
