//! Every metric of the storage node. No tenant and no item is ever a label.

use metrics::{counter, gauge, histogram};

pub fn records_stored(n: u64, bytes: u64) {
    counter!("holdfast_storage_node_records_stored_total").increment(n);
    counter!("holdfast_storage_node_stored_bytes_total").increment(bytes);
}

pub fn group_committed(bytes: u64, seconds: f64) {
    counter!("holdfast_storage_node_group_commits_total").increment(1);
    #[allow(clippy::cast_precision_loss)]
    histogram!("holdfast_storage_node_group_commit_bytes").record(bytes as f64);
    histogram!("holdfast_storage_node_group_commit_seconds").record(seconds);
}

pub fn ids_asked(n: usize, n_touched: usize) {
    counter!("holdfast_storage_node_have_ids_total").increment(n as u64);
    counter!("holdfast_storage_node_touched_ids_total").increment(n_touched as u64);
}

pub fn records_read(n: u64, bytes: u64) {
    counter!("holdfast_storage_node_records_read_total").increment(n);
    counter!("holdfast_storage_node_read_bytes_total").increment(bytes);
}

pub fn quarantined(n: u64) {
    counter!("holdfast_storage_node_quarantined_total").increment(n);
}

pub fn segment_poisoned() {
    counter!("holdfast_storage_node_segments_poisoned_total").increment(1);
}

pub fn batch_failed() {
    counter!("holdfast_storage_node_batches_failed_total").increment(1);
}

pub fn replica_failed() {
    counter!("holdfast_storage_node_replica_failures_total").increment(1);
}

pub fn pins_stored() {
    counter!("holdfast_storage_node_pins_stored_total").increment(1);
}

#[allow(clippy::cast_precision_loss)]
pub fn space(used_bytes: u64, ingest_stopped: bool, repair_stopped: bool) {
    let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
    gauge!("holdfast_storage_node_used_bytes").set(used_bytes as f64);
    gauge!("holdfast_storage_node_ingest_stopped").set(flag(ingest_stopped));
    gauge!("holdfast_storage_node_repair_stopped").set(flag(repair_stopped));
}

/// How many disks the node has by its configuration, and how many of them are lost.
#[allow(clippy::cast_precision_loss)]
pub fn disks((n_disks, n_lost): (usize, usize)) {
    gauge!("holdfast_storage_node_disks").set(n_disks as f64);
    gauge!("holdfast_storage_node_disks_lost").set(n_lost as f64);
}

/// Pins that the pin segments lacked and got again from the state.
pub fn pins_rewritten(n: u64) {
    counter!("holdfast_storage_node_pins_rewritten_total").increment(n);
}

/// Pins of the pin segments that the state does not have, or has otherwise, as the last check found.
#[allow(clippy::cast_precision_loss)]
pub fn pins_unknown(n: u64) {
    gauge!("holdfast_storage_node_pins_unknown_to_state").set(n as f64);
}

pub fn frame_rewritten() {
    counter!("holdfast_storage_node_frames_rewritten_total").increment(1);
}

pub fn protections_raised(n: u64) {
    counter!("holdfast_storage_node_protections_raised_total").increment(n);
}

/// Records of the daily sample, and how many of them could not be read.
pub fn sampled(n: u64, n_unreadable: u64) {
    counter!("holdfast_storage_node_sampled_records_total").increment(n);
    counter!("holdfast_storage_node_sampled_unreadable_total").increment(n_unreadable);
}

#[allow(clippy::cast_precision_loss)]
pub fn verify_ended(at_ms: u64) {
    gauge!("holdfast_storage_node_last_verify_timestamp_seconds").set(at_ms as f64 / 1_000.0);
}

pub fn hinted(n: u64) {
    counter!("holdfast_storage_node_hints_total").increment(n);
}

/// Copies brought here from other nodes, and brought to them.
pub fn copies_mended(n_pulled: u64, n_pushed: u64) {
    counter!("holdfast_storage_node_copies_pulled_total").increment(n_pulled);
    counter!("holdfast_storage_node_copies_pushed_total").increment(n_pushed);
}

pub fn repaired(n: u64) {
    counter!("holdfast_storage_node_repaired_total").increment(n);
}

pub fn bad_copy_refused() {
    counter!("holdfast_storage_node_bad_copies_refused_total").increment(1);
}

pub fn partitions_compared(n: u64, n_missing: u64) {
    counter!("holdfast_storage_node_partitions_compared_total").increment(n);
    counter!("holdfast_storage_node_missing_found_total").increment(n_missing);
}

pub fn scrubbed(bytes: u64) {
    counter!("holdfast_storage_node_scrubbed_bytes_total").increment(bytes);
}

#[allow(clippy::cast_precision_loss)]
pub fn repair_backlog(records: u64, at_one_copy: u64, damaged: u64, oldest_age_ms: u64) {
    gauge!("holdfast_storage_node_records_below_policy").set(records as f64);
    gauge!("holdfast_storage_node_records_at_one_copy").set(at_one_copy as f64);
    gauge!("holdfast_storage_node_damaged_waiting").set(damaged as f64);
    gauge!("holdfast_storage_node_repair_oldest_seconds").set(oldest_age_ms as f64 / 1_000.0);
}

#[allow(clippy::cast_precision_loss)]
pub fn scrub_ended(at_ms: u64) {
    gauge!("holdfast_storage_node_last_scrub_timestamp_seconds").set(at_ms as f64 / 1_000.0);
}
