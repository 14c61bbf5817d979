//! Ids are newtypes: a tenant's id cannot be handed where a resource's is asked for.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{Random, Sequence, Workload};

/// The text is not an id: wrong length or not hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind} id: expected {digits} hexadecimal digits")]
pub struct ParseIdError {
    /// What kind of id was asked for.
    pub kind: &'static str,
    /// How many digits it has.
    pub digits: usize,
}

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Reads the id from a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self, ParseIdError> {
                bytes.try_into().map(Self).map_err(|_| ParseIdError { kind: $kind, digits: $len * 2 })
            }

            /// The raw bytes, as they stand in records and on the wire.
            pub fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Makes a fresh random id.
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; $len];
                random.fill(&mut bytes);
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; $len];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| ParseIdError { kind: $kind, digits: $len * 2 })?;
                Ok(Self(bytes))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

byte_id!(
    /// A Microsoft 365 directory, by our own random id; Microsoft's GUID is an attribute of it.
    TenantId, "tenant", 16
);
byte_id!(
    /// A protected resource, by our own random id: a pseudonym that storage may see.
    ResourceId, "resource", 16
);
byte_id!(
    /// One leased unit of work.
    JobId, "job", 16
);
byte_id!(
    /// One firing of a policy or command.
    RunId, "run", 16
);
byte_id!(
    /// What storage calls a chunk: a keyed hash from which nobody gets back to the content hash.
    ChunkId, "chunk", 32
);
byte_id!(
    /// The data folder that holds a storage node's state, by its own random id: a node whose folder was lost has another.
    DataFolderId, "data folder", 16
);
byte_id!(
    /// BLAKE3 of a pin's bytes.
    PinHash, "pin", 32
);
byte_id!(
    /// A finished recovery point, as the operator names it: derived from (tenant, resource, workload, sequence).
    SnapshotId, "snapshot", 8
);

impl SnapshotId {
    /// Derives the id of a snapshot. One pin per sequence makes it unique.
    pub fn derive(tenant: TenantId, resource: ResourceId, workload: Workload, sequence: Sequence) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("holdfast snapshot id 1");
        hasher.update(&tenant.0);
        hasher.update(&resource.0);
        hasher.update(&[workload.code()]);
        hasher.update(&sequence.0.to_le_bytes());
        let mut id = [0; 8];
        hasher.finalize_xof().fill(&mut id);
        Self(id)
    }
}

/// A worker's session at the storage nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// A storage node, for the life of its disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node-{}", self.0)
    }
}

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

name_id!(
    /// A place where storage nodes live: a failure domain.
    SiteName
);
name_id!(
    /// A named group of sites with its own layout and replication; a tenant belongs to one.
    PoolId
);
