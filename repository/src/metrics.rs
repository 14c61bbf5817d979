//! Every metric of this crate. No tenant or item labels.

/// A message was stored as it is because its recipe did not make it.
pub(crate) fn mime_fallback() {
    metrics::counter!("holdfast_repository_mime_fallback_total").increment(1);
}
