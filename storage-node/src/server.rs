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
    Error, Executor, FenceRule, Node, NodeSetup, ROLE_TABLE, StorageNodeOptions,
    disk::{Disk, LocalDisk},
    object::{self, Objects, UploadStatus},
    peer_client::PeerClient,
    repair,
    roles::check_certificate,
    service,
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
    uploader: Option<Arc<object::Uploader>>,
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

    /// How far the upload of sealed segments is, where they have a bucket.
    pub fn uploads(&self) -> Option<UploadStatus> {
        self.uploader.as_ref().map(|uploader| uploader.status())
    }

    /// Waits until the shutdown it was started with is triggered, the server fails or the node must end, then finishes
    /// what is in flight, checkpoints the index and closes.
    pub async fn join(self) -> Result<(), Error> {
        let served = self.server.await.map_err(|error| Error::Grpc(error.into()));
        self.shutdown.trigger();
        self.loops.join(JOIN_GRACE).await;
        let closed = self.node.close().await;
        if let Some(error) = self.node.must_end() {
            return Err(error);
        }
        closed?;
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
    check_edge(&options).await?;
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
    let objects = match &options.s3 {
        Some(s3) => Some(object::open(&options, s3, clock.clone(), random.clone()).await?),
        None => None,
    };
    let disk: Arc<dyn Disk> = match &objects {
        Some(objects) => Arc::new(objects.disk.clone()),
        None => Arc::new(LocalDisk),
    };
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
    let uploader = objects.as_ref().map(|objects| objects.uploader.clone());
    let routes = Routes::new(service::into_server(node.clone(), uploader, verifier, shutdown.clone()))
        .add_service(repair::into_repair_server(node.clone()));
    let served =
        grpc::serve(&options.listen, &options.tls, &options.cluster, &ROLE_TABLE, routes, shutdown.clone());
    let (address, server) = served.await.map_err(cannot_listen("listen"))?;
    spawn_housekeeping(&node, &loops);
    repair::spawn_loops(&node, &loops);
    let uploader = objects.map(|Objects { disk, uploader }| {
        disk.serve();
        uploader.spawn(&loops);
        uploader
    });
    tracing::info!(node = options.node_id, site = options.site, %address, "listening");
    Ok(NodeHandle { address, admin_address, node, uploader, server, loops, shutdown })
}

/// Looks after the node, and ends it when its state takes no more or a disk failed: whoever supervises it starts it again.
fn spawn_housekeeping(node: &Arc<Node>, loops: &Background) {
    let (node, shutdown) = (node.clone(), loops.shutdown().clone());
    loops.spawn_loop("housekeeping", HOUSEKEEPING_EVERY, move || {
        let (node, shutdown) = (node.clone(), shutdown.clone());
        async move {
            let kept = node.housekeeping().await;
            if let Some(error) = node.must_end().filter(|_| !shutdown.is_triggered()) {
                tracing::error!(%error, "the node ends, so that it is started again");
                shutdown.trigger();
            }
            kept.map(|()| Step::Idle)
        }
    });
}

/// Before the data folder is touched: a wrong certificate or a taken address changes nothing there.
async fn check_edge(options: &StorageNodeOptions) -> Result<(), Error> {
    let refused = |error: grpc::GrpcError| Error::Grpc(error.into());
    check_certificate(options)?;
    grpc::server(&options.tls, &options.cluster, &ROLE_TABLE).map_err(refused)?;
    grpc::bind(&options.listen).await.map_err(cannot_listen("listen"))?;
    if let Some(listen) = &options.admin_listen {
        grpc::bind(listen).await.map_err(cannot_listen("admin-listen"))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use holdfast_model::SessionId;
    use holdfast_runtime::SystemRandom;

    use super::*;
    use crate::{
        pin::PinOutcome,
        testing::{Rig, caller, pin, put_pin},
    };

    fn handle(node: Arc<Node>) -> NodeHandle {
        let shutdown = Shutdown::new();
        let loops = Background::new(shutdown.clone(), Arc::new(SystemRandom));
        spawn_housekeeping(&node, &loops);
        let until = shutdown.clone();
        let server = tokio::spawn(async move {
            until.wait().await;
            Ok(())
        });
        NodeHandle {
            address: ([127, 0, 0, 1], 0).into(),
            admin_address: None,
            node,
            uploader: None,
            server,
            loops,
            shutdown,
        }
    }

    #[tokio::test]
    async fn a_node_whose_state_failed_a_sync_ends_itself_and_its_next_start_has_what_was_acknowledged() {
        let rig = Rig::new();
        let node = rig.open();
        assert_eq!(put_pin(&node, 1, 1).unwrap().0, PinOutcome::Stored);
        rig.faults.fail_state_sync.store(true, Ordering::Relaxed);
        assert!(put_pin(&node, 2, 1).is_err());
        rig.faults.fail_state_sync.store(false, Ordering::Relaxed);
        // The disk is well again, but nobody knows what it holds: the same pages are never synced once more.
        let syncs = rig.faults.state_syncs.load(Ordering::Relaxed);
        assert!(put_pin(&node, 2, 1).is_err());
        assert!(node.open_session(&caller(1), SessionId(9), None).is_err());
        assert!(node.must_end().is_some());
        let ended = tokio::time::timeout(Duration::from_secs(60), handle(node).join()).await;
        assert!(matches!(ended.unwrap(), Err(Error::StateFailed)));
        assert_eq!(rig.faults.state_syncs.load(Ordering::Relaxed), syncs, "a sync was tried again");

        let node = rig.try_open().unwrap();
        let stored = node.read_pins(&caller(9), 0).unwrap().pins;
        assert_eq!(stored[0], pin(1, 1, 5, 9_000_000_000).encode());
        assert_eq!(put_pin(&node, 2, 1).unwrap().0, PinOutcome::Stored);
        assert!(node.must_end().is_none());
    }

    #[tokio::test]
    async fn a_state_that_found_no_room_ends_the_node_only_when_there_is_room() {
        let rig = Rig::new();
        let node = rig.open();
        rig.faults.state_full.store(true, Ordering::Relaxed);
        rig.faults.used_percent.store(100, Ordering::Relaxed);
        assert!(put_pin(&node, 1, 1).is_err());
        assert!(node.must_end().is_none(), "what is there is served as long as a start could do no better");
        rig.faults.used_percent.store(50, Ordering::Relaxed);
        assert!(node.must_end().is_some());
    }
}
