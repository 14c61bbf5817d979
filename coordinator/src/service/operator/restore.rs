//! Starting restores and exports.

use holdfast_model::{ConflictPolicy, ExportFormat, JobClass, JobKind, Workload};
use holdfast_proto::coordinator::{
    StartExportRequest, StartRestoreRequest, StartRestoreResponse, StartRunResponse,
};

use super::{
    OperatorService,
    backup::{reading_job, snapshot_id},
};
use crate::{
    catalog::{audit::Actor, job::NewJob},
    error::Error,
    job::spec::JobSpec,
};

/// The longest path that Linux takes.
const MAX_OUT_BYTES: usize = 4096;

impl OperatorService {
    pub(super) async fn restore(
        &self,
        actor: &Actor,
        request: StartRestoreRequest,
    ) -> Result<StartRestoreResponse, Error> {
        let catalog = &self.core.catalog;
        let snapshot = catalog.snapshot(snapshot_id(&request.snapshot)?).await?;
        let tenant = catalog.tenant(snapshot.tenant).await?;
        let target = match request.to.as_str() {
            "" => catalog.resource(snapshot.tenant, snapshot.resource).await?,
            text => catalog.resource_by_name(tenant.id, &tenant.name, text).await?,
        };
        if target.is_gone {
            let problem =
                "Microsoft no longer has this mailbox: restore into another one with --to".to_owned();
            return Err(Error::Invalid { field: "target", value: target.written(), problem });
        }
        let conflict: ConflictPolicy = word("conflict", &request.conflict, ConflictPolicy::Skip)?;
        let plan = self.plan(actor, &snapshot, &request.paths).await?;
        if request.plan {
            return Ok(StartRestoreResponse { plan: Some(plan), ..Default::default() });
        }
        let mut key = [0; 16];
        self.core.random.fill(&mut key);
        let job = NewJob {
            spec: JobSpec::Restore {
                snapshot: snapshot.id,
                target: target.id,
                paths: request.paths,
                into: request.into,
                conflict,
                restore_key: hex::encode(key),
            },
            ..reading_job(&snapshot, JobKind::Restore, JobClass::Restore)
        };
        let subject = format!("{} to {}", snapshot.id, target.id);
        let StartRunResponse { run, jobs } = self.start(actor, &subject, &[job]).await?;
        Ok(StartRestoreResponse { run, jobs, plan: Some(plan) })
    }

    pub(super) async fn export(
        &self,
        actor: &Actor,
        request: StartExportRequest,
    ) -> Result<StartRunResponse, Error> {
        let snapshot = self.core.catalog.snapshot(snapshot_id(&request.snapshot)?).await?;
        check_out(&request.out)?;
        let format: ExportFormat = word("format", &request.format, ExportFormat::Eml)?;
        check_format(format, snapshot.workload)?;
        let job = NewJob {
            spec: JobSpec::Export { snapshot: snapshot.id, paths: request.paths, format, out: request.out },
            ..reading_job(&snapshot, JobKind::Export, JobClass::Restore)
        };
        self.start(actor, &snapshot.id.to_string(), &[job]).await
    }
}

fn check_format(format: ExportFormat, workload: Workload) -> Result<(), Error> {
    if format.holds(workload) {
        return Ok(());
    }
    let fitting: Vec<&str> = ExportFormat::ALL
        .iter()
        .filter(|format| format.holds(workload))
        .map(|format| format.as_str())
        .collect();
    let problem = if fitting.is_empty() {
        format!("{workload} cannot be exported yet: restore it instead")
    } else {
        format!("{workload} is written as {}", fitting.join(" or "))
    };
    Err(Error::Invalid { field: "format", value: format.to_string(), problem })
}

/// The folder is made by a worker, as the user it runs as: it must say plainly which it is.
fn check_out(out: &str) -> Result<(), Error> {
    let path = std::path::Path::new(out);
    let problem = if !path.is_absolute() {
        "write an absolute path that the workers can reach"
    } else if path.components().any(|part| part == std::path::Component::ParentDir) {
        "write it without '..'"
    } else if out.len() > MAX_OUT_BYTES || out.chars().any(char::is_control) {
        "write a plain path of at most 4096 bytes"
    } else {
        return Ok(());
    };
    let value = out.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(Error::Invalid { field: "out", value, problem: problem.to_owned() })
}

fn word<T: std::str::FromStr<Err = String>>(field: &'static str, text: &str, default: T) -> Result<T, Error> {
    if text.is_empty() {
        return Ok(default);
    }
    text.parse().map_err(|problem| Error::Invalid { field, value: text.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_refused_for_what_it_cannot_hold() {
        assert!(check_format(ExportFormat::Mbox, Workload::Mail).is_ok());
        let error = check_format(ExportFormat::Mbox, Workload::Contacts).unwrap_err().to_string();
        assert!(error.starts_with("format 'mbox' cannot be used: contacts "), "{error}");
    }

    #[test]
    fn an_export_goes_where_it_says_and_nowhere_else() {
        assert!(check_out("/srv/export/2026-11").is_ok());
        for wrong in
            ["", "export", "./export", "/srv/../etc", "/srv/export/..", "/srv/a\nb", &"/a".repeat(3000)]
        {
            let error = check_out(wrong).unwrap_err().to_string();
            assert!(error.starts_with("out '") && error.contains("write"), "{error}");
            assert!(error.len() < 400 && !error.contains('\n'), "{error}");
        }
    }
}
