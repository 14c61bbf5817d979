//! Failed items for people: grouped by cause, with what becomes of them and what to do.

use std::collections::BTreeMap;

use holdfast_proto::coordinator::{FailedGroup, FailedItem};

use crate::output::{self, Table, say};

/// Items of one cause named one by one; `--json` has all.
const ITEMS_SHOWN: usize = 20;

/// The causes over all tenants.
pub fn show_of_everybody(groups: &[FailedGroup], there_are_more: bool) {
    let headings = ["CAUSE", "ITEMS", "RESOURCES", "TENANTS", "SINCE (UTC)", "AGAIN", "PARKED", "PARTIAL"];
    let mut table = Table::new(&headings);
    for group in groups {
        table.row([
            group.code.clone(),
            group.items.to_string(),
            group.resources.to_string(),
            group.tenants.to_string(),
            output::time(group.since_ms),
            group.retried.to_string(),
            group.parked.to_string(),
            group.partial.to_string(),
        ]);
    }
    table.print("No failed items.");
    for group in groups {
        say!();
        say!("{}: {}", group.code, group.advice);
        say!("  for example {}", example(group));
    }
    if there_are_more {
        say!();
        say!("There are more causes: mend the largest first.");
    }
    if !groups.is_empty() {
        say!();
        say!(
            "AGAIN: the next run tries them. PARKED: given up until they change. PARTIAL: stored without a part."
        );
    }
}

fn example(group: &FailedGroup) -> String {
    let place =
        if group.example_path.is_empty() { String::new() } else { format!(" in {}", group.example_path) };
    format!(
        "{} of {} of {}{place}: {}",
        group.example_workload, group.example_resource, group.example_tenant, group.example_item
    )
}

/// The causes of one job, each with its first items.
pub fn show_of_job(kind: &str, groups: &[FailedGroup], items: &[FailedItem]) {
    let mut by_cause: BTreeMap<&str, Vec<&FailedItem>> = BTreeMap::new();
    for item in items {
        by_cause.entry(&item.code).or_default().push(item);
    }
    for group in groups {
        say!();
        let items = by_cause.remove(group.code.as_str()).unwrap_or_default();
        say!("{}: {}", group.code, output::count(items.len(), "item"));
        say!("  {}", group.advice);
        let mut table = Table::new(&["  TRIES", "NEXT", "KEPT", "FOLDER", "ITEM"]);
        for item in items.iter().take(ITEMS_SHOWN) {
            table.row([
                format!("  {}", item.attempts),
                next(kind, item).to_owned(),
                kept(item).to_owned(),
                item.path.clone(),
                item.id.clone(),
            ]);
        }
        table.print("");
        if items.len() > ITEMS_SHOWN {
            say!("  … and {} more: `--json` lists all", items.len() - ITEMS_SHOWN);
        }
    }
}

/// What becomes of it.
fn next(kind: &str, item: &FailedItem) -> &'static str {
    match item {
        FailedItem { partial: true, .. } => "-",
        _ if kind != "backup" => "-",
        FailedItem { parked: true, .. } => "parked",
        _ => "tried again",
    }
}

/// What the snapshot has of it.
fn kept(item: &FailedItem) -> &'static str {
    match item {
        FailedItem { partial: true, .. } => "without a part",
        FailedItem { stale: true, .. } => "older version",
        _ => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_says_what_is_kept_and_what_comes_next() {
        let failed = FailedItem::default();
        let parked = FailedItem { parked: true, stale: true, ..FailedItem::default() };
        let partial = FailedItem { partial: true, ..FailedItem::default() };
        assert_eq!((next("backup", &failed), kept(&failed)), ("tried again", "nothing"));
        assert_eq!((next("backup", &parked), kept(&parked)), ("parked", "older version"));
        assert_eq!((next("backup", &partial), kept(&partial)), ("-", "without a part"));
        assert_eq!(next("restore", &failed), "-", "nobody restores again by himself");
    }

    #[test]
    fn an_example_says_whose_item_it_is() {
        let group = FailedGroup {
            example_tenant: "contoso".to_owned(),
            example_resource: "user:ann@x.test".to_owned(),
            example_workload: "mail".to_owned(),
            example_path: "/Inbox".to_owned(),
            example_item: "AAMk".to_owned(),
            ..FailedGroup::default()
        };
        assert_eq!(example(&group), "mail of user:ann@x.test of contoso in /Inbox: AAMk");
    }
}
