//! Microsoft's limits for people: what is used, what is left, and when it is used up.

use holdfast_proto::coordinator::QuotaUse;

use crate::output::{self, Table};

/// One row per limit of which something is used.
pub fn table(quota: &[QuotaUse]) -> Table {
    let mut table = Table::new(&["TENANT", "APP", "MICROSOFT'S LIMIT", "PER", "USED", "LEFT", "FORECAST"]);
    for used in quota {
        let left = used.granted.saturating_sub(used.used);
        table.row([
            used.tenant.clone(),
            used.app.clone(),
            limit(used),
            output::seconds(used.length_ms / 1_000),
            format!("{} of {} ({} %)", amount(used, used.used), amount(used, used.granted), percent(used)),
            amount(used, left),
            forecast(used),
        ]);
    }
    table
}

fn limit(used: &QuotaUse) -> String {
    let what = match used.window.as_str() {
        "daily" => "requests",
        other => other,
    };
    match used.resource.as_str() {
        "" => format!("{} {what}", used.scope),
        mailbox => format!("{what} of {mailbox}"),
    }
}

/// Windows of bytes are named by their direction.
fn amount(used: &QuotaUse, n: u64) -> String {
    match used.window.as_str() {
        "uploads" | "ingress" | "egress" => output::bytes(n),
        _ => n.to_string(),
    }
}

fn percent(used: &QuotaUse) -> u64 {
    used.used.saturating_mul(100) / used.granted.max(1)
}

fn forecast(used: &QuotaUse) -> String {
    match used.full_in_ms {
        Some(ms) => format!("used up in {}", output::seconds(ms / 1_000)),
        None if used.used >= used.granted => "used up: calls wait".to_owned(),
        None => "enough".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_says_what_is_left_and_until_when_it_lasts() {
        let daily = QuotaUse {
            scope: "sharepoint".to_owned(),
            window: "daily".to_owned(),
            used: 552_000,
            granted: 1_152_000,
            length_ms: 86_400_000,
            full_in_ms: Some(30_000_000),
            ..QuotaUse::default()
        };
        assert_eq!((limit(&daily).as_str(), percent(&daily)), ("sharepoint requests", 47));
        assert_eq!(forecast(&daily), "used up in 8 h 20 min");
        let uploads = QuotaUse {
            scope: "mailbox".to_owned(),
            resource: "user:ann@x.test".to_owned(),
            window: "uploads".to_owned(),
            used: 1 << 20,
            granted: 1 << 20,
            ..QuotaUse::default()
        };
        assert_eq!(
            (limit(&uploads).as_str(), amount(&uploads, 1 << 20).as_str()),
            ("uploads of user:ann@x.test", "1.0 MiB")
        );
        assert_eq!(forecast(&uploads), "used up: calls wait");
    }
}
