//! Layouts that move, or that moved without the caller; and witnesses.

use std::sync::Arc;

use holdfast_model::{
    Epoch, Generation, Layout, LayoutChange, LayoutVersion, NodeDuty, NodeId, PartitionId, Replication,
    Workload,
};
use holdfast_proto::status::ErrorCode;
use holdfast_repository::{ChunkStore, StoreError};
use holdfast_runtime::HumanDuration;
use holdfast_storage_client::CommitOutcome;

use crate::cluster::{
    Cluster, RESOURCE, TENANT, cluster, eventually, fence, ids, params, pin, record, records, ticket, token,
};

/// The cluster's layout, on its way to one without node 3.
fn without_node_3(cluster: &Cluster) -> Arc<Layout> {
    let nodes = cluster.layout.nodes.iter().filter(|node| node.id != NodeId(3)).cloned().collect();
    let change = LayoutChange { nodes, replication: cluster.layout.replication, lost: [].into() };
    Arc::new(cluster.layout.changed(LayoutVersion(6), change).unwrap())
}

/// From now on the nodes work by layout 6, in which owners changed.
fn moved(cluster: &Cluster) {
    cluster.nodes.iter().for_each(|node| node.set(|faults| faults.moved_in = 6));
}

#[tokio::test]
async fn a_read_falls_to_those_the_partition_is_moving_away_from() {
    let cluster = cluster(&["a", "b", "c"], 2, 2).await;
    let moving = without_node_3(&cluster);
    let leaves = |n: &u64| cluster.owners(record(*n, 1).header.id).contains(&NodeId(3));
    let sent: Vec<_> = (0..200).filter(leaves).take(20).map(|n| record(n, 500)).collect();
    cluster.session().await.put(sent.clone()).await.unwrap();
    // Only the node that leaves has a good copy: one owner lost it, the other never had it.
    cluster.nodes[..2].iter().for_each(|node| node.state().records.clear());
    let reader = cluster.client().reader(moving.clone(), token(1), TENANT);
    assert_eq!(reader.get(&ids(&sent)).await.unwrap(), sent);
    assert_eq!(reader.get_copies(sent[0].header.id).await.unwrap(), [sent[0].clone()]);

    cluster.nodes[2].set(|faults| faults.refuse = Some(ErrorCode::Unavailable));
    let silent = reader.get(&ids(&sent)).await.unwrap_err();
    assert!(matches!(silent, StoreError::Unavailable { .. }), "it may have them: {silent:?}");
    cluster.nodes[2].set(|faults| (faults.refuse, faults.absent) = (None, true));
    assert!(matches!(reader.get(&ids(&sent)).await, Err(StoreError::Missing { .. })));
}

#[tokio::test]
async fn writes_go_to_the_new_owners_only() {
    let cluster = cluster(&["a", "b", "c"], 2, 2).await;
    let moving = without_node_3(&cluster);
    let session = cluster.client().open_session(moving, token(1), params()).await.unwrap();
    let sent = records(0..50, 300);
    assert_eq!(session.have(&ids(&sent)).await, Ok(vec![false; 50]));
    let put = session.put(sent.clone()).await;
    // The fake forwards by the layout before: what counts is who was sent something first.
    assert!(cluster.nodes[2].state().put_order.is_empty(), "{put:?}");
}

#[tokio::test]
async fn every_request_says_by_which_layout_it_is_made() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session().await;
    let sent = records(0..3, 300);
    session.have(&ids(&sent)).await.unwrap();
    session.put(sent).await.unwrap();
    session.put_checkpoint(fence(1), 1, vec![1].into(), &[]).await.unwrap();
    session.commit_pin(&ticket(), &pin(1, 1).encode()).await.unwrap();
    let (client, layout) = (cluster.client(), cluster.layout.clone());
    client.read_pins(layout.clone(), token(1), TENANT, RESOURCE, Workload::Mail, 0).await.unwrap();
    client.raise_fence(layout, TENANT, RESOURCE, Workload::Mail, fence(2)).await.unwrap();
    eventually("a renewal went out", || cluster.nodes.iter().all(|node| node.state().renewed > 0)).await;
    for node in &cluster.nodes {
        assert_eq!(*node.versions.lock().unwrap(), [5].into());
    }
}

#[tokio::test]
async fn work_by_a_layout_that_is_over_is_reported_as_such_and_stores_nothing() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    // Waiting does not help: whoever waited for so long would not be here again.
    let session = cluster.session_with(|options| options.retry_for = HumanDuration::seconds(3_600)).await;
    moved(&cluster);
    assert_eq!(session.have(&ids(&records(0..3, 300))).await, Err(StoreError::LayoutChanged));
    assert_eq!(session.put(records(0..3, 300)).await, Err(StoreError::LayoutChanged));
    let error = session.put_checkpoint(fence(1), 1, vec![1].into(), &[]).await.unwrap_err();
    // By now the session may have ended for want of renewals: that too is no answer of an owner.
    assert!(matches!(error, StoreError::LayoutChanged | StoreError::SessionLost), "{error:?}");
    for node in &cluster.nodes {
        let state = node.state();
        assert!(state.records.is_empty() && state.checkpoint.is_none());
    }
}

#[tokio::test]
async fn an_owner_that_waits_for_the_pool_is_not_taken_for_one_that_is_away() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    // Once a node is marked down, it stays so for longer than the test.
    let session = cluster.session_with(|options| options.down_for = HumanDuration::seconds(3_600)).await;
    let first_owner = |n: &u64| cluster.owners(record(*n, 1).header.id)[0] == NodeId(1);
    let sent: Vec<_> = (0..200).filter(first_owner).take(20).map(|n| record(n, 300)).collect();
    cluster.nodes[0].set(|faults| faults.is_behind = true);
    assert_eq!(session.have(&ids(&sent)).await, Ok(vec![false; 20]));
    cluster.nodes[0].set(|faults| faults.is_behind = false);
    session.put(sent.clone()).await.unwrap();
    let placed = cluster.nodes[0].state().put_order.clone();
    assert!(sent.iter().all(|record| placed.contains(&record.header.id)), "its first owner was passed over");
}

#[tokio::test]
async fn an_owner_that_works_by_a_newer_layout_counts_neither_for_nor_against_a_commit() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let (client, layout) = (cluster.client(), cluster.layout.clone());
    let (bytes, ticket) = (pin(1, 1).encode(), ticket());
    let commit = || client.commit_pin(layout.clone(), token(1), TENANT, RESOURCE, &ticket, &bytes);
    let raise =
        |attempt| client.raise_fence(layout.clone(), TENANT, RESOURCE, Workload::Mail, fence(attempt));
    cluster.nodes[..2].iter().for_each(|node| node.set(|faults| faults.moved_in = 6));
    assert_eq!(commit().await.unwrap_err(), StoreError::LayoutChanged);
    assert!(cluster.nodes[..2].iter().all(|node| node.state().pins.is_empty()));
    assert_eq!(raise(2).await.unwrap_err(), StoreError::LayoutChanged);
    let view = client.read_pins(layout.clone(), token(1), TENANT, RESOURCE, Workload::Mail, 0);
    assert!(!view.await.unwrap().majority_answered);

    // One is enough to be without: the two others are a majority.
    cluster.nodes[1].set(|faults| faults.moved_in = 0);
    assert_eq!(raise(3).await.unwrap().accepted_by, 2);
}

#[tokio::test]
async fn an_owner_that_has_not_taken_over_yet_has_not_answered() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let (client, layout) = (cluster.client(), cluster.layout.clone());
    cluster.nodes[0].state().pins.insert(1, pin(1, 1).encode());
    cluster.nodes[0].state().fence = fence(2);
    cluster.nodes[1].set(|faults| faults.not_ready = true);
    let read = || client.read_pins(layout.clone(), token(1), TENANT, RESOURCE, Workload::Mail, 0);
    let view = read().await.unwrap();
    assert!(!view.majority_answered && view.undecided.is_empty(), "nothing is decided without it");
    let opened = client.open_session(layout.clone(), token(1), params()).await;
    let Err(StoreError::Unavailable { reason }) = opened.map(|_| ()) else { panic!("a minority opened it") };
    assert!(reason.contains("not taken over yet"), "{reason}");

    // It takes over while it is asked: the call waits for it.
    let (raised, ()) =
        tokio::join!(client.raise_fence(layout.clone(), TENANT, RESOURCE, Workload::Mail, fence(3)), async {
            eventually("one owner has the fence", || cluster.nodes[0].state().fence == fence(3)).await;
            cluster.nodes[1].set(|faults| faults.not_ready = false);
        });
    assert_eq!(raised.unwrap().accepted_by, 2);
    assert!(read().await.unwrap().pins.is_empty(), "now it is known that no majority has the pin");
}

#[tokio::test]
async fn a_witness_counts_in_the_majority_and_gets_no_data() {
    let cluster = cluster(&["a", "b", "w"], 2, 2).await;
    let mut nodes = cluster.layout.nodes.clone();
    nodes[2].duty = NodeDuty::Witness;
    let replication = Replication { copies: 2, ack_sites: 2 };
    let layout = Arc::new(Layout::compute(LayoutVersion(6), "p".into(), replication, nodes).unwrap());
    let partition = PartitionId::of_pins(TENANT, RESOURCE);
    assert_eq!((layout.pin_owners_of(partition).count(), layout.pin_majority_of(partition)), (3, 2));
    let client = cluster.client();
    cluster.links[0].cut().await;
    let bytes = pin(1, 1).encode();
    let committed = client.commit_pin(layout.clone(), token(1), TENANT, RESOURCE, &ticket(), &bytes).await;
    assert_eq!(committed, Ok(CommitOutcome::Committed { copies: 2 }));
    assert!(cluster.nodes[2].state().pins.contains_key(&1));

    // With two sites data is durable only in both, whatever the witness says.
    let session = client.open_session(layout.clone(), token(1), params()).await.unwrap();
    let put = session.put(records(0..5, 300)).await;
    assert!(matches!(put, Err(StoreError::Unavailable { .. })), "{put:?}");
    assert!(cluster.nodes[2].state().put_order.is_empty());
    session.close().await;
}

#[tokio::test]
async fn a_layout_goes_to_every_node_also_to_those_that_leave() {
    let cluster = cluster(&["a", "b", "c"], 2, 2).await;
    let moving = without_node_3(&cluster);
    let applied = cluster.client().apply_layout(&moving, Generation(1), Epoch(5)).await;
    let asked: Vec<u64> = applied.iter().map(|(node, _)| node.0).collect();
    assert_eq!(asked, [1, 2, 3]);
    assert!(cluster.nodes.iter().all(|node| node.state().layout_version == 6));
    assert_eq!(cluster.client().status(&moving).await.len(), 3);
}
