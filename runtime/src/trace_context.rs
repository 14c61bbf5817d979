//! Carries a trace from process to process as a W3C `traceparent`: in gRPC metadata, AMQP headers and the job row.
//!
//! Works without an exporter: the tracer makes ids in any case, and spans with a `trace_id` field log them.

use std::collections::HashMap;

use opentelemetry::{
    propagation::TextMapPropagator,
    trace::{TraceContextExt, TraceId},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

const KEY: &str = "traceparent";
/// `00-<32>-<16>-<2>`; longer ones belong to versions we do not know.
const TRACEPARENT_LEN: usize = 55;

/// The `traceparent` of the current span; empty if there is none.
pub fn inject() -> String {
    of(&Span::current())
}

/// The `traceparent` of the given span; empty if it is not traced.
pub fn of(span: &Span) -> String {
    let mut carrier = HashMap::with_capacity(2);
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(KEY).unwrap_or_default()
}

/// Makes the span continue the trace, and records its `trace_id` field if it has one.
///
/// To be called before the span is entered. An empty or malformed `traceparent` starts a trace of its own.
pub fn set_parent(span: &Span, traceparent: &str) {
    if traceparent.len() == TRACEPARENT_LEN {
        let carrier = HashMap::from([(KEY.to_owned(), traceparent.to_owned())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        if parent.span().span_context().is_valid()
            && let Err(error) = span.set_parent(parent)
        {
            // No tracer in this process (tools, tests), or the span is switched off: nothing to continue.
            tracing::trace!(%error, "span does not continue its trace");
        }
    }
    let trace_id = span.context().span().span_context().trace_id();
    if trace_id != TraceId::INVALID {
        span.record("trace_id", tracing::field::display(trace_id));
    }
}

#[cfg(test)]
mod tests {
    use tracing::info_span;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_trace_goes_on_in_the_next_process_without_any_exporter() {
        let provider = crate::telemetry::tracer_provider("worker", "w1", None).unwrap();
        let subscriber = tracing_subscriber::registry().with(crate::telemetry::trace_layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(inject(), "");
            let here = info_span!("publish").in_scope(inject);
            assert_eq!(here.len(), TRACEPARENT_LEN, "{here}");
            let span = info_span!("claim", trace_id = tracing::field::Empty);
            set_parent(&span, &here);
            let there = span.in_scope(inject);
            assert_eq!(here[3..35], there[3..35], "same trace");
            assert_ne!(here[36..52], there[36..52], "another span");
            let alone = info_span!("claim");
            set_parent(&alone, "00-garbage");
            assert_ne!(alone.in_scope(inject)[3..35], here[3..35]);
        });
    }

    #[test]
    fn without_a_subscriber_there_is_no_trace_and_no_panic() {
        tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), || {
            let span = info_span!("claim");
            set_parent(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
            assert_eq!(span.in_scope(inject), "");
        });
    }
}
