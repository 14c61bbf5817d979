//! gRPC between our processes: mutual TLS, and one check of role against RPC in front of every service.
//!
//! The invariant: a request reaches a service only with a verified certificate of this cluster whose role the table
//! names for exactly that RPC. What the table does not list is refused.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use holdfast_model::Role;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Status,
    body::Body,
    metadata::MetadataValue,
    service::{Interceptor, Routes, interceptor::InterceptedService},
    transport::{
        Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig,
        server::{TcpConnectInfo, TcpIncoming, TlsConnectInfo},
    },
};
use tower::{
    BoxError, Layer, Service, ServiceExt as _,
    layer::util::{Identity as NoLayer, Stack},
    util::BoxCloneSyncService,
};
use tracing::{Instrument, Span, debug, field, info_span, warn};

use crate::{
    IdentityError, PeerIdentity, Shutdown, install_crypto, metrics, trace_context, verifier::RoleVerifier,
};

/// The name every certificate carries, so that clients need not know by which address a server is reached.
pub const INTERNAL_DNS_NAME: &str = "holdfast.internal";
/// The metadata key that carries the trace.
pub const TRACEPARENT: &str = "traceparent";
/// Bytes a sender may have under way per stream; the default of 64 KiB is up to 8 times slower.
pub const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// Bytes a sender may have under way per connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// The largest HTTP/2 frame.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;
/// RPCs one connection may have open.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_024;
/// How long open RPCs may go on after shutdown was asked for.
pub const DRAIN_GRACE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A gRPC server or channel cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// Somebody else listens there.
    #[error("{address} is already in use: stop the process that listens there or set another address")]
    AddressInUse {
        /// The address asked for.
        address: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate or key cannot be read.
    #[error("cannot read {}", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate file has no usable certificate.
    #[error("{} holds no usable PEM certificate", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Our own certificate does not say who we are.
    #[error("the certificate {} cannot be used", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: IdentityError,
    },
    /// Our own certificate was made for another cluster.
    #[error("the certificate belongs to cluster '{found}', this process to '{expected}'")]
    OtherCluster {
        /// The cluster of the configuration.
        expected: String,
        /// The cluster of the certificate.
        found: String,
    },
    /// Our own certificate was made for another role.
    #[error("{} is the certificate of a {found}: give this {expected} one of its own", path.display())]
    WrongRole {
        /// The file.
        path: PathBuf,
        /// What this process is.
        expected: Role,
        /// What the certificate says.
        found: Role,
    },
    /// Our own certificate and key are no pair.
    #[error("the certificate {} and the key {} cannot be used together", cert.display(), key.display())]
    KeyPair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The certificate authority cannot be used to verify.
    #[error("the certificate authority cannot be used")]
    Authority(#[source] rustls::client::VerifierBuilderError),
    /// The address of a server is not `host:port`.
    #[error("'{address}' is not host:port")]
    Address {
        /// What was given.
        address: String,
    },
    /// TLS or HTTP/2 could not be set up, or the server ended with an error.
    #[error("gRPC transport failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Where a process finds its certificate. Files, so that they can be mounted and rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TlsOptions {
    /// PEM certificate chain of this process, with the name `holdfast://<cluster>/<role>/<name>`.
    pub cert_file: PathBuf,
    /// PEM private key of that certificate.
    pub key_file: PathBuf,
    /// PEM certificate authority of the cluster: who is not signed by it is refused.
    pub ca_file: PathBuf,
}

impl TlsOptions {
    /// Who this process is, from its own certificate.
    pub fn identity(&self) -> Result<PeerIdentity, GrpcError> {
        let certificate = first_certificate(&self.cert_file, &read(&self.cert_file)?)?;
        PeerIdentity::from_certificate(&certificate)
            .map_err(|source| GrpcError::Identity { path: self.cert_file.clone(), source })
    }

    /// Refuses a certificate that was made for another role: nobody would believe this process.
    pub fn check_role(&self, expected: Role) -> Result<(), GrpcError> {
        match self.identity()?.role {
            role if role == expected => Ok(()),
            found => Err(GrpcError::WrongRole { path: self.cert_file.clone(), expected, found }),
        }
    }

    fn key_pair(&self) -> Result<Identity, GrpcError> {
        Ok(Identity::from_pem(read(&self.cert_file)?, read(&self.key_file)?))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, GrpcError> {
    std::fs::read(path).map_err(|source| GrpcError::ReadFile { path: path.to_owned(), source })
}

fn first_certificate(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>, GrpcError> {
    CertificateDer::from_pem_slice(pem).map_err(|_| GrpcError::BadCertificate { path: path.to_owned() })
}

// === Server ===

/// Which roles may call which RPC, by full path: `("/holdfast.storage.v1.StorageNode/Put", &[Role::Worker])`.
///
/// A slice of paths and the roles allowed on each; what is not listed is refused.
#[derive(Debug, Clone, Copy)]
pub struct RoleTable(pub &'static [(&'static str, &'static [Role])]);

impl RoleTable {
    /// The roles that may call the RPC; `None` if the table does not know it.
    pub fn roles(&self, rpc: &str) -> Option<&'static [Role]> {
        self.0.iter().find(|(path, _)| *path == rpc).map(|(_, roles)| *roles)
    }

    /// Every RPC in the table.
    pub fn rpcs(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(path, _)| *path)
    }
}

/// A tonic server with TLS, tuned transport and the role check in front.
pub type AuthorizedServer = Server<Stack<AuthorizeLayer, NoLayer>>;

/// Makes a server that only lets in who [`RoleTable`] allows.
pub fn server(
    tls: &TlsOptions,
    cluster: &str,
    table: &'static RoleTable,
) -> Result<AuthorizedServer, GrpcError> {
    install_crypto();
    let own = tls.identity()?;
    if own.cluster != cluster {
        return Err(GrpcError::OtherCluster { expected: cluster.to_owned(), found: own.cluster });
    }
    let ca = read(&tls.ca_file)?;
    first_certificate(&tls.ca_file, &ca)?;
    let config = ServerTlsConfig::new().identity(tls.key_pair()?).client_ca_root(Certificate::from_pem(ca));
    let no_pair =
        |source| GrpcError::KeyPair { cert: tls.cert_file.clone(), key: tls.key_file.clone(), source };
    Ok(Server::builder()
        .tls_config(config)
        .map_err(no_pair)?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .layer(AuthorizeLayer { cluster: cluster.into(), table }))
}

/// Binds the address, then serves the routes in the background until shutdown.
///
/// After shutdown open RPCs have [`DRAIN_GRACE`] to end. The handle must be joined by the caller.
pub async fn serve(
    listen: &str,
    tls: &TlsOptions,
    cluster: &str,
    table: &'static RoleTable,
    routes: Routes,
    shutdown: Shutdown,
) -> Result<(SocketAddr, JoinHandle<Result<(), GrpcError>>), GrpcError> {
    let mut server = server(tls, cluster, table)?;
    let listener = bind(listen).await?;
    let address =
        listener.local_addr().map_err(|source| GrpcError::Listen { address: listen.to_owned(), source })?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let router = server.add_routes(routes.prepare());
    let handle = tokio::spawn(async move {
        let draining = shutdown.clone();
        let served = router.serve_with_incoming_shutdown(incoming, async move { draining.wait().await });
        tokio::select! {
            ended = served => ended.map_err(GrpcError::from),
            () = async { shutdown.wait().await; tokio::time::sleep(DRAIN_GRACE).await } => {
                warn!(%address, grace = ?DRAIN_GRACE, "gRPC calls were still open after the grace period");
                Ok(())
            }
        }
    });
    Ok((address, handle))
}

/// Binds a TCP listener; a taken port, or no address at all, is an error that says so.
pub async fn bind(listen: &str) -> Result<TcpListener, GrpcError> {
    TcpListener::bind(listen).await.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => GrpcError::AddressInUse { address: listen.to_owned() },
        std::io::ErrorKind::InvalidInput => GrpcError::Address { address: listen.to_owned() },
        _ => GrpcError::Listen { address: listen.to_owned(), source },
    })
}

/// Puts the role check in front of the services.
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    cluster: Arc<str>,
    table: &'static RoleTable,
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Authorize<S> {
        Authorize { inner, layer: self.clone() }
    }
}

/// Checks the caller, puts its [`PeerIdentity`] into the request and continues its trace.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
}

impl<S, B> Service<http::Request<B>> for Authorize<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        let rpc = request.uri().path().to_owned();
        let peer = match self.layer.authorize(&request, &rpc) {
            Ok(peer) => peer,
            Err(status) => {
                metrics::rpc_refused();
                warn!(rpc, reason = status.message(), "call refused");
                return Box::pin(async move { Ok(status.into_http()) });
            }
        };
        let span = rpc_span(&rpc, &peer, request.headers());
        request.extensions_mut().insert(peer);
        let clone = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, clone);
        let mut service = ready;
        Box::pin(
            async move {
                debug!("call taken");
                service.call(request).await
            }
            .instrument(span),
        )
    }
}

fn rpc_span(rpc: &str, peer: &PeerIdentity, headers: &http::HeaderMap) -> Span {
    let span = info_span!("rpc", rpc, peer_role = %peer.role, peer = peer.name, trace_id = field::Empty);
    let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    trace_context::set_parent(&span, parent);
    span
}

impl AuthorizeLayer {
    fn authorize<B>(&self, request: &http::Request<B>, rpc: &str) -> Result<PeerIdentity, Status> {
        let certificates = request
            .extensions()
            .get::<TlsConnectInfo<TcpConnectInfo>>()
            .and_then(TlsConnectInfo::peer_certs)
            .ok_or_else(|| Status::permission_denied("no client certificate was presented"))?;
        let certificate = certificates
            .first()
            .ok_or_else(|| Status::permission_denied("no client certificate was presented"))?;
        let peer = PeerIdentity::from_certificate(certificate)
            .map_err(|error| Status::permission_denied(error.to_string()))?;
        if peer.cluster != *self.cluster {
            let (theirs, ours) = (&peer.cluster, &self.cluster);
            let text = format!("the certificate belongs to cluster '{theirs}', this is cluster '{ours}'");
            return Err(Status::permission_denied(text));
        }
        let roles = self.table.roles(rpc).ok_or_else(|| {
            Status::permission_denied("nobody may call this: the role table does not list it")
        })?;
        if !roles.contains(&peer.role) {
            let needed: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
            let text = format!("role {} may not call {rpc}: needs {}", peer.role, needed.join(" or "));
            return Err(Status::permission_denied(text));
        }
        Ok(peer)
    }
}

// === Client ===

/// A way to call one server: over the network, or under simulation into the same process.
pub type AnyChannel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, ChannelError>;

/// A call did not come through: what the channel says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ChannelError(#[source] pub BoxError);

/// Makes channels by address.
pub trait Connect: Send + Sync + 'static {
    /// Makes a channel to `host:port`, which connects when it is first used.
    fn connect(&self, address: &str) -> Result<AnyChannel, GrpcError>;
}

/// Makes channels with mutual TLS to servers of one role.
#[derive(Debug, Clone)]
pub struct TlsConnect {
    /// Our certificate; read for each channel, so that a renewed one is taken.
    pub tls: TlsOptions,
    /// What the server must be.
    pub server_role: Role,
}

impl Connect for TlsConnect {
    fn connect(&self, address: &str) -> Result<AnyChannel, GrpcError> {
        let channel = Channels::connect(address, &self.tls, self.server_role)?;
        Ok(BoxCloneSyncService::new(channel.map_err(|error| ChannelError(error.into()))))
    }
}

/// Makes channels to our own servers.
#[derive(Debug, Clone, Copy)]
pub struct Channels;

impl Channels {
    /// Makes a channel to `host:port` that connects when it is first used and again whenever it breaks.
    ///
    /// The server must be signed by the authority and carry `server_role` in our own cluster.
    pub fn connect(address: &str, tls: &TlsOptions, server_role: Role) -> Result<Channel, GrpcError> {
        install_crypto();
        let wrong_address = || GrpcError::Address { address: address.to_owned() };
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong_address)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong_address());
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| wrong_address())?;
        let mut roots = RootCertStore::empty();
        let ca = first_certificate(&tls.ca_file, &read(&tls.ca_file)?)?;
        roots.add(ca).map_err(|_| GrpcError::BadCertificate { path: tls.ca_file.clone() })?;
        let verifier =
            RoleVerifier::new(roots, tls.identity()?.cluster, server_role).map_err(GrpcError::Authority)?;
        let config = ClientTlsConfig::new()
            .domain_name(INTERNAL_DNS_NAME)
            .identity(tls.key_pair()?)
            .timeout(CONNECT_TIMEOUT);
        Ok(endpoint
            .tls_config_with_verifier(config, Arc::new(verifier))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_keep_alive_interval(KEEPALIVE_EVERY)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .connect_lazy())
    }

    /// The same channel with the trace of the current span put into every request.
    pub fn traced<C>(channel: C) -> TracedChannel<C> {
        InterceptedService::new(channel, TraceInjector)
    }
}

/// A channel that carries the trace: what `Client::with_interceptor(channel, TraceInjector)` is made of.
pub type TracedChannel<C = AnyChannel> = InterceptedService<C, TraceInjector>;

/// Puts the `traceparent` of the current span into a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct TraceInjector;

impl Interceptor for TraceInjector {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, Status> {
        if let Ok(value) = MetadataValue::try_from(trace_context::inject())
            && !value.is_empty()
        {
            request.metadata_mut().insert(TRACEPARENT, value);
        }
        Ok(request)
    }
}

#[cfg(test)]
#[path = "grpc/tests.rs"]
mod tests;
