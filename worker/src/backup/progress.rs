//! What a running job tells the coordinator with each heartbeat.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use holdfast_model::Account;

/// Progress of one job; shared between the job and its heartbeat loop.
#[derive(Debug, Default)]
pub struct Progress {
    account: Mutex<Account>,
    items_expected: AtomicU64,
}

impl Progress {
    /// Replaces the account.
    pub fn set(&self, account: Account) {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = account;
    }

    /// The account so far.
    pub fn account(&self) -> Account {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items expected in all.
    pub fn expect_items(&self, items: u64) {
        self.items_expected.store(items, Ordering::Relaxed);
    }

    /// Items expected in all, 0 when not known.
    pub fn items_expected(&self) -> u64 {
        self.items_expected.load(Ordering::Relaxed)
    }
}
