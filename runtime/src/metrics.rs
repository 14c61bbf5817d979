//! The metrics of this crate. Names are `holdfast_runtime_<noun>_<unit>[_total]`; labels have few values.

use metrics::counter;

/// A call was refused before it reached a service.
pub(crate) fn rpc_refused() {
    counter!("holdfast_runtime_rpc_refused_total").increment(1);
}

/// A step of a background loop failed.
pub(crate) fn loop_step_failed(name: &'static str) {
    counter!("holdfast_runtime_loop_errors_total", "loop" => name).increment(1);
}

/// A background loop ended by a panic.
pub(crate) fn loop_panicked(name: &'static str) {
    counter!("holdfast_runtime_loop_panics_total", "loop" => name).increment(1);
}
