//! The coordinator's settings: one TOML file, kebab-case, unknown keys refused.
//!
//! Settings are data; the clock, randomness and the queue are passed beside them in [`crate::Parts`].

use std::{path::PathBuf, time::Duration};

use holdfast_graph_client::QuotaLimits;
use holdfast_model::{Layout, LayoutNode, LayoutVersion, NodeDuty, NodeId, PoolId, Replication, SiteName};
use holdfast_runtime::{ByteSize, TelemetryOptions, TlsOptions};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Everything a coordinator is told. No `Debug`: the addresses of catalog, broker and Redis may hold a password.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CoordinatorOptions {
    /// The cluster's name: certificates of another cluster are refused.
    pub cluster: String,
    /// This coordinator's name, for people.
    pub name: String,
    /// Where workers and operators connect: `host:port`.
    pub listen: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served. Default: nowhere.
    #[serde(default)]
    pub admin_listen: Option<String>,
    /// `sqlite://PATH` or `postgres://…`. Give this or `catalog-url-file`.
    #[serde(default)]
    pub catalog_url: Option<String>,
    /// A file that holds the catalog's URL, when it contains a password.
    #[serde(default)]
    pub catalog_url_file: Option<PathBuf>,
    /// The key file made by `holdfast key init`.
    pub key_file: PathBuf,
    /// The Ed25519 private key (PKCS#8) that signs session tokens and commit tickets.
    pub signing_key_file: PathBuf,
    /// This coordinator's certificate, its key and the cluster's authority.
    pub tls: TlsOptions,
    /// The region whose job queues this coordinator fills. Default `default`.
    #[serde(default = "default_region")]
    pub region: String,
    /// The job queue. Default: in-process.
    #[serde(default)]
    pub queue: QueueOptions,
    /// The shared quota ledger that discovery asks. Default: a ledger of its own.
    #[serde(default)]
    pub redis_url: Option<String>,
    /// Microsoft's limits, as `[quota]` of the workers has them: for discovery, forecasts and `holdfast status`.
    #[serde(default)]
    pub quota: QuotaLimits,
    /// The pool of storage nodes.
    pub pool: PoolOptions,
    /// How long a job's lease lasts without a heartbeat, in seconds. Default 60.
    #[serde(default = "default_lease_seconds")]
    pub lease_seconds: u64,
    /// How long a leadership term lasts without a renewal, in seconds. Default 10.
    #[serde(default = "default_term_seconds")]
    pub term_seconds: u64,
    /// How often due jobs are looked for, in milliseconds. Default 500.
    #[serde(default = "default_dispatch_interval_millis")]
    pub dispatch_interval_millis: u64,
    /// After how many seconds a published job that nobody claimed is published again. Default 60.
    #[serde(default = "default_republish_after_seconds")]
    pub republish_after_seconds: u64,
    /// Attempts before a job is parked. Default 5.
    #[serde(default = "default_max_attempts")]
    pub max_attempts: u32,
    /// How often users are discovered again, in seconds. Default 3600.
    #[serde(default = "default_discovery_interval_seconds")]
    pub discovery_interval_seconds: u64,
    /// A snapshot older than this many hours does not protect any more. Default 48: one nightly run may fail.
    #[serde(default = "default_fresh_hours")]
    pub fresh_hours: u32,
    /// How often nodes are asked whether they have the layout, in milliseconds. Default 5000.
    #[serde(default = "default_layout_interval_millis")]
    pub layout_interval_millis: u64,
    /// Job slots of all workers together: twice as many jobs wait in each queue. Default 16.
    #[serde(default = "default_worker_slots")]
    pub worker_slots: u32,
    /// Logs, traces and metrics.
    #[serde(default)]
    pub telemetry: TelemetryOptions,
}

/// Where jobs are published.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueueOptions {
    /// `amqp://…` of RabbitMQ. Default: in-process, which needs the workers in the same process.
    #[serde(default)]
    pub amqp_url: Option<String>,
    /// A file with the broker's password, read anew for each connection. Default: the password of the URL.
    #[serde(default)]
    pub amqp_password_file: Option<PathBuf>,
}

/// A named group of sites, and how many copies it keeps.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PoolOptions {
    /// The pool's name. Default `default`.
    #[serde(default = "default_region")]
    pub name: String,
    /// Copies of every record, each in another site. Default 2.
    #[serde(default = "default_copies")]
    pub copies: u8,
    /// Sites that must hold a record before it is acknowledged. Default 2.
    #[serde(default = "default_copies")]
    pub ack_sites: u8,
    /// The storage nodes.
    pub nodes: Vec<NodeOptions>,
}

/// One storage node of the pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NodeOptions {
    /// Its number, for the life of its disks.
    pub id: u64,
    /// Its failure domain.
    pub site: String,
    /// Where it listens: `host:port`.
    pub address: String,
    /// Its share of the partitions is proportional to this. A witness needs none.
    #[serde(default)]
    pub capacity: ByteSize,
    /// `data`, or `witness` for a node that only keeps pins: a third site, so that losing one of two does not stop decisions.
    /// Default `data`.
    #[serde(default)]
    pub duty: ConfiguredDuty,
}

/// What the configuration can ask of a node. Draining is a command, not a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfiguredDuty {
    /// Keeps data.
    #[default]
    Data,
    /// Keeps pins only.
    Witness,
}

impl PoolOptions {
    /// The configured nodes, ordered by id, none of them seen yet.
    pub(crate) fn layout_nodes(&self) -> Vec<LayoutNode> {
        let mut nodes: Vec<LayoutNode> = self.nodes.iter().map(NodeOptions::layout_node).collect();
        nodes.sort_by_key(|node| node.id);
        nodes
    }

    /// How many copies, and where.
    pub(crate) fn replication(&self) -> Replication {
        Replication { copies: self.copies, ack_sites: self.ack_sites }
    }

    /// Lays the partitions over the configured nodes.
    pub fn layout(&self, version: LayoutVersion) -> Result<Layout, Error> {
        let pool = PoolId(self.name.clone());
        Ok(Layout::compute(version, pool, self.replication(), self.layout_nodes())?)
    }
}

impl NodeOptions {
    fn layout_node(&self) -> LayoutNode {
        let duty = match self.duty {
            ConfiguredDuty::Data => NodeDuty::Data,
            ConfiguredDuty::Witness => NodeDuty::Witness,
        };
        let node = LayoutNode::new(
            NodeId(self.id),
            SiteName(self.site.clone()),
            self.address.clone(),
            self.capacity.0,
        );
        LayoutNode { duty, ..node }
    }
}

impl CoordinatorOptions {
    /// The catalog's URL, from the setting or from its file.
    pub(crate) fn catalog_url(&self) -> Result<String, Error> {
        match (&self.catalog_url, &self.catalog_url_file) {
            (Some(url), None) => Ok(url.clone()),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| Error::File { path: path.clone(), source })?;
                Ok(text.trim().to_owned())
            }
            _ => Err(Error::Option {
                option: "catalog-url",
                problem: "give exactly one of catalog-url and catalog-url-file",
            }),
        }
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.max(1))
    }

    pub(crate) fn term(&self) -> Duration {
        Duration::from_secs(self.term_seconds.max(1))
    }
}

fn default_region() -> String {
    "default".to_owned()
}
fn default_copies() -> u8 {
    2
}
fn default_lease_seconds() -> u64 {
    60
}
fn default_term_seconds() -> u64 {
    10
}
fn default_dispatch_interval_millis() -> u64 {
    500
}
fn default_republish_after_seconds() -> u64 {
    60
}
fn default_max_attempts() -> u32 {
    5
}
fn default_discovery_interval_seconds() -> u64 {
    3600
}
fn default_fresh_hours() -> u32 {
    48
}
fn default_layout_interval_millis() -> u64 {
    5000
}
fn default_worker_slots() -> u32 {
    16
}
