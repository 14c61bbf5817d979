//! Keeps the data: segments on disk, their index, replication between sites, sessions, pins and job checkpoints.
//!
//! `node` is the core and knows neither gRPC nor TLS; `service` is the edge over it, `peer_client` the way to other nodes.
//! Under the core, `store` keeps records (`committer`, `segment`, `index`, `touch`) and `state` everything that must never
//! be lost and is small.
//!
//! The invariant to know: nothing is acknowledged before it is synced here, and nothing that was acknowledged is ever cut
//! off, overwritten or dropped by this crate.

mod committer;
pub mod disk;
mod error;
pub mod index;
mod metrics;
mod node;
mod options;
mod ownership;
mod peer_client;
mod peers;
mod pin;
mod pin_log;
mod roles;
pub mod segment;
mod server;
mod service;
mod session;
mod space;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod touch;

pub use error::Error;
pub use node::{Caller, Node, NodeSetup, NodeStatus, Replica};
pub use options::{GroupCommitOptions, StorageNodeOptions};
pub use peers::{PeerCall, PeerError, Peers, Presence, ReplicaOutcome, ReplicaPut};
pub use pin::{PinOutcome, PinsRead};
pub use roles::ROLE_TABLE;
pub use server::{NodeHandle, run, start};
pub use state::{Authority, Checkpoint, CheckpointId, PinSpace, Session};
pub use store::{PutOutcome, Store, StoreOptions};
