//! The daily verification: protections that differ, and records of the index that cannot be read.

use super::{
    moves::{four, install, without},
    *,
};

const DAY_MS: u64 = 24 * 3_600_000;

impl Pool {
    /// Steps of one node until a verification is over; says how many.
    async fn verify(&self, id: u64) -> usize {
        for n in 0..2_000 {
            if self.node(id).verify_step(self.now_ms).await.unwrap() == Step::Idle {
                return n;
            }
        }
        panic!("the verification does not end");
    }
}

async fn touched(node: &Node, epoch: u64, record: &SealedRecord) {
    let mut later: Caller = caller(1);
    later.claims.epoch = holdfast_model::Epoch(epoch);
    assert_eq!(node.have_local(&later, vec![record.header.id]).await.unwrap(), vec![Presence::Yes]);
}

#[tokio::test]
async fn a_day_later_every_owner_protects_a_record_as_the_best_of_them_does() {
    let mut pool = Pool::start(2, 2);
    let (mut locked, plain) = (record(1, 3_000), record(2, 3_000));
    put_alone(&pool.node(2), &[locked.clone(), plain.clone()]).await;
    locked.placement.lock_floor_ms = 777;
    for id in [1, 2] {
        pool.node(id).apply(authority(1, 6, None)).unwrap();
    }
    put_alone(&pool.node(1), &[locked.clone(), plain.clone()]).await;
    touched(&pool.node(2), 6, &plain).await;
    let low = Protection { write_epoch: 5, touch_epoch: 5, lock_floor_ms: 0 };
    assert_eq!(protection(&pool.node(2), &locked), Some(low));
    // The digests are equal: nothing is missing, and no comparison finds it.
    pool.round().await;
    assert_eq!(protection(&pool.node(2), &locked), Some(low));

    pool.verify(2).await;
    let high = Protection { write_epoch: 6, touch_epoch: 6, lock_floor_ms: 777 };
    assert_eq!(protection(&pool.node(2), &locked), Some(high));
    // The touch outlives the index; the floor is raised again by the next one, which comes a day later.
    pool.stop(2).await;
    fs::remove_file(pool.rigs[1].options.data.join("index.redb")).unwrap();
    let node = pool.open(2);
    assert_eq!(protection(&node, &locked), Some(Protection { touch_epoch: 6, ..low }));
    pool.now_ms += DAY_MS - 1;
    assert_eq!(pool.verify(2).await, 0);
    pool.now_ms += 1;
    assert!(pool.verify(2).await > 0);
    assert_eq!(protection(&node, &locked), Some(high));
    // The other way round nothing was lowered.
    let before = protection(&pool.node(1), &plain);
    pool.verify(1).await;
    assert_eq!(protection(&pool.node(1), &plain), before);
}

#[tokio::test]
async fn no_owner_raises_an_epoch_beyond_the_one_that_follows_this_nodes() {
    let pool = Pool::start(2, 2);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    pool.node(1).apply(authority(1, 90, None)).unwrap();
    touched(&pool.node(1), 90, &one).await;
    pool.verify(2).await;
    assert_eq!(protection(&pool.node(2), &one).unwrap().touch_epoch, 6);
}

#[tokio::test]
async fn an_owner_that_is_away_is_asked_the_next_day() {
    let mut pool = Pool::start(2, 2);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    for id in [1, 2] {
        pool.node(id).apply(authority(1, 7, None)).unwrap();
    }
    touched(&pool.node(1), 7, &one).await;
    pool.cut(1);
    pool.verify(2).await;
    assert_eq!(protection(&pool.node(2), &one).unwrap().touch_epoch, 5);
    pool.heal();
    pool.now_ms += DAY_MS;
    pool.verify(2).await;
    assert_eq!(protection(&pool.node(2), &one).unwrap().touch_epoch, 7);
}

#[tokio::test]
async fn while_partitions_move_the_owners_before_are_asked_too() {
    let (pool, before, owners, _) = four();
    let leaves = owners[0];
    let is_there =
        |record: &SealedRecord| before.owns(NodeId(leaves), PartitionId::of_chunk(record.header.id));
    let one = records(0..9).into_iter().find(is_there).unwrap();
    put(&pool.node(leaves), std::slice::from_ref(&one)).await;
    touched(&pool.node(leaves), 6, &one).await;
    let after = without(&before, 2, leaves, &[]);
    install(&pool, &after, &[1, 2, 3, 4]);
    let stays = |node: &&LayoutNode| {
        before.owns(node.id, PartitionId::of_chunk(one.header.id)) && node.id.0 != leaves
    };
    let stays = after.nodes.iter().find(stays).unwrap().id.0;
    assert_eq!(protection(&pool.node(stays), &one).unwrap().touch_epoch, 5);
    pool.verify(stays).await;
    assert_eq!(protection(&pool.node(stays), &one).unwrap().touch_epoch, 6);
}

#[tokio::test]
async fn the_daily_sample_finds_what_the_index_promises_and_nobody_can_read() {
    let mut pool = Pool::start(2, 2);
    let all = records(0..300);
    put(&pool.node(1), &all).await;
    // A restart in the middle goes on.
    for _ in 0..4 {
        assert_eq!(pool.node(1).verify_step(pool.now_ms).await.unwrap(), Step::More);
    }
    pool.restart(1).await;
    for record in [&all[7], &all[211]] {
        pool.rot(1, record, 0.5);
    }
    pool.verify(1).await;
    assert_eq!((backlog(&pool.node(1)).damaged, pool.node(1).store.n_records().unwrap()), (2, 298));
    pool.resync(1).await;
    for record in &all {
        assert!(serves(&pool.node(1), record).await);
    }
}
