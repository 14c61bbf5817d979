//! Runs: what one command or policy asked for.

use holdfast_model::{JobId, JobKind, Random, RunId};

use super::{
    Catalog, Columns as _,
    audit::{self, Actor},
    job::{self, NewJob},
};
use crate::error::Error;

impl Catalog {
    /// Queues the jobs of one command. A backup that is queued or running for the same (resource, workload) is joined.
    pub async fn start_run(
        &self,
        random: &dyn Random,
        actor: &Actor,
        subject: &str,
        jobs: &[NewJob],
    ) -> Result<(RunId, Vec<JobId>), Error> {
        let kind = jobs.first().map_or(JobKind::Backup, |job| job.kind);
        let run = RunId::random(random);
        let ids: Vec<JobId> = jobs.iter().map(|_| JobId::random(random)).collect();
        // A backup is of one tenant: two commands for it must see each other's jobs.
        let locked = jobs.iter().find(|job| job.kind == JobKind::Backup).map(|job| job.tenant);
        super::write!(self, tx => {
            if let Some(tenant) = locked {
                job::lock_commands(&mut tx, tenant).await?;
            }
            let mut started = Vec::with_capacity(jobs.len());
            let mut joined = Vec::new();
            for (new, id) in jobs.iter().zip(&ids) {
                let unfinished = match new.kind {
                    JobKind::Backup => job::unfinished_backup(&mut tx, new).await?,
                    _ => None,
                };
                if let Some((id, of_run)) = unfinished {
                    started.push(id);
                    joined.push(of_run);
                } else {
                    job::insert(&mut tx, *id, run, new).await?;
                    started.push(*id);
                }
            }
            // Nothing new, all of one run: that run is the answer.
            let joins_one = joined.len() == jobs.len() && joined.windows(2).all(|pair| pair[0] == pair[1]);
            if let (true, Some(of_run)) = (joins_one, joined.first()) {
                Ok((*of_run, started))
            } else {
                let query = sqlx::query("INSERT INTO runs (run_id, kind, actor, created_ms) VALUES ($1, $2, $3, $4)");
                let query = query.bind(run.to_string()).bind(kind.as_str()).bind(actor.0.clone()).bind(tx.now);
                query.execute(tx.on()).await?;
                audit::append(&mut tx, actor, &format!("{kind}.start"), subject).await?;
                Ok((run, started))
            }
        })
    }

    /// Whether a run exists.
    pub async fn has_run(&self, run: RunId) -> Result<bool, Error> {
        let query = sqlx::query("SELECT run_id FROM runs WHERE run_id = $1").bind(run.to_string());
        let row = query.fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.text("run_id")).transpose()?.is_some())
    }
}
