//! The core of a storage node: who may do what, and what happens to records here and on the other owners.
//!
//! Invariant: an answer about a replica says what that replica itself has synced, never what is hoped for. Sessions and job
//! checkpoints are in `session.rs`, pins in `pin.rs`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use holdfast_model::{
    ChunkId, Clock, DataFolderId, Fence, Layout, LayoutNode, Millis, NodeId, PartitionId, Random, RecordKey,
    SessionClaims, SessionId, SiteName, Verb,
};
use holdfast_proto::{convert::Ticket, storage::SessionToken};
use holdfast_record::SealedRecord;

use crate::{
    Error, Executor, Peers, StorageNodeOptions, StoreOptions,
    admission::Admissions,
    disk::Disk,
    disks::{Disks, Folders, Opening},
    metrics,
    peers::{PeerCall, PeerError, Presence, ReplicaOutcome, ReplicaPut},
    pin_log::PinLog,
    repair::{Repair, RepairQueue},
    segment::{OPEN_FILES_MAX, SegmentIdentity, WriterSetup},
    space::StopPercents,
    state::{Authority, PinSpace, State, StateFailure},
};

mod status;

pub use status::NodeStatus;

/// Ids in one question.
pub(crate) const IDS_MAX: usize = 4_096;
/// Records in one put.
pub(crate) const RECORDS_MAX: usize = 8_192;

/// Which fences may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FenceRule {
    /// None below the highest seen: the rule of every real node.
    #[default]
    Highest,
    /// Any: a planted defect, which the simulation must find. No configuration makes it.
    Any,
}

/// What a node is made of, beside its options.
pub struct NodeSetup {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// Where work runs that waits for it.
    pub executor: Executor,
    /// Which fences may write.
    pub fence_rule: FenceRule,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The other nodes.
    pub peers: Arc<dyn Peers>,
}

/// Who calls: what the coordinator signed, checked.
#[derive(Clone)]
pub struct Caller {
    /// What it signed.
    pub claims: SessionClaims,
    /// As it came, for the other owners.
    pub token: SessionToken,
}

impl Caller {
    pub(crate) fn space(&self) -> PinSpace {
        let SessionClaims { tenant, resource, workload, .. } = self.claims;
        PinSpace { tenant, resource, workload }
    }

    /// Whether the token reaches what the ticket commits.
    pub(crate) fn may_commit(&self, ticket: &Ticket) -> Result<(), Error> {
        if !self.claims.verbs.contains(&Verb::Commit) {
            return Err(Error::VerbMissing(Verb::Commit));
        }
        let theirs = PinSpace { tenant: ticket.tenant, resource: ticket.resource, workload: ticket.workload };
        if theirs == self.space() { Ok(()) } else { Err(Error::NotYours("resource")) }
    }

    fn key(&self, id: ChunkId) -> RecordKey {
        RecordKey { tenant: self.claims.tenant, id }
    }
}

/// One replica's part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica<T> {
    /// Which node.
    pub node: NodeId,
    /// Where it stands.
    pub site: SiteName,
    /// What it says.
    pub answer: T,
}

/// A storage node without its network.
pub struct Node {
    pub(crate) id: NodeId,
    pub(crate) site: SiteName,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Executor,
    fence_rule: FenceRule,
    /// The wall clock and the monotonic one when the node started.
    started: (Millis, Duration),
    pub(crate) state: Arc<State>,
    pub(crate) pin_log: Arc<Mutex<PinLog>>,
    pub(crate) store: Arc<Disks>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) repair: Repair,
    pub(crate) folder: DataFolderId,
    pub(crate) admissions: Arc<Admissions>,
}

impl Node {
    /// Opens the data folder. Blocks on the disk.
    pub fn open(options: &StorageNodeOptions, setup: NodeSetup) -> Result<Self, Error> {
        options.check()?;
        let folders = Folders::look_at(options, &*setup.disk)?;
        let folder = folders.data.open(options, &*setup.disk, &*setup.random)?;
        let state = Arc::new(State::open(&*setup.disk, &folder.state())?);
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&blake3::hash(options.cluster.as_bytes()).as_bytes()[..16]);
        let identity = SegmentIdentity {
            cluster,
            node: options.node_id,
            disk: folder.disk_id,
            generation: state.authority().generation.0,
        };
        let pin_setup = WriterSetup {
            disk: setup.disk.clone(),
            dir: folder.segments.clone(),
            identity,
            target_bytes: options.segment_target.bytes(),
            random: setup.random.clone(),
        };
        let pin_log = Arc::new(Mutex::new(PinLog::open(pin_setup, folder.quarantine.clone(), &state)?));
        let repair_queue = RepairQueue::open(&*setup.disk, &folder.repair(), setup.clock.clone())?;
        let repair_queue = Arc::new(repair_queue);
        let shared = StoreOptions {
            disk: setup.disk,
            executor: setup.executor.clone(),
            clock: setup.clock.clone(),
            random: setup.random,
            identity,
            segment_target_bytes: options.segment_bytes(),
            group_bytes: options.group_commit.bytes.bytes(),
            group_time: Duration::from_millis(options.group_commit.millis),
            seal_after: options.s3.as_ref().map(|s3| Duration::from_secs(s3.upload_seconds)),
            capacity_bytes: options.capacity.bytes(),
            open_files: OPEN_FILES_MAX,
            stops: StopPercents { ingest: options.ingest_stop_percent, repair: options.repair_stop_percent },
            repair_queue: repair_queue.clone(),
        };
        let store = Opening { options, state: &state, shared }.open(&folder, folders.others)?;
        let store = Arc::new(store);
        Ok(Self {
            id: NodeId(options.node_id),
            site: SiteName(options.site.clone()),
            started: (setup.clock.now_ms(), setup.clock.monotonic()),
            clock: setup.clock,
            executor: setup.executor,
            fence_rule: setup.fence_rule,
            state,
            pin_log,
            store,
            peers: setup.peers,
            repair: Repair::new(repair_queue, &options.repair),
            folder: DataFolderId(folder.disk_id),
            admissions: Arc::default(),
        })
    }

    /// Finishes what is in flight and checkpoints the index.
    pub async fn close(&self) -> Result<(), Error> {
        self.store.close().await?;
        self.repair.queue.flush()
    }

    /// The newest layout.
    pub fn layout(&self) -> Option<Arc<Layout>> {
        self.state.layout()
    }

    /// What the coordinator has installed.
    pub fn authority(&self) -> Authority {
        self.state.authority()
    }

    /// Which node.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Where it stands.
    pub fn site(&self) -> &SiteName {
        &self.site
    }

    /// The disks under the node.
    pub fn store(&self) -> &Arc<Disks> {
        &self.store
    }

    /// The time that leases end by: a wall clock that jumps while the node runs ends no session and keeps none.
    pub(crate) fn lease_now_ms(&self) -> Millis {
        let (wall_ms, monotonic) = self.started;
        let since = self.clock.monotonic().saturating_sub(monotonic).as_millis();
        wall_ms.saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
    }

    // === Who may do what ===

    /// Checks what a token allows now: a stream is checked again at each message.
    pub(crate) fn check(&self, caller: &Caller, verb: Verb) -> Result<(), Error> {
        if !caller.claims.verbs.contains(&verb) {
            return Err(Error::VerbMissing(verb));
        }
        if caller.claims.expires_at_ms <= self.clock.now_ms() {
            return Err(Error::Signed(holdfast_proto::signed::SignedError::Expired));
        }
        let layout = self.layout().ok_or(Error::NoLayout)?;
        if caller.claims.pool != layout.pool {
            return Err(Error::NotYours("pool"));
        }
        if verb == Verb::Read { Ok(()) } else { self.check_numbers(caller) }
    }

    /// The lowest fence that may still write: the highest seen, and never of an older generation than the node's.
    pub(crate) fn fence_floor(&self, space: &PinSpace) -> Fence {
        if self.fence_rule == FenceRule::Any {
            return Fence::default();
        }
        let generation = self.state.authority().generation;
        self.state.highest_fence(space).max(Fence { generation, attempt: 0 })
    }

    fn check_numbers(&self, caller: &Caller) -> Result<(), Error> {
        let highest = self.fence_floor(&caller.space());
        if caller.claims.fence < highest {
            return Err(Error::Fenced { offered: caller.claims.fence, highest });
        }
        self.check_epoch(caller.claims.epoch)
    }

    /// What started before the last epoch is not protected any more.
    pub(crate) fn check_epoch(&self, offered: holdfast_model::Epoch) -> Result<(), Error> {
        let current = self.state.epoch();
        if offered.next() < current { Err(Error::StaleEpoch { offered, current }) } else { Ok(()) }
    }

    pub(crate) fn check_pin_owner(&self, space: &PinSpace) -> Result<(), Error> {
        let layout = self.layout().ok_or(Error::NoLayout)?;
        let partition = PartitionId::of_pins(space.tenant, space.resource);
        if !layout.owns_pins(self.id, partition) {
            return Err(Error::NotOwner(partition));
        }
        if self.is_taken_over(&layout, partition) { Ok(()) } else { Err(Error::NotReady(partition)) }
    }

    fn protecting_epoch(&self, caller: &Caller) -> u64 {
        self.state.epoch().max(caller.claims.epoch).0
    }

    // === Have ===

    /// Which records this node and the other owners have; protected where the answer is yes.
    pub async fn have(
        &self,
        caller: &Caller,
        session: SessionId,
        ids: Vec<ChunkId>,
    ) -> Result<Vec<Replica<Vec<Presence>>>, Error> {
        self.check(caller, Verb::Write)?;
        limit("ids", ids.len(), IDS_MAX)?;
        let layout = self.layout().ok_or(Error::NoLayout)?;
        let call = PeerCall { token: caller.token.clone(), session, layout: layout.version };
        let asked = self.other_owners(&layout, ids.iter().copied());
        let others = join_all(asked.into_values().map(|(peer, positions)| {
            let (ids, call) = (&ids, &call);
            async move {
                let theirs: Vec<ChunkId> = positions.iter().map(|at| ids[*at]).collect();
                let answer = self.peers.have_local(&peer, call, &theirs).await;
                let answer = fitting(answer, theirs.len(), Vec::len).unwrap_or_else(|error| {
                    tracing::debug!(peer = %peer.id, %error, "replica could not be asked");
                    vec![Presence::Unknown; theirs.len()]
                });
                let answer = spread(ids.len(), Presence::NotOwner, &positions, answer);
                Replica { node: peer.id, site: peer.site, answer }
            }
        }));
        let (own, others) = futures::join!(self.have_local(caller, ids.clone()), others);
        let own = Replica { node: self.id, site: self.site.clone(), answer: own? };
        Ok(std::iter::once(own).chain(others).collect())
    }

    /// Which records this node alone has.
    pub async fn have_local(&self, caller: &Caller, ids: Vec<ChunkId>) -> Result<Vec<Presence>, Error> {
        self.check(caller, Verb::Write)?;
        limit("ids", ids.len(), IDS_MAX)?;
        let layout = self.layout().ok_or(Error::NoLayout)?;
        self.check_owned(&layout, ids.iter().copied())?;
        let keys = ids.iter().map(|id| caller.key(*id)).collect();
        let found = self.store.have(keys, self.protecting_epoch(caller)).await?;
        Ok(found.into_iter().map(|there| if there { Presence::Yes } else { Presence::Absent }).collect())
    }

    // === Put ===

    /// Stores records here and at the other owners, at the same time. Each answer means: synced there.
    pub async fn put(
        &self,
        caller: &Caller,
        session: SessionId,
        records: Vec<Bytes>,
    ) -> Result<Vec<Replica<ReplicaPut>>, Error> {
        let layout = self.layout().ok_or(Error::NoLayout)?;
        let prepared = self.prepare(caller, session, records.clone()).await?;
        let keys: Vec<RecordKey> = prepared.iter().map(SealedRecord::key).collect();
        let call = PeerCall { token: caller.token.clone(), session, layout: layout.version };
        let targets = self.other_owners(&layout, prepared.iter().map(|record| record.header.id));
        let others = join_all(targets.into_values().map(|(peer, positions)| {
            let (records, call) = (&records, &call);
            async move {
                let theirs: Vec<Bytes> = positions.iter().map(|at| records[*at].clone()).collect();
                let n = theirs.len();
                let answer = self.peers.replicate(&peer, call, theirs).await;
                self.note_reach(&peer, &answer);
                let answer = fitting(answer, n, |put| put.outcomes.len()).unwrap_or_else(|error| {
                    metrics::replica_failed();
                    tracing::debug!(peer = %peer.id, %error, "replica did not store");
                    ReplicaPut::failed(n, format!("{} in site {}: {error}", peer.id, peer.site))
                });
                let outcomes = spread(records.len(), ReplicaOutcome::NotOwner, &positions, answer.outcomes);
                let answer = ReplicaPut { outcomes, reason: answer.reason };
                Replica { node: peer.id, site: peer.site, answer }
            }
        }));
        let (own, others) = futures::join!(self.put_prepared(caller, prepared), others);
        let own = Replica { node: self.id, site: self.site.clone(), answer: own };
        let replicas: Vec<_> = std::iter::once(own).chain(others).collect();
        self.hint(&keys, &replicas).await;
        Ok(replicas)
    }

    /// Stores records on this node alone.
    pub async fn replicate(
        &self,
        caller: &Caller,
        session: SessionId,
        records: Vec<Bytes>,
    ) -> Result<ReplicaPut, Error> {
        let prepared = self.prepare(caller, session, records).await?;
        Ok(self.put_prepared(caller, prepared).await)
    }

    async fn put_prepared(&self, caller: &Caller, records: Vec<SealedRecord>) -> ReplicaPut {
        self.store.put(records, self.protecting_epoch(caller)).await
    }

    /// Decodes and verifies every record, and checks whose it is and where it belongs.
    async fn prepare(
        &self,
        caller: &Caller,
        session: SessionId,
        records: Vec<Bytes>,
    ) -> Result<Vec<SealedRecord>, Error> {
        self.check(caller, Verb::Write)?;
        limit("records", records.len(), RECORDS_MAX)?;
        let layout = self.layout().ok_or(Error::NoLayout)?;
        let (tenant, write_epoch) = (caller.claims.tenant, self.protecting_epoch(caller));
        let decode = self.executor.run(move || {
            let decoded = records.into_iter().map(|bytes| {
                let mut record = SealedRecord::decode(bytes).map_err(Error::bad("record"))?;
                record.verify().map_err(Error::bad("record"))?;
                if record.header.tenant != tenant {
                    return Err(Error::NotYours("tenant"));
                }
                record.placement.session = session.0;
                record.placement.write_epoch = write_epoch;
                Ok(record)
            });
            decoded.collect::<Result<Vec<_>, Error>>()
        });
        let prepared = decode.await?;
        self.check_owned(&layout, prepared.iter().map(|record| record.header.id))?;
        Ok(prepared)
    }

    pub(crate) fn check_owned(
        &self,
        layout: &Layout,
        ids: impl Iterator<Item = ChunkId>,
    ) -> Result<(), Error> {
        let foreign = ids.map(PartitionId::of_chunk).find(|partition| !layout.owns(self.id, *partition));
        foreign.map_or(Ok(()), |partition| Err(Error::NotOwner(partition)))
    }

    /// The other owners of the ids, each with the positions of those it owns.
    pub(crate) fn other_owners(
        &self,
        layout: &Layout,
        ids: impl Iterator<Item = ChunkId>,
    ) -> BTreeMap<NodeId, (LayoutNode, Vec<usize>)> {
        let mut owners: BTreeMap<NodeId, (LayoutNode, Vec<usize>)> = BTreeMap::new();
        for (position, id) in ids.enumerate() {
            for owner in layout.owners_of(PartitionId::of_chunk(id)).filter(|owner| owner.id != self.id) {
                owners.entry(owner.id).or_insert_with(|| (owner.clone(), Vec::new())).1.push(position);
            }
        }
        owners
    }

    // === Get ===

    /// Reads records of the caller's tenant in order, up to about `budget` bytes but at least one: says one per id that was read.
    pub async fn get(
        &self,
        caller: &Caller,
        ids: &[ChunkId],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, Error> {
        self.check(caller, Verb::Read)?;
        limit("ids", ids.len(), IDS_MAX)?;
        let keys: Vec<RecordKey> = ids.iter().map(|id| caller.key(*id)).collect();
        let store = self.store.clone();
        self.executor.run(move || store.read(&keys, budget)).await
    }

    // === Coordinator and operator ===

    /// Installs generation, epoch and layout. Lower ones than seen are refused.
    pub fn apply(&self, offered: Authority) -> Result<Authority, Error> {
        self.state.deciding(|| {
            let mut next = self.state.authority();
            let stale = |what, offered, seen| Err(Error::StaleAuthority { what, offered, seen });
            if offered.generation < next.generation {
                return stale("generation", offered.generation.0, next.generation.0);
            }
            if offered.epoch < next.epoch {
                return stale("epoch", offered.epoch.0, next.epoch.0);
            }
            if let Some(layout) = &offered.layout {
                self.check_layout(layout, next.layout.as_deref())?;
                next.layout = Some(layout.clone());
            }
            (next.generation, next.epoch) = (offered.generation, offered.epoch);
            self.state.set_authority(next.clone())?;
            let version = next.layout.as_ref().map_or(0, |layout| layout.version.0);
            tracing::info!(
                generation = next.generation.0,
                epoch = next.epoch.0,
                layout = version,
                "layout applied"
            );
            Ok(next)
        })
    }

    fn check_layout(&self, offered: &Layout, current: Option<&Layout>) -> Result<(), Error> {
        let version = offered.version.0;
        let refuse = |problem| Err(Error::LayoutRefused { version, problem });
        if let Some(current) = current {
            if offered.version < current.version {
                let (offered, seen) = (version, current.version.0);
                return Err(Error::StaleAuthority { what: "layout version", offered, seen });
            }
            if offered.version == current.version && offered != current {
                return refuse("another layout of this version is installed");
            }
            if offered.pool != current.pool {
                return refuse("it is of another pool than this node");
            }
        }
        if offered.node(self.id).is_some_and(|node| node.site != self.site) {
            return refuse("it places this node in another site than its configuration");
        }
        let known = offered.node(self.id).and_then(|node| node.folder);
        if known.is_some_and(|known| known != self.folder) {
            return refuse(
                "it knows this node with another data folder, so the node has lost what it kept: run `holdfast layout apply --lost \
                 NODE`",
            );
        }
        Ok(())
    }

    /// Why the node must end so that its next start opens everything again, if so; while the state has no room, that would fail
    /// too.
    pub fn must_end(&self) -> Option<Error> {
        let state_failed = match self.state.failure() {
            None => false,
            Some(StateFailure::Broken) => true,
            Some(StateFailure::NoRoom) => self.store.has_checkpoint_room(),
        };
        if state_failed {
            return Some(Error::StateFailed);
        }
        self.store.failed().map(|path| Error::DiskFailed(path.to_owned()))
    }

    /// Looks at the disks and at what waits for repair, and ends lapsed sessions.
    pub async fn housekeeping(self: &Arc<Self>) -> Result<(), Error> {
        let node = self.clone();
        let look = move || {
            node.store.look_after();
            node.repair_status()?;
            node.end_lapsed_sessions()
        };
        self.executor.run(look).await
    }
}

pub(crate) fn limit(what: &'static str, n: usize, limit: usize) -> Result<(), Error> {
    if n > limit { Err(Error::TooMany { what, limit }) } else { Ok(()) }
}

/// An answer with as many parts as the question.
pub(crate) fn fitting<T>(
    answer: Result<T, PeerError>,
    n: usize,
    len: impl Fn(&T) -> usize,
) -> Result<T, PeerError> {
    answer.and_then(|answer| if len(&answer) == n { Ok(answer) } else { Err(PeerError::Nonsense) })
}

/// Puts the answers of some positions among all.
fn spread<T: Copy>(n: usize, elsewhere: T, positions: &[usize], answers: Vec<T>) -> Vec<T> {
    let mut all = vec![elsewhere; n];
    for (position, answer) in positions.iter().zip(answers) {
        all[*position] = answer;
    }
    all
}

#[cfg(test)]
mod tests;
