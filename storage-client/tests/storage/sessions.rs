//! Opening, keeping, losing and closing sessions.

use holdfast_model::{Epoch, PartitionId};
use holdfast_proto::status::ErrorCode;
use holdfast_repository::{ChunkStore, StoreError};
use holdfast_storage_client::StorageClientOptions;

use crate::cluster::{RESOURCE, TENANT, cluster, eventually, params, pin, records, ticket, token};

#[tokio::test]
async fn a_session_opens_at_a_majority_and_takes_the_lowest_epoch() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    assert_eq!(session.epoch(), Epoch(7));
    assert!(cluster.nodes.iter().all(|node| node.state().sessions.contains(&42)));
    session.close().await;
    cluster.links[0].cut().await;
    let session = cluster.session().await;
    assert_eq!(session.epoch(), Epoch(8));
}

#[tokio::test]
async fn a_session_does_not_open_at_a_minority() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.links[0].cut().await;
    cluster.links[1].cut().await;
    let opened = cluster.client().open_session(cluster.layout.clone(), token(1), params()).await;
    let error = opened.err().unwrap();
    assert!(matches!(&error, StoreError::Unavailable { reason } if reason.contains("node-1")), "{error:?}");
}

#[tokio::test]
async fn a_session_is_renewed_and_opened_where_an_owner_comes_back() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    cluster.links[2].cut().await;
    let session = cluster.session().await;
    assert!(!cluster.nodes[2].state().sessions.contains(&42));
    cluster.links[2].mend();
    eventually("the third owner has it too", || cluster.nodes[2].state().renewed > 1).await;
    assert!(cluster.nodes[0].state().renewed > 1);
    session.put(records(0..1, 10)).await.unwrap();
}

#[tokio::test]
async fn a_session_that_a_majority_forgot_is_lost_for_good() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    cluster.nodes[..2].iter().for_each(|node| node.set(|faults| faults.forgets_sessions = true));
    let mut lost = false;
    for n in 0..500 {
        if session.put(records(n..n + 1, 10)).await == Err(StoreError::SessionLost) {
            lost = true;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(lost);
    cluster.nodes[..2].iter().for_each(|node| node.set(|faults| faults.forgets_sessions = false));
    assert_eq!(session.have(&[]).await, Err(StoreError::SessionLost));
    assert_eq!(session.commit_pin(&ticket(), &pin(1, 1).encode()).await, Err(StoreError::SessionLost));
}

#[tokio::test]
async fn an_expired_token_does_not_lose_the_session_when_a_new_one_comes_within_the_lease() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session().await;
    cluster.nodes.iter().for_each(|node| node.set(|faults| faults.only_token = Some(vec![2].into())));
    let refused =
        || cluster.nodes.iter().all(|node| node.refused.load(std::sync::atomic::Ordering::SeqCst) > 0);
    eventually("a renewal was refused", refused).await;
    session.set_token(token(2));
    let renewed = cluster.nodes[0].state().renewed;
    eventually("it is renewed again", || cluster.nodes[0].state().renewed > renewed + 2).await;
    session.put(records(0..1, 10)).await.unwrap();
}

#[tokio::test]
async fn a_minority_that_forgets_a_session_gets_it_again() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    cluster.nodes[0].state().sessions.clear();
    eventually("it is open there again", || cluster.nodes[0].state().sessions.contains(&42)).await;
    session.put(records(0..1, 10)).await.unwrap();
}

#[tokio::test]
async fn closing_tells_the_owners_and_ends_what_is_under_way() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session().await;
    cluster.nodes.iter().for_each(|node| node.open_gate(false));
    let putting = tokio::spawn({
        let session = session.clone();
        async move { session.put(records(0..10, 10)).await }
    });
    eventually("a frame is under way", || session.in_flight_bytes() > 0).await;
    session.close().await;
    assert_eq!(putting.await.unwrap(), Err(StoreError::SessionLost));
    assert!(cluster.nodes.iter().all(|node| node.state().closed == 1));
    assert_eq!(session.put(records(0..1, 10)).await, Err(StoreError::SessionLost));
    session.close().await;
    assert_eq!(session.in_flight_bytes(), 0);
}

#[tokio::test]
async fn dropping_the_last_clone_ends_the_renewals() {
    let cluster = cluster(&["a"], 1, 1).await;
    let session = cluster.session().await;
    let clone = session.clone();
    drop(session);
    eventually("it is renewed while a clone lives", || cluster.nodes[0].state().renewed > 0).await;
    drop(clone);
    let renewed = cluster.nodes[0].state().renewed;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(cluster.nodes[0].state().renewed <= renewed + 1, "at most one was under way");
}

#[tokio::test]
async fn a_refused_opening_is_not_waited_for() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    cluster.nodes[0].set(|faults| faults.refuse = Some(ErrorCode::Forbidden));
    let opened = cluster.client().open_session(cluster.layout.clone(), token(1), params()).await;
    assert!(matches!(opened.err(), Some(StoreError::Refused { .. })));
    let partition = PartitionId::of_pins(TENANT, RESOURCE);
    assert_eq!(cluster.layout.pin_majority_of(partition), 2);
}

#[test]
fn options_are_read_in_kebab_case_and_unknown_ones_are_refused() {
    let read = |text| serde_json::from_str::<StorageClientOptions>(text);
    let options = read(r#"{"in-flight-bytes": "8MiB", "retry-for": "2m"}"#).unwrap();
    assert_eq!(options.in_flight_bytes.0, 8 << 20);
    assert_eq!(options.retry_for.0.as_secs(), 120);
    assert_eq!(options.have_batch, 4096);
    assert!(read(r#"{"in-flight-byte": 1}"#).is_err());
}
