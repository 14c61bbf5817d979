//! Starts a node and stops it: opens the core, the gRPC port and the admin port, and joins them again.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use holdfast_model::{Clock, Random, Role};
use holdfast_runtime::{
    Admin, Background, Readiness, Shutdown, Step,
    grpc::{self, TlsConnect},
};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::{
    Error, Executor, FenceRule, Node, NodeSetup, ROLE_TABLE, StorageNodeOptions, disk::LocalDisk,
    peer_client::PeerClient, repair, service,
};

/// How often lapsed sessions and the free space are looked at.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(5);
/// How long the loops may take to end.
const JOIN_GRACE: Duration = Duration::from_secs(10);

/// A running node.
pub struct NodeHandle {
    address: SocketAddr,
    admin_address: Option<SocketAddr>,
    node: Arc<Node>,
    server: JoinHandle<Result<(), grpc::GrpcError>>,
    loops: Background,
    shutdown: Shutdown,
}

impl NodeHandle {
    /// Where gRPC listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin pages are, if anywhere.
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin_address
    }

    /// The core.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Waits until the shutdown it was started with is triggered or the server fails, then finishes what is in flight,
    /// checkpoints the index and closes.
    pub async fn join(self) -> Result<(), Error> {
        let served = self.server.await.map_err(|error| Error::Grpc(error.into()));
        self.shutdown.trigger();
        self.loops.join(JOIN_GRACE).await;
        self.node.close().await?;
        served?.map_err(|error| Error::Grpc(error.into()))
    }
}

/// Starts a node; it serves when this returns.
pub async fn start(
    options: StorageNodeOptions,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    shutdown: Shutdown,
) -> Result<NodeHandle, Error> {
    options.check()?;
    // A node's own signal, so that a failed server or start also ends its loops.
    let shutdown = shutdown.child();
    let loops = Background::new(shutdown.clone(), random.clone());
    let started = assemble(options, (clock, random), loops.clone(), shutdown).await;
    if started.is_err() {
        // Also triggers the signal: the folder is free when this returns.
        loops.join(JOIN_GRACE).await;
    }
    started
}

async fn assemble(
    options: StorageNodeOptions,
    (clock, random): (Arc<dyn Clock>, Arc<dyn Random>),
    loops: Background,
    shutdown: Shutdown,
) -> Result<NodeHandle, Error> {
    let verifier = options.verifier()?;
    let connect = Arc::new(TlsConnect { tls: options.tls.clone(), server_role: Role::StorageNode });
    let peers = Arc::new(PeerClient::new(connect, clock.clone(), random.clone(), loops.clone()));
    let disk = Arc::new(LocalDisk);
    let (executor, fence_rule) = (Executor::Threads, FenceRule::Highest);
    let setup = NodeSetup { disk, executor, fence_rule, clock, random, peers };
    let opened = options.clone();
    let node = tokio::task::spawn_blocking(move || Node::open(&opened, setup))
        .await
        .map_err(|error| Error::Grpc(error.into()))??;
    let node = Arc::new(node);
    let admin_address = match &options.admin_listen {
        Some(listen) => {
            let name = format!("storage-node-{}", options.node_id);
            let bound = Admin::serve(listen, &name, readiness(node.clone()), &loops, shutdown.clone()).await;
            Some(bound.map_err(cannot_listen("admin-listen"))?)
        }
        None => None,
    };
    let routes = Routes::new(service::into_server(node.clone(), verifier, shutdown.clone()))
        .add_service(repair::into_repair_server(node.clone()));
    let served =
        grpc::serve(&options.listen, &options.tls, &options.cluster, &ROLE_TABLE, routes, shutdown.clone());
    let (address, server) = served.await.map_err(cannot_listen("listen"))?;
    let kept = node.clone();
    loops.spawn_loop("housekeeping", HOUSEKEEPING_EVERY, move || {
        let node = kept.clone();
        async move { node.housekeeping().await.map(|()| Step::Idle) }
    });
    repair::spawn_loops(&node, &loops);
    tracing::info!(node = options.node_id, site = options.site, %address, "listening");
    Ok(NodeHandle { address, admin_address, node, server, loops, shutdown })
}

/// Names the option to change where an address is taken.
fn cannot_listen(option: &'static str) -> impl FnOnce(grpc::GrpcError) -> Error {
    move |error| match error {
        grpc::GrpcError::AddressInUse { address } => Error::AddressInUse { option, address },
        other => Error::Grpc(other.into()),
    }
}

/// Runs a node until shutdown.
pub async fn run(
    options: StorageNodeOptions,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    start(options, clock, random, shutdown).await?.join().await
}

fn readiness(node: Arc<Node>) -> holdfast_runtime::ReadinessProbe {
    Arc::new(move || {
        if node.layout().is_some() {
            Readiness::Ready
        } else {
            Readiness::NotReady { reason: "no layout yet".to_owned() }
        }
    })
}
