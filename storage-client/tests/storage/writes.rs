//! Have and put.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use holdfast_model::NodeId;
use holdfast_proto::status::ErrorCode;
use holdfast_repository::{ChunkStore, StoreError};
use holdfast_runtime::{ByteSize, HumanDuration};

use crate::cluster::{cluster, eventually, ids, records, token};

#[tokio::test]
async fn every_record_goes_to_its_first_owner_and_is_kept_by_all_its_owners() {
    let cluster = cluster(&["a", "a", "b", "b"], 2, 2).await;
    let session = cluster.session().await;
    let sent = records(0..200, 700);
    session.put(sent.clone()).await.unwrap();
    for record in &sent {
        let owners = cluster.owners(record.header.id);
        for node in &cluster.nodes {
            assert_eq!(node.state().records.contains_key(&record.header.id), owners.contains(&node.id));
            let first = node.id == owners[0];
            assert_eq!(node.state().put_order.contains(&record.header.id), first);
        }
    }
}

#[tokio::test]
async fn puts_share_one_stream_per_node_and_keep_their_order() {
    let cluster = cluster(&["a"], 1, 1).await;
    let session = cluster.session().await;
    let sent = records(0..300, 1000);
    for part in sent.chunks(100) {
        session.put(part.to_vec()).await.unwrap();
    }
    assert_eq!(cluster.nodes[0].state().put_order, ids(&sent));
    assert_eq!(cluster.nodes[0].put_streams.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn frames_are_pipelined_but_never_beyond_the_byte_budget() {
    let cluster = cluster(&["a"], 1, 1).await;
    let budget = 128 << 10;
    let session = cluster.session_with(|o| o.in_flight_bytes = ByteSize(budget)).await;
    let node = &cluster.nodes[0];
    node.open_gate(false);
    let sent = records(0..100, 8000);
    let putting = tokio::spawn({
        let (session, sent) = (session.clone(), sent.clone());
        async move { session.put(sent).await }
    });
    eventually("the budget is used", || session.in_flight_bytes() > budget - (16 << 10)).await;
    eventually("the frames arrive", || node.outstanding.load(Ordering::SeqCst) >= 7).await;
    assert!(session.in_flight_bytes() <= budget);
    node.open_gate(true);
    putting.await.unwrap().unwrap();
    assert!(node.outstanding_bytes_max.load(Ordering::SeqCst) as u64 <= budget);
    assert!(node.outstanding_max.load(Ordering::SeqCst) > 1);
    assert_eq!(node.state().records.len(), 100);
    assert_eq!(session.in_flight_bytes(), 0);
}

#[tokio::test]
async fn a_record_larger_than_frame_and_budget_travels_alone() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session_with(|o| o.in_flight_bytes = ByteSize::kib(64)).await;
    let sent = records(0..2, 5 << 20);
    session.put(sent.clone()).await.unwrap();
    assert_eq!(session.get(&ids(&sent)).await.unwrap(), sent);
}

#[tokio::test]
async fn a_broken_stream_is_opened_again_and_unanswered_frames_are_sent_again() {
    let cluster = cluster(&["a"], 1, 1).await;
    // Too short for a second attempt: the stream itself must mend.
    let session = cluster.session_with(|o| o.retry_for = HumanDuration::millis(1)).await;
    let node = &cluster.nodes[0];
    node.set(|faults| faults.cut_put_after = Some(2));
    session.put(records(0..100, 4000)).await.unwrap();
    assert_eq!(node.state().records.len(), 100);
    assert_eq!(node.put_streams.load(Ordering::SeqCst), 2);
    assert!(node.state().put_order.len() > 100, "the frame that was stored but not answered came twice");
}

#[tokio::test]
async fn a_silent_first_owner_is_replaced_by_the_next() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster
        .session_with(|o| {
            o.request_timeout = HumanDuration::millis(300);
            o.retry_for = HumanDuration::seconds(20);
        })
        .await;
    cluster.nodes[0].open_gate(false);
    session.put(records(0..60, 100)).await.unwrap();
    assert!(cluster.nodes[0].outstanding.load(Ordering::SeqCst) > 0);
    assert!(cluster.nodes[0].state().put_order.is_empty());
    assert!(cluster.nodes[1..].iter().all(|node| node.state().records.len() == 60));
    eventually("the budget is given back", || session.in_flight_bytes() == 0).await;
}

#[tokio::test]
async fn many_puts_at_once_over_breaking_streams_are_all_durable() {
    let cluster = cluster(&["a", "a", "b", "b", "c"], 3, 2).await;
    let session = cluster.session_with(|o| o.retry_for = HumanDuration::seconds(30)).await;
    let puts = (0..20).map(|n| {
        let session = session.clone();
        tokio::spawn(async move { session.put(records(n * 20..n * 20 + 20, 3000)).await })
    });
    let puts: Vec<_> = puts.collect();
    for round in 0..10 {
        cluster.nodes[round % 5].set(|faults| faults.cut_put_after = Some(1));
        cluster.links[(round + 2) % 5].cut().await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        cluster.links[(round + 2) % 5].mend();
    }
    for put in puts {
        put.await.unwrap().unwrap();
    }
    let sent = records(0..400, 3000);
    for record in &sent {
        let holds = |node: &holdfast_model::NodeId| {
            cluster.node(*node).state().records.contains_key(&record.header.id)
        };
        assert!(cluster.owners(record.header.id).iter().filter(|node| holds(node)).count() >= 2);
    }
    assert_eq!(session.get(&ids(&sent)).await.unwrap(), sent);
    assert_eq!(session.have(&ids(&sent)).await.unwrap(), vec![true; 400]);
}

#[tokio::test]
async fn a_cut_connection_loses_nothing() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session_with(|o| o.retry_for = HumanDuration::seconds(20)).await;
    cluster.nodes.iter().for_each(|node| node.open_gate(false));
    let putting = tokio::spawn({
        let session = session.clone();
        async move { session.put(records(0..100, 4000)).await }
    });
    let arrived = || cluster.nodes.iter().all(|node| node.outstanding.load(Ordering::SeqCst) > 1);
    eventually("frames are under way to both", arrived).await;
    for link in &cluster.links {
        link.cut().await;
    }
    cluster.nodes.iter().for_each(|node| node.open_gate(true));
    cluster.links.iter().for_each(|link| link.mend());
    putting.await.unwrap().unwrap();
    assert!(cluster.nodes.iter().all(|node| node.state().records.len() == 100));
}

#[tokio::test]
async fn a_record_in_one_site_is_not_durable_and_the_error_names_the_other() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session().await;
    cluster.nodes[1].set(|faults| faults.fails_puts = true);
    let error = session.put(records(0..5, 100)).await.unwrap_err();
    let StoreError::Unavailable { reason } = error else { panic!("{error:?}") };
    assert!(reason.contains("not stored in site b: node-2 (the replica did not"), "{reason}");
    assert!(!reason.contains("site a"), "{reason}");
}

#[tokio::test]
async fn a_put_waits_for_a_site_that_comes_back_in_time() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session_with(|o| o.retry_for = HumanDuration::seconds(20)).await;
    cluster.nodes[1].set(|faults| faults.refuse = Some(ErrorCode::Unavailable));
    let putting = tokio::spawn({
        let session = session.clone();
        async move { session.put(records(0..50, 100)).await }
    });
    eventually("site a has them", || cluster.nodes[0].state().records.len() == 50).await;
    assert!(!putting.is_finished());
    cluster.nodes[1].set(|faults| faults.refuse = None);
    putting.await.unwrap().unwrap();
    assert_eq!(cluster.nodes[1].state().records.len(), 50);
}

#[tokio::test]
async fn a_dead_first_owner_is_replaced_by_the_next() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    cluster.nodes[0].set(|faults| faults.fails_puts = true);
    cluster.links[0].cut().await;
    session.put(records(0..60, 100)).await.unwrap();
    assert_eq!(cluster.nodes[0].state().records.len(), 0);
    assert!(cluster.nodes[1..].iter().all(|node| node.state().records.len() == 60));
}

#[tokio::test]
async fn sites_that_do_not_see_each_other_are_both_served_by_the_client() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session_with(|o| o.retry_for = HumanDuration::seconds(20)).await;
    cluster.nodes.iter().for_each(|node| node.set(|faults| faults.isolated = true));
    session.put(records(0..20, 100)).await.unwrap();
    assert!(cluster.nodes.iter().all(|node| node.state().records.len() == 20));
}

#[tokio::test]
async fn refusals_say_what_they_are() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    for (code, expected) in [
        (ErrorCode::Fenced, StoreError::Fenced),
        (ErrorCode::SessionLost, StoreError::SessionLost),
        (ErrorCode::Exhausted, StoreError::Full),
    ] {
        let session = cluster.session().await;
        cluster.nodes.iter().for_each(|node| node.set(|faults| faults.refuse_puts = Some(code)));
        assert_eq!(session.put(records(0..4, 100)).await, Err(expected));
        cluster.nodes.iter().for_each(|node| node.set(|faults| faults.refuse_puts = None));
    }
    let session = cluster.session().await;
    cluster.nodes.iter().for_each(|node| node.set(|faults| faults.refuse_puts = Some(ErrorCode::Forbidden)));
    let error = session.put(records(0..4, 100)).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused { reason } if reason.contains("switched off")), "{error:?}");
}

#[tokio::test]
async fn a_new_token_reopens_a_stream_whose_token_expired() {
    let cluster = cluster(&["a"], 1, 1).await;
    let session = cluster.session().await;
    cluster.nodes[0].set(|faults| faults.only_token = Some(vec![2].into()));
    assert_eq!(session.put(records(0..1, 100)).await, Err(StoreError::SessionLost));
    session.set_token(token(2));
    session.put(records(0..1, 100)).await.unwrap();
}

#[tokio::test]
async fn have_says_yes_only_when_enough_sites_do() {
    let cluster = cluster(&["a", "b"], 2, 2).await;
    let session = cluster.session_with(|o| o.have_batch = 7).await;
    let known = records(0..40, 100);
    session.put(known.clone()).await.unwrap();
    let asked = records(0..80, 100);
    let expected: Vec<bool> = (0..80).map(|n| n < 40).collect();
    assert_eq!(session.have(&ids(&asked)).await.unwrap(), expected);

    cluster.nodes[1].state().records.remove(&known[3].header.id);
    let now = session.have(&ids(&asked)).await.unwrap();
    assert!(!now[3] && now[2] && now[4]);

    cluster.nodes[1].set(|faults| faults.refuse = Some(ErrorCode::Unavailable));
    assert_eq!(session.have(&ids(&known)).await.unwrap(), vec![false; 40]);
}

#[tokio::test]
async fn have_does_not_need_the_first_owner() {
    let cluster = cluster(&["a", "b", "c"], 3, 2).await;
    let session = cluster.session().await;
    let known = records(0..40, 100);
    session.put(known.clone()).await.unwrap();
    cluster.links[0].cut().await;
    assert_eq!(session.have(&ids(&known)).await.unwrap(), vec![true; 40]);
}

#[tokio::test]
async fn answers_of_nodes_that_own_nothing_do_not_count() {
    let cluster = cluster(&["a", "b", "c"], 2, 2).await;
    let session = cluster.session().await;
    let sent = records(0..30, 100);
    // Every node has every record, but only owners in two sites could make it durable.
    for record in &sent {
        let owners = cluster.owners(record.header.id);
        let stranger = cluster.nodes.iter().find(|node| !owners.contains(&node.id)).unwrap();
        let bytes = record.encode();
        stranger.state().records.insert(record.header.id, bytes.clone());
        cluster.node(owners[0]).state().records.insert(record.header.id, bytes);
    }
    assert_eq!(session.have(&ids(&sent)).await.unwrap(), vec![false; 30]);
    let owners: BTreeSet<NodeId> = sent.iter().flat_map(|r| cluster.owners(r.header.id)).collect();
    assert_eq!(owners.len(), 3);
}
