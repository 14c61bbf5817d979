//! Keeps the data: segments on disk, their index, replication between sites, sessions, pins and job checkpoints.
//!
//! `node` is the core and knows neither gRPC nor TLS; `service` is the edge over it, `peer_client` the way to other nodes.
//! Under the core, `disks` spreads records over a `store` per disk (`committer`, `segment`, `index`, `touch`), and `state`
//! keeps everything that must never be lost and is small. What the core knows of the world is passed in: `disk`, `executor`,
//! peers, clock, randomness.
//!
//! The invariant to know: nothing is acknowledged before it is synced here, and nothing that was acknowledged is ever cut
//! off, overwritten or dropped by this crate.

mod admission;
mod committer;
#[cfg(test)]
mod crash_tests;
mod database;
pub mod disk;
mod disks;
mod error;
mod executor;
mod format;
mod handover;
pub mod index;
mod metrics;
mod node;
pub mod object;
mod options;
mod ownership;
mod peer_client;
mod peers;
mod pin;
mod pin_log;
mod repair;
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
mod tokens;
mod touch;

pub use error::Error;
pub use executor::{DiskTime, Executor};
pub use node::{Caller, FenceRule, Node, NodeSetup, NodeStatus, Replica};
pub use options::{
    DiskOptions, GroupCommitOptions, LockOption, RepairOptions, S3Options, StorageNodeOptions,
};
pub use peer_client::PeerClient;
pub use peers::{PeerCall, PeerError, Peers, Presence, ReplicaOutcome, ReplicaPut};
pub use pin::{PinOutcome, PinsRead};
pub use repair::{
    Backlog, Copy, Digest, KeyPage, Pace, Protection, RepairPeers, RepairService, RepairStatus,
    into_repair_server,
};
pub use roles::ROLE_TABLE;
pub use server::{NodeHandle, run, start};
pub use service::{Service, into_server};
pub use state::{Authority, Checkpoint, CheckpointId, PinSpace, Session};
pub use store::{PutOutcome, Store, StoreOptions};
