//! The only code that talks to storage nodes: routing by layout, pipelined have, put and get, and majorities of pin owners.
//!
//! # Invariants
//!
//! - A record counts as durable only when `ack_sites` distinct sites of the layout have said so for it, each by an owner.
//! - A pin counts as committed only when a majority of the owners of its pin partition has stored it.
//! - Every request says by which layout it is made. A node that refuses it, because owners have changed since or because it
//!   has not taken over yet, has not answered: it counts neither for nor against anything.
//! - Nothing here decides by time what is safe: time only ends waiting.
//! - Every buffer is bounded: what a session holds for the nodes is at most [`StorageClientOptions::in_flight_bytes`].

mod client;
mod error;
mod fetch;
mod have;
mod metrics;
mod nodes;
mod options;
mod pins;
mod put;
mod put_lane;
mod quorum;
mod reader;
mod session;
mod status;

pub use client::{AppliedLayout, NodeHello, StorageClient};
pub use options::StorageClientOptions;
pub use pins::{CommitOutcome, PinsView, RaiseOutcome};
pub use reader::ReadStore;
pub use session::{SessionParams, StorageSession};
pub use status::{NodeStatus, RepairStatus, UploadStatus};
