//! Every metric of this crate. No tenant and no item is ever a label.

use metrics::{counter, gauge, histogram};

/// A frame became durable, or was answered at least.
pub(crate) fn frame_answered(bytes: u64) {
    counter!("holdfast_storage_client_put_bytes_total").increment(bytes);
}

/// Frames went out again because their stream broke.
pub(crate) fn frames_resent(count: usize) {
    counter!("holdfast_storage_client_put_frames_resent_total").increment(count as u64);
}

/// Records were not durable after an attempt and are put again.
pub(crate) fn records_retried(count: usize) {
    counter!("holdfast_storage_client_put_records_retried_total").increment(count as u64);
}

/// Records were read from a later owner because an earlier one did not have a good copy.
pub(crate) fn fell_over(count: usize) {
    counter!("holdfast_storage_client_get_fallover_records_total").increment(count as u64);
}

/// A copy did not verify.
pub(crate) fn corrupt_copy() {
    counter!("holdfast_storage_client_corrupt_copies_total").increment(1);
}

/// A node is left aside for a while.
pub(crate) fn node_marked_down() {
    counter!("holdfast_storage_client_nodes_marked_down_total").increment(1);
}

/// Bytes enter (or leave, when negative) the budget of sessions.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn in_flight(delta_bytes: i64) {
    gauge!("holdfast_storage_client_in_flight_bytes").increment(delta_bytes as f64);
}

/// How long a node took to the first byte of a read.
pub(crate) fn read_latency(seconds: f64) {
    histogram!("holdfast_storage_client_read_latency_seconds").record(seconds);
}
