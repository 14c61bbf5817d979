//! Who a process is, and what a session token lets it do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{ChunkId, Epoch, Fence, JobId, Millis, PoolId, ResourceId, TenantId, Workload};

/// The role a certificate carries, as `holdfast://<cluster>/<role>/<name>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Decides.
    Coordinator,
    /// Moves data.
    Worker,
    /// Keeps data.
    StorageNode,
    /// A person or a script at the command line.
    Operator,
}

impl Role {
    /// The word in the certificate.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Worker => "worker",
            Self::StorageNode => "storage-node",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "coordinator" => Ok(Self::Coordinator),
            "worker" => Ok(Self::Worker),
            "storage-node" => Ok(Self::StorageNode),
            "operator" => Ok(Self::Operator),
            _ => Err(format!("'{text}' is not a role")),
        }
    }
}

/// What a session token allows at the storage nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Fetch records and pins.
    Read,
    /// Open a session, ask `have`, put records, keep a job checkpoint.
    Write,
    /// Put a pin, with a commit ticket.
    Commit,
}

/// What the coordinator signs for a job: the only thing a storage node believes about a caller besides its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionClaims {
    /// The only tenant whose records the token reaches.
    pub tenant: TenantId,
    /// The pool the tenant belongs to.
    pub pool: PoolId,
    /// The only resource whose pins the token reaches.
    pub resource: ResourceId,
    /// The only workload of it.
    pub workload: Workload,
    /// The job it was made for.
    pub job: JobId,
    /// The attempt it was made for.
    pub fence: Fence,
    /// The epoch when it was made.
    pub epoch: Epoch,
    /// What it allows.
    pub verbs: Vec<Verb>,
    /// After this the token is refused; heartbeats bring a new one.
    pub expires_at_ms: Millis,
}

/// Names the partition-independent identity of a record: tenants never share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKey {
    /// The dedup domain.
    pub tenant: TenantId,
    /// The chunk within it.
    pub id: ChunkId,
}
