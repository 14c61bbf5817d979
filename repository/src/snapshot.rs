//! The snapshot object: what a pin names, and all that the next backup and a restore need to start.

use bytes::Bytes;
use holdfast_model::{Account, Millis, PinHash, ResourceId, Sequence, TenantId, Workload};

use crate::{
    error::Error,
    secret::ContentHash,
    wire::{Reader, push_counted},
};

const VERSION: u8 = 1;
const HAS_ITEMS: u8 = 1;
const HAS_CHILDREN: u8 = 2;

/// The roots of the two trees. An empty tree has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TreeRoots {
    /// Items by id.
    pub items: Option<ContentHash>,
    /// Children by (parent, sort, id).
    pub children: Option<ContentHash>,
}

impl TreeRoots {
    /// The bytes, for sealed checkpoints only: they hold content hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let flags = if self.items.is_some() { HAS_ITEMS } else { 0 }
            | if self.children.is_some() { HAS_CHILDREN } else { 0 };
        let mut out = vec![VERSION, flags];
        for root in [self.items, self.children].into_iter().flatten() {
            out.extend_from_slice(root.as_bytes());
        }
        out
    }

    /// Reads them back.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("tree roots", bytes);
        reader.version(VERSION)?;
        let flags = reader.u8()?;
        if flags & !(HAS_ITEMS | HAS_CHILDREN) != 0 {
            return Err(reader.malformed("unknown flags"));
        }
        let mut root = |bit: u8| -> Result<Option<ContentHash>, Error> {
            if flags & bit == 0 { Ok(None) } else { Ok(Some(ContentHash(reader.array()?))) }
        };
        let roots = Self { items: root(HAS_ITEMS)?, children: root(HAS_CHILDREN)? };
        reader.end()?;
        Ok(roots)
    }
}

/// What the snapshot object says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// Whose it is.
    pub tenant: TenantId,
    /// The resource.
    pub resource: ResourceId,
    /// What of it.
    pub workload: Workload,
    /// Its position.
    pub sequence: Sequence,
    /// The pin before it.
    pub parent: Option<PinHash>,
    /// Its trees; [`crate::SnapshotWriter::finish`] fills them in.
    pub roots: TreeRoots,
    /// The workload's own state: delta tokens, for example.
    pub state: Vec<u8>,
    /// What became of the items.
    pub account: Account,
    /// What failed, as JSON.
    pub failed: Vec<u8>,
    /// When the run started.
    pub started_ms: Millis,
    /// When it ended.
    pub finished_ms: Millis,
    /// Which worker made it.
    pub worker: String,
    /// The format of the workload's properties and state.
    pub format: u32,
}

impl SnapshotHeader {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = vec![VERSION, self.workload.code()];
        out.extend_from_slice(&self.tenant.0);
        out.extend_from_slice(&self.resource.0);
        for number in [self.sequence.0, self.started_ms, self.finished_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.format.to_le_bytes());
        out.push(u8::from(self.parent.is_some()));
        out.extend_from_slice(&self.parent.map_or([0; 32], |hash| hash.0));
        let account = serde_json::to_vec(&self.account).expect("an account is serialisable");
        let roots = self.roots.to_bytes();
        for bytes in [&roots[..], &account, self.worker.as_bytes(), &self.state, &self.failed] {
            push_counted(&mut out, bytes);
        }
        out.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::new("snapshot object", bytes);
        reader.version(VERSION)?;
        let workload =
            Workload::from_code(reader.u8()?).ok_or_else(|| reader.malformed("unknown workload"))?;
        let tenant = TenantId(reader.array()?);
        let resource = ResourceId(reader.array()?);
        let sequence = Sequence(reader.u64()?);
        let (started_ms, finished_ms) = (reader.u64()?, reader.u64()?);
        let format = reader.u32()?;
        let has_parent = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(reader.malformed("bad option")),
        };
        let parent = PinHash(reader.array()?);
        let roots = TreeRoots::from_bytes(reader.counted()?)?;
        let account =
            serde_json::from_slice(reader.counted()?).map_err(|_| reader.malformed("bad account"))?;
        let worker =
            std::str::from_utf8(reader.counted()?).map_err(|_| reader.malformed("bad text"))?.to_owned();
        let state = reader.counted()?.to_vec();
        let failed = reader.counted()?.to_vec();
        reader.end()?;
        Ok(Self {
            tenant,
            resource,
            workload,
            sequence,
            parent: has_parent.then_some(parent),
            roots,
            state,
            account,
            failed,
            started_ms,
            finished_ms,
            worker,
            format,
        })
    }
}
