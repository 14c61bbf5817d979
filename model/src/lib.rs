//! The nouns of Holdfast: ids, fences, layout, accounts, and the traits for time and randomness. No I/O.
//!
//! # Words
//!
//! One word, one meaning; the same words stand in the wire format, the catalog, the logs and the documentation.
//!
//! | word | is |
//! |---|---|
//! | tenant | a Microsoft 365 directory |
//! | workload | mail, calendar, contacts, tasks, onedrive, sharepoint, teams, groups, directory |
//! | protected resource | one mailbox, drive, SharePoint site, team … (Microsoft: *protection unit*) |
//! | item | the smallest restorable object |
//! | snapshot | a finished recovery point of one (resource, workload) (Microsoft: *restore point*) |
//! | manifest | the trees of a snapshot |
//! | chunk | a content-addressed sealed piece |
//! | segment | an append-only file (or S3 object) of records |
//! | pin | a small replicated record that commits a snapshot and locks what it reaches |
//! | pool | a named group of sites with its own layout and replication |
//! | partition | a slice of the chunk-id space |
//! | layout | the versioned map partition → nodes |
//! | owner | a node to which the layout gives a partition |
//! | witness | a node that keeps pins and no data, so that a majority of pin owners is left without one site |
//! | move | the time in which partitions have new owners and their previous ones still keep the data |
//! | site | a place where storage nodes live, a failure domain; Microsoft's is always `sharepoint_site` |
//! | protection policy | scope + schedule + retention (Microsoft: *protection policy*) |
//! | run | one firing of a policy or command: a set of jobs |
//! | job | one leased unit of work |
//! | fence | (catalog generation, attempt): the higher one wins, the lower one is refused for ever |
//! | session | a worker's fenced permission to write, bound to an epoch |
//! | job checkpoint | a provisional pin that a killed job resumes from |
#![allow(clippy::module_name_repetitions)]

mod account;
mod authority;
mod fence;
mod id;
mod job;
mod layout;
mod recoverable;
mod resource;
mod time;

pub use account::Account;
pub use authority::{RecordKey, Role, SessionClaims, Verb};
pub use fence::{Epoch, Fence, Generation, LayoutVersion, Sequence, Term};
pub use id::{
    ChunkId, DataFolderId, JobId, NodeId, ParseIdError, PinHash, PoolId, ResourceId, RunId, SessionId,
    SiteName, SnapshotId, TenantId,
};
pub use job::{ConflictPolicy, ExportFormat, JobClass, JobKind, JobState};
pub use layout::{
    Layout, LayoutChange, LayoutError, LayoutFault, LayoutNode, LayoutPlan, NodeDuty, NodeMove,
    PARTITION_COUNT, PartitionId, PinHandover, Replication, check_layout,
};
pub use recoverable::{RECOVERABLE_PATH, asks_for_recoverable};
pub use resource::{ParseResourceError, ResourceKind, ResourceName, Workload};
pub use time::{Clock, Millis, Random};
