//! Majorities of pin owners: commit, checkpoint, read, raise the fence; and the coordinator's calls to all nodes.

use bytes::Bytes;
use holdfast_model::{Epoch, Fence, Generation, LayoutVersion, Sequence, Workload};
use holdfast_proto::status::ErrorCode;
use holdfast_repository::StoreError;
use holdfast_storage_client::{CommitOutcome, PinsView};

use crate::cluster::{Cluster, RESOURCE, TENANT, cluster, fence, pin, ticket, token};

async fn commit(cluster: &Cluster, sequence: u64, attempt: u64) -> Result<CommitOutcome, StoreError> {
    let pin = pin(sequence, attempt).encode();
    let client = cluster.client();
    client.commit_pin(cluster.layout.clone(), token(1), TENANT, RESOURCE, &ticket(), &pin).await
}

async fn view(cluster: &Cluster) -> Result<PinsView, StoreError> {
    cluster.client().read_pins(cluster.layout.clone(), token(1), TENANT, RESOURCE, Workload::Mail, 0).await
}

async fn raise(cluster: &Cluster, attempt: u64) -> Result<holdfast_storage_client::RaiseOutcome, StoreError> {
    let layout = cluster.layout.clone();
    cluster.client().raise_fence(layout, TENANT, RESOURCE, Workload::Mail, fence(attempt)).await
}

#[tokio::test]
async fn a_majority_is_the_commit_and_committing_again_changes_nothing() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    assert_eq!(commit(&cluster, 1, 1).await, Ok(CommitOutcome::Committed { copies: 3 }));
    assert_eq!(commit(&cluster, 1, 1).await, Ok(CommitOutcome::Committed { copies: 3 }));
    cluster.links[2].cut().await;
    assert_eq!(commit(&cluster, 2, 1).await, Ok(CommitOutcome::Committed { copies: 2 }));
    let view = view(&cluster).await.unwrap();
    let shown: Vec<_> = view.pins.iter().map(|(pin, copies)| (pin.sequence.0, *copies)).collect();
    assert_eq!(shown, [(1, 2), (2, 2)]);
    assert!(view.majority_answered);
}

#[tokio::test]
async fn a_minority_is_no_commit() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.links[1].cut().await;
    cluster.links[2].cut().await;
    let error = commit(&cluster, 1, 1).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { reason } if reason.contains("1 of 3")), "{error:?}");
    cluster.links[1].mend();
    cluster.links[2].mend();
    // The two others may as well have lost what they knew: only a fence that they keep decides.
    assert!(!view(&cluster).await.unwrap().majority_answered);
    raise(&cluster, 2).await.unwrap();
    let view = view(&cluster).await.unwrap();
    assert!(view.majority_answered && view.pins.is_empty() && view.undecided.is_empty());
}

#[tokio::test]
async fn a_commit_waits_for_an_owner_that_comes_back_in_time() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    cluster.nodes[1].set(|faults| faults.refuse = Some(ErrorCode::Unavailable));
    let (outcome, ()) = tokio::join!(commit(&cluster, 1, 1), async {
        crate::cluster::eventually("one owner has it", || !cluster.nodes[0].state().pins.is_empty()).await;
        cluster.nodes[1].set(|faults| faults.refuse = None);
    });
    assert_eq!(outcome, Ok(CommitOutcome::Committed { copies: 2 }));
}

#[tokio::test]
async fn a_higher_fence_at_a_majority_ends_lower_ones_for_ever() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    commit(&cluster, 4, 1).await.unwrap();
    cluster.links[2].cut().await;
    let raised = raise(&cluster, 5).await.unwrap();
    assert_eq!(
        (raised.accepted_by, raised.highest_fence, raised.highest_sequence),
        (2, fence(5), Sequence(4))
    );
    cluster.links[2].mend();
    assert_eq!(commit(&cluster, 5, 1).await, Ok(CommitOutcome::Fenced { highest: fence(5) }));
    assert_eq!(raise(&cluster, 4).await, Err(StoreError::Fenced));
    assert_eq!(commit(&cluster, 6, 5).await, Ok(CommitOutcome::Committed { copies: 3 }));
}

#[tokio::test]
async fn a_higher_fence_at_a_minority_does_not_stop_a_commit() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.nodes[0].state().fence = fence(9);
    assert_eq!(commit(&cluster, 1, 1).await, Ok(CommitOutcome::Committed { copies: 2 }));
}

#[tokio::test]
async fn another_pin_of_the_same_sequence_is_a_conflict() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    commit(&cluster, 1, 1).await.unwrap();
    assert_eq!(commit(&cluster, 1, 2).await, Ok(CommitOutcome::Conflict));
}

#[tokio::test]
async fn pins_of_the_only_surviving_owner_are_shown_and_flagged() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    commit(&cluster, 1, 3).await.unwrap();
    cluster.links[0].cut().await;
    let view = view(&cluster).await.unwrap();
    assert!(!view.majority_answered);
    assert_eq!(view.pins, [(pin(1, 3), 1)]);
    assert_eq!(view.highest_fence, fence(3));
    cluster.links[1].cut().await;
    assert!(matches!(self::view(&cluster).await, Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn a_pin_that_a_silent_owner_could_make_a_commit_is_undecided() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.nodes[0].state().pins.insert(1, pin(1, 1).encode());
    cluster.nodes[1].state().fence = fence(2);
    cluster.links[2].cut().await;
    let view = view(&cluster).await.unwrap();
    assert!(view.majority_answered && view.pins.is_empty());
    assert_eq!(view.undecided, [(pin(1, 1), 1)]);
}

#[tokio::test]
async fn an_owner_that_lost_its_state_makes_no_committed_pin_void() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    for node in &cluster.nodes[..2] {
        for sequence in 1..=2 {
            node.state().pins.insert(sequence, pin(sequence, 1).encode());
        }
        node.state().fence = fence(1);
    }
    cluster.nodes[1].state().pins.clear();
    cluster.nodes[1].state().fence = Fence::default();
    // One owner knows the pins, one was never asked, one has an empty disk: nobody denies anything.
    let read = view(&cluster).await.unwrap();
    assert!(!read.majority_answered);
    assert_eq!(read.pins, [(pin(1, 1), 1), (pin(2, 1), 1)]);
    // The next commit reaches all three. What came before it is still not void.
    commit(&cluster, 3, 2).await.unwrap();
    let read = view(&cluster).await.unwrap();
    assert!(read.majority_answered);
    assert_eq!((read.pins, read.undecided), (vec![(pin(3, 2), 3)], vec![(pin(1, 1), 1), (pin(2, 1), 1)]));
}

#[tokio::test]
async fn calls_to_whole_layouts_run_on_any_thread() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let (client, layout) = (cluster.client(), cluster.layout.clone());
    let spawned = tokio::spawn(async move {
        let applied = client.apply_layout(&layout, Generation(2), Epoch(3)).await;
        (applied.len(), client.status(&layout).await.len())
    });
    assert_eq!(spawned.await.unwrap(), (2, 2));
}

#[tokio::test]
async fn damaged_and_foreign_pins_are_passed_over() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    commit(&cluster, 1, 1).await.unwrap();
    let mut foreign = pin(2, 1);
    foreign.resource = holdfast_model::ResourceId([1; 16]);
    for node in &cluster.nodes {
        node.state().pins.insert(2, foreign.encode());
        node.state().pins.insert(3, Bytes::from_static(b"no pin"));
    }
    assert_eq!(view(&cluster).await.unwrap().pins, [(pin(1, 1), 2)]);
}

#[tokio::test]
async fn the_newest_checkpoint_wins_and_a_fenced_one_is_refused() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    session.put_checkpoint(fence(2), 1, Bytes::from_static(b"one"), &[]).await.unwrap();
    cluster.links[0].cut().await;
    session.put_checkpoint(fence(2), 2, Bytes::from_static(b"two"), &[]).await.unwrap();
    cluster.links[0].mend();
    let shown = view(&cluster).await.unwrap().checkpoint;
    assert_eq!(shown, Some((fence(2), 2, Bytes::from_static(b"two"))));
    let too_large = session.put_checkpoint(fence(2), 3, vec![0; (16 << 20) + 1].into(), &[]).await;
    assert!(matches!(too_large, Err(StoreError::Refused { .. })));
    raise(&cluster, 3).await.unwrap();
    let refused = session.put_checkpoint(fence(2), 3, Bytes::new(), &[]).await;
    assert_eq!(refused, Err(StoreError::Fenced));
}

#[tokio::test]
async fn a_layout_is_applied_to_every_node_that_answers() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.links[1].cut().await;
    cluster.nodes[2].state().layout_version = 99;
    let applied = cluster.client().apply_layout(&cluster.layout, Generation(2), Epoch(3)).await;
    let ids: Vec<_> = applied.iter().map(|(node, _)| node.0).collect();
    assert_eq!(ids, [1, 2, 3]);
    let first = applied[0].1.as_ref().unwrap();
    assert_eq!(
        (first.generation, first.epoch, first.layout_version),
        (Generation(2), Epoch(3), LayoutVersion(5))
    );
    assert!(matches!(applied[1].1, Err(StoreError::Unavailable { .. })));
    assert_eq!(applied[2].1, Err(StoreError::Fenced));
}

#[tokio::test]
async fn status_and_hello_say_who_answers() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    cluster.links[1].cut().await;
    let client = cluster.client();
    let status = client.status(&cluster.layout).await;
    assert_eq!(status[0].1.as_ref().unwrap().node.0, 1);
    assert!(matches!(status[1].1, Err(StoreError::Unavailable { .. })));
    let hello = client.hello(&cluster.links[0].address).await.unwrap();
    assert_eq!((hello.node.0, hello.site.0.as_str(), hello.protocol), (1, "a", 1));
    let error = client.hello(&cluster.links[1].address).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable { reason } if reason.contains("no storage node answers"))
    );
}
