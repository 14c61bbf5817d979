//! Every metric of the coordinator. No label names a tenant or an item.

use holdfast_model::Layout;
use metrics::{counter, gauge};

use crate::{core::NodeStatuses, layout_change::up, storage_health::storage_health};

/// A job was claimed.
pub(crate) fn claimed(class: &'static str) {
    counter!("holdfast_coordinator_jobs_claimed_total", "class" => class).increment(1);
}

/// A claim was refused: somebody else has the job, or it is not due.
pub(crate) fn claim_refused() {
    counter!("holdfast_coordinator_claims_refused_total").increment(1);
}

/// A hint was published, or came back.
pub(crate) fn published(outcome: &'static str) {
    counter!("holdfast_coordinator_hints_published_total", "outcome" => outcome).increment(1);
}

/// Leases ended without the worker's word.
pub(crate) fn leases_expired(n: usize) {
    counter!("holdfast_coordinator_leases_expired_total").increment(n as u64);
}

/// A commit was decided for a worker that vanished.
pub(crate) fn commit_recovered(outcome: &'static str) {
    counter!("holdfast_coordinator_commits_recovered_total", "outcome" => outcome).increment(1);
}

/// A transaction is tried again because another came first.
pub(crate) fn race_lost() {
    counter!("holdfast_coordinator_transactions_retried_total").increment(1);
}

/// Whether this coordinator leads.
pub(crate) fn leads(leads: bool) {
    gauge!("holdfast_coordinator_leads").set(if leads { 1.0 } else { 0.0 });
}

/// Nodes that answered, of all in the layout.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn nodes(up: usize, all: usize) {
    gauge!("holdfast_coordinator_nodes_up").set(up as f64);
    gauge!("holdfast_coordinator_nodes").set(all as f64);
}

/// A worker reported that Microsoft rejects its token.
pub(crate) fn token_rejected() {
    counter!("holdfast_coordinator_token_rejections_total").increment(1);
}

/// What the nodes that answer know of copies, and how far a move is.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn storage(layout: &Layout, answers: &NodeStatuses, configuration_differs: bool) {
    let health = storage_health(layout, answers);
    let damaged: u64 = up(answers).map(|one| one.repair.damaged_waiting).sum();
    gauge!("holdfast_coordinator_nodes_replaced").set(health.nodes_replaced as f64);
    gauge!("holdfast_coordinator_disks_lost").set(health.disks_lost as f64);
    gauge!("holdfast_coordinator_nodes_full").set(health.nodes_full as f64);
    gauge!("holdfast_coordinator_nodes_nearly_full").set(health.nodes_nearly_full as f64);
    gauge!("holdfast_coordinator_nodes_not_uploading").set(health.nodes_not_uploading as f64);
    gauge!("holdfast_coordinator_records_below_policy").set(health.records_below_policy as f64);
    gauge!("holdfast_coordinator_records_at_one_copy").set(health.records_at_one_copy as f64);
    gauge!("holdfast_coordinator_records_damaged").set(damaged as f64);
    gauge!("holdfast_coordinator_partitions_incomplete").set(health.partitions_incomplete as f64);
    gauge!("holdfast_coordinator_partitions_moving").set(layout.previous.len() as f64);
    gauge!("holdfast_coordinator_layout_differs_from_configuration").set(f64::from(configuration_differs));
}
