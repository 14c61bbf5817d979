//! `holdfast status`: is everybody protected? The answer stands in the first line.

use holdfast_proto::coordinator::{GetStatusRequest, GetStatusResponse};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    output::{self, Format, Table, say},
};

/// Tell whether everybody is protected
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Show failed items, grouped by cause
    #[arg(long)]
    failed: bool,
}

pub async fn run(options: Options, server: &ServerArguments, format: Format) -> Result<Exit, CliError> {
    let request = GetStatusRequest { failed: options.failed };
    let answer = client::connect(server)?.get_status(request).await?.into_inner();
    let fine = is_fine(&answer);
    format.print(&answer, |answer| show(answer, options.failed))?;
    Ok(if fine { Exit::Ok } else { Exit::Exceptions })
}

fn is_fine(answer: &GetStatusResponse) -> bool {
    let everybody = answer
        .tenants
        .iter()
        .all(|t| t.protected == t.resources && t.last_run_failed == 0 && t.items_failed == 0);
    everybody && answer.jobs_parked == 0 && answer.nodes_up == answer.nodes
}

fn show(answer: &GetStatusResponse, failed: bool) {
    let resources: u64 = answer.tenants.iter().map(|tenant| tenant.resources).sum();
    let protected: u64 = answer.tenants.iter().map(|tenant| tenant.protected).sum();
    match (resources, is_fine(answer)) {
        (0, _) => say!("Nothing to protect yet: connect a tenant with `holdfast tenant connect`."),
        (_, true) => say!("Everybody is protected: {protected} of {resources}."),
        (_, false) => say!("ATTENTION: {protected} of {resources} protected."),
    }
    say!(
        "storage: {} of {} nodes, {} of {} sites answer · jobs: {} running, {} queued, {} parked · leader: {}",
        answer.nodes_up,
        answer.nodes,
        answer.sites_up,
        answer.sites,
        answer.jobs_running,
        answer.jobs_queued,
        answer.jobs_parked,
        answer.leader
    );
    let mut table = Table::new(&[
        "TENANT",
        "RESOURCES",
        "PROTECTED",
        "NEVER",
        "LAST RUN FAILED",
        "ITEMS FAILED",
        "OLDEST (UTC)",
    ]);
    for tenant in &answer.tenants {
        table.row([
            tenant.tenant.clone(),
            tenant.resources.to_string(),
            tenant.protected.to_string(),
            tenant.never_backed_up.to_string(),
            tenant.last_run_failed.to_string(),
            tenant.items_failed.to_string(),
            output::time(tenant.oldest_last_snapshot_ms),
        ]);
    }
    table.print("No tenants.");
    for job in &answer.parked {
        say!(
            "parked: {} of {}: {} ({}); queue it again with `holdfast jobs {} --retry`",
            job.kind,
            job.resource,
            job.message,
            job.code,
            job.id
        );
    }
    if failed {
        let mut table = Table::new(&["TENANT", "CAUSE", "ITEMS", "RESOURCES", "FOR EXAMPLE"]);
        for group in &answer.failed {
            table.row([
                group.tenant.clone(),
                group.code.clone(),
                group.items.to_string(),
                group.resources.to_string(),
                group.example_resource.clone(),
            ]);
        }
        table.print("No failed items.");
    }
}
