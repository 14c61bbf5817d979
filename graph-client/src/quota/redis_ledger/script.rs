//! Asking the script: what goes in, what comes out.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_model::JobClass;
use redis::ScriptInvocation;

use super::{GENERATION, Inner, WORKER_TTL, WORKERS, in_time, redis_key};
use crate::{
    Cost, QuotaKey, RateLimit, Shortage,
    quota::{
        limits::ScopeLimits,
        local::CLAIM,
        window::{MAX_BUCKETS, millis},
    },
};

/// After a loss a window of this length or less is waited for; of longer ones the workers report what they know.
const MAX_TRUST_WAIT: Duration = Duration::from_mins(10);

/// What the script is asked.
pub(super) enum Ask<'a> {
    /// Decide, and charge if it is granted.
    Acquire { cost: Cost, class: JobClass, slot: &'a str },
    /// Charge what was granted elsewhere.
    Charge { cost: Cost, class: JobClass, slot: &'a str },
    /// Raise the count to what Microsoft said.
    Correct { said: RateLimit },
    /// Say what is used.
    Look,
}

impl Ask<'_> {
    fn mode(&self) -> &'static str {
        match self {
            Self::Acquire { .. } => "acquire",
            Self::Charge { .. } => "charge",
            Self::Correct { .. } => "correct",
            Self::Look => "look",
        }
    }

    /// What a question that takes no slot costs nobody reads.
    fn taking(&self) -> (Cost, JobClass, &str) {
        match self {
            Self::Acquire { cost, class, slot } | Self::Charge { cost, class, slot } => (*cost, *class, slot),
            Self::Correct { .. } | Self::Look => (Cost::ONE, JobClass::Restore, ""),
        }
    }
}

/// What the script decided.
pub(super) enum Verdict {
    Granted,
    Paused,
    Short(Shortage),
    /// Redis came back empty, and a window has not passed yet.
    NotTrusted,
}

/// What the script said.
pub(super) struct Answer {
    pub verdict: Verdict,
    pub wait: Duration,
    /// In the order of the limits.
    pub used: Vec<u64>,
}

impl Inner {
    /// Runs the script; none when Redis cannot be had.
    pub(super) async fn ask(&self, key: &QuotaKey, limits: &ScopeLimits, ask: Ask<'_>) -> Option<Answer> {
        if millis(self.clock.monotonic()) < self.rests_until.load(Ordering::Relaxed) {
            return None;
        }
        let mut call = self.acquire.prepare_invoke();
        self.add_arguments(&mut call, key, limits, &ask);
        let mut connection = self.connection.clone();
        match in_time::<Vec<u64>>(call.invoke_async(&mut connection)).await {
            Ok(said) => {
                if self.was_lost.swap(false, Ordering::Relaxed) {
                    tracing::info!("the quota ledger's redis is back");
                }
                let [state, wait_ms, workers, used @ ..] = said.as_slice() else { return None };
                self.workers.fetch_max(*workers, Ordering::Relaxed);
                let wait = Duration::from_millis(*wait_ms);
                Some(Answer { verdict: verdict(*state, limits), wait, used: used.to_vec() })
            }
            Err(error) => {
                self.lost(&error);
                None
            }
        }
    }

    /// In the order that the script names.
    fn add_arguments(
        &self,
        call: &mut ScriptInvocation<'_>,
        key: &QuotaKey,
        limits: &ScopeLimits,
        ask: &Ask<'_>,
    ) {
        let (cost, class, slot) = ask.taking();
        let whole = limits.windows.first().map_or(0, |window| window.granted + window.reserve);
        let (left, reset) = match ask {
            Ask::Correct { said } => (said.units_left(whole), said.reset),
            _ => (0, Duration::ZERO),
        };
        call.key(GENERATION).key(WORKERS);
        for part in ["slots", "claims", "pause"] {
            call.key(redis_key(key, part));
        }
        call.arg(ask.mode())
            .arg(&self.worker)
            .arg(millis(WORKER_TTL))
            .arg(class as usize)
            .arg(slot)
            .arg(millis(limits.slot_ttl))
            .arg(limits.in_flight)
            .arg(millis(CLAIM))
            .arg(MAX_BUCKETS)
            .arg(millis(MAX_TRUST_WAIT))
            .arg(left)
            .arg(millis(reset));
        let windows = limits.windows.iter().zip(limits.charges(cost)).zip(limits.granted(class));
        for (((window, charge), granted), known) in windows.zip(self.local.used(key)) {
            call.key(redis_key(key, window.name));
            let limit = window.granted + window.reserve;
            call.arg(charge).arg(granted).arg(limit).arg(millis(window.length)).arg(known);
        }
    }
}

fn verdict(state: u64, limits: &ScopeLimits) -> Verdict {
    let short = |index: u64| limits.windows.get(usize::try_from(index).ok()?).map(|window| window.shortage);
    match state {
        0 => Verdict::Granted,
        1 => Verdict::Paused,
        2 => Verdict::Short(Shortage::Slots),
        3 => Verdict::NotTrusted,
        short_of => Verdict::Short(short(short_of - 4).unwrap_or(Shortage::Requests)),
    }
}
