//! The ledger of one process; inside the Redis ledger it keeps counting everything, so that the fallback knows.
//!
//! The one invariant to know: a decision and its charge happen under one lock. What is charged is never given back; only the
//! in-flight slot is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_model::{Clock, JobClass, Millis};
use tokio::sync::Notify;

use super::{
    Cost, LedgerError, Permit, QuotaKey, QuotaLedger, QuotaLimits, Scope, Shortage, Slot,
    limits::ScopeLimits, window::Window,
};

/// Idle keys are dropped when there are this many.
const MAX_IDLE_KEYS: usize = 4_096;

/// How long a class that found nothing keeps the lower ones back; it asks again well within this time.
pub(super) const CLAIM: Duration = Duration::from_millis(500);

/// What to wait before asking for a slot again.
pub(super) const SLOT_WAIT: Duration = Duration::from_millis(50);

/// A key that was not used for this long may have been somebody else's in the meantime: leases are shorter.
const TRUST: Duration = Duration::from_mins(1);

const CLASSES: usize = JobClass::ALL.len();

/// Counts within one process.
#[derive(Clone)]
pub struct LocalLedger {
    shared: Arc<Shared>,
}

struct Shared {
    limits: QuotaLimits,
    clock: Arc<dyn Clock>,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    states: HashMap<QuotaKey, State>,
    prune_at: usize,
}

#[derive(Default)]
struct State {
    requests: Window,
    uploads: Window,
    /// Slot → when it expires.
    slots: BTreeMap<u64, Duration>,
    next_slot: u64,
    /// Per class: until when it keeps the lower ones back.
    claims: [Duration; CLASSES],
    paused_until: Duration,
    /// Since when this process has counted all of its own use, without a gap.
    known_since: Duration,
    /// Whether the count includes what Redis knew.
    is_synced: bool,
    last_used: Duration,
    freed: Arc<Notify>,
}

/// What may be granted right now.
#[derive(Debug, Clone, Copy)]
struct Grant {
    requests: u64,
    upload_bytes: u64,
}

impl LocalLedger {
    /// Starts with nothing counted.
    pub fn new(limits: QuotaLimits, clock: Arc<dyn Clock>) -> Self {
        let keys = Mutex::new(Keys { prune_at: MAX_IDLE_KEYS, ..Keys::default() });
        Self { shared: Arc::new(Shared { limits, clock, keys }) }
    }

    pub(super) fn limits_of(&self, scope: &Scope) -> ScopeLimits {
        self.shared.limits.of(scope)
    }

    fn grant(&self, key: &QuotaKey, cost: Cost, class: JobClass) -> Result<LocalSlot, LedgerError> {
        let limits = self.limits_of(&key.scope);
        let full = Grant { requests: limits.requests, upload_bytes: limits.upload_bytes };
        self.decide(key, cost, &limits, |state, now| state.try_grant(cost, class, now, &limits, full))
    }

    /// Decides without Redis: never above the limit, whatever other workers do.
    ///
    /// A mailbox belongs to one lease holder, whose own count is the truth once it has counted for a whole window or has heard
    /// from Redis. Before that, and for everything shared, only this worker's part of the reserve is given.
    pub(super) fn grant_alone(
        &self,
        key: &QuotaKey,
        cost: Cost,
        class: JobClass,
        workers: u64,
    ) -> Result<LocalSlot, LedgerError> {
        let limits = self.limits_of(&key.scope);
        self.decide(key, cost, &limits, |state, now| {
            let (is_own, workers) = match key.scope {
                Scope::Mailbox(_) => (state.is_trusted(now, &limits), 1),
                _ => (false, workers.max(1)),
            };
            let grant = if is_own {
                Grant { requests: limits.requests, upload_bytes: limits.upload_bytes }
            } else {
                Grant { requests: limits.reserve / workers, upload_bytes: limits.upload_reserve / workers }
            };
            match state.try_grant(cost, class, now, &limits, grant) {
                Err(LedgerError::NeverFits) => {
                    let fits_later = u64::from(cost.requests) <= limits.requests
                        && cost.upload_bytes <= limits.upload_bytes;
                    let wait = limits.window.max(limits.upload_window);
                    if fits_later {
                        Err(LedgerError::WouldWait { wait, shortage: Shortage::Requests })
                    } else {
                        Err(LedgerError::NeverFits)
                    }
                }
                result => result,
            }
        })
    }

    /// Counts a call that somebody else has granted.
    pub(super) fn charge(&self, key: &QuotaKey, cost: Cost) -> LocalSlot {
        let limits = self.limits_of(&key.scope);
        let id = self.shared.with(key, |state, now| state.charge(cost, now, &limits));
        LocalSlot { shared: self.shared.clone(), key: key.clone(), id }
    }

    fn decide(
        &self,
        key: &QuotaKey,
        cost: Cost,
        limits: &ScopeLimits,
        decision: impl FnOnce(&mut State, Duration) -> Result<(), LedgerError>,
    ) -> Result<LocalSlot, LedgerError> {
        let id = self.shared.with(key, |state, now| {
            decision(state, now)?;
            Ok(state.charge(cost, now, limits))
        })?;
        Ok(LocalSlot { shared: self.shared.clone(), key: key.clone(), id })
    }

    /// Raises the count to what Redis knows.
    pub(super) fn sync(&self, key: &QuotaKey, requests: u64, upload_bytes: u64) {
        let limits = self.limits_of(&key.scope);
        self.shared.with(key, |state, now| {
            let missing = requests.saturating_sub(state.requests.used(now, limits.window));
            state.requests.charge(missing, now, limits.window);
            let missing = upload_bytes.saturating_sub(state.uploads.used(now, limits.upload_window));
            state.uploads.charge(missing, now, limits.upload_window);
            state.is_synced = true;
        });
    }

    /// How long a pause still lasts.
    pub(super) fn paused_for(&self, key: &QuotaKey) -> Duration {
        self.shared.with(key, |state, now| state.paused_until.saturating_sub(now))
    }

    pub(super) fn pause_for(&self, key: &QuotaKey, wait: Duration) {
        self.shared.with(key, |state, now| state.paused_until = state.paused_until.max(now + wait));
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Keys> {
        // Every change under the lock is complete in itself, so a panic elsewhere leaves nothing half done.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, key: &QuotaKey, f: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.clock.monotonic();
        let mut keys = self.lock();
        if keys.states.len() >= keys.prune_at {
            let limits = &self.limits;
            keys.states.retain(|key, state| !state.is_idle(now, &limits.of(&key.scope)));
            keys.prune_at = (keys.states.len() * 2).max(MAX_IDLE_KEYS);
        }
        let fresh = || State { known_since: now, last_used: now, ..State::default() };
        let state = keys.states.entry(key.clone()).or_insert_with(fresh);
        if now.saturating_sub(state.last_used) > TRUST {
            state.known_since = now;
            state.is_synced = false;
        }
        state.last_used = now;
        f(state, now)
    }
}

impl State {
    fn is_idle(&mut self, now: Duration, limits: &ScopeLimits) -> bool {
        self.live_slots(now) == 0
            && self.paused_until <= now
            && self.requests.used(now, limits.window) == 0
            && self.uploads.used(now, limits.upload_window) == 0
    }

    fn is_trusted(&self, now: Duration, limits: &ScopeLimits) -> bool {
        self.is_synced || now.saturating_sub(self.known_since) >= limits.window.max(limits.upload_window)
    }

    fn charge(&mut self, cost: Cost, now: Duration, limits: &ScopeLimits) -> u64 {
        self.requests.charge(u64::from(cost.requests), now, limits.window);
        self.uploads.charge(cost.upload_bytes, now, limits.upload_window);
        self.next_slot += 1;
        self.slots.insert(self.next_slot, now + limits.slot_ttl);
        self.next_slot
    }

    fn live_slots(&mut self, now: Duration) -> usize {
        self.slots.retain(|_, expires| *expires > now);
        self.slots.len()
    }

    fn try_grant(
        &mut self,
        cost: Cost,
        class: JobClass,
        now: Duration,
        limits: &ScopeLimits,
        grant: Grant,
    ) -> Result<(), LedgerError> {
        let short = |wait, shortage| Err(LedgerError::WouldWait { wait, shortage });
        let requests = u64::from(cost.requests);
        if requests > grant.requests || cost.upload_bytes > grant.upload_bytes {
            return Err(LedgerError::NeverFits);
        }
        if self.paused_until > now {
            return short(self.paused_until - now, Shortage::Paused);
        }
        let class = class as usize;
        if self.claims[..class].iter().any(|until| *until > now) {
            return short(SLOT_WAIT, Shortage::Slots);
        }
        let wait_requests = self.requests.wait_for(requests, grant.requests, now, limits.window);
        let wait_upload =
            self.uploads.wait_for(cost.upload_bytes, grant.upload_bytes, now, limits.upload_window);
        let (wait, shortage) = if wait_requests.max(wait_upload).is_zero() {
            if self.live_slots(now) < limits.in_flight as usize {
                self.claims[class] = Duration::ZERO;
                return Ok(());
            }
            (SLOT_WAIT, Shortage::Slots)
        } else if wait_requests >= wait_upload {
            (wait_requests, Shortage::Requests)
        } else {
            (wait_upload, Shortage::Upload)
        };
        let claim = if shortage == Shortage::Slots { CLAIM } else { wait + CLAIM };
        self.claims[class] = self.claims[class].max(now + claim);
        short(wait, shortage)
    }
}

/// A slot in flight in this process.
pub(super) struct LocalSlot {
    shared: Arc<Shared>,
    key: QuotaKey,
    id: u64,
}

impl Slot for LocalSlot {
    fn renew(&self) {
        let ttl = self.shared.limits.of(&self.key.scope).slot_ttl;
        self.shared.with(&self.key, |state, now| state.slots.insert(self.id, now + ttl));
    }
}

impl Drop for LocalSlot {
    fn drop(&mut self) {
        self.shared.with(&self.key, |state, _| {
            state.slots.remove(&self.id);
            state.freed.notify_waiters();
        });
    }
}

#[async_trait]
impl QuotaLedger for LocalLedger {
    async fn acquire(&self, key: &QuotaKey, cost: Cost, class: JobClass) -> Result<Permit, LedgerError> {
        self.grant(key, cost, class).map(Permit::new)
    }

    async fn pause(&self, key: &QuotaKey, until_ms: Millis) {
        let wait = until_ms.saturating_sub(self.shared.clock.now_ms());
        self.pause_for(key, Duration::from_millis(wait));
    }

    async fn slot_freed(&self, key: &QuotaKey, at_most: Duration) {
        let freed = self.shared.with(key, |state, _| state.freed.clone());
        // Elapsed means the same as freed: ask again.
        let _elapsed = tokio::time::timeout(at_most, freed.notified()).await;
    }
}

#[cfg(test)]
mod tests;
