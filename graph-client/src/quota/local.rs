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
    Cost, LedgerError, Permit, QuotaKey, QuotaLedger, QuotaLimits, Scope, Shortage, Slot, WindowUse,
    limits::ScopeLimits, window::Window,
};
use crate::RateLimit;

/// Idle keys are dropped when there are this many.
const MAX_IDLE_KEYS: usize = 4_096;

/// How long a class that found nothing keeps the lower ones back; it asks again well within this time.
pub(super) const CLAIM: Duration = Duration::from_millis(500);

/// What to wait before asking for a slot again.
pub(super) const SLOT_WAIT: Duration = Duration::from_millis(50);

/// A key that was not used for this long may have been somebody else's in the meantime: leases are shorter.
const TRUST: Duration = Duration::from_mins(1);

/// What a claim is on: the slots, or a window by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Claimed {
    Slots,
    Window(usize),
}

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
    /// In the order of the scope's limits.
    windows: Vec<Window>,
    /// Slot → when it expires.
    slots: BTreeMap<u64, Duration>,
    next_slot: u64,
    /// Until when a class keeps the lower ones back from what it waits for, and from nothing else.
    claims: BTreeMap<(JobClass, Claimed), Duration>,
    paused_until: Duration,
    /// Since when this process has counted all of its own use, without a gap.
    known_since: Duration,
    /// Whether the count includes what Redis knew.
    is_synced: bool,
    last_used: Duration,
    freed: Arc<Notify>,
}

/// A call that asks, with what each window may be filled to right now.
struct Request<'a> {
    class: JobClass,
    charges: &'a [u64],
    granted: &'a [u64],
}

impl Request<'_> {
    fn takes(&self, claimed: Claimed) -> bool {
        match claimed {
            Claimed::Slots => true,
            Claimed::Window(index) => self.charges.get(index).is_some_and(|charge| *charge > 0),
        }
    }
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
        let (charges, granted) = (limits.charges(cost), limits.granted(class));
        let request = Request { class, charges: &charges, granted: &granted };
        self.decide(key, &limits, &charges, |state, now| state.try_grant(&request, now, &limits))
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
        let charges = limits.charges(cost);
        if !limits.fits(&charges, class) {
            return Err(LedgerError::NeverFits);
        }
        self.decide(key, &limits, &charges, |state, now| {
            let granted = match key.scope {
                Scope::Mailbox(_) if state.is_trusted(now, &limits) => limits.granted(class),
                Scope::Mailbox(_) => limits.reserve(1),
                _ => limits.reserve(workers),
            };
            match state.try_grant(&Request { class, charges: &charges, granted: &granted }, now, &limits) {
                // It fits as soon as Redis is there.
                Err(LedgerError::NeverFits) => {
                    let wait = limits.longest().min(TRUST);
                    Err(LedgerError::WouldWait { wait, shortage: Shortage::Requests })
                }
                result => result,
            }
        })
    }

    /// Counts a call that somebody else has granted.
    pub(super) fn charge(&self, key: &QuotaKey, cost: Cost) -> LocalSlot {
        let limits = self.limits_of(&key.scope);
        let charges = limits.charges(cost);
        let id = self.shared.with(key, |state, now| state.charge(&charges, now, &limits));
        LocalSlot { shared: self.shared.clone(), key: key.clone(), id }
    }

    fn decide(
        &self,
        key: &QuotaKey,
        limits: &ScopeLimits,
        charges: &[u64],
        decision: impl FnOnce(&mut State, Duration) -> Result<(), LedgerError>,
    ) -> Result<LocalSlot, LedgerError> {
        let id = self.shared.with(key, |state, now| {
            decision(state, now)?;
            Ok(state.charge(charges, now, limits))
        })?;
        Ok(LocalSlot { shared: self.shared.clone(), key: key.clone(), id })
    }

    /// What counts at this moment, window by window.
    pub(super) fn used(&self, key: &QuotaKey) -> Vec<u64> {
        let limits = self.limits_of(&key.scope);
        self.shared.with(key, |state, now| state.used(now, &limits))
    }

    /// Raises the count to what Redis knows.
    pub(super) fn sync(&self, key: &QuotaKey, known: &[u64]) {
        let limits = self.limits_of(&key.scope);
        self.shared.with(key, |state, now| {
            let missing: Vec<_> = known
                .iter()
                .zip(state.used(now, &limits))
                .map(|(known, used)| known.saturating_sub(used))
                .collect();
            state.count(&missing, now, &limits);
            state.is_synced = true;
        });
    }

    /// Raises the count of the first window until no more is left than Microsoft said; the raise is forgotten when Microsoft
    /// counts anew. Returns whether there was anything to raise.
    pub(super) fn raise(&self, key: &QuotaKey, said: RateLimit) -> bool {
        let limits = self.limits_of(&key.scope);
        let Some(limit) = limits.windows.first() else { return false };
        self.shared.with(key, |state, now| {
            let whole = limit.granted + limit.reserve;
            let left = whole.saturating_sub(state.used(now, &limits)[0]);
            let missing = left.saturating_sub(said.units_left(whole));
            let ago = limit.length.saturating_sub(said.reset);
            state.windows[0].charge_since(missing, ago, now, limit.length);
            missing > 0
        })
    }

    /// What was used of each window, `used` being in the order of the limits.
    pub(super) fn report(&self, key: &QuotaKey, used: &[u64]) -> Vec<WindowUse> {
        let windows = self.limits_of(&key.scope).windows;
        let report = windows.iter().zip(used).map(|(window, used)| WindowUse {
            name: window.name,
            used: *used,
            granted: window.granted,
            length: window.length,
        });
        report.collect()
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
            && self.used(now, limits).iter().all(|used| *used == 0)
    }

    fn is_trusted(&self, now: Duration, limits: &ScopeLimits) -> bool {
        self.is_synced || now.saturating_sub(self.known_since) >= limits.longest()
    }

    fn used(&mut self, now: Duration, limits: &ScopeLimits) -> Vec<u64> {
        self.windows.resize_with(limits.windows.len(), Window::default);
        let windows = self.windows.iter_mut().zip(&limits.windows);
        windows.map(|(window, limit)| window.used(now, limit.length)).collect()
    }

    fn count(&mut self, charges: &[u64], now: Duration, limits: &ScopeLimits) {
        self.windows.resize_with(limits.windows.len(), Window::default);
        for ((window, limit), charge) in self.windows.iter_mut().zip(&limits.windows).zip(charges) {
            window.charge(*charge, now, limit.length);
        }
    }

    fn charge(&mut self, charges: &[u64], now: Duration, limits: &ScopeLimits) -> u64 {
        self.count(charges, now, limits);
        self.next_slot += 1;
        self.slots.insert(self.next_slot, now + limits.slot_ttl);
        self.next_slot
    }

    fn live_slots(&mut self, now: Duration) -> usize {
        self.slots.retain(|_, expires| *expires > now);
        self.slots.len()
    }

    /// The longest wait of all windows, and whose it is; none where everything fits now.
    fn longest_wait(
        &mut self,
        request: &Request<'_>,
        now: Duration,
        limits: &ScopeLimits,
    ) -> Option<(Duration, usize)> {
        self.windows.resize_with(limits.windows.len(), Window::default);
        let asked = request.charges.iter().zip(request.granted);
        let windows = self.windows.iter_mut().zip(&limits.windows).zip(asked);
        let waits = windows.enumerate().map(|(index, ((window, limit), (charge, granted)))| {
            (window.wait_for(*charge, *granted, now, limit.length), index)
        });
        // Of equal waits the first window's is named.
        let longest = waits.reduce(|longest, next| if next.0 > longest.0 { next } else { longest });
        longest.filter(|(wait, _)| !wait.is_zero())
    }

    /// Whether a more urgent class waits for something that this request takes too.
    fn is_kept_back(&mut self, request: &Request<'_>, now: Duration) -> bool {
        self.claims.retain(|_, until| *until > now);
        self.claims.keys().any(|(class, claimed)| *class < request.class && request.takes(*claimed))
    }

    fn try_grant(
        &mut self,
        request: &Request<'_>,
        now: Duration,
        limits: &ScopeLimits,
    ) -> Result<(), LedgerError> {
        let short = |wait, shortage| Err(LedgerError::WouldWait { wait, shortage });
        if request.charges.iter().zip(request.granted).any(|(charge, granted)| charge > granted) {
            return Err(LedgerError::NeverFits);
        }
        if self.paused_until > now {
            return short(self.paused_until - now, Shortage::Paused);
        }
        if self.is_kept_back(request, now) {
            return short(SLOT_WAIT, Shortage::Slots);
        }
        let (wait, shortage, claimed, claim) = match self.longest_wait(request, now, limits) {
            Some((wait, index)) => {
                (wait, limits.windows[index].shortage, Claimed::Window(index), wait + CLAIM)
            }
            None if self.live_slots(now) < limits.in_flight as usize => {
                self.claims.retain(|(class, claimed), _| *class != request.class || !request.takes(*claimed));
                return Ok(());
            }
            None => (SLOT_WAIT, Shortage::Slots, Claimed::Slots, CLAIM),
        };
        let until = self.claims.entry((request.class, claimed)).or_default();
        *until = (*until).max(now + claim);
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

    async fn correct(&self, key: &QuotaKey, said: RateLimit) {
        self.raise(key, said);
    }

    async fn usage(&self, key: &QuotaKey) -> Vec<WindowUse> {
        self.report(key, &self.used(key))
    }

    async fn slot_freed(&self, key: &QuotaKey, at_most: Duration) {
        let freed = self.shared.with(key, |state, _| state.freed.clone());
        // Elapsed means the same as freed: ask again.
        let _elapsed = tokio::time::timeout(at_most, freed.notified()).await;
    }
}

#[cfg(test)]
mod tests;
