use axum::{Extension, Router, routing::post};
use tonic::{Code, service::RoutesBuilder};

use super::*;
use crate::Pki;

static TABLE: RoleTable = RoleTable(&[
    ("/probe.v1.Probe/WhoAmI", &[Role::Worker, Role::Coordinator]),
    ("/probe.v1.Probe/Slow", &[Role::Worker]),
]);

struct Cluster {
    _dir: tempfile::TempDir,
    pki: Pki,
    address: SocketAddr,
    shutdown: Shutdown,
    server: JoinHandle<Result<(), GrpcError>>,
}

async fn who_am_i(Extension(peer): Extension<PeerIdentity>) -> http::Response<axum::body::Body> {
    http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", "0")
        .header("peer", peer.to_string())
        .header("seen-trace", trace_context::inject())
        .body(axum::body::Body::empty())
        .unwrap()
}

async fn cluster() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(dir.path(), "test").unwrap();
    let tls = pki.issue(Role::StorageNode, "node-1", &[]).unwrap().options();
    let router = Router::new()
        .route("/probe.v1.Probe/WhoAmI", post(who_am_i))
        .route("/probe.v1.Probe/Hidden", post(who_am_i))
        .route("/probe.v1.Probe/Slow", post(std::future::pending::<()>));
    let routes = RoutesBuilder::from(router).routes();
    let shutdown = Shutdown::new();
    let (address, server) =
        serve("127.0.0.1:0", &tls, "test", &TABLE, routes, shutdown.clone()).await.unwrap();
    Cluster { _dir: dir, pki, address, shutdown, server }
}

async fn call<C, B>(channel: C, rpc: &str) -> Result<http::HeaderMap, Status>
where
    C: Service<http::Request<Body>, Response = http::Response<B>>,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let request = http::Request::post(format!("http://any{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::empty())
        .unwrap();
    let mut client = channel;
    std::future::poll_fn(|cx| client.poll_ready(cx)).await.map_err(|e| Status::from_error(e.into()))?;
    let response = client.call(request).await.map_err(|e| Status::from_error(e.into()))?;
    match Status::from_header_map(response.headers()) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(response.headers().clone()),
    }
}

impl Cluster {
    fn channel(&self, tls: &TlsOptions, server_role: Role) -> Channel {
        Channels::connect(&self.address.to_string(), tls, server_role).unwrap()
    }

    async fn call_as(&self, role: Role, rpc: &str) -> Result<http::HeaderMap, Status> {
        let tls = self.pki.issue(role, "caller", &[]).unwrap().options();
        call(self.channel(&tls, Role::StorageNode), rpc).await
    }
}

#[tokio::test]
async fn a_role_in_the_table_gets_through_and_the_service_knows_who_calls() {
    let cluster = cluster().await;
    let headers = cluster.call_as(Role::Worker, "/probe.v1.Probe/WhoAmI").await.unwrap();
    assert_eq!(headers["peer"], "holdfast://test/worker/caller");
    cluster.shutdown.trigger();
    cluster.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_role_is_refused_and_told_which_is_needed() {
    let cluster = cluster().await;
    let status = cluster.call_as(Role::Operator, "/probe.v1.Probe/WhoAmI").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("needs worker or coordinator"), "{}", status.message());
}

#[tokio::test]
async fn an_rpc_outside_the_table_is_refused_even_if_it_exists() {
    let cluster = cluster().await;
    for rpc in ["/probe.v1.Probe/Hidden", "/probe.v1.Probe/Nothing", "/"] {
        let status = cluster.call_as(Role::Coordinator, rpc).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{rpc}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused_even_from_the_same_authority() {
    let cluster = cluster().await;
    let dir = tempfile::tempdir().unwrap();
    for file in ["ca.crt", "ca.key"] {
        std::fs::copy(cluster._dir.path().join(file), dir.path().join(file)).unwrap();
    }
    std::fs::write(dir.path().join("cluster"), "other").unwrap();
    let other = Pki::open(dir.path()).unwrap();
    let tls = other.issue(Role::Worker, "w", &[]).unwrap().options();
    // Our own client refuses the server first; so this one trusts the authority only.
    let config = ClientTlsConfig::new()
        .domain_name(INTERNAL_DNS_NAME)
        .identity(tls.key_pair().unwrap())
        .ca_certificate(Certificate::from_pem(read(&tls.ca_file).unwrap()));
    let endpoint = Endpoint::from_shared(format!("https://{}", cluster.address)).unwrap();
    let channel = endpoint.tls_config(config).unwrap().connect_lazy();
    let status = call(channel, "/probe.v1.Probe/WhoAmI").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("'other'"), "{}", status.message());
    let error = server(&tls, "test", &TABLE).unwrap_err();
    assert!(matches!(error, GrpcError::OtherCluster { .. }));
}

#[tokio::test]
async fn a_certificate_of_another_role_and_a_key_of_another_certificate_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::create(dir.path(), "test").unwrap();
    let tls = pki.issue(Role::StorageNode, "node-1", &[]).unwrap().options();
    tls.check_role(Role::StorageNode).unwrap();
    let error = tls.check_role(Role::Coordinator).unwrap_err();
    assert!(
        error.to_string().contains("is the certificate of a storage-node: give this coordinator"),
        "{error}"
    );
    let worker = pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let mixed = TlsOptions { key_file: worker.key_file, ..tls };
    let error = server(&mixed, "test", &TABLE).unwrap_err();
    assert!(matches!(error, GrpcError::KeyPair { .. }), "{error:?}");
    let error = bind("nowhere").await.unwrap_err();
    assert!(matches!(error, GrpcError::Address { .. }), "{error:?}");
}

#[tokio::test]
async fn without_a_certificate_or_with_a_foreign_one_there_is_no_connection() {
    let cluster = cluster().await;
    let ca = read(&cluster._dir.path().join("ca.crt")).unwrap();
    let config =
        ClientTlsConfig::new().domain_name(INTERNAL_DNS_NAME).ca_certificate(Certificate::from_pem(ca));
    let endpoint = Endpoint::from_shared(format!("https://{}", cluster.address)).unwrap();
    let channel = endpoint.tls_config(config).unwrap().connect_lazy();
    let status = call(channel, "/probe.v1.Probe/WhoAmI").await.unwrap_err();
    assert_ne!(status.code(), Code::PermissionDenied, "refused by TLS, before any RPC: {status}");
    let foreign_dir = tempfile::tempdir().unwrap();
    let foreign = Pki::create(foreign_dir.path(), "test").unwrap();
    let tls = foreign.issue(Role::Worker, "w", &[]).unwrap().options();
    let status = call(cluster.channel(&tls, Role::StorageNode), "/probe.v1.Probe/WhoAmI").await.unwrap_err();
    assert_ne!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn a_client_refuses_a_server_of_another_role() {
    let cluster = cluster().await;
    let tls = cluster.pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let status = call(cluster.channel(&tls, Role::Coordinator), "/probe.v1.Probe/WhoAmI").await.unwrap_err();
    let text = format!("{status:?}");
    assert!(text.contains("StorageNode") && text.contains("Coordinator"), "{text}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let cluster = cluster().await;
    let tls = cluster.pki.issue(Role::StorageNode, "node-2", &[]).unwrap().options();
    let address = cluster.address.to_string();
    let error = serve(&address, &tls, "test", &TABLE, Routes::default(), Shutdown::new())
        .await
        .map(drop)
        .unwrap_err();
    assert!(matches!(error, GrpcError::AddressInUse { .. }));
    assert!(error.to_string().contains(&address), "{error}");
    for wrong in ["nowhere", ":1", "host:port", "host:70000"] {
        assert!(
            matches!(Channels::connect(wrong, &tls, Role::Worker), Err(GrpcError::Address { .. })),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever_for_an_open_call() {
    let cluster = cluster().await;
    let tls = cluster.pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let channel = cluster.channel(&tls, Role::StorageNode);
    call(channel.clone(), "/probe.v1.Probe/WhoAmI").await.unwrap();
    let open = tokio::spawn(async move { call(channel, "/probe.v1.Probe/Slow").await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    tokio::time::pause();
    cluster.shutdown.trigger();
    cluster.server.await.unwrap().unwrap();
    open.abort();
}

#[tokio::test]
async fn a_call_goes_on_with_the_trace_of_its_caller() {
    use tracing_subscriber::layer::SubscriberExt;
    let provider = crate::telemetry::tracer_provider("worker", "w1", None).unwrap();
    let subscriber = tracing_subscriber::registry().with(crate::telemetry::trace_layer(&provider));
    let _subscriber = tracing::subscriber::set_default(subscriber);
    let cluster = cluster().await;
    let tls = cluster.pki.issue(Role::Worker, "w", &[]).unwrap().options();
    let channel = Channels::traced(cluster.channel(&tls, Role::StorageNode));
    let span = info_span!("backup");
    let here = trace_context::of(&span);
    let headers = call(channel, "/probe.v1.Probe/WhoAmI").instrument(span).await.unwrap();
    let there = headers["seen-trace"].to_str().unwrap();
    assert_eq!(here.len(), 55);
    assert_eq!(here[..35], there[..35], "same trace");
    assert_ne!(here, there, "another span");
}
