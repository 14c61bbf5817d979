//! A simulated tenant, a cluster that protects it, and runs with what they asked of Microsoft: what the benches of whole
//! backups stand on.

use std::{collections::BTreeMap, path::Path, time::Duration};

use holdfast_graph_sim::{CountersSnapshot, SimOptions};
use holdfast_model::Account;
use holdfast_proto::coordinator::Job;
use serde_json::json;

use crate::{Cluster, ClusterOptions, services::Services, sim::SimTenant};

/// The tenant's name in the cluster.
pub const TENANT: &str = "contoso";

/// `[quota]` of a worker that never waits; the simulator's limits are to be off beside it.
pub const WITHOUT_LIMITS: &str = "mailbox-requests = 1000000000\nsharepoint-requests = 1000000000\n\
     sharepoint-daily-requests = 1000000000\n";

/// The services, the cluster and the tenant. Dropping it ends all.
pub struct Protected {
    pub cluster: Cluster,
    pub tenant: SimTenant,
    pub services: Services,
}

/// A run that has ended.
pub struct Finished {
    pub jobs: Vec<Job>,
    pub took: Duration,
    pub counters: CountersSnapshot,
}

impl Protected {
    pub async fn start(folder: &Path, tenant: SimOptions, cluster: &ClusterOptions) -> Self {
        let services = Services::start(folder).await;
        let tenant = SimTenant::start(tenant).await;
        let cluster = Cluster::start(folder, &services, cluster).await;
        cluster.connect_tenant(TENANT, &tenant.url()).await;
        Self { cluster, tenant, services }
    }

    /// Backs up, and counts what was asked meanwhile; a parked job fails the bench with its reason.
    pub async fn back_up(&self, people: &[String], workloads: &[&str], within: Duration) -> Finished {
        self.tenant.control("reset-counters", json!({})).await;
        let started = std::time::Instant::now();
        let run = self.cluster.start_backup_of(TENANT, people, workloads).await;
        let jobs = self.cluster.finished(&run, within).await;
        Finished { jobs, took: started.elapsed(), counters: self.tenant.handle.counters() }
    }
}

impl Finished {
    /// The accounts of all jobs together.
    pub fn accounts(&self) -> impl Iterator<Item = Account> + '_ {
        self.jobs.iter().map(|job| job.account.unwrap_or_default().into())
    }

    /// Kind of request → how many, of everybody.
    pub fn requests(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for (kind, count) in self.counters.requests.values().flatten() {
            *sums.entry(kind.clone()).or_default() += count;
        }
        sums
    }
}
