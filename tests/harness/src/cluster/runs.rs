//! Runs: started, watched, and what they leave.

use std::time::Duration;

use holdfast_proto::coordinator::{
    GetRunRequest, Job, ListSnapshotsRequest, Snapshot, StartBackupRequest, StartRestoreRequest,
};

use super::Cluster;
use crate::eventually;

impl Cluster {
    /// Starts a backup of everybody's mail, which the scenarios compare: the run's id.
    pub async fn start_backup(&self, tenant: &str) -> String {
        self.start_backup_at(0, tenant).await
    }

    /// The same at one coordinator of several.
    pub async fn start_backup_at(&self, index: usize, tenant: &str) -> String {
        let workloads = vec!["mail".to_owned()];
        let request = StartBackupRequest { tenant: tenant.to_owned(), workloads, ..Default::default() };
        self.operator_at(index).start_backup(request).await.expect("start a backup").into_inner().run
    }

    /// Starts a backup of some workloads of some people; nobody named means everybody, no workload all.
    pub async fn start_backup_of(&self, tenant: &str, people: &[String], workloads: &[&str]) -> String {
        let workloads = workloads.iter().map(|name| (*name).to_owned()).collect();
        let resources = people.iter().map(|name| format!("user:{name}")).collect();
        let request = StartBackupRequest { tenant: tenant.to_owned(), resources, workloads };
        self.operator().start_backup(request).await.expect("start a backup").into_inner().run
    }

    pub async fn start_restore(&self, snapshot: &str) -> String {
        let request = StartRestoreRequest {
            snapshot: snapshot.to_owned(),
            conflict: "skip".to_owned(),
            ..Default::default()
        };
        self.operator().start_restore(request).await.expect("start a restore").into_inner().run
    }

    /// Jobs of a run from whichever coordinator answers.
    pub async fn jobs(&self, run: &str) -> Option<Vec<Job>> {
        for index in 0..self.addresses.len() {
            let request = GetRunRequest { run: run.to_owned() };
            if let Ok(answer) = self.operator_at(index).get_run(request).await {
                return Some(answer.into_inner().jobs);
            }
        }
        None
    }

    /// Waits until every job of a run is done; a parked job fails the test with its reason.
    pub async fn finished(&self, run: &str, within: Duration) -> Vec<Job> {
        eventually(&format!("run {run} finishes"), within, || async {
            let jobs = self.jobs(run).await?;
            let parked = jobs.iter().find(|job| job.state == "parked");
            assert!(parked.is_none(), "a job was parked: {parked:?}");
            jobs.iter().all(|job| job.state == "done").then_some(jobs)
        })
        .await
    }

    /// The newest snapshot of every mailbox of a tenant.
    pub async fn newest_snapshots(&self, tenant: &str) -> Vec<Snapshot> {
        let request = ListSnapshotsRequest {
            tenant: tenant.to_owned(),
            resource: String::new(),
            workload: "mail".to_owned(),
        };
        let all =
            self.operator().list_snapshots(request).await.expect("list snapshots").into_inner().snapshots;
        let mut newest = std::collections::BTreeMap::<String, Snapshot>::new();
        for snapshot in all {
            let entry = newest.entry(snapshot.resource.clone()).or_insert_with(|| snapshot.clone());
            if snapshot.sequence > entry.sequence {
                *entry = snapshot;
            }
        }
        newest.into_values().collect()
    }
}
