//! What an operator can set about a worker. Settings are data; clocks, queues and ledgers are passed beside them as [`Parts`].

use std::{path::PathBuf, sync::Arc};

use holdfast_graph_client::{LocalLedger, QuotaLedger, QuotaLimits, RedisLedger};
use holdfast_job_queue::{InProcessQueue, JobConsumer, RabbitConsumer, RabbitOptions};
use holdfast_model::{Clock, JobClass, Random};
use holdfast_runtime::{ByteSize, TelemetryOptions, TlsOptions};
use holdfast_storage_client::StorageClientOptions;
use serde::{Deserialize, Serialize};

use crate::Error;

/// A worker never plans with more buffers than this, whatever the configuration says.
pub const MEMORY_BUDGET_MAX: ByteSize = ByteSize::mib(512);
/// The least a worker can work with.
pub const MEMORY_BUDGET_MIN: ByteSize = ByteSize::mib(32);
/// Jobs at once, at most.
pub const SLOTS_MAX: u32 = 64;
/// Contents fetched at once per job, at most. Outlook allows 4 requests in flight per mailbox anyway.
pub const FETCHES_PER_JOB_MAX: u32 = 16;

/// Files in one part of a split drive, at most: what is gathered waits in memory, and what failed of a part is one message.
pub const DRIVE_SHARD_FILES_MAX: u32 = 5_000;

/// How a worker works. No `Debug`: the addresses of broker and Redis may hold a password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WorkerOptions {
    /// The cluster's name, as in its certificates.
    pub cluster: String,
    /// This worker's name, for people.
    pub name: String,
    /// Coordinators as `host:port`; when one is away the next one is asked.
    pub coordinators: Vec<String>,
    /// Where `/healthz`, `/readyz` and `/metrics` are; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<String>,
    /// The worker's certificate.
    pub tls: TlsOptions,
    /// Jobs of this region only. Default "default".
    #[serde(default = "default_region")]
    pub region: String,
    /// Jobs at once, 1 to 64. Default 4.
    #[serde(default = "default_slots")]
    pub slots: u32,
    /// Contents fetched at once per job, 1 to 16. Default 4.
    #[serde(default = "default_fetches")]
    pub fetches_per_job: u32,
    /// Threads that cut, hash, compress and encrypt. Default: the number of cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compute_threads: Option<u32>,
    /// Buffers of all jobs together, 32 MiB to 512 MiB. Default 256 MiB.
    #[serde(default = "default_memory")]
    pub memory_budget: ByteSize,
    /// Where hints come from.
    #[serde(default)]
    pub queue: QueueOptions,
    /// The shared quota ledger; without it the ledger is this process's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_url: Option<String>,
    /// Microsoft's limits.
    #[serde(default)]
    pub quota: QuotaLimits,
    /// A folder for workloads that need files on the way. Mail does not: everything streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scratch: Option<PathBuf>,
    /// How often a backup makes a job checkpoint.
    #[serde(default)]
    pub checkpoint_every: CheckpointEvery,
    /// The slow listing of read flags is made every so many snapshots of a mailbox; 0: never. Default 7.
    #[serde(default = "default_flags_every")]
    pub flags_every: u32,
    /// Earlier versions of each file of a drive that are kept with it: 0, a number, or `all`. Default 0: every backup keeps
    /// the version that it finds.
    #[serde(default)]
    pub drive_versions: DriveVersions,
    /// A drive with more files to fetch than this is split into parts of so many, which any worker fetches: 0 to 5,000; 0:
    /// never. Default 500.
    #[serde(default = "default_drive_shard_files")]
    pub drive_shard_files: u32,
    /// What Microsoft sees as `User-Agent`.
    #[serde(default = "default_user_agent")]
    pub user_agent: String,
    /// How storage nodes are talked to.
    #[serde(default)]
    pub storage: StorageClientOptions,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: TelemetryOptions,
}

/// Earlier versions that are kept with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum DriveVersions {
    /// So many of the newest.
    Last(u32),
    /// All that Microsoft has and a snapshot can hold.
    All(All),
}

/// The word for everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum All {
    /// `all`
    All,
}

impl Default for DriveVersions {
    fn default() -> Self {
        Self::Last(0)
    }
}

impl DriveVersions {
    /// How many are wanted, at most.
    pub fn n_wanted(self) -> usize {
        match self {
            Self::Last(n) => usize::try_from(n).unwrap_or(usize::MAX),
            Self::All(All::All) => usize::MAX,
        }
    }
}

/// Where hints come from.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct QueueOptions {
    /// The broker; none: the queue inside this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp_url: Option<String>,
    /// A file with the broker's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp_password_file: Option<PathBuf>,
}

/// How often a backup makes a job checkpoint: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CheckpointEvery {
    /// After so many items stored. Default 2,000.
    pub items: u64,
    /// After so many seconds. Default 60.
    pub seconds: u64,
}

impl Default for CheckpointEvery {
    fn default() -> Self {
        Self { items: 2_000, seconds: 60 }
    }
}

fn default_region() -> String {
    "default".to_owned()
}

fn default_slots() -> u32 {
    4
}

fn default_fetches() -> u32 {
    4
}

fn default_memory() -> ByteSize {
    ByteSize::mib(256)
}

fn default_flags_every() -> u32 {
    7
}

fn default_drive_shard_files() -> u32 {
    500
}

fn default_user_agent() -> String {
    concat!("ISV|Holdfast|Holdfast/", env!("CARGO_PKG_VERSION")).to_owned()
}

impl WorkerOptions {
    /// Refuses what cannot work, naming the setting.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |setting, problem| Err(Error::Setting { setting, problem });
        if self.coordinators.is_empty() {
            return wrong("coordinators", "empty: name at least one as host:port");
        }
        if self.slots == 0 || self.slots > SLOTS_MAX {
            return wrong("slots", "out of range: 1 to 64");
        }
        if self.fetches_per_job == 0 || self.fetches_per_job > FETCHES_PER_JOB_MAX {
            return wrong("fetches-per-job", "out of range: 1 to 16");
        }
        if self.drive_shard_files > DRIVE_SHARD_FILES_MAX {
            return wrong("drive-shard-files", "out of range: 0 to 5,000");
        }
        if self.memory_budget < MEMORY_BUDGET_MIN || self.memory_budget > MEMORY_BUDGET_MAX {
            return wrong("memory-budget", "out of range: 32 MiB to 512 MiB");
        }
        if self.checkpoint_every.items == 0 || self.checkpoint_every.seconds == 0 {
            return wrong("checkpoint-every", "zero: items and seconds must be at least 1");
        }
        Ok(())
    }
}

/// What is passed beside the options.
pub struct Parts {
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Gives random bytes.
    pub random: Arc<dyn Random>,
    /// Where hints come from.
    pub consumer: Box<dyn JobConsumer>,
    /// The count of calls that everybody obeys.
    pub ledger: Arc<dyn QuotaLedger>,
}

impl Parts {
    /// Connects to the broker and to Redis, as the options say.
    pub async fn connect(
        options: &WorkerOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, Error> {
        let Some(url) = &options.queue.amqp_url else {
            return Err(Error::Setting {
                setting: "queue.amqp-url",
                problem: "missing: a worker of its own needs the message broker",
            });
        };
        let rabbit = RabbitOptions {
            url: url.clone(),
            password_file: options.queue.amqp_password_file.clone(),
            connection_name: options.name.clone(),
        };
        let (region, prefetch) = (&options.region, prefetch(options));
        let consumer =
            RabbitConsumer::connect(rabbit, region, JobClass::ALL, prefetch, random.clone()).await?;
        let ledger: Arc<dyn QuotaLedger> = match &options.redis_url {
            None => Arc::new(LocalLedger::new(options.quota.clone(), clock.clone())),
            Some(url) => {
                let (clock, random) = (clock.clone(), random.clone());
                Arc::new(
                    RedisLedger::connect(url, options.quota.clone(), &options.name, clock, random).await?,
                )
            }
        };
        Ok(Self { clock, random, consumer: Box::new(consumer), ledger })
    }

    /// The queue and the ledger of this process.
    pub fn in_process(
        options: &WorkerOptions,
        queue: &InProcessQueue,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, Error> {
        let ledger = Arc::new(LocalLedger::new(options.quota.clone(), clock.clone()));
        let consumer = queue.consumer(&options.region, JobClass::ALL, prefetch(options))?;
        Ok(Self { clock, random, consumer: Box::new(consumer), ledger })
    }
}

fn prefetch(options: &WorkerOptions) -> u16 {
    u16::try_from(options.slots).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"cluster":"c","name":"w","coordinators":["a:1"],
        "tls":{"cert-file":"c","key-file":"k","ca-file":"a"}}"#;

    #[test]
    fn a_minimal_configuration_has_the_documented_defaults() {
        let options: WorkerOptions = serde_json::from_str(MINIMAL).unwrap();
        assert_eq!((options.slots, options.fetches_per_job), (4, 4));
        assert_eq!(options.checkpoint_every, CheckpointEvery { items: 2_000, seconds: 60 });
        assert!(options.check().is_ok());
    }

    #[test]
    fn a_budget_above_the_ceiling_is_refused() {
        let mut options: WorkerOptions = serde_json::from_str(MINIMAL).unwrap();
        options.memory_budget = ByteSize::gib(1);
        assert!(matches!(options.check(), Err(Error::Setting { setting: "memory-budget", .. })));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        let text = MINIMAL.replacen('{', r#"{"slotz":1,"#, 1);
        assert!(serde_json::from_str::<WorkerOptions>(&text).is_err());
    }
}
