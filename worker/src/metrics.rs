//! Every metric of the worker. No tenant or item labels.

use holdfast_model::{Account, JobKind};

pub(crate) fn job_started(kind: JobKind) {
    metrics::counter!("holdfast_worker_jobs_started_total", "kind" => kind.as_str()).increment(1);
    metrics::gauge!("holdfast_worker_jobs_running").increment(1.0);
}

/// `outcome` is one of: done, released, dropped.
pub(crate) fn job_ended(kind: JobKind, outcome: &'static str) {
    metrics::counter!("holdfast_worker_jobs_ended_total", "kind" => kind.as_str(), "outcome" => outcome)
        .increment(1);
    metrics::gauge!("holdfast_worker_jobs_running").decrement(1.0);
}

/// What a shard did is in its parent's account, and counts there.
pub(crate) fn account(kind: JobKind, account: &Account) {
    if kind == JobKind::BackupShard {
        return;
    }
    let count = |outcome: &'static str, n: u64| {
        metrics::counter!("holdfast_worker_items_total", "kind" => kind.as_str(), "outcome" => outcome)
            .increment(n);
    };
    count("stored", account.stored);
    count("unchanged", account.unchanged);
    count("skipped", account.skipped);
    count("gone", account.gone);
    metrics::counter!("holdfast_worker_items_incomplete_total", "kind" => kind.as_str())
        .increment(account.incomplete);
    count("failed", account.failed_retryable + account.failed_permanent);
    metrics::counter!("holdfast_worker_read_bytes_total", "kind" => kind.as_str())
        .increment(account.bytes_read);
    metrics::counter!("holdfast_worker_stored_bytes_total", "kind" => kind.as_str())
        .increment(account.bytes_stored);
}

pub(crate) fn checkpoint(bytes: usize) {
    metrics::counter!("holdfast_worker_checkpoints_total").increment(1);
    #[allow(clippy::cast_precision_loss)]
    metrics::histogram!("holdfast_worker_checkpoint_bytes").record(bytes as f64);
}

pub(crate) fn content_retried() {
    metrics::counter!("holdfast_worker_content_retries_total").increment(1);
}
