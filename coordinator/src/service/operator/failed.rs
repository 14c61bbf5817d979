//! Failed items by cause: of one job, and of everybody.

use std::collections::BTreeMap;

use holdfast_proto::coordinator::{self as wire, Job};

use super::advice::advice;
use crate::catalog::failed::{FailedGroup, FailedItem, Fate};

/// A group of the catalog.
pub(super) fn wire_group(group: FailedGroup) -> wire::FailedGroup {
    wire::FailedGroup {
        advice: advice(&group.code).to_owned(),
        code: group.code,
        items: group.items,
        tenants: group.tenants,
        resources: group.resources,
        retried: group.retried,
        parked: group.parked,
        partial: group.partial,
        since_ms: group.since_ms,
        example_tenant: group.example.tenant,
        example_resource: group.example.resource,
        example_workload: group.example.workload,
        example_path: group.example.path,
        example_item: group.example.item,
    }
}

/// The failed items of a job by cause, the largest groups first.
pub(super) fn groups_of(job: &Job, failed: &[FailedItem]) -> Vec<wire::FailedGroup> {
    let mut groups: BTreeMap<&str, wire::FailedGroup> = BTreeMap::new();
    for item in failed {
        let group = groups.entry(&item.code).or_insert_with(|| wire::FailedGroup {
            code: item.code.clone(),
            tenants: 1,
            resources: 1,
            example_tenant: job.tenant.clone(),
            example_resource: job.resource.clone(),
            example_workload: job.workload.clone(),
            example_path: item.path.clone(),
            example_item: item.id.clone(),
            advice: advice(&item.code).to_owned(),
            ..Default::default()
        });
        group.items += 1;
        match item.fate() {
            Fate::Retried => group.retried += 1,
            Fate::Parked => group.parked += 1,
            Fate::Partial => group.partial += 1,
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.items));
    groups
}

/// One failed item for the operator.
pub(super) fn wire_item(item: FailedItem) -> wire::FailedItem {
    wire::FailedItem {
        id: item.id,
        path: item.path,
        code: item.code,
        retryable: item.retryable,
        attempts: item.attempts,
        request_id: item.request_id,
        stale: item.stale,
        partial: item.partial,
        parked: item.parked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_items_of_a_job_are_grouped_by_cause_with_their_fate() {
        let item = |code: &str, partial, parked| FailedItem {
            id: format!("{code}-{partial}-{parked}"),
            path: "/Inbox".to_owned(),
            code: code.to_owned(),
            retryable: true,
            attempts: 1,
            request_id: String::new(),
            stale: false,
            partial,
            parked,
        };
        let failed = [
            item("timeout", false, false),
            item("ErrorCorruptData", false, true),
            item("ErrorCorruptData", true, false),
        ];
        let job = Job { resource: "user:ann@x.test".to_owned(), ..Job::default() };
        let groups = groups_of(&job, &failed);
        let seen: Vec<_> = groups.iter().map(|g| (g.code.as_str(), g.retried, g.parked, g.partial)).collect();
        assert_eq!(seen, [("ErrorCorruptData", 0, 1, 1), ("timeout", 1, 0, 0)]);
        assert_eq!(groups[0].example_resource, "user:ann@x.test");
        assert!(groups.iter().all(|group| !group.advice.is_empty()));
    }
}
