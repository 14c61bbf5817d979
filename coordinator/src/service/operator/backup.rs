//! Starting backups and verifications.

use holdfast_model::{JobClass, JobKind, SnapshotId, Workload};
use holdfast_proto::coordinator::{StartBackupRequest, StartRunResponse, StartVerifyRequest};

use super::OperatorService;
use crate::{
    catalog::{audit::Actor, job::NewJob, resource::ResourceRow, snapshot::SnapshotRow},
    error::Error,
    job::spec::JobSpec,
};

/// Characters repeated of a word that means nothing to us.
const MAX_WORD_CHARS: usize = 40;

impl OperatorService {
    pub(super) async fn backup(
        &self,
        actor: &Actor,
        request: StartBackupRequest,
    ) -> Result<StartRunResponse, Error> {
        let catalog = &self.core.catalog;
        let tenant = catalog.tenant_by_name(&request.tenant).await?;
        let workloads = workloads(&request.workloads)?;
        let resources: Vec<ResourceRow> = if request.resources.is_empty() {
            catalog.resources(tenant.id).await?.into_iter().filter(|resource| !resource.is_gone).collect()
        } else {
            let mut named: Vec<ResourceRow> = Vec::new();
            for text in &request.resources {
                let resource = catalog.resource_by_name(tenant.id, &tenant.name, text).await?;
                if resource.is_gone {
                    let problem =
                        "Microsoft no longer has it; its snapshots can still be restored".to_owned();
                    return Err(Error::Invalid { field: "resource", value: text.clone(), problem });
                }
                if named.iter().all(|other| other.id != resource.id) {
                    named.push(resource);
                }
            }
            named
        };
        if resources.is_empty() {
            return Err(Error::NotFound {
                what: "resource of tenant",
                name: tenant.name.clone(),
                hint: format!("run `holdfast resources {} --refresh` to discover them", tenant.name),
            });
        }
        let protections = catalog.protections(tenant.id).await?;
        let mut jobs = Vec::with_capacity(resources.len() * workloads.len());
        for resource in &resources {
            for workload in &workloads {
                let protection = protections.get(&(resource.id, *workload));
                let is_first = protection.is_none_or(|protection| protection.last_sequence == 0);
                jobs.push(NewJob {
                    tenant: tenant.id,
                    resource: resource.id,
                    workload: *workload,
                    kind: JobKind::Backup,
                    class: if is_first { JobClass::FirstFull } else { JobClass::Incremental },
                    spec: JobSpec::Backup,
                    snapshot: String::new(),
                    parent: None,
                });
            }
        }
        self.start(actor, &tenant.name, &jobs).await
    }

    pub(super) async fn verify(
        &self,
        actor: &Actor,
        request: StartVerifyRequest,
    ) -> Result<StartRunResponse, Error> {
        let sample_percent = match request.sample_percent {
            0 => 100,
            percent @ 1..=100 => percent,
            percent => {
                let problem = "write a percentage from 1 to 100".to_owned();
                return Err(Error::Invalid { field: "sample", value: percent.to_string(), problem });
            }
        };
        let snapshots = if request.snapshot.is_empty() {
            self.core.catalog.newest_snapshots(None).await?
        } else {
            vec![self.core.catalog.snapshot(snapshot_id(&request.snapshot)?).await?]
        };
        if snapshots.is_empty() {
            return Err(Error::NotFound {
                what: "snapshot",
                name: "any".to_owned(),
                hint: "nothing is backed up yet: run `holdfast backup NAME`".to_owned(),
            });
        }
        let jobs: Vec<NewJob> = snapshots
            .iter()
            .map(|snapshot| NewJob {
                spec: JobSpec::Verify { snapshot: snapshot.id, sample_percent },
                ..reading_job(snapshot, JobKind::Verify, JobClass::Verify)
            })
            .collect();
        let subject = if request.snapshot.is_empty() { "all" } else { &request.snapshot };
        self.start(actor, subject, &jobs).await
    }

    pub(super) async fn start(
        &self,
        actor: &Actor,
        subject: &str,
        jobs: &[NewJob],
    ) -> Result<StartRunResponse, Error> {
        let (run, ids) = self.core.catalog.start_run(&*self.core.random, actor, subject, jobs).await?;
        tracing::info!(%run, jobs = ids.len(), "run started");
        Ok(StartRunResponse { run: run.to_string(), jobs: ids.iter().map(ToString::to_string).collect() })
    }
}

/// A job that reads a snapshot; its spec is the caller's.
pub(super) fn reading_job(snapshot: &SnapshotRow, kind: JobKind, class: JobClass) -> NewJob {
    NewJob {
        tenant: snapshot.tenant,
        resource: snapshot.resource,
        workload: snapshot.workload,
        kind,
        class,
        spec: JobSpec::Backup,
        snapshot: snapshot.id.to_string(),
        parent: None,
    }
}

pub(super) fn snapshot_id(text: &str) -> Result<SnapshotId, Error> {
    text.parse().map_err(|_| Error::NotFound {
        what: "snapshot",
        name: text.to_owned(),
        hint: "run `holdfast snapshots NAME` to see them".to_owned(),
    })
}

/// The workloads that were named, each once; every one of a person's when none was.
pub(super) fn workloads(words: &[String]) -> Result<Vec<Workload>, Error> {
    if words.is_empty() {
        return Ok(Workload::OF_A_USER.to_vec());
    }
    let mut workloads = Vec::new();
    for word in words {
        let workload = workload(word)?;
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    Ok(workloads)
}

/// A workload that this build backs up.
pub(super) fn workload(word: &str) -> Result<Workload, Error> {
    let known = Workload::OF_A_USER;
    if let Some(workload) = word.parse().ok().filter(|workload| known.contains(workload)) {
        return Ok(workload);
    }
    let known: Vec<&str> = known.iter().map(|workload| workload.as_str()).collect();
    let problem = format!("this version backs up {}", known.join(", "));
    Err(Error::Invalid { field: "workload", value: word.chars().take(MAX_WORD_CHARS).collect(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(words: &[&str]) -> Result<Vec<Workload>, Error> {
        workloads(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_backup_is_of_everything_a_person_has_unless_workloads_are_named() {
        assert_eq!(named(&[]).unwrap(), Workload::OF_A_USER);
        assert_eq!(named(&["mail", "mail"]).unwrap(), [Workload::Mail]);
    }

    #[test]
    fn what_cannot_be_backed_up_is_refused_with_what_can() {
        let refused = named(&["mail", "teams"]).unwrap_err().to_string();
        assert!(
            refused.starts_with("workload 'teams' cannot be used: this version backs up mail, "),
            "{refused}"
        );
        let unready = Workload::ALL.iter().filter(|workload| !Workload::OF_A_USER.contains(workload));
        assert!(unready.clone().all(|workload| named(&[workload.as_str()]).is_err()));
    }
}
