//! One trace follows a job: from dispatch through the queue and the worker to a storage node, in the logs and in what is
//! exported.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use harness::{Cluster, ClusterOptions, eventually, process::Process, services::Services, sim};
use serde_json::Value;
use tonic::{
    Request, Response, Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService, UnaryService},
};

const SOON: Duration = Duration::from_secs(60);
const RUN_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_job_from_dispatch_to_the_storage_node() {
    let folder = tempfile::tempdir().expect("a private folder");
    let collector = Collector::start().await;
    let services = Services::start(folder.path()).await;
    let tenant = sim::SimTenant::start(sim::options(1, 10, 300_000)).await;
    let telemetry = format!("log-format = \"json\"\notlp-endpoint = \"http://{}\"", collector.address);
    let options = ClusterOptions {
        coordinators: 1,
        workers: 1,
        nodes: vec!["a", "b"],
        telemetry,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(folder.path(), &services, &options).await;
    cluster.connect_tenant("contoso", &tenant.url()).await;
    let run = cluster.start_backup("contoso").await;
    let job = cluster.finished(&run, RUN_WITHIN).await.remove(0).id;

    let coordinator = &cluster.coordinators[0];
    let dispatched = traces(coordinator, |line| {
        line["message"] == "job dispatched" && span(line, "dispatch", "job") == job
    });
    assert_eq!(dispatched.len(), 1, "the job was dispatched in one trace: {dispatched:?}");
    let trace = dispatched.into_iter().next().unwrap_or_default();
    assert_eq!(trace.len(), 32);
    for said in ["job started", "job done"] {
        let of_worker =
            traces(&cluster.workers[0], |line| line["message"] == said && span(line, "job", "job") == job);
        assert_eq!(of_worker, BTreeSet::from([trace.clone()]), "the worker's line '{said}'");
    }
    let id: Vec<u8> = hex::decode(&trace).expect("a trace id is hexadecimal");
    for (role, span) in [("coordinator", "dispatch"), ("worker", "job"), ("storage-node", "rpc")] {
        let service = format!("holdfast-{role}");
        eventually(&format!("the {role} exports its span '{span}' of the trace"), SOON, || async {
            collector.holds(&[service.as_bytes(), span.as_bytes(), &id]).then_some(())
        })
        .await;
    }
    let everything = [&cluster.coordinators, &cluster.workers, &cluster.nodes].into_iter().flatten();
    for process in everything {
        let output = process.output();
        assert!(!output.contains(sim::CLIENT_SECRET), "the client secret is in a log");
        assert!(!output.contains("eyJ"), "an access token is in a log");
    }
}

/// The trace ids of the lines that match, from the span that records one.
fn traces(process: &Process, matches: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let output = process.output();
    let lines = output.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of = |line: Value| {
        let spans = line["spans"].as_array().cloned().unwrap_or_default();
        spans.iter().find_map(|span| span["trace_id"].as_str().map(str::to_owned))
    };
    lines.filter(matches).filter_map(of).collect()
}

/// A field of one of a line's spans; empty when there is none.
fn span<'a>(line: &'a Value, name: &str, field: &str) -> &'a str {
    let spans = line["spans"].as_array().map_or(&[][..], Vec::as_slice);
    spans.iter().find(|span| span["name"] == name).and_then(|span| span[field].as_str()).unwrap_or_default()
}

/// The smallest collector of OTLP traces: it keeps each export as the bytes it came in.
#[derive(Clone)]
struct Collector {
    address: String,
    exports: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    async fn start() -> Self {
        let [port] = harness::process::free_ports();
        let collector = Self { address: format!("127.0.0.1:{port}"), exports: Arc::default() };
        let address = collector.address.parse().expect("an address");
        let server = tonic::transport::Server::builder().add_service(collector.clone()).serve(address);
        tokio::spawn(server);
        collector
    }

    /// Whether one export holds all of these.
    fn holds(&self, parts: &[&[u8]]) -> bool {
        let exports = self.exports.lock().expect("nobody panics with it");
        let has = |export: &[u8], part: &[u8]| export.windows(part.len()).any(|window| window == part);
        exports.iter().any(|export| parts.iter().all(|part| has(export, part)))
    }
}

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl Service<http::Request<tonic::body::Body>> for Collector {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let collector = self.clone();
        Box::pin(async move { Ok(Grpc::new(Raw).unary(collector, request).await) })
    }
}

impl UnaryService<Vec<u8>> for Collector {
    type Response = ();
    type Future = BoxFuture<'static, Result<Response<()>, Status>>;

    fn call(&mut self, request: Request<Vec<u8>>) -> Self::Future {
        self.exports.lock().expect("nobody panics with it").push(request.into_inner());
        Box::pin(std::future::ready(Ok(Response::new(()))))
    }
}

/// Takes a message as it is and answers with an empty one.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = ();
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = ();
    type Error = Status;

    fn encode(&mut self, (): (), _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use bytes::Buf as _;
        let mut bytes = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut bytes);
        Ok(Some(bytes))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
