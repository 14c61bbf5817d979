//! Microsoft's limits as the shared ledger counts them at this moment: used, granted, and whether the pace can be kept.

use std::{collections::HashMap, time::Duration};

use holdfast_graph_client::{QuotaKey, Scope, WindowUse};
use holdfast_model::{JobState, TenantId, Workload};
use holdfast_proto::coordinator::QuotaUse;

use super::OperatorService;
use crate::{
    catalog::{job::JobRow, tenant::TenantRow},
    error::Error,
    graph_access::App,
    job::spec::JobSpec,
};

/// Running jobs whose mailboxes are asked for: one that is short of quota is among the busy ones.
const MAILBOXES_ASKED: u32 = 50;

/// What is used of one limit of one app.
struct Used {
    tenant: String,
    app: App,
    scope: &'static str,
    resource: String,
    windows: Vec<WindowUse>,
}

impl OperatorService {
    /// Every limit of which something is used. Of mailboxes the fullest one with a running job, per tenant and app.
    pub(super) async fn quota(&self, tenants: &[TenantRow]) -> Result<Vec<QuotaUse>, Error> {
        let mut all = Vec::new();
        for tenant in tenants {
            for app in apps(tenant) {
                for (word, scope) in [("sharepoint", Scope::SharePoint), ("directory", Scope::Directory)] {
                    all.push(self.used(tenant, app, (word, scope), String::new()).await);
                }
            }
        }
        all.extend(self.mailboxes(tenants).await?);
        Ok(all.iter().flat_map(Used::wire).collect())
    }

    async fn mailboxes(&self, tenants: &[TenantRow]) -> Result<Vec<Used>, Error> {
        let running =
            self.core.catalog.newest_jobs(None, JobState::Running.as_str(), MAILBOXES_ASKED).await?;
        let tenants: HashMap<TenantId, &TenantRow> =
            tenants.iter().map(|tenant| (tenant.id, tenant)).collect();
        let mut fullest: HashMap<(TenantId, App), Used> = HashMap::new();
        for job in running.iter().filter(|job| job.workload != Workload::OneDrive) {
            let (Some(tenant), Some((app, user))) = (tenants.get(&job.tenant), calls_microsoft(job)) else {
                continue;
            };
            let user = self.core.catalog.resource(job.tenant, user).await?;
            // In lower case, as those who call Microsoft charge it.
            let scope = ("mailbox", Scope::Mailbox(user.microsoft_id.to_lowercase()));
            let used = self.used(tenant, app, scope, user.written()).await;
            let fuller =
                fullest.get(&(job.tenant, app)).is_none_or(|known| used.permille() > known.permille());
            if fuller {
                fullest.insert((job.tenant, app), used);
            }
        }
        let mut fullest: Vec<Used> = fullest.into_values().collect();
        fullest.sort_by(|a, b| (&a.tenant, a.app.as_str()).cmp(&(&b.tenant, b.app.as_str())));
        Ok(fullest)
    }

    async fn used(
        &self,
        tenant: &TenantRow,
        app: App,
        (word, scope): (&'static str, Scope),
        resource: String,
    ) -> Used {
        let key = QuotaKey {
            cloud: tenant.cloud,
            microsoft_tenant: tenant.microsoft_tenant.clone(),
            client_id: client_id(tenant, app).to_owned(),
            scope,
        };
        let windows = self.core.ledger.usage(&key).await;
        Used { tenant: tenant.name.clone(), app, scope: word, resource, windows }
    }
}

/// The apps of a tenant that are not the same one.
fn apps(tenant: &TenantRow) -> Vec<App> {
    let is_one = tenant.backup_client_id == tenant.restore_client_id;
    if is_one { vec![App::Backup] } else { vec![App::Backup, App::Restore] }
}

fn client_id(tenant: &TenantRow, app: App) -> &str {
    match app {
        App::Backup => &tenant.backup_client_id,
        App::Restore => &tenant.restore_client_id,
    }
}

/// As whom, and in whose mailbox, a job calls Microsoft; none for what only reads storage.
fn calls_microsoft(job: &JobRow) -> Option<(App, holdfast_model::ResourceId)> {
    match &job.spec {
        JobSpec::Backup | JobSpec::Shard { .. } => Some((App::Backup, job.resource)),
        JobSpec::Restore { target, .. } => Some((App::Restore, *target)),
        JobSpec::Export { .. } | JobSpec::Verify { .. } => None,
    }
}

impl Used {
    /// How full the fullest window is.
    fn permille(&self) -> u64 {
        self.windows
            .iter()
            .map(|window| window.used.saturating_mul(1_000) / window.granted.max(1))
            .max()
            .unwrap_or(0)
    }

    fn wire(&self) -> impl Iterator<Item = QuotaUse> {
        self.windows.iter().filter(|window| window.used > 0).map(|window| QuotaUse {
            tenant: self.tenant.clone(),
            app: self.app.to_string(),
            scope: self.scope.to_owned(),
            resource: self.resource.clone(),
            window: window.name.to_owned(),
            used: window.used,
            granted: window.granted,
            length_ms: millis(window.length),
            full_in_ms: full_in(&self.windows, window).map(millis),
        })
    }
}

/// When a day's units are used up at the pace of the last minute. A window without a shorter one has no pace to go by: what
/// leaves it at one end makes room at the other.
fn full_in(windows: &[WindowUse], window: &WindowUse) -> Option<Duration> {
    let minute = windows.iter().find(|other| window.name == "daily" && other.name == "requests")?;
    let left = window.granted.saturating_sub(window.used);
    let pace_ms = u128::from(minute.used).max(1);
    let full_in = u128::from(left) * minute.length.as_millis() / pace_ms;
    let full_in = Duration::from_millis(u64::try_from(full_in).unwrap_or(u64::MAX));
    (minute.used > 0 && full_in < window.length).then_some(full_in)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(name: &'static str, used: u64, granted: u64, seconds: u64) -> WindowUse {
        WindowUse { name, used, granted, length: Duration::from_secs(seconds) }
    }

    #[test]
    fn the_day_is_forecast_by_the_pace_of_the_minute() {
        let daily = window("daily", 552_000, 1_152_000, 86_400);
        let at = |used| full_in(&[window("requests", used, 1_200, 60), daily.clone()], &daily);
        assert_eq!(at(1_200), Some(Duration::from_secs(30_000)));
        assert_eq!(at(600), Some(Duration::from_secs(60_000)));
        assert_eq!(at(300), None, "the day passes first");
        assert_eq!(at(0), None);
        let requests = window("requests", 1_200, 1_200, 60);
        assert_eq!(full_in(&[requests.clone(), daily], &requests), None);
    }

    #[test]
    fn only_what_is_used_is_told() {
        let used = Used {
            tenant: "contoso".to_owned(),
            app: App::Backup,
            scope: "sharepoint",
            resource: String::new(),
            windows: vec![window("requests", 600, 1_200, 60), window("ingress", 0, 10, 3_600)],
        };
        let told: Vec<_> =
            used.wire().map(|used| (used.window, used.used, used.granted, used.length_ms)).collect();
        assert_eq!(told, [("requests".to_owned(), 600, 1_200, 60_000)]);
        assert_eq!(used.permille(), 500);
    }
}
