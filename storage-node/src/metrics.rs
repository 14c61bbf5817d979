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
pub fn space(used_bytes: u64, ingest_stopped: bool) {
    gauge!("holdfast_storage_node_used_bytes").set(used_bytes as f64);
    gauge!("holdfast_storage_node_ingest_stopped").set(if ingest_stopped { 1.0 } else { 0.0 });
}
