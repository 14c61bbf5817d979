//! Get and get_copies.

use std::{sync::atomic::Ordering, time::Duration};

use holdfast_record::SealedRecord;
use holdfast_repository::{ChunkStore, StoreError};

use crate::cluster::{Cluster, TENANT, cluster, ids, record, records, token};

async fn filled(sites: &[&str], copies: u8, sent: &[SealedRecord]) -> Cluster {
    let cluster = cluster(sites, copies, copies).await;
    cluster.session().await.put(sent.to_vec()).await.unwrap();
    cluster
}

#[tokio::test]
async fn records_come_back_in_the_order_asked_whatever_node_has_them() {
    let sent = records(0..100, 900);
    let cluster = filled(&["a", "a", "b", "b"], 2, &sent).await;
    let reader = cluster.client_with(|o| o.get_batch = 8).reader(cluster.layout.clone(), token(1), TENANT);
    let mut wanted = sent.clone();
    wanted.reverse();
    wanted.push(sent[5].clone());
    assert_eq!(reader.get(&ids(&wanted)).await.unwrap(), wanted);
}

#[tokio::test]
async fn another_owner_serves_what_one_lacks_or_has_damaged() {
    let sent = records(0..50, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    for broken in 0..2 {
        cluster.nodes[broken].set(|faults| faults.absent = true);
        assert_eq!(reader.get(&ids(&sent)).await.unwrap(), sent);
        cluster.nodes[broken].set(|faults| (faults.absent, faults.corrupt) = (false, true));
        assert_eq!(reader.get(&ids(&sent)).await.unwrap(), sent);
        cluster.nodes[broken].set(|faults| faults.corrupt = false);
    }
}

#[tokio::test]
async fn one_surviving_site_is_enough_to_read() {
    let sent = records(0..50, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    cluster.links[0].cut().await;
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    assert_eq!(reader.get(&ids(&sent)).await.unwrap(), sent);
}

#[tokio::test]
async fn missing_is_said_only_when_every_owner_said_absent() {
    let sent = records(0..3, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    let unknown = record(99, 1).header.id;
    let wanted = [sent[0].header.id, unknown];
    assert_eq!(reader.get(&wanted).await, Err(StoreError::Missing { id: unknown }));
    assert_eq!(reader.get_copies(unknown).await, Err(StoreError::Missing { id: unknown }));
    cluster.links[1].cut().await;
    let error = reader.get(&wanted).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable { reason } if reason.contains("node-2")), "{error:?}");
}

#[tokio::test]
async fn corrupt_is_said_only_when_no_owner_has_a_good_copy() {
    let sent = records(0..1, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    cluster.nodes.iter().for_each(|node| node.set(|faults| faults.corrupt = true));
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    let id = sent[0].header.id;
    assert_eq!(reader.get(&[id]).await, Err(StoreError::Corrupt { id }));
    assert_eq!(reader.get_copies(id).await, Err(StoreError::Corrupt { id }));
}

#[tokio::test]
async fn a_node_that_shows_another_record_is_not_believed() {
    let sent = records(0..2, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    let (id, other) = (sent[0].header.id, sent[1].encode());
    cluster.nodes[0].state().records.insert(id, other);
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    assert_eq!(reader.get(&[id]).await.unwrap(), sent[..1]);
    assert_eq!(reader.get_copies(id).await.unwrap(), sent[..1]);
}

#[tokio::test]
async fn every_distinct_copy_is_shown() {
    let sent = records(0..1, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    let id = sent[0].header.id;
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    assert_eq!(reader.get_copies(id).await.unwrap().len(), 1);
    let mut differs = sent[0].clone();
    differs.nonce = [9; 12];
    cluster.nodes[1].state().records.insert(id, differs.encode());
    assert_eq!(reader.get_copies(id).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_slow_owner_is_asked_last_once_it_is_known() {
    let sent = records(0..40, 300);
    let cluster = filled(&["a", "b"], 2, &sent).await;
    cluster.nodes[0].set(|faults| faults.slow = Duration::from_millis(150));
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    reader.get(&ids(&sent)).await.unwrap();
    let slow_reads = cluster.nodes[0].gets.load(Ordering::SeqCst);
    reader.get(&ids(&sent)).await.unwrap();
    assert_eq!(cluster.nodes[0].gets.load(Ordering::SeqCst), slow_reads);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let cluster = cluster(&["a"], 1, 1).await;
    let reader = cluster.client().reader(cluster.layout.clone(), token(1), TENANT);
    assert!(matches!(reader.put(records(0..1, 1)).await, Err(StoreError::Refused { .. })));
    assert!(matches!(reader.have(&[record(0, 1).header.id]).await, Err(StoreError::Refused { .. })));
}
