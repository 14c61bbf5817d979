//! Microsoft's limits per app and scope: requests in flight, requests and upload bytes per window.
//!
//! Invariant: a scope that was told to wait stays blocked until the time it was told, whoever asks; what is asked
//! earlier is refused again and counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use holdfast_model::{Clock, Millis};

use crate::options::SimLimits;
use crate::rng::mix;
use crate::world::World;

/// A request this soon after a 429 was on its way already; one this little before its time is on time.
const GRACE_MS: u64 = 300;
/// How long a mailbox stays blocked when the 429 does not say.
const SILENT_BLOCK_MS: u64 = 1000;
const BUCKETS: u64 = 60;

/// What shares one allowance; each app has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Everything Outlook keeps for one person.
    Mailbox(u32),
}

impl Scope {
    /// The name it is counted by.
    pub(crate) fn name(self, world: &World) -> &str {
        match self {
            Self::Mailbox(user) => &world.people.user(user).user_principal_name,
        }
    }
}

type Key = (String, Scope);

#[derive(Default)]
pub(crate) struct Limits {
    scopes: Mutex<HashMap<Key, Account>>,
}

/// What a scope has used.
#[derive(Default)]
struct Account {
    in_flight: u32,
    requests: Window,
    uploads: Window,
    blocked: Option<Block>,
}

#[derive(Clone, Copy)]
struct Block {
    since_ms: Millis,
    until_ms: Millis,
    /// Whether the client was told how long.
    told: bool,
}

#[derive(Default)]
struct Window {
    buckets: VecDeque<(u64, u64)>,
    total: u64,
}

impl Window {
    fn forget(&mut self, now_ms: u64, window_ms: u64) {
        while let Some((at, count)) = self.buckets.front().copied() {
            if at + window_ms > now_ms {
                break;
            }
            self.total -= count;
            self.buckets.pop_front();
        }
    }

    fn add(&mut self, now_ms: u64, window_ms: u64, count: u64) {
        let width = (window_ms / BUCKETS).max(1);
        let at = now_ms - now_ms % width + width - 1;
        self.total += count;
        match self.buckets.back_mut() {
            Some((last, sum)) if *last == at => *sum += count,
            _ => self.buckets.push_back((at, count)),
        }
    }

    fn free_in(&self, now_ms: u64, window_ms: u64) -> u64 {
        self.buckets.front().map_or(1, |(at, _)| (at + window_ms).saturating_sub(now_ms).max(1))
    }
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Concurrency,
    Window,
    Upload,
    StillBlocked,
    Fault,
}

/// A refusal with what to say about when to come back.
#[derive(Clone, Debug)]
pub(crate) struct Throttled {
    pub reason: Reason,
    /// Value of `Retry-After`; none = the header is absent.
    pub retry_after: Option<String>,
    /// The request came earlier than it was told to.
    pub early: bool,
}

/// A request in flight; dropping it ends it.
pub(crate) struct Flight {
    limits: Arc<Limits>,
    key: Key,
    places: u32,
    /// In flight together with this one.
    pub together: u32,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut scopes = self.limits.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = scopes.get_mut(&self.key) {
            account.in_flight = account.in_flight.saturating_sub(self.places);
        }
    }
}

/// What a request costs.
pub(crate) struct Cost {
    pub upload_bytes: u64,
    /// Chooses the form of the refusal, should there be one.
    pub salt: u64,
    /// Whether it takes one of the places in flight; pieces of an upload do not.
    pub takes_place: bool,
}

impl Limits {
    /// Lets a request in or refuses it. Refused ones count against the window too.
    pub(crate) fn admit(
        self: &Arc<Self>,
        options: &SimLimits,
        clock: &dyn Clock,
        app: &str,
        scope: Scope,
        cost: &Cost,
    ) -> Result<Flight, Throttled> {
        let key = (app.to_owned(), scope);
        let mono = clock.monotonic().as_millis() as u64;
        let now_ms = clock.now_ms();
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let account = scopes.entry(key.clone()).or_default();
        if let Some(block) = account.blocked {
            if now_ms < block.until_ms {
                let early =
                    block.told && now_ms + GRACE_MS < block.until_ms && now_ms > block.since_ms + GRACE_MS;
                let seconds = (block.until_ms - now_ms).div_ceil(1000);
                let retry_after = block.told.then(|| seconds.to_string());
                return Err(Throttled { reason: Reason::StillBlocked, retry_after, early });
            }
            account.blocked = None;
        }
        if options.enabled
            && let Some((reason, wait_ms)) = account.charge(options, mono, cost)
        {
            return Err(account.block(reason, wait_ms, now_ms, cost.salt));
        }
        let places = u32::from(cost.takes_place);
        account.in_flight += places;
        let together = account.in_flight;
        drop(scopes);
        Ok(Flight { limits: Arc::clone(self), key, places, together })
    }

    /// Refuses by decree of the fault options.
    pub(crate) fn refuse(&self, clock: &dyn Clock, app: &str, scope: Scope, salt: u64) -> Throttled {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let account = scopes.entry((app.to_owned(), scope)).or_default();
        account.block(Reason::Fault, 1000 + mix(salt) % 2000, clock.now_ms(), salt)
    }
}

impl Account {
    fn charge(&mut self, options: &SimLimits, mono: u64, cost: &Cost) -> Option<(Reason, u64)> {
        let window = options.window_seconds.max(1) * 1000;
        let upload_window = options.upload_window_seconds.max(1) * 1000;
        let allowed = |limit: u64| (limit as f64 * options.scale) as u64;
        self.requests.forget(mono, window);
        self.uploads.forget(mono, upload_window);
        if self.requests.total >= allowed(options.requests_per_window) {
            return Some((Reason::Window, self.requests.free_in(mono, window)));
        }
        self.requests.add(mono, window, 1);
        if cost.takes_place && self.in_flight >= options.concurrent_per_mailbox {
            return Some((Reason::Concurrency, 1000 + mix(cost.salt) % 2000));
        }
        if cost.upload_bytes > 0 {
            let limit = allowed(options.upload_bytes_per_window);
            if self.uploads.total > 0 && self.uploads.total + cost.upload_bytes > limit {
                return Some((Reason::Upload, self.uploads.free_in(mono, upload_window)));
            }
            self.uploads.add(mono, upload_window, cost.upload_bytes);
        }
        None
    }

    /// Blocks the mailbox and says so in one of the forms Microsoft uses.
    fn block(&mut self, reason: Reason, wait_ms: u64, now_ms: Millis, salt: u64) -> Throttled {
        let (until_ms, retry_after) = match mix(salt ^ 0x0072_6574) % 4 {
            0 => {
                let until = now_ms + wait_ms;
                (until, Some(format!("{}.{:03}", wait_ms / 1000, wait_ms % 1000)))
            }
            1 => {
                let until = (now_ms + wait_ms).div_ceil(1000) * 1000;
                (until, Some(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(until))))
            }
            2 if reason != Reason::Window && reason != Reason::Upload => (now_ms + SILENT_BLOCK_MS, None),
            _ => {
                let seconds = wait_ms.div_ceil(1000);
                (now_ms + seconds * 1000, Some(seconds.to_string()))
            }
        };
        self.blocked = Some(Block { since_ms: now_ms, until_ms, told: retry_after.is_some() });
        Throttled { reason, retry_after, early: false }
    }
}
