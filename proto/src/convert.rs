//! Raw bytes and words of the wire to the nouns of `model`, and back. What cannot be read is a [`WireError`], never a panic.

use holdfast_model::{
    Account, Epoch, Fence, Generation, JobId, Layout, LayoutNode, LayoutVersion, NodeDuty, NodeId,
    PARTITION_COUNT, PartitionId, PinHandover, PoolId, Replication, ResourceId, Sequence, SessionClaims,
    TenantId, Verb, Workload,
};

use crate::{coordinator, status::ErrorCode, storage};

/// A field of a request or answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field '{field}' is {problem}")]
pub struct WireError {
    /// The field's name in the .proto.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        ErrorCode::BadRequest.status(error.to_string())
    }
}

/// Reads an id of fixed length from its bytes.
pub fn id<T>(field: &'static str, bytes: &[u8]) -> Result<T, WireError>
where
    T: FromBytes,
{
    T::from_bytes(bytes).ok_or(WireError { field, problem: "not an id of the right length" })
}

/// Ids that travel as raw bytes.
pub trait FromBytes: Sized {
    /// `None` when the length is wrong.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

macro_rules! from_bytes {
    ($($name:ty),+) => {
        $(impl FromBytes for $name {
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Self::from_slice(bytes).ok()
            }
        })+
    };
}
from_bytes!(
    TenantId,
    ResourceId,
    JobId,
    holdfast_model::ChunkId,
    holdfast_model::DataFolderId,
    holdfast_model::PinHash,
    holdfast_model::RunId,
    holdfast_model::SnapshotId
);

/// A message field that must be there.
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError { field, problem: "missing" })
}

/// A word of `model` in a string field.
pub fn word<T: std::str::FromStr>(field: &'static str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|_| WireError { field, problem: "not a known word" })
}

/// A workload's code.
pub fn workload(code: u32) -> Result<Workload, WireError> {
    u8::try_from(code)
        .ok()
        .and_then(Workload::from_code)
        .ok_or(WireError { field: "workload", problem: "not a known workload" })
}

impl From<Fence> for storage::Fence {
    fn from(fence: Fence) -> Self {
        Self { generation: fence.generation.0, attempt: fence.attempt }
    }
}

impl From<storage::Fence> for Fence {
    fn from(fence: storage::Fence) -> Self {
        Self { generation: Generation(fence.generation), attempt: fence.attempt }
    }
}

impl From<&Layout> for storage::Layout {
    fn from(layout: &Layout) -> Self {
        Self {
            version: layout.version.0,
            pool: layout.pool.0.clone(),
            copies: layout.replication.copies.into(),
            ack_sites: layout.replication.ack_sites.into(),
            nodes: layout.nodes.iter().map(Into::into).collect(),
            owners: layout.owners.iter().flatten().map(|index| u32::from(*index)).collect(),
            moved_in: layout.moved_in.0,
            moving: layout.previous.iter().map(moving_to_wire).collect(),
            handover_any_copy: layout.handover == PinHandover::AnyCopy,
        }
    }
}

impl From<&LayoutNode> for storage::LayoutNode {
    fn from(node: &LayoutNode) -> Self {
        Self {
            id: node.id.0,
            site: node.site.0.clone(),
            address: node.address.clone(),
            capacity_bytes: node.capacity_bytes,
            duty: match node.duty {
                NodeDuty::Data => storage::NodeDuty::Data,
                NodeDuty::Witness => storage::NodeDuty::Witness,
                NodeDuty::Drained => storage::NodeDuty::Drained,
            }
            .into(),
            folder: node.folder.map_or_else(Default::default, |folder| folder.0.to_vec().into()),
        }
    }
}

fn moving_to_wire((partition, previous): (&PartitionId, &Vec<u16>)) -> storage::MovingPartition {
    storage::MovingPartition {
        partition: partition.0.into(),
        previous: previous.iter().map(|index| u32::from(*index)).collect(),
    }
}

fn moving_from_wire(
    wire: storage::MovingPartition,
    n_nodes: usize,
) -> Result<(PartitionId, Vec<u16>), WireError> {
    let wrong = WireError { field: "moving", problem: "not a partition with known nodes" };
    let partition = u16::try_from(wire.partition).ok().filter(|p| *p < PARTITION_COUNT);
    let previous: Vec<u16> = wire.previous.iter().filter_map(|index| u16::try_from(*index).ok()).collect();
    let is_known = |index: &u16| usize::from(*index) < n_nodes;
    match partition {
        Some(partition) if previous.len() == wire.previous.len() && previous.iter().all(is_known) => {
            Ok((PartitionId(partition), previous))
        }
        _ => Err(wrong),
    }
}

impl TryFrom<storage::Layout> for Layout {
    type Error = WireError;

    fn try_from(wire: storage::Layout) -> Result<Self, WireError> {
        let copies =
            u8::try_from(wire.copies).map_err(|_| WireError { field: "copies", problem: "too many" })?;
        let ack_sites = u8::try_from(wire.ack_sites)
            .map_err(|_| WireError { field: "ack_sites", problem: "too many" })?;
        let wrong = WireError { field: "owners", problem: "not 4,096 rows of known nodes" };
        if copies == 0 || wire.owners.len() != usize::from(PARTITION_COUNT) * usize::from(copies) {
            return Err(wrong);
        }
        if wire.owners.iter().any(|index| *index as usize >= wire.nodes.len()) {
            return Err(wrong);
        }
        let owners = wire
            .owners
            .chunks(usize::from(copies))
            .map(|row| row.iter().filter_map(|index| u16::try_from(*index).ok()).collect())
            .collect();
        let n_nodes = wire.nodes.len();
        let previous = wire.moving.into_iter().map(|one| moving_from_wire(one, n_nodes));
        Ok(Self {
            version: LayoutVersion(wire.version),
            pool: PoolId(wire.pool),
            replication: Replication { copies, ack_sites },
            previous: previous.collect::<Result<_, _>>()?,
            nodes: wire.nodes.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            owners,
            moved_in: LayoutVersion(wire.moved_in),
            handover: match wire.handover_any_copy {
                true => PinHandover::AnyCopy,
                false => PinHandover::Committed,
            },
        })
    }
}

impl TryFrom<storage::LayoutNode> for LayoutNode {
    type Error = WireError;

    fn try_from(node: storage::LayoutNode) -> Result<Self, WireError> {
        let duty = match storage::NodeDuty::try_from(node.duty) {
            Ok(storage::NodeDuty::Data) => NodeDuty::Data,
            Ok(storage::NodeDuty::Witness) => NodeDuty::Witness,
            Ok(storage::NodeDuty::Drained) => NodeDuty::Drained,
            Err(_) => return Err(WireError { field: "duty", problem: "not a known duty" }),
        };
        let folder = if node.folder.is_empty() { None } else { Some(id("folder", &node.folder)?) };
        Ok(Self {
            id: NodeId(node.id),
            site: holdfast_model::SiteName(node.site),
            address: node.address,
            capacity_bytes: node.capacity_bytes,
            duty,
            folder,
        })
    }
}

/// A verb's code on the wire.
pub fn verb_code(verb: Verb) -> u32 {
    match verb {
        Verb::Read => 1,
        Verb::Write => 2,
        Verb::Commit => 3,
    }
}

fn verb(code: u32) -> Result<Verb, WireError> {
    match code {
        1 => Ok(Verb::Read),
        2 => Ok(Verb::Write),
        3 => Ok(Verb::Commit),
        _ => Err(WireError { field: "verbs", problem: "not a known verb" }),
    }
}

impl From<&SessionClaims> for storage::SessionTokenBody {
    fn from(claims: &SessionClaims) -> Self {
        Self {
            tenant: claims.tenant.0.to_vec().into(),
            pool: claims.pool.0.clone(),
            resource: claims.resource.0.to_vec().into(),
            workload: claims.workload.code().into(),
            job: claims.job.0.to_vec().into(),
            fence: Some(claims.fence.into()),
            epoch: claims.epoch.0,
            verbs: claims.verbs.iter().map(|verb| verb_code(*verb)).collect(),
            expires_at_ms: claims.expires_at_ms,
        }
    }
}

impl TryFrom<storage::SessionTokenBody> for SessionClaims {
    type Error = WireError;

    fn try_from(body: storage::SessionTokenBody) -> Result<Self, WireError> {
        Ok(Self {
            tenant: id("tenant", &body.tenant)?,
            pool: PoolId(body.pool),
            resource: id("resource", &body.resource)?,
            workload: workload(body.workload)?,
            job: id("job", &body.job)?,
            fence: required("fence", body.fence)?.into(),
            epoch: Epoch(body.epoch),
            verbs: body.verbs.into_iter().map(verb).collect::<Result<_, _>>()?,
            expires_at_ms: body.expires_at_ms,
        })
    }
}

/// What a commit ticket says: this pin, and no other, may take this sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Whose pin.
    pub tenant: TenantId,
    /// Of which resource.
    pub resource: ResourceId,
    /// And workload.
    pub workload: Workload,
    /// The sequence it takes.
    pub sequence: Sequence,
    /// The attempt that may do so.
    pub fence: Fence,
    /// BLAKE3 of the pin's bytes.
    pub pin_hash: holdfast_model::PinHash,
}

impl From<&Ticket> for storage::CommitTicketBody {
    fn from(ticket: &Ticket) -> Self {
        Self {
            tenant: ticket.tenant.0.to_vec().into(),
            resource: ticket.resource.0.to_vec().into(),
            workload: ticket.workload.code().into(),
            sequence: ticket.sequence.0,
            fence: Some(ticket.fence.into()),
            pin_hash: ticket.pin_hash.0.to_vec().into(),
        }
    }
}

impl TryFrom<storage::CommitTicketBody> for Ticket {
    type Error = WireError;

    fn try_from(body: storage::CommitTicketBody) -> Result<Self, WireError> {
        Ok(Self {
            tenant: id("tenant", &body.tenant)?,
            resource: id("resource", &body.resource)?,
            workload: workload(body.workload)?,
            sequence: Sequence(body.sequence),
            fence: required("fence", body.fence)?.into(),
            pin_hash: id("pin_hash", &body.pin_hash)?,
        })
    }
}

macro_rules! same_fields {
    ($a:ty, $b:ty: $($field:ident),+ $(,)?) => {
        impl From<$a> for $b {
            fn from(from: $a) -> Self {
                Self { $($field: from.$field),+ }
            }
        }

        impl From<$b> for $a {
            fn from(from: $b) -> Self {
                Self { $($field: from.$field),+ }
            }
        }
    };
}

same_fields!(
    Account, coordinator::Account:
    listed, stored, unchanged, skipped, gone, failed_retryable, failed_permanent, removed, carried, bytes_read,
    bytes_stored, requests, incomplete,
);

#[cfg(test)]
mod tests {
    use holdfast_model::LayoutChange;

    use super::*;

    #[test]
    fn a_layout_survives_the_wire() {
        let node =
            |id: u64, site: &str| LayoutNode::new(NodeId(id), site.into(), "127.0.0.1:1".to_owned(), 1);
        let nodes = vec![node(1, "a"), node(2, "b"), node(3, "b")];
        let layout =
            Layout::compute(LayoutVersion(3), "p".into(), Replication::default(), nodes.clone()).unwrap();
        assert_eq!(Layout::try_from(storage::Layout::from(&layout)).unwrap(), layout);

        let mut nodes = nodes[..2].to_vec();
        nodes[0].folder = Some(holdfast_model::DataFolderId([7; 16]));
        let change = LayoutChange { nodes, replication: Replication::default(), lost: [NodeId(2)].into() };
        let moving = layout.changed(LayoutVersion(4), change).unwrap();
        assert!(moving.is_moving() && moving.handover == PinHandover::AnyCopy);
        assert_eq!(Layout::try_from(storage::Layout::from(&moving)).unwrap(), moving);
    }

    #[test]
    fn an_account_survives_the_wire_to_the_last_field() {
        let account = Account {
            listed: 1,
            stored: 2,
            incomplete: 3,
            unchanged: 4,
            skipped: 5,
            gone: 6,
            failed_retryable: 7,
            failed_permanent: 8,
            removed: 9,
            carried: 10,
            bytes_read: 11,
            bytes_stored: 12,
            requests: 13,
        };
        assert_eq!(Account::from(coordinator::Account::from(account)), account);
    }

    #[test]
    fn a_layout_that_names_unknown_nodes_is_refused() {
        let wire = storage::Layout { copies: 1, owners: vec![7; 4096], ..Default::default() };
        assert_eq!(Layout::try_from(wire).unwrap_err().field, "owners");
    }
}
