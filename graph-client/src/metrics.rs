//! What this crate counts. No tenant, mailbox or item is a label.

use metrics::{counter, histogram};

/// One attempt was sent to Graph.
pub(crate) fn attempt() {
    counter!("holdfast_graph_client_attempts_total").increment(1);
}

/// An attempt failed in this class.
pub(crate) fn failure(class: crate::ErrorClass) {
    counter!("holdfast_graph_client_failures_total", "class" => format!("{class:?}")).increment(1);
}

/// Bytes of a body came in.
pub(crate) fn received(bytes: usize) {
    counter!("holdfast_graph_client_received_bytes_total").increment(bytes as u64);
}

/// A call waited for the ledger.
pub(crate) fn waited(wait: std::time::Duration) {
    histogram!("holdfast_graph_client_quota_wait_seconds").record(wait.as_secs_f64());
}

/// A token was asked for.
pub(crate) fn token_request() {
    counter!("holdfast_graph_client_token_requests_total").increment(1);
}

/// The shared ledger did not answer; the fallback decided.
pub(crate) fn ledger_fallback() {
    counter!("holdfast_graph_client_ledger_fallbacks_total").increment(1);
}
