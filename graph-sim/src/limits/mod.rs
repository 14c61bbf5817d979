//! Microsoft's limits: per app and mailbox four in flight, requests and upload bytes per window; per app and tenant
//! SharePoint's resource units per minute and per day, and bytes in each direction per hour.
//!
//! Invariant: a scope that was told to wait stays blocked until the time it was told, whoever asks; what is asked
//! earlier is refused again and counted.

mod allowance;
mod window;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use holdfast_model::{Clock, Millis};

use crate::faults::Luck;
use crate::limits::allowance::{Allowance, Counts};
use crate::limits::window::Window;
use crate::options::SimLimits;
use crate::rng::mix;
use crate::world::World;

/// A request this soon after a 429 was on its way already; one this little before its time is on time.
const GRACE_MS: u64 = 300;
/// How long a scope stays blocked when the 429 does not say.
const SILENT_BLOCK_MS: u64 = 1000;
/// From so much of the first allowance on SharePoint says how much is left.
const WARN_PERCENT: u64 = 80;

/// What shares one allowance; each app has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// Everything Outlook keeps for one person.
    Mailbox(u32),
    /// All sites and drives of the tenant.
    SharePoint,
}

impl Scope {
    /// The name it is counted by.
    pub(crate) fn name(self, world: &World) -> &str {
        match self {
            Self::Mailbox(user) => &world.people.user(user).user_principal_name,
            Self::SharePoint => "sharepoint",
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
    /// One per allowance.
    windows: Vec<Window>,
    blocked: Option<Block>,
}

#[derive(Clone, Copy)]
struct Block {
    since_ms: Millis,
    until_ms: Millis,
    /// Whether the client was told how long.
    told: bool,
}

/// What the service says about an allowance that is nearly used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub limit: u64,
    pub remaining: u64,
    pub reset_seconds: u64,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Concurrency,
    Window,
    Upload,
    Bandwidth,
    StillBlocked,
    Fault,
}

impl Reason {
    /// The name it is counted by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::Window => "window",
            Self::Upload => "upload",
            Self::Bandwidth => "bandwidth",
            Self::StillBlocked => "still blocked",
            Self::Fault => "fault",
        }
    }
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
    /// Said when little is left.
    pub left: Option<Left>,
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Resource units.
    pub units: u64,
    pub upload_bytes: u64,
    pub download_bytes: u64,
    /// Chooses the form of the refusal, should there be one.
    pub salt: u64,
    /// Whether it takes one of the places in flight; pieces of an upload do not.
    pub takes_place: bool,
}

impl Cost {
    /// That of bytes sent, without a place in flight.
    pub(crate) fn of(luck: &Luck, upload_bytes: u64) -> Self {
        let salt = luck.salt("429") ^ u64::from(luck.call);
        Self { units: 1, upload_bytes, download_bytes: 0, salt, takes_place: false }
    }
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
        let allowances = allowance::of(scope, options);
        account.windows.resize_with(allowances.len(), Window::default);
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
            && let Some((reason, wait_ms)) = account.charge(&allowances, mono, cost)
        {
            return Err(account.block(reason, wait_ms, now_ms, cost.salt));
        }
        let places = u32::from(cost.takes_place);
        account.in_flight += places;
        let together = account.in_flight;
        let left = (options.enabled && scope == Scope::SharePoint)
            .then(|| account.left(&allowances[0], mono))
            .flatten();
        drop(scopes);
        Ok(Flight { limits: Arc::clone(self), key, places, together, left })
    }

    /// Refuses by decree of the fault options.
    pub(crate) fn refuse(&self, clock: &dyn Clock, app: &str, scope: Scope, salt: u64) -> Throttled {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let account = scopes.entry((app.to_owned(), scope)).or_default();
        account.block(Reason::Fault, 1000 + mix(salt) % 2000, clock.now_ms(), salt)
    }
}

impl Account {
    /// Charges every allowance in turn; the first that has too little left refuses.
    fn charge(&mut self, allowances: &[Allowance], mono: u64, cost: &Cost) -> Option<(Reason, u64)> {
        for (allowance, window) in allowances.iter().zip(&mut self.windows) {
            let Allowance { counts, limit, window_ms, reason } = *allowance;
            let wanted = counts.of(cost);
            if wanted == 0 {
                continue;
            }
            if counts == Counts::InFlight {
                if u64::from(self.in_flight) >= limit {
                    return Some((reason, 1000 + mix(cost.salt) % 2000));
                }
                continue;
            }
            let used = window.used(mono, window_ms);
            if used + wanted > limit && (used > 0 || !counts.may_go_alone()) {
                return Some((reason, window.free_in(mono, window_ms)));
            }
            window.add(mono, window_ms, wanted);
        }
        None
    }

    /// What is left of an allowance, once it is little.
    fn left(&mut self, allowance: &Allowance, mono: u64) -> Option<Left> {
        let window = self.windows.first_mut()?;
        let Allowance { limit, window_ms, .. } = *allowance;
        let used = window.used(mono, window_ms);
        (used * 100 >= limit * WARN_PERCENT).then(|| Left {
            limit,
            remaining: limit.saturating_sub(used),
            reset_seconds: window.free_in(mono, window_ms).min(window_ms).div_ceil(1000),
        })
    }

    /// Blocks the scope and says so in one of the forms Microsoft uses.
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
            2 if matches!(reason, Reason::Concurrency | Reason::Fault) => (now_ms + SILENT_BLOCK_MS, None),
            _ => {
                let seconds = wait_ms.div_ceil(1000);
                (now_ms + seconds * 1000, Some(seconds.to_string()))
            }
        };
        self.blocked = Some(Block { since_ms: now_ms, until_ms, told: retry_after.is_some() });
        Throttled { reason, retry_after, early: false }
    }
}
