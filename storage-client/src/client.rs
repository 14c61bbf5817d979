//! The entry: opens sessions and readers, and makes the coordinator's calls to whole layouts.
//!
//! Cloning is cheap; all clones share the channels and what is known about the nodes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast_model::{
    Clock, Epoch, Fence, Generation, Layout, LayoutNode, LayoutVersion, NodeId, Random, ResourceId, Role,
    SiteName, TenantId, Workload,
};
use holdfast_proto::{PROTOCOL_MAX, PROTOCOL_MIN, storage};
use holdfast_repository::StoreError;
use holdfast_runtime::{
    TlsOptions,
    grpc::{Connect, TlsConnect},
};

use crate::{
    CommitOutcome, NodeStatus, PinsView, RaiseOutcome, ReadStore, SessionParams, StorageClientOptions,
    StorageSession,
    error::CallError,
    nodes::{Context, TokenCell},
    pins::{self, PinSpace},
};

/// Nodes asked at once when all nodes of a layout are.
const NODES_AT_ONCE: usize = 64;

/// Talks to storage nodes.
#[derive(Clone)]
pub struct StorageClient {
    context: Arc<Context>,
}

/// What a node says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeHello {
    /// The protocol version both speak.
    pub protocol: u32,
    /// What its format can do.
    pub format_features: Vec<String>,
    /// Who it is.
    pub node: NodeId,
    /// Where it is.
    pub site: SiteName,
    /// The highest generation it has seen.
    pub generation: Generation,
    /// The highest epoch it has seen.
    pub epoch: Epoch,
    /// The highest layout version it has seen.
    pub layout_version: LayoutVersion,
}

/// What a node keeps after a layout was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppliedLayout {
    /// The generation it now holds.
    pub generation: Generation,
    /// The epoch it now holds.
    pub epoch: Epoch,
    /// The layout version it now holds.
    pub layout_version: LayoutVersion,
}

impl StorageClient {
    /// Makes a client. Channels are connected when first used.
    pub fn new(
        options: StorageClientOptions,
        tls: TlsOptions,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let connect = Arc::new(TlsConnect { tls, server_role: Role::StorageNode });
        Self::with_connect(options, connect, clock, random)
    }

    /// Makes a client that reaches the nodes in another way than over TLS.
    pub fn with_connect(
        options: StorageClientOptions,
        connect: Arc<dyn Connect>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self { context: Arc::new(Context::new(options, connect, clock, random)) }
    }

    /// Opens a session at a majority of the resource's pin owners and keeps it until it is closed or dropped.
    pub async fn open_session(
        &self,
        layout: Arc<Layout>,
        token: storage::SessionToken,
        params: SessionParams,
    ) -> Result<StorageSession, StoreError> {
        StorageSession::open(self.context.clone(), layout, token, params).await
    }

    /// Reads a tenant's records, outside any session.
    pub fn reader(&self, layout: Arc<Layout>, token: storage::SessionToken, tenant: TenantId) -> ReadStore {
        ReadStore::new(self.context.clone(), layout, token, tenant)
    }

    /// Reads the pins of a resource from all owners that answer; `newest` of them, 0 for all.
    #[expect(clippy::too_many_arguments, reason = "each names another thing, and none has a default")]
    pub async fn read_pins(
        &self,
        layout: Arc<Layout>,
        token: storage::SessionToken,
        tenant: TenantId,
        resource: ResourceId,
        workload: Workload,
        newest: u32,
    ) -> Result<PinsView, StoreError> {
        let space = PinSpace::new(&layout, tenant, resource);
        pins::read_pins(&self.context, &space, &TokenCell::new(token, &layout), workload, newest).await
    }

    /// Commits a pin at a majority of its owners; idempotent.
    ///
    /// An error means that the outcome is not known: the same ticket may be sent again.
    #[expect(clippy::too_many_arguments, reason = "each names another thing, and none has a default")]
    pub async fn commit_pin(
        &self,
        layout: Arc<Layout>,
        token: storage::SessionToken,
        tenant: TenantId,
        resource: ResourceId,
        ticket: &storage::CommitTicket,
        pin: &Bytes,
    ) -> Result<CommitOutcome, StoreError> {
        let space = PinSpace::new(&layout, tenant, resource);
        pins::commit_pin(&self.context, &space, &TokenCell::new(token, &layout), ticket, pin).await
    }

    /// Stores a higher fence at a majority of pin owners, so that lower ones commit nothing more.
    pub async fn raise_fence(
        &self,
        layout: Arc<Layout>,
        tenant: TenantId,
        resource: ResourceId,
        workload: Workload,
        fence: Fence,
    ) -> Result<RaiseOutcome, StoreError> {
        let space = PinSpace::new(&layout, tenant, resource);
        pins::raise_fence(&self.context, &space, workload, fence).await
    }

    /// Installs a layout, generation and epoch on every node of the layout, also those that are to leave, each tried once.
    pub async fn apply_layout(
        &self,
        layout: &Layout,
        generation: Generation,
        epoch: Epoch,
    ) -> Vec<(NodeId, Result<AppliedLayout, StoreError>)> {
        let request = storage::ApplyLayoutRequest {
            generation: generation.0,
            epoch: epoch.0,
            layout: Some(layout.into()),
        };
        let limit = self.context.options.request_timeout.0;
        let answers = self.ask_all(layout, |context, node| {
            let request = request.clone();
            async move {
                let ask = |mut rpc: crate::nodes::Rpc| async move { rpc.apply_layout(request).await };
                context.call(&node, limit, ask).await
            }
        });
        let read = |answer: storage::ApplyLayoutResponse| AppliedLayout {
            generation: Generation(answer.generation),
            epoch: Epoch(answer.epoch),
            layout_version: LayoutVersion(answer.layout_version),
        };
        answers.await.into_iter().map(|(node, answer)| (node.id, answer.map(read))).collect()
    }

    /// Asks every node of a layout for its status, each bounded by the status timeout.
    pub async fn status(&self, layout: &Layout) -> Vec<(LayoutNode, Result<NodeStatus, StoreError>)> {
        let limit = self.context.options.status_timeout.0;
        let answers = self.ask_all(layout, |context, node| async move {
            let ask = |mut rpc: crate::nodes::Rpc| async move { rpc.status(storage::StatusRequest {}).await };
            context.call(&node, limit, ask).await
        });
        answers.await.into_iter().map(|(node, answer)| (node, answer.map(NodeStatus::from))).collect()
    }

    /// Exchanges versions with the node at an address.
    pub async fn hello(&self, address: &str) -> Result<NodeHello, StoreError> {
        let node = LayoutNode::new(NodeId(0), SiteName(String::new()), address.to_owned(), 0);
        let request = storage::HelloRequest {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            format_features: Vec::new(),
        };
        let limit = self.context.options.status_timeout.0;
        let say = |mut rpc: crate::nodes::Rpc| async move { rpc.hello(request).await };
        let answer = self.context.call(&node, limit, say).await.map_err(|error| match error.into() {
            StoreError::Unavailable { .. } => {
                StoreError::Unavailable { reason: format!("no storage node answers at {address}") }
            }
            other => other,
        })?;
        if !(PROTOCOL_MIN..=PROTOCOL_MAX).contains(&answer.protocol) {
            let reason = format!(
                "the storage node at {address} speaks protocol {}, this build speaks {PROTOCOL_MIN} to {PROTOCOL_MAX}",
                answer.protocol
            );
            return Err(StoreError::Refused { reason });
        }
        Ok(NodeHello {
            protocol: answer.protocol,
            format_features: answer.format_features,
            node: NodeId(answer.node_id),
            site: SiteName(answer.site),
            generation: Generation(answer.generation),
            epoch: Epoch(answer.epoch),
            layout_version: LayoutVersion(answer.layout_version),
        })
    }

    /// Asks all nodes of a layout in parallel; answers come in the layout's order.
    ///
    /// Each call owns what it needs: with borrowed nodes the compiler cannot tell that the future may change threads.
    async fn ask_all<T, F>(
        &self,
        layout: &Layout,
        ask: impl Fn(Arc<Context>, LayoutNode) -> F,
    ) -> Vec<(LayoutNode, Result<T, StoreError>)>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let mut calls = Vec::with_capacity(layout.nodes.len());
        for node in layout.nodes.clone() {
            let call = ask(self.context.clone(), node.clone());
            calls.push(async move { (node.id, (node, call.await.map_err(StoreError::from))) });
        }
        let answers: BTreeMap<_, _> = stream::iter(calls).buffer_unordered(NODES_AT_ONCE).collect().await;
        answers.into_values().collect()
    }
}
