//! Logs to stderr, traces (exported only when an endpoint is set) and the metrics recorder.
//!
//! Logger, tracer and recorder belong to the process: the first role to start sets them, the others share them.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SdkTracer, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::{
    EnvFilter, Layer, filter::Targets, fmt, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

/// How long the last spans may take to leave when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
const SECONDS_BUCKETS: [f64; 14] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0];
const BYTES_BUCKETS: [f64; 9] = [
    1024.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    268_435_456.0,
    4_294_967_296.0,
];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// What the process tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct TelemetryOptions {
    /// `text` or `json`. Default `text`.
    pub log_format: LogFormat,
    /// Which lines are logged, as `level` or `crate=level,…`. Default `info`.
    pub filter: String,
    /// Where traces go, an OTLP gRPC address such as `http://collector:4317`. Default: nowhere.
    pub otlp_endpoint: Option<String>,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { log_format: LogFormat::Text, filter: "info".to_owned(), otlp_endpoint: None }
    }
}

/// Telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error("telemetry filter '{filter}' is not understood: write a level or crate=level,…")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The trace exporter cannot be made.
    #[error("cannot export traces to {endpoint}")]
    Exporter {
        /// Where to.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// Somebody else has installed a logger.
    #[error("the process already has a logger of another kind")]
    Logger(#[source] tracing_subscriber::util::TryInitError),
    /// The metrics recorder cannot be made.
    #[error("the metrics recorder cannot be installed")]
    Metrics(#[source] BuildError),
}

/// Sends what is left when dropped. Keep it until the process ends.
#[derive(Debug)]
#[must_use = "dropping it flushes and ends the export of traces"]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take()
            && let Err(error) = provider.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
}

static STARTED: Mutex<bool> = Mutex::new(false);
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts telemetry for a process of this role and name. Later calls in the same process change nothing.
///
/// With an OTLP endpoint it must be called inside a tokio runtime.
pub fn init(role: &str, name: &str, options: &TelemetryOptions) -> Result<TelemetryGuard, TelemetryError> {
    let filter = EnvFilter::try_new(&options.filter)
        .map_err(|source| TelemetryError::Filter { filter: options.filter.clone(), source })?;
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    install_recorder()?;
    if *started {
        return Ok(TelemetryGuard { provider: None });
    }
    let provider = tracer_provider(role, name, options.otlp_endpoint.as_deref())?;
    let lines = match options.log_format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(trace_layer(&provider).with_filter(traced_targets()))
        .try_init()
        .map_err(TelemetryError::Logger)?;
    *started = true;
    Ok(TelemetryGuard { provider: Some(provider) })
}

/// The page of `/metrics`, in the text format of Prometheus; empty before [`init`].
pub fn render_metrics() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Empties the recorder's buffers, which otherwise grow until somebody asks for [`render_metrics`].
pub(crate) fn metrics_upkeep() {
    if let Some(recorder) = RECORDER.get() {
        recorder.run_upkeep();
    }
}

/// Traces hold our own spans of level info and above, whatever the log filter says.
fn traced_targets() -> Targets {
    Targets::new().with_default(tracing::Level::INFO).with_targets(
        ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry"]
            .map(|name| (name, tracing::level_filters::LevelFilter::OFF)),
    )
}

/// Makes ids in any case; exports only with an endpoint.
pub(crate) fn tracer_provider(
    role: &str,
    name: &str,
    endpoint: Option<&str>,
) -> Result<SdkTracerProvider, TelemetryError> {
    let resource = Resource::builder()
        .with_service_name(format!("holdfast-{role}"))
        .with_attribute(KeyValue::new("service.instance.id", name.to_owned()))
        .build();
    let mut provider = SdkTracerProvider::builder().with_resource(resource);
    if let Some(endpoint) = endpoint {
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(|source| TelemetryError::Exporter { endpoint: endpoint.to_owned(), source })?;
        provider = provider.with_batch_exporter(exporter);
    }
    Ok(provider.build())
}

pub(crate) fn trace_layer<S>(provider: &SdkTracerProvider) -> OpenTelemetryLayer<S, SdkTracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer().with_tracer(provider.tracer("holdfast"))
}

fn install_recorder() -> Result<(), TelemetryError> {
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)
        .and_then(|builder| {
            builder.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(TelemetryError::Metrics)?;
    RECORDER.get_or_init(|| handle);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_roles_share_one_process() {
        let options = TelemetryOptions::default();
        let first = init("coordinator", "c1", &options).unwrap();
        let second = init("worker", "w1", &options).unwrap();
        ::metrics::counter!("holdfast_runtime_probe_total").increment(3);
        assert!(render_metrics().contains("holdfast_runtime_probe_total 3"));
        drop((first, second));
    }

    #[test]
    fn a_wrong_filter_is_refused_by_name() {
        let options = TelemetryOptions { filter: "holdfast=loud".to_owned(), ..Default::default() };
        let error = init("worker", "w1", &options).unwrap_err();
        assert!(error.to_string().contains("holdfast=loud"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_absent_collector_does_not_hold_up_the_end_of_the_process() {
        let provider = tracer_provider("worker", "w1", Some("http://127.0.0.1:1")).unwrap();
        let subscriber = tracing_subscriber::registry().with(trace_layer(&provider));
        tracing::subscriber::with_default(subscriber, || tracing::info_span!("backup").in_scope(|| ()));
        let ended = tokio::task::spawn_blocking(move || drop(TelemetryGuard { provider: Some(provider) }));
        tokio::time::timeout(FLUSH_TIMEOUT * 2, ended).await.unwrap().unwrap();
    }
}
