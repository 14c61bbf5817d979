//! The ledger of a cluster: every decision is one atomic script on Redis' own clock.
//!
//! The one invariant to know: losing Redis, or finding it empty, never raises what is granted. The in-process ledger counts
//! everything beside it, so the fallback starts from the truth, and a Redis that comes back empty is not believed before a
//! whole window has passed while all workers were charging it. Windows of hours and days would take too long for that: of these
//! the workers report what they know. A pause holds here from the moment it is known, and is told to
//! Redis until it is over, so that a Redis which missed or forgot it hears of it again.

mod script;
mod slot;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use holdfast_model::{Clock, JobClass, Millis, Random};
use redis::{
    Client, FromRedisValue, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use script::{Ask, Verdict};
use slot::{RedisSlot, Update, send_updates};

use super::{
    Cost, LedgerError, LocalLedger, Permit, QuotaKey, QuotaLedger, QuotaLimits, Shortage, WindowUse,
    local::LocalSlot, window::millis,
};
use crate::{GraphError, RateLimit, metrics};

/// Redis answers within this, or the fallback decides.
const TIMEOUT: Duration = Duration::from_millis(500);

/// After a failure Redis is left alone for this long, so that each call does not pay the timeout.
const REST: Duration = Duration::from_secs(2);

/// How many workers share the reserve while neither Redis nor the coordinator has said how many there are.
const UNHEARD_WORKERS: u64 = 32;

/// A grant that took longer is looked at again before it is used: another worker may have been told to pause meanwhile.
const GRANT_FRESH: Duration = Duration::from_millis(200);

/// How often pauses that began here are told to Redis.
const REPEAT_PAUSES: Duration = Duration::from_millis(250);

/// More pauses at a time are told once only.
const MAX_REPEATED_PAUSES: usize = 4_096;

/// A worker that has not called for this long is not counted any more.
const WORKER_TTL: Duration = Duration::from_mins(2);

/// Releases and renewals on their way to Redis. When it is full they are dropped: the slot expires by itself.
const MAX_QUEUED: usize = 4_096;

const GENERATION: &str = "holdfast:quota:generation";
const WORKERS: &str = "holdfast:quota:workers";

const PAUSE: &str = "
local wait = tonumber(ARGV[1])
if redis.call('PTTL', KEYS[1]) < wait then redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) end
return 0";

const RENEW: &str = "
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[2]) * 2)
return 0";

/// Counts for all workers of a cluster.
pub struct RedisLedger {
    inner: Arc<Inner>,
    queue: mpsc::Sender<Update>,
    cancel: CancellationToken,
    updates: Mutex<Option<JoinHandle<()>>>,
}

struct Inner {
    connection: ConnectionManager,
    local: LocalLedger,
    worker: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    acquire: Script,
    pause: Script,
    renew: Script,
    /// Registered workers, as last heard; 0 before that.
    workers: AtomicU64,
    /// Pauses that began here, on the monotonic clock.
    pauses: StdMutex<HashMap<QuotaKey, Duration>>,
    /// On the monotonic clock, in milliseconds.
    rests_until: AtomicU64,
    was_lost: AtomicBool,
}

impl RedisLedger {
    /// Connects. `worker` is a name that no other process uses.
    ///
    /// A Redis that is away is no failure: the fallback decides until it is there.
    pub async fn connect(
        url: &str,
        limits: QuotaLimits,
        worker: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, GraphError> {
        let bad = |reason| move |_: RedisError| GraphError::Config { setting: "redis-url", reason };
        let client = Client::open(url).map_err(bad("it is not a Redis URL"))?;
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(1)
            .set_max_delay(REST)
            .set_response_timeout(Some(TIMEOUT))
            .set_connection_timeout(Some(TIMEOUT));
        let connection = ConnectionManager::new_lazy_with_config(client, config)
            .map_err(bad("a connection cannot be prepared"))?;
        let inner = Arc::new(Inner {
            connection,
            local: LocalLedger::new(limits, clock.clone()),
            worker: worker.to_owned(),
            clock,
            random,
            acquire: Script::new(include_str!("acquire.lua")),
            pause: Script::new(PAUSE),
            renew: Script::new(RENEW),
            workers: AtomicU64::new(0),
            pauses: StdMutex::default(),
            rests_until: AtomicU64::new(0),
            was_lost: AtomicBool::new(false),
        });
        inner.greet().await?;
        let (queue, updates) = mpsc::channel(MAX_QUEUED);
        let cancel = CancellationToken::new();
        let updates = tokio::spawn(send_updates(inner.clone(), updates, cancel.clone()));
        Ok(Self { inner, queue, cancel, updates: Mutex::new(Some(updates)) })
    }

    /// Says that nobody has called Microsoft for a whole window, so that an empty Redis can be believed at once.
    ///
    /// Only for the first start of a new cluster; an existing generation stays.
    pub async fn declare_fresh(&self) -> Result<(), GraphError> {
        let mut connection = self.inner.connection.clone();
        let mut call = redis::cmd("SETNX");
        let set = in_time::<bool>(call.arg(GENERATION).arg(0).query_async(&mut connection));
        let reason = "it does not answer, or refuses to be written";
        set.await.map(drop).map_err(|_| GraphError::Config { setting: "redis-url", reason })
    }

    /// How many workers share the reserve, from the coordinator's heartbeat.
    pub fn set_workers(&self, workers: u32) {
        self.inner.workers.store(u64::from(workers.max(1)), Ordering::Relaxed);
    }

    /// Sends what is queued and stops the background loop.
    pub async fn close(&self) {
        self.cancel.cancel();
        if let Some(updates) = self.updates.lock().await.take()
            && let Err(error) = updates.await
        {
            tracing::warn!(%error, "the quota ledger's loop did not end well");
        }
    }

    fn permit(&self, key: &QuotaKey, local: LocalSlot, slot: Option<String>) -> Permit {
        let ttl_ms = millis(self.inner.local.limits_of(&key.scope).slot_ttl);
        let shared = slot.map(|slot| (redis_key(key, "slots"), slot));
        let renew_at = AtomicU64::new(millis(self.inner.clock.monotonic()) + ttl_ms / 4);
        let (inner, queue) = (self.inner.clone(), self.queue.clone());
        Permit::new(RedisSlot { local, shared, ttl_ms, renew_at, inner, queue })
    }

    /// Without Redis, or while it is not to be believed.
    fn alone(&self, key: &QuotaKey, cost: Cost, class: JobClass) -> Result<LocalSlot, LedgerError> {
        metrics::ledger_fallback();
        let workers = match self.inner.workers.load(Ordering::Relaxed) {
            0 => UNHEARD_WORKERS,
            heard => heard,
        };
        self.inner.local.grant_alone(key, cost, class, workers)
    }

    /// Redis took its time to answer; a pause that became known meanwhile holds.
    async fn unless_paused(
        &self,
        key: &QuotaKey,
        asked_at: Duration,
        permit: Permit,
    ) -> Result<Permit, LedgerError> {
        if self.inner.clock.monotonic().saturating_sub(asked_at) > GRANT_FRESH
            && let Some(left) = self.inner.pause_left(key).await
        {
            self.inner.local.pause_for(key, left);
        }
        let wait = self.inner.local.paused_for(key);
        if wait.is_zero() {
            Ok(permit)
        } else {
            Err(LedgerError::WouldWait { wait, shortage: Shortage::Paused })
        }
    }
}

impl Drop for RedisLedger {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

#[async_trait]
impl QuotaLedger for RedisLedger {
    async fn acquire(&self, key: &QuotaKey, cost: Cost, class: JobClass) -> Result<Permit, LedgerError> {
        let limits = self.inner.local.limits_of(&key.scope);
        if !limits.fits(&limits.charges(cost), class) {
            return Err(LedgerError::NeverFits);
        }
        // A pause that Redis has forgotten holds all the same.
        let paused = self.inner.local.paused_for(key);
        if !paused.is_zero() {
            return Err(LedgerError::WouldWait { wait: paused, shortage: Shortage::Paused });
        }
        let slot = crate::request::random_uuid(&*self.inner.random).to_string();
        let asked_at = self.inner.clock.monotonic();
        let asked = Ask::Acquire { cost, class, slot: &slot };
        let Some(answer) = self.inner.ask(key, &limits, asked).await else {
            return self.alone(key, cost, class).map(|local| self.permit(key, local, None));
        };
        let shortage = match answer.verdict {
            Verdict::Granted => {
                let local = self.inner.local.charge(key, cost);
                self.inner.local.sync(key, &answer.used);
                return self.unless_paused(key, asked_at, self.permit(key, local, Some(slot))).await;
            }
            Verdict::Paused => {
                self.inner.local.pause_for(key, answer.wait);
                Shortage::Paused
            }
            Verdict::Short(shortage) => shortage,
            Verdict::NotTrusted => {
                let local = self.alone(key, cost, class)?;
                // Lost or not: the local count has it.
                let charged = self.inner.ask(key, &limits, Ask::Charge { cost, class, slot: &slot }).await;
                let permit = self.permit(key, local, charged.map(|_| slot));
                return self.unless_paused(key, asked_at, permit).await;
            }
        };
        Err(LedgerError::WouldWait { wait: answer.wait, shortage })
    }

    async fn correct(&self, key: &QuotaKey, said: RateLimit) {
        // Redis knows no less than this worker does.
        if !self.inner.local.raise(key, said) {
            return;
        }
        let limits = self.inner.local.limits_of(&key.scope);
        // Where Redis is away the local count has it.
        let _told = self.inner.ask(key, &limits, Ask::Correct { said }).await;
    }

    async fn usage(&self, key: &QuotaKey) -> Vec<WindowUse> {
        let limits = self.inner.local.limits_of(&key.scope);
        match self.inner.ask(key, &limits, Ask::Look).await {
            Some(answer) => self.inner.local.report(key, &answer.used),
            None => self.inner.local.usage(key).await,
        }
    }

    async fn pause(&self, key: &QuotaKey, until_ms: Millis) {
        self.inner.local.pause(key, until_ms).await;
        let wait = Duration::from_millis(until_ms.saturating_sub(self.inner.clock.now_ms()).max(1));
        self.inner.remember_pause(key, wait);
        self.inner.tell_pause(key, wait).await;
    }

    async fn slot_freed(&self, key: &QuotaKey, at_most: Duration) {
        self.inner.local.slot_freed(key, at_most).await;
    }
}

/// What Redis said, or why that is not known.
async fn in_time<T: FromRedisValue>(call: impl Future<Output = Result<T, RedisError>>) -> Result<T, Lost> {
    match timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(Lost::Failed),
        Err(_) => Err(Lost::Late),
    }
}

/// Why Redis is taken for lost.
enum Lost {
    Late,
    Failed(RedisError),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => write!(f, "no answer within {} ms", TIMEOUT.as_millis()),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl Inner {
    /// Opens the connection. Who refuses our password is there, and will never answer anything else.
    async fn greet(&self) -> Result<(), GraphError> {
        let mut connection = self.connection.clone();
        match in_time::<String>(redis::cmd("PING").query_async(&mut connection)).await {
            Ok(_) => Ok(()),
            Err(Lost::Failed(error)) if is_about_the_password(&error) => {
                let reason = "its user or password is refused, correct it";
                Err(GraphError::Config { setting: "redis-url", reason })
            }
            Err(error) => {
                self.lost(&error);
                Ok(())
            }
        }
    }

    fn remember_pause(&self, key: &QuotaKey, wait: Duration) {
        let now = self.clock.monotonic();
        let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
        pauses.retain(|_, until| *until > now);
        if pauses.len() < MAX_REPEATED_PAUSES || pauses.contains_key(key) {
            let until = pauses.entry(key.clone()).or_default();
            *until = (*until).max(now + wait);
        }
    }

    /// Whether Redis knows now.
    async fn tell_pause(&self, key: &QuotaKey, wait: Duration) -> bool {
        let mut connection = self.connection.clone();
        let mut call = self.pause.key(redis_key(key, "pause"));
        let told = in_time::<()>(call.arg(millis(wait).max(1)).invoke_async(&mut connection)).await;
        told.map_err(|error| self.lost(&error)).is_ok()
    }

    /// Tells the pauses that began here again, until they are over. One that is known already changes nothing.
    async fn repeat_pauses(&self) {
        let now = self.clock.monotonic();
        let live: Vec<_> = {
            let mut pauses = self.pauses.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.retain(|_, until| *until > now);
            pauses.iter().map(|(key, until)| (key.clone(), *until)).collect()
        };
        for (key, until) in live {
            let left = until.saturating_sub(self.clock.monotonic());
            if !left.is_zero() && !self.tell_pause(&key, left).await {
                return;
            }
        }
    }

    /// The pause that Redis knows of; none where there is none or Redis cannot be had.
    async fn pause_left(&self, key: &QuotaKey) -> Option<Duration> {
        let mut connection = self.connection.clone();
        let mut call = redis::cmd("PTTL");
        let left = in_time::<i64>(call.arg(redis_key(key, "pause")).query_async(&mut connection)).await;
        let left_ms = left.map_err(|error| self.lost(&error)).ok()?;
        u64::try_from(left_ms).ok().filter(|left| *left > 0).map(Duration::from_millis)
    }

    fn lost(&self, error: &Lost) {
        let rests_until = millis(self.clock.monotonic() + REST);
        self.rests_until.store(rests_until, Ordering::Relaxed);
        if !self.was_lost.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                %error,
                "the quota ledger's redis does not answer, every worker counts for itself until it does"
            );
        }
    }
}

fn is_about_the_password(error: &RedisError) -> bool {
    let is_refused = error.kind() == redis::ErrorKind::AuthenticationFailed;
    is_refused || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

fn redis_key(key: &QuotaKey, part: &str) -> String {
    format!("holdfast:quota:{{{key}}}:{part}")
}

#[cfg(test)]
mod tests;
