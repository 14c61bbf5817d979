//! Metrics of the upload to the object store.

use metrics::{counter, gauge};

use super::UploadStatus;

pub fn uploaded(bytes: u64) {
    counter!("holdfast_storage_node_segments_uploaded_total").increment(1);
    counter!("holdfast_storage_node_uploaded_bytes_total").increment(bytes);
}

pub fn upload_failed() {
    counter!("holdfast_storage_node_upload_failures_total").increment(1);
}

/// What waits, what of it is held back, and for how long uploads have been failing: 0 while they succeed.
#[allow(clippy::cast_precision_loss)]
pub fn waiting(status: &UploadStatus) {
    gauge!("holdfast_storage_node_upload_waiting_segments").set(status.waiting_segments as f64);
    gauge!("holdfast_storage_node_upload_waiting_bytes").set(status.waiting_bytes as f64);
    gauge!("holdfast_storage_node_upload_damaged_segments").set(status.held_segments as f64);
    gauge!("holdfast_storage_node_upload_oldest_seconds").set(status.oldest_age.as_secs_f64());
    let failing_for = status.failing_for.unwrap_or_default();
    gauge!("holdfast_storage_node_upload_failing_seconds").set(failing_for.as_secs_f64());
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
