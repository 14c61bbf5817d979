//! `holdfast status`: is everybody protected? The answer stands in the first line.

use holdfast_proto::coordinator::{GetStatusRequest, GetStatusResponse, StorageHealth, TenantStatus};
use holdfast_runtime::Exit;

use crate::{
    client::{self, ServerArguments},
    error::CliError,
    failed_items,
    output::{self, Format, Table, say},
    quota_use, storage_health,
};

/// Parked jobs named one by one; the others are counted.
const PARKED_SHOWN: usize = 5;

/// Tell whether everybody is protected
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  holdfast status
  holdfast status --failed    with the failed items, grouped by cause")]
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
    everybody && answer.jobs_parked == 0 && storage_health::is_fine(&health(answer))
}

fn health(answer: &GetStatusResponse) -> StorageHealth {
    answer.storage.unwrap_or_default()
}

/// The answer in one line: whether everybody is protected, and if not, why.
fn headline(answer: &GetStatusResponse) -> String {
    let sum = |of: fn(&TenantStatus) -> u64| answer.tenants.iter().map(of).sum::<u64>();
    let (resources, protected) = (sum(|tenant| tenant.resources), sum(|tenant| tenant.protected));
    if is_fine(answer) {
        return match resources {
            0 => "Nothing to protect yet: connect a tenant with `holdfast tenant connect`.".to_owned(),
            _ => format!("Everybody is protected: {protected} of {resources}."),
        };
    }
    let reasons = [
        (sum(|tenant| tenant.never_backed_up), "never backed up"),
        (sum(|tenant| tenant.outdated), "outdated"),
        (sum(|tenant| tenant.last_run_failed), "whose last run failed"),
        (sum(|tenant| tenant.items_failed), "failed items"),
        (answer.jobs_parked, "parked jobs"),
    ];
    let reasons =
        reasons.into_iter().filter(|(n, _)| *n > 0).chain(storage_health::problems(&health(answer)));
    let reasons: Vec<String> = reasons.map(|(n, what)| format!("{what}: {n}")).collect();
    format!("ATTENTION: {protected} of {resources} protected; {}.", reasons.join(", "))
}

/// The first parked jobs with their reasons and what to do, and how many more there are.
fn parked(answer: &GetStatusResponse) -> Vec<String> {
    let mut lines: Vec<String> = answer
        .parked
        .iter()
        .take(PARKED_SHOWN)
        .map(|job| {
            format!(
                "parked: {} of {} of {}: {} ({}); queue it again with `holdfast jobs {} --retry`",
                job.kind, job.workload, job.resource, job.message, job.code, job.id
            )
        })
        .collect();
    let more = answer.jobs_parked.saturating_sub(lines.len() as u64);
    if more > 0 {
        lines.push(format!("parked: {more} more; `holdfast jobs --state parked` lists them"));
    }
    lines
}

fn show(answer: &GetStatusResponse, failed: bool) {
    say!("{}", headline(answer));
    if answer.nodes > 0 {
        storage_health::lines(&health(answer)).iter().for_each(|line| say!("storage: {line}"));
    }
    say!(
        "answering: {} of {} nodes, {} of {} sites · jobs: {} running, {} queued, {} parked · leader: {}",
        answer.nodes_up,
        answer.nodes,
        answer.sites_up,
        answer.sites,
        answer.jobs_running,
        answer.jobs_queued,
        answer.jobs_parked,
        answer.leader
    );
    tenants(answer).print("No tenants.");
    if !answer.quota.is_empty() {
        say!();
        quota_use::table(&answer.quota).print("");
        say!();
    }
    for line in parked(answer) {
        say!("{line}");
    }
    if answer.tenants.iter().any(|tenant| tenant.outdated > 0) {
        say!("outdated: the newest snapshot is older than {} hours; back them up again", answer.fresh_hours);
    }
    let items_failed: u64 = answer.tenants.iter().map(|tenant| tenant.items_failed).sum();
    if items_failed > 0 && !failed {
        say!("failed items: `holdfast status --failed` groups them by cause");
    }
    if !storage_health::is_fine(&health(answer)) {
        say!("storage: `holdfast nodes` names the nodes and why");
    }
    if failed {
        failed_items::show_of_everybody(&answer.failed, answer.more_failed);
    }
}

/// One row per tenant, and one per workload of it.
fn tenants(answer: &GetStatusResponse) -> Table {
    let mut table = Table::new(&[
        "TENANT",
        "WORKLOAD",
        "RESOURCES",
        "PROTECTED",
        "NEVER",
        "OUTDATED",
        "LAST RUN FAILED",
        "ITEMS FAILED",
        "OLDEST (UTC)",
    ]);
    for tenant in &answer.tenants {
        let counts = [
            tenant.resources,
            tenant.protected,
            tenant.never_backed_up,
            tenant.outdated,
            tenant.last_run_failed,
            tenant.items_failed,
        ];
        table.row(row([&tenant.tenant, "all"], counts, tenant.oldest_last_snapshot_ms));
        for workload in &tenant.workloads {
            let counts = [
                tenant.resources,
                workload.protected,
                workload.never_backed_up,
                workload.outdated,
                workload.last_run_failed,
                workload.items_failed,
            ];
            table.row(row(["", &workload.workload], counts, workload.oldest_last_snapshot_ms));
        }
    }
    table
}

fn row([tenant, workload]: [&str; 2], counts: [u64; 6], oldest_ms: u64) -> [String; 9] {
    let [a, b, c, d, e, f] = counts.map(|count| count.to_string());
    [tenant.to_owned(), workload.to_owned(), a, b, c, d, e, f, output::time(oldest_ms)]
}

#[cfg(test)]
mod tests {
    use holdfast_proto::coordinator::Job;

    use super::*;

    fn answer() -> GetStatusResponse {
        let tenant = TenantStatus { resources: 3, protected: 3, ..TenantStatus::default() };
        GetStatusResponse { tenants: vec![tenant], nodes: 3, nodes_up: 3, ..GetStatusResponse::default() }
    }

    #[test]
    fn attention_says_what_needs_it() {
        assert_eq!(headline(&answer()), "Everybody is protected: 3 of 3.");
        let mut bad = answer();
        bad.tenants[0].protected = 2;
        bad.tenants[0].never_backed_up = 1;
        bad.jobs_parked = 7;
        let health = StorageHealth { nodes_away: 1, records_below_policy: 12, ..StorageHealth::default() };
        bad.storage = Some(health);
        assert_eq!(
            headline(&bad),
            "ATTENTION: 2 of 3 protected; never backed up: 1, parked jobs: 7, storage nodes down: 1, records with too few copies: \
             12."
        );
        let full = StorageHealth { nodes_full: 1, ..StorageHealth::default() };
        let empty = GetStatusResponse { storage: Some(full), ..GetStatusResponse::default() };
        assert_eq!(headline(&empty), "ATTENTION: 0 of 0 protected; full storage nodes: 1.");
    }

    #[test]
    fn a_nearly_full_node_and_a_move_leave_everybody_protected() {
        let health = StorageHealth { nodes_nearly_full: 1, moving: true, ..StorageHealth::default() };
        let fine = GetStatusResponse { storage: Some(health), ..answer() };
        assert!(is_fine(&fine));
        assert_eq!(headline(&fine), "Everybody is protected: 3 of 3.");
    }

    #[test]
    fn the_first_parked_jobs_are_named_and_the_rest_counted() {
        let job = |id: &str| Job {
            id: id.to_owned(),
            kind: "backup".to_owned(),
            workload: "mail".to_owned(),
            resource: "user:alex@contoso.com".to_owned(),
            message: "Microsoft refuses the mailbox".to_owned(),
            code: "ErrorAccessDenied".to_owned(),
            ..Job::default()
        };
        let one = GetStatusResponse { jobs_parked: 1, parked: vec![job("a1")], ..answer() };
        let line = "parked: backup of mail of user:alex@contoso.com: Microsoft refuses the mailbox (ErrorAccessDenied); \
                    queue it again with `holdfast jobs a1 --retry`";
        assert_eq!(parked(&one), [line]);
        let many = GetStatusResponse { jobs_parked: 30, parked: vec![job("a1"); 20], ..answer() };
        let lines = parked(&many);
        assert_eq!(lines.len(), PARKED_SHOWN + 1);
        assert_eq!(lines[PARKED_SHOWN], "parked: 25 more; `holdfast jobs --state parked` lists them");
        assert!(parked(&answer()).is_empty());
    }
}
