//! What repair promises, over real files and several cores in one process: what is missing comes back by itself, what is
//! damaged is never served or spread, and no number is lowered on the way.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::atomic::Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use holdfast_model::ChunkId;
use holdfast_record::SealedRecord;
use holdfast_runtime::{ByteSize, Step};

use super::*;
use crate::{
    Caller, Peers, Presence, ReplicaOutcome, StorageNodeOptions,
    disk::DiskUsage,
    handover::{HandoverQuestion, SpacePage},
    peers::PeerCall,
    testing::{Rig, SESSION, TENANT, authority, caller, layout, record},
};

mod damage;
mod disks;
mod frame;
mod handover;
mod moves;
mod pins;
mod queue;
mod verify;

/// What a network does wrong.
#[derive(Default)]
struct Wire {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    /// Nobody reaches these, and they reach nobody.
    cut: BTreeSet<NodeId>,
    /// Copies that come from these have a flipped bit.
    rotten: BTreeSet<NodeId>,
    /// These give one key a page.
    short_pages: BTreeSet<NodeId>,
}

/// A network between cores of this process, as one node has it.
#[derive(Clone)]
struct Net {
    me: NodeId,
    wire: Arc<Mutex<Wire>>,
}

impl Net {
    fn to(&self, peer: &LayoutNode) -> Result<Arc<Node>, PeerError> {
        let wire = lock(&self.wire);
        let cut = wire.cut.contains(&peer.id) || wire.cut.contains(&self.me);
        let unreachable = || PeerError::Unreachable { reason: "cut".to_owned() };
        wire.nodes.get(&peer.id).filter(|_| !cut).cloned().ok_or_else(unreachable)
    }
}

fn refused<T>(result: Result<T, Error>) -> Result<T, PeerError> {
    result.map_err(|error| PeerError::Refused { reason: error.to_string() })
}

#[async_trait]
impl Peers for Net {
    fn repair(&self) -> &dyn RepairPeers {
        self
    }

    async fn replicate(
        &self,
        peer: &LayoutNode,
        call: &PeerCall,
        records: Vec<Bytes>,
    ) -> Result<ReplicaPut, PeerError> {
        refused(self.to(peer)?.replicate(&caller(1), call.session, records).await)
    }

    async fn have_local(
        &self,
        peer: &LayoutNode,
        _: &PeerCall,
        ids: &[ChunkId],
    ) -> Result<Vec<Presence>, PeerError> {
        refused(self.to(peer)?.have_local(&caller(1), ids.to_vec()).await)
    }
}

#[async_trait]
impl RepairPeers for Net {
    async fn hand_over(
        &self,
        peer: &LayoutNode,
        question: &HandoverQuestion,
    ) -> Result<SpacePage, PeerError> {
        refused(self.to(peer)?.hand_over(self.me, question.clone()).await)
    }

    async fn digests(&self, peer: &LayoutNode, partitions: &[PartitionId]) -> Result<Digests, PeerError> {
        refused(self.to(peer)?.digests(partitions.to_vec()).await)
    }

    async fn leaves(&self, peer: &LayoutNode, partition: PartitionId) -> Result<Vec<Digest>, PeerError> {
        refused(self.to(peer)?.leaves(partition).await)
    }

    async fn keys(
        &self,
        peer: &LayoutNode,
        leaf: (PartitionId, u8),
        after: Option<RecordKey>,
    ) -> Result<KeyPage, PeerError> {
        let mut page = refused(self.to(peer)?.keys_of(leaf, after).await)?;
        if lock(&self.wire).short_pages.contains(&peer.id) {
            page.more |= page.keys.len() > 1;
            page.keys.truncate(1);
        }
        Ok(page)
    }

    async fn holds(
        &self,
        peer: &LayoutNode,
        keys: &[RecordKey],
    ) -> Result<Vec<Option<Protection>>, PeerError> {
        refused(self.to(peer)?.holds(keys.to_vec()).await)
    }

    async fn fetch(&self, peer: &LayoutNode, keys: &[RecordKey]) -> Result<Vec<Option<Copy>>, PeerError> {
        let mut copies = refused(self.to(peer)?.copies(keys.to_vec()).await)?;
        if lock(&self.wire).rotten.contains(&peer.id) {
            for copy in copies.iter_mut().flatten() {
                let mut bytes = copy.record.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                copy.record = bytes.into();
            }
        }
        Ok(copies)
    }

    async fn mend(&self, peer: &LayoutNode, copies: Vec<Copy>) -> Result<ReplicaPut, PeerError> {
        refused(self.to(peer)?.mend(copies).await)
    }
}

/// Several nodes, one per site, that share everything up to their number of copies.
struct Pool {
    rigs: Vec<Rig>,
    wire: Arc<Mutex<Wire>>,
    copies: u8,
    now_ms: Millis,
}

const SITES: [&str; 4] = ["a", "b", "c", "d"];

impl Pool {
    fn start(n: usize, copies: u8) -> Self {
        Self::with_segments(n, copies, ByteSize::mib(1))
    }

    fn with_segments(n: usize, copies: u8, target: ByteSize) -> Self {
        let rigs = (1..).zip(&SITES[..n]).map(|(id, site)| {
            let mut rig = Rig::new();
            rig.options.segment_target = target;
            (rig.options.node_id, rig.options.site) = (id, (*site).to_owned());
            rig
        });
        let mut pool = Self { rigs: rigs.collect(), wire: Arc::default(), copies, now_ms: 1_000_000 };
        for id in 1..=n as u64 {
            pool.open(id);
        }
        pool
    }

    fn layout(&self, version: u64, ids: &[u64]) -> Layout {
        let nodes: Vec<_> = ids.iter().map(|id| (*id, SITES[usize::try_from(*id).unwrap() - 1])).collect();
        layout(version, &nodes, self.copies)
    }

    fn open(&mut self, id: u64) -> Arc<Node> {
        let node = self.open_bare(id);
        if node.layout().is_none() {
            let all: Vec<u64> = (1..=self.rigs.len() as u64).collect();
            node.apply(authority(1, 5, Some(self.layout(1, &all)))).unwrap();
        }
        node
    }

    /// Opens a node that has only the layout that its folder knows, if any.
    fn open_bare(&mut self, id: u64) -> Arc<Node> {
        let net = Net { me: NodeId(id), wire: self.wire.clone() };
        let rig = &self.rigs[usize::try_from(id).unwrap() - 1];
        let node = rig.open_among(&rig.options, Arc::new(net)).unwrap();
        lock(&self.wire).nodes.insert(NodeId(id), node.clone());
        node
    }

    /// Ends a node as `kill -9` would, and opens what that leaves.
    fn kill(&mut self, id: u64) -> Arc<Node> {
        let rig = &mut self.rigs[usize::try_from(id).unwrap() - 1];
        let mut left = rig.copy();
        left.options = StorageNodeOptions { data: left.options.data, ..rig.options.clone() };
        lock(&self.wire).nodes.remove(&NodeId(id));
        *rig = left;
        self.open_bare(id)
    }

    /// Ends a node and takes its folder away: what is opened is empty and has no layout.
    fn empty(&mut self, id: u64) -> Arc<Node> {
        let rig = &mut self.rigs[usize::try_from(id).unwrap() - 1];
        let mut fresh = Rig::new();
        fresh.options = StorageNodeOptions { data: fresh.options.data, ..rig.options.clone() };
        lock(&self.wire).nodes.remove(&NodeId(id));
        *rig = fresh;
        self.open_bare(id)
    }

    fn node(&self, id: u64) -> Arc<Node> {
        lock(&self.wire).nodes[&NodeId(id)].clone()
    }

    async fn stop(&mut self, id: u64) {
        let node = lock(&self.wire).nodes.remove(&NodeId(id)).unwrap();
        node.close().await.unwrap();
    }

    async fn restart(&mut self, id: u64) -> Arc<Node> {
        self.stop(id).await;
        self.open(id)
    }

    fn cut(&self, id: u64) {
        lock(&self.wire).cut.insert(NodeId(id));
    }

    fn heal(&self) {
        lock(&self.wire).cut.clear();
    }

    /// Steps of one node until it has nothing more to do now.
    async fn resync(&self, id: u64) {
        let node = self.node(id);
        for _ in 0..2_000 {
            if node.resync_step(self.now_ms).await.unwrap() == Step::Idle {
                return;
            }
        }
        panic!("resync does not end");
    }

    async fn compare(&self, id: u64) {
        let node = self.node(id);
        for _ in 0..2_000 {
            if node.compare_step(self.now_ms).await.unwrap() == Step::Idle {
                return;
            }
        }
        panic!("the comparison does not end");
    }

    async fn scrub(&self, id: u64) {
        let node = self.node(id);
        for _ in 0..2_000 {
            if node.scrub_step(self.now_ms, Pace::AtOnce).await.unwrap() == Step::Idle {
                return;
            }
        }
        panic!("the scrub does not end");
    }

    /// An hour later every node compares and brings back, once.
    async fn round(&mut self) {
        self.now_ms += 3_600_000;
        let ids: Vec<u64> = lock(&self.wire).nodes.keys().map(|id| id.0).collect();
        for id in &ids {
            self.compare(*id).await;
        }
        for id in ids {
            self.resync(id).await;
        }
    }

    fn segments(&self, id: u64, class: &str) -> Vec<PathBuf> {
        let dir = self.rigs[usize::try_from(id).unwrap() - 1].options.data.join("segments");
        let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(class) && name.ends_with(".seg")
            })
            .collect();
        files.sort();
        files
    }

    /// Flips a bit where a node keeps a record: `part` of the way through it.
    fn rot(&self, id: u64, record: &SealedRecord, part: f64) {
        let entry = self.node(id).store.alone().index().get_many(&[record.key()]).unwrap()[0].unwrap();
        let name = hex::encode(entry.location.segment);
        let files = self.segments(id, "").into_iter();
        let path = files.clone().find(|path| path.to_str().unwrap().contains(&name)).unwrap();
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        #[allow(clippy::permissions_set_readonly_false)]
        permissions.set_readonly(false);
        fs::set_permissions(&path, permissions).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let within = (f64::from(entry.location.len) * part) as usize;
        bytes[usize::try_from(entry.location.offset).unwrap() + within] ^= 0x10;
        fs::write(&path, bytes).unwrap();
    }
}

async fn put(node: &Node, records: &[SealedRecord]) -> Vec<Replica<ReplicaPut>> {
    node.put(&caller(1), SESSION, records.iter().map(SealedRecord::encode).collect()).await.unwrap()
}

async fn put_alone(node: &Node, records: &[SealedRecord]) {
    let wire = records.iter().map(SealedRecord::encode).collect();
    let put = node.replicate(&caller(1), SESSION, wire).await.unwrap();
    assert!(put.outcomes.iter().all(|one| *one == ReplicaOutcome::Stored), "{put:?}");
}

async fn serves(node: &Node, record: &SealedRecord) -> bool {
    let found = node.get(&caller(1), &[record.header.id], 1 << 20).await.unwrap();
    found[0].clone().is_some_and(|bytes| {
        let found = SealedRecord::decode(bytes).unwrap();
        assert_eq!(found.ciphertext, record.ciphertext, "wrong bytes were served");
        (&found.header, found.placement.session) == (&record.header, SESSION.0)
    })
}

fn protection(node: &Node, record: &SealedRecord) -> Option<Protection> {
    node.store.protection(&[record.key()]).unwrap()[0]
}

fn records(range: std::ops::Range<u32>) -> Vec<SealedRecord> {
    range.map(|n| record(n, 3_000)).collect()
}

fn backlog(node: &Node) -> Backlog {
    node.repair_status().unwrap().backlog
}

#[tokio::test]
async fn what_an_owner_missed_while_it_was_away_is_brought_to_it_when_it_is_back() {
    let mut pool = Pool::start(2, 2);
    pool.cut(2);
    let missed = records(0..150);
    let replicas = put(&pool.node(1), &missed).await;
    assert!(replicas[1].answer.outcomes.iter().all(|one| *one == ReplicaOutcome::Failed));
    assert_eq!((backlog(&pool.node(1)).records, backlog(&pool.node(1)).at_one_copy), (150, 150));
    // The queue is on disk: a restart keeps it, and as long as the other is away nothing is lost from it.
    pool.restart(1).await;
    pool.resync(1).await;
    assert_eq!(backlog(&pool.node(1)).records, 150);
    assert_eq!(pool.node(1).resync_step(pool.now_ms).await.unwrap(), Step::Idle, "it does not wait its turn");

    pool.heal();
    pool.resync(1).await;
    for record in &missed {
        assert!(serves(&pool.node(2), record).await);
        assert_eq!(protection(&pool.node(2), record), protection(&pool.node(1), record));
    }
    assert_eq!(backlog(&pool.node(1)).records, 0);
    // It survives there.
    let node = pool.restart(2).await;
    assert!(serves(&node, &missed[0]).await && serves(&node, &missed[149]).await);
}

#[tokio::test]
async fn a_lost_queue_is_found_again_by_comparison() {
    let mut pool = Pool::start(2, 2);
    pool.cut(2);
    let missed = records(0..40);
    put(&pool.node(1), &missed).await;
    lock(&pool.wire).nodes.remove(&NodeId(1));
    fs::write(pool.rigs[0].options.data.join("repair.redb"), b"not a database").unwrap();
    pool.open(1);
    assert_eq!(backlog(&pool.node(1)).records, 0);
    assert!(pool.rigs[0].options.data.join("repair.redb.damaged").exists());
    pool.heal();
    pool.round().await;
    for record in &missed {
        assert!(serves(&pool.node(2), record).await);
    }
    assert!(pool.node(2).repair_status().unwrap().last_comparison_ms > 0);
}

#[tokio::test]
async fn a_put_that_was_stored_everywhere_or_nowhere_leaves_no_hint() {
    let pool = Pool::start(2, 2);
    put(&pool.node(1), &records(0..5)).await;
    pool.cut(2);
    pool.rigs[0].faults.fail_segment_sync.store(true, Ordering::Relaxed);
    put(&pool.node(1), &records(5..9)).await;
    assert_eq!(backlog(&pool.node(1)), Backlog::default());
}

#[tokio::test]
async fn a_damaged_record_is_never_served_and_comes_back_from_a_peer() {
    let mut pool = Pool::start(2, 2);
    let all = records(0..6);
    put(&pool.node(1), &all).await;
    pool.rot(1, &all[2], 0.5);
    let path = pool.segments(1, "data").remove(0);
    let before = fs::read(&path).unwrap();
    assert!(!serves(&pool.node(1), &all[2]).await);
    assert_eq!((backlog(&pool.node(1)).damaged, backlog(&pool.node(1)).records), (1, 1));

    pool.resync(1).await;
    assert!(serves(&pool.node(1), &all[2]).await);
    let status = pool.node(1).status().unwrap();
    assert_eq!((status.repair.repaired_records, status.quarantined_records), (1, 1));
    assert_eq!(status.repair.backlog, Backlog::default());
    // The damaged bytes stay where they are; the record was written again behind them.
    let after = fs::read(&path).unwrap();
    assert_eq!(&after[..before.len()], &before[..]);
    assert!(after.len() > before.len());
    let node = pool.restart(1).await;
    assert!(serves(&node, &all[2]).await);
    assert_eq!(node.status().unwrap().repair.repaired_records, 1);
}

#[tokio::test]
async fn what_a_damaged_record_had_been_promised_comes_back_with_it() {
    let pool = Pool::start(2, 2);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    // A session of epoch 7 was told by this node that the record is there; the other was not asked.
    pool.node(1).apply(authority(1, 7, None)).unwrap();
    let mut later: Caller = caller(1);
    later.claims.epoch = holdfast_model::Epoch(7);
    assert_eq!(pool.node(1).have_local(&later, vec![one.header.id]).await.unwrap(), vec![Presence::Yes]);
    let before = protection(&pool.node(1), &one).unwrap();
    assert_eq!((before.touch_epoch, protection(&pool.node(2), &one).unwrap().touch_epoch), (7, 5));
    pool.rot(1, &one, 0.5);
    assert!(!serves(&pool.node(1), &one).await);
    pool.resync(1).await;
    assert_eq!(protection(&pool.node(1), &one), Some(before));
}

#[tokio::test]
async fn a_promise_about_a_lost_segment_outlives_it() {
    let mut pool = Pool::start(2, 2);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    pool.node(1).apply(authority(1, 7, None)).unwrap();
    let mut later: Caller = caller(1);
    later.claims.epoch = holdfast_model::Epoch(7);
    pool.node(1).have_local(&later, vec![one.header.id]).await.unwrap();
    let before = protection(&pool.node(1), &one);
    pool.stop(1).await;
    fs::remove_file(pool.segments(1, "data").remove(0)).unwrap();
    pool.open(1);
    assert_eq!((protection(&pool.node(1), &one), backlog(&pool.node(1)).damaged), (None, 1));
    pool.resync(1).await;
    assert_eq!(protection(&pool.node(1), &one), before);
}

#[tokio::test]
async fn the_higher_of_two_epochs_in_one_group_protects() {
    let pool = Pool::start(1, 1);
    for (n, epochs) in [(1, [5, 8]), (2, [8, 5])] {
        let store = pool.node(1).store.clone();
        let put = |epoch| store.put(vec![record(n, 100)], epoch);
        let (first, second) = futures::join!(put(epochs[0]), put(epochs[1]));
        assert!(first.reason.is_empty() && second.reason.is_empty());
        assert_eq!(protection(&pool.node(1), &record(n, 100)).unwrap().touch_epoch, 8);
    }
}

#[tokio::test]
async fn epochs_and_lock_floors_travel_with_a_copy_and_survive_a_rebuilt_index() {
    let mut pool = Pool::start(2, 2);
    let mut one = record(1, 3_000);
    one.placement.lock_floor_ms = 777;
    put_alone(&pool.node(1), std::slice::from_ref(&one)).await;
    pool.node(1).apply(authority(1, 7, None)).unwrap();
    let mut later: Caller = caller(1);
    later.claims.epoch = holdfast_model::Epoch(7);
    pool.node(1).have_local(&later, vec![one.header.id]).await.unwrap();
    pool.round().await;
    let expected = Protection { write_epoch: 5, touch_epoch: 7, lock_floor_ms: 777 };
    assert_eq!(protection(&pool.node(2), &one), Some(expected));
    pool.stop(2).await;
    fs::remove_file(pool.rigs[1].options.data.join("index.redb")).unwrap();
    assert_eq!(protection(&pool.open(2), &one), Some(expected));
}

#[tokio::test]
async fn a_rotten_copy_is_refused_and_the_next_owner_is_asked() {
    let pool = Pool::start(3, 3);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    pool.rot(1, &one, 0.5);
    assert!(!serves(&pool.node(1), &one).await);
    lock(&pool.wire).rotten.extend([NodeId(2), NodeId(3)]);
    pool.resync(1).await;
    assert!(!serves(&pool.node(1), &one).await);
    assert_eq!(pool.node(1).store.n_records().unwrap(), 0, "a rotten copy was stored");
    assert_eq!(backlog(&pool.node(1)).damaged, 1);
    // One good owner is enough; the entry waits its turn.
    lock(&pool.wire).rotten.remove(&NodeId(3));
    assert_eq!(pool.node(1).resync_step(pool.now_ms).await.unwrap(), Step::Idle);
    let pool = Pool { now_ms: pool.now_ms + 60_000, ..pool };
    pool.resync(1).await;
    assert!(serves(&pool.node(1), &one).await);
    // Nobody can be made to store one either.
    let mut bytes = record(2, 3_000).encode().to_vec();
    bytes[1_000] ^= 1;
    let pushed = pool.node(2).mend(vec![Copy { record: bytes.into(), touch_epoch: 5 }]).await;
    assert!(matches!(pushed, Err(Error::BadBytes { .. })));
    assert_eq!(pool.node(2).store.n_records().unwrap(), 1);
}

#[tokio::test]
async fn a_damaged_record_without_another_copy_stays_in_the_queue() {
    let mut pool = Pool::start(2, 2);
    let one = record(1, 3_000);
    put(&pool.node(1), std::slice::from_ref(&one)).await;
    for id in [1, 2] {
        pool.rot(id, &one, 0.5);
        assert!(!serves(&pool.node(id), &one).await);
    }
    for _ in 0..20 {
        pool.now_ms += 5 * 3_600_000;
        pool.resync(1).await;
    }
    assert_eq!(backlog(&pool.node(1)).damaged, 1);
    // A worker that uploads it again heals both.
    put_alone(&pool.node(2), std::slice::from_ref(&one)).await;
    pool.now_ms += 64 * 60_000;
    pool.resync(1).await;
    pool.resync(2).await;
    assert!(serves(&pool.node(1), &one).await && serves(&pool.node(2), &one).await);
    assert_eq!((backlog(&pool.node(1)).records, backlog(&pool.node(2)).records), (0, 0));
}

#[tokio::test]
async fn the_scrub_finds_rot_wherever_it_is_and_repair_undoes_it() {
    let mut pool = Pool::start(2, 2);
    // Sealed segments, an open one, and one of tree nodes.
    let data: Vec<_> = (0..40).map(|n| record(n, 90_000)).collect();
    let tree: Vec<_> = (100..110)
        .map(|n| crate::testing::record_of(TENANT, n, 2_000, holdfast_record::RecordKind::ManifestLeaf))
        .collect();
    for batch in data.chunks(5).chain(tree.chunks(5)) {
        put(&pool.node(1), batch).await;
    }
    assert!(pool.segments(1, "data").len() > 2);
    pool.scrub(1).await;
    assert_eq!(pool.node(1).store.n_damaged(), 0, "the scrub cried wolf");
    // In a header, in ciphertexts, in neighbours, in the last record of the open segment.
    let victims = [(&data[0], 0.0001), (&data[7], 0.5), (&data[8], 0.9), (&data[39], 0.3), (&tree[3], 0.02)];
    for (record, part) in victims {
        pool.rot(1, record, part);
    }
    pool.scrub(1).await;
    assert_eq!((pool.node(1).store.n_damaged(), backlog(&pool.node(1)).damaged), (5, 5));
    assert!(pool.node(1).repair_status().unwrap().last_scrub_ms > 0);
    pool.resync(1).await;
    pool.scrub(1).await;
    assert_eq!((pool.node(1).store.n_damaged(), backlog(&pool.node(1)).records), (5, 0));
    for record in data.iter().chain(&tree) {
        assert!(serves(&pool.node(1), record).await);
    }
    // A segment file that is gone is found too, and all of it comes back.
    let gone = pool.segments(1, "data").remove(0);
    let node = pool.restart(1).await;
    fs::remove_file(&gone).unwrap();
    pool.scrub(1).await;
    assert!(backlog(&node).damaged > 5, "{:?}", backlog(&node));
    pool.resync(1).await;
    for record in &data {
        assert!(serves(&node, record).await);
    }
}

#[tokio::test]
async fn the_scrub_goes_on_where_it_stopped_and_keeps_its_pace() {
    let mut pool = Pool::start(2, 2);
    for n in 0..14 {
        put(&pool.node(1), &[record(n, 900_000)]).await;
    }
    let used = pool.node(1).store.used_bytes();
    let start = pool.now_ms;
    // The first step is free, then a step comes only when its share of the thirty days is over.
    let mut steps = 0;
    let mut permille = Vec::new();
    for hour in 0..40 * 24 {
        pool.now_ms = start + hour * 3_600_000;
        let node = if hour % 100 == 99 { pool.restart(1).await } else { pool.node(1) };
        if node.scrub_step(pool.now_ms, Pace::Scheduled).await.unwrap() == Step::More {
            steps += 1;
            permille.push(node.repair_status().unwrap().scrub_permille);
        }
        if node.repair_status().unwrap().last_scrub_ms > 0 {
            break;
        }
    }
    let node = pool.node(1);
    let took_days = (node.repair_status().unwrap().last_scrub_ms - start) / 86_400_000;
    assert!((10..=30).contains(&took_days), "{took_days} days for {used} bytes");
    assert!(steps >= 3 && permille.is_sorted(), "{permille:?}");
    // Done: the next one begins when the period is over.
    assert_eq!(node.scrub_step(pool.now_ms + 3_600_000, Pace::Scheduled).await.unwrap(), Step::Idle);
    assert_eq!(node.repair_status().unwrap().scrub_permille, 0);
    let next = start + 30 * 86_400_000;
    assert_eq!(node.scrub_step(next, Pace::Scheduled).await.unwrap(), Step::More);
}

#[tokio::test]
async fn a_new_owner_gets_its_partitions_and_the_old_ones_keep_theirs() {
    let mut pool = Pool::start(3, 2);
    for id in [1, 2, 3] {
        pool.node(id).apply(authority(1, 5, Some(pool.layout(2, &[1, 2])))).unwrap();
    }
    let all = records(0..60);
    put(&pool.node(1), &all).await;
    pool.round().await;
    assert_eq!(pool.node(3).store.n_records().unwrap(), 0);
    for id in [1, 2, 3] {
        pool.node(id).apply(authority(1, 5, Some(pool.layout(3, &[1, 2, 3])))).unwrap();
    }
    // No hour passes: the change itself makes the partitions suspect.
    pool.resync(3).await;
    pool.compare(3).await;
    pool.resync(3).await;
    let layout = pool.node(3).layout().unwrap();
    let mut n_moved = 0;
    for record in &all {
        let owns = layout.owns(NodeId(3), PartitionId::of_chunk(record.header.id));
        assert_eq!(serves(&pool.node(3), record).await, owns);
        n_moved += u64::from(owns);
    }
    assert!(n_moved > 0);
    assert_eq!(pool.node(1).store.n_records().unwrap(), 60);
}

#[tokio::test]
async fn nothing_is_brought_to_a_node_that_is_no_owner() {
    let pool = Pool::start(3, 2);
    let layout = pool.node(1).layout().unwrap();
    let foreign = records(0..50)
        .into_iter()
        .find(|record| !layout.owns(NodeId(3), PartitionId::of_chunk(record.header.id)))
        .unwrap();
    let put = pool.node(3).mend(vec![Copy { record: foreign.encode(), touch_epoch: 5 }]).await.unwrap();
    assert_eq!(put.outcomes, vec![ReplicaOutcome::NotOwner]);
    assert_eq!(pool.node(3).store.n_records().unwrap(), 0);
}

#[tokio::test]
async fn copies_from_others_stop_before_ingest_does_and_go_on_when_there_is_room() {
    let mut pool = Pool::start(2, 2);
    let (theirs, moved) = (records(0..40), records(100..110));
    put_alone(&pool.node(2), &theirs).await;
    put_alone(&pool.node(1), &moved).await;
    // 87 % of what the node keeps and could still take.
    let used = pool.node(2).store.used_bytes();
    let usage = DiskUsage { total_bytes: used * 2, available_bytes: used * 13 / 87 };
    *pool.rigs[1].faults.usage.lock().unwrap() = Some(usage);
    pool.node(2).housekeeping().await.unwrap();
    let copy = Copy { record: record(200, 100).encode(), touch_epoch: 5 };
    let refused = pool.node(2).mend(vec![copy]).await.unwrap();
    assert_eq!(refused.outcomes, vec![ReplicaOutcome::Failed]);
    assert_eq!(refused.reason, "disk 87% full: add a disk or node, or drain");
    pool.round().await;
    assert_eq!((pool.node(2).store.n_records().unwrap(), backlog(&pool.node(2)).records), (40, 10));
    assert!(!pool.node(2).status().unwrap().ingest_stopped);
    put_alone(&pool.node(2), &records(40..41)).await;
    // What waited for room does not wait for its turn.
    *pool.rigs[1].faults.usage.lock().unwrap() = None;
    pool.node(2).housekeeping().await.unwrap();
    pool.resync(2).await;
    assert_eq!((pool.node(2).store.n_records().unwrap(), backlog(&pool.node(2)).records), (51, 0));

    pool.rigs[1].options.repair_stop_percent = 90;
    pool.stop(2).await;
    let refused = pool.rigs[1].try_open().err().unwrap().to_string();
    let expected = "option repair-stop-percent must be at least 1 and below ingest-stop-percent (90)";
    assert_eq!(refused, expected);
}

#[tokio::test]
async fn a_full_disk_delays_repair_and_loses_nothing_of_it() {
    let mut pool = Pool::start(2, 2);
    let all = records(0..10);
    put_alone(&pool.node(1), &all).await;
    pool.rigs[1].faults.used_percent.store(100, Ordering::Relaxed);
    pool.node(2).housekeeping().await.unwrap();
    pool.round().await;
    assert_eq!((pool.node(2).store.n_records().unwrap(), backlog(&pool.node(2)).records), (0, 10));
    pool.rigs[1].faults.used_percent.store(10, Ordering::Relaxed);
    pool.node(2).housekeeping().await.unwrap();
    pool.round().await;
    assert_eq!((pool.node(2).store.n_records().unwrap(), backlog(&pool.node(2)).records), (10, 0));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(6))]

    /// Whatever each owner has of the records, one round later all have the same.
    #[test]
    fn owners_converge_in_one_round(
        has in proptest::collection::vec(1_u8..8, 30..120),
        away in proptest::option::of(1_u64..4),
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut pool = Pool::start(3, 3);
            for (n, has) in (0..).zip(&has) {
                for id in [1, 2, 3_u64].into_iter().filter(|id| has & (1 << (id - 1)) != 0) {
                    put_alone(&pool.node(id), &[record(n, 200)]).await;
                }
            }
            if let Some(id) = away {
                pool.cut(id);
                pool.round().await;
                pool.heal();
            }
            pool.round().await;
            let partitions: Vec<_> = (0..PARTITION_COUNT).map(PartitionId).collect();
            for partitions in partitions.chunks(64) {
                let first = pool.node(1).digests(partitions.to_vec()).await.unwrap();
                for id in [2, 3] {
                    assert_eq!(pool.node(id).digests(partitions.to_vec()).await.unwrap(), first);
                }
            }
            assert_eq!(pool.node(1).store.n_records().unwrap(), has.len() as u64);
            for id in [1, 2, 3] {
                assert_eq!(backlog(&pool.node(id)).records, 0);
            }
        });
    }
}

/// Not a promise but a measurement: run it by name, with `--run-ignored all --no-capture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn fifty_thousand_records_come_back_after_a_site_was_away() {
    let pool = Pool::start(2, 2);
    pool.cut(2);
    for batch in records(0..50_000).chunks(500) {
        put(&pool.node(1), batch).await;
    }
    assert_eq!(backlog(&pool.node(1)).records, 50_000);
    pool.heal();
    let started = tokio::time::Instant::now();
    pool.resync(1).await;
    println!("50,000 records of 3,000 bytes were brought back in {:?}", started.elapsed());
    assert_eq!(pool.node(2).store.n_records().unwrap(), 50_000);
    let started = tokio::time::Instant::now();
    pool.compare(2).await;
    println!("all 4,096 partitions were compared in {:?}", started.elapsed());
}
