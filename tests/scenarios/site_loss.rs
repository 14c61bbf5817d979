//! A site is lost while chunks come in, and comes back: every copy is where it belongs again, and no human did anything.
//!
//! Real processes behind mTLS. With two sites writes at A2 stop and reads go on; with three, three copies and two of them
//! acknowledged, writes go on.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use harness::{
    PoolOptions, StoragePool, eventually,
    records::{Records, Sizes},
    storage_pool::Writer,
};
use holdfast_model::{ChunkId, PartitionId, Replication, ResourceId, TenantId};
use holdfast_repository::{ChunkStore as _, StoreError};
use holdfast_runtime::HumanDuration;
use holdfast_storage_client::{CommitOutcome, StorageClientOptions, StorageSession};
use tokio::sync::watch;

const WRITER: Writer = Writer { tenant: TenantId([1; 16]), resource: ResourceId([2; 16]) };
const RECORDS: Records = Records { tenant: WRITER.tenant, seed: 50_000, sizes: Sizes::Fixed(1 << 10) };
/// Chunks in one put.
const BATCH: u64 = 128;
const PUTS_IN_FLIGHT: usize = 8;
const READ_BATCH: usize = 1_024;
/// Chunks put while the site is away that must be refused.
const REFUSED: u64 = 300;
/// What a run in continuous integration writes.
const FEW: u64 = 5_000;
const MANY: u64 = 50_000;
const HEALS_WITHIN: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_sites_writes_wait_for_the_lost_one_and_reads_go_on() {
    two_sites(FEW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn with_two_sites_fifty_thousand_chunks_are_complete_again() {
    two_sites(MANY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_sites_writes_go_on_and_the_lost_one_is_made_whole() {
    three_sites(FEW, Lost::Time).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_three_sites_one_that_lost_its_index_too_is_made_whole() {
    three_sites(FEW, Lost::Index).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn with_three_sites_fifty_thousand_chunks_are_complete_again() {
    three_sites(MANY, Lost::Time).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn with_three_sites_fifty_thousand_chunks_are_complete_again_without_the_index() {
    three_sites(MANY, Lost::Index).await;
}

/// What the site that returns has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    /// Nothing but what was written meanwhile.
    Time,
    /// Its index too.
    Index,
}

async fn two_sites(chunks: u64) {
    let folder = tempfile::tempdir().expect("a private folder");
    let options =
        options(vec!["a", "a", "b"], Replication { copies: 2, ack_sites: 2 }, Duration::from_secs(2));
    let mut pool = StoragePool::start(folder.path(), &options).await;
    let load = Load::open(&pool).await;
    let half = chunks / 2;
    load.write(0..half).await;

    let lost = pool.nodes_in("b");
    lost.iter().for_each(|index| pool.nodes[*index].kill());
    writes_are_deferred(&pool, &load, half..half + REFUSED).await;
    read_through_the_client(&pool, 0..half).await;
    assert_eq!(below_policy(&pool).await, REFUSED, "the nodes know what has one copy");

    let returned = Instant::now();
    lost.iter().for_each(|index| pool.nodes[*index].restart());
    pool.nodes_are_up().await;
    load.write(half + REFUSED..chunks).await;
    // What was refused had reached one site: that, too, gets its second copy.
    copies_are_complete(&pool, chunks).await;
    let healed = returned.elapsed();
    for index in lost {
        read_from_the_node_alone(&pool, index, chunks).await;
    }
    load.session.close().await;
    println!("site loss/sites=2/chunks={chunks}: complete {:.1} s after the return", healed.as_secs_f64());
}

/// The error says which site, which node and how much; nothing is decided that a majority does not know.
async fn writes_are_deferred(pool: &StoragePool, load: &Load, numbers: Range<u64>) {
    let records = numbers.clone().map(|number| RECORDS.record(number)).collect();
    let error = load.session.put(records).await.expect_err("one site cannot acknowledge for two");
    let StoreError::Unavailable { reason } = &error else { panic!("{error:?}") };
    for says in ["not stored in site b: node-3", &format!("{REFUSED} records are not yet in 2 sites")] {
        assert!(reason.contains(says), "'{says}' is not in: {reason}");
    }
    assert!(error.is_retryable(), "the caller waits and puts again");
    let (pin, ticket) = pool.pin(WRITER, 1, RECORDS.id(0));
    let error = load.session.commit_pin(&ticket, &pin.encode()).await.expect_err("one of two is no majority");
    let StoreError::Unavailable { reason } = &error else { panic!("{error:?}") };
    assert!(reason.contains("1 of 2 pin owners agreed, 2 are needed"), "{reason}");
}

async fn three_sites(chunks: u64, lost: Lost) {
    let folder = tempfile::tempdir().expect("a private folder");
    let options =
        options(vec!["a", "b", "c"], Replication { copies: 3, ack_sites: 2 }, Duration::from_secs(60));
    let mut pool = StoragePool::start(folder.path(), &options).await;
    let load = Load::open(&pool).await;
    let (half, third) = (chunks / 2, pool.nodes_in("c")[0]);
    load.write(0..half).await;

    let mut nodes = std::mem::take(&mut pool.nodes);
    let killing = async {
        let mut acknowledged = load.acknowledged.subscribe();
        acknowledged.wait_for(|n| *n > half).await.expect("the load goes on");
        nodes[third].kill();
    };
    tokio::join!(load.write(half..chunks), killing);
    let (pin, ticket) = pool.pin(WRITER, 1, RECORDS.id(0));
    let committed = load.session.commit_pin(&ticket, &pin.encode()).await;
    assert_eq!(committed, Ok(CommitOutcome::Committed { copies: 2 }), "two of three are a majority");
    read_through_the_client(&pool, 0..chunks).await;
    let missed = below_policy(&pool).await;
    assert!(missed >= chunks / 10, "the nodes know what has two copies: {missed} of {chunks}");
    if lost == Lost::Index {
        std::fs::remove_file(pool.node_data(third).join("index.redb")).expect("the node has an index");
    }

    let returned = Instant::now();
    nodes[third].restart();
    pool.nodes_are_up().await;
    copies_are_complete(&pool, chunks).await;
    let healed = returned.elapsed();
    read_from_the_node_alone(&pool, third, chunks).await;
    load.session.close().await;
    println!(
        "site loss/sites=3/chunks={chunks}/lost={lost:?}: {missed} chunks missed, complete {:.1} s after the return",
        healed.as_secs_f64()
    );
}

fn options(sites: Vec<&'static str>, replication: Replication, retry_for: Duration) -> PoolOptions {
    let client =
        StorageClientOptions { retry_for: HumanDuration(retry_for), ..StorageClientOptions::default() };
    PoolOptions { sites, replication, node: String::new(), client }
}

// === The load ===

struct Load {
    session: StorageSession,
    acknowledged: watch::Sender<u64>,
}

impl Load {
    async fn open(pool: &StoragePool) -> Self {
        let session = pool.open_session(WRITER, 1).await.expect("every node is up");
        Self { session, acknowledged: watch::Sender::new(0) }
    }

    /// Returns when all of it is acknowledged.
    async fn write(&self, numbers: Range<u64>) {
        let end = numbers.end;
        stream::iter(numbers.step_by(usize::try_from(BATCH).expect("small")))
            .map(|from| async move {
                let records: Vec<_> =
                    (from..(from + BATCH).min(end)).map(|number| RECORDS.record(number)).collect();
                let n = records.len() as u64;
                self.session.put(records).await.expect("acknowledged");
                self.acknowledged.send_modify(|acknowledged| *acknowledged += n);
            })
            .buffer_unordered(PUTS_IN_FLIGHT)
            .collect::<()>()
            .await;
    }
}

// === What must hold ===

/// Every chunk of the load is at each of its owners, and nobody thinks that anything is missing.
async fn copies_are_complete(pool: &StoragePool, chunks: u64) {
    let ids: Vec<ChunkId> = (0..chunks).map(|number| RECORDS.id(number)).collect();
    eventually("every copy is where it belongs", HEALS_WITHIN, || async {
        for status in pool.statuses().await {
            let repair = status.ok()?.repair?;
            if repair.records_below_policy > 0 || repair.partitions_suspect > 0 {
                return None;
            }
        }
        let missing = pool.missing_copies(WRITER.tenant, &ids).await.ok()?;
        missing.is_empty().then_some(())
    })
    .await;
    for status in pool.statuses().await {
        let status = status.expect("every node answers");
        let repair = status.repair.expect("every node tells what it repairs");
        assert_eq!((status.quarantined_records, repair.damaged_waiting), (0, 0), "{status:?}");
    }
}

/// What the nodes that answer know to have too few copies, together.
async fn below_policy(pool: &StoragePool) -> u64 {
    let statuses = pool.statuses().await;
    statuses
        .into_iter()
        .flatten()
        .filter_map(|status| status.repair)
        .map(|repair| repair.records_below_policy)
        .sum()
}

async fn read_through_the_client(pool: &StoragePool, numbers: Range<u64>) {
    let reader = pool.reader(WRITER);
    let numbers: Vec<u64> = numbers.collect();
    for numbers in numbers.chunks(READ_BATCH) {
        let ids: Vec<ChunkId> = numbers.iter().map(|number| RECORDS.id(*number)).collect();
        let found = reader.get(&ids).await.expect("reads go on");
        assert!(numbers.iter().zip(&found).all(|(number, one)| RECORDS.is(*number, one)), "other bytes");
    }
}

/// What one node owns, it gives back byte for byte without the help of another.
async fn read_from_the_node_alone(pool: &StoragePool, index: usize, chunks: u64) {
    let node = pool.layout.nodes[index].id;
    let is_owned = |number: &u64| pool.layout.owns(node, PartitionId::of_chunk(RECORDS.id(*number)));
    let owned: Vec<u64> = (0..chunks).filter(is_owned).collect();
    assert!(!owned.is_empty(), "{node} owns something");
    for numbers in owned.chunks(READ_BATCH) {
        let ids: Vec<ChunkId> = numbers.iter().map(|number| RECORDS.id(*number)).collect();
        let found = pool.read_from(index, WRITER, &ids).await.expect("the node answers");
        for (number, found) in numbers.iter().zip(found) {
            let found = found.unwrap_or_else(|| panic!("{node} lacks chunk {number}"));
            assert!(RECORDS.is(*number, &found), "{node} has other bytes for chunk {number}");
        }
    }
}
