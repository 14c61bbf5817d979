//! Metrics of the upload to the object store.

use metrics::{counter, gauge};

pub fn uploaded(bytes: u64) {
    counter!("holdfast_storage_node_segments_uploaded_total").increment(1);
    counter!("holdfast_storage_node_uploaded_bytes_total").increment(bytes);
}

pub fn upload_failed() {
    counter!("holdfast_storage_node_upload_failures_total").increment(1);
}

/// Sealed segments that are only on the local disk, and those of them that are damaged and not uploaded.
#[allow(clippy::cast_precision_loss)]
pub fn waiting(segments: u64, bytes: u64, damaged: u64) {
    gauge!("holdfast_storage_node_upload_waiting_segments").set(segments as f64);
    gauge!("holdfast_storage_node_upload_waiting_bytes").set(bytes as f64);
    gauge!("holdfast_storage_node_upload_damaged_segments").set(damaged as f64);
}

/// 0 while uploads succeed.
#[allow(clippy::cast_precision_loss)]
pub fn failing_for(ms: u64) {
    gauge!("holdfast_storage_node_upload_failing_seconds").set(ms as f64 / 1_000.0);
}

pub fn objects(n: u64, bytes: u64, missing: u64) {
    #[allow(clippy::cast_precision_loss)]
    for (name, value) in [
        ("holdfast_storage_node_objects", n),
        ("holdfast_storage_node_object_bytes", bytes),
        ("holdfast_storage_node_objects_missing", missing),
    ] {
        gauge!(name).set(value as f64);
    }
}
