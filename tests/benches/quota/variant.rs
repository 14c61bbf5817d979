//! What is measured for how long, and what happens to Redis meanwhile.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use harness::services::Redis;

use super::{REQUESTS_PER_WINDOW, SCALE, UNITS_PER_MINUTE, WINDOW_SECONDS};

/// When Redis is killed, and for how long: parts of the whole time. In the middle of what a mailbox may do at once.
const KILLED_AFTER_PART: u32 = 20;
const AWAY_FOR_PART: u32 = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    Alone,
    Shared,
    Killed,
    Emptied,
}

impl Variant {
    const ALL: [Self; 4] = [Self::Alone, Self::Shared, Self::Killed, Self::Emptied];

    pub fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Shared => "shared",
            Self::Killed => "killed",
            Self::Emptied => "emptied",
        }
    }

    pub fn workers(self) -> usize {
        if self == Self::Alone { 1 } else { 4 }
    }

    /// Does to Redis what the variant is about.
    pub async fn disturb(self, plan: &Plan, redis: &mut Redis, started: Instant) {
        if !matches!(self, Self::Killed | Self::Emptied) {
            return;
        }
        let kill_at = started + plan.time() / KILLED_AFTER_PART;
        tokio::time::sleep_until(kill_at.into()).await;
        if self == Self::Killed {
            redis.save().await;
        }
        redis.kill();
        tokio::time::sleep_until((kill_at + plan.time() / AWAY_FOR_PART).into()).await;
        redis.restart().await;
    }
}

pub struct Plan {
    pub seconds: u64,
    pub window_seconds: u64,
    pub variants: Vec<Variant>,
}

impl Plan {
    /// `minutes=10 window=600 variants=alone,shared,killed,emptied`
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut plan =
            Self { seconds: WINDOW_SECONDS, window_seconds: WINDOW_SECONDS, variants: Variant::ALL.to_vec() };
        // `cargo bench` adds an option of its own.
        for argument in std::env::args().skip(1).filter(|argument| !argument.starts_with("--")) {
            match argument.split_once('=').context("name=value")? {
                ("minutes", minutes) => plan.seconds = minutes.parse::<u64>()? * 60,
                ("window", "") => {}
                ("window", seconds) => plan.window_seconds = seconds.parse()?,
                ("variants", names) => {
                    let find = |name: &str| Variant::ALL.into_iter().find(|one| one.name() == name);
                    let all = names.split(',').map(|name| find(name).with_context(|| name.to_owned()));
                    plan.variants = all.collect::<anyhow::Result<_>>()?;
                }
                (name, _) => anyhow::bail!("no such option: {name}"),
            }
        }
        plan.window_seconds = plan.window_seconds.min(plan.seconds);
        Ok(plan)
    }

    pub fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Before it is scaled.
    pub fn requests_per_window(&self) -> u64 {
        REQUESTS_PER_WINDOW * self.window_seconds / WINDOW_SECONDS
    }

    /// What the limits allow one mailbox in all the time.
    pub fn allowed_per_mailbox(&self) -> u64 {
        scaled(self.requests_per_window()) * self.seconds.div_ceil(self.window_seconds)
    }

    /// What they allow drives.
    pub fn allowed_units(&self) -> u64 {
        scaled(UNITS_PER_MINUTE) * self.seconds.div_ceil(60)
    }
}

pub fn scaled(limit: u64) -> u64 {
    (limit as f64 * SCALE) as u64
}
