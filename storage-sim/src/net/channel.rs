//! Channels into the same process: what a TLS channel is in production.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use holdfast_model::Role;
use holdfast_proto::LAYOUT_VERSION_METADATA;
use holdfast_runtime::{
    GrpcError, PeerIdentity,
    grpc::{AnyChannel, ChannelError, Connect},
};
use holdfast_storage_node::ROLE_TABLE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::{Service, util::BoxCloneSyncService};

use super::{
    Link, Net, NodeServer, Place, Way,
    body::{FRAMES_MAX, Piece, PipeBody, broken, pump},
};

/// Makes channels from one machine.
#[derive(Clone)]
pub struct SimConnect {
    net: Net,
    place: Place,
    identity: PeerIdentity,
}

impl SimConnect {
    pub(super) fn new(net: Net, place: Place, role: Role, name: &str) -> Self {
        let identity = PeerIdentity { cluster: "sim".to_owned(), role, name: name.to_owned() };
        Self { net, place, identity }
    }
}

/// The address of a machine.
pub fn address_of(place: Place) -> String {
    format!("node-{}:1", place.0)
}

fn place_at(address: &str) -> Option<Place> {
    address.strip_prefix("node-")?.strip_suffix(":1")?.parse().ok().map(Place)
}

impl Connect for SimConnect {
    fn connect(&self, address: &str) -> Result<AnyChannel, GrpcError> {
        let server = place_at(address).ok_or_else(|| GrpcError::Address { address: address.to_owned() })?;
        Ok(BoxCloneSyncService::new(SimChannel { connect: self.clone(), server }))
    }
}

#[derive(Clone)]
struct SimChannel {
    connect: SimConnect,
    server: Place,
}

/// What an answer begins with, and where its frames come out.
type Head = (http::response::Parts, mpsc::Receiver<Piece>);

impl Service<Request<Body>> for SimChannel {
    type Response = Response<Body>;
    type Error = ChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, ChannelError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ChannelError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (connect, server) = (self.connect.clone(), self.server);
        Box::pin(async move {
            let SimConnect { net, place, identity } = connect;
            let fail = |status: Status| ChannelError(status.into());
            let opened = Link::open(&net, place, server).await;
            let (link, service) = opened.map_err(|_| fail(Status::unavailable("tcp connect error")))?;
            let gone = CancellationToken::new();
            // Dropped with this future, or with the answer's body.
            let guard = gone.clone().drop_guard();
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(identity);
            let (frames, arriving) = mpsc::channel(FRAMES_MAX);
            tokio::spawn(pump(link.clone(), Way::There, body, frames, gone.clone()));
            let (head, answer) = oneshot::channel();
            let request = Request::from_parts(parts, PipeBody::of(arriving, None));
            tokio::spawn(serve(link, service, request, head, gone));
            let (parts, frames) = answer.await.map_err(|_| fail(broken(&net.0.random)))?;
            Ok(Response::from_parts(parts, PipeBody::of(frames, Some(guard))))
        })
    }
}

/// The server's side of one call.
async fn serve(
    link: Link,
    mut service: NodeServer,
    request: Request<Body>,
    head: oneshot::Sender<Head>,
    gone: CancellationToken,
) {
    if link.pass(Way::There).await.is_err() {
        return;
    }
    let response = match refused(&request) {
        Some(status) => status.into_http(),
        None => tokio::select! {
            biased;
            response = dispatch(&mut service, request) => response,
            () = link.server_stopped() => return,
            () = abandoned(&link, &gone) => return,
        },
    };
    let (parts, body) = response.into_parts();
    let (frames, leaving) = mpsc::channel(FRAMES_MAX);
    if link.pass(Way::Back).await.is_ok() && head.send((parts, leaving)).is_ok() {
        pump(link, Way::Back, body, frames, gone).await;
    }
}

/// As tonic's routes do.
async fn dispatch(server: &mut NodeServer, mut request: Request<Body>) -> Response<Body> {
    if let Some(layout) = server.takes_any_layout.as_ref().and_then(|node| node.layout())
        && let Some(version) = request.headers_mut().get_mut(LAYOUT_VERSION_METADATA)
    {
        *version = layout.version.0.into();
    }
    if server.hands_nothing_over && request.uri().path().ends_with("/HandOver") {
        return empty_answer().await;
    }
    let is_repair = request.uri().path().starts_with("/holdfast.storage.v1.StorageRepair/");
    let answered =
        if is_repair { server.repair.call(request).await } else { server.node.call(request).await };
    match answered {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// An answer all of whose fields are empty.
async fn empty_answer() -> Response<Body> {
    const EMPTY_MESSAGE: Bytes = Bytes::from_static(&[0; 5]);
    let (frames, leaving) = mpsc::channel(FRAMES_MAX);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    for frame in [Frame::data(EMPTY_MESSAGE), Frame::trailers(trailers)] {
        // The other end lies below and waits.
        let _sent = frames.send(Ok(frame)).await;
    }
    let mut response = Response::new(Body::new(PipeBody::of(leaving, None)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

/// The check of role against RPC that stands in front of every service.
fn refused(request: &Request<Body>) -> Option<Status> {
    let role = request.extensions().get::<PeerIdentity>()?.role;
    let rpc = request.uri().path();
    let allowed = ROLE_TABLE.roles(rpc).is_some_and(|roles| roles.contains(&role));
    (!allowed).then(|| Status::permission_denied(format!("role {role} may not call {rpc}")))
}

/// The caller has gone, and the news has arrived.
async fn abandoned(link: &Link, gone: &CancellationToken) {
    gone.cancelled().await;
    let _broken_or_not = link.pass(Way::There).await;
}
